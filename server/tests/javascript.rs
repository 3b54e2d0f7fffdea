//! The compatible API as web pages use it: the AWS SDK for JavaScript, and hls.js and Shaka Player in Chromium.
//!
//! It takes Node.js with `npm ci` in `server/tests/javascript`, and Chromium. `scripts/test` brings them where npm is. Elsewhere this
//! says nothing, unless VIDAR_TEST_BROWSER is set: then it fails.

mod common;

use common::{ID, SECRET, Vidar, node, start_with};
use serde_json::{Value, json};

/// 2026-01-01T00:00:00Z.
const START_MS: u64 = 1_767_225_600_000;

/// Where the compatible API of a server listens, as GetDataEndpoint says.
fn endpoint(vidar: &mut Vidar) -> String {
    let line = vidar.wait_log("the compatible API listens");
    let url = line.split_once("url=").expect("a URL").1;
    url.split_whitespace().next().expect("a URL").trim_matches('"').to_owned()
}

fn push(vidar: &Vidar, stream: &str, clip: &str) {
    assert_eq!(vidar.push(stream, &format!("?start={START_MS}"), &vidar_fixtures::path(clip)).0, 200, "{stream}");
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
        push(&vidar, "cam", "bbb.mkv");
        push(&vidar, "law", "audio_pcm_alaw.mkv");
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
