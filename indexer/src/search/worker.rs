//! Makes documents, on a thread of its own.
//!
//! New documents go into *chunks*, small indexes in memory, at once; every so often all of them go into their
//! partitions and the chunks are dropped. A partition is asked what it says of a subject, so that nothing is written
//! twice, and what says something else by now is replaced.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, RwLock};
use std::time::Duration;

use tantivy::directory::RamDirectory;
use tantivy::query::AllQuery;
use tantivy::{Index, IndexReader, ReloadPolicy, Searcher, TantivyDocument};
use vidar_core::clock::SharedClock;
use vidar_core::ids::{FragmentNumber, RunId, StreamId};

use super::CatchUp;
use super::dead::Dead;
use super::document::document;
use super::partition::{Home, Partition, PartitionId, name, remove, settings};
use super::queue::{Batch, Change, Queue};
use super::schema::Fields;
use super::subject::{Standing, Subject, is_complete, stream_attributes};
use super::view::{Known, Part, Source, View};
use crate::catalog::Catalog;
use crate::lock::write;
use crate::timeline::Timeline;

/// Between two chunks at least: with it every fragment is found within 2 s. Most of what a chunk costs does not depend on
/// how many documents it has: some 10 ms.
const PACE: Duration = Duration::from_secs(1);
/// While the log is replayed it is not worth making documents that the next records change; but not for ever.
const FLOOD_MAX: Duration = Duration::from_secs(30);
/// How often the worker looks whether a commit is due.
const IDLE: Duration = Duration::from_secs(1);
/// After a failure to write.
const RETRY: Duration = Duration::from_secs(5);
/// More new documents than this go into partitions without a chunk before.
const CHUNK_DOCUMENTS_MAX: usize = 10_000;
/// A document that is in no chunk, and hides that in a partition.
const NO_CHUNK: u32 = u32::MAX;
/// From this tantivy derives the table that a chunk begins with: it is cleared each time, and few documents go into it.
const CHUNK_BYTES: usize = 512 << 10;
/// Writers kept open, for the newest partitions.
const WRITERS_MAX: usize = 2;
/// Partitions that keep what they hold of a stream: the one that is looked at, and its neighbour.
const HELD_MAX: usize = 2;

/// What the worker shares with those who ask.
pub(super) struct Shared {
    pub(super) catalog: Arc<Catalog>,
    pub(super) timeline: Arc<Timeline>,
    pub(super) fields: Arc<Fields>,
    pub(super) queue: Queue,
    pub(super) known: Known,
    pub(super) view: RwLock<Arc<View>>,
    pub(super) progress: Progress,
}

/// How far the worker is while it looks at everything.
#[derive(Default)]
pub(super) struct Progress {
    /// Fragments it looked at, …
    pub(super) done: AtomicU64,
    /// … of about so many.
    pub(super) total: AtomicU64,
}

pub(super) struct Worker {
    shared: Arc<Shared>,
    home: Home,
    clock: SharedClock,
    commit_interval: Duration,
    commit_documents: usize,
    partition_ms: i64,
    partitions: BTreeMap<PartitionId, Partition>,
    /// Those that were asked last what they hold, the last one behind.
    asked: Vec<PartitionId>,
    chunks: Vec<(u32, Searcher)>,
    next_chunk: u32,
    tail: HashMap<u64, Tailed>,
    fresh: HashMap<u64, (Subject, Standing)>,
    /// Attributes that a stream's documents were last made with.
    streams: HashMap<StreamId, u64>,
    /// When the oldest change that is not in the files came.
    uncommitted_since: Option<Duration>,
    purge: bool,
    /// A partition that failed since the last commit.
    suspect: Option<PartitionId>,
}

/// A document in a chunk.
struct Tailed {
    chunk: u32,
    attributes: u64,
    subject: Subject,
}

/// How often and where.
pub(super) struct Settings {
    pub(super) home: Home,
    pub(super) clock: SharedClock,
    pub(super) commit_interval: Duration,
    pub(super) commit_documents: usize,
    pub(super) partition_ms: i64,
}

/// Tells those who wait, also if the worker panics.
struct Stopped(Arc<Shared>);

