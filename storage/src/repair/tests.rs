//! Tests of repair.

use std::fs;
use std::io::ErrorKind;
use std::path::Path;

use bytes::Bytes;
use vidar_core::entry::SharedEntry;
use vidar_core::record::FragmentFlags;
use vidar_core::source::FragmentSource;

use super::*;
use crate::backend::fault::{Fault, FaultyIo, Op};
use crate::backend::memory::MemoryIo;
use crate::testing::{Opened, media, open, open_with, options, read_back, source};
use crate::verify_on;

const COUNT: u64 = 12;

fn how(folder: &Path) -> RepairOptions {
    RepairOptions { disposal: Disposal::Quarantine(folder.to_owned()), dry_run: false, now: UnixMs(1_700_000_000_000) }
}

fn drop_old() -> RepairOptions {
    RepairOptions { disposal: Disposal::Drop, dry_run: false, now: UnixMs(1_700_000_000_000) }
}

fn fix(io: &MemoryIo, how: &RepairOptions) -> RepairReport {
    repair_on(&options(), Arc::new(io.clone()), how, &mut |_| {}).unwrap()
}

fn verified(io: &MemoryIo) -> Vec<Damage> {
    verify_on(&options(), Arc::new(io.clone()), Depth::Decrypt, &mut |_| {}).unwrap().damage
}

/// Every byte of a directory.
fn contents(io: &MemoryIo) -> BTreeMap<String, Vec<u8>> {
    let segment = |name: String| {
        let handle = io.open(&name).unwrap();
        let bytes = reader::read(&*handle, 0, handle.len().unwrap() as usize).unwrap();
        (name, bytes)
    };
    let small = ["epoch", "keyring.a", "keyring.b"];
    let small = small.map(|name| (name.to_owned(), io.read_small(name).unwrap().unwrap()));
    io.list().unwrap().into_iter().map(segment).chain(small).collect()
}

/// Two closed files, the first with fragments of both sizes; of each its media, in order.
async fn written() -> (MemoryIo, Vec<(SharedEntry, Bytes)>) {
    let io = MemoryIo::new();
    let opened = open(&io);
    let from = source(&opened.store).await;
    let mut all = Vec::new();
    for i in 0..COUNT {
        let bytes = media(i, if i % 2 == 0 { 3_000 } else { 70_000 });
        let number = from.append(&opened.store, &bytes).await;
        all.push((opened.seen.entry(number).unwrap(), bytes));
    }
    opened.store.close().await.unwrap();
    assert!(io.list().unwrap().len() >= 2);
    (io, all)
}

fn name_of(io: &MemoryIo, entry: &SharedEntry) -> String {
    io.list().unwrap().into_iter().find(|name| name.contains(&entry.record.file.to_string())).unwrap()
}

fn damage(io: &MemoryIo, name: &str, at: u64) {
    io.tamper(name, |bytes| bytes[at as usize] ^= 0x10);
}

fn gaps(opened: &Opened) -> Vec<GapRecord> {
    let controls = opened.seen.controls();
    let gap = |record: &Arc<ControlRecord>| match &record.body {
        Control::Gap(gap) => Some(gap.clone()),
        _ => None,
    };
    controls.iter().filter_map(gap).collect()
}

/// All but `lost` play as they were; what is lost is not listed.
async fn plays(opened: &Opened, all: &[(SharedEntry, Bytes)], lost: &[usize]) {
    for (index, (entry, bytes)) in all.iter().enumerate() {
        let found = opened.seen.entries().into_iter().rev().find(|found| found.meta.number == entry.meta.number);
        if lost.contains(&index) {
            assert!(found.is_none(), "fragment {index} is still listed");
            continue;
        }
        let found = found.unwrap_or_else(|| panic!("fragment {index} is gone"));
        assert_eq!((found.meta, &found.totals, found.archived), (entry.meta, &entry.totals, found.archived));
        assert_eq!(read_back(&opened.store, &found).await, *bytes, "fragment {index}");
        assert!(opened.store.config(&found).await.is_ok());
    }
}

