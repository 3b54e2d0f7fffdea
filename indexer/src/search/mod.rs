//! Fragments, runs and gaps by what they contain.
//!
//! A tantivy index in partitions of server time, in sealed files, and *chunks* of it in memory for what is not yet in
//! the files. Documents hold no values: what was found is looked up in catalog and timeline, from which all documents
//! are made. The index can therefore be made again at any time, all of it or the part that was damaged.

mod aggregate;
mod collect;
mod compile;
mod dead;
mod directory;
mod document;
mod live;
mod parse;
mod partition;
mod queue;
mod save;
mod schema;
pub(crate) mod sealed;
mod subject;
#[cfg(test)]
mod tests;
mod token;
mod view;
mod worker;

use std::collections::HashSet;
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::Duration;

use vidar_core::control::Control;
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::log::LogEvent;
use vidar_core::time::UnixMs;

use crate::catalog::Catalog;
use crate::index::{IndexError, IndexOptions};
use crate::lock::{lock, read};
use crate::timeline::Timeline;
pub use aggregate::{Aggregate, AggregateRequest, GROUPS_MAX, GroupBy, GroupKey, Percentiles, Totals};
use aggregate::{Count, Plan, Tallies, is_too_many, too_many_groups};
use collect::{Gather, Order, merge};
use directory::ChunkCache;
use live::Scope;
use partition::Home;
pub(crate) use partition::wipe;
use queue::{Change, Queue};
use schema::{Fields, Number};
use subject::Subject;
use view::{Known, Part, View};
use worker::{Progress, Settings, Shared, Worker};

/// What to look for.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct SearchRequest {
    /// In the query language of `docs/api/search.md`; empty: everything.
    pub q: String,
    /// None: by producer time, the newest first.
    pub sort: Option<Sort>,
    /// What ends at this or before by the producer's clock is left out.
    pub start: Option<UnixMs>,
    /// What begins at this or after by the producer's clock is left out.
    pub end: Option<UnixMs>,
    /// Results of a page: 1 to [`RESULTS_MAX`].
    pub limit: usize,
    /// Goes on after a page: its [`next`](SearchPage::next). From the same request.
    pub after: Option<String>,
    /// Whether the caller needs [`total`](SearchPage::total).
    pub count: bool,
}

/// Results of a page at most.
pub const RESULTS_MAX: usize = 1000;
/// Length of a query at most, in bytes.
pub const QUERY_BYTES_MAX: usize = 2048;

/// An order of results. Those without the field come last when descending, first when ascending.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sort {
    /// `time`, `server_time`, `size_bytes`, `duration_ms`, `width`, `height`, `fps`, `bitrate` or `fragment_number`.
    pub field: String,
    /// The greatest first.
    pub descending: bool,
}

/// What was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HitKind {
    /// A fragment.
    Fragment,
    /// A run.
    Run,
    /// A gap.
    Gap,
}

impl HitKind {
    /// The word of the field `kind`.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Fragment => "fragment",
            Self::Run => "run",
            Self::Gap => "gap",
        }
    }
}

/// One result. What does not apply to its kind, or is not known, is none or empty.
#[derive(Debug, Clone, PartialEq)]
pub struct SearchHit {
    /// What was found.
    pub kind: HitKind,
    /// Of which stream.
    pub stream: StreamId,
    /// The stream's name.
    pub stream_name: String,
    /// The stream's device.
    pub device: String,
    /// Of a fragment.
    pub fragment_number: Option<FragmentNumber>,
    /// The run itself, or the run it belongs to.
    pub run: Option<RunId>,
    /// `rtsp`, `http`, …
    pub protocol: Option<String>,
    /// Address it came from.
    pub source: Option<String>,
    /// Of a fragment, in the order of its tracks, each once.
    pub codecs: Vec<String>,
    /// Beginning by the producer's clock: of a fragment or a gap; the anchor of a run.
    pub time: UnixMs,
    /// Beginning by the server's clock: of a fragment or a run; when a gap was noticed.
    pub server_time: UnixMs,
    /// Of a fragment or a gap by the producer's clock; of a run that ended, by the server's.
    pub duration_ms: Option<u64>,
    /// Bytes of a fragment's samples.
    pub size_bytes: Option<u64>,
    /// Of the first video track, in pixels.
    pub width: Option<u32>,
    /// Of the first video track, in pixels.
    pub height: Option<u32>,
    /// Pictures a second of the first video track, on average.
    pub fps: Option<f64>,
    /// Bits a second of all tracks, on average.
    pub bitrate: Option<u64>,
    /// Why media is missing: of a gap, or of a fragment with losses.
    pub gap: Option<&'static str>,
    /// Of the stream and of the producer.
    pub tags: Vec<(String, String)>,
}

