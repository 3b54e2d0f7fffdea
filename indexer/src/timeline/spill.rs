//! What grows old in memory goes into blocks, on a thread of its own: whoever adds a fragment waits for no disk.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vidar_core::entry::FragmentEntry;
use vidar_core::ids::{FragmentNumber, StreamId};

use super::Shared;
use super::block::Slot;
use super::files::Place;
use super::look::Look;
use super::stream::View;
use super::tree::{Block, Summary};
use crate::lock::{lock, read, write};

/// After an error, until it is tried again.
const PAUSE: Duration = Duration::from_secs(1);
/// While a start replays the log faster than blocks are written, an added fragment waits at most so long.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// What the thread has to do.
#[derive(Default)]
pub(super) struct Work {
    state: Mutex<State>,
    /// There is something to do.
    due: Condvar,
    /// Something was done.
    done: Condvar,
}

#[derive(Default)]
struct State {
    streams: HashSet<StreamId>,
    /// All streams together hold too much.
    all: bool,
    released: Vec<Place>,
    /// Streams that were deleted, and the blocks they had.
    doomed: HashMap<StreamId, Vec<Place>>,
    busy: bool,
    /// Counts rounds of work.
    attempts: u64,
    failing: bool,
    stop: bool,
}

impl State {
    fn is_idle(&self) -> bool {
        self.streams.is_empty() && !self.all && self.released.is_empty() && self.doomed.is_empty()
    }
}

fn wait<'a>(condition: &Condvar, state: MutexGuard<'a, State>, timeout: Duration) -> MutexGuard<'a, State> {
    condition.wait_timeout(state, timeout).unwrap_or_else(PoisonError::into_inner).0
}

impl Work {
    fn ask(&self, change: impl FnOnce(&mut State)) {
        change(&mut lock(&self.state));
        self.due.notify_one();
    }

    pub(super) fn spill(&self, stream: StreamId) {
        self.ask(|state| {
            state.streams.insert(stream);
        });
    }

    pub(super) fn spill_all(&self) {
        self.ask(|state| state.all = true);
    }

    pub(super) fn release(&self, places: Vec<Place>) {
        self.ask(|state| state.released.extend(places));
    }

    pub(super) fn erase(&self, stream: StreamId, places: Vec<Place>) {
        self.ask(|state| {
            state.doomed.entry(stream).or_default().extend(places);
        });
    }

    /// Waits until nothing of a stream that was deleted is on disk. False: that failed, and is tried again.
    pub(super) fn erased(&self, stream: StreamId) -> bool {
        let mut state = lock(&self.state);
        let attempts = state.attempts;
        loop {
            if !state.doomed.contains_key(&stream) {
                return true;
            }
            // The attempt that is under way may have begun before.
            if state.stop || (state.failing && state.attempts > attempts + 1) {
                return false;
            }
            state = wait(&self.done, state, WAIT_MAX);
        }
    }

    /// Waits until something was done, but not long, and not at all while writing fails.
    pub(super) fn wait_a_little(&self) {
        let state = lock(&self.state);
        if !state.failing && !state.stop {
            drop(wait(&self.done, state, WAIT_MAX));
        }
    }

    /// Waits until nothing is left to do, or writing fails.
    pub(super) fn settle(&self) {
        let mut state = lock(&self.state);
        while !state.failing && !state.stop && (state.busy || !state.is_idle()) {
            state = wait(&self.done, state, WAIT_MAX);
        }
    }
}

