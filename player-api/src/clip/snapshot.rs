//! The fragments a clip is made of: an immutable list, resolved once for each request.

use std::cell::Cell;
use std::collections::HashSet;

use ring::digest::{Context, SHA256};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{ConfigId, FragmentNumber, StreamId};
use vidar_core::limits::CONTINUES_MS;
use vidar_core::record::FragmentFlags;
use vidar_core::source::FragmentSource;
use vidar_core::time::UnixMs;
use vidar_indexer::{Shown, Timeline};

use super::span::{End, OVERLAP_MS, Start};

/// What a client asked for, by producer time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct ClipRange {
    pub(crate) stream: StreamId,
    /// None: from the oldest on.
    pub(crate) start: Option<UnixMs>,
    /// None: to the newest.
    pub(crate) end: Option<UnixMs>,
}

/// What a clip is cut from.
#[derive(Debug, Clone)]
pub(crate) enum Cut {
    /// What is shown in a range.
    Range(ClipRange),
    /// These fragments, whole, in this order. Never none.
    Whole(Vec<SharedEntry>),
}

/// What is found to be unreadable, and treated as missing.
pub(super) struct Damage<'a> {
    /// Knows what was found before.
    pub(super) source: &'a dyn FragmentSource,
    pub(super) fragments: HashSet<FragmentNumber>,
    pub(super) configs: HashSet<ConfigId>,
    /// The source knew of some.
    pub(super) was_found: Cell<bool>,
}

impl<'a> Damage<'a> {
    pub(super) fn new(source: &'a dyn FragmentSource) -> Self {
        Self { source, fragments: HashSet::new(), configs: HashSet::new(), was_found: Cell::new(false) }
    }

    fn has(&self, entry: &SharedEntry) -> bool {
        if self.fragments.contains(&entry.meta.number) || self.configs.contains(&entry.meta.config) {
            return true;
        }
        let is_found = self.source.is_damaged(entry);
        self.was_found.set(self.was_found.get() || is_found);
        is_found
    }
}

/// A stretch of the range of which media is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Gap {
    pub(super) start: UnixMs,
    pub(super) end: UnixMs,
    /// There is media, but some of it is known to be lost; else there is none.
    pub(super) lossy: bool,
}

/// Consecutive fragments of one run.
#[derive(Debug)]
pub(super) struct SpanEntries {
    /// Neighbours in the run, then what is shown, then neighbours.
    pub(super) entries: Vec<SharedEntry>,
    /// How many of them are neighbours before, and after.
    pub(super) before: usize,
    pub(super) after: usize,
    pub(super) start: Start,
    pub(super) end: End,
}

/// What a clip is made of.
#[derive(Debug)]
pub(super) struct Snapshot {
    /// In order of time.
    pub(super) spans: Vec<SpanEntries>,
    /// What is missing of the range, in order.
    pub(super) gaps: Vec<Gap>,
}

impl Snapshot {
    /// What a clip is made of, as far as it reads.
    pub(super) fn of(timeline: &Timeline, cut: &Cut, damage: &Damage<'_>) -> Self {
        match cut {
            Cut::Range(range) => Self::resolve(timeline, range, damage),
            Cut::Whole(entries) => Self::whole(timeline, entries, damage),
        }
    }

    fn whole(timeline: &Timeline, entries: &[SharedEntry], damage: &Damage<'_>) -> Self {
        let good = entries.iter().filter(|entry| !damage.has(entry)).cloned();
        let shown = good.map(|entry| Shown { from: entry.meta.producer_start, to: entry.meta.producer_end(), entry });
        let spans = spans_of(shown.collect()).into_iter();
        Self { spans: spans.map(|shown| span_entries(timeline, shown, None, None, damage)).collect(), gaps: Vec::new() }
    }

    /// Looks the range up.
    pub(super) fn resolve(timeline: &Timeline, range: &ClipRange, damage: &Damage<'_>) -> Self {
        let (start, end) = (range.start.unwrap_or(UnixMs(i64::MIN)), range.end.unwrap_or(UnixMs(i64::MAX)));
        let mut shown = timeline.shown(range.stream, start, end);
        shown.retain(|shown| !damage.has(&shown.entry));
        let gaps = gaps(timeline, range, &shown);

        let spans = spans_of(shown);
        let last = spans.len().saturating_sub(1);
        let spans = spans.into_iter().enumerate().map(|(index, shown)| {
            let start = (index == 0).then_some(start);
            let end = (index == last).then_some(end);
            span_entries(timeline, shown, start, end, damage)
        });
        Self { spans: spans.collect(), gaps }
    }

    /// Names the bytes of the clip together with what else `seed` holds.
    pub(super) fn etag(&self, seed: &str, cut: &Cut) -> String {
        let mut hash = Context::new(&SHA256);
        hash.update(seed.as_bytes());
        let bounds = match cut {
            Cut::Range(range) => [range.start, range.end],
            Cut::Whole(_) => [None, None],
        };
        for bound in bounds {
            hash.update(&bound.map_or([0; 9], |at| {
                let mut bytes = [1; 9];
                bytes[1..].copy_from_slice(&at.0.to_be_bytes());
                bytes
            }));
        }
        for span in &self.spans {
            hash.update(
                &[span.before as u64, span.after as u64, span.entries.len() as u64].map(u64::to_be_bytes).concat(),
            );
            for at in [span.start.instant(), span.end.instant()] {
                hash.update(&at.map_or(i64::MIN, |at| at.0).to_be_bytes());
            }
            for entry in &span.entries {
                hash.update(entry.meta.stream.as_bytes());
                hash.update(entry.meta.number.as_bytes());
            }
        }
        let digest = hash.finish();
        let hex: String = digest.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
        format!("\"{hex}\"")
    }
}

