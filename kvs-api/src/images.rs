//! GetImages: pictures at regular instants of a range.
//!
//! The picture at an instant is the sample with the greatest presentation time up to it, wherever its fragment began:
//! an instant within a fragment that began before the range has a picture. None there is only where nothing was recorded.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::limits::CONTINUES_MS;
use vidar_core::policy::Action;
use vidar_core::time::UnixMs;
use vidar_core::track::TrackKind;
use vidar_indexer::{RangeQuery, TimeAxis};
use vidar_player_api::image::{self, ImageFormat, Picture, Style};

use crate::Kvs;
use crate::call::{Call, members, required, within};
use crate::error::{ServiceError, ServiceResult};
use crate::selector::{Time, axis, began};

/// The longest range.
const RANGE_MS_MAX: i64 = 300_000;
pub(crate) const INTERVAL_MS_MIN: i64 = 200;
const INTERVAL_MS_DEFAULT: i64 = 3000;
const RESULTS_DEFAULT: i64 = 25;
const RESULTS_MAX: i64 = 100;
/// Characters of one picture at most.
const CONTENT_MAX: usize = 6_291_456;
/// Characters of the pictures of a page, after which another is begun: what an answer holds in memory.
const PAGE_CONTENT_MAX: usize = 32 << 20;
/// What a call costs of the service's rate of metadata, beside one for each picture.
const METADATA_POINTS: usize = 400;
const QUALITY_DEFAULT: u8 = 80;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct GetImages {
    stream_name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    image_selector_type: Option<String>,
    start_timestamp: Option<Time>,
    end_timestamp: Option<Time>,
    sampling_interval: Option<i64>,
    format: Option<String>,
    format_config: Option<FormatConfig>,
    width_pixels: Option<i64>,
    height_pixels: Option<i64>,
    max_results: Option<i64>,
    next_token: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
struct FormatConfig {
    #[serde(rename = "JPEGQuality")]
    quality: Option<String>,
}

/// Instants, and how their pictures are to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Wanted {
    axis: TimeAxis,
    end: UnixMs,
    interval_ms: i64,
    /// The first of this page.
    from: UnixMs,
    count_max: i64,
    style: Style,
}

impl GetImages {
    fn wanted(&self) -> ServiceResult<Wanted> {
        let axis = axis(required("ImageSelectorType", self.image_selector_type.as_deref())?)?;
        let start = required("StartTimestamp", self.start_timestamp)?.0;
        let end = required("EndTimestamp", self.end_timestamp)?.0;
        if end < start {
            return Err(ServiceError::invalid("EndTimestamp: expected a time not before StartTimestamp."));
        }
        if end.since_ms(start) > RANGE_MS_MAX {
            return Err(ServiceError::invalid("EndTimestamp: more than 300 seconds after StartTimestamp."));
        }
        let interval_ms = self.sampling_interval.unwrap_or(INTERVAL_MS_DEFAULT);
        let interval_ms = within("SamplingInterval", interval_ms, INTERVAL_MS_MIN, i64::from(i32::MAX))?;
        let count_max = within("MaxResults", self.max_results.unwrap_or(RESULTS_DEFAULT), 1, RESULTS_MAX)?;
        let from = match &self.next_token {
            Some(token) => next_instant(token, start, end, interval_ms)?,
            None => start,
        };
        Ok(Wanted { axis, end, interval_ms, from, count_max, style: self.style()? })
    }

    fn style(&self) -> ServiceResult<Style> {
        let quality = self.format_config.as_ref().and_then(|config| config.quality.as_deref());
        style(self.format.as_deref(), quality, self.width_pixels, self.height_pixels)
    }
}

