//! Pushes through a helper that fails.
#![cfg(feature = "gst")]

mod push_common;

use std::io;
use std::os::unix::fs::PermissionsExt;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::Request;
use futures::stream;
use http_body_util::BodyExt;
use push_common::Setup;
use tower::ServiceExt;
use vidar_ingest::gst::Helpers;
use vidar_ingest::{IngestOptions, http_push};

/// Bounds the test, and decides nothing.
const PATIENCE: Duration = Duration::from_secs(60);

/// After a body that is cut off nothing more is expected of a helper, whether it failed or hangs: it is not waited for.
#[tokio::test]
async fn a_helper_that_fails_after_the_body_was_lost_is_ended_at_once() {
    let dir = tempfile::tempdir().unwrap();
    for (name, script, stalled_after) in [
        ("hangs", "exec tail -f /dev/null", Duration::from_millis(50)),
        ("says nonsense", r"cat >/dev/null; printf '\377\377\377\377'; exec tail -f /dev/null", 60 * PATIENCE),
    ] {
        let path = dir.path().join(name);
        std::fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o700)).unwrap();
        let helpers = Helpers::new(path).stalled_after(stalled_after);
        let setup = Setup::new(IngestOptions { helpers, ..IngestOptions::default() });
        let head = Ok(Bytes::from_static(b"FLV\x01\x05\0\0\0\x09\0\0\0\0"));
        let body = Body::from_stream(stream::iter([head, Err(io::Error::from(io::ErrorKind::ConnectionReset))]));
        let request = Request::put("/v1/streams/cam/media").body(body).unwrap();
        let answer = tokio::time::timeout(PATIENCE, http_push::router(setup.ingest.clone()).oneshot(request));
        let answer = answer.await.unwrap_or_else(|_| panic!("{name}: it was waited for")).unwrap();
        assert_eq!(answer.status(), 200, "{name}: a connection that is lost is no fault");
        let lines = answer.into_body().collect().await.unwrap().to_bytes();
        assert!(lines.starts_with(br#"{"event":"summary","fragments":0"#), "{name}: {lines:?}");
    }
}
