//! Tests of the store module.

use std::future::poll_fn;
use std::io::ErrorKind;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;

use bytes::Bytes;
use vidar_core::control::{Control, ControlRecord, GapCause, GapRecord};
use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{ConfigId, FragmentNumber, StreamId};
use vidar_core::record::FragmentFlags;
use vidar_core::sample::Tag;
use vidar_core::sink::SinkError;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::UnixMs;

use super::*;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::fs::FsIo;
use crate::backend::memory::MemoryIo;
use crate::segment_file::reader;
use crate::testing::{PLAIN_WORD, config, drive, media, open, open_with, options, read_back, source};
use crate::told::{Step, Told};
use crate::{Depth, DiskMarks, Space, replay_on, verify_on};

fn verified(io: &MemoryIo, depth: Depth) -> crate::VerifyReport {
    verify_on(&options(), Arc::new(io.clone()), depth, &mut |_| {}).unwrap()
}

#[tokio::test]
async fn what_was_appended_reads_back_exactly_before_and_after_a_restart() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let mut numbers = Vec::new();
    for len in [0, 1, 5_000, 65_536, 200_000, 3] {
        numbers.push((from.append(&opened.store, &media(len as u64, len)).await, media(len as u64, len)));
    }
    let live = opened.seen.entries();
    for (number, media) in &numbers {
        let entry = opened.seen.entry(*number).expect("visible before it is answered");
        assert_eq!(read_back(&opened.store, &entry).await, media);
        assert_eq!(*opened.store.config(&entry).await.unwrap(), config("one"));
    }
    opened.store.close().await.unwrap();
    assert!(matches!(opened.store.control(key_event(1)).await, Err(SinkError::Closed)));

    let again = open(&io);
    assert_eq!((again.report.fragments, again.report.unclosed, again.report.epoch), (6, 0, 2));
    assert_eq!(again.report.damage, []);
    assert_eq!(again.seen.entries(), live, "replay tells what was told live");
    for (number, media) in &numbers {
        let entry = again.seen.entry(*number).unwrap();
        assert_eq!(read_back(&again.store, &entry).await, media);
        assert_eq!(again.store.media(&entry, None, 1.min(media.len() as u64)..media.len() as u64).await.unwrap(), {
            media.slice(1.min(media.len())..)
        });
        assert_eq!(again.seen.facts(*number), opened.seen.facts(*number));
        assert_eq!(*again.store.config(&entry).await.unwrap(), config("one"));
    }
    assert_eq!(again.seen.words()[..2], ["stream", "run"]);
}

fn key_event(version: u32) -> Control {
    Control::Key { stream: None, version, event: "rotated".into() }
}

#[tokio::test]
async fn nothing_stands_in_clear() {
    let dir = tempfile::tempdir().unwrap();
    let data_dir = dir.path().join("data");
    let mut options = options();
    options.data_dir.clone_from(&data_dir);
    options.kek = StoreOptions::new(&data_dir).kek;
    let opened = open_with(options, &FsIo::new(&data_dir));
    let from = source(&opened.store).await;
    from.append(&opened.store, &Bytes::from(PLAIN_WORD.repeat(5000))).await;
    opened.store.close().await.unwrap();
    let mut files = 0;
    for entry in std::fs::read_dir(data_dir.join("segments")).unwrap().chain(std::fs::read_dir(&data_dir).unwrap()) {
        let path = entry.unwrap().path();
        if path.is_file() {
            files += 1;
            let bytes = std::fs::read(&path).unwrap();
            for word in [PLAIN_WORD, b"cam-1", b"h264"] {
                assert!(!bytes.windows(word.len()).any(|window| window == word), "{}", path.display());
            }
        }
    }
    assert!(files >= 5, "lock, epoch, two keyrings, a segment file");
    assert!(dir.path().join("data.key").is_file());
}

#[tokio::test]
async fn answers_come_in_the_order_of_the_log_and_one_sync_serves_many() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let before = opened.store.stats();
    let appends: Vec<_> = (0..50)
        .map(|i| {
            let fragment = from.fragment(opened.store.next_number(UnixMs(5)), &media(i, 100));
            let store = opened.store.clone();
            async move { store.append(fragment).await.unwrap().number }
        })
        .collect();
    let mut order = Vec::new();
    let mut set = tokio::task::JoinSet::new();
    for append in appends {
        set.spawn(append);
    }
    while let Some(number) = set.join_next().await {
        order.push(number.unwrap());
    }
    let log: Vec<_> = opened.seen.entries().iter().map(|entry| entry.meta.number).collect();
    assert_eq!(order.len(), 50);
    assert_eq!(log.len(), 50);
    let stats = opened.store.stats();
    let syncs = stats.sync_times_us.count() - before.sync_times_us.count();
    assert!(syncs <= 51 && stats.records - before.records >= 50, "{stats:?}");
}

#[tokio::test]
async fn every_byte_that_is_written_is_counted() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    for i in 0..12 {
        from.append(&opened.store, &media(i, 100_000)).await;
    }
    opened.store.close().await.unwrap();
    let stats = opened.store.stats();
    // Of closed files every byte was written, and the trailer's block is the only one that may be written twice.
    let files: u64 = io.list().unwrap().iter().map(|name| io.open(name).unwrap().len().unwrap()).sum();
    assert!(files > stats.batch_bytes.sum + stats.files * 8192, "headers and footers");
    assert!(stats.bytes > files && stats.bytes < files + 32_000, "{stats:?}, {files} in files");
    assert!(stats.batch_bytes.count() >= 12 && stats.batch_times_us.count() >= stats.batch_bytes.count());
    assert!(stats.write_times_us.count() > stats.batch_bytes.count());
}

