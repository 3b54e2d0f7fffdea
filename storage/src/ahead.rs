//! Work on threads of its own, a little ahead of who takes the results in order: reading many files, one of which may be
//! long.
//!
//! Results that nobody took yet are bounded in bytes. Whatever they weigh, the one that is to be taken next is worked on.

use std::collections::HashMap;
use std::ops::Range;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

/// More do not make a disk faster.
const THREAD_COUNT_MAX: usize = 4;
/// Bytes of results that wait: with these no further item is begun. To them comes what each thread is about, which may be as
/// much as the longest footer has.
const WAITING_BYTES_MAX: usize = if cfg!(test) { 1000 } else { 64 << 20 };
/// Short items are worked on and handed over together, up to about so many bytes that are read, …
const GROUP_BYTES_MAX: u64 = 1 << 20;
/// … and so many items: a thread that is woken costs more than a small file.
const GROUP_LEN_MAX: usize = 32;
/// What a result takes beside what it weighs.
const RESULT_BYTES: usize = 64;

/// How many threads there should be: none where one thread decides what happens when.
pub(crate) fn threads(by_hand: bool) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if by_hand { 0 } else { cores.min(THREAD_COUNT_MAX) }
}

/// Does `work` for each item; `take` gets the results in the order of the items, with their positions. `len` is about how
/// many bytes are read for an item, `weight` about how many its result takes. Without threads one after the other.
pub(crate) fn in_order<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    len: impl Fn(&I) -> u64,
    work: impl Fn(&I) -> T + Sync,
    weight: impl Fn(&T) -> usize + Sync,
    mut take: impl FnMut(usize, T),
) {
    let threads = threads.min(items.len());
    let one_by_one = |take: &mut dyn FnMut(usize, T)| {
        items.iter().enumerate().for_each(|(index, item)| take(index, work(item)));
    };
    if threads < 1 || items.len() < 2 {
        return one_by_one(&mut take);
    }
    let groups = groups(items, len);
    let desk = Desk { len: groups.len(), state: Mutex::default(), changed: Condvar::new() };
    let work = |index: usize| {
        let group = items.get(groups.get(index)?.clone())?;
        Some(group.iter().map(&work).collect::<Vec<_>>())
    };
    let weight = |results: &Vec<T>| results.iter().map(|one| weight(one) + RESULT_BYTES).sum::<usize>();
    // A thread that ended early panicked: so does the scope.
    let begun = thread::scope(|scope| {
        let lane = || desk.lane(work, weight);
        let named = || thread::Builder::new().name("vidar-ahead".into());
        let begun = (0..threads).filter(|_| named().spawn_scoped(scope, lane).is_ok()).count();
        if begun > 0 {
            let _guard = Guard(&desk);
            let results = groups.iter().map_while(|group| Some(group.clone().zip(desk.next()?)));
            results.flatten().for_each(|(index, one)| take(index, one));
        }
        begun
    });
    if begun == 0 {
        one_by_one(&mut take);
    }
}

/// Neighbours that are short.
fn groups<I>(items: &[I], len: impl Fn(&I) -> u64) -> Vec<Range<usize>> {
    let mut groups: Vec<Range<usize>> = Vec::new();
    let mut bytes = 0_u64;
    for (index, item) in items.iter().enumerate() {
        bytes = bytes.saturating_add(len(item));
        match groups.last_mut() {
            Some(group) if group.len() < GROUP_LEN_MAX && bytes <= GROUP_BYTES_MAX => group.end = index + 1,
            _ => {
                groups.push(index..index + 1);
                bytes = len(item);
            }
        }
    }
    groups
}

/// Where results wait.
struct Desk<T> {
    len: usize,
    state: Mutex<State<T>>,
    changed: Condvar,
}

struct State<T> {
    /// With their weights.
    waiting: HashMap<usize, (T, usize)>,
    waiting_bytes: usize,
    /// Items that were begun, and results that were taken.
    begun: usize,
    taken: usize,
    /// Somebody panicked.
    over: bool,
}

impl<T> Default for State<T> {
    fn default() -> Self {
        Self { waiting: HashMap::new(), waiting_bytes: 0, begun: 0, taken: 0, over: false }
    }
}

/// Tells all others of a panic.
struct Guard<'a, T>(&'a Desk<T>);

