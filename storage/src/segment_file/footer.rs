//! The end of a closed file: what is in it, and where. Layout: `docs/formats/segment-file.md`.

use std::collections::HashMap;
use std::hash::Hash;

use vidar_core::entry::{FragmentEntry, Locator};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, TrackTotals};
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

use super::header::HEADER_LEN;
use super::record::{RecordKind, RecordShape};
use super::{BLOCK_LEN, align_up};
use crate::crypto::aead::{Aead, RingAead, TAG_LEN};
use crate::crypto::keys::{Secret, footer_key, random};

const MAGIC: &[u8; 8] = b"VIDAREND";
const VERSION: u16 = 1;
/// Bytes of the trailer, the last of a closed file.
pub(crate) const TRAILER_LEN: usize = 128;
const TRAILER_AAD_LEN: usize = 112;
const ENTRIES_VERSION: u8 = 1;
/// Bytes that the shortest entry takes.
pub(crate) const ENTRY_LEN_MIN: usize = 31;
/// Tracks of an entry: bounded by those of a config.
const TOTALS_MAX: usize = vidar_core::entry::ENTRY_TRACK_COUNT_MAX;

/// What is known of a record without opening it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RecordEntry {
    pub(crate) shape: RecordShape,
    pub(crate) offset: u64,
    /// Of fragments only.
    pub(crate) summary: Option<Summary>,
}

/// What a timeline needs beyond the header.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Summary {
    size_bytes: u64,
    sync_back: u32,
    totals: Vec<TrackTotals>,
}

impl Summary {
    pub(crate) fn new(facts: &FragmentFacts) -> Self {
        let few = facts.tracks.len() <= TOTALS_MAX;
        let totals = if few { facts.tracks.iter().map(|track| track.totals).collect() } else { Vec::new() };
        Self { size_bytes: facts.size_bytes(), sync_back: facts.sync_back, totals }
    }

    /// Of all tracks; 0 where there are too many.
    pub(crate) fn sample_count(&self) -> u64 {
        self.totals.iter().map(|totals| u64::from(totals.sample_count)).sum()
    }
}

impl RecordEntry {
    pub(crate) fn end(&self) -> u64 {
        self.offset + self.shape.record_len()
    }

    /// What the timeline knows of a fragment.
    pub(crate) fn timeline(self, file: FileId, volume: u16, archived: UnixMs, parts: Vec<Locator>) -> FragmentEntry {
        let Summary { size_bytes, sync_back, totals } = self.summary.unwrap_or_default();
        let record = self.shape.locator(file, volume, self.offset);
        FragmentEntry { meta: self.shape.meta, size_bytes, totals, sync_back, archived, record, parts }
    }

    /// Its head is copied into the footer.
    pub(crate) fn has_copy(&self) -> bool {
        matches!(self.shape.kind, RecordKind::Fragment | RecordKind::Control)
    }
}

/// The last bytes of a closed file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Trailer {
    pub(crate) entry_count: u32,
    pub(crate) file: FileId,
    /// End of the batches.
    pub(crate) data_end: u64,
    pub(crate) copies_offset: u64,
    pub(crate) copies_len: u64,
    pub(crate) entries_offset: u64,
    pub(crate) entries_len: u64,
    salt: [u8; 32],
    pub(crate) archive: UnixMs,
    pub(crate) copies_crc: u32,
    pub(crate) entries_crc: u32,
}

