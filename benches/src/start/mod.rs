//! How long a start takes after a kill: of an archive of many closed files and some that were being written, with a
//! checkpoint and without, hot and cold. Beside it what the same files cost that are only listed, or only read.

mod state;

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use anyhow::{Context, ensure};
use comfy_table::Table;
use vidar_core::clock::SystemClock;
use vidar_core::log::LogObserver;
use vidar_indexer::{Index, IndexOptions};
use vidar_load::{Server, Snapshot, digits, table};
use vidar_server::serve::INDEX_DIR;
use vidar_storage::backend::SegmentIo;
use vidar_storage::backend::fs::FsIo;
use vidar_storage::{OpenReport, Store, StoreOptions};

use crate::archive::{Making, QuickIo, fill};
use crate::memory::Memory;
use state::State;

/// A file is closed with its first batch.
const SMALL_SEGMENT_BYTES: u64 = 8192;
/// As cameras send them: of 2 s, and small ones to fill closed files with.
const FRAGMENT_BYTES: usize = 500_000;
const SMALL_FRAGMENT_BYTES: usize = 500;
const WRITERS: usize = 16;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Closed segment files; each holds little.
    #[arg(long, default_value_t = 200_000)]
    files: u64,
    /// Fragments in each of them, about.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=4000))]
    fragments: u16,
    /// Files that were not closed.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u64).range(1..=64))]
    unclosed: u64,
    /// MiB of each of those.
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u64).range(1..=4096))]
    mib: u64,
    /// Where the archive is made; it is removed afterwards.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// Also the time until this server listens.
    #[arg(long)]
    serve: Option<PathBuf>,
    /// Only from a checkpoint.
    #[arg(long)]
    resume_only: bool,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    fs::create_dir_all(&arguments.dir)?;
    let folder = tempfile::tempdir_in(&arguments.dir)?;
    let data = folder.path().join("data");
    let began = Instant::now();
    let state = make(arguments, &data, &folder.path().join("kept"))?;
    eprintln!("made in {} s", digits(began.elapsed().as_secs_f64()));
    println!(
        "{} closed segment files, {} of {} MiB without footer",
        arguments.files, arguments.unclosed, arguments.mib
    );
    let mut rows = table(&["start", "s", "CPU s", "read MB", "of it from disk", "read calls", "memory MiB"]);
    for cold in [false, true] {
        state.restore(true)?;
        baselines(&mut rows, &state, cold)?;
        for checkpoint in [true, false] {
            if checkpoint || !arguments.resume_only {
                state.restore(checkpoint)?;
                state.settle(cold)?;
                open(&mut rows, arguments, &data, checkpoint, cold)?;
                if let Some(program) = &arguments.serve {
                    state.restore(checkpoint)?;
                    state.settle(cold)?;
                    serve(&mut rows, program, &data, checkpoint, cold)?;
                }
            }
        }
    }
    println!("{rows}");
    Ok(())
}

fn name(what: &str, checkpoint: bool, cold: bool) -> String {
    let checkpoint = if checkpoint { "from a checkpoint" } else { "without a checkpoint" };
    format!("{what}, {checkpoint}, {}", if cold { "cold" } else { "hot" })
}

/// Closed files, then, on top of their checkpoint, files that were not closed.
fn make(arguments: &Arguments, data: &Path, kept: &Path) -> anyhow::Result<State> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        let io = QuickIo::new(data, false);
        let (store, files) = (open_store(data, Arc::new(io), SMALL_SEGMENT_BYTES, Vec::new())?.0, arguments.files);
        let counting = store.clone();
        let enough = move || counting.stats().files >= files;
        fill(&store, arguments.fragments.into(), SMALL_FRAGMENT_BYTES, enough).await?;
        store.close().await?;
        anyhow::Ok(())
    })?;
    let closed = State::names(data)?;
    runtime.block_on(async {
        // Reads it all, and ends with a checkpoint.
        let io = QuickIo::new(data, true);
        let mut index = None;
        let (store, report) = open_indexed(data, Arc::new(io.clone()), arguments.mib << 20, &mut index)?;
        ensure!(report.damage.is_empty() && report.files >= arguments.files, "{report:?}");
        if let Some(index) = &index {
            index.search().commit();
        }
        let (store, report) = if data.join("checkpoint").exists() {
            (store, report)
        } else {
            // Too few files for one on the way: it is made at the stop.
            store.close().await?;
            drop(store);
            drop(index.take());
            open_indexed(data, Arc::new(io.clone()), arguments.mib << 20, &mut index)?
        };
        drop(report);
        let wanted = arguments.unclosed * (arguments.mib << 20) - (arguments.mib << 20) / 8;
        io.make(Making::Unclosed);
        let sent = Arc::new(AtomicU64::new(0));
        let enough = move || sent.fetch_add(FRAGMENT_BYTES as u64, Ordering::Relaxed) >= wanted;
        fill(&store, WRITERS, FRAGMENT_BYTES, enough).await?;
        io.make(Making::Killed);
        store.close().await?;
        anyhow::Ok(())
    })?;
    State::keep(data, kept, closed)
}

