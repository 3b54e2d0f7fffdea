//! A push: one connection's events become fragments, and fragments become durable.
//!
//! ```text
//! protocol ──Event──► Push ──► actor: fragmenter, run and anchor ──Job──► committer: sink, log, hub
//! ```
//! The actor owns all state of the push. Its inbox and the committer's are bounded, and samples are charged to the
//! [`Budget`] before they enter: a slow disk stops the reading of the socket.
//!
//! # Invariants
//! 1. A line of the [`PushLog`](crate::push_log::PushLog) says durable only after the sink said so.
//! 2. A push whose handle is dropped ends like a lost connection: what is open is stored as incomplete.

use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::future::Future;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use vidar_core::admission::{Admission, Beside, Occupied, Permit};
use vidar_core::auth::Principal;
use vidar_core::clock::SharedClock;
use vidar_core::error::ErrorKind;
use vidar_core::hub::LiveSink;
use vidar_core::ids::{FragmentNumber, PushId, StreamId, StreamName};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::sink::{FragmentSink, SinkError};
use vidar_core::time::UnixMs;
use vidar_media::{Event, fragmenter};

use crate::actor::Actor;
use crate::budget::{Budget, Reservation, Unfinished};
use crate::last_run::{LastRun, LastRuns};
use crate::push_log::{PushLog, PushStatus};

/// Reads whose events may wait for the actor. Their bytes are charged to the budget.
const INBOX_COUNT: usize = 32;
/// What a sample costs beside its bytes: its row of a table, and its place in queues.
const SAMPLE_COST_BYTES: u64 = 256;
/// A publisher that is held back counts as heard, this often.
const HELD_BACK_TOUCH: Duration = Duration::from_millis(250);
/// Ended pushes whose logs are kept for `/v1/pushes/ID`.
const ENDED_LOG_COUNT_MAX: usize = 256;

/// Settings of ingest.
#[derive(Debug, Clone)]
pub struct IngestOptions {
    /// When to cut.
    pub fragmenter: fragmenter::Options,
    /// A publisher that is silent for longer may be replaced.
    pub publisher_silence: Duration,
    /// A push whose body brings nothing for so long has ended.
    pub idle_timeout: Duration,
    /// For all that ingest holds.
    pub budget_bytes: u64,
    /// What takes foreign containers apart.
    #[cfg(feature = "gst")]
    pub helpers: crate::gst::Helpers,
}

impl Default for IngestOptions {
    fn default() -> Self {
        Self {
            fragmenter: fragmenter::Options::default(),
            publisher_silence: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(30),
            budget_bytes: 256 << 20,
            #[cfg(feature = "gst")]
            helpers: crate::gst::Helpers::default(),
        }
    }
}

/// What every protocol pushes into.
pub struct Ingest {
    pub(crate) sink: Arc<dyn FragmentSink>,
    pub(crate) hub: Arc<dyn LiveSink>,
    pub(crate) registry: Arc<dyn StreamRegistry>,
    pub(crate) admission: Arc<dyn Admission>,
    pub(crate) clock: SharedClock,
    pub(crate) budget: Arc<Budget>,
    pub(crate) options: IngestOptions,
    pub(crate) tracker: TaskTracker,
    /// Cancelled when the server goes down: pushes end where they are.
    pub stop: CancellationToken,
    /// Guards the logs of open and recent pushes; held for a look-up.
    logs: Mutex<Logs>,
    /// Guards where each stream's last run ended; held for a look-up.
    last_runs: Mutex<LastRuns>,
}

#[derive(Default)]
struct Logs {
    by_id: HashMap<PushId, Known>,
    order: VecDeque<PushId>,
}

/// A push that is open, or ended not long ago.
struct Known {
    log: Arc<PushLog>,
    by: Option<Principal>,
    failure: Failure,
}

/// Why a push cannot go on, once that is so.
type Failure = Arc<OnceLock<PushError>>;

/// Who pushes what.
#[derive(Debug, Clone)]
pub struct PushStart {
    /// The stream's name.
    pub name: StreamName,
    /// Who it is; none: nobody asks.
    pub by: Option<Principal>,
    /// `rtsp`, `http`, …
    pub protocol: &'static str,
    /// Address it comes from.
    pub source: String,
    /// Name the client gave itself.
    pub user_agent: String,
    /// Producer time of the first sync sample of the primary track, if it was given.
    pub start: Option<UnixMs>,
    /// The id the client chose, if it did.
    pub push: Option<PushId>,
    /// The source's own fragments are taken as they were sent.
    pub as_sent: Option<AsSent>,
}

