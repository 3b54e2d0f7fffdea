//! The console: what people see in a browser, and how they sign in.
//!
//! The pages are made of `web/` by `scripts/web`, and built in where they were there when the server was compiled. Without
//! them a plain page says how to make them. Everything comes from this server: nothing is asked of others.
//!
//! Not here: what the pages show. They use the routes below `/v1` as any client does, with a [`session`] for credentials.

pub(crate) mod session;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use vidar_core::clock::SharedClock;

use crate::authenticator::Credentials;

/// Without the pages.
const NOT_BUILT: &str = include_str!("not_built.html");

/// On console pages and nothing else. Scripts and styles are files of this server; players make `blob:` URLs of media.
const PAGE_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         media-src 'self' blob:; connect-src 'self'; worker-src 'self' blob:; manifest-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Pages, and `/v1/session`. `is_tls`: browsers come over TLS.
pub(crate) fn router(auth: Arc<Credentials>, clock: SharedClock, is_tls: bool, body_timeout: Duration) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/console/") }))
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(page))
        .merge(session::router(auth, clock, is_tls, body_timeout))
}

async fn page() -> Response {
    with_page_headers(Html(NOT_BUILT).into_response())
}

fn with_page_headers(mut response: Response) -> Response {
    for (name, value) in PAGE_HEADERS {
        response.headers_mut().insert(name, HeaderValue::from_static(value));
    }
    response.headers_mut().insert(header::CACHE_CONTROL, HeaderValue::from_static("no-cache"));
    response
}
