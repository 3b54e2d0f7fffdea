//! What is still to be done for which fragments, over restarts: each one that is wanted at least once, none silently lost.
//!
//! Fragments of one stream get their ordinals as they begin, and become durable in another order where connections
//! overlap. So progress is, for each stream, the ordinal after the greatest that is settled, and those below it that are
//! not: still to be done, not durable yet, or never to be. What became durable is told by the log; at a start, and after
//! more came than is held, the timeline is looked through for what is not settled.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::Notify;
use uuid::Uuid;
use vidar_core::control::{Control, StreamSettings};
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::sample::Tag;
use vidar_core::time::UnixMs;

/// Fragments that are held to be done; of more the timeline is asked later.
const DUE_MAX: usize = 4096;
/// Ordinals of a stream that may be unsettled below its greatest.
const OPEN_MAX: usize = 2 * DUE_MAX;
/// After which an ordinal whose fragment did not come is given up.
const GIVEN_UP_MS: i64 = 86_400_000;
/// Fragments that the timeline is asked for at once.
const PAGE: usize = 1000;

/// A fragment for which something is to be done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Due {
    pub(crate) stream: StreamId,
    pub(crate) number: FragmentNumber,
    ordinal: u64,
}

impl Due {
    /// When the fragment began, by the server's clock.
    pub(crate) fn began(&self) -> UnixMs {
        UnixMs(self.number.server_ms())
    }
}

/// How far a stream is.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Progress {
    /// The configuration that it is the progress of: when it was set, in milliseconds since the epoch.
    since: i64,
    /// All ordinals below are settled…
    next: u64,
    /// …but these.
    open: BTreeSet<u64>,
}

impl Progress {
    fn is_settled(&self, ordinal: u64) -> bool {
        ordinal < self.next && !self.open.contains(&ordinal)
    }

    fn settle(&mut self, ordinal: u64) {
        if ordinal < self.next {
            self.open.remove(&ordinal);
            return;
        }
        let first = self.next.max(ordinal.saturating_sub(OPEN_MAX as u64));
        self.open.extend(first..ordinal);
        self.next = ordinal + 1;
        while self.open.len() > OPEN_MAX {
            self.open.pop_first();
        }
    }
}

/// Progress of all streams, as it is kept.
pub type Kept = HashMap<StreamId, Progress>;

/// A fragment as the timeline has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Seen {
    pub(crate) number: FragmentNumber,
    pub(crate) ordinal: u64,
    pub(crate) wanted: bool,
}

/// What became durable so far.
pub(crate) trait Past {
    /// The ordinal after that of the last fragment that began before a time.
    fn first_since(&self, stream: StreamId, since: UnixMs) -> u64;

    /// At most so many fragments from an ordinal on, in order.
    fn onwards(&self, stream: StreamId, ordinal: u64, limit: usize) -> Vec<Seen>;
}

/// A stream that is configured.
#[derive(Debug, Clone, Copy)]
struct Watched {
    /// The record that said so: the greatest number holds.
    number: FragmentNumber,
    since: Option<UnixMs>,
}

#[derive(Default)]
struct State {
    watched: HashMap<StreamId, Watched>,
    progress: Kept,
    due: BTreeMap<FragmentNumber, Due>,
    /// Not all that is due is held: the timeline has to be asked.
    behind: bool,
}

type Since = dyn Fn(&StreamSettings) -> Option<UnixMs> + Send + Sync;

/// One kind of thing to do.
pub(crate) struct Feed {
    /// From when on a stream with these settings has it done; none: not at all.
    since: Box<Since>,
    /// Whether it is done for a fragment with these tags.
    wanted: fn(&[Tag]) -> bool,
    state: Mutex<State>,
    changed: Notify,
}

/// What there is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Next {
    Do(Due),
    CatchUp,
    Nothing,
}

