//! Tags, in both dialects: of streams by name or ARN, and of resources by ARN.

use std::collections::BTreeMap;
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
use crate::attributes::RESERVED;
use crate::call::{Call, members, required};
use crate::error::{ServiceError, ServiceResult};

/// Tags of a stream at most, without those that are reserved.
const COUNT_MAX: usize = 50;

/// As CreateStream and TagStream have them.
pub(crate) type Tags = BTreeMap<String, String>;

/// As TagResource has them.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Tag {
    key: String,
    value: String,
}

#[derive(Debug, Default, Deserialize)]
struct Target {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    stream_arn: Option<String>,
    #[serde(rename = "ResourceARN")]
    resource_arn: Option<String>,
    #[serde(rename = "TagKeyList")]
    keys: Option<Vec<String>>,
}

#[derive(Debug, Default, Deserialize)]
struct TagRequest<T> {
    #[serde(flatten)]
    target: Target,
    #[serde(rename = "Tags")]
    tags: Option<T>,
}

fn is_text(text: &str) -> bool {
    text.chars().all(|c| c.is_alphanumeric() || c.is_whitespace() || "_.:/=+-@".contains(c))
}

/// Adds tags of the user's, or overwrites them.
pub(crate) fn add(settings: &mut StreamSettings, tags: Tags) -> ServiceResult<()> {
    // Before they are added: each is looked up among those before it.
    if tags.len() > COUNT_MAX {
        return Err(ServiceError::too_many_tags());
    }
    for (key, value) in tags {
        if !(1..=128).contains(&key.len()) || !is_text(&key) || key.to_ascii_lowercase().starts_with(RESERVED) {
            return Err(ServiceError::invalid(format!(
                "TagKey {key:?}: expected 1 to 128 letters, digits and _.:/=+-@, not beginning with aws:"
            )));
        }
        if value.len() > 256 || !is_text(&value) {
            return Err(ServiceError::invalid(format!(
                "TagValue of {key:?}: expected at most 256 letters, digits and _.:/=+-@"
            )));
        }
        crate::attributes::set(settings, &key, value);
    }
    if own(settings).count() > COUNT_MAX {
        return Err(ServiceError::too_many_tags());
    }
    Ok(())
}

/// Those that the user sees.
fn own(settings: &StreamSettings) -> impl Iterator<Item = (&str, &str)> {
    let tags = settings.tags.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    tags.filter(|(name, _)| !name.starts_with(RESERVED))
}

fn call<'a>(kvs: &'a Kvs, who: &'a Principal, operation: &'static str, action: Action) -> Call<'a> {
    Call { kvs, who, operation, action }
}

async fn tag(call: Call<'_>, target: Target, tags: Tags) -> ServiceResult<Json<Value>> {
    if !(1..=COUNT_MAX).contains(&tags.len()) {
        return Err(ServiceError::invalid("Tags: expected 1 to 50."));
    }
    let record = call.stream(target.name.as_deref(), target.arn())?;
    call.change(&record, None, |settings| add(settings, tags)).await?;
    Ok(Json(json!({})))
}

async fn untag(call: Call<'_>, target: Target) -> ServiceResult<Json<Value>> {
    let keys = required("TagKeyList", target.keys.as_ref())?;
    if !(1..=COUNT_MAX).contains(&keys.len()) || keys.iter().any(|key| key.starts_with(RESERVED)) {
        return Err(ServiceError::invalid("TagKeyList: expected 1 to 50 keys, none beginning with aws:"));
    }
    let record = call.stream(target.name.as_deref(), target.arn())?;
    let remove = |settings: &mut StreamSettings| {
        settings.tags.retain(|(name, _)| !keys.contains(name));
        Ok(())
    };
    call.change(&record, None, remove).await?;
    Ok(Json(json!({})))
}

/// All at once: there are no more than 50.
fn list(call: &Call<'_>, target: &Target) -> ServiceResult<Json<Value>> {
    let record = call.stream(target.name.as_deref(), target.arn())?;
    let tags: BTreeMap<&str, &str> = own(&record.settings).collect();
    Ok(Json(json!({ "Tags": tags, "NextToken": null })))
}

impl Target {
    fn arn(&self) -> Option<&str> {
        self.stream_arn.as_deref().or(self.resource_arn.as_deref())
    }

    /// The operations on resources know no names.
    fn of_resource(self) -> ServiceResult<Self> {
        let resource_arn = required("ResourceARN", self.resource_arn)?;
        Ok(Self { resource_arn: Some(resource_arn), keys: self.keys, ..Self::default() })
    }
}

type Handled = ServiceResult<Json<Value>>;

pub(crate) async fn tag_stream(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    let request: TagRequest<Tags> = members(&body)?;
    let tags = required("Tags", request.tags)?;
    tag(call(&kvs, &who, "TagStream", Action::Tag), request.target, tags).await
}

pub(crate) async fn tag_resource(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    let request: TagRequest<Vec<Tag>> = members(&body)?;
    let tags = required("Tags", request.tags)?.into_iter().map(|tag| (tag.key, tag.value)).collect();
    tag(call(&kvs, &who, "TagResource", Action::Tag), request.target.of_resource()?, tags).await
}

pub(crate) async fn untag_stream(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    untag(call(&kvs, &who, "UntagStream", Action::Tag), members(&body)?).await
}

pub(crate) async fn untag_resource(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    untag(call(&kvs, &who, "UntagResource", Action::Tag), members::<Target>(&body)?.of_resource()?).await
}

pub(crate) async fn list_for_stream(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    list(&call(&kvs, &who, "ListTagsForStream", Action::List), &members(&body)?)
}

pub(crate) async fn list_for_resource(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> Handled {
    list(&call(&kvs, &who, "ListTagsForResource", Action::List), &members::<Target>(&body)?.of_resource()?)
}
