//! Giving blocks of expired records back to the file system.

use std::io;

use vidar_core::entry::Locator;

use crate::backend::SegmentHandle;
use crate::segment_file::{BLOCK_LEN, align_up};

/// The blocks wholly inside a record: offset and length.
pub(crate) fn inner_blocks(locator: &Locator) -> Option<(u64, u64)> {
    let start = align_up(locator.offset, BLOCK_LEN);
    let end = locator.offset.checked_add(locator.record_len)? / BLOCK_LEN * BLOCK_LEN;
    (end > start).then(|| (start, end - start))
}

/// Punches a record out. Returns the bytes freed.
pub(crate) fn punch(handle: &dyn SegmentHandle, locator: &Locator) -> io::Result<u64> {
    let Some((offset, len)) = inner_blocks(locator) else { return Ok(0) };
    handle.punch(offset, len)?;
    Ok(len)
}

#[cfg(test)]
mod tests {
    use vidar_core::ids::FileId;

    use super::*;

    #[test]
    fn only_whole_blocks_go() {
        let at = |offset, record_len| {
            let file = FileId::new();
            inner_blocks(&Locator { volume: 0, file, offset, head_len: 0, media_len: 0, record_len })
        };
        assert_eq!(at(4096, 8192), Some((4096, 8192)));
        assert_eq!(at(4097, 8192), Some((8192, 4096)));
        assert_eq!(at(4096, 4095), None);
        assert_eq!(at(0, 0), None);
        assert_eq!(at(u64::MAX - 1, 100), None);
    }
}
