//! Does what the feeds say: makes pictures and hands them out, one after the other. Nothing waits for it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use serde_json::{Map, Value};
use tokio_util::sync::CancellationToken;
use vidar_core::control::StreamRecord;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::sample::Tag;
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;
use vidar_indexer::{RangeQuery, TimeAxis, Timeline};
use vidar_player_api::image::{self, ImagePool};
use vidar_player_api::{Api, ApiError};

use super::config::{self, ImageGeneration, ImagePlan};
use super::feed::{Due, Feed, Kept, Next, Past, Seen};
use super::{marks, picture};

/// How often something is tried that may be good another time, and the first pause; each is twice the one before.
const TRIES: u32 = 5;
const PAUSE_FIRST: Duration = Duration::from_secs(1);
/// How often progress is kept at most.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);

/// A picture on its way out.
#[derive(Debug, Clone)]
pub struct PictureFile {
    /// The target that it is for, as `KvsOptions::image_targets` has it.
    pub target: String,
    /// Below the target: plain parts with `/` between.
    pub path: String,
    /// JPEG or PNG.
    pub bytes: Arc<[u8]>,
    /// Names and texts that are kept with it.
    pub metadata: Map<String, Value>,
}

/// Why something did not get out.
#[derive(Debug, thiserror::Error)]
pub enum OutletError {
    /// It may another time.
    #[error("{0}")]
    Again(String),
    /// It never will.
    #[error("{0}")]
    Final(String),
}

/// Where it goes out.
#[async_trait]
pub trait Outlet: Send + Sync + 'static {
    /// Writes a picture durably, in place of one of the same path.
    ///
    /// # Errors
    /// If it is not there then.
    async fn put(&self, picture: &PictureFile) -> Result<(), OutletError>;

    /// Progress of a feed that was kept; none: nothing was.
    ///
    /// # Errors
    /// If it does not read.
    async fn restore(&self, feed: &'static str) -> Result<Option<Kept>, OutletError>;

    /// Keeps progress of a feed durably.
    ///
    /// # Errors
    /// If it does not.
    async fn keep(&self, feed: &'static str, progress: Kept) -> Result<(), OutletError>;
}

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// That got out.
    pub done: AtomicU64,
    /// That did not, and will not.
    pub failed: AtomicU64,
}

impl Counts {
    fn add(&self, good: bool) {
        let counter = if good { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// Settings of what is delivered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Account in the names of pictures.
    pub account: String,
    /// Targets of pictures, as `KvsOptions` has them.
    pub image_targets: Vec<String>,
}

/// Makes pictures.
pub struct Deliveries {
    /// What finds and decodes them.
    pub player: Arc<Api>,
    /// Its own decoder: those of viewers are left to them.
    pub pool: ImagePool,
    /// Where they go.
    pub outlet: Arc<dyn Outlet>,
    /// Which fragments are due.
    pub images: Arc<Feed>,
    /// What was done.
    pub image_counts: Counts,
    /// Settings.
    pub options: DeliveryOptions,
}

/// A feed of pictures: of fragments that ask for them, or of all.
#[must_use]
pub fn image_feed(tagged_only: bool) -> Arc<Feed> {
    let wanted: fn(&[Tag]) -> bool = if tagged_only { marks::asks_for_image } else { |_| true };
    Arc::new(Feed::new(
        |settings| {
            let (since, plan) = config::plan::<ImageGeneration>(settings)?;
            plan.enabled.then_some(since)
        },
        wanted,
    ))
}

struct Stored<'a> {
    timeline: &'a Timeline,
    feed: &'a Feed,
}

impl Past for Stored<'_> {
    fn first_since(&self, stream: StreamId, since: UnixMs) -> u64 {
        // Ordinals are given as fragments begin.
        let axis = TimeAxis::Server;
        let query = RangeQuery { stream, axis, start: None, end: Some(since), after: None, limit: 1, descending: true };
        self.timeline.range(&query).entries.first().map_or(0, |last| last.meta.ordinal + 1)
    }

