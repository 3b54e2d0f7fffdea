//! A producer that behaves as the C one does, over a plain socket.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::SystemTime;

use ring::{digest, hmac};
use serde_json::Value;

use super::{ID, PATIENCE, SECRET, Vidar, element};

/// What the C producer's parser takes at once.
const ACK_BYTES_MAX: usize = 1024;
/// Name that the C producer gives itself.
pub const C_PRODUCER: &str = "AWS-SDK-KVS/3.5.0 GCC/12.2.0 Linux/6.1.0 x86_64";

/// Where the compatible API of a server listens: host and port.
pub fn address(vidar: &mut Vidar) -> String {
    let line = vidar.wait_log("the compatible API listens");
    let address = line.split_once("kvs=").expect("an address").1;
    address.split_whitespace().next().expect("an address").to_owned()
}

/// What a PutMedia begins with.
#[derive(Clone)]
pub struct Put<'a> {
    pub stream: &'a str,
    pub timecodes: &'a str,
    pub start: &'a str,
    pub acks: &'a str,
    pub secret: &'a str,
    /// `Expect: 100-continue`, as libcurl does.
    pub expect: bool,
    /// As the Java client says it: an absolute target, a payload hash that is none, ISO 8601, nothing of acknowledgements.
    pub java: bool,
}

impl<'a> Put<'a> {
    pub fn to(stream: &'a str) -> Self {
        Self {
            stream,
            timecodes: "ABSOLUTE",
            start: "1795401065.51",
            acks: "1",
            secret: SECRET,
            expect: true,
            java: false,
        }
    }

    pub fn relative(stream: &'a str, start: &'a str) -> Self {
        Self { timecodes: "RELATIVE", start, ..Self::to(stream) }
    }

    fn java_head(&self, address: &str) -> String {
        const PAYLOAD: &str = "STREAMING-AWS4-HMAC-SHA256-PAYLOAD";
        let mut headers = vec![
            ("host", address.to_owned()),
            ("transfer-encoding", "chunked".to_owned()),
            ("user-agent", "aws-sdk-java/1.12.797 Linux/6.1.0".to_owned()),
            ("x-amz-content-sha256", PAYLOAD.to_owned()),
            ("x-amz-date", amz_date()),
            ("x-amzn-fragment-timecode-type", self.timecodes.to_owned()),
            ("x-amzn-producer-start-timestamp", self.start.to_owned()),
            ("x-amzn-stream-name", self.stream.to_owned()),
        ];
        headers.push(("authorization", authorization(self.secret, "/putMedia", &headers, PAYLOAD)));
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("POST http://{address}/putMedia HTTP/1.1\r\n{lines}\r\n")
    }

    fn head(&self) -> String {
        // As libcurl: signed without the port.
        let mut headers = vec![
            ("connection", "keep-alive".to_owned()),
            ("host", "127.0.0.1".to_owned()),
            ("transfer-encoding", "chunked".to_owned()),
            ("user-agent", C_PRODUCER.to_owned()),
            ("x-amz-date", amz_date()),
            ("x-amzn-fragment-acknowledgment-required", self.acks.to_owned()),
            ("x-amzn-fragment-timecode-type", self.timecodes.to_owned()),
            ("x-amzn-producer-start-timestamp", self.start.to_owned()),
            ("x-amzn-stream-name", self.stream.to_owned()),
        ];
        let authorization = authorization(self.secret, "/putMedia", &headers, &sha256(b""));
        headers.push(("authorization", authorization));
        headers.push(("content-type", "application/json".to_owned()));
        if self.expect {
            headers.push(("expect", "100-continue".to_owned()));
        }
        let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        format!("POST /putMedia HTTP/1.1\r\n{lines}\r\n")
    }

    /// Opens a connection that has to be taken.
    pub fn open(&self, address: &str) -> Connection {
        match self.try_open(address) {
            Ok(connection) => connection,
            Err((status, error)) => panic!("{status} {error}"),
        }
    }

