//! `/v1/credentials`: access keys, and temporary credentials (`docs/api/credentials.md`).

use std::sync::Arc;
use std::time::Duration;

use axum::body::Bytes;
use axum::extract::{Extension, Path, RawQuery, Request, State};
use axum::http::StatusCode;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, patch, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::clock::SharedClock;
use vidar_core::error::ErrorKind;
use vidar_core::policy::{Policy, Preset};
use vidar_core::time::UnixMs;
use vidar_player_api::params::{Params, bad_token, json_body, page_token};
use vidar_player_api::{Access, ApiError, ApiResult};

use super::session::{LIFETIME_MAX, POLICY_BYTES_MAX};
use super::{AccessKey, AccessKeys, KeysError, NewKey};
use crate::authenticator::Credentials;

const NAME_BYTES_MAX: usize = 256;
const SESSION_S: std::ops::RangeInclusive<u64> = 60..=LIFETIME_MAX.as_secs();
const SESSION_S_DEFAULT: u64 = 3600;

#[derive(Clone)]
struct Context {
    keys: Arc<AccessKeys>,
    auth: Arc<Credentials>,
    clock: SharedClock,
}

/// What may be done: a preset, perhaps for some streams only, or a policy.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct New {
    name: String,
    preset: Option<Preset>,
    streams: Option<Vec<String>>,
    policy: Option<Policy>,
    expires: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Change {
    name: Option<String>,
    enabled: Option<bool>,
    preset: Option<Preset>,
    streams: Option<Vec<String>>,
    policy: Option<Policy>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct NewSession {
    duration_s: Option<u64>,
    preset: Option<Preset>,
    streams: Option<Vec<String>>,
    policy: Option<Policy>,
}

/// The routes. The caller adds authentication.
pub(crate) fn router(
    keys: Arc<AccessKeys>,
    auth: Arc<Credentials>,
    clock: SharedClock,
    body_timeout: Duration,
) -> Router {
    let routes = Router::new()
        .route("/v1/credentials", get(list).post(create))
        .route("/v1/credentials/session", post(session))
        .route("/v1/credentials/{id}", patch(change).delete(delete))
        .method_not_allowed_fallback(vidar_player_api::error::method_not_allowed)
        .with_state(Context { keys, auth, clock });
    vidar_player_api::read_json_bodies(routes, body_timeout).layer(middleware::from_fn(only_lasting))
}

/// What ends by itself makes, changes and shows nothing here that would outlive it.
async fn only_lasting(request: Request, next: Next) -> Response {
    match request.extensions().get::<Access>() {
        Some(Access::Full(principal)) if !principal.is_temporary() => next.run(request).await,
        _ => {
            let detail = "temporary credentials and signed URLs have nothing to do with credentials";
            ApiError::of(ErrorKind::Forbidden, detail).into_response()
        }
    }
}

fn show(key: &AccessKey, now: UnixMs) -> Value {
    let state = match (key.enabled, key.is_expired(now)) {
        (false, _) => "disabled",
        (true, true) => "expired",
        (true, false) => "active",
    };
    json!({
        "access_key_id": key.access_key_id,
        "name": key.name,
        "state": state,
        "policy": *key.policy,
        "created": UnixMs(key.created_ms),
        "expires": key.expires_ms.map(UnixMs),
        "last_used": key.used_ms.map(UnixMs),
    })
}

fn wrong(field: &'static str, what: &str) -> ApiError {
    ApiError::unusable(format!("{field}: {what}")).with("field", field)
}

/// The policy that is meant, if any.
fn policy(preset: Option<Preset>, streams: Option<Vec<String>>, policy: Option<Policy>) -> ApiResult<Option<Policy>> {
    let policy = match (preset, streams, policy) {
        (Some(preset), streams, None) => preset.policy(streams.unwrap_or_else(|| vec!["*".to_owned()])),
        (None, None, Some(policy)) => policy,
        (None, None, None) => return Ok(None),
        (None, Some(_), _) => return Err(wrong("streams", "belong to a preset")),
        (Some(_), _, Some(_)) => return Err(wrong("policy", "expected a preset or a policy, not both")),
    };
    policy.check().map_err(|error| ApiError::unusable(error.to_string()).with("field", "policy"))?;
    Ok(Some(policy))
}

fn name(name: String) -> ApiResult<String> {
    let good = name.len() <= NAME_BYTES_MAX && !name.chars().any(char::is_control);
    if good { Ok(name) } else { Err(wrong("name", "expected at most 256 bytes, without control characters")) }
}

fn failed(error: KeysError) -> ApiError {
    let kind = match error {
        KeysError::Full => ErrorKind::Conflict,
        KeysError::Failed(_) => ErrorKind::Unavailable,
    };
    ApiError::of(kind, format!("access keys: {error}"))
}

fn unknown(id: &str) -> ApiError {
    ApiError::not_found(format!("access key {id} does not exist"))
}

async fn list(State(context): State<Context>, RawQuery(query): RawQuery) -> ApiResult<Json<Value>> {
    let params = Params::parse(query.as_deref(), &["limit", "next_token"])?;
    let limit = params.limit()?;
    let after = params.next_token()?.map(String::from_utf8).transpose().map_err(|_| bad_token())?;
    let mut keys = context.keys.list();
    keys.retain(|key| after.as_ref().is_none_or(|after| key.access_key_id > *after));
    let more = keys.len() > limit;
    keys.truncate(limit);
    let next_token = keys.last().filter(|_| more).map(|key| page_token(key.access_key_id.as_bytes()));
    let now = context.clock.now();
    let shown: Vec<Value> = keys.iter().map(|key| show(key, now)).collect();
    Ok(Json(json!({ "credentials": shown, "next_token": next_token })))
}

async fn create(State(context): State<Context>, body: Bytes) -> ApiResult<Response> {
    let new: New = json_body(&body)?;
    let policy = policy(new.preset, new.streams, new.policy)?;
    let policy = policy.ok_or_else(|| wrong("policy", "expected a preset or a policy"))?;
    let now = context.clock.now();
    let expires = new.expires.as_deref().map(UnixMs::parse).transpose();
    let expires =
        expires.map_err(|error| ApiError::bad_request(format!("expires: {error}")).with("field", "expires"))?;
    if expires.is_some_and(|expires| expires <= now) {
        return Err(wrong("expires", "is not in the future"));
    }
    let key = context.keys.create(NewKey { name: name(new.name)?, policy, expires }).await.map_err(failed)?;
    tracing::info!(access_key_id = key.access_key_id, name = key.name, "access key made");
    let mut shown = show(&key, now);
    // This once.
    shown["secret_access_key"] = key.secret.as_str().into();
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}

async fn change(State(context): State<Context>, Path(id): Path<String>, body: Bytes) -> ApiResult<Json<Value>> {
    let change: Change = json_body(&body)?;
    let policy = policy(change.preset, change.streams, change.policy)?;
    let (name, enabled) = (change.name.map(name).transpose()?, change.enabled);
    let apply = move |key: &mut AccessKey| {
        if let Some(policy) = policy {
            key.policy = Arc::new(policy);
        }
        if let Some(name) = name {
            key.name = name;
        }
        key.enabled = enabled.unwrap_or(key.enabled);
    };
    let key = context.keys.update(id.clone(), apply).await.map_err(failed)?.ok_or_else(|| unknown(&id))?;
    tracing::info!(access_key_id = key.access_key_id, enabled = key.enabled, "access key changed");
    Ok(Json(show(&key, context.clock.now())))
}

async fn delete(State(context): State<Context>, Path(id): Path<String>) -> ApiResult<StatusCode> {
    let key = context.keys.delete(id.clone()).await.map_err(failed)?.ok_or_else(|| unknown(&id))?;
    tracing::info!(access_key_id = key.access_key_id, "access key deleted");
    Ok(StatusCode::NO_CONTENT)
}

async fn session(
    State(context): State<Context>,
    Extension(access): Extension<Access>,
    body: Bytes,
) -> ApiResult<Response> {
    let new: NewSession = if body.is_empty() { NewSession::default() } else { json_body(&body)? };
    let parent = access.principal();
    let duration_s = new.duration_s.unwrap_or(SESSION_S_DEFAULT);
    if !SESSION_S.contains(&duration_s) {
        return Err(wrong("duration_s", "expected 60 to 129600"));
    }
    let policy = policy(new.preset, new.streams, new.policy)?;
    if policy.as_ref().is_some_and(|policy| json!(policy).to_string().len() > POLICY_BYTES_MAX) {
        return Err(wrong("policy", "expected at most 8 KiB of temporary credentials"));
    }
    let session = context.auth.make_session(parent, policy, Duration::from_secs(duration_s));
    let session = session.map_err(|error| failed(error.into()))?;
    let session =
        session.ok_or_else(|| ApiError::of(ErrorKind::Forbidden, "this access key does not count any more"))?;
    tracing::info!(access_key_id = session.access_key_id, parent = parent.access_key_id, "temporary credentials made");
    let shown = json!({
        "access_key_id": session.access_key_id,
        "secret_access_key": session.secret.as_str(),
        "session_token": session.token,
        "expires": session.expires,
    });
    Ok((StatusCode::CREATED, Json(shown)).into_response())
}
