//! Lookups in the fragments of one stream, as they stood at some time. A lookup may read blocks; it holds no lock.

use std::cmp::Reverse;
use std::ops::RangeInclusive;
use std::sync::Arc;

use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::time::UnixMs;

use super::block::Slot;
use super::cursor::Cursor;
use super::files::Files;
use super::stream::{Front, Run, RunSpan, StreamTotals, View, producer_span, server_span};
use super::tree::{Block, Summary, Sums};
use super::walk::Walk;

/// The fragments of a stream, and where to read blocks.
pub(super) struct Look {
    stream: StreamId,
    pub(super) view: View,
    files: Arc<Files>,
}

/// Earlier in the order of a listing.
type Place = (UnixMs, FragmentNumber);

const ALL: RangeInclusive<FragmentNumber> = FragmentNumber::MIN..=FragmentNumber::MAX;

impl Look {
    pub(super) fn new(stream: StreamId, view: &View, files: &Arc<Files>) -> Self {
        Self { stream, view: view.clone(), files: Arc::clone(files) }
    }

    /// What stands in a block; nothing if it does not read.
    pub(super) fn open(&self, block: &Block) -> Arc<Vec<Slot>> {
        self.files.read(self.stream, block.place).unwrap_or_default()
    }

    /// What a block says of this number may be answered.
    pub(super) fn holds(&self, number: FragmentNumber) -> bool {
        number >= self.view.floor && !self.view.tail.contains_key(&number)
    }

    /// Whatever the tail and the floor say.
    pub(super) fn in_block(&self, number: FragmentNumber) -> Option<Slot> {
        let block = self.view.tree.find(number).filter(|block| block.summary.numbers.1 >= number)?;
        let slots = self.open(block);
        let index = slots.binary_search_by_key(&number, Slot::number).ok()?;
        slots.get(index).cloned()
    }

    pub(super) fn get(&self, number: FragmentNumber) -> Option<Slot> {
        if number < self.view.floor {
            return None;
        }
        self.view.tail.get(&number).cloned().or_else(|| self.in_block(number))
    }

    /// Numbers in a range, ascending, with a condition on fragments and on what spans them.
    fn ascending(
        &self,
        range: RangeInclusive<FragmentNumber>,
        may_hold: impl Fn(&Summary) -> bool,
        holds: impl Fn(&FragmentEntry) -> bool,
    ) -> impl Iterator<Item = SharedEntry> {
        let of = range.clone();
        let bound = move |summary: &Summary| {
            let (first, last) = summary.numbers;
            (last >= *of.start() && first <= *of.end() && may_hold(summary)).then(|| first.max(*of.start()))
        };
        let rank = move |entry: &FragmentEntry| {
            (range.contains(&entry.meta.number) && holds(entry)).then_some(entry.meta.number)
        };
        Walk::new(self, bound, rank)
    }

    /// As `ascending`, the other way.
    fn descending(
        &self,
        range: RangeInclusive<FragmentNumber>,
        may_hold: impl Fn(&Summary) -> bool,
        holds: impl Fn(&FragmentEntry) -> bool,
    ) -> impl Iterator<Item = SharedEntry> {
        let of = range.clone();
        let bound = move |summary: &Summary| {
            let (first, last) = summary.numbers;
            (last >= *of.start() && first <= *of.end() && may_hold(summary)).then(|| Reverse(last.min(*of.end())))
        };
        let rank = move |entry: &FragmentEntry| {
            (range.contains(&entry.meta.number) && holds(entry)).then_some(Reverse(entry.meta.number))
        };
        Walk::new(self, bound, rank)
    }

    /// From `number` on, ascending.
    pub(super) fn from(&self, number: FragmentNumber) -> impl Iterator<Item = SharedEntry> {
        self.ascending(number..=FragmentNumber::MAX, |_| true, |_| true)
    }

    /// After `number`, ascending.
    pub(super) fn after(&self, number: FragmentNumber) -> impl Iterator<Item = SharedEntry> {
        let from = number..=FragmentNumber::MAX;
        self.ascending(from, move |summary| summary.numbers.1 > number, move |entry| entry.meta.number != number)
    }

    /// Before `number`, descending.
    pub(super) fn back(&self, number: FragmentNumber) -> impl Iterator<Item = SharedEntry> {
        let to = FragmentNumber::MIN..=number;
        self.descending(to, move |summary| summary.numbers.0 < number, move |entry| entry.meta.number != number)
    }

