//! `/v1/streams`: list, create, show, change, delete.

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use serde::{Deserialize, Deserializer};
use serde_json::{Value, json};
use vidar_core::control::{StreamRecord, StreamSettings};
use vidar_core::ids::StreamName;
use vidar_core::limits::{TAG_COUNT_MAX, TAG_NAME_BYTES_MAX, TAG_VALUE_BYTES_MAX};
use vidar_core::policy::{Action, Target};

use crate::auth::{Access, forbidden};
use crate::params::{self, Params};
use crate::{Api, ApiError, ApiResult};

const DEVICE_BYTES_MAX: usize = 256;

/// What is to be set; what is missing stays as it is, or as the defaults have it.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct SettingsChange {
    device: Option<String>,
    retention_hours: Option<u32>,
    /// `null` lifts the bound.
    #[serde(default, deserialize_with = "given")]
    retention_bytes: Option<Option<u64>>,
    tags: Option<BTreeMap<String, String>>,
}

/// `flatten` and `deny_unknown_fields` do not go together, so the members are repeated.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct NewStream {
    name: String,
    device: Option<String>,
    retention_hours: Option<u32>,
    #[serde(default, deserialize_with = "given")]
    retention_bytes: Option<Option<u64>>,
    tags: Option<BTreeMap<String, String>>,
}

fn given<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Option<u64>>, D::Error> {
    Option::deserialize(deserializer).map(Some)
}

impl SettingsChange {
    fn apply(self, mut settings: StreamSettings) -> ApiResult<StreamSettings> {
        settings.device = self.device.unwrap_or(settings.device);
        settings.retention_hours = self.retention_hours.unwrap_or(settings.retention_hours);
        settings.retention_bytes = self.retention_bytes.unwrap_or(settings.retention_bytes);
        settings.tags = self.tags.map_or(settings.tags, |tags| tags.into_iter().collect());
        check(&settings)?;
        Ok(settings)
    }
}

fn check(settings: &StreamSettings) -> ApiResult<()> {
    let wrong = |field: &str, what: String| Err(ApiError::unusable(format!("{field}: {what}")).with("field", field));
    if settings.device.is_empty() || settings.device.len() > DEVICE_BYTES_MAX {
        return wrong("device", format!("expected 1 to {DEVICE_BYTES_MAX} bytes"));
    }
    let fits = |(name, value): &(String, String)| {
        (1..=TAG_NAME_BYTES_MAX).contains(&name.len()) && value.len() <= TAG_VALUE_BYTES_MAX
    };
    if settings.tags.len() > TAG_COUNT_MAX || !settings.tags.iter().all(fits) {
        let sizes = format!("names of 1 to {TAG_NAME_BYTES_MAX} bytes and values of up to {TAG_VALUE_BYTES_MAX}");
        return wrong("tags", format!("expected at most {TAG_COUNT_MAX}, {sizes}"));
    }
    Ok(())
}

/// A stream as listings show it.
fn show(api: &Api, record: &StreamRecord) -> Value {
    let settings = &record.settings;
    let tags: serde_json::Map<String, Value> =
        settings.tags.iter().map(|(name, value)| (name.clone(), Value::from(value.as_str()))).collect();
    json!({
        "name": record.name,
        "stream_id": record.stream,
        "created": record.created,
        "device": settings.device,
        "retention_hours": settings.retention_hours,
        "retention_bytes": settings.retention_bytes,
        "tags": tags,
        "live": api.hub.is_live(record.stream),
        "totals": super::totals(api, record.stream),
    })
}

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let params = Params::parse(query.as_deref(), &["limit", "next_token"])?;
    let limit = params.limit()?;
    let name_of = |bytes| String::from_utf8(bytes).ok().and_then(|name| StreamName::new(name).ok());
    let after = params.next_token()?.map(|bytes| name_of(bytes).ok_or_else(params::bad_token)).transpose()?;
    let mut streams = api.registry.list();
    let may_see = |name: &StreamName| access.principal().may(Action::List, Target::Stream(name.as_str()));
    streams.retain(|record| may_see(&record.name));
    let from = after.map_or(0, |after| streams.partition_point(|record| record.name <= after));
    let page: Vec<_> = streams.iter().skip(from).take(limit).collect();
    let more = from + page.len() < streams.len();
    let next_token = page.last().filter(|_| more).map(|last| params::page_token(last.name.as_str().as_bytes()));
    let shown: Vec<Value> = page.into_iter().map(|record| show(&api, record)).collect();
    Ok(Json(json!({ "streams": shown, "next_token": next_token })))
}

pub(super) async fn create(
    State(api): State<Arc<Api>>,
    Extension(access): Extension<Access>,
    body: Bytes,
) -> ApiResult<Response> {
    let new: NewStream = params::json_body(&body)?;
    let name = StreamName::new(new.name)
        .map_err(|error| ApiError::bad_request(format!("name: {error}")).with("field", "name"))?;
    if !access.principal().may(Action::Create, Target::Stream(name.as_str())) {
        return Err(forbidden());
    }
    let NewStream { device, retention_hours, retention_bytes, tags, .. } = new;
    let change = SettingsChange { device, retention_hours, retention_bytes, tags };
    let settings = change.apply(api.registry.default_settings(&name))?;
    let record = api.registry.create(&name, Some(settings)).await?;
    let mut response = (StatusCode::CREATED, Json(show(&api, &record))).into_response();
    if let Ok(location) = HeaderValue::from_str(&format!("/v1/streams/{name}")) {
        response.headers_mut().insert(header::LOCATION, location);
    }
    Ok(response)
}

pub(super) async fn get(State(api): State<Arc<Api>>, Path(name): Path<String>) -> ApiResult<Json<Value>> {
    let record = params::stream(&api, &name)?;
    Ok(Json(show(&api, &record)))
}

pub(super) async fn change(
    State(api): State<Arc<Api>>,
    Path(name): Path<String>,
    body: Bytes,
) -> ApiResult<Json<Value>> {
    let record = params::stream(&api, &name)?;
    let change: SettingsChange = params::json_body(&body)?;
    let settings = change.apply(record.settings.clone())?;
    let record = api.registry.change(&record.name, settings).await?;
    Ok(Json(show(&api, &record)))
}

pub(super) async fn delete(State(api): State<Arc<Api>>, Path(name): Path<String>) -> ApiResult<StatusCode> {
    api.registry.delete(&params::stream_name(&name)?).await?;
    Ok(StatusCode::NO_CONTENT)
}
