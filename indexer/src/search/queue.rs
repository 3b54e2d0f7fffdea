//! What the log said, on its way to the worker. Bounded: when it is full the worker looks at everything instead.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vidar_core::ids::{FragmentNumber, RunId, StreamId};

use super::partition::PartitionId;
use super::subject::Subject;
use crate::lock::lock;

/// Something that may need another document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    Subject(Subject),
    /// A run and its fragments.
    Run(StreamId, RunId),
    /// A stream and all it holds.
    Stream(StreamId),
}

impl Change {
    pub(super) fn stream(self) -> StreamId {
        match self {
            Self::Subject(subject) => subject.stream(),
            Self::Run(stream, _) | Self::Stream(stream) => stream,
        }
    }
}

/// What the worker takes at once.
#[derive(Debug, Default)]
pub(super) struct Batch {
    pub(super) changes: Vec<Change>,
    /// Changes were lost: look at everything.
    pub(super) behind: bool,
    /// Streams that were deleted.
    pub(super) deleted: Vec<StreamId>,
    /// Partitions that could not be read.
    pub(super) damaged: Vec<PartitionId>,
    /// Floors were raised.
    pub(super) purge: bool,
    /// Someone waits for files.
    pub(super) commit: bool,
    pub(super) stop: bool,
    /// Something was observed that changes no document.
    noted: bool,
    observed: u64,
    greatest: Option<FragmentNumber>,
}

#[derive(Default)]
struct State {
    next: Batch,
    /// Smallest numbers on their way: waiting, and with the worker.
    waiting: Option<FragmentNumber>,
    taken: Option<FragmentNumber>,
    /// The worker looks at everything.
    catching_up: bool,
    /// A batch is with the worker.
    busy: bool,
    /// Someone waits.
    urged: bool,
    /// Events that can be found.
    searchable: u64,
    /// All up to here can be found.
    complete: Option<FragmentNumber>,
    /// Deleted streams that the worker is about, and how often it failed at that.
    purging: Vec<StreamId>,
    purge_failures: u64,
    stopped: bool,
}

pub(super) struct Queue {
    changes_max: usize,
    state: Mutex<State>,
    wake: Condvar,
    done: Condvar,
    /// The worker is to end: it does not begin what takes long.
    stopping: AtomicBool,
}

impl Queue {
    pub(super) fn new(changes_max: usize) -> Self {
        Self {
            changes_max,
            state: Mutex::default(),
            wake: Condvar::new(),
            done: Condvar::new(),
            stopping: AtomicBool::new(false),
        }
    }

    /// `number`: of the record that the change comes from.
    pub(super) fn push(&self, change: Change, number: FragmentNumber) {
        let mut state = lock(&self.state);
        state.next.observed += 1;
        state.next.greatest = state.next.greatest.max(Some(number));
        if state.next.behind {
            return;
        }
        if state.next.changes.len() >= self.changes_max {
            state.next.changes.clear();
            state.next.behind = true;
        } else {
            state.next.changes.push(change);
            state.waiting = Some(state.waiting.map_or(number, |least| least.min(number)));
        }
        // The worker takes all that is there: it needs to hear of the first.
        if state.next.changes.len() <= 1 {
            self.wake.notify_one();
        }
    }

    /// A record was observed whose documents are there.
    pub(super) fn note(&self, number: FragmentNumber) {
        let mut state = lock(&self.state);
        state.next.observed += 1;
        state.next.greatest = state.next.greatest.max(Some(number));
        if !std::mem::replace(&mut state.next.noted, true) {
            self.wake.notify_one();
        }
    }

    /// Changes something that is no change of documents.
    pub(super) fn tell(&self, tell: impl FnOnce(&mut Batch)) {
        tell(&mut lock(&self.state).next);
        self.wake.notify_one();
    }

