//! ListFragments: what is stored of a stream, a page at a time, by either clock.
//!
//! A range is compared with where fragments begin, and has both its ends. A page token carries the range: it says all
//! that a selector could say.

use std::sync::Arc;

use axum::Json;
use axum::extract::{Extension, State};
use bytes::Bytes;
use serde::Deserialize;
use serde_json::{Value, json};
use vidar_core::auth::Principal;
use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::StreamId;
use vidar_core::policy::Action;
use vidar_core::time::UnixMs;
use vidar_indexer::{Cursor, RangeQuery, TimeAxis, Timeline};

use super::token::Token;
use crate::Kvs;
use crate::call::{Call, members, required};
use crate::error::{ServiceError, ServiceResult};
use crate::time::{Timestamp, seconds};

const COUNT_DEFAULT: i64 = 100;
const COUNT_MAX: i64 = 1000;
const TOKEN_BYTES_MAX: usize = 4096;

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "MaxResults")]
    count: Option<i64>,
    #[serde(rename = "NextToken")]
    token: Option<String>,
    #[serde(rename = "FragmentSelector")]
    selector: Option<Selector>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Selector {
    fragment_selector_type: Option<String>,
    timestamp_range: Option<TimestampRange>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct TimestampRange {
    start_timestamp: Option<Timestamp>,
    end_timestamp: Option<Timestamp>,
}

/// What a page is made of.
#[derive(Debug, Clone, Copy)]
struct Listing {
    stream: StreamId,
    axis: TimeAxis,
    start: UnixMs,
    /// The last instant at which a fragment may begin.
    last: UnixMs,
    after: Option<Cursor>,
    count: usize,
}

pub(crate) async fn list(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Json<Value>> {
    let request: Request = members(&body)?;
    let call = Call { kvs: &kvs, who: &who, operation: "ListFragments", action: Action::Read };
    let stream = call.stream(request.name.as_deref(), request.arn.as_deref())?.stream;
    let listing = listing(stream, &request)?;
    kvs.limits.metadata(stream, listing.count, kvs.clock.monotonic())?;
    let index = Arc::clone(&kvs.player.index);
    let (entries, next) = super::look_up(move || page(index.timeline(), &listing)).await?;
    let token = next.map(|after| Token { stream, start: listing.start, last: listing.last, after }.encode());
    let fragments: Vec<Value> = entries.iter().map(|entry| show(entry)).collect();
    Ok(Json(json!({ "Fragments": fragments, "NextToken": token })))
}

fn listing(stream: StreamId, request: &Request) -> ServiceResult<Listing> {
    let count = request.count.unwrap_or(COUNT_DEFAULT);
    if !(1..=COUNT_MAX).contains(&count) {
        return Err(ServiceError::invalid("MaxResults: expected 1 to 1000."));
    }
    let count = usize::try_from(count).unwrap_or(1);
    if let Some(text) = &request.token {
        let token = Some(text).filter(|text| text.len() <= TOKEN_BYTES_MAX).and_then(|text| Token::decode(text));
        let token = token.filter(|token| token.stream == stream);
        let token = token.ok_or_else(|| ServiceError::invalid("NextToken: not a token of an earlier page."))?;
        let (axis, after) = (token.after.axis(), Some(token.after));
        return Ok(Listing { stream, axis, start: token.start, last: token.last, after, count });
    }
    let selector = request.selector.as_ref();
    let selector = selector.ok_or_else(|| ServiceError::invalid("FragmentSelector is required without NextToken."))?;
    let axis = match required("FragmentSelectorType", selector.fragment_selector_type.as_deref())? {
        "PRODUCER_TIMESTAMP" => TimeAxis::Producer,
        "SERVER_TIMESTAMP" => TimeAxis::Server,
        _ => {
            let expected = "FragmentSelectorType: expected PRODUCER_TIMESTAMP or SERVER_TIMESTAMP.";
            return Err(ServiceError::invalid(expected));
        }
    };
    let range = required("TimestampRange", selector.timestamp_range.as_ref())?;
    let start = required("StartTimestamp", range.start_timestamp)?;
    let last = required("EndTimestamp", range.end_timestamp)?;
    if last < start {
        return Err(ServiceError::invalid("EndTimestamp: expected none before StartTimestamp."));
    }
    Ok(Listing { stream, axis, start: start.ceil_ms(), last: last.floor_ms(), after: None, count })
}

/// A page, and where the next begins. The timeline lists what overlaps a range: what began before it is passed over.
fn page(timeline: &Timeline, listing: &Listing) -> (Vec<SharedEntry>, Option<Cursor>) {
    let Listing { stream, axis, start, last, mut after, count } = *listing;
    let (start, end) = (Some(start), Some(last.plus_ms(1)));
    let mut entries: Vec<SharedEntry> = Vec::new();
    loop {
        let limit = count - entries.len();
        let page = timeline.range(&RangeQuery { stream, axis, start, end, after, limit, descending: false });
        let begins_in = |entry: &SharedEntry| begin(entry, axis) >= listing.start && begin(entry, axis) <= listing.last;
        entries.extend(page.entries.into_iter().filter(begins_in));
        after = page.next;
        if after.is_none() || entries.len() == count {
            return (entries, after);
        }
    }
}

fn begin(entry: &FragmentEntry, axis: TimeAxis) -> UnixMs {
    match axis {
        TimeAxis::Producer => entry.meta.producer_start,
        TimeAxis::Server => entry.meta.server_start(),
    }
}

fn show(entry: &FragmentEntry) -> Value {
    json!({
        "FragmentNumber": entry.meta.number.to_string(),
        "FragmentSizeInBytes": entry.size_bytes,
        "ProducerTimestamp": seconds(entry.meta.producer_start),
        "ServerTimestamp": seconds(entry.meta.server_start()),
        "FragmentLengthInMilliseconds": entry.meta.duration_ms,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    proptest::proptest! {
        #[test]
        fn no_request_panics(text in "[{}\\[\\]:,\"0-9a-zA-Z.eE+-]{0,80}", at in proptest::num::f64::ANY, count: i64) {
            let body = json!({
                "MaxResults": count,
                "FragmentSelector": {
                    "FragmentSelectorType": "SERVER_TIMESTAMP",
                    "TimestampRange": {"StartTimestamp": at, "EndTimestamp": text},
                },
            });
            for body in [body.to_string(), text] {
                if let Ok(request) = members::<Request>(body.as_bytes())
                    && let Ok(listing) = listing(StreamId::new(), &request)
                {
                    proptest::prop_assert!((1..=1000).contains(&listing.count));
                }
            }
        }
    }
}
