//! Clips as HTTP answers them: ranges, gaps, runs, damage, the head of a stream.

mod support;

use std::io::Cursor;
use std::sync::atomic::Ordering;

use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{Method, Request};
use http_body_util::BodyExt as _;
use support::{Answer, Archive, KEY, Push, SECRET, START};
use tower::ServiceExt as _;
use vidar_core::entry::SharedEntry;
use vidar_core::hub::{LiveEvent, LiveSink as _};
use vidar_core::sink::Durable;

fn request(method: Method, uri: &str, fields: &[(&str, &str)]) -> Request<Body> {
    let pair = STANDARD.encode(format!("{KEY}:{SECRET}"));
    let mut request = Request::builder().method(method).uri(uri).header("authorization", format!("Basic {pair}"));
    for (name, value) in fields {
        request = request.header(*name, *value);
    }
    request.body(Body::empty()).unwrap()
}

async fn ranged(archive: &Archive, uri: &str, from: usize, to: usize) -> Answer {
    let range = format!("bytes={from}-{}", to - 1);
    archive.send_raw(request(Method::GET, uri, &[("range", &range)])).await
}

fn sizes(answer: &Answer) -> Vec<(u32, u64)> {
    let reader = mp4::Mp4Reader::read_header(Cursor::new(answer.body.clone()), answer.body.len() as u64).unwrap();
    let mut tracks: Vec<_> =
        reader.tracks().iter().map(|(id, track)| (*id, track.sample_count(), track.duration().as_millis())).collect();
    tracks.sort_unstable();
    tracks.into_iter().map(|(_, count, ms)| (count, ms as u64)).collect()
}

#[tokio::test]
async fn any_range_is_a_slice_of_the_whole() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    for file in ["clip.mp4", "clip.mkv"] {
        let uri = format!("/v1/streams/cam/{file}?start={}&end={}", START.plus_ms(700), START.plus_ms(7_100));
        let whole = archive.get(&uri).await;
        assert_eq!((whole.status, whole.header("accept-ranges")), (200, "bytes"));
        let len = whole.body.len();
        let mut seed = 7_u64;
        for _ in 0..60 {
            seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
            let from = (seed >> 33) as usize % len;
            let to = (from + 1 + (seed >> 13) as usize % 9_000).min(len);
            let part = ranged(&archive, &uri, from, to).await;
            assert_eq!(part.status, 206);
            assert_eq!(part.header("content-range"), format!("bytes {from}-{}/{len}", to - 1));
            assert_eq!(part.header("etag"), whole.header("etag"));
            assert!(part.body == whole.body[from..to], "{file} {from}..{to}");
        }
        let head = archive.send_raw(request(Method::HEAD, &uri, &[])).await;
        assert_eq!((head.status, head.header("content-length")), (200, &*len.to_string()));
        assert!(head.body.is_empty());
        let tag = whole.header("etag").to_owned();
        let unchanged = archive.send_raw(request(Method::GET, &uri, &[("if-none-match", &tag)])).await;
        assert_eq!((unchanged.status, unchanged.body.len()), (304, 0));
        let beyond = archive.send_raw(request(Method::GET, &uri, &[("range", "bytes=99999999-")])).await;
        assert_eq!((beyond.status, beyond.header("content-range")), (416, &*format!("bytes */{len}")));
        // The same request gives the same bytes; another range another tag.
        let again = archive.get(&uri).await;
        assert!(again.body == whole.body && again.header("etag") == tag);
        let other = archive.get(&uri.replace("7.100Z", "7.099Z")).await;
        assert_ne!(other.header("etag"), tag);
    }
}

#[tokio::test]
async fn requests_that_make_no_sense_are_refused() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    for (uri, status) in [
        ("/v1/streams/none/clip.mp4", 404),
        ("/v1/streams/cam/clip.mp4?start=2020-01-01T00:00:00Z&end=2020-01-01T00:01:00Z", 404),
        ("/v1/streams/cam/clip.mkv?start=2030-01-01T00:00:00Z", 404),
        ("/v1/streams/cam/clip.mp4?start=yesterday", 400),
        ("/v1/streams/cam/clip.mp4?start=10&end=5", 400),
        ("/v1/streams/cam/clip.mp4?gaps=maybe", 400),
        ("/v1/streams/cam/clip.mp4?live=yes", 400),
        ("/v1/streams/cam/clip.mp4?begin=1", 400),
        ("/v1/streams/cam/clip.avi", 404),
    ] {
        assert_eq!(archive.get(uri).await.status, status, "{uri}");
    }
    assert_eq!(archive.send(Method::POST, "/v1/streams/cam/clip.mp4", "").await.status, 405);
}

