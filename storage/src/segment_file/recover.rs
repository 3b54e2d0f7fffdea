//! Reading a file that was not closed, batch by batch. Rules: `docs/formats/segment-file.md`.
//!
//! # Invariants
//! 1. Below the highest `durable_through` nothing is dropped silently: what does not parse is reported.
//! 2. At or above it records are kept up to the first that does not parse, and none after it.

use std::io;
use std::ops::Range;

use vidar_core::ids::FileId;
use vidar_core::time::UnixMs;

use super::batch::{BATCH_HEADER_LEN, BatchHeader, payload_crc};
use super::footer::{RecordEntry, Summary};
use super::header::HEADER_LEN;
use super::reader::read;
use super::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, RecordOpener};
use super::{BLOCK_LEN, PADDING_MAGIC, align_up};
use crate::backend::SegmentHandle;
use crate::crypto::keyring::Keyring;

/// Bytes that are read at once where a batch header is looked for.
const WINDOW_LEN: u64 = 1 << 20;

/// Bytes that are not what was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BadSpan {
    pub(crate) offset: u64,
    pub(crate) len: u64,
    pub(crate) detail: String,
}

/// What a scan found.
#[derive(Debug, Default)]
pub(crate) struct Scan {
    /// Good records, with their sealed heads.
    pub(crate) records: Vec<(RecordEntry, Vec<u8>)>,
    pub(crate) bad: Vec<BadSpan>,
    /// Where a footer may go.
    pub(crate) data_end: u64,
    /// Greatest archive time.
    pub(crate) archive: Option<UnixMs>,
    /// Bytes of batches that were never synced.
    pub(crate) dropped_bytes: u64,
}

/// A stretch of the file: a batch, or bytes between batches.
struct Region {
    range: Range<u64>,
    header: Option<BatchHeader>,
}

/// Scans `file`. Nothing at or after `void_from` is looked at. Everything before `synced_to` was synced, as a trailer says
/// whose footer does not read: what is bad there is damage, and no tail to drop.
pub(crate) fn scan(
    handle: &dyn SegmentHandle,
    file: FileId,
    void_from: Option<u64>,
    synced_to: u64,
    keys: &Keyring,
) -> io::Result<Scan> {
    let end = handle.len()?.min(void_from.unwrap_or(u64::MAX));
    let regions = find_batches(handle, file, end)?;
    let headers = || regions.iter().filter_map(|region| region.header);
    let durable = headers().map(|header| header.durable_through).max().unwrap_or(0).max(synced_to.min(end));
    let mut scan =
        Scan { data_end: HEADER_LEN as u64, archive: headers().map(|header| header.archive).max(), ..Scan::default() };
    for region in &regions {
        let in_tail = region.range.end > durable;
        let whole = scan.region(handle, file, region, in_tail, keys)?;
        if in_tail && !whole {
            break;
        }
        if region.header.is_some() {
            scan.data_end = scan.data_end.max(align_up(region.range.end, BLOCK_LEN));
        }
    }
    scan.data_end = scan.data_end.max(durable.min(end));
    Ok(scan)
}

/// Where batches stand whose checksum does not match, and everything between batches. `pace` hears how many bytes were
/// read; its error is the answer.
pub(crate) fn bad_batches(
    handle: &dyn SegmentHandle,
    file: FileId,
    pace: &mut dyn FnMut(u64) -> io::Result<()>,
) -> io::Result<Vec<Range<u64>>> {
    let mut bad = Vec::new();
    for Region { range, header } in find_batches(handle, file, handle.len()?)? {
        let content = read(handle, range.start, (range.end - range.start) as usize)?;
        pace(content.len() as u64)?;
        let payload = content.get(BATCH_HEADER_LEN..).unwrap_or_default();
        let matches = |header: BatchHeader| {
            payload.len() == header.payload_len as usize
                && payload_crc(file, header.sequence, payload) == header.payload_crc
        };
        if !header.is_some_and(matches) {
            bad.push(range);
        }
    }
    Ok(bad)
}

/// A batch was ever written to the file.
pub(crate) fn has_batches(handle: &dyn SegmentHandle, file: FileId) -> io::Result<bool> {
    Ok(next_batch(handle, file, HEADER_LEN as u64, handle.len()?, 0)?.is_some())
}

