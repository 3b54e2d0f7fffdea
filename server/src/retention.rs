//! Lets go what may go: by hours and by bytes for each stream, by bytes for all, and by the disk marks.
//!
//! # Precedence
//! 1. A stream's own settings hold; the server's default is only what a stream made by its first push begins with.
//! 2. Of hours and bytes the stricter holds.
//! 3. What is over the cap for all streams after that goes by age, whatever stream it is of.
//! 4. So it does when the disk runs full, if the policy says so.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::extract::{RawQuery, State};
use axum::routing::get;
use axum::{Json, Router};
use futures::future::join_all;
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;
use vidar_core::control::{Control, StreamRecord};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::registry::StreamRegistry;
use vidar_core::time::UnixMs;
use vidar_indexer::{Expiry, Index, RangeQuery, TimeAxis, Timeline};
use vidar_player_api::params::{self, Params};
use vidar_player_api::{ApiError, ApiResult, in_turn};
use vidar_storage::{Space, Store};

use crate::registry::{RETENTION_HOURS_MAX, Registry};
use crate::settings::DiskPolicy;
use crate::sink::StoreSink;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(5);
/// Freed at once when the disk runs full.
const DISK_STEP_BYTES: u64 = 256 << 20;
/// Previews that are made at the same time: one may look at every fragment.
static PREVIEWS: Semaphore = Semaphore::const_new(1);

/// Why fragments go.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// They are older than their stream keeps.
    Hours,
    /// Their stream holds more than it may.
    Bytes,
    /// All streams together hold more than they may.
    Total,
    /// The disk runs full.
    Disk,
}

impl Reason {
    /// All, in the order in which they are looked at.
    pub const ALL: [Self; 4] = [Self::Hours, Self::Bytes, Self::Total, Self::Disk];

    /// As answers and metrics name it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Hours => "hours",
            Self::Bytes => "bytes",
            Self::Total => "total",
            Self::Disk => "disk",
        }
    }
}

/// Fragments of a stream that go together.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Going<E = Vec<SharedEntry>> {
    /// Of this stream.
    pub stream: StreamId,
    /// Why.
    pub reason: Reason,
    /// Which.
    pub expiry: Expiry<E>,
}

/// What fragments add up to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Sum {
    fragments: u64,
    /// From the first beginning to the last end, by the producer's and by the server's clock.
    producer: Option<(UnixMs, UnixMs)>,
    server: Option<(UnixMs, UnixMs)>,
}

impl Extend<SharedEntry> for Sum {
    fn extend<T: IntoIterator<Item = SharedEntry>>(&mut self, entries: T) {
        for meta in entries.into_iter().map(|entry| entry.meta) {
            let server_end = meta.server_start().plus_ms(meta.duration_ms.into());
            self.fragments += 1;
            self.producer = Some(around(self.producer, (meta.producer_start, meta.producer_end())));
            self.server = Some(around(self.server, (meta.server_start(), server_end)));
        }
    }
}

fn around(span: Option<(UnixMs, UnixMs)>, (start, end): (UnixMs, UnixMs)) -> (UnixMs, UnixMs) {
    span.map_or((start, end), |(first, last)| (first.min(start), last.max(end)))
}

/// What went since the start, for one reason.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Gone {
    /// Fragments.
    pub fragments: u64,
    /// Bytes of their records.
    pub bytes: u64,
    /// Segment files that were removed.
    pub files: u64,
}

/// What a stream may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Of this stream.
    pub stream: StreamId,
    /// Hours on the archive clock; 0: minutes, for those who watch.
    pub hours: u32,
    /// Bytes of records; none: no bound.
    pub bytes: Option<u64>,
}

impl Limits {
    fn of(record: &StreamRecord) -> Self {
        let settings = &record.settings;
        Self { stream: record.stream, hours: settings.retention_hours, bytes: settings.bytes_max() }
    }
}