/// A push whose source cuts its fragments and says what time they are of, to a stream that exists.
#[derive(Debug, Clone)]
pub struct AsSent {
    /// Producer time of the source's time 0.
    pub origin: UnixMs,
    /// Others may push so at the same time.
    pub beside: Beside,
    /// Hears what becomes of the fragments.
    pub follower: Arc<dyn Follower>,
}

/// Hears what becomes of each fragment of a push, in order. It is told in passing, and must not wait.
pub trait Follower: fmt::Debug + Send + Sync {
    /// A fragment began: its number, and the time its source gave it ([`Event::SourceFragment`]).
    fn opened(&self, number: FragmentNumber, units: Option<i64>);
    /// A fragment is complete and durable. Of one that was cut off nothing more is said.
    fn durable(&self, number: FragmentNumber);
    /// A fragment will never be durable. Others after it may be.
    fn failed(&self, number: FragmentNumber, error: &SinkError);
    /// The push cannot go on with the fragment of that time, which got no number.
    fn stopped(&self, units: Option<i64>, error: &PushError);
}

/// Why a push was refused.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum BeginError {
    /// No such stream, and it may not be created; or it could not be.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// Another publishes.
    #[error(transparent)]
    Occupied(#[from] Occupied),
    /// The store takes no media now: the disk is full.
    #[error(transparent)]
    Sink(#[from] SinkError),
    /// The server goes down.
    #[error("the server stops")]
    Stopping,
    /// The client chose an id that is in use.
    #[error("push {push} exists")]
    PushExists {
        /// The id.
        push: PushId,
    },
}

impl BeginError {
    /// What a caller can do.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        match self {
            Self::Registry(error) => error.kind(),
            Self::Sink(error) => error.kind(),
            Self::Stopping => ErrorKind::Unavailable,
            Self::Occupied(_) | Self::PushExists { .. } => ErrorKind::Conflict,
        }
    }
}

/// Why a push cannot go on.
#[derive(Debug, Clone, thiserror::Error)]
#[error("{detail}")]
pub struct PushError {
    /// What a caller can do.
    pub kind: ErrorKind,
    /// What happened.
    pub detail: String,
}

impl Ingest {
    /// Wires ingest.
    #[must_use]
    pub fn new(
        sink: Arc<dyn FragmentSink>,
        hub: Arc<dyn LiveSink>,
        registry: Arc<dyn StreamRegistry>,
        admission: Arc<dyn Admission>,
        clock: SharedClock,
        options: IngestOptions,
    ) -> Arc<Self> {
        let budget = Budget::new(options.budget_bytes);
        let (tracker, stop) = (TaskTracker::new(), CancellationToken::new());
        let (logs, last_runs) = (Mutex::default(), Mutex::default());
        Arc::new(Self { sink, hub, registry, admission, clock, budget, options, tracker, stop, logs, last_runs })
    }

    /// Admits a publisher and begins a push.
    ///
    /// # Errors
    /// If there is no such stream, another publishes, or the disk is full.
    pub async fn begin(self: &Arc<Self>, start: PushStart) -> Result<Push, BeginError> {
        if self.stop.is_cancelled() {
            return Err(BeginError::Stopping);
        }
        self.sink.accepts()?;
        let stream = match start.as_sent {
            Some(_) => self.registry.get(&start.name).ok_or(RegistryError::NotFound { name: start.name.clone() })?,
            None => self.registry.ensure(&start.name).await?,
        };
        let (who, silence) = (format!("{} {}", start.protocol, start.source), self.options.publisher_silence);
        let permit = match &start.as_sent {
            Some(sent) => self.admission.admit_beside(stream.stream, &start.name, &who, silence, sent.beside)?,
            None => self.admission.admit(stream.stream, &start.name, &who, silence)?,
        };
        let push = start.push.unwrap_or_else(PushId::new);
        let log =
            Arc::new(PushLog::new(push, start.name.clone(), start.protocol, start.source.clone(), self.clock.now()));
        let failure = Failure::default();
        self.keep_log(&log, start.by.clone(), &failure)?;
        let (inbox, receiver) = mpsc::channel(INBOX_COUNT);
        let span = tracing::info_span!("push", stream = %start.name, protocol = start.protocol, source = %start.source);
        tracing::info!(parent: &span, push = %push, user_agent = start.user_agent, "push begins");
        let actor = Actor::new(
            Arc::clone(self),
            stream.stream,
            start,
            Arc::clone(&log),
            Arc::clone(&failure),
            Arc::clone(&permit),
        );
        let done = self.tracker.spawn(actor.run(receiver).instrument(span));
        let (budget, unfinished) = (Arc::clone(&self.budget), Unfinished::new(&self.budget));
        Ok(Push { inbox, budget, unfinished, permit, failure, log, done })
    }