/// All regions from the first batch on; the last one ends with the last batch.
fn find_batches(handle: &dyn SegmentHandle, file: FileId, end: u64) -> io::Result<Vec<Region>> {
    let mut regions = Vec::new();
    let mut next_sequence = 0;
    let mut at = HEADER_LEN as u64;
    let mut lost_from = None;
    while let Some((offset, header)) = next_batch(handle, file, at, end, next_sequence)? {
        if offset > at {
            lost_from = Some(at);
        }
        if let Some(start) = lost_from.take() {
            regions.push(Region { range: start..offset, header: None });
        }
        let payload_end = offset + BATCH_HEADER_LEN as u64 + u64::from(header.payload_len);
        regions.push(Region { range: offset..payload_end.min(end), header: Some(header) });
        next_sequence = header.sequence + 1;
        at = align_up(payload_end, BLOCK_LEN);
    }
    Ok(regions)
}

/// The first batch header at or after `from`.
fn next_batch(
    handle: &dyn SegmentHandle,
    file: FileId,
    mut from: u64,
    end: u64,
    sequence: u64,
) -> io::Result<Option<(u64, BatchHeader)>> {
    // The usual place first, in a small read; then window by window.
    if from + BATCH_HEADER_LEN as u64 <= end
        && let Ok(header) = BatchHeader::decode(&read(handle, from, BATCH_HEADER_LEN)?, file)
        && header.sequence >= sequence
    {
        return Ok(Some((from, header)));
    }
    while from + BATCH_HEADER_LEN as u64 <= end {
        let window = read(handle, from, WINDOW_LEN.min(end - from) as usize)?;
        for (index, block) in window.chunks(BLOCK_LEN as usize).enumerate() {
            let found = block.get(..BATCH_HEADER_LEN).and_then(|bytes| BatchHeader::decode(bytes, file).ok());
            if let Some(header) = found.filter(|header| header.sequence >= sequence) {
                return Ok(Some((from + index as u64 * BLOCK_LEN, header)));
            }
        }
        from += WINDOW_LEN;
    }
    Ok(None)
}

impl Scan {
    /// Takes the records of a region. False if it is not whole.
    fn region(
        &mut self,
        handle: &dyn SegmentHandle,
        file: FileId,
        region: &Region,
        in_tail: bool,
        keys: &Keyring,
    ) -> io::Result<bool> {
        let Region { range, header } = region;
        let bytes = read(handle, range.start, (range.end - range.start) as usize)?;
        let Some(header) = header else {
            // Batches whose headers are lost, below a good one: they were synced.
            self.salvage(&bytes, range.start, 0, keys);
            return Ok(false);
        };
        let payload = &bytes[BATCH_HEADER_LEN..];
        let whole = payload.len() == header.payload_len as usize
            && payload_crc(file, header.sequence, payload) == header.payload_crc;
        if whole {
            self.trusted(&bytes, range.start, keys);
        } else if in_tail {
            let kept = self.tail(&bytes, range.start, keys);
            self.dropped_bytes += range.end.saturating_sub(kept);
        } else {
            let before = (self.records.len(), self.bad.len());
            let skipped = self.salvage(&bytes, range.start, BATCH_HEADER_LEN, keys);
            let found = self.records.len() - before.0 + skipped;
            if found < header.record_count as usize && self.bad.len() == before.1 {
                let detail =
                    format!("{} of {} records are gone", header.record_count as usize - found, header.record_count);
                self.bad.push(BadSpan { offset: range.start, len: range.end - range.start, detail });
            }
        }
        Ok(whole)
    }

    /// A batch whose checksum is right.
    fn trusted(&mut self, bytes: &[u8], base: u64, keys: &Keyring) {
        let mut at = BATCH_HEADER_LEN;
        while let Some(found) = next_record(bytes, at) {
            let Some(header) = found.header else {
                self.bad(base, at, bytes.len(), "no record where one must be");
                return;
            };
            at = found.at;
            let end = at + header.shape.record_len() as usize;
            self.take(&header, &bytes[at..end], base + at as u64, false, keys);
            at = align_up(end as u64, 8) as usize;
        }
    }

    /// A batch that was being written: records up to the first that is not whole. Returns where it ends.
    fn tail(&mut self, bytes: &[u8], base: u64, keys: &Keyring) -> u64 {
        let mut at = BATCH_HEADER_LEN;
        while let Some(Found { at: start, header: Some(header) }) = next_record(bytes, at) {
            let end = start + header.shape.record_len() as usize;
            if self.take(&header, &bytes[start..end], base + start as u64, true, keys) != Taken::Good {
                break;
            }
            at = align_up(end as u64, 8) as usize;
            self.data_end = align_up(base + end as u64, BLOCK_LEN);
        }
        base + at as u64
    }

