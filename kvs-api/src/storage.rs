//! DescribeStreamStorageConfiguration, UpdateStreamStorageConfiguration. The tier is kept, and does nothing: there is one.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::control::StreamSettings;
use vidar_core::policy::Action;

use crate::attributes::{self, STORAGE_TIER};
use crate::call::{Call, members, required};
use crate::error::{ServiceError, ServiceResult};
use crate::{Kvs, arn};

/// `StreamStorageConfiguration`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
pub(crate) struct Configuration {
    default_storage_tier: Option<String>,
}

impl Configuration {
    pub(crate) fn apply(self, settings: &mut StreamSettings) -> ServiceResult<()> {
        match required("DefaultStorageTier", self.default_storage_tier)?.as_str() {
            tier @ ("HOT" | "WARM") => attributes::set(settings, STORAGE_TIER, tier),
            _ => return Err(ServiceError::invalid("DefaultStorageTier: expected HOT or WARM.")),
        }
        Ok(())
    }
}

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "CurrentVersion")]
    version: Option<String>,
    #[serde(rename = "StreamStorageConfiguration")]
    configuration: Option<Configuration>,
}

pub(crate) async fn describe(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let request: Request = members(&body)?;
    let operation = "DescribeStreamStorageConfiguration";
    let call = Call { kvs: &kvs, who: &who, operation, action: Action::List };
    let record = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    Ok(Json(json!({
        "StreamName": record.name,
        "StreamARN": arn::of(&record, &kvs.options.region, &kvs.options.account),
        "StreamStorageConfiguration": {
            "DefaultStorageTier": attributes::get(&record.settings, STORAGE_TIER).unwrap_or("HOT"),
        },
    })))
}

pub(crate) async fn update(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let request: Request = members(&body)?;
    let version = required("CurrentVersion", request.version)?;
    let configuration = required("StreamStorageConfiguration", request.configuration)?;
    let operation = "UpdateStreamStorageConfiguration";
    let call = Call { kvs: &kvs, who: &who, operation, action: Action::Change };
    let record = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    call.change(&record, Some(&version), |settings| configuration.apply(settings)).await?;
    Ok(Json(json!({})))
}
