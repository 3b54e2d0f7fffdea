//! The console in Chromium: signing in, the wall, the picture of an instant, export, search, retention, accessibility.
//!
//! It takes the pages (`scripts/web`), Node.js with `npm ci` in `server/tests/console`, and Chromium. `scripts/test` brings them
//! the first two where npm is. Elsewhere this says nothing, unless VIDAR_TEST_BROWSER is set: then it fails.

mod common;

use common::{ID, Pusher, SECRET, ffmpeg, node, start};

#[test]
fn people_watch_seek_export_and_search() {
    let vidar = start();
    let (_, page) = vidar.request(&[], "/console/");
    let is_built = String::from_utf8(page).expect("UTF-8").contains("/console/assets/");
    let is_built = node::wanted(is_built, "console");
    let (Some(folder), Some(browser), true) = (node::folder("console"), node::chromium(), is_built) else { return };
    let dir = tempfile::tempdir().expect("a temporary directory");
    let clip = dir.path().join("grey.mkv");
    let grey = "color=s=160x90:r=25:d=10,geq=lum='32+20*floor(T)':cb=128:cr=128,format=yuv420p";
    let coding = ["-c:v", "libx264", "-g", "25", "-sc_threshold", "0", "-bf", "0"];
    ffmpeg(&[&["-f", "lavfi", "-i", grey], &coding[..], &[clip.to_str().expect("UTF-8")]].concat());
    let (status, lines) = vidar.push("grey", "?start=2026-01-01T12:00:00Z", &clip);
    assert_eq!(status, 200, "{lines:?}");
    vidar.until("the index", |vidar| {
        let found = vidar.json("/v1/search?q=kind:fragment%20stream:grey");
        (found["total"] == 10).then_some(())
    });
    // A camera beside it, for the head.
    let url = vidar.rtsp_url("camera");
    let camera = ["-re", "-f", "lavfi", "-i", "testsrc2=s=160x90:r=50", "-c:v", "libx264", "-preset", "ultrafast"];
    let out = ["-tune", "zerolatency", "-g", "50", "-f", "rtsp", "-rtsp_transport", "tcp", &url];
    let _camera = Pusher::ffmpeg(&[&camera[..], &out].concat());
    vidar.until("the camera", |vidar| {
        let (status, _) = vidar.request(&[], "/v1/streams/camera/hls/live.m3u8");
        (status == 200).then_some(())
    });
    let url = format!("http://{}", vidar.http);
    node::run(&folder, "console.mjs", &[&url, ID, SECRET, browser], &[]);
}
