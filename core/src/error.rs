//! What a caller can do about an error. The HTTP edge looks at nothing else.

/// The kind of a failure: few, and prescriptive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ErrorKind {
    /// Broken syntax: fix the request. HTTP 400.
    Malformed,
    /// No or wrong credentials. HTTP 401.
    Unauthenticated,
    /// Known, but not allowed. HTTP 403.
    Forbidden,
    /// What was named does not exist. HTTP 404.
    NotFound,
    /// It conflicts with what is there, such as a second publisher. HTTP 409.
    Conflict,
    /// Over a limit. HTTP 413.
    TooLarge,
    /// A type nobody here reads. HTTP 415.
    UnsupportedType,
    /// Well-formed, but not usable. HTTP 422.
    Unusable,
    /// No room on the disk. HTTP 507.
    Full,
    /// Passing: try again. HTTP 503.
    Unavailable,
    /// Stored bytes are damaged: call a person. HTTP 500.
    Corrupt,
    /// Our own mistake. HTTP 500.
    Internal,
}

impl ErrorKind {
    /// The HTTP status that says it (RFC 9110; 507: RFC 4918 section 11.5).
    #[must_use]
    pub const fn http_status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::Unauthenticated => 401,
            Self::Forbidden => 403,
            Self::NotFound => 404,
            Self::Conflict => 409,
            Self::TooLarge => 413,
            Self::UnsupportedType => 415,
            Self::Unusable => 422,
            Self::Corrupt | Self::Internal => 500,
            Self::Unavailable => 503,
            Self::Full => 507,
        }
    }
}
