//! A start with a checkpoint finds what one without finds.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use vidar_core::clock::ManualClock;
use vidar_core::control::Control;
use vidar_core::ids::{FileId, FragmentNumber};
use vidar_core::log::LogObserver;
use vidar_core::source::FragmentSource;
use vidar_core::time::UnixMs;

use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;
use crate::segment_file::header::{FileHeader, file_name, parse_file_name};
use crate::testing::{Collector, Saving, Source, drive, media, options, source, source_kept};
use crate::{Depth, Disposal, OpenReport, RepairOptions, Store, StoreOptions, repair_on, replay_on, verify_on};

fn open(io: &MemoryIo, observer: &Arc<Saving>) -> (Store, OpenReport) {
    open_at(io, observer, ManualClock::new(UnixMs(1_700_000_000_000)))
}

fn open_at(io: &MemoryIo, observer: &Arc<Saving>, clock: Arc<ManualClock>) -> (Store, OpenReport) {
    let observers = vec![Arc::clone(observer) as Arc<dyn LogObserver>];
    Store::open(options(), Arc::new(io.clone()), clock, observers).unwrap()
}

/// Fragments that may be read, and their parts' places.
async fn living(store: &Store, seen: &Collector) -> BTreeSet<(FragmentNumber, usize)> {
    let mut living = BTreeSet::new();
    for entry in seen.entries() {
        if store.head(&entry).await.is_ok() {
            living.insert((entry.meta.number, entry.parts.len()));
        }
    }
    living
}

/// The same directory, read as a whole, says the same.
async fn equals_a_replay(io: &MemoryIo, store: &Store, observer: &Saving) {
    let image = io.image();
    let (fresh, whole) = (Arc::new(Saving::default()), Arc::new(Collector::default()));
    let (other, report) = open(&image, &fresh);
    assert!(!report.resumed);
    assert_eq!(living(store, &observer.seen).await, living(&other, &fresh.seen).await);
    other.close().await.unwrap();
    replay_on(&options(), Arc::new(image), &[Arc::clone(&whole) as Arc<dyn LogObserver>]).unwrap();
    assert_eq!(living(store, &observer.seen).await.len(), whole.entries().len());
}

/// A directory that was closed well, with a checkpoint, and a few fragments after a crash behind it.
async fn base() -> (MemoryIo, Arc<Saving>, Source) {
    let (io, first) = (MemoryIo::new(), Arc::new(Saving::default()));
    let (store, _) = open(&io, &first);
    let from = source(&store).await;
    for seed in 0..8 {
        from.append(&store, &media(seed, 60_000)).await;
    }
    store.append(from.part(store.next_number(UnixMs(5)), 0, &media(9, 5000))).await.unwrap();
    store.close().await.unwrap();
    let second = first.again();
    let (store, report) = open(&io, &second);
    assert!(report.resumed);
    let from = Source { config: store.put_config(from.stream, &crate::testing::config("one")).await.unwrap(), ..from };
    from.append(&store, &media(20, 60_000)).await;
    store.shared().closings.wait();
    io.power_cut(|| true);
    (io, second.again(), from)
}

#[tokio::test]
async fn a_start_goes_on_from_the_checkpoint() {
    let (io, observer, _) = base().await;
    let (store, report) = open(&io, &observer);
    assert_eq!((report.resumed, report.damage.len()), (true, 0));
    assert!(observer.told() <= 2, "{} fragments were told again", observer.told());
    equals_a_replay(&io, &store, &observer).await;
}

#[tokio::test]
async fn idle_time_counts_no_more_from_a_checkpoint_than_in_a_replay() {
    let (io, observer) = (MemoryIo::new(), Arc::new(Saving::default()));
    let clock = ManualClock::new(UnixMs(1_700_000_000_000));
    let (store, _) = open_at(&io, &observer, Arc::clone(&clock));
    source(&store).await.append(&store, &media(1, 60_000)).await;
    clock.advance(Duration::from_secs(3600));
    store.close().await.unwrap();
    let image = io.image();
    let (resumed, report) = open(&io, &observer.again());
    assert!(report.resumed);
    let (replayed, report) = open(&image, &Arc::new(Saving::default()));
    assert!(!report.resumed);
    assert_eq!(resumed.archive_now(), replayed.archive_now());
}

