//! One run: a server, its publishers, what both cost meanwhile, and whether every fragment was kept.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::sleep_until;

use crate::clip::{Clip, VIDEO_KBIT};
use crate::follow::{Followers, Watched};
use crate::metrics::Metrics;
use crate::process::Snapshot;
use crate::publish::{Pace, Protocol, Publisher};
use crate::random::Random;
use crate::tally::{Tally, percentile};
use crate::target::{ServerArguments, Target};
use crate::{listing, packetize, record, rtsp};

/// After the last publisher began, before anything is counted.
const WARM_UP: Duration = Duration::from_secs(2);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    #[arg(long, value_enum, default_value = "rtsp-tcp")]
    pub(crate) protocol: Protocol,
    /// Publishers at the same time.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=2000))]
    pub(crate) streams: u16,
    /// Seconds that are measured; with `--backfill` seconds of media.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    pub(crate) seconds: u16,
    /// Seconds between keyframes.
    #[arg(long, default_value_t = 2, value_parser = clap::value_parser!(u16).range(1..=20))]
    pub(crate) gop: u16,
    /// All keyframes at the same time; otherwise each publisher begins somewhere in a GOP.
    #[arg(long)]
    pub(crate) aligned: bool,
    /// As fast as it is acknowledged (HTTP only).
    #[arg(long)]
    pub(crate) backfill: bool,
    /// So many viewers follow the streams while they are pushed.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u16).range(0..=2000))]
    pub(crate) watch: u16,
    /// What names of streams begin with [default: one of this run].
    #[arg(long)]
    pub(crate) prefix: Option<String>,
    /// What is measured, in the results. Another server than ours is not asked over HTTP: `--http ''`.
    #[arg(long, default_value = "vidar")]
    pub(crate) name: String,
    /// Where publishers begin.
    #[arg(long, default_value_t = 1)]
    pub(crate) seed: u64,
    /// Where the clip is kept that ffmpeg makes.
    #[arg(long, default_value = "target/load")]
    pub(crate) clips: PathBuf,
    /// A JSON line is added to it.
    #[arg(long)]
    pub(crate) out: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) server: ServerArguments,
}

/// Server, load, and what the server says of itself, at one time.
#[derive(Debug, Clone, Copy)]
struct Point {
    at: Instant,
    server: Snapshot,
    load: Snapshot,
    metrics: Metrics,
}

impl Point {
    async fn now(target: &Target) -> anyhow::Result<Self> {
        // Only ours has them.
        let metrics = match target.peer.http.as_str() {
            "" => Metrics::default(),
            _ => Metrics::parse(&String::from_utf8_lossy(&target.peer.get("/metrics").await?))?,
        };
        Ok(Self { at: Instant::now(), server: Snapshot::of(&target.pid)?, load: Snapshot::of("self")?, metrics })
    }
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    record::finish(&measure(arguments).await?, arguments.out.as_deref())
}

