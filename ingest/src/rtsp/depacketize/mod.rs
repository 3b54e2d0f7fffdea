//! RTP payloads to samples, sans-I/O: a file for each payload format.
//!
//! A depacketizer is fed packets of one source in order, with their times unwrapped, and told where packets are
//! missing. It gives out whole access units only: what a loss damaged is dropped, what follows is kept.
//!
//! NAL units stand behind lengths of 4 bytes, without access unit delimiters; parameter sets stay where they came.

mod aac;
mod g711;
mod h264;
mod h265;
mod latm;
mod mpa;
mod nal;
mod opus;
#[cfg(test)]
mod tests;

use bytes::Bytes;
use vidar_media::Track;

use super::rtp::Packet;
use super::sdp::Media;

/// A whole access unit, or audio frame.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// RTP time, unwrapped.
    pub(crate) ticks: i64,
    /// Where the payload says so.
    pub(crate) duration_ticks: Option<u32>,
    pub(crate) data: Bytes,
}

/// What depacketizing gives.
#[derive(Debug, Default)]
pub(crate) struct Output {
    pub(crate) units: Vec<Unit>,
    /// Packets, or parts of them, that were dropped because they made no sense or lacked a part.
    pub(crate) broken: u32,
}

/// One payload format.
pub(crate) trait Depacketize: Send {
    /// Takes the next packet in order.
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output);

    /// Packets are missing here.
    fn lost(&mut self);

    /// Bytes of an access unit that is not complete.
    fn held_bytes(&self) -> usize {
        0
    }

    /// No more will come: gives out what is whole.
    fn flush(&mut self, out: &mut Output);

    /// The track, once enough of it was seen.
    fn track(&self) -> Option<&Track>;
}

/// The depacketizer of a media section. The reason if there is none.
pub(crate) fn choose(media: &Media) -> Result<Box<dyn Depacketize>, String> {
    let number = media.index as u64 + 1;
    Ok(match &media.encoding[..] {
        "H264" => Box::new(h264::new(media, number)?),
        "H265" => Box::new(h265::new(media, number)?),
        "MPEG4-GENERIC" => Box::new(aac::Aac::new(media, number)?),
        "MP4A-LATM" => Box::new(latm::Latm::new(media, number)?),
        "OPUS" | "MULTIOPUS" => Box::new(opus::Opus::new(media, number)?),
        "PCMU" | "PCMA" => Box::new(g711::Frames::g711(media, number)),
        "L8" | "L16" | "L24" => Box::new(g711::Frames::linear(media, number)?),
        "MPA" => Box::new(mpa::Mpa::new(media, number)),
        "" => return Err("a media section without a payload format".into()),
        other => return Err(format!("payload format {other} is not read")),
    })
}
