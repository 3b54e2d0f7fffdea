//! Tests of the demux module.

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::sample::{SyncKind, Tag};
use vidar_core::time::UnixMs;
use vidar_core::track::{Codec, NalFraming, PcmFormat, Track, TrackKind, VideoParams};

use super::super::ebml::{write_element, write_float, write_uint};
use super::super::id;
use super::*;
use crate::demux::{Demux, DemuxError, DemuxErrorKind, Event, PassedOver, RawSample};
use crate::fuzz::{demux_in_pieces, demux_mkv};

/// Bytes of a document, element by element.
#[derive(Clone, Default)]
struct Doc(Vec<u8>);

impl Doc {
    fn element(mut self, id: u32, body: &[u8]) -> Self {
        write_element(&mut self.0, id, body);
        self
    }

    fn master(self, id: u32, body: Self) -> Self {
        self.element(id, &body.0)
    }

    fn uint(mut self, id: u32, value: u64) -> Self {
        write_uint(&mut self.0, id, value);
        self
    }

    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend_from_slice(bytes);
        self
    }

    /// EBML header, Segment of unknown size.
    fn start() -> Self {
        Self::default().master(id::EBML, Self::default().element(id::DOC_TYPE, b"matroska")).raw(SEGMENT)
    }

    /// A Cluster of unknown size at this time.
    fn cluster(self, timestamp: u64) -> Self {
        self.raw(CLUSTER).uint(id::TIMESTAMP, timestamp)
    }

    fn simple_block(self, bytes: &[u8]) -> Self {
        self.element(id::SIMPLE_BLOCK, bytes)
    }
}

const SEGMENT: &[u8] = &[0x18, 0x53, 0x80, 0x67, 0xff];
const CLUSTER: &[u8] = &[0x1f, 0x43, 0xb6, 0x75, 0xff];

fn entry(number: u64, kind: u64, codec_id: &str) -> Doc {
    Doc::default().uint(id::TRACK_NUMBER, number).uint(id::TRACK_TYPE, kind).element(id::CODEC_ID, codec_id.as_bytes())
}

fn audio(hz: f64, channels: u64, bits: u64) -> Doc {
    let mut body = Vec::new();
    write_float(&mut body, id::SAMPLING_FREQUENCY, hz);
    Doc(body).uint(id::CHANNELS, channels).uint(id::BIT_DEPTH, bits)
}

/// One opaque video track, number 1.
fn video_doc() -> Doc {
    doc_of(&[entry(1, 1, "V_TEST")])
}

fn doc_of(entries: &[Doc]) -> Doc {
    Doc::start().master(id::TRACKS, tracks(entries))
}

fn tracks(entries: &[Doc]) -> Doc {
    entries.iter().fold(Doc::default(), |tracks, entry| tracks.master(id::TRACK_ENTRY, entry.clone()))
}

fn demux(doc: &Doc) -> (Vec<Event>, Result<(), DemuxError>) {
    demux_mkv(&doc.0);
    demux_in_pieces(Demuxer::new(), &Bytes::copy_from_slice(&doc.0), || usize::MAX)
}

fn events(doc: &Doc) -> Vec<Event> {
    let (events, end) = demux(doc);
    assert_eq!(end, Ok(()));
    events
}

fn error(doc: &Doc) -> DemuxError {
    demux(doc).1.unwrap_err()
}

fn samples(doc: &Doc) -> Vec<RawSample> {
    let sample = |event| if let Event::Sample(sample) = event { Some(sample) } else { None };
    events(doc).into_iter().filter_map(sample).collect()
}

fn times(doc: &Doc) -> Vec<i64> {
    samples(doc).iter().map(|sample| sample.presentation_ticks).collect()
}

/// The tracks of a header, which an empty Cluster completes.
fn tracks_of(doc: Doc) -> Vec<Track> {
    let config = |event| if let Event::Config(config) = event { Some(config.tracks) } else { None };
    events(&doc.cluster(0)).into_iter().find_map(config).unwrap()
}

fn track(entry: Doc) -> Track {
    tracks_of(doc_of(&[entry])).remove(0)
}

#[test]
fn what_has_no_place_is_counted() {
    let passed_over = |bytes: &[u8]| {
        let mut demuxer = Demuxer::new();
        demuxer.push(Bytes::copy_from_slice(bytes), &mut Vec::new()).unwrap();
        demuxer.passed_over()
    };
    let group = Doc::default().element(id::BLOCK, &[0x81, 0, 0, 0, 7]).element(id::DISCARD_PADDING, &[1]);
    let doc = video_doc().cluster(0).master(id::BLOCK_GROUP, group.element(id::BLOCK_ADDITIONS, &[]));
    let expected = PassedOver { discard_paddings: 1, block_additions: 1, event_messages: 0 };
    assert_eq!(passed_over(&doc.0), expected);
    assert_eq!(samples(&doc).len(), 1);
    assert_eq!(passed_over(&vidar_fixtures::read("audio_opus.mkv")).discard_paddings, 1, "ffmpeg cuts the last frame");
    assert_eq!(passed_over(&vidar_fixtures::read("bbb.mkv")), PassedOver::default());
}

