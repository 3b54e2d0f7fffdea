//! Tests of what operators do with keys: through the store, crashes and absent providers.

use std::collections::{BTreeMap, HashSet};
use std::io::ErrorKind;
use std::time::Duration;

use proptest::prelude::*;
use vidar_core::ids::FragmentNumber;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::UnixMs;

use super::*;
use crate::backend::SegmentIo;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::crypto::kek::{KekError, KeyFile};
use crate::crypto::keys::Secret;
use crate::segment_file::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind};
use crate::testing::{FixedKek, Opened, Source, config, media, open, open_with, options, read_back, source};
use crate::{Depth, OpenError, StoreOptions, verify_on};

const COPIES: [&str; 2] = ["keyring.a", "keyring.b"];

fn with_kek(kek: Arc<dyn KekProvider>) -> StoreOptions {
    StoreOptions { kek, ..options() }
}

/// A second disk with the same bytes, but for the keyring: that is `keyring_of`'s.
fn media_of(disk: &MemoryIo, keyring_of: &MemoryIo) -> MemoryIo {
    let copy = disk.image();
    for name in COPIES {
        let ring = keyring_of.read_small(name).unwrap().unwrap();
        copy.replace_small(name, &ring).unwrap();
    }
    copy
}

/// Headers of all records in all segment files.
fn headers(io: &MemoryIo) -> Vec<RecordHeader> {
    let mut found = Vec::new();
    for name in io.list().unwrap() {
        let file = io.open(&name).unwrap();
        let mut bytes = vec![0; file.len().unwrap() as usize];
        file.read_at(0, &mut bytes).unwrap();
        let at = (0..bytes.len().saturating_sub(RECORD_HEADER_LEN)).step_by(8);
        found.extend(at.filter_map(|at| RecordHeader::decode(&bytes[at..at + RECORD_HEADER_LEN]).ok()));
    }
    found
}

/// Everything that was appended reads.
async fn assert_reads(opened: &Opened, numbers: &[FragmentNumber]) {
    assert_eq!(opened.report.damage, []);
    for (seed, number) in numbers.iter().enumerate() {
        let entry = opened.seen.entry(*number).unwrap();
        assert_eq!(read_back(&opened.store, &entry).await, media(seed as u64, 60_000));
        assert_eq!(*opened.store.config(&entry).await.unwrap(), config("one"));
    }
}

#[tokio::test]
async fn after_a_rotation_of_a_stream_the_new_key_seals_and_both_open() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (from, other) = (source(&opened.store).await, source(&opened.store).await);
    let mut numbers = Vec::new();
    for seed in 0..14 {
        if matches!(seed, 3 | 7) {
            let version = opened.store.rotate_stream_keys(&[from.stream]).await.unwrap();
            assert_eq!(version, [(from.stream, if seed == 3 { 2 } else { 3 })]);
            // The name of a config stays: runs that go on refer to it, and players see no change.
            assert_eq!(opened.store.put_config(from.stream, &config("one")).await.unwrap(), from.config);
        }
        numbers.push(from.append(&opened.store, &media(seed, 60_000)).await);
    }
    assert_reads(&opened, &numbers).await;
    let keys = opened.store.keys();
    let of_stream = keys.iter().filter(|key| key.stream == Some(from.stream));
    assert_eq!(
        of_stream.map(|key| (key.version, key.current)).collect::<Vec<_>>(),
        [(1, false), (2, false), (3, true)]
    );
    assert!(keys.iter().any(|key| key.stream == Some(other.stream) && key.current && key.version == 1));

    // A crash, a start, a clean stop and a start: files with and without footers, of all versions.
    io.power_cut(|| false);
    let again = open(&io);
    assert_reads(&again, &numbers).await;
    assert_eq!(again.store.put_config(from.stream, &config("one")).await.unwrap(), from.config);
    numbers.push(from.append(&again.store, &media(14, 60_000)).await);
    again.store.close().await.unwrap();
    let again = open(&io);
    assert_reads(&again, &numbers).await;
    let noted = again.seen.controls();
    let noted = noted.iter().filter_map(|record| match &record.body {
        Control::Key { stream, version, event } => Some((*stream, *version, event.as_str())),
        _ => None,
    });
    assert_eq!(noted.collect::<Vec<_>>(), [(Some(from.stream), 2, "rotated"), (Some(from.stream), 3, "rotated")]);

    for header in headers(&io) {
        let place = numbers.iter().position(|number| *number == header.shape.meta.number);
        if let (RecordKind::Fragment, Some(place)) = (header.shape.kind, place) {
            let version = if place < 3 {
                1
            } else if place < 7 {
                2
            } else {
                3
            };
            assert_eq!(header.shape.key_version, version, "fragment {place}");
        }
    }
    let configs: HashSet<_> =
        headers(&io).iter().filter(|h| h.shape.kind == RecordKind::Config).map(|h| h.shape.key_version).collect();
    assert!(configs.len() >= 2, "a config is sealed under the key of its day: {configs:?}");

    again.store.delete_stream(from.stream, UnixMs(9), again.seen.entries()).await.unwrap();
    assert!(again.store.keys().iter().all(|key| key.stream != Some(from.stream)), "all versions are gone");
    again.store.close().await.unwrap();
    assert_eq!(verify_on(&options(), Arc::new(io), Depth::Decrypt, &mut |_| {}).unwrap().damage, []);
}