    fn onwards(&self, stream: StreamId, ordinal: u64, limit: usize) -> Vec<Seen> {
        let seen = |entry: SharedEntry| {
            let number = entry.meta.number;
            let details = self.timeline.details(stream, number);
            let wanted = details.is_some_and(|details| self.feed.wants(details.tags()));
            Seen { number, ordinal: entry.meta.ordinal, wanted }
        };
        self.timeline.by_ordinal(stream, ordinal, limit).into_iter().map(seen).collect()
    }
}

/// Whether another try may help.
fn may_help(error: &ApiError) -> bool {
    error.status().as_u16() == 503
}

impl Deliveries {
    /// Makes pictures until `stop`.
    pub async fn run_images(self: Arc<Self>, stop: CancellationToken) {
        self.run("images", &self.images, &stop).await;
    }

    /// Does what a feed says, in order. What is under way at `stop` is done again by the next process.
    async fn run(&self, name: &'static str, feed: &Arc<Feed>, stop: &CancellationToken) {
        match self.retried(stop, || self.restored(name)).await {
            Some(Ok(kept)) => feed.restore(kept.unwrap_or_default()),
            Some(Err(error)) => {
                return tracing::error!(%error, feed = name, "nothing is delivered: progress does not read");
            }
            None => return,
        }
        let (mut kept, mut kept_at) = (feed.progress(), Instant::now());
        loop {
            let next = feed.next();
            if next == Next::Nothing || kept_at.elapsed() >= KEEP_INTERVAL {
                let progress = feed.progress();
                if progress != kept {
                    self.keep(name, progress.clone()).await;
                    (kept, kept_at) = (progress, Instant::now());
                }
            }
            match next {
                Next::Do(due) => match self.pictures(due, stop).await {
                    Some(()) => feed.settle(due),
                    None => break,
                },
                Next::CatchUp => {
                    let (feed, player) = (Arc::clone(feed), Arc::clone(&self.player));
                    let look = move || {
                        let past = Stored { timeline: player.index.timeline(), feed: &feed };
                        feed.catch_up(&past, player.clock.now());
                    };
                    if let Err(error) = tokio::task::spawn_blocking(look).await {
                        return tracing::error!(%error, feed = name, "nothing is delivered any more");
                    }
                }
                Next::Nothing => tokio::select! {
                    () = feed.changed() => {}
                    () = stop.cancelled() => break,
                },
            }
            if stop.is_cancelled() {
                break;
            }
        }
        self.keep(name, feed.progress()).await;
    }

    async fn restored(&self, name: &'static str) -> Result<Option<Kept>, Failure> {
        Ok(self.outlet.restore(name).await?)
    }

    async fn keep(&self, name: &'static str, progress: Kept) {
        if let Err(error) = self.outlet.keep(name, progress).await {
            tracing::warn!(%error, feed = name, "progress is not kept: after a restart some is delivered again");
        }
    }

    /// Tries again what may help, so often; none: it is time to stop.
    async fn retried<T, F: Future<Output = Result<T, Failure>>>(
        &self,
        stop: &CancellationToken,
        work: impl Fn() -> F,
    ) -> Option<Result<T, String>> {
        let mut pause = PAUSE_FIRST;
        for left in (0..TRIES).rev() {
            match until(stop, work()).await? {
                Ok(done) => return Some(Ok(done)),
                Err(Failure { again: true, .. }) if left > 0 => {}
                Err(failure) => return Some(Err(failure.detail)),
            }
            until(stop, tokio::time::sleep(pause)).await?;
            pause *= 2;
        }
        None
    }

