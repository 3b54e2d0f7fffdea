//! What is written reads again: by our own demuxer, and by mp4-atom.

use bytes::Bytes;
use mp4_atom::{Decode, ReadFrom};
use proptest::prelude::*;
use vidar_core::sample::SyncKind;
use vidar_core::track::{
    AudioParams, Codec, NalFraming, PcmFormat, StreamConfig, Track, TrackKind, Trims, VideoParams,
};

use super::segment::{SegmentStart, TrackRun};
use super::{Demuxer, init, sample_entry, segment};
use crate::demux::{Event, RawSample};
use crate::fuzz::demux_in_pieces;
use crate::table::SampleEntry;

fn video(codec: Codec, private: &[u8]) -> Track {
    Track {
        source_number: 1,
        kind: TrackKind::Video,
        codec,
        codec_id: String::new(),
        codec_private: Bytes::copy_from_slice(private),
        timescale_hz: 90_000,
        framing: match codec {
            Codec::H264 | Codec::H265 => NalFraming::LengthPrefixed(4),
            _ => NalFraming::None,
        },
        in_band_parameter_sets: false,
        video: Some(VideoParams { width: 640, height: 360 }),
        audio: None,
        default_duration_ticks: None,
        trims: Trims::default(),
        language: String::new(),
        name: String::new(),
    }
}

fn audio(codec: Codec, private: &[u8], sample_rate_hz: u32, channels: u16, bits: u16) -> Track {
    let audio = Some(AudioParams { sample_rate_hz, channels, bits });
    Track { kind: TrackKind::Audio, timescale_hz: sample_rate_hz, video: None, audio, ..video(codec, private) }
}

fn pcm(bits: u8, big_endian: bool, float: bool, signed: bool) -> Track {
    audio(Codec::Pcm(PcmFormat { bits, big_endian, float, signed }), b"", 48_000, 2, bits.into())
}

const AVCC: &[u8] = b"\x01\x64\x00\x1f\xff\xe1\x00\x04\x67\x64\x00\x1f\x01\x00\x01\x68\xfd\xf8\xf8\x00";
const HVCC: &[u8] = b"\x01\x01\x60\x00\x00\x00\x90\x00\x00\x00\x00\x00\x5d\xf0\x00\xfc\xfd\xf8\xf8\x00\x00\x0f\x00";
const OPUS: &[u8] = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\xfe\xff\x00";
const OPUS_51: &[u8] = b"OpusHead\x01\x06\x38\x01\x80\xbb\x00\x00\x00\x00\x01\x04\x02\x00\x04\x01\x02\x03\x05";

/// Every kind of track that MP4 has a place for, the entry's type and the codec string.
fn known() -> Vec<(Track, &'static [u8; 4], &'static str)> {
    let in_band = |track: Track| Track { in_band_parameter_sets: true, ..track };
    vec![
        (video(Codec::H264, AVCC), b"avc1", "avc1.64001f"),
        (in_band(video(Codec::H264, AVCC)), b"avc3", "avc3.64001f"),
        (video(Codec::H265, HVCC), b"hvc1", "hvc1.1.6.L93.90"),
        (in_band(video(Codec::H265, HVCC)), b"hev1", "hev1.1.6.L93.90"),
        (video(Codec::Av1, b"\x81\x04\x0c\x00"), b"av01", "av01.0.04M.08"),
        (video(Codec::Av1, b"\x81\x2d\xec\x00"), b"av01", "av01.1.13H.12"),
        (video(Codec::Vp9, b""), b"vp09", "vp09.00.21.08"),
        (video(Codec::Vp9, b"\x02\x1f\xa4\x09\x10\x09\x00\x00"), b"vp09", "vp09.02.31.10"),
        (video(Codec::Vp8, b""), b"vp08", "vp08.00.21.08"),
        (audio(Codec::Aac, b"\x11\x90", 48_000, 2, 16), b"mp4a", "mp4a.40.2"),
        (audio(Codec::Aac, b"\x2b\x11\x88\x00", 24_000, 2, 16), b"mp4a", "mp4a.40.5"),
        (audio(Codec::Aac, b"\xf9\x46\x40", 48_000, 2, 16), b"mp4a", "mp4a.40.42"),
        (audio(Codec::Opus, OPUS, 48_000, 2, 16), b"Opus", "opus"),
        (audio(Codec::Opus, OPUS_51, 48_000, 6, 16), b"Opus", "opus"),
        (audio(Codec::Mp3, b"", 44_100, 2, 16), b"mp4a", "mp4a.6B"),
        (audio(Codec::Mp3, b"", 22_050, 1, 16), b"mp4a", "mp4a.69"),
        (audio(Codec::G711Ulaw, b"", 8000, 1, 16), b"ulaw", "ulaw"),
        (audio(Codec::G711Alaw, b"", 8000, 1, 16), b"alaw", "alaw"),
        (pcm(16, false, false, true), b"ipcm", "ipcm"),
        (pcm(24, true, false, true), b"ipcm", "ipcm"),
        (pcm(32, false, true, true), b"fpcm", "fpcm"),
    ]
}

