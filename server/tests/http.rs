//! The HTTP port as clients see it: who comes in, what bad input gets, what a push answers.

mod common;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::Path;

use common::{ID, PATIENCE, Pusher, SECRET, Vidar, packets, run, start, start_with};
use serde_json::Value;

fn raw(vidar: &Vidar, request: &[u8]) -> String {
    let mut stream = TcpStream::connect(&vidar.http).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream.write_all(request).expect("a request");
    let mut answer = Vec::new();
    // A reset after the answer is a fair end.
    let _ = stream.read_to_end(&mut answer);
    String::from_utf8_lossy(&answer).into_owned()
}

/// Arguments of ffmpeg that push an input as it is.
fn put<'a>(input: &[&'a str], url: &'a str) -> Vec<&'a str> {
    [input, &["-c", "copy", "-f", "matroska", "-method", "PUT", url]].concat()
}

#[test]
fn nobody_comes_in_without_credentials() {
    let vidar = start();
    for (path, status) in [
        ("/healthz", 200),
        ("/readyz", 200),
        ("/metrics", 401),
        ("/v1/streams", 401),
        ("/v1/streams/cam/fragments", 401),
        ("/v1/streams/cam/clip.mp4", 401),
        ("/v1/streams/cam/hls/live.m3u8", 401),
        ("/v1/search", 401),
        ("/v1/pushes", 401),
        ("/v1/verify", 401),
        ("/v1/retention/preview", 401),
        ("/v1/streams/cam/manifest", 401),
    ] {
        for user in [
            &[][..],
            &["-u", "testkey:wrong"],
            &["-u", "wrong:test-secret"],
            &["-H", "Authorization: Bearer x"],
            &["-u", ":"],
        ] {
            let url = format!("http://{}{path}", vidar.http);
            let mut args = vec!["-s", "-o", "/dev/null", "-w", "%{http_code}"];
            args.extend(user);
            args.push(&url);
            let code = String::from_utf8(run("curl", &args)).expect("UTF-8");
            assert_eq!(code, status.to_string(), "{path} {user:?}");
        }
    }
    let bearer = format!("Authorization: Bearer {ID}:{SECRET}");
    let url = format!("http://{}/v1/streams", vidar.http);
    let code = run("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-H", &bearer, &url]);
    assert_eq!(code, b"200");
}

#[test]
fn a_push_without_credentials_is_refused_before_its_body_and_ffmpeg_notices() {
    let mut vidar = start();
    let clip = vidar_fixtures::path("bbb.mkv");
    let clip = clip.to_str().expect("a UTF-8 path");
    let url = format!("http://{ID}:wrong@{}/v1/streams/cam/media", vidar.http);
    let ffmpeg = Pusher::ffmpeg(&put(&["-stream_loop", "20", "-i", clip], &url));
    assert!(!ffmpeg.wait(), "ffmpeg did not notice");
    let answer = raw(
        &vidar,
        b"PUT /v1/streams/cam/media HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nExpect: 100-continue\r\n\r\n",
    );
    assert!(answer.starts_with("HTTP/1.1 401 "), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("www-authenticate: basic realm=\"vidar\""), "{answer}");
    assert!(vidar.json("/v1/streams")["streams"].as_array().expect("a list").is_empty());
    let log = vidar.log();
    assert!(!log.contains(SECRET) && !log.contains("wrong"), "a secret is in the log:\n{log}");
}

