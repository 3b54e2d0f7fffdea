//! Who asks, and whether that one may: HTTP Basic (RFC 7617), Bearer (RFC 6750), the session of a browser, or a signed URL.
//!
//! A cookie comes with every request that a browser makes, whoever made it do so. So it counts for reading only where no other
//! site asks, and for everything else only with proof that a page of this server asks ([`is_own_page`]).

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderValue, Method, StatusCode, header};
use percent_encoding::percent_decode_str;
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::SharedClock;

use crate::error::ApiError;
use crate::lease;
use crate::rights::Need;

/// How somebody proved who they are. Stands in the extensions of every request behind [`require_auth`], as does their
/// [`Principal`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Access {
    /// By credentials.
    Full(Principal),
    /// By a signed URL of that maker: may read below its prefix.
    Signed(Principal),
}

impl Access {
    /// Who it is.
    #[must_use]
    pub fn principal(&self) -> &Principal {
        match self {
            Self::Full(principal) | Self::Signed(principal) => principal,
        }
    }
}

#[derive(Clone)]
struct Gate {
    auth: Arc<dyn Authenticator>,
    clock: SharedClock,
}

/// The cookie of a session.
pub const COOKIE_NAME: &str = "vidar-session";
/// Pages of the console send it with every request. Those of others cannot: it needs a leave (Fetch standard, section 4.8)
/// that is not given.
const PAGE_HEADER: &str = "vidar-console";
const FETCH_SITE: &str = "sec-fetch-site";

/// Lets only those in who prove who they are: with an `Authorization` header, with the cookie of a session, or, for GET and
/// HEAD, with the `token` of a signed URL. Others get 401 at once, and those whose key does not allow it 403; their body is not polled, so no
/// `100 Continue` invites it.
pub fn require_auth(router: Router, auth: Arc<dyn Authenticator>, clock: SharedClock) -> Router {
    router.layer(middleware::from_fn_with_state(Gate { auth, clock }, gate))
}

async fn gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    let access = match gate.admit(&request) {
        Ok(access) => access,
        Err(refusal) => return refusal.into_response(request.headers()),
    };
    let need = Need::of(request.method(), request.uri().path(), request.uri().query());
    if !need.is_met(access.principal()) {
        return forbidden().into_response();
    }
    let principal = access.principal().clone();
    request.extensions_mut().insert(principal.clone());
    request.extensions_mut().insert(access);
    let response = next.run(request).await;
    response.map(|body| lease::while_allowed(body, move || need.is_still_met(&*gate.auth, &principal)))
}

/// Why somebody is not let in.
enum Refusal {
    /// Nothing says who it is, or it is not true.
    Unknown,
    /// A browser may have been made to ask by another site.
    Forged,
}

impl Refusal {
    fn into_response(self, headers: &HeaderMap) -> Response {
        match self {
            Self::Unknown => unauthorized(headers),
            Self::Forged => forged().into_response(),
        }
    }
}

