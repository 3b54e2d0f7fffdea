//! What every demuxer is: bytes in, events out.

use bytes::Bytes;
use vidar_core::error::ErrorKind;
use vidar_core::sample::{SyncKind, Tag};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;

/// A sample as its container gives it: decode time where the container carries one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RawSample {
    /// Index into the tracks of the last [`Event::Config`].
    pub track: u8,
    /// When to show it, in ticks of the track, unwrapped, never corrected.
    pub presentation_ticks: i64,
    /// When to decode it, where the container says so.
    pub decode_ticks: Option<i64>,
    /// Where the container says so.
    pub duration_ticks: Option<u32>,
    /// As the container says, or as the codec shows where the container does not say.
    pub sync: SyncKind,
    /// As [`Sample::block_flags`](vidar_core::sample::Sample::block_flags).
    pub block_flags: u8,
    /// The bytes, as they are to be stored: a slice of the input wherever possible.
    pub data: Bytes,
}

/// What a demuxer finds, in the order of the input.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The tracks, before any sample; again when they change.
    Config(StreamConfig),
    /// A sample.
    Sample(RawSample),
    /// Tags of the producer.
    Tags(Vec<Tag>),
    /// Tags that are about a track, a chapter or an attachment: statistics, as a rule.
    TrackTags(Vec<Tag>),
    /// At this presentation time of a track the producer's clock showed `at`.
    Wall {
        /// Index of the track.
        track: u8,
        /// On the track's timeline.
        presentation_ticks: i64,
        /// By the producer's clock.
        at: UnixMs,
    },
    /// The source's own fragment begins (a Matroska Cluster, a `moof`).
    SourceFragment {
        /// Its time where it has one, in ticks of the first track.
        timecode: Option<i64>,
        /// The same as it was sent: in units of TimestampScale. Matroska only.
        units: Option<i64>,
        /// Its length stands before it.
        sized: bool,
    },
    /// The producer says that its fragment is complete (`AWS_KINESISVIDEO_END_OF_FRAGMENT`).
    EndOfFragment,
    /// The source announced that its times jump here (MPEG-TS discontinuity_indicator, a second EBML header).
    Discontinuity,
    /// Packets are known to be lost here.
    Lost {
        /// How many, 0 if unknown.
        count: u32,
    },
}

/// The kind of a demuxing error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DemuxErrorKind {
    /// The bytes break the format.
    Malformed,
    /// The input ends inside an element.
    Truncated,
    /// Over a limit.
    TooLarge,
    /// Well-formed, but not usable for a push (a plain MP4, no track, encrypted headers).
    Unusable,
    /// A sample of a track that was not declared.
    UndeclaredTrack,
}

/// Why demuxing ended. Everything complete before it was given out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{path} at byte {offset}: {detail}")]
pub struct DemuxError {
    /// The kind.
    pub kind: DemuxErrorKind,
    /// Of the element at fault, from the start of the input, in bytes.
    pub offset: u64,
    /// Element or box path, such as `Segment/Tracks/TrackEntry[1]` or `moov/trak[1]/stsd`.
    pub path: String,
    /// What was wrong, and what was expected.
    pub detail: String,
}

impl DemuxError {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self.kind {
            DemuxErrorKind::Malformed | DemuxErrorKind::Truncated | DemuxErrorKind::UndeclaredTrack => {
                ErrorKind::Malformed
            }
            DemuxErrorKind::TooLarge => ErrorKind::TooLarge,
            DemuxErrorKind::Unusable => ErrorKind::Unusable,
        }
    }
}

/// What an input carried beside its samples, and that is read past: there is no place to keep it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PassedOver {
    /// Event messages of MP4 (`emsg`, ISO/IEC 23009-1 section 5.10.3.3).
    pub event_messages: u64,
    /// How much of a sound frame's end is not to be heard (Matroska's `DiscardPadding`, RFC 9559 section 5.1.3.5.7).
    pub discard_paddings: u64,
    /// More data for a frame, such as transparency (Matroska's `BlockAdditions`, RFC 9559 section 5.1.3.5.2).
    pub block_additions: u64,
}

/// A push parser. Feed it the input in pieces of any size; the events do not depend on how it was cut.
pub trait Demux: Send {
    /// Takes the next bytes and appends what they complete.
    ///
    /// # Errors
    /// If the input cannot be read on. Events of complete elements before the fault have been appended. After an error
    /// the demuxer is not used again.
    fn push(&mut self, input: Bytes, events: &mut Vec<Event>) -> Result<(), DemuxError>;

    /// Bytes of input that are held: of elements that are not complete.
    fn held_bytes(&self) -> usize;

    /// What was read past so far.
    fn passed_over(&self) -> PassedOver {
        PassedOver::default()
    }

    /// The input has ended. Appends what was complete but held back.
    ///
    /// # Errors
    /// `Truncated` if it ended inside an element.
    fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), DemuxError>;
}
