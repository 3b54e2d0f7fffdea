//! Real clients.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::Value;

use crate::cells::{Client, MADE};
use crate::common::{Pusher, Vidar, ffmpeg};
use crate::compare::tracks;

/// A fixture, or what is made of one.
pub(crate) fn clip_path(name: &str, folder: &Path) -> PathBuf {
    let Some((_, source, args)) = MADE.iter().find(|(made, ..)| *made == name) else {
        return vidar_fixtures::path(name);
    };
    let (source, path) = (vidar_fixtures::path(source), folder.join(name));
    ffmpeg(&[&["-i", text(&source)], *args, &[text(&path)]].concat());
    path
}

pub(crate) fn text(path: &Path) -> &str {
    path.to_str().expect("a UTF-8 path")
}

/// Pushes a clip, waits for the end of the push, and says where the bytes as pushed are.
pub(crate) fn push(vidar: &Vidar, client: Client, clip: &Path, stream: &str, folder: &Path) -> PathBuf {
    let url = vidar.rtsp_url(stream);
    let rtsp = |transport, pace: &[&str]| {
        let output = ["-map", "0", "-c", "copy", "-f", "rtsp", "-rtsp_transport", transport, &url];
        assert!(Pusher::ffmpeg(&[pace, &["-i", text(clip)], &output].concat()).wait(), "{stream}");
    };
    let mut pushed = clip.to_owned();
    match client {
        Client::Curl => by_curl(vidar, clip, stream),
        Client::Ffmpeg => {
            let extension = clip.extension().and_then(|ext| ext.to_str()).expect("an extension");
            pushed = folder.join(stream).with_extension(extension);
            ffmpeg_over_http(vidar, clip, stream, &pushed);
        }
        Client::FfmpegTcp => rtsp("tcp", &[]),
        // In real time: the kernel's buffers drop what comes faster than a camera sends.
        Client::FfmpegUdp => rtsp("udp", &["-re"]),
        Client::GstTcp => gstreamer(vidar, clip, stream, "tcp"),
        Client::GstUdp => gstreamer(vidar, clip, stream, "udp"),
    }
    vidar.until("the end of the push", |vidar| has_ended(vidar, stream).then_some(()));
    pushed
}

/// ffmpeg and GStreamer end before the server has read all they sent, or even begun to.
fn has_ended(vidar: &Vidar, stream: &str) -> bool {
    let (status, body) = vidar.request(&[], &format!("/v1/streams/{stream}/timeline"));
    let timeline: Value = serde_json::from_slice(&body).expect("JSON");
    status == 200 && timeline["runs"][0]["ended"].is_string()
}

/// Everything is told: each fragment that became durable, and how many there are. A clip that ends within a block is
/// broken syntax, and what came before it stays.
fn by_curl(vidar: &Vidar, clip: &Path, stream: &str) {
    let (status, lines) = vidar.push(stream, "?start=2026-01-01T00:00:00Z", clip);
    assert!(status == 200 || is_cut(clip) && status == 400, "{stream}: {status} {lines:?}");
    let summary = lines.last().expect("a summary");
    assert_eq!(summary["event"], "summary", "{stream}: {lines:?}");
    let durable = lines.iter().filter(|line| line["event"] == "durable").count();
    assert_eq!(summary["fragments"].as_u64().expect("a count") as usize, durable, "{stream}");
    assert_eq!(vidar.fragments(stream).len(), durable, "{stream}");
}

/// A capture whose last block is cut off.
pub(crate) fn is_cut(clip: &Path) -> bool {
    ["kvs_webcam_building_vfr.mkv", "kvs_getmedia_cranes.mkv"].iter().any(|name| clip.ends_with(name))
}

/// Two outputs of one process: what goes to the server is also written to `copy`.
fn ffmpeg_over_http(vidar: &Vidar, clip: &Path, stream: &str, copy: &Path) {
    let (format, flags): (_, &[&str]) = match copy.extension().and_then(|ext| ext.to_str()) {
        Some("mp4") => ("mp4", &["-movflags", "+frag_keyframe+empty_moov+default_base_moof"]),
        Some("ts") => ("mpegts", &[]),
        Some("webm") => ("webm", &[]),
        _ => ("matroska", &[]),
    };
    let url = vidar.url(&format!("/v1/streams/{stream}/media"));
    let output = [&["-map", "0", "-c", "copy", "-f", format], flags].concat();
    let http = [&output[..], &["-method", "PUT", &url]].concat();
    let args = [&["-y", "-i", text(clip)], &http[..], &output, &[text(copy)]].concat();
    assert!(Pusher::ffmpeg(&args).wait(), "{stream}");
}

/// Pushes with rtspclientsink until it has sent everything, or its connection has ended.
///
/// Version 1.22 hangs at its end now and then, or stumbles over its own PAUSE, whatever the server: from its end of
/// stream on it is not needed. Where the end of a track's RTCP never comes, neither does that of the stream: it has sent
/// everything when each sink of RTP is past its last packet. Its end has a time; that of RTCP has none.
fn gstreamer(vidar: &Vidar, clip: &Path, stream: &str, transport: &str) {
    let demuxer = if text(clip).ends_with("mp4") { "qtdemux" } else { "matroskademux" };
    let mut pipeline = format!("filesrc location={} ! {demuxer} name=d ", text(clip));
    let tracks = tracks(text(clip));
    for (at, (kind, codec)) in tracks.iter().enumerate() {
        let parser = match &codec[..] {
            "h264" => "h264parse !",
            "hevc" => "h265parse !",
            "aac" => "aacparse !",
            "opus" => "opusparse !",
            _ => "",
        };
        pipeline.push_str(&format!("d.{kind}_0 ! {parser} queue ! s.sink_{at} "));
    }
    let url = vidar.rtsp_url(stream);
    pipeline.push_str(&format!("rtspclientsink name=s location={url} protocols={transport}"));
    let mut command = Command::new("gst-launch-1.0");
    command.args(pipeline.split_whitespace()).env("GST_DEBUG", "basesink:5").env("GST_DEBUG_NO_COLOR", "1");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("gst-launch-1.0 starts");
    let output = BufReader::new(child.stdout.take().expect("it is piped")).lines().map_while(Result::ok);
    let log = BufReader::new(child.stderr.take().expect("it is piped")).lines().map_while(Result::ok);
    let ended = std::thread::spawn(move || output.take_while(|line| !line.contains("EOS")).count());
    let of_rtp = |line: &String| line.contains("sync times for EOS 0:");
    let sent = std::thread::spawn(move || log.filter(of_rtp).take(tracks.len()).count());
    let child = Pusher(child);
    vidar.until("all that rtspclientsink sends", |vidar| {
        (ended.is_finished() || sent.is_finished() || has_ended(vidar, stream)).then_some(())
    });
    drop(child);
}
