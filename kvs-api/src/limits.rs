//! How often, and how much at the same time, as the service publishes it: for each stream, of all operations but PutMedia,
//! which has its own (`put_media::rate`).
//!
//! A bucket for each operation, and two that reads share: points of metadata and of media. A call is let through while less
//! than [`BURST`] is owed of its bucket, whatever it costs itself: a list of 1,000 fragments is more than a second's worth.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use vidar_core::ids::StreamId;

use crate::error::{ServiceError, ServiceResult};
use crate::put_media::Debt;

/// So much of a rate may come at once.
const BURST: Duration = Duration::from_secs(5);
/// Above it buckets that are full again are looked for.
const BUCKET_COUNT_PRUNE: usize = 4096;
const METADATA_POINTS_PER_S: u32 = 10_000;
const MEDIA_POINTS_PER_S: u32 = 500;
const METADATA: &str = "points of metadata";
const MEDIA: &str = "points of media";

/// A stream, or the whole account, and what is counted.
type Key = (Option<StreamId>, &'static str);

/// What was used of the limits. The default has none.
#[derive(Debug, Default)]
pub struct CallLimits {
    published: bool,
    /// Guards what was used; held for a look-up, or to forget what is not used any more.
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    rates: HashMap<Key, Debt>,
    open: HashMap<Key, usize>,
}

/// Calls of an operation in a second; none: it is counted otherwise.
fn per_s(operation: &str) -> Option<u32> {
    match operation {
        "PutMedia" | "ListFragments" | "GetMediaForFragmentList" | "GetClip" | "GetImages" => None,
        "CreateStream" | "ListStreams" => Some(50),
        "GetHLSStreamingSessionURL" | "GetDASHStreamingSessionURL" => Some(25),
        "StartEdgeConfigurationUpdate" => Some(1),
        _ => Some(5),
    }
}

impl CallLimits {
    /// Those that the service publishes.
    #[must_use]
    pub fn published() -> Self {
        Self { published: true, ..Self::default() }
    }

    /// One more call, of a stream or of the account.
    pub(crate) fn call(&self, stream: Option<StreamId>, operation: &'static str, now: Duration) -> ServiceResult<()> {
        match per_s(operation) {
            Some(per_s) => self.take((stream, operation), 1, per_s, now),
            None => Ok(()),
        }
    }

    /// A look at so many fragments.
    pub(crate) fn metadata(&self, stream: StreamId, points: usize, now: Duration) -> ServiceResult<()> {
        self.take((Some(stream), METADATA), points, METADATA_POINTS_PER_S, now)
    }

    /// The media of so many fragments.
    pub(crate) fn media(&self, stream: StreamId, points: usize, now: Duration) -> ServiceResult<()> {
        self.take((Some(stream), MEDIA), points, MEDIA_POINTS_PER_S, now)
    }

    fn take(&self, key: Key, count: usize, per_s: u32, now: Duration) -> ServiceResult<()> {
        if !self.published {
            return Ok(());
        }
        let mut used = self.used();
        if used.rates.len() > BUCKET_COUNT_PRUNE {
            used.rates.retain(|_, debt| debt.is_owed(now));
        }
        let debt = used.rates.entry(key).or_default();
        if debt.owed(now) >= BURST {
            return Err(ServiceError::client_limit(format!("Rate exceeded: {} at {per_s} a second.", key.1)));
        }
        debt.take(now, count as u64, Some(per_s), BURST);
        Ok(())
    }

    /// An answer that goes on for long; none: there are `count_max` of that stream already.
    pub(crate) fn open(self: &Arc<Self>, stream: StreamId, operation: &'static str, count_max: usize) -> Option<Open> {
        let key = (Some(stream), operation);
        let mut used = self.used();
        let count = used.open.entry(key).or_default();
        if self.published && *count >= count_max {
            return None;
        }
        *count += 1;
        Some(Open { limits: Arc::clone(self), key })
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An answer that is counted until dropped.
#[derive(Debug)]
pub(crate) struct Open {
    limits: Arc<CallLimits>,
    key: Key,
}

impl Drop for Open {
    fn drop(&mut self) {
        let mut used = self.limits.used();
        if let Some(count) = used.open.get_mut(&self.key) {
            *count -= 1;
            if *count == 0 {
                used.open.remove(&self.key);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calls_are_counted_for_each_stream_and_operation() {
        let (limits, now) = (CallLimits::published(), Duration::from_secs(100));
        let (one, other) = (Some(StreamId::new()), Some(StreamId::new()));
        assert!((0..25).all(|_| limits.call(one, "DescribeStream", now).is_ok()));
        let error = limits.call(one, "DescribeStream", now).unwrap_err();
        assert!(format!("{error:?}").contains("ClientLimitExceededException"), "{error:?}");
        assert!(limits.call(other, "DescribeStream", now).is_ok() && limits.call(one, "TagStream", now).is_ok());
        assert!(limits.call(one, "DescribeStream", now + Duration::from_millis(200)).is_ok());
        assert!((0..125).all(|_| limits.call(one, "GetHLSStreamingSessionURL", now).is_ok()));
        assert!(limits.call(one, "GetHLSStreamingSessionURL", now).is_err());
        assert!((0..1000).all(|_| limits.call(one, "PutMedia", now).is_ok()), "it counts for itself");
        let free = CallLimits::default();
        assert!((0..1000).all(|_| free.call(one, "DescribeStream", now).is_ok()));
    }

    #[test]
    fn points_are_counted_for_each_stream() {
        let (limits, now) = (CallLimits::published(), Duration::from_secs(100));
        let (one, other) = (StreamId::new(), StreamId::new());
        assert!((0..50).all(|_| limits.metadata(one, 1000, now).is_ok()));
        assert!(limits.metadata(one, 1, now).is_err() && limits.metadata(other, 1, now).is_ok());
        // One call may cost more than there is; the next waits for it.
        assert!(limits.media(one, 3000, now).is_ok() && limits.media(one, 1, now).is_err());
        assert!(limits.media(one, 1, now + Duration::from_secs(1)).is_err());
        assert!(limits.media(one, 1, now + Duration::from_millis(1001)).is_ok());
    }

    #[test]
    fn answers_count_until_they_end() {
        let (limits, stream) = (Arc::new(CallLimits::published()), StreamId::new());
        let mut open: Vec<_> = (0..3).map(|_| limits.open(stream, "GetMedia", 3).expect("room")).collect();
        assert!(limits.open(stream, "GetMedia", 3).is_none());
        assert!(limits.open(StreamId::new(), "GetMedia", 3).is_some());
        drop(open.pop());
        drop(limits.open(stream, "GetMedia", 3).expect("room"));
        open.clear();
        assert!(limits.used().open.is_empty(), "nothing is kept");
        let free = Arc::new(CallLimits::default());
        assert!((0..100).map(|_| free.open(stream, "GetMedia", 3)).collect::<Vec<_>>().iter().all(Option::is_some));
    }

    #[test]
    fn what_is_not_used_any_more_is_forgotten() {
        let limits = CallLimits::published();
        for second in 0..10_000 {
            limits.call(Some(StreamId::new()), "TagStream", Duration::from_secs(second)).unwrap();
        }
        assert!(limits.used().rates.len() <= BUCKET_COUNT_PRUNE + 1);
    }
}
