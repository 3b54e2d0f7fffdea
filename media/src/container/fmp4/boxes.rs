//! Boxes, byte by byte (ISO/IEC 14496-12 section 4.2): a checked reader that knows where it stands in the input, and the
//! one function that writes a box around what a closure writes.

use crate::demux::{DemuxError, DemuxErrorKind};

/// The type of a box.
pub(crate) type FourCc = [u8; 4];

/// Writes a box: its size is filled in once `body` has written the rest.
///
/// # Panics
/// If the body exceeds 4 GiB: we write headers and tables, never media, inside a box.
pub(crate) fn write_box(out: &mut Vec<u8>, kind: &FourCc, body: impl FnOnce(&mut Vec<u8>)) {
    let start = out.len();
    out.extend_from_slice(&[0; 4]);
    out.extend_from_slice(kind);
    body(out);
    let size = u32::try_from(out.len() - start).expect("a header box is shorter than 4 GiB");
    out[start..start + 4].copy_from_slice(&size.to_be_bytes());
}

/// Writes a FullBox: a box with a version and 24 flags.
pub(crate) fn write_full_box(
    out: &mut Vec<u8>,
    kind: &FourCc,
    version: u8,
    flags: u32,
    body: impl FnOnce(&mut Vec<u8>),
) {
    write_box(out, kind, |out| {
        out.extend_from_slice(&(u32::from(version) << 24 | flags & 0x00ff_ffff).to_be_bytes());
        body(out);
    });
}

/// A four-character code as text, for paths and codec ids; other characters are escaped.
pub(crate) fn kind_text(kind: FourCc) -> String {
    kind.escape_ascii().to_string()
}

