//! Search as its callers see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use vidar_core::clock::SystemClock;
use vidar_core::control::ControlRecord;
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::time::UnixMs;

use super::*;
use crate::testing::{self, DAY_ONE, Fragment};
use crate::{Index, IndexOptions};

const KEY: [u8; 32] = [3; 32];

fn memory() -> Arc<Index> {
    Index::open(IndexOptions::in_memory(SystemClock::shared())).unwrap()
}

fn disk_options(dir: &Path) -> IndexOptions {
    // Partitions of 200 s: 100 fragments each.
    let options = IndexOptions::new(dir.to_owned(), KEY, SystemClock::shared());
    IndexOptions { partition_ms: 200_000, ..options }
}

fn disk(dir: &Path) -> Arc<Index> {
    Index::open(disk_options(dir)).unwrap()
}

fn feed(index: &Index, events: &[LogEvent]) {
    events.iter().for_each(|event| index.observe(event));
    index.search().settle();
}

fn request(q: &str) -> SearchRequest {
    SearchRequest { q: q.to_owned(), limit: RESULTS_MAX, count: true, ..SearchRequest::default() }
}

fn find(index: &Index, q: &str) -> Vec<SearchHit> {
    let page = index.search().query(&request(q)).unwrap_or_else(|error| panic!("{q}: {error}"));
    assert_eq!(page.total, page.results.len() as u64, "{q}");
    page.results
}

fn count(index: &Index, q: &str) -> usize {
    find(index, q).len()
}

/// Two streams with a run each; fragments 10 to 9 + `len` of the one, of which every tenth has a tag, and five of the
/// other, which look quite different; a gap.
struct World {
    streams: [StreamId; 2],
    runs: [RunId; 2],
    events: Vec<LogEvent>,
}

impl World {
    fn new(len: u64) -> Self {
        let (streams, runs) = ([StreamId::new(), StreamId::new()], [RunId::new(), RunId::new()]);
        let mut events = vec![
            testing::stream_with(1, streams[0], "front-door", "porch", &[("site", "North Gate")]),
            testing::stream(2, streams[1], "Hall"),
            testing::run(3, streams[0], runs[0], "rtsp", "10.0.0.7:5004"),
            testing::run(4, streams[1], runs[1], "http", "192.168.1.9:40000"),
            testing::gap(5, streams[0], runs[0], DAY_ONE + 1000, DAY_ONE + 4000),
        ];
        for sequence in 10..10 + len {
            let mut fragment = Fragment::new(streams[0], runs[0], sequence);
            if sequence % 10 == 0 {
                fragment.tags.push(("Plate", format!("HH {sequence}")));
            }
            events.push(fragment.event());
        }
        for sequence in 10 + len..15 + len {
            let fragment = Fragment {
                codecs: vec!["h265"],
                size: (3840, 2160),
                pictures: 24,
                duration_ms: 1000,
                size_bytes: 1_000_000,
                lost_count: 1,
                ..Fragment::new(streams[1], runs[1], sequence)
            };
            events.push(fragment.event());
        }
        events.push(testing::run_ended(15 + len, streams[1], runs[1]));
        Self { streams, runs, events }
    }

    fn number(&self, index: usize) -> FragmentNumber {
        match &self.events[5 + index] {
            LogEvent::Fragment { entry, .. } => entry.meta.number,
            LogEvent::Control(_) => panic!("no fragment at {index}"),
        }
    }
}

/// Everything a few queries find, to be compared between indexes.
fn answers(index: &Index) -> Vec<SearchPage> {
    let queries = ["", "kind:run", "gap:true", "codec:h265", "tags.plate:*", "device:porch", "-protocol:rtsp"];
    queries.iter().map(|q| index.search().query(&request(q)).unwrap()).collect()
}

#[test]
fn every_field_finds() {
    let world = World::new(20);
    let index = memory();
    feed(&index, &world.events);
    let run = world.runs[0].to_string();
    let (first, second) = (world.number(0), world.number(1));
    for (q, expected) in [
        ("", 20 + 5 + 2 + 1),
        ("*", 28),
        ("kind:fragment", 25),
        ("kind:run", 2),
        ("kind:gap", 1),
        ("stream:front-door kind:fragment", 20),
        ("stream:FRONT-DOOR kind:fragment", 20),
        ("stream:door kind:fragment", 20),
        ("stream:front* kind:fragment", 20),
        ("stream:\"front\"* kind:fragment", 20),
        ("stream:front-doo", 0),
        ("stream:hall kind:fragment", 5),
        ("device:porch kind:fragment", 20),
        ("device:hall kind:fragment", 5),
        ("codec:h264", 20),
        ("codec:aac", 20),
        ("codec:IN [h265 vp9]", 5),
        ("codec:*", 25),
        ("-codec:*", 3),
        ("protocol:rtsp", 21),
        ("protocol:http kind:run", 1),
        ("source:10.0.0.7:5004", 21),
        ("source:10.0.0.7", 21),
        ("source:192.168.*", 6),
        (&format!("run:{run}"), 22),
        (&format!("run:{}", run.to_uppercase()), 22),
        (&format!("fragment_number:{first}"), 1),
        (&format!("fragment_number:<{second}"), 1),
        (&format!("fragment_number:[{first} TO {second}]"), 2),
        (&format!("fragment_number:[{first} TO {second}}}"), 1),
        ("fragment_number:*", 25),
        ("size_bytes:1000", 20),
        ("size_bytes:>1000", 5),
        ("size_bytes:[* TO 1000]", 20),
        ("duration_ms:1000", 5),
        ("duration_ms:3000", 1),
        ("duration_ms:[500 TO 2000}", 5),
        ("width:3840 height:2160", 5),
        ("width:(1280 OR 3840)", 25),
        ("height:IN [720 1080]", 20),
        ("height:*", 25),
        ("fps:25", 20),
        ("fps:[23.5 TO 24.5]", 5),
        ("bitrate:4000", 20),
        ("bitrate:>=8000000", 5),
        ("gap:true", 6),
        ("gap:false kind:fragment", 20),
        ("gap:loss", 5),
        ("gap:overload", 1),
        ("time:2026-01-01T00:00:20Z", 1),
        ("time:[2026-01-01T00:00:20Z TO 2026-01-01T00:00:24Z}", 2),
        ("time:[1767225620 TO 1767225624000]", 3),
        ("time:>=2026-01-01T00:00:58Z kind:fragment", 6),
        ("server_time:<2026-01-01T00:00:22Z kind:fragment", 1),
        ("tags.plate:\"hh 10\"", 1),
        ("tags.PLATE:20", 1),
        ("tags.plate:hh", 2),
        ("tags.plate:*", 2),
        ("tags.plate:2*", 1),
        ("tags.plate:\"10 hh\"", 1),
        ("tags.site:north kind:fragment", 20),
        ("tags.other:*", 0),
        ("tags.plate:north", 0),
        ("north kind:fragment", 20),
        ("\"gate north\" kind:fragment", 20),
        ("\"gate south\" kind:fragment", 0),
        ("h265", 5),
        ("hall OR h264", 26),
        ("hall AND h264", 0),
        ("kind:fragment NOT h264", 5),
        ("kind:fragment -(h264 OR hh)", 5),
        ("porch^3 kind:run", 1),
    ] {
        assert_eq!(count(&index, q), expected, "{q}");
    }
}

