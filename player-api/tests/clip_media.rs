//! Clips decode to the pictures and packets of their source, in any range.

mod support;

use std::process::Command;

use support::{Archive, Push, START};
use vidar_core::entry::SharedEntry;
use vidar_media::container::fmp4::progressive;
use vidar_media::container::mkv::fixed;

/// A frame or packet of a stream of a file, as ffmpeg sees it.
#[derive(Debug, Clone, PartialEq)]
struct Seen {
    stream: usize,
    pts_s: f64,
    hash: String,
}

/// Decoded pictures and undecoded sound.
fn look(path: &std::path::Path, input: &[&str]) -> Vec<Seen> {
    let output = Command::new("ffmpeg")
        .args(["-v", "error"])
        .args(input)
        .arg("-i")
        .arg(path)
        .args(["-map", "0", "-c:a", "copy", "-vsync", "passthrough", "-copyts", "-enc_time_base", "-1"])
        .args(["-f", "framemd5", "-"])
        .output()
        .expect("ffmpeg is installed");
    assert!(output.status.success(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
    assert!(output.stderr.is_empty(), "{path:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let mut bases = Vec::new();
    let mut seen = Vec::new();
    for line in text.lines() {
        if let Some(base) = line.strip_prefix("#tb ") {
            let (_, ratio) = base.split_once(": ").unwrap();
            let (num, den) = ratio.split_once('/').unwrap();
            bases.push(num.parse::<f64>().unwrap() / den.parse::<f64>().unwrap());
        } else if !line.starts_with('#') {
            let fields: Vec<&str> = line.split(',').map(str::trim).collect();
            let stream: usize = fields[0].parse().unwrap();
            let pts_s = fields[2].parse::<f64>().unwrap() * bases[stream];
            seen.push(Seen { stream, pts_s, hash: fields[5].to_owned() });
        }
    }
    seen
}

/// What of a source belongs to a clip: pictures from the one shown at `start` to before `end`, and sound beside them.
fn expected(source: &[Seen], range: (i64, i64)) -> (Vec<Seen>, Vec<Seen>) {
    let of = |stream: usize| {
        let mut seen: Vec<Seen> = source.iter().filter(|seen| seen.stream == stream).cloned().collect();
        seen.sort_by(|a, b| a.pts_s.total_cmp(&b.pts_s));
        seen
    };
    let pictures = of(0);
    // Producer time 0 is that of the first picture, in whole milliseconds.
    let zero_ms = (pictures[0].pts_s * 1000.0).round() as i64;
    let at_ms = |seen: &Seen| (seen.pts_s * 1000.0).round() as i64 - zero_ms;
    let first = pictures.iter().rposition(|seen| at_ms(seen) <= range.0).unwrap_or(0);
    let start_s = pictures[first].pts_s;
    let shift = |seen: &Seen| Seen { pts_s: seen.pts_s - start_s, ..seen.clone() };
    let shown: Vec<Seen> = pictures[first..].iter().filter(|seen| at_ms(seen) < range.1).map(shift).collect();
    let sound = of(1);
    let next_s = |index: usize| sound.get(index + 1).map_or(sound[index].pts_s + 0.02, |next| next.pts_s);
    // At the beginning of a run what a decoder needs to settle comes along, before the presentation.
    let after_start = |index: usize| first == 0 || next_s(index) > start_s + 0.0005;
    let heard = (0..sound.len()).filter(|index| after_start(*index) && at_ms(&sound[*index]) < range.1);
    (shown, heard.map(|index| shift(&sound[index])).collect())
}

fn compare(what: &str, found: &[Seen], expected: &[Seen], tolerance_s: f64) {
    let hashes = |seen: &[Seen]| seen.iter().map(|seen| seen.hash.clone()).collect::<Vec<_>>();
    let times = |seen: &[Seen]| seen.iter().map(|seen| (seen.pts_s * 1e6).round() / 1e6).collect::<Vec<_>>();
    assert_eq!(times(found).len(), expected.len(), "{what}: {:?}\n{:?}", times(found), times(expected));
    assert_eq!(hashes(found), hashes(expected), "{what}: {:?}\n{:?}", times(found), times(expected));
    for (found, expected) in found.iter().zip(expected) {
        assert!((found.pts_s - expected.pts_s).abs() <= tolerance_s, "{what}: {found:?} {expected:?}");
    }
}

/// Ranges spread over a clip: its edges, fragment borders, and what a fixed sequence gives.
fn ranges(entries: &[SharedEntry], count: u64) -> Vec<(i64, i64)> {
    let start = entries[0].meta.producer_start;
    let len = entries.last().unwrap().meta.producer_end().since_ms(start);
    let border = entries.get(1).map_or(len / 2, |entry| entry.meta.producer_start.since_ms(start));
    let mut ranges = vec![(0, len), (border, border + 500), (border - 1, border + 1), (0, 1)];
    let mut seed = 12_345_u64;
    let mut next = || {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (seed >> 33) as i64
    };
    ranges.extend((0..count).map(|_| {
        let from = next() % (len - 1);
        (from, from + 1 + next() % (len - from))
    }));
    ranges
}

fn of(found: &[Seen], stream: usize, from_s: f64) -> Vec<Seen> {
    let mut seen: Vec<Seen> =
        found.iter().filter(|seen| seen.stream == stream && seen.pts_s >= from_s).cloned().collect();
    seen.sort_by(|a, b| a.pts_s.total_cmp(&b.pts_s));
    seen
}

async fn check(clip: &str, random: u64) {
    let archive = Archive::new();
    let entries = archive.push(Push::new("cam", clip, START)).await;
    let source = look(&vidar_fixtures::path(clip), &[]);
    let dir = tempfile::tempdir().unwrap();
    for (index, range) in ranges(&entries, random).into_iter().enumerate() {
        let (start, end) = (START.plus_ms(range.0), START.plus_ms(range.1));
        let (shown, heard) = expected(&source, range);
        // Both ways every other time: most of this is the time ffmpeg takes.
        let containers: &[&str] = if index % 2 == 0 { &["mp4", "mkv"] } else { &["mp4"] };
        for container in containers {
            let what = format!("{clip} {range:?} {container}");
            let answer = archive.get(&format!("/v1/streams/cam/clip.{container}?start={start}&end={end}")).await;
            assert_eq!(answer.status, 200, "{what}: {:?}", answer.text());
            assert_eq!(answer.header("content-length"), answer.body.len().to_string(), "{what}");
            assert_eq!(answer.header("vidar-gaps"), "", "{what}");
            let path = dir.path().join(container);
            std::fs::write(&path, &answer.body).unwrap();
            let mut found = look(&path, &[]);
            if *container == "mkv" {
                // From the keyframe on; the header says how far it is to the start. A picture that others are decoded
                // from may come after the end, marked as invisible.
                let offset_s = answer.header("vidar-start-offset-ms").parse::<f64>().unwrap() / 1000.0;
                found.iter_mut().for_each(|seen| seen.pts_s -= offset_s);
                found.retain(|seen| seen.stream != 0 || seen.pts_s < (shown.last().unwrap().pts_s) + 0.001);
                let heard_from = heard.first().map_or(0.0, |seen| seen.pts_s - 0.0015);
                let heard_until = heard.last().map_or(0.0, |seen| seen.pts_s + 0.0015);
                found.retain(|seen| seen.stream != 1 || (heard_from..heard_until).contains(&seen.pts_s));
            }
            // Decoders of AV1 and VP9 in ffmpeg 5.1 also give out what precedes the edit.
            let pictures = of(&found, 0, -0.001);
            compare(&format!("{what} pictures"), &pictures, &shown, 0.001_01);
            // An edit shorter than a packet has no time of its own in ffmpeg.
            if heard.len() > 1 {
                compare(&format!("{what} sound"), &of(&found, 1, f64::MIN), &heard, 0.001_51);
            }
        }
    }
}

macro_rules! checks {
    ($($name:ident: $clip:expr, $random:expr;)*) => {
        $(#[tokio::test]
        async fn $name() {
            check($clip, $random).await;
        })*
    };
}

checks! {
    h264_with_b_frames_and_aac: "bbb.mkv", 4;
    h264_open_gop: "h264_open_gop.mkv", 4;
    h264_pyramid: "h264_pyramid.mkv", 1;
    h264_variable_rate: "h264_vfr.mkv", 3;
    h264_short_gop: "h264_short_gop.mkv", 2;
    h264_long_gop: "h264_long_gop.mkv", 2;
    h265_open_gop: "h265_open_gop.mkv", 4;
    av1_and_opus: "av1_opus.mkv", 2;
    vp9_and_opus: "vp9_opus.webm", 2;
    late_audio: "late_audio.mkv", 2;
    h264_in_mp4: "h264_open_gop.mp4", 2;
    h265_in_mp4: "h265.mp4", 1;
}

#[tokio::test]
async fn edit_lists() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("edits.mp4");
    let made = Command::new("ffmpeg")
        .args(["-v", "error", "-i"])
        .arg(vidar_fixtures::path("bbb.mkv"))
        .args(["-c", "copy", "-movflags", "+frag_keyframe+delay_moov+default_base_moof"])
        .arg(&path)
        .status();
    assert!(made.expect("ffmpeg is installed").success());
    check(path.to_str().unwrap(), 2).await;
}

#[tokio::test]
async fn sound_alone() {
    let clips = ["aac.mkv", "aac.mp4", "opus.mkv", "mp3.mkv", "pcm_alaw.mkv", "pcm_mulaw.mkv", "pcm_s16le.mkv"];
    for clip in clips.map(|name| format!("audio_{name}")) {
        let archive = Archive::new();
        let entries = archive.push(Push::new("cam", &clip, START)).await;
        let source = look(&vidar_fixtures::path(&clip), &[]);
        let dir = tempfile::tempdir().unwrap();
        for range in ranges(&entries, 1) {
            let (shown, _) = expected(&source, range);
            for container in ["mp4", "mkv"] {
                // ffmpeg 5.1 does not know the entries of ISO/IEC 23003-5.
                if clip.contains("s16le") && container == "mp4" {
                    continue;
                }
                let (start, end) = (START.plus_ms(range.0), START.plus_ms(range.1));
                let answer = archive.get(&format!("/v1/streams/cam/clip.{container}?start={start}&end={end}")).await;
                let path = dir.path().join(container);
                std::fs::write(&path, &answer.body).unwrap();
                let mut found = look(&path, &[]);
                let first_s = found[0].pts_s;
                found.iter_mut().for_each(|seen| seen.pts_s -= first_s);
                compare(&format!("{clip} {range:?} {container}"), &found, &shown, 0.001_51);
            }
        }
    }
}

/// Two runs with a gap between them: each track of the second starts as far after the other as in the source.
#[tokio::test]
async fn tracks_stay_together_across_a_gap() {
    let archive = Archive::new();
    for start_ms in [0, 60_000, 100_000] {
        archive.push(Push::new("cam", "h264_open_gop.mkv", START.plus_ms(start_ms))).await;
    }
    let source = look(&vidar_fixtures::path("h264_open_gop.mkv"), &[]);
    let first_s = |stream: usize| of(&source, stream, f64::MIN)[0].pts_s;
    let dir = tempfile::tempdir().unwrap();
    for container in ["mp4", "mkv"] {
        let answer = archive.get(&format!("/v1/streams/cam/clip.{container}")).await;
        assert_eq!(answer.status, 200);
        let path = dir.path().join(container);
        std::fs::write(&path, &answer.body).unwrap();
        let found = look(&path, &[]);
        let hash = |stream: usize| of(&source, stream, first_s(0))[0].hash.clone();
        let starts = |stream: usize| -> Vec<f64> {
            of(&found, stream, f64::MIN).iter().filter(|s| s.hash == hash(stream)).map(|s| s.pts_s).collect()
        };
        // Test pictures and a tone: the first of each is the only one of its kind in a run.
        let (pictures, sounds) = (starts(0), starts(1));
        assert_eq!((pictures.len(), sounds.len()), (3, 3), "{container}");
        for (picture, sound) in pictures.iter().zip(&sounds) {
            assert!((picture - sound).abs() < 0.002, "{container}: {pictures:?} {sounds:?}");
        }
        // Right after one another: 6 s each.
        for pair in pictures.windows(2) {
            assert!((5.99..6.07).contains(&(pair[1] - pair[0])), "{container}: {pictures:?}");
        }
        let all = of(&found, 0, f64::MIN);
        assert_eq!(all.len(), 3 * 150, "{container}");
    }
}

/// Entity tags are of the version, not of the bytes: who changes those raises `FORMAT_VERSION` where they are made.
#[tokio::test]
async fn the_bytes_of_clips_change_only_with_their_version() {
    let archive = Archive::new();
    for (number, clip) in (0..).zip(["h264_open_gop.mkv", "bbb.mkv"]) {
        archive.push(Push::new("cam", clip, START.plus_ms(60_000 * number))).await;
    }
    let end = START.plus_ms(63_000);
    let mut seen = Vec::new();
    for (file, version) in [("clip.mp4", progressive::FORMAT_VERSION), ("clip.mkv", fixed::FORMAT_VERSION)] {
        let clip = archive.get(&format!("/v1/streams/cam/{file}?start={}&end={end}", START.plus_ms(1_500))).await;
        let digest = ring::digest::digest(&ring::digest::SHA256, &clip.body);
        let digest: String = digest.as_ref().iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        seen.push(format!("{file} {version} {digest}"));
    }
    assert_eq!(seen, ["clip.mp4 2 3da0f4a0e48d18d6", "clip.mkv 2 689a0f03c2f0efee"]);
}
