//! Giving room back: blocks of records that are gone, files that nothing is left of. All of it blocks.

use std::collections::BTreeMap;
use std::io;

use vidar_core::control::ControlRecord;
use vidar_core::entry::{Locator, SharedEntry};
use vidar_core::ids::FileId;
use vidar_core::sink::SinkError;

use crate::crypto::keychain::sink_error;
use crate::files::{FileInfo, Witness, witness};
use crate::load::open_control;
use crate::punch::{self, Stretch};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::reader::{self, FooterError, Wanted};
use crate::segment_file::record::RecordKind;
use crate::shared::Shared;

/// Punches records out of files that go on. Returns the bytes freed.
pub(crate) fn punch_all(shared: &Shared, entries: &[SharedEntry], dead: &[FileId]) -> u64 {
    let mut records: BTreeMap<FileId, Vec<Stretch>> = BTreeMap::new();
    for entry in entries {
        // A caller's mistake must not destroy media.
        if !shared.controls().is_gone(entry.meta.stream, entry.meta.number) {
            continue;
        }
        for Locator { file, offset, record_len: len, .. } in entry.parts.iter().chain([&entry.record]).copied() {
            records.entry(file).or_default().push(Stretch { offset, len });
        }
    }
    // What stands in an open file is punched when it is closed.
    records.retain(|file, _| !dead.contains(file) && shared.files.is_punchable(*file));
    let mut freed = 0;
    for (file, mut records) in records {
        records.sort_unstable_by_key(|record| record.offset);
        let handle = shared.files.handle(file);
        match handle.and_then(|handle| handle.map_or(Ok(0), |handle| punch::punch(&*handle, records))) {
            Ok(bytes) => freed += bytes,
            Err(error) => tracing::warn!(%file, %error, "cannot free the blocks of expired media"),
        }
    }
    freed
}

/// Closed files, `among` those asked for, in which nothing but control records is left.
pub(crate) fn find_dead(shared: &Shared, among: impl Fn(&FileInfo) -> bool) -> Vec<FileId> {
    let perhaps = shared.files.perhaps_dead(&shared.controls(), among);
    let mut dead = Vec::new();
    for (file, last) in perhaps {
        match if last.is_some() { find_living(shared, file) } else { Ok(None) } {
            Ok(None) => dead.push(file),
            Ok(living) => shared.files.update(file, |info| info.witness = living),
            Err(error) => tracing::warn!(%file, %error, "cannot tell whether anything is left of a segment file"),
        }
    }
    dead
}

/// Asks the footer of a file whose witness is gone for another one.
fn find_living(shared: &Shared, file: FileId) -> Result<Option<Witness>, FooterError> {
    let Some(handle) = shared.files.handle(file)? else { return Ok(None) };
    let Some(trailer) = reader::read_trailer(&*handle, file)? else {
        return Err(FooterError::Io(io::Error::other("its footer is damaged")));
    };
    let entries = reader::read_entries(&*handle, &trailer, shared.keys.ring().log_key())?;
    Ok(living(&entries, shared))
}

fn living(entries: &[RecordEntry], shared: &Shared) -> Option<Witness> {
    let controls = shared.controls();
    witness(entries.iter(), &controls).filter(|(stream, last)| !controls.is_gone(*stream, *last))
}

/// The control records that must outlive a file which nothing else is left of.
pub(crate) fn needed_controls(shared: &Shared, file: FileId) -> Result<Vec<ControlRecord>, SinkError> {
    let failed = |detail: String| SinkError::Failed { detail };
    let handle = shared.files.handle(file).map_err(|error| sink_error("open a segment file", &error))?;
    let Some(handle) = handle else { return Ok(Vec::new()) };
    let ring = shared.keys.ring();
    let trailer = reader::read_trailer(&*handle, file).map_err(|error| sink_error("read a trailer", &error))?;
    let trailer = trailer.ok_or_else(|| failed("its footer is damaged".into()))?;
    let footer = reader::read_footer(&*handle, trailer, ring.log_key(), Wanted::All);
    let footer = footer.map_err(|error| failed(error.to_string()))?;
    if let Some((stream, number)) = living(&footer.entries, shared) {
        return Err(failed(format!("it holds fragment {number} of stream {stream}")));
    }
    let mut needed = Vec::new();
    for (entry, head) in footer.records().filter(|(entry, _)| entry.shape.kind == RecordKind::Control) {
        let head = head.ok_or_else(|| failed("its footer is damaged".into()))?;
        let record = open_control(&ring, head)
            .map_err(|detail| failed(format!("control record {}: {detail}", entry.shape.meta.number)))?;
        let older = |number| shared.files.any_older(number, Some(file));
        if shared.controls().is_needed(&record, shared.epoch().0, older) {
            needed.push(record);
        }
    }
    Ok(needed)
}

/// Removes files whose control records stand elsewhere. Answers how many; what cannot be removed now is tried again later.
pub(crate) fn remove_files(shared: &Shared, files: &[FileId]) -> u64 {
    let (gone, result) = shared.files.remove(files);
    if let Err(error) = result {
        tracing::warn!(%error, "cannot remove segment files that nothing is left of");
    }
    shared.closed().extend(files.iter().filter(|file| !gone.contains(file)));
    shared.controls().prune(shared.epoch().0);
    gone.len() as u64
}
