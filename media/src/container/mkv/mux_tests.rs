//! Tests of the mux module.

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::sample::{Sample, SyncKind, Tag};
use vidar_core::time::UnixMs;
use vidar_core::track::{
    AudioParams, Codec, NalFraming, PcmFormat, StreamConfig, Track, TrackKind, Trims, VideoParams,
};

use super::*;
use crate::container::mkv::Demuxer;
use crate::demux::{Event, RawSample};
use crate::fuzz::demux_in_pieces;

pub(in crate::container::mkv) fn opaque_track() -> Track {
    Track {
        source_number: 1,
        kind: TrackKind::Data,
        codec: Codec::Opaque,
        codec_id: "D_TEST".to_owned(),
        codec_private: Bytes::new(),
        timescale_hz: 1000,
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: None,
        audio: None,
        default_duration_ticks: None,
        trims: Trims::default(),
        language: "und".to_owned(),
        name: String::new(),
    }
}

fn video_track() -> Track {
    let video = Some(VideoParams { width: 64, height: 48 });
    Track { kind: TrackKind::Video, codec_id: "V_TEST".to_owned(), video, ..opaque_track() }
}

fn config(tracks: Vec<Track>) -> StreamConfig {
    StreamConfig { tracks, matroska_header: Bytes::new() }
}

fn layout(config: &StreamConfig) -> Layout {
    Layout::new(config, Timing::of(config))
}

fn events(bytes: Vec<u8>) -> Vec<Event> {
    let (events, end) = demux_in_pieces(Demuxer::new(), &bytes.into(), || usize::MAX);
    assert_eq!(end, Ok(()));
    events
}

fn samples(events: &[Event]) -> Vec<&RawSample> {
    events.iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None }).collect()
}

fn frame(timestamp: i64) -> Frame {
    Frame { track: 0, timestamp, duration: None, sync: true, block_flags: 0, len: 0 }
}

/// Times of the clusters that these frames are put in.
fn clusters(layout: &Layout, frames: &[Frame], config: &StreamConfig) -> Vec<i64> {
    let mut bytes = header(config, layout.timing(), &HeaderOptions::default()).to_vec();
    layout.heads(frames).unwrap().iter().for_each(|head| bytes.extend_from_slice(&head));
    let events = events(bytes);
    let times: Vec<i64> = samples(&events).iter().map(|sample| sample.presentation_ticks).collect();
    assert_eq!(times, frames.iter().map(|frame| frame.timestamp).collect::<Vec<_>>());
    let cluster = |event: &Event| if let Event::SourceFragment { timecode, .. } = event { *timecode } else { None };
    events.iter().filter_map(cluster).collect()
}

#[test]
fn a_cluster_begins_where_the_one_before_does_not_reach() {
    let config = config(vec![video_track()]);
    let layout = layout(&config);
    for (times, expected) in [
        (&[0, 32_767][..], &[0][..]),
        (&[0, 32_768, 32_769], &[0, 32_768]),
        (&[40_000, 7_232], &[40_000]),
        (&[40_000, 7_231], &[40_000, 7_231]),
        (&[-32_768, 5], &[0]),
        (&[i64::MAX], &[i64::MAX]),
        (&[], &[]),
    ] {
        let frames: Vec<Frame> = times.iter().map(|time| frame(*time)).collect();
        assert_eq!(clusters(&layout, &frames, &config), expected, "{times:?}");
    }
    assert_eq!(layout.heads(&[frame(-32_769)]), Err(MuxError::TooEarly { timestamp: -32_769 }));
    assert_eq!(layout.len_bytes([frame(-32_769)]), Err(MuxError::TooEarly { timestamp: -32_769 }));
}

#[test]
fn tracks_without_a_name_in_matroska_are_left_out() {
    let nameless = Track { codec_id: "sbtl".to_owned(), ..opaque_track() };
    let float = Codec::Pcm(PcmFormat { bits: 32, big_endian: true, float: true, signed: true });
    let big_float = Track { codec: float, kind: TrackKind::Audio, codec_id: "fpcm".to_owned(), ..opaque_track() };
    assert!(!can_carry(&nameless) && !can_carry(&big_float) && can_carry(&video_track()));
    let config = config(vec![nameless, big_float, video_track()]);
    let layout = layout(&config);
    assert_eq!(layout.heads(&[frame(0)]), Err(MuxError::NoTrack { track: 0 }));
    assert_eq!(layout.heads(&[Frame { track: 3, ..frame(0) }]), Err(MuxError::NoTrack { track: 3 }));
    let mut bytes = header(&config, layout.timing(), &HeaderOptions::default()).to_vec();
    bytes.extend_from_slice(&layout.heads(&[Frame { track: 2, ..frame(0) }]).unwrap().get(0));
    let events = events(bytes);
    let Event::Config(out) = &events[0] else { panic!("{events:?}") };
    assert_eq!(out.tracks.iter().map(|track| track.source_number).collect::<Vec<_>>(), [3]);
}

