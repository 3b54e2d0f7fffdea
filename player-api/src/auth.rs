//! Who asks, and whether that one may: HTTP Basic (RFC 7617), Bearer (RFC 6750), or a signed URL.

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

/// Lets only those in who prove who they are: with an `Authorization` header, or, for GET and HEAD, with the `token`
/// of a signed URL. Others get 401 at once, and those whose key does not allow it 403; their body is not polled, so no
/// `100 Continue` invites it.
pub fn require_auth(router: Router, auth: Arc<dyn Authenticator>, clock: SharedClock) -> Router {
    router.layer(middleware::from_fn_with_state(Gate { auth, clock }, gate))
}

async fn gate(State(gate): State<Gate>, mut request: Request, next: Next) -> Response {
    match gate.admit(&request) {
        Some(access)
            if !Need::of(request.method(), request.uri().path(), request.uri().query()).is_met(access.principal()) =>
        {
            forbidden().into_response()
        }
        Some(access) => {
            request.extensions_mut().insert(access.principal().clone());
            request.extensions_mut().insert(access);
            next.run(request).await
        }
        None => unauthorized(),
    }
}

impl Gate {
    fn admit(&self, request: &Request) -> Option<Access> {
        if request.headers().contains_key(header::AUTHORIZATION) {
            return self.by_header(request.headers()).map(Access::Full);
        }
        let reads = matches!(*request.method(), Method::GET | Method::HEAD);
        let token = url_token(request.uri().query()).filter(|_| reads)?;
        self.auth.signed(&token, request.uri().path(), self.clock.now()).map(Access::Signed)
    }

    fn by_header(&self, headers: &HeaderMap) -> Option<Principal> {
        match credentials(headers)? {
            Credentials::Basic { access_key_id, secret } => self.auth.basic(&access_key_id, &secret),
            Credentials::Bearer(token) => self.auth.bearer(&token),
        }
    }
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

fn unauthorized() -> Response {
    let error = ApiError::new(StatusCode::UNAUTHORIZED, "no valid credentials");
    let mut response = error.into_response();
    let challenge = HeaderValue::from_static("Basic realm=\"vidar\", charset=\"UTF-8\"");
    response.headers_mut().insert(header::WWW_AUTHENTICATE, challenge);
    response
}
