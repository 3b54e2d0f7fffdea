//! The segment files that exist, and what each holds as far as deletion needs it.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::io;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use uuid::Uuid;
use vidar_core::entry::Locator;
use vidar_core::ids::{FileId, FragmentNumber, StreamId};
use vidar_core::source::ConfigKey;

use crate::backend::{SegmentHandle, SegmentIo};
use crate::cache::Cache;
use crate::checkpoint::Position;
use crate::controls::Controls;
use crate::crypto::keyring::Keyring;
use crate::handles::Handles;
use crate::list::List;
use crate::listing::{Change, Listed, Listing};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::header::{FileHeader, file_name};
use crate::segment_file::reader;
use crate::segment_file::record::RecordKind;
use crate::segment_file::recover;

/// Closed files whose configs are known.
const CONFIG_MAP_COUNT_MAX: usize = 256;

/// Where the configs of a file stand.
pub(crate) type ConfigMap = HashMap<ConfigKey, Locator>;

/// What is known of a file. There may be hundreds of thousands: what a footer says is read when it is needed.
#[derive(Debug, Clone)]
pub(crate) struct FileInfo {
    pub(crate) header: FileHeader,
    /// It has its footer.
    pub(crate) closed: bool,
    /// Sequence of the smallest number of a fragment, part or config. None: it has none, or did not read.
    pub(crate) first: Option<u64>,
    /// Of a closed file: a stream that may have fragments in it, and the greatest number of one. While that one may be
    /// read, the file is needed. None: it holds control records only.
    pub(crate) witness: Option<Witness>,
    /// End of the batches of a closed file; 0 of another.
    pub(crate) data_end: u64,
    /// It is known to have been begun: the list of files names it.
    pub(crate) is_begun: bool,
    /// Of a file without footer.
    configs: Option<Box<ConfigMap>>,
}

/// The last fragment of a stream in a file.
pub(crate) type Witness = (StreamId, FragmentNumber);

/// Of the streams that still have fragments in a file the one whose floor is furthest behind: it will most likely have
/// them for longest. One that has none any more only if all are gone.
pub(crate) fn witness<'a>(entries: impl Iterator<Item = &'a RecordEntry>, controls: &Controls) -> Option<Witness> {
    let mut last: HashMap<StreamId, FragmentNumber> = HashMap::new();
    for entry in entries.filter(|entry| matches!(entry.shape.kind, RecordKind::Fragment | RecordKind::Part)) {
        let meta = &entry.shape.meta;
        let last = last.entry(meta.stream).or_insert(meta.number);
        *last = (*last).max(meta.number);
    }
    let gone = |stream, last| controls.is_gone(stream, last);
    last.into_iter().min_by_key(|(stream, last)| (gone(*stream, *last), controls.below(*stream), Reverse(*last)))
}

impl FileInfo {
    pub(crate) fn new(header: FileHeader, closed: bool) -> Self {
        Self { header, closed, first: None, witness: None, data_end: 0, is_begun: true, configs: None }
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.header.epoch, self.header.file)
    }

    fn position(&self) -> Position {
        (self.header.epoch, self.header.sequence)
    }

    fn listed(&self) -> Listed {
        Listed { epoch: self.header.epoch, sequence: self.header.sequence, data_end: self.data_end }
    }

    /// Takes note of a record.
    pub(crate) fn note(&mut self, entry: &RecordEntry) {
        let meta = &entry.shape.meta;
        if entry.shape.kind == RecordKind::Control {
            return;
        }
        let sequence = meta.number.sequence();
        self.first = Some(self.first.map_or(sequence, |first| first.min(sequence)));
        if entry.shape.kind == RecordKind::Config && !self.closed {
            let locator = entry.shape.locator(self.header.file, self.header.volume, entry.offset);
            self.configs.get_or_insert_default().insert((meta.stream, meta.config), locator);
        }
    }

    /// It may have been begun before a number was given.
    fn is_older_than(&self, number: FragmentNumber) -> bool {
        self.first.is_none_or(|first| first <= number.sequence())
    }

    /// Nothing in it may be read any more, control records aside; or its witness is gone, and its footer has to be asked.
    pub(crate) fn may_be_dead(&self, controls: &Controls) -> bool {
        self.closed && self.witness.is_none_or(|(stream, last)| controls.is_gone(stream, last))
    }
}

/// All files.
pub(crate) struct Files {
    io: Arc<dyn SegmentIo>,
    table: RwLock<HashMap<FileId, FileInfo>>,
    handles: Arc<Handles>,
    configs: Cache<FileId, Arc<ConfigMap>>,
    list: List,
}

