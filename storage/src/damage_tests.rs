//! What may be done to a data directory behind the store's back: what is said of it, and what is lost. The table of
//! `docs/reliability.md` stands on these.

use std::collections::{BTreeSet, HashMap};
use std::sync::Arc;

use vidar_core::ids::FragmentNumber;
use vidar_core::record::FragmentFlags;
use vidar_core::time::UnixMs;

use super::*;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::options::Damage;
use crate::segment_file::header::file_name;
use crate::segment_file::reader;
use crate::testing::{Collector, Opened, media, open, options, read_back, source};
use crate::{Depth, replay_on, verify_on};

const MEDIA_LEN: usize = 70_000;

/// A directory with fragments of two streams in three files, and what they are.
struct Base {
    io: MemoryIo,
    /// In the order of the log, each with the seed of its media.
    entries: Vec<SharedEntry>,
    seeds: HashMap<FragmentNumber, u64>,
    /// Names of the files, in order.
    names: Vec<String>,
    /// An earlier state of the second file.
    earlier: Vec<u8>,
}

/// `closed`: the store was. Otherwise the power failed, and its last file has no footer.
async fn base(closed: bool) -> Base {
    let io = MemoryIo::new();
    let opened = open(&io);
    let store = &opened.store;
    let sources = [source(store).await, source(store).await];
    let (mut seeds, mut earlier) = (HashMap::new(), Vec::new());
    for seed in 0..10 {
        let number = sources[seed as usize % 2].append(store, &media(seed, MEDIA_LEN)).await;
        seeds.insert(number, seed);
        if seed == 5 {
            earlier = bytes_of(&io, &name_of(store, &opened.seen.entry(number).unwrap()));
        }
    }
    let entries = opened.seen.entries();
    let mut names: Vec<String> = entries.iter().map(|entry| name_of(store, entry)).collect();
    names.dedup();
    assert_eq!(names.len(), 3);
    if closed {
        store.close().await.unwrap();
    } else {
        // The list of files may be behind otherwise.
        store.shared().closings.wait();
        io.power_cut(|| true);
    }
    Base { io, entries, seeds, names, earlier }
}

fn name_of(store: &Store, entry: &FragmentEntry) -> String {
    store.shared().files.name(entry.record.file).unwrap()
}

fn bytes_of(io: &MemoryIo, name: &str) -> Vec<u8> {
    let handle = io.open(name).unwrap();
    reader::read(&*handle, 0, handle.len().unwrap() as usize).unwrap()
}

impl Base {
    fn name(&self, entry: usize) -> &str {
        let file = self.entries[entry].record.file.to_string();
        self.names.iter().find(|name| name.contains(&file)).unwrap()
    }

    /// Positions of the entries in a file.
    fn inside(&self, file: usize) -> Vec<usize> {
        (0..self.entries.len()).filter(|entry| self.name(*entry) == self.names[file]).collect()
    }

    /// Bytes of a record.
    fn record(&self, entry: usize) -> Vec<u8> {
        let record = &self.entries[entry].record;
        let handle = self.io.open(self.name(entry)).unwrap();
        reader::read(&*handle, record.offset, record.record_len as usize).unwrap()
    }

    /// Puts bytes where a record stands.
    fn overwrite(&self, io: &MemoryIo, entry: usize, bytes: &[u8]) {
        let at = self.entries[entry].record.offset as usize;
        io.tamper(self.name(entry), |file| file[at..at + bytes.len()].copy_from_slice(bytes));
    }

    /// Which entries are not told, or do not read; what reads is what was written.
    async fn lost(&self, opened: &Opened) -> Vec<usize> {
        let mut lost = Vec::new();
        for (position, entry) in self.entries.iter().enumerate() {
            let Some(told) = opened.seen.entry(entry.meta.number) else {
                lost.push(position);
                continue;
            };
            match opened.store.media(&told, None, 0..MEDIA_LEN as u64).await {
                Ok(bytes) => assert_eq!(bytes, media(self.seeds[&entry.meta.number], MEDIA_LEN)),
                Err(_) => lost.push(position),
            }
        }
        lost
    }
}

