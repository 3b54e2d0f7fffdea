//! What opens the keyring: a provider that wraps and unwraps its secret.
//!
//! ```text
//! KEK (provider: key file; environment; later a KMS or Vault, whose key never leaves it) ─► keyring secret
//! ```

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::Zeroizing;

use crate::crypto::keys::Secret;
use crate::crypto::wrap::{WRAP_LEN, Wrapped};

/// Why a provider did not do what it was asked.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KekError {
    /// The file system failed.
    #[error("{place}: {source}")]
    Io {
        /// What was asked.
        place: String,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// What stands there is no key.
    #[error("{place}: {detail}")]
    Malformed {
        /// What was read.
        place: String,
        /// What was expected.
        detail: &'static str,
    },
    /// There is no key.
    #[error("{place}: there is no key")]
    Missing {
        /// What was looked for.
        place: String,
    },
    /// It wrapped something else, or under another key.
    #[error("the key in {place} is another")]
    Wrong {
        /// Where the key comes from.
        place: String,
    },
    /// This provider cannot do that.
    #[error("{place}: {detail}")]
    Unsupported {
        /// What was asked.
        place: String,
        /// What it cannot do.
        detail: &'static str,
    },
    /// It does not answer now: asking again later may help.
    #[error("{place} does not answer: {detail}")]
    Unavailable {
        /// What was asked.
        place: String,
        /// What it said, if anything.
        detail: String,
    },
}

/// Holds the key-encryption key: wraps and unwraps the secret of the keyring.
///
/// Calls may block: they are made on threads where that is allowed, and given up after
/// [`kek_timeout`](crate::StoreOptions::kek_timeout). A provider is asked at start, when a stream is deleted, and when the
/// key is rotated: never for reading, recording or a new stream.
pub trait KekProvider: Send + Sync + fmt::Debug {
    /// Where the key is expected, for messages.
    fn place(&self) -> String;

    /// Makes a key if there is none, durable before this returns. Called only where there is no keyring, or one is given
    /// to this provider.
    ///
    /// # Errors
    /// If there is none, and the provider makes no keys or cannot keep one.
    fn prepare(&self) -> Result<(), KekError>;

    /// Seals a secret, at most 16 KiB long when sealed. `context` is authenticated with it (a KMS calls it encryption
    /// context or associated data).
    ///
    /// # Errors
    /// `Missing`, `Unavailable`.
    fn wrap(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError>;

    /// Opens what `wrap` or `rotate` gave.
    ///
    /// # Errors
    /// `Wrong` if another key is needed, or it was altered; `Missing`, `Unavailable`.
    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Secret, KekError>;

    /// As `wrap`, under a new key. Until `settle` the provider opens both what the old and what the new key wrapped.
    ///
    /// # Errors
    /// As `wrap`; `Unsupported` if the provider cannot make keys.
    fn rotate(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError>;

    /// `wrapped` is what the keyring holds, durably: keys that do not open it are given up. Called after each rotation and
    /// each start, since a crash may have come between the two.
    ///
    /// # Errors
    /// If they could not be given up: the next start tries again.
    fn settle(&self, context: &[u8], wrapped: &[u8]) -> Result<(), KekError>;
}

fn seal(key: &Secret, context: &[u8], secret: &Secret) -> Vec<u8> {
    Wrapped::seal(key, context, secret).0.to_vec()
}

fn open(key: &Secret, context: &[u8], wrapped: &[u8]) -> Option<Secret> {
    let bytes: [u8; WRAP_LEN] = wrapped.try_into().ok()?;
    Wrapped(bytes).open(key, context).ok()
}

/// A key in a file of mode 0600: one line, `vidar-kek-1 KEY CRC`. While the key is rotated the new one stands in
/// `FILE.new`.
#[derive(Debug, Clone)]
pub struct KeyFile {
    path: PathBuf,
}

impl KeyFile {
    /// At `path`.
    #[must_use]
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into() }
    }

    /// Where a data directory's key stands unless told otherwise: beside it, `DIR.key`.
    #[must_use]
    pub fn beside(data_dir: &Path) -> Self {
        // "dir/." and "dir/" name the directory too; its own last name is what counts.
        Self::new(data_dir.components().collect::<PathBuf>()).with(".key")
    }

    fn with(&self, suffix: &str) -> Self {
        let mut name = self.path.clone().into_os_string();
        name.push(suffix);
        Self::new(name)
    }

    /// Where the next key stands while the key is rotated.
    fn next(&self) -> Self {
        self.with(".new")
    }

    fn io(&self, source: io::Error) -> KekError {
        KekError::Io { place: self.place(), source }
    }

    fn sync_folder(&self) -> io::Result<()> {
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }

    /// A new key; never in the place of another.
    fn create(&self) -> Result<Secret, KekError> {
        let key = Secret::random();
        let write = || {
            let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
            file.write_all(encode(&key).as_bytes())?;
            file.sync_all()?;
            self.sync_folder()
        };
        write().map_err(|error| self.io(error))?;
        Ok(key)
    }

    fn remove(&self) -> Result<(), KekError> {
        let removed = std::fs::remove_file(&self.path).and_then(|()| self.sync_folder());
        removed.map_err(|error| self.io(error))
    }

    fn load(&self) -> Result<Option<Secret>, KekError> {
        let mut file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(self.io(error)),
        };
        if let Ok(metadata) = file.metadata()
            && metadata.permissions().mode() & 0o077 != 0
        {
            tracing::warn!(path = %self.path.display(), "others than its owner can read the key file");
        }
        let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX));
        let limit = KEY_FILE_BYTES_MAX as u64;
        io::Read::read_to_string(&mut io::Read::take(&mut file, limit), &mut text).map_err(|e| self.io(e))?;
        decode(&text).map(Some).map_err(|detail| KekError::Malformed { place: self.place(), detail })
    }

    /// The key, if it is there and opens `wrapped`.
    fn opens(&self, context: &[u8], wrapped: &[u8]) -> bool {
        matches!(self.load(), Ok(Some(key)) if open(&key, context, wrapped).is_some())
    }
}