impl<T> Drop for Guard<'_, T> {
    fn drop(&mut self) {
        if thread::panicking() {
            self.0.lock().over = true;
            self.0.changed.notify_all();
        }
    }
}

impl<T> Desk<T> {
    fn lock(&self) -> MutexGuard<'_, State<T>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn wait_while<'a>(
        &self,
        state: MutexGuard<'a, State<T>>,
        condition: impl Fn(&State<T>) -> bool,
    ) -> MutexGuard<'a, State<T>> {
        self.changed.wait_while(state, |state| condition(state)).unwrap_or_else(PoisonError::into_inner)
    }

    /// A thread: one item after the other, as long as there is room.
    fn lane(&self, work: impl Fn(usize) -> Option<T>, weight: impl Fn(&T) -> usize) {
        let _guard = Guard(self);
        loop {
            let is_full = |state: &State<T>| state.waiting_bytes >= WAITING_BYTES_MAX && state.begun > state.taken;
            let mut state = self.wait_while(self.lock(), |state| is_full(state) && !state.over);
            if state.over || state.begun == self.len {
                return;
            }
            let index = state.begun;
            state.begun += 1;
            drop(state);
            let Some(result) = work(index) else { return };
            let bytes = weight(&result);
            let mut state = self.lock();
            state.waiting.insert(index, (result, bytes));
            state.waiting_bytes += bytes;
            if index == state.taken {
                self.changed.notify_all();
            }
        }
    }

    /// The next result. None: who worked on it panicked.
    fn next(&self) -> Option<T> {
        let is_missing = |state: &State<T>| !state.waiting.contains_key(&state.taken);
        let mut state = self.wait_while(self.lock(), |state| is_missing(state) && !state.over);
        let index = state.taken;
        let (result, bytes) = state.waiting.remove(&index)?;
        let was_full = state.waiting_bytes >= WAITING_BYTES_MAX;
        state.taken += 1;
        state.waiting_bytes -= bytes;
        if was_full {
            self.changed.notify_all();
        }
        Some(result)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        for (threads, weight) in [(0, 0), (1, 0), (2, 1), (3, 400), (4, 5000)] {
            let mut taken = Vec::new();
            // The later ones are done first.
            let work = |item: &usize| (0..(100 - item) * 50).fold(*item, |sum, more| sum ^ more ^ more);
            let len = |item: &usize| if item.is_multiple_of(7) { GROUP_BYTES_MAX } else { 1 };
            in_order(&items, threads, len, work, |_| weight, |index, item| taken.push((index, item)));
            assert!(taken.iter().copied().eq(items.iter().copied().enumerate()), "{threads} threads");
        }
    }

    #[test]
    fn what_waits_is_bounded() {
        let items: Vec<usize> = (0..200).collect();
        let (made, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let work = |_: &usize| made.fetch_add(1, Ordering::Relaxed);
        let take = |index: usize, _: usize| {
            // Time enough for the threads to go on as far as they may.
            (0..100).for_each(|_| thread::yield_now());
            most.fetch_max(made.load(Ordering::Relaxed) - index, Ordering::Relaxed);
        };
        in_order(&items, 3, |_| GROUP_BYTES_MAX, work, |_| 300, take);
        // Three reach the bound; then each thread has one at hand, and one is being taken.
        assert!(most.load(Ordering::Relaxed) <= 3 + 3 + 1, "{most:?}");
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_not_waited_for() {
        let work = |item: &usize| assert_ne!(*item, 3, "made up");
        in_order(&[0, 1, 2, 3, 4, 5], 2, |_| GROUP_BYTES_MAX, work, |()| 0, |_, ()| ());
    }

    #[test]
    fn what_is_short_goes_together_and_what_is_long_alone() {
        let (long, half) = (u64::MAX, GROUP_BYTES_MAX / 2);
        assert_eq!(groups(&[1, long, 1, half, half, 1, 1], |len| *len), [0..1, 1..2, 2..4, 4..7]);
        assert_eq!(groups(&[0; GROUP_LEN_MAX + 1], |len| *len), [0..GROUP_LEN_MAX, GROUP_LEN_MAX..GROUP_LEN_MAX + 1]);
        assert!(groups(&[], |len: &u64| *len).is_empty());
    }
}
