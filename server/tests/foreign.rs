//! Formats that GStreamer takes apart, in a helper process.

mod common;

use std::path::{Path, PathBuf};

use common::{Packet, Vidar, assert_lists, decoded, ffmpeg, packets, start};
use serde_json::Value;

/// One format with some codecs.
struct Cell {
    name: &'static str,
    from: From,
    /// What is equal.
    equal: &'static [Equal],
    /// A cut is told: 400.
    told: bool,
}

/// Where its file comes from.
enum From {
    Fixture(&'static str),
    /// The first 3 s of this fixture, by these arguments of ffmpeg; the last is the name.
    Made(&'static str, &'static [&'static str]),
}

enum Equal {
    /// Pictures or sound after decoding.
    Decoded(&'static str),
    /// Packets as bytes.
    Packets,
    /// When packets are shown: as in the file.
    Times,
    /// When pictures are shown: as in the fixture the file was made of, as it has no times, or only some.
    TimesOfFixture,
    /// All samples of sound in one, and that their times are their number.
    Pcm,
}

use Equal::{Decoded, Packets, Pcm, Times, TimesOfFixture};
use From::{Fixture, Made};

const fn cell(name: &'static str, from: From, equal: &'static [Equal], told: bool) -> Cell {
    Cell { name, from, equal, told }
}

const BBB: &str = "bbb.mkv";

const CELLS: &[Cell] = &[
    cell("flv", Fixture("other.flv"), &[Decoded("v"), Decoded("a"), Times], true),
    cell("avi", Fixture("other.avi"), &[Decoded("v"), Packets, Times], true),
    cell(
        "avi-b",
        Made(BBB, &["-c:v", "copy", "-bsf:v", "h264_mp4toannexb", "-c:a", "libmp3lame", "b.avi"]),
        &[Decoded("v"), TimesOfFixture],
        true,
    ),
    cell(
        "mpeg-ps",
        Made(BBB, &["-c:v", "mpeg2video", "-bf", "2", "-b:v", "1M", "-c:a", "mp2", "-f", "vob", "a.vob"]),
        &[Decoded("v"), Decoded("a"), TimesOfFixture],
        true,
    ),
    // What is to be skipped at the beginning has times before 0 by ffmpeg, and none by GStreamer.
    cell("ogg-vorbis", Made(BBB, &["-vn", "-c:a", "libvorbis", "vorbis.ogg"]), &[Packets], true),
    cell("ogg-opus", Made(BBB, &["-vn", "-c:a", "libopus", "opus.ogg"]), &[Packets], true),
    cell("wav", Made(BBB, &["-vn", "a.wav"]), &[Pcm], true),
    cell("wav-24", Made(BBB, &["-vn", "-c:a", "pcm_s24le", "24.wav"]), &[Pcm], true),
    cell("wav-g711", Made(BBB, &["-vn", "-ac", "1", "-ar", "8000", "-c:a", "pcm_mulaw", "g711.wav"]), &[Pcm], true),
    cell("aiff", Made(BBB, &["-vn", "a.aiff"]), &[Pcm], true),
    cell("au", Made(BBB, &["-vn", "a.au"]), &[Pcm], true),
    cell("flac", Made(BBB, &["-vn", "a.flac"]), &[Decoded("a"), Packets, Times], false),
    cell("adts", Made(BBB, &["-vn", "-c:a", "copy", "a.aac"]), &[Decoded("a"), Times], false),
    cell("mp3", Made(BBB, &["-vn", "a.mp3"]), &[Packets, Times], false),
    cell(
        "mp3-plain",
        Made(BBB, &["-vn", "-write_xing", "0", "-id3v2_version", "0", "plain.mp3"]),
        &[Decoded("a"), Packets, Times],
        false,
    ),
    cell(
        "adts-tag",
        Made(BBB, &["-vn", "-c:a", "copy", "-write_id3v2", "1", "-metadata", "title=x", "tag.aac"]),
        &[Decoded("a"), Times],
        false,
    ),
    cell("ac3", Made(BBB, &["-vn", "a.ac3"]), &[Decoded("a"), Packets, Times], false),
    cell("ivf-vp8", Made("vp8_vorbis.webm", &["-c", "copy", "-an", "8.ivf"]), &[Decoded("v"), Packets, Times], true),
    cell("ivf-vp9", Made("vp9_opus.webm", &["-c", "copy", "-an", "9.ivf"]), &[Decoded("v"), Packets, Times], true),
    // Mostly whole: a part of a clip may lack pictures before its last, which a stream without times cannot say.
    cell("h264", Made("h264_ip.mkv", &["-c", "copy", "-an", "ip.h264"]), &[Decoded("v"), TimesOfFixture], false),
    cell("h264-b", Made(BBB, &["-c", "copy", "-an", "b.h264"]), &[Decoded("v"), TimesOfFixture], false),
    cell(
        "h264-pyramid",
        Made("h264_pyramid.mkv", &["-t", "9", "-c", "copy", "-an", "pyramid.h264"]),
        &[Decoded("v"), TimesOfFixture],
        false,
    ),
    cell(
        "h265",
        Made("h265_open_gop.mkv", &["-t", "9", "-c", "copy", "-an", "open.h265"]),
        &[Decoded("v"), TimesOfFixture],
        false,
    ),
];

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
    assert!(error(&lines).is_none(), "{stream}: {lines:?}");
    assert!(lines.iter().any(|line| line["event"] == "durable"), "{stream}: {lines:?}");
    assert_eq!(helpers(vidar), Vec::<String>::new(), "{stream}: a helper is left");
    everything(vidar, stream)
}

fn error(lines: &[Value]) -> Option<&Value> {
    lines.iter().find(|line| line["event"] == "error")
}

impl Cell {
    fn file(&self, dir: &Path) -> PathBuf {
        match self.from {
            Fixture(name) => vidar_fixtures::path(name),
            Made(source, args) => {
                let (source, file) = (vidar_fixtures::path(source), dir.join(args[args.len() - 1]));
                let (source, out) = (source.to_str().expect("UTF-8"), file.to_str().expect("UTF-8"));
                ffmpeg(&[&["-i", source, "-t", "3"], &args[..args.len() - 1], &[out]].concat());
                file
            }
        }
    }

    fn check(&self, file: &Path, clip: &str) {
        let (name, file) = (self.name, file.to_str().expect("UTF-8"));
        for equal in self.equal {
            match equal {
                Decoded(kind) => assert_lists(&format!("{name}: {kind}"), &decoded(file, kind), &decoded(clip, kind)),
                Packets => {
                    let hashes =
                        |input: &str| packets(input)[0].iter().map(|packet| packet.hash.clone()).collect::<Vec<_>>();
                    assert_lists(&format!("{name}: packets"), &hashes(file), &hashes(clip));
                }
                Times => ["v", "a"].iter().for_each(|kind| assert_times(name, &track(file, kind), &track(clip, kind))),
                TimesOfFixture => {
                    let (Fixture(source) | Made(source, _)) = self.from;
                    let source = track(vidar_fixtures::path(source).to_str().expect("UTF-8"), "v");
                    let stored = track(clip, "v");
                    assert_times(name, &source[..stored.len()], &stored);
                }
                Pcm => check_pcm(name, file, clip),
            }
        }
    }
}

/// Packets of the first track of a kind; none if there is no such.
fn track(input: &str, kind: &str) -> Vec<Packet> {
    let select = format!("{kind}:0");
    let args = ["-v", "error", "-select_streams", &select, "-show_entries", "stream=index", "-of", "csv=p=0", input];
    let index = String::from_utf8(common::run("ffprobe", &args)).expect("UTF-8").trim().parse::<usize>();
    index.map_or_else(|_| Vec::new(), |index| packets(input).swap_remove(index))
}

/// In the order shown, from the first on.
fn assert_times(name: &str, expected: &[Packet], got: &[Packet]) {
    let times = |packets: &[Packet]| {
        let mut times: Vec<i64> = packets.iter().map(|packet| packet.pts_us).collect();
        times.sort_unstable();
        times.iter().map(|time| time - times[0]).collect::<Vec<_>>()
    };
    let (expected, got) = (times(expected), times(got));
    assert_eq!(expected.len(), got.len(), "{name}: packets");
    for (index, (a, b)) in expected.iter().zip(&got).enumerate() {
        assert!((a - b).abs() <= 1000, "{name}: packet {index} is shown at {b} µs, expected {a}");
    }
}

fn check_pcm(name: &str, file: &str, clip: &str) {
    let raw = |input: &str| ffmpeg(&["-i", input, "-f", "s32le", "-"]);
    assert_lists(name, &raw(file), &raw(clip));
    let stored = &packets(clip)[0];
    let (bytes, ends) = (stored.iter().map(|packet| packet.size).sum::<u64>() as i64, 3_000_000);
    let mut before = 0;
    for packet in stored {
        let expected = before * ends / bytes;
        let off = packet.pts_us - stored[0].pts_us - expected;
        assert!(off.abs() <= 1000, "{name}: {off} µs off after {before} of {bytes} bytes");
        before += packet.size as i64;
    }
}

#[test]
fn what_is_pushed_comes_back() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    for cell in CELLS {
        let file = cell.file(dir.path());
        cell.check(&file, &pushed(&vidar, cell.name, &file));
    }
}

#[test]
fn a_cut_is_told_where_the_format_shows_it_and_what_was_complete_stays() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    for cell in CELLS {
        let (name, file) = (cell.name, cell.file(dir.path()));
        let whole = packets(&pushed(&vidar, name, &file));
        let bytes = std::fs::read(&file).expect("a file");
        let cut = dir.path().join("cut");
        std::fs::write(&cut, &bytes[..bytes.len() * 2 / 3 + 1]).expect("written");
        let stream = format!("{name}-cut");
        let (_, lines) = vidar.push(&stream, "", &cut);
        match error(&lines) {
            Some(error) => assert!(cell.told && error["status"] == 400, "{name}: {error}"),
            None => assert!(!cell.told, "{name}: {lines:?}"),
        }
        if cell.equal.iter().any(|equal| matches!(equal, Pcm)) {
            // How sound is divided depends on how the bytes came.
            let raw = |input: &str| ffmpeg(&["-i", input, "-f", "s32le", "-"]);
            let (whole, stored) = (raw(&everything(&vidar, name)), raw(&everything(&vidar, &stream)));
            assert!(stored.len() > whole.len() / 2 && whole.starts_with(&stored), "{name}: {} bytes", stored.len());
            continue;
        }
        let stored = packets(&everything(&vidar, &stream));
        assert_eq!(whole.len(), stored.len(), "{name}: tracks");
        for (whole, stored) in whole.iter().zip(&stored) {
            assert!(stored.len() > 1 && stored.len() < whole.len(), "{name}: {} of {}", stored.len(), whole.len());
            // The last one may be cut itself.
            let complete = stored.len() - 1;
            assert_lists(name, &whole[..complete], &stored[..complete]);
        }
    }
}

#[test]
fn a_media_type_says_what_the_first_bytes_do_not() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let plain = CELLS.iter().find(|cell| cell.name == "h264").expect("a cell").file(dir.path());
    let padded = dir.path().join("padded");
    let bytes = [&[0; 3], &std::fs::read(&plain).expect("a file")[..]].concat();
    std::fs::write(&padded, bytes).expect("written");
    let (status, lines) = vidar.push("unsaid", "", &padded);
    assert_eq!(status, 415, "{lines:?}");
    let args = ["-H", "Content-Type: video/H264", "-T", padded.to_str().expect("UTF-8")];
    let (status, body) = vidar.request(&args, "/v1/streams/said/media");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let expected = decoded(plain.to_str().expect("UTF-8"), "v");
    assert_lists("padded", &expected, &decoded(&everything(&vidar, "said"), "v"));
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
