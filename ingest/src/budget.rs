//! One memory budget for all that ingest holds: samples that wait, open fragments, fragments on their way to the disk.
//!
//! A publisher reserves before it takes a sample in; when the budget is used up it waits, and so its socket is not
//! read. From half of the budget on, open fragments are asked to go out as parts, so that waiting always ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

/// Under pressure an open fragment goes out once it holds more than this.
const SPILL_BYTES: u64 = 64 << 10;
/// Between two calls for help of one who waits.
const AGAIN: Duration = Duration::from_millis(50);

/// Counts somebody who waits, for as long as it lives.
struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn new(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// The budget.
#[derive(Debug)]
pub struct Budget {
    limit_bytes: u64,
    used_bytes: AtomicU64,
    freed: Notify,
    pressure: Notify,
    /// Who waits in `reserve`.
    waiting: AtomicUsize,
}

/// Reserved bytes. Dropping it gives them back.
#[derive(Debug)]
pub struct Reservation {
    budget: Arc<Budget>,
    bytes: u64,
}

impl Budget {
    /// A budget of `limit_bytes`.
    #[must_use]
    pub fn new(limit_bytes: u64) -> Arc<Self> {
        Arc::new(Self {
            limit_bytes,
            used_bytes: AtomicU64::new(0),
            freed: Notify::new(),
            pressure: Notify::new(),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Reserves at once, if there is room. One that finds nothing reserved gets any amount: a sample larger than the
    /// budget must not wait for ever.
    pub fn try_reserve(self: &Arc<Self>, bytes: u64) -> Option<Reservation> {
        let fits = |used: u64| {
            let after = used.checked_add(bytes)?;
            (used == 0 || after <= self.limit_bytes).then_some(after)
        };
        let before = self.used_bytes.fetch_update(Ordering::AcqRel, Ordering::Acquire, fits).ok()?;
        if before + bytes > self.limit_bytes / 2 {
            self.pressure.notify_waiters();
        }
        Some(Reservation { budget: Arc::clone(self), bytes })
    }

    /// Reserves, waiting for room.
    ///
    /// # Cancel safety
    /// Dropping the future reserves nothing.
    pub async fn reserve(self: &Arc<Self>, bytes: u64) -> Reservation {
        if let Some(reservation) = self.try_reserve(bytes) {
            return reservation;
        }
        let _waiting = Waiting::new(&self.waiting);
        loop {
            let freed = self.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if let Some(reservation) = self.try_reserve(bytes) {
                return reservation;
            }
            self.pressure.notify_waiters();
            // Said again: an open fragment may have been busy when it was said first.
            let _ = tokio::time::timeout(AGAIN, freed).await;
        }
    }

    /// Resolves when open fragments should go out.
    pub async fn pressure(&self) {
        self.pressure.notified().await;
    }

    /// What an open fragment may go on holding: little under pressure, nothing while somebody waits.
    #[must_use]
    pub fn spill_above_bytes(&self) -> Option<u64> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Some(0);
        }
        (self.used_bytes() > self.limit_bytes / 2).then_some(SPILL_BYTES)
    }

    /// Bytes reserved now.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.used_bytes.load(Ordering::Acquire)
    }
}

impl Reservation {
    /// Takes `bytes` of `other` over.
    pub fn take_from(&mut self, other: &mut Self, bytes: u64) {
        let bytes = bytes.min(other.bytes);
        other.bytes -= bytes;
        self.bytes += bytes;
    }

    /// An empty one of the same budget.
    #[must_use]
    pub fn empty(budget: &Arc<Budget>) -> Self {
        Self { budget: Arc::clone(budget), bytes: 0 }
    }

    /// All of it, leaving an empty one.
    #[must_use]
    pub fn take(&mut self) -> Self {
        Self { budget: Arc::clone(&self.budget), bytes: std::mem::take(&mut self.bytes) }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if self.bytes > 0 {
            self.budget.used_bytes.fetch_sub(self.bytes, Ordering::AcqRel);
            self.budget.freed.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_bytes_come_back() {
        let budget = Budget::new(100);
        let first = budget.reserve(80).await;
        assert!(budget.try_reserve(30).is_none());
        let waiting = tokio::spawn({
            let budget = Arc::clone(&budget);
            async move { budget.reserve(30).await }
        });
        drop(first);
        let second = waiting.await.unwrap();
        assert_eq!(budget.used_bytes(), 30);
        drop(second);
        assert!(budget.try_reserve(1000).is_some(), "one sample may be larger than the budget");
        assert_eq!(budget.used_bytes(), 0);
    }
}