#[test]
fn a_document_becomes_config_fragments_and_samples() {
    let doc = video_doc().cluster(40).simple_block(&[0x81, 0, 5, 0x80, 7]).simple_block(&[0x81, 0xff, 0xff, 0x09, 8]);
    let events = events(&doc);
    let [
        Event::Config(config),
        Event::SourceFragment { timecode: Some(40), units: Some(40), sized: false },
        Event::Sample(first),
        Event::Sample(second),
    ] = &events[..]
    else {
        panic!("{events:?}")
    };
    assert_eq!(config.matroska_header, video_doc().0);
    assert_eq!(config.tracks[0].timescale_hz, 1000);
    let expected = RawSample {
        track: 0,
        presentation_ticks: 45,
        decode_ticks: None,
        duration_ticks: None,
        sync: SyncKind::Sync,
        block_flags: 0,
        data: Bytes::from_static(&[7]),
    };
    assert_eq!(*first, expected);
    let data = Bytes::from_static(&[8]);
    assert_eq!(*second, RawSample { presentation_ticks: 39, sync: SyncKind::None, block_flags: 9, data, ..expected });
}

#[test]
fn block_groups_tell_durations_and_references() {
    let block = |doc: Doc| doc.element(id::BLOCK, &[0x81, 0, 0, 0x08, 7]);
    let doc =
        video_doc().cluster(1000).master(id::BLOCK_GROUP, block(Doc::default()).uint(id::BLOCK_DURATION, 40)).master(
            id::BLOCK_GROUP,
            block(Doc::default().element(id::REFERENCE_BLOCK, &[0xd8]).element(id::VOID, &[0; 3])),
        );
    let facts: Vec<_> = samples(&doc).iter().map(|s| (s.duration_ticks, s.sync, s.block_flags)).collect();
    assert_eq!(facts, [(Some(40), SyncKind::Sync, 0x18), (None, SyncKind::None, 0x18)]);
}

#[test]
fn known_and_unknown_sizes_mix() {
    let header = Doc::default().master(id::EBML, Doc::default());
    let segment = Doc::default().master(id::TRACKS, tracks(&[entry(1, 1, "V_TEST")]));
    let cluster = |time: u8| Doc::default().uint(id::TIMESTAMP, time.into()).simple_block(&[0x81, 0, 0, 0, time]);
    // A Cluster of unknown size within a Segment of known size ends with it.
    let known = header.clone().master(
        id::SEGMENT,
        segment.clone().master(id::CLUSTER, cluster(1)).cluster(2).simple_block(&[0x81, 0, 0, 0, 2]),
    );
    assert_eq!(times(&known), [1, 2]);
    // A Cluster of unknown size ends at Cues, Tags, or the next.
    let unknown =
        header.raw(SEGMENT).raw(&segment.0).cluster(1).simple_block(&[0x81, 0, 0, 0]).element(id::CUES, &[1, 2]);
    let unknown = unknown
        .master(id::CLUSTER, cluster(2))
        .cluster(3)
        .simple_block(&[0x81, 0, 0, 0])
        .master(id::TAGS, Doc::default());
    assert_eq!(times(&unknown), [1, 2, 3]);
}

#[test]
fn what_is_not_understood_is_passed_over() {
    let doc = video_doc()
        .element(id::SEEK_HEAD, &[1; 40])
        .cluster(0)
        .element(id::VOID, &[0xff; 100])
        .element(0x5854, &[9; 20])
        .element(id::CRC_32, &[1, 2, 3, 4])
        .simple_block(&[0x81, 0, 0, 0x80])
        .element(id::CHAPTERS, &[3; 200])
        .cluster(7)
        .simple_block(&[0x81, 0, 0, 0]);
    assert_eq!(times(&doc), [0, 7]);
    assert_eq!(tracks_of(doc).len(), 1);
}

