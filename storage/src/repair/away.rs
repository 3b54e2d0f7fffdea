//! Putting a file away that another one holds all good records of.

use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;

use super::Disposal;
use crate::backend::SegmentIo;
use crate::segment_file::reader;

/// Bytes that are copied at once where a file cannot be renamed.
const COPY_BYTES: u64 = 1 << 20;

/// Puts a file away that another holds all good records of.
pub(super) fn put_away(io: &dyn SegmentIo, disposal: &Disposal, name: &str) -> io::Result<()> {
    if let Disposal::Quarantine(folder) = disposal
        && !moved(io, name, folder)?
    {
        copy_out(io, name, &folder.join(name))?;
    }
    match io.unlink(name) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    io.sync_dir()
}

/// Renames the file into a folder. False where that cannot be: it stands on another disk, or on none.
fn moved(io: &dyn SegmentIo, name: &str, folder: &Path) -> io::Result<bool> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(folder)?;
    let Some(path) = io.path(name) else { return Ok(false) };
    match fs::rename(path, folder.join(name)) {
        Ok(()) => fs::File::open(folder)?.sync_all().map(|()| true),
        Err(error) if error.kind() == io::ErrorKind::CrossesDevices => Ok(false),
        Err(error) => Err(error),
    }
}

/// Copies a file; what cannot be read becomes zeros.
fn copy_out(io: &dyn SegmentIo, name: &str, to: &Path) -> io::Result<()> {
    let handle = io.open(name)?;
    let mut out = fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(to)?;
    let (len, mut at) = (handle.len()?, 0);
    while at < len {
        let take = COPY_BYTES.min(len - at);
        let bytes = reader::read(&*handle, at, take as usize).or_else(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => Err(error),
            _ => Ok(vec![0; take as usize]),
        })?;
        out.write_all(&bytes)?;
        at += take;
    }
    out.sync_all()?;
    to.parent().map_or(Ok(()), |folder| fs::File::open(folder)?.sync_all())
}
