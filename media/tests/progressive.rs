//! A file made from random fragments is what they hold, and any range of it is a slice of the whole.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::ops::Range;

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::sample::SyncKind;
use vidar_core::track::{AudioParams, Codec, NalFraming, Track, TrackKind, Trims, VideoParams};
use vidar_media::container::fmp4::progressive::*;
use vidar_media::container::fmp4::sample_entry;
use vidar_media::table::{SampleEntry, Table, TrackTable};

/// A fragment as it is stored: tables of its pieces, and their media.
#[derive(Debug, Clone)]
struct Stored {
    pieces: Vec<Table>,
    media: Vec<Vec<u8>>,
}

#[derive(Debug, Clone)]
struct Expected {
    bytes: Vec<u8>,
    decode_ticks: i64,
    composition_ticks: i64,
    sync: bool,
}

fn track(kind: TrackKind) -> Track {
    let video = kind == TrackKind::Video;
    let avcc = [1, 0x64, 0, 0x1f, 0xff, 0xe1, 0, 4, 0x67, 0x64, 0, 0x1f, 1, 0, 2, 0x68, 0xee];
    Track {
        source_number: 1,
        kind,
        codec: if video { Codec::H264 } else { Codec::Aac },
        codec_id: String::new(),
        codec_private: if video { Bytes::copy_from_slice(&avcc) } else { Bytes::from_static(&[0x11, 0x90]) },
        timescale_hz: 1000,
        framing: if video { NalFraming::LengthPrefixed(4) } else { NalFraming::None },
        in_band_parameter_sets: false,
        video: video.then_some(VideoParams { width: 64, height: 48 }),
        audio: (!video).then_some(AudioParams { sample_rate_hz: 48_000, channels: 2, bits: 16 }),
        default_duration_ticks: None,
        trims: Trims::default(),
        language: "deu".into(),
        name: String::new(),
    }
}

/// Rows of a track in a piece: delta to the sample before, composition offset, sync, size, and whether it drops bytes.
type Row = (i64, i32, bool, u32, bool);

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((1..3_i64, 0..3_i32, any::<bool>(), 0..40_u32, any::<bool>()), 0..6)
}

/// Pieces of three tracks, whether samples are left out, and a factor.
type Rows = (Vec<[Vec<Row>; 3]>, bool, u32);

/// Fragments of 1 to 3 pieces of 3 tracks (of which the file takes two), kept flags and a factor of the timescale.
fn fragments() -> impl Strategy<Value = Vec<Rows>> {
    let piece = (rows(), rows(), rows()).prop_map(|(a, b, c)| [a, b, c]);
    prop::collection::vec((prop::collection::vec(piece, 1..4), any::<bool>(), 1..4_u32), 1..8)
}

fn stored(pieces: Vec<[Vec<Row>; 3]>, clocks: &mut [i64; 3], seed: &mut u8) -> Stored {
    let mut stored = Stored { pieces: Vec::new(), media: Vec::new() };
    for piece in pieces {
        let (mut table, mut media, mut arrival) = (Table::default(), Vec::new(), 0);
        for (track, rows) in piece.into_iter().enumerate().filter(|(_, rows)| !rows.is_empty()) {
            let samples = rows.into_iter().map(|(delta, composition_ticks, sync, size, drop)| {
                clocks[track] += delta;
                arrival += 1;
                *seed = seed.wrapping_mul(31).wrapping_add(7);
                media.extend((0..size).map(|i| seed.wrapping_add(i as u8)));
                SampleEntry {
                    decode_ticks: clocks[track],
                    composition_ticks,
                    duration_ticks: 1,
                    duration_estimated: false,
                    sync: if sync { SyncKind::Sync } else { SyncKind::None },
                    block_flags: 0,
                    size,
                    arrival: arrival - 1,
                    drops: if drop && size > 9 { vec![(0, 4), (5, 4)] } else { Vec::new() },
                }
            });
            table.tracks.push(TrackTable { track: track as u8, samples: samples.collect() });
        }
        stored.pieces.push(table);
        stored.media.push(media);
    }
    stored
}

