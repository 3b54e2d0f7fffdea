//! UpdateDataRetention.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::control::StreamSettings;
use vidar_core::policy::Action;

use crate::Kvs;
use crate::call::{Call, members, required};
use crate::error::{ServiceError, ServiceResult};

const HOURS_MAX: i64 = 87_600;

/// A retention that this server keeps. 0: media is for those who watch, and goes within minutes.
pub(crate) fn hours(hours: i64) -> ServiceResult<u32> {
    let hours = u32::try_from(hours).ok().filter(|hours| i64::from(*hours) <= HOURS_MAX);
    hours.ok_or_else(|| ServiceError::invalid("DataRetentionInHours: expected 0 to 87600."))
}

#[derive(Debug, Default, Deserialize)]
struct UpdateDataRetention {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "CurrentVersion")]
    version: Option<String>,
    #[serde(rename = "Operation")]
    operation: Option<String>,
    #[serde(rename = "DataRetentionChangeInHours")]
    change: Option<i64>,
}

pub(crate) async fn update(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let update: UpdateDataRetention = members(&body)?;
    let version = required("CurrentVersion", update.version)?;
    let by = required("DataRetentionChangeInHours", update.change)?;
    if !(1..=HOURS_MAX).contains(&by) {
        return Err(ServiceError::invalid("DataRetentionChangeInHours: expected 1 to 87600."));
    }
    let by = match required("Operation", update.operation)?.as_str() {
        "INCREASE_DATA_RETENTION" => by,
        "DECREASE_DATA_RETENTION" => -by,
        _ => {
            return Err(ServiceError::invalid(
                "Operation: expected INCREASE_DATA_RETENTION or DECREASE_DATA_RETENTION.",
            ));
        }
    };
    let call = Call { kvs: &kvs, who: &who, operation: "UpdateDataRetention", action: Action::Change };
    let record = call.stream(update.name.as_deref(), update.arn.as_deref())?;
    let change = |settings: &mut StreamSettings| {
        settings.retention_hours = hours(i64::from(settings.retention_hours) + by)?;
        Ok(())
    };
    call.change(&record, Some(&version), change).await?;
    Ok(Json(json!({})))
}
