//! Reading records: only what is asked for, checked before anybody sees it.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, OnceLock};

use bytes::Bytes;
use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, StreamId};
use vidar_core::source::{ConfigKey, FragmentHead, ReadError};
use vidar_core::track::StreamConfig;

use crate::backend::blocks::{BLOCK_LEN, Blocks};
use crate::cache::Cache;
use crate::lately::Lately;
use crate::segment_file::record::{
    FACTS_LEN_MAX, MEDIA_LEN_MAX, RECORD_HEADER_LEN, RecordHeader, RecordKind, RecordOpener, RecordShape, TABLE_LEN_MAX,
};
use crate::shared::{Shared, count};

/// Opened configs that are kept, in bytes.
const CONFIG_CACHE_BYTES: usize = 16 << 20;
/// What an opened record weighs without its head.
const OPENER_BYTES: usize = 1024;

/// More takes long enough to open that it is not done on a thread of the runtime.
const CACHED_BYTES_MAX: u64 = 1 << 20;
/// Of the page cache.
const PAGE_LEN: u64 = 4096;
/// Buffers that are kept, and the largest of them: a read of 1 MiB of media, the chunks at its edges, and their blocks.
const SCRATCH_COUNT_MAX: usize = 8;
const SCRATCH_BYTES_MAX: usize = (1 << 20) + (128 << 10) + (9 << 10);
/// A read of so many sealed bytes goes past the page cache, unless one began at the same place lately: filling the page cache
/// costs more than all else that is done with the bytes, and what is played once need not push out what is played often.
/// What follows it begins at a chunk further on.
const DIRECT_BYTES_MIN: u64 = 128 << 10;

/// What readers keep.
pub(crate) struct ReadCaches {
    records: Cache<(StreamId, FileId, u64), Arc<OpenedRecord>>,
    configs: Cache<ConfigKey, Arc<StreamConfig>>,
    scratch: Scratch,
    lately: Lately,
}

/// A record whose key was derived, and whose head may be open.
pub(crate) struct OpenedRecord {
    opener: RecordOpener,
    head: OnceLock<Arc<FragmentHead>>,
}

impl ReadCaches {
    pub(crate) fn new(head_bytes: usize) -> Self {
        Self {
            records: Cache::new(head_bytes),
            configs: Cache::new(CONFIG_CACHE_BYTES),
            scratch: Scratch::default(),
            lately: Lately::default(),
        }
    }

    /// Forgets everything about a stream.
    pub(crate) fn forget(&self, stream: StreamId) {
        self.records.retain(|(of, _, _)| *of != stream);
        self.configs.retain(|(of, _)| *of != stream);
    }

    /// The head of a fragment, if it is at hand.
    pub(crate) fn head(&self, entry: &FragmentEntry) -> Option<Arc<FragmentHead>> {
        let record = self.records.get(&(entry.meta.stream, entry.record.file, entry.record.offset))?;
        record.head.get().cloned()
    }

    /// A config, if it is at hand.
    pub(crate) fn config(&self, key: &ConfigKey) -> Option<Arc<StreamConfig>> {
        self.configs.get(key)
    }
}

/// Buffers for what is sealed: read into and opened in place again and again, without being cleared in between. A disk can
/// take them directly.
#[derive(Default)]
struct Scratch(Mutex<Vec<Blocks>>);

impl Scratch {
    fn with<T>(&self, len: usize, work: impl FnOnce(&mut [u8]) -> T) -> T {
        let mut buffer = self.lock().pop().unwrap_or_default();
        if buffer.len() < len {
            buffer.resize(len);
        }
        let done = work(&mut buffer[..len]);
        let mut kept = self.lock();
        if buffer.len() <= SCRATCH_BYTES_MAX && kept.len() < SCRATCH_COUNT_MAX {
            kept.push(buffer);
        }
        done
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Blocks>> {
        self.0.lock().expect("no panic under this lock")
    }
}

/// One record that somebody wants to read.
#[derive(Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) shared: &'a Shared,
    pub(crate) stream: StreamId,
    /// Of the fragment, for errors.
    pub(crate) number: FragmentNumber,
    pub(crate) locator: &'a Locator,
}

