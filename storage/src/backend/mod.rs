//! The seam to the disk: what the store asks of a file system, and nothing more.
//!
//! Names are relative to the data directory. [`fs`] is the real one, [`memory`] one that can lose power, [`fault`]
//! one that fails when told to. All pass the suite in `conformance`. What stands on another one is a [`layer`]; nothing here
//! has a default that one could forget to pass on.

use std::any::Any;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

pub mod blocks;
pub mod fault;
pub mod fs;
pub mod layer;
pub mod memory;
pub(crate) mod metered;

#[cfg(test)]
mod conformance;

/// Held while a data directory is in use; others are refused until it is dropped.
pub type DirLock = Box<dyn Any + Send + Sync>;

/// Room on the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskSpace {
    /// In all, in bytes.
    pub total_bytes: u64,
    /// For us, in bytes.
    pub free_bytes: u64,
}

/// How the log gets to the disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WriteMode {
    /// Past the page cache (`O_DIRECT`).
    Direct,
    /// Through the page cache: slower, and nothing else is different.
    Buffered,
}

/// One data directory.
pub trait SegmentIo: Send + Sync {
    /// Makes the directory where it is missing and takes it for this process.
    ///
    /// # Errors
    /// `WouldBlock` if another has it.
    fn lock(&self) -> io::Result<DirLock>;

    /// How [`SegmentHandle::write_blocks`] writes to new files. Known once the directory is locked.
    fn write_mode(&self) -> WriteMode;

    /// Names of all segment files, in no order.
    ///
    /// # Errors
    /// If the directory cannot be read.
    fn list(&self) -> io::Result<Vec<String>>;

    /// A new segment file of `len` zero bytes whose blocks are allocated where the file system can.
    ///
    /// # Errors
    /// `AlreadyExists`; `StorageFull`, and then nothing is left behind.
    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>>;

    /// A segment file.
    ///
    /// # Errors
    /// `NotFound`.
    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>>;

    /// Removes a segment file: its name at once, its blocks in steps. A handle that is still open may find an early end.
    ///
    /// # Errors
    /// `NotFound`.
    fn unlink(&self, name: &str) -> io::Result<()>;

    /// Where a segment file stands in the file system, if it does.
    fn path(&self, name: &str) -> Option<PathBuf>;

    /// Makes creations and removals of segment files durable.
    ///
    /// # Errors
    /// If the disk fails.
    fn sync_dir(&self) -> io::Result<()>;

    /// A small file as a whole; none if there is none.
    ///
    /// # Errors
    /// If it cannot be read, or is larger than 256 MiB.
    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>>;

    /// Replaces a small file: durable when this returns; after a crash it is the old or the new one.
    ///
    /// # Errors
    /// If the disk fails or is full.
    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Appends to a small file: durable when this returns; after a crash or an error any part of it may be there.
    ///
    /// # Errors
    /// `NotFound`, or if the disk fails or is full.
    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()>;

    /// Room on the disk.
    ///
    /// # Errors
    /// If the file system does not say.
    fn space(&self) -> io::Result<DiskSpace>;

    /// Sets `len` bytes aside; 0 gives them back.
    ///
    /// # Errors
    /// If there is no room.
    fn reserve(&self, len: u64) -> io::Result<()>;
}

/// One open segment file.
pub trait SegmentHandle: Send + Sync {
    /// Length in bytes.
    ///
    /// # Errors
    /// If the disk fails.
    fn len(&self) -> io::Result<u64>;

    /// True if the length is 0.
    ///
    /// # Errors
    /// As `len`.
    fn is_empty(&self) -> io::Result<bool> {
        Ok(self.len()? == 0)
    }

    /// Writes all of `bytes` at `offset`, growing the file where needed. After an error any part may stand there.
    ///
    /// # Errors
    /// If the disk fails or is full.
    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// As `write_at`, for whole blocks (see [`blocks::is_aligned`]): past the page cache where the file system can. Who
    /// reads afterwards finds them.
    ///
    /// # Errors
    /// As `write_at`.
    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes all that was written durable, and the length.
    ///
    /// # Errors
    /// If the disk fails: what was written since the last success is then undefined.
    fn sync_data(&self) -> io::Result<()>;

    /// Fills `buffer` from `offset`.
    ///
    /// # Errors
    /// `UnexpectedEof` if the file ends before.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Who reads this range next gets it from the disk, not from memory, where the system can see to that.
    fn forget(&self, offset: u64, len: u64);

    /// Fills `buffer` from `offset` without waiting for the disk. False: that cannot be, and what is in it is undefined.
    fn read_cached(&self, offset: u64, buffer: &mut [u8]) -> bool;

    /// Fills `buffer`, whole blocks (see [`blocks::is_aligned`]) that are not expected to be read again soon, from `offset`
    /// past the page cache. False: that cannot be, and what is in it is undefined.
    fn read_direct(&self, offset: u64, buffer: &mut [u8]) -> bool;

    /// Gives the blocks wholly inside a range back; zeros are read there. The length stays.
    ///
    /// # Errors
    /// If the file system cannot.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Cuts the file, or grows it with zeros.
    ///
    /// # Errors
    /// If the disk fails.
    fn truncate(&self, len: u64) -> io::Result<()>;
}