#[tokio::test]
async fn a_config_stands_in_every_file_that_uses_it() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    for i in 0..12 {
        from.append(&opened.store, &media(i, 100_000)).await;
    }
    let files: HashSet<_> = opened.seen.entries().iter().map(|entry| entry.record.file).collect();
    assert!(files.len() >= 3, "{}", files.len());
    opened.store.close().await.unwrap();
    let again = open(&io);
    // Each file alone: nothing is cached before the first.
    for entry in again.seen.entries() {
        again.store.inner.caches.forget(from.stream);
        assert_eq!(*again.store.config(&entry).await.unwrap(), config("one"));
    }
    // A config that was put before the restart is known from the files, one that never was is refused.
    let other = FragmentEntry { record: again.seen.entries()[0].record, ..(*again.seen.entries()[0]).clone() };
    let mut bad = other.clone();
    bad.meta.config = ConfigId([1; 16]);
    assert!(again.store.config(&bad).await.is_err());
    let mut fragment = from.fragment(again.store.next_number(UnixMs(1)), &media(1, 10));
    fragment.meta.config = ConfigId([1; 16]);
    assert!(matches!(again.store.append(fragment).await, Err(SinkError::Failed { .. })));
}

#[tokio::test]
async fn config_ids_depend_on_the_stream() {
    let opened = open(&MemoryIo::new());
    let (a, b) = (source(&opened.store).await, source(&opened.store).await);
    assert_ne!(a.config, b.config, "equal configs do not show that streams are alike");
    assert_eq!(opened.store.put_config(a.stream, &config("one")).await.unwrap(), a.config);
    assert_ne!(opened.store.put_config(a.stream, &config("two")).await.unwrap(), a.config);
    let unknown = StreamId::new();
    let refused = opened.store.put_config(unknown, &config("one")).await;
    assert!(matches!(refused, Err(SinkError::NoSuchStream { stream }) if stream == unknown));
}

#[tokio::test]
async fn parts_become_visible_with_the_record_that_closes_them_wherever_they_lie() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = store.next_number(UnixMs(5));
    let mut expected = Vec::new();
    for index in 0..3 {
        store.append(from.part(number, index, &media(index.into(), 70_000))).await.unwrap();
        expected.extend(media(index.into(), 70_000));
        // Others fill the file in between.
        from.append(store, &media(9, 200_000)).await;
        assert!(opened.seen.entry(number).is_none());
    }
    store.append(from.close(number, 3, 70_000, &media(7, 1000))).await.unwrap();
    expected.extend(media(7, 1000));
    let entry = opened.seen.entry(number).unwrap();
    let files: HashSet<_> = entry.parts.iter().chain([&entry.record]).map(|record| record.file).collect();
    assert!(files.len() >= 3);
    assert_eq!(read_back(store, &entry).await, expected);
    store.close().await.unwrap();
    let again = open(&io);
    assert_eq!(again.seen.entry(number).unwrap(), entry);
    assert_eq!(read_back(&again.store, &entry).await, expected);
    assert_eq!((again.report.incomplete, again.report.fragments), (0, 4));
}

#[tokio::test]
async fn a_close_without_its_parts_is_refused() {
    let opened = open(&MemoryIo::new());
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = store.next_number(UnixMs(5));
    store.append(from.part(number, 0, &media(1, 10))).await.unwrap();
    let refused = store.append(from.close(number, 2, 10, &Bytes::new())).await;
    assert!(matches!(refused, Err(SinkError::Failed { detail }) if detail.contains("part 1")));
    store.append(from.close(number, 1, 10, &Bytes::new())).await.unwrap();
    assert_eq!(read_back(store, &opened.seen.entry(number).unwrap()).await, media(1, 10));
}

#[tokio::test]
async fn a_fragment_of_an_unknown_stream_or_beyond_the_bounds_is_refused() {
    let opened = open(&MemoryIo::new());
    let (store, mut from) = (&opened.store, source(&opened.store).await);
    let number = store.next_number(UnixMs(5));
    let mut long = from.fragment(number, &media(1, 1));
    long.table.pieces[0].table = Bytes::from(vec![0; (64 << 20) + 1]);
    assert!(matches!(store.append(long).await, Err(SinkError::Failed { .. })));
    from.stream = StreamId::new();
    let refused = store.append(from.fragment(number, &media(1, 1))).await;
    assert!(matches!(refused, Err(SinkError::NoSuchStream { stream }) if stream == from.stream));
}

#[tokio::test]
async fn two_servers_on_one_directory_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let mut options = options();
    options.data_dir = dir.path().join("data");
    let io = FsIo::new(&options.data_dir);
    let first = open_with(options.clone(), &io);
    let (clock, io) = (first.clock.clone(), Arc::new(io));
    let second = Store::open(options.clone(), io.clone(), clock.clone(), Vec::new());
    assert!(matches!(second, Err(OpenError::Locked { .. })));
    assert!(matches!(verify_on(&options, io.clone(), Depth::Presence, &mut |_| {}), Err(OpenError::Locked { .. })));
    first.store.close().await.unwrap();
    first.store.close().await.expect("a second close does nothing");
    assert!(Store::open(options, io, clock, Vec::new()).is_ok());
}

