//! Tests of the demux module.

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::sample::SyncKind;
use vidar_core::track::{Codec, StreamConfig, TrackKind};

use super::demux::Demuxer;
use super::packet::{PACKET_LEN, STRIDES, SYNC_BYTE};
use super::pes::tests::pes;
use super::test_stream::{AUDIO, MAP, Stream, VIDEO, run};
use crate::codec::{h264, nal};
use crate::demux::{Demux, DemuxErrorKind, Event, RawSample};
use crate::fuzz::demux_in_pieces;

const H264: (u8, u16) = (0x1b, VIDEO);
const ADTS: (u8, u16) = (0x0f, AUDIO);

fn configs(events: &[Event]) -> Vec<&StreamConfig> {
    events.iter().filter_map(|event| if let Event::Config(config) = event { Some(config) } else { None }).collect()
}

/// Samples by PID, whatever the config.
fn samples(events: &[Event], pid: u16) -> Vec<&RawSample> {
    let mut index = None;
    let mut found = Vec::new();
    for event in events {
        match event {
            Event::Config(config) => {
                index = config.tracks.iter().position(|track| track.source_number == u64::from(pid));
            }
            Event::Sample(sample) if Some(usize::from(sample.track)) == index => found.push(sample),
            _ => {}
        }
    }
    found
}

fn times(events: &[Event], pid: u16) -> Vec<i64> {
    samples(events, pid).iter().map(|sample| sample.presentation_ticks).collect()
}

/// Parameter sets of `bbb.ts`: 320x180.
fn parameter_sets() -> Vec<Bytes> {
    let (events, _) = run(&vidar_fixtures::read("bbb.ts"));
    let avcc = h264::parse_avcc(&configs(&events)[0].tracks[0].codec_private).unwrap();
    [avcc.sps, avcc.pps].concat()
}

fn byte_stream(nals: &[&[u8]]) -> Vec<u8> {
    nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect()
}

/// A delimiter, parameter sets and an IDR slice.
fn key(fill: u8) -> Vec<u8> {
    let sets = parameter_sets();
    byte_stream(&[&[9, 0xf0], &sets[0], &sets[1], &[0x65, 0x88, fill, fill]])
}

/// A delimiter and a P slice.
fn inter(fill: u8) -> Vec<u8> {
    byte_stream(&[&[9, 0xf0], &[0x41, 0x9a, fill, fill]])
}

/// An ADTS frame of AAC LC, 48 kHz, stereo.
fn adts(fill: u8, len: usize) -> Vec<u8> {
    let total = len + 7;
    let mut frame =
        vec![0xff, 0xf1, 0x4c, 0x80 | (total >> 11) as u8, (total >> 3) as u8, (total << 5) as u8 | 0x1f, 0xfc];
    frame.extend(vec![fill; len]);
    frame
}

#[test]
fn a_picture_stands_behind_lengths_without_delimiters() {
    let events = Stream::new(&[H264]).video(9000, 5400, &key(7)).video(12_600, 9000, &inter(8)).good();
    let track = &configs(&events)[0].tracks[0];
    assert_eq!((track.codec, track.source_number, track.timescale_hz), (Codec::H264, 0x100, 90_000));
    assert_eq!(track.video.map(|video| (video.width, video.height)), Some((320, 180)));
    assert!(track.in_band_parameter_sets);
    let sets = parameter_sets();
    let found = samples(&events, VIDEO);
    let expected = nal::length_prefixed(&[sets[0].clone(), sets[1].clone(), Bytes::from_static(&[0x65, 0x88, 7, 7])]);
    assert_eq!((found[0].presentation_ticks, found[0].decode_ticks, found[0].sync), (9000, Some(5400), SyncKind::Sync));
    assert_eq!(found[0].data, expected);
    assert_eq!(
        (found[1].presentation_ticks, found[1].decode_ticks, found[1].sync),
        (12_600, Some(9000), SyncKind::None)
    );
    assert_eq!(found[1].data, &[0, 0, 0, 4, 0x41, 0x9a, 8, 8][..]);
    assert_eq!(found.len(), 2);
}

