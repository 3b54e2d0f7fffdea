//! Crashes, failing disks and damage.

use std::io::ErrorKind;
use std::sync::Arc;

use bytes::Bytes;
use vidar_core::ids::FragmentNumber;
use vidar_core::record::FragmentFlags;
use vidar_core::sink::SinkError;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::UnixMs;

use super::*;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::segment_file::header::{FileHeader, HEADER_LEN, file_name};
use crate::segment_file::reader;
use crate::testing::{media, open, open_with, options, read_back, source};
use crate::{Depth, verify_on};

fn fault(op: Op, after: u32, times: u32) -> Fault {
    Fault { op, after, times, error: ErrorKind::Other, torn_bytes: 5000 }
}

fn faulty() -> (MemoryIo, FaultyIo) {
    let memory = MemoryIo::new();
    (memory.clone(), FaultyIo::new(Arc::new(memory)))
}

fn name_of(store: &Store, entry: &FragmentEntry) -> String {
    store.shared().files.name(entry.record.file).unwrap()
}

#[tokio::test]
async fn after_a_power_cut_everything_answered_is_there() {
    for keep in [false, true] {
        let io = MemoryIo::new();
        let opened = open(&io);
        let from = source(&opened.store).await;
        let mut numbers = Vec::new();
        for i in 0..10 {
            numbers.push(from.append(&opened.store, &media(i, 40_000)).await);
        }
        io.power_cut(|| keep);
        let again = open(&io);
        assert_eq!(again.report.damage, []);
        assert!([1, 2].contains(&again.report.unclosed), "the footer of the first may have been on its way");
        for (i, number) in numbers.iter().enumerate() {
            let entry = again.seen.entry(*number).unwrap();
            assert_eq!(read_back(&again.store, &entry).await, media(i as u64, 40_000));
        }
        again.store.close().await.unwrap();
        assert_eq!(open(&io).report.unclosed, 0, "recovery closed it");
    }
}

#[tokio::test]
async fn a_failed_write_or_sync_loses_nothing_and_its_file_is_not_used_again() {
    for (op, torn, cut) in [(Op::Sync, 0, true), (Op::Sync, 0, false), (Op::Write, 0, true), (Op::Write, 5000, false)] {
        let (memory, io) = faulty();
        let opened = open(&io);
        let (store, from) = (&opened.store, source(&opened.store).await);
        let before = from.append(store, &media(1, 40_000)).await;
        io.fail(Fault { torn_bytes: torn, ..fault(op, 0, 1) });
        if !cut {
            // The tail stays where it is: only the next file says that it is void.
            io.fail(fault(Op::Truncate, 0, 1));
        }
        let after = from.append(store, &media(2, 40_000)).await;
        let (before, after) = (opened.seen.entry(before).unwrap(), opened.seen.entry(after).unwrap());
        assert_ne!(before.record.file, after.record.file);
        assert_eq!(store.stats().failures, 1);
        for (entry, seed) in [(&before, 1), (&after, 2)] {
            assert_eq!(read_back(store, entry).await, media(seed, 40_000));
            assert_eq!(*store.config(entry).await.unwrap(), crate::testing::config("one"));
        }
        memory.power_cut(|| true);
        let again = open(&memory);
        assert_eq!(again.report.damage, []);
        let numbers: Vec<_> = again.seen.entries().iter().map(|entry| entry.meta.number).collect();
        assert_eq!(numbers, [before.meta.number, after.meta.number], "each once");
        assert_eq!(again.seen.entry(after.meta.number).unwrap().record.file, after.record.file, "the synced copy");
        assert_eq!(read_back(&again.store, &before).await, media(1, 40_000));
        assert_eq!(read_back(&again.store, &after).await, media(2, 40_000));
    }
}