    /// The log of a push that is open, or ended not long ago.
    #[must_use]
    pub fn log(&self, push: PushId) -> Option<Arc<PushLog>> {
        self.logs.lock().expect("no panic under this lock").by_id.get(&push).map(|known| Arc::clone(&known.log))
    }

    /// Ends the pushes of those who may not push there any more: before their next media is taken.
    pub fn end_refused(&self, may_push: impl Fn(&Principal, &StreamName) -> bool) {
        let logs = self.logs.lock().expect("no panic under this lock");
        for Known { log, by, failure } in logs.by_id.values() {
            let refused = by.as_ref().is_some_and(|by| !may_push(by, &log.stream));
            if refused && log.status().open {
                let detail = "the access key does not allow this push any more".to_owned();
                fail(log, failure, &PushError { kind: ErrorKind::Forbidden, detail });
            }
        }
    }

    /// Pushes that are open, of one stream or of all, oldest first.
    #[must_use]
    pub fn open_pushes(&self, stream: Option<&StreamName>) -> Vec<PushStatus> {
        let logs = self.logs.lock().expect("no panic under this lock");
        let known = logs.order.iter().filter_map(|push| logs.by_id.get(push)).map(|known| &known.log);
        let statuses = known.filter(|log| stream.is_none_or(|name| log.stream == *name)).map(|log| log.status());
        statuses.filter(|status| status.open).collect()
    }

    /// Resolves when every push has ended and everything of it is durable. No push begins any more.
    pub async fn drained(&self) {
        self.tracker.close();
        self.tracker.wait().await;
    }

    /// Where the tasks of pushes run: a stop waits for them.
    #[must_use]
    pub fn tracker(&self) -> &TaskTracker {
        &self.tracker
    }

    /// After which a silent body has ended.
    #[must_use]
    pub fn idle_timeout(&self) -> Duration {
        self.options.idle_timeout
    }

    /// The budget, for metrics.
    #[must_use]
    pub fn budget(&self) -> &Arc<Budget> {
        &self.budget
    }

    fn keep_log(&self, log: &Arc<PushLog>, by: Option<Principal>, failure: &Failure) -> Result<(), BeginError> {
        let mut logs = self.logs.lock().expect("no panic under this lock");
        if logs.by_id.contains_key(&log.push) {
            return Err(BeginError::PushExists { push: log.push });
        }
        logs.by_id.insert(log.push, Known { log: Arc::clone(log), by, failure: Arc::clone(failure) });
        logs.order.push_back(log.push);
        // Only ended ones are forgotten; the open ones are bounded by the connections.
        let mut ended = logs.by_id.values().filter(|known| !known.log.status().open).count();
        let mut position = 0;
        while ended > ENDED_LOG_COUNT_MAX && position < logs.order.len() {
            let push = logs.order[position];
            if logs.by_id.get(&push).is_none_or(|known| !known.log.status().open) {
                logs.order.remove(position);
                logs.by_id.remove(&push);
                ended -= 1;
            } else {
                position += 1;
            }
        }
        Ok(())
    }

    pub(crate) fn last_run(&self, stream: StreamId) -> Option<LastRun> {
        self.last_runs.lock().expect("no panic under this lock").get(stream)
    }

    pub(crate) fn set_last_run(&self, stream: StreamId, last: LastRun) {
        let due = self.last_runs.lock().expect("no panic under this lock").set(stream, last);
        if due {
            let known = self.registry.list().iter().map(|record| record.stream).collect();
            self.last_runs.lock().expect("no panic under this lock").keep(&known);
        }
    }
}

/// An event, and when its media came, if that was not just now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrived {
    /// By the server's clock.
    pub at: Option<UnixMs>,
    /// What came.
    pub event: Event,
}

impl From<Event> for Arrived {
    fn from(event: Event) -> Self {
        Self { at: None, event }
    }
}

impl Arrived {
    /// What it takes of the budget.
    pub(crate) fn cost_bytes(&self) -> u64 {
        if let Event::Sample(sample) = &self.event { SAMPLE_COST_BYTES + sample.data.len() as u64 } else { 0 }
    }
}

pub(crate) enum Message {
    /// What one read brought.
    Events {
        events: Vec<Arrived>,
        reservation: Reservation,
    },
    Finish {
        complete: bool,
        cause: String,
    },
}

