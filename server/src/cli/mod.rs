//! Subcommands. Those that ask a running server speak its public API; those that read a data directory need it stopped.

mod client;
mod credentials;
mod export;
mod keys;
mod local;
mod offline;
mod online;
mod part;
mod place;
mod retention;
mod verify;

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use crate::serve::Server;
use crate::settings::{ServeArgs, unknown_variables};

/// Damage was found.
pub(crate) const EXIT_DAMAGE: u8 = 1;

/// Video ingest, durable archive.
#[derive(Debug, Parser)]
#[command(name = "vidar", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Runs the server.
    Serve(Box<ServeArgs>),
    /// Lists, creates, changes or deletes streams.
    Streams(online::StreamsArgs),
    /// Lists the fragments of a stream.
    Fragments(online::FragmentsArgs),
    /// Searches fragments, runs and gaps.
    Search(online::SearchArgs),
    /// Fetches a clip of a stream.
    Clip(online::ClipArgs),
    /// Writes a range as a file with a manifest of what is in it, or checks such a file.
    Export(export::ExportArgs),
    /// Shows what retention would let go.
    Retention(retention::RetentionArgs),
    /// Lists, rotates or destroys keys.
    Keys(keys::KeysArgs),
    /// Shows or rotates the root credentials of a data directory; makes and manages access keys of a running server.
    Credentials(credentials::CredentialsArgs),
    /// Checks what is stored, by a stopped data directory or a running server; exit status 1 if damage was found.
    Verify(verify::VerifyArgs),
    /// Writes damaged files of a stopped data directory anew from what still opens, and puts the old ones away.
    Repair(verify::RepairArgs),
    /// Takes a container on standard input apart, for a server that started it.
    #[command(hide = true)]
    DemuxHelper {
        /// What it is: flv, avi, ogg or mpeg-ps.
        format: String,
    },
    /// Works on the index of a stopped data directory.
    Index(offline::IndexArgs),
}

/// Where the data is.
#[derive(Debug, Clone, Args)]
pub(crate) struct DataDir {
    /// Folder that holds everything the server keeps.
    #[arg(long, env = "VIDAR_DATA_DIR")]
    pub(crate) data_dir: PathBuf,
    /// File that holds the key which wraps all others [default: DATA_DIR with `.key` behind it].
    #[arg(long, env = "VIDAR_KEY_FILE")]
    pub(crate) key_file: Option<PathBuf>,
}

/// Runs the program.
#[must_use]
#[allow(clippy::print_stderr)]
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    let json = matches!(&cli.command, Command::Serve(args) if args.log_json == Some(true));
    init_log(json, matches!(cli.command, Command::Serve(_)));
    for name in unknown_variables(&Cli::command()) {
        tracing::warn!(name, "unknown variable");
    }
    if let Command::DemuxHelper { format } = &cli.command {
        // Before the runtime: limits come first, and threads of our own are none of its business.
        return match vidar_ingest::gst::run_helper(format) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("vidar: {error}");
                ExitCode::FAILURE
            }
        };
    }
    crate::memory::give_large_blocks_back();
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("vidar: start the runtime: {error}");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(run(cli.command)) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("vidar: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Serve(args) => serve(*args).await,
        Command::Streams(args) => online::streams(args).await,
        Command::Fragments(args) => online::fragments(args).await,
        Command::Search(args) => online::search(args).await,
        Command::Clip(args) => online::clip(args).await,
        Command::Export(args) => export::export(args).await,
        Command::Retention(args) => retention::retention(args).await,
        Command::Keys(args) => keys::keys(args).await,
        Command::Credentials(args) => credentials::credentials(args).await,
        Command::Verify(args) => verify::verify(args).await,
        Command::Repair(args) => verify::repair(args),
        Command::Index(args) => offline::index(args),
        Command::DemuxHelper { .. } => Ok(ExitCode::SUCCESS),
    }
}

async fn serve(args: ServeArgs) -> anyhow::Result<ExitCode> {
    // Before anything is opened: a signal during recovery also stops in order.
    let (mut terminate, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    let server = Server::start(args.settings()?).await?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    server.run(stop).await?;
    Ok(ExitCode::SUCCESS)
}

/// Logs go to standard error; `VIDAR_LOG` is a filter such as `info,vidar_storage=debug`.
fn init_log(json: bool, server: bool) {
    let default = if server { "info" } else { "warn" };
    let filter = tracing_subscriber::EnvFilter::try_from_env("VIDAR_LOG").unwrap_or_else(|_| default.into());
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    if json {
        log.json().init();
    } else {
        log.with_ansi(false).init();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }
}
