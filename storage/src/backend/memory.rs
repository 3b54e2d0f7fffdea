//! A data directory in memory that can lose power.
//!
//! Each file has its contents as written and as synced. At a power cut every sector (512 bytes) that differs keeps one or
//! the other, as does every name in the directory that was not synced.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use super::blocks::is_aligned;
use super::{DirLock, DiskSpace, SegmentHandle, SegmentIo, WriteMode};

const SECTOR_LEN: usize = 512;

/// A data directory in memory. Clones share it; one that was made, or locked, before a power cut changes nothing any
/// more, as a process that the cut ended.
#[derive(Default)]
pub struct MemoryIo {
    state: Arc<Mutex<State>>,
    boot: AtomicU64,
}

impl Clone for MemoryIo {
    fn clone(&self) -> Self {
        Self { state: Arc::clone(&self.state), boot: AtomicU64::new(lock(&self.state).boot) }
    }
}

#[derive(Default)]
struct State {
    files: BTreeMap<String, Arc<Mutex<Contents>>>,
    synced_names: BTreeMap<String, Arc<Mutex<Contents>>>,
    small: BTreeMap<String, Vec<u8>>,
    /// Raised by each power cut: older handles and locks are void.
    boot: u64,
    locked: bool,
    /// None: unlimited.
    capacity_bytes: Option<u64>,
    reserved_bytes: u64,
}

#[derive(Default)]
struct Contents {
    written: Vec<u8>,
    synced: Vec<u8>,
    /// What ends behind it does not read.
    reads_to: Option<u64>,
}

impl State {
    fn used_bytes(&self) -> u64 {
        let segments: usize = self.files.values().map(|file| lock(file).written.len()).sum();
        let small: usize = self.small.values().map(Vec::len).sum();
        (segments + small) as u64 + self.reserved_bytes
    }

    fn make_room(&self, len: u64) -> io::Result<()> {
        match self.capacity_bytes {
            Some(capacity) if self.used_bytes().saturating_add(len) > capacity => {
                Err(io::ErrorKind::StorageFull.into())
            }
            _ => Ok(()),
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}

/// The power has not failed since `boot`.
fn alive(state: &Mutex<State>, boot: u64) -> io::Result<MutexGuard<'_, State>> {
    let state = lock(state);
    if state.boot == boot { Ok(state) } else { Err(io::Error::other("the power failed")) }
}

impl MemoryIo {
    /// An empty directory.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// To change something.
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        alive(&self.state, self.boot.load(Ordering::Acquire))
    }

    /// Only so many bytes fit from now on.
    pub fn set_capacity(&self, bytes: Option<u64>) {
        lock(&self.state).capacity_bytes = bytes;
    }

    /// The power fails and comes back. `coin` decides, for each thing that was not synced, whether it is there.
    pub fn power_cut(&self, mut coin: impl FnMut() -> bool) {
        let mut state = lock(&self.state);
        state.boot += 1;
        state.locked = false;
        let mut names = state.synced_names.clone();
        for (name, file) in &state.files {
            if !names.contains_key(name) && coin() {
                names.insert(name.clone(), Arc::clone(file));
            }
        }
        names.retain(|name, _| state.files.contains_key(name) || coin());
        for file in names.values() {
            let mut contents = lock(file);
            let survived = survive(&contents, &mut coin);
            contents.synced.clone_from(&survived);
            contents.written = survived;
        }
        state.files.clone_from(&names);
        state.synced_names = names;
    }

    /// A copy of everything, as a disk image taken of a running machine.
    #[must_use]
    pub fn image(&self) -> Self {
        let state = lock(&self.state);
        let files: BTreeMap<_, _> = state
            .files
            .iter()
            .map(|(name, file)| {
                let written = lock(file).written.clone();
                (name.clone(), Arc::new(Mutex::new(Contents { synced: written.clone(), written, reads_to: None })))
            })
            .collect();
        let (synced_names, small) = (files.clone(), state.small.clone());
        let state = State { files, synced_names, small, ..State::default() };
        Self { state: Arc::new(Mutex::new(state)), boot: AtomicU64::new(0) }
    }

    /// Changes bytes of a segment file or a small file behind the store's back.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn tamper(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut state = lock(&self.state);
        if let Some(file) = state.files.get(name) {
            let mut contents = lock(file);
            change(&mut contents.written);
            contents.synced = contents.written.clone();
        } else {
            change(state.small.get_mut(name).expect("a file of that name"));
        }
    }

    /// Puts a segment file there behind the store's back.
    pub fn put(&self, name: &str, content: &[u8]) {
        let contents = Contents { written: content.to_vec(), synced: content.to_vec(), reads_to: None };
        let mut state = lock(&self.state);
        let file = Arc::new(Mutex::new(contents));
        state.synced_names.insert(name.to_owned(), Arc::clone(&file));
        state.files.insert(name.to_owned(), file);
    }

    /// From now on a segment file reads up to here only; None: all of it does.
    ///
    /// # Panics
    /// If there is no such file.
    pub fn set_readable(&self, name: &str, reads_to: Option<u64>) {
        lock(lock(&self.state).files.get(name).expect("a file of that name")).reads_to = reads_to;
    }

    /// Removes a small file behind the store's back.
    pub fn remove_small(&self, name: &str) {
        lock(&self.state).small.remove(name);
    }
}