#[tokio::test]
async fn numbers_and_epochs_only_grow() {
    let io = MemoryIo::new();
    let mut last = FragmentNumber::MIN;
    for epoch in 1..4 {
        let opened = open(&io);
        assert_eq!(opened.report.epoch, epoch);
        for _ in 0..10 {
            // Whatever the clock says.
            let next = opened.store.next_number(UnixMs(1000 - i64::from(epoch)));
            assert!(next > last && next.sequence() >> 32 == u64::from(epoch));
            last = next;
        }
        opened.store.control(key_event(epoch)).await.unwrap();
        opened.store.close().await.unwrap();
    }
    // The epoch file is lost: the names of the files still know.
    io.remove_small("epoch");
    let opened = open(&io);
    assert_eq!(opened.report.epoch, 4);
    let versions: Vec<_> = opened.seen.controls().iter().map(|record| record.number).collect();
    assert!(versions.is_sorted() && versions.len() == 3);
}

#[tokio::test]
async fn the_archive_clock_goes_on_from_the_log() {
    let io = MemoryIo::new();
    let opened = open(&io);
    opened.clock.advance(std::time::Duration::from_secs(100));
    let at = opened.store.archive_now();
    opened.store.control(key_event(1)).await.unwrap();
    opened.store.close().await.unwrap();
    let again = open(&io);
    assert_eq!(again.store.archive_now(), at, "not the wall clock, which stands 100 s earlier again");
    again.clock.step_ms(365 * 86_400_000);
    assert_eq!(again.store.archive_now(), at);
}

#[tokio::test]
async fn a_file_is_closed_at_its_age() {
    let opened = open(&MemoryIo::new());
    let from = source(&opened.store).await;
    from.append(&opened.store, &media(1, 10)).await;
    opened.clock.advance(std::time::Duration::from_secs(3601));
    from.append(&opened.store, &media(1, 10)).await;
    from.append(&opened.store, &media(1, 10)).await;
    let files: Vec<_> = opened.seen.entries().iter().map(|entry| entry.record.file).collect();
    assert_ne!(files[0], files[2], "the second found it old, at the latest");
}

/// Fills files until there are at least `count` closed ones; the numbers in order.
async fn fill(opened: &crate::testing::Opened, from: &crate::testing::Source, count: u64) -> Vec<FragmentNumber> {
    let mut numbers = Vec::new();
    while opened.store.stats().files <= count {
        numbers.push(from.append(&opened.store, &media(numbers.len() as u64, 60_000)).await);
    }
    numbers
}

#[tokio::test]
async fn expired_fragments_are_gone_their_blocks_and_files_too() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let other = source(store).await;
    let kept = other.append(store, &media(99, 50_000)).await;
    let numbers = fill(&opened, &from, 3).await;
    let floor = numbers[numbers.len() - 2];
    let entries = opened.seen.entries();
    let gone: Vec<_> =
        entries.iter().filter(|e| e.meta.stream == from.stream && e.meta.number < floor).cloned().collect();
    let files_before = store.stats().files;
    let expired = store.expire(from.stream, floor, 7, 0, gone.clone()).await.unwrap();
    assert!(expired.files >= 1 && expired.punched_bytes > 0, "{expired:?}");
    assert_eq!(store.stats().files, files_before - expired.files);

    let check = async |store: &Store| {
        for entry in &gone {
            let number = entry.meta.number;
            let refused =
                |result: Result<(), ReadError>| matches!(result, Err(ReadError::NotFound { number: n }) if n == number);
            assert!(refused(store.head(entry).await.map(|_| ())));
            assert!(refused(store.media(entry, None, 0..1).await.map(|_| ())));
            assert!(refused(store.config(entry).await.map(|_| ())));
        }
    };
    check(store).await;
    // The other stream's record shares the first file with expired ones.
    let kept_entry = opened.seen.entry(kept).unwrap();
    assert_eq!(read_back(store, &kept_entry).await, media(99, 50_000));
    let again = store.expire(from.stream, floor, 7, 0, gone.clone()).await.unwrap();
    assert_eq!(again.files, 0);
    store.close().await.unwrap();

    for depth in [Depth::Presence, Depth::Checksum, Depth::Decrypt] {
        let report = verified(&io, depth);
        assert_eq!(report.damage, [], "holes are no damage at {depth:?}");
        assert!(report.records > 0);
    }
    let reopened = open(&io);
    assert_eq!(reopened.report.damage, []);
    assert!(reopened.seen.entries().iter().all(|e| e.meta.stream != from.stream || e.meta.number >= floor));
    assert_eq!(reopened.seen.entries().len(), entries.len() - gone.len());
    check(&reopened.store).await;
    assert_eq!(read_back(&reopened.store, &kept_entry).await, media(99, 50_000));
    // What was below the floor stays refused.
    let late = from.fragment(numbers[0], &media(1, 1));
    assert!(matches!(reopened.store.append(late).await, Err(SinkError::NoSuchStream { .. })));
}

