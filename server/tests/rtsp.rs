//! RTSP pushes to the real server: what changes or stops in mid-stream, and who may come in.

mod common;

use std::process::{Command, Stdio};

use common::rtsp::Rtsp;
use common::{ID, Pusher, Random, SECRET, Vidar, assert_lists, decoded, ffmpeg, start};
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

#[test]
fn what_came_before_and_after_a_pause_is_kept() {
    let vidar = start();
    let mut random = Random(7);
    let sound: Vec<u8> = (0..160 * 100).map(|_| random.below(256) as u8).collect();
    let (before, after) = sound.split_at(160 * 60);
    let mut client = Rtsp::connect(&vidar);
    client.set_up_sound("cam");
    client.ask("RECORD", "cam", "", "");
    client.send_report(0, 0);
    client.send_sound(0, before);
    client.ask("PAUSE", "cam", "", "");
    // The answer says that all of it is kept.
    vidar.until("what came before the pause", |vidar| (vidar.fragments("cam").len() == 1).then_some(()));
    client.ask("RECORD", "cam", "", "");
    client.send_report(10, 60);
    client.send_sound(60, after);
    client.ask("TEARDOWN", "cam", "", "");

    vidar.until("the end of the push", ended);
    let timeline = vidar.json("/v1/streams/cam/timeline");
    let causes: Vec<&str> =
        timeline["runs"].as_array().expect("runs").iter().filter_map(|run| run["end_cause"].as_str()).collect();
    assert_eq!(causes, ["PAUSE", "TEARDOWN"], "{timeline}");
    let url = vidar.url("/v1/streams/cam/clip.mkv");
    assert_lists("sound", &sound, &ffmpeg(&["-i", &url, "-c", "copy", "-f", "mulaw", "-"]));
}

/// libcurl, by way of Python: the program `curl` cannot say ANNOUNCE.
const CURL: &str = r#"
import ctypes, sys
curl = ctypes.CDLL("libcurl.so.4")
curl.curl_easy_init.restype = ctypes.c_void_p
handle = ctypes.c_void_p(curl.curl_easy_init())
URL, USERPWD, HTTPAUTH, VERBOSE, POSTFIELDS, POSTFIELDSIZE = 10002, 10005, 107, 41, 10015, 60
RTSP_REQUEST, RTSP_STREAM_URI, RTSP_TRANSPORT = 189, 10191, 10192
RESPONSE_CODE, DIGEST = 0x200002, 2
def setopt(option, value):
    value = ctypes.c_char_p(value.encode()) if isinstance(value, str) else ctypes.c_long(value)
    assert curl.curl_easy_setopt(handle, ctypes.c_int(option), value) == 0, option
url, user, sdp = sys.argv[1:]
for option, value in [(URL, url), (USERPWD, user), (HTTPAUTH, DIGEST), (VERBOSE, 1)]:
    setopt(option, value)
def ask(request, uri):
    setopt(RTSP_REQUEST, request)
    setopt(RTSP_STREAM_URI, uri)
    result, status = curl.curl_easy_perform(handle), ctypes.c_long(0)
    curl.curl_easy_getinfo(handle, ctypes.c_int(RESPONSE_CODE), ctypes.byref(status))
    print(request, result, status.value)
# It connects anew for a request with a body that gets a challenge: this one without, in no state to be done, gets it.
setopt(RTSP_TRANSPORT, "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record")
ask(4, url + "/audio")
setopt(POSTFIELDS, sdp)
setopt(POSTFIELDSIZE, len(sdp))
ask(3, url)
ask(4, url + "/audio")
ask(10, url)
ask(7, url)
"#;

#[test]
fn libcurl_comes_in_by_digest_with_sha_256() {
    let vidar = start();
    let url = format!("rtsp://{}/cam", vidar.rtsp);
    let ask = |secret: &str| {
        let output = Command::new("python3")
            .args(["-c", CURL, &url, &format!("{ID}:{secret}"), common::rtsp::SOUND])
            .stdin(Stdio::null())
            .output()
            .expect("python3 runs");
        let (said, log) = (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
        assert!(output.status.success(), "{log}");
        (said.into_owned(), log.into_owned())
    };
    // SETUP, ANNOUNCE, SETUP, RECORD, TEARDOWN: result and status.
    let (said, log) = ask(SECRET);
    assert_eq!(said, "4 0 455\n3 0 200\n4 0 200\n10 0 200\n7 0 200\n", "{log}");
    let answers: Vec<&str> = log.lines().filter(|line| line.contains("Authorization: Digest ")).collect();
    assert!(!answers.is_empty() && answers.iter().all(|answer| answer.contains("algorithm=SHA-256")), "{log}");
    let (said, log) = ask("wrong");
    assert!(said.starts_with("4 0 401\n"), "{said}\n{log}");
}