#[test]
fn bad_input_gets_a_clear_answer_and_what_came_before_it_stays() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let file = |name: &str, bytes: &[u8]| {
        let path = dir.path().join(name);
        std::fs::write(&path, bytes).expect("a file");
        path
    };
    let whole = vidar_fixtures::read("bbb.mkv");
    let check = |stream: &str, path: &Path, status: u16, text: &str| {
        let (got, lines) = vidar.push(stream, "", path);
        let all = lines.iter().map(Value::to_string).collect::<String>();
        assert_eq!(got, status, "{stream}: {all}");
        assert!(all.contains(text), "{stream}: {all}");
        lines
    };
    check("plain", &vidar_fixtures::path("bbb.mp4"), 422, "frag_keyframe");
    check("noise", &file("noise", &vec![0xa5; 100_000]), 415, "Matroska");
    check("empty", &file("empty", b""), 400, "empty");
    let cut = check("cut", &file("cut.mkv", &whole[..whole.len() * 3 / 4]), 400, "offset");
    assert!(cut.iter().any(|line| line["event"] == "durable"), "{cut:?}");
    let mut broken = whole.clone();
    let middle = broken.len() / 2;
    broken[middle..middle + 64].fill(0);
    let (status, lines) = vidar.push("broken", "", &file("broken.mkv", &broken));
    assert!(matches!(status, 200 | 400), "{status} {lines:?}");

    let (status, _) = vidar.push("..", "", &vidar_fixtures::path("bbb.mkv"));
    assert!(matches!(status, 400 | 404 | 405), "{status}");
    for (path, expected) in [
        ("/v1/streams/a%2Fb/media", 400),
        ("/v1/streams/a%20b/media", 400),
        ("/v1/streams/cam/media?start=yesterday", 400),
        ("/v1/streams/cam/media?ack=maybe", 400),
        ("/v1/streams/cam/media?what=else", 400),
    ] {
        let clip = vidar_fixtures::path("h264_short_gop.mkv");
        let (status, body) = vidar.request(&["-T", clip.to_str().expect("a UTF-8 path")], path);
        assert_eq!(status, expected, "{path}: {}", String::from_utf8_lossy(&body));
    }
    for (path, expected) in [
        ("/v1/streams/none", 404),
        ("/v1/streams/none/fragments", 404),
        ("/v1/streams/none/clip.mp4?start=0&end=1", 404),
        ("/v1/nothing", 404),
        ("/v1/streams/cut/fragments?start=x", 400),
        ("/v1/streams/cut/fragments?limit=x", 400),
        ("/v1/search?q=%22", 400),
        ("/v1/pushes/x", 400),
        ("/v1/pushes/00000000-0000-0000-0000-000000000000", 404),
    ] {
        let (status, body) = vidar.request(&[], path);
        let body = String::from_utf8_lossy(&body);
        assert_eq!(status, expected, "{path}: {body}");
        let problem: Value = serde_json::from_str(&body).unwrap_or_else(|e| panic!("{path}: {e}: {body}"));
        assert_eq!(problem["status"], expected, "{path}");
    }
}

#[test]
fn one_publisher_at_a_time() {
    let vidar = start();
    let mut first = TcpStream::connect(&vidar.http).expect("a connection");
    let authorization = basic();
    let head =
        format!("PUT /v1/streams/cam/media HTTP/1.1\r\nHost: x\r\n{authorization}\r\nContent-Length: 1000000\r\n\r\n");
    first.write_all(head.as_bytes()).expect("a request");
    let whole = vidar_fixtures::read("bbb.mkv");
    first.write_all(&whole[..100_000]).expect("a body");
    vidar.until("the first publisher", |v| {
        (v.json("/v1/pushes?stream=cam")["pushes"].as_array()?.len() == 1).then_some(())
    });
    let (status, lines) = vidar.push("cam", "", &vidar_fixtures::path("bbb.mkv"));
    assert_eq!(status, 409, "{lines:?}");
    assert!(lines[0]["detail"].as_str().expect("a detail").contains("publisher"), "{lines:?}");
    drop(first);
    let pushed = vidar.until("the stream to be free", |v| {
        let (status, lines) = v.push("cam", "", &vidar_fixtures::path("bbb.mkv"));
        (status == 200).then_some(lines)
    });
    assert!(pushed.len() > 3, "{pushed:?}");
    // What the lost connection had complete was kept as an incomplete run.
    assert!(vidar.fragments("cam").len() > pushed.len() - 1);
}

fn basic() -> String {
    use base64::Engine;
    let pair = base64::engine::general_purpose::STANDARD.encode(format!("{ID}:{SECRET}"));
    format!("Authorization: Basic {pair}")
}