#[test]
fn a_result_says_what_is_known() {
    let world = World::new(1);
    let index = memory();
    feed(&index, &world.events);
    let hit = find(&index, "stream:front-door kind:fragment").remove(0);
    let at = UnixMs(DAY_ONE + 20_000);
    let expected = SearchHit {
        kind: HitKind::Fragment,
        stream: world.streams[0],
        stream_name: "front-door".to_owned(),
        device: "porch".to_owned(),
        fragment_number: Some(world.number(0)),
        run: Some(world.runs[0]),
        protocol: Some("rtsp".to_owned()),
        source: Some("10.0.0.7:5004".to_owned()),
        codecs: vec!["h264".to_owned(), "aac".to_owned()],
        time: at,
        server_time: at,
        duration_ms: Some(2000),
        size_bytes: Some(1000),
        width: Some(1280),
        height: Some(720),
        fps: Some(25.0),
        bitrate: Some(4000),
        gap: None,
        tags: vec![("site".into(), "North Gate".into()), ("Plate".into(), "HH 10".into())],
    };
    assert_eq!(hit, expected);
    let gap = find(&index, "kind:gap").remove(0);
    assert_eq!((gap.gap, gap.time, gap.duration_ms), (Some("overload"), UnixMs(DAY_ONE + 1000), Some(3000)));
    let run = find(&index, "kind:run stream:hall").remove(0);
    assert_eq!((run.run, run.duration_ms), (Some(world.runs[1]), Some(24_000)));
}

#[test]
fn mistakes_are_told_with_their_place() {
    let index = memory();
    for (q, position) in [
        ("nothing:x", 0),
        ("codec:h264 colour:red", 11),
        ("tags:x", 0),
        ("tags.:x", 0),
        ("any:x", 0),
        ("width:wide", 6),
        ("width:-1", 6),
        ("width:1*", 6),
        ("size_bytes:[1 TO x]", 17),
        ("fps:nan", 4),
        ("time:yesterday", 5),
        ("time:[2026-01-01 TO *]", 6),
        ("stream:[a TO b]", 7),
        ("fragment_number:>abc", 17),
        ("width:IN [1 b]", 12),
        ("(", 1),
    ] {
        let error = index.search().query(&request(q)).expect_err(q);
        assert!(matches!(&error, SearchError::Malformed { position: at, .. } if *at == position), "{q}: {error}");
    }
    let invalid = |request: SearchRequest| matches!(index.search().query(&request), Err(SearchError::Invalid { .. }));
    assert!(invalid(SearchRequest { limit: 0, ..request("") }));
    assert!(invalid(SearchRequest { limit: RESULTS_MAX + 1, ..request("") }));
    assert!(invalid(SearchRequest { after: Some("xyz".into()), ..request("") }));
    let sort = |field: &str| Some(Sort { field: field.into(), descending: false });
    assert!(invalid(SearchRequest { sort: sort("stream"), ..request("") }));
}

#[test]
fn a_range_of_producer_time_takes_what_overlaps() {
    let index = memory();
    feed(&index, &World::new(20).events);
    let between = |start: i64, end: i64| {
        let (start, end) = (Some(UnixMs(DAY_ONE + start)), Some(UnixMs(DAY_ONE + end)));
        index.search().query(&SearchRequest { start, end, ..request("kind:fragment") }).unwrap().total
    };
    assert_eq!(between(20_000, 22_000), 1);
    assert_eq!(between(21_999, 22_001), 2);
    assert_eq!(between(0, 20_000), 0);
    assert_eq!(between(0, 20_001), 1);
}

