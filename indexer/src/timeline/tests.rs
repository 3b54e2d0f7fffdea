//! The timeline against the plainest thing that could answer the same.

use std::collections::BTreeMap;

use proptest::prelude::*;
use vidar_core::control::Control;
use vidar_core::log::LogEvent;
use vidar_core::record::FragmentFlags;

use super::stream::successor;
use super::*;
use crate::testing::{self, DAY_ONE, Fragment};

/// Some ids that stay the same for the run of a test.
fn ids() -> (StreamId, [RunId; 3]) {
    (StreamId::from_bytes([5; 16]), [1, 2, 3].map(|byte| RunId::from_bytes([byte; 16])))
}

fn fragments() -> impl Strategy<Value = Vec<Fragment>> {
    let one = (0..3_usize, 0..60_i64, prop_oneof![0..4_u32, 0..40_u32, Just(1000)], 0..3_i64, 1..50_u64);
    prop::collection::vec(one, 0..24).prop_map(|list| {
        let (stream, runs) = ids();
        let fragment = |(sequence, (run, start, duration, step, bytes)): (u64, (usize, i64, u32, i64, u64))| Fragment {
            start_ms: start,
            duration_ms: duration,
            // The server's clock is stepped back now and then.
            server_ms: DAY_ONE + sequence as i64 * 1_000_000 - step * 2_500_000,
            record_len: bytes,
            discontinuity: sequence as u32 / 5,
            ordinal: sequence * 2,
            ..Fragment::new(stream, runs[run], sequence)
        };
        (1..).zip(list).map(fragment).collect()
    })
}

/// Blocks of three fragments: little stays in memory.
fn small() -> Timeline {
    let options = Options { block_len: 3, tail_max: 20, cache_bytes: 4096, ..Options::new(None, [3; 32]) };
    Timeline::open(options).expect("a timeline in memory always opens")
}

fn timeline<'a>(fragments: impl IntoIterator<Item = &'a Fragment>) -> Timeline {
    let timeline = small();
    for fragment in fragments {
        timeline.add(&fragment.entry(), &fragment.facts());
    }
    timeline
}

/// The naive one: entries by number.
struct Model(BTreeMap<FragmentNumber, SharedEntry>);

impl Model {
    fn new(fragments: &[Fragment], floor: FragmentNumber) -> Self {
        let entries = fragments.iter().map(|fragment| (fragment.number(), fragment.entry()));
        Self(entries.filter(|(number, _)| *number >= floor).collect())
    }

    fn span(entry: &SharedEntry, axis: TimeAxis) -> (UnixMs, UnixMs) {
        let start = match axis {
            TimeAxis::Producer => entry.meta.producer_start,
            TimeAxis::Server => entry.meta.server_start(),
        };
        (start, start.plus_ms(i64::from(entry.meta.duration_ms).max(1)))
    }

    fn range(&self, axis: TimeAxis, start: UnixMs, end: UnixMs) -> Vec<FragmentNumber> {
        let overlaps = |entry: &&SharedEntry| {
            let (from, to) = Self::span(entry, axis);
            from < end && to > start
        };
        let mut found: Vec<_> = self.0.values().filter(overlaps).collect();
        if axis == TimeAxis::Producer {
            found.sort_by_key(|entry| (entry.meta.producer_start, entry.meta.number));
        }
        found.into_iter().map(|entry| entry.meta.number).collect()
    }

    /// Those of the given ones that overlap another.
    fn overlapped(&self, numbers: &[FragmentNumber]) -> HashSet<FragmentNumber> {
        let repeats = |entry: &SharedEntry| entry.meta.flags.contains(FragmentFlags::REPEATS);
        let is_overlapped = |number: &&FragmentNumber| {
            let entry = &self.0[*number];
            let (start, end) = Self::span(entry, TimeAxis::Producer);
            let others = self.range(TimeAxis::Producer, start, end).into_iter().filter(|other| other != *number);
            let mut others = others.map(|other| &self.0[&other]);
            others.any(|other| other.meta.run != entry.meta.run || repeats(other) || repeats(entry))
        };
        numbers.iter().filter(is_overlapped).copied().collect()
    }

