//! The keyring on disk: opened at start, changed in both copies before a change counts.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use vidar_core::ids::StreamId;
use vidar_core::sink::SinkError;

use crate::backend::SegmentIo;
use crate::crypto::ask::{Asker, patiently};
use crate::crypto::kek::{KekError, KekProvider};
use crate::crypto::keyring::{self, FOREIGN_WRAP_LEN_MAX, Fresh, KeyInfo, Keyring, KeyringError};
use crate::crypto::keys::{Secret, random_uuid};
use crate::options::{OpenError, StoreOptions};

const COPIES: [&str; 2] = ["keyring.a", "keyring.b"];

/// All keys of a store.
pub(crate) struct Keychain {
    io: Arc<dyn SegmentIo>,
    /// The provider, and how often it was replaced or its key rotated.
    kek: Mutex<(Asker, u64)>,
    ring: RwLock<Arc<Keyring>>,
    /// Streams that wait for a key: whoever writes next takes them all.
    waiting: Mutex<BTreeSet<StreamId>>,
    /// Held while the copies are written. Taken before `kek` and `ring`.
    writing: Mutex<()>,
    /// Held while the key of the provider is rotated. Taken before `writing`, which never waits for the provider but when
    /// a rotation came between.
    rotating: Mutex<()>,
}

/// A fresh secret that a provider has wrapped, and the count of rotations before.
pub(crate) struct Prepared {
    fresh: Fresh,
    rotations: u64,
}

/// The keyring that holds, and whether both copies say the same.
pub(crate) fn read(io: &dyn SegmentIo, options: &StoreOptions) -> Result<Option<(Keyring, bool)>, OpenError> {
    let mut copies = Vec::new();
    for name in COPIES {
        copies.extend(io.read_small(name).map_err(OpenError::io(format!("read {name}")))?);
    }
    if copies.is_empty() {
        return Ok(None);
    }
    let kek = Asker::new(Arc::clone(&options.kek), options.kek_timeout);
    let same = copies.len() == COPIES.len() && copies[0] == copies[1];
    copies
        .sort_by_key(|bytes| std::cmp::Reverse(keyring::wrapped_secret(bytes).ok().map(|wrapped| wrapped.generation)));
    let (mut wrong, mut details) = (false, Vec::new());
    for bytes in &copies {
        match open_copy(bytes, &kek, options)? {
            Ok(ring) => return Ok(Some((ring, same))),
            Err(error) => {
                wrong |= error == KeyringError::WrongKey;
                details.push(error.to_string());
            }
        }
    }
    let data_dir = options.data_dir.clone();
    if wrong {
        return Err(OpenError::KekWrong { data_dir, place: kek.place() });
    }
    Err(OpenError::KeyringCorrupt { data_dir, detail: details.join("; ") })
}

/// The outer error is final: a provider that is down must not make an older copy hold.
fn open_copy(bytes: &[u8], kek: &Asker, options: &StoreOptions) -> Result<Result<Keyring, KeyringError>, OpenError> {
    let wrapped = match keyring::wrapped_secret(bytes) {
        Ok(wrapped) => wrapped,
        Err(error) => return Ok(Err(error)),
    };
    let secret = patiently(options.kek_patience, || {
        let (context, bytes) = (wrapped.context, wrapped.bytes.to_vec());
        kek.ask(move |kek| kek.unwrap(&context, &bytes))
    });
    match secret {
        Ok(secret) => Ok(Keyring::open(bytes, secret)),
        Err(KekError::Wrong { .. }) => Ok(Err(KeyringError::WrongKey)),
        Err(KekError::Missing { place }) => Err(OpenError::KekMissing { data_dir: options.data_dir.clone(), place }),
        Err(error) => Err(error.into()),
    }
}

/// A secret of its own for the keyring, wrapped.
fn fresh(
    kek: &Asker,
    context: [u8; 22],
    wrap: impl FnOnce(&dyn KekProvider, &[u8], &Secret) -> Result<Vec<u8>, KekError> + Send + 'static,
) -> Result<Fresh, KekError> {
    let secret = Secret::random();
    let own = secret.clone();
    let wrapped = kek.ask(move |kek| wrap(kek, &context, &own))?;
    if wrapped.len() > FOREIGN_WRAP_LEN_MAX {
        return Err(KekError::Unsupported { place: kek.place(), detail: "what it wraps is longer than 16 KiB" });
    }
    Ok(Fresh { secret, wrapped })
}

fn write(io: &dyn SegmentIo, ring: &Keyring) -> io::Result<()> {
    let bytes = ring.encode();
    let both = || COPIES.iter().try_for_each(|name| io.replace_small(name, &bytes));
    match both() {
        // The reserve is there for this.
        Err(error) if is_full(&error) => {
            io.reserve(0)?;
            both()
        }
        other => other,
    }
}

/// There is no room.
pub(crate) fn is_full(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
}

pub(crate) fn sink_error(what: &str, error: &io::Error) -> SinkError {
    if is_full(error) { SinkError::Full } else { SinkError::Failed { detail: format!("{what}: {error}") } }
}

