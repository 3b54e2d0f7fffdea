//! Acknowledgements: one flat JSON object and CRLF to a chunk.
//!
//! Clients read them by hand. The C producer takes one from each read of at most 1,024 bytes and drops the rest of it; the
//! Java client wants the end of a line, and finds the end of all only where it comes alone. So each has a chunk to itself,
//! a few go at once, and the last goes a moment before the end.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;
use vidar_core::ids::FragmentNumber;
use vidar_core::sink::SinkError;
use vidar_ingest::{Follower, PushError};

use super::fault::{ErrorId, of_push, of_sink};

/// Those that the client has not read. What the kernel takes comes before: some hours of streaming.
const WAITING_COUNT_MAX: usize = 1024;
/// The Java client reads up to 4,096 bytes at once, of which no more than 1,024 are taken.
const BURST_COUNT: usize = 5;
const BURST_PAUSE: Duration = Duration::from_millis(10);
const LAST_PAUSE: Duration = Duration::from_millis(20);

/// A fragment as its client knows it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Named {
    number: FragmentNumber,
    /// Of its Cluster, as it was sent.
    timecode: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ack {
    Buffering(Named),
    Received(Named),
    Persisted(Named),
    Error { error: ErrorId, timecode: Option<i64>, number: Option<FragmentNumber> },
    Idle,
}

#[derive(Debug, Default)]
struct State {
    waiting: VecDeque<Ack>,
    /// Fragments that began and are not durable yet, oldest first.
    open: VecDeque<Named>,
    /// An error was told: it is the last that is said.
    failed: bool,
    /// Nothing more comes.
    ended: bool,
}

/// The acknowledgements of one connection.
#[derive(Debug)]
pub(super) struct Acks {
    /// Else only errors are told.
    wanted: bool,
    /// The stream keeps what it gets: else nothing is persisted.
    keeps: bool,
    /// Guards what waits; held to move some of it.
    state: Mutex<State>,
    changed: Notify,
    broken: CancellationToken,
}

impl Acks {
    pub(super) fn new(wanted: bool, keeps: bool) -> Arc<Self> {
        let (state, changed, broken) = (Mutex::default(), Notify::new(), CancellationToken::new());
        Arc::new(Self { wanted, keeps, state, changed, broken })
    }

    fn with<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let out = change(&mut self.state.lock().expect("no panic under this lock"));
        self.changed.notify_one();
        out
    }

    fn add(&self, state: &mut State, ack: Ack) {
        let is_error = matches!(ack, Ack::Error { .. });
        if state.failed || state.ended || !(self.wanted || is_error) {
            return;
        }
        if state.waiting.len() >= WAITING_COUNT_MAX {
            state.failed = true;
            self.broken.cancel();
            return;
        }
        state.failed = is_error;
        state.waiting.push_back(ack);
    }

    /// Nothing came for a while; the connection is still good.
    pub(super) fn idle(&self) {
        self.with(|state| self.add(state, Ack::Idle));
    }

    /// The fragment of that time is refused, or the connection is.
    pub(super) fn refuse(&self, error: ErrorId, timecode: Option<i64>) {
        self.with(|state| {
            let last = state.open.back().filter(|named| timecode.is_some() && named.timecode == timecode);
            let number = last.map(|named| named.number);
            self.add(state, Ack::Error { error, timecode, number });
        });
    }

    /// Nothing more comes.
    pub(super) fn end(&self) {
        self.with(|state| state.ended = true);
    }

    /// Resolves once no more acknowledgements can be given: the store refused a fragment, or they are not read.
    pub(super) async fn broken(&self) {
        self.broken.cancelled().await;
    }

    /// The next, and whether it had to be waited for. Of one reader.
    async fn next(&self) -> Option<(Bytes, bool)> {
        let mut waited = false;
        loop {
            let (ack, ended) = {
                let mut state = self.state.lock().expect("no panic under this lock");
                (state.waiting.pop_front(), state.ended)
            };
            match ack {
                Some(ack) => return Some((encode(ack), waited)),
                None if ended => return None,
                None => {}
            }
            waited = true;
            self.changed.notified().await; // kept for whoever comes late
        }
    }
}

impl Follower for Acks {
    fn opened(&self, number: FragmentNumber, units: Option<i64>) {
        let named = Named { number, timecode: units };
        self.with(|state| {
            state.open.push_back(named);
            self.add(state, Ack::Buffering(named));
        });
    }

    fn durable(&self, number: FragmentNumber) {
        self.with(|state| {
            let Some(place) = state.open.iter().position(|named| named.number == number) else { return };
            // Those before it will not be durable.
            let named = state.open.drain(..=place).next_back();
            if let Some(named) = named {
                self.add(state, Ack::Received(named));
                if self.keeps {
                    self.add(state, Ack::Persisted(named));
                }
            }
        });
    }

    fn failed(&self, number: FragmentNumber, error: &SinkError) {
        self.with(|state| {
            let timecode = state.open.iter().find(|named| named.number == number).and_then(|named| named.timecode);
            self.add(state, Ack::Error { error: of_sink(error), timecode, number: Some(number) });
        });
        self.broken.cancel();
    }

    fn stopped(&self, units: Option<i64>, error: &PushError) {
        self.refuse(of_push(error), units);
        self.broken.cancel();
    }
}

fn encode(ack: Ack) -> Bytes {
    let (event, timecode, number, error) = match ack {
        Ack::Buffering(named) => ("BUFFERING", named.timecode, Some(named.number), None),
        Ack::Received(named) => ("RECEIVED", named.timecode, Some(named.number), None),
        Ack::Persisted(named) => ("PERSISTED", named.timecode, Some(named.number), None),
        Ack::Error { error, timecode, number } => ("ERROR", timecode, number, Some(error)),
        Ack::Idle => ("IDLE", None, None, None),
    };
    let mut text = format!(r#"{{"EventType":"{event}""#);
    // Writing to a String does not fail.
    if let Some(timecode) = timecode {
        let _ = write!(text, r#","FragmentTimecode":{timecode}"#);
    }
    if let Some(number) = number {
        let _ = write!(text, r#","FragmentNumber":"{number}""#);
    }
    if let Some(ErrorId { id, code }) = error {
        let _ = write!(text, r#","ErrorCode":"{code}","ErrorId":{id}"#);
    }
    text.push_str("}\r\n");
    text.into()
}

/// The body of the answer.
pub(super) fn chunks(acks: Arc<Acks>) -> impl futures::Stream<Item = Result<Bytes, Infallible>> + Send {
    futures::stream::unfold((acks, 0), |(acks, at_once)| async move {
        if at_once == BURST_COUNT {
            tokio::time::sleep(BURST_PAUSE).await;
        }
        let Some((chunk, waited)) = acks.next().await else {
            tokio::time::sleep(LAST_PAUSE).await;
            return None;
        };
        let at_once = if waited || at_once == BURST_COUNT { 1 } else { at_once + 1 };
        Some((Ok(chunk), (acks, at_once)))
    })
}

#[cfg(test)]
#[path = "acks_tests.rs"]
mod tests;
