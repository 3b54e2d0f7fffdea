//! AAC as LATM (RFC 6416 section 6): StreamMuxConfig announced, or in band (`cpresent=1`).
//!
//! ISO/IEC 14496-3 section 1.7.3. Read is what is sent: one program, one layer, `audioMuxVersion` 0, frames with their
//! lengths (`frameLengthType` 0).

use bytes::Bytes;
use vidar_core::limits::SAMPLE_BYTES_MAX;
use vidar_media::Track;
use vidar_media::codec::aac::{self, AudioSpecificConfig};

use super::aac::{Bits, frame_ticks};
use super::{Depacketize, Output, Unit};
use crate::rtsp::rtp::Packet;
use crate::rtsp::sdp::Media;

/// What a StreamMuxConfig says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MuxConfig {
    pub(super) asc: Vec<u8>,
    /// Payloads in an AudioMuxElement.
    pub(super) frame_count: u32,
}

pub(super) struct Latm {
    config_in_band: bool,
    mux: Option<MuxConfig>,
    track: Option<Track>,
    frame_ticks: u32,
    source_number: u64,
    clock_hz: u32,
    /// An AudioMuxElement in pieces, and its time.
    element: Vec<u8>,
    ticks: i64,
    skipping: bool,
}

impl Latm {
    pub(super) fn new(media: &Media, source_number: u64) -> Result<Self, String> {
        let mut latm = Self {
            config_in_band: media.number("cpresent", 1) != 0,
            mux: None,
            track: None,
            frame_ticks: 0,
            source_number,
            clock_hz: media.clock_hz,
            element: Vec::new(),
            ticks: 0,
            skipping: false,
        };
        if let Some(config) = media.hex("config") {
            let mux = MuxConfig::read(&mut Bits { data: &config, at: 0, end: usize::MAX });
            latm.set(mux.ok_or("MP4A-LATM config is not read")?)?;
        } else if !latm.config_in_band {
            return Err("MP4A-LATM without config".into());
        }
        Ok(latm)
    }

    fn set(&mut self, mux: MuxConfig) -> Result<(), String> {
        if self.mux.as_ref() == Some(&mux) {
            return Ok(());
        }
        let config = AudioSpecificConfig::parse(&mux.asc).map_err(|error| error.to_string())?;
        let track = aac::track(&mux.asc, self.source_number, self.clock_hz).map_err(|error| error.to_string())?;
        self.frame_ticks = frame_ticks(&config, self.clock_hz);
        (self.track, self.mux) = (Some(track), Some(mux));
        Ok(())
    }

    /// AudioMuxElement (ISO/IEC 14496-3 table 1.41).
    fn element(&mut self, element: &[u8]) -> Option<Vec<Vec<u8>>> {
        let mut r = Bits { data: element, at: 0, end: usize::MAX };
        if self.config_in_band && r.read(1)? == 0 {
            let mux = MuxConfig::read(&mut r)?;
            self.set(mux).ok()?;
        }
        let mux = self.mux.as_ref()?;
        let mut frames = Vec::new();
        for _ in 0..mux.frame_count {
            let mut len = 0;
            loop {
                let byte = r.read(8)?;
                len += byte as usize;
                if byte != 255 {
                    break;
                }
            }
            frames.push(take_bytes(&mut r, len)?);
        }
        Some(frames)
    }

    fn end_element(&mut self, out: &mut Output) {
        let element = std::mem::take(&mut self.element);
        let Some(frames) = self.element(&element) else {
            out.broken += 1;
            return;
        };
        let mut ticks = self.ticks;
        for data in frames.into_iter().filter(|data| !data.is_empty()) {
            out.units.push(Unit { ticks, duration_ticks: Some(self.frame_ticks), data: Bytes::from(data) });
            ticks = ticks.saturating_add(self.frame_ticks.into());
        }
    }
}