/// Records below 64 KiB share blocks.
#[tokio::test]
async fn small_fragments_that_go_together_free_what_they_share() {
    let io = MemoryIo::new();
    let opened = open_with(StoreOptions { by_hand: true, ..options() }, &io);
    let store = &opened.store;
    drive(store, async {
        let (from, mut appends) = (source(store).await, tokio::task::JoinSet::new());
        for seed in 0..8 {
            let (store, fragment) = (store.clone(), from.fragment(store.next_number(UnixMs(1)), &media(seed, 5000)));
            appends.spawn(async move { store.append(fragment).await.unwrap() });
        }
        appends.join_all().await;
        let below = from.append(store, &media(9, 300_000)).await;
        let gone: Vec<_> = opened.seen.entries().into_iter().filter(|entry| entry.meta.number < below).collect();
        let sealed: u64 = gone.iter().map(|entry| entry.record.record_len).sum();
        let expired = store.expire(from.stream, below, 0, 0, gone).await.unwrap();
        assert!(expired.punched_bytes + 2 * 4096 > sealed, "{expired:?} of {sealed}: all but the blocks at the ends");
        store.close().await.unwrap();
    })
    .await;
    assert_eq!(verified(&io, Depth::Decrypt).damage, [], "holes are no damage");
    let again = open(&io);
    assert_eq!((again.report.fragments, again.report.damage.len()), (1, 0));
}

#[tokio::test]
async fn control_records_outlive_their_file() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let gap = |noticed| GapRecord {
        stream: from.stream,
        run: Some(from.run),
        start: UnixMs(1),
        end: UnixMs(2),
        noticed: UnixMs(noticed),
        cause: GapCause::Loss,
        count: 1,
        ordinal: None,
    };
    store.control(Control::Gap(gap(1))).await.unwrap();
    let mut numbers = fill(&opened, &from, 2).await;
    let before = opened.seen.controls();
    let first_file = opened.seen.entries()[0].record.file;
    let floor = *numbers.last().unwrap();
    let gone: Vec<_> = opened.seen.entries().into_iter().filter(|entry| entry.meta.number < floor).collect();
    let expired = store.expire(from.stream, floor, 1, 0, gone).await.unwrap();
    assert!(expired.files >= 1);
    assert!(store.shared().files.name(first_file).is_none(), "the file with the first control records is gone");
    numbers.retain(|number| *number >= floor);
    assert_eq!(opened.seen.controls().len(), before.len() + 1, "observers hear of no copies");
    store.close().await.unwrap();

    let again = open(&io);
    let controls = again.seen.controls();
    let find = |is: fn(&Control) -> bool| controls.iter().filter(|record| is(&record.body)).count();
    assert_eq!(find(|body| matches!(body, Control::Stream(_))), 1);
    assert_eq!(find(|body| matches!(body, Control::Run(_))), 1, "it still has fragments");
    assert_eq!(find(|body| matches!(body, Control::Floor { .. })), 1);
    assert_eq!(find(|body| matches!(body, Control::Gap(_))), 0, "below the floor");
    let stream = before.iter().find(|record| matches!(record.body, Control::Stream(_))).unwrap();
    assert!(controls.contains(stream), "with its number");
    assert_eq!(again.seen.words()[..3], ["stream", "run", "floor"], "before any fragment");
    let left: Vec<_> = again.seen.entries().iter().map(|entry| entry.meta.number).collect();
    assert_eq!(left, numbers);
}

#[tokio::test]
async fn a_deleted_stream_stays_deleted_and_its_keys_are_gone() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let other = source(store).await;
    let kept = other.append(store, &media(1, 1000)).await;
    let number = from.append(store, &media(2, 50_000)).await;
    let entry = opened.seen.entry(number).unwrap();
    store.head(&entry).await.unwrap();
    let index_key = store.index_key();
    store.delete_stream(from.stream, UnixMs(7), vec![entry.clone()]).await.unwrap();
    assert!(matches!(store.head(&entry).await, Err(ReadError::NotFound { .. })));
    assert!(matches!(store.append(from.fragment(number, &media(1, 1))).await, Err(SinkError::NoSuchStream { .. })));
    assert!(matches!(store.put_config(from.stream, &config("x")).await, Err(SinkError::NoSuchStream { .. })));
    assert!(matches!(store.create_stream_key(from.stream).await, Err(SinkError::NoSuchStream { .. })));
    assert_eq!(store.index_key(), index_key);
    assert!(store.shared().keys.ring().current(from.stream).is_none());
    store.close().await.unwrap();
    let again = open(&io);
    assert_eq!(again.report.damage, []);
    assert_eq!(again.seen.entries().iter().map(|e| e.meta.number).collect::<Vec<_>>(), [kept]);
    assert!(again.seen.words().contains(&"stream deleted"));
    assert_eq!(read_back(&again.store, &again.seen.entry(kept).unwrap()).await, media(1, 1000));
    assert_eq!(again.store.index_key(), index_key);
    again.store.close().await.unwrap();
    assert_eq!(verified(&io, Depth::Decrypt).damage, []);
}

