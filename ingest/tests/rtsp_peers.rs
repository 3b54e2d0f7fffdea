//! Real publishers against the server: what they push comes out unit for unit, on time.

mod rtsp_common;

use std::path::Path;

use rtsp_common::{Folder, Server, Store, assert_same, probe, run};
use vidar_media::{Codec, SyncKind};

async fn ffmpeg(clip: &Path, url: &str, transport: &str) -> Result<Vec<u8>, String> {
    // As fast as it goes on TCP; UDP at 4 times real time, or the loopback drops.
    ffmpeg_at(clip, url, transport, if transport == "udp" { Some("4") } else { None }).await
}

async fn ffmpeg_at(clip: &Path, url: &str, transport: &str, rate: Option<&str>) -> Result<Vec<u8>, String> {
    let rate = rate.map(|rate| vec!["-readrate", rate]).unwrap_or_default();
    let input = ["-i", clip.to_str().unwrap(), "-c", "copy"];
    let output = ["-f", "rtsp", "-rtsp_transport", transport, url];
    run("ffmpeg", &[&["-hide_banner", "-v", "error"][..], &rate, &input, &output].concat()).await
}

/// A pipeline into rtspclientsink; `sink` is its name.
async fn gstreamer(clip: &Path, url: &str, transport: &str, pads: &[(&str, &str)]) -> Result<Vec<u8>, String> {
    let (location, protocols) = (format!("location={url}"), format!("protocols={transport}"));
    let source = format!("location={}", clip.to_str().unwrap());
    let mut arguments: Vec<String> = ["-q", "filesrc", &source, "!", "matroskademux", "name=d"].map(str::to_owned).into();
    for (at, (pad, parser)) in pads.iter().enumerate() {
        let branch = format!("d.{pad} ! {parser} ! queue ! s.sink_{at}");
        arguments.extend(branch.split(' ').map(str::to_owned));
    }
    arguments.extend(["rtspclientsink", "name=s", &location, &protocols].map(str::to_owned));
    run("gst-launch-1.0", &arguments.iter().map(String::as_str).collect::<Vec<_>>()).await
}

#[tokio::test(flavor = "multi_thread")]
async fn ffmpeg_h264_and_aac_over_tcp() {
    for fixture in ["bbb.mkv", "h264_open_gop.mkv", "h264_pyramid.mkv"] {
        let (server, clip) = (Server::start().await, vidar_fixtures::path(fixture));
        ffmpeg(&clip, &server.url("cam"), "tcp").await.unwrap();
        let run = server.finished().await;
        assert_eq!(run.finished, Some((true, "TEARDOWN".to_owned())));
        assert_eq!((&run.stream[..], run.user_agent.starts_with("Lavf"), run.lost()), ("cam", true, 0));
        let clip = probe(&clip).await;
        assert_same(&run, &clip, &[(0, Some(false)), (1, None)], 1.0);
        let config = run.config();
        assert_eq!([config.tracks[0].codec, config.tracks[1].codec], [Codec::H264, Codec::Aac]);
        assert!(run.samples(0).iter().chain(&run.samples(1)).all(|sample| sample.presentation_ticks >= 0));
        assert!(run.samples(0).iter().any(|sample| sample.presentation_ticks < 9000), "counts from 0");
        assert_eq!(run.samples(0)[0].sync, SyncKind::Sync);
        assert!(run.walls().len() >= 2, "each track has its clock");
    }
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
async fn ffmpeg_other_codecs() {
    for (fixture, tracks, codec) in [
        ("h265_open_gop.mkv", &[(0, Some(true)), (1, None)][..], Codec::H265),
        ("audio_opus.mkv", &[(0, None)], Codec::Opus),
        ("audio_pcm_alaw.mkv", &[(0, None)], Codec::G711Alaw),
        ("audio_pcm_mulaw.mkv", &[(0, None)], Codec::G711Ulaw),
        ("audio_mp3.mkv", &[(0, None)], Codec::Mp3),
        ("h264_vfr.mkv", &[(0, Some(false))], Codec::H264),
        ("late_audio.mkv", &[(0, Some(false)), (1, None)], Codec::H264),
    ] {
        let (server, clip) = (Server::start().await, vidar_fixtures::path(fixture));
        ffmpeg(&clip, &server.url("cam"), "tcp").await.unwrap();
        let run = server.finished().await;
        assert_eq!(run.lost(), 0, "{fixture}");
        assert_eq!(run.config().tracks[0].codec, codec);
        let clip = probe(&clip).await;
        if matches!(codec, Codec::G711Alaw | Codec::G711Ulaw) {
            // Cut anew into packets: the bytes are the same.
            let bytes = |samples: Vec<&[u8]>| samples.concat();
            let ours = bytes(run.samples(0).iter().map(|sample| &sample.data[..]).collect());
            assert!(ours == bytes(clip.iter().map(|packet| &packet.data[..]).collect()), "{fixture}");
        } else {
            assert_same(&run, &clip, tracks, 1.0);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_h264_and_latm_over_tcp_and_udp() {
    let folder = Folder::new();
    let clip = folder.cut(&["h264_short_gop.mkv", "audio_aac.mkv"], "2").await;
    let pushes = ["tcp", "udp"].map(|transport| {
        let clip = clip.clone();
        async move {
            let server = Server::start().await;
            let pads = [("video_0", "h264parse"), ("audio_0", "aacparse")];
            gstreamer(&clip, &server.url("cam"), transport, &pads).await.unwrap();
            let run = server.finished().await;
            assert_eq!((run.finished.as_ref().map(|(complete, _)| *complete), run.lost()), (Some(true), 0), "{transport}");
            let clip = probe(&clip).await;
            // The order of its sections is that of its threads.
            let tracks = match run.config().tracks[0].codec {
                Codec::H264 => [(0, Some(false)), (1, None)],
                _ => [(1, None), (0, Some(false))],
            };
            assert_same(&run, &clip, &tracks, 1.0);
        }
    });
    futures::future::join_all(pushes).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn gstreamer_h265() {
    let folder = Folder::new();
    let clip = folder.cut(&["h265_open_gop.mkv"], "2").await;
    let server = Server::start().await;
    gstreamer(&clip, &server.url("cam"), "tcp", &[("video_0", "h265parse")]).await.unwrap();
    let run = server.finished().await;
    let video: Vec<_> = probe(&clip).await.into_iter().filter(|packet| packet.stream == 0).collect();
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