impl Wanted<'_> {
    fn file_name(&self) -> String {
        self.shared.files.name(self.locator.file).unwrap_or_else(|| self.locator.file.to_string())
    }

    /// A stretch of the record, from its start.
    fn read(&self, from: u64, len: u64) -> Result<Vec<u8>, ReadError> {
        self.bounded(from, len)?;
        let mut bytes = vec![0; len as usize];
        self.read_into(from, &mut bytes)?;
        Ok(bytes)
    }

    /// Where a stretch of the record is in its file.
    fn bounded(&self, from: u64, len: u64) -> Result<u64, ReadError> {
        let bounded = len <= u64::from(FACTS_LEN_MAX) + u64::from(TABLE_LEN_MAX) + 2 * MEDIA_LEN_MAX;
        let offset = self.locator.offset.checked_add(from).filter(|_| bounded);
        offset.ok_or_else(|| self.corrupt("its place is beyond every file"))
    }

    /// Fills `bytes` from a place in the record.
    fn read_into(&self, from: u64, bytes: &mut [u8]) -> Result<(), ReadError> {
        let gone = || ReadError::NotFound { number: self.number };
        let failed = |error: io::Error| {
            let (file, offset_bytes) = (self.file_name(), self.locator.offset.saturating_add(from));
            match error.kind() {
                io::ErrorKind::UnexpectedEof => self.corrupt("the file ends before the record"),
                _ => ReadError::Io { file, offset_bytes, detail: error.to_string() },
            }
        };
        let handle = self.shared.files.handle(self.locator.file).map_err(failed)?.ok_or_else(gone)?;
        handle.read_at(self.bounded(from, bytes.len() as u64)?, bytes).map_err(failed)
    }

    /// Reads; and once more if what came is not what was written: a bit may flip on its way. Damage is what two readings
    /// agree on: of the fragment, or of the config that stands in its file.
    fn twice<T>(&self, config: Option<ConfigId>, read: impl Fn() -> Result<T, ReadError>) -> Result<T, ReadError> {
        let first = match read() {
            Err(first @ ReadError::Corrupt { .. }) => first,
            other => return other,
        };
        let second = read();
        match &second {
            Ok(_) => tracing::warn!(error = %first, "what did not read did when it was read again"),
            Err(ReadError::Corrupt { .. }) => {
                count(&self.shared.counters.damage, 1);
                match config {
                    None => self.shared.damaged.note(self.stream, self.number),
                    Some(config) => self.shared.damaged.note_config((self.stream, config), self.locator.file),
                }
            }
            Err(_) => {}
        }
        second
    }

    /// Whoever reads the record next gets it from the disk.
    fn forget(&self) {
        if let Some(handle) = self.shared.files.open_handle(self.locator.file) {
            // Only whole pages are given up.
            let start = self.locator.offset / PAGE_LEN * PAGE_LEN;
            let end = self.locator.offset.saturating_add(self.locator.record_len).saturating_add(PAGE_LEN);
            handle.forget(start, end - start);
        }
    }

    /// Fills whole blocks from a place in the file, past the page cache. False: that cannot be. Of a file that is written to
    /// nothing is read so: before Linux 6.6 ext4 lets neither such a reader nor a writer in beside the other.
    fn read_direct(&self, offset: u64, blocks: &mut [u8]) -> bool {
        if !self.shared.files.is_closed(self.locator.file) {
            return false;
        }
        let handle = self.shared.files.handle(self.locator.file);
        handle.is_ok_and(|handle| handle.is_some_and(|handle| handle.read_direct(offset, blocks)))
    }

    /// Bytes are not what was written; or they were given back meanwhile.
    fn corrupt(&self, detail: impl ToString) -> ReadError {
        if self.shared.controls().is_gone(self.stream, self.number) {
            return ReadError::NotFound { number: self.number };
        }
        self.forget();
        let (file, detail) = (self.file_name(), detail.to_string());
        ReadError::Corrupt { number: self.number, file, offset_bytes: self.locator.offset, detail }
    }

    /// Derives the record's key; `expect` says whether it is the right record.
    fn opener(&self, head: &[u8], expect: impl Fn(&RecordShape) -> bool) -> Result<RecordOpener, ReadError> {
        let header = head.get(..RECORD_HEADER_LEN).ok_or_else(|| self.corrupt("its head is cut short"))?;
        let header = RecordHeader::decode(header).map_err(|error| self.corrupt(error))?;
        let Locator { volume, file, offset, .. } = *self.locator;
        if header.shape.locator(file, volume, offset) != *self.locator || !expect(&header.shape) {
            return Err(self.corrupt("another record stands there"));
        }
        let keys = self.shared.keys.ring();
        let outer = keys.outer(&header.shape).ok_or(ReadError::KeyUnavailable { number: self.number })?;
        Ok(RecordOpener::new(&header, head, outer))
    }

    /// The plain table of a record of another kind than fragment.
    fn table(&self, expect: impl Fn(&RecordShape) -> bool) -> Result<Bytes, ReadError> {
        let head = self.read(0, self.locator.head_len.into())?;
        let opener = self.opener(&head, expect)?;
        opener.head(head).map(|(_, table)| table).map_err(|error| self.corrupt(error))
    }

    /// The head of a fragment or part, uncached.
    pub(crate) fn fragment_head(&self, expect: impl Fn(&RecordShape) -> bool) -> Result<FragmentHead, ReadError> {
        self.twice(None, || {
            let head = self.read(0, self.locator.head_len.into())?;
            let opener = self.opener(&head, &expect)?;
            opener.fragment_head(head).map_err(|error| self.corrupt(error))
        })
    }
}

