//! One publisher at a time: a second is refused, unless the first has been silent past its timeout.
//!
//! Some protocols let a client's next connection begin before its last one ends ([`Beside`]).

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, Weak};
use std::time::Duration;

use vidar_core::admission::{Admission, Beside, Occupied, Permit};
use vidar_core::clock::SharedClock;
use vidar_core::ids::{StreamId, StreamName};

/// Publishers of this process.
pub struct Publishers {
    clock: SharedClock,
    /// Guards which publishers each stream has; held for a look-up only.
    current: Arc<Mutex<HashMap<StreamId, Vec<Weak<Holder>>>>>,
}

struct Holder {
    who: String,
    clock: SharedClock,
    heard_ms: AtomicU64,
    revoked: AtomicBool,
    leaves_room: bool,
    /// From here on another has its place.
    ends_ms: AtomicU64,
}

impl Holder {
    fn silent_ms(&self, now_ms: u64) -> u64 {
        now_ms.saturating_sub(self.heard_ms.load(Ordering::Relaxed))
    }
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
        current.get(&stream).is_some_and(|holders| holders.iter().any(|holder| holder.strong_count() > 0))
    }

    fn enter(
        &self,
        stream: StreamId,
        name: &StreamName,
        who: &str,
        silence: Duration,
        beside: Option<Beside>,
    ) -> Result<Arc<dyn Permit>, Occupied> {
        let now_ms = millis(self.clock.monotonic());
        let mut current = self.current.lock().expect("no panic under this lock");
        current.retain(|_, holders| {
            holders.retain(|holder| holder.strong_count() > 0);
            !holders.is_empty()
        });
        let holders = current.entry(stream).or_default();
        let present = holders.iter().filter_map(Weak::upgrade).filter(|holder| !holder.revoked());
        let (silent, heard): (Vec<_>, Vec<_>) = present.partition(|holder| holder.silent_ms(now_ms) > millis(silence));
        let has_room = |beside: Beside| heard.len() < beside.count_max && heard.iter().all(|other| other.leaves_room);
        if let Some(last) = heard.last()
            && !beside.is_some_and(has_room)
        {
            let silent_ms = last.silent_ms(now_ms);
            return Err(Occupied { name: name.clone(), current: last.who.clone(), silent_ms });
        }
        silent.iter().for_each(|holder| holder.revoked.store(true, Ordering::Release));
        if let Some(beside) = beside {
            let ends_ms = now_ms.saturating_add(millis(beside.overlap));
            for holder in &heard {
                holder.ends_ms.fetch_min(ends_ms, Ordering::AcqRel);
            }
        }
        let holder = Arc::new(Holder {
            who: who.to_owned(),
            clock: Arc::clone(&self.clock),
            heard_ms: AtomicU64::new(now_ms),
            revoked: AtomicBool::new(false),
            leaves_room: beside.is_some(),
            ends_ms: AtomicU64::new(u64::MAX),
        });
        holders.push(Arc::downgrade(&holder));
        Ok(holder)
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
        self.enter(stream, name, who, silence, None)
    }

    fn admit_beside(
        &self,
        stream: StreamId,
        name: &StreamName,
        who: &str,
        silence: Duration,
        beside: Beside,
    ) -> Result<Arc<dyn Permit>, Occupied> {
        self.enter(stream, name, who, silence, Some(beside))
    }
}

impl Permit for Holder {
    fn touch(&self) {
        self.heard_ms.store(millis(self.clock.monotonic()), Ordering::Relaxed);
    }

    fn revoked(&self) -> bool {
        self.revoked.load(Ordering::Acquire) || millis(self.clock.monotonic()) >= self.ends_ms.load(Ordering::Acquire)
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

    #[test]
    fn the_next_connection_may_begin_before_the_last_one_ends() {
        let clock = ManualClock::new(UnixMs(0));
        let publishers = Publishers::new(clock.clone());
        let (stream, name, silence) = (StreamId::new(), StreamName::new("cam").unwrap(), Duration::from_secs(10));
        let beside = Beside { count_max: 2, overlap: Duration::from_secs(30) };
        let join = |who| publishers.admit_beside(stream, &name, who, silence, beside);
        let first = join("first").unwrap();
        let second = join("second").unwrap();
        assert_eq!(join("third").map(drop).unwrap_err().current, "second");
        assert!(publishers.admit(stream, &name, "rtsp", silence).is_err());
        for _ in 0..30 {
            assert!(!first.revoked());
            first.touch();
            second.touch();
            clock.advance(Duration::from_secs(1));
        }
        assert!(first.revoked() && !second.revoked(), "the older one has had its time");
        let third = join("third").unwrap();
        drop((first, second, third));
        let alone = publishers.admit(stream, &name, "rtsp", silence).unwrap();
        assert!(join("beside another protocol").is_err());
        clock.advance(Duration::from_secs(11));
        assert!(join("after its silence").is_ok() && alone.revoked());
    }
}