#[tokio::test]
async fn what_is_answered_with_an_error_does_not_come_back() {
    for error in [ErrorKind::Other, ErrorKind::StorageFull] {
        let (memory, io) = faulty();
        let opened = open(&io);
        let (store, from) = (&opened.store, source(&opened.store).await);
        from.append(store, &media(1, 40_000)).await;
        // The sync fails, and no new file can be made.
        io.fail(Fault { error, ..fault(Op::Sync, 0, 1) });
        io.fail(Fault { error, ..fault(Op::Create, 0, 4) });
        let lost = store.next_number(UnixMs(5));
        let refused = store.append(from.fragment(lost, &media(2, 40_000))).await;
        assert!(matches!(refused, Err(SinkError::Failed { .. } | SinkError::Full)));
        assert!(opened.seen.entry(lost).is_none());
        let crashed = memory.image();
        assert!(open(&crashed).seen.entry(lost).is_none(), "not even if the machine crashes now");
        // The disk recovers, so does the store.
        while store.append(from.fragment(store.next_number(UnixMs(5)), &media(3, 10))).await.is_err() {}
        memory.power_cut(|| true);
        let again = open(&memory);
        assert!(again.seen.entry(lost).is_none());
        assert_eq!((again.report.fragments, again.report.damage.len()), (2, 0));
    }
}

#[tokio::test]
async fn a_footer_that_cannot_be_written_is_written_by_the_next_start() {
    let (memory, io) = faulty();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let number = from.append(&opened.store, &media(1, 40_000)).await;
    io.fail(Fault { torn_bytes: 700, ..fault(Op::Write, 0, 1) });
    assert!(opened.store.close().await.is_err());
    let again = open(&memory);
    assert_eq!((again.report.unclosed, again.report.damage.len()), (1, 0));
    assert_eq!(read_back(&again.store, &again.seen.entry(number).unwrap()).await, media(1, 40_000));
}

#[tokio::test]
async fn a_trailer_is_never_found_without_its_footer() {
    for mut seed in 0..64_u64 {
        let (memory, io) = faulty();
        let opened = open(&io);
        let from = source(&opened.store).await;
        let number = from.append(&opened.store, &media(1, 4000)).await;
        // The power fails while the first part of the footer is synced.
        io.fail(fault(Op::Sync, 0, 1));
        assert!(opened.store.close().await.is_err());
        memory.power_cut(|| {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            seed >> 63 == 1
        });
        let again = open(&memory);
        assert_eq!((again.report.unclosed, again.report.damage.len()), (1, 0));
        assert!(again.seen.entry(number).is_some());
    }
}

#[tokio::test]
async fn a_torn_tail_loses_at_most_what_was_not_answered() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let mut ends = vec![];
    let mut name = String::new();
    for i in 0..4 {
        let number = from.append(&opened.store, &media(i, 10_000)).await;
        let entry = opened.seen.entry(number).unwrap();
        name = name_of(&opened.store, &entry);
        ends.push((number, entry.record.offset + entry.record.record_len));
    }
    for cut in (4096..ends[3].1).step_by(512).chain([4097, 4159, 4161, ends[3].1 - 1]) {
        let image = io.image();
        image.tamper(&name, |bytes| bytes[cut as usize..].fill(0));
        let again = open(&image);
        let kept: Vec<_> = again.seen.entries().iter().map(|entry| entry.meta.number).collect();
        let whole: Vec<_> = ends.iter().filter(|(_, end)| *end <= cut).map(|(number, _)| *number).collect();
        assert_eq!(kept, whole, "cut at {cut}");
        // All below the last batch was synced when it was written: zeros there are no torn tail, and are reported. A
        // cut through the header of the last one hides that it was there.
        for (i, number) in whole.iter().enumerate() {
            assert_eq!(read_back(&again.store, &again.seen.entry(*number).unwrap()).await, media(i as u64, 10_000));
        }
        again.store.close().await.unwrap();
        assert_eq!(open(&image).report.unclosed, 0);
    }
}