/// Of a fragment the part stands in the checkpoint, and the close in a file that it leaves out.
#[tokio::test]
async fn files_that_take_batches_still_are_left_out() {
    let (io, first) = (MemoryIo::new(), Arc::new(Saving::default()));
    let clock = ManualClock::new(UnixMs(1_700_000_000_000));
    let by_hand = StoreOptions { by_hand: true, ..options() };
    let observers = vec![Arc::clone(&first) as Arc<dyn LogObserver>];
    let (store, _) = Store::open(by_hand, Arc::new(io.clone()), clock.clone(), observers).unwrap();
    drive(&store, async {
        let (hour, year) = (source_kept(&store, 1).await, source_kept(&store, 8760).await);
        let (closed, open) = (store.next_number(UnixMs(5)), store.next_number(UnixMs(5)));
        store.append(year.part(closed, 0, &media(1, 5000))).await.unwrap();
        store.append(year.part(open, 0, &media(2, 5000))).await.unwrap();
        // That fills its file.
        year.append(&store, &media(3, 300_000)).await;
        store.append(year.close(closed, 1, 5000, &media(4, 100))).await.unwrap();
        clock.advance(Duration::from_secs(301));
        hour.append(&store, &media(5, 300_000)).await;
    })
    .await;
    // It is let go with the next look.
    store.turn();
    assert!(io.read_small("checkpoint").unwrap().is_some());
    io.power_cut(|| true);
    let again = first.again();
    let (store, report) = open(&io, &again);
    assert_eq!((report.resumed, report.damage.len(), report.incomplete), (true, 0, 1));
    // What is closed behind the checkpoint, and what the start closes.
    assert_eq!(again.told(), 2);
    equals_a_replay(&io, &store, &again).await;
}

#[tokio::test]
async fn what_was_let_go_since_stays_away() {
    let (io, observer, from) = base().await;
    let (store, _) = open(&io, &observer);
    let entries = observer.seen.entries();
    let floor = entries.iter().map(|entry| entry.meta.number).max().unwrap();
    let gone = entries.into_iter().filter(|entry| entry.meta.number < floor).collect();
    assert!(store.expire(from.stream, floor, 0, 0, gone).await.unwrap().files > 0);
    io.power_cut(|| true);
    let again = observer.again();
    let (store, report) = open(&io, &again);
    assert_eq!((report.resumed, report.damage.len()), (true, 0), "files that went on purpose are not missed");
    equals_a_replay(&io, &store, &again).await;
    store.delete_stream(from.stream, UnixMs(1), Vec::new()).await.unwrap();
    io.power_cut(|| true);
    let again = again.again();
    let (store, report) = open(&io, &again);
    assert!(report.resumed, "its key went on purpose");
    assert_eq!(living(&store, &again.seen).await.len(), 0);
}

#[tokio::test]
async fn a_run_of_which_there_are_only_parts_is_in_a_checkpoint() {
    let (io, first) = (MemoryIo::new(), Arc::new(Saving::default()));
    let (store, _) = open(&io, &first);
    let from = source(&store).await;
    store.append(from.part(store.next_number(UnixMs(5)), 0, &media(9, 5000))).await.unwrap();
    let ended = Control::RunEnded { stream: from.stream, run: from.run, at: UnixMs(9), cause: String::new() };
    store.control(ended).await.unwrap();
    store.close().await.unwrap();
    let second = first.again();
    let (store, report) = open(&io, &second);
    assert_eq!((report.resumed, report.incomplete), (true, 1));
    assert_eq!(second.seen.words(), ["stream", "run", "run ended", "fragment"]);
    equals_a_replay(&io, &store, &second).await;
}

#[tokio::test]
async fn a_checkpoint_that_is_not_whole_is_none() {
    let (io, observer, _) = base().await;
    let len = io.read_small("checkpoint").unwrap().unwrap().len();
    for at in (0..len).step_by(7) {
        for cut in [false, true] {
            let image = io.image();
            image.tamper("checkpoint", |bytes| if cut { bytes.truncate(at) } else { bytes[at] ^= 1 });
            let again = observer.again();
            let (store, report) = open(&image, &again);
            // Reserved bytes are authenticated, too.
            assert_eq!((report.resumed, report.damage.len()), (false, 0), "{at}");
            drop(store);
        }
    }
}