#[tokio::test]
async fn gaps_are_skipped_and_named_or_refused() {
    let archive = Archive::new();
    let first = archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let second = START.plus_ms(20_000);
    archive.push(Push::new("cam", "bbb.mkv", second)).await;
    let gap_start = first.last().unwrap().meta.producer_end();
    let gap = format!("{gap_start}/{second}");

    for file in ["clip.mp4", "clip.mkv"] {
        let uri = format!("/v1/streams/cam/{file}?start={START}&end={}", START.plus_ms(28_000));
        let clip = archive.get(&uri).await;
        assert_eq!((clip.status, clip.header("vidar-gaps")), (200, &*gap), "{file}");
        let refused = archive.get(&format!("{uri}&gaps=error")).await;
        assert_eq!(refused.status, 409);
        assert_eq!(refused.json()["gaps"][0]["start"], gap_start.to_string());
        let within = format!("/v1/streams/cam/{file}?start={START}&end={}&gaps=error", START.plus_ms(3_000));
        assert_eq!(archive.get(&within).await.status, 200);
    }
    // Both runs, one after the other, tracks side by side.
    let clip = archive.get(&format!("/v1/streams/cam/clip.mp4?start={START}&end={}", START.plus_ms(28_000))).await;
    let tracks = sizes(&clip);
    assert_eq!(tracks[0].0, 2 * 199);
    for (_, ms) in &tracks {
        assert!((15_900..=16_150).contains(ms), "{tracks:?}");
    }
    // Before the first fragment, too; not after the last, which may still come.
    let uri = format!("/v1/streams/cam/clip.mp4?start={}&end={}", START.plus_ms(-5_000), START.plus_ms(90_000));
    let clip = archive.get(&uri).await;
    assert_eq!(clip.header("vidar-gaps"), format!("{}/{START}, {gap}", START.plus_ms(-5_000)));
    // In the gap alone there is nothing.
    let uri = format!("/v1/streams/cam/clip.mp4?start={}&end={}", START.plus_ms(10_000), START.plus_ms(19_000));
    let nothing = archive.get(&uri).await;
    assert_eq!((nothing.status, nothing.json()["gaps"][0]["end"].as_str()), (404, Some("2026-01-01T00:00:19.000Z")));
}

#[tokio::test]
async fn a_newer_run_hides_what_it_overlaps() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    archive.push(Push::new("cam", "bbb.mkv", START.plus_ms(3_000))).await;
    let clip = archive.get("/v1/streams/cam/clip.mp4").await;
    assert_eq!((clip.status, clip.header("vidar-gaps")), (200, ""));
    let tracks = sizes(&clip);
    // 3 s of the first run, all of the second.
    assert!((70..=76).contains(&(tracks[0].0 - 199)), "{tracks:?}");
    for (_, ms) in &tracks {
        assert!((10_800..=11_200).contains(ms), "{tracks:?}");
    }
    assert_eq!(archive.get("/v1/streams/cam/clip.mkv").await.status, 200);
}

#[tokio::test]
async fn configs_that_change_have_sample_entries_of_their_own() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    archive.push(Push::new("cam", "h264_open_gop.mp4", START.plus_ms(8_000))).await;
    let clip = archive.get("/v1/streams/cam/clip.mp4").await;
    assert_eq!((clip.status, clip.header("vidar-omitted-tracks")), (200, ""));
    let count = |kind: &[u8]| clip.body.windows(4).filter(|window| *window == kind).count();
    assert_eq!((count(b"trak"), count(b"avc1"), count(b"avcC")), (2, 2, 2));
    assert_eq!(sizes(&clip)[0].0, 199 + 150);
    assert_eq!(archive.get("/v1/streams/cam/clip.mkv").await.status, 200);
}

#[tokio::test]
async fn tracks_without_a_place_are_left_out_and_named() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "vp8_vorbis.webm", START)).await;
    let clip = archive.get("/v1/streams/cam/clip.mp4").await;
    assert_eq!((clip.status, clip.header("vidar-omitted-tracks")), (200, "1;codec=A_VORBIS"));
    assert_eq!(sizes(&clip).len(), 1);
    let clip = archive.get("/v1/streams/cam/clip.mkv").await;
    assert_eq!((clip.status, clip.header("vidar-omitted-tracks")), (200, ""));
    assert_eq!(clip.header("content-length"), clip.body.len().to_string());
}

