//! UpdateImageGenerationConfiguration, UpdateNotificationConfiguration, and what describes them. Each configuration is kept
//! as an attribute of its stream, with the time from which on it counts.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use vidar_core::auth::Principal;
use vidar_core::control::StreamSettings;
use vidar_core::limits::TAG_VALUE_BYTES_MAX;
use vidar_core::policy::Action;
use vidar_core::time::UnixMs;
use vidar_indexer::TimeAxis;
use vidar_player_api::image::Style;

use crate::Kvs;
use crate::attributes::{self, IMAGES, NOTIFICATIONS};
use crate::call::{Call, members, required, within};
use crate::error::{ServiceError, ServiceResult};
use crate::images::{self, INTERVAL_MS_MIN};
use crate::selector::axis;

/// Characters of a `Uri` at most.
const URI_MAX: usize = 255;

/// `ImageGenerationConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct ImageGeneration {
    status: Option<String>,
    image_selector_type: Option<String>,
    destination_config: Option<Destination>,
    sampling_interval: Option<i64>,
    format: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    format_config: Option<BTreeMap<String, String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    width_pixels: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    height_pixels: Option<i64>,
}

/// `NotificationConfiguration`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Notification {
    status: Option<String>,
    destination_config: Option<Destination>,
}

/// `ImageGenerationDestinationConfig`, `NotificationDestinationConfig`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize, Serialize)]
#[serde(rename_all = "PascalCase", default)]
struct Destination {
    uri: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination_region: Option<String>,
}

/// What an [`ImageGeneration`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ImagePlan {
    pub(crate) enabled: bool,
    pub(crate) axis: TimeAxis,
    pub(crate) uri: String,
    pub(crate) interval_ms: i64,
    pub(crate) style: Style,
}

/// What a [`Notification`] asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct NotificationPlan {
    pub(crate) enabled: bool,
    pub(crate) topic: String,
}

/// As it is kept.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize, Serialize)]
struct Kept<T> {
    /// Milliseconds since the epoch: fragments that began earlier are none of its.
    since: i64,
    config: T,
}

/// A configuration, of either kind.
pub(crate) trait Configuration: DeserializeOwned + Serialize + Send + 'static {
    /// The attribute that holds it, and its name in requests and answers.
    const ATTRIBUTE: &'static str;
    const MEMBER: &'static str;
    /// The operations.
    const DESCRIBE: &'static str;
    const UPDATE: &'static str;
    /// What it asks for.
    type Plan;

    /// Checks every member.
    fn plan(&self) -> ServiceResult<Self::Plan>;

    /// Whether what is planned can go where it is to go.
    fn check_target(plan: &Self::Plan, kvs: &Kvs) -> ServiceResult<()>;
}

/// What a stream is configured for, and since when. What does not read is none.
pub(crate) fn plan<C: Configuration>(settings: &StreamSettings) -> Option<(UnixMs, C::Plan)> {
    let kept = kept::<C>(settings)?;
    Some((UnixMs(kept.since), kept.config.plan().ok()?))
}

fn kept<C: Configuration>(settings: &StreamSettings) -> Option<Kept<C>> {
    serde_json::from_str(attributes::get(settings, C::ATTRIBUTE)?).ok()
}

fn enabled(status: Option<&str>) -> ServiceResult<bool> {
    match required("Status", status)? {
        "ENABLED" => Ok(true),
        "DISABLED" => Ok(false),
        _ => Err(ServiceError::invalid("Status: expected ENABLED or DISABLED.")),
    }
}

/// Of the form `scheme:rest`, without `*`.
fn uri(destination: &Destination) -> ServiceResult<&str> {
    let uri = required("DestinationConfig.Uri", destination.uri.as_deref())?;
    let scheme = uri.split_once(':').filter(|(scheme, rest)| {
        let word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        !scheme.is_empty() && scheme.bytes().all(word) && !rest.trim_start_matches('/').is_empty()
    });
    let plain = !uri.contains(|c: char| c == '*' || c.is_control());
    if scheme.is_some() && plain && uri.chars().count() <= URI_MAX {
        return Ok(uri);
    }
    Err(ServiceError::invalid("DestinationConfig.Uri: expected a URI of 1 to 255 characters, without *."))
}

/// Such as `eu-central-1`.
fn check_region(region: &str) -> ServiceResult<()> {
    let parts: Vec<&str> = region.split('-').collect();
    let (number, words) = parts.split_last().expect("a part at least");
    let word = |part: &&str| !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_lowercase());
    let good = (9..=14).contains(&region.len())
        && (2..=3).contains(&words.len())
        && words.iter().all(word)
        && number.len() == 1
        && number.bytes().all(|byte| byte.is_ascii_digit());
    if good { Ok(()) } else { Err(ServiceError::invalid("DestinationRegion: expected the name of a region.")) }
}

