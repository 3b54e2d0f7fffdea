//! Secrets and what is derived from them.

use std::fmt;
use std::sync::OnceLock;

use ring::rand::{SecureRandom, SystemRandom};
use ring::{hkdf, hmac};
use uuid::Uuid;
use vidar_core::ids::{ConfigId, FileId, StreamId};
use zeroize::{ZeroizeOnDrop, Zeroizing};

use crate::crypto::aead::Nonce;
use crate::segment_file::record::RecordHeader;

/// 32 secret bytes: wiped when dropped, never shown. They stay where they are when it moves, as in a map that grows: what
/// moves leaves a copy behind.
#[derive(Clone)]
pub struct Secret {
    bytes: Box<Zeroizing<[u8; 32]>>,
    /// What HKDF extracts of it, once something was derived: many records have keys that come from the same one.
    extracted: OnceLock<Box<Zeroizing<[u8; 32]>>>,
}

/// In constant time.
impl PartialEq for Secret {
    fn eq(&self, other: &Self) -> bool {
        let differ = self.bytes().iter().zip(other.bytes()).fold(0, |differ, (a, b)| differ | (a ^ b));
        std::hint::black_box(differ) == 0
    }
}

impl Eq for Secret {}

/// By its fields.
impl ZeroizeOnDrop for Secret {}

impl Secret {
    /// Takes over bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self { bytes: Box::new(Zeroizing::new(bytes)), extracted: OnceLock::new() }
    }

    /// From the system's generator.
    #[must_use]
    pub fn random() -> Self {
        let mut secret = Self::new([0; 32]);
        fill_random(&mut **secret.bytes);
        secret
    }

    /// The bytes: for a cipher, never for a log.
    #[must_use]
    pub fn bytes(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// HKDF-SHA256 (RFC 5869) with the empty salt; `info` is the concatenation of `parts`.
    pub(crate) fn derive(&self, parts: &[&[u8]]) -> Self {
        // RFC 5869 section 2.2: the empty salt is as good as 32 zeros.
        let extract = || Box::new(Zeroizing::new(Self::new([0; 32]).mac(self.bytes())));
        let prk = hkdf::Prk::new_less_safe(hkdf::HKDF_SHA256, &***self.extracted.get_or_init(extract));
        let mut key = Self::new([0; 32]);
        let okm = prk.expand(parts, hkdf::HKDF_SHA256).expect("32 bytes are within bounds");
        okm.fill(&mut **key.bytes).expect("a buffer of 32 bytes");
        key
    }

    /// HMAC-SHA256 (RFC 2104).
    pub(crate) fn mac(&self, data: &[u8]) -> [u8; 32] {
        let tag = hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, self.bytes()), data);
        tag.as_ref().try_into().expect("32 bytes")
    }

    /// Constant-time comparison with what `mac` gives.
    pub(crate) fn mac_matches(&self, data: &[u8], tag: &[u8]) -> bool {
        hmac::verify(&hmac::Key::new(hmac::HMAC_SHA256, self.bytes()), data, tag).is_ok()
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Bytes of the system's generator.
pub(crate) fn random<const N: usize>() -> [u8; N] {
    let mut bytes = [0; N];
    fill_random(&mut bytes);
    bytes
}

fn fill_random(bytes: &mut [u8]) {
    // Without randomness nothing can be sealed safely; the system call fails on no supported system.
    SystemRandom::new().fill(bytes).expect("the system's random number generator");
}

/// The key of one record.
pub(crate) fn record_key(outer: &Secret, header: &RecordHeader) -> Secret {
    let meta = &header.shape.meta;
    let (stream, number) = (meta.stream.as_bytes(), meta.number.as_bytes());
    outer.derive(&[b"vidar record 1", &header.salt, stream, number])
}

/// The key of a footer.
pub(crate) fn footer_key(log_key: &Secret, salt: &[u8; 32], file: FileId) -> Secret {
    log_key.derive(&[b"vidar footer 1", salt, file.as_bytes()])
}

/// The key of a checkpoint.
pub(crate) fn checkpoint_key(log_key: &Secret, salt: &[u8; 32]) -> Secret {
    log_key.derive(&[b"vidar checkpoint 1", salt])
}

/// The id of a config.
pub(crate) fn config_id(stream_key: &Secret, stream: StreamId, plain: &[u8]) -> ConfigId {
    let key = stream_key.derive(&[b"vidar config id 1", stream.as_bytes()]);
    ConfigId(key.mac(plain)[..16].try_into().expect("16 of 32 bytes"))
}

/// The key that authenticates a keyring.
pub(crate) fn keyring_mac_key(secret: &Secret) -> Secret {
    secret.derive(&[b"vidar keyring mac 1"])
}

/// The key of one wrap.
pub(crate) fn wrap_key(outer: &Secret, salt: &[u8; 32], context: &[u8]) -> Secret {
    outer.derive(&[b"vidar wrap 1", salt, context])
}

/// What is sealed under a record key or a footer key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Section {
    /// Facts of a record.
    Facts,
    /// Table of a record.
    Table,
    /// A chunk of a record's media.
    Chunk {
        /// From 0.
        index: u32,
        /// No chunk follows.
        last: bool,
    },
}

