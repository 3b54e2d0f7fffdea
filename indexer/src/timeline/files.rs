//! Timeline files: which there are, what of them is in use, and what may go.
//!
//! A file is written by one thread and read by all. It holds nothing that the log does not. Without a directory the same
//! bytes are kept in memory.
//!
//! # Invariants
//! 1. A block is written before anything refers to it. A file goes when neither a stream nor a [save](super::save)
//!    refers to it any more.
//! 2. Of a stream that was deleted nothing is left once its blocks were [erased](Files::erase): neither of those in use
//!    nor of those that were merged, moved or expired before.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use uuid::Uuid;
use vidar_core::ids::{FileId, StreamId};

use super::block::{self, Slot};
use super::block_file::{BlockFile, EXTENSION, HEADER_LEN};
use super::cache::Cache;
use super::names::FileNames;
use super::save;
use crate::lock::{lock, read, write};

/// A file is closed at this length, in bytes.
const FILE_LEN_MAX: u64 = 64 << 20;
/// Saves that are kept: the newest may not have been named by whoever asked for it.
const SAVES_MAX: usize = 2;

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u32,
    /// Of the block in the file.
    pub(super) index: u32,
    pub(super) offset: u64,
    /// Sealed bytes.
    pub(super) len: u32,
}

/// The file that grows.
#[derive(Default)]
struct Current {
    file: Option<(u32, Arc<BlockFile>)>,
    blocks: u32,
    next: u32,
}

/// All timeline files, and the blocks of them that were opened lately.
pub(super) struct Files {
    dir: Option<PathBuf>,
    index_key: [u8; 32],
    pub(super) names: FileNames,
    files: RwLock<HashMap<u32, Arc<BlockFile>>>,
    current: Mutex<Current>,
    cache: Cache<(u32, u32), Arc<Vec<Slot>>>,
    unreadable: AtomicU64,
    kept: Mutex<Kept>,
    /// Blocks that nothing refers to any more, in files that are still there.
    dead: Mutex<HashMap<StreamId, Vec<Place>>>,
    erased: RwLock<HashSet<StreamId>>,
    /// What an earlier start left, until it is known to be of no use.
    leftovers: Mutex<Vec<PathBuf>>,
}

/// What keeps files that no stream refers to.
#[derive(Default)]
struct Kept {
    /// Saves on disk, the oldest first, and the files they need.
    saves: Vec<(Uuid, HashSet<u32>)>,
    /// A save is being written: whatever it may need stays.
    pinned: bool,
}

