//! The seam between ingest and the store.

use async_trait::async_trait;

use crate::control::Control;
use crate::error::ErrorKind;
use crate::ids::{ConfigId, FragmentNumber, RunId, StreamId};
use crate::record::NewFragment;
use crate::time::UnixMs;
use crate::track::StreamConfig;

/// A fragment that was given its name and place, before anything of it is on disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OpenFragment {
    /// Its name. Never given twice.
    pub number: FragmentNumber,
    /// Its position in the stream.
    pub ordinal: u64,
    /// Discontinuities in the stream before it.
    pub discontinuity: u32,
}

/// A fragment that is synced, with all that is needed to find and open it again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Durable {
    /// Its name.
    pub number: FragmentNumber,
    /// By the producer's clock.
    pub producer_start: UnixMs,
    /// In milliseconds.
    pub duration_ms: u32,
    /// Stored bytes of its samples.
    pub size_bytes: u64,
}

/// Why the store did not take something.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum SinkError {
    /// No room: below the last disk mark, or the file system said so.
    #[error("the disk is full")]
    Full,
    /// The stream was deleted, or its keys destroyed.
    #[error("stream {stream} does not exist")]
    NoSuchStream {
        /// Which.
        stream: StreamId,
    },
    /// A key provider does not answer.
    #[error("no key for stream {stream}: {detail}")]
    NoKey {
        /// Which.
        stream: StreamId,
        /// What it said.
        detail: String,
    },
    /// The disk failed.
    #[error("the store failed: {detail}")]
    Failed {
        /// What happened.
        detail: String,
    },
    /// The server is going down.
    #[error("the store is closed")]
    Closed,
}

impl SinkError {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Full => ErrorKind::Full,
            Self::NoSuchStream { .. } => ErrorKind::NotFound,
            Self::NoKey { .. } | Self::Failed { .. } | Self::Closed => ErrorKind::Unavailable,
        }
    }
}

/// Takes fragments and makes them durable.
#[async_trait]
pub trait FragmentSink: Send + Sync + 'static {
    /// Whether a push may begin: one that is going to be refused hears so before it sends media.
    ///
    /// # Errors
    /// If the disk is full.
    fn accepts(&self) -> Result<(), SinkError>;

    /// Gives an opening fragment its number and its place. `run_start` says that it is the first of its run,
    /// `continues` that players should see no discontinuity there.
    ///
    /// # Errors
    /// If the stream is gone or the disk is full.
    fn open_fragment(
        &self,
        stream: StreamId,
        run: RunId,
        run_start: bool,
        continues: bool,
    ) -> Result<OpenFragment, SinkError>;

    /// Makes sure that a config can be referred to by records that are appended later.
    ///
    /// # Errors
    /// If the stream is gone.
    async fn put_config(&self, stream: StreamId, config: &StreamConfig) -> Result<ConfigId, SinkError>;

    /// Appends a record. Resolves when it is synced and visible in the timeline; records of one caller that are
    /// appended in order resolve in order. [`REPEATS`](crate::record::FragmentFlags::REPEATS) says that the producer may
    /// have sent it before: it stays where the stream has a fragment, or is being given one, that begins at that
    /// producer time.
    ///
    /// # Cancel safety
    /// Dropping the future does not take the record back.
    ///
    /// # Errors
    /// If it is not durable, and will not become so.
    async fn append(&self, fragment: NewFragment) -> Result<Durable, SinkError>;

    /// Appends a control record. Resolves when it is synced and applied.
    ///
    /// # Errors
    /// As `append`.
    async fn control(&self, control: Control) -> Result<(), SinkError>;
}
