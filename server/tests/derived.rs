//! Derived state: deleted and made again from the segment files alone, every answer is as before.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Vidar, start_in};
use serde_json::{Value, json};

const TS_PACKET_LEN: usize = 188;

/// Every answer that depends on catalog, timeline or search.
fn answers(vidar: &Vidar, streams: &[&str]) -> Vec<(String, Value)> {
    let mut paths = vec!["/v1/streams".to_owned()];
    for stream in streams {
        for path in ["", "/fragments?limit=1000", "/fragments?limit=1000&time=server", "/timeline?limit=1000"] {
            paths.push(format!("/v1/streams/{stream}{path}"));
        }
    }
    for q in [
        "*",
        "codec:h264",
        "codec:av1+OR+codec:aac",
        "duration_ms:%3E1000",
        "protocol:http",
        "gap:true",
        "tags.ENCODER:Lavf*",
    ] {
        paths.push(format!("/v1/search?limit=1000&q={q}"));
    }
    let mut answers: Vec<(String, Value)> = Vec::new();
    for stream in streams {
        for playlist in
            ["", "v1/", "a1/"].iter().flat_map(|of| ["index", "live"].map(|name| format!("{of}{name}.m3u8")))
        {
            let path = format!("/v1/streams/{stream}/hls/{playlist}");
            let (status, body) = vidar.request(&[], &path);
            answers.push((path, json!([status, String::from_utf8(body).expect("UTF-8")])));
        }
        for clip in ["clip.mp4", "clip.mkv"] {
            let path = format!("/v1/streams/{stream}/{clip}?start=1970-01-01T00:00:00Z&end=2100-01-01T00:00:00Z");
            let (_, head) = vidar.request(&["-I"], &path);
            let head = String::from_utf8(head).expect("UTF-8").to_ascii_lowercase();
            let told = ["http/", "etag:", "content-length:"];
            let lines = head.lines().filter(|line| told.iter().any(|name| line.starts_with(name)));
            answers.push((path, lines.collect()));
        }
    }
    let answer = |path: String| {
        let (status, body) = vidar.request(&[], &path);
        let mut value: Value = serde_json::from_slice(&body).unwrap_or_else(|e| panic!("{path}: {e}"));
        value["asked_status"] = status.into();
        // How far search has come is no part of an answer.
        value["indexed_watermark"].take();
        (path, value)
    };
    answers.extend(paths.into_iter().map(answer));
    answers
}

/// A recording that lost a fifth of its packets on the way.
fn lossy(dir: &Path) -> PathBuf {
    let whole = std::fs::read(vidar_fixtures::path("bbb.ts")).expect("a clip");
    let count = whole.len() / TS_PACKET_LEN;
    let (start, end) = (count * 2 / 5 * TS_PACKET_LEN, count * 3 / 5 * TS_PACKET_LEN);
    let path = dir.join("lossy.ts");
    std::fs::write(&path, [&whole[..start], &whole[end..]].concat()).expect("a file");
    path
}

/// Leaves nothing but segment files and the keys that open them.
fn keep_the_log_alone(dir: &Path) {
    for entry in std::fs::read_dir(dir).expect("a folder") {
        let path = entry.expect("an entry").path();
        let name = path.file_name().and_then(|name| name.to_str()).expect("a name");
        if name == "segments" || name.starts_with("keyring.") {
            continue;
        }
        let removed = if path.is_dir() { std::fs::remove_dir_all(&path) } else { std::fs::remove_file(&path) };
        removed.expect("it can be removed");
    }
}

/// Search is complete when it says so.
fn searchable(vidar: &Vidar, fragments: usize) {
    vidar.until("the search to be complete", |v| {
        let answer = v.json("/v1/search?limit=1000&q=kind:fragment");
        (answer["total"].as_u64()? as usize == fragments).then_some(())
    });
}

fn vidar(args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let output =
        Command::new(env!("CARGO_BIN_EXE_vidar")).args(args).arg("--data-dir").arg(dir).output().expect("vidar runs");
    let text = String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr);
    (output.status.code(), text)
}

