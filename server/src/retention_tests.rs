//! Tests of what retention lets go.

use vidar_core::clock::ManualClock;
use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{ConfigId, FileId, RunId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta};
use vidar_indexer::IndexOptions;

use super::*;

const HOUR_MS: i64 = 3_600_000;
const RECORD_LEN: u64 = 100;

/// An hour of `[stream, stream, …]`: fragment `i` of 100 bytes was archived at hour `i`, of the stream named there.
fn index(streams: &[StreamId]) -> Arc<Index> {
    let index = Index::open(IndexOptions::in_memory(ManualClock::new(UnixMs(0)))).unwrap();
    for (i, stream) in (0_u64..).zip(streams) {
        let at = UnixMs(i as i64 * HOUR_MS);
        let meta = FragmentMeta {
            stream: *stream,
            number: FragmentNumber::new(i, at.0 as u64, 0),
            run: RunId::from_bytes([1; 16]),
            lease_epoch: 0,
            ordinal: i,
            discontinuity: 0,
            producer_start: at,
            duration_ms: 1000,
            config: ConfigId::NONE,
            flags: FragmentFlags(0),
        };
        let file = FileId::from_bytes([1; 16]);
        let record = Locator { volume: 0, file, offset: 0, head_len: 0, media_len: 0, record_len: RECORD_LEN };
        let facts = FragmentFacts::default();
        let entry = FragmentEntry { archived: at, ..FragmentEntry::new(meta, &facts, record, Vec::new()) };
        index.observe(&LogEvent::Fragment { entry: Arc::new(entry), facts: Arc::new(facts) });
    }
    index
}

/// Reasons, and the hours at which what goes was archived.
fn going(index: &Index, limits: &[Limits], total: Option<u64>, now_hours: i64) -> Vec<(StreamId, Reason, Vec<i64>)> {
    let hours = |going: &Going| going.expiry.entries.iter().map(|entry| entry.archived.0 / HOUR_MS).collect();
    let plan = plan(index.timeline(), limits, total, UnixMs(now_hours * HOUR_MS));
    plan.iter().map(|going| (going.stream, going.reason, hours(going))).collect()
}

fn keeps(stream: StreamId, hours: u32, bytes: Option<u64>) -> Limits {
    Limits { stream, hours, bytes }
}

#[test]
fn of_hours_and_bytes_the_stricter_holds() {
    let a = StreamId::new();
    let index = index(&[a; 10]);
    assert_eq!(going(&index, &[keeps(a, 100, None)], None, 9), []);
    assert_eq!(going(&index, &[keeps(a, 7, Some(900))], None, 9), [(a, Reason::Hours, vec![0, 1, 2])]);
    let both = going(&index, &[keeps(a, 7, Some(500))], None, 9);
    assert_eq!(both, [(a, Reason::Hours, vec![0, 1, 2]), (a, Reason::Bytes, vec![3, 4])]);
    assert_eq!(going(&index, &[keeps(a, 100, Some(500))], None, 9), [(a, Reason::Bytes, vec![0, 1, 2, 3, 4])]);
}

#[test]
fn the_cap_for_all_takes_the_oldest_of_whatever_stream_after_what_goes_anyway() {
    let (a, b) = (StreamId::new(), StreamId::new());
    let index = index(&[a, a, b, a, b, b]);
    let limits = [keeps(a, 100, None), keeps(b, 100, None)];
    let sorted = |mut going: Vec<(StreamId, Reason, Vec<i64>)>| {
        going.sort_by_key(|(_, _, hours)| hours[0]);
        going
    };
    assert_eq!(going(&index, &limits, Some(600), 5), []);
    assert_eq!(
        sorted(going(&index, &limits, Some(250), 5)),
        [(a, Reason::Total, vec![0, 1, 3]), (b, Reason::Total, vec![2])]
    );
    // What goes by its own settings counts, and is not taken twice.
    let limits = [keeps(a, 100, Some(200)), keeps(b, 100, None)];
    assert_eq!(
        sorted(going(&index, &limits, Some(400), 5)),
        [(a, Reason::Bytes, vec![0]), (a, Reason::Total, vec![1])]
    );
    assert_eq!(going(&index, &limits, Some(500), 5), [(a, Reason::Bytes, vec![0])]);
}
