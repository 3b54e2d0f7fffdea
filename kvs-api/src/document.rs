//! A fragment as GetMedia and GetMediaForFragmentList send it: a Matroska document of its own.
//!
//! ```text
//! EBML  Segment (of unknown size)
//!   …                             the source's header, as it was sent
//!   Tags                          FRAGMENT_NUMBER SERVER_TIMESTAMP PRODUCER_TIMESTAMP
//!   Cluster (of unknown size)     begins at the time of its first frame
//!     SimpleBlock …               as they were put, in order of arrival
//!   Tags                          the producer's
//!   Tags                          MILLIS_BEHIND_NOW CONTINUATION_TOKEN: all of the fragment was sent, and is durable
//! ```
//! What is stored and what is live is written alike, so that a document may begin with the one and end with the other.

use bytes::Bytes;
use vidar_core::error::ErrorKind;
use vidar_core::ids::FragmentNumber;
use vidar_core::sample::{Sample, Tag};
use vidar_core::source::ReadError;
use vidar_core::time::{UnixMs, ticks_to_ms_nearest};
use vidar_core::track::StreamConfig;
use vidar_media::container::mkv::mux::{FragmentHeader, Frame, Layout, Writer, plain_tags, tags_document};
use vidar_media::table::SampleEntry;

/// A document that is being written.
pub(crate) struct Document {
    number: FragmentNumber,
    producer_start: UnixMs,
    header: FragmentHeader,
    layout: Layout,
    writer: Writer,
    /// Ticks per second of each track.
    timescales_hz: Vec<u32>,
    /// Timestamp of media time 0 of the primary track.
    zero: i64,
    /// What is added to timestamps: 0 for Matroska, else what makes them producer time, the same for all of a run.
    /// None: not known before the first frame.
    shift: Option<i64>,
}

impl Document {
    /// Of a fragment with this config, name and time.
    pub(crate) fn new(config: &StreamConfig, number: FragmentNumber, producer_start: UnixMs) -> Self {
        let header = FragmentHeader::new(config);
        let layout = Layout::new(config, header.timing);
        let primary = config.primary_track().and_then(|index| u8::try_from(index).ok()).unwrap_or(0);
        Self {
            number,
            producer_start,
            zero: layout.timestamp(primary, 0),
            writer: Writer::new(layout.clone()),
            layout,
            timescales_hz: config.tracks.iter().map(|track| track.timescale_hz).collect(),
            shift: header.as_sent.then_some(0),
            header,
        }
    }

    /// The producer time of media time 0 is known: it is not made of the first frame's.
    pub(crate) fn with_origin(mut self, origin_ms: i64) -> Self {
        self.shift.get_or_insert(origin_ms.saturating_sub(self.zero));
        self
    }

    /// Up to the Cluster.
    pub(crate) fn begin(&self) -> Bytes {
        let leading = [
            tag("AWS_KINESISVIDEO_FRAGMENT_NUMBER", self.number.to_string()),
            tag("AWS_KINESISVIDEO_SERVER_TIMESTAMP", seconds_text(self.number.server_ms())),
            tag("AWS_KINESISVIDEO_PRODUCER_TIMESTAMP", seconds_text(self.producer_start.0)),
        ];
        [&self.header.bytes[..], &plain_tags(&leading)].concat().into()
    }

    /// What goes before a sample; none if it cannot be written, as it is of a track that Matroska has no name for.
    pub(crate) fn sample_head(&mut self, sample: &Sample) -> Option<Bytes> {
        let frame = self.layout.frame(sample);
        self.head(frame, sample.presentation_ticks())
    }

    /// As [`Document::sample_head`], of a sample that is stored.
    pub(crate) fn stored_head(&mut self, track: u8, sample: &SampleEntry) -> Option<Bytes> {
        let frame = self.layout.table_frame(track, sample);
        self.head(frame, sample.presentation_ticks())
    }

    fn head(&mut self, mut frame: Frame, presentation_ticks: i64) -> Option<Bytes> {
        let timescale_hz = self.timescales_hz.get(usize::from(frame.track)).copied()?;
        let media_ms = UnixMs(ticks_to_ms_nearest(presentation_ticks, timescale_hz));
        let origin_ms = self.producer_start.since_ms(media_ms);
        let shift = *self.shift.get_or_insert(origin_ms.saturating_sub(self.zero));
        frame.timestamp = frame.timestamp.saturating_add(shift);
        self.writer.block(&frame).ok()
    }

    /// The producer's tags.
    pub(crate) fn tags(&self, tags: &[Tag]) -> Bytes {
        let own = self.header.own_tags(tags);
        if own.is_empty() { Bytes::new() } else { plain_tags(own) }
    }

    /// After a fragment of this length that was sent to its end, and is durable.
    pub(crate) fn end(&self, duration_ms: u32, now: UnixMs) -> Bytes {
        let ended = UnixMs(self.number.server_ms()).plus_ms(duration_ms.into());
        let behind_ms = now.since_ms(ended).max(0);
        plain_tags(&[
            tag("AWS_KINESISVIDEO_MILLIS_BEHIND_NOW", behind_ms.to_string()),
            tag("AWS_KINESISVIDEO_CONTINUATION_TOKEN", self.number.to_string()),
        ])
    }
}

/// Instead of a fragment: why it does not come.
pub(crate) fn error_document(number: &str, fault: Fault) -> Bytes {
    tags_document(&[
        tag("AWS_KINESISVIDEO_FRAGMENT_NUMBER", number.to_owned()),
        tag("AWS_KINESISVIDEO_ERROR_CODE", fault.code.to_owned()),
        tag("AWS_KINESISVIDEO_ERROR_ID", fault.id.to_string()),
    ])
}

/// What the service calls an error within a body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Fault {
    code: &'static str,
    id: u16,
}

impl Fault {
    /// There is no such fragment.
    pub(crate) const NOT_FOUND: Self = Self { code: "FRAGMENT_NOT_FOUND", id: 3000 };
    const KEY_UNAVAILABLE: Self = Self { code: "KMS_KEY_UNAVAILABLE", id: 4503 };
    const INTERNAL: Self = Self { code: "INTERNAL_ERROR", id: 5000 };

    /// That of an error of the store.
    pub(crate) fn of(error: &ReadError) -> Self {
        match error {
            ReadError::KeyUnavailable { .. } => Self::KEY_UNAVAILABLE,
            _ if error.kind() == ErrorKind::NotFound => Self::NOT_FOUND,
            _ => Self::INTERNAL,
        }
    }
}

fn tag(name: &str, value: String) -> Tag {
    Tag { name: name.to_owned(), value }
}

/// Seconds with three decimals: clients round what they read up to the millisecond.
fn seconds_text(ms: i64) -> String {
    let sign = if ms < 0 { "-" } else { "" };
    format!("{sign}{}.{:03}", ms.unsigned_abs() / 1000, ms.unsigned_abs() % 1000)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_have_three_decimals() {
        let texts = [0, 5, 1_511_852_109_126, -1, -1500].map(seconds_text);
        assert_eq!(texts, ["0.000", "0.005", "1511852109.126", "-0.001", "-1.500"]);
    }
}