#[test]
fn pictures_and_packets_need_not_agree() {
    let whole = byte_stream(&[&[9, 0xf0], &[0x41, 0x9a, 1, 1], &[0x41, 0x1a, 2, 2], &[0x41, 0x0a, 3, 3]]);
    let mut stream = Stream::new(&[H264]);
    stream.video(3600, 3600, &key(1));
    // Two pictures in a packet; the second has no time of its own.
    stream.video(7200, 7200, &[inter(4), inter(5)].concat());
    // One picture over three packets, the second without a time, the third with the same; cut within a NAL unit.
    stream.video(14_400, 14_400, &whole[..9]);
    stream.unit(VIDEO, &pes(0xe0, None, None, &whole[9..20], true));
    stream.video(14_400, 14_400, &whole[20..]);
    // Parameter sets in a packet of their own.
    let sets = parameter_sets();
    stream.video(18_000, 18_000, &byte_stream(&[&[9, 0xf0], &sets[0], &sets[1]]));
    stream.video(18_001, 18_001, &byte_stream(&[&[0x65, 0x88, 9, 9]]));
    let events = stream.good();
    assert_eq!(times(&events, VIDEO), [3600, 7200, 10_800, 14_400, 18_001]);
    let found = samples(&events, VIDEO);
    let slices = |sample: &RawSample| nal::iter_length_prefixed(&sample.data, 4).count();
    assert_eq!(found.iter().map(|sample| slices(sample)).collect::<Vec<_>>(), [3, 1, 1, 3, 3]);
    assert_eq!(found[4].sync, SyncKind::Sync);
}

#[test]
fn a_picture_is_given_out_when_the_next_begins() {
    let mut stream = Stream::new(&[H264]);
    stream.video(3600, 3600, &key(1)).video(7200, 7200, &inter(2));
    let mut events = Vec::new();
    Demuxer::new().push(stream.bytes().into(), &mut events).unwrap();
    assert_eq!(times(&events, VIDEO), [3600]);
}

#[test]
fn frames_are_counted_from_the_time_of_their_packet() {
    let frames: Vec<u8> = (0..4).flat_map(|i| adts(i, 50)).collect();
    let mut stream = Stream::new(&[ADTS]);
    stream.audio(Some(1000), &frames[..150]);
    // The rest of the third frame, and the fourth, to which the time belongs.
    stream.audio(Some(7000), &frames[150..]);
    stream.audio(None, &adts(9, 20));
    let events = stream.good();
    let track = &configs(&events)[0].tracks[0];
    assert_eq!((track.codec, &track.codec_private[..]), (Codec::Aac, &[0x11, 0x90][..]));
    assert_eq!(times(&events, AUDIO), [1000, 2920, 4840, 7000, 8920]);
    let found = samples(&events, AUDIO);
    assert_eq!(found[2].data, [2; 50][..]);
    assert!(found.iter().all(|sample| sample.sync == SyncKind::Sync && sample.duration_ticks == Some(1920)));
}

#[test]
fn frames_of_44_1_khz_do_not_drift() {
    let mut frame = adts(1, 10);
    frame[2] = 0x50;
    let events = Stream::new(&[ADTS]).audio(Some(0), &frame.repeat(100)).good();
    let expected: Vec<i64> = (0..100).map(|n| (n * 1024 * 90_000 + 22_050) / 44_100).collect();
    assert_eq!(times(&events, AUDIO), expected);
}

#[test]
fn a_changed_frame_header_is_a_new_config() {
    let mut mono = adts(2, 10);
    mono[3] = 0x40;
    let events = Stream::new(&[ADTS]).audio(Some(0), &adts(1, 10)).audio(Some(1920), &mono).good();
    let channels: Vec<_> = configs(&events).iter().map(|config| config.tracks[0].audio.unwrap().channels).collect();
    assert_eq!(channels, [2, 1]);
    assert!(matches!(events[..], [Event::Config(_), Event::Sample(_), Event::Config(_), Event::Sample(_)]));
}

#[test]
fn junk_between_frames_is_skipped() {
    let data = [&[0xff, 0x11, 0xff, 0xf1][..], &adts(1, 10), &[0, 0xff, 0], &adts(2, 10), &adts(3, 10)].concat();
    let events = Stream::new(&[ADTS]).audio(Some(0), &data).good();
    let found: Vec<u8> = samples(&events, AUDIO).iter().map(|sample| sample.data[0]).collect();
    assert_eq!(found, [2, 3], "the first frame is followed by junk, so that it is none");
}

