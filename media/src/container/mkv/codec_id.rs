//! Codecs as Matroska names them (RFC 9559 with its codec specifications), both ways.

use bytes::Bytes;
use vidar_core::track::{AudioParams, Codec, NalFraming, PcmFormat, Track, TrackKind};

use super::track_entry::{Encoding, TrackEntry};
use crate::codec::aac::AudioSpecificConfig;
use crate::codec::{h264, h265, nal, opus};

/// What a CodecID and its private data mean.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Mapped {
    pub(super) codec: Codec,
    /// In the form that [`Codec`] says.
    pub(super) codec_private: Bytes,
    pub(super) framing: NalFraming,
    pub(super) in_band_parameter_sets: bool,
}

impl Mapped {
    fn new(codec: Codec, codec_private: Bytes) -> Self {
        Self { codec, codec_private, framing: NalFraming::None, in_band_parameter_sets: false }
    }
}

/// The codec of an entry. What is not understood, or not in the form that the codec needs, is opaque.
pub(super) fn from_matroska(entry: &TrackEntry) -> Mapped {
    let private = &entry.codec_private;
    let mapped = match entry.kind {
        _ if entry.encoding == Encoding::Opaque => None,
        TrackKind::Video => video(&entry.codec_id, private),
        TrackKind::Audio => audio(&entry.codec_id, private, entry.audio.unwrap_or_default()),
        TrackKind::Subtitle | TrackKind::Data => None,
    };
    mapped.unwrap_or_else(|| Mapped::new(Codec::Opaque, private.clone()))
}

fn video(codec_id: &str, private: &Bytes) -> Option<Mapped> {
    match codec_id {
        "V_MPEG4/ISO/AVC" => Some(nal_units(Codec::H264, private)?),
        "V_MPEGH/ISO/HEVC" => Some(nal_units(Codec::H265, private)?),
        // Marker bit and version 1. Drafts had none: opaque.
        "V_AV1" => {
            (private.len() >= 4 && private.first() == Some(&0x81)).then(|| Mapped::new(Codec::Av1, private.clone()))
        }
        "V_VP8" => Some(Mapped::new(Codec::Vp8, Bytes::new())),
        "V_VP9" => Some(Mapped::new(Codec::Vp9, vp9_record(private).unwrap_or_default())),
        _ => None,
    }
}

/// H.264 and H.265. Some producers send the parameter sets behind start codes, or in the samples only; their samples
/// have start codes then too.
fn nal_units(codec: Codec, private: &Bytes) -> Option<Mapped> {
    if private.is_empty() || nal::is_annex_b(private) {
        let record = record_of_annex_b(codec, private).unwrap_or_default();
        let mapped = Mapped::new(codec, record);
        return Some(Mapped { framing: NalFraming::AnnexB, in_band_parameter_sets: true, ..mapped });
    }
    let (length_size, in_band_parameter_sets) = match codec {
        Codec::H264 => h264::parse_avcc(private).ok().map(|record| (record.length_size, record.sps.is_empty()))?,
        _ => h265::parse_hvcc(private).ok().map(|record| (record.length_size, record.sps.is_empty()))?,
    };
    let framing = NalFraming::LengthPrefixed(length_size);
    Some(Mapped { framing, in_band_parameter_sets, ..Mapped::new(codec, private.clone()) })
}

fn record_of_annex_b(codec: Codec, private: &Bytes) -> Option<Bytes> {
    match codec {
        Codec::H264 => {
            let record = h264::parse_avcc(private).ok()?;
            h264::avcc(&record.sps, &record.pps).ok()
        }
        _ => {
            let record = h265::parse_hvcc(private).ok()?;
            h265::hvcc(&record.vps, &record.sps, &record.pps).ok()
        }
    }
}

