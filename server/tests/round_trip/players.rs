//! What players of the real binary show: HLS of a range and of the live edge by ffmpeg, and single pictures.

use std::path::Path;

use serde_json::Value;

use crate::common::{Pusher, Vidar, assert_lists, ffmpeg, start};
use crate::compare::{decoded, tracks};
use crate::push::text;

/// A URL that needs no credentials, as a player gets it.
fn signed(vidar: &Vidar, stream: &str, path: &str) -> String {
    let ask = format!(r#"{{"path_prefix": "/v1/streams/{stream}", "expires_s": 600}}"#);
    let (status, body) = vidar.request(&["-d", &ask, "-H", "content-type: application/json"], "/v1/sign");
    assert_eq!(status, 200, "{}", String::from_utf8_lossy(&body));
    let answer: Value = serde_json::from_slice(&body).expect("JSON");
    let suffix = answer["url_suffix"].as_str().expect("a suffix");
    format!("http://{}/v1/streams/{stream}/{path}{suffix}", vidar.http)
}

#[test]
fn ffmpeg_plays_a_range_by_hls() {
    let vidar = start();
    for name in ["bbb.mkv", "bbb.ts", "h264_open_gop.mp4", "h265_open_gop.mkv", "av1_opus.mkv", "vp9_opus.webm"] {
        let (file, stream) = (vidar_fixtures::path(name), name.replace('.', "-"));
        let (status, lines) = vidar.push(&stream, "", &file);
        assert_eq!(status, 200, "{name}: {lines:?}");
        let url = signed(&vidar, &stream, "hls/index.m3u8");
        let sorted = |input: &str| {
            let mut tracks = tracks(input);
            tracks.sort();
            tracks
        };
        assert_eq!(sorted(&url), sorted(text(&file)), "{name}");
        for kind in ["video", "audio"] {
            let what = format!("{name}: {kind}");
            assert_lists(&what, &decoded(text(&file), kind, &[]), &decoded(&url, kind, &[]));
        }
    }
}

/// A camera in real time, and a player that begins when there is something to play.
#[test]
fn ffmpeg_plays_the_live_edge_by_hls() {
    let vidar = start();
    let file = vidar_fixtures::path("bbb.mkv");
    let url = vidar.rtsp_url("cam");
    let camera = ["-re", "-i", text(&file), "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", &url];
    let camera = Pusher::ffmpeg(&camera);
    vidar.until("a fragment", |vidar| {
        let (status, body) = vidar.request(&[], "/v1/streams/cam/fragments");
        let answer: Value = serde_json::from_slice(&body).expect("JSON");
        (status == 200 && !answer["fragments"].as_array()?.is_empty()).then_some(())
    });
    // Three of its four GOPs of 2 s: a player of a live stream waits for more at its end.
    let url = signed(&vidar, "cam", "hls/live.m3u8");
    let args = ["-live_start_index", "0", "-i", &url, "-map", "0:v", "-frames:v", "125", "-f", "framemd5", "-"];
    let text_of = String::from_utf8(ffmpeg(&args)).expect("UTF-8");
    let rows = text_of.lines().filter(|line| !line.starts_with('#'));
    let found: Vec<String> = rows.map(|line| line.rsplit(", ").next().unwrap_or_default().to_owned()).collect();
    assert_lists("live", &decoded(text(&file), "video", &[])[..125], &found);
    assert!(camera.wait(), "the camera is told that all is well");
}

#[test]
fn a_picture_is_the_one_shown_then() {
    let vidar = start();
    for name in ["h264_open_gop.mkv", "h265_open_gop.mkv", "vp9_opus.webm"] {
        let (file, stream) = (vidar_fixtures::path(name), name.replace('.', "-"));
        let (status, _) = vidar.push(&stream, "?start=2026-01-01T00:00:00Z", &file);
        assert_eq!(status, 200, "{name}");
        // Every 40 ms a picture: the 68th, between two keyframes.
        let (status, jpeg) = vidar.request(&[], &format!("/v1/streams/{stream}/image.jpg?at=2026-01-01T00:00:02.700Z"));
        assert_eq!(status, 200, "{name}");
        let own = tempfile::tempdir().expect("a temporary directory");
        let path = own.path().join("at.jpg");
        std::fs::write(&path, jpeg).expect("written");
        let (frames, picture) = (small(&file), small(&path));
        let distance = |frame: &[u8]| frame.iter().zip(&picture).map(|(a, b)| u32::from(a.abs_diff(*b))).sum::<u32>();
        let distances: Vec<u32> = frames.chunks_exact(picture.len()).map(distance).collect();
        let nearest = (0..distances.len()).min_by_key(|index| distances[*index]).expect("pictures");
        assert_eq!(nearest, 67, "{name}: {distances:?}");
    }
}

/// Pictures in grey, 32 by 32.
fn small(file: &Path) -> Vec<u8> {
    let grey = ["-vf", "format=rgb24,scale=32:32,format=gray", "-vsync", "passthrough", "-f", "rawvideo", "-"];
    ffmpeg(&[&["-i", text(file), "-map", "0:v"], &grey[..]].concat())
}
