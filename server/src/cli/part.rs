//! A file that is there whole or not at all.

use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use anyhow::Context;
use ring::digest::{self, SHA256};

/// Written beside its name, and renamed once it is whole and synced. Removed if it is dropped before.
pub(crate) struct PartFile {
    to: PathBuf,
    part: PathBuf,
    file: Option<BufWriter<File>>,
    hash: digest::Context,
}

impl PartFile {
    pub(crate) fn create(to: &Path) -> anyhow::Result<Self> {
        let mut part = to.to_owned().into_os_string();
        part.push(".part");
        let part = PathBuf::from(part);
        let file = File::create(&part).with_context(|| format!("create {}", part.display()))?;
        let (file, hash) = (Some(BufWriter::new(file)), digest::Context::new(&SHA256));
        Ok(Self { to: to.to_owned(), part, file, hash })
    }

    /// Syncs and renames it. Returns the SHA-256 of its bytes, in hex.
    pub(crate) fn finish(mut self) -> anyhow::Result<String> {
        let file = self.file.take().context("the file is open until here")?;
        let written = file.into_inner().map_err(io::IntoInnerError::into_error).and_then(|file| file.sync_all());
        let renamed = written.and_then(|()| fs::rename(&self.part, &self.to)).and_then(|()| {
            let folder = self.to.parent().filter(|folder| !folder.as_os_str().is_empty());
            File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
        });
        renamed.with_context(|| format!("write {}", self.to.display()))?;
        Ok(hex(&self.hash.clone().finish()))
    }
}

impl Write for PartFile {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let file = self.file.as_mut().ok_or(io::ErrorKind::BrokenPipe)?;
        file.write_all(bytes)?;
        self.hash.update(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.file.as_mut().map_or(Ok(()), Write::flush)
    }
}

impl Drop for PartFile {
    fn drop(&mut self) {
        // Not there any more once it was renamed.
        let _ = fs::remove_file(&self.part);
    }
}

/// A digest in hex.
pub(crate) fn hex(digest: &digest::Digest) -> String {
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
