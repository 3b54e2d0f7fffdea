//! What a sample entry says, in the words of [`Track`](vidar_core::track::Track).

use bytes::Bytes;
use vidar_core::limits::CODEC_PRIVATE_BYTES_MAX;
use vidar_core::track::{AudioParams, Codec, NalFraming, PcmFormat, TrackKind, VideoParams};

use super::encode::{OBJECT_TYPE_AAC, OBJECT_TYPE_MP3, OBJECT_TYPE_MP3_LOW_RATE};
use crate::codec::aac::AudioSpecificConfig;
use crate::container::fmp4::boxes::{BoxReader, FourCc, kind_text, malformed};
use crate::demux::{DemuxError, DemuxErrorKind};

/// A sample entry. The fields are those of a track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Entry {
    pub(crate) codec: Codec,
    pub(crate) codec_id: String,
    pub(crate) codec_private: Bytes,
    pub(crate) framing: NalFraming,
    pub(crate) in_band_parameter_sets: bool,
    pub(crate) video: Option<VideoParams>,
    pub(crate) audio: Option<AudioParams>,
}

/// Reads the body of a sample entry. `stsd_version` tells QuickTime's sound descriptions from ISO's.
pub(crate) fn decode(
    kind: FourCc,
    body: BoxReader<'_>,
    track: TrackKind,
    stsd_version: u8,
) -> Result<Entry, DemuxError> {
    let whole = body.clone();
    let mut entry = Entry {
        codec: Codec::Opaque,
        codec_id: kind_text(kind),
        codec_private: Bytes::new(),
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: None,
        audio: None,
    };
    match track {
        TrackKind::Video => video(&mut entry, kind, body)?,
        TrackKind::Audio => audio(&mut entry, kind, body, stsd_version)?,
        TrackKind::Subtitle | TrackKind::Data => {}
    }
    if entry.codec == Codec::Opaque {
        entry.codec_private = Bytes::copy_from_slice(whole.clone().take_rest());
    }
    if entry.codec_private.len() > CODEC_PRIVATE_BYTES_MAX {
        let detail = format!("{} bytes of codec private data, the limit is {CODEC_PRIVATE_BYTES_MAX}", {
            entry.codec_private.len()
        });
        return Err(DemuxError { kind: DemuxErrorKind::TooLarge, ..whole.error(detail) });
    }
    Ok(entry)
}

fn video(entry: &mut Entry, kind: FourCc, mut body: BoxReader<'_>) -> Result<(), DemuxError> {
    body.take(24)?;
    entry.video = Some(VideoParams { width: body.u16()?.into(), height: body.u16()?.into() });
    body.take(50)?;
    match &kind {
        b"avc1" | b"avc3" => {
            let config = config(body, b"avcC", 7)?;
            entry.framing = framing(&config, 4)?;
            entry.codec_private = config.bytes;
            entry.in_band_parameter_sets = kind == *b"avc3";
            entry.codec = Codec::H264;
        }
        b"hvc1" | b"hev1" => {
            let config = config(body, b"hvcC", 23)?;
            entry.framing = framing(&config, 21)?;
            entry.codec_private = config.bytes;
            entry.in_band_parameter_sets = kind == *b"hev1";
            entry.codec = Codec::H265;
        }
        b"av01" => {
            entry.codec_private = config(body, b"av1C", 4)?.bytes;
            entry.codec = Codec::Av1;
        }
        b"vp08" => entry.codec = Codec::Vp8,
        b"vp09" => {
            // A FullBox: version and flags, then the record.
            entry.codec_private = config(body, b"vpcC", 12)?.bytes.slice(4..);
            entry.codec = Codec::Vp9;
        }
        _ => {}
    }
    Ok(())
}

