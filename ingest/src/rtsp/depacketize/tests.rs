//! Samples packetized here, by the letter of each RFC, come out as they were.

use bytes::Bytes;
use proptest::prelude::*;
use vidar_media::codec::nal::iter_length_prefixed;

use super::*;
use crate::rtsp::sdp::Description;

/// Sets that parse: from an encoder, 160x120.
const SPROP: &str = "Z2QADKy0FCPy4CIAAAMAAgAAAwBkHihVQA==,aO88sA==";

fn media(rtpmap: &str, fmtp: &str) -> Media {
    let text = format!("v=0\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 {rtpmap}\r\na=fmtp:96 {fmtp}\r\n");
    Description::parse(text.as_bytes()).unwrap().medias.remove(0)
}

fn h264() -> Box<dyn Depacketize> {
    choose(&media("H264/90000", &format!("packetization-mode=1; sprop-parameter-sets={SPROP}"))).unwrap()
}

fn h265() -> Box<dyn Depacketize> {
    choose(&media("H265/90000", "")).unwrap()
}

/// Time and NAL units.
type Nals = (i64, Vec<Vec<u8>>);
/// Time, duration and bytes.
type Frame = (i64, Option<u32>, Vec<u8>);

struct Feeder {
    depacketizer: Box<dyn Depacketize>,
    sequence: u16,
    out: Output,
}

impl Feeder {
    fn new(depacketizer: Box<dyn Depacketize>) -> Self {
        Self { depacketizer, sequence: 0, out: Output::default() }
    }

    fn push(&mut self, ticks: i64, marker: bool, payload: &[u8]) -> &mut Self {
        let payload = Bytes::copy_from_slice(payload);
        let (sequence, timestamp) = (self.sequence, ticks as u32);
        let packet = Packet { marker, payload_type: 96, sequence, timestamp, ssrc: 1, payload };
        self.depacketizer.push(&packet, ticks, &mut self.out);
        self.sequence = self.sequence.wrapping_add(1);
        self
    }

    fn lost(&mut self) -> &mut Self {
        self.depacketizer.lost();
        self
    }

    /// Times and NAL units of what came out, and how much was broken.
    fn nals(&mut self) -> (Vec<Nals>, u32) {
        let units = std::mem::take(&mut self.out.units);
        let nals = |data: &[u8]| iter_length_prefixed(data, 4).map(|nal| nal.unwrap().1.to_vec()).collect();
        (units.iter().map(|unit| (unit.ticks, nals(&unit.data))).collect(), std::mem::take(&mut self.out.broken))
    }

    fn frames(&mut self) -> (Vec<Frame>, u32) {
        let units = std::mem::take(&mut self.out.units);
        let frames = units.iter().map(|unit| (unit.ticks, unit.duration_ticks, unit.data.to_vec())).collect();
        (frames, std::mem::take(&mut self.out.broken))
    }
}

/// RFC 6184 sections 5.6, 5.8.
fn packetize_h264(nal: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    if nal.len() <= mtu {
        return vec![nal.to_vec()];
    }
    let pieces: Vec<&[u8]> = nal[1..].chunks(mtu).collect();
    let last = pieces.len() - 1;
    let head = |at| [nal[0] & 0xe0 | 28, nal[0] & 0x1f | u8::from(at == 0) << 7 | u8::from(at == last) << 6];
    pieces.iter().enumerate().map(|(at, piece)| [&head(at)[..], piece].concat()).collect()
}

/// RFC 7798 sections 4.4.1, 4.4.3.
fn packetize_h265(nal: &[u8], mtu: usize) -> Vec<Vec<u8>> {
    if nal.len() <= mtu {
        return vec![nal.to_vec()];
    }
    let pieces: Vec<&[u8]> = nal[2..].chunks(mtu).collect();
    let last = pieces.len() - 1;
    let head =
        |at| [nal[0] & 0x81 | 49 << 1, nal[1], nal[0] >> 1 & 0x3f | u8::from(at == 0) << 7 | u8::from(at == last) << 6];
    pieces.iter().enumerate().map(|(at, piece)| [&head(at)[..], piece].concat()).collect()
}

fn aggregate(head: &[u8], nals: &[&[u8]]) -> Vec<u8> {
    let mut out = head.to_vec();
    for nal in nals {
        out.extend((nal.len() as u16).to_be_bytes());
        out.extend(*nal);
    }
    out
}

