//! What a publisher writes, prepared once for all of them: bytes with times, and where numbers in them count up.
//!
//! A turn of the clip is rendered by a copy and a few additions; nothing is parsed or packetised while it is measured.

use std::ops::Range;

/// One number in the bytes, big-endian. In turn `t` of publisher `p` it is what stands there plus
/// `per_turn · t + per_publisher · p`, modulo its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Patch {
    /// From the beginning of its write.
    pub(crate) at: usize,
    pub(crate) width_bytes: usize,
    pub(crate) per_turn: u64,
    pub(crate) per_publisher: u64,
}

/// What is written at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Write {
    /// Since the turn began.
    pub(crate) due_us: u64,
    bytes: Range<usize>,
    patches: Range<usize>,
    /// A GOP begins with it, so the one before is complete.
    pub(crate) opens: bool,
    /// The GOP ends with it.
    pub(crate) closes: bool,
    /// Bytes of samples in it, as the server counts them.
    pub(crate) media_bytes: u64,
}

/// One turn, for one protocol.
#[derive(Debug, Clone, Default)]
pub(crate) struct Script {
    /// Before the first turn.
    pub(crate) header: Vec<u8>,
    pub(crate) writes: Vec<Write>,
    pub(crate) turn_us: u64,
    bytes: Vec<u8>,
    patches: Vec<Patch>,
}

/// One write while it is put together.
#[derive(Debug, Default)]
pub(crate) struct Draft {
    pub(crate) bytes: Vec<u8>,
    pub(crate) patches: Vec<Patch>,
    pub(crate) media_bytes: u64,
}

impl Draft {
    /// A number that counts up by turn.
    pub(crate) fn counts(&mut self, bytes: &[u8], per_turn: u64, per_publisher: u64) {
        let patch = Patch { at: self.bytes.len(), width_bytes: bytes.len(), per_turn, per_publisher };
        self.patches.push(patch);
        self.bytes.extend_from_slice(bytes);
    }
}

impl Script {
    pub(crate) fn new(header: Vec<u8>, turn_us: u64) -> Self {
        Self { header, turn_us, ..Self::default() }
    }

    pub(crate) fn push(&mut self, due_us: u64, opens: bool, closes: bool, draft: Draft) {
        let bytes = self.bytes.len()..self.bytes.len() + draft.bytes.len();
        let patches = self.patches.len()..self.patches.len() + draft.patches.len();
        self.bytes.extend(draft.bytes);
        self.patches.extend(draft.patches);
        self.writes.push(Write { due_us, bytes, patches, opens, closes, media_bytes: draft.media_bytes });
    }

    /// Appends to `out`.
    pub(crate) fn render(&self, write: &Write, turn: u64, publisher: u64, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes[write.bytes.clone()]);
        for patch in &self.patches[write.patches.clone()] {
            let field = &mut out[start + patch.at..][..patch.width_bytes];
            let base = field.iter().fold(0_u64, |value, byte| value << 8 | u64::from(*byte));
            let more = patch.per_turn.wrapping_mul(turn).wrapping_add(patch.per_publisher.wrapping_mul(publisher));
            let value = base.wrapping_add(more).to_be_bytes();
            field.copy_from_slice(&value[8 - patch.width_bytes..]);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_count_up_by_turn_and_publisher_and_wrap() {
        let mut script = Script::default();
        let mut draft = Draft { bytes: b"ab".to_vec(), ..Draft::default() };
        draft.counts(&[0xFF, 0xFE], 3, 0);
        draft.counts(&[0, 0, 0, 9], 0, 2);
        script.push(0, true, false, draft);
        let mut out = b"before".to_vec();
        script.render(&script.writes[0], 1, 5, &mut out);
        assert_eq!(out, b"beforeab\x00\x01\x00\x00\x00\x13");
    }
}