impl Configuration for ImageGeneration {
    const ATTRIBUTE: &'static str = IMAGES;
    const MEMBER: &'static str = "ImageGenerationConfiguration";
    const DESCRIBE: &'static str = "DescribeImageGenerationConfiguration";
    const UPDATE: &'static str = "UpdateImageGenerationConfiguration";
    type Plan = ImagePlan;

    fn plan(&self) -> ServiceResult<ImagePlan> {
        let destination = required("DestinationConfig", self.destination_config.as_ref())?;
        check_region(required("DestinationConfig.DestinationRegion", destination.destination_region.as_deref())?)?;
        let interval_ms = required("SamplingInterval", self.sampling_interval)?;
        let quality = match &self.format_config {
            Some(config) if config.len() == 1 => Some(
                config
                    .get("JPEGQuality")
                    .map(String::as_str)
                    .ok_or_else(|| ServiceError::invalid("FormatConfig: expected JPEGQuality."))?,
            ),
            Some(_) => return Err(ServiceError::invalid("FormatConfig: expected JPEGQuality, and nothing else.")),
            None => None,
        };
        Ok(ImagePlan {
            enabled: enabled(self.status.as_deref())?,
            axis: axis(required("ImageSelectorType", self.image_selector_type.as_deref())?)?,
            uri: uri(destination)?.to_owned(),
            interval_ms: within("SamplingInterval", interval_ms, INTERVAL_MS_MIN, i64::from(i32::MAX))?,
            style: images::style(self.format.as_deref(), quality, self.width_pixels, self.height_pixels)?,
        })
    }

    fn check_target(plan: &ImagePlan, kvs: &Kvs) -> ServiceResult<()> {
        let is_there = target(&kvs.options.image_targets, &plan.uri).is_some();
        mapped(is_there, &plan.uri, "directory", "image_target")
    }
}

impl Configuration for Notification {
    const ATTRIBUTE: &'static str = NOTIFICATIONS;
    const MEMBER: &'static str = "NotificationConfiguration";
    const DESCRIBE: &'static str = "DescribeNotificationConfiguration";
    const UPDATE: &'static str = "UpdateNotificationConfiguration";
    type Plan = NotificationPlan;

    fn plan(&self) -> ServiceResult<NotificationPlan> {
        let destination = required("DestinationConfig", self.destination_config.as_ref())?;
        Ok(NotificationPlan { enabled: enabled(self.status.as_deref())?, topic: uri(destination)?.to_owned() })
    }

    fn check_target(plan: &NotificationPlan, kvs: &Kvs) -> ServiceResult<()> {
        mapped(kvs.options.topics.contains(&plan.topic), &plan.topic, "URL", "notify")
    }
}

fn mapped(is_there: bool, uri: &str, what: &str, setting: &str) -> ServiceResult<()> {
    let message = || format!("DestinationConfig.Uri: {uri} stands for no {what} of this server: {setting} maps them.");
    if is_there { Ok(()) } else { Err(ServiceError::invalid(message())) }
}

/// The target that a URI lies in, and the folders below it. None: it is in none, or names a folder that is not one.
pub(crate) fn target<'a, 'b>(targets: &'a [String], uri: &'b str) -> Option<(&'a str, &'b str)> {
    let below = |target: &'a String| {
        let rest = uri.strip_prefix(target.as_str())?;
        (rest.is_empty() || rest.starts_with('/')).then(|| (target.as_str(), rest.trim_matches('/')))
    };
    let (target, folders) = targets.iter().filter_map(below).min_by_key(|(_, folders)| folders.len())?;
    let good = folders.is_empty() || folders.split('/').all(|part| !matches!(part, "" | "." | ".."));
    good.then_some((target, folders))
}

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    /// With the configuration, by its name.
    #[serde(flatten)]
    rest: Map<String, Value>,
}

type Handled = ServiceResult<Json<Value>>;

pub(crate) async fn describe<C: Configuration>(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    let request: Request = members(&body)?;
    let call = Call { kvs: &kvs, who: &who, operation: C::DESCRIBE, action: Action::List };
    let record = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    let config = kept::<C>(&record.settings).map(|kept| kept.config);
    Ok(Json(json!({ C::MEMBER: config })))
}

