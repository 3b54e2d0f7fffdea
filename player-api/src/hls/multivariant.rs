//! The multivariant playlist: which renditions there are (RFC 8216 section 4.3.4).

use std::fmt::Write as _;

use super::rendition::RenditionId;

/// One rendition: a track of its own.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rendition {
    /// Which.
    pub id: RenditionId,
    /// URI of its media playlist.
    pub uri: String,
    /// RFC 6381, one for each config, without repeats.
    pub codecs: Vec<String>,
    /// Width and height in pixels, of video.
    pub resolution: Option<(u32, u32)>,
    /// Frames in 1000 s, of video.
    pub milli_fps: Option<u64>,
    /// BCP 47, of audio; empty if unknown.
    pub language: String,
    /// For people; empty if unknown.
    pub name: String,
    /// Of audio.
    pub channels: u16,
    /// URI of the playlist of its keyframes, if there is one.
    pub key_frames: Option<String>,
}

/// A multivariant playlist.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Multivariant {
    /// Of pictures.
    pub video: Vec<Rendition>,
    /// Of sound.
    pub audio: Vec<Rendition>,
    /// Greatest bit rate of a segment, all renditions together.
    pub peak_bps: u64,
    /// Bits over time, all renditions together.
    pub average_bps: u64,
    /// Every segment decodes alone.
    pub independent: bool,
    /// Where playing should begin, from the start of the first segment.
    pub start_offset_ms: Option<i64>,
}

const AUDIO_GROUP: &str = "audio";

/// A quoted-string may not hold quotes or line breaks (RFC 8216 section 4.2).
fn quoted(text: &str) -> String {
    text.chars().filter(|c| *c != '"' && !c.is_control()).collect()
}

impl Multivariant {
    /// Its text.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = "#EXTM3U\n#EXT-X-VERSION:6\n".to_owned();
        if self.independent {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        if let Some(offset_ms) = self.start_offset_ms {
            let _ = writeln!(text, "#EXT-X-START:TIME-OFFSET={},PRECISE=YES", super::media::seconds(offset_ms));
        }
        if self.video.is_empty() {
            self.audio.iter().for_each(|audio| self.variant(&mut text, audio, None));
            return text;
        }
        for (index, audio) in self.audio.iter().enumerate() {
            media_tag(&mut text, audio, index == 0);
        }
        let group = (!self.audio.is_empty()).then_some(AUDIO_GROUP);
        self.video.iter().for_each(|video| self.variant(&mut text, video, group));
        self.video.iter().for_each(|video| self.key_frames(&mut text, video));
        text
    }

    fn variant(&self, text: &mut String, main: &Rendition, group: Option<&str>) {
        let with_main = |others: &[Rendition]| {
            let mut codecs = main.codecs.clone();
            for codec in others.iter().flat_map(|rendition| &rendition.codecs) {
                if !codecs.contains(codec) {
                    codecs.push(codec.clone());
                }
            }
            codecs.join(",")
        };
        let codecs = with_main(if group.is_some() { &self.audio } else { &[] });
        let (peak, average) = (self.peak_bps.max(1), self.average_bps.max(1));
        let _ = write!(text, "#EXT-X-STREAM-INF:BANDWIDTH={peak},AVERAGE-BANDWIDTH={average},CODECS=\"{codecs}\"");
        if let Some((width, height)) = main.resolution {
            let _ = write!(text, ",RESOLUTION={width}x{height}");
        }
        if let Some(milli_fps) = main.milli_fps {
            let _ = write!(text, ",FRAME-RATE={}.{:03}", milli_fps / 1000, milli_fps % 1000);
        }
        if let Some(group) = group {
            let _ = write!(text, ",AUDIO=\"{group}\"");
        }
        let _ = writeln!(text, "\n{}", main.uri);
    }