impl Trailer {
    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).u16(0).u32(self.entry_count).raw(self.file.as_bytes()).u64(self.data_end);
        w.u64(self.copies_offset).u64(self.copies_len).u64(self.entries_offset).u64(self.entries_len);
        w.raw(&self.salt).i64(self.archive.0).u32(self.copies_crc).u32(self.entries_crc).u32(0);
        let mut bytes = w.into_vec();
        let crc = crc32c::crc32c_append(crc32c::crc32c(self.file.as_bytes()), &bytes);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    /// Reads the trailer of `file`, whose length is `file_len`.
    pub(crate) fn decode(bytes: &[u8], file: FileId, file_len: u64) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let (checked, crc) = (r.raw(TRAILER_LEN - 4)?, r.u32()?);
        if crc != crc32c::crc32c_append(crc32c::crc32c(file.as_bytes()), checked) {
            return Err(WireError { expected: "the trailer of a closed file", offset: TRAILER_LEN - 4 });
        }
        let mut r = Reader::new(checked);
        if r.array()? != *MAGIC || r.u16()? != VERSION {
            return Err(WireError { expected: "a trailer of version 1", offset: 0 });
        }
        r.u16()?;
        let (entry_count, named, data_end) = (r.u32()?, FileId::from_bytes(r.array()?), r.u64()?);
        let (copies_offset, copies_len, entries_offset, entries_len) = (r.u64()?, r.u64()?, r.u64()?, r.u64()?);
        let (salt, archive) = (r.array()?, UnixMs(r.i64()?));
        let (copies_crc, entries_crc) = (r.u32()?, r.u32()?);
        let in_order = copies_offset == data_end
            && data_end >= HEADER_LEN as u64
            && copies_offset.checked_add(copies_len) == Some(entries_offset)
            && entries_offset.checked_add(entries_len).is_some_and(|end| end <= file_len - TRAILER_LEN as u64);
        if named != file || !in_order {
            return Err(WireError { expected: "a trailer that fits its file", offset: 16 });
        }
        Ok(Self {
            entry_count,
            file,
            data_end,
            copies_offset,
            copies_len,
            entries_offset,
            entries_len,
            salt,
            archive,
            copies_crc,
            entries_crc,
        })
    }
}

/// The bytes of a footer that starts at `data_end`: copies, sealed entries, padding, and a block that ends with the trailer.
pub(crate) fn encode(
    log_key: &Secret,
    file: FileId,
    data_end: u64,
    archive: UnixMs,
    entries: &[RecordEntry],
    copies: &[u8],
) -> Vec<u8> {
    let mut sealed = encode_entries(entries);
    let entries_len = (sealed.len() + TAG_LEN) as u64;
    let copies_len = copies.len() as u64;
    let mut trailer = Trailer {
        entry_count: u32::try_from(entries.len()).expect("fewer than 2^32 records"),
        file,
        data_end,
        copies_offset: data_end,
        copies_len,
        entries_offset: data_end + copies_len,
        entries_len,
        salt: random(),
        archive,
        copies_crc: crc32c::crc32c(copies),
        entries_crc: 0,
    };
    let aead = RingAead::new(&footer_key(log_key, &trailer.salt, file));
    let tag = aead.seal_in_place(&[0; 12], &trailer.encode()[..TRAILER_AAD_LEN], &mut sealed);
    sealed.extend(tag);
    trailer.entries_crc = crc32c::crc32c(&sealed);
    let mut bytes = copies.to_vec();
    bytes.append(&mut sealed);
    let block_start = align_up(bytes.len() as u64, BLOCK_LEN) as usize;
    bytes.resize(block_start + BLOCK_LEN as usize - TRAILER_LEN, 0);
    bytes.extend(trailer.encode());
    bytes
}

/// Opens the sealed entries of a footer; `each` gets one after the other, without summaries unless it wants them.
///
/// # Errors
/// If they are not what was written; what `each` got then is not, either.
pub(crate) fn open_entries(
    log_key: &Secret,
    trailer: &Trailer,
    mut sealed: Vec<u8>,
    with_summaries: bool,
    mut each: impl FnMut(RecordEntry),
) -> Result<(), WireError> {
    let aead = RingAead::new(&footer_key(log_key, &trailer.salt, trailer.file));
    let opened = aead.open_in_place(&[0; 12], &trailer.encode()[..TRAILER_AAD_LEN], &mut sealed);
    let plain = opened.map_err(|_| WireError { expected: "the tag of the entries", offset: 0 })?;
    let (mut count, mut all_inside) = (0, true);
    walk_entries(plain, with_summaries, |entry| {
        count += 1;
        all_inside &= entry.end() <= trailer.data_end;
        each(entry);
    })?;
    if count != trailer.entry_count || !all_inside {
        return Err(WireError { expected: "entries that fit the trailer", offset: 0 });
    }
    Ok(())
}

