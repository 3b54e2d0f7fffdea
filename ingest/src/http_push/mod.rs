//! Push over HTTP: `PUT` or `POST /v1/streams/STREAM/media`, the body streamed.
//!
//! The answer comes after the body (NDJSON, a line for each fragment), or during it where the client asked for that:
//! ffmpeg never reads answers, and unread ones made the kernel reset its connection and lose its last seconds.
//! The body is read by a task of its own, so a client that goes away ends its push in order.

mod answer;
mod body;
mod problem;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::HttpBody;
use axum::extract::{ConnectInfo, Extension, Path, RawQuery, Request, State};
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, put};
use axum::{Json, Router};
use http_body_util::BodyExt;
use vidar_core::auth::Principal;
use vidar_core::error::ErrorKind;
use vidar_core::ids::{PushId, StreamName};
use vidar_core::policy::{Action, Target};
use vidar_core::query::Query;

use crate::push::{Ingest, PushStart};
use problem::Problem;

/// The client's own id for a push, and the server's answer with it.
pub const PUSH_ID_HEADER: &str = "vidar-push-id";
/// A client that waits for `100 Continue` gets it when its body is polled; one that was answered first would wait in
/// vain (libcurl: 1 s).
const FIRST_FRAME_WAIT: Duration = Duration::from_millis(100);

/// The routes of this protocol. The caller adds authentication: a [`Principal`] in the extensions.
pub fn router(ingest: Arc<Ingest>) -> Router {
    Router::new()
        .route("/v1/streams/{stream}/media", put(push).post(push))
        .route("/v1/pushes", get(list))
        .route("/v1/pushes/{push}", get(show))
        .with_state(ingest)
}

async fn push(
    State(ingest): State<Arc<Ingest>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
    request: Request,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["start", "ack"])?;
    let (parts, mut body) = request.into_parts();
    let source = parts.extensions.get::<ConnectInfo<SocketAddr>>().map_or_else(String::new, |info| info.0.to_string());
    let stream_answer = wants_stream(&query, &parts.headers)?;
    let by = parts.extensions.get::<Principal>().cloned();
    let start = PushStart { by, ..push_start(&stream, &query, &parts.headers, source)? };
    let media_type = text_header(&parts.headers, header::CONTENT_TYPE.as_str()).map(str::to_owned);
    body::check_media_type(media_type.as_deref())?;
    let push = ingest.begin(start).await.map_err(|error| Problem::new(error.kind(), error.to_string()))?;
    let log = Arc::clone(push.log());

    let first = if stream_answer && !body.is_end_stream() {
        tokio::time::timeout(FIRST_FRAME_WAIT, body.frame()).await.ok().flatten()
    } else {
        None
    };
    let (idle_timeout, stop) = (ingest.options.idle_timeout, ingest.stop.clone());
    let reader = body::Reader {
        push,
        body,
        first,
        media_type,
        idle_timeout,
        stop,
        #[cfg(feature = "gst")]
        helpers: ingest.options.helpers.clone(),
    };
    let done = ingest.tracker.spawn(reader.run());
    if stream_answer {
        return Ok(answer::streamed(log));
    }
    done.await.map_err(|_| Problem::new(ErrorKind::Internal, "internal error"))?;
    Ok(answer::after_the_body(&log))
}

fn wants_stream(query: &Query, headers: &HeaderMap) -> Result<bool, Problem> {
    if query.text("ack").is_some() {
        return Ok(query.choice("ack", &[("end", false), ("stream", true)])?);
    }
    Ok(text_header(headers, header::ACCEPT.as_str()).is_some_and(|accept| accept.contains(answer::NDJSON)))
}

fn push_start(stream: &str, query: &Query, headers: &HeaderMap, source: String) -> Result<PushStart, Problem> {
    let (name, start) = (stream_name(stream)?, query.time("start")?);
    let push = text_header(headers, PUSH_ID_HEADER).map(str::parse::<PushId>).transpose();
    let push = push.map_err(|_| Problem::new(ErrorKind::Malformed, "Vidar-Push-Id: expected a UUID"))?;
    let user_agent = text_header(headers, header::USER_AGENT.as_str()).unwrap_or_default().chars().take(256).collect();
    Ok(PushStart { name, by: None, protocol: "http", source, user_agent, start, push, as_sent: None })
}

fn stream_name(text: &str) -> Result<StreamName, Problem> {
    StreamName::new(text).map_err(|error| Problem::of_parameter("stream", error.to_string()))
}

fn text_header<'a>(headers: &'a HeaderMap, name: &str) -> Option<&'a str> {
    headers.get(name).and_then(|value| value.to_str().ok())
}

async fn list(State(ingest): State<Arc<Ingest>>, RawQuery(query): RawQuery) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["stream"])?;
    let name = query.text("stream").map(stream_name).transpose()?;
    let pushes = ingest.open_pushes(name.as_ref());
    Ok(Json(serde_json::json!({ "pushes": pushes, "next_token": null })).into_response())
}

/// `?next_token=` continues where a reader stopped; every answer says where that is. Who may neither see nor fill the
/// stream does not hear that there is a push.
async fn show(
    State(ingest): State<Arc<Ingest>>,
    who: Option<Extension<Principal>>,
    Path(push): Path<String>,
    RawQuery(query): RawQuery,
) -> Result<Response, Problem> {
    let query = Query::parse(query.as_deref(), &["next_token"])?;
    let from = query.number("next_token", 0..=u64::MAX)?.unwrap_or(0);
    let push = push.parse().map_err(|_| Problem::of_parameter("push", "push id: expected a UUID"))?;
    let log = ingest.log(push).filter(|log| {
        let stream = Target::Stream(log.stream.as_str());
        who.is_some_and(|Extension(who)| who.may(Action::Push, stream) || who.may(Action::List, stream))
    });
    let log = log.ok_or_else(|| Problem::new(ErrorKind::NotFound, format!("push {push} is not known")))?;
    let (lines, next, ended) = log.lines(from, answer::LINE_COUNT);
    let next = (!ended).then(|| next.to_string());
    let body = serde_json::json!({ "push": log.status(), "events": lines, "next_token": next });
    Ok(Json(body).into_response())
}
