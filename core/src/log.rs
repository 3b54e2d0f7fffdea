//! The log as others see it: what became durable, in order.

use std::sync::Arc;

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
}
