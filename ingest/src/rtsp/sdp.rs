//! What a publisher announces (SDP, RFC 8866), read by `sdp-types` after cleaning.
//!
//! Cameras write SDP that no strict parser takes: no origin, trailing spaces, binary in session names, media lines
//! without a payload type. Only the lines that matter here are kept (`m=` and `a=`), each repaired or left out on its
//! own, so that a bad line costs at most its track.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::alphabet::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use sdp_types::Session;

/// Most media sections that are looked at.
const MEDIA_COUNT_MAX: usize = 32;

/// An announced session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// Session-level `a=control`, if it is an absolute URI.
    pub(crate) base: Option<String>,
    /// In order of the text.
    pub(crate) medias: Vec<Media>,
}

/// One media section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Media {
    /// Position in the text.
    pub(crate) index: usize,
    /// `video`, `audio`, `application` …
    pub(crate) kind: String,
    /// Of the format that is read: the first that has a clock rate.
    pub(crate) payload_type: u8,
    /// Encoding name in upper case.
    pub(crate) encoding: String,
    /// RTP clock rate.
    pub(crate) clock_hz: u32,
    /// As `rtpmap` says, else 1.
    pub(crate) channels: u16,
    /// Format parameters, names in lower case.
    pub(crate) fmtp: BTreeMap<String, String>,
    /// `a=control`.
    pub(crate) control: Option<String>,
}

/// The text is no SDP of a publisher.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct SdpError(String);

impl Description {
    /// Reads any bytes. Sections that make no sense keep their place, with an empty encoding.
    pub(crate) fn parse(text: &[u8]) -> Result<Self, SdpError> {
        let session = Session::parse(clean(text).as_bytes()).map_err(|error| SdpError(error.to_string()))?;
        if session.medias.is_empty() {
            return Err(SdpError("no media section (m=)".into()));
        }
        let base = session.get_first_attribute_value("control").flatten().filter(|value| value.contains("://"));
        let medias = session.medias.iter().take(MEDIA_COUNT_MAX).enumerate();
        Ok(Self { base: base.map(str::to_owned), medias: medias.map(|(index, media)| read(index, media)).collect() })
    }
}

impl Media {
    /// A format parameter.
    pub(crate) fn parameter(&self, name: &str) -> Option<&str> {
        self.fmtp.get(name).map(String::as_str)
    }

    /// A format parameter that is a number; `absent` if it is not there or none.
    pub(crate) fn number(&self, name: &str, absent: u32) -> u32 {
        self.parameter(name).and_then(|value| value.parse().ok()).unwrap_or(absent)
    }

    /// A format parameter of hexadecimal digits.
    pub(crate) fn hex(&self, name: &str) -> Option<Vec<u8>> {
        let text = self.parameter(name)?;
        let digits: Vec<u32> = text.chars().map_while(|c| c.to_digit(16)).collect();
        // An odd digit at the end: half a byte of padding.
        let bytes = digits.chunks(2).map(|pair| (pair[0] << 4 | pair.get(1).copied().unwrap_or(0)) as u8).collect();
        Some(bytes).filter(|bytes: &Vec<u8>| !bytes.is_empty())
    }

    /// A format parameter that is a list of base64 strings; what does not decode is left out.
    pub(crate) fn base64_list(&self, name: &str) -> Vec<Bytes> {
        let config = GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true);
        let engine = GeneralPurpose::new(&STANDARD, config);
        let items = self.parameter(name).unwrap_or_default().split(',');
        items.filter_map(|item| engine.decode(item.trim()).ok()).filter(|b| !b.is_empty()).map(Bytes::from).collect()
    }
}

fn clean(text: &[u8]) -> String {
    let text = String::from_utf8_lossy(text);
    let mut out = String::from("v=0\r\n");
    for line in text.split(['\r', '\n', '\0']).map(str::trim) {
        if let Some(media) = line.strip_prefix("m=") {
            out.push_str(&clean_media_line(media));
        } else if line.strip_prefix("a=").is_some_and(|attribute| !attribute.is_empty()) {
            out.push_str(line);
        } else {
            continue;
        }
        out.push_str("\r\n");
    }
    out
}

