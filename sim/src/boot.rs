//! One life of the server: opened, wired as `vidar serve` wires it, and at some moment over.

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::{SharedClock, SystemClock};
use vidar_core::log::LogObserver;
use vidar_core::time::UnixMs;
use vidar_indexer::{Index, IndexOptions};
use vidar_ingest::admission::Publishers;
use vidar_ingest::{Ingest, IngestOptions};
use vidar_live::{Hub, HubOptions};
use vidar_player_api::{Api, ApiOptions};
use vidar_server::registry::Registry;
use vidar_server::retention::Retention;
use vidar_server::settings::DiskPolicy;
use vidar_server::sink::StoreSink;
use vidar_storage::{DiskMarks, OpenError, OpenReport, Store, StoreOptions};

use crate::clock::SimClock;
use crate::disk::SimDisk;
use crate::kek::NumberedKek;
use crate::model::Model;
use crate::random::Random;
use crate::recorder::{WatchedLog, WatchedSink};
use crate::saving::SavingIndex;
use crate::trace::Trace;
use crate::witness::Witness;

/// What all boots of a history have in common.
#[derive(Clone)]
pub(crate) struct Shared {
    /// The directory.
    pub(crate) disk: SimDisk,
    /// What has to be true.
    pub(crate) model: Arc<Mutex<Model>>,
    /// What must never repeat.
    pub(crate) witness: Witness,
    /// What happened.
    pub(crate) trace: Trace,
}

/// Makes the disk take its time: what waits is committed when a sleep is over, so that more may join the batch.
#[derive(Default)]
pub(crate) struct Pace {
    busy: AtomicUsize,
    wake: Notify,
    latency_ms: AtomicU64,
}

/// Somebody may be waiting for the disk, for as long as it lives.
pub(crate) struct Work(Arc<Pace>);

impl Pace {
    /// Begins something that may wait for the disk.
    pub(crate) fn work(self: &Arc<Self>) -> Work {
        self.busy.fetch_add(1, Ordering::Relaxed);
        self.wake.notify_one();
        Work(Arc::clone(self))
    }

    /// A batch takes up to so long from now on.
    pub(crate) fn set_latency_ms(&self, latency_ms: u64) {
        self.latency_ms.store(latency_ms, Ordering::Relaxed);
    }