fn take_bytes(r: &mut Bits<'_>, len: usize) -> Option<Vec<u8>> {
    let (start, shift) = (r.at / 8, r.at % 8);
    r.at += len * 8;
    if shift == 0 {
        return r.data.get(start..start + len).map(<[u8]>::to_vec);
    }
    let bytes = r.data.get(start..start + len + 1)?;
    Some(bytes.windows(2).map(|pair| pair[0] << shift | pair[1] >> (8 - shift)).collect())
}

impl MuxConfig {
    /// StreamMuxConfig (ISO/IEC 14496-3 table 1.42).
    pub(super) fn read(r: &mut Bits<'_>) -> Option<Self> {
        let (version, same_framing) = (r.read(1)?, r.read(1)?);
        let (frame_count, program, layer) = (r.read(6)? + 1, r.read(4)?, r.read(3)?);
        if version != 0 || same_framing != 1 || program != 0 || layer != 0 {
            return None;
        }
        let start = r.at;
        skip_audio_specific_config(r)?;
        let end = std::mem::replace(&mut r.at, start);
        let mut asc = Vec::new();
        while r.at < end {
            let bits = (end - r.at).min(8) as u32;
            asc.push((r.read(bits)? << (8 - bits)) as u8);
        }
        // frameLengthType 0: each payload has its length. Then latmBufferFullness. GStreamer announces a config that
        // ends with the AudioSpecificConfig.
        if r.read(3).unwrap_or(0) != 0 {
            return None;
        }
        let _ = r.read(8);
        if r.read(1).unwrap_or(0) == 1 {
            // otherDataLenBits: other data follows the payloads, and is left there.
            while r.read(1)? == 1 {
                r.read(8)?;
            }
            r.read(8)?;
        }
        if r.read(1).unwrap_or(0) == 1 {
            r.read(8)?; // CRC
        }
        Some(Self { asc, frame_count })
    }
}

/// Finds the end of an AudioSpecificConfig: its length is written nowhere. General audio with a channel configuration
/// only.
fn skip_audio_specific_config(r: &mut Bits<'_>) -> Option<()> {
    let mut object_type = r.read(5)?;
    skip_rate(r)?;
    let channels = r.read(4)?;
    if matches!(object_type, 5 | 29) {
        skip_rate(r)?;
        object_type = r.read(5)?;
    }
    if !matches!(object_type, 1..=4) || channels == 0 {
        return None;
    }
    r.read(1)?; // frameLengthFlag
    if r.read(1)? == 1 {
        r.read(14)?; // coreCoderDelay
    }
    if r.read(1)? == 1 {
        return None; // extensionFlag
    }
    // The backward compatible extension has no place here, but GStreamer copies it (0x2b7: no frameLengthType 0).
    let before = r.at;
    if r.read(11) != Some(0x2b7) || r.read(5) != Some(5) {
        r.at = before;
    } else if r.read(1)? == 1 {
        skip_rate(r)?;
    }
    Some(())
}

fn skip_rate(r: &mut Bits<'_>) -> Option<()> {
    if r.read(4)? == 15 {
        r.read(24)?;
    }
    Some(())
}

impl Depacketize for Latm {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        if self.skipping {
            // The rest of an element whose beginning is missing.
            self.skipping = !packet.marker && self.ticks == ticks;
            self.ticks = ticks;
            if packet.marker || self.skipping {
                return;
            }
        }
        if !self.element.is_empty() && ticks != self.ticks {
            // No marker: the time changes.
            self.end_element(out);
        }
        self.ticks = ticks;
        if self.element.len() + packet.payload.len() > SAMPLE_BYTES_MAX {
            self.element.clear();
            out.broken += 1;
            return;
        }
        self.element.extend_from_slice(&packet.payload);
        if packet.marker {
            self.end_element(out);
        }
    }

    fn lost(&mut self) {
        // An element is nearly always one packet: only one that was begun is known to be damaged.
        self.skipping = !self.element.is_empty();
        self.element.clear();
    }

    fn flush(&mut self, out: &mut Output) {
        if !self.element.is_empty() {
            self.end_element(out);
        }
    }

    fn track(&self) -> Option<&Track> {
        self.track.as_ref()
    }
}
