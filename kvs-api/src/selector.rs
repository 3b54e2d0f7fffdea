//! Which fragments a request names: a range of times, by the producer's clock or the server's, compared with when
//! fragments began.

use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;
use vidar_indexer::{RangeQuery, TimeAxis, Timeline};

use crate::call::required;
use crate::error::{ServiceError, ServiceResult};

/// The longest range.
const RANGE_MS_MAX: i64 = 86_400_000;
/// Fragments of a range at most: a day of 2 s and some.
pub(crate) const FRAGMENTS_MAX: usize = 50_000;
const PAGE: usize = 1000;

/// Seconds since 1970, or RFC 3339.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Time(pub(crate) UnixMs);

impl<'de> Deserialize<'de> for Time {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let at = match Value::deserialize(deserializer)? {
            Value::Number(seconds) => seconds.as_f64().map(|seconds| (seconds * 1000.0).round()).and_then(of_ms),
            Value::String(text) => UnixMs::parse(&text).ok(),
            _ => None,
        };
        at.map(Self).ok_or_else(|| D::Error::custom("expected a time: seconds since 1970"))
    }
}

/// Within the years that can be written.
fn of_ms(ms: f64) -> Option<UnixMs> {
    (ms.abs() <= 253_402_300_799_999.0).then_some(UnixMs(ms as i64))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct TimestampRange {
    pub(crate) start_timestamp: Option<Time>,
    pub(crate) end_timestamp: Option<Time>,
}

/// As clips and sessions have it.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Selector {
    pub(crate) fragment_selector_type: Option<String>,
    pub(crate) timestamp_range: Option<TimestampRange>,
}

/// Whose clock that names.
pub(crate) fn axis(text: &str) -> ServiceResult<TimeAxis> {
    match text {
        "PRODUCER_TIMESTAMP" => Ok(TimeAxis::Producer),
        "SERVER_TIMESTAMP" => Ok(TimeAxis::Server),
        other => Err(ServiceError::invalid(format!("{other:?} is neither PRODUCER_TIMESTAMP nor SERVER_TIMESTAMP."))),
    }
}

/// When a fragment began, by that clock.
pub(crate) fn began(axis: TimeAxis, entry: &SharedEntry) -> UnixMs {
    match axis {
        TimeAxis::Producer => entry.meta.producer_start,
        TimeAxis::Server => entry.meta.server_start(),
    }
}

/// Times, both ends among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Range {
    pub(crate) axis: TimeAxis,
    pub(crate) start: UnixMs,
    /// None: it does not end.
    pub(crate) end: Option<UnixMs>,
}

impl Range {
    /// A range that may be asked for.
    pub(crate) fn new(axis: TimeAxis, start: UnixMs, end: Option<UnixMs>, now: UnixMs) -> ServiceResult<Self> {
        if let Some(end) = end {
            if end <= start {
                return Err(ServiceError::invalid("EndTimestamp: expected a time after StartTimestamp."));
            }
            if end.since_ms(start) > RANGE_MS_MAX {
                return Err(ServiceError::invalid("EndTimestamp: more than 24 hours after StartTimestamp."));
            }
            if axis == TimeAxis::Server && end > now {
                return Err(ServiceError::invalid("EndTimestamp: expected a time in the past."));
            }
        }
        Ok(Self { axis, start, end })
    }

    /// One that has to have both ends.
    pub(crate) fn closed(selector: Selector, now: UnixMs) -> ServiceResult<Self> {
        let axis = axis(&required("FragmentSelectorType", selector.fragment_selector_type)?)?;
        let range = required("TimestampRange", selector.timestamp_range)?;
        let start = required("StartTimestamp", range.start_timestamp)?;
        let end = required("EndTimestamp", range.end_timestamp)?;
        Self::new(axis, start.0, Some(end.0), now)
    }

    /// A fragment began within it.
    pub(crate) fn holds(&self, entry: &SharedEntry) -> bool {
        let began = began(self.axis, entry);
        began >= self.start && self.end.is_none_or(|end| began <= end)
    }

    /// The fragments that began within it, in order of its clock; at most `count_max`. Those that began at the same time
    /// by the producer's clock are one: the one that came last.
    pub(crate) fn fragments(&self, timeline: &Timeline, stream: StreamId, count_max: usize) -> Vec<SharedEntry> {
        if self.axis == TimeAxis::Server {
            return self.all(timeline, stream, count_max);
        }
        let mut found = self.all(timeline, stream, FRAGMENTS_MAX);
        keep_last_of_equal_times(&mut found);
        found.truncate(count_max);
        found
    }

    /// The fragments that began within it, in order of its clock and of their numbers; at most `count_max`.
    pub(crate) fn all(&self, timeline: &Timeline, stream: StreamId, count_max: usize) -> Vec<SharedEntry> {
        let (mut found, mut after) = (Vec::new(), None);
        loop {
            let query = RangeQuery {
                stream,
                axis: self.axis,
                // Also one without a duration.
                start: Some(self.start.plus_ms(-1)),
                end: self.end.map(|end| end.plus_ms(1)),
                after,
                limit: PAGE,
                descending: false,
            };
            let page = timeline.range(&query);
            found.extend(page.entries.into_iter().filter(|entry| self.holds(entry)));
            after = page.next;
            if after.is_none() || found.len() >= count_max {
                found.truncate(count_max);
                return found;
            }
        }
    }
}

/// Of fragments in order of producer time and number, those that no later one of the same time stands for.
pub(crate) fn keep_last_of_equal_times(fragments: &mut Vec<SharedEntry>) {
    fragments.dedup_by(|later, kept| {
        let equal = later.meta.producer_start == kept.meta.producer_start;
        if equal {
            std::mem::swap(later, kept);
        }
        equal
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_seconds_or_text() {
        let read = |text: &str| serde_json::from_str::<Time>(text).map(|time| time.0.0).ok();
        assert_eq!(read("1767323045"), Some(1_767_323_045_000));
        assert_eq!(read("1767323045.678"), Some(1_767_323_045_678));
        assert_eq!(read("1.767323045678E9"), Some(1_767_323_045_678));
        assert_eq!(read("\"2026-01-02T03:04:05.678Z\""), Some(1_767_323_045_678));
        for bad in ["null", "true", "[]", "\"\"", "\"soon\"", "1e300", "-1e300"] {
            assert_eq!(read(bad), None, "{bad}");
        }
    }

    #[test]
    fn ranges_that_may_be_asked_for() {
        let (start, now) = (UnixMs(1_000), UnixMs(500_000));
        let range = |axis, end| Range::new(axis, start, Some(UnixMs(end)), now);
        assert!(range(TimeAxis::Server, 500_000).is_ok());
        assert!(range(TimeAxis::Server, 500_001).is_err());
        assert!(range(TimeAxis::Producer, 1_000 + RANGE_MS_MAX).is_ok());
        assert!(range(TimeAxis::Producer, 1_001 + RANGE_MS_MAX).is_err());
        assert!(range(TimeAxis::Producer, 1_000).is_err());
        assert!(Range::new(TimeAxis::Producer, start, None, now).is_ok());
    }
}
