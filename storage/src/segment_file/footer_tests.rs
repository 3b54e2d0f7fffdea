//! Tests of the footer module.

use proptest::prelude::*;
use vidar_core::record::TrackFacts;
use vidar_core::track::TrackKind;

use super::super::reader::{self, Wanted};
use super::*;
use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;

fn entries() -> impl Strategy<Value = Vec<RecordEntry>> {
    let one = (1..5_u8, 0..3_u8, any::<u64>(), 0..100_u64, 0..2_000_u32, 0..200_000_u64, any::<i64>(), any::<u16>());
    prop::collection::vec(one, 0..40).prop_map(|rows| {
        let mut end = HEADER_LEN as u64;
        let mut entries = Vec::new();
        for (kind, id, sequence, skip, table_len, media_len, start, part) in rows {
            let kind = RecordKind::from_code(kind).unwrap();
            let number = FragmentNumber::new(sequence, 5, 1);
            let mut shape = RecordShape::bare(kind, StreamId::from_bytes([id; 16]), number, ConfigId::NONE);
            shape.table_len = table_len;
            if kind != RecordKind::Control {
                shape.meta.config = ConfigId([id + 1; 16]);
            }
            if has_run(kind) {
                shape.meta.run = RunId::from_bytes([id + 9; 16]);
                shape.meta.producer_start = UnixMs(start);
                (shape.media_len, shape.part) = (media_len, part);
            }
            let summary = (kind == RecordKind::Fragment).then(|| Summary::new(&facts(media_len)));
            let entry = RecordEntry { shape, offset: end + skip, summary };
            end = entry.end();
            entries.push(entry);
        }
        entries
    })
}

fn facts(size_bytes: u64) -> FragmentFacts {
    let totals = TrackTotals {
        sample_count: 50,
        mp4_bytes: 499_000,
        stts_runs: 2,
        ctts_runs: 40,
        sync_count: 1,
        chunk_count: 1,
        first_decode_ticks: 1 << 33,
    };
    let track = TrackFacts { kind: TrackKind::Video, codec: "h264".into(), width: 1, height: 1, size_bytes, totals };
    FragmentFacts { tracks: vec![track.clone(), track], ..FragmentFacts::default() }
}

/// A file of `footer` alone, behind `data_end` zeros.
fn file(footer: &[u8], data_end: u64) -> std::sync::Arc<dyn crate::backend::SegmentHandle> {
    let handle = MemoryIo::new().create("f.vseg", 0).unwrap();
    handle.write_at(data_end, footer).unwrap();
    handle
}

fn read(
    handle: &dyn crate::backend::SegmentHandle,
    file: FileId,
    key: &Secret,
) -> Option<Result<reader::Footer, reader::FooterError>> {
    let trailer = reader::read_trailer(handle, file).unwrap()?;
    let controls = reader::read_footer(handle, trailer, key, Wanted::Controls);
    let all = reader::read_footer(handle, trailer, key, Wanted::All);
    assert_eq!(controls.is_ok(), all.is_ok(), "whatever is wanted all is checked");
    Some(all)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]
    #[test]
    fn a_footer_round_trips(entries in entries()) {
        let (key, id) = (Secret::new([1; 32]), FileId::new());
        let data_end = entries.last().map_or(4096, |entry| align_up(entry.end(), 4096));
        let copied = entries.iter().filter(|entry| entry.has_copy()).map(|entry| entry.shape.head_len() as usize);
        let copies: Vec<u8> = (0..copied.sum::<usize>()).map(|i| i as u8).collect();
        let bytes = encode(&key, id, data_end, UnixMs(8), &entries, &copies);
        prop_assert_eq!(bytes.len() % 4096, 0);
        let footer = read(&*file(&bytes, data_end), id, &key).unwrap().unwrap();
        prop_assert_eq!(&footer.entries, &entries);
        prop_assert_eq!(footer.trailer.archive, UnixMs(8));
        let together: Vec<u8> = footer.records().filter_map(|(_, copy)| copy).flatten().copied().collect();
        prop_assert_eq!(together, copies);
        let is_control = |entry: &RecordEntry| entry.shape.kind == RecordKind::Control;
        let others = entries.iter().filter(|entry| !is_control(entry));
        prop_assert_eq!(footer.first, others.map(|entry| entry.shape.meta.number.sequence()).min());
        let controls = reader::read_footer(&*file(&bytes, data_end), footer.trailer, &key, Wanted::Controls).unwrap();
        let owned = |(entry, copy): (&RecordEntry, Option<&[u8]>)| (entry.clone(), copy.map(<[u8]>::to_vec));
        let expected: Vec<_> = footer.records().filter(|(entry, _)| is_control(entry)).map(owned).collect();
        prop_assert_eq!(controls.first, footer.first);
        prop_assert_eq!(controls.records().map(owned).collect::<Vec<_>>(), expected);
        let mut one_by_one = Vec::new();
        controls.for_each(|_, copy| one_by_one.push(copy.map(|copy| copy.len())));
        prop_assert!(one_by_one.iter().all(Option::is_some));
        let plain = encode_entries(&entries);
        for len in 0..plain.len() {
            prop_assert!(decode_entries(&plain[..len]).is_err());
        }
    }

    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..400)) {
        crate::fuzz::footer(&input);
    }
}

