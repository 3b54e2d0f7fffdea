//! Pictures: which one is shown, and that it is decoded to the right pixels.
#![cfg(feature = "gst")]

mod support;

use std::io::Write as _;
use std::process::{Command, Stdio};

use support::{Archive, Push, START};
use vidar_core::time::UnixMs;
use vidar_fixtures::path;
use vidar_media::fragmenter::Options;

/// Frames of a clip as raw grey pictures of 16 by 16, and their times in milliseconds, in order of presentation.
fn frames(clip: &str) -> Vec<(i64, Vec<u8>)> {
    let clip = path(clip);
    let clip = clip.to_str().unwrap();
    let grey = ["-vf", "format=rgb24,scale=16:16,format=gray", "-vsync", "passthrough", "-f", "rawvideo", "-"];
    let pixels = run("ffmpeg", &[&["-v", "error", "-i", clip][..], &grey].concat(), b"");
    let entries = ["-select_streams", "v", "-show_entries", "frame=best_effort_timestamp_time", "-of", "csv=p=0"];
    let times = run("ffprobe", &[&["-v", "error"][..], &entries, &[clip]].concat(), b"");
    let times = String::from_utf8(times).unwrap();
    // Side data makes lines of its own.
    let seconds = times.lines().filter_map(|line| line.trim_matches(',').parse::<f64>().ok());
    let times: Vec<i64> = seconds.map(|seconds| (seconds * 1000.0).round() as i64).collect();
    assert_eq!(times.len(), pixels.len() / 256);
    times.into_iter().zip(pixels.chunks_exact(256).map(<[u8]>::to_vec)).collect()
}

fn grey(image: &[u8]) -> Vec<u8> {
    let pipe = [
        "-v",
        "error",
        "-f",
        "image2pipe",
        "-i",
        "-",
        "-vf",
        "format=rgb24,scale=16:16,format=gray",
        "-f",
        "rawvideo",
        "-",
    ];
    run("ffmpeg", &pipe, image)
}

fn run(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let mut command = Command::new(program);
    let mut child = command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect(program);
    let mut stdin = child.stdin.take().unwrap();
    let input = input.to_vec();
    let writer = std::thread::spawn(move || stdin.write_all(&input));
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    let _ = writer.join();
    output.stdout
}

/// Mean difference of two pictures.
fn distance(a: &[u8], b: &[u8]) -> f64 {
    assert_eq!(a.len(), b.len());
    a.iter().zip(b).map(|(a, b)| f64::from(a.abs_diff(*b))).sum::<f64>() / a.len() as f64
}

/// The picture looks like the frame of that time, and more so than like those around it (colours differ a little from
/// decoder to decoder, and some frames hardly from the next).
fn assert_shows(frames: &[(i64, Vec<u8>)], picture: &[u8], ms: i64, context: &str) {
    let near = frames.iter().filter(|(other, _)| (other - ms).abs() <= 600);
    let near: Vec<(i64, f64)> = near.map(|(other, frame)| (*other, distance(frame, picture))).collect();
    let off = near.iter().find(|(other, _)| *other == ms).expect("a frame of that time").1;
    assert!(off < 12.0, "{context}: {off}");
    let (best, least) = near.iter().copied().min_by(|a, b| a.1.total_cmp(&b.1)).unwrap();
    assert!(off <= least + 0.1, "{context}: {ms} is {off} off, {best} is {least} off");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_picture_at_an_instant_is_the_last_one_begun() {
    // The start; within a GOP; just before, at and after the second keyframe; the end; long after it.
    let many = &[0, 1, 39, 41, 500, 1_959, 1_999, 2_000, 2_041, 3_333, 3_990, 90_000][..];
    let few = &[0, 1_959, 2_000, 3_333][..];
    for (clip, instants) in [
        ("bbb.mkv", few),
        ("h264_open_gop.mkv", many),
        ("h264_pyramid.mkv", few),
        ("h265_open_gop.mkv", many),
        ("av1_opus.mkv", few),
        ("vp9_opus.webm", few),
        ("vp8_vorbis.webm", few),
    ] {
        let archive = Archive::new();
        archive.push(Push::new("cam", clip, START)).await;
        let frames = frames(clip);
        let first_ms = frames[0].0;
        for at_ms in instants.iter().copied() {
            let at = START.plus_ms(at_ms);
            let answer = archive.get(&format!("/v1/streams/cam/image.png?at={at}")).await;
            assert_eq!(answer.status, 200, "{clip} {at_ms}: {:?}", answer.body);
            assert_eq!(answer.header("content-type"), "image/png");
            let expected_ms = frames.iter().map(|(ms, _)| ms - first_ms).filter(|ms| *ms <= at_ms).max().unwrap();
            let time = UnixMs::parse(answer.header("vidar-picture-time")).unwrap();
            assert_eq!(time.since_ms(START), expected_ms, "{clip} {at_ms}");
            assert_shows(&frames, &grey(&answer.body), expected_ms + first_ms, &format!("{clip} {at_ms}"));
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_in_a_long_gop_is_decoded_from_its_keyframe() {
    let archive = Archive::new();
    let options = Options { fragment_duration_ms_max: 5_000, ..Options::default() };
    let entries = archive.push(Push { options, ..Push::new("cam", "h264_long_gop.mkv", START) }).await;
    assert!(entries.len() > 3);
    let frames = frames("h264_long_gop.mkv");
    let answer = archive.get(&format!("/v1/streams/cam/image.jpg?at={}", START.plus_ms(17_300))).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), "image/jpeg");
    assert_eq!(answer.header("vidar-picture-time"), START.plus_ms(17_200).to_string());
    assert_shows(&frames, &grey(&answer.body), 17_200, "long");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_picture_is_scaled_to_a_width_and_tagged() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let uri = format!("/v1/streams/cam/image.png?at={START}&width=100");
    let answer = archive.get(&uri).await;
    // The sizes in a PNG's header (ISO/IEC 15948 section 11.2.2).
    let side = |at: usize| u32::from_be_bytes(answer.body[at..at + 4].try_into().unwrap());
    assert_eq!((side(16), side(20)), (100, 56));
    let pair = base64::Engine::encode(&base64::prelude::BASE64_STANDARD, "root:secret");
    let request = http::Request::get(&uri).header("authorization", format!("Basic {pair}"));
    let request = request.header("if-none-match", answer.header("etag")).body(axum::body::Body::empty()).unwrap();
    assert_eq!(archive.send_raw(request).await.status, 304);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_cannot_be_decoded_is_said() {
    let archive = Archive::new();
    archive.push(Push::new("sound", "audio_aac.mkv", START)).await;
    assert_eq!(archive.get("/v1/streams/sound/image.jpg").await.status, 404);
    let entries = archive.push(Push::new("cam", "bbb.mkv", START)).await;
    archive.source.damage(entries[0].meta.number);
    assert_eq!(archive.get(&format!("/v1/streams/cam/image.jpg?at={START}")).await.status, 500);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_pictures_at_once_wait_for_their_turn() {
    let archive = std::sync::Arc::new(Archive::new());
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    let ask = |index: i64| {
        let archive = archive.clone();
        async move { archive.get(&format!("/v1/streams/cam/image.jpg?at={}", START.plus_ms(index * 300))).await.status }
    };
    let answers = futures::future::join_all((0..12).map(ask)).await;
    assert!(answers.iter().all(|status| *status == 200), "{answers:?}");
}