#[test]
fn the_index_is_made_again_from_the_segment_files_alone() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut server = start_in(&dir, &[]);
    let body = |text: &'static str| ["-H", "content-type: application/json", "-d", text];
    for (stream, clip) in
        [("a", "bbb.mkv"), ("b", "av1_opus.mkv"), ("c", "h265_open_gop.mkv"), ("gone", "audio_aac.mkv")]
    {
        let (status, lines) = server.push(stream, "?start=2026-01-01T00:00:00Z", &vidar_fixtures::path(clip));
        assert_eq!(status, 200, "{lines:?}");
    }
    assert_eq!(server.push("lossy", "?start=2026-01-01T00:00:00Z", &lossy(own.path())).0, 200);
    let gaps = server.json("/v1/streams/lossy/timeline")["gaps"].take();
    assert_eq!(gaps[0]["cause"], "loss", "{gaps}");
    // Overlaps in producer time, changed settings, a deleted stream and its name again, an expired beginning.
    assert_eq!(server.push("a", "?start=2026-01-01T00:00:03Z", &vidar_fixtures::path("bbb.ts")).0, 200);
    let marked = |fragment: &&Value| fragment["overlapped"] == true;
    let fragments = server.fragments("a");
    let count = fragments.iter().filter(marked).count();
    assert!(count > 1 && count < fragments.len(), "{fragments:?}");
    let runs = server.json("/v1/streams/a/timeline")["runs"].take();
    assert_eq!(runs[0]["overlaps"], serde_json::json!([runs[1]["run"]]));
    assert_eq!(runs[1]["overlaps"], serde_json::json!([runs[0]["run"]]));
    assert!(server.fragments("b").iter().all(|fragment| fragment["overlapped"] == false));
    let change = [&["-X", "PATCH"][..], &body(r#"{"retention_hours":48,"device":"door"}"#)].concat();
    assert_eq!(server.request(&change, "/v1/streams/b").0, 200);
    assert_eq!(server.request(&["-X", "DELETE"], "/v1/streams/gone").0, 204);
    assert_eq!(server.push("gone", "?start=0", &vidar_fixtures::path("audio_opus.mkv")).0, 200);
    let before = server.fragments("c").len();
    let change = [&["-X", "PATCH"][..], &body(r#"{"retention_bytes":60000}"#)].concat();
    assert_eq!(server.request(&change, "/v1/streams/c").0, 200);
    server.until("retention", |v| (v.fragments("c").len() < before).then_some(()));

    let streams = ["a", "b", "c", "gone", "lossy"];
    let count = streams.iter().map(|stream| server.fragments(stream).len()).sum();
    searchable(&server, count);
    let expected = answers(&server, &streams);
    let has = |text: &str| expected.iter().filter(|(_, answer)| answer.to_string().contains(text)).count();
    assert!(has("etag:") >= 5 && has("#EXT-X-ENDLIST") >= 5 && has("#EXT-X-MEDIA-SEQUENCE") >= 5, "{expected:?}");
    assert_eq!(server.terminate(), Some(0));

    // Started again, and then with all that is derived gone.
    for round in ["as it is", "rebuilt", "index deleted", "all but the log deleted"] {
        match round {
            "rebuilt" => {
                let (code, text) = vidar(&["index", "rebuild", "--json"], &dir);
                assert_eq!(code, Some(0), "{text}");
                assert!(text.contains(&format!("\"fragments\":{count}")), "{text}");
            }
            "index deleted" => std::fs::remove_dir_all(dir.join("index")).expect("an index"),
            "all but the log deleted" => keep_the_log_alone(&dir),
            _ => {}
        }
        let mut server = start_in(&dir, &[]);
        searchable(&server, count);
        server.until("search to say so", |v| (v.json("/readyz")["search"]["status"] == "ok").then_some(()));
        let (_, metrics) = server.request(&[], "/metrics");
        let metrics = String::from_utf8(metrics).expect("UTF-8");
        assert!(metrics.lines().any(|line| line == "vidar_search_catching_up 0"), "{metrics}");
        // Search may lag by seconds: the answers have to become what they were.
        let mut got = answers(&server, &streams);
        let patience = std::time::Instant::now() + common::PATIENCE;
        while got != expected && std::time::Instant::now() < patience {
            got = answers(&server, &streams);
        }
        for ((path, expected), (_, got)) in expected.iter().zip(got) {
            assert_eq!(expected, &got, "{round}: {path}");
        }
        assert_eq!(server.terminate(), Some(0));
    }
    let (code, text) = vidar(&["verify", "--depth", "decrypt"], &dir);
    assert_eq!(code, Some(0), "{text}");
}

#[test]
fn nothing_on_disk_is_in_clear_and_damage_is_found_and_never_played() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut server = start_in(&dir, &[]);
    let name = "a-name-that-is-easy-to-find";
    let clip = vidar_fixtures::path("bbb.mkv");
    assert_eq!(server.push(name, "?start=0", &clip).0, 200);
    searchable(&server, server.fragments(name).len());
    assert_eq!(server.terminate(), Some(0));

    let clear = std::fs::read(&clip).expect("a clip");
    let needles = [name.as_bytes(), b"Lavf59", b"h264", &clear[clear.len() / 2..clear.len() / 2 + 32]];
    let mut segment = None;
    let mut folders = vec![dir.clone()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).expect("a folder") {
            let path = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let bytes = std::fs::read(&path).expect("a file");
            for needle in needles {
                let found = bytes.windows(needle.len()).any(|window| window == needle);
                assert!(!found, "{:?} in {}", String::from_utf8_lossy(needle), path.display());
            }
            if path.extension().is_some_and(|ext| ext == "vseg") {
                segment = Some(path);
            }
        }
    }
    // One bit of the media.
    let segment = segment.expect("a segment file");
    let mut bytes = std::fs::read(&segment).expect("a file");
    let at = bytes.len() / 2;
    bytes[at] ^= 1;
    std::fs::write(&segment, bytes).expect("a file");
    let (code, text) = vidar(&["verify", "--depth", "decrypt"], &dir);
    assert_eq!(code, Some(1), "{text}");
    let server = start_in(&dir, &[]);
    let mut bad = 0;
    for fragment in server.fragments(name) {
        let start = fragment["producer_time"].as_str().expect("a time");
        let path = format!("/v1/streams/{name}/clip.mp4?start={start}&end=1970-01-01T00:00:59Z");
        let output = server.curl(&["-f"], &path);
        bad += usize::from(!output.status.success());
    }
    assert!(bad > 0, "a damaged fragment was played");
    let gaps = |server: &Vidar| {
        let (status, text) = server.request(&[], &format!("/v1/streams/{name}/hls/v1/index.m3u8"));
        assert_eq!(status, 200);
        String::from_utf8(text).expect("UTF-8").matches("#EXT-X-GAP").count()
    };
    assert_eq!(gaps(&server), 1, "the read told");
    assert_eq!(server.request(&[], &format!("/v1/streams/{name}/clip.mp4?gaps=error")).0, 409);
    drop(server);

    // Nothing was read, until a verification looks.
    let server = start_in(&dir, &[]);
    assert_eq!(gaps(&server), 0);
    assert_eq!(server.request(&["-X", "POST"], "/v1/verify?depth=decrypt").0, 202);
    server.until("the verification", |v| (v.json("/v1/verify")["state"] == "done").then_some(()));
    assert_eq!(gaps(&server), 1, "the verification told");
}

#[test]
fn a_stop_keeps_what_is_open_as_incomplete() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let mut server = start_in(&dir, &[]);
    let clip = vidar_fixtures::path("h264_long_gop.mkv");
    let clip = clip.to_str().expect("a UTF-8 path");
    let url = server.url("/v1/streams/cam/media");
    let _push = common::Pusher::ffmpeg(&[
        "-re",
        "-i",
        clip,
        "-c",
        "copy",
        "-f",
        "matroska",
        "-flush_packets",
        "1",
        "-method",
        "PUT",
        &url,
    ]);
    server.until("a push", |v| (!v.json("/v1/pushes")["pushes"].as_array()?.is_empty()).then_some(()));
    // Its first part is sealed after 2 s.
    server.until("a part", |v| {
        let (_, body) = v.request(&[], "/metrics");
        let text = String::from_utf8(body).ok()?;
        let records = text.lines().find_map(|line| line.strip_prefix("vidar_records_total "))?;
        (records.parse::<u64>().ok()? >= 5).then_some(())
    });
    assert_eq!(server.terminate(), Some(0));
    let server = start_in(&dir, &[]);
    let fragments = server.fragments("cam");
    assert_eq!(fragments.len(), 1, "{fragments:?}");
    assert_eq!(fragments[0]["incomplete"], true);
    let clip = server.url("/v1/streams/cam/clip.mp4?start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z");
    assert!(common::decoded(&clip, "v").len() >= 10);
}