fn audio(entry: &mut Entry, kind: FourCc, mut body: BoxReader<'_>, stsd_version: u8) -> Result<(), DemuxError> {
    body.take(8)?;
    let version = body.u16()?;
    body.take(6)?;
    let (channels, bits) = (body.u16()?, body.u16()?);
    body.take(4)?;
    let sample_rate_hz = body.u32()? >> 16;
    let mut params = AudioParams { sample_rate_hz, channels, bits };
    let mut lpcm_flags = 0;
    match version {
        // QuickTime file format, sound description versions 1 and 2.
        1 if stsd_version == 0 => {
            body.take(16)?;
        }
        2 => {
            body.take(4)?;
            let rate = f64::from_bits(body.u64()?);
            let channels = body.u32()?;
            body.take(4)?;
            let bits = body.u32()?;
            lpcm_flags = body.u32()?;
            body.take(8)?;
            params = AudioParams {
                sample_rate_hz: rate as u32,
                channels: u16::try_from(channels).unwrap_or(u16::MAX),
                bits: u16::try_from(bits).unwrap_or(u16::MAX),
            };
        }
        _ => {}
    }
    entry.audio = Some(params);
    match &kind {
        b"mp4a" => decode_mp4a(entry, body)?,
        b".mp3" => entry.codec = Codec::Mp3,
        b"Opus" => {
            entry.codec_private = opus_head(config(body, b"dOps", 11)?)?;
            entry.codec = Codec::Opus;
        }
        b"ulaw" => entry.codec = Codec::G711Ulaw,
        b"alaw" => entry.codec = Codec::G711Alaw,
        _ => {
            if let Some(pcm) = pcm(kind, body, params, lpcm_flags)? {
                entry.codec = Codec::Pcm(pcm);
                entry.audio = Some(AudioParams { bits: pcm.bits.into(), ..params });
            }
        }
    }
    Ok(())
}

/// A decoder configuration and where it stands.
struct Config {
    bytes: Bytes,
    offset: u64,
}

/// The body of the box of type `wanted`, of at least `len_min` bytes.
fn config(body: BoxReader<'_>, wanted: &FourCc, len_min: usize) -> Result<Config, DemuxError> {
    let missing = body.error(format!("no {}", kind_text(*wanted)));
    let mut found = find(body, wanted)?.ok_or(missing)?;
    if found.remaining() < len_min {
        let detail = format!("{} of {} bytes, expected {len_min} or more", kind_text(*wanted), found.remaining());
        return Err(found.error(detail));
    }
    Ok(Config { offset: found.offset(), bytes: Bytes::copy_from_slice(found.take_rest()) })
}

/// The first box of a type, also inside QuickTime's `wave`.
fn find<'a>(mut body: BoxReader<'a>, wanted: &FourCc) -> Result<Option<BoxReader<'a>>, DemuxError> {
    while let Some((kind, mut inner)) = body.next_box()? {
        if kind == *wanted {
            return Ok(Some(inner));
        }
        if kind == *b"wave" {
            while let Some((kind, inner)) = inner.next_box()? {
                if kind == *wanted {
                    return Ok(Some(inner));
                }
            }
        }
    }
    Ok(None)
}

fn framing(config: &Config, length_at: usize) -> Result<NalFraming, DemuxError> {
    match config.bytes.get(length_at).map(|byte| (byte & 3) + 1) {
        Some(length @ (1 | 2 | 4)) => Ok(NalFraming::LengthPrefixed(length)),
        _ => Err(malformed(config.offset + length_at as u64, "NAL unit lengths of 3 bytes, expected 1, 2 or 4")),
    }
}

fn decode_mp4a(entry: &mut Entry, body: BoxReader<'_>) -> Result<(), DemuxError> {
    let missing = body.error("no esds");
    let mut esds = find(body, b"esds")?.ok_or(missing)?;
    esds.full_box()?;
    let (object_type, specific) = elementary_stream(esds)?;
    match object_type {
        // 0x66 to 0x68: MPEG-2 AAC, which carries an AudioSpecificConfig too.
        OBJECT_TYPE_AAC | 0x66..=0x68 if !specific.is_empty() => {
            if let (Some(params), Ok(config)) = (&mut entry.audio, AudioSpecificConfig::parse(&specific)) {
                // Rates over 65,535 Hz do not fit the entry.
                if params.sample_rate_hz == 0 {
                    params.sample_rate_hz = config.sample_rate_hz;
                }
                if params.channels == 0 {
                    params.channels = config.channels;
                }
            }
            entry.codec_private = specific;
            entry.codec = Codec::Aac;
        }
        OBJECT_TYPE_MP3 | OBJECT_TYPE_MP3_LOW_RATE => entry.codec = Codec::Mp3,
        _ => {}
    }
    Ok(())
}

