//! Whatever is refused over HTTP is refused as problem details.

mod common;

use common::start;
use serde_json::Value;

#[test]
fn every_error_is_problem_details() {
    let vidar = start();
    assert_eq!(vidar.push("cam", "?start=0", &vidar_fixtures::path("h264_ip.mkv")).0, 200);
    let media = "/v1/streams/cam/media";
    let push = "/v1/pushes/00000000-0000-0000-0000-000000000000";
    let long = "x".repeat(70_000);
    let put = ["-X", "PUT", "--data-binary", "x"];
    // What is asked, its status, the parameter at fault, a word of the detail.
    for (args, path, status, parameter, detail) in [
        (&put[..], format!("{media}?begin=1"), 400, Some("begin"), "unknown"),
        (&put, format!("{media}?start=1&start=2"), 400, Some("start"), "twice"),
        (&put, format!("{media}?start=yesterday"), 400, Some("start"), "time"),
        (&put, format!("{media}?start="), 400, Some("start"), "time"),
        (&put, format!("{media}?start=%ff"), 400, None, "UTF-8"),
        (&put, format!("{media}?ack=maybe"), 400, Some("ack"), "end or stream"),
        (&put, "/v1/streams/a%2Fb/media".into(), 400, Some("stream"), "not a stream name"),
        (&put, "/v1/streams/%ff/media".into(), 400, None, "UTF-8"),
        (&[], "/v1/pushes?limit=1".into(), 400, Some("limit"), "unknown"),
        (&[], "/v1/pushes?stream=a&stream=b".into(), 400, Some("stream"), "twice"),
        (&[], "/v1/pushes?stream=a/b".into(), 400, Some("stream"), "not a stream name"),
        (&[], format!("{push}?from=1"), 400, Some("from"), "unknown"),
        (&[], format!("{push}?next_token=x"), 400, Some("next_token"), "whole number"),
        (&[], format!("{push}?next_token=1&next_token=1"), 400, Some("next_token"), "twice"),
        (&[], "/v1/pushes/7".into(), 400, Some("push"), "UUID"),
        (&[], push.into(), 404, None, "not known"),
        // Methods, of the routes of each crate.
        (&["-X", "DELETE"], media.into(), 405, None, "method"),
        (&["-X", "PUT"], "/v1/pushes".into(), 405, None, "method"),
        (&["-X", "PUT"], "/v1/streams".into(), 405, None, "method"),
        (&["-X", "PUT"], "/v1/keys".into(), 405, None, "method"),
        (&["-X", "PUT"], "/v1/verify".into(), 405, None, "method"),
        (&["-X", "PUT"], "/metrics".into(), 405, None, "method"),
        (&["-X", "PUT"], "/healthz".into(), 405, None, "method"),
        (&[], "/v1/nothing".into(), 404, None, "no such resource"),
        (&[], "/nothing".into(), 404, None, "no such resource"),
        // What axum refuses before a handler is asked.
        (&[], "/v1/streams/%ff".into(), 400, None, "UTF-8"),
        (&["-X", "POST", "-d", &long], "/v1/streams".into(), 413, None, "longer than 65536 bytes"),
    ] {
        let output = vidar.curl(&[args, &["-D", "-"]].concat(), &path);
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let (head, body) = text.rsplit_once("\r\n\r\n").unwrap_or_else(|| panic!("{path}: {text}"));
        let head = head.to_ascii_lowercase();
        assert!(head.contains("\r\ncontent-type: application/problem+json"), "{args:?} {path}: {text}");
        let problem: Value = serde_json::from_str(body).unwrap_or_else(|error| panic!("{path}: {error}: {text}"));
        assert_eq!(problem["status"], status, "{args:?} {path}: {problem}");
        assert_eq!(problem["parameter"].as_str(), parameter, "{args:?} {path}: {problem}");
        assert!(problem["detail"].as_str().is_some_and(|text| text.contains(detail)), "{args:?} {path}: {problem}");
        assert_eq!(head.contains("\r\nallow: "), status == 405, "{args:?} {path}: {head}");
    }
    // What is no error, or has a form of its own, stays as it is.
    assert_eq!(vidar.request(&[], "/healthz").0, 200);
    let (status, lines) = vidar.push("cam", "?ack=stream&start=0", &vidar_fixtures::path("h264_ip.mkv"));
    assert!(status == 200 && lines.len() > 1, "{lines:?}");
}
