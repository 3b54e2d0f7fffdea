//! What stands for the body in the string that is signed.

use super::{AuthError, Request, hex};

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
/// A header says it, and is taken by its word: the Java client of PutMedia writes
/// `STREAMING-AWS4-HMAC-SHA256-PAYLOAD` and sends media as it is. Without the header, C clients put the hash of nothing
/// for a body that streams, and others `UNSIGNED-PAYLOAD`.
pub(super) fn hashes(request: &Request<'_>, body: &Body) -> Result<Vec<String>, AuthError> {
    Ok(match (request.only(HEADER)?, body) {
        (Some(claimed), Body::Whole(sha256)) if is_sha256(claimed) => {
            let actual = hex(sha256);
            if !claimed.eq_ignore_ascii_case(&actual) {
                return Err(AuthError::BodyMismatch);
            }
            vec![claimed.to_owned()]
        }
        (Some(claimed), _) => vec![claimed.to_owned()],
        (None, Body::Whole(sha256)) => vec![hex(sha256)],
        (None, Body::Stream) => vec![EMPTY.to_owned(), UNSIGNED.to_owned()],
    })
}

fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}