fn open_store(
    data: &Path,
    io: Arc<dyn SegmentIo>,
    segment_bytes: u64,
    observers: Vec<Arc<dyn LogObserver>>,
) -> anyhow::Result<(Store, OpenReport)> {
    let mut options = StoreOptions::new(data);
    options.segment_bytes = segment_bytes;
    Ok(Store::open(options, io, SystemClock::shared(), observers)?)
}

/// As the server opens it.
fn open_indexed(
    data: &Path,
    io: Arc<dyn SegmentIo>,
    segment_bytes: u64,
    index: &mut Option<Arc<Index>>,
) -> anyhow::Result<(Store, OpenReport)> {
    let clock = SystemClock::shared();
    let dir = data.join(INDEX_DIR);
    let mut options = StoreOptions::new(data);
    options.segment_bytes = segment_bytes;
    Store::open_with(options, io, Arc::clone(&clock), |key| {
        let opened = Index::open(IndexOptions::new(dir, *key.bytes(), clock))?;
        *index = Some(Arc::clone(&opened));
        anyhow::Ok(vec![opened as Arc<dyn LogObserver>])
    })
}

fn add(rows: &mut Table, name: &str, seconds: f64, before: &Snapshot, after: &Snapshot, memory_mib: u64) {
    eprintln!("{name}: {} s", digits(seconds));
    let mb = |bytes: u64| digits(bytes as f64 / 1e6);
    rows.add_row([
        name.to_owned(),
        digits(seconds),
        digits((after.cpu_ms - before.cpu_ms) as f64 / 1e3),
        mb(after.asked_bytes - before.asked_bytes),
        mb(after.read_bytes - before.read_bytes),
        (after.read_calls - before.read_calls).to_string(),
        memory_mib.to_string(),
    ]);
}

fn open(rows: &mut Table, arguments: &Arguments, data: &Path, checkpoint: bool, cold: bool) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let _inside = runtime.enter();
    let (memory, before) = (Memory::begin()?, Snapshot::of("self")?);
    let began = Instant::now();
    let mut index = None;
    let (store, report) = open_indexed(data, Arc::new(FsIo::new(data)), arguments.mib << 20, &mut index)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = Snapshot::of("self")?;
    ensure!(report.damage.is_empty() && report.resumed == checkpoint, "{:?}", report.damage.first());
    ensure!(report.unclosed >= arguments.unclosed, "{} of {} are unclosed", report.unclosed, arguments.unclosed);
    add(rows, &name("open", checkpoint, cold), seconds, &before, &after, memory.grown_mib()?);
    // Search goes on beside; what it makes is thrown away.
    if let Some(index) = index {
        index.close();
    }
    runtime.block_on(store.close())?;
    Ok(())
}

fn serve(rows: &mut Table, program: &Path, data: &Path, checkpoint: bool, cold: bool) -> anyhow::Result<()> {
    let began = Instant::now();
    let server = Server::start(program, data, None)?;
    let seconds = began.elapsed().as_secs_f64();
    let after = Snapshot::of(&server.pid())?;
    let memory_mib = after.rss_kib / 1024;
    add(rows, &name("server listens", checkpoint, cold), seconds, &Snapshot::default(), &after, memory_mib);
    Ok(())
}

/// The same files, one after the other, and nothing done with them.
fn baselines(rows: &mut Table, state: &State, cold: bool) -> anyhow::Result<()> {
    let cache = if cold { "cold" } else { "hot" };
    let mut row = |name: &str, work: &dyn Fn() -> anyhow::Result<()>| -> anyhow::Result<()> {
        state.settle(cold)?;
        let (memory, before, began) = (Memory::begin()?, Snapshot::of("self")?, Instant::now());
        work()?;
        let (seconds, after) = (began.elapsed().as_secs_f64(), Snapshot::of("self")?);
        add(rows, &format!("baseline: {name}, {cache}"), seconds, &before, &after, memory.grown_mib()?);
        Ok(())
    };
    row("list all files and their lengths", &|| {
        for entry in fs::read_dir(state.segments())? {
            entry?.metadata()?;
        }
        Ok(())
    })?;
    let read = |paths: Vec<PathBuf>| {
        let mut buffer = vec![0; 1 << 20];
        for path in paths {
            let mut file = File::open(&path).with_context(|| path.display().to_string())?;
            while file.read(&mut buffer)? > 0 {}
        }
        anyhow::Ok(())
    };
    row("read those without footer", &|| read(state.unclosed()?))?;
    row("read those with footers", &|| read(state.closed()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_archive_is_opened_in_all_ways() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = Arguments {
            files: 70,
            fragments: 2,
            unclosed: 3,
            mib: 2,
            dir: dir.path().to_owned(),
            serve: None,
            resume_only: false,
        };
        run(&arguments).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing stays");
    }
}
