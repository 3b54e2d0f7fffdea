//! What the tests share.

use std::collections::HashMap;
use std::io;
use std::pin::pin;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use uuid::Uuid;
use vidar_core::clock::ManualClock;
use vidar_core::control::{Control, ControlRecord, RunRecord, StreamRecord, StreamSettings};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{ConfigId, FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::{
    FragmentFacts, FragmentFlags, FragmentMeta, NewFragment, Piece, TableEnvelope, TrackFacts, TrackTotals, WallSource,
};
use vidar_core::sample::Tag;
use vidar_core::source::FragmentSource;
use vidar_core::time::UnixMs;
use vidar_core::track::{StreamConfig, TrackKind};

use crate::backend::SegmentIo;
use crate::crypto::kek::{KekError, KekProvider};
use crate::crypto::wrap::Wrapped;
use crate::{DiskMarks, OpenReport, Secret, Store, StoreOptions};

/// Something no stored byte may repeat.
pub(crate) const PLAIN_WORD: &[u8] = b"PLAINTEXT-THAT-MUST-NOT-SHOW";

/// A provider like a service far away: it holds one key, and does as it is told.
#[derive(Debug)]
pub(crate) struct FixedKek {
    key: Option<Secret>,
    /// Bytes that it puts before a wrap: one that is not ours.
    prefix: usize,
    /// Calls that fail from now on.
    pub(crate) down: AtomicU32,
    pub(crate) calls: AtomicU32,
    /// Held by a test: calls hang.
    pub(crate) hang: Mutex<()>,
}

impl FixedKek {
    pub(crate) fn new(key: Option<Secret>) -> Self {
        let (down, calls, hang) = (AtomicU32::new(0), AtomicU32::new(0), Mutex::new(()));
        Self { key, prefix: 0, down, calls, hang }
    }

    /// Wraps as a remote service does, longer than a key file does.
    pub(crate) fn remote() -> Self {
        Self { prefix: 100, ..Self::new(Some(Secret::new([9; 32]))) }
    }

    fn key(&self) -> Result<&Secret, KekError> {
        self.calls.fetch_add(1, Ordering::Relaxed);
        drop(self.hang.lock());
        let fails = |left: u32| left.checked_sub(1);
        if self.down.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fails).is_ok() {
            return Err(KekError::Unavailable { place: self.place(), detail: "it is down".into() });
        }
        self.key.as_ref().ok_or_else(|| KekError::Missing { place: self.place() })
    }
}

impl KekProvider for FixedKek {
    fn place(&self) -> String {
        "the test's key".into()
    }

    fn prepare(&self) -> Result<(), KekError> {
        self.key().map(|_| ())
    }

    fn wrap(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        let own = Wrapped::seal(self.key()?, context, secret).0;
        Ok([&vec![0x77; self.prefix][..], &own].concat())
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Secret, KekError> {
        let (key, wrong) = (self.key()?, || KekError::Wrong { place: self.place() });
        let own = wrapped.get(self.prefix..).and_then(|own| own.try_into().ok()).ok_or_else(wrong)?;
        Wrapped(own).open(key, context).map_err(|_| wrong())
    }

    fn rotate(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        self.wrap(context, secret)
    }

    fn settle(&self, _: &[u8], _: &[u8]) -> Result<(), KekError> {
        Ok(())
    }
}

pub(crate) fn options() -> StoreOptions {
    let mut options = StoreOptions::new("/nowhere");
    options.kek = Arc::new(FixedKek::new(Some(Secret::new([3; 32]))));
    options.segment_bytes = 256 << 10;
    options.marks = DiskMarks { apply_policy_bytes: 0, refuse_bytes: 0 };
    options.reserve_bytes = 64 << 10;
    options
}

/// Remembers everything it hears.
#[derive(Default)]
pub(crate) struct Collector(Mutex<Vec<LogEvent>>);

impl LogObserver for Collector {
    fn observe(&self, event: &LogEvent) {
        self.0.lock().unwrap().push(event.clone());
    }
}

impl Collector {
    pub(crate) fn entries(&self) -> Vec<SharedEntry> {
        let events = self.0.lock().unwrap();
        let fragments = events.iter().filter_map(|event| match event {
            LogEvent::Fragment { entry, .. } => Some(Arc::clone(entry)),
            LogEvent::Control(_) => None,
        });
        fragments.collect()
    }

    pub(crate) fn entry(&self, number: FragmentNumber) -> Option<SharedEntry> {
        self.entries().into_iter().find(|entry| entry.meta.number == number)
    }

