//! A file that is made while it is read, over HTTP: ranges, conditions, `HEAD` (RFC 9110 sections 13 and 14).

use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use axum::body::Body;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use futures::{StreamExt, TryStreamExt, stream};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, ETAG};
use http::header::{IF_MATCH, IF_NONE_MATCH, IF_RANGE, RANGE};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use vidar_core::source::ReadError;

/// Stretches that are made ahead of the reader. Each is at most a MiB.
const READ_AHEAD: usize = 2;

/// Bytes of known length, made on demand. The same file is always the same bytes.
#[async_trait]
pub(crate) trait VirtualFile: Send + Sync + 'static {
    /// In bytes.
    fn len(&self) -> u64;

    /// Bytes from `at` on that are best made at once: at least 1, at most up to `end`.
    fn stretch(&self, at: u64, end: u64) -> u64;

    /// Makes a stretch.
    async fn make(&self, range: Range<u64>) -> Result<Vec<Bytes>, ReadError>;
}

/// A range of a file, made as fast as it is read and a little ahead.
pub(crate) fn body(file: Arc<dyn VirtualFile>, range: Range<u64>) -> Body {
    let cut = file.clone();
    let mut at = range.start;
    let stretches = std::iter::from_fn(move || {
        let from = at;
        at = (from < range.end).then(|| from + cut.stretch(from, range.end).max(1))?;
        Some(from..at)
    });
    let made = stream::iter(stretches).map(move |range| {
        let file = file.clone();
        async move { file.make(range).await }
    });
    let chunks = made.buffered(READ_AHEAD).inspect_err(|error| {
        // The connection is aborted: damage is never sent as media.
        tracing::error!(%error, "a file could not be made to its end");
    });
    Body::from_stream(chunks.map_ok(|chunks| stream::iter(chunks.into_iter().map(Ok::<_, ReadError>))).try_flatten())
}

/// How a file is answered.
pub(crate) struct Answer {
    /// Its `Content-Type`.
    pub(crate) content_type: &'static str,
    /// A strong entity tag, with its quotes.
    pub(crate) etag: String,
    /// More fields.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
}

impl Answer {
    /// Answers a `GET` or `HEAD`.
    pub(crate) fn respond(self, method: &Method, request: &HeaderMap, file: Arc<dyn VirtualFile>) -> Response {
        let len = file.len();
        let (status, range) = match precondition(request, &self.etag) {
            Some(status) => (status, None),
            None => match requested_range(method, request, &self.etag, len) {
                Requested::Whole => (StatusCode::OK, Some(0..len)),
                Requested::Range(range) => (StatusCode::PARTIAL_CONTENT, Some(range)),
                Requested::Unsatisfiable => (StatusCode::RANGE_NOT_SATISFIABLE, None),
            },
        };
        let mut response = status.into_response();
        let headers = response.headers_mut();
        headers.insert(ACCEPT_RANGES, HeaderValue::from_static("bytes"));
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("private, no-cache"));
        headers.insert(ETAG, value(&self.etag));
        headers.extend(self.headers);
        if status == StatusCode::RANGE_NOT_SATISFIABLE {
            headers.insert(CONTENT_RANGE, value(&format!("bytes */{len}")));
        }
        let Some(range) = range else { return response };
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.content_type));
        headers.insert(CONTENT_LENGTH, (range.end - range.start).into());
        if status == StatusCode::PARTIAL_CONTENT {
            headers.insert(CONTENT_RANGE, value(&format!("bytes {}-{}/{len}", range.start, range.end - 1)));
        }
        if *method != Method::HEAD {
            *response.body_mut() = body(file, range);
        }
        response
    }
}

fn value(text: &str) -> HeaderValue {
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// `If-Match`, then `If-None-Match` (section 13.2.2). There are no dates.
fn precondition(request: &HeaderMap, etag: &str) -> Option<StatusCode> {
    let listed = |name: HeaderName, weak: bool| {
        let mut lists = request.get_all(name).iter().filter_map(|list| list.to_str().ok()).peekable();
        lists.peek()?;
        let tag = |tag: &str| if weak { tag.strip_prefix("W/").unwrap_or(tag) == etag } else { tag == etag };
        Some(lists.flat_map(|list| list.split(',')).map(str::trim).any(|listed| listed == "*" || tag(listed)))
    };
    if listed(IF_MATCH, false) == Some(false) {
        return Some(StatusCode::PRECONDITION_FAILED);
    }
    (listed(IF_NONE_MATCH, true) == Some(true)).then_some(StatusCode::NOT_MODIFIED)
}

#[derive(Debug, PartialEq, Eq)]
enum Requested {
    Whole,
    Range(Range<u64>),
    Unsatisfiable,
}

/// Several ranges, other units and broken syntax are ignored (section 14.2): the whole is a right answer to all.
fn requested_range(method: &Method, request: &HeaderMap, etag: &str, len: u64) -> Requested {
    let text = |name: HeaderName| request.get(name).map(|value| value.to_str().unwrap_or_default());
    let Some(range) = text(RANGE).filter(|_| *method == Method::GET) else { return Requested::Whole };
    // Section 13.1.5: a strong comparison; a date never matches, as there is no Last-Modified.
    if text(IF_RANGE).is_some_and(|condition| condition.trim() != etag) {
        return Requested::Whole;
    }
    let Some((unit, spec)) = range.split_once('=') else { return Requested::Whole };
    if !unit.trim().eq_ignore_ascii_case("bytes") {
        return Requested::Whole;
    }
    match spec.trim().split_once('-').map(|(first, last)| (position(first), position(last))) {
        Some((Ok(Some(first)), Ok(last))) if last.is_none_or(|last| first <= last) => {
            let end = last.map_or(len, |last| last.saturating_add(1).min(len));
            if first < len { Requested::Range(first..end) } else { Requested::Unsatisfiable }
        }
        // The last bytes; more than there are: all of it (section 14.1.2).
        Some((Ok(None), Ok(Some(suffix)))) => {
            if suffix == 0 || len == 0 {
                Requested::Unsatisfiable
            } else {
                Requested::Range(len - suffix.min(len)..len)
            }
        }
        _ => Requested::Whole,
    }
}

/// None: not given. A number over 64 bits is beyond every file.
fn position(text: &str) -> Result<Option<u64>, ()> {
    let text = text.trim();
    match text {
        "" => Ok(None),
        _ if text.bytes().all(|byte| byte.is_ascii_digit()) => Ok(Some(text.parse().unwrap_or(u64::MAX))),
        _ => Err(()),
    }
}

#[cfg(test)]
#[path = "virtual_file_tests.rs"]
mod tests;