fn audio(codec_id: &str, private: &Bytes, params: AudioParams) -> Option<Mapped> {
    match codec_id {
        "A_OPUS" => Some(Mapped::new(Codec::Opus, opus_head(private, params)?)),
        "A_MPEG/L1" | "A_MPEG/L2" | "A_MPEG/L3" => Some(Mapped::new(Codec::Mp3, Bytes::new())),
        "A_MS/ACM" => Some(Mapped::new(wave_format(private)?, private.clone())),
        "A_PCM/INT/LIT" => pcm(params, false, false),
        "A_PCM/INT/BIG" => pcm(params, true, false),
        "A_PCM/FLOAT/IEEE" => pcm(params, false, true),
        _ if codec_id == "A_AAC" || codec_id.starts_with("A_AAC/") => {
            let config = if private.is_empty() { aac_config(codec_id, params)? } else { private.clone() };
            Some(Mapped::new(Codec::Aac, config))
        }
        _ => None,
    }
}

fn pcm(params: AudioParams, big_endian: bool, float: bool) -> Option<Mapped> {
    let bits = u8::try_from(params.bits).ok()?;
    let known: &[u8] = if float { &[32, 64] } else { &[8, 16, 24, 32, 64] };
    // Matroska codec specifications: 8-bit integers are unsigned, all others signed.
    let format = PcmFormat { bits, big_endian, float, signed: bits != 8 };
    known.contains(&bits).then(|| Mapped::new(Codec::Pcm(format), Bytes::new()))
}

/// WAVEFORMATEX: tag, channels, rate, bytes a second, block size, bits; little-endian.
fn wave_format(private: &[u8]) -> Option<Codec> {
    let &[tag_low, tag_high, _, _, _, _, _, _, _, _, _, _, _, _, bits, 0, ..] = private else { return None };
    match (u16::from_le_bytes([tag_low, tag_high]), bits) {
        (0x0001, 8 | 16 | 24 | 32) => {
            Some(Codec::Pcm(PcmFormat { bits, big_endian: false, float: false, signed: bits != 8 }))
        }
        (0x0003, 32 | 64) => Some(Codec::Pcm(PcmFormat { bits, big_endian: false, float: true, signed: true })),
        (0x0006, _) => Some(Codec::G711Alaw),
        (0x0007, _) => Some(Codec::G711Ulaw),
        _ => None,
    }
}

/// The WAVEFORMATEX of G.711 at 8 bits a value.
fn g711_wave_format(tag: u16, params: AudioParams) -> Bytes {
    let channels = params.channels.max(1);
    let hz = if params.sample_rate_hz == 0 { 8000 } else { params.sample_rate_hz };
    let mut out = Vec::with_capacity(18);
    out.extend_from_slice(&tag.to_le_bytes());
    out.extend_from_slice(&channels.to_le_bytes());
    out.extend_from_slice(&hz.to_le_bytes());
    out.extend_from_slice(&hz.saturating_mul(channels.into()).to_le_bytes());
    out.extend_from_slice(&channels.to_le_bytes());
    out.extend_from_slice(&[8, 0, 0, 0]);
    out.into()
}

/// OpusHead; made up where the producer sent none.
fn opus_head(private: &Bytes, params: AudioParams) -> Option<Bytes> {
    if private.is_empty() {
        let head = opus::OpusHead::new(u8::try_from(params.channels).ok()?).ok()?;
        return Some(opus::OpusHead { input_rate_hz: params.sample_rate_hz, ..head }.encode());
    }
    opus::OpusHead::parse(private).ok().map(|_| private.clone())
}

/// AudioSpecificConfig for what the id says, as old producers mean it (`A_AAC/MPEG4/LC`); LC where it says nothing.
fn aac_config(codec_id: &str, params: AudioParams) -> Option<Bytes> {
    let profile = codec_id.strip_prefix("A_AAC/").and_then(|rest| rest.split('/').nth(1)).unwrap_or("LC");
    let object_type = match profile {
        "MAIN" => 1,
        "LC" => 2,
        "SSR" => 3,
        "LTP" => 4,
        _ => return None,
    };
    let config = AudioSpecificConfig::lc(params.sample_rate_hz, params.channels);
    AudioSpecificConfig { object_type, ..config }.encode().ok()
}

