//! One timeline file: sealed blocks, one after the other. Layout: `docs/formats/timeline.md`.
//!
//! # Invariants
//! 1. Every file has a key of its own (HKDF-SHA256 of the index key, a random salt), and a block's nonce is its index
//!    in the file: no (key, nonce) pair repeats, and a block that is moved does not open.
//! 2. A file that was opened again is only read, and blocks of it erased.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use ring::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use ring::hkdf;
use ring::rand::{SecureRandom, SystemRandom};
use uuid::Uuid;

use crate::lock::{read, write};

const MAGIC: &[u8; 4] = b"VIDT";
const FORMAT_VERSION: u8 = 1;
pub(super) const HEADER_LEN: usize = 40;
const INFO: &[u8] = b"vidar timeline file v1";
pub(super) const EXTENSION: &str = "vtl";

enum Bytes {
    Disk(File, PathBuf),
    Memory(RwLock<Vec<u8>>),
}

pub(super) struct BlockFile {
    pub(super) name: Uuid,
    key: LessSafeKey,
    header: [u8; HEADER_LEN],
    bytes: Bytes,
    /// Something was written since the last sync.
    unsynced: AtomicBool,
    /// Bytes of all blocks, and of those that something refers to.
    pub(super) len: AtomicU64,
    pub(super) live: AtomicU64,
}

impl BlockFile {
    /// Without a directory: in memory. No other file has its name: an index that was not dropped yet removes its own
    /// files only.
    pub(super) fn create(dir: Option<&Path>, index_key: &[u8; 32]) -> io::Result<Self> {
        let name = Uuid::new_v4();
        let mut header = [0; HEADER_LEN];
        header[..4].copy_from_slice(MAGIC);
        header[4..8].copy_from_slice(&[0, FORMAT_VERSION, 0, 0]);
        let random = SystemRandom::new().fill(&mut header[8..]);
        random.map_err(|_| io::Error::other("no random bytes from the system"))?;
        let bytes = match dir {
            None => Bytes::Memory(RwLock::new(header.to_vec())),
            Some(dir) => {
                let path = path(dir, name);
                let mut file = OpenOptions::new().read(true).write(true).create_new(true).open(&path)?;
                file.write_all(&header)?;
                Bytes::Disk(file, path)
            }
        };
        Self::new(name, header, bytes, 0, index_key)
    }

    /// A file that was synced when its blocks took `len` bytes; what was written after that is cut off.
    pub(super) fn open(dir: &Path, name: Uuid, len: u64, index_key: &[u8; 32]) -> io::Result<Self> {
        let path = path(dir, name);
        let mut file = OpenOptions::new().read(true).write(true).open(&path)?;
        let mut header = [0; HEADER_LEN];
        file.read_exact(&mut header)?;
        let (expected, found) = (HEADER_LEN as u64 + len, file.metadata()?.len());
        if header[..4] != *MAGIC || header[4..8] != [0, FORMAT_VERSION, 0, 0] || found < expected {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "not the timeline file that was saved"));
        }
        if found > expected {
            file.set_len(expected)?;
        }
        Self::new(name, header, Bytes::Disk(file, path), len, index_key)
    }

    fn new(name: Uuid, header: [u8; HEADER_LEN], bytes: Bytes, len: u64, index_key: &[u8; 32]) -> io::Result<Self> {
        let secret = hkdf::Salt::new(hkdf::HKDF_SHA256, &header[8..]).extract(index_key);
        let key = secret.expand(&[INFO], &AES_256_GCM).map(UnboundKey::from);
        let key = LessSafeKey::new(key.map_err(|_| io::Error::other("key derivation failed"))?);
        let (len, live, unsynced) = (AtomicU64::new(len), AtomicU64::new(0), AtomicBool::new(true));
        Ok(Self { name, key, header, bytes, unsynced, len, live })
    }

    pub(super) fn seal(&self, index: u32, block: &mut Vec<u8>) -> io::Result<()> {
        let sealed = self.key.seal_in_place_append_tag(nonce(index), Aad::from(&self.header), block);
        sealed.map_err(|_| io::Error::other("sealing failed"))
    }

    /// The plain bytes of a block, in place.
    pub(super) fn unseal<'a>(&self, index: u32, sealed: &'a mut [u8]) -> io::Result<&'a [u8]> {
        let plain = self.key.open_in_place(nonce(index), Aad::from(&self.header), sealed);
        plain.map(|plain| &*plain).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "the block does not open"))
    }

    pub(super) fn write(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.unsynced.store(true, Ordering::Release);
        match &self.bytes {
            Bytes::Disk(file, _) => file.write_all_at(bytes, offset),
            Bytes::Memory(memory) => {
                write(memory).extend_from_slice(bytes);
                Ok(())
            }
        }
    }

    pub(super) fn read(&self, offset: u64, bytes: &mut [u8]) -> io::Result<()> {
        match &self.bytes {
            Bytes::Disk(file, _) => file.read_exact_at(bytes, offset),
            Bytes::Memory(memory) => {
                let memory = read(memory);
                let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                let found = memory.get(begin..begin.saturating_add(bytes.len()));
                bytes.copy_from_slice(found.ok_or(io::ErrorKind::UnexpectedEof)?);
                Ok(())
            }
        }
    }

    /// Writes zeros over a block. Until the next sync they may not be on disk.
    pub(super) fn erase(&self, offset: u64, len: u32) -> io::Result<()> {
        let zeros = vec![0; len as usize];
        self.unsynced.store(true, Ordering::Release);
        match &self.bytes {
            Bytes::Disk(file, _) => file.write_all_at(&zeros, offset),
            Bytes::Memory(memory) => {
                let begin = usize::try_from(offset).unwrap_or(usize::MAX);
                if let Some(bytes) = write(memory).get_mut(begin..begin.saturating_add(zeros.len())) {
                    bytes.copy_from_slice(&zeros);
                }
                Ok(())
            }
        }
    }

    /// Blocks until what was written is on disk.
    pub(super) fn sync(&self) -> io::Result<()> {
        if let Bytes::Disk(file, _) = &self.bytes
            && self.unsynced.swap(false, Ordering::AcqRel)
        {
            file.sync_data().inspect_err(|_| self.unsynced.store(true, Ordering::Release))?;
        }
        Ok(())
    }

    pub(super) fn unlink(&self) {
        if let Bytes::Disk(_, path) = &self.bytes
            && let Err(error) = fs::remove_file(path)
        {
            tracing::warn!(path = %path.display(), %error, "cannot remove a timeline file");
        }
    }
}

fn path(dir: &Path, name: Uuid) -> PathBuf {
    dir.join(format!("{name}.{EXTENSION}"))
}

fn nonce(index: u32) -> Nonce {
    let mut nonce = [0; 12];
    nonce[8..].copy_from_slice(&index.to_be_bytes());
    Nonce::assume_unique_for_key(nonce)
}
