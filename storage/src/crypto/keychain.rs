//! The keyring on disk: opened at start, changed in both copies before a change counts.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use vidar_core::ids::StreamId;
use vidar_core::sink::SinkError;

use crate::backend::SegmentIo;
use crate::crypto::kek::KekProvider;
use crate::crypto::keyring::{self, Keyring, KeyringError};
use crate::options::{OpenError, StoreOptions};

const COPIES: [&str; 2] = ["keyring.a", "keyring.b"];

/// All keys of a store.
pub(crate) struct Keychain {
    io: Arc<dyn SegmentIo>,
    kek: Arc<dyn KekProvider>,
    ring: RwLock<Arc<Keyring>>,
    /// Streams that wait for a key: whoever writes next takes them all.
    waiting: Mutex<BTreeSet<StreamId>>,
    /// Held while the copies are written. Taken before `ring`.
    writing: Mutex<()>,
}

/// The keyring that holds, and whether both copies say the same.
pub(crate) fn read(io: &dyn SegmentIo, options: &StoreOptions) -> Result<Option<(Keyring, bool)>, OpenError> {
    let data_dir = || options.data_dir.clone();
    let mut copies = Vec::new();
    for name in COPIES {
        let bytes = io.read_small(name).map_err(OpenError::io(format!("read {name}")))?;
        copies.extend(bytes.map(|bytes| (keyring::generation(&bytes), bytes)));
    }
    if copies.is_empty() {
        return Ok(None);
    }
    let place = options.kek.place();
    let kek = options.kek.load()?;
    let kek = kek.ok_or_else(|| OpenError::KekMissing { data_dir: data_dir(), place: place.clone() })?;
    let same = copies.len() == COPIES.len() && copies[0].1 == copies[1].1;
    copies.sort_by_key(|(generation, _)| std::cmp::Reverse(generation.clone().ok()));
    let mut errors = Vec::new();
    for (_, bytes) in &copies {
        match Keyring::decode(bytes, &kek) {
            Ok(ring) => return Ok(Some((ring, same))),
            Err(error) => errors.push(error),
        }
    }
    if errors.contains(&KeyringError::WrongKey) {
        return Err(OpenError::KekWrong { data_dir: data_dir(), place });
    }
    let detail = errors.iter().map(ToString::to_string).collect::<Vec<_>>().join("; ");
    Err(OpenError::KeyringCorrupt { data_dir: data_dir(), detail })
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
                let kek = options.kek.load()?;
                let ring = Keyring::create(&kek.map_or_else(|| options.kek.create(), Ok)?);
                write(&*io, &ring).map_err(failed)?;
                (ring, false)
            }
        };
        let ring = RwLock::new(Arc::new(ring));
        let (waiting, writing) = (Mutex::default(), Mutex::default());
        Ok((Self { io, kek: Arc::clone(&options.kek), ring, waiting, writing }, repaired))
    }

    /// The keys as they are now.
    pub(crate) fn ring(&self) -> Arc<Keyring> {
        Arc::clone(&self.ring.read().unwrap_or_else(PoisonError::into_inner))
    }

    fn replace(&self, ring: Keyring) {
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(ring);
    }

    /// Makes a key for a stream. Blocks; durable when this returns.
    pub(crate) fn create_stream(&self, stream: StreamId) -> Result<(), SinkError> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).insert(stream);
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut streams = std::mem::take(&mut *self.waiting.lock().unwrap_or_else(PoisonError::into_inner));
        streams.insert(stream);
        let ring = self.ring();
        if streams.iter().all(|stream| ring.current(*stream).is_some()) {
            return Ok(());
        }
        let next = ring.with_streams(&streams.into_iter().collect::<Vec<_>>());
        write(&*self.io, &next).map_err(|error| sink_error("write the keyring", &error))?;
        self.replace(next);
        Ok(())
    }

    /// Destroys the keys of streams. Blocks; nothing in the directory opens them when this returns.
    pub(crate) fn destroy(&self, streams: &[StreamId]) -> Result<(), SinkError> {
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = self.ring();
        let Some(known) = streams.iter().find(|stream| ring.current(**stream).is_some()) else { return Ok(()) };
        let no_key = |detail: String| SinkError::NoKey { stream: *known, detail };
        let kek = self.kek.load().map_err(|error| no_key(error.to_string()))?;
        let kek = kek.ok_or_else(|| no_key(format!("{} is gone", self.kek.place())))?;
        let next = ring.without_streams(streams, &kek);
        write(&*self.io, &next).map_err(|error| sink_error("write the keyring", &error))?;
        self.replace(next);
        Ok(())
    }
}

#[cfg(test)]
#[path = "keychain_tests.rs"]
mod tests;
