//! What one publisher sent and what the server said of it.

use std::time::{Duration, Instant};

use serde_json::Value;

/// Above this (99th percentile of writes) the schedule was not kept, and the run says nothing: a picture lasts 33 ms.
pub(crate) const LATE: Duration = Duration::from_millis(30);

/// A publisher that is this late is not served as it should be.
pub(crate) const SLOW: Duration = Duration::from_secs(1);

/// Counts of one publisher, or of all together.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tally {
    pub(crate) sent_fragments: u64,
    /// Of samples, as the server counts.
    pub(crate) sent_bytes: u64,
    /// As the server said: durable lines, or a listing.
    pub(crate) stored_fragments: u64,
    pub(crate) stored_bytes: u64,
    /// Packets or samples that the server knows it lost.
    pub(crate) lost: u64,
    /// Of the fragments in a listing that lost nothing.
    pub(crate) whole_bytes: u64,
    pub(crate) whole_ms: u64,
    pub(crate) errors: Vec<String>,
    /// From the first byte of the next fragment (of fMP4: the last byte of its own) to its durable line.
    pub(crate) latencies: Vec<Duration>,
    /// Of writes behind their schedule.
    pub(crate) lags: Vec<Duration>,
    /// When something was last more than [`SLOW`] late: a write, or a durable line.
    pub(crate) last_slow: Option<Instant>,
    /// When fragments ended, by their order.
    pub(crate) ended: Vec<Instant>,
}

impl Tally {
    /// The fragment that is being sent is complete.
    pub(crate) fn end_fragment(&mut self, now: Instant) {
        if (self.ended.len() as u64) < self.sent_fragments {
            self.ended.push(now);
        }
    }

    pub(crate) fn note_slow(&mut self, late: Duration, now: Instant) {
        if late > SLOW {
            self.last_slow = Some(now);
        }
    }

    /// A line of the answer to a push.
    pub(crate) fn answered(&mut self, line: &[u8], now: Instant) {
        let event: Value = serde_json::from_slice(line).unwrap_or_default();
        match event["event"].as_str() {
            Some("durable") => {
                if let Some(ended) = self.ended.get(self.stored_fragments as usize) {
                    let latency = now.saturating_duration_since(*ended);
                    self.latencies.push(latency);
                    self.note_slow(latency, now);
                }
                self.stored_fragments += 1;
                self.stored_bytes += event["size_bytes"].as_u64().unwrap_or_default();
            }
            Some("summary") => {}
            _ => self.errors.push(String::from_utf8_lossy(line).into_owned()),
        }
    }

    /// A page of the fragments of a stream.
    pub(crate) fn listed(&mut self, page: &Value) {
        for fragment in page["fragments"].as_array().into_iter().flatten() {
            let number = |field: &str| fragment[field].as_u64().unwrap_or_default();
            self.stored_fragments += 1;
            self.stored_bytes += number("size_bytes");
            self.lost += number("lost_count");
            if number("lost_count") == 0 {
                self.whole_bytes += number("size_bytes");
                self.whole_ms += number("duration_ms");
            }
        }
    }

    /// Not yet acknowledged.
    pub(crate) fn waiting(&self) -> u64 {
        self.sent_fragments.saturating_sub(self.stored_fragments)
    }

    pub(crate) fn add(&mut self, other: Self) {
        self.sent_fragments += other.sent_fragments;
        self.sent_bytes += other.sent_bytes;
        self.stored_fragments += other.stored_fragments;
        self.stored_bytes += other.stored_bytes;
        self.lost += other.lost;
        self.errors.extend(other.errors);
        self.latencies.extend(other.latencies);
        self.lags.extend(other.lags);
        self.last_slow = self.last_slow.max(other.last_slow);
    }

