//! H.264 (RFC 6184): single NAL units, aggregates (STAP-A, STAP-B) and fragments (FU-A, FU-B).

use bytes::Bytes;
use vidar_media::Track;
use vidar_media::codec::h264::{self, nal_type};

use super::nal::{Assembler, NalKind};
use super::{Depacketize, Output};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

pub(super) struct Kind;

impl NalKind for Kind {
    fn is_slice(nal: &[u8]) -> bool {
        h264::is_vcl(nal)
    }

    fn begins_unit(nal: &[u8]) -> bool {
        h264::begins_access_unit(nal)
    }

    fn is_delimiter(nal: &[u8]) -> bool {
        h264::nal_unit_type(nal) == nal_type::AUD
    }

    fn is_parameter_set(nal: &[u8]) -> bool {
        matches!(h264::nal_unit_type(nal), nal_type::SPS | nal_type::PPS)
    }

    fn track(sets: &[Bytes], source_number: u64, clock_hz: u32) -> Option<Track> {
        let of = |kind| sets.iter().filter(move |set| h264::nal_unit_type(set) == kind).cloned().collect::<Vec<_>>();
        let sps: Vec<Bytes> = of(nal_type::SPS).into_iter().filter(|sps| h264::parse_sps(sps).is_ok()).collect();
        let pps = of(nal_type::PPS);
        if sps.is_empty() || pps.is_empty() {
            return None;
        }
        h264::track(&sps, &pps, source_number, clock_hz).ok()
    }
}

pub(super) struct H264 {
    assembler: Assembler<Kind>,
}

/// Refuses interleaved mode (packetization-mode 2): nobody sends it.
pub(super) fn new(media: &Media, source_number: u64) -> Result<H264, String> {
    if media.number("packetization-mode", 0) > 1 {
        return Err("H.264 packetization-mode 2 is not read".into());
    }
    let sets = media.base64_list("sprop-parameter-sets");
    Ok(H264 { assembler: Assembler::new(&sets, source_number, media.clock_hz) })
}

impl H264 {
    fn payload(&mut self, payload: &Bytes, out: &mut Output) {
        match payload.first().map_or(0, |byte| byte & 0x1f) {
            STAP_A => self.aggregate(&payload[1..], out),
            // After a decoding order number of 2 bytes.
            STAP_B => self.aggregate(payload.get(3..).unwrap_or_default(), out),
            FU_A => self.fragment(payload, 2, out),
            FU_B => self.fragment(payload, 4, out),
            26 | 27 | 30 | 31 => self.assembler.break_unit(out),
            _ => self.assembler.nal(payload, out),
        }
    }

    fn aggregate(&mut self, mut rest: &[u8], out: &mut Output) {
        while let Some((len, after)) = rest.split_first_chunk::<2>() {
            let Some((nal, after)) = after.split_at_checked(u16::from_be_bytes(*len).into()) else {
                return self.assembler.break_unit(out);
            };
            self.assembler.nal(nal, out);
            rest = after;
        }
    }

    fn fragment(&mut self, payload: &[u8], data_at: usize, out: &mut Output) {
        let Some((head, data)) = payload.split_at_checked(data_at) else {
            return self.assembler.break_unit(out);
        };
        // Bit 5 is reserved; some cameras set it. Some change the type within a NAL unit: the first holds.
        let (start, end) = (head[1] & 0x80 != 0, head[1] & 0x40 != 0);
        if start {
            self.assembler.begin_fragments(&[head[0] & 0xe0 | head[1] & 0x1f], data, out);
        } else {
            self.assembler.fragment(data, out);
        }
        if end {
            self.assembler.end_fragments(out);
        }
    }
}

/// The beginning of the first NAL unit of a packet; empty where it is a later piece.
fn first_nal(payload: &[u8]) -> Vec<u8> {
    let start = |at: usize| payload.get(at..).unwrap_or_default().iter().take(8).copied().collect();
    match payload.first().map_or(0, |byte| byte & 0x1f) {
        STAP_A => start(3),
        STAP_B => start(5),
        kind @ (FU_A | FU_B) => match payload.get(1) {
            Some(head) if head & 0x80 != 0 => {
                let data = if kind == FU_A { 2 } else { 4 };
                [vec![payload[0] & 0xe0 | head & 0x1f], start(data)].concat()
            }
            _ => Vec::new(),
        },
        _ => start(0),
    }
}

impl Depacketize for H264 {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        if packet.payload.is_empty() {
            return;
        }
        if self.assembler.begin_packet(ticks, &first_nal(&packet.payload), packet.marker, out) {
            self.payload(&packet.payload, out);
            self.assembler.end_packet(packet.marker, out);
        }
    }

    fn lost(&mut self) {
        self.assembler.lost();
    }

    fn flush(&mut self, out: &mut Output) {
        self.assembler.flush(out);
    }

    fn track(&self) -> Option<&Track> {
        self.assembler.track()
    }
}
