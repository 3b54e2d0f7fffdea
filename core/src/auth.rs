//! Who someone is. What they may do follows from that (today one root pair may do everything).

use crate::time::UnixMs;

/// Somebody known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Public half of the credentials, or `signed-url`.
    pub access_key_id: String,
}

/// Hash of a Digest challenge (RFC 7616).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestAlgorithm {
    /// `MD5`: what every RTSP client speaks.
    Md5,
    /// `SHA-256`.
    Sha256,
}

/// Checks credentials. All comparisons take the same time whatever differs.
pub trait Authenticator: Send + Sync + 'static {
    /// HTTP Basic (RFC 7617): access key id and secret.
    fn basic(&self, access_key_id: &str, secret: &str) -> Option<Principal>;

    /// HTTP Bearer (RFC 6750): `ACCESS_KEY_ID:SECRET` as one token.
    fn bearer(&self, token: &str) -> Option<Principal>;

    /// The secret for Digest (RFC 7616), which hashes it with other things. None: no such access key.
    fn digest_secret(&self, access_key_id: &str) -> Option<String>;

    /// Makes a token that opens every path below `path_prefix` for reading until `expires`.
    fn sign(&self, path_prefix: &str, expires: UnixMs) -> String;

    /// Checks a token of `sign` for a path.
    fn signed(&self, token: &str, path: &str, now: UnixMs) -> Option<Principal>;
}
