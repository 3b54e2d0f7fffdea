//! Writing a segment file: batches, then the footer.

use std::io;
use std::ops::Range;
use std::sync::Arc;

use vidar_core::time::UnixMs;

use super::batch::{BATCH_HEADER_LEN, BatchHeader, payload_crc};
use super::footer::{self, RecordEntry, Summary};
use super::header::{FileHeader, HEADER_LEN, file_name};
use super::record::{self, Content, RecordHeader, RecordShape};
use super::{BLOCK_LEN, PADDING_MAGIC, align_up};
use crate::backend::blocks::Blocks;
use crate::backend::{SegmentHandle, SegmentIo};
use crate::crypto::keys::{Secret, random};

/// The buffer of a batch is given back above this.
const BUFFER_LEN_MAX: usize = 32 << 20;

/// An open file.
pub(crate) struct Writer {
    pub(crate) header: FileHeader,
    pub(crate) handle: Arc<dyn SegmentHandle>,
    /// Where the next batch goes; everything before it is synced.
    offset: u64,
    sequence: u64,
    pub(crate) archive: UnixMs,
    /// The batch that is being filled.
    buffer: Blocks,
    /// Checksum of its payload up to `crc_end`.
    crc: u32,
    crc_end: usize,
    pending: Vec<RecordEntry>,
    pending_copies: Vec<u8>,
    /// Bytes of it that were written, and not yet synced.
    written: u64,
    /// What the footer will say.
    entries: Vec<RecordEntry>,
    copies: Vec<u8>,
}

impl Writer {
    /// A new file; it and its name are synced when this returns.
    pub(crate) fn create(io: &dyn SegmentIo, header: FileHeader, len: u64) -> io::Result<Self> {
        let name = file_name(header.epoch, header.file);
        let handle = io.create(&name, len)?;
        let prepare = || {
            handle.write_blocks(0, &Blocks::from(&header.encode()[..]))?;
            handle.sync_data()?;
            io.sync_dir()
        };
        if let Err(error) = prepare() {
            // Nothing is in it; what cannot be removed now is removed at the next start.
            let _ = io.unlink(&name);
            return Err(error);
        }
        Ok(Self {
            handle,
            offset: HEADER_LEN as u64,
            sequence: 0,
            archive: header.archive,
            header,
            buffer: Blocks::default(),
            crc: 0,
            crc_end: 0,
            pending: Vec::new(),
            pending_copies: Vec::new(),
            written: 0,
            entries: Vec::new(),
            copies: Vec::new(),
        })
    }

    pub(crate) fn name(&self) -> String {
        file_name(self.header.epoch, self.header.file)
    }

    /// Memory for batches goes from file to file. Not within a batch.
    pub(crate) fn swap_buffer(&mut self, buffer: &mut Blocks) {
        std::mem::swap(&mut self.buffer, buffer);
    }

    /// End of what is synced.
    pub(crate) fn durable_through(&self) -> u64 {
        self.offset
    }

    /// Bytes that the footer will repeat.
    pub(crate) fn copies_len(&self) -> usize {
        self.copies.len()
    }

    /// Everything that is synced.
    pub(crate) fn entries(&self) -> &[RecordEntry] {
        &self.entries
    }

    /// Begins a batch.
    pub(crate) fn begin(&mut self) {
        self.buffer.clear(BUFFER_LEN_MAX);
        self.buffer.resize(BATCH_HEADER_LEN);
        self.crc = payload_crc(self.header.file, self.sequence, &[]);
        self.crc_end = BATCH_HEADER_LEN;
        self.pending.clear();
        self.pending_copies.clear();
    }

    /// Seals a record into the batch. The lengths in `shape` are set from `content`.
    pub(crate) fn push(
        &mut self,
        mut shape: RecordShape,
        outer: &Secret,
        content: &Content<'_>,
        summary: Option<Summary>,
    ) -> RecordEntry {
        shape.facts_len = u32::try_from(content.facts.len()).expect("checked against the bound");
        shape.table_len = u32::try_from(content.table.len()).expect("checked against the bound");
        shape.media_len = content.media.iter().map(|bytes| bytes.len() as u64).sum();
        let offset = self.place(&shape);
        record::seal(&mut self.buffer, &RecordHeader { shape, salt: random() }, outer, content);
        self.pushed(RecordEntry { shape, offset, summary })
    }

    /// Puts a record of another file into the batch, as it is. `entry` is its entry there.
    pub(crate) fn copy(&mut self, entry: &RecordEntry, sealed: &[u8]) -> RecordEntry {
        let offset = self.place(&entry.shape);
        self.buffer.extend_from_slice(sealed);
        self.pushed(RecordEntry { offset, ..entry.clone() })
    }

    /// Bytes that wait in the batch.
    pub(crate) fn pending_len(&self) -> usize {
        self.buffer.len()
    }

