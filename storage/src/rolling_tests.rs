//! Tests of the rolling module.

use vidar_core::control::{Control, ControlRecord};
use vidar_core::ids::{ConfigId, StreamId};
use vidar_core::time::UnixMs;

use super::*;
use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;
use crate::segment_file::header::file_name;
use crate::segment_file::record::{Content, RecordKind, RecordShape};
use crate::testing::{Opened, media, open, open_with, options, source};
use crate::{Depth, verify_on};

/// A store that did nothing yet, and files of its own beside it. Each is half full when it is made.
fn rolling(io: &MemoryIo) -> (Opened, Rolling) {
    let mut small = options();
    small.segment_bytes = 8192;
    let opened = open_with(small, io);
    let rolling = Rolling::new(Arc::clone(opened.store.shared()), &OpenFragments::new());
    (opened, rolling)
}

fn name(header: &FileHeader) -> String {
    file_name(header.epoch, header.file)
}

/// Appends a control record to the open file.
fn append(rolling: &mut Rolling) {
    let shared = Arc::clone(&rolling.shared);
    let keys = shared.keys.ring();
    let number = shared.next_number(UnixMs(1));
    let body = Control::Floor { stream: StreamId::new(), below: number, next_ordinal: 0, discontinuity: 0 };
    let plain = ControlRecord { number, body }.encode();
    let shape = RecordShape::bare(RecordKind::Control, StreamId::from_bytes([0; 16]), number, ConfigId::NONE);
    let writer = &mut rolling.ensure_open(0, false).unwrap().writer;
    writer.begin();
    writer.push(shape, keys.log_key(), &Content { table: &plain, ..Content::default() }, None);
    writer.commit(UnixMs(1)).unwrap();
}

#[test]
fn the_file_that_was_made_ahead_is_used_next() {
    let io = MemoryIo::new();
    let (opened, mut rolling) = rolling(&io);
    append(&mut rolling);
    let first = rolling.open(0).unwrap().writer.header;
    rolling.look_ahead();
    rolling.look_ahead();
    rolling.roll(0, &OpenFragments::new());
    append(&mut rolling);
    let second = rolling.open(0).unwrap().writer.header;
    assert_eq!(
        (first.sequence, second.sequence, second.replaces),
        (0, 1, None),
        "2 would be one that was made just now"
    );
    opened.store.shared().closings.wait();
    let len = io.open(&name(&first)).unwrap().len().unwrap();
    assert_eq!(len, 4 * 4096, "header, batch, copies and entries, trailer");
    rolling.finish(&OpenFragments::new()).unwrap();
    let names = [name(&first), name(&second)];
    assert_eq!(std::collections::BTreeSet::from(names).into_iter().collect::<Vec<_>>(), io.list().unwrap());
}

#[test]
fn after_a_failure_the_next_file_says_what_it_replaces() {
    let io = MemoryIo::new();
    let (_opened, mut rolling) = rolling(&io);
    append(&mut rolling);
    let (first, end) = {
        let writer = &rolling.open(0).unwrap().writer;
        (writer.header, writer.durable_through())
    };
    rolling.look_ahead();
    rolling.condemn(0, &io::ErrorKind::Other.into());
    append(&mut rolling);
    let second = rolling.open(0).unwrap().writer.header;
    assert_eq!(second.replaces, Some((first.file, end)));
    assert_eq!(second.sequence, 2, "behind the spare, which is not used any more");
    rolling.finish(&OpenFragments::new()).unwrap();
    assert_eq!(io.list().unwrap().len(), 2);
}

#[test]
fn files_that_are_old_at_once_are_closed_one_in_each_rest() {
    let io = MemoryIo::new();
    let (opened, mut rolling) = rolling(&io);
    for class in 0..CLASS_COUNT as u8 {
        rolling.ensure_open(class, false).unwrap().holds_media = true;
    }
    opened.clock.advance(opened.store.shared().options.segment_age);
    for left in (0..CLASS_COUNT).rev() {
        rolling.roll_due(&OpenFragments::new());
        assert_eq!(rolling.all_open().count(), left);
    }
    rolling.finish(&OpenFragments::new()).unwrap();
}

#[test]
fn a_spare_does_not_outlive_the_store() {
    for crash in [false, true] {
        let io = MemoryIo::new();
        let (opened, mut rolling) = rolling(&io);
        append(&mut rolling);
        rolling.look_ahead();
        if crash {
            let spare = rolling.take_spare().unwrap();
            io.power_cut(|| false);
            assert!(io.list().unwrap().contains(&spare.name()), "it was synced");
        } else {
            rolling.finish(&OpenFragments::new()).unwrap();
        }
        // The store itself still has the directory.
        let (io, _opened) = (io.image(), opened);
        let report = verify_on(&options(), Arc::new(io.clone()), Depth::Decrypt, &mut |_| {}).unwrap();
        assert_eq!(report.damage, []);
        let again = open(&io);
        let report = again.report;
        assert_eq!((report.files, report.unclosed, report.damage.len()), (1, u64::from(crash), 0));
        assert_eq!(io.list().unwrap().len(), 1);
    }
}

#[test]
fn an_empty_file_that_replaces_another_is_kept() {
    let io = MemoryIo::new();
    let (opened, mut rolling) = rolling(&io);
    append(&mut rolling);
    rolling.condemn(0, &io::ErrorKind::Other.into());
    let header = rolling.ensure_open(0, false).unwrap().writer.header;
    io.power_cut(|| true);
    drop((opened, rolling));
    let again = open(&io);
    assert_eq!((again.report.files, again.report.unclosed), (2, 2));
    assert!(io.list().unwrap().contains(&name(&header)));
}

#[test]
fn without_a_thread_the_caller_does_the_jobs() {
    let io = MemoryIo::new();
    let (opened, mut rolling) = rolling(&io);
    let (made, spares) = mpsc::channel();
    let worker = Worker { shared: Arc::clone(&rolling.shared), made, closed: Ok(()) };
    (rolling.helper, rolling.spares) = (Helper::Caller(worker), spares);
    append(&mut rolling);
    rolling.look_ahead();
    assert_eq!(io.list().unwrap().len(), 2);
    rolling.roll(0, &OpenFragments::new());
    assert_eq!(*opened.store.shared().closings.lock(), 0);
    append(&mut rolling);
    rolling.finish(&OpenFragments::new()).unwrap();
    let report = open(&io.image()).report;
    assert_eq!((report.files, report.unclosed, report.controls), (2, 0, 2));
}

#[tokio::test]
async fn files_follow_each_other_in_the_order_of_the_log() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    while opened.store.stats().files < 5 {
        from.append(&opened.store, &media(1, 30_000)).await;
    }
    let mut order = Vec::new();
    for entry in opened.seen.entries() {
        let name = opened.store.shared().files.name(entry.record.file).unwrap();
        let mut header = vec![0; 4096];
        io.open(&name).unwrap().read_at(0, &mut header).unwrap();
        order.push(FileHeader::decode(&header).unwrap().sequence);
    }
    assert!(order.is_sorted() && order.last().unwrap() >= &4, "{order:?}");
}
