//! More than a server can take, for a while: publishers that send many times as fast as cameras do, beside some that go on
//! at their own pace. It has to push back, or to say what it dropped; keep what it acknowledged; stay within its memory;
//! and serve the others again soon after.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::ensure;
use serde_json::{Value, json};
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{sleep, sleep_until};

use crate::clip::{Clip, VIDEO_KBIT};
use crate::process::Snapshot;
use crate::publish::{Pace, Protocol, Publisher};
use crate::tally::{SLOW, Tally, percentile};
use crate::target::{ServerArguments, Target};
use crate::{listing, packetize, record, rtsp};

/// After the load has fallen: for those that go on.
const AFTER: Duration = Duration::from_secs(10);
/// In it everybody is to be served as before.
const RECOVERY_MAX: Duration = Duration::from_secs(5);
const RSS_EVERY: Duration = Duration::from_millis(50);
/// In the second half of the overload, beside the first: what is full does not grow.
const GROWTH_MAX: f64 = 1.25;

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Of those that are too fast. The others push Matroska over HTTP.
    #[arg(long, value_enum, default_value = "http-matroska")]
    protocol: Protocol,
    /// Publishers that are too fast.
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=1000))]
    streams: u16,
    /// How many times as fast as a camera each of them sends.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(2..=1000))]
    times: u32,
    /// Publishers that go on, as fast as a camera.
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u16).range(1..=1000))]
    others: u16,
    /// Seconds of overload.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=3600))]
    seconds: u16,
    /// MiB of memory beyond the idle server's that are too much.
    #[arg(long, default_value_t = 1024)]
    memory_mib: u64,
    /// Where the clip is kept that ffmpeg makes.
    #[arg(long, default_value = "target/load")]
    clips: PathBuf,
    /// A JSON line is added to it.
    #[arg(long)]
    out: Option<PathBuf>,
    #[command(flatten)]
    server: ServerArguments,
}

/// Resident memory of the server, in KiB.
#[derive(Debug, Default)]
struct Memory {
    idle: u64,
    /// The most in each half of the overload.
    halves: [u64; 2],
    /// The most of all.
    most: u64,
    end: u64,
}

/// What a group of publishers saw.
#[derive(Default)]
struct Group {
    tally: Tally,
    /// Gaps that the server knows of.
    gaps: usize,
    /// Streams that lost more than a GOP of what nothing is said of.
    silent: Vec<String>,
}

pub(crate) async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let acknowledged = matches!(arguments.protocol, Protocol::HttpMatroska | Protocol::RtspTcp | Protocol::RtspUdp);
    ensure!(acknowledged, "only http-matroska, rtsp-tcp and rtsp-udp");
    let clip = Clip::load(&arguments.clips, 2, VIDEO_KBIT)?;
    let target = arguments.server.target()?;
    let mut memory = Memory { idle: Snapshot::of(&target.pid)?.rss_kib, ..Memory::default() };
    let overload = Duration::from_secs(arguments.seconds.into());
    // For all of them to connect, one beside the other.
    let start = Instant::now() + Duration::from_secs(2);
    let falls = start + overload;
    let too_fast = Pace::Faster { start, until: falls, times: arguments.times };
    let steady = Pace::RealTime { start, until: falls + AFTER };
    let others = publish(&target, &clip, "steady", Protocol::HttpMatroska, arguments.others, steady)?;
    let many = publish(&target, &clip, "fast", arguments.protocol, arguments.streams, too_fast)?;
    sleep_until(start.into()).await;
    let before = Snapshot::of(&target.pid)?;
    while Instant::now() < falls + AFTER {
        let rss_kib = Snapshot::of(&target.pid)?.rss_kib;
        memory.most = memory.most.max(rss_kib);
        if let Some(half) = memory.halves.get_mut((start.elapsed().as_millis() * 2 / overload.as_millis()) as usize) {
            *half = rss_kib.max(*half);
        }
        sleep(RSS_EVERY).await;
    }
    let after = Snapshot::of(&target.pid)?;
    memory.end = after.rss_kib;
    let gop_ms = clip.gop_s * 1000;
    let many = group(&target, arguments.protocol, gop_ms, many).await?;
    let others = group(&target, Protocol::HttpMatroska, gop_ms, others).await?;
    let sent = many.tally.sent_fragments > 0 && others.tally.sent_fragments > 0;
    ensure!(sent, "nothing was sent: {:?}", many.tally.errors.first());
    let cpu_s = (after.cpu_ms - before.cpu_ms) as f64 / 1e3;
    let record = as_json(arguments, falls, &memory, cpu_s, many, others);
    record::finish(&record, arguments.out.as_deref())
}