/// What goes by hours and bytes of each stream, then by the bytes of all. Nothing is in it twice.
#[must_use]
pub fn plan<E: Default + Extend<SharedEntry>>(
    timeline: &Timeline,
    limits: &[Limits],
    total_bytes: Option<u64>,
    now: UnixMs,
) -> Vec<Going<E>> {
    let (mut going, mut below) = (Vec::new(), HashMap::new());
    for &Limits { stream, hours, bytes } in limits {
        for (reason, bytes) in [(Reason::Hours, None), (Reason::Bytes, bytes)] {
            let from = below.get(&stream).copied().unwrap_or(FragmentNumber::MIN);
            let Some(expiry) = timeline.expired(stream, now, hours, bytes, from) else { continue };
            below.insert(stream, expiry.below);
            going.push(Going { stream, reason, expiry });
        }
    }
    if let Some(cap) = total_bytes {
        let stored: u64 = limits.iter().map(|limits| timeline.totals(limits.stream).stored_bytes).sum();
        let freed: u64 = going.iter().map(|going: &Going<E>| going.expiry.stored_bytes).sum();
        let over = stored.saturating_sub(freed).saturating_sub(cap);
        let oldest = timeline.oldest_overall(over, &below);
        going.extend(oldest.into_iter().map(|(stream, expiry)| Going { stream, reason: Reason::Total, expiry }));
    }
    going
}

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
    /// Bytes that all streams may hold.
    pub total_bytes: Option<u64>,
    /// What to do when space runs short.
    pub policy: DiskPolicy,
    /// What went, in the order of [`Reason::ALL`].
    pub gone: Mutex<[Gone; Reason::ALL.len()]>,
}

impl Retention {
    /// Works until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        loop {
            tokio::select! {
                () = stop.cancelled() => return,
                () = tokio::time::sleep(INTERVAL) => self.step().await,
            }
        }
    }

    /// Looks once.
    pub async fn step(&self) {
        let limits: Vec<Limits> = self.registry.list().iter().map(|record| Limits::of(record)).collect();
        let mut plan: Vec<Going> = self.plan(&limits, self.total_bytes);
        for reason in Reason::ALL {
            let going = plan.extract_if(.., |going| going.reason == reason).collect();
            self.expire(reason, going).await;
        }
        while self.policy == DiskPolicy::DeleteOldest && self.store.space() != Space::Ok {
            let going = self.for_room(&[]);
            if going.is_empty() {
                break;
            }
            tracing::warn!(streams = going.len(), "the disk runs full: the oldest fragments go");
            if !self.expire(Reason::Disk, going).await {
                return;
            }
        }
    }

    fn plan<E: Default + Extend<SharedEntry>>(&self, limits: &[Limits], total_bytes: Option<u64>) -> Vec<Going<E>> {
        plan(self.index.timeline(), limits, total_bytes, self.store.archive_now())
    }

    /// What goes at once when the disk runs full, beside what is `going` anyway.
    fn for_room<E: Default + Extend<SharedEntry>>(&self, going: &[Going<E>]) -> Vec<Going<E>> {
        // Of two reasons for a stream the later one goes further.
        let below = going.iter().map(|going| (going.stream, going.expiry.below)).collect();
        let oldest = self.index.timeline().oldest_overall(DISK_STEP_BYTES, &below);
        oldest.into_iter().map(|(stream, expiry)| Going { stream, reason: Reason::Disk, expiry }).collect()
    }

    /// What the next look lets go. On a full disk: and what goes next if that makes too little room.
    fn foretell(&self, limits: &[Limits], total_bytes: Option<u64>) -> Vec<Going<Sum>> {
        let mut going = self.plan(limits, total_bytes);
        if self.policy == DiskPolicy::DeleteOldest && self.store.space() != Space::Ok {
            going.extend(self.for_room(&going));
        }
        going
    }

    /// What went since the start, in the order of [`Reason::ALL`].
    #[must_use]
    pub fn gone(&self) -> [Gone; Reason::ALL.len()] {
        *self.lock()
    }

    fn lock(&self) -> MutexGuard<'_, [Gone; Reason::ALL.len()]> {
        self.gone.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Lets fragments of many streams go: their floors share commits, and what they free is looked at once. False if the
    /// log did not take them all.
    async fn expire(&self, reason: Reason, mut going: Vec<Going>) -> bool {
        if going.is_empty() {
            return true;
        }
        let floors = join_all(going.iter().map(|going| self.floor(going))).await;
        let all = floors.iter().all(|taken| *taken);
        let mut taken = floors.into_iter();
        going.retain(|_| taken.next() == Some(true));
        let bytes: u64 = going.iter().map(|going| going.expiry.stored_bytes).sum();
        let entries: Vec<SharedEntry> = going.into_iter().flat_map(|going| going.expiry.entries).collect();
        let count = entries.len() as u64;
        let expired = self.store.free(entries).await;
        tracing::info!(reason = reason.name(), fragments = count, bytes, ?expired, "expired");
        let mut gone = self.lock();
        let gone = &mut gone[reason as usize];
        gone.fragments += count;
        gone.bytes += bytes;
        gone.files += expired.files;
        all
    }

    /// False if the log did not take it.
    async fn floor(&self, Going { stream, reason, expiry }: &Going) -> bool {
        let (stream, below) = (*stream, expiry.below);
        let (ordinal, discontinuity) = self.sink.next_place(stream);
        let next_ordinal = ordinal.max(expiry.next_ordinal);
        let discontinuity = discontinuity.max(expiry.discontinuity);
        let floor = Control::Floor { stream, below, next_ordinal, discontinuity };
        let taken = self.store.control(floor).await;
        match &taken {
            Ok(()) => tracing::debug!(%stream, reason = reason.name(), %below, "let go"),
            Err(error) => tracing::warn!(%stream, %error, "could not expire"),
        }
        taken.is_ok()
    }
}