/// The same fragments and controls, whoever reads the log.
fn told(seen: &Collector) -> (BTreeSet<FragmentNumber>, BTreeSet<FragmentNumber>) {
    let entries = seen.entries().iter().map(|entry| entry.meta.number).collect();
    (entries, seen.controls().iter().map(|control| control.number).collect())
}

async fn rebuilt_equals_log(io: &MemoryIo, opened: &Opened) {
    opened.store.close().await.unwrap();
    let rebuilt = Arc::new(Collector::default());
    let observer: Arc<dyn LogObserver> = rebuilt.clone();
    replay_on(&options(), Arc::new(io.clone()), std::slice::from_ref(&observer)).unwrap();
    assert_eq!(told(&rebuilt), told(&opened.seen));
    let again = open(io);
    assert_eq!(told(&again.seen), told(&opened.seen));
}

fn says(damage: &[Damage], file: &str, detail: &str) -> bool {
    damage.iter().any(|damage| damage.file == file && damage.detail.contains(detail))
}

/// One thing done to the directory.
struct Case {
    what: &'static str,
    /// The store was closed before.
    closed: bool,
    /// Answers the file to be named.
    change: fn(&Base, &MemoryIo) -> String,
    /// What the report says of it.
    detail: &'static str,
    /// A start notices; otherwise a verification does, and whoever reads.
    at_start: bool,
    lost: fn(&Base) -> Vec<usize>,
}

fn flip(base: &Base, io: &MemoryIo, file: usize, at: impl FnOnce(usize) -> usize) -> String {
    io.tamper(&base.names[file], |bytes| {
        let at = at(bytes.len());
        bytes[at] ^= 0x10;
    });
    base.names[file].clone()
}

fn flip_media(base: &Base, io: &MemoryIo, entry: usize) -> String {
    let at = base.entries[entry].record.offset as usize + 30_000;
    io.tamper(base.name(entry), |bytes| bytes[at] ^= 1);
    base.name(entry).to_owned()
}

fn swap(base: &Base, io: &MemoryIo, entry: usize) -> String {
    let (one, other) = (base.record(entry), base.record(entry + 1));
    base.overwrite(io, entry, &other);
    base.overwrite(io, entry + 1, &one);
    base.name(entry).to_owned()
}

fn last(base: &Base) -> usize {
    base.inside(2)[0]
}

