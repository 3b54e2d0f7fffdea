//! Decode times where a source carries presentation times only.
//!
//! With a reorder depth of k, the decode time of the n-th sample in decode order is the (n-k)-th smallest presentation
//! time; before the first of them it is extrapolated. Where the depth turns out to be greater it grows; times that were
//! given out stay, so the composition offset of such a sample is negative.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use vidar_core::track::{Track, TrackKind};

use crate::codec;

/// No codec here reorders more (ISO/IEC 14496-10 annex A: MaxDpbFrames is at most 16).
pub(super) const REORDER_DEPTH_MAX: usize = 16;

#[derive(Debug)]
pub(super) struct DecodeTimes {
    depth: usize,
    /// Presentation times that have not become a decode time yet, smallest first. At most `depth + 1`.
    pending: BinaryHeap<Reverse<i64>>,
    last: Option<i64>,
    /// Between two pictures, for the extrapolation.
    step_ticks: i64,
}

impl DecodeTimes {
    pub(super) fn new(track: &Track) -> Self {
        let known = if track.kind == TrackKind::Video { codec::reorder_depth(track) } else { None };
        let depth = known.filter(|depth| depth.exact).map_or(0, |depth| usize::from(depth.depth));
        // 25 pictures a second where nothing is declared: only the first `depth` decode times depend on it.
        let step_ticks = track.default_duration_ticks.map_or(i64::from(track.timescale_hz / 25), i64::from).max(1);
        Self { depth: depth.min(REORDER_DEPTH_MAX), pending: BinaryHeap::new(), last: None, step_ticks }
    }

    /// The decode time of the next sample in decode order, and how long after the one before it is.
    pub(super) fn next(&mut self, presentation: i64, given: Option<i64>) -> (i64, Option<i64>) {
        let candidate = given.unwrap_or_else(|| self.rebuild(presentation));
        let decode = self.last.map_or(candidate, |last| candidate.max(last.saturating_add(1)));
        let delta = self.last.map(|last| decode.saturating_sub(last));
        self.last = Some(decode);
        (decode, delta)
    }

    fn rebuild(&mut self, presentation: i64) -> i64 {
        if self.last.is_some_and(|last| presentation < last) && self.depth < REORDER_DEPTH_MAX {
            self.depth += 1;
        }
        self.pending.push(Reverse(presentation));
        let missing = (self.depth + 1).saturating_sub(self.pending.len());
        let smallest = self.pending.peek().map_or(presentation, |Reverse(smallest)| *smallest);
        if missing == 0 {
            self.pending.pop();
            return smallest;
        }
        smallest.saturating_sub(self.step_ticks.saturating_mul(i64::try_from(missing).unwrap_or(0)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times(depth: usize, presentation: &[i64]) -> Vec<i64> {
        let mut times = DecodeTimes { depth, pending: BinaryHeap::new(), last: None, step_ticks: 1 };
        presentation.iter().map(|p| times.next(*p, None).0).collect()
    }

    #[test]
    fn decode_times_are_the_sorted_presentation_times() {
        assert_eq!(times(0, &[0, 1, 2, 3]), [0, 1, 2, 3]);
        assert_eq!(times(2, &[0, 4, 2, 1, 3, 8, 6, 5, 7]), [-2, -1, 0, 1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn an_unknown_depth_grows_and_what_was_given_out_stays() {
        let presentation = [0, 40, 20, 10, 30, 80, 60, 50, 70, 120, 100, 90, 110];
        let decode = times(0, &presentation);
        assert!(decode.is_sorted_by(|a, b| a < b), "{decode:?}");
        assert!(presentation[9..].iter().zip(&decode[9..]).all(|(p, d)| p >= d), "{decode:?}");
    }

    proptest! {
        #[test]
        fn decode_times_strictly_increase(depth in 0..17_usize, presentation: Vec<i32>) {
            let presentation: Vec<i64> = presentation.into_iter().map(i64::from).collect();
            let decode = times(depth, &presentation);
            prop_assert!(decode.is_sorted_by(|a, b| a < b));
        }
    }
}