    /// Why the run does not count. Empty: it does.
    pub(crate) fn faults(&self) -> Vec<String> {
        let mut faults = Vec::new();
        let mut compare = |what: &str, sent: u64, stored: u64| {
            if sent != stored {
                faults.push(format!("{sent} {what} sent, {stored} stored"));
            }
        };
        compare("fragments", self.sent_fragments, self.stored_fragments);
        compare("bytes of samples", self.sent_bytes, self.stored_bytes);
        compare("lost packets", 0, self.lost);
        let lag = percentile(&mut self.lags.clone(), 99);
        if lag > LATE {
            faults.push(format!("the load was late: {} ms at the 99th percentile", lag.as_millis()));
        }
        faults.extend(self.errors.first().map(|error| format!("{} errors: {error}", self.errors.len())));
        faults
    }
}

/// Nearest rank; nothing is 0.
pub(crate) fn percentile(values: &mut [Duration], percent: usize) -> Duration {
    values.sort_unstable();
    let rank = (values.len() * percent).div_ceil(100).max(1);
    values.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sent_and_stored() -> Tally {
        let mut tally = Tally { sent_fragments: 2, sent_bytes: 30, ..Tally::default() };
        tally.answered(br#"{"event":"durable","size_bytes":10}"#, Instant::now());
        tally.answered(br#"{"event":"durable","size_bytes":20}"#, Instant::now());
        tally.answered(br#"{"event":"summary","fragments":2}"#, Instant::now());
        tally
    }

    #[test]
    fn what_is_all_acknowledged_has_no_fault() {
        assert_eq!(sent_and_stored().faults(), Vec::<String>::new());
    }

    #[test]
    fn a_missing_acknowledgement_is_a_fault() {
        let tally = Tally { sent_fragments: 3, ..sent_and_stored() };
        assert_eq!(tally.faults(), ["3 fragments sent, 2 stored"]);
        let tally = Tally { sent_bytes: 31, ..sent_and_stored() };
        assert_eq!(tally.faults(), ["31 bytes of samples sent, 30 stored"]);
    }

    #[test]
    fn errors_and_losses_are_faults() {
        let mut tally = sent_and_stored();
        tally.answered(br#"{"event":"error","status":400}"#, Instant::now());
        assert_eq!(tally.faults(), [r#"1 errors: {"event":"error","status":400}"#]);
        let mut tally = Tally { sent_fragments: 1, sent_bytes: 5, ..Tally::default() };
        tally.listed(&serde_json::json!({"fragments": [{"size_bytes": 5, "lost_count": 3}]}));
        assert_eq!(tally.faults(), ["0 lost packets sent, 3 stored"]);
    }

    #[test]
    fn a_late_schedule_is_a_fault_and_one_late_write_is_not() {
        let mut tally = Tally { lags: vec![Duration::ZERO; 199], ..sent_and_stored() };
        tally.lags.push(LATE * 2);
        assert_eq!(tally.faults(), Vec::<String>::new());
        tally.lags.extend([LATE * 2; 2]);
        assert_eq!(tally.faults(), ["the load was late: 60 ms at the 99th percentile"]);
    }

    #[test]
    fn latency_counts_from_the_end_of_the_same_fragment() {
        let start = Instant::now();
        let mut tally = Tally::default();
        for second in 0..2 {
            tally.end_fragment(start + Duration::from_secs(second));
            tally.sent_fragments += 1;
        }
        tally.end_fragment(start + Duration::from_secs(2));
        let line = br#"{"event":"durable","size_bytes":10}"#;
        tally.answered(line, start + Duration::from_millis(1250));
        tally.answered(line, start + Duration::from_millis(2500));
        assert_eq!(tally.latencies, [250, 500].map(Duration::from_millis));
    }

    #[test]
    fn percentiles_are_values_that_were_there() {
        let mut values: Vec<_> = (1..=10).map(Duration::from_secs).collect();
        assert_eq!([1, 50, 99, 100].map(|p| percentile(&mut values, p).as_secs()), [1, 5, 10, 10]);
        assert_eq!(percentile(&mut [], 50), Duration::ZERO);
    }
}
