//! Where the blocks of a stream are, and what each spans: two levels in memory, a few hundred bytes for a block.
//!
//! Blocks are in the order of numbers and do not overlap there. By producer time, ordinal or server time they may
//! overlap and jump as they like: a lookup looks at what each group spans, then at the blocks of the groups that matter.

use std::sync::Arc;

use vidar_core::entry::FragmentEntry;
use vidar_core::ids::{FragmentNumber, RunId};
use vidar_core::time::UnixMs;

use super::files::Place;
use super::stream::{producer_span, server_span};

/// Blocks of a group; twice as many are split.
const GROUP_LEN: usize = 64;

/// Counts that add up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Sums {
    pub(super) count: u64,
    pub(super) size_bytes: u64,
    pub(super) stored_bytes: u64,
}

impl Sums {
    pub(super) fn of(entry: &FragmentEntry) -> Self {
        Self { count: 1, size_bytes: entry.size_bytes, stored_bytes: entry.stored_bytes() }
    }

    pub(super) fn plus(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_add(other.count),
            size_bytes: self.size_bytes.saturating_add(other.size_bytes),
            stored_bytes: self.stored_bytes.saturating_add(other.stored_bytes),
        }
    }

    pub(super) fn less(self, other: Self) -> Self {
        Self {
            count: self.count.saturating_sub(other.count),
            size_bytes: self.size_bytes.saturating_sub(other.size_bytes),
            stored_bytes: self.stored_bytes.saturating_sub(other.stored_bytes),
        }
    }
}

/// What some fragments span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Summary {
    /// Smallest and greatest.
    pub(super) numbers: (FragmentNumber, FragmentNumber),
    /// Smallest and greatest.
    pub(super) ordinals: (u64, u64),
    /// Earliest and latest start by the producer's clock…
    pub(super) starts: (UnixMs, UnixMs),
    /// …and the latest end.
    pub(super) end: UnixMs,
    /// Earliest start and latest end by the server's clock.
    pub(super) server: (UnixMs, UnixMs),
    /// Of this run are all of them.
    pub(super) run: Option<RunId>,
    pub(super) sums: Sums,
}

impl Summary {
    fn of(entry: &FragmentEntry) -> Self {
        let (meta, producer, server) = (&entry.meta, producer_span(entry), server_span(entry));
        Self {
            numbers: (meta.number, meta.number),
            ordinals: (meta.ordinal, meta.ordinal),
            starts: (producer.start, producer.start),
            end: producer.end,
            server: (server.start, server.end),
            run: Some(meta.run),
            sums: Sums::of(entry),
        }
    }

    fn with(self, other: &Self) -> Self {
        let both = |a: (UnixMs, UnixMs), b: (UnixMs, UnixMs)| (a.0.min(b.0), a.1.max(b.1));
        Self {
            numbers: (self.numbers.0.min(other.numbers.0), self.numbers.1.max(other.numbers.1)),
            ordinals: (self.ordinals.0.min(other.ordinals.0), self.ordinals.1.max(other.ordinals.1)),
            starts: both(self.starts, other.starts),
            end: self.end.max(other.end),
            server: both(self.server, other.server),
            run: self.run.filter(|run| other.run == Some(*run)),
            sums: self.sums.plus(other.sums),
        }
    }

    /// None: of nothing.
    pub(super) fn of_all<'a>(entries: impl IntoIterator<Item = &'a FragmentEntry>) -> Option<Self> {
        entries.into_iter().map(Self::of).reduce(|all, one| all.with(&one))
    }

    /// Something of the run may be in it.
    pub(super) fn may_hold(&self, run: RunId) -> bool {
        self.run.is_none_or(|sole| sole == run)
    }
}

/// A block that was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    pub(super) place: Place,
    pub(super) summary: Summary,
}

#[derive(Debug, Clone)]
pub(super) struct Group {
    /// Of all of them.
    pub(super) summary: Summary,
    pub(super) blocks: Vec<Block>,
}

impl Group {
    fn new(blocks: Vec<Block>) -> Option<Self> {
        let summary = blocks.iter().map(|block| block.summary.clone()).reduce(|all, one| all.with(&one))?;
        Some(Self { summary, blocks })
    }
}

/// All blocks of a stream.
#[derive(Debug, Clone, Default)]
pub(super) struct Tree {
    pub(super) groups: Vec<Arc<Group>>,
}

