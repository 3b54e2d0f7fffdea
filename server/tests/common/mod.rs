//! A real server on loopback, and real clients.

// Every test file uses some of it; the log of a server is shown where its test failed.
#![allow(dead_code, unreachable_pub, clippy::print_stderr)]

pub mod kinesis;
pub mod node;
pub mod python;
pub mod rtsp;
pub mod webhook;

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Output, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::{Duration, Instant};

use serde_json::Value;

pub const ID: &str = "testkey";
pub const SECRET: &str = "test-secret";
/// Bounds every wait, and decides nothing: a test that needs it has failed.
pub const PATIENCE: Duration = Duration::from_secs(60);

pub struct Vidar {
    child: Option<Child>,
    pub http: String,
    pub rtsp: String,
    pub dir: PathBuf,
    /// Guards nothing: tests share a server among threads.
    log: Mutex<mpsc::Receiver<String>>,
    seen: Vec<String>,
    _own: Option<tempfile::TempDir>,
}

/// A server over a directory of its own.
pub fn start() -> Vidar {
    start_with(&[])
}

pub fn start_with(flags: &[&str]) -> Vidar {
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut vidar = start_in(&own.path().join("data"), flags);
    vidar._own = Some(own);
    vidar
}

pub fn start_in(dir: &Path, flags: &[&str]) -> Vidar {
    launch(serve(dir, flags), dir)
}

/// How a server is started: to be changed, and launched.
pub fn serve(dir: &Path, flags: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vidar"));
    command
        .args(["serve", "--http", "127.0.0.1:0", "--rtsp", "127.0.0.1:0"])
        .arg("--data-dir")
        .arg(dir)
        .args(flags)
        .env("VIDAR_DISK_POLICY_MIB", "2")
        .env("VIDAR_DISK_REFUSE_MIB", "1")
        .env("VIDAR_SEGMENT_MIB", "16")
        .env("VIDAR_ROOT_ACCESS_KEY_ID", ID)
        .env("VIDAR_ROOT_SECRET_ACCESS_KEY", SECRET);
    command
}

/// A server that makes its own root pair.
pub fn start_with_own_credentials(dir: &Path) -> Vidar {
    let mut command = serve(dir, &[]);
    command.env_remove("VIDAR_ROOT_ACCESS_KEY_ID").env_remove("VIDAR_ROOT_SECRET_ACCESS_KEY");
    launch(command, dir)
}

pub fn launch(mut command: Command, dir: &Path) -> Vidar {
    let mut child = command.stderr(Stdio::piped()).spawn().expect("vidar starts");
    let stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
    let (sender, log) = mpsc::channel();
    std::thread::spawn(move || stderr.lines().map_while(Result::ok).try_for_each(|line| sender.send(line)));
    let mut vidar = Vidar {
        child: Some(child),
        http: String::new(),
        rtsp: String::new(),
        dir: dir.to_owned(),
        log: Mutex::new(log),
        seen: Vec::new(),
        _own: None,
    };
    let line = vidar.wait_log("listening");
    let value = |name: &str| {
        let rest = line.split_once(&format!("{name}=")).unwrap_or_else(|| panic!("{name} in {line}")).1;
        rest.split_whitespace().next().expect("a value").to_owned()
    };
    (vidar.http, vidar.rtsp) = (value("http"), value("rtsp"));
    vidar
}