#[test]
fn attachments_are_no_part_of_the_header_and_not_held() {
    let mut doc = video_doc();
    doc.0.extend_from_slice(&[0x19, 0x41, 0xa4, 0x69, 0x10 | 0x01, 0, 0, 0]);
    let len = 16 << 20;
    let mut demuxer = Demuxer::new();
    let mut events = Vec::new();
    demuxer.push(doc.0.clone().into(), &mut events).unwrap();
    for _ in 0..len / 4096 {
        demuxer.push(Bytes::from_static(&[0; 4096]), &mut events).unwrap();
    }
    demuxer.push(Doc::default().cluster(0).0.into(), &mut events).unwrap();
    assert_eq!(demuxer.finish(&mut events), Ok(()));
    assert!(matches!(&events[0], Event::Config(config) if config.matroska_header == video_doc().0));
}

#[test]
fn every_lacing_gets_times() {
    let lace = |flags: u8, rest: &[u8]| [&[0x81, 0, 10, flags][..], rest].concat();
    let (xiph, fixed) = (lace(0x02, &[2, 1, 1, 1, 2, 3]), lace(0x04, &[2, 1, 2, 3]));
    // Declared.
    let declared = entry(1, 2, "A_TEST").uint(id::DEFAULT_DURATION, 26_122_448);
    let doc = doc_of(&[declared]).cluster(100).simple_block(&xiph).simple_block(&lace(0x06, &[2, 0x81, 0xbf, 1, 2, 3]));
    assert_eq!(times(&doc), [110, 136, 162, 110, 136, 162]);
    assert_eq!(samples(&doc)[2].data, Bytes::from_static(&[3]));
    assert!(samples(&doc).iter().all(|sample| sample.sync == SyncKind::Sync && sample.duration_ticks.is_none()));
    // By the codec: 160 bytes of G.711 are 20 ms.
    let pcma =
        entry(1, 2, "A_MS/ACM").element(id::CODEC_PRIVATE, &wave_format(6, 8)).master(id::AUDIO, audio(8000.0, 1, 8));
    let doc = doc_of(&[pcma]).cluster(0).simple_block(&lace(0x04, &[&[1][..], &[0x55; 320]].concat()));
    assert_eq!(times(&doc), [10, 30]);
    // Spread over the block, and its duration shared without loss.
    let unknown = doc_of(&[entry(1, 2, "A_TEST")]);
    let group = Doc::default().element(id::BLOCK, &fixed).uint(id::BLOCK_DURATION, 10);
    let doc = unknown.clone().cluster(0).master(id::BLOCK_GROUP, group);
    assert_eq!(times(&doc), [10, 13, 16]);
    let durations: u32 = samples(&doc).iter().filter_map(|sample| sample.duration_ticks).sum();
    assert_eq!(durations, 10);
    // In order at least.
    assert_eq!(times(&unknown.cluster(0).simple_block(&fixed)), [10, 11, 12]);
}

fn encoding(algorithm: u64, settings: &[u8], scope: u64) -> Doc {
    let compression =
        Doc::default().uint(id::CONTENT_COMP_ALGO, algorithm).element(id::CONTENT_COMP_SETTINGS, settings);
    let encoding = Doc::default().uint(id::CONTENT_ENCODING_SCOPE, scope).master(id::CONTENT_COMPRESSION, compression);
    Doc::default().master(id::CONTENT_ENCODING, encoding)
}

#[test]
fn stripped_headers_are_put_back() {
    let stripped = |scope| {
        entry(1, 2, "A_MPEG/L3")
            .element(id::CODEC_PRIVATE, &[5])
            .master(id::CONTENT_ENCODINGS, encoding(3, &[0xff, 0xfb], scope))
    };
    let doc = doc_of(&[stripped(1)]).cluster(0).simple_block(&[0x81, 0, 0, 0x04, 1, 1, 2]);
    let data: Vec<_> = samples(&doc).into_iter().map(|sample| sample.data).collect();
    assert_eq!(data, [Bytes::from_static(&[0xff, 0xfb, 1]), Bytes::from_static(&[0xff, 0xfb, 2])]);
    let opaque = |scope| {
        entry(1, 2, "A_X").element(id::CODEC_PRIVATE, &[5]).master(id::CONTENT_ENCODINGS, encoding(3, &[7], scope))
    };
    assert_eq!(track(opaque(1)).codec_private, Bytes::from_static(&[5]));
    assert_eq!(track(opaque(3)).codec_private, Bytes::from_static(&[7, 5]));
}

#[test]
fn compressed_and_encrypted_tracks_are_opaque() {
    let encrypted = Doc::default().master(id::CONTENT_ENCODING, Doc::default().uint(id::CONTENT_ENCODING_TYPE, 1));
    let twice = Doc(encoding(3, &[1], 1).0.repeat(2));
    for encoding in [encoding(0, &[], 1), encoding(3, &[1; 300], 1), encrypted, twice] {
        let doc = doc_of(&[entry(1, 2, "A_MPEG/L3").master(id::CONTENT_ENCODINGS, encoding)]);
        assert_eq!(tracks_of(doc.clone())[0].codec, Codec::Opaque);
        let data = samples(&doc.cluster(0).simple_block(&[0x81, 0, 0, 0, 9])).remove(0).data;
        assert_eq!(data, Bytes::from_static(&[9]));
    }
}

