//! Tests of the recover module.

use std::sync::Arc;

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::ids::{ConfigId, FragmentNumber, StreamId};

use super::super::header::FileHeader;
use super::super::record::{Content, RecordShape};
use super::super::writer::Writer;
use super::*;
use crate::backend::SegmentIo;
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
        assert_eq!(scan.dropped_bytes, 0);
    }
}

const FILE: FileId = FileId::from_bytes([7; 16]);

/// A file of batches; a number is a part with so many bytes of media.
fn write(batches: &[&[usize]]) -> (Arc<dyn SegmentHandle>, Keyring, Vec<Vec<RecordEntry>>) {
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
    (writer.handle.clone(), keys, entries)
}

fn offsets(scan: &Scan) -> Vec<u64> {
    scan.records.iter().map(|(entry, _)| entry.offset).collect()
}

#[test]
fn a_torn_last_batch_keeps_its_records_up_to_the_first_that_is_not_whole() {
    // The middle one ends before a block on which a large one starts: zeros in its place look like the padding there.
    let (handle, keys, entries) = write(&[&[50], &[100, 3000, 70_000, 10]]);
    let tail = &entries[1];
    for (torn, kept) in [(0, 0), (1, 1), (2, 2), (3, 3)] {
        let before: Vec<u8> = super::read(&*handle, tail[torn].offset, tail[torn].shape.record_len() as usize).unwrap();
        for wiped in [168, before.len()] {
            handle.write_at(tail[torn].offset, &vec![0; wiped]).unwrap();
            let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
            let expected: Vec<_> = entries.iter().flatten().take(1 + kept).map(|entry| entry.offset).collect();
            assert_eq!(offsets(&found), expected, "record {torn}");
            assert_eq!(found.bad, [], "what was never answered is no damage");
            assert!(found.dropped_bytes > 0);
            assert!(found.data_end.is_multiple_of(4096) && found.data_end < tail[3].end() + 4096);
            handle.write_at(tail[torn].offset, &before).unwrap();
        }
    }
}

#[test]
fn the_same_in_an_earlier_batch_is_damage_and_what_follows_is_kept() {
    let (handle, keys, entries) = write(&[&[100, 3000, 70_000, 10], &[50]]);
    for torn in 0..4 {
        let entry = &entries[0][torn];
        let before: Vec<u8> = super::read(&*handle, entry.offset, entry.shape.record_len() as usize).unwrap();
        for wiped in [1, before.len()] {
            handle.write_at(entry.offset, &vec![0; wiped]).unwrap();
            let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
            let all = entries.iter().flatten().map(|entry| entry.offset);
            let expected: Vec<_> = all.filter(|offset| *offset != entry.offset).collect();
            assert_eq!(offsets(&found), expected, "record {torn}");
            assert_eq!((found.bad.is_empty(), found.dropped_bytes), (false, 0));
            handle.write_at(entry.offset, &before).unwrap();
        }
    }
    assert_eq!(scan(&*handle, FILE, None, 0, &keys).unwrap().bad, []);
}

#[test]
fn a_small_last_batch_that_is_torn_is_dropped_without_a_word() {
    let (handle, keys, entries) = write(&[&[5000], &[5]]);
    let last = &entries[1][0];
    handle.write_at(last.offset + 170, &[0xff; 4]).unwrap();
    let found = scan(&*handle, FILE, None, 0, &keys).unwrap();
    assert_eq!((offsets(&found), found.bad.len()), (vec![entries[0][0].offset], 0));
}

#[test]
fn what_a_newer_file_voids_is_not_looked_at() {
    let (handle, keys, entries) = write(&[&[50], &[60], &[70]]);
    let void_from = entries[1][0].offset / 4096 * 4096;
    let found = scan(&*handle, FILE, Some(void_from), 0, &keys).unwrap();
    assert_eq!((offsets(&found), found.data_end), (vec![entries[0][0].offset], void_from));
}

#[test]
fn batches_of_another_file_are_nothing() {
    let (handle, keys, _) = write(&[&[50], &[60]]);
    let found = scan(&*handle, FileId::new(), None, 0, &keys).unwrap();
    assert_eq!((found.records.len(), found.bad.len(), found.data_end), (0, 0, 4096));
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
    assert!(found.data_end >= synced_to && !found.bad.is_empty() && found.dropped_bytes == 0);
}
