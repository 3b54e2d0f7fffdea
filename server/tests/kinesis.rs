//! The compatible API through the binary, as boto3 and the command line call it; its streams are those of every other protocol.

mod common;

use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};

use bytes::Bytes;
use common::{ID, SECRET, Vidar, python, start_in, start_with};
use serde_json::{Value, json};
use vidar_media::container::mkv;
use vidar_media::demux::{Demux, Event, RawSample};

/// Where the compatible API of a server listens, as GetDataEndpoint says.
fn endpoint(vidar: &mut Vidar) -> String {
    let line = vidar.wait_log("the compatible API listens");
    let url = line.split_once("url=").expect("a URL").1;
    url.split_whitespace().next().expect("a URL").trim_matches('"').to_owned()
}

#[test]
fn boto3_manages_the_streams_of_every_protocol() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut vidar = start_in(&dir, &["--kvs", "127.0.0.1:0"]);
    let url = endpoint(&mut vidar);
    let body = json!({"preset": "read", "streams": ["kin-1"]}).to_string();
    let (status, reader) = vidar.request(&["-d", &body], "/v1/credentials");
    assert_eq!(status, 201);
    let reader: Value = serde_json::from_slice(&reader).expect("JSON");
    let text = |name: &str| reader[name].as_str().expect("a text").to_owned();
    python::run("kinesis.py", &[&url, ID, SECRET, &text("access_key_id"), &text("secret_access_key")]);

    let stream = vidar.json("/v1/streams/kin-1");
    assert_eq!((&stream["device"], &stream["retention_hours"]), (&json!("gate"), &json!(48)));
    assert_eq!(stream["tags"]["site"], "north");
    for stream in ["kin-1", "watch"] {
        assert_eq!(vidar.push(stream, "", &vidar_fixtures::path("h264_short_gop.mkv")).0, 200);
        assert!(!vidar.fragments(stream).is_empty(), "{stream}: for a while it is there");
    }
    vidar.terminate();
    let vidar = start_in(&dir, &[]);
    assert_eq!(vidar.json("/v1/streams/kin-1")["retention_hours"], 48);
    assert_eq!(vidar.request(&[], "/v1/streams/kin-5").0, 404);
}

/// The frames of a file of one or more documents, and how many documents there are.
fn frames(path: &Path) -> (Vec<RawSample>, usize) {
    let bytes = Bytes::from(std::fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display())));
    let (mut demuxer, mut events) = (mkv::Demuxer::new(), Vec::new());
    demuxer.push(bytes, &mut events).expect("Matroska");
    let documents = events.iter().filter(|event| matches!(event, Event::Config(_))).count();
    let frame = |event| if let Event::Sample(sample) = event { Some(sample) } else { None };
    (events.into_iter().filter_map(frame).collect(), documents)
}

fn packets(path: &Path) -> usize {
    let path = path.to_str().expect("UTF-8");
    let args = ["-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", path];
    let counts = String::from_utf8(common::run("ffprobe", &args)).expect("UTF-8");
    counts.lines().map(|count| count.trim_end_matches(',').parse::<usize>().expect("a count")).sum()
}

