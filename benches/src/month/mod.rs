//! A simulated month of recording: what is written beside what was pushed, and how soon space comes back.
//!
//! The store, the index and retention are the server's own, on a real disk; only time is simulated. Streams keep an
//! hour, a day, 30 days or a year, some of each with a cap by bytes besides. The baseline of space is what the living
//! records take; the baseline of a sync is the same append without anything being let go beside it.
//!
//! How long space takes to come back follows from what is held beyond the living records and from what goes in an hour
//! (Little's law). What footers and padding hold counts as not come back.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::Context;
use bytes::Bytes;
use vidar_core::clock::{ManualClock, SharedClock};
use vidar_core::control::{Control, RunRecord, StreamSettings};
use vidar_core::ids::{ConfigId, RunId, StreamId, StreamName};
use vidar_core::log::LogObserver;
use vidar_core::record::{
    FragmentFacts, FragmentFlags, FragmentMeta, NewFragment, Piece, TableEnvelope, TrackFacts, TrackTotals, WallSource,
};
use vidar_core::registry::StreamRegistry;
use vidar_core::sink::FragmentSink;
use vidar_core::time::UnixMs;
use vidar_core::track::{StreamConfig, TrackKind};
use vidar_indexer::{Index, IndexOptions};
use vidar_load::{digits, table};
use vidar_server::registry::Registry;
use vidar_server::retention::Retention;
use vidar_server::settings::DiskPolicy;
use vidar_server::sink::StoreSink;
use vidar_storage::backend::fs::FsIo;
use vidar_storage::{DiskMarks, Distribution, Store, StoreOptions};

/// What streams keep, in hours: one after the other.
const RETENTION_HOURS: [u32; 4] = [1, 24, 720, 8760];
/// Of so many streams that are kept alike one has a cap by bytes too, …
const CAPPED_EVERY: usize = 4;
/// … of so many fragments.
const CAP_FRAGMENTS: usize = 40;
/// Sizes of fragments, in bytes: sound alone, a still night, 2 s of 2 Mbit/s. One after the other.
const SIZES: [usize; 3] = [20_000, 70_000, 500_000];
/// Small, so that as many files are closed as a busy server closes in the time that media lives.
const SEGMENT_BYTES: u64 = 16 << 20;
const HOUR: Duration = Duration::from_secs(3600);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Streams that record all the time.
    #[arg(long, default_value_t = 24, value_parser = clap::value_parser!(u16).range(4..=400))]
    streams: u16,
    /// Simulated days.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=400))]
    days: u16,
    /// Fragments of a stream in a simulated hour.
    #[arg(long, default_value_t = 6, value_parser = clap::value_parser!(u16).range(2..=3600))]
    fragments_per_hour: u16,
    /// Sizes of fragments, in percent of 20, 70 and 500 kB: less, for many streams on a small disk.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=100))]
    size_percent: u16,
    /// Where the data directory is made, and removed at the end: choose the disk to be measured
    /// [default: the system's folder for temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
}

/// A stream that records.
struct Source {
    stream: StreamId,
    run: RunId,
    config: ConfigId,
}

struct Month {
    clock: Arc<ManualClock>,
    store: Store,
    index: Arc<Index>,
    sink: Arc<StoreSink>,
    retention: Arc<Retention>,
    sources: Vec<Source>,
    segments: PathBuf,
    media: Bytes,
    /// One after the other.
    sizes: [usize; SIZES.len()],
}

/// What was seen.
#[derive(Default)]
struct Seen {
    pushed_bytes: u64,
    record_bytes: u64,
    fragments: u64,
    /// Space beyond that of the records which lived at some time in the hour before, at most.
    late_bytes: u64,
    /// The same as a share of those records.
    late_share: f64,
    live_bytes: u64,
    allocated_bytes: u64,
    /// Of files that take batches, or are next to.
    ahead_bytes: u64,
    /// Space beyond that of living records, summed up over the hours.
    held_byte_hours: f64,
    /// Of records that were let go.
    gone_bytes: u64,
    alone: Vec<Duration>,
    beside_deletion: Vec<Duration>,
    /// Syncs of segment files, alone and beside deletion.
    syncs: [Syncs; 2],
}

