//! AAC: AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1) and ADTS headers (section 1.A.2.2).

use bytes::Bytes;
use vidar_core::track::{AudioParams, Codec, Track};

use super::bits::{BitReader, BitWriter};
use super::{CodecError, audio_track};

/// Rates by `samplingFrequencyIndex` (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 13] = [96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350];
const ESCAPE_RATE: u32 = 15;
const SBR: u8 = 5;
const ER_BSAC: u8 = 22;
const PS: u8 = 29;

/// What an AudioSpecificConfig says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct AudioSpecificConfig {
    /// `audioObjectType` of the core: 2 is AAC LC. Never that of SBR or PS.
    pub object_type: u8,
    /// Rate of the core, in Hz: what frame lengths count in.
    pub sample_rate_hz: u32,
    /// Channels of the core. 0 if a program config element says it within the frames.
    pub channels: u16,
    /// Samples of a frame for each channel, at the core's rate: 1024, 960, 512 or 480.
    pub frame_len: u16,
    /// Spectral band replication is signalled.
    pub sbr: bool,
    /// Parametric stereo is signalled.
    pub ps: bool,
    /// Rate after SBR, in Hz, where signalled.
    pub extension_rate_hz: Option<u32>,
}

impl AudioSpecificConfig {
    /// AAC LC without extensions.
    #[must_use]
    pub const fn lc(sample_rate_hz: u32, channels: u16) -> Self {
        Self {
            object_type: 2,
            sample_rate_hz,
            channels,
            frame_len: 1024,
            sbr: false,
            ps: false,
            extension_rate_hz: None,
        }
    }

    /// Reads a config: extensions signalled before the core (object types 5 and 29) or after it (sync word 0x2b7).
    ///
    /// # Errors
    /// If it ends within a field needed, or the rate is 0 or reserved.
    pub fn parse(data: &[u8]) -> Result<Self, CodecError> {
        Self::read(&mut BitReader::new(data))
    }

    pub(super) fn read(r: &mut BitReader<'_>) -> Result<Self, CodecError> {
        let mut object_type = read_object_type(r)?;
        let sample_rate_hz = read_rate(r)?;
        let channel_config = r.byte(4)?;
        let (sbr, ps) = (matches!(object_type, SBR | PS), object_type == PS);
        let mut extension_rate_hz = None;
        if sbr {
            extension_rate_hz = Some(read_rate(r)?);
            object_type = read_object_type(r)?;
            if object_type == ER_BSAC {
                r.skip(4)?;
            }
        }
        let mut config = Self {
            object_type,
            sample_rate_hz,
            channels: channels_of(channel_config),
            frame_len: 1024,
            sbr,
            ps,
            extension_rate_hz,
        };
        // Nothing after this is needed: seen are configs that end here.
        if matches!(object_type, 1..=4 | 6 | 7 | 17 | 19..=23) {
            let _ = config.read_general_audio(r, channel_config);
        } else if object_type == 39 {
            config.frame_len = if r.flag().unwrap_or(false) { 480 } else { 512 };
        }
        Ok(config)
    }

    /// GASpecificConfig (ISO/IEC 14496-3 section 4.4.1), then the backward compatible extension.
    fn read_general_audio(&mut self, r: &mut BitReader<'_>, channel_config: u8) -> Result<(), CodecError> {
        let short = r.flag()?;
        self.frame_len = match (short, self.object_type) {
            (false, 23) => 512,
            (true, 23) => 480,
            (false, _) => 1024,
            (true, _) => 960,
        };
        if r.flag()? {
            r.skip(14)?;
        }
        let extension = r.flag()?;
        if channel_config == 0 {
            self.channels = read_program_config(r)?;
        }
        if matches!(self.object_type, 6 | 20) {
            r.skip(3)?;
        }
        if extension {
            if self.object_type == ER_BSAC {
                r.skip(16)?;
            }
            if matches!(self.object_type, 17 | 19 | 20 | 23) {
                r.skip(3)?;
            }
            r.skip(1)?;
        }
        if self.object_type >= 17 {
            r.skip(2)?;
        }
        if self.sbr || r.remaining() < 16 || r.bits(11)? != 0x2b7 || read_object_type(r)? != SBR || !r.flag()? {
            return Ok(());
        }
        let rate = read_rate(r)?;
        (self.sbr, self.extension_rate_hz) = (true, Some(rate));
        if r.remaining() >= 12 && r.bits(11)? == 0x548 {
            self.ps = r.flag()?;
        }
        Ok(())
    }

