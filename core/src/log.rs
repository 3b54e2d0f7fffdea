//! The log as others see it: what became durable, in order.

use std::io;
use std::sync::Arc;

use uuid::Uuid;

use crate::control::ControlRecord;
use crate::entry::SharedEntry;
use crate::record::FragmentFacts;

/// Something that became durable.
#[derive(Debug, Clone)]
pub enum LogEvent {
    /// A fragment.
    Fragment {
        /// For the timeline.
        entry: SharedEntry,
        /// For search.
        facts: Arc<FragmentFacts>,
    },
    /// A control record, or a copy of one.
    Control(Arc<ControlRecord>),
}

/// Derived state that follows the log.
///
/// Called in the order of the log, after the sync and before the acknowledgement, on the store's thread: an
/// implementation takes no locks that wait for I/O, and cannot fail. On start the store tells what became durable after its
/// last checkpoint, and all control records that still matter; without a checkpoint, its whole log.
pub trait LogObserver: Send + Sync {
    /// Takes note.
    fn observe(&self, event: &LogEvent);

    /// Makes all fragments observed so far durable under a name of `id`, so that `restore(id)` of a later process brings
    /// them back without a replay. Control records are told again at each start and need not be kept. Blocks on the disk, and
    /// is never called on the thread that observes: that may go on meanwhile, and what is saved may hold more than what was
    /// observed when this was called, since replays are idempotent. What was saved under an earlier id is kept until the
    /// next call: only then it is known to be no longer needed.
    ///
    /// # Errors
    /// This checkpoint does not happen. `Unsupported`: none ever will.
    fn save(&self, _id: Uuid) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Called at most once, before any event, when a checkpoint is found. True if all fragments of that checkpoint are
    /// there, or if nothing of fragments is kept. False: everything is replayed, to all observers, whatever they restored.
    fn restore(&self, _id: Uuid) -> bool {
        false
    }
}
