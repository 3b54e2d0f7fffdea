//! Fragments by number, ordinal and time.
//!
//! For each stream the newest fragments stand in memory, the older ones in sealed blocks of some hundred; what each
//! block spans is in memory. A lookup takes a view of its stream (a few shared pointers) and then holds no lock, while
//! it opens the blocks it needs.
//!
//! What a checkpoint keeps of it brings it back without a replay (`save`).
//!
//! Order by number is the order of the server. Order by producer time is a question of intervals: runs may overlap
//! and jump, and where they overlap the greatest number is what is shown.

mod block;
mod block_file;
mod cache;
mod column;
mod cursor;
mod details;
mod expiry;
mod files;
mod look;
mod names;
mod overlap;
mod range;
mod save;
mod shown;
mod spill;
mod stream;
#[cfg(test)]
mod tests;
mod tree;
mod walk;

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, RwLock};

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

pub(crate) use block::round_trip as block_round_trip;
pub(crate) use files::wipe;

use crate::lock::{read, write};
use files::{Files, Place};
use look::Look;
use spill::{Spiller, Work};
use stream::{Held, Run};

type SharedHeld = Arc<RwLock<Held>>;

/// How a timeline keeps its fragments.
#[derive(Clone)]
pub(crate) struct Options {
    /// Of its files; none: in memory only.
    pub(crate) dir: Option<PathBuf>,
    /// Seals them.
    pub(crate) key: [u8; 32],
    /// Fragments of a block. A stream keeps its newest so many in memory, and at most twice as many.
    pub(crate) block_len: usize,
    /// Fragments of all streams that stay in memory.
    pub(crate) tail_max: usize,
    /// Blocks that were opened lately.
    pub(crate) cache_bytes: usize,
}

impl Options {
    /// The defaults.
    pub(crate) fn new(dir: Option<PathBuf>, key: [u8; 32]) -> Self {
        Self { dir, key, block_len: 256, tail_max: 1 << 17, cache_bytes: 64 << 20 }
    }
}

/// How much a timeline keeps where.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TimelineStats {
    /// Fragments in memory, of all streams.
    pub tail_count: usize,
    /// Bytes of the timeline files.
    pub file_bytes: u64,
    /// Blocks that did not read since the start: their fragments are missing in answers until the next start.
    pub unreadable_count: u64,
}

/// All fragments that may be read.
pub struct Timeline {
    shared: Arc<Shared>,
    /// None: in memory, where whoever adds a fragment makes the blocks.
    _spiller: Option<Spiller>,
}

struct Shared {
    options: Options,
    streams: RwLock<Streams>,
    files: Arc<Files>,
    tail_count: AtomicUsize,
    work: Work,
    /// Held while a save is written.
    saving: Mutex<()>,
    /// Held while fragments move into blocks: of two that move the same ones, both would keep them.
    spilling: Mutex<()>,
}

#[derive(Default)]
struct Streams {
    held: HashMap<StreamId, SharedHeld>,
    deleted: HashSet<StreamId>,
}

impl Timeline {
    /// An empty one. What is in its directory may be [restored](Self::restore), else it is removed.
    pub(crate) fn open(options: Options) -> io::Result<Self> {
        let files = Arc::new(Files::open(options.dir.clone(), options.key, options.cache_bytes)?);
        let (streams, tail_count, work) = (RwLock::default(), AtomicUsize::new(0), Work::default());
        let on_disk = options.dir.is_some();
        let shared = Arc::new(Shared {
            options,
            streams,
            files,
            tail_count,
            work,
            saving: Mutex::default(),
            spilling: Mutex::default(),
        });
        let spiller = if on_disk { Some(Spiller::start(&shared)?) } else { None };
        Ok(Self { shared, _spiller: spiller })
    }

    /// How much is kept where.
    #[must_use]
    pub fn stats(&self) -> TimelineStats {
        TimelineStats {
            tail_count: self.shared.tail_count.load(Ordering::Relaxed),
            file_bytes: self.shared.files.len_bytes(),
            unreadable_count: self.shared.files.unreadable(),
        }
    }

    /// Waits until what is to be written is written, or cannot be.
    #[doc(hidden)]
    pub fn settle(&self) {
        if self.shared.options.dir.is_some() {
            self.shared.work.settle();
        }
    }