/// The samples that the file should hold of a fragment's track, read straight from what is stored.
fn expected(stored: &Stored, source_track: u8, keep: &Keep, scale: Scale, out: &mut Vec<Expected>) {
    let mut position = 0;
    for (table, media) in stored.pieces.iter().zip(&stored.media) {
        let mut offset = 0;
        for of_track in &table.tracks {
            for sample in &of_track.samples {
                let bytes = &media[offset..offset + sample.size as usize];
                offset += sample.size as usize;
                if of_track.track != source_track {
                    continue;
                }
                position += 1;
                if keep.contains(position - 1) {
                    let bytes = match sample.drops[..] {
                        [] => bytes.to_vec(),
                        _ => [&bytes[4..5], &bytes[9..]].concat(),
                    };
                    out.push(Expected {
                        bytes,
                        decode_ticks: scale.apply(sample.decode_ticks),
                        composition_ticks: scale.apply(sample.presentation_ticks()) - scale.apply(sample.decode_ticks),
                        sync: sample.sync == SyncKind::Sync,
                    });
                }
            }
        }
    }
}

fn generate(layout: &Layout, stored: &[Stored], range: Range<u64>) -> Vec<u8> {
    let mut out = Vec::new();
    let mut at = range.start;
    for unit in layout.units(range) {
        assert_eq!(unit.start, at);
        assert!(unit.len > 0);
        match unit.content {
            UnitContent::Fixed(bytes) => out.extend_from_slice(&bytes),
            UnitContent::Column { track, column, fragments, skip } => {
                let mut entries = Vec::new();
                for fragment in fragments {
                    layout.write_column(track, column, fragment, &stored[fragment].pieces, &mut entries).unwrap();
                }
                out.extend_from_slice(&entries[skip as usize..][..unit.len as usize]);
            }
            UnitContent::Media { fragment, range } => {
                let media: Vec<u8> = layout
                    .extents(fragment, &stored[fragment].pieces)
                    .unwrap()
                    .into_iter()
                    .flat_map(|extent| {
                        stored[fragment].media[extent.piece][extent.range.start as usize..extent.range.end as usize]
                            .to_vec()
                    })
                    .collect();
                out.extend_from_slice(&media[range.start as usize..range.end as usize]);
            }
        }
        at += unit.len;
    }
    out
}

struct Case {
    layout: Layout,
    stored: Vec<Stored>,
    expected: [Vec<Expected>; 2],
    end_ticks: [i64; 2],
}

/// Tracks 2 (sound) and 0 (pictures) of the fragments, as tracks 1 and 0 of the file; track 1 is left out.
fn case(fragments: Vec<Rows>, rounded: bool) -> Option<Case> {
    let sources = [0_u8, 2];
    let (mut clocks, mut seed) = ([5, -3, 11], 1);
    let mut builder = Builder::new(2);
    let (mut all, mut samples) = (Vec::new(), [Vec::new(), Vec::new()]);
    let mut firsts = [None; 2];
    for (pieces, cut, _) in fragments {
        let stored = stored(pieces, &mut clocks, &mut seed);
        let mut parts = Vec::new();
        for (track, source_track) in sources.into_iter().enumerate() {
            let count = totals_kept(&stored.pieces, source_track, &Keep::All).sample_count;
            let flags: Vec<bool> = (0..count).map(|i| !cut || i % 3 != 1).collect();
            let keep = Keep::from_flags(&flags);
            let totals = totals_kept(&stored.pieces, source_track, &keep);
            let scale = if rounded { Scale::Rounded { from_hz: 1000, to_hz: 300 } } else { Scale::Exact { factor: 3 } };
            expected(&stored, source_track, &keep, scale, &mut samples[track]);
            if totals.sample_count > 0 {
                firsts[track].get_or_insert(scale.apply(totals.first_decode_ticks));
            }
            let offset_ticks = -firsts[track].unwrap_or(0);
            let mapping = Mapping { source_track, description: 1, scale, offset_ticks };
            parts.push(Some(TrackPart { mapping, totals, keep }));
        }
        builder.push(parts).unwrap();
        all.push(stored);
    }
    let mut end_ticks = [0; 2];
    let mut heads = Vec::new();
    for (index, kind) in [TrackKind::Video, TrackKind::Audio].into_iter().enumerate() {
        end_ticks[index] = samples[index].last()?.decode_ticks - firsts[index]? + 9;
        let track = track(kind);
        heads.push(TrackHead {
            kind,
            language: track.language.clone(),
            width: 64,
            height: 48,
            sample_entries: vec![sample_entry::encode(&track).unwrap()],
            timescale_hz: 3000,
            duration_ticks: end_ticks[index] as u64,
            composition_shift_ticks: 0,
            edits: vec![Edit { duration_ticks: 5, media_time_ticks: Some(1) }],
        });
        for sample in &mut samples[index] {
            sample.decode_ticks -= firsts[index]?;
        }
    }
    let movie = MovieHead { timescale_hz: 1000, duration_ticks: 5, creation_s: 0 };
    let layout = builder.finish(&movie, &heads).unwrap();
    Some(Case { layout, stored: all, expected: samples, end_ticks })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(96))]

    #[test]
    fn an_independent_reader_finds_the_samples(fragments in fragments(), rounded: bool) {
        let Some(case) = case(fragments, rounded) else { return Ok(()) };
        let file = generate(&case.layout, &case.stored, 0..u64::MAX);
        prop_assert_eq!(file.len() as u64, case.layout.len());
        let mut reader = mp4::Mp4Reader::read_header(Cursor::new(&file), file.len() as u64).unwrap();
        for (index, expected) in case.expected.iter().enumerate() {
            let id = index as u32 + 1;
            prop_assert_eq!(reader.sample_count(id).unwrap() as usize, expected.len());
            for (number, sample) in (1..).zip(expected) {
                // The crate gives no sample for one of no bytes.
                let Some(found) = reader.read_sample(id, number).unwrap() else {
                    prop_assert!(sample.bytes.is_empty());
                    continue;
                };
                prop_assert_eq!(&found.bytes[..], &sample.bytes[..]);
                prop_assert_eq!(found.start_time as i64, sample.decode_ticks);
                prop_assert_eq!(i64::from(found.rendering_offset), sample.composition_ticks);
                let next = expected.get(number as usize).map_or(case.end_ticks[index], |next| next.decode_ticks);
                prop_assert_eq!(i64::from(found.duration), next - sample.decode_ticks);
                prop_assert_eq!(found.is_sync, sample.sync || index == 1);
            }
        }
    }

    #[test]
    fn any_range_is_a_slice_of_the_whole(fragments in fragments(), rounded: bool, cuts: [u16; 12]) {
        let Some(case) = case(fragments, rounded) else { return Ok(()) };
        let file = generate(&case.layout, &case.stored, 0..u64::MAX);
        for cut in cuts.chunks(2) {
            let start = u64::from(cut[0]) % (case.layout.len() + 1);
            let end = start + u64::from(cut[1]) % 700;
            let slice = generate(&case.layout, &case.stored, start..end);
            prop_assert_eq!(&slice[..], &file[start as usize..end.min(case.layout.len()) as usize]);
        }
    }
}

