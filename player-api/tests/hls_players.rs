//! HLS as ffmpeg plays it, over a socket.

mod support;

use std::process::Command;
use std::sync::Arc;

use support::{Archive, Push, START};
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
    let token = archive.api.auth.sign(&format!("/v1/streams/{stream}"), UnixMs(i64::MAX));
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
