//! A track's sample entry, for `stsd`.

use bytes::Bytes;
use vidar_core::track::{AudioParams, Codec, NalFraming, PcmFormat, Track};

use crate::container::fmp4::boxes::{write_box, write_full_box};

/// Object types of `esds` (<https://mp4ra.org/registered-types/object-types>).
pub(super) const OBJECT_TYPE_AAC: u8 = 0x40;
/// MPEG-2 audio (ISO/IEC 13818-3): sampling rates of 24 kHz and below.
pub(super) const OBJECT_TYPE_MP3_LOW_RATE: u8 = 0x69;
/// MPEG-1 audio (ISO/IEC 11172-3).
pub(super) const OBJECT_TYPE_MP3: u8 = 0x6b;

/// The sample entry of a track, as a whole box. None where MP4 has no place for the codec, or where what a decoder needs
/// is not known (no parameter sets, Annex B framing).
#[must_use]
pub fn encode(track: &Track) -> Option<Bytes> {
    let mut out = Vec::with_capacity(128 + track.codec_private.len());
    let private = track.codec_private.as_ref();
    match track.codec {
        Codec::H264 => {
            let config = nal_config(track, 7, 4)?;
            visual(&mut out, if track.in_band_parameter_sets { b"avc3" } else { b"avc1" }, track, |out| {
                write_box(out, b"avcC", |out| out.extend_from_slice(&config));
            });
        }
        Codec::H265 => {
            let config = nal_config(track, 23, 21)?;
            visual(&mut out, if track.in_band_parameter_sets { b"hev1" } else { b"hvc1" }, track, |out| {
                write_box(out, b"hvcC", |out| out.extend_from_slice(&config));
            });
        }
        Codec::Av1 => {
            if private.len() < 4 {
                return None;
            }
            visual(&mut out, b"av01", track, |out| write_box(out, b"av1C", |out| out.extend_from_slice(private)));
        }
        Codec::Vp8 | Codec::Vp9 => {
            let kind = if track.codec == Codec::Vp8 { b"vp08" } else { b"vp09" };
            let config = vp_config(track);
            visual(&mut out, kind, track, |out| {
                write_full_box(out, b"vpcC", 1, 0, |out| out.extend_from_slice(&config));
            });
        }
        Codec::Aac => {
            if private.is_empty() {
                return None;
            }
            audio(&mut out, b"mp4a", audio_params(track), |out| esds(out, OBJECT_TYPE_AAC, private));
        }
        Codec::Mp3 => {
            let params = audio_params(track);
            audio(&mut out, b"mp4a", params, |out| esds(out, mp3_object_type(params.sample_rate_hz), &[]));
        }
        Codec::Opus => {
            let config = opus_config(private)?;
            let params = AudioParams { sample_rate_hz: 48_000, channels: config[1].into(), bits: 16 };
            audio(&mut out, b"Opus", params, |out| write_box(out, b"dOps", |out| out.extend_from_slice(&config)));
        }
        Codec::G711Ulaw => audio(&mut out, b"ulaw", audio_params(track), |_| {}),
        Codec::G711Alaw => audio(&mut out, b"alaw", audio_params(track), |_| {}),
        Codec::Pcm(pcm) => {
            let params = AudioParams { bits: pcm.bits.into(), ..audio_params(track) };
            audio(&mut out, pcm_kind(pcm)?, params, |out| {
                write_full_box(out, b"pcmC", 0, 0, |out| out.extend_from_slice(&[u8::from(!pcm.big_endian), pcm.bits]));
            });
        }
        Codec::Opaque => return None,
    }
    Some(out.into())
}

/// The entry of a PCM format. ISO/IEC 23003-5 has none for 8 bits.
pub(super) fn pcm_kind(pcm: PcmFormat) -> Option<&'static [u8; 4]> {
    match (pcm.float, pcm.bits) {
        (false, 16 | 24 | 32) if pcm.signed => Some(b"ipcm"),
        (true, 32 | 64) => Some(b"fpcm"),
        _ => None,
    }
}

pub(super) fn mp3_object_type(sample_rate_hz: u32) -> u8 {
    if (1..=24_000).contains(&sample_rate_hz) { OBJECT_TYPE_MP3_LOW_RATE } else { OBJECT_TYPE_MP3 }
}

/// VPCodecConfigurationRecord: the track's, or one made of what is known (profile 0, 8 bits, 4:2:0, colours not said).
pub(super) fn vp_config(track: &Track) -> Bytes {
    if track.codec_private.len() >= 8 {
        return track.codec_private.clone();
    }
    let (profile, bits_and_sampling, unspecified) = (0, 8 << 4 | 1 << 1, 2);
    let config = [profile, vp9_level(track), bits_and_sampling, unspecified, unspecified, unspecified, 0, 0];
    Bytes::copy_from_slice(&config)
}