impl Drop for Stopped {
    fn drop(&mut self) {
        self.0.queue.stopped();
    }
}

impl Progress {
    fn begin(&self, total: u64) {
        self.done.store(0, Ordering::Relaxed);
        self.total.store(total, Ordering::Relaxed);
    }

    pub(super) fn read(&self) -> CatchUp {
        let fragments_total = self.total.load(Ordering::Relaxed);
        CatchUp { fragments: self.done.load(Ordering::Relaxed).min(fragments_total), fragments_total }
    }
}

impl Worker {
    /// Opens what is there; what does not open is removed, and made again later.
    pub(super) fn open(shared: Arc<Shared>, settings: Settings) -> std::io::Result<Self> {
        let mut partitions = BTreeMap::new();
        for (id, path) in settings.home.list()? {
            match settings.home.open(path.clone(), &shared.fields) {
                Ok(partition) => {
                    partitions.insert(id, partition);
                }
                Err(error) => {
                    tracing::warn!(partition = id, %error, "search index is damaged and made again");
                    remove(&path);
                }
            }
        }
        let worker = Self {
            shared,
            home: settings.home,
            clock: settings.clock,
            commit_interval: settings.commit_interval,
            commit_documents: settings.commit_documents.max(1),
            partition_ms: settings.partition_ms.max(1),
            partitions,
            asked: Vec::new(),
            chunks: Vec::new(),
            next_chunk: 0,
            tail: HashMap::new(),
            fresh: HashMap::new(),
            streams: HashMap::new(),
            uncommitted_since: None,
            purge: false,
            suspect: None,
        };
        worker.publish();
        Ok(worker)
    }

    /// Directories of the partitions.
    pub(super) fn names(&self) -> HashSet<String> {
        self.partitions.values().filter_map(|partition| name(partition.path.as_deref()?)).collect()
    }

    pub(super) fn run(mut self) {
        let shared = Arc::clone(&self.shared);
        let _stopped = Stopped(Arc::clone(&shared));
        let mut pace = PACE;
        loop {
            let idle = self.uncommitted_since.map(|_| IDLE);
            shared.queue.wait_while_flooded(PACE, FLOOD_MAX);
            let batch = shared.queue.take(pace, idle);
            let outcome = self.work(&batch);
            if let Err(Failed { partition, error }) = &outcome {
                tracing::warn!(partition, %error, "search index cannot be written");
                self.distrust(*partition);
            }
            self.publish();
            shared.queue.done(&batch, outcome.is_ok());
            if batch.stop {
                break;
            }
            pace = if outcome.is_ok() { PACE } else { RETRY };
        }
        for (id, partition) in &mut self.partitions {
            if let Err(error) = partition.close_writer() {
                tracing::warn!(partition = id, %error, "search index was not closed in order");
            }
        }
    }

    fn work(&mut self, batch: &Batch) -> Result<(), Failed> {
        let mut behind = batch.behind;
        for id in &batch.damaged {
            behind |= self.partitions.contains_key(id);
        }
        self.drop_partitions(&batch.damaged);
        let purged = batch.deleted.iter().try_for_each(|stream| self.delete_stream(*stream));
        self.shared.queue.purge_done(&batch.deleted, purged.is_ok());
        purged?;
        if behind {
            self.consider_everything()?;
        } else {
            // Those of a stream together: see `Partition::held`.
            let mut changes = batch.changes.clone();
            changes.sort_by_key(|change| change.stream());
            changes.into_iter().try_for_each(|change| self.consider_change(change))?;
        }
        self.partitions.values_mut().for_each(Partition::forget_stream);
        self.purge |= batch.purge;
        if !self.fresh.is_empty() || self.purge {
            self.uncommitted_since.get_or_insert(self.clock.monotonic());
        }
        if self.is_commit_due(batch) {
            return self.commit();
        }
        self.make_chunk().map_err(|error| Failed { partition: PartitionId::MIN, error })
    }

    fn is_commit_due(&self, batch: &Batch) -> bool {
        let Some(since) = self.uncommitted_since else { return false };
        batch.commit
            || batch.stop
            || self.fresh.len() > CHUNK_DOCUMENTS_MAX
            || self.fresh.len() + self.tail.len() >= self.commit_documents
            || self.clock.monotonic().saturating_sub(since) >= self.commit_interval
    }

