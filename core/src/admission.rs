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

/// On which terms somebody publishes beside others of the same kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Beside {
    /// With how many, itself included.
    pub count_max: usize,
    /// For how long: those before have to leave after it.
    pub overlap: Duration,
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

    /// Admits one that leaves others room, and finds room where all that were heard do so too.
    ///
    /// # Errors
    /// `Occupied`.
    fn admit_beside(
        &self,
        stream: StreamId,
        name: &StreamName,
        who: &str,
        silence: Duration,
        _beside: Beside,
    ) -> Result<Arc<dyn Permit>, Occupied> {
        self.admit(stream, name, who, silence)
    }
}
