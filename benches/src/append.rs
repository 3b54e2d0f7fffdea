//! Durable appends to a store on disk, beside bare writes and syncs of the same batches into a preallocated file.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::Context;
use bytes::Bytes;
use tokio::task::JoinSet;
use vidar_core::clock::SystemClock;
use vidar_core::ids::{ConfigId, FragmentNumber, RunId, StreamId};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, NewFragment, Piece, TableEnvelope};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_storage::backend::SegmentIo;
use vidar_storage::backend::blocks::Blocks;
use vidar_storage::backend::fs::FsIo;
use vidar_storage::{Store, StoreOptions};

use vidar_load::{Snapshot, digits, table};

use crate::archive::noise;

/// Samples of a fragment: it is handed over in so many pieces.
const SAMPLE_COUNT: usize = 50;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// On the disk to measure; by default the temporary directory.
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Megabytes that each row appends in a round.
    #[arg(long, default_value_t = 512, value_parser = clap::value_parser!(u64).range(1..=65_536))]
    megabytes: u64,
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=100))]
    rounds: u64,
    /// Through the page cache.
    #[arg(long)]
    buffered: bool,
}

/// Writers that append one fragment after the other, each when the one before is durable.
struct Load {
    writers: usize,
    fragment_bytes: usize,
}

/// The batches of the baseline are about what the group commit makes of the load.
const LOADS: [Load; 4] = [
    Load { writers: 1, fragment_bytes: 500_000 },
    Load { writers: 16, fragment_bytes: 500_000 },
    Load { writers: 64, fragment_bytes: 500_000 },
    Load { writers: 400, fragment_bytes: 20_000 },
];

impl Load {
    fn batch_bytes(&self) -> usize {
        (self.writers * self.fragment_bytes).clamp(4096, 8 << 20) / 4096 * 4096
    }
}

/// One round of one load.
#[derive(Debug, Clone, Copy)]
struct Round {
    bytes_per_s: f64,
    cpu_ns_per_byte: f64,
    p50_ms: f64,
    p99_ms: f64,
}

impl Round {
    fn new(bytes: usize, from: (Instant, u64), mut each_ms: Vec<f64>) -> anyhow::Result<Self> {
        let cpu_ms = Snapshot::of("self")?.cpu_ms - from.1;
        each_ms.sort_by(f64::total_cmp);
        let at = |percent: usize| each_ms.get(each_ms.len() * percent / 100).copied().unwrap_or_default();
        Ok(Self {
            bytes_per_s: bytes as f64 / from.0.elapsed().as_secs_f64(),
            cpu_ns_per_byte: cpu_ms as f64 * 1e6 / bytes as f64,
            p50_ms: at(50),
            p99_ms: at(99),
        })
    }
}

fn start() -> anyhow::Result<(Instant, u64)> {
    Ok((Instant::now(), Snapshot::of("self")?.cpu_ms))
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let parent = arguments.dir.clone().unwrap_or_else(std::env::temp_dir);
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let io = |dir: &Path| if arguments.buffered { FsIo::buffered(dir) } else { FsIo::new(dir) };
    let columns = ["load", "MB/s", "best", "p50 ms", "p99 ms", "CPU ns/B", "bare MB/s", "best", "p50 ms", "CPU ns/B"];
    let mut shown = table(&columns);
    let bytes = usize::try_from(arguments.megabytes * 1_000_000)?;
    for load in &LOADS {
        let (mut here, mut bare) = (Vec::new(), Vec::new());
        for _ in 0..arguments.rounds {
            let dir = tempfile::tempdir_in(&parent)?;
            bare.push(bare_writes(&io(dir.path()), load.batch_bytes(), bytes)?);
            here.push(runtime.block_on(appends(io(dir.path()), dir.path(), load, bytes))?);
        }
        let mut row = vec![format!("{} × {} kB", load.writers, load.fragment_bytes / 1000)];
        for (rounds, has_p99) in [(&mut here, true), (&mut bare, false)] {
            rounds.sort_by(|a, b| a.bytes_per_s.total_cmp(&b.bytes_per_s));
            let (median, best) = (rounds[rounds.len() / 2], rounds[rounds.len() - 1]);
            row.extend([digits(median.bytes_per_s / 1e6), digits(best.bytes_per_s / 1e6), digits(median.p50_ms)]);
            row.extend(has_p99.then(|| digits(median.p99_ms)));
            row.push(digits(median.cpu_ns_per_byte));
        }
        eprintln!("measured {}", row[0]);
        shown.add_row(row);
    }
    println!("{shown}");
    Ok(())
}

