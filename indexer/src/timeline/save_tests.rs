//! Saves: what they bring back, and when they bring back nothing.

use std::collections::HashSet;
use std::fs;

use proptest::prelude::*;

use super::super::{Options, Timeline};
use super::*;
use crate::testing::Fragment;

const KEY: [u8; 32] = [3; 32];

fn open(dir: &Path) -> Timeline {
    let options = Options { block_len: 3, tail_max: 30, cache_bytes: 4096, ..Options::new(Some(dir.to_owned()), KEY) };
    Timeline::open(options).unwrap()
}

fn stream(of: u8) -> StreamId {
    StreamId::from_bytes([of; 16])
}

fn fragment(of: u8, sequence: u64) -> Fragment {
    let run = RunId::from_bytes([(sequence / 7) as u8; 16]);
    Fragment { tags: vec![("plate", format!("tag{of}"))], ..Fragment::new(stream(of), run, sequence) }
}

/// What a log may say.
#[derive(Debug, Clone)]
enum Step {
    Add(u8, u64),
    /// The record moved.
    Move(u8, u64),
    Floor(u8, u64),
    Delete(u8),
    Save,
    Settle,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        40 => (0..3_u8, 0..60_u64).prop_map(|(of, sequence)| Step::Add(of, sequence)),
        4 => (0..3_u8, 0..60_u64).prop_map(|(of, sequence)| Step::Move(of, sequence)),
        2 => (0..3_u8, 0..40_u64).prop_map(|(of, sequence)| Step::Floor(of, sequence)),
        1 => (0..3_u8).prop_map(Step::Delete),
        3 => Just(Step::Save),
        3 => Just(Step::Settle),
    ]
}

fn apply(timeline: &Timeline, step: &Step) {
    match step {
        Step::Add(of, sequence) | Step::Move(of, sequence) => {
            let fragment = fragment(*of, *sequence);
            let mut entry = (*fragment.entry()).clone();
            if matches!(step, Step::Move(..)) {
                entry.record.offset = 77;
            }
            timeline.add(&Arc::new(entry), &fragment.facts());
        }
        Step::Floor(of, sequence) => {
            timeline.raise_floor(stream(*of), fragment(*of, *sequence).number(), (*sequence + 3, 1));
        }
        Step::Delete(of) => timeline.delete(stream(*of)),
        Step::Save => {}
        Step::Settle => timeline.settle(),
    }
}

/// All that is asked of a timeline, of all streams.
fn answers(timeline: &Timeline) -> Vec<String> {
    let of_stream = |of: u8| {
        let stream = stream(of);
        let all = timeline.after(stream, FragmentNumber::MIN, usize::MAX);
        let details: Vec<_> = all.iter().map(|entry| timeline.details(stream, entry.meta.number)).collect();
        let runs: Vec<RunId> = (0..9).map(|run| RunId::from_bytes([run; 16])).collect();
        let spans = timeline.run_spans(stream, &runs);
        let spans: Vec<_> = spans.into_iter().map(|span| span.map(|span| (span.start, span.end, span.count))).collect();
        let shown = timeline.shown(stream, UnixMs(0), UnixMs(i64::MAX));
        let (place, floor, totals) = (timeline.next_place(stream), timeline.floor(stream), timeline.totals(stream));
        format!("{all:?} {details:?} {spans:?} {shown:?} {place:?} {floor:?} {totals:?}")
    };
    (0..3).map(of_stream).collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]
    #[test]
    fn a_restart_from_a_save_answers_as_one_that_never_happened(
        steps in prop::collection::vec(step(), 0..120), whole: bool,
    ) {
        let dir = tempfile::tempdir().unwrap();
        let (never, timeline) = (open(&dir.path().join("never")), open(&dir.path().join("saved")));
        let mut saved = None;
        for (index, step) in steps.iter().enumerate() {
            apply(&never, step);
            apply(&timeline, step);
            if matches!(step, Step::Save) {
                let id = Uuid::new_v4();
                timeline.save(id, b"more").unwrap();
                saved = Some((id, index));
            }
        }
        drop(timeline);
        let again = open(&dir.path().join("saved"));
        let Some((id, index)) = saved else {
            prop_assert!(again.restore(Uuid::new_v4()).is_none());
            return Ok(());
        };
        prop_assert_eq!(again.restore(id), Some(b"more".to_vec()));
        // The store tells deletions and floors again, then what came after; or everything.
        for step in steps.iter().filter(|step| matches!(step, Step::Delete(_))) {
            apply(&again, step);
        }
        let from = if whole { 0 } else { index };
        steps[from..].iter().for_each(|step| apply(&again, step));
        never.settle();
        again.settle();
        prop_assert_eq!(again.stats().unreadable_count, 0);
        prop_assert_eq!(answers(&again), answers(&never));
    }
}

