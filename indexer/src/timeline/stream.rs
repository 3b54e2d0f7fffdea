//! The fragments of one stream: blocks, and the newest in memory.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, OnceLock};

use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::record::FragmentFacts;
use vidar_core::time::UnixMs;

use super::block::Slot;
use super::details::Details;
use super::files::{Files, Place};
use super::look::Look;
use super::tree::{Block, Sums, Tree};
use crate::interval::Span;

/// Counts and bounds of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StreamTotals {
    /// Fragments that may be read.
    pub fragment_count: u64,
    /// Bytes of their samples.
    pub size_bytes: u64,
    /// Bytes of their records on disk.
    pub stored_bytes: u64,
    /// Beginning of the first and end of the last fragment by number, by the producer's clock.
    pub producer: Option<(UnixMs, UnixMs)>,
    /// Beginning of the first and of the last fragment by number, by the server's clock.
    pub server: Option<(UnixMs, UnixMs)>,
}

/// The fragments of a run that may be read.
#[derive(Debug, Clone)]
pub(crate) struct RunSpan {
    pub(crate) first: SharedEntry,
    pub(crate) last: SharedEntry,
    pub(crate) start: UnixMs,
    pub(crate) end: UnixMs,
    pub(crate) count: u64,
}

/// What is kept of a run beside its fragments.
#[derive(Debug, Clone, Copy)]
pub(super) struct Run {
    /// Of all that was ever added. Fragments below the floor are gone.
    pub(super) first: FragmentNumber,
    pub(super) last: FragmentNumber,
    pub(super) count: u64,
    /// Times do not follow the numbers, or may not; first and last do not bound it.
    pub(super) jumps: bool,
    pub(super) last_span: Span,
}

/// Fragments in memory.
pub(super) type Tail = BTreeMap<FragmentNumber, Slot>;

/// The fragments as they stand at some time. Cheap to clone: a reader keeps one, and no lock.
#[derive(Clone)]
pub(super) struct View {
    /// The newest, and what came late.
    pub(super) tail: Arc<Tail>,
    tail_sums: Sums,
    pub(super) tree: Arc<Tree>,
    /// What the tail holds in place of fragments in blocks: the records moved. With what stands in the block.
    pub(super) shadowed: Arc<BTreeMap<FragmentNumber, Sums>>,
    /// What is below is gone, in whatever block it still stands.
    pub(super) floor: FragmentNumber,
    /// Of this tree and floor, once somebody asked.
    pub(super) front: Arc<OnceLock<Front>>,
}

/// What the floor makes of the first block.
#[derive(Default)]
pub(super) struct Front {
    /// It cuts off.
    pub(super) gone: Sums,
    /// The first in a block that is left.
    pub(super) first: Option<SharedEntry>,
}

impl View {
    /// Of what was saved.
    pub(super) fn of(tail: Tail, tree: Tree, shadowed: BTreeMap<FragmentNumber, Sums>, floor: FragmentNumber) -> Self {
        let tail_sums = tail.values().fold(Sums::default(), |sums, slot| sums.plus(Sums::of(&slot.entry)));
        let (tail, tree, shadowed) = (Arc::new(tail), Arc::new(tree), Arc::new(shadowed));
        Self { tail, tail_sums, tree, shadowed, floor, front: Arc::default() }
    }

    fn new() -> Self {
        let (tail, tree, shadowed) = (Arc::default(), Arc::default(), Arc::default());
        let (tail_sums, floor, front) = (Sums::default(), FragmentNumber::MIN, Arc::default());
        Self { tail, tail_sums, tree, shadowed, floor, front }
    }

    /// Of all, those included that are below the floor and still in a block.
    pub(super) fn sums(&self) -> Sums {
        self.shadowed.values().fold(self.tree.sums().plus(self.tail_sums), |sums, gone| sums.less(*gone))
    }
}

pub(super) struct Held {
    pub(super) stream: StreamId,
    pub(super) version: u64,
    pub(super) view: View,
    pub(super) runs: HashMap<RunId, Run>,
    pub(super) next_ordinal: u64,
    pub(super) discontinuity: u32,
}

impl Held {
    pub(super) fn new(stream: StreamId) -> Self {
        Self { stream, version: 0, view: View::new(), runs: HashMap::new(), next_ordinal: 0, discontinuity: 0 }
    }

    /// Takes note of a fragment. Reads a block only if this one is older than the newest that stands in a block.
    pub(super) fn add(&mut self, entry: &SharedEntry, facts: &FragmentFacts, files: &Arc<Files>) {
        let meta = &entry.meta;
        self.take_ordinal(meta.ordinal);
        self.discontinuity = self.discontinuity.max(meta.discontinuity);
        if meta.number < self.view.floor {
            return;
        }
        // Most come behind all that there is.
        let is_next = self.view.tail.last_key_value().is_none_or(|(last, _)| *last < meta.number);
        let held = if is_next { None } else { self.view.tail.get(&meta.number) };
        if let Some(slot) = held {
            if *slot.entry == **entry {
                return;
            }
            // The record moved to another file.
            self.view.tail_sums = self.view.tail_sums.less(Sums::of(&slot.entry));
            self.forget_of_run(meta.run);
        } else if self.view.tree.last().is_some_and(|last| meta.number <= last)
            && let Some(slot) = Look::new(self.stream, &self.view, files).in_block(meta.number)
        {
            if *slot.entry == **entry {
                return;
            }
            Arc::make_mut(&mut self.view.shadowed).insert(meta.number, Sums::of(&slot.entry));
            self.forget_of_run(meta.run);
        }
        self.add_to_run(entry);
        let alike = self.view.tail.last_key_value().map(|(_, slot)| &slot.details);
        let slot = Slot { entry: Arc::clone(entry), details: Details::new(facts, alike) };
        self.view.tail_sums = self.view.tail_sums.plus(Sums::of(entry));
        Arc::make_mut(&mut self.view.tail).insert(meta.number, slot);
        self.version += 1;
    }

