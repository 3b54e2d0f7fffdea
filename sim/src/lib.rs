//! A whole recorder in a box that one seed drives: clocks, the order of things, the disk, connections and crashes.
//!
//! ```text
//! seed ─► operations ─► push ─► fragmenter ─► committer ─► StoreSink ─► Store ─► SimDisk
//!                                                              └─► model: what has to be true
//! ```
//! Everything but the disk, the clocks and the cameras is the code that serves. It runs on one thread, in paused time: the
//! store starts no threads ([`StoreOptions::by_hand`](vidar_storage::StoreOptions::by_hand)), and a task that sleeps as
//! long as the disk would take commits what waits. So each seed is one history, and a failing seed is a whole bug report.
//!
//! # What always holds
//! 1. The same seed gives the same trace. Keys, salts and UUIDs are real, and decide nothing.
//! 2. A history ends at the first thing that is not as it has to be.
//!
//! What is simulated, and what is not: `docs/reliability.md`.

mod boot;
mod check;
mod clock;
mod contents;
mod disk;
mod http;
mod kek;
mod media;
mod model;
mod ops;
mod push;
mod random;
mod recorder;
mod saving;
mod trace;
mod witness;
mod world;

use std::sync::{Mutex, MutexGuard};

pub use world::{Outcome, run};

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().expect("no panic under this lock")
}
