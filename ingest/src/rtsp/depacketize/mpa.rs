//! MPEG audio, layers 1 to 3 (RFC 2250 section 3.5): whole frames behind a header of 4 bytes, or a frame in pieces.

use bytes::Bytes;
use vidar_media::Track;
use vidar_media::codec::mp3::{self, FrameHeader};

use super::{Depacketize, Output, Unit};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

pub(super) struct Mpa {
    track: Option<Track>,
    source_number: u64,
    clock_hz: u32,
    partial: Vec<u8>,
    ticks: i64,
}

impl Mpa {
    pub(super) fn new(media: &Media, source_number: u64) -> Self {
        Self { track: None, source_number, clock_hz: media.clock_hz, partial: Vec::new(), ticks: 0 }
    }

    fn frames(&mut self, mut data: &[u8], mut ticks: i64, out: &mut Output) {
        while !data.is_empty() {
            let Ok(header) = mp3::parse_header(data) else {
                out.broken += 1;
                return;
            };
            let Some((frame, rest)) = data.split_at_checked(header.frame_len) else {
                (self.partial, self.ticks) = (data.to_vec(), ticks);
                return;
            };
            ticks = ticks.saturating_add(self.give(frame, &header, ticks, out).into());
            data = rest;
        }
    }

    fn give(&mut self, frame: &[u8], header: &FrameHeader, ticks: i64, out: &mut Output) -> u32 {
        if self.track.is_none() {
            self.track = Some(mp3::track(header, self.source_number, self.clock_hz));
        }
        let duration = u64::from(header.samples) * u64::from(self.clock_hz) / u64::from(header.sample_rate_hz.max(1));
        let duration = u32::try_from(duration).unwrap_or(u32::MAX);
        out.units.push(Unit { ticks, duration_ticks: Some(duration), data: Bytes::copy_from_slice(frame) });
        duration
    }
}

impl Depacketize for Mpa {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        let Some((head, data)) = packet.payload.split_first_chunk::<4>() else {
            out.broken += 1;
            return;
        };
        let offset = usize::from(u16::from_be_bytes([head[2], head[3]]));
        let partial = std::mem::take(&mut self.partial);
        if offset == 0 {
            out.broken += u32::from(!partial.is_empty());
            self.frames(data, ticks, out);
        } else if offset == partial.len() {
            let whole = [&partial[..], data].concat();
            let ticks = self.ticks;
            self.frames(&whole, ticks, out);
        } else {
            out.broken += 1;
        }
    }

    fn lost(&mut self) {
        self.partial.clear();
    }

    fn flush(&mut self, out: &mut Output) {
        out.broken += u32::from(!std::mem::take(&mut self.partial).is_empty());
    }

    fn track(&self) -> Option<&Track> {
        self.track.as_ref()
    }
}
