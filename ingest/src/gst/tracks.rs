//! Caps of GStreamer as tracks of ours, and the elements that bring a track into the form that we keep.

use bytes::{BufMut, Bytes, BytesMut};
use gstreamer as gst;
use vidar_core::limits::CODEC_PRIVATE_BYTES_MAX;
use vidar_core::track::{AudioParams, Codec, NalFraming, PcmFormat, Track, TrackKind, Trims, VideoParams};
use vidar_media::codec::{aac, h264, h265, opus};

use super::message::TIMESCALE_HZ;

/// The parser of a codec, and the caps that are wanted behind it.
pub(super) struct Parsing {
    pub(super) parser: &'static str,
    pub(super) caps: &'static str,
}

/// The only parsers that the helper makes. What has none goes on as the demuxer gives it.
pub(super) fn parsing(caps: &gst::CapsRef) -> Option<Parsing> {
    let structure = caps.structure(0)?;
    let version = structure.get::<i32>("mpegversion").unwrap_or(0);
    let (parser, caps) = match (structure.name().as_str(), version) {
        ("video/x-h264", _) => ("h264parse", "video/x-h264,stream-format=avc,alignment=au"),
        ("video/x-h265", _) => ("h265parse", "video/x-h265,stream-format=hvc1,alignment=au"),
        ("video/mpeg", 1 | 2) => ("mpegvideoparse", "video/mpeg"),
        ("video/mpeg", 4) => ("mpeg4videoparse", "video/mpeg"),
        ("audio/mpeg", 2 | 4) => ("aacparse", "audio/mpeg,stream-format=raw"),
        ("audio/mpeg", 1) => ("mpegaudioparse", "audio/mpeg"),
        ("audio/x-ac3" | "audio/x-private1-ac3" | "audio/x-eac3", _) => ("ac3parse", "ANY"),
        ("audio/x-flac", _) => ("flacparse", "audio/x-flac"),
        ("audio/x-opus", _) => ("opusparse", "audio/x-opus"),
        ("audio/x-vorbis", _) => ("vorbisparse", "audio/x-vorbis"),
        ("video/x-theora", _) => ("theoraparse", "video/x-theora"),
        _ => return None,
    };
    Some(Parsing { parser, caps })
}

/// The track that the caps describe. What is not understood, or not in the form that its codec needs, is opaque.
pub(super) fn track(caps: &gst::CapsRef, number: u64) -> Option<Track> {
    let structure = caps.structure(0)?;
    let mapped = Mapping { structure, number }.known();
    let track = mapped.unwrap_or_else(|| Mapping { structure, number }.opaque());
    (track.codec_private.len() <= CODEC_PRIVATE_BYTES_MAX).then_some(track)
}

/// The packet is a header of its codec, which stands in the codec private data already (Vorbis I section 4.2.1, Theora
/// section 6.1, RFC 7845 section 5).
pub(super) fn is_header(track: &Track, data: &[u8]) -> bool {
    match track.codec_id.as_str() {
        "A_VORBIS" => data.first().is_none_or(|byte| byte & 1 != 0),
        "V_THEORA" => data.first().is_some_and(|byte| byte & 0x80 != 0),
        // Frames begin with fourteen ones (RFC 9639 section 9.1).
        "A_FLAC" => !data.starts_with(&[0xff]),
        "A_OPUS" => data.starts_with(b"OpusHead") || data.starts_with(b"OpusTags"),
        _ => false,
    }
}

/// A track without private data.
pub(super) fn plain(kind: TrackKind, codec: Codec, codec_id: &str, source_number: u64) -> Track {
    Track {
        source_number,
        kind,
        codec,
        codec_id: codec_id.to_owned(),
        codec_private: Bytes::new(),
        timescale_hz: TIMESCALE_HZ,
        framing: NalFraming::None,
        in_band_parameter_sets: false,
        video: None,
        audio: None,
        default_duration_ticks: None,
        trims: Trims::default(),
        language: String::new(),
        name: String::new(),
    }
}

struct Mapping<'a> {
    structure: &'a gst::StructureRef,
    number: u64,
}

