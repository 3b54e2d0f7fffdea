//! The few encodings that our own formats are made of, and bounded reading of them.
//!
//! Fixed integers are big-endian. `varint` is LEB128 (at most 10 bytes, shortest form not required); signed ones are
//! zigzag-coded first. A byte string is its length as varint, then its bytes.

use bytes::Bytes;

/// Bytes do not decode: where, and what was expected there.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected {expected} at byte {offset}")]
pub struct WireError {
    /// What was being read.
    pub expected: &'static str,
    /// Offset from the start of the input, in bytes.
    pub offset: usize,
}

/// Appends values to a buffer.
#[derive(Debug, Default)]
pub struct Writer {
    buffer: Vec<u8>,
}

impl Writer {
    /// An empty buffer.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// Raw bytes, without a length.
    #[inline]
    pub fn raw(&mut self, bytes: &[u8]) -> &mut Self {
        self.buffer.extend_from_slice(bytes);
        self
    }

    /// One byte.
    #[inline]
    pub fn u8(&mut self, value: u8) -> &mut Self {
        self.raw(&[value])
    }

    /// Two bytes, big-endian.
    #[inline]
    pub fn u16(&mut self, value: u16) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Four bytes, big-endian.
    #[inline]
    pub fn u32(&mut self, value: u32) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes, big-endian.
    #[inline]
    pub fn u64(&mut self, value: u64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// Eight bytes, big-endian, two's complement.
    #[inline]
    pub fn i64(&mut self, value: i64) -> &mut Self {
        self.raw(&value.to_be_bytes())
    }

    /// LEB128.
    #[inline]
    pub fn varint(&mut self, mut value: u64) -> &mut Self {
        while value >= 0x80 {
            self.buffer.push((value as u8) | 0x80);
            value >>= 7;
        }
        self.buffer.push(value as u8);
        self
    }

    /// Zigzag, then LEB128.
    #[inline]
    pub fn signed(&mut self, value: i64) -> &mut Self {
        self.varint(((value << 1) ^ (value >> 63)) as u64)
    }

    /// Length, then bytes.
    pub fn bytes(&mut self, bytes: &[u8]) -> &mut Self {
        self.varint(bytes.len() as u64).raw(bytes)
    }

    /// Length, then UTF-8.
    pub fn string(&mut self, text: &str) -> &mut Self {
        self.bytes(text.as_bytes())
    }

    /// 1 and the value, or 0.
    pub fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) -> &mut Self {
        self.u8(u8::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
        self
    }

    /// Bytes written so far.
    #[must_use]
    pub fn len(&self) -> usize {
        self.buffer.len()
    }

    /// True if nothing was written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.buffer.is_empty()
    }

    /// The buffer.
    #[must_use]
    pub fn into_vec(self) -> Vec<u8> {
        self.buffer
    }

    /// The buffer.
    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.buffer.into()
    }
}