/// The record of a fragment, whatever it is that is read.
fn closing<'a>(shared: &'a Shared, entry: &'a FragmentEntry) -> Wanted<'a> {
    Wanted { shared, stream: entry.meta.stream, number: entry.meta.number, locator: &entry.record }
}

/// The record of a fragment, or one of its parts.
fn wanted<'a>(shared: &'a Shared, entry: &'a FragmentEntry, part: Option<u16>) -> Result<Wanted<'a>, ReadError> {
    let (stream, number) = (entry.meta.stream, entry.meta.number);
    let locator = match part {
        None => Some(&entry.record),
        Some(index) => entry.parts.get(usize::from(index)),
    };
    let wanted = Wanted { shared, stream, number, locator: locator.unwrap_or(&entry.record) };
    if shared.controls().is_gone(stream, number) {
        return Err(ReadError::NotFound { number });
    }
    match locator {
        Some(locator) if locator.record_len > 0 => Ok(wanted),
        _ => Err(wanted.corrupt("a part of the fragment is missing")),
    }
}

fn is_it(shape: &RecordShape, entry: &FragmentEntry, part: Option<u16>) -> bool {
    match part {
        None => shape.kind == RecordKind::Fragment && shape.meta == entry.meta,
        Some(index) => {
            let same = (shape.meta.stream, shape.meta.number) == (entry.meta.stream, entry.meta.number);
            shape.kind == RecordKind::Part && same && shape.part == index
        }
    }
}

/// Facts and table of a fragment. Blocks.
pub(crate) fn head(
    shared: &Shared,
    caches: &ReadCaches,
    entry: &FragmentEntry,
) -> Result<Arc<FragmentHead>, ReadError> {
    closing(shared, entry).twice(None, || read_head(shared, caches, entry))
}

fn read_head(shared: &Shared, caches: &ReadCaches, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError> {
    let wanted = wanted(shared, entry, None)?;
    let head = wanted.read(0, wanted.locator.head_len.into())?;
    let weight = OPENER_BYTES + 2 * head.len();
    let opener = wanted.opener(&head, |shape| is_it(shape, entry, None))?;
    let head = Arc::new(opener.fragment_head(head).map_err(|error| wanted.corrupt(error))?);
    let record = Arc::new(OpenedRecord { opener, head: OnceLock::from(Arc::clone(&head)) });
    caches.records.insert((wanted.stream, wanted.locator.file, wanted.locator.offset), record, weight);
    Ok(head)
}

/// A record of which media is wanted, if it has that much.
fn media_of<'a>(
    shared: &'a Shared,
    entry: &'a FragmentEntry,
    part: Option<u16>,
    range: &Range<u64>,
) -> Result<Wanted<'a>, ReadError> {
    let wanted = wanted(shared, entry, part)?;
    if range.start > range.end || range.end > wanted.locator.media_len {
        return Err(wanted.corrupt("its table promises more media than it has"));
    }
    Ok(wanted)
}

/// Plain bytes of a piece, if that takes no waiting: its key is known, its file open, its bytes in the page cache. None also
/// if they do not open: whoever waits for the disk finds out why.
pub(crate) fn cached_media(
    shared: &Shared,
    caches: &ReadCaches,
    entry: &FragmentEntry,
    part: Option<u16>,
    range: Range<u64>,
) -> Option<Bytes> {
    let wanted = media_of(shared, entry, part, &range).ok()?;
    let len = range.end - range.start;
    if len > CACHED_BYTES_MAX {
        return None;
    }
    let Locator { file, offset, head_len, .. } = *wanted.locator;
    let record = caches.records.get(&(wanted.stream, file, offset))?;
    let handle = shared.files.open_handle(file)?;
    let span = record.opener.span(&range);
    let at = wanted.bounded(u64::from(head_len) + span.offset, span.sealed_len).ok()?;
    caches.scratch.with(span.sealed_len as usize, |sealed| {
        let is_there = handle.read_cached(at, sealed);
        is_there.then(|| record.opener.media(&span, sealed, len).ok()).flatten()
    })
}

