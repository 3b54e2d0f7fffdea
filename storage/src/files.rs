//! The segment files that exist, and what each holds as far as deletion needs it.

use std::collections::{HashMap, HashSet};
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use uuid::Uuid;
use vidar_core::control::Control;
use vidar_core::entry::Locator;
use vidar_core::ids::{FileId, FragmentNumber, StreamId};
use vidar_core::source::ConfigKey;

use crate::backend::{SegmentHandle, SegmentIo};
use crate::cache::Cache;
use crate::controls::Controls;
use crate::crypto::keyring::Keyring;
use crate::handles::Handles;
use crate::listing::{self, Listed, Listing};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::header::{FileHeader, file_name};
use crate::segment_file::reader::{self, FooterError};
use crate::segment_file::record::RecordKind;

/// Closed files whose configs are known.
const CONFIG_MAP_COUNT_MAX: usize = 256;

/// Where the configs of a file stand.
pub(crate) type ConfigMap = HashMap<ConfigKey, Locator>;

/// What is known of a file.
#[derive(Debug, Clone)]
pub(crate) struct FileInfo {
    pub(crate) header: FileHeader,
    /// It has its footer.
    pub(crate) closed: bool,
    /// The greatest number of a fragment or part, by stream.
    pub(crate) last: HashMap<StreamId, FragmentNumber>,
    /// Streams that anything but a deletion is about.
    pub(crate) mentioned: HashSet<StreamId>,
    /// End of the batches of a closed file, once known.
    pub(crate) data_end: u64,
    /// Of a file without footer.
    configs: ConfigMap,
}

impl FileInfo {
    pub(crate) fn new(header: FileHeader, closed: bool) -> Self {
        let (last, mentioned, configs) = (HashMap::new(), HashSet::new(), HashMap::new());
        Self { header, closed, last, mentioned, data_end: 0, configs }
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.header.epoch, self.header.file)
    }

    /// Takes note of a record other than a control record.
    pub(crate) fn note(&mut self, entry: &RecordEntry) {
        let meta = &entry.shape.meta;
        match entry.shape.kind {
            RecordKind::Fragment | RecordKind::Part => {
                let last = self.last.entry(meta.stream).or_insert(meta.number);
                *last = (*last).max(meta.number);
            }
            RecordKind::Config if !self.closed => {
                let locator = entry.shape.locator(self.header.file, self.header.volume, entry.offset);
                self.configs.insert((meta.stream, meta.config), locator);
            }
            RecordKind::Config => {}
            RecordKind::Control => return,
        }
        self.mentioned.insert(meta.stream);
    }

    /// Takes note of a control record.
    pub(crate) fn note_control(&mut self, control: &Control) {
        if !matches!(control, Control::StreamDeleted { .. }) {
            self.mentioned.extend(control.stream());
        }
    }

    /// Nothing in it may be read any more, control records aside.
    fn is_dead(&self, controls: &Controls) -> bool {
        self.closed && self.last.iter().all(|(stream, last)| controls.is_gone(*stream, *last))
    }
}

/// All files.
pub(crate) struct Files {
    io: Arc<dyn SegmentIo>,
    table: RwLock<HashMap<FileId, FileInfo>>,
    handles: Arc<Handles>,
    configs: Cache<FileId, Arc<ConfigMap>>,
    /// Held over the writing of the list, and for nothing else. None where nothing may be written.
    list: Mutex<Option<ListState>>,
}

/// What the list of files says beside the files that exist.
struct ListState {
    store: Uuid,
    /// Files that should be there: they are listed until the list is made anew.
    missing: Listing,
}

impl Files {
    pub(crate) fn new(io: Arc<dyn SegmentIo>) -> Self {
        let (handles, configs) = (Arc::new(Handles::new(Arc::clone(&io))), Cache::new(CONFIG_MAP_COUNT_MAX));
        Self { io, table: RwLock::default(), handles, configs, list: Mutex::new(None) }
    }

    /// From now on the list of files is kept.
    pub(crate) fn keep_list(&self, store: Uuid, missing: Listing) {
        *self.list.lock().unwrap_or_else(PoisonError::into_inner) = Some(ListState { store, missing });
        self.save_list();
    }

    /// Writes the list of files anew, when one was begun or closed. Nothing depends on it: a failure is logged.
    pub(crate) fn save_list(&self) {
        if let Err(error) = self.write_list() {
            tracing::warn!(%error, "cannot write the list of segment files");
        }
    }

