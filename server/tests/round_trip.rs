//! Every valid cell of protocols × containers × codecs: pushed by a real client, read back, compared packet by packet
//! with the bytes as pushed, and picture by picture after decoding. docs/design/matrix.md lists the cells.

mod common;

use std::path::{Path, PathBuf};

use common::{Packet, Pusher, Random, Vidar, assert_lists, decoded, ffmpeg, packets, start};

const START: &str = "2026-01-01T00:00:00Z";

/// Tracks have equal packets; times are equal up to one constant common to all tracks, within `tolerance_us`.
fn assert_same(name: &str, pushed: &[Vec<Packet>], stored: &[Vec<Packet>], tolerance_us: i64) {
    assert_eq!(pushed.len(), stored.len(), "{name}: tracks");
    let common = stored[0][0].pts_us - pushed[0][0].pts_us;
    for (track, (pushed, stored)) in pushed.iter().zip(stored).enumerate() {
        // ffprobe moves a whole track of a fragmented MP4 by its largest negative composition offset.
        let constant = if name == "bbb_cmaf.mp4" { stored[0].pts_us - pushed[0].pts_us } else { common };
        assert_eq!(pushed.len(), stored.len(), "{name}: packets of track {track}");
        for (index, (a, b)) in pushed.iter().zip(stored).enumerate() {
            assert_eq!((a.size, &a.hash), (b.size, &b.hash), "{name}: packet {index} of track {track}");
            let off = b.pts_us - a.pts_us - constant;
            assert!(off.abs() <= tolerance_us, "{name}: packet {index} of track {track} is {off} µs off");
        }
    }
}

/// The whole stream.
fn everything(vidar: &Vidar, stream: &str, container: &str) -> String {
    vidar.url(&format!("/v1/streams/{stream}/clip.{container}?start=2000-01-01T00:00:00Z&end=2100-01-01T00:00:00Z"))
}

fn has(tracks: &str, kind: &str) -> bool {
    tracks.contains(kind)
}

fn tracks_of(file: &str) -> String {
    let output = common::run("ffprobe", &["-v", "error", "-show_entries", "stream=codec_type", "-of", "csv=p=0", file]);
    String::from_utf8(output).expect("UTF-8")
}

/// Pushes a file over HTTP and compares what comes back.
fn http_cell(vidar: &Vidar, file: &Path, stream: &str) {
    let name = file.file_name().and_then(|name| name.to_str()).expect("a name");
    let path = file.to_str().expect("a UTF-8 path");
    let (status, lines) = vidar.push(stream, &format!("?start={START}"), file);
    assert_eq!(status, 200, "{name}: {lines:?}");
    let summary = lines.last().expect("a summary");
    assert_eq!(summary["event"], "summary", "{name}");
    assert_eq!(summary["fragments"].as_u64().expect("a count") as usize, lines.len() - 1, "{name}");
    assert_eq!(vidar.fragments(stream).len(), lines.len() - 1, "{name}");

    let ts = name.ends_with(".ts");
    let mkv = everything(vidar, stream, "mkv");
    if ts {
        assert_same_units(name, path, &mkv, 0);
    } else {
        // Laced frames have no times of their own: readers round the steps between them differently.
        let tolerance_us = if name == "laced.mkv" { 2000 } else { 1000 };
        assert_same(name, &packets(path), &packets(&mkv), tolerance_us);
    }
    let tracks = tracks_of(path);
    for kind in ["video", "audio"] {
        if has(&tracks, kind) {
            let (mut pushed, mut stored) = (decoded(path, &kind[..1]), decoded(&mkv, &kind[..1]));
            if kind == "audio" {
                // DiscardPadding cuts the last frame of sound short; it is not kept.
                pushed.pop();
                stored.pop();
            }
            assert_lists(&format!("{name}: {kind} from MKV"), &pushed, &stored);
        }
    }
}

