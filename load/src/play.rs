//! One run of players: an archive, what they see of it, and what that costs the server.

use std::fs;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::clip::Clip;
use crate::fill::{Archive, BEGIN_MS, fill, stream_name};
use crate::player::{Playing, Seen};
use crate::process::Snapshot;
use crate::publish::Protocol;
use crate::random::Random;
use crate::tally::percentile;
use crate::target::{ServerArguments, Target};
use crate::{page_cache, record};

/// Before anything is counted, if the archive is hot.
const WARM_UP: Duration = Duration::from_secs(1);
/// Ranges that players choose from.
const WANTS: u64 = 4000;

#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
enum Container {
    Mp4,
    Mkv,
}

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Players at the same time.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u16).range(1..=2000))]
    players: u16,
    /// Seconds that are measured, at most: cold, each range is played once.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// Length of each range, in seconds; it begins anywhere.
    #[arg(long, default_value_t = 60, value_parser = clap::value_parser!(u64).range(1..))]
    clip_s: u64,
    #[arg(long, value_enum, default_value = "mp4")]
    container: Container,
    /// Only so many KiB at a time of each range, anywhere in it.
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..=1 << 20))]
    piece_kib: Option<u64>,
    /// Follow streams that are being pushed, each player one; how soon a fragment is there. As `publish --watch`.
    #[arg(long, conflicts_with_all = ["cold", "hashes", "piece_kib", "paths"])]
    live: bool,
    /// The archive is taken out of the page cache first, and no range overlaps another; otherwise it is read into it.
    #[arg(long)]
    cold: bool,
    /// The bytes of a range have to be the same each time.
    #[arg(long)]
    hashes: bool,
    /// The archive: streams.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=1000))]
    streams: u16,
    /// The archive: minutes of each stream.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    minutes: u64,
    /// The archive: video, in kbit/s.
    #[arg(long, default_value_t = crate::clip::VIDEO_KBIT, value_parser = clap::value_parser!(u16).range(50..))]
    video_kbit: u16,
    /// The archive: seconds between keyframes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=20))]
    gop: u16,
    /// No archive: paths of another server (`--http`), one a line.
    #[arg(long)]
    paths: Option<PathBuf>,
    /// What players choose.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Where the clip is kept that ffmpeg makes.
    #[arg(long, default_value = "target/load")]
    clips: PathBuf,
    /// What is measured, in the results.
    #[arg(long, default_value = "vidar")]
    name: String,
    /// A JSON line is added to it.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArguments,
}

/// Server, load, and media that has come, at one time.
struct Point {
    at: Instant,
    server: Snapshot,
    load: Snapshot,
    bytes: u64,
}

impl Point {
    fn now(target: &Target, bytes: u64) -> anyhow::Result<Self> {
        Ok(Self { at: Instant::now(), server: Snapshot::of(&target.pid)?, load: Snapshot::of("self")?, bytes })
    }
}