    /// What is shown at one instant.
    fn shown_at(&self, at: UnixMs) -> Option<FragmentNumber> {
        self.range(TimeAxis::Producer, at, at.plus_ms(1)).into_iter().max()
    }

    fn at(&self, at: UnixMs) -> Option<FragmentNumber> {
        let first = self.0.values().map(|entry| entry.meta.producer_start).min()?;
        (first.0..=at.0).rev().find_map(|at| self.shown_at(UnixMs(at)))
    }
}

fn numbers(entries: &[SharedEntry]) -> Vec<FragmentNumber> {
    entries.iter().map(|entry| entry.meta.number).collect()
}

/// All pages of a listing, each token through its text.
fn all_pages(timeline: &Timeline, query: RangeQuery) -> Vec<FragmentNumber> {
    let (mut query, mut all) = (query, Vec::new());
    loop {
        let page = timeline.range(&query);
        assert!(page.entries.len() <= query.limit);
        all.extend(numbers(&page.entries));
        let Some(next) = page.next else { return all };
        assert_eq!(page.entries.len(), query.limit);
        query.after = Some(next.to_string().parse().expect("a token of ours"));
    }
}

proptest! {
    #[test]
    fn ranges_are_as_the_model_says(
        list in fragments(), start in -2..70_i64, len in 0..70_i64, limit in 1..5_usize, axis: bool, floor in 0..10_u64,
    ) {
        let (stream, _) = ids();
        let below = FragmentNumber::new(floor, 0, 0);
        let timeline = timeline(&list);
        timeline.raise_floor(stream, below, (0, 0));
        let model = Model::new(&list, below);
        let (axis, start) = if axis {
            (TimeAxis::Producer, start)
        } else {
            (TimeAxis::Server, DAY_ONE + start * 400_000 - 5_000_000)
        };
        let len = if axis == TimeAxis::Server { len * 400_000 } else { len };
        let (start, end) = (UnixMs(start), UnixMs(start + len));
        let query = RangeQuery { stream, axis, start: Some(start), end: Some(end), after: None, limit, descending: false };
        let expected = if len == 0 { Vec::new() } else { model.range(axis, start, end) };
        prop_assert_eq!(all_pages(&timeline, query.clone()), expected.clone());
        let descending = all_pages(&timeline, RangeQuery { descending: true, ..query.clone() });
        prop_assert_eq!(descending, expected.into_iter().rev().collect::<Vec<_>>());
        let open = RangeQuery { start: None, end: None, ..query };
        prop_assert_eq!(all_pages(&timeline, open).len(), model.0.len());
    }

    #[test]
    fn what_overlaps_is_known_on_every_page(
        list in fragments(), resent in prop::collection::vec(prop::bool::weighted(0.2), 24), limit in 1..6_usize,
        axis in prop_oneof![Just(TimeAxis::Producer), Just(TimeAxis::Server)], descending: bool, floor in 0..10_u64,
    ) {
        let (stream, _) = ids();
        let list: Vec<_> = list.into_iter().zip(resent).map(|(one, repeats)| Fragment { repeats, ..one }).collect();
        let below = FragmentNumber::new(floor, 0, 0);
        let timeline = timeline(&list);
        timeline.raise_floor(stream, below, (0, 0));
        let model = Model::new(&list, below);
        let mut query = RangeQuery { stream, axis, start: None, end: None, after: None, limit, descending };
        loop {
            let page = timeline.range(&query);
            let expected = model.overlapped(&numbers(&page.entries));
            prop_assert_eq!(timeline.overlapped(stream, &page.entries), expected);
            let Some(next) = page.next else { break };
            query.after = Some(next);
        }
    }

    #[test]
    fn what_is_shown_is_as_the_model_says(list in fragments(), start in -2..110_i64, len in 1..60_i64) {
        let (stream, _) = ids();
        let (timeline, model) = (timeline(&list), Model::new(&list, FragmentNumber::MIN));
        let end = start + len;
        let plan = timeline.shown(stream, UnixMs(start), UnixMs(end));
        prop_assert!(plan.iter().all(|shown| shown.from < shown.to && shown.from.0 < end && shown.to.0 > start));
        prop_assert!(plan.windows(2).all(|pair| pair[0].to <= pair[1].from));
        for shown in &plan {
            // Within the plan of everything, each stretch is as long as it can be, whatever was asked for.
            let number = Some(shown.entry.meta.number);
            for at in [shown.from, shown.to.plus_ms(-1)] {
                prop_assert_eq!(model.shown_at(at), number);
            }
            prop_assert!(model.shown_at(shown.from.plus_ms(-1)) != number && model.shown_at(shown.to) != number);
        }
        for at in start..end {
            let stretch = plan.iter().find(|shown| shown.from.0 <= at && at < shown.to.0);
            prop_assert_eq!(stretch.map(|shown| shown.entry.meta.number), model.shown_at(UnixMs(at)));
            prop_assert_eq!(timeline.at(stream, UnixMs(at)).map(|entry| entry.meta.number), model.at(UnixMs(at)));
        }
    }

    #[test]
    fn order_and_repetition_do_not_matter(list in fragments(), order in any::<prop::sample::Index>(), floor in 0..20_u64) {
        let (stream, runs) = ids();
        let below = FragmentNumber::new(floor, 0, 0);
        let one = timeline(&list);
        one.raise_floor(stream, below, (3, 1));
        let other = small();
        other.raise_floor(stream, below, (3, 1));
        let turn = order.index(list.len().max(1));
        for fragment in list.iter().rev().chain(&list[..turn]) {
            let mut elsewhere = (*fragment.entry()).clone();
            elsewhere.record.record_len += 5;
            other.add(&Arc::new(elsewhere), &fragment.facts());
            other.add(&fragment.entry(), &fragment.facts());
        }
        other.raise_floor(stream, FragmentNumber::MIN, (0, 0));
        prop_assert_eq!(one.totals(stream), other.totals(stream));
        prop_assert_eq!(one.next_place(stream), other.next_place(stream));
        prop_assert_eq!(one.by_ordinal(stream, 5, 100), other.by_ordinal(stream, 5, 100));
        prop_assert_eq!(one.after(stream, FragmentNumber::MIN, 100), other.after(stream, FragmentNumber::MIN, 100));
        let span = |span: &Option<RunSpan>| span.as_ref().map(|span| (span.first.meta.number, span.start, span.end, span.count));
        let [a, b] = [&one, &other].map(|timeline| timeline.run_spans(stream, &runs).iter().map(span).collect::<Vec<_>>());
        prop_assert_eq!(a, b);
        for fragment in &list {
            prop_assert_eq!(one.details(stream, fragment.number()), other.details(stream, fragment.number()));
        }
    }

    #[test]
    fn neighbours_and_totals_are_as_the_model_says(list in fragments(), floor in 0..12_u64) {
        let (stream, runs) = ids();
        let below = FragmentNumber::new(floor, 0, 0);
        let timeline = timeline(&list);
        timeline.raise_floor(stream, below, (0, 0));
        let model = Model::new(&list, below);
        let all: Vec<_> = model.0.values().cloned().collect();
        prop_assert_eq!(timeline.first(stream), all.first().cloned());
        prop_assert_eq!(timeline.last(stream), all.last().cloned());
        for (index, entry) in all.iter().enumerate() {
            let number = entry.meta.number;
            prop_assert_eq!(timeline.get(stream, number), Some(entry.clone()));
            prop_assert_eq!(timeline.next(stream, number), all.get(index + 1).cloned());
            prop_assert_eq!(timeline.previous(stream, number), index.checked_sub(1).map(|before| all[before].clone()));
            let same_run = |other: &&SharedEntry| other.meta.run == entry.meta.run;
            prop_assert_eq!(timeline.next_in_run(entry), all[index + 1..].iter().find(same_run).cloned());
            prop_assert_eq!(timeline.previous_in_run(entry), all[..index].iter().rev().find(same_run).cloned());
        }
        for run in runs {
            let of_run: Vec<_> = all.iter().filter(|entry| entry.meta.run == run).collect();
            let spans: Vec<_> = of_run.iter().map(|entry| Model::span(entry, TimeAxis::Producer)).collect();
            let span = timeline.run_spans(stream, &[run]).pop().flatten();
            prop_assert_eq!(span.as_ref().map_or(0, |span| span.count), of_run.len() as u64);
            prop_assert_eq!(span.as_ref().map(|span| span.start), spans.iter().map(|span| span.0).min());
            prop_assert_eq!(span.as_ref().map(|span| span.end), spans.iter().map(|span| span.1).max());
        }
        let totals = timeline.totals(stream);
        prop_assert_eq!(totals.fragment_count, all.len() as u64);
        prop_assert_eq!(totals.stored_bytes, all.iter().map(|entry| entry.stored_bytes()).sum::<u64>());
        prop_assert_eq!(timeline.entry_count(), all.len() as u64);
    }

    #[test]
    fn what_expires_is_as_the_model_says(list in fragments(), now in 0..40_i64, bytes in prop::option::of(0..400_u64)) {
        let (stream, _) = ids();
        let timeline = timeline(&list);
        let now = UnixMs(DAY_ONE + 3_600_000 + now * 1_000_000);
        let all: Vec<_> = Model::new(&list, FragmentNumber::MIN).0.into_values().collect();
        let aged = all.iter().position(|entry| entry.meta.server_start().since_ms(now) > -3_600_000).unwrap_or(all.len());
        let stored = |from: usize| all[from..].iter().map(|entry| entry.stored_bytes()).sum::<u64>();
        let over = bytes.map_or(0, |bytes| (0..all.len().saturating_sub(1)).find(|from| stored(*from) <= bytes).unwrap_or(all.len().saturating_sub(1)));
        let count = aged.max(over);
        let expiry: Option<Expiry> = timeline.expired(stream, now, 1, bytes, FragmentNumber::MIN);
        prop_assert_eq!(expiry.as_ref().map_or(0, |expiry| expiry.entries.len()), count);
        if let Some(expiry) = expiry {
            prop_assert_eq!(&expiry.entries[..], &all[..count]);
            prop_assert_eq!(expiry.stored_bytes, all[..count].iter().map(|entry| entry.stored_bytes()).sum::<u64>());
            let rest: Option<Expiry> = timeline.expired(stream, now, 1, bytes, successor(all[0].meta.number));
            prop_assert_eq!(rest.map_or(Vec::new(), |rest| rest.entries), &all[1..count]);
            timeline.raise_floor(stream, expiry.below, (expiry.next_ordinal, expiry.discontinuity));
            prop_assert_eq!(timeline.after(stream, FragmentNumber::MIN, 100), &all[count..]);
        }
    }

    #[test]
    fn the_oldest_of_all_streams_go_first(split in prop::collection::vec(0..3_u8, 0..20), bytes in 0..500_u64) {
        let run = RunId::from_bytes([1; 16]);
        let list: Vec<_> = (1..).zip(&split).map(|(sequence, stream)| Fragment {
            record_len: 20,
            ..Fragment::new(StreamId::from_bytes([*stream; 16]), run, sequence)
        }).collect();
        let timeline = timeline(&list);
        let expected: Vec<_> = list.iter().take(usize::try_from(bytes.div_ceil(20)).unwrap()).map(Fragment::number).collect();
        let oldest: Vec<(StreamId, Expiry)> = timeline.oldest_overall(bytes, &HashMap::new());
        let mut found: Vec<_> = oldest.iter().flat_map(|(_, expiry)| numbers(&expiry.entries)).collect();
        found.sort_unstable();
        prop_assert_eq!(found, expected);
    }
}

