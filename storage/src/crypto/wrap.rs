//! A secret sealed under another, as it stands in the keyring. Layout: `docs/formats/keyring.md`.

use vidar_core::wire::{Reader, WireError};
use zeroize::Zeroizing;

use crate::crypto::aead::{Aead, Nonce, ReferenceAead, TAG_LEN, TagMismatch};
use crate::crypto::keys::{Secret, random, wrap_key};

const SEALED_LEN: usize = 32 + TAG_LEN;
/// Bytes of a wrap: salt and sealed secret.
pub(crate) const WRAP_LEN: usize = 32 + SEALED_LEN;
/// Each wrap has a key of its own.
const NONCE: Nonce = [0; 12];

/// A secret as it stands on disk.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Wrapped(pub(crate) [u8; WRAP_LEN]);

impl Wrapped {
    /// Seals `secret` under `outer`; `context` says what it is.
    pub(crate) fn seal(outer: &Secret, context: &[u8], secret: &Secret) -> Self {
        let salt = random();
        let mut bytes = [0; WRAP_LEN];
        bytes[..32].copy_from_slice(&salt);
        bytes[32..64].copy_from_slice(secret.bytes());
        let aead = ReferenceAead::new(&wrap_key(outer, &salt, context));
        let tag = aead.seal_in_place(&NONCE, context, &mut bytes[32..64]);
        bytes[64..].copy_from_slice(&tag);
        Self(bytes)
    }

    /// What `seal` sealed.
    pub(crate) fn open(&self, outer: &Secret, context: &[u8]) -> Result<Secret, TagMismatch> {
        let salt = self.0[..32].try_into().expect("32 bytes");
        let aead = ReferenceAead::new(&wrap_key(outer, &salt, context));
        let mut sealed = Zeroizing::new(<[u8; SEALED_LEN]>::try_from(&self.0[32..]).expect("the rest"));
        let plain = aead.open_in_place(&NONCE, context, &mut sealed[..])?;
        Ok(Secret::new((&*plain).try_into().expect("32 bytes")))
    }

    pub(crate) fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self(r.array()?))
    }
}