async fn measure(arguments: &Arguments) -> anyhow::Result<Value> {
    let rtsp = matches!(arguments.protocol, Protocol::RtspTcp | Protocol::RtspUdp);
    let http = matches!(arguments.protocol, Protocol::HttpMatroska | Protocol::HttpFmp4);
    ensure!(http || !arguments.backfill, "--backfill needs acknowledgements: HTTP");
    let watches = arguments.watch > 0;
    ensure!(!watches || (http || rtsp) && !arguments.backfill, "--watch needs a server, and real time");
    let clip = Clip::load(&arguments.clips, arguments.gop.into(), VIDEO_KBIT)?;
    let raw = arguments.protocol == Protocol::RawTcp;
    let target = if raw { arguments.server.sink() } else { arguments.server.target() }?;
    let asked = !target.peer.http.is_empty();
    let idle = Point::now(&target).await?;
    let start_ms = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis();
    let (paces, publishers, streams) = start_publishers(arguments, &clip, &target).await?;
    let pace = schedule(arguments);
    let mut followers = None;
    let (before, after) = match pace.as_slice() {
        [Pace::RealTime { until, .. }, ..] => {
            let end = *until;
            let begin = end - Duration::from_secs(arguments.seconds.into());
            paces.send(Some(pace))?;
            if watches {
                sleep_until((begin - WARM_UP / 2).into()).await;
                followers = Some(Followers::start(&target.peer, &streams, start_ms, arguments.watch.into()));
            }
            sleep_until(begin.into()).await;
            let before = Point::now(&target).await?;
            sleep_until((end - Duration::from_millis(50)).into()).await;
            (before, Some(Point::now(&target).await?))
        }
        _ => {
            let before = Point::now(&target).await?;
            paces.send(Some(pace))?;
            (before, None)
        }
    };
    let (mut tally, mut ended) = (Tally::default(), vec![Vec::new(); streams.len()]);
    for (number, mut one) in publishers.join_all().await {
        ended[number] = std::mem::take(&mut one.ended);
        tally.add(one);
    }
    let after = match after {
        Some(after) => after,
        None => Point::now(&target).await?,
    };
    // What was complete at the very end may not have been sent on.
    let (gop, window) = (Duration::from_secs(arguments.gop.into()), before.at..after.at - WARM_UP / 2);
    let watched = followers.map(|followers| followers.watched(&ended, gop, &window));
    if !asked {
        // It does not say what it keeps, so there is nothing to compare.
        (tally.stored_fragments, tally.stored_bytes) = (tally.sent_fragments, tally.sent_bytes);
    }
    if rtsp && asked {
        for stream in &streams {
            listing::fragments(&target.peer, stream, &mut tally).await?;
        }
    }
    Ok(as_json(arguments, [&idle, &before, &after], tally, watched))
}

type Paces = watch::Sender<Option<Vec<Pace>>>;
/// With the positions of their streams.
type Publishers = JoinSet<(usize, Tally)>;

/// All of them, connected.
async fn start_publishers(
    arguments: &Arguments,
    clip: &Clip,
    target: &Target,
) -> anyhow::Result<(Paces, Publishers, Vec<String>)> {
    let script = Arc::new(match arguments.protocol {
        Protocol::RtspTcp | Protocol::RtspUdp | Protocol::RawTcp => packetize::rtp(clip),
        Protocol::HttpMatroska => packetize::matroska(clip),
        Protocol::HttpFmp4 => packetize::fmp4(clip),
    });
    let sdp: Arc<str> = rtsp::sdp(clip)?.into();
    let (paces, pace) = watch::channel(None);
    let connected = Arc::new(Notify::new());
    let mut publishers = JoinSet::new();
    // Names of this run, so that a server that runs may be measured again.
    let prefix = arguments.prefix.clone().unwrap_or_else(|| format!("load-{}", std::process::id()));
    let streams: Vec<_> = (0..arguments.streams).map(|number| format!("{prefix}-{number}")).collect();
    for (number, stream) in streams.iter().enumerate() {
        let publisher = Publisher {
            peer: Arc::clone(&target.peer),
            script: Arc::clone(&script),
            protocol: arguments.protocol,
            stream: stream.clone(),
            number: number as u64,
            start_ms: None,
            sdp: Arc::clone(&sdp),
        };
        let publisher = publisher.run(Arc::clone(&connected), pace.clone());
        publishers.spawn(async move { (number, publisher.await) });
        // One after the other: a server is not measured by how many connections it takes at once.
        connected.notified().await;
    }
    Ok((paces, publishers, streams))
}

/// When each publisher begins and ends.
fn schedule(arguments: &Arguments) -> Vec<Pace> {
    let media_us = u64::from(arguments.seconds) * 1_000_000;
    let gop_us = u64::from(arguments.gop) * 1_000_000;
    let first = Instant::now() + Duration::from_millis(200);
    // Who watches needs a fragment of each stream.
    let before_us = if arguments.watch > 0 { 2 * gop_us } else { gop_us };
    let until = first + Duration::from_micros(before_us + media_us) + WARM_UP;
    let mut random = Random(arguments.seed);
    let pace = |_| {
        if arguments.backfill {
            return Pace::Acknowledged { media_us };
        }
        let phase_us = if arguments.aligned { 0 } else { random.next() % gop_us };
        Pace::RealTime { start: first + Duration::from_micros(phase_us), until }
    };
    (0..arguments.streams).map(pace).collect()
}