/// What the disk can do: one batch after the other, each synced.
fn bare_writes(io: &FsIo, batch: usize, bytes: usize) -> anyhow::Result<Round> {
    let _lock = io.lock()?;
    let count = (bytes / batch).max(1);
    let file = io.create("bare.vseg", (count * batch) as u64)?;
    file.sync_data()?;
    let random: Vec<u8> = noise(batch);
    let blocks = Blocks::from(&random[..]);
    let from = start()?;
    let mut each_ms = Vec::with_capacity(count);
    for index in 0..count {
        let began = Instant::now();
        file.write_blocks((index * batch) as u64, &blocks)?;
        file.sync_data()?;
        each_ms.push(began.elapsed().as_secs_f64() * 1e3);
    }
    let round = Round::new(count * batch, from, each_ms)?;
    io.unlink("bare.vseg")?;
    Ok(round)
}

async fn appends(io: FsIo, dir: &Path, load: &Load, bytes: usize) -> anyhow::Result<Round> {
    let (store, _) = Store::open(StoreOptions::new(dir), Arc::new(io), SystemClock::shared(), Vec::new())?;
    let media: Bytes = noise(load.fragment_bytes).into();
    let each = (bytes / load.writers / load.fragment_bytes).max(1);
    let mut sources = Vec::with_capacity(load.writers);
    for _ in 0..load.writers.min(16) {
        sources.push(Source::new(&store).await?);
    }
    let from = start()?;
    let mut writers = JoinSet::new();
    for index in 0..load.writers {
        let (store, media, source) = (store.clone(), media.clone(), sources[index % sources.len()]);
        writers.spawn(async move {
            let mut each_ms = Vec::with_capacity(each);
            for _ in 0..each {
                let fragment = source.fragment(store.next_number(UnixMs(0)), &media);
                let began = Instant::now();
                store.append(fragment).await?;
                each_ms.push(began.elapsed().as_secs_f64() * 1e3);
            }
            anyhow::Ok(each_ms)
        });
    }
    let mut each_ms = Vec::new();
    while let Some(done) = writers.join_next().await {
        each_ms.extend(done??);
    }
    let round = Round::new(each_ms.len() * load.fragment_bytes, from, each_ms)?;
    store.close().await?;
    Ok(round)
}

#[derive(Debug, Clone, Copy)]
struct Source {
    stream: StreamId,
    run: RunId,
    config: ConfigId,
}

impl Source {
    async fn new(store: &Store) -> anyhow::Result<Self> {
        let (stream, run) = (StreamId::new(), RunId::new());
        store.create_stream_key(stream).await?;
        let config = StreamConfig { tracks: Vec::new(), matroska_header: Bytes::from_static(b"any") };
        let config = store.put_config(stream, &config).await.context("a stream that was just made")?;
        Ok(Self { stream, run, config })
    }

    fn fragment(&self, number: FragmentNumber, media: &Bytes) -> NewFragment {
        let meta = FragmentMeta {
            stream: self.stream,
            number,
            run: self.run,
            lease_epoch: 0,
            ordinal: 0,
            discontinuity: 0,
            producer_start: UnixMs(0),
            duration_ms: 2000,
            config: self.config,
            flags: FragmentFlags::STARTS_WITH_SYNC,
        };
        // About what the table of so many samples takes.
        let table = Bytes::from_static(&[0; 8 * SAMPLE_COUNT]);
        let piece = Piece { part: None, media_len: media.len() as u64, table };
        let step = media.len().div_ceil(SAMPLE_COUNT);
        let samples = (0..media.len()).step_by(step).map(|at| media.slice(at..(at + step).min(media.len())));
        NewFragment {
            meta,
            part: None,
            facts: FragmentFacts::default(),
            table: TableEnvelope { pieces: vec![piece] },
            media: samples.collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_of_each_kind_can_be_made() {
        let arguments = Arguments { dir: None, megabytes: 8, rounds: 1, buffered: false };
        run(&arguments).unwrap();
        assert_eq!(LOADS.map(|load| load.batch_bytes()), [499_712, 7_999_488, 8 << 20, 7_999_488]);
    }
}
