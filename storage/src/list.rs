//! Keeping the [list of files](crate::listing) up to date: changes are appended to it; once there are many it is written
//! anew. So a change costs the same however many files there are.
//!
//! Who begins or closes a file only notes it here, and waits for no disk; who removes files waits until the list says so.

use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use uuid::Uuid;
use vidar_core::ids::FileId;

use crate::backend::SegmentIo;
use crate::listing::{self, Change, Listed, Listing};

/// Changes that stand behind the list, beside half the files in it, before it is written anew: 36 KB.
const CHANGE_COUNT_MIN: usize = 1024;

/// Writes the list.
#[derive(Default)]
pub(crate) struct List {
    /// Not yet written.
    noted: Mutex<Vec<Change>>,
    /// Held over the writing, and for nothing else. None where nothing may be written.
    state: Mutex<Option<State>>,
}

struct State {
    store: Uuid,
    /// Files that should be there and are not: they are listed until the list is made anew.
    missing: Listing,
    /// What it ends with; none where that is not known.
    crc: Option<u32>,
    change_count: usize,
    change_count_max: usize,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl List {
    pub(crate) fn keep(&self, store: Uuid, missing: Listing) {
        let state = State { store, missing, crc: None, change_count: 0, change_count_max: 0 };
        *lock(&self.state) = Some(state);
    }

    /// A file was begun or closed.
    pub(crate) fn note(&self, file: FileId, listed: Listed) {
        lock(&self.noted).push(Change::Put(file, listed));
    }

    /// Writes it as a whole; `files` are those that exist.
    pub(crate) fn rewrite(&self, io: &dyn SegmentIo, files: impl Fn() -> Vec<(FileId, Listed)>) -> io::Result<()> {
        match &mut *lock(&self.state) {
            Some(state) => state.rewrite(io, &self.noted, files),
            None => Ok(()),
        }
    }

    /// Brings it up to date: with what was noted, and with `more`. `files` are those that exist then.
    pub(crate) fn catch_up(
        &self,
        io: &dyn SegmentIo,
        more: &[Change],
        files: impl Fn() -> Vec<(FileId, Listed)>,
    ) -> io::Result<()> {
        let mut state = lock(&self.state);
        let Some(state) = &mut *state else { return Ok(()) };
        let mut changes = std::mem::take(&mut *lock(&self.noted));
        changes.extend(more);
        if changes.is_empty() && state.crc.is_some() {
            return Ok(());
        }
        match state.crc.take() {
            Some(crc) if state.change_count + changes.len() <= state.change_count_max => {
                let (bytes, crc) = listing::encode_changes(&changes, crc);
                io.append_small(listing::NAME, &bytes)?;
                state.crc = Some(crc);
                state.change_count += changes.len();
                Ok(())
            }
            _ => state.rewrite(io, &self.noted, files),
        }
    }
}

impl State {
    fn rewrite(
        &mut self,
        io: &dyn SegmentIo,
        noted: &Mutex<Vec<Change>>,
        files: impl Fn() -> Vec<(FileId, Listed)>,
    ) -> io::Result<()> {
        self.crc = None;
        // What is noted from here on comes again: that changes nothing.
        lock(noted).clear();
        let mut listing = self.missing.clone();
        listing.0.extend(files());
        let (bytes, crc) = listing.encode(self.store);
        io.replace_small(listing::NAME, &bytes)?;
        (self.crc, self.change_count) = (Some(crc), 0);
        self.change_count_max = CHANGE_COUNT_MIN.max(listing.0.len() / 2);
        Ok(())
    }
}
