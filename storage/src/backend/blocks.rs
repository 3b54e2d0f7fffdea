//! A buffer that the disk can take directly.

use std::ops::{Deref, DerefMut};

/// Where a buffer starts in memory, and what direct writes are multiples of: no disk asks for more.
pub const BLOCK_LEN: usize = 4096;

/// Bytes that grow and always start at an address that is a multiple of [`BLOCK_LEN`].
///
/// Meant to be used again and again: the first touch of fresh memory costs as much as a write to a fast disk.
#[derive(Debug, Default)]
pub struct Blocks {
    /// Begins with `start` bytes that only take up room.
    bytes: Vec<u8>,
    start: usize,
}

impl Blocks {
    /// Forgets the bytes; keeps at most `keep` bytes of memory.
    pub fn clear(&mut self, keep: usize) {
        if self.bytes.capacity() > keep.saturating_add(BLOCK_LEN) {
            *self = Self::default();
        }
        self.bytes.truncate(self.start);
    }

    /// Makes room for `more` bytes.
    pub fn reserve(&mut self, more: usize) {
        if self.bytes.capacity() - self.bytes.len() >= more {
            return;
        }
        let room = (self.len() + more).max(2 * self.len());
        let mut bytes: Vec<u8> = Vec::with_capacity(room + BLOCK_LEN);
        let start = bytes.as_ptr().align_offset(BLOCK_LEN);
        bytes.resize(start, 0);
        bytes.extend_from_slice(self);
        *self = Self { bytes, start };
    }

    /// Appends bytes.
    pub fn extend_from_slice(&mut self, more: &[u8]) {
        self.reserve(more.len());
        self.bytes.extend_from_slice(more);
    }

    /// Grows with zeros, or cuts.
    pub fn resize(&mut self, len: usize) {
        self.reserve(len.saturating_sub(self.len()));
        self.bytes.resize(self.start + len, 0);
    }
}

impl From<&[u8]> for Blocks {
    fn from(bytes: &[u8]) -> Self {
        let mut blocks = Self::default();
        blocks.extend_from_slice(bytes);
        blocks
    }
}

impl Deref for Blocks {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &self.bytes[self.start..]
    }
}

impl DerefMut for Blocks {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut self.bytes[self.start..]
    }
}

/// A direct write may take these bytes to this place.
#[must_use]
pub fn is_aligned(offset: u64, bytes: &[u8]) -> bool {
    let block = BLOCK_LEN as u64;
    offset.is_multiple_of(block) && bytes.len().is_multiple_of(BLOCK_LEN) && bytes.as_ptr().align_offset(BLOCK_LEN) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_stays_aligned_as_it_grows_and_is_used_again() {
        let mut blocks = Blocks::default();
        let mut expected = Vec::new();
        for round in 0..3_u8 {
            for len in [1, 4095, 0, 70_000, 3] {
                let piece = vec![round; len];
                blocks.extend_from_slice(&piece);
                expected.extend(piece);
                blocks.resize(expected.len() + 5);
                expected.resize(expected.len() + 5, 0);
                assert_eq!(&blocks[..], &expected[..]);
                assert_eq!(blocks.as_ptr().align_offset(BLOCK_LEN), 0);
            }
            let (place, room) = (blocks.as_ptr(), if round == 0 { 1 << 20 } else { 100 });
            blocks.clear(room);
            expected.clear();
            assert!(blocks.is_empty());
            assert_eq!(blocks.as_ptr() == place, round == 0, "memory is kept up to what may be kept");
        }
    }

    #[test]
    fn only_whole_blocks_at_whole_places_are_aligned() {
        let blocks = Blocks::from(&[7; 2 * BLOCK_LEN][..]);
        assert!(is_aligned(0, &blocks) && is_aligned(3 * 4096, &blocks[4096..]));
        assert!(!is_aligned(512, &blocks) && !is_aligned(0, &blocks[..512]) && !is_aligned(0, &blocks[512..]));
        assert!(!is_aligned(0, &blocks[8..4104]));
    }
}
