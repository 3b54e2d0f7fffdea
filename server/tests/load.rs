//! A short run of the load against the server: all that is sent is acknowledged, and counted.

use std::ffi::OsString;

use serde_json::{Value, json};

#[test]
fn what_four_publishers_send_is_all_acknowledged() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (clips, out) = (folder.path().join("clips"), folder.path().join("runs.jsonl"));
    // As fast as it is acknowledged: no schedule is judged. No cores of its own: other tests run beside this one.
    let mut arguments: Vec<OsString> =
        "vidar-load publish --protocol http-matroska --streams 4 --seconds 4 --backfill --cpus 0"
            .split(' ')
            .map(OsString::from)
            .collect();
    arguments.extend(["--serve", env!("CARGO_BIN_EXE_vidar"), "--clips"].map(OsString::from));
    arguments.extend([clips.into_os_string(), "--out".into(), out.clone().into_os_string()]);
    vidar_load::run(arguments).expect("a run that counts");
    let run: Value = serde_json::from_slice(&std::fs::read(out).expect("a record")).expect("JSON");
    // Of 4 s in GOPs of 2 s each.
    assert_eq!([&run["fragments_sent"], &run["fragments_stored"]], [&json!(8); 2], "{run}");
    assert!(run["sample_bytes_sent"].as_u64() > Some(0), "{run}");
    assert_eq!(run["sample_bytes_sent"], run["sample_bytes_stored"], "{run}");
    assert_eq!(run["faults"], json!([]), "{run}");
}
