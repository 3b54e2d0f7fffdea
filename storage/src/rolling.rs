//! The file that takes batches, and how one follows another without holding up the log.
//!
//! What a full file still needs (footer, syncs, holes) and the making of the next one (a *spare*: header and name synced,
//! no batch) are done on a thread of their own. A spare is asked for when the open file is half full.
//!
//! # Invariants
//! 1. Files are used in the order of the sequence in their headers.
//! 2. A file that follows a condemned one says so in its header: a spare, whose header is older, is then thrown away.
//! 3. A crash finds older files without footer, and at most one spare: the next start closes those and removes this.

use std::collections::HashSet;
use std::io;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use vidar_core::ids::FileId;
use vidar_core::sink::SinkError;
use vidar_core::source::ConfigKey;
use vidar_core::time::UnixMs;

use crate::backend::blocks::Blocks;
use crate::checkpoint::keeper::{self, Mark};
use crate::crypto::keychain::{is_full, sink_error};
use crate::files::witness;
use crate::load::OpenFragments;
use crate::options::Space;
use crate::punch;
use crate::segment_file::header::FileHeader;
use crate::segment_file::record::RecordKind;
use crate::segment_file::writer::Writer;
use crate::shared::{Shared, count};

/// Heads that the footer repeats: a file is closed above this, so that they can be kept in memory.
const COPIES_LEN_MAX: usize = 32 << 20;
/// The share of the reserve that a file made from it takes.
const SMALL_SEGMENT_SHARE: u64 = 4;
/// Files that wait for their footers, each with its heads in memory: then the log waits too.
const JOB_COUNT_MAX: usize = 2;

/// The file that takes batches.
pub(crate) struct Open {
    pub(crate) writer: Writer,
    /// Configs that stand in it.
    pub(crate) configs: HashSet<ConfigKey>,
    pub(crate) holds_media: bool,
    /// Made from the reserve: not for media.
    pub(crate) is_small: bool,
    opened: Duration,
}

/// The open file and its neighbours.
pub(crate) struct Rolling {
    shared: Arc<Shared>,
    pub(crate) open: Option<Open>,
    /// The file before the open one.
    pub(crate) previous: Option<FileId>,
    /// What the log says of the archive clock up to that one.
    archived: UnixMs,
    next_sequence: u32,
    /// A file that failed, until the header of a newer one says so.
    condemned: Option<(FileId, u64)>,
    /// Of batches, while no file is open: memory that was touched is worth keeping.
    buffer: Blocks,
    reserve_held: bool,
    spare_asked: bool,
    spares: Receiver<io::Result<Writer>>,
    helper: Helper,
}

impl Rolling {
    pub(crate) fn new(shared: Arc<Shared>) -> Self {
        let (made, spares) = mpsc::channel();
        let archived = shared.archive.now();
        let worker = Worker { shared: Arc::clone(&shared), made, closed: Ok(()) };
        let mut rolling = Self {
            shared,
            open: None,
            previous: None,
            archived,
            next_sequence: 0,
            condemned: None,
            buffer: Blocks::default(),
            reserve_held: false,
            spare_asked: false,
            spares,
            helper: Helper::start(worker),
        };
        rolling.hold_reserve();
        rolling
    }

    /// The open file; a new one if there is none. `may_be_small`: on a full disk, what the reserve gave back is enough.
    pub(crate) fn ensure_open(&mut self, may_be_small: bool) -> io::Result<&mut Open> {
        if self.open.is_none() {
            let (mut writer, is_small) = match self.spare() {
                Some(spare) => (spare, false),
                None => self.create(may_be_small)?,
            };
            writer.swap_buffer(&mut self.buffer);
            self.shared.files.begin(writer.header);
            self.helper.list(&self.shared);
            let opened = self.shared.clock.monotonic();
            self.open = Some(Open { writer, configs: HashSet::new(), holds_media: false, is_small, opened });
        }
        Ok(self.open.as_mut().expect("just made sure"))
    }

    fn next_header(&mut self) -> FileHeader {
        let shared = &self.shared;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        FileHeader {
            read_only: false,
            file: FileId::new(),
            store: shared.keys.ring().store,
            epoch: shared.epoch().0,
            sequence,
            volume: 0,
            created: shared.clock.now(),
            archive: shared.archive.now(),
            replaces: self.condemned,
        }
    }

    fn create(&mut self, may_be_small: bool) -> io::Result<(Writer, bool)> {
        let header = self.next_header();
        let shared = &self.shared;
        let len = shared.options.segment_bytes;
        let made = match Writer::create(&*shared.io, header, len) {
            Err(error) if is_full(&error) && may_be_small && !self.reserve_held => {
                let small = shared.options.reserve_bytes / SMALL_SEGMENT_SHARE;
                (Writer::create(&*shared.io, header, len.min(small))?, true)
            }
            other => (other?, false),
        };
        self.condemned = None;
        Ok(made)
    }