/// Part of the results.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct SearchPage {
    /// In the order asked for.
    pub results: Vec<SearchHit>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<String>,
    /// Results on all pages.
    pub total: u64,
    /// All that became durable up to this number was searched; none: nothing is promised yet, the index catches up.
    pub indexed_watermark: Option<FragmentNumber>,
}

/// Why there is no answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SearchError {
    /// The query cannot be read.
    #[error("query, byte {position}: {detail}")]
    Malformed {
        /// Byte of the query where it went wrong.
        position: usize,
        /// What was wrong.
        detail: String,
    },
    /// The request is wrong beside its query.
    #[error("{field}: {detail}")]
    Invalid {
        /// Of the request.
        field: &'static str,
        /// What is allowed.
        detail: String,
    },
    /// The index is being made again. Worth another try.
    #[error("search is not available now: {detail}")]
    Unavailable {
        /// What went wrong.
        detail: String,
    },
}

impl SearchError {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> vidar_core::error::ErrorKind {
        match self {
            Self::Malformed { .. } | Self::Invalid { .. } => vidar_core::error::ErrorKind::Malformed,
            Self::Unavailable { .. } => vidar_core::error::ErrorKind::Unavailable,
        }
    }
}

/// How search is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SearchStatus {
    /// Documents in partitions.
    pub document_count: u64,
    /// Documents in memory only.
    pub uncommitted_count: u64,
    /// Changes that wait.
    pub waiting_count: u64,
    /// Partitions.
    pub partition_count: u64,
    /// All up to here can be found; none: it catches up.
    pub indexed_watermark: Option<FragmentNumber>,
    /// It looks at everything, since its files were lost, or changes came faster than documents: until that is done
    /// answers may be incomplete.
    pub catching_up: Option<CatchUp>,
}

/// How far search is while it looks at everything.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CatchUp {
    /// Fragments that it looked at, …
    pub fragments: u64,
    /// … of about so many.
    pub fragments_total: u64,
}

/// Finds fragments, runs and gaps.
pub struct Search {
    shared: Arc<Shared>,
    worker: Mutex<Option<JoinHandle<()>>>,
    home: Home,
    /// Directories of the partitions that opened.
    opened: HashSet<String>,
    /// Numbers of control records, of streams and runs, whose documents were in the files when they were saved.
    saved: Mutex<HashSet<FragmentNumber>>,
}

impl Search {
    pub(crate) fn open(
        options: IndexOptions,
        catalog: Arc<Catalog>,
        timeline: Arc<Timeline>,
    ) -> Result<Self, IndexError> {
        let dir = options.dir.as_ref().map_or_else(String::new, |dir| dir.display().to_string());
        let io_error = |source| IndexError::Io { dir: dir.clone(), source };
        let shared = Arc::new(Shared {
            catalog,
            timeline,
            fields: Arc::new(Fields::new()),
            queue: Queue::new(options.queue_changes),
            known: Known::default(),
            view: RwLock::default(),
            progress: Progress::default(),
        });
        let home = match options.dir {
            None => Home::Memory,
            Some(dir) => Home::Disk { dir, key: options.key, cache: ChunkCache::new(options.cache_bytes) },
        };
        let settings = Settings {
            home: home.clone(),
            clock: options.clock,
            commit_interval: Duration::from_millis(options.commit_interval_ms),
            commit_documents: options.commit_documents,
            partition_ms: options.partition_ms,
        };
        let worker = Worker::open(Arc::clone(&shared), settings).map_err(io_error)?;
        let opened = worker.names();
        let thread = std::thread::Builder::new().name("vidar-search".to_owned());
        let thread = thread.spawn(move || worker.run()).map_err(io_error)?;
        Ok(Self { shared, worker: Mutex::new(Some(thread)), home, opened, saved: Mutex::default() })
    }

