//! G.711: nothing but the tracks.

use vidar_core::track::{AudioParams, Codec, Track};

use super::audio_track;

/// Which of the two laws.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Law {
    /// µ-law (PCMU).
    Mu,
    /// A-law (PCMA).
    A,
}

/// A track of G.711. A sample of it holds `channels` bytes for each instant.
#[must_use]
pub fn track(law: Law, sample_rate_hz: u32, channels: u16, source_number: u64, timescale_hz: u32) -> Track {
    let (codec, codec_id) = match law {
        Law::Mu => (Codec::G711Ulaw, "PCMU"),
        Law::A => (Codec::G711Alaw, "PCMA"),
    };
    audio_track(codec, codec_id, AudioParams { sample_rate_hz, channels, bits: 8 }, source_number, timescale_hz)
}
