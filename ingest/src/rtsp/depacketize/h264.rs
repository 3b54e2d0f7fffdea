//! H.264 (RFC 6184): single NAL units, aggregates (STAP-A, STAP-B) and fragments (FU-A, FU-B).

use bytes::Bytes;
use vidar_media::Track;
use vidar_media::codec::h264::{self, nal_type};

use super::Output;
use super::nal::{Assembler, NalKind, NalUnits, beginning};
use crate::rtsp::sdp::Media;

const STAP_A: u8 = 24;
const STAP_B: u8 = 25;
const FU_A: u8 = 28;
const FU_B: u8 = 29;

pub(super) struct Kind;

impl NalKind for Kind {
    const HEADER_BYTES: usize = 1;

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

    fn first_nal(payload: &[u8]) -> Vec<u8> {
        match payload[0] & 0x1f {
            STAP_A => beginning(payload, 3),
            STAP_B => beginning(payload, 5),
            kind @ (FU_A | FU_B) => match payload.get(1) {
                Some(head) if head & 0x80 != 0 => {
                    let data = if kind == FU_A { 2 } else { 4 };
                    [vec![payload[0] & 0xe0 | head & 0x1f], beginning(payload, data)].concat()
                }
                _ => Vec::new(),
            },
            _ => beginning(payload, 0),
        }
    }

    fn payload(assembler: &mut Assembler<Self>, payload: &Bytes, out: &mut Output) {
        match payload[0] & 0x1f {
            STAP_A => assembler.aggregate(&payload[1..], out),
            // After a decoding order number of 2 bytes.
            STAP_B => assembler.aggregate(payload.get(3..).unwrap_or_default(), out),
            FU_A => fragment(assembler, payload, 2, out),
            FU_B => fragment(assembler, payload, 4, out),
            26 | 27 | 30 | 31 => assembler.break_unit(out),
            _ => assembler.nal(payload, out),
        }
    }
}

fn fragment(assembler: &mut Assembler<Kind>, payload: &[u8], data_at: usize, out: &mut Output) {
    let Some((head, data)) = payload.split_at_checked(data_at) else {
        return assembler.break_unit(out);
    };
    // Bit 5 is reserved; some cameras set it. Some change the type within a NAL unit: the first holds.
    let (first, last) = (head[1] & 0x80 != 0, head[1] & 0x40 != 0);
    assembler.piece(&[head[0] & 0xe0 | head[1] & 0x1f], data, first, last, out);
}

/// Refuses interleaved mode (packetization-mode 2): nobody sends it.
pub(super) fn new(media: &Media, source_number: u64) -> Result<NalUnits<Kind>, String> {
    if media.number("packetization-mode", 0) > 1 {
        return Err("H.264 packetization-mode 2 is not read".into());
    }
    let sets = media.base64_list("sprop-parameter-sets");
    Ok(NalUnits::new(&sets, source_number, media.clock_hz))
}