#[tokio::test]
async fn whatever_does_not_fit_leads_to_a_full_replay() {
    let (io, observer, _) = base().await;
    let name = io.list().unwrap().into_iter().min().unwrap();
    let file = io.open(&name).unwrap();
    let content = crate::segment_file::reader::read(&*file, 0, file.len().unwrap() as usize).unwrap();

    // What was derived is gone.
    let image = io.image();
    let lost = Arc::new(Saving::default());
    let (store, report) = open(&image, &lost);
    assert!(!report.resumed);
    equals_a_replay(&image, &store, &lost).await;

    // A file is missing, and missed; it is not missed for ever as one that went on purpose.
    let image = io.image();
    image.unlink(&name).unwrap();
    for resumed in [false, true] {
        let again = observer.again();
        let (store, report) = open(&image, &again);
        assert_eq!(report.resumed, resumed, "once a whole replay left it out, the next checkpoint does");
        assert!(report.damage.iter().any(|damage| damage.detail.contains("missing")), "{report:?}");
        store.close().await.unwrap();
    }
    // It is back: no checkpoint names it.
    image.put(&name, &content);
    let again = observer.again();
    let (store, report) = open(&image, &again);
    assert_eq!((report.resumed, report.damage.len()), (false, 0));
    equals_a_replay(&image, &store, &again).await;

    // Without the list nobody knows what went on purpose.
    let image = io.image();
    image.remove_small("files");
    assert!(!open(&image, &observer.again()).1.resumed);
}

#[tokio::test]
async fn what_is_found_before_a_checkpoint_is_distrusted_is_told() {
    let (io, _, _) = base().await;
    let name = io.list().unwrap().into_iter().max().unwrap();
    // Within a record of the file that was not closed: its footer leaves it out.
    io.tamper(&name, |bytes| bytes[40_000] ^= 1);
    let whole = replay_on(&options(), Arc::new(io.image()), &[]).unwrap();
    assert_eq!((whole.unclosed, whole.damage.len()), (1, 1));
    let (_, report) = open(&io, &Arc::new(Saving::default()));
    assert_eq!((report.resumed, report.unclosed, &report.damage), (false, 1, &whole.damage));
}

#[tokio::test]
async fn a_checkpoint_that_was_not_trusted_once_never_is() {
    let (io, observer, _) = base().await;
    // What the index saved is not there, and the machine goes down before there is another checkpoint.
    let (_, report) = open(&io, &Arc::new(Saving::default()));
    assert!(!report.resumed);
    io.power_cut(|| true);
    // It is back, but what became of the directory meanwhile is not in it.
    let (store, report) = open(&io, &observer);
    assert!(!report.resumed);
    equals_a_replay(&io, &store, &observer).await;
}

#[tokio::test]
async fn a_footer_that_rotted_since_costs_no_config() {
    let (io, first) = (MemoryIo::new(), Arc::new(Saving::default()));
    let (store, _) = open(&io, &first);
    let from = source(&store).await;
    from.append(&store, &media(1, 60_000)).await;
    let left_open = store.next_number(UnixMs(5));
    store.append(from.part(left_open, 0, &media(2, 5000))).await.unwrap();
    store.close().await.unwrap();
    let name = io.list().unwrap().remove(0);
    // The trailer; the block before it.
    for back in [4, 4100] {
        let (image, observer) = (io.image(), first.again());
        image.tamper(&name, |bytes| {
            let at = bytes.len() - back;
            bytes[at] ^= 1;
        });
        let (store, report) = open(&image, &observer);
        assert_eq!((report.resumed, report.incomplete), (true, 1));
        assert!(observer.seen.entry(left_open).is_some(), "closed with its config");
        for entry in observer.seen.entries() {
            assert_eq!(*store.config(&entry).await.unwrap(), crate::testing::config("one"), "{back}");
        }
    }
}

