//! What the elementary streams of a program are.

use bytes::Bytes;
use vidar_core::track::{Codec, Track, TrackKind};

use super::pes::CLOCK_HZ;
use super::section::Declared;
use crate::codec::{opus, plain_track};

/// How the payload of an elementary stream is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Reading {
    /// H.264 in a byte stream.
    H264,
    /// H.265 in a byte stream.
    H265,
    /// AAC behind ADTS headers.
    Adts,
    /// MPEG audio.
    Mpeg,
    /// Opus behind control headers.
    Opus(opus::OpusHead),
    /// Not understood: PES payloads as they come.
    Opaque(Track),
}

/// Registration (ISO/IEC 13818-1 section 2.6.8).
const REGISTRATION: u8 = 0x05;
const LANGUAGE: u8 = 0x0a;
const DVB_EXTENSION: u8 = 0x7f;

impl Reading {
    /// By stream type and descriptors (ISO/IEC 13818-1 table 2-34; ETSI EN 300 468 section 6.2; ATSC A/53 part 3).
    /// None for what is not in PES packets: sections, SCTE-35.
    pub(super) fn of(declared: &Declared) -> Option<Self> {
        let registration = declared.descriptor(REGISTRATION).and_then(|content| content.get(..4));
        let opaque = |kind, name: &str| Some(Self::Opaque(opaque_track(declared, kind, name)));
        match (declared.stream_type, registration) {
            (0x1b, _) => Some(Self::H264),
            (0x24, _) | (0x06, Some(b"HEVC")) => Some(Self::H265),
            (0x0f, _) => Some(Self::Adts),
            (0x03 | 0x04, _) => Some(Self::Mpeg),
            (0x06, Some(b"Opus")) => match opus_head(declared) {
                Some(head) => Some(Self::Opus(head)),
                None => opaque(TrackKind::Audio, "Opus"),
            },
            (0x01 | 0x02 | 0x10 | 0x1f..=0x21 | 0x23 | 0x25..=0x2b | 0x2d..=0x33 | 0x42 | 0xd1 | 0xea, _) => {
                opaque(TrackKind::Video, "")
            }
            (0x06, Some(b"AV01" | b"VC-1" | b"drac")) => opaque(TrackKind::Video, ""),
            (0x11 | 0x1c | 0x2c | 0x81..=0x85 | 0x87 | 0x8a | 0xa1, _) => opaque(TrackKind::Audio, ""),
            (0x06, _) => private_data(declared),
            (0x15, _) => opaque(TrackKind::Data, ""),
            // 0x86: SCTE-35.
            (0x80 | 0x88..=0xff, _) => opaque(TrackKind::Data, ""),
            _ => None,
        }
    }

    /// What is known of the track before anything of it is read.
    pub(super) fn known_track(&self) -> Option<Track> {
        if let Self::Opaque(track) = self { Some(track.clone()) } else { None }
    }
}

/// Private data, or what DVB descriptors say it is.
fn private_data(declared: &Declared) -> Option<Reading> {
    let known = |(tag, content): (u8, &[u8])| match (tag, content) {
        (0x6a, _) | (REGISTRATION, b"AC-3") => Some((TrackKind::Audio, "AC-3")),
        (0x7a, _) | (REGISTRATION, b"EAC3") => Some((TrackKind::Audio, "EAC3")),
        (0x7b, _) => Some((TrackKind::Audio, "DTS")),
        (0x7c, _) => Some((TrackKind::Audio, "AAC")),
        (DVB_EXTENSION, [0x15, ..]) => Some((TrackKind::Audio, "AC-4")),
        (0x56, _) => Some((TrackKind::Subtitle, "teletext")),
        (0x59, _) => Some((TrackKind::Subtitle, "DVB subtitles")),
        _ => None,
    };
    let (kind, name) = declared.descriptors().find_map(known).unwrap_or((TrackKind::Data, ""));
    Some(Reading::Opaque(opaque_track(declared, kind, name)))
}

