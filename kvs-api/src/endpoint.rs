//! GetDataEndpoint: where everything else is. It is this server, by the URL that was configured.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::policy::Action;

use crate::Kvs;
use crate::call::{Call, members, required};
use crate::error::{ServiceError, ServiceResult};

#[derive(Debug, Default, Deserialize)]
struct GetDataEndpoint {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "APIName")]
    api: Option<String>,
}

pub(crate) async fn get(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let request: GetDataEndpoint = members(&body)?;
    let action = match required("APIName", request.api)?.as_str() {
        "PUT_MEDIA" => Action::Push,
        "GET_MEDIA"
        | "LIST_FRAGMENTS"
        | "GET_MEDIA_FOR_FRAGMENT_LIST"
        | "GET_HLS_STREAMING_SESSION_URL"
        | "GET_DASH_STREAMING_SESSION_URL"
        | "GET_CLIP"
        | "GET_IMAGES" => Action::Read,
        other => return Err(ServiceError::invalid(format!("APIName {other:?} is not known."))),
    };
    let call = Call { kvs: &kvs, who: &who, operation: "GetDataEndpoint", action };
    call.stream(request.name.as_deref(), request.arn.as_deref())?;
    Ok(Json(json!({ "DataEndpoint": kvs.options.public_url })))
}
