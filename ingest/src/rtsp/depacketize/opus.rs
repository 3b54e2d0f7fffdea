//! Opus (RFC 7587): a packet is a frame. The clock is always 48 kHz.

use bytes::Bytes;
use vidar_media::Track;
use vidar_media::codec::opus;

use super::{Depacketize, Output, Unit};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

pub(super) struct Opus {
    track: Track,
}

impl Opus {
    /// `rtpmap` always says 2 channels; `sprop-stereo=1` says that two are sent. What decodes to 2 plays both.
    pub(super) fn new(media: &Media, source_number: u64) -> Result<Self, String> {
        let channels = if media.encoding == "MULTIOPUS" { media.channels } else { 2 };
        let mono = media.encoding == "OPUS" && media.parameter("sprop-stereo") == Some("0");
        let channels = if mono { 1 } else { u8::try_from(channels).unwrap_or(0) };
        let track = opus::track(channels, source_number, media.clock_hz).map_err(|error| error.to_string())?;
        Ok(Self { track })
    }
}

impl Depacketize for Opus {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        let Some(samples) = opus::packet_duration_48k(&packet.payload) else {
            out.broken += u32::from(!packet.payload.is_empty());
            return;
        };
        let duration = u64::from(samples) * u64::from(self.track.timescale_hz) / 48_000;
        let data = Bytes::copy_from_slice(&packet.payload);
        out.units.push(Unit { ticks, duration_ticks: u32::try_from(duration).ok(), data });
    }

    fn lost(&mut self) {}

    fn flush(&mut self, _: &mut Output) {}

    fn track(&self) -> Option<&Track> {
        Some(&self.track)
    }
}