#[test]
fn pages_do_not_shift_whatever_the_order() {
    let dir = tempfile::tempdir().unwrap();
    let index = disk(dir.path());
    let mut world = World::new(50);
    // Many with the same values.
    for sequence in 100..150 {
        let fragment = Fragment { start_ms: DAY_ONE, ..Fragment::new(world.streams[0], world.runs[0], sequence) };
        world.events.push(fragment.event());
    }
    let (committed, tail) = world.events.split_at(60);
    feed(&index, committed);
    index.search().commit();
    feed(&index, tail);
    for field in ["time", "server_time", "size_bytes", "duration_ms", "width", "fps", "bitrate", "fragment_number"] {
        for descending in [false, true] {
            let sort = Some(Sort { field: field.to_owned(), descending });
            let whole = index.search().query(&SearchRequest { sort: sort.clone(), ..request("") }).unwrap();
            assert_eq!(whole.next, None);
            let mut request = SearchRequest { sort, limit: 7, ..request("") };
            let mut paged = Vec::new();
            for page_count in 1.. {
                let page = index.search().query(&request).unwrap();
                assert_eq!(page.total, whole.total);
                paged.extend(page.results);
                request.after = page.next;
                if request.after.is_none() {
                    assert_eq!(page_count, whole.total.div_ceil(7));
                    break;
                }
                if page_count == 3 {
                    // What moves from memory into files keeps its place.
                    index.search().commit();
                }
            }
            assert_eq!(paged, whole.results, "{field} {descending}");
        }
    }
    let times = find(&index, "kind:fragment");
    assert!(times.windows(2).all(|pair| pair[0].time >= pair[1].time), "the newest come first");
}

#[test]
fn answers_are_the_same_in_memory_in_files_and_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(250);
    let reference = memory();
    feed(&reference, &world.events);
    let expected = answers(&reference);
    assert_eq!(expected[0].total, 258);

    let index = disk(dir.path());
    feed(&index, &world.events);
    assert_eq!(answers(&index), expected);
    assert_eq!(index.search().status().document_count, 0);
    index.search().commit();
    let status = index.search().status();
    assert_eq!((status.document_count, status.uncommitted_count, status.partition_count), (258, 0, 3));
    assert_eq!(answers(&index), expected);
    index.close();

    // Everything is replayed and nothing written again.
    let files = files(dir.path());
    let index = disk(dir.path());
    assert_eq!(count(&index, ""), 0, "nothing is shown before the log was observed");
    feed(&index, &world.events);
    index.search().commit();
    assert_eq!(index.search().status().document_count, 258);
    assert_eq!(answers(&index), expected);
    index.close();
    assert_eq!(self::files(dir.path()), files);
}

#[test]
fn the_order_of_the_log_does_not_matter_nor_do_copies() {
    let world = World::new(30);
    let reference = memory();
    feed(&reference, &world.events);
    let index = memory();
    let mut events: Vec<_> = world.events.iter().rev().cloned().collect();
    events.extend(world.events.clone());
    for event in &events {
        index.observe(event);
        if matches!(event, LogEvent::Control(_)) {
            index.search().commit();
        }
    }
    index.search().settle();
    let results = |index: &Index| answers(index).into_iter().map(|page| page.results).collect::<Vec<_>>();
    assert_eq!(results(&index), results(&reference));
}

#[test]
fn a_queue_that_overflows_loses_nothing() {
    let world = World::new(300);
    let options = IndexOptions { queue_changes: 4, ..IndexOptions::in_memory(SystemClock::shared()) };
    let index = Index::open(options).unwrap();
    feed(&index, &world.events);
    assert_eq!(count(&index, ""), 308);
    assert_eq!(find(&index, "kind:fragment stream:hall").len(), 5);
    assert!(index.search().status().indexed_watermark.is_some());
}

#[test]
fn the_watermark_is_the_greatest_number_that_can_be_found() {
    let index = memory();
    assert_eq!(index.search().query(&request("")).unwrap().indexed_watermark, None);
    let world = World::new(5);
    feed(&index, &world.events);
    let last = FragmentNumber::new(20, (DAY_ONE + 40_000) as u64, 9);
    assert_eq!(index.search().query(&request("")).unwrap().indexed_watermark, Some(last));
}

#[test]
fn what_is_below_the_floor_is_gone_at_once_and_then_from_the_files() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(250);
    let index = disk(dir.path());
    feed(&index, &world.events);
    index.search().commit();
    assert_eq!(index.search().status().partition_count, 3);
    index.observe(&testing::floor(900, world.streams[0], world.number(200)));
    assert_eq!(count(&index, "kind:fragment stream:front-door"), 50);
    assert_eq!(count(&index, "kind:gap"), 0);
    index.search().commit();
    assert_eq!(count(&index, "kind:fragment stream:front-door"), 50);
    // The run's own document keeps the first partition; the second is gone.
    assert_eq!(index.search().status().partition_count, 2);
    assert_eq!(count(&index, "kind:run"), 2);
    index.observe(&testing::run_ended(901, world.streams[0], world.runs[0]));
    for stream in world.streams {
        index.observe(&testing::floor(902, stream, FragmentNumber::new(902, 0, 0)));
    }
    index.search().settle();
    assert_eq!(count(&index, ""), 0);
    index.search().commit();
    assert_eq!(index.search().status().partition_count, 0);
    assert_eq!(files(dir.path()), Vec::<PathBuf>::new());
}