#[tokio::test]
async fn a_deletion_outlives_the_file_it_stands_in_while_others_mention_the_stream() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let other = source(store).await;
    // The first file: the stream's record, and a fragment of another stream that stays.
    let kept = other.append(store, &media(1, 1000)).await;
    let numbers = fill(&opened, &from, 2).await;
    store.delete_stream(from.stream, UnixMs(7), opened.seen.entries()).await.unwrap();
    // The deletion stands in the open file. Close it, let it die, and look whether the deletion went on.
    let late = fill(&opened, &other, store.stats().files + 1).await;
    let floor = *late.last().unwrap();
    let third = source(store).await;
    third.append(store, &media(5, 10)).await;
    store.expire(other.stream, floor, 0, 0, opened.seen.entries()).await.unwrap();
    store.close().await.unwrap();
    let again = open(&io);
    let numbers_left: Vec<_> = again.seen.entries().iter().map(|entry| entry.meta.number).collect();
    assert!(!numbers_left.contains(&kept) && !numbers_left.iter().any(|number| numbers.contains(number)));
    let alive = again
        .seen
        .controls()
        .iter()
        .any(|record| matches!(&record.body, Control::Stream(record) if record.stream == from.stream));
    let deleted = again
        .seen
        .controls()
        .iter()
        .any(|record| matches!(&record.body, Control::StreamDeleted { stream, .. } if *stream == from.stream));
    assert!(deleted || !alive, "a stream never comes back");
}

#[tokio::test]
async fn entries_that_point_elsewhere_never_give_media() {
    let opened = open(&MemoryIo::new());
    let (store, from) = (&opened.store, source(&opened.store).await);
    let a = opened.seen.entry(from.append(store, &media(1, 1000)).await).unwrap();
    let b = opened.seen.entry(from.append(store, &media(2, 1000)).await).unwrap();
    let wrong: [FragmentEntry; 5] = [
        FragmentEntry { record: b.record, ..(*a).clone() },
        FragmentEntry { record: Locator { offset: a.record.offset + 8, ..a.record }, ..(*a).clone() },
        FragmentEntry { record: Locator { offset: u64::MAX - 7, ..a.record }, ..(*a).clone() },
        FragmentEntry { record: Locator { media_len: 2000, ..a.record }, ..(*a).clone() },
        FragmentEntry { record: Locator { head_len: u32::MAX, ..a.record }, ..(*a).clone() },
    ];
    for entry in &wrong {
        assert!(matches!(store.head(entry).await, Err(ReadError::Corrupt { .. })), "{entry:?}");
        store.inner.caches.forget(from.stream);
        assert!(matches!(store.media(entry, None, 0..1000).await, Err(ReadError::Corrupt { .. })), "{entry:?}");
    }
    for range in [0..1001, 1001..1001] {
        assert!(store.media(&a, None, range).await.is_err());
    }
    assert!(store.media(&a, Some(0), 0..1).await.is_err(), "it has no parts");
    assert_eq!(store.media(&a, None, 1000..1000).await.unwrap().len(), 0);
    assert!(store.stats().damage > 0);
}

#[tokio::test]
async fn the_marks_of_a_filling_disk_hold() {
    let io = MemoryIo::new();
    let mut options = options();
    options.marks = DiskMarks { apply_policy_bytes: 600 << 10, refuse_bytes: 400 << 10 };
    io.set_capacity(Some(1 << 20));
    let opened = open_with(options, &io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    assert_eq!(store.space(), Space::Ok);
    let open = store.next_number(UnixMs(1));
    store.append(from.part(open, 0, &media(99, 30_000))).await.unwrap();
    let mut stored = Vec::new();
    let error = loop {
        let number = store.next_number(UnixMs(1));
        match store.append(from.fragment(number, &media(stored.len() as u64, 30_000))).await {
            Ok(_) => stored.push(number),
            Err(error) => break error,
        }
    };
    // What has parts may still be closed.
    assert!(matches!(store.append(from.part(open, 1, &media(98, 30_000))).await, Err(SinkError::Full)));
    store.append(from.close(open, 1, 30_000, &media(97, 30_000))).await.unwrap();
    assert!(matches!(error, SinkError::Full) && stored.len() > 8, "{error} after {}", stored.len());
    assert_eq!(store.space(), Space::Refuse);
    // Deletions still go through, and make room.
    let entries = opened.seen.entries();
    let floor = stored[stored.len() - 1];
    let gone: Vec<_> = entries.iter().filter(|entry| entry.meta.number < floor).cloned().collect();
    assert!(store.expire(from.stream, floor, 0, 0, gone).await.unwrap().files > 0);
    assert_ne!(store.space(), Space::Refuse);
    from.append(store, &media(7, 30_000)).await;
    let left = opened.seen.entry(floor).unwrap();
    assert_eq!(read_back(store, &left).await, media(stored.len() as u64 - 1, 30_000));
}

#[tokio::test]
async fn on_a_disk_that_is_quite_full_the_reserve_serves_deletions() {
    let io = MemoryIo::new();
    io.set_capacity(Some(800 << 10));
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let mut stored = Vec::new();
    let error = loop {
        let number = store.next_number(UnixMs(1));
        match store.append(from.fragment(number, &media(stored.len() as u64, 30_000))).await {
            Ok(_) => stored.push(number),
            Err(error) => break error,
        }
    };
    assert!(matches!(error, SinkError::Full), "{error}");
    io.set_capacity(Some(io.space().unwrap().total_bytes - io.space().unwrap().free_bytes));
    let gone = opened.seen.entries();
    let expired = store.expire(from.stream, FragmentNumber::MAX, 0, 0, gone).await.unwrap();
    assert!(expired.files > 0);
    let next = source(store).await;
    next.append(store, &media(7, 30_000)).await;
    store.close().await.unwrap();
    let again = open(&io);
    assert_eq!((again.report.fragments, again.report.damage.len()), (1, 0));
}

#[tokio::test]
async fn a_replay_tells_the_same_and_changes_nothing() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    fill(&opened, &from, 2).await;
    store_gap_and_end(&opened.store, &from).await;
    let live = opened.seen.entries();
    // As after a kill: the last file has no footer.
    opened.store.shared().closings.wait();
    let image = io.image();
    let seen = Arc::new(crate::testing::Collector::default());
    let before = image.list().unwrap();
    let report = replay_on(&options(), Arc::new(image.clone()), &[Arc::clone(&seen) as Arc<dyn LogObserver>]).unwrap();
    assert_eq!((report.unclosed, report.epoch, report.damage.len()), (1, 0, 0));
    assert_eq!(seen.entries(), live);
    assert_eq!(image.list().unwrap(), before);
    let again = replay_on(&options(), Arc::new(image.clone()), &[]).unwrap();
    assert_eq!(again, report, "it was not closed by the first");
    let words = seen.words();
    assert_eq!((words[0], words[1], words[words.len() - 1]), ("stream", "run", "run ended"));
    assert_eq!(verified(&image, Depth::Decrypt).unclosed, 1);
}

