//! `vidar serve`: wires everything, and takes it down in order.

use std::fs;
use std::future::Future;
use std::os::unix::fs::DirBuilderExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::Context;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use vidar_core::clock::{SharedClock, SystemClock};
use vidar_core::log::LogObserver;
use vidar_core::policy::{Action, Target};
use vidar_core::registry::StreamRegistry;
use vidar_indexer::{Index, IndexOptions};
use vidar_ingest::admission::Publishers;
use vidar_ingest::{Ingest, IngestOptions};
use vidar_kvs_api::delivery::{Deliveries, DeliveryOptions, Feeds, Outlet};
use vidar_live::{Hub, HubOptions};
use vidar_player_api::{Api, ApiOptions};
use vidar_storage::backend::fs::FsIo;
use vidar_storage::{Store, StoreOptions};

use crate::access_keys::sealed::Sealer;
use crate::access_keys::{self, AccessKeys};
use crate::authenticator::Credentials;
use crate::console::{self, ConsoleOptions};
use crate::credentials::{self, Origin};
use crate::http::{self, HttpOptions};
use crate::keys::{self, KeyLog, Keys};
use crate::kvs::{self, KvsPort};
use crate::operate::{self, Operating};
use crate::outlet::Outlets;
use crate::registry::Registry;
use crate::retention::Retention;
use crate::settings::{KvsRule, Settings};
use crate::sink::StoreSink;
use crate::verify::Verifier;

/// A running server.
pub struct Server {
    settings: Settings,
    http: TcpListener,
    rtsp: TcpListener,
    kvs: Option<KvsPort>,
    store: Store,
    index: Arc<Index>,
    auth: Arc<Credentials>,
    access_keys: Arc<AccessKeys>,
    clock: SharedClock,
    ingest: Arc<Ingest>,
    hub: Arc<Hub>,
    registry: Arc<Registry>,
    sink: Arc<StoreSink>,
    key_log: Arc<KeyLog>,
    feeds: Feeds,
    outlet: Arc<dyn Outlet>,
}

impl Server {
    /// Opens the data directory, recovers what a crash left, and binds the ports. Nothing is served yet.
    ///
    /// # Errors
    /// If the directory is in use or does not open, or a port is taken.
    pub async fn start(settings: Settings) -> anyhow::Result<Self> {
        let options = store_options(&settings)?;
        Self::over(options, settings).await
    }

    /// As [`Server::start`], with a store of other options: another key provider, for example.
    ///
    /// # Errors
    /// As `start`.
    pub async fn over(options: StoreOptions, settings: Settings) -> anyhow::Result<Self> {
        let clock = SystemClock::shared();
        raise_open_files();
        make_private_dir(&settings.data_dir)?;
        let feeds = Feeds::new(delivery_options(&settings));
        let (store, index, key_log) = open_store(options, Arc::clone(&clock), feeds.observers()).await?;
        let outlet = Arc::new(Outlets::new(&settings, Arc::clone(&clock))?);
        let (pair, origin) = credentials::load(&settings.data_dir)?;
        announce(&pair, &origin);
        let access_keys = AccessKeys::open(&settings.data_dir, store.index_key().bytes(), Arc::clone(&clock))?;
        let auth = Arc::new(Credentials::new(pair, Some(Arc::clone(&access_keys)), Arc::clone(&clock)));
        let hub = Hub::new(hub_options(&settings));
        let sink =
            Arc::new(StoreSink::new(store.clone(), Arc::clone(&index), Arc::clone(&clock), settings.disk_policy));
        let registry = Arc::new(Registry::new(
            Arc::clone(&index),
            store.clone(),
            Arc::clone(&clock),
            settings.default_retention_hours,
            settings.create_streams,
        ));
        let options = ingest_options(&settings);
        let admission = Arc::new(Publishers::new(Arc::clone(&clock)));
        let ingest = Ingest::new(
            Arc::clone(&sink) as _,
            Arc::clone(&hub) as _,
            Arc::clone(&registry) as _,
            admission,
            Arc::clone(&clock),
            options,
        );
        let http = TcpListener::bind(settings.http).await.with_context(|| format!("bind {}", settings.http))?;
        let rtsp = TcpListener::bind(settings.rtsp).await.with_context(|| format!("bind {}", settings.rtsp))?;
        tracing::info!(http = %http.local_addr()?, rtsp = %rtsp.local_addr()?, "listening");
        let kvs = KvsPort::bind(&settings).await?;
        Ok(Self {
            settings,
            http,
            rtsp,
            kvs,
            store,
            index,
            auth,
            access_keys,
            clock,
            ingest,
            hub,
            registry,
            sink,
            key_log,
            feeds,
            outlet,
        })
    }