    pub(crate) fn facts(&self, number: FragmentNumber) -> Option<Arc<FragmentFacts>> {
        self.0.lock().unwrap().iter().find_map(|event| match event {
            LogEvent::Fragment { entry, facts } if entry.meta.number == number => Some(Arc::clone(facts)),
            _ => None,
        })
    }

    pub(crate) fn controls(&self) -> Vec<Arc<ControlRecord>> {
        let events = self.0.lock().unwrap();
        let controls = events.iter().filter_map(|event| match event {
            LogEvent::Control(record) => Some(Arc::clone(record)),
            LogEvent::Fragment { .. } => None,
        });
        controls.collect()
    }

    /// One word for each event, in order.
    pub(crate) fn words(&self) -> Vec<&'static str> {
        let events = self.0.lock().unwrap();
        let word = |event: &LogEvent| match event {
            LogEvent::Fragment { .. } => "fragment",
            LogEvent::Control(record) => match record.body {
                Control::Stream(_) => "stream",
                Control::StreamDeleted { .. } => "stream deleted",
                Control::Run(_) => "run",
                Control::RunEnded { .. } => "run ended",
                Control::Gap(_) => "gap",
                Control::Floor { .. } => "floor",
                Control::Key { .. } => "key",
            },
        };
        events.iter().map(word).collect()
    }
}

/// Remembers everything as a [`Collector`], and brings back what it saved: as an index on a disk of its own.
#[derive(Default)]
pub(crate) struct Saving {
    pub(crate) seen: Collector,
    disk: Arc<Mutex<HashMap<Uuid, Vec<LogEvent>>>>,
    /// Fragments that it was told, not those that it brought back.
    pub(crate) told: AtomicUsize,
}

impl Saving {
    /// Another process with the same disk.
    pub(crate) fn again(&self) -> Arc<Self> {
        Arc::new(Self { disk: Arc::clone(&self.disk), ..Self::default() })
    }

    /// Loses what it saved.
    pub(crate) fn forget(&self) {
        self.disk.lock().unwrap().clear();
    }

    pub(crate) fn told(&self) -> usize {
        self.told.load(Ordering::Relaxed)
    }
}

impl LogObserver for Saving {
    fn observe(&self, event: &LogEvent) {
        if let LogEvent::Fragment { .. } = event {
            self.told.fetch_add(1, Ordering::Relaxed);
        }
        self.seen.observe(event);
    }

    fn save(&self, id: Uuid) -> io::Result<()> {
        let fragments = self.seen.0.lock().unwrap().clone();
        self.disk.lock().unwrap().insert(id, fragments);
        Ok(())
    }

    fn restore(&self, id: Uuid) -> bool {
        let Some(mut events) = self.disk.lock().unwrap().get(&id).cloned() else { return false };
        events.retain(|event| matches!(event, LogEvent::Fragment { .. }));
        self.seen.0.lock().unwrap().extend(events);
        true
    }
}

pub(crate) struct Opened {
    pub(crate) store: Store,
    pub(crate) report: OpenReport,
    pub(crate) seen: Arc<Collector>,
    pub(crate) clock: Arc<ManualClock>,
}

