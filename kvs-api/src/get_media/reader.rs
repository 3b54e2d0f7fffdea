//! What goes out next of a stream: fragments in the order of their numbers, from the archive or as they arrive.
//!
//! ```text
//! Choosing ──► Stored ──┐      a fragment that is durable: read from the archive at full speed
//!    ▲  │               │
//!    │  └────► Live ────┤      one that is not: each sample as it arrives
//!    │          │ lagged│
//!    │          └► Lost ┘      its samples were lost to a slow reader: it goes on from the archive, once durable
//!    └──────────────────┘
//! ```
//! # Invariants
//! 1. No fragment goes out twice, and none is left out but those that are gone, damaged, or were given up after
//!    [`PATIENCE`]: an older one that was still open when a newer had begun.
//! 2. The end of a document says that its fragment is durable. Without that end it was given up: it failed, or its disk
//!    took longer than [`PATIENCE`] after the next one had begun.
//! 3. Nothing is held for a reader that does not read, but its place in the hub's window.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, timeout_at};
use vidar_core::entry::SharedEntry;
use vidar_core::error::ErrorKind;
use vidar_core::ids::FragmentNumber;
use vidar_core::source::ReadError;

use super::head::{Head, State};
use super::start::Place;
use crate::Kvs;
use crate::archive::stored::StoredDocument;
use crate::call::Reading;
use crate::document::{Document, Fault, error_document};

/// How long what is next is waited for while there is something after it.
const PATIENCE: Duration = Duration::from_secs(1);
/// How often a reader that waits looks whether it may go on.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// Bytes of samples that go out at once.
const BURST_BYTES: usize = 512 << 10;
/// What came of newer fragments while an older one is waited for: 1 s of the fastest producer. Over it there is no waiting.
const HELD_BYTES_MAX: usize = 16 << 20;

/// One client's way through a stream.
pub(super) struct Reader {
    kvs: Arc<Kvs>,
    reading: Reading,
    /// All fragments up to here went out, or do not.
    after: FragmentNumber,
    /// Watched near the head only.
    head: Option<Head>,
    doing: Doing,
}

enum Doing {
    Choosing,
    Stored(StoredDocument),
    Live(Live),
    Lost(Live),
    Over,
}

/// A fragment that goes out as it arrives.
struct Live {
    number: FragmentNumber,
    document: Document,
    /// Of them, how many were taken.
    frame_count: usize,
    closed: bool,
    /// When it is given up, as another has begun.
    until: Option<Instant>,
}

impl Live {
    fn is_given_up(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// When to look again.
    fn wakes(&self) -> Instant {
        let look_again = Instant::now() + LOOK_AGAIN;
        self.until.map_or(look_again, |until| until.min(look_again))
    }
}

impl Reader {
    pub(super) fn new(kvs: Arc<Kvs>, reading: Reading, place: Place) -> Self {
        Self { kvs, reading, after: place.after, head: place.head, doing: Doing::Choosing }
    }

    /// The next bytes; waits for them. None: the stream is gone or cannot be read now, or its reader may not any more.
    pub(super) async fn next(&mut self) -> Option<Vec<Bytes>> {
        loop {
            let (doing, bytes) = match std::mem::replace(&mut self.doing, Doing::Over) {
                Doing::Over => return None,
                _ if !self.reading.goes_on(&self.kvs) => (Doing::Over, Vec::new()),
                Doing::Choosing => self.choose().await,
                Doing::Stored(document) => self.stored(document).await,
                Doing::Live(live) => self.live(live).await,
                Doing::Lost(live) => self.lost(live).await,
            };
            self.doing = doing;
            if bytes.iter().any(|bytes| !bytes.is_empty()) {
                return Some(bytes);
            }
        }
    }

    fn next_stored(&self, after: FragmentNumber) -> Option<SharedEntry> {
        self.kvs.player.index.timeline().next(self.reading.stream.stream, after)
    }

    /// Whether the next fragment is stored, or arrives.
    async fn choose(&mut self) -> (Doing, Vec<Bytes>) {
        // Looked up while the head is watched: what is in neither became durable before, and is found the next time.
        let stored = self.next_stored(self.after);
        let Some(head) = &mut self.head else {
            // Old enough that nothing before it is waited for any more.
            let now = self.kvs.clock.now();
            let is_old = |entry: &SharedEntry| now.since_ms(entry.meta.server_start()) > PATIENCE.as_millis() as i64;
            match stored {
                Some(entry) if is_old(&entry) => return self.begin_stored(entry).await,
                _ => self.head = Some(Head::new(&self.kvs.player.hub, self.reading.stream.stream)),
            }
            return (Doing::Choosing, Vec::new());
        };
        head.forget_until(self.after);
        while head.first().is_none() {
            match head.try_next() {
                Ok(true) => head.forget_until(self.after),
                Ok(false) => break,
                Err(_lagged) => {
                    self.head = None;
                    return (Doing::Choosing, Vec::new());
                }
            }
        }
        match (stored, head.first()) {
            (Some(entry), first) if first.is_none_or(|first| entry.meta.number < first) => {
                self.begin_stored(entry).await
            }
            (stored, Some(first)) => self.begin_live(first, stored.is_some_and(|entry| entry.meta.number > first)),
            (_, None) => {
                let happened = timeout_at(Instant::now() + LOOK_AGAIN, head.next()).await;
                if let Ok(Err(_lagged)) = happened {
                    self.head = None;
                }
                (Doing::Choosing, Vec::new())
            }
        }
    }