    /// Where the HTTP port listens.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn http_address(&self) -> std::io::Result<std::net::SocketAddr> {
        self.http.local_addr()
    }

    /// What clients of the compatible API are told; none without its port.
    pub fn kvs_url(&self) -> Option<&str> {
        self.kvs.as_ref().map(KvsPort::url)
    }

    /// Serves until `stop` resolves; then stops in order: no new connections, pushes end and become durable, answers go
    /// out, the store closes.
    ///
    /// # Errors
    /// If the store does not close: something that was taken may not be durable.
    pub async fn run(self, stop: impl Future<Output = ()>) -> anyhow::Result<()> {
        let (accepting, serving) = (CancellationToken::new(), CancellationToken::new());
        let connections = TaskTracker::new();
        let retention = Arc::new(Retention {
            store: self.store.clone(),
            index: Arc::clone(&self.index),
            registry: Arc::clone(&self.registry),
            sink: Arc::clone(&self.sink),
            total_bytes: self.settings.retention_bytes,
            policy: self.settings.disk_policy,
            gone: Mutex::default(),
        });
        let (index, clock) = (Arc::clone(&self.index), Arc::clone(&self.clock));
        let verifier = Verifier::new(self.store.clone(), index, clock, self.settings.verify_bytes_s);
        let player = self.player();
        let heads = player.heads.clone();
        let deliveries = Arc::new(self.feeds.deliveries(&player, &self.outlet));
        let router =
            self.router(Arc::clone(&player), Arc::clone(&retention), Arc::clone(&verifier), Arc::clone(&deliveries));
        let http_options = HttpOptions {
            header_timeout: self.settings.header_timeout,
            write_timeout: self.settings.write_timeout,
            connections_max: self.settings.connections_max,
        };
        let rtsp_options = vidar_ingest::rtsp::RtspOptions {
            max_connections: self.settings.connections_max,
            session_timeout: self.settings.rtsp_timeout,
            message_timeout: self.settings.header_timeout,
            write_timeout: self.settings.write_timeout,
            allow_basic: true, // offered to clients on this machine only
            ..vidar_ingest::rtsp::RtspOptions::new(
                Arc::clone(&self.auth) as _,
                Arc::new(vidar_ingest::RtspPublishers(Arc::clone(&self.ingest))),
                Arc::clone(&self.clock),
            )
        };
        let accept = TaskTracker::new();
        accept.spawn(http::serve(
            self.http,
            None,
            router,
            http_options,
            accepting.clone(),
            serving.clone(),
            connections.clone(),
        ));
        if let Some(kvs) = self.kvs {
            let (registry, keys) = (Arc::clone(&self.registry), Arc::clone(&self.auth));
            let sessions = Sealer::new(self.store.index_key().bytes(), b"vidar streaming sessions 1");
            let ingest = Arc::clone(&self.ingest);
            let router = kvs.router(registry, keys, player, ingest, sessions, serving.clone());
            accept.spawn(http::serve(
                kvs.listener,
                kvs.tls,
                router,
                http_options,
                accepting.clone(),
                serving.clone(),
                connections.clone(),
            ));
        }
        accept.spawn(vidar_ingest::rtsp::serve(self.rtsp, rtsp_options, accepting.clone()));
        accept.spawn(retention.run(accepting.clone()));
        accept.spawn(Arc::clone(&deliveries.pictures).run(accepting.clone()));
        for notices in &deliveries.notices {
            accept.spawn(Arc::clone(notices).run(accepting.clone()));
        }
        accept.spawn(Arc::clone(&self.access_keys).keep_uses(accepting.clone()));
        accept.spawn(end_refused(Arc::clone(&self.ingest), Arc::clone(&self.auth), accepting.clone()));
        accept.close();
        reload_on_hangup(&accept, Arc::clone(&self.auth), self.settings.data_dir.clone(), accepting.clone());

        stop.await;
        tracing::info!("stopping");
        heads.stop();
        accepting.cancel();
        self.ingest.stop.cancel();
        verifier.stop();
        let deadline = tokio::time::Instant::now() + self.settings.stop_timeout;
        within(deadline, "the accept loops", accept.wait()).await;
        within(deadline, "pushes", self.ingest.drained()).await;
        // Answers to the pushes go out now; idle connections close.
        serving.cancel();
        connections.close();
        within(deadline, "connections", connections.wait()).await;
        self.store.close().await.context("close the store")?;
        self.index.close();
        tracing::info!("stopped");
        Ok(())
    }

    fn player(&self) -> Arc<Api> {
        Arc::new(Api {
            heads: Default::default(),
            index: Arc::clone(&self.index),
            source: Arc::new(self.store.clone()),
            registry: Arc::clone(&self.registry) as Arc<dyn StreamRegistry>,
            auth: Arc::clone(&self.auth) as _,
            hub: Arc::clone(&self.hub),
            clock: Arc::clone(&self.clock),
            options: ApiOptions {
                public_url: self.settings.public_url.clone(),
                image_workers: self.settings.image_workers,
                body_timeout: self.settings.header_timeout,
                ..ApiOptions::default()
            },
        })
    }

    fn router(
        &self,
        player: Arc<Api>,
        retention: Arc<Retention>,
        verifier: Arc<Verifier>,
        deliveries: Arc<Deliveries>,
    ) -> axum::Router {
        let (auth, clock): (Arc<Credentials>, SharedClock) = (Arc::clone(&self.auth), Arc::clone(&self.clock));
        let operating = Operating {
            store: self.store.clone(),
            index: Arc::clone(&self.index),
            registry: Arc::clone(&self.registry),
            ingest: Arc::clone(&self.ingest),
            hub: Arc::clone(&self.hub),
            heads: player.heads.clone(),
            retention,
            verifier,
            deliveries,
        };
        let keys =
            Keys { store: self.store.clone(), registry: Arc::clone(&self.registry), log: Arc::clone(&self.key_log) };
        let keys = keys::router(Arc::new(keys), self.settings.header_timeout);
        let credentials = access_keys::routes::router(
            Arc::clone(&self.access_keys),
            Arc::clone(&auth),
            Arc::clone(&clock),
            self.settings.header_timeout,
        );
        let console = ConsoleOptions {
            is_tls: self.settings.public_url.as_ref().is_some_and(|url| url.starts_with("https://")),
            rtsp_port: self.rtsp.local_addr().map_or(self.settings.rtsp.port(), |address| address.port()),
            kvs_url: self.kvs_url().map(str::to_owned),
            body_timeout: self.settings.header_timeout,
        };
        let console = console::router(Arc::clone(&auth), Arc::clone(&clock), console);
        let push = vidar_ingest::http_push::router(Arc::clone(&self.ingest));
        vidar_player_api::router(player)
            .merge(vidar_player_api::require_auth(push, Arc::clone(&auth) as _, Arc::clone(&clock)))
            .merge(vidar_player_api::require_auth(credentials, Arc::clone(&auth) as _, Arc::clone(&clock)))
            .merge(vidar_player_api::require_auth(keys, Arc::clone(&auth) as _, Arc::clone(&clock)))
            .merge(console)
            .merge(operate::router(Arc::new(operating), auth, clock))
            .fallback(vidar_player_api::error::not_found)
            .layer(axum::middleware::map_response(vidar_player_api::error::as_problem))
    }
}

