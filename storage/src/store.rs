//! The store: what the rest of the server sees.

use std::collections::HashSet;
use std::io;
use std::ops::Range;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{self, Receiver};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::{Semaphore, oneshot};
use vidar_core::clock::SharedClock;
use vidar_core::control::Control;
use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, StreamId};
use vidar_core::limits::PART_BYTES;
use vidar_core::log::LogObserver;
use vidar_core::record::NewFragment;
use vidar_core::sink::{Durable, SinkError};
use vidar_core::source::{FragmentHead, FragmentSource, ReadError};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;

use crate::ahead;
use crate::backend::metered::{Meter, Metered};
use crate::backend::{SegmentIo, WriteMode};
use crate::checkpoint::Checkpoint;
use crate::closing::closing_records;
use crate::commit::Committer;
use crate::crypto::keychain::Keychain;
use crate::crypto::keyring::Keyring;
use crate::crypto::keys::{Secret, config_id};
use crate::epoch;
use crate::files::{FileInfo, Files};
use crate::inbox::Inbox;
use crate::item::{Body, Fragment, Message};
use crate::load::{Log, Mode, greatest_epoch};
use crate::options::{Damage, Expired, OpenError, OpenReport, Space, StoreOptions, StoreStats};
use crate::read::{self, ReadCaches};
use crate::retire::{find_dead, needed_controls, punch_all, remove_files};
use crate::shared::Shared;
use crate::verify::{Depth, Progress, verify_running};

/// Records that are opened at the same time: more wait.
const READ_COUNT_MAX: usize = 32;
/// Bytes that a control record takes in the inbox, about.
const CONTROL_LEN: usize = 1024;
/// Between two lines of a long start.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

/// The encrypted, durable log of all streams. Clones are the same store.
///
/// All of its futures run inside a tokio runtime; what blocks does so on threads of its own.
#[derive(Clone)]
pub struct Store {
    inner: Arc<Inner>,
}

struct Inner {
    shared: Arc<Shared>,
    caches: ReadCaches,
    inbox: Arc<Inbox>,
    /// The writer of a store that is driven [by hand](StoreOptions::by_hand); else it runs on a thread of its own.
    by_hand: Mutex<Option<(Committer, Receiver<Message>)>>,
    reads: Semaphore,
    /// Who writes the keys of new streams.
    making_keys: tokio::sync::Mutex<()>,
    /// One removal of files at a time.
    removing: tokio::sync::Mutex<()>,
}

impl Store {
    /// Opens a data directory: makes it where it is missing, recovers it where it was not closed, and tells the
    /// observers all that is in it. Blocks.
    ///
    /// # Errors
    /// If the directory is in use, its keys are not at hand, or the disk fails. Damage is no error: it is reported.
    pub fn open(
        options: StoreOptions,
        io: Arc<dyn SegmentIo>,
        clock: SharedClock,
        observers: Vec<Arc<dyn LogObserver>>,
    ) -> Result<(Self, OpenReport), OpenError> {
        Self::open_with(options, io, clock, |_| Ok(observers))
    }

    /// As `open`, with observers that need the [index key](Self::index_key).
    ///
    /// # Errors
    /// As `open`, and what `observers` answers.
    pub fn open_with<E: From<OpenError>>(
        options: StoreOptions,
        io: Arc<dyn SegmentIo>,
        clock: SharedClock,
        observers: impl FnOnce(&Secret) -> Result<Vec<Arc<dyn LogObserver>>, E>,
    ) -> Result<(Self, OpenReport), E> {
        let disk = Meter::new(Arc::clone(&clock));
        let io: Arc<dyn SegmentIo> = Arc::new(Metered::new(io, Arc::clone(&disk)));
        let lock = io.lock().map_err(|error| match error.kind() {
            io::ErrorKind::WouldBlock => OpenError::Locked { data_dir: options.data_dir.clone() },
            _ => OpenError::Io { what: format!("lock {}", options.data_dir.display()), source: error },
        })?;
        let (keys, keyring_repaired) = Keychain::open(Arc::clone(&io), &options)?;
        let names = io.list().map_err(OpenError::io("list segment files"))?;
        let epoch = epoch::take(&*io, greatest_epoch(&names)).map_err(OpenError::io("take an epoch"))?;
        let files = Files::new(Arc::clone(&io));
        let ring = keys.ring();
        let observers = observers(ring.index_key())?;
        let mut progress = log_progress(Arc::clone(&clock));
        let threads = ahead::threads(options.by_hand);
        let mut log = read_log(&*io, names, &ring, &files, &observers, threads, &mut progress)?;
        let records = log.replay(&ring, &files, &observers, Some(&*io), &mut progress);
        let Log { controls, archive, open, mut report, .. } = log;
        report.epoch = epoch;
        report.keyring_repaired = keyring_repaired;
        report.incomplete = open.len() as u64;

        let (head_bytes, inbox_bytes) = (options.head_cache_bytes, options.inbox_bytes);
        let shared = Shared::new(options, io, disk, clock, archive, keys, files, controls, observers, epoch, records);
        let shared = Arc::new(shared);
        let closing = closing_records(&shared, &open, &mut report);
        let committer = Committer::new(Arc::clone(&shared), open, lock);
        let (inbox, messages) = mpsc::channel();
        let by_hand = if shared.options.by_hand {
            Some((committer, messages))
        } else {
            std::thread::Builder::new()
                .name("vidar-commit".into())
                .spawn(move || committer.run(&messages))
                .map_err(OpenError::io("start the commit thread"))?;
            None
        };
        let store = Self {
            inner: Arc::new(Inner {
                shared,
                caches: ReadCaches::new(head_bytes),
                inbox: Arc::new(Inbox::new(inbox, inbox_bytes)),
                by_hand: Mutex::new(by_hand),
                reads: Semaphore::new(READ_COUNT_MAX),
                making_keys: tokio::sync::Mutex::default(),
                removing: tokio::sync::Mutex::default(),
            }),
        };
        store.finish_recovery(closing).map_err(OpenError::io("finish what a crash interrupted"))?;
        Ok((store, report))
    }

