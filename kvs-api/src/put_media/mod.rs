//! PutMedia: media in and acknowledgements out, both at the same time over one connection.
//!
//! ```text
//! head ──► 200 at once ─────────────────────────────► chunks: one acknowledgement each
//!              └► session: body ──► Matroska ──► rules ──► push ──► BUFFERING, RECEIVED, PERSISTED, ERROR ──┘
//! ```
//!
//! # Invariants
//! 1. A Cluster is a fragment, whatever it begins with. It is not cut.
//! 2. RECEIVED and PERSISTED are said of what is complete and durable, in the order of the fragments. After an ERROR
//!    nothing more is said: clients forget what lies before a fragment that is PERSISTED.
//! 3. Reading never waits for a client that does not read: its acknowledgements are bounded, and over the bound its push
//!    ends.
//!
//! What comes over the wire is described in `docs/api/kinesis.md`. Not here: taking Matroska apart (`media`), fragments,
//! memory and durability (`ingest`).

mod acks;
mod fault;
mod fragment;
mod fuzz;
mod head;
mod rate;
mod refusals;
mod session;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{ConnectInfo, Extension, Request, State};
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use http_body_util::BodyExt;
use vidar_core::admission::Beside;
use vidar_core::auth::Principal;
use vidar_core::policy::Action;
use vidar_ingest::{AsSent, BeginError, Ingest, PushStart};

use crate::call::Call;
use crate::error::{ServiceError, ServiceResult};
use crate::{Kvs, gate};
use acks::Acks;
pub use fragment::Strictness;
use fragment::Watch;
use head::Head;
pub(crate) use rate::Debt;
pub use rate::Limits;
use rate::Rates;
use session::Session;

/// A client that waits for `100 Continue` gets it when its body is polled, and none after an answer: libcurl would wait
/// for a second.
const FIRST_FRAME_WAIT: Duration = Duration::from_millis(100);
/// A client's next connection begins some seconds before its last one ends, every 40 minutes.
const OVERLAP: Duration = Duration::from_secs(30);
const USER_AGENT_CHARS_MAX: usize = 256;

/// Settings of PutMedia.
#[derive(Debug, Clone, Copy, Default)]
pub struct PutMediaOptions {
    /// Which rules of the service are kept that its users would do without.
    pub strictness: Strictness,
    /// How much at the same time, and how fast.
    pub limits: Limits,
}

struct PutMedia {
    kvs: Arc<Kvs>,
    ingest: Arc<Ingest>,
    options: PutMediaOptions,
    rates: Rates,
}

/// The route, for those who signed.
pub fn router(kvs: Arc<Kvs>, ingest: Arc<Ingest>, options: PutMediaOptions) -> Router {
    let put = PutMedia { kvs: Arc::clone(&kvs), ingest, options, rates: Rates::new(options.limits) };
    let route = Router::new().route("/putMedia", post(put_media)).with_state(Arc::new(put));
    let clock = Arc::clone(&kvs.clock);
    gate::number(refusals::slow(gate::guard_streams(route, kvs), clock))
}

async fn put_media(
    State(put): State<Arc<PutMedia>>,
    Extension(who): Extension<Principal>,
    request: Request,
) -> ServiceResult<Response> {
    let (parts, mut body) = request.into_parts();
    let head = Head::parse(&parts.headers)?;
    let call = Call { kvs: &put.kvs, who: &who, operation: "PutMedia", action: Action::Push };
    let stream = call.stream(head.name, head.arn)?;
    if !put.rates.call(stream.stream, put.kvs.clock.monotonic()) {
        return Err(ServiceError::client_limit("PutMedia is called too often for this stream."));
    }
    let limits = put.options.limits;
    let acks = Acks::new(head.acks, stream.settings.retention_hours > 0);
    let source = parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or_else(String::new, |info| info.0.to_string());
    let start = PushStart {
        name: stream.name.clone(),
        by: Some(who.clone()),
        protocol: "kinesis",
        source,
        user_agent: head.user_agent.chars().take(USER_AGENT_CHARS_MAX).collect(),
        start: None,
        push: None,
        as_sent: Some(AsSent {
            origin: head.origin,
            beside: Beside { count_max: limits.connections, overlap: limits.overlap(OVERLAP) },
            follower: Arc::clone(&acks) as _,
        }),
    };
    let push = put.ingest.begin(start).await?;
    let first =
        if body.is_end_stream() { None } else { tokio::time::timeout(FIRST_FRAME_WAIT, body.frame()).await.ok() };
    let session = Session {
        push,
        body,
        first,
        acks: Arc::clone(&acks),
        watch: Watch::new(put.options.strictness, limits, head.origin),
        stream: stream.stream,
        ends: put.kvs.clock.monotonic().saturating_add(limits.connection),
        put: Arc::clone(&put),
    };
    put.ingest.tracker().spawn(session.run());
    let headers = [(header::CONTENT_TYPE, "application/json"), (header::CONNECTION, "close")];
    Ok((StatusCode::OK, headers, Body::from_stream(acks::chunks(acks))).into_response())
}

pub(crate) fn fuzz(input: &[u8]) {
    fuzz::body(input);
}

impl From<BeginError> for ServiceError {
    fn from(error: BeginError) -> Self {
        match error {
            BeginError::Registry(error) => error.into(),
            BeginError::Occupied(_) => Self::connection_limit(error.to_string()),
            _ => Self::unavailable(error.to_string()),
        }
    }
}
