//! Temporary credentials. Nothing is kept of them: the token says what they may, under a tag of the key that asked, and
//! the secret follows from the id. They end when they expire, with that key, and with its secret.
//!
//! ```text
//! token  = base64(length of PARENT ‖ PARENT ‖ claims in JSON ‖ tag)
//! key    = HMAC(hkdf(index key, "vidar sessions 1"), secret of PARENT)
//! tag    = HMAC(key, "token" ‖ all before it)
//! secret = HMAC(key, "secret" ‖ id)
//! ```
//!
//! # Invariants
//! 1. Who makes one has both the secret of its key and the index key. The first ends when it is changed; without the second
//!    a token does not tell whether a guess at the first is right.
//! 2. What is not under a good tag is not read.
//! 3. None counts for longer than [`LIFETIME_MAX`], whatever it says.
//!
//! HMAC-SHA256: RFC 2104; HKDF: RFC 5869.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use ring::{hkdf, hmac};
use serde::{Deserialize, Serialize};
use vidar_core::policy::Policy;
use vidar_core::time::UnixMs;
use zeroize::Zeroizing;

use crate::credentials::random_text;

/// A day and a half, as the longest of the reference service's.
pub(super) const LIFETIME_MAX: Duration = Duration::from_secs(129_600);
/// Of the policy of temporary credentials, in JSON: it stands in a header of each request.
pub(super) const POLICY_BYTES_MAX: usize = 8 << 10;
/// Characters of a token at most: one with the longest policy is shorter.
const TOKEN_BYTES_MAX: usize = 16 << 10;
/// What their ids begin with.
const PREFIX: &str = "VIDTMP";
const TAG_LEN: usize = 32;

/// Makes and reads temporary credentials.
pub(super) struct Sessions(hmac::Key);

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
struct Claims {
    access_key_id: String,
    policy: Option<Policy>,
    expires_ms: i64,
}

/// A token, before its tag was looked at.
pub(crate) struct Token {
    bytes: Vec<u8>,
    parent: String,
}

impl Token {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let bytes = (text.len() <= TOKEN_BYTES_MAX).then(|| STANDARD.decode(text).ok())??;
        let (len, rest) = bytes.split_first()?;
        let parent = String::from_utf8(rest.get(..usize::from(*len))?.to_vec()).ok()?;
        Some(Self { bytes, parent })
    }

    /// Id of the key that it says asked for it.
    pub(crate) fn parent(&self) -> &str {
        &self.parent
    }
}

/// Temporary credentials that were made here.
pub(crate) struct KnownSession {
    /// What bounds them beside what their key may.
    pub(crate) policy: Option<Policy>,
    /// When they end.
    pub(crate) expires: UnixMs,
    /// Their secret.
    pub(crate) secret: Zeroizing<String>,
}

impl Sessions {
    pub(super) fn new(index_key: &[u8; 32]) -> Self {
        let outer = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(index_key);
        Self(hmac::Key::from(outer.expand(&[b"vidar sessions 1"], hmac::HMAC_SHA256).expect("32 bytes")))
    }

    fn key(&self, parent_secret: &str) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, hmac::sign(&self.0, parent_secret.as_bytes()).as_ref())
    }

    pub(super) fn make(
        &self,
        parent: &str,
        parent_secret: &str,
        policy: Option<Policy>,
        expires: UnixMs,
    ) -> anyhow::Result<Session> {
        let key = self.key(parent_secret);
        let claims = Claims { access_key_id: format!("{PREFIX}{}", random_text(14)?), policy, expires_ms: expires.0 };
        let mut bytes = vec![u8::try_from(parent.len())?];
        bytes.extend_from_slice(parent.as_bytes());
        serde_json::to_writer(&mut bytes, &claims)?;
        let tag = hmac::sign(&key, &[&b"token"[..], &bytes].concat());
        bytes.extend_from_slice(tag.as_ref());
        let secret = secret(&key, &claims.access_key_id);
        Ok(Session { access_key_id: claims.access_key_id, secret, token: STANDARD.encode(bytes), expires })
    }

    /// What a token says of the credentials of that id, if it is under a tag of this secret.
    pub(super) fn open(&self, token: &Token, access_key_id: &str, parent_secret: &str) -> Option<KnownSession> {
        let key = self.key(parent_secret);
        let (said, tag) = token.bytes.split_at_checked(token.bytes.len().checked_sub(TAG_LEN)?)?;
        let claims = said.get(1 + token.parent.len()..)?;
        hmac::verify(&key, &[&b"token"[..], said].concat(), tag).ok()?;
        let claims: Claims = serde_json::from_slice(claims).ok()?;
        let (policy, expires) = (claims.policy, UnixMs(claims.expires_ms));
        (claims.access_key_id == access_key_id).then(|| KnownSession {
            policy,
            expires,
            secret: secret(&key, access_key_id),
        })
    }
}

/// 43 characters that nobody else can tell.
fn secret(key: &hmac::Key, access_key_id: &str) -> Zeroizing<String> {
    let mut context = hmac::Context::with_key(key);
    context.update(b"secret");
    context.update(access_key_id.as_bytes());
    Zeroizing::new(URL_SAFE_NO_PAD.encode(context.sign()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(sessions: &Sessions, id: &str, token: &str, secret: &str) -> Option<KnownSession> {
        sessions.open(&Token::parse(token)?, id, secret)
    }

    #[test]
    fn a_token_says_what_it_was_made_for_under_the_secret_of_its_key() {
        let sessions = Sessions::new(&[1; 32]);
        let made = sessions.make("PARENT", "secret", Some(Policy::all()), UnixMs(5)).unwrap();
        assert_eq!(Token::parse(&made.token).expect("a token").parent(), "PARENT");
        let known = open(&sessions, &made.access_key_id, &made.token, "secret").expect("known");
        assert_eq!((known.policy, known.expires, &known.secret), (Some(Policy::all()), UnixMs(5), &made.secret));
        assert!(open(&sessions, &made.access_key_id, &made.token, "another").is_none(), "of another secret");
        assert!(open(&Sessions::new(&[2; 32]), &made.access_key_id, &made.token, "secret").is_none());
        let other = sessions.make("PARENT", "secret", None, UnixMs(5)).unwrap();
        assert_ne!(other.secret, made.secret);
        assert!(open(&sessions, &other.access_key_id, &made.token, "secret").is_none(), "of another id");
    }

    #[test]
    fn a_token_that_was_changed_says_nothing() {
        let sessions = Sessions::new(&[1; 32]);
        let made = sessions.make("PARENT", "secret", None, UnixMs(5)).unwrap();
        let bytes = STANDARD.decode(&made.token).unwrap();
        for index in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[index] ^= 1;
            for bad in [&changed, &bytes[..index]] {
                assert!(open(&sessions, &made.access_key_id, &STANDARD.encode(bad), "secret").is_none(), "{index}");
            }
        }
        for bad in ["", "A", "////", &made.token[1..], &"A".repeat(TOKEN_BYTES_MAX + 4)] {
            assert!(open(&sessions, &made.access_key_id, bad, "secret").is_none(), "{bad}");
        }
    }
}
