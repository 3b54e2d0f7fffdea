//! Reading a closed file from its end, without its media.

use std::io;

use vidar_core::ids::FileId;
use vidar_core::wire::WireError;

use super::BLOCK_LEN;
use super::footer::{self, RecordEntry, TRAILER_LEN, Trailer};
use super::header::HEADER_LEN;
use crate::backend::SegmentHandle;
use crate::crypto::keys::Secret;

/// Why a footer does not read.
#[derive(Debug, thiserror::Error)]
pub(crate) enum FooterError {
    #[error(transparent)]
    Io(#[from] io::Error),
    #[error("footer: {0}")]
    Wire(#[from] WireError),
}

/// What a closed file says is in it.
pub(crate) struct Footer {
    pub(crate) trailer: Trailer,
    pub(crate) entries: Vec<RecordEntry>,
    copies: Vec<u8>,
}

impl Footer {
    /// Entries with the sealed heads that the footer repeats.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&RecordEntry, Option<&[u8]>)> {
        let mut rest = &self.copies[..];
        self.entries.iter().map(move |entry| {
            let copy = entry.has_copy().then(|| {
                let (copy, after) = rest.split_at_checked(entry.shape.head_len() as usize)?;
                rest = after;
                Some(copy)
            });
            (entry, copy.flatten())
        })
    }
}

/// Reads `len` bytes at `offset`; `len` was checked against the file.
pub(crate) fn read(handle: &dyn SegmentHandle, offset: u64, len: usize) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; len];
    handle.read_at(offset, &mut bytes)?;
    Ok(bytes)
}

/// The trailer, if the file was closed.
pub(crate) fn read_trailer(handle: &dyn SegmentHandle, file: FileId) -> io::Result<Option<Trailer>> {
    let len = handle.len()?;
    if len < HEADER_LEN as u64 + BLOCK_LEN || len % BLOCK_LEN != 0 {
        return Ok(None);
    }
    let bytes = read(handle, len - TRAILER_LEN as u64, TRAILER_LEN)?;
    Ok(Trailer::decode(&bytes, file, len).ok())
}

/// The entries only.
pub(crate) fn read_entries(
    handle: &dyn SegmentHandle,
    trailer: &Trailer,
    log_key: &Secret,
) -> Result<Vec<RecordEntry>, FooterError> {
    let sealed = read(handle, trailer.entries_offset, trailer.entries_len as usize)?;
    if crc32c::crc32c(&sealed) != trailer.entries_crc {
        return Err(WireError { expected: "the checksum of the entries", offset: 0 }.into());
    }
    Ok(footer::open_entries(log_key, trailer, sealed)?)
}

/// Entries and copies of heads.
pub(crate) fn read_footer(
    handle: &dyn SegmentHandle,
    trailer: Trailer,
    log_key: &Secret,
) -> Result<Footer, FooterError> {
    let entries = read_entries(handle, &trailer, log_key)?;
    let copies = read(handle, trailer.copies_offset, trailer.copies_len as usize)?;
    let copied = entries.iter().filter(|entry| entry.has_copy()).map(|entry| u64::from(entry.shape.head_len()));
    if crc32c::crc32c(&copies) != trailer.copies_crc || copied.sum::<u64>() != trailer.copies_len {
        return Err(WireError { expected: "the checksum of the copied heads", offset: 0 }.into());
    }
    Ok(Footer { trailer, entries, copies })
}