    pub(super) fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
        self.tell(|next| next.stop = true);
    }

    pub(super) fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    pub(super) fn watermark(&self) -> Option<FragmentNumber> {
        let state = lock(&self.state);
        if state.catching_up || state.next.behind || state.stopped {
            return None;
        }
        let on_their_way = state.waiting.into_iter().chain(state.taken).min();
        match on_their_way {
            Some(number) if state.complete.is_some_and(|complete| complete >= number) => Some(before(number)),
            _ => state.complete,
        }
    }

    /// The worker looks at everything, or is going to.
    pub(super) fn is_behind(&self) -> bool {
        let state = lock(&self.state);
        (state.catching_up || state.next.behind) && !state.stopped
    }

    pub(super) fn waiting_count(&self) -> usize {
        lock(&self.state).next.changes.len()
    }

    /// As `settle` with a commit, but not while everything is looked at, which may take hours. False: not all of it is
    /// in the files.
    pub(super) fn commit_unless_behind(&self) -> bool {
        self.wait_settled(true, false)
    }

    /// Waits until all that was observed can be found (or, once stopped, will never be).
    pub(super) fn settle(&self, commit: bool) {
        self.wait_settled(commit, true);
    }

    fn wait_settled(&self, commit: bool, patient: bool) -> bool {
        let mut state = lock(&self.state);
        let observed = state.next.observed;
        state.next.commit |= commit;
        loop {
            let behind = state.next.behind || state.catching_up;
            let unsettled = state.busy || state.searchable < observed || behind;
            let settled = !(unsettled || state.next.commit || !state.next.is_quiet());
            if state.stopped || settled || (behind && !patient) {
                return settled;
            }
            state.urged = true;
            self.wake.notify_one();
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Waits until no document of a deleted stream is left. False: that failed, and is tried again.
    pub(super) fn purged(&self, stream: StreamId) -> bool {
        let mut state = lock(&self.state);
        let failures = state.purge_failures;
        loop {
            if !state.next.deleted.contains(&stream) && !state.purging.contains(&stream) {
                return true;
            }
            if state.stopped || state.purge_failures > failures {
                return false;
            }
            state = self.done.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// The worker's side: what it took of deleted streams is gone, or is to be tried again.
    pub(super) fn purge_done(&self, deleted: &[StreamId], gone: bool) {
        if deleted.is_empty() {
            return;
        }
        let mut state = lock(&self.state);
        state.purging.clear();
        if !gone {
            state.purge_failures += 1;
            state.next.deleted.extend(deleted);
        }
        drop(state);
        self.done.notify_all();
    }

    /// The worker's side. Waits as long as much comes in a `step` (an eighth of the queue), up to `longest`, unless urged.
    pub(super) fn wait_while_flooded(&self, step: Duration, longest: Duration) {
        let mut waited = Duration::ZERO;
        let mut state = lock(&self.state);
        while state.next.behind && waited < longest {
            let observed = state.next.observed;
            let is_calm = |state: &mut State| !state.urged && !state.next.is_urgent();
            let timed = self.wake.wait_timeout_while(state, step, is_calm).unwrap_or_else(PoisonError::into_inner);
            state = timed.0;
            if !timed.1.timed_out() || state.next.observed - observed < (self.changes_max / 8) as u64 {
                return;
            }
            waited += step;
        }
    }

    /// Takes what has gathered, after `pace` or at once if urged; at the latest after `idle`.
    pub(super) fn take(&self, pace: Duration, idle: Option<Duration>) -> Batch {
        let state = lock(&self.state);
        let is_urgent = |state: &mut State| state.urged || state.next.is_urgent();
        let (state, _) = self
            .wake
            .wait_timeout_while(state, pace, |state| !is_urgent(state))
            .unwrap_or_else(PoisonError::into_inner);
        let is_idle = |state: &mut State| !is_urgent(state) && state.next.is_quiet();
        let mut state: MutexGuard<'_, State> = match idle {
            Some(idle) => {
                let waited = self.wake.wait_timeout_while(state, idle, is_idle);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => self.wake.wait_while(state, is_idle).unwrap_or_else(PoisonError::into_inner),
        };
        let (observed, greatest) = (state.next.observed, state.next.greatest);
        state.taken = state.waiting.take();
        state.purging = state.next.deleted.clone();
        state.urged = false;
        state.busy = true;
        state.catching_up |= state.next.behind;
        std::mem::replace(&mut state.next, Batch { observed, greatest, ..Batch::default() })
    }

    /// What was taken can be found; `complete`: all of it.
    pub(super) fn done(&self, batch: &Batch, complete: bool) {
        let mut state = lock(&self.state);
        state.taken = None;
        state.busy = false;
        if complete {
            state.catching_up = false;
            state.searchable = batch.observed;
            state.complete = batch.greatest;
        } else {
            state.next.behind = true;
        }
        self.done.notify_all();
    }

    pub(super) fn stopped(&self) {
        lock(&self.state).stopped = true;
        self.done.notify_all();
    }
}

impl Batch {
    fn is_urgent(&self) -> bool {
        self.stop || self.commit || !self.deleted.is_empty() || !self.damaged.is_empty()
    }

    fn is_quiet(&self) -> bool {
        self.changes.is_empty() && !self.behind && !self.purge && !self.noted && !self.is_urgent()
    }
}

/// The next smaller number.
fn before(number: FragmentNumber) -> FragmentNumber {
    let mut bytes = *number.as_bytes();
    for byte in bytes.iter_mut().rev() {
        let (difference, borrowed) = byte.overflowing_sub(1);
        *byte = difference;
        if !borrowed {
            return FragmentNumber::from_bytes(bytes);
        }
    }
    FragmentNumber::MIN
}
