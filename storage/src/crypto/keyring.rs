//! The keyring: all keys, wrapped. Layout: `docs/formats/keyring.md`.
//!
//! # Invariants
//! 1. A key that was given out is in both copies on disk.
//! 2. The valid copy with the greatest generation holds; the other is at most one change behind.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::fmt;

use uuid::Uuid;
use vidar_core::ids::StreamId;
use vidar_core::wire::{Reader, WireError, Writer};

use crate::crypto::aead::{Aead, Nonce, ReferenceAead, TAG_LEN, TagMismatch};
use crate::crypto::keys::{Secret, keyring_mac_key, random, random_uuid, wrap_key};
use crate::segment_file::record::{RecordKind, RecordShape};

const MAGIC: &[u8; 8] = b"VIDARKEY";
const VERSION: u16 = 1;
const WRAPPED_LEN: usize = 32 + TAG_LEN;
/// Each wrap has a key of its own.
const NONCE: Nonce = [0; 12];
/// Bytes of one key on disk.
const ENTRY_LEN: usize = 104;

/// What a key in the ring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Purpose {
    /// Records of a stream.
    Stream,
    /// Control records and footers.
    Log,
    /// What the index keeps.
    Index,
}

impl Purpose {
    const fn code(self) -> u8 {
        match self {
            Self::Stream => 1,
            Self::Log => 2,
            Self::Index => 3,
        }
    }
}

/// The name of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct KeyName {
    purpose: Purpose,
    stream: StreamId,
    version: u32,
}

impl KeyName {
    pub(crate) fn stream(stream: StreamId, version: u32) -> Self {
        Self { purpose: Purpose::Stream, stream, version }
    }

    fn store(purpose: Purpose) -> Self {
        Self { purpose, stream: StreamId::from_bytes([0; 16]), version: 1 }
    }

    fn context(self, store: Uuid) -> [u8; 40] {
        let mut context = [0; 40];
        context[0] = self.purpose.code();
        context[4..8].copy_from_slice(&self.version.to_be_bytes());
        context[8..24].copy_from_slice(self.stream.as_bytes());
        context[24..].copy_from_slice(store.as_bytes());
        context
    }
}

/// A secret as it stands on disk.
#[derive(Clone)]
struct Wrapped {
    salt: [u8; 32],
    sealed: [u8; WRAPPED_LEN],
}

impl Wrapped {
    fn seal(outer: &Secret, context: &[u8], secret: &Secret) -> Self {
        let salt = random();
        let aead = ReferenceAead::new(&wrap_key(outer, &salt, context));
        let mut sealed = [0; WRAPPED_LEN];
        sealed[..32].copy_from_slice(secret.bytes());
        let tag = aead.seal_in_place(&NONCE, context, &mut sealed[..32]);
        sealed[32..].copy_from_slice(&tag);
        Self { salt, sealed }
    }

    fn open(&self, outer: &Secret, context: &[u8]) -> Result<Secret, TagMismatch> {
        let aead = ReferenceAead::new(&wrap_key(outer, &self.salt, context));
        let mut sealed = zeroize::Zeroizing::new(self.sealed);
        let plain = aead.open_in_place(&NONCE, context, &mut sealed[..])?;
        Ok(Secret::new((&*plain).try_into().expect("32 bytes")))
    }

    fn read(r: &mut Reader<'_>) -> Result<Self, WireError> {
        Ok(Self { salt: r.array()?, sealed: r.array()? })
    }
}

/// Why a keyring does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum KeyringError {
    #[error(transparent)]
    Wire(#[from] WireError),
    #[error("the checksum does not match")]
    Checksum,
    #[error("the key does not open it")]
    WrongKey,
    #[error("it was altered")]
    Altered,
}

/// All keys, open.
#[derive(Clone)]
pub(crate) struct Keyring {
    /// Raised by each change.
    pub(crate) generation: u64,
    /// Made with the first keyring.
    pub(crate) store: Uuid,
    secret: Secret,
    wrapped_secret: Wrapped,
    keys: BTreeMap<KeyName, (Secret, Wrapped)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring(generation {}, {} keys)", self.generation, self.keys.len())
    }
}

impl Keyring {
    /// The first keyring of a store.
    pub(crate) fn create(kek: &Secret) -> Self {
        let (store, secret) = (random_uuid(), Secret::random());
        let wrapped_secret = Wrapped::seal(kek, &secret_context(store), &secret);
        let mut ring = Self { generation: 1, store, secret, wrapped_secret, keys: BTreeMap::new() };
        ring.add(KeyName::store(Purpose::Log));
        ring.add(KeyName::store(Purpose::Index));
        ring
    }