#[tokio::test]
async fn rotating_the_key_file_survives_a_crash_in_every_step() {
    // The keyring is replaced by two writes: before, between and after them.
    for step in 0..=2 {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key");
        let options = with_kek(Arc::new(KeyFile::new(&path)));
        let memory = MemoryIo::new();
        let io = FaultyIo::new(Arc::new(memory.clone()));
        let opened = open_with(options.clone(), &io);
        let from = source(&opened.store).await;
        let number = from.append(&opened.store, &media(0, 60_000)).await;
        let old = std::fs::read(&path).unwrap();
        if step < 2 {
            io.fail(Fault { op: Op::Replace, after: step, times: 1, error: ErrorKind::Other, torn_bytes: 0 });
            assert!(matches!(opened.store.rotate_kek(None).await, Err(RotateError::Sink(_))));
            assert!(folder.path().join("key.new").exists());
        } else {
            opened.store.rotate_kek(None).await.unwrap();
            // As it was before the last step: the new key beside the old one.
            std::fs::rename(&path, folder.path().join("key.new")).unwrap();
            std::fs::write(&path, &old).unwrap();
        }
        assert_eq!(std::fs::read(&path).unwrap(), old, "the old key stands until the keyring needs it no more");
        let crashed = memory.image();
        let again = open_with(options.clone(), &crashed);
        assert_reads(&again, &[number]).await;
        again.store.close().await.unwrap();
        assert!(!folder.path().join("key.new").exists(), "settled");
        assert_eq!(std::fs::read(&path).unwrap() == old, step == 0);
        drop(again);
        let again = open_with(options.clone(), &crashed);
        assert!(!again.report.keyring_repaired);
        assert_reads(&again, &[number]).await;
        // Rotating goes on as if nothing had been.
        again.store.rotate_kek(None).await.unwrap();
        again.store.close().await.unwrap();
        assert_reads(&open_with(options, &crashed), &[number]).await;
        std::fs::write(&path, old).unwrap();
        let closed =
            Store::open(with_kek(Arc::new(KeyFile::new(&path))), Arc::new(crashed.image()), again.clock, vec![]);
        assert!(matches!(closed, Err(OpenError::KekWrong { .. })), "the old key opens nothing");
    }
}

#[tokio::test]
async fn a_keyring_goes_to_another_provider_and_the_old_one_opens_it_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let (old, new) = (Arc::new(KeyFile::new(folder.path().join("a"))), Arc::new(FixedKek::remote()));
    let io = MemoryIo::new();
    let opened = open_with(with_kek(old.clone()), &io);
    let from = source(&opened.store).await;
    let number = from.append(&opened.store, &media(0, 60_000)).await;
    opened.store.rotate_kek(Some(new.clone())).await.unwrap();
    let late = source(&opened.store).await;
    opened.store.delete_stream(late.stream, UnixMs(1), vec![]).await.unwrap();
    opened.store.close().await.unwrap();
    assert!(io.read_small(COPIES[0]).unwrap().unwrap()[23] == 1, "an older reader refuses a wrap that it cannot read");
    let clock = opened.clock.clone();
    let refused = Store::open(with_kek(old), Arc::new(io.image()), clock, vec![]);
    assert!(matches!(refused, Err(OpenError::KekWrong { .. })));
    assert_reads(&open_with(with_kek(new), &io), &[number]).await;
}

