//! ListFragments and GetMediaForFragmentList: what was pushed comes back.

mod media_common;
#[path = "../../player-api/tests/support/mod.rs"]
mod support;

use media_common::{Service, clip_samples, essence};
use serde_json::{Value, json};
use support::{Push, START, events};
use vidar_core::clock::Clock as _;
use vidar_core::entry::SharedEntry;
use vidar_core::sample::Tag;
use vidar_media::demux::Event;

/// Matroska with every kind of track, block and order.
const CLIPS: [&str; 12] = [
    "bbb.mkv",
    "h264_pyramid.mkv",
    "h264_open_gop.mkv",
    "h264_vfr.mkv",
    "h265_open_gop.mkv",
    "av1_opus.mkv",
    "vp9_opus.webm",
    "vp8_vorbis.webm",
    "laced.mkv",
    "late_audio.mkv",
    "audio_pcm_mulaw.mkv",
    "audio_aac.mkv",
];

fn numbers(entries: &[SharedEntry]) -> Vec<String> {
    entries.iter().map(|entry| entry.meta.number.to_string()).collect()
}

fn range(kind: &str, start: Value, end: Value) -> Value {
    json!({"FragmentSelectorType": kind, "TimestampRange": {"StartTimestamp": start, "EndTimestamp": end}})
}

#[tokio::test]
async fn what_was_pushed_comes_back_frame_by_frame() {
    let service = Service::new();
    for clip in CLIPS {
        let stream = format!("cam-{}", clip.replace('.', "-"));
        let entries = service.archive.push(Push::new(&stream, clip, START)).await;
        let documents = service.fragment_list(&stream, &numbers(&entries)).await;
        assert_eq!(documents.iter().map(|of| of.number()).collect::<Vec<_>>(), numbers(&entries), "{clip}");

        let sent: Vec<_> = clip_samples(clip).iter().map(essence).collect();
        let got: Vec<_> = documents.iter().flat_map(|of| &of.samples).map(essence).collect();
        assert_eq!(got.len(), sent.len(), "{clip}");
        assert!(got == sent, "{clip}: frames differ");
        let source = events(clip);
        let config =
            source.iter().find_map(|event| if let Event::Config(config) = event { Some(config) } else { None });
        let config = config.expect("a config");
        // Of the header, and of the end.
        let configured = source.iter().position(|event| matches!(event, Event::Config(_))).expect("a config");
        let tags = |events: &[Event]| -> Vec<Tag> {
            let tags = events.iter().filter_map(|event| match event {
                Event::Tags(tags) | Event::TrackTags(tags) => Some(tags),
                _ => None,
            });
            tags.flatten().cloned().collect()
        };
        let (of_header, of_end) = (tags(&source[..configured]), tags(&source[configured..]));
        for (entry, document) in entries.iter().zip(&documents) {
            let got = document.config.as_ref().expect("a config");
            assert_eq!(got.tracks, config.tracks, "{clip}");
            assert_eq!(document.clusters, 1, "{clip}");
            let seconds = |ms: i64| format!("{}.{:03}", ms / 1000, ms % 1000);
            assert_eq!(document.tag("SERVER_TIMESTAMP"), Some(&*seconds(entry.meta.server_start().0)), "{clip}");
            assert_eq!(document.tag("PRODUCER_TIMESTAMP"), Some(&*seconds(entry.meta.producer_start.0)), "{clip}");
            assert!(!document.is_complete(), "{clip}: such documents have no token");
            let is_last = entry.meta.number == entries[entries.len() - 1].meta.number;
            let end = if is_last { &of_end[..] } else { &[] };
            assert_eq!(document.own_tags(), [&of_header[..], end].concat(), "{clip}");
        }
    }
}

