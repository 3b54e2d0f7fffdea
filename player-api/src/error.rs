//! Errors as the API answers them: RFC 9457 problem details.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::{Map, Value, json};
use vidar_core::error::ErrorKind;
use vidar_core::query::QueryError;
use vidar_core::registry::RegistryError;
use vidar_core::source::ReadError;

/// Seconds after which what is not possible now may be (RFC 9110 section 10.2.3).
const RETRY_AFTER_S: &str = "5";

const NO_METHOD: &str = "this resource does not have that method";
/// Text of an error of axum's that is kept.
const PLAIN_BYTES_MAX: usize = 4096;

/// An error with the status and the words it is answered with.
#[derive(Debug, Clone)]
pub struct ApiError {
    status: StatusCode,
    detail: String,
    members: Map<String, Value>,
}

/// What handlers return.
pub type ApiResult<T> = Result<T, ApiError>;

impl ApiError {
    /// An error of this status.
    #[must_use]
    pub fn new(status: StatusCode, detail: impl Into<String>) -> Self {
        Self { status, detail: detail.into(), members: Map::new() }
    }

    /// An error of this kind.
    #[must_use]
    pub fn of(kind: ErrorKind, detail: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(kind.http_status()).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self::new(status, detail)
    }

    /// 400: broken syntax.
    #[must_use]
    pub fn bad_request(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, detail)
    }

    /// 404: nothing there.
    #[must_use]
    pub fn not_found(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, detail)
    }

    /// 422: understood, but not possible.
    #[must_use]
    pub fn unusable(detail: impl Into<String>) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, detail)
    }

    /// With a member of its own (RFC 9457 section 3.2), such as `position`.
    #[must_use]
    pub fn with(mut self, name: &str, value: impl Into<Value>) -> Self {
        self.members.insert(name.to_owned(), value.into());
        self
    }

    /// Its status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// What went wrong, in words.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        if self.status.is_server_error() {
            tracing::warn!(status = self.status.as_u16(), detail = %self.detail, "request failed");
        }
        let mut body = json!({
            "type": "about:blank",
            "title": self.status.canonical_reason().unwrap_or("Error"),
            "status": self.status.as_u16(),
            "detail": self.detail,
        });
        if let Value::Object(object) = &mut body {
            object.extend(self.members);
        }
        let mut response = (self.status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            headers.insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

impl From<QueryError> for ApiError {
    fn from(error: QueryError) -> Self {
        let answer = Self::bad_request(error.detail);
        match error.parameter {
            Some(parameter) => answer.with("parameter", parameter),
            None => answer,
        }
    }
}

impl From<ReadError> for ApiError {
    fn from(error: ReadError) -> Self {
        Self::of(error.kind(), error.to_string())
    }
}

impl From<RegistryError> for ApiError {
    fn from(error: RegistryError) -> Self {
        let answer = Self::of(error.kind(), error.to_string());
        match error {
            RegistryError::Invalid { field, .. } => answer.with("field", field),
            _ => answer,
        }
    }
}

/// Errors that no handler made (a path that is not UTF-8, a body over its limit, a method that a route does not have) as
/// problem details, too. To be laid over the whole server.
pub async fn as_problem(response: Response) -> Response {
    let (status, headers) = (response.status(), response.headers());
    let kind = headers.get(header::CONTENT_TYPE).map(|kind| kind.as_bytes());
    let is_plain = kind.is_none_or(|kind| kind.starts_with(b"text/plain"));
    if !(status.is_client_error() || status.is_server_error()) || !is_plain {
        return response;
    }
    let (mut parts, body) = response.into_parts();
    let text = axum::body::to_bytes(body, PLAIN_BYTES_MAX).await.unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let detail = match (text.trim(), status) {
        ("", StatusCode::METHOD_NOT_ALLOWED) => NO_METHOD,
        ("", _) => status.canonical_reason().unwrap_or("Error"),
        (text, _) => text,
    };
    let mut answer = ApiError::new(status, detail).into_response();
    parts.headers.remove(header::CONTENT_TYPE);
    parts.headers.remove(header::CONTENT_LENGTH);
    // All values of a field that came with several.
    answer.headers_mut().extend(parts.headers);
    answer
}

/// Answers what no route knows.
pub async fn not_found() -> ApiError {
    ApiError::not_found("no such resource")
}

/// Answers a method that a route does not have.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, NO_METHOD)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_fields_of_an_error_are_kept_when_it_becomes_a_problem() {
        let fields = [
            (header::VARY, "Origin"),
            (header::VARY, "Accept"),
            (header::CACHE_CONTROL, "private"),
            (header::CONTENT_TYPE, "text/plain; charset=utf-8"),
            (header::CONTENT_LENGTH, "4"),
        ];
        let plain = (StatusCode::BAD_REQUEST, axum::response::AppendHeaders(fields), "what").into_response();
        let answer = as_problem(plain).await;
        let all = |name| answer.headers().get_all(name).iter().map(|v| v.to_str().unwrap()).collect::<Vec<_>>();
        assert_eq!(all(header::VARY), ["Origin", "Accept"]);
        assert_eq!(all(header::CACHE_CONTROL), ["private"]);
        assert_eq!(all(header::CONTENT_TYPE), ["application/problem+json"]);
        assert!(all(header::CONTENT_LENGTH).is_empty());
    }
}