    /// After catalog and timeline took note.
    pub(crate) fn observe(&self, event: &LogEvent) {
        let Shared { queue, known, .. } = &*self.shared;
        let (stream, change, number) = match event {
            LogEvent::Fragment { entry, .. } => {
                let (stream, number) = (entry.meta.stream, entry.meta.number);
                (stream, Change::Subject(Subject::Fragment(stream, number)), number)
            }
            LogEvent::Control(record) => {
                let change = match &record.body {
                    Control::Stream(stream) => Change::Stream(stream.stream),
                    Control::Run(run) => Change::Run(run.stream, run.run),
                    Control::RunEnded { stream, run, .. } => Change::Subject(Subject::Run(*stream, *run)),
                    Control::Gap(gap) => Change::Subject(Subject::Gap(gap.stream, record.number)),
                    Control::Floor { stream, below, .. } => {
                        known.raise_floor(*stream, *below);
                        return queue.tell(|next| next.purge = true);
                    }
                    Control::StreamDeleted { stream, .. } => {
                        known.delete(*stream);
                        return queue.tell(|next| next.deleted.push(*stream));
                    }
                    Control::Key { .. } => return,
                };
                let Some(stream) = record.body.stream() else { return };
                (stream, change, record.number)
            }
        };
        if !known.add(stream) {
        } else if matches!(change, Change::Stream(_) | Change::Run(..)) && lock(&self.saved).contains(&number) {
            queue.note(number);
        } else {
            queue.push(change, number);
        }
    }

    pub(crate) fn close(&self) {
        self.shared.queue.stop();
        if let Some(worker) = lock(&self.worker).take()
            && worker.join().is_err()
        {
            tracing::error!("the search thread panicked");
        }
    }

    /// Answers a request.
    ///
    /// # Errors
    /// `Malformed` or `Invalid` if the request is wrong, `Unavailable` if the index is damaged; it is then made again.
    pub fn query(&self, request: &SearchRequest) -> Result<SearchPage, SearchError> {
        if request.limit == 0 || request.limit > RESULTS_MAX {
            return Err(SearchError::Invalid { field: "limit", detail: format!("1 to {RESULTS_MAX}") });
        }
        let order = order(request.sort.as_ref())?;
        let after = request.after.as_deref().map(|token| token::read(token, order)).transpose()?;
        let query = self.compile(&request.q, request.start, request.end)?;
        let indexed_watermark = self.shared.queue.watermark();
        let size = request.limit + 1;
        let gather = |scope| Gather { order, after, size, scope };
        let parts = self.each(&*query, gather, Vec::new, |parts, part| {
            parts.push(part);
            Ok(())
        })?;
        let mut all = merge(parts, order, size);
        let more = all.found.len() > request.limit;
        all.found.truncate(request.limit);
        let next = all.found.last().filter(|_| more).map(|(place, _)| token::write(place, order));
        let hits = all.found.iter().filter_map(|(_, subject)| subject.hit(&self.shared.catalog, &self.shared.timeline));
        Ok(SearchPage { results: hits.collect(), next, total: all.total, indexed_watermark })
    }

    /// Counts all results, in groups.
    ///
    /// # Errors
    /// As [`query`](Self::query).
    pub fn aggregate(&self, request: &AggregateRequest) -> Result<Aggregate, SearchError> {
        request.check()?;
        let query = self.compile(&request.q, request.start, request.end)?;
        let indexed_watermark = self.shared.queue.watermark();
        let plan = Arc::new(Plan {
            fields: Arc::clone(&self.shared.fields),
            by: request.by.clone(),
            interval_ms: self.interval_ms(request)?,
            start: request.start,
            end: request.end,
        });
        let count = |scope| Count { plan: Arc::clone(&plan), scope };
        let all = self.each(&*query, count, Tallies::new, |all, part| all.merge(part?))?;
        let streams = self.shared.known.streams();
        let name = |key: u64| {
            let stream = self.shared.catalog.stream(streams.get(&key)?.id)?;
            let by_device = request.by == Some(GroupBy::Device);
            Some(if by_device { stream.settings.device.clone() } else { stream.name.to_string() })
        };
        Ok(Aggregate { indexed_watermark, ..request.finish(&plan, all, name)? })
    }

    fn compile(
        &self,
        q: &str,
        start: Option<UnixMs>,
        end: Option<UnixMs>,
    ) -> Result<Box<dyn tantivy::query::Query>, SearchError> {
        let fields = &self.shared.fields;
        let query = compile::compile(fields, &parse::parse(q)?)?;
        let mut bounds = compile::overlapping(fields, start, end);
        if bounds.is_empty() {
            return Ok(query);
        }
        bounds.push(query);
        Ok(Box::new(tantivy::query::BooleanQuery::intersection(bounds)))
    }

