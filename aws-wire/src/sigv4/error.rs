//! Why a signature is refused, in the words of the service.

use vidar_core::time::UnixMs;

use super::claim::basic;

/// Why nobody is let in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum AuthError {
    /// The request carries no signature.
    #[error("Missing Authentication Token")]
    Missing,
    /// It carries one that does not read.
    #[error("Request is missing or has a malformed {what}.")]
    Incomplete {
        /// The part at fault.
        what: &'static str,
    },
    /// No such key, or one that does not count any more.
    #[error("The security token included in the request is invalid.")]
    UnknownKey,
    /// Temporary credentials that have ended.
    #[error("The security token included in the request is expired")]
    TokenExpired,
    /// Made for another service, region or day.
    #[error("Credential should be scoped to a valid {part}.")]
    Scope {
        /// What of the scope.
        part: &'static str,
    },
    /// The clocks differ by more than is let through.
    #[error("{}", skewed(*signed, *now, *tolerance_ms))]
    Skewed {
        /// When it says it was signed.
        signed: UnixMs,
        /// The server's clock.
        now: UnixMs,
        /// What is let through.
        tolerance_ms: i64,
    },
    /// A presigned URL that has ended.
    #[error("The request has expired.")]
    Expired,
    /// Not signed by this secret, or changed since.
    #[error(
        "The request signature we calculated does not match the signature you provided. Check your AWS Secret Access \
         Key and signing method. Consult the service documentation for details."
    )]
    Mismatch,
    /// The body is not the one that a header speaks of.
    #[error("The provided 'x-amz-content-sha256' header does not match what was computed.")]
    BodyMismatch,
}

impl AuthError {
    pub(super) const fn incomplete(what: &'static str) -> Self {
        Self::Incomplete { what }
    }

    /// The type that clients look at.
    #[must_use]
    pub const fn error_type(&self) -> &'static str {
        match self {
            Self::Missing => "MissingAuthenticationToken",
            Self::Incomplete { .. } => "IncompleteSignature",
            Self::UnknownKey => "InvalidClientTokenId",
            Self::TokenExpired => "ExpiredTokenException",
            Self::Expired => "RequestExpired",
            Self::Scope { .. } | Self::Skewed { .. } | Self::Mismatch | Self::BodyMismatch => {
                "InvalidSignatureException"
            }
        }
    }

    /// The HTTP status.
    #[must_use]
    pub const fn status(&self) -> u16 {
        match self {
            Self::Incomplete { .. } | Self::Expired => 400,
            _ => 403,
        }
    }
}

/// As the reference service says it: some clients read their clock's error from it.
fn skewed(signed: UnixMs, now: UnixMs, tolerance_ms: i64) -> String {
    let text = |at| basic(at).unwrap_or_default();
    let minutes = tolerance_ms / 60_000;
    if signed < now {
        let (signed, bound, now) = (text(signed), text(now.plus_ms(-tolerance_ms)), text(now));
        return format!("Signature expired: {signed} is now earlier than {bound} ({now} - {minutes} min.)");
    }
    let (signed, bound, now) = (text(signed), text(now.plus_ms(tolerance_ms)), text(now));
    format!("Signature not yet current: {signed} is still later than {bound} ({now} + {minutes} min.)")
}