impl Files {
    pub(crate) fn new(io: Arc<dyn SegmentIo>) -> Self {
        let (handles, configs) = (Arc::new(Handles::new(Arc::clone(&io))), Cache::new(CONFIG_MAP_COUNT_MAX));
        Self { io, table: RwLock::default(), handles, configs, list: List::default() }
    }

    /// From now on the list of files is kept.
    pub(crate) fn keep_list(&self, store: Uuid, missing: Listing) {
        self.list.keep(store, missing);
        self.save_list();
    }

    /// Writes the list of files anew. Nothing depends on it: a failure is logged.
    pub(crate) fn save_list(&self) {
        if let Err(error) = self.list.rewrite(&*self.io, || self.listed()) {
            tracing::warn!(%error, "cannot write the list of segment files");
        }
    }

    /// Adds to the list what was begun or closed since. Nothing depends on it: a failure is logged.
    pub(crate) fn note_in_list(&self) {
        if let Err(error) = self.write_list() {
            tracing::warn!(%error, "cannot write the list of segment files");
        }
    }

    /// As `note_in_list`, for who depends on it.
    pub(crate) fn write_list(&self) -> io::Result<()> {
        self.list.catch_up(&*self.io, &[], || self.listed())
    }

    fn listed(&self) -> Vec<(FileId, Listed)> {
        let table = self.read();
        table.iter().filter(|(_, info)| info.is_begun).map(|(file, info)| (*file, info.listed())).collect()
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<FileId, FileInfo>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<FileId, FileInfo>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// A file that was found.
    pub(crate) fn insert(&self, info: FileInfo) {
        self.write().insert(info.header.file, info);
    }

    /// A file that was begun.
    pub(crate) fn begin(&self, header: FileHeader) {
        let info = FileInfo::new(header, false);
        self.list.note(header.file, info.listed());
        self.insert(info);
    }

    /// Changes what is known of a file.
    pub(crate) fn update(&self, file: FileId, change: impl FnOnce(&mut FileInfo)) {
        if let Some(info) = self.write().get_mut(&file) {
            change(info);
        }
    }

    /// The file got its footer.
    pub(crate) fn set_closed(&self, file: FileId, data_end: u64, witness: Option<Witness>) {
        self.update(file, |info| {
            *info = FileInfo { closed: true, data_end, witness, configs: None, ..info.clone() };
            self.list.note(file, info.listed());
        });
    }

    pub(crate) fn count(&self) -> usize {
        self.read().len()
    }

    /// All closed files, in the order of the log.
    pub(crate) fn closed(&self) -> Vec<(FileHeader, u64)> {
        let table = self.read();
        let closed = table.values().filter(|info| info.closed);
        let mut closed: Vec<_> = closed.map(|info| (info.header, info.data_end)).collect();
        closed.sort_by_key(|(header, _)| (header.epoch, header.sequence, header.file));
        closed
    }

    /// The name of a file that exists.
    pub(crate) fn name(&self, file: FileId) -> Option<String> {
        self.read().get(&file).map(FileInfo::name)
    }

    /// May holes be punched into it?
    pub(crate) fn is_punchable(&self, file: FileId) -> bool {
        self.read().get(&file).is_some_and(|info| info.closed && !info.header.read_only)
    }

    /// A handle of a file; none if it is gone.
    pub(crate) fn handle(&self, file: FileId) -> io::Result<Option<Arc<dyn SegmentHandle>>> {
        let Some(epoch) = self.read().get(&file).map(|info| info.header.epoch) else { return Ok(None) };
        match self.handles.get(epoch, file) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            other => other.map(Some),
        }
    }

    /// The files that are open.
    pub(crate) fn handles(&self) -> &Arc<Handles> {
        &self.handles
    }

    /// A handle that is open.
    pub(crate) fn open_handle(&self, file: FileId) -> Option<Arc<dyn SegmentHandle>> {
        let epoch = self.read().get(&file)?.header.epoch;
        self.handles.cached(epoch, file)
    }

    /// Whoever reads an open file next gets it from the disk.
    pub(crate) fn forget_pages(&self, file: FileId) {
        if let Some(handle) = self.open_handle(file) {
            handle.forget(0, handle.len().unwrap_or(0));
        }
    }

    /// Nothing is written to it any more.
    pub(crate) fn is_closed(&self, file: FileId) -> bool {
        self.read().get(&file).is_some_and(|info| info.closed)
    }

