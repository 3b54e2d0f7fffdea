//! Timeline files: sealed blocks, one after the other. Layout: `docs/formats/timeline.md`.
//!
//! A file is written by one thread and read by all. It is not synced and not looked at by a later start: it holds
//! nothing that the log does not. Without a directory the same bytes are kept in memory.
//!
//! # Invariants
//! 1. Every file has a key of its own (HKDF-SHA256 of the index key, a random salt), and a block's nonce is its index
//!    in the file: no (key, nonce) pair repeats, and a block that is moved does not open.
//! 2. A block is written before anything refers to it, and a file goes when nothing refers to it any more.

use std::collections::HashMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use vidar_core::ids::StreamId;

use super::block::{self, Slot};
use super::cache::Cache;
use super::names::FileNames;
use crate::lock::{lock, read, write};

const MAGIC: &[u8; 4] = b"VIDT";
const FORMAT_VERSION: u8 = 1;
const HEADER_LEN: usize = 40;
const INFO: &[u8] = b"vidar timeline file v1";
const EXTENSION: &str = "vtl";
/// A file is closed at this length, in bytes.
const FILE_LEN_MAX: u64 = 64 << 20;

/// Where a block stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) file: u32,
    /// Of the block in the file.
    index: u32,
    offset: u64,
    /// Sealed bytes.
    len: u32,
}

enum Bytes {
    Disk(File, PathBuf),
    Memory(RwLock<Vec<u8>>),
}

struct BlockFile {
    key: LessSafeKey,
    header: [u8; HEADER_LEN],
    bytes: Bytes,
    /// Bytes of all blocks, and of those that something refers to.
    len: AtomicU64,
    live: AtomicU64,
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
}

impl Files {
    /// Removes what an earlier start left in the directory.
    pub(super) fn open(dir: Option<PathBuf>, index_key: [u8; 32], cache_bytes: usize) -> io::Result<Self> {
        if let Some(dir) = &dir {
            fs::create_dir_all(dir)?;
            remove_files(dir)?;
        }
        Ok(Self {
            dir,
            index_key,
            names: FileNames::default(),
            files: RwLock::default(),
            current: Mutex::default(),
            cache: Cache::new(cache_bytes),
            unreadable: AtomicU64::new(0),
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
        let seal = file.key.seal_in_place_append_tag(nonce(index), Aad::from(&file.header), &mut sealed);
        seal.map_err(|_| io::Error::other("sealing failed"))?;
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
        let id = current.next;
        // A name that no other has: an index that was not dropped yet removes its own files only.
        let path = self.dir.as_ref().map(|dir| dir.join(format!("{}.{EXTENSION}", uuid::Uuid::new_v4())));
        let file = Arc::new(BlockFile::create(path, &self.index_key)?);
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
            Err(error) => {
                self.unreadable.fetch_add(1, Ordering::Relaxed);
                let (file, offset) = (place.file, place.offset);
                tracing::error!(file, offset, %error, "a timeline block does not read; a restart makes it again");
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
        let damaged = |detail: String| io::Error::new(io::ErrorKind::InvalidData, detail);
        let plain = file.key.open_in_place(nonce(place.index), Aad::from(&file.header), &mut sealed);
        let plain = plain.map_err(|_| damaged("the block does not open".into()))?;
        block::decode(plain, stream, &self.names).map_err(|error| damaged(error.to_string()))
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
        if file.live.load(Ordering::Relaxed) == 0 {
            write(&self.files).remove(&id);
            file.unlink();
        }
    }

    /// A closed file of which less than half is referred to.
    pub(super) fn wasteful(&self) -> Option<u32> {
        let current = lock(&self.current).file.as_ref().map(|(id, _)| *id);
        let files = read(&self.files);
        let mut closed = files.iter().filter(|(id, _)| Some(**id) != current);
        let is_wasteful = |file: &BlockFile| file.live.load(Ordering::Relaxed) < file.len.load(Ordering::Relaxed) / 2;
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

impl Drop for Files {
    fn drop(&mut self) {
        // A later start has no use for them.
        for file in read(&self.files).values() {
            file.unlink();
        }
    }
}

/// Removes all timeline files of a directory. What else is there stays.
fn remove_files(dir: &Path) -> io::Result<()> {
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == EXTENSION) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

/// Removes the timeline files of a directory, and the directory if nothing else is in it.
pub(crate) fn wipe(dir: &Path) -> io::Result<()> {
    if !dir.try_exists()? {
        return Ok(());
    }
    remove_files(dir)?;
    match fs::remove_dir(dir) {
        Err(error) if error.kind() != io::ErrorKind::DirectoryNotEmpty => Err(error),
        _ => Ok(()),
    }
}

impl BlockFile {
    fn create(path: Option<PathBuf>, index_key: &[u8; 32]) -> io::Result<Self> {
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&[0, FORMAT_VERSION, 0, 0]);
        let random = SystemRandom::new().fill(&mut header[8..]);
        random.map_err(|_| io::Error::other("no random bytes from the system"))?;
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &header[8..]).extract(index_key);
        let key = secret.expand(&[INFO], &AES_256_GCM).map(UnboundKey::from);
        let key = LessSafeKey::new(key.map_err(|_| io::Error::other("key derivation failed"))?);
        let bytes = match path {
            None => Bytes::Memory(RwLock::new(header.to_vec())),
            Some(path) => {
                let mut file = OpenOptions::new().read(true).write(true).create(true).truncate(true).open(&path)?;
                file.write_all(&header)?;
                Bytes::Disk(file, path)
            }
        };
        Ok(Self { key, header, bytes, len: AtomicU64::new(0), live: AtomicU64::new(0) })
    }

    fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match &self.bytes {
            Bytes::Disk(file, _) => file.write_all_at(bytes, offset),
            Bytes::Memory(memory) => {
                write(memory).extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            Bytes::Disk(file, _) => file.read_exact_at(bytes, offset),
            Bytes::Memory(memory) => {
                let memory = read(memory);
                let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = memory.get(begin..begin.saturating_add(bytes.len()));
                bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    fn unlink(&self) {
        if let Bytes::Disk(_, path) = &self.bytes
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a timeline file");
        }
    }
}

fn nonce(index: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
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