impl Mapping<'_> {
    fn known(&self) -> Option<Track> {
        let data = self.codec_data();
        match self.structure.name().as_str() {
            "video/x-h264" => {
                let record = h264::parse_avcc(&data).ok()?;
                Some(self.nal_units(Codec::H264, "V_MPEG4/ISO/AVC", data, record.length_size))
            }
            "video/x-h265" => {
                let record = h265::parse_hvcc(&data).ok()?;
                Some(self.nal_units(Codec::H265, "V_MPEGH/ISO/HEVC", data, record.length_size))
            }
            "video/x-vp8" => Some(self.video(Codec::Vp8, "V_VP8")),
            "video/x-vp9" => Some(self.video(Codec::Vp9, "V_VP9")),
            "audio/mpeg" => self.mpeg_audio(&data),
            "audio/x-opus" => {
                let first = self.stream_headers().into_iter().next().unwrap_or_default();
                let channels = || u8::try_from(self.int("channels")).ok();
                let head = opus::OpusHead::parse(&first).ok().or_else(|| opus::OpusHead::new(channels()?).ok())?;
                Some(Track { codec_id: "A_OPUS".into(), ..opus::track_of(&head, self.number, TIMESCALE_HZ) })
            }
            "audio/x-mulaw" => Some(self.audio(Codec::G711Ulaw, "audio/x-mulaw", 8)),
            "audio/x-alaw" => Some(self.audio(Codec::G711Alaw, "audio/x-alaw", 8)),
            "audio/x-raw" => {
                let format = pcm(self.structure.get::<&str>("format").ok()?)?;
                Some(self.audio(Codec::Pcm(format), "audio/x-raw", format.bits))
            }
            _ => None,
        }
    }

    fn mpeg_audio(&self, data: &Bytes) -> Option<Track> {
        if self.int("mpegversion") == 1 {
            let codec_id = format!("A_MPEG/L{}", self.int("layer").clamp(1, 3));
            return Some(self.audio(Codec::Mp3, &codec_id, 0));
        }
        let track = aac::track(data, self.number, TIMESCALE_HZ).ok()?;
        Some(Track { codec_id: "A_AAC".into(), default_duration_ticks: None, ..track })
    }

    /// Named as Matroska names it where it does, so that a Matroska clip carries it (RFC 9559 section 5.1.4.1.21).
    fn opaque(&self) -> Track {
        let name = self.structure.name().as_str();
        let headers = || xiph_laced(&self.stream_headers()).unwrap_or_default();
        let (codec_id, codec_private) = match (name, self.int("mpegversion")) {
            ("image/jpeg", _) => ("V_MJPEG", Bytes::new()),
            ("video/mpeg", 1) => ("V_MPEG1", self.codec_data()),
            ("video/mpeg", 2) => ("V_MPEG2", self.codec_data()),
            ("video/mpeg", 4) => ("V_MPEG4/ISO/ASP", self.codec_data()),
            ("video/x-theora", _) => ("V_THEORA", headers()),
            ("audio/x-vorbis", _) => ("A_VORBIS", headers()),
            ("audio/x-flac", _) => ("A_FLAC", flac_private(&self.stream_headers()).unwrap_or_default()),
            ("audio/x-ac3", _) => ("A_AC3", Bytes::new()),
            ("audio/x-eac3", _) => ("A_EAC3", Bytes::new()),
            _ => (name, self.codec_data()),
        };
        let track = match name.split('/').next() {
            Some("video" | "image") => self.video(Codec::Opaque, codec_id),
            Some("audio") => self.audio(Codec::Opaque, codec_id, 0),
            Some("text" | "subpicture" | "subtitle") => {
                plain(TrackKind::Subtitle, Codec::Opaque, codec_id, self.number)
            }
            _ => plain(TrackKind::Data, Codec::Opaque, codec_id, self.number),
        };
        Track { codec_private, ..track }
    }

    fn nal_units(&self, codec: Codec, codec_id: &str, codec_private: Bytes, length_size: u8) -> Track {
        let framing = NalFraming::LengthPrefixed(length_size);
        Track { codec_private, framing, in_band_parameter_sets: true, ..self.video(codec, codec_id) }
    }

    fn video(&self, codec: Codec, codec_id: &str) -> Track {
        let video = VideoParams { width: self.int("width"), height: self.int("height") };
        Track { video: Some(video), ..plain(TrackKind::Video, codec, codec_id, self.number) }
    }

    fn audio(&self, codec: Codec, codec_id: &str, bits: u8) -> Track {
        let channels = u16::try_from(self.int("channels")).unwrap_or(0);
        let audio = AudioParams { sample_rate_hz: self.int("rate"), channels, bits: bits.into() };
        Track { audio: Some(audio), ..plain(TrackKind::Audio, codec, codec_id, self.number) }
    }

    /// 0 if it is not there, or negative.
    fn int(&self, field: &str) -> u32 {
        self.structure.get::<i32>(field).ok().and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
    }

    fn codec_data(&self) -> Bytes {
        self.structure.get::<gst::Buffer>("codec_data").map(|buffer| bytes_of(&buffer)).unwrap_or_default()
    }

    fn stream_headers(&self) -> Vec<Bytes> {
        let Ok(headers) = self.structure.get::<gst::ArrayRef<'_>>("streamheader") else { return Vec::new() };
        let buffers = headers.iter().filter_map(|value| value.get::<gst::Buffer>().ok());
        buffers.map(|buffer| bytes_of(&buffer)).collect()
    }
}

