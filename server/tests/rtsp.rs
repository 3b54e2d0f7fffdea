//! RTSP pushes to the real server: what changes or stops in mid-stream, and who may come in.

mod common;

use common::{Pusher, Vidar, assert_lists, decoded, start};
use serde_json::Value;

fn ended(vidar: &Vidar) -> Option<()> {
    vidar.json("/v1/pushes")["pushes"].as_array()?.is_empty().then_some(())
}

/// One connection, two cameras: ffmpeg sends the new parameter sets ahead of the first keyframe that needs them.
#[test]
fn parameter_sets_that_change_begin_a_config() {
    let vidar = start();
    let dir = tempfile::tempdir().expect("a temporary directory");
    let list = dir.path().join("list.txt");
    let clips = ["bbb.mkv", "h264_short_gop.mkv"].map(|name| vidar_fixtures::path(name).display().to_string());
    let lines: String = clips.iter().map(|clip| format!("file '{clip}'\n")).collect();
    std::fs::write(&list, lines).expect("a list");
    let (list, url) = (list.to_str().expect("UTF-8"), vidar.rtsp_url("cam"));
    let input = ["-f", "concat", "-safe", "0", "-i", list, "-map", "0:v"];
    let args = [&input[..], &["-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", &url]].concat();
    assert!(Pusher::ffmpeg(&args).wait());
    vidar.until("the end of the push", ended);

    let fragments = vidar.fragments("cam");
    let size = |fragment: &Value| (fragment["tracks"][0]["width"].as_u64(), fragment["tracks"][0]["height"].as_u64());
    let mut sizes: Vec<_> = fragments.iter().map(size).collect();
    sizes.dedup();
    assert_eq!(sizes, [(Some(320), Some(180)), (Some(160), Some(120))], "{fragments:?}");
    let change = fragments.iter().find(|fragment| size(fragment) == sizes[1]).expect("a change");
    assert_eq!(change["starts_with_sync"], true, "{change}");
    assert_eq!(change["run"], fragments[0]["run"], "{change}");

    let at = change["producer_time"].as_str().expect("a time");
    for (clip, range) in clips.iter().zip([format!("end={at}"), format!("start={at}")]) {
        for container in ["mp4", "mkv"] {
            let url = vidar.url(&format!("/v1/streams/cam/clip.{container}?{range}"));
            assert_lists(&format!("{container} {range}"), &decoded(clip, "v"), &decoded(&url, "v"));
        }
    }
}
