//! Which formats, and which elements may touch them.

/// A container that GStreamer reads.
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
}

struct Row {
    format: Foreign,
    name: &'static str,
    /// What the input starts with; `None` is any byte.
    magic: &'static [Option<u8>],
    media_types: &'static [&'static str],
    /// The only demuxer that the helper makes for the format.
    demuxer: &'static str,
}

const ANY: Option<u8> = None;

const TABLE: [Row; 4] = [
    Row {
        format: Foreign::Flv,
        name: "flv",
        magic: &[Some(b'F'), Some(b'L'), Some(b'V'), Some(1)],
        media_types: &["video/x-flv", "video/flv"],
        demuxer: "flvdemux",
    },
    Row {
        format: Foreign::Avi,
        name: "avi",
        magic: &[
            Some(b'R'),
            Some(b'I'),
            Some(b'F'),
            Some(b'F'),
            ANY,
            ANY,
            ANY,
            ANY,
            Some(b'A'),
            Some(b'V'),
            Some(b'I'),
            Some(b' '),
        ],
        media_types: &["video/x-msvideo", "video/avi", "video/vnd.avi"],
        demuxer: "avidemux",
    },
    Row {
        format: Foreign::Ogg,
        name: "ogg",
        magic: &[Some(b'O'), Some(b'g'), Some(b'g'), Some(b'S')],
        media_types: &["video/ogg", "audio/ogg", "application/ogg"],
        demuxer: "oggdemux",
    },
    Row {
        format: Foreign::MpegPs,
        name: "mpeg-ps",
        magic: &[Some(0), Some(0), Some(1), Some(0xba)],
        media_types: &["video/mp2p", "video/mpeg"],
        demuxer: "mpegpsdemux",
    },
];

impl Foreign {
    /// Of the first bytes of an input.
    #[must_use]
    pub fn sniff(head: &[u8]) -> Option<Self> {
        TABLE.iter().find(|row| head.len() >= row.magic.len() && row.fits(head)).map(|row| row.format)
    }

    /// More bytes could make it one of these.
    #[must_use]
    pub fn could_be(head: &[u8]) -> bool {
        TABLE.iter().any(|row| head.len() < row.magic.len() && row.fits(head))
    }

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

    /// The GStreamer element that takes it apart.
    #[must_use]
    pub(super) fn demuxer(self) -> &'static str {
        self.row().demuxer
    }

    fn row(self) -> &'static Row {
        TABLE.iter().find(|row| row.format == self).expect("every format has a row")
    }
}

impl Row {
    /// As far as both go.
    fn fits(&self, head: &[u8]) -> bool {
        self.magic.iter().zip(head).all(|(wanted, byte)| wanted.is_none_or(|wanted| wanted == *byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: [(&[u8], Foreign); 4] = [
        (b"FLV\x01\x05", Foreign::Flv),
        (b"RIFF\x10\x20\x30\x40AVI LIST", Foreign::Avi),
        (b"OggS\0\x02", Foreign::Ogg),
        (&[0, 0, 1, 0xba, 0x44], Foreign::MpegPs),
    ];

    #[test]
    fn formats_are_told_by_their_first_bytes() {
        for (head, format) in HEADS {
            assert_eq!(Foreign::sniff(head), Some(format));
            let needed = format.row().magic.len();
            for len in 0..needed {
                assert_eq!(Foreign::sniff(&head[..len]), None, "{format:?} {len}");
                assert!(Foreign::could_be(&head[..len]), "{format:?} {len}");
            }
            assert!(!Foreign::could_be(head));
        }
        assert_eq!(Foreign::sniff(&vidar_fixtures::read("other.flv")), Some(Foreign::Flv));
        assert_eq!(Foreign::sniff(&vidar_fixtures::read("other.avi")), Some(Foreign::Avi));
        for other in [&b"FLV\x02"[..], b"RIFF....WAVEfmt ", &[0, 0, 1, 0xb3], b"\x1a\x45\xdf\xa3"] {
            assert_eq!(Foreign::sniff(other), None);
            assert!(!Foreign::could_be(other), "{other:?}");
        }
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
        assert_eq!(Foreign::from_name("matroska"), None);
        assert_eq!(Foreign::from_media_type("video/mp4"), None);
        assert_eq!(Foreign::from_media_type(""), None);
    }
}
