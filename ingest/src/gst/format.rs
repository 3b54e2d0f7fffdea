//! Which formats, and which elements may touch them.

use super::id3;

/// Tags that end behind this are not waited for, to see what follows them: a cover picture may be that long.
const TAGS_BYTES_MAX: usize = 64 << 10;

/// A container, or a bare elementary stream, that GStreamer reads.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Foreign {
    /// Adobe Flash Video, version 10.1, annex E.
    Flv,
    /// Microsoft RIFF, Audio Video Interleave.
    Avi,
    /// RFC 3533.
    Ogg,
    /// MPEG program stream (ISO/IEC 13818-1 section 2.5).
    MpegPs,
    /// Microsoft RIFF, waveform audio.
    Wav,
    /// Apple Audio Interchange File Format, and AIFF-C.
    Aiff,
    /// Sun audio, with its header.
    Au,
    /// Frames of VP8 or VP9 with times.
    Ivf,
    /// RFC 9639.
    Flac,
    /// AAC in ADTS (ISO/IEC 14496-3 section 1.A.2).
    Adts,
    /// MPEG-1 and MPEG-2 sound (ISO/IEC 11172-3, 13818-3), mostly layer III.
    Mp3,
    /// Dolby Digital (ETSI TS 102 366).
    Ac3,
    /// Byte stream of H.264 (ISO/IEC 14496-10 annex B).
    H264,
    /// Byte stream of H.265 (ISO/IEC 23008-2 annex B).
    H265,
}

/// What stands at the head of the pipeline.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Source {
    /// The only demuxer that the helper makes for the format.
    Demuxer(&'static str),
    /// The input is one track already, of these caps; its parser does the rest.
    Elementary(&'static str),
}

struct Row {
    format: Foreign,
    name: &'static str,
    /// What the input starts with: one of these.
    magics: &'static [Magic],
    media_types: &'static [&'static str],
    source: Source,
}

const fn row(
    format: Foreign,
    name: &'static str,
    magics: &'static [Magic],
    media_types: &'static [&'static str],
    source: Source,
) -> Row {
    Row { format, name, magics, media_types, source }
}

/// Bytes that have to be equal where the mask has ones; no mask is all ones.
struct Magic {
    bytes: &'static [u8],
    mask: &'static [u8],
}

const fn exact(bytes: &'static [u8]) -> Magic {
    Magic { bytes, mask: &[] }
}

const fn masked(bytes: &'static [u8], mask: &'static [u8]) -> Magic {
    Magic { bytes, mask }
}

/// A chunk's name, any length, the form's name.
const FORM: &[u8] = b"\xff\xff\xff\xff\0\0\0\0\xff\xff\xff\xff";

/// A name, and what else a tag's header is long.
const NAME_OF_TAG: &[u8] = b"\xff\xff\xff\0\0\0\0\0\0\0";

use Source::{Demuxer, Elementary};

const TABLE: [Row; 14] = [
    row(Foreign::Flv, "flv", &[exact(b"FLV\x01")], &["video/x-flv", "video/flv"], Demuxer("flvdemux")),
    row(
        Foreign::Avi,
        "avi",
        &[masked(b"RIFF\0\0\0\0AVI ", FORM)],
        &["video/x-msvideo", "video/avi", "video/vnd.avi"],
        Demuxer("avidemux"),
    ),
    row(Foreign::Ogg, "ogg", &[exact(b"OggS")], &["video/ogg", "audio/ogg", "application/ogg"], Demuxer("oggdemux")),
    row(Foreign::MpegPs, "mpeg-ps", &[exact(b"\0\0\x01\xba")], &["video/mp2p", "video/mpeg"], Demuxer("mpegpsdemux")),
    row(
        Foreign::Wav,
        "wav",
        &[masked(b"RIFF\0\0\0\0WAVE", FORM)],
        &["audio/vnd.wave", "audio/wav", "audio/wave", "audio/x-wav"],
        Demuxer("wavparse"),
    ),
    row(
        Foreign::Aiff,
        "aiff",
        &[masked(b"FORM\0\0\0\0AIFF", FORM), masked(b"FORM\0\0\0\0AIFC", FORM)],
        &["audio/aiff", "audio/x-aiff"],
        Demuxer("aiffparse"),
    ),
    row(Foreign::Au, "au", &[exact(b".snd")], &["audio/x-au"], Demuxer("auparse")),
    row(
        Foreign::Ivf,
        "ivf",
        &[exact(b"DKIF\0\0\x20\0VP80"), exact(b"DKIF\0\0\x20\0VP90")],
        &["video/x-ivf"],
        Demuxer("ivfparse"),
    ),
    row(Foreign::Flac, "flac", &[exact(b"fLaC")], &["audio/flac", "audio/x-flac"], Elementary("audio/x-flac")),
    row(
        Foreign::Adts,
        "adts",
        // Twelve ones, any version, layer 0.
        &[masked(b"\xff\xf0", b"\xff\xf6")],
        &["audio/aac", "audio/aacp", "audio/x-aac"],
        Elementary("audio/mpeg,mpegversion=4,stream-format=adts"),
    ),
    row(
        Foreign::Mp3,
        "mp3",
        // A tag that is none, or eleven ones, any version, layer III or II.
        &[
            masked(b"ID3\0\0\0\0\0\0\0", NAME_OF_TAG),
            masked(b"\xff\xe2", b"\xff\xe6"),
            masked(b"\xff\xe4", b"\xff\xe6"),
        ],
        &["audio/mpeg", "audio/mp3", "audio/x-mpeg"],
        Elementary("audio/mpeg,mpegversion=1"),
    ),
    row(Foreign::Ac3, "ac3", &[exact(b"\x0b\x77")], &["audio/ac3", "audio/eac3"], Elementary("audio/x-ac3")),
    row(
        Foreign::H264,
        "h264",
        // A start code; delimiter, SEI, or SPS of any nal_ref_idc.
        &[
            exact(b"\0\0\0\x01\x09"),
            exact(b"\0\0\x01\x09"),
            exact(b"\0\0\0\x01\x06"),
            exact(b"\0\0\x01\x06"),
            masked(b"\0\0\0\x01\x07", b"\xff\xff\xff\xff\x9f"),
            masked(b"\0\0\x01\x07", b"\xff\xff\xff\x9f"),
        ],
        &["video/h264", "video/x-h264"],
        Elementary("video/x-h264,stream-format=byte-stream"),
    ),
    row(
        Foreign::H265,
        "h265",
        // A start code; VPS, SPS or delimiter of the base layer.
        &[
            exact(b"\0\0\0\x01\x40\x01"),
            exact(b"\0\0\x01\x40\x01"),
            exact(b"\0\0\0\x01\x42\x01"),
            exact(b"\0\0\x01\x42\x01"),
            exact(b"\0\0\0\x01\x46\x01"),
            exact(b"\0\0\x01\x46\x01"),
        ],
        &["video/h265", "video/x-h265", "video/hevc"],
        Elementary("video/x-h265,stream-format=byte-stream"),
    ),
];

