//! Which fragments a session shows.
//!
//! What a session has listed stands where it stood: later answers add at the end, and take away at the front. As nothing is
//! kept of a session, the list is made anew each time, from its first fragment on.

use std::ops::Range as Span;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::limits::CONTINUES_MS;
use vidar_core::time::UnixMs;
use vidar_indexer::{TimeAxis, Timeline};

use super::session::{Discontinuity, Mode, Session};
use crate::selector::{FRAGMENTS_MAX, Range, keep_last_of_equal_times};

/// Fragments of a live session that are looked at: what was before is counted, not listed.
const LIVE_FRAGMENTS_MAX: u64 = 10_000;
/// One that began earlier, and is still open, is waited for so long; later it is left out.
const WAIT_MS: i64 = 5_000;
/// A live session begins with fragments that came within this, and with no pause longer than this among them.
const LIVE_MS: i64 = 30_000;

/// Part of a session: what a playlist shows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Window {
    pub(super) shown: Vec<SharedEntry>,
    /// Fragments of the session before it.
    pub(super) sequence: u64,
    /// Breaks of the timeline before each fragment, since the session's first.
    pub(super) discontinuities: Vec<u32>,
    /// Where each fragment stands on a timeline of the session without its gaps.
    pub(super) places: Vec<Place>,
}

/// Where a fragment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    /// Breaks before it.
    pub(super) period: u32,
    /// When its period begins, from the session's beginning.
    pub(super) period_ms: i64,
    /// When it begins itself.
    pub(super) at_ms: i64,
}

/// What a session shows now.
pub(super) fn window(timeline: &Timeline, session: &Session, now: UnixMs) -> Window {
    let fragments = match session.range {
        Some(_) => fragments(timeline, session),
        None => settled(fragments(timeline, session), now),
    };
    let span = span(&fragments, session, now);
    // What retention took, or what is too long ago to look at.
    let before = fragments.first().map_or(0, |first| first.meta.ordinal.saturating_sub(session.first.ordinal));
    let before = if session.mode == Mode::OnDemand { 0 } else { before };
    let discontinuities = discontinuities(&fragments, session, before);
    let places = places(&fragments, session);
    Window {
        sequence: before + span.start as u64,
        discontinuities: discontinuities[span.clone()].to_vec(),
        places: places[span.clone()].to_vec(),
        shown: fragments[span].to_vec(),
    }
}

/// The fragments of a session, whether it is their time or not.
pub(super) fn fragments(timeline: &Timeline, session: &Session) -> Vec<SharedEntry> {
    match &session.range {
        Some(range) => ranged(timeline, session.stream, range, session.mode, session.results),
        None => {
            let last = timeline.last(session.stream).map_or(0, |last| last.meta.ordinal);
            let from = session.first.ordinal.max(last.saturating_sub(LIVE_FRAGMENTS_MAX - 1));
            let mut fragments = timeline.by_ordinal(session.stream, from, LIVE_FRAGMENTS_MAX as usize);
            if session.axis == TimeAxis::Producer {
                keep_ascending(&mut fragments);
            }
            fragments
        }
    }
}

/// The fragments of a range. By the producer's clock: those of one time that they were taken in, the first; what came
/// between with other times ends it.
pub(super) fn ranged(
    timeline: &Timeline,
    stream: StreamId,
    range: &Range,
    mode: Mode,
    results: u16,
) -> Vec<SharedEntry> {
    let count_max = if mode == Mode::OnDemand { usize::from(results) } else { FRAGMENTS_MAX };
    if range.axis == TimeAxis::Server {
        return range.fragments(timeline, stream, count_max);
    }
    let all = range.all(timeline, stream, FRAGMENTS_MAX);
    let Some(first) = all.into_iter().min_by_key(|entry| entry.meta.number) else { return Vec::new() };
    let after = timeline.after(stream, first.meta.number, FRAGMENTS_MAX);
    let following = std::iter::once(first).chain(after).take_while(|entry| range.holds(entry));
    let mut fragments: Vec<SharedEntry> = following.collect();
    fragments.sort_by_key(|entry| (entry.meta.producer_start, entry.meta.number));
    keep_last_of_equal_times(&mut fragments);
    fragments.truncate(count_max);
    fragments
}

/// What a live session begins with; nothing if no fragment came lately.
pub(super) fn live_beginning(timeline: &Timeline, stream: StreamId, results: u16, now: UnixMs) -> Vec<SharedEntry> {
    let ended = |entry: &SharedEntry| entry.meta.server_start().plus_ms(entry.meta.duration_ms.into());
    let Some(last) = timeline.last(stream) else { return Vec::new() };
    let from = last.meta.ordinal.saturating_sub(u64::from(results) * 2);
    let fragments = timeline.by_ordinal(stream, from, usize::from(results) * 2 + 1);
    let mut begins = fragments.len();
    let mut next_began = now;
    while begins > 0 && fragments.len() - begins < usize::from(results) {
        let entry = &fragments[begins - 1];
        if next_began.since_ms(ended(entry)) > LIVE_MS {
            break;
        }
        next_began = entry.meta.server_start();
        begins -= 1;
    }
    fragments[begins..].to_vec()
}

