//! Operations on things that are not here: edge agents, signalling channels, pictures and notifications of the service's own
//! accord. Each answers as the service does where there are none.

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
    #[serde(rename = "ImageGenerationConfiguration")]
    images: Option<Value>,
    #[serde(rename = "NotificationConfiguration")]
    notifications: Option<Value>,
}

/// The request, if it names a stream that is there and its caller may.
fn of_stream(
    kvs: &Kvs,
    who: &Principal,
    operation: &'static str,
    action: Action,
    body: &[u8],
) -> ServiceResult<Request> {
    let request: Request = members(body)?;
    let call = Call { kvs, who, operation, action };
    call.stream(request.name.as_deref(), request.arn.as_deref())?;
    Ok(request)
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

pub(crate) async fn describe_images(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    of_stream(&kvs, &who, "DescribeImageGenerationConfiguration", Action::List, &body)?;
    Ok(Json(json!({ "ImageGenerationConfiguration": null })))
}

/// Taking one away changes nothing; making one would promise pictures that do not come.
pub(crate) async fn update_images(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    let request = of_stream(&kvs, &who, "UpdateImageGenerationConfiguration", Action::Change, &body)?;
    none_is_made("ImageGenerationConfiguration", request.images)
}

pub(crate) async fn describe_notifications(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    of_stream(&kvs, &who, "DescribeNotificationConfiguration", Action::List, &body)?;
    Ok(Json(json!({ "NotificationConfiguration": null })))
}

pub(crate) async fn update_notifications(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    let request = of_stream(&kvs, &who, "UpdateNotificationConfiguration", Action::Change, &body)?;
    none_is_made("NotificationConfiguration", request.notifications)
}

fn none_is_made(name: &str, configuration: Option<Value>) -> Handled {
    match configuration {
        None => Ok(Json(json!({}))),
        Some(_) => Err(ServiceError::invalid(format!("{name}: not supported by this server yet."))),
    }
}
