//! Subcommands that read a stopped data directory: they take its lock.

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde_json::json;
use vidar_core::clock::SystemClock;
use vidar_core::log::LogObserver;
use vidar_indexer::{CatchUp, Index, IndexOptions};
use vidar_storage::{Secret, StoreOptions};

use super::client::progress;
use super::{DataDir, EXIT_DAMAGE};
use crate::serve::INDEX_DIR;

/// Between two looks at how far search is.
const BAR_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Args)]
pub(crate) struct IndexArgs {
    #[command(subcommand)]
    action: IndexAction,
}

#[derive(Debug, Subcommand)]
enum IndexAction {
    /// Makes the search index again from the segment files alone.
    Rebuild {
        #[command(flatten)]
        data: DataDir,
        /// Prints JSON, one object.
        #[arg(long)]
        json: bool,
    },
}

impl DataDir {
    pub(crate) fn store_options(&self) -> anyhow::Result<StoreOptions> {
        let mut options = StoreOptions::new(&self.data_dir);
        options.kek = crate::keys::provider(&self.data_dir, self.key_file.as_ref())?;
        Ok(options)
    }
}

pub(crate) fn print(text: &str) -> anyhow::Result<()> {
    writeln!(std::io::stdout().lock(), "{text}").context("write to standard output")
}

pub(crate) fn index(args: IndexArgs) -> anyhow::Result<ExitCode> {
    let IndexAction::Rebuild { data, json } = args.action;
    let dir = data.data_dir.join(INDEX_DIR);
    let clock = SystemClock::shared();
    let mut index = None;
    // The lock of the directory is held here: no server has the index open.
    let observers = |key: &Secret| {
        let opened = Index::rebuild(IndexOptions::new(dir.clone(), *key.bytes(), clock))?;
        index = Some(Arc::clone(&opened));
        anyhow::Ok(vec![opened as Arc<dyn LogObserver>])
    };
    let bar = progress(Some(0), "reading the log: {percent} % {wide_bar} {eta}");
    let report = vidar_storage::replay_with(&data.store_options()?, observers, &mut |step| {
        bar.set_length(step.files_total);
        bar.set_position(step.files);
    })?;
    bar.finish_and_clear();
    let index = index.context("the log was read without its observers")?;
    let streams = index.catalog().streams();
    let fragments: u64 = streams.iter().map(|stream| index.timeline().totals(stream.stream).fragment_count).sum();
    make_searchable(&index);
    index.close();
    Index::rebuilt(&dir)?;
    if json {
        print(
            &json!({ "streams": streams.len(), "fragments": fragments, "damaged_records": report.damage.len() })
                .to_string(),
        )?;
    } else {
        print(&format!("{} streams, {fragments} fragments, {} damaged records", streams.len(), report.damage.len()))?;
    }
    Ok(if report.damage.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(EXIT_DAMAGE) })
}

/// Waits until search has all of it in its files, and shows how far it is.
fn make_searchable(index: &Index) {
    let bar = progress(Some(0), "search: {pos} of {len} fragments {wide_bar} {eta}");
    std::thread::scope(|scope| {
        let commit = scope.spawn(|| index.search().commit());
        while !commit.is_finished() {
            if let Some(CatchUp { fragments, fragments_total }) = index.search().status().catching_up {
                bar.set_length(fragments_total);
                bar.set_position(fragments);
            }
            std::thread::sleep(BAR_INTERVAL);
        }
    });
    bar.finish_and_clear();
}