#[rustfmt::skip]
const CASES: &[Case] = &[
    Case { what: "a bit of a header", closed: true, detail: "checksum of the header", at_start: true, lost: |_| vec![],
        change: |base, io| flip(base, io, 1, |_| 30) },
    Case { what: "a header wiped", closed: true, detail: "header of a segment file", at_start: true, lost: |_| vec![],
        change: |base, io| { io.tamper(&base.names[1], |bytes| bytes[..4096].fill(0)); base.names[1].clone() } },
    Case { what: "a header wiped after a crash", closed: false, detail: "header of a segment file", at_start: true, lost: |_| vec![],
        change: |base, io| { io.tamper(&base.names[2], |bytes| bytes[..4096].fill(0)); base.names[2].clone() } },
    Case { what: "a bit of a trailer", closed: true, detail: "it was closed", at_start: true, lost: |_| vec![],
        change: |base, io| flip(base, io, 1, |len| len - 60) },
    Case { what: "a bit of the entries of a footer", closed: true, detail: "footer", at_start: true, lost: |_| vec![],
        change: |base, io| flip(base, io, 1, |len| {
            let data_end = base.entries[base.inside(1)[base.inside(1).len() - 1]].record;
            ((data_end.offset + data_end.record_len).next_multiple_of(4096) as usize + 10).min(len - 200)
        }) },
    Case { what: "a bit of media", closed: true, detail: "tag", at_start: false, lost: |base| vec![base.inside(1)[1]],
        change: |base, io| flip_media(base, io, base.inside(1)[1]) },
    Case { what: "a bit of media after a crash", closed: false, detail: "not what was written", at_start: true, lost: |base| vec![last(base)],
        change: |base, io| flip_media(base, io, last(base)) },
    Case { what: "two records exchanged", closed: true, detail: "another record stands there", at_start: false,
        lost: |base| base.inside(1)[..2].to_vec(), change: |base, io| swap(base, io, base.inside(1)[0]) },
    Case { what: "two records exchanged after a crash", closed: false, detail: "checksum does not match", at_start: true,
        lost: |_| vec![], change: |base, io| swap(base, io, last(base)) },
    Case { what: "a record of another stream in the place of one", closed: true, detail: "another record stands there",
        at_start: false, lost: |base| vec![base.inside(1)[1]],
        change: |base, io| { let at = base.inside(1)[1]; base.overwrite(io, at, &base.record(at - 1)); base.name(at).to_owned() } },
    Case { what: "an earlier record of the stream in the place of one", closed: true, detail: "another record stands there",
        at_start: false, lost: |base| vec![base.inside(1)[0]],
        change: |base, io| { let at = base.inside(1)[0]; base.overwrite(io, at, &base.record(at - 2)); base.name(at).to_owned() } },
    Case { what: "the same after a crash", closed: false, detail: "a copy of another record", at_start: true,
        lost: |base| vec![last(base) + 1],
        change: |base, io| { let at = last(base) + 1; base.overwrite(io, at, &base.record(at - 1)); base.name(at).to_owned() } },
    Case { what: "an earlier state of a file put back", closed: true, detail: "an older state of it stands", at_start: true,
        lost: |base| base.inside(1).into_iter().filter(|entry| *entry > 5).collect(),
        change: |base, io| { io.put(&base.names[1], &base.earlier); base.names[1].clone() } },
    Case { what: "a file deleted", closed: true, detail: "the file is missing", at_start: true, lost: |base| base.inside(1),
        change: |base, io| { io.unlink(&base.names[1]).unwrap(); base.names[1].clone() } },
    Case { what: "the last file deleted", closed: true, detail: "the file is missing", at_start: true, lost: |base| base.inside(2),
        change: |base, io| { io.unlink(&base.names[2]).unwrap(); base.names[2].clone() } },
    Case { what: "the last file deleted after a crash", closed: false, detail: "the file is missing", at_start: true,
        lost: |base| base.inside(2), change: |base, io| { io.unlink(&base.names[2]).unwrap(); base.names[2].clone() } },
    Case { what: "a file under a second name", closed: true, detail: "it is a copy of", at_start: true, lost: |_| vec![],
        change: |base, io| { let name = file_name(1, FileId::new()); io.put(&name, &bytes_of(io, &base.names[1])); name } },
    Case { what: "a file in the place of another", closed: true, detail: "it is a copy of", at_start: true, lost: |base| base.inside(2),
        change: |base, io| { io.put(&base.names[2], &bytes_of(io, &base.names[1])); base.names[2].clone() } },
    Case { what: "a file emptied", closed: true, detail: "header of a segment file", at_start: true, lost: |base| base.inside(1),
        change: |base, io| { io.put(&base.names[1], &[]); base.names[1].clone() } },
    Case { what: "strange bytes under the name of a file", closed: true, detail: "no batch of it is found", at_start: true, lost: |_| vec![],
        change: |_, io| { let name = file_name(1, FileId::new()); io.put(&name, &media(99, 20_000)); name } },
    Case { what: "the list of files altered", closed: true, detail: "list of files", at_start: true, lost: |_| vec![],
        change: |_, io| { io.tamper("files", |bytes| bytes[50] ^= 1); "files".into() } },
];

