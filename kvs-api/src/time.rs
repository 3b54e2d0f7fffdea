//! Points in time as requests write them: seconds since 1970, with a fraction; also as text, and RFC 3339.

use serde::{Deserialize, Deserializer, de};
use serde_json::Value;
use vidar_core::time::UnixMs;

/// Some thirty thousand years: more is no time.
const SECONDS_MAX: f64 = 1e12;

/// A point in time, to the microsecond: clients send as much.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Timestamp {
    us: i64,
}

impl Timestamp {
    /// The first millisecond that is not before it.
    pub(crate) fn ceil_ms(self) -> UnixMs {
        UnixMs(self.us.div_euclid(1000) + i64::from(self.us.rem_euclid(1000) > 0))
    }

    /// The last millisecond that is not after it.
    pub(crate) fn floor_ms(self) -> UnixMs {
        UnixMs(self.us.div_euclid(1000))
    }

    fn of_seconds(seconds: f64) -> Option<Self> {
        let us = (seconds * 1e6).round();
        (seconds.abs() < SECONDS_MAX).then_some(Self { us: us as i64 })
    }

    fn of_text(text: &str) -> Option<Self> {
        match text.trim().parse::<f64>() {
            Ok(seconds) => Self::of_seconds(seconds),
            Err(_) => Some(Self { us: UnixMs::parse(text).ok()?.0.checked_mul(1000)? }),
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let read = match Value::deserialize(deserializer)? {
            Value::Number(number) => number.as_f64().and_then(Self::of_seconds),
            Value::String(text) => Self::of_text(&text),
            _ => None,
        };
        read.ok_or_else(|| de::Error::custom("expected a point in time, in seconds since 1970"))
    }
}

/// A point in time in an answer.
pub(crate) fn seconds(at: UnixMs) -> f64 {
    at.0 as f64 / 1000.0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_all_their_forms() {
        let read = |text: &str| serde_json::from_str::<Timestamp>(text);
        for (text, floor, ceil) in [
            ("1795401065", 1_795_401_065_000, 1_795_401_065_000),
            ("1795401065.123", 1_795_401_065_123, 1_795_401_065_123),
            ("1.795401065123E9", 1_795_401_065_123, 1_795_401_065_123),
            ("1795401065.1234", 1_795_401_065_123, 1_795_401_065_124),
            ("\"1795401065.5\"", 1_795_401_065_500, 1_795_401_065_500),
            ("\"2026-01-02T03:04:05.678Z\"", 1_767_323_045_678, 1_767_323_045_678),
            ("-0.0005", -1, 0),
        ] {
            let at = read(text).unwrap();
            assert_eq!((at.floor_ms().0, at.ceil_ms().0), (floor, ceil), "{text}");
        }
        for bad in ["null", "true", "\"\"", "\"nan\"", "\"inf\"", "1e300", "[1]", "\"yesterday\""] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