fn wave_format(tag: u8, bits: u8) -> Vec<u8> {
    vec![tag, 0, 1, 0, 0x40, 0x1f, 0, 0, 0x40, 0x1f, 0, 0, 1, 0, bits, 0, 0, 0]
}

#[test]
fn codecs_of_sound_are_known_by_their_ids() {
    let with = |codec_id: &str, private: &[u8], bits| {
        let entry = entry(1, 2, codec_id).master(id::AUDIO, audio(48_000.0, 2, bits));
        track(if private.is_empty() { entry } else { entry.element(id::CODEC_PRIVATE, private) })
    };
    let pcm = |bits, big_endian, float| Codec::Pcm(PcmFormat { bits, big_endian, float, signed: bits != 8 });
    for (codec_id, private, bits, codec) in [
        ("A_AAC", &[0x11, 0x90][..], 16, Codec::Aac),
        ("A_MPEG/L2", &[], 16, Codec::Mp3),
        ("A_MS/ACM", &wave_format(6, 8), 8, Codec::G711Alaw),
        ("A_MS/ACM", &wave_format(7, 8), 8, Codec::G711Ulaw),
        ("A_MS/ACM", &wave_format(1, 16), 16, pcm(16, false, false)),
        ("A_MS/ACM", &wave_format(0x55, 0), 16, Codec::Opaque),
        ("A_MS/ACM", &[6, 0, 1], 8, Codec::Opaque),
        ("A_PCM/INT/LIT", &[], 8, pcm(8, false, false)),
        ("A_PCM/INT/BIG", &[], 24, pcm(24, true, false)),
        ("A_PCM/INT/BIG", &[], 20, Codec::Opaque),
        ("A_PCM/FLOAT/IEEE", &[], 32, pcm(32, false, true)),
        ("A_PCM/FLOAT/IEEE", &[], 16, Codec::Opaque),
        ("A_VORBIS", &[1, 2], 16, Codec::Opaque),
        ("A_OPUS", b"OpusHead\x01\x02\x38\x01\x80\xbb\0\0\0\0\0", 0, Codec::Opus),
        ("A_OPUS", b"Opus", 0, Codec::Opaque),
        ("V_VP8", &[], 0, Codec::Opaque),
    ] {
        let track = with(codec_id, private, bits);
        assert_eq!((track.codec, &track.codec_private[..]), (codec, private), "{codec_id}");
        assert_eq!(track.codec_id, codec_id);
    }
    // What old producers left out is made up.
    assert_eq!(with("A_AAC/MPEG4/LC", &[], 16).codec_private, Bytes::from_static(&[0x11, 0x90]));
    assert_eq!(with("A_AAC/MPEG2/MAIN", &[], 16).codec_private, Bytes::from_static(&[0x09, 0x90]));
    assert_eq!(with("A_AAC", &[], 16).codec_private, Bytes::from_static(&[0x11, 0x90]));
    assert_eq!(with("A_AAC/MPEG4/UNHEARD", &[], 16).codec, Codec::Opaque);
    assert_eq!(with("A_OPUS", &[], 0).codec_private, Bytes::from_static(b"OpusHead\x01\x02\0\0\x80\xbb\0\0\0\0\0"));
}

#[test]
fn codecs_of_pictures_are_known_by_their_ids() {
    let with = |codec_id: &str, private: &[u8]| {
        let picture =
            Doc::default().uint(id::PIXEL_WIDTH, 1920).uint(id::PIXEL_HEIGHT, 1088).uint(id::PIXEL_CROP_BOTTOM, 8);
        track(entry(1, 1, codec_id).element(id::CODEC_PRIVATE, private).master(id::VIDEO, picture))
    };
    for (codec_id, private, codec, kept) in [
        ("V_MPEG4/ISO/AVC", &[1, 2, 3][..], Codec::Opaque, true),
        ("V_MPEGH/ISO/HEVC", &[1, 2, 3], Codec::Opaque, true),
        ("V_AV1", &[0x81, 0, 0x0c, 0], Codec::Av1, true),
        ("V_AV1", &[], Codec::Opaque, true),
        ("V_VP8", &[], Codec::Vp8, true),
        ("V_VP9", &[], Codec::Vp9, true),
        ("V_VP9", &[1, 1, 0], Codec::Vp9, false),
        ("V_MS/VFW/FOURCC", &[1, 2, 3, 4], Codec::Opaque, true),
        ("A_AAC", &[0x11, 0x90], Codec::Opaque, true),
    ] {
        let track = with(codec_id, private);
        assert_eq!((track.codec, track.framing), (codec, NalFraming::None), "{codec_id}");
        assert_eq!(track.codec_private == private, kept, "{codec_id}");
        assert_eq!(track.video, Some(VideoParams { width: 1920, height: 1080 }));
    }
    let features = [1, 1, 0, 2, 1, 31, 3, 1, 8, 4, 1, 1];
    assert_eq!(with("V_VP9", &features).codec_private, Bytes::from_static(&[0, 31, 0x82, 2, 2, 2, 0, 0]));
}