const SPS: &[u8] = &[0x67, 1, 2];
const PPS: &[u8] = &[0x68, 3];
const SEI: &[u8] = &[0x06, 5, 1, 0, 0x80];
const IDR: &[u8] = &[0x65, 0x88, 9, 9, 9, 9, 9];
const SECOND_SLICE: &[u8] = &[0x65, 0x44, 9, 9];
const SLICE: &[u8] = &[0x41, 0x9a, 7, 7];
const AUD: &[u8] = &[0x09, 0xf0];

#[test]
fn h264_single_aggregated_and_fragmented() {
    let mut feeder = Feeder::new(h264());
    assert!(feeder.depacketizer.track().is_some());
    feeder.push(0, false, &aggregate(&[24], &[AUD, SPS, PPS, SEI]));
    for piece in packetize_h264(IDR, 3) {
        feeder.push(0, false, &piece);
    }
    feeder.push(0, true, SECOND_SLICE).push(3600, true, SLICE);
    let first = vec![SPS.to_vec(), PPS.to_vec(), SEI.to_vec(), IDR.to_vec(), SECOND_SLICE.to_vec()];
    assert_eq!(feeder.nals(), (vec![(0, first), (3600, vec![SLICE.to_vec()])], 0));
    // STAP-B and FU-B have decoding order numbers.
    feeder.push(7200, false, &aggregate(&[25, 0, 1], &[SPS, PPS]));
    feeder.push(7200, false, &[0x60 | 29, 0x85, 0, 2, 0x88, 1]).push(7200, true, &[0x60 | 28, 0x45, 2]);
    assert_eq!(feeder.nals().0, [(7200, vec![SPS.to_vec(), PPS.to_vec(), vec![0x65, 0x88, 1, 2]])]);
}

#[test]
fn h264_units_end_without_markers_and_in_spite_of_them() {
    let mut feeder = Feeder::new(h264());
    // No marker at all: the time changes.
    feeder.push(0, false, IDR).push(3600, false, SLICE).push(7200, false, SLICE);
    assert_eq!(feeder.nals().0.len(), 2);
    // A marker on SEI; parameter sets with a time of their own.
    feeder.push(10_000, true, SPS).push(10_001, true, SEI).push(10_800, true, IDR);
    let (units, broken) = feeder.nals();
    assert_eq!(units[1], (10_800, vec![SPS.to_vec(), SEI.to_vec(), IDR.to_vec()]));
    assert_eq!((units[0].0, broken), (7200, 0));
    let mut out = Output::default();
    feeder.push(14_400, false, SLICE).depacketizer.flush(&mut out);
    assert_eq!(out.units.len(), 1);
}

#[test]
fn h264_byte_streams_in_packets_are_taken_apart() {
    let mut feeder = Feeder::new(h264());
    let stream = |nals: &[&[u8]]| nals.iter().flat_map(|nal| [&[0, 0, 0, 1], *nal].concat()).collect::<Vec<u8>>();
    feeder.push(0, true, &stream(&[AUD, SPS, PPS, IDR]));
    let expected = vec![SPS.to_vec(), PPS.to_vec(), IDR.to_vec()];
    assert_eq!(feeder.nals(), (vec![(0, expected.clone())], 0));
    // The first start code left out, in fragments of the first unit's type.
    for piece in packetize_h264(&stream(&[SPS, PPS, IDR])[4..], 5) {
        feeder.push(1, false, &piece);
    }
    feeder.push(2, true, SLICE);
    assert_eq!(feeder.nals().0[0], (1, expected));
}

#[test]
fn h264_a_loss_costs_the_units_it_touches_and_no_more() {
    let mut feeder = Feeder::new(h264());
    let pieces = packetize_h264(IDR, 2);
    // The middle of a picture is lost; the next is whole.
    feeder.push(0, false, &pieces[0]).lost().push(0, true, &pieces[2]).push(1, true, SLICE);
    assert_eq!(feeder.nals().0, [(1, vec![SLICE.to_vec()])]);
    // The end is lost: the next begins with a first slice.
    feeder.push(2, false, &pieces[0]).lost().push(3, true, SLICE);
    assert_eq!(feeder.nals().0, [(3, vec![SLICE.to_vec()])]);
    // The beginning is lost.
    feeder.lost().push(4, false, &pieces[1]).push(4, true, &pieces[2]).push(5, true, SLICE);
    assert_eq!(feeder.nals().0, [(5, vec![SLICE.to_vec()])]);
    // The first slice is lost, the second is not enough. Without markers the time tells.
    feeder.lost().push(6, false, SECOND_SLICE).push(7, false, SECOND_SLICE).push(8, false, SLICE);
    assert_eq!(feeder.nals().0, [(7, vec![SECOND_SLICE.to_vec()])]);
    // Whole pictures before a loss are kept.
    feeder.push(8, true, &[0x41, 0x01]).lost().push(9, true, SLICE);
    assert_eq!(feeder.nals().0.len(), 2);
}

