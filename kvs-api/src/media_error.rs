//! Errors of operations that read media.

use vidar_core::source::ReadError;
use vidar_player_api::ApiError;

use crate::error::ServiceError;

impl ServiceError {
    /// Nothing is stored of what was asked for.
    pub(crate) fn no_fragments() -> Self {
        let message = "The requested fragments could not be found: there are none in the range.";
        Self::new("ResourceNotFoundException", 404, message)
    }

    /// No fragment came lately.
    pub(crate) fn not_live() -> Self {
        let message = "No fragments were found in the stream for the last 30 seconds.";
        Self::new("ResourceNotFoundException", 404, message)
    }

    /// It is not a file of the session, or not any more.
    pub(crate) fn not_of_session() -> Self {
        Self::new("ResourceNotFoundException", 404, "The session has no such track or fragment.")
    }

    /// The token of a session does not open anything, or not any more.
    pub(crate) fn session_over() -> Self {
        Self::new("AccessDeniedException", 403, "The session token is not valid, or has expired.")
    }

    /// Nothing is stored at all.
    pub(crate) fn no_retention() -> Self {
        let message = "The stream does not retain data: its DataRetentionInHours is 0.";
        Self::new("NoDataRetentionException", 400, message)
    }

    /// The container has no place for the tracks.
    pub(crate) fn unsupported_media(message: impl Into<String>) -> Self {
        Self::new("UnsupportedStreamMediaTypeException", 400, message)
    }

    /// What decodes a track was not sent.
    pub(crate) fn no_codec_private(codec: &str) -> Self {
        let message = format!("No codec private data was found in the fragments of a {codec} track.");
        Self::new("MissingCodecPrivateDataException", 400, message)
    }
}

impl From<ApiError> for ServiceError {
    fn from(error: ApiError) -> Self {
        match error.status().as_u16() {
            400 | 422 => Self::invalid(error.detail()),
            404 => Self::no_fragments(),
            501 => Self::unsupported_media(error.detail()),
            503 => Self::new("ServiceUnavailable", 503, error.detail()),
            _ => Self::internal(error.detail()),
        }
    }
}

impl From<ReadError> for ServiceError {
    fn from(error: ReadError) -> Self {
        ApiError::from(error).into()
    }
}
