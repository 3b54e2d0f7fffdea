//! Clips, pictures and streaming sessions of the compatible API, as boto3 asks for them and players play them.

mod common;

use std::path::Path;

use common::{ID, SECRET, Vidar, assert_lists, decoded, packets, python, start_with};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;
const HOUR_MS: u64 = 3_600_000;

/// Where the compatible API of a server listens.
fn endpoint(vidar: &mut Vidar) -> String {
    let line = vidar.wait_log("the compatible API listens");
    let address = line.split_once("kvs=").expect("an address").1;
    format!("http://{}", address.split_whitespace().next().expect("an address"))
}

fn push(vidar: &Vidar, stream: &str, clip: &str, start_ms: u64) {
    assert_eq!(vidar.push(stream, &format!("?start={start_ms}"), &vidar_fixtures::path(clip)).0, 200, "{stream}");
}

/// Pictures of a live or long playlist, decoded until there were so many.
fn decoded_first(url: &str, count: usize) -> Vec<String> {
    let count = count.to_string();
    let args = ["-live_start_index", "0", "-i", url, "-map", "0:v:0", "-frames:v", &count, "-vsync", "passthrough"];
    let output = common::ffmpeg(&[&args[..], &["-f", "framemd5", "-"]].concat());
    let text = String::from_utf8(output).expect("UTF-8");
    let frames = text.lines().filter(|line| !line.starts_with('#'));
    frames.map(|line| line.rsplit(',').next().expect("a hash").trim().to_owned()).collect()
}

/// Pictures that GStreamer shows of a URL, each of which has 320 x 180 pixels.
fn shown_by_gstreamer(url: &str, folder: &Path) -> u64 {
    let raw = folder.join("raw");
    // With queues: without them the pads of a stream may wait for each other, and some of it is dropped.
    let pipeline = format!(
        "uridecodebin name=d uri={url} \
         d. ! queue max-size-bytes=0 max-size-time=0 max-size-buffers=0 ! video/x-raw ! videoconvert \
         ! video/x-raw,format=I420 ! filesink location={} \
         d. ! queue ! audio/x-raw ! fakesink sync=false",
        raw.display()
    );
    let args: Vec<&str> = std::iter::once("-q").chain(pipeline.split_whitespace()).collect();
    common::run("gst-launch-1.0", &args);
    let len = std::fs::metadata(&raw).expect("pictures").len();
    assert_eq!(len % 86_400, 0);
    len / 86_400
}

#[test]
fn boto3_gets_clips_pictures_and_urls_that_players_play() {
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0"]);
    let own = tempfile::tempdir().expect("a folder");
    let folder = own.path();
    let url = endpoint(&mut vidar);
    for (stream, clip, start_ms) in [
        ("gap", "bbb.mkv", START_MS),
        ("gap", "bbb.mkv", START_MS + HOUR_MS),
        ("sound", "audio_aac.mkv", START_MS),
        ("law", "audio_pcm_alaw.mkv", START_MS),
        ("gone", "bbb.mkv", START_MS),
        ("cam", "bbb.mkv", START_MS),
    ] {
        push(&vidar, stream, clip, start_ms);
    }
    let body = json!({"preset": "read", "streams": ["cam"]}).to_string();
    let (status, reader) = vidar.request(&["-d", &body], "/v1/credentials");
    assert_eq!(status, 201);
    let reader: Value = serde_json::from_slice(&reader).expect("JSON");
    let text = |name: &str| reader[name].as_str().expect("a text").to_owned();
    let (start, out) = (START_MS.to_string(), folder.to_str().expect("UTF-8"));
    let urls = python::run(
        "sessions.py",
        &[&url, ID, SECRET, &text("access_key_id"), &text("secret_access_key"), &start, out],
    );
    let urls: Value = serde_json::from_slice(&urls).expect("URLs");
    let session = |name: &str| urls[name].as_str().expect("a URL");

    let source = vidar_fixtures::path("bbb.mkv");
    let source = source.to_str().expect("UTF-8");
    let pictures = decoded(source, "v");
    let sound: Vec<String> = packets(source)[1].iter().map(|packet| packet.hash.clone()).collect();
    let file = |name: &str| folder.join(name).to_str().expect("UTF-8").to_owned();
    for name in ["producer.mp4", "server.mp4"] {
        assert_lists(name, &pictures, &decoded(&file(name), "v"));
        let clip: Vec<String> = packets(&file(name))[1].iter().map(|packet| packet.hash.clone()).collect();
        assert_lists(name, &sound, &clip);
    }
    // Whole fragments that begin within: those of 2 s and 4 s.
    let coded = packets(source).swap_remove(0);
    let keys: Vec<usize> = (0..coded.len()).filter(|index| coded[*index].key).collect();
    assert_eq!(packets(&file("part.mp4"))[0].len(), keys[3] - keys[1]);
    let (status, native) = vidar.request(&[], &format!("/v1/streams/cam/image.png?at={}", START_MS + 1500));
    assert_eq!(status, 200);
    assert!(native == std::fs::read(file("at-1500.png")).expect("a picture"), "another picture than the native one");

    for name in ["demand", "server", "ts", "dash"] {
        assert_lists(name, &pictures, &decoded(session(name), "v"));
        assert_lists(name, &decoded(source, "a"), &decoded(session(name), "a"));
    }
    assert_lists("gap", &[&pictures[..], &pictures].concat(), &decoded(session("gap"), "v"));
    for name in ["live", "replay"] {
        // Not up to the end, which a live playlist does not have: decoders hold pictures back.
        let count = if name == "live" { 150 } else { 50 };
        let seen = decoded_first(session(name), count);
        assert!(seen.len() == count && pictures.windows(count).any(|part| *part == seen[..]), "{name}: {}", seen.len());
    }
    for name in ["demand", "server", "ts", "dash"] {
        assert_eq!(shown_by_gstreamer(session(name), folder), pictures.len() as u64, "{name}");
    }

    let status = |name: &str| {
        let args = ["-sS", "-o", "/dev/null", "-w", "%{http_code}", session(name)];
        String::from_utf8(common::run("curl", &args)).expect("a status")
    };
    assert_eq!(status("reader"), "200");
    let path = format!("/v1/credentials/{}", text("access_key_id"));
    assert_eq!(vidar.request(&["-X", "DELETE"], &path).0 / 100, 2);
    assert_eq!((status("reader"), status("demand")), ("403".into(), "200".into()));
}

#[test]
fn clips_end_where_the_settings_say() {
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0", "--kvs-clip-fragments", "2"]);
    let url = endpoint(&mut vidar);
    push(&vidar, "cam", "bbb.mkv", START_MS);
    let own = tempfile::tempdir().expect("a folder");
    let clip = own.path().join("clip.mp4");
    let range = json!({"StartTimestamp": START_MS / 1000, "EndTimestamp": START_MS / 1000 + 60});
    let selector = json!({"FragmentSelectorType": "PRODUCER_TIMESTAMP", "TimestampRange": range});
    let body = json!({"StreamName": "cam", "ClipFragmentSelector": selector}).to_string();
    let user = format!("{ID}:{SECRET}");
    let target = format!("{url}/getClip");
    let clip = clip.to_str().expect("UTF-8");
    let args = ["-sSf", "--aws-sigv4", "aws:amz:us-west-2:kinesisvideo", "-u", &user, "-d", &body, "-o", clip, &target];
    common::run("curl", &[&["-H", "content-type: application/json"], &args[..]].concat());
    let two = packets(clip)[0].iter().filter(|packet| packet.key).count();
    assert_eq!(two, 2);
}