#[test]
fn an_entry_of_a_fragment_takes_about_a_hundred_bytes() {
    let mut end = 4096;
    let entries: Vec<RecordEntry> = (0..500)
        .map(|i| {
            let number = FragmentNumber::new(1 << 32 | i, 1_700_000_000_000 + i * 2000, i as u32);
            let stream = StreamId::from_bytes([(i % 100) as u8; 16]);
            let mut shape = RecordShape::bare(RecordKind::Fragment, stream, number, ConfigId([(i % 100) as u8; 16]));
            shape.meta.ordinal = 1_000_000 + i;
            shape.meta.producer_start = UnixMs(1_700_000_000_000);
            (shape.meta.duration_ms, shape.facts_len, shape.table_len, shape.media_len) = (2000, 90, 900, 500_000);
            let entry =
                RecordEntry { shape, offset: align_up(end, 4096), summary: Some(Summary::new(&facts(500_000))) };
            end = entry.end();
            entry
        })
        .collect();
    let bytes = encode_entries(&entries).len() / entries.len();
    assert!(bytes <= 110, "{bytes} bytes an entry, dictionaries included");
}

#[test]
fn a_footer_that_is_cut_or_altered_or_of_another_file_or_key_is_refused() {
    let (key, id) = (Secret::random(), FileId::new());
    let number = FragmentNumber::new(1, 1, 1);
    let mut shape = RecordShape::bare(RecordKind::Fragment, StreamId::new(), number, ConfigId([1; 16]));
    shape.table_len = 10;
    let entry = RecordEntry { shape, offset: 4160, summary: Some(Summary::new(&facts(5))) };
    let copies = vec![7; shape.head_len() as usize];
    let bytes = encode(&key, id, 8192, UnixMs(8), &[entry], &copies);
    assert!(read(&*file(&bytes, 8192), id, &key).unwrap().is_ok());
    assert!(read(&*file(&bytes, 8192), FileId::new(), &key).is_none());
    assert!(read(&*file(&bytes, 8192), id, &Secret::random()).unwrap().is_err());
    assert!(read(&*file(&bytes, 4096), id, &key).is_none_or(|footer| footer.is_err()), "moved");
    let used = copies.len() + reader::read_trailer(&*file(&bytes, 8192), id).unwrap().unwrap().entries_len as usize;
    for at in (0..used).chain(bytes.len() - TRAILER_LEN..bytes.len()) {
        let mut bad = bytes.clone();
        bad[at] ^= 4;
        let read = read(&*file(&bad, 8192), id, &key);
        assert!(read.is_none_or(|footer| footer.is_err()), "byte {at}");
    }
    for len in 0..bytes.len() {
        let read = read(&*file(&bytes[..len], 8192), id, &key);
        assert!(read.is_none_or(|footer| footer.is_err()), "cut after {len} bytes");
    }
}
