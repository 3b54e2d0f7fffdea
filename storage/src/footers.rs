//! What a full file still needs (footer, syncs, holes) and the making of the next one: on a thread of its own, so that the
//! log goes on.

use std::io;
use std::sync::mpsc::{self, Sender, SyncSender};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use vidar_core::sink::SinkError;

use crate::checkpoint::keeper::{self, Mark};
use crate::crypto::keychain::sink_error;
use crate::files::witness;
use crate::punch::{self, Stretch};
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::header::FileHeader;
use crate::segment_file::record::RecordKind;
use crate::segment_file::writer::Writer;
use crate::shared::{Shared, count};

/// Files that wait for their footers, each with its heads in memory: then the log waits too.
const JOB_COUNT_MAX: usize = 2;

/// What is to be done beside the log.
pub(crate) enum Job {
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
pub(crate) enum Helper {
    Thread {
        jobs: SyncSender<Job>,
        thread: JoinHandle<Worker>,
    },
    /// The caller, at once: where no thread can be had, or none is wanted.
    Caller(Worker),
}

impl Helper {
    pub(crate) fn start(worker: Worker) -> Self {
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

    pub(crate) fn send(&mut self, job: Job) {
        match self {
            // It ends after us only.
            Self::Thread { jobs, .. } => drop(jobs.send(job)),
            Self::Caller(worker) => worker.perform(job),
        }
    }

    /// Has the list of files brought up to date. The log does not wait for it.
    pub(crate) fn list(&mut self, shared: &Arc<Shared>) {
        let job = Job::List(Pending::new(shared));
        match self {
            // Where the queue is full, others come.
            Self::Thread { jobs, .. } => drop(jobs.try_send(job)),
            Self::Caller(worker) => worker.perform(job),
        }
    }

    pub(crate) fn finish(self) -> Result<(), SinkError> {
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

/// Does one job after the other.
#[derive(Clone)]
pub(crate) struct Worker {
    pub(crate) shared: Arc<Shared>,
    pub(crate) made: Sender<io::Result<Writer>>,
    /// Whether all closes went well.
    pub(crate) closed: Result<(), SinkError>,
}

impl Worker {
    fn perform(&mut self, job: Job) {
        let io = &*self.shared.io;
        match job {
            Job::Close(writer, mark, pending) => {
                let closed = self.close(&writer);
                self.shared.files.note_in_list();
                drop(pending);
                if let Some(mark) = mark.filter(|_| closed.is_ok()) {
                    keeper::ask(&self.shared, mark);
                }
                self.closed = std::mem::replace(&mut self.closed, Ok(())).and(closed);
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
    let is_gone = |entry: &&RecordEntry| {
        let has_media = matches!(entry.shape.kind, RecordKind::Fragment | RecordKind::Part);
        has_media && shared.controls().is_gone(entry.shape.meta.stream, entry.shape.meta.number)
    };
    let gone = writer.entries().iter().filter(is_gone);
    let gone = gone.map(|entry| Stretch { offset: entry.offset, len: entry.shape.record_len() });
    if let Err(error) = punch::punch(&*writer.handle, gone) {
        tracing::warn!(file = %writer.header.file, %error, "cannot free the blocks of expired media");
    }
}

/// How many footers are on their way, and notes in the list of files.
#[derive(Default)]
pub(crate) struct Closings {
    count: Mutex<usize>,
    ended: Condvar,
}

impl Closings {
    pub(crate) fn lock(&self) -> MutexGuard<'_, usize> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns when there are none. Blocks.
    pub(crate) fn wait(&self) {
        let count = self.lock();
        drop(self.ended.wait_while(count, |count| *count > 0));
    }
}

/// A footer or note that is on its way, until dropped.
pub(crate) struct Pending(Arc<Shared>);

impl Pending {
    pub(crate) fn new(shared: &Arc<Shared>) -> Self {
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
