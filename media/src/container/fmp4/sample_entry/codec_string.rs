//! The `codecs` parameter of a track.

use vidar_core::track::{Codec, Track};

use super::encode::{mp3_object_type, pcm_kind, vp_config};

/// What RFC 6381 and its successors call the track's codec in a `CODECS` attribute, such as `avc1.64001f`. None where
/// [`encode`](super::encode) gives no entry either.
#[must_use]
pub fn codec_string(track: &Track) -> Option<String> {
    super::encode(track)?;
    let private = track.codec_private.as_ref();
    match track.codec {
        Codec::H264 => {
            let [_, profile, constraints, level, ..] = private else { return None };
            let kind = if track.in_band_parameter_sets { "avc3" } else { "avc1" };
            Some(format!("{kind}.{profile:02x}{constraints:02x}{level:02x}"))
        }
        Codec::H265 => hevc(track),
        Codec::Av1 => av1(private),
        Codec::Vp8 | Codec::Vp9 => {
            let config = vp_config(track);
            let [profile, level, bits, ..] = *config else { return None };
            let kind = if track.codec == Codec::Vp8 { "vp08" } else { "vp09" };
            Some(format!("{kind}.{profile:02}.{level:02}.{:02}", bits >> 4))
        }
        Codec::Aac => Some(format!("mp4a.40.{}", audio_object_type(private)?)),
        Codec::Opus => Some("opus".into()),
        Codec::Mp3 => Some(format!("mp4a.{:02X}", mp3_object_type(track.audio.map_or(0, |a| a.sample_rate_hz)))),
        Codec::G711Ulaw => Some("ulaw".into()),
        Codec::G711Alaw => Some("alaw".into()),
        Codec::Pcm(pcm) => pcm_kind(pcm).map(|kind| kind.escape_ascii().to_string()),
        Codec::Opaque => None,
    }
}

/// ISO/IEC 14496-15 annex E.3: profile space and profile, compatibility flags with their bits reversed, tier and level,
/// constraint bytes without trailing zeros.
fn hevc(track: &Track) -> Option<String> {
    let [_, profile, c0, c1, c2, c3, rest @ ..] = track.codec_private.as_ref() else { return None };
    let (constraints, level) = (rest.get(..6)?, rest.get(6)?);
    let kind = if track.in_band_parameter_sets { "hev1" } else { "hvc1" };
    let space = ["", "A", "B", "C"][usize::from(profile >> 6)];
    let compatibility = u32::from_be_bytes([*c0, *c1, *c2, *c3]).reverse_bits();
    let tier = if profile & 0x20 == 0 { 'L' } else { 'H' };
    let mut text = format!("{kind}.{space}{}.{compatibility:X}.{tier}{level}", profile & 0x1f);
    let significant = constraints.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    for byte in &constraints[..significant] {
        text.push_str(&format!(".{byte:X}"));
    }
    Some(text)
}

/// AV1 in ISOBMFF section 5: profile, level and tier, bits.
fn av1(private: &[u8]) -> Option<String> {
    let [_, profile_level, flags, ..] = *private else { return None };
    let (profile, level) = (profile_level >> 5, profile_level & 0x1f);
    let tier = if flags & 0x80 == 0 { 'M' } else { 'H' };
    let bits = match (flags & 0x40 != 0, flags & 0x20 != 0) {
        (false, _) => 8,
        (true, false) => 10,
        (true, true) => 12,
    };
    Some(format!("av01.{profile}.{level:02}{tier}.{bits:02}"))
}

/// The audio object type of an AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1).
fn audio_object_type(config: &[u8]) -> Option<u8> {
    let first = *config.first()?;
    match first >> 3 {
        31 => Some(32 + ((first & 7) << 3 | *config.get(1)? >> 5)),
        object_type => Some(object_type),
    }
}
