//! H.265 (RFC 7798): single NAL units, aggregates (AP) and fragments (FU), in decoding order.

use bytes::Bytes;
use vidar_media::Track;
use vidar_media::codec::h265::{self, nal_type};

use super::Output;
use super::nal::{Assembler, NalKind, NalUnits, beginning};
use crate::rtsp::sdp::Media;

const AGGREGATE: u8 = 48;
const FRAGMENT: u8 = 49;
const PACI: u8 = 50;

pub(super) struct Kind;

impl NalKind for Kind {
    const HEADER_BYTES: usize = 2;

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

    fn first_nal(payload: &[u8]) -> Vec<u8> {
        match payload[0] >> 1 & 0x3f {
            AGGREGATE => beginning(payload, 4),
            FRAGMENT => match payload.first_chunk::<3>() {
                Some(head) if head[2] & 0x80 != 0 => [&nal_header(head)[..], &beginning(payload, 3)].concat(),
                _ => Vec::new(),
            },
            _ => beginning(payload, 0),
        }
    }

    fn payload(assembler: &mut Assembler<Self>, payload: &Bytes, out: &mut Output) {
        match payload[0] >> 1 & 0x3f {
            AGGREGATE => assembler.aggregate(&payload[2..], out),
            FRAGMENT => match payload.split_first_chunk::<3>() {
                Some((head, data)) => {
                    let (first, last) = (head[2] & 0x80 != 0, head[2] & 0x40 != 0);
                    assembler.piece(&nal_header(head), data, first, last, out);
                }
                None => assembler.break_unit(out),
            },
            PACI => assembler.break_unit(out),
            _ => assembler.nal(payload, out),
        }
    }
}

/// Refuses packets out of decoding order (sprop-max-don-diff above 0).
pub(super) fn new(media: &Media, source_number: u64) -> Result<NalUnits<Kind>, String> {
    if media.number("sprop-max-don-diff", 0) > 0 || media.number("sprop-depack-buf-nalus", 0) > 0 {
        return Err("H.265 out of decoding order (sprop-max-don-diff) is not read".into());
    }
    let sets = ["sprop-vps", "sprop-sps", "sprop-pps"].map(|name| media.base64_list(name)).concat();
    Ok(NalUnits::new(&sets, source_number, media.clock_hz))
}

/// The header of a NAL unit in pieces.
fn nal_header(head: &[u8; 3]) -> [u8; 2] {
    [head[0] & 0x81 | (head[2] & 0x3f) << 1, head[1]]
}
