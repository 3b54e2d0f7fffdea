//! Refusals, as RFC 9457 problem details.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use vidar_core::error::ErrorKind;

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ErrorKind,
    detail: String,
    offset: Option<u64>,
}

impl Problem {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), offset: None }
    }

    /// Of a status that a push noted.
    pub(super) fn of_status(status: u16, detail: String, offset: Option<u64>) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
        });
        if let Some(offset) = offset {
            body["offset"] = offset.into();
        }
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        Self::of_status(self.kind.http_status(), self.detail, self.offset)
    }
}
