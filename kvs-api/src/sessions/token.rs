//! Tokens: a session, tagged with the secret of who opened it, sealed by the server.
//!
//! ```text
//! base64url( seal( API, session ‖ HMAC-SHA256(secret of the maker, API ‖ session) ) ), `~` for `=`
//! ```
//!
//! Both are checked on each request. So a session ends with the key that opened it, and the server's key alone makes none.

use base64::Engine as _;
use base64::engine::general_purpose::{URL_SAFE, URL_SAFE_NO_PAD};
use ring::hmac;

use super::session::Session;
use super::{Kind, Seal};

const TAG_LEN: usize = 32;
/// Characters of a token at most: URLs of 4 KiB pass every player and proxy that we know.
pub(super) const TOKEN_LEN_MAX: usize = 3500;

impl Kind {
    fn context(self) -> &'static [u8] {
        match self {
            Self::Hls => b"hls session 1",
            Self::Dash => b"dash session 1",
        }
    }
}

fn tag(kind: Kind, secret: &str, session: &[u8]) -> hmac::Tag {
    let mut hmac = hmac::Context::with_key(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()));
    hmac.update(kind.context());
    hmac.update(session);
    hmac.sign()
}

/// The token of a session. None: it would be too long, or nothing can be sealed now.
pub(super) fn make(seal: &dyn Seal, kind: Kind, session: &Session, secret: &str) -> Option<String> {
    let mut plain = session.encode();
    let tag = tag(kind, secret, &plain);
    plain.extend_from_slice(tag.as_ref());
    let token = URL_SAFE.encode(seal.seal(kind.context(), &plain)?).replace('=', "~");
    (token.len() <= TOKEN_LEN_MAX).then_some(token)
}

/// A session whose maker is still to be asked.
pub(super) struct Claimed {
    pub(super) session: Session,
    kind: Kind,
    plain: Vec<u8>,
}

/// What a token says that was made here.
pub(super) fn read(seal: &dyn Seal, kind: Kind, token: &str) -> Option<Claimed> {
    let sealed = (token.len() <= TOKEN_LEN_MAX).then(|| URL_SAFE_NO_PAD.decode(token.trim_end_matches('~')).ok())??;
    let plain = seal.open(kind.context(), &sealed)?;
    let session = Session::decode(plain.get(..plain.len().checked_sub(TAG_LEN)?)?).ok()?;
    Some(Claimed { session, kind, plain })
}

impl Claimed {
    /// The session, if who has this secret opened it.
    pub(super) fn of(self, secret: &str) -> Option<Session> {
        let (session, found) = self.plain.split_at_checked(self.plain.len().checked_sub(TAG_LEN)?)?;
        let mut signed = self.kind.context().to_vec();
        signed.extend_from_slice(session);
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes()), &signed, found).ok()?;
        Some(self.session)
    }
}
