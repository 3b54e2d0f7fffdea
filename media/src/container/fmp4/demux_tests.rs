//! Tests of the demux module.

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::limits::INIT_BYTES_MAX;
use vidar_core::sample::SyncKind;
use vidar_core::time::UnixMs;
use vidar_core::track::{AudioParams, Codec, NalFraming, StreamConfig, Track, TrackKind, Trims, VideoParams};

use super::boxes::{write_box, write_full_box};
use super::{Demuxer, init};
use crate::demux::{Demux, DemuxError, DemuxErrorKind, Event, RawSample};
use crate::fuzz::{demux_fmp4, demux_in_pieces};

const FRAGMENTED: [&str; 7] =
    ["bbb_frag.mp4", "bbb_cmaf.mp4", "h264_open_gop.mp4", "h265.mp4", "av1_opus.mp4", "vp9_opus.mp4", "audio_aac.mp4"];

type Demuxed = (Vec<Event>, Result<(), DemuxError>);

fn demux(bytes: &[u8]) -> Demuxed {
    demux_in_pieces(Demuxer::new(), &Bytes::copy_from_slice(bytes), || usize::MAX)
}

fn demux_bytewise(bytes: &[u8]) -> Demuxed {
    demux_in_pieces(Demuxer::new(), &Bytes::copy_from_slice(bytes), || 1)
}

/// The error, whether whole or byte by byte.
fn error(bytes: &[u8]) -> DemuxError {
    let whole = demux(bytes);
    assert_eq!(whole, demux_bytewise(bytes));
    whole.1.expect_err("an error")
}

/// The events, whether whole or byte by byte.
fn events(bytes: &[u8]) -> Vec<Event> {
    let (events, end) = demux(bytes);
    assert_eq!(end, Ok(()));
    assert_eq!(demux_bytewise(bytes), (events.clone(), Ok(())));
    events
}

fn samples(events: &[Event]) -> Vec<&RawSample> {
    events.iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None }).collect()
}

fn config(events: &[Event]) -> &StreamConfig {
    let Some(Event::Config(config)) = events.first() else { panic!("no config first") };
    config
}

fn track(kind: TrackKind, codec: Codec) -> Track {
    let is_video = kind == TrackKind::Video;
    Track {
        source_number: 1,
        kind,
        codec,
        codec_id: String::new(),
        codec_private: Bytes::new(),
        timescale_hz: 1000,
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: is_video.then_some(VideoParams { width: 16, height: 16 }),
        audio: (!is_video).then_some(AudioParams { sample_rate_hz: 8000, channels: 1, bits: 16 }),
        default_duration_ticks: None,
        trims: Trims::default(),
        language: "und".into(),
        name: String::new(),
    }
}

/// An init segment with two tracks that need no private data, IDs 1 and 2.
fn two_tracks() -> Vec<u8> {
    let tracks = vec![track(TrackKind::Video, Codec::Vp8), track(TrackKind::Audio, Codec::G711Ulaw)];
    let config = StreamConfig { tracks, matroska_header: Bytes::new() };
    init::encode(&config, &[0, 1], init::InitOptions::default()).unwrap().to_vec()
}

fn words(out: &mut Vec<u8>, words: &[u32]) {
    for word in words {
        out.extend_from_slice(&word.to_be_bytes());
    }
}

/// A file built box by box. Offsets in its `trun`s count from the start of the `moof`.
struct File(Vec<u8>);

impl File {
    fn new() -> Self {
        Self(two_tracks())
    }

    fn full(mut self, kind: &[u8; 4], version: u8, flags: u32, body: &[u32]) -> Self {
        write_full_box(&mut self.0, kind, version, flags, |out| words(out, body));
        self
    }

    fn moof(mut self, trafs: &[&[Full]]) -> Self {
        write_box(&mut self.0, b"moof", |out| {
            for traf in trafs {
                write_box(out, b"traf", |out| {
                    for (kind, version, flags, body) in *traf {
                        write_full_box(out, kind, *version, *flags, |out| words(out, body));
                    }
                });
            }
        });
        self
    }

    fn mdat(mut self, body: &[u8]) -> Self {
        write_box(&mut self.0, b"mdat", |out| out.extend_from_slice(body));
        self
    }

