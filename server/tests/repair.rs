//! One byte of a segment file is damaged: it is found, by a stopped and by a running server, repaired, and everything
//! else is as before. Exports say what they hold.

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{ID, SECRET, Vidar, packets, start_in, start_with};
use serde_json::Value;

/// Runs the binary; exit code, standard output, standard error.
fn vidar(args: &[&str]) -> (Option<i32>, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_vidar"))
        .args(args)
        .env("VIDAR_ACCESS_KEY_ID", ID)
        .env("VIDAR_SECRET_ACCESS_KEY", SECRET)
        .output()
        .expect("vidar runs");
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.code(), text(&output.stdout), text(&output.stderr))
}

fn json(args: &[&str], code: i32) -> Value {
    let (got, stdout, stderr) = vidar(args);
    assert_eq!(got, Some(code), "{args:?}: {stdout}{stderr}");
    serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{args:?}: {error}: {stdout}"))
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

fn segments(dir: &Path) -> Vec<PathBuf> {
    let folder = std::fs::read_dir(dir.join("segments")).expect("a folder");
    folder.map(|entry| entry.expect("an entry").path()).collect()
}

/// Number and hash of every fragment.
fn hashes(server: &Vidar, stream: &str) -> Vec<(String, Option<String>)> {
    let page = server.json(&format!("/v1/streams/{stream}/manifest?limit=100"));
    assert!(page["next_token"].is_null());
    let fragments = page["fragments"].as_array().expect("fragments").iter();
    let text = |value: &Value| value.as_str().map(str::to_owned);
    fragments.map(|f| (text(&f["fragment_number"]).expect("a number"), text(&f["sha256"]))).collect()
}

fn metric(server: &Vidar, name: &str) -> u64 {
    let (_, body) = server.request(&[], "/metrics");
    let body = String::from_utf8(body).expect("UTF-8");
    let line = body.lines().find_map(|line| line.strip_prefix(&format!("{name} ")));
    line.unwrap_or_else(|| panic!("{name} in {body}")).parse().expect("a number")
}

/// Where the media of the fragment record in the middle begins (docs/formats/record.md).
fn media_of_a_fragment(bytes: &[u8]) -> usize {
    let headers = bytes.windows(168).enumerate().step_by(8);
    // Magic, version 1, kind fragment; footers repeat heads, behind all records.
    let fragments: Vec<usize> = headers.filter(|(_, h)| h.starts_with(b"VREC\0\x01\x01")).map(|(at, _)| at).collect();
    let at = fragments[fragments.len() / 4];
    let len = |from: usize| u32::from_be_bytes(bytes[at + from..at + from + 4].try_into().expect("4 bytes")) as usize;
    at + 168 + len(144) + 16 + len(148) + 16
}

/// A stopped directory of two streams, of which one byte is damaged; what the manifests said before.
fn damaged(dir: &Path) -> Vec<(String, Option<String>)> {
    let mut server = start_in(dir, &[]);
    for minute in 0..6 {
        let start = format!("?start=2026-01-01T00:0{minute}:00Z");
        assert_eq!(server.push("cam", &start, &vidar_fixtures::path("h264_short_gop.mkv")).0, 200);
    }
    assert_eq!(server.push("other", "?start=0", &vidar_fixtures::path("audio_aac.mkv")).0, 200);
    let before = hashes(&server, "cam");
    assert!(before.len() >= 6 && before.iter().all(|(_, hash)| hash.is_some()), "{before:?}");
    assert_eq!(server.terminate(), Some(0));
    let [segment] = &segments(dir)[..] else { panic!("one segment file") };
    let report = json(&["verify", "--json", "--data-dir", text(dir)], 0);
    assert_eq!(report["findings_total"], 0);
    let mut bytes = std::fs::read(segment).expect("a file");
    let at = media_of_a_fragment(&bytes);
    bytes[at] ^= 1;
    std::fs::write(segment, bytes).expect("a file");
    before
}

#[test]
fn one_byte_is_found_and_repaired_and_costs_one_fragment() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let dir = own.path().join("data");
    let before = damaged(&dir);
    let [segment] = &segments(&dir)[..] else { panic!("one segment file") };
    let data_dir = ["--json", "--data-dir", text(&dir)];
    let with = |args: &[&'static str]| [args, &data_dir].concat();

    // Stopped.
    for depth in ["checksum", "decrypt"] {
        let report = json(&with(&["verify", "--depth", depth]), 1);
        assert_eq!(report["findings_total"], 1, "{report}");
        let finding = &report["findings"][0];
        assert_eq!((finding["stream"].as_str(), finding["len_bytes"].as_u64() > Some(0)), (Some("cam"), true));
        assert_eq!(finding["file"].as_str(), segment.file_name().and_then(|name| name.to_str()));
    }
    assert_eq!(json(&with(&["verify", "--depth", "presence"]), 0)["findings_total"], 0);
    let lost = json(&with(&["verify"]), 1)["findings"][0]["fragment_number"].as_str().expect("a number").to_owned();

    // Running.
    let mut server = start_in(&dir, &[]);
    let endpoint = format!("http://{}", server.http);
    let report = json(&["verify", "--json", "--endpoint", &endpoint, "--depth", "decrypt"], 1);
    assert_eq!((&report["state"], &report["findings_total"]), (&"done".into(), &1.into()), "{report}");
    assert_eq!(report["findings"][0]["fragment_number"], lost.as_str());
    assert_eq!(metric(&server, "vidar_verify_findings_total"), 1);
    assert_eq!(metric(&server, "vidar_verify_runs_total"), 1);
    assert!(metric(&server, "vidar_verify_bytes_total") > 10_000);
    let now = hashes(&server, "cam");
    assert_eq!(now.iter().filter(|(_, hash)| hash.is_none()).map(|(number, _)| number).collect::<Vec<_>>(), [&lost]);
    assert_eq!(server.terminate(), Some(0));

    // Repaired.
    let damaged_bytes = std::fs::read(segment).expect("a file");
    let dry = json(&with(&["repair", "--dry-run"]), 0);
    assert_eq!((dry["files"][0]["lost"].as_u64(), &dry["files"][0]["replaced_by"]), (Some(1), &Value::Null));
    assert!(segment.exists());
    let done = json(&with(&["repair"]), 0);
    assert_eq!(done["gaps"], dry["gaps"]);
    let name = segment.file_name().expect("a name");
    assert_eq!(std::fs::read(dir.join("quarantine").join(name)).expect("the damaged file"), damaged_bytes);
    assert!(!segment.exists());
    assert_eq!(json(&with(&["verify", "--depth", "decrypt"]), 0)["findings_total"], 0);
    let again = json(&with(&["repair"]), 0);
    assert_eq!((&again["files"], &again["gaps"]), (&Value::Array(vec![]), &Value::Array(vec![])));

    // Everything else is as before, the gap is listed, and an index that is made again says the same.
    let answers = |server: &Vidar| {
        ["/v1/streams", "/v1/streams/cam/fragments", "/v1/streams/cam/timeline", "/v1/streams/other/timeline"]
            .map(|path| server.json(path))
    };
    let mut server = start_in(&dir, &[]);
    let kept: Vec<_> = before.iter().filter(|(number, _)| *number != lost).cloned().collect();
    assert_eq!(hashes(&server, "cam"), kept);
    let said = answers(&server);
    let gaps = said[2]["gaps"].as_array().expect("gaps");
    assert_eq!((gaps.len(), gaps[0]["cause"].as_str()), (1, Some("damage")));
    assert_eq!((&gaps[0]["start"], &gaps[0]["end"]), (&done["gaps"][0]["start"], &done["gaps"][0]["end"]));
    server.until("the gap to be searchable", |v| (v.json("/v1/search?q=gap:true")["total"] == 1).then_some(()));
    common::ffmpeg(&["-xerror", "-i", &server.url("/v1/streams/cam/clip.mkv"), "-f", "null", "-"]);
    // And it goes on.
    assert_eq!(server.push("cam", "?start=2026-01-02T00:00:00Z", &vidar_fixtures::path("bbb.mkv")).0, 200);
    let said = answers(&server);
    assert_eq!(server.terminate(), Some(0));
    json(&with(&["index", "rebuild"]), 0);
    let mut server = start_in(&dir, &[]);
    assert_eq!(answers(&server), said);
    let endpoint = format!("http://{}", server.http);
    assert_eq!(json(&["verify", "--json", "--endpoint", &endpoint], 0)["findings_total"], 0);
    assert_eq!(server.terminate(), Some(0));
}

fn export<'a>(files: &[&'a str], more: &[&'a str]) -> Vec<&'a str> {
    [&["export", "cam"], files, more].concat()
}

#[test]
fn an_export_says_what_is_in_it_and_refuses_damage() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (dir, out) = (own.path().join("data"), own.path().join("out.mp4"));
    let manifest = own.path().join("out.json");
    let before = damaged(&dir);
    let files = ["--out", text(&out), "--manifest", text(&manifest), "--json"];

    let (code, _, stderr) = vidar(&export(&files, &["--data-dir", text(&dir)]));
    assert_eq!(code, Some(1));
    assert!(stderr.contains("damage in the range"), "{stderr}");
    let left: Vec<_> = std::fs::read_dir(own.path()).expect("a folder").map(|e| e.expect("an entry").path()).collect();
    assert!(!left.iter().any(|path| text(path).contains("out.")), "{left:?}");

    // From the directory, then from a server: the same bytes, and those of the clip.
    let offline = json(&export(&files, &["--data-dir", text(&dir), "--skip-damaged"]), 0);
    let bytes = std::fs::read(&out).expect("a file");
    let mut server = start_in(&dir, &[]);
    let endpoint = format!("http://{}", server.http);
    let online = json(&export(&files, &["--endpoint", &endpoint, "--skip-damaged"]), 0);
    assert_eq!(offline, online);
    assert_eq!(std::fs::read(&out).expect("a file"), bytes);
    let listed = online["fragments"].as_array().expect("fragments").iter();
    let listed: Vec<_> = listed.map(|f| (f["fragment_number"].clone(), f["sha256"].clone())).collect();
    let good = before.iter().map(|(number, hash)| (Value::from(number.as_str()), Value::from(hash.clone())));
    let good: Vec<_> = good.filter(|pair| listed.contains(pair)).collect();
    assert_eq!((&good, listed.len()), (&listed, before.len() - 1));
    assert_eq!(online["damaged"].as_array().map(Vec::len), Some(1));
    assert!(online["missing"].is_string(), "{online}");
    assert!(packets(text(&out)).iter().all(|track| !track.is_empty()));

    // A range without damage is the clip.
    let whole =
        json(&["export", "other", "--data-dir", text(&dir), "--json", "--endpoint", &endpoint, "-o", text(&out)], 0);
    let (status, clip) = server.request(&[], "/v1/streams/other/clip.mp4");
    assert_eq!((status, &std::fs::read(&out).expect("a file")), (200, &clip));
    assert_eq!(whole["output"]["size_bytes"], clip.len());
    assert_eq!(server.terminate(), Some(0));

    // A file is checked against its manifest.
    json(&export(&files, &["--data-dir", text(&dir), "--skip-damaged"]), 0);
    let check = ["export", "--check", text(&manifest), text(&out)];
    assert_eq!(vidar(&check).0, Some(0));
    let mut changed = std::fs::read(&out).expect("a file");
    let last = changed.len() - 1;
    changed[last] ^= 1;
    std::fs::write(&out, changed).expect("a file");
    let (code, stdout, _) = vidar(&check);
    assert_eq!((code, stdout.contains("NOT")), (Some(1), true));
}