/// Longest key file that is read.
const KEY_FILE_BYTES_MAX: usize = 1024;

impl KekProvider for KeyFile {
    fn place(&self) -> String {
        format!("key file {}", self.path.display())
    }

    fn prepare(&self) -> Result<(), KekError> {
        if self.load()?.is_none() {
            self.create()?;
            tracing::info!(path = %self.path.display(), "made a key file: without it nothing stored can be read");
        }
        Ok(())
    }

    fn wrap(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        let key = self.load()?.ok_or_else(|| KekError::Missing { place: self.place() })?;
        Ok(seal(&key, context, secret))
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Secret, KekError> {
        let own = self.load();
        if let Ok(Some(key)) = &own
            && let Some(secret) = open(key, context, wrapped)
        {
            return Ok(secret);
        }
        // A crash may have come before the new key took the place of the old one.
        if let Ok(Some(key)) = self.next().load()
            && let Some(secret) = open(&key, context, wrapped)
        {
            return Ok(secret);
        }
        match own? {
            Some(_) => Err(KekError::Wrong { place: self.place() }),
            None => Err(KekError::Missing { place: self.place() }),
        }
    }

    fn rotate(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        let next = self.next();
        // One that a failed rotation left may have wrapped a copy of the keyring: it is used, not replaced. One that does
        // not read was never used.
        let key = match next.load() {
            Ok(Some(key)) => key,
            Ok(None) => next.create()?,
            Err(KekError::Malformed { .. }) => {
                next.remove()?;
                next.create()?
            }
            Err(error) => return Err(error),
        };
        Ok(seal(&key, context, secret))
    }

    fn settle(&self, context: &[u8], wrapped: &[u8]) -> Result<(), KekError> {
        let next = self.next();
        if next.opens(context, wrapped) {
            let renamed = std::fs::rename(&next.path, &self.path).and_then(|()| self.sync_folder());
            renamed.map_err(|error| self.io(error))?;
            tracing::info!(path = %self.path.display(), "the new key stands in the key file: keep a copy of it elsewhere");
        } else if next.path.exists() && self.opens(context, wrapped) {
            next.remove()?;
        }
        Ok(())
    }
}

/// 64 hex digits in an environment variable.
#[derive(Debug, Clone)]
pub struct KeyEnv {
    name: String,
}

impl KeyEnv {
    /// In the variable `name`.
    #[must_use]
    pub fn new(name: impl Into<String>) -> Self {
        Self { name: name.into() }
    }

    fn load(&self) -> Result<Secret, KekError> {
        let Ok(text) = std::env::var(&self.name).map(Zeroizing::new) else {
            return Err(KekError::Missing { place: self.place() });
        };
        let malformed = KekError::Malformed { place: self.place(), detail: "expected 64 hex digits" };
        unhex(text.trim()).ok_or(malformed)
    }
}

impl KekProvider for KeyEnv {
    fn place(&self) -> String {
        format!("environment variable {}", self.name)
    }

    fn prepare(&self) -> Result<(), KekError> {
        self.load().map(|_| ())
    }

    fn wrap(&self, context: &[u8], secret: &Secret) -> Result<Vec<u8>, KekError> {
        Ok(seal(&self.load()?, context, secret))
    }

    fn unwrap(&self, context: &[u8], wrapped: &[u8]) -> Result<Secret, KekError> {
        open(&self.load()?, context, wrapped).ok_or_else(|| KekError::Wrong { place: self.place() })
    }

    fn rotate(&self, _: &[u8], _: &Secret) -> Result<Vec<u8>, KekError> {
        let detail = "no new key can be kept there: name a new key file";
        Err(KekError::Unsupported { place: self.place(), detail })
    }

    fn settle(&self, _: &[u8], _: &[u8]) -> Result<(), KekError> {
        Ok(())
    }
}

fn encode(key: &Secret) -> Zeroizing<String> {
    // Room for all of it: text that grew would leave what it was in memory, unwiped.
    let mut text = Zeroizing::new(String::with_capacity(KEY_FILE_BYTES_MAX));
    text.push_str("vidar-kek-1 ");
    for byte in key.bytes() {
        text.push(char::from(HEX[usize::from(byte >> 4)]));
        text.push(char::from(HEX[usize::from(byte & 15)]));
    }
    let crc = crc32c::crc32c(text.as_bytes());
    text.push_str(&format!(" {crc:08x}\n"));
    text
}

const HEX: &[u8; 16] = b"0123456789abcdef";

fn decode(text: &str) -> Result<Secret, &'static str> {
    let (body, crc) = text.trim_end().rsplit_once(' ').ok_or("expected one line: vidar-kek-1 KEY CRC")?;
    let key = body.strip_prefix("vidar-kek-1 ").ok_or("expected one line: vidar-kek-1 KEY CRC")?;
    if u32::from_str_radix(crc, 16) != Ok(crc32c::crc32c(body.as_bytes())) {
        return Err("the checksum does not match");
    }
    unhex(key).ok_or("expected 64 hex digits")
}

fn unhex(text: &str) -> Option<Secret> {
    let digits = text.as_bytes();
    if digits.len() != 64 {
        return None;
    }
    let mut key = Zeroizing::new([0_u8; 32]);
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    Some(Secret::new(*key))
}

#[cfg(test)]
#[path = "kek_tests.rs"]
mod tests;