    /// Closes what was open, destroys keys of deleted streams, removes files that nothing is left of.
    fn finish_recovery(&self, closing: Vec<NewFragment>) -> io::Result<()> {
        let shared = self.shared();
        let failed = |error: SinkError| io::Error::other(error.to_string());
        for fragment in closing {
            let number = fragment.meta.number;
            if let Err(error) = self.append_blocking(Body::Fragment(Box::new(Fragment::new(fragment)))) {
                // A full disk must not keep the server from starting: the parts stay for the next start.
                tracing::error!(%number, %error, "cannot close a fragment that a crash left open");
            }
        }
        let (deleted, ring) = (shared.controls().deleted(), shared.keys.ring());
        let with_keys: Vec<_> = ring.streams().filter(|stream| deleted.contains(stream)).collect();
        if !with_keys.is_empty() {
            let prepared = shared.keys.prepare_destroy().map_err(io::Error::other)?;
            shared.keys.destroy(&with_keys, prepared).map_err(failed)?;
        }
        let mut dead = find_dead(shared, |info| info.witness.is_some());
        dead.retain(|file| match self.carry_on_blocking(*file) {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(%file, %error, "cannot remove a segment file that nothing is left of");
                false
            }
        });
        remove_files(shared, &dead);
        Ok(())
    }

    pub(crate) fn shared(&self) -> &Arc<Shared> {
        &self.inner.shared
    }

    /// A number that was never given before and is greater than all before it. `server` is the server's time.
    #[must_use]
    pub fn next_number(&self, server: UnixMs) -> FragmentNumber {
        self.shared().next_number(server)
    }

    /// Makes the key of a new stream. Resolves when the keyring is durable. A stream that has a key keeps it.
    ///
    /// # Errors
    /// If the keyring cannot be written.
    pub async fn create_stream_key(&self, stream: StreamId) -> Result<(), SinkError> {
        if self.shared().controls().is_deleted(stream) {
            return Err(SinkError::NoSuchStream { stream });
        }
        self.shared().keys.want(stream);
        // One writes for all that came meanwhile, and the others wait on no thread.
        let _one_by_one = self.inner.making_keys.lock().await;
        if self.shared().keys.ring().current(stream).is_some() {
            return Ok(());
        }
        let shared = Arc::clone(self.shared());
        self.blocking(move || shared.keys.create_stream(stream)).await?
    }

    /// Makes sure that a config can be referred to by records that are appended later.
    ///
    /// # Errors
    /// If the stream has no key.
    pub async fn put_config(&self, stream: StreamId, config: &StreamConfig) -> Result<ConfigId, SinkError> {
        let plain = config.encode();
        let shared = self.shared();
        let ring = shared.keys.ring();
        let key = ring.first_of_stream(stream).ok_or(SinkError::NoSuchStream { stream })?;
        let id = config_id(key, stream, &plain);
        let weight = plain.len();
        shared.configs.insert((stream, id), plain, weight);
        Ok(id)
    }

    /// Appends a fragment, or a part of one. Resolves when it is synced, and a fragment is known to all observers.
    ///
    /// Waits while the inbox is full. Records whose futures are first polled in some order are written in that order.
    ///
    /// # Cancel safety
    /// Dropping the future before it first waits for the disk appends nothing; later it does not take the record back.
    ///
    /// # Errors
    /// If it is not durable, and will not become so.
    pub async fn append(&self, fragment: NewFragment) -> Result<Durable, SinkError> {
        if self.space() == Space::Refuse && !closes_parts(&fragment) {
            return Err(SinkError::Full);
        }
        let meta = fragment.meta;
        let durable = Durable {
            number: meta.number,
            producer_start: meta.producer_start,
            duration_ms: meta.duration_ms,
            size_bytes: fragment.facts.size_bytes(),
        };
        let fragment = Fragment::new(fragment);
        let len = fragment.len();
        self.enqueue(Body::Fragment(Box::new(fragment)), len).await?;
        Ok(durable)
    }

    /// Appends a control record. Resolves when it is synced and known to all observers. A deletion of a stream also
    /// destroys its keys.
    ///
    /// # Errors
    /// As `append`.
    pub async fn control(&self, control: Control) -> Result<(), SinkError> {
        if let Control::StreamDeleted { stream, at } = control {
            return self.delete_stream(stream, at, Vec::new()).await;
        }
        self.append_control(Body::Control(control)).await
    }

    async fn append_control(&self, body: Body) -> Result<(), SinkError> {
        self.enqueue(body, CONTROL_LEN).await
    }

    /// Waits for room, and then for the disk.
    async fn enqueue(&self, body: Body, len: usize) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        let _place = self.inner.inbox.hand_in(body, len, reply);
        answer.await.map_err(|_| SinkError::Closed)?
    }

    fn append_blocking(&self, body: Body) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        self.inner.inbox.force_in(body, reply)?;
        while self.turn() {}
        // On a thread of its own: `open` may be called inside a runtime, where waiting would panic.
        let answer = std::thread::scope(|scope| scope.spawn(|| answer.blocking_recv()).join());
        answer.ok().and_then(Result::ok).ok_or(SinkError::Closed)?
    }

    /// Commits one batch of what waits. False if nothing waits, or the store is not driven
    /// [by hand](StoreOptions::by_hand).
    pub fn turn(&self) -> bool {
        let mut by_hand = self.inner.by_hand.lock().unwrap_or_else(PoisonError::into_inner);
        let Some((committer, messages)) = by_hand.as_mut() else { return false };
        let Ok(message) = messages.try_recv() else {
            committer.rest();
            return false;
        };
        if let Some(closing) = committer.turn(message, messages)
            && let Some((committer, _)) = by_hand.take()
        {
            committer.end(Some(closing));
        }
        true
    }

    /// Lets all fragments of a stream below a number go: durably first, then their blocks and files. `entries` are
    /// those fragments; `next_ordinal` and `discontinuity` are where the stream goes on.
    ///
    /// # Errors
    /// If the floor is not durable. What cannot be freed is freed later, and logged.
    pub async fn expire(
        &self,
        stream: StreamId,
        below: FragmentNumber,
        next_ordinal: u64,
        discontinuity: u32,
        entries: Vec<SharedEntry>,
    ) -> Result<Expired, SinkError> {
        self.control(Control::Floor { stream, below, next_ordinal, discontinuity }).await?;
        Ok(self.free(entries).await)
    }

    /// Deletes a stream: durably, then its keys, then its blocks and files. `entries` are its fragments. When this
    /// resolves nothing in the data directory opens its records.
    ///
    /// # Errors
    /// `NoKey` if the key provider does not answer: the stream is as before. Else if the deletion is not durable, or the
    /// keys could not be destroyed: the next start does.
    pub async fn delete_stream(
        &self,
        stream: StreamId,
        at: UnixMs,
        entries: Vec<SharedEntry>,
    ) -> Result<(), SinkError> {
        // What needs the key provider comes first: where it does not answer, nothing has happened.
        let shared = Arc::clone(self.shared());
        let prepared = self.blocking(move || shared.keys.prepare_destroy()).await?;
        let prepared = prepared.map_err(|error| SinkError::NoKey { stream, detail: error.to_string() })?;
        self.append_control(Body::Control(Control::StreamDeleted { stream, at })).await?;
        let shared = Arc::clone(self.shared());
        self.blocking(move || shared.keys.destroy(&[stream], prepared)).await??;
        self.inner.caches.forget(stream);
        self.shared().configs.retain(|(of, _)| *of != stream);
        self.free(entries).await;
        Ok(())
    }

    /// Frees blocks of records that are gone, and removes files that nothing is left of. Entries that no floor and no
    /// deletion let go are passed over. What cannot be freed is freed later, and logged.
    pub async fn free(&self, entries: Vec<SharedEntry>) -> Expired {
        let mut expired = Expired::default();
        let shared = Arc::clone(self.shared());
        let work = move || {
            // What stands in a file whose footer is on its way is freed by us or, later, by who closes it.
            shared.closings.wait();
            let mut touched: HashSet<FileId> = std::mem::take(&mut *shared.closed());
            let records = entries.iter().flat_map(|entry| entry.parts.iter().chain([&entry.record]));
            touched.extend(records.map(|record| record.file));
            let among = |info: &FileInfo| touched.contains(&info.header.file) || info.witness.is_none();
            let dead = find_dead(&shared, among);
            (punch_all(&shared, &entries, &dead), dead)
        };
        let Ok((punched_bytes, dead)) = self.blocking(work).await else { return expired };
        expired.punched_bytes = punched_bytes;
        let _removing = self.inner.removing.lock().await;
        let mut ready = Vec::new();
        for file in dead {
            match self.carry_on(file).await {
                Ok(()) => ready.push(file),
                Err(error) => {
                    tracing::warn!(%file, %error, "cannot remove a segment file that nothing is left of");
                    self.shared().closed().insert(file);
                }
            }
        }
        let shared = Arc::clone(self.shared());
        let removed = self.blocking(move || remove_files(&shared, &ready)).await;
        expired.files = removed.unwrap_or(0);
        expired
    }

    /// Repeats the control records of a file that still matter, before it is removed.
    async fn carry_on(&self, file: FileId) -> Result<(), SinkError> {
        let shared = Arc::clone(self.shared());
        let copies = self.blocking(move || needed_controls(&shared, file)).await??;
        for copy in copies {
            self.append_control(Body::Copy(copy)).await?;
        }
        Ok(())
    }

    fn carry_on_blocking(&self, file: FileId) -> Result<(), SinkError> {
        for copy in needed_controls(self.shared(), file)? {
            self.append_blocking(Body::Copy(copy))?;
        }
        Ok(())
    }

    /// The clock that retention runs on: it never goes back, and stands still while the server does not run.
    #[must_use]
    pub fn archive_now(&self) -> UnixMs {
        self.shared().archive.now()
    }

    /// A key for what the index keeps on disk. It stays the same for the life of the store.
    #[must_use]
    pub fn index_key(&self) -> Secret {
        self.shared().keys.ring().index_key().clone()
    }

    /// Checks the closed files beside everything else that goes on. Blocks, for as long as `pace` lets it: that hears
    /// of progress after each read, and may wait, or end the check with an error. `found` hears of damage.
    ///
    /// # Errors
    /// What `pace` answered, and nothing else.
    pub fn verify(
        &self,
        depth: Depth,
        pace: &mut dyn FnMut(Progress) -> io::Result<()>,
        found: &mut dyn FnMut(Damage),
    ) -> io::Result<Progress> {
        verify_running(self.shared(), depth, pace, found)
    }

    /// Room on the disk, against the marks.
    #[must_use]
    pub fn space(&self) -> Space {
        self.shared().space()
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> StoreStats {
        let shared = self.shared();
        let counters = &shared.counters;
        StoreStats {
            records: counters.records.load(Ordering::Relaxed),
            bytes: counters.disk.bytes.load(Ordering::Relaxed),
            batch_bytes: counters.batch_bytes.read(),
            batch_times_us: counters.batch_times.read(),
            write_times_us: counters.disk.writes.read(),
            sync_times_us: counters.disk.syncs.read(),
            failures: counters.failures.load(Ordering::Relaxed),
            damage: counters.damage.load(Ordering::Relaxed),
            files: shared.files.count() as u64,
            free_bytes: shared.io.space().map_or(0, |space| space.free_bytes),
            direct_writes: shared.io.write_mode() == WriteMode::Direct,
        }
    }

    /// Writes what waits, closes the open file and gives the data directory free. Reads go on; a second call does nothing.
    ///
    /// # Errors
    /// If the file could not be closed; everything that was answered is durable all the same.
    pub async fn close(&self) -> Result<(), SinkError> {
        let (reply, answer) = oneshot::channel();
        if !self.inner.inbox.close(reply) {
            return Ok(());
        }
        answer.await.map_err(|_| SinkError::Closed)?
    }

    /// Runs `work` where it may block.
    pub(crate) async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, SinkError> {
        if self.shared().options.by_hand {
            return Ok(work());
        }
        let done = tokio::task::spawn_blocking(work).await;
        done.map_err(|error| SinkError::Failed { detail: format!("a task of the store failed: {error}") })
    }

    /// Runs `work` off the runtime's threads, a bounded number at a time.
    async fn reading<T: Send + 'static>(
        &self,
        number: FragmentNumber,
        work: impl FnOnce(&Inner) -> Result<T, ReadError> + Send + 'static,
    ) -> Result<T, ReadError> {
        // Neither is ever closed.
        let _permit = self.inner.reads.acquire().await.map_err(|_| ReadError::NotFound { number })?;
        let inner = Arc::clone(&self.inner);
        self.blocking(move || work(&inner)).await.map_err(|error| ReadError::Io {
            file: String::new(),
            offset_bytes: 0,
            detail: error.to_string(),
        })?
    }
}