/// Times of syncs, as the store counts them: how many are at most so long.
#[derive(Default)]
struct Syncs {
    bounds_us: Vec<u64>,
    counts: Vec<u64>,
}

impl Syncs {
    /// What came between two looks.
    fn add(&mut self, before: &Distribution, after: &Distribution) {
        self.bounds_us = after.bounds.to_vec();
        self.counts.resize(after.counts.len(), 0);
        for (count, (before, after)) in self.counts.iter_mut().zip(before.counts.iter().zip(&after.counts)) {
            *count += after - before;
        }
    }

    /// In milliseconds, as if they lay evenly between bounds.
    fn quantile_ms(&self, share: f64) -> f64 {
        let wanted = self.counts.iter().sum::<u64>() as f64 * share;
        let (mut before, mut low_us) = (0.0, 0);
        for (index, count) in self.counts.iter().map(|count| *count as f64).enumerate() {
            let high_us = self.bounds_us.get(index).copied().unwrap_or(low_us);
            if before + count >= wanted && count > 0.0 {
                return (low_us as f64 + (high_us - low_us) as f64 * (wanted - before) / count) / 1e3;
            }
            (before, low_us) = (before + count, high_us);
        }
        0.0
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let folder = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("a folder for the data directory")?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let sizes = SIZES.map(|size| size * usize::from(arguments.size_percent) / 100);
    let (seen, written_bytes) = runtime.block_on(async {
        let month = Month::begin(&folder.path().join("data"), usize::from(arguments.streams), sizes).await?;
        let mut seen = Seen::default();
        for day in 0..arguments.days {
            for _ in 0..24 {
                month.hour(arguments.fragments_per_hour, &mut seen).await?;
            }
            eprintln!("day {}: {} MB live", day + 1, seen.live_bytes / 1_000_000);
        }
        month.store.close().await?;
        anyhow::Ok((seen, month.store.stats().bytes))
    })?;
    show(arguments, &seen, written_bytes);
    Ok(())
}

fn show(arguments: &Arguments, seen: &Seen, written_bytes: u64) {
    let mut table = table(&["row", "here", "baseline", "ratio"]);
    let mut row = |name: &str, here: f64, baseline: f64, unit: &str| {
        let cell = |value: f64| format!("{} {unit}", digits(value));
        table.add_row([name, &cell(here), &cell(baseline), &digits(here / baseline.max(f64::MIN_POSITIVE))]);
    };
    let mb = |bytes: u64| bytes as f64 / 1e6;
    row("written, beside the records themselves", mb(written_bytes), mb(seen.record_bytes), "MB");
    row("written, beside the media pushed", mb(written_bytes), mb(seen.pushed_bytes), "MB");
    row("allocated at the end, beside living records", mb(seen.allocated_bytes), mb(seen.live_bytes), "MB");
    let p99 = |times: &[Duration]| quantile(times, 0.99).as_secs_f64() * 1e3;
    row("append p99 while media goes, beside alone", p99(&seen.beside_deletion), p99(&seen.alone), "ms");
    let [alone, beside] = &seen.syncs;
    row("sync p99 while media goes, beside alone", beside.quantile_ms(0.99), alone.quantile_ms(0.99), "ms");
    println!(
        "{} streams, {} days, {} fragments; keeping {RETENTION_HOURS:?} hours",
        arguments.streams, arguments.days, seen.fragments
    );
    println!(
        "space is back after {} h on average; {} MB are allocated ahead",
        digits(seen.held_byte_hours / (seen.gone_bytes as f64).max(1.0)),
        digits(mb(seen.ahead_bytes))
    );
    println!(
        "space not back after an hour, at most: {} MB, {} % of what lived",
        digits(mb(seen.late_bytes)),
        digits(seen.late_share * 100.0)
    );
    println!("{table}");
}

fn quantile(times: &[Duration], share: f64) -> Duration {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let at = (sorted.len().saturating_sub(1) as f64 * share).round() as usize;
    sorted.get(at).copied().unwrap_or_default()
}

impl Month {
    async fn begin(data_dir: &Path, stream_count: usize, sizes: [usize; SIZES.len()]) -> anyhow::Result<Self> {
        let clock = ManualClock::new(UnixMs(1_767_225_600_000)); // 2026-01-01
        let shared: SharedClock = clock.clone();
        let mut options = StoreOptions::new(data_dir);
        options.segment_bytes = SEGMENT_BYTES;
        options.marks = DiskMarks { apply_policy_bytes: 0, refuse_bytes: 0 };
        let mut index = None;
        let io = Arc::new(FsIo::new(data_dir));
        let (store, _) = Store::open_with(options, io, Arc::clone(&shared), |_key| {
            let opened = Index::open(IndexOptions::in_memory(Arc::clone(&shared)))?;
            index = Some(Arc::clone(&opened));
            anyhow::Ok(vec![opened as Arc<dyn LogObserver>])
        })?;
        let index = index.context("no index")?;
        let policy = DiskPolicy::Refuse;
        let sink = Arc::new(StoreSink::new(store.clone(), Arc::clone(&index), Arc::clone(&shared), policy));
        let registry = Registry::new(Arc::clone(&index), store.clone(), shared, 1, false);
        let retention = Retention {
            store: store.clone(),
            index: Arc::clone(&index),
            registry: Arc::new(registry.clone()),
            sink: Arc::clone(&sink),
            policy,
            total_bytes: None,
            gone: Mutex::default(),
        };
        let mut sources = Vec::new();
        for number in 0..stream_count {
            sources.push(source(&store, &registry, number, size(&sizes, number)).await?);
        }
        let (retention, segments) = (Arc::new(retention), data_dir.join("segments"));
        // What it is does not matter: it is stored sealed.
        let media = Bytes::from(vec![0x5a; SIZES.into_iter().max().unwrap_or_default()]);
        Ok(Self { clock, store, index, sink, retention, sources, segments, media, sizes })
    }

