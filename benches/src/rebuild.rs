//! The rate at which the timeline and search are made again from the segment files, as after their loss: `vidar index
//! rebuild`, and a start without a checkpoint. Beside it: the footers read and nothing done with them, and the log told to
//! nobody.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{bail, ensure};
use comfy_table::Table;
use vidar_core::clock::SystemClock;
use vidar_core::log::{LogEvent, LogObserver};
use vidar_indexer::{Index, IndexOptions};
use vidar_load::{Snapshot, digits, table};
use vidar_storage::{Store, StoreOptions, replay, replay_with};

use crate::archive::{QuickIo, fill};
use crate::memory::Memory;

/// Some 500 fragments of [`FRAGMENT_BYTES`] fill it, as they do one of 256 MiB when they are as large as real ones.
const SEGMENT_BYTES: u64 = 1 << 20;
const FRAGMENT_BYTES: usize = 200;
/// Goals, fragments and documents a second.
const TIMELINE_GOAL: &str = "≥ 500 k";
const SEARCH_GOAL: &str = "≥ 20 k";

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fragments in the log.
    #[arg(long, default_value_t = 1_000_000)]
    fragments: u64,
    /// Streams that they are of.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u16).range(1..))]
    streams: u16,
    /// Where the log is made; it is removed afterwards.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
}

/// Counts what it hears.
#[derive(Default)]
struct Nobody(AtomicU64);

impl LogObserver for Nobody {
    fn observe(&self, event: &LogEvent) {
        self.0.fetch_add(u64::from(matches!(event, LogEvent::Fragment { .. })), Ordering::Relaxed);
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    fs::create_dir_all(&arguments.dir)?;
    let folder = tempfile::tempdir_in(&arguments.dir)?;
    let data = folder.path().join("data");
    let count = make(arguments, &data)?;
    let files = fs::read_dir(data.join("segments"))?.count();
    println!("{count} fragments of {} streams in {files} segment files, in the page cache", arguments.streams);
    let mut rows = table(&["row", "k/s", "goal", "s", "CPU s", "CPU µs each", "memory MiB"]);
    let mut row =
        |name: &str, goal: &str, work: &mut dyn FnMut() -> anyhow::Result<u64>| measure(&mut rows, name, goal, work);
    row("baseline: read all segment files", "", &mut || {
        read_all(&data.join("segments"))?;
        Ok(count)
    })?;
    row("baseline: the log told to nobody", "", &mut || {
        let nobody = Arc::new(Nobody::default());
        let report = replay(&StoreOptions::new(&data), &[Arc::clone(&nobody) as Arc<dyn LogObserver>])?;
        ensure!(report.damage.is_empty() && report.fragments == count, "{report:?}");
        Ok(nobody.0.load(Ordering::Relaxed))
    })?;
    let options = |key: [u8; 32]| IndexOptions::new(folder.path().join("index"), key, SystemClock::shared());
    row("timeline, from the log", TIMELINE_GOAL, &mut || {
        let mut index = None;
        replay_with(
            &StoreOptions::new(&data),
            |key| {
                let opened = Index::open(options(*key.bytes()))?;
                // Search has a row of its own.
                opened.close();
                index = Some(Arc::clone(&opened));
                anyhow::Ok(vec![opened as Arc<dyn LogObserver>])
            },
            &mut |_| {},
        )?;
        let found = index.as_ref().map_or(0, |index| {
            index.timeline().settle();
            index.timeline().entry_count()
        });
        drop(index);
        Index::wipe(&folder.path().join("index"))?;
        Ok(found)
    })?;
    row("timeline and search, until all is found", SEARCH_GOAL, &mut || {
        let mut index = None;
        replay_with(
            &StoreOptions::new(&data),
            |key| {
                let opened = Index::open(options(*key.bytes()))?;
                index = Some(Arc::clone(&opened));
                anyhow::Ok(vec![opened as Arc<dyn LogObserver>])
            },
            &mut |_| {},
        )?;
        let Some(index) = index else { bail!("the log was read without its observers") };
        index.search().commit();
        let found = index.search().status().document_count;
        index.close();
        Ok(found)
    })?;
    println!("{rows}");
    Ok(())
}

fn make(arguments: &Arguments, data: &Path) -> anyhow::Result<u64> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut options = StoreOptions::new(data);
        options.segment_bytes = SEGMENT_BYTES;
        let io = Arc::new(QuickIo::new(data, false));
        let (store, _) = Store::open(options, io, SystemClock::shared(), Vec::new())?;
        let (sent, wanted) = (Arc::new(AtomicU64::new(0)), arguments.fragments);
        let enough = move || sent.fetch_add(1, Ordering::Relaxed) >= wanted;
        let count = fill(&store, arguments.streams.into(), FRAGMENT_BYTES, enough).await?;
        store.close().await?;
        Ok(count)
    })
}

/// `work` answers how many were done.
fn measure(
    rows: &mut Table,
    name: &str,
    goal: &str,
    work: &mut dyn FnMut() -> anyhow::Result<u64>,
) -> anyhow::Result<()> {
    let (memory, before, began) = (Memory::begin()?, Snapshot::of("self")?, Instant::now());
    let count = work()?;
    let (seconds, after) = (began.elapsed().as_secs_f64(), Snapshot::of("self")?);
    ensure!(count > 0, "{name}: nothing was there");
    let cpu_s = (after.cpu_ms - before.cpu_ms) as f64 / 1e3;
    eprintln!("{name}: {} s", digits(seconds));
    rows.add_row([
        name.to_owned(),
        digits(count as f64 / seconds / 1e3),
        goal.to_owned(),
        digits(seconds),
        digits(cpu_s),
        digits(cpu_s * 1e6 / count as f64),
        memory.grown_mib()?.to_string(),
    ]);
    Ok(())
}

fn read_all(folder: &Path) -> anyhow::Result<()> {
    let mut buffer = vec![0; 1 << 20];
    for entry in fs::read_dir(folder)? {
        let (file, mut at) = (File::open(entry?.path())?, 0);
        loop {
            match file.read_at(&mut buffer, at)? {
                0 => break,
                len => at += len as u64,
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_log_is_read_in_all_ways() {
        let dir = tempfile::tempdir().unwrap();
        run(&Arguments { fragments: 3_000, streams: 5, dir: dir.path().to_owned() }).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing stays");
    }
}