/// With one save of two streams; its directory and the save's path.
fn saved() -> (tempfile::TempDir, Uuid, Vec<String>) {
    let dir = tempfile::tempdir().unwrap();
    let timeline = open(dir.path());
    for sequence in 0..40 {
        timeline.add(&fragment(1, sequence).entry(), &fragment(1, sequence).facts());
        timeline.add(&fragment(2, sequence).entry(), &fragment(2, sequence).facts());
    }
    timeline.settle();
    let id = Uuid::new_v4();
    timeline.save(id, b"").unwrap();
    let answers = answers(&timeline);
    (dir, id, answers)
}

fn copy(from: &Path) -> tempfile::TempDir {
    let to = tempfile::tempdir().unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.path().join(entry.file_name())).unwrap();
    }
    to
}

fn names(dir: &Path) -> HashSet<String> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[test]
fn a_save_that_was_changed_or_cut_anywhere_brings_nothing_back() {
    let (dir, id, expected) = saved();
    let bytes = fs::read(path(dir.path(), id)).unwrap();
    let timeline = open(dir.path());
    let restores = |changed: &[u8]| {
        fs::write(path(dir.path(), id), changed).unwrap();
        timeline.restore(id).is_some()
    };
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert!(!restores(&changed), "changed at {at}");
        assert!(!restores(&bytes[..at]), "cut at {at}");
    }
    assert!(restores(&bytes));
    assert_eq!(answers(&timeline), expected);
}

#[test]
fn a_save_whose_files_are_short_or_gone_brings_nothing_back_and_a_replay_is_right() {
    let (dir, id, expected) = saved();
    let file = names(dir.path()).into_iter().find(|name| name.ends_with(".vtl")).unwrap();
    let bytes = fs::read(dir.path().join(&file)).unwrap();
    for cut in [None, Some(0), Some(HEADER_LEN), Some(bytes.len() - 1)] {
        let copied = copy(dir.path());
        match cut {
            None => fs::remove_file(copied.path().join(&file)).unwrap(),
            Some(len) => fs::write(copied.path().join(&file), &bytes[..len]).unwrap(),
        }
        let timeline = open(copied.path());
        assert!(timeline.restore(id).is_none(), "{cut:?}");
        for sequence in 0..40 {
            timeline.add(&fragment(1, sequence).entry(), &fragment(1, sequence).facts());
            timeline.add(&fragment(2, sequence).entry(), &fragment(2, sequence).facts());
        }
        timeline.settle();
        assert_eq!(answers(&timeline), expected);
        assert!(!names(copied.path()).contains(&file), "what was left is removed");
    }
}

#[test]
fn what_was_written_after_a_save_is_cut_off_or_removed() {
    let (dir, id, expected) = saved();
    let file = names(dir.path()).into_iter().find(|name| name.ends_with(".vtl")).unwrap();
    let len = fs::metadata(dir.path().join(&file)).unwrap().len();
    let mut bytes = fs::read(dir.path().join(&file)).unwrap();
    bytes.extend_from_slice(&[7; 500]);
    fs::write(dir.path().join(&file), bytes).unwrap();
    let later = Uuid::new_v4();
    for name in [format!("{later}.vtl"), format!("{later}.vts"), format!("{id}.vts-new")] {
        fs::write(dir.path().join(name), b"later").unwrap();
    }
    let timeline = open(dir.path());
    assert!(timeline.restore(id).is_some());
    assert_eq!(answers(&timeline), expected);
    assert_eq!(fs::metadata(dir.path().join(&file)).unwrap().len(), len);
    assert_eq!(names(dir.path()), HashSet::from([file, format!("{id}.vts")]));
}

/// A crash after any of the operations of a save leaves the one before as it was.
#[test]
fn the_save_before_holds_until_the_next_is_whole() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = open(dir.path());
    let mut states = Vec::new();
    let mut sequence = 0;
    for round in 0..4_u8 {
        for _ in 0..30 {
            timeline.add(&fragment(1, sequence).entry(), &fragment(1, sequence).facts());
            sequence += 1;
        }
        // The floor takes blocks that the save before refers to.
        timeline.raise_floor(stream(1), fragment(1, u64::from(round) * 25).number(), (0, 0));
        timeline.settle();
        timeline.shared.files.close_current();
        if let Some((id, answers)) = states.last() {
            // Before the save; with a temporary file; and with the save whole, but not named by anyone.
            for left in [None, Some(TEMPORARY)] {
                let copied = copy(dir.path());
                if let Some(extension) = left {
                    fs::write(copied.path().join(format!("{}.{extension}", Uuid::new_v4())), b"half").unwrap();
                }
                let again = open(copied.path());
                assert!(again.restore(*id).is_some(), "round {round}");
                assert_eq!(&self::answers(&again), answers, "round {round}");
            }
        }
        let id = Uuid::new_v4();
        timeline.save(id, b"").unwrap();
        if let Some((id, answers)) = states.last() {
            let copied = copy(dir.path());
            let again = open(copied.path());
            assert!(again.restore(*id).is_some(), "round {round}");
            assert_eq!(&self::answers(&again), answers, "round {round}");
        }
        states.push((id, self::answers(&timeline)));
    }
    let saves = names(dir.path()).into_iter().filter(|name| name.ends_with(".vts")).count();
    assert_eq!(saves, 2, "the two newest");
}