#[async_trait]
impl FragmentSource for Store {
    async fn head(&self, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError> {
        let (stream, number) = (entry.meta.stream, entry.meta.number);
        if let Some(head) = self.inner.caches.head(entry)
            && !self.shared().controls().is_gone(stream, number)
        {
            return Ok(head);
        }
        let entry = entry.clone();
        self.reading(number, move |inner| read::head(&inner.shared, &inner.caches, &entry)).await
    }

    async fn media(&self, entry: &FragmentEntry, part: Option<u16>, range: Range<u64>) -> Result<Bytes, ReadError> {
        if let Some(media) = read::cached_media(self.shared(), &self.inner.caches, entry, part, range.clone()) {
            return Ok(media);
        }
        let entry = entry.clone();
        let number = entry.meta.number;
        self.reading(number, move |inner| read::media(&inner.shared, &inner.caches, &entry, part, range)).await
    }

    async fn config(&self, entry: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError> {
        let (stream, number) = (entry.meta.stream, entry.meta.number);
        if let Some(config) = self.inner.caches.config(&(stream, entry.meta.config))
            && !self.shared().controls().is_gone(stream, number)
        {
            return Ok(config);
        }
        let entry = entry.clone();
        self.reading(number, move |inner| read::config(&inner.shared, &inner.caches, &entry)).await
    }

    fn is_damaged(&self, entry: &FragmentEntry) -> bool {
        let (damaged, key) = (&self.shared().damaged, (entry.meta.stream, entry.meta.config));
        // Another file's copy of the config may be at hand.
        let no_config = || damaged.has_config(key, entry.record.file) && self.inner.caches.config(&key).is_none();
        damaged.has(entry.meta.stream, entry.meta.number) || no_config()
    }
}

/// From the last checkpoint on, if it can be trusted; else all of the log. `names` are those of its files.
fn read_log(
    io: &dyn SegmentIo,
    names: Vec<String>,
    keys: &Keyring,
    files: &Files,
    observers: &[Arc<dyn LogObserver>],
    threads: usize,
    progress: &mut dyn FnMut(Progress),
) -> Result<Log, OpenError> {
    let mut found = OpenReport::default();
    if let Some(checkpoint) = Checkpoint::read(io, keys) {
        match Log::resume(io, names, keys, files, checkpoint, observers, threads)? {
            Ok(log) => return Ok(log),
            Err(report) => found = report,
        }
        Checkpoint::discard(io).map_err(OpenError::io("put a checkpoint away"))?;
        files.clear();
    }
    let mut log = Log::read(io, keys, Mode::Recover, files, threads, progress)?;
    log.found_before(found);
    Ok(log)
}

/// Says now and then how far a long start is.
fn log_progress(clock: SharedClock) -> impl FnMut(Progress) {
    let mut said = clock.monotonic();
    move |Progress { files, files_total, .. }| {
        let now = clock.monotonic();
        if now.saturating_sub(said) >= PROGRESS_INTERVAL {
            said = now;
            tracing::info!(percent = files * 100 / files_total.max(1), "reading the log");
        }
    }
}

/// The close of a fragment whose parts are stored, with little left to store: without it they would be lost.
fn closes_parts(fragment: &NewFragment) -> bool {
    let has_parts = fragment.table.pieces.iter().any(|piece| piece.part.is_some());
    fragment.part.is_none() && has_parts && fragment.media_len() <= PART_BYTES
}

#[cfg(test)]
#[path = "store_tests.rs"]
mod tests;

#[cfg(test)]
#[path = "start_tests.rs"]
mod start_tests;

#[cfg(test)]
#[path = "class_tests.rs"]
mod class_tests;

#[cfg(test)]
#[path = "crash_tests.rs"]
mod crash_tests;

#[cfg(test)]
#[path = "damage_tests.rs"]
mod damage_tests;

#[cfg(test)]
#[path = "model_tests.rs"]
mod model_tests;