/// The object type and the DecoderSpecificInfo of an ES_Descriptor (ISO/IEC 14496-1 section 7.2.6.5).
fn elementary_stream(mut esds: BoxReader<'_>) -> Result<(u8, Bytes), DemuxError> {
    let mut stream = descriptor(&mut esds, 3)?;
    stream.u16()?;
    let flags = stream.u8()?;
    if flags & 0x80 != 0 {
        stream.u16()?;
    }
    if flags & 0x40 != 0 {
        let len = stream.u8()?;
        stream.take(len.into())?;
    }
    if flags & 0x20 != 0 {
        stream.u16()?;
    }
    let mut decoder = descriptor(&mut stream, 4)?;
    let object_type = decoder.u8()?;
    decoder.take(12)?;
    if decoder.remaining() == 0 {
        return Ok((object_type, Bytes::new()));
    }
    let mut specific = descriptor(&mut decoder, 5)?;
    Ok((object_type, Bytes::copy_from_slice(specific.take_rest())))
}

fn descriptor<'a>(reader: &mut BoxReader<'a>, tag: u8) -> Result<BoxReader<'a>, DemuxError> {
    let at = reader.clone();
    let found = reader.u8()?;
    if found != tag {
        return Err(at.error(format!("descriptor {found}, expected {tag}")));
    }
    let mut len = 0_usize;
    for group in 0.. {
        let byte = reader.u8()?;
        len = len << 7 | usize::from(byte & 0x7f);
        if byte & 0x80 == 0 {
            break;
        }
        if group == 3 {
            return Err(at.error("a descriptor length of more than 4 bytes"));
        }
    }
    let offset = reader.offset();
    Ok(BoxReader::new(reader.take(len)?, offset))
}

/// OpusHead of a dOps box: the same fields, little-endian, version 1.
fn opus_head(config: Config) -> Result<Bytes, DemuxError> {
    let mut head = b"OpusHead\x01".to_vec();
    let [_version, channels, p0, p1, r0, r1, r2, r3, g0, g1, family, mapping @ ..] = &*config.bytes else {
        return Err(malformed(config.offset, "a short dOps"));
    };
    head.extend_from_slice(&[*channels, *p1, *p0, *r3, *r2, *r1, *r0, *g1, *g0, *family]);
    if *family != 0 {
        let len = 2 + usize::from(*channels);
        let Some(mapping) = mapping.get(..len) else {
            let detail = format!("a channel mapping of {} bytes, expected {len}", mapping.len());
            return Err(malformed(config.offset + 11, detail));
        };
        head.extend_from_slice(mapping);
    }
    Ok(head.into())
}

/// The PCM format of an entry, None if it is another codec's.
fn pcm(
    kind: FourCc,
    body: BoxReader<'_>,
    params: AudioParams,
    lpcm_flags: u32,
) -> Result<Option<PcmFormat>, DemuxError> {
    let bits = u8::try_from(params.bits).unwrap_or(0);
    let format = |bits, big_endian, float, signed| PcmFormat { bits, big_endian, float, signed };
    let pcm = match &kind {
        b"ipcm" | b"fpcm" => {
            let config = config(body, b"pcmC", 6)?;
            format(config.bytes[5], config.bytes[4] & 1 == 0, kind == *b"fpcm", true)
        }
        b"sowt" => format(bits, false, false, true),
        b"twos" => format(bits, true, false, true),
        b"raw " => format(8, true, false, false),
        b"lpcm" => format(bits, lpcm_flags & 2 != 0, lpcm_flags & 1 != 0, lpcm_flags & 5 != 0),
        b"in24" | b"in32" | b"fl32" | b"fl64" => {
            // QuickTime: `enda` with a 1 says little-endian.
            let little = find(body, b"enda")?.map(|mut enda| enda.u16()).transpose()? == Some(1);
            let bits = [24, 32, 64][usize::from(kind != *b"in24") + usize::from(kind == *b"fl64")];
            format(bits, !little, kind[0] == b'f', true)
        }
        _ => return Ok(None),
    };
    Ok(matches!(pcm.bits, 8 | 16 | 24 | 32 | 64).then_some(pcm))
}

#[cfg(test)]
#[path = "decode_tests.rs"]
mod tests;
