//! Real publishers against the server: what they push comes out unit for unit, on time.

mod rtsp_common;

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use rtsp_common::{Folder, Run, Server, Store, assert_same, codecs, probe, run};
use tokio::process::Command;
use vidar_media::{Codec, SyncKind};

async fn ffmpeg(clip: &Path, url: &str, transport: &str) -> Result<Vec<u8>, String> {
    // As fast as it goes on TCP; UDP at 4 times real time, or the loopback drops.
    ffmpeg_at(clip, url, transport, if transport == "udp" { Some("4") } else { None }).await
}

async fn ffmpeg_at(clip: &Path, url: &str, transport: &str, rate: Option<&str>) -> Result<Vec<u8>, String> {
    let rate = rate.map(|rate| vec!["-readrate", rate]).unwrap_or_default();
    let input = ["-i", clip.to_str().unwrap(), "-map", "0", "-c", "copy"];
    let output = ["-f", "rtsp", "-rtsp_transport", transport, url];
    run("ffmpeg", &[&["-hide_banner", "-v", "error"][..], &rate, &input, &output].concat()).await
}

/// Pushes a clip with rtspclientsink, each pad through a parser, until all of it has come.
///
/// Version 1.22 hangs at its end now and then, or stumbles over its own PAUSE, whatever the server: how it ends is no
/// part of the test.
async fn gstreamer(clip: &Path, transport: &str, pads: &[(&str, &str)], counts: &[usize]) -> Run {
    // Its first reports come within 3.1 s; a busy machine may need longer.
    let server = Server::with(Store::Takes, |options| options.report_wait = Duration::from_secs(15)).await;
    let (location, protocols) = (format!("location={}", server.url("cam")), format!("protocols={transport}"));
    let source = format!("location={}", clip.to_str().unwrap());
    let mut pipeline = format!("-q filesrc {source} ! matroskademux name=d ");
    for (at, (pad, parser)) in pads.iter().enumerate() {
        pipeline.push_str(&format!("d.{pad} ! {parser} ! queue ! s.sink_{at} "));
    }
    pipeline.push_str(&format!("rtspclientsink name=s {location} {protocols}"));
    let mut command = Command::new("gst-launch-1.0");
    let mut gst = command
        .args(pipeline.split(' '))
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .unwrap();
    let total: usize = counts.iter().sum();
    server.run_when(|run| run.samples(0).len() + run.samples(1).len() >= total || run.finished.is_some()).await;
    let _ = gst.start_kill();
    gst.wait().await.unwrap();
    server.finished().await
}

/// What ffmpeg's names mean: the codec, and for NAL units whether it is H.265. None if ffmpeg has no RTP for it, or we
/// read none.
fn known(codec: &str) -> Option<(Codec, Option<bool>)> {
    Some(match codec {
        "h264" => (Codec::H264, Some(false)),
        "hevc" => (Codec::H265, Some(true)),
        "aac" => (Codec::Aac, None),
        "opus" => (Codec::Opus, None),
        "mp3" => (Codec::Mp3, None),
        "pcm_alaw" => (Codec::G711Alaw, None),
        "pcm_mulaw" => (Codec::G711Ulaw, None),
        _ => return None,
    })
}

/// Clips of every codec and pattern, those of `VIDAR_CORPUS` among them.
#[tokio::test(flavor = "multi_thread")]
async fn every_clip_over_tcp() {
    let mut pushed = Vec::new();
    for some in vidar_fixtures::corpus(&["mkv", "mp4"]).chunks(4) {
        let checks = some.iter().map(|clip| push_and_compare(clip));
        pushed.extend(futures::future::join_all(checks).await.concat());
    }
    for codec in ["h264", "h265", "aac", "opus", "mp3", "pcma", "pcmu"] {
        assert!(pushed.contains(&codec), "{codec}");
    }
}

