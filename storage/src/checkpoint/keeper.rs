//! When checkpoints are made, and from what.
//!
//! One is due after so many closed files, or after a while: then the commit thread hands over, with the file that it lets
//! go, the parts that are open at the ends of all that were let go, and the files that it goes on with. Once that file has its
//! footer the checkpoint is made, on a thread of its own.
//!
//! # Invariants
//! 1. It holds only what is durable; a file is included with all of its class before it, or not at all.
//! 2. Observers save before the file is replaced.

use std::collections::BTreeMap;
use std::io;
use std::sync::mpsc::{self, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use uuid::Uuid;
use vidar_core::control::ControlRecord;
use vidar_core::ids::{FileId, FragmentNumber, RunId, StreamId};
use vidar_core::log::LogObserver;
use vidar_core::time::UnixMs;

use super::{Checkpoint, Position};
use crate::backend::SegmentIo;
use crate::crypto::keyring::Keyring;
use crate::files::Files;
use crate::load::OpenFragments;
use crate::shared::Shared;

/// So many closed files after the last checkpoint …
const FILE_COUNT_MAX: usize = 64;
/// … or so long after it the next one is due. A start after a crash reads what came since.
const AGE_MAX: Duration = Duration::from_secs(300);
/// Control records that are kept for the next checkpoint: above it there is none until the next start.
const RECENT_COUNT_MAX: usize = 1 << 20;

/// Where a checkpoint ends, and what is open there.
pub(crate) struct Mark {
    pub(crate) last: Position,
    /// Files before that one which take batches still: they are not included.
    pub(crate) left_out: Vec<FileId>,
    pub(crate) archive: UnixMs,
    pub(crate) open: OpenFragments,
}

/// What checkpoints are made from, beside the files.
#[derive(Default)]
pub(crate) struct Checkpoints(Mutex<State>);

#[derive(Default)]
struct State {
    /// Control records since the last one. None: there will be no checkpoint any more.
    recent: Option<Vec<Arc<ControlRecord>>>,
    /// The one in the directory is ours.
    is_based: bool,
    /// Files closed since.
    closed: usize,
    made: Duration,
    thread: Option<SyncSender<Mark>>,
}

impl Checkpoints {
    /// `controls`: all that the log holds. None: what it holds is not known well enough for a checkpoint.
    pub(crate) fn new(controls: Option<Vec<Arc<ControlRecord>>>, now: Duration) -> Self {
        Self(Mutex::new(State { recent: controls, made: now, ..State::default() }))
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A control record became durable.
    pub(crate) fn note(&self, record: &Arc<ControlRecord>) {
        let mut state = self.lock();
        if let Some(recent) = &mut state.recent {
            recent.push(Arc::clone(record));
            if recent.len() > RECENT_COUNT_MAX {
                state.recent = None;
            }
        }
    }

    /// The file that is let go now should be followed by a checkpoint.
    pub(crate) fn is_due(&self, now: Duration) -> bool {
        let state = self.lock();
        state.recent.is_some() && (state.closed + 1 >= FILE_COUNT_MAX || now.saturating_sub(state.made) >= AGE_MAX)
    }

    /// A file got its footer.
    pub(crate) fn closed(&self) {
        self.lock().closed += 1;
    }

    fn forget(&self) {
        self.lock().recent = None;
    }
}

/// The thread that makes checkpoints.
pub(crate) struct Keeper(JoinHandle<()>);

impl Keeper {
    /// None where no thread can be had, or none is wanted: whoever closes files makes checkpoints then.
    pub(crate) fn start(shared: &Arc<Shared>) -> Option<Self> {
        if shared.options.by_hand {
            return None;
        }
        let (sender, inbox) = mpsc::sync_channel(1);
        let of_thread = Arc::clone(shared);
        let work = move || inbox.iter().for_each(|mark| make(&of_thread, mark));
        let thread = std::thread::Builder::new().name("vidar-checkpoint".into()).spawn(work).ok()?;
        shared.checkpoints.lock().thread = Some(sender);
        Some(Self(thread))
    }

    /// Waits for what it does.
    pub(crate) fn stop(self, shared: &Shared) {
        shared.checkpoints.lock().thread = None;
        let _ = self.0.join();
    }
}

/// Has a checkpoint made. While another one is being made there is none.
pub(crate) fn ask(shared: &Shared, mark: Mark) {
    let thread = shared.checkpoints.lock().thread.clone();
    match thread {
        Some(thread) => drop(thread.try_send(mark)),
        None => make(shared, mark),
    }
}

/// Makes a checkpoint. Nothing depends on it: a failure is logged.
pub(crate) fn make(shared: &Shared, mark: Mark) {
    match try_make(shared, mark) {
        Ok(()) => {}
        Err(error) if error.kind() == io::ErrorKind::Unsupported => shared.checkpoints.forget(),
        Err(error) => tracing::warn!(%error, "cannot make a checkpoint: a start after a crash will take longer"),
    }
}

fn try_make(shared: &Shared, mark: Mark) -> io::Result<()> {
    let (recent, is_based, closed) = {
        let state = shared.checkpoints.lock();
        let Some(recent) = state.recent.clone() else { return Ok(()) };
        (recent, state.is_based, state.closed)
    };
    let ring = shared.keys.ring();
    let count = recent.len();
    let mut known: BTreeMap<FragmentNumber, _> = recent.into_iter().map(|record| (record.number, record)).collect();
    if is_based {
        let Some(before) = Checkpoint::read(&*shared.io, &ring) else {
            shared.checkpoints.forget();
            return Err(io::Error::other("the one before does not read"));
        };
        known.extend(before.controls.into_iter().map(|record| (record.number, record)));
    }
    let (epoch, _) = shared.epoch();
    let controls: Vec<_> = {
        let state = shared.controls();
        let older = |number| shared.files.any_older(number, None);
        known.into_values().filter(|record| state.is_needed(record, epoch, older)).collect()
    };
    let runs = shared.controls().last_of_runs();
    if write(&*shared.io, &ring, &shared.files, &shared.observers, mark, controls, runs)? {
        let mut state = shared.checkpoints.lock();
        (state.is_based, state.made) = (true, shared.clock.monotonic());
        state.closed -= closed;
        if let Some(recent) = &mut state.recent {
            recent.drain(..count);
        }
    }
    Ok(())
}

/// Writes a checkpoint. False if a file that it would have to include is not closed.
pub(crate) fn write(
    io: &dyn SegmentIo,
    keys: &Keyring,
    files: &Files,
    observers: &[Arc<dyn LogObserver>],
    mark: Mark,
    controls: Vec<Arc<ControlRecord>>,
    runs: Vec<(RunId, StreamId, FragmentNumber)>,
) -> io::Result<bool> {
    let Mark { last, left_out, archive, open } = mark;
    // A file that is not listed, and not there, went on purpose: so the list comes first.
    files.write_list()?;
    let Some(files) = files.closed_through(last, &left_out) else { return Ok(false) };
    let id = Uuid::new_v4();
    for observer in observers {
        observer.save(id)?;
    }
    let version = |stream| keys.current(stream).map(|(version, _)| (stream, version));
    let keys_of_streams = keys.streams().filter_map(version).collect();
    let checkpoint = Checkpoint { id, last, left_out, archive, files, controls, runs, keys: keys_of_streams, open };
    checkpoint.write(io, keys)?;
    Ok(true)
}