    async fn hour(&self, steps: u16, seen: &mut Seen) -> anyhow::Result<()> {
        let mut most_live = self.live_bytes();
        for step in 0..steps {
            self.clock.advance(HOUR / u32::from(steps));
            // Retention looks once an hour here, beside the first appends of it.
            if step == 0 {
                let retention = Arc::clone(&self.retention);
                let letting_go = tokio::spawn(async move { retention.step().await });
                self.step(seen, true).await?;
                letting_go.await?;
            } else {
                self.step(seen, false).await?;
            }
            most_live = most_live.max(self.live_bytes());
        }
        seen.live_bytes = self.live_bytes();
        (seen.allocated_bytes, seen.ahead_bytes) = allocated_bytes(&self.segments)?;
        seen.held_byte_hours += seen.allocated_bytes.saturating_sub(seen.live_bytes) as f64;
        seen.gone_bytes = self.retention.gone().iter().map(|gone| gone.bytes).sum();
        let late_bytes = seen.allocated_bytes.saturating_sub(most_live);
        seen.late_bytes = seen.late_bytes.max(late_bytes);
        // In the first hours there is next to nothing.
        if most_live > 4 * SEGMENT_BYTES {
            seen.late_share = seen.late_share.max(late_bytes as f64 / most_live as f64);
        }
        Ok(())
    }

    /// A fragment of each stream.
    async fn step(&self, seen: &mut Seen, beside_deletion: bool) -> anyhow::Result<()> {
        let before = self.live_bytes();
        let syncs_before = self.store.stats().sync_times_us;
        let mut appends = tokio::task::JoinSet::new();
        for (number, source) in self.sources.iter().enumerate() {
            let size = size(&self.sizes, number);
            let fragment = self.fragment(source, size)?;
            let sink = Arc::clone(&self.sink);
            appends.spawn(async move {
                let began = Instant::now();
                sink.append(fragment).await.map(|_| began.elapsed())
            });
            seen.pushed_bytes += size as u64;
            seen.fragments += 1;
        }
        let times = if beside_deletion { &mut seen.beside_deletion } else { &mut seen.alone };
        while let Some(append) = appends.join_next().await {
            times.push(append??);
        }
        seen.syncs[usize::from(beside_deletion)].add(&syncs_before, &self.store.stats().sync_times_us);
        if !beside_deletion {
            seen.record_bytes += self.live_bytes() - before;
        } else {
            // Some went meanwhile: what came is as much as at other times.
            seen.record_bytes += self.sources.iter().filter_map(|source| self.last_bytes(source)).sum::<u64>();
        }
        Ok(())
    }