    /// What overlaps `[start, end)` on an axis, a page at a time, ordered by (start on that axis, number).
    ///
    /// On the server's axis the order is that of the numbers.
    #[must_use]
    pub fn range(&self, query: &RangeQuery) -> Page {
        self.look(query.stream).map(|look| range::range(&look, query)).unwrap_or_default()
    }

    /// Of some fragments of a stream, those that overlap by the producer's clock a fragment of another run, or one that
    /// was sent again.
    #[must_use]
    pub fn overlapped(&self, stream: StreamId, entries: &[SharedEntry]) -> HashSet<FragmentNumber> {
        self.look(stream).map(|look| overlap::overlapped(&look, entries)).unwrap_or_default()
    }

    /// One fragment.
    #[must_use]
    pub fn get(&self, stream: StreamId, number: FragmentNumber) -> Option<SharedEntry> {
        Some(self.look(stream)?.get(number)?.entry)
    }

    /// What is known of a fragment beyond its entry.
    #[must_use]
    pub fn details(&self, stream: StreamId, number: FragmentNumber) -> Option<Details> {
        Some(self.look(stream)?.get(number)?.details)
    }

    pub(crate) fn get_with_details(&self, stream: StreamId, number: FragmentNumber) -> Option<(SharedEntry, Details)> {
        let slot = self.look(stream)?.get(number)?;
        Some((slot.entry, slot.details))
    }

    /// The fragment of the smallest number.
    #[must_use]
    pub fn first(&self, stream: StreamId) -> Option<SharedEntry> {
        self.look(stream)?.first()
    }

    /// The fragment of the greatest number.
    #[must_use]
    pub fn last(&self, stream: StreamId) -> Option<SharedEntry> {
        self.look(stream)?.last()
    }

    /// The fragment of the next greater number.
    #[must_use]
    pub fn next(&self, stream: StreamId, number: FragmentNumber) -> Option<SharedEntry> {
        self.look(stream)?.after(number).next()
    }

    /// The fragment of the next smaller number.
    #[must_use]
    pub fn previous(&self, stream: StreamId, number: FragmentNumber) -> Option<SharedEntry> {
        self.look(stream)?.back(number).next()
    }

    /// The fragment that follows in the same run.
    #[must_use]
    pub fn next_in_run(&self, entry: &SharedEntry) -> Option<SharedEntry> {
        let (look, run) = self.look_at_run(entry.meta.stream, entry.meta.run)?;
        look.next_in_run(entry, &run)
    }

    /// The fragment that stands before in the same run.
    #[must_use]
    pub fn previous_in_run(&self, entry: &SharedEntry) -> Option<SharedEntry> {
        let (look, run) = self.look_at_run(entry.meta.stream, entry.meta.run)?;
        look.previous_in_run(entry, &run)
    }

    /// At most `limit` fragments from an ordinal on, in order of ordinals.
    #[must_use]
    pub fn by_ordinal(&self, stream: StreamId, from: u64, limit: usize) -> Vec<SharedEntry> {
        self.look(stream).map(|look| look.by_ordinal(from).take(limit).collect()).unwrap_or_default()
    }

    /// At most `limit` fragments after a number, in order of numbers.
    #[must_use]
    pub fn after(&self, stream: StreamId, number: FragmentNumber, limit: usize) -> Vec<SharedEntry> {
        self.look(stream).map(|look| look.after(number).take(limit).collect()).unwrap_or_default()
    }

    /// Counts and bounds of a stream; all zero if it holds nothing.
    #[must_use]
    pub fn totals(&self, stream: StreamId) -> StreamTotals {
        self.look(stream).map(|look| look.totals()).unwrap_or_default()
    }

    /// What is shown, and from when to when, by producer time: every instant that a fragment overlapping `[start, end)`
    /// covers, with the fragment of the greatest number there. In order of time, disjoint.
    ///
    /// Times are clipped where another fragment is shown, not to `[start, end)`. A fragment may come more than once.
    #[must_use]
    pub fn shown(&self, stream: StreamId, start: UnixMs, end: UnixMs) -> Vec<Shown> {
        let touched = self.look(stream).map(|look| shown::touched(&look, start, end)).unwrap_or_default();
        shown::shown(&touched, start, end)
    }

