//! What is muxed is demuxed, and follows the segment before it.

use std::collections::HashMap;

use bytes::Bytes;
use proptest::prelude::*;
use vidar_core::track::{Codec, NalFraming, Track};

use super::demux::Demuxer;
use super::mux::{Muxer, TsSample};
use super::packet::{PACKET_LEN, Packet};
use crate::codec::{aac, nal};
use crate::demux::{Demux as _, Event, RawSample};

fn video() -> Track {
    let clip = vidar_fixtures::read("bbb.mkv");
    let mut events = Vec::new();
    crate::container::mkv::Demuxer::new().push(Bytes::from(clip), &mut events).expect("a clip");
    let config =
        events.into_iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
    config.expect("a config").tracks.into_iter().find(|track| track.codec == Codec::H264).expect("H.264")
}

fn sound() -> Track {
    aac::track(&aac::AudioSpecificConfig::lc(48_000, 2).encode().expect("a config"), 2, 48_000).expect("AAC")
}

/// A picture: a slice of this length.
fn picture(len: usize, sync: bool) -> Bytes {
    let slice: Vec<u8> =
        [if sync { 0x65 } else { 0x41 }, 0x9a].into_iter().chain((0..len).map(|i| i as u8 | 1)).collect();
    nal::length_prefixed(&[slice.into()])
}

/// Pictures of these lengths, 40 ms apart, the first of them a sync sample, and a frame of sound with each.
fn segment(tracks: &[&Track], sequence: u64, from: i64, lens: &[usize]) -> Vec<u8> {
    let mut muxer = Muxer::new(tracks, sequence).expect("a muxer");
    let mut out = Vec::new();
    muxer.begin(&mut out);
    for (index, len) in lens.iter().enumerate() {
        let (sync, last) = (index == 0, index + 1 == lens.len());
        let decode_ticks = from + index as i64 * 3600;
        let data = &picture(*len, sync)[..];
        let sample = TsSample { track: 0, presentation_ticks: decode_ticks + 7200, decode_ticks, sync, last, data };
        assert!(muxer.write(&sample, &mut out));
        let data = &vec![0x21; len % 700 + 1][..];
        let sample = TsSample { track: 1, presentation_ticks: decode_ticks, sync: true, data, ..sample };
        assert!(muxer.write(&sample, &mut out));
    }
    out
}

fn demuxed(bytes: &[u8]) -> Vec<RawSample> {
    let (mut demuxer, mut events) = (Demuxer::new(), Vec::new());
    demuxer.push(Bytes::copy_from_slice(bytes), &mut events).expect("a transport stream");
    demuxer.finish(&mut events).expect("its end");
    let loss = events.iter().find(|event| !matches!(event, Event::Config(_) | Event::Sample(_)));
    assert!(loss.is_none(), "{loss:?}");
    events.into_iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None }).collect()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn segments_follow_each_other_without_a_loss(
        first in prop::collection::vec(1_usize..2000, 1..12),
        second in prop::collection::vec(1_usize..70_000, 1..4),
        sequence: u64,
    ) {
        let tracks = (video(), sound());
        let tracks = [&tracks.0, &tracks.1];
        let mut bytes = segment(&tracks, sequence, 900_000, &first);
        let next = 900_000 + first.len() as i64 * 3600;
        bytes.extend(segment(&tracks, sequence.wrapping_add(1), next, &second));
        // Counters of each PID go up by one from packet to packet.
        let mut counters: HashMap<u16, u8> = HashMap::new();
        for packet in bytes.chunks(PACKET_LEN) {
            let packet = Packet::parse(packet).expect("a packet");
            prop_assert!(packet.payload.is_some_and(|payload| !payload.is_empty()));
            if let Some(before) = counters.insert(packet.pid, packet.continuity) {
                prop_assert_eq!((before + 1) & 15, packet.continuity);
            }
        }
        let samples = demuxed(&bytes);
        let pictures: Vec<_> = samples.iter().filter(|sample| sample.track == 0).collect();
        let lens: Vec<usize> = first.iter().chain(&second).copied().collect();
        prop_assert_eq!(pictures.len(), lens.len());
        for (index, (sample, len)) in pictures.iter().zip(&lens).enumerate() {
            prop_assert_eq!(sample.presentation_ticks, 907_200 + index as i64 * 3600);
            let slice = picture(*len, index == 0 || index == first.len());
            let found = nal::iter_length_prefixed(&sample.data, 4).filter_map(Result::ok).last().expect("a NAL unit").1;
            prop_assert_eq!(found, &slice[4..]);
        }
        let frames = samples.iter().filter(|sample| sample.track == 1).map(|sample| sample.data.len());
        prop_assert_eq!(frames.collect::<Vec<_>>(), lens.iter().map(|len| len % 700 + 1).collect::<Vec<_>>());
    }
}

#[test]
fn what_has_no_place_is_refused() {
    let good = video();
    assert!(Muxer::new(&[], 0).is_none());
    assert!(Muxer::new(&[&good; 17], 0).is_none());
    for bad in [
        Track { framing: NalFraming::AnnexB, ..good.clone() },
        Track { codec: Codec::Av1, ..good.clone() },
        Track { codec_private: Bytes::from_static(b"x"), ..good.clone() },
        Track { codec_private: Bytes::new(), ..sound() },
        Track { codec: Codec::Opus, ..sound() },
    ] {
        assert!(Muxer::new(&[&bad], 0).is_none(), "{bad:?}");
    }
    let mut muxer = Muxer::new(&[&good], 0).expect("a muxer");
    let mut out = Vec::new();
    let sample = TsSample { track: 0, presentation_ticks: 0, decode_ticks: 0, sync: true, last: true, data: &[] };
    for (track, data) in [(0, &[][..]), (0, &[0, 0, 0, 9, 1][..]), (0, &[1][..]), (1, &[0, 0, 0, 1, 0x65][..])] {
        assert!(!muxer.write(&TsSample { track, data, ..sample }, &mut out), "{track} {data:?}");
    }
    assert!(out.is_empty());
}

#[test]
fn times_wrap_at_33_bits() {
    let tracks = (video(), sound());
    let tracks = [&tracks.0, &tracks.1];
    let samples = demuxed(&segment(&tracks, 0, (1 << 33) - 3600, &[100, 100, 100]));
    let times: Vec<i64> = samples.iter().filter(|s| s.track == 0).map(|sample| sample.presentation_ticks).collect();
    assert_eq!(times.windows(2).map(|pair| pair[1] - pair[0]).collect::<Vec<_>>(), [3600, 3600], "{times:?}");
}
