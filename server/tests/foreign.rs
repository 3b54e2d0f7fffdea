//! Containers that GStreamer takes apart, in a helper process.

mod common;

use std::path::{Path, PathBuf};

use common::{Vidar, assert_lists, decoded, ffmpeg, packets, start};

fn everything(vidar: &Vidar, stream: &str) -> String {
    vidar.url(&format!("/v1/streams/{stream}/clip.mkv?start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z"))
}

/// Processes that the server started and that still run.
fn helpers(vidar: &Vidar) -> Vec<String> {
    let path = format!("/proc/{0}/task", vidar.pid());
    let tasks = std::fs::read_dir(path).expect("the server runs");
    let children = tasks.filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("children")).ok());
    children.flat_map(|line| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

fn pushed(vidar: &Vidar, stream: &str, file: &Path) -> String {
    let (status, lines) = vidar.push(stream, "", file);
    assert_eq!(status, 200, "{stream}: {lines:?}");
    assert!(lines.iter().all(|line| line["event"] != "error"), "{stream}: {lines:?}");
    assert!(lines.iter().any(|line| line["event"] == "durable"), "{stream}: {lines:?}");
    assert_eq!(helpers(vidar), Vec::<String>::new(), "{stream}: a helper is left");
    everything(vidar, stream)
}

fn made(dir: &Path, name: &str, args: &[&str]) -> PathBuf {
    let (source, file) = (vidar_fixtures::path("bbb.mkv"), dir.join(name));
    let (source, out) = (source.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
    ffmpeg(&[&["-i", source, "-t", "3"], args, &[out]].concat());
    file
}

#[test]
fn pictures_are_those_of_the_source() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let vob = ["-c:v", "mpeg2video", "-bf", "2", "-b:v", "1M", "-c:a", "mp2", "-f", "vob"];
    let files = [
        ("flv", vidar_fixtures::path("other.flv")),
        ("avi", vidar_fixtures::path("other.avi")),
        ("ps", made(dir.path(), "made.vob", &vob)),
    ];
    for (stream, file) in files {
        let clip = pushed(&vidar, stream, &file);
        assert_lists(stream, &decoded(file.to_str().expect("UTF-8"), "v"), &decoded(&clip, "v"));
    }
}

#[test]
fn sound_is_that_of_the_source() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    for codec in ["libvorbis", "libopus"] {
        let file = made(dir.path(), &format!("{codec}.ogg"), &["-vn", "-c:a", codec]);
        let clip = pushed(&vidar, codec, &file);
        let hashes = |input: &str| packets(input)[0].iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
        assert_lists(codec, &hashes(file.to_str().expect("UTF-8")), &hashes(&clip));
    }
}

#[test]
fn garbage_is_an_error_and_what_came_before_stays() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let garbage: Vec<u8> = (0..200_000_u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();

    let broken = dir.path().join("broken.flv");
    std::fs::write(&broken, [b"FLV\x01\x05\0\0\0\x09\0\0\0\0", &garbage[..]].concat()).expect("written");
    let (status, lines) = vidar.push("broken", "", &broken);
    assert_eq!(status, 400, "{lines:?}");
    assert_eq!(helpers(&vidar), Vec::<String>::new());

    let unknown = dir.path().join("unknown.bin");
    std::fs::write(&unknown, &garbage).expect("written");
    let (status, lines) = vidar.push("unknown", "", &unknown);
    assert_eq!(status, 415, "{lines:?}");

    // The server lives.
    pushed(&vidar, "after", &vidar_fixtures::path("other.flv"));
}
