//! Bodies of requests: JSON, short, and soon here.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use bytes::BytesMut;
use http::StatusCode;
use http_body_util::BodyExt;

use crate::error::{ApiError, ApiResult};

/// Largest JSON body, in bytes.
const JSON_BYTES_MAX: usize = 64 << 10;

/// Reads the body of each request before its handler sees it: 408 for one that takes longer than the timeout, 413 for one
/// that is too long.
pub fn read_json_bodies(router: Router, timeout: Duration) -> Router {
    router.layer(middleware::from_fn_with_state(timeout, read))
}

async fn read(State(timeout): State<Duration>, request: Request, next: Next) -> Response {
    if request.body().is_end_stream() {
        return next.run(request).await;
    }
    let (parts, body) = request.into_parts();
    match whole(body, timeout).await {
        Ok(body) => next.run(Request::from_parts(parts, body)).await,
        Err(error) => error.into_response(),
    }
}

async fn whole(body: Body, timeout: Duration) -> ApiResult<Body> {
    if body.size_hint().lower() > JSON_BYTES_MAX as u64 {
        return Err(too_long());
    }
    let read = tokio::time::timeout(timeout, collect(body)).await;
    read.map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not end in time"))?
}

/// Copies it: a chunk of a few bytes holds the whole buffer that it was read into.
async fn collect(mut body: Body) -> ApiResult<Body> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| ApiError::bad_request(format!("read the body: {error}")))?;
        let Ok(data) = frame.into_data() else { continue };
        if bytes.len() + data.len() > JSON_BYTES_MAX {
            return Err(too_long());
        }
        bytes.extend_from_slice(&data);
    }
    Ok(Body::from(bytes.freeze()))
}

fn too_long() -> ApiError {
    ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, format!("the body is longer than {JSON_BYTES_MAX} bytes"))
}

#[cfg(test)]
mod tests {
    use axum::routing::post;
    use bytes::Bytes;
    use futures::stream;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn a_body_has_a_length_at_most_however_it_comes() {
        let echo = Router::new().route("/", post(|body: Bytes| async move { body.len().to_string() }));
        let router = read_json_bodies(echo, Duration::from_secs(600));
        for (len, status) in [(0, 200), (JSON_BYTES_MAX, 200), (JSON_BYTES_MAX + 1, 413)] {
            let bytes = Bytes::from(vec![b' '; len]);
            let pieces: Vec<_> =
                bytes.chunks(3).map(|piece| Ok::<_, std::io::Error>(Bytes::copy_from_slice(piece))).collect();
            for body in [Body::from(bytes.clone()), Body::from_stream(stream::iter(pieces))] {
                let answer = router.clone().oneshot(Request::post("/").body(body).unwrap()).await.unwrap();
                assert_eq!(answer.status().as_u16(), status, "{len}");
                let said = answer.into_body().collect().await.unwrap().to_bytes();
                assert!(status != 200 || said == len.to_string().as_bytes(), "{said:?}");
            }
        }
    }
}