impl Tree {
    /// Of blocks in the order of numbers. None: they are not, or overlap.
    pub(super) fn of(blocks: &[Block]) -> Option<Self> {
        let in_order = |pair: &[Block]| pair[0].summary.numbers.1 < pair[1].summary.numbers.0;
        let whole = blocks.iter().all(|block| block.summary.numbers.0 <= block.summary.numbers.1);
        let groups = blocks.chunks(GROUP_LEN).filter_map(|blocks| Group::new(blocks.to_vec())).map(Arc::new);
        (whole && blocks.windows(2).all(in_order)).then(|| Self { groups: groups.collect() })
    }

    /// The last block that begins at `number` or before: where `number` is, if it is in any.
    pub(super) fn find(&self, number: FragmentNumber) -> Option<&Block> {
        let group = self.groups.partition_point(|group| group.summary.numbers.0 <= number);
        let blocks = &self.groups.get(group.checked_sub(1)?)?.blocks;
        let block = blocks.partition_point(|block| block.summary.numbers.0 <= number);
        blocks.get(block.checked_sub(1)?)
    }

    /// Where the first block after `number` begins.
    pub(super) fn next_begin(&self, number: FragmentNumber) -> Option<FragmentNumber> {
        let group = self.groups.partition_point(|group| group.summary.numbers.1 <= number);
        let blocks = self.groups.get(group..)?.iter().flat_map(|group| &group.blocks);
        blocks.map(|block| block.summary.numbers.0).find(|begin| *begin > number)
    }

    /// The greatest number in any block.
    pub(super) fn last(&self) -> Option<FragmentNumber> {
        self.groups.last().map(|group| group.summary.numbers.1)
    }

    pub(super) fn blocks(&self) -> impl Iterator<Item = &Block> {
        self.groups.iter().flat_map(|group| &group.blocks)
    }

    pub(super) fn sums(&self) -> Sums {
        self.groups.iter().fold(Sums::default(), |sums, group| sums.plus(group.summary.sums))
    }

    /// Adds a block, in the order of numbers. It overlaps none.
    pub(super) fn insert(&mut self, block: Block) {
        let number = block.summary.numbers.0;
        let index = self.groups.partition_point(|group| group.summary.numbers.0 <= number).saturating_sub(1);
        let at_end = index + 1 >= self.groups.len();
        match self.groups.get_mut(index) {
            Some(group) if !at_end || group.blocks.len() < GROUP_LEN || number < group.summary.numbers.1 => {
                let group = Arc::make_mut(group);
                let at = group.blocks.partition_point(|block| block.summary.numbers.0 <= number);
                group.summary = group.summary.clone().with(&block.summary);
                group.blocks.insert(at, block);
                if group.blocks.len() >= 2 * GROUP_LEN {
                    let (low, high) = group.blocks.split_at(GROUP_LEN);
                    let halves = [low.to_vec(), high.to_vec()].into_iter().filter_map(Group::new).map(Arc::new);
                    self.groups.splice(index..=index, halves);
                }
            }
            _ => self.groups.extend(Group::new(vec![block]).map(Arc::new)),
        }
    }

    /// Takes the block at a place out. False: it is not here.
    pub(super) fn remove(&mut self, number: FragmentNumber, place: Place) -> bool {
        let group = self.groups.partition_point(|group| group.summary.numbers.0 <= number);
        let Some(index) = group.checked_sub(1) else { return false };
        let Some(group) = self.groups.get_mut(index) else { return false };
        let Some(at) = group.blocks.iter().position(|block| block.place == place) else { return false };
        let mut blocks = group.blocks.clone();
        blocks.remove(at);
        match Group::new(blocks) {
            Some(rest) => *group = Arc::new(rest),
            None => drop(self.groups.remove(index)),
        }
        true
    }

    /// Takes the blocks out that lie wholly below a number.
    pub(super) fn drop_below(&mut self, floor: FragmentNumber) -> Vec<Place> {
        let is_gone = |summary: &Summary| summary.numbers.1 < floor;
        let whole = self.groups.iter().take_while(|group| is_gone(&group.summary)).count();
        let mut gone: Vec<Block> = Vec::new();
        for group in self.groups.drain(..whole) {
            gone.extend(group.blocks.iter().cloned());
        }
        if let Some(group) = self.groups.first_mut() {
            let part = group.blocks.iter().take_while(|block| is_gone(&block.summary)).count();
            if part > 0 {
                let mut blocks = group.blocks.clone();
                gone.extend(blocks.drain(..part));
                // Not empty: its last block reaches the floor.
                if let Some(rest) = Group::new(blocks) {
                    *group = Arc::new(rest);
                }
            }
        }
        gone.into_iter().map(|block| block.place).collect()
    }
}
