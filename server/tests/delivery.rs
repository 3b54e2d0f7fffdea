//! Pictures that the compatible API makes of its own accord, as files.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::kinesis::{Put, address, call, create, tags};
use common::{Vidar, start_in};
use serde_json::{Value, json};
use vidar_core::time::UnixMs;

/// 2026-11-23T02:31:05Z, as seconds and as milliseconds.
const AT: &str = "1795401065";
const AT_MS: i64 = 1_795_401_065_000;

fn serve(own: &Path, flags: &[&str]) -> (Vidar, String) {
    let target = format!("s3://shots={}", own.join("shots").display());
    let flags = [&["--kvs", "127.0.0.1:0", "--image-target", &target][..], flags].concat();
    let mut vidar = start_in(&own.join("data"), &flags);
    let at = address(&mut vidar);
    (vidar, at)
}

fn configure(at: &str, stream: &str, uri: &str, interval_ms: i64) {
    let config = json!({
        "Status": "ENABLED",
        "ImageSelectorType": "PRODUCER_TIMESTAMP",
        "DestinationConfig": { "Uri": uri, "DestinationRegion": "eu-central-1" },
        "SamplingInterval": interval_ms,
        "Format": "PNG",
        "WidthPixels": 64,
        "HeightPixels": 36,
    });
    let body = json!({ "StreamName": stream, "ImageGenerationConfiguration": config });
    assert_eq!(call(at, "/updateImageGenerationConfiguration", &body), (200, json!({})));
}

/// Names and bytes of the files in a folder.
fn files(folder: &Path) -> BTreeMap<String, Vec<u8>> {
    let Ok(entries) = std::fs::read_dir(folder) else { return BTreeMap::new() };
    let files = entries.map(|entry| entry.expect("an entry").path()).filter(|path| path.is_file());
    let name = |path: &Path| path.file_name().expect("a name").to_str().expect("UTF-8").to_owned();
    files.filter_map(|path| Some((name(&path), std::fs::read(&path).ok()?))).collect()
}

/// The pictures of a folder by their instants, once there are so many and nothing is left to do.
fn pictures(vidar: &Vidar, folder: &Path, count: usize) -> BTreeMap<i64, Vec<u8>> {
    vidar.until("the pictures", |vidar| {
        let pictures = files(folder).into_iter().filter(|(name, _)| name.ends_with(".png"));
        let at = |name: &str| name.split('_').rev().nth(1)?.parse::<i64>().ok();
        let pictures: BTreeMap<i64, Vec<u8>> =
            pictures.map(|(name, bytes)| (at(&name).expect("an instant"), bytes)).collect();
        (pictures.len() >= count && due(vidar) == "0").then_some(pictures)
    })
}

fn metric(vidar: &Vidar, name: &str) -> String {
    let (status, text) = vidar.request(&[], "/metrics");
    assert_eq!(status, 200);
    let text = String::from_utf8(text).expect("UTF-8");
    let value = text.lines().find_map(|line| line.strip_prefix(&format!("vidar_{name} ")));
    value.expect("the metric").to_owned()
}

fn due(vidar: &Vidar) -> String {
    metric(vidar, "images_due")
}

/// What the fragments of a push cover by the producer's clock, in order.
fn spans(vidar: &Vidar, from_ms: i64) -> Vec<std::ops::Range<i64>> {
    let span = |fragment: Value| {
        let start: UnixMs = serde_json::from_value(fragment["producer_time"].clone()).expect("a time");
        start.0..start.0 + fragment["duration_ms"].as_i64().expect("a duration")
    };
    let mut spans: Vec<_> = vidar.fragments("cam").into_iter().map(span).filter(|span| span.start >= from_ms).collect();
    spans.sort_by_key(|span| span.start);
    spans
}