#[tokio::test]
async fn damage_in_the_middle_loses_only_what_it_touches_and_is_reported() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let mut entries = Vec::new();
    for i in 0..5 {
        // Small records share batches' blocks with nothing, large ones start on their own.
        let len = if i % 2 == 0 { 9_000 } else { 70_000 };
        let number = from.append(&opened.store, &media(i, len)).await;
        entries.push(opened.seen.entry(number).unwrap());
    }
    let name = name_of(&opened.store, &entries[0]);
    let (batch_header, second) = (entries[2].record.offset - entries[2].record.offset % 4096, &entries[2].record);
    // A bit in the media, the table, the header, the salt of the third record; its batch's header; a wiped block.
    let spots = [
        second.offset + u64::from(second.head_len) + 50,
        second.offset + 170,
        second.offset + 30,
        second.offset + 50,
        second.offset,
    ];
    for at in spots {
        let image = io.image();
        image.tamper(&name, |bytes| bytes[at as usize] ^= 0x40);
        let again = open(&image);
        assert!(!again.report.damage.is_empty(), "byte {at}");
        let left: Vec<_> = again.seen.entries();
        assert_eq!(left.len(), 4, "byte {at}");
        for (i, entry) in entries.iter().enumerate().filter(|(i, _)| *i != 2) {
            assert_eq!(&again.seen.entry(entry.meta.number).unwrap(), entry);
            assert_eq!(read_back(&again.store, entry).await.len(), if i % 2 == 0 { 9_000 } else { 70_000 });
        }
        again.store.close().await.unwrap();
        assert_eq!(open(&image).report.unclosed, 0);
    }
    // The header of a batch is lost, its records are not.
    let image = io.image();
    image.tamper(&name, |bytes| bytes[batch_header as usize + 9] ^= 0x40);
    assert_eq!(open(&image).seen.entries().len(), 5);
    // So is the header of the file: it is read, reported, and left as it is.
    let image = io.image();
    image.tamper(&name, |bytes| bytes[40] ^= 1);
    let again = open(&image);
    assert_eq!((again.seen.entries().len(), again.report.damage.len()), (5, 1));
    assert_eq!(read_back(&again.store, &entries[1]).await, media(1, 70_000));
}

#[tokio::test]
async fn a_damaged_footer_is_made_again() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let number = from.append(&opened.store, &media(1, 70_000)).await;
    let entry = opened.seen.entry(number).unwrap();
    let name = name_of(&opened.store, &entry);
    opened.store.close().await.unwrap();
    let len = io.open(&name).unwrap().len().unwrap() as usize;
    for back in [4, 128, 100, 4000] {
        let image = io.image();
        image.tamper(&name, |bytes| bytes[len - back] ^= 1);
        let again = open(&image);
        assert_eq!(again.seen.entry(number).unwrap(), entry, "{back}");
        assert_eq!(read_back(&again.store, &entry).await, media(1, 70_000));
        again.store.close().await.unwrap();
        let report = open(&image).report;
        assert_eq!((report.unclosed, report.damage.len()), (0, 0), "{back}");
    }
}

#[tokio::test]
async fn unclosed_parts_become_an_incomplete_fragment() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let (open_one, closed_one) = (store.next_number(UnixMs(5)), store.next_number(UnixMs(6)));
    let mut expected = Vec::new();
    for index in 0..3 {
        store.append(from.part(open_one, index, &media(index.into(), 70_000))).await.unwrap();
        expected.extend(media(index.into(), 70_000));
        store.append(from.part(closed_one, index, &media(9, 100))).await.unwrap();
    }
    store.append(from.close(closed_one, 3, 100, &Bytes::new())).await.unwrap();
    io.power_cut(|| true);
    let again = open(&io);
    assert_eq!((again.report.incomplete, again.report.fragments), (1, 1));
    let entry = again.seen.entry(open_one).expect("told to observers like any other");
    assert!(entry.meta.flags.contains(FragmentFlags::INCOMPLETE));
    assert!(!entry.meta.flags.contains(FragmentFlags::LOSSY));
    assert_eq!(entry.meta.config, from.config);
    assert_eq!(read_back(&again.store, &entry).await, expected);
    assert_eq!(*again.store.config(&entry).await.unwrap(), crate::testing::config("one"));
    assert_eq!(again.store.head(&entry).await.unwrap().table.pieces.len(), 3);
    again.store.close().await.unwrap();
    // Once only, and for good.
    let third = open(&io);
    assert_eq!((third.report.incomplete, third.report.fragments), (0, 2));
    assert_eq!(third.seen.entry(open_one).unwrap(), entry);
}

