//! Who someone is, and what they may do.

use std::sync::Arc;

use crate::policy::{Action, Policy, Target};
use crate::time::UnixMs;

/// Somebody known.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Principal {
    /// Public half of the credentials.
    pub access_key_id: String,
    /// All of these have to allow what is done. None: everything is.
    bounds: Vec<Arc<Policy>>,
    /// The key that made the temporary credentials.
    parent: Option<String>,
    /// When temporary credentials end.
    ends: Option<UnixMs>,
    /// Which secret of the key that counts was proven.
    generation: u64,
}

impl Principal {
    /// Somebody who may do everything.
    #[must_use]
    pub fn root(access_key_id: impl Into<String>) -> Self {
        Self { access_key_id: access_key_id.into(), bounds: Vec::new(), parent: None, ends: None, generation: 0 }
    }

    /// Somebody who may do what a policy allows.
    #[must_use]
    pub fn limited(access_key_id: impl Into<String>, policy: Arc<Policy>) -> Self {
        Self { access_key_id: access_key_id.into(), bounds: vec![policy], parent: None, ends: None, generation: 0 }
    }

    /// The same, who may do nothing that this policy does not allow.
    #[must_use]
    pub fn bound(mut self, policy: Arc<Policy>) -> Self {
        self.bounds.push(policy);
        self
    }

    /// The same, who came with temporary credentials of that id.
    #[must_use]
    pub fn temporary(mut self, access_key_id: impl Into<String>, ends: UnixMs) -> Self {
        self.ends = Some(ends);
        self.parent = Some(std::mem::replace(&mut self.access_key_id, access_key_id.into()));
        self
    }

    /// The same, who proved to have the secret of that generation: another number for each secret of a key.
    #[must_use]
    pub fn with_generation(mut self, generation: u64) -> Self {
        self.generation = generation;
        self
    }

    /// Which secret of the key that counts was proven.
    #[must_use]
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// Id of the key that counts: that of who made temporary credentials.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.parent.as_ref().unwrap_or(&self.access_key_id)
    }

    /// Whether the credentials end by themselves: they make no others.
    #[must_use]
    pub fn is_temporary(&self) -> bool {
        self.parent.is_some()
    }

    /// Whether temporary credentials have ended.
    #[must_use]
    pub fn has_ended(&self, now: UnixMs) -> bool {
        self.ends.is_some_and(|ends| ends <= now)
    }

    /// Whether that may be done.
    #[must_use]
    pub fn may(&self, action: Action, target: Target<'_>) -> bool {
        self.bounds.iter().all(|policy| policy.allows(action, target))
    }
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

    /// HTTP Bearer (RFC 6750): `ACCESS_KEY_ID:SECRET` as one token, behind it `:SESSION_TOKEN` of temporary credentials.
    fn bearer(&self, token: &str) -> Option<Principal>;

    /// Whose key that is, with its secret, for Digest (RFC 7616), which hashes it with other things. None: no such key.
    fn digest_secret(&self, access_key_id: &str) -> Option<(Principal, String)>;

    /// Who signed in by a browser that sends this session cookie. None: nobody, or not any more.
    fn session(&self, _cookie: &str) -> Option<Principal> {
        None
    }

    /// Whether somebody who was let in earlier may do that now: their key may have ended, or allow less.
    fn may_still(&self, principal: &Principal, action: Action, target: Target<'_>) -> bool {
        principal.may(action, target)
    }

    /// Notes that somebody proved to have the secret that `digest_secret` gave.
    fn note_use(&self, _principal: &Principal) {}

    /// Makes a token that opens every path below `path_prefix` for reading until `expires`, or until its maker may not
    /// read there any more.
    fn sign(&self, maker: &Principal, path_prefix: &str, expires: UnixMs) -> String;

    /// Checks a token of `sign` for a path. Its maker is who asks.
    fn signed(&self, token: &str, path: &str, now: UnixMs) -> Option<Principal>;
}
