//! Archives that are made quickly, by the store itself: nothing is synced while they are made.

use std::fs::OpenOptions;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;
use vidar_core::control::{Control, RunRecord, StreamRecord, StreamSettings};
use vidar_core::ids::{ConfigId, RunId, StreamId, StreamName};
use vidar_core::record::{
    FragmentFacts, FragmentFlags, FragmentMeta, NewFragment, Piece, TableEnvelope, TrackFacts, TrackTotals, WallSource,
};
use vidar_core::time::UnixMs;
use vidar_core::track::{StreamConfig, TrackKind};
use vidar_storage::Store;
use vidar_storage::backend::fs::FsIo;
use vidar_storage::backend::layer::{HandleLayer, IoLayer};
use vidar_storage::backend::{SegmentHandle, SegmentIo};

/// 2026-01-01T00:00:00Z.
const BEGIN_MS: i64 = 1_767_225_600_000;
const FRAGMENT_MS: u32 = 2000;
/// About what the table of 2 s of pictures and sound takes.
const TABLE: &[u8] = &[0; 700];

/// A stream that records.
pub(crate) struct Source {
    stream: StreamId,
    run: RunId,
    config: ConfigId,
    next: AtomicU64,
}

impl Source {
    pub(crate) async fn new(store: &Store, number: usize) -> anyhow::Result<Self> {
        let (stream, run) = (StreamId::new(), RunId::new());
        let name = StreamName::new(format!("cam-{number}")).context("a name")?;
        let settings = StreamSettings {
            device: name.to_string(),
            retention_hours: 87_600,
            retention_bytes: None,
            tags: vec![("site".to_owned(), format!("hall {}", number % 7))],
        };
        store.create_stream_key(stream).await?;
        store.control(Control::Stream(StreamRecord { stream, name, created: UnixMs(BEGIN_MS), settings })).await?;
        let record = RunRecord {
            stream,
            run,
            started: UnixMs(BEGIN_MS),
            protocol: "rtsp".into(),
            source: "192.0.2.1:554".into(),
            user_agent: String::new(),
            anchor: UnixMs(BEGIN_MS),
            anchor_source: WallSource::Arrival,
            continues: None,
            push: None,
        };
        store.control(Control::Run(record)).await?;
        let config = store.put_config(stream, &StreamConfig::default()).await?;
        Ok(Self { stream, run, config, next: AtomicU64::new(0) })
    }

    /// The next one, with this media.
    fn fragment(&self, store: &Store, media: &Bytes) -> NewFragment {
        let ordinal = self.next.fetch_add(1, Ordering::Relaxed);
        let start = UnixMs(BEGIN_MS + ordinal as i64 * i64::from(FRAGMENT_MS));
        let size_bytes = media.len() as u64;
        let track = |kind, codec: &str, width, height, size_bytes, sample_count| TrackFacts {
            kind,
            codec: codec.to_owned(),
            width,
            height,
            size_bytes,
            totals: TrackTotals { sample_count, mp4_bytes: size_bytes, stts_runs: 1, ..TrackTotals::default() },
        };
        let tracks = vec![
            track(TrackKind::Video, "h264", 1280, 720, size_bytes - size_bytes / 16, 50),
            track(TrackKind::Audio, "aac", 0, 0, size_bytes / 16, 94),
        ];
        NewFragment {
            meta: FragmentMeta {
                stream: self.stream,
                number: store.next_number(start),
                run: self.run,
                lease_epoch: 0,
                ordinal,
                discontinuity: 0,
                producer_start: start,
                duration_ms: FRAGMENT_MS,
                config: self.config,
                flags: FragmentFlags::STARTS_WITH_SYNC,
            },
            part: None,
            facts: FragmentFacts { tracks, ..FragmentFacts::default() },
            table: TableEnvelope {
                pieces: vec![Piece { part: None, media_len: size_bytes, table: Bytes::from_static(TABLE) }],
            },
            media: vec![media.clone()],
        }
    }

