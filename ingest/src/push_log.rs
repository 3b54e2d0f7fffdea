//! What became of a push, fragment by fragment: the answer of an HTTP push, and what `/v1/pushes/ID` shows.
//!
//! Ingest writes and never waits; readers follow at their own pace. Of a long push the newest
//! lines are kept.

use std::collections::VecDeque;
use std::sync::Mutex;

use serde::Serialize;
use tokio::sync::Notify;
use vidar_core::ids::{FragmentNumber, PushId, StreamName};
use vidar_core::sink::Durable;
use vidar_core::time::UnixMs;

/// Lines kept of a push over HTTP, which is answered from them; a day of 2 s fragments is 43,200.
pub const LINE_COUNT_MAX: usize = 1 << 16;
/// Lines kept of other pushes, which go on for months.
pub const OTHER_LINE_COUNT_MAX: usize = 1 << 8;

/// One line of an answer.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(tag = "event", rename_all = "snake_case")]
pub enum PushLine {
    /// A fragment is durable.
    Durable {
        /// Its name.
        fragment_number: FragmentNumber,
        /// When it began, by the producer's clock.
        producer_time: UnixMs,
        /// When it began, by the server's clock.
        server_time: UnixMs,
        /// In milliseconds.
        duration_ms: u32,
        /// Stored bytes of its samples.
        size_bytes: u64,
    },
    /// Something failed.
    Error {
        /// HTTP status that says it.
        status: u16,
        /// What happened.
        detail: String,
        /// Of the fault in the body, in bytes.
        #[serde(skip_serializing_if = "Option::is_none")]
        offset: Option<u64>,
    },
    /// The push is over.
    Summary {
        /// Fragments that are durable.
        fragments: u64,
        /// Stored bytes of their samples.
        size_bytes: u64,
    },
}

/// State of a push for listings.
#[derive(Debug, Clone, Serialize)]
pub struct PushStatus {
    /// Its id.
    pub push: PushId,
    /// The stream it goes to.
    pub stream: StreamName,
    /// `rtsp`, `http`, …
    pub protocol: &'static str,
    /// Address it comes from.
    pub source: String,
    /// When it began, by the server's clock.
    pub started: UnixMs,
    /// It goes on.
    pub open: bool,
    /// Fragments that are durable.
    pub fragments: u64,
    /// Stored bytes of their samples.
    pub size_bytes: u64,
}

#[derive(Debug, Default)]
struct State {
    lines: VecDeque<PushLine>,
    /// Lines that are no longer kept.
    forgotten: u64,
    fragments: u64,
    size_bytes: u64,
    first_error: Option<u16>,
    ended: bool,
}

/// The log of one push.
#[derive(Debug)]
pub struct PushLog {
    /// Its id.
    pub push: PushId,
    /// The stream it goes to.
    pub stream: StreamName,
    protocol: &'static str,
    source: String,
    started: UnixMs,
    line_count_max: usize,
    /// Guards the lines; held to copy some.
    state: Mutex<State>,
    changed: Notify,
}