/// What is found after a power cut.
fn survive(contents: &Contents, coin: &mut impl FnMut() -> bool) -> Vec<u8> {
    let (written, synced) = (&contents.written, &contents.synced);
    let len = if written.len() == synced.len() || coin() { written.len() } else { synced.len() };
    let mut survived = vec![0; len];
    for (index, sector) in survived.chunks_mut(SECTOR_LEN).enumerate() {
        let at = |bytes: &[u8]| {
            let start = (index * SECTOR_LEN).min(bytes.len());
            bytes[start..(start + sector.len()).min(bytes.len())].to_vec()
        };
        let (new, old) = (at(written), at(synced));
        let kept = if new == old || coin() { new } else { old };
        sector[..kept.len()].copy_from_slice(&kept);
    }
    survived
}

struct Lock {
    state: Arc<Mutex<State>>,
    boot: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = lock(&self.state);
        if state.boot == self.boot {
            state.locked = false;
        }
    }
}

impl SegmentIo for MemoryIo {
    fn lock(&self) -> io::Result<DirLock> {
        let mut state = lock(&self.state);
        self.boot.store(state.boot, Ordering::Release);
        if std::mem::replace(&mut state.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let boot = state.boot;
        drop(state);
        Ok(Box::new(Lock { state: Arc::clone(&self.state), boot }))
    }

    fn write_mode(&self) -> WriteMode {
        WriteMode::Buffered
    }

    fn list(&self) -> io::Result<Vec<String>> {
        Ok(lock(&self.state).files.keys().cloned().collect())
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        let mut state = self.alive()?;
        if state.files.contains_key(name) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        state.make_room(len)?;
        let zeros = vec![0; usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?];
        let file = Arc::new(Mutex::new(Contents { written: zeros, ..Contents::default() }));
        state.files.insert(name.to_owned(), Arc::clone(&file));
        Ok(Arc::new(MemoryHandle { boot: state.boot, state: Arc::clone(&self.state), file }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        let state = lock(&self.state);
        let file = state.files.get(name).ok_or(io::ErrorKind::NotFound)?;
        Ok(Arc::new(MemoryHandle { boot: state.boot, state: Arc::clone(&self.state), file: Arc::clone(file) }))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.alive()?.files.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut state = self.alive()?;
        state.synced_names = state.files.clone();
        Ok(())
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        Ok(lock(&self.state).small.get(name).cloned())
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = self.alive()?;
        state.make_room(bytes.len() as u64)?;
        state.small.insert(name.to_owned(), bytes.to_vec());
        Ok(())
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut all = self.read_small(name)?.ok_or(io::ErrorKind::NotFound)?;
        all.extend_from_slice(bytes);
        self.replace_small(name, &all)
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let state = lock(&self.state);
        let total_bytes = state.capacity_bytes.unwrap_or(u64::MAX);
        Ok(DiskSpace { total_bytes, free_bytes: total_bytes.saturating_sub(state.used_bytes()) })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let mut state = self.alive()?;
        state.make_room(len.saturating_sub(state.reserved_bytes))?;
        state.reserved_bytes = len;
        Ok(())
    }
}

struct MemoryHandle {
    state: Arc<Mutex<State>>,
    boot: u64,
    file: Arc<Mutex<Contents>>,
}

impl MemoryHandle {
    fn alive(&self) -> io::Result<MutexGuard<'_, State>> {
        alive(&self.state, self.boot)
    }
}

impl SegmentHandle for MemoryHandle {
    fn len(&self) -> io::Result<u64> {
        let _state = self.alive()?;
        Ok(lock(&self.file).written.len() as u64)
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let state = self.alive()?;
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
        let end = start.checked_add(bytes.len()).ok_or(io::ErrorKind::InvalidInput)?;
        let grown = end.saturating_sub(lock(&self.file).written.len());
        if grown > 0 {
            state.make_room(grown as u64)?;
        }
        let mut contents = lock(&self.file);
        if end > contents.written.len() {
            contents.written.resize(end, 0);
        }
        contents.written[start..end].copy_from_slice(bytes);
        Ok(())
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(is_aligned(offset, bytes), "{} bytes at {offset} are no whole blocks", bytes.len());
        self.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        let _state = self.alive()?;
        let mut contents = lock(&self.file);
        contents.synced = contents.written.clone();
        Ok(())
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let _state = self.alive()?;
        let contents = lock(&self.file);
        let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        let bytes = contents.written.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        if contents.reads_to.is_some_and(|reads_to| end as u64 > reads_to) {
            return Err(io::Error::other("it does not read"));
        }
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn forget(&self, _: u64, _: u64) {}

    fn read_cached(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> bool {
        is_aligned(offset, buffer) && self.read_at(offset, buffer).is_ok()
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let _state = self.alive()?;
        let mut contents = lock(&self.file);
        // A punched block never comes back: it is given away at once, whatever the power does.
        let range = offset as usize..offset.saturating_add(len) as usize;
        let Contents { written, synced, .. } = &mut *contents;
        for bytes in [written, synced] {
            let end = range.end.min(bytes.len());
            if let Some(hole) = bytes.get_mut(range.start..end) {
                hole.fill(0);
            }
        }
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let _state = self.alive()?;
        lock(&self.file).written.resize(usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?, 0);
        Ok(())
    }
}
