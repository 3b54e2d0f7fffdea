//! `/v1/search/aggregate`: counts, sums and percentiles of results, in groups.

use std::sync::Arc;

use axum::Json;
use axum::extract::{RawQuery, State};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use vidar_indexer::{AggregateRequest, GroupBy, GroupKey, Totals};

use super::sort;
use crate::params::Params;
use crate::turn::in_turn;
use crate::{Api, ApiResult};

const KNOWN: &[&str] = &["q", "by", "interval", "sort", "start", "end", "limit"];

/// Those that are made at the same time: each may look at every document.
static AGGREGATES: Semaphore = Semaphore::const_new(2);

pub(in crate::routes) async fn aggregate(
    State(api): State<Arc<Api>>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let params = Params::parse(query.as_deref(), KNOWN)?;
    let (start, end) = params.span()?;
    let request = AggregateRequest {
        q: params.text("q").unwrap_or_default().to_owned(),
        start,
        end,
        by: params.text("by").map(GroupBy::parse).transpose()?,
        interval_ms: params.interval_ms("interval")?,
        sort: params.text("sort").map(sort),
        limit: params.limit()?,
    };
    let found = in_turn(&AGGREGATES, move || api.index.search().aggregate(&request)).await??;
    let groups: Vec<Value> = found.groups.iter().map(|(key, totals)| show(Some(key), totals)).collect();
    Ok(Json(json!({
        "groups": groups,
        "group_count": found.group_count,
        "interval_ms": found.interval_ms,
        "total": show(None, &found.total),
        "indexed_watermark": found.indexed_watermark,
    })))
}

fn show(key: Option<&GroupKey>, totals: &Totals) -> Value {
    let whole = |value: f64| value.round() as u64;
    let mut shown = json!({
        "count": totals.count,
        "fragments": totals.fragments,
        "runs": totals.runs,
        "gaps": totals.gaps,
        "size_bytes": totals.size_bytes,
        "duration_ms": totals.duration_ms,
        "gap_ms": totals.gap_ms,
        "bitrate": totals.bitrate.map(|bitrate| json!({
            "min": whole(bitrate.min),
            "p50": whole(bitrate.p50),
            "p90": whole(bitrate.p90),
            "p99": whole(bitrate.p99),
            "max": whole(bitrate.max),
        })),
    });
    match key {
        Some(GroupKey::Time(at)) => shown["key"] = json!(at),
        Some(GroupKey::Word(word)) => shown["key"] = word.as_str().into(),
        None => {}
    }
    shown
}
