//! Which streams share files, and what that gives.

use std::collections::{BTreeMap, BTreeSet};
use std::io::ErrorKind;
use std::sync::Arc;

use vidar_core::control::{Control, ControlRecord, GapCause, GapRecord};
use vidar_core::ids::{FileId, StreamId};
use vidar_core::sink::SinkError;
use vidar_core::source::FragmentSource as _;
use vidar_core::time::UnixMs;

use crate::StoreOptions;
use crate::backend::SegmentIo as _;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::class::CLASS_COUNT;
use crate::testing::{Opened, Source, drive, keep, media, open, open_with, options, read_back, source_kept};

async fn sources(opened: &Opened, hours: &[u32]) -> Vec<Source> {
    let mut sources = Vec::new();
    for hours in hours {
        sources.push(source_kept(&opened.store, *hours).await);
    }
    sources
}

/// Fragments of all, by turns.
async fn record(opened: &Opened, sources: &[Source], count: u64) {
    for seed in 0..count {
        for from in sources {
            from.append(&opened.store, &media(seed, 20_000)).await;
        }
    }
}

/// The streams of each file.
fn shared_by(opened: &Opened) -> BTreeMap<FileId, BTreeSet<StreamId>> {
    let mut files: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for entry in opened.seen.entries() {
        files.entry(entry.record.file).or_default().insert(entry.meta.stream);
    }
    files
}

#[tokio::test]
async fn streams_that_are_kept_for_unlike_times_share_no_file() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let of = sources(&opened, &[1, 2, 24, 168, 720, 8760, 9000]).await;
    record(&opened, &of, 30).await;
    let alike = [&of[..2], &of[2..3], &of[3..5], &of[5..]].map(|alike| alike.iter().map(|from| from.stream).collect());
    let files = shared_by(&opened);
    assert!(files.len() > CLASS_COUNT && files.values().all(|streams| alike.contains(streams)), "{files:?}");
    opened.store.shared().closings.wait();
    let open_count = opened.store.stats().files as usize - opened.store.shared().files.closed().len();
    assert!(open_count <= CLASS_COUNT, "{open_count}");
}

#[tokio::test]
async fn what_is_kept_for_a_short_time_goes_with_whole_files() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let of = sources(&opened, &[1, 8760]).await;
    record(&opened, &of, 60).await;
    opened.store.shared().closings.wait();
    let entries: Vec<_> = opened.seen.entries().into_iter().filter(|entry| entry.meta.stream == of[0].stream).collect();
    let last = entries.last().unwrap().record.file;
    let whole: Vec<_> = entries.iter().filter(|entry| entry.record.file != last).cloned().collect();
    let below = entries[whole.len()].meta.number;
    let files = whole.iter().map(|entry| entry.record.file).collect::<BTreeSet<_>>().len() as u64;
    let expired = opened.store.expire(of[0].stream, below, 0, 0, whole).await.unwrap();
    assert_eq!((expired.files, expired.punched_bytes), (files, 0), "nothing of the year stands in them");
    assert!(files > 1);
}

#[tokio::test]
async fn the_next_fragment_follows_new_settings_and_an_open_one_does_not() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, of) = (&opened.store, sources(&opened, &[1, 8760]).await);
    record(&opened, &of, 1).await;
    let begun = store.next_number(UnixMs(1));
    store.append(of[0].part(begun, 0, &media(7, 5000))).await.unwrap();
    keep(store, &of[0], 8760).await;
    store.append(of[0].close(begun, 1, 5000, &media(8, 100))).await.unwrap();
    let next = of[0].append(store, &media(9, 100)).await;
    let at = |number| opened.seen.entry(number).unwrap();
    let [hour, year] = [&of[0], &of[1]].map(|from| {
        let mut entries = opened.seen.entries().into_iter();
        entries.find(|entry| entry.meta.stream == from.stream).unwrap().record.file
    });
    assert_eq!((at(begun).record.file, at(begun).parts[0].file, at(next).record.file), (hour, hour, year));
    store.close().await.unwrap();
    let again = open(&io);
    assert_eq!((again.report.fragments, again.report.damage.len()), (4, 0));
    keep(&again.store, &of[1], 1).await;
    let config = again.store.put_config(of[0].stream, &crate::testing::config("one")).await.unwrap();
    let number = Source { config, ..of[0] }.append(&again.store, &media(1, 10)).await;
    let entry = again.seen.entry(number).unwrap();
    assert_eq!(again.store.shared().controls().class(of[0].stream), crate::class::of_hours(8760), "after a start, too");
    assert_eq!(read_back(&again.store, &entry).await, media(1, 10));
    assert_ne!(entry.record.file, year);
}

#[tokio::test]
async fn a_deleted_stream_stays_deleted_where_its_record_stands_with_others() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let store = &opened.store;
    // Both records stand in the file of the year, media and deletion of the second stream in that of the hour.
    let of = sources(&opened, &[8760, 1]).await;
    of[1].append(store, &media(1, 100)).await;
    store.delete_stream(of[1].stream, UnixMs(1), opened.seen.entries()).await.unwrap();
    of[0].append(store, &media(2, 100)).await;
    store.close().await.unwrap();

    let opened = open(&io);
    opened.store.free(Vec::new()).await;
    assert_eq!(opened.store.stats().files, 1, "the file of the hour is gone");
    opened.store.close().await.unwrap();
    let of_second = |record: &&Arc<ControlRecord>| record.body.stream() == Some(of[1].stream);
    let told = open(&io).seen.controls();
    let told: Vec<_> = told.iter().filter(of_second).map(|record| &record.body).collect();
    assert!(told.iter().any(|body| matches!(body, Control::StreamDeleted { .. })), "{told:?}");
}

