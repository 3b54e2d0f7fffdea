//! Keys, as operators see them: where the key-encryption key comes from, what keys there are, and rotating them.
//! `/v1/keys` (`docs/api/keys.md`) and `vidar keys` are two ways to the same.

use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::bail;
use axum::body::Bytes;
use axum::extract::{RawQuery, State};
use axum::routing::{get, post};
use axum::{Json, Router};
use serde::Deserialize;
use serde_json::{Value, json};
use uuid::Uuid;
use vidar_core::control::{Control, StreamRecord};
use vidar_core::error::ErrorKind;
use vidar_core::ids::{StreamId, StreamName};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::time::UnixMs;
use vidar_player_api::params::{Params, bad_token, json_body, page_token};
use vidar_player_api::{ApiError, ApiResult};
use vidar_storage::crypto::kek::{KekError, KekProvider, KeyEnv, KeyFile};
use vidar_storage::{KeyInfo, RotateError, Store};

use crate::registry::Registry;

/// Holds the key itself, where no file does: 64 hex digits.
pub const KEK_VARIABLE: &str = "VIDAR_KEK";

/// The provider that was chosen: a key file that was named, the variable, else the file beside the data directory.
///
/// # Errors
/// If two are named: a typing error must not make a second key.
pub fn provider(data_dir: &Path, key_file: Option<&PathBuf>) -> anyhow::Result<Arc<dyn KekProvider>> {
    match (key_file, std::env::var_os(KEK_VARIABLE)) {
        (Some(_), Some(_)) => bail!("{KEK_VARIABLE} and a key file are both given: choose one"),
        (Some(path), None) => Ok(Arc::new(KeyFile::new(path))),
        (None, Some(_)) => Ok(Arc::new(KeyEnv::new(KEK_VARIABLE))),
        (None, None) => Ok(Arc::new(KeyFile::beside(data_dir))),
    }
}

/// When versions of keys came into being, as the log says.
#[derive(Debug, Default)]
pub struct KeyLog(Mutex<HashMap<(StreamId, u32), UnixMs>>);

impl KeyLog {
    fn created(&self, stream: StreamId, version: u32) -> Option<UnixMs> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(&(stream, version)).copied()
    }
}

impl LogObserver for KeyLog {
    fn observe(&self, event: &LogEvent) {
        let LogEvent::Control(record) = event else { return };
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &record.body {
            Control::Key { stream: Some(stream), version, .. } => {
                known.insert((*stream, *version), UnixMs(record.number.server_ms()));
            }
            Control::StreamDeleted { stream, .. } => known.retain(|(of, _), _| of != stream),
            _ => {}
        }
    }

    /// Control records are told at each start.
    fn save(&self, _id: Uuid) -> io::Result<()> {
        Ok(())
    }

    fn restore(&self, _id: Uuid) -> bool {
        true
    }
}

/// Everything that rotating and listing need.
pub struct Keys {
    /// Has the keys.
    pub store: Store,
    /// Streams by name.
    pub registry: Arc<Registry>,
    /// Their history.
    pub log: Arc<KeyLog>,
}

/// What is to be rotated: one of the three.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct Rotation {
    kek: bool,
    stream: Option<String>,
    all_streams: bool,
}

impl Keys {
    /// All keys as the API shows them, in order.
    #[must_use]
    pub fn list(&self) -> Vec<(KeyInfo, Value)> {
        let streams: HashMap<StreamId, Arc<StreamRecord>> =
            self.registry.list().into_iter().map(|record| (record.stream, record)).collect();
        let keys = self.store.keys().into_iter();
        keys.map(|key| (key, self.show(key, key.stream.and_then(|id| streams.get(&id)).map(|record| &**record))))
            .collect()
    }

    fn show(&self, key: KeyInfo, record: Option<&StreamRecord>) -> Value {
        let noted = key.stream.and_then(|stream| self.log.created(stream, key.version));
        let first = record.filter(|_| key.version == 1).map(|record| record.created);
        json!({
            "purpose": key.purpose.name(),
            "stream": record.map(|record| &record.name),
            "stream_id": key.stream,
            "version": key.version,
            "state": if key.current { "current" } else { "old" },
            "created": noted.or(first),
        })
    }

