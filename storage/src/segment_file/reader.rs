//! Reading a closed file from its end, without its media.

use std::io;

use vidar_core::ids::FileId;
use vidar_core::wire::WireError;

use super::BLOCK_LEN;
use super::footer::{self, RecordEntry, TRAILER_LEN, Trailer};
use super::header::HEADER_LEN;
use crate::backend::SegmentHandle;
use crate::crypto::keys::Secret;

/// Bytes at the end of a file that are read at once.
const TAIL_LEN: u64 = 32 << 10;

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
    /// `bytes`: from where the copies begin to behind the entries, or longer.
    fn open(trailer: Trailer, mut bytes: Vec<u8>, log_key: &Secret) -> Result<Self, FooterError> {
        let wrong = |expected| WireError { expected, offset: 0 };
        if (bytes.len() as u64) < trailer.copies_len + trailer.entries_len {
            return Err(wrong("a footer that is there").into());
        }
        let mut sealed = bytes.split_off(trailer.copies_len as usize);
        sealed.truncate(trailer.entries_len as usize);
        let entries = open_entries(&trailer, sealed, log_key)?;
        let copied = entries.iter().filter(|entry| entry.has_copy()).map(|entry| u64::from(entry.shape.head_len()));
        if crc32c::crc32c(&bytes) != trailer.copies_crc || copied.sum::<u64>() != trailer.copies_len {
            return Err(wrong("the checksum of the copied heads").into());
        }
        Ok(Self { trailer, entries, copies: bytes })
    }

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

/// A closed file may be so long.
fn may_be_closed(len: u64) -> bool {
    len >= HEADER_LEN as u64 + BLOCK_LEN && len.is_multiple_of(BLOCK_LEN)
}

/// The trailer, if the file was closed.
pub(crate) fn read_trailer(handle: &dyn SegmentHandle, file: FileId) -> io::Result<Option<Trailer>> {
    let len = handle.len()?;
    if !may_be_closed(len) {
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
    open_entries(trailer, read(handle, trailer.entries_offset, trailer.entries_len as usize)?, log_key)
}

fn open_entries(trailer: &Trailer, sealed: Vec<u8>, log_key: &Secret) -> Result<Vec<RecordEntry>, FooterError> {
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
    let len = trailer.copies_len + trailer.entries_len;
    let bytes = read(handle, trailer.copies_offset, len as usize)?;
    Footer::open(trailer, bytes, log_key)
}

/// Trailer and footer of a file that was closed, in one read if they are short.
///
/// # Errors
/// If it cannot be read. That the footer does not is said in its place.
pub(crate) fn read_closed(
    handle: &dyn SegmentHandle,
    file: FileId,
    log_key: &Secret,
) -> io::Result<Option<(Trailer, Result<Footer, FooterError>)>> {
    let len = handle.len()?;
    if !may_be_closed(len) {
        return Ok(None);
    }
    let tail_at = len.saturating_sub(TAIL_LEN);
    let tail = read(handle, tail_at, (len - tail_at) as usize).unwrap_or_default();
    let trailer = match tail.last_chunk::<TRAILER_LEN>() {
        Some(bytes) => Trailer::decode(bytes, file, len).ok(),
        // One bad sector of it is no reason to look at nothing.
        None => read_trailer(handle, file)?,
    };
    let Some(trailer) = trailer else { return Ok(None) };
    let start = trailer.copies_offset.checked_sub(tail_at).map(|start| start as usize);
    let footer = match start.and_then(|start| tail.get(start..)) {
        Some(bytes) => Footer::open(trailer, bytes.to_vec(), log_key),
        None => read_footer(handle, trailer, log_key),
    };
    Ok(Some((trailer, footer)))
}
