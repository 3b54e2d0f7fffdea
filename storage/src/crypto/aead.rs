//! AES-256-GCM (NIST SP 800-38D) behind two methods: the fastest implementation for bulk, a second one for wraps and as
//! the reference of the tests. Both give the same bytes.

use aes_gcm::aead::{AeadInOut, KeyInit};
use ring::aead::{AES_256_GCM, Aad, LessSafeKey, UnboundKey};

use crate::crypto::keys::Secret;

/// Bytes of a tag.
pub(crate) const TAG_LEN: usize = 16;

/// 96 bits, used once with a key.
pub(crate) type Nonce = [u8; 12];

/// The tag does not match: wrong key, wrong place, or other bytes than were sealed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the tag does not match")]
pub(crate) struct TagMismatch;

/// Authenticated encryption in place.
pub(crate) trait Aead: Send + Sync {
    /// Encrypts `data`; the tag belongs behind it.
    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> [u8; TAG_LEN];

    /// Checks the tag at the end of `sealed` and decrypts what stands before it. On failure `sealed` holds no plaintext
    /// that anybody may look at.
    fn open_in_place<'a>(&self, nonce: &Nonce, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], TagMismatch>;
}

/// `ring`: for bulk.
pub(crate) struct RingAead(LessSafeKey);

impl RingAead {
    pub(crate) fn new(key: &Secret) -> Self {
        Self(LessSafeKey::new(UnboundKey::new(&AES_256_GCM, key.bytes()).expect("a key of 32 bytes")))
    }
}

impl Aead for RingAead {
    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> [u8; TAG_LEN] {
        let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
        let tag = self.0.seal_in_place_separate_tag(nonce, Aad::from(aad), data).expect("less than 64 GiB");
        tag.as_ref().try_into().expect("a tag of 16 bytes")
    }

    fn open_in_place<'a>(&self, nonce: &Nonce, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], TagMismatch> {
        let nonce = ring::aead::Nonce::assume_unique_for_key(*nonce);
        self.0.open_in_place(nonce, Aad::from(aad), sealed).map_err(|_| TagMismatch)
    }
}

/// `aes-gcm`: for key wraps, and the reference.
pub(crate) struct ReferenceAead(aes_gcm::Aes256Gcm);

impl ReferenceAead {
    pub(crate) fn new(key: &Secret) -> Self {
        Self(aes_gcm::Aes256Gcm::new(key.bytes().into()))
    }
}

impl Aead for ReferenceAead {
    fn seal_in_place(&self, nonce: &Nonce, aad: &[u8], data: &mut [u8]) -> [u8; TAG_LEN] {
        self.0.encrypt_inout_detached(nonce.into(), aad, data.into()).expect("less than 64 GiB").into()
    }

    fn open_in_place<'a>(&self, nonce: &Nonce, aad: &[u8], sealed: &'a mut [u8]) -> Result<&'a mut [u8], TagMismatch> {
        let len = sealed.len().checked_sub(TAG_LEN).ok_or(TagMismatch)?;
        let (data, tag) = sealed.split_at_mut(len);
        let tag: [u8; TAG_LEN] = (&*tag).try_into().expect("16 bytes are left");
        let opened = self.0.decrypt_inout_detached(nonce.into(), aad, data.into(), &tag.into());
        opened.map_err(|_| TagMismatch)?;
        Ok(data)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_implementations_seal_alike_and_refuse_alike() {
        let key = Secret::random();
        let pair: [Box<dyn Aead>; 2] = [Box::new(RingAead::new(&key)), Box::new(ReferenceAead::new(&key))];
        for len in [0_usize, 1, 15, 16, 17, 65_536] {
            let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let sealed = pair.each_ref().map(|aead| {
                let mut data = plain.clone();
                let tag = aead.seal_in_place(&[7; 12], b"aad", &mut data);
                data.extend(tag);
                data
            });
            assert_eq!(sealed[0], sealed[1]);
            for aead in &pair {
                assert_eq!(aead.open_in_place(&[7; 12], b"aad", &mut sealed[0].clone()).unwrap(), &plain[..]);
                assert!(aead.open_in_place(&[8; 12], b"aad", &mut sealed[0].clone()).is_err());
                assert!(aead.open_in_place(&[7; 12], b"axd", &mut sealed[0].clone()).is_err());
                assert!(aead.open_in_place(&[7; 12], b"aad", &mut sealed[0].clone()[..len + 15]).is_err());
            }
        }
    }
}