/// The thread; it ends with this.
pub(super) struct Spiller {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Spiller {
    pub(super) fn start(shared: &Arc<Shared>) -> io::Result<Self> {
        let own = Arc::clone(shared);
        let thread = std::thread::Builder::new().name("vidar-timeline".into()).spawn(move || run(&own))?;
        Ok(Self { shared: Arc::clone(shared), thread: Some(thread) })
    }
}

impl Drop for Spiller {
    fn drop(&mut self) {
        self.shared.work.ask(|state| state.stop = true);
        self.shared.work.done.notify_all();
        if let Some(thread) = self.thread.take() {
            // It does not panic.
            let _ = thread.join();
        }
    }
}

fn run(shared: &Shared) {
    loop {
        let mut state = lock(&shared.work.state);
        while state.is_idle() && !state.stop {
            state = shared.work.due.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        if state.stop {
            return;
        }
        let (streams, all) = (std::mem::take(&mut state.streams), std::mem::take(&mut state.all));
        let released = std::mem::take(&mut state.released);
        // They stay until nothing of them is left: somebody may wait for that.
        let doomed = state.doomed.clone();
        state.busy = true;
        drop(state);
        shared.files.release(&released);
        let len = shared.options.block_len;
        let done = doomed.iter().try_for_each(|(stream, places)| shared.erase(*stream, places));
        let done = done.and_then(|()| streams.iter().try_for_each(|stream| shared.spill(*stream, len, len)));
        let done = done.and_then(|()| if all { shared.spill_evenly() } else { Ok(()) });
        let done = done.and_then(|()| shared.rewrite_wasteful());
        let mut state = lock(&shared.work.state);
        state.busy = false;
        state.attempts += 1;
        state.failing = done.is_err();
        if let Err(error) = done {
            tracing::error!(%error, "cannot write timeline files; fragments stay in memory");
            state.streams.extend(streams);
            state.all |= all;
            shared.work.done.notify_all();
            if !state.stop {
                drop(wait(&shared.work.due, state, PAUSE));
            }
        } else {
            shared.work.done.notify_all();
        }
    }
}

/// What goes into blocks next.
struct Batch {
    /// What the new blocks hold.
    merged: Vec<Slot>,
    /// The block that some of it stood in.
    before: Option<Block>,
    /// What they no longer hold of that block: memory has it, the records moved.
    left_out: Vec<FragmentNumber>,
}

impl Shared {
    /// Moves the oldest fragments of a stream into blocks, as long as `keep` stay in memory and there are `least` to
    /// move.
    pub(super) fn spill(&self, stream: StreamId, keep: usize, least: usize) -> io::Result<()> {
        let _spilling = lock(&self.spilling);
        loop {
            let Some(held) = read(&self.streams).held.get(&stream).cloned() else { return Ok(()) };
            let view = read(&held).view.clone();
            let Some(batch) = self.batch(stream, &view, keep, least) else { return Ok(()) };
            // A view that is still held would have the next change copy all.
            drop(view);
            let mut blocks = Vec::new();
            for slots in batch.merged.chunks(self.options.block_len) {
                let Some(summary) = Summary::of_all(entries(slots)) else { continue };
                blocks.push(Block { place: self.files.append(stream, slots)?, summary });
            }
            let streams = read(&self.streams);
            let gone = if streams.held.contains_key(&stream) {
                let mut held = write(&held);
                let before = held.view.tail.len();
                let gone = held.spilled(&batch.merged, &batch.left_out, batch.before.as_ref(), blocks);
                self.tail_count.fetch_sub(before - held.view.tail.len(), Ordering::Relaxed);
                self.files.mark_dead(stream, &gone);
                gone
            } else {
                let gone: Vec<Place> = blocks.into_iter().map(|block| block.place).collect();
                drop(streams);
                // Deleted meanwhile.
                self.work.erase(stream, gone);
                return Ok(());
            };
            drop(streams);
            self.files.release(&gone);
        }
    }

    /// Removes what is left of a stream that was deleted.
    fn erase(&self, stream: StreamId, places: &[Place]) -> io::Result<()> {
        // Not while a save is written that may hold some of it.
        let _saving = lock(&self.saving);
        self.files.erase(stream, places)?;
        self.files.release(places);
        self.files.forget_dead(stream);
        lock(&self.work.state).doomed.remove(&stream);
        Ok(())
    }

    fn batch(&self, stream: StreamId, view: &View, keep: usize, least: usize) -> Option<Batch> {
        let block_len = self.options.block_len;
        let count = view.tail.len().checked_sub(keep).filter(|count| *count >= least.max(1))?;
        let first = *view.tail.first_key_value()?.0;
        // What comes late goes where it belongs, never across the block after.
        let end = view.tree.next_begin(first).unwrap_or(FragmentNumber::MAX);
        let moved = view.tail.values().take_while(|slot| slot.number() < end).take(count.min(block_len));
        let mut merged: Vec<Slot> = moved.cloned().collect();
        let before = view.tree.find(first).filter(|block| {
            let count = usize::try_from(block.summary.sums.count).unwrap_or(usize::MAX);
            block.summary.numbers.1 >= first || count < block_len / 2 || count + merged.len() <= block_len
        });
        let mut left_out = Vec::new();
        if let Some(before) = before {
            let look = Look::new(stream, view, &self.files);
            for slot in look.open(before).iter() {
                let number = slot.number();
                if look.holds(number) {
                    merged.push(slot.clone());
                } else if view.shadowed.contains_key(&number) {
                    left_out.push(number);
                }
            }
            merged.sort_unstable_by_key(Slot::number);
        }
        Some(Batch { merged, before: before.cloned(), left_out })
    }

    /// Moves fragments of all streams into blocks: whole blocks first, which are never merged again; if that was not
    /// enough, all but a fair share.
    fn spill_evenly(&self) -> io::Result<()> {
        let streams: Vec<StreamId> = read(&self.streams).held.keys().copied().collect();
        let (block_len, enough) = (self.options.block_len, self.options.tail_max / 2);
        let share = enough / streams.len().max(1);
        for (keep, least) in [(share.min(block_len / 8), block_len), (share, 1)] {
            if self.tail_count.load(Ordering::Relaxed) > enough {
                streams.iter().try_for_each(|stream| self.spill(*stream, keep, least))?;
            }
        }
        Ok(())
    }

    /// Writes again what is left of files that are mostly waste.
    fn rewrite_wasteful(&self) -> io::Result<()> {
        let Some(file) = self.files.wasteful() else { return Ok(()) };
        let streams: Vec<StreamId> = read(&self.streams).held.keys().copied().collect();
        for stream in streams {
            let Some(held) = read(&self.streams).held.get(&stream).cloned() else { continue };
            let tree = Arc::clone(&read(&held).view.tree);
            let blocks: Vec<Block> = tree.blocks().filter(|block| block.place.file == file).cloned().collect();
            drop(tree);
            for block in blocks {
                // What does not read stays where it is, and is reported when it is looked for.
                let Ok(slots) = self.files.load(stream, block.place) else { continue };
                let place = self.files.append(stream, &slots)?;
                let streams = read(&self.streams);
                if !streams.held.contains_key(&stream) {
                    drop(streams);
                    self.work.erase(stream, vec![place]);
                    break;
                }
                let mut held = write(&held);
                // If it is not found it was released by whoever took it out.
                let gone = [if held.moved(&block, place) { block.place } else { place }];
                self.files.mark_dead(stream, &gone);
                drop((held, streams));
                self.files.release(&gone);
            }
        }
        Ok(())
    }
}

fn entries(slots: &[Slot]) -> impl Iterator<Item = &FragmentEntry> {
    slots.iter().map(|slot| &*slot.entry)
}
