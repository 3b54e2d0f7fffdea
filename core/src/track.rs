//! Tracks and their configuration, as a container declares them and as a *config* record keeps them.
//!
//! A config is everything that samples need to be decoded or muxed again. It is stored once for each stream, named by
//! its content ([`ConfigId`](crate::ids::ConfigId)). Layout of the encoded form: `docs/formats/config.md`.

use bytes::Bytes;

use crate::limits::{CODEC_PRIVATE_BYTES_MAX, INIT_BYTES_MAX, TRACK_COUNT_MAX};
use crate::wire::{Reader, WireError, Writer};

/// Version of the encoded form.
pub const CONFIG_FORMAT_VERSION: u8 = 1;

/// What a track carries.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum TrackKind {
    /// Pictures.
    Video,
    /// Sound.
    Audio,
    /// Timed text.
    Subtitle,
    /// Anything else.
    Data,
}

/// How linear PCM is coded.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct PcmFormat {
    /// Bits of one value of one channel: 8, 16, 24, 32 or 64.
    pub bits: u8,
    /// Most significant byte first.
    pub big_endian: bool,
    /// IEEE 754, not integers.
    pub float: bool,
    /// Two's complement; false only for 8-bit unsigned.
    pub signed: bool,
}

/// The codec of a track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Codec {
    /// ISO/IEC 14496-10. Private data: AVCDecoderConfigurationRecord.
    H264,
    /// ISO/IEC 23008-2. Private data: HEVCDecoderConfigurationRecord.
    H265,
    /// AV1. Private data: AV1CodecConfigurationRecord. Samples: temporal units without temporal delimiters.
    Av1,
    /// VP8. No private data.
    Vp8,
    /// VP9. Private data: VPCodecConfigurationRecord without its full-box header, or empty.
    Vp9,
    /// ISO/IEC 14496-3. Private data: AudioSpecificConfig. Samples: raw access units.
    Aac,
    /// RFC 6716. Private data: OpusHead of RFC 7845 section 5.1 (little-endian, with its magic).
    Opus,
    /// MPEG audio, layers 1 to 3. No private data.
    Mp3,
    /// G.711 µ-law.
    G711Ulaw,
    /// G.711 A-law.
    G711Alaw,
    /// Linear PCM.
    Pcm(PcmFormat),
    /// Kept exactly, not understood.
    Opaque,
}

impl Codec {
    /// The name that listings and search use.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::H264 => "h264",
            Self::H265 => "h265",
            Self::Av1 => "av1",
            Self::Vp8 => "vp8",
            Self::Vp9 => "vp9",
            Self::Aac => "aac",
            Self::Opus => "opus",
            Self::Mp3 => "mp3",
            Self::G711Ulaw => "pcmu",
            Self::G711Alaw => "pcma",
            Self::Pcm(_) => "pcm",
            Self::Opaque => "opaque",
        }
    }
}

/// How NAL units stand in a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NalFraming {
    /// The codec has none, or they are kept as they came.
    None,
    /// Each behind its length in this many bytes (1, 2 or 4), big-endian.
    LengthPrefixed(u8),
    /// Each behind a start code (ISO/IEC 14496-10 Annex B), because the source declared it so.
    AnnexB,
}

/// What is known of a video track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct VideoParams {
    /// Coded width after cropping, in pixels.
    pub width: u32,
    /// Coded height after cropping, in pixels.
    pub height: u32,
}

/// What is known of an audio track.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct AudioParams {
    /// Sampling rate in Hz. 0 if unknown.
    pub sample_rate_hz: u32,
    /// Number of channels. 0 if unknown.
    pub channels: u16,
    /// Bits of one value of one channel. 0 if unknown.
    pub bits: u16,
}

/// What is to be cut from the presentation, as the source declared it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Trims {
    /// Presentation time, in ticks, at which the source's presentation starts: its edit list's media_time. What is shown
    /// at an instant of all tracks is found by subtracting it from each. 0 without an edit list.
    pub edit_start_ticks: i64,
    /// Presentation of the track starts this many milliseconds late (an empty edit).
    pub edit_delay_ms: i64,
    /// Matroska CodecDelay, in nanoseconds.
    pub codec_delay_ns: u64,
    /// Matroska SeekPreRoll, in nanoseconds.
    pub seek_preroll_ns: u64,
}

