//! Work on threads of its own, a little ahead of who takes the results in order: reading many files, one of which may be
//! long.

use std::sync::mpsc::{self, Receiver};
use std::thread::{self, Scope};

/// More do not make a disk faster.
const THREAD_COUNT_MAX: usize = 4;
/// Results of each thread that wait to be taken: what is read of a file is in memory meanwhile.
const WAITING_COUNT: usize = 1;

/// How many threads there should be: none where one thread decides what happens when.
pub(crate) fn threads(by_hand: bool) -> usize {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    if by_hand { 0 } else { cores.min(THREAD_COUNT_MAX) }
}

/// Does `work` for each item; `take` gets the results in the order of the items, with their positions. Without threads one
/// after the other.
pub(crate) fn in_order<I: Sync, T: Send>(
    items: &[I],
    threads: usize,
    work: impl Fn(&I) -> T + Sync,
    mut take: impl FnMut(usize, T),
) {
    let threads = threads.min(items.len());
    if threads < 1 || items.len() < 2 {
        return items.iter().enumerate().for_each(|(index, item)| take(index, work(item)));
    }
    thread::scope(|scope| {
        let lanes: Vec<_> = (0..threads).map(|first| lane(scope, items, first, threads, &work)).collect();
        for (index, item) in items.iter().enumerate() {
            let result = match &lanes[index % threads] {
                Some(results) => results.recv(),
                None => Ok(work(item)),
            };
            // A thread that ended early panicked: so does the scope.
            let Ok(result) = result else { return };
            take(index, result);
        }
    });
}

/// Every so many items on a thread. None where no thread can be had.
fn lane<'scope, I: Sync, T: Send + 'scope>(
    scope: &'scope Scope<'scope, '_>,
    items: &'scope [I],
    first: usize,
    step: usize,
    work: &'scope (impl Fn(&I) -> T + Sync),
) -> Option<Receiver<T>> {
    let (sender, results) = mpsc::sync_channel(WAITING_COUNT);
    let work = move || {
        let mut items = items.iter().skip(first).step_by(step);
        // Nobody takes what comes after a panic.
        let _ = items.try_for_each(|item| sender.send(work(item)));
    };
    let thread = thread::Builder::new().name("vidar-ahead".into()).spawn_scoped(scope, work);
    thread.ok().map(|_| results)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<usize> = (0..100).collect();
        for threads in 0..5 {
            let mut taken = Vec::new();
            // The later ones are done first.
            let work = |item: &usize| (0..(100 - item) * 50).fold(*item, |sum, more| sum ^ more ^ more);
            in_order(&items, threads, work, |index, item| taken.push((index, item)));
            assert!(taken.iter().copied().eq(items.iter().copied().enumerate()), "{threads} threads");
        }
    }

    #[test]
    #[should_panic(expected = "a scoped thread panicked")]
    fn a_panic_is_not_waited_for() {
        let work = |item: &usize| assert_ne!(*item, 3, "made up");
        in_order(&[0, 1, 2, 3, 4, 5], 2, work, |_, ()| ());
    }
}
