//! `/v1/search`: fragments, runs and gaps by what they contain.

mod aggregate;
mod rows;

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::response::{IntoResponse, Response};
use serde_json::{Map, Value, json};
use vidar_core::error::ErrorKind;
use vidar_indexer::{SearchError, SearchHit, SearchPage, SearchRequest, Sort};

pub(super) use self::aggregate::aggregate;
use self::rows::Rows;
use crate::params::{self, Params};
use crate::{Api, ApiError, ApiResult};

const KNOWN: &[&str] = &["q", "sort", "start", "end", "limit", "next_token", "format"];

pub(super) async fn search(State(api): State<Arc<Api>>, RawQuery(query): RawQuery) -> ApiResult<Response> {
    let params = Params::parse(query.as_deref(), KNOWN)?;
    let rows = params.choice("format", &[("json", None), ("csv", Some(Rows::Csv)), ("ndjson", Some(Rows::Ndjson))])?;
    let (start, end) = params.span()?;
    let after = params.next_token()?.map(String::from_utf8).transpose().map_err(|_| params::bad_token())?;
    let mut request = SearchRequest {
        q: params.text("q").unwrap_or_default().to_owned(),
        sort: params.text("sort").map(sort),
        start,
        end,
        limit: params::LIMIT_MAX,
        after,
        count: true,
    };
    if let Some(rows) = rows {
        return rows.stream(api, request, params.number("limit", 1..=u64::MAX)?).await;
    }
    request.limit = params.limit()?;
    let page = page(&api, request).await?;
    let results: Vec<Value> = page.results.iter().map(show).collect();
    Ok(Json(json!({
        "results": results,
        "total": page.total,
        "indexed_watermark": page.indexed_watermark,
        "next_token": page.next.map(|next| params::page_token(next.as_bytes())),
    }))
    .into_response())
}

async fn page(api: &Arc<Api>, request: SearchRequest) -> ApiResult<SearchPage> {
    let api = Arc::clone(api);
    // Reads files and scores documents: not for the threads that serve.
    let work = tokio::task::spawn_blocking(move || api.index.search().query(&request));
    Ok(work.await.map_err(|error| ApiError::of(ErrorKind::Internal, format!("search: {error}")))??)
}

/// `FIELD`, or `-FIELD` for the greatest first.
fn sort(text: &str) -> Sort {
    let (field, descending) = text.strip_prefix('-').map_or((text, false), |field| (field, true));
    Sort { field: field.to_owned(), descending }
}

fn show(hit: &SearchHit) -> Value {
    let all = json!({
        "kind": hit.kind.name(),
        "stream": hit.stream_name,
        "device": hit.device,
        "fragment_number": hit.fragment_number,
        "run": hit.run,
        "protocol": hit.protocol,
        "source": hit.source,
        "codecs": hit.codecs,
        "producer_time": hit.time,
        "server_time": hit.server_time,
        "duration_ms": hit.duration_ms,
        "size_bytes": hit.size_bytes,
        "width": hit.width,
        "height": hit.height,
        "fps": hit.fps,
        "bitrate": hit.bitrate,
        "gap": hit.gap,
        "tags": hit.tags.iter().map(|(name, value)| json!({ "name": name, "value": value })).collect::<Vec<_>>(),
    });
    // What does not apply to its kind is left out.
    let Value::Object(members) = all else { return all };
    let applies = |value: &Value| !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty());
    Value::Object(members.into_iter().filter(|(_, value)| applies(value)).collect::<Map<_, _>>())
}

impl From<SearchError> for ApiError {
    fn from(error: SearchError) -> Self {
        let kind = if matches!(error, SearchError::Unavailable { .. }) {
            ErrorKind::Unavailable
        } else {
            ErrorKind::Malformed
        };
        let answer = Self::of(kind, error.to_string());
        match error {
            SearchError::Malformed { position, .. } => answer.with("position", position),
            SearchError::Invalid { field, .. } => answer.with("parameter", field),
            _ => answer,
        }
    }
}