fn as_json(
    arguments: &Arguments,
    [idle, before, after]: [&Point; 3],
    mut tally: Tally,
    watched: Option<Watched>,
) -> Value {
    let streams = f64::from(arguments.streams);
    let seconds = (after.at - before.at).as_secs_f64();
    let media_s = if arguments.backfill { f64::from(arguments.seconds) } else { seconds };
    let each = |difference: u64| difference as f64 / (streams * media_s);
    let per_stream = |get: fn(&Point) -> u64| each(get(after).saturating_sub(get(before)));
    let ms = |duration: Duration| duration.as_secs_f64() * 1e3;
    let mut faults = tally.faults();
    let mut watched = watched.unwrap_or_default();
    faults.extend(watched.error.take());
    if watched.late > 0 {
        faults.push(format!("{} fragments reached a viewer after the next one was complete, or never", watched.late));
    }
    let mut lag = |percent| ms(percentile(&mut tally.lags, percent));
    let (lag_p50, lag_p99) = (lag(50), lag(99));
    let mut latency = |percent| ms(percentile(&mut tally.latencies, percent));
    let latencies = json!({"p50": latency(50), "p99": latency(99), "max": latency(100)});
    let latencies = if tally.latencies.is_empty() { Value::Null } else { latencies };
    let mut seen = |percent| ms(percentile(&mut watched.latencies, percent));
    let seen = json!({"p50": seen(50), "p99": seen(99), "max": seen(100)});
    let seen = if watched.count == 0 { Value::Null } else { seen };
    json!({
        "server": arguments.name, "server_cpus": arguments.server.cpus,
        "protocol": format!("{:?}", arguments.protocol), "streams": arguments.streams, "gop_s": arguments.gop,
        "pace": if arguments.backfill { "acknowledged" } else if arguments.aligned { "aligned" } else { "real time" },
        "seconds": seconds,
        "media_speed": streams * media_s / seconds,
        "server_cpu_ms_per_stream_s": per_stream(|p| p.server.cpu_ms),
        "load_cpu_ms_per_stream_s": per_stream(|p| p.load.cpu_ms),
        "server_cores_used": (after.server.cpu_ms - before.server.cpu_ms) as f64 / 1e3 / seconds,
        "rss_idle_kib": idle.server.rss_kib, "rss_kib": after.server.rss_kib,
        "rss_kib_per_stream": after.server.rss_kib.saturating_sub(idle.server.rss_kib) as f64 / streams,
        "threads": after.server.threads,
        "written_bytes_per_stream_s": per_stream(|p| p.server.written_bytes),
        "write_calls_per_stream_s": per_stream(|p| p.server.write_calls),
        "record_bytes_per_stream_s": per_stream(|p| p.metrics.record_bytes),
        "batch_kib": (after.metrics.record_bytes - before.metrics.record_bytes) as f64
            / 1024.0 / (after.metrics.syncs - before.metrics.syncs).max(1) as f64,
        "syncs_per_s": (after.metrics.syncs - before.metrics.syncs) as f64 / seconds,
        "fragments_sent": tally.sent_fragments, "fragments_stored": tally.stored_fragments,
        "sample_bytes_sent": tally.sent_bytes, "sample_bytes_stored": tally.stored_bytes, "lost": tally.lost,
        "lag_ms": {"p50": lag_p50, "p99": lag_p99},
        "durable_latency_ms": latencies,
        "watchers": watched.count, "watched_bytes": watched.bytes, "seen_latency_ms": seen,
        "faults": faults,
    })
}
