//! A server on loopback whose runs are collected, and clips as ffprobe reads them.
#![allow(dead_code)] // each test binary uses a part

pub(crate) mod client;

use std::net::SocketAddr;
use std::path::Path;
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::watch;
use tokio_util::sync::{CancellationToken, DropGuard};
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::SystemClock;
use vidar_core::error::ErrorKind;
use vidar_core::ids::StreamName;
use vidar_core::policy::{Action, Effect, Policy, Preset, Statement};
use vidar_core::time::UnixMs;
use vidar_ingest::Arrived;
use vidar_ingest::rtsp::{Publish, PublishError, Publishers, Refusal, RtspOptions, serve};
use vidar_media::codec::nal::iter_length_prefixed;
use vidar_media::{Codec, Event, RawSample, StreamConfig};

pub(crate) const USER: &str = "AKEY";
pub(crate) const SECRET: &str = "s3cretSECRET";

/// Another key, with the same secret.
pub(crate) const OTHER: &str = "BKEY";
/// A key, with the same secret, that may push until its second request.
pub(crate) const FADING: &str = "CKEY";

/// A stream that [`USER`] may not push to.
pub(crate) const CLOSED: &str = "closed";

fn principal(id: &str) -> Principal {
    let mut policy = Policy::all();
    let (effect, actions) = (Effect::Deny, vec![Action::Push]);
    policy.statements.push(Statement { effect, actions, streams: vec![CLOSED.to_owned()] });
    Principal::limited(id, Arc::new(policy))
}

/// Some credentials.
#[derive(Default)]
struct Keys {
    faded: AtomicUsize,
}

impl Authenticator for Keys {
    fn basic(&self, id: &str, secret: &str) -> Option<Principal> {
        let good = [USER, OTHER, FADING].contains(&id) && secret == SECRET;
        if good && id == FADING && self.faded.fetch_add(1, Ordering::Relaxed) >= 2 {
            return Some(Principal::limited(id, Arc::new(Preset::Read.policy(vec!["*".to_owned()]))));
        }
        good.then(|| principal(id))
    }
    fn bearer(&self, _: &str) -> Option<Principal> {
        None
    }
    fn digest_secret(&self, id: &str) -> Option<(Principal, String)> {
        (id == USER).then(|| (principal(id), SECRET.to_owned()))
    }
    fn sign(&self, _: &Principal, _: &str, _: UnixMs) -> String {
        String::new()
    }
    fn signed(&self, _: &str, _: &str, _: UnixMs) -> Option<Principal> {
        None
    }
}

/// What came of one run.
#[derive(Debug, Clone, Default)]
pub(crate) struct Run {
    pub(crate) stream: String,
    pub(crate) user_agent: String,
    pub(crate) events: Vec<Event>,
    /// Complete, and how it ended.
    pub(crate) finished: Option<(bool, String)>,
    /// How often the store was behind.
    pub(crate) waits: usize,
}

impl Run {
    pub(crate) fn config(&self) -> StreamConfig {
        let configs =
            self.events.iter().filter_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
        configs.last().expect("a config").clone()
    }

    pub(crate) fn samples(&self, track: usize) -> Vec<&RawSample> {
        let samples =
            self.events.iter().filter_map(|event| if let Event::Sample(sample) = event { Some(sample) } else { None });
        samples.filter(|sample| usize::from(sample.track) == track).collect()
    }

    pub(crate) fn lost(&self) -> u32 {
        self.events.iter().map(|event| if let Event::Lost { count } = event { (*count).max(1) } else { 0 }).sum()
    }

    pub(crate) fn walls(&self) -> Vec<(u8, i64, UnixMs)> {
        let walls = self.events.iter().filter_map(|event| match event {
            Event::Wall { track, presentation_ticks, at } => Some((*track, *presentation_ticks, *at)),
            _ => None,
        });
        walls.collect()
    }
}