pub(crate) fn open(io: &(impl SegmentIo + Clone + 'static)) -> Opened {
    open_with(options(), io)
}

pub(crate) fn open_with(options: StoreOptions, io: &(impl SegmentIo + Clone + 'static)) -> Opened {
    let (seen, clock) = (Arc::new(Collector::default()), ManualClock::new(UnixMs(1_700_000_000_000)));
    let opened = Store::open(options, Arc::new(io.clone()), clock.clone(), vec![seen.clone()]);
    let (store, report) = opened.unwrap();
    Opened { store, report, seen, clock }
}

pub(crate) fn config(name: &str) -> StreamConfig {
    let header = [PLAIN_WORD, name.as_bytes()].concat();
    StreamConfig { tracks: Vec::new(), matroska_header: Bytes::from(header) }
}

/// A stream with a key, a record, a run and a config.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Source {
    pub(crate) stream: StreamId,
    pub(crate) run: RunId,
    pub(crate) config: ConfigId,
}

pub(crate) async fn source(store: &Store) -> Source {
    source_kept(store, 1).await
}

fn settings(stream: StreamId, retention_hours: u32) -> Control {
    let name = StreamName::new("cam-1").unwrap();
    let settings = StreamSettings { device: "cam".into(), retention_hours, retention_bytes: None, tags: Vec::new() };
    Control::Stream(StreamRecord { stream, name, created: UnixMs(1), settings })
}

/// Changes for how many hours a stream is kept.
pub(crate) async fn keep(store: &Store, from: &Source, hours: u32) {
    store.control(settings(from.stream, hours)).await.unwrap();
}

/// As `source`, kept for so many hours.
pub(crate) async fn source_kept(store: &Store, hours: u32) -> Source {
    let (stream, run) = (StreamId::new(), RunId::new());
    store.create_stream_key(stream).await.unwrap();
    store.control(settings(stream, hours)).await.unwrap();
    let record = RunRecord {
        stream,
        run,
        started: UnixMs(1),
        protocol: "http".into(),
        source: String::from_utf8_lossy(PLAIN_WORD).into_owned(),
        user_agent: String::new(),
        anchor: UnixMs(1),
        anchor_source: WallSource::Arrival,
        continues: None,
        push: None,
    };
    store.control(Control::Run(record)).await.unwrap();
    let config = store.put_config(stream, &config("one")).await.unwrap();
    Source { stream, run, config }
}

pub(crate) fn facts(size_bytes: u64) -> FragmentFacts {
    let totals = TrackTotals { sample_count: 50, mp4_bytes: size_bytes, stts_runs: 2, ..TrackTotals::default() };
    let track =
        TrackFacts { kind: TrackKind::Video, codec: "h264".into(), width: 640, height: 360, size_bytes, totals };
    let tag = Tag { name: "word".into(), value: String::from_utf8_lossy(PLAIN_WORD).into_owned() };
    FragmentFacts { tracks: vec![track], tags: vec![tag], sync_back: 1, ..FragmentFacts::default() }
}

impl Source {
    pub(crate) fn meta(&self, number: FragmentNumber, ordinal: u64) -> FragmentMeta {
        FragmentMeta {
            stream: self.stream,
            number,
            run: self.run,
            lease_epoch: 0,
            ordinal,
            discontinuity: 0,
            producer_start: UnixMs(ordinal as i64 * 2000),
            duration_ms: 2000,
            config: self.config,
            flags: FragmentFlags::STARTS_WITH_SYNC,
        }
    }

    /// A whole fragment.
    pub(crate) fn fragment(&self, number: FragmentNumber, media: &Bytes) -> NewFragment {
        let piece = Piece { part: None, media_len: media.len() as u64, table: Bytes::from_static(PLAIN_WORD) };
        // In pieces that do not line up with chunks.
        let cut = media.len() / 3;
        NewFragment {
            meta: self.meta(number, number.sequence() & 0xffff),
            part: None,
            facts: facts(media.len() as u64),
            table: TableEnvelope { pieces: vec![piece] },
            media: vec![media.slice(..cut), Bytes::new(), media.slice(cut..)],
        }
    }

    /// Part `index` of a fragment.
    pub(crate) fn part(&self, number: FragmentNumber, index: u16, media: &Bytes) -> NewFragment {
        NewFragment { part: Some(index), ..self.fragment(number, media) }
    }

    /// The close of a fragment that has `parts` parts of `part_len` bytes.
    pub(crate) fn close(&self, number: FragmentNumber, parts: u16, part_len: u64, media: &Bytes) -> NewFragment {
        let mut fragment = self.fragment(number, media);
        let piece = |index| Piece { part: Some(index), media_len: part_len, table: Bytes::from_static(PLAIN_WORD) };
        fragment.table.pieces.splice(0..0, (0..parts).map(piece));
        fragment.facts = facts(u64::from(parts) * part_len + media.len() as u64);
        fragment
    }

    pub(crate) async fn append(&self, store: &Store, media: &Bytes) -> FragmentNumber {
        let number = store.next_number(UnixMs(1_700_000_000_000));
        let durable = store.append(self.fragment(number, media)).await.unwrap();
        assert_eq!((durable.number, durable.size_bytes), (number, media.len() as u64));
        number
    }
}

/// Does `work` with a store that is driven by hand, and commits what waits meanwhile.
pub(crate) async fn drive<T>(store: &Store, work: impl Future<Output = T>) -> T {
    let mut work = pin!(work);
    loop {
        tokio::select! {
            biased;
            done = &mut work => return done,
            () = tokio::task::yield_now() => drop(store.turn()),
        }
    }
}

/// Bytes that no two fragments share.
pub(crate) fn media(seed: u64, len: usize) -> Bytes {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(|_| next()).collect()
}

/// The whole media of a fragment, as its table says.
pub(crate) async fn read_back(store: &Store, entry: &SharedEntry) -> Bytes {
    let head = store.head(entry).await.unwrap();
    let mut all = Vec::new();
    for piece in &head.table.pieces {
        all.extend(store.media(entry, piece.part, 0..piece.media_len).await.unwrap());
    }
    all.into()
}