/// A copy; empty if it cannot be mapped.
pub(super) fn bytes_of(buffer: &gst::BufferRef) -> Bytes {
    buffer.map_readable().map(|map| Bytes::copy_from_slice(map.as_slice())).unwrap_or_default()
}

/// `fLaC` and STREAMINFO, marked as the last block: what Matroska keeps, without tags and padding. `headers` are those
/// of FLAC in Ogg (RFC 9639 sections 10.1, 8.1).
fn flac_private(headers: &[Bytes]) -> Option<Bytes> {
    let native = headers.first()?.strip_prefix(b"\x7fFLAC")?.get(4..4 + 42)?;
    let mut out = BytesMut::from(native);
    *out.get_mut(4)? |= 0x80;
    Some(out.freeze())
}

/// Headers in one, as Matroska keeps those of Vorbis and Theora: their number less 1, the lengths of all but the last in
/// Xiph lacing, the headers.
fn xiph_laced(headers: &[Bytes]) -> Option<Bytes> {
    let (_, all_but_last) = headers.split_last()?;
    let mut out = BytesMut::new();
    out.put_u8(u8::try_from(all_but_last.len()).ok()?);
    for header in all_but_last {
        out.put_bytes(0xff, header.len() / 255);
        out.put_u8((header.len() % 255) as u8);
    }
    headers.iter().for_each(|header| out.put_slice(header));
    Some(out.freeze())
}

/// Of GStreamer's name of a sample format, such as `S16LE`.
fn pcm(name: &str) -> Option<PcmFormat> {
    let (kind, rest) = name.split_at_checked(1)?;
    let digits = rest.trim_end_matches(|letter: char| !letter.is_ascii_digit());
    let bits = digits.parse().ok().filter(|bits| [8, 16, 24, 32, 64].contains(bits))?;
    let big_endian = match &rest[digits.len()..] {
        "LE" | "" => false,
        "BE" => true,
        _ => return None,
    };
    match kind {
        "S" => Some(PcmFormat { bits, big_endian, float: false, signed: true }),
        "U" if bits == 8 => Some(PcmFormat { bits, big_endian, float: false, signed: false }),
        "F" if bits >= 32 => Some(PcmFormat { bits, big_endian, float: true, signed: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sample_formats_are_read() {
        let format = |bits, big_endian, float, signed| Some(PcmFormat { bits, big_endian, float, signed });
        assert_eq!(pcm("S16LE"), format(16, false, false, true));
        assert_eq!(pcm("S24BE"), format(24, true, false, true));
        assert_eq!(pcm("U8"), format(8, false, false, false));
        assert_eq!(pcm("F32LE"), format(32, false, true, true));
        for other in ["", "S", "S20LE", "U16LE", "S24_32LE", "F16LE", "é"] {
            assert_eq!(pcm(other), None, "{other}");
        }
    }

    #[test]
    fn headers_are_laced_as_xiph_does() {
        let headers = [vec![1; 30], vec![2; 510], vec![3; 7]].map(Bytes::from);
        let laced = xiph_laced(&headers).unwrap();
        assert_eq!(laced[..5], [2, 30, 255, 255, 0]);
        assert_eq!(laced[5..], headers.concat());
        assert_eq!(xiph_laced(&[]), None);
    }

    #[test]
    fn header_packets_are_told_from_sound() {
        let vorbis = plain(TrackKind::Audio, Codec::Opaque, "A_VORBIS", 1);
        assert!(is_header(&vorbis, b"\x03vorbis"));
        assert!(!is_header(&vorbis, &[0x2c, 1]));
        let opus = plain(TrackKind::Audio, Codec::Opus, "A_OPUS", 1);
        assert!(is_header(&opus, b"OpusTags\0"));
        assert!(!is_header(&opus, &[0xfc]));
        assert!(!is_header(&plain(TrackKind::Audio, Codec::Mp3, "A_MPEG/L3", 1), b"\x03vorbis"));
    }
}
