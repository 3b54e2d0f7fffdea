//! Many histories, each from its seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

const SEEDS: u64 = 500;

/// Histories that once failed.
const FORMERLY: [u64; 6] = [2046, 2142, 6186, 6356, 10538, 11324];

#[test]
fn what_was_answered_holds_in_five_hundred_histories() {
    hold(&(0..SEEDS).collect::<Vec<_>>());
}

#[test]
fn what_failed_once_does_not_again() {
    hold(&FORMERLY);
}

/// Runs these seeds.
fn hold(seeds: &[u64]) {
    let (next, failed) = (AtomicUsize::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                while let Some(&seed) = seeds.get(next.fetch_add(1, Ordering::Relaxed)) {
                    let ran = catch_unwind(AssertUnwindSafe(|| vidar_sim::run(seed, false)));
                    if let Err(error) = ran.unwrap_or_else(|_| Err("a panic, see above".into())) {
                        let again = format!("cargo run -p vidar-sim -- --seed {seed} --verbose");
                        failed.lock().expect("no panic under this lock").push(format!("{again}\n  {error}"));
                    }
                }
            });
        }
    });
    let failed = failed.into_inner().expect("no panic under this lock");
    assert!(failed.is_empty(), "{} of {} seeds fail:\n{}", failed.len(), seeds.len(), failed.join("\n"));
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    for seed in 0..12 {
        let (first, second) = (vidar_sim::run(seed, false), vidar_sim::run(seed, false));
        assert!(first.is_ok(), "seed {seed}: {first:?}");
        assert_eq!(first, second, "seed {seed}");
    }
    assert_ne!(vidar_sim::run(0, false), vidar_sim::run(1, false));
}