    /// Fills the batch up to where a record of this shape goes: its offset.
    fn place(&mut self, shape: &RecordShape) -> u64 {
        let end = align_up(self.buffer.len() as u64, 8);
        let offset = shape.place(self.offset + end);
        let start = (offset - self.offset) as usize;
        self.buffer.resize(end as usize);
        if let Some(padding) = (start as u64).checked_sub(end).filter(|len| *len > 0) {
            self.buffer.extend_from_slice(PADDING_MAGIC);
            self.buffer.extend_from_slice(&(padding as u32).to_be_bytes());
            self.buffer.resize(start);
        }
        offset
    }

    fn pushed(&mut self, entry: RecordEntry) -> RecordEntry {
        // While the record is in the processor's cache.
        self.crc = crc32c::crc32c_append(self.crc, &self.buffer[self.crc_end..]);
        self.crc_end = self.buffer.len();
        let start = (entry.offset - self.offset) as usize;
        if entry.has_copy() {
            self.pending_copies.extend_from_slice(&self.buffer[start..start + entry.shape.head_len() as usize]);
        }
        self.pending.push(entry.clone());
        entry
    }

    /// Writes and syncs the batch. After an error the file must not be used any more.
    pub(crate) fn commit(&mut self, archive: UnixMs) -> io::Result<()> {
        self.write(archive)?;
        self.sync()
    }

    /// Writes the batch; its memory is not needed any more. After an error the file must not be used any more.
    pub(crate) fn write(&mut self, archive: UnixMs) -> io::Result<()> {
        let file = self.header.file;
        let payload_len = u32::try_from(self.buffer.len() - BATCH_HEADER_LEN).expect("bounded by the batch length");
        let header = BatchHeader {
            payload_crc: self.crc,
            sequence: self.sequence,
            payload_len,
            record_count: self.pending.len() as u32,
            durable_through: self.offset,
            archive,
        };
        self.buffer[..BATCH_HEADER_LEN].copy_from_slice(&header.encode(file));
        let padded = align_up(self.buffer.len() as u64, BLOCK_LEN) as usize;
        self.buffer.resize(padded);
        self.handle.write_blocks(self.offset, &self.buffer)?;
        self.written = padded as u64;
        self.archive = self.archive.max(archive);
        Ok(())
    }

    /// Makes what was written durable. After an error the file must not be used any more.
    pub(crate) fn sync(&mut self) -> io::Result<()> {
        self.handle.sync_data()?;
        self.offset += std::mem::take(&mut self.written);
        self.sequence += 1;
        self.entries.append(&mut self.pending);
        self.copies.append(&mut self.pending_copies);
        Ok(())
    }

    /// Writes the footer.
    pub(crate) fn close(&self, log_key: &Secret) -> io::Result<()> {
        let (file, entries, copies) = (self.header.file, &self.entries, &self.copies);
        let footer = footer::encode(log_key, file, self.offset, self.archive, entries, copies);
        close(&*self.handle, self.offset, &footer)
    }
}

/// Ends a file whose batches are synced with its footer. The block of the trailer comes last, so that a trailer is never
/// found without what it stands for.
pub(crate) fn close(handle: &dyn SegmentHandle, data_end: u64, footer: &[u8]) -> io::Result<()> {
    let footer = Blocks::from(footer);
    let (body, trailer) = footer.split_at(footer.len() - BLOCK_LEN as usize);
    let trailer_at = data_end + body.len() as u64;
    handle.write_blocks(data_end, body)?;
    handle.truncate(trailer_at)?;
    handle.sync_data()?;
    handle.write_blocks(trailer_at, trailer)?;
    handle.sync_data()
}

/// Makes durable what was read in a range. After a sync that failed it may stand in the page cache only, and another sync
/// says nothing of it: so it is written once more, if it reads the same twice.
///
/// # Errors
/// `InvalidData` if it does not.
pub(crate) fn write_again(handle: &dyn SegmentHandle, range: Range<u64>) -> io::Result<()> {
    let end = align_up(range.end, BLOCK_LEN).min(handle.len()? / BLOCK_LEN * BLOCK_LEN);
    let mut at = range.start / BLOCK_LEN * BLOCK_LEN;
    while at < end {
        let len = (end - at).min(AGAIN_LEN) as usize;
        let bytes = super::reader::read(handle, at, len)?;
        if super::reader::read(handle, at, len)? != bytes {
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("{at}: it does not read the same twice")));
        }
        handle.write_blocks(at, &Blocks::from(&bytes[..]))?;
        at += len as u64;
    }
    handle.sync_data()
}

/// Written again at a time.
const AGAIN_LEN: u64 = 1 << 20;

/// Writes and syncs the block of the trailer, the last of a closed file, again as it is.
pub(crate) fn settle(handle: &dyn SegmentHandle) -> io::Result<()> {
    let trailer_at = handle.len()?.checked_sub(BLOCK_LEN).ok_or(io::ErrorKind::UnexpectedEof)?;
    let trailer = Blocks::from(&super::reader::read(handle, trailer_at, BLOCK_LEN as usize)?[..]);
    handle.write_blocks(trailer_at, &trailer)?;
    handle.sync_data()
}

#[cfg(test)]
#[path = "writer_tests.rs"]
mod tests;
