//! Segment files: append-only, shared by all streams. Layouts: `docs/formats/segment-file.md`, `docs/formats/record.md`.
//!
//! ```text
//! header | batch | batch | … | footer
//! ```
//!
//! # Invariants
//! 1. A record is visible to readers only after the file was synced past its end.
//! 2. A synced block is never written again; a closed file never changes but for holes punched into it.
//! 3. Nothing in a record depends on its file or offset.

pub(crate) mod batch;
pub(crate) mod footer;
pub(crate) mod header;
pub(crate) mod reader;
pub(crate) mod record;
pub(crate) mod recover;
pub(crate) mod writer;

/// Everything in a file that can be written on its own starts at a multiple of this.
pub(crate) const BLOCK_LEN: u64 = 4096;
/// Records of at least this length start on a block, so that their blocks can be given back.
pub(crate) const LARGE_RECORD_LEN: u64 = 64 << 10;

/// Padding between records begins with this and its length: zeros there are a record that was lost.
pub(crate) const PADDING_MAGIC: &[u8; 4] = b"VPAD";

/// The next multiple of `unit`.
pub(crate) const fn align_up(offset: u64, unit: u64) -> u64 {
    offset.div_ceil(unit).saturating_mul(unit)
}
