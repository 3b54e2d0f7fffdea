//! The compatible API as web pages use it: the AWS SDK for JavaScript, and hls.js and Shaka Player in Chromium.
//!
//! It takes Node.js with `npm ci` in `server/tests/javascript`, and Chromium. `scripts/test` brings them where npm is. Elsewhere this
//! says nothing, unless VIDAR_TEST_BROWSER is set: then it fails.

mod common;

use std::path::Path;

use common::{ID, Pusher, SECRET, Vidar, ffmpeg, node, start_with};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;

/// Where the compatible API of a server listens, as GetDataEndpoint says.
fn endpoint(vidar: &mut Vidar) -> String {
    let line = vidar.wait_log("the compatible API listens");
    let url = line.split_once("url=").expect("a URL").1;
    url.split_whitespace().next().expect("a URL").trim_matches('"').to_owned()
}

fn push(vidar: &Vidar, stream: &str, clip: &Path, start_ms: u64) {
    assert_eq!(vidar.push(stream, &format!("?start={start_ms}"), clip).0, 200, "{stream}");
}

fn push_fixture(vidar: &Vidar, stream: &str, name: &str) {
    push(vidar, stream, &vidar_fixtures::path(name), START_MS);
}

/// Inputs of ffmpeg: pictures of which second n, counted to ten, has luma 32 + 20 n; a tone. A keyframe each second.
fn greys(input: &[&str], seconds: &str) -> Vec<String> {
    let grey = "lum='32+20*mod(floor(T),10)':cb=128:cr=128";
    let pictures = format!("color=s=160x90:r=25{seconds},geq={grey},format=yuv420p");
    let tone = format!("sine=frequency=440{seconds}");
    let lavfi = |source: &str| [input, &["-f", "lavfi", "-i", source]].concat().join("\n");
    let coding = "-c:v\nlibx264\n-preset\nultrafast\n-g\n25\n-sc_threshold\n0\n-bf\n0\n-c:a\naac\n-f\nmatroska";
    [&lavfi(&pictures), &lavfi(&tone), coding].iter().flat_map(|part| part.lines().map(str::to_owned)).collect()
}

#[test]
fn the_sdk_for_javascript_runs_every_operation() {
    let Some(folder) = node::folder("javascript") else { return };
    for tls in ["false", "true"] {
        let own = tempfile::tempdir().expect("a temporary directory");
        let target = format!("s3://shots={}", own.path().display());
        let topic = "arn:aws:sns:eu-central-1:000000000000:door=http://127.0.0.1:9/";
        let flags = ["--kvs", "127.0.0.1:0", "--kvs-limits", "none", "--kvs-tls", tls];
        let mut vidar = start_with(&[&flags[..], &["--image-target", &target, "--notify", topic]].concat());
        let url = endpoint(&mut vidar);
        push_fixture(&vidar, "cam", "bbb.mkv");
        push_fixture(&vidar, "law", "audio_pcm_alaw.mkv");
        let body = json!({"preset": "read", "streams": ["js-1"]}).to_string();
        let (status, reader) = vidar.request(&["-d", &body], "/v1/credentials");
        assert_eq!(status, 201);
        let reader: Value = serde_json::from_slice(&reader).expect("JSON");
        let text = |name: &str| reader[name].as_str().expect("a text").to_owned();
        let args = [&url, ID, SECRET, &text("access_key_id"), &text("secret_access_key"), &START_MS.to_string()];
        let trusted = vidar.dir.join("kvs-cert.pem");
        // Without TLS there is none, and nothing is made of it.
        let environment = [("NODE_EXTRA_CA_CERTS", trusted.to_str().expect("UTF-8"))];
        node::run(&folder, "sdk.mjs", &args, &environment[..usize::from(tls == "true")]);
    }
}

#[test]
fn hls_js_and_shaka_play_and_seek_in_what_was_recorded() {
    let (Some(folder), Some(browser)) = (node::folder("javascript"), node::chromium()) else { return };
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0"]);
    let url = endpoint(&mut vidar);
    let own = tempfile::tempdir().expect("a temporary directory");
    let clip = own.path().join("grey.mkv");
    let args = greys(&[], ":d=4");
    let args: Vec<&str> = args.iter().map(String::as_str).chain([clip.to_str().expect("UTF-8")]).collect();
    ffmpeg(&args);
    push(&vidar, "grey", &clip, START_MS);
    push(&vidar, "gap", &clip, START_MS);
    push(&vidar, "gap", &clip, START_MS + 3_600_000);
    for (stream, name) in [
        ("bbb", "bbb.mkv"),
        ("av1", "av1_opus.mkv"),
        ("vp9", "vp9_opus.webm"),
        ("aac", "audio_aac.mkv"),
        ("opus", "audio_opus.mkv"),
    ] {
        push_fixture(&vidar, stream, name);
    }
    node::run(&folder, "demand.mjs", &[&url, ID, SECRET, browser, &START_MS.to_string()], &[]);
}

#[test]
fn hls_js_and_shaka_follow_a_push_at_its_head() {
    let (Some(folder), Some(browser)) = (node::folder("javascript"), node::chromium()) else { return };
    let mut vidar = start_with(&["--kvs", "127.0.0.1:0"]);
    let url = endpoint(&mut vidar);
    let target = vidar.url("/v1/streams/live/media");
    // At real time, and sent at once.
    let args = greys(&["-re"], "");
    let sent = ["-cluster_time_limit", "200", "-flush_packets", "1", &target];
    let _pusher = Pusher::ffmpeg(&args.iter().map(String::as_str).chain(sent).collect::<Vec<_>>());
    vidar.until("fragments", |vidar| {
        let (status, body) = vidar.request(&[], "/v1/streams/live/fragments");
        let page: Value = serde_json::from_slice(&body).unwrap_or_default();
        (status == 200 && page["fragments"].as_array().is_some_and(|fragments| fragments.len() >= 5)).then_some(())
    });
    node::run(&folder, "live.mjs", &[&url, ID, SECRET, browser, "live"], &[]);
}