#[test]
fn a_deleted_stream_leaves_nothing_and_its_name_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(30);
    let index = disk(dir.path());
    feed(&index, &world.events);
    index.search().commit();
    let before = index.search().status().document_count;
    let next = StreamId::new();
    index.observe(&testing::stream(800, next, "front-door"));
    index.observe(&testing::deleted(801, world.streams[0]));
    assert_eq!(count(&index, "stream:front-door"), 0);
    index.search().settle();
    assert_eq!(index.search().status().document_count, before - 32);
    let mut fragment = Fragment::new(next, RunId::new(), 802);
    fragment.codecs = vec!["vp9"];
    // Late news of the old one change nothing.
    feed(&index, &[fragment.event(), world.events[6].clone(), world.events[0].clone()]);
    assert_eq!(count(&index, "stream:front-door"), 1);
    assert_eq!(count(&index, "codec:vp9 stream:front-door"), 1);
    assert_eq!(count(&index, "stream:hall kind:fragment"), 5);
}

#[test]
fn changed_settings_and_runs_reach_the_documents() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(30);
    let index = disk(dir.path());
    feed(&index, &world.events);
    index.search().commit();
    let changed = testing::stream_with(700, world.streams[0], "front-door", "garden", &[("site", "South")]);
    let source = testing::run(701, world.streams[0], world.runs[0], "rtsps", "10.9.9.9:1");
    feed(&index, &[changed.clone(), source.clone()]);
    let check = |index: &Index| {
        assert_eq!(count(index, "device:porch"), 0);
        assert_eq!(count(index, "device:garden kind:fragment"), 30);
        assert_eq!(count(index, "tags.site:south kind:fragment"), 30);
        assert_eq!(count(index, "tags.site:north"), 0);
        assert_eq!(count(index, "protocol:rtsps kind:fragment"), 30);
        assert_eq!(count(index, "protocol:rtsp"), 0);
        assert_eq!(count(index, "kind:run"), 2);
    };
    check(&index);
    index.search().commit();
    check(&index);
    assert_eq!(index.search().status().document_count, 38);
    index.close();
    let index = disk(dir.path());
    // An older copy comes last.
    let mut events = world.events.clone();
    events.splice(0..0, [changed, source]);
    feed(&index, &events);
    check(&index);
}

/// All files below, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found.sort();
    found
}

fn filled(dir: &Path, world: &World) {
    let index = disk(dir);
    feed(&index, &world.events);
    index.close();
}

#[test]
fn nothing_can_be_read_in_the_files() {
    let dir = tempfile::tempdir().unwrap();
    filled(dir.path(), &World::new(30));
    let files = files(dir.path());
    assert!(files.len() >= 8, "{files:?}");
    for path in files {
        let bytes = fs::read(&path).unwrap();
        assert_eq!(&bytes[..4], b"VIDX", "{path:?}");
        for secret in ["front-door", "door", "porch", "h264", "10.0.0.7", "stream", "segments", "Hall", "hall"] {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} in {path:?}");
        }
    }
}

#[test]
fn damaged_files_are_made_again() {
    let world = World::new(40);
    let reference = memory();
    feed(&reference, &world.events);
    let expected = answers(&reference);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(&str, Damage); 5] = [
        ("bit flip in the header", |bytes| bytes[9] ^= 1),
        ("bit flip in the first chunk", |bytes| bytes[45] ^= 1),
        ("bit flip at the end", |bytes| *bytes.last_mut().unwrap() ^= 1),
        ("cut", |bytes| bytes.truncate(bytes.len() - 5)),
        ("empty", Vec::clear),
    ];
    for (what, damage) in damages {
        let dir = tempfile::tempdir().unwrap();
        filled(dir.path(), &world);
        for path in files(dir.path()) {
            let mut bytes = fs::read(&path).unwrap();
            damage(&mut bytes);
            fs::write(&path, bytes).unwrap();
        }
        let index = disk(dir.path());
        feed(&index, &world.events);
        assert_eq!(answers(&index), expected, "{what}");
        index.search().commit();
        assert_eq!(index.search().status().document_count, 48, "{what}");
    }
}

#[test]
fn each_damaged_file_alone_is_noticed() {
    let world = World::new(20);
    let reference = memory();
    feed(&reference, &world.events);
    let expected = answers(&reference);
    let master = tempfile::tempdir().unwrap();
    filled(master.path(), &world);
    for path in files(master.path()) {
        let dir = tempfile::tempdir().unwrap();
        for other in files(master.path()) {
            let to = dir.path().join(other.strip_prefix(master.path()).unwrap());
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            let mut bytes = fs::read(&other).unwrap();
            if other == path {
                let middle = sealed::HEADER_LEN + (bytes.len() - sealed::HEADER_LEN) / 2;
                bytes[middle] ^= 0x10;
            }
            fs::write(to, bytes).unwrap();
        }
        let index = disk(dir.path());
        feed(&index, &world.events);
        // At the latest the first query that touches it finds out, and the next ones are answered.
        for _ in 0..2 {
            for q in ["", "codec:h264", "tags.plate:*"] {
                let _ = index.search().query(&request(q));
                index.search().settle();
            }
        }
        assert_eq!(answers(&index), expected, "{path:?}");
    }
}

#[test]
fn files_under_another_key_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(20);
    filled(dir.path(), &world);
    let before = files(dir.path());
    let index = Index::open(IndexOptions { key: [4; 32], ..disk_options(dir.path()) }).unwrap();
    feed(&index, &world.events);
    assert_eq!(count(&index, ""), 28);
    index.close();
    assert!(files(dir.path()).iter().all(|path| !before.contains(path)));
}

