//! Benchmarks that anybody can run, each beside a baseline of the same run. How, and what the rows mean:
//! `docs/performance.md`.

// What is measured is printed: that is all this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod append;
mod archive;
mod measure;
mod memory;
mod micro;
mod month;
mod rebuild;
mod start;
mod timeline;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "vidar-benches", about = "Benchmarks, each beside a baseline of the same run.")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Pieces on their own: sealing, demuxing, tables, muxing, fragmenting, timeline lookups.
    Micro(micro::Arguments),
    /// A simulated month of recording and letting go, on a real disk: what is written, and how soon space comes back.
    Month(month::Arguments),
    /// Durable appends, beside bare writes and syncs of the same batches.
    Append(append::Arguments),
    /// The timeline among up to 100 million fragments: lookups cached and cold, bytes a fragment, memory, rate.
    Timeline(timeline::Arguments),
    /// A start after a kill: until everything is open, of many closed files and some that were being written.
    Start(start::Arguments),
    /// The timeline and search made again from the segment files.
    Rebuild(rebuild::Arguments),
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    println!("{}", vidar_load::Machine::of_this());
    if cfg!(debug_assertions) {
        println!("A debug build: its numbers say nothing. Run with --release.");
    }
    match arguments.what {
        What::Micro(arguments) => micro::run(&arguments),
        What::Month(arguments) => month::run(&arguments),
        What::Append(arguments) => append::run(&arguments),
        What::Timeline(arguments) => timeline::run(&arguments),
        What::Start(arguments) => start::run(&arguments),
        What::Rebuild(arguments) => rebuild::run(&arguments),
    }
}
