//! The media playlist: segments of one rendition (RFC 8216 section 4.3.3; `EXT-X-GAP`:
//! draft-pantos-hls-rfc8216bis section 4.4.4.7).

use std::fmt::Write as _;

use vidar_core::time::UnixMs;

/// One segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Segment {
    /// Discontinuities in the stream before it.
    pub discontinuity: u32,
    /// Producer time of its beginning.
    pub start: UnixMs,
    /// To the next one.
    pub duration_ms: u32,
    /// URI of its init segment; none: that of the segment before.
    pub map: Option<String>,
    /// Where its media is.
    pub uri: String,
    /// There is no media for it.
    pub gap: bool,
    /// Its parts, where they are listed.
    pub parts: Vec<Part>,
}

/// A part of a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Part {
    /// In microseconds.
    pub duration_us: u64,
    /// Where its media is.
    pub uri: String,
    /// It decodes alone.
    pub independent: bool,
}

/// The segment that is being recorded: all of a segment but its length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpenSegment {
    /// As of a segment.
    pub discontinuity: u32,
    /// As of a segment.
    pub start: UnixMs,
    /// As of a segment.
    pub map: Option<String>,
    /// Those that are complete.
    pub parts: Vec<Part>,
    /// URI of the next one.
    pub hint: String,
}

/// What makes a playlist one of low latency (draft-pantos-hls-rfc8216bis sections 4.4.3.7 and 4.4.3.8, appendix B).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LowLatency {
    /// No part is longer, in milliseconds.
    pub part_ms: u32,
    /// What is recorded now.
    pub open: Option<OpenSegment>,
    /// So many segments at the beginning are left out: the client has them.
    pub skipped: usize,
    /// Of other renditions: URI of the playlist, the last segment and its last part.
    pub reports: Vec<(String, u64, Option<usize>)>,
}

/// A media playlist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MediaPlaylist {
    /// Media sequence number of the first segment.
    pub sequence: u64,
    /// No segment will be longer, in seconds; raised to what the segments need.
    pub target_s: u32,
    /// Every segment decodes alone.
    pub independent: bool,
    /// Nothing will be added (video on demand).
    pub ended: bool,
    /// Where playing should begin, from the start of the first segment.
    pub start_offset_ms: Option<i64>,
    /// Each segment says when it began, by the producer's clock.
    pub dates: bool,
    /// In order.
    pub segments: Vec<Segment>,
    /// Parts are listed.
    pub low: Option<LowLatency>,
    /// Each segment is a keyframe alone.
    pub key_frames: bool,
}

/// The target duration that these durations need: the longest, rounded to seconds (RFC 8216 section 4.3.3.1).
#[must_use]
pub fn target_s(durations_ms: impl IntoIterator<Item = u32>) -> u32 {
    let longest = durations_ms.into_iter().max().unwrap_or(0);
    (longest.saturating_add(500) / 1000).max(1)
}

/// Milliseconds as decimal seconds.
pub(crate) fn seconds(ms: i64) -> String {
    let (sign, ms) = (if ms < 0 { "-" } else { "" }, ms.unsigned_abs());
    format!("{sign}{}.{:03}", ms / 1000, ms % 1000)
}

