//! AAC in MPEG-4 elementary streams (RFC 3640): access unit headers, several units in a packet, units in pieces.

use bytes::Bytes;
use vidar_core::limits::SAMPLE_BYTES_MAX;
use vidar_media::Track;
use vidar_media::codec::aac::{self, AudioSpecificConfig};

use super::{Depacketize, Output, Unit};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

/// Lengths of the fields of an access unit header, in bits (RFC 3640 section 3.2.1.1 and 4.1).
#[derive(Debug, Clone, Copy, Default)]
struct HeaderFields {
    size: u32,
    index: u32,
    index_delta: u32,
    composition_delta: u32,
    decoding_delta: u32,
    random_access: bool,
    stream_state: u32,
    auxiliary_size: u32,
    constant_size: u32,
}

pub(super) struct Aac {
    track: Track,
    fields: HeaderFields,
    /// Of an access unit, in ticks of the RTP clock.
    frame_ticks: u32,
    partial: Option<Partial>,
}

/// An access unit in pieces.
struct Partial {
    ticks: i64,
    size: usize,
    data: Vec<u8>,
}

impl Aac {
    pub(super) fn new(media: &Media, source_number: u64) -> Result<Self, String> {
        let mode = media.parameter("mode").unwrap_or("AAC-hbr").to_ascii_lowercase();
        let preset = match &mode[..] {
            "aac-hbr" => (13, 3),
            "aac-lbr" => (6, 2),
            "generic" => (0, 0),
            other => return Err(format!("mpeg4-generic mode {other} is not read")),
        };
        let fields = HeaderFields {
            size: media.number("sizelength", preset.0),
            index: media.number("indexlength", preset.1),
            index_delta: media.number("indexdeltalength", preset.1),
            composition_delta: media.number("ctsdeltalength", 0),
            decoding_delta: media.number("dtsdeltalength", 0),
            random_access: media.number("randomaccessindication", 0) == 1,
            stream_state: media.number("streamstateindication", 0),
            auxiliary_size: media.number("auxiliarydatasizelength", 0),
            constant_size: media.number("constantsize", 0),
        };
        let lengths = [fields.size, fields.index, fields.index_delta, fields.composition_delta, fields.decoding_delta];
        if lengths.iter().chain([&fields.stream_state, &fields.auxiliary_size]).any(|bits| *bits > 32) {
            return Err("mpeg4-generic with header fields over 32 bits".into());
        }
        let asc = media.hex("config").ok_or("mpeg4-generic without config")?;
        let config = AudioSpecificConfig::parse(&asc).map_err(|error| format!("mpeg4-generic config: {error}"))?;
        let track = aac::track(&asc, source_number, media.clock_hz).map_err(|error| error.to_string())?;
        let frame_ticks = match media.number("constantduration", 0) {
            0 => frame_ticks(&config, media.clock_hz),
            declared => declared,
        };
        Ok(Self { track, fields, frame_ticks, partial: None })
    }

    /// Header section: sizes of the access units in the packet, with their times.
    fn headers(&self, payload: &[u8], ticks: i64) -> Option<(Vec<(i64, usize)>, usize)> {
        let fields = &self.fields;
        let mut units = Vec::new();
        let mut at = 0;
        let has_headers = fields.size > 0 || fields.index > 0 || fields.index_delta > 0;
        if has_headers {
            let bits = usize::from(u16::from_be_bytes(*payload.first_chunk()?));
            at = 2 + bits.div_ceil(8);
            let mut reader = Bits { data: payload.get(2..at)?, at: 0, end: bits };
            let mut unit_index = 0_u32;
            while reader.at < reader.end {
                let before = reader.at;
                let (size, delta) = self.header(&mut reader, units.is_empty())?;
                // Fields of no bits would make headers without end.
                (reader.at > before).then_some(())?;
                unit_index = if units.is_empty() { 0 } else { unit_index.checked_add(delta)?.checked_add(1)? };
                let offset = i64::from(unit_index) * i64::from(self.frame_ticks);
                units.push((ticks.saturating_add(offset), size));
            }
        }
        if fields.auxiliary_size > 0 {
            let mut reader = Bits { data: payload.get(at..)?, at: 0, end: usize::MAX };
            let bits = reader.read(fields.auxiliary_size)? as usize;
            at = at.checked_add((fields.auxiliary_size as usize).checked_add(bits)?.div_ceil(8))?;
        }
        if !has_headers {
            let size = fields.constant_size as usize;
            let rest = payload.len().checked_sub(at)?;
            let count = rest.checked_div(size).map_or(1, |count| count.max(1));
            let size = if size == 0 { rest } else { size };
            let time = |n: usize| ticks.saturating_add(n as i64 * i64::from(self.frame_ticks));
            units.extend((0..count).map(|n| (time(n), size)));
        }
        Some((units, at))
    }