#[test]
fn times_go_on_past_33_bits_over_all_tracks() {
    let wrap = 1_u64 << 33;
    let mut stream = Stream::new(&[H264, ADTS]);
    stream.video(wrap - 3600, wrap - 3600, &key(1));
    stream.audio(Some(wrap - 100), &adts(1, 10));
    stream.video(0, 0, &inter(2));
    stream.audio(Some(wrap - 1), &adts(2, 10));
    stream.video(3600, 3600, &inter(3));
    let events = stream.good();
    let wrap = wrap as i64;
    assert_eq!(times(&events, VIDEO), [wrap - 3600, wrap, wrap + 3600]);
    assert_eq!(times(&events, AUDIO), [wrap - 100, wrap - 1]);
}

#[test]
fn lost_packets_are_told_and_what_they_damage_is_dropped() {
    let long = |fill: u8| byte_stream(&[&[9, 0xf0], &[&[0x41, 0x9a][..], &[fill; 600]].concat()]);
    let mut stream = Stream::new(&[H264]);
    stream.video(3600, 3600, &key(1));
    let at = stream.packets.len();
    stream.video(7200, 7200, &long(2)).video(10_800, 10_800, &inter(3));
    // A packet within the second picture, then its first, then its last, each seen by the counter.
    for lost in at..at + 4 {
        let mut damaged = stream.clone();
        damaged.packets.remove(lost);
        let events = damaged.good();
        assert_eq!(times(&events, VIDEO), [3600, 10_800], "{lost}");
        let told: Vec<_> = events.iter().filter(|event| matches!(event, Event::Lost { count: 1 })).collect();
        assert_eq!(told.len(), 1, "{lost}");
    }
}

#[test]
fn packets_sent_twice_count_once_and_damaged_ones_not_at_all() {
    let mut stream = Stream::new(&[H264]);
    stream.video(3600, 3600, &key(1)).video(7200, 7200, &inter(2)).video(10_800, 10_800, &inter(3));
    let expected = stream.good();
    let mut twice = stream.clone();
    twice.packets = stream.packets.iter().flat_map(|packet| [*packet; 2]).collect();
    assert_eq!(twice.good(), expected);
    let last = stream.packets.len() - 1;
    stream.packets[last - 1][1] |= 0x80;
    let events = stream.good();
    assert_eq!(times(&events, VIDEO), [3600, 10_800]);
    assert!(events.contains(&Event::Lost { count: 1 }));
}

#[test]
fn a_discontinuity_is_told_before_the_first_sample_after_it() {
    let mut stream = Stream::new(&[H264, ADTS]);
    stream.video(3600, 3600, &key(1)).audio(Some(3600), &adts(1, 10)).video(7200, 7200, &inter(2));
    // Sound that began before, in two packets around it.
    let sound = pes(0xc0, Some(5520), None, &adts(2, 300), true);
    stream.unit(AUDIO, &sound);
    let second = stream.packets.pop().unwrap();
    stream.unit_flagged(VIDEO, &pes(0xe0, Some(900_000), None, &key(3), false), 0x80);
    stream.packets.push(second);
    stream.audio(Some(900_000), &adts(4, 10));
    let events = stream.good();
    let order: Vec<Option<i64>> = events
        .iter()
        .filter_map(|event| match event {
            Event::Sample(sample) => Some(Some(sample.presentation_ticks)),
            Event::Discontinuity => Some(None),
            _ => None,
        })
        .collect();
    assert_eq!(
        order,
        [3600, 3600, 7200, 5520].map(Some).into_iter().chain([None, Some(900_000), Some(900_000)]).collect::<Vec<_>>()
    );

    // At the very start there is nothing to be discontinuous with.
    let mut stream = Stream::new(&[H264]);
    stream.unit_flagged(VIDEO, &pes(0xe0, Some(0), None, &key(1), false), 0x80);
    assert!(!stream.good().contains(&Event::Discontinuity));
}

