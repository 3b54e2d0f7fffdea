//! Fragments in some order: the best first, out of a tree of which only what is needed is opened.
//!
//! A lookup says how to rank a fragment, and from what a group or block spans, before what rank none of its wanted
//! fragments comes. Groups, blocks and fragments wait in one heap; what comes out of it is a fragment, or is opened and
//! goes back as its parts. So pages of any order open the blocks they show, however the blocks overlap in that order.

use std::cmp::{Ordering, Reverse};
use std::collections::BinaryHeap;

use vidar_core::entry::{FragmentEntry, SharedEntry};

use super::look::Look;
use super::tree::Summary;

enum Item {
    Group(usize),
    Block(usize, usize),
    Entry(SharedEntry),
}

struct Ranked<K> {
    rank: K,
    item: Item,
}

impl<K: Ord> PartialEq for Ranked<K> {
    fn eq(&self, other: &Self) -> bool {
        self.rank == other.rank
    }
}

impl<K: Ord> Eq for Ranked<K> {}

impl<K: Ord> PartialOrd for Ranked<K> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<K: Ord> Ord for Ranked<K> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.rank.cmp(&other.rank)
    }
}

/// See [`Look::walk`].
pub(super) struct Walk<'a, K, B, E> {
    look: &'a Look,
    heap: BinaryHeap<Reverse<Ranked<K>>>,
    bound: B,
    rank: E,
}

impl<'a, K: Ord, B: Fn(&Summary) -> Option<K>, E: Fn(&FragmentEntry) -> Option<K>> Walk<'a, K, B, E> {
    /// `bound`: none of what is wanted ranks before this; none: nothing is wanted. `rank`: none: not wanted.
    pub(super) fn new(look: &'a Look, bound: B, rank: E) -> Self {
        let view = &look.view;
        let ranked = |rank, item| Reverse(Ranked { rank, item });
        let groups = view.tree.groups.iter().enumerate().filter(|(_, group)| group.summary.numbers.1 >= view.floor);
        let groups = groups.filter_map(|(index, group)| Some(ranked(bound(&group.summary)?, Item::Group(index))));
        let tail = view.tail.values().map(|slot| &slot.entry);
        let tail = tail.filter_map(|entry| Some(ranked(rank(entry)?, Item::Entry(entry.clone()))));
        let heap = groups.chain(tail).collect();
        Self { look, heap, bound, rank }
    }

    fn push(&mut self, rank: Option<K>, item: Item) {
        self.heap.extend(rank.map(|rank| Reverse(Ranked { rank, item })));
    }

    fn open_group(&mut self, index: usize) {
        let look = self.look;
        let Some(group) = look.view.tree.groups.get(index) else { return };
        for (at, block) in group.blocks.iter().enumerate() {
            if block.summary.numbers.1 >= look.view.floor {
                self.push((self.bound)(&block.summary), Item::Block(index, at));
            }
        }
    }

    fn open_block(&mut self, group: usize, at: usize) {
        let look = self.look;
        let Some(block) = look.view.tree.groups.get(group).and_then(|group| group.blocks.get(at)) else { return };
        for slot in &*look.open(block) {
            if look.holds(slot.number()) {
                self.push((self.rank)(&slot.entry), Item::Entry(slot.entry.clone()));
            }
        }
    }
}

impl<K: Ord, B: Fn(&Summary) -> Option<K>, E: Fn(&FragmentEntry) -> Option<K>> Iterator for Walk<'_, K, B, E> {
    type Item = SharedEntry;

    fn next(&mut self) -> Option<SharedEntry> {
        loop {
            match self.heap.pop()?.0.item {
                Item::Entry(entry) => return Some(entry),
                Item::Group(index) => self.open_group(index),
                Item::Block(group, at) => self.open_block(group, at),
            }
        }
    }
}
