//! Before an operation: a request id, the body, and who signed.

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use http_body_util::{BodyExt, LengthLimitError, Limited};
use ring::digest::{SHA256, digest};
use uuid::Uuid;
use vidar_aws_wire::sigv4::{self, AuthError, Claim};
use vidar_core::auth::Principal;

use crate::error::{ServiceError, ServiceResult};
use crate::{Kvs, Refusal};

/// The longest body: 50 tags of the longest names and values, each character escaped.
const BODY_BYTES_MAX: usize = 256 << 10;
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

/// Lets those through who signed; their [`Principal`] stands in the extensions.
pub(crate) fn guard(router: Router, kvs: Arc<Kvs>) -> Router {
    router.layer(middleware::from_fn_with_state(kvs, gate))
}

async fn gate(State(kvs): State<Arc<Kvs>>, request: Request, next: Next) -> Response {
    let id = Uuid::new_v4().to_string();
    let mut response = match admit(&kvs, request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    };
    if let Ok(id) = HeaderValue::from_str(&id) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn admit(kvs: &Kvs, request: Request) -> ServiceResult<Request> {
    let (mut parts, body) = request.into_parts();
    // What does not even claim to be signed does not get its body read.
    let claim = Claim::parse(&head(&parts, &parts.uri.to_string()))?;
    let body = whole(kvs, body).await?;
    let principal = who(kvs, &parts, &claim, &body)?;
    parts.extensions.insert(principal);
    Ok(Request::from_parts(parts, Body::from(body)))
}

fn head<'a>(parts: &'a Parts, target: &'a str) -> sigv4::Request<'a> {
    sigv4::Request { method: parts.method.as_str(), target, headers: &parts.headers }
}

fn who(kvs: &Kvs, parts: &Parts, claim: &Claim, body: &Bytes) -> Result<Principal, AuthError> {
    let known = kvs.keys.secret(&claim.access_key_id, claim.session_token.as_deref());
    let (principal, secret) = known.map_err(|refusal| match refusal {
        Refusal::Unknown => AuthError::UnknownKey,
        Refusal::Expired => AuthError::TokenExpired,
    })?;
    let hash = digest(&SHA256, body).as_ref().try_into().map_err(|_| AuthError::Mismatch)?;
    let target = parts.uri.to_string();
    let (head, body) = (head(parts, &target), sigv4::Body::Whole(hash));
    claim.check(&head, &body, &secret, &kvs.options.rules, kvs.clock.now())?;
    kvs.keys.note_use(&principal);
    Ok(principal)
}

async fn whole(kvs: &Kvs, body: Body) -> ServiceResult<Bytes> {
    let read = tokio::time::timeout(kvs.options.body_timeout, Limited::new(body, BODY_BYTES_MAX).collect()).await;
    let read = read.map_err(|_| ServiceError::timeout())?;
    read.map(|read| read.to_bytes()).map_err(|error| {
        if error.is::<LengthLimitError>() {
            ServiceError::too_large()
        } else {
            ServiceError::serialization(format!("The body ended early: {error}"))
        }
    })
}
