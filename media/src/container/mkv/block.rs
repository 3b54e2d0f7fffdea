//! SimpleBlock and Block (RFC 9559 section 10): their head, and the frames laced into them.

use std::ops::Range;

use super::ebml::{BodyError, read_signed_vint, read_vint};

/// Set in a SimpleBlock whose frames are keyframes.
pub(super) const FLAG_KEYFRAME: u8 = 0x80;
/// Decoded, not shown.
pub(super) const FLAG_INVISIBLE: u8 = 0x08;
/// May be dropped (SimpleBlock only).
pub(super) const FLAG_DISCARDABLE: u8 = 0x01;
/// In a sample's flags, not a block's: it came in a BlockGroup.
pub(super) const FLAG_BLOCK_GROUP: u8 = 0x10;
const LACING: u8 = 0x06;

/// A block without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) track_number: u64,
    /// To the Cluster's Timestamp.
    pub(super) relative_timestamp: i16,
    pub(super) flags: u8,
    /// Where its frames stand.
    pub(super) frames: Vec<Range<usize>>,
}

impl Block {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BodyError> {
        let (track_number, number_len) =
            read_vint(bytes).ok_or_else(|| BodyError::new(0, "expected a track number"))?;
        let Some(&[high, low, flags]) = bytes.get(number_len..number_len + 3) else {
            return Err(BodyError::new(number_len, "expected a timestamp and flags"));
        };
        let start = number_len + 3;
        let frames = match flags & LACING {
            0 => std::iter::once(start..bytes.len()).collect(),
            lacing => Laces::new(bytes, start)?.split(lacing)?,
        };
        Ok(Self { track_number, relative_timestamp: i16::from_be_bytes([high, low]), flags, frames })
    }
}

/// The lace sizes, read one after the other.
struct Laces<'a> {
    bytes: &'a [u8],
    offset: usize,
    count: usize,
}

impl<'a> Laces<'a> {
    fn new(bytes: &'a [u8], start: usize) -> Result<Self, BodyError> {
        let less_one = bytes.get(start).ok_or_else(|| BodyError::new(start, "expected the number of laced frames"))?;
        Ok(Self { bytes, offset: start + 1, count: usize::from(*less_one) + 1 })
    }

    fn split(mut self, lacing: u8) -> Result<Vec<Range<usize>>, BodyError> {
        let sizes = match lacing {
            0x02 => (1..self.count).map(|_| self.xiph()).collect::<Result<Vec<_>, _>>()?,
            0x04 => return self.fixed(),
            _ => self.ebml()?,
        };
        let mut frames = Vec::with_capacity(self.count);
        let mut start = self.offset;
        for size in sizes {
            let end = start.checked_add(size).filter(|end| *end <= self.bytes.len());
            let end = end.ok_or_else(|| self.error("laced frames that fit the block"))?;
            frames.push(start..end);
            start = end;
        }
        frames.push(start..self.bytes.len());
        Ok(frames)
    }

    fn error(&self, expected: &str) -> BodyError {
        BodyError::new(self.offset, format!("expected {expected}"))
    }

    /// A sum of bytes, the last of them below 255.
    fn xiph(&mut self) -> Result<usize, BodyError> {
        let mut size = 0;
        loop {
            let byte = *self.bytes.get(self.offset).ok_or_else(|| self.error("the size of a laced frame"))?;
            self.offset += 1;
            size += usize::from(byte);
            if byte < 255 {
                return Ok(size);
            }
        }
    }

    /// The first size, then differences.
    fn ebml(&mut self) -> Result<Vec<usize>, BodyError> {
        let mut sizes: Vec<usize> = Vec::with_capacity(self.count);
        for index in 1..self.count {
            let rest = self.bytes.get(self.offset..).unwrap_or_default();
            let size = match sizes.last() {
                None => read_vint(rest).and_then(|(size, len)| Some((i64::try_from(size).ok()?, len))),
                Some(last) => read_signed_vint(rest)
                    .and_then(|(delta, len)| Some((i64::try_from(*last).ok()?.checked_add(delta)?, len))),
            };
            let size = size.and_then(|(size, len)| Some((usize::try_from(size).ok()?, len)));
            let (size, len) = size.ok_or_else(|| self.error(&format!("the size of laced frame {}", index - 1)))?;
            self.offset += len;
            sizes.push(size);
        }
        Ok(sizes)
    }

    /// All of one size. Never empty: 256 frames of nothing would cost a producer 5 bytes.
    fn fixed(self) -> Result<Vec<Range<usize>>, BodyError> {
        let len = self.bytes.len() - self.offset;
        if len == 0 || !len.is_multiple_of(self.count) {
            return Err(self.error(&format!("{} laced frames of equal size in {len} bytes", self.count)));
        }
        let size = len / self.count;
        Ok((0..self.count).map(|i| self.offset + i * size..self.offset + (i + 1) * size).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frames(bytes: &[u8]) -> Result<Vec<&[u8]>, BodyError> {
        Ok(Block::parse(bytes)?.frames.into_iter().map(|range| &bytes[range]).collect())
    }

    #[test]
    fn a_plain_block_is_one_frame() {
        let block = Block::parse(&[0x81, 0xff, 0xfe, 0x89, 7, 7]).unwrap();
        assert_eq!((block.track_number, block.relative_timestamp, block.flags), (1, -2, 0x89));
        assert_eq!(block.frames, vec![4..6]);
        assert_eq!(frames(&[0x41, 0x00, 0, 0, 0]).unwrap(), vec![&[][..]]);
    }

    #[test]
    fn every_lacing_is_split() {
        let head = |flags: u8, rest: &[u8]| [&[0x81, 0, 0, flags][..], rest].concat();
        let xiph = head(0x02, &[2, 2, 0, b'a', b'a', b'b', b'b']);
        assert_eq!(frames(&xiph).unwrap(), vec![&b"aa"[..], b"", b"bb"]);
        let long = head(0x02, &[&[1, 255, 45][..], &[9; 301]].concat());
        assert_eq!(frames(&long).unwrap().iter().map(|frame| frame.len()).collect::<Vec<_>>(), [300, 1]);
        let fixed = head(0x04, &[1, b'a', b'a', b'b', b'b']);
        assert_eq!(frames(&fixed).unwrap(), vec![&b"aa"[..], b"bb"]);
        let ebml = head(0x06, &[2, 0x83, 0xbd, b'a', b'a', b'a', b'b', b'c', b'c']);
        assert_eq!(frames(&ebml).unwrap(), vec![&b"aaa"[..], b"b", b"cc"]);
    }

    #[test]
    fn laces_that_do_not_fit_are_errors_where_they_stand() {
        for (bytes, offset) in [
            (&[][..], 0),
            (&[0x00], 0),
            (&[0x81, 0, 0], 1),
            (&[0x81, 0, 0, 0x02], 4),
            (&[0x81, 0, 0, 0x02, 1], 5),
            (&[0x81, 0, 0, 0x02, 1, 255], 6),
            (&[0x81, 0, 0, 0x02, 1, 3, 0], 6),
            (&[0x81, 0, 0, 0x04, 1, 1, 2, 3], 5),
            (&[0x81, 0, 0, 0x04, 255], 5),
            (&[0x81, 0, 0, 0x06, 1, 0x00], 5),
            (&[0x81, 0, 0, 0x06, 2, 0x81, 0x80, 0], 6),
        ] {
            assert_eq!(Block::parse(bytes).unwrap_err().offset, offset, "{bytes:?}");
        }
    }
}
