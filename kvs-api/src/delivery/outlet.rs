//! Where things go out: what the server beneath gives.

use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::feed::Kept;

/// A picture on its way out.
#[derive(Debug, Clone)]
pub struct PictureFile {
    /// The target that it is for, as `KvsOptions::image_targets` has it.
    pub target: String,
    /// Below the target: plain parts with `/` between.
    pub path: String,
    /// JPEG or PNG.
    pub bytes: Arc<[u8]>,
    /// Names and texts that are kept with it.
    pub metadata: Map<String, Value>,
}

/// A notification on its way out.
#[derive(Debug, Clone)]
pub struct Notice {
    /// ARN of the topic, as `KvsOptions::topics` has it.
    pub topic: String,
    /// The same for the same notification, however often it comes.
    pub id: Uuid,
    /// JSON, as an HTTP subscription of SNS gets it.
    pub body: Bytes,
}

/// Why something did not get out.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// It may another time.
    #[error("{0}")]
    Again(String),
    /// It may another time, unless it is of what was to go out.
    #[error("{0}")]
    Failing(String),
    /// It never will.
    #[error("{0}")]
    Final(String),
}

/// Where it goes out.
#[async_trait]
pub trait Outlet: Send + Sync + 'static {
    /// Writes a picture durably, in place of one of the same path.
    ///
    /// # Errors
    /// If it is not there then.
    async fn put(&self, picture: &PictureFile) -> Result<(), OutletError>;

    /// Hands a notification to what its topic stands for.
    ///
    /// # Errors
    /// If it was not taken.
    async fn post(&self, notice: &Notice) -> Result<(), OutletError>;

    /// Progress of a feed that was kept; none: nothing was.
    ///
    /// # Errors
    /// If it does not read.
    async fn restore(&self, feed: &str) -> Result<Option<Kept>, OutletError>;

    /// Keeps progress of a feed durably.
    ///
    /// # Errors
    /// If it does not.
    async fn keep(&self, feed: &str, progress: Kept) -> Result<(), OutletError>;
}
