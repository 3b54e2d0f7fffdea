//! Finds times that jump: over 10 s forward or back, or back beyond what reordering explains.

use std::collections::VecDeque;

use vidar_core::limits::TIME_JUMP_MS;
use vidar_core::time::ms_to_ticks_floor;

use super::decode_time::REORDER_DEPTH_MAX;

#[derive(Debug)]
pub(super) struct JumpDetector {
    jump_ticks: i64,
    /// The last presentation times, as many as a reordering decoder could hold, and one.
    recent: VecDeque<i64>,
}

impl JumpDetector {
    pub(super) fn new(timescale_hz: u32) -> Self {
        Self {
            jump_ticks: ms_to_ticks_floor(TIME_JUMP_MS, timescale_hz),
            recent: VecDeque::with_capacity(REORDER_DEPTH_MAX + 1),
        }
    }

    pub(super) fn jumps(&self, presentation: i64) -> bool {
        let Some(greatest) = self.recent.iter().max() else { return false };
        let distance = presentation.saturating_sub(*greatest);
        let behind_all = self.recent.len() > REORDER_DEPTH_MAX && self.recent.iter().all(|p| *p > presentation);
        distance > self.jump_ticks || distance < -self.jump_ticks || behind_all
    }

    /// After all that came lately: a gap, not a step back.
    pub(super) fn ahead(&self, presentation: i64) -> bool {
        self.recent.iter().all(|p| *p < presentation)
    }

    pub(super) fn note(&mut self, presentation: i64) {
        if self.recent.len() > REORDER_DEPTH_MAX {
            self.recent.pop_front();
        }
        self.recent.push_back(presentation);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jumps_are_told_from_reordering() {
        let mut detector = JumpDetector::new(1000);
        assert!(!detector.jumps(123_456));
        for p in (0..100).map(|i| i * 40) {
            assert!(!detector.jumps(p));
            detector.note(p);
        }
        assert!(!detector.jumps(3960 - 10 * 40));
        assert!(!detector.jumps(3960 + 10_000));
        assert!(detector.jumps(3960 + 10_001));
        assert!(detector.jumps(3960 - 17 * 40));
        assert!(detector.jumps(i64::MIN));
        assert!(detector.jumps(i64::MAX));
    }
}
