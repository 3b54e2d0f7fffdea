//! Where each stream's last run ended, for the run that may continue it.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vidar_core::ids::{RunId, StreamId};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;

/// As many are kept without asking which streams there still are.
const COUNT_MIN: usize = 64;

/// Where a run ended.
#[derive(Debug, Clone)]
pub(crate) struct LastRun {
    pub(crate) run: RunId,
    pub(crate) end: UnixMs,
    pub(crate) config: Arc<StreamConfig>,
}

/// Of each stream. Streams are deleted elsewhere: those that are gone are looked for now and then.
#[derive(Debug)]
pub(crate) struct LastRuns {
    by_stream: HashMap<StreamId, LastRun>,
    prune_at: usize,
}

impl Default for LastRuns {
    fn default() -> Self {
        Self { by_stream: HashMap::new(), prune_at: COUNT_MIN }
    }
}

impl LastRuns {
    pub(crate) fn get(&self, stream: StreamId) -> Option<LastRun> {
        self.by_stream.get(&stream).cloned()
    }

    /// True: time to call `keep`.
    #[must_use]
    pub(crate) fn set(&mut self, stream: StreamId, last: LastRun) -> bool {
        self.by_stream.insert(stream, last);
        self.by_stream.len() >= self.prune_at
    }

    /// Forgets all other streams. Twice as many may come before it is time again, so each costs little.
    pub(crate) fn keep(&mut self, known: &HashSet<StreamId>) {
        self.by_stream.retain(|stream, _| known.contains(stream));
        self.prune_at = COUNT_MIN.max(2 * self.by_stream.len());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_that_are_gone_are_forgotten() {
        let mut runs = LastRuns::default();
        let last = || LastRun { run: RunId::new(), end: UnixMs(0), config: Arc::default() };
        let alive: HashSet<StreamId> = (0..50).map(|_| StreamId::new()).collect();
        for stream in &alive {
            assert!(!runs.set(*stream, last()));
        }
        for _ in 0..10_000 {
            if runs.set(StreamId::new(), last()) {
                runs.keep(&alive);
            }
            assert!(runs.by_stream.len() <= 2 * alive.len());
        }
        assert!(alive.iter().all(|stream| runs.get(*stream).is_some()));
    }
}
