//! Pushes at the server's limits: little memory, a sender that falls silent, a server that stops.

mod common;

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use common::{ID, PATIENCE, SECRET, Vidar, element, matroska, signal, start, start_with};
use serde_json::Value;

const PUBLISHERS: usize = 60;
const BLOCK_BYTES: usize = 6 << 20;

/// Pushes a body over a socket of its own; the whole answer.
fn push(http: &str, stream: &str, body: &[u8]) -> String {
    let mut socket = TcpStream::connect(http).unwrap();
    socket.set_read_timeout(Some(PATIENCE * 2)).unwrap();
    let head = format!(
        "PUT /v1/streams/{stream}/media?start=2026-01-01T00:00:00Z HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
         Authorization: Bearer {ID}:{SECRET}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(body).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

/// Most memory that the process ever had, in bytes.
fn peak_bytes(vidar: &Vidar) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", vidar.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() << 10
}

#[test]
fn many_large_blocks_at_once_stay_within_a_small_budget_and_nothing_is_lost() {
    let vidar = start_with(&["--ingest-memory-mib", "128", "--live-memory-mib", "32", "--idle-timeout-s", "120"]);
    let before = peak_bytes(&vidar);
    let body = Arc::new(matroska(&[10, BLOCK_BYTES, 10]));
    let pushes: Vec<_> = (0..PUBLISHERS)
        .map(|index| {
            let (http, body) = (vidar.http.clone(), Arc::clone(&body));
            std::thread::spawn(move || push(&http, &format!("cam-{index}"), &body))
        })
        .collect();
    for (index, push) in pushes.into_iter().enumerate() {
        let answer = push.join().unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "cam-{index}: {answer}");
        assert_eq!(answer.matches(r#""event":"durable""#).count(), 3, "cam-{index}: {answer}");
        let size = format!(r#""size_bytes":{}"#, BLOCK_BYTES);
        assert!(answer.contains(&size), "cam-{index}: {answer}");
    }
    let grown = peak_bytes(&vidar) - before;
    // The budget, one block, and a read of each connection; and what the store works with.
    let bound = (128 + 6 + 64) << 20;
    assert!(grown < bound, "{} MiB for {} MiB of blocks", grown >> 20, (PUBLISHERS * BLOCK_BYTES) >> 20);
}

/// curl that sends a clip and whose body then goes on without a byte. It looks for an answer when there is more to send.
struct Waiting {
    curl: Child,
    body: std::process::ChildStdin,
}

impl Waiting {
    fn new(vidar: &Vidar, clip: &str) -> Self {
        let url = format!("http://{}/v1/streams/cam/media?start=2026-01-01T00:00:00Z", vidar.http);
        let mut curl = Command::new("curl")
            .args(["-sS", "--max-time", "60", "-u", &format!("{ID}:{SECRET}"), "-H", "Expect:"])
            .args(["-w", "\n%{http_code}", "-T", "-", &url])
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut body = curl.stdin.take().unwrap();
        body.write_all(&vidar_fixtures::read(clip)).unwrap();
        body.flush().unwrap();
        Self { curl, body }
    }

    /// Status, and the lines of the answer, once the server has ended the push.
    fn answer(mut self, vidar: &mut Vidar) -> (u16, Vec<Value>) {
        vidar.wait_log("push ended");
        drop(self.body);
        let mut text = String::new();
        self.curl.stdout.take().unwrap().read_to_string(&mut text).unwrap();
        self.curl.wait().unwrap();
        let (lines, status) = text.rsplit_once('\n').unwrap();
        let lines = lines.lines().map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {text}")));
        (status.parse().unwrap(), lines.collect())
    }
}

/// What was durable, then the error, then the sum.
fn assert_ended(answer: (u16, Vec<Value>), status: u16, detail: &str) {
    let (found, lines) = answer;
    assert_eq!(found, status, "{lines:?}");
    let events: Vec<&str> = lines.iter().map(|line| line["event"].as_str().unwrap()).collect();
    let durable = events.iter().filter(|event| **event == "durable").count();
    assert!(durable >= 3 && events.last() == Some(&"summary"), "{events:?}");
    let error = lines.iter().find(|line| line["event"] == "error").unwrap();
    assert_eq!((error["status"].as_u64(), error["detail"].as_str()), (Some(status.into()), Some(detail)));
    assert_eq!(lines.last().unwrap()["fragments"].as_u64().unwrap() as usize, durable);
}

#[test]
fn a_sender_that_falls_silent_is_told_what_is_durable() {
    let mut vidar = start_with(&["--idle-timeout-s", "1"]);
    let waiting = Waiting::new(&vidar, "bbb.mkv");
    assert_ended(waiting.answer(&mut vidar), 408, "the body fell silent");
    assert_eq!(vidar.fragments("cam").len(), 4);
}

#[test]
fn a_sender_is_told_what_is_durable_when_the_server_stops() {
    let mut vidar = start_with(&[]);
    let waiting = Waiting::new(&vidar, "bbb.mkv");
    // Three of its four fragments are closed by what follows them.
    vidar.until("fragments", |vidar| (vidar.json("/v1/pushes")["pushes"][0]["fragments"] == 3).then_some(()));
    signal(vidar.pid(), "TERM");
    assert_ended(waiting.answer(&mut vidar), 503, "the server stops");
}

/// Pushes the beginning of a long body; the whole answer, which comes before the rest.
fn push_beginning(vidar: &Vidar, stream: &str, beginning: &[u8]) -> String {
    let mut socket = TcpStream::connect(&vidar.http).unwrap();
    socket.set_read_timeout(Some(PATIENCE)).unwrap();
    let head = format!(
        "PUT /v1/streams/{stream}/media HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {ID}:{SECRET}\r\n\
         Content-Length: 99999999\r\n\r\n"
    );
    socket.write_all(head.as_bytes()).unwrap();
    socket.write_all(beginning).unwrap();
    let mut answer = String::new();
    socket.read_to_string(&mut answer).unwrap();
    answer
}

#[test]
fn what_is_over_a_limit_is_refused_where_it_begins() {
    const SEGMENT: &[u8] = &[0x18, 0x53, 0x80, 0x67];
    const TRACKS: &[u8] = &[0x16, 0x54, 0xae, 0x6b];
    let vidar = start();
    let el = |id: &[u8], body: &[u8]| element(id, body, true);
    // An element that says how long it will be.
    let long = |id: &[u8], len: u64| [id, &((1 << 56) | len).to_be_bytes()].concat();
    let segment = |child: &[u8]| {
        let ebml = el(&[0x1a, 0x45, 0xdf, 0xa3], &el(&[0x42, 0x82], b"matroska"));
        [&ebml, &element(SEGMENT, child, false)[..]].concat()
    };
    let track = |number: u8, more: &[u8]| {
        let fields = [el(&[0xd7], &[number]), el(&[0x83], &[2]), el(&[0x86], b"A_OPUS"), more.to_vec()];
        el(&[0xae], &fields.concat())
    };
    let private = el(&[0x63, 0xa2], &vec![0; (1 << 20) + 1]);
    let eleven: Vec<u8> = (1..=11).flat_map(|number| track(number, &[])).collect();
    let file_type = b"\0\0\0\x10ftypiso6\0\0\0\0";
    let movie = [&file_type[..], &((4_u32 << 20) + 9).to_be_bytes(), b"moov"].concat();
    for (what, body) in [
        ("sample", [matroska(&[10, 10]), long(&[0xa3], 51 << 20)].concat()),
        ("header", segment(&long(TRACKS, (4 << 20) + 1))),
        ("private", segment(&el(TRACKS, &track(1, &private)))),
        ("tracks", segment(&el(TRACKS, &eleven))),
        ("movie", movie),
    ] {
        let answer = push_beginning(&vidar, what, &body);
        assert!(answer.starts_with("HTTP/1.1 413 "), "{what}: {answer}");
        assert!(answer.contains("\"offset\":"), "{what}: {answer}");
        assert_eq!(answer.matches(r#""event":"durable""#).count(), if what == "sample" { 2 } else { 0 }, "{answer}");
    }
    assert_eq!(vidar.fragments("sample").len(), 2);

    let name = "x".repeat(64 << 10);
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("json");
    std::fs::write(&file, format!(r#"{{"name":"{name}"}}"#)).unwrap();
    let data = format!("@{}", file.display());
    let (status, body) =
        vidar.request(&["-H", "content-type: application/json", "--data-binary", &data], "/v1/streams");
    let problem: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!((status, problem["status"].as_u64()), (413, Some(413)), "{problem}");
}