#[tokio::test]
async fn fragments_come_in_the_order_they_are_asked_for_and_what_is_missing_is_named() {
    let service = Service::new();
    let entries = service.archive.push(Push::new("cam-1", "bbb.mkv", START)).await;
    let other = service.archive.push(Push::new("cam-2", "bbb.mkv", START)).await;
    let known = numbers(&entries);
    service.archive.source.damage(entries[1].meta.number);
    service.archive.source.remove(entries[2].meta.number);
    let foreign = other[0].meta.number.to_string();
    let beyond = "9".repeat(128);
    let asked = [&known[3], &foreign, &known[0], &beyond, &known[1], &known[2], &known[0]].map(String::clone);
    let documents = service.fragment_list("cam-1", &asked).await;
    assert_eq!(documents.iter().map(|of| of.number()).collect::<Vec<_>>(), asked);
    let errors: Vec<_> = documents.iter().map(|of| (of.tag("ERROR_CODE"), of.tag("ERROR_ID"))).collect();
    let missing = (Some("FRAGMENT_NOT_FOUND"), Some("3000"));
    let (none, damaged) = ((None, None), (Some("INTERNAL_ERROR"), Some("5000")));
    assert_eq!(errors, [none, missing, none, missing, damaged, missing, none]);
    assert_eq!(documents[2].bytes, documents[6].bytes);
    assert!(documents[0].samples.len() > 10 && documents[1].samples.is_empty());
}

#[tokio::test]
async fn fragment_lists_are_checked() {
    let service = Service::new();
    service.archive.push(Push::new("cam-1", "audio_aac.mkv", START)).await;
    let invalid = (400, "InvalidArgumentException".to_owned());
    for fragments in [json!([]), json!(["x"]), json!([""]), json!(["1"]), json!(vec!["1"; 1001]), Value::Null] {
        let expected = if fragments == json!(["1"]) { (200, String::new()) } else { invalid.clone() };
        let body = json!({"StreamName": "cam-1", "Fragments": fragments});
        assert_eq!(service.bad("/getMediaForFragmentList", body).await, expected, "{fragments}");
    }
    let body = |stream: &str| json!({"StreamName": stream, "Fragments": ["1"]});
    let path = "/getMediaForFragmentList";
    assert_eq!(service.bad(path, body("none")).await, (404, "ResourceNotFoundException".to_owned()));
    assert_eq!(service.bad(path, json!({"Fragments": ["1"]})).await, invalid);
    assert_eq!(service.bad_as("writer", path, body("cam-1")).await.0, 403);
    assert_eq!(service.bad_as("reader", path, body("cam-1")).await.0, 200);
    assert_eq!(service.bad_as("reader", path, body("other")).await.0, 403);
}

#[tokio::test]
async fn fragments_are_listed_by_both_clocks_in_pages() {
    let service = Service::new();
    let entries = service.archive.push(Push::new("cam-1", "h264_short_gop.mkv", START)).await;
    let (count, seconds) = (entries.len(), |ms: i64| ms as f64 / 1000.0);
    assert!(count > 4);
    for (kind, shift_ms) in [("PRODUCER_TIMESTAMP", 0), ("SERVER_TIMESTAMP", 5)] {
        let begin = |index: usize| entries[index].meta.producer_start.0 + shift_ms;
        let selector = range(kind, json!(seconds(begin(1))), json!(seconds(begin(count - 2))));
        let mut request = json!({"StreamName": "cam-1", "MaxResults": 2, "FragmentSelector": selector});
        let (mut listed, mut pages) = (Vec::new(), 0);
        loop {
            let page = service.json("/listFragments", request).await;
            let fragments = page["Fragments"].as_array().expect("fragments");
            assert!(fragments.len() <= 2);
            listed.extend(fragments.iter().cloned());
            pages += 1;
            let Some(token) = page["NextToken"].as_str() else { break };
            request = json!({"StreamName": "cam-1", "MaxResults": 2, "NextToken": token});
        }
        assert_eq!(pages, (count - 2).div_ceil(2), "{kind}");
        let expected: Vec<Value> = entries[1..count - 1]
            .iter()
            .map(|entry| {
                json!({
                    "FragmentNumber": entry.meta.number.to_string(),
                    "FragmentSizeInBytes": entry.size_bytes,
                    "ProducerTimestamp": seconds(entry.meta.producer_start.0),
                    "ServerTimestamp": seconds(entry.meta.server_start().0),
                    "FragmentLengthInMilliseconds": entry.meta.duration_ms,
                })
            })
            .collect();
        assert_eq!(listed, expected, "{kind}: both ends are in");
        // A hair beyond either end leaves one out.
        let selector = range(kind, json!(seconds(begin(1)) + 0.0001), json!(seconds(begin(count - 2)) - 0.0001));
        let narrow = json!({"StreamName": "cam-1", "FragmentSelector": selector});
        let narrow = service.json("/listFragments", narrow).await["Fragments"].as_array().expect("fragments").len();
        assert_eq!(narrow, count - 4, "{kind}");
    }
}