    fn bytes(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    fn len(&self) -> u32 {
        self.0.len() as u32
    }
}

type Full<'a> = (&'a [u8; 4], u8, u32, &'a [u32]);

/// `tfhd` of a track with duration, size and flags of its samples.
const fn tfhd<'a>(body: &'a [u32; 4]) -> Full<'a> {
    (b"tfhd", 0, 0x2_0038, body)
}

/// Track, decode time, presentation time and bytes of each sample.
fn brief(events: &[Event]) -> Vec<(u8, i64, i64, &[u8])> {
    let mut rows = Vec::new();
    for sample in samples(events) {
        let decode_ticks = sample.decode_ticks.expect("MP4 says when to decode");
        rows.push((sample.track, decode_ticks, sample.presentation_ticks, &sample.data[..]));
    }
    rows
}

#[test]
fn fixtures_demux_equally_however_they_are_cut() {
    for name in FRAGMENTED {
        let bytes = vidar_fixtures::read(name);
        let (events, end) = demux(&bytes);
        assert_eq!(end, Ok(()), "{name}");
        assert!(samples(&events).len() > 150, "{name}");
        assert_eq!(demux_bytewise(&bytes), (events, Ok(())), "{name}");
        demux_fmp4(&bytes);
    }
}

#[test]
fn the_configs_of_fixtures_say_what_the_files_say() {
    let expected = [
        ("bbb_frag.mp4", Codec::H264, "avc1", 320, Some((Codec::Aac, "mp4a"))),
        ("bbb_cmaf.mp4", Codec::H264, "avc1", 320, Some((Codec::Aac, "mp4a"))),
        ("h265.mp4", Codec::H265, "hvc1", 160, Some((Codec::Aac, "mp4a"))),
        ("av1_opus.mp4", Codec::Av1, "av01", 160, Some((Codec::Opus, "Opus"))),
        ("vp9_opus.mp4", Codec::Vp9, "vp09", 160, Some((Codec::Opus, "Opus"))),
    ];
    for (name, codec, id, width, audio) in expected {
        let (events, _) = demux(&vidar_fixtures::read(name));
        let tracks = &config(&events).tracks;
        assert_eq!((tracks[0].codec, tracks[0].codec_id.as_str()), (codec, id), "{name}");
        assert_eq!(tracks[0].video.map(|video| video.width), Some(width), "{name}");
        assert_eq!((tracks[0].timescale_hz, tracks[0].kind), (16_000, TrackKind::Video), "{name}");
        assert_eq!(Some((tracks[1].codec, tracks[1].codec_id.as_str())), audio, "{name}");
        assert_eq!((tracks[1].source_number, tracks[1].timescale_hz), (2, 48_000), "{name}");
        assert_eq!(tracks[1].language, "und", "{name}");
        let is_nal = matches!(codec, Codec::H264 | Codec::H265);
        assert_eq!(tracks[0].framing == NalFraming::LengthPrefixed(4), is_nal, "{name}");
        assert_eq!(tracks[1].codec_private.starts_with(b"OpusHead\x01"), tracks[1].codec == Codec::Opus, "{name}");
    }
}

#[test]
fn truncated_anywhere_what_is_complete_comes_out() {
    let bytes = Bytes::from(vidar_fixtures::read("audio_aac.mp4"));
    let (whole, _) = demux(&bytes);
    let mut ends = vec![0];
    while let Some(size) = bytes.get(ends[ends.len() - 1]..).filter(|rest| !rest.is_empty()) {
        ends.push(ends[ends.len() - 1] + u32::from_be_bytes(size[..4].try_into().expect("4 bytes")) as usize);
    }
    let mut last_count = 0;
    for len in 0..bytes.len() {
        let (part, end) = demux_in_pieces(Demuxer::new(), &bytes.slice(..len), || usize::MAX);
        assert!(whole.starts_with(&part) && part.len() >= last_count, "{len}");
        last_count = part.len();
        match end {
            Err(error) if error.kind == DemuxErrorKind::Truncated => assert!(error.offset <= len as u64, "{error}"),
            // At the end of a box.
            Err(error) => assert_eq!((error.kind, part.len()), (DemuxErrorKind::Unusable, 0), "{len}: {error}"),
            Ok(()) => assert!(!part.is_empty() && ends.contains(&len), "{len}"),
        }
    }
    for name in ["bbb_frag.mp4", "h265.mp4"] {
        let bytes = Bytes::from(vidar_fixtures::read(name));
        let (whole, _) = demux(&bytes);
        for len in (0..8192).chain((8192..bytes.len()).step_by(7919)) {
            let (part, _) = demux_in_pieces(Demuxer::new(), &bytes.slice(..len), || usize::MAX);
            assert!(whole.starts_with(&part), "{name} {len}");
        }
    }
}