#[test]
fn parameter_sets_behind_start_codes_make_a_record() {
    let record = crate::codec::h264::parse_avcc(&h264_private()).unwrap();
    let start_code = &[0, 0, 0, 1][..];
    let annex_b = [start_code, &record.sps[0], start_code, &record.pps[0]].concat();
    let bare = track(entry(1, 1, "V_MPEG4/ISO/AVC").element(id::CODEC_PRIVATE, &annex_b));
    assert_eq!((bare.codec, bare.framing, bare.in_band_parameter_sets), (Codec::H264, NalFraming::AnnexB, true));
    assert_eq!(crate::codec::h264::parse_avcc(&bare.codec_private).unwrap().sps, record.sps);
    let none = track(entry(1, 1, "V_MPEGH/ISO/HEVC"));
    assert_eq!((none.codec, none.framing), (Codec::H265, NalFraming::AnnexB));
    let with = track(entry(1, 1, "V_MPEG4/ISO/AVC").element(id::CODEC_PRIVATE, &h264_private()));
    assert_eq!((with.framing, with.in_band_parameter_sets), (NalFraming::LengthPrefixed(4), false));
}

fn h264_private() -> Bytes {
    let clip = vidar_fixtures::read("h264_short_gop.mkv").into();
    let (events, _) = demux_in_pieces(Demuxer::new(), &clip, || usize::MAX);
    let Some(Event::Config(config)) = events.into_iter().find(|event| matches!(event, Event::Config(_))) else {
        panic!()
    };
    config.tracks[0].codec_private.clone()
}

#[test]
fn what_a_track_says_of_itself_is_kept() {
    let entry = entry(300, 17, "S_TEXT/UTF8\0\0\0")
        .element(id::NAME, b"kinesis_video\0\0")
        .element(id::LANGUAGE, b"ger")
        .uint(id::CODEC_DELAY, 6_500_000)
        .uint(id::SEEK_PRE_ROLL, 80_000_000)
        .uint(id::DEFAULT_DURATION, 33_366_667);
    let subtitle = track(entry.clone());
    assert_eq!((subtitle.source_number, subtitle.kind, subtitle.codec), (300, TrackKind::Subtitle, Codec::Opaque));
    assert_eq!(
        (&subtitle.codec_id[..], &subtitle.name[..], &subtitle.language[..]),
        ("S_TEXT/UTF8", "kinesis_video", "ger")
    );
    assert_eq!((subtitle.trims.codec_delay_ns, subtitle.trims.seek_preroll_ns), (6_500_000, 80_000_000));
    assert_eq!(subtitle.default_duration_ticks, Some(33));
    assert_eq!(track(entry.element(id::LANGUAGE_BCP47, b"de-AT")).language, "de-AT");
}

#[test]
fn times_are_in_units_of_the_document() {
    let with = |scale: u64| {
        let info =
            Doc::default().uint(id::TIMESTAMP_SCALE, scale).element(id::DATE_UTC, &1_500_000_000_i64.to_be_bytes());
        video_doc().master(id::INFO, info)
    };
    let events = events(&with(62_500).cluster(3));
    let Event::Config(config) = &events[0] else { panic!("{events:?}") };
    assert_eq!(config.tracks[0].timescale_hz, 16_000);
    assert_eq!(events[1], Event::Wall { track: 0, presentation_ticks: 0, at: UnixMs(978_307_201_500) });
    assert_eq!(events[2], Event::SourceFragment { timecode: Some(3), units: Some(3), sized: false });
    assert_eq!(times(&with(20_833).cluster(3).simple_block(&[0x81, 0, 1, 0])), [4 * 20_833]);
    assert_eq!(error(&with(0)).kind, DemuxErrorKind::Malformed);
    let far = error(&with(20_833).cluster(u64::MAX >> 8));
    assert_eq!((far.kind, &far.path[..]), (DemuxErrorKind::Malformed, "Segment/Cluster[0]/Timestamp"));
}

