//! Counts and times what the disk is asked for, and says so when it takes long.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use vidar_core::clock::SharedClock;

use super::layer::{HandleLayer, IoLayer};
use super::{SegmentHandle, SegmentIo};
use crate::histogram::{Histogram, TIMES_US};

/// What takes longer is logged, so that the cause of a stall can be told: other calls may be seen to end with it.
const SLOW: Duration = Duration::from_millis(100);

/// What was asked so far.
pub(crate) struct Meter {
    clock: SharedClock,
    /// Bytes written, to whatever file.
    pub(crate) bytes: AtomicU64,
    /// Of writes to segment files.
    pub(crate) writes: Histogram,
    /// Of syncs of segment files.
    pub(crate) syncs: Histogram,
}

impl Meter {
    pub(crate) fn new(clock: SharedClock) -> Arc<Self> {
        let (writes, syncs) = (Histogram::new(TIMES_US), Histogram::new(TIMES_US));
        Arc::new(Self { clock, bytes: AtomicU64::new(0), writes, syncs })
    }

    fn written(&self, bytes: &[u8]) {
        self.bytes.fetch_add(bytes.len() as u64, Ordering::Relaxed);
    }

    fn time<T>(&self, what: &str, name: &str, histogram: Option<&Histogram>, call: impl FnOnce() -> T) -> T {
        let begun = self.clock.monotonic();
        let result = call();
        let took = self.clock.monotonic().saturating_sub(begun);
        if let Some(histogram) = histogram {
            histogram.note_time(took);
        }
        if took >= SLOW {
            tracing::info!(what, name, ms = took.as_millis() as u64, "the disk was slow");
        }
        result
    }
}

/// Wraps a directory.
pub(crate) struct Metered {
    inner: Arc<dyn SegmentIo>,
    meter: Arc<Meter>,
}

impl Metered {
    pub(crate) fn new(inner: Arc<dyn SegmentIo>, meter: Arc<Meter>) -> Self {
        Self { inner, meter }
    }

    fn wrap(&self, name: &str, inner: Arc<dyn SegmentHandle>) -> Arc<dyn SegmentHandle> {
        Arc::new(MeteredHandle { inner, name: name.into(), meter: Arc::clone(&self.meter) })
    }
}

impl IoLayer for Metered {
    fn inner(&self) -> &dyn SegmentIo {
        &*self.inner
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        let made = self.meter.time("create", name, None, || self.inner.create(name, len));
        made.map(|handle| self.wrap(name, handle))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        self.inner.open(name).map(|handle| self.wrap(name, handle))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.meter.time("unlink", name, None, || self.inner.unlink(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.meter.time("sync", "the directory", None, || self.inner.sync_dir())
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.meter.time("replace", name, None, || self.inner.replace_small(name, bytes))?;
        self.meter.written(bytes);
        Ok(())
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.meter.written(bytes);
        self.meter.time("append to", name, None, || self.inner.append_small(name, bytes))
    }
}

struct MeteredHandle {
    inner: Arc<dyn SegmentHandle>,
    name: Box<str>,
    meter: Arc<Meter>,
}

impl HandleLayer for MeteredHandle {
    fn inner(&self) -> &dyn SegmentHandle {
        &*self.inner
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = || self.inner.write_at(offset, bytes);
        self.meter.time("write", &self.name, Some(&self.meter.writes), write)?;
        self.meter.written(bytes);
        Ok(())
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let write = || self.inner.write_blocks(offset, bytes);
        self.meter.time("write", &self.name, Some(&self.meter.writes), write)?;
        self.meter.written(bytes);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        self.meter.time("sync", &self.name, Some(&self.meter.syncs), || self.inner.sync_data())
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.meter.time("punch", &self.name, None, || self.inner.punch(offset, len))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.meter.time("truncate", &self.name, None, || self.inner.truncate(len))
    }
}