#[test]
fn boto3_reads_what_was_pushed() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0"]);
    let url = endpoint(&mut vidar);
    let clip = vidar_fixtures::path("bbb.mkv");
    let (status, _) = vidar.request(&["-X", "POST", "-d", r#"{"name": "kin-1"}"#], "/v1/streams");
    assert_eq!(status, 201);
    // How many fragments it makes is learned from another stream.
    assert_eq!(vidar.push("kin-0", "", &clip).0, 200);
    let count = vidar.fragments("kin-0").len();
    let [python, flag, script] = python::script("kinesis_media.py");
    let mut reader = Command::new(python)
        .args([&flag, &script, &url, ID, SECRET, "kin-1", &count.to_string()])
        .arg(own.path())
        .stdout(Stdio::piped())
        .spawn()
        .expect("Python runs");
    let mut lines = BufReader::new(reader.stdout.take().expect("its output")).lines();
    assert_eq!(lines.next().expect("a line").expect("text"), "ready");
    assert_eq!(vidar.push("kin-1", "", &clip).0, 200);
    assert!(reader.wait().expect("it ends").success());

    let file = |name: &str| own.path().join(name);
    let essence = |of: &RawSample| (of.track, of.presentation_ticks, of.sync, of.block_flags, of.data.clone());
    let (sent, _) = frames(&clip);
    let sent: Vec<_> = sent.iter().map(essence).collect();
    for name in ["live.mkv", "list.mkv", "earliest.mkv"] {
        let (got, documents) = frames(&file(name));
        assert_eq!((got.len(), documents), (sent.len(), count), "{name}");
        assert!(got.iter().map(essence).eq(sent.iter().cloned()), "{name}: frames differ");
    }
    let (later, documents) = frames(&file("after.mkv"));
    let (first, _) = frames(&file("fragment-0.mkv"));
    assert_eq!((first.len() + later.len(), documents), (sent.len(), count - 1));
    // Another reader sees each document as a file, with all its packets.
    let all: usize = (0..count).map(|index| packets(&file(&format!("fragment-{index}.mkv")))).sum();
    assert_eq!(all, sent.len());
    let tracks: BTreeSet<u8> = sent.iter().map(|(track, ..)| *track).collect();
    assert!(tracks.len() > 1, "sound and pictures");
}

/// What pictures and notifications may be configured for.
fn targets(dir: &Path) -> [String; 4] {
    let target = format!("s3://shots={}", dir.join("shots").display());
    let topic = "arn:aws:sns:eu-central-1:000000000000:door=http://127.0.0.1:9/".to_owned();
    ["--image-target".to_owned(), target, "--notify".to_owned(), topic]
}

/// 2026-01-01T00:00:00Z.
const START_MS: &str = "1767225600000";

#[test]
fn every_part_of_the_models_is_here_or_said_not_to_be() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let [image, target, notify, topic] = &targets(own.path());
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0", "--kvs-limits", "none", image, target, notify, topic]);
    let url = endpoint(&mut vidar);
    let body = json!({"preset": "read", "streams": ["elsewhere"]}).to_string();
    let (status, other) = vidar.request(&["-d", &body], "/v1/credentials");
    assert_eq!(status, 201);
    let other: Value = serde_json::from_slice(&other).expect("JSON");
    let text = |name: &str| other[name].as_str().expect("a text").to_owned();
    let clip = vidar_fixtures::path("bbb.mkv");
    assert_eq!(vidar.push("cam", &format!("?start={START_MS}"), &clip).0, 200);
    let clip = clip.to_str().expect("UTF-8");
    let args = [&url, ID, SECRET, &text("access_key_id"), &text("secret_access_key"), START_MS, clip];
    python::run("kinesis_model.py", &args);
}

#[test]
fn the_command_line_of_the_service_runs_every_operation() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let [image, target, notify, topic] = &targets(own.path());
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0", "--kvs-limits", "none", image, target, notify, topic]);
    let url = endpoint(&mut vidar);
    let pushed = vidar.push("cam", &format!("?start={START_MS}"), &vidar_fixtures::path("bbb.mkv"));
    assert_eq!(pushed.0, 200);
    python::run("kinesis_cli.py", &[&url, ID, SECRET, START_MS]);
}

#[test]
fn what_is_not_signed_is_refused_and_nothing_native_is_there() {
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0"]);
    let url = endpoint(&mut vidar);
    for (path, status) in [("/listStreams", "403"), ("/v1/streams", "403"), ("/metrics", "403")] {
        let user = format!("{ID}:{SECRET}");
        let target = format!("{url}{path}");
        let args = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", "-X", "POST", &target];
        assert_eq!(common::run("curl", &args), status.as_bytes(), "{path}");
        let basic = [&["-u", user.as_str()][..], &args].concat();
        assert_eq!(common::run("curl", &basic), b"400", "{path}: no signature");
    }
}