#[test]
fn headers_say_what_they_are_told_in_a_length_known_beforehand() {
    let track = Track {
        default_duration_ticks: Some(40),
        trims: Trims { codec_delay_ns: 6_500_000, seek_preroll_ns: 80_000_000, ..Trims::default() },
        language: "de-AT".to_owned(),
        name: "door".to_owned(),
        ..video_track()
    };
    let config = config(vec![track.clone()]);
    let timing = Timing::of(&config);
    let at = UnixMs(1_767_323_045_678);
    let live = HeaderOptions { date: Some(at), duration: Some(1234), len_after_bytes: None };
    let known = HeaderOptions { len_after_bytes: Some(22), ..live };
    assert_eq!(header(&config, timing, &live).len(), header(&config, timing, &known).len());
    let mut bytes = header(&config, timing, &known).to_vec();
    bytes.extend_from_slice(&Writer::new(layout(&config)).cluster(7));
    let events = events(bytes.clone());
    let Event::Config(out) = &events[0] else { panic!("{events:?}") };
    assert_eq!(out.tracks, [track]);
    assert_eq!(events[1], Event::Wall { track: 0, presentation_ticks: 0, at });
    assert_eq!(events[2], Event::SourceFragment { timecode: Some(7), units: Some(7), sized: false });
    bytes.pop();
    let (_, end) = demux_in_pieces(Demuxer::new(), &bytes.into(), || usize::MAX);
    assert!(end.is_err(), "the Segment has the length told");
    // A date that nanoseconds since 2001 cannot say.
    let far = HeaderOptions { date: Some(UnixMs(i64::MAX)), ..HeaderOptions::default() };
    assert_eq!(header(&config, timing, &far), header(&config, timing, &HeaderOptions::default()));
}

#[test]
fn a_matroska_source_is_declared_as_it_was() {
    let clip: Bytes = vidar_fixtures::read("laced.mkv").into();
    let (events, _) = demux_in_pieces(Demuxer::new(), &clip, || usize::MAX);
    let Some(Event::Config(mut config)) = events.into_iter().find(|event| matches!(event, Event::Config(_))) else {
        panic!()
    };
    let contains = |bytes: &[u8], part: &[u8]| bytes.windows(part.len()).any(|window| window == part);
    // DefaultDuration of 21.333333 ms: no whole number of ticks.
    let default_duration = [0x23, 0xe3, 0x83, 0x84, 0x01, 0x45, 0x85, 0x55];
    let made = header(&config, Timing::of(&config), &HeaderOptions::default());
    assert!(contains(&config.matroska_header, &default_duration) && contains(&made, &default_duration));
    // A parameter set that changed in mid-stream is declared, with its picture.
    config.tracks[0].codec_private = Bytes::from_static(&[1, 2, 3, 4]);
    config.tracks[0].video = Some(VideoParams { width: 12_345, height: 9 });
    let made = header(&config, Timing::of(&config), &HeaderOptions::default());
    assert!(contains(&made, &[0x63, 0xa2, 0x84, 1, 2, 3, 4]) && contains(&made, &[0xb0, 0x82, 0x30, 0x39]));
}

#[test]
fn edit_lists_and_codec_delay_are_applied_to_other_sources() {
    let trims = Trims { edit_start_ticks: 1800, edit_delay_ms: 20, codec_delay_ns: 6_500_000, ..Trims::default() };
    let track = |codec_id: &str| Track {
        timescale_hz: 90_000,
        trims,
        codec: Codec::Vp8,
        codec_id: codec_id.to_owned(),
        ..video_track()
    };
    let config = config(vec![track("vp08"), track("V_VP8")]);
    // 20 ms of edit, 20 ms late, 6.5 ms of delay.
    assert_eq!(layout(&config).timestamp(0, 90_000), 1007);
    assert_eq!(layout(&config).timestamp(9, 90_000), 0);
    assert_eq!(layout(&config).timestamp(1, 90_000), 1000);
}