#[tokio::test]
async fn a_fragment_with_a_damaged_part_keeps_the_others() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = store.next_number(UnixMs(5));
    for index in 0..3 {
        store.append(from.part(number, index, &media(index.into(), 10_000))).await.unwrap();
    }
    from.append(store, &media(5, 10)).await;
    let open_parts = io.image();
    store.append(from.close(number, 3, 10_000, &media(9, 10))).await.unwrap();
    let entry = opened.seen.entry(number).unwrap();
    let (part, name) = (entry.parts[1], name_of(store, &entry));
    for image in [open_parts, io.image()] {
        image.tamper(&name, |bytes| bytes[part.offset as usize + 200] ^= 1);
        let again = open(&image);
        assert!(!again.report.damage.is_empty());
        let entry = again.seen.entry(number).unwrap();
        assert_eq!(again.store.media(&entry, Some(0), 0..10_000).await.unwrap(), media(0, 10_000));
        assert!(matches!(again.store.media(&entry, Some(1), 0..10_000).await, Err(ReadError::Corrupt { .. })));
        assert_eq!(again.store.media(&entry, Some(2), 0..10_000).await.unwrap(), media(2, 10_000));
        let incomplete = entry.meta.flags.contains(FragmentFlags::INCOMPLETE);
        assert_eq!(incomplete, entry.meta.flags.contains(FragmentFlags::LOSSY));
        assert_eq!(again.report.incomplete, u64::from(incomplete));
    }
}

#[tokio::test]
async fn a_deletion_that_a_crash_interrupted_is_finished() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = from.append(store, &media(1, 100)).await;
    let entry = opened.seen.entry(number).unwrap();
    // The record is durable, then the power fails before the keys are destroyed.
    store.append_control(Body::Control(Control::StreamDeleted { stream: from.stream, at: UnixMs(1) })).await.unwrap();
    assert!(store.shared().keys.ring().current(from.stream).is_some());
    io.power_cut(|| true);
    let again = open(&io);
    assert!(again.store.shared().keys.ring().current(from.stream).is_none());
    assert!(matches!(again.store.head(&entry).await, Err(ReadError::NotFound { .. })));
    assert_eq!((again.report.fragments, again.report.damage.len()), (0, 0));
}

#[tokio::test]
async fn removals_and_holes_that_a_crash_interrupted_are_redone() {
    let (memory, io) = faulty();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let other = source(store).await;
    other.append(store, &media(9, 10)).await;
    let mut numbers = Vec::new();
    while store.stats().files < 4 {
        numbers.push(from.append(store, &media(1, 60_000)).await);
    }
    io.fail(fault(Op::Punch, 0, 100));
    io.fail(fault(Op::Unlink, 0, 100));
    let floor = *numbers.last().unwrap();
    let entries = opened.seen.entries();
    let gone: Vec<_> =
        entries.iter().filter(|e| e.meta.stream == from.stream && e.meta.number < floor).cloned().collect();
    let expired = store.expire(from.stream, floor, 0, 0, gone.clone()).await.unwrap();
    assert_eq!((expired.files, expired.punched_bytes), (0, 0));
    memory.power_cut(|| true);
    let again = open(&memory);
    assert!(again.store.stats().files < 4, "files that nothing is left of");
    assert_eq!(again.report.damage, []);
    let first = &gone[0].record;
    let handle = again.store.shared().files.handle(first.file).unwrap().expect("it holds the other stream");
    let hole = reader::read(&*handle, first.offset.next_multiple_of(4096), 8192).unwrap();
    assert_eq!(hole, vec![0; 8192]);
    again.store.close().await.unwrap();
    let report = verify_on(&options(), Arc::new(memory), Depth::Decrypt, &mut |_| {}).unwrap();
    assert_eq!(report.damage, []);
}