#[test]
fn tags_are_flattened_where_they_stand() {
    let tag = |name: &str, value: &str| {
        Doc::default().element(id::TAG_NAME, name.as_bytes()).element(id::TAG_STRING, value.as_bytes())
    };
    let tags = |simple: Doc| {
        Doc::default().master(id::TAG, Doc::default().element(id::TARGETS, &[]).master(id::SIMPLE_TAG, simple))
    };
    let named = |name: &str, value: &str| Tag { name: name.to_owned(), value: value.to_owned() };
    let nested = tag("A", "1\0\0").master(id::SIMPLE_TAG, tag("B", "ü"));
    let end = Doc::default().element(id::TAG_NAME, b"AWS_KINESISVIDEO_END_OF_FRAGMENT");
    let doc = Doc::start()
        .master(id::TAGS, tags(nested))
        .master(id::TRACKS, tracks(&[entry(1, 1, "V_TEST")]))
        .cluster(0)
        .master(id::TAGS, tags(end.clone()))
        .master(id::TAGS, Doc::default());
    let events = events(&doc);
    assert_eq!(events[0], Event::Tags(vec![named("A", "1"), named("A/B", "ü")]));
    assert!(matches!(events[1], Event::Config(_)));
    assert_eq!(events[3], Event::Tags(vec![named("AWS_KINESISVIDEO_END_OF_FRAGMENT", "")]));
    assert_eq!(events[4..], [Event::EndOfFragment]);
    // Statistics of a track are told apart.
    let about = Doc::default().master(id::TARGETS, Doc::default().uint(id::TAG_TRACK_UID, 7));
    let simple = Doc::default().element(id::TAG_NAME, b"BPS").element(id::TAG_STRING, b"1");
    let of_track = Doc::default().master(id::TAG, about.master(id::SIMPLE_TAG, simple));
    let doc = video_doc().cluster(0).master(id::TAGS, of_track.raw(&tags(end.clone()).0));
    let events = self::events(&doc);
    let expected = [
        Event::Tags(vec![named("AWS_KINESISVIDEO_END_OF_FRAGMENT", "")]),
        Event::TrackTags(vec![named("BPS", "1")]),
        Event::EndOfFragment,
    ];
    assert_eq!(events[2..], expected);
    // A producer that stops may send nothing but its last tags.
    assert_eq!(self::events(&Doc::default().master(id::TAGS, tags(end))).len(), 2);
}

#[test]
fn tags_are_bounded() {
    let one = Doc::default().master(
        id::SIMPLE_TAG,
        Doc::default().element(id::TAG_NAME, "ü".repeat(100).as_bytes()).element(id::TAG_STRING, &[b'x'; 2000]),
    );
    let deep = (0..100).fold(Doc::default(), |inner, _| Doc::default().master(id::SIMPLE_TAG, inner));
    let tags = (0..100).fold(deep, |tags, _| tags.raw(&one.0));
    let events = events(&video_doc().master(id::TAGS, Doc::default().master(id::TAG, tags)).cluster(0));
    let Event::Tags(tags) = &events[0] else { panic!("{events:?}") };
    assert_eq!(tags.len(), 64);
    assert_eq!((tags[63].name.len(), tags[63].value.len()), (128, 1024));
}

#[test]
fn too_many_tracks_and_too_large_elements_are_told_at_once() {
    let many: Vec<Doc> = (1..=11).map(|number| entry(number, 1, "V_TEST")).collect();
    let many = error(&doc_of(&many));
    assert_eq!((many.kind, &many.path[..]), (DemuxErrorKind::TooLarge, "Segment/Tracks/TrackEntry[10]"));
    let huge = [0x01, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe];
    for (doc, id, kind, path) in [
        (video_doc().cluster(0), &[0xa3][..], DemuxErrorKind::TooLarge, "Segment/Cluster[0]/SimpleBlock[0]"),
        (Doc::start(), &[0x16, 0x54, 0xae, 0x6b], DemuxErrorKind::TooLarge, "Segment/Tracks"),
        (Doc::start(), &[0xec], DemuxErrorKind::TooLarge, "Segment/Void"),
        (video_doc().cluster(0), &[0x12, 0x54, 0xc3, 0x67], DemuxErrorKind::TooLarge, "Segment/Tags"),
        (video_doc().cluster(0), &[0xe7], DemuxErrorKind::Malformed, "Segment/Cluster[0]/Timestamp"),
        // Passed over as far as it goes.
        (video_doc().cluster(0), &[0xec], DemuxErrorKind::Truncated, "Segment/Cluster[0]/Void"),
        (video_doc(), &[0x19, 0x41, 0xa4, 0x69], DemuxErrorKind::Truncated, "Segment/Attachments"),
        (Doc::default(), &[0x1a, 0x45, 0xdf, 0xa3], DemuxErrorKind::TooLarge, "EBML"),
    ] {
        let offset = doc.0.len() as u64;
        let error = error(&doc.raw(id).raw(&huge));
        assert_eq!((error.kind, &error.path[..], error.offset), (kind, path, offset), "{error}");
    }
    let private = error(&doc_of(&[entry(1, 1, "V_TEST").element(id::CODEC_PRIVATE, &vec![0; (1 << 20) + 1])]));
    assert_eq!(
        (private.kind, &private.path[..]),
        (DemuxErrorKind::TooLarge, "Segment/Tracks/TrackEntry[0]/CodecPrivate")
    );
}

