//! What the writer, the readers and the callers of a store have in common.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use vidar_core::clock::{ArchiveClock, SharedClock};
use vidar_core::control::ControlRecord;
use vidar_core::ids::{FileId, FragmentNumber};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::source::ConfigKey;
use vidar_core::time::UnixMs;

use crate::backend::SegmentIo;
use crate::backend::metered::Meter;
use crate::cache::Cache;
use crate::checkpoint::keeper::Checkpoints;
use crate::controls::Controls;
use crate::crypto::keychain::Keychain;
use crate::crypto::keys::random;
use crate::damaged::Damaged;
use crate::files::Files;
use crate::footers::Closings;
use crate::histogram::{Histogram, SIZES, TIMES_US};
use crate::options::{Space, StoreOptions};

/// Plain configs that may have to be repeated in the next file, in bytes.
const CONFIG_BYTES_MAX: usize = 128 << 20;

/// Shared state. Locks are held for look-ups only, never over I/O; `controls` is taken before the table of `files`.
pub(crate) struct Shared {
    pub(crate) options: StoreOptions,
    pub(crate) io: Arc<dyn SegmentIo>,
    pub(crate) clock: SharedClock,
    pub(crate) archive: ArchiveClock,
    pub(crate) keys: Keychain,
    pub(crate) files: Files,
    pub(crate) observers: Vec<Arc<dyn LogObserver>>,
    pub(crate) configs: Cache<ConfigKey, Bytes>,
    pub(crate) counters: Counters,
    pub(crate) closings: Closings,
    pub(crate) checkpoints: Checkpoints,
    pub(crate) damaged: Damaged,
    controls: Mutex<Controls>,
    /// Epoch (high half) and counter of the next number.
    sequence: AtomicU64,
    /// Closed since the last look for files that nothing is left of.
    closed: Mutex<HashSet<FileId>>,
}

/// See [`StoreStats`](crate::options::StoreStats).
pub(crate) struct Counters {
    pub(crate) records: AtomicU64,
    pub(crate) failures: AtomicU64,
    pub(crate) damage: AtomicU64,
    /// Bytes of batches.
    pub(crate) batch_bytes: Histogram,
    /// From when the first record of a batch was taken until all were answered.
    pub(crate) batch_times: Histogram,
    pub(crate) disk: Arc<Meter>,
}

impl Counters {
    fn new(disk: Arc<Meter>) -> Self {
        let (records, failures, damage) = Default::default();
        let (batch_bytes, batch_times) = (Histogram::new(SIZES), Histogram::new(TIMES_US));
        Self { records, failures, damage, batch_bytes, batch_times, disk }
    }
}

/// Adds to a counter.
pub(crate) fn count(counter: &AtomicU64, by: u64) {
    counter.fetch_add(by, Ordering::Relaxed);
}

impl Shared {
    #[allow(clippy::too_many_arguments)] // called once
    pub(crate) fn new(
        options: StoreOptions,
        io: Arc<dyn SegmentIo>,
        disk: Arc<Meter>,
        clock: SharedClock,
        archive: Option<UnixMs>,
        keys: Keychain,
        files: Files,
        controls: Controls,
        observers: Vec<Arc<dyn LogObserver>>,
        epoch: u32,
        records: Option<Vec<Arc<ControlRecord>>>,
    ) -> Self {
        let checkpoints = Checkpoints::new(records, clock.monotonic());
        let archive = ArchiveClock::new(Arc::clone(&clock), archive);
        Self {
            options,
            io,
            clock,
            archive,
            keys,
            files,
            observers,
            configs: Cache::new(CONFIG_BYTES_MAX),
            counters: Counters::new(disk),
            closings: Closings::default(),
            checkpoints,
            damaged: Damaged::default(),
            controls: Mutex::new(controls),
            sequence: AtomicU64::new(u64::from(epoch) << 32),
            closed: Mutex::default(),
        }
    }

    pub(crate) fn controls(&self) -> MutexGuard<'_, Controls> {
        self.controls.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn closed(&self) -> MutexGuard<'_, HashSet<FileId>> {
        self.closed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn tell(&self, event: &LogEvent) {
        self.observers.iter().for_each(|observer| observer.observe(event));
    }

    pub(crate) fn next_number(&self, server: UnixMs) -> FragmentNumber {
        let sequence = self.sequence.fetch_add(1, Ordering::Relaxed);
        FragmentNumber::new(sequence, u64::try_from(server.0).unwrap_or(0), u32::from_be_bytes(random()))
    }

    /// The running epoch, and how many numbers it has given.
    pub(crate) fn epoch(&self) -> (u32, u32) {
        let sequence = self.sequence.load(Ordering::Relaxed);
        ((sequence >> 32) as u32, sequence as u32)
    }

    /// Goes on in a new epoch, which is durable.
    pub(crate) fn set_epoch(&self, epoch: u32) {
        self.sequence.fetch_max(u64::from(epoch) << 32, Ordering::Relaxed);
    }

    /// Room on the disk. Where the file system does not say, there is enough: writes tell.
    pub(crate) fn space(&self) -> Space {
        let marks = self.options.marks;
        match self.io.space() {
            Ok(space) if space.free_bytes < marks.refuse_bytes => Space::Refuse,
            Ok(space) if space.free_bytes < marks.apply_policy_bytes => Space::ApplyPolicy,
            _ => Space::Ok,
        }
    }
}