#[test]
fn h264_nonsense_is_counted() {
    let mut feeder = Feeder::new(h264());
    for payload in [&[24, 0, 9, 1][..], &[28], &[0x60 | 28, 0x05, 1], &[30, 1], &[26, 0, 0], &[29, 0x80, 0]] {
        feeder.push(0, true, payload);
        let (units, broken) = feeder.nals();
        assert_eq!((units.len(), broken), (0, 1), "{payload:?}");
        feeder.push(1, true, SLICE);
        assert_eq!(feeder.nals().0.len(), 1, "the next unit is whole, after {payload:?}");
    }
    // An empty piece and a reserved bit are harmless; the type of the first piece holds.
    feeder.push(2, false, &[0x60 | 28, 0x85, 0x88]).push(2, false, &[0x60 | 28, 0x05]);
    feeder.push(2, true, &[0x60 | 28, 0x61, 7]);
    assert_eq!(feeder.nals(), (vec![(2, vec![vec![0x65, 0x88, 7]])], 0));
    // A fragment that never ends is left out, what follows is kept.
    feeder.push(3, false, &[0x60 | 28, 0x85, 0x88]).push(3, true, SLICE);
    assert_eq!(feeder.nals(), (vec![(3, vec![SLICE.to_vec()])], 1));
}

#[test]
fn h264_tracks_come_from_the_announcement_or_from_the_stream() {
    let announced = h264();
    let known = announced.track().unwrap();
    assert_eq!((known.video.unwrap().width, known.timescale_hz, known.in_band_parameter_sets), (160, 90_000, true));
    let sets = media("H264/90000", &format!("sprop-parameter-sets={SPROP}")).base64_list("sprop-parameter-sets");
    for fmtp in ["", "sprop-parameter-sets=Z0I=,aM4=", "sprop-parameter-sets=AAAAAQ=="] {
        let mut feeder = Feeder::new(choose(&media("H264/90000", fmtp)).unwrap());
        assert!(feeder.depacketizer.track().is_none(), "{fmtp}");
        feeder.push(0, false, &sets[0]).push(0, false, &sets[1]).push(0, true, IDR);
        assert_eq!(feeder.depacketizer.track(), Some(known), "{fmtp}");
        assert_eq!(feeder.nals().0[0].1.len(), 3, "in-band sets stay");
    }
    assert!(choose(&media("H264/90000", "packetization-mode=2")).is_err());
}

#[test]
fn h265_single_aggregated_and_fragmented() {
    let vps: &[u8] = &[0x40, 1, 2];
    let idr: &[u8] = &[0x26, 1, 0x80, 4, 5, 6, 7, 8];
    let slice: &[u8] = &[0x02, 1, 0x80, 9];
    let aud: &[u8] = &[0x46, 1, 0x50];
    let mut feeder = Feeder::new(h265());
    feeder.push(0, false, &aggregate(&[0x60, 1], &[aud, vps]));
    for piece in packetize_h265(idr, 2) {
        feeder.push(0, false, &piece);
    }
    feeder.push(3000, true, slice);
    let expected = vec![(0, vec![vps.to_vec(), idr.to_vec()]), (3000, vec![slice.to_vec()])];
    assert_eq!(feeder.nals(), (expected, 0));
    let pieces = packetize_h265(idr, 2);
    feeder.push(1, false, &pieces[0]).lost().push(1, true, &pieces[2]).push(2, true, slice);
    assert_eq!(feeder.nals().0, [(2, vec![slice.to_vec()])]);
    for (at, payload) in [&[0x60, 1, 0, 9, 1][..], &[0x62, 1], &[0x62, 1, 0x13, 1], &[0x64, 1, 0]].iter().enumerate() {
        feeder.push(5 + at as i64, true, payload);
        assert_eq!(feeder.nals(), (vec![], 1), "{payload:?}");
    }
    assert!(choose(&media("H265/90000", "sprop-max-don-diff=2")).is_err());
}