/// Counts entries, and looks how many of them are held anywhere.
#[derive(Default)]
struct Counted {
    count: usize,
    held: Vec<std::sync::Weak<vidar_core::entry::FragmentEntry>>,
    held_most: usize,
}

impl Extend<SharedEntry> for Counted {
    fn extend<T: IntoIterator<Item = SharedEntry>>(&mut self, entries: T) {
        for entry in entries {
            self.count += 1;
            self.held.retain(|held| held.strong_count() > 0);
            self.held.push(Arc::downgrade(&entry));
            self.held_most = self.held_most.max(self.held.len());
        }
    }
}

#[test]
fn what_goes_is_added_up_without_being_held() {
    let (stream, runs) = ids();
    let fragments = (1..=500).map(|sequence| Fragment { record_len: 20, ..Fragment::new(stream, runs[0], sequence) });
    let timeline = timeline(&fragments.collect::<Vec<_>>());
    let of_stream: Option<Expiry<Counted>> = timeline.expired(stream, UnixMs(0), 1, Some(20), FragmentNumber::MIN);
    let mut of_all: Vec<(StreamId, Expiry<Counted>)> = timeline.oldest_overall(u64::MAX, &HashMap::new());
    for (expiry, count) in [(of_stream.expect("some"), 499), (of_all.remove(0).1, 500)] {
        assert_eq!((expiry.entries.count, expiry.stored_bytes), (count, 20 * count as u64));
        assert!(expiry.entries.held_most < 100, "{}", expiry.entries.held_most);
    }
}