    /// Keyframes alone need less than the whole, which is said: how much less, only the tables know.
    fn key_frames(&self, text: &mut String, video: &Rendition) {
        let Some(uri) = &video.key_frames else { return };
        let (peak, codecs) = (self.peak_bps.max(1), video.codecs.join(","));
        let _ = write!(text, "#EXT-X-I-FRAME-STREAM-INF:BANDWIDTH={peak},CODECS=\"{codecs}\"");
        if let Some((width, height)) = video.resolution {
            let _ = write!(text, ",RESOLUTION={width}x{height}");
        }
        let _ = writeln!(text, ",URI=\"{uri}\"");
    }
}

fn media_tag(text: &mut String, audio: &Rendition, default: bool) {
    let name =
        if audio.name.is_empty() { audio.id.to_string() } else { format!("{} ({})", quoted(&audio.name), audio.id) };
    let default = if default { "YES" } else { "NO" };
    let _ = write!(text, "#EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID=\"{AUDIO_GROUP}\",NAME=\"{name}\"");
    if !audio.language.is_empty() && audio.language != "und" {
        let _ = write!(text, ",LANGUAGE=\"{}\"", quoted(&audio.language));
    }
    let _ = write!(text, ",DEFAULT={default},AUTOSELECT=YES");
    if audio.channels > 0 {
        let _ = write!(text, ",CHANNELS=\"{}\"", audio.channels);
    }
    let _ = writeln!(text, ",URI=\"{}\"", audio.uri);
}

#[cfg(test)]
mod tests {
    use expect_test::expect;

    use super::*;

    fn rendition(id: &str, codec: &str) -> Rendition {
        Rendition {
            id: RenditionId::parse(id).expect("an id"),
            uri: format!("{id}/index.m3u8?start=1"),
            codecs: vec![codec.into()],
            resolution: None,
            milli_fps: None,
            language: String::new(),
            name: String::new(),
            channels: 0,
            key_frames: None,
        }
    }

    #[test]
    fn video_with_two_audio_renditions() {
        let playlist = Multivariant {
            video: vec![Rendition {
                resolution: Some((320, 180)),
                milli_fps: Some(29_970),
                ..rendition("v1", "avc1.64000d")
            }],
            audio: vec![
                Rendition {
                    language: "en".into(),
                    name: "Ma\"in\n".into(),
                    channels: 2,
                    ..rendition("a1", "mp4a.40.2")
                },
                rendition("a2", "Opus"),
            ],
            peak_bps: 500_000,
            average_bps: 400_000,
            independent: true,
            start_offset_ms: None,
        };
        let text = playlist.render();
        expect![[r#"
            #EXTM3U
            #EXT-X-VERSION:6
            #EXT-X-INDEPENDENT-SEGMENTS
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="Main (a1)",LANGUAGE="en",DEFAULT=YES,AUTOSELECT=YES,CHANNELS="2",URI="a1/index.m3u8?start=1"
            #EXT-X-MEDIA:TYPE=AUDIO,GROUP-ID="audio",NAME="a2",DEFAULT=NO,AUTOSELECT=YES,URI="a2/index.m3u8?start=1"
            #EXT-X-STREAM-INF:BANDWIDTH=500000,AVERAGE-BANDWIDTH=400000,CODECS="avc1.64000d,mp4a.40.2,Opus",RESOLUTION=320x180,FRAME-RATE=29.970,AUDIO="audio"
            v1/index.m3u8?start=1
        "#]]
        .assert_eq(&text);
        let parsed = m3u8_rs::parse_master_playlist_res(text.as_bytes()).expect("m3u8-rs reads it");
        assert_eq!(parsed.variants.len(), 1);
        assert_eq!(parsed.alternatives.len(), 2);
        assert_eq!(parsed.variants[0].audio.as_deref(), Some("audio"));
    }

    #[test]
    fn audio_alone_is_a_variant() {
        let playlist = Multivariant { audio: vec![rendition("a1", "mp4a.40.2")], ..Multivariant::default() };
        expect![[r#"
            #EXTM3U
            #EXT-X-VERSION:6
            #EXT-X-STREAM-INF:BANDWIDTH=1,AVERAGE-BANDWIDTH=1,CODECS="mp4a.40.2"
            a1/index.m3u8?start=1
        "#]]
        .assert_eq(&playlist.render());
    }
}
