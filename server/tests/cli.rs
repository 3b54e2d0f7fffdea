//! The subcommands, as tables and as JSON.

mod common;

use std::process::Command;

use common::{ID, SECRET, Vidar, signal, start};
use serde_json::{Value, json};

/// A subcommand with the root pair of the tests; its standard output.
fn cli(vidar: &Vidar, args: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_vidar"))
        .args(args)
        .env("VIDAR_ENDPOINT", format!("http://{}", vidar.http))
        .env("VIDAR_ACCESS_KEY_ID", ID)
        .env("VIDAR_SECRET_ACCESS_KEY", SECRET)
        .output()
        .expect("vidar runs");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// What stands in the first row under the heads of a table.
fn row(table: &str) -> Vec<(String, String)> {
    let words = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    let mut lines = table.lines().map(words).filter(|words| words.iter().any(|w| w.starts_with(char::is_alphanumeric)));
    let (heads, cells) = (lines.next().expect("heads"), lines.next().expect("a row"));
    assert_eq!(heads.len(), cells.len(), "{table}");
    heads.into_iter().zip(cells).collect()
}

#[test]
fn lists_show_what_there_is_as_tables_and_as_json() {
    let vidar = start();
    let clip = vidar_fixtures::path("h264_short_gop.mkv");
    assert_eq!(vidar.push("cam", "?start=0", &clip).0, 200);
    vidar.until("the search index", |v| {
        v.json("/v1/search?q=stream%3Acam%20AND%20kind%3Afragment")["results"].get(0).map(|_| ())
    });
    for (args, list, may_be_none) in [
        (&["streams"][..], "streams", &["retention_bytes"][..]),
        (&["fragments", "cam"], "fragments", &[]),
        (&["search", "stream:cam AND kind:fragment"], "results", &[]),
        (&["search", "kind:fragment", "--by", "stream"], "groups", &[]),
        (&["search", "--by", "time", "--interval", "1d", "--sort", "-key"], "groups", &[]),
    ] {
        for (head, cell) in row(&cli(&vidar, args)) {
            assert!(cell != "-" || may_be_none.contains(&head.as_str()), "{args:?}: nothing under {head}");
        }
        let json: Value = serde_json::from_str(&cli(&vidar, &[args, &["--json"]].concat())).expect("JSON");
        assert!(!json[list].as_array().expect("a list").is_empty(), "{json}");
    }
    let rows = cli(&vidar, &["search", "kind:fragment", "--format", "ndjson"]);
    assert_eq!(rows.lines().count(), vidar.fragments("cam").len());
    let rows = cli(&vidar, &["search", "kind:fragment", "--format", "csv", "--limit", "2"]);
    assert!(rows.starts_with("kind,stream,") && rows.lines().count() == 3, "{rows}");
    let newest = ["fragments", "cam", "--order", "desc", "--limit", "1", "--json"];
    let newest: Value = serde_json::from_str(&cli(&vidar, &newest)).expect("JSON");
    let last = vidar.fragments("cam").pop().expect("a fragment");
    assert_eq!(newest["fragments"][0]["fragment_number"], last["fragment_number"]);
}

#[test]
fn streams_are_made_and_changed() {
    let vidar = start();
    let settings = |args: &[&str]| -> Value {
        let args = [&["streams"], args, &["--json"]].concat();
        let stream: Value = serde_json::from_str(&cli(&vidar, &args)).expect("JSON");
        json!([stream["device"], stream["retention_hours"], stream["retention_bytes"], stream["tags"]])
    };
    let made =
        ["create", "cam", "--device", "door", "--retention-bytes", "900", "--tag", "site=north", "--tag", "a=b=c"];
    assert_eq!(settings(&made), json!(["door", 168, 900, {"site": "north", "a": "b=c"}]));
    let changed = ["change", "cam", "--retention-hours", "5", "--retention-bytes", "none"];
    assert_eq!(settings(&changed), json!(["door", 5, null, {"site": "north", "a": "b=c"}]));
    assert_eq!(settings(&["change", "cam", "--tag", "site="]), json!(["door", 5, null, {"site": ""}]));
    assert_eq!(settings(&["show", "cam"])[3], json!({"site": ""}));
    assert_eq!(cli(&vidar, &["streams", "delete", "cam"]), "");
    assert_eq!(vidar.request(&[], "/v1/streams/cam").0, 404);
}

#[test]
fn a_clip_is_written_whole() {
    let vidar = start();
    let clip = vidar_fixtures::path("h264_short_gop.mkv");
    assert_eq!(vidar.push("cam", "?start=0", &clip).0, 200);
    let dir = tempfile::tempdir().expect("a temporary directory");
    let path = dir.path().join("clip.mkv");
    let path = path.to_str().expect("a UTF-8 path");
    let answer = cli(&vidar, &["clip", "cam", "--start", "0", "--end", "4102444800", "--output", path, "--json"]);
    let answer: Value = serde_json::from_str(&answer).expect("JSON");
    let written = std::fs::read(path).expect("the clip");
    assert_eq!(answer["size_bytes"], written.len());
    let (status, served) = vidar.request(&[], "/v1/streams/cam/clip.mkv?start=0&end=4102444800");
    assert_eq!(status, 200);
    assert!(written == served, "not the clip that the server has");
}

#[test]
fn rotated_credentials_are_taken_up_at_hangup() {
    // No pair in the environment: it is made, and kept in the data directory.
    let own = tempfile::tempdir().expect("a temporary directory");
    let mut vidar = common::start_with_own_credentials(&own.path().join("data"));
    let dir = vidar.dir.to_str().expect("a UTF-8 path").to_owned();
    let credentials = |action: &str| -> (String, String) {
        let args = ["credentials", "--data-dir", &dir, action, "--json"];
        let pair: Value = serde_json::from_slice(&common::run(env!("CARGO_BIN_EXE_vidar"), &args)).expect("JSON");
        let text = |name: &str| pair[name].as_str().expect("text").to_owned();
        (text("access_key_id"), text("secret_access_key"))
    };
    let url = format!("http://{}/v1/streams", vidar.http);
    let status = |(id, secret): &(String, String)| {
        let user = format!("{id}:{secret}");
        common::run("curl", &["-s", "-o", "/dev/null", "-w", "%{http_code}", "-u", &user, &url])
    };
    let before = credentials("show");
    assert_eq!(status(&before), b"200");
    let after = credentials("rotate");
    assert_ne!(before, after);
    assert_eq!((status(&before), status(&after)), (b"200".to_vec(), b"401".to_vec()));
    signal(vidar.pid(), "HUP");
    vidar.wait_log("root credentials read again");
    assert_eq!((status(&before), status(&after)), (b"401".to_vec(), b"200".to_vec()));
    let log = vidar.log();
    assert!(!log.contains(&before.1) && !log.contains(&after.1), "a secret is in the log:\n{log}");
}
