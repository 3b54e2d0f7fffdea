//! Keys of a real data directory: rotated, destroyed, away for a while, and used by code that knows only the format pages.

mod common;

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Vidar, ffmpeg, start_in};
use serde_json::Value;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

fn keys_with(input: &str, args: &[&str], dir: &Path) -> (Option<i32>, String) {
    let mut child = Command::new(env!("CARGO_BIN_EXE_vidar"))
        .args(["keys", "--json"])
        .args(args)
        .arg("--data-dir")
        .arg(dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("vidar runs");
    // It may end without reading.
    let _ = child.stdin.take().expect("piped").write_all(input.as_bytes());
    let output = child.wait_with_output().expect("it ends");
    (
        output.status.code(),
        String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr),
    )
}

fn keys(args: &[&str], dir: &Path) -> String {
    let (code, text) = keys_with("", args, dir);
    assert_eq!(code, Some(0), "{args:?}: {text}");
    text
}

/// Version and state of the keys of a stream.
fn versions(list: &Value, stream: &str) -> Vec<(u64, String)> {
    let keys = list["keys"].as_array().expect("keys").iter().filter(|key| key["stream"] == stream);
    keys.map(|key| {
        assert!(key["created"].is_string() && key["purpose"] == "stream", "{key}");
        (key["version"].as_u64().expect("a number"), key["state"].as_str().expect("a word").to_owned())
    })
    .collect()
}

fn old_and_current() -> Vec<(u64, String)> {
    vec![(1, "old".to_owned()), (2, "current".to_owned())]
}

fn push(server: &Vidar, stream: &str, start: &str) {
    let (status, lines) = server.push(stream, &format!("?start={start}"), &vidar_fixtures::path("bbb.mkv"));
    assert_eq!(status, 200, "{lines:?}");
}

/// Hashes of the decoded frames of one kind.
fn frames(path: &str, kind: &str) -> Vec<String> {
    let text = ffmpeg(&["-i", path, "-map", &format!("0:{kind}"), "-f", "framemd5", "-"]);
    let text = String::from_utf8(text).expect("UTF-8");
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| Some(line.rsplit_once(' ')?.1.to_owned())).collect()
}

fn clip(server: &Vidar, stream: &str) -> usize {
    let url = server.url(&format!("/v1/streams/{stream}/clip.mp4?start=2020-01-01T00:00:00Z&end=2030-01-01T00:00:00Z"));
    frames(&url, "v").len()
}

fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { files(&path, found) } else { found.push(path) }
    }
}

fn nothing_in_clear(dir: &Path, needles: &[&[u8]]) {
    let mut found = Vec::new();
    files(dir, &mut found);
    assert!(found.len() > 5, "{found:?}");
    for path in found {
        let bytes = std::fs::read(&path).unwrap_or_default();
        for needle in needles {
            let clear = bytes.windows(needle.len()).any(|window| window == *needle);
            assert!(!clear, "{:?} in {}", String::from_utf8_lossy(needle), path.display());
        }
    }
}

