//! A directory of the file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::blocks::{BLOCK_LEN, is_aligned};
use super::{DirLock, DiskSpace, SegmentHandle, SegmentIo, WriteMode};

const SMALL_FILE_BYTES_MAX: u64 = 256 << 20;
/// Blocks of a removed file are given back so many bytes at a time, …
const FREE_STEP_BYTES: u64 = 16 << 20;
/// … and syncs of others get a turn between: freeing 256 MiB at once was seen to stall them by 40 ms.
const FREE_PAUSE: Duration = Duration::from_millis(5);
/// Follows the name of a file that is being removed.
const GONE_SUFFIX: &str = ".gone";

/// A data directory on disk.
#[derive(Debug, Clone)]
pub struct FsIo {
    dir: PathBuf,
    /// Files are written past the page cache.
    direct: Arc<AtomicBool>,
    may_be_direct: bool,
}

impl FsIo {
    /// The directory `dir`; made when it is locked.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into(), direct: Arc::default(), may_be_direct: true }
    }

    /// The same, never past the page cache.
    #[must_use]
    pub fn buffered(dir: impl Into<PathBuf>) -> Self {
        Self { may_be_direct: false, ..Self::new(dir) }
    }

    fn segments(&self) -> PathBuf {
        self.dir.join("segments")
    }

    /// The file system takes whole blocks past the page cache.
    fn can_write_directly(&self) -> bool {
        let path = self.dir.join("lock");
        let open = || OpenOptions::new().write(true).custom_flags(libc::O_DIRECT).open(&path);
        self.may_be_direct && open().is_ok_and(|file| sys::direct_align(&file).is_none_or(|align| align <= BLOCK_LEN))
    }

    /// What a crash left of files that were being removed.
    fn sweep(&self) -> io::Result<()> {
        for entry in fs::read_dir(self.segments())? {
            let entry = entry?;
            if entry.file_name().as_encoded_bytes().ends_with(GONE_SUFFIX.as_bytes()) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(())
    }

    fn make_dir(path: &Path) -> io::Result<()> {
        if path.is_dir() {
            return Ok(());
        }
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path)?;
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        sync_dir(parent.unwrap_or(Path::new(".")))
    }
}