    /// The config as bytes: extensions are signalled before the core.
    ///
    /// # Errors
    /// If the channels have no channel configuration, or the object type is no general audio type.
    pub fn encode(&self) -> Result<Bytes, CodecError> {
        if !matches!(self.object_type, 1..=4 | 7 | 17 | 19 | 21..=23) {
            return Err(CodecError::new(format!("AAC object type {} has no plain config", self.object_type)));
        }
        let channel_config = match self.channels {
            1..=6 => self.channels as u8,
            8 => 7,
            7 => 11,
            other => return Err(CodecError::new(format!("{other} channels have no channel configuration"))),
        };
        let mut w = BitWriter::default();
        let outer = if self.ps {
            PS
        } else if self.sbr {
            SBR
        } else {
            self.object_type
        };
        w.bits(outer.into(), 5);
        write_rate(&mut w, self.sample_rate_hz);
        w.bits(channel_config.into(), 4);
        if self.sbr || self.ps {
            write_rate(&mut w, self.extension_rate_hz.unwrap_or(self.sample_rate_hz.saturating_mul(2)));
            w.bits(self.object_type.into(), 5);
            if self.object_type == ER_BSAC {
                w.bits(channel_config.into(), 4);
            }
        }
        w.bits(u32::from(matches!(self.frame_len, 960 | 480)), 1).bits(0, 2);
        if self.object_type >= 17 {
            w.bits(0, 2);
        }
        w.align();
        Ok(w.into_vec().into())
    }
}

fn read_object_type(r: &mut BitReader<'_>) -> Result<u8, CodecError> {
    match r.byte(5)? {
        31 => Ok(r.byte(6)? + 32),
        object_type => Ok(object_type),
    }
}

fn read_rate(r: &mut BitReader<'_>) -> Result<u32, CodecError> {
    let index = r.bits(4)?;
    let rate = if index == ESCAPE_RATE { r.bits(24)? } else { RATES.get(index as usize).copied().unwrap_or(0) };
    if rate == 0 { Err(CodecError::new(format!("AAC sampling rate index {index}"))) } else { Ok(rate) }
}

fn write_rate(w: &mut BitWriter, rate: u32) {
    match RATES.iter().position(|known| *known == rate) {
        Some(index) => w.bits(index as u32, 4),
        None => w.bits(ESCAPE_RATE, 4).bits(rate.min(0xff_ffff), 24),
    };
}

/// ISO/IEC 14496-3 table 1.19.
fn channels_of(channel_config: u8) -> u16 {
    match channel_config {
        1..=6 => channel_config.into(),
        7 | 12 | 14 => 8,
        11 => 7,
        13 => 24,
        _ => 0,
    }
}

/// Channels of a `program_config_element` (ISO/IEC 14496-3 section 4.4.1.1).
fn read_program_config(r: &mut BitReader<'_>) -> Result<u16, CodecError> {
    r.skip(10)?;
    let [front, side, back] = [r.bits(4)?, r.bits(4)?, r.bits(4)?];
    let (low, data, coupling) = (r.bits(2)?, r.bits(3)?, r.bits(4)?);
    for bits in [4, 4, 3] {
        if r.flag()? {
            r.skip(bits)?;
        }
    }
    let mut channels = low as u16;
    for _ in 0..front + side + back {
        channels += if r.flag()? { 2 } else { 1 };
        r.skip(4)?;
    }
    r.skip((low * 4 + data * 4 + coupling * 5) as usize)?;
    r.align();
    let comment = r.bits(8)? as usize;
    r.skip(comment * 8)?;
    Ok(channels)
}

/// An ADTS header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Adts {
    /// Bytes before the raw data: 7, or 9 with a CRC.
    pub header_len: usize,
    /// Bytes of header and raw data.
    pub frame_len: usize,
    /// Raw data blocks in the frame, 1024 samples each. They have no lengths of their own: more than one is rare, and
    /// kept as one sample.
    pub blocks: u8,
    /// What it says of the stream. `channels` is 0 for channel configuration 0.
    pub config: AudioSpecificConfig,
}