#[test]
fn a_changed_map_is_a_new_config_and_what_stays_goes_on() {
    let mut stream = Stream::new(&[H264]);
    stream.video(3600, 3600, &key(1)).video(7200, 7200, &inter(2));
    stream.map(MAP, 1, 1, &[H264, ADTS]);
    stream.audio(Some(7200), &adts(1, 10)).video(10_800, 10_800, &inter(3));
    // The same again says nothing new.
    stream.map(MAP, 1, 2, &[H264, ADTS]);
    stream.map(MAP, 1, 3, &[ADTS]);
    stream.audio(Some(9120), &adts(2, 10));
    let events = stream.good();
    let pids: Vec<Vec<u64>> =
        configs(&events).iter().map(|config| config.tracks.iter().map(|track| track.source_number).collect()).collect();
    assert_eq!(pids, [vec![0x100], vec![0x100, 0x101], vec![0x101]]);
    assert_eq!(times(&events, VIDEO), [3600, 7200, 10_800]);
    assert_eq!(times(&events, AUDIO), [7200, 9120]);
}

#[test]
fn silent_tracks_are_waited_for_and_come_later() {
    // Sound appears within two seconds: one config, nothing lost.
    let mut stream = Stream::new(&[H264, ADTS]);
    for n in 0..10 {
        stream.video(n * 18_000, n * 18_000, &if n == 0 { key(0) } else { inter(n as u8) });
    }
    let mut soon = stream.clone();
    soon.audio(Some(170_000), &adts(1, 10));
    let events = soon.good();
    assert_eq!(configs(&events).len(), 1);
    assert_eq!(configs(&events)[0].tracks.len(), 2);
    assert_eq!((times(&events, VIDEO).len(), times(&events, AUDIO)), (10, vec![170_000]));
    // Later: the config comes without it, then a new one.
    for n in 10..15 {
        stream.video(n * 18_000, n * 18_000, &inter(n as u8));
    }
    stream.audio(Some(260_000), &adts(1, 10)).video(270_000, 270_000, &inter(15));
    let events = stream.good();
    let counts: Vec<usize> = configs(&events).iter().map(|config| config.tracks.len()).collect();
    assert_eq!(counts, [1, 2]);
    assert_eq!((times(&events, VIDEO).len(), times(&events, AUDIO)), (16, vec![260_000]));
    // By bytes, too.
    let mut stream = Stream::new(&[H264, ADTS]);
    stream.video(0, 0, &key(0));
    let large = byte_stream(&[&[9, 0xf0], &[&[0x41, 0x9a][..], &[9; 1 << 20]].concat()]);
    for n in 1..4 {
        stream.video(n * 10, n * 10, &large);
    }
    stream.audio(Some(10), &adts(1, 10));
    assert_eq!(configs(&stream.good()).len(), 2);
}

#[test]
fn pictures_before_the_first_parameter_sets_are_dropped() {
    let mut stream = Stream::new(&[H264, ADTS]);
    stream.video(0, 0, &inter(1)).audio(Some(10), &adts(1, 10)).video(3600, 3600, &key(2)).video(7200, 7200, &inter(3));
    let events = stream.good();
    assert_eq!(times(&events, VIDEO), [3600, 7200]);
    assert_eq!(times(&events, AUDIO), [10]);
}

#[test]
fn the_first_program_with_media_is_read_and_others_are_not() {
    let mut stream = Stream::default();
    stream.association(0, &[(1, 0x1000), (2, 0x1001), (3, 0x1002)]);
    stream.map(0x1000, 1, 0, &[(0x86, 0x90)]).map(0x1001, 2, 0, &[H264]).map(0x1002, 3, 0, &[(0x0f, 0x90)]);
    stream.video(3600, 3600, &key(1));
    stream.unit(0x90, &pes(0xc0, Some(1), None, &adts(1, 10), true));
    stream.unit(0x1ffe, &[0xff; 500]);
    let events = stream.good();
    assert_eq!(configs(&events)[0].tracks.len(), 1);
    assert_eq!(times(&events, VIDEO), [3600]);
    // Once it is no longer listed, another takes its place.
    stream.association(1, &[(3, 0x1002)]).map(0x1002, 3, 0, &[(0x0f, 0x90)]);
    stream.unit(0x90, &pes(0xc0, Some(1), None, &adts(1, 10), true));
    let events = stream.good();
    assert_eq!(configs(&events)[1].tracks[0].source_number, 0x90);
    assert_eq!(times(&events, 0x90), [1]);
}