#[tokio::test]
async fn a_deleted_stream_is_opened_by_nothing_but_the_old_keyring_with_its_key() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("key");
    let options = with_kek(Arc::new(KeyFile::new(&path)));
    let io = MemoryIo::new();
    let opened = open_with(options.clone(), &io);
    let (gone, kept) = (source(&opened.store).await, source(&opened.store).await);
    let media_gone = gone.append(&opened.store, &media(0, 60_000)).await;
    let media_kept = kept.append(&opened.store, &media(1, 60_000)).await;
    let backup = io.image();
    opened.store.delete_stream(gone.stream, UnixMs(9), opened.seen.entries()).await.unwrap();

    // The media only, with today's keyring: the stream's record, its controls and the other stream open; it does not.
    let media_only = media_of(&backup, &io);
    let stolen = open_with(options.clone(), &media_only);
    assert!(stolen.seen.entry(media_kept).is_some());
    assert!(stolen.seen.entry(media_gone).is_none() && stolen.seen.facts(media_gone).is_none(), "nothing opens it");
    let known = opened.seen.entry(media_gone).unwrap();
    let refused = stolen.store.head(&known).await;
    assert!(matches!(refused, Err(ReadError::KeyUnavailable { .. })), "not even if its place is known: {refused:?}");
    let there = headers(&media_only).iter().any(|header| header.shape.meta.number == media_gone);
    assert!(there, "the sealed bytes are all there");
    // The whole of the old disk, with the key: as before.
    let whole = open_with(options.clone(), &backup.image());
    assert_eq!(read_back(&whole.store, &whole.seen.entry(media_gone).unwrap()).await, media(0, 60_000));
    // And not after the key was rotated, and the old one destroyed.
    opened.store.rotate_kek(None).await.unwrap();
    let closed = Store::open(options, Arc::new(backup), whole.clock, vec![]);
    assert!(matches!(closed, Err(OpenError::KekWrong { .. })));
}

#[tokio::test]
#[allow(clippy::await_holding_lock)] // threads of the provider wait for it, and nothing here
async fn while_the_provider_hangs_or_fails_all_goes_on_that_does_not_need_it() {
    let kek = Arc::new(FixedKek::remote());
    let options = StoreOptions { kek_timeout: Duration::from_millis(50), ..with_kek(kek.clone()) };
    let io = MemoryIo::new();
    let opened = open_with(options, &io);
    let store = &opened.store;
    let from = source(store).await;
    let number = from.append(store, &media(0, 60_000)).await;
    let refused = |result: Result<(), SinkError>| {
        assert!(
            matches!(&result, Err(SinkError::NoKey { detail, .. }) if detail.contains("does not answer")),
            "{result:?}"
        );
    };
    {
        let _hangs = kek.hang.lock().unwrap();
        // More than may hang at the same time: later ones are refused at once.
        for _ in 0..6 {
            refused(store.delete_stream(from.stream, UnixMs(9), vec![]).await);
        }
        let another = source(store).await;
        another.append(store, &media(1, 100)).await;
        store.rotate_stream_keys(&[from.stream]).await.unwrap();
        from.append(store, &media(2, 100)).await;
        assert_reads(&opened, &[number]).await;
    }
    // The hanging calls end by themselves.
    let before = kek.calls.load(std::sync::atomic::Ordering::Relaxed);
    assert!(before <= 2 + 1 + 4, "{before} calls");
    kek.down.store(u32::MAX, std::sync::atomic::Ordering::Relaxed);
    refused(store.delete_stream(from.stream, UnixMs(9), vec![]).await);
    assert!(matches!(store.rotate_kek(None).await, Err(RotateError::Kek(KekError::Unavailable { .. }))));
    assert_reads(&opened, &[number]).await;
    kek.down.store(0, std::sync::atomic::Ordering::Relaxed);
    while store.delete_stream(from.stream, UnixMs(9), vec![]).await.is_err() {}
    assert!(store.keys().iter().all(|key| key.stream != Some(from.stream)));
}