#[test]
fn event_messages_are_counted() {
    let file = File::new().full(b"emsg", 0, 0, &[0; 5]).full(b"emsg", 1, 0, &[0; 7]);
    let mut demuxer = Demuxer::new();
    demuxer.push(file.0.into(), &mut Vec::new()).expect("well-formed");
    assert_eq!(demuxer.passed_over().event_messages, 2);
}

#[test]
fn plain_mp4_is_refused_with_advice() {
    let index_last = vidar_fixtures::read("bbb.mp4");
    let moov = index_last.windows(4).position(|window| window == b"moov").expect("an index") - 4;
    let ftyp = u32::from_be_bytes(index_last[..4].try_into().expect("4 bytes")) as usize;
    assert!(index_last[ftyp..moov].windows(4).any(|window| window == b"mdat"), "the index is last");
    let index_first = [&index_last[..ftyp], &index_last[moov..], &index_last[ftyp..moov]].concat();
    for file in [index_first, index_last] {
        let refusal = error(&file);
        assert_eq!(refusal.kind, DemuxErrorKind::Unusable);
        assert!(refusal.detail.contains("not fragmented"), "{refusal}");
        assert!(refusal.detail.contains("-movflags +frag_keyframe+empty_moov+default_base_moof"), "{refusal}");
        let (events, _) = demux(&file);
        assert_eq!(events, []);
    }
}

#[test]
fn what_is_no_mp4_is_refused_at_once() {
    for bytes in [&b"RIFF\x00\x00\x00\x00AVI "[..], &[0x1a, 0x45, 0xdf, 0xa3, 1, 0, 0, 0], b"\0\0\0\x10xxxxyyyyzzzz"] {
        assert_eq!(error(bytes).kind, DemuxErrorKind::Malformed);
    }
    assert_eq!(error(b"").kind, DemuxErrorKind::Unusable);
}

#[test]
fn trex_defaults_and_absent_decode_times_accumulate() {
    let mut file = File(Vec::new());
    let init = two_tracks();
    // The second trex: duration 20, size 3, flags non-sync.
    let trex = init.windows(4).rposition(|window| window == b"trex").unwrap();
    let defaults: Vec<u8> = [20_u32, 3, 0x1_0000].iter().flat_map(|word| word.to_be_bytes()).collect();
    file.0.extend_from_slice(&init[..trex + 16]);
    file.0.extend_from_slice(&defaults);
    file.0.extend_from_slice(&init[trex + 28..]);
    // tfhd (no flags) of track 2, trun of 2 samples with first-sample-flags, without data offset: the moof's start,
    // so the first traf needs one.
    let moof_len = 8 + 8 + 16 + 24;
    let traf: &[Full] = &[(b"tfhd", 0, 0, &[2]), (b"trun", 0, 5, &[2, moof_len + 8, 0])];
    let file = file.moof(&[traf]).mdat(b"abcdef").moof(&[traf]).mdat(b"ghijkl");
    let events = events(&file.0);
    let expected: [(u8, i64, i64, &[u8]); 4] =
        [(1, 0, 0, b"abc"), (1, 20, 20, b"def"), (1, 40, 40, b"ghi"), (1, 60, 60, b"jkl")];
    assert_eq!(brief(&events), expected);
    let sync: Vec<_> = samples(&events).iter().map(|sample| (sample.sync, sample.duration_ticks)).collect();
    assert_eq!(sync, [(SyncKind::Sync, Some(20)), (SyncKind::None, Some(20))].repeat(2));
    assert_eq!(events[1], Event::SourceFragment { timecode: None, units: None, sized: true });
}

