//! Sound that needs no putting together: G.711 and linear PCM (RFC 3551 sections 4.5.10, 4.5.14).

use bytes::Bytes;
use vidar_media::codec::g711::{self, Law};
use vidar_media::{AudioParams, Codec, PcmFormat, Track};

use super::{Depacketize, Output, Unit};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

/// Packets are samples of the track, whatever their length.
pub(super) struct Frames {
    track: Track,
    /// Of one instant, all channels.
    frame_len: usize,
}

impl Frames {
    pub(super) fn g711(media: &Media, source_number: u64) -> Self {
        let law = if media.encoding == "PCMU" { Law::Mu } else { Law::A };
        let track = g711::track(law, media.clock_hz, media.channels, source_number, media.clock_hz);
        Self { track, frame_len: usize::from(media.channels.max(1)) }
    }

    /// L8, L16, L24: most significant byte first; L8 is unsigned.
    pub(super) fn linear(media: &Media, source_number: u64) -> Result<Self, String> {
        let bits: u8 = media.encoding[1..].parse().map_err(|_| "linear PCM of an unknown width")?;
        let format = PcmFormat { bits, big_endian: bits > 8, float: false, signed: bits > 8 };
        let audio = AudioParams { sample_rate_hz: media.clock_hz, channels: media.channels, bits: bits.into() };
        let like = g711::track(Law::Mu, media.clock_hz, media.channels, source_number, media.clock_hz);
        let codec_id = media.encoding.clone();
        let track = Track { codec: Codec::Pcm(format), codec_id, audio: Some(audio), ..like };
        Ok(Self { track, frame_len: usize::from(bits / 8) * usize::from(media.channels.max(1)) })
    }
}

impl Depacketize for Frames {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        let count = packet.payload.len() / self.frame_len;
        if count == 0 {
            out.broken += u32::from(!packet.payload.is_empty());
            return;
        }
        let data = Bytes::copy_from_slice(&packet.payload[..count * self.frame_len]);
        out.units.push(Unit { ticks, duration_ticks: u32::try_from(count).ok(), data });
    }

    fn lost(&mut self) {}

    fn flush(&mut self, _: &mut Output) {}

    fn track(&self) -> Option<&Track> {
        Some(&self.track)
    }
}
