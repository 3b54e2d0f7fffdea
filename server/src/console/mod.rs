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
use axum::extract::Path;
use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{Html, IntoResponse, Redirect, Response};
use axum::routing::get;
use vidar_core::clock::SharedClock;

use crate::authenticator::Credentials;

/// Files of the pages, by their path below `web/dist`, in order; none: they were not built.
const FILES: &[(&str, &[u8])] = include!(concat!(env!("OUT_DIR"), "/console_files.rs"));
/// Without the pages.
const NOT_BUILT: &str = include_str!("not_built.html");

/// On console pages and nothing else. Scripts and styles are files of this server; players make `blob:` URLs of media.
const PAGE_HEADERS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; font-src 'self'; \
         media-src 'self' blob:; connect-src 'self'; base-uri 'none'; \
         form-action 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "no-referrer"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// What the console is told of the server.
#[derive(Debug, Clone)]
pub(crate) struct ConsoleOptions {
    /// Browsers come over TLS: the cookie is for nothing else.
    pub(crate) is_tls: bool,
    /// Where RTSP is taken.
    pub(crate) rtsp_port: u16,
    /// Where the compatible API is; none: it is off.
    pub(crate) kvs_url: Option<String>,
    /// Within which a JSON body has to arrive.
    pub(crate) body_timeout: Duration,
}

/// Pages, and `/v1/session`.
pub(crate) fn router(auth: Arc<Credentials>, clock: SharedClock, options: ConsoleOptions) -> Router {
    Router::new()
        .route("/", get(|| async { Redirect::to("/console/") }))
        .route("/console", get(|| async { Redirect::permanent("/console/") }))
        .route("/console/", get(page))
        .route("/console/{*path}", get(asset))
        .merge(session::router(auth, clock, options))
}

fn file(path: &str) -> Option<&'static [u8]> {
    let index = FILES.binary_search_by_key(&path, |(name, _)| name).ok()?;
    Some(FILES[index].1)
}

async fn page() -> Response {
    let page = file("index.html").unwrap_or(NOT_BUILT.as_bytes());
    with_page_headers(Html(page).into_response(), "no-cache")
}

/// What a page is made of. Its name has a hash of what is in it, so it never changes.
async fn asset(Path(path): Path<String>) -> Result<Response, vidar_player_api::ApiError> {
    let (Some(bytes), Some(kind)) = (file(&path).filter(|_| path.starts_with("assets/")), media_type(&path)) else {
        return Err(vidar_player_api::error::not_found().await);
    };
    let response = ([(header::CONTENT_TYPE, kind)], bytes).into_response();
    Ok(with_page_headers(response, "public, max-age=31536000, immutable"))
}

fn media_type(path: &str) -> Option<&'static str> {
    Some(match path.rsplit_once('.')?.1 {
        "js" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        _ => return None,
    })
}

fn with_page_headers(mut response: Response, cache: &'static str) -> Response {
    let headers = response.headers_mut();
    for (name, value) in PAGE_HEADERS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static(cache));
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_pages_is_found_and_has_a_type() {
        assert!(FILES.is_sorted_by_key(|(name, _)| name));
        for (name, bytes) in FILES {
            assert_eq!(file(name), Some(*bytes), "{name}");
            assert!(*name == "index.html" || name.starts_with("assets/") && media_type(name).is_some(), "{name}");
        }
        assert!(file("../index.html").is_none() && file("").is_none());
    }
}
