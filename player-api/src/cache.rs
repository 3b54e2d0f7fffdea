//! Entity tags and what caches may keep (RFC 9110 section 8.8.3, RFC 9111).

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderValue, StatusCode, header};
use ring::digest::{SHA256, digest};

/// Never changes under its URL. Private, because who may see it is checked at each request.
pub(crate) const IMMUTABLE: &str = "private, max-age=31536000, immutable";
/// To be asked for again each time.
pub(crate) const REVALIDATE: &str = "private, no-cache";

/// A strong entity tag of some bytes.
pub(crate) fn tag_of(bytes: &[u8]) -> String {
    let hash = digest(&SHA256, bytes);
    let hex: String = hash.as_ref().iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("\"{hex}\"")
}

/// `If-None-Match` names the tag (weak comparison, RFC 9110 section 13.1.2).
pub(crate) fn not_modified(headers: &HeaderMap, tag: &str) -> bool {
    let values = headers.get_all(header::IF_NONE_MATCH).iter().filter_map(|value| value.to_str().ok());
    let mut tags = values.flat_map(|value| value.split(',')).map(str::trim);
    tags.any(|candidate| candidate == "*" || candidate.strip_prefix("W/").unwrap_or(candidate) == tag)
}

/// A 200 with its tag, or 304 if the client has it.
pub(crate) fn answer(
    request: &HeaderMap,
    tag: &str,
    cache_control: &'static str,
    content_type: &'static str,
    body: impl Into<Body>,
) -> Response {
    let mut response = if not_modified(request, tag) {
        StatusCode::NOT_MODIFIED.into_response()
    } else {
        let mut response = Response::new(body.into());
        response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
        response
    };
    let headers = response.headers_mut();
    if let Ok(tag) = HeaderValue::from_str(tag) {
        headers.insert(header::ETAG, tag);
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache_control));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_compared_weakly() {
        let with =
            |value: &'static str| HeaderMap::from_iter([(header::IF_NONE_MATCH, HeaderValue::from_static(value))]);
        let tag = tag_of(b"a");
        assert_eq!(tag.len(), 34);
        assert_ne!(tag, tag_of(b"b"));
        for (value, expected) in
            [("*", true), ("\"x\"", true), ("W/\"x\"", true), ("\"y\", \"x\"", true), ("\"y\"", false), ("x", false)]
        {
            assert_eq!(not_modified(&with(value), "\"x\""), expected, "{value}");
        }
        assert!(!not_modified(&HeaderMap::new(), "\"x\""));
    }
}
