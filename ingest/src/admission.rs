//! One publisher at a time: a second is refused, unless the first has been silent past its timeout.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use vidar_core::admission::{Admission, Occupied, Permit};
use vidar_core::clock::SharedClock;
use vidar_core::ids::{StreamId, StreamName};

/// Publishers of this process.
pub struct Publishers {
    clock: SharedClock,
    /// Guards which publisher each stream has; held for a look-up only.
    current: Arc<Mutex<HashMap<StreamId, Weak<Holder>>>>,
}

struct Holder {
    who: String,
    clock: SharedClock,
    heard_ms: AtomicU64,
    revoked: AtomicBool,
}

impl Publishers {
    /// Nobody publishes yet.
    #[must_use]
    pub fn new(clock: SharedClock) -> Self {
        Self { clock, current: Arc::default() }
    }

    /// Whether a stream has a publisher.
    #[must_use]
    pub fn is_live(&self, stream: StreamId) -> bool {
        let current = self.current.lock().expect("no panic under this lock");
        current.get(&stream).is_some_and(|holder| holder.strong_count() > 0)
    }
}

fn millis(elapsed: Duration) -> u64 {
    u64::try_from(elapsed.as_millis()).unwrap_or(u64::MAX)
}

impl Admission for Publishers {
    fn admit(
        &self,
        stream: StreamId,
        name: &StreamName,
        who: &str,
        silence: Duration,
    ) -> Result<Arc<dyn Permit>, Occupied> {
        let now_ms = millis(self.clock.monotonic());
        let mut current = self.current.lock().expect("no panic under this lock");
        current.retain(|_, holder| holder.strong_count() > 0);
        if let Some(holder) = current.get(&stream).and_then(Weak::upgrade) {
            let silent_ms = now_ms.saturating_sub(holder.heard_ms.load(Ordering::Relaxed));
            if silent_ms <= millis(silence) {
                return Err(Occupied { name: name.clone(), current: holder.who.clone(), silent_ms });
            }
            holder.revoked.store(true, Ordering::Release);
        }
        let holder = Arc::new(Holder {
            who: who.to_owned(),
            clock: Arc::clone(&self.clock),
            heard_ms: AtomicU64::new(now_ms),
            revoked: AtomicBool::new(false),
        });
        current.insert(stream, Arc::downgrade(&holder));
        Ok(holder)
    }
}

impl Permit for Holder {
    fn touch(&self) {
        self.heard_ms.store(millis(self.clock.monotonic()), Ordering::Relaxed);
    }

    fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire)
    }
}

#[cfg(test)]
mod tests {
    use vidar_core::clock::ManualClock;
    use vidar_core::time::UnixMs;

    use super::*;

    #[test]
    fn a_second_publisher_waits_for_the_first_to_leave_or_to_fall_silent() {
        let clock = ManualClock::new(UnixMs(0));
        let publishers = Publishers::new(clock.clone());
        let (stream, name) = (StreamId::new(), StreamName::new("cam").unwrap());
        let admit = |who| publishers.admit(stream, &name, who, Duration::from_secs(10));
        let first = admit("rtsp 127.0.0.1:1").unwrap();
        clock.advance(Duration::from_secs(9));
        let Err(occupied) = admit("second") else { panic!("two publishers") };
        assert_eq!((occupied.current.as_str(), occupied.silent_ms), ("rtsp 127.0.0.1:1", 9000));
        first.touch();
        clock.advance(Duration::from_secs(10));
        assert!(admit("second").is_err());
        clock.advance(Duration::from_secs(1));
        let second = admit("second").unwrap();
        assert!(first.revoked() && !second.revoked());
        drop(first);
        assert!(publishers.is_live(stream));
        drop(second);
        assert!(!publishers.is_live(stream));
        assert!(admit("third").is_ok());
    }
}