#[tokio::test]
async fn progress_goes_up_to_the_end() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    fill(&opened, &from, 10).await;
    opened.store.close().await.unwrap();
    for depth in [Depth::Presence, Depth::Checksum, Depth::Decrypt] {
        let mut steps = Vec::new();
        verify_on(&options(), Arc::new(io.clone()), depth, &mut |step| steps.push(step)).unwrap();
        let last = steps.last().unwrap();
        assert!(last.files > 1 && last.total_bytes > 100_000, "{last:?}");
        assert_eq!((last.files, last.done_bytes), (last.files_total, last.total_bytes), "{depth:?}");
        assert!(steps.is_sorted_by_key(|step| (step.done_bytes, step.bytes)), "{depth:?}");
        // Not only when a file is done.
        assert_eq!(steps.len() as u64 > last.files, depth > Depth::Presence, "{depth:?}");
    }
    let (table, mut files) = (Files::new(Arc::new(io.clone())), Vec::new());
    let ring = opened.store.shared().keys.ring();
    let mut heard = |step: Progress| files.push((step.files, step.files_total));
    let mut log = Log::read(&io, &ring, Mode::ReadOnly, &table, 1, &mut heard).unwrap();
    log.replay(&ring, &table, &[], None, &mut heard);
    // Each file is read twice.
    let total = 2 * log.files.len() as u64;
    assert!(total > 2 && files.iter().copied().eq((0..=total).map(|at| (at, total))), "{files:?}");
}

#[tokio::test]
async fn what_is_read_ahead_weighs_what_its_tags_take() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let value = "v".repeat(1000);
    for _ in 0..10 {
        let mut fragment = from.fragment(opened.store.next_number(UnixMs(5)), &media(1, 100));
        fragment.facts.tags = (0..60).map(|index| Tag { name: format!("tag-{index}"), value: value.clone() }).collect();
        opened.store.append(fragment).await.unwrap();
    }
    opened.store.close().await.unwrap();
    let (table, ring) = (Files::new(Arc::new(io.clone())), opened.store.shared().keys.ring());
    let log = Log::read(&io, &ring, Mode::ReadOnly, &table, 0, &mut |_| {}).unwrap();
    let told = |file| Told::read(file, &ring, &log.controls, &HashSet::new(), false).unwrap();
    let told: Vec<_> = log.files.iter().map(told).collect();
    let fragments = told.iter().flat_map(|told| &told.steps).filter(|step| matches!(step, Step::Closed(_))).count();
    assert_eq!(fragments, 10);
    let weight = told.iter().map(|told| told.weight).sum::<usize>();
    assert!((10 * 60 * 1000..3_000_000).contains(&weight), "{weight}");
}

async fn store_gap_and_end(store: &Store, from: &crate::testing::Source) {
    let (stream, run) = (from.stream, from.run);
    store.control(Control::RunEnded { stream, run, at: UnixMs(9), cause: "eof".into() }).await.unwrap();
}

#[tokio::test]
async fn verification_finds_a_flipped_bit_at_the_depth_that_looks_there() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let number = from.append(&opened.store, &media(1, 100_000)).await;
    from.append(&opened.store, &media(2, 100_000)).await;
    let entry = opened.seen.entry(number).unwrap();
    let name = opened.store.shared().files.name(entry.record.file).unwrap();
    opened.store.close().await.unwrap();
    assert_eq!(verified(&io, Depth::Decrypt).damage, []);
    let at = (entry.record.offset + u64::from(entry.record.head_len) + 70_000) as usize;
    io.tamper(&name, |bytes| bytes[at] ^= 1);
    assert_eq!(verified(&io, Depth::Presence).damage, []);
    for depth in [Depth::Checksum, Depth::Decrypt] {
        let damage = verified(&io, depth).damage;
        assert_eq!(damage.len(), 1, "{damage:?}");
        assert_eq!(damage[0].record, Some((from.stream, number)));
        assert_eq!((&damage[0].file, damage[0].offset), (&name, entry.record.offset));
    }
    io.tamper(&name, |bytes| bytes.truncate(bytes.len() - 4096));
    assert_ne!(verified(&io, Depth::Presence).damage.len() + verified(&io, Depth::Presence).unclosed as usize, 0);
}