/// Codec id: stream type, then the registered name. Private data: the descriptors.
fn opaque_track(declared: &Declared, kind: TrackKind, name: &str) -> Track {
    let registration = declared.descriptor(REGISTRATION).and_then(|content| content.get(..4));
    let registered = registration.and_then(|name| std::str::from_utf8(name).ok());
    let name = if name.is_empty() { registered.map_or("", str::trim) } else { name };
    let separator = if name.is_empty() { "" } else { "/" };
    let codec_id = format!("TS/0x{:02x}{separator}{name}", declared.stream_type);
    let track = plain_track(kind, Codec::Opaque, &codec_id, declared.pid.into(), CLOCK_HZ);
    Track { codec_private: Bytes::copy_from_slice(&declared.descriptors), ..track }
}

/// `channel_config_code` of the Opus extension descriptor (ETSI TS 103 491; Opus in MPEG-TS, section 4). None for codes
/// that need a mapping table.
fn opus_head(declared: &Declared) -> Option<opus::OpusHead> {
    let code = declared.descriptors().find_map(|(tag, content)| match (tag, content) {
        (DVB_EXTENSION, [0x80, code, ..]) => Some(*code),
        _ => None,
    })?;
    opus::OpusHead::new(code).ok()
}

/// ISO 639-2 code of the language descriptor; empty if there is none.
pub(super) fn language(declared: &Declared) -> String {
    let code = declared.descriptor(LANGUAGE).and_then(|content| content.get(..3));
    let code = code.filter(|code| code.iter().all(u8::is_ascii_alphabetic));
    code.map(|code| String::from_utf8_lossy(code).to_ascii_lowercase()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn declared(stream_type: u8, descriptors: &[u8]) -> Declared {
        Declared { stream_type, pid: 0x101, descriptors: descriptors.to_vec() }
    }

    fn opaque(stream_type: u8, descriptors: &[u8]) -> (TrackKind, String) {
        match Reading::of(&declared(stream_type, descriptors)) {
            Some(Reading::Opaque(track)) => {
                assert_eq!(track.codec_private, descriptors);
                (track.kind, track.codec_id)
            }
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn streams_are_known_by_type_and_descriptors() {
        assert_eq!(Reading::of(&declared(0x1b, &[])), Some(Reading::H264));
        assert_eq!(Reading::of(&declared(0x06, b"\x05\x04HEVC")), Some(Reading::H265));
        assert_eq!(Reading::of(&declared(0x04, &[])), Some(Reading::Mpeg));
        for sections in [0x05, 0x0b, 0x0d, 0x86] {
            assert_eq!(Reading::of(&declared(sections, &[])), None);
        }
        assert_eq!(opaque(0x81, &[]), (TrackKind::Audio, "TS/0x81".into()));
        assert_eq!(opaque(0x02, &[]), (TrackKind::Video, "TS/0x02".into()));
        assert_eq!(opaque(0x06, b"\x05\x04KLVA"), (TrackKind::Data, "TS/0x06/KLVA".into()));
        assert_eq!(opaque(0x06, &[0x6a, 1, 0]), (TrackKind::Audio, "TS/0x06/AC-3".into()));
        assert_eq!(opaque(0x06, &[0x59, 0]), (TrackKind::Subtitle, "TS/0x06/DVB subtitles".into()));
        // A descriptor that reaches past the end is none.
        assert_eq!(opaque(0x06, b"\x05\x05HEVC"), (TrackKind::Data, "TS/0x06".into()));
    }

    #[test]
    fn opus_says_its_channels_and_a_language_is_plain_letters() {
        let opus = declared(0x06, b"\x05\x04Opus\x7f\x02\x80\x02\x0a\x04Eng\0");
        let Some(Reading::Opus(head)) = Reading::of(&opus) else { panic!("no Opus") };
        assert_eq!((head.channels, head.mapping_family), (2, 0));
        assert_eq!(language(&opus), "eng");
        assert_eq!(language(&declared(0x06, b"\x0a\x04\xff\0\0\0")), "");
        assert_eq!(opaque(0x06, b"\x05\x04Opus\x7f\x02\x80\xff").1, "TS/0x06/Opus");
    }
}