    /// Appends until `enough`; answers how many.
    pub(crate) async fn append_until(
        self: Arc<Self>,
        store: Store,
        media: Bytes,
        enough: impl Fn() -> bool + Send + 'static,
    ) -> anyhow::Result<u64> {
        let mut count = 0;
        while !enough() {
            store.append(self.fragment(&store, &media)).await?;
            count += 1;
        }
        Ok(count)
    }
}

/// Each source appends one fragment after the other, until `enough`. Answers how many there are.
pub(crate) async fn fill(
    store: &Store,
    sources: usize,
    media_len: usize,
    enough: impl Fn() -> bool + Clone + Send + 'static,
) -> anyhow::Result<u64> {
    let media: Bytes = noise(media_len).into();
    let mut writers = JoinSet::new();
    for number in 0..sources {
        let source = Arc::new(Source::new(store, number).await?);
        writers.spawn(source.append_until(store.clone(), media.clone(), enough.clone()));
    }
    let mut count = 0;
    while let Some(done) = writers.join_next().await {
        count += done??;
    }
    Ok(count)
}

/// Bytes that do not compress.
pub(crate) fn noise(len: usize) -> Vec<u8> {
    let mut state = 1_u64;
    let mut next = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 56) as u8
    };
    (0..len).map(|_| next()).collect()
}

/// How files come to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Making {
    /// Whole.
    Closed,
    /// Without footer, and nothing says that they have one: as a kill leaves them.
    Unclosed,
    /// Nothing is written any more: the process was killed.
    Killed,
}

/// A data directory that is written without syncs, and without checkpoints.
#[derive(Clone)]
pub(crate) struct QuickIo {
    dir: PathBuf,
    fs: FsIo,
    making: Arc<AtomicU8>,
    checkpoints: bool,
}

impl QuickIo {
    pub(crate) fn new(dir: &Path, checkpoints: bool) -> Self {
        let making = Arc::new(AtomicU8::new(Making::Closed as u8));
        Self { dir: dir.to_owned(), fs: FsIo::buffered(dir), making, checkpoints }
    }

    pub(crate) fn make(&self, making: Making) {
        self.making.store(making as u8, Ordering::SeqCst);
    }

    fn is(&self, making: Making) -> bool {
        self.making.load(Ordering::SeqCst) == making as u8
    }
}

impl IoLayer for QuickIo {
    fn inner(&self) -> &dyn SegmentIo {
        &self.fs
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        Ok(Arc::new(QuickHandle { inner: self.fs.create(name, len)?, io: self.clone() }))
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        Ok(Arc::new(QuickHandle { inner: self.fs.open(name)?, io: self.clone() }))
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        if self.is(Making::Closed) { self.fs.unlink(name) } else { Ok(()) }
    }

    fn sync_dir(&self) -> io::Result<()> {
        Ok(())
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match name {
            "checkpoint" if !self.checkpoints => Err(io::ErrorKind::Unsupported.into()),
            _ if self.is(Making::Killed) => Ok(()),
            "files" | "checkpoint" if self.is(Making::Unclosed) => Ok(()),
            _ => self.fs.replace_small(name, bytes),
        }
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        if !self.is(Making::Closed) {
            return Ok(());
        }
        OpenOptions::new().append(true).open(self.dir.join(name))?.write_all(bytes)
    }

    fn reserve(&self, _: u64) -> io::Result<()> {
        Ok(())
    }
}

struct QuickHandle {
    inner: Arc<dyn SegmentHandle>,
    io: QuickIo,
}

impl HandleLayer for QuickHandle {
    fn inner(&self) -> &dyn SegmentHandle {
        &*self.inner
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // What is neither the header of a file nor a batch is a footer.
        let is_log = bytes.starts_with(b"VIDARSEG") || bytes.starts_with(b"VBAT");
        if self.io.is(Making::Closed) || self.io.is(Making::Unclosed) && is_log {
            return self.inner.write_at(offset, bytes);
        }
        Ok(())
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        HandleLayer::write_at(self, offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        Ok(())
    }

    fn punch(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        if self.io.is(Making::Closed) { self.inner.truncate(len) } else { Ok(()) }
    }
}