#[test]
fn base_data_offsets_are_absolute_and_runs_interleave_by_place() {
    let file = File::new();
    let moof_start = file.len();
    // Two trafs: the first with base-data-offset, the second with default-base-is-moof; two truns each, interleaved.
    let moof_len: u32 = 8 + (8 + 36 + 20 + 2 * 20) + (8 + 28 + 20 + 2 * 20);
    let base = moof_start + moof_len + 8;
    let a: &[Full] = &[
        (b"tfhd", 0, 0x39, &[1, 0, base, 10, 2, 0]),
        (b"tfdt", 1, 0, &[0, 100]),
        (b"trun", 0, 1, &[1, 0]),
        (b"trun", 0, 1, &[1, 3]),
    ];
    let rel = moof_len + 8;
    let b: &[Full] = &[
        tfhd(&[2, 5, 1, 0]),
        (b"tfdt", 1, 0, &[0, 7]),
        (b"trun", 0, 1, &[1, rel + 2]),
        (b"trun", 0, 1, &[2, rel + 5]),
    ];
    let file = file.moof(&[a, b]);
    assert_eq!(file.len(), moof_start + moof_len);
    let bytes = file.mdat(b"AAxAAyz").0;
    let events = events(&bytes);
    let expected: [(u8, i64, i64, &[u8]); 5] =
        [(0, 100, 100, b"AA"), (1, 7, 7, b"x"), (0, 110, 110, b"AA"), (1, 12, 12, b"y"), (1, 17, 17, b"z")];
    assert_eq!(brief(&events), expected);
    assert_eq!(events[1], Event::SourceFragment { timecode: Some(100), units: None, sized: true });
}

#[test]
fn without_base_flags_a_traf_begins_where_the_one_before_ended() {
    let moof_len: u32 = 8 + (8 + 28 + 20) + (8 + 28 + 16);
    let a: &[Full] = &[(b"tfhd", 0, 0x38, &[1, 10, 2, 0]), (b"trun", 0, 1, &[1, moof_len + 8])];
    let b: &[Full] = &[(b"tfhd", 0, 0x38, &[2, 5, 1, 0]), (b"trun", 0, 0, &[3])];
    let bytes = File::new().moof(&[a, b]).mdat(b"AAxyz").0;
    let expected: [(u8, i64, i64, &[u8]); 4] = [(0, 0, 0, b"AA"), (1, 0, 0, b"x"), (1, 5, 5, b"y"), (1, 10, 10, b"z")];
    assert_eq!(brief(&events(&bytes)), expected);
}

#[test]
fn composition_offsets_are_signed() {
    let moof_len: u32 = 8 + 8 + 28 + 16 + 20 + 2 * 8;
    // The data stands behind a gap of 4 bytes.
    let body = [2, moof_len + 8 + 4, 1, 7, 1, (-4_i32) as u32];
    let traf: &[Full] = &[tfhd(&[1, 10, 1, 0]), (b"tfdt", 0, 0, &[50]), (b"trun", 1, 0xa01, &body)];
    let bytes = File::new().moof(&[traf]).mdat(b"____ab").0;
    let expected: [(u8, i64, i64, &[u8]); 2] = [(0, 50, 57, b"a"), (0, 60, 56, b"b")];
    assert_eq!(brief(&events(&bytes)), expected);
}

#[test]
fn leading_and_dependent_samples_are_told_by_their_flags() {
    let flags = [0x0200_0000, 0x0101_0000, 0x0501_0000, 0x0c01_0000, 0x0100_0000, 0];
    let moof_len: u32 = 8 + 8 + 28 + 20 + 6 * 4;
    let body: Vec<u32> = [6, moof_len + 8].into_iter().chain(flags).collect();
    let traf: &[Full] = &[tfhd(&[1, 10, 1, 0]), (b"trun", 0, 0x401, &body)];
    let events = events(&File::new().moof(&[traf]).mdat(b"abcdef").0);
    let sync: Vec<_> = samples(&events).iter().map(|sample| sample.sync).collect();
    use SyncKind::{Leading, None, Sync};
    assert_eq!(sync, [Sync, None, Leading, None, None, Sync]);
}

