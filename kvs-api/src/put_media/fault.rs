//! Why a fragment is refused, in the numbers that clients know.

use vidar_core::error::ErrorKind;
use vidar_core::sink::SinkError;
use vidar_ingest::PushError;
use vidar_media::{DemuxError, DemuxErrorKind};

/// A number and its word. Clients know by the number whether to send the fragment again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct ErrorId {
    pub(super) id: u16,
    pub(super) code: &'static str,
}

impl ErrorId {
    pub(super) const FRAGMENT_SIZE: Self = Self { id: 4001, code: "MAX_FRAGMENT_SIZE_REACHED" };
    pub(super) const FRAGMENT_DURATION: Self = Self { id: 4002, code: "MAX_FRAGMENT_DURATION_REACHED" };
    /// Clients connect again at once, and send the fragment again.
    pub(super) const CONNECTION_DURATION: Self = Self { id: 4003, code: "MAX_CONNECTION_DURATION_REACHED" };
    pub(super) const TIMECODE: Self = Self { id: 4004, code: "FRAGMENT_TIMECODE_LESSER_THAN_PREVIOUS" };
    pub(super) const INVALID_MKV: Self = Self { id: 4006, code: "INVALID_MKV_DATA" };
    pub(super) const PRODUCER_TIMESTAMP: Self = Self { id: 4007, code: "INVALID_PRODUCER_TIMESTAMP" };
    pub(super) const STREAM_NOT_ACTIVE: Self = Self { id: 4008, code: "STREAM_NOT_ACTIVE" };
    pub(super) const METADATA: Self = Self { id: 4009, code: "FRAGMENT_METADATA_LIMIT_REACHED" };
    pub(super) const TRACK_NUMBER: Self = Self { id: 4010, code: "TRACK_NUMBER_MISMATCH" };
    pub(super) const FRAMES_MISSING: Self = Self { id: 4011, code: "FRAMES_MISSING_FOR_TRACK" };
    pub(super) const TRACK_COUNT: Self = Self { id: 4012, code: "MORE_THAN_ALLOWED_TRACKS_FOUND" };
    pub(super) const INTERNAL: Self = Self { id: 5000, code: "INTERNAL_ERROR" };
    /// Clients keep the fragment, and send it again.
    pub(super) const ARCHIVAL: Self = Self { id: 5001, code: "ARCHIVAL_ERROR" };
}

/// A refusal, with what an operator wants to know of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Fault {
    pub(super) error: ErrorId,
    pub(super) detail: String,
    /// In the body, in bytes.
    pub(super) offset: Option<u64>,
}

impl Fault {
    pub(super) fn new(error: ErrorId, detail: impl Into<String>) -> Self {
        Self { error, detail: detail.into(), offset: None }
    }
}

impl From<DemuxError> for Fault {
    fn from(error: DemuxError) -> Self {
        let id = match error.kind {
            // The entry itself is one too many, or something in it is too large.
            DemuxErrorKind::TooLarge if error.path.ends_with("Tracks/TrackEntry[10]") => ErrorId::TRACK_COUNT,
            DemuxErrorKind::TooLarge => ErrorId::FRAGMENT_SIZE,
            DemuxErrorKind::UndeclaredTrack => ErrorId::TRACK_NUMBER,
            DemuxErrorKind::Malformed | DemuxErrorKind::Truncated | DemuxErrorKind::Unusable => ErrorId::INVALID_MKV,
        };
        Self { error: id, detail: error.to_string(), offset: Some(error.offset) }
    }
}

impl From<PushError> for Fault {
    fn from(error: PushError) -> Self {
        Self::new(of_push(&error), error.detail)
    }
}

/// Of a push that cannot go on.
pub(super) fn of_push(error: &PushError) -> ErrorId {
    match error.kind {
        ErrorKind::NotFound => ErrorId::STREAM_NOT_ACTIVE,
        // Another connection has its place; or the key may not push any more, which the next connection will hear.
        ErrorKind::Conflict | ErrorKind::Forbidden => ErrorId::CONNECTION_DURATION,
        ErrorKind::Full | ErrorKind::Unavailable => ErrorId::ARCHIVAL,
        _ => ErrorId::INTERNAL,
    }
}

/// Of a fragment that the store did not take.
pub(super) fn of_sink(error: &SinkError) -> ErrorId {
    match error {
        SinkError::NoSuchStream { .. } => ErrorId::STREAM_NOT_ACTIVE,
        // Of what is said of keys the client would drop the fragment; this passes.
        _ => ErrorId::ARCHIVAL,
    }
}