#[tokio::test]
async fn a_damaged_record_is_reported_and_its_neighbours_read() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let mut numbers = Vec::new();
    for i in 0..3 {
        numbers.push(from.append(&opened.store, &media(i, 100_000)).await);
    }
    let entry = opened.seen.entry(numbers[1]).unwrap();
    let name = opened.store.shared().files.name(entry.record.file).unwrap();
    io.tamper(&name, |bytes| bytes[(entry.record.offset + u64::from(entry.record.head_len)) as usize + 5] ^= 1);
    let refused = opened.store.media(&entry, None, 0..100).await;
    assert!(matches!(refused, Err(ReadError::Corrupt { offset_bytes, .. }) if offset_bytes == entry.record.offset));
    assert_eq!(
        opened.store.media(&entry, None, 70_000..80_000).await.unwrap(),
        media(1, 100_000).slice(70_000..80_000)
    );
    for i in [0, 2] {
        let entry = opened.seen.entry(numbers[i]).unwrap();
        assert_eq!(read_back(&opened.store, &entry).await, media(i as u64, 100_000));
    }
}

#[tokio::test]
async fn a_key_and_a_nonce_never_meet_twice_even_in_clones_of_a_machine() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    from.append(&opened.store, &media(1, 100)).await;
    opened.store.close().await.unwrap();
    // Two copies of one image go on with the same numbers and the same keys.
    let number = FragmentNumber::new(9 << 32, 1, 1);
    let mut salts = HashSet::new();
    for image in [io.image(), io.image()] {
        let clone = open(&image);
        assert_eq!(clone.store.put_config(from.stream, &config("one")).await.unwrap(), from.config);
        clone.store.append(from.fragment(number, &media(2, 100))).await.unwrap();
        let entry = clone.seen.entry(number).unwrap();
        let handle = clone.store.shared().files.handle(entry.record.file).unwrap().unwrap();
        let head = reader::read(&*handle, entry.record.offset, 168).unwrap();
        assert!(salts.insert(head[48..80].to_vec()), "the salt makes the key");
    }
}

#[tokio::test]
async fn a_large_record_starts_on_a_block_and_a_batch_may_be_longer_than_a_file() {
    let opened = open(&MemoryIo::new());
    let (store, from) = (&opened.store, source(&opened.store).await);
    let long = from.append(store, &media(1, 1 << 20)).await;
    let short = from.append(store, &media(2, 100)).await;
    let entry = opened.seen.entry(long).unwrap();
    assert_eq!(entry.record.offset % 4096, 0);
    assert_eq!(opened.seen.entry(short).unwrap().record.offset % 8, 0);
    assert_eq!(read_back(store, &entry).await, media(1, 1 << 20));
    assert!(entry.meta.flags.contains(FragmentFlags::STARTS_WITH_SYNC));
}

#[tokio::test]
async fn an_inbox_that_is_smaller_than_a_fragment_still_takes_it() {
    let mut options = options();
    options.inbox_bytes = 10;
    let opened = open_with(options, &MemoryIo::new());
    let from = source(&opened.store).await;
    let mut set = tokio::task::JoinSet::new();
    for i in 0..20 {
        let fragment = from.fragment(opened.store.next_number(UnixMs(5)), &media(i, 10_000));
        let store = opened.store.clone();
        set.spawn(async move { store.append(fragment).await.unwrap() });
    }
    assert_eq!(set.join_all().await.len(), 20);
}

#[tokio::test]
async fn copies_of_a_control_record_are_told_once() {
    let io = MemoryIo::new();
    let opened = open(&io);
    opened.store.control(key_event(5)).await.unwrap();
    let record: ControlRecord = (*opened.seen.controls()[0]).clone();
    for _ in 0..3 {
        opened.store.append_control(Body::Copy(record.clone())).await.unwrap();
    }
    opened.store.close().await.unwrap();
    let again = open(&io);
    assert_eq!(again.seen.words(), ["key"]);
    assert_eq!(again.report.controls, 1);
}