/// `<media> <port> <proto> <fmt> …`; the port is of no use to a publisher.
fn clean_media_line(line: &str) -> String {
    let mut fields = line.split_whitespace();
    let kind = fields.next().unwrap_or("unknown");
    let rest: Vec<&str> = fields.skip(1).collect();
    match rest.split_first() {
        Some((proto, formats)) if !formats.is_empty() => format!("m={kind} 0 {proto} {}", formats.join(" ")),
        _ => format!("m={kind} 0 RTP/AVP unknown"),
    }
}

fn read(index: usize, media: &sdp_types::Media) -> Media {
    let values = |name: &'static str| {
        let of_name = media.attributes.iter().filter(move |attribute| attribute.attribute.eq_ignore_ascii_case(name));
        of_name.filter_map(|attribute| attribute.value.as_deref()).map(str::trim)
    };
    let maps: BTreeMap<u8, Rtpmap> = values("rtpmap").filter_map(Rtpmap::parse).collect();
    let mut types = media.fmt.split(' ').filter_map(|format| format.parse::<u8>().ok()).filter(|kind| *kind < 128);
    let format = types
        .find_map(|kind| Some((kind, maps.get(&kind).cloned().or_else(|| Rtpmap::of_static(kind))?)))
        // A media line that names no payload type: what it maps is what it sends.
        .or_else(|| maps.first_key_value().map(|(kind, map)| (*kind, map.clone())));
    let (payload_type, map) = format.unwrap_or_default();
    let fmtp = values("fmtp").filter_map(|value| split_type(value)).filter(|(kind, _)| *kind == payload_type);
    Media {
        index,
        kind: media.media.to_ascii_lowercase(),
        payload_type,
        encoding: map.encoding,
        clock_hz: map.clock_hz,
        channels: map.channels,
        fmtp: fmtp.flat_map(|(_, value)| parameters(value)).collect(),
        control: values("control").next().filter(|value| !value.is_empty()).map(str::to_owned),
    }
}

/// `96 rest`.
fn split_type(value: &str) -> Option<(u8, &str)> {
    let (kind, rest) = value.split_once(char::is_whitespace)?;
    Some((kind.parse().ok().filter(|kind| *kind < 128)?, rest.trim()))
}

fn parameters(value: &str) -> impl Iterator<Item = (String, String)> + '_ {
    value.split(';').filter_map(|pair| {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let (name, value) = (name.trim().to_ascii_lowercase(), value.trim().trim_matches('"'));
        (!name.is_empty()).then(|| (name, value.to_owned()))
    })
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct Rtpmap {
    encoding: String,
    clock_hz: u32,
    channels: u16,
}

impl Rtpmap {
    /// `96 MPEG4-GENERIC/48000/2`.
    fn parse(value: &str) -> Option<(u8, Self)> {
        let (kind, rest) = split_type(value)?;
        let mut fields = rest.split('/').map(str::trim);
        let encoding = fields.next()?.to_ascii_uppercase();
        let clock_hz = fields.next().and_then(|field| {
            let digits = field.split(|c: char| !c.is_ascii_digit()).next()?;
            digits.parse().ok().filter(|hz| *hz > 0)
        });
        let channels = fields.next().and_then(|field| field.parse().ok()).filter(|count| *count > 0).unwrap_or(1);
        let clock_hz = clock_hz.or(matches!(&encoding[..], "H264" | "H265").then_some(90_000))?;
        Some((kind, Self { encoding, clock_hz, channels }))
    }

