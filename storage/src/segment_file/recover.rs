//! Reading a file that was not closed, batch by batch. Rules: `docs/formats/segment-file.md`.
//!
//! # Invariants
//! 1. Every record of which all tags match is kept, wherever it stands.
//! 2. Nothing is passed over silently: bytes that were synced and are no records are damage; those that may never have
//!    been are torn. Both are reported.
//! 3. A block that the disk does not give back costs the records it touches.
//! 4. What is wrong is read twice: what a cable, a controller or memory got wrong once is not taken for what stands there.

use std::collections::{BTreeMap, HashSet};
use std::io;
use std::ops::Range;

use vidar_core::ids::FileId;
use vidar_core::time::UnixMs;

use super::batch::{BATCH_HEADER_LEN, BatchHeader, payload_crc};
use super::footer::{RecordEntry, Summary, TRAILER_LEN};
use super::header::HEADER_LEN;
use super::reader::read;
use super::record::{RECORD_HEADER_LEN, RecordHeader, RecordKind, RecordOpener, RecordShape};
use super::{BLOCK_LEN, PADDING_MAGIC, align_up};
use crate::backend::SegmentHandle;
use crate::crypto::keyring::Keyring;

/// Bytes that are read at once where a batch header is looked for.
const WINDOW_LEN: u64 = 1 << 20;
/// What a disk takes at once. Power may fail within one: then its beginning is new.
const SECTOR_LEN: usize = 512;
/// What is never torn.
const WORD_LEN: usize = 8;
/// Unreadable blocks of one file above which the disk is at fault, not a few of its sectors: the file stays as it is.
const UNREADABLE_COUNT_MAX: usize = 64;

/// Scans of a file after which a disk that reads otherwise each time is at fault: the file stays as it is.
const SCANS_MAX: usize = 4;

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
    /// What was synced.
    pub(crate) bad: Vec<BadSpan>,
    /// What was being written when the file ended, as far as can be told: never acknowledged then.
    pub(crate) torn: Vec<BadSpan>,
    /// From here on stand records of a batch that was torn: what they refer to may be lost.
    torn_from: Option<u64>,
    /// The disk did not give back all of it; perhaps it will another time.
    pub(crate) unread: bool,
    /// Up to here a later batch, or the list of files, says that it was synced.
    pub(crate) synced_to: u64,
    /// Where a footer may go.
    pub(crate) data_end: u64,
    /// Greatest archive time.
    pub(crate) archive: Option<UnixMs>,
    /// Of the records: a copy of one is none.
    salts: HashSet<[u8; 32]>,
    /// Ranges that are not what was written, with the checksum of what was read there.
    suspects: Vec<(Range<u64>, u32)>,
}

/// A stretch of the file: a batch, or bytes between batches.
#[derive(Debug, PartialEq, Eq)]
struct Region {
    range: Range<u64>,
    header: Option<BatchHeader>,
}

/// Reads through what the disk does not give back: zeros stand for it.
struct Source<'a> {
    handle: &'a dyn SegmentHandle,
    /// Offsets of blocks, and what the disk says of them.
    unreadable: BTreeMap<u64, String>,
}

impl<'a> Source<'a> {
    fn new(handle: &'a dyn SegmentHandle) -> Self {
        Self { handle, unreadable: BTreeMap::new() }
    }

    fn read(&mut self, range: &Range<u64>) -> io::Result<Vec<u8>> {
        let len = (range.end - range.start) as usize;
        match read(self.handle, range.start, len) {
            Err(error) if error.kind() != io::ErrorKind::UnexpectedEof => self.read_blocks(range),
            other => other,
        }
    }

    fn read_blocks(&mut self, range: &Range<u64>) -> io::Result<Vec<u8>> {
        let mut bytes = Vec::with_capacity((range.end - range.start) as usize);
        let mut at = range.start;
        while at < range.end {
            let block = at - at % BLOCK_LEN;
            let len = ((block + BLOCK_LEN).min(range.end) - at) as usize;
            let known = self.unreadable.contains_key(&block);
            match if known { Ok(vec![0; len]) } else { read(self.handle, at, len) } {
                Ok(piece) => bytes.extend(piece),
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Err(error),
                Err(error) if self.unreadable.len() >= UNREADABLE_COUNT_MAX => return Err(error),
                Err(error) => {
                    self.unreadable.insert(block, error.to_string());
                    bytes.resize(bytes.len() + len, 0);
                }
            }
            at += len as u64;
        }
        Ok(bytes)
    }