/// How often pushes are looked at whose keys may have expired.
const PUSH_CHECK_INTERVAL: Duration = Duration::from_secs(30);

/// Ends sessions of browsers, then pushes, whose key does not allow them any more: at once when keys change, and soon when one
/// expires.
async fn end_refused(ingest: Arc<Ingest>, auth: Arc<Credentials>, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = stop.cancelled() => return,
            () = auth.changed() => {}
            () = tokio::time::sleep(PUSH_CHECK_INTERVAL) => {}
        }
        auth.end_sessions();
        ingest.end_refused(|who, stream| auth.may_still(who, Action::Push, Target::Stream(stream.as_str())));
    }
}

/// Says so if it takes longer.
async fn within(deadline: tokio::time::Instant, what: &str, done: impl Future<Output = ()>) {
    if tokio::time::timeout_at(deadline, done).await.is_err() {
        tracing::warn!(what, "still busy at the deadline");
    }
}

/// Lets the process open as many files as the system allows: shells give 1024, connections and segment files share them.
fn raise_open_files() {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, ..limit };
    if let Err(error) = setrlimit(Resource::Nofile, raised) {
        tracing::warn!(%error, limit = ?limit.current, "cannot raise the limit of open files");
    }
}

fn make_private_dir(path: &std::path::Path) -> anyhow::Result<()> {
    let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
    made.with_context(|| format!("create {}", path.display()))
}

