//! CreateStream, DescribeStream, ListStreams, UpdateStream, DeleteStream.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::ids::StreamName;
use vidar_core::policy::{Action, Target};

use crate::attributes::{self, KMS_KEY_ID, MEDIA_TYPE};
use crate::call::{Call, check, members, required, stream_name};
use crate::error::{ServiceError, ServiceResult};
use crate::tags::{self, Tags};
use crate::{Kvs, arn, retention, storage};

const LIST_COUNT_MAX: i64 = 10_000;
/// A tag holds it.
const KMS_KEY_ID_BYTES_MAX: usize = 1024;

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct CreateStream {
    stream_name: Option<String>,
    device_name: Option<String>,
    media_type: Option<String>,
    kms_key_id: Option<String>,
    data_retention_in_hours: Option<i64>,
    tags: Option<Tags>,
    stream_storage_configuration: Option<storage::Configuration>,
}

pub(crate) async fn create(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let new: CreateStream = members(&body)?;
    let name = stream_name(&required("StreamName", new.stream_name)?)?;
    check(&who, "CreateStream", Action::Create, name.as_str())?;
    kvs.limits.call(None, "CreateStream", kvs.clock.monotonic())?;
    let mut settings = kvs.registry.default_settings(&name);
    settings.retention_hours = retention::hours(new.data_retention_in_hours.unwrap_or(0))?;
    // C clients send an empty one.
    if let Some(device) = new.device_name.filter(|device| !device.is_empty()) {
        settings.device = device;
    }
    if let Some(media_type) = new.media_type.filter(|media_type| !media_type.is_empty()) {
        attributes::set(&mut settings, MEDIA_TYPE, attributes::check_media_type(&media_type)?);
    }
    if let Some(key) = new.kms_key_id.filter(|key| !key.is_empty()) {
        if key.len() > KMS_KEY_ID_BYTES_MAX {
            return Err(ServiceError::invalid("KmsKeyId: expected at most 1024 bytes."));
        }
        attributes::set(&mut settings, KMS_KEY_ID, key);
    }
    if let Some(configuration) = new.stream_storage_configuration {
        configuration.apply(&mut settings)?;
    }
    tags::add(&mut settings, new.tags.unwrap_or_default())?;
    let record = kvs.registry.create(&name, Some(settings)).await?;
    Ok(Json(json!({ "StreamARN": arn::of(&record, &kvs.options.region, &kvs.options.account) })))
}

#[derive(Debug, Default, Deserialize)]
struct Named {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
}

pub(crate) async fn describe(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let named: Named = members(&body)?;
    let call = Call { kvs: &kvs, who: &who, operation: "DescribeStream", action: Action::List };
    let record = call.stream(named.name.as_deref(), named.arn.as_deref())?;
    Ok(Json(json!({ "StreamInfo": attributes::stream_info(&record, &kvs.options) })))
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ListStreams {
    max_results: Option<i64>,
    next_token: Option<String>,
    stream_name_condition: Option<NameCondition>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct NameCondition {
    comparison_operator: Option<String>,
    comparison_value: Option<String>,
}

pub(crate) async fn list(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let list: ListStreams = members(&body)?;
    if !who.may(Action::List, Target::Some) {
        return Err(ServiceError::denied(&who.access_key_id, "ListStreams", "*"));
    }
    kvs.limits.call(None, "ListStreams", kvs.clock.monotonic())?;
    let limit = list.max_results.unwrap_or(LIST_COUNT_MAX);
    if !(1..=LIST_COUNT_MAX).contains(&limit) {
        return Err(ServiceError::invalid("MaxResults: expected 1 to 10000."));
    }
    let after = list.next_token.map(|token| read_token(&token)).transpose()?;
    let condition = list.stream_name_condition.unwrap_or_default();
    if condition.comparison_operator.is_some_and(|operator| operator != "BEGINS_WITH") {
        return Err(ServiceError::invalid("ComparisonOperator: expected BEGINS_WITH."));
    }
    let prefix = condition.comparison_value.unwrap_or_default();
    let mut streams = kvs.registry.list();
    streams.retain(|record| {
        record.name.as_str().starts_with(&prefix)
            && after.as_ref().is_none_or(|after| record.name > *after)
            && who.may(Action::List, Target::Stream(record.name.as_str()))
    });
    let more = streams.len() as i64 > limit;
    streams.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    let token = streams.last().filter(|_| more).map(|last| STANDARD.encode(last.name.as_str()));
    let shown: Vec<Value> = streams.iter().map(|record| attributes::stream_info(record, &kvs.options)).collect();
    Ok(Json(json!({ "StreamInfoList": shown, "NextToken": token })))
}

fn read_token(token: &str) -> ServiceResult<StreamName> {
    let name = STANDARD.decode(token).ok().and_then(|bytes| String::from_utf8(bytes).ok());
    let name = name.and_then(|name| StreamName::new(name).ok());
    name.ok_or_else(|| ServiceError::invalid("NextToken: not a token of an earlier page."))
}

#[derive(Debug, Default, Deserialize)]
struct UpdateStream {
    #[serde(flatten)]
    named: Named,
    #[serde(rename = "CurrentVersion")]
    version: Option<String>,
    #[serde(rename = "DeviceName")]
    device: Option<String>,
    #[serde(rename = "MediaType")]
    media_type: Option<String>,
}

pub(crate) async fn update(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let update: UpdateStream = members(&body)?;
    let call = Call { kvs: &kvs, who: &who, operation: "UpdateStream", action: Action::Change };
    let version = required("CurrentVersion", update.version)?;
    let record = call.stream(update.named.name.as_deref(), update.named.arn.as_deref())?;
    let change = |settings: &mut vidar_core::control::StreamSettings| {
        if let Some(device) = update.device {
            settings.device = device;
        }
        if let Some(media_type) = update.media_type {
            attributes::set(settings, MEDIA_TYPE, attributes::check_media_type(&media_type)?);
        }
        Ok(())
    };
    call.change(&record, Some(&version), change).await?;
    Ok(Json(json!({})))
}

#[derive(Debug, Default, Deserialize)]
struct DeleteStream {
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "CurrentVersion")]
    version: Option<String>,
}

pub(crate) async fn delete(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let delete: DeleteStream = members(&body)?;
    let arn = required("StreamARN", delete.arn)?;
    let call = Call { kvs: &kvs, who: &who, operation: "DeleteStream", action: Action::Delete };
    // Looked up under the lock: a stream that is made meanwhile is not deleted in its place.
    let _one_by_one = kvs.changes.lock().await;
    let record = call.stream(None, Some(&arn))?;
    if delete.version.is_some_and(|version| version != attributes::version(&record)) {
        return Err(ServiceError::version_mismatch());
    }
    kvs.registry.delete(&record.name).await?;
    Ok(Json(json!({})))
}