#[test]
fn a_fragment_below_the_floor_or_of_a_deleted_stream_stays_away() {
    let (stream, runs) = ids();
    let fragments: Vec<_> = (1..=4).map(|sequence| Fragment::new(stream, runs[0], sequence)).collect();
    let timeline = timeline(&fragments);
    timeline.raise_floor(stream, fragments[2].number(), (9, 2));
    let version = timeline.version(stream);
    timeline.add(&fragments[0].entry(), &fragments[0].facts());
    assert_eq!(timeline.version(stream), version);
    assert_eq!(timeline.first(stream).map(|entry| entry.meta.number), Some(fragments[2].number()));
    assert_eq!(timeline.next_place(stream), (9, 2));
    timeline.delete(stream);
    timeline.add(&fragments[3].entry(), &fragments[3].facts());
    assert_eq!(timeline.totals(stream), StreamTotals::default());
    assert!(timeline.stream_ids().is_empty());
    assert_eq!(timeline.next_place(stream), (0, 0));
}

#[test]
fn places_come_after_entries_floors_and_gaps() {
    let (stream, runs) = ids();
    let timeline = small();
    assert_eq!(timeline.next_place(stream), (0, 0));
    let fragment = Fragment { ordinal: 4, discontinuity: 3, ..Fragment::new(stream, runs[0], 1) };
    timeline.add(&fragment.entry(), &fragment.facts());
    assert_eq!(timeline.next_place(stream), (5, 3));
    timeline.take_ordinal(stream, 7);
    assert_eq!(timeline.next_place(stream), (8, 3));
}

