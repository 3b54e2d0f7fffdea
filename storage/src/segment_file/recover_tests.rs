//! Tests of the recover module.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::ids::{ConfigId, FragmentNumber, StreamId};

use super::super::footer;
use super::super::header::FileHeader;
use super::super::record::{Content, RecordShape};
use super::super::writer::Writer;
use super::*;
use crate::backend::SegmentIo;
use crate::backend::layer::HandleLayer;
use crate::backend::memory::MemoryIo;
use crate::crypto::keys::Secret;

proptest! {
    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..20_000)) {
        crate::fuzz::segment_scan(&input);
    }
}

#[test]
fn an_empty_file_has_nothing_and_room_for_a_footer_behind_its_header() {
    for len in [0, 1, 4096, 4100, 100_000] {
        let handle = MemoryIo::new().create("f.vseg", len).unwrap();
        let keys = Keyring::create(&crate::Secret::random());
        let scan = scan(&*handle, FileId::new(), None, 0, &keys).unwrap();
        assert_eq!((scan.records.len(), scan.bad.len(), scan.data_end), (0, 0, 4096));
        assert_eq!(scan.dropped_bytes(), 0);
    }
}

const FILE: FileId = FileId::from_bytes([7; 16]);

/// A file of batches, the first of which holds a config; a number is a part with so many bytes of media.
fn write(batches: &[&[usize]]) -> (Arc<dyn SegmentHandle>, Keyring, Vec<Vec<RecordEntry>>) {
    let (writer, keys, entries) = begin(batches);
    (writer.handle.clone(), keys, entries)
}

/// As `write`, for more batches to follow.
fn begin(batches: &[&[usize]]) -> (Writer, Keyring, Vec<Vec<RecordEntry>>) {
    let header = FileHeader {
        read_only: false,
        file: FILE,
        store: uuid::Uuid::nil(),
        epoch: 1,
        sequence: 0,
        volume: 0,
        created: UnixMs(1),
        archive: UnixMs(2),
        replaces: None,
    };
    let stream = StreamId::new();
    let keys = Keyring::create(&Secret::random()).with_streams(&[stream]);
    let mut writer = Writer::create(&MemoryIo::new(), header, 1 << 20).unwrap();
    let mut entries = Vec::new();
    writer.begin();
    let shape = RecordShape::bare(RecordKind::Config, stream, FragmentNumber::new(1, 2, 3), ConfigId([1; 16]));
    writer.push(shape, keys.of_stream(stream, 1).unwrap(), &Content::default(), None);
    writer.commit(UnixMs(9)).unwrap();
    for batch in batches {
        writer.begin();
        let pushed = batch.iter().map(|len| {
            let shape = RecordShape::bare(RecordKind::Part, stream, FragmentNumber::new(1, 2, 3), ConfigId([1; 16]));
            let media = [Bytes::from(vec![0xaa; *len])];
            let content = Content { media: &media, ..Content::default() };
            writer.push(shape, keys.of_stream(stream, 1).unwrap(), &content, None)
        });
        entries.push(pushed.collect());
        writer.commit(UnixMs(9)).unwrap();
    }
    (writer, keys, entries)
}

/// Of all parts.
fn offsets(scan: &Scan) -> Vec<u64> {
    let parts = scan.records.iter().filter(|(entry, _)| entry.shape.kind == RecordKind::Part);
    parts.map(|(entry, _)| entry.offset).collect()
}

/// Everything but the record at `lost`.
fn others(entries: &[Vec<RecordEntry>], lost: u64) -> Vec<u64> {
    entries.iter().flatten().map(|entry| entry.offset).filter(|offset| *offset != lost).collect()
}

#[test]
fn a_rotten_record_in_the_last_batch_costs_no_other_and_is_damage() {
    // The middle one ends before a block on which a large one starts: zeros in its place look like the padding there. No
    // header goes over the end of a sector: a zero in it there would look torn, if the header does not check.
    for batches in [&[&[50][..], &[300, 3000, 70_000, 10]], &[&[300, 3000, 70_000, 10][..], &[50]]] {
        let (handle, keys, entries) = write(batches);
        let batch = entries.iter().find(|batch| batch.len() == 4).unwrap();
        for entry in batch {
            let before = super::read(&*handle, entry.offset, entry.shape.record_len() as usize).unwrap();
            for (at, len) in [(0, 1), (40, 9), (0, 168), (170, 1), (before.len() - 1, 1)] {
                let mut rotten = before.clone();
                rotten[at..at + len].iter_mut().for_each(|byte| *byte ^= 0x55);
                handle.write_at(entry.offset, &rotten).unwrap();
                let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
                assert_eq!(offsets(&found), others(&entries, entry.offset), "{} {at}", entry.offset);
                let spans: Vec<_> = found.bad.iter().map(|bad| bad.offset).collect();
                assert_eq!((spans, found.torn.as_slice()), (vec![entry.offset], &[][..]));
                assert!(found.data_end >= batch[3].end());
            }
            handle.write_at(entry.offset, &before).unwrap();
        }
        let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
        assert_eq!((offsets(&found).len(), found.bad, found.torn), (5, vec![], vec![]));
    }
}

