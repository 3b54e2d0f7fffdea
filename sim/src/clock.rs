//! The clocks of a simulated machine: the runtime's paused time, and a wall that can be stepped.

use std::sync::Mutex;
use std::time::Duration;

use tokio::time::Instant;
use vidar_core::clock::Clock;
use vidar_core::time::UnixMs;

use crate::lock;

/// Clocks of one boot. Made, read and stepped inside its runtime.
pub(crate) struct SimClock {
    start: Instant,
    /// What the wall shows at `start`.
    wall: Mutex<UnixMs>,
    /// How long the server ran before this boot.
    uptime: Duration,
}

impl SimClock {
    /// Starts a boot.
    #[must_use]
    pub(crate) fn new(wall: UnixMs, uptime: Duration) -> Self {
        Self { start: Instant::now(), wall: Mutex::new(wall), uptime }
    }

    /// Steps the wall clock, as an operator or NTP does.
    pub(crate) fn step_ms(&self, by_ms: i64) {
        let mut wall = lock(&self.wall);
        *wall = wall.plus_ms(by_ms);
    }

    /// How long the server has run, over all boots.
    #[must_use]
    pub(crate) fn uptime(&self) -> Duration {
        self.uptime + self.monotonic()
    }
}

impl Clock for SimClock {
    fn now(&self) -> UnixMs {
        let elapsed = i64::try_from(self.monotonic().as_millis()).unwrap_or(i64::MAX);
        lock(&self.wall).plus_ms(elapsed)
    }

    fn monotonic(&self) -> Duration {
        Instant::now().saturating_duration_since(self.start)
    }
}