/// For paths that reframe: NAL units without parameter sets and delimiters, AAC without ADTS. `unsent`: sound frames at
/// the end that the sender may keep to itself.
fn assert_same_units(name: &str, pushed: &str, stored: &str, unsent: usize) {
    for (kind, codec) in [("v", "video"), ("a", "audio")] {
        let units = |input: &str| -> Vec<(String, String)> {
            let probe =
                ["-v", "error", "-select_streams", kind, "-show_entries", "stream=codec_name", "-of", "csv=p=0", input];
            let codec = String::from_utf8(common::run("ffprobe", &probe)).expect("UTF-8");
            let filter = match codec.lines().next().unwrap_or_default().trim() {
                "" => return Vec::new(),
                "h264" => "h264_mp4toannexb,filter_units=remove_types=7|8|9",
                "hevc" => "hevc_mp4toannexb,filter_units=remove_types=32|33|34|35|39",
                "aac" => "aac_adtstoasc",
                _ => "null",
            };
            let map = format!("0:{kind}:0");
            let flag = format!("-bsf:{kind}");
            let output = ffmpeg(&["-i", input, "-map", &map, "-c", "copy", &flag, filter, "-f", "framemd5", "-"]);
            let text = String::from_utf8(output).expect("UTF-8");
            // stream, dts, pts, duration, size, hash, and side data where there is some
            let columns = text.lines().filter(|line| !line.starts_with('#')).map(|line| line.split(',').map(str::trim));
            let hashes = columns.map(|mut columns| {
                let size = columns.nth(4).expect("a size").to_owned();
                (columns.next().expect("a hash").to_owned(), size)
            });
            hashes.collect()
        };
        let (pushed, stored) = (units(pushed), units(stored));
        let missing = pushed.len().saturating_sub(stored.len()).min(if kind == "a" { unsent } else { 0 });
        assert_lists(&format!("{name}: {codec}"), &pushed[..pushed.len() - missing], &stored);
    }
}

#[test]
fn every_container_and_codec_over_http_comes_back() {
    let vidar = start();
    let files: Vec<PathBuf> = vidar_fixtures::corpus(&["mkv", "webm", "ts", "mp4"]);
    let mut cells = 0;
    for (index, file) in files.iter().enumerate() {
        let fragmented = || is_fragmented(file);
        if file.extension().is_some_and(|ext| ext == "mp4") && !fragmented() {
            continue;
        }
        // Its last block is cut off: what is compared elsewhere ends there.
        if file.ends_with("kvs_webcam_building_vfr.mkv") || file.ends_with("kvs_getmedia_cranes.mkv") {
            continue;
        }
        http_cell(&vidar, file, &format!("cell-{index}"));
        cells += 1;
    }
    assert!(cells >= 25, "{cells}");
}

fn is_fragmented(file: &Path) -> bool {
    let bytes = std::fs::read(file).expect("a readable clip");
    bytes.windows(4).any(|window| window == b"moof")
}

#[test]
fn mp4_clips_show_the_same_pictures_and_play_the_same_sound() {
    let vidar = start();
    for name in [
        "bbb.mkv",
        "h264_open_gop.mkv",
        "h264_vfr.mkv",
        "h265_open_gop.mkv",
        "av1_opus.mkv",
        "vp9_opus.webm",
        "bbb.ts",
        "bbb_cmaf.mp4",
    ] {
        let (file, stream) = (vidar_fixtures::path(name), name.replace('.', "-"));
        let (status, lines) = vidar.push(&stream, &format!("?start={START}"), &file);
        assert_eq!(status, 200, "{name}: {lines:?}");
        let mp4 = everything(&vidar, &stream, "mp4");
        let path = file.to_str().expect("a UTF-8 path");
        assert_lists(name, &decoded(path, "v"), &decoded(&mp4, "v"));
        if has(&tracks_of(path), "audio") {
            assert_eq!(packets(path).len(), packets(&mp4).len(), "{name}");
        }
    }
}