impl Gate {
    fn admit(&self, request: &Request) -> Result<Access, Refusal> {
        let headers = request.headers();
        if headers.contains_key(header::AUTHORIZATION) {
            return self.by_header(headers).map(Access::Full).ok_or(Refusal::Unknown);
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        if let Some(token) = url_token(request.uri().query()).filter(|_| reads) {
            let maker = self.auth.signed(&token, request.uri().path(), self.clock.now());
            return maker.map(Access::Signed).ok_or(Refusal::Unknown);
        }
        let cookie = session_cookie(headers).ok_or(Refusal::Unknown)?;
        if !(is_own_page(headers) || reads && is_no_other_site(headers)) {
            return Err(Refusal::Forged);
        }
        self.auth.session(&cookie).map(Access::Full).ok_or(Refusal::Unknown)
    }

    fn by_header(&self, headers: &HeaderMap) -> Option<Principal> {
        match credentials(headers)? {
            Credentials::Basic { access_key_id, secret } => self.auth.basic(&access_key_id, &secret),
            Credentials::Bearer(token) => self.auth.bearer(&token),
        }
    }
}

/// The name of a session that a browser sent, if it is exactly one (RFC 6265 section 5.4).
#[must_use]
pub fn session_cookie(headers: &HeaderMap) -> Option<String> {
    let values = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let pairs = values.flat_map(|value| value.split(';')).filter_map(|pair| pair.trim().split_once('='));
    let mut names = pairs.filter(|(name, value)| *name == COOKIE_NAME && !value.is_empty());
    let (Some((_, name)), None) = (names.next(), names.next()) else { return None };
    Some(name.to_owned())
}

/// Whether a page of this server asks, not one of another site, nor of another port of this host.
///
/// It takes a header that others cannot send, and what browsers say by themselves of where a request comes from:
/// `Sec-Fetch-Site` (Fetch Metadata), or without it, as over plain HTTP, an `Origin` (RFC 6454) that is the `Host`.
#[must_use]
pub fn is_own_page(headers: &HeaderMap) -> bool {
    let says = match headers.get(FETCH_SITE) {
        Some(site) => site == "same-origin",
        None => origin_is_host(headers),
    };
    headers.contains_key(PAGE_HEADER) && says
}

/// Whether no other site made a browser ask: it was a page of this server, or a person who typed.
fn is_no_other_site(headers: &HeaderMap) -> bool {
    headers.get(FETCH_SITE).is_none_or(|site| site == "same-origin" || site == "none")
}

fn origin_is_host(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    let (Some(origin), Some(host)) = (text(header::ORIGIN), text(header::HOST)) else { return false };
    origin.split_once("://").is_some_and(|(_, authority)| authority.eq_ignore_ascii_case(host))
}

/// What a browser gets that does not show that one of our pages asks.
#[must_use]
pub fn forged() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "with the cookie of a session only a page of this server may ask for that")
}

/// What an `Authorization` header says. No `Debug`: it holds secrets.
pub(crate) enum Credentials {
    Basic { access_key_id: String, secret: String },
    Bearer(String),
}

/// Reads the `Authorization` header, if there is exactly one.
pub(crate) fn credentials(headers: &HeaderMap) -> Option<Credentials> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let (value, None) = (values.next()?.to_str().ok()?, values.next()) else { return None };
    let (scheme, rest) = value.trim().split_once(' ')?;
    if scheme.eq_ignore_ascii_case("basic") {
        let pair = String::from_utf8(STANDARD.decode(rest.trim()).ok()?).ok()?;
        let (access_key_id, secret) = pair.split_once(':')?;
        return Some(Credentials::Basic { access_key_id: access_key_id.to_owned(), secret: secret.to_owned() });
    }
    scheme.eq_ignore_ascii_case("bearer").then(|| Credentials::Bearer(rest.trim().to_owned()))
}

/// The `token` of a query, if there is exactly one.
pub(crate) fn url_token(query: Option<&str>) -> Option<String> {
    let mut tokens = query?.split('&').filter_map(|pair| pair.strip_prefix("token="));
    let (token, None) = (tokens.next()?, tokens.next()) else { return None };
    percent_decode_str(token).decode_utf8().ok().map(|token| token.into_owned())
}

/// What somebody known gets who may not.
pub(crate) fn forbidden() -> ApiError {
    ApiError::new(StatusCode::FORBIDDEN, "this access key does not allow that")
}