#[test]
fn ffmpeg_loses_no_byte_of_its_tail() {
    let vidar = start();
    let clip = vidar_fixtures::path("bbb.mkv");
    let clip = clip.to_str().expect("a UTF-8 path");
    for (stream, pace) in [("full-speed", &[][..]), ("live", &["-re"])] {
        let url = vidar.url(&format!("/v1/streams/{stream}/media"));
        assert!(Pusher::ffmpeg(&put(&[pace, &["-i", clip]].concat(), &url)).wait(), "{stream}");
        // ffmpeg waits for no answer: it may be gone before the push has begun.
        vidar.until("the push", |v| {
            let (status, shown) = v.request(&[], &format!("/v1/streams/{stream}"));
            let shown: Value = serde_json::from_slice(&shown).ok()?;
            (status == 200 && shown["totals"]["fragments"].as_u64()? > 0).then_some(())
        });
        vidar.until("the end of the push", |v| v.json("/v1/pushes")["pushes"].as_array()?.is_empty().then_some(()));
        let stored = packets(&vidar.url(&format!("/v1/streams/{stream}/clip.mkv?start=0&end=4102444800")));
        let pushed = packets(clip);
        for (pushed, stored) in pushed.iter().zip(&stored) {
            assert_eq!(pushed.len(), stored.len(), "{stream}");
            assert!(pushed.iter().zip(stored).all(|(a, b)| a.hash == b.hash), "{stream}");
        }
    }
}

/// Bytes on connections to this address that the server has not read: queued at its end, or at the other.
fn unread_bytes(address: &str) -> u64 {
    let port: u16 = address.rsplit(':').next().and_then(|port| port.parse().ok()).expect("a port");
    let port = format!(":{port:04X}");
    let text = std::fs::read_to_string("/proc/net/tcp").expect("a table of connections");
    // sl, local address, remote address, state (0A: listening), bytes to send ':' bytes to read
    let rows = text.lines().skip(1).map(|line| line.split_whitespace().collect::<Vec<_>>());
    let unread = rows.filter(|row| row[3] != "0A").map(|row| {
        let (to_send, to_read) = row[4].split_once(':').expect("two queues");
        let of = |local: bool, hex: &str| if local { u64::from_str_radix(hex, 16).expect("a number") } else { 0 };
        of(row[1].ends_with(&port), to_read) + of(row[2].ends_with(&port), to_send)
    });
    unread.sum()
}

/// The server is stopped while megabytes come in, and again until ffmpeg has sent its end and is gone.
#[test]
fn ffmpeg_loses_no_byte_of_its_tail_to_a_slow_server() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let long = dir.path().join("long.mkv");
    let (clip, long) = (vidar_fixtures::path("bbb.mkv"), long.to_str().expect("a UTF-8 path"));
    common::ffmpeg(&["-stream_loop", "59", "-i", clip.to_str().expect("a UTF-8 path"), "-c", "copy", long]);
    let media = std::fs::read(long).expect("a clip");
    let (begin, rest) = media.split_at(1 << 20);
    let (middle, tail) = rest.split_at(rest.len() - 100_000);

    let url = vidar.url("/v1/streams/cam/media");
    let (ffmpeg, mut input) = Pusher::piped(&put(&["-i", "pipe:0"], &url));
    input.write_all(begin).expect("ffmpeg reads");
    let taken = |vidar: &Vidar| vidar.json("/v1/pushes")["pushes"][0]["fragments"].as_u64().filter(|count| *count > 0);
    vidar.until("media", taken);

    common::signal(vidar.pid(), "STOP");
    let input = std::thread::scope(|scope| {
        let writing = scope.spawn(move || input.write_all(middle).map(|()| input));
        vidar.until("bytes that wait", |vidar| (unread_bytes(&vidar.http) > 0).then_some(()));
        common::signal(vidar.pid(), "CONT");
        writing.join().expect("a writer").expect("ffmpeg reads")
    });
    vidar.until("the server to catch up", |vidar| (unread_bytes(&vidar.http) == 0).then_some(()));

    common::signal(vidar.pid(), "STOP");
    let mut input = input;
    input.write_all(tail).expect("ffmpeg reads");
    drop(input);
    assert!(ffmpeg.wait());
    assert!(unread_bytes(&vidar.http) > 0, "the server read while it was stopped");
    common::signal(vidar.pid(), "CONT");
    vidar.until("the end of the push", |v| v.json("/v1/pushes")["pushes"].as_array()?.is_empty().then_some(()));

    let stored = packets(&vidar.url("/v1/streams/cam/clip.mkv"));
    for (index, (pushed, stored)) in packets(long).iter().zip(&stored).enumerate() {
        let hashes = |packets: &[common::Packet]| packets.iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
        common::assert_lists(&format!("track {index}"), &hashes(pushed), &hashes(stored));
    }
}

