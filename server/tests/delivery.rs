//! Pictures and notifications that the compatible API makes of its own accord: as files, and at webhooks.

mod common;

use std::collections::BTreeMap;
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use common::kinesis::{Put, address, call, create, tags};
use common::webhook::{Received, Webhook};
use common::{Vidar, launch, serve as serve_command, start_in};
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

const TOPIC: &str = "arn:aws:sns:eu-central-1:123456789012:door";

/// A server whose topic stands for a webhook.
fn serve_topic(own: &Path, webhook: &Webhook) -> (Vidar, String) {
    let topic = format!("{TOPIC}={}", webhook.url("/hook?of=door"));
    let mut command = serve_command(&own.join("data"), &["--kvs", "127.0.0.1:0", "--notify", &topic]);
    command.env("SSL_CERT_FILE", webhook.trust());
    let mut vidar = launch(command, &own.join("data"));
    let at = address(&mut vidar);
    (vidar, at)
}

fn notify(at: &str, stream: &str, status: &str) {
    let config = json!({ "Status": status, "DestinationConfig": { "Uri": TOPIC } });
    let body = json!({ "StreamName": stream, "NotificationConfiguration": config });
    assert_eq!(call(at, "/updateNotificationConfiguration", &body), (200, json!({})));
}

/// Pushes clusters; those of these indices ask for a notification. The numbers of these.
fn put_tagged(at: &str, parts: &[Vec<u8>], start: &str, tagged: &[usize]) -> Vec<String> {
    let mut put = Put::relative("cam", start).open(at);
    put.send(&parts[0]);
    for (index, cluster) in parts[1..].iter().enumerate() {
        put.send(cluster);
        if tagged.contains(&index) {
            let index = index.to_string();
            put.send(&tags(&[("AWS_KINESISVIDEO_NOTIFICATION", ""), ("site", "north"), ("index", &index)]));
        }
    }
    let acks = put.finish();
    let persisted: Vec<&Value> = acks.iter().filter(|ack| ack["EventType"] == "PERSISTED").collect();
    assert_eq!(persisted.len(), parts.len() - 1, "{acks:?}");
    tagged.iter().map(|index| persisted[*index]["FragmentNumber"].as_str().expect("a number").to_owned()).collect()
}

/// What is told of which fragment, with what it is signed by and meant for checked.
fn told(own: &Path, received: &Received) -> (String, Value) {
    let secret = std::fs::read_to_string(own.join("data/notify-secret")).expect("the secret");
    let secret = STANDARD.decode(secret.trim().strip_prefix("whsec_").expect("its prefix")).expect("base64");
    let header = |name: &str| received.header(name).unwrap_or_else(|| panic!("{name}"));
    let mut signed = format!("{}.{}.", header("webhook-id"), header("webhook-timestamp")).into_bytes();
    signed.extend_from_slice(&received.body);
    let signature =
        STANDARD.decode(header("webhook-signature").strip_prefix("v1,").expect("version 1")).expect("base64");
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &secret);
    ring::hmac::verify(&key, &signed, &signature).expect("the signature is of this body");
    let body: Value = serde_json::from_slice(&received.body).expect("JSON");
    let ids = [header("webhook-id"), header("x-amz-sns-message-id"), body["MessageId"].as_str().expect("an id")];
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!((received.target.as_str(), header("x-amz-sns-topic-arn")), ("/hook?of=door", TOPIC));
    assert_eq!((&body["Type"], &body["TopicArn"]), (&json!("Notification"), &json!(TOPIC)));
    let message: Value = serde_json::from_str(body["Message"].as_str().expect("text")).expect("JSON in JSON");
    (message["FragmentNumber"].as_str().expect("a number").to_owned(), message)
}

