//! The fragments of one stream.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::ops::Bound::{Excluded, Unbounded};
use std::sync::Arc;

use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::{FragmentNumber, RunId};
use vidar_core::record::FragmentFacts;
use vidar_core::time::UnixMs;

use super::details::Details;
use crate::interval::{IntervalIndex, Span};

const HOUR_MS: i64 = 3_600_000;

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

#[derive(Debug)]
pub(super) struct Slot {
    pub(super) entry: SharedEntry,
    pub(super) details: Details,
}

#[derive(Debug, Default)]
struct Run {
    numbers: BTreeSet<FragmentNumber>,
    /// Times do not follow the numbers; first and last do not bound it.
    jumps: bool,
}

#[derive(Default)]
pub(super) struct Held {
    pub(super) version: u64,
    slots: BTreeMap<FragmentNumber, Slot>,
    ordinals: BTreeSet<(u64, FragmentNumber)>,
    pub(super) producer: IntervalIndex<SharedEntry>,
    runs: HashMap<RunId, Run>,
    /// Smallest and greatest number of each hour of server time, and the latest end of what began in it. Numbers
    /// follow the server's clock except where it was stepped, so that the ranges of hours may overlap.
    hours: BTreeMap<i64, (FragmentNumber, FragmentNumber, UnixMs)>,
    size_bytes: u64,
    stored_bytes: u64,
    floor: Option<FragmentNumber>,
    next_ordinal: u64,
    discontinuity: u32,
}

impl Held {
    pub(super) fn add(&mut self, entry: &SharedEntry, facts: &FragmentFacts) {
        let meta = &entry.meta;
        self.take_ordinal(meta.ordinal);
        self.discontinuity = self.discontinuity.max(meta.discontinuity);
        if self.floor.is_some_and(|floor| meta.number < floor) {
            return;
        }
        if let Some(slot) = self.slots.get(&meta.number) {
            if *slot.entry == **entry {
                return;
            }
            // The record moved to another file.
            self.remove(meta.number);
        }
        let alike = self.slots.range(..meta.number).next_back().map(|(_, slot)| &slot.details);
        let details = Details::new(facts, alike);
        self.slots.insert(meta.number, Slot { entry: Arc::clone(entry), details });
        self.ordinals.insert((meta.ordinal, meta.number));
        self.producer.insert(producer_span(entry), meta.number, Arc::clone(entry));
        self.add_to_run(entry);
        self.add_to_hour(entry);
        self.size_bytes = self.size_bytes.saturating_add(entry.size_bytes);
        self.stored_bytes = self.stored_bytes.saturating_add(entry.stored_bytes());
        self.version += 1;
    }

    fn add_to_run(&mut self, entry: &FragmentEntry) {
        let number = entry.meta.number;
        let run = self.runs.entry(entry.meta.run).or_default();
        let before = run.numbers.range(..number).next_back();
        let after = run.numbers.range((Excluded(number), Unbounded)).next();
        let span = |number: &FragmentNumber| self.slots.get(number).map(|slot| producer_span(&slot.entry));
        let in_order = |a: Option<Span>, b: Option<Span>| match (a, b) {
            (Some(a), Some(b)) => a.start <= b.start && a.end <= b.end,
            _ => true,
        };
        let own = Some(producer_span(entry));
        run.jumps |= !in_order(before.and_then(span), own) || !in_order(own, after.and_then(span));
        run.numbers.insert(number);
    }

    fn add_to_hour(&mut self, entry: &FragmentEntry) {
        let number = entry.meta.number;
        let end = server_span(entry).end;
        let hour = self.hours.entry(number.server_ms().div_euclid(HOUR_MS)).or_insert((number, number, end));
        *hour = (hour.0.min(number), hour.1.max(number), hour.2.max(end));
    }

    fn remove(&mut self, number: FragmentNumber) {
        let Some(slot) = self.slots.remove(&number) else { return };
        let entry = slot.entry;
        self.ordinals.remove(&(entry.meta.ordinal, number));
        self.producer.remove(producer_span(&entry), number);
        if let Some(run) = self.runs.get_mut(&entry.meta.run) {
            run.numbers.remove(&number);
            if run.numbers.is_empty() {
                self.runs.remove(&entry.meta.run);
            }
        }
        self.size_bytes = self.size_bytes.saturating_sub(entry.size_bytes);
        self.stored_bytes = self.stored_bytes.saturating_sub(entry.stored_bytes());
        self.version += 1;
    }

    pub(super) fn raise_floor(&mut self, below: FragmentNumber, (next_ordinal, discontinuity): (u64, u32)) {
        self.next_ordinal = self.next_ordinal.max(next_ordinal);
        self.discontinuity = self.discontinuity.max(discontinuity);
        if self.floor.is_some_and(|floor| floor >= below) {
            return;
        }
        self.floor = Some(below);
        self.version += 1;
        while let Some((number, _)) = self.slots.first_key_value()
            && *number < below
        {
            let number = *number;
            self.remove(number);
        }
        self.hours.retain(|_, (first, last, _)| {
            *first = (*first).max(below);
            *last >= below
        });
    }

