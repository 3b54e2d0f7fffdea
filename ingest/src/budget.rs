//! One memory budget for all that ingest holds: elements that are not complete, samples that wait, open fragments,
//! fragments on their way to the disk.
//!
//! What was read is charged at once, for it is there; over the budget a publisher waits before it reads on, so its
//! socket is not read. From half of the budget on, open fragments are asked to go out as parts, so waiting ends: the largest
//! first, smaller ones the more is used. Were all asked at once, hundreds of cameras would hand 100 MB to the disk in one
//! moment, and each fragment that ends then would wait behind them (100 to 250 ms, as measured). Only
//! elements that are not complete (blocks, access units) cannot go out: where they fill the budget, one publisher at a
//! time goes on until its element is complete. So the most that is held is the budget, one element (50 MiB), and one
//! read of each connection.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use vidar_core::limits::PART_BYTES;

/// Where all of the budget is used, an open fragment goes out once it holds more than this.
const SPILL_BYTES: u64 = 64 << 10;
/// Open fragments are asked again each time that this share of the budget more is used: all pushes wake for it.
const STEP_SHARE: u64 = 64;
/// Use that falls by so many steps and climbs again asks again. It goes up and down by less with each fragment.
const STEPS_BACK: u64 = 4;
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
    /// The most that open fragments were asked at, in steps, not far above what is used; 0 once that is less than half.
    asked_at: AtomicU64,
    /// Who waits for room.
    waiting: AtomicUsize,
    /// Of `used_bytes`, what is of elements that are not complete.
    unfinished_bytes: AtomicU64,
    /// Who goes on above the limit.
    turn: Arc<Semaphore>,
}

/// What one publisher holds of elements that are not complete.
#[derive(Debug)]
pub struct Unfinished {
    reservation: Reservation,
    turn: Option<OwnedSemaphorePermit>,
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
            asked_at: AtomicU64::new(0),
            waiting: AtomicUsize::new(0),
            unfinished_bytes: AtomicU64::new(0),
            turn: Arc::new(Semaphore::new(1)),
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
        self.grew_to(before + bytes);
        Some(Reservation { budget: Arc::clone(self), bytes })
    }

    /// Charges what is there already.
    #[must_use]
    pub fn charge(self: &Arc<Self>, bytes: u64) -> Reservation {
        let mut reservation = Reservation::empty(self);
        reservation.set(bytes);
        reservation
    }

    fn has_room(&self) -> bool {
        self.used_bytes() <= self.limit_bytes
    }

    /// Resolves when open fragments should go out.
    pub async fn pressure(&self) {
        self.pressure.notified().await;
    }

    fn step(&self, used_bytes: u64) -> u64 {
        used_bytes / (self.limit_bytes / STEP_SHARE).max(1)
    }

    fn grew_to(&self, used_bytes: u64) {
        let step = self.step(used_bytes);
        if used_bytes > self.limit_bytes / 2 && self.asked_at.fetch_max(step, Ordering::AcqRel) < step {
            self.pressure.notify_waiters();
        }
    }

    fn shrank_to(&self, used_bytes: u64) {
        // A step below half, so that use about half does not ask each time.
        let is_little = used_bytes < self.limit_bytes / 2 - self.limit_bytes / STEP_SHARE;
        let at_most = if is_little { 0 } else { self.step(used_bytes) + STEPS_BACK };
        self.asked_at.fetch_min(at_most, Ordering::AcqRel);
    }

    /// What an open fragment may go on holding: the less the more is used, nothing while somebody waits.
    #[must_use]
    pub fn spill_above_bytes(&self) -> Option<u64> {
        if self.waiting.load(Ordering::Acquire) > 0 {
            return Some(0);
        }
        let half = self.limit_bytes / 2;
        let over = self.used_bytes().checked_sub(half).filter(|over| *over > 0)?;
        let left = half.saturating_sub(over);
        Some(SPILL_BYTES + (PART_BYTES - SPILL_BYTES) * left / half.max(1))
    }

    /// Bytes that may be reserved, one large sample aside.
    #[must_use]
    pub fn limit_bytes(&self) -> u64 {
        self.limit_bytes
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

    fn set(&mut self, bytes: u64) {
        let budget = &self.budget;
        if let Some(more) = bytes.checked_sub(self.bytes) {
            let before = budget.used_bytes.fetch_add(more, Ordering::AcqRel);
            budget.grew_to(before + more);
        } else {
            let less = self.bytes - bytes;
            let before = budget.used_bytes.fetch_sub(less, Ordering::AcqRel);
            budget.shrank_to(before - less);
            budget.freed.notify_waiters();
        }
        self.bytes = bytes;
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
            self.set(0);
        }
    }
}

impl Unfinished {
    /// Nothing.
    #[must_use]
    pub fn new(budget: &Arc<Budget>) -> Self {
        Self { reservation: Reservation::empty(budget), turn: None }
    }

    /// It is `bytes` now.
    pub fn set(&mut self, bytes: u64) {
        let held = self.reservation.bytes;
        if bytes == held {
            return;
        }
        let unfinished_bytes = &self.reservation.budget.unfinished_bytes;
        if bytes > held {
            unfinished_bytes.fetch_add(bytes - held, Ordering::AcqRel);
        } else {
            unfinished_bytes.fetch_sub(held - bytes, Ordering::AcqRel);
        }
        self.reservation.set(bytes);
    }