/// Values in the order of their first use, each once.
struct Dictionary<T> {
    values: Vec<T>,
    positions: HashMap<T, u64>,
}

impl<T: Copy + Eq + Hash> Dictionary<T> {
    fn new(values: impl Iterator<Item = T>) -> Self {
        let mut dictionary = Self { values: Vec::new(), positions: HashMap::new() };
        for value in values {
            let next = dictionary.values.len() as u64;
            dictionary.positions.entry(value).or_insert_with(|| {
                dictionary.values.push(value);
                next
            });
        }
        dictionary
    }

    fn write<const N: usize>(&self, w: &mut Writer, bytes: impl Fn(&T) -> &[u8; N]) {
        w.varint(self.values.len() as u64);
        self.values.iter().for_each(|value| {
            w.raw(bytes(value));
        });
    }
}

fn has_run(kind: RecordKind) -> bool {
    matches!(kind, RecordKind::Fragment | RecordKind::Part)
}

/// The plain entries of a footer.
pub(crate) fn encode_entries(entries: &[RecordEntry]) -> Vec<u8> {
    let metas = || entries.iter().map(|entry| (entry.shape.kind, &entry.shape.meta));
    let streams = Dictionary::new(metas().map(|(_, meta)| meta.stream));
    let runs = Dictionary::new(metas().filter(|(kind, _)| has_run(*kind)).map(|(_, meta)| meta.run));
    let with_config = metas().filter(|(kind, _)| *kind != RecordKind::Control);
    let configs = Dictionary::new(with_config.map(|(_, meta)| meta.config));
    let mut w = Writer::new();
    w.u8(ENTRIES_VERSION);
    streams.write(&mut w, |id: &StreamId| id.as_bytes());
    runs.write(&mut w, |id: &RunId| id.as_bytes());
    configs.write(&mut w, |id: &ConfigId| &id.0);
    w.varint(entries.len() as u64);
    let mut end = HEADER_LEN as u64;
    for entry in entries {
        let RecordShape { kind, class, key_version, meta, part, facts_len, table_len, media_len } = &entry.shape;
        w.u8(kind.code()).u8(*class).varint(streams.positions[&meta.stream]).raw(meta.number.as_bytes());
        w.u32(*key_version).varint(entry.offset - end);
        w.varint((*facts_len).into()).varint((*table_len).into()).varint(*media_len);
        end = entry.end();
        if *kind == RecordKind::Config {
            w.varint(configs.positions[&meta.config]);
        }
        if has_run(*kind) {
            w.varint(runs.positions[&meta.run]).varint(configs.positions[&meta.config]);
            w.varint(meta.lease_epoch.into()).varint(meta.ordinal).varint(meta.discontinuity.into());
            w.signed(meta.producer_start.0).varint(meta.duration_ms.into());
            w.varint(meta.flags.0.into()).varint((*part).into());
        }
        if let Some(summary) = &entry.summary {
            w.varint(summary.size_bytes).varint(summary.sync_back.into()).varint(summary.totals.len() as u64);
            summary.totals.iter().for_each(|totals| totals.encode(&mut w));
        }
    }
    w.into_vec()
}

/// Reads what `encode_entries` wrote.
pub(crate) fn decode_entries(bytes: &[u8]) -> Result<Vec<RecordEntry>, WireError> {
    let mut entries = Vec::new();
    walk_entries(bytes, true, |entry| entries.push(entry))?;
    Ok(entries)
}