#[tokio::test]
async fn whatever_is_done_to_a_directory_is_named_and_contained() {
    let bases = [base(false).await, base(true).await];
    for Case { what, closed, change, detail, at_start, lost } in CASES {
        let base = &bases[usize::from(*closed)];
        let image = base.io.image();
        let file = change(base, &image);
        let verified = verify_on(&options(), Arc::new(image.clone()), Depth::Decrypt, &mut |_| {}).unwrap();
        assert!(says(&verified.damage, &file, detail), "{what}: {:?}", verified.damage);
        // A file that was made ahead may go.
        let known = |name: &String| base.names.contains(name) || *name == file;
        let names: BTreeSet<_> = image.list().unwrap().into_iter().filter(known).collect();
        let opened = open(&image);
        assert_eq!(says(&opened.report.damage, &file, detail), *at_start, "{what}: {:?}", opened.report.damage);
        assert_eq!(base.lost(&opened).await, lost(base), "{what}");
        assert!(names.is_subset(&image.list().unwrap().into_iter().collect()), "{what}: nothing is removed");
        rebuilt_equals_log(&image, &opened).await;
    }
    for base in bases {
        let verified = verify_on(&options(), Arc::new(base.io.clone()), Depth::Decrypt, &mut |_| {}).unwrap();
        assert_eq!(verified.damage, [], "what is not touched is not damaged");
        let opened = open(&base.io);
        assert_eq!((base.lost(&opened).await, opened.report.damage.len()), (vec![], 0));
    }
}

#[tokio::test]
async fn a_file_of_another_store_is_named_and_left_alone() {
    let (base, other) = (base(true).await, base(true).await);
    base.io.put(&other.names[1], &bytes_of(&other.io, &other.names[1]));
    let before = bytes_of(&base.io, &other.names[1]);
    let opened = open(&base.io);
    assert!(says(&opened.report.damage, &other.names[1], "another store"));
    assert_eq!(base.lost(&opened).await, []);
    assert_eq!(bytes_of(&base.io, &other.names[1]), before);
    rebuilt_equals_log(&base.io, &opened).await;
}

#[tokio::test]
async fn a_file_cut_anywhere_keeps_all_before_the_cut_and_is_named() {
    let base = base(true).await;
    let (name, full) = (&base.names[1], bytes_of(&base.io, &base.names[1]));
    let inside = base.inside(1);
    let mut state = 7_u64;
    let mut any = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as usize % full.len()
    };
    let random: Vec<usize> = (0..24).map(|_| any()).collect();
    for cut in (0..full.len()).step_by(4096).chain(random) {
        let image = base.io.image();
        image.put(name, &full[..cut]);
        let opened = open(&image);
        assert!(opened.report.damage.iter().any(|damage| damage.file == *name), "cut at {cut}");
        let whole = |entry: &usize| {
            let record = &base.entries[*entry].record;
            cut >= 4096 && record.offset + record.record_len <= cut as u64
        };
        let expected: Vec<usize> = inside.iter().filter(|entry| !whole(entry)).copied().collect();
        assert_eq!(base.lost(&opened).await, expected, "cut at {cut}");
        rebuilt_equals_log(&image, &opened).await;
    }
}

#[tokio::test]
async fn a_missing_file_is_missed_until_it_is_back() {
    let base = base(true).await;
    let content = bytes_of(&base.io, &base.names[1]);
    base.io.unlink(&base.names[1]).unwrap();
    for _ in 0..2 {
        let opened = open(&base.io);
        assert!(says(&opened.report.damage, &base.names[1], "the file is missing"));
        opened.store.close().await.unwrap();
    }
    base.io.put(&base.names[1], &content);
    let opened = open(&base.io);
    assert_eq!((opened.report.damage.len(), base.lost(&opened).await), (0, vec![]));
}

#[tokio::test]
async fn files_that_retention_removed_are_not_missed() {
    let base = base(true).await;
    let opened = open(&base.io);
    for stream in [base.entries[0].meta.stream, base.entries[1].meta.stream] {
        let below = base.entries[9].meta.number;
        let gone = base.entries[..9].iter().filter(|entry| entry.meta.stream == stream).cloned().collect();
        opened.store.expire(stream, below, 0, 0, gone).await.unwrap();
    }
    assert!(!base.io.list().unwrap().contains(&base.names[0]));
    base.io.power_cut(|| true);
    assert_eq!(open(&base.io).report.damage, []);
}