/// Begins with publishers of one kind.
fn publish(
    target: &Target,
    clip: &Clip,
    name: &str,
    protocol: Protocol,
    count: u16,
    pace: Pace,
) -> anyhow::Result<JoinSet<(String, Tally)>> {
    let script = Arc::new(match protocol {
        Protocol::HttpMatroska => packetize::matroska(clip),
        _ => packetize::rtp(clip),
    });
    let sdp: Arc<str> = rtsp::sdp(clip)?.into();
    let mut publishers = JoinSet::new();
    for number in 0..count {
        let stream = format!("{name}-{}-{number}", std::process::id());
        let publisher = Publisher {
            peer: Arc::clone(&target.peer),
            script: Arc::clone(&script),
            protocol,
            stream: stream.clone(),
            number: 0,
            start_ms: None,
            sdp: Arc::clone(&sdp),
        };
        let (_, paces) = watch::channel(Some(vec![pace]));
        let publisher = publisher.run(Arc::new(Notify::new()), paces);
        publishers.spawn(async move { (stream, publisher.await) });
    }
    Ok(publishers)
}

/// Waits for them, and asks the server what it kept of those whom it does not answer.
async fn group(
    target: &Target,
    protocol: Protocol,
    gop_ms: u64,
    publishers: JoinSet<(String, Tally)>,
) -> anyhow::Result<Group> {
    let mut group = Group::default();
    for (stream, mut tally) in publishers.join_all().await {
        if protocol != Protocol::HttpMatroska {
            listing::fragments(&target.peer, &stream, &mut tally).await?;
            let gaps = listing::gaps(&target.peer, &stream).await?;
            group.gaps += gaps;
            if is_silent(&tally, gop_ms) {
                group.silent.push(stream);
            }
        }
        group.tally.add(tally);
    }
    Ok(group)
}

/// More than a GOP is missing, and no fragment says that it lost something, or those that do not say so have fewer bytes
/// than their time: a loss in one place is none in another. (At the end one may be lost with nothing behind it.)
fn is_silent(tally: &Tally, gop_ms: u64) -> bool {
    let gop_bytes = tally.sent_bytes / tally.sent_fragments.max(1);
    let missing = tally.sent_bytes.saturating_sub(tally.stored_bytes);
    let missing_in_whole = (tally.whole_ms * gop_bytes / gop_ms).saturating_sub(tally.whole_bytes);
    missing > gop_bytes && tally.lost == 0 || missing_in_whole > gop_bytes
}

fn faults(arguments: &Arguments, memory: &Memory, recovered: Duration, many: &Group, others: &Group) -> Vec<String> {
    let mut faults = Vec::new();
    for (name, group, may_drop) in
        [("too fast", many, arguments.protocol == Protocol::RtspUdp), ("steady", others, false)]
    {
        let tally = &group.tally;
        // What is not acknowledged one by one may be lost at its end, where nothing comes after it.
        let counts = [tally.sent_fragments, tally.stored_fragments, tally.sent_bytes, tally.stored_bytes];
        let is_whole = counts[0] == counts[1] && counts[2] == counts[3];
        if !is_whole && !may_drop || !tally.errors.is_empty() {
            let (count, first) = (tally.errors.len(), tally.errors.first());
            faults.push(format!("{name}: sent and stored {counts:?}, {count} errors {first:?}"));
        }
    }
    if let Some(stream) = many.silent.first() {
        faults.push(format!("{} streams lost media, and nothing says so: {stream}", many.silent.len()));
    }
    let behind = many.tally.lags.iter().max().copied().unwrap_or_default();
    if behind < SLOW && many.gaps == 0 {
        faults.push("nobody was pushed back, and nothing was dropped: not overloaded".to_owned());
    }
    if recovered > RECOVERY_MAX {
        faults.push(format!("still late {} s after the load fell", recovered.as_secs()));
    }
    if memory.most.saturating_sub(memory.idle) > arguments.memory_mib << 10 {
        faults.push(format!("{} MiB of memory", memory.most >> 10));
    }
    let [first, second] = memory.halves;
    if second as f64 > first as f64 * GROWTH_MAX {
        faults.push(format!("memory grows: {} MiB, then {}", first >> 10, second >> 10));
    }
    faults
}