    /// One access unit header: its size and index delta.
    fn header(&self, reader: &mut Bits<'_>, first: bool) -> Option<(usize, u32)> {
        let fields = &self.fields;
        let size = if fields.size > 0 { reader.read(fields.size)? } else { fields.constant_size };
        let delta = reader.read(if first { fields.index } else { fields.index_delta })?;
        for bits in [fields.composition_delta, fields.decoding_delta] {
            if bits > 0 && reader.read(1)? == 1 {
                reader.read(bits)?;
            }
        }
        reader.read(u32::from(fields.random_access))?;
        reader.read(fields.stream_state)?;
        Some((size as usize, delta))
    }

    fn continue_partial(&mut self, mut partial: Partial, payload: &[u8], out: &mut Output) {
        partial.data.extend_from_slice(payload);
        if partial.data.len() < partial.size {
            self.partial = Some(partial);
        } else if partial.data.len() == partial.size {
            self.give(partial.ticks, &partial.data, out);
        } else {
            out.broken += 1;
        }
    }

    fn give(&self, ticks: i64, data: &[u8], out: &mut Output) {
        // Some cameras leave ADTS headers in place.
        let raw = match aac::parse_adts(data) {
            Ok(adts) if adts.frame_len == data.len() => &data[adts.header_len..],
            _ => data,
        };
        if raw.is_empty() {
            return;
        }
        out.units.push(Unit { ticks, duration_ticks: Some(self.frame_ticks), data: Bytes::copy_from_slice(raw) });
    }
}

/// Ticks of a frame: its length counts at the core's rate.
pub(super) fn frame_ticks(config: &AudioSpecificConfig, clock_hz: u32) -> u32 {
    let ticks = u64::from(config.frame_len) * u64::from(clock_hz) / u64::from(config.sample_rate_hz.max(1));
    u32::try_from(ticks).unwrap_or(u32::MAX)
}

impl Depacketize for Aac {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        let payload = &packet.payload;
        let Some((units, mut at)) = self.headers(payload, ticks) else {
            out.broken += 1;
            return;
        };
        if let Some(partial) = self.partial.take() {
            let piece = payload.get(at..).unwrap_or_default();
            // A piece has the header of the whole and its time.
            if partial.ticks == ticks && units.len() == 1 {
                return self.continue_partial(partial, piece, out);
            }
            out.broken += 1;
        }
        for (ticks, size) in &units {
            if *size > SAMPLE_BYTES_MAX {
                out.broken += 1;
                return;
            }
            let rest = payload.get(at..).unwrap_or_default();
            match rest.get(..*size) {
                Some(data) => self.give(*ticks, data, out),
                None if units.len() == 1 && !packet.marker => {
                    self.partial = Some(Partial { ticks: *ticks, size: *size, data: rest.to_vec() });
                }
                None => {
                    out.broken += 1;
                    return;
                }
            }
            at += size;
        }
    }

    fn lost(&mut self) {
        self.partial = None;
    }

    fn flush(&mut self, out: &mut Output) {
        out.broken += u32::from(self.partial.take().is_some());
    }

    fn track(&self) -> Option<&Track> {
        Some(&self.track)
    }
}

/// Bits, most significant first.
pub(super) struct Bits<'a> {
    pub(super) data: &'a [u8],
    pub(super) at: usize,
    /// In bits; reading also ends with `data`.
    pub(super) end: usize,
}

impl Bits<'_> {
    pub(super) fn read(&mut self, count: u32) -> Option<u32> {
        if self.at + count as usize > self.end {
            return None;
        }
        let mut value = 0_u64;
        for _ in 0..count {
            let byte = self.data.get(self.at / 8)?;
            value = value << 1 | u64::from(byte >> (7 - self.at % 8) & 1);
            self.at += 1;
        }
        Some(value as u32)
    }
}
