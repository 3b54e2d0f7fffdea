//! Bodies of requests: JSON, short, and soon here.

use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::{Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};

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
    let read = tokio::time::timeout(timeout, Limited::new(body, JSON_BYTES_MAX).collect()).await;
    let read = read.map_err(|_| ApiError::new(StatusCode::REQUEST_TIMEOUT, "the body did not end in time"))?;
    read.map(|read| Body::from(read.to_bytes())).map_err(|error| {
        if error.is::<LengthLimitError>() {
            let detail = format!("the body is longer than {JSON_BYTES_MAX} bytes");
            return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail);
        }
        ApiError::bad_request(format!("read the body: {error}"))
    })
}
