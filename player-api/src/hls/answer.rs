//! Answers: playlists, init segments, segments.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, header};
use vidar_core::entry::SharedEntry;

use super::rendition::RenditionId;
use super::segment::{FORMAT_VERSION, Segment, init_segment};
use super::ts::TsSegment;
use crate::{Api, ApiError, ApiResult, cache, fragment};

const PLAYLIST_TYPE: &str = "application/vnd.apple.mpegurl";
const SEGMENT_TYPE: &str = "video/mp4";
const TS_TYPE: &str = "video/mp2t";

/// A playlist.
#[must_use]
pub fn playlist(request: &HeaderMap, text: String) -> Response {
    text_of(request, PLAYLIST_TYPE, text)
}

/// A playlist of another kind.
#[must_use]
pub fn text_of(request: &HeaderMap, content_type: &'static str, text: String) -> Response {
    let tag = cache::tag_of(text.as_bytes());
    cache::answer(request, &tag, cache::REVALIDATE, content_type, text)
}

/// The init segment that a fragment needs.
///
/// # Errors
/// 404 if its config has no such track; if the config does not read.
pub async fn init(api: &Api, entry: &SharedEntry, id: RenditionId, request: &HeaderMap) -> ApiResult<Response> {
    let bytes = init_segment(&*api.source.config(entry).await?, id).ok_or_else(|| no_rendition(id))?;
    let tag = format!("\"{}-{id}-{FORMAT_VERSION}\"", entry.meta.config);
    Ok(cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, bytes))
}

/// The segment of a fragment.
///
/// # Errors
/// 404 if it has no such track; if it does not read.
pub async fn segment(
    api: &Api,
    entry: &SharedEntry,
    id: RenditionId,
    method: &Method,
    request: &HeaderMap,
) -> ApiResult<Response> {
    let tag = format!("\"{}-{id}-{FORMAT_VERSION}\"", entry.meta.number);
    if cache::not_modified(request, &tag) {
        return Ok(cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, Body::empty()));
    }
    let loaded = fragment::load(api, entry).await?;
    let segment = Segment::new(&loaded, id).ok_or_else(|| no_rendition(id))?;
    let len = segment.len();
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::from_stream(segment.open(api.source.clone()).await?),
    };
    let mut response = cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, body);
    response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
    Ok(response)
}

/// The segment of a fragment as a transport stream, of the first tracks of either kind that one carries.
///
/// # Errors
/// 404 if there is none; if it does not read.
pub async fn ts_segment(api: &Api, entry: &SharedEntry, request: &HeaderMap) -> ApiResult<Response> {
    let tag = format!("\"{}-ts-{FORMAT_VERSION}\"", entry.meta.number);
    if cache::not_modified(request, &tag) {
        return Ok(cache::answer(request, &tag, cache::IMMUTABLE, TS_TYPE, Body::empty()));
    }
    let loaded = fragment::load(api, entry).await?;
    let segment = TsSegment::new(&loaded).ok_or_else(|| ApiError::not_found("no track for a transport stream"))?;
    let body = Body::from_stream(segment.open(api.source.clone()).await?);
    Ok(cache::answer(request, &tag, cache::IMMUTABLE, TS_TYPE, body))
}

pub(crate) fn no_rendition(id: RenditionId) -> ApiError {
    ApiError::not_found(format!("no rendition {id}"))
}
