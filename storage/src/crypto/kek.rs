//! Where the key comes from that opens the keyring.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use zeroize::{Zeroize, Zeroizing};

use crate::crypto::keys::Secret;

/// Why there is no key.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum KekError {
    /// The provider does not answer.
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
    /// This provider makes no keys.
    #[error("{place} is not set")]
    Missing {
        /// What was looked for.
        place: String,
    },
}

/// Gives the key that wraps the keyring secret.
pub trait KekProvider: Send + Sync + fmt::Debug {
    /// Where the key is expected, for messages.
    fn place(&self) -> String;

    /// The key; none if there is none yet.
    ///
    /// # Errors
    /// If it cannot be read.
    fn load(&self) -> Result<Option<Secret>, KekError>;

    /// Makes a key, durable before this returns. Called only where there is no keyring and `load` gave none.
    ///
    /// # Errors
    /// If the provider makes no keys, or cannot keep one.
    fn create(&self) -> Result<Secret, KekError>;
}

/// A key in a file of mode 0600: one line, `vidar-kek-1 KEY CRC`.
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
        let clean: PathBuf = data_dir.components().collect();
        let mut name = clean.into_os_string();
        name.push(".key");
        Self::new(name)
    }

    fn io(&self, source: io::Error) -> KekError {
        KekError::Io { place: self.place(), source }
    }

    fn write(&self, key: &Secret) -> io::Result<()> {
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&self.path)?;
        file.write_all(encode(key).as_bytes())?;
        file.sync_all()?;
        let parent = self.path.parent().filter(|parent| !parent.as_os_str().is_empty());
        File::open(parent.unwrap_or(Path::new(".")))?.sync_all()
    }
}

impl KekProvider for KeyFile {
    fn place(&self) -> String {
        format!("key file {}", self.path.display())
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
        let mut text = Zeroizing::new(String::new());
        let limit = 1024;
        io::Read::read_to_string(&mut io::Read::take(&mut file, limit), &mut text).map_err(|e| self.io(e))?;
        decode(&text).map(Some).map_err(|detail| KekError::Malformed { place: self.place(), detail })
    }

    fn create(&self) -> Result<Secret, KekError> {
        let key = Secret::random();
        self.write(&key).map_err(|error| self.io(error))?;
        tracing::info!(path = %self.path.display(), "made a key file: without it nothing stored can be read");
        Ok(key)
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
}

impl KekProvider for KeyEnv {
    fn place(&self) -> String {
        format!("environment variable {}", self.name)
    }

    fn load(&self) -> Result<Option<Secret>, KekError> {
        let Ok(text) = std::env::var(&self.name).map(Zeroizing::new) else { return Ok(None) };
        let malformed = KekError::Malformed { place: self.place(), detail: "expected 64 hex digits" };
        unhex(text.trim()).map(Some).ok_or(malformed)
    }

    fn create(&self) -> Result<Secret, KekError> {
        Err(KekError::Missing { place: self.place() })
    }
}

fn encode(key: &Secret) -> Zeroizing<String> {
    let mut text = Zeroizing::new(String::from("vidar-kek-1 "));
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
    let mut key = [0_u8; 32];
    for (byte, pair) in key.iter_mut().zip(digits.chunks_exact(2)) {
        let digit = |c: u8| char::from(c).to_digit(16);
        *byte = u8::try_from(digit(pair[0])? << 4 | digit(pair[1])?).ok()?;
    }
    let secret = Secret::new(key);
    key.zeroize();
    Some(secret)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_file_is_private_made_once_and_checked() {
        let dir = tempfile::tempdir().unwrap();
        let provider = KeyFile::beside(&dir.path().join("data/"));
        let path = dir.path().join("data.key");
        assert!(provider.load().unwrap().is_none());
        let key = provider.create().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(provider.load().unwrap(), Some(key));
        assert!(provider.create().is_err(), "an existing key is never replaced");
        let mut text = std::fs::read_to_string(&path).unwrap();
        let digit = if &text[12..13] == "0" { "1" } else { "0" };
        text.replace_range(12..13, digit);
        std::fs::write(&path, text).unwrap();
        assert!(provider.load().unwrap_err().to_string().contains("data.key"));
    }

    #[test]
    fn every_truncation_of_a_key_is_refused() {
        let text = encode(&Secret::random());
        assert!(decode(&text).is_ok());
        for len in 0..text.len() - 1 {
            assert!(decode(&text[..len]).is_err(), "{len}");
        }
        assert!(unhex(&"g".repeat(64)).is_none());
        assert!(KeyEnv::new("VIDAR_TEST_NO_SUCH_KEY").load().unwrap().is_none());
        assert!(KeyEnv::new("VIDAR_TEST_NO_SUCH_KEY").create().is_err());
    }
}