impl Vidar {
    /// Waits for a line of the log.
    pub fn wait_log(&mut self, text: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let Ok(line) = self.log.get_mut().expect("the log").recv_timeout(left) else {
                panic!("no line with {text:?} in the log:\n{}", self.seen.join("\n"));
            };
            self.seen.push(line.clone());
            if line.contains(text) {
                return line;
            }
        }
    }

    /// All lines of the log so far.
    pub fn log(&mut self) -> String {
        let log = self.log.get_mut().unwrap_or_else(std::sync::PoisonError::into_inner);
        self.seen.extend(log.try_iter());
        self.seen.join("\n")
    }

    /// All lines of the log of a server that has ended.
    pub fn whole_log(&mut self) -> String {
        self.seen.extend(self.log.get_mut().expect("the log").iter());
        self.seen.join("\n")
    }

    pub fn pid(&self) -> u32 {
        self.child.as_ref().expect("it runs").id()
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{ID}:{SECRET}@{}{path}", self.http)
    }

    pub fn rtsp_url(&self, stream: &str) -> String {
        format!("rtsp://{ID}:{SECRET}@{}/{stream}", self.rtsp)
    }

    /// curl with credentials.
    pub fn curl(&self, args: &[&str], path: &str) -> Output {
        let user = format!("{ID}:{SECRET}");
        let url = format!("http://{}{path}", self.http);
        Command::new("curl")
            .args(["-sS", "--max-time", "120", "-u", &user])
            .args(args)
            .arg(url)
            .output()
            .expect("curl runs")
    }

    /// Status and body.
    pub fn request(&self, args: &[&str], path: &str) -> (u16, Vec<u8>) {
        let output = self.curl(&[args, &["-w", "\n%{http_code}"]].concat(), path);
        assert!(output.status.success(), "curl {path}: {}", String::from_utf8_lossy(&output.stderr));
        split_status(output.stdout)
    }

    pub fn json(&self, path: &str) -> Value {
        let (status, body) = self.request(&[], path);
        let text = String::from_utf8_lossy(&body).into_owned();
        assert_eq!(status, 200, "{path}: {text}");
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("{path}: {error}: {text}"))
    }

    /// Pushes a file by curl; the lines of the answer.
    pub fn push(&self, stream: &str, query: &str, file: &Path) -> (u16, Vec<Value>) {
        let path = format!("/v1/streams/{stream}/media{query}");
        let (status, body) = self.request(&["-T", file.to_str().expect("a UTF-8 path")], &path);
        let text = String::from_utf8(body).expect("UTF-8");
        (
            status,
            text.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"))).collect(),
        )
    }

    /// All fragments of a stream, by producer time.
    pub fn fragments(&self, stream: &str) -> Vec<Value> {
        let (mut all, mut token) = (Vec::new(), String::new());
        loop {
            let page = self.json(&format!("/v1/streams/{stream}/fragments?limit=1000{token}"));
            all.extend(page["fragments"].as_array().expect("fragments").iter().cloned());
            match page["next_token"].as_str() {
                Some(next) => token = format!("&next_token={next}"),
                None => return all,
            }
        }
    }

    /// Asks again until the answer is as wanted.
    pub fn until<T>(&self, what: &str, mut ask: impl FnMut(&Self) -> Option<T>) -> T {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(answer) = ask(self) {
                return answer;
            }
            assert!(Instant::now() < deadline, "waited in vain for {what}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// kill -9.
    pub fn kill(&mut self) {
        let mut child = self.child.take().expect("it runs");
        child.kill().expect("it can be killed");
        child.wait().expect("it ends");
    }

    /// SIGTERM; its exit code.
    pub fn terminate(&mut self) -> Option<i32> {
        let mut child = self.child.take().expect("it runs");
        signal(child.id(), "TERM");
        child.wait().expect("it ends").code()
    }
}

impl Drop for Vidar {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("--- log of the server\n{}", self.log());
        }
    }
}

fn split_status(mut output: Vec<u8>) -> (u16, Vec<u8>) {
    let at = output.iter().rposition(|byte| *byte == b'\n').expect("the status line");
    let status = String::from_utf8_lossy(&output[at + 1..]).parse().expect("a status");
    output.truncate(at);
    (status, output)
}

pub fn signal(pid: u32, name: &str) {
    // The shell's own: the program is of a package that not every machine has.
    run("sh", &["-c", &format!("kill -{name} {pid}")]);
}

/// Runs a tool to its end; its standard output.
pub fn run(program: &str, args: &[&str]) -> Vec<u8> {
    let output =
        Command::new(program).args(args).stdin(Stdio::null()).output().unwrap_or_else(|e| panic!("{program}: {e}"));
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {args:?}: {stderr}");
    output.stdout
}

pub fn ffmpeg(args: &[&str]) -> Vec<u8> {
    run("ffmpeg", &[&["-hide_banner", "-loglevel", "error", "-nostdin", "-y"], args].concat())
}

/// A pusher that goes on until it is killed or done.
pub struct Pusher(pub Child);

impl Pusher {
    pub fn ffmpeg(args: &[&str]) -> Self {
        Self::reading(Stdio::null(), args)
    }

    /// With what it reads as `pipe:0`.
    pub fn piped(args: &[&str]) -> (Self, ChildStdin) {
        let mut pusher = Self::reading(Stdio::piped(), args);
        let input = pusher.0.stdin.take().expect("stdin is piped");
        (pusher, input)
    }

    fn reading(stdin: Stdio, args: &[&str]) -> Self {
        let child = Command::new("ffmpeg")
            .args(["-hide_banner", "-loglevel", "error", "-nostdin"])
            .args(args)
            .stdin(stdin)
            .stderr(Stdio::null())
            .spawn()
            .expect("ffmpeg starts");
        Self(child)
    }

