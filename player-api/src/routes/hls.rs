//! `/v1/streams/STREAM/hls/…`: playlists and segments.

use std::sync::Arc;

use axum::extract::{Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, HeaderValue, Method};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};

use crate::hls::{
    self, Asked, Cut, MediaPlaylist, Missing, Names, PART_MS, Plan, RenditionId, SegmentName, Uris, answer,
};
use crate::params::{self, Params};
use crate::{Api, ApiError, ApiResult};

/// Longest target duration a URL may ask for, in seconds.
const TARGET_S_MAX: u64 = 3600;
/// Longest live window that a URL may ask for, in seconds.
const WINDOW_S_MAX: u64 = 86_400;
/// About how long parts may be asked to be, in milliseconds.
const ABOUT_MS: std::ops::RangeInclusive<u64> = 100..=2000;
/// Fragments from the newest back among which a config is looked for.
const INIT_BACK_MAX: usize = 1000;

/// `index.m3u8` and `live.m3u8`: the multivariant playlists.
pub(super) async fn multivariant(
    State(api): State<Arc<Api>>,
    Path((stream, file)): Path<(String, String)>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let stream = params::stream(&api, &stream)?.stream;
    match file.as_str() {
        "index.m3u8" => {
            let params = Params::parse(query.as_deref(), &["start", "end"])?;
            let (start, end) = params.span()?;
            let range = hls::range(&api, stream, start, end).await?;
            let bounds = [("start", encoded(range.start)), ("end", encoded(range.end))];
            let uris = Uris { file: "index.m3u8", parameters: bounds.into(), ..uris(&params, true) };
            let mut playlist = range.plan.multivariant(&uris);
            playlist.start_offset_ms = range.offset_ms;
            let key_frames = Uris { file: "iframes.m3u8", ..uris };
            // Fragments begin with a keyframe of the first.
            if let Some(video) = playlist.video.iter_mut().find(|video| video.id.is_first_video()) {
                video.key_frames = Some(key_frames.playlist(video.id));
            }
            playable(&range.plan)?;
            Ok(playlist_answer(&headers, playlist.render(), &range.plan, range.offset_ms))
        }
        "live.m3u8" => {
            let params = Params::parse(query.as_deref(), &["part", "window"])?;
            let about_ms = params.number("part", ABOUT_MS)?;
            let window_s = window_s(&params)?;
            let (plan, target_s) = hls::live(&api, stream, window_s * 1000, None).await?;
            let mut uris = Uris { file: "live.m3u8", ..uris(&params, false) };
            let mut playlist = plan.multivariant(&uris);
            uris.parameters = [("target", target_s.to_string())].into();
            if let Some(about_ms) = about_ms {
                let milli_fps = playlist.video.first().and_then(|video| video.milli_fps);
                let part_ms = hls::part_ms(about_ms as u32, milli_fps).clamp(*PART_MS.start(), *PART_MS.end());
                uris.parameters.push(("part", part_ms.to_string()));
            }
            if window_s > 0 {
                uris.parameters.push(("window", window_s.to_string()));
            }
            playlist.video.iter_mut().chain(&mut playlist.audio).for_each(|one| one.uri = uris.playlist(one.id));
            playable(&plan)?;
            Ok(playlist_answer(&headers, playlist.render(), &plan, None))
        }
        _ => Err(unknown_file()),
    }
}

