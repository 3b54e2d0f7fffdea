//! Leave for pages of other origins (Fetch standard, section 3.2): the SDK for JavaScript calls from them, as it calls the service.
//!
//! Who signs has the key. Nothing that a browser sends by itself counts here, so any origin may ask.

use axum::Router;
use axum::extract::Request;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Method, StatusCode, header};

/// Headers of answers that the SDK reads, beside those that every page may.
const EXPOSED: &str = "x-amzn-RequestId, x-amzn-ErrorType, Content-Length";
/// `*` does not stand for Authorization (section 4.10). The others differ from one version of the SDK to the next.
const SENT: &str = "*, Authorization";

/// Answers preflights, which nobody signs, and adds the headers to every other answer.
pub(crate) fn allow(router: Router) -> Router {
    router.layer(middleware::from_fn(add_headers))
}

async fn add_headers(request: Request, next: Next) -> Response {
    let asks = request.headers().contains_key(header::ACCESS_CONTROL_REQUEST_METHOD);
    let is_preflight = asks && *request.method() == Method::OPTIONS;
    let mut response = if is_preflight { StatusCode::NO_CONTENT.into_response() } else { next.run(request).await };
    let headers = response.headers_mut();
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if is_preflight {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("POST"));
        headers.insert(header::ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static(SENT));
        headers.insert(header::ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("86400"));
    } else {
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    }
    response
}
