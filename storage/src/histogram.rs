//! How often something took how long, or was how large.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// How many bounds there are.
const BOUND_COUNT: usize = 12;
/// Bounds of times, in microseconds.
pub(crate) const TIMES_US: [u64; BOUND_COUNT] =
    [100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000];
/// Bounds of sizes, in bytes.
pub(crate) const SIZES: [u64; BOUND_COUNT] = {
    let mut bounds = [4 << 10; BOUND_COUNT];
    let mut index = 1;
    while index < BOUND_COUNT {
        bounds[index] = 2 * bounds[index - 1];
        index += 1;
    }
    bounds
};

/// Counts by bounds.
pub(crate) struct Histogram {
    bounds: [u64; BOUND_COUNT],
    counts: [AtomicU64; BOUND_COUNT + 1],
    sum: AtomicU64,
}

/// What a histogram holds.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Distribution {
    /// Upper bounds, themselves included: microseconds or bytes.
    pub bounds: [u64; BOUND_COUNT],
    /// How many values are at most so large, and larger than the bound before. The last: how many are larger than all.
    pub counts: [u64; BOUND_COUNT + 1],
    /// Of all values.
    pub sum: u64,
}

impl Distribution {
    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }
}

impl Histogram {
    pub(crate) fn new(bounds: [u64; BOUND_COUNT]) -> Self {
        Self { bounds, counts: Default::default(), sum: AtomicU64::new(0) }
    }

    pub(crate) fn note(&self, value: u64) {
        let index = self.bounds.partition_point(|bound| *bound < value);
        self.counts[index].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    pub(crate) fn note_time(&self, time: Duration) {
        self.note(u64::try_from(time.as_micros()).unwrap_or(u64::MAX));
    }

    pub(crate) fn read(&self) -> Distribution {
        let counts = self.counts.each_ref().map(|count| count.load(Ordering::Relaxed));
        Distribution { bounds: self.bounds, counts, sum: self.sum.load(Ordering::Relaxed) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_counts_where_it_is_at_most_the_bound() {
        let histogram = Histogram::new(SIZES);
        for value in [0, 4096, 4097, 8 << 20, (8 << 20) + 1, 1 << 40] {
            histogram.note(value);
        }
        let Distribution { bounds, counts, sum } = histogram.read();
        assert_eq!((bounds[0], bounds[11]), (4096, 8 << 20));
        assert_eq!((counts[0], counts[1], counts[11], counts[12]), (2, 1, 1, 2));
        assert_eq!((sum, histogram.read().count()), (4096 + 4097 + (16 << 20) + 1 + (1 << 40), 6));
    }
}