    fn add(&mut self, name: KeyName) {
        if let Entry::Vacant(entry) = self.keys.entry(name) {
            let key = Secret::random();
            let wrapped = Wrapped::seal(&self.secret, &name.context(self.store), &key);
            entry.insert((key, wrapped));
        }
    }

    /// With a key for each of `streams` that has none.
    pub(crate) fn with_streams(&self, streams: &[StreamId]) -> Self {
        let mut next = Self { generation: self.generation + 1, ..self.clone() };
        streams.iter().filter(|stream| self.current(**stream).is_none()).for_each(|s| next.add(KeyName::stream(*s, 1)));
        next
    }

    /// Without the keys of `streams`, under a new secret: what was wrapped before opens them no more.
    pub(crate) fn without_streams(&self, streams: &[StreamId], kek: &Secret) -> Self {
        let secret = Secret::random();
        let wrapped_secret = Wrapped::seal(kek, &secret_context(self.store), &secret);
        let kept = self.keys.iter().filter(|(name, _)| !streams.contains(&name.stream));
        let keys =
            kept.map(|(name, (key, _))| (*name, (key.clone(), Wrapped::seal(&secret, &name.context(self.store), key))));
        let keys = keys.collect();
        Self { generation: self.generation + 1, store: self.store, secret, wrapped_secret, keys }
    }

    /// The newest key of a stream, with its version.
    pub(crate) fn current(&self, stream: StreamId) -> Option<(u32, &Secret)> {
        let range = KeyName::stream(stream, 0)..=KeyName::stream(stream, u32::MAX);
        self.keys.range(range).next_back().map(|(name, (key, _))| (name.version, key))
    }

    /// A key of a stream.
    pub(crate) fn of_stream(&self, stream: StreamId, version: u32) -> Option<&Secret> {
        self.keys.get(&KeyName::stream(stream, version)).map(|(key, _)| key)
    }

    /// The key that the key of a record is derived from.
    pub(crate) fn outer(&self, shape: &RecordShape) -> Option<&Secret> {
        match shape.kind {
            RecordKind::Control => (shape.key_version == 1).then(|| self.log_key()),
            RecordKind::Fragment | RecordKind::Part | RecordKind::Config => {
                self.of_stream(shape.meta.stream, shape.key_version)
            }
        }
    }

    /// The streams that have keys.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        self.keys.keys().filter(|name| name.purpose == Purpose::Stream).map(|name| name.stream)
    }

    fn of_store(&self, purpose: Purpose) -> &Secret {
        &self.keys.get(&KeyName::store(purpose)).expect("a keyring has the keys of its store").0
    }

    /// Seals control records and footers.
    pub(crate) fn log_key(&self) -> &Secret {
        self.of_store(Purpose::Log)
    }

    /// For the index.
    pub(crate) fn index_key(&self) -> &Secret {
        self.of_store(Purpose::Index)
    }

    /// The bytes on disk.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).u16(0).raw(&[0; 12]).u64(self.generation).raw(self.store.as_bytes());
        w.raw(&self.wrapped_secret.salt).raw(&self.wrapped_secret.sealed);
        w.u32(u32::try_from(self.keys.len()).expect("fewer than 2^32 keys"));
        for (name, (_, wrapped)) in &self.keys {
            w.raw(&name.context(self.store)[..24]).raw(&wrapped.salt).raw(&wrapped.sealed);
        }
        let mut bytes = w.into_vec();
        let mac = keyring_mac_key(&self.secret).mac(&bytes);
        bytes.extend(mac);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    /// Opens what `encode` wrote.
    pub(crate) fn decode(bytes: &[u8], kek: &Secret) -> Result<Self, KeyringError> {
        let (signed, mac) = body(bytes)?;
        let mut r = Reader::new(&signed[24..]);
        let (generation, store) = (r.u64()?, Uuid::from_bytes(r.array()?));
        let wrapped_secret = Wrapped::read(&mut r)?;
        let secret = wrapped_secret.open(kek, &secret_context(store)).map_err(|TagMismatch| KeyringError::WrongKey)?;
        if !keyring_mac_key(&secret).mac_matches(signed, mac) {
            return Err(KeyringError::Altered);
        }
        let count = r.u32()? as usize;
        if r.remaining() != count.saturating_mul(ENTRY_LEN) {
            return Err(r.error("as many keys as the count says").into());
        }
        let mut keys = BTreeMap::new();
        for _ in 0..count {
            let name = key_name(&mut r)?;
            let wrapped = Wrapped::read(&mut r)?;
            let key = wrapped.open(&secret, &name.context(store)).map_err(|TagMismatch| KeyringError::Altered)?;
            keys.insert(name, (key, wrapped));
        }
        if [Purpose::Log, Purpose::Index].iter().any(|p| !keys.contains_key(&KeyName::store(*p))) {
            return Err(r.error("a log key and an index key").into());
        }
        Ok(Self { generation, store, secret, wrapped_secret, keys })
    }
}