#[tokio::test]
async fn damage_at_an_edge_is_a_gap_and_elsewhere_ends_the_transfer() {
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
    assert!(entries.len() >= 10);
    let first = entries[0].meta;
    archive.source.damage(first.number);
    for file in ["clip.mp4", "clip.mkv"] {
        let clip = archive.get(&format!("/v1/streams/cam/{file}?start={START}")).await;
        assert_eq!(clip.status, 200);
        assert_eq!(clip.header("vidar-gaps"), format!("{START}/{}", first.producer_end()));
        assert_eq!(clip.header("content-length"), clip.body.len().to_string());
    }
    for file in ["clip.mp4", "clip.mkv"] {
        let archive = Archive::new();
        let entries = archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
        let damaged = entries[5].meta;
        archive.source.damage(damaged.number);
        let uri = format!("/v1/streams/cam/{file}");
        let response = archive.router.clone().oneshot(request(Method::GET, &uri, &[])).await.unwrap();
        assert_eq!(response.status(), 200);
        assert!(response.into_body().collect().await.is_err(), "{file}");
        // Now that it is known, it is a gap.
        let clip = archive.get(&uri).await;
        assert_eq!(clip.header("vidar-gaps"), format!("{}/{}", damaged.producer_start, damaged.producer_end()));
        assert_eq!(clip.header("content-length"), clip.body.len().to_string());
        assert_eq!(archive.get(&format!("{uri}?gaps=error")).await.status, 409);
    }
}

/// Every file has a copy of its own.
#[tokio::test]
async fn a_config_is_damaged_where_none_of_its_copies_reads() {
    for file in ["clip.mp4", "clip.mkv"] {
        let archive = Archive::new();
        let mut pushed = Vec::new();
        for (number, clip) in (1..).zip(["h264_ip.mkv", "h264_ip.mkv", "bbb.mkv"]) {
            archive.file.store(number, Ordering::Relaxed);
            pushed.push(archive.push(Push::new("cam", clip, START.plus_ms(20_000 * i64::from(number)))).await);
        }
        let [start, second, third] = [0, 1, 2].map(|index: usize| pushed[index][0].meta.producer_start);
        let uri = format!("/v1/streams/cam/{file}?start={start}&end={}", third.plus_ms(2_000));
        let whole = archive.get(&uri).await;
        assert_eq!(whole.status, 200);
        archive.source.damage_config(&pushed[0][0]);
        for what in ["found", "at hand", "found before"] {
            let clip = archive.get(&uri).await;
            let same = clip.body == whole.body && clip.header("etag") == whole.header("etag");
            assert!(same, "{file}, {what}: {} {}", clip.status, clip.header("vidar-gaps"));
            if what == "at hand" {
                archive.source.forget_configs();
            }
        }
        // In this range there is no other copy.
        archive.source.forget_configs();
        let alone = archive.get(&format!("/v1/streams/cam/{file}?start={start}&end={second}")).await;
        assert_eq!(alone.status, 404, "{file}");
        archive.source.damage_config(&pushed[1][0]);
        for _ in 0..2 {
            let clip = archive.get(&uri).await;
            assert_eq!((clip.status, clip.header("vidar-gaps")), (200, &*format!("{start}/{third}")), "{file}");
            assert_eq!(archive.get(&format!("{uri}&gaps=error")).await.status, 409);
        }
    }
}