/// How the store behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Store {
    Takes,
    /// Refuses to begin, with this status.
    Refuses(u16),
    /// Fails at the event of this index.
    FailsAt(usize),
}

struct Collector {
    store: Store,
    runs: Arc<watch::Sender<Vec<Run>>>,
    has_room: watch::Receiver<bool>,
}

struct Collecting {
    store: Store,
    index: usize,
    runs: Arc<watch::Sender<Vec<Run>>>,
    has_room: watch::Receiver<bool>,
}

impl Collecting {
    fn take(&mut self, event: Event) -> Result<(), PublishError> {
        let mut count = 0;
        self.runs.send_modify(|runs| {
            count = runs[self.index].events.len();
            if Store::FailsAt(count) != self.store {
                runs[self.index].events.push(event);
            }
        });
        match self.store {
            Store::FailsAt(at) if at == count => {
                Err(PublishError { kind: ErrorKind::Full, detail: "the disk is full".to_owned() })
            }
            _ => Ok(()),
        }
    }
}

#[async_trait]
impl Publishers for Collector {
    async fn begin(
        &self,
        stream: StreamName,
        _: &Principal,
        _: SocketAddr,
        user_agent: &str,
    ) -> Result<Box<dyn Publish>, Refusal> {
        if let Store::Refuses(status) = self.store {
            return Err(Refusal { status, reason: "not\r\nnow".to_owned() });
        }
        let mut index = 0;
        self.runs.send_modify(|runs| {
            index = runs.len();
            runs.push(Run { stream: stream.to_string(), user_agent: user_agent.to_owned(), ..Run::default() });
        });
        let (runs, has_room) = (Arc::clone(&self.runs), self.has_room.clone());
        Ok(Box::new(Collecting { store: self.store, index, runs, has_room }))
    }
}

#[async_trait]
impl Publish for Collecting {
    async fn events(&mut self, events: Vec<Arrived>) -> Result<(), PublishError> {
        if !*self.has_room.borrow() {
            self.runs.send_modify(|runs| runs[self.index].waits += 1);
        }
        drop(self.has_room.wait_for(|has_room| *has_room).await);
        events.into_iter().try_for_each(|arrived| self.take(arrived.event))
    }

    fn try_events(&mut self, events: Vec<Arrived>) -> Result<Option<Vec<Arrived>>, PublishError> {
        events.into_iter().try_for_each(|arrived| self.take(arrived.event)).map(|()| None)
    }

    async fn finish(self: Box<Self>, complete: bool, cause: &str) -> Result<(), PublishError> {
        self.runs.send_modify(|runs| runs[self.index].finished = Some((complete, cause.to_owned())));
        Ok(())
    }
}

/// A server that ends with the test.
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    runs: watch::Receiver<Vec<Run>>,
    /// False: the store is behind, and takes nothing.
    pub(crate) has_room: watch::Sender<bool>,
    stop: DropGuard,
}

impl Server {
    pub(crate) async fn start() -> Self {
        Self::with(Store::Takes, |_| {}).await
    }