/// The lowest VP9 level whose largest picture holds the track's.
fn vp9_level(track: &Track) -> u8 {
    let size = track.video.map_or(0, |video| u64::from(video.width) * u64::from(video.height));
    let levels = [
        (36_864, 10),
        (73_728, 11),
        (122_880, 20),
        (245_760, 21),
        (552_960, 30),
        (983_040, 31),
        (2_228_224, 40),
        (8_912_896, 50),
    ];
    levels.iter().find(|(max, _)| size <= *max).map_or(60, |(_, level)| *level)
}

/// avcC or hvcC with the length size (at `length_at`, its low two bits) of the samples' framing.
fn nal_config(track: &Track, len_min: usize, length_at: usize) -> Option<Vec<u8>> {
    let NalFraming::LengthPrefixed(length @ (1 | 2 | 4)) = track.framing else { return None };
    let mut config = track.codec_private.to_vec();
    if config.len() < len_min {
        return None;
    }
    config[length_at] = config[length_at] & !3 | (length - 1);
    Some(config)
}

/// dOps of an OpusHead: the same fields, big-endian, version 0.
fn opus_config(head: &[u8]) -> Option<Vec<u8>> {
    let fields = head.strip_prefix(b"OpusHead")?;
    let [_version, channels, p0, p1, r0, r1, r2, r3, g0, g1, family, mapping @ ..] = fields else { return None };
    let mut config = vec![0, *channels, *p1, *p0, *r3, *r2, *r1, *r0, *g1, *g0, *family];
    if *family != 0 {
        // Stream count, coupled count, and one byte for each channel.
        config.extend_from_slice(mapping.get(..2 + usize::from(*channels))?);
    }
    Some(config)
}

fn audio_params(track: &Track) -> AudioParams {
    let params = track.audio.unwrap_or_default();
    AudioParams {
        sample_rate_hz: if params.sample_rate_hz == 0 { track.timescale_hz } else { params.sample_rate_hz },
        channels: params.channels.max(1),
        bits: params.bits,
    }
}

/// VisualSampleEntry (ISO/IEC 14496-12 section 12.1.3).
fn visual(out: &mut Vec<u8>, kind: &[u8; 4], track: &Track, config: impl FnOnce(&mut Vec<u8>)) {
    let video = track.video.unwrap_or_default();
    let [width, height] = [video.width, video.height].map(|side| u16::try_from(side).unwrap_or(u16::MAX));
    write_box(out, kind, |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 16]);
        out.extend_from_slice(&width.to_be_bytes());
        out.extend_from_slice(&height.to_be_bytes());
        // 72 dots per inch both ways, one picture a sample, no compressor name, 24 bits deep.
        out.extend_from_slice(&[0, 0x48, 0, 0, 0, 0x48, 0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 32]);
        out.extend_from_slice(&[0, 0x18, 0xff, 0xff]);
        config(out);
    });
}

/// AudioSampleEntry, version 0 (section 12.2.3).
fn audio(out: &mut Vec<u8>, kind: &[u8; 4], params: AudioParams, config: impl FnOnce(&mut Vec<u8>)) {
    // 16.16 bits: higher rates stand in the decoder's configuration only.
    let rate = u16::try_from(params.sample_rate_hz).unwrap_or(0);
    let bits = if params.bits == 0 { 16 } else { params.bits };
    write_box(out, kind, |out| {
        out.extend_from_slice(&[0, 0, 0, 0, 0, 0, 0, 1]);
        out.extend_from_slice(&[0; 8]);
        out.extend_from_slice(&params.channels.to_be_bytes());
        out.extend_from_slice(&bits.to_be_bytes());
        out.extend_from_slice(&[0; 4]);
        out.extend_from_slice(&rate.to_be_bytes());
        out.extend_from_slice(&[0; 2]);
        config(out);
    });
}

/// ES_Descriptor (ISO/IEC 14496-1 section 7.2.6.5) with a DecoderConfigDescriptor, its DecoderSpecificInfo where there
/// is one, and the SLConfigDescriptor that MP4 prescribes.
fn esds(out: &mut Vec<u8>, object_type: u8, specific: &[u8]) {
    // Audio stream, reserved bit; buffer size and bit rates not said.
    let mut decoder = vec![object_type, 0x15, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    if !specific.is_empty() {
        descriptor(&mut decoder, 5, specific);
    }
    let mut stream = vec![0, 0, 0];
    descriptor(&mut stream, 4, &decoder);
    descriptor(&mut stream, 6, &[2]);
    write_full_box(out, b"esds", 0, 0, |out| descriptor(out, 3, &stream));
}

/// A descriptor: tag, length in groups of 7 bits, body (ISO/IEC 14496-1 section 8.3.3).
fn descriptor(out: &mut Vec<u8>, tag: u8, body: &[u8]) {
    out.push(tag);
    let groups = (1..=4).find(|groups| body.len() >> (7 * groups) == 0).unwrap_or(4);
    for group in (0..groups).rev() {
        let bits = (body.len() >> (7 * group) & 0x7f) as u8;
        out.push(if group > 0 { bits | 0x80 } else { bits });
    }
    out.extend_from_slice(body);
}