impl Files {
    /// What an earlier start left in the directory stays until it is [restored](Self::adopt), or something is written.
    pub(super) fn open(dir: Option<PathBuf>, index_key: [u8; 32], cache_bytes: usize) -> io::Result<Self> {
        let mut leftovers = Vec::new();
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)?;
            leftovers = own_files(dir)?;
        }
        Ok(Self {
            dir,
            index_key,
            names: FileNames::default(),
            files: RwLock::default(),
            current: Mutex::default(),
            cache: Cache::new(cache_bytes),
            unreadable: AtomicU64::new(0),
            kept: Mutex::default(),
            dead: Mutex::default(),
            erased: RwLock::default(),
            leftovers: Mutex::new(leftovers),
        })
    }

    /// Nothing is written to a disk.
    pub(super) fn is_in_memory(&self) -> bool {
        self.dir.is_none()
    }

    /// Seals and writes a block.
    pub(super) fn append(&self, stream: StreamId, slots: &[Slot]) -> io::Result<Place> {
        let mut sealed = block::encode(stream, slots, &self.names);
        let mut current = lock(&self.current);
        let (id, file) = self.current(&mut current)?;
        let (index, offset) = (current.blocks, HEADER_LEN as u64 + file.len.load(Ordering::Relaxed));
        file.seal(index, &mut sealed)?;
        let len = u32::try_from(sealed.len()).map_err(|_| io::Error::other("a timeline block of 4 GiB"))?;
        // Whatever comes of it, this nonce was used.
        current.blocks += 1;
        if let Err(error) = file.write(offset, &sealed) {
            // What stands there is not known: the next block goes into another file.
            current.file = None;
            self.let_go_if_dead(id, &file);
            return Err(error);
        }
        file.len.fetch_add(len.into(), Ordering::Relaxed);
        file.live.fetch_add(len.into(), Ordering::Relaxed);
        Ok(Place { file: id, index, offset, len })
    }

    fn current(&self, current: &mut Current) -> io::Result<(u32, Arc<BlockFile>)> {
        if let Some((id, file)) = &current.file {
            if file.len.load(Ordering::Relaxed) < FILE_LEN_MAX {
                return Ok((*id, Arc::clone(file)));
            }
            self.let_go_if_dead(*id, file);
        }
        self.remove_leftovers();
        let id = current.next;
        let file = Arc::new(BlockFile::create(self.dir.as_deref(), &self.index_key)?);
        *current = Current { file: Some((id, Arc::clone(&file))), blocks: 0, next: id + 1 };
        write(&self.files).insert(id, Arc::clone(&file));
        Ok((id, file))
    }

    /// The fragments of a block. None if it does not read: it is logged and counted.
    pub(super) fn read(&self, stream: StreamId, place: Place) -> Option<Arc<Vec<Slot>>> {
        let name = (place.file, place.index);
        if let Some(slots) = self.cache.get(&name) {
            return Some(slots);
        }
        match self.load(stream, place) {
            Ok(slots) => {
                let slots = Arc::new(slots);
                self.cache.insert(name, Arc::clone(&slots), weight(&slots));
                Some(slots)
            }
            // An older view of a stream that was deleted.
            Err(_) if read(&self.erased).contains(&stream) => None,
            Err(error) => {
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                let (file, offset) = (place.file, place.offset);
                tracing::error!(file, offset, %error, "a timeline block does not read; a restart makes it again");
                self.forget_saves();
                None
            }
        }
    }

    /// As `read`, past the cache.
    pub(super) fn load(&self, stream: StreamId, place: Place) -> io::Result<Vec<Slot>> {
        let file = read(&self.files).get(&place.file).cloned();
        let file = file.ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "the timeline file is gone"))?;
        let mut sealed = vec![0; place.len as usize];
        file.read(place.offset, &mut sealed)?;
        let plain = file.unseal(place.index, &mut sealed)?;
        block::decode(plain, stream, &self.names)
            .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error.to_string()))
    }

    /// Nothing is going to refer to these blocks any more. Called before the lock of the stream that did is let go: a
    /// save finds each block in the stream or here.
    pub(super) fn mark_dead(&self, stream: StreamId, places: &[Place]) {
        if !places.is_empty() {
            lock(&self.dead).entry(stream).or_default().extend(places);
        }
    }

    /// Nothing refers to these blocks any more.
    pub(super) fn release(&self, places: &[Place]) {
        for place in places {
            let Some(file) = read(&self.files).get(&place.file).cloned() else { continue };
            file.live.fetch_sub(place.len.into(), Ordering::Relaxed);
            let current = lock(&self.current);
            if current.file.as_ref().is_none_or(|(id, _)| *id != place.file) {
                self.let_go_if_dead(place.file, &file);
            }
        }
    }

    fn let_go_if_dead(&self, id: u32, file: &BlockFile) {
        let kept = lock(&self.kept);
        if file.live.load(Ordering::Relaxed) == 0 && !kept.needs(id) && write(&self.files).remove(&id).is_some() {
            drop(kept);
            file.unlink();
            let mut dead = lock(&self.dead);
            dead.values_mut().for_each(|places| places.retain(|place| place.file != id));
            dead.retain(|_, places| !places.is_empty());
        }
    }

    /// Writes zeros over all that is left of a stream, whether or not something refers to it, and waits until they are
    /// on disk. `places`: what of the stream was released last.
    pub(super) fn erase(&self, stream: StreamId, places: &[Place]) -> io::Result<()> {
        write(&self.erased).insert(stream);
        self.remove_leftovers();
        let dead = lock(&self.dead).get(&stream).cloned().unwrap_or_default();
        let mut touched = HashMap::new();
        for place in places.iter().chain(&dead) {
            let Some(file) = read(&self.files).get(&place.file).cloned() else { continue };
            file.erase(place.offset, place.len)?;
            touched.insert(place.file, file);
        }
        touched.values().try_for_each(|file| file.sync())?;
        self.erase_from_saves(stream)
    }

    /// They were erased.
    pub(super) fn forget_dead(&self, stream: StreamId) {
        lock(&self.dead).remove(&stream);
    }

    fn erase_from_saves(&self, stream: StreamId) -> io::Result<()> {
        let Some(dir) = &self.dir else { return Ok(()) };
        let saves: Vec<Uuid> = lock(&self.kept).saves.iter().map(|(id, _)| *id).collect();
        saves.iter().try_for_each(|id| save::erase(dir, *id, &self.index_key, stream))
    }

    /// Blocks of a stream that nothing refers to any more, in files that are still there.
    pub(super) fn dead(&self, stream: StreamId) -> Vec<Place> {
        lock(&self.dead).get(&stream).cloned().unwrap_or_default()
    }

    fn remove_leftovers(&self) {
        for path in std::mem::take(&mut *lock(&self.leftovers)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a timeline file");
            }
        }
    }

    /// From now on no file goes, until the save [is kept](Self::keep) or [failed](Self::unpin).
    pub(super) fn pin(&self) {
        lock(&self.kept).pinned = true;
    }

    /// Files as they stand, for a save.
    pub(super) fn get(&self, id: u32) -> Option<Arc<BlockFile>> {
        read(&self.files).get(&id).cloned()
    }

    /// A save of these files is on disk. The oldest goes.
    pub(super) fn keep(&self, id: Uuid, files: HashSet<u32>) {
        let gone = {
            let mut kept = lock(&self.kept);
            kept.saves.push((id, files));
            let over = kept.saves.len().saturating_sub(SAVES_MAX);
            kept.saves.drain(..over).map(|(id, _)| id).collect::<Vec<_>>()
        };
        self.remove_saves(&gone);
        self.unpin();
    }

    pub(super) fn unpin(&self) {
        lock(&self.kept).pinned = false;
        let all: Vec<_> = read(&self.files).iter().map(|(id, file)| (*id, Arc::clone(file))).collect();
        let current = lock(&self.current);
        for (id, file) in all {
            if current.file.as_ref().is_none_or(|(current, _)| *current != id) {
                self.let_go_if_dead(id, &file);
            }
        }
    }

    /// A block is damaged: the next start makes all of them again.
    fn forget_saves(&self) {
        let gone: Vec<Uuid> = lock(&self.kept).saves.drain(..).map(|(id, _)| id).collect();
        self.remove_saves(&gone);
    }

    fn remove_saves(&self, saves: &[Uuid]) {
        let Some(dir) = &self.dir else { return };
        for path in saves.iter().map(|id| save::path(dir, *id)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "cannot remove a save of the timeline");
            }
        }
    }

    /// Takes over files that an earlier start saved, by their place among them. What else it left is removed.
    pub(super) fn adopt(
        &self,
        id: Uuid,
        files: Vec<BlockFile>,
        names: Vec<FileId>,
        dead: HashMap<StreamId, Vec<Place>>,
    ) {
        let mut current = lock(&self.current);
        let files: HashMap<u32, Arc<BlockFile>> = (0..).zip(files.into_iter().map(Arc::new)).collect();
        current.next = u32::try_from(files.len()).unwrap_or(u32::MAX);
        let kept: HashSet<Uuid> = files.values().map(|file| file.name).chain([id]).collect();
        lock(&self.leftovers).retain(|path| {
            let name = path.file_stem().and_then(|name| name.to_str()?.parse::<Uuid>().ok());
            let temporary = path.extension().is_some_and(|extension| extension == save::TEMPORARY);
            temporary || name.is_none_or(|name| !kept.contains(&name))
        });
        self.remove_leftovers();
        lock(&self.kept).saves.push((id, files.keys().copied().collect()));
        self.names.set(names);
        *lock(&self.dead) = dead;
        *write(&self.files) = files;
    }

    /// Where the files are, and what seals them; none: in memory.
    pub(super) fn home(&self) -> Option<(&Path, &[u8; 32])> {
        Some((self.dir.as_deref()?, &self.index_key))
    }

    /// A closed file of which less than half is referred to.
    pub(super) fn wasteful(&self) -> Option<u32> {
        let current = lock(&self.current).file.as_ref().map(|(id, _)| *id);
        let files = read(&self.files);
        let mut closed = files.iter().filter(|(id, _)| Some(**id) != current);
        let is_wasteful = |file: &BlockFile| {
            // Without any that is in use it only waits for a save to go.
            (1..file.len.load(Ordering::Relaxed) / 2).contains(&file.live.load(Ordering::Relaxed))
        };
        closed.find(|(_, file)| is_wasteful(file)).map(|(id, _)| *id)
    }

    /// Bytes of all files.
    pub(super) fn len_bytes(&self) -> u64 {
        let files = read(&self.files);
        files.values().map(|file| HEADER_LEN as u64 + file.len.load(Ordering::Relaxed)).sum()
    }

    /// Blocks that did not read since the start.
    pub(super) fn unreadable(&self) -> u64 {
        self.unreadable.load(Ordering::Relaxed)
    }

    /// The next block begins a file.
    #[cfg(test)]
    pub(super) fn close_current(&self) {
        if let Some((id, file)) = lock(&self.current).file.take() {
            self.let_go_if_dead(id, &file);
        }
    }

    #[cfg(test)]
    pub(super) fn forget_opened(&self) {
        self.cache.clear();
    }
}

