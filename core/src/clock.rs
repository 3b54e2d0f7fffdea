//! Time as a thing that is handed in, so that tests and simulations drive it.

use std::sync::Arc;
use std::sync::Mutex;
use std::time::Duration;
use std::time::{Instant, SystemTime};

use crate::time::UnixMs;

/// The two clocks of a machine.
pub trait Clock: Send + Sync {
    /// Wall-clock time. May step.
    fn now(&self) -> UnixMs;
    /// Time since some fixed point. Never goes back.
    fn monotonic(&self) -> Duration;
}

/// A shared clock.
pub type SharedClock = Arc<dyn Clock>;

/// The machine's own clocks.
#[derive(Debug)]
pub struct SystemClock {
    start: Instant,
}

impl SystemClock {
    /// A clock whose monotonic time starts now.
    #[must_use]
    #[allow(clippy::disallowed_methods)] // the one place that reads the machine's clocks
    pub fn shared() -> SharedClock {
        Arc::new(Self { start: Instant::now() })
    }
}

impl Clock for SystemClock {
    #[allow(clippy::disallowed_methods)]
    fn now(&self) -> UnixMs {
        let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        UnixMs(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    fn monotonic(&self) -> Duration {
        self.start.elapsed()
    }
}

/// A clock that only moves when told to.
#[derive(Debug)]
pub struct ManualClock {
    state: Mutex<(UnixMs, Duration)>,
}

impl ManualClock {
    /// Starts at `now`.
    #[must_use]
    pub fn new(now: UnixMs) -> Arc<Self> {
        Arc::new(Self { state: Mutex::new((now, Duration::ZERO)) })
    }

    /// Lets time pass: both clocks move.
    pub fn advance(&self, by: Duration) {
        let mut state = self.state.lock().expect("no panic under this lock");
        state.0 = state.0.plus_ms(i64::try_from(by.as_millis()).unwrap_or(i64::MAX));
        state.1 += by;
    }

    /// Steps the wall clock only, as an operator or NTP does.
    pub fn step_ms(&self, by_ms: i64) {
        let mut state = self.state.lock().expect("no panic under this lock");
        state.0 = state.0.plus_ms(by_ms);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> UnixMs {
        self.state.lock().expect("no panic under this lock").0
    }

    fn monotonic(&self) -> Duration {
        self.state.lock().expect("no panic under this lock").1
    }
}

/// The clock that retention runs on: never goes back, never advances faster than monotonic time.
///
/// A wall clock set a year ahead therefore deletes nothing. It starts where the log says it stood, and where there is
/// no log, at the wall clock. Time in which the server did not run does not age what it keeps.
pub struct ArchiveClock {
    clock: SharedClock,
    start: UnixMs,
    start_monotonic: Duration,
}

impl ArchiveClock {
    /// Goes on from `last`, the greatest archive time found in the log.
    #[must_use]
    pub fn new(clock: SharedClock, last: Option<UnixMs>) -> Self {
        let start = last.unwrap_or_else(|| clock.now());
        let start_monotonic = clock.monotonic();
        Self { clock, start, start_monotonic }
    }

    /// Archive time.
    #[must_use]
    pub fn now(&self) -> UnixMs {
        let elapsed = self.clock.monotonic().saturating_sub(self.start_monotonic);
        self.start.plus_ms(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_archive_clock_ignores_steps_of_the_wall_clock() {
        let clock = ManualClock::new(UnixMs(1_000_000));
        let archive = ArchiveClock::new(clock.clone(), None);
        clock.step_ms(365 * 86_400_000);
        clock.advance(Duration::from_secs(5));
        assert_eq!(archive.now(), UnixMs(1_005_000));
        clock.step_ms(-400 * 86_400_000);
        assert_eq!(archive.now(), UnixMs(1_005_000));
        assert_eq!(ArchiveClock::new(clock, Some(UnixMs(7))).now(), UnixMs(7));
    }
}