#[tokio::test]
async fn an_older_checkpoint_counts_only_with_what_was_saved_for_it() {
    let (io, observer, from) = base().await;
    let older = io.read_small("checkpoint").unwrap().unwrap();
    let (store, _) = open(&io, &observer);
    let from = Source { config: store.put_config(from.stream, &crate::testing::config("one")).await.unwrap(), ..from };
    from.append(&store, &media(30, 60_000)).await;
    store.close().await.unwrap();
    assert_ne!(io.read_small("checkpoint").unwrap().unwrap(), older);
    io.tamper("checkpoint", |bytes| bytes.clone_from(&older));
    let again = observer.again();
    let (store, report) = open(&io, &again);
    assert!(report.resumed, "this observer keeps everything");
    equals_a_replay(&io, &store, &again).await;
    store.close().await.unwrap();
    io.tamper("checkpoint", |bytes| *bytes = older);
    observer.forget();
    let again = observer.again();
    let (store, report) = open(&io, &again);
    assert!(!report.resumed);
    equals_a_replay(&io, &store, &again).await;
}

/// The last fragment of a file is lost, and the others expire: the file goes as one that held nothing else.
#[tokio::test]
async fn an_older_checkpoint_does_not_count_where_a_repaired_file_went() {
    let (io, first) = (MemoryIo::new(), Arc::new(Saving::default()));
    let (store, _) = open(&io, &first);
    let from = source(&store).await;
    let kept = from.append(&store, &media(1, 5000)).await;
    let lost = from.append(&store, &media(2, 5000)).await;
    let lost = first.seen.entry(lost).unwrap();
    store.close().await.unwrap();
    let older = io.read_small("checkpoint").unwrap().unwrap();
    io.tamper(&io.list().unwrap()[0], |bytes| bytes[lost.record.offset as usize + 3000] ^= 1);
    let how = RepairOptions { disposal: Disposal::Drop, dry_run: false, now: UnixMs(1_700_000_000_000) };
    let report = repair_on(&options(), Arc::new(io.clone()), &how, &mut |_| {}).unwrap();
    assert_eq!((report.files.len(), report.gaps.len()), (1, 1));
    let second = first.again();
    let (store, report) = open(&io, &second);
    assert!(!report.resumed, "a file is there that it does not name");
    let kept = vec![second.seen.entry(kept).unwrap()];
    assert_eq!(store.expire(from.stream, lost.meta.number, 1, 0, kept).await.unwrap().files, 1);
    io.power_cut(|| true);
    io.tamper("checkpoint", |bytes| *bytes = older);
    let again = first.again();
    let (store, report) = open(&io, &again);
    assert_eq!((report.resumed, report.damage.len()), (false, 0));
    assert!(again.seen.entry(lost.meta.number).is_none());
    equals_a_replay(&io, &store, &again).await;
}

/// One whose making the power ended says what it replaces, so a start closes it; its name is not known to be durable.
#[tokio::test]
async fn a_file_of_which_a_power_cut_takes_the_name_is_not_missed() {
    let (io, first) = (MemoryIo::new(), Arc::new(Saving::default()));
    let (store, _) = open(&io, &first);
    source(&store).await.append(&store, &media(1, 5000)).await;
    let id = store.shared().keys.ring().store;
    store.close().await.unwrap();
    let (epoch, failed) = parse_file_name(&io.list().unwrap()[0]).unwrap();
    let header = FileHeader {
        read_only: false,
        file: FileId::new(),
        store: id,
        epoch,
        sequence: 9,
        volume: 0,
        created: UnixMs(1),
        archive: UnixMs(2),
        replaces: Some((failed, 1 << 40)),
    };
    let handle = io.create(&file_name(epoch, header.file), 8192).unwrap();
    handle.write_at(0, &header.encode()).unwrap();
    handle.sync_data().unwrap();
    // It is read twice: the first reading closes it.
    let (_, report) = open(&io, &Arc::new(Saving::default()));
    assert_eq!((report.resumed, report.damage.len()), (false, 0));
    io.power_cut(|| false);
    let verified = verify_on(&options(), Arc::new(io.clone()), Depth::Decrypt, &mut |_| {}).unwrap();
    assert_eq!(verified.damage, []);
}