/// Of fragments in order of their beginning, those that came in that order; up to one that is waited for.
fn settled(fragments: Vec<SharedEntry>, now: UnixMs) -> Vec<SharedEntry> {
    let mut earliest_after = UnixMs(i64::MAX);
    let mut settled: Vec<SharedEntry> = Vec::with_capacity(fragments.len());
    for entry in fragments.into_iter().rev() {
        let archived = entry.archived;
        if archived.since_ms(earliest_after) <= WAIT_MS {
            settled.push(entry);
        }
        earliest_after = earliest_after.min(archived);
    }
    settled.reverse();
    let waited_for = settled.windows(2).position(|pair| {
        let missing = pair[1].meta.ordinal > pair[0].meta.ordinal + 1;
        missing && (0..WAIT_MS).contains(&now.since_ms(pair[1].archived))
    });
    settled.truncate(waited_for.map_or(usize::MAX, |index| index + 1));
    settled
}

/// Leaves out what is not later than all before: a session inserts nothing.
fn keep_ascending(fragments: &mut Vec<SharedEntry>) {
    let mut last = None;
    fragments.retain(|entry| {
        let later = last.is_none_or(|last| entry.meta.producer_start > last);
        last = last.max(Some(entry.meta.producer_start));
        later
    });
}

fn span(fragments: &[SharedEntry], session: &Session, now: UnixMs) -> Span<usize> {
    let results = usize::from(session.results);
    match session.mode {
        Mode::OnDemand => 0..fragments.len().min(results),
        Mode::Live => fragments.len().saturating_sub(results)..fragments.len(),
        Mode::LiveReplay => {
            // It begins with as many as a playlist holds; then each comes when its duration is over.
            let elapsed_ms = u64::try_from(now.since_ms(session.began)).unwrap_or(0);
            let (mut end, mut end_ms) = (0, 0_u64);
            for entry in fragments {
                end_ms += u64::from(entry.meta.duration_ms);
                if end >= results && end_ms > elapsed_ms.saturating_add(session.lead_ms) {
                    break;
                }
                end += 1;
            }
            end.saturating_sub(results)..end
        }
    }
}

/// The timeline breaks between two fragments.
fn breaks(last: &SharedEntry, next: &SharedEntry) -> bool {
    next.meta.producer_start.since_ms(last.meta.producer_end()).abs() > CONTINUES_MS
}

fn discontinuities(fragments: &[SharedEntry], session: &Session, before: u64) -> Vec<u32> {
    match session.discontinuity {
        Discontinuity::Never => vec![0; fragments.len()],
        Discontinuity::Always => (before..).take(fragments.len()).map(|index| index as u32).collect(),
        // What was before is not listed: the stream counts for it.
        Discontinuity::AtBreaks if session.mode == Mode::Live => {
            fragments.iter().map(|entry| entry.meta.discontinuity).collect()
        }
        Discontinuity::AtBreaks => {
            let mut count = 0;
            let of = |index: usize| {
                count += u32::from(index > 0 && breaks(&fragments[index - 1], &fragments[index]));
                count
            };
            (0..fragments.len()).map(of).collect()
        }
    }
}

/// Gaps are closed, but for those of a live session, in which time passes.
fn places(fragments: &[SharedEntry], session: &Session) -> Vec<Place> {
    let mut places: Vec<Place> = Vec::with_capacity(fragments.len());
    let mut period_start = UnixMs(0);
    for (index, entry) in fragments.iter().enumerate() {
        let last = index.checked_sub(1).map(|last| (&fragments[last], places[last]));
        let place = match last {
            Some((last, place)) if !breaks(last, entry) => {
                Place { at_ms: place.period_ms + entry.meta.producer_start.since_ms(period_start), ..place }
            }
            _ => {
                period_start = entry.meta.producer_start;
                let end_ms = last.map_or(0, |(last, place)| place.at_ms + i64::from(last.meta.duration_ms));
                let came_ms = entry.meta.server_start().since_ms(session.began) + session.lead_ms as i64;
                let is_first = last.is_none() && entry.meta.ordinal == session.first.ordinal;
                let waits = session.mode == Mode::Live && !is_first;
                let period_ms = if waits { end_ms.max(came_ms) } else { end_ms };
                Place { period: last.map_or(0, |(_, place)| place.period + 1), period_ms, at_ms: period_ms }
            }
        };
        places.push(place);
    }
    places
}

#[cfg(test)]
#[path = "listing_tests.rs"]
mod tests;
