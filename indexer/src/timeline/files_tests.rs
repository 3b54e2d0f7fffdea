//! Timeline files on a disk: what is written comes back, what is damaged does not, what is not needed goes.

use std::fs;

use vidar_core::ids::{FragmentNumber, RunId};

use super::*;
use crate::testing::Fragment;
use crate::timeline::{Options, Timeline};

const KEY: [u8; 32] = [6; 32];

fn options(dir: &Path) -> Options {
    Options { block_len: 8, tail_max: 1 << 16, cache_bytes: 4096, ..Options::new(Some(dir.to_owned()), KEY) }
}

fn stream(byte: u8) -> StreamId {
    StreamId::from_bytes([byte; 16])
}

fn fragment(of: u8, sequence: u64) -> Fragment {
    let fragment = Fragment::new(stream(of), RunId::from_bytes([1; 16]), sequence);
    Fragment { record_len: 1000, ordinal: sequence, ..fragment }
}

fn fill(timeline: &Timeline, of: u8, sequences: std::ops::Range<u64>) {
    for sequence in sequences {
        let fragment = fragment(of, sequence);
        timeline.add(&fragment.entry(), &fragment.facts());
    }
    timeline.settle();
}

fn sequences(timeline: &Timeline, of: u8) -> Vec<u64> {
    let all = timeline.after(stream(of), FragmentNumber::MIN, usize::MAX);
    all.iter().map(|entry| entry.meta.number.sequence()).collect()
}

fn files(dir: &Path) -> Vec<PathBuf> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().path()).collect()
}

#[test]
fn old_fragments_leave_memory_and_are_found_on_disk() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(options(dir.path())).unwrap();
    fill(&timeline, 1, 1..1001);
    let stats = timeline.stats();
    assert!(stats.tail_count < 16, "{stats:?}");
    assert!(stats.file_bytes > 0 && stats.unreadable_count == 0, "{stats:?}");
    assert_eq!(sequences(&timeline, 1), (1..1001).collect::<Vec<_>>());
    for sequence in [1, 2, 500, 992, 1000] {
        let fragment = fragment(1, sequence);
        assert_eq!(timeline.get(stream(1), fragment.number()), Some(fragment.entry()));
    }
    // Written bytes are sealed.
    let bytes = fs::read(&files(dir.path())[0]).unwrap();
    assert!(!bytes.windows(16).any(|window| window == [1; 16]));
    drop(timeline);
    assert!(files(dir.path()).is_empty());
}

#[test]
fn a_record_that_moved_is_counted_once_while_its_old_block_is_merged_without_it() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(options(dir.path())).unwrap();
    let add = |sequence, record_len| {
        let fragment = Fragment { record_len, ..fragment(1, sequence) };
        timeline.add(&fragment.entry(), &fragment.facts());
    };
    (1..=8).for_each(|sequence| add(sequence * 10, 1000));
    (1000..1008).for_each(|sequence| add(sequence, 1000));
    timeline.settle();
    assert_eq!(timeline.stats().tail_count, 8);
    // Of what comes late only the first two go into the block, without 80.
    add(80, 5000);
    add(11, 1000);
    add(12, 1000);
    timeline.shared.spill(stream(1), 9, 1).unwrap();
    assert_eq!(timeline.stats().tail_count, 9);
    let totals = timeline.totals(stream(1));
    assert_eq!((totals.fragment_count, totals.stored_bytes), (18, 17 * 1000 + 5000));
    timeline.shared.spill(stream(1), 8, 1).unwrap();
    assert_eq!(timeline.totals(stream(1)), totals);
}

#[test]
fn many_small_streams_share_what_may_stay_in_memory() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(Options { tail_max: 40, ..options(dir.path()) }).unwrap();
    for sequence in 1..=15 {
        for of in 0..10 {
            fill(&timeline, of, sequence..sequence + 1);
        }
    }
    assert!(timeline.stats().tail_count <= 41, "{:?}", timeline.stats());
    for of in 0..10 {
        assert_eq!(sequences(&timeline, of), (1..=15).collect::<Vec<_>>());
    }
}