#[test]
fn ffmpeg_and_gstreamer_over_rtsp_come_back() {
    let vidar = start();
    for (name, transports) in [
        ("bbb.mkv", &["tcp", "udp"][..]),
        ("h264_ip.mkv", &["tcp"]),
        ("h264_open_gop.mkv", &["tcp"]),
        ("h265_open_gop.mkv", &["tcp", "udp"]),
        ("audio_aac.mkv", &["tcp"]),
        ("audio_opus.mkv", &["tcp"]),
        ("audio_pcm_mulaw.mkv", &["tcp"]),
        ("audio_pcm_alaw.mkv", &["tcp"]),
    ] {
        for transport in transports {
            let file = vidar_fixtures::path(name);
            let path = file.to_str().expect("a UTF-8 path");
            let stream = format!("{}-{transport}", name.replace('.', "-"));
            // Over UDP in real time: the kernel's buffers drop what comes faster than a camera sends.
            let pace: &[&str] = if *transport == "udp" { &["-re"] } else { &[] };
            let args = [
                pace,
                &["-i", path, "-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, &vidar.rtsp_url(&stream)],
            ];
            assert!(Pusher::ffmpeg(&args.concat()).wait(), "{stream}");
            let ended = |vidar: &Vidar| vidar.json("/v1/pushes")["pushes"].as_array()?.is_empty().then_some(());
            vidar.until("the end of the push", ended);
            let mkv = everything(&vidar, &stream, "mkv");
            let tracks = tracks_of(path);
            if has(&tracks, "video") {
                // ffmpeg 5.1 never sends its last, half-full RTP packet of AAC (RFC 3640).
                assert_same_units(&stream, path, &mkv, 8);
                assert_lists(&stream, &decoded(path, "v"), &decoded(&mkv, "v"));
            } else if name.contains("pcm") {
                // ffmpeg packs sound anew for RTP: the bytes are equal, their division is not.
                assert_lists(&stream, &raw_sound(path), &raw_sound(&mkv));
            } else {
                let (mut pushed, stored) = (packets(path), packets(&mkv));
                let missing = pushed[0].len().saturating_sub(stored[0].len()).min(8);
                let kept = pushed[0].len() - missing;
                pushed[0].truncate(kept);
                assert_same(&stream, &pushed, &stored, 1000);
            }
        }
    }
}

fn raw_sound(input: &str) -> Vec<u8> {
    ffmpeg(&["-i", input, "-map", "0:a:0", "-f", "s16le", "-"])
}

#[test]
fn random_ranges_start_and_end_where_they_should() {
    let vidar = start();
    let full = std::env::var_os("VIDAR_TEST_FULL").is_some();
    let mut random = Random(1);
    for name in ["bbb.mkv", "h264_open_gop.mkv", "h265_open_gop.mkv", "h264_vfr.mkv", "av1_opus.mp4"] {
        let (file, stream) = (vidar_fixtures::path(name), name.replace('.', "-"));
        let (status, _) = vidar.push(&stream, "?start=1767225600000", &file);
        assert_eq!(status, 200);
        let whole = everything(&vidar, &stream, "mkv");
        let (shown, whole) = (decoded(&whole, "v"), packets(&whole));
        let mut times: Vec<i64> = whole[0].iter().map(|packet| packet.pts_us).collect();
        times.sort_unstable();
        let (first, last) = (times[0], times[times.len() - 1]);
        for round in 0..if full { 50 } else { 4 } {
            let a = random.below(((last - first) / 1000) as u64) as i64;
            let b = a + 1 + random.below(3000) as i64;
            let base = 1_767_225_600_000;
            let range = format!("start={}&end={}", base + a, base + b);
            let mp4 = vidar.url(&format!("/v1/streams/{stream}/clip.mp4?{range}"));
            // What is shown at a, and all that is shown until b.
            let from = times.partition_point(|t| (t - first) / 1000 <= a) - 1;
            let to = times.partition_point(|t| t - first < b * 1000);
            let expected = &shown[from..to];
            let got = decoded(&mp4, "v");
            // ffmpeg 5.1 shows what an edit list cuts off, for AV1 only.
            let got = if name.starts_with("av1") { &got[got.len().saturating_sub(expected.len())..] } else { &got[..] };
            assert_lists(&format!("{name} {round}: {a}..{b} ms"), expected, got);
        }
    }
}