#[test]
fn a_sector_of_the_last_batch_that_was_written_in_part_is_torn() {
    let (handle, keys, entries) = write(&[&[50], &[100, 3000, 3, 2500]]);
    let (start, end) = (entries[1][0].offset - 64, entries[1][3].end());
    for cut in (start..end).step_by(8) {
        let before = super::read(&*handle, cut, 512 - cut as usize % 512).unwrap();
        handle.write_at(cut, &vec![0; before.len()]).unwrap();
        let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
        assert_eq!(found.bad, [], "cut at {cut}");
        handle.write_at(cut, &before).unwrap();
    }
}

#[test]
fn a_last_batch_that_lacks_sectors_is_torn_and_an_earlier_one_is_damaged() {
    for last in [true, false] {
        let large: &[usize] = &[100, 3000, 70_000, 10];
        let (handle, keys, entries) = write(&if last { [&[50], large] } else { [large, &[50]] });
        let batch = &entries[usize::from(last)];
        let (start, end) = (batch[0].offset - 64, batch[3].end());
        for sector in (start + 512..end).step_by(512) {
            let before = super::read(&*handle, sector, 512.min((end - sector) as usize)).unwrap();
            handle.write_at(sector, &vec![0; before.len()]).unwrap();
            let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
            let hit = |entry: &RecordEntry| entry.offset < sector + 512 && sector < entry.end();
            let whole = entries.iter().flatten().filter(|entry| !hit(entry)).map(|entry| entry.offset);
            assert_eq!(offsets(&found), whole.collect::<Vec<_>>(), "sector {sector}");
            if before.iter().any(|byte| *byte != 0) {
                assert_eq!((found.torn.is_empty(), found.bad.is_empty()), (!last, last), "sector {sector}");
            }
            handle.write_at(sector, &before).unwrap();
        }
    }
}

#[test]
fn the_last_batch_outlives_its_header() {
    let (handle, keys, entries) = write(&[&[50], &[100, 3000, 70_000, 10]]);
    handle.write_at(entries[1][0].offset - 64, &[0; 64]).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!(offsets(&found), others(&entries, 0));
    assert_eq!(found.data_end, entries[1][3].end().next_multiple_of(4096));
    // So what stands before it was synced.
    handle.write_at(entries[0][0].offset + 168, &[0xee]).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!((found.bad.len(), found.torn.len()), (1, 0));
}

/// A file of a part and, in its last batch, of control records; each of these is 200 bytes and more.
fn write_controls(count: usize) -> (Arc<dyn SegmentHandle>, Keyring, Vec<RecordEntry>) {
    let (mut writer, keys, _) = begin(&[&[50]]);
    writer.begin();
    let controls = (0..count).map(|index| {
        let number = FragmentNumber::new(index as u64, 2, 3);
        let shape = RecordShape::bare(RecordKind::Control, StreamId::from_bytes([0; 16]), number, ConfigId::NONE);
        let content = Content { table: &[0xbb; 600], ..Content::default() };
        writer.push(shape, keys.outer(&shape).unwrap(), &content, None)
    });
    let controls = controls.collect();
    writer.commit(UnixMs(9)).unwrap();
    (writer.handle.clone(), keys, controls)
}

/// Writes the footer that a start does, but for its trailer: then the power fails.
fn begin_footer(handle: &dyn SegmentHandle, scan: &Scan, keys: &Keyring) {
    let entries: Vec<_> = scan.records.iter().map(|(entry, _)| entry.clone()).collect();
    let copied = scan.records.iter().filter(|(entry, _)| entry.has_copy());
    let copies: Vec<u8> = copied.flat_map(|(_, head)| head).copied().collect();
    let footer = footer::encode(keys.log_key(), FILE, scan.data_end, UnixMs(9), &entries, &copies);
    handle.truncate(scan.data_end).unwrap();
    handle.write_at(scan.data_end, &footer[..footer.len() - BLOCK_LEN as usize]).unwrap();
}

#[test]
fn a_torn_batch_is_no_damage_once_a_footer_was_begun_behind_it() {
    let (handle, keys, controls) = write_controls(4);
    let sector = controls[1].offset.next_multiple_of(512);
    handle.write_at(sector, &[0; 512]).unwrap();
    let torn = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!((torn.bad.as_slice(), torn.torn.is_empty(), torn.records.len()), (&[][..], false, 5));
    begin_footer(&*handle, &torn, &keys);
    let again = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!((again.bad.as_slice(), &again.records), (&[][..], &torn.records));
    assert!(again.torn.starts_with(&torn.torn), "{:?}", again.torn);
}