/// The generation of a copy whose checksum is right.
pub(crate) fn generation(bytes: &[u8]) -> Result<u64, KeyringError> {
    let (signed, _) = body(bytes)?;
    Ok(Reader::new(&signed[24..]).u64()?)
}

/// What is signed, and the signature; magic, version and checksum are right.
fn body(bytes: &[u8]) -> Result<(&[u8], &[u8]), KeyringError> {
    let mut r = Reader::new(bytes);
    if r.array()? != *MAGIC {
        return Err(WireError { expected: "a keyring", offset: 0 }.into());
    }
    let (checked, crc) = bytes.split_at(bytes.len() - 4);
    if crc32c::crc32c(checked).to_be_bytes() != crc {
        return Err(KeyringError::Checksum);
    }
    let (version, _, _, _, refuse) = (r.u16()?, r.u16()?, r.u32()?, r.u32()?, r.u32()?);
    if version != VERSION || refuse != 0 {
        return Err(WireError { expected: "keyring format version 1", offset: 8 }.into());
    }
    let len = checked.len().checked_sub(32).filter(|len| *len >= 24).ok_or(KeyringError::Checksum)?;
    Ok(checked.split_at(len))
}

fn key_name(r: &mut Reader<'_>) -> Result<KeyName, WireError> {
    let purpose = match r.u32()?.to_be_bytes()[0] {
        1 => Purpose::Stream,
        2 => Purpose::Log,
        3 => Purpose::Index,
        _ => return Err(r.error("the purpose of a key")),
    };
    let version = r.u32()?;
    Ok(KeyName { purpose, version, stream: StreamId::from_bytes(r.array()?) })
}

fn secret_context(store: Uuid) -> [u8; 22] {
    let mut context = [0; 22];
    context[..6].copy_from_slice(b"secret");
    context[6..].copy_from_slice(store.as_bytes());
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ring() -> (Secret, Keyring, StreamId) {
        let (kek, stream) = (Secret::random(), StreamId::new());
        let ring = Keyring::create(&kek).with_streams(&[stream, StreamId::new()]);
        (kek, ring, stream)
    }

    #[test]
    fn a_keyring_round_trips_and_needs_its_key() {
        let (kek, ring, stream) = ring();
        let bytes = ring.encode();
        let read = Keyring::decode(&bytes, &kek).unwrap();
        assert_eq!((read.generation, read.store), (2, ring.store));
        assert_eq!(read.current(stream), ring.current(stream));
        assert_eq!(read.log_key(), ring.log_key());
        assert_eq!(Keyring::decode(&bytes, &Secret::random()).unwrap_err(), KeyringError::WrongKey);
        assert!(!bytes.windows(32).any(|window| window == ring.log_key().bytes()), "nothing in clear");
    }

    #[test]
    fn every_truncation_and_every_flipped_byte_is_refused() {
        let (kek, ring, _) = ring();
        let bytes = ring.encode();
        for len in 0..bytes.len() {
            assert!(Keyring::decode(&bytes[..len], &kek).is_err(), "{len}");
        }
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 0x10;
            assert!(Keyring::decode(&bad, &kek).is_err(), "{at}");
            // Whoever alters a byte can also make the checksum right.
            let crc = crc32c::crc32c(&bad[..bad.len() - 4]);
            let len = bad.len();
            bad[len - 4..].copy_from_slice(&crc.to_be_bytes());
            assert!(at >= len - 4 || Keyring::decode(&bad, &kek).is_err(), "{at} with a checksum");
        }
    }

    #[test]
    fn destroying_replaces_the_secret_and_every_wrap() {
        let (kek, ring, stream) = ring();
        let after = ring.without_streams(&[stream], &kek);
        assert!(after.current(stream).is_none());
        assert_eq!(after.log_key(), ring.log_key());
        assert_eq!(after.streams().count(), 1);
        assert_ne!(after.secret, ring.secret);
        for (name, (_, wrapped)) in &after.keys {
            assert_ne!(wrapped.sealed, ring.keys[name].1.sealed);
        }
        assert!(Keyring::decode(&after.encode(), &kek).unwrap().current(stream).is_none());
    }
}