    /// An element became complete: others may go on.
    pub fn completed(&mut self) {
        self.turn = None;
    }

    /// More may be read without waiting.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.turn.is_some() || self.reservation.budget.has_room()
    }

    /// Waits until more may be read.
    ///
    /// # Cancel safety
    /// Dropping the future changes nothing.
    pub async fn room(&mut self) {
        if self.has_room() {
            return;
        }
        let budget = Arc::clone(&self.reservation.budget);
        let _waiting = Waiting::new(&budget.waiting);
        loop {
            let freed = budget.freed.notified();
            tokio::pin!(freed);
            freed.as_mut().enable();
            if budget.has_room() {
                return;
            }
            // All else has gone out, and elements that wait for each other would wait for ever.
            let stuck = budget.used_bytes() <= budget.unfinished_bytes.load(Ordering::Acquire);
            if stuck && self.reservation.bytes > 0 {
                self.turn = Arc::clone(&budget.turn).try_acquire_owned().ok();
                if self.turn.is_some() {
                    return;
                }
            }
            budget.pressure.notify_waiters();
            // Said again: an open fragment may have been busy when it was said first.
            let _ = tokio::time::timeout(AGAIN, freed).await;
        }
    }
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn waiting_ends_when_bytes_come_back() {
        let budget = Budget::new(100);
        let first = budget.charge(80);
        assert!(budget.try_reserve(30).is_none());
        let second = budget.charge(30);
        let waiting = tokio::spawn({
            let mut reader = Unfinished::new(&budget);
            async move { reader.room().await }
        });
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && budget.spill_above_bytes() == Some(0));
        drop(first);
        waiting.await.unwrap();
        assert_eq!(budget.used_bytes(), 30);
        drop(second);
        assert!(budget.try_reserve(1000).is_some(), "one sample may be larger than the budget");
        assert_eq!(budget.used_bytes(), 0);
    }

    #[test]
    fn the_more_is_used_the_less_an_open_fragment_may_hold() {
        let budget = Budget::new(256 << 20);
        let mut above = Vec::new();
        let mut held = Vec::new();
        for used_mib in [128, 129, 192, 255, 256, 300] {
            let more = (used_mib << 20) - budget.used_bytes();
            held.push(budget.charge(more));
            above.push(budget.spill_above_bytes());
        }
        assert_eq!((above[0], above[4], above[5]), (None, Some(SPILL_BYTES), Some(SPILL_BYTES)));
        assert!(above[1..=4].is_sorted_by(|a, b| a > b), "{above:?}");
        assert!((900 << 10..PART_BYTES).contains(&above[1].unwrap()), "only what is a part already: {above:?}");
    }

    #[tokio::test]
    async fn open_fragments_are_asked_once_for_each_step() {
        let budget = Budget::new(6400);
        let mut held = vec![budget.charge(3200)];
        let asked = |more: u64, held: &mut Vec<Reservation>| {
            let mut pressure = std::pin::pin!(budget.pressure());
            assert!(futures::FutureExt::now_or_never(&mut pressure).is_none());
            held.push(budget.charge(more));
            futures::FutureExt::now_or_never(&mut pressure).is_some()
        };
        assert!(asked(1, &mut held), "more than half");
        assert!(!asked(1, &mut held), "all know");
        assert!(asked(100, &mut held), "a step more");
        held.truncate(2);
        assert!(!asked(99, &mut held), "they were asked for as much before");
        held.remove(0);
        assert!(asked(3200, &mut held), "it was little meanwhile");
        held.clear();
        held.extend([3500, 2900].map(|bytes| budget.charge(bytes)));
        held.truncate(1);
        assert!(!asked(300, &mut held), "within a few steps nobody is woken again");
        assert!(asked(200, &mut held), "nobody may be waiting who would ask");
        assert!(!asked(1, &mut held));
    }

    async fn blocked(reader: &mut Unfinished) -> bool {
        tokio::time::timeout(AGAIN * 3, reader.room()).await.is_err()
    }

    #[tokio::test]
    async fn elements_that_fill_the_budget_are_completed_one_at_a_time() {
        let budget = Budget::new(100);
        let mut readers: Vec<Unfinished> = (0..3).map(|_| Unfinished::new(&budget)).collect();
        let sample = budget.charge(1);
        readers.iter_mut().for_each(|reader| reader.set(40));
        let (first, second) = readers.split_at_mut(1);
        assert!(blocked(&mut first[0]).await, "the sample may still go out");
        drop(sample);
        first[0].room().await;
        assert!(blocked(&mut second[0]).await);
        first[0].set(70);
        assert!(first[0].has_room() && !second[0].has_room());
        // Complete: it is a sample now, and the others wait for that to go out.
        let sample = budget.charge(70);
        first[0].set(0);
        first[0].completed();
        assert!(blocked(&mut second[0]).await && !first[0].has_room());
        drop(sample);
        second[0].room().await;
        drop(readers);
        assert_eq!((budget.used_bytes(), budget.unfinished_bytes.load(Ordering::Acquire)), (0, 0));
    }
}
