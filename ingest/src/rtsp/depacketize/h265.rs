//! H.265 (RFC 7798): single NAL units, aggregates (AP) and fragments (FU), in decoding order.

use bytes::Bytes;
use vidar_media::Track;
use vidar_media::codec::h265::{self, nal_type};

use super::nal::{Assembler, NalKind};
use super::{Depacketize, Output};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

const AGGREGATE: u8 = 48;
const FRAGMENT: u8 = 49;
const PACI: u8 = 50;

pub(super) struct Kind;

impl NalKind for Kind {
    fn is_slice(nal: &[u8]) -> bool {
        h265::is_vcl(nal)
    }

    fn begins_unit(nal: &[u8]) -> bool {
        h265::begins_access_unit(nal)
    }

    fn is_delimiter(nal: &[u8]) -> bool {
        h265::nal_unit_type(nal) == nal_type::AUD
    }

    fn is_parameter_set(nal: &[u8]) -> bool {
        matches!(h265::nal_unit_type(nal), nal_type::VPS | nal_type::SPS | nal_type::PPS)
    }

    fn track(sets: &[Bytes], source_number: u64, clock_hz: u32) -> Option<Track> {
        let of = |kind| sets.iter().filter(move |set| h265::nal_unit_type(set) == kind).cloned().collect::<Vec<_>>();
        let (vps, pps) = (of(nal_type::VPS), of(nal_type::PPS));
        let sps: Vec<Bytes> = of(nal_type::SPS).into_iter().filter(|sps| h265::parse_sps(sps).is_ok()).collect();
        if vps.is_empty() || sps.is_empty() || pps.is_empty() {
            return None;
        }
        h265::track(&vps, &sps, &pps, source_number, clock_hz).ok()
    }
}

pub(super) struct H265 {
    assembler: Assembler<Kind>,
}

/// Refuses packets out of decoding order (sprop-max-don-diff above 0).
pub(super) fn new(media: &Media, source_number: u64) -> Result<H265, String> {
    if media.number("sprop-max-don-diff", 0) > 0 || media.number("sprop-depack-buf-nalus", 0) > 0 {
        return Err("H.265 out of decoding order (sprop-max-don-diff) is not read".into());
    }
    let sets = ["sprop-vps", "sprop-sps", "sprop-pps"].map(|name| media.base64_list(name)).concat();
    Ok(H265 { assembler: Assembler::new(&sets, source_number, media.clock_hz) })
}

impl H265 {
    fn payload(&mut self, payload: &Bytes, out: &mut Output) {
        match payload[0] >> 1 & 0x3f {
            AGGREGATE => self.aggregate(&payload[2..], out),
            FRAGMENT => self.fragment(payload, out),
            PACI => self.assembler.break_unit(out),
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

    fn fragment(&mut self, payload: &[u8], out: &mut Output) {
        let Some((head, data)) = payload.split_first_chunk::<3>() else {
            return self.assembler.break_unit(out);
        };
        if head[2] & 0x80 != 0 {
            self.assembler.begin_fragments(&nal_header(head), data, out);
        } else {
            self.assembler.fragment(data, out);
        }
        if head[2] & 0x40 != 0 {
            self.assembler.end_fragments(out);
        }
    }
}

/// The header of a NAL unit in pieces.
fn nal_header(head: &[u8; 3]) -> [u8; 2] {
    [head[0] & 0x81 | (head[2] & 0x3f) << 1, head[1]]
}

/// The beginning of the first NAL unit of a packet; empty where it is a later piece.
fn first_nal(payload: &[u8]) -> Vec<u8> {
    let start = |at: usize| payload.get(at..).unwrap_or_default().iter().take(8).copied().collect::<Vec<u8>>();
    match payload[0] >> 1 & 0x3f {
        AGGREGATE => start(4),
        FRAGMENT => match payload.first_chunk::<3>() {
            Some(head) if head[2] & 0x80 != 0 => [&nal_header(head)[..], &start(3)].concat(),
            _ => Vec::new(),
        },
        _ => start(0),
    }
}

impl Depacketize for H265 {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        if packet.payload.len() < 2 {
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
