//! The seam between the protocol and what keeps its media: one run of one connection.

use std::net::SocketAddr;

use async_trait::async_trait;
use vidar_core::auth::Principal;
use vidar_core::error::ErrorKind;
use vidar_core::ids::StreamName;

use crate::push::Arrived;

/// Takes the events of one run. Their times are on one timeline common to all tracks.
#[async_trait]
pub trait Publish: Send {
    /// Takes the next events, in order of arrival: `Config` first. At the start of a run events are held until all
    /// tracks can be placed on one timeline, so they may have arrived some seconds ago. Waits when the store pushes
    /// back; the socket is not read meanwhile.
    ///
    /// # Cancel safety
    /// None: the future is always run to its end.
    ///
    /// # Errors
    /// If the run cannot go on. The connection is closed.
    async fn events(&mut self, events: Vec<Arrived>) -> Result<(), PublishError>;

    /// As `events`, for UDP, where waiting loses packets anywhere: gives them back if there is no room now. Whole
    /// groups of pictures are dropped then.
    ///
    /// # Errors
    /// As `events`.
    fn try_events(&mut self, events: Vec<Arrived>) -> Result<Option<Vec<Arrived>>, PublishError>;

    /// So many bytes are held of access units that are not complete. `events`, even without any, then waits as well.
    fn hold(&mut self, bytes: u64) {
        let _ = bytes;
    }

    /// The publisher is there, though it sends no media now.
    fn touch(&mut self) {}

    /// The publisher ended: `complete` if it did so where it should, and for people how.
    ///
    /// # Errors
    /// If what was taken could not all be kept.
    async fn finish(self: Box<Self>, complete: bool, cause: &str) -> Result<(), PublishError>;
}

/// Begins runs.
#[async_trait]
pub trait Publishers: Send + Sync + 'static {
    /// Begins a run of `stream` for an authorised publisher.
    ///
    /// # Errors
    /// With an HTTP status and a reason: 404 no such stream, 409 somebody else publishes, 507 the disk is full …
    async fn begin(
        &self,
        stream: StreamName,
        by: &Principal,
        source: SocketAddr,
        user_agent: &str,
    ) -> Result<Box<dyn Publish>, Refusal>;
}

/// Why a run did not begin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    /// As HTTP would say it.
    pub status: u16,
    /// For people.
    pub reason: String,
}

/// Why a run ended from our side.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct PublishError {
    /// What a caller can do.
    pub kind: ErrorKind,
    /// For people.
    pub detail: String,
}
