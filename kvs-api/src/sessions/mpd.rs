//! The text of a manifest (ISO/IEC 23009-1).

use std::fmt::Write as _;

use vidar_core::ids::FragmentNumber;
use vidar_core::time::UnixMs;
use vidar_player_api::hls::Rendition;

/// A manifest.
#[derive(Debug, Clone)]
pub(super) struct Manifest {
    pub(super) timing: Timing,
    /// Of all URIs.
    pub(super) base: String,
    pub(super) periods: Vec<Period>,
}

/// Whether it grows.
#[derive(Debug, Clone, Copy)]
pub(super) enum Timing {
    Static {
        duration_ms: i64,
    },
    Dynamic {
        available_from: UnixMs,
        published: UnixMs,
        /// Media that it lists.
        buffer_ms: i64,
        /// Longest segment.
        target_s: u32,
    },
}

/// Media without a break.
#[derive(Debug, Clone)]
pub(super) struct Period {
    /// From the manifest's beginning.
    pub(super) start_ms: i64,
    /// Media time at its start.
    pub(super) offset_ms: i64,
    pub(super) shows_times: bool,
    pub(super) shows_numbers: bool,
    pub(super) representations: Vec<Representation>,
}

/// A track.
#[derive(Debug, Clone)]
pub(super) struct Representation {
    pub(super) rendition: Rendition,
    /// Of all tracks together.
    pub(super) bandwidth_bps: u64,
    pub(super) init: String,
    /// When its segments begin; as many as there are URIs.
    pub(super) lines: Vec<Line>,
    pub(super) uris: Vec<String>,
}

/// A segment's place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Line {
    pub(super) at_ms: i64,
    pub(super) duration_ms: i64,
    pub(super) producer_ms: i64,
    pub(super) number: FragmentNumber,
}

/// For an attribute.
fn escaped(text: &str) -> String {
    let plain = text.replace('&', "&amp;").replace('<', "&lt;").replace('"', "&quot;");
    plain.chars().filter(|c| !c.is_control()).collect()
}

fn duration(ms: i64) -> String {
    let ms = ms.max(0);
    format!("PT{}.{:03}S", ms / 1000, ms % 1000)
}

impl Manifest {
    /// Its text.
    pub(super) fn render(&self) -> String {
        let mut text = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<MPD xmlns=\"urn:mpeg:dash:schema:mpd:2011\" \
                        xmlns:kvs=\"http://kinesisvideo.amazonaws.com/schema/dash\" \
                        profiles=\"urn:mpeg:dash:profile:isoff-main:2011\""
            .to_owned();
        let _ = match self.timing {
            Timing::Static { duration_ms } => {
                let total = duration(duration_ms);
                writeln!(text, " type=\"static\" mediaPresentationDuration=\"{total}\" minBufferTime=\"PT2S\">")
            }
            Timing::Dynamic { available_from, published, buffer_ms, target_s } => writeln!(
                text,
                " type=\"dynamic\" availabilityStartTime=\"{available_from}\" publishTime=\"{published}\" \
                 minimumUpdatePeriod=\"PT{target_s}S\" timeShiftBufferDepth=\"{}\" \
                 suggestedPresentationDelay=\"PT{}S\" minBufferTime=\"PT2S\">",
                duration(buffer_ms),
                target_s.saturating_mul(2)
            ),
        };
        let _ = writeln!(text, "<BaseURL>{}</BaseURL>", escaped(&self.base));
        for period in &self.periods {
            period.render(&mut text);
        }
        text.push_str("</MPD>\n");
        text
    }
}

impl Period {
    fn render(&self, text: &mut String) {
        let _ = writeln!(text, "<Period id=\"p{}\" start=\"{}\">", self.start_ms, duration(self.start_ms));
        for representation in &self.representations {
            representation.render(text, self);
        }
        text.push_str("</Period>\n");
    }
}

impl Representation {
    fn render(&self, text: &mut String, period: &Period) {
        let Rendition { id, codecs, resolution, milli_fps, language, .. } = &self.rendition;
        let kind = if id.is_video() { "video" } else { "audio" };
        let _ = write!(
            text,
            "<AdaptationSet id=\"{}\" contentType=\"{kind}\" segmentAlignment=\"true\" startWithSAP=\"1\"",
            id.track_number()
        );
        if !id.is_video() && !language.is_empty() {
            let _ = write!(text, " lang=\"{}\"", escaped(language));
        }
        // One codec: it does not change within a session.
        let codec = codecs.first().map_or("", String::as_str);
        let _ = write!(
            text,
            ">\n<Representation id=\"{id}\" mimeType=\"{kind}/mp4\" codecs=\"{}\" bandwidth=\"{}\"",
            escaped(codec),
            self.bandwidth_bps
        );
        if let Some((width, height)) = resolution {
            let _ = write!(text, " width=\"{width}\" height=\"{height}\"");
        }
        if let Some(milli_fps) = milli_fps {
            let _ = write!(text, " frameRate=\"{milli_fps}/1000\"");
        }
        let offset = period.offset_ms;
        let _ = writeln!(text, ">\n<SegmentList timescale=\"1000\" presentationTimeOffset=\"{offset}\">");
        let _ = writeln!(text, "<Initialization sourceURL=\"{}\"/>\n<SegmentTimeline>", escaped(&self.init));
        for line in &self.lines {
            let _ = write!(text, "<S t=\"{}\" d=\"{}\"", line.at_ms, line.duration_ms);
            if period.shows_times {
                let _ = write!(
                    text,
                    " kvs:ts=\"{}.{:03}\"",
                    line.producer_ms.div_euclid(1000),
                    line.producer_ms.rem_euclid(1000)
                );
            }
            if period.shows_numbers {
                let _ = write!(text, " kvs:fn=\"{}\"", line.number);
            }
            text.push_str("/>\n");
        }
        text.push_str("</SegmentTimeline>\n");
        for uri in &self.uris {
            let _ = writeln!(text, "<SegmentURL media=\"{}\"/>", escaped(uri));
        }
        text.push_str("</SegmentList>\n</Representation>\n</AdaptationSet>\n");
    }
}