#[test]
fn a_record_that_a_footer_lists_and_that_does_not_open_is_damage() {
    let (handle, keys, controls) = write_controls(4);
    let whole = scan(&*handle, FILE, None, 0, &keys).unwrap();
    begin_footer(&*handle, &whole, &keys);
    // Not even its header is left.
    let (start, end) = (controls[1].offset, controls[2].offset);
    handle.write_at(start, &vec![0; (end - start) as usize]).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!(found.bad.iter().map(|bad| bad.offset).collect::<Vec<_>>(), [start]);
}

#[test]
fn records_of_a_torn_batch_do_not_count_without_their_config() {
    let (handle, keys, entries) = write(&[&[50], &[100, 3000, 70_000, 10]]);
    handle.write_at(4096, &[0; 4096]).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!(offsets(&found), others(&entries, 0), "what was synced counts");
    handle.write_at(entries[1][2].offset + 4096, &[0; 512]).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!(offsets(&found), [entries[0][0].offset]);
    assert_eq!(found.torn.len(), 4);
}

#[test]
fn a_record_copied_over_another_is_found_once_and_the_other_is_missed() {
    for last in [true, false] {
        let (handle, keys, entries) = write(if last { &[&[5], &[100, 100, 100]] } else { &[&[100, 100, 100], &[5]] });
        let batch = &entries[usize::from(last)];
        let bytes = super::read(&*handle, batch[0].offset, batch[0].shape.record_len() as usize).unwrap();
        handle.write_at(batch[1].offset, &bytes).unwrap();
        let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
        assert_eq!(offsets(&found), others(&entries, batch[1].offset));
        assert_eq!(found.bad.iter().map(|bad| bad.offset).collect::<Vec<_>>(), [batch[1].offset]);
    }
}

#[test]
fn records_in_each_others_place_are_kept_and_their_batch_is_reported() {
    let (handle, keys, entries) = write(&[&[100, 100, 100], &[5]]);
    let [first, second] = [&entries[0][0], &entries[0][2]];
    let read = |entry: &RecordEntry| super::read(&*handle, entry.offset, entry.shape.record_len() as usize).unwrap();
    let (a, b) = (read(first), read(second));
    handle.write_at(first.offset, &b).unwrap();
    handle.write_at(second.offset, &a).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!((offsets(&found).len(), found.bad.len()), (4, 1));
}

#[test]
fn records_whose_keys_are_missing_are_kept_unopened() {
    for (batches, torn) in [(&[&[50, 60][..], &[70]], false), (&[&[50][..], &[60, 70_000]], true)] {
        let (handle, keys, entries) = write(batches);
        let all = scan(&*handle, FILE, None, 0, &keys).unwrap();
        let without = Keyring::create(&Secret::random());
        let found = scan(&*handle, FILE, None, 0, &without).unwrap();
        assert_eq!((offsets(&found), found.bad.len()), (offsets(&all), 0));
        if torn {
            // What was not written whole is not kept, although no tag can be checked.
            handle.write_at(entries[1][1].offset + 8192, &[0; 512]).unwrap();
            let found = scan(&*handle, FILE, None, 0, &without).unwrap();
            assert_eq!((offsets(&found), found.bad.len()), (others(&entries, entries[1][1].offset), 0));
            assert!(!found.torn.is_empty());
        }
    }
}

/// A disk on which some blocks do not read.
struct Unreadable(Arc<dyn SegmentHandle>, Vec<u64>);

impl HandleLayer for Unreadable {
    fn inner(&self) -> &dyn SegmentHandle {
        &*self.0
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = offset + buffer.len() as u64;
        match self.1.iter().any(|block| *block < end && offset < block + BLOCK_LEN) {
            true => Err(io::Error::other("medium error")),
            false => self.0.read_at(offset, buffer),
        }
    }
}

#[test]
fn a_block_that_does_not_read_costs_the_records_it_touches() {
    let (handle, keys, entries) = write(&[&[50, 20_000, 70_000, 9000], &[3000, 3000, 3000], &[5000]]);
    let last = entries[2][0].end();
    for block in (8192..last.next_multiple_of(4096)).step_by(4096) {
        let hit = |entry: &RecordEntry| entry.offset < block + BLOCK_LEN && block < entry.end();
        let broken = Unreadable(Arc::clone(&handle), vec![block]);
        let found = scan(&broken, FILE, None, 0, &keys).unwrap();
        let whole = entries.iter().flatten().filter(|entry| !hit(entry)).map(|entry| entry.offset);
        assert_eq!(offsets(&found), whole.collect::<Vec<_>>(), "block {block}");
        assert!(found.bad.iter().any(|bad| bad.offset == block && bad.detail.contains("medium error")));
    }
    // A disk that reads nothing any more is not a matter of a few sectors.
    let broken = Unreadable(Arc::clone(&handle), (0..100).map(|block| block * 4096).collect());
    assert!(scan(&broken, FILE, None, 0, &keys).is_err());
}