#[test]
fn retention_can_be_looked_at_before_it_is_set_and_a_cap_holds_for_all() {
    let server = start_with(&[]);
    for stream in ["a", "b"] {
        assert_eq!(server.push(stream, "?start=0", &vidar_fixtures::path("h264_short_gop.mkv")).0, 200);
    }
    let all = server.fragments("a").len() as u64;
    assert_eq!(server.json("/v1/retention/preview")["totals"]["fragments"], 0);
    let preview = server.json("/v1/retention/preview?stream=a&retention_bytes=1");
    assert_eq!(preview["streams"][0]["reason"], "bytes");
    assert_eq!(preview["totals"]["fragments"], all - 1, "the newest stays: {preview}");
    let of_all = "/v1/retention/preview?total_bytes=1";
    assert_eq!(server.json(of_all)["totals"]["fragments"], 2 * all);
    let endpoint = format!("http://{}", server.http);
    let args = ["retention", "--dry-run", "--json", "--endpoint", &endpoint, "--total-bytes", "1"];
    assert_eq!(json(&args, 0), server.json(of_all));
    let args = ["retention", "--dry-run", "--json", "--endpoint", &endpoint, "--stream", "a", "--retention-bytes", "1"];
    assert_eq!(json(&args, 0), preview);
    assert_eq!(server.fragments("a").len() as u64, all, "nothing went");
    for (query, status) in [("?retention_bytes=1", 400), ("?stream=x", 404), ("?stream=a&retention_hours=87601", 400)] {
        assert_eq!(server.request(&[], &format!("/v1/retention/preview{query}")).0, status, "{query}");
    }
    // What was shown is what goes.
    let change = ["-X", "PATCH", "-H", "content-type: application/json", "-d", r#"{"retention_bytes":1}"#];
    assert_eq!(server.request(&change, "/v1/streams/a").0, 200);
    server.until("retention", |v| (v.fragments("a").len() == 1).then_some(()));
    server.until("the count", |v| {
        (metric(v, "vidar_expired_fragments_total{reason=\"bytes\"}") == all - 1).then_some(())
    });
    assert_eq!(metric(&server, "vidar_expired_bytes_total{reason=\"bytes\"}"), preview["totals"]["stored_bytes"]);
    assert_eq!(metric(&server, "vidar_expired_fragments_total{reason=\"total\"}"), 0);
    assert_eq!(server.fragments("b").len() as u64, all);

    let server = start_with(&["--retention-mib", "1"]);
    for (stream, start) in [("a", 0), ("a", 60), ("b", 0), ("b", 60)] {
        let (status, _) = server.push(stream, &format!("?start={start}"), &vidar_fixtures::path("bbb.mkv"));
        assert_eq!(status, 200);
    }
    let held = |v: &Vidar| metric(v, "vidar_stored_bytes");
    server.until("the cap", |v| (held(v) <= 1 << 20).then_some(()));
    assert!(server.fragments("a").len() < server.fragments("b").len(), "the oldest go first");
    server.until("the count", |v| (metric(v, "vidar_expired_fragments_total{reason=\"total\"}") > 0).then_some(()));
}