/// CodecPrivate of VP9 (WebM: a list of id, length 1, value) as a VPCodecConfigurationRecord, if all its four features
/// are there.
fn vp9_record(private: &[u8]) -> Option<Bytes> {
    let &[1, 1, profile, 2, 1, level, 3, 1, bit_depth @ 0..=15, 4, 1, chroma @ 0..=7] = private else { return None };
    // Limited range; colours unspecified (ISO/IEC 23091-2 value 2); no codec initialisation data.
    Some(Bytes::copy_from_slice(&[profile, level, bit_depth << 4 | chroma << 1, 2, 2, 2, 0, 0]))
}

fn vp9_features(record: &[u8]) -> Option<Bytes> {
    let &[profile, level, depths, ..] = record else { return None };
    let features = [1, 1, profile, 2, 1, level, 3, 1, depths >> 4, 4, 1, depths >> 1 & 7];
    Some(Bytes::copy_from_slice(&features))
}

/// CodecID and private data for a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Named {
    pub(super) codec_id: String,
    pub(super) codec_private: Bytes,
}

/// What Matroska calls the track's codec; None if it has no name for it. Its own ids are kept.
pub(super) fn to_matroska(track: &Track) -> Option<Named> {
    let is_matroska = is_from_matroska(track);
    let audio = track.audio.unwrap_or_default();
    let private = track.codec_private.clone();
    let (codec_id, codec_private) = match track.codec {
        Codec::H264 => ("V_MPEG4/ISO/AVC", private),
        Codec::H265 => ("V_MPEGH/ISO/HEVC", private),
        Codec::Av1 => ("V_AV1", private),
        Codec::Vp8 => ("V_VP8", Bytes::new()),
        Codec::Vp9 => ("V_VP9", vp9_features(&private).unwrap_or_default()),
        Codec::Aac => ("A_AAC", private),
        Codec::Opus => ("A_OPUS", private),
        Codec::Mp3 => ("A_MPEG/L3", Bytes::new()),
        // The id is the source's, and the private data is of its form.
        Codec::G711Ulaw | Codec::G711Alaw | Codec::Pcm(_) | Codec::Opaque if is_matroska => ("", private),
        Codec::G711Ulaw => ("A_MS/ACM", g711_wave_format(7, audio)),
        Codec::G711Alaw => ("A_MS/ACM", g711_wave_format(6, audio)),
        Codec::Pcm(format) => (pcm_id(format)?, Bytes::new()),
        Codec::Opaque => return None,
    };
    let codec_id = if is_matroska { track.codec_id.clone() } else { codec_id.to_owned() };
    Some(Named { codec_id, codec_private })
}

fn pcm_id(format: PcmFormat) -> Option<&'static str> {
    match format {
        PcmFormat { float: true, big_endian: false, .. } => Some("A_PCM/FLOAT/IEEE"),
        PcmFormat { float: true, .. } => None,
        // Matroska has 8-bit integers unsigned only, and others signed only.
        PcmFormat { bits: 8, signed: false, .. } => Some("A_PCM/INT/LIT"),
        PcmFormat { bits: 8, .. } | PcmFormat { signed: false, .. } => None,
        PcmFormat { big_endian: true, .. } => Some("A_PCM/INT/BIG"),
        PcmFormat { .. } => Some("A_PCM/INT/LIT"),
    }
}

/// True if the source's word for the codec is one of Matroska's: a letter for the kind, an underscore, the rest (RFC 9559
/// section 5.1.4.1.21).
pub(super) fn is_from_matroska(track: &Track) -> bool {
    matches!(track.codec_id.as_bytes(), [b'A'..=b'Z', b'_', ..])
}
