//! Points in time and media ticks.
//!
//! Milliseconds since the Unix epoch are [`UnixMs`]; media time is in ticks of a track's own timescale. All conversions
//! between the two stand here, in 128-bit arithmetic, with the rounding in the name.

use std::fmt;

use serde::{Deserialize, Serialize};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// Milliseconds since 1970-01-01T00:00:00Z. Negative values are valid (some cameras start there).
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Debug, Default)]
pub struct UnixMs(pub i64);

/// The text is no time.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a time: expected RFC 3339, or seconds or milliseconds since 1970")]
pub struct ParseTimeError;

impl UnixMs {
    /// The later of what representable arithmetic gives; never wraps.
    #[must_use]
    pub const fn plus_ms(self, ms: i64) -> Self {
        Self(self.0.saturating_add(ms))
    }

    /// `self - earlier` in milliseconds; never wraps.
    #[must_use]
    pub const fn since_ms(self, earlier: Self) -> i64 {
        self.0.saturating_sub(earlier.0)
    }

    /// Reads RFC 3339, or a plain number: from 10^11 on milliseconds, below it seconds (with a fraction if given).
    ///
    /// # Errors
    /// If the text is neither, or outside the years 0 to 9999.
    pub fn parse(text: &str) -> Result<Self, ParseTimeError> {
        let text = text.trim();
        if let Ok(number) = text.parse::<i64>() {
            let ms = if number.unsigned_abs() >= 100_000_000_000 { Some(number) } else { number.checked_mul(1000) };
            return ms.map(Self).and_then(Self::representable).ok_or(ParseTimeError);
        }
        if text.bytes().all(|byte| byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'+' | b'e' | b'E'))
            && let Ok(number) = text.parse::<f64>()
            && number.is_finite()
        {
            let ms = if number.abs() >= 1e11 { number } else { number * 1000.0 };
            return Self(ms.round() as i64).representable().ok_or(ParseTimeError);
        }
        let at = OffsetDateTime::parse(text, &Rfc3339).map_err(|_| ParseTimeError)?;
        i64::try_from(at.unix_timestamp_nanos().div_euclid(1_000_000)).map(Self).map_err(|_| ParseTimeError)
    }

    fn representable(self) -> Option<Self> {
        // Years 0 to 9999: what RFC 3339 can write.
        (-62_167_219_200_000..=253_402_300_799_999).contains(&self.0).then_some(self)
    }
}

impl fmt::Display for UnixMs {
    /// RFC 3339 in UTC with milliseconds; outside the years 0 to 9999 the plain number.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self
            .representable()
            .and_then(|at| OffsetDateTime::from_unix_timestamp_nanos(i128::from(at.0) * 1_000_000).ok());
        let Some(at) = at else { return write!(f, "{}", self.0) };
        let (date, time) = (at.date(), at.time());
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year(),
            u8::from(date.month()),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.millisecond()
        )
    }
}

impl Serialize for UnixMs {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for UnixMs {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::parse(&String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Ticks to milliseconds, rounded down. `timescale_hz` of 0 counts as 1.
#[must_use]
pub fn ticks_to_ms_floor(ticks: i64, timescale_hz: u32) -> i64 {
    rescale_floor(ticks, timescale_hz, 1000)
}

/// Ticks to milliseconds, rounded to nearest (halves up).
#[must_use]
pub fn ticks_to_ms_nearest(ticks: i64, timescale_hz: u32) -> i64 {
    let from = i128::from(timescale_hz.max(1));
    clamp((i128::from(ticks) * 2000 + from).div_euclid(2 * from))
}

/// Milliseconds to ticks, rounded down.
#[must_use]
pub fn ms_to_ticks_floor(ms: i64, timescale_hz: u32) -> i64 {
    rescale_floor(ms, 1000, timescale_hz)
}

/// Ticks of one timescale to ticks of another, rounded down.
#[must_use]
pub fn rescale_floor(ticks: i64, from_hz: u32, to_hz: u32) -> i64 {
    clamp((i128::from(ticks) * i128::from(to_hz)).div_euclid(i128::from(from_hz.max(1))))
}

/// Ticks of one timescale to ticks of another, rounded up.
#[must_use]
pub fn rescale_ceil(ticks: i64, from_hz: u32, to_hz: u32) -> i64 {
    let from = i128::from(from_hz.max(1));
    clamp((i128::from(ticks) * i128::from(to_hz) + from - 1).div_euclid(from))
}

fn clamp(value: i128) -> i64 {
    i64::try_from(value).unwrap_or(if value < 0 { i64::MIN } else { i64::MAX })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_written() {
        for (text, ms) in [
            ("2026-01-02T03:04:05.678Z", 1_767_323_045_678),
            ("2026-01-02T04:04:05.678+01:00", 1_767_323_045_678),
            ("1767323045", 1_767_323_045_000),
            ("1767323045.678", 1_767_323_045_678),
            ("1767323045678", 1_767_323_045_678),
            ("1.767323045678E9", 1_767_323_045_678),
            ("0", 0),
            ("-5", -5000),
        ] {
            assert_eq!(UnixMs::parse(text), Ok(UnixMs(ms)), "{text}");
        }
        assert_eq!(UnixMs(1_767_323_045_678).to_string(), "2026-01-02T03:04:05.678Z");
        assert_eq!(UnixMs(-1).to_string(), "1969-12-31T23:59:59.999Z");
        for bad in ["", "yesterday", "nan", "inf", "1e400", "2026-13-01T00:00:00Z", "99999999999999999999"] {
            assert_eq!(UnixMs::parse(bad), Err(ParseTimeError), "{bad}");
        }
    }

    #[test]
    fn ticks_convert_at_the_boundaries() {
        assert_eq!(ticks_to_ms_floor(-1, 90_000), -1);
        assert_eq!(ticks_to_ms_floor(89, 90_000), 0);
        assert_eq!(ticks_to_ms_nearest(45, 90_000), 1);
        assert_eq!(ticks_to_ms_nearest(-46, 90_000), -1);
        assert_eq!(ms_to_ticks_floor(1, 90_000), 90);
        assert_eq!(ticks_to_ms_floor(i64::MAX, 1), i64::MAX);
        assert_eq!(ticks_to_ms_floor(i64::MIN, 0), i64::MIN);
        assert_eq!(rescale_ceil(1, 3, 2), 1);
        assert_eq!(rescale_floor(-1, 3, 2), -1);
    }
}
