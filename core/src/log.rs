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
/// implementation takes no locks that wait for I/O, and cannot fail. On start the store replays its whole log.
pub trait LogObserver: Send + Sync {
    /// Takes note.
    fn observe(&self, event: &LogEvent);

    /// Makes all fragments observed so far durable under a name of `id`, so that `restore(id)` of a later process
    /// brings them back without a replay. Blocks on disk; called on a thread of the store's own, never on the commit
    /// thread; `observe` may run at the same time (what is saved may hold more than what was observed when it was called:
    /// replays are idempotent).
    ///
    /// # Errors
    /// This checkpoint does not happen.
    fn save(&self, id: Uuid) -> io::Result<()> {
        let _ = id;
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Called once, before any event, when a checkpoint is found. True if all fragments of that checkpoint are there (or
    /// if this observer keeps nothing of fragments). False: everything is replayed, to all observers.
    fn restore(&self, id: Uuid) -> bool {
        let _ = id;
        false
    }
}