    /// All pictures of a fragment; none: it is time to stop.
    async fn pictures(&self, due: Due, stop: &CancellationToken) -> Option<()> {
        let index = &self.player.index;
        // What was deleted or expired meanwhile has no pictures.
        let Some(stream) = index.catalog().stream(due.stream) else { return Some(()) };
        let Some(entry) = index.timeline().get(due.stream, due.number) else { return Some(()) };
        let tags = index.timeline().details(due.stream, due.number).map(|details| details.tags().to_vec());
        let tags = tags.unwrap_or_default();
        let Some((since, plan)) = config::plan::<ImageGeneration>(&stream.settings) else { return Some(()) };
        if !plan.enabled || entry.meta.server_start() < since || !self.images.wants(&tags) {
            return Some(());
        }
        match self.retried(stop, || self.has_pictures(&entry)).await? {
            Ok(true) => {}
            Ok(false) => return Some(()),
            Err(error) => {
                self.failed(&stream, due.number, &error);
                return Some(());
            }
        }
        let mut last = None;
        let instants = picture::instants(plan.axis, &entry, plan.interval_ms, marks::asks_for_image(&tags));
        if instants.len() == picture::COUNT_MAX {
            tracing::warn!(stream = %stream.name, fragment = %due.number, "no more pictures of one fragment than that are made");
        }
        for at in instants {
            match self.retried(stop, || self.make(&stream, &entry, &plan, &tags, at, &last)).await? {
                Ok(Some(made)) => {
                    self.image_counts.add(true);
                    last = Some(made);
                }
                // Nothing is shown then.
                Ok(None) => {}
                Err(error) => self.failed(&stream, due.number, &error),
            }
        }
        Some(())
    }

    fn failed(&self, stream: &StreamRecord, fragment: FragmentNumber, error: &str) {
        self.image_counts.add(false);
        tracing::warn!(stream = %stream.name, %fragment, error, "a picture is given up");
    }

    async fn has_pictures(&self, entry: &SharedEntry) -> Result<bool, Failure> {
        let config = self.player.source.config(entry).await.map_err(ApiError::from)?;
        Ok(config.tracks.iter().any(|track| track.kind == TrackKind::Video))
    }

    /// Makes the picture at an instant and puts it out. `last`: the one before, which may be shown still.
    async fn make(
        &self,
        stream: &StreamRecord,
        entry: &SharedEntry,
        plan: &ImagePlan,
        tags: &[Tag],
        at: UnixMs,
        last: &Option<(String, Arc<[u8]>)>,
    ) -> Result<Option<(String, Arc<[u8]>)>, Failure> {
        let Some((target, folders)) = config::target(&self.options.image_targets, &plan.uri) else {
            return Err(Failure { again: false, detail: format!("{} stands for no directory any more", plan.uri) });
        };
        let began = match plan.axis {
            TimeAxis::Producer => entry.meta.producer_start,
            TimeAxis::Server => entry.meta.server_start(),
        };
        let into_ms = at.since_ms(began);
        let shown = image::find_from(&self.player, Arc::clone(entry), entry.meta.producer_start.plus_ms(into_ms)).await;
        let found = match shown {
            Ok(found) => found,
            Err(error) if error.status().as_u16() == 404 => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        let identity = found.identity();
        let bytes = match last {
            Some((of, bytes)) if *of == identity => Arc::clone(bytes),
            _ => image::render(&self.player, &self.pool, &found, plan.style).await?.into(),
        };
        let name = picture::PictureName { number: entry.meta.number, at, format: plan.style.format };
        let prefix = marks::image_prefix(tags);
        let file = PictureFile {
            target: target.to_owned(),
            path: picture::path(folders, prefix, &self.options.account, stream.name.as_str(), name),
            bytes: Arc::clone(&bytes),
            metadata: picture::metadata(entry, into_ms, tags),
        };
        self.outlet.put(&file).await?;
        Ok(Some((identity, bytes)))
    }
}

/// What a piece of work yields, unless it is time to stop.
async fn until<T>(stop: &CancellationToken, work: impl Future<Output = T>) -> Option<T> {
    tokio::select! {
        done = work => Some(done),
        () = stop.cancelled() => None,
    }
}

/// Why a try failed, and whether another may help.
struct Failure {
    again: bool,
    detail: String,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { again: may_help(&error), detail: error.detail().to_owned() }
    }
}

impl From<OutletError> for Failure {
    fn from(error: OutletError) -> Self {
        Self { again: matches!(error, OutletError::Again(_)), detail: error.to_string() }
    }
}