    /// Status and type of the error, if it is refused.
    pub fn try_open(&self, address: &str) -> Result<Connection, (u16, String)> {
        let Ok(mut socket) = TcpStream::connect(address) else { return Err((0, "no connection".to_owned())) };
        socket.set_nodelay(true).expect("TCP_NODELAY");
        socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        socket.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        let head = if self.java { self.java_head(address) } else { self.head() };
        if socket.write_all(head.as_bytes()).is_err() {
            return Err((0, String::new()));
        }
        let mut answers = BufReader::new(socket.try_clone().expect("a second handle"));
        let mut head = read_head(&mut answers);
        if head.0 == 100 {
            head = read_head(&mut answers);
        } else {
            assert!(!self.expect || head.0 != 200, "libcurl would wait for a second");
        }
        let (status, headers) = head;
        let get = |name: &str| {
            let line =
                headers.iter().find_map(|line| line.split_once(':').filter(|(n, _)| n.eq_ignore_ascii_case(name)));
            line.map(|(_, value)| value.trim().to_owned()).unwrap_or_default()
        };
        if status != 200 {
            return Err((status, get("x-amzn-errortype")));
        }
        assert_eq!((get("transfer-encoding").as_str(), get("x-amzn-requestid").len()), ("chunked", 36), "{headers:?}");
        Ok(Connection { socket, answers })
    }
}

/// A PutMedia that goes on.
pub struct Connection {
    socket: TcpStream,
    answers: BufReader<TcpStream>,
}

impl Connection {
    /// One chunk of the body.
    pub fn send(&mut self, bytes: &[u8]) {
        self.try_send(bytes).expect("the chunk goes out");
    }

