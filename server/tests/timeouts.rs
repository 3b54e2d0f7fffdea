//! Connections that are slow or silent are ended, and those that only wait are not.

mod common;

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;

use common::rtsp::Rtsp;
use common::{ID, PATIENCE, SECRET, Vidar, matroska, start_with};

fn connect(address: &str) -> TcpStream {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

fn bearer() -> String {
    format!("Authorization: Bearer {ID}:{SECRET}\r\n")
}

/// Everything up to the end of the connection, however it ends.
fn rest(mut stream: TcpStream) -> String {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => {}
        Err(error) if error.kind() == ErrorKind::ConnectionReset => {}
        Err(error) => panic!("the server holds the connection: {error}"),
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[test]
fn a_head_that_does_not_end_is_given_up() {
    let vidar = start_with(&["--header-timeout-s", "1"]);
    let whole = "GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n";
    for (said, answer) in [("", ""), ("GET /healthz HT", ""), (&whole[..whole.len() - 2], ""), (whole, "HTTP/1.1 200")]
    {
        let mut stream = connect(&vidar.http);
        stream.write_all(said.as_bytes()).expect("a part of a request");
        let got = rest(stream);
        assert!(got.starts_with(answer) && got.is_empty() == answer.is_empty(), "{said:?}: {got}");
    }
}

#[test]
fn a_body_of_json_that_does_not_end_gets_an_answer() {
    let vidar = start_with(&["--header-timeout-s", "1"]);
    for path in ["/v1/streams", "/v1/keys/rotate"] {
        let mut stream = connect(&vidar.http);
        let head = format!("POST {path} HTTP/1.1\r\nHost: x\r\n{}Content-Length: 20\r\n\r\n", bearer());
        stream.write_all(head.as_bytes()).expect("a head");
        stream.write_all(b"{\"na").expect("a part of a body");
        let answer = rest(stream);
        assert!(answer.starts_with("HTTP/1.1 408 "), "{path}: {answer}");
        assert!(answer.contains("application/problem+json"), "{path}: {answer}");
    }
}

#[test]
fn a_reader_that_stops_reading_makes_room_for_others() {
    let vidar = start_with(&["--write-timeout-s", "1", "--connections-max", "1"]);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = dir.path().join("large.mkv");
    // More than the sockets of both sides hold.
    std::fs::write(&file, matroska(&[2 << 20; 16])).expect("a file");
    assert_eq!(vidar.push("cam", "?start=0", &file).0, 200);
    let mut reader = connect(&vidar.http);
    let request = format!("GET /v1/streams/cam/clip.mkv?start=0&end=16 HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer());
    reader.write_all(request.as_bytes()).expect("a request");
    let mut first = [0; 12];
    reader.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200");
    // It holds the only place; it loses it.
    assert_eq!(vidar.request(&[], "/healthz").0, 200);
    let got = rest(reader).len();
    assert!(got < 32 << 20, "all of it came: {got} bytes");
}

/// The publisher is silent for longer than a reader may stall; what comes then reaches both of them.
#[test]
fn who_waits_for_news_is_not_cut() {
    let vidar = start_with(&["--write-timeout-s", "1", "--header-timeout-s", "1", "--idle-timeout-s", "3"]);
    let mut publisher = connect(&vidar.http);
    let head = format!(
        "PUT /v1/streams/cam/media?ack=stream&start=0 HTTP/1.1\r\nHost: x\r\n{}Content-Length: 99999999\r\n\r\n",
        bearer()
    );
    publisher.write_all(head.as_bytes()).expect("a head");
    publisher.write_all(&vidar_fixtures::read("bbb.mkv")).expect("a body");
    let taken = |vidar: &Vidar| vidar.json("/v1/pushes")["pushes"][0]["fragments"].as_u64().filter(|count| *count > 0);
    vidar.until("media", taken);
    let mut follower = connect(&vidar.http);
    let path = "/v1/streams/cam/clip.mkv?live=1&start=0&end=15";
    follower.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n{}\r\n", bearer()).as_bytes()).expect("a request");

    let followed = std::thread::spawn(move || rest(follower));
    let answer = rest(publisher);
    assert!(answer.starts_with("HTTP/1.1 200 "), "{answer}");
    assert!(answer.contains("the body fell silent") && answer.contains("summary"), "{answer}");
    assert!(answer.ends_with("\r\n0\r\n\r\n"), "the answer was cut: {answer}");
    assert_eq!(vidar.push("cam", "?start=10", &vidar_fixtures::path("bbb.mkv")).0, 200);
    let followed = followed.join().expect("a follower");
    assert!(followed.starts_with("HTTP/1.1 200 "), "{}", &followed[..12]);
    assert!(followed.ends_with("\r\n0\r\n\r\n"), "the follower was cut after {} bytes", followed.len());
}

#[test]
fn an_rtsp_session_ends_after_the_silence_that_it_was_told() {
    let mut vidar = start_with(&["--rtsp-timeout-s", "1"]);
    let mut client = Rtsp::connect(&vidar);
    let set_up = client.set_up_sound("cam");
    assert!(set_up.contains(";timeout=1\r\n"), "{set_up}");
    client.ask("RECORD", "cam", "", "");
    assert_eq!(rest(client.stream), "");
    vidar.wait_log("silent for too long");
}