/// Segment files that were restored beside a newer index: numbers are given again, to something else.
#[test]
fn documents_of_what_had_the_number_before_hide_nothing() {
    let renumbered = |event: &LogEvent| match event {
        LogEvent::Control(record) => {
            let number = FragmentNumber::new(record.number.sequence(), 77, 77);
            LogEvent::Control(Arc::new(ControlRecord { number, body: record.body.clone() }))
        }
        LogEvent::Fragment { .. } => event.clone(),
    };
    let ids = [(StreamId::new(), RunId::new()), (StreamId::new(), RunId::new())];
    let events = |(stream, run): (StreamId, RunId), start_ms: i64| {
        let begun = [testing::stream(1, stream, "cam"), testing::run(2, stream, run, "rtsp", "10.0.0.7:5004")];
        let gap = testing::gap(3, stream, run, DAY_ONE + start_ms, DAY_ONE + 5000);
        let fragment = |sequence| Fragment::new(stream, run, sequence).event();
        [&begun[..], &[gap], &(4..9).map(fragment).collect::<Vec<_>>()].concat()
    };
    for of in ids {
        let dir = tempfile::tempdir().unwrap();
        let index = disk(dir.path());
        feed(&index, &events(ids[0], 1000));
        index.search().commit();
        index.close();
        let index = disk(dir.path());
        let events: Vec<_> = events(of, 2000).iter().map(renumbered).collect();
        for _ in 0..2 {
            feed(&index, &events);
            let gaps = find(&index, "kind:gap");
            assert_eq!(gaps.iter().map(|gap| gap.time).collect::<Vec<_>>(), [UnixMs(DAY_ONE + 2000)]);
            assert_eq!(find(&index, "kind:fragment").len(), 5);
            index.search().commit();
        }
        index.close();
    }
}

#[test]
fn damage_while_open_is_repaired() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(20);
    let index = Index::open(IndexOptions { cache_bytes: 0, ..disk_options(dir.path()) }).unwrap();
    feed(&index, &world.events);
    index.search().commit();
    for path in files(dir.path()) {
        let mut bytes = fs::read(&path).unwrap();
        bytes[sealed::HEADER_LEN] ^= 1;
        fs::write(&path, bytes).unwrap();
    }
    assert!(matches!(index.search().query(&request("codec:h264")), Err(SearchError::Unavailable { .. })));
    index.search().settle();
    assert_eq!(count(&index, "codec:h264"), 20);
    assert_eq!(count(&index, ""), 28);
}

#[test]
fn wiped_files_are_made_again() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(20);
    let path = dir.path().join("index");
    filled(&path, &world);
    Index::wipe(&path).unwrap();
    assert!(!path.exists());
    Index::wipe(&path).unwrap();
    let index = disk(&path);
    feed(&index, &world.events);
    assert_eq!(count(&index, ""), 28);
}

/// Names of all files of partitions.
fn names(dir: &Path) -> Vec<PathBuf> {
    let mut names: Vec<_> = files(dir).into_iter().filter(|path| !path.starts_with(dir.join("timeline"))).collect();
    names.sort();
    names
}

#[test]
fn a_rebuild_that_was_stopped_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("index");
    let world = World::new(300);
    let expected = memory();
    feed(&expected, &world.events);
    let rebuild = || Index::rebuild(IndexOptions { queue_changes: 4, ..disk_options(&path) }).unwrap();
    let stopped = rebuild();
    feed(&stopped, &world.events[..200]);
    stopped.search().commit();
    stopped.close();
    let half = names(&path);
    // The rest is added, and what is there stays as it is.
    let index = rebuild();
    feed(&index, &world.events);
    index.search().commit();
    assert_eq!(answers(&index), answers(&expected));
    index.close();
    let whole = names(&path);
    assert!(
        half.iter().filter(|path| path.extension().is_some()).all(|path| whole.contains(path)),
        "{half:?} {whole:?}"
    );
    // Everything is there: nothing is made.
    let index = rebuild();
    feed(&index, &world.events);
    index.search().commit();
    assert_eq!(index.search().status().document_count, world.events.len() as u64 - 3);
    assert_eq!(index.search().status().catching_up, None);
    index.close();
    assert_eq!(names(&path), whole);
    // It is complete, or somebody else had it open: the next one begins anew.
    for open in [|path: &Path| Index::rebuilt(path).unwrap(), |path: &Path| disk(path).close()] {
        open(&path);
        let index = rebuild();
        assert_eq!(index.search().status().document_count, 0);
        index.close();
    }
}

#[test]
fn closing_twice_and_observing_after_it_does_no_harm() {
    let index = memory();
    let world = World::new(3);
    index.close();
    index.close();
    feed(&index, &world.events);
    assert_eq!(index.catalog().streams().len(), 2);
    assert_eq!(count(&index, ""), 0);
    assert_eq!(index.search().query(&request("")).unwrap().indexed_watermark, None);
}

#[test]
fn what_a_stop_cuts_short_is_made_after_the_next_start() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(300);
    let index = Index::open(IndexOptions { queue_changes: 4, ..disk_options(dir.path()) }).unwrap();
    world.events.iter().for_each(|event| index.observe(event));
    index.close();
    let index = disk(dir.path());
    feed(&index, &world.events);
    assert_eq!(count(&index, ""), 308);
    index.search().commit();
    assert_eq!(index.search().status().document_count, 308);
}

#[test]
fn questions_are_answered_while_partitions_come_and_go() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(240);
    let options = IndexOptions { commit_documents: 20, partition_ms: 40_000, ..disk_options(dir.path()) };
    let index = Index::open(options).unwrap();
    let (answered, done) = (std::sync::Barrier::new(2), std::sync::atomic::AtomicBool::new(false));
    std::thread::scope(|scope| {
        scope.spawn(|| {
            assert!(index.search().query(&request("codec:h264")).is_ok());
            answered.wait();
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                let page = index.search().query(&request("codec:h264")).expect("an answer");
                assert!(page.total <= 240);
            }
        });
        answered.wait();
        for (position, event) in world.events.iter().enumerate() {
            index.observe(event);
            if position % 50 == 49 && position > 100 {
                index.observe(&testing::floor(position as u64, world.streams[0], world.number(position - 100)));
                index.search().commit();
            }
        }
        index.search().commit();
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    // The last floor was raised at event 249, to fragment 149.
    assert_eq!(count(&index, "codec:h264"), 240 - 149);
    assert!(index.search().status().partition_count < 13);
}