#[test]
fn broken_bytes_are_told_with_their_place() {
    let block = |bytes: &[u8]| video_doc().cluster(0).simple_block(&[0x81, 0, 0, 0]).simple_block(bytes);
    let tracks = |entry: Doc| doc_of(&[entry]);
    let in_entry = "Segment/Tracks/TrackEntry[0]";
    for (doc, path, from_end) in [
        (Doc(b"RIFF....".to_vec()), "EBML", 8),
        (Doc(vec![0; 100]), "EBML", 100),
        (Doc::default().raw(SEGMENT), "Segment", 5),
        (video_doc().raw(&[0x00]), "Segment", 1),
        (video_doc().raw(&[0xec, 0x00]), "Segment", 2),
        (video_doc().raw(&[0xec, 0xff]), "Segment/Void", 2),
        (video_doc().cluster(0).raw(&[0xa3, 0xff]), "Segment/Cluster[0]/SimpleBlock[0]", 2),
        (block(&[]), "Segment/Cluster[0]/SimpleBlock[1]", 0),
        (block(&[0x81, 0, 0]), "Segment/Cluster[0]/SimpleBlock[1]", 2),
        (block(&[0x82, 0, 0, 0]), "Segment/Cluster[0]/SimpleBlock[1]", 4),
        (block(&[0x81, 0, 0, 0x02, 1, 9]), "Segment/Cluster[0]/SimpleBlock[1]", 0),
        (video_doc().raw(CLUSTER).simple_block(&[0x81, 0, 0, 0]), "Segment/Cluster[0]/SimpleBlock[0]", 4),
        (video_doc().cluster(0).uint(id::TIMESTAMP, 1), "Segment/Cluster[0]/Timestamp", 1),
        (video_doc().cluster(0).master(id::BLOCK_GROUP, Doc::default()), "Segment/Cluster[0]/BlockGroup[0]", 2),
        (
            video_doc().cluster(0).master(id::BLOCK_GROUP, Doc::default().element(id::BLOCK, &[0x82, 0, 0, 0])),
            "Segment/Cluster[0]/BlockGroup[0]/Block",
            4,
        ),
        (video_doc().master(id::CLUSTER, Doc::default().element(id::CUES, &[])), "Segment/Cluster[0]/Cues", 5),
        (video_doc().master(id::CLUSTER, Doc::default().raw(&[0xec, 0x84, 0])), "Segment/Cluster[0]/Void", 3),
        (tracks(Doc::default().element(id::CODEC_ID, b"V_TEST")), in_entry, 8),
        (tracks(Doc::default().uint(id::TRACK_NUMBER, 1)), in_entry, 3),
        (tracks(entry(1, 1, "V_TEST").element(id::TRACK_NUMBER, &[0; 9])), in_entry, 11),
        (
            tracks(entry(1, 1, "V_TEST").master(id::VIDEO, Doc::default().raw(&[0xb0, 0x85, 0]))),
            "Segment/Tracks/TrackEntry[0]/Video",
            3,
        ),
        (doc_of(&[entry(1, 1, "V_TEST"), entry(1, 2, "A_TEST")]), "Segment/Tracks/TrackEntry[1]", 14),
        (video_doc().master(id::TAGS, Doc::default().raw(&[0x73, 0x73, 0x84, 0])), "Segment/Tags", 4),
    ] {
        let error = error(&doc);
        let offset = (doc.0.len() - from_end) as u64;
        let undeclared = error.detail == "track 2 was not declared";
        let kind = if undeclared { DemuxErrorKind::UndeclaredTrack } else { DemuxErrorKind::Malformed };
        assert_eq!((error.kind, &error.path[..], error.offset), (kind, path, offset), "{error}");
    }
}

