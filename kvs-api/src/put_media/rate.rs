//! How much at the same time, and how fast.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use vidar_core::ids::StreamId;

/// So much of what is not used is kept for later: a client that connects again sends up to 40 s at once.
const BURST: Duration = Duration::from_secs(5);
const CALL_BURST: Duration = Duration::from_secs(1);
/// Above it those that are not used any more are looked for.
const STREAM_COUNT_PRUNE: usize = 1024;

/// Limits for each stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// In a second.
    pub calls: Option<u32>,
    /// In a second. A client that sends more is read more slowly.
    pub fragments: Option<u32>,
    /// In a second. A client that sends more is read more slowly.
    pub bytes: Option<u32>,
    /// At the same time, of which the older ones have to end soon.
    pub connections: usize,
    /// Of the producer, in a fragment.
    pub tags: usize,
    /// Bytes of a tag's value.
    pub tag_value_bytes: usize,
    /// After which a connection ends.
    pub connection: Duration,
}

impl Default for Limits {
    /// As the service publishes them.
    fn default() -> Self {
        Self {
            calls: Some(5),
            fragments: Some(5),
            bytes: Some(12_500_000),
            connections: 2,
            tags: 10,
            tag_value_bytes: 256,
            connection: Duration::from_secs(45 * 60),
        }
    }
}

impl Limits {
    /// None but those of this server.
    pub const NONE: Self = Self {
        calls: None,
        fragments: None,
        bytes: None,
        connections: usize::MAX,
        tags: usize::MAX,
        tag_value_bytes: usize::MAX,
        connection: Duration::MAX,
    };

    /// How long an older connection may go on beside a newer one.
    pub(super) fn overlap(&self, usual: Duration) -> Duration {
        if self.connections == usize::MAX { Duration::MAX } else { usual }
    }
}

/// When all that was taken is earned again.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Debt(Duration);

impl Debt {
    /// How long to wait after taking so much.
    pub(crate) fn take(&mut self, now: Duration, count: u64, per_s: Option<u32>, burst: Duration) -> Duration {
        let Some(per_s) = per_s else { return Duration::ZERO };
        let nanos = u128::from(count) * 1_000_000_000 / u128::from(per_s.max(1));
        let cost = Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX));
        self.0 = self.0.max(now).saturating_add(cost);
        self.0.saturating_sub(now).saturating_sub(burst)
    }

    /// What is not earned again yet.
    pub(crate) fn owed(&self, now: Duration) -> Duration {
        self.0.saturating_sub(now)
    }

    /// Some of it is not earned again yet.
    pub(crate) fn is_owed(&self, now: Duration) -> bool {
        self.0 > now
    }
}

#[derive(Debug, Clone, Copy, Default)]
struct Usage {
    calls: Debt,
    fragments: Debt,
    bytes: Debt,
}

/// What each stream used of its limits.
#[derive(Debug)]
pub(super) struct Rates {
    limits: Limits,
    /// Guards the uses; held for a look-up, or to forget old ones.
    streams: Mutex<HashMap<StreamId, Usage>>,
}

impl Rates {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, streams: Mutex::default() }
    }

    /// Whether one more call is within the limit.
    pub(super) fn call(&self, stream: StreamId, now: Duration) -> bool {
        let mut streams = self.streams.lock().expect("no panic under this lock");
        if streams.len() > STREAM_COUNT_PRUNE {
            streams.retain(|_, usage| [usage.calls, usage.fragments, usage.bytes].iter().any(|debt| debt.is_owed(now)));
        }
        let usage = streams.entry(stream).or_default();
        let mut calls = usage.calls;
        let good = calls.take(now, 1, self.limits.calls, CALL_BURST).is_zero();
        if good {
            usage.calls = calls;
        }
        good
    }

    /// Media came; how long to wait before more is read.
    pub(super) fn media(&self, stream: StreamId, now: Duration, bytes: usize, fragments: usize) -> Duration {
        let mut streams = self.streams.lock().expect("no panic under this lock");
        let usage = streams.entry(stream).or_default();
        let bytes = usage.bytes.take(now, bytes as u64, self.limits.bytes, BURST);
        bytes.max(usage.fragments.take(now, fragments as u64, self.limits.fragments, BURST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_each_stream() {
        let rates = Rates::new(Limits::default());
        let (one, other, now) = (StreamId::new(), StreamId::new(), Duration::from_secs(100));
        for _ in 0..5 {
            assert!(rates.call(one, now));
        }
        assert!(!rates.call(one, now) && rates.call(other, now));
        assert!(rates.call(one, now + Duration::from_millis(200)));
        for _ in 0..25 {
            assert_eq!(rates.media(one, now, 2_500_000, 1), Duration::ZERO);
        }
        assert_eq!(rates.media(one, now, 0, 1), Duration::from_millis(200));
        assert_eq!(rates.media(one, now, 12_500_000, 0), Duration::from_secs(1));
        assert_eq!(rates.media(one, now + Duration::from_secs(60), 12_500_000, 1), Duration::ZERO);
        let free = Rates::new(Limits::NONE);
        assert!((0..1000).all(|_| free.call(one, now) && free.media(one, now, 1 << 30, 9).is_zero()));
    }

    #[test]
    fn streams_that_are_gone_are_forgotten() {
        let rates = Rates::new(Limits::default());
        for second in 0..10_000 {
            assert!(rates.call(StreamId::new(), Duration::from_secs(second)));
        }
        assert!(rates.streams.lock().unwrap().len() <= STREAM_COUNT_PRUNE + 1);
    }
}