#[tokio::test]
async fn a_deletion_outlives_a_start_at_which_another_file_does_not_read() {
    for reads_to in [0, 4096] {
        let io = MemoryIo::new();
        let small = || StoreOptions { segment_bytes: 64 << 10, ..options() };
        let opened = open_with(small(), &io);
        let store = &opened.store;
        let (deleted, kept, other) = (source(store).await, source(store).await, source(store).await);
        deleted.append(store, &media(1, 5000)).await;
        let first = name_of(store, &opened.seen.entry(kept.append(store, &media(2, 60_000)).await).unwrap());
        store.delete_stream(deleted.stream, UnixMs(1), Vec::new()).await.unwrap();
        let last = opened.seen.entry(other.append(store, &media(3, 60_000)).await).unwrap();
        let below = store.next_number(UnixMs(5));
        store.control(Control::Floor { stream: other.stream, below, next_ordinal: 0, discontinuity: 0 }).await.unwrap();
        store.close().await.unwrap();
        // The file of the deletion goes, while that of what was deleted does not read.
        io.set_readable(&first, Some(reads_to));
        let unread = open_with(small(), &io);
        assert_ne!(unread.report.damage, []);
        assert_eq!(unread.store.shared().files.name(last.record.file), None);
        unread.store.close().await.unwrap();
        io.set_readable(&first, None);
        let again = open_with(small(), &io);
        assert_eq!((again.report.fragments, again.report.damage), (1, vec![]), "it reads up to {reads_to}");
    }
}