    pub(super) fn first(&self) -> Option<SharedEntry> {
        let tail = self.view.tail.first_key_value().map(|(_, slot)| &slot.entry);
        let block = self.front().first.as_ref();
        // Of the same number, what the tail says.
        tail.into_iter().chain(block).min_by_key(|entry| entry.meta.number).cloned()
    }

    pub(super) fn last(&self) -> Option<SharedEntry> {
        match self.view.tail.last_key_value() {
            Some((number, slot)) if self.view.tree.last() <= Some(*number) => Some(Arc::clone(&slot.entry)),
            _ => self.descending(ALL, |_| true, |_| true).next(),
        }
    }

    fn front(&self) -> &Front {
        self.view.front.get_or_init(|| {
            let Some(block) = self.view.tree.blocks().next() else { return Front::default() };
            let slots = self.open(block);
            let cut = slots.partition_point(|slot| slot.number() < self.view.floor);
            let (gone, left) = slots.split_at(cut);
            let gone = gone.iter().map(|slot| Sums::of(&slot.entry)).fold(Sums::default(), Sums::plus);
            Front { gone, first: left.first().map(|slot| Arc::clone(&slot.entry)) }
        })
    }

    /// Numbers that overlap `[start, end)` by the server's clock and stand after a page.
    pub(super) fn served(
        &self,
        start: UnixMs,
        end: UnixMs,
        after: Option<Cursor>,
    ) -> impl Iterator<Item = SharedEntry> {
        let range = after.map_or(FragmentNumber::MIN, |at| at.number)..=FragmentNumber::MAX;
        self.ascending(
            range,
            move |summary| is_served(summary, start, end),
            move |entry| {
                let span = server_span(entry);
                span.start < end && span.end > start && after.is_none_or(|at| entry.meta.number != at.number)
            },
        )
    }

    /// As `served`, the other way.
    pub(super) fn served_back(
        &self,
        start: UnixMs,
        end: UnixMs,
        after: Option<Cursor>,
    ) -> impl Iterator<Item = SharedEntry> {
        let range = FragmentNumber::MIN..=after.map_or(FragmentNumber::MAX, |at| at.number);
        self.descending(
            range,
            move |summary| is_served(summary, start, end),
            move |entry| {
                let span = server_span(entry);
                span.start < end && span.end > start && after.is_none_or(|at| entry.meta.number != at.number)
            },
        )
    }

    /// What overlaps `[start, end)` by the producer's clock and stands after `after`, by (start, number).
    pub(super) fn overlapping(
        &self,
        start: UnixMs,
        end: UnixMs,
        after: Option<Place>,
    ) -> impl Iterator<Item = SharedEntry> {
        let bound = move |summary: &Summary| {
            let is_left = after.is_none_or(|after| summary.starts.1 >= after.0);
            (summary.starts.0 < end && summary.end > start && is_left)
                .then_some((summary.starts.0, FragmentNumber::MIN))
                .map(|place| after.map_or(place, |after| place.max(after)))
        };
        let rank = move |entry: &FragmentEntry| {
            let (span, place) = placed(entry);
            (span.start < end && span.end > start && after.is_none_or(|after| place > after)).then_some(place)
        };
        Walk::new(self, bound, rank)
    }

    /// As `overlapping`, the other way.
    pub(super) fn overlapping_back(
        &self,
        start: UnixMs,
        end: UnixMs,
        before: Option<Place>,
    ) -> impl Iterator<Item = SharedEntry> {
        let bound = move |summary: &Summary| {
            let is_left = before.is_none_or(|before| summary.starts.0 <= before.0);
            let place = (summary.starts.1, FragmentNumber::MAX);
            (summary.starts.0 < end && summary.end > start && is_left)
                .then(|| Reverse(before.map_or(place, |before| place.min(before))))
        };
        let rank = move |entry: &FragmentEntry| {
            let (span, place) = placed(entry);
            (span.start < end && span.end > start && before.is_none_or(|before| place < before))
                .then_some(Reverse(place))
        };
        Walk::new(self, bound, rank)
    }

    /// The greatest end among what starts at `at` or before, by the producer's clock.
    pub(super) fn greatest_end_of_started(&self, at: UnixMs) -> Option<UnixMs> {
        let bound = move |summary: &Summary| (summary.starts.0 <= at).then_some(Reverse(summary.end));
        let rank = move |entry: &FragmentEntry| {
            let span = producer_span(entry);
            (span.start <= at).then_some(Reverse(span.end))
        };
        Walk::new(self, bound, rank).next().map(|entry| producer_span(&entry).end)
    }

