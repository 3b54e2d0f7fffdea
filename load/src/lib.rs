//! A load to measure a server with: many publishers and players in one process that costs little, and what the kernel and
//! the server say meanwhile. How to run it, and what the numbers mean: `docs/performance.md`.

// What is measured is printed: that is all this program is for.
#![allow(clippy::print_stdout, clippy::print_stderr)]

mod clip;
mod fill;
mod follow;
mod http;
mod listing;
mod machine;
mod metrics;
mod overload;
mod packetize;
mod page_cache;
mod play;
mod player;
mod plot;
mod process;
mod publish;
mod random;
mod record;
mod report;
mod rtsp;
mod run;
mod script;
mod server;
mod sink;
mod tally;
mod target;

pub use machine::Machine;
pub use process::Snapshot;
pub use report::{digits, table};
pub use server::Server;

use std::ffi::OsString;

use clap::{Parser, Subcommand};

#[derive(Debug, Parser)]
#[command(name = "vidar-load", about = "Many publishers and players, and what they cost a server.")]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Publishers at the same time; prints a table, and a line of JSON to a file.
    Publish(run::Arguments),
    /// Players of an archive at the same time, hot or cold; prints a table, and a line of JSON to a file.
    Play(play::Arguments),
    /// More than a server can take for a while, beside publishers that are to be served again afterwards.
    Overload(overload::Arguments),
    /// The cost of runs against their number of streams, as an SVG.
    Plot(plot::Arguments),
    /// Reads and throws away, on a TCP port that it prints.
    #[command(hide = true)]
    Sink,
}

/// The program, with its arguments; the first is its name.
///
/// # Errors
/// Something could not be measured, or the run does not count: fragments are missing, or the load was late.
pub fn run(arguments: impl IntoIterator<Item = OsString>) -> anyhow::Result<()> {
    let arguments = Arguments::parse_from(arguments);
    match arguments.what {
        What::Publish(arguments) => measure(run::run(&arguments)),
        What::Play(arguments) => measure(play::run(&arguments)),
        What::Overload(arguments) => measure(overload::run(&arguments)),
        What::Plot(arguments) => plot::run(&arguments),
        What::Sink => sink::serve(),
    }
}

fn measure(run: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    println!("{}", Machine::of_this());
    if cfg!(debug_assertions) {
        println!("A debug build: its numbers say nothing. Run with --release.");
    }
    // One thread: what it costs is easy to say, and one core is left to it.
    tokio::runtime::Builder::new_current_thread().enable_all().build()?.block_on(run)
}