#[test]
fn what_cannot_be_used_is_told_apart() {
    let header = |body: Doc| Doc::default().master(id::EBML, body);
    for doc in [
        header(Doc::default().element(id::DOC_TYPE, b"other")),
        header(Doc::default().uint(id::EBML_READ_VERSION, 2)),
        header(Doc::default().uint(id::EBML_MAX_ID_LENGTH, 5)),
        header(Doc::default().uint(id::EBML_MAX_SIZE_LENGTH, 9)),
        Doc::start().cluster(0),
        Doc::start().master(id::TRACKS, Doc::default()).cluster(0),
        Doc::start(),
    ] {
        assert_eq!(error(&doc).kind, DemuxErrorKind::Unusable);
    }
    // A declared bound is held to.
    let short = header(Doc::default().uint(id::EBML_MAX_SIZE_LENGTH, 1)).raw(SEGMENT);
    assert_eq!(error(&short.raw(&[0xec, 0x40, 0x00])).kind, DemuxErrorKind::Malformed);
}

#[test]
fn an_input_may_end_between_elements_of_unknown_size_only() {
    assert_eq!(demux(&video_doc()), (vec![], Ok(())));
    assert_eq!(error(&Doc::default()).detail, "the input is empty");
    let known = Doc::default().master(id::EBML, Doc::default()).raw(&[0x18, 0x53, 0x80, 0x67, 0x81]);
    let open = error(&known);
    assert_eq!((open.kind, &open.path[..], open.offset), (DemuxErrorKind::Truncated, "Segment", 5));
    let cut = error(&video_doc().cluster(0).raw(&[0xa3, 0x85, 0x81]));
    assert_eq!((cut.kind, &cut.path[..]), (DemuxErrorKind::Truncated, "Segment/Cluster[0]/SimpleBlock[0]"));
    assert!(cut.detail.contains("4 bytes before"), "{cut}");
    assert_eq!(error(&video_doc().raw(&[0x1f, 0x43])).kind, DemuxErrorKind::Truncated);
}

#[test]
fn another_header_begins_another_document() {
    let one = video_doc().cluster(5).simple_block(&[0x81, 0, 0, 0]);
    // A Segment that is longer than it says ends there too.
    let mut known = Doc::default().master(id::EBML, Doc::default()).raw(&[0x18, 0x53, 0x80, 0x67, 0x1f, 0, 0, 0]);
    known.0.extend_from_slice(&one.0[one.0.iter().position(|byte| *byte == 0x16).unwrap()..]);
    for first in [one.clone(), known] {
        let events = events(&first.raw(&doc_of(&[entry(7, 2, "A_TEST")]).cluster(6).0));
        assert_eq!(events[3], Event::Discontinuity);
        assert!(matches!(&events[4], Event::Config(config) if config.tracks[0].source_number == 7));
        assert_eq!(events[5], Event::SourceFragment { timecode: Some(6), units: Some(6), sized: false });
        assert_eq!(events.len(), 6);
    }
    // Two Segments after one header.
    let segment = Doc::default().master(id::TRACKS, tracks(&[entry(1, 1, "V_TEST")])).cluster(0);
    let two = Doc::default().master(id::EBML, Doc::default()).raw(SEGMENT).raw(&segment.0).raw(SEGMENT).raw(&segment.0);
    assert_eq!(events(&two)[2], Event::Discontinuity);
}

#[test]
fn the_seed_corpus_holds() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz/corpus/demux_mkv");
    let mut count = 0;
    for entry in std::fs::read_dir(folder).expect("a corpus") {
        demux_mkv(&std::fs::read(entry.expect("an entry").path()).expect("a file"));
        count += 1;
    }
    assert!(count > 0);
}

const CLIPS: [&str; 4] = ["h264_short_gop.mkv", "laced.mkv", "vp9_opus.webm", "audio_pcm_alaw.mkv"];

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn no_damage_panics(which in 0..CLIPS.len(), edits in prop::collection::vec((0_usize..6000, any::<u8>()), 1..8)) {
        let mut bytes = vidar_fixtures::read(CLIPS[which]);
        bytes.truncate(12_000);
        for (at, value) in edits {
            bytes[at] = value;
        }
        demux_mkv(&bytes);
    }

    #[test]
    fn no_input_panics(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        demux_mkv(&bytes);
        demux_mkv(&Doc::start().raw(&bytes).0);
        demux_mkv(&doc_of(&[Doc(bytes.clone())]).cluster(0).0);
        demux_mkv(&video_doc().cluster(0).raw(&bytes).0);
        demux_mkv(&video_doc().cluster(0).simple_block(&[&[0x81, 0, 0, 0x06], &bytes[..]].concat()).0);
    }
}
