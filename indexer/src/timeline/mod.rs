//! Fragments by number, ordinal and time.
//!
//! In memory, a `Held` for each stream with a lock of its own, so that a long read of one stream
//! does not keep the others waiting. Lookups are logarithmic.
//!
//! Order by number is the order of the server. Order by producer time is a question of intervals: runs may overlap
//! and jump, and where they overlap the greatest number is what is shown.

mod cursor;
mod details;
mod expiry;
mod range;
mod shown;
mod stream;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, RwLock};

use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::record::FragmentFacts;
use vidar_core::time::UnixMs;

pub(crate) use cursor::from_hex;
pub use cursor::{Cursor, ParseCursorError};
pub use details::{Details, TrackShape};
pub use expiry::Expiry;
pub use range::{Page, RangeQuery, TimeAxis};
pub use shown::Shown;
pub use stream::StreamTotals;

pub(crate) use stream::RunSpan;

use crate::lock::{read, write};
use stream::Held;

type SharedHeld = Arc<RwLock<Held>>;

/// All fragments that may be read.
#[derive(Default)]
pub struct Timeline {
    streams: RwLock<Streams>,
}

#[derive(Default)]
struct Streams {
    held: HashMap<StreamId, SharedHeld>,
    deleted: HashSet<StreamId>,
}

impl Timeline {
    /// What overlaps `[start, end)` on an axis, a page at a time, ordered by (start on that axis, number).
    ///
    /// On the server's axis the order is that of the numbers.
    #[must_use]
    pub fn range(&self, query: &RangeQuery) -> Page {
        self.with(query.stream, |held| range::range(held, query)).unwrap_or_default()
    }

    /// One fragment.
    #[must_use]
    pub fn get(&self, stream: StreamId, number: FragmentNumber) -> Option<SharedEntry> {
        self.with(stream, |held| held.get(number).map(|slot| Arc::clone(&slot.entry)))?
    }

    /// What is known of a fragment beyond its entry.
    #[must_use]
    pub fn details(&self, stream: StreamId, number: FragmentNumber) -> Option<Details> {
        self.with(stream, |held| held.get(number).map(|slot| slot.details.clone()))?
    }

    pub(crate) fn get_with_details(&self, stream: StreamId, number: FragmentNumber) -> Option<(SharedEntry, Details)> {
        self.with(stream, |held| held.get(number).map(|slot| (Arc::clone(&slot.entry), slot.details.clone())))?
    }

    /// The fragment of the smallest number.
    #[must_use]
    pub fn first(&self, stream: StreamId) -> Option<SharedEntry> {
        self.with(stream, |held| held.entries_from(FragmentNumber::MIN).next().cloned())?
    }

    /// The fragment of the greatest number.
    #[must_use]
    pub fn last(&self, stream: StreamId) -> Option<SharedEntry> {
        self.with(stream, |held| held.entries_back(FragmentNumber::MAX).next().cloned())?
    }

    /// The fragment of the next greater number.
    #[must_use]
    pub fn next(&self, stream: StreamId, number: FragmentNumber) -> Option<SharedEntry> {
        self.with(stream, |held| held.entries_after(number).next().cloned())?
    }

    /// The fragment of the next smaller number.
    #[must_use]
    pub fn previous(&self, stream: StreamId, number: FragmentNumber) -> Option<SharedEntry> {
        self.with(stream, |held| held.entries_back(number).next().cloned())?
    }

    /// The fragment that follows in the same run.
    #[must_use]
    pub fn next_in_run(&self, entry: &SharedEntry) -> Option<SharedEntry> {
        self.with(entry.meta.stream, |held| held.next_in_run(entry))?
    }

    /// The fragment that stands before in the same run.
    #[must_use]
    pub fn previous_in_run(&self, entry: &SharedEntry) -> Option<SharedEntry> {
        self.with(entry.meta.stream, |held| held.previous_in_run(entry))?
    }

    /// At most `limit` fragments from an ordinal on, in order of ordinals.
    #[must_use]
    pub fn by_ordinal(&self, stream: StreamId, from: u64, limit: usize) -> Vec<SharedEntry> {
        self.with(stream, |held| held.by_ordinal(from).take(limit).cloned().collect()).unwrap_or_default()
    }

    /// At most `limit` fragments after a number, in order of numbers.
    #[must_use]
    pub fn after(&self, stream: StreamId, number: FragmentNumber, limit: usize) -> Vec<SharedEntry> {
        self.with(stream, |held| held.entries_after(number).take(limit).cloned().collect()).unwrap_or_default()
    }

    /// Counts and bounds of a stream; all zero if it holds nothing.
    #[must_use]
    pub fn totals(&self, stream: StreamId) -> StreamTotals {
        self.with(stream, Held::totals).unwrap_or_default()
    }

