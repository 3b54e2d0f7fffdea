//! Input that arrives in pieces: whole elements are taken off its front, as slices of a piece wherever they lie in one.

use bytes::Bytes;

/// The bytes that were pushed and not taken yet.
///
/// # Invariants
/// 1. What is carried over from piece to piece is the beginning of one element that was asked for, never more.
/// 2. Requests at one place only grow, so that what is carried always belongs to the next request.
#[derive(Debug, Default)]
pub(super) struct Input {
    carry: Vec<u8>,
    piece: Bytes,
    /// Of the next byte to be taken, from the start of the input.
    offset: u64,
}

impl Input {
    /// Adds a piece. The one before it must have been used up: some request for more than it held has failed.
    pub(super) fn push(&mut self, piece: Bytes) {
        debug_assert!(self.piece.is_empty());
        self.piece = piece;
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Bytes that wait.
    pub(super) fn len(&self) -> usize {
        self.carry.len() + self.piece.len()
    }

    /// The next `len` bytes, which stay.
    pub(super) fn peek(&mut self, len: usize) -> Option<&[u8]> {
        if self.carry.is_empty() && self.piece.len() >= len {
            return self.piece.get(..len);
        }
        self.fill(len);
        self.carry.get(..len)
    }

    /// The next `len` bytes.
    pub(super) fn take(&mut self, len: usize) -> Option<Bytes> {
        if self.carry.is_empty() && self.piece.len() >= len {
            self.offset += len as u64;
            return Some(self.piece.split_to(len));
        }
        self.fill(len);
        if self.carry.len() < len {
            return None;
        }
        self.offset += len as u64;
        Some(std::mem::take(&mut self.carry).into())
    }

    /// Leaves out up to `len` bytes, and says how many.
    pub(super) fn skip(&mut self, len: u64) -> u64 {
        debug_assert!(self.carry.is_empty());
        let skipped = usize::try_from(len).unwrap_or(usize::MAX).min(self.piece.len());
        let _ = self.piece.split_to(skipped);
        self.offset += skipped as u64;
        skipped as u64
    }

    /// Carries up to `len` bytes. Room is made by what is there, not by what is asked for.
    fn fill(&mut self, len: usize) {
        let missing = len.saturating_sub(self.carry.len());
        let more = self.piece.split_to(missing.min(self.piece.len()));
        if self.carry.capacity() - self.carry.len() < more.len() {
            self.carry.reserve_exact(missing.min(more.len().max(self.carry.len())));
        }
        self.carry.extend_from_slice(&more);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_in_one_piece_is_a_slice_of_it() {
        let piece = Bytes::from(vec![1, 2, 3, 4, 5]);
        let mut input = Input::default();
        input.push(piece.clone());
        assert_eq!(input.peek(2), Some(&[1, 2][..]));
        let taken = input.take(3).unwrap();
        assert_eq!(taken.as_ptr(), piece.as_ptr());
        assert_eq!(input.take(3), None);
        assert_eq!(input.offset(), 3);
        input.push(Bytes::from_static(&[6, 7, 8]));
        assert_eq!(input.take(3), Some(Bytes::from_static(&[4, 5, 6])));
        assert_eq!(input.skip(5), 2);
        assert_eq!((input.offset(), input.len()), (8, 0));
    }

    #[test]
    fn room_is_not_made_for_a_claim() {
        let mut input = Input::default();
        input.push(Bytes::from_static(&[1, 2, 3]));
        assert_eq!(input.take(1 << 40), None);
        assert!(input.carry.capacity() < 100);
    }
}