/// Sets a configuration; none: takes it away.
pub(crate) async fn update<C: Configuration>(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    let mut request: Request = members(&body)?;
    let config = request.rest.remove(C::MEMBER).unwrap_or_default();
    let wrong = |error: serde_json::Error| ServiceError::invalid(format!("{}: {error}", C::MEMBER));
    let config: Option<C> = serde_json::from_value(config).map_err(wrong)?;
    let call = Call { kvs: &kvs, who: &who, operation: C::UPDATE, action: Action::Change };
    let record = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    if let Some(config) = &config {
        C::check_target(&config.plan()?, &kvs)?;
    }
    let since = kvs.clock.now().0;
    let change = |settings: &mut StreamSettings| {
        let Some(config) = config else {
            attributes::remove(settings, C::ATTRIBUTE);
            return Ok(());
        };
        if settings.retention_hours == 0 {
            return Err(ServiceError::no_retention());
        }
        let value = json!(Kept { since, config }).to_string();
        // Only a URI of characters of several bytes comes that far.
        if value.len() > TAG_VALUE_BYTES_MAX {
            return Err(ServiceError::invalid("DestinationConfig.Uri: too long."));
        }
        attributes::set(settings, C::ATTRIBUTE, value);
        Ok(())
    };
    call.change(&record, None, change).await?;
    Ok(Json(json!({})))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn whole() -> Value {
        json!({ "Status": "ENABLED", "ImageSelectorType": "PRODUCER_TIMESTAMP", "SamplingInterval": 200, "Format": "PNG",
                "DestinationConfig": { "Uri": "s3://shots/door", "DestinationRegion": "eu-central-1" } })
    }

    fn images(change: Value) -> ServiceResult<ImagePlan> {
        let mut config = whole();
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        members::<ImageGeneration>(config.to_string().as_bytes())?.plan()
    }

    #[test]
    fn what_may_be_configured() {
        let plan = images(json!({ "FormatConfig": { "JPEGQuality": "30" }, "WidthPixels": 320 })).unwrap();
        assert_eq!((plan.axis, plan.interval_ms, plan.enabled), (TimeAxis::Producer, 200, true));
        assert_eq!((plan.style.quality, plan.style.width, plan.style.height), (Some(30), Some(320), None));
        let destination =
            |uri: &str, region: &str| json!({ "DestinationConfig": { "Uri": uri, "DestinationRegion": region } });
        for bad in [
            json!({ "Status": "ON" }),
            json!({ "Status": null }),
            json!({ "ImageSelectorType": "CLOCK" }),
            json!({ "ImageSelectorType": null }),
            json!({ "SamplingInterval": 199 }),
            json!({ "SamplingInterval": null }),
            json!({ "SamplingInterval": 1_i64 << 31 }),
            json!({ "Format": "GIF" }),
            json!({ "FormatConfig": {} }),
            json!({ "FormatConfig": { "Quality": "80" } }),
            json!({ "FormatConfig": { "JPEGQuality": "80", "Other": "1" } }),
            json!({ "FormatConfig": { "JPEGQuality": "101" } }),
            json!({ "WidthPixels": 3841 }),
            json!({ "HeightPixels": 0 }),
            json!({ "DestinationConfig": null }),
            json!({ "DestinationConfig": { "Uri": "s3://shots" } }),
            json!({ "DestinationConfig": { "DestinationRegion": "eu-central-1" } }),
            destination("shots", "eu-central-1"),
            destination("s3://", "eu-central-1"),
            destination("s3://shots/*", "eu-central-1"),
            destination(&format!("s3://{}", "x".repeat(251)), "eu-central-1"),
            destination("s3://shots", "eu-1"),
            destination("s3://shots", "eu-central-10"),
            destination("s3://shots", "EU-CENTRAL-1"),
            destination("s3://shots", "us-gov-far-west-1"),
        ] {
            assert!(images(bad.clone()).is_err(), "{bad}");
        }
        assert!(images(destination("s3://shots", "us-gov-west-1")).is_ok());
    }

    #[test]
    fn where_a_uri_lies() {
        let targets = ["s3://shots".to_owned(), "s3://shots/door".to_owned()];
        let found = |uri| target(&targets, uri);
        assert_eq!(found("s3://shots"), Some(("s3://shots", "")));
        assert_eq!(found("s3://shots/"), Some(("s3://shots", "")));
        assert_eq!(found("s3://shots/yard/left"), Some(("s3://shots", "yard/left")));
        assert_eq!(found("s3://shots/door/1"), Some(("s3://shots/door", "1")), "the nearest");
        for none in ["s3://shots2", "s3://other", "s3://shots/../etc", "s3://shots/a//b", "s3://shots/./a"] {
            assert_eq!(found(none), None, "{none}");
        }
    }
}