    async fn drive(self: Arc<Self>, store: Store, mut random: Random) {
        loop {
            if self.busy.load(Ordering::Relaxed) == 0 {
                while store.turn() {}
                self.wake.notified().await;
            }
            let latency_ms = self.latency_ms.load(Ordering::Relaxed);
            sleep(Duration::from_millis(random.within(0..latency_ms + 1))).await;
            if !store.turn() {
                sleep(Duration::from_millis(random.within(1..8))).await;
            }
        }
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Shared {
    /// Settings with the key provider of a directory.
    #[must_use]
    pub(crate) fn with_kek(options: &StoreOptions, disk: &SimDisk) -> StoreOptions {
        let mut options = options.clone();
        options.kek = Arc::new(NumberedKek::of(disk));
        options
    }
}

/// A running server.
pub(crate) struct Boot {
    pub(crate) shared: Shared,
    pub(crate) clock: Arc<SimClock>,
    pub(crate) store: Store,
    pub(crate) index: Arc<Index>,
    pub(crate) sink: Arc<WatchedSink>,
    pub(crate) registry: Arc<Registry>,
    pub(crate) retention: Retention,
    pub(crate) ingest: Arc<Ingest>,
    pub(crate) router: axum::Router,
    pub(crate) pace: Arc<Pace>,
}

/// Settings of a store, the same for each boot of the same draw. The key provider comes with the directory.
pub(crate) fn options(random: &mut Random) -> StoreOptions {
    let mut options = StoreOptions::new("/simulated");
    options.kek_patience = Duration::ZERO;
    options.segment_bytes = [64 << 10, 256 << 10, 1 << 20][random.index(3)];
    options.segment_age = Duration::from_secs(600);
    options.marks = DiskMarks { apply_policy_bytes: 192 << 10, refuse_bytes: 96 << 10 };
    options.inbox_bytes = [64 << 10, 1 << 20][random.index(2)];
    options.batch_bytes = [16 << 10, 256 << 10][random.index(2)];
    options.reserve_bytes = 64 << 10;
    options.head_cache_bytes = [0, 1 << 20][random.index(2)];
    options.by_hand = true;
    options
}

fn ingest_options(random: &mut Random) -> IngestOptions {
    let mut options = IngestOptions { budget_bytes: [64 << 10, 1 << 20][random.index(2)], ..IngestOptions::default() };
    options.fragmenter.part_bytes = [16 << 10, 64 << 10][random.index(2)];
    options.fragmenter.fragment_duration_ms_max = [3_000, 20_000][random.index(2)];
    options
}

impl Boot {
    /// Opens the directory and wires everything.
    ///
    /// # Errors
    /// If the store does not open.
    pub(crate) fn start(
        shared: &Shared,
        (wall, uptime): (UnixMs, Duration),
        options: StoreOptions,
        random: &mut Random,
    ) -> Result<(Self, OpenReport), OpenError> {
        let clock = Arc::new(SimClock::new(wall, uptime));
        let sim_clock = Arc::clone(&clock) as SharedClock;
        let index = Index::open(IndexOptions::in_memory(SystemClock::shared())).expect("an index in memory opens");
        // Search has threads of its own, and decides nothing: catalog and timeline go on without it.
        index.close();
        let (model, trace) = (Arc::clone(&shared.model), shared.trace.clone());
        let log = WatchedLog {
            model: Arc::clone(&model),
            clock: Arc::clone(&clock),
            trace: trace.clone(),
            heard: Mutex::new(HashSet::new()),
        };
        let observers: Vec<Arc<dyn LogObserver>> =
            vec![Arc::new(SavingIndex::new(Arc::clone(&index), shared.disk.clone())), Arc::new(log)];
        let opened = Store::open(options, Arc::new(shared.disk.clone()), Arc::clone(&sim_clock), observers);
        let (store, report) = opened?;
        let policy = if random.one_in(2) { DiskPolicy::DeleteOldest } else { DiskPolicy::Refuse };
        let inner = Arc::new(StoreSink::new(store.clone(), Arc::clone(&index), Arc::clone(&sim_clock), policy));
        let (witness, watch) = (shared.witness.clone(), Arc::clone(&clock));
        let sink = Arc::new(WatchedSink { inner: Arc::clone(&inner), model, witness, clock: watch, trace });
        // Streams of all retention classes.
        let hours = [1, 1, 2, 24, 8760][random.index(5)];
        let registry = Registry::new(Arc::clone(&index), store.clone(), Arc::clone(&sim_clock), hours, true);
        let registry = Arc::new(registry);
        let retention = Retention {
            store: store.clone(),
            index: Arc::clone(&index),
            registry: Arc::clone(&registry),
            sink: inner,
            total_bytes: None,
            policy,
            gone: Mutex::default(),
        };
        let hub = Hub::new(HubOptions::default());
        let ingest = Ingest::new(
            Arc::clone(&sink) as _,
            Arc::clone(&hub) as _,
            Arc::clone(&registry) as _,
            Arc::new(Publishers::new(Arc::clone(&sim_clock))),
            Arc::clone(&sim_clock),
            ingest_options(random),
        );
        let router = vidar_player_api::router(Arc::new(Api {
            heads: Default::default(),
            index: Arc::clone(&index),
            source: Arc::new(store.clone()),
            registry: Arc::clone(&registry) as _,
            auth: Arc::new(Anybody),
            hub,
            clock: sim_clock,
            options: ApiOptions::default(),
        }));
        let pace = Arc::new(Pace::default());
        pace.set_latency_ms(5);
        tokio::spawn(Arc::clone(&pace).drive(store.clone(), random.fork()));
        let shared = shared.clone();
        Ok((Self { shared, clock, store, index, sink, registry, retention, ingest, router, pace }, report))
    }

    /// As `vidar serve` stops: pushes end and become durable, then the store closes. False if it did not close well.
    pub(crate) async fn stop(&self) -> bool {
        let _work = self.pace.work();
        self.ingest.stop.cancel();
        self.ingest.drained().await;
        // Publishers hear of it, and go.
        for _ in 0..1000 {
            if self.pace.busy.load(Ordering::Relaxed) == 1 {
                break;
            }
            sleep(Duration::from_millis(50)).await;
        }
        self.store.close().await.is_ok()
    }
}

/// Lets everybody in: who may is not simulated.
struct Anybody;

impl Authenticator for Anybody {
    fn basic(&self, access_key_id: &str, _secret: &str) -> Option<Principal> {
        Some(Principal::root(access_key_id))
    }

    fn bearer(&self, token: &str) -> Option<Principal> {
        self.basic(token, "")
    }

    fn digest_secret(&self, _access_key_id: &str) -> Option<(Principal, String)> {
        None
    }

    fn sign(&self, _maker: &Principal, path_prefix: &str, _expires: UnixMs) -> String {
        path_prefix.into()
    }

    fn signed(&self, token: &str, _path: &str, _now: UnixMs) -> Option<Principal> {
        self.basic(token, "")
    }
}