#[tokio::test]
async fn listings_are_checked() {
    let service = Service::new();
    service.archive.push(Push::new("cam-1", "h264_short_gop.mkv", START)).await;
    service.archive.push(Push::new("cam-2", "h264_short_gop.mkv", START)).await;
    let all = range("SERVER_TIMESTAMP", json!(0), json!(4e9));
    let first =
        service.json("/listFragments", json!({"StreamName": "cam-1", "MaxResults": 1, "FragmentSelector": all})).await;
    let token = first["NextToken"].as_str().expect("a token").to_owned();
    let invalid = (400, "InvalidArgumentException".to_owned());
    for (name, members) in [
        ("no selector", json!({})),
        ("no count", json!({"FragmentSelector": all, "MaxResults": 0})),
        ("too many", json!({"FragmentSelector": all, "MaxResults": 1001})),
        ("no range", json!({"FragmentSelector": {"FragmentSelectorType": "SERVER_TIMESTAMP"}})),
        ("no clock", json!({"FragmentSelector": {"TimestampRange": {"StartTimestamp": 0, "EndTimestamp": 1}}})),
        ("another clock", json!({"FragmentSelector": range("NOW", json!(0), json!(1))})),
        ("a range that ends first", json!({"FragmentSelector": range("SERVER_TIMESTAMP", json!(2), json!(1))})),
        ("no time", json!({"FragmentSelector": range("SERVER_TIMESTAMP", json!("x"), json!(1))})),
        ("no token", json!({"NextToken": "abcd"})),
        ("a cut token", json!({"NextToken": token[..40]})),
        ("a long token", json!({"NextToken": "A".repeat(5000)})),
    ] {
        let mut body = members;
        body["StreamName"] = json!("cam-1");
        assert_eq!(service.bad("/listFragments", body).await, invalid, "{name}");
    }
    let foreign = json!({"StreamName": "cam-2", "NextToken": token});
    assert_eq!(service.bad("/listFragments", foreign).await, invalid, "a token of another stream");
    let own = service.json("/listFragments", json!({"StreamName": "cam-1", "NextToken": token})).await;
    assert!(own["Fragments"].as_array().expect("fragments").len() > 2);
    let missing = json!({"StreamName": "none", "FragmentSelector": all});
    assert_eq!(service.bad("/listFragments", missing).await, (404, "ResourceNotFoundException".to_owned()));
    let denied = json!({"StreamName": "cam-1", "FragmentSelector": all});
    assert_eq!(service.bad_as("writer", "/listFragments", denied.clone()).await.0, 403);
    assert_eq!(service.bad_as("reader", "/listFragments", denied).await.0, 200);
    // Nothing there is no error.
    let empty = json!({"StreamName": "cam-1", "FragmentSelector": range("SERVER_TIMESTAMP", json!(1), json!(1))});
    assert_eq!(service.json("/listFragments", empty).await, json!({"Fragments": [], "NextToken": null}));
    assert!(service.archive.clock.now() > START);
}

#[tokio::test]
async fn sources_that_were_no_matroska_come_back_as_matroska_in_producer_time() {
    let service = Service::new();
    for clip in ["bbb_frag.mp4", "bbb.ts"] {
        let stream = format!("cam-{}", clip.replace('.', "-"));
        let entries = service.archive.push(Push::new(&stream, clip, START)).await;
        let documents = service.fragment_list(&stream, &numbers(&entries)).await;
        let (sent, got) = (clip_samples(clip), documents.iter().flat_map(|of| &of.samples).collect::<Vec<_>>());
        assert_eq!(got.len(), sent.len(), "{clip}");
        assert!(got.iter().zip(&sent).all(|(got, sent)| got.data == sent.data), "{clip}");
        for (entry, document) in entries.iter().zip(&documents) {
            assert_eq!(document.clusters, 1, "{clip}");
            let video = document
                .samples
                .iter()
                .find(|sample| sample.track == 0 && sample.sync == vidar_core::sample::SyncKind::Sync);
            let at = video.expect("a keyframe").presentation_ticks;
            assert!((at - entry.meta.producer_start.0).abs() <= 1, "{clip}: {at} {}", entry.meta.producer_start.0);
        }
    }
}
