//! Settings of a store, and what opening it reports.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use vidar_core::ids::{FragmentNumber, StreamId};

use crate::crypto::kek::{KekError, KekProvider, KeyFile};
use crate::histogram::Distribution;

/// Settings of a store.
#[derive(Debug, Clone)]
#[non_exhaustive]
pub struct StoreOptions {
    /// Everything stands below it.
    pub data_dir: PathBuf,
    /// Gives the key that opens the keyring; by default the file `DIR.key` beside the data directory.
    pub kek: Arc<dyn KekProvider>,
    /// How long an answer of that provider is waited for, …
    pub kek_timeout: Duration,
    /// … and for how long it is asked again at start when there is none.
    pub kek_patience: Duration,
    /// A segment file is closed when it has this many bytes, …
    pub segment_bytes: u64,
    /// … or is this old and holds media.
    pub segment_age: Duration,
    /// When the disk counts as filling up.
    pub marks: DiskMarks,
    /// Media that waits for the disk, in bytes: above it `append` waits.
    pub inbox_bytes: usize,
    /// Most bytes of one batch.
    pub batch_bytes: usize,
    /// Set aside for deletions on a full disk.
    pub reserve_bytes: u64,
    /// Opened heads that are kept in memory, in bytes.
    pub head_cache_bytes: usize,
    /// The store starts no thread: [`Store::turn`](crate::Store::turn) commits what waits, and what blocks runs where it
    /// is called. For simulations, where one seed decides what happens when.
    pub by_hand: bool,
}

impl StoreOptions {
    /// The defaults.
    #[must_use]
    pub fn new(data_dir: impl Into<PathBuf>) -> Self {
        let data_dir = data_dir.into();
        Self {
            kek: Arc::new(KeyFile::beside(&data_dir)),
            kek_timeout: Duration::from_secs(10),
            kek_patience: Duration::from_secs(60),
            data_dir,
            segment_bytes: 256 << 20,
            segment_age: Duration::from_secs(3600),
            marks: DiskMarks::default(),
            inbox_bytes: 64 << 20,
            batch_bytes: 8 << 20,
            reserve_bytes: 16 << 20,
            head_cache_bytes: 64 << 20,
            by_hand: false,
        }
    }
}

/// Free space below which the store asks for deletions, and below which it takes no media.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DiskMarks {
    /// Below this many free bytes the policy applies (oldest first, or refuse).
    pub apply_policy_bytes: u64,
    /// Below this many free bytes `append` is refused.
    pub refuse_bytes: u64,
}

impl Default for DiskMarks {
    fn default() -> Self {
        Self { apply_policy_bytes: 2 << 30, refuse_bytes: 512 << 20 }
    }
}

/// Room on the disk, against the marks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Space {
    /// Enough.
    Ok,
    /// Something has to go.
    ApplyPolicy,
    /// Media is refused until something went.
    Refuse,
}

/// Why a store does not open.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum OpenError {
    /// Another process has it.
    #[error("{} is in use by another server", data_dir.display())]
    Locked {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// The key provider failed.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// There is a keyring, but not the key that opens it.
    #[error("the keyring in {} needs its key, expected in {place}", data_dir.display())]
    KekMissing {
        /// The data directory.
        data_dir: PathBuf,
        /// Where the key was looked for.
        place: String,
    },
    /// The key is not the one that wrapped the keyring.
    #[error("the key in {place} does not open the keyring in {}", data_dir.display())]
    KekWrong {
        /// The data directory.
        data_dir: PathBuf,
        /// Where the key comes from.
        place: String,
    },
    /// There is no keyring, where there must be one.
    #[error("{} holds no keyring: without it no segment file there can be read", data_dir.display())]
    KeyringMissing {
        /// The data directory.
        data_dir: PathBuf,
    },
    /// Neither copy of the keyring is whole.
    #[error("both copies of the keyring in {} are damaged: {detail}", data_dir.display())]
    KeyringCorrupt {
        /// The data directory.
        data_dir: PathBuf,
        /// What is wrong with them.
        detail: String,
    },
    /// A file was written by a newer version.
    #[error("{file} has {detail}: it is left as it is")]
    Unsupported {
        /// Segment file.
        file: String,
        /// What it has.
        detail: String,
    },
    /// The disk failed.
    #[error("{what}: {source}")]
    Io {
        /// What was attempted.
        what: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl OpenError {
    pub(crate) fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }
}

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Damage {
    /// Segment file.
    pub file: String,
    /// From its start, in bytes.
    pub offset: u64,
    /// In bytes; 0 if unknown.
    pub len: u64,
    /// The record it hit, where known.
    pub record: Option<(StreamId, FragmentNumber)>,
    /// What disagrees.
    pub detail: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}+{}: {} bytes: {}", self.file, self.offset, self.len, self.detail)?;
        match self.record {
            Some((stream, number)) => write!(f, " (stream {stream}, fragment {number})"),
            None => Ok(()),
        }
    }
}

/// What was found when a store was opened.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OpenReport {
    /// Of this start; 0 where nothing was written (`replay`).
    pub epoch: u32,
    /// It went on from a checkpoint: only what came after it was read, and is counted below.
    pub resumed: bool,
    /// Segment files.
    pub files: u64,
    /// Of these, not closed by the last server: read batch by batch.
    pub unclosed: u64,
    /// Fragments that can be read.
    pub fragments: u64,
    /// Control records.
    pub controls: u64,
    /// Fragments that were open at a crash, and are now closed as incomplete.
    pub incomplete: u64,
    /// Bytes at the ends of files that were not closed that are gone. They were torn while they were written, and never
    /// acknowledged; or else the disk lost sectors of them.
    pub dropped_bytes: u64,
    /// A copy of the keyring was missing, damaged or behind; `open` has written both anew.
    pub keyring_repaired: bool,
    /// Bytes that were synced once and are not what was written.
    pub damage: Vec<Damage>,
}

/// Counters since the store was opened.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreStats {
    /// Records that became durable.
    pub records: u64,
    /// Bytes written to all files: records, padding, headers and footers, the list of files, keyrings.
    pub bytes: u64,
    /// Of batches that became durable, padding included. Each was one write and one sync.
    pub batch_bytes: Distribution,
    /// From when the first record of a batch was taken until all of it was answered, in microseconds.
    pub batch_times_us: Distribution,
    /// Writes to segment files, in microseconds.
    pub write_times_us: Distribution,
    /// Syncs of segment files, in microseconds.
    pub sync_times_us: Distribution,
    /// Writes and syncs that failed.
    pub failures: u64,
    /// Records that could not be opened when read or scanned.
    pub damage: u64,
    /// Segment files.
    pub files: u64,
    /// Free bytes on the disk.
    pub free_bytes: u64,
    /// New segment files are written past the page cache.
    pub direct_writes: bool,
}

/// What retention gave back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Expired {
    /// Bytes whose blocks were punched out of files that go on.
    pub punched_bytes: u64,
    /// Files that were removed.
    pub files: u64,
}