    pub fn try_send(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        let chunk = [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat();
        self.socket.write_all(&chunk)
    }

    /// The final chunk.
    pub fn end(&mut self) {
        self.socket.write_all(b"0\r\n\r\n").expect("the final chunk goes out");
    }

    /// The next acknowledgement: a chunk of its own. None: the answer has ended.
    pub fn ack(&mut self) -> Option<Value> {
        self.try_ack().expect("an acknowledgement")
    }

    pub fn try_ack(&mut self) -> std::io::Result<Option<Value>> {
        let mut size = String::new();
        if self.answers.read_line(&mut size)? == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
        let size = usize::from_str_radix(size.trim_end(), 16).unwrap_or_else(|_| panic!("a size of a chunk: {size:?}"));
        assert!(size <= ACK_BYTES_MAX, "{size}");
        let mut chunk = vec![0; size + 2];
        self.answers.read_exact(&mut chunk)?;
        if size == 0 {
            return Ok(None);
        }
        let text = String::from_utf8(chunk).expect("UTF-8");
        let json = text.strip_suffix("\r\n\r\n").unwrap_or_else(|| panic!("no CRLF at the end: {text:?}"));
        Ok(Some(serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"))))
    }

    /// Something waits to be read.
    fn has_more(&self) -> bool {
        if !self.answers.buffer().is_empty() {
            return true;
        }
        self.socket.set_nonblocking(true).expect("a socket");
        let peeked = self.socket.peek(&mut [0]);
        self.socket.set_nonblocking(false).expect("a socket");
        // An end or a fault is something too.
        !peeked.is_err_and(|error| error.kind() == std::io::ErrorKind::WouldBlock)
    }

    /// All that follow.
    pub fn acks(&mut self) -> Vec<Value> {
        std::iter::from_fn(|| self.ack()).collect()
    }

    /// Those up to one, which is the last.
    pub fn acks_until(&mut self, event: &str) -> Vec<Value> {
        let mut acks = Vec::new();
        loop {
            let ack = self.ack().unwrap_or_else(|| panic!("no {event} after {acks:?}"));
            acks.push(ack);
            if acks.last().is_some_and(|ack| ack["EventType"] == event) {
                return acks;
            }
        }
    }

    /// Ends the body; all that follow.
    pub fn finish(mut self) -> Vec<Value> {
        self.end();
        self.acks()
    }

    /// A reset, as of a process that is killed with unread answers.
    pub fn reset(self) {
        let linger = rustix::net::sockopt::set_socket_linger(&self.socket, Some(std::time::Duration::ZERO));
        linger.expect("SO_LINGER");
    }

    /// No more is sent, without a final chunk.
    pub fn vanish(&self) {
        self.socket.shutdown(Shutdown::Write).expect("a half-closed connection");
    }
}

/// Event, timecode and number, in short.
pub fn short(acks: &[Value]) -> Vec<String> {
    acks.iter()
        .map(|ack| format!("{} {}", ack["EventType"].as_str().expect("a text"), ack["FragmentTimecode"]))
        .collect()
}

/// A call of an operation with a body of JSON, signed as the C producer signs: status, body.
pub fn call(address: &str, path: &str, body: &Value) -> (u16, Value) {
    let body = body.to_string();
    let mut headers =
        vec![("host", "127.0.0.1".to_owned()), ("user-agent", C_PRODUCER.to_owned()), ("x-amz-date", amz_date())];
    headers.push(("authorization", authorization(SECRET, path, &headers, &sha256(body.as_bytes()))));
    headers.push(("content-length", body.len().to_string()));
    headers.push(("connection", "close".to_owned()));
    let lines: String = headers.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    let mut socket = TcpStream::connect(address).expect("the server listens");
    socket.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    write!(socket, "POST {path} HTTP/1.1\r\n{lines}\r\n{body}").expect("the request goes out");
    let mut answers = BufReader::new(socket);
    let (status, _) = read_head(&mut answers);
    let mut text = String::new();
    answers.read_to_string(&mut text).expect("the answer");
    (status, serde_json::from_str(&text).unwrap_or_default())
}

/// A stream for producers.
pub fn create(address: &str, name: &str) {
    let body =
        serde_json::json!({"StreamName": name, "DataRetentionInHours": 2, "DeviceName": "", "MediaType": "video/h264"});
    let (status, answer) = call(address, "/createStream", &body);
    assert_eq!(status, 200, "{answer}");
}

/// Status 0: the connection ended.
fn read_head(answers: &mut BufReader<TcpStream>) -> (u16, Vec<String>) {
    let mut lines = answers.lines().map_while(Result::ok);
    let Some(status) = lines.next() else { return (0, Vec::new()) };
    let status = status.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status");
    (status, lines.take_while(|line| !line.is_empty()).collect())
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn amz_date() -> String {
    let seconds = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).expect("after 1970").as_secs();
    let text = vidar_core::time::UnixMs(seconds as i64 * 1000).to_string();
    let digits: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
    format!("{}Z", digits.split('.').next().expect("seconds"))
}

fn sha256(bytes: &[u8]) -> String {
    hex(digest::digest(&digest::SHA256, bytes).as_ref())
}

/// Signature Version 4 of a POST over these headers, which are all signed and in order.
fn authorization(secret: &str, path: &str, headers: &[(&str, String)], payload: &str) -> String {
    let date = &headers.iter().find(|(name, _)| *name == "x-amz-date").expect("a date").1;
    let names = headers.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(";");
    let lines: String = headers.iter().map(|(name, value)| format!("{name}:{value}\n")).collect();
    let canonical = format!("POST\n{path}\n\n{lines}\n{names}\n{payload}");
    let scope = format!("{}/us-west-2/kinesisvideo/aws4_request", &date[..8]);
    let text = format!("AWS4-HMAC-SHA256\n{date}\n{scope}\n{}", sha256(canonical.as_bytes()));
    let first = hmac::Key::new(hmac::HMAC_SHA256, format!("AWS4{secret}").as_bytes());
    let key = scope
        .split('/')
        .fold(first, |key, part| hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&key, part.as_bytes()).as_ref()));
    let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
    format!("AWS4-HMAC-SHA256 Credential={ID}/{scope}, SignedHeaders={names}, Signature={signature}")
}

/// The header as the C producer writes it: one track of pictures that nothing here understands.
pub fn header() -> Vec<u8> {
    tracks_header(1)
}

/// The same with tracks 1 to `count`.
pub fn tracks_header(count: u8) -> Vec<u8> {
    let el = |id: &[u8], body: &[u8]| element(id, body, true);
    let entry = |number: u8| {
        let video = el(&[0xe0], &[el(&[0xb0], &[16]), el(&[0xba], &[16])].concat());
        let kind = if number == 1 { [el(&[0x83], &[1]), video].concat() } else { el(&[0x83], &[17]) };
        el(&[0xae], &[el(&[0xd7], &[number]), el(&[0x73, 0xc5], &[number]), kind, el(&[0x86], b"V_MJPEG")].concat())
    };
    let entries: Vec<u8> = (1..=count).flat_map(entry).collect();
    let info = el(&[0x15, 0x49, 0xa9, 0x66], &el(&[0x2a, 0xd7, 0xb1], &1_000_000_u64.to_be_bytes()));
    let ebml = el(&[0x1a, 0x45, 0xdf, 0xa3], &el(&[0x42, 0x82], b"matroska"));
    [&ebml[..], &[0x18, 0x53, 0x80, 0x67, 0xff], &info, &el(&[0x16, 0x54, 0xae, 0x6b], &entries)].concat()
}

/// The head of a Cluster of unknown size.
pub fn cluster(timecode: u64) -> Vec<u8> {
    [&[0x1f, 0x43, 0xb6, 0x75, 0xff][..], &element(&[0xe7], &timecode.to_be_bytes(), true), &[0xa7, 0x81, 0]].concat()
}

/// A frame of a track, `at` ms into its Cluster; the first is a key frame.
pub fn frame(track: u8, at: i16, bytes: &[u8]) -> Vec<u8> {
    let [high, low] = at.to_be_bytes();
    element(&[0xa3], &[&[0x80 | track, high, low, if at == 0 { 0x80 } else { 0 }][..], bytes].concat(), true)
}

/// A Cluster of 25 frames in a second, of 100 bytes each.
pub fn second(timecode: u64) -> Vec<u8> {
    let frames = (0..25_i16).flat_map(|index| frame(1, index * 40, &[index as u8; 100]));
    [cluster(timecode), frames.collect()].concat()
}

/// Names and values, each in a Tag of its own.
pub fn tags(pairs: &[(&str, &str)]) -> Vec<u8> {
    let el = |id: &[u8], body: &[u8]| element(id, body, true);
    let tag = |(name, value): &(&str, &str)| {
        let simple = [el(&[0x45, 0xa3], name.as_bytes()), el(&[0x44, 0x87], value.as_bytes())].concat();
        el(&[0x73, 0x73], &el(&[0x67, 0xc8], &simple))
    };
    el(&[0x12, 0x54, 0xc3, 0x67], &pairs.iter().flat_map(tag).collect::<Vec<u8>>())
}

/// What closes a fragment before the next begins.
pub fn end_of_fragment() -> Vec<u8> {
    tags(&[("AWS_KINESISVIDEO_END_OF_FRAGMENT", "")])
}

/// A fragment that a producer holds until it is persisted.
struct Held {
    timecode: u64,
    frames: Vec<Vec<u8>>,
}

/// How a connection ended, as the producer sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Gone {
    /// In order, or after an ERROR: the other side is there.
    Alive,
    /// By a fault of the network.
    Dead,
}

