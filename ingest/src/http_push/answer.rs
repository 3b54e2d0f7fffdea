//! Answers to a push: NDJSON lines from its log.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes};
use axum::http::{HeaderName, StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures::stream;

use super::PUSH_ID_HEADER;
use super::problem::Problem;
use crate::push_log::{PushLine, PushLog};

/// Media type of an answer.
pub(super) const NDJSON: &str = "application/x-ndjson";
/// Lines of one piece of an answer.
pub(super) const LINE_COUNT: usize = 256;

/// The answer after the body: a problem where nothing became durable, else the lines under the first error's status.
pub(super) fn after_the_body(log: &Arc<PushLog>) -> Response {
    let (fragments, first_error) = log.outcome();
    if let (0, Some(status)) = (fragments, first_error) {
        let (lines, _, _) = log.lines(0, usize::MAX);
        let first = lines.into_iter().find_map(|line| match line {
            PushLine::Error { detail, offset, .. } => Some((detail, offset)),
            _ => None,
        });
        let (detail, offset) = first.unwrap_or_default();
        let mut response = Problem::of_status(status, detail, offset);
        if let Ok(value) = log.push.to_string().parse() {
            response.headers_mut().insert(HeaderName::from_static(PUSH_ID_HEADER), value);
        }
        return response;
    }
    let status = first_error.and_then(|status| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK);
    lines_response(status, log)
}

/// The answer during the body.
pub(super) fn streamed(log: Arc<PushLog>) -> Response {
    lines_response(StatusCode::OK, &log)
}

fn lines_response(status: StatusCode, log: &Arc<PushLog>) -> Response {
    let lines = stream::unfold((Arc::clone(log), Some(0)), |(log, from)| async move {
        let (lines, next, ended) = log.next_lines(from?, LINE_COUNT).await;
        let bytes = encode(&lines);
        Some((Ok::<_, Infallible>(bytes), (log, (!ended).then_some(next))))
    });
    let headers = [
        (header::CONTENT_TYPE, NDJSON.to_owned()),
        (header::CACHE_CONTROL, "no-store".to_owned()),
        (HeaderName::from_static(PUSH_ID_HEADER), log.push.to_string()),
    ];
    (status, headers, Body::from_stream(lines)).into_response()
}

fn encode(lines: &[PushLine]) -> Bytes {
    let mut text = String::new();
    for line in lines {
        text.push_str(&serde_json::to_string(line).expect("a line has no map with keys that are no strings"));
        text.push('\n');
    }
    text.into()
}