#[test]
fn what_is_not_understood_is_kept_as_it_comes() {
    let mut stream = Stream::new(&[(0x81, AUDIO), (0x06, 0x102), (0x02, VIDEO), (0x05, 0x103)]);
    stream.audio(Some(100), b"ac-3");
    stream.unit(0x102, &pes(0xbd, Some(200), None, b"klv", true));
    stream.unit(0x102, &pes(0xbd, None, None, b"klv without a time", true));
    stream.unit_flagged(VIDEO, &pes(0xe0, Some(300), Some(250), &[7; 100], false), 0x40);
    stream.unit(VIDEO, &pes(0xe0, None, None, &[8; 100], false));
    stream.unit(VIDEO, &pes(0xe0, Some(400), None, &[9; 100], false));
    let events = stream.good();
    let tracks: Vec<_> = configs(&events)[0].tracks.iter().map(|track| (track.kind, &track.codec_id[..])).collect();
    assert_eq!(tracks, [(TrackKind::Audio, "TS/0x81"), (TrackKind::Data, "TS/0x06"), (TrackKind::Video, "TS/0x02")]);
    assert_eq!(samples(&events, AUDIO)[0].data, &b"ac-3"[..]);
    assert_eq!(times(&events, 0x102), [200, 200]);
    let video = samples(&events, VIDEO);
    assert_eq!((video[0].decode_ticks, video[0].data.len(), video[0].sync), (Some(250), 200, SyncKind::Sync));
    assert_eq!((video[1].decode_ticks, video[1].data.len(), video[1].sync), (Some(400), 100, SyncKind::None));
}

#[test]
fn two_fields_are_one_picture() {
    // Main, 16x32 in fields, frame_num of 4 bits, POC type 2.
    let sps = [0x67, 77, 0, 30, 0b1101_1010, 0b0110_0100, 0x80];
    let sps_facts = h264::parse_sps(&sps).unwrap();
    assert_eq!((sps_facts.frames_only, sps_facts.height), (false, 32));
    // first_mb 0, slice_type 0 or 2, PPS 0, frame_num, field_pic_flag, bottom_field_flag.
    let slice = |kind: u8, frame_num: u8, field: u8| {
        // `1 011 1 nnnn ff 1` or `1 1 1 nnnn ff 1`.
        let bits = u32::from(frame_num) << 3 | u32::from(field) << 1 | 1;
        let (head, len) = if kind == 2 { (0b10111, 12) } else { (0b111, 10) };
        let value = (head << 7 | bits) << (32 - len);
        [&[if kind == 2 { 0x65 } else { 0x41 }][..], &value.to_be_bytes()[..2], &[0x80]].concat()
    };
    let delimiter: &[u8] = &[9, 0xf0];
    let pps: &[u8] = &[0x68, 0xce, 0x3c, 0x80];
    let (top, bottom) = (0b10, 0b11);
    let mut stream = Stream::new(&[H264]);
    let first = byte_stream(&[delimiter, &sps, pps, &slice(2, 0, top), delimiter, &slice(0, 0, bottom)]);
    let second = byte_stream(&[delimiter, &slice(0, 1, top), delimiter, &slice(0, 1, bottom)]);
    let frames = byte_stream(&[delimiter, &slice(0, 2, 0), delimiter, &slice(0, 3, 0)]);
    stream.video(3600, 3600, &first).video(7200, 7200, &second).video(10_800, 10_800, &frames);
    let events = stream.good();
    assert_eq!(times(&events, VIDEO), [3600, 7200, 10_800, 14_400]);
    assert_eq!(samples(&events, VIDEO)[0].sync, SyncKind::Sync);
    assert_eq!(nal::iter_length_prefixed(&samples(&events, VIDEO)[1].data, 4).count(), 2);
}

fn fault(stream: &Stream) -> (DemuxErrorKind, String) {
    let error = stream.events().1.unwrap_err();
    (error.kind, error.path)
}