/// What happens to the sending of one fragment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    None,
    /// The connection is reset after the first frames.
    Reset,
    /// Acknowledgements are not read while it is sent, nor before it is.
    LateAcks,
    /// The client's token ends: the next connection begins before this one has ended.
    Rotate,
}

/// A producer that keeps what is not persisted, connects again at once whatever happens, and then goes back as the C one
/// does: to the last fragment that was received, or after a fault of the network by all of its replay window.
pub struct Producer {
    stream: String,
    held: std::collections::VecDeque<Held>,
    /// Timecodes of what was received, and of what is left out for an error.
    received: u64,
    pub skipped: Vec<u64>,
    pub errors: Vec<u64>,
    pub connections: usize,
    connection: Option<Connection>,
    /// Its body has ended; acknowledgements are still to come.
    old: Vec<Connection>,
    /// In the buffer: what is sent next.
    next: usize,
}

/// Fragments that are sent again after a fault of the network: 40 s (`replay-duration`), at a second each.
const REPLAY_COUNT: usize = 40;

impl Producer {
    pub fn new(stream: &str) -> Self {
        Self {
            stream: stream.to_owned(),
            held: std::collections::VecDeque::new(),
            received: 0,
            skipped: Vec::new(),
            errors: Vec::new(),
            connections: 0,
            connection: None,
            old: Vec::new(),
            next: 0,
        }
    }

    /// A fragment of so many frames, none like another.
    pub fn produce(&mut self, timecode: u64, frame_count: i16) {
        let text = |index: i16| format!("{timecode}/{index}/{}", "x".repeat(index as usize * 17)).into_bytes();
        let frames = (0..frame_count).map(|index| frame(1, index * 40, &text(index))).collect();
        self.held.push_back(Held { timecode, frames });
    }