/// The codecs of the clip; none if it has others than we read.
async fn push_and_compare(clip: &Path) -> Vec<&'static str> {
    let codecs = codecs(clip).await;
    let Some(tracks) = codecs.iter().map(|codec| known(codec)).collect::<Option<Vec<_>>>() else { return Vec::new() };
    let server = Server::start().await;
    ffmpeg(clip, &server.url("cam"), "tcp").await.unwrap();
    let run = server.finished().await;
    assert_eq!(run.finished, Some((true, "TEARDOWN".to_owned())), "{clip:?}");
    assert_eq!((&run.stream[..], run.user_agent.starts_with("Lavf"), run.lost()), ("cam", true, 0), "{clip:?}");
    let packets = probe(clip).await;
    assert_eq!(
        run.config().tracks.iter().map(|t| t.codec).collect::<Vec<_>>(),
        tracks.iter().map(|t| t.0).collect::<Vec<_>>()
    );
    if let [(Codec::G711Alaw | Codec::G711Ulaw, _)] = tracks[..] {
        // Cut anew into packets: the bytes are the same.
        let bytes = run.samples(0).iter().map(|sample| &sample.data[..]).collect::<Vec<_>>().concat();
        assert!(bytes == packets.iter().map(|packet| &packet.data[..]).collect::<Vec<_>>().concat(), "{clip:?}");
    } else {
        let tracks: Vec<_> = tracks.iter().enumerate().map(|(stream, (_, nals))| (stream, *nals)).collect();
        assert_same(&run, &packets, &tracks, 1.0);
    }
    assert!(run.samples(0)[0].sync == SyncKind::Sync && run.walls().len() >= tracks.len(), "{clip:?}");
    let firsts = (0..tracks.len()).map(|track| run.samples(track)[0].presentation_ticks);
    assert_eq!(firsts.min(), Some(0), "{clip:?}: the earliest stands at 0");
    tracks.into_iter().map(|(codec, _)| codec.name()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_over_udp() {
    let folder = Folder::new();
    let clip = folder.cut(&["bbb.mkv"], "4").await;
    let server = Server::start().await;
    ffmpeg(&clip, &server.url("cam-1"), "udp").await.unwrap();
    let run = server.finished().await;
    assert_eq!((run.finished.clone(), run.lost()), (Some((true, "TEARDOWN".to_owned())), 0));
    assert_same(&run, &probe(&clip).await, &[(0, Some(false)), (1, None)], 1.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_h264_and_latm_over_tcp_and_udp() {
    let folder = Folder::new();
    let clip = folder.cut(&["h264_vfr.mkv", "audio_aac.mkv"], "4").await;
    let packets = probe(&clip).await;
    let counts = [0, 1].map(|stream| packets.iter().filter(|packet| packet.stream == stream).count());
    let pads = [("video_0", "h264parse"), ("audio_0", "aacparse")];
    let pushes = ["tcp", "udp"].map(|transport| gstreamer(&clip, transport, &pads, &counts));
    for run in futures::future::join_all(pushes).await {
        assert_eq!((run.user_agent.split('/').next().unwrap_or_default(), run.lost()), ("GStreamer", 0));
        // The order of its sections is that of its threads.
        let tracks = match run.config().tracks[0].codec {
            Codec::H264 => [(0, Some(false)), (1, None)],
            _ => [(1, None), (0, Some(false))],
        };
        assert_same(&run, &packets, &tracks, 1.0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_h265() {
    let folder = Folder::new();
    let clip = folder.cut(&["h265_open_gop.mkv"], "2").await;
    let video: Vec<_> = probe(&clip).await.into_iter().filter(|packet| packet.stream == 0).collect();
    let run = gstreamer(&clip, "tcp", &[("video_0", "h265parse")], &[video.len()]).await;
    // The first two frames of this clip are 21 ms early as matroskademux gives them.
    assert_same(&run, &video, &[(0, Some(true))], 22.0);
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_is_told_no() {
    let clip = vidar_fixtures::path("h264_short_gop.mkv");
    let server = Server::start().await;
    let wrong = server.url("cam").replace("s3cret", "wrong");
    assert!(ffmpeg(&clip, &wrong, "tcp").await.unwrap_err().contains("401"));
    assert!(ffmpeg(&clip, &server.url("a%20b"), "tcp").await.is_err());
    assert_eq!(server.run_count(), 0);
    let refusing = Server::with(Store::Refuses(409), |_| {}).await;
    assert!(ffmpeg(&clip, &refusing.url("cam"), "tcp").await.unwrap_err().contains("455"));
    let full = Server::with(Store::FailsAt(7), |_| {}).await;
    assert!(ffmpeg_at(&clip, &full.url("cam"), "tcp", Some("1")).await.is_err());
    assert_eq!(full.finished().await.finished, Some((false, "the disk is full".to_owned())));
}