/// Tells what an input is by its first bytes, as they come.
#[derive(Debug, Default)]
pub struct Sniffer {
    /// Where the ID3v2 tags end, as far as they are there: what lies before is not looked at again.
    tags_end: usize,
}

/// What the first bytes say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// It is this.
    Format(Foreign),
    /// More of them could make it one of these.
    NeedMore,
    /// None of these.
    Other,
}

impl Sniffer {
    /// `head`: all that has come. What follows ID3v2 tags tells the format; where it does not, what the input is declared
    /// to be does, else it is MP3, whose tags they are.
    pub fn look(&mut self, head: &[u8], media_type: Option<&str>) -> Sniffed {
        self.tags_end = id3::end(head, self.tags_end);
        let behind = head.get(self.tags_end..).unwrap_or_default();
        let is_whole = |magic: &Magic| behind.len() >= magic.bytes.len();
        let mut magics = TABLE.iter().flat_map(|row| row.magics.iter().map(move |magic| (row.format, magic)));
        let told = magics.clone().find(|(_, magic)| is_whole(magic) && magic.fits(behind));
        if let Some((format, _)) = told {
            return Sniffed::Format(format);
        }
        let could_fit = magics.any(|(_, magic)| !is_whole(magic) && magic.fits(behind));
        match self.tags_end {
            0..=TAGS_BYTES_MAX if could_fit => Sniffed::NeedMore,
            0 => Sniffed::Other,
            _ => Sniffed::Format(media_type.and_then(Foreign::from_media_type).unwrap_or(Foreign::Mp3)),
        }
    }
}

impl Foreign {
    /// Of a media type (RFC 6838), parameters ignored.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        TABLE.iter().find(|row| row.media_types.contains(&essence.as_str())).map(|row| row.format)
    }

    /// Of its [`name`](Self::name).
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        TABLE.iter().find(|row| row.name == name).map(|row| row.format)
    }

    /// A word for it: the argument of the helper.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.row().name
    }

    /// The words for all of them.
    pub fn names() -> impl Iterator<Item = &'static str> {
        TABLE.iter().map(|row| row.name)
    }

    /// Where its pipeline begins.
    pub(super) fn source(self) -> Source {
        self.row().source
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.format == self).expect("every format has a row")
    }
}

