//! A place in a listing, as text that a client hands back.

use std::fmt;
use std::str::FromStr;

use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;

use super::range::TimeAxis;

/// The place after the last entry of a page. Its text is opaque: hexadecimal, 58 characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cursor {
    pub(super) axis: TimeAxis,
    pub(super) descending: bool,
    pub(super) time: UnixMs,
    pub(super) number: FragmentNumber,
}

/// The text is no cursor.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a page token")]
pub struct ParseCursorError;

impl Cursor {
    /// The clock that its listing is in order of.
    #[must_use]
    pub fn axis(&self) -> TimeAxis {
        self.axis
    }

    /// Its listing has the newest first.
    #[must_use]
    pub fn is_descending(&self) -> bool {
        self.descending
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let order = [u8::from(self.axis == TimeAxis::Server) | u8::from(self.descending) << 1];
        let mut bytes = order.into_iter().chain(self.time.0.to_be_bytes()).chain(*self.number.as_bytes());
        bytes.try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = ParseCursorError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let [order, place @ ..]: [u8; 29] = from_hex(text).ok_or(ParseCursorError)?;
        let (axis, descending) = match order {
            0 => (TimeAxis::Producer, false),
            1 => (TimeAxis::Server, false),
            2 => (TimeAxis::Producer, true),
            3 => (TimeAxis::Server, true),
            _ => return Err(ParseCursorError),
        };
        let (time, number) = place.split_first_chunk::<8>().ok_or(ParseCursorError)?;
        let number: [u8; 20] = number.try_into().map_err(|_| ParseCursorError)?;
        let (time, number) = (UnixMs(i64::from_be_bytes(*time)), FragmentNumber::from_bytes(number));
        Ok(Self { axis, descending, time, number })
    }
}

/// `N` bytes of exactly `2 N` hexadecimal digits.
pub(crate) fn from_hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    if text.len() != 2 * N {
        return None;
    }
    let digit = |byte: u8| char::from(byte).to_digit(16).and_then(|digit| u8::try_from(digit).ok());
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let [high, low] = pair else { return None };
        *byte = digit(*high)? << 4 | digit(*low)?;
    }
    Some(bytes)
}