#[tokio::test]
async fn a_file_that_was_being_made_is_removed() {
    let io = MemoryIo::new();
    open(&io).store.close().await.unwrap();
    let id = FileId::new();
    io.create(&crate::segment_file::header::file_name(9, id), 8192).unwrap();
    let opened = open(&io);
    assert_eq!((opened.report.files, opened.report.damage.len()), (0, 0));
    assert_eq!(opened.report.epoch, 10, "its name counts");
    assert_eq!(io.list().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_that_was_being_made_is_no_damage_after_a_start_at_which_it_did_not_read() {
    let io = MemoryIo::new();
    open(&io).store.close().await.unwrap();
    let name = crate::segment_file::header::file_name(9, FileId::new());
    io.create(&name, 8192).unwrap();
    io.set_readable(&name, Some(0));
    let unread = open(&io);
    assert_ne!(unread.report.damage, []);
    unread.store.close().await.unwrap();
    assert_eq!(io.list().unwrap(), std::slice::from_ref(&name));
    io.set_readable(&name, None);
    let again = open(&io);
    assert_eq!((again.report.files, again.report.damage), (0, vec![]));
    assert_eq!(io.list().unwrap(), Vec::<String>::new());
}

#[tokio::test]
async fn a_file_whose_name_was_not_synced_is_not_missed_after_a_start_at_which_it_did_not_read() {
    // Some of its blocks do not read; or so many that it is left for another time.
    for len in [64 << 10, 1 << 20] {
        let io = MemoryIo::new();
        let before = open(&io);
        let (file, zero) = (FileId::new(), UnixMs(0));
        let header = FileHeader {
            read_only: false,
            file,
            store: before.store.shared().keys.ring().store,
            epoch: 9,
            sequence: 0,
            volume: 0,
            created: zero,
            archive: zero,
            replaces: None,
        };
        before.store.close().await.unwrap();
        let name = file_name(9, file);
        io.create(&name, len).unwrap().write_at(0, &header.encode()).unwrap();
        io.set_readable(&name, Some(HEADER_LEN as u64));
        let unread = open(&io);
        assert_ne!(unread.report.damage, []);
        unread.store.close().await.unwrap();
        assert!(io.list().unwrap().contains(&name));
        io.power_cut(|| false);
        assert_eq!(open(&io).report.damage, [], "{len} bytes");
    }
}

#[tokio::test]
async fn nothing_is_built_on_parts_that_a_start_read_and_could_not_sync() {
    let (memory, io) = faulty();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    // A part is written, never synced, and stays where it is.
    io.fail(fault(Op::Sync, 0, 1));
    io.fail(fault(Op::Truncate, 0, 1));
    io.fail(fault(Op::Create, 0, 1));
    let number = store.next_number(UnixMs(5));
    store.append(from.part(number, 0, &media(1, 70_000))).await.unwrap_err();
    let _ = store.close().await;
    io.fail(fault(Op::Sync, 0, 1));
    let started = open(&io);
    let _ = started.store.close().await;
    memory.power_cut(|| false);
    let again = open(&memory);
    assert_eq!((again.report.fragments, again.report.damage), (0, vec![]));
}

#[tokio::test]
async fn a_file_of_a_later_version_is_refused_and_kept() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let entry = opened.seen.entry(from.append(&opened.store, &media(1, 10)).await).unwrap();
    let name = name_of(&opened.store, &entry);
    opened.store.close().await.unwrap();
    io.tamper(&name, |bytes| {
        bytes[9] = 2;
        let crc = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_be_bytes());
    });
    let content = || {
        let handle = io.open(&name).unwrap();
        reader::read(&*handle, 0, handle.len().unwrap() as usize).unwrap()
    };
    let before = content();
    let clock = vidar_core::clock::ManualClock::new(UnixMs(0));
    let refused = Store::open(options(), Arc::new(io.clone()), clock, Vec::new()).err().unwrap();
    let text = refused.to_string();
    assert!(text.contains(&name) && text.contains("format version 2"), "{text}");
    assert!(matches!(
        verify_on(&options(), Arc::new(io.clone()), Depth::Presence, &mut |_| {}),
        Err(OpenError::Unsupported { .. })
    ));
    assert_eq!(content(), before);
}

#[tokio::test]
async fn a_store_whose_disk_fails_at_start_says_so() {
    let (_, io) = faulty();
    io.fail(fault(Op::Replace, 0, 9));
    let clock = vidar_core::clock::ManualClock::new(UnixMs(0));
    let opened = Store::open(options(), Arc::new(io), clock, Vec::new());
    assert!(matches!(opened.err().unwrap(), OpenError::Io { .. }));
}

