//! The file `access-keys` in the data directory: layout in `docs/formats/access-keys.md`.

use std::path::Path;

use anyhow::{Context, bail};
use serde::{Deserialize, Serialize};
use zeroize::Zeroizing;

use super::AccessKey;
use super::sealed::Sealer;
use crate::credentials::replace_private;

const MAGIC: &[u8; 8] = b"VIDARACK";
const FORMAT_VERSION: u16 = 1;
const HEAD_LEN: usize = 24;
/// Room for the most keys with the longest policies is less.
const FILE_BYTES_MAX: u64 = 256 << 20;

#[derive(Serialize, Deserialize)]
struct Contents<K> {
    keys: K,
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
        Ok(metadata) if metadata.len() > FILE_BYTES_MAX => bail!("{}: too long", path.display()),
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
    let contents: Contents<Vec<AccessKey>> = serde_json::from_slice(&plain).with_context(context)?;
    Ok(contents.keys)
}

/// Replaces it, durably and at once.
pub(super) fn write(path: &Path, sealer: &Sealer, keys: &[&AccessKey]) -> anyhow::Result<()> {
    let plain = Zeroizing::new(serde_json::to_vec(&Contents { keys }).context("encode the access keys")?);
    let head = head();
    let file = [&head[..], &sealer.seal(&head, &plain)?].concat();
    replace_private(path, &file)
}
