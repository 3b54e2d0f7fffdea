//! Segment files by a small number: a stream's neighbouring fragments often lie in as many files, and 16 bytes each
//! would be most of an entry.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, RwLock, RwLockReadGuard};

use vidar_core::ids::FileId;

use crate::lock::{lock, read, write};

/// The segment files that fragments lie in, numbered as they come up. One lock to find the number, one for the id:
/// readers do not wait for the writer.
#[derive(Default)]
pub(super) struct FileNames {
    indexes: Mutex<HashMap<FileId, u32>>,
    ids: RwLock<Vec<FileId>>,
}

impl FileNames {
    pub(super) fn writer(&self) -> Writing<'_> {
        Writing { indexes: lock(&self.indexes), ids: &self.ids }
    }

    /// All of them, in the order of their numbers.
    pub(super) fn all(&self) -> Vec<FileId> {
        read(&self.ids).clone()
    }

    /// As they were saved.
    pub(super) fn set(&self, ids: Vec<FileId>) {
        let mut indexes = lock(&self.indexes);
        *indexes = ids.iter().copied().zip(0..).collect();
        *write(&self.ids) = ids;
    }

    pub(super) fn reader(&self) -> Reading<'_> {
        Reading(read(&self.ids))
    }
}

pub(super) struct Writing<'a> {
    indexes: MutexGuard<'a, HashMap<FileId, u32>>,
    ids: &'a RwLock<Vec<FileId>>,
}

impl Writing<'_> {
    /// The number of a file.
    pub(super) fn index(&mut self, file: FileId) -> u32 {
        *self.indexes.entry(file).or_insert_with(|| {
            let mut ids = write(self.ids);
            ids.push(file);
            u32::try_from(ids.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

pub(super) struct Reading<'a>(RwLockReadGuard<'a, Vec<FileId>>);

impl Reading<'_> {
    /// The file of a number.
    pub(super) fn id(&self, index: u32) -> Option<FileId> {
        self.0.get(index as usize).copied()
    }
}