#[test]
fn tables_that_are_not_those_of_the_totals_are_refused() {
    let row = |delta| (delta, 0, true, 12, false);
    let fragment = |delta| (vec![[vec![row(1), row(delta)], vec![], vec![row(1)]]], false, 1);
    let case_a = case(vec![fragment(1), fragment(1)], false).unwrap();
    let other = stored(vec![[vec![row(1), row(1), row(2), row(1)], vec![], vec![]]], &mut [0; 3], &mut 3);
    let mut out = Vec::new();
    for column in [Column::Stts, Column::Stsz] {
        let refused = case_a.layout.write_column(0, column, 1, &other.pieces, &mut out);
        assert!(matches!(refused, Err(LayoutError::Mismatch { track: 0, fragment: 1, .. })), "{refused:?}");
    }
    assert!(case_a.layout.extents(1, &other.pieces).is_err());
    assert!(case_a.layout.extents(1, &case_a.stored[1].pieces).is_ok());
}

#[test]
fn a_long_file_is_cut_into_units_of_bounded_size_and_need() {
    let rows: Vec<Row> = (0..50).map(|i| (1, 0, i == 0, 30_000, false)).collect();
    let fragment = || (vec![[rows.clone(), vec![], vec![(1, 0, true, 9, false)]]], false, 1);
    let case = case((0..200).map(|_| fragment()).collect(), false).unwrap();
    let mut fixed = 0;
    let mut fragments = BTreeMap::new();
    for unit in case.layout.units(0..u64::MAX) {
        match unit.content {
            UnitContent::Fixed(_) => fixed += 1,
            UnitContent::Column { track, column, fragments: range, .. } => {
                assert!(unit.len <= UNIT_BYTES_MAX && range.len() <= UNIT_FRAGMENT_COUNT_MAX);
                *fragments.entry((track, format!("{column:?}"))).or_insert(0) += range.len();
            }
            UnitContent::Media { range, .. } => assert!(range.end - range.start <= UNIT_BYTES_MAX),
        }
    }
    // The head, and what stands between two columns: stts, stss, stsz, stsc, co64 and stts, stsz, stsc, co64, mdat.
    assert_eq!(fixed, 10);
    assert!(fragments.values().all(|count| *count == 200), "{fragments:?}");
    let media_bytes = 200 * (50 * 30_000 + 9);
    assert_eq!(case.layout.len() - case.layout.media_start(), media_bytes);
}