/// The routes.
pub fn router(retention: Arc<Retention>) -> Router {
    Router::new().route("/v1/retention/preview", get(preview)).with_state(retention)
}

/// What the next look would let go; with other settings of one stream, before they are saved.
async fn preview(State(retention): State<Arc<Retention>>, RawQuery(query): RawQuery) -> ApiResult<Json<Value>> {
    let params = Params::parse(query.as_deref(), &["stream", "retention_hours", "retention_bytes", "total_bytes"])?;
    let hours = params.number("retention_hours", 0..=RETENTION_HOURS_MAX.into())?;
    let bytes = match params.text("retention_bytes") {
        Some("none") => Some(None),
        _ => params.number("retention_bytes", 1..=u64::MAX)?.map(Some),
    };
    let total_bytes = match params.text("total_bytes") {
        Some("none") => None,
        _ => params.number("total_bytes", 1..=u64::MAX)?.or(retention.total_bytes),
    };
    let only = match params.text("stream") {
        Some(name) => {
            let name = params::stream_name(name)?;
            let record = retention.registry.get(&name);
            Some(record.ok_or_else(|| ApiError::not_found(format!("stream {name} does not exist")))?.stream)
        }
        None if hours.is_some() || bytes.is_some() => {
            return Err(ApiError::bad_request("retention_hours and retention_bytes are settings of one stream")
                .with("parameter", "stream"));
        }
        None => None,
    };
    let streams = retention.registry.list();
    let mut limits: Vec<Limits> = streams.iter().map(|record| Limits::of(record)).collect();
    for record in streams.iter().filter(|record| Some(record.stream) == only) {
        let mut record = StreamRecord::clone(record);
        let settings = &mut record.settings;
        settings.retention_hours =
            hours.and_then(|hours| u32::try_from(hours).ok()).unwrap_or(settings.retention_hours);
        settings.retention_bytes = bytes.unwrap_or(settings.retention_bytes);
        limits
            .iter_mut()
            .filter(|limits| limits.stream == record.stream)
            .for_each(|limits| *limits = Limits::of(&record));
    }
    let look = move || {
        let mut going = retention.foretell(&limits, total_bytes);
        going.retain(|going| only.is_none_or(|only| going.stream == only));
        Json(show_all(&going, &streams))
    };
    in_turn(&PREVIEWS, look).await
}

fn show_all(going: &[Going<Sum>], streams: &[Arc<StreamRecord>]) -> Value {
    let name = |stream| streams.iter().find(|record| record.stream == stream).map(|record| record.name.to_string());
    let fragments: u64 = going.iter().map(|going| going.expiry.entries.fragments).sum();
    let stored: u64 = going.iter().map(|going| going.expiry.stored_bytes).sum();
    json!({
        "streams": going.iter().map(|going| show(going, name(going.stream))).collect::<Vec<_>>(),
        "totals": { "fragments": fragments, "stored_bytes": stored },
    })
}

fn show(going: &Going<Sum>, name: Option<String>) -> Value {
    let Sum { fragments, producer, server } = going.expiry.entries;
    json!({
        "stream": name, "reason": going.reason.name(), "fragments": fragments,
        "stored_bytes": going.expiry.stored_bytes,
        "start": producer.map(|(start, _)| start), "end": producer.map(|(_, end)| end),
        "server_start": server.map(|(start, _)| start), "server_end": server.map(|(_, end)| end),
    })
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

#[cfg(test)]
#[path = "retention_tests.rs"]
mod tests;