    pub fn wait(mut self) -> bool {
        self.0.wait().expect("it ends").success()
    }
}

impl Drop for Pusher {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// One packet of one track, as ffprobe sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Packet {
    pub pts_us: i64,
    pub size: u64,
    pub hash: String,
    pub key: bool,
}

/// Packets by track, tracks in the order of the file.
pub fn packets(input: &str) -> Vec<Vec<Packet>> {
    let entries = "packet=stream_index,pts_time,size,flags,data_hash";
    let args =
        ["-v", "error", "-show_packets", "-show_data_hash", "md5", "-show_entries", entries, "-of", "json", input];
    let answer: Value = serde_json::from_slice(&run("ffprobe", &args)).expect("JSON");
    let mut tracks: Vec<Vec<Packet>> = Vec::new();
    for packet in answer["packets"].as_array().expect("packets") {
        let index = packet["stream_index"].as_u64().expect("an index") as usize;
        tracks.resize_with(tracks.len().max(index + 1), Vec::new);
        let seconds: f64 = packet["pts_time"].as_str().expect("a time").parse().expect("a number");
        tracks[index].push(Packet {
            pts_us: (seconds * 1e6).round() as i64,
            size: packet["size"].as_str().expect("a size").parse().expect("a number"),
            hash: packet["data_hash"].as_str().expect("a hash").to_owned(),
            key: packet["flags"].as_str().expect("flags").starts_with('K'),
        });
    }
    tracks
}

/// Hashes of the decoded pictures or of the decoded sound of the first such track, in the order shown.
pub fn decoded(input: &str, kind: &str) -> Vec<String> {
    let map = format!("0:{kind}:0");
    let output = ffmpeg(&["-i", input, "-map", &map, "-vsync", "passthrough", "-f", "framemd5", "-"]);
    let text = String::from_utf8(output).expect("UTF-8");
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    frames.map(|line| line.rsplit(',').next().expect("a hash").trim().to_owned()).collect()
}

/// Equal lists; else the first difference, and not all of both.
pub fn assert_lists<T: PartialEq + std::fmt::Debug>(what: &str, expected: &[T], got: &[T]) {
    let differs = expected.iter().zip(got).position(|(a, b)| a != b);
    let at = differs.unwrap_or(expected.len().min(got.len()));
    let same = expected.len() == got.len() && differs.is_none();
    let (a, b) = (expected.get(at), got.get(at));
    assert!(same, "{what}: {} expected, {} got; the first difference at {at}: {a:?}, {b:?}", expected.len(), got.len());
}

/// A Matroska element: its id, its size in 8 bytes (None: unknown), its body.
pub fn element(id: &[u8], body: &[u8], known: bool) -> Vec<u8> {
    let size = if known { (1 << 56) | body.len() as u64 } else { u64::MAX >> 7 };
    [id, &size.to_be_bytes(), body].concat()
}

/// A document of one track of pictures, each a keyframe as large as given, a second apart.
pub fn matroska(sizes: &[usize]) -> Vec<u8> {
    let el = |id: &[u8], body: &[u8]| element(id, body, true);
    let video = el(&[0xe0], &[el(&[0xb0], &[16]), el(&[0xba], &[16])].concat());
    let entry =
        [el(&[0xd7], &[1]), el(&[0x73, 0xc5], &[1]), el(&[0x83], &[1]), el(&[0x86], b"V_MJPEG"), video].concat();
    let tracks = el(&[0x16, 0x54, 0xae, 0x6b], &el(&[0xae], &entry));
    let info = el(&[0x15, 0x49, 0xa9, 0x66], &el(&[0x2a, 0xd7, 0xb1], &1_000_000_u32.to_be_bytes()));
    let mut cluster = el(&[0xe7], &[0]);
    for (second, size) in (0_u16..).zip(sizes) {
        let [high, low] = (second * 1000).to_be_bytes();
        let block = [&[0x81, high, low, 0x80][..], &vec![second as u8; *size]].concat();
        cluster.extend(el(&[0xa3], &block));
    }
    let ebml = el(&[0x1a, 0x45, 0xdf, 0xa3], &el(&[0x42, 0x82], b"matroska"));
    let segment = [info, tracks, element(&[0x1f, 0x43, 0xb6, 0x75], &cluster, false)].concat();
    [ebml, element(&[0x18, 0x53, 0x80, 0x67], &segment, false)].concat()
}

/// The same numbers in each run (SplitMix64, public domain by Sebastiano Vigna).
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, limit: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % limit
    }
}
