//! Containers, a folder each, with equal file names: `demux` (bytes in, events out) and `mux` (samples in, bytes out).

pub mod fmp4;
pub mod mkv;
pub mod ts;

use crate::demux::Demux;

/// A container that is read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Format {
    /// Matroska or WebM (RFC 9559).
    Matroska,
    /// ISO base media file, fragmented (ISO/IEC 14496-12).
    Mp4,
    /// MPEG transport stream (ISO/IEC 13818-1).
    MpegTs,
}

/// What the first bytes of an input say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sniffed {
    /// This format.
    Format(Format),
    /// None that is read here.
    Unknown,
    /// More bytes are needed.
    NeedMore,
}

/// Bytes that are enough to tell every format: two packets of a transport stream, and one byte.
pub const SNIFF_BYTES: usize = 2 * 188 + 1;

const MP4_FIRST_BOXES: [&[u8; 4]; 7] = [b"ftyp", b"styp", b"moov", b"moof", b"free", b"skip", b"mdat"];

/// Tells the format from the first bytes.
#[must_use]
pub fn sniff(head: &[u8]) -> Sniffed {
    if head.starts_with(&[0x1a, 0x45, 0xdf, 0xa3]) {
        return Sniffed::Format(Format::Matroska);
    }
    if head.get(4..8).is_some_and(|kind| MP4_FIRST_BOXES.iter().any(|known| kind == *known)) {
        return Sniffed::Format(Format::Mp4);
    }
    let sync = |at: usize| head.get(at).is_none_or(|byte| *byte == 0x47);
    let could_be_ts = !head.is_empty() && sync(0) && sync(188) && sync(376);
    if head.len() >= SNIFF_BYTES {
        return if could_be_ts { Sniffed::Format(Format::MpegTs) } else { Sniffed::Unknown };
    }
    let could_be_other = head.len() < 8;
    if could_be_ts || could_be_other { Sniffed::NeedMore } else { Sniffed::Unknown }
}

impl Format {
    /// Of a media type (RFC 6838), parameters ignored; none if the type says nothing.
    #[must_use]
    pub fn from_media_type(media_type: &str) -> Option<Self> {
        let essence = media_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "video/x-matroska" | "audio/x-matroska" | "video/matroska" | "audio/matroska" | "video/webm"
            | "audio/webm" => Some(Self::Matroska),
            "video/mp4" | "audio/mp4" | "application/mp4" | "video/iso.segment" => Some(Self::Mp4),
            "video/mp2t" | "video/mpegts" => Some(Self::MpegTs),
            _ => None,
        }
    }

    /// A new demuxer.
    #[must_use]
    pub fn demuxer(self) -> Box<dyn Demux> {
        match self {
            Self::Matroska => Box::new(mkv::Demuxer::new()),
            Self::Mp4 => Box::new(fmp4::Demuxer::new()),
            Self::MpegTs => Box::new(ts::Demuxer::new()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_are_told_from_their_first_bytes() {
        for (name, format) in [
            ("bbb.mkv", Format::Matroska),
            ("vp9_opus.webm", Format::Matroska),
            ("bbb.mp4", Format::Mp4),
            ("bbb_cmaf.mp4", Format::Mp4),
            ("bbb.ts", Format::MpegTs),
        ] {
            let bytes = vidar_fixtures::read(name);
            assert_eq!(sniff(&bytes[..SNIFF_BYTES]), Sniffed::Format(format), "{name}");
            for len in 0..SNIFF_BYTES {
                assert!(matches!(sniff(&bytes[..len]), Sniffed::NeedMore | Sniffed::Format(_)), "{name} {len}");
            }
        }
        assert_eq!(sniff(&vidar_fixtures::read("other.flv")), Sniffed::Unknown);
        assert_eq!(sniff(&[0; SNIFF_BYTES]), Sniffed::Unknown);
        assert_eq!(sniff(b""), Sniffed::NeedMore);
    }

    #[test]
    fn media_types_are_read_without_their_parameters() {
        assert_eq!(Format::from_media_type("Video/MP4; codecs=\"avc1\""), Some(Format::Mp4));
        assert_eq!(Format::from_media_type("application/octet-stream"), None);
    }

    #[test]
    fn what_a_demuxer_holds_is_what_came_and_did_not_go() {
        for name in ["bbb.mkv", "bbb_frag.mp4", "bbb.ts", "av1_opus.mp4", "laced.mkv", "h265.ts"] {
            let bytes = bytes::Bytes::from(vidar_fixtures::read(name));
            let Sniffed::Format(format) = sniff(&bytes[..SNIFF_BYTES]) else { panic!("{name}") };
            let (mut demuxer, mut events) = (format.demuxer(), Vec::new());
            let (mut came, mut went, mut largest, mut held_max) = (0, 0, 0, 0);
            for piece in bytes.chunks(1000) {
                demuxer.push(bytes::Bytes::copy_from_slice(piece), &mut events).unwrap();
                came += piece.len();
                for event in events.drain(..) {
                    if let crate::Event::Sample(sample) = event {
                        went += sample.data.len();
                        largest = largest.max(sample.data.len());
                    }
                }
                assert!(went + demuxer.held_bytes() <= came, "{name}: {} after {came}", demuxer.held_bytes());
                held_max = held_max.max(demuxer.held_bytes());
            }
            assert!(held_max + 1000 >= largest, "{name}: {held_max} bytes with a sample of {largest}");
        }
    }
}