    fn add_to_run(&mut self, entry: &FragmentEntry) {
        let (number, span) = (entry.meta.number, producer_span(entry));
        let new = Run { first: number, last: number, count: 0, jumps: false, last_span: span };
        let run = self.runs.entry(entry.meta.run).or_insert(new);
        run.count += 1;
        if number > run.last {
            run.jumps |= run.last_span.start > span.start || run.last_span.end > span.end;
            (run.last, run.last_span) = (number, span);
        } else if run.count > 1 {
            // Out of order: what stands around it is not looked up.
            run.jumps = true;
        }
        run.first = run.first.min(number);
    }

    fn forget_of_run(&mut self, run: RunId) {
        if let Some(run) = self.runs.get_mut(&run) {
            run.count = run.count.saturating_sub(1);
            run.jumps = true;
        }
    }

    /// Answers the blocks of which nothing is left.
    pub(super) fn raise_floor(
        &mut self,
        below: FragmentNumber,
        (next_ordinal, discontinuity): (u64, u32),
    ) -> Vec<Place> {
        self.next_ordinal = self.next_ordinal.max(next_ordinal);
        self.discontinuity = self.discontinuity.max(discontinuity);
        if self.view.floor >= below {
            return Vec::new();
        }
        self.version += 1;
        let view = &mut self.view;
        view.floor = below;
        view.front = Arc::default();
        let gone = Arc::make_mut(&mut view.tree).drop_below(below);
        if view.tail.first_key_value().is_some_and(|(first, _)| *first < below) {
            let tail = Arc::make_mut(&mut view.tail);
            let rest = tail.split_off(&below);
            let gone = std::mem::replace(tail, rest);
            view.tail_sums = gone.values().fold(view.tail_sums, |sums, slot| sums.less(Sums::of(&slot.entry)));
        }
        if !view.shadowed.is_empty() {
            let rest = Arc::make_mut(&mut view.shadowed).split_off(&below);
            view.shadowed = Arc::new(rest);
        }
        self.runs.retain(|_, run| run.last >= below);
        gone
    }

    pub(super) fn take_ordinal(&mut self, ordinal: u64) {
        self.next_ordinal = self.next_ordinal.max(ordinal.saturating_add(1));
    }

    pub(super) fn next_place(&self) -> (u64, u32) {
        (self.next_ordinal, self.discontinuity)
    }

    pub(super) fn floor(&self) -> Option<FragmentNumber> {
        (self.view.floor > FragmentNumber::MIN).then_some(self.view.floor)
    }

    /// Some of the tail stands in blocks now, which hold `merged`. `before` is the block that it was merged with, `left_out`
    /// what the new ones no longer hold of it. Answers what nothing refers to any more.
    pub(super) fn spilled(
        &mut self,
        merged: &[Slot],
        left_out: &[FragmentNumber],
        before: Option<&Block>,
        blocks: Vec<Block>,
    ) -> Vec<Place> {
        let view = &mut self.view;
        view.front = Arc::default();
        let tree = Arc::make_mut(&mut view.tree);
        let mut gone = Vec::new();
        if let Some(before) = before
            && tree.remove(before.summary.numbers.0, before.place)
        {
            gone.push(before.place);
        }
        for block in blocks {
            if block.summary.numbers.1 < view.floor {
                gone.push(block.place);
            } else {
                tree.insert(block);
            }
        }
        let (tail, shadowed) = (Arc::make_mut(&mut view.tail), Arc::make_mut(&mut view.shadowed));
        for number in left_out {
            shadowed.remove(number);
        }
        for slot in merged {
            let number = slot.number();
            match tail.get(&number) {
                Some(now) if Arc::ptr_eq(&now.entry, &slot.entry) => {
                    tail.remove(&number);
                    shadowed.remove(&number);
                    view.tail_sums = view.tail_sums.less(Sums::of(&slot.entry));
                }
                // It moved meanwhile.
                Some(_) => drop(shadowed.insert(number, Sums::of(&slot.entry))),
                // It stood in that block before; or the floor rose meanwhile.
                None => {}
            }
        }
        gone
    }

    /// A block stands elsewhere now. False: it is gone.
    pub(super) fn moved(&mut self, before: &Block, place: Place) -> bool {
        let tree = Arc::make_mut(&mut self.view.tree);
        let found = tree.remove(before.summary.numbers.0, before.place);
        if found {
            tree.insert(Block { place, summary: before.summary.clone() });
        }
        found
    }
}

/// The time a fragment covers by the producer's clock.
pub(super) fn producer_span(entry: &FragmentEntry) -> Span {
    Span::new(entry.meta.producer_start, entry.meta.producer_end())
}

/// The time a fragment covers by the server's clock.
pub(super) fn server_span(entry: &FragmentEntry) -> Span {
    let start = entry.meta.server_start();
    Span::new(start, start.plus_ms(entry.meta.duration_ms.into()))
}

/// The smallest number greater than this one.
pub(super) fn successor(number: FragmentNumber) -> FragmentNumber {
    let mut bytes = *number.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (sum, carried) = byte.overflowing_add(1);
        *byte = sum;
        if !carried {
            return FragmentNumber::from_bytes(bytes);
        }
    }
    FragmentNumber::MAX
}