/// Bytes needed to read a header.
pub const ADTS_HEADER_LEN: usize = 7;

/// Reads the header at the start of `data`.
///
/// # Errors
/// If it is shorter than 7 bytes, has no sync word, or says what cannot be.
pub fn parse_adts(data: &[u8]) -> Result<Adts, CodecError> {
    let mut r = BitReader::new(data);
    let (sync, layer) = (r.bits(12)?, (r.skip(1)?, r.bits(2)?).1);
    if sync != 0xfff || layer != 0 {
        return Err(CodecError::new("no ADTS sync word"));
    }
    let header_len = if r.flag()? { 7 } else { 9 };
    let object_type = r.byte(2)? + 1;
    let rate = RATES.get(r.bits(4)? as usize).copied();
    r.skip(1)?;
    let channel_config = r.byte(3)?;
    r.skip(4)?;
    let frame_len = r.bits(13)? as usize;
    r.skip(11)?;
    let blocks = r.byte(2)? + 1;
    let Some(rate) = rate else { return Err(CodecError::new("ADTS with a reserved sampling rate")) };
    if frame_len < header_len {
        return Err(CodecError::new(format!("ADTS frame of {frame_len} bytes, shorter than its header")));
    }
    let config = AudioSpecificConfig { object_type, ..AudioSpecificConfig::lc(rate, channels_of(channel_config)) };
    Ok(Adts { header_len, frame_len, blocks, config })
}

/// The AudioSpecificConfig of an ADTS frame, as bytes. With channel configuration 0 the frame's own program config
/// element goes into it, if `raw` begins with one.
///
/// # Errors
/// If there is none.
pub fn config_of_adts(config: &AudioSpecificConfig, raw: &[u8]) -> Result<Bytes, CodecError> {
    if config.channels != 0 {
        return config.encode();
    }
    let mut r = BitReader::new(raw);
    if r.bits(3)? != 5 {
        return Err(CodecError::new("no channel configuration, and no program config element"));
    }
    let mut w = BitWriter::default();
    w.bits(config.object_type.into(), 5);
    write_rate(&mut w, config.sample_rate_hz);
    w.bits(0, 4 + 3);
    copy_program_config(&mut r, &mut w)?;
    Ok(w.into_vec().into())
}

/// The element stands at another bit than it did, so that its alignment changes.
fn copy_program_config(r: &mut BitReader<'_>, w: &mut BitWriter) -> Result<(), CodecError> {
    let mut copy = |count: usize| -> Result<u32, CodecError> {
        let value = r.bits(count)?;
        w.bits(value, count);
        Ok(value)
    };
    copy(10)?;
    let elements = copy(4)? + copy(4)? + copy(4)?;
    let (low, data, coupling) = (copy(2)?, copy(3)?, copy(4)?);
    for bits in [4, 4, 3] {
        if copy(1)? == 1 {
            copy(bits)?;
        }
    }
    for bits in [(elements, 5), (low + data, 4), (coupling, 5)] {
        for _ in 0..bits.0 {
            copy(bits.1)?;
        }
    }
    r.align();
    w.align();
    let comment = r.bits(8)?;
    w.bits(comment, 8);
    for _ in 0..comment {
        w.bits(r.bits(8)?, 8);
    }
    Ok(())
}