#[tokio::test]
async fn what_is_known_to_be_lost_is_a_gap_with_media_in_it() {
    let archive = Archive::new();
    let entries = archive.push(Push { lossy: Some(4), ..Push::new("cam", "h264_short_gop.mkv", START) }).await;
    let lossy = entries[4].meta;
    let (start, end) = (lossy.producer_start, lossy.producer_end());
    for file in ["clip.mp4", "clip.mkv"] {
        let uri = format!("/v1/streams/cam/{file}");
        let clip = archive.get(&uri).await;
        assert_eq!((clip.status, clip.header("vidar-gaps")), (200, &*format!("{start}/{end};cause=loss")));
        let refused = archive.get(&format!("{uri}?gaps=error")).await;
        let gap = serde_json::json!({ "start": start, "end": end, "cause": "loss" });
        assert_eq!((refused.status, &refused.json()["gaps"]), (409, &serde_json::json!([gap])));
        // Only what is in the range; where in the fragment it is missing is not known.
        let within = archive.get(&format!("{uri}?start={}&end={}", start.plus_ms(20), start.plus_ms(120))).await;
        let gap = format!("{}/{};cause=loss", start.plus_ms(20), start.plus_ms(120));
        assert_eq!(within.header("vidar-gaps"), gap);
        for range in [format!("end={start}"), format!("start={end}")] {
            let whole = archive.get(&format!("{uri}?{range}&gaps=error")).await;
            assert_eq!((whole.status, whole.header("vidar-gaps")), (200, ""), "{range}");
        }
    }
    // Hidden by a newer run, it is missing nowhere.
    archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
    assert_eq!(archive.get("/v1/streams/cam/clip.mp4?gaps=error").await.status, 200);
}

#[tokio::test]
async fn a_fragment_that_lost_parts_is_as_long_as_what_is_left() {
    let (whole, holed) = (Archive::new(), Archive::new());
    let push = Push::new("cam", "h264_short_gop.mkv", START);
    let entries = whole.push(push).await;
    holed.push(Push { holed: Some(5), ..push }).await;
    // Within the clip, and at its edge.
    for query in ["", &format!("?start={}", entries[5].meta.producer_start)] {
        for file in ["clip.mp4", "clip.mkv"] {
            let uri = format!("/v1/streams/cam/{file}{query}");
            let (whole, holed) = (whole.get(&uri).await, holed.get(&uri).await);
            assert_eq!((holed.status, holed.header("content-length")), (200, &*holed.body.len().to_string()), "{uri}");
            assert_eq!(holed.body.len(), whole.body.len(), "{uri}");
        }
    }
}

fn announce(archive: &Archive, entry: &SharedEntry) {
    let durable = Durable {
        number: entry.meta.number,
        producer_start: entry.meta.producer_start,
        duration_ms: entry.meta.duration_ms,
        size_bytes: entry.size_bytes,
    };
    archive.api.hub.publish(entry.meta.stream, LiveEvent::Durable(durable));
}

#[tokio::test]
async fn a_live_clip_follows_the_head_to_its_end() {
    for (file, magic) in [("clip.mp4", &b"moof"[..]), ("clip.mkv", &[0x1f, 0x43, 0xb6, 0x75][..])] {
        let archive = Archive::new();
        let first = archive.push(Push::new("cam", "bbb.mkv", START)).await;
        let end = START.plus_ms(12_000);
        let sent = request(Method::GET, &format!("/v1/streams/cam/{file}?start={START}&end={end}&live=1"), &[]);
        let response = archive.router.clone().oneshot(sent).await.unwrap();
        assert_eq!(response.status(), 200);
        let header = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        assert_eq!(header("cache-control").as_deref(), Some("no-store"));
        assert_eq!(header("accept-ranges").as_deref(), Some("none"));
        assert_eq!((header("content-length"), header("etag")), (None, None));
        let mut body = response.into_body();
        let mut bytes = Vec::new();
        let count = |bytes: &[u8]| bytes.windows(4).filter(|window| *window == magic).count();
        let stored: u64 = first.iter().map(|entry| entry.size_bytes).sum();
        while (bytes.len() as u64) < stored {
            bytes.extend(body.frame().await.unwrap().unwrap().into_data().unwrap());
        }
        assert_eq!(count(&bytes), first.len(), "{file}");
        // The rest comes when it is durable, and the clip ends by itself at its end.
        let second = archive.push(Push::new("cam", "bbb.mkv", START.plus_ms(8_000))).await;
        second.iter().for_each(|entry| announce(&archive, entry));
        while let Some(frame) = body.frame().await {
            bytes.extend(frame.unwrap().into_data().unwrap());
        }
        let within = second.iter().filter(|entry| entry.meta.producer_start < end).count();
        assert_eq!(count(&bytes), first.len() + within, "{file}");
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(file);
        std::fs::write(&path, &bytes).unwrap();
        let output = std::process::Command::new("ffmpeg")
            .args(["-v", "error", "-xerror", "-i"])
            .arg(&path)
            .args(["-f", "null", "-"])
            .output()
            .expect("ffmpeg is installed");
        assert!(output.status.success(), "{file}: {}", String::from_utf8_lossy(&output.stderr));
    }
}