#[test]
fn h265_tracks_need_all_three_kinds_of_sets() {
    let clip = vidar_fixtures::read("h265.mp4");
    // hvcC: 23 bytes, then arrays of NAL units.
    let at = clip.windows(4).position(|window| window == b"hvcC").unwrap();
    let len = u32::from_be_bytes(clip[at - 4..at].try_into().unwrap()) as usize - 8;
    let hvcc = vidar_media::codec::h265::parse_hvcc(&clip[at + 4..at + 4 + len]).unwrap();
    let mut feeder = Feeder::new(h265());
    feeder.push(0, false, &hvcc.sps[0]).push(0, false, &hvcc.pps[0]);
    assert!(feeder.depacketizer.track().is_none());
    feeder.push(0, false, &hvcc.vps[0]);
    assert_eq!(feeder.depacketizer.track().unwrap().video.unwrap().width, 160);
}

const AAC: &str = "mode=AAC-hbr;sizelength=13;indexlength=3;indexdeltalength=3;config=1190";

fn au_headers(sizes: &[usize]) -> Vec<u8> {
    let mut out = ((sizes.len() * 16) as u16).to_be_bytes().to_vec();
    sizes.iter().for_each(|size| out.extend(((size << 3) as u16).to_be_bytes()));
    out
}

#[test]
fn aac_several_units_one_unit_and_pieces() {
    let mut feeder = Feeder::new(choose(&media("MPEG4-GENERIC/48000/2", AAC)).unwrap());
    feeder.push(1000, true, &[au_headers(&[3, 2]), vec![1, 2, 3, 4, 5]].concat());
    let frame = |ticks, data: &[u8]| (ticks, Some(1024), data.to_vec());
    assert_eq!(feeder.frames(), (vec![frame(1000, &[1, 2, 3]), frame(2024, &[4, 5])], 0));
    feeder.push(3048, false, &[au_headers(&[5]), vec![1, 2]].concat());
    feeder.push(3048, true, &[au_headers(&[5]), vec![3, 4, 5]].concat());
    assert_eq!(feeder.frames(), (vec![frame(3048, &[1, 2, 3, 4, 5])], 0));
    // A lost piece costs its unit.
    feeder.push(4072, false, &[au_headers(&[5]), vec![1, 2]].concat()).lost();
    feeder.push(5096, true, &[au_headers(&[1]), vec![9]].concat());
    assert_eq!(feeder.frames(), (vec![frame(5096, &[9])], 0));
    // ADTS headers left in place.
    let adts = [&[0xff, 0xf1, 0x4c, 0x80, 0x01, 0x3f, 0xfc][..], &[7, 8]].concat();
    feeder.push(6120, true, &[au_headers(&[9]), adts].concat());
    assert_eq!(feeder.frames(), (vec![frame(6120, &[7, 8])], 0));
}

#[test]
fn aac_other_header_layouts() {
    let lbr = media("mpeg4-generic/22050", "mode=AAC-lbr;sizelength=6;indexlength=2;indexdeltalength=2;config=1388");
    let mut feeder = Feeder::new(choose(&lbr).unwrap());
    feeder.push(0, true, &[0, 16, 2 << 2, 1 << 2, 1, 2, 3]);
    assert_eq!(feeder.frames().0, [(0, Some(1024), vec![1, 2]), (1024, Some(1024), vec![3])]);
    let constant = media("mpeg4-generic/48000", "mode=generic;constantsize=2;constantduration=960;config=1190");
    let mut feeder = Feeder::new(choose(&constant).unwrap());
    feeder.push(0, true, &[1, 2, 3, 4]);
    assert_eq!(feeder.frames().0, [(0, Some(960), vec![1, 2]), (960, Some(960), vec![3, 4])]);
    let endless = media("mpeg4-generic/48000", "mode=generic;indexlength=3;constantsize=1;config=1190");
    let mut feeder = Feeder::new(choose(&endless).unwrap());
    assert_eq!(feeder.push(0, true, &[0, 16, 0, 0, 1, 2]).frames(), (vec![], 1), "headers without end");
    for fmtp in ["mode=AAC-hbr", "mode=CELP-cbr;config=1190", "mode=AAC-hbr;config=zz", "sizelength=40;config=1190"] {
        assert!(choose(&media("MPEG4-GENERIC/48000", fmtp)).is_err(), "{fmtp}");
    }
}

