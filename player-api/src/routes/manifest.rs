//! `/v1/streams/STREAM/manifest`: what is stored, read and hashed fragment by fragment.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use ring::digest::{Context, SHA256};
use serde_json::{Value, json};
use vidar_core::entry::SharedEntry;
use vidar_core::error::ErrorKind;
use vidar_indexer::{RangeQuery, TimeAxis};

use crate::fragment;
use crate::params::{self, Params};
use crate::{Api, ApiResult};

/// Fragments of a page: all of their media is read before the page is answered.
const LIMIT_MAX: u64 = 100;
const LIMIT_DEFAULT: usize = 20;

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let stream = params::stream(&api, &stream)?.stream;
    let params = Params::parse(query.as_deref(), &["start", "end", "limit", "next_token"])?;
    let (start, end) = params.span()?;
    let axis = TimeAxis::Producer;
    let after = super::cursor(&params, axis, false)?;
    let limit = params.number("limit", 1..=LIMIT_MAX)?.map_or(LIMIT_DEFAULT, |limit| limit as usize);
    let query = RangeQuery { stream, axis, start, end, after, limit, descending: false };
    let page = api.index.timeline().range(&query);
    let mut fragments = Vec::with_capacity(page.entries.len());
    for entry in &page.entries {
        fragments.extend(digest(&api, entry).await?);
    }
    Ok(Json(json!({ "fragments": fragments, "next_token": page.next.map(|next| next.to_string()) })))
}

/// None: it went meanwhile.
async fn digest(api: &Api, entry: &SharedEntry) -> ApiResult<Option<Value>> {
    let meta = &entry.meta;
    let mut shown = json!({
        "fragment_number": meta.number, "producer_time": meta.producer_start, "server_time": meta.server_start(),
        "duration_ms": meta.duration_ms, "size_bytes": entry.size_bytes,
    });
    let mut hash = Context::new(&SHA256);
    match fragment::read_media(&*api.source, entry, &mut |bytes| hash.update(bytes)).await {
        Ok(()) => {
            let digest = hash.finish();
            let hex: String = digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect();
            shown["sha256"] = hex.into();
        }
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) if error.kind() == ErrorKind::Corrupt => shown["damage"] = error.to_string().into(),
        Err(error) => return Err(error.into()),
    }
    Ok(Some(shown))
}