    /// The fragment whose picture stands at an instant of producer time: the one shown there, else (in a gap, or
    /// after the end) the one shown last before.
    #[must_use]
    pub fn at(&self, stream: StreamId, at: UnixMs) -> Option<SharedEntry> {
        shown::at(&self.look(stream)?, at)
    }

    /// Ordinal of the next fragment of a stream, and the discontinuities counted so far: after all entries, floors
    /// and gaps ever observed.
    #[must_use]
    pub fn next_place(&self, stream: StreamId) -> (u64, u32) {
        self.with(stream, Held::next_place).unwrap_or_default()
    }

    /// What of a stream may go. By age: what began `retention_hours` (0: some minutes) before `archive_now` by the server's clock, from
    /// the oldest on up to the first that did not. By bytes: the oldest, as long as more than `retention_bytes` are
    /// stored, but never the newest fragment. What is below `from` goes already, and is left out.
    #[must_use]
    pub fn expired<E: Default + Extend<SharedEntry>>(
        &self,
        stream: StreamId,
        archive_now: UnixMs,
        retention_hours: u32,
        retention_bytes: Option<u64>,
        from: FragmentNumber,
    ) -> Option<Expiry<E>> {
        let (look, place) = self.look_with(stream, Held::next_place)?;
        expiry::expired(&look, place, from, archive_now, retention_hours, retention_bytes)
    }

    /// The oldest fragments of all streams, by number, until they free `bytes` on disk. `from`: those of a stream below
    /// this number go already, and are not counted.
    #[must_use]
    pub fn oldest_overall<E: Default + Extend<SharedEntry>>(
        &self,
        bytes: u64,
        from: &HashMap<StreamId, FragmentNumber>,
    ) -> Vec<(StreamId, Expiry<E>)> {
        let looks = self.stream_ids().into_iter().filter_map(|stream| {
            let (look, place) = self.look_with(stream, Held::next_place)?;
            Some((stream, look, place))
        });
        expiry::oldest_overall(&looks.collect::<Vec<_>>(), from, bytes)
    }

    /// Counts the changes to a stream: a reader that saw the same version before has seen all.
    #[must_use]
    pub fn version(&self, stream: StreamId) -> u64 {
        self.with(stream, |held| held.version).unwrap_or(0)
    }

    /// Streams of which something was observed, deleted ones not included. In no order.
    #[must_use]
    pub fn stream_ids(&self) -> Vec<StreamId> {
        read(&self.shared.streams).held.keys().copied().collect()
    }

    /// Fragments of all streams.
    #[must_use]
    pub fn entry_count(&self) -> u64 {
        let looks = self.stream_ids().into_iter().filter_map(|stream| self.look(stream));
        looks.map(|look| look.sums().count).sum()
    }

    /// The smallest number of a stream that may be read, if some were said to be gone.
    #[must_use]
    pub fn floor(&self, stream: StreamId) -> Option<FragmentNumber> {
        self.with(stream, |held| held.floor())?
    }

    pub(crate) fn run_entries(&self, stream: StreamId, run: RunId) -> Vec<FragmentNumber> {
        let Some((look, known)) = self.look_at_run(stream, run) else { return Vec::new() };
        look.run(run, &known).map(|entry| entry.meta.number).collect()
    }

    pub(crate) fn run_spans(&self, stream: StreamId, runs: &[RunId]) -> Vec<Option<RunSpan>> {
        let known = |held: &Held| runs.iter().map(|run| held.runs.get(run).copied()).collect::<Vec<_>>();
        let Some((look, known)) = self.look_with(stream, known) else { return vec![None; runs.len()] };
        runs.iter().zip(known).map(|(id, run)| look.run_span(*id, &run?)).collect()
    }

    pub(crate) fn add(&self, entry: &SharedEntry, facts: &FragmentFacts) {
        let stream = entry.meta.stream;
        let len = self.change(stream, |held| {
            held.add(entry, facts, &self.shared.files);
            Vec::new()
        });
        let options = &self.shared.options;
        if len < 2 * options.block_len && self.shared.tail_count.load(Ordering::Relaxed) <= options.tail_max {
            return;
        }
        self.make_room(stream, len);
    }

