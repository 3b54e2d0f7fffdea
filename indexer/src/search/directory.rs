//! The file system as tantivy sees it: sealed files, read a chunk at a time.
//!
//! No file stays open: a chunk that is not in the cache costs an `open` and a `pread`. Nothing is synced.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tantivy::HasLen;
use tantivy::directory::error::{DeleteError, LockError, OpenReadError, OpenWriteError};
use tantivy::directory::{
    AntiCallToken, Directory, DirectoryLock, FileHandle, Lock, OwnedBytes, TerminatingWrite, WatchCallback,
    WatchHandle, WritePtr,
};

use super::sealed::{self, CHUNK_LEN, FileKey, HEADER_LEN, Layout, SEALED_CHUNK_LEN, damaged};
use crate::lock::lock;

/// Plain chunks of all files, up to a number of bytes. Two generations: what was not used while the younger one
/// filled up goes with the older.
pub(crate) struct ChunkCache {
    half_bytes: usize,
    next_file: AtomicU64,
    generations: Mutex<Generations>,
}

type ChunkId = (u64, u64);

#[derive(Default)]
struct Generations {
    young: HashMap<ChunkId, Arc<[u8]>>,
    old: HashMap<ChunkId, Arc<[u8]>>,
    young_bytes: usize,
}

impl ChunkCache {
    pub(crate) fn new(bytes: usize) -> Arc<Self> {
        Arc::new(Self { half_bytes: bytes / 2, next_file: AtomicU64::new(0), generations: Mutex::default() })
    }

    fn get(&self, id: ChunkId) -> Option<Arc<[u8]>> {
        let mut generations = lock(&self.generations);
        if let Some(chunk) = generations.young.get(&id) {
            return Some(Arc::clone(chunk));
        }
        let chunk = generations.old.remove(&id)?;
        self.keep(&mut generations, id, &chunk);
        Some(chunk)
    }

    fn put(&self, id: ChunkId, chunk: &Arc<[u8]>) {
        self.keep(&mut lock(&self.generations), id, chunk);
    }

    fn keep(&self, generations: &mut Generations, id: ChunkId, chunk: &Arc<[u8]>) {
        if generations.young_bytes + chunk.len() > self.half_bytes {
            generations.old = std::mem::take(&mut generations.young);
            generations.young_bytes = 0;
        }
        generations.young_bytes += chunk.len();
        generations.young.insert(id, Arc::clone(chunk));
    }
}

/// A directory of sealed files.
#[derive(Clone)]
pub(crate) struct SealedDirectory {
    inner: Arc<Inner>,
}

struct Inner {
    root: PathBuf,
    /// Name of the directory: part of the names that keys are made from.
    name: String,
    key: [u8; 32],
    cache: Arc<ChunkCache>,
}

impl std::fmt::Debug for SealedDirectory {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("SealedDirectory").field(&self.inner.root).finish()
    }
}

impl SealedDirectory {
    /// Makes the directory if it is not there.
    pub(crate) fn open(root: PathBuf, key: [u8; 32], cache: Arc<ChunkCache>) -> io::Result<Self> {
        fs::create_dir_all(&root)?;
        let name = root.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Ok(Self { inner: Arc::new(Inner { root, name, key, cache }) })
    }

    fn path(&self, path: &Path) -> PathBuf {
        self.inner.root.join(path)
    }

    fn sealed_name(&self, path: &Path) -> String {
        format!("{}/{}", self.inner.name, path.to_string_lossy())
    }

    fn open_file(&self, path: &Path) -> io::Result<SealedFile> {
        SealedFile::open(self.path(path), self.sealed_name(path), &self.inner.key, Arc::clone(&self.inner.cache))
    }
}

fn read_error(error: io::Error, path: &Path) -> OpenReadError {
    if error.kind() == io::ErrorKind::NotFound {
        OpenReadError::FileDoesNotExist(path.to_owned())
    } else {
        OpenReadError::wrap_io_error(error, path.to_owned())
    }
}

impl Directory for SealedDirectory {
    fn get_file_handle(&self, path: &Path) -> Result<Arc<dyn FileHandle>, OpenReadError> {
        let file = self.open_file(path).map_err(|error| read_error(error, path))?;
        Ok(Arc::new(file))
    }

    fn delete(&self, path: &Path) -> Result<(), DeleteError> {
        fs::remove_file(self.path(path)).map_err(|error| {
            if error.kind() == io::ErrorKind::NotFound {
                DeleteError::FileDoesNotExist(path.to_owned())
            } else {
                DeleteError::IoError { io_error: Arc::new(error), filepath: path.to_owned() }
            }
        })
    }

    fn exists(&self, path: &Path) -> Result<bool, OpenReadError> {
        self.path(path).try_exists().map_err(|error| OpenReadError::wrap_io_error(error, path.to_owned()))
    }

    fn open_write(&self, path: &Path) -> Result<WritePtr, OpenWriteError> {
        let io_error = |error: io::Error| {
            if error.kind() == io::ErrorKind::AlreadyExists {
                OpenWriteError::FileAlreadyExists(path.to_owned())
            } else {
                OpenWriteError::wrap_io_error(error, path.to_owned())
            }
        };
        let file = File::create_new(self.path(path)).map_err(io_error)?;
        let writer = sealed::Writer::new(file, &self.inner.key, &self.sealed_name(path)).map_err(io_error)?;
        Ok(BufWriter::with_capacity(CHUNK_LEN, Box::new(Terminating(writer))))
    }

