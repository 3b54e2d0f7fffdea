//! Identifiers. All are unique without coordination; none is ever reused.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

macro_rules! uuid_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(pub Uuid);

        impl $name {
            /// A new id (UUID version 7: time-ordered, random).
            #[allow(clippy::new_without_default)]
            #[must_use]
            pub fn new() -> Self {
                Self(Uuid::now_v7())
            }

            /// From its 16 bytes on disk.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// Its 16 bytes on disk.
            #[must_use]
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                Uuid::parse_str(text).map(Self)
            }
        }
    };
}

uuid_id! {
    /// A stream. Names are reused after a deletion, ids never.
    StreamId
}
uuid_id! {
    /// A run: the fragments of one connection.
    RunId
}
uuid_id! {
    /// A push over HTTP.
    PushId
}
uuid_id! {
    /// A segment file.
    FileId
}

/// The id of a config: the first 16 bytes of an HMAC-SHA256 over its plain bytes, under a key derived from the stream
/// key. A plain hash would show which streams are alike.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigId(pub [u8; 16]);

impl ConfigId {
    /// The id of "no config": control records carry it.
    pub const NONE: Self = Self([0; 16]);
}

impl fmt::Display for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ConfigId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigId({self})")
    }
}

/// The durable name of a fragment: ever-increasing within a stream, 47 or 48 decimal digits, 20 bytes on disk.
///
/// A 157-bit integer, high to low: a constant 1, a 64-bit sequence (boot or lease epoch, 32 bits, then a counter), the
/// server's time in milliseconds when the fragment began (64 bits), 28 random bits. This is the reference service's
/// own layout, so its clients can read the server time out of it.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FragmentNumber([u8; 20]);

impl FragmentNumber {
    /// Smaller than every number ever given.
    pub const MIN: Self = Self([0; 20]);
    /// Greater than every number ever given.
    pub const MAX: Self = Self([0xff; 20]);

    /// Puts a number together. Only the low 28 bits of `random` are used.
    #[must_use]
    pub fn new(sequence: u64, server_ms: u64, random: u32) -> Self {
        // 157 bits: the low 128 hold 36 bits of the sequence, the milliseconds and the random bits.
        let low = (u128::from(sequence) << 92) | (u128::from(server_ms) << 28) | u128::from(random & 0x0fff_ffff);
        let high = (1_u32 << 28) | u32::try_from(sequence >> 36).expect("28 bits");
        let mut bytes = [0; 20];
        bytes[..4].copy_from_slice(&high.to_be_bytes());
        bytes[4..].copy_from_slice(&low.to_be_bytes());
        Self(bytes)
    }

    /// From its 20 bytes on disk, big-endian.
    #[must_use]
    pub const fn from_bytes(bytes: [u8; 20]) -> Self {
        Self(bytes)
    }

    /// Its 20 bytes on disk, big-endian.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 20] {
        &self.0
    }

    fn low(&self) -> u128 {
        u128::from_be_bytes(self.0[4..].try_into().expect("16 bytes"))
    }

    /// Epoch (high 32 bits) and counter (low 32 bits).
    #[must_use]
    pub fn sequence(&self) -> u64 {
        let high = u32::from_be_bytes(self.0[..4].try_into().expect("4 bytes")) & 0x0fff_ffff;
        (u64::from(high) << 36) | u64::try_from(self.low() >> 92).expect("36 bits")
    }

    /// When the fragment began, by the server's clock, in milliseconds since the Unix epoch.
    #[must_use]
    pub fn server_ms(&self) -> i64 {
        let ms = u64::try_from((self.low() >> 28) & u128::from(u64::MAX)).expect("64 bits");
        i64::try_from(ms).unwrap_or(i64::MAX)
    }
}

impl fmt::Display for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Long division of five 32-bit limbs by 10^9.
        let mut limbs = [0_u32; 5];
        for (limb, bytes) in limbs.iter_mut().zip(self.0.chunks_exact(4)) {
            *limb = u32::from_be_bytes(bytes.try_into().expect("4 bytes"));
        }
        let mut groups = Vec::with_capacity(6);
        while limbs.iter().any(|limb| *limb != 0) {
            let mut remainder = 0_u64;
            for limb in &mut limbs {
                let value = (remainder << 32) | u64::from(*limb);
                *limb = u32::try_from(value / 1_000_000_000).expect("quotient of a reduced dividend");
                remainder = value % 1_000_000_000;
            }
            groups.push(remainder);
        }
        let mut text = groups.pop().map_or_else(|| "0".to_owned(), |group| group.to_string());
        for group in groups.iter().rev() {
            text.push_str(&format!("{group:09}"));
        }
        f.pad(&text)
    }
}

