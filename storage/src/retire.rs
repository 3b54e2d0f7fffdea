//! Giving room back: blocks of records that are gone, files that nothing is left of. All of it blocks.

use vidar_core::control::ControlRecord;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::FileId;
use vidar_core::sink::SinkError;

use crate::crypto::keychain::sink_error;
use crate::load::open_control;
use crate::punch;
use crate::segment_file::reader;
use crate::segment_file::record::RecordKind;
use crate::shared::Shared;

/// Punches records out of files that go on. Returns the bytes freed.
pub(crate) fn punch_all(shared: &Shared, entries: &[SharedEntry], dead: &[FileId]) -> u64 {
    let mut freed = 0;
    for entry in entries {
        // A caller's mistake must not destroy media.
        if !shared.controls().is_gone(entry.meta.stream, entry.meta.number) {
            continue;
        }
        for record in entry.parts.iter().chain([&entry.record]) {
            // What stands in the open file is punched when it is closed.
            if dead.contains(&record.file) || !shared.files.is_punchable(record.file) {
                continue;
            }
            let handle = shared.files.handle(record.file);
            match handle.and_then(|handle| handle.map_or(Ok(0), |handle| punch::punch(&*handle, record))) {
                Ok(bytes) => freed += bytes,
                Err(error) => tracing::warn!(file = %record.file, %error, "cannot free the blocks of expired media"),
            }
        }
    }
    freed
}

/// The control records of a closed file that must outlive it.
pub(crate) fn needed_controls(shared: &Shared, file: FileId) -> Result<Vec<ControlRecord>, SinkError> {
    let failed = |detail: String| SinkError::Failed { detail };
    let handle = shared.files.handle(file).map_err(|error| sink_error("open a segment file", &error))?;
    let Some(handle) = handle else { return Ok(Vec::new()) };
    let ring = shared.keys.ring();
    let trailer = reader::read_trailer(&*handle, file).map_err(|error| sink_error("read a trailer", &error))?;
    let trailer = trailer.ok_or_else(|| failed("its footer is damaged".into()))?;
    let footer = reader::read_footer(&*handle, trailer, ring.log_key()).map_err(|error| failed(error.to_string()))?;
    let mut needed = Vec::new();
    for (entry, head) in footer.records().filter(|(entry, _)| entry.shape.kind == RecordKind::Control) {
        let head = head.ok_or_else(|| failed("its footer is damaged".into()))?;
        let record = open_control(&ring, head)
            .map_err(|detail| failed(format!("control record {}: {detail}", entry.shape.meta.number)))?;
        let epoch = shared.epoch().0;
        let mentioned = |stream| shared.files.mentioned_elsewhere(stream, file);
        if shared.controls().is_needed(&record, epoch, mentioned) {
            needed.push(record);
        }
    }
    Ok(needed)
}

pub(crate) fn remove_file(shared: &Shared, file: FileId) -> Result<(), SinkError> {
    shared.files.remove(file).map_err(|error| sink_error("remove a segment file", &error))?;
    shared.controls().prune(shared.epoch().0);
    Ok(())
}
