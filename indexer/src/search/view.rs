//! What a query searches: a snapshot that the worker replaces.

use std::collections::HashSet;
use std::sync::{Arc, PoisonError, RwLock};

use tantivy::Searcher;
use vidar_core::ids::{FragmentNumber, StreamId};

use super::live::{Existing, Streams, Tail};
use super::partition::PartitionId;
use super::subject::stream_key;
use crate::lock::{read, write};

/// One index to be searched.
#[derive(Clone)]
pub(super) struct Source {
    pub(super) searcher: Searcher,
    pub(super) of: Part,
}

/// What an index is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Part {
    Partition(PartitionId),
    /// A chunk of the tail, in memory.
    Chunk(u32),
}

/// A snapshot.
#[derive(Clone, Default)]
pub(super) struct View {
    pub(super) sources: Vec<Source>,
    pub(super) tail: Arc<Tail>,
}

/// Streams that were observed, and are not deleted: documents of others are not shown. Changed as the log is observed,
/// not by the worker: what is gone is gone at once.
#[derive(Default)]
pub(super) struct Known {
    state: RwLock<(Arc<Streams>, HashSet<StreamId>)>,
}

impl Known {
    pub(super) fn streams(&self) -> Arc<Streams> {
        Arc::clone(&read(&self.state).0)
    }

    /// False: it is deleted.
    pub(super) fn add(&self, stream: StreamId) -> bool {
        let key = stream_key(stream);
        {
            let state = read(&self.state);
            if state.0.contains_key(&key) {
                return true;
            }
            if state.1.contains(&stream) {
                return false;
            }
        }
        self.raise_floor(stream, FragmentNumber::MIN)
    }

    pub(super) fn raise_floor(&self, stream: StreamId, below: FragmentNumber) -> bool {
        let mut state = write(&self.state);
        if state.1.contains(&stream) {
            return false;
        }
        let existing = Existing { id: stream, floor: FragmentNumber::MIN };
        let existing = Arc::make_mut(&mut state.0).entry(stream_key(stream)).or_insert(existing);
        existing.floor = existing.floor.max(below);
        true
    }

    pub(super) fn delete(&self, stream: StreamId) {
        let mut state = self.state.write().unwrap_or_else(PoisonError::into_inner);
        state.1.insert(stream);
        Arc::make_mut(&mut state.0).remove(&stream_key(stream));
    }
}
