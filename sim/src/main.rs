//! `vidar-sim`: runs one seed, or many.

#![allow(clippy::print_stdout)] // it answers on standard output

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::process::ExitCode;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use clap::Parser;

/// Simulates whole histories of a recorder, each from one number.
#[derive(Parser)]
struct Args {
    /// The seed, or the first of several.
    #[arg(long, default_value_t = 0)]
    seed: u64,
    /// How many seeds.
    #[arg(long, default_value_t = 1)]
    count: u64,
    /// Threads, a seed each.
    #[arg(long, default_value_t = 1)]
    threads: u64,
    /// Print everything that happens; with RUST_LOG also what the server logs.
    #[arg(long)]
    verbose: bool,
}

#[allow(clippy::disallowed_methods)] // how long it took, for people
fn main() -> ExitCode {
    let args = Args::parse();
    if args.verbose {
        tracing_subscriber::fmt().with_env_filter(tracing_subscriber::EnvFilter::from_default_env()).init();
    }
    let (begun, next, failed, fragments) = (Instant::now(), AtomicU64::new(0), AtomicU64::new(0), AtomicU64::new(0));
    std::thread::scope(|scope| {
        for _ in 0..args.threads {
            scope.spawn(|| {
                loop {
                    let index = next.fetch_add(1, Ordering::Relaxed);
                    if index >= args.count {
                        return;
                    }
                    let seed = args.seed + index;
                    let ran = catch_unwind(AssertUnwindSafe(|| vidar_sim::run(seed, args.verbose)));
                    match ran.unwrap_or_else(|_| Err("a panic, see above".into())) {
                        Ok(outcome) => {
                            fragments.fetch_add(outcome.fragments, Ordering::Relaxed);
                            if args.count == 1 {
                                println!("seed {seed}: {outcome:?}");
                            }
                        }
                        Err(error) => {
                            failed.fetch_add(1, Ordering::Relaxed);
                            println!("seed {seed} FAILED: {error}");
                        }
                    }
                }
            });
        }
    });
    let (failed, fragments) = (failed.into_inner(), fragments.into_inner());
    let (count, seconds) = (args.count, begun.elapsed().as_secs_f64());
    println!("{count} seeds, {failed} failed, {fragments} fragments, {seconds:.1} s");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