    fn consider_change(&mut self, change: Change) -> Result<(), Failed> {
        match change {
            Change::Subject(subject) => self.consider(subject),
            Change::Run(stream, run) => self.consider_run(stream, run),
            Change::Stream(stream) => {
                // Of a stream only the attributes are in its documents.
                let attributes = stream_attributes(&self.shared.catalog, stream);
                if attributes.is_some() && self.streams.get(&stream).copied() != attributes {
                    self.consider_stream(stream)?;
                }
                Ok(())
            }
        }
    }

    fn consider_everything(&mut self) -> Result<(), Failed> {
        self.shared.progress.begin(self.shared.timeline.entry_count());
        for stream in self.shared.catalog.known() {
            self.consider_stream(stream)?;
        }
        self.shared.progress.begin(0);
        Ok(())
    }

    fn consider_stream(&mut self, stream: StreamId) -> Result<(), Failed> {
        let shared = Arc::clone(&self.shared);
        if let Some(attributes) = stream_attributes(&shared.catalog, stream) {
            self.streams.insert(stream, attributes);
        }
        for run in shared.catalog.run_ids(stream) {
            self.consider(Subject::Run(stream, run))?;
        }
        for number in shared.catalog.gap_numbers(stream) {
            self.consider(Subject::Gap(stream, number))?;
        }
        let mut last = FragmentNumber::MIN;
        loop {
            if shared.queue.is_stopping() {
                // What is missing is made after the next start.
                return Ok(());
            }
            let page = shared.timeline.after(stream, last, 1000);
            let Some(entry) = page.last() else { return Ok(()) };
            last = entry.meta.number;
            for entry in &page {
                self.consider(Subject::Fragment(stream, entry.meta.number))?;
            }
            shared.progress.done.fetch_add(page.len() as u64, Ordering::Relaxed);
        }
    }

    fn consider_run(&mut self, stream: StreamId, run: RunId) -> Result<(), Failed> {
        self.consider(Subject::Run(stream, run))?;
        for number in self.shared.timeline.run_entries(stream, run) {
            self.consider(Subject::Fragment(stream, number))?;
        }
        Ok(())
    }

    /// Takes it up if the index does not say the same of it.
    fn consider(&mut self, subject: Subject) -> Result<(), Failed> {
        let Some(standing) = subject.standing(&self.shared.catalog, &self.shared.timeline) else {
            self.hide_forgotten(subject);
            return Ok(());
        };
        let held = match self.tail.get(&standing.id) {
            Some(tailed) => Some(tailed.attributes),
            None => self.held(self.partition_of(&standing), subject)?,
        };
        let knows_more = |held: u64| is_complete(held) && !is_complete(standing.attributes);
        if held.is_some_and(|held| held == standing.attributes || knows_more(held)) {
            self.fresh.remove(&standing.id);
            return Ok(());
        }
        self.fresh.insert(standing.id, (subject, standing));
        if self.fresh.len() >= self.commit_documents.max(CHUNK_DOCUMENTS_MAX) {
            self.commit()?;
            self.publish();
        }
        Ok(())
    }

    /// Attributes of its document in a partition. A stream is looked at in the order of time: who goes on to another
    /// partition does not come back soon.
    fn held(&mut self, id: PartitionId, subject: Subject) -> Result<Option<u64>, Failed> {
        if self.asked.last() != Some(&id) {
            self.asked.retain(|asked| *asked != id);
            self.asked.push(id);
            if self.asked.len() > HELD_MAX
                && let Some(left) = self.partitions.get_mut(&self.asked.remove(0))
            {
                left.forget_stream();
            }
        }
        let held = self.partitions.get_mut(&id).map_or(Ok(None), |partition| partition.held(subject));
        held.map_err(|error| Failed { partition: id, error })
    }