impl Section {
    /// Fixed by what it is, so that no section can stand in for another.
    pub(crate) fn nonce(self) -> Nonce {
        let (label, index, last) = match self {
            Self::Facts => (1, 0, true),
            Self::Table => (2, 0, true),
            Self::Chunk { index, last } => (3, index, last),
        };
        let mut nonce = [0; 12];
        nonce[0] = label;
        nonce[7..11].copy_from_slice(&index.to_be_bytes());
        nonce[11] = u8::from(last);
        nonce
    }
}

/// A new UUID for things that are not time-ordered.
pub(crate) fn random_uuid() -> Uuid {
    Uuid::new_v4()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_are_not_shown() {
        assert_eq!(format!("{:?}", Secret::new([0x41; 32])), "Secret(..)");
    }

    #[test]
    fn secrets_and_ciphers_are_wiped_when_dropped() {
        fn wiped<T: ZeroizeOnDrop>() {}
        wiped::<Secret>();
        wiped::<Zeroizing<[u8; 32]>>();
        wiped::<aes_gcm::aes::Aes256>();
        let secret = Secret::random();
        let place = secret.bytes().as_ptr();
        let moved = Box::new(secret);
        assert_eq!(moved.bytes().as_ptr(), place, "a move leaves no copy behind");
    }

    #[test]
    fn a_mac_is_that_of_all_bytes_and_no_others() {
        let key = Secret::new([1; 32]);
        let tag = key.mac(b"data");
        assert!(
            key.mac_matches(b"data", &tag) && !key.mac_matches(b"date", &tag) && !key.mac_matches(b"data", &tag[..31])
        );
        for bit in 0..256 {
            let mut bad = tag;
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(!key.mac_matches(b"data", &bad) && Secret::new(bad) != Secret::new(tag), "{bit}");
        }
    }

    #[test]
    fn derivation_is_that_of_rfc_5869() {
        // Expected value: Python's hmac and hashlib.
        let expected = "178a8d7bd961437dbdaaf1bf5b9b6b55a69011e51f3bc6907d37d55adeff43bc";
        let secret = Secret::new([0x0b; 32]);
        for derived in [secret.derive(&[b"a", b"b"]), secret.derive(&[b"ab"]), secret.clone().derive(&[b"", b"ab"])] {
            let hex: String = derived.bytes().iter().map(|byte| format!("{byte:02x}")).collect();
            assert_eq!(hex, expected);
        }
    }

    #[test]
    fn nonces_of_sections_differ() {
        let all = [
            Section::Facts,
            Section::Table,
            Section::Chunk { index: 0, last: false },
            Section::Chunk { index: 0, last: true },
            Section::Chunk { index: 1, last: true },
        ];
        for (i, a) in all.iter().enumerate() {
            assert!(all[i + 1..].iter().all(|b| b.nonce() != a.nonce()));
        }
    }
}
