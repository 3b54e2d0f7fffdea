//! Refusals, as RFC 9457 problem details.

use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde_json::Value;
use vidar_core::error::ErrorKind;
use vidar_core::query::QueryError;

/// A refusal.
#[derive(Debug)]
pub(super) struct Problem {
    kind: ErrorKind,
    detail: String,
    /// Of the query or the path, at fault.
    parameter: Option<String>,
}

impl Problem {
    pub(super) fn new(kind: ErrorKind, detail: impl Into<String>) -> Self {
        Self { kind, detail: detail.into(), parameter: None }
    }

    /// A parameter that does not read.
    pub(super) fn of_parameter(parameter: &str, detail: impl Into<String>) -> Self {
        Self { kind: ErrorKind::Malformed, detail: detail.into(), parameter: Some(parameter.to_owned()) }
    }

    /// Of a status that a push noted.
    pub(super) fn of_status(status: u16, detail: String, offset: Option<u64>) -> Response {
        Self::answer(status, &detail, offset.map(|offset| ("offset", offset.into())))
    }

    fn answer(status: u16, detail: &str, more: Option<(&str, Value)>) -> Response {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut body = serde_json::json!({
            "type": "about:blank",
            "title": status.canonical_reason().unwrap_or("Error"),
            "status": status.as_u16(),
            "detail": detail,
        });
        if let Some((name, value)) = more {
            body[name] = value;
        }
        (status, [(header::CONTENT_TYPE, "application/problem+json")], body.to_string()).into_response()
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let parameter = self.parameter.map(|parameter| ("parameter", parameter.into()));
        Self::answer(self.kind.http_status(), &self.detail, parameter)
    }
}

impl From<QueryError> for Problem {
    fn from(error: QueryError) -> Self {
        Self { kind: ErrorKind::Malformed, detail: error.detail, parameter: error.parameter }
    }
}