impl Feed {
    pub(crate) fn new(
        since: impl Fn(&StreamSettings) -> Option<UnixMs> + Send + Sync + 'static,
        wanted: fn(&[Tag]) -> bool,
    ) -> Self {
        let state = State { behind: true, ..State::default() };
        Self { since: Box::new(since), wanted, state: Mutex::new(state), changed: Notify::new() }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether it is done for a fragment with these tags.
    pub(crate) fn wants(&self, tags: &[Tag]) -> bool {
        (self.wanted)(tags)
    }

    /// Goes on from what was kept.
    pub(crate) fn restore(&self, kept: Kept) {
        let mut state = self.state();
        state.progress = kept;
        state.behind = true;
    }

    /// To be kept.
    pub(crate) fn progress(&self) -> Kept {
        self.state().progress.clone()
    }

    /// How many fragments are held to be done.
    pub(crate) fn due_len(&self) -> usize {
        self.state().due.len()
    }

    /// Resolves once there may be something new to do.
    pub(crate) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// The oldest thing to do.
    pub(crate) fn next(&self) -> Next {
        let state = self.state();
        match state.due.values().next() {
            Some(due) => Next::Do(*due),
            None if state.behind => Next::CatchUp,
            None => Next::Nothing,
        }
    }

    /// It is done, or given up.
    pub(crate) fn settle(&self, due: Due) {
        let mut state = self.state();
        state.due.remove(&due.number);
        if let Some(progress) = state.progress.get_mut(&due.stream) {
            progress.settle(due.ordinal);
        }
    }

    /// Looks through the past for what is not settled, as much as is held.
    pub(crate) fn catch_up(&self, past: &impl Past, now: UnixMs) {
        let watched: Vec<(StreamId, UnixMs)> = {
            let mut state = self.state();
            // What becomes durable from here on is taken from the log; what did before, is in the timeline.
            state.behind = false;
            let State { watched, progress, .. } = &mut *state;
            let since = |stream: &StreamId| watched.get(stream)?.since;
            progress.retain(|stream, progress| since(stream).is_some_and(|since| since.0 == progress.since));
            watched.keys().filter_map(|stream| Some((*stream, since(stream)?))).collect()
        };
        for (stream, since) in watched {
            self.catch_up_stream(past, stream, since, now);
        }
    }

    fn catch_up_stream(&self, past: &impl Past, stream: StreamId, since: UnixMs, now: UnixMs) {
        let known = self.state().progress.contains_key(&stream);
        let first = if known { 0 } else { past.first_since(stream, since) };
        let mut from = {
            let mut state = self.state();
            let begin = || Progress { since: since.0, next: first, open: BTreeSet::new() };
            let progress = state.progress.entry(stream).or_insert_with(begin);
            progress.open.first().copied().unwrap_or(progress.next)
        };
        loop {
            let page = past.onwards(stream, from, PAGE);
            let mut state = self.state();
            let State { progress, due, behind, .. } = &mut *state;
            let Some(progress) = progress.get_mut(&stream) else { return };
            for seen in &page {
                if due.len() >= DUE_MAX {
                    *behind = true;
                    return;
                }
                take(progress, due, stream, *seen);
            }
            // What began before one of so long ago will not come any more.
            let is_old = |seen: &&Seen| now.since_ms(UnixMs(seen.number.server_ms())) > GIVEN_UP_MS;
            if let Some(old) = page.iter().rfind(is_old) {
                let pending: BTreeSet<u64> =
                    due.values().filter(|due| due.stream == stream).map(|due| due.ordinal).collect();
                progress.open.retain(|ordinal| *ordinal >= old.ordinal || pending.contains(ordinal));
            }
            match page.last() {
                Some(last) if page.len() == PAGE => from = last.ordinal + 1,
                _ => return,
            }
        }
    }

    fn observe_fragment(&self, stream: StreamId, seen: impl FnOnce(fn(&[Tag]) -> bool) -> Seen) {
        let mut state = self.state();
        let Some(since) = state.watched.get(&stream).and_then(|watched| watched.since) else { return };
        // It is in the timeline already: the look through the past, which is still to come, finds it.
        if state.behind {
            return;
        }
        let State { progress, due, behind, .. } = &mut *state;
        match progress.get_mut(&stream) {
            Some(progress) if progress.since == since.0 && due.len() < DUE_MAX => {
                take(progress, due, stream, seen(self.wanted));
            }
            _ => *behind = true,
        }
        drop(state);
        self.changed.notify_one();
    }
}

/// A fragment that is there: one that nobody wants is settled.
fn take(progress: &mut Progress, due: &mut BTreeMap<FragmentNumber, Due>, stream: StreamId, seen: Seen) {
    let Seen { number, ordinal, wanted } = seen;
    match progress.is_settled(ordinal) {
        true => {}
        false if wanted => _ = due.insert(number, Due { stream, number, ordinal }),
        false => progress.settle(ordinal),
    }
}

impl LogObserver for Feed {
    fn observe(&self, event: &LogEvent) {
        match event {
            LogEvent::Fragment { entry, facts } => {
                let (number, ordinal) = (entry.meta.number, entry.meta.ordinal);
                self.observe_fragment(entry.meta.stream, |wanted| Seen {
                    number,
                    ordinal,
                    wanted: wanted(&facts.tags),
                });
            }
            LogEvent::Control(record) => match &record.body {
                Control::Stream(stream) => {
                    let mut state = self.state();
                    let older = state.watched.get(&stream.stream).filter(|watched| watched.number > record.number);
                    if older.is_none() {
                        let watched = Watched { number: record.number, since: (self.since)(&stream.settings) };
                        state.watched.insert(stream.stream, watched);
                        state.behind = true;
                        drop(state);
                        self.changed.notify_one();
                    }
                }
                Control::StreamDeleted { stream, .. } => {
                    let mut state = self.state();
                    state.watched.remove(stream);
                    state.progress.remove(stream);
                    state.due.retain(|_, due| due.stream != *stream);
                }
                _ => {}
            },
        }
    }

    /// Control records are told at each start, and fragments are asked of the timeline.
    fn save(&self, _id: Uuid) -> io::Result<()> {
        Ok(())
    }

    fn restore(&self, _id: Uuid) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Which fragments of one stream are durable: ordinal and whether a tag marks it.
    #[derive(Default)]
    struct Log(BTreeMap<u64, bool>);