    pub(super) fn take_ordinal(&mut self, ordinal: u64) {
        self.next_ordinal = self.next_ordinal.max(ordinal.saturating_add(1));
    }

    pub(super) fn next_place(&self) -> (u64, u32) {
        (self.next_ordinal, self.discontinuity)
    }

    pub(super) fn floor(&self) -> Option<FragmentNumber> {
        self.floor
    }

    pub(super) fn len(&self) -> u64 {
        self.slots.len() as u64
    }

    pub(super) fn stored_bytes(&self) -> u64 {
        self.stored_bytes
    }

    pub(super) fn get(&self, number: FragmentNumber) -> Option<&Slot> {
        self.slots.get(&number)
    }

    /// From `number` on, ascending.
    pub(super) fn entries_from(&self, number: FragmentNumber) -> impl Iterator<Item = &SharedEntry> {
        self.slots.range(number..).map(|(_, slot)| &slot.entry)
    }

    /// After `number`, ascending.
    pub(super) fn entries_after(&self, number: FragmentNumber) -> impl Iterator<Item = &SharedEntry> {
        self.slots.range((Excluded(number), Unbounded)).map(|(_, slot)| &slot.entry)
    }

    /// Before `number`, descending.
    pub(super) fn entries_back(&self, number: FragmentNumber) -> impl Iterator<Item = &SharedEntry> {
        self.slots.range(..number).rev().map(|(_, slot)| &slot.entry)
    }

    pub(super) fn by_ordinal(&self, from: u64) -> impl Iterator<Item = &SharedEntry> {
        let places = self.ordinals.range((from, FragmentNumber::MIN)..);
        places.filter_map(|(_, number)| self.slots.get(number)).map(|slot| &slot.entry)
    }

    /// Numbers among which all lie that overlap `[start, end)` by the server's clock: smallest and greatest.
    pub(super) fn numbers_of_server_range(
        &self,
        start: UnixMs,
        end: UnixMs,
    ) -> Option<(FragmentNumber, FragmentNumber)> {
        let last_hour = end.0.saturating_sub(1).div_euclid(HOUR_MS);
        let hours = self.hours.range(..=last_hour).map(|(_, hour)| hour).filter(|(_, _, latest)| *latest > start);
        hours.fold(None, |range, (first, last, _)| match range {
            None => Some((*first, *last)),
            Some((a, b)) => Some((a.min(*first), b.max(*last))),
        })
    }

    pub(super) fn run_numbers(&self, run: RunId) -> impl Iterator<Item = FragmentNumber> {
        self.runs.get(&run).into_iter().flat_map(|run| run.numbers.iter().copied())
    }

    pub(super) fn next_in_run(&self, entry: &FragmentEntry) -> Option<SharedEntry> {
        let numbers = &self.runs.get(&entry.meta.run)?.numbers;
        let number = numbers.range((Excluded(entry.meta.number), Unbounded)).next()?;
        self.slots.get(number).map(|slot| Arc::clone(&slot.entry))
    }

    pub(super) fn previous_in_run(&self, entry: &FragmentEntry) -> Option<SharedEntry> {
        let number = self.runs.get(&entry.meta.run)?.numbers.range(..entry.meta.number).next_back()?;
        self.slots.get(number).map(|slot| Arc::clone(&slot.entry))
    }

    pub(super) fn run_span(&self, id: RunId) -> Option<RunSpan> {
        let run = self.runs.get(&id)?;
        let entry = |number: &FragmentNumber| self.slots.get(number).map(|slot| &slot.entry);
        let (first, last) = (entry(run.numbers.first()?)?, entry(run.numbers.last()?)?);
        let (mut start, mut end) = (producer_span(first).start, producer_span(last).end);
        if run.jumps {
            for span in run.numbers.iter().filter_map(entry).map(|entry| producer_span(entry)) {
                (start, end) = (start.min(span.start), end.max(span.end));
            }
        }
        let count = run.numbers.len() as u64;
        Some(RunSpan { first: Arc::clone(first), last: Arc::clone(last), start, end, count })
    }

    pub(super) fn totals(&self) -> StreamTotals {
        let ends = self.slots.first_key_value().zip(self.slots.last_key_value());
        let ends = ends.map(|((_, first), (_, last))| (&first.entry.meta, &last.entry.meta));
        StreamTotals {
            fragment_count: self.len(),
            size_bytes: self.size_bytes,
            stored_bytes: self.stored_bytes,
            producer: ends.map(|(first, last)| (first.producer_start, last.producer_end())),
            server: ends.map(|(first, last)| (first.server_start(), last.server_start())),
        }
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
