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

use crate::crypto::aead::TagMismatch;
use crate::crypto::keys::{Secret, keyring_mac_key, random_uuid};
use crate::crypto::wrap::{WRAP_LEN, Wrapped};
use crate::segment_file::record::{RecordKind, RecordShape};

const MAGIC: &[u8; 8] = b"VIDARKEY";
const VERSION: u16 = 1;
/// Bit of the refuse word: the wrapped secret is as long as its provider made it.
const REFUSE_FOREIGN_WRAP: u32 = 1;
/// Longest wrapped secret of a provider, in bytes.
pub(crate) const FOREIGN_WRAP_LEN_MAX: usize = 16 << 10;
/// Bytes of one key on disk.
const ENTRY_LEN: usize = 104;

/// What a key in the ring is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Purpose {
    /// Records of a stream.
    Stream,
    /// Control records and footers.
    Log,
    /// What the index keeps.
    Index,
}

impl Purpose {
    /// One word.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Stream => "stream",
            Self::Log => "log",
            Self::Index => "index",
        }
    }

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

/// A key, without what opens anything.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyInfo {
    /// What it is for.
    pub purpose: Purpose,
    /// Of which stream; none where the store has it.
    pub stream: Option<StreamId>,
    /// From 1.
    pub version: u32,
    /// What is written now is sealed under it; older versions only open what they sealed.
    pub current: bool,
}

/// A secret for the next keyring, wrapped by the provider.
pub(crate) struct Fresh {
    pub(crate) secret: Secret,
    pub(crate) wrapped: Vec<u8>,
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
    /// As the provider gave it.
    wrapped_secret: Vec<u8>,
    keys: BTreeMap<KeyName, (Secret, Wrapped)>,
}

impl fmt::Debug for Keyring {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Keyring(generation {}, {} keys)", self.generation, self.keys.len())
    }
}

impl Keyring {
    /// The first keyring of a store, under a key that is at hand.
    pub(crate) fn create(kek: &Secret) -> Self {
        let store = random_uuid();
        let secret = Secret::random();
        let wrapped = Wrapped::seal(kek, &secret_context(store), &secret).0.to_vec();
        Self::first(store, Fresh { secret, wrapped })
    }

