//! Pieces on their own.

mod clip;
mod demux;
mod fragmenter;
mod mux;
mod seal;
mod table;
mod timeline;

use std::time::Duration;

use crate::measure::Report;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Milliseconds of a round. Nine rounds are made of each thing and each baseline; the median counts.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u64).range(1..=1000))]
    round_ms: u64,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let mut report = Report::new(Duration::from_millis(arguments.round_ms));
    seal::rows(&mut report);
    demux::rows(&mut report)?;
    table::rows(&mut report)?;
    mux::rows(&mut report)?;
    fragmenter::rows(&mut report)?;
    timeline::rows(&mut report)?;
    report.print();
    Ok(())
}