#[tokio::test]
async fn a_healthy_directory_is_not_changed() {
    let (io, _) = written().await;
    let before = contents(&io);
    let report = fix(&io, &drop_old());
    assert!(report.is_healthy() && report.files.is_empty());
    assert_eq!(contents(&io), before);
}

#[tokio::test]
async fn one_byte_of_media_costs_its_fragment_and_leaves_a_gap() {
    let (io, all) = written().await;
    let entry = &all[3].0;
    let name = name_of(&io, entry);
    damage(&io, &name, entry.record.offset + u64::from(entry.record.head_len) + 40_000);
    for depth in [Depth::Checksum, Depth::Decrypt] {
        let report = verify_on(&options(), Arc::new(io.clone()), depth, &mut |_| {}).unwrap();
        let found: Vec<_> = report.damage.iter().map(|damage| (&damage.file, damage.offset, damage.record)).collect();
        assert_eq!(found, [(&name, entry.record.offset, Some((entry.meta.stream, entry.meta.number)))]);
        assert_eq!(report.streams[&entry.meta.stream].as_str(), "cam-1");
    }
    let (before, folder) = (contents(&io), tempfile::tempdir().unwrap());
    let dry = fix(&io, &RepairOptions { dry_run: true, ..how(folder.path()) });
    assert_eq!(contents(&io), before, "a dry run changes nothing");
    let report = fix(&io, &how(folder.path()));
    assert_eq!((&report.gaps, &report.damage), (&dry.gaps, &dry.damage));
    assert_eq!((report.files[0].lost, report.files[0].restored), (1, 0));
    assert_eq!(fs::read(folder.path().join(&name)).unwrap(), before[&name], "kept as it was");
    assert_eq!(verified(&io), []);
    assert!(fix(&io, &drop_old()).is_healthy());

    let opened = open(&io);
    plays(&opened, &all, &[3]).await;
    let gap = &gaps(&opened)[..];
    assert_eq!((gap.len(), gap[0].cause, gap[0].count), (1, GapCause::Damage, 50));
    assert_eq!((gap[0].start, gap[0].end), (entry.meta.producer_start, entry.meta.producer_end()));
    assert_eq!((gap[0].run, gap[0].ordinal), (Some(entry.meta.run), Some(entry.meta.ordinal)));
    // The log goes on behind it.
    let again = open(&io.image());
    assert_eq!(gaps(&again).len(), 1, "each gap is told once");
}

#[tokio::test]
async fn what_stands_twice_is_made_whole() {
    let (io, all) = written().await;
    let (entry, last) = (&all[3].0, &all[COUNT as usize - 1].0);
    assert_ne!(entry.record.file, last.record.file);
    let name = name_of(&io, entry);
    let trailer = reader::read_trailer(&*io.open(&name).unwrap(), entry.record.file).unwrap().unwrap();
    let batch = entry.record.offset / 4096 * 4096 - 4096;
    let spots = [
        ("the head of a fragment", entry.record.offset + 200),
        ("the header of a fragment", entry.record.offset + 20),
        ("a control record", 4096 + 64 + 180),
        ("the header of the file", 40),
        ("the header of a batch", batch + 9),
        ("heads in the footer", trailer.copies_offset + 9),
        ("entries in the footer", trailer.entries_offset + 9),
        ("padding", batch + 64 + 40),
    ];
    for (what, at) in spots {
        let image = io.image();
        damage(&image, &name, at);
        assert!(!verified(&image).is_empty(), "{what} is not noticed");
        let report = fix(&image, &drop_old());
        assert_eq!((report.gaps.len(), report.refused.len()), (0, 0), "{what}: {report:?}");
        assert_eq!(verified(&image), [], "{what}");
        plays(&open(&image), &all, &[]).await;
    }
}

