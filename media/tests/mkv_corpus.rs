//! Matroska over every clip: cut anyhow, against an independent demuxer, truncated, and written again.

mod mkv_common;

use std::io::Cursor;

use bytes::Bytes;
use matroska_demuxer::{Frame, MatroskaFile};
use mkv_common::{clips, configs, demux, remux, samples, whole};
use vidar_media::{DemuxErrorKind, Event, SyncKind, TrackKind};

/// Pieces of lengths that a small generator makes.
fn pieces(bytes: &Bytes, seed: u64, len_max: usize) -> Vec<Bytes> {
    let (mut state, mut offset, mut out) = (seed, 0, Vec::new());
    while offset < bytes.len() {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        let end = (offset + (state >> 33) as usize % len_max + 1).min(bytes.len());
        out.push(bytes.slice(offset..end));
        offset = end;
    }
    out
}

#[test]
fn events_do_not_depend_on_how_the_input_is_cut() {
    for (name, bytes) in clips() {
        let bytes = Bytes::from(bytes);
        let expected = demux([bytes.clone()]);
        assert!(!samples(&expected.0).is_empty(), "{name}: {:?}", expected.1);
        for (seed, len_max) in [(1, 10), (2, 1000), (3, 70_000)] {
            assert!(demux(pieces(&bytes, seed, len_max)) == expected, "{name} in pieces of up to {len_max}");
        }
        assert!(demux((0..bytes.len()).map(|i| bytes.slice(i..=i))) == expected, "{name} byte by byte");
    }
}

#[test]
fn samples_in_one_piece_are_slices_of_it() {
    for (name, bytes) in clips() {
        let bytes = Bytes::from(bytes);
        let range = bytes.as_ptr_range();
        for sample in samples(&demux([bytes.clone()]).0).iter().filter(|sample| !sample.data.is_empty()) {
            let stripped = name == "laced.mkv";
            assert!(stripped || range.contains(&sample.data.as_ptr()), "{name} at {}", sample.presentation_ticks);
        }
    }
}

#[test]
fn packets_are_those_of_an_independent_demuxer() {
    for (name, bytes) in clips() {
        // The oracle knows one document in a file.
        let mut starts: Vec<usize> =
            (0..bytes.len() - 4).filter(|i| bytes[*i..].starts_with(&[0x1a, 0x45, 0xdf, 0xa3])).collect();
        starts.push(bytes.len());
        let mut compared = 0;
        for pair in starts.windows(2) {
            compared += compare_document(&name, &bytes[pair[0]..pair[1]]);
        }
        assert_eq!(compared, samples(&whole(&bytes).0).len(), "{name}");
    }
}

/// The document with its SeekHead made Void: captures keep one that points beyond their end.
fn without_seek_head(document: &[u8]) -> Vec<u8> {
    let mut bytes = document.to_vec();
    if let Some(at) = (0..100).find(|i| bytes[*i..].starts_with(&[0x11, 0x4d, 0x9b, 0x74, 0x40])) {
        let len = bytes[at + 5];
        bytes[at..at + 6].copy_from_slice(&[0xec, 0x08, 0, 0, 0, len]);
    }
    bytes
}

fn compare_document(name: &str, document: &[u8]) -> usize {
    let open = MatroskaFile::open(Cursor::new(document.to_vec()));
    let mut oracle = open.or_else(|_| MatroskaFile::open(Cursor::new(without_seek_head(document)))).unwrap();
    let (events, _) = whole(document);
    let config = &configs(&events)[0];
    let numbers: Vec<u64> = oracle.tracks().iter().map(|track| track.track_number().get()).collect();
    assert_eq!(config.tracks.iter().map(|track| track.source_number).collect::<Vec<_>>(), numbers, "{name}");
    for (track, other) in config.tracks.iter().zip(oracle.tracks()) {
        assert_eq!(track.codec_id, other.codec_id(), "{name}");
        let video = other.video().map(|video| (video.pixel_width().get(), video.pixel_height().get()));
        assert_eq!(track.video.map(|video| (video.width.into(), video.height.into())), video, "{name}");
        let audio = other.audio().map(|audio| (audio.sampling_frequency(), audio.channels().get()));
        assert_eq!(track.audio.map(|audio| (audio.sample_rate_hz.into(), audio.channels.into())), audio, "{name}");
        assert_eq!(track.trims.codec_delay_ns, other.codec_delay().unwrap_or(0), "{name}");
    }
    let mut frame = Frame::default();
    let mut last_times = vec![None; numbers.len()];
    let samples = samples(&events);
    for (index, sample) in samples.iter().enumerate() {
        let more = oracle.next_frame(&mut frame).unwrap();
        assert!(more, "{name}: the other demuxer has {index} packets, we have {}", samples.len());
        let track = usize::from(sample.track);
        let at = format!("{name}, packet {index}, track {track}");
        assert_eq!(config.tracks[track].source_number, frame.track, "{at}");
        // Where frames are laced it gives all the time of the first.
        if last_times[track].replace(frame.timestamp) != Some(frame.timestamp) {
            assert_eq!(sample.presentation_ticks, frame.timestamp as i64, "{at}");
        }
        if let Some(keyframe) = frame.is_keyframe.filter(|_| config.tracks[track].kind == TrackKind::Video) {
            assert_eq!(sample.sync == SyncKind::Sync, keyframe, "{at}");
        }
        // It gives frames as they are where their headers were stripped.
        assert!(sample.data.ends_with(&frame.data), "{at}");
        assert!(sample.data.len() - frame.data.len() <= 4, "{at}");
    }
    // The last block may be cut off, which it reads as an error.
    assert!(!oracle.next_frame(&mut frame).unwrap_or(false), "{name}: it has more packets");
    samples.len()
}

