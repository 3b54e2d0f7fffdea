//! Bits, most significant first, as all codec headers have them.

use super::CodecError;

/// Reads bits off the front of a slice. Never panics.
#[derive(Debug, Clone)]
pub(crate) struct BitReader<'a> {
    data: &'a [u8],
    position: usize,
}

impl<'a> BitReader<'a> {
    pub(crate) fn new(data: &'a [u8]) -> Self {
        Self { data, position: 0 }
    }

    /// Bits left.
    pub(crate) fn remaining(&self) -> usize {
        (self.data.len() * 8).saturating_sub(self.position)
    }

    fn past_end(&self) -> CodecError {
        CodecError::new(format!("header ends after {} bytes, within a field", self.data.len()))
    }

    /// The next `count` bits, at most 32.
    pub(crate) fn bits(&mut self, count: usize) -> Result<u32, CodecError> {
        debug_assert!(count <= 32);
        if count > self.remaining() {
            return Err(self.past_end());
        }
        let mut value = 0_u64;
        let mut left = count;
        while left > 0 {
            let (byte, used) = (self.data[self.position / 8], self.position % 8);
            let take = left.min(8 - used);
            let bits = (u64::from(byte) >> (8 - used - take)) & ((1 << take) - 1);
            value = value << take | bits;
            self.position += take;
            left -= take;
        }
        Ok(value as u32)
    }

    /// As `bits`, at most 8.
    pub(crate) fn byte(&mut self, count: usize) -> Result<u8, CodecError> {
        debug_assert!(count <= 8);
        Ok(self.bits(count)? as u8)
    }

    pub(crate) fn flag(&mut self) -> Result<bool, CodecError> {
        Ok(self.bits(1)? == 1)
    }

    pub(crate) fn skip(&mut self, count: usize) -> Result<(), CodecError> {
        if count > self.remaining() {
            return Err(self.past_end());
        }
        self.position += count;
        Ok(())
    }

    /// To the next byte boundary.
    pub(crate) fn align(&mut self) {
        self.position = self.position.next_multiple_of(8);
    }

    /// Exp-Golomb code, unsigned (ISO/IEC 14496-10 section 9.1).
    pub(crate) fn ue(&mut self) -> Result<u32, CodecError> {
        let mut zeros = 0;
        while !self.flag()? {
            zeros += 1;
            if zeros > 31 {
                return Err(CodecError::new("Exp-Golomb code of more than 32 bits"));
            }
        }
        let rest = if zeros == 0 { 0 } else { self.bits(zeros)? };
        Ok(((1_u64 << zeros) - 1 + u64::from(rest)) as u32)
    }

    /// Exp-Golomb code of at most `max`.
    pub(crate) fn ue_max(&mut self, max: u32, what: &str) -> Result<u32, CodecError> {
        let value = self.ue()?;
        if value > max { Err(CodecError::new(format!("{what} {value} above {max}"))) } else { Ok(value) }
    }

    /// Exp-Golomb code, signed (ISO/IEC 14496-10 section 9.1.1).
    pub(crate) fn se(&mut self) -> Result<i64, CodecError> {
        let code = i64::from(self.ue()?);
        Ok(if code % 2 == 0 { -(code / 2) } else { (code + 1) / 2 })
    }
}

/// Appends bits.
#[derive(Debug, Default)]
pub(crate) struct BitWriter {
    data: Vec<u8>,
    used: usize,
}

impl BitWriter {
    /// The low `count` bits of `value`, at most 32.
    pub(crate) fn bits(&mut self, value: u32, count: usize) -> &mut Self {
        for shift in (0..count).rev() {
            if self.used.is_multiple_of(8) {
                self.data.push(0);
            }
            let bit = (value >> shift & 1) as u8;
            let last = self.data.len() - 1;
            self.data[last] |= bit << (7 - self.used % 8);
            self.used += 1;
        }
        self
    }

    /// To the next byte boundary, with zeros.
    pub(crate) fn align(&mut self) -> &mut Self {
        self.used = self.used.next_multiple_of(8);
        self
    }

    pub(crate) fn into_vec(self) -> Vec<u8> {
        self.data
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn exp_golomb_codes_read_as_the_standard_lists_them() {
        // 1, 010, 011, 00100, 00111, then the end.
        let mut r = BitReader::new(&[0b1010_0110, 0b0100_0011, 0b1000_0000]);
        assert_eq!([0, 1, 2, 3, 6].map(Ok), std::array::from_fn(|_| r.ue()));
        assert!(r.ue().is_err());
        let mut r = BitReader::new(&[0b0100_1100, 0b1000_0101]);
        assert_eq!([1, -1, 2, -2].map(Ok), std::array::from_fn(|_| r.se()));
        assert!(BitReader::new(&[0; 9]).ue().is_err(), "a code has at most 32 zeros");
        assert_eq!(BitReader::new(&[0, 0, 0, 1, 0xff, 0xff, 0xff, 0xff]).ue(), Ok(u32::MAX - 1));
    }

    proptest! {
        #[test]
        fn bits_round_trip(fields in prop::collection::vec((any::<u32>(), 1..=32_usize), 0..20)) {
            let mut w = BitWriter::default();
            for (value, count) in &fields {
                w.bits(*value, *count);
            }
            let bytes = w.into_vec();
            let mut r = BitReader::new(&bytes);
            for (value, count) in &fields {
                let mask = (1_u64 << count) - 1;
                prop_assert_eq!(r.bits(*count), Ok((u64::from(*value) & mask) as u32));
            }
            prop_assert!(r.remaining() < 8);
        }
    }
}
