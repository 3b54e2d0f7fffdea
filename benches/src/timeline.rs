//! The timeline at scale: made-up fragments of many streams, as a replay of the log brings them, then lookups all over,
//! with the files in the page cache and not. Beside it: bare reads of as many bytes anywhere in the same files.

use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Context;
use vidar_core::clock::SystemClock;
use vidar_core::entry::{FragmentEntry, Locator, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, TrackFacts, TrackTotals};
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;
use vidar_indexer::{Index, IndexOptions, RangeQuery, TimeAxis, Timeline};
use vidar_load::{Snapshot, digits, table};

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Fragments in all. 100 million take some 3 GB of disk.
    #[arg(long, default_value_t = 1_000_000)]
    fragments: u64,
    /// Streams that they are of.
    #[arg(long, default_value_t = 400, value_parser = clap::value_parser!(u64).range(1..))]
    streams: u64,
    /// Lookups of each kind.
    #[arg(long, default_value_t = 2_000)]
    lookups: u64,
    /// Where the files are written; they are removed afterwards.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
}

/// 2026-01-01T00:00:00Z.
const BEGIN: i64 = 1_767_225_600_000;
const FRAGMENT_MS: i64 = 2_000;
/// A page of a listing.
const PAGE: usize = 100;
const SEGMENT_FILE_LEN: u64 = 256 << 20;
/// About what a block of the timeline takes.
const READ_LEN: usize = 5_000;

/// Fragments that can be made up again at any time, from their place alone.
struct World {
    streams: u64,
    run: RunId,
    facts: Arc<FragmentFacts>,
}

