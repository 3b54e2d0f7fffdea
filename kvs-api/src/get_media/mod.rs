//! GetMedia: a stream from some point on, first what is stored, then what arrives, without an end.
//!
//! ```text
//! StartSelector ─► start ─► reader: archive ─► head of the stream (live) ─► documents ─► body
//!                                      ▲ a slow reader goes back ┘
//! ```
//! [`start`](start) finds where to begin, [`head`](head) sorts what arrives by fragment, [`reader`](reader) decides what goes out
//! next.

mod head;
mod reader;
mod start;

use std::sync::Arc;

use axum::extract::{Extension, State};
use axum::response::Response;
use bytes::Bytes;
use futures::stream;
use serde::Deserialize;
use vidar_core::auth::Principal;
use vidar_core::policy::Action;

use crate::Kvs;
use crate::archive;
use crate::call::{Call, Reading, members, required};
use crate::error::{ServiceError, ServiceResult};
use reader::Reader;
use start::{Selector, Start};

/// Of a stream at the same time, as the service publishes it.
const CONNECTION_COUNT_MAX: usize = 3;

#[derive(Debug, Default, Deserialize)]
struct Request {
    #[serde(rename = "StreamName")]
    name: Option<String>,
    #[serde(rename = "StreamARN")]
    arn: Option<String>,
    #[serde(rename = "StartSelector")]
    selector: Option<Selector>,
}

pub(crate) async fn get(
    State(kvs): State<Arc<Kvs>>,
    Extension(who): Extension<Principal>,
    body: Bytes,
) -> ServiceResult<Response> {
    let request: Request = members(&body)?;
    let start = Start::read(required("StartSelector", request.selector)?)?;
    let call = Call { kvs: &kvs, who: &who, operation: "GetMedia", action: Action::Read };
    let stream = call.stream(request.name.as_deref(), request.arn.as_deref())?;
    let turn = kvs.limits.open(stream.stream, "GetMedia", CONNECTION_COUNT_MAX);
    let turn =
        turn.ok_or_else(|| ServiceError::connection_limit("3 connections of GetMedia are open for this stream."))?;
    let place = start.find(&kvs.player, stream.stream).await?;
    let reader = Reader::new(Arc::clone(&kvs), Reading { who, stream }, place);
    let chunks = stream::unfold((reader, turn), |(mut reader, turn)| async move {
        let bytes = reader.next().await?;
        Some((bytes, (reader, turn)))
    });
    Ok(archive::media(&kvs.stop, chunks))
}
