//! Giving blocks of expired records back to the file system.

use std::io;

use crate::backend::SegmentHandle;
use crate::segment_file::{BLOCK_LEN, align_up};

/// Between two records of a batch stands less than this; between two batches, more.
const GAP_LEN: u64 = 8;
/// More is not punched at once: it would hold up syncs.
const STRETCH_LEN_MAX: u64 = 16 << 20;

/// Bytes of a file: one record, or several that stand behind each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) offset: u64,
    pub(crate) len: u64,
}

impl Stretch {
    /// The blocks wholly inside.
    fn blocks(self) -> Option<Self> {
        let offset = align_up(self.offset, BLOCK_LEN);
        let end = self.offset.checked_add(self.len)? / BLOCK_LEN * BLOCK_LEN;
        (end > offset).then(|| Self { offset, len: end - offset })
    }

    /// This and the next one as one, if they are neighbours: then the block that they share is inside, too.
    fn with(self, next: Self) -> Option<Self> {
        let gap = next.offset.checked_sub(self.offset.checked_add(self.len)?)?;
        let len = next.offset.checked_add(next.len)? - self.offset;
        (gap < GAP_LEN && len <= STRETCH_LEN_MAX).then_some(Self { len, ..self })
    }
}

/// Punches records out, which come in the order of the file. Returns the bytes freed.
pub(crate) fn punch(handle: &dyn SegmentHandle, records: impl IntoIterator<Item = Stretch>) -> io::Result<u64> {
    let mut freed = 0;
    for Stretch { offset, len } in stretches(records).into_iter().filter_map(Stretch::blocks) {
        handle.punch(offset, len)?;
        freed += len;
    }
    Ok(freed)
}

fn stretches(records: impl IntoIterator<Item = Stretch>) -> Vec<Stretch> {
    let mut stretches: Vec<Stretch> = Vec::new();
    for record in records {
        match stretches.last().and_then(|last| last.with(record)) {
            Some(longer) => *stretches.last_mut().expect("it was just looked at") = longer,
            None => stretches.push(record),
        }
    }
    stretches
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_whole_blocks_go() {
        let at = |offset, len| Stretch { offset, len }.blocks().map(|blocks| (blocks.offset, blocks.len));
        assert_eq!(at(4096, 8192), Some((4096, 8192)));
        assert_eq!(at(4097, 8192), Some((8192, 4096)));
        assert_eq!(at(4096, 4095), None);
        assert_eq!(at(0, 0), None);
        assert_eq!(at(u64::MAX - 1, 100), None);
    }

    #[test]
    fn neighbours_go_together_and_what_stands_between_batches_stays() {
        let of = |records: &[(u64, u64)]| {
            let records = records.iter().map(|(offset, len)| Stretch { offset: *offset, len: *len });
            stretches(records).iter().map(|stretch| (stretch.offset, stretch.len)).collect::<Vec<_>>()
        };
        assert_eq!(of(&[(4160, 5001), (9168, 100), (9272, 5000)]), [(4160, 10_112)]);
        assert_eq!(of(&[(4160, 100), (4268, 100)]), [(4160, 100), (4268, 100)]);
        let batch_header = 64;
        assert_eq!(of(&[(4160, 4032), (8192 + batch_header, 10)]).len(), 2);
        let half = STRETCH_LEN_MAX / 2;
        assert_eq!(of(&[(0, half), (half, half), (2 * half, 10)]), [(0, 2 * half), (2 * half, 10)]);
        // The same record twice, as one that is asked for again.
        assert_eq!(of(&[(0, 10), (0, 10)]).len(), 2);
    }
}
