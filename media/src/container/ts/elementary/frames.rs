//! Sound in frames that say their own length: AAC behind ADTS headers, MPEG audio. Frames may span PES packets.
//!
//! The time of a PES packet is that of the first frame that begins in it (ISO/IEC 13818-1 section 2.4.3.7); the frames
//! that follow are counted from there, so that rounding does not add up.

use std::collections::VecDeque;

use bytes::{Buf, Bytes, BytesMut};
use vidar_core::sample::SyncKind;
use vidar_core::track::Track;

use super::{Output, Payload, Unit};
use crate::codec::{CodecError, aac, mp3};
use crate::container::ts::pes::CLOCK_HZ;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Format {
    Adts,
    Mpeg,
}

/// What of a header is the same in all frames of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Params {
    Adts(aac::AudioSpecificConfig),
    Mpeg { layer: u8, sample_rate_hz: u32, channels: u16 },
}

#[derive(Debug, Clone, Copy)]
struct Header {
    params: Params,
    /// Bytes that are not stored.
    skip: usize,
    len: usize,
    samples: u32,
    sample_rate_hz: u32,
}

impl Format {
    const fn header_len(self) -> usize {
        match self {
            Self::Adts => aac::ADTS_HEADER_LEN,
            Self::Mpeg => mp3::HEADER_LEN,
        }
    }

    fn header(self, data: &[u8]) -> Result<Header, CodecError> {
        Ok(match self {
            Self::Adts => {
                let adts = aac::parse_adts(data)?;
                Header {
                    params: Params::Adts(adts.config),
                    skip: adts.header_len,
                    len: adts.frame_len,
                    samples: 1024 * u32::from(adts.blocks),
                    sample_rate_hz: adts.config.sample_rate_hz,
                }
            }
            Self::Mpeg => {
                let mp3::FrameHeader { layer, sample_rate_hz, channels, samples, frame_len } = mp3::parse_header(data)?;
                let params = Params::Mpeg { layer, sample_rate_hz, channels };
                Header { params, skip: 0, len: frame_len, samples, sample_rate_hz }
            }
        })
    }
}

#[derive(Debug)]
pub(in super::super) struct Frames {
    format: Format,
    pid: u16,
    buffer: BytesMut,
    /// Offset into the buffer, time and epoch of the payloads that carry a time and have no frame yet.
    marks: VecDeque<(usize, i64, u32)>,
    /// A time, its epoch, and the samples since.
    base: Option<(i64, u32, u64)>,
    params: Option<Params>,
    /// The last frame ended where this one begins.
    locked: bool,
}

impl Frames {
    pub(super) fn new(format: Format, pid: u16) -> Self {
        Self { format, pid, buffer: BytesMut::new(), marks: VecDeque::new(), base: None, params: None, locked: false }
    }

    pub(super) fn push(&mut self, payload: &Payload, out: &mut Vec<Output>) {
        if payload.data.is_empty() {
            return;
        }
        if let Some(time) = payload.presentation {
            self.marks.push_back((self.buffer.len(), time, payload.epoch));
        }
        self.buffer.extend_from_slice(&payload.data);
        let mut at = 0;
        while let Some((start, header)) = self.find(at) {
            at = start;
            if start + header.len > self.buffer.len() {
                break;
            }
            let frame = Bytes::copy_from_slice(&self.buffer[start..start + header.len]);
            self.frame(start, &header, &frame, out);
            at = start + header.len;
            self.locked = true;
        }
        self.consume(at);
    }

    /// Forgets what is before `at`, and before the next sync word after it.
    fn consume(&mut self, at: usize) {
        let rest = self.buffer[at..].iter().position(|byte| *byte == 0xff).unwrap_or(self.buffer.len() - at);
        if rest > 0 {
            self.locked = false;
        }
        self.buffer.advance(at + rest);
        self.marks.iter_mut().for_each(|mark| mark.0 = mark.0.saturating_sub(at + rest));
    }

    pub(super) fn lose(&mut self) {
        self.buffer.clear();
        self.marks.clear();
        self.base = None;
        self.locked = false;
    }

    pub(super) fn held_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// The next header at or after `at`. Out of lock, another of the same stream must follow its frame, as far as there
    /// are bytes to tell.
    fn find(&mut self, at: usize) -> Option<(usize, Header)> {
        let data = &self.buffer[..];
        for start in at..data.len() {
            let rest = &data[start..];
            if rest.len() < self.format.header_len() {
                return None;
            }
            if let Ok(header) = self.format.header(rest) {
                let next = rest.get(header.len..).unwrap_or_default();
                let follows = match next.get(..self.format.header_len()) {
                    Some(next) => self.format.header(next).is_ok_and(|next| next.params == header.params),
                    None => next.first().is_none_or(|byte| *byte == 0xff),
                };
                if self.locked || follows {
                    return Some((start, header));
                }
            }
            self.locked = false;
        }
        None
    }

    fn frame(&mut self, start: usize, header: &Header, frame: &Bytes, out: &mut Vec<Output>) {
        while let Some((_, time, epoch)) = self.marks.front().copied().filter(|mark| mark.0 <= start) {
            self.marks.pop_front();
            self.base = Some((time, epoch, 0));
        }
        let Some((time, epoch, samples)) = &mut self.base else { return };
        let at = |samples: u64| {
            // To the nearest tick.
            let rate = u128::from(header.sample_rate_hz);
            let ticks = (u128::from(samples) * u128::from(CLOCK_HZ) + rate / 2) / rate;
            time.saturating_add(i64::try_from(ticks).unwrap_or(i64::MAX))
        };
        let (presentation, epoch) = (at(*samples), *epoch);
        *samples += u64::from(header.samples);
        let duration = u32::try_from(at(*samples) - presentation).ok();
        let data = frame.slice(header.skip..);
        if data.is_empty() {
            return;
        }
        if self.params != Some(header.params) {
            let Ok(track) = self.track(header.params, &data) else { return };
            self.params = Some(header.params);
            out.push(Output::Track(Box::new(track)));
        }
        let sync = SyncKind::Sync;
        out.push(Output::Unit(Unit { presentation, decode: Some(presentation), duration, sync, epoch, data }));
    }

    fn track(&self, params: Params, data: &[u8]) -> Result<Track, CodecError> {
        let (pid, hz) = (self.pid.into(), CLOCK_HZ);
        match params {
            Params::Adts(config) => aac::track(&aac::config_of_adts(&config, data)?, pid, hz),
            Params::Mpeg { layer, sample_rate_hz, channels } => {
                let header = mp3::FrameHeader { layer, sample_rate_hz, channels, samples: 0, frame_len: 0 };
                Ok(mp3::track(&header, pid, hz))
            }
        }
    }
}