/// Settings of the store.
///
/// # Errors
/// If it is not clear where the key is.
pub fn store_options(settings: &Settings) -> anyhow::Result<StoreOptions> {
    let mut options = StoreOptions::new(&settings.data_dir);
    options.kek = keys::provider(&settings.data_dir, settings.key_file.as_ref())?;
    options.segment_bytes = settings.segment_bytes;
    options.marks.apply_policy_bytes = settings.disk_policy_bytes;
    options.marks.refuse_bytes = settings.disk_refuse_bytes;
    Ok(options)
}

/// Opens store and index; the log is replayed into the index, and told to others after it. Reads files: off the runtime.
pub(crate) async fn open_store(
    options: StoreOptions,
    clock: SharedClock,
    followers: Vec<Arc<dyn LogObserver>>,
) -> anyhow::Result<(Store, Arc<Index>, Arc<KeyLog>)> {
    let open = move || -> anyhow::Result<(Store, Arc<Index>, Arc<KeyLog>)> {
        let key_log = Arc::new(KeyLog::default());
        let io = Arc::new(FsIo::new(&options.data_dir));
        let (mut index, dir) = (None, options.data_dir.join(INDEX_DIR));
        let (store, report) = Store::open_with(options, io, Arc::clone(&clock), |key| {
            let opened = Index::open(IndexOptions::new(dir, *key.bytes(), clock)).context("open the index")?;
            index = Some(Arc::clone(&opened));
            let first = [opened as Arc<dyn LogObserver>, Arc::clone(&key_log) as _];
            anyhow::Ok(first.into_iter().chain(followers).collect())
        })?;
        for damage in &report.damage {
            tracing::error!(%damage, "damage in the log");
        }
        let (files, fragments, incomplete) = (report.files, report.fragments, report.incomplete);
        tracing::info!(
            epoch = report.epoch,
            files,
            fragments,
            incomplete,
            dropped_bytes = report.dropped_bytes,
            direct_writes = store.stats().direct_writes,
            "the log is open"
        );
        Ok((store, index.context("the store opened without its observers")?, key_log))
    };
    tokio::task::spawn_blocking(open).await.context("open the data directory")?
}

/// Folder of the search index in the data directory.
pub const INDEX_DIR: &str = "index";

/// Settings of the hub.
fn hub_options(settings: &Settings) -> HubOptions {
    HubOptions { budget_bytes: usize::try_from(settings.live_memory_bytes).unwrap_or(usize::MAX) }
}

fn delivery_options(settings: &Settings) -> DeliveryOptions {
    DeliveryOptions {
        region: kvs::region(settings),
        account: settings.kvs_account.clone(),
        tagged_images_only: settings.kvs_strict.contains(&KvsRule::Images),
        image_targets: settings.image_targets.iter().map(|target| target.uri.clone()).collect(),
        topics: settings.topics.iter().map(|topic| topic.arn.clone()).collect(),
    }
}

fn ingest_options(settings: &Settings) -> IngestOptions {
    let mut options = IngestOptions {
        publisher_silence: settings.publisher_silence,
        idle_timeout: settings.idle_timeout,
        budget_bytes: settings.ingest_memory_bytes - settings.live_memory_bytes,
        ..IngestOptions::default()
    };
    options.fragmenter.fragment_duration_ms_max = settings.fragment_duration_ms_max;
    options
}

/// A pair that was made just now is shown this once, on standard output: the log goes to standard error.
#[allow(clippy::print_stdout)]
fn announce(pair: &credentials::RootPair, origin: &Origin) {
    match origin {
        Origin::Made(path) => {
            println!("root credentials (shown once, kept in {}):", path.display());
            println!("  access key id: {}", pair.access_key_id);
            println!("  secret:        {}", pair.secret.as_str());
        }
        Origin::File(path) => tracing::info!(file = %path.display(), "root credentials read"),
        Origin::Environment => tracing::info!("root credentials from the environment"),
    }
}

/// SIGHUP: the root credentials are read again.
fn reload_on_hangup(
    tasks: &TaskTracker,
    auth: Arc<Credentials>,
    data_dir: std::path::PathBuf,
    stop: CancellationToken,
) {
    let hangup = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::hangup());
    let Ok(mut hangup) = hangup else { return };
    tasks.spawn(async move {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                signal = hangup.recv() => if signal.is_none() { return },
            }
            match credentials::reload(&data_dir) {
                Ok(pair) => {
                    auth.replace(pair);
                    tracing::info!("root credentials read again");
                }
                Err(error) => tracing::error!(%error, "root credentials stay as they were"),
            }
        }
    });
}
