//! Works feeds off, each in order and by itself: nothing waits for it.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;
use vidar_indexer::{RangeQuery, TimeAxis, Timeline};
use vidar_player_api::{Api, ApiError};

use super::feed::{Due, Feed, Kept, Next, Past, Seen};
use super::outlet::{Outlet, OutletError};

/// The first pause before something is tried again, and the longest; each is twice the one before.
const PAUSE_FIRST: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// How often progress is read, where that may help.
const RESTORE_TRIES: u32 = 5;
/// How often progress is kept at most: after something was done, and after only what nobody wants came.
const KEEP_INTERVAL: Duration = Duration::from_secs(1);
const KEEP_IDLE_INTERVAL: Duration = Duration::from_secs(30);

/// What was done since the start.
#[derive(Debug, Default)]
pub struct Counts {
    /// That got out.
    pub done: AtomicU64,
    /// That did not, and will not.
    pub failed: AtomicU64,
}

impl Counts {
    pub(crate) fn add(&self, good: bool) {
        let counter = if good { &self.done } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }
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

/// What is done for a fragment.
pub(crate) trait Deliver: Send + Sync {
    /// All of it; none: it is time to stop.
    fn deliver(&self, due: Due, stop: &CancellationToken) -> impl Future<Output = Option<()>> + Send;
}

/// What works a feed off.
pub(crate) struct Worker {
    /// Of the feed: its progress is kept by it.
    pub(crate) name: String,
    pub(crate) feed: Arc<Feed>,
    /// What knows the fragments.
    pub(crate) player: Arc<Api>,
    pub(crate) outlet: Arc<dyn Outlet>,
}

impl Worker {
    /// Does what the feed says, in order. What is under way at `stop` is done again by the next process.
    pub(crate) async fn run(&self, task: &impl Deliver, stop: &CancellationToken) {
        let Self { name, feed, .. } = self;
        match retried(stop, tries(RESTORE_TRIES), || self.restored()).await {
            Some(Ok(kept)) => feed.restore(kept.unwrap_or_default()),
            Some(Err(error)) => {
                return tracing::error!(%error, feed = name, "nothing is delivered: progress does not read");
            }
            None => return,
        }
        let (mut kept, mut kept_at) = (feed.progress(), Instant::now());
        let (mut has_done, mut has_changed) = (false, false);
        loop {
            let next = feed.next();
            let keep_at = kept_at + if has_done { KEEP_INTERVAL } else { KEEP_IDLE_INTERVAL };
            if (has_done || has_changed) && Instant::now() >= keep_at {
                let progress = feed.progress();
                if progress != kept {
                    self.keep(progress.clone()).await;
                    kept = progress;
                }
                (kept_at, has_done, has_changed) = (Instant::now(), false, false);
            }
            match next {
                Next::Do(due) => match task.deliver(due, stop).await {
                    Some(()) => {
                        feed.settle(due);
                        has_done = true;
                    }
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
                    has_changed = true;
                }
                Next::Nothing => tokio::select! {
                    () = feed.changed() => has_changed = true,
                    () = tokio::time::sleep_until(keep_at.into()), if has_done || has_changed => {}
                    () = stop.cancelled() => break,
                },
            }
            if stop.is_cancelled() {
                break;
            }
        }
        self.keep(feed.progress()).await;
    }

    async fn restored(&self) -> Result<Option<Kept>, Failure> {
        Ok(self.outlet.restore(&self.name).await?)
    }

    async fn keep(&self, progress: Kept) {
        if let Err(error) = self.outlet.keep(&self.name, progress).await {
            tracing::warn!(%error, feed = self.name, "progress is not kept: after a restart some is delivered again");
        }
    }
}

/// So many tries in all.
pub(crate) fn tries(count: u32) -> impl FnMut(&Failure) -> bool + Send {
    let mut left = count;
    move |_| {
        left = left.saturating_sub(1);
        left > 0
    }
}

/// Tries again what may help, after each failure that `goes_on` with; none: it is time to stop.
pub(crate) async fn retried<T, F: Future<Output = Result<T, Failure>>>(
    stop: &CancellationToken,
    mut goes_on: impl FnMut(&Failure) -> bool,
    work: impl Fn() -> F,
) -> Option<Result<T, String>> {
    let mut pause = PAUSE_FIRST;
    loop {
        match until(stop, work()).await? {
            Ok(done) => return Some(Ok(done)),
            Err(failure) if failure.again && goes_on(&failure) => {}
            Err(failure) => return Some(Err(failure.detail)),
        }
        until(stop, tokio::time::sleep(pause)).await?;
        pause = (2 * pause).min(PAUSE_MAX);
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
pub(crate) struct Failure {
    pub(crate) again: bool,
    /// What it is about may be the reason.
    pub(crate) of_content: bool,
    pub(crate) detail: String,
}

impl From<ApiError> for Failure {
    fn from(error: ApiError) -> Self {
        Self { again: error.status().as_u16() == 503, of_content: false, detail: error.detail().to_owned() }
    }
}

impl From<OutletError> for Failure {
    fn from(error: OutletError) -> Self {
        let (again, of_content) = match error {
            OutletError::Again(_) => (true, false),
            OutletError::Failing(_) => (true, true),
            OutletError::Final(_) => (false, false),
        };
        Self { again, of_content, detail: error.to_string() }
    }
}