    fn is_unreadable(&self, range: &Range<u64>) -> bool {
        let first = range.start - range.start % BLOCK_LEN;
        self.unreadable.range(first..range.end.max(first)).next().is_some()
    }

    /// From the first to the last block in `range` that is not empty. Blocks that do not read count as empty.
    fn used(&mut self, range: Range<u64>) -> io::Result<Option<Range<u64>>> {
        let mut used: Option<Range<u64>> = None;
        let mut at = range.start;
        while at < range.end {
            let window = self.read(&(at..(at + WINDOW_LEN).min(range.end)))?;
            for (index, block) in window.chunks(BLOCK_LEN as usize).enumerate() {
                if block.iter().any(|byte| *byte != 0) {
                    let start = at + index as u64 * BLOCK_LEN;
                    let end = start + block.len() as u64;
                    used = Some(used.map_or(start, |used| used.start)..end);
                }
            }
            at += window.len() as u64;
        }
        Ok(used)
    }
}

/// Scans `file`. Nothing at or after `void_from` is looked at. Everything before `synced_to` was synced, as a trailer says
/// whose footer does not read, or the list of files: what is bad there is damage.
pub(crate) fn scan(
    handle: &dyn SegmentHandle,
    file: FileId,
    void_from: Option<u64>,
    synced_to: u64,
    keys: &Keyring,
) -> io::Result<Scan> {
    let end = handle.len()?.min(void_from.unwrap_or(u64::MAX));
    let rest_end = if synced_to > 0 { synced_to.min(end) } else { end };
    let mut source = Source::new(handle);
    let mut layout = Layout::find(&mut source, file, end, rest_end)?;
    let mut scans = 1;
    loop {
        let mut scan = scan_once(source, file, &layout, synced_to, keys)?;
        if scan.unread || scan.suspects.is_empty() {
            return Ok(scan);
        }
        handle.forget(0, end);
        source = Source::new(handle);
        let again = Layout::find(&mut source, file, end, rest_end)?;
        let same = again == layout && scan.reads_the_same(handle);
        if same || scans == SCANS_MAX {
            scan.unread = !same;
            return Ok(scan);
        }
        layout = again;
        scans += 1;
    }
}

/// Reads what the layout says; `source` is what it was found through.
fn scan_once(
    mut source: Source<'_>,
    file: FileId,
    layout: &Layout,
    synced_to: u64,
    keys: &Keyring,
) -> io::Result<Scan> {
    let (len, Layout { end, regions, rest }) = (source.handle.len()?, layout);
    let headers = || regions.iter().filter_map(|region| region.header);
    let mut durable = headers().map(|header| header.durable_through).max().unwrap_or(0).max(synced_to.min(*end));
    let behind = match rest {
        Some(rest) => source.read(rest)?,
        None => Vec::new(),
    };
    let mut scan =
        Scan { data_end: HEADER_LEN as u64, archive: headers().map(|header| header.archive).max(), ..Scan::default() };
    for region in regions {
        scan.region(&mut source, file, region, (durable, &behind), keys)?;
        scan.data_end = scan.data_end.max(align_up(region.range.end, BLOCK_LEN));
    }
    if scan.lacks_one_of(&behind) {
        durable = durable.max(layout.batches_end());
    }
    if let Some(rest) = rest {
        scan.rest(&behind, rest, synced_to > 0, len, keys);
    }
    scan.synced_to = durable.min(*end);
    scan.data_end = scan.data_end.max(scan.synced_to);
    scan.unread = !source.unreadable.is_empty();
    for (offset, detail) in source.unreadable {
        scan.bad.push(BadSpan {
            offset,
            len: BLOCK_LEN.min(len - offset),
            detail: format!("cannot be read: {detail}"),
        });
    }
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
    let mut source = Source::new(handle);
    for Region { range, header } in find_batches(&mut source, file, handle.len()?)? {
        let content = source.read(&range)?;
        pace(content.len() as u64)?;
        if !header.is_some_and(|header| is_whole(file, &header, &content)) {
            bad.push(range);
        }
    }
    Ok(bad)
}

