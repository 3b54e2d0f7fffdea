//! The index as an observer whose saves stand on the simulated disk, so that starts go on from checkpoints.
//!
//! The files that the real index keeps have tests of their own. Here it is in memory, and what a save must bring back, all
//! fragments that were observed, is kept by the disk: each save is one of its calls, which may fail or be the last.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex};

use uuid::Uuid;
use vidar_core::control::Control;
use vidar_core::ids::FragmentNumber;
use vidar_core::log::{LogEvent, LogObserver};
use vidar_indexer::Index;

use crate::disk::SimDisk;
use crate::lock;

/// See the module.
pub(crate) struct SavingIndex {
    index: Arc<Index>,
    disk: SimDisk,
    fragments: Mutex<BTreeMap<FragmentNumber, LogEvent>>,
}

impl SavingIndex {
    /// Over an index that is empty.
    #[must_use]
    pub(crate) fn new(index: Arc<Index>, disk: SimDisk) -> Self {
        Self { index, disk, fragments: Mutex::default() }
    }
}

impl LogObserver for SavingIndex {
    fn observe(&self, event: &LogEvent) {
        match event {
            LogEvent::Fragment { entry, .. } => drop(lock(&self.fragments).insert(entry.meta.number, event.clone())),
            LogEvent::Control(record) => {
                if let Control::StreamDeleted { stream, .. } = record.body {
                    self.disk.erase_from_saves(stream);
                }
            }
        }
        self.index.observe(event);
    }

    fn save(&self, id: Uuid) -> io::Result<()> {
        let timeline = self.index.timeline();
        let mut fragments: Vec<_> = lock(&self.fragments).values().cloned().collect();
        fragments.retain(|event| match event {
            LogEvent::Fragment { entry, .. } => timeline.get(entry.meta.stream, entry.meta.number).is_some(),
            LogEvent::Control(_) => false,
        });
        self.disk.save_index(id, fragments)
    }

    fn restore(&self, id: Uuid) -> bool {
        let Some(saved) = self.disk.saved_index(id) else { return false };
        saved.iter().for_each(|event| self.observe(event));
        true
    }
}
