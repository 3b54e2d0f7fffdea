//! What sessions list of fragments that are given, at times that are given.

use std::sync::Arc;

use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId};
use vidar_core::record::{FragmentFlags, FragmentMeta};

use super::super::session::{Container, First};
use super::super::tests::session;
use super::*;

/// A fragment of 2 s of that ordinal, which began at that producer time and became durable when it ended.
fn fragment(ordinal: u64, start_ms: i64) -> SharedEntry {
    let server_ms = 1_000_000 + ordinal * 2000;
    let meta = FragmentMeta {
        stream: StreamId::from_bytes([7; 16]),
        number: FragmentNumber::new(ordinal + 1, server_ms, 0),
        run: RunId::from_bytes([1; 16]),
        lease_epoch: 0,
        ordinal,
        discontinuity: 0,
        producer_start: UnixMs(start_ms),
        duration_ms: 2000,
        config: ConfigId([9; 16]),
        flags: FragmentFlags::STARTS_WITH_SYNC,
    };
    let file = FileId::from_bytes([2; 16]);
    let record = Locator { volume: 0, file, offset: 0, head_len: 1, media_len: 1, record_len: 2 };
    let archived = UnixMs(server_ms as i64 + 2000);
    Arc::new(FragmentEntry {
        meta,
        size_bytes: 1,
        totals: Vec::new(),
        sync_back: 0,
        archived,
        record,
        parts: Vec::new(),
    })
}

/// One that became durable late.
fn late(entry: &SharedEntry, by_ms: i64) -> SharedEntry {
    let mut entry = FragmentEntry::clone(entry);
    entry.archived = entry.archived.plus_ms(by_ms);
    Arc::new(entry)
}

/// One after the other.
fn row(ordinals: std::ops::Range<u64>) -> Vec<SharedEntry> {
    ordinals.map(|ordinal| fragment(ordinal, ordinal as i64 * 2000)).collect()
}

fn ordinals(entries: &[SharedEntry]) -> Vec<u64> {
    entries.iter().map(|entry| entry.meta.ordinal).collect()
}

fn of(mode: Mode, results: u16) -> Session {
    let first = First { number: FragmentNumber::new(1, 1_000_000, 0), ordinal: 0, config: ConfigId([9; 16]) };
    let lead_ms = u64::from(results) * 2000;
    let began = UnixMs(1_000_000);
    Session { mode, results, lead_ms, first, began, container: Container::Mp4, ..session() }
}

#[test]
fn a_live_list_takes_in_nothing_that_comes_late_and_waits_a_little_for_what_is_missing() {
    let all = row(0..5);
    let long_after = UnixMs(i64::MAX / 2);
    assert_eq!(ordinals(&settled(all.clone(), long_after)), [0, 1, 2, 3, 4]);
    // Two connections at a rotation: a little late is none.
    let mut two = all.clone();
    two[2] = late(&all[2], 4_000);
    assert_eq!(ordinals(&settled(two, long_after)), [0, 1, 2, 3, 4]);
    let mut hung = all.clone();
    hung[2] = late(&all[2], 2_000 + WAIT_MS + 1);
    assert_eq!(ordinals(&settled(hung, long_after)), [0, 1, 3, 4]);
    // An ordinal that is not there yet.
    let open = [&all[..2], &all[3..4]].concat();
    let durable = all[3].archived;
    assert_eq!(ordinals(&settled(open.clone(), durable)), [0, 1]);
    assert_eq!(ordinals(&settled(open.clone(), durable.plus_ms(WAIT_MS - 1))), [0, 1]);
    assert_eq!(ordinals(&settled(open.clone(), durable.plus_ms(WAIT_MS))), [0, 1, 3]);
    // A clock that was set back does not hold it up.
    assert_eq!(ordinals(&settled(open, durable.plus_ms(-1))), [0, 1, 3]);

    let mut again =
        [row(0..3), vec![fragment(3, 2000), fragment(4, 3000), fragment(5, 4000), fragment(6, 6000)]].concat();
    keep_ascending(&mut again);
    assert_eq!(ordinals(&again), [0, 1, 2, 6]);
}

#[test]
fn a_replay_adds_a_fragment_each_time_one_is_over() {
    let (all, session) = (row(0..10), of(Mode::LiveReplay, 3));
    for (after_ms, expected) in [
        (0, 0..3),
        (1_999, 0..3),
        (2_000, 1..4),
        (5_999, 2..5),
        (6_000, 3..6),
        (13_999, 6..9),
        (14_000, 7..10),
        (1 << 40, 7..10),
    ] {
        assert_eq!(span(&all, &session, session.began.plus_ms(after_ms)), expected, "{after_ms}");
    }
    assert_eq!(span(&all, &session, session.began.plus_ms(-5)), 0..3);
    assert_eq!(span(&all[..2], &session, session.began), 0..2);
    assert_eq!(span(&all, &of(Mode::OnDemand, 3), session.began), 0..3);
    assert_eq!(span(&all, &of(Mode::Live, 3), session.began), 7..10);
    assert_eq!(span(&[], &of(Mode::Live, 3), session.began), 0..0);
}

#[test]
fn breaks_are_counted_and_gaps_closed() {
    // 50 ms are none.
    let all = [fragment(0, 0), fragment(1, 2050), fragment(2, 4101), fragment(3, 90_000), fragment(4, 91_000)];
    let with = |discontinuity| discontinuities(&all, &Session { discontinuity, ..of(Mode::OnDemand, 9) }, 0);
    assert_eq!(with(Discontinuity::Never), [0; 5]);
    assert_eq!(with(Discontinuity::Always), [0, 1, 2, 3, 4]);
    assert_eq!(with(Discontinuity::AtBreaks), [0, 0, 1, 2, 3]);
    let always = Session { discontinuity: Discontinuity::Always, ..of(Mode::Live, 9) };
    assert_eq!(discontinuities(&all[..2], &always, 7), [7, 8]);

    let closed = |mode| places(&all, &of(mode, 3)).iter().map(|place| (place.period, place.at_ms)).collect::<Vec<_>>();
    assert_eq!(closed(Mode::OnDemand), [(0, 0), (0, 2050), (1, 4050), (2, 6050), (3, 8050)]);
    // In a live session time passes: what came 6 s after it began stands after what it began with, and 6 s more.
    assert_eq!(closed(Mode::Live), [(0, 0), (0, 2050), (1, 10_000), (2, 12_000), (3, 14_000)]);
}
