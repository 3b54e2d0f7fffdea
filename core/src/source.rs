//! The seam between the store and those who read: tables and media of durable fragments.

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;

use crate::entry::FragmentEntry;
use crate::error::ErrorKind;
use crate::ids::{ConfigId, FragmentNumber, StreamId};
use crate::record::{FragmentFacts, TableEnvelope};
use crate::track::StreamConfig;

/// Why a fragment could not be read.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum ReadError {
    /// It expired, or was never there.
    #[error("fragment {number} is not stored")]
    NotFound {
        /// Which.
        number: FragmentNumber,
    },
    /// Its bytes are not what was written.
    #[error("fragment {number} is damaged at {file}+{offset_bytes}: {detail}")]
    Corrupt {
        /// Which.
        number: FragmentNumber,
        /// Segment file.
        file: String,
        /// From its start.
        offset_bytes: u64,
        /// What disagrees.
        detail: String,
    },
    /// No key opens it.
    #[error("fragment {number}: its key is not available")]
    KeyUnavailable {
        /// Which.
        number: FragmentNumber,
    },
    /// The disk did not answer.
    #[error("read {file}+{offset_bytes}: {detail}")]
    Io {
        /// Segment file.
        file: String,
        /// From its start.
        offset_bytes: u64,
        /// What the system said.
        detail: String,
    },
}

impl ReadError {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Corrupt { .. } => ErrorKind::Corrupt,
            Self::KeyUnavailable { .. } | Self::Io { .. } => ErrorKind::Unavailable,
        }
    }
}

/// What a fragment is made of, without its media.
#[derive(Debug, Clone)]
pub struct FragmentHead {
    /// For search and plans.
    pub facts: FragmentFacts,
    /// Pieces and their sample tables.
    pub table: TableEnvelope,
}

/// Reads durable fragments. Opening (decryption) happens off the caller's thread.
#[async_trait]
pub trait FragmentSource: Send + Sync + 'static {
    /// Facts and table.
    ///
    /// # Errors
    /// If it is gone, damaged, or cannot be read now.
    async fn head(&self, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError>;

    /// Plain bytes `range` of the media of one piece (`None`: of the closing record). Only the chunks that the range
    /// touches are read and opened.
    ///
    /// # Errors
    /// As `head`; also if the range is outside the piece.
    async fn media(&self, entry: &FragmentEntry, part: Option<u16>, range: Range<u64>) -> Result<Bytes, ReadError>;

    /// A config.
    ///
    /// # Errors
    /// As `head`; `NotFound` carries the number of `entry`.
    async fn config(&self, entry: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError>;

    /// It was found damaged, lately. Reads nothing.
    fn is_damaged(&self, _entry: &FragmentEntry) -> bool {
        false
    }
}

/// Key of a config.
pub type ConfigKey = (StreamId, ConfigId);
