//! Fragments, and copies of configs, that a read or a verification found damaged, so that nobody has to find it out again.
//!
//! Forgotten with the process. What says so for good is a gap record, which `repair` writes.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use vidar_core::ids::{FileId, FragmentNumber, StreamId};
use vidar_core::source::ConfigKey;

/// Most that are remembered of each, some 50 bytes. Beyond that all are forgotten, and found again as they are read.
const COUNT_MAX: usize = 1 << 16;

#[derive(Default)]
pub(crate) struct Damaged {
    /// There are any: most stores have none, and are asked for every fragment of a playlist.
    any: AtomicBool,
    known: Mutex<Known>,
}

#[derive(Default)]
struct Known {
    fragments: HashSet<(StreamId, FragmentNumber)>,
    /// Each file has its own copies.
    configs: HashSet<(ConfigKey, FileId)>,
}

impl Damaged {
    pub(crate) fn note(&self, stream: StreamId, number: FragmentNumber) {
        insert(&mut self.known().fragments, (stream, number));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn note_config(&self, config: ConfigKey, file: FileId) {
        insert(&mut self.known().configs, (config, file));
        self.any.store(true, Ordering::Release);
    }

    pub(crate) fn has(&self, stream: StreamId, number: FragmentNumber) -> bool {
        self.any.load(Ordering::Acquire) && self.known().fragments.contains(&(stream, number))
    }

    pub(crate) fn has_config(&self, config: ConfigKey, file: FileId) -> bool {
        self.any.load(Ordering::Acquire) && self.known().configs.contains(&(config, file))
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn insert<T: Eq + Hash>(known: &mut HashSet<T>, new: T) {
    if known.len() >= COUNT_MAX {
        known.clear();
    }
    known.insert(new);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_noted_is_known_and_never_more_than_fits() {
        let (damaged, stream) = (Damaged::default(), StreamId::new());
        let number = |sequence: usize| FragmentNumber::new(sequence as u64, 1, 0);
        assert!(!damaged.has(stream, number(0)));
        for sequence in 0..COUNT_MAX + 10 {
            damaged.note(stream, number(sequence));
            assert!(damaged.has(stream, number(sequence)) && damaged.known().fragments.len() <= COUNT_MAX);
        }
        assert!(!damaged.has(StreamId::new(), number(COUNT_MAX)) && !damaged.has(stream, number(0)));
    }
}