/// A browser asks its user for a password where Basic is offered: not where a page can do so itself.
fn unauthorized(headers: &HeaderMap) -> Response {
    let has_page = headers.contains_key(PAGE_HEADER) || session_cookie(headers).is_some();
    let challenge = if has_page { "Session realm=\"vidar\"" } else { "Basic realm=\"vidar\", charset=\"UTF-8\"" };
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "no valid credentials");
    let mut response = error.into_response();
    response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static(challenge));
    response
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt as _, stream};
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;
    use vidar_core::policy::{Action, Target};
    use vidar_core::time::UnixMs;

    use super::*;

    fn headers(pairs: &[(&'static str, &str)]) -> HeaderMap {
        pairs.iter().map(|(name, value)| (name.parse::<http::HeaderName>().unwrap(), value.parse().unwrap())).collect()
    }

    /// Lets `root` in, until that is gone.
    #[derive(Default)]
    struct OneKey {
        gone: std::sync::atomic::AtomicBool,
    }

    impl Authenticator for OneKey {
        fn basic(&self, id: &str, _: &str) -> Option<Principal> {
            Some(Principal::root(id))
        }

        fn bearer(&self, _: &str) -> Option<Principal> {
            None
        }

        fn digest_secret(&self, _: &str) -> Option<(Principal, String)> {
            None
        }

        fn may_still(&self, _: &Principal, _: Action, _: Target<'_>) -> bool {
            !self.gone.load(std::sync::atomic::Ordering::Relaxed)
        }

        fn sign(&self, _: &Principal, _: &str, _: UnixMs) -> String {
            String::new()
        }

        fn signed(&self, _: &str, _: &str, _: UnixMs) -> Option<Principal> {
            None
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_long_answer_breaks_off_with_the_right_to_it() {
        let keys = Arc::<OneKey>::default();
        let long = || async {
            let pieces = stream::iter(0..100).then(|_| async {
                tokio::time::advance(std::time::Duration::from_millis(300)).await;
                Ok::<_, std::io::Error>("x")
            });
            axum::body::Body::from_stream(pieces)
        };
        let routes = Router::new().route("/v1/streams/{stream}/clip.mp4", axum::routing::get(long));
        let auth: Arc<dyn Authenticator> = Arc::clone(&keys) as _;
        let router = require_auth(routes, auth, vidar_core::clock::SystemClock::shared());
        let request = http::Request::get("/v1/streams/cam/clip.mp4").header("authorization", "Basic YTpi");
        let request = request.body(axum::body::Body::empty()).unwrap();
        let mut body = router.oneshot(request).await.unwrap().into_body();
        for _ in 0..20 {
            assert!(body.frame().await.expect("a piece").is_ok());
        }
        keys.gone.store(true, std::sync::atomic::Ordering::Relaxed);
        let mut more = 0;
        while body.frame().await.expect("no end").is_ok() {
            more += 1;
        }
        assert!(more <= 3, "{more} pieces went out");
    }

    #[test]
    fn only_pages_of_this_server_are_its_own() {
        let page = ("vidar-console", "1");
        let origin = |value| ("origin", value);
        let host = ("host", "vidar.example:8080");
        for (own, pairs) in [
            (true, &[page, ("sec-fetch-site", "same-origin")][..]),
            (false, &[("sec-fetch-site", "same-origin")]),
            (false, &[page, ("sec-fetch-site", "same-site"), host, origin("http://vidar.example:8080")]),
            (false, &[page, ("sec-fetch-site", "cross-site")]),
            (false, &[page, ("sec-fetch-site", "none")]),
            (true, &[page, host, origin("http://Vidar.example:8080")]),
            (false, &[host, origin("http://vidar.example:8080")]),
            (false, &[page, host, origin("http://vidar.example:8081")]),
            (false, &[page, host, origin("http://vidar.example:8080.evil.example")]),
            (false, &[page, host, origin("null")]),
            (false, &[page, host]),
            (false, &[page]),
        ] {
            assert_eq!(is_own_page(&headers(pairs)), own, "{pairs:?}");
        }
    }

    #[test]
    fn a_session_is_named_by_exactly_one_cookie() {
        for (name, pairs) in [
            (Some("x"), &[("cookie", "vidar-session=x")][..]),
            (Some("x=="), &[("cookie", "a=b; vidar-session=x==;c")]),
            (None, &[("cookie", "vidar-session=x; vidar-session=y")]),
            (None, &[("cookie", "vidar-session=")]),
            (None, &[("cookie", "vidar-sessions=x; xvidar-session=x")]),
            (None, &[]),
        ] {
            assert_eq!(session_cookie(&headers(pairs)).as_deref(), name, "{pairs:?}");
        }
    }
}
