//! What is shown when, where fragments overlap in producer time: the greatest number, at each instant.

use std::collections::BTreeSet;
use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;

use super::look::Look;
use super::stream::producer_span;

/// A stretch of producer time in which one fragment is shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Shown {
    /// What is shown.
    pub entry: SharedEntry,
    /// From this instant…
    pub from: UnixMs,
    /// …to before this one.
    pub to: UnixMs,
}

/// All that bears on what is shown in `[start, end)`, in order of their starts.
pub(super) fn touched(look: &Look, start: UnixMs, end: UnixMs) -> Vec<SharedEntry> {
    if start >= end {
        return Vec::new();
    }
    let found: Vec<SharedEntry> = look.overlapping(start, end, None).collect();
    let spans = found.iter().map(|entry| producer_span(entry));
    let Some((from, to)) = spans.map(|span| (span.start, span.end)).reduce(|a, b| (a.0.min(b.0), a.1.max(b.1))) else {
        return found;
    };
    // What covers a fragment may lie outside the range, and still decides how far it is shown.
    if from >= start && to <= end { found } else { look.overlapping(from, to, None).collect() }
}

/// The plan for `[start, end)`, of what was touched.
pub(super) fn shown(touched: &[SharedEntry], start: UnixMs, end: UnixMs) -> Vec<Shown> {
    let mut plan = resolve(touched.iter());
    plan.retain(|shown| shown.from < end && shown.to > start);
    plan
}

pub(super) fn at(look: &Look, at: UnixMs) -> Option<SharedEntry> {
    if let Some(entry) = covering(look, at) {
        return Some(entry);
    }
    let last_end = look.greatest_end_of_started(at)?;
    covering(look, last_end.plus_ms(-1))
}

fn covering(look: &Look, at: UnixMs) -> Option<SharedEntry> {
    look.overlapping(at, at.plus_ms(1), None).max_by_key(|entry| entry.meta.number)
}

/// A sweep over the edges of fragments that come in order of their starts.
fn resolve<'a>(entries: impl Iterator<Item = &'a SharedEntry>) -> Vec<Shown> {
    let mut edges: Vec<(UnixMs, bool, &SharedEntry)> = Vec::new();
    for entry in entries {
        let span = producer_span(entry);
        edges.push((span.start, true, entry));
        edges.push((span.end, false, entry));
    }
    edges.sort_by_key(|(at, begins, entry)| (*at, *begins, entry.meta.number));

    let mut open: BTreeSet<Open<'_>> = BTreeSet::new();
    let mut plan: Vec<Shown> = Vec::new();
    let mut edges = edges.into_iter().peekable();
    while let Some((at, begins, entry)) = edges.next() {
        let entry = Open(entry);
        if begins {
            open.insert(entry)
        } else {
            open.remove(&entry)
        };
        let (Some(Open(top)), Some((until, _, _))) = (open.last(), edges.peek()) else { continue };
        if at == *until {
            continue;
        }
        match plan.last_mut() {
            Some(last) if last.to == at && last.entry.meta.number == top.meta.number => last.to = *until,
            _ => plan.push(Shown { entry: Arc::clone(top), from: at, to: *until }),
        }
    }
    plan
}

struct Open<'a>(&'a SharedEntry);

impl Open<'_> {
    fn number(&self) -> FragmentNumber {
        self.0.meta.number
    }
}

impl PartialEq for Open<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.number() == other.number()
    }
}

impl Eq for Open<'_> {}

impl PartialOrd for Open<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Open<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.number().cmp(&other.number())
    }
}