    /// From an ordinal on, by (ordinal, number).
    pub(super) fn by_ordinal(&self, from: u64) -> impl Iterator<Item = SharedEntry> {
        let bound = move |summary: &Summary| {
            (summary.ordinals.1 >= from).then_some((summary.ordinals.0.max(from), FragmentNumber::MIN))
        };
        let rank = move |entry: &FragmentEntry| {
            (entry.meta.ordinal >= from).then_some((entry.meta.ordinal, entry.meta.number))
        };
        Walk::new(self, bound, rank)
    }

    /// Of a run, between two numbers, ascending.
    fn run_between(&self, id: RunId, range: RangeInclusive<FragmentNumber>) -> impl Iterator<Item = SharedEntry> {
        self.ascending(range, move |summary| summary.may_hold(id), move |entry| entry.meta.run == id)
    }

    pub(super) fn run(&self, id: RunId, run: &Run) -> impl Iterator<Item = SharedEntry> {
        self.run_between(id, run.first..=run.last)
    }

    pub(super) fn next_in_run(&self, entry: &FragmentEntry, run: &Run) -> Option<SharedEntry> {
        let number = entry.meta.number;
        if number >= run.last {
            return None;
        }
        self.run_between(entry.meta.run, number..=run.last).find(|found| found.meta.number != number)
    }

    pub(super) fn previous_in_run(&self, entry: &FragmentEntry, run: &Run) -> Option<SharedEntry> {
        let (number, id) = (entry.meta.number, entry.meta.run);
        if number <= run.first {
            return None;
        }
        let may_hold = move |summary: &Summary| summary.may_hold(id);
        let is_of = move |entry: &FragmentEntry| entry.meta.run == id && entry.meta.number != number;
        self.descending(run.first..=number, may_hold, is_of).next()
    }

    pub(super) fn run_span(&self, id: RunId, run: &Run) -> Option<RunSpan> {
        let first = self.run(id, run).next()?;
        let last = self.get(run.last)?.entry;
        let (mut start, mut end) = (producer_span(&first).start, producer_span(&last).end);
        if run.jumps {
            for span in self.run(id, run).map(|entry| producer_span(&entry)) {
                (start, end) = (start.min(span.start), end.max(span.end));
            }
        }
        let count = if run.first >= self.view.floor { run.count } else { self.run_count(id, run) };
        Some(RunSpan { first, last, start, end, count })
    }

    /// What is left of a run that the floor cuts. Blocks that are all of it are not opened.
    fn run_count(&self, id: RunId, run: &Run) -> u64 {
        let view = &self.view;
        let range = run.first.max(view.floor)..=run.last;
        let spans = |summary: &Summary| summary.numbers.1 >= *range.start() && summary.numbers.0 <= *range.end();
        let groups = view.tree.groups.iter().filter(|group| spans(&group.summary) && group.summary.may_hold(id));
        let blocks = groups.flat_map(|group| &group.blocks);
        let blocks = blocks.filter(|block| spans(&block.summary) && block.summary.may_hold(id));
        let in_blocks = blocks.map(|block| {
            if block.summary.run == Some(id) && block.summary.numbers.0 >= view.floor && view.shadowed.is_empty() {
                return block.summary.sums.count;
            }
            let slots = self.open(block);
            let of_run = slots.iter().filter(|slot| slot.entry.meta.run == id && self.holds(slot.number()));
            of_run.count() as u64
        });
        let in_tail = view.tail.values().filter(|slot| slot.entry.meta.run == id).count() as u64;
        in_blocks.sum::<u64>() + in_tail
    }

    /// Of all that may be read.
    pub(super) fn sums(&self) -> Sums {
        self.view.sums().less(self.front().gone)
    }

    pub(super) fn totals(&self) -> StreamTotals {
        let (sums, ends) = (self.sums(), self.first().zip(self.last()));
        let ends = ends.as_ref().map(|(first, last)| (&first.meta, &last.meta));
        StreamTotals {
            fragment_count: sums.count,
            size_bytes: sums.size_bytes,
            stored_bytes: sums.stored_bytes,
            producer: ends.map(|(first, last)| (first.producer_start, last.producer_end())),
            server: ends.map(|(first, last)| (first.server_start(), last.server_start())),
        }
    }
}

fn is_served(summary: &Summary, start: UnixMs, end: UnixMs) -> bool {
    summary.server.0 < end && summary.server.1 > start
}

fn placed(entry: &FragmentEntry) -> (crate::interval::Span, Place) {
    (producer_span(entry), (entry.meta.producer_start, entry.meta.number))
}