#[test]
fn what_an_earlier_start_left_is_removed_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["left.vtl", "other"] {
        fs::write(dir.path().join(name), b"bytes").unwrap();
    }
    let timeline = Timeline::open(options(dir.path())).unwrap();
    // Not before something is written: it may be restored.
    assert_eq!(files(dir.path()).len(), 2);
    fill(&timeline, 1, 1..101);
    assert!(!dir.path().join("left.vtl").exists() && dir.path().join("other").exists());
    drop(timeline);
    wipe(dir.path()).unwrap();
    assert!(dir.path().join("other").exists());
}

#[test]
fn a_block_that_was_changed_is_counted_and_never_answered() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(options(dir.path())).unwrap();
    fill(&timeline, 1, 1..101);
    let [path] = &files(dir.path())[..] else { panic!("one file") };
    let whole = fs::read(path).unwrap();
    for at in (HEADER_LEN..whole.len()).step_by(whole.len() / 40) {
        let mut changed = whole.clone();
        changed[at] ^= 1;
        fs::write(path, &changed).unwrap();
        timeline.shared.files.forget_opened();
        let before = timeline.stats().unreadable_count;
        let left = sequences(&timeline, 1);
        assert_eq!(timeline.stats().unreadable_count, before + 1, "changed at {at}");
        // One block of eight is missing.
        assert_eq!(left.len(), 92, "changed at {at}");
    }
    // A block in the place of another.
    let view = crate::lock::read(&timeline.shared.streams).held[&stream(1)].clone();
    let places: Vec<Place> = crate::lock::read(&view).view.tree.blocks().map(|block| block.place).collect();
    fs::write(path, &whole).unwrap();
    let swapped = Place { offset: places[1].offset, len: places[1].len, ..places[0] };
    assert!(timeline.shared.files.load(stream(1), swapped).is_err());
    assert!(timeline.shared.files.load(stream(2), places[0]).is_err());
    assert!(timeline.shared.files.load(stream(1), places[0]).is_ok());
}

#[test]
fn files_of_which_nothing_is_left_go_and_those_of_which_little_is_left_are_written_again() {
    let dir = tempfile::tempdir().unwrap();
    let timeline = Timeline::open(options(dir.path())).unwrap();
    fill(&timeline, 1, 1..1001);
    fill(&timeline, 2, 1..101);
    let first = files(dir.path());
    // The next block begins a new file.
    timeline.shared.files.close_current();
    fill(&timeline, 2, 101..201);
    assert_eq!(files(dir.path()).len(), 2);
    // Most of the first file is of the stream that is deleted.
    timeline.delete(stream(1));
    fill(&timeline, 2, 201..301);
    timeline.settle();
    assert!(!first[0].exists());
    timeline.shared.files.forget_opened();
    assert_eq!(sequences(&timeline, 2), (1..301).collect::<Vec<_>>());
    assert!(sequences(&timeline, 1).is_empty());
    // A floor above everything leaves no file but the one that grows.
    timeline.shared.files.close_current();
    timeline.raise_floor(stream(2), fragment(2, 400).number(), (0, 0));
    timeline.settle();
    assert!(files(dir.path()).is_empty());
    assert_eq!(timeline.stats().file_bytes, 0);
}

#[test]
fn what_cannot_be_written_stays_in_memory_until_it_can() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("timeline");
    let timeline = Timeline::open(options(&path)).unwrap();
    fs::remove_dir(&path).unwrap();
    fill(&timeline, 1, 1..101);
    assert_eq!(timeline.stats().tail_count, 100);
    assert_eq!(sequences(&timeline, 1).len(), 100);
    fs::create_dir(&path).unwrap();
    timeline.shared.spill(stream(1), 8, 1).unwrap();
    assert_eq!(timeline.stats().tail_count, 8);
    assert_eq!(sequences(&timeline, 1), (1..101).collect::<Vec<_>>());
}