    /// Sends what is in the buffer. `address` may change: the server may have another.
    pub fn send(&mut self, address: &str, fault: Fault) {
        // Once: what is sent again goes through.
        let mut reset = fault == Fault::Reset;
        while self.next < self.held.len() {
            if self.connection.is_none() {
                match Put::to(&self.stream).try_open(address) {
                    Ok(connection) => {
                        self.connections += 1;
                        self.connection = Some(connection);
                        self.write(&header());
                    }
                    // No back-off.
                    Err(_) => continue,
                }
            }
            let held = &self.held[self.next];
            let head = cluster(held.timecode);
            let first: Vec<u8> = held.frames[..held.frames.len() / 2].concat();
            let rest: Vec<u8> = held.frames[held.frames.len() / 2..].concat();
            let last = self.next + 1 == self.held.len();
            self.write(&[head, first].concat());
            if last && std::mem::take(&mut reset) {
                self.connection.take().into_iter().for_each(Connection::reset);
                self.gone(Gone::Dead);
                continue;
            }
            self.write(&rest);
            if self.connection.is_some() {
                self.next += 1;
            }
            if last && fault == Fault::Rotate {
                self.write(&end_of_fragment());
                if let Some(mut connection) = self.connection.take() {
                    connection.end();
                    self.old.push(connection);
                }
            }
            // The old connection is read once the new one goes.
            if fault != Fault::LateAcks && !(last && fault == Fault::Rotate) {
                self.read_ready();
            }
        }
    }

    fn write(&mut self, bytes: &[u8]) {
        // Chunks do not end where elements do.
        for piece in bytes.chunks(701) {
            let Some(connection) = &mut self.connection else { return };
            if connection.try_send(piece).is_err() {
                self.connection = None;
                self.gone(Gone::Dead);
            }
        }
    }

    /// Goes back, and begins a connection of its own for that.
    fn gone(&mut self, how: Gone) {
        self.connection = None;
        let after_received = self.held.iter().position(|held| held.timecode > self.received).unwrap_or(self.held.len());
        self.next = match how {
            Gone::Alive => after_received,
            Gone::Dead => self.next.saturating_sub(REPLAY_COUNT),
        };
    }

    /// Reads what is there.
    fn read_ready(&mut self) {
        self.read_old();
        while let Some(connection) = self.connection.as_mut().filter(|connection| connection.has_more()) {
            match connection.try_ack() {
                Ok(Some(ack)) => {
                    if self.take(&ack).is_err() {
                        self.connection.take().into_iter().for_each(|connection| drop(connection.finish()));
                        return;
                    }
                }
                Ok(None) => {
                    self.connection = None;
                    return self.gone(Gone::Alive);
                }
                Err(_) => {
                    self.connection = None;
                    return self.gone(Gone::Dead);
                }
            }
        }
    }

    fn read_old(&mut self) {
        for mut old in std::mem::take(&mut self.old) {
            loop {
                match old.try_ack() {
                    Ok(Some(ack)) => drop(self.take(&ack)),
                    Ok(None) => break,
                    Err(_) => {
                        self.gone(Gone::Dead);
                        break;
                    }
                }
            }
        }
    }

    fn take(&mut self, ack: &Value) -> Result<(), ()> {
        let timecode = ack["FragmentTimecode"].as_u64().unwrap_or(0);
        match ack["EventType"].as_str().expect("a text") {
            "RECEIVED" => self.received = self.received.max(timecode),
            "PERSISTED" => {
                // Whatever lies before it is taken for persisted too.
                while self.held.front().is_some_and(|held| held.timecode <= timecode) {
                    self.held.pop_front();
                    self.next = self.next.saturating_sub(1);
                }
            }
            "ERROR" => {
                let id = ack["ErrorId"].as_u64().expect("a number");
                self.errors.push(id);
                if matches!(id, 4000 | 4003 | 5000 | 5001) {
                    self.next = self.held.iter().position(|held| held.timecode >= timecode).unwrap_or(self.held.len());
                } else {
                    self.held.retain(|held| held.timecode != timecode);
                    self.skipped.push(timecode);
                    self.gone(Gone::Alive);
                }
                return Err(());
            }
            _ => {}
        }
        Ok(())
    }

    /// Stops: closes the fragment by its tag, and withholds the final chunk until it is persisted.
    pub fn stop(mut self, address: &str) -> Self {
        while !self.held.is_empty() {
            self.send(address, Fault::None);
            self.write(&end_of_fragment());
            self.read_old();
            while !self.held.is_empty()
                && let Some(connection) = &mut self.connection
            {
                let gone = match connection.try_ack() {
                    Ok(Some(ack)) => self.take(&ack).is_err().then_some(Gone::Alive),
                    Ok(None) => Some(Gone::Alive),
                    Err(_) => Some(Gone::Dead),
                };
                if gone.is_some() {
                    self.connection = None;
                }
            }
            self.gone(Gone::Alive);
        }
        let rest = self.connection.take().map(Connection::finish).unwrap_or_default();
        assert!(rest.iter().all(|ack| ack["EventType"] != "ERROR"), "{rest:?}");
        self
    }
}