    pub(crate) async fn with(store: Store, adjust: impl FnOnce(&mut RtspOptions)) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap(), store, adjust)
    }

    pub(crate) fn on(listener: TcpListener, store: Store, adjust: impl FnOnce(&mut RtspOptions)) -> Self {
        let address = listener.local_addr().unwrap();
        let (sender, runs) = watch::channel(Vec::new());
        let (has_room, room) = watch::channel(true);
        let publishers = Arc::new(Collector { store, runs: Arc::new(sender), has_room: room });
        let mut options = RtspOptions::new(Arc::new(Keys::default()), publishers, SystemClock::shared());
        adjust(&mut options);
        let stop = CancellationToken::new();
        tokio::spawn(serve(listener, options, stop.clone()));
        Self { address, runs, has_room, stop: stop.drop_guard() }
    }

    pub(crate) fn url(&self, stream: &str) -> String {
        format!("rtsp://{USER}:{SECRET}@{}/{stream}", self.address)
    }

    /// Waits until the first run is as wanted.
    pub(crate) async fn run_when(&self, wanted: impl Fn(&Run) -> bool) -> Run {
        let mut runs = self.runs.clone();
        let wait = runs.wait_for(|runs| runs.first().is_some_and(&wanted));
        let runs = tokio::time::timeout(Duration::from_secs(30), wait).await.expect("in time").expect("a server");
        runs[0].clone()
    }

    pub(crate) async fn finished(&self) -> Run {
        self.run_when(|run| run.finished.is_some()).await
    }

    /// Stops the server; the first run as it ended.
    pub(crate) async fn stopped(self) -> Run {
        let Self { address, runs, has_room, stop } = self;
        stop.disarm().cancel();
        let idle = CancellationToken::new().drop_guard();
        Self { address, runs, has_room, stop: idle }.finished().await
    }

    pub(crate) fn runs(&self) -> Vec<Run> {
        self.runs.borrow().clone()
    }

    pub(crate) fn run_count(&self) -> usize {
        self.runs.borrow().len()
    }
}

/// Runs a program to its end. Its standard output if it succeeds, else its messages.
pub(crate) async fn run(program: &str, arguments: &[&str]) -> Result<Vec<u8>, String> {
    let command = Command::new(program).args(arguments).stdin(Stdio::null()).kill_on_drop(true).output();
    let output = tokio::time::timeout(Duration::from_secs(40), command).await.map_err(|_| "timed out".to_owned())?;
    let output = output.map_err(|error| format!("{program}: {error}"))?;
    if output.status.success() { Ok(output.stdout) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
}

/// A packet as ffprobe reads it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Probed {
    pub(crate) stream: usize,
    pub(crate) seconds: f64,
    pub(crate) data: Vec<u8>,
}

/// The codecs of a clip's streams.
pub(crate) async fn codecs(clip: &Path) -> Vec<String> {
    let arguments = ["-v", "error", "-show_entries", "stream=codec_name", "-of", "csv=p=0", clip.to_str().unwrap()];
    let text = run("ffprobe", &arguments).await.unwrap();
    String::from_utf8(text).unwrap().lines().map(|line| line.trim_end_matches(',').to_owned()).collect()
}

/// All packets of a clip, in order of the file.
pub(crate) async fn probe(clip: &Path) -> Vec<Probed> {
    let clip = clip.to_str().unwrap();
    let entries = "packet=stream_index,pts_time,data";
    let arguments = ["-v", "error", "-show_packets", "-show_data", "-show_entries", entries, "-of", "json", clip];
    let json: serde_json::Value = serde_json::from_slice(&run("ffprobe", &arguments).await.unwrap()).unwrap();
    let packet = |packet: &serde_json::Value| Probed {
        stream: packet["stream_index"].as_u64().unwrap() as usize,
        seconds: packet["pts_time"].as_str().unwrap().parse().unwrap(),
        data: from_hex_dump(packet["data"].as_str().unwrap()),
    };
    json["packets"].as_array().unwrap().iter().map(packet).collect()
}

/// `00000000: 0605 ffff …  text`.
fn from_hex_dump(dump: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    for line in dump.lines().filter(|line| !line.is_empty()) {
        let hex = line.split_once(": ").unwrap().1.split("  ").next().unwrap();
        let digits: Vec<u32> = hex.chars().filter_map(|c| c.to_digit(16)).collect();
        bytes.extend(digits.chunks_exact(2).map(|pair| (pair[0] << 4 | pair[1]) as u8));
    }
    bytes
}

/// The NAL units of a sample without parameter sets and delimiters.
pub(crate) fn coded_nals(data: &[u8], h265: bool) -> Vec<Vec<u8>> {
    let nals = iter_length_prefixed(data, 4).map(|nal| nal.expect("whole NAL units").1.to_vec());
    let coded = |nal: &Vec<u8>| {
        if h265 { !(32..=35).contains(&(nal[0] >> 1 & 0x3f)) } else { !(7..=9).contains(&(nal[0] & 0x1f)) }
    };
    nals.filter(coded).collect()
}

