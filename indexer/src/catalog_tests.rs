//! The catalog through the index, as the log makes it.

use std::sync::Arc;

use vidar_core::clock::SystemClock;
use vidar_core::ids::{FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::time::UnixMs;

use crate::testing::{self, DAY_ONE, Fragment};
use crate::{Index, IndexOptions, RunOverlaps, TimeAxis};

fn index(events: &[LogEvent]) -> Arc<Index> {
    let index = Index::open(IndexOptions::in_memory(SystemClock::shared())).unwrap();
    events.iter().for_each(|event| index.observe(event));
    index
}

fn name(text: &str) -> StreamName {
    StreamName::new(text).unwrap()
}

fn names(index: &Index) -> Vec<String> {
    index.catalog().streams().iter().map(|stream| stream.name.to_string()).collect()
}

/// Every order of a few events.
fn orders(events: &[LogEvent]) -> Vec<Vec<LogEvent>> {
    if events.len() <= 1 {
        return vec![events.to_vec()];
    }
    let mut all = Vec::new();
    for first in 0..events.len() {
        let mut rest = events.to_vec();
        let first = rest.remove(first);
        for mut order in orders(&rest) {
            order.insert(0, first.clone());
            all.push(order);
        }
    }
    all
}

#[test]
fn streams_are_listed_by_name_and_the_greatest_number_holds() {
    let (a, b) = (StreamId::new(), StreamId::new());
    let events = [
        testing::stream(1, b, "beta"),
        testing::stream_with(2, a, "alpha", "old", &[]),
        testing::stream_with(5, a, "alpha", "new", &[]),
        testing::stream_with(3, a, "other", "older", &[]),
    ];
    for order in orders(&events) {
        let index = index(&order);
        assert_eq!(names(&index), ["alpha", "beta"]);
        let alpha = index.catalog().stream_by_name(&name("alpha")).unwrap();
        assert_eq!((alpha.stream, alpha.settings.device.as_str()), (a, "new"));
        assert_eq!(index.catalog().stream(a), Some(alpha));
        assert!(index.catalog().stream_by_name(&name("other")).is_none());
    }
}

#[test]
fn a_name_goes_on_to_the_next_stream_in_any_order() {
    let (old, new) = (StreamId::new(), StreamId::new());
    let events = [
        testing::stream(1, old, "cam"),
        testing::deleted(2, old),
        testing::stream(3, new, "cam"),
        testing::floor(4, old, FragmentNumber::new(1, 0, 0)),
    ];
    for order in orders(&events) {
        let index = index(&order);
        assert_eq!(index.catalog().stream_by_name(&name("cam")).map(|stream| stream.stream), Some(new));
        assert_eq!(index.catalog().streams().len(), 1);
        assert!(index.catalog().is_deleted(old) && !index.catalog().is_deleted(new));
        assert!(index.catalog().stream(old).is_none());
    }
}

#[test]
fn runs_say_what_their_fragments_cover() {
    let (stream, run, later) = (StreamId::new(), RunId::new(), RunId::new());
    let fragments: Vec<_> = (10..13).map(|sequence| Fragment::new(stream, run, sequence)).collect();
    let mut events = vec![
        testing::stream(1, stream, "cam"),
        testing::run(11, stream, run, "http", "x"),
        testing::run(9, stream, run, "outdated", "x"),
        testing::run(40, stream, later, "rtsp", "y"),
        testing::run_ended(20, stream, run),
    ];
    events.extend(fragments.iter().map(Fragment::event));
    for events in [events.clone(), events.iter().rev().cloned().collect()] {
        let index = index(&events);
        let runs = index.catalog().runs(stream);
        assert_eq!(runs.iter().map(|view| view.record.run).collect::<Vec<_>>(), [run, later]);
        let view = &runs[0];
        assert_eq!(view.record.protocol, "http");
        assert_eq!(view.ended, Some((UnixMs(DAY_ONE + 40_000), "teardown".to_owned())));
        assert_eq!(view.fragment_count, 3);
        assert_eq!(view.first.as_ref().map(|entry| entry.meta.number), Some(fragments[0].number()));
        assert_eq!(view.last.as_ref().map(|entry| entry.meta.number), Some(fragments[2].number()));
        assert_eq!(view.producer, Some(UnixMs(DAY_ONE + 20_000)..UnixMs(DAY_ONE + 26_000)));
        assert!(runs[1].ended.is_none() && runs[1].first.is_none());
        let within = |from: i64, to: i64| {
            let range = UnixMs(DAY_ONE + from)..UnixMs(DAY_ONE + to);
            let runs = index.catalog().runs(stream).into_iter().filter(|view| view.is_in(TimeAxis::Producer, &range));
            runs.map(|view| view.record.run).collect::<Vec<_>>()
        };
        assert_eq!(within(0, 20_000), []);
        assert_eq!(within(25_999, 26_000), [run]);
        assert_eq!(within(80_000, 80_001), [later], "without media its anchor counts");
        assert!(index.catalog().run(stream, RunId::new()).is_none());
    }
}

#[test]
fn runs_know_which_others_have_media_at_the_same_time() {
    let stream = StreamId::new();
    let [before, long, within, after, empty] = [1, 2, 3, 4, 5].map(|byte| RunId::from_bytes([byte; 16]));
    let at = |run, sequence, start_ms| Fragment { start_ms, ..Fragment::new(stream, run, sequence) };
    let runs = (1..).zip([before, long, within, after, empty]);
    let mut events: Vec<_> = runs.map(|(sequence, run)| testing::run(sequence, stream, run, "http", "x")).collect();
    let fragments =
        [at(before, 10, 0), at(long, 11, 2000), at(long, 12, 4000), at(within, 13, 3000), at(after, 14, 6000)];
    events.extend(fragments.iter().map(Fragment::event));
    let index = index(&events);
    let runs = index.catalog().runs(stream);
    let overlaps = RunOverlaps::of(&runs);
    let found: Vec<_> = runs.iter().map(|run| (run.record.run, overlaps.with(run).collect::<Vec<_>>())).collect();
    let expected = [(before, vec![]), (long, vec![within]), (within, vec![long]), (after, vec![]), (empty, vec![])];
    assert_eq!(found, expected);
}

#[test]
fn a_floor_takes_runs_and_gaps_with_it_in_any_order() {
    let (stream, gone, kept) = (StreamId::new(), RunId::new(), RunId::new());
    let fragment = Fragment::new(stream, kept, 30);
    let events = [
        testing::run(2, stream, gone, "http", "x"),
        testing::run_ended(3, stream, gone),
        testing::run(4, stream, kept, "http", "x"),
        testing::gap(5, stream, gone, 0, 10),
        testing::gap(31, stream, kept, 5, 10),
        testing::floor(32, stream, fragment.number()),
        fragment.event(),
    ];
    for order in orders(&events) {
        let index = index(&order);
        let runs = index.catalog().runs(stream);
        assert_eq!(runs.iter().map(|view| view.record.run).collect::<Vec<_>>(), [kept]);
        assert_eq!(runs[0].fragment_count, 1);
        let gaps = index.catalog().gaps(stream, None);
        assert_eq!(gaps.iter().map(|gap| gap.start).collect::<Vec<_>>(), [UnixMs(5)]);
    }
}

#[test]
fn gaps_are_found_by_what_they_overlap() {
    let (stream, run) = (StreamId::new(), RunId::new());
    let index = index(&[
        testing::gap(5, stream, run, 100, 200),
        testing::gap(6, stream, run, 0, 1000),
        testing::gap(7, stream, run, 300, 300),
        testing::gap(6, stream, run, 0, 1000),
    ]);
    let starts = |from: i64, to: i64| {
        let gaps = index.catalog().gaps(stream, Some(UnixMs(from)..UnixMs(to)));
        gaps.iter().map(|gap| gap.start.0).collect::<Vec<_>>()
    };
    assert_eq!(starts(0, 2000), [0, 100, 300]);
    assert_eq!(starts(200, 300), [0]);
    assert_eq!(starts(300, 301), [0, 300]);
    assert_eq!(starts(1000, 2000), [] as [i64; 0]);
    assert_eq!(index.catalog().gaps(StreamId::new(), None).len(), 0);
}
