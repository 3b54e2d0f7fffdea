//! Lookups among 200,000 fragments of one stream (4.6 days of 2 s fragments), beside a `BTreeMap` of the same entries.

use std::collections::BTreeMap;
use std::sync::Arc;

use vidar_core::clock::SystemClock;
use vidar_core::entry::{FragmentEntry, Locator, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, TrackFacts, TrackTotals};
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;
use vidar_indexer::{Index, IndexOptions, RangeQuery, TimeAxis, Timeline};

use crate::measure::{Report, Work};

const FRAGMENT_COUNT: u64 = 200_000;
const FRAGMENT_MS: i64 = 2_000;
/// Lookups of one call, each elsewhere.
const LOOKUPS: usize = 64;
/// A page of a listing.
const PAGE: usize = 100;
/// What a player asks a playlist of, at least.
const WINDOW_MS: i64 = 60_000;
/// 2026-01-01T00:00:00Z.
const BEGIN: UnixMs = UnixMs(1_767_225_600_000);

pub(super) fn rows(report: &mut Report) -> anyhow::Result<()> {
    let stream = StreamId::new();
    let entries = entries(stream, FRAGMENT_COUNT);
    let index = Index::open(IndexOptions::in_memory(SystemClock::shared()))?;
    // Search would work on in another thread while the timeline is measured.
    index.close();
    let facts = Arc::new(facts());
    for entry in &entries {
        index.observe(&LogEvent::Fragment { entry: Arc::clone(entry), facts: Arc::clone(&facts) });
    }
    let timeline = index.timeline();
    let by_time: BTreeMap<UnixMs, SharedEntry> =
        entries.iter().map(|entry| (entry.meta.producer_start, Arc::clone(entry))).collect();
    let by_number: BTreeMap<FragmentNumber, SharedEntry> =
        entries.iter().map(|entry| (entry.meta.number, Arc::clone(entry))).collect();
    let places = places(FRAGMENT_COUNT);
    let numbers: Vec<FragmentNumber> = places.iter().map(|place| entries[*place].meta.number).collect();
    let times: Vec<UnixMs> = places.iter().map(|place| entries[*place].meta.producer_start.plus_ms(700)).collect();

    let work = Work::Many(LOOKUPS, "lookups");
    let sum = |each: &dyn Fn(usize) -> usize| (0..LOOKUPS).map(each).sum::<usize>();
    report.row(
        "timeline get",
        work,
        || sum(&|i| timeline.get(stream, numbers[i]).iter().count()),
        "BTreeMap get",
        || sum(&|i| by_number.get(&numbers[i]).cloned().iter().count()),
    );
    report.row(
        "timeline at",
        work,
        || sum(&|i| timeline.at(stream, times[i]).iter().count()),
        "BTreeMap range, last",
        || sum(&|i| at(&by_time, times[i]).iter().count()),
    );
    report.row(
        "timeline range, page of 100",
        work,
        || sum(&|i| page(timeline, stream, times[i]).len()),
        "BTreeMap range, 100",
        || sum(&|i| map_range(&by_time, times[i], None).len()),
    );
    report.row(
        "timeline shown, 1 min",
        work,
        || sum(&|i| timeline.shown(stream, times[i], times[i].plus_ms(WINDOW_MS)).len()),
        "BTreeMap range, 1 min",
        || sum(&|i| map_range(&by_time, times[i], Some(times[i].plus_ms(WINDOW_MS))).len()),
    );
    Ok(())
}

fn page(timeline: &Timeline, stream: StreamId, start: UnixMs) -> Vec<SharedEntry> {
    let query = RangeQuery {
        stream,
        axis: TimeAxis::Producer,
        start: Some(start),
        end: None,
        after: None,
        limit: PAGE,
        descending: false,
    };
    timeline.range(&query).entries
}

/// The entry that began last. It knows nothing of overlaps and gaps.
fn at(by_time: &BTreeMap<UnixMs, SharedEntry>, at: UnixMs) -> Option<SharedEntry> {
    by_time.range(..=at).next_back().map(|(_, entry)| Arc::clone(entry))
}

/// What overlaps `[start, end)`, a page of it without `end`, where fragments follow each other without overlap or gap.
fn map_range(by_time: &BTreeMap<UnixMs, SharedEntry>, start: UnixMs, end: Option<UnixMs>) -> Vec<SharedEntry> {
    let begin = at(by_time, start).map_or(start, |entry| entry.meta.producer_start);
    let found = by_time.range(begin..).take_while(|(time, _)| end.is_none_or(|end| **time < end));
    found.take(if end.is_none() { PAGE } else { usize::MAX }).map(|(_, entry)| Arc::clone(entry)).collect()
}

/// Places spread over all fragments, in no order, the same in each run (multiplicative hashing).
fn places(count: u64) -> Vec<usize> {
    (0..LOOKUPS as u64).map(|i| (i * 2_654_435_761 % (count - PAGE as u64)) as usize).collect()
}

fn facts() -> FragmentFacts {
    let track = |kind, codec: &str, sample_count| TrackFacts {
        kind,
        codec: codec.to_owned(),
        width: if kind == TrackKind::Video { 1280 } else { 0 },
        height: if kind == TrackKind::Video { 720 } else { 0 },
        size_bytes: 500_000,
        totals: TrackTotals { sample_count, ..TrackTotals::default() },
    };
    let tracks = vec![track(TrackKind::Video, "h264", 50), track(TrackKind::Audio, "aac", 94)];
    FragmentFacts { tracks, ..FragmentFacts::default() }
}

fn entries(stream: StreamId, count: u64) -> Vec<SharedEntry> {
    let (run, file, facts) = (RunId::new(), FileId::new(), facts());
    let entry = |sequence: u64| {
        let start = BEGIN.plus_ms(sequence as i64 * FRAGMENT_MS);
        let meta = FragmentMeta {
            stream,
            number: FragmentNumber::new(sequence, start.0 as u64, 7),
            run,
            lease_epoch: 0,
            ordinal: sequence,
            discontinuity: 0,
            producer_start: start,
            duration_ms: FRAGMENT_MS as u32,
            config: ConfigId::NONE,
            flags: FragmentFlags::STARTS_WITH_SYNC,
        };
        let (media_len, record_len) = (1_000_000, 1_002_048);
        let offset = sequence * record_len;
        let record = Locator { volume: 0, file, offset, head_len: 1024, media_len, record_len };
        Arc::new(FragmentEntry::new(meta, &facts, record, Vec::new()))
    };
    (0..count).map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timeline_and_baseline_find_the_same() {
        let stream = StreamId::new();
        let index = Index::open(IndexOptions::in_memory(SystemClock::shared())).unwrap();
        let entries = entries(stream, 1_000);
        let mut by_time = BTreeMap::new();
        for entry in &entries {
            by_time.insert(entry.meta.producer_start, Arc::clone(entry));
            index.observe(&LogEvent::Fragment { entry: Arc::clone(entry), facts: Arc::new(facts()) });
        }
        let timeline = index.timeline();
        for place in places(1_000) {
            let time = entries[place].meta.producer_start.plus_ms(700);
            let end = time.plus_ms(WINDOW_MS);
            assert_eq!(timeline.at(stream, time), at(&by_time, time));
            assert_eq!(page(timeline, stream, time), map_range(&by_time, time, None));
            let shown: Vec<SharedEntry> =
                timeline.shown(stream, time, end).into_iter().map(|shown| shown.entry).collect();
            assert_eq!(shown, map_range(&by_time, time, Some(end)));
            assert!(!shown.is_empty());
        }
    }
}
