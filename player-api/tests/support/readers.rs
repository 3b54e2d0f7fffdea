//! Other implementations read what we write: the crates `matroska-demuxer` and `mp4`, mkvmerge, ffprobe.

use std::io::Cursor;
use std::process::Command;

use bytes::Bytes;
use matroska_demuxer::{Frame, MatroskaFile};
use serde_json::Value;

/// Frames of each track of a Matroska file, in order of the tracks, as all readers count them.
///
/// # Panics
/// If one of them complains, or they do not agree.
pub(crate) fn check_mkv(name: &str, file: &Bytes) -> Vec<usize> {
    let mut reader = MatroskaFile::open(Cursor::new(file.clone())).unwrap_or_else(|e| panic!("{name}: {e}"));
    let numbers: Vec<u64> = reader.tracks().iter().map(|track| track.track_number().get()).collect();
    let (mut counts, mut frame) = (vec![0; numbers.len()], Frame::default());
    while reader.next_frame(&mut frame).unwrap_or_else(|e| panic!("{name}: {e}")) {
        let track = numbers.iter().position(|number| *number == frame.track);
        counts[track.unwrap_or_else(|| panic!("{name}: a frame of track {}", frame.track))] += 1;
    }
    let path = keep(file, ".mkv");
    let output = Command::new("mkvmerge").arg("-J").arg(path.path()).output().expect("mkvmerge is installed");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(said["container"]["recognized"], true, "{name}: {said}");
    for complaints in ["errors", "warnings"] {
        assert_eq!(said[complaints].as_array().map(Vec::len), Some(0), "{name}: {said}");
    }
    assert_eq!(said["tracks"].as_array().map(Vec::len), Some(numbers.len()), "{name}: {said}");
    assert_eq!(ffprobe(name, &path), counts, "{name}: ffprobe and matroska-demuxer");
    counts
}

/// Samples of each track of an MP4, fragmented or not.
///
/// # Panics
/// If a reader complains, or they do not agree.
pub(crate) fn check_mp4(name: &str, file: &Bytes) -> Vec<usize> {
    let reader = mp4::Mp4Reader::read_header(Cursor::new(file.clone()), file.len() as u64);
    let reader = reader.unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut tracks: Vec<_> = reader.tracks().values().collect();
    tracks.sort_by_key(|track| track.track_id());
    let counts: Vec<usize> = tracks.iter().map(|track| track.sample_count() as usize).collect();
    let path = keep(file, ".mp4");
    assert_eq!(ffprobe(name, &path), counts, "{name}: ffprobe and mp4");
    counts
}

fn keep(file: &Bytes, ending: &str) -> tempfile::NamedTempFile {
    let path = tempfile::Builder::new().suffix(ending).tempfile().unwrap();
    std::fs::write(path.path(), file).unwrap();
    path
}

/// Packets of each stream. Edits do not count: they hide samples, and samples are what is counted.
fn ffprobe(name: &str, path: &tempfile::NamedTempFile) -> Vec<usize> {
    let mut command = Command::new("ffprobe");
    if path.path().extension().is_some_and(|ending| ending == "mp4") {
        command.args(["-ignore_editlist", "1"]);
    }
    let entries = "stream=index,nb_read_packets";
    command.args(["-v", "error", "-count_packets", "-show_entries", entries, "-of", "json"]).arg(path.path());
    let output = command.output().expect("ffprobe is installed");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && errors.is_empty(), "{name}: {errors}");
    let said: Value = serde_json::from_slice(&output.stdout).unwrap();
    let streams = said["streams"].as_array().unwrap();
    streams.iter().map(|stream| stream["nb_read_packets"].as_str().unwrap_or("0").parse().unwrap()).collect()
}