    /// Payload types that need no `rtpmap` (RFC 3551 table 4).
    fn of_static(kind: u8) -> Option<Self> {
        let (encoding, clock_hz, channels) = match kind {
            0 => ("PCMU", 8000, 1),
            8 => ("PCMA", 8000, 1),
            10 => ("L16", 44_100, 2),
            11 => ("L16", 44_100, 1),
            14 => ("MPA", 90_000, 1),
            _ => return None,
        };
        Some(Self { encoding: encoding.to_owned(), clock_hz, channels })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(text: &str) -> Media {
        Description::parse(text.as_bytes()).unwrap().medias.remove(0)
    }

    #[test]
    fn what_ffmpeg_announces() {
        let text = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=No Name\r\nc=IN IP4 127.0.0.1\r\nt=0 0\r\n\
            m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\n\
            a=fmtp:96 packetization-mode=1; sprop-parameter-sets=Z2QADA==,aO88sA==; profile-level-id=64000C\r\n\
            a=control:streamid=0\r\n\
            m=audio 0 RTP/AVP 97\r\nb=AS:64\r\na=rtpmap:97 MPEG4-GENERIC/48000/2\r\n\
            a=fmtp:97 mode=AAC-hbr;sizelength=13; config=118856E500\r\na=control:streamid=1\r\n";
        let description = Description::parse(text.as_bytes()).unwrap();
        assert_eq!(description.base, None);
        let [video, audio] = &description.medias[..] else { panic!("two sections") };
        assert_eq!(
            (&video.kind[..], video.payload_type, &video.encoding[..], video.clock_hz),
            ("video", 96, "H264", 90_000)
        );
        assert_eq!(video.base64_list("sprop-parameter-sets"), [&[0x67, 0x64, 0, 0x0c][..], &[0x68, 0xef, 0x3c, 0xb0]]);
        assert_eq!(video.number("packetization-mode", 0), 1);
        assert_eq!((audio.channels, audio.clock_hz, audio.control.as_deref()), (2, 48_000, Some("streamid=1")));
        assert_eq!(audio.hex("config").unwrap(), [0x11, 0x88, 0x56, 0xe5, 0x00]);
    }

    #[test]
    fn cameras_that_break_the_grammar() {
        // No origin, bare line feeds, a clock rate with a trailing space, `control` first.
        let video = media("v=0\ns=\nm=video 0 RTP/AVP 96\na=control:trackID=1 \na=rtpmap:96 H264/90000 \n");
        assert_eq!((video.clock_hz, video.control.as_deref()), (90_000, Some("trackID=1")));
        // A payload type that is none; the map says what is meant.
        let smart = media("v=0\r\nm=video 0 RTP/AVP smart/1/90000\r\na=rtpmap:97 H265/90000\r\n");
        assert_eq!((smart.payload_type, &smart.encoding[..]), (97, "H265"));
        // No version line, a line that is none, binary in the session name.
        let odd = [&b"s=\xff\xfe\0\r\nrubbish\r\nm=audio 0 RTP/AVP 8\r\na=\r\n"[..]].concat();
        assert_eq!(Description::parse(&odd).unwrap().medias[0].encoding, "PCMA");
        // A section that cannot be understood keeps its place.
        let text = "v=0\r\nm=application\r\nm=video 0 RTP/AVP 96\r\na=rtpmap:96 H264\r\n";
        let description = Description::parse(text.as_bytes()).unwrap();
        assert_eq!(description.medias[0].encoding, "");
        assert_eq!((description.medias[1].index, description.medias[1].clock_hz), (1, 90_000));
        // Of several formats the first that is mapped.
        let several = media("v=0\r\nm=audio 0 RTP/AVP 77 0 96\r\na=rtpmap:96 opus/48000/2\r\n");
        assert_eq!(several.encoding, "PCMU");
    }

    #[test]
    fn a_text_without_media_is_refused() {
        for text in [&b""[..], b"v=0\r\ns=x\r\n", b"<html>", &[0xff; 100]] {
            assert!(Description::parse(text).is_err());
        }
    }

    #[test]
    fn parameters_that_do_not_decode_are_left_out() {
        let video = media(
            "m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=fmtp:96 sprop-parameter-sets=!!,aO88sA; ;=x;A=\"b\"",
        );
        assert_eq!(video.base64_list("sprop-parameter-sets").len(), 1);
        assert_eq!(video.parameter("a"), Some("b"));
        assert_eq!(video.hex("sprop-parameter-sets"), None);
        assert_eq!(video.number("a", 7), 7);
    }
}