#[tokio::test]
async fn a_control_record_does_not_overtake_fragments_that_wait_for_room() {
    let io = MemoryIo::new();
    let mut narrow = options();
    narrow.inbox_bytes = 1024;
    let opened = open_with(narrow, &io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let fragment = |seed| store.append(from.fragment(store.next_number(UnixMs(5)), &media(seed, 100_000)));
    let ended = Control::RunEnded { stream: from.stream, run: from.run, at: UnixMs(9), cause: "end".into() };
    let (first, second, third) = tokio::join!(fragment(1), fragment(2), store.control(ended));
    assert!(first.is_ok() && second.is_ok() && third.is_ok());
    assert_eq!(opened.seen.words(), ["stream", "run", "fragment", "fragment", "run ended"]);
}

async fn is_pending(mut future: Pin<&mut impl Future>) -> bool {
    poll_fn(|cx| Poll::Ready(future.as_mut().poll(cx).is_pending())).await
}

#[tokio::test]
async fn a_task_that_was_busy_for_long_hands_in_records_in_the_order_it_asked() {
    let opened = open(&MemoryIo::new());
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = store.next_number(UnixMs(5));
    let mut part = pin!(store.append(from.part(number, 0, &media(1, 10))));
    let mut close = pin!(store.append(from.close(number, 1, 10, &Bytes::new())));
    // From here on what tokio provides has the task yield, and it may poll them in any order when it runs again.
    while tokio::task::coop::has_budget_remaining() {
        tokio::task::consume_budget().await;
    }
    assert!(is_pending(part.as_mut()).await && is_pending(close.as_mut()).await);
    close.await.unwrap();
    part.await.unwrap();
}

/// Commits whatever waits, whenever something does.
async fn turning(store: &Store) {
    loop {
        store.turn();
        tokio::task::yield_now().await;
    }
}

/// With room for four control records, driven by hand.
async fn open_narrow() -> (crate::testing::Opened, crate::testing::Source) {
    let mut narrow = options();
    (narrow.inbox_bytes, narrow.by_hand) = (4 * CONTROL_LEN, true);
    let opened = open_with(narrow, &MemoryIo::new());
    let from = tokio::select! { from = source(&opened.store) => from, () = turning(&opened.store) => unreachable!() };
    (opened, from)
}

#[tokio::test]
async fn streams_that_come_at_once_share_the_writes_of_their_keys() {
    let io = FaultyIo::new(Arc::new(MemoryIo::new()));
    let store = open(&io).store;
    // Two copies each time: for the one that came first, and for those that came meanwhile, as the scheduler has them come.
    io.fail(Fault { op: Op::Replace, after: 40, times: u32::MAX, error: ErrorKind::Other, torn_bytes: 0 });
    let mut set = tokio::task::JoinSet::new();
    for _ in 0..100 {
        let store = store.clone();
        set.spawn(async move { store.create_stream_key(StreamId::new()).await.unwrap() });
    }
    set.join_all().await;
    assert_eq!(store.keys().iter().filter_map(|key| key.stream).count(), 100);
}

#[tokio::test]
async fn a_record_that_nobody_polls_any_more_holds_nobody_up() {
    let (opened, from) = open_narrow().await;
    let store = &opened.store;
    let mut all_room = pin!(store.append(from.fragment(store.next_number(UnixMs(5)), &media(1, 100_000))));
    let mut left = pin!(store.append(from.fragment(store.next_number(UnixMs(5)), &media(2, 100_000))));
    let mut last = pin!(store.control(key_event(5)));
    assert!(is_pending(all_room.as_mut()).await && is_pending(left.as_mut()).await && is_pending(last.as_mut()).await);
    while store.turn() {}
    assert!(!is_pending(last.as_mut()).await, "it does not wait for who was before it to look");
    assert_eq!(opened.seen.words(), ["stream", "run", "fragment", "fragment", "key"]);
}

#[tokio::test]
async fn a_record_that_is_dropped_before_there_is_room_is_not_appended_and_makes_way() {
    let (opened, from) = open_narrow().await;
    let store = &opened.store;
    let mut first = pin!(store.control(key_event(5)));
    let mut dropped = Box::pin(store.append(from.fragment(store.next_number(UnixMs(5)), &media(1, 100_000))));
    let mut last = pin!(store.control(key_event(6)));
    assert!(is_pending(first.as_mut()).await && is_pending(dropped.as_mut()).await && is_pending(last.as_mut()).await);
    drop(dropped);
    assert!(store.turn());
    assert!(!is_pending(first.as_mut()).await && !is_pending(last.as_mut()).await, "one batch had both");
    while store.turn() {}
    assert_eq!(opened.seen.words(), ["stream", "run", "key", "key"]);
}

#[tokio::test]
async fn what_waits_for_room_when_the_store_closes_is_told_so() {
    let (opened, from) = open_narrow().await;
    let store = &opened.store;
    let mut first = pin!(store.append(from.fragment(store.next_number(UnixMs(5)), &media(1, 100_000))));
    let mut waits = pin!(store.append(from.fragment(store.next_number(UnixMs(5)), &media(2, 100_000))));
    let mut closed = pin!(store.close());
    assert!(is_pending(first.as_mut()).await && is_pending(waits.as_mut()).await && is_pending(closed.as_mut()).await);
    assert!(matches!(waits.await, Err(SinkError::Closed)));
    assert!(matches!(store.control(key_event(5)).await, Err(SinkError::Closed)));
    while store.turn() {}
    assert!(first.await.is_ok() && closed.await.is_ok());
    assert_eq!(opened.seen.words(), ["stream", "run", "fragment"]);
}

#[tokio::test]
async fn nothing_overtakes_a_record_that_was_given_room_and_did_not_run_since() {
    let (opened, from) = open_narrow().await;
    let store = &opened.store;
    let number = store.next_number(UnixMs(5));
    let mut all_room = pin!(store.append(from.fragment(store.next_number(UnixMs(5)), &media(1, 100_000))));
    let mut part = pin!(store.append(from.part(number, 0, &media(2, 10))));
    let mut close = pin!(store.append(from.close(number, 1, 10, &Bytes::new())));
    assert!(is_pending(all_room.as_mut()).await && is_pending(part.as_mut()).await);
    assert!(store.turn());
    // There is more room than the part was given.
    assert!(is_pending(close.as_mut()).await && is_pending(part.as_mut()).await);
    let both = async { tokio::join!(part, close) };
    let (part, close) = tokio::select! { both = both => both, () = turning(store) => unreachable!() };
    part.unwrap();
    close.unwrap();
}
