//! What the server keeps for itself, sealed: the file of access keys.
//!
//! ```text
//! 32 bytes salt, random; AES-256-GCM under hkdf(index key, label ‖ salt), nonce 0; 16 bytes tag
//! ```
//!
//! # Invariants
//! 1. Every sealing has a key of its own, so no (key, nonce) pair repeats.
//!
//! HKDF: RFC 5869.

use anyhow::anyhow;
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

const SALT_LEN: usize = 32;
const TAG_LEN: usize = 16;
/// What is sealed is longer by this.
pub(super) const OVERHEAD_LEN: usize = SALT_LEN + TAG_LEN;

/// Seals for one purpose.
pub(crate) struct Sealer {
    outer: hkdf::Prk,
    label: &'static [u8],
}

impl Sealer {
    /// The label keeps purposes apart.
    pub(crate) fn new(index_key: &[u8; 32], label: &'static [u8]) -> Self {
        Self { outer: hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(index_key), label }
    }

    fn key(&self, salt: &[u8]) -> LessSafeKey {
        let info = [self.label, salt];
        LessSafeKey::new(UnboundKey::from(self.outer.expand(&info, &AES_256_GCM).expect("32 bytes")))
    }

    /// `context` has to be the same for opening.
    pub(crate) fn seal(&self, context: &[u8], plain: &[u8]) -> anyhow::Result<Vec<u8>> {
        // Room for all of it: bytes that grew would leave what they were in memory.
        let mut sealed = Vec::with_capacity(OVERHEAD_LEN + plain.len());
        sealed.resize(SALT_LEN, 0);
        let random = ring::rand::SystemRandom::new();
        random.fill(&mut sealed).map_err(|_| anyhow!("the system gives no random bytes"))?;
        let key = self.key(&sealed);
        sealed.extend_from_slice(plain);
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(context), &mut sealed[SALT_LEN..]);
        sealed.extend_from_slice(tag.map_err(|_| anyhow!("too much to seal"))?.as_ref());
        Ok(sealed)
    }

    /// None if it was not sealed here, for this purpose and context.
    pub(crate) fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
        let (salt, body) = sealed.split_at_checked(SALT_LEN)?;
        let mut body = Zeroizing::new(body.to_vec());
        let nonce = Nonce::assume_unique_for_key([0; 12]);
        self.key(salt).open_in_place(nonce, Aad::from(context), &mut body).ok()?;
        let len = body.len() - TAG_LEN;
        body.truncate(len);
        Some(body)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_sealed_opens_as_it_was_and_nothing_else_does() {
        let sealer = Sealer::new(&[7; 32], b"test 1");
        let sealed = sealer.seal(b"context", b"plain").expect("sealed");
        assert_eq!(sealer.open(b"context", &sealed).expect("it opens").as_slice(), b"plain");
        assert_ne!(sealed, sealer.seal(b"context", b"plain").expect("sealed"), "a salt of its own");
        assert!(sealer.open(b"contexT", &sealed).is_none());
        assert!(Sealer::new(&[7; 32], b"test 2").open(b"context", &sealed).is_none());
        assert!(Sealer::new(&[8; 32], b"test 1").open(b"context", &sealed).is_none());
        for index in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[index] ^= 1;
            assert!(sealer.open(b"context", &changed).is_none(), "{index}");
            assert!(sealer.open(b"context", &sealed[..index]).is_none(), "{index}");
        }
    }
}
