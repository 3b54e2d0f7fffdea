//! HLS as ffmpeg plays it, over a socket.

mod support;

use std::process::Command;
use std::sync::Arc;

use support::{Archive, Push, START};
use vidar_core::auth::Principal;
use vidar_core::time::UnixMs;
use vidar_fixtures::path;

/// Size and hash of every packet or frame of a track.
fn hashes(input: &str, map: &str, copy: bool) -> Vec<(String, String)> {
    let mut arguments = vec!["-v", "error", "-i", input, "-map", map];
    if copy {
        arguments.extend(["-c", "copy"]);
    }
    arguments.extend(["-vsync", "passthrough", "-f", "framemd5", "-"]);
    let output = Command::new("ffmpeg").args(&arguments).output().expect("ffmpeg");
    assert!(output.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let rows = text.lines().filter(|line| !line.starts_with('#')).map(|line| {
        // Stream, decode time, presentation time, duration, size, hash; then side data.
        let columns: Vec<&str> = line.split(',').map(str::trim).collect();
        (columns[4].to_owned(), columns[5].to_owned())
    });
    rows.collect()
}

fn assert_same(found: &[(String, String)], expected: &[(String, String)], clip: &str) {
    let differs = found.iter().zip(expected).position(|(a, b)| a != b);
    assert_eq!((found.len(), differs), (expected.len(), None), "{clip}: count, first that differs");
}

/// Serves an archive on a port of the loopback interface until it is dropped.
struct Served {
    address: String,
    task: tokio::task::JoinHandle<()>,
}

impl Served {
    async fn new(archive: &Archive) -> Self {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let router = archive.router.clone();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        Self { address, task }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn token(archive: &Archive, stream: &str) -> String {
    let token = archive.api.auth.sign(&Principal::root("test"), &format!("/v1/streams/{stream}"), UnixMs(i64::MAX));
    percent_encoding::utf8_percent_encode(&token, percent_encoding::NON_ALPHANUMERIC).to_string()
}

async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_a_range_frame_by_frame() {
    for (clip, audio) in [
        ("bbb.mkv", true),
        ("h264_pyramid.mkv", true),
        ("h265_open_gop.mkv", true),
        ("av1_opus.mkv", true),
        ("vp9_opus.webm", true),
        ("h264_vfr.mkv", false),
    ] {
        let archive = Archive::new();
        archive.push(Push::new("cam", clip, START)).await;
        let served = Served::new(&archive).await;
        let url = format!("http://{}/v1/streams/cam/hls/index.m3u8?token={}", served.address, token(&archive, "cam"));
        let source = path(clip).to_str().unwrap().to_owned();
        blocking(move || {
            let pictures = hashes(&source, "0:v", false);
            assert!(pictures.len() > 20);
            assert_same(&hashes(&url, "0:v", false), &pictures, clip);
            if audio {
                assert_same(&hashes(&url, "0:a", true), &hashes(&source, "0:a", true), clip);
            }
        })
        .await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_across_runs() {
    let archive = Archive::new();
    archive.push(Push::new("cam", "bbb.mkv", START)).await;
    archive.push(Push::new("cam", "h264_ip.mkv", START.plus_ms(3_600_000))).await;
    let served = Served::new(&archive).await;
    let url = format!("http://{}/v1/streams/cam/hls/v1/index.m3u8?token={}", served.address, token(&archive, "cam"));
    let sources = ["bbb.mkv", "h264_ip.mkv"].map(|clip| path(clip).to_str().unwrap().to_owned());
    blocking(move || {
        let expected: Vec<String> =
            sources.iter().flat_map(|source| hashes(source, "0:v", false)).map(|row| row.1).collect();
        let output = Command::new("ffprobe")
            .args(["-v", "error", "-count_packets", "-show_entries", "stream=nb_read_packets", "-of", "csv=p=0", &url])
            .output()
            .expect("ffprobe");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let packets = String::from_utf8(output.stdout).unwrap();
        assert_eq!(packets.lines().next().unwrap().trim_matches(','), expected.len().to_string());
    })
    .await;
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_plays_a_live_window() {
    let archive = Arc::new(Archive::new());
    archive.push(Push::new("cam", "h264_ip.mkv", START)).await;
    let served = Served::new(&archive).await;
    let url = format!("http://{}/v1/streams/cam/hls/live.m3u8?token={}", served.address, token(&archive, "cam"));
    let expected = {
        let source = path("h264_ip.mkv").to_str().unwrap().to_owned();
        blocking(move || hashes(&source, "0:v", false)).await
    };
    // From the first segment of the window. A player of a live stream waits for more at its end, so not to the end.
    let count = expected.len() - 50;
    let frames = count.to_string();
    let output = blocking(move || {
        let arguments = ["-v", "error", "-live_start_index", "0", "-i", &url, "-map", "0:v", "-frames:v", &frames];
        Command::new("ffmpeg").args(arguments).args(["-f", "framemd5", "-"]).output().expect("ffmpeg")
    })
    .await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).unwrap();
    let found: Vec<&str> =
        text.lines().filter(|line| !line.starts_with('#')).map(|line| line.rsplit(", ").next().unwrap()).collect();
    let expected: Vec<&str> = expected.iter().take(count).map(|(_, hash)| hash.as_str()).collect();
    assert!(found == expected, "{} of {count} pictures", found.len());
}

/// Kind, hash and presentation time (ms) of every packet.
fn packets(input: &str) -> Vec<(String, String, f64)> {
    let entries = "packet=codec_type,pts_time,data_hash";
    let arguments = ["-v", "error", "-show_packets", "-show_data_hash", "md5", "-show_entries", entries, "-of", "json"];
    let output = Command::new("ffprobe").args(arguments).arg(input).output().expect("ffprobe");
    assert!(output.status.success(), "{input}: {}", String::from_utf8_lossy(&output.stderr));
    let found: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |packet: &serde_json::Value, name: &str| packet[name].as_str().unwrap().to_owned();
    let packet = |packet: &serde_json::Value| {
        let ms = text(packet, "pts_time").parse::<f64>().unwrap() * 1000.0;
        (text(packet, "codec_type"), text(packet, "data_hash"), ms)
    };
    found["packets"].as_array().unwrap().iter().map(packet).collect()
}

/// Least and greatest distance of the packets of a kind from the same ones of another file.
fn distances(found: &[(String, String, f64)], other: &[(String, String, f64)], kind: &str) -> (f64, f64) {
    let count = |packets: &[(String, String, f64)], hash: &str| packets.iter().filter(|p| p.1 == hash).count();
    let alone = |hash: &str| count(found, hash) == 1 && count(other, hash) == 1;
    let pairs = found.iter().filter(|(of, hash, _)| of == kind && alone(hash));
    let distances: Vec<f64> =
        pairs.map(|(_, hash, ms)| ms - other.iter().find(|(_, of, _)| of == hash).unwrap().2).collect();
    assert!(distances.len() > 20, "{kind}: {} packets in both", distances.len());
    distances.iter().fold((f64::MAX, f64::MIN), |(min, max), ms| (min.min(*ms), max.max(*ms)))
}

#[tokio::test(flavor = "multi_thread")]
async fn sound_and_pictures_are_as_far_apart_as_in_a_clip() {
    let dir = tempfile::tempdir().unwrap();
    // Fragmented MP4 whose edit lists trim sound by 21 ms and delay pictures by 250 ms, and Opus with its pre-skip.
    // ffmpeg takes negative composition offsets without an edit list for late pictures: no clip with these.
    let edited = dir.path().join("edited.mp4");
    let edited = edited.to_str().unwrap().to_owned();
    let source = path("bbb.mkv").to_str().unwrap().to_owned();
    let made = blocking({
        let edited = edited.clone();
        move || {
            let arguments = ["-v", "error", "-i", &source, "-itsoffset", "0.25", "-i", &source];
            let rest = ["-map", "1:v", "-map", "0:a", "-c:v", "copy", "-c:a", "aac"];
            let flags = ["-movflags", "+frag_keyframe+delay_moov", &edited];
            Command::new("ffmpeg").args(arguments).args(rest).args(flags).status().expect("ffmpeg").success()
        }
    });
    assert!(made.await);
    for clip in [edited.as_str(), "av1_opus.mkv", "vp9_opus.webm"] {
        let archive = Archive::new();
        archive.push(Push::new("cam", clip, START)).await;
        let served = Served::new(&archive).await;
        let token = token(&archive, "cam");
        let url = |file: &str| format!("http://{}/v1/streams/cam/{file}?token={token}", served.address);
        let (hls, mp4) = (url("hls/index.m3u8"), url("clip.mp4"));
        let (hls, mp4) = blocking(move || (packets(&hls), packets(&mp4))).await;
        let (video, audio) = (distances(&hls, &mp4, "video"), distances(&hls, &mp4, "audio"));
        let spread = video.1.max(audio.1) - video.0.min(audio.0);
        assert!(spread < 1.5, "{clip}: pictures moved by {video:?} ms, sound by {audio:?} ms");
    }
}