#[test]
fn a_record_that_moved_replaces_the_old_one() {
    let (stream, runs) = ids();
    let fragment = Fragment::new(stream, runs[0], 1);
    let timeline = timeline([&fragment]);
    let mut moved = (*fragment.entry()).clone();
    moved.record.offset = 77;
    timeline.add(&Arc::new(moved), &fragment.facts());
    assert_eq!(timeline.first(stream).map(|entry| entry.record.offset), Some(77));
    assert_eq!(timeline.totals(stream).fragment_count, 1);
    assert_eq!(timeline.at(stream, UnixMs(fragment.start_ms)).map(|entry| entry.record.offset), Some(77));
}

#[test]
fn a_record_that_moved_replaces_what_stands_in_a_block() {
    let (stream, runs) = ids();
    let fragments: Vec<_> =
        (1..=40).map(|sequence| Fragment { record_len: 10, ..Fragment::new(stream, runs[0], sequence) }).collect();
    let timeline = timeline(&fragments);
    assert!(timeline.stats().tail_count < 10);
    let moved = |fragment: &Fragment| {
        let mut moved = (*fragment.entry()).clone();
        (moved.record.offset, moved.record.record_len) = (77, 11);
        Arc::new(moved)
    };
    let at = |sequence: usize| timeline.get(stream, fragments[sequence - 1].number()).map(|entry| entry.record.offset);
    for sequence in [2, 3, 20] {
        timeline.add(&moved(&fragments[sequence - 1]), &fragments[sequence - 1].facts());
        assert_eq!(at(sequence), Some(77));
    }
    let expected = StreamTotals { fragment_count: 40, stored_bytes: 403, ..timeline.totals(stream) };
    assert_eq!(timeline.totals(stream), expected);
    assert_eq!(timeline.run_spans(stream, &runs[..1])[0].as_ref().map(|span| span.count), Some(40));
    // The same when they stand in blocks again.
    timeline.shared.spill(stream, 0, 1).unwrap();
    assert_eq!(timeline.stats().tail_count, 0);
    assert_eq!(timeline.totals(stream), expected);
    assert_eq!([at(1), at(2), at(3), at(20)], [Some(4096), Some(77), Some(77), Some(77)]);
    let version = timeline.version(stream);
    for fragment in &fragments[3..19] {
        timeline.add(&fragment.entry(), &fragment.facts());
    }
    assert_eq!(timeline.version(stream), version, "known fragments change nothing");
    // One of those that moved goes with the floor, from the tail and from its block.
    timeline.add(&fragments[1].entry(), &fragments[1].facts());
    timeline.raise_floor(stream, fragments[2].number(), (0, 0));
    assert_eq!(timeline.totals(stream).stored_bytes, 403 - 21);
    assert_eq!(timeline.run_spans(stream, &runs[..1])[0].as_ref().map(|span| span.count), Some(38));
}