/// A track of raw access units.
///
/// # Errors
/// If `asc` does not parse.
pub fn track(asc: &[u8], source_number: u64, timescale_hz: u32) -> Result<Track, CodecError> {
    let config = AudioSpecificConfig::parse(asc)?;
    let audio = AudioParams { sample_rate_hz: config.sample_rate_hz, channels: config.channels, bits: 16 };
    let ticks = u64::from(config.frame_len) * u64::from(timescale_hz);
    let exact = ticks.is_multiple_of(config.sample_rate_hz.into());
    let ticks = u32::try_from(ticks / u64::from(config.sample_rate_hz)).ok();
    Ok(Track {
        codec_private: Bytes::copy_from_slice(asc),
        default_duration_ticks: ticks.filter(|_| exact),
        ..audio_track(Codec::Aac, "AAC", audio, source_number, timescale_hz)
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn configs_as_encoders_write_them() {
        let parse = |bytes: &[u8]| AudioSpecificConfig::parse(bytes).unwrap();
        assert_eq!(parse(&[0x12, 0x10]), AudioSpecificConfig::lc(44_100, 2));
        // ffmpeg appends a "no SBR" extension: 0x2b7, 5, 0.
        assert_eq!(parse(&[0x11, 0x88, 0x56, 0xe5, 0x00]), AudioSpecificConfig::lc(48_000, 1));
        // HE-AAC, signalled after the core, at 24 kHz for 48 kHz.
        let he =
            AudioSpecificConfig { sbr: true, extension_rate_hz: Some(48_000), ..AudioSpecificConfig::lc(24_000, 2) };
        assert_eq!(parse(&[0x13, 0x10, 0x56, 0xe5, 0x98]), he);
        assert_eq!(parse(&he.encode().unwrap()), he);
        let he2 = AudioSpecificConfig { ps: true, channels: 1, ..he };
        assert_eq!(parse(&[0xeb, 0x09, 0x88, 0x00]), he2);
        assert_eq!(parse(&[0x12, 0x14]).frame_len, 960);
        for bad in [&[][..], &[0x12], &[0x16, 0x90]] {
            assert!(AudioSpecificConfig::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn adts_headers() {
        let header = [0xff, 0xf1, 0x50, 0x80, 0x02, 0x1f, 0xfc];
        let adts = parse_adts(&header).unwrap();
        assert_eq!((adts.header_len, adts.frame_len, adts.blocks), (7, 16, 1));
        assert_eq!(adts.config, AudioSpecificConfig::lc(44_100, 2));
        for len in 0..7 {
            assert!(parse_adts(&header[..len]).is_err());
        }
        for (at, bits) in [(0, 0x80), (1, 0x02), (2, 0x2c)] {
            let mut broken = header;
            broken[at] ^= bits;
            assert!(parse_adts(&broken).is_err(), "byte {at}");
        }
    }

    #[test]
    fn channels_that_have_no_number_come_from_the_frame() {
        // As ffmpeg writes four channels: in ADTS, and as private data without its extension.
        let raw = b"\xa0\x98\x80\x80\x04\x22\x0dLavc59.37.100\xde\x02";
        let expected = b"\x11\x80\x04\xc4\x04\x00\x21\x10\x0dLavc59.37.100";
        let config = AudioSpecificConfig::lc(48_000, 0);
        let made = config_of_adts(&config, raw).unwrap();
        assert_eq!(made, &expected[..]);
        assert_eq!(AudioSpecificConfig::parse(&made).unwrap().channels, 4);
        for len in 0..20 {
            assert!(config_of_adts(&config, &raw[..len]).is_err(), "{len}");
        }
        assert!(config_of_adts(&config, &[0x21, 0, 3]).is_err(), "a frame without a program config element");
        assert_eq!(config_of_adts(&AudioSpecificConfig::lc(48_000, 2), &[]).unwrap(), &[0x11, 0x90][..]);
    }

    #[test]
    fn a_track_has_a_duration_only_where_it_is_exact() {
        assert_eq!(track(&[0x11, 0x88], 1, 90_000).unwrap().default_duration_ticks, Some(1920));
        assert_eq!(track(&[0x12, 0x10], 1, 90_000).unwrap().default_duration_ticks, None);
    }

    proptest! {
        #[test]
        fn what_reads_is_written_and_reads_again(data in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = parse_adts(&data);
            if let Ok(config) = AudioSpecificConfig::parse(&data)
                && let Ok(encoded) = config.encode()
            {
                let again = AudioSpecificConfig::parse(&encoded).unwrap();
                prop_assert_eq!((again.object_type, again.sample_rate_hz, again.channels), (config.object_type, config.sample_rate_hz, config.channels));
                prop_assert_eq!((again.frame_len, again.sbr, again.ps), (config.frame_len, config.sbr, config.ps));
            }
        }
    }
}