#[tokio::test]
async fn at_start_a_provider_that_is_down_is_asked_again_for_a_while() {
    let kek = Arc::new(FixedKek::remote());
    let io = MemoryIo::new();
    open_with(with_kek(kek.clone()), &io).store.close().await.unwrap();
    kek.down.store(2, std::sync::atomic::Ordering::Relaxed);
    open_with(with_kek(kek.clone()), &io).store.close().await.unwrap();
    kek.down.store(u32::MAX, std::sync::atomic::Ordering::Relaxed);
    let impatient = StoreOptions { kek_patience: Duration::from_millis(1), ..with_kek(kek) };
    let before = COPIES.map(|name| io.read_small(name).unwrap());
    let clock = vidar_core::clock::SystemClock::shared();
    let refused = Store::open(impatient, Arc::new(io.clone()), clock, vec![]);
    assert!(matches!(refused, Err(OpenError::Kek(KekError::Unavailable { .. }))));
    assert_eq!(COPIES.map(|name| io.read_small(name).unwrap()), before, "nothing was changed");
}

/// What happens to one of several disks.
#[derive(Debug, Clone, Copy)]
enum Step {
    Append,
    Crash {
        keep: bool,
    },
    Restart,
    /// The disk is copied while in use; both go on.
    Clone,
    /// Another disk's turn.
    Next,
    Rotate,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let crash = any::<bool>().prop_map(|keep| Step::Crash { keep });
    let step = prop_oneof![6 => Just(Step::Append), 1 => crash, 1 => Just(Step::Restart), 1 => Just(Step::Clone),
        3 => Just(Step::Next), 1 => Just(Step::Rotate)];
    proptest::collection::vec(step, 1..40)
}

/// All records ever written, over all disks: each with a salt of its own, so each with a key of its own.
async fn never_the_same_key_twice(steps: Vec<Step>) {
    let first = MemoryIo::new();
    let opened = open(&first);
    let from: Source = source(&opened.store).await;
    let (mut disks, mut turn) = (vec![(first, Some(opened))], 0);
    let (mut numbers, mut given) = (HashSet::new(), 0);
    let mut by_salt: BTreeMap<[u8; 32], RecordHeader> = BTreeMap::new();
    for (seed, step) in steps.into_iter().enumerate() {
        let count = disks.len();
        let (io, slot) = &mut disks[turn];
        let opened = slot.as_ref().unwrap();
        match step {
            Step::Append => {
                // As each connection does: a start forgets what was put before.
                opened.store.put_config(from.stream, &config("one")).await.unwrap();
                // Media that differs: a key used twice would show.
                numbers.insert(from.append(&opened.store, &media(seed as u64 + 1, 300)).await);
                given += 1;
            }
            Step::Rotate => {
                opened.store.rotate_stream_keys(&[from.stream]).await.unwrap();
            }
            Step::Crash { keep } => {
                let crashed = io.image();
                crashed.power_cut(|| keep);
                *slot = Some(open(&crashed));
                *io = crashed;
            }
            Step::Restart => {
                opened.store.close().await.unwrap();
                *slot = Some(open(io));
            }
            Step::Clone if count < 4 => {
                let copy = io.image();
                let opened = open(&copy);
                disks.push((copy, Some(opened)));
            }
            Step::Clone => {}
            Step::Next => turn = (turn + 1) % count,
        }
        for header in disks.iter().flat_map(|(io, _)| headers(io)) {
            let known = by_salt.entry(header.salt).or_insert(header);
            assert_eq!(*known, header, "one salt, two records");
        }
    }
    assert_eq!(numbers.len(), given, "a number was given twice");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn no_key_is_used_twice_over_crashes_restarts_and_clones(steps in steps()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(never_the_same_key_twice(steps));
    }
}

#[test]
fn nothing_that_holds_keys_shows_them() {
    let secret = Secret::new([0xAB; 32]);
    let ring = crate::crypto::keyring::Keyring::create(&secret);
    let shown = format!("{secret:?} {ring:?} {:?} {:?}", options(), ring.list());
    for bytes in [secret.bytes(), ring.log_key().bytes(), ring.index_key().bytes()] {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let list = format!("{bytes:?}");
        assert!(!shown.to_lowercase().contains(&hex) && !shown.contains(list.trim_matches(['[', ']'])), "{shown}");
    }
}