    fn atomic_read(&self, path: &Path) -> Result<Vec<u8>, OpenReadError> {
        let sealed = fs::read(self.path(path)).map_err(|error| read_error(error, path))?;
        sealed::open_all(&self.inner.key, &self.sealed_name(path), &sealed).map_err(|error| read_error(error, path))
    }

    fn atomic_write(&self, path: &Path, data: &[u8]) -> io::Result<()> {
        let sealed = sealed::seal_all(&self.inner.key, &self.sealed_name(path), data)?;
        let mut temporary = self.path(path).into_os_string();
        temporary.push(".new");
        fs::write(&temporary, sealed)?;
        fs::rename(&temporary, self.path(path))
    }

    /// Derived state: not worth a sync.
    fn sync_directory(&self) -> io::Result<()> {
        Ok(())
    }

    /// One thread writes, and the data directory is locked by its server.
    fn acquire_lock(&self, _: &Lock) -> Result<DirectoryLock, LockError> {
        Ok(DirectoryLock::from(Box::new(())))
    }

    fn watch(&self, _: WatchCallback) -> tantivy::Result<WatchHandle> {
        Ok(WatchHandle::empty())
    }
}

struct Terminating(sealed::Writer<File>);

impl Write for Terminating {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

impl TerminatingWrite for Terminating {
    fn terminate_ref(&mut self, _: AntiCallToken) -> io::Result<()> {
        self.0.finish()
    }
}

#[derive(Debug)]
struct SealedFile {
    path: PathBuf,
    name: String,
    key: FileKey,
    layout: Layout,
    len: usize,
    id: u64,
    cache: Arc<ChunkCache>,
}

impl std::fmt::Debug for ChunkCache {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ChunkCache(..)")
    }
}

impl SealedFile {
    /// Opens the last chunk too: a file that was cut does not open.
    fn open(path: PathBuf, name: String, key: &[u8; 32], cache: Arc<ChunkCache>) -> io::Result<Self> {
        let mut file = File::open(&path)?;
        let layout = Layout::of_file_len(file.metadata()?.len()).ok_or_else(|| damaged(&name, "truncated"))?;
        let mut header = [0; HEADER_LEN];
        file.read_exact(&mut header)?;
        let key = FileKey::of_header(key, &name, header)?;
        let len = usize::try_from(layout.plain_len).map_err(|_| damaged(&name, "longer than memory"))?;
        let id = cache.next_file.fetch_add(1, Ordering::Relaxed);
        let sealed = Self { path, name, key, layout, len, id, cache };
        let last = layout.chunk_count - 1;
        let chunk = sealed.read_chunks(&file, last..last + 1)?;
        sealed.cache.put((id, last), &Arc::from(chunk));
        Ok(sealed)
    }

    /// Plain bytes of chunks that stand side by side, with one read.
    fn read_chunks(&self, file: &File, chunks: Range<u64>) -> io::Result<Vec<u8>> {
        let sealed_len: usize = chunks.clone().map(|index| self.layout.sealed_len(index)).sum();
        let mut sealed = vec![0; sealed_len];
        file.read_exact_at(&mut sealed, HEADER_LEN as u64 + chunks.start * SEALED_CHUNK_LEN as u64)?;
        let mut plain = Vec::with_capacity(sealed_len);
        for (index, chunk) in chunks.zip(sealed.chunks_mut(SEALED_CHUNK_LEN)) {
            let opened = self.key.open(index, self.layout.is_last(index), chunk);
            let opened = opened.ok_or_else(|| damaged(&self.name, &format!("chunk {index} does not open")))?;
            plain.extend_from_slice(opened);
        }
        Ok(plain)
    }

    /// Goes through the cache a chunk at a time.
    fn read_cached(&self, chunks: Range<u64>) -> io::Result<Vec<u8>> {
        let mut file = None;
        let mut plain = Vec::new();
        for index in chunks {
            if let Some(chunk) = self.cache.get((self.id, index)) {
                plain.extend_from_slice(&chunk);
                continue;
            }
            if file.is_none() {
                file = Some(File::open(&self.path)?);
            }
            let Some(file) = &file else { continue };
            let chunk: Arc<[u8]> = Arc::from(self.read_chunks(file, index..index + 1)?);
            self.cache.put((self.id, index), &chunk);
            plain.extend_from_slice(&chunk);
        }
        Ok(plain)
    }
}

/// A read of more chunks than this does not go through the cache: it would only push out the others.
const CACHED_CHUNKS_MAX: u64 = 16;

impl FileHandle for SealedFile {
    fn read_bytes(&self, range: Range<usize>) -> io::Result<OwnedBytes> {
        if range.start > range.end || range.end > self.len {
            return Err(damaged(&self.name, &format!("bytes {range:?} of {} asked for", self.len)));
        }
        if range.is_empty() {
            return Ok(OwnedBytes::empty());
        }
        let chunk_len = CHUNK_LEN as u64;
        let chunks = range.start as u64 / chunk_len..(range.end as u64).div_ceil(chunk_len);
        let skipped = range.start - usize::try_from(chunks.start).unwrap_or(0) * CHUNK_LEN;
        let plain = if chunks.end - chunks.start > CACHED_CHUNKS_MAX {
            self.read_chunks(&File::open(&self.path)?, chunks)?
        } else {
            self.read_cached(chunks)?
        };
        let bytes = OwnedBytes::new(plain);
        Ok(bytes.slice(skipped..skipped + range.len()))
    }
}

impl HasLen for SealedFile {
    fn len(&self) -> usize {
        self.len
    }
}