#[tokio::test]
async fn a_fragment_that_is_closed_anywhere_is_not_closed_again() {
    for with_list in [true, false] {
        let io = MemoryIo::new();
        let opened = open(&io);
        let (store, from) = (&opened.store, source(&opened.store).await);
        let number = store.next_number(UnixMs(5));
        from.append(store, &media(1, 200_000)).await;
        from.append(store, &media(1, 200_000)).await;
        store.append(from.part(number, 0, &media(2, MEDIA_LEN))).await.unwrap();
        from.append(store, &media(1, 300_000)).await;
        store.append(from.close(number, 1, MEDIA_LEN as u64, &media(3, 10))).await.unwrap();
        let entry = opened.seen.entry(number).unwrap();
        assert_ne!(entry.parts[0].file, entry.record.file);
        for file in [entry.parts[0].file, entry.record.file] {
            let image = io.image();
            image.tamper(&store.shared().files.name(file).unwrap(), |bytes| bytes[..4096].fill(0));
            if !with_list {
                image.remove_small("files");
            }
            let again = open(&image);
            assert_eq!(again.report.incomplete, 0);
            let told = again.seen.entry(number).unwrap();
            assert_eq!(told.parts, entry.parts);
            assert!(!told.meta.flags.contains(FragmentFlags::INCOMPLETE));
            let expected = [media(2, MEDIA_LEN), media(3, 10)].concat();
            assert_eq!(read_back(&again.store, &told).await, expected);
        }
    }
}

#[tokio::test]
async fn records_whose_keys_were_missing_are_back_with_the_right_keyring() {
    let base = base(false).await;
    let late = open(&base.io);
    let before: Vec<_> = ["keyring.a", "keyring.b"].map(|name| base.io.read_small(name).unwrap().unwrap()).into();
    let from = source(&late.store).await;
    let number = from.append(&late.store, &media(42, MEDIA_LEN)).await;
    let entry = late.seen.entry(number).unwrap();
    base.io.power_cut(|| true);
    let right: Vec<_> = ["keyring.a", "keyring.b"].map(|name| base.io.read_small(name).unwrap().unwrap()).into();
    let put = |bytes: &[Vec<u8>]| {
        base.io.tamper("keyring.a", |file| file.clone_from(&bytes[0]));
        base.io.tamper("keyring.b", |file| file.clone_from(&bytes[1]));
    };
    put(&before);
    let without = open(&base.io);
    assert!(without.seen.entry(number).is_none());
    assert_eq!(without.report.damage.len(), 1, "{:?}", without.report.damage);
    without.store.close().await.unwrap();
    put(&right);
    let again = open(&base.io);
    assert_eq!((again.report.damage.len(), again.seen.entry(number).unwrap()), (0, entry.clone()));
    assert_eq!(read_back(&again.store, &entry).await, media(42, MEDIA_LEN));
}

#[tokio::test]
async fn a_disk_that_turns_read_only_refuses_what_comes_and_gives_what_there_is() {
    let memory = MemoryIo::new();
    let io = FaultyIo::new(Arc::new(memory.clone()));
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = from.append(store, &media(1, MEDIA_LEN)).await;
    let entry = opened.seen.entry(number).unwrap();
    let error = std::io::ErrorKind::ReadOnlyFilesystem;
    for op in [Op::Write, Op::Sync, Op::Create, Op::Truncate, Op::Replace, Op::Append] {
        io.fail(Fault { op, after: 0, times: 100, error, torn_bytes: 0 });
    }
    let refused = from.fragment(store.next_number(UnixMs(5)), &media(2, 100));
    assert!(store.append(refused).await.is_err());
    assert_eq!(read_back(store, &entry).await, media(1, MEDIA_LEN));
    memory.power_cut(|| true);
    let clock = vidar_core::clock::ManualClock::new(UnixMs(0));
    let start = Store::open(options(), Arc::new(io), clock, Vec::new());
    assert!(matches!(start.err().unwrap(), OpenError::Io { .. }), "and no server starts on it");
    let again = open(&memory);
    assert_eq!((again.report.fragments, again.report.damage.len()), (1, 0));
    assert_eq!(read_back(&again.store, &entry).await, media(1, MEDIA_LEN));
}