#[test]
fn every_known_codec_has_an_entry_a_codec_string_and_reads_again() {
    for (track, kind, codec_string) in known() {
        let entry = sample_entry::encode(&track).expect(codec_string);
        assert_eq!(&entry[4..8], kind, "{codec_string}");
        assert_eq!(sample_entry::codec_string(&track).as_deref(), Some(codec_string));
        sample_entry::check_round_trip(&track);

        let config = StreamConfig { tracks: vec![track.clone()], matroska_header: Bytes::new() };
        let bytes = init::encode(&config, &[0], init::InitOptions::default()).expect(codec_string);
        let (events, end) = demux_in_pieces(Demuxer::new(), &bytes, || usize::MAX);
        assert_eq!(end, Ok(()));
        let [Event::Config(read)] = &events[..] else { panic!("{codec_string}: {events:?}") };
        let codec_id = String::from_utf8(kind.to_vec()).unwrap();
        // A vpcC is made where there was none.
        let private = &read.tracks[0].codec_private;
        assert!(*private == track.codec_private || matches!(track.codec, Codec::Vp9));
        let expected = Track { codec_id, codec_private: private.clone(), language: "und".into(), ..track };
        assert_eq!(read.tracks, [expected]);
    }
}

#[test]
fn mp4_atom_reads_our_init_segments() {
    for (track, kind, _) in known() {
        let config = StreamConfig { tracks: vec![track.clone(), track], matroska_header: Bytes::new() };
        let bytes = init::encode(&config, &[1, 0], init::InitOptions { edit_starts_ticks: &[0, 312] }).unwrap();
        let mut reader = &bytes[..];
        let ftyp = mp4_atom::Ftyp::read_from(&mut reader).unwrap();
        assert_eq!(ftyp.major_brand, b"iso6".into());
        let moov = mp4_atom::Moov::read_from(&mut reader).unwrap();
        assert!(reader.is_empty());
        assert_eq!(moov.trak.iter().map(|trak| trak.tkhd.track_id).collect::<Vec<_>>(), [2, 1]);
        assert_eq!(moov.mvhd.next_track_id, 3);
        let edit =
            |trak: &mp4_atom::Trak| trak.edts.as_ref().and_then(|edts| Some(edts.elst.as_ref()?.entries[0].media_time));
        assert_eq!(moov.trak.iter().map(edit).collect::<Vec<_>>(), [None, Some(Some(312))]);
        let trex = &moov.mvex.unwrap().trex;
        assert_eq!(trex.iter().map(|trex| trex.track_id).collect::<Vec<_>>(), [2, 1]);
        use mp4_atom::Codec as Atom;
        let codec = &moov.trak[0].mdia.minf.stbl.stsd.codecs[0];
        let read = match kind {
            b"avc1" => matches!(codec, Atom::Avc1(_)),
            b"avc3" => matches!(codec, Atom::Avc3(_)),
            b"hvc1" => matches!(codec, Atom::Hvc1(_)),
            b"hev1" => matches!(codec, Atom::Hev1(_)),
            b"av01" => matches!(codec, Atom::Av01(_)),
            b"vp09" => matches!(codec, Atom::Vp09(_)),
            b"vp08" => matches!(codec, Atom::Vp08(_)),
            b"mp4a" => matches!(codec, Atom::Mp4a(_)),
            b"Opus" => matches!(codec, Atom::Opus(_)),
            b"ipcm" => matches!(codec, Atom::Ipcm(_)),
            b"fpcm" => matches!(codec, Atom::Fpcm(_)),
            _ => matches!(codec, Atom::Unknown(..)),
        };
        assert!(read, "{kind:?}: {codec:?}");
    }
}