    /// A damaged stretch: every record in it that opens. Returns how many were passed over because their keys are gone.
    fn salvage(&mut self, bytes: &[u8], base: u64, from: usize, keys: &Keyring) -> usize {
        let (mut at, mut bad_from, mut keyless) = (from, None, 0);
        while at + RECORD_HEADER_LEN <= bytes.len() {
            let header = RecordHeader::decode(&bytes[at..at + RECORD_HEADER_LEN]).ok();
            let end = header.map_or(usize::MAX, |header| at.saturating_add(header.shape.record_len() as usize));
            if let Some(header) = header
                && end <= bytes.len()
            {
                match self.take(&header, &bytes[at..end], base + at as u64, true, keys) {
                    Taken::Good => {}
                    Taken::Keyless => keyless += 1,
                    Taken::Bad => {
                        bad_from.get_or_insert(at);
                        at += 8;
                        continue;
                    }
                }
                if let Some(start) = bad_from.take() {
                    self.bad(base, start, at, "not what was written");
                }
                at = align_up(end as u64, 8) as usize;
            } else {
                if bytes[at..at + 8] != [0; 8] && padding_len(&bytes[at..]).is_none() {
                    bad_from.get_or_insert(at);
                }
                at += 8;
            }
        }
        if let Some(start) = bad_from {
            self.bad(base, start, bytes.len(), "not what was written");
        }
        keyless
    }

    fn bad(&mut self, base: u64, start: usize, end: usize, detail: &str) {
        self.bad.push(BadSpan { offset: base + start as u64, len: (end - start) as u64, detail: detail.to_owned() });
    }

    /// Opens a record as far as needed and keeps it.
    fn take(&mut self, header: &RecordHeader, bytes: &[u8], offset: u64, check_media: bool, keys: &Keyring) -> Taken {
        let Some(outer) = keys.outer(&header.shape) else { return Taken::Keyless };
        let opener = RecordOpener::new(header, outer);
        let head = bytes[..header.shape.head_len() as usize].to_vec();
        let opened = match header.shape.kind {
            RecordKind::Fragment => opener.fragment_head(head.clone()).map(|head| Some(Summary::new(&head.facts))),
            RecordKind::Part | RecordKind::Config | RecordKind::Control => opener.head(head.clone()).map(|_| None),
        };
        let media = if check_media { check_media_of(&opener, bytes) } else { Ok(()) };
        match (opened, media) {
            (Ok(summary), Ok(())) => {
                self.records.push((RecordEntry { shape: header.shape, offset, summary }, head));
                Taken::Good
            }
            (Err(error), _) | (_, Err(error)) => {
                if !check_media {
                    self.bad.push(BadSpan { offset, len: bytes.len() as u64, detail: error.to_string() });
                }
                Taken::Bad
            }
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Good,
    Bad,
    /// Its stream was deleted.
    Keyless,
}

fn check_media_of(opener: &RecordOpener, bytes: &[u8]) -> Result<(), super::record::OpenRecordError> {
    let media_len = opener.shape.media_len;
    let span = opener.span(&(0..media_len));
    let sealed = bytes[opener.shape.head_len() as usize..].to_vec();
    opener.media(&span, sealed, media_len).map(|_| ())
}

struct Found {
    at: usize,
    /// None: bytes that are no record.
    header: Option<RecordHeader>,
}

/// The record at `at`, or behind the padding that stands there. None at the end of the batch.
fn next_record(bytes: &[u8], mut at: usize) -> Option<Found> {
    if let Some(padding) = padding_len(bytes.get(at..)?) {
        at += padding;
    }
    if at >= bytes.len() {
        return None;
    }
    let header = bytes.get(at..at + RECORD_HEADER_LEN).and_then(|bytes| RecordHeader::decode(bytes).ok());
    let fits = |header: &RecordHeader| header.shape.record_len() <= (bytes.len() - at) as u64;
    Some(Found { at, header: header.filter(fits) })
}

/// Bytes of the padding that `bytes` begin with.
fn padding_len(bytes: &[u8]) -> Option<usize> {
    let len = bytes.strip_prefix(PADDING_MAGIC)?.first_chunk()?;
    let len = u32::from_be_bytes(*len) as usize;
    (len >= 8 && len < BLOCK_LEN as usize && len.is_multiple_of(8)).then_some(len)
}

#[cfg(test)]
#[path = "recover_tests.rs"]
mod tests;