#[test]
fn aac_every_truncation_is_counted() {
    let whole = [au_headers(&[3, 2]), vec![1, 2, 3, 4, 5]].concat();
    for len in 0..whole.len() {
        let mut feeder = Feeder::new(choose(&media("MPEG4-GENERIC/48000/2", AAC)).unwrap());
        let (frames, broken) = feeder.push(0, true, &whole[..len]).frames();
        assert_eq!(broken, 1, "{len}");
        assert!(frames.len() < 2);
    }
}

#[test]
fn latm_with_its_config_announced() {
    let mut feeder = Feeder::new(choose(&media("MP4A-LATM/48000", "cpresent=0;config=40002310adca00")).unwrap());
    let track = feeder.depacketizer.track().unwrap();
    assert_eq!((&track.codec_private[..], track.audio.unwrap().channels), (&[0x11, 0x88, 0x56, 0xe5, 0][..], 1));
    let long: Vec<u8> = (0..300).map(|n| n as u8).collect();
    let element = [&[255, 45][..], &long].concat();
    feeder.push(0, true, &[2, 7, 8]).push(1024, false, &element[..100]).push(1024, true, &element[100..]);
    assert_eq!(feeder.frames(), (vec![(0, Some(1024), vec![7, 8]), (1024, Some(1024), long)], 0));
    // A lost piece costs its element; the next is whole.
    feeder.push(2048, false, &element[..100]).lost().push(2048, true, &element[200..]).push(3072, true, &[1, 9]);
    assert_eq!(feeder.frames().0, [(3072, Some(1024), vec![9])]);
    feeder.push(4096, true, &[9, 1]);
    assert_eq!(feeder.frames(), (vec![], 1));
    assert!(choose(&media("MP4A-LATM/48000", "cpresent=0")).is_err());
    assert!(choose(&media("MP4A-LATM/48000", "cpresent=0;config=ff")).is_err());
}

#[test]
fn latm_with_its_config_in_band() {
    let mut feeder = Feeder::new(choose(&media("MP4A-LATM/48000", "")).unwrap());
    assert!(feeder.depacketizer.track().is_none());
    // useSameStreamMux 0; StreamMuxConfig; then a length and a payload, not byte-aligned.
    let config = "0 0 1 000000 0000 000  00010 0011 0001 0 0 0  000 11111111 0 0";
    let bits: Vec<bool> = config.chars().filter(|c| *c != ' ').map(|c| c == '1').collect();
    let element = |bits: &[bool], payload: &[u8]| {
        let mut bits = bits.to_vec();
        for byte in [&[payload.len() as u8][..], payload].concat() {
            bits.extend((0..8).rev().map(|bit| byte >> bit & 1 == 1));
        }
        bits.chunks(8)
            .map(|byte| byte.iter().enumerate().fold(0, |sum, (at, bit)| sum | u8::from(*bit) << (7 - at)))
            .collect::<Vec<u8>>()
    };
    feeder.push(0, true, &element(&bits, &[1, 2, 3]));
    feeder.push(1024, true, &element(&[true], &[4, 5]));
    assert_eq!(feeder.frames(), (vec![(0, Some(1024), vec![1, 2, 3]), (1024, Some(1024), vec![4, 5])], 0));
    assert_eq!(&feeder.depacketizer.track().unwrap().codec_private[..], [0x11, 0x88]);
}

#[test]
fn sound_in_whole_packets() {
    let mut opus = Feeder::new(choose(&media("opus/48000/2", "sprop-stereo=0")).unwrap());
    opus.push(960, false, &[31 << 3, 1, 2]).push(1920, false, &[]).push(1920, false, &[3]);
    assert_eq!(opus.frames(), (vec![(960, Some(960), vec![31 << 3, 1, 2])], 1));
    assert_eq!(opus.depacketizer.track().unwrap().audio.unwrap().channels, 1);
    let mut pcma = Feeder::new(choose(&media("PCMA/8000", "")).unwrap());
    pcma.push(160, false, &[0xd5; 160]);
    assert_eq!(pcma.frames().0, [(160, Some(160), vec![0xd5; 160])]);
    let mut linear = Feeder::new(choose(&media("L16/44100/2", "")).unwrap());
    linear.push(0, false, &[1, 2, 3, 4, 5]).push(1, false, &[1]);
    assert_eq!(linear.frames(), (vec![(0, Some(1), vec![1, 2, 3, 4])], 1));
    for rtpmap in ["VP9/90000", "L17x/8000", "opus/48000/0"] {
        assert_eq!(choose(&media(rtpmap, "")).is_err(), rtpmap != "opus/48000/0", "{rtpmap}");
    }
}

