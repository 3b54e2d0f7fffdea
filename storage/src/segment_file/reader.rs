//! Reading a closed file from its end, without its media.

use std::io;
use std::ops::Range;

use vidar_core::ids::FileId;
use vidar_core::wire::WireError;

use super::BLOCK_LEN;
use super::footer::{self, ENTRY_LEN_MIN, RecordEntry, TRAILER_LEN, Trailer};
use super::header::HEADER_LEN;
use super::record::RecordKind;
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

/// Which entries of a footer are kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wanted {
    All,
    /// Those of control records. All the same, all of it is checked.
    Controls,
}

/// What a closed file says is in it.
pub(crate) struct Footer {
    pub(crate) trailer: Trailer,
    /// Those that were wanted.
    pub(crate) entries: Vec<RecordEntry>,
    /// Of these.
    copies: Vec<u8>,
    /// Sequence of the smallest number of a record that is not of control, wanted or not.
    pub(crate) first: Option<u64>,
}

impl Footer {
    /// `bytes`: from where the copies begin to behind the entries, or longer.
    fn open(trailer: Trailer, mut bytes: Vec<u8>, log_key: &Secret, wanted: Wanted) -> Result<Self, FooterError> {
        let wrong = |expected| WireError { expected, offset: 0 };
        if (bytes.len() as u64) < trailer.copies_len + trailer.entries_len {
            return Err(wrong("a footer that is there").into());
        }
        let mut sealed = bytes.split_off(trailer.copies_len as usize);
        sealed.truncate(trailer.entries_len as usize);
        let (mut entries, mut copies, mut copies_len, mut first) = (Vec::new(), Vec::new(), 0_u64, None::<u64>);
        if wanted == Wanted::All {
            // What the trailer says is not believed before it is there.
            entries.reserve_exact((trailer.entry_count as usize).min(sealed.len() / ENTRY_LEN_MIN));
        }
        open_entries(&trailer, sealed, log_key, wanted == Wanted::All, |entry| {
            let copy_at = copies_len;
            if entry.has_copy() {
                copies_len += u64::from(entry.shape.head_len());
            }
            let is_control = entry.shape.kind == RecordKind::Control;
            if !is_control {
                let sequence = entry.shape.meta.number.sequence();
                first = Some(first.map_or(sequence, |first| first.min(sequence)));
            }
            if wanted == Wanted::All {
                entries.push(entry);
            } else if is_control {
                let copy = bytes.get(copy_at as usize..copies_len as usize);
                copies.extend_from_slice(copy.unwrap_or_default());
                entries.push(entry);
            }
        })?;
        if crc32c::crc32c(&bytes) != trailer.copies_crc || copies_len != trailer.copies_len {
            return Err(wrong("the checksum of the copied heads").into());
        }
        let copies = if wanted == Wanted::All { bytes } else { copies };
        Ok(Self { trailer, entries, copies, first })
    }

    /// About how many bytes of memory it takes.
    pub(crate) fn weight(&self) -> usize {
        self.entries.capacity() * size_of::<RecordEntry>() + self.copies.capacity()
    }

    /// Entries with the sealed heads that the footer repeats.
    pub(crate) fn records(&self) -> impl Iterator<Item = (&RecordEntry, Option<&[u8]>)> {
        let mut end = 0;
        let mut copy = move |entry| next_copy(&mut end, entry).and_then(|copy| self.copies.get(copy));
        self.entries.iter().map(move |entry| (entry, copy(entry)))
    }

    /// The same, one after the other; heads may be opened in place.
    pub(crate) fn for_each(mut self, mut each: impl FnMut(RecordEntry, Option<&mut [u8]>)) {
        let mut end = 0;
        for entry in self.entries {
            let copy = next_copy(&mut end, &entry);
            each(entry, copy.and_then(|copy| self.copies.get_mut(copy)));
        }
    }
}

/// Where the head of a record stands among the copies, `end` behind the one before.
fn next_copy(end: &mut usize, entry: &RecordEntry) -> Option<Range<usize>> {
    if !entry.has_copy() {
        return None;
    }
    let start = *end;
    *end += entry.shape.head_len() as usize;
    Some(start..*end)
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
    let sealed = read(handle, trailer.entries_offset, trailer.entries_len as usize)?;
    let mut entries = Vec::new();
    open_entries(trailer, sealed, log_key, true, |entry| entries.push(entry))?;
    Ok(entries)
}

fn open_entries(
    trailer: &Trailer,
    sealed: Vec<u8>,
    log_key: &Secret,
    with_summaries: bool,
    each: impl FnMut(RecordEntry),
) -> Result<(), FooterError> {
    if crc32c::crc32c(&sealed) != trailer.entries_crc {
        return Err(WireError { expected: "the checksum of the entries", offset: 0 }.into());
    }
    Ok(footer::open_entries(log_key, trailer, sealed, with_summaries, each)?)
}

/// Entries and copies of heads.
pub(crate) fn read_footer(
    handle: &dyn SegmentHandle,
    trailer: Trailer,
    log_key: &Secret,
    wanted: Wanted,
) -> Result<Footer, FooterError> {
    let len = trailer.copies_len + trailer.entries_len;
    let bytes = read(handle, trailer.copies_offset, len as usize)?;
    Footer::open(trailer, bytes, log_key, wanted)
}

/// Trailer and footer of a file that was closed, in one read if they are short.
///
/// # Errors
/// If it cannot be read. That the footer does not is said in its place.
pub(crate) fn read_closed(
    handle: &dyn SegmentHandle,
    file: FileId,
    log_key: &Secret,
    wanted: Wanted,
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
        Some(bytes) => Footer::open(trailer, bytes.to_vec(), log_key, wanted),
        None => read_footer(handle, trailer, log_key, wanted),
    };
    Ok(Some((trailer, footer)))
}
