//! Tests of what retention lets go.

use std::pin::pin;

use futures::FutureExt;
use vidar_core::clock::ManualClock;
use vidar_core::control::StreamSettings;
use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{ConfigId, FileId, RunId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta};
use vidar_indexer::IndexOptions;

use vidar_core::ids::StreamName;
use vidar_storage::StoreOptions;
use vidar_storage::backend::memory::MemoryIo;

use super::*;

const HOUR_MS: i64 = 3_600_000;
const RECORD_LEN: u64 = 100;

/// A fragment that was archived at hour `i`.
fn observe(index: &Index, stream: StreamId, i: u64, record_len: u64) {
    let at = UnixMs(i as i64 * HOUR_MS);
    let meta = FragmentMeta {
        stream,
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
    let record = Locator { volume: 0, file, offset: 0, head_len: 0, media_len: 0, record_len };
    let facts = FragmentFacts::default();
    let entry = FragmentEntry { archived: at, ..FragmentEntry::new(meta, &facts, record, Vec::new()) };
    index.observe(&LogEvent::Fragment { entry: Arc::new(entry), facts: Arc::new(facts) });
}

/// An hour of `[stream, stream, …]`: fragment `i` of 100 bytes was archived at hour `i`, of the stream named there.
fn index(streams: &[StreamId]) -> Arc<Index> {
    let index = Index::open(IndexOptions::in_memory(ManualClock::new(UnixMs(0)))).unwrap();
    for (i, stream) in (0_u64..).zip(streams) {
        observe(&index, *stream, i, RECORD_LEN);
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
fn a_stream_for_watching_keeps_minutes_and_so_many_bytes() {
    let a = StreamId::new();
    let index = index(&[a; 10]);
    let but_the_last = (0..9).collect();
    assert_eq!(going(&index, &[keeps(a, 0, None)], None, 9), [(a, Reason::Hours, but_the_last)]);
    assert_eq!(going(&index, &[keeps(a, 0, None)], None, 10), [(a, Reason::Hours, (0..10).collect())]);
    let settings = |retention_hours, retention_bytes| StreamSettings {
        device: "a".to_owned(),
        retention_hours,
        retention_bytes,
        tags: Vec::new(),
    };
    for (hours, bytes, expected) in [
        (0, None, Some(200_000_000)),
        (0, Some(300_000_000), Some(200_000_000)),
        (0, Some(1), Some(1)),
        (1, None, None),
        (1, Some(300_000_000), Some(300_000_000)),
    ] {
        let name = StreamName::new("a").unwrap();
        let record = StreamRecord { stream: a, name, created: UnixMs(0), settings: settings(hours, bytes) };
        assert_eq!(Limits::of(&record), keeps(a, hours, expected), "{hours} {bytes:?}");
    }
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

/// Makes room once something goes; and holds the log up there, while the test holds `floors`.
struct Deletions {
    io: MemoryIo,
    floors: Arc<Mutex<()>>,
}

impl LogObserver for Deletions {
    fn observe(&self, event: &LogEvent) {
        if let LogEvent::Control(record) = event
            && matches!(record.body, Control::Floor { .. })
        {
            drop(self.floors.lock().unwrap());
            self.io.set_capacity(None);
        }
    }
}

/// What goes by its own settings is not taken again for room.
#[tokio::test]
async fn what_is_foretold_for_a_full_disk_comes_on_top() {
    let (_dir, Machine { io, .. }, retention) = retention(2, DISK_STEP_BYTES, DiskPolicy::DeleteOldest).await;
    let space = vidar_storage::backend::SegmentIo::space(&io).unwrap();
    io.set_capacity(Some(space.total_bytes - space.free_bytes + (32 << 20)));
    let stored = 4 * DISK_STEP_BYTES;
    let limits: Vec<_> = retention.registry.list().iter().map(|record| keeps(record.stream, 100, None)).collect();
    let foretold = retention.foretell(&limits, Some(stored - 1));
    let of = |going: &Going<Sum>| {
        (going.reason, going.stream == limits[0].stream, going.expiry.entries.producer.unwrap().0.0)
    };
    assert_eq!(foretold.iter().map(of).collect::<Vec<_>>(), [(Reason::Total, true, 0), (Reason::Disk, false, HOUR_MS)]);
}

/// What a test does things to.
struct Machine {
    io: MemoryIo,
    clock: Arc<ManualClock>,
    floors: Arc<Mutex<()>>,
}

/// Streams of two fragments each, on a disk in memory; the fragments are known to the timeline only.
async fn retention(streams: usize, record_len: u64, policy: DiskPolicy) -> (tempfile::TempDir, Machine, Retention) {
    let (dir, io, clock) = (tempfile::tempdir().unwrap(), MemoryIo::new(), ManualClock::new(UnixMs(0)));
    let index = Index::open(IndexOptions::in_memory(clock.clone())).unwrap();
    let floors = Arc::new(Mutex::new(()));
    let deletions = Deletions { io: io.clone(), floors: Arc::clone(&floors) };
    let observers: Vec<Arc<dyn LogObserver>> = vec![Arc::clone(&index) as _, Arc::new(deletions)];
    let mut options = StoreOptions::new(dir.path().join("data"));
    options.segment_bytes = 1 << 20;
    let store = Store::open(options, Arc::new(io.clone()), clock.clone(), observers).unwrap().0;
    let registry = Registry::new(Arc::clone(&index), store.clone(), clock.clone(), 100, true);
    for i in 0..streams as u64 {
        let name = StreamName::new(format!("cam-{i}")).unwrap();
        let stream = registry.create(&name, None).await.unwrap().stream;
        [i, streams as u64 + i].into_iter().for_each(|at| observe(&index, stream, at, record_len));
    }
    let sink = StoreSink::new(store.clone(), Arc::clone(&index), clock.clone(), policy);
    let (registry, sink, gone) = (Arc::new(registry), Arc::new(sink), Mutex::default());
    (dir, Machine { io, clock, floors }, Retention { store, index, registry, sink, total_bytes: None, policy, gone })
}

#[tokio::test]
async fn previews_are_made_one_at_a_time() {
    let (_dir, _machine, retention) = retention(2, RECORD_LEN, DiskPolicy::Refuse).await;
    let retention = Arc::new(retention);
    let ask = || preview(State(Arc::clone(&retention)), RawQuery(Some("total_bytes=1".to_owned())));
    let another = PREVIEWS.acquire().await.unwrap();
    let mut asked = pin!(ask());
    for _ in 0..100 {
        assert!(asked.as_mut().now_or_never().is_none());
        tokio::task::yield_now().await;
    }
    drop(another);
    let answer = asked.await.unwrap().0;
    assert_eq!(answer["totals"], json!({ "fragments": 4, "stored_bytes": 4 * RECORD_LEN }));
    let (first, last) = (UnixMs(HOUR_MS), UnixMs(3 * HOUR_MS + 1000));
    let expected = json!({
        "stream": "cam-1", "reason": "total", "fragments": 2, "stored_bytes": 2 * RECORD_LEN,
        "start": first, "end": last, "server_start": first, "server_end": last,
    });
    assert_eq!(answer["streams"][1], expected);
}

#[tokio::test]
async fn the_floors_of_many_streams_share_their_commits() {
    let (_dir, Machine { floors, .. }, retention) = retention(100, RECORD_LEN, DiskPolicy::DeleteOldest).await;
    let retention = Retention { total_bytes: Some(100 * RECORD_LEN), ..retention };
    let before = retention.store.stats();
    {
        let mut step = pin!(retention.step());
        // All are handed in while the log is held up at the first: how fast the machine is does not matter.
        let held = floors.lock().unwrap();
        assert!(step.as_mut().now_or_never().is_none());
        drop(held);
        step.await;
    }
    let after = retention.store.stats();
    assert_eq!(retention.gone()[Reason::Total as usize].fragments, 100);
    assert_eq!(after.records - before.records, 100, "a floor for each stream");
    let syncs = after.sync_times_us.count() - before.sync_times_us.count();
    assert!(syncs <= 5, "{syncs} syncs");
    for record in retention.registry.list() {
        assert_eq!(retention.index.timeline().totals(record.stream).fragment_count, 1);
    }
    let before = after;
    retention.step().await;
    assert_eq!(retention.store.stats(), before, "nothing is due");
}

#[tokio::test]
async fn on_a_full_disk_the_oldest_go_until_there_is_room_if_that_is_the_policy() {
    let left = |retention: &Retention| -> Vec<u64> {
        let streams = retention.registry.list();
        streams.iter().map(|record| retention.index.timeline().totals(record.stream).fragment_count).collect()
    };
    for (policy, expected) in [(DiskPolicy::DeleteOldest, vec![1, 1, 2, 2]), (DiskPolicy::Refuse, vec![2; 4])] {
        // Two of these make a step.
        let (_dir, Machine { io, .. }, retention) = retention(4, DISK_STEP_BYTES / 2, policy).await;
        retention.step().await;
        assert_eq!(left(&retention), [2; 4], "there is room");
        let space = vidar_storage::backend::SegmentIo::space(&io).unwrap();
        io.set_capacity(Some(space.total_bytes - space.free_bytes + (32 << 20)));
        assert_ne!(retention.store.space(), Space::Ok);
        let foretold = retention.foretell(&[], None);
        assert!(foretold.iter().all(|going| going.reason == Reason::Disk));
        let foretold: u64 = foretold.iter().map(|going| going.expiry.entries.fragments).sum();
        assert_eq!(left(&retention), [2; 4], "nothing goes by asking");
        retention.step().await;
        let mut left = left(&retention);
        left.sort_unstable();
        assert_eq!(left, expected, "{policy:?}");
        let gone = retention.gone()[Reason::Disk as usize];
        assert_eq!(gone.fragments, 8 - expected.iter().sum::<u64>());
        assert_eq!(gone.fragments, foretold);
    }
}

#[tokio::test]
async fn a_wall_clock_that_steps_deletes_nothing_before_its_time() {
    let (_dir, Machine { clock, .. }, retention) = retention(2, RECORD_LEN, DiskPolicy::DeleteOldest).await;
    let gone = || retention.gone()[Reason::Hours as usize].fragments;
    let year_ms = 365 * 24 * HOUR_MS;
    for step_ms in [HOUR_MS, -2 * HOUR_MS, year_ms, -2 * year_ms, 3 * year_ms] {
        clock.step_ms(step_ms);
        retention.step().await;
        assert_eq!(gone(), 0, "{step_ms}");
    }
    // Archived at the hours 0 to 3, and kept for 100: two are due, however often the clock steps meanwhile.
    for hours in 1..=101 {
        clock.advance(std::time::Duration::from_secs(3600));
        clock.step_ms(if hours % 2 == 0 { -year_ms } else { year_ms });
        retention.step().await;
        assert_eq!(gone(), [0, 1, 2][usize::try_from((hours - 99_i64).max(0)).unwrap()], "after {hours} hours");
    }
}