impl MediaPlaylist {
    /// Its text.
    #[must_use]
    pub fn render(&self) -> String {
        let target_s = self.target_s.max(target_s(self.segments.iter().map(|segment| segment.duration_ms)));
        let version = match &self.low {
            Some(_) => 9,
            None if self.segments.iter().any(|segment| segment.gap) => 8,
            None => 6,
        };
        let mut text = format!("#EXTM3U\n#EXT-X-VERSION:{version}\n#EXT-X-TARGETDURATION:{target_s}\n");
        if let Some(low) = &self.low {
            low.render_control(&mut text, target_s);
        }
        let _ = writeln!(text, "#EXT-X-MEDIA-SEQUENCE:{}", self.sequence);
        let skipped = self.low.as_ref().map_or(0, |low| low.skipped).min(self.segments.len());
        let mut discontinuity = self.segments.first().map_or(0, |segment| segment.discontinuity);
        if discontinuity > 0 && !self.ended {
            let _ = writeln!(text, "#EXT-X-DISCONTINUITY-SEQUENCE:{discontinuity}");
        }
        if self.ended {
            text.push_str("#EXT-X-PLAYLIST-TYPE:VOD\n");
        }
        if self.key_frames {
            text.push_str("#EXT-X-I-FRAMES-ONLY\n");
        }
        if self.independent {
            text.push_str("#EXT-X-INDEPENDENT-SEGMENTS\n");
        }
        if let Some(offset_ms) = self.start_offset_ms {
            let _ = writeln!(text, "#EXT-X-START:TIME-OFFSET={},PRECISE=YES", seconds(offset_ms));
        }
        if skipped > 0 {
            let _ = writeln!(text, "#EXT-X-SKIP:SKIPPED-SEGMENTS={skipped}");
            discontinuity = self.segments[skipped - 1].discontinuity;
        }
        for segment in &self.segments[skipped..] {
            self.render_jump(&mut text, &mut discontinuity, segment.discontinuity);
            segment.render(&mut text, self.dates);
        }
        if let Some(low) = &self.low {
            if let Some(open) = &low.open {
                self.render_jump(&mut text, &mut discontinuity, open.discontinuity);
                open.render(&mut text, self.dates);
            }
            for (uri, sequence, part) in &low.reports {
                let _ = write!(text, "#EXT-X-RENDITION-REPORT:URI=\"{uri}\",LAST-MSN={sequence}");
                if let Some(part) = part {
                    let _ = write!(text, ",LAST-PART={part}");
                }
                text.push('\n');
            }
        }
        if self.ended {
            text.push_str("#EXT-X-ENDLIST\n");
        }
        text
    }

    /// In a live playlist each tag stands for one discontinuity, so that the sequence adds up as segments leave.
    fn render_jump(&self, text: &mut String, before: &mut u32, now: u32) {
        let jumps = now.abs_diff(*before);
        for _ in 0..(if self.ended { jumps.min(1) } else { jumps }) {
            text.push_str("#EXT-X-DISCONTINUITY\n");
        }
        *before = now;
    }
}

/// Segments that end before so many target durations may be skipped.
pub(super) const SKIP_TARGETS: u32 = 6;

impl LowLatency {
    fn render_control(&self, text: &mut String, target_s: u32) {
        let _ = writeln!(
            text,
            "#EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL={},HOLD-BACK={},PART-HOLD-BACK={}\n\
             #EXT-X-PART-INF:PART-TARGET={}",
            target_s * SKIP_TARGETS,
            target_s * 3,
            seconds(i64::from(self.part_ms) * 3),
            seconds(self.part_ms.into()),
        );
    }
}

impl Segment {
    fn render(&self, text: &mut String, dates: bool) {
        render_begin(text, self.map.as_deref(), dates.then_some(self.start));
        if self.gap {
            text.push_str("#EXT-X-GAP\n");
        }
        self.parts.iter().for_each(|part| part.render(text));
        let _ = writeln!(text, "#EXTINF:{},\n{}", seconds(self.duration_ms.into()), self.uri);
    }
}

impl OpenSegment {
    fn render(&self, text: &mut String, dates: bool) {
        render_begin(text, self.map.as_deref(), dates.then_some(self.start));
        self.parts.iter().for_each(|part| part.render(text));
        let _ = writeln!(text, "#EXT-X-PRELOAD-HINT:TYPE=PART,URI=\"{}\"", self.hint);
    }
}

impl Part {
    fn render(&self, text: &mut String) {
        let (seconds, us) = (self.duration_us / 1_000_000, self.duration_us % 1_000_000);
        let _ = write!(text, "#EXT-X-PART:DURATION={seconds}.{us:06},URI=\"{}\"", self.uri);
        text.push_str(if self.independent { ",INDEPENDENT=YES\n" } else { "\n" });
    }
}

