//! Temporary credentials. Nothing is kept of them: the session token is all there is to know, sealed, and the secret
//! follows from the id. They end when they expire, or with the key that asked for them.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use vidar_core::policy::Policy;
use vidar_core::time::UnixMs;
use zeroize::Zeroizing;

use super::sealed::Sealer;
use crate::credentials::random_text;

/// Characters of a token at most: one with the longest policy is shorter.
const TOKEN_BYTES_MAX: usize = 64 << 10;
const CONTEXT: &[u8] = b"session";
/// What their ids begin with.
const PREFIX: &str = "VIDTMP";

/// Makes and reads temporary credentials.
pub(super) struct Sessions(Sealer);

/// Temporary credentials.
pub struct Session {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret: Zeroizing<String>,
    /// Has to come with both.
    pub token: String,
    /// When they end.
    pub expires: UnixMs,
}

/// What a token says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Claims {
    pub(super) access_key_id: String,
    /// The key that asked for it; may not do more than that one.
    pub(super) parent: String,
    pub(super) policy: Option<Policy>,
    pub(super) expires_ms: i64,
}

impl Sessions {
    pub(super) fn new(index_key: &[u8; 32]) -> Self {
        Self(Sealer::new(index_key, b"vidar session tokens 1"))
    }

    pub(super) fn make(&self, parent: &str, policy: Option<Policy>, expires: UnixMs) -> anyhow::Result<Session> {
        let access_key_id = format!("{PREFIX}{}", random_text(14)?);
        let secret = self.secret(&access_key_id);
        let claims = Claims { access_key_id, parent: parent.to_owned(), policy, expires_ms: expires.0 };
        let token = STANDARD.encode(self.0.seal(CONTEXT, &serde_json::to_vec(&claims)?)?);
        Ok(Session { access_key_id: claims.access_key_id, secret, token, expires })
    }

    /// What a token says that was made here.
    pub(super) fn read(&self, token: &str) -> Option<Claims> {
        let sealed = (token.len() <= TOKEN_BYTES_MAX).then(|| STANDARD.decode(token).ok())??;
        serde_json::from_slice(&self.0.open(CONTEXT, &sealed)?).ok()
    }

    /// The secret of an id: 43 characters that only this server can tell.
    pub(super) fn secret(&self, access_key_id: &str) -> Zeroizing<String> {
        let bytes = self.0.derive(access_key_id.as_bytes());
        Zeroizing::new(base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(*bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_says_what_it_was_made_for() {
        let sessions = Sessions::new(&[1; 32]);
        let session = sessions.make("PARENT", Some(Policy::all()), UnixMs(5)).unwrap();
        let claims = sessions.read(&session.token).expect("a token");
        assert_eq!((claims.access_key_id.as_str(), claims.parent.as_str()), (session.access_key_id.as_str(), "PARENT"));
        assert_eq!((claims.policy, claims.expires_ms), (Some(Policy::all()), 5));
        assert_eq!(sessions.secret(&session.access_key_id), session.secret);
        assert!(Sessions::new(&[2; 32]).read(&session.token).is_none());
        assert!(sessions.read(&session.token[1..]).is_none() && sessions.read("").is_none());
        let other = sessions.make("PARENT", None, UnixMs(5)).unwrap();
        assert_ne!(other.secret, session.secret);
    }
}