#[test]
fn mpeg_audio_whole_and_in_pieces() {
    let frame = [&[0xff, 0xfb, 0x90, 0x00][..], &[5; 413]].concat();
    let mut feeder = Feeder::new(choose(&media("MPA/90000", "")).unwrap());
    feeder.push(0, true, &[&[0; 4], &frame[..], &frame].concat());
    let duration = 1152 * 90_000 / 44_100;
    let expected = vec![(0, Some(duration), frame.clone()), (duration.into(), Some(duration), frame.clone())];
    assert_eq!(feeder.frames(), (expected, 0));
    feeder.push(9000, false, &[&[0; 4], &frame[..200]].concat()).push(
        9000,
        true,
        &[&[0, 0, 0, 200], &frame[200..]].concat(),
    );
    assert_eq!(feeder.frames(), (vec![(9000, Some(duration), frame.clone())], 0));
    feeder.push(9000, true, &[&[0, 0, 0, 200], &frame[200..]].concat()).push(0, true, &[0]).push(
        0,
        true,
        &[0, 0, 0, 0, 1],
    );
    assert_eq!(feeder.frames(), (vec![], 3));
}

/// NAL units as an encoder makes them: no start codes within, a slice header that begins a picture.
fn picture(first: u8) -> impl Strategy<Value = Vec<u8>> {
    prop::collection::vec(1..=255_u8, 1..400).prop_map(move |tail| [&[first, 0x80 | tail[0]][..], &tail].concat())
}

proptest! {
    #[test]
    fn h264_round_trip(pictures in prop::collection::vec(picture(0x41), 1..20), mtu in 2..200_usize, markers: bool) {
        let mut feeder = Feeder::new(h264());
        for (at, nal) in pictures.iter().enumerate() {
            let packets = packetize_h264(nal, mtu);
            let last = packets.len() - 1;
            for (n, packet) in packets.iter().enumerate() {
                feeder.push(at as i64 * 3600, markers && n == last, packet);
            }
        }
        let mut out = std::mem::take(&mut feeder.out);
        feeder.depacketizer.flush(&mut out);
        feeder.out = out;
        let expected = pictures.iter().enumerate().map(|(at, nal)| (at as i64 * 3600, vec![nal.clone()])).collect();
        prop_assert_eq!(feeder.nals(), (expected, 0));
    }

    #[test]
    fn h265_round_trip_with_losses(
        pictures in prop::collection::vec(picture(0x02), 1..20),
        mtu in 3..200_usize,
        lost in prop::collection::vec(prop::bool::weighted(0.1), 3000),
    ) {
        let mut feeder = Feeder::new(h265());
        let (mut count, mut whole) = (0, Vec::new());
        let mut missing = false;
        for (at, nal) in pictures.iter().enumerate() {
            // A header of two bytes.
            let nal = [&[0x02, 1], &nal[1..]].concat();
            let packets = packetize_h265(&nal, mtu);
            let last = packets.len() - 1;
            let mut kept = true;
            for (n, packet) in packets.iter().enumerate() {
                if lost[count % lost.len()] {
                    (missing, kept) = (true, false);
                } else {
                    if std::mem::take(&mut missing) {
                        feeder.lost();
                    }
                    feeder.push(at as i64, n == last, packet);
                }
                count += 1;
            }
            whole.extend(kept.then(|| (at as i64, vec![nal])));
        }
        prop_assert_eq!(feeder.nals().0, whole);
    }

    #[test]
    fn no_payload_panics_and_nothing_grows(
        encoding in prop::sample::select(vec!["H264/90000", "H265/90000", "MPEG4-GENERIC/48000/2", "MP4A-LATM/48000", "opus/48000/2", "PCMU/8000", "MPA/90000"]),
        packets in prop::collection::vec((any::<u8>(), any::<bool>(), any::<bool>(), prop::collection::vec(any::<u8>(), 0..40)), 0..40),
    ) {
        let mut feeder = Feeder::new(choose(&media(encoding, AAC)).unwrap_or_else(|_| choose(&media(encoding, "")).unwrap()));
        let mut bytes = 0;
        for (ticks, marker, lost, payload) in packets {
            bytes += payload.len() * 8 + 8;
            if lost {
                feeder.lost();
            }
            feeder.push(ticks.into(), marker, &payload);
        }
        let mut out = std::mem::take(&mut feeder.out);
        feeder.depacketizer.flush(&mut out);
        prop_assert!(out.units.iter().map(|unit| unit.data.len()).sum::<usize>() <= bytes);
    }
}