/// The first so many reads of the byte at the offset flip a bit, never the same one twice in a row.
struct Flipping {
    inner: Arc<dyn SegmentHandle>,
    offset: u64,
    times: std::sync::atomic::AtomicU32,
}

impl HandleLayer for Flipping {
    fn inner(&self) -> &dyn SegmentHandle {
        &*self.inner
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.inner.read_at(offset, buffer)?;
        let less = |left: u32| left.checked_sub(1);
        let order = std::sync::atomic::Ordering::Relaxed;
        let hit = self.offset.checked_sub(offset).and_then(|at| buffer.get_mut(usize::try_from(at).ok()?));
        if let Some(byte) = hit
            && let Ok(left) = self.times.fetch_update(order, order, less)
        {
            *byte ^= 1 << (left % 8);
        }
        Ok(())
    }
}

#[test]
fn a_read_that_flips_a_bit_costs_nothing_and_one_that_always_does_is_not_believed() {
    let (handle, keys, entries) = write(&[&[50, 20_000], &[3000, 70_000], &[5000]]);
    let all: Vec<_> = entries.iter().flatten().map(|entry| entry.offset).collect();
    let flipping = |offset, times| Flipping { inner: Arc::clone(&handle), offset, times: times_of(times) };
    // In a header of a batch, in a record of an early and of the last batch, behind all.
    for offset in [8200, entries[0][1].offset + 7000, entries[2][0].offset + 300, entries[2][0].end() + 9000] {
        for times in 1..=4 {
            let found = scan(&flipping(offset, times), FILE, None, 0, &keys).unwrap();
            assert_eq!((offsets(&found), found.unread), (all.clone(), false), "{offset}, {times} times");
            assert_eq!((found.bad, found.torn), (vec![], vec![]));
        }
        let found = scan(&flipping(offset, u32::MAX), FILE, None, 0, &keys).unwrap();
        assert!(found.unread, "{offset}");
    }
}

fn times_of(times: u32) -> std::sync::atomic::AtomicU32 {
    std::sync::atomic::AtomicU32::new(times)
}

#[test]
fn a_file_that_ends_within_its_last_batch_is_torn() {
    let (_, _, entries) = write(&[&[50], &[100, 3000]]);
    for end in (entries[1][0].offset + 8..entries[1][1].end() - 8).step_by(8) {
        let (handle, keys, _) = write(&[&[50], &[100, 3000]]);
        handle.truncate(end).unwrap();
        let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
        assert_eq!((found.bad, found.torn.is_empty()), (vec![], false), "ends at {end}");
    }
}

#[test]
fn what_a_newer_file_voids_is_not_looked_at() {
    let (handle, keys, entries) = write(&[&[50], &[60], &[70]]);
    let void_from = entries[1][0].offset / 4096 * 4096;
    let found = scan(&*handle, FILE, Some(void_from), 0, &keys).unwrap();
    assert_eq!((offsets(&found), found.data_end), (vec![entries[0][0].offset], void_from));
}

#[test]
fn batches_of_another_file_are_none_though_records_speak_for_themselves() {
    let (handle, keys, entries) = write(&[&[50], &[60]]);
    assert!(!has_batches(&*handle, FileId::new()).unwrap());
    assert_eq!(bad_batches(&*handle, FileId::new(), &mut |_| Ok(())).unwrap(), []);
    let found = scan(&*handle, FileId::new(), None, 0, &keys).unwrap();
    assert_eq!((offsets(&found), found.bad.len()), (others(&entries, 0), 0));
    let strange = scan(&*handle, FileId::new(), None, 0, &Keyring::create(&Secret::random())).unwrap();
    assert_eq!(strange.bad.len(), 0);
}

#[test]
fn what_a_trailer_says_was_synced_is_no_tail() {
    // A hole in the last batch, as expiry leaves one, and a footer that does not read.
    let (handle, keys, entries) = write(&[&[50], &[100, 3000, 70_000, 10]]);
    let expired = &entries[1][1];
    handle.write_at(expired.offset, &vec![0; expired.shape.record_len() as usize]).unwrap();
    let synced_to = entries[1][3].end().next_multiple_of(4096);
    let found = scan(&*handle, FILE, None, synced_to, &keys).unwrap();
    let kept = entries.iter().flatten().map(|entry| entry.offset).filter(|offset| *offset != expired.offset);
    assert_eq!(offsets(&found), kept.collect::<Vec<_>>());
    assert!(found.data_end >= synced_to && !found.bad.is_empty() && found.dropped_bytes() == 0);
}
