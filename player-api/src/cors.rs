//! Leave for browsers to read from pages of other origins (Fetch standard, section 3.2): any origin may read what it has
//! credentials or a signed URL for. An answer to a cookie is not among that: `*` does not hold where a browser sends
//! cookies along (section 3.2.5), nor does the gate take one from another origin.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};

/// Headers that players read.
const EXPOSED: &str = "Accept-Ranges, Content-Length, Content-Range, ETag, Vidar-Gaps, Vidar-Omitted-Tracks, \
                       Vidar-Picture-Time, Vidar-Start-Offset-Ms";

/// Adds the headers to answers of GET and HEAD, and answers preflights.
pub fn allow(router: Router) -> Router {
    router.layer(middleware::from_fn(add_headers))
}

async fn add_headers(request: Request, next: Next) -> Response {
    let preflight = *request.method() == Method::OPTIONS;
    let read = matches!(*request.method(), Method::GET | Method::HEAD);
    let mut response = if preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    if preflight || read {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    }
    if preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, HEAD"));
        let allowed = HeaderValue::from_static("Authorization, Range, If-Range, If-None-Match");
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    } else if read {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