#[test]
fn notifications_come_in_order_and_outlive_a_crash_and_a_webhook_that_fails() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let webhook = Webhook::start(&[503]);
    let (mut vidar, at) = serve_topic(own.path(), &webhook);
    create(&at, "cam");
    let parts = clusters(own.path());
    put_tagged(&at, &parts, "1795301065", &[0]);
    notify(&at, "cam", "ENABLED");
    let numbers = put_tagged(&at, &parts, AT, &[1, 2]);
    // It failed, and came again; then the next. Nothing came of what was there before.
    let came: Vec<_> = (0..3).map(|_| told(own.path(), &webhook.next())).collect();
    assert_eq!(came.iter().map(|(number, _)| number).collect::<Vec<_>>(), [&numbers[0], &numbers[0], &numbers[1]]);
    assert_eq!(came[0].1, came[1].1);
    let fragments = vidar.fragments("cam");
    let fragment = fragments.iter().find(|fragment| fragment["fragment_number"] == *numbers[0]).expect("it is stored");
    let began = |name: &str| serde_json::from_value::<UnixMs>(fragment[name].clone()).expect("a time").0;
    let message = &came[0].1;
    assert_eq!(message["FragmentStartProducerTimestamp"], began("producer_time"));
    assert_eq!(message["FragmentStartServerTimestamp"], began("server_time"));
    assert_eq!(message["NotificationType"], "PERSISTED");
    assert_eq!(message["NotificationPayload"], json!({ "site": "north", "index": "1" }));
    let (_, described) = call(&at, "/describeStream", &json!({ "StreamName": "cam" }));
    assert_eq!(message["StreamArn"], described["StreamInfo"]["StreamARN"]);
    vidar.until("the counts", |vidar| (metric(vidar, "notifications_sent_total") == "2").then_some(()));
    assert_eq!(metric(&vidar, "notifications_failed_total"), "0");

    // Acknowledged and not yet told, and then the server is gone: the next one tells it.
    webhook.answer(503);
    let numbers = put_tagged(&at, &parts, "1795402065", &[3]);
    assert_eq!(told(own.path(), &webhook.next()).0, numbers[0]);
    vidar.kill();
    webhook.answer(200);
    let (vidar, at) = serve_topic(own.path(), &webhook);
    let due = numbers[0].clone();
    let mut again: Vec<String> = Vec::new();
    vidar.until("what was due", |_| {
        again.extend(webhook.received().iter().map(|received| told(own.path(), received).0));
        again.contains(&due).then_some(())
    });
    vidar.until("nothing to be due", |vidar| (metric(vidar, "notifications_due") == "0").then_some(()));
    // One that was told just before may come once more; nothing comes of what was not asked for.
    again.extend(webhook.received().iter().map(|received| told(own.path(), received).0));
    let known: Vec<&String> = came.iter().map(|(number, _)| number).chain(&numbers).collect();
    assert!(again.iter().all(|number| known.contains(&number)), "{again:?}");

    // An answer that says no is the last word, and the next is told all the same.
    webhook.answer(404);
    let refused = put_tagged(&at, &parts, "1795403065", &[0]);
    assert_eq!(told(own.path(), &webhook.next()).0, refused[0]);
    vidar.until("the refusal", |vidar| (metric(vidar, "notifications_failed_total") == "1").then_some(()));
    webhook.answer(200);
    let numbers = put_tagged(&at, &parts, "1795404065", &[0]);
    assert_eq!(told(own.path(), &webhook.next()).0, numbers[0]);
    notify(&at, "cam", "DISABLED");
    put_tagged(&at, &parts, "1795405065", &[0]);
    notify(&at, "cam", "ENABLED");
    let numbers = put_tagged(&at, &parts, "1795406065", &[0]);
    assert_eq!(told(own.path(), &webhook.next()).0, numbers[0]);
}

#[test]
fn notifications_go_to_https_that_is_trusted_only() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (webhook, stranger) = (Webhook::start_tls(&[]), Webhook::start_tls(&[]));
    let (mut vidar, at) = serve_topic(own.path(), &webhook);
    create(&at, "cam");
    notify(&at, "cam", "ENABLED");
    let parts = clusters(own.path());
    let numbers = put_tagged(&at, &parts, AT, &[0]);
    assert_eq!(told(own.path(), &webhook.next()).0, numbers[0]);
    assert_eq!(vidar.terminate(), Some(0));

    // The same with the certificate of another.
    let topic = format!("{TOPIC}={}", stranger.url("/hook"));
    let mut command = serve_command(&own.path().join("data"), &["--kvs", "127.0.0.1:0", "--notify", &topic]);
    command.env("SSL_CERT_FILE", webhook.trust());
    let mut vidar = launch(command, &own.path().join("data"));
    let at = address(&mut vidar);
    put_tagged(&at, &parts, "1795402065", &[0]);
    let line = vidar.wait_log("a notification is tried again");
    assert!(line.contains("certificate"), "{line}");
    assert_eq!(stranger.received().len(), 0);
}
