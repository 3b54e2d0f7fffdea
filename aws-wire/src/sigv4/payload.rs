//! What stands for the body in the string that is signed.

use super::{AuthError, Request, hex, unhex};

/// SHA-256 of nothing.
const EMPTY: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
const UNSIGNED: &str = "UNSIGNED-PAYLOAD";
const HEADER: &str = "x-amz-content-sha256";

/// What is known of a body when its signature is checked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Body {
    /// All of it: its SHA-256.
    Whole([u8; 32]),
    /// Nothing yet: it is media without an end. No signature covers it.
    Stream,
}

/// What the signer may have put there.
///
/// Of a body that is here, its hash and nothing else. For one that streams a header is taken by its word: the Java client
/// of PutMedia writes `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` and sends media as it is. Without the header, C clients put the
/// hash of nothing there, and others `UNSIGNED-PAYLOAD`.
pub(super) fn hashes(request: &Request<'_>, body: &Body) -> Result<Vec<String>, AuthError> {
    Ok(match (request.only(HEADER)?, body) {
        (Some(claimed), Body::Whole(sha256)) if read(claimed)? == *sha256 => vec![claimed.to_owned()],
        (Some(_), Body::Whole(_)) => return Err(AuthError::BodyMismatch),
        (Some(claimed), Body::Stream) => vec![claimed.to_owned()],
        (None, Body::Whole(sha256)) => vec![hex(sha256)],
        (None, Body::Stream) => vec![EMPTY.to_owned(), UNSIGNED.to_owned()],
    })
}

/// The hash that a header promises for a body that is still to come.
pub(super) fn promised(request: &Request<'_>) -> Result<Option<[u8; 32]>, AuthError> {
    request.only(HEADER)?.map(read).transpose()
}

fn read(claimed: &str) -> Result<[u8; 32], AuthError> {
    unhex(&claimed.to_ascii_lowercase()).ok_or(AuthError::BodyMismatch)
}