#[test]
fn an_endpoint_that_clients_could_not_reach_is_not_guessed() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let outcome = |args: &[&str]| {
        let mut command = common::serve(&own.path().join("data"), args);
        let output = command.output().expect("vidar runs");
        assert!(!output.status.success(), "{args:?}");
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(outcome(&["--kvs", "0.0.0.0:0"]).contains("kvs_public_url"));
    for bad in ["vidar.example", "ftp://vidar.example", "https://vidar.example/path", "https://"] {
        assert!(outcome(&["--kvs", "127.0.0.1:0", "--kvs-public-url", bad]).contains("kvs_public_url"), "{bad}");
    }
}

#[test]
fn over_tls_it_is_the_same_and_http_1_1_only() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut vidar = start_in(&dir, &["--kvs", "127.0.0.1:0", "--kvs-tls", "true"]);
    let url = endpoint(&mut vidar);
    assert!(url.starts_with("https://127.0.0.1:"), "{url}");
    let (cert, key) = (dir.join("kvs-cert.pem"), dir.join("kvs-key.pem"));
    let cert = cert.to_str().expect("UTF-8");
    let list = format!("{url}/listStreams");
    let user = format!("{ID}:{SECRET}");
    let sign = ["--aws-sigv4", "aws:amz:us-west-2:kinesisvideo", "-u", &user, "-H", "Content-Type: application/json"];
    let ask = |args: &[&str]| {
        let fixed = ["-sS", "-o", "/dev/null", "-w", "%{http_code} %{http_version}", "-d", "{}", &list];
        Command::new("curl").args(args).args(fixed).output().expect("curl runs")
    };
    assert_eq!(ask(&[&sign[..], &["--cacert", cert]].concat()).stdout, b"200 1.1");
    assert_eq!(ask(&["--cacert", cert]).stdout, b"403 1.1", "not signed");
    assert_eq!(ask(&sign).status.code(), Some(60), "a certificate that nobody trusts");
    let script = "import socket, ssl, sys
host, port, cert = sys.argv[1:]
for offered, chosen in ((['h2', 'http/1.1'], 'http/1.1'), ([], None), (['h2'], ssl.SSLError)):
    context = ssl.create_default_context(cafile=cert)
    context.set_alpn_protocols(offered)
    try:
        with context.wrap_socket(socket.create_connection((host, int(port))), server_hostname=host) as tls:
            found = tls.selected_alpn_protocol()
            assert tls.version() == 'TLSv1.3', tls.version()
    except ssl.SSLError:
        found = ssl.SSLError
    assert found == chosen, (offered, found)";
    let (host, port) = url.trim_start_matches("https://").split_once(':').expect("a port");
    common::run("python3", &["-c", script, host, port, cert]);
    let mut plain = TcpStream::connect((host, port.parse::<u16>().expect("a port"))).expect("a connection");
    plain.write_all(b"POST /listStreams HTTP/1.1\r\nHost: x\r\n\r\n").expect("sent");
    let mut said = Vec::new();
    plain.set_read_timeout(Some(common::PATIENCE)).expect("a timeout");
    let _ = plain.read_to_end(&mut said);
    assert!(!said.starts_with(b"HTTP"), "it speaks plain HTTP too");

    // The same certificate at the next start, and from files.
    let before = std::fs::read(cert).expect("a certificate");
    vidar.terminate();
    let files = ["--kvs-tls-cert", cert, "--kvs-tls-key", key.to_str().expect("UTF-8")];
    let mut vidar = start_in(&dir, &["--kvs", "127.0.0.1:0", "--kvs-tls", "true"]);
    endpoint(&mut vidar);
    assert_eq!(std::fs::read(cert).expect("a certificate"), before);
    let mut other = start_with(&[&["--kvs", "127.0.0.1:0"][..], &files].concat());
    assert!(endpoint(&mut other).starts_with("https://"));
    assert!(!other.dir.join("kvs-cert.pem").exists());
}