    /// Where a config stands in a file.
    pub(crate) fn config(&self, file: FileId, key: ConfigKey, keys: &Keyring) -> io::Result<Option<Locator>> {
        let data_end = match self.read().get(&file) {
            None => return Ok(None),
            Some(info) if !info.closed => {
                return Ok(info.configs.as_ref().and_then(|configs| configs.get(&key)).copied());
            }
            Some(info) => info.data_end,
        };
        if let Some(configs) = self.configs.get(&file) {
            return Ok(configs.get(&key).copied());
        }
        let Some(handle) = self.handle(file)? else { return Ok(None) };
        let mut configs = ConfigMap::new();
        for entry in entries(&*handle, file, data_end, keys)? {
            if entry.shape.kind == RecordKind::Config {
                let meta = &entry.shape.meta;
                configs.insert((meta.stream, meta.config), entry.shape.locator(file, 0, entry.offset));
            }
        }
        let configs = Arc::new(configs);
        self.configs.insert(file, Arc::clone(&configs), 1);
        Ok(configs.get(&key).copied())
    }

    /// Closed files, `among` those asked for, in which nothing but control records is left, as far as their witnesses can
    /// tell; with those witnesses.
    pub(crate) fn perhaps_dead(
        &self,
        controls: &Controls,
        among: impl Fn(&FileInfo) -> bool,
    ) -> Vec<(FileId, Option<Witness>)> {
        let table = self.read();
        // What a file voids in one that was not closed would come back without it.
        let voids = |info: &&FileInfo| {
            let replaced = info.header.replaces.and_then(|(file, _)| table.get(&file));
            replaced.is_some_and(|replaced| !replaced.closed)
        };
        let dead = table.values().filter(|info| !info.header.read_only && among(info) && info.may_be_dead(controls));
        let mut dead: Vec<_> = dead.filter(|info| !voids(info)).collect();
        dead.sort_unstable_by_key(|info| (info.header.epoch, info.header.sequence, info.header.file));
        dead.into_iter().map(|info| (info.header.file, info.witness)).collect()
    }

    /// A file other than `except` may have been begun before the number was given.
    pub(crate) fn any_older(&self, number: FragmentNumber, except: Option<FileId>) -> bool {
        self.read().values().any(|info| Some(info.header.file) != except && info.is_older_than(number))
    }

    /// All files up to a place in the log but for some, in its order; none if one of them has no footer, or may not be
    /// trusted to have.
    pub(crate) fn closed_through(&self, last: Position, but: &[FileId]) -> Option<Vec<FileInfo>> {
        let is_in = |info: &&FileInfo| info.position() <= last && !but.contains(&info.header.file);
        let mut files: Vec<FileInfo> = self.read().values().filter(is_in).cloned().collect();
        files.sort_unstable_by_key(FileInfo::position);
        files.iter().all(|info| info.closed && !info.header.read_only).then_some(files)
    }

    /// The place of the last file.
    pub(crate) fn last(&self) -> Option<Position> {
        self.read().values().map(FileInfo::position).max()
    }

    /// Forgets all files.
    pub(crate) fn clear(&self) {
        self.write().clear();
    }

    /// Removes files. Answers those that went, if not all did.
    pub(crate) fn remove(&self, files: &[FileId]) -> (Vec<FileId>, io::Result<()>) {
        let mut gone = Vec::new();
        let infos: Vec<FileInfo> = {
            let mut table = self.write();
            files.iter().filter_map(|file| table.remove(file)).collect()
        };
        // First the list: a file that is in it and gone would be missed.
        let removed: Vec<_> = infos.iter().map(|info| Change::Removed(info.header.file)).collect();
        let mut result = self.list.catch_up(&*self.io, &removed, || self.listed());
        for info in infos {
            let file = info.header.file;
            if result.is_ok() {
                result = match self.io.unlink(&info.name()) {
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                    other => other,
                };
            }
            if result.is_ok() {
                self.handles.forget(file);
                self.configs.retain(|id| *id != file);
                gone.push(file);
            } else {
                self.list.note(file, info.listed());
                self.insert(info);
            }
        }
        let synced = if gone.is_empty() { Ok(()) } else { self.io.sync_dir() };
        (gone, result.and(synced))
    }
}

/// What is in a closed file, from its footer. Where that rotted since it was closed, from the batches before `data_end`.
fn entries(handle: &dyn SegmentHandle, file: FileId, data_end: u64, keys: &Keyring) -> io::Result<Vec<RecordEntry>> {
    let footer = || {
        let trailer = reader::read_trailer(handle, file).ok()??;
        reader::read_entries(handle, &trailer, keys.log_key()).ok()
    };
    if let Some(entries) = footer() {
        return Ok(entries);
    }
    tracing::warn!(%file, "the footer of a segment file does not read: looking through its batches");
    let scan = recover::scan(handle, file, Some(data_end), data_end, keys)?;
    if scan.unread {
        return Err(io::Error::other("neither its footer nor all of its batches read"));
    }
    Ok(scan.records.into_iter().map(|(entry, _)| entry).collect())
}
