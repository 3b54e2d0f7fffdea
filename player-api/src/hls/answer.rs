//! Answers: playlists, init segments, segments.

use axum::body::Body;
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method, header};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};

use super::low;
use super::rendition::RenditionId;
use super::segment::{FORMAT_VERSION, Segment, init_segment};
use super::ts::TsSegment;
use super::uris::{Cut, SegmentName};
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

/// The init segment of a fragment that may be being recorded.
///
/// # Errors
/// 404 if there is no such fragment or track; if its config does not read.
pub(crate) async fn init_of(
    api: &Api,
    stream: StreamId,
    number: FragmentNumber,
    id: RenditionId,
    request: &HeaderMap,
) -> ApiResult<Response> {
    let config = match low::init(api, stream, number) {
        Some(config) => config,
        None => api.source.config(&*stored(api, stream, number)?).await?,
    };
    let bytes = init_segment(&config, id).ok_or_else(|| no_rendition(id))?;
    let tag = format!("\"{number}-{id}-init-{FORMAT_VERSION}\"");
    Ok(cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, bytes))
}

/// The segment of that name: of a fragment that is stored or, of parts, that is being recorded.
///
/// # Errors
/// 404 if there is no such fragment, track or part; if it does not read.
pub(crate) async fn segment_by_name(
    api: &Api,
    stream: StreamId,
    name: SegmentName,
    id: RenditionId,
    method: &Method,
    request: &HeaderMap,
) -> ApiResult<Response> {
    let number = name.number;
    let (part_ms, part, tag) = match name.cut {
        Cut::Part(part_ms, part) => (part_ms, Some(part), format!("{part_ms}-{part}")),
        Cut::Parts(part_ms) => (part_ms, None, part_ms.to_string()),
        Cut::Whole | Cut::KeyFrame => {
            let entry = stored(api, stream, number)?;
            return whole(api, &entry, id, name.cut == Cut::KeyFrame, method, request).await;
        }
    };
    let tag = format!("\"{number}-{id}-{tag}-{FORMAT_VERSION}\"");
    if cache::not_modified(request, &tag) {
        return Ok(cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, Body::empty()));
    }
    let answer = |len: u64, body: Body| {
        let body = if *method == Method::HEAD { Body::empty() } else { body };
        let mut response = cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, body);
        response.headers_mut().insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        response
    };
    if let Some(media) = low::media(api, stream, number, id, part_ms, part).await? {
        let len = media.iter().map(|bytes| bytes.len() as u64).sum();
        return Ok(answer(len, low::body(media)));
    }
    let loaded = fragment::load(api, &stored(api, stream, number)?).await?;
    let segment = Segment::in_parts(&loaded, id, part_ms, part);
    let segment = segment.ok_or_else(|| ApiError::not_found(format!("no such part of rendition {id}")))?;
    let len = segment.len();
    Ok(answer(len, Body::from_stream(segment.open(api.source.clone()).await?)))
}

/// A fragment that is stored.
///
/// # Errors
/// 404.
pub(crate) fn stored(api: &Api, stream: StreamId, number: FragmentNumber) -> ApiResult<SharedEntry> {
    let entry = api.index.timeline().get(stream, number);
    entry.ok_or_else(|| ApiError::not_found(format!("fragment {number} is not stored")))
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
    whole(api, entry, id, false, method, request).await
}

/// `key_frame`: the first one alone.
async fn whole(
    api: &Api,
    entry: &SharedEntry,
    id: RenditionId,
    key_frame: bool,
    method: &Method,
    request: &HeaderMap,
) -> ApiResult<Response> {
    let tag = format!("\"{}-{id}{}-{FORMAT_VERSION}\"", entry.meta.number, if key_frame { "-key" } else { "" });
    if cache::not_modified(request, &tag) {
        return Ok(cache::answer(request, &tag, cache::IMMUTABLE, SEGMENT_TYPE, Body::empty()));
    }
    let loaded = fragment::load(api, entry).await?;
    let segment = if key_frame { Segment::key_frame(&loaded, id) } else { Segment::new(&loaded, id) };
    let segment = segment.ok_or_else(|| no_rendition(id))?;
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