    const SINCE: i64 = 1000;

    fn number(ordinal: u64, server_ms: i64) -> FragmentNumber {
        FragmentNumber::new(ordinal, server_ms as u64, 0)
    }

    impl Past for Log {
        fn first_since(&self, _: StreamId, _: UnixMs) -> u64 {
            0
        }

        fn onwards(&self, _: StreamId, ordinal: u64, limit: usize) -> Vec<Seen> {
            let seen = |(ordinal, wanted): (&u64, &bool)| Seen {
                number: number(*ordinal, SINCE),
                ordinal: *ordinal,
                wanted: *wanted,
            };
            self.0.range(ordinal..).map(seen).take(limit).collect()
        }
    }

    struct Bench {
        feed: Feed,
        log: Log,
        stream: StreamId,
        done: Vec<u64>,
    }

    impl Bench {
        fn new() -> Self {
            let (feed, stream) = (Feed::new(|_| None, |_| true), StreamId::new());
            let bench = Self { feed, log: Log::default(), stream, done: Vec::new() };
            bench.watch();
            bench
        }

        fn watch(&self) {
            let watched = Watched { number: number(0, 0), since: Some(UnixMs(SINCE)) };
            self.feed.state().watched.insert(self.stream, watched);
        }

        /// It becomes durable.
        fn durable(&mut self, ordinal: u64, wanted: bool) {
            self.log.0.insert(ordinal, wanted);
            self.feed.observe_fragment(self.stream, |_| Seen { number: number(ordinal, SINCE), ordinal, wanted });
        }

        /// Does what there is, so many times at most.
        fn work(&mut self, times: usize) {
            for _ in 0..times {
                match self.feed.next() {
                    Next::Do(due) => {
                        self.done.push(due.ordinal);
                        self.feed.settle(due);
                    }
                    Next::CatchUp => self.feed.catch_up(&self.log, UnixMs(SINCE)),
                    Next::Nothing => return,
                }
            }
        }

        /// Another process goes on from what was kept.
        fn restart(&mut self, kept: Kept) {
            let text = serde_json::to_string(&kept).unwrap();
            self.feed = Feed::new(|_| None, |_| true);
            self.watch();
            self.feed.restore(serde_json::from_str(&text).unwrap());
        }
    }

    #[test]
    fn an_older_fragment_that_gets_durable_later_is_done_also_after_a_restart() {
        let mut bench = Bench::new();
        bench.work(9);
        bench.durable(0, true);
        // 1 is still open, on a connection that overlaps.
        bench.durable(2, true);
        bench.durable(3, false);
        bench.work(9);
        assert_eq!(bench.done, [0, 2]);
        let kept = bench.feed.progress();
        bench.restart(kept);
        bench.work(9);
        assert_eq!(bench.done, [0, 2], "nothing is done again");
        bench.durable(1, true);
        bench.work(9);
        assert_eq!(bench.done, [0, 2, 1]);
        // It became durable while nobody looked.
        bench.durable(5, true);
        bench.work(9);
        let kept = bench.feed.progress();
        bench.log.0.insert(4, true);
        bench.restart(kept);
        bench.work(9);
        assert_eq!(bench.done, [0, 2, 1, 5, 4]);
    }

    #[test]
    fn what_was_not_settled_when_it_was_kept_is_done_again() {
        let mut bench = Bench::new();
        bench.work(9);
        for ordinal in 0..4 {
            bench.durable(ordinal, true);
        }
        bench.work(1);
        let kept = bench.feed.progress();
        bench.work(1);
        bench.restart(kept);
        bench.work(99);
        assert_eq!(bench.done, [0, 1, 1, 2, 3]);
    }

    #[test]
    fn more_than_is_held_is_done_all_the_same() {
        let mut bench = Bench::new();
        bench.work(9);
        let count = 3 * DUE_MAX as u64 + 7;
        for ordinal in 0..count {
            bench.durable(ordinal, ordinal % 2 == 0);
        }
        assert_eq!(bench.feed.due_len(), DUE_MAX);
        bench.work(usize::MAX);
        assert_eq!(bench.done, (0..count).step_by(2).collect::<Vec<_>>());
        assert!(bench.feed.progress()[&bench.stream].open.is_empty());
    }

    #[test]
    fn what_does_not_come_is_given_up_after_a_day() {
        let mut bench = Bench::new();
        bench.work(9);
        bench.durable(0, true);
        bench.durable(2, true);
        bench.work(9);
        assert_eq!(bench.feed.progress()[&bench.stream].open.len(), 1);
        let kept = bench.feed.progress();
        bench.restart(kept);
        bench.feed.catch_up(&bench.log, UnixMs(SINCE + GIVEN_UP_MS));
        assert_eq!(bench.feed.progress()[&bench.stream].open.len(), 1);
        bench.feed.catch_up(&bench.log, UnixMs(SINCE + GIVEN_UP_MS + 1));
        assert!(bench.feed.progress()[&bench.stream].open.is_empty());
    }
}