#[tokio::test]
async fn a_config_is_taken_from_another_file_or_its_fragments_are_lost() {
    let (io, all) = written().await;
    let name = name_of(&io, &all[0].0);
    let handle = io.open(&name).unwrap();
    let ring = crate::crypto::keychain::read(&io, &options()).unwrap().unwrap().0;
    let trailer = reader::read_trailer(&*handle, all[0].0.record.file).unwrap().unwrap();
    let entries = reader::read_entries(&*handle, &trailer, ring.log_key()).unwrap();
    let config = entries.iter().find(|entry| entry.shape.kind == RecordKind::Config).unwrap();
    damage(&io, &name, config.offset + 190);
    let image = io.image();
    let report = fix(&image, &drop_old());
    assert_eq!((report.files[0].restored, report.files[0].lost, report.gaps.len()), (1, 0, 0));
    assert_eq!(verified(&image), []);
    plays(&open(&image), &all, &[]).await;

    let in_first: Vec<usize> = (0..all.len()).filter(|i| all[*i].0.record.file == all[0].0.record.file).collect();
    for other in io.list().unwrap().into_iter().filter(|other| *other != name) {
        io.unlink(&other).unwrap();
    }
    // They are not missed.
    io.remove_small("files");
    let report = fix(&io, &drop_old());
    assert_eq!(report.gaps.len(), in_first.len());
    assert_eq!(verified(&io), []);
    assert_eq!(gaps(&open(&io)).len(), in_first.len());
}

#[tokio::test]
async fn of_a_fragment_in_parts_the_good_ones_are_left() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, from) = (&opened.store, source(&opened.store).await);
    let number = store.next_number(UnixMs(5));
    for index in 0..3 {
        store.append(from.part(number, index, &media(index.into(), 100_000))).await.unwrap();
    }
    store.append(from.close(number, 3, 100_000, &media(9, 10))).await.unwrap();
    let other = from.append(store, &media(5, 10)).await;
    let (entry, other) = (opened.seen.entry(number).unwrap(), opened.seen.entry(other).unwrap());
    store.close().await.unwrap();
    assert_ne!(entry.parts[1].file, entry.record.file, "over two files");
    let part = SharedEntry::new(vidar_core::entry::FragmentEntry { record: entry.parts[1], ..(*entry).clone() });
    damage(&io, &name_of(&io, &part), entry.parts[1].offset + 60_000);
    let report = fix(&io, &drop_old());
    assert_eq!((report.files.len(), report.gaps.len(), report.gaps[0].ordinal), (2, 1, None));
    assert_eq!(verified(&io), []);
    let again = open(&io);
    let found = again.seen.entry(number).unwrap();
    assert!(found.meta.flags.contains(FragmentFlags::INCOMPLETE) && found.meta.flags.contains(FragmentFlags::LOSSY));
    assert_eq!(read_back(&again.store, &found).await, [media(0, 100_000), media(2, 100_000)].concat());
    plays(&again, &[(other, media(5, 10))], &[]).await;
    again.store.close().await.unwrap();
    assert_eq!(verified(&io), [], "what a fragment does not refer to is not missing");
}

#[tokio::test]
async fn damage_in_a_file_that_a_crash_left_is_repaired_too() {
    let io = MemoryIo::new();
    let opened = open_with(StoreOptions { segment_bytes: 16 << 20, ..options() }, &io);
    let from = source(&opened.store).await;
    let mut all = Vec::new();
    for i in 0..6 {
        let number = from.append(&opened.store, &media(i, 50_000)).await;
        all.push((opened.seen.entry(number).unwrap(), media(i, 50_000)));
    }
    io.power_cut(|| true);
    let name = name_of(&io, &all[2].0);
    damage(&io, &name, all[2].0.record.offset + 30_000);
    // By the next start first: it closes the file without the record, and verification still finds it.
    for start_first in [false, true] {
        let image = io.image();
        if start_first {
            open(&image).store.close().await.unwrap();
        }
        let found = verified(&image);
        assert_eq!(found.len(), 1, "{found:?}");
        assert_eq!(found[0].record, Some((from.stream, all[2].0.meta.number)));
        let report = fix(&image, &drop_old());
        assert_eq!((report.gaps.len(), report.gaps[0].start), (1, all[2].0.meta.producer_start));
        assert_eq!(verified(&image), []);
        let opened = open(&image);
        plays(&opened, &all, &[2]).await;
        assert_eq!(gaps(&opened), report.gaps);
    }
}