/// One track of a config.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Track {
    /// The number the source gave it (Matroska TrackNumber, MP4 track_ID, PID, m-line index + 1).
    pub source_number: u64,
    /// What it carries.
    pub kind: TrackKind,
    /// The codec.
    pub codec: Codec,
    /// The source's own word for the codec (Matroska CodecID, MP4 sample entry type, RTP encoding name).
    pub codec_id: String,
    /// In the form that [`Codec`] says; for `Opaque` as it came.
    pub codec_private: Bytes,
    /// Ticks per second of its times. Never 0.
    pub timescale_hz: u32,
    /// Framing of its samples.
    pub framing: NalFraming,
    /// Parameter sets also stand in samples and may differ from `codec_private` (`avc3`/`hev1`).
    pub in_band_parameter_sets: bool,
    /// Set for video.
    pub video: Option<VideoParams>,
    /// Set for audio.
    pub audio: Option<AudioParams>,
    /// Duration of a sample where the source declares one, in ticks.
    pub default_duration_ticks: Option<u32>,
    /// What to cut.
    pub trims: Trims,
    /// BCP 47 or ISO 639-2 as the source gave it; empty if it gave none.
    pub language: String,
    /// As the source gave it; empty if it gave none.
    pub name: String,
}

/// The tracks of a run from some fragment on.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct StreamConfig {
    /// In the order of declaration: a sample's `track` is an index into it. At most [`TRACK_COUNT_MAX`].
    pub tracks: Vec<Track>,
    /// EBML header and Segment header bytes up to the first Cluster, as sent. Empty if the source is not Matroska.
    pub matroska_header: Bytes,
}

impl StreamConfig {
    /// Index of the track at whose sync samples fragments are cut: the first video track, else the first audio
    /// track, else the first.
    #[must_use]
    pub fn primary_track(&self) -> Option<usize> {
        let first = |kind| self.tracks.iter().position(|track| track.kind == kind);
        first(TrackKind::Video).or_else(|| first(TrackKind::Audio)).or(if self.tracks.is_empty() {
            None
        } else {
            Some(0)
        })
    }

    /// The plain bytes of a config record.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut writer = Writer::new();
        writer.u8(CONFIG_FORMAT_VERSION).varint(self.tracks.len() as u64);
        for track in &self.tracks {
            track.encode(&mut writer);
        }
        writer.bytes(&self.matroska_header);
        writer.into_bytes()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// If the bytes are not of version 1, or over a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        if reader.u8()? != CONFIG_FORMAT_VERSION {
            return Err(WireError { expected: "config format version 1", offset: 0 });
        }
        let count = reader.count(16)?;
        if count > TRACK_COUNT_MAX {
            return Err(reader.error("at most 10 tracks"));
        }
        let tracks = (0..count).map(|_| Track::decode(&mut reader)).collect::<Result<_, _>>()?;
        let matroska_header = reader.bytes()?;
        if matroska_header.len() > INIT_BYTES_MAX {
            return Err(reader.error("a shorter Matroska header"));
        }
        let config = Self { tracks, matroska_header: Bytes::copy_from_slice(matroska_header) };
        reader.finish()?;
        Ok(config)
    }
}

impl Track {
    fn encode(&self, writer: &mut Writer) {
        writer.varint(self.source_number);
        writer.u8(match self.kind {
            TrackKind::Video => 0,
            TrackKind::Audio => 1,
            TrackKind::Subtitle => 2,
            TrackKind::Data => 3,
        });
        match self.codec {
            Codec::H264 => writer.u8(1),
            Codec::H265 => writer.u8(2),
            Codec::Av1 => writer.u8(3),
            Codec::Vp8 => writer.u8(4),
            Codec::Vp9 => writer.u8(5),
            Codec::Aac => writer.u8(6),
            Codec::Opus => writer.u8(7),
            Codec::Mp3 => writer.u8(8),
            Codec::G711Ulaw => writer.u8(9),
            Codec::G711Alaw => writer.u8(10),
            Codec::Pcm(pcm) => {
                let flags = u8::from(pcm.big_endian) | u8::from(pcm.float) << 1 | u8::from(pcm.signed) << 2;
                writer.u8(11).u8(pcm.bits).u8(flags)
            }
            Codec::Opaque => writer.u8(0),
        };
        writer.string(&self.codec_id).bytes(&self.codec_private).u32(self.timescale_hz);
        writer.u8(match self.framing {
            NalFraming::None => 0,
            NalFraming::LengthPrefixed(bytes) => bytes,
            NalFraming::AnnexB => 0xff,
        });
        writer.u8(u8::from(self.in_band_parameter_sets));
        writer.option(self.video, |w, video| {
            w.varint(video.width.into()).varint(video.height.into());
        });
        writer.option(self.audio, |w, audio| {
            w.varint(audio.sample_rate_hz.into()).varint(audio.channels.into()).varint(audio.bits.into());
        });
        writer.option(self.default_duration_ticks, |w, ticks| {
            w.varint(ticks.into());
        });
        writer.signed(self.trims.edit_start_ticks).signed(self.trims.edit_delay_ms);
        writer.varint(self.trims.codec_delay_ns).varint(self.trims.seek_preroll_ns);
        writer.string(&self.language).string(&self.name);
    }