#[test]
fn thousands_of_documents_are_found() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(3000);
    let options = IndexOptions { commit_documents: 500, partition_ms: 2_000_000, ..disk_options(dir.path()) };
    let index = Index::open(options).unwrap();
    feed(&index, &world.events);
    for (q, expected) in [("kind:fragment", 3005), ("tags.plate:*", 300), ("tags.plate:1230", 1), ("codec:h265", 5)] {
        let page = index.search().query(&SearchRequest { limit: 1, ..request(q) }).unwrap();
        assert_eq!(page.total, expected, "{q}");
        assert_eq!(page.results.len(), 1);
    }
    index.search().commit();
    assert_eq!(index.search().status().document_count, 3008);
    assert_eq!(index.search().query(&SearchRequest { limit: 1, ..request("kind:fragment") }).unwrap().total, 3005);
}

/// A start from a checkpoint: control records are told again, then what came after it.
fn restart(dir: &Path, id: uuid::Uuid, events: &[LogEvent], from: usize) -> Arc<Index> {
    let index = disk(dir);
    assert!(index.restore(id));
    events.iter().filter(|event| matches!(event, LogEvent::Control(_))).for_each(|event| index.observe(event));
    feed(&index, &events[from..]);
    index
}

#[test]
fn a_start_from_a_checkpoint_answers_as_one_with_a_replay_and_makes_nothing_twice() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(200);
    let expected = memory();
    feed(&expected, &world.events);
    let id = uuid::Uuid::new_v4();
    let saved = disk(dir.path());
    world.events[..150].iter().for_each(|event| saved.observe(event));
    saved.save(id).unwrap();
    // What comes after is in memory only, and lost.
    world.events[150..].iter().for_each(|event| saved.observe(event));
    let copied = tempfile::tempdir().unwrap();
    copy_all(dir.path(), copied.path());
    drop(saved);
    let index = restart(copied.path(), id, &world.events, 150);
    assert_eq!(answers(&index), answers(&expected));
    // Only what came after the checkpoint was made again.
    assert_eq!(index.search().status().uncommitted_count, world.events.len() as u64 - 150);
    drop(index);
    // A partition that went meanwhile is made again.
    let partition = fs::read_dir(copied.path()).unwrap().map(|entry| entry.unwrap().path());
    let partition = partition.filter(|path| path.file_name().unwrap().to_str().unwrap().starts_with('v')).min();
    fs::remove_dir_all(partition.unwrap()).unwrap();
    let index = restart(copied.path(), id, &world.events, 150);
    assert_eq!(answers(&index), answers(&expected));
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let (path, target) = entry.map(|entry| (entry.path(), to.join(entry.file_name()))).unwrap();
        if path.is_dir() {
            fs::create_dir(&target).unwrap();
            copy_all(&path, &target);
        } else {
            fs::copy(path, target).unwrap();
        }
    }
}

/// Words of the field `device` in all files of search, read by an index of its own; also of segments that are not needed.
fn devices(dir: &Path) -> Vec<String> {
    let (mut found, fields) = (Vec::new(), Fields::new());
    for partition in fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()) {
        if !partition.file_name().unwrap().to_str().unwrap().starts_with('v') {
            continue;
        }
        let sealed = directory::SealedDirectory::open(partition.clone(), KEY, ChunkCache::new(1 << 20)).unwrap();
        let index = tantivy::Index::open(sealed).unwrap();
        let segments: Vec<String> = index.searchable_segment_ids().unwrap().iter().map(|id| id.uuid_string()).collect();
        for name in fs::read_dir(&partition).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()) {
            let of = name.split('.').next().unwrap();
            if of.len() == 32 && !segments.iter().any(|segment| segment == of) {
                found.push(format!("{name} is not needed"));
            }
        }
        for reader in index.reader().unwrap().searcher().segment_readers() {
            let words = reader.inverted_index(fields.text(schema::Text::Device)).unwrap();
            let mut words = words.terms().stream().unwrap();
            while words.advance() {
                found.push(String::from_utf8_lossy(words.key()).into_owned());
            }
        }
    }
    found
}

#[test]
fn nothing_of_a_deleted_stream_is_in_any_file_once_it_is_purged() {
    let dir = tempfile::tempdir().unwrap();
    let index = disk(dir.path());
    let world = World::new(200);
    // Several segments of each partition.
    for events in world.events.chunks(40) {
        feed(&index, events);
        index.search().commit();
    }
    assert!(devices(dir.path()).iter().any(|word| word == "porch"));
    index.observe(&testing::deleted(900, world.streams[0]));
    assert!(index.purged(world.streams[0]));
    let after = devices(dir.path());
    assert!(after.iter().all(|word| word == "hall" || word == schema::PRESENT), "{after:?}");
    assert_eq!(count(&index, "kind:fragment"), 5);
}

fn aggregate(index: &Index, q: &str, by: &str) -> Aggregate {
    let by = (!by.is_empty()).then(|| GroupBy::parse(by).unwrap());
    let request = AggregateRequest { q: q.to_owned(), by, limit: GROUPS_MAX, ..AggregateRequest::default() };
    index.search().aggregate(&request).unwrap_or_else(|error| panic!("{q}: {error}"))
}

