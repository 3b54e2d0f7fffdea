//! Before an operation: a request id, and who signed. No byte of a body is read for somebody who is not known.
//!
//! # Invariants
//! 1. Key, scope and time, and the signature where the head promises the body's hash, are checked before the body is read.
//! 2. A body is copied out of the connection's buffers: tiny chunks cost no more than their bytes.
//! 3. Bodies whose signature is still to be checked hold [`UNPROVEN_BYTES_MAX`] together, at most.

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::{Bytes, BytesMut};
use http::request::Parts;
use http::{HeaderName, HeaderValue};
use http_body_util::BodyExt;
use ring::digest::{Context, SHA256};
use tokio::sync::{Semaphore, SemaphorePermit};
use uuid::Uuid;
use vidar_aws_wire::sigv4::{self, AuthError, Claim};
use vidar_core::auth::Principal;
use zeroize::Zeroizing;

use crate::error::{ServiceError, ServiceResult};
use crate::{Kvs, Refusal};

/// The longest body: 50 tags of the longest names and values, each character escaped.
const BODY_BYTES_MAX: usize = 256 << 10;
/// Of all bodies that are not known to be signed.
const UNPROVEN_BYTES_MAX: usize = 16 << 20;
/// The C producer connects again 12 ms after a refusal, for ever.
const REFUSAL_DELAY: Duration = Duration::from_secs(1);
const REQUEST_ID: HeaderName = HeaderName::from_static("x-amzn-requestid");

struct Gate {
    kvs: Arc<Kvs>,
    unproven: Semaphore,
}

/// For operations whose body is JSON: lets those through who signed. Their [`Principal`] stands in the extensions.
pub(crate) fn guard(router: Router, kvs: Arc<Kvs>) -> Router {
    let gate = Arc::new(Gate { kvs, unproven: Semaphore::new(UNPROVEN_BYTES_MAX) });
    router.layer(middleware::from_fn_with_state(gate, admit_whole))
}

/// For operations whose body is media without an end: as [`guard`], but the body is left as it is. Refusals are slow, also
/// those of the operations.
pub(crate) fn guard_streams(router: Router, kvs: Arc<Kvs>) -> Router {
    router.layer(middleware::from_fn_with_state(kvs, admit_stream))
}

/// Gives every request an id.
pub(crate) fn number(router: Router) -> Router {
    router.layer(middleware::map_response(with_id))
}

async fn with_id(mut response: Response) -> Response {
    if let Ok(id) = HeaderValue::from_str(&Uuid::new_v4().to_string()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    response
}

async fn admit_whole(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    match gate.admit(request).await {
        Ok(request) => next.run(request).await,
        Err(error) => error.into_response(),
    }
}

async fn admit_stream(State(kvs): State<Arc<Kvs>>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let response = match admit_head(&kvs, &parts) {
        Ok(principal) => {
            parts.extensions.insert(principal);
            next.run(Request::from_parts(parts, body)).await
        }
        Err(error) => error.into_response(),
    };
    if response.status().is_client_error() || response.status().is_server_error() {
        tokio::time::sleep(REFUSAL_DELAY).await;
    }
    response
}

/// Who signed the head of an operation whose body is media. The signature covers no body.
pub(crate) fn admit_head(kvs: &Kvs, parts: &Parts) -> ServiceResult<Principal> {
    let target = parts.uri.to_string();
    let head = head(parts, &target);
    let claim = Claim::parse(&head)?;
    let (principal, secret) = holder(kvs, &claim)?;
    claim.check(&head, &sigv4::Body::Stream, &secret, &kvs.options.rules, kvs.clock.now())?;
    kvs.keys.note_use(&principal);
    Ok(principal)
}

fn head<'a>(parts: &'a Parts, target: &'a str) -> sigv4::Request<'a> {
    sigv4::Request { method: parts.method.as_str(), target, headers: &parts.headers }
}

/// Whose key a claim names, and the secret that has to have signed.
fn holder(kvs: &Kvs, claim: &Claim) -> Result<(Principal, Zeroizing<String>), AuthError> {
    let known = kvs.keys.secret(&claim.access_key_id, claim.session_token.as_deref());
    known.map_err(|refusal| match refusal {
        Refusal::Unknown => AuthError::UnknownKey,
        Refusal::Expired => AuthError::TokenExpired,
    })
}

/// A body, and the room it takes until its signature was checked.
struct Whole<'a> {
    bytes: Bytes,
    sha256: [u8; 32],
    _room: Option<SemaphorePermit<'a>>,
}

impl Gate {
    async fn admit(&self, request: Request) -> ServiceResult<Request> {
        let (mut parts, body) = request.into_parts();
        let (rules, now) = (&self.kvs.options.rules, self.kvs.clock.now());
        let target = parts.uri.to_string();
        let head = head(&parts, &target);
        let claim = Claim::parse(&head)?;
        let (principal, secret) = holder(&self.kvs, &claim)?;
        let promised = claim.check_head(&head, &secret, rules, now)?;
        let whole = self.whole(body).await?;
        match promised {
            Some(promised) if promised == whole.sha256 => {}
            Some(_) => return Err(AuthError::BodyMismatch.into()),
            // By the time at which the head came: a body may take its time.
            None => claim.check(&head, &sigv4::Body::Whole(whole.sha256), &secret, rules, now)?,
        }
        // A body may take its time, in which the key ends, or comes to allow less.
        let (now, _) = holder(&self.kvs, &claim)?;
        let principal = Some(now).filter(|now| now.generation() == principal.generation());
        let principal = principal.ok_or(AuthError::UnknownKey)?;
        self.kvs.keys.note_use(&principal);
        parts.extensions.insert(principal);
        Ok(Request::from_parts(parts, Body::from(whole.bytes)))
    }

    async fn whole(&self, body: Body) -> ServiceResult<Whole<'_>> {
        if body.size_hint().lower() > BODY_BYTES_MAX as u64 {
            return Err(ServiceError::too_large());
        }
        let read = tokio::time::timeout(self.kvs.options.body_timeout, self.read(body)).await;
        read.map_err(|_| ServiceError::timeout())?
    }

    async fn read(&self, mut body: Body) -> ServiceResult<Whole<'_>> {
        let (mut bytes, mut hash, mut room) = (BytesMut::new(), Context::new(&SHA256), None::<SemaphorePermit<'_>>);
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| ServiceError::serialization(format!("The body ended early: {error}")))?;
            let Ok(data) = frame.into_data() else { continue };
            let count = u32::try_from(data.len()).ok().filter(|_| bytes.len() + data.len() <= BODY_BYTES_MAX);
            let more = self.unproven.try_acquire_many(count.ok_or_else(ServiceError::too_large)?);
            let more = more.map_err(|_| ServiceError::throttled())?;
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            hash.update(&data);
            bytes.extend_from_slice(&data);
        }
        let sha256 = hash.finish().as_ref().try_into().map_err(|_| AuthError::BodyMismatch)?;
        Ok(Whole { bytes: bytes.freeze(), sha256, _room: room })
    }
}

#[cfg(test)]
#[path = "gate_tests.rs"]
mod tests;