/// Reads values off the front of a slice. Never panics, never allocates by a number it merely read.
#[derive(Debug, Clone)]
pub struct Reader<'a> {
    rest: &'a [u8],
    len: usize,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `input`.
    #[must_use]
    pub fn new(input: &'a [u8]) -> Self {
        Self { rest: input, len: input.len() }
    }

    /// Offset from the start of the input.
    #[must_use]
    pub fn offset(&self) -> usize {
        self.len - self.rest.len()
    }

    /// Bytes not read yet.
    #[must_use]
    pub fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// An error at this place.
    #[must_use]
    pub fn error(&self, expected: &'static str) -> WireError {
        WireError { expected, offset: self.offset() }
    }

    /// The next `len` bytes.
    ///
    /// # Errors
    /// If fewer are left. So do all that follow.
    #[inline]
    pub fn raw(&mut self, len: usize) -> Result<&'a [u8], WireError> {
        let (head, rest) = self.rest.split_at_checked(len).ok_or_else(|| self.error("more bytes"))?;
        self.rest = rest;
        Ok(head)
    }

    /// The next `N` bytes.
    ///
    /// # Errors
    /// If fewer are left.
    pub fn array<const N: usize>(&mut self) -> Result<[u8; N], WireError> {
        Ok(self.raw(N)?.try_into().expect("raw gives N bytes"))
    }

    /// One byte.
    ///
    /// # Errors
    /// If none is left.
    #[inline]
    pub fn u8(&mut self) -> Result<u8, WireError> {
        Ok(self.array::<1>()?[0])
    }

    /// Two bytes.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn u16(&mut self) -> Result<u16, WireError> {
        self.array().map(u16::from_be_bytes)
    }

    /// Four bytes.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn u32(&mut self) -> Result<u32, WireError> {
        self.array().map(u32::from_be_bytes)
    }

    /// Eight bytes.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn u64(&mut self) -> Result<u64, WireError> {
        self.array().map(u64::from_be_bytes)
    }

    /// Eight bytes, two's complement.
    ///
    /// # Errors
    /// If fewer are left.
    #[inline]
    pub fn i64(&mut self) -> Result<i64, WireError> {
        self.array().map(i64::from_be_bytes)
    }

    /// LEB128.
    ///
    /// # Errors
    /// If it does not end, or does not fit 64 bits.
    #[inline]
    pub fn varint(&mut self) -> Result<u64, WireError> {
        // Most are short.
        if let [byte @ 0..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        self.long_varint()
    }

    fn long_varint(&mut self) -> Result<u64, WireError> {
        let start = self.clone();
        let mut value = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && bits > 1 {
                break;
            }
            value |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(value);
            }
        }
        Err(start.error("a varint of at most 64 bits"))
    }

    /// A varint that fits `T`.
    ///
    /// # Errors
    /// If it does not.
    pub fn varint_as<T: TryFrom<u64>>(&mut self) -> Result<T, WireError> {
        let start = self.clone();
        T::try_from(self.varint()?).map_err(|_| start.error("a smaller varint"))
    }

    /// Zigzag, LEB128.
    ///
    /// # Errors
    /// As `varint`.
    #[inline]
    pub fn signed(&mut self) -> Result<i64, WireError> {
        let value = self.varint()?;
        Ok(((value >> 1) as i64) ^ -((value & 1) as i64))
    }

    /// A signed varint that fits `T`.
    ///
    /// # Errors
    /// If it does not.
    pub fn signed_as<T: TryFrom<i64>>(&mut self) -> Result<T, WireError> {
        let start = self.clone();
        T::try_from(self.signed()?).map_err(|_| start.error("a smaller signed varint"))
    }

    /// Length, then bytes.
    ///
    /// # Errors
    /// If fewer are left than the length claims.
    pub fn bytes(&mut self) -> Result<&'a [u8], WireError> {
        let len = self.varint_as::<usize>()?;
        self.raw(len)
    }

    /// Length, then UTF-8.
    ///
    /// # Errors
    /// If it is not UTF-8.
    pub fn string(&mut self) -> Result<&'a str, WireError> {
        let start = self.clone();
        std::str::from_utf8(self.bytes()?).map_err(|_| start.error("UTF-8"))
    }

    /// A count of things that take at least `each_bytes` (at least 1) each: never more than the input could hold.
    ///
    /// # Errors
    /// If the input is too short for the count.
    #[inline]
    pub fn count(&mut self, each_bytes: usize) -> Result<usize, WireError> {
        let start = self.clone();
        let count = self.varint_as::<usize>()?;
        if count > self.remaining() / each_bytes.max(1) {
            return Err(start.error("a count that the input can hold"));
        }
        Ok(count)
    }

    /// 1 and a value, or 0.
    ///
    /// # Errors
    /// If the first byte is neither, or the value does not read.
    pub fn option<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, WireError>) -> Result<Option<T>, WireError> {
        let start = self.clone();
        match self.u8()? {
            0 => Ok(None),
            1 => read(self).map(Some),
            _ => Err(start.error("0 or 1")),
        }
    }

    /// Nothing may be left.
    ///
    /// # Errors
    /// If something is.
    pub fn finish(self) -> Result<(), WireError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.error("the end")) }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn values_round_trip(a: u64, b: i64, c: Vec<u8>, d: String, e: Option<u32>) {
            let mut writer = Writer::new();
            writer.varint(a).signed(b).bytes(&c).string(&d).option(e, |w, v| { w.u32(v); }).i64(b).u64(a);
            let bytes = writer.into_vec();
            let mut reader = Reader::new(&bytes);
            prop_assert_eq!(reader.varint(), Ok(a));
            prop_assert_eq!(reader.signed(), Ok(b));
            prop_assert_eq!(reader.bytes(), Ok(&c[..]));
            prop_assert_eq!(reader.string(), Ok(&d[..]));
            prop_assert_eq!(reader.option(Reader::u32), Ok(e));
            prop_assert_eq!(reader.i64(), Ok(b));
            prop_assert_eq!(reader.u64(), Ok(a));
            prop_assert_eq!(reader.finish(), Ok(()));
        }
    }

    #[test]
    fn claims_are_checked_against_what_is_there() {
        assert!(Reader::new(&[0xff; 11]).varint().is_err());
        assert!(Reader::new(&[0xff, 0xff, 0xff, 0xff, 0x0f, 1]).bytes().is_err());
        assert!(Reader::new(&[5, 1, 2]).count(1).is_err());
        assert!(Reader::new(&[2]).option(Reader::u8).is_err());
        assert_eq!(Reader::new(&[1, 0xff]).string(), Err(WireError { expected: "UTF-8", offset: 0 }));
        assert!(Reader::new(&[0]).finish().is_err());
    }
}