fn walk_entries(bytes: &[u8], with_summaries: bool, mut each: impl FnMut(RecordEntry)) -> Result<(), WireError> {
    let mut r = Reader::new(bytes);
    if r.u8()? != ENTRIES_VERSION {
        return Err(WireError { expected: "footer entries of version 1", offset: 0 });
    }
    let streams = ids(&mut r)?;
    let runs = ids(&mut r)?;
    let configs = ids(&mut r)?;
    let dictionaries = Dictionaries { streams, runs, configs };
    let count = r.count(ENTRY_LEN_MIN)?;
    let mut end = HEADER_LEN as u64;
    for _ in 0..count {
        let (shape, offset) = dictionaries.place(&mut r, end)?;
        let has_summary = shape.kind == RecordKind::Fragment;
        let summary = if has_summary { summary(&mut r, with_summaries)? } else { None };
        let entry = RecordEntry { shape, offset, summary };
        end = entry.end();
        each(entry);
    }
    r.finish()
}

fn ids(r: &mut Reader<'_>) -> Result<Vec<[u8; 16]>, WireError> {
    let count = r.count(16)?;
    (0..count).map(|_| r.array()).collect()
}

struct Dictionaries {
    streams: Vec<[u8; 16]>,
    runs: Vec<[u8; 16]>,
    configs: Vec<[u8; 16]>,
}

fn pick(r: &mut Reader<'_>, from: &[[u8; 16]]) -> Result<[u8; 16], WireError> {
    let index = r.varint_as::<usize>()?;
    from.get(index).copied().ok_or_else(|| r.error("an index into the dictionary"))
}

impl Dictionaries {
    /// Shape and offset of a record; `end` is that of the one before.
    fn place(&self, r: &mut Reader<'_>, end: u64) -> Result<(RecordShape, u64), WireError> {
        let kind = r.u8()?;
        let kind = RecordKind::from_code(kind).ok_or_else(|| r.error("a known record kind"))?;
        let class = r.u8()?;
        let stream = StreamId::from_bytes(pick(r, &self.streams)?);
        let mut shape = RecordShape::bare(kind, stream, FragmentNumber::from_bytes(r.array()?), ConfigId::NONE);
        shape.class = class;
        shape.key_version = r.u32()?;
        let offset = end.checked_add(r.varint()?).filter(|offset| *offset < 1 << 62);
        let offset = offset.ok_or_else(|| r.error("an offset"))?;
        (shape.facts_len, shape.table_len, shape.media_len) = (r.varint_as()?, r.varint_as()?, r.varint()?);
        if !shape.within_bounds() {
            return Err(r.error("lengths within bounds"));
        }
        if kind == RecordKind::Config {
            shape.meta.config = ConfigId(pick(r, &self.configs)?);
        }
        if has_run(kind) {
            self.fragment(r, &mut shape)?;
        }
        Ok((shape, offset))
    }

    fn fragment(&self, r: &mut Reader<'_>, shape: &mut RecordShape) -> Result<(), WireError> {
        let FragmentMeta { stream, number, .. } = shape.meta;
        shape.meta = FragmentMeta {
            stream,
            number,
            run: RunId::from_bytes(pick(r, &self.runs)?),
            config: ConfigId(pick(r, &self.configs)?),
            lease_epoch: r.varint_as()?,
            ordinal: r.varint()?,
            discontinuity: r.varint_as()?,
            producer_start: UnixMs(r.signed()?),
            duration_ms: r.varint_as()?,
            flags: FragmentFlags(r.varint_as()?),
        };
        shape.part = r.varint_as()?;
        Ok(())
    }
}

/// None where it is not wanted: it is read all the same.
fn summary(r: &mut Reader<'_>, is_wanted: bool) -> Result<Option<Summary>, WireError> {
    let (size_bytes, sync_back, count) = (r.varint()?, r.varint_as()?, r.count(7)?);
    if count > TOTALS_MAX {
        return Err(r.error("totals of at most 3 tracks"));
    }
    let mut totals = Vec::with_capacity(if is_wanted { count } else { 0 });
    for _ in 0..count {
        let own = TrackTotals::decode(r)?;
        if is_wanted {
            totals.push(own);
        }
    }
    Ok(is_wanted.then_some(Summary { size_bytes, sync_back, totals }))
}

#[cfg(test)]
#[path = "footer_tests.rs"]
mod tests;