/// A reader over the bytes of a box, which knows their place in the input.
#[derive(Debug, Clone)]
pub(crate) struct BoxReader<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> BoxReader<'a> {
    /// Reads `bytes`, the first of which is byte `offset` of the input.
    pub(crate) fn new(bytes: &'a [u8], offset: u64) -> Self {
        Self { rest: bytes, offset }
    }

    /// Of the next byte, from the start of the input.
    pub(crate) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes not yet read.
    pub(crate) fn remaining(&self) -> usize {
        self.rest.len()
    }

    /// `Malformed` at the next byte. The path is filled in on the way up, see [`Within`].
    pub(crate) fn error(&self, detail: impl Into<String>) -> DemuxError {
        malformed(self.offset, detail)
    }

    /// The next `len` bytes.
    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], DemuxError> {
        let Some((taken, rest)) = self.rest.split_at_checked(len) else {
            return Err(self.error(format!("the box ends {} bytes early", len - self.rest.len())));
        };
        self.rest = rest;
        self.offset += len as u64;
        Ok(taken)
    }

    /// All bytes that are left.
    pub(crate) fn take_rest(&mut self) -> &'a [u8] {
        let rest = std::mem::take(&mut self.rest);
        self.offset += rest.len() as u64;
        rest
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], DemuxError> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N)?);
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, DemuxError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, DemuxError> {
        self.array().map(u16::from_be_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, DemuxError> {
        self.array().map(u32::from_be_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, DemuxError> {
        self.array().map(u64::from_be_bytes)
    }

    /// The version and flags of a FullBox.
    pub(crate) fn full_box(&mut self) -> Result<(u8, u32), DemuxError> {
        let word = self.u32()?;
        Ok(((word >> 24) as u8, word & 0x00ff_ffff))
    }

    /// 32 bits in version 0 of a box, 64 in later ones.
    pub(crate) fn u32_or_u64(&mut self, version: u8) -> Result<u64, DemuxError> {
        if version == 0 { self.u32().map(u64::from) } else { self.u64() }
    }

    /// The next box inside this one: its type and its body.
    pub(crate) fn next_box(&mut self) -> Result<Option<(FourCc, BoxReader<'a>)>, DemuxError> {
        // QuickTime ends some lists of boxes with a size of zero and nothing behind it.
        if self.rest.len() < 8 && self.rest.iter().all(|byte| *byte == 0) {
            self.take_rest();
            return Ok(None);
        }
        let start = self.clone();
        let (size, kind) = (self.u32()?, self.array()?);
        let (size, header) = if size == 1 { (self.u64()?, 16) } else { (u64::from(size), 8) };
        let body = size.checked_sub(header).and_then(|len| usize::try_from(len).ok());
        let Some(len) = body.filter(|len| *len <= self.remaining()) else {
            let detail = format!("box {} has {size} bytes, {} are left", kind_text(kind), start.remaining());
            return Err(start.error(detail));
        };
        let offset = self.offset;
        Ok(Some((kind, BoxReader::new(self.take(len)?, offset))))
    }

    /// Calls `each` for every box inside this one.
    pub(crate) fn each_box(
        mut self,
        mut each: impl FnMut(FourCc, BoxReader<'a>) -> Result<(), DemuxError>,
    ) -> Result<(), DemuxError> {
        while let Some((kind, body)) = self.next_box()? {
            each(kind, body)?;
        }
        Ok(())
    }
}

/// `Malformed` at `offset`.
pub(crate) fn malformed(offset: u64, detail: impl Into<String>) -> DemuxError {
    DemuxError { kind: DemuxErrorKind::Malformed, offset, path: String::new(), detail: detail.into() }
}

/// Builds the path of an error from the inside out.
pub(crate) trait Within {
    /// Puts `element` before the path.
    fn within(self, element: impl FnOnce() -> String) -> Self;
}

impl Within for DemuxError {
    fn within(mut self, element: impl FnOnce() -> String) -> Self {
        let element = element();
        self.path = if self.path.is_empty() { element } else { format!("{element}/{}", self.path) };
        self
    }
}

impl<T> Within for Result<T, DemuxError> {
    fn within(self, element: impl FnOnce() -> String) -> Self {
        self.map_err(|error| error.within(element))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn boxes_nest_and_say_where_they_break() {
        let mut bytes = Vec::new();
        write_box(&mut bytes, b"moov", |out| {
            write_full_box(out, b"tfdt", 1, 7, |out| out.extend_from_slice(&9_u64.to_be_bytes()));
            out.extend_from_slice(&[0, 0, 0, 1]);
            out.extend_from_slice(b"free");
            out.extend_from_slice(&17_u64.to_be_bytes());
            out.push(5);
        });
        let mut top = BoxReader::new(&bytes, 100);
        let (kind, mut moov) = top.next_box().unwrap().unwrap();
        assert_eq!((&kind, moov.offset()), (b"moov", 108));
        let (kind, mut tfdt) = moov.next_box().unwrap().unwrap();
        assert_eq!((&kind, tfdt.full_box().unwrap(), tfdt.u64().unwrap()), (b"tfdt", (1, 7), 9));
        let (kind, mut free) = moov.next_box().unwrap().unwrap();
        assert_eq!((&kind, free.u8().unwrap(), free.offset()), (b"free", 5, 145));
        assert!(moov.next_box().unwrap().is_none());
        for len in 1..bytes.len() {
            assert!(BoxReader::new(&bytes[..len], 0).next_box().is_err() || len < 4, "{len}");
        }
    }

    #[test]
    fn sizes_that_no_box_has_are_refused() {
        for size in [0_u32, 2, 7, 9, u32::MAX] {
            let bytes = [&size.to_be_bytes()[..], b"free"].concat();
            let error = BoxReader::new(&bytes, 40).next_box().unwrap_err().within(|| "moov".into());
            assert_eq!((error.offset, error.path.as_str()), (40, "moov"), "{size}");
        }
        let bytes = [&1_u32.to_be_bytes()[..], b"free", &u64::MAX.to_be_bytes()].concat();
        assert!(BoxReader::new(&bytes, 0).next_box().is_err());
    }
}