/// Names of groups and counts.
fn counts(found: &Aggregate) -> Vec<(String, u64)> {
    let name = |key: &GroupKey| match key {
        GroupKey::Time(at) => at.to_string(),
        GroupKey::Word(word) => word.clone(),
    };
    found.groups.iter().map(|(key, totals)| (name(key), totals.count)).collect()
}

/// Groups as a scan of all results would make them.
fn scanned(index: &Index, q: &str, keys: impl Fn(&SearchHit) -> Vec<String>) -> Vec<(String, u64)> {
    let mut groups = std::collections::BTreeMap::new();
    for hit in find(index, q) {
        for key in keys(&hit) {
            *groups.entry(key).or_insert(0) += 1;
        }
    }
    let mut groups: Vec<_> = groups.into_iter().collect();
    groups.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    groups
}

#[test]
fn groups_are_those_that_a_scan_of_the_results_makes() {
    let dir = tempfile::tempdir().unwrap();
    let world = World::new(250);
    let index = disk(dir.path());
    // Several partitions, and a tail in which some streams' documents were made again.
    let (early, late) = world.events.split_at(150);
    feed(&index, early);
    index.search().commit();
    feed(&index, late);
    let renamed = testing::stream_with(900, world.streams[0], "front-door", "Porch 2", &[("site", "South")]);
    feed(&index, &[renamed]);
    for q in ["", "kind:fragment", "codec:h265", "tags.plate:*", "-protocol:rtsp", "gap:true", "nothing"] {
        type Keys = fn(&SearchHit) -> Vec<String>;
        let cases: [(&str, Keys); 8] = [
            ("stream", |hit| vec![hit.stream_name.clone()]),
            ("device", |hit| vec![hit.device.clone()]),
            ("kind", |hit| vec![hit.kind.name().to_owned()]),
            ("codec", |hit| hit.codecs.clone()),
            ("protocol", |hit| hit.protocol.clone().into_iter().collect()),
            ("gap", |hit| hit.gap.map(str::to_owned).into_iter().collect()),
            ("tags.plate", |hit| tags_of(hit, "plate")),
            ("tags.SITE", |hit| tags_of(hit, "site")),
        ];
        for (by, keys) in cases {
            assert_eq!(counts(&aggregate(&index, q, by)), scanned(&index, q, keys), "{q:?} by {by}");
        }
        let all = find(&index, q);
        let total = aggregate(&index, q, "").total;
        let of_kind = |kind| all.iter().filter(|hit| hit.kind == kind).count() as u64;
        assert_eq!(total.count, all.len() as u64, "{q}");
        assert_eq!(total.fragments, of_kind(HitKind::Fragment), "{q}");
        assert_eq!((total.runs, total.gaps), (of_kind(HitKind::Run), of_kind(HitKind::Gap)), "{q}");
        assert_eq!(total.size_bytes, all.iter().filter_map(|hit| hit.size_bytes).sum::<u64>(), "{q}");
        let length =
            |kind| -> u64 { all.iter().filter(|hit| hit.kind == kind).filter_map(|hit| hit.duration_ms).sum() };
        assert_eq!((total.duration_ms, total.gap_ms), (length(HitKind::Fragment), length(HitKind::Gap)), "{q}");
    }
}

fn tags_of(hit: &SearchHit, name: &str) -> Vec<String> {
    let named = hit.tags.iter().filter(|(tag, _)| tag.eq_ignore_ascii_case(name));
    named.map(|(_, value)| value.clone()).collect()
}

#[test]
fn a_histogram_counts_what_begins_in_each_interval_and_clips_lengths_to_the_bounds() {
    let world = World::new(60);
    let index = memory();
    feed(&index, &world.events);
    let at = |second: i64| UnixMs(DAY_ONE + second * 1000);
    let request = AggregateRequest {
        q: "stream:front-door kind:fragment".to_owned(),
        by: Some(GroupBy::Time),
        interval_ms: Some(10_000),
        start: Some(at(25)),
        end: Some(at(55)),
        limit: GROUPS_MAX,
        ..AggregateRequest::default()
    };
    let found = index.search().aggregate(&request).unwrap();
    // Fragments begin at every even second from 20 on; the one at 24 ends at 26.
    let groups: Vec<_> =
        found.groups.iter().map(|(key, totals)| (key.clone(), totals.count, totals.duration_ms)).collect();
    let group = |second, count, ms| (GroupKey::Time(at(second)), count, ms);
    assert_eq!(groups, [group(20, 3, 5000), group(30, 5, 10_000), group(40, 5, 10_000), group(50, 3, 5000)]);
    assert_eq!((found.total.count, found.total.duration_ms, found.interval_ms), (16, 30_000, Some(10_000)));
    // The fragment at 30 s goes on at 31 s.
    let late = AggregateRequest { start: Some(at(31)), interval_ms: Some(1000), ..request.clone() };
    assert_eq!(index.search().aggregate(&late).unwrap().groups[0].0, GroupKey::Time(at(31)));
    // The gap from 1 s to 4 s, of which a part is asked for.
    let gap = AggregateRequest {
        q: "kind:gap".to_owned(),
        start: Some(at(2)),
        end: Some(at(3)),
        limit: 1,
        ..Default::default()
    };
    let found = index.search().aggregate(&gap).unwrap();
    assert_eq!((found.total.gaps, found.total.gap_ms, found.groups.len()), (1, 1000, 0));
    // An interval that nobody named.
    let open = AggregateRequest { interval_ms: None, start: None, end: None, ..request };
    let found = index.search().aggregate(&open).unwrap();
    assert_eq!((found.interval_ms, found.group_count), (Some(2000), 60));
    let by_server = AggregateRequest { by: Some(GroupBy::ServerTime), ..open };
    assert_eq!(index.search().aggregate(&by_server).unwrap().interval_ms, Some(2000));
}