#[test]
fn what_cannot_be_used_is_refused() {
    assert_eq!(fault(&Stream::default()), (DemuxErrorKind::Unusable, "packet".into()));
    let mut stream = Stream::default();
    stream.unit(VIDEO, &[1; 10]);
    assert_eq!(fault(&stream), (DemuxErrorKind::Unusable, "PAT".into()));
    stream.association(0, &[(1, MAP)]);
    assert_eq!(fault(&stream), (DemuxErrorKind::Unusable, "PMT".into()));
    stream.map(MAP, 1, 0, &[(0x86, 0x90)]);
    assert_eq!(fault(&stream), (DemuxErrorKind::Unusable, "PMT".into()));
    stream.map(MAP, 1, 1, &[H264]);
    stream.video(0, 0, &inter(1));
    assert_eq!(fault(&stream), (DemuxErrorKind::Unusable, "PES".into()));
    let mut scrambled = Stream::new(&[H264]);
    scrambled.video(0, 0, &key(1));
    scrambled.packets.iter_mut().skip(2).for_each(|packet| packet[3] |= 0xc0);
    assert!(scrambled.events().1.unwrap_err().detail.contains("scrambled"));

    let (events, end) = run(&[0; 100_000]);
    let error = end.unwrap_err();
    assert_eq!((error.kind, error.offset, events.len()), (DemuxErrorKind::Malformed, 0, 0));
    let mut stream = Stream::new(&[H264]);
    stream.video(0, 0, &key(1)).video(1, 1, &inter(1));
    let good = stream.bytes();
    let (events, end) = run(&[&good[..], &[0; 100_000]].concat());
    assert_eq!(times(&events, VIDEO), [0], "what was complete before is given out");
    assert_eq!(end.unwrap_err().offset, good.len() as u64);
}

#[test]
fn a_program_that_never_comes_is_not_waited_for_for_ever() {
    let mut stream = Stream::default();
    stream.unit(VIDEO, &[1; 10]);
    let piece = Bytes::from(stream.bytes().repeat(1 << 12));
    let (mut demuxer, mut events) = (Demuxer::new(), Vec::new());
    let pushes = (0..200).take_while(|_| demuxer.push(piece.clone(), &mut events).is_ok()).count();
    assert!((85..90).contains(&pushes), "{pushes} pushes of {} bytes", piece.len());
}

#[test]
fn a_sample_over_the_limit_is_refused() {
    let mut stream = Stream::new(&[(0x81, AUDIO)]);
    stream.unit(AUDIO, &pes(0xe0, Some(0), None, &[1; 150], false));
    let (mut demuxer, mut events) = (Demuxer::new(), Vec::new());
    demuxer.push(stream.bytes().into(), &mut events).unwrap();
    let mut more = Stream { counters: stream.counters.clone(), packets: Vec::new() };
    more.unit(AUDIO, &[2; 184 * 16 * 400]);
    more.packets.iter_mut().for_each(|packet| packet[1] &= !0x40);
    let piece = Bytes::from(more.bytes());
    let error = (0..100).find_map(|_| demuxer.push(piece.clone(), &mut events).err()).unwrap();
    assert_eq!(error.kind, DemuxErrorKind::TooLarge);
}

#[test]
fn packets_of_other_distances_and_junk_between_them_are_read() {
    let mut stream = Stream::new(&[H264]);
    for n in 0..5 {
        stream.video(n * 3600, n * 3600, &if n == 0 { key(0) } else { inter(n as u8) });
    }
    let expected = stream.good();
    for stride in STRIDES {
        let extra = vec![0x11; stride - PACKET_LEN];
        let after: Vec<u8> = stream.packets.iter().flat_map(|packet| [&packet[..], &extra].concat()).collect();
        let before: Vec<u8> = stream.packets.iter().flat_map(|packet| [&extra[..], packet].concat()).collect();
        for data in [&after, &before, &[&[SYNC_BYTE, 0, SYNC_BYTE][..], &after].concat()] {
            let (events, end) = run(data);
            assert_eq!((&events, end), (&expected, Ok(())), "{stride}");
        }
        // Junk in the middle, where no packet is hit.
        let at = 4 * stride;
        let (events, end) = run(&[&after[..at], &[0x22, 0x47, 0x33], &after[at..]].concat());
        assert_eq!((&events, end), (&expected, Ok(())), "{stride}");
    }
}

