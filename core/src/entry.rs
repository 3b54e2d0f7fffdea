//! What the timeline holds of a fragment, and where its records lie.

use std::sync::Arc;

use crate::ids::FileId;
use crate::record::{FragmentFacts, FragmentMeta, TrackTotals};
use crate::time::UnixMs;

/// Tracks whose totals a timeline entry carries; with more, an MP4's length needs the tables (the slow way).
pub const ENTRY_TRACK_COUNT_MAX: usize = 3;

/// Where a record lies: enough to read its head (header, facts, table) in one read and any range of its media.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Locator {
    /// Disk of the store; 0 while there is one.
    pub volume: u16,
    /// Segment file.
    pub file: FileId,
    /// Of the record's header, from the start of the file, in bytes.
    pub offset: u64,
    /// Sealed bytes of header, facts and table.
    pub head_len: u32,
    /// Plain bytes of its media.
    pub media_len: u64,
    /// Sealed bytes of the whole record.
    pub record_len: u64,
}

/// A durable fragment, as the timeline knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FragmentEntry {
    /// Header fields.
    pub meta: FragmentMeta,
    /// Stored bytes of its samples.
    pub size_bytes: u64,
    /// For the length of an MP4, a track each; empty if the fragment has more than [`ENTRY_TRACK_COUNT_MAX`] tracks.
    pub totals: Vec<TrackTotals>,
    /// How many fragments earlier decoding starts; 0: at this one.
    pub sync_back: u32,
    /// When it became durable, by the archive clock, or somewhat later: retention counts from here. Wall-clock times
    /// may be wrong by years.
    pub archived: UnixMs,
    /// The record that closes it.
    pub record: Locator,
    /// Part records that were written while it was open; the index is the part's.
    pub parts: Vec<Locator>,
}

impl FragmentEntry {
    /// The entry of a fragment. `archived` is taken from the server's time until the store says better.
    #[must_use]
    pub fn new(meta: FragmentMeta, facts: &FragmentFacts, record: Locator, parts: Vec<Locator>) -> Self {
        let few = facts.tracks.len() <= ENTRY_TRACK_COUNT_MAX;
        let totals = if few { facts.tracks.iter().map(|track| track.totals).collect() } else { Vec::new() };
        Self {
            meta,
            size_bytes: facts.size_bytes(),
            totals,
            sync_back: facts.sync_back,
            archived: meta.server_start(),
            record,
            parts,
        }
    }

    /// Bytes on disk of all its records.
    #[must_use]
    pub fn stored_bytes(&self) -> u64 {
        self.record.record_len + self.parts.iter().map(|part| part.record_len).sum::<u64>()
    }
}

/// A shared entry.
pub type SharedEntry = Arc<FragmentEntry>;