#[test]
fn lengths_without_end_do_not_overflow_their_sum() {
    let (stream, run) = (StreamId::new(), RunId::new());
    let mut events = vec![testing::stream(1, stream, "cam"), testing::run(2, stream, run, "rtsp", "10.0.0.7:5004")];
    events.extend((3..6).map(|sequence| testing::gap(sequence, stream, run, i64::MIN / 2, i64::MAX / 2)));
    let index = memory();
    feed(&index, &events);
    let total = aggregate(&index, "kind:gap", "").total;
    assert_eq!((total.gaps, total.gap_ms), (3, u64::MAX));
}

#[test]
fn groups_are_sorted_and_cut_and_bitrates_spread() {
    let world = World::new(30);
    let index = memory();
    feed(&index, &world.events);
    let request = |sort: &str, limit| AggregateRequest {
        q: "kind:fragment".to_owned(),
        by: Some(GroupBy::Stream),
        sort: (!sort.is_empty())
            .then(|| Sort { field: sort.trim_start_matches('-').to_owned(), descending: sort.starts_with('-') }),
        limit,
        ..AggregateRequest::default()
    };
    let names = |sort, limit| {
        let found = index.search().aggregate(&request(sort, limit)).unwrap();
        assert_eq!(found.group_count, 2);
        counts(&found).into_iter().map(|(name, _)| name).collect::<Vec<_>>()
    };
    assert_eq!(names("", 10), ["front-door", "Hall"]);
    assert_eq!(names("count", 10), ["Hall", "front-door"]);
    assert_eq!(names("key", 10), ["Hall", "front-door"]);
    assert_eq!(names("-key", 1), ["front-door"]);
    assert_eq!(names("-size_bytes", 1), ["Hall"]);
    assert_eq!(names("-bitrate", 1), ["Hall"]);
    let found = index.search().aggregate(&request("-count", 10)).unwrap();
    // 1000 bytes in 2 s, and 1,000,000 in 1 s.
    let spread = |at: usize| found.groups[at].1.bitrate.unwrap();
    let near = |value: f64, expected: f64| (value - expected).abs() <= expected / 100.0;
    assert_eq!((spread(0).min, spread(0).max), (4000.0, 4000.0));
    assert!(near(spread(0).p50, 4000.0) && near(spread(1).p99, 8e6), "{found:?}");
    let total = found.total.bitrate.unwrap();
    assert!(near(total.p50, 4000.0) && near(total.p90, 8e6) && total.max == 8e6, "{total:?}");
    assert_eq!(index.search().aggregate(&request("", 1)).unwrap().indexed_watermark, found.indexed_watermark);
}

#[test]
fn what_cannot_be_grouped_is_refused() {
    let world = World::new(20);
    let index = memory();
    feed(&index, &world.events);
    let base = AggregateRequest { limit: 10, ..AggregateRequest::default() };
    let sort = |field: &str| Some(Sort { field: field.to_owned(), descending: false });
    for (request, field) in [
        (AggregateRequest { limit: 0, ..base.clone() }, "limit"),
        (AggregateRequest { limit: GROUPS_MAX + 1, ..base.clone() }, "limit"),
        (AggregateRequest { sort: sort("fps"), ..base.clone() }, "sort"),
        (AggregateRequest { interval_ms: Some(1000), ..base.clone() }, "interval"),
        (AggregateRequest { by: Some(GroupBy::Time), interval_ms: Some(999), ..base.clone() }, "interval"),
    ] {
        let refused = index.search().aggregate(&request).unwrap_err();
        assert!(matches!(refused, SearchError::Invalid { field: of, .. } if of == field), "{refused}");
    }
    for by in ["", "tags.", "run", "Time"] {
        assert!(matches!(GroupBy::parse(by), Err(SearchError::Invalid { field: "by", .. })), "{by}");
    }
    let wrong = AggregateRequest { q: "stream:(".to_owned(), ..base };
    assert!(matches!(index.search().aggregate(&wrong), Err(SearchError::Malformed { .. })));
}

#[test]
fn groups_beyond_a_bound_are_refused_not_cut() {
    let (stream, run) = (StreamId::new(), RunId::new());
    let mut events = vec![testing::stream(1, stream, "cam"), testing::run(2, stream, run, "rtsp", "10.0.0.7:5004")];
    for sequence in 10..10_011 {
        let mut fragment = Fragment::new(stream, run, sequence);
        fragment.tags.push(("plate", sequence.to_string()));
        events.push(fragment.event());
    }
    let index = memory();
    feed(&index, &events);
    for by in [GroupBy::Tag("plate".to_owned()), GroupBy::Time] {
        let interval_ms = (by == GroupBy::Time).then_some(1000);
        let mut request = AggregateRequest { by: Some(by), interval_ms, limit: 3, ..AggregateRequest::default() };
        request.q = "kind:fragment".to_owned();
        let refused = index.search().aggregate(&request).unwrap_err();
        assert!(matches!(&refused, SearchError::Invalid { field: "by", .. }), "{refused}");
        request.end = Some(UnixMs(DAY_ONE + 10_009 * 2000 + 1));
        let found = index.search().aggregate(&request).unwrap();
        assert_eq!((found.group_count, found.groups.len()), (10_000, 3));
    }
    assert!(index.search().query(&request("plate")).is_ok(), "the index is not taken for damaged");
}