    /// A run of which nothing is left: its document may have been made while it went on.
    fn hide_forgotten(&mut self, subject: Subject) {
        if let Subject::Run(stream, run) = subject
            && self.shared.catalog.stream(stream).is_some()
            && self.shared.catalog.run_state(stream, run).is_none()
        {
            let hidden = Tailed { chunk: NO_CHUNK, attributes: 0, subject };
            self.fresh.remove(&subject.id());
            self.tail.insert(subject.id(), hidden);
            self.purge = true;
        }
    }

    fn partition_of(&self, standing: &Standing) -> PartitionId {
        standing.server_time.0.div_euclid(self.partition_ms)
    }

    fn document(&self, subject: Subject) -> Option<(Standing, TantivyDocument)> {
        let shared = &self.shared;
        let standing = subject.standing(&shared.catalog, &shared.timeline)?;
        let hit = subject.hit(&shared.catalog, &shared.timeline)?;
        let document = document(&shared.fields, subject, &standing, &hit);
        Some((standing, document))
    }

    /// Makes what is fresh searchable.
    fn make_chunk(&mut self) -> tantivy::Result<()> {
        if self.fresh.is_empty() {
            return Ok(());
        }
        let subjects = std::mem::take(&mut self.fresh).into_values().map(|(subject, _)| subject);
        let documents = subjects.filter_map(|subject| Some((subject, self.document(subject)?)));
        let documents: Vec<_> = documents.collect();
        if documents.is_empty() {
            return Ok(());
        }
        let builder = Index::builder().schema(self.shared.fields.schema.clone()).settings(settings());
        let mut writer = builder.single_segment_index_writer(RamDirectory::create(), CHUNK_BYTES)?;
        let chunk = self.next_chunk;
        self.next_chunk = (self.next_chunk + 1) % NO_CHUNK;
        for (subject, (standing, document)) in documents {
            writer.add_document(document)?;
            self.tail.insert(standing.id, Tailed { chunk, attributes: standing.attributes, subject });
        }
        let reader: IndexReader = writer.finalize()?.reader_builder().reload_policy(ReloadPolicy::Manual).try_into()?;
        self.chunks.push((chunk, reader.searcher()));
        Ok(())
    }

    /// Moves the tail into partitions.
    fn commit(&mut self) -> Result<(), Failed> {
        let mut homes: BTreeMap<PartitionId, Vec<(Subject, Standing)>> = BTreeMap::new();
        let tailed = self.tail.values().map(|tailed| tailed.subject);
        let fresh = self.fresh.values().map(|(subject, _)| *subject);
        let all: HashSet<Subject> = tailed.chain(fresh).collect();
        for subject in all {
            let Some(standing) = subject.standing(&self.shared.catalog, &self.shared.timeline) else {
                self.delete_elsewhere(subject, None)?;
                continue;
            };
            let partition = self.partition_of(&standing);
            homes.entry(partition).or_default().push((subject, standing));
            if matches!(subject, Subject::Run(..)) {
                self.delete_elsewhere(subject, Some(partition))?;
            }
        }
        for (id, subjects) in homes {
            self.fill(id, subjects).map_err(|error| Failed { partition: id, error })?;
        }
        self.tail.clear();
        self.fresh.clear();
        self.chunks.clear();
        self.uncommitted_since = None;
        self.suspect = None;
        if std::mem::take(&mut self.purge) {
            self.drop_dead()?;
        }
        self.close_old_writers()
    }

    fn fill(&mut self, id: PartitionId, mut subjects: Vec<(Subject, Standing)>) -> tantivy::Result<()> {
        // Neighbours in the timeline one after the other: they stand in the same blocks of it.
        subjects.sort_unstable_by_key(|(subject, standing)| (subject.stream(), standing.id));
        if !self.partitions.contains_key(&id) {
            self.partitions.insert(id, self.home.make(id, &self.shared.fields)?);
        }
        let Some(partition) = self.partitions.get_mut(&id) else { return Ok(()) };
        let Shared { catalog, timeline, fields, .. } = &*self.shared;
        for (subject, standing) in subjects {
            // What is gone by now is not shown, and is removed with the rest that is.
            if let Some(hit) = subject.hit(catalog, timeline) {
                partition.add(subject, document(fields, subject, &standing, &hit))?;
            }
        }
        partition.commit()
    }