#[test]
fn a_clip_cut_anywhere_gives_what_came_before_the_cut() {
    let bytes = vidar_fixtures::read("h264_short_gop.mkv");
    let (expected, end) = whole(&bytes);
    assert_eq!(end, Ok(()));
    let mut last_count = 0;
    for len in 0..bytes.len() {
        let (events, end) = whole(&bytes[..len]);
        assert!(expected.starts_with(&events), "{len} bytes");
        assert!(events.len() >= last_count, "{len} bytes");
        last_count = events.len();
        if let Err(error) = end {
            // Between an EBML header and the Tracks nothing is cut off, but nothing can come of it.
            let before_tracks = error.kind == DemuxErrorKind::Unusable && len < 700;
            assert!(error.kind == DemuxErrorKind::Truncated || before_tracks, "{len} bytes: {error}");
            assert!(error.offset <= len as u64, "{len} bytes: {error}");
        }
    }
    assert_eq!(last_count, expected.len());
}

#[test]
fn documents_one_after_the_other_are_read_on() {
    let one = vidar_fixtures::read("h264_short_gop.mkv");
    let (events, _) = whole(&one);
    let (twice, end) = whole(&[&one[..], &one].concat());
    assert_eq!(end, Ok(()));
    assert_eq!(twice.len(), 2 * events.len() + 1);
    assert_eq!(twice[..events.len()], events[..]);
    assert_eq!(twice[events.len()], Event::Discontinuity);
    assert_eq!(twice[events.len() + 1..], events[..]);
}

#[test]
fn captures_of_the_reference_service_are_read() {
    for (name, bytes) in clips() {
        let (events, end) = whole(&bytes);
        match name.as_str() {
            "kvs_getmedia_cranes.mkv" => {
                assert_eq!(end, Ok(()));
                assert_eq!(samples(&events).len(), 300);
                assert_eq!(configs(&events).len(), 5);
                assert_eq!(events.iter().filter(|event| **event == Event::Discontinuity).count(), 4);
                let numbers =
                    events.iter().filter_map(|event| if let Event::Tags(tags) = event { Some(tags) } else { None });
                let numbers = numbers.flatten().filter(|tag| tag.name == "AWS_KINESISVIDEO_FRAGMENT_NUMBER");
                assert_eq!(numbers.count(), 5);
            }
            "kvs_webcam_building_vfr.mkv" => {
                assert_eq!(end, Ok(()));
                assert_eq!(samples(&events).len(), 444);
            }
            _ => assert_eq!(end, Ok(()), "{name}"),
        }
    }
}

#[test]
fn what_is_written_reads_back_as_it_was() {
    for (name, bytes) in clips() {
        let (events, _) = whole(&bytes);
        let first = events.iter().position(|event| *event == Event::Discontinuity).unwrap_or(events.len());
        let (config, samples_in) = (&configs(&events)[0], samples(&events[..first]));
        for live in [false, true] {
            let written = remux(config, &samples_in, live);
            let (events, end) = whole(&written);
            assert_eq!(end, Ok(()), "{name}");
            assert_eq!(compare_document(&name, &written), samples_in.len(), "{name}");
            let config_out = &configs(&events)[0];
            assert_eq!(config_out.tracks, config.tracks, "{name}");
            assert!(samples(&events) == samples_in, "{name}");
        }
    }
}

#[test]
fn tracks_of_other_sources_read_back_with_their_private_data() {
    for (name, bytes) in clips() {
        let (events, _) = whole(&bytes);
        let first = events.iter().position(|event| *event == Event::Discontinuity).unwrap_or(events.len());
        let samples_in = samples(&events[..first]);
        let mut config = configs(&events)[0].clone();
        config.matroska_header = Bytes::new();
        for track in &mut config.tracks {
            // What is opaque keeps its id, which only Matroska has.
            if track.codec != vidar_media::Codec::Opaque {
                track.codec_id = "other".to_owned();
            }
            track.language = "und".to_owned();
        }
        let (events, end) = whole(&remux(&config, &samples_in, false));
        assert_eq!(end, Ok(()), "{name}");
        for (out, track) in configs(&events)[0].tracks.iter().zip(&config.tracks) {
            assert_eq!(
                (out.kind, out.codec, &out.video, &out.audio),
                (track.kind, track.codec, &track.video, &track.audio)
            );
            assert_eq!(out.codec_private, track.codec_private, "{name} {}", out.codec_id);
            assert_eq!((out.trims, out.framing, &out.name), (track.trims, track.framing, &track.name));
        }
        // Timestamps include CodecDelay, which other sources' times do not.
        let mut expected = samples_in;
        for sample in &mut expected {
            let track = &config.tracks[usize::from(sample.track)];
            if track.codec != vidar_media::Codec::Opaque {
                sample.presentation_ticks += (track.trims.codec_delay_ns as i64 + 500_000) / 1_000_000;
            }
        }
        assert!(samples(&events) == expected, "{name}");
    }
}