impl fmt::Debug for FragmentNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "FragmentNumber({self})")
    }
}

/// The text is no fragment number.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a fragment number: expected 1 to 49 decimal digits below 2^160")]
pub struct ParseFragmentNumberError;

impl FromStr for FragmentNumber {
    type Err = ParseFragmentNumberError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if text.is_empty() || text.len() > 128 {
            return Err(ParseFragmentNumberError);
        }
        let mut limbs = [0_u32; 5];
        for byte in text.bytes() {
            let digit = byte.checked_sub(b'0').filter(|digit| *digit < 10).ok_or(ParseFragmentNumberError)?;
            let mut carry = u64::from(digit);
            for limb in limbs.iter_mut().rev() {
                let value = u64::from(*limb) * 10 + carry;
                *limb = (value & 0xffff_ffff) as u32;
                carry = value >> 32;
            }
            if carry != 0 {
                return Err(ParseFragmentNumberError);
            }
        }
        let mut bytes = [0; 20];
        for (chunk, limb) in bytes.chunks_exact_mut(4).zip(limbs) {
            chunk.copy_from_slice(&limb.to_be_bytes());
        }
        Ok(Self(bytes))
    }
}

impl Serialize for FragmentNumber {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for FragmentNumber {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// The name of a stream, as people and clients write it.
///
/// Grammar of the reference service (`[a-zA-Z0-9_.-]{1,256}`) without `.` and `..`. Names never become paths on disk.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[serde(transparent)]
pub struct StreamName(String);

/// The text is no stream name.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not a stream name: expected 1 to 256 characters of a-z A-Z 0-9 _ . - other than \".\" and \"..\"")]
pub struct ParseStreamNameError;

impl StreamName {
    /// Checks the grammar.
    ///
    /// # Errors
    /// If `text` is not of the grammar.
    pub fn new(text: impl Into<String>) -> Result<Self, ParseStreamNameError> {
        let text = text.into();
        let of_grammar = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.' | b'-');
        let good = (1..=256).contains(&text.len()) && text.bytes().all(of_grammar) && text != "." && text != "..";
        if good { Ok(Self(text)) } else { Err(ParseStreamNameError) }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

impl fmt::Debug for StreamName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl FromStr for StreamName {
    type Err = ParseStreamNameError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::new(text)
    }
}

impl<'de> Deserialize<'de> for StreamName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(String::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn numbers_of_the_reference_service_read_as_captured() {
        for (text, sequence, server_ms) in [
            ("91343852333181432392682062607743920146159169392", 1, 1_511_852_109_126),
            ("91343852338378294813695855977007281634605393997", 1_049_498_009, 1_516_124_526_822),
            ("91343852333713038908964877623801423530396737899", 107_357_082, 1_537_574_915_281),
            ("91343852333181432402585582924059276442495538010", 3, 1_519_423_069_116),
        ] {
            let number: FragmentNumber = text.parse().unwrap();
            assert_eq!(number.sequence(), sequence);
            assert_eq!(number.server_ms(), server_ms);
            assert_eq!(number.to_string(), text);
        }
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for text in ["", "-1", "12a", " 1", &"9".repeat(50), &"0".repeat(129)] {
            assert_eq!(text.parse::<FragmentNumber>(), Err(ParseFragmentNumberError), "{text:?}");
        }
        assert_eq!(FragmentNumber::MIN.to_string(), "0");
        assert_eq!(FragmentNumber::MAX.to_string().parse(), Ok(FragmentNumber::MAX));
    }

    #[test]
    fn names_keep_to_the_grammar() {
        for good in ["a", "cam-1", "A_b.C", "...", &"x".repeat(256)] {
            assert!(StreamName::new(good).is_ok(), "{good:?}");
        }
        for bad in ["", ".", "..", "a/b", "a b", "ü", "a\0", "%2e", &"x".repeat(257)] {
            assert!(StreamName::new(bad).is_err(), "{bad:?}");
        }
    }

    proptest! {
        #[test]
        fn numbers_keep_their_parts_and_their_order(a: (u64, u64, u32), b: (u64, u64, u32)) {
            let [x, y] = [a, b].map(|(sequence, ms, random)| FragmentNumber::new(sequence, ms >> 1, random & 0x0fff_ffff));
            prop_assert_eq!(x.sequence(), a.0);
            prop_assert_eq!(x.server_ms() as u64, a.1 >> 1);
            prop_assert_eq!(x.to_string().parse::<FragmentNumber>().unwrap(), x);
            let parts = |t: (u64, u64, u32)| (t.0, t.1 >> 1, t.2 & 0x0fff_ffff);
            prop_assert_eq!(x.cmp(&y), parts(a).cmp(&parts(b)));
        }
    }
}