/// Holds what was collected against the clip: the same units in the same order, at the same times up to one constant
/// for all tracks. `tracks`: the clip's stream for each track of the run, and whether it is video in NAL units (and
/// of H.265).
pub(crate) fn assert_same(run: &Run, clip: &[Probed], tracks: &[(usize, Option<bool>)], tolerance_ms: f64) {
    let config = run.config();
    assert_eq!(config.tracks.len(), tracks.len(), "{:?}", config.tracks);
    let mut constant: Option<f64> = None;
    for (index, (stream, nals)) in tracks.iter().enumerate() {
        let expected: Vec<&Probed> = clip.iter().filter(|packet| packet.stream == *stream).collect();
        let samples = run.samples(index);
        // ffmpeg never sends the frames that it has gathered for its last packet.
        let gathered = matches!(config.tracks[index].codec, Codec::Aac | Codec::Mp3);
        let unsent = if gathered && run.user_agent.starts_with("Lavf") { 16 } else { 0 };
        let counts = (samples.len(), expected.len());
        assert!(counts.0 <= counts.1 && counts.0 + unsent >= counts.1, "samples of track {index}: {counts:?}");
        let gaps = gaps(&expected);
        for (at, (sample, packet)) in samples.iter().zip(&expected).enumerate() {
            match nals {
                Some(h265) => {
                    assert_eq!(coded_nals(&sample.data, *h265), coded_nals(&packet.data, *h265), "{index}/{at}")
                }
                None => assert_eq!(sample.data, packet.data, "{index}/{at}"),
            }
            let ms = sample.presentation_ticks as f64 * 1000.0 / f64::from(config.tracks[index].timescale_hz);
            let apart = ms - packet.seconds * 1000.0;
            let constant = *constant.get_or_insert(apart);
            // Frames that it gathered in one packet have one time: a gap of the clip between them is not sent.
            if unsent > 0 && gaps[at.saturating_sub(unsent)..at].contains(&true) {
                continue;
            }
            // Nor are the milliseconds of the clip, which are rounded: its frames follow each other exactly.
            let tolerance_ms = if unsent > 0 { tolerance_ms + 1.0 } else { tolerance_ms };
            assert!((apart - constant).abs() <= tolerance_ms, "{index}/{at}: {ms} ms, {apart} and {constant} apart");
        }
    }
}

/// Where packets do not follow each other evenly.
fn gaps(packets: &[&Probed]) -> Vec<bool> {
    let deltas: Vec<f64> = packets.windows(2).map(|pair| pair[1].seconds - pair[0].seconds).collect();
    let mut sorted = deltas.clone();
    sorted.sort_by(f64::total_cmp);
    let usual = sorted.get(sorted.len() / 2).copied().unwrap_or_default();
    deltas.iter().map(|delta| (delta - usual).abs() > 0.003).collect()
}

/// A place for files of a test.
pub(crate) struct Folder(tempfile::TempDir);

impl Folder {
    pub(crate) fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// The first `seconds` of fixtures, all of their tracks in one clip.
    pub(crate) async fn cut(&self, fixtures: &[&str], seconds: &str) -> std::path::PathBuf {
        let to = self.0.path().join("cut.mkv");
        let mut arguments: Vec<String> = vec!["-v".into(), "error".into()];
        for fixture in fixtures {
            arguments.extend(["-i".into(), vidar_fixtures::path(fixture).to_str().unwrap().into()]);
        }
        for (at, _) in fixtures.iter().enumerate() {
            arguments.extend(["-map".into(), at.to_string()]);
        }
        arguments.extend(["-t", seconds, "-c", "copy", to.to_str().unwrap()].map(str::to_owned));
        run("ffmpeg", &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await.unwrap();
        to
    }
}