    fn write_list(&self) -> io::Result<()> {
        let state = self.list.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(ListState { store, missing }) = &*state else { return Ok(()) };
        let mut unmeasured: Vec<_> = self
            .read()
            .values()
            .filter(|info| info.closed && info.data_end == 0)
            .map(|info| info.header.file)
            .collect();
        unmeasured.sort_unstable();
        for file in unmeasured {
            if let Ok(Some(handle)) = self.handle(file)
                && let Ok(Some(trailer)) = reader::read_trailer(&*handle, file)
            {
                self.update(file, |info| info.data_end = trailer.data_end);
            }
        }
        let mut listing = missing.clone();
        for FileInfo { header, data_end, .. } in self.read().values() {
            let listed = Listed { epoch: header.epoch, sequence: header.sequence, data_end: *data_end };
            listing.0.insert(header.file, listed);
        }
        self.io.replace_small(listing::NAME, &listing.encode(*store))
    }

    fn read(&self) -> RwLockReadGuard<'_, HashMap<FileId, FileInfo>> {
        self.table.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, HashMap<FileId, FileInfo>> {
        self.table.write().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn insert(&self, info: FileInfo) {
        self.write().insert(info.header.file, info);
    }

    /// Changes what is known of a file.
    pub(crate) fn update(&self, file: FileId, change: impl FnOnce(&mut FileInfo)) {
        if let Some(info) = self.write().get_mut(&file) {
            change(info);
        }
    }

    /// The file got its footer.
    pub(crate) fn set_closed(&self, file: FileId) {
        self.update(file, |info| {
            info.closed = true;
            info.configs = HashMap::new();
        });
    }

    pub(crate) fn count(&self) -> usize {
        self.read().len()
    }

    /// All closed files, in the order of the log.
    pub(crate) fn closed(&self) -> Vec<FileHeader> {
        let table = self.read();
        let mut closed: Vec<_> = table.values().filter(|info| info.closed).map(|info| info.header).collect();
        closed.sort_by_key(|header| (header.epoch, header.sequence, header.file));
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

    /// Where a config stands in a file.
    pub(crate) fn config(&self, file: FileId, key: ConfigKey, keys: &Keyring) -> Result<Option<Locator>, FooterError> {
        let open = self.read().get(&file).filter(|info| !info.closed).map(|info| info.configs.get(&key).copied());
        if let Some(found) = open {
            return Ok(found);
        }
        if let Some(configs) = self.configs.get(&file) {
            return Ok(configs.get(&key).copied());
        }
        let Some(handle) = self.handle(file)? else { return Ok(None) };
        let Some(trailer) = reader::read_trailer(&*handle, file)? else { return Ok(None) };
        let mut configs = ConfigMap::new();
        for entry in reader::read_entries(&*handle, &trailer, keys.log_key())? {
            if entry.shape.kind == RecordKind::Config {
                let meta = &entry.shape.meta;
                configs.insert((meta.stream, meta.config), entry.shape.locator(file, 0, entry.offset));
            }
        }
        let configs = Arc::new(configs);
        self.configs.insert(file, Arc::clone(&configs), 1);
        Ok(configs.get(&key).copied())
    }

    /// Closed files, `among` those asked for, in which nothing but control records is left.
    pub(crate) fn dead(&self, controls: &Controls, among: impl Fn(&FileInfo) -> bool) -> Vec<FileId> {
        let table = self.read();
        // What a file voids in one that was not closed would come back without it.
        let voids = |info: &&FileInfo| {
            let replaced = info.header.replaces.and_then(|(file, _)| table.get(&file));
            replaced.is_some_and(|replaced| !replaced.closed)
        };
        let dead = table.values().filter(|info| !info.header.read_only && among(info) && info.is_dead(controls));
        let dead = dead.filter(|info| !voids(info));
        let mut dead: Vec<_> = dead.map(|info| (info.header.epoch, info.header.sequence, info.header.file)).collect();
        dead.sort_unstable();
        dead.into_iter().map(|(_, _, file)| file).collect()
    }

    /// A file other than `except` holds something about the stream beside its deletion.
    pub(crate) fn mentioned_elsewhere(&self, stream: StreamId, except: FileId) -> bool {
        self.read().values().any(|info| info.header.file != except && info.mentioned.contains(&stream))
    }

    /// Removes a file.
    pub(crate) fn remove(&self, file: FileId) -> io::Result<()> {
        // First the list: a file that is in it and gone would be missed.
        let Some(info) = self.write().remove(&file) else { return Ok(()) };
        let gone = self.write_list().and_then(|()| match self.io.unlink(&info.name()) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            other => other,
        });
        if let Err(error) = gone {
            self.write().insert(file, info);
            return Err(error);
        }
        self.handles.forget(file);
        self.configs.retain(|id| *id != file);
        self.io.sync_dir()
    }
}