fn render_begin(text: &mut String, map: Option<&str>, date: Option<UnixMs>) {
    if let Some(map) = map {
        let _ = writeln!(text, "#EXT-X-MAP:URI=\"{map}\"");
    }
    if let Some(date) = date {
        let _ = writeln!(text, "#EXT-X-PROGRAM-DATE-TIME:{date}");
    }
}

#[cfg(test)]
mod tests {
    use expect_test::{Expect, expect};

    use super::*;

    fn segment(discontinuity: u32, start_ms: i64, duration_ms: u32, uri: &str) -> Segment {
        let (start, uri) = (UnixMs(start_ms), uri.to_owned());
        Segment { discontinuity, start, duration_ms, map: None, uri, gap: false, parts: Vec::new() }
    }

    fn check(playlist: &MediaPlaylist, expected: Expect) {
        let text = playlist.render();
        expected.assert_eq(&text);
        let parsed = m3u8_rs::parse_media_playlist_res(text.as_bytes()).expect("m3u8-rs reads it");
        assert_eq!(parsed.segments.len(), playlist.segments.len());
        assert_eq!(parsed.media_sequence, playlist.sequence);
        assert_eq!(parsed.end_list, playlist.ended);
        for (theirs, ours) in parsed.segments.iter().zip(&playlist.segments) {
            assert_eq!(theirs.uri, ours.uri);
            assert!((f64::from(theirs.duration) * 1000.0 - f64::from(ours.duration_ms)).abs() < 0.5);
            assert!(theirs.duration.round() as u64 <= parsed.target_duration, "EXTINF over TARGETDURATION");
        }
    }