/// The same for the same input, and all over the place (splitmix64).
fn mix(value: u64) -> u64 {
    let mut z = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

impl World {
    fn new(streams: u64) -> Self {
        let track = |kind, codec: &str| TrackFacts {
            kind,
            codec: codec.to_owned(),
            width: 1280,
            height: 720,
            size_bytes: 0,
            totals: TrackTotals::default(),
        };
        let tracks = vec![track(TrackKind::Video, "h264"), track(TrackKind::Audio, "aac")];
        let facts = Arc::new(FragmentFacts { tracks, ..FragmentFacts::default() });
        Self { streams, run: RunId::from_bytes([1; 16]), facts }
    }

    fn stream(&self, place: u64) -> StreamId {
        StreamId::from_bytes(u128::from(place % self.streams + 1).to_be_bytes())
    }

    fn number(&self, place: u64) -> FragmentNumber {
        // Server time wavers by some 100 ms.
        let server = BEGIN + (place / self.streams) as i64 * FRAGMENT_MS + (mix(place) % 100) as i64;
        FragmentNumber::new(place, server as u64, mix(place ^ 1) as u32)
    }

    fn start(&self, place: u64) -> UnixMs {
        UnixMs(BEGIN + (place / self.streams) as i64 * FRAGMENT_MS)
    }

    /// 2 Mbit/s, more or less, of video and audio; records one after the other in segment files of 256 MiB.
    fn entry(&self, place: u64) -> SharedEntry {
        let ordinal = place / self.streams;
        let random = mix(place ^ 2);
        let (video, audio) = (400_000 + random % 120_000, 31_000 + (random >> 20) % 2_000);
        let meta = FragmentMeta {
            stream: self.stream(place),
            number: self.number(place),
            run: self.run,
            lease_epoch: 0,
            ordinal,
            discontinuity: 0,
            producer_start: self.start(place),
            duration_ms: FRAGMENT_MS as u32,
            config: ConfigId::NONE,
            flags: FragmentFlags::STARTS_WITH_SYNC,
        };
        let totals = |sample_count: u32, mp4_bytes, sync_count, rate: i64| TrackTotals {
            sample_count,
            mp4_bytes,
            stts_runs: 1 + (random >> 40) as u32 % 3,
            ctts_runs: if sync_count == 1 { 20 + (random >> 44) as u32 % 16 } else { 0 },
            sync_count,
            chunk_count: 1,
            first_decode_ticks: ordinal as i64 * 2 * rate + (random >> 50) as i64 % 1024,
        };
        let aac = 93 + (random >> 48) as u32 % 2;
        let size_bytes = video + audio;
        let head_len = 900 + (random >> 52) as u32 % 300;
        let each = (1 + (520_000_u64 + 2_000) / 4096) * 4096;
        let in_file = SEGMENT_FILE_LEN / each;
        let record = Locator {
            volume: 0,
            file: FileId::from_bytes(u128::from(place / in_file).to_be_bytes()),
            offset: 4096 + place % in_file * each,
            head_len,
            media_len: size_bytes,
            record_len: u64::from(head_len) + size_bytes + size_bytes.div_ceil(65_536) * 16,
        };
        Arc::new(FragmentEntry {
            meta,
            size_bytes,
            totals: vec![totals(50, video - 40, 1, 90_000), totals(aac, audio, aac, 48_000)],
            sync_back: 0,
            archived: UnixMs(meta.server_start().0 + FRAGMENT_MS + (random >> 56) as i64 % 30),
            record,
            parts: Vec::new(),
        })
    }
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    fs::create_dir_all(&arguments.dir)?;
    let dir = tempfile::tempdir_in(&arguments.dir)?;
    let world = World::new(arguments.streams);
    let index = Index::open(IndexOptions::new(dir.path().to_owned(), [7; 32], SystemClock::shared()))?;
    // Search has rows of its own.
    index.close();
    let before = Snapshot::of("self")?.rss_kib;
    let made = rebuild(&world, arguments.fragments, |_| {});
    let rebuilt = rebuild(&world, arguments.fragments, |entry| {
        index.observe(&LogEvent::Fragment { entry, facts: Arc::clone(&world.facts) });
    });
    let waited = Instant::now();
    let timeline = index.timeline();
    timeline.settle();
    let rate = |took: Duration| digits(arguments.fragments as f64 / took.as_secs_f64() / 1e6);
    let stats = timeline.stats();
    let count = arguments.fragments;
    println!("{count} fragments of {} streams", arguments.streams);
    let net = (rebuilt + waited.elapsed()).saturating_sub(made);
    println!("observed:     {} M/s; {} M/s without making them up", rate(rebuilt + waited.elapsed()), rate(net));
    let on_disk = count.saturating_sub(stats.tail_count as u64).max(1);
    println!(
        "on disk:      {} B a fragment; {} in memory",
        digits(stats.file_bytes as f64 / on_disk as f64),
        stats.tail_count
    );
    lookups(arguments, &world, timeline, &dir.path().join("timeline"))?;
    let after = Snapshot::of("self")?.rss_kib;
    println!("memory:       {} MiB more than before", after.saturating_sub(before) / 1024);
    anyhow::ensure!(timeline.stats().unreadable_count == 0, "blocks did not read");
    Ok(())
}

fn rebuild(world: &World, count: u64, mut each: impl FnMut(SharedEntry)) -> Duration {
    let began = Instant::now();
    (0..count).for_each(|place| each(std::hint::black_box(world.entry(place))));
    began.elapsed()
}

type Lookup<'a> = (&'a str, Box<dyn Fn(u64) -> bool + 'a>);

/// The lookups by name; each says whether it found what it should.
fn kinds<'a>(world: &'a World, timeline: &'a Timeline) -> Vec<Lookup<'a>> {
    let page = move |place, end: Option<UnixMs>| {
        let query = RangeQuery {
            stream: world.stream(place),
            axis: TimeAxis::Producer,
            start: Some(world.start(place)),
            end,
            after: None,
            limit: PAGE,
            descending: false,
        };
        timeline.range(&query).entries
    };
    vec![
        (
            "get",
            Box::new(move |place| timeline.get(world.stream(place), world.number(place)) == Some(world.entry(place))),
        ),
        (
            "at",
            Box::new(move |place| {
                let found = timeline.at(world.stream(place), world.start(place).plus_ms(700));
                found.is_some_and(|entry| entry.meta.number == world.number(place))
            }),
        ),
        (
            "next",
            Box::new(move |place| {
                let found = timeline.next(world.stream(place), world.number(place));
                found.is_none_or(|entry| entry.meta.number == world.number(place + world.streams))
            }),
        ),
        (
            "by_ordinal, 1",
            Box::new(move |place| {
                let found = timeline.by_ordinal(world.stream(place), place / world.streams, 1);
                found.first().is_some_and(|entry| entry.meta.number == world.number(place))
            }),
        ),
        (
            "range, page of 100",
            Box::new(move |place| {
                page(place, None).first().is_some_and(|entry| entry.meta.number == world.number(place))
            }),
        ),
        (
            "shown, 1 min",
            Box::new(move |place| {
                let start = world.start(place);
                !timeline.shown(world.stream(place), start, start.plus_ms(60_000)).is_empty()
            }),
        ),
    ]
}

fn lookups(arguments: &Arguments, world: &World, timeline: &Timeline, dir: &Path) -> anyhow::Result<()> {
    let files: Vec<PathBuf> = fs::read_dir(dir)?.map(|entry| Ok(entry?.path())).collect::<anyhow::Result<_>>()?;
    let opened: Vec<(File, u64)> = files
        .iter()
        .map(|path| {
            let file = File::open(path)?;
            let len = file.metadata()?.len();
            Ok((file, len))
        })
        .collect::<anyhow::Result<_>>()?;
    let mut rows = table(&["lookup", "cached p50", "p99", "cold p50", "p99", "greatest"]);
    let places = |turn: u64| (0..arguments.lookups).map(move |index| mix(index ^ turn << 40) % arguments.fragments);
    let mut all = kinds(world, timeline);
    all.push((
        "baseline: read 5,000 B anywhere",
        Box::new(|place| {
            let Some((file, len)) = opened.get(mix(place) as usize % opened.len().max(1)) else { return true };
            let offset = mix(place ^ 9) % len.saturating_sub(READ_LEN as u64).max(1);
            file.read_at(&mut [0; READ_LEN], offset).is_ok()
        }),
    ));
    for (turn, (name, look)) in (1..).zip(all) {
        let cached = measure(places(2 * turn), &look).with_context(|| name.to_owned())?;
        evict(&files)?;
        let cold = measure(places(2 * turn + 1), &look).with_context(|| name.to_owned())?;
        let at = |times: &[Duration], percent: usize| {
            let index = (times.len() * percent / 100).min(times.len().saturating_sub(1));
            let us = times.get(index).copied().unwrap_or_default().as_secs_f64() * 1e6;
            format!("{} µs", digits(us))
        };
        rows.add_row([name, &at(&cached, 50), &at(&cached, 99), &at(&cold, 50), &at(&cold, 99), &at(&cold, 100)]);
    }
    println!("{rows}");
    Ok(())
}

/// How long each took, the shortest first.
fn measure(places: impl Iterator<Item = u64>, look: &dyn Fn(u64) -> bool) -> anyhow::Result<Vec<Duration>> {
    let mut times = Vec::new();
    for place in places {
        let began = Instant::now();
        let found = look(place);
        times.push(began.elapsed());
        anyhow::ensure!(found, "fragment {place} was not found");
    }
    times.sort_unstable();
    Ok(times)
}

/// Takes files out of the page cache (dd advises the kernel that it does not need them).
fn evict(files: &[PathBuf]) -> anyhow::Result<()> {
    for path in files {
        File::open(path)?.sync_all()?;
        let input = format!("if={}", path.display());
        let done = Command::new("dd").args([&input, "iflag=nocache", "count=0", "status=none"]).status()?;
        anyhow::ensure!(done.success(), "dd cannot take {} out of the page cache", path.display());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_small_run_finds_everything() {
        let dir = tempfile::tempdir().unwrap();
        let arguments = Arguments { fragments: 5_000, streams: 3, lookups: 20, dir: dir.path().to_owned() };
        run(&arguments).unwrap();
        assert!(fs::read_dir(dir.path()).unwrap().next().is_none(), "nothing stays");
    }
}