/// What stands below a rendition: media playlists, init segments, segments.
pub(super) async fn rendition(
    State(api): State<Arc<Api>>,
    Path((name, id, file)): Path<(String, String, String)>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> ApiResult<Response> {
    let stream = params::stream(&api, &name)?.stream;
    let id = RenditionId::parse(&id).ok_or_else(unknown_file)?;
    let query = query.as_deref();
    if let Some(segment) = SegmentName::parse(&file) {
        Params::parse(query, &[])?;
        return answer::segment_by_name(&api, stream, segment, id, &method, &headers).await;
    }
    if let Some(number) = file.strip_prefix("init-of-").and_then(|rest| rest.strip_suffix(".mp4")) {
        Params::parse(query, &[])?;
        let number = number.parse().map_err(|_| unknown_file())?;
        return answer::init_of(&api, stream, number, id, &headers).await;
    }
    if let Some(config) = file.strip_prefix("init-").and_then(|rest| rest.strip_suffix(".mp4")) {
        let params = Params::parse(query, &["at"])?;
        return init(&api, stream, id, config, &params, &headers).await;
    }
    match file.as_str() {
        "index.m3u8" | "iframes.m3u8" => {
            let params = Params::parse(query, &["start", "end"])?;
            let (start, end) = params.span()?;
            let range = hls::range(&api, stream, start, end).await?;
            known_rendition(&range.plan, id)?;
            let key_frames = file == "iframes.m3u8";
            if key_frames && !id.is_first_video() {
                return Err(unknown_file());
            }
            let segments = match key_frames {
                true => range.plan.key_frames(id, &Uris { cut: Cut::KeyFrame, ..uris(&params, true) }),
                false => range.plan.segments(id, &uris(&params, true), Missing::OfRun),
            };
            let playlist = MediaPlaylist {
                sequence: 0,
                target_s: 0,
                independent: range.plan.independent(Some(id)),
                ended: true,
                start_offset_ms: range.offset_ms,
                dates: true,
                segments,
                low: None,
                key_frames,
            };
            Ok(playlist_answer(&headers, playlist.render(), &range.plan, range.offset_ms))
        }
        "live.m3u8" => {
            let params = Params::parse(query, &["target", "window", "part", "_HLS_msn", "_HLS_part", "_HLS_skip"])?;
            let target = params.number("target", 1..=TARGET_S_MAX)?.map(|target| target as u32);
            let window_s = window_s(&params)?;
            if let Some(part_ms) = params.number("part", u64::from(*PART_MS.start())..=u64::from(*PART_MS.end()))? {
                let asked = asked(&params, id, target, part_ms as u32, window_s)?;
                let answer = low_latency(&api, stream, asked, &params, &headers).await;
                // What was waited for may be of a stream that is deleted by now.
                return if params::stream(&api, &name)?.stream == stream { answer } else { Err(unknown_file()) };
            }
            let (plan, target_s) = hls::live(&api, stream, window_s * 1000, target).await?;
            known_rendition(&plan, id)?;
            let playlist = MediaPlaylist {
                sequence: plan.entries.first().map_or(0, |entry| entry.meta.ordinal),
                target_s,
                independent: plan.independent(Some(id)),
                ended: false,
                start_offset_ms: None,
                dates: true,
                segments: plan.segments(id, &uris(&params, false), Missing::Listed),
                low: None,
                key_frames: false,
            };
            Ok(playlist_answer(&headers, playlist.render(), &plan, None))
        }
        _ => Err(unknown_file()),
    }
}

fn asked(params: &Params, id: RenditionId, target_s: Option<u32>, part_ms: u32, window_s: u64) -> ApiResult<Asked> {
    let (sequence, part) = (params.number("_HLS_msn", 0..=u64::MAX)?, params.number("_HLS_part", 0..=u64::MAX)?);
    if part.is_some() && sequence.is_none() {
        return Err(ApiError::bad_request("_HLS_part: of which _HLS_msn?").with("parameter", "_HLS_part"));
    }
    Ok(Asked {
        id,
        target_s,
        part_ms,
        window_ms: window_s * 1000,
        sequence,
        part: part.map(|part| usize::try_from(part).unwrap_or(usize::MAX)),
        skip: params.text("_HLS_skip").is_some(),
    })
}

async fn low_latency(
    api: &Api,
    stream: StreamId,
    asked: Asked,
    params: &Params,
    headers: &HeaderMap,
) -> ApiResult<Response> {
    // Other renditions are reported by the URLs that they have.
    let mut parameters = Vec::new();
    for name in ["target", "part", "window"] {
        parameters.extend(params.text(name).map(|value| (name, params::encode(value))));
    }
    let uris = Uris { file: "live.m3u8", parameters, cut: Cut::Parts(asked.part_ms), ..uris(params, false) };
    let (playlist, plan) = hls::low_playlist(api, stream, asked, &uris).await?;
    Ok(playlist_answer(headers, playlist.render(), &plan, None))
}

fn window_s(params: &Params) -> ApiResult<u64> {
    Ok(params.number("window", 1..=WINDOW_S_MAX)?.unwrap_or(0))
}

fn unknown_file() -> ApiError {
    ApiError::not_found("no such playlist or segment")
}

fn encoded(at: vidar_core::time::UnixMs) -> String {
    params::encode(&at.to_string())
}

fn uris(params: &Params, hint_init: bool) -> Uris {
    let token = params.text("token").map(|token| format!("token={}", params::encode(token)));
    Uris { token, hint_init, ..Uris::default() }
}

/// 422 if HLS carries none of the tracks.
fn playable(plan: &Plan) -> ApiResult<()> {
    if plan.renditions().is_empty() {
        return Err(ApiError::unusable("HLS carries none of the tracks").with("omitted_tracks", plan.omitted()));
    }
    Ok(())
}

fn known_rendition(plan: &Plan, id: RenditionId) -> ApiResult<()> {
    if plan.renditions().contains(&id) { Ok(()) } else { Err(answer::no_rendition(id)) }
}

fn playlist_answer(request: &HeaderMap, text: String, plan: &Plan, offset_ms: Option<i64>) -> Response {
    let mut response = answer::playlist(request, text);
    let headers = response.headers_mut();
    if let Some(omitted) = plan.omitted().and_then(|omitted| HeaderValue::from_str(&omitted).ok()) {
        headers.insert("vidar-omitted-tracks", omitted);
    }
    if let Some(offset_ms) = offset_ms {
        headers.insert("vidar-start-offset-ms", HeaderValue::from(offset_ms));
    }
    response
}

async fn init(
    api: &Api,
    stream: StreamId,
    id: RenditionId,
    config: &str,
    params: &Params,
    request: &HeaderMap,
) -> ApiResult<Response> {
    let hint = params.text("at").map(|text| text.parse::<FragmentNumber>()).transpose();
    let hint = hint.map_err(|error| ApiError::bad_request(error.to_string()).with("parameter", "at"))?;
    let missing = || ApiError::not_found("no fragment with that config is stored");
    let entry = entry_of_config(api, stream, config, hint).ok_or_else(missing)?;
    answer::init(api, &entry, id, request).await
}

/// A fragment with this config: the hinted one, else one of the newest.
fn entry_of_config(api: &Api, stream: StreamId, config: &str, hint: Option<FragmentNumber>) -> Option<SharedEntry> {
    let timeline = api.index.timeline();
    let fits = |entry: &SharedEntry| entry.meta.config.to_string() == config;
    if let Some(number) = hint {
        return timeline.get(stream, number).filter(fits);
    }
    let newest = timeline.last(stream);
    let mut back = std::iter::successors(newest, |entry| timeline.previous(stream, entry.meta.number));
    back.by_ref().take(INIT_BACK_MAX).find(fits)
}
