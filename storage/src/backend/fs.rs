//! A directory of the file system.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::{DirLock, DiskSpace, SegmentHandle, SegmentIo};

const SMALL_FILE_BYTES_MAX: u64 = 256 << 20;

/// A data directory on disk.
#[derive(Debug, Clone)]
pub struct FsIo {
    dir: PathBuf,
}

impl FsIo {
    /// The directory `dir`; made when it is locked.
    #[must_use]
    pub fn new(dir: impl Into<PathBuf>) -> Self {
        Self { dir: dir.into() }
    }

    fn segments(&self) -> PathBuf {
        self.dir.join("segments")
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
            Ok(()) => Ok(Box::new(file)),
            Err(TryLockError::WouldBlock) => Err(io::ErrorKind::WouldBlock.into()),
            Err(TryLockError::Error(error)) => Err(error),
        }
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
        Ok(Arc::new(FsHandle { file }))
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
        Ok(Arc::new(FsHandle { file }))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        fs::remove_file(self.segments().join(name))
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

struct FsHandle {
    file: File,
}

impl SegmentHandle for FsHandle {
    fn len(&self) -> io::Result<u64> {
        Ok(self.file.metadata()?.len())
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
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

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        sys::punch(&self.file, offset, len)
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.file.set_len(len)
    }
}

/// The three calls that the standard library lacks.
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