    fn decode(reader: &mut Reader<'_>) -> Result<Self, WireError> {
        let source_number = reader.varint()?;
        let kind = match reader.u8()? {
            0 => TrackKind::Video,
            1 => TrackKind::Audio,
            2 => TrackKind::Subtitle,
            3 => TrackKind::Data,
            _ => return Err(reader.error("a track kind")),
        };
        let codec = match reader.u8()? {
            0 => Codec::Opaque,
            1 => Codec::H264,
            2 => Codec::H265,
            3 => Codec::Av1,
            4 => Codec::Vp8,
            5 => Codec::Vp9,
            6 => Codec::Aac,
            7 => Codec::Opus,
            8 => Codec::Mp3,
            9 => Codec::G711Ulaw,
            10 => Codec::G711Alaw,
            11 => {
                let (bits, flags) = (reader.u8()?, reader.u8()?);
                let [big_endian, float, signed] = [1, 2, 4].map(|bit| flags & bit != 0);
                Codec::Pcm(PcmFormat { bits, big_endian, float, signed })
            }
            _ => return Err(reader.error("a codec")),
        };
        let codec_id = reader.string()?.to_owned();
        let codec_private = reader.bytes()?;
        if codec_private.len() > CODEC_PRIVATE_BYTES_MAX {
            return Err(reader.error("shorter codec private data"));
        }
        let codec_private = Bytes::copy_from_slice(codec_private);
        let timescale_hz = reader.u32()?;
        if timescale_hz == 0 {
            return Err(reader.error("a timescale above 0"));
        }
        let framing = match reader.u8()? {
            0 => NalFraming::None,
            bytes @ (1 | 2 | 4) => NalFraming::LengthPrefixed(bytes),
            0xff => NalFraming::AnnexB,
            _ => return Err(reader.error("a NAL framing")),
        };
        let in_band_parameter_sets = reader.u8()? != 0;
        let video = reader.option(|r| Ok(VideoParams { width: r.varint_as()?, height: r.varint_as()? }))?;
        let audio = reader.option(|r| {
            Ok(AudioParams { sample_rate_hz: r.varint_as()?, channels: r.varint_as()?, bits: r.varint_as()? })
        })?;
        let default_duration_ticks = reader.option(Reader::varint_as)?;
        let trims = Trims {
            edit_start_ticks: reader.signed()?,
            edit_delay_ms: reader.signed()?,
            codec_delay_ns: reader.varint()?,
            seek_preroll_ns: reader.varint()?,
        };
        let language = reader.string()?.to_owned();
        let name = reader.string()?.to_owned();
        Ok(Self {
            source_number,
            kind,
            codec,
            codec_id,
            codec_private,
            timescale_hz,
            framing,
            in_band_parameter_sets,
            video,
            audio,
            default_duration_ticks,
            trims,
            language,
            name,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> StreamConfig {
        let video = Track {
            source_number: 1,
            kind: TrackKind::Video,
            codec: Codec::H264,
            codec_id: "V_MPEG4/ISO/AVC".into(),
            codec_private: Bytes::from_static(&[1, 0x64, 0, 0x1f]),
            timescale_hz: 90_000,
            framing: NalFraming::LengthPrefixed(4),
            in_band_parameter_sets: true,
            video: Some(VideoParams { width: 640, height: 360 }),
            audio: None,
            default_duration_ticks: Some(3600),
            trims: Trims { edit_start_ticks: -7, edit_delay_ms: 80, codec_delay_ns: 6_500_000, seek_preroll_ns: 1 },
            language: "und".into(),
            name: "cam".into(),
        };
        let audio = Track {
            source_number: 2,
            kind: TrackKind::Audio,
            codec: Codec::Pcm(PcmFormat { bits: 16, big_endian: true, float: false, signed: true }),
            framing: NalFraming::None,
            video: None,
            audio: Some(AudioParams { sample_rate_hz: 48_000, channels: 2, bits: 16 }),
            ..video.clone()
        };
        StreamConfig { tracks: vec![audio, video], matroska_header: Bytes::from_static(&[0x1a, 0x45]) }
    }

    #[test]
    fn a_config_round_trips_and_every_truncation_is_refused() {
        let config = config();
        let bytes = config.encode();
        assert_eq!(StreamConfig::decode(&bytes), Ok(config));
        for len in 0..bytes.len() {
            assert!(StreamConfig::decode(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn the_first_video_track_is_primary() {
        assert_eq!(config().primary_track(), Some(1));
        assert_eq!(StreamConfig::default().primary_track(), None);
    }
}