#[test]
fn keys_are_rotated_and_destroyed_and_nothing_shows_in_clear() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (dir, key_file) = (own.path().join("data"), own.path().join("data.key"));
    let mut server = start_in(&dir, &[]);
    let (kept, gone, tag) = ("planted-name-that-stays", "planted-name-that-goes", "planted-value-of-a-tag");
    for stream in [kept, gone] {
        let body = format!(r#"{{"name":"{stream}","tags":{{"place":"{tag}"}}}}"#);
        assert_eq!(server.request(&["-H", "content-type: application/json", "-d", &body], "/v1/streams").0, 201);
        push(&server, stream, "2026-01-01T00:00:00Z");
    }
    let whole = clip(&server, kept);
    let list = server.json("/v1/keys");
    assert_eq!(versions(&list, kept), [(1, "current".to_owned())]);
    let page = server.json("/v1/keys?limit=1");
    assert_eq!(page["keys"].as_array().map(Vec::len), Some(1));
    let next = format!("/v1/keys?limit=1&next_token={}", page["next_token"].as_str().expect("more"));
    assert_ne!(server.json(&next)["keys"], page["keys"]);

    // Online.
    let before = std::fs::read(&key_file).expect("a key file");
    let rotate = |body: &str| server.request(&["-H", "content-type: application/json", "-d", body], "/v1/keys/rotate");
    assert_eq!(rotate(r#"{"kek":true}"#).0, 200);
    assert_eq!(rotate(&format!(r#"{{"stream":"{kept}"}}"#)).0, 200);
    assert_eq!(rotate(r#"{"stream":"no-such-stream"}"#).0, 404);
    assert_eq!(rotate(r#"{"kek":true,"all_streams":true}"#).0, 422);
    assert_ne!(std::fs::read(&key_file).expect("a key file"), before);
    push(&server, kept, "2026-01-02T00:00:00Z");
    assert_eq!(clip(&server, kept), 2 * whole);
    assert_eq!(versions(&server.json("/v1/keys"), kept), old_and_current());
    server.until("the search", |v| (v.json("/v1/search?q=kind:fragment")["total"].as_u64()? > 4).then_some(()));
    assert_eq!(server.terminate(), Some(0));

    // On the stopped directory.
    let current = std::fs::read(&key_file).expect("a key file");
    std::fs::write(&key_file, &before).expect("written");
    assert!(keys_with("", &["list"], &dir).1.contains("does not open the keyring"));
    std::fs::write(&key_file, current).expect("written");
    let listed = keys(&["list"], &dir);
    assert_eq!(versions(&serde_json::from_str(&listed).expect("JSON"), kept), old_and_current());
    keys(&["rotate", "--all-streams"], &dir);
    let moved = own.path().join("moved.key");
    keys(&["rotate", "--kek", "--new-key-file", moved.to_str().expect("UTF-8")], &dir);
    assert!(keys_with("", &["list"], &dir).1.contains("does not open the keyring"));
    let flag = ["--key-file", moved.to_str().expect("UTF-8")];
    let (code, text) = keys_with("another name\n", &["destroy", gone, flag[0], flag[1]], &dir);
    assert!(code != Some(0) && text.contains("nothing was done"), "{text}");
    let (code, text) = keys_with(&format!("{gone}\n"), &["destroy", gone, flag[0], flag[1]], &dir);
    assert_eq!(code, Some(0), "{text}");

    let mut server = start_in(&dir, &flag);
    assert_eq!(server.request(&[], &format!("/v1/streams/{gone}")).0, 404);
    server.until("the search to forget", |v| {
        let left = v.json("/v1/search?limit=1000&q=*");
        let streams = left["results"].as_array()?.iter().filter(|r| r["stream"] == gone).count();
        (streams == 0 && left["total"].as_u64()? > 4).then_some(())
    });
    assert_eq!(clip(&server, kept), 2 * whole);
    assert_eq!(versions(&server.json("/v1/keys"), kept).len(), 3);
    assert_eq!(server.terminate(), Some(0));
    let source = std::fs::read(vidar_fixtures::path("bbb.mkv")).expect("a clip");
    let sample = &source[source.len() / 2..source.len() / 2 + 32];
    nothing_in_clear(&dir, &[kept.as_bytes(), gone.as_bytes(), tag.as_bytes(), b"Lavf59", b"h264", b"avc1", sample]);
}

#[test]
fn without_its_key_a_running_server_goes_on_and_says_what_it_cannot_do() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let (key_file, away) = (own.path().join("data.key"), own.path().join("away"));
    let server = start_in(&own.path().join("data"), &[]);
    push(&server, "cam", "2026-01-01T00:00:00Z");
    std::fs::rename(&key_file, &away).expect("renamed");
    let refused = server.curl(&["-i", "-X", "DELETE"], "/v1/streams/cam");
    let refused = String::from_utf8_lossy(&refused.stdout).to_lowercase();
    assert!(refused.starts_with("http/1.1 503") && refused.contains("\r\nretry-after: 5\r\n"), "{refused}");
    assert!(refused.contains("there is no key"), "{refused}");
    push(&server, "cam", "2026-01-02T00:00:00Z");
    push(&server, "new", "2026-01-02T00:00:00Z");
    assert_eq!(clip(&server, "cam"), 2 * clip(&server, "new"));
    std::fs::rename(&away, &key_file).expect("renamed");
    assert_eq!(server.request(&["-X", "DELETE"], "/v1/streams/cam").0, 204);
    assert_eq!(server.request(&[], "/v1/streams/cam").0, 404);
}

fn python(args: &[&str]) {
    let python = root().join("target/tools/bin/python");
    let ready = Command::new(&python).args(["-c", "import cryptography"]).stderr(Stdio::null()).status();
    if !ready.is_ok_and(|status| status.success()) {
        common::run(root().join("scripts/tools").to_str().expect("UTF-8"), &["cryptography"]);
    }
    let script = root().join("docs/formats/vectors/open.py");
    let script = ["-B", script.to_str().expect("UTF-8")];
    common::run(python.to_str().expect("UTF-8"), &[&script[..], args].concat());
}

#[test]
fn what_is_stored_opens_with_the_format_pages_alone() {
    let own = tempfile::tempdir().expect("a temporary directory");
    let text = |path: PathBuf| path.to_str().expect("UTF-8").to_owned();
    let vectors = |name: &str| text(root().join("docs/formats/vectors").join(name));
    python(&["--check", &vectors("vectors.txt")]);

    let out = text(own.path().join("out.mp4"));
    let (key, ring) = (vectors("recording/key"), vectors("recording/keyring.a"));
    python(&["--key-file", &key, "--keyring", &ring, "--out", &out, &vectors("recording/segment.vseg")]);
    let source = text(vidar_fixtures::path("h264_short_gop.mkv"));
    assert_eq!(frames(&out, "v"), frames(&source, "v"));

    let dir = own.path().join("data");
    let mut server = start_in(&dir, &[]);
    let (rotated, clip) = (["-H", "content-type: application/json", "-d", r#"{"all_streams":true}"#], "bbb.mkv");
    push(&server, "cam", "2026-01-01T00:00:00Z");
    assert_eq!(server.request(&rotated, "/v1/keys/rotate").0, 200);
    push(&server, "later", "2026-01-01T00:00:00Z");
    assert_eq!(server.terminate(), Some(0));
    let mut segments = Vec::new();
    files(&dir.join("segments"), &mut segments);
    let (key, ring) = (text(own.path().join("data.key")), text(dir.join("keyring.a")));
    let mut args: Vec<String> =
        ["--key-file", &key, "--keyring", &ring, "--out", &out].map(str::to_owned).into_iter().collect();
    args.extend(segments.into_iter().map(text));
    python(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let source = text(vidar_fixtures::path(clip));
    for kind in ["v", "a"] {
        let expected = frames(&source, kind);
        assert!(expected.len() > 50);
        assert_eq!(frames(&out, kind), expected, "{kind}");
    }
}