fn as_json(
    arguments: &Arguments,
    falls: Instant,
    memory: &Memory,
    cpu_s: f64,
    mut many: Group,
    mut others: Group,
) -> Value {
    let recovered = others.tally.last_slow.map_or(Duration::ZERO, |slow| slow.saturating_duration_since(falls));
    let faults = faults(arguments, memory, recovered, &many, &others);
    let offered = f64::from(arguments.streams) * f64::from(arguments.times) + f64::from(arguments.others);
    let seconds = f64::from(arguments.seconds);
    // As much as cameras send in so many seconds.
    let taken = many.tally.sent_bytes as f64 / (others.tally.sent_bytes as f64).max(1.0)
        * f64::from(arguments.others)
        * (seconds + AFTER.as_secs_f64())
        / seconds;
    let ms = |times: &mut Vec<Duration>, percent| percentile(times, percent).as_secs_f64() * 1e3;
    let (many, others, gaps) = (&mut many.tally, &mut others.tally, many.gaps);
    json!({
        "overload": format!("{:?}", arguments.protocol), "streams": arguments.streams, "times": arguments.times,
        "others": arguments.others, "seconds": arguments.seconds,
        "offered_stream_s_per_s": offered, "sent_stream_s_per_s": taken + f64::from(arguments.others),
        "stored_mb_per_s": many.stored_bytes as f64 / 1e6 / seconds, "server_cpu_s": cpu_s,
        "pushed_back_ms_max": ms(&mut many.lags, 100),
        "others_late_ms": {"p50": ms(&mut others.lags, 50), "p99": ms(&mut others.lags, 99)},
        "others_durable_ms": {"p50": ms(&mut others.latencies, 50), "p99": ms(&mut others.latencies, 99)},
        "recovered_s": recovered.as_secs_f64(),
        "rss_idle_kib": memory.idle, "rss_first_half_kib": memory.halves[0], "rss_second_half_kib": memory.halves[1],
        "rss_max_kib": memory.most, "rss_kib": memory.end,
        "fragments_sent": many.sent_fragments + others.sent_fragments,
        "fragments_stored": many.stored_fragments + others.stored_fragments,
        "sample_bytes_sent": many.sent_bytes + others.sent_bytes,
        "sample_bytes_stored": many.stored_bytes + others.stored_bytes,
        "lost": many.lost, "gaps": gaps,
        "faults": faults,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of ten GOPs of 1000 bytes: what fragments hold, for how long, and what they say that they lost.
    fn silent(fragments: &[(u64, u64, u64)]) -> bool {
        let mut tally = Tally { sent_fragments: 10, sent_bytes: 10_000, ..Tally::default() };
        let fragments = fragments.iter().map(|(size_bytes, duration_ms, lost_count)| {
            json!({"size_bytes": size_bytes, "duration_ms": duration_ms, "lost_count": lost_count})
        });
        tally.listed(&json!({"fragments": fragments.collect::<Vec<_>>()}));
        is_silent(&tally, 2000)
    }

    #[test]
    fn a_loss_that_is_told_excuses_no_other() {
        assert!(!silent(&[(1000, 2000, 0); 10]));
        assert!(!silent(&[(1000, 2000, 0); 9]), "the last one");
        assert!(silent(&[(1000, 2000, 0); 8]), "nothing is said");
        let told = |count: usize, size_bytes| {
            [vec![(1000, 2000, 0); count], vec![(100, 2000, 7)], vec![(size_bytes, 2000, 0); 9 - count]].concat()
        };
        assert!(!silent(&told(5, 1000)));
        assert!(!silent(&[(1000, 2000, 0), (500, 18_000, 7)]), "it is all told in one place");
        assert!(silent(&told(5, 600)), "what is told is one fragment, and four lack something");
    }
}
