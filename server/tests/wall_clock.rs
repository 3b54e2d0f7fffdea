//! Where the times of fragments come from, as real clients give them.

mod common;

use common::{Pusher, start};

#[test]
fn fragments_say_where_their_wall_clock_comes_from() {
    let vidar = start();
    let file = vidar_fixtures::path("bbb.mkv");
    let path = file.to_str().expect("a UTF-8 path");
    let url = vidar.rtsp_url("rtsp");
    let pushed = Pusher::ffmpeg(&["-i", path, "-c", "copy", "-f", "rtsp", "-rtsp_transport", "tcp", &url]).wait();
    assert!(pushed);
    vidar.until("the end of the push", |v| v.json("/v1/pushes")["pushes"].as_array()?.is_empty().then_some(()));
    let fragments = vidar.fragments("rtsp");
    assert!(fragments.len() > 1);
    // ffmpeg sends a sender report before its first packet.
    for fragment in &fragments {
        assert_eq!(fragment["wall_source"], "sender_report", "{fragment}");
        assert!(fragment["wall_offset_ms"].is_i64(), "{fragment}");
    }

    assert_eq!(vidar.push("given", "?start=2026-01-01T00:00:00Z", &file).0, 200);
    for fragment in vidar.fragments("given") {
        assert_eq!((&fragment["wall_source"], &fragment["wall_offset_ms"]), (&"given".into(), &0.into()), "{fragment}");
    }
}