#[tokio::test]
async fn a_deletion_of_which_a_copy_is_durable_is_told_whatever_became_of_itself() {
    let io = FaultyIo::new(Arc::new(MemoryIo::new()));
    let opened = open(&io);
    let (store, of) = (&opened.store, sources(&opened, &[1, 8760]).await);
    record(&opened, &of, 1).await;
    // Neither the open file of the hour takes it nor a new one; that of the year takes its copy.
    for op in [Op::Write, Op::Create] {
        io.fail(Fault { op, after: 0, times: 1, error: ErrorKind::TimedOut, torn_bytes: 0 });
    }
    let delete = || store.delete_stream(of[0].stream, UnixMs(1), opened.seen.entries());
    let told = || opened.seen.words().into_iter().filter(|word| *word == "stream deleted").count();
    delete().await.expect_err("its own file failed");
    // What is asked for later is done later.
    of[1].append(store, &media(2, 100)).await;
    assert_eq!((store.shared().controls().is_deleted(of[0].stream), told()), (true, 1));
    delete().await.unwrap();
    assert_eq!(told(), 1);
    let other = sources(&opened, &[1]).await[0];
    other.append(store, &media(3, 100)).await;
    store.delete_stream(other.stream, UnixMs(2), Vec::new()).await.unwrap();
    assert_eq!(told(), 2, "with all of its copies durable, too");
}

#[tokio::test]
async fn looking_for_a_config_in_files_of_other_classes_finds_no_damage() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let of = sources(&opened, &[1, 8760]).await;
    record(&opened, &of, 1).await;
    for from in &of {
        // As if others had pushed it out.
        opened.store.shared().configs.retain(|_| false);
        from.append(&opened.store, &media(1, 100)).await;
    }
    assert_eq!(opened.store.stats().damage, 0);
    for entry in opened.seen.entries() {
        assert!(!opened.store.is_damaged(&entry));
        opened.store.config(&entry).await.unwrap();
    }
}

fn gap(from: &Source) -> Control {
    let (run, at) = (Some(from.run), UnixMs(1));
    let (cause, count, ordinal) = (GapCause::Overload, 1, None);
    Control::Gap(GapRecord { stream: from.stream, run, start: at, end: at, noticed: at, cause, count, ordinal })
}

#[tokio::test]
async fn on_a_full_disk_a_control_record_goes_where_there_is_room() {
    let io = MemoryIo::new();
    let opened = open_with(StoreOptions { by_hand: true, ..options() }, &io);
    let store = &opened.store;
    drive(store, async {
        let of = sources(&opened, &[8760, 1]).await;
        of[0].append(store, &media(1, 100)).await;
        // Not even the reserve gives a file.
        let space = io.space().unwrap();
        io.set_capacity(Some(space.total_bytes - space.free_bytes - options().reserve_bytes));
        let first = of[1].fragment(store.next_number(UnixMs(1)), &media(2, 100));
        let (media, control) = tokio::join!(store.append(first), store.control(gap(&of[1])));
        assert!(matches!(media, Err(SinkError::Full)), "{media:?}");
        control.unwrap();
    })
    .await;
    io.set_capacity(None);
    io.power_cut(|| false);
    let again = open(&io);
    assert_eq!((again.report.damage.len(), again.report.fragments), (0, 1));
    assert!(again.seen.words().contains(&"gap"));
}

#[tokio::test]
async fn on_a_full_disk_other_files_take_the_control_records_of_one_that_fails() {
    for is_deletion in [false, true] {
        let (memory, full) = (MemoryIo::new(), ErrorKind::StorageFull);
        let io = FaultyIo::new(Arc::new(memory.clone()));
        let opened = open(&io);
        let store = &opened.store;
        let of = sources(&opened, &[8760, 1]).await;
        record(&opened, &of, 1).await;
        io.fail(Fault { op: Op::Write, after: 0, times: 1, error: full, torn_bytes: 0 });
        // Neither a whole file nor a small one can be made.
        io.fail(Fault { op: Op::Create, after: 0, times: 2, error: full, torn_bytes: 0 });
        if is_deletion {
            store.delete_stream(of[1].stream, UnixMs(1), Vec::new()).await.unwrap();
        } else {
            store.control(gap(&of[1])).await.unwrap();
            // What failed is void once the class goes on.
            of[1].append(store, &media(9, 10)).await;
        }
        memory.power_cut(|| false);
        let again = open(&memory);
        assert_eq!(again.report.damage, []);
        let streams: BTreeSet<_> = again.seen.entries().iter().map(|entry| entry.meta.stream).collect();
        assert_eq!(streams.contains(&of[1].stream), !is_deletion);
        assert!(streams.contains(&of[0].stream));
        assert!(again.seen.words().contains(if is_deletion { &"stream deleted" } else { &"gap" }));
    }
}