#[test]
fn media_may_last_to_the_end_of_the_input() {
    let traf: &[Full] = &[tfhd(&[2, 5, 2, 0]), (b"trun", 0, 1, &[2, 8 + 8 + 28 + 20 + 8])];
    let file = File::new().moof(&[traf]).bytes(b"\0\0\0\0mdatabcd");
    assert_eq!(samples(&events(&file.0)).len(), 2);
    // Bytes after the samples belong to it too.
    assert_eq!(samples(&events(&file.bytes(b"xyz").0)).len(), 2);
    let cut = File::new().moof(&[traf]).bytes(b"\0\0\0\0mdatabc").0;
    let cut = error(&cut);
    assert_eq!((cut.kind, cut.path.as_str()), (DemuxErrorKind::Truncated, "moof[0]/traf[0]/trun[0]"));
}

#[test]
fn large_sizes_and_boxes_between_are_passed_over() {
    let traf: &[Full] = &[tfhd(&[2, 5, 2, 0]), (b"trun", 0, 1, &[2, 8 + 8 + 28 + 20 + 16 + 12])];
    let file = File::new()
        .bytes(&[0, 0, 0, 1, b'f', b'r', b'e', b'e', 0, 0, 0, 0, 0, 0, 0, 19, 1, 2, 3])
        .moof(&[traf])
        .bytes(b"\0\0\0\x0cskip....")
        .bytes(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x14abcd")
        .bytes(b"\0\0\0\x0cmfra....");
    assert_eq!(samples(&events(&file.0)).iter().map(|s| &s.data[..]).collect::<Vec<_>>(), [b"ab", b"cd"]);
}

#[test]
fn sizes_that_no_box_has_are_malformed() {
    for size in 2..8_u8 {
        let bad = error(&File::new().bytes(&[0, 0, 0, size]).bytes(b"free").0);
        assert_eq!((bad.kind, bad.offset), (DemuxErrorKind::Malformed, File::new().len().into()), "{bad}");
    }
    let bad = error(&File::new().bytes(b"\0\0\0\x01mdat\0\0\0\0\0\0\0\x0f").0);
    assert_eq!((bad.kind, bad.path.as_str()), (DemuxErrorKind::Malformed, "mdat"));
    let bad = error(&File::new().bytes(b"\0\0\0\x01mdat\xff\xff\xff\xff\xff\xff\xff\xff").0);
    assert_eq!(bad.kind, DemuxErrorKind::Malformed);
    for kind in [b"moov", b"moof"] {
        let bad = error(&File::new().bytes(&[0; 4]).bytes(kind).0);
        assert_eq!(bad.kind, DemuxErrorKind::Malformed, "{bad}");
    }
    let bad = error(&File::new().bytes(b"\0\0\0\x09\0\x01\x02\x03x").0);
    assert_eq!(bad.kind, DemuxErrorKind::Malformed);
}

#[test]
fn headers_over_the_limits_are_refused_before_they_come() {
    let size = (INIT_BYTES_MAX as u32 + 9).to_be_bytes();
    for kind in [b"moov", b"moof"] {
        let bad = demux(&File::new().bytes(&size).bytes(kind).0).1.unwrap_err();
        assert_eq!(bad.kind, DemuxErrorKind::TooLarge, "{bad}");
    }
}

#[test]
fn counts_are_checked_against_the_bytes_of_the_run() {
    let kinds = [
        // Rows that are not there.
        (tfhd(&[2, 5, 2, 0]), 0x301, u32::MAX, DemuxErrorKind::Malformed),
        // No rows, no bytes: nothing bounds the count.
        (tfhd(&[2, 5, 0, 0]), 1, u32::MAX, DemuxErrorKind::Malformed),
        // More bytes than the mdat has.
        (tfhd(&[2, 5, 2, 0]), 1, u32::MAX, DemuxErrorKind::Malformed),
        // A sample over the limit.
        (tfhd(&[2, 5, 51 << 20, 0]), 1, 1, DemuxErrorKind::TooLarge),
    ];
    for (tfhd, flags, count, kind) in kinds {
        let trun: &[u32] = &[count, 8 + 8 + 28 + 20 + 8];
        let bad = error(&File::new().moof(&[&[tfhd], &[tfhd, (b"trun", 0, flags, trun)]]).mdat(b"abcd").0);
        assert_eq!((bad.kind, bad.path.as_str()), (kind, "moof[0]/traf[1]/trun[0]"), "{bad}");
        assert!(bad.detail.contains("sample"), "{bad}");
    }
}

#[test]
fn samples_outside_the_media_are_malformed() {
    let data = 8 + 8 + 28 + 20 + 8;
    for (offset, media) in [(data - 1, b"abcd".as_slice()), (data + 1, b"abcd"), (0, b"abcd"), (data, b"abc")] {
        let traf: &[Full] = &[tfhd(&[2, 5, 4, 0]), (b"trun", 0, 1, &[1, offset])];
        let bad = error(&File::new().moof(&[traf]).mdat(media).0);
        assert_eq!((bad.kind, bad.path.as_str()), (DemuxErrorKind::Malformed, "moof[0]/traf[0]/trun[0]"), "{bad}");
    }
    // Before the input, over another run, no media at all.
    let before: &[Full] = &[tfhd(&[2, 5, 4, 0]), (b"trun", 0, 1, &[1, i32::MIN as u32])];
    assert_eq!(error(&File::new().moof(&[before]).0).kind, DemuxErrorKind::Malformed);
    let data_of_two = data + 20;
    let twice: &[Full] =
        &[tfhd(&[2, 5, 4, 0]), (b"trun", 0, 1, &[1, data_of_two]), (b"trun", 0, 1, &[1, data_of_two + 1])];
    let bad = error(&File::new().moof(&[twice]).mdat(b"abcdefg").0);
    assert_eq!((bad.kind, bad.path.as_str()), (DemuxErrorKind::Malformed, "moof[0]/traf[0]/trun[1]"), "{bad}");
    let traf: &[Full] = &[tfhd(&[2, 5, 4, 0]), (b"trun", 0, 1, &[1, data])];
    let bad = error(&File::new().moof(&[traf]).moof(&[traf]).0);
    assert_eq!((bad.kind, bad.path.as_str()), (DemuxErrorKind::Malformed, "moof[0]/traf[0]/trun[0]"), "{bad}");
    let bad = error(&File::new().moof(&[traf]).0);
    assert_eq!((bad.kind, bad.path.as_str()), (DemuxErrorKind::Truncated, "moof[0]/traf[0]/trun[0]"), "{bad}");
}

#[test]
fn broken_fragments_say_where_they_break() {
    let unknown: &[Full] = &[(b"tfhd", 0, 0, &[9])];
    let bad = error(&File::new().moof(&[unknown]).0);
    assert_eq!((bad.kind, bad.path.as_str()), (DemuxErrorKind::Malformed, "moof[0]/traf[0]/tfhd"));
    assert_eq!(bad.offset, u64::from(File::new().len()) + 24);
    let headless: &[Full] = &[(b"trun", 0, 0, &[0])];
    assert_eq!(error(&File::new().moof(&[headless]).0).path, "moof[0]/traf[0]/trun[0]");
    let empty: &[Full] = &[];
    assert_eq!(error(&File::new().moof(&[empty]).0).path, "moof[0]/traf[0]");
    let late: &[Full] = &[(b"tfhd", 0, 0, &[1]), (b"tfdt", 1, 0, &[1 << 31, 0])];
    assert_eq!(error(&File::new().moof(&[late]).0).path, "moof[0]/traf[0]/tfdt");
    let entry: &[Full] = &[(b"tfhd", 0, 2, &[1, 2])];
    assert_eq!(error(&File::new().moof(&[entry]).0).path, "moof[0]/traf[0]/tfhd");
    assert_eq!(error(&File(Vec::new()).full(b"styp", 0, 0, &[]).moof(&[]).0).path, "moof");
}

#[test]
fn empty_samples_need_no_media() {
    let traf: &[Full] = &[tfhd(&[2, 5, 0, 0]), (b"trun", 0, 0, &[1])];
    let expected: [(u8, i64, i64, &[u8]); 2] = [(1, 0, 0, b""), (1, 5, 5, b"")];
    assert_eq!(brief(&events(&File::new().moof(&[traf]).moof(&[traf]).0)), expected);
}

#[test]
fn producer_times_are_wall_clock() {
    // 2026-01-02T03:04:05.5Z in NTP seconds, and a time after 2036 in the next era.
    let ntp = (1_767_323_045_u64 + 2_208_988_800) as u32;
    let traf: &[Full] = &[tfhd(&[2, 5, 1, 0]), (b"trun", 0, 1, &[1, 72])];
    let file = File::new()
        .full(b"prft", 1, 24, &[2, ntp, 1 << 31, 1, 5])
        .full(b"prft", 0, 0, &[1, 10, 0, 77])
        .full(b"prft", 0, 0, &[9, ntp, 0, 77])
        .full(b"prft", 0, 0, &[1, 0, 0, 77])
        .moof(&[traf])
        .mdat(b"a");
    let events = events(&file.0);
    let walls: Vec<_> = events.iter().filter(|event| matches!(event, Event::Wall { .. })).cloned().collect();
    let next_era = UnixMs(((1_i64 << 32) + 10 - 2_208_988_800) * 1000);
    assert_eq!(
        walls,
        [
            Event::Wall { track: 1, presentation_ticks: (1 << 32) + 5, at: UnixMs(1_767_323_045_500) },
            Event::Wall { track: 0, presentation_ticks: 77, at: next_era },
        ]
    );
}

/// `elst` of version 0 put into the first `trak`: (movie ticks, media time, or none for an empty edit).
fn with_edits(init: &[u8], edits: &[(u32, i32)]) -> Vec<u8> {
    let mut edts = Vec::new();
    write_box(&mut edts, b"edts", |out| {
        write_full_box(out, b"elst", 0, 0, |out| {
            words(out, &[edits.len() as u32]);
            for (duration, media_time) in edits {
                words(out, &[*duration, *media_time as u32, 0x1_0000]);
            }
        });
    });
    let find = |kind: &[u8; 4]| init.windows(4).position(|window| window == kind).unwrap() - 4;
    let mut bytes = init.to_vec();
    for outer in [find(b"moov"), find(b"trak")] {
        let size = u32::from_be_bytes(bytes[outer..outer + 4].try_into().unwrap()) + edts.len() as u32;
        bytes[outer..outer + 4].copy_from_slice(&size.to_be_bytes());
    }
    bytes.splice(find(b"mdia")..find(b"mdia"), edts);
    bytes
}

#[test]
fn edit_lists_are_announced_as_they_are() {
    let init = with_edits(&two_tracks(), &[(250, -1), (500, -1), (0, 1024), (0, 9)]);
    let traf: &[Full] = &[
        tfhd(&[1, 10, 1, 0]),
        (b"tfdt", 0, 0, &[1000]),
        (b"trun", 1, 0x801, &[2, 8 + 8 + 28 + 16 + 28 + 8, 20, (-3_i32) as u32]),
    ];
    let file = File(init.clone()).full(b"prft", 0, 0, &[1, 4_000_000_000, 0, 77]).moof(&[traf]).mdat(b"ab");
    let with_edits = events(&file.0);
    let trims = config(&with_edits).tracks[0].trims;
    assert_eq!(trims, Trims { edit_start_ticks: 1024, edit_delay_ms: 750, ..Trims::default() });
    assert_eq!(config(&with_edits).tracks[1].trims, Trims::default());
    assert!(matches!(with_edits[1], Event::Wall { .. }));
}

#[test]
fn another_moov_is_a_discontinuity_and_the_same_again_is_none() {
    let traf: &[Full] = &[tfhd(&[1, 10, 1, 0]), (b"trun", 0, 1, &[1, 72])];
    let again = File::new().moof(&[traf]).mdat(b"a").bytes(&two_tracks()).moof(&[traf]).mdat(b"b");
    let events_again = events(&again.0);
    let expected: [(u8, i64, i64, &[u8]); 2] = [(0, 0, 0, b"a"), (0, 10, 10, b"b")];
    assert_eq!(brief(&events_again), expected);
    assert!(!events_again.contains(&Event::Discontinuity));

    let other = with_edits(&two_tracks(), &[(250, -1), (0, 0)]);
    let events = events(&File::new().moof(&[traf]).mdat(b"a").bytes(&other).moof(&[traf]).mdat(b"b").0);
    let expected: [(u8, i64, i64, &[u8]); 2] = [(0, 0, 0, b"a"), (0, 0, 0, b"b")];
    assert_eq!(brief(&events), expected);
    assert_eq!(events[3], Event::Discontinuity);
    assert!(matches!(&events[4], Event::Config(config) if config.tracks[0].trims.edit_delay_ms == 250));
}

#[test]
fn a_fragment_of_another_sample_entry_changes_the_config() {
    let init = two_tracks();
    // A second entry in the second stsd: the same as the first, but alaw.
    let stsd = init.windows(4).rposition(|window| window == b"stsd").unwrap() - 4;
    let size = u32::from_be_bytes(init[stsd..stsd + 4].try_into().unwrap()) as usize;
    let mut entry = init[stsd + 16..stsd + size].to_vec();
    entry[4..8].copy_from_slice(b"alaw");
    let mut bytes = init.clone();
    for outer in [b"moov", b"trak", b"mdia", b"minf", b"stbl", b"stsd"] {
        let at = init.windows(4).rposition(|window| window == outer).unwrap() - 4;
        let grown = u32::from_be_bytes(init[at..at + 4].try_into().unwrap()) + entry.len() as u32;
        bytes[at..at + 4].copy_from_slice(&grown.to_be_bytes());
    }
    bytes[stsd + 15] = 2;
    bytes.splice(stsd + size..stsd + size, entry);

    let bodies = [[2, 1, 5, 1, 0], [2, 2, 5, 1, 0]];
    let trun = [1, 8 + 8 + 32 + 20 + 8];
    let trafs = bodies.each_ref().map(|body| -> [Full; 2] { [(b"tfhd", 0, 0x2_003a, body), (b"trun", 0, 1, &trun)] });
    let file = [0, 1, 1, 0].iter().fold(File(bytes), |file, index| file.moof(&[&trafs[*index]]).mdat(b"a"));
    let codecs = events(&file.0).into_iter().filter_map(|event| match event {
        Event::Config(config) => Some(config.tracks[1].codec),
        _ => None,
    });
    assert_eq!(codecs.collect::<Vec<_>>(), [Codec::G711Ulaw, Codec::G711Alaw, Codec::G711Ulaw]);
    assert_eq!(samples(&events(&file.0)).len(), 4);
}

#[test]
fn movies_that_cannot_be_used_are_refused() {
    let none = error(&File(Vec::new()).bytes(b"\0\0\0\x08moov").0);
    assert_eq!((none.kind, none.path.as_str()), (DemuxErrorKind::Unusable, "moov"));

    let tracks = vec![track(TrackKind::Audio, Codec::G711Ulaw); 11];
    let config = StreamConfig { tracks, matroska_header: Bytes::new() };
    let indexes: Vec<u8> = (0..11).collect();
    let many = init::encode(&config, &indexes, init::InitOptions::default()).unwrap();
    let many = error(&many);
    assert_eq!((many.kind, many.path.as_str()), (DemuxErrorKind::TooLarge, "moov"));

    let twice = init::encode(&config, &[3, 3], init::InitOptions::default()).unwrap();
    let twice = error(&twice);
    assert_eq!((twice.kind, twice.path.as_str()), (DemuxErrorKind::Malformed, "moov/trak[1]"));
}

#[test]
fn encrypted_tracks_are_opaque() {
    let init = two_tracks();
    let at = init.windows(4).position(|window| window == b"ulaw").unwrap();
    let mut encrypted = init.clone();
    encrypted[at..at + 4].copy_from_slice(b"enca");
    let events = events(&encrypted);
    let track = &config(&events).tracks[1];
    assert_eq!((track.codec, track.codec_id.as_str(), track.kind), (Codec::Opaque, "enca", TrackKind::Audio));
    assert_eq!(track.codec_private, init[at + 4..at + 4 + 28]);
}

#[test]
fn the_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/demux_fmp4");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        demux_fmp4(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 0);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_panics(seed in any::<u64>(), edits in prop::collection::vec((0_usize..3000, any::<u8>()), 1..8)) {
        let name = FRAGMENTED[(seed % FRAGMENTED.len() as u64) as usize];
        let mut bytes = vidar_fixtures::read(name);
        bytes.truncate(6000);
        for (at, value) in edits {
            bytes[at] = value;
        }
        demux_fmp4(&bytes);
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        demux_fmp4(&bytes);
        demux_fmp4(&File::new().bytes(&bytes).0);
        let mut moof = Vec::new();
        write_box(&mut moof, b"moof", |out| write_box(out, b"traf", |out| out.extend_from_slice(&bytes)));
        demux_fmp4(&File::new().bytes(&moof).0);
    }
}
