//! EBML (RFC 8794): ids, sizes, values, and the elements of a body that is wholly in memory.

use std::ops::Range;

use super::id;
use crate::demux::DemuxErrorKind;

/// Most bytes of an element's head: an id of 4 and a size of 8.
pub(super) const HEAD_BYTES_MAX: usize = 12;

/// Longest ids and sizes that a document allows (EBMLMaxIDLength, EBMLMaxSizeLength).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct VintLimits {
    pub(super) id_bytes: usize,
    pub(super) size_bytes: usize,
}

impl VintLimits {
    /// What a document has that says nothing, and the most that is read.
    pub(super) const DEFAULT: Self = Self { id_bytes: 4, size_bytes: 8 };
}

/// The head of an element.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Head {
    /// With its length marker, as written in the specifications.
    pub(super) id: u32,
    /// `None`: unknown (RFC 8794 section 6.2).
    pub(super) size: Option<u64>,
    /// Bytes of the head itself.
    pub(super) len: usize,
}

/// What the first bytes of an element say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum HeadStep {
    Done(Head),
    /// The head is at least this long.
    Needs(usize),
    /// What was expected.
    Broken(&'static str),
}

/// Reads an element's head off the front of `bytes`. The answer for a longer input is the same, or comes after `Needs`.
pub(super) fn read_head(bytes: &[u8], limits: VintLimits) -> HeadStep {
    let Some(first) = bytes.first() else { return HeadStep::Needs(1) };
    let id_len = first.leading_zeros() as usize + 1;
    if id_len > limits.id_bytes {
        return HeadStep::Broken("expected an element id");
    }
    let Some(size_first) = bytes.get(id_len) else { return HeadStep::Needs(id_len + 1) };
    let size_len = size_first.leading_zeros() as usize + 1;
    if size_len > limits.size_bytes {
        return HeadStep::Broken("expected an element size no longer than EBMLMaxSizeLength");
    }
    let len = id_len + size_len;
    let Some(size) = bytes.get(id_len..len) else { return HeadStep::Needs(len) };
    let id = bytes.iter().take(id_len).fold(0, |id, byte| (id << 8) | u32::from(*byte));
    let size = unmark(size);
    // All bits of the value set: unknown.
    let unknown = (1_u64 << (7 * size_len)) - 1;
    HeadStep::Done(Head { id, size: (size != unknown).then_some(size), len })
}

/// The value of a variable-size integer, without its length marker.
fn unmark(bytes: &[u8]) -> u64 {
    let all = bytes.iter().fold(0_u64, |value, byte| (value << 8) | u64::from(*byte));
    // Seven bits a byte are the value's.
    all & ((1_u64 << (7 * bytes.len())) - 1)
}

/// A variable-size integer at the front of `bytes`, and its length. All bits set is a value like any other here.
pub(super) fn read_vint(bytes: &[u8]) -> Option<(u64, usize)> {
    let len = bytes.first()?.leading_zeros() as usize + 1;
    if len > 8 {
        return None;
    }
    bytes.get(..len).map(|vint| (unmark(vint), len))
}

/// A signed one: EBML lacing subtracts half the range.
pub(super) fn read_signed_vint(bytes: &[u8]) -> Option<(i64, usize)> {
    let (value, len) = read_vint(bytes)?;
    let bias = (1_i64 << (7 * len - 1)) - 1;
    Some((i64::try_from(value).ok()? - bias, len))
}

/// An element of a body in memory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Element<'a> {
    pub(super) id: u32,
    pub(super) body: &'a [u8],
    /// Where the whole element stands in the body it was read from.
    pub(super) range: Range<usize>,
}

/// A body does not read, or cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BodyError {
    pub(super) kind: DemuxErrorKind,
    /// From the start of the outermost body.
    pub(super) offset: usize,
    /// Elements on the way there, innermost last.
    pub(super) path: String,
    pub(super) detail: String,
}

impl BodyError {
    pub(super) fn new(offset: usize, detail: impl Into<String>) -> Self {
        Self::of(DemuxErrorKind::Malformed, offset, detail)
    }

    pub(super) fn of(kind: DemuxErrorKind, offset: usize, detail: impl Into<String>) -> Self {
        Self { kind, offset, path: String::new(), detail: detail.into() }
    }

    /// Seen from the element around it, which is called `name` and whose body begins at `offset`.
    pub(super) fn within(mut self, name: &str, offset: usize) -> Self {
        self.path = if self.path.is_empty() { name.to_owned() } else { format!("{name}/{}", self.path) };
        self.offset += offset;
        self
    }
}

/// The elements of a body, one after the other. Stops after the first error.
#[derive(Debug, Clone)]
pub(super) struct Elements<'a> {
    body: &'a [u8],
    offset: usize,
    limits: VintLimits,
}

impl<'a> Elements<'a> {
    pub(super) fn new(body: &'a [u8], limits: VintLimits) -> Self {
        Self { body, offset: 0, limits }
    }