    fn begin_live(&mut self, number: FragmentNumber, is_waited_for: bool) -> (Doing, Vec<Bytes>) {
        let fragment = self.head.as_ref().and_then(|head| head.get(number));
        let Some(fragment) = fragment else { return (Doing::Choosing, Vec::new()) };
        let document = Document::new(&fragment.config, number, fragment.producer_start);
        let begin = document.begin();
        let until = is_waited_for.then(|| Instant::now() + PATIENCE);
        (Doing::Live(Live { number, document, frame_count: 0, closed: false, until }), vec![begin])
    }

    async fn live(&mut self, mut live: Live) -> (Doing, Vec<Bytes>) {
        let Some(head) = &mut self.head else { return (Doing::Lost(live), Vec::new()) };
        let samples = head.samples(live.number, BURST_BYTES);
        if !samples.is_empty() {
            live.frame_count += samples.len();
            let mut bytes = Vec::with_capacity(2 * samples.len());
            for sample in samples {
                if let Some(block) = live.document.sample_head(&sample) {
                    bytes.extend([block, sample.data]);
                }
            }
            return (Doing::Live(live), bytes);
        }
        let Some(fragment) = head.get(live.number) else { return self.over_with(live.number, Vec::new()) };
        match fragment.state {
            State::Durable { duration_ms } => {
                let end = live.document.end(duration_ms, self.kvs.clock.now());
                let bytes = vec![live.document.tags(&fragment.tags), end];
                return self.over_with(live.number, bytes);
            }
            State::Failed => return self.over_with(live.number, Vec::new()),
            State::Closed if !live.closed => (live.closed, live.until) = (true, None),
            State::Closed | State::Open => {}
        }
        if live.until.is_none() && head.has_after(live.number) {
            live.until = Some(Instant::now() + PATIENCE);
        }
        if live.is_given_up() || head.held_bytes() > HELD_BYTES_MAX {
            tracing::debug!(number = %live.number, "a viewer goes on without the end of a fragment");
            return self.over_with(live.number, Vec::new());
        }
        if let Ok(Err(_lagged)) = timeout_at(live.wakes(), head.next()).await {
            self.head = None;
            live.until = None;
            return (Doing::Lost(live), Vec::new());
        }
        (Doing::Live(live), Vec::new())
    }

    /// The rest of a fragment is read once it is durable; it is given up where that does not come.
    async fn lost(&mut self, mut live: Live) -> (Doing, Vec<Bytes>) {
        let player = &self.kvs.player;
        let stream = self.reading.stream.stream;
        // Followed before the look, so that nothing is missed.
        let mut durable = player.hub.durable(stream);
        if let Some(entry) = player.index.timeline().get(stream, live.number) {
            let source = Arc::clone(&player.source);
            let resumed = StoredDocument::resume(&*source, Arc::clone(&entry), live.document, live.frame_count).await;
            return match resumed {
                Ok(document) => (Doing::Stored(document), Vec::new()),
                Err(error) => self.unreadable(&entry, &error),
            };
        }
        let is_passed = self.next_stored(live.number).is_some() || !player.hub.is_live(stream);
        if is_passed && live.until.is_none() {
            live.until = Some(Instant::now() + PATIENCE);
        }
        if live.is_given_up() {
            return self.over_with(live.number, Vec::new());
        }
        // Whether it came or not: looked at again.
        let _ = timeout_at(live.wakes(), durable.next()).await;
        (Doing::Lost(live), Vec::new())
    }

    async fn begin_stored(&mut self, entry: SharedEntry) -> (Doing, Vec<Bytes>) {
        match StoredDocument::open(&*self.kvs.player.source, Arc::clone(&entry)).await {
            Ok(document) => {
                let begin = document.begin();
                (Doing::Stored(document), vec![begin])
            }
            Err(error) => self.unreadable(&entry, &error),
        }
    }

    async fn stored(&mut self, mut document: StoredDocument) -> (Doing, Vec<Bytes>) {
        match document.next(&*self.kvs.player.source).await {
            Ok(Some(bytes)) => (Doing::Stored(document), bytes),
            Ok(None) => {
                let bytes = vec![document.tags(), document.end(self.kvs.clock.now())];
                self.over_with(document.entry.meta.number, bytes)
            }
            Err(error) => self.unreadable(&Arc::clone(&document.entry), &error),
        }
    }

    /// What expired is passed over. What is damaged is named, and the rest goes on. Where the store does not answer,
    /// clients have to come again.
    fn unreadable(&mut self, entry: &SharedEntry, error: &ReadError) -> (Doing, Vec<Bytes>) {
        let number = entry.meta.number;
        if error.kind() == ErrorKind::NotFound || !self.reading.goes_on(&self.kvs) {
            return self.over_with(number, Vec::new());
        }
        tracing::error!(%error, "a fragment is not sent");
        let named = vec![error_document(&number.to_string(), Fault::of(error))];
        if error.kind() == ErrorKind::Corrupt { self.over_with(number, named) } else { (Doing::Over, named) }
    }

    fn over_with(&mut self, number: FragmentNumber, bytes: Vec<Bytes>) -> (Doing, Vec<Bytes>) {
        self.after = number;
        if let Some(head) = &mut self.head {
            head.forget_until(number);
        }
        (Doing::Choosing, bytes)
    }
}