impl Kept {
    fn needs(&self, file: u32) -> bool {
        self.pinned || self.saves.iter().any(|(_, files)| files.contains(&file))
    }
}

impl Drop for Files {
    fn drop(&mut self) {
        // A later start has no use for what no save refers to.
        let kept = lock(&self.kept);
        for (id, file) in read(&self.files).iter() {
            if !kept.needs(*id) {
                file.unlink();
            }
        }
    }
}

/// All files of a directory that are the timeline's. What else is there is not.
fn own_files(dir: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        let own = [EXTENSION, save::EXTENSION, save::TEMPORARY];
        if path.extension().is_some_and(|extension| own.iter().any(|own| extension == *own)) {
            found.push(path);
        }
    }
    Ok(found)
}

/// Removes the timeline files of a directory, and the directory if nothing else is in it.
pub(crate) fn wipe(dir: &Path) -> io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    own_files(dir)?.iter().try_for_each(fs::remove_file)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

/// About how many bytes of memory they take.
fn weight(slots: &[Slot]) -> usize {
    let each = |slot: &Slot| {
        let entry = &slot.entry;
        let parts = entry.parts.capacity() * size_of_val(&entry.record);
        let totals = entry.totals.capacity() * size_of::<vidar_core::record::TrackTotals>();
        size_of::<Slot>() + size_of_val(&**entry) + 16 + parts + totals
    };
    slots.iter().map(each).sum()
}

#[cfg(test)]
#[path = "files_tests.rs"]
mod tests;