impl SegmentIo for FsIo {
    fn lock(&self) -> io::Result<DirLock> {
        Self::make_dir(&self.dir)?;
        Self::make_dir(&self.segments())?;
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(self.dir.join("lock"))?;
        match file.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => return Err(error),
        }
        self.direct.store(self.can_write_directly(), Ordering::Relaxed);
        if let Err(error) = self.sweep() {
            tracing::warn!(%error, "cannot remove what is left of removed segment files");
        }
        Ok(Box::new(file))
    }

    fn write_mode(&self) -> WriteMode {
        if self.direct.load(Ordering::Relaxed) { WriteMode::Direct } else { WriteMode::Buffered }
    }

    fn list(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(self.segments())? {
            if let Ok(name) = entry?.file_name().into_string()
                && name.ends_with(".vseg")
            {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        let path = self.segments().join(name);
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(&path)?;
        let allocated = match sys::allocate(&file, len) {
            // The file system does not allocate ahead: blocks come with the writes.
            Err(error) if error.kind() == io::ErrorKind::Unsupported => file.set_len(len),
            other => other,
        };
        if let Err(error) = allocated {
            fs::remove_file(&path)?;
            return Err(error);
        }
        Ok(Arc::new(FsHandle::new(file, path, &self.direct)))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        let path = self.segments().join(name);
        let writable = OpenOptions::new().read(true).write(true).open(&path);
        // A directory that was made read-only can still be verified and replayed.
        let file = match writable {
            Err(error)
                if matches!(error.kind(), io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem) =>
            {
                File::open(&path)?
            }
            other => other?,
        };
        Ok(Arc::new(FsHandle::new(file, path, &self.direct)))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        let path = self.segments().join(name);
        let mut len = fs::metadata(&path)?.len();
        if len <= FREE_STEP_BYTES {
            return fs::remove_file(path);
        }
        // Under a name that no start looks at, so that a file cut short is never taken for a damaged one.
        let gone = self.segments().join(format!("{name}{GONE_SUFFIX}"));
        fs::rename(&path, &gone)?;
        self.sync_dir()?;
        let file = OpenOptions::new().write(true).open(&gone)?;
        while len > FREE_STEP_BYTES {
            len -= FREE_STEP_BYTES;
            file.set_len(len)?;
            std::thread::sleep(FREE_PAUSE);
        }
        fs::remove_file(gone)
    }

    fn path(&self, name: &str) -> Option<PathBuf> {
        Some(self.segments().join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        sync_dir(&self.segments())
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        let file = match File::open(self.dir.join(name)) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        if file.metadata()?.len() > SMALL_FILE_BYTES_MAX {
            return Err(io::ErrorKind::FileTooLarge.into());
        }
        let mut bytes = Vec::new();
        file.take(SMALL_FILE_BYTES_MAX).read_to_end(&mut bytes)?;
        Ok(Some(bytes))
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let temporary = self.dir.join(format!("{name}.tmp"));
        let written = (|| {
            let options = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&temporary);
            let mut file = options?;
            file.write_all(bytes)?;
            file.sync_all()
        })();
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
        fs::rename(&temporary, self.dir.join(name))?;
        sync_dir(&self.dir)
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut file = OpenOptions::new().append(true).open(self.dir.join(name))?;
        file.write_all(bytes)?;
        file.sync_data()
    }

    fn space(&self) -> io::Result<DiskSpace> {
        sys::space(&File::open(&self.dir)?)
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        let path = self.dir.join("reserve");
        if len == 0 {
            return match fs::remove_file(&path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path)?;
        let allocated = sys::allocate(&file, len);
        if allocated.is_err() {
            fs::remove_file(&path)?;
        }
        match allocated {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => Ok(()),
            other => other,
        }
    }
}

fn sync_dir(path: &Path) -> io::Result<()> {
    File::open(path)?.sync_all()
}

/// From now on all goes through the page cache.
fn give_up_direct(works: &AtomicBool, error: &io::Error) {
    if works.swap(false, Ordering::Relaxed) {
        tracing::warn!(%error, "the file system takes no direct writes: writing through the page cache");
    }
}

struct FsHandle {
    file: File,
    path: PathBuf,
    /// The same file, past the page cache; opened when it is first needed.
    direct: OnceLock<Option<File>>,
    /// Of the directory: a write that was not taken ends direct reads and writes everywhere.
    direct_works: Arc<AtomicBool>,
}

impl FsHandle {
    fn new(file: File, path: PathBuf, direct_works: &Arc<AtomicBool>) -> Self {
        // Heads are read alone, and all else in large pieces: what the kernel would read ahead is mostly read in vain.
        sys::advise(&file, 0, 0, libc::POSIX_FADV_RANDOM);
        Self { file, path, direct: OnceLock::new(), direct_works: Arc::clone(direct_works) }
    }

    /// The file past the page cache, if it may go these bytes' way.
    fn direct(&self, offset: u64, bytes: &[u8]) -> Option<&File> {
        if !self.direct_works.load(Ordering::Relaxed) || !is_aligned(offset, bytes) {
            return None;
        }
        let open = || OpenOptions::new().read(true).write(true).custom_flags(libc::O_DIRECT).open(&self.path);
        let opened = || match open() {
            Ok(file) => Some(file),
            Err(error) => {
                // Or it may be gone, or too many files open: no reason to give up on others.
                if error.kind() == io::ErrorKind::InvalidInput {
                    give_up_direct(&self.direct_works, &error);
                }
                None
            }
        };
        self.direct.get_or_init(opened).as_ref()
    }
}

impl SegmentHandle for FsHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let Some(direct) = self.direct(offset, bytes) else { return self.write_at(offset, bytes) };
        match direct.write_all_at(bytes, offset) {
            // Some file systems take the flag, and then not the write.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                give_up_direct(&self.direct_works, &error);
                self.write_at(offset, bytes)
            }
            other => other,
        }
    }

    fn sync_data(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if i64::try_from(offset).is_err() {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.file.read_exact_at(buffer, offset)
    }

    fn forget(&self, offset: u64, len: u64) {
        // Pages that were not written yet stay.
        sys::advise(&self.file, offset, len, libc::POSIX_FADV_DONTNEED);
    }

    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> bool {
        // What lacks its end is not copied in vain.
        let end_at = offset.saturating_add(buffer.len() as u64).saturating_sub(1);
        sys::read_cached(&self.file, end_at, &mut [0]) && sys::read_cached(&self.file, offset, buffer)
    }

    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> bool {
        self.direct(offset, buffer).is_some_and(|direct| direct.read_exact_at(buffer, offset).is_ok())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::punch(&self.file, offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// The calls that the standard library lacks.
#[allow(unsafe_code)]
mod sys {
    use super::{AsRawFd, DiskSpace, File, io};

    fn offset(value: u64) -> io::Result<libc::off_t> {
        libc::off_t::try_from(value).map_err(|_| io::ErrorKind::InvalidInput.into())
    }

    fn fallocate(file: &File, mode: libc::c_int, at: u64, len: u64) -> io::Result<()> {
        let (at, len) = (offset(at)?, offset(len)?);
        loop {
            // SAFETY: the descriptor is open for the whole call; the other arguments are numbers.
            if unsafe { libc::fallocate(file.as_raw_fd(), mode, at, len) } == 0 {
                return Ok(());
            }
            let error = io::Error::last_os_error();
            if error.kind() != io::ErrorKind::Interrupted {
                return Err(error);
            }
        }
    }

    pub(super) fn allocate(file: &File, len: u64) -> io::Result<()> {
        fallocate(file, 0, 0, len)
    }

    pub(super) fn punch(file: &File, at: u64, len: u64) -> io::Result<()> {
        fallocate(file, libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE, at, len)
    }

    /// Tells the page cache what comes. `len` 0: to the end, however the file grows.
    pub(super) fn advise(file: &File, at: u64, len: u64, advice: libc::c_int) {
        if let (Ok(at), Ok(len)) = (offset(at), offset(len)) {
            // SAFETY: the descriptor is open for the whole call; the other arguments are numbers.
            let _ = unsafe { libc::posix_fadvise(file.as_raw_fd(), at, len, advice) };
        }
    }

    /// Reads what the page cache holds all of.
    pub(super) fn read_cached(file: &File, at: u64, buffer: &mut [u8]) -> bool {
        let Ok(at) = offset(at) else { return false };
        let vector = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
        // SAFETY: the descriptor is open, and the one vector is all of `buffer`, for the whole call.
        let read = unsafe { libc::preadv2(file.as_raw_fd(), &raw const vector, 1, at, libc::RWF_NOWAIT) };
        usize::try_from(read) == Ok(buffer.len())
    }

    /// What direct writes must be multiples of, in a file and in memory. None if the kernel does not say.
    pub(super) fn direct_align(file: &File) -> Option<usize> {
        let mut stat = std::mem::MaybeUninit::<libc::statx>::zeroed();
        // SAFETY: the descriptor is open, the path an empty string with its end, and `stat` has the size of the structure;
        // zeros are a valid value of it.
        let stat = unsafe {
            let (fd, path) = (file.as_raw_fd(), c"".as_ptr());
            if libc::statx(fd, path, libc::AT_EMPTY_PATH, libc::STATX_DIOALIGN, stat.as_mut_ptr()) != 0 {
                return None;
            }
            stat.assume_init()
        };
        // 0: direct writes go through the page cache after all.
        let align = |value: u32| if value == 0 { usize::MAX } else { value as usize };
        let known = stat.stx_mask & libc::STATX_DIOALIGN != 0;
        known.then(|| align(stat.stx_dio_mem_align).max(align(stat.stx_dio_offset_align)))
    }

    pub(super) fn space(dir: &File) -> io::Result<DiskSpace> {
        let mut stat = std::mem::MaybeUninit::<libc::statvfs>::uninit();
        // SAFETY: the descriptor is open; on success the kernel has filled the whole structure.
        let stat = unsafe {
            if libc::fstatvfs(dir.as_raw_fd(), stat.as_mut_ptr()) != 0 {
                return Err(io::Error::last_os_error());
            }
            stat.assume_init()
        };
        let bytes = |blocks: u64| blocks.saturating_mul(stat.f_frsize);
        Ok(DiskSpace { total_bytes: bytes(stat.f_blocks), free_bytes: bytes(stat.f_bavail) })
    }
}

#[cfg(test)]
mod tests {
    use super::super::blocks::Blocks;
    use super::*;

    #[test]
    fn a_file_system_that_takes_the_flag_and_not_the_write_is_written_through_the_page_cache() {
        let dir = tempfile::tempdir().unwrap();
        let io = FsIo::new(dir.path());
        let _lock = io.lock().unwrap();
        io.direct.store(true, Ordering::Relaxed);
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(dir.path().join("file")).unwrap();
        // It answers with EINVAL to what is no number.
        let refuses = OpenOptions::new().write(true).open("/proc/self/oom_score_adj").unwrap();
        let handle = FsHandle::new(file, dir.path().join("file"), &io.direct);
        handle.direct.set(Some(refuses)).unwrap();
        let bytes = [b'x'; BLOCK_LEN];
        for place in [0, BLOCK_LEN as u64] {
            handle.write_blocks(place, &Blocks::from(&bytes[..])).unwrap();
            let mut read = [0; BLOCK_LEN];
            handle.read_at(place, &mut read).unwrap();
            assert_eq!(read, bytes);
            assert_eq!(io.write_mode(), WriteMode::Buffered);
        }
    }
}
