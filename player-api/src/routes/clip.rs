//! `/v1/streams/STREAM/clip.mp4` and `clip.mkv`: any range as one file.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, Method};

use crate::clip::{self, ClipRange, Container, Missing};
use crate::params::{self, Params};
use crate::virtual_file::Answer;
use crate::{Api, ApiResult};

const KNOWN: &[&str] = &["start", "end", "gaps", "live", "check"];

pub(super) async fn mp4(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> ApiResult<Response> {
    answer(api, &stream, query.as_deref(), &method, &headers, Container::Mp4).await
}

pub(super) async fn mkv(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> ApiResult<Response> {
    answer(api, &stream, query.as_deref(), &method, &headers, Container::Mkv).await
}

async fn answer(
    api: Arc<Api>,
    stream: &str,
    query: Option<&str>,
    method: &Method,
    headers: &HeaderMap,
    container: Container,
) -> ApiResult<Response> {
    let params = Params::parse(query, KNOWN)?;
    let (start, end) = params.span()?;
    let fails = params.choice("gaps", &[("skip", false), ("error", true)])?;
    let checked = params.choice("check", &[("0", false), ("1", true)])?;
    let stream = params::stream(&api, stream)?.stream;
    let range = ClipRange { stream, start, end };
    if params.choice("live", &[("0", false), ("1", true)])? {
        return clip::live(api, range, container, method).await;
    }
    let clip = clip::clip(api, range, container, Missing { fails, checked }).await?;
    let answer = Answer { content_type: container.content_type(), etag: clip.etag, headers: clip.headers };
    Ok(answer.respond(method, headers, clip.file))
}