    fn read(&mut self) -> Result<Element<'a>, BodyError> {
        let start = self.offset;
        let rest = self.body.get(start..).unwrap_or_default();
        let head = match read_head(rest, self.limits) {
            HeadStep::Done(head) => head,
            HeadStep::Needs(_) => return Err(BodyError::new(start, "the element's head ends beyond its parent")),
            HeadStep::Broken(what) => return Err(BodyError::new(start, what)),
        };
        let Some(size) = head.size else {
            return Err(BodyError::new(start, format!("{} of unknown size", id::name(head.id))));
        };
        let body = usize::try_from(size)
            .ok()
            .and_then(|size| head.len.checked_add(size))
            .and_then(|end| rest.get(head.len..end))
            .ok_or_else(|| {
                BodyError::new(start, format!("{} of {size} bytes ends beyond its parent", id::name(head.id)))
            })?;
        self.offset = start + head.len + body.len();
        Ok(Element { id: head.id, body, range: start..self.offset })
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Result<Element<'a>, BodyError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.offset >= self.body.len() {
            return None;
        }
        let element = self.read();
        if element.is_err() {
            self.offset = self.body.len();
        }
        Some(element)
    }
}

impl Element<'_> {
    /// Where its body begins in the body it was read from.
    pub(super) fn body_offset(&self) -> usize {
        self.range.end - self.body.len()
    }

    fn error(&self, expected: &str) -> BodyError {
        BodyError::new(
            self.range.start,
            format!("{} of {} bytes: expected {expected}", id::name(self.id), self.body.len()),
        )
    }

    /// An unsigned integer of 0 to 8 bytes.
    pub(super) fn uint(&self) -> Result<u64, BodyError> {
        if self.body.len() > 8 {
            return Err(self.error("an unsigned integer of at most 8 bytes"));
        }
        Ok(self.body.iter().fold(0, |value, byte| (value << 8) | u64::from(*byte)))
    }

    /// A signed integer of 0 to 8 bytes. A date is one too.
    pub(super) fn int(&self) -> Result<i64, BodyError> {
        let value = self.uint()? as i64;
        let unused = 64 - 8 * u32::try_from(self.body.len()).unwrap_or(8);
        Ok(if unused == 64 { 0 } else { (value << unused) >> unused })
    }

    /// A float of 0, 4 or 8 bytes.
    pub(super) fn float(&self) -> Result<f64, BodyError> {
        match self.body {
            [] => Ok(0.0),
            &[a, b, c, d] => Ok(f32::from_be_bytes([a, b, c, d]).into()),
            &[a, b, c, d, e, f, g, h] => Ok(f64::from_be_bytes([a, b, c, d, e, f, g, h])),
            _ => Err(self.error("a float of 0, 4 or 8 bytes")),
        }
    }

    /// Text up to its first NUL: producers pad it. What is no UTF-8 is replaced.
    pub(super) fn text(&self) -> String {
        let end = self.body.iter().position(|byte| *byte == 0).unwrap_or(self.body.len());
        String::from_utf8_lossy(self.body.get(..end).unwrap_or_default()).into_owned()
    }
}

/// Bytes of `value` as a size or track number.
pub(super) fn vint_len(value: u64) -> usize {
    // All bits set means unknown, so each length holds one value less.
    (1..8).find(|len| value < (1_u64 << (7 * len)) - 1).unwrap_or(8)
}

/// Appends `value`, which is below 2^56 - 1, in its shortest form.
pub(super) fn write_vint(out: &mut Vec<u8>, value: u64) {
    write_vint_of(out, value, vint_len(value));
}

/// Appends `value` in `len` bytes (1 to 8).
pub(super) fn write_vint_of(out: &mut Vec<u8>, value: u64, len: usize) {
    let marked = value | 1_u64 << (7 * len);
    out.extend_from_slice(&marked.to_be_bytes()[8 - len..]);
}

pub(super) fn id_len(id: u32) -> usize {
    4 - id.leading_zeros() as usize / 8
}

pub(super) fn write_id(out: &mut Vec<u8>, id: u32) {
    out.extend_from_slice(&id.to_be_bytes()[4 - id_len(id)..]);
}

/// An element with this body.
pub(super) fn write_element(out: &mut Vec<u8>, id: u32, body: &[u8]) {
    write_id(out, id);
    write_vint(out, body.len() as u64);
    out.extend_from_slice(body);
}

/// Bytes of `value` as an unsigned integer: at least one, which every reader takes.
pub(super) fn uint_len(value: u64) -> usize {
    (8 - value.leading_zeros() as usize / 8).max(1)
}

pub(super) fn write_uint(out: &mut Vec<u8>, id: u32, value: u64) {
    write_element(out, id, &value.to_be_bytes()[8 - uint_len(value)..]);
}

pub(super) fn write_float(out: &mut Vec<u8>, id: u32, value: f64) {
    write_element(out, id, &value.to_be_bytes());
}