#[test]
fn an_input_that_ends_within_a_packet_is_truncated() {
    let mut stream = Stream::new(&[H264, ADTS]);
    stream.video(0, 0, &key(1)).audio(Some(0), &adts(1, 400));
    stream.video(3600, 3600, &byte_stream(&[&[9, 0xf0], &[&[0x41, 0x9a][..], &[7; 600]].concat()]));
    let data = stream.bytes();
    let (events, end) = run(&data[..data.len() - 1]);
    let error = end.unwrap_err();
    assert_eq!((error.kind, error.offset), (DemuxErrorKind::Truncated, (data.len() - PACKET_LEN) as u64));
    assert_eq!(times(&events, VIDEO), [0], "the picture that goes on in the cut packet is not complete");
    // At the end of a packet, a PES packet of unknown length is taken to be complete, one of a known length is not.
    let (events, end) = run(&data[..data.len() - PACKET_LEN]);
    assert_eq!((times(&events, VIDEO), end), (vec![0, 3600], Ok(())));
    let audio_at = stream.packets.iter().rposition(|packet| packet[2] == AUDIO as u8).unwrap();
    let (events, end) = run(&data[..audio_at * PACKET_LEN]);
    assert_eq!(end.unwrap_err().kind, DemuxErrorKind::Truncated);
    assert_eq!(times(&events, AUDIO), []);
}

#[test]
fn every_truncation_of_a_clip_gives_a_prefix() {
    // Some access units of each, and all of the sound.
    for (name, len_max) in [("bbb.ts", 12_000), ("h265.ts", 12_000), ("audio_aac.ts", usize::MAX)] {
        let clip = Bytes::from(vidar_fixtures::read(name));
        let (all, end) = run(&clip);
        assert_eq!(end, Ok(()), "{name}");
        for len in 0..len_max.min(clip.len()) {
            let (events, _) = demux_in_pieces(Demuxer::new(), &clip.slice(..len), || usize::MAX);
            for pid in [VIDEO, AUDIO] {
                let (found, expected) = (samples(&events, pid), samples(&all, pid));
                let Some((last, before)) = found.split_last() else { continue };
                let content = |sample: &&RawSample| (sample.presentation_ticks, sample.data.clone());
                assert!(before.iter().map(content).eq(expected.iter().take(before.len()).map(content)), "{name} {len}");
                // Of the last one, only the length of its PES packet can tell that it is complete.
                let whole = expected[before.len()];
                assert_eq!(last.presentation_ticks, whole.presentation_ticks, "{name} {len}");
                assert!(last.data.len() <= whole.data.len(), "{name} {len}");
            }
        }
    }
}

#[test]
fn the_fuzz_corpora_are_read_without_a_fault() {
    for (name, body) in [
        ("demux_ts", crate::fuzz::demux_ts as fn(&[u8])),
        ("codec_h264", crate::fuzz::codec_h264),
        ("codec_h265", crate::fuzz::codec_h265),
        ("codec_other", crate::fuzz::codec_other),
    ] {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let mut count = 0;
        for entry in std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display())) {
            body(&std::fs::read(entry.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 2, "{name}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    #[test]
    fn events_do_not_depend_on_how_the_input_is_cut(lens in prop::collection::vec(1..3000_usize, 1..50), clip in 0..4_usize) {
        let name = ["bbb.ts", "h264_open_gop.ts", "h265.ts", "audio_aac.ts"][clip];
        let data = Bytes::from(vidar_fixtures::read(name));
        let whole = demux_in_pieces(Demuxer::new(), &data, || usize::MAX);
        let mut next = lens.iter().cycle();
        prop_assert_eq!(demux_in_pieces(Demuxer::new(), &data, || *next.next().unwrap()), whole);
    }

    #[test]
    fn no_input_panics(data: Vec<u8>) {
        let _ = run(&data);
    }

    #[test]
    fn no_damage_panics(flips in prop::collection::vec((0..40_000_usize, any::<u8>()), 1..30), cuts in prop::collection::vec(0..200_usize, 0..5)) {
        let mut data = vidar_fixtures::read("bbb.ts")[..40_000].to_vec();
        for (at, value) in flips {
            data[at] = value;
        }
        for cut in cuts {
            data.drain(cut * 100..cut * 100 + 77);
        }
        let _ = run(&data);
    }

    #[test]
    fn no_payload_panics(payloads in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..300), 0..4_u16, any::<u8>()), 0..20)) {
        let mut stream = Stream::new(&[H264, ADTS, (0x24, 0x102), (0x03, 0x103)]);
        for (n, (payload, pid, flags)) in payloads.iter().enumerate() {
            let pts = (flags & 3 != 0).then_some(n as u64 * 3600);
            stream.unit_flagged(VIDEO + pid, &pes(0xe0, pts, None, payload, flags & 4 != 0), flags & 0x80);
        }
        let _ = run(&stream.bytes());
    }
}