    /// The first keyring of a store.
    pub(crate) fn first(store: Uuid, fresh: Fresh) -> Self {
        let Fresh { secret, wrapped } = fresh;
        let mut ring = Self { generation: 1, store, secret, wrapped_secret: wrapped, keys: BTreeMap::new() };
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

    /// With another version of the key of each of `streams` that has one.
    pub(crate) fn with_new_versions(&self, streams: &[StreamId]) -> Self {
        let mut next = Self { generation: self.generation + 1, ..self.clone() };
        for stream in streams {
            if let Some((version, _)) = self.current(*stream) {
                next.add(KeyName::stream(*stream, version.saturating_add(1)));
            }
        }
        next
    }

    /// Without the keys of `streams`, under a new secret: what was wrapped before opens them no more.
    pub(crate) fn without_streams(&self, streams: &[StreamId], fresh: Fresh) -> Self {
        let Fresh { secret, wrapped } = fresh;
        let kept = self.keys.iter().filter(|(name, _)| !streams.contains(&name.stream));
        let keys =
            kept.map(|(name, (key, _))| (*name, (key.clone(), Wrapped::seal(&secret, &name.context(self.store), key))));
        let keys = keys.collect();
        Self { generation: self.generation + 1, store: self.store, secret, wrapped_secret: wrapped, keys }
    }

    /// What the provider is told beside the secret.
    pub(crate) fn context(&self) -> [u8; 22] {
        secret_context(self.store)
    }

    /// The secret as the provider wrapped it.
    pub(crate) fn wrapped_secret(&self) -> &[u8] {
        &self.wrapped_secret
    }

    /// All keys, in order.
    pub(crate) fn list(&self) -> Vec<KeyInfo> {
        let info = |name: &KeyName| {
            let stream = (name.purpose == Purpose::Stream).then_some(name.stream);
            let current =
                stream.and_then(|stream| self.current(stream)).is_none_or(|(newest, _)| newest == name.version);
            KeyInfo { purpose: name.purpose, stream, version: name.version, current }
        };
        self.keys.keys().map(info).collect()
    }

    /// The newest key of a stream, with its version.
    pub(crate) fn current(&self, stream: StreamId) -> Option<(u32, &Secret)> {
        let range = KeyName::stream(stream, 0)..=KeyName::stream(stream, u32::MAX);
        self.keys.range(range).next_back().map(|(name, (key, _))| (name.version, key))
    }

    /// The first key of a stream: names of configs come from it, so that they stay when the key is rotated.
    pub(crate) fn first_of_stream(&self, stream: StreamId) -> Option<&Secret> {
        let range = KeyName::stream(stream, 0)..=KeyName::stream(stream, u32::MAX);
        self.keys.range(range).next().map(|(_, (key, _))| key)
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

    /// The streams that have keys, each once.
    pub(crate) fn streams(&self) -> impl Iterator<Item = StreamId> + '_ {
        let firsts = self.keys.keys().filter(|name| name.purpose == Purpose::Stream);
        firsts.map(|name| name.stream).collect::<std::collections::BTreeSet<_>>().into_iter()
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
        let foreign = self.wrapped_secret.len() != WRAP_LEN;
        let refuse = if foreign { REFUSE_FOREIGN_WRAP } else { 0 };
        w.raw(MAGIC).u16(VERSION).u16(0).raw(&[0; 8]).u32(refuse).u64(self.generation).raw(self.store.as_bytes());
        if foreign {
            w.u16(u16::try_from(self.wrapped_secret.len()).expect("checked when it was wrapped"));
        }
        w.raw(&self.wrapped_secret);
        w.u32(u32::try_from(self.keys.len()).expect("fewer than 2^32 keys"));
        for (name, (_, wrapped)) in &self.keys {
            w.raw(&name.context(self.store)[..24]).raw(&wrapped.0);
        }
        let mut bytes = w.into_vec();
        let mac = keyring_mac_key(&self.secret).mac(&bytes);
        bytes.extend(mac);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    /// Opens what `encode` wrote, with a key that is at hand.
    pub(crate) fn decode(bytes: &[u8], kek: &Secret) -> Result<Self, KeyringError> {
        let wrapped = wrapped_secret(bytes)?;
        let own = Wrapped(wrapped.bytes.try_into().map_err(|_| KeyringError::WrongKey)?);
        let secret = own.open(kek, &wrapped.context).map_err(|TagMismatch| KeyringError::WrongKey)?;
        Self::open(bytes, secret)
    }

    /// Opens what `encode` wrote, with its secret.
    pub(crate) fn open(bytes: &[u8], secret: Secret) -> Result<Self, KeyringError> {
        let (signed, mac) = body(bytes)?;
        let (WrappedSecret { generation, store, bytes: wrapped_secret, .. }, mut r) = header(signed)?;
        let wrapped_secret = wrapped_secret.to_vec();
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

/// What the provider is asked to unwrap.
pub(crate) struct WrappedSecret<'a> {
    pub(crate) generation: u64,
    store: Uuid,
    pub(crate) context: [u8; 22],
    pub(crate) bytes: &'a [u8],
}

/// The wrapped secret of a copy whose checksum is right.
pub(crate) fn wrapped_secret(bytes: &[u8]) -> Result<WrappedSecret<'_>, KeyringError> {
    Ok(header(body(bytes)?.0)?.0)
}

/// What stands before the keys.
fn header(signed: &[u8]) -> Result<(WrappedSecret<'_>, Reader<'_>), KeyringError> {
    let mut r = Reader::new(&signed[20..]);
    let (refuse, generation, store) = (r.u32()?, r.u64()?, Uuid::from_bytes(r.array()?));
    let len = if refuse & REFUSE_FOREIGN_WRAP == 0 { WRAP_LEN } else { usize::from(r.u16()?) };
    let bytes = r.raw(len)?;
    Ok((WrappedSecret { generation, store, context: secret_context(store), bytes }, r))
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
    if version != VERSION || refuse & !REFUSE_FOREIGN_WRAP != 0 {
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

/// What the provider is told beside the secret: `"secret" ‖ store`.
pub(crate) fn secret_context(store: Uuid) -> [u8; 22] {
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
        let secret = Secret::random();
        let wrapped = Wrapped::seal(&kek, &ring.context(), &secret).0.to_vec();
        let after = ring.without_streams(&[stream], Fresh { secret, wrapped });
        assert!(after.current(stream).is_none());
        assert_eq!(after.log_key(), ring.log_key());
        assert_eq!(after.streams().count(), 1);
        assert_ne!(after.secret, ring.secret);
        for (name, (_, wrapped)) in &after.keys {
            assert_ne!(wrapped.0[32..], ring.keys[name].1.0[32..]);
        }
        assert!(Keyring::decode(&after.encode(), &kek).unwrap().current(stream).is_none());
    }
}