    /// Asks for blocks to be made of what is in memory.
    fn make_room(&self, stream: StreamId, len: usize) {
        let (shared, options) = (&self.shared, &self.shared.options);
        if shared.files.is_in_memory() {
            if let Err(error) = shared.spill(stream, options.block_len, options.block_len) {
                tracing::error!(%error, "cannot make a timeline block");
            }
            return;
        }
        if len >= 2 * options.block_len {
            shared.work.spill(stream);
        }
        let count = shared.tail_count.load(Ordering::Relaxed);
        if count > options.tail_max {
            shared.work.spill_all();
        }
        if count > 2 * options.tail_max {
            // A replay at start; nothing that is recorded comes as fast.
            shared.work.wait_a_little();
        }
    }

    pub(crate) fn raise_floor(&self, stream: StreamId, below: FragmentNumber, place: (u64, u32)) {
        self.change(stream, |held| held.raise_floor(below, place));
    }

    /// A playlist place that stays empty.
    pub(crate) fn take_ordinal(&self, stream: StreamId, ordinal: u64) {
        self.change(stream, |held| {
            held.take_ordinal(ordinal);
            Vec::new()
        });
    }

    pub(crate) fn delete(&self, stream: StreamId) {
        let mut streams = write(&self.shared.streams);
        streams.deleted.insert(stream);
        if let Some(held) = streams.held.remove(&stream) {
            let held = read(&held);
            self.shared.tail_count.fetch_sub(held.view.tail.len(), Ordering::Relaxed);
            let places: Vec<Place> = held.view.tree.blocks().map(|block| block.place).collect();
            if self.shared.files.is_in_memory() {
                self.shared.files.release(&places);
            } else {
                self.shared.work.erase(stream, places);
            }
        }
    }

    /// Waits until nothing of a stream that was deleted is on disk. False: that failed, and is tried again.
    pub(crate) fn erased(&self, stream: StreamId) -> bool {
        self.shared.work.erased(stream)
    }

    fn release(&self, places: Vec<Place>) {
        if places.is_empty() {
        } else if self.shared.files.is_in_memory() {
            self.shared.files.release(&places);
        } else {
            self.shared.work.release(places);
        }
    }

    fn with<T>(&self, stream: StreamId, look: impl FnOnce(&Held) -> T) -> Option<T> {
        let held = read(&self.shared.streams).held.get(&stream).cloned()?;
        let held = read(&held);
        Some(look(&held))
    }

    fn look(&self, stream: StreamId) -> Option<Look> {
        Some(self.look_with(stream, |_| ())?.0)
    }

    /// With something that belongs to the same state.
    fn look_with<T>(&self, stream: StreamId, more: impl FnOnce(&Held) -> T) -> Option<(Look, T)> {
        self.with(stream, |held| (Look::new(stream, &held.view, &self.shared.files), more(held)))
    }

    fn look_at_run(&self, stream: StreamId, run: RunId) -> Option<(Look, Run)> {
        let (look, run) = self.look_with(stream, |held| held.runs.get(&run).copied())?;
        Some((look, run?))
    }

    /// Answers how many fragments the stream has in memory then; 0 if it is deleted. `change` answers the blocks that
    /// nothing refers to any more.
    fn change(&self, stream: StreamId, change: impl FnOnce(&mut Held) -> Vec<Place>) -> usize {
        let Some(held) = self.held_or_new(stream) else { return 0 };
        let mut held = write(&held);
        let before = held.view.tail.len();
        let gone = change(&mut held);
        let after = held.view.tail.len();
        self.shared.files.mark_dead(stream, &gone);
        drop(held);
        // Wraps around where it became less.
        self.shared.tail_count.fetch_add(after.wrapping_sub(before), Ordering::Relaxed);
        self.release(gone);
        after
    }

    /// None: the stream is deleted. Ids are never used again.
    fn held_or_new(&self, stream: StreamId) -> Option<SharedHeld> {
        if let Some(held) = read(&self.shared.streams).held.get(&stream) {
            return Some(Arc::clone(held));
        }
        let mut streams = write(&self.shared.streams);
        if streams.deleted.contains(&stream) {
            return None;
        }
        let new = || Arc::new(RwLock::new(Held::new(stream)));
        Some(Arc::clone(streams.held.entry(stream).or_insert_with(new)))
    }
}