/// How pictures are to look, as GetImages and UpdateImageGenerationConfiguration say it.
pub(crate) fn style(
    format: Option<&str>,
    quality: Option<&str>,
    width: Option<i64>,
    height: Option<i64>,
) -> ServiceResult<Style> {
    let side = |name: &str, value: Option<i64>, max: i64| {
        let value = value.map(|value| within(name, value, 1, max)).transpose()?;
        Ok::<_, ServiceError>(value.and_then(|value| u32::try_from(value).ok()))
    };
    let format = match required("Format", format)? {
        "JPEG" => ImageFormat::Jpeg,
        "PNG" => ImageFormat::Png,
        other => return Err(ServiceError::invalid(format!("Format: {other:?} is neither JPEG nor PNG."))),
    };
    let quality = match quality {
        Some(text) => {
            let number = text.parse::<u8>().ok().filter(|number| (1..=100).contains(number));
            number.ok_or_else(|| ServiceError::invalid("JPEGQuality: expected 1 to 100."))?
        }
        None => QUALITY_DEFAULT,
    };
    Ok(Style {
        format,
        width: side("WidthPixels", width, 3840)?,
        height: side("HeightPixels", height, 2160)?,
        quality: Some(quality),
    })
}

/// A token is the instant that the next page begins with: one of those of the same request.
fn next_instant(token: &str, start: UnixMs, end: UnixMs, interval_ms: i64) -> ServiceResult<UnixMs> {
    let at = token.parse().map(UnixMs).ok();
    let fits = |at: &UnixMs| *at > start && *at <= end && at.since_ms(start) % interval_ms == 0;
    at.filter(fits).ok_or_else(|| ServiceError::invalid("NextToken: not of an earlier page of this request."))
}

