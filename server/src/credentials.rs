//! The root pair. Who is let in with it: `authenticator`.
//!
//! From `VIDAR_ROOT_ACCESS_KEY_ID` and `VIDAR_ROOT_SECRET_ACCESS_KEY`, else from a file of mode 0600 in the data
//! directory, which the first start makes. Access keys are alphanumeric: they stand in URLs.

use std::fmt;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use ring::rand::SecureRandom;
use zeroize::Zeroizing;

/// Its name in the data directory.
pub const FILE_NAME: &str = "root-credentials";
const ID_NAME: &str = "VIDAR_ROOT_ACCESS_KEY_ID";
const SECRET_NAME: &str = "VIDAR_ROOT_SECRET_ACCESS_KEY";
const ALPHABET: &[u8; 62] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789";
/// The longest names, id and secret, with room to spare.
const FILE_BYTES_MAX: usize = 1024;

/// An access key id and its secret.
#[derive(Clone)]
pub struct RootPair {
    /// Public half.
    pub access_key_id: String,
    /// Secret half.
    pub secret: Zeroizing<String>,
}

impl fmt::Debug for RootPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RootPair({}, ..)", self.access_key_id)
    }
}

/// Where a pair came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// The environment.
    Environment,
    /// The file in the data directory.
    File(PathBuf),
    /// Made just now, and kept in the file.
    Made(PathBuf),
}

impl RootPair {
    /// A new random pair: 20 and 40 characters.
    ///
    /// # Errors
    /// If the system gives no random bytes.
    pub fn random() -> anyhow::Result<Self> {
        Ok(Self { access_key_id: format!("VIDAR{}", random_text(15)?), secret: random_text(40)?.into() })
    }

    fn from_environment() -> anyhow::Result<Option<Self>> {
        match (std::env::var(ID_NAME), std::env::var(SECRET_NAME)) {
            (Ok(access_key_id), Ok(secret)) => Self { access_key_id, secret: secret.into() }.checked().map(Some),
            (Err(_), Err(_)) => Ok(None),
            _ => bail!("{ID_NAME} and {SECRET_NAME}: set both or none"),
        }
    }

    /// Reads the file.
    ///
    /// # Errors
    /// If it is not there, or not of its form.
    pub fn read(path: &Path) -> anyhow::Result<Self> {
        let text = Zeroizing::new(std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?);
        let value = |name: &str| {
            let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix('='));
            line.map(str::to_owned).with_context(|| format!("{}: no line {name}=", path.display()))
        };
        Self { access_key_id: value(ID_NAME)?, secret: value(SECRET_NAME)?.into() }.checked()
    }

    /// Writes the file, readable for its owner only, replacing what was there at once.
    ///
    /// # Errors
    /// If the file system refuses.
    pub fn write(&self, path: &Path) -> anyhow::Result<()> {
        // Room for all of it: text that grew would leave what it was in memory, unwiped.
        let mut text = Zeroizing::new(String::with_capacity(FILE_BYTES_MAX));
        for part in [ID_NAME, "=", &self.access_key_id, "\n", SECRET_NAME, "=", &self.secret, "\n"] {
            text.push_str(part);
        }
        replace_private(path, text.as_bytes())
    }

    fn checked(self) -> anyhow::Result<Self> {
        let good = |text: &str, len: std::ops::RangeInclusive<usize>| {
            len.contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_graphic() && byte != b':')
        };
        if !good(&self.access_key_id, 3..=128) || !good(&self.secret, 8..=256) {
            bail!(
                "root credentials: expected printable ASCII without ':', 3 to 128 characters for the id, 8 to 256 for the secret"
            );
        }
        Ok(self)
    }
}

/// Writes a file, readable for its owner only, replacing what was there at once and durably.
///
/// # Errors
/// If the file system refuses.
pub(crate) fn replace_private(path: &Path, bytes: &[u8]) -> anyhow::Result<()> {
    let temporary = path.with_extension("new");
    // One left by a crash keeps its old mode if it is only truncated.
    let _ = std::fs::remove_file(&temporary);
    let context = || format!("write {}", temporary.display());
    let mut file =
        std::fs::OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary).with_context(context)?;
    file.write_all(bytes).with_context(context)?;
    file.sync_all().with_context(context)?;
    std::fs::rename(&temporary, path).with_context(|| format!("rename to {}", path.display()))?;
    let folder = path.parent().unwrap_or(Path::new("."));
    std::fs::File::open(folder)
        .and_then(|folder| folder.sync_all())
        .with_context(|| format!("sync {}", folder.display()))
}

/// Letters and digits, each as likely.
pub(crate) fn random_text(len: usize) -> anyhow::Result<String> {
    let random = ring::rand::SystemRandom::new();
    let mut text = String::with_capacity(len);
    while text.len() < len {
        let mut bytes = Zeroizing::new([0; 64]);
        random.fill(&mut *bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
        // 248 = 4 * 62: without the bytes above it every character is equally likely.
        let characters =
            bytes.iter().filter(|byte| **byte < 248).map(|byte| char::from(ALPHABET[usize::from(byte % 62)]));
        text.extend(characters.take(len - text.len()));
    }
    Ok(text)
}

/// The root pair of a data directory.
///
/// # Errors
/// If it cannot be read, or made.
pub fn load(data_dir: &Path) -> anyhow::Result<(RootPair, Origin)> {
    if let Some(pair) = RootPair::from_environment()? {
        return Ok((pair, Origin::Environment));
    }
    let path = data_dir.join(FILE_NAME);
    if path.exists() {
        return Ok((RootPair::read(&path)?, Origin::File(path)));
    }
    let pair = RootPair::random()?;
    pair.write(&path)?;
    Ok((pair, Origin::Made(path)))
}

/// The root pair as it stands now. Makes none: a file that is gone is an error.
///
/// # Errors
/// If it cannot be read.
pub fn reload(data_dir: &Path) -> anyhow::Result<RootPair> {
    RootPair::from_environment()?.map_or_else(|| RootPair::read(&data_dir.join(FILE_NAME)), Ok)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[test]
    fn the_file_is_for_its_owner_only_and_reads_back() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(FILE_NAME);
        let pair = RootPair::random().unwrap();
        pair.write(&path).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let read = RootPair::read(&path).unwrap();
        assert_eq!((read.access_key_id.len(), read.secret.len()), (20, 40));
        assert_eq!(read.secret, pair.secret);
        assert!(!format!("{pair:?}").contains(pair.secret.as_str()));
        std::fs::write(&path, "nonsense").unwrap();
        assert!(RootPair::read(&path).is_err());
    }
}