#[tokio::test]
async fn a_repair_may_crash_anywhere_and_is_done_again() {
    let (memory, all) = written().await;
    let (entry, second) = (&all[3].0, &all[COUNT as usize - 1].0);
    for entry in [entry, second] {
        let at = entry.record.offset + u64::from(entry.record.head_len) + 1_000;
        damage(&memory, &name_of(&memory, entry), at);
    }
    let lost = [3, COUNT as usize - 1];
    let mut crashes = 0;
    for op in [Op::Create, Op::Write, Op::Sync, Op::Truncate, Op::Unlink, Op::Replace, Op::Append] {
        for (after, mut seed) in
            (0..).flat_map(|after| [1, 77, u64::MAX].map(|seed| (after, u64::from(after).wrapping_mul(seed))))
        {
            let image = memory.image();
            let io = FaultyIo::new(Arc::new(image.clone()));
            io.fail(Fault { op, after, times: u32::MAX, error: ErrorKind::Other, torn_bytes: 5_000 });
            if repair_on(&options(), Arc::new(io), &drop_old(), &mut |_| {}).is_ok() {
                break;
            }
            crashes += 1;
            image.power_cut(|| {
                seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                seed >> 63 == 1
            });
            // The server starts in between, or the repair is done again at once.
            let started = image.image();
            plays_some(&started, &all, &lost).await;
            for io in [started, image] {
                fix(&io, &drop_old());
                assert_eq!(verified(&io), [], "{op:?} {after}");
                let opened = open(&io);
                plays(&opened, &all, &lost).await;
                assert_eq!(gaps(&opened).len(), 2, "{op:?} {after}");
            }
        }
    }
    assert!(crashes > 10, "{crashes}");
}

/// Whatever is not lost plays.
async fn plays_some(io: &MemoryIo, all: &[(SharedEntry, Bytes)], lost: &[usize]) {
    let opened = open(io);
    let good: Vec<_> = (0..all.len()).filter(|index| !lost.contains(index)).map(|index| all[index].clone()).collect();
    plays(&opened, &good, &[]).await;
    opened.store.close().await.unwrap();
}

#[tokio::test]
async fn records_whose_keys_are_missing_are_not_dropped() {
    let io = MemoryIo::new();
    let opened = open(&io);
    let (store, keyring) = (&opened.store, io.read_small("keyring.a").unwrap().unwrap());
    let from = source(store).await;
    from.append(store, &media(1, 10)).await;
    store.close().await.unwrap();
    // An older copy of the keyring was put back.
    for name in ["keyring.a", "keyring.b"] {
        io.replace_small(name, &keyring).unwrap();
    }
    let before = contents(&io);
    let error = repair_on(&options(), Arc::new(io.clone()), &drop_old(), &mut |_| {}).unwrap_err();
    assert!(error.to_string().contains("cam-1"), "{error}");
    assert_eq!(contents(&io), before);
}

#[tokio::test]
async fn a_copy_of_the_keyring_and_files_of_a_later_version() {
    let (io, all) = written().await;
    damage(&io, "keyring.b", 30);
    let name = name_of(&io, &all[0].0);
    let newer = io.image();
    newer.tamper(&name, |bytes| {
        bytes[9] = 2;
        let crc = crc32c::crc32c(&bytes[..4092]);
        bytes[4092..4096].copy_from_slice(&crc.to_be_bytes());
    });
    let refused = repair_on(&options(), Arc::new(newer), &drop_old(), &mut |_| {});
    assert!(matches!(refused, Err(OpenError::Unsupported { file, .. }) if file == name));
    let report = fix(&io, &drop_old());
    assert!(report.keyring_repaired && report.files.is_empty() && report.refused.is_empty());
    assert_eq!(io.read_small("keyring.a").unwrap(), io.read_small("keyring.b").unwrap());
}
