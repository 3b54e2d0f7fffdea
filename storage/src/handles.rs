//! Segment files that are open, a bounded number of them: an archive has more than a process may open.

use std::io;
use std::sync::Arc;

use vidar_core::ids::FileId;

use crate::backend::{SegmentHandle, SegmentIo};
use crate::cache::Cache;
use crate::segment_file::header::file_name;

/// Files that are kept open. Who uses one beyond that keeps it open meanwhile.
pub(crate) const HANDLE_COUNT_MAX: usize = 512;

/// Opens segment files, and keeps those open that were used last.
pub(crate) struct Handles {
    io: Arc<dyn SegmentIo>,
    open: Cache<(u32, FileId), Arc<dyn SegmentHandle>>,
}

impl Handles {
    pub(crate) fn new(io: Arc<dyn SegmentIo>) -> Self {
        Self { io, open: Cache::new(HANDLE_COUNT_MAX) }
    }

    /// The file of this epoch and id.
    pub(crate) fn get(&self, epoch: u32, file: FileId) -> io::Result<Arc<dyn SegmentHandle>> {
        if let Some(handle) = self.open.get(&(epoch, file)) {
            return Ok(handle);
        }
        let handle = self.io.open(&file_name(epoch, file))?;
        self.open.insert((epoch, file), Arc::clone(&handle), 1);
        Ok(handle)
    }

    /// The file of this epoch and id, if it is open.
    pub(crate) fn cached(&self, epoch: u32, file: FileId) -> Option<Arc<dyn SegmentHandle>> {
        self.open.get(&(epoch, file))
    }

    /// Closes a file as soon as nobody uses it.
    pub(crate) fn forget(&self, file: FileId) {
        self.open.retain(|(_, id)| *id != file);
    }
}