/// The bytes of a batch are what was written.
fn is_whole(file: FileId, header: &BatchHeader, batch: &[u8]) -> bool {
    let payload = batch.get(BATCH_HEADER_LEN..).unwrap_or_default();
    payload.len() == header.payload_len as usize && payload_crc(file, header.sequence, payload) == header.payload_crc
}

/// A batch was ever written to the file; or may have been, where the disk does not give it back.
pub(crate) fn has_batches(handle: &dyn SegmentHandle, file: FileId) -> io::Result<bool> {
    let mut source = Source::new(handle);
    let found = next_batch(&mut source, file, HEADER_LEN as u64, handle.len()?, 0);
    if !source.unreadable.is_empty() {
        return Ok(true);
    }
    Ok(found?.is_some())
}

/// Nothing stands behind the header.
pub(crate) fn is_empty(handle: &dyn SegmentHandle) -> io::Result<bool> {
    let mut source = Source::new(handle);
    let used = source.used(HEADER_LEN as u64..handle.len()?)?;
    Ok(used.is_none() && source.unreadable.is_empty())
}

/// Where batches stand in a file.
#[derive(Debug, PartialEq, Eq)]
struct Layout {
    /// Nothing behind it is looked at.
    end: u64,
    regions: Vec<Region>,
    /// What is not empty behind the last batch.
    rest: Option<Range<u64>>,
}

impl Layout {
    fn find(source: &mut Source<'_>, file: FileId, end: u64, rest_end: u64) -> io::Result<Self> {
        let mut layout = Self { end, regions: find_batches(source, file, end)?, rest: None };
        layout.rest = source.used(layout.batches_end()..rest_end)?;
        Ok(layout)
    }

    fn batches_end(&self) -> u64 {
        self.regions.last().map_or(HEADER_LEN as u64, |last| align_up(last.range.end, BLOCK_LEN))
    }
}

/// All regions from the first batch on; the last one ends with the last batch.
fn find_batches(source: &mut Source<'_>, file: FileId, end: u64) -> io::Result<Vec<Region>> {
    let mut regions = Vec::new();
    let mut next_sequence = 0;
    let mut at = HEADER_LEN as u64;
    while let Some((offset, header)) = next_batch(source, file, at, end, next_sequence)? {
        if offset > at {
            regions.push(Region { range: at..offset, header: None });
        }
        let payload_end = offset + BATCH_HEADER_LEN as u64 + u64::from(header.payload_len);
        regions.push(Region { range: offset..payload_end.min(end), header: Some(header) });
        next_sequence = header.sequence.saturating_add(1);
        at = align_up(payload_end, BLOCK_LEN);
    }
    Ok(regions)
}

