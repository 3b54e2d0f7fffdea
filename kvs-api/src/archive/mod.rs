//! Reading what is stored: [`list_fragments`], [`fragment_list`], and the pieces that GetMedia is made of too.

pub(crate) mod fragment_list;
pub(crate) mod list_fragments;
pub(crate) mod stored;
mod token;

use std::convert::Infallible;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::{Stream, StreamExt, stream};
use http::{HeaderValue, header};
use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use tokio_util::sync::CancellationToken;

use crate::error::{ServiceError, ServiceResult};

/// Look-ups at the same time: one may open many blocks of a stream's timeline.
static LOOKUPS: Semaphore = Semaphore::const_new(4);
/// Bytes that are joined for one write.
const WRITE_BYTES: usize = 64 << 10;

/// Looks something up beside the threads that serve.
pub(crate) async fn look_up<T: Send + 'static>(look: impl FnOnce() -> T + Send + 'static) -> ServiceResult<T> {
    let turn = LOOKUPS.acquire().await.expect("the semaphore is never closed");
    // Whoever does not wait for it any more does not end it: it keeps its turn.
    let found = spawn_blocking(move || (look(), turn)).await;
    found.map(|(found, _)| found).map_err(|_| ServiceError::internal("internal error"))
}

/// Media as the body of an answer. It is made as fast as it is read, and ends with the server.
pub(crate) fn media(stop: &CancellationToken, chunks: impl Stream<Item = Vec<Bytes>> + Send + 'static) -> Response {
    let bytes = chunks.flat_map(|chunks| stream::iter(joined(chunks).into_iter().map(Ok::<_, Infallible>)));
    let body = Body::from_stream(bytes.take_until(stop.clone().cancelled_owned()));
    let mut response = Response::new(body);
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("video/webm"));
    response
}

/// Small neighbours become one: each is a chunk of the answer.
fn joined(chunks: Vec<Bytes>) -> Vec<Bytes> {
    let mut out = Vec::new();
    let mut small: Vec<u8> = Vec::new();
    for chunk in chunks {
        if !small.is_empty() && small.len() + chunk.len() > WRITE_BYTES {
            out.push(std::mem::take(&mut small).into());
        }
        if chunk.len() > WRITE_BYTES {
            out.push(chunk);
        } else {
            small.extend_from_slice(&chunk);
        }
    }
    if !small.is_empty() {
        out.push(small.into());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_neighbours_are_joined() {
        let sizes = |chunks: &[usize]| {
            let chunks = chunks.iter().map(|len| Bytes::from(vec![1; *len])).collect();
            joined(chunks).iter().map(Bytes::len).collect::<Vec<_>>()
        };
        assert!(sizes(&[]).is_empty());
        assert!(sizes(&[0, 0]).is_empty());
        assert_eq!(sizes(&[10, 0, 20, WRITE_BYTES + 1, 5]), [30, WRITE_BYTES + 1, 5]);
        assert_eq!(sizes(&[WRITE_BYTES, 1, 1]), [WRITE_BYTES, 2]);
    }
}