/// Plain bytes of a piece. Blocks.
pub(crate) fn media(
    shared: &Shared,
    caches: &ReadCaches,
    entry: &FragmentEntry,
    part: Option<u16>,
    range: Range<u64>,
) -> Result<Bytes, ReadError> {
    closing(shared, entry).twice(None, || read_media(shared, caches, entry, part, &range))
}

fn read_media(
    shared: &Shared,
    caches: &ReadCaches,
    entry: &FragmentEntry,
    part: Option<u16>,
    range: &Range<u64>,
) -> Result<Bytes, ReadError> {
    let wanted = media_of(shared, entry, part, range)?;
    if range.is_empty() {
        return Ok(Bytes::new());
    }
    let key = (wanted.stream, wanted.locator.file, wanted.locator.offset);
    let record = match caches.records.get(&key) {
        Some(record) => record,
        None => {
            let header = wanted.read(0, RECORD_HEADER_LEN as u64)?;
            let opener = wanted.opener(&header, |shape| is_it(shape, entry, part))?;
            let record = Arc::new(OpenedRecord { opener, head: OnceLock::new() });
            caches.records.insert(key, Arc::clone(&record), OPENER_BYTES);
            record
        }
    };
    let span = record.opener.span(range);
    let from = u64::from(wanted.locator.head_len) + span.offset;
    let at = wanted.bounded(from, span.sealed_len)?;
    let (block, len) = (BLOCK_LEN as u64, span.sealed_len as usize);
    let (start, skip) = (at / block * block, (at % block) as usize);
    let once = span.sealed_len >= DIRECT_BYTES_MIN && !caches.lately.again((wanted.locator.file, at));
    caches.scratch.with((skip + len).next_multiple_of(BLOCK_LEN), |blocks| {
        let is_there = once && wanted.read_direct(start, blocks);
        let sealed = &mut blocks[skip..skip + len];
        if !is_there {
            wanted.read_into(from, sealed)?;
        }
        record.opener.media(&span, sealed, range.end - range.start).map_err(|error| {
            // Its key may have been derived from wrong bytes.
            caches.records.remove(&key);
            wanted.corrupt(error)
        })
    })
}

/// The config of a fragment. A copy that was found damaged is not read again. Blocks.
pub(crate) fn config(
    shared: &Shared,
    caches: &ReadCaches,
    entry: &FragmentEntry,
) -> Result<Arc<StreamConfig>, ReadError> {
    let (of_fragment, key) = (closing(shared, entry), (entry.meta.stream, entry.meta.config));
    if shared.damaged.has_config(key, entry.record.file) {
        return Err(of_fragment.corrupt(format!("its config {} was found damaged before", key.1)));
    }
    of_fragment.twice(Some(key.1), || read_config(shared, caches, entry))
}

fn read_config(shared: &Shared, caches: &ReadCaches, entry: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError> {
    let of_fragment = wanted(shared, entry, None)?;
    let key = (entry.meta.stream, entry.meta.config);
    let plain = find_config(of_fragment, entry.record.file, key)?;
    let config = StreamConfig::decode(&plain).map_err(|error| of_fragment.corrupt(error))?;
    let config = Arc::new(config);
    caches.configs.insert(key, Arc::clone(&config), plain.len() + OPENER_BYTES);
    Ok(config)
}

/// The plain bytes of a config that stands in `file`. Blocks.
pub(crate) fn plain_config(shared: &Shared, file: FileId, key: ConfigKey) -> Result<Bytes, ReadError> {
    let locator = Locator { volume: 0, file, offset: 0, head_len: 0, media_len: 0, record_len: 0 };
    let wanted = Wanted { shared, stream: key.0, number: FragmentNumber::MIN, locator: &locator };
    wanted.twice(Some(key.1), || find_config(wanted, file, key))
}

fn find_config(wanted: Wanted<'_>, file: FileId, key: (StreamId, ConfigId)) -> Result<Bytes, ReadError> {
    let shared = wanted.shared;
    // A disk that does not answer now says nothing of the bytes.
    let failed =
        |error: io::Error| ReadError::Io { file: wanted.file_name(), offset_bytes: 0, detail: error.to_string() };
    let found = shared.files.config(file, key, &shared.keys.ring()).map_err(failed)?;
    let locator = found.ok_or_else(|| {
        shared.files.forget_pages(file);
        wanted.corrupt(format!("its config {} is not in its file", key.1))
    })?;
    let is_it = |shape: &RecordShape| shape.kind == RecordKind::Config && (shape.meta.stream, shape.meta.config) == key;
    Wanted { locator: &locator, ..wanted }.table(is_it)
}

#[cfg(test)]
#[path = "read_tests.rs"]
mod tests;