/// The first batch header at or after `from`.
fn next_batch(
    source: &mut Source<'_>,
    file: FileId,
    mut from: u64,
    end: u64,
    sequence: u64,
) -> io::Result<Option<(u64, BatchHeader)>> {
    // The usual place first, in a small read; then window by window.
    if from + BATCH_HEADER_LEN as u64 <= end
        && let Ok(header) = BatchHeader::decode(&source.read(&(from..from + BATCH_HEADER_LEN as u64))?, file)
        && header.sequence >= sequence
    {
        return Ok(Some((from, header)));
    }
    while from + BATCH_HEADER_LEN as u64 <= end {
        let window = source.read(&(from..(from + WINDOW_LEN).min(end)))?;
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

/// What stands in a stretch of the file, beside the records that were kept.
#[derive(Default)]
struct Walked {
    /// Records that were kept.
    kept: usize,
    /// Copies of records that stand elsewhere in the file.
    copies: Vec<Range<usize>>,
    /// Bytes that are none.
    bad: Vec<Range<usize>>,
}

impl Scan {
    /// Bytes that may never have been acknowledged, and are gone.
    pub(crate) fn dropped_bytes(&self) -> u64 {
        self.torn.iter().map(|span| span.len).sum()
    }

    /// What is wrong is wrong on the disk: read once more, it is the same.
    fn reads_the_same(&self, handle: &dyn SegmentHandle) -> bool {
        self.suspects.iter().all(|(range, sum)| {
            let bytes = read(handle, range.start, (range.end - range.start) as usize);
            bytes.is_ok_and(|bytes| crc32c::crc32c(&bytes) == *sum)
        })
    }

    /// Takes the records of a region; `durable` is the end of what was synced, as far as batches say, and `behind` what
    /// stands behind all of them.
    fn region(
        &mut self,
        source: &mut Source<'_>,
        file: FileId,
        region: &Region,
        (durable, behind): (u64, &[u8]),
        keys: &Keyring,
    ) -> io::Result<()> {
        let Region { range, header } = region;
        let (bytes, base) = (source.read(range)?, range.start);
        let whole = header.as_ref().is_some_and(|header| is_whole(file, header, &bytes));
        if !whole {
            self.suspects.push((range.clone(), crc32c::crc32c(&bytes)));
        }
        let Some(header) = header else {
            // Batches whose headers are lost, below a good one: they were synced.
            let walked = self.walk(&bytes, base, 0, true, keys);
            walked.bad.into_iter().for_each(|span| self.damaged(base, span, "not what was written"));
            walked
                .copies
                .into_iter()
                .for_each(|span| self.damaged(base, span, "a copy of another record stands there"));
            return Ok(());
        };
        let before = self.records.len();
        let walked = self.walk(&bytes, base, BATCH_HEADER_LEN, !whole, keys);
        let synced = whole || range.end <= durable || self.lacks_one_of(behind);
        let is_cut = bytes.len() < BATCH_HEADER_LEN + header.payload_len as usize && !synced;
        let mut torn = is_cut;
        let nothing_bad = walked.bad.is_empty() && walked.copies.is_empty();
        for span in walked.bad {
            let at = base + span.start as u64..base + span.end as u64;
            // A block was empty before it was written: where each of its sectors has an end, all of it was written.
            let ends_with_file = is_cut && span.end == bytes.len();
            if synced || source.is_unreadable(&at) || !(ends_with_file || is_torn(&bytes, &span)) {
                self.damaged(base, span, "not what was written");
            } else {
                torn = true;
                self.torn(base, span, "not written whole, or lost");
            }
        }
        walked.copies.into_iter().for_each(|span| self.damaged(base, span, "a copy of another record stands there"));
        if nothing_bad && !whole {
            let (found, count) = (walked.kept, header.record_count as usize);
            let detail = match count.saturating_sub(found) {
                0 => "its checksum does not match, though each record in it is whole".to_owned(),
                lost => format!("{lost} of {count} records are gone"),
            };
            let span = BadSpan { offset: base, len: if found < count { range.end - base } else { 0 }, detail };
            torn |= !synced;
            if synced { self.bad.push(span) } else { self.torn.push(span) }
        }
        if torn {
            self.torn_from = Some(base);
            self.drop_without_config(before);
        }
        Ok(())
    }

    /// `behind`, which stands behind the last batch, holds the header of a record that was not taken. Then that batch was
    /// synced: either the next one was begun there, or a footer that lists what the disk lost since. A footer that lists
    /// nothing else may be that of a start, which leaves a torn batch as it is.
    fn lacks_one_of(&self, behind: &[u8]) -> bool {
        let headers = behind.windows(RECORD_HEADER_LEN).filter_map(|bytes| RecordHeader::decode(bytes).ok());
        headers.map(|header| header.salt).any(|salt| !self.salts.contains(&salt))
    }

    /// What stands behind the last batch: one whose header is lost, or a footer that does not read. `synced`: all of it was.
    fn rest(&mut self, bytes: &[u8], range: &Range<u64>, synced: bool, len: u64, keys: &Keyring) {
        let base = range.start;
        self.suspects.push((range.clone(), crc32c::crc32c(bytes)));
        let before = self.records.len();
        // A footer repeats heads: copies are nothing new.
        let walked = self.walk(bytes, base, 0, true, keys);
        // A trailer whose write was cut short ends within a block.
        let is_last = range.end == len && len.is_multiple_of(BLOCK_LEN);
        if !synced && is_last && ends_with_trailer(bytes) {
            self.damaged(base, 0..bytes.len(), "a footer that does not read");
        } else {
            for span in walked.bad {
                if synced {
                    self.damaged(base, span, "not what was written");
                } else {
                    self.torn(base, span, "not written whole, or lost");
                }
            }
        }
        if !synced {
            self.torn_from.get_or_insert(base);
            self.drop_without_config(before);
        }
        if let Some((last, _)) = self.records[before.min(self.records.len())..].last() {
            self.data_end = self.data_end.max(align_up(last.end(), BLOCK_LEN));
        }
    }

    /// A record of a torn batch was never acknowledged, and counts only with the config that it needs.
    fn drop_without_config(&mut self, from: usize) {
        let config = |entry: &RecordEntry| (entry.shape.meta.stream, entry.shape.meta.config);
        let entries = || self.records.iter().map(|(entry, _)| entry);
        let configs: HashSet<_> =
            entries().filter(|entry| entry.shape.kind == RecordKind::Config).map(config).collect();
        let useless = |entry: &RecordEntry| {
            matches!(entry.shape.kind, RecordKind::Fragment | RecordKind::Part) && !configs.contains(&config(entry))
        };
        self.drop_torn(from, "its config was not written", useless);
    }

    /// Drops records from the position `from` on.
    fn drop_torn(&mut self, from: usize, detail: &str, useless: impl Fn(&RecordEntry) -> bool) {
        let tail = self.records.split_off(from.min(self.records.len()));
        for (entry, head) in tail {
            if useless(&entry) {
                let (offset, len, detail) = (entry.offset, entry.shape.record_len(), detail.to_owned());
                self.torn.push(BadSpan { offset, len, detail });
            } else {
                self.records.push((entry, head));
            }
        }
    }

    /// Where records of a torn batch begin.
    fn torn_at(&self) -> usize {
        let torn_from = self.torn_from.unwrap_or(u64::MAX);
        self.records.partition_point(|(entry, _)| entry.offset < torn_from)
    }

    /// Fragments of a torn batch.
    pub(crate) fn torn_fragments(&self) -> impl Iterator<Item = &RecordShape> {
        let shapes = self.records[self.torn_at()..].iter().map(|(entry, _)| &entry.shape);
        shapes.filter(|shape| shape.kind == RecordKind::Fragment)
    }

    /// Drops fragments of a torn batch of which not all parts are there.
    pub(crate) fn drop_without_parts(&mut self, is_whole: impl Fn(&RecordShape) -> bool) {
        let useless = |entry: &RecordEntry| entry.shape.kind == RecordKind::Fragment && !is_whole(&entry.shape);
        self.drop_torn(self.torn_at(), "not all of its parts were written", useless);
    }

    /// Takes every record in `bytes` that opens. `check`: nothing vouches for them but their own tags; else the checksum of
    /// their batch matches.
    fn walk(&mut self, bytes: &[u8], base: u64, from: usize, check: bool, keys: &Keyring) -> Walked {
        let (mut walked, mut at, mut bad_from) = (Walked::default(), from, None);
        while at + 8 <= bytes.len() {
            let padding = padding_len(&bytes[at..]).filter(|len| (base + (at + len) as u64).is_multiple_of(BLOCK_LEN));
            let header = bytes.get(at..at + RECORD_HEADER_LEN).and_then(|bytes| RecordHeader::decode(bytes).ok());
            let end = header.map_or(usize::MAX, |header| at.saturating_add(header.shape.record_len() as usize));
            let taken = match header.filter(|_| end <= bytes.len()) {
                Some(header) if check && keys.outer(&header.shape).is_none() && is_torn(bytes, &(at..end)) => {
                    Taken::Bad
                }
                Some(header) => self.take(&header, &bytes[at..end], base + at as u64, check, keys),
                None => Taken::Bad,
            };
            if taken == Taken::Bad && padding.is_none() {
                // Between batches there are zeros, inside of one there are none.
                if from > 0 || bytes[at..at + 8] != [0; 8] {
                    bad_from.get_or_insert(at);
                }
                at += 8;
                continue;
            }
            walked.bad.extend(bad_from.take().map(|start| start..at));
            if let Some(padding) = padding {
                at += padding;
                continue;
            }
            match taken {
                Taken::Copy => walked.copies.push(at..end),
                _ => walked.kept += 1,
            }
            at = align_up(end as u64, 8) as usize;
        }
        walked.bad.extend(bad_from.map(|start| start..bytes.len()));
        walked
    }

    fn damaged(&mut self, base: u64, span: Range<usize>, detail: &str) {
        self.bad.push(BadSpan::new(base, &span, detail));
    }

    fn torn(&mut self, base: u64, span: Range<usize>, detail: &str) {
        self.torn.push(BadSpan::new(base, &span, detail));
    }

    /// Opens a record as far as needed and keeps it. One whose key is missing is kept unopened: its stream was deleted, or
    /// an older keyring stands in the place of the right one.
    fn take(&mut self, header: &RecordHeader, bytes: &[u8], offset: u64, check: bool, keys: &Keyring) -> Taken {
        if self.salts.contains(&header.salt) {
            return Taken::Copy;
        }
        let head = bytes[..header.shape.head_len() as usize].to_vec();
        let summary = match keys.outer(&header.shape) {
            Some(outer) => {
                let opener = RecordOpener::new(header, bytes, outer);
                let opened = match header.shape.kind {
                    RecordKind::Fragment => {
                        opener.fragment_head(head.clone()).map(|head| Some(Summary::new(&head.facts)))
                    }
                    RecordKind::Part | RecordKind::Config | RecordKind::Control => {
                        opener.head(head.clone()).map(|_| None)
                    }
                };
                match opened {
                    Ok(summary) if !check || check_media_of(&opener, bytes).is_ok() => summary,
                    _ => return Taken::Bad,
                }
            }
            None => (header.shape.kind == RecordKind::Fragment).then(Summary::default),
        };
        self.salts.insert(header.salt);
        self.records.push((RecordEntry { shape: header.shape, offset, summary }, head));
        Taken::Good
    }
}

impl BadSpan {
    fn new(base: u64, span: &Range<usize>, detail: &str) -> Self {
        let (offset, len) = (base + span.start as u64, (span.end - span.start) as u64);
        Self { offset, len, detail: detail.to_owned() }
    }
}

/// The last block holds nothing but something in the place of a trailer, and that has an end.
fn ends_with_trailer(bytes: &[u8]) -> bool {
    let Some(block) = bytes.last_chunk::<{ BLOCK_LEN as usize }>() else { return false };
    let zeros = &block[..BLOCK_LEN as usize - TRAILER_LEN];
    zeros.iter().all(|byte| *byte == 0) && block[block.len() - WORD_LEN..] != [0; WORD_LEN]
}

/// A sector that `span` touches ends there with zeros: it was not written, or not to its end. Sealed bytes never do.
fn is_torn(bytes: &[u8], span: &Range<usize>) -> bool {
    let first = (span.start + 1).next_multiple_of(SECTOR_LEN);
    let mut ends = (first..span.end).step_by(SECTOR_LEN).chain([span.end]);
    ends.any(|end| {
        let word = (end - 1) / WORD_LEN * WORD_LEN;
        bytes[word..end].iter().all(|byte| *byte == 0) && !is_in_header(bytes, word)
    })
}

/// A header of a record is whole, has zeros in it, and `at` is one of them.
fn is_in_header(bytes: &[u8], at: usize) -> bool {
    let first = (at + WORD_LEN).saturating_sub(RECORD_HEADER_LEN).next_multiple_of(WORD_LEN);
    (first..=at).step_by(WORD_LEN).any(|start| RecordHeader::decode(&bytes[start..]).is_ok())
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    Good,
    Bad,
    /// It was taken before.
    Copy,
}

fn check_media_of(opener: &RecordOpener, bytes: &[u8]) -> Result<(), super::record::OpenRecordError> {
    let media_len = opener.shape.media_len;
    let span = opener.span(&(0..media_len));
    let mut sealed = bytes[opener.shape.head_len() as usize..].to_vec();
    opener.media(&span, &mut sealed, media_len).map(|_| ())
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