    /// The spare, if there is one that may be used.
    fn spare(&mut self) -> Option<Writer> {
        let spare = self.take_spare()?;
        if self.condemned.is_none() {
            return Some(spare);
        }
        self.helper.send(Job::Discard(spare));
        None
    }

    fn take_spare(&mut self) -> Option<Writer> {
        if !std::mem::take(&mut self.spare_asked) {
            return None;
        }
        match self.spares.recv().ok()? {
            Ok(spare) => Some(spare),
            Err(error) => {
                tracing::warn!(%error, "cannot make a segment file ahead");
                None
            }
        }
    }

    /// Has the next file made if the open one will soon be full. On a disk that fills up the room is left to others.
    pub(crate) fn look_ahead(&mut self) {
        let half = self.shared.options.segment_bytes / 2;
        let is_near = |open: &Open| !open.is_small && open.writer.durable_through() >= half;
        if !self.spare_asked && self.open.as_ref().is_some_and(is_near) && self.shared.space() == Space::Ok {
            self.spare_asked = true;
            let header = self.next_header();
            self.helper.send(Job::Prepare(header));
        }
    }

    /// The open file is never written again.
    pub(crate) fn condemn(&mut self, error: &io::Error) {
        let Some(mut open) = self.open.take() else { return };
        let (file, end) = (open.writer.header.file, open.writer.durable_through());
        tracing::error!(%file, %error, "a segment file failed: going on in a new one");
        // Should no new file be made before a crash, the tail must not come back either.
        let _ = open.writer.handle.truncate(end).and_then(|()| open.writer.handle.sync_data());
        self.condemned = Some((file, end));
        self.previous = Some(file);
        self.archived = open.writer.archive;
        open.writer.swap_buffer(&mut self.buffer);
    }

    /// Until the open file is old; none while nothing in it can become old.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        let open = self.open.as_ref().filter(|open| open.holds_media)?;
        Some(self.shared.options.segment_age.saturating_sub(self.age(open)))
    }

    fn age(&self, open: &Open) -> Duration {
        self.shared.clock.monotonic().saturating_sub(open.opened)
    }

    /// Lets go of the open file if it is full or old, or `now`. Its footer is written by and by. `fragments`: those that
    /// are open.
    pub(crate) fn roll(&mut self, now: bool, fragments: &OpenFragments) {
        let options = &self.shared.options;
        let is_due = |open: &Open| {
            open.writer.durable_through() >= options.segment_bytes
                || open.writer.copies_len() > COPIES_LEN_MAX
                || (open.holds_media && self.age(open) >= options.segment_age)
        };
        if !self.open.as_ref().is_some_and(|open| now || is_due(open)) {
            return;
        }
        let Some(Open { mut writer, .. }) = self.open.take() else { return };
        self.previous = Some(writer.header.file);
        self.archived = writer.archive;
        writer.swap_buffer(&mut self.buffer);
        if !self.reserve_held && self.shared.space() == Space::Ok {
            self.hold_reserve();
        }
        let shared = &self.shared;
        let mark = shared.checkpoints.is_due(shared.clock.monotonic()).then(|| Mark {
            last: (writer.header.epoch, writer.header.sequence),
            archive: self.archived,
            open: fragments.clone(),
        });
        let pending = Pending::new(shared);
        self.helper.send(Job::Close(Box::new(writer), mark, pending));
    }

    /// What the log says of the archive clock: its time at the last batch. The clock itself may be far ahead of that, and a
    /// start that goes on from a checkpoint has to begin where one begins that reads the log.
    pub(crate) fn archived(&self) -> UnixMs {
        self.open.as_ref().map_or(self.archived, |open| open.writer.archive)
    }

    /// Closes the open file and waits for all footers. Answers how the last one went.
    pub(crate) fn finish(mut self, fragments: &OpenFragments) -> Result<(), SinkError> {
        self.roll(true, fragments);
        if let Some(spare) = self.take_spare() {
            self.helper.send(Job::Discard(spare));
        }
        self.helper.finish()
    }

    fn hold_reserve(&mut self) {
        match self.shared.io.reserve(self.shared.options.reserve_bytes) {
            Ok(()) => self.reserve_held = true,
            Err(error) => tracing::warn!(%error, "cannot set blocks aside for a full disk"),
        }
    }

    /// Blocks that were set aside are there for what is no media.
    pub(crate) fn give_up_reserve(&mut self) {
        if std::mem::take(&mut self.reserve_held) {
            tracing::warn!("the disk is full: using the reserve");
            if let Err(error) = self.shared.io.reserve(0) {
                tracing::error!(%error, "cannot give up the reserve");
            }
        }
    }
}

enum Job {
    /// Write a footer.
    Close(Box<Writer>, Option<Mark>, Pending),
    /// Make a spare.
    Prepare(FileHeader),
    /// Remove one.
    Discard(Writer),
    /// Bring the list of files up to date, as each job does in the end.
    List(Pending),
}

/// Who does the jobs, in order.
enum Helper {
    Thread {
        jobs: SyncSender<Job>,
        thread: JoinHandle<Worker>,
    },
    /// The caller, at once: where no thread can be had, or none is wanted.
    Caller(Worker),
}