#[tokio::test]
async fn a_record_that_was_never_answered_may_come_back_but_only_whole() {
    // A batch of many, cut anywhere, or without one of its blocks: what is found is whole.
    let io = MemoryIo::new();
    let mut small = options();
    small.segment_bytes = 1 << 20;
    let opened = open_with(small, &io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let mut set = tokio::task::JoinSet::new();
    for i in 0..40_u64 {
        let fragment = from.fragment(store.next_number(UnixMs(1)), &media(i, 3000));
        let store = store.clone();
        set.spawn(async move { store.append(fragment).await.unwrap() });
    }
    set.join_all().await;
    let entries = opened.seen.entries();
    let name = name_of(store, &entries[0]);
    let log: Vec<FragmentNumber> = entries.iter().map(|entry| entry.meta.number).collect();
    let last = &entries[39].record;
    for cut in (4096..last.offset + last.record_len).step_by(4096) {
        let image = io.image();
        image.tamper(&name, |bytes| bytes[cut as usize..].fill(0));
        let again = open(&image);
        let kept: Vec<_> = again.seen.entries().iter().map(|entry| entry.meta.number).collect();
        assert_eq!(kept, log[..kept.len()], "cut at {cut}");
        assert!(kept.len() >= entries.iter().filter(|e| e.record.offset + e.record.record_len <= cut).count());
    }
    // But for the block with the config that they all need.
    for block in (entries[1].record.offset / 4096 * 4096 + 4096..last.offset + last.record_len).step_by(4096) {
        let image = io.image();
        image.tamper(&name, |bytes| bytes[block as usize..block as usize + 4096].fill(0));
        let again = open(&image);
        let whole = |entry: &&SharedEntry| {
            entry.record.offset >= block + 4096 || entry.record.offset + entry.record.record_len <= block
        };
        let expected: Vec<_> = entries.iter().filter(whole).cloned().collect();
        assert_eq!(again.seen.entries(), expected, "without the block at {block}");
        for entry in expected {
            assert_eq!(read_back(&again.store, &entry).await.len(), 3000);
        }
    }
}

#[tokio::test]
async fn a_torn_batch_gives_back_no_fragment_without_its_parts_or_its_config() {
    // The first record of a batch stands behind its header.
    let is_first = |offset: u64| offset % 4096 == 64;
    let mut tries = 0;
    let (_opened, io, entry, name) = loop {
        let io = MemoryIo::new();
        let opened = open(&io);
        let (store, from) = (&opened.store, source(&opened.store).await);
        let first = store.next_number(UnixMs(5));
        store.append(from.part(first, 0, &media(1, 9000))).await.unwrap();
        // A second part, and the record that closes both.
        let (part, close) = (from.part(first, 1, &media(2, 9000)), from.close(first, 2, 9000, &media(3, 5000)));
        let (part, close) = tokio::join!(store.append(part), store.append(close));
        part.and(close).unwrap();
        let entry = opened.seen.entry(first).unwrap();
        assert!(is_first(entry.parts[1].offset));
        let name = name_of(store, &entry);
        if !is_first(entry.record.offset) {
            break (opened, io, entry, name);
        }
        // A committer that is quick takes the part alone: two batches.
        tries += 1;
        assert!(tries < 1000, "they never share a batch");
    };
    let first = entry.meta.number;
    for torn in (entry.parts[1].offset / 512 * 512 + 512..entry.record.offset - 512).step_by(512) {
        let image = io.image();
        image.tamper(&name, |bytes| bytes[torn as usize..torn as usize + 512].fill(0));
        let again = open(&image);
        assert_eq!((again.report.damage.len(), again.report.incomplete), (0, 1), "torn at {torn}");
        let kept = again.seen.entry(first).unwrap();
        assert_eq!(read_back(&again.store, &kept).await, media(1, 9000));
    }
    // Rot lacks no sector: what was synced stays, as far as it can be read.
    let image = io.image();
    image.tamper(&name, |bytes| bytes[entry.parts[1].offset as usize + 700] ^= 1);
    let again = open(&image);
    assert_eq!((again.report.damage.len(), again.report.incomplete), (2, 0));
    let kept = again.seen.entry(first).unwrap();
    assert_eq!(again.store.media(&kept, None, 0..5000).await.unwrap(), media(3, 5000));
    assert_eq!(again.store.media(&kept, Some(0), 0..9000).await.unwrap(), media(1, 9000));
}

/// A sync that failed may have given it up: then it is in the page cache only.
#[tokio::test]
async fn the_end_of_a_file_without_header_is_written_once_more_before_it_counts() {
    let (memory, io) = faulty();
    let opened = open(&memory);
    let from = source(&opened.store).await;
    let number = opened.store.next_number(UnixMs(5));
    opened.store.append(from.part(number, 0, &media(1, 5000))).await.unwrap();
    memory.power_cut(|| true);
    let name = memory.list().unwrap().remove(0);
    memory.tamper(&name, |bytes| bytes[100] ^= 1);
    // That is what fails; what closes the fragment would be written to a new file.
    io.fail(fault(Op::Write, 0, 1));
    let again = open(&io);
    assert_eq!((again.report.unclosed, again.report.incomplete), (1, 0), "{:?}", again.report.damage);
    memory.power_cut(|| true);
    assert_eq!(open(&memory).report.incomplete, 1);
}