#[test]
fn samples_tell_durations_where_their_source_did() {
    let subtitle = Track { kind: TrackKind::Subtitle, codec_id: "S_TEXT/UTF8".to_owned(), ..opaque_track() };
    let config = config(vec![Track { timescale_hz: 90_000, ..video_track() }, subtitle]);
    let layout = layout(&config);
    let sample = |track, block_flags, duration_estimated| Sample {
        track,
        decode_ticks: 90,
        composition_ticks: 90,
        duration_ticks: 3600,
        duration_estimated,
        sync: SyncKind::Leading,
        block_flags,
        data: Bytes::from_static(&[1, 2]),
    };
    let expected = Frame { track: 0, timestamp: 2, duration: None, sync: false, block_flags: 0, len: 2 };
    assert_eq!(layout.frame(&sample(0, 0, false)), expected);
    assert_eq!(layout.frame(&sample(0, 0x10, false)).duration, Some(40));
    assert_eq!(layout.frame(&sample(0, 0x10, true)).duration, None);
    assert_eq!(layout.frame(&sample(1, 0, false)).duration, Some(3600));
}

#[test]
fn track_numbers_of_other_sources_count_from_one() {
    let numbered = |number, kind| Track { source_number: number, kind, ..opaque_track() };
    let mut config = config(vec![numbered(256, TrackKind::Video), numbered(300, TrackKind::Audio)]);
    assert_eq!(track_numbers(&config), [1, 2]);
    config.matroska_header = Bytes::from_static(&[0]);
    assert_eq!(track_numbers(&config), [256, 300]);
    config.tracks[1].source_number = 256;
    assert_eq!(track_numbers(&config), [1, 2]);
}

#[test]
fn tags_end_a_live_cluster() {
    let config = config(vec![video_track()]);
    let mut writer = Writer::new(layout(&config));
    let mut bytes = header(&config, Timing::of(&config), &HeaderOptions::default()).to_vec();
    let tags = vec![Tag { name: "A".to_owned(), value: "ü".to_owned() }];
    bytes.extend_from_slice(&writer.block(&frame(5)).unwrap());
    bytes.extend_from_slice(&writer.tags(&tags));
    bytes.extend_from_slice(&writer.block(&frame(6)).unwrap());
    let events = events(bytes);
    assert_eq!(events[3], Event::Tags(tags));
    assert_eq!(events[4], Event::SourceFragment { timecode: Some(6), units: Some(6), sized: false });
}

fn audio_track(codec: Codec) -> Track {
    let audio = Some(AudioParams { sample_rate_hz: 8000, channels: 1, bits: 8 });
    Track { kind: TrackKind::Audio, codec, codec_id: "PCMA".to_owned(), audio, ..opaque_track() }
}

proptest! {
    #[test]
    fn written_samples_read_back_and_lengths_are_known(
        rows in prop::collection::vec((0..2_u8, -100..70_000_i64, any::<bool>(), 0..4_u8, prop::option::of(0..300_u64), 0..300_usize), 1..40),
        live: bool,
    ) {
        let config = config(vec![video_track(), audio_track(Codec::G711Alaw)]);
        let layout = layout(&config);
        let flags = [0, 0x01, 0x08, 0x18];
        let frames: Vec<Frame> = rows.iter().map(|(track, timestamp, sync, flag, duration, len)| Frame {
            track: *track,
            timestamp: *timestamp,
            duration: *duration,
            sync: *sync || *track == 1,
            block_flags: flags[usize::from(*flag)],
            len: *len as u32,
        }).collect();
        let len = layout.len_bytes(frames.iter().copied()).unwrap();
        let heads = layout.heads(&frames).unwrap();
        let mut bytes = header(&config, layout.timing(), &HeaderOptions { len_after_bytes: (!live).then_some(len), ..HeaderOptions::default() }).to_vec();
        let header_len = bytes.len() as u64;
        let mut writer = Writer::new(layout);
        for (index, frame) in frames.iter().enumerate() {
            bytes.extend_from_slice(&if live { writer.block(frame).unwrap() } else { heads.get(index) });
            bytes.extend(std::iter::repeat_n(index as u8, frame.len as usize));
        }
        prop_assert_eq!(bytes.len() as u64, header_len + len);
        prop_assert_eq!(heads.len_bytes() + rows.iter().map(|row| row.5 as u64).sum::<u64>(), len);
        let events = events(bytes);
        let samples = samples(&events);
        prop_assert_eq!(samples.len(), frames.len());
        for (index, (sample, frame)) in samples.iter().zip(&frames).enumerate() {
            prop_assert_eq!((sample.track, sample.presentation_ticks), (frame.track, frame.timestamp));
            prop_assert_eq!(sample.sync == SyncKind::Sync, frame.sync);
            prop_assert_eq!(sample.duration_ticks.map(u64::from), frame.duration);
            // In a BlockGroup nothing is discardable.
            let group = frame.duration.is_some() || frame.block_flags & 0x10 != 0;
            let expected = if group { frame.block_flags & 0x08 | 0x10 } else { frame.block_flags };
            prop_assert_eq!(sample.block_flags, expected);
            prop_assert_eq!(&sample.data, &vec![index as u8; frame.len as usize]);
        }
    }
}