#[test]
fn a_damaged_block_makes_the_next_start_replay() {
    let (dir, id, _) = saved();
    let timeline = open(dir.path());
    let file = names(dir.path()).into_iter().find(|name| name.ends_with(".vtl")).unwrap();
    let mut bytes = fs::read(dir.path().join(&file)).unwrap();
    bytes[HEADER_LEN + 3] ^= 1;
    fs::write(dir.path().join(&file), bytes).unwrap();
    assert!(timeline.restore(id).is_some());
    let left = |of| timeline.after(stream(of), FragmentNumber::MIN, 100).len();
    assert!(left(1) + left(2) < 80);
    assert_eq!(timeline.stats().unreadable_count, 1);
    assert!(timeline.save(Uuid::new_v4(), b"").is_err());
    drop(timeline);
    assert!(open(dir.path()).restore(id).is_none());
}

/// All plain bytes that today's key opens: saves, and blocks where any ever stood.
fn opened(dir: &Path, places: &[(Uuid, Place)]) -> String {
    let mut all = Vec::new();
    let copied = copy(dir);
    for name in names(dir) {
        let bytes = fs::read(dir.join(&name)).unwrap();
        let id: Uuid = name.split('.').next().unwrap().parse().unwrap();
        if name.ends_with(EXTENSION) {
            all.extend(sealed::open_all(&KEY, &sealed_name(id), &bytes).unwrap());
            continue;
        }
        let file = BlockFile::open(copied.path(), id, (bytes.len() - HEADER_LEN) as u64, &KEY).unwrap();
        for (_, place) in places.iter().filter(|(of, _)| *of == id) {
            let mut sealed = vec![0; place.len as usize];
            file.read(place.offset, &mut sealed).unwrap();
            all.extend_from_slice(file.unseal(place.index, &mut sealed).unwrap_or_default());
        }
    }
    String::from_utf8_lossy(&all).into_owned()
}

#[test]
fn nothing_of_a_deleted_stream_is_left_to_open() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = open(dir.path());
    let mut places: Vec<(Uuid, Place)> = Vec::new();
    let mut note_places = |timeline: &Timeline| {
        let held: Vec<_> = read(&timeline.shared.streams).held.values().cloned().collect();
        for held in held {
            for block in read(&held).view.tree.blocks() {
                places.push((timeline.shared.files.get(block.place.file).unwrap().name, block.place));
            }
        }
    };
    let mut last = None;
    for round in 0..4_u64 {
        // Every other one, then those between: blocks are merged, and what was merged stays behind in the file.
        for sequence in (round % 2..40).step_by(2).chain(round * 40 + 40..round * 40 + 80) {
            for of in [1, 2] {
                timeline.add(&fragment(of, sequence).entry(), &fragment(of, sequence).facts());
                timeline.settle();
                note_places(&timeline);
            }
        }
        let id = Uuid::new_v4();
        timeline.save(id, b"").unwrap();
        last = Some(id);
    }
    timeline.raise_floor(stream(1), fragment(1, 20).number(), (0, 0));
    timeline.settle();
    assert!(!timeline.shared.files.dead(stream(1)).is_empty());
    // Also after a restart, of what was merged before it.
    drop(timeline);
    let timeline = open(dir.path());
    assert!(timeline.restore(last.unwrap()).is_some());
    let before = opened(dir.path(), &places);
    assert!(before.contains("tag1") && before.contains("tag2"));
    timeline.delete(stream(1));
    assert!(timeline.erased(stream(1)));
    let after = opened(dir.path(), &places);
    assert!(!after.contains("tag1") && after.contains("tag2"), "{} blocks", places.len());
    // The save still holds, without the stream.
    let (expected, id) = (answers(&timeline), last.unwrap());
    drop(timeline);
    let again = open(dir.path());
    assert!(again.restore(id).is_some());
    assert_eq!(answers(&again), expected);
    assert_eq!(again.stats().unreadable_count, 0);
}
