//! Streams, listings, and who may see them.

mod support;

use axum::body::Body;
use http::{Method, Request};
use serde_json::{Value, json};
use support::{Archive, Push, START};
use vidar_core::control::{Control, ControlRecord, GapCause, GapRecord, RunRecord};
use vidar_core::entry::SharedEntry;
use vidar_core::hub::{LiveEvent, LiveSink as _};
use vidar_core::ids::{FragmentNumber, RunId};
use vidar_core::log::{LogEvent, LogObserver as _};
use vidar_core::record::WallSource;
use vidar_core::registry::StreamRegistry as _;
use vidar_core::sink::OpenFragment;
use vidar_core::time::UnixMs;

async fn create(archive: &Archive, body: Value) -> support::Answer {
    archive.send(Method::POST, "/v1/streams", &body.to_string()).await
}

#[tokio::test]
async fn a_stream_is_created_shown_changed_and_deleted() {
    let archive = Archive::new();
    let body = json!({"name": "cam-1", "device": "door", "retention_hours": 24, "tags": {"site": "north"}});
    let created = create(&archive, body).await;
    assert_eq!(created.status, 201);
    assert_eq!(created.header("location"), "/v1/streams/cam-1");

    let shown = archive.get("/v1/streams/cam-1").await;
    assert_eq!(shown.status, 200);
    assert_eq!(shown.json(), created.json());
    let stream = shown.json();
    for (member, expected) in [
        ("name", json!("cam-1")),
        ("device", json!("door")),
        ("retention_hours", json!(24)),
        ("retention_bytes", Value::Null),
        ("tags", json!({"site": "north"})),
        ("live", json!(false)),
        ("created", json!("2026-01-01T00:00:00.000Z")),
    ] {
        assert_eq!(stream[member], expected, "{member}");
    }
    assert_eq!(stream["totals"]["fragments"], 0);

    let changed = archive.send(Method::PATCH, "/v1/streams/cam-1", r#"{"retention_bytes": 1000}"#).await;
    assert_eq!(changed.status, 200);
    assert_eq!(changed.json()["retention_bytes"], 1000);
    assert_eq!(changed.json()["device"], "door", "what is not named stays");
    let lifted = archive.send(Method::PATCH, "/v1/streams/cam-1", r#"{"retention_bytes": null}"#).await;
    assert_eq!(lifted.json()["retention_bytes"], Value::Null);

    assert_eq!(archive.send(Method::DELETE, "/v1/streams/cam-1", "").await.status, 204);
    assert_eq!(archive.get("/v1/streams/cam-1").await.status, 404);
    assert_eq!(archive.send(Method::DELETE, "/v1/streams/cam-1", "").await.status, 404);
}

#[tokio::test]
async fn what_is_wrong_is_said_with_its_status() {
    let archive = Archive::new();
    assert_eq!(create(&archive, json!({"name": "cam"})).await.status, 201);
    archive.push(Push::new("full", "h264_ip.mkv", START)).await;
    let long = "x".repeat(257);
    let cases: &[(Method, &str, &str, u16, &str)] = &[
        (Method::POST, "/v1/streams", r#"{"name": "cam"}"#, 409, "exists"),
        (Method::POST, "/v1/streams", r#"{"name": "a/b"}"#, 400, "not a stream name"),
        (Method::POST, "/v1/streams", r#"{"name": ".."}"#, 400, "not a stream name"),
        (Method::POST, "/v1/streams", r#"{"nam": "x"}"#, 400, "nam"),
        (Method::POST, "/v1/streams", "{", 400, "body"),
        (Method::POST, "/v1/streams", r#"{"name": "x", "retention_hours": 87601}"#, 422, "retention_hours"),
        (Method::POST, "/v1/streams", r#"{"name": "x", "retention_hours": -1}"#, 400, "body"),
        (Method::POST, "/v1/streams", r#"{"name": "x", "device": ""}"#, 422, "device"),
        (Method::POST, "/v1/streams", r#"{"name": "x", "tags": {"": "y"}}"#, 422, "tags"),
        (Method::PATCH, "/v1/streams/cam", r#"{"name": "new"}"#, 400, "name"),
        (Method::PATCH, "/v1/streams/none", "{}", 404, "none"),
        (Method::PUT, "/v1/streams/cam", "{}", 405, "method"),
        (Method::POST, "/v1/search", "", 405, "method"),
        (Method::GET, "/v1/streams/none", "", 404, "none"),
        (Method::GET, "/v1/streams/a%2Fb", "", 400, "not a stream name"),
        (Method::GET, "/v1/streams/%2e%2e/fragments", "", 400, "not a stream name"),
        (Method::GET, &format!("/v1/streams/{long}"), "", 400, "not a stream name"),
        (Method::GET, "/v1/streams?limit=0", "", 400, "limit"),
        (Method::GET, "/v1/streams?limit=1001", "", 400, "limit"),
        (Method::GET, "/v1/streams?limit=1&limit=2", "", 400, "twice"),
        (Method::GET, "/v1/streams?next_token=%20", "", 400, "next_token"),
        (Method::GET, "/v1/streams?colour=red", "", 400, "colour"),
        (Method::GET, "/v1/streams/cam/fragments?start=yesterday", "", 400, "start"),
        (Method::GET, "/v1/streams/cam/fragments?start=2026-01-02T00:00:00Z&end=2026-01-01T00:00:00Z", "", 400, "end"),
        (Method::GET, "/v1/streams/cam/fragments?time=moon", "", 400, "time"),
        (Method::GET, "/v1/streams/cam/fragments?next_token=zz", "", 400, "next_token"),
        (Method::GET, "/v1/streams/cam/timeline?time=moon", "", 400, "time"),
        (Method::GET, "/v1/streams/cam/timeline?next_token=AAAAAA", "", 400, "next_token"),
        (Method::GET, "/v1/streams/none/timeline", "", 404, "none"),
        (Method::GET, "/v1/streams/cam/hls/index.m3u8", "", 404, "no media"),
        (Method::GET, "/v1/streams/cam/hls/live.m3u8", "", 404, "no media"),
        (Method::GET, "/v1/streams/full/hls/other.m3u8", "", 404, "no such playlist"),
        (Method::GET, "/v1/streams/full/hls/v2/index.m3u8", "", 404, "v2"),
        (Method::GET, "/v1/streams/full/hls/x1/index.m3u8", "", 404, "no such playlist"),
        (Method::GET, "/v1/streams/full/hls/v1/7.m4s", "", 404, "not stored"),
        (Method::GET, "/v1/streams/full/hls/v1/gap-7.m4s", "", 404, "no such playlist"),
        (Method::GET, "/v1/streams/full/hls/v1/init-00.mp4", "", 404, "config"),
        (Method::GET, "/v1/streams/full/hls/index.m3u8?start=2030-01-01T00:00:00Z", "", 404, "no media"),
        (Method::GET, "/v1/streams/cam/image.jpg", "", 404, "no picture"),
        (Method::GET, "/v1/streams/full/image.jpg?width=0", "", 400, "width"),
        (Method::GET, "/v1/streams/full/image.jpg?at=2020-01-01T00:00:00Z", "", 404, "no picture"),
    ];
    for (method, uri, body, status, detail) in cases {
        let answer = archive.send(method.clone(), uri, body).await;
        assert_eq!(answer.status, *status, "{method} {uri} {body}: {:?}", answer.body);
        assert_eq!(answer.header("content-type"), "application/problem+json", "{method} {uri}");
        let problem = answer.json();
        assert_eq!(problem["status"], *status);
        assert!(problem["detail"].as_str().unwrap().contains(detail), "{method} {uri}: {problem}");
        if *status == 405 {
            assert!(!answer.header("allow").is_empty(), "{method} {uri}: no Allow");
        }
    }
    let huge = format!("{{\"name\": \"{}\"}}", "x".repeat(100_000));
    let answer = archive.send(Method::POST, "/v1/streams", &huge).await;
    assert_eq!((answer.status, answer.header("content-type")), (413, "application/problem+json"));
}

#[tokio::test]
async fn streams_come_in_pages() {
    let archive = Archive::new();
    for name in ["b", "a", "d", "c", "e"] {
        assert_eq!(create(&archive, json!({"name": name})).await.status, 201);
    }
    let (mut names, mut uri) = (Vec::new(), "/v1/streams?limit=2".to_owned());
    for page_len in [2, 2, 1] {
        let page = archive.get(&uri).await.json();
        let streams = page["streams"].as_array().unwrap();
        assert_eq!(streams.len(), page_len);
        names.extend(streams.iter().map(|stream| stream["name"].as_str().unwrap().to_owned()));
        uri = format!("/v1/streams?limit=2&next_token={}", page["next_token"].as_str().unwrap_or("none"));
    }
    assert_eq!(names, ["a", "b", "c", "d", "e"]);
    assert!(uri.ends_with("=none"));
}

#[tokio::test]
async fn fragments_come_in_pages_by_either_clock() {
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
    assert!(entries.len() > 5);
    for time in ["producer", "server"] {
        let (mut numbers, mut token) = (Vec::new(), String::new());
        loop {
            let page = archive.get(&format!("/v1/streams/cam/fragments?limit=3&time={time}{token}")).await.json();
            let fragments = page["fragments"].as_array().unwrap();
            assert!(!fragments.is_empty() && fragments.len() <= 3);
            numbers.extend(fragments.iter().map(|fragment| fragment["fragment_number"].as_str().unwrap().to_owned()));
            let Some(next) = page["next_token"].as_str() else { break };
            token = format!("&next_token={next}");
        }
        let expected: Vec<_> = entries.iter().map(|entry| entry.meta.number.to_string()).collect();
        assert_eq!(numbers, expected, "{time}");
        let other = if time == "producer" { "server" } else { "producer" };
        let answer = archive.get(&format!("/v1/streams/cam/fragments?time={other}{token}")).await;
        assert_eq!((answer.status, &answer.json()["parameter"]), (400, &json!("next_token")));
        assert!(answer.json()["detail"].as_str().unwrap().contains("the other clock"), "{:?}", answer.body);
        let answer = archive.get(&format!("/v1/streams/cam/fragments?time={time}&order=desc{token}")).await;
        assert_eq!((answer.status, &answer.json()["parameter"]), (400, &json!("next_token")));
        assert!(answer.json()["detail"].as_str().unwrap().contains("the other order"), "{:?}", answer.body);
        // Manifests are by the producer's.
        let answer = archive.get(&format!("/v1/streams/cam/manifest?limit=1{token}")).await;
        assert_eq!(answer.status, if time == "producer" { 200 } else { 400 });
    }
    let first = archive.get("/v1/streams/cam/fragments?limit=1").await.json()["fragments"][0].clone();
    assert_eq!(first["producer_time"], "2026-01-01T00:00:00.000Z");
    assert_eq!(first["server_time"], "2026-01-01T00:00:00.005Z");
    assert_eq!(first["codecs"], json!(["h264"]));
    assert_eq!(first["tracks"], json!([{"codec": "h264", "width": 160, "height": 120}]));
    assert_eq!(first["duration_ms"], 200);
    assert_eq!(first["starts_with_sync"], true);
    assert_eq!(first["incomplete"], false);
    assert_eq!(first["wall_clock_source"], "given");
    assert_eq!((&first["wall_source"], &first["wall_offset_ms"]), (&json!("container"), &json!(-7)));
    assert_eq!(first["run"], entries[0].meta.run.to_string());
    assert_eq!(first["size_bytes"], entries[0].size_bytes);

    let newest = archive.get("/v1/streams/cam/fragments?limit=1&order=desc").await.json();
    assert_eq!(newest["fragments"][0]["fragment_number"], entries[entries.len() - 1].meta.number.to_string());
    // Half-open: what ends at the start, and what starts at the end, is not in the range.
    let (start, end) = (entries[2].meta.producer_start, entries[4].meta.producer_start);
    let range = archive.get(&format!("/v1/streams/cam/fragments?start={start}&end={end}")).await.json();
    let numbers: Vec<_> = range["fragments"].as_array().unwrap().iter().map(|f| f["fragment_number"].clone()).collect();
    assert_eq!(numbers, [json!(entries[2].meta.number), json!(entries[3].meta.number)]);
}

/// Every page of a listing, fragment by fragment.
async fn listed(archive: &Archive, query: &str) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = archive.get(&format!("/v1/streams/cam/fragments?{query}{token}")).await.json();
        all.extend(page["fragments"].as_array().unwrap().iter().cloned());
        let Some(next) = page["next_token"].as_str() else { return all };
        token = format!("&next_token={next}");
    }
}

#[tokio::test]
async fn what_overlaps_is_marked_wherever_a_page_ends() {
    let archive = Archive::new();
    // Fragments of 200 ms. The second run begins within the fourth; the third goes on where the second ends.
    let first = archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
    let second = archive.push(Push::new("cam", "h264_short_gop.mkv", START.plus_ms(700))).await;
    let end = second[second.len() - 1].meta.producer_end();
    let third = archive.push(Push::new("cam", "h264_short_gop.mkv", end)).await;
    let end = first[first.len() - 1].meta.producer_end();
    let is_hit = |entry: &&SharedEntry| {
        let (start, stop) = (entry.meta.producer_start, entry.meta.producer_end());
        if entry.meta.run == first[0].meta.run { stop > second[0].meta.producer_start } else { start < end }
    };
    let all: Vec<_> = first.iter().chain(&second).chain(&third).cloned().collect();
    let mut expected: Vec<_> = all.iter().filter(is_hit).map(|entry| entry.meta.number.to_string()).collect();
    expected.sort();
    assert!(expected.len() > 10 && expected.len() < first.len() + second.len());
    for query in ["time=producer", "time=server", "order=desc", "time=server&order=desc"] {
        for limit in [1, 2, 3, 7, 1000] {
            let fragments = listed(&archive, &format!("{query}&limit={limit}")).await;
            assert_eq!(fragments.len(), all.len());
            let marked = fragments.iter().filter(|fragment| fragment["overlapped"] == true);
            let mut marked: Vec<_> = marked.map(|f| f["fragment_number"].as_str().unwrap().to_owned()).collect();
            marked.sort();
            assert_eq!(marked, expected, "{query} {limit}");
        }
    }

    let timeline = archive.get("/v1/streams/cam/timeline?limit=1").await.json();
    assert_eq!(timeline["runs"][0]["overlaps"], json!([second[0].meta.run]));
    let token = timeline["next_token"].as_str().unwrap();
    let timeline = archive.get(&format!("/v1/streams/cam/timeline?limit=2&next_token={token}")).await.json();
    assert_eq!(timeline["runs"][0]["overlaps"], json!([first[0].meta.run]));
    assert_eq!(timeline["runs"][1]["overlaps"], json!([]));
}

#[tokio::test]
async fn a_run_names_few_of_the_runs_that_overlap_it() {
    let archive = Archive::new();
    for _ in 0..34 {
        archive.push(Push::new("cam", "h264_ip.mkv", START)).await;
    }
    let timeline = archive.get("/v1/streams/cam/timeline").await.json();
    for run in timeline["runs"].as_array().unwrap() {
        let overlaps = run["overlaps"].as_array().unwrap();
        assert!(overlaps.len() == 32 && !overlaps.contains(&run["run"]), "{run}");
    }
}

#[tokio::test]
async fn the_timeline_shows_runs_with_totals() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "h264_ip.mkv", START)).await;
    archive.push(Push::new("cam", "h264_ip.mkv", START.plus_ms(60_000))).await;
    let first = archive.get("/v1/streams/cam/timeline?limit=1").await.json();
    assert_eq!(first["runs"].as_array().unwrap().len(), 1);
    assert_eq!(first["runs"][0]["start"], "2026-01-01T00:00:00.000Z");
    assert_eq!(first["runs"][0]["end"], "2026-01-01T00:00:06.000Z");
    assert_eq!(first["runs"][0]["fragments"], 3);
    assert_eq!(first["gaps"], json!([]));
    assert_eq!(first["totals"]["fragments"], 6);
    let token = first["next_token"].as_str().unwrap();
    let second = archive.get(&format!("/v1/streams/cam/timeline?limit=1&next_token={token}")).await.json();
    assert_eq!(second["runs"][0]["start"], "2026-01-01T00:01:00.000Z");
    assert_eq!(second["next_token"], Value::Null);
    let other = archive.get(&format!("/v1/streams/cam/timeline?limit=1&time=server&next_token={token}")).await;
    assert_eq!((other.status, &other.json()["parameter"]), (400, &json!("next_token")));
    assert!(other.json()["detail"].as_str().unwrap().contains("the other clock"), "{:?}", other.body);
    let none = archive.get("/v1/streams/cam/timeline?start=2026-01-01T00:00:10Z&end=2026-01-01T00:00:20Z").await;
    assert_eq!(none.json()["runs"], json!([]));
}

fn observe(archive: &Archive, sequence: u64, body: Control) {
    let number = FragmentNumber::new(1 << 33 | sequence, START.0 as u64, 0);
    archive.index.observe(&LogEvent::Control(std::sync::Arc::new(ControlRecord { number, body })));
}

/// All pages of one thing each: what the entries of a list have as a member.
async fn timeline(archive: &Archive, query: &str, list: &str, member: &str) -> Vec<Value> {
    let (mut all, mut token) = (Vec::new(), String::new());
    loop {
        let page = archive.get(&format!("/v1/streams/cam/timeline?limit=1&{query}{token}")).await;
        assert_eq!(page.status, 200, "{:?}", page.body);
        let page = page.json();
        all.extend(page[list].as_array().unwrap().iter().map(|entry| entry[member].clone()));
        let Some(next) = page["next_token"].as_str() else { return all };
        token = format!("&next_token={next}");
    }
}

#[tokio::test]
async fn the_timeline_goes_by_either_clock() {
    let archive = Archive::new();
    create(&archive, json!({"name": "cam"})).await;
    let stream = archive.registry.list()[0].stream;
    let at = |s: i64| START.plus_ms(s * 1000);
    let [over, open] = [RunId::new(), RunId::new()];
    // The producer's clock knows nothing of the year.
    for (sequence, run, started) in [(1, over, at(0)), (2, open, at(20))] {
        let run = RunRecord {
            stream,
            run,
            started,
            protocol: "rtsp".into(),
            source: String::new(),
            user_agent: String::new(),
            anchor: UnixMs(1000 * sequence as i64),
            anchor_source: WallSource::SenderReport,
            continues: None,
            push: None,
        };
        observe(&archive, sequence, Control::Run(run));
    }
    observe(&archive, 3, Control::RunEnded { stream, run: over, at: at(10), cause: "teardown".into() });
    for (sequence, start, noticed) in [(4, 1, 5), (5, 2, 25), (6, 3, 1)] {
        let (start, noticed) = (UnixMs(start * 1000), at(noticed));
        let (cause, ordinal) = (GapCause::Loss, None);
        let gap =
            GapRecord { stream, run: None, start, end: start.plus_ms(500), noticed, cause, count: sequence, ordinal };
        observe(&archive, sequence, Control::Gap(gap));
    }
    let server = |from: i64, to: i64| format!("time=server&start={}&end={}", at(from), at(to));
    for (query, runs, gaps) in [
        (String::new(), vec![over, open], vec![4, 5, 6]),
        ("time=producer".into(), vec![over, open], vec![4, 5, 6]),
        ("time=server".into(), vec![over, open], vec![6, 4, 5]),
        (server(5, 10), vec![over], vec![4]),
        (server(9, 21), vec![over, open], vec![]),
        (server(10, 20), vec![], vec![]),
        (server(1000, 2000), vec![open], vec![]),
        (format!("time=server&start={}", at(5)), vec![over, open], vec![4, 5]),
        ("time=producer&start=1.2&end=2.1".into(), vec![open], vec![4, 5]),
        ("time=server&start=1.2&end=2.1".into(), vec![], vec![]),
    ] {
        assert_eq!(json!(timeline(&archive, &query, "runs", "run").await), json!(runs), "{query}");
        assert_eq!(json!(timeline(&archive, &query, "gaps", "count").await), json!(gaps), "{query}");
    }
}

#[tokio::test]
async fn a_stream_with_a_publisher_is_live() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "h264_ip.mkv", START)).await;
    let (stream, run) = (archive.registry.list()[0].stream, RunId::new());
    let fragment = OpenFragment { number: FragmentNumber::MAX, ordinal: 9, discontinuity: 0 };
    let config = std::sync::Arc::default();
    let opened =
        LiveEvent::Opened { fragment, run, config, producer_start: START, is_anchored: true, starts_with_sync: true };
    archive.api.hub.publish(stream, opened);
    assert_eq!(archive.get("/v1/streams").await.json()["streams"][0]["live"], true);
    archive.api.hub.publish(stream, LiveEvent::Ended(run));
    assert_eq!(archive.get("/v1/streams/cam").await.json()["live"], false);
}

#[tokio::test]
async fn nobody_comes_in_without_credentials() {
    let archive = Archive::new();
    create(&archive, json!({"name": "cam"})).await;
    let basic = |pair: &str| format!("Basic {}", base64::Engine::encode(&base64::prelude::BASE64_STANDARD, pair));
    let cases = [
        (None, 401),
        (Some(basic("root:secret")), 200),
        (Some(basic("root:wrong")), 401),
        (Some(basic("other:secret")), 401),
        (Some("Basic !!!".into()), 401),
        (Some("Basic".into()), 401),
        (Some("bearer root:secret".into()), 200),
        (Some("Bearer root:secrets".into()), 401),
        (Some("Digest username=\"root\"".into()), 401),
    ];
    for (authorization, status) in cases {
        for uri in ["/v1/streams/cam", "/v1/streams", "/v1/search", "/v1/streams/none", "/v1/streams/%2f"] {
            let mut request = Request::builder().uri(uri);
            if let Some(authorization) = &authorization {
                request = request.header("authorization", authorization);
            }
            let answer = archive.send_raw(request.body(Body::empty()).unwrap()).await;
            assert_eq!(answer.status == 401, status == 401, "{authorization:?} {uri}: {}", answer.status);
            if status == 401 {
                assert_eq!(answer.header("www-authenticate"), "Basic realm=\"vidar\", charset=\"UTF-8\"");
                assert_eq!(answer.header("access-control-allow-origin"), "*");
            }
        }
    }
}

#[tokio::test]
async fn the_body_of_an_unknown_caller_is_not_polled() {
    let archive = Archive::new();
    let body =
        Body::from_stream(futures::stream::poll_fn(|_| -> std::task::Poll<Option<Result<bytes::Bytes, String>>> {
            panic!("the body was polled")
        }));
    let answer = archive.send_raw(Request::post("/v1/streams").body(body).unwrap()).await;
    assert_eq!(answer.status, 401);
}

#[tokio::test]
async fn a_signed_url_opens_its_prefix_for_reading_until_it_expires() {
    let archive = Archive::new();
    for name in ["a", "ab"] {
        create(&archive, json!({"name": name})).await;
    }
    let body = r#"{"path_prefix": "/v1/streams/a", "expires_s": 60}"#;
    let signed = archive.send(Method::POST, "/v1/sign", body).await;
    assert_eq!(signed.status, 200);
    let signed = signed.json();
    assert_eq!(signed["expires"], "2026-01-01T01:01:00.000Z");
    let suffix = signed["url_suffix"].as_str().unwrap();
    let raw = |method: Method, uri: String| {
        let request = Request::builder().method(method).uri(uri).body(Body::from("{}")).unwrap();
        archive.send_raw(request)
    };
    assert_eq!(raw(Method::GET, format!("/v1/streams/a{suffix}")).await.status, 200);
    assert_eq!(raw(Method::HEAD, format!("/v1/streams/a{suffix}")).await.status, 200);
    assert_eq!(raw(Method::GET, format!("/v1/streams/a/fragments{suffix}&limit=1")).await.status, 200);
    for (method, uri) in [
        (Method::GET, format!("/v1/streams/ab{suffix}")),
        (Method::GET, format!("/v1/streams{suffix}")),
        (Method::GET, format!("/v1/search{suffix}")),
        (Method::GET, format!("/v1/streams/%61b{suffix}")),
        (Method::GET, format!("/v1/streams/a{suffix}x")),
        (Method::GET, format!("/v1/streams/a{suffix}&token=x")),
        (Method::PATCH, format!("/v1/streams/a{suffix}")),
        (Method::DELETE, format!("/v1/streams/a{suffix}")),
        (Method::POST, format!("/v1/sign{suffix}")),
    ] {
        assert_eq!(raw(method.clone(), uri.clone()).await.status, 401, "{method} {uri}");
    }
    archive.clock.advance(std::time::Duration::from_secs(60));
    assert_eq!(raw(Method::GET, format!("/v1/streams/a{suffix}")).await.status, 401, "expired");

    for (body, status) in [
        (r#"{"path_prefix": "/v1/streams/a", "expires_s": 0}"#, 422),
        (r#"{"path_prefix": "/v1/streams/a", "expires_s": 604801}"#, 422),
        (r#"{"path_prefix": "/v1", "expires_s": 60}"#, 422),
        (r#"{"path_prefix": "/v1/streams/a/../b", "expires_s": 60}"#, 422),
        (r#"{"path_prefix": "/v1/streams/..", "expires_s": 60}"#, 400),
        (r#"{"path_prefix": "/v1/streams/a"}"#, 400),
        (r#"{"path_prefix": "/v1/streams/a", "expires_s": 60, "method": "PUT"}"#, 400),
    ] {
        assert_eq!(archive.send(Method::POST, "/v1/sign", body).await.status, status, "{body}");
    }
}

#[tokio::test]
async fn browsers_may_ask_from_anywhere() {
    let archive = Archive::new();
    let preflight = Request::builder().method(Method::OPTIONS).uri("/v1/streams").body(Body::empty()).unwrap();
    let answer = archive.send_raw(preflight).await;
    assert_eq!(answer.status, 204);
    assert_eq!(answer.header("access-control-allow-origin"), "*");
    assert_eq!(answer.header("access-control-allow-methods"), "GET, HEAD");
    assert!(answer.header("access-control-allow-headers").contains("Range"));
    let answer = archive.send(Method::POST, "/v1/streams", r#"{"name": "x"}"#).await;
    assert_eq!(answer.header("access-control-allow-origin"), "", "pages may only read");
}

#[tokio::test]
async fn a_search_answers_in_pages_and_says_where_a_query_is_wrong() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
    let index = archive.index.clone();
    tokio::task::spawn_blocking(move || index.search().settle()).await.unwrap();
    let (mut found, mut token) = (0, String::new());
    loop {
        let page = archive.get(&format!("/v1/search?q=stream:cam%20AND%20kind:fragment&limit=4{token}")).await;
        assert_eq!(page.status, 200, "{:?}", page.body);
        let page = page.json();
        assert_eq!(page["total"], 10);
        assert!(page["indexed_watermark"].is_string());
        for result in page["results"].as_array().unwrap() {
            assert_eq!(result["stream"], "cam");
            assert_eq!(result["kind"], "fragment");
            assert!(result.get("gap").is_none());
            found += 1;
        }
        let Some(next) = page["next_token"].as_str() else { break };
        token = format!("&next_token={next}");
    }
    assert_eq!(found, 10);
    let wrong = archive.get("/v1/search?q=stream:cam%20AND%20(").await;
    assert_eq!(wrong.status, 400);
    assert!(wrong.json()["position"].is_u64(), "{:?}", wrong.json());
    assert_eq!(archive.get("/v1/search?sort=colour").await.status, 400);
    assert_eq!(archive.get("/v1/search?next_token=%2f").await.status, 400);
}

/// An archive whose search is complete.
async fn searchable() -> Archive {
    let archive = Archive::new();
    archive.push(Push::new("cam", "h264_short_gop.mkv", START)).await;
    let index = archive.index.clone();
    tokio::task::spawn_blocking(move || index.search().settle()).await.unwrap();
    archive
}

#[tokio::test]
async fn results_come_as_rows_of_the_same_as_in_pages() {
    let archive = searchable().await;
    let all = archive.get("/v1/search?q=cam&sort=time&limit=1000").await.json();
    let all = all["results"].as_array().unwrap();
    let rows = archive.get("/v1/search?q=cam&sort=time&format=ndjson").await;
    assert_eq!((rows.status, rows.header("content-type")), (200, "application/x-ndjson"));
    let rows = String::from_utf8(rows.body.to_vec()).unwrap();
    let rows: Vec<Value> = rows.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(&rows, all);
    let csv = archive.get("/v1/search?q=cam&sort=time&format=csv&limit=3").await;
    assert_eq!((csv.status, csv.header("content-disposition")), (200, "attachment; filename=\"search.csv\""));
    let csv = String::from_utf8(csv.body.to_vec()).unwrap();
    let lines: Vec<Vec<&str>> = csv.split_terminator("\r\n").map(|line| line.split(',').collect()).collect();
    assert_eq!(lines.len(), 4, "{csv}");
    for (row, result) in lines[1..].iter().zip(all) {
        assert_eq!(row.len(), lines[0].len(), "{csv}");
        for (column, value) in lines[0].iter().zip(row) {
            let expected = match &result[*column] {
                Value::Null => String::new(),
                Value::String(text) => text.clone(),
                Value::Array(tags) if *column == "tags" => {
                    let text =
                        |tag: &Value| format!("{}={}", tag["name"].as_str().unwrap(), tag["value"].as_str().unwrap());
                    tags.iter().map(text).collect::<Vec<_>>().join(";")
                }
                Value::Array(items) => items.iter().filter_map(|item| item.as_str()).collect::<Vec<_>>().join(" "),
                other => other.as_f64().map_or_else(String::new, |number| number.to_string()),
            };
            assert_eq!(**value, expected, "{column}");
        }
    }
    assert_eq!(archive.get("/v1/search?q=(&format=csv").await.status, 400);
    assert_eq!(archive.get("/v1/search?format=xml").await.status, 400);
}

#[tokio::test]
async fn rows_go_on_over_all_pages() {
    let archive = Archive::new();
    create(&archive, json!({"name": "cam"})).await;
    let stream = archive.registry.get(&"cam".parse().unwrap()).unwrap().stream;
    for count in 0..2500 {
        let (start, cause) = (START.plus_ms(count * 1000), GapCause::Loss);
        let noticed = start;
        let end = start.plus_ms(500);
        let gap = GapRecord { stream, run: None, start, end, noticed, cause, count: 1, ordinal: None };
        observe(&archive, 100 + count as u64, Control::Gap(gap));
    }
    let index = archive.index.clone();
    tokio::task::spawn_blocking(move || index.search().settle()).await.unwrap();
    let rows = async |query: &str| {
        let answer = archive.get(&format!("/v1/search?q=kind:gap&sort=time&format=ndjson{query}")).await;
        let text = String::from_utf8(answer.body.to_vec()).unwrap();
        let time = |line: &str| serde_json::from_str::<Value>(line).unwrap()["producer_time"].clone();
        text.lines().map(time).collect::<Vec<_>>()
    };
    let all: Vec<Value> = (0..2500).map(|count| json!(START.plus_ms(count * 1000))).collect();
    assert_eq!(rows("").await, all);
    assert_eq!(rows("&limit=1500").await, all[..1500]);
    assert_eq!(rows("&limit=1000").await, all[..1000]);
}

#[tokio::test]
async fn results_are_counted_in_groups() {
    let archive = searchable().await;
    let found = archive.get("/v1/search/aggregate?q=kind:fragment&by=time&interval=2s").await;
    assert_eq!(found.status, 200, "{:?}", found.body);
    let found = found.json();
    let groups = found["groups"].as_array().unwrap();
    assert_eq!((found["interval_ms"].as_u64(), found["total"]["count"].as_u64()), (Some(2000), Some(10)));
    assert_eq!(found["group_count"], groups.len());
    assert_eq!(groups[0]["key"], START.to_string());
    assert_eq!(groups.iter().map(|group| group["count"].as_u64().unwrap()).sum::<u64>(), 10);
    let listed = archive.get("/v1/streams/cam/fragments").await.json();
    let bytes =
        |list: &Value| -> u64 { list.as_array().unwrap().iter().map(|one| one["size_bytes"].as_u64().unwrap()).sum() };
    assert_eq!(found["total"]["size_bytes"], bytes(&listed["fragments"]));
    let by_codec = archive.get("/v1/search/aggregate?by=codec").await.json();
    assert_eq!(by_codec["groups"][0]["key"], "h264");
    assert!(by_codec["groups"][0]["bitrate"]["p50"].as_u64() > Some(0), "{by_codec}");
    let one = archive.get("/v1/search/aggregate?q=stream:cam").await.json();
    assert_eq!((one["groups"].as_array().map(Vec::len), &one["interval_ms"]), (Some(0), &Value::Null));
    for (query, parameter) in [
        ("by=colour", "by"),
        ("by=time&interval=5", "interval"),
        ("by=time&interval=0s", "interval"),
        ("by=stream&interval=5s", "interval"),
        ("by=stream&sort=fps", "sort"),
        ("limit=1001", "limit"),
        ("next_token=x", "next_token"),
    ] {
        let wrong = archive.get(&format!("/v1/search/aggregate?{query}")).await;
        assert_eq!((wrong.status, wrong.json()["parameter"].as_str()), (400, Some(parameter)), "{query}");
    }
}