/// Cuts what is shown where another run is, or a gap.
fn spans_of(shown: Vec<Shown>) -> Vec<Vec<Shown>> {
    let mut spans: Vec<Vec<Shown>> = Vec::new();
    let mut shown = shown.into_iter().peekable();
    while let Some(first) = shown.next() {
        let run = first.entry.meta.run;
        let mut of_run = vec![first];
        while let Some(next) = shown.next_if(|next| next.entry.meta.run == run) {
            of_run.push(next);
        }
        // Fragments of a run may overlap one another (sound alone that comes late): each comes once, in its order.
        of_run.sort_by_key(|shown| (shown.entry.meta.number, shown.from));
        of_run.dedup_by(|later, kept| {
            let same = later.entry.meta.number == kept.entry.meta.number;
            kept.to = if same { kept.to.max(later.to) } else { kept.to };
            same
        });
        let mut covered = None;
        for next in of_run {
            let adjoins = |covered: UnixMs| next.from.since_ms(covered) <= CONTINUES_MS;
            let goes_on = covered.is_some_and(adjoins);
            covered = covered.max(Some(next.to));
            match spans.last_mut().filter(|_| goes_on) {
                Some(span) => span.push(next),
                None => spans.push(vec![next]),
            }
        }
    }
    spans
}

fn adjoins(before: &SharedEntry, after: &SharedEntry) -> bool {
    after.meta.producer_start.since_ms(before.meta.producer_end()) <= CONTINUES_MS
}

/// `start`, `end`: of the clip, for its first and last span.
fn span_entries(
    timeline: &Timeline,
    shown: Vec<Shown>,
    start: Option<UnixMs>,
    end: Option<UnixMs>,
    damage: &Damage<'_>,
) -> SpanEntries {
    let (first, last) = (&shown[0], &shown[shown.len() - 1]);
    let start = match start {
        Some(at) if at >= first.from => Start::At(at),
        _ if first.from > first.entry.meta.producer_start => Start::At(first.from),
        _ => Start::First,
    };
    let end = match end {
        Some(at) if at < last.to => End::Before(at),
        _ if last.to < last.entry.meta.producer_end() => End::Cut(last.to),
        _ => End::Last,
    };
    let before = start.instant().map_or_else(Vec::new, |at| before(timeline, &first.entry, at, damage));
    let after = match end {
        End::Before(at) => after(timeline, &last.entry, at, damage),
        _ => Vec::new(),
    };
    let (before_count, after_count) = (before.len(), after.len());
    let entries = before.into_iter().chain(shown.into_iter().map(|shown| shown.entry)).chain(after).collect();
    SpanEntries { entries, before: before_count, after: after_count, start, end }
}

/// The fragments before, whose samples may overlap, and those that their decoding starts with.
fn before(timeline: &Timeline, first: &SharedEntry, start: UnixMs, damage: &Damage<'_>) -> Vec<SharedEntry> {
    let mut before: Vec<SharedEntry> = Vec::new();
    let mut decoding = 0;
    let mut at = first.clone();
    while let Some(earlier) = timeline.previous_in_run(&at) {
        let overlaps = before.is_empty() || earlier.meta.producer_end() > start.plus_ms(-OVERLAP_MS);
        if damage.has(&earlier) || !adjoins(&earlier, &at) || !(overlaps || decoding > 0) {
            break;
        }
        decoding = if overlaps { earlier.sync_back } else { decoding - 1 };
        before.push(earlier.clone());
        at = earlier;
    }
    before.reverse();
    before
}

/// The fragments after, whose samples may overlap.
fn after(timeline: &Timeline, last: &SharedEntry, end: UnixMs, damage: &Damage<'_>) -> Vec<SharedEntry> {
    let mut after: Vec<SharedEntry> = Vec::new();
    let mut at = last.clone();
    while let Some(later) = timeline.next_in_run(&at) {
        let overlaps = after.is_empty() || later.meta.producer_start < end.plus_ms(OVERLAP_MS);
        if damage.has(&later) || !adjoins(&at, &later) || !overlaps {
            break;
        }
        after.push(later.clone());
        at = later;
    }
    after
}

/// Stretches of the range without media, and fragments that lack some. A pause of [`CONTINUES_MS`] is none; nor is what
/// has not come yet.
fn gaps(timeline: &Timeline, range: &ClipRange, shown: &[Shown]) -> Vec<Gap> {
    let mut gaps: Vec<Gap> = Vec::new();
    let mut covered = range.start;
    for Shown { entry, from, to } in shown {
        gaps.extend(hole(covered, *from));
        covered = covered.max(Some(*to));
        if entry.meta.flags.contains(FragmentFlags::LOSSY) {
            let start = range.start.map_or(*from, |start| start.max(*from));
            let end = range.end.map_or(*to, |end| end.min(*to));
            match gaps.last_mut().filter(|last| last.lossy && last.end == start) {
                Some(last) => last.end = end,
                None => gaps.push(Gap { start, end, lossy: true }),
            }
        }
    }
    let beyond = timeline.totals(range.stream).producer.map(|(_, end)| end);
    gaps.extend(range.end.filter(|end| beyond >= Some(*end)).and_then(|end| hole(covered, end)));
    gaps
}

fn hole(covered: Option<UnixMs>, next: UnixMs) -> Option<Gap> {
    let start = covered.filter(|covered| next.since_ms(*covered) > CONTINUES_MS)?;
    Some(Gap { start, end: next, lossy: false })
}
