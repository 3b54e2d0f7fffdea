//! Many histories, each from its seed.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};

const SEEDS: u64 = 500;

#[test]
fn what_was_answered_holds_in_five_hundred_histories() {
    let (next, failed) = (AtomicU64::new(0), Mutex::new(Vec::new()));
    let threads = std::thread::available_parallelism().map_or(1, usize::from);
    std::thread::scope(|scope| {
        for _ in 0..threads {
            scope.spawn(|| {
                loop {
                    let seed = next.fetch_add(1, Ordering::Relaxed);
                    if seed >= SEEDS {
                        return;
                    }
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
    assert!(failed.is_empty(), "{} of {SEEDS} seeds fail:\n{}", failed.len(), failed.join("\n"));
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