/// A push that goes on. Dropping it ends it like a lost connection.
pub struct Push {
    inbox: mpsc::Sender<Message>,
    budget: Arc<Budget>,
    unfinished: Unfinished,
    permit: Arc<dyn Permit>,
    failure: Failure,
    log: Arc<PushLog>,
    done: tokio::task::JoinHandle<()>,
}

impl Push {
    /// Takes events in order of arrival, all of whose tracks count from one zero. While the store is behind, waits until
    /// more may be read.
    ///
    /// # Errors
    /// If the push cannot go on: the store refused, or another publisher has taken over.
    ///
    /// # Cancel safety
    /// Not cancel-safe: the events may be lost.
    pub async fn events(&mut self, events: Vec<Arrived>) -> Result<(), PushError> {
        self.check()?;
        if !events.is_empty() {
            let reservation = self.budget.charge(events.iter().map(Arrived::cost_bytes).sum());
            self.unfinished.completed();
            match self.inbox.try_send(Message::Events { events, reservation }) {
                Ok(()) => {}
                Err(mpsc::error::TrySendError::Full(message)) => {
                    let sent = held_back(&*self.permit, self.inbox.send(message)).await;
                    sent.map_err(|_| self.failed())?;
                }
                Err(mpsc::error::TrySendError::Closed(_)) => return Err(self.failed()),
            }
        }
        if !self.unfinished.has_room() {
            held_back(&*self.permit, self.unfinished.room()).await;
        }
        Ok(())
    }

    /// The protocol holds so many bytes of elements that are not complete. Those that became complete are given to
    /// `events` afterwards, as are none, which waits until more may be read.
    pub fn hold(&mut self, bytes: u64) {
        self.unfinished.set(bytes);
    }

    /// As `events`, for protocols that cannot wait: gives them back if there is no room.
    ///
    /// # Errors
    /// As `events`.
    pub fn try_events(&self, events: Vec<Arrived>) -> Result<Option<Vec<Arrived>>, PushError> {
        self.check()?;
        let Some(reservation) = self.budget.try_reserve(events.iter().map(Arrived::cost_bytes).sum()) else {
            return Ok(Some(events));
        };
        match self.inbox.try_send(Message::Events { events, reservation }) {
            Err(mpsc::error::TrySendError::Full(Message::Events { events, .. })) => Ok(Some(events)),
            Err(_) => Err(self.failed()),
            Ok(()) => Ok(None),
        }
    }

    /// The publisher is there, though it sends no media.
    pub fn touch(&self) {
        self.permit.touch();
    }

    /// Notes a fault of the input; everything complete before it is kept.
    pub fn note_error(&self, status: u16, detail: String, offset: Option<u64>) {
        self.log.error(status, detail, offset);
    }

    /// Ends the push and waits until all of it is durable or has failed. `complete`: it ended where it should.
    pub async fn finish(self, complete: bool, cause: &str) -> Arc<PushLog> {
        // A closed inbox: the actor has ended already.
        let _ = self.inbox.send(Message::Finish { complete, cause: cause.to_owned() }).await;
        if let Err(error) = self.done.await {
            tracing::error!(%error, "the push task failed");
            self.log.error(500, "internal error".to_owned(), None);
        }
        self.log.end();
        self.log
    }

    /// What becomes of it.
    #[must_use]
    pub fn log(&self) -> &Arc<PushLog> {
        &self.log
    }

    fn check(&self) -> Result<(), PushError> {
        self.permit.touch();
        if self.permit.revoked() {
            let error = PushError {
                kind: ErrorKind::Conflict,
                detail: "another publisher has taken the stream over".to_owned(),
            };
            fail(&self.log, &self.failure, &error);
            return Err(error);
        }
        self.failure.get().map_or(Ok(()), |failure| Err(failure.clone()))
    }

    fn failed(&self) -> PushError {
        let unknown = || PushError { kind: ErrorKind::Internal, detail: "the push has ended".to_owned() };
        self.failure.get().cloned().unwrap_or_else(unknown)
    }
}

/// The first failure is the one that is told.
fn fail(log: &PushLog, failure: &Failure, error: &PushError) {
    if failure.set(error.clone()).is_ok() {
        log.error(error.kind.http_status(), error.detail.clone(), None);
    }
}

/// Waits for the store. A publisher that may not send is not silent.
async fn held_back<T>(permit: &dyn Permit, room: impl Future<Output = T>) -> T {
    let mut room = std::pin::pin!(room);
    loop {
        let waited = tokio::time::timeout(HELD_BACK_TOUCH, &mut room).await;
        permit.touch();
        if let Ok(room) = waited {
            return room;
        }
    }
}