    #[test]
    fn a_range_with_a_new_run() {
        let playlist = MediaPlaylist {
            sequence: 0,
            target_s: 0,
            independent: true,
            ended: true,
            start_offset_ms: Some(1250),
            dates: true,
            segments: vec![
                Segment { map: Some("init-1.mp4".into()), ..segment(4, 1_000, 2_000, "a.m4s") },
                segment(4, 3_000, 1_500, "b.m4s"),
                Segment { map: Some("init-2.mp4".into()), ..segment(6, 60_000, 2_501, "c.m4s") },
            ],
            low: None,
            key_frames: false,
        };
        check(
            &playlist,
            expect![[r#"
                #EXTM3U
                #EXT-X-VERSION:6
                #EXT-X-TARGETDURATION:3
                #EXT-X-MEDIA-SEQUENCE:0
                #EXT-X-PLAYLIST-TYPE:VOD
                #EXT-X-INDEPENDENT-SEGMENTS
                #EXT-X-START:TIME-OFFSET=1.250,PRECISE=YES
                #EXT-X-MAP:URI="init-1.mp4"
                #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:01.000Z
                #EXTINF:2.000,
                a.m4s
                #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:03.000Z
                #EXTINF:1.500,
                b.m4s
                #EXT-X-DISCONTINUITY
                #EXT-X-MAP:URI="init-2.mp4"
                #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:01:00.000Z
                #EXTINF:2.501,
                c.m4s
                #EXT-X-ENDLIST
            "#]],
        );
    }

    #[test]
    fn a_live_window_with_a_gap() {
        let playlist = MediaPlaylist {
            sequence: 17,
            target_s: 4,
            independent: false,
            ended: false,
            start_offset_ms: None,
            dates: true,
            segments: vec![
                Segment { map: Some("init-1.mp4".into()), ..segment(2, 1_000, 2_000, "a.m4s") },
                Segment { gap: true, ..segment(2, 3_000, 2_000, "b.m4s") },
                segment(4, 5_000, 2_000, "c.m4s"),
            ],
            low: None,
            key_frames: false,
        };
        check(
            &playlist,
            expect![[r#"
                #EXTM3U
                #EXT-X-VERSION:8
                #EXT-X-TARGETDURATION:4
                #EXT-X-MEDIA-SEQUENCE:17
                #EXT-X-DISCONTINUITY-SEQUENCE:2
                #EXT-X-MAP:URI="init-1.mp4"
                #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:01.000Z
                #EXTINF:2.000,
                a.m4s
                #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:03.000Z
                #EXT-X-GAP
                #EXTINF:2.000,
                b.m4s
                #EXT-X-DISCONTINUITY
                #EXT-X-DISCONTINUITY
                #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:05.000Z
                #EXTINF:2.000,
                c.m4s
            "#]],
        );
    }

    #[test]
    fn a_live_window_with_parts() {
        let part = |name: &str, duration_us, independent| Part { duration_us, uri: name.into(), independent };
        let open = OpenSegment {
            discontinuity: 1,
            start: UnixMs(7_000),
            map: Some("init-2.mp4".into()),
            parts: vec![part("d.0.m4s", 200_000, true)],
            hint: "d.1.m4s".into(),
        };
        let low = LowLatency {
            part_ms: 209,
            open: Some(open),
            skipped: 2,
            reports: vec![("../a1/live.m3u8".into(), 20, Some(0)), ("../a2/live.m3u8".into(), 19, None)],
        };
        let playlist = MediaPlaylist {
            sequence: 17,
            target_s: 2,
            independent: true,
            ended: false,
            start_offset_ms: None,
            dates: true,
            segments: vec![
                Segment { map: Some("init-1.mp4".into()), ..segment(0, 1_000, 2_000, "a.m4s") },
                segment(0, 3_000, 2_000, "b.m4s"),
                Segment {
                    parts: vec![part("c.0.m4s", 200_000, true), part("c.1.m4s", 33_333, false)],
                    ..segment(0, 5_000, 2_000, "c.m4s")
                },
            ],
            low: Some(low),
            key_frames: false,
        };
        expect![[r#"
            #EXTM3U
            #EXT-X-VERSION:9
            #EXT-X-TARGETDURATION:2
            #EXT-X-SERVER-CONTROL:CAN-BLOCK-RELOAD=YES,CAN-SKIP-UNTIL=12,HOLD-BACK=6,PART-HOLD-BACK=0.627
            #EXT-X-PART-INF:PART-TARGET=0.209
            #EXT-X-MEDIA-SEQUENCE:17
            #EXT-X-INDEPENDENT-SEGMENTS
            #EXT-X-SKIP:SKIPPED-SEGMENTS=2
            #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:05.000Z
            #EXT-X-PART:DURATION=0.200000,URI="c.0.m4s",INDEPENDENT=YES
            #EXT-X-PART:DURATION=0.033333,URI="c.1.m4s"
            #EXTINF:2.000,
            c.m4s
            #EXT-X-DISCONTINUITY
            #EXT-X-MAP:URI="init-2.mp4"
            #EXT-X-PROGRAM-DATE-TIME:1970-01-01T00:00:07.000Z
            #EXT-X-PART:DURATION=0.200000,URI="d.0.m4s",INDEPENDENT=YES
            #EXT-X-PRELOAD-HINT:TYPE=PART,URI="d.1.m4s"
            #EXT-X-RENDITION-REPORT:URI="../a1/live.m3u8",LAST-MSN=20,LAST-PART=0
            #EXT-X-RENDITION-REPORT:URI="../a2/live.m3u8",LAST-MSN=19
        "#]]
        .assert_eq(&playlist.render());
    }

    #[test]
    fn the_target_is_the_longest_rounded() {
        assert_eq!(target_s([]), 1);
        assert_eq!(target_s([200]), 1);
        assert_eq!(target_s([2_499, 1_000]), 2);
        assert_eq!(target_s([2_500]), 3);
        assert_eq!(seconds(-1_050), "-1.050");
    }
}
