//! Intervals of time, found by what they overlap.
//!
//! Intervals are kept in classes by length (powers of two), each ordered by start. Those of a class of at most `L`
//! milliseconds that overlap `[a, b)` start in `(a - L, b)`; at most half of that reach is looked at in vain, however
//! long the longest interval of another class is.

use std::collections::BTreeMap;
use std::iter::Peekable;

use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;

/// Half-open, in milliseconds; what is shorter than one counts as one long, so that nothing is out of reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Span {
    pub(crate) start: UnixMs,
    pub(crate) end: UnixMs,
}

impl Span {
    pub(crate) fn new(start: UnixMs, end: UnixMs) -> Self {
        Self { start, end: end.max(start.plus_ms(1)) }
    }

    fn class(self) -> u8 {
        let len = self.end.0.abs_diff(self.start.0).max(1);
        (u64::BITS - (len - 1).leading_zeros()) as u8
    }

    pub(crate) fn overlaps(self, start: UnixMs, end: UnixMs) -> bool {
        self.start < end && self.end > start
    }
}

/// Orders by start, then by number.
pub(crate) type Place = (UnixMs, FragmentNumber);

type Class<V> = BTreeMap<Place, (UnixMs, V)>;

/// One found: where it stands, where it ends, what it holds.
pub(crate) type Found<'a, V> = (Place, UnixMs, &'a V);

#[derive(Debug)]
pub(crate) struct IntervalIndex<V> {
    classes: BTreeMap<u8, Class<V>>,
}

impl<V> Default for IntervalIndex<V> {
    fn default() -> Self {
        Self { classes: BTreeMap::new() }
    }
}

impl<V> IntervalIndex<V> {
    pub(crate) fn insert(&mut self, span: Span, number: FragmentNumber, value: V) {
        self.classes.entry(span.class()).or_default().insert((span.start, number), (span.end, value));
    }

    pub(crate) fn remove(&mut self, span: Span, number: FragmentNumber) {
        let class = span.class();
        if let Some(places) = self.classes.get_mut(&class) {
            places.remove(&(span.start, number));
            if places.is_empty() {
                self.classes.remove(&class);
            }
        }
    }

    /// What overlaps `[start, end)` and stands after `after`, in order.
    pub(crate) fn overlapping(
        &self,
        start: UnixMs,
        end: UnixMs,
        after: Option<Place>,
    ) -> impl Iterator<Item = Found<'_, V>> {
        let parts = self.classes.iter().filter_map(move |(class, places)| {
            let from = reach(start, *class).max(after.unwrap_or((UnixMs(i64::MIN), FragmentNumber::MIN)));
            let to = (end, FragmentNumber::MIN);
            (from < to).then(|| {
                let found = places.range(from..to).map(|(place, (end, value))| (*place, *end, value));
                found.filter(move |(place, stop, _)| is_in(*place, *stop, start, end) && Some(*place) != after)
            })
        });
        Merge::new(parts, |a, b| a < b)
    }
}

fn is_in(place: Place, stop: UnixMs, start: UnixMs, end: UnixMs) -> bool {
    Span { start: place.0, end: stop }.overlaps(start, end)
}

/// The first place at which an interval of `class` that goes on after `start` can stand.
fn reach(start: UnixMs, class: u8) -> Place {
    let longest = if class >= 63 { i64::MAX } else { 1_i64 << class };
    (UnixMs(start.0.saturating_sub(longest).saturating_add(1)), FragmentNumber::MIN)
}

/// Several ordered iterators as one.
struct Merge<I: Iterator> {
    parts: Vec<Peekable<I>>,
    first: fn(&Place, &Place) -> bool,
}

impl<'a, V: 'a, I: Iterator<Item = Found<'a, V>>> Merge<I> {
    fn new(parts: impl Iterator<Item = I>, first: fn(&Place, &Place) -> bool) -> Self {
        Self { parts: parts.map(Iterator::peekable).collect(), first }
    }
}

impl<'a, V: 'a, I: Iterator<Item = Found<'a, V>>> Iterator for Merge<I> {
    type Item = Found<'a, V>;

    fn next(&mut self) -> Option<Self::Item> {
        let mut best: Option<(usize, Place)> = None;
        for (index, part) in self.parts.iter_mut().enumerate() {
            if let Some((place, _, _)) = part.peek()
                && best.is_none_or(|(_, found)| (self.first)(place, &found))
            {
                best = Some((index, *place));
            }
        }
        self.parts.get_mut(best?.0)?.next()
    }
}