pub(crate) async fn get(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let request: GetImages = members(&body)?;
    let call = Call { kvs: &kvs, who: &who, operation: "GetImages", action: Action::Read };
    let stream = call.stream(request.stream_name.as_deref(), request.arn.as_deref())?;
    let wanted = request.wanted()?;
    if stream.settings.retention_hours == 0 {
        return Err(ServiceError::no_retention());
    }
    let (now, count) = (kvs.clock.monotonic(), usize::try_from(wanted.count_max).unwrap_or(usize::MAX));
    kvs.limits.metadata(stream.stream, METADATA_POINTS + count, now)?;
    kvs.limits.media(stream.stream, count, now)?;
    let (mut images, mut content_len, mut at) = (Vec::new(), 0, wanted.from);
    // Instants close together may show the same picture.
    let mut last: Option<(String, Shown)> = None;
    for _ in 0..wanted.count_max {
        if at > wanted.end || content_len > PAGE_CONTENT_MAX {
            break;
        }
        let shown = match find(&kvs, stream.stream, wanted.axis, at).await? {
            None => Shown::NoMedia,
            Some(picture) => match &last {
                Some((identity, shown)) if *identity == picture.identity() => shown.clone(),
                _ => {
                    let shown = render(&kvs, &picture, wanted.style).await?;
                    last = Some((picture.identity(), shown.clone()));
                    shown
                }
            },
        };
        let timestamp = at.0 as f64 / 1000.0;
        images.push(match shown {
            Shown::Picture(content) => {
                content_len += content.len();
                json!({ "TimeStamp": timestamp, "ImageContent": &*content })
            }
            Shown::NoMedia => json!({ "TimeStamp": timestamp, "Error": "NO_MEDIA" }),
            Shown::Damaged => json!({ "TimeStamp": timestamp, "Error": "MEDIA_ERROR" }),
        });
        at = at.plus_ms(wanted.interval_ms);
    }
    let next = (at <= wanted.end).then(|| at.0.to_string());
    Ok(Json(json!({ "Images": images, "NextToken": next })))
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Shown {
    /// As base64.
    Picture(Arc<str>),
    NoMedia,
    /// There is media, but it does not decode.
    Damaged,
}

/// The picture at an instant. None: nothing was recorded then.
async fn find(kvs: &Kvs, stream: StreamId, axis: TimeAxis, at: UnixMs) -> ServiceResult<Option<Picture>> {
    let Some(entry) = at_instant(kvs, stream, axis, at) else { return Ok(None) };
    let into_ms = at.since_ms(began(axis, &entry));
    let duration_ms = i64::from(entry.meta.duration_ms);
    // Runs follow each other within this.
    if into_ms >= duration_ms.saturating_add(CONTINUES_MS) {
        return Ok(None);
    }
    let config = kvs.player.source.config(&entry).await?;
    if !config.tracks.iter().any(|track| track.kind == TrackKind::Video) {
        return Ok(None);
    }
    // By the server's clock, an instant is so far into the fragment that had begun.
    let at = match axis {
        TimeAxis::Producer => at,
        TimeAxis::Server => entry.meta.producer_start.plus_ms(into_ms.min((duration_ms - 1).max(0))),
    };
    match image::find_from(&kvs.player, entry, at).await {
        Ok(picture) => Ok(Some(picture)),
        Err(error) if error.status().as_u16() == 404 => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn at_instant(kvs: &Kvs, stream: StreamId, axis: TimeAxis, at: UnixMs) -> Option<SharedEntry> {
    let timeline = kvs.player.index.timeline();
    match axis {
        TimeAxis::Producer => timeline.at(stream, at),
        TimeAxis::Server => {
            let (start, end) = (None, Some(at.plus_ms(1)));
            let query = RangeQuery { stream, axis, start, end, after: None, limit: 1, descending: true };
            timeline.range(&query).entries.pop()
        }
    }
}

async fn render(kvs: &Kvs, picture: &Picture, style: Style) -> ServiceResult<Shown> {
    match image::render(&kvs.player, &kvs.images, picture, style).await {
        Ok(bytes) if bytes.len().div_ceil(3) * 4 <= CONTENT_MAX => Ok(Shown::Picture(STANDARD.encode(bytes).into())),
        Ok(_) => Ok(Shown::Damaged),
        // All decoders are busy: the caller may ask again.
        Err(error) if error.status().as_u16() == 503 => Err(error.into()),
        Err(error) => {
            tracing::warn!(detail = error.detail(), "a picture does not decode");
            Ok(Shown::Damaged)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(body: Value) -> ServiceResult<Wanted> {
        let mut whole = json!({ "ImageSelectorType": "PRODUCER_TIMESTAMP", "StartTimestamp": 100, "EndTimestamp": 160,
                                "Format": "JPEG" });
        whole.as_object_mut().unwrap().extend(body.as_object().unwrap().clone());
        members::<GetImages>(whole.to_string().as_bytes())?.wanted()
    }

    #[test]
    fn what_may_be_asked_for() {
        let plain = wanted(json!({})).unwrap();
        assert_eq!((plain.from, plain.interval_ms, plain.count_max), (UnixMs(100_000), 3000, 25));
        assert_eq!(plain.style.quality, Some(80));
        let next = wanted(json!({ "NextToken": "103000" })).unwrap();
        assert_eq!(next.from, UnixMs(103_000));
        for bad in [
            json!({ "ImageSelectorType": "CLOCK" }),
            json!({ "ImageSelectorType": null }),
            json!({ "StartTimestamp": null }),
            json!({ "EndTimestamp": 99 }),
            json!({ "EndTimestamp": 400.001 }),
            json!({ "SamplingInterval": 199 }),
            json!({ "SamplingInterval": i64::MAX }),
            json!({ "MaxResults": 0 }),
            json!({ "MaxResults": 101 }),
            json!({ "Format": "GIF" }),
            json!({ "FormatConfig": { "JPEGQuality": "0" } }),
            json!({ "FormatConfig": { "JPEGQuality": "101" } }),
            json!({ "WidthPixels": 3841 }),
            json!({ "HeightPixels": -1 }),
            json!({ "NextToken": "100000" }),
            json!({ "NextToken": "103001" }),
            json!({ "NextToken": "163000" }),
            json!({ "NextToken": "x" }),
        ] {
            assert!(wanted(bad.clone()).is_err(), "{bad}");
        }
    }
}
