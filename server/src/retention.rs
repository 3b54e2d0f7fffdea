//! Lets go what may go: by hours and by bytes for each stream, and by the disk marks for all.

use std::sync::Arc;
use std::time::Duration;

use tokio_util::sync::CancellationToken;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::registry::StreamRegistry;
use vidar_indexer::{Index, RangeQuery, TimeAxis, Timeline};
use vidar_storage::{Space, Store};

use crate::registry::Registry;
use crate::settings::DiskPolicy;
use crate::sink::StoreSink;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Freed at once when the disk runs full.
const DISK_STEP_BYTES: u64 = 256 << 20;

/// What retention works with.
pub struct Retention {
    /// The log.
    pub store: Store,
    /// What is in it.
    pub index: Arc<Index>,
    /// Settings of the streams.
    pub registry: Arc<Registry>,
    /// Places of the streams.
    pub sink: Arc<StoreSink>,
    /// What to do when space runs short.
    pub policy: DiskPolicy,
}

impl Retention {
    /// Works until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => self.step().await,
            }
        }
    }

    /// Looks once.
    pub async fn step(&self) {
        for stream in self.registry.list() {
            let settings = &stream.settings;
            let now = self.store.archive_now();
            let expiry =
                self.index.timeline().expired(stream.stream, now, settings.retention_hours, settings.retention_bytes);
            if let Some(expiry) = expiry {
                self.expire(stream.stream, expiry).await;
            }
        }
        while self.policy == DiskPolicy::DeleteOldest && self.store.space() != Space::Ok {
            let oldest = self.index.timeline().oldest_overall(DISK_STEP_BYTES);
            if oldest.is_empty() {
                break;
            }
            tracing::warn!(streams = oldest.len(), "the disk runs full: the oldest fragments go");
            for (stream, expiry) in oldest {
                if !self.expire(stream, expiry).await {
                    return;
                }
            }
        }
    }

    /// False if the log did not take it.
    async fn expire(&self, stream: StreamId, expiry: vidar_indexer::Expiry) -> bool {
        let (ordinal, discontinuity) = self.sink.next_place(stream);
        let (ordinal, discontinuity) = (ordinal.max(expiry.next_ordinal), discontinuity.max(expiry.discontinuity));
        let count = expiry.entries.len();
        match self.store.expire(stream, expiry.below, ordinal, discontinuity, expiry.entries).await {
            Ok(expired) => {
                tracing::info!(%stream, fragments = count, ?expired, "expired");
                true
            }
            Err(error) => {
                tracing::warn!(%stream, %error, "could not expire");
                false
            }
        }
    }
}

/// Every fragment of a stream.
#[must_use]
pub fn all_entries(timeline: &Timeline, stream: StreamId) -> Vec<SharedEntry> {
    let mut entries = Vec::new();
    let mut query = RangeQuery {
        stream,
        axis: TimeAxis::Server,
        start: None,
        end: None,
        after: None,
        limit: 10_000,
        descending: false,
    };
    loop {
        let page = timeline.range(&query);
        entries.extend(page.entries);
        match page.next {
            Some(next) => query.after = Some(next),
            None => return entries,
        }
    }
}