    /// The beginning of a run was corrected and its document moves; or its subject is gone.
    fn delete_elsewhere(&mut self, subject: Subject, home: Option<PartitionId>) -> Result<(), Failed> {
        for (id, partition) in self.partitions.iter_mut().filter(|(id, _)| Some(**id) != home) {
            let failed = |error| Failed { partition: *id, error };
            if partition.holds(subject).map_err(failed)? {
                partition.delete(subject.id()).and_then(|()| partition.commit()).map_err(failed)?;
            }
        }
        Ok(())
    }

    fn close_old_writers(&mut self) -> Result<(), Failed> {
        for (id, partition) in self.partitions.iter_mut().rev().skip(WRITERS_MAX) {
            partition.close_writer().map_err(|error| Failed { partition: *id, error })?;
        }
        Ok(())
    }

    /// Drops partitions of which nothing is left, and thins those of which much is gone.
    fn drop_dead(&mut self) -> Result<(), Failed> {
        let streams = self.shared.known.streams();
        let mut empty = Vec::new();
        for (id, partition) in &mut self.partitions {
            let failed = |error| Failed { partition: *id, error };
            let dead = Dead { streams: Arc::clone(&streams) };
            let dead = partition.searcher().search(&AllQuery, &dead).map_err(failed)?;
            let (gone, all) = (dead.len() as u64, partition.len());
            if gone >= all {
                empty.push(*id);
            } else if gone * 10 >= all {
                for document in &dead {
                    partition.delete(*document).map_err(failed)?;
                }
                partition.commit().map_err(failed)?;
            }
        }
        self.drop_partitions(&empty);
        Ok(())
    }

    fn delete_stream(&mut self, stream: StreamId) -> Result<(), Failed> {
        self.streams.remove(&stream);
        self.tail.retain(|_, tailed| tailed.subject.stream() != stream);
        let mut empty = Vec::new();
        for (id, partition) in &mut self.partitions {
            let failed = |error| Failed { partition: *id, error };
            if !partition.has_stream(stream).map_err(failed)? {
                continue;
            }
            partition.purge(stream).map_err(failed)?;
            if partition.len() == 0 {
                empty.push(*id);
            }
        }
        self.drop_partitions(&empty);
        // The files that are not needed any more go once no view holds them.
        for (id, partition) in &mut self.partitions {
            partition.collect_garbage().map_err(|error| Failed { partition: *id, error })?;
        }
        self.close_old_writers()
    }

    fn drop_partitions(&mut self, ids: &[PartitionId]) {
        let dropped: Vec<_> = ids.iter().filter_map(|id| self.partitions.remove(id)).collect();
        // First nobody finds them, then their files go.
        self.publish();
        for path in dropped.iter().filter_map(|partition| partition.path.as_deref()) {
            remove(path);
        }
    }

    /// After a failure: what was committed before may still be good. Failing again it is removed, and made again.
    fn distrust(&mut self, id: PartitionId) {
        if self.suspect.replace(id) == Some(id) {
            self.suspect = None;
            self.drop_partitions(&[id]);
            return;
        }
        let path = self.partitions.remove(&id).and_then(|partition| partition.path.clone());
        if let Some(path) = path {
            match self.home.open(path.clone(), &self.shared.fields) {
                Ok(partition) => drop(self.partitions.insert(id, partition)),
                Err(_) => remove(&path),
            }
        }
    }

    fn publish(&self) {
        let partitions = self
            .partitions
            .iter()
            .map(|(id, partition)| Source { searcher: partition.searcher(), of: Part::Partition(*id) });
        let chunks =
            self.chunks.iter().map(|(chunk, searcher)| Source { searcher: searcher.clone(), of: Part::Chunk(*chunk) });
        let sources = partitions.chain(chunks).collect();
        let tail = self.tail.iter().map(|(id, tailed)| (*id, tailed.chunk)).collect();
        *write(&self.shared.view) = Arc::new(View { sources, tail: Arc::new(tail) });
    }
}

#[cfg(test)]
#[path = "worker_tests.rs"]
mod tests;

/// A partition could not be read or written.
struct Failed {
    partition: PartitionId,
    error: tantivy::TantivyError,
}
