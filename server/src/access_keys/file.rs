//! The file `access-keys` in the data directory: layout in `docs/formats/access-keys.md`.

use std::io::{self, Write};
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use vidar_core::policy::Policy;
use zeroize::Zeroizing;

use super::sealed::{OVERHEAD_LEN, Sealer};
use super::{AccessKey, KeysError};
use crate::credentials::replace_private;

const MAGIC: &[u8; 8] = b"VIDARACK";
const FORMAT_VERSION: u16 = 1;
const HEAD_LEN: usize = 24;
/// Room for the most keys with policies of some kilobytes. A longer file is neither written nor read.
const FILE_BYTES_MAX: usize = 64 << 20;

#[derive(Serialize, Deserialize)]
struct Contents {
    keys: Vec<Stored>,
}

/// An access key as it stands in the file, and nowhere else: it shows its secret.
#[derive(Serialize, Deserialize)]
struct Stored {
    access_key_id: String,
    #[serde(with = "secret_text")]
    secret: Zeroizing<String>,
    name: String,
    #[serde(with = "shared_policy")]
    policy: Arc<Policy>,
    enabled: bool,
    created_ms: i64,
    expires_ms: Option<i64>,
    used_ms: Option<i64>,
}

impl From<AccessKey> for Stored {
    fn from(key: AccessKey) -> Self {
        let AccessKey { access_key_id, secret, name, policy, enabled, created_ms, expires_ms, used_ms } = key;
        Self { access_key_id, secret, name, policy, enabled, created_ms, expires_ms, used_ms }
    }
}

impl From<Stored> for AccessKey {
    fn from(key: Stored) -> Self {
        let Stored { access_key_id, secret, name, policy, enabled, created_ms, expires_ms, used_ms } = key;
        Self { access_key_id, secret, name, policy, enabled, created_ms, expires_ms, used_ms }
    }
}

mod secret_text {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    pub(super) fn serialize<S: Serializer>(secret: &Zeroizing<String>, to: S) -> Result<S::Ok, S::Error> {
        to.serialize_str(secret)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(from).map(Zeroizing::new)
    }
}

mod shared_policy {
    use std::sync::Arc;

    use serde::{Deserialize, Deserializer, Serialize, Serializer};
    use vidar_core::policy::Policy;

    pub(super) fn serialize<S: Serializer>(policy: &Arc<Policy>, to: S) -> Result<S::Ok, S::Error> {
        Policy::serialize(policy, to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Arc<Policy>, D::Error> {
        Policy::deserialize(from).map(Arc::new)
    }
}

fn head() -> [u8; HEAD_LEN] {
    let mut head = [0; HEAD_LEN];
    head[..8].copy_from_slice(MAGIC);
    head[8..10].copy_from_slice(&FORMAT_VERSION.to_be_bytes());
    head
}

/// Reads it; no file: no keys.
///
/// # Errors
/// If it is there and does not open: it is never replaced by an empty one.
pub(super) fn read(path: &Path, sealer: &Sealer) -> anyhow::Result<Vec<AccessKey>> {
    let context = || format!("read {}", path.display());
    let bytes = match std::fs::metadata(path) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(error).with_context(context),
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX as u64 => bail!("{}: too long", path.display()),
        Ok(_) => std::fs::read(path).with_context(context)?,
    };
    let Some((found, sealed)) = bytes.split_at_checked(HEAD_LEN).filter(|(found, _)| found[..8] == MAGIC[..]) else {
        bail!("{}: no file of access keys", path.display());
    };
    // Compatible features may be set: they are for others. The two words after it may not.
    let version = u16::from_be_bytes([found[8], found[9]]);
    if version != FORMAT_VERSION || found[16..].iter().any(|byte| *byte != 0) {
        bail!("{}: of version {version} or with features that are not known here", path.display());
    }
    let plain = sealer.open(found, sealed);
    let plain = plain.with_context(|| format!("{}: damaged, or of another data directory", path.display()))?;
    let contents: Contents = serde_json::from_slice(&plain).with_context(context)?;
    Ok(contents.keys.into_iter().map(AccessKey::from).collect())
}

/// Replaces it, durably and at once.
pub(super) fn write<'a>(
    path: &Path,
    sealer: &Sealer,
    keys: impl Iterator<Item = &'a AccessKey>,
) -> Result<(), KeysError> {
    let plain = encode(&Contents { keys: keys.cloned().map(Stored::from).collect() })?;
    if HEAD_LEN + OVERHEAD_LEN + plain.len() > FILE_BYTES_MAX {
        return Err(KeysError::Full);
    }
    let head = head();
    let file = [&head[..], &sealer.seal(&head, &plain)?].concat();
    Ok(replace_private(path, &file)?)
}

/// Counts first: a buffer that grew would leave secrets in memory, unwiped.
fn encode(contents: &Contents) -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let mut len = Count(0);
    serde_json::to_writer(&mut len, contents).context("encode the access keys")?;
    let mut plain = Zeroizing::new(Vec::with_capacity(len.0));
    serde_json::to_writer(&mut *plain, contents).context("encode the access keys")?;
    Ok(plain)
}

struct Count(usize);

impl Write for Count {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0 += bytes.len();
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(number: usize) -> AccessKey {
        AccessKey {
            access_key_id: format!("VIDAK{number}"),
            secret: "s3cret".to_owned().into(),
            name: "ü".repeat(100),
            policy: Arc::new(Policy::all()),
            enabled: true,
            created_ms: 1,
            expires_ms: None,
            used_ms: Some(2),
        }
    }

    #[test]
    fn what_is_encoded_never_moves() {
        let plain = encode(&Contents { keys: (0..100).map(|number| Stored::from(key(number))).collect() }).unwrap();
        assert_eq!(plain.len(), plain.capacity());
    }

    #[test]
    fn a_file_that_would_not_be_read_is_not_written() {
        let dir = tempfile::tempdir().unwrap();
        let (path, sealer) = (dir.path().join("keys"), Sealer::new(&[1; 32], b"test"));
        let one = key(0);
        write(&path, &sealer, std::iter::once(&one)).unwrap();
        let before = std::fs::read(&path).unwrap();
        let long = AccessKey { name: "x".repeat(FILE_BYTES_MAX), ..key(1) };
        assert!(matches!(write(&path, &sealer, [&one, &long].into_iter()), Err(KeysError::Full)));
        assert_eq!(std::fs::read(&path).unwrap(), before);
        assert_eq!(read(&path, &sealer).unwrap().len(), 1);
    }
}
