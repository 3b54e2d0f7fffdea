//! The streams that exist, as ingest and the API see them.

use std::sync::Arc;

use async_trait::async_trait;

use crate::control::{StreamRecord, StreamSettings};
use crate::error::ErrorKind;
use crate::ids::StreamName;
use crate::sink::SinkError;

/// Why the registry refused.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum RegistryError {
    /// No stream of that name.
    #[error("stream {name} does not exist")]
    NotFound {
        /// The name asked for.
        name: StreamName,
    },
    /// The name is taken.
    #[error("stream {name} exists")]
    Exists {
        /// The name asked for.
        name: StreamName,
    },
    /// A setting is out of its range.
    #[error("{field}: {detail}")]
    Invalid {
        /// Of the settings.
        field: &'static str,
        /// What is allowed.
        detail: String,
    },
    /// The log did not take the change.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

impl RegistryError {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::NotFound { .. } => ErrorKind::NotFound,
            Self::Exists { .. } => ErrorKind::Conflict,
            Self::Invalid { .. } => ErrorKind::Unusable,
            Self::Sink(error) => error.kind(),
        }
    }
}

/// Streams by name. A change resolves when it is durable.
#[async_trait]
pub trait StreamRegistry: Send + Sync + 'static {
    /// The stream of that name.
    fn get(&self, name: &StreamName) -> Option<Arc<StreamRecord>>;

    /// All, in order of name.
    fn list(&self) -> Vec<Arc<StreamRecord>>;

    /// The stream of that name; created with default settings where pushes may create streams.
    ///
    /// # Errors
    /// `NotFound` where they may not.
    async fn ensure(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError>;

    /// Creates a stream. `settings: None` takes the defaults.
    ///
    /// # Errors
    /// `Exists`, `Invalid`.
    async fn create(
        &self,
        name: &StreamName,
        settings: Option<StreamSettings>,
    ) -> Result<Arc<StreamRecord>, RegistryError>;

    /// Changes settings.
    ///
    /// # Errors
    /// `NotFound`, `Invalid`.
    async fn change(&self, name: &StreamName, settings: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError>;

    /// Deletes a stream, all its fragments and its keys.
    ///
    /// # Errors
    /// `NotFound`.
    async fn delete(&self, name: &StreamName) -> Result<(), RegistryError>;

    /// The settings of a stream made by its first push.
    fn default_settings(&self, name: &StreamName) -> StreamSettings;
}