impl Arguments {
    /// The streams that are followed, and those who follow.
    fn live(&self) -> crate::run::Arguments {
        crate::run::Arguments {
            protocol: Protocol::HttpMatroska,
            streams: self.streams,
            seconds: self.seconds,
            gop: self.gop,
            aligned: false,
            backfill: false,
            watch: self.players,
            prefix: None,
            name: self.name.clone(),
            seed: self.seed,
            clips: self.clips.clone(),
            out: self.out.clone(),
            server: self.server.clone(),
        }
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    if arguments.live {
        return crate::run::run(&arguments.live()).await;
    }
    let target = arguments.server.target()?;
    let idle = Point::now(&target, 0)?;
    let wants = match &arguments.paths {
        Some(paths) => fs::read_to_string(paths)?.lines().map(str::to_owned).collect(),
        None => {
            let clip = Clip::load(&arguments.clips, arguments.gop.into(), arguments.video_kbit)?;
            let archive = Archive { streams: arguments.streams, seconds: arguments.minutes * 60 };
            fill(&target.peer, &clip, archive).await?;
            wants(arguments)?
        }
    };
    ensure!(!wants.is_empty(), "nothing to play");
    match (&target.data, arguments.cold) {
        (Some(data), true) => page_cache::evict(data)?,
        (Some(data), false) => page_cache::load(data)?,
        (None, _) => ensure!(!arguments.cold, "--cold needs --data-dir"),
    }
    let mut playing = Playing::new(Arc::clone(&target.peer), wants);
    playing.once = arguments.cold;
    playing.piece_bytes = arguments.piece_kib.map(|kib| kib << 10);
    playing.hashes = arguments.hashes;
    let playing = Arc::new(playing);
    let (before, after) = play(arguments, &target, &playing).await?;
    record::finish(&as_json(arguments, [&idle, &before, &after], playing.seen()), arguments.out.as_deref())
}

/// What is asked for. Cold: side by side, shuffled.
fn wants(arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let (all_ms, clip_ms) = (arguments.minutes * 60_000, arguments.clip_s * 1000);
    let room_ms = all_ms.checked_sub(clip_ms).context("a range is longer than the archive")?;
    let mut random = Random(arguments.seed);
    let streams = u64::from(arguments.streams);
    let mut places: Vec<(u64, u64)> = if arguments.cold {
        let each = all_ms / clip_ms;
        // Anywhere in a GOP.
        let skip_ms = random.next() % (all_ms - each * clip_ms + 1);
        (0..streams * each).map(|slot| (slot % streams, skip_ms + slot / streams * clip_ms)).collect()
    } else {
        (0..WANTS).map(|_| (random.next() % streams, random.next() % (room_ms + 1))).collect()
    };
    for last in (1..places.len()).rev() {
        places.swap(last, (random.next() % (last as u64 + 1)) as usize);
    }
    let extension = format!("{:?}", arguments.container).to_lowercase();
    let path = |(stream, at_ms): (u64, u64)| {
        let (name, start) = (stream_name(stream as u16), BEGIN_MS + at_ms);
        format!("/v1/streams/{name}/clip.{extension}?start={start}&end={}", start + clip_ms)
    };
    Ok(places.into_iter().map(path).collect())
}

/// From the first byte that counts to the last.
async fn play(arguments: &Arguments, target: &Target, playing: &Arc<Playing>) -> anyhow::Result<(Point, Point)> {
    let now = || Point::now(target, playing.bytes());
    let mut before = now()?;
    let mut players = JoinSet::new();
    for number in 0..arguments.players {
        players.spawn(Arc::clone(playing).play(arguments.seed << 32 | u64::from(number)));
    }
    if !arguments.cold {
        sleep(WARM_UP).await;
        before = now()?;
    }
    let ended = async { while players.join_next().await.is_some() {} };
    // Cold, they may end by themselves.
    let _ = tokio::time::timeout(Duration::from_secs(arguments.seconds.into()), ended).await;
    Ok((before, now()?))
}

fn as_json(arguments: &Arguments, [idle, before, after]: [&Point; 3], seen: Seen) -> Value {
    let seconds = (after.at - before.at).as_secs_f64();
    let bytes = after.bytes - before.bytes;
    let cpu_s = |cpu_ms: fn(&Point) -> u64| (cpu_ms(after) - cpu_ms(before)) as f64 / 1e3;
    let (server_cpu_s, load_cpu_s) = (cpu_s(|point| point.server.cpu_ms), cpu_s(|point| point.load.cpu_ms));
    let read_bytes = after.server.read_bytes - before.server.read_bytes;
    let times = |all: &[(Instant, Duration)]| {
        let counted = all.iter().filter(|(began, _)| *began >= before.at);
        let mut times: Vec<Duration> = counted.map(|(_, took)| *took).collect();
        let ms = [50, 90, 99, 100].map(|percent| percentile(&mut times, percent).as_secs_f64() * 1e3);
        (times.len(), json!({"p50": ms[0], "p90": ms[1], "p99": ms[2], "max": ms[3]}))
    };
    let ((_, first_byte_ms), (answers, whole_ms)) = (times(&seen.firsts), times(&seen.wholes));
    let mut faults: Vec<String> = seen.errors.first().cloned().into_iter().collect();
    if answers == 0 {
        faults.push("nothing was played to its end".to_owned());
    }
    // What is read ahead is more than what is sent; what is at the edge of two ranges is read once.
    match arguments.cold {
        true if read_bytes < bytes / 10 * 9 => faults.push(format!("of {bytes} bytes only {read_bytes} were cold")),
        false if read_bytes > bytes / 50 => faults.push(format!("of {bytes} bytes {read_bytes} were not cached")),
        _ => {}
    }
    json!({
        "played": arguments.name, "container": format!("{:?}", arguments.container).to_lowercase(),
        "clip_s": arguments.clip_s, "piece_kib": arguments.piece_kib, "cache": if arguments.cold { "cold" } else { "hot" },
        "players": arguments.players, "seconds": seconds, "answers": answers, "bytes": bytes, "read_bytes": read_bytes,
        "mb_per_s": bytes as f64 / 1e6 / seconds,
        "mb_per_server_cpu_s": bytes as f64 / 1e6 / server_cpu_s.max(1e-3),
        "server_cores_used": server_cpu_s / seconds, "load_cores_used": load_cpu_s / seconds,
        "rss_idle_kib": idle.server.rss_kib, "rss_kib": after.server.rss_kib, "threads": after.server.threads,
        "first_byte_ms": first_byte_ms, "whole_ms": whole_ms,
        "faults": faults,
    })
}
