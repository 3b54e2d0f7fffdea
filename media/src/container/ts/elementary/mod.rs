//! Elementary streams: payloads of PES packets in, samples out.

mod frames;
mod opaque;
mod opus;
mod pictures;

use bytes::Bytes;
use vidar_core::sample::SyncKind;
use vidar_core::track::Track;

use super::program::Reading;
use frames::Frames;
use opaque::Opaque;
use opus::OpusPackets;
use pictures::Pictures;

/// The payload of a PES packet.
#[derive(Debug, Clone)]
pub(super) struct Payload {
    /// On the program's timeline.
    pub(super) presentation: Option<i64>,
    pub(super) decode: Option<i64>,
    /// How many discontinuities came before it.
    pub(super) epoch: u32,
    /// A packet of it says that decoding can start here.
    pub(super) random_access: bool,
    pub(super) data: Bytes,
}

/// A sample, in ticks of the clock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unit {
    pub(super) presentation: i64,
    /// None: the stream carries none.
    pub(super) decode: Option<i64>,
    pub(super) duration: Option<u32>,
    pub(super) sync: SyncKind,
    pub(super) epoch: u32,
    pub(super) data: Bytes,
}

/// What an elementary stream gives, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Output {
    /// From here on, the stream is this.
    Track(Box<Track>),
    Unit(Unit),
}

/// The parser of an elementary stream.
#[derive(Debug)]
pub(super) enum Elementary {
    Pictures(Pictures),
    Frames(Frames),
    Opus(OpusPackets),
    Opaque(Opaque),
}

impl Elementary {
    pub(super) fn new(reading: Reading, pid: u16) -> Self {
        match reading {
            Reading::H264 => Self::Pictures(Pictures::new(pictures::Standard::H264, pid)),
            Reading::H265 => Self::Pictures(Pictures::new(pictures::Standard::H265, pid)),
            Reading::Adts => Self::Frames(Frames::new(frames::Format::Adts, pid)),
            Reading::Mpeg => Self::Frames(Frames::new(frames::Format::Mpeg, pid)),
            Reading::Opus(head) => Self::Opus(OpusPackets::new(head, pid)),
            Reading::Opaque(track) => Self::Opaque(Opaque::new(track.kind)),
        }
    }

    /// A PES packet with this PTS (33 bits) begins: what was before it may be complete.
    pub(super) fn begins(&mut self, pts: u64, out: &mut Vec<Output>) {
        match self {
            Self::Pictures(pictures) => pictures.begins(pts, out),
            Self::Opaque(opaque) => opaque.begins(pts, out),
            Self::Frames(_) | Self::Opus(_) => {}
        }
    }

    /// A PES packet is complete; `pts` is its PTS before unwrapping.
    pub(super) fn push(&mut self, payload: Payload, pts: Option<u64>, out: &mut Vec<Output>) {
        match self {
            Self::Pictures(pictures) => pictures.push(&payload, pts, out),
            Self::Frames(frames) => frames.push(&payload, out),
            Self::Opus(opus) => opus.push(&payload, out),
            Self::Opaque(opaque) => opaque.push(payload, pts, out),
        }
    }

    /// Packets were lost: what is not complete is dropped, but for pictures at which decoding starts. `whole`: all PES
    /// packets so far are complete.
    pub(super) fn lose(&mut self, whole: bool, out: &mut Vec<Output>) {
        match self {
            Self::Frames(frames) => frames.lose(),
            Self::Opus(_) => {}
            Self::Pictures(_) | Self::Opaque(_) if whole => self.finish(out),
            Self::Pictures(pictures) => pictures.lose(out),
            Self::Opaque(opaque) => opaque.lose(),
        }
    }

    /// The start of a payload whose end is lost holds samples.
    pub(super) fn keeps_partial(&self) -> bool {
        matches!(self, Self::Frames(_) | Self::Pictures(_))
    }

    /// Nothing follows.
    pub(super) fn finish(&mut self, out: &mut Vec<Output>) {
        match self {
            Self::Pictures(pictures) => pictures.finish(out),
            Self::Opaque(opaque) => opaque.finish(out),
            Self::Frames(_) | Self::Opus(_) => {}
        }
    }

    /// Bytes held back.
    pub(super) fn held_bytes(&self) -> usize {
        match self {
            Self::Pictures(pictures) => pictures.held_bytes(),
            Self::Frames(frames) => frames.held_bytes(),
            Self::Opus(_) => 0,
            Self::Opaque(opaque) => opaque.held_bytes(),
        }
    }
}
