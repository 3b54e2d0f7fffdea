//! Errors in the shape that clients of the service read: the type in a header and in the body, the words in `Message`.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, StatusCode, header};
use serde_json::json;
use vidar_aws_wire::sigv4::AuthError;
use vidar_core::error::ErrorKind;
use vidar_core::registry::RegistryError;

const TYPE_HEADER: &str = "x-amzn-errortype";

/// An error of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServiceError {
    error_type: &'static str,
    status: u16,
    message: String,
}

/// What operations return.
pub(crate) type ServiceResult<T> = Result<T, ServiceError>;

impl ServiceError {
    pub(crate) fn new(error_type: &'static str, status: u16, message: impl Into<String>) -> Self {
        Self { error_type, status, message: message.into() }
    }

    /// The request is not one.
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self::new("InvalidArgumentException", 400, message)
    }

    /// The body is no JSON.
    pub(crate) fn serialization(message: impl Into<String>) -> Self {
        Self::new("SerializationException", 400, message)
    }

    /// No such stream. The words are those of the service.
    pub(crate) fn not_found() -> Self {
        Self::new("ResourceNotFoundException", 404, "The requested stream is not found or not active.")
    }

    /// The name is taken.
    pub(crate) fn in_use(message: impl Into<String>) -> Self {
        Self::new("ResourceInUseException", 400, message)
    }

    /// Changed since it was looked at.
    pub(crate) fn version_mismatch() -> Self {
        let message = "The stream version that you specified is not the latest version.";
        Self::new("VersionMismatchException", 400, message)
    }

    /// Over 50 tags.
    pub(crate) fn too_many_tags() -> Self {
        let message = "You have exceeded the limit of 50 tags for a resource.";
        Self::new("TagsPerResourceExceededLimitException", 400, message)
    }

    /// No edge agent was told of the stream.
    pub(crate) fn no_edge_configuration() -> Self {
        let message = "The stream has no edge configuration.";
        Self::new("StreamEdgeConfigurationNotFoundException", 404, message)
    }

    /// There are no signalling channels.
    pub(crate) fn no_channel() -> Self {
        Self::new("ResourceNotFoundException", 404, "The requested channel is not found or not active.")
    }

    /// None can be made.
    pub(crate) fn too_many_channels() -> Self {
        let message = "This server has no signalling channels: the limit is 0.";
        Self::new("AccountChannelLimitExceededException", 400, message)
    }

    /// Our own mistake.
    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::new("InternalFailure", 500, message)
    }

    /// The key's policy does not allow it.
    pub(crate) fn denied(user: &str, operation: &str, resource: &str) -> Self {
        let message =
            format!("User: {user} is not authorized to perform: kinesisvideo:{operation} on resource: {resource}");
        Self::new("AccessDeniedException", 403, message)
    }

    /// Over a rate.
    pub(crate) fn client_limit(message: impl Into<String>) -> Self {
        Self::new("ClientLimitExceededException", 400, message)
    }

    /// Over a number of connections.
    pub(crate) fn connection_limit(message: impl Into<String>) -> Self {
        Self::new("ConnectionLimitExceededException", 400, message)
    }

    /// Not now.
    pub(crate) fn unavailable(message: impl Into<String>) -> Self {
        Self::new("ServiceUnavailable", 503, message)
    }

    /// The body does not end in time, or is too long.
    pub(crate) fn timeout() -> Self {
        Self::new("RequestTimeoutException", 408, "The body did not arrive in time.")
    }

    /// Too many bodies are read at the same time.
    pub(crate) fn throttled() -> Self {
        Self::new("ThrottlingException", 400, "Rate exceeded")
    }

    /// See [`ServiceError::timeout`].
    pub(crate) fn too_large() -> Self {
        Self::new("RequestEntityTooLargeException", 413, "The body is too long.")
    }
}

impl From<AuthError> for ServiceError {
    fn from(error: AuthError) -> Self {
        Self::new(error.error_type(), error.status(), error.to_string())
    }
}

impl From<RegistryError> for ServiceError {
    fn from(error: RegistryError) -> Self {
        match (&error, error.kind()) {
            (RegistryError::NotFound { .. }, _) => Self::not_found(),
            (RegistryError::Exists { name }, _) => Self::in_use(format!("The stream {name} already exists.")),
            (RegistryError::Invalid { .. }, _) => Self::invalid(error.to_string()),
            (_, ErrorKind::Corrupt | ErrorKind::Internal) => Self::new("InternalFailure", 500, error.to_string()),
            _ => Self::new("ServiceUnavailable", 503, error.to_string()),
        }
    }
}

impl IntoResponse for ServiceError {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        if status.is_server_error() {
            tracing::warn!(status = self.status, detail = %self.message, "request failed");
        }
        let body = json!({ "__type": self.error_type, "Message": self.message });
        let mut response = (status, body.to_string()).into_response();
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(TYPE_HEADER, HeaderValue::from_static(self.error_type));
        response
    }
}

/// What the service says to a path in a wrong case, word for word.
pub(crate) async fn unknown_operation() -> Response {
    let body = r#"{"Output":{"__type":"com.amazon.coral.service#UnknownOperationException"},"Version":"1.0"}"#;
    (StatusCode::NOT_FOUND, [(header::CONTENT_TYPE, "application/json")], body).into_response()
}