impl PushLog {
    /// An empty log.
    #[must_use]
    pub fn new(push: PushId, stream: StreamName, protocol: &'static str, source: String, started: UnixMs) -> Self {
        let line_count_max = if protocol == "http" { LINE_COUNT_MAX } else { OTHER_LINE_COUNT_MAX };
        Self {
            push,
            stream,
            protocol,
            source,
            started,
            line_count_max,
            state: Mutex::default(),
            changed: Notify::new(),
        }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().expect("no panic under this lock"))
    }

    fn add(&self, line: PushLine) {
        self.with(|state| {
            if state.lines.len() == self.line_count_max {
                state.lines.pop_front();
                state.forgotten += 1;
            }
            state.lines.push_back(line);
        });
        self.changed.notify_waiters();
    }

    pub(crate) fn durable(&self, durable: &Durable) {
        self.with(|state| {
            state.fragments += 1;
            state.size_bytes += durable.size_bytes;
        });
        self.add(PushLine::Durable {
            fragment_number: durable.number,
            producer_time: durable.producer_start,
            server_time: UnixMs(durable.number.server_ms()),
            duration_ms: durable.duration_ms,
            size_bytes: durable.size_bytes,
        });
    }

    pub(crate) fn error(&self, status: u16, detail: String, offset: Option<u64>) {
        self.with(|state| state.first_error = state.first_error.or(Some(status)));
        self.add(PushLine::Error { status, detail, offset });
    }

    pub(crate) fn end(&self) {
        let summary = self.with(|state| {
            let first = !std::mem::replace(&mut state.ended, true);
            first.then_some(PushLine::Summary { fragments: state.fragments, size_bytes: state.size_bytes })
        });
        if let Some(summary) = summary {
            self.add(summary);
        }
    }

    /// State for listings.
    #[must_use]
    pub fn status(&self) -> PushStatus {
        self.with(|state| PushStatus {
            push: self.push,
            stream: self.stream.clone(),
            protocol: self.protocol,
            source: self.source.clone(),
            started: self.started,
            open: !state.ended,
            fragments: state.fragments,
            size_bytes: state.size_bytes,
        })
    }

    /// Fragments that are durable, and the status of the first error.
    #[must_use]
    pub fn outcome(&self) -> (u64, Option<u16>) {
        self.with(|state| (state.fragments, state.first_error))
    }

    /// Up to `limit` lines from position `from` on, the position after them, and whether the log ends there.
    #[must_use]
    pub fn lines(&self, from: u64, limit: usize) -> (Vec<PushLine>, u64, bool) {
        self.with(|state| {
            let skip = usize::try_from(from.saturating_sub(state.forgotten)).unwrap_or(usize::MAX);
            let lines: Vec<PushLine> = state.lines.iter().skip(skip).take(limit).cloned().collect();
            let next = from.max(state.forgotten) + lines.len() as u64;
            let end = state.forgotten + state.lines.len() as u64;
            (lines, next, state.ended && next >= end)
        })
    }

    /// As `lines`, but waits until there is one, or the log has ended.
    pub async fn next_lines(&self, from: u64, limit: usize) -> (Vec<PushLine>, u64, bool) {
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let (lines, next, ended) = self.lines(from, limit);
            if !lines.is_empty() || ended {
                return (lines, next, ended);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_read_from_any_position_and_the_oldest_are_forgotten() {
        let log = PushLog::new(PushId::new(), StreamName::new("cam").unwrap(), "http", "test".into(), UnixMs(0));
        for _ in 0..LINE_COUNT_MAX {
            log.error(400, String::new(), None);
        }
        for status in 0..9 {
            log.error(status, String::new(), Some(7));
        }
        log.end();
        log.end();
        let (lines, next, ended) = log.lines(0, 1);
        assert_eq!((lines.len(), ended), (1, false));
        assert_eq!(next, log.with(|state| state.forgotten) + 1);
        let (lines, _, ended) = log.lines(0, usize::MAX);
        assert_eq!((lines.len(), ended), (LINE_COUNT_MAX, true));
        assert_eq!(lines.last(), Some(&PushLine::Summary { fragments: 0, size_bytes: 0 }));
        assert_eq!(log.outcome(), (0, Some(400)));
    }

    #[test]
    fn lines_have_the_documented_shape() {
        let line = PushLine::Durable {
            fragment_number: FragmentNumber::new(1, 2, 3),
            producer_time: UnixMs(1),
            server_time: UnixMs(2),
            duration_ms: 3,
            size_bytes: 4,
        };
        let text = serde_json::to_string(&line).unwrap();
        assert!(text.starts_with(r#"{"event":"durable","fragment_number":"9"#), "{text}");
        assert!(text.ends_with(r#""producer_time":"1970-01-01T00:00:00.001Z","server_time":"1970-01-01T00:00:00.002Z","duration_ms":3,"size_bytes":4}"#), "{text}");
    }
}