impl Keychain {
    /// Opens the keyring, or makes the first one. True if a copy was missing, damaged or behind.
    pub(crate) fn open(io: Arc<dyn SegmentIo>, options: &StoreOptions) -> Result<(Self, bool), OpenError> {
        let failed = OpenError::io("write the keyring");
        let kek = Asker::new(Arc::clone(&options.kek), options.kek_timeout);
        let (ring, repaired) = match read(&*io, options)? {
            Some((ring, true)) => (ring, false),
            Some((ring, false)) => {
                tracing::warn!("a copy of the keyring was missing, damaged or behind: writing both anew");
                write(&*io, &ring).map_err(failed)?;
                (ring, true)
            }
            None if !io.list().map_err(OpenError::io("list segment files"))?.is_empty() => {
                return Err(OpenError::KeyringMissing { data_dir: options.data_dir.clone() });
            }
            None => {
                let store = random_uuid();
                let made = patiently(options.kek_patience, || {
                    kek.ask(|kek| kek.prepare())?;
                    fresh(&kek, keyring::secret_context(store), |kek, context, secret| kek.wrap(context, secret))
                })?;
                let ring = Keyring::first(store, made);
                write(&*io, &ring).map_err(failed)?;
                (ring, false)
            }
        };
        if let Err(error) = settle(&kek, &ring) {
            tracing::warn!(%error, "the old key could not be given up");
        }
        let (ring, kek) = (RwLock::new(Arc::new(ring)), Mutex::new((kek, 0)));
        let (waiting, writing, rotating) = (Mutex::default(), Mutex::default(), Mutex::default());
        Ok((Self { io, kek, ring, waiting, writing, rotating }, repaired))
    }

    fn kek(&self) -> (Asker, u64) {
        self.kek.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// The keys as they are now.
    pub(crate) fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, ring: Keyring) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Whoever makes a key next makes one for this stream, too.
    pub(crate) fn want(&self, stream: StreamId) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
    }

    /// Makes a key for a stream, if it has none, and for those that wait. Blocks; durable when this returns.
    pub(crate) fn create_stream(&self, stream: StreamId) -> Result<(), SinkError> {
        self.want(stream);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut streams = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        streams.insert(stream);
        let ring = self.ring();
        if streams.iter().all(|stream| ring.current(*stream).is_some()) {
            return Ok(());
        }
        self.put(ring.with_streams(&streams.into_iter().collect::<Vec<_>>()))
    }

    /// All keys, without what opens anything.
    pub(crate) fn list(&self) -> Vec<KeyInfo> {
        self.ring().list()
    }

    /// Gives streams a new version of their keys: what is sealed from now on is sealed under it. Blocks; durable when
    /// this returns. The new versions of those streams that have keys.
    pub(crate) fn rotate_streams(&self, streams: &[StreamId]) -> Result<Vec<(StreamId, u32)>, SinkError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let next = self.ring().with_new_versions(streams);
        let versions = streams.iter().filter_map(|stream| Some((*stream, next.current(*stream)?.0))).collect();
        self.put(next)?;
        Ok(versions)
    }

    /// What `destroy` needs of the provider. Blocks, for no longer than the provider's deadline; changes nothing.
    pub(crate) fn prepare_destroy(&self) -> Result<Prepared, KekError> {
        let (kek, rotations) = self.kek();
        let fresh = fresh(&kek, self.ring().context(), |kek, context, secret| kek.wrap(context, secret))?;
        Ok(Prepared { fresh, rotations })
    }

    /// Destroys the keys of streams. Blocks; nothing in the directory opens them when this returns.
    pub(crate) fn destroy(&self, streams: &[StreamId], prepared: Prepared) -> Result<(), SinkError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring();
        let Some(known) = streams.iter().find(|stream| ring.current(**stream).is_some()) else { return Ok(()) };
        let prepared = if prepared.rotations == self.kek().1 {
            prepared
        } else {
            // The key was rotated since: what was wrapped before must not come back.
            self.prepare_destroy().map_err(|error| SinkError::NoKey { stream: *known, detail: error.to_string() })?
        };
        self.put(ring.without_streams(streams, prepared.fresh))
    }

    /// Wraps the keyring under a new key: of the same provider, or of another. The old one opens it no more. Blocks.
    pub(crate) fn rotate_kek(&self, to: Option<Arc<dyn KekProvider>>) -> Result<(), RotateError> {
        let _rotating = self.rotating.lock().unwrap_or_else(PoisonError::into_inner);
        let ((old, rotations), context) = (self.kek(), self.ring().context());
        let (kek, fresh) = match to {
            None => {
                let fresh = fresh(&old, context, |kek, context, secret| kek.rotate(context, secret))?;
                (old, fresh)
            }
            Some(provider) => {
                let kek = old.to(provider);
                kek.ask(|kek| kek.prepare())?;
                let fresh = fresh(&kek, context, |kek, context, secret| kek.wrap(context, secret))?;
                (kek, fresh)
            }
        };
        {
            let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
            self.put(self.ring().without_streams(&[], fresh))?;
            *self.kek.lock().unwrap_or_else(PoisonError::into_inner) = (kek.clone(), rotations + 1);
        }
        Ok(settle(&kek, &self.ring())?)
    }

    /// Writes both copies; then the keyring holds. Call with `writing` held.
    fn put(&self, next: Keyring) -> Result<(), SinkError> {
        write(&*self.io, &next).map_err(|error| sink_error("write the keyring", &error))?;
        self.replace(next);
        Ok(())
    }
}

/// Why the key that opens the keyring was not rotated.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RotateError {
    /// The provider failed.
    #[error(transparent)]
    Kek(#[from] KekError),
    /// The keyring could not be written: either key may be needed until it can.
    #[error(transparent)]
    Sink(#[from] SinkError),
}

fn settle(kek: &Asker, ring: &Keyring) -> Result<(), KekError> {
    let (context, wrapped) = (ring.context(), ring.wrapped_secret().to_vec());
    kek.ask(move |kek| kek.settle(&context, &wrapped))
}

#[cfg(test)]
#[path = "keychain_tests.rs"]
mod tests;