/// An element whose body `write` appends.
pub(super) fn write_master(out: &mut Vec<u8>, id: u32, write: impl FnOnce(&mut Vec<u8>)) {
    let mut body = Vec::new();
    write(&mut body);
    write_element(out, id, &body);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn heads_are_read_byte_by_byte() {
        let bytes = [0x1a, 0x45, 0xdf, 0xa3, 0x40, 0x02, 0xff];
        for (len, needs) in [(0, 1), (1, 5), (4, 5), (5, 6)] {
            assert_eq!(read_head(&bytes[..len], VintLimits::DEFAULT), HeadStep::Needs(needs));
        }
        let head = Head { id: 0x1a45_dfa3, size: Some(2), len: 6 };
        assert_eq!(read_head(&bytes, VintLimits::DEFAULT), HeadStep::Done(head));
    }

    #[test]
    fn unknown_sizes_of_every_length_are_known_as_such() {
        for len in 1..=8_usize {
            let mut bytes = vec![0xec];
            write_vint_of(&mut bytes, (1 << (7 * len)) - 1, len);
            let head = Head { id: 0xec, size: None, len: len + 1 };
            assert_eq!(read_head(&bytes, VintLimits::DEFAULT), HeadStep::Done(head));
        }
    }

    #[test]
    fn ids_and_sizes_longer_than_declared_are_refused() {
        let limits = VintLimits { id_bytes: 2, size_bytes: 1 };
        assert!(matches!(read_head(&[0x2a, 0xd7, 0xb1, 0x81], limits), HeadStep::Broken(_)));
        assert!(matches!(read_head(&[0xec, 0x40, 0x01], limits), HeadStep::Broken(_)));
        for first in [0x00, 0x01, 0x08] {
            assert!(matches!(read_head(&[first], VintLimits::DEFAULT), HeadStep::Broken(_)));
        }
        assert!(matches!(read_head(&[0xec, 0x00], VintLimits::DEFAULT), HeadStep::Broken(_)));
    }

    #[test]
    fn signed_vints_are_biased() {
        assert_eq!(read_signed_vint(&[0xbf]), Some((0, 1)));
        assert_eq!(read_signed_vint(&[0x80]), Some((-63, 1)));
        assert_eq!(read_signed_vint(&[0x5f, 0xff]), Some((0, 2)));
        assert_eq!(read_signed_vint(&[0x60, 0x00]), Some((1, 2)));
        assert_eq!(read_signed_vint(&[0x40]), None);
        assert_eq!(read_vint(&[0x00, 1, 2, 3, 4, 5, 6, 7, 8]), None);
    }

    #[test]
    fn values_read_as_written() {
        let read = |body: &[u8]| Element { id: 0xec, body, range: 0..body.len() }.int();
        assert_eq!(read(&[]), Ok(0));
        assert_eq!(read(&[0xff]), Ok(-1));
        assert_eq!(read(&[0x7f, 0xff]), Ok(0x7fff));
        assert_eq!(read(&[0x80, 0, 0, 0, 0, 0, 0, 0]), Ok(i64::MIN));
        assert!(read(&[0; 9]).is_err());
        let element = Element { id: 0xec, body: b"V_VP8\0\0\0", range: 0..8 };
        assert_eq!(element.text(), "V_VP8");
        assert!(Element { id: 0xec, body: &[0; 5], range: 0..5 }.float().is_err());
    }

    #[test]
    fn an_element_beyond_its_parent_is_an_error_and_the_last() {
        let mut elements = Elements::new(&[0xec, 0x81, 0, 0xec, 0x82, 0], VintLimits::DEFAULT);
        assert!(elements.next().is_some_and(|element| element.is_ok()));
        assert!(elements.next().is_some_and(|element| element.is_err_and(|error| error.offset == 3)));
        assert_eq!(elements.next(), None);
        let claims: Vec<u8> = [vec![0xec, 0x01], vec![0xff; 6], vec![0xfe]].concat();
        assert!(Elements::new(&claims, VintLimits::DEFAULT).next().is_some_and(|element| element.is_err()));
    }

    proptest! {
        #[test]
        fn written_elements_read_back(value in 0..(1_u64 << 56) - 1, id in prop::sample::select(vec![0xec_u32, 0x4286, 0x2ad7b1, 0x1a45dfa3])) {
            let mut bytes = Vec::new();
            write_vint(&mut bytes, value);
            prop_assert_eq!(bytes.len(), vint_len(value));
            prop_assert_eq!(read_vint(&bytes), Some((value, bytes.len())));
            let mut bytes = Vec::new();
            write_uint(&mut bytes, id, value);
            let elements: Vec<_> = Elements::new(&bytes, VintLimits::DEFAULT).collect();
            prop_assert_eq!(elements.len(), 1);
            let element = elements[0].clone().unwrap();
            prop_assert_eq!(element.id, id);
            prop_assert_eq!(element.uint(), Ok(value));
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            let mut end = 0;
            for element in Elements::new(&bytes, VintLimits::DEFAULT).flatten() {
                prop_assert_eq!(element.range.start, end);
                end = element.range.end;
            }
            prop_assert!(end <= bytes.len());
        }
    }
}