    /// Length of groups by time: as asked for, or of few groups between the bounds, or between the first and the last
    /// document.
    fn interval_ms(&self, request: &AggregateRequest) -> Result<i64, SearchError> {
        let Some(clock) = request.clock() else { return Ok(0) };
        if let Some(interval) = request.interval_ms {
            return Ok(interval);
        }
        let bound = |bound: Option<UnixMs>| bound.filter(|_| request.by == Some(GroupBy::Time)).map(|at| at.0);
        let (start, end) = (bound(request.start), bound(request.end));
        if let (Some(start), Some(end)) = (start, end) {
            return Ok(AggregateRequest::interval_of(Some((start, end.saturating_sub(1)))));
        }
        let view = read(&self.shared.view).clone();
        let mut span: Option<(i64, i64)> = None;
        for source in &view.sources {
            for segment in source.searcher.segment_readers() {
                let of_segment = Plan::span(segment, clock).map_err(|error| self.report(source.of, &error))?;
                let join = |(from, to): (i64, i64)| span.map_or((from, to), |(a, b)| (a.min(from), b.max(to)));
                span = of_segment.map(join).or(span);
            }
        }
        Ok(AggregateRequest::interval_of(span.map(|(from, to)| (start.unwrap_or(from), end.unwrap_or(to)))))
    }

    /// What a collector finds in all indexes of one snapshot, put together by `take`.
    fn each<C: tantivy::collector::Collector, T>(
        &self,
        query: &dyn tantivy::query::Query,
        collector: impl Fn(Scope) -> C,
        begin: impl Fn() -> T,
        take: impl Fn(&mut T, C::Fruit) -> tantivy::Result<()>,
    ) -> Result<T, SearchError> {
        let search = || {
            let view = read(&self.shared.view).clone();
            let streams = self.shared.known.streams();
            let mut all = begin();
            for source in &view.sources {
                let chunk = match source.of {
                    Part::Partition(_) => None,
                    Part::Chunk(chunk) => Some(chunk),
                };
                let collector = collector(Scope { streams: Arc::clone(&streams), tail: Arc::clone(&view.tail), chunk });
                let found = source.searcher.search(query, &collector);
                found.and_then(|part| take(&mut all, part)).map_err(|error| (source.of, error))?;
            }
            Ok(all)
        };
        // A partition may have been dropped while it was searched: the next snapshot is without it.
        search().or_else(|_| search()).map_err(|(of, error)| match is_too_many(&error) {
            true => too_many_groups(),
            false => self.report(of, &error),
        })
    }

    fn report(&self, of: Part, error: &tantivy::TantivyError) -> SearchError {
        tracing::warn!(index = ?of, %error, "search index cannot be read and is made again");
        if let Part::Partition(id) = of {
            self.shared.queue.tell(|next| next.damaged.push(id));
        }
        SearchError::Unavailable { detail: "its files are damaged and made again".to_owned() }
    }

    /// Waits until no document of a deleted stream is left. False: that failed, and is tried again.
    pub(crate) fn purged(&self, stream: StreamId) -> bool {
        self.shared.queue.purged(stream)
    }

    /// Waits until all that was observed so far can be found.
    pub fn settle(&self) {
        self.shared.queue.settle(false);
    }

    /// Waits until all that was observed so far is in the files.
    pub fn commit(&self) {
        self.shared.queue.settle(true);
    }

    /// How search is doing.
    #[must_use]
    pub fn status(&self) -> SearchStatus {
        let view: Arc<View> = read(&self.shared.view).clone();
        let partitions = || view.sources.iter().filter(|source| matches!(source.of, Part::Partition(_)));
        SearchStatus {
            document_count: partitions().map(|source| source.searcher.num_docs()).sum(),
            uncommitted_count: view.tail.len() as u64,
            waiting_count: self.shared.queue.waiting_count() as u64,
            partition_count: partitions().count() as u64,
            indexed_watermark: self.shared.queue.watermark(),
            catching_up: self.shared.queue.is_behind().then(|| self.shared.progress.read()),
        }
    }
}

impl Drop for Search {
    fn drop(&mut self) {
        self.close();
    }
}

fn order(sort: Option<&Sort>) -> Result<Order, SearchError> {
    let Some(sort) = sort else { return Ok(Order { field: Number::Time, descending: true }) };
    let field = match sort.field.as_str() {
        "fragment_number" => Some(Number::Sequence),
        name => Number::of_name(name),
    };
    let known = "time, server_time, size_bytes, duration_ms, width, height, fps, bitrate or fragment_number";
    let field = field.ok_or_else(|| SearchError::Invalid { field: "sort", detail: format!("{known} is expected") })?;
    Ok(Order { field, descending: sort.descending })
}