    /// What is shown, and from when to when, by producer time: every instant that a fragment overlapping `[start, end)`
    /// covers, with the fragment of the greatest number there. In order of time, disjoint.
    ///
    /// Times are clipped where another fragment is shown, not to `[start, end)`. A fragment may come more than once.
    #[must_use]
    pub fn shown(&self, stream: StreamId, start: UnixMs, end: UnixMs) -> Vec<Shown> {
        // The plan for a day takes a while: not under the lock.
        let touched = self.with(stream, |held| shown::touched(held, start, end)).unwrap_or_default();
        shown::shown(&touched, start, end)
    }

    /// The fragment whose picture stands at an instant of producer time: the one shown there, else (in a gap, or
    /// after the end) the one shown last before.
    #[must_use]
    pub fn at(&self, stream: StreamId, at: UnixMs) -> Option<SharedEntry> {
        self.with(stream, |held| shown::at(held, at))?
    }

    /// Ordinal of the next fragment of a stream, and the discontinuities counted so far: after all entries, floors
    /// and gaps ever observed.
    #[must_use]
    pub fn next_place(&self, stream: StreamId) -> (u64, u32) {
        self.with(stream, Held::next_place).unwrap_or_default()
    }

    /// What of a stream may go. By age: what began `retention_hours` before `archive_now` by the server's clock, from
    /// the oldest on up to the first that did not. By bytes: the oldest, as long as more than `retention_bytes` are
    /// stored, but never the newest fragment.
    #[must_use]
    pub fn expired(
        &self,
        stream: StreamId,
        archive_now: UnixMs,
        retention_hours: u32,
        retention_bytes: Option<u64>,
    ) -> Option<Expiry> {
        self.with(stream, |held| expiry::expired(held, archive_now, retention_hours, retention_bytes))?
    }

    /// The oldest fragments of all streams, by number, until they free `bytes` on disk. `from`: those of a stream below
    /// this number go already, and are not counted.
    #[must_use]
    pub fn oldest_overall(&self, bytes: u64, from: &HashMap<StreamId, FragmentNumber>) -> Vec<(StreamId, Expiry)> {
        let held: Vec<_> = read(&self.streams).held.iter().map(|(id, held)| (*id, Arc::clone(held))).collect();
        expiry::oldest_overall(&held, from, bytes)
    }

    /// Counts the changes to a stream: a reader that saw the same version before has seen all.
    #[must_use]
    pub fn version(&self, stream: StreamId) -> u64 {
        self.with(stream, |held| held.version).unwrap_or(0)
    }

    /// Streams of which something was observed, deleted ones not included. In no order.
    #[must_use]
    pub fn stream_ids(&self) -> Vec<StreamId> {
        read(&self.streams).held.keys().copied().collect()
    }

    /// Fragments of all streams.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        let held: Vec<_> = read(&self.streams).held.values().cloned().collect();
        held.iter().map(|held| read(held).len()).sum()
    }

    /// The smallest number of a stream that may be read, if some were said to be gone.
    #[must_use]
    pub fn floor(&self, stream: StreamId) -> Option<FragmentNumber> {
        self.with(stream, |held| held.floor())?
    }

    pub(crate) fn run_entries(&self, stream: StreamId, run: RunId) -> Vec<FragmentNumber> {
        self.with(stream, |held| held.run_numbers(run).collect()).unwrap_or_default()
    }

    pub(crate) fn run_spans(&self, stream: StreamId, runs: &[RunId]) -> Vec<Option<RunSpan>> {
        let none = || vec![None; runs.len()];
        self.with(stream, |held| runs.iter().map(|run| held.run_span(*run)).collect()).unwrap_or_else(none)
    }

    pub(crate) fn add(&self, entry: &SharedEntry, facts: &FragmentFacts) {
        if let Some(held) = self.held_or_new(entry.meta.stream) {
            write(&held).add(entry, facts);
        }
    }

    pub(crate) fn raise_floor(&self, stream: StreamId, below: FragmentNumber, place: (u64, u32)) {
        if let Some(held) = self.held_or_new(stream) {
            write(&held).raise_floor(below, place);
        }
    }

    /// A playlist place that stays empty.
    pub(crate) fn take_ordinal(&self, stream: StreamId, ordinal: u64) {
        if let Some(held) = self.held_or_new(stream) {
            write(&held).take_ordinal(ordinal);
        }
    }

    pub(crate) fn delete(&self, stream: StreamId) {
        let mut streams = write(&self.streams);
        streams.deleted.insert(stream);
        streams.held.remove(&stream);
    }

    fn with<T>(&self, stream: StreamId, look: impl FnOnce(&Held) -> T) -> Option<T> {
        let held = read(&self.streams).held.get(&stream).cloned()?;
        let held = read(&held);
        Some(look(&held))
    }

    /// None: the stream is deleted. Ids are never used again.
    fn held_or_new(&self, stream: StreamId) -> Option<SharedHeld> {
        if let Some(held) = read(&self.streams).held.get(&stream) {
            return Some(Arc::clone(held));
        }
        let mut streams = write(&self.streams);
        if streams.deleted.contains(&stream) {
            return None;
        }
        Some(Arc::clone(streams.held.entry(stream).or_default()))
    }
}