#[test]
fn fragments_that_look_alike_share_their_tracks() {
    let (stream, runs) = ids();
    let mut fragments: Vec<_> = (1..=3).map(|sequence| Fragment::new(stream, runs[0], sequence)).collect();
    fragments[2].codecs = vec!["h265"];
    let timeline = timeline(&fragments);
    let details: Vec<_> = fragments.iter().filter_map(|one| timeline.details(stream, one.number())).collect();
    assert!(Arc::ptr_eq(&details[0].tracks, &details[1].tracks));
    assert_eq!(details[2].tracks.len(), 1);
}

#[test]
fn cursors_are_read_back_and_nothing_else() {
    let (time, number) = (UnixMs(-5), FragmentNumber::new(1, 2, 3));
    let cursor = Cursor { axis: TimeAxis::Server, descending: false, time, number };
    for axis in [TimeAxis::Server, TimeAxis::Producer] {
        for descending in [false, true] {
            let cursor = Cursor { axis, descending, ..cursor };
            assert_eq!(cursor.to_string().parse(), Ok(cursor));
        }
    }
    let text = cursor.to_string();
    for bad in ["", "00", &text[1..], &text.replace('0', "g"), &format!("04{}", &text[2..])] {
        assert_eq!(bad.parse::<Cursor>(), Err(ParseCursorError), "{bad:?}");
    }
}

#[test]
fn lookups_hold_in_a_long_stream_of_many_runs() {
    let stream = ids().0;
    let timeline = Timeline::open(Options { block_len: 64, ..Options::new(None, [3; 32]) }).unwrap();
    for sequence in 1..=20_000_u64 {
        // A new run every 100 fragments, whose clock starts in 1970 every other time.
        let run = sequence / 100;
        let fragment = Fragment {
            start_ms: if run % 2 == 0 { sequence as i64 % 100 * 2000 } else { DAY_ONE + sequence as i64 * 2000 },
            ..Fragment::new(stream, RunId::from_bytes([run as u8; 16]), sequence)
        };
        timeline.add(&fragment.entry(), &fragment.facts());
    }
    let at = UnixMs(DAY_ONE + 15_150 * 2000 + 1);
    assert_eq!(timeline.at(stream, at).map(|entry| entry.meta.number.sequence()), Some(15_150));
    assert_eq!(timeline.shown(stream, at, at.plus_ms(2000)).len(), 2);
    // At the start of 1970 the last of many runs is shown.
    assert_eq!(timeline.at(stream, UnixMs(5)).map(|entry| entry.meta.number.sequence()), Some(20_000));
}

#[test]
fn the_control_record_of_a_gap_takes_its_place() {
    let index = crate::Index::open(crate::IndexOptions::in_memory(vidar_core::clock::SystemClock::shared())).unwrap();
    let (stream, runs) = ids();
    let LogEvent::Control(record) = testing::gap(3, stream, runs[0], 0, 10) else { panic!("a control record") };
    let Control::Gap(mut gap) = record.body.clone() else { panic!("a gap") };
    gap.ordinal = Some(41);
    vidar_core::log::LogObserver::observe(&*index, &testing::control(3, Control::Gap(gap)));
    assert_eq!(index.timeline().next_place(stream), (42, 0));
}