#[test]
fn opus_heads_change_byte_order_and_nothing_else() {
    let entry = sample_entry::encode(&audio(Codec::Opus, OPUS_51, 48_000, 6, 16)).unwrap();
    let dops = b"dOps\x00\x06\x01\x38\x00\x00\xbb\x80\x00\x00\x01\x04\x02\x00\x04\x01\x02\x03\x05";
    assert_eq!(&entry[entry.len() - dops.len()..], dops);
}

#[test]
fn an_audio_config_of_any_length_fits_esds() {
    for len in [1, 127, 128, 20_000] {
        let private = vec![0x11; len];
        sample_entry::check_round_trip(&audio(Codec::Aac, &private, 96_000, 2, 16));
    }
}

#[test]
fn the_length_size_follows_the_framing() {
    for (codec, private, at) in [(Codec::H264, AVCC, 4), (Codec::H265, HVCC, 21)] {
        let track = Track { framing: NalFraming::LengthPrefixed(2), ..video(codec, private) };
        let entry = sample_entry::encode(&track).unwrap();
        assert_eq!(entry[86 + 8 + at] & 3, 1);
    }
}

#[test]
fn what_mp4_has_no_place_for_gets_no_entry() {
    let none = [
        video(Codec::Opaque, b"x"),
        video(Codec::H264, b""),
        video(Codec::H265, &HVCC[..22]),
        video(Codec::Av1, b""),
        Track { framing: NalFraming::AnnexB, ..video(Codec::H264, AVCC) },
        Track { framing: NalFraming::None, ..video(Codec::H265, HVCC) },
        audio(Codec::Aac, b"", 48_000, 2, 16),
        audio(Codec::Opus, b"", 48_000, 2, 16),
        audio(Codec::Opus, &OPUS[1..], 48_000, 2, 16),
        audio(Codec::Opus, &OPUS_51[..20], 48_000, 2, 16),
        pcm(8, false, false, false),
        pcm(24, false, true, true),
        pcm(16, true, false, false),
    ];
    for track in none {
        assert_eq!(sample_entry::encode(&track), None, "{track:?}");
        assert_eq!(sample_entry::codec_string(&track), None, "{track:?}");
        let config = StreamConfig { tracks: vec![track], matroska_header: Bytes::new() };
        assert_eq!(init::encode(&config, &[0], init::InitOptions::default()), None);
        assert_eq!(init::encode(&config, &[1], init::InitOptions::default()), None);
    }
}

#[test]
fn an_empty_segment_is_a_moof_and_an_empty_mdat() {
    let run = TrackRun { track_id: 1, base_decode_ticks: 0, samples: &[] };
    let header = segment::header(SegmentStart::Inside, 7, &[run]).unwrap();
    let mut reader = &header.bytes[..];
    let moof = mp4_atom::Moof::decode(&mut reader).unwrap();
    assert_eq!((moof.mfhd.sequence_number, moof.traf.len(), header.media_len), (7, 0, 0));
    assert_eq!(reader, b"\0\0\0\x08mdat");
}