impl Helper {
    fn start(worker: Worker) -> Self {
        if worker.shared.options.by_hand {
            return Self::Caller(worker);
        }
        let (jobs, inbox) = mpsc::sync_channel::<Job>(JOB_COUNT_MAX);
        let caller = worker.clone();
        let work = move || {
            let mut worker = worker;
            inbox.iter().for_each(|job| worker.perform(job));
            worker
        };
        match std::thread::Builder::new().name("vidar-files".into()).spawn(work) {
            Ok(thread) => Self::Thread { jobs, thread },
            Err(error) => {
                tracing::warn!(%error, "cannot start the thread for footers: the commit thread writes them");
                Self::Caller(caller)
            }
        }
    }

    fn send(&mut self, job: Job) {
        match self {
            // It ends after us only.
            Self::Thread { jobs, .. } => drop(jobs.send(job)),
            Self::Caller(worker) => worker.perform(job),
        }
    }

    /// Has the list of files brought up to date. The log does not wait for it.
    fn list(&mut self, shared: &Arc<Shared>) {
        let job = Job::List(Pending::new(shared));
        match self {
            // Where the queue is full, others come.
            Self::Thread { jobs, .. } => drop(jobs.try_send(job)),
            Self::Caller(worker) => worker.perform(job),
        }
    }

    fn finish(self) -> Result<(), SinkError> {
        match self {
            Self::Thread { jobs, thread } => {
                drop(jobs);
                let failed = |_| SinkError::Failed { detail: "the thread for footers failed".into() };
                thread.join().map_err(failed)?.closed
            }
            Self::Caller(worker) => worker.closed,
        }
    }
}

#[derive(Clone)]
struct Worker {
    shared: Arc<Shared>,
    made: Sender<io::Result<Writer>>,
    /// How the last close went.
    closed: Result<(), SinkError>,
}

impl Worker {
    fn perform(&mut self, job: Job) {
        let io = &*self.shared.io;
        match job {
            Job::Close(writer, mark, pending) => {
                self.closed = self.close(&writer);
                self.shared.files.note_in_list();
                drop(pending);
                if let Some(mark) = mark.filter(|_| self.closed.is_ok()) {
                    keeper::ask(&self.shared, mark);
                }
            }
            Job::List(pending) => {
                self.shared.files.note_in_list();
                drop(pending);
            }
            Job::Prepare(header) => {
                // Who asked may have failed meanwhile; then the next start removes the file.
                let _ = self.made.send(Writer::create(io, header, self.shared.options.segment_bytes));
            }
            Job::Discard(spare) => {
                let name = spare.name();
                if let Err(error) = io.unlink(&name).and_then(|()| io.sync_dir()) {
                    tracing::warn!(file = name, %error, "cannot remove a segment file that was not used");
                }
            }
        }
    }

    fn close(&self, writer: &Writer) -> Result<(), SinkError> {
        let (shared, file) = (&*self.shared, writer.header.file);
        if let Err(error) = writer.close(shared.keys.ring().log_key()) {
            // Everything in it is synced: the next start reads it batch by batch and closes it.
            count(&shared.counters.failures, 1);
            tracing::error!(%file, %error, "cannot write the footer of a segment file");
            return Err(sink_error("write a footer", &error));
        }
        let witness = witness(writer.entries().iter(), &shared.controls());
        shared.files.set_closed(file, writer.durable_through(), witness);
        shared.closed().insert(file);
        shared.checkpoints.closed();
        punch_expired(shared, writer);
        Ok(())
    }
}

/// What expired while its file was open.
fn punch_expired(shared: &Shared, writer: &Writer) {
    for entry in writer.entries() {
        let meta = &entry.shape.meta;
        let has_media = matches!(entry.shape.kind, RecordKind::Fragment | RecordKind::Part);
        if has_media && shared.controls().is_gone(meta.stream, meta.number) {
            let locator = entry.shape.locator(writer.header.file, writer.header.volume, entry.offset);
            if let Err(error) = punch::punch(&*writer.handle, &locator) {
                tracing::warn!(file = %writer.header.file, %error, "cannot free the blocks of expired media");
                return;
            }
        }
    }
}

/// How many footers are on their way, and notes in the list of files.
#[derive(Default)]
pub(crate) struct Closings {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Closings {
    fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there are none. Blocks.
    pub(crate) fn wait(&self) {
        let count = self.lock();
        drop(self.ended.wait_while(count, |count| *count > 0));
    }
}

/// A footer or note that is on its way, until dropped.
struct Pending(Arc<Shared>);

impl Pending {
    fn new(shared: &Arc<Shared>) -> Self {
        *shared.closings.lock() += 1;
        Self(Arc::clone(shared))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        *self.0.closings.lock() -= 1;
        self.0.closings.ended.notify_all();
    }
}

#[cfg(test)]
#[path = "rolling_tests.rs"]
mod tests;