    fn fragment(&self, source: &Source, size: usize) -> anyhow::Result<NewFragment> {
        let open = self.sink.open_fragment(source.stream, source.run, false, false)?;
        let size_bytes = size as u64;
        let totals = TrackTotals { sample_count: 50, mp4_bytes: size_bytes, stts_runs: 1, ..TrackTotals::default() };
        let track =
            TrackFacts { kind: TrackKind::Video, codec: "h264".into(), width: 1280, height: 720, size_bytes, totals };
        let facts = FragmentFacts { tracks: vec![track], ..FragmentFacts::default() };
        let meta = FragmentMeta {
            stream: source.stream,
            number: open.number,
            run: source.run,
            lease_epoch: 0,
            ordinal: open.ordinal,
            discontinuity: open.discontinuity,
            producer_start: UnixMs(open.number.server_ms()),
            duration_ms: 2000,
            config: source.config,
            flags: FragmentFlags::STARTS_WITH_SYNC,
        };
        // As long as the table of 2 s of pictures and sound.
        let table = Bytes::from_static(&[0; 700]);
        let pieces = vec![Piece { part: None, media_len: size_bytes, table }];
        Ok(NewFragment {
            meta,
            part: None,
            facts,
            table: TableEnvelope { pieces },
            media: vec![self.media.slice(..size)],
        })
    }

    fn live_bytes(&self) -> u64 {
        self.sources.iter().map(|source| self.index.timeline().totals(source.stream).stored_bytes).sum()
    }

    fn last_bytes(&self, source: &Source) -> Option<u64> {
        self.index.timeline().last(source.stream).map(|entry| entry.stored_bytes())
    }
}

/// Of the fragments of a stream.
fn size(sizes: &[usize; SIZES.len()], number: usize) -> usize {
    sizes[number / RETENTION_HOURS.len() % sizes.len()]
}

async fn source(store: &Store, registry: &Registry, number: usize, size: usize) -> anyhow::Result<Source> {
    let name = StreamName::new(format!("cam-{number}")).context("a name")?;
    let retention_hours = RETENTION_HOURS[number % RETENTION_HOURS.len()];
    let is_capped = number / RETENTION_HOURS.len() % CAPPED_EVERY == CAPPED_EVERY - 1;
    let retention_bytes = is_capped.then_some((CAP_FRAGMENTS * size) as u64);
    let settings = StreamSettings { device: name.to_string(), retention_hours, retention_bytes, tags: Vec::new() };
    let stream = registry.create(&name, Some(settings)).await?.stream;
    let run = RunId::new();
    let record = RunRecord {
        stream,
        run,
        started: UnixMs(0),
        protocol: "rtsp".into(),
        source: "192.0.2.1:554".into(),
        user_agent: String::new(),
        anchor: UnixMs(0),
        anchor_source: WallSource::Arrival,
        continues: None,
        push: None,
    };
    store.control(Control::Run(record)).await?;
    let config = store.put_config(stream, &StreamConfig::default()).await?;
    Ok(Source { stream, run, config })
}

/// Blocks that closed files in a folder hold, and those of files that are allocated ahead: as long as a file is made.
fn allocated_bytes(folder: &Path) -> anyhow::Result<(u64, u64)> {
    let (mut closed, mut ahead) = (0, 0);
    for file in std::fs::read_dir(folder)? {
        let file = file?.metadata()?;
        let bytes = if file.len() == SEGMENT_BYTES { &mut ahead } else { &mut closed };
        *bytes += file.blocks() * 512;
    }
    Ok((closed, ahead))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_quantile_lies_between_its_bounds() {
        let mut syncs = Syncs { bounds_us: vec![100, 1000], counts: vec![0, 50, 0] };
        assert_eq!(syncs.quantile_ms(1.0), 1.0);
        assert_eq!(syncs.quantile_ms(0.5), 0.55);
        syncs.counts = vec![99, 0, 1];
        assert_eq!(syncs.quantile_ms(0.99), 0.1);
        // Longer than all bounds: as long as the greatest.
        assert_eq!(syncs.quantile_ms(1.0), 1.0);
        assert_eq!(Syncs::default().quantile_ms(0.99), 0.0);
    }
}