impl Magic {
    /// As far as both go.
    fn fits(&self, head: &[u8]) -> bool {
        let masks = self.mask.iter().chain(std::iter::repeat(&0xff));
        self.bytes.iter().zip(masks).zip(head).all(|((wanted, mask), byte)| (wanted ^ byte) & mask == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: [(&[u8], Foreign); 26] = [
        (b"FLV\x01\x05", Foreign::Flv),
        (b"RIFF\x10\x20\x30\x40AVI LIST", Foreign::Avi),
        (b"OggS\0\x02", Foreign::Ogg),
        (&[0, 0, 1, 0xba, 0x44], Foreign::MpegPs),
        (b"RIFF\x10\x20\x30\x40WAVEfmt ", Foreign::Wav),
        (b"FORM\x10\x20\x30\x40AIFFCOMM", Foreign::Aiff),
        (b"FORM\x10\x20\x30\x40AIFCFVER", Foreign::Aiff),
        (b".snd\0\0\0\x18", Foreign::Au),
        (b"DKIF\0\0\x20\0VP80", Foreign::Ivf),
        (b"fLaC\0\0\0\x22", Foreign::Flac),
        (&[0xff, 0xf1, 0x4c], Foreign::Adts),
        (&[0xff, 0xf9, 0x4c], Foreign::Adts),
        (b"ID3\x04\0\0\0\0\0\x02\xff\xff\xff\xfb\x90", Foreign::Mp3),
        (b"ID3\x04\0\0\0\0\0\x02\xff\xff\xff\xf1\x4c", Foreign::Adts),
        (b"ID3\x04\0\x10\0\0\0\x01\xff3DI\x04\0\x10\0\0\0\x01fLaC", Foreign::Flac),
        (b"ID3\x03\0\0\0\0\0\0ID3\x04\0\0\0\0\0\0\x0b\x77", Foreign::Ac3),
        (b"ID3\x04\0\0\0\0\0\x80", Foreign::Mp3),
        (&[0xff, 0xfb, 0x90], Foreign::Mp3),
        (&[0xff, 0xf3, 0x90], Foreign::Mp3),
        (&[0xff, 0xfd, 0x90], Foreign::Mp3),
        (&[0x0b, 0x77, 0x12], Foreign::Ac3),
        (&[0, 0, 0, 1, 0x67, 0x42], Foreign::H264),
        (&[0, 0, 1, 0x27, 0x42], Foreign::H264),
        (&[0, 0, 0, 1, 0x09, 0xf0], Foreign::H264),
        (&[0, 0, 0, 1, 0x40, 1, 0x0c], Foreign::H265),
        (&[0, 0, 1, 0x46, 1, 0x50], Foreign::H265),
    ];

    fn sniff(head: &[u8], media_type: Option<&str>) -> Sniffed {
        Sniffer::default().look(head, media_type)
    }

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (head, format) in HEADS {
            assert_eq!(sniff(head, Some("audio/x-au")), Sniffed::Format(format));
            let mut sniffer = Sniffer::default();
            let seen: Vec<Sniffed> = (0..=head.len()).map(|len| sniffer.look(&head[..len], None)).collect();
            let first = seen.iter().position(|sniffed| *sniffed != Sniffed::NeedMore).unwrap();
            assert_eq!(seen[first], Sniffed::Format(format), "{format:?} {first}");
            for (len, sniffed) in seen.iter().enumerate() {
                assert_eq!(*sniffed, sniff(&head[..len], None), "{format:?} {len}");
            }
        }
        assert_eq!(sniff(&vidar_fixtures::read("other.flv"), None), Sniffed::Format(Foreign::Flv));
        assert_eq!(sniff(&vidar_fixtures::read("other.avi"), None), Sniffed::Format(Foreign::Avi));
        let others = [
            &b"FLV\x02"[..],
            b"RIFF....WEBPVP8 ",
            &[0, 0, 1, 0xb3],
            b"\x1a\x45\xdf\xa3",
            b"\0\0\0\x18ftypiso5",
            b"\0\0\0\x01mdat",
            &[0xff, 0xd8, 0xff, 0xe0],
            &[0xff, 0xfe, b'a', 0],
        ];
        for other in others {
            assert_eq!(sniff(other, None), Sniffed::Other, "{other:?}");
        }
    }

    #[test]
    fn behind_a_tag_that_is_too_long_the_declared_type_counts() {
        let long = b"ID3\x04\0\0\0\x04\0\0";
        let unknown = [&b"ID3\x04\0\0\0\0\0\x02\xff\xff"[..], &[0; 10]].concat();
        for head in [&long[..], &unknown] {
            assert_eq!(sniff(head, Some("audio/aac")), Sniffed::Format(Foreign::Adts));
            assert_eq!(sniff(head, Some("audio/flac; x=y")), Sniffed::Format(Foreign::Flac));
            assert_eq!(sniff(head, Some("application/octet-stream")), Sniffed::Format(Foreign::Mp3));
            assert_eq!(sniff(head, None), Sniffed::Format(Foreign::Mp3));
        }
        // One that is waited for, whatever is declared.
        assert_eq!(sniff(b"ID3\x04\0\0\0\x03\0\0", Some("audio/aac")), Sniffed::NeedMore);
    }

    #[test]
    fn every_format_has_one_row_a_name_and_types() {
        for (_, format) in HEADS {
            assert_eq!(TABLE.iter().filter(|row| row.format == format).count(), 1);
            assert_eq!(Foreign::from_name(format.name()), Some(format));
            for media_type in format.row().media_types {
                assert_eq!(Foreign::from_media_type(&format!("{}; x=y", media_type.to_uppercase())), Some(format));
            }
        }
        assert!(TABLE.iter().all(|row| HEADS.iter().any(|(_, format)| *format == row.format)));
        assert_eq!(Foreign::from_name("matroska"), None);
        assert_eq!(Foreign::from_media_type("video/mp4"), None);
        assert_eq!(Foreign::from_media_type(""), None);
    }
}
