//! The input not yet read, in one or two pieces.

use bytes::{Bytes, BytesMut};

/// Hands out the input in elements of known length: slices of what was pushed, unless an element spans pushes.
#[derive(Debug, Default)]
pub(super) struct Input {
    /// The beginning of an element that is not complete.
    held: BytesMut,
    /// What was pushed last, after `held`.
    fresh: Bytes,
    /// Of the first byte not yet taken.
    offset: u64,
}

impl Input {
    /// Adds the next bytes. What was pushed before has been read or is held.
    pub(super) fn push(&mut self, bytes: Bytes) {
        self.hold();
        self.fresh = bytes;
    }

    /// Of the next byte, from the start of the input.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that can be taken.
    pub(super) fn available(&self) -> usize {
        self.held.len() + self.fresh.len()
    }

    /// The next `len` bytes once all of them have come. Memory grows with what came, not with `len`.
    pub(super) fn take(&mut self, len: usize) -> Option<Bytes> {
        if self.available() < len {
            self.hold();
            return None;
        }
        self.offset += len as u64;
        if self.held.is_empty() {
            return Some(self.fresh.split_to(len));
        }
        if let Some(missing) = len.checked_sub(self.held.len()) {
            self.held.extend_from_slice(&self.fresh.split_to(missing));
        }
        Some(self.held.split_to(len).freeze())
    }

    /// Passes over up to `len` bytes. Returns how many there were.
    pub(super) fn skip(&mut self, len: u64) -> u64 {
        let available = self.available();
        let len = usize::try_from(len).map_or(available, |len| len.min(available));
        let from_held = len.min(self.held.len());
        let _ = self.held.split_to(from_held);
        let _ = self.fresh.split_to(len - from_held);
        self.offset += len as u64;
        len as u64
    }

    fn hold(&mut self) {
        self.held.extend_from_slice(&self.fresh);
        self.fresh = Bytes::new();
    }
}