    /// Gives streams new versions of their keys; `name: None`: all of them. Name and version of each.
    ///
    /// # Errors
    /// If there is no stream of that name, or the keyring or the log cannot be written.
    pub async fn rotate_streams(&self, name: Option<&StreamName>) -> Result<Vec<(StreamName, u32)>, RegistryError> {
        let records = match name {
            Some(name) => vec![self.registry.get(name).ok_or_else(|| RegistryError::NotFound { name: name.clone() })?],
            None => self.registry.list(),
        };
        let ids: Vec<StreamId> = records.iter().map(|record| record.stream).collect();
        let versions: HashMap<StreamId, u32> = self.store.rotate_stream_keys(&ids).await?.into_iter().collect();
        let rotated = records.iter().filter_map(|r| Some((r.name.clone(), *versions.get(&r.stream)?)));
        let rotated: Vec<_> = rotated.collect();
        tracing::info!(streams = rotated.len(), "stream keys rotated");
        Ok(rotated)
    }
}

/// `/v1/keys`. The caller adds authentication.
pub fn router(keys: Arc<Keys>, body_timeout: Duration) -> Router {
    let routes = Router::new().route("/v1/keys", get(list)).route("/v1/keys/rotate", post(rotate)).with_state(keys);
    vidar_player_api::read_json_bodies(routes, body_timeout)
}

/// Where a key stands in a list.
fn place(key: &KeyInfo) -> Vec<u8> {
    let stream = key.stream.map_or([0; 16], |stream| *stream.as_bytes());
    [&[key.purpose as u8][..], &stream, &key.version.to_be_bytes()].concat()
}

async fn list(State(keys): State<Arc<Keys>>, RawQuery(query): RawQuery) -> ApiResult<Json<Value>> {
    let params = Params::parse(query.as_deref(), &["limit", "next_token"])?;
    let limit = params.limit()?;
    let after = params.next_token()?;
    if after.as_ref().is_some_and(|after| after.len() != 21) {
        return Err(bad_token());
    }
    let mut all = keys.list();
    all.retain(|(key, _)| after.as_ref().is_none_or(|after| place(key) > *after));
    let more = all.len() > limit;
    all.truncate(limit);
    let next_token = all.last().filter(|_| more).map(|(key, _)| page_token(&place(key)));
    let shown: Vec<Value> = all.into_iter().map(|(_, shown)| shown).collect();
    Ok(Json(json!({ "keys": shown, "next_token": next_token })))
}

async fn rotate(State(keys): State<Arc<Keys>>, body: Bytes) -> ApiResult<Json<Value>> {
    let rotation: Rotation = json_body(&body)?;
    let name = rotation.stream.map(StreamName::new).transpose();
    let name = name.map_err(|error| ApiError::bad_request(format!("stream: {error}")).with("field", "stream"))?;
    let streams = match (rotation.kek, &name, rotation.all_streams) {
        (true, None, false) => {
            // What has begun is done, whether its client waits or not.
            let store = keys.store.clone();
            let rotated = tokio::spawn(async move { store.rotate_kek(None).await }).await;
            rotated.map_err(|error| ApiError::of(ErrorKind::Unavailable, error.to_string()))?.map_err(refused)?;
            tracing::info!("the key that opens the keyring was rotated");
            Vec::new()
        }
        (false, Some(_), false) | (false, None, true) => {
            let rotated = tokio::spawn(async move { keys.rotate_streams(name.as_ref()).await }).await;
            rotated.map_err(|error| ApiError::of(ErrorKind::Unavailable, error.to_string()))??
        }
        _ => return Err(ApiError::unusable("expected one of `kek`, `stream`, `all_streams`")),
    };
    Ok(Json(rotated(rotation.kek, &streams)))
}

/// The answer to a rotation.
pub(crate) fn rotated(kek: bool, streams: &[(StreamName, u32)]) -> Value {
    let streams: Vec<Value> =
        streams.iter().map(|(name, version)| json!({ "stream": name, "version": version })).collect();
    json!({ "kek": kek, "streams": streams })
}

fn refused(error: RotateError) -> ApiError {
    let kind = match &error {
        RotateError::Kek(KekError::Unsupported { .. }) => ErrorKind::Unusable,
        RotateError::Sink(error) => error.kind(),
        _ => ErrorKind::Unavailable,
    };
    ApiError::of(kind, error.to_string())
}
