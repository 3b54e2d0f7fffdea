//! A disk that fills up while the server runs: publishers hear of it at once, in the words of their protocol, and are let
//! in again when there is room.

mod common;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Vidar, start_in};

/// The marks lie this far below what is free, and the ballast takes twice as much: others use this disk as well.
const MARGIN_BYTES: u64 = 1 << 30;

fn free_bytes(dir: &Path) -> u64 {
    let answer = common::run("df", &["--output=avail", "--block-size=1", dir.to_str().expect("a UTF-8 path")]);
    let text = String::from_utf8(answer).expect("UTF-8");
    text.lines().nth(1).expect("a line").trim().parse().expect("a number")
}

/// Takes space of the disk without writing it.
fn ballast(dir: &Path) -> PathBuf {
    let path = dir.join("ballast");
    let len = (2 * MARGIN_BYTES).to_string();
    common::run("fallocate", &["--length", &len, path.to_str().expect("a UTF-8 path")]);
    path
}

/// Pushes a clip over RTSP; whether ffmpeg was content, and what it said.
fn push_rtsp(vidar: &Vidar, stream: &str) -> (bool, String) {
    let clip = vidar_fixtures::path("h264_short_gop.mkv");
    let output = Command::new("ffmpeg")
        .args(["-hide_banner", "-loglevel", "error", "-nostdin", "-re", "-i"])
        .arg(clip)
        .args(["-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", &vidar.rtsp_url(stream)])
        .stdin(Stdio::null())
        .output()
        .expect("ffmpeg runs");
    (output.status.success(), String::from_utf8_lossy(&output.stderr).into_owned())
}

fn a_disk_that_fills_and_empties(policy: &str) {
    let own = tempfile::tempdir().expect("a temporary directory");
    let mark = (free_bytes(own.path()).saturating_sub(MARGIN_BYTES) >> 20).to_string();
    // Below the policy mark media is refused by one policy only; below the other mark by both.
    let refuse = if policy == "refuse" { "1" } else { &mark };
    let flags = ["--disk-policy-mib", &mark, "--disk-refuse-mib", refuse, "--disk-policy", policy];
    let vidar = start_in(&own.path().join("data"), &flags);
    let clip = vidar_fixtures::path("h264_short_gop.mkv");
    assert_eq!(vidar.push("cam", "?start=0", &clip).0, 200);
    let before = vidar.json("/v1/streams/cam")["totals"].clone();

    let ballast = ballast(own.path());
    let (status, answer) = vidar.push("cam", "", &clip);
    assert_eq!(status, 507, "{answer:?}");
    assert_eq!(answer[0]["detail"], "the disk is full", "{answer:?}");
    let (pushed, said) = push_rtsp(&vidar, "cam");
    assert!(!pushed && said.contains("503"), "{said}");
    assert!(said.contains("the disk is full"), "{said}");
    assert_eq!(vidar.request(&["-o", "/dev/null"], "/v1/streams").0, 200);
    if policy == "refuse" {
        assert_eq!(vidar.json("/v1/streams/cam")["totals"], before, "a refused push left something");
    }

    std::fs::remove_file(ballast).expect("the ballast is removed");
    let (pushed, said) = push_rtsp(&vidar, "cam");
    assert!(pushed, "{said}");
    // Its publisher is gone, and the server may not have noticed yet.
    vidar.until("the stream to be free", |v| (v.push("cam", "", &clip).0 == 200).then_some(()));
}

#[test]
fn where_media_is_refused_publishers_hear_at_once_and_come_in_again() {
    a_disk_that_fills_and_empties("refuse");
}

#[test]
fn below_the_last_mark_media_is_refused_whatever_the_policy() {
    a_disk_that_fills_and_empties("delete-oldest");
}