#[test]
fn media_beyond_the_reach_of_data_offsets_is_refused() {
    let sample = SampleEntry { size: 50 << 20, ..samples_of(&[(1, 0, 1, 0, 0)], 0)[0].clone() };
    let samples = vec![sample; 41];
    let runs = [&samples[..40], &samples[..1], &samples[..1]].map(|samples| TrackRun {
        track_id: 1,
        base_decode_ticks: 0,
        samples,
    });
    assert!(segment::header(SegmentStart::Segment, 1, &runs[..2]).is_some());
    assert_eq!(segment::header(SegmentStart::Segment, 1, &runs), None);
}

type Row = (i64, i32, u32, usize, u32);

fn samples_of(rows: &[Row], start: i64) -> Vec<SampleEntry> {
    let mut decode_ticks = start;
    let mut samples = Vec::new();
    for (index, (delta, composition_ticks, duration_ticks, sync, size)) in rows.iter().enumerate() {
        samples.push(SampleEntry {
            decode_ticks,
            composition_ticks: *composition_ticks,
            duration_ticks: *duration_ticks,
            duration_estimated: false,
            sync: [SyncKind::None, SyncKind::Sync, SyncKind::Leading][*sync],
            block_flags: 0,
            size: *size,
            arrival: index as u32,
            drops: if *size > 8 { vec![(2, 3)] } else { Vec::new() },
        });
        decode_ticks += delta;
    }
    samples
}

fn rows() -> impl Strategy<Value = Vec<Row>> {
    prop::collection::vec((1..5000_i64, -5000..5000_i32, 1..5000_u32, 0..3_usize, 0..40_u32), 1..20)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Two segments, two tracks each: every sample comes back with its times, and decode times never drift.
    #[test]
    fn segments_round_trip(
        tables in prop::collection::vec((rows(), rows()), 1..3),
        base in 0..u64::from(u32::MAX) * 16,
        inside: bool,
    ) {
        let tracks = vec![audio(Codec::G711Alaw, b"", 8000, 1, 16), video(Codec::H264, AVCC)];
        let config = StreamConfig { tracks, matroska_header: Bytes::new() };
        let mut file = init::encode(&config, &[0, 1], init::InitOptions::default()).unwrap().to_vec();
        let (mut expected, mut fill) = (Vec::new(), 0_u8);
        for (number, rows) in tables.iter().enumerate() {
            let base = base + number as u64 * 1_000_000;
            let samples = [samples_of(&rows.0, -77), samples_of(&rows.1, 12_345)];
            let run = |track: usize| TrackRun {
                track_id: init::track_id(track as u8),
                base_decode_ticks: base,
                samples: &samples[track],
            };
            let start = if inside { SegmentStart::Inside } else { SegmentStart::Segment };
            let header = segment::header(start, number as u32, &[run(0), run(1)]).unwrap();
            file.extend_from_slice(&header.bytes);
            let before = file.len();
            for (track, samples) in samples.iter().enumerate() {
                for (index, sample) in samples.iter().enumerate() {
                    fill = fill.wrapping_add(1);
                    let data = Bytes::from(vec![fill; sample.mp4_len() as usize]);
                    file.extend_from_slice(&data);
                    let decode_ticks = base as i64 + sample.decode_ticks - samples[0].decode_ticks;
                    let duration = samples.get(index + 1).map(|next| (next.decode_ticks - sample.decode_ticks) as u32);
                    expected.push(RawSample {
                        track: track as u8,
                        presentation_ticks: decode_ticks + i64::from(sample.composition_ticks),
                        decode_ticks: Some(decode_ticks),
                        duration_ticks: Some(duration.unwrap_or(sample.duration_ticks)),
                        sync: sample.sync,
                        block_flags: 0,
                        data,
                    });
                }
            }
            prop_assert_eq!((file.len() - before) as u64, header.media_len);
        }
        let (events, end) = demux_in_pieces(Demuxer::new(), &file.into(), || usize::MAX);
        prop_assert_eq!(end, Ok(()));
        let samples = events.into_iter().filter_map(|event| if let Event::Sample(s) = event { Some(s) } else { None });
        prop_assert_eq!(samples.collect::<Vec<_>>(), expected);
    }
}
