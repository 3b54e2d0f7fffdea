//! Operations on things that are not here: edge agents and signalling channels. Each answers as the service does where there are none.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::policy::Action;

use crate::Kvs;
use crate::call::{Call, members};
use crate::error::{ServiceError, ServiceResult};

type Handled = ServiceResult<Json<Value>>;

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
}

/// Whether the request names a stream that is there, and its caller may.
fn of_stream(kvs: &Kvs, who: &Principal, operation: &'static str, action: Action, body: &[u8]) -> ServiceResult<()> {
    let request: Request = members(body)?;
    let call = Call { kvs, who, operation, action };
    call.stream(request.name.as_deref(), request.arn.as_deref())?;
    Ok(())
}

/// No stream has an edge configuration.
pub(crate) async fn edge(State(kvs): State<Arc<Kvs>>, Extension(who): Extension<Principal>, body: Bytes) -> Handled {
    of_stream(&kvs, &who, "DescribeEdgeConfiguration", Action::List, &body)?;
    Err(ServiceError::no_edge_configuration())
}

/// None can be given one.
pub(crate) async fn start_edge(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    of_stream(&kvs, &who, "StartEdgeConfigurationUpdate", Action::Change, &body)?;
    Err(ServiceError::invalid("EdgeConfig: this server has no edge agents."))
}

pub(crate) async fn list_edges() -> Handled {
    Ok(Json(json!({ "EdgeConfigs": [], "NextToken": null })))
}

pub(crate) async fn list_channels() -> Handled {
    Ok(Json(json!({ "ChannelInfoList": [], "NextToken": null })))
}

/// The limit is none.
pub(crate) async fn create_channel() -> Handled {
    Err(ServiceError::too_many_channels())
}

pub(crate) async fn no_channel() -> Handled {
    Err(ServiceError::no_channel())
}

pub(crate) async fn mapped_resources(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    of_stream(&kvs, &who, "DescribeMappedResourceConfiguration", Action::List, &body)?;
    Ok(Json(json!({ "MappedResourceConfigurationList": [], "NextToken": null })))
}
