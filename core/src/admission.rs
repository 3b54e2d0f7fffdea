//! One publisher at a time, for the protocols that want it so.

use std::sync::Arc;
use std::time::Duration;

use crate::ids::{StreamId, StreamName};

/// A second publisher came.
#[derive(Debug, Clone, thiserror::Error)]
#[error("stream {name} has a publisher already: {current}; it was last heard {silent_ms} ms ago")]
pub struct Occupied {
    /// Of the stream.
    pub name: StreamName,
    /// Protocol and address of the first one.
    pub current: String,
    /// How long it has been silent.
    pub silent_ms: u64,
}

/// Leave to publish. Dropping it makes room for another.
pub trait Permit: Send + Sync {
    /// The publisher sent something.
    fn touch(&self);
    /// Another publisher has taken the stream over (this one was silent too long): stop.
    fn revoked(&self) -> bool;
}

/// Admits publishers.
pub trait Admission: Send + Sync + 'static {
    /// Admits one, unless another was heard within `silence`.
    ///
    /// # Errors
    /// `Occupied`.
    fn admit(
        &self,
        stream: StreamId,
        name: &StreamName,
        who: &str,
        silence: Duration,
    ) -> Result<Arc<dyn Permit>, Occupied>;
}