#[test]
fn a_body_is_asked_for_before_a_byte_of_it_came() {
    const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";
    let vidar = start();
    let body = vidar_fixtures::read("h264_short_gop.mkv");
    for query in ["", "?ack=stream"] {
        let mut stream = TcpStream::connect(&vidar.http).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        let (authorization, len) = (basic(), body.len());
        let head = format!(
            "PUT /v1/streams/cam/media{query} HTTP/1.1\r\nHost: x\r\n{authorization}\r\nConnection: close\r\n\
             Expect: 100-continue\r\nContent-Length: {len}\r\n\r\n"
        );
        stream.write_all(head.as_bytes()).expect("a head");
        let mut interim = [0; CONTINUE.len()];
        stream.read_exact(&mut interim).expect("an answer");
        assert_eq!(String::from_utf8_lossy(&interim), String::from_utf8_lossy(CONTINUE), "{query}");
        stream.write_all(&body).expect("a body");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 200 ") && answer.contains("summary"), "{query}: {answer}");
    }
}

#[test]
fn acknowledgements_stream_and_expect_is_honoured_at_once() {
    let vidar = start();
    let clip = vidar_fixtures::path("bbb.mkv");
    let path = clip.to_str().expect("a UTF-8 path");
    let args = ["-T", path, "-H", "Expect: 100-continue", "-H", "Vidar-Push-Id: 01890000-0000-7000-8000-000000000001"];
    let (status, body) = vidar.request(&args, "/v1/streams/cam/media?ack=stream");
    assert_eq!(status, 200);
    let text = String::from_utf8(body).expect("UTF-8");
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
    assert_eq!(lines.last().expect("a summary")["event"], "summary");
    let push = vidar.json("/v1/pushes/01890000-0000-7000-8000-000000000001");
    assert_eq!(push["events"].as_array().expect("events"), &lines);
    assert_eq!(push["push"]["open"], false);
}

#[test]
fn a_full_disk_refuses_media_and_reads_go_on() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut vidar = common::start_in(&dir, &[]);
    let clip = vidar_fixtures::path("bbb.mkv");
    assert_eq!(vidar.push("cam", "?start=0", &clip).0, 200);
    assert_eq!(vidar.terminate(), Some(0));
    // No disk has this much room: the mark is passed from the start.
    let mut full = common::start_in(
        &dir,
        &["--disk-policy-mib", "999999999", "--disk-refuse-mib", "999999999", "--disk-policy", "refuse"],
    );
    let (status, lines) = full.push("cam", "", &clip);
    assert_eq!(status, 507, "{lines:?}");
    assert_eq!(full.request(&[], "/readyz").0, 503);
    assert!(!full.fragments("cam").is_empty());
    assert_eq!(full.request(&["-o", "/dev/null"], "/v1/streams/cam/clip.mp4?start=0&end=10").0, 200);
    assert_eq!(full.terminate(), Some(0));
    let again = common::start_in(&dir, &[]);
    assert_eq!(again.push("cam", "", &clip).0, 200);
}

#[test]
fn streams_are_not_created_where_that_is_switched_off() {
    let vidar = start_with(&["--create-streams", "false"]);
    let clip = vidar_fixtures::path("h264_short_gop.mkv");
    let (status, lines) = vidar.push("cam", "", &clip);
    assert_eq!(status, 404, "{lines:?}");
    let (status, _) = vidar
        .request(&["-X", "POST", "-H", "content-type: application/json", "-d", r#"{"name":"cam"}"#], "/v1/streams");
    assert_eq!(status, 201);
    assert_eq!(vidar.push("cam", "", &clip).0, 200);
}

#[test]
fn lost_packets_are_a_gap_that_the_timeline_shows() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let mut bytes = vidar_fixtures::read("bbb.ts");
    let middle = bytes.len() / 188 / 2 * 188;
    bytes.drain(middle..middle + 10 * 188);
    let path = dir.path().join("lossy.ts");
    std::fs::write(&path, bytes).expect("a file");
    let (status, lines) = vidar.push("cam", "?start=0", &path);
    assert_eq!(status, 200, "{lines:?}");
    let timeline = vidar.json("/v1/streams/cam/timeline");
    let gaps = timeline["gaps"].as_array().expect("gaps");
    assert!(gaps.iter().any(|gap| gap["cause"] == "loss"), "{timeline}");
    assert!(
        vidar.fragments("cam").iter().any(|fragment| fragment["lost_count"].as_u64().is_some_and(|count| count > 0))
    );
}