#[test]
fn pictures_come_at_the_interval_and_outlive_a_crash() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (mut vidar, at) = serve(own.path(), &[]);
    create(&at, "cam");
    let clip = vidar_fixtures::path("bbb.mkv");
    let push = |vidar: &Vidar, at_ms: i64| {
        assert_eq!(vidar.push("cam", &format!("?start={at_ms}"), &clip).0, 200);
    };
    // What came before it was configured has none.
    push(&vidar, AT_MS - 3_600_000);
    configure(&at, "cam", "s3://shots/yard/door", 1000);
    push(&vidar, AT_MS);
    let folder = own.path().join("shots/yard/door");
    let expected: Vec<i64> =
        spans(&vidar, AT_MS).into_iter().flat_map(|span| span.filter(|at| at % 1000 == 0)).collect();
    let count = expected.len();
    assert!((7..=9).contains(&count), "{expected:?}");
    let first = pictures(&vidar, &folder, count);
    assert_eq!(first.keys().copied().collect::<Vec<_>>(), expected);
    assert_eq!(metric(&vidar, "images_written_total"), count.to_string());
    assert!(files(&folder).keys().all(|name| name.starts_with("000000000000_cam_")), "{:?}", files(&folder).keys());
    // They are those that GetImages gives.
    let asked = json!({
        "StreamName": "cam", "ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": expected[0] / 1000,
        "EndTimestamp": expected[count - 1] / 1000, "SamplingInterval": 1000, "Format": "PNG", "WidthPixels": 64,
        "HeightPixels": 36,
    });
    let (status, images) = call(&at, "/getImages", &asked);
    assert_eq!(status, 200, "{images}");
    let contents: Vec<&str> = images["Images"]
        .as_array()
        .expect("a list")
        .iter()
        .map(|image| image["ImageContent"].as_str().expect("one"))
        .collect();
    let written: Vec<String> = first.values().map(|bytes| STANDARD.encode(bytes)).collect();
    assert_eq!(written, contents);

    // Acknowledged, and then the server is gone: the next one makes them.
    vidar.kill();
    let (mut vidar, _) = serve(own.path(), &[]);
    push(&vidar, AT_MS + 60_000);
    vidar.kill();
    let (vidar, at) = serve(own.path(), &[]);
    let all = pictures(&vidar, &folder, 2 * count);
    let later = expected.iter().map(|at| at + 60_000);
    assert_eq!(all.keys().copied().collect::<Vec<_>>(), expected.iter().copied().chain(later).collect::<Vec<_>>());
    // None is there under two names, and nothing is half written.
    assert_eq!(files(&folder).len(), 4 * count, "{:?}", files(&folder).keys());

    let off = json!({ "StreamName": "cam", "ImageGenerationConfiguration": null });
    assert_eq!(call(&at, "/updateImageGenerationConfiguration", &off), (200, json!({})));
    push(&vidar, AT_MS + 120_000);
    create(&at, "other");
    configure(&at, "other", "s3://shots/other", 1000);
    assert_eq!(vidar.push("other", &format!("?start={AT_MS}"), &clip).0, 200);
    pictures(&vidar, &own.path().join("shots/other"), count);
    assert_eq!(files(&folder).len(), 4 * count, "it was taken away");
}

/// The parts of a clip as a live encoder sends it: what stands before the first Cluster, and each Cluster.
fn clusters(own: &Path) -> Vec<Vec<u8>> {
    let file = own.join("live.mkv");
    let (clip, out) = (vidar_fixtures::path("bbb.mkv"), file.to_str().expect("UTF-8"));
    let args = ["-v", "error", "-i", clip.to_str().expect("UTF-8"), "-c", "copy", "-f", "matroska", "-live", "1"];
    common::run("ffmpeg", &[&args[..], &["-cluster_time_limit", "2000", out]].concat());
    let bytes = std::fs::read(file).expect("a clip");
    let starts: Vec<usize> = (0..bytes.len())
        .filter(|at| bytes[*at..].starts_with(&[0x1f, 0x43, 0xb6, 0x75]))
        .chain([bytes.len()])
        .collect();
    let rest = starts.windows(2).map(|pair| bytes[pair[0]..pair[1]].to_vec());
    [bytes[..starts[0]].to_vec()].into_iter().chain(rest).collect()
}

#[test]
fn pictures_come_where_a_tag_asks_for_them() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (vidar, at) = serve(own.path(), &["--kvs-strict", "images"]);
    create(&at, "cam");
    configure(&at, "cam", "s3://shots", 60_000);
    let parts = clusters(own.path());
    assert!(parts.len() > 3, "{}", parts.len());
    let mut put = Put::relative("cam", AT).open(&at);
    put.send(&parts[0]);
    for (index, cluster) in parts[1..].iter().enumerate() {
        put.send(cluster);
        // Tags come after the Cluster that they belong to.
        if index == 1 {
            let prefix = ("AWS_KINESISVIDEO_IMAGE_PREFIX", "../front door/cam");
            put.send(&tags(&[("AWS_KINESISVIDEO_IMAGE_GENERATION", ""), prefix, ("site", "north")]));
        }
    }
    let acks = put.finish();
    assert!(!acks.iter().any(|ack| ack["EventType"] == "ERROR"), "{acks:?}");
    let persisted: Vec<&Value> = acks.iter().filter(|ack| ack["EventType"] == "PERSISTED").collect();
    assert_eq!(persisted.len(), parts.len() - 1);

    let folder = own.path().join("shots/front_door");
    let made = pictures(&vidar, &folder, 1);
    let fragments = vidar.fragments("cam");
    let number = persisted[1]["FragmentNumber"].as_str().expect("a number");
    let fragment = fragments.iter().find(|fragment| fragment["fragment_number"] == number).expect("it is stored");
    let began: UnixMs = serde_json::from_value(fragment["producer_time"].clone()).expect("a time");
    assert_eq!(made.keys().copied().collect::<Vec<_>>(), [began.0]);
    assert!(made[&began.0].starts_with(b"\x89PNG"));
    let files = files(&folder);
    let (name, metadata) = files.iter().find(|(name, _)| name.ends_with(".json")).expect("its metadata");
    assert!(name.starts_with(&format!("cam_000000000000_cam_{}_", began.0)), "{name}");
    let metadata: Value = serde_json::from_slice(metadata).expect("JSON");
    let told = ["site", "aws_kinesisvideo_fragment_number", "aws_kinesisvideo_producer_timestamp"];
    let expected = [json!("north"), json!(number), json!(began.0.to_string())];
    assert_eq!(told.map(|name| metadata[name].clone()), expected);
    assert_eq!(std::fs::read_dir(own.path().join("shots")).expect("a folder").count(), 1, "of no other fragment");
}
