//! A real server and real ffmpeg publishers over RTSP; then the same publishers into a raw TCP sink of this process.

mod metrics;
mod publishers;
mod server;
mod sink;

use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::measure::{digits, table};
use crate::process::{Cores, Snapshot, TICK_MS};
use publishers::Publishers;
use server::Server;
use sink::Sink;

/// After the last publisher came, before anything is counted: what connecting costs is not what a stream costs.
const WARM_UP: Duration = Duration::from_secs(2);
/// For all publishers to come.
const PATIENCE: Duration = Duration::from_secs(60);

#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Publishers at the same time.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u16).range(1..=64))]
    streams: u16,
    /// Seconds that are measured, of the server and again of the sink.
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u16).range(1..=120))]
    seconds: u16,
    /// Where the data directory is made, and removed at the end: choose the disk to be measured
    /// [default: the system's folder for temporary files].
    #[arg(long)]
    dir: Option<PathBuf>,
}

pub(crate) fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let length = Duration::from_secs(arguments.seconds.into());
    let here = measure_server(arguments, length).context("the server's run")?;
    let baseline = measure_sink(arguments, length).context("the sink's run")?;
    let mut table = table(&["row", "vidar", "raw TCP sink"]);
    for row in rows(&here, &baseline) {
        table.add_row(row);
    }
    println!("{} streams of fixtures/data/bbb.mkv in real time, {} s measured", arguments.streams, arguments.seconds);
    println!("{table}");
    Ok(())
}

/// What was measured of one receiver.
#[derive(Debug, Clone, Copy)]
struct Measured {
    /// Of media, in seconds: all streams together.
    stream_seconds: f64,
    cpu_ms: u64,
    ffmpeg_cpu_ms: u64,
    /// At the end.
    rss_kib: u64,
    /// At the end.
    threads: u64,
    idle_percent: f64,
    /// Stored, or received.
    bytes: u64,
    /// What only a store has.
    stored: Option<Stored>,
}

#[derive(Debug, Clone, Copy)]
struct Stored {
    fragments: u64,
    syncs: u64,
}

fn measure_server(arguments: &Arguments, length: Duration) -> anyhow::Result<Measured> {
    let folder = match &arguments.dir {
        Some(dir) => tempfile::tempdir_in(dir),
        None => tempfile::tempdir(),
    };
    let folder = folder.context("a folder for the server's data")?;
    let server = Server::start(folder.path())?;
    let urls = (0..arguments.streams).map(|stream| server.rtsp_url(&format!("bench-{stream}")));
    let mut publishers = Publishers::start(urls, &["-f", "rtsp", "-rtsp_transport", "tcp"])?;
    let all_open = || Ok(server.metrics()?.pushes_open == u64::from(arguments.streams));
    wait_for_all(&mut publishers, all_open)?;
    let (before, after, mut measured) = measure(&mut publishers, &server.pid(), length, || server.metrics())?;
    if after.pushes_open != u64::from(arguments.streams) {
        bail!("{} of {} pushes are still open", after.pushes_open, arguments.streams);
    }
    measured.bytes = after.record_bytes.saturating_sub(before.record_bytes);
    measured.stored = Some(Stored {
        fragments: after.fragments.saturating_sub(before.fragments),
        syncs: after.syncs.saturating_sub(before.syncs),
    });
    Ok(measured)
}

fn measure_sink(arguments: &Arguments, length: Duration) -> anyhow::Result<Measured> {
    let sink = Sink::start()?;
    let urls = (0..arguments.streams).map(|_| format!("tcp://{}", sink.address()));
    let mut publishers = Publishers::start(urls, &["-f", "mpegts"])?;
    wait_for_all(&mut publishers, || Ok(sink.connections() == u64::from(arguments.streams)))?;
    let (before, after, mut measured) = measure(&mut publishers, "self", length, || Ok(sink.bytes()))?;
    measured.bytes = after.saturating_sub(before);
    Ok(measured)
}

fn wait_for_all(publishers: &mut Publishers, all: impl Fn() -> anyhow::Result<bool>) -> anyhow::Result<()> {
    let deadline = Instant::now() + PATIENCE;
    while !all()? {
        publishers.check()?;
        if Instant::now() > deadline {
            bail!("not all publishers came within {} s", PATIENCE.as_secs());
        }
        thread::sleep(Duration::from_millis(50));
    }
    thread::sleep(WARM_UP);
    Ok(())
}

/// Watches a process for a while. Also what `ask` said before and after.
fn measure<T>(
    publishers: &mut Publishers,
    pid: &str,
    length: Duration,
    ask: impl Fn() -> anyhow::Result<T>,
) -> anyhow::Result<(T, T, Measured)> {
    let asked = ask()?;
    let (start, cores) = (Instant::now(), Cores::now()?);
    let (before, ffmpeg) = (Snapshot::of(pid)?, publishers.cpu_ms()?);
    thread::sleep(length);
    publishers.check()?;
    let (after, ffmpeg_after) = (Snapshot::of(pid)?, publishers.cpu_ms()?);
    let measured = Measured {
        stream_seconds: start.elapsed().as_secs_f64() * publishers.len() as f64,
        cpu_ms: after.cpu_ms.saturating_sub(before.cpu_ms),
        ffmpeg_cpu_ms: ffmpeg_after.saturating_sub(ffmpeg),
        rss_kib: after.rss_kib,
        threads: after.threads,
        idle_percent: Cores::now()?.idle_percent_since(cores),
        bytes: 0,
        stored: None,
    };
    Ok((asked, ask()?, measured))
}

fn rows(here: &Measured, baseline: &Measured) -> Vec<[String; 3]> {
    let row = |name: &str, value: &dyn Fn(&Measured) -> String| [name.to_owned(), value(here), value(baseline)];
    let stored = |measured: &Measured, value: fn(Stored) -> u64| {
        measured.stored.map_or_else(|| "–".to_owned(), |stored| value(stored).to_string())
    };
    vec![
        row("CPU, ms per stream-second", &|m| cpu(m.cpu_ms, m.stream_seconds)),
        row("RSS, MiB", &|m| digits(m.rss_kib as f64 / 1024.0)),
        row("threads", &|m| m.threads.to_string()),
        row("stored or received, kB per stream-second", &|m| digits(m.bytes as f64 / 1e3 / m.stream_seconds)),
        row("fragments durable", &|m| stored(m, |stored| stored.fragments)),
        row("fdatasync calls", &|m| stored(m, |stored| stored.syncs)),
        row("ffmpeg publishers: CPU, ms per stream-second", &|m| cpu(m.ffmpeg_cpu_ms, m.stream_seconds)),
        row("machine idle, %", &|m| digits(m.idle_percent)),
    ]
}

/// The kernel counts in ticks: of less than one it is only known that it was less.
fn cpu(cpu_ms: u64, stream_seconds: f64) -> String {
    let below = if cpu_ms < TICK_MS { "< " } else { "" };
    format!("{below}{}", digits(cpu_ms.max(TICK_MS) as f64 / stream_seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn less_than_a_tick_is_not_shown_as_nothing() {
        assert_eq!(cpu(0, 20.0), "< 0.500");
        assert_eq!(cpu(10, 20.0), "0.500");
        assert_eq!(cpu(400, 20.0), "20.0");
    }
}
