//! One record: header, sealed facts, sealed table, sealed media. Layout: `docs/formats/record.md`.
//!
//! # Invariants
//! 1. Every field of the header is authenticated with everything that is sealed under it.
//! 2. Each record has a key of its own, so no (key, nonce) pair repeats, whatever crashes or is cloned.
//! 3. No plaintext leaves this module whose tag did not match.

use std::ops::Range;

use bytes::Bytes;
use vidar_core::entry::Locator;
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId};
use vidar_core::record::{FragmentFacts, FragmentFlags, FragmentMeta, TableEnvelope};
use vidar_core::source::FragmentHead;
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

use super::{BLOCK_LEN, LARGE_RECORD_LEN, align_up};
use crate::backend::blocks::Blocks;
use crate::crypto::aead::{Aead, RingAead, TAG_LEN, TagMismatch};
use crate::crypto::keys::{Secret, Section, record_key};

const MAGIC: &[u8; 4] = b"VREC";
const VERSION: u16 = 1;
/// Bytes of the header.
pub(crate) const RECORD_HEADER_LEN: usize = 168;
const AAD_LEN: usize = RECORD_HEADER_LEN - 4;
/// Plain bytes of a chunk of media.
pub(crate) const CHUNK_LEN: u64 = 64 << 10;
const SEALED_CHUNK_LEN: u64 = CHUNK_LEN + TAG_LEN as u64;
/// Plain bytes of the facts of a record.
pub(crate) const FACTS_LEN_MAX: u32 = 1 << 20;
/// Plain bytes of the table of a record.
pub(crate) const TABLE_LEN_MAX: u32 = 64 << 20;
/// Plain bytes of the media of a record.
pub(crate) const MEDIA_LEN_MAX: u64 = 256 << 20;

/// What a record holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum RecordKind {
    /// A fragment, or the close of one that was written in parts.
    Fragment,
    /// A part of a fragment that was open.
    Part,
    /// What decodes fragments.
    Config,
    /// What happened beside media.
    Control,
}

impl RecordKind {
    pub(crate) const fn code(self) -> u8 {
        match self {
            Self::Fragment => 1,
            Self::Part => 2,
            Self::Config => 3,
            Self::Control => 4,
        }
    }

    pub(crate) const fn from_code(code: u8) -> Option<Self> {
        match code {
            1 => Some(Self::Fragment),
            2 => Some(Self::Part),
            3 => Some(Self::Config),
            4 => Some(Self::Control),
            _ => None,
        }
    }
}

/// Everything in a header but its salt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordShape {
    pub(crate) kind: RecordKind,
    /// Of retention.
    pub(crate) class: u8,
    pub(crate) key_version: u32,
    /// Of a config or control record only stream, number and config are meant.
    pub(crate) meta: FragmentMeta,
    /// Of a part its index; of a fragment how many parts stand before it.
    pub(crate) part: u16,
    pub(crate) facts_len: u32,
    pub(crate) table_len: u32,
    pub(crate) media_len: u64,
}

impl RecordShape {
    /// A shape with nothing in it but stream and number.
    pub(crate) fn bare(kind: RecordKind, stream: StreamId, number: FragmentNumber, config: ConfigId) -> Self {
        let meta = FragmentMeta {
            stream,
            number,
            run: RunId::from_bytes([0; 16]),
            lease_epoch: 0,
            ordinal: 0,
            discontinuity: 0,
            producer_start: UnixMs(0),
            duration_ms: 0,
            config,
            flags: FragmentFlags(0),
        };
        Self { kind, class: 0, key_version: 1, meta, part: 0, facts_len: 0, table_len: 0, media_len: 0 }
    }

    /// No length is beyond what this version writes.
    pub(crate) fn within_bounds(&self) -> bool {
        self.facts_len <= FACTS_LEN_MAX && self.table_len <= TABLE_LEN_MAX && self.media_len <= MEDIA_LEN_MAX
    }

    /// Sealed bytes of header, facts and table.
    pub(crate) fn head_len(&self) -> u32 {
        // Within u32: the bounds of facts and table are far below it.
        (RECORD_HEADER_LEN + 2 * TAG_LEN) as u32 + self.facts_len + self.table_len
    }

    /// Sealed bytes of the record.
    pub(crate) fn record_len(&self) -> u64 {
        u64::from(self.head_len()) + sealed_media_len(self.media_len)
    }

    /// Where a record of this shape goes that would otherwise start at `offset`.
    pub(crate) fn place(&self, offset: u64) -> u64 {
        align_up(offset, if self.record_len() >= LARGE_RECORD_LEN { BLOCK_LEN } else { 8 })
    }

    pub(crate) fn locator(&self, file: FileId, volume: u16, offset: u64) -> Locator {
        let (head_len, media_len, record_len) = (self.head_len(), self.media_len, self.record_len());
        Locator { volume, file, offset, head_len, media_len, record_len }
    }
}

fn chunk_count(media_len: u64) -> u64 {
    media_len.div_ceil(CHUNK_LEN)
}

fn sealed_media_len(media_len: u64) -> u64 {
    media_len + chunk_count(media_len) * TAG_LEN as u64
}

/// The header of a record.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct RecordHeader {
    pub(crate) shape: RecordShape,
    /// Random: makes the key of this record.
    pub(crate) salt: [u8; 32],
}

impl RecordHeader {
    pub(crate) fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        let RecordShape { kind, class, key_version, meta, part, facts_len, table_len, media_len } = &self.shape;
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).u8(kind.code()).u8(*class).u32(*key_version);
        w.raw(meta.stream.as_bytes()).raw(meta.number.as_bytes()).raw(&self.salt).raw(meta.run.as_bytes());
        w.u32(meta.lease_epoch).u32(meta.discontinuity).u64(meta.ordinal).i64(meta.producer_start.0);
        w.u32(meta.duration_ms).u16(meta.flags.0).u16(*part).raw(&meta.config.0);
        w.u32(*facts_len).u32(*table_len).u64(*media_len).u32(0);
        let mut bytes = w.into_vec();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        bytes.try_into().expect("168 bytes")
    }

    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array()? != *MAGIC {
            return Err(WireError { expected: "the header of a record", offset: 0 });
        }
        let (version, kind, class, key_version) = (r.u16()?, r.u8()?, r.u8()?, r.u32()?);
        let (stream, number, salt) = (r.array()?, r.array()?, r.array()?);
        let run = r.array()?;
        let (lease_epoch, discontinuity, ordinal) = (r.u32()?, r.u32()?, r.u64()?);
        let (producer_start, duration_ms, flags, part) = (r.i64()?, r.u32()?, r.u16()?, r.u16()?);
        let config = ConfigId(r.array()?);
        let (facts_len, table_len, media_len, reserved) = (r.u32()?, r.u32()?, r.u64()?, r.u32()?);
        if r.u32()? != crc32c::crc32c(&bytes[..AAD_LEN]) {
            return Err(WireError { expected: "the checksum of the record header", offset: AAD_LEN });
        }
        if version != VERSION {
            return Err(WireError { expected: "record format version 1", offset: 4 });
        }
        if reserved != 0 {
            return Err(WireError { expected: "reserved bytes of 0", offset: 160 });
        }
        let kind = RecordKind::from_code(kind).ok_or(WireError { expected: "a known record kind", offset: 6 })?;
        let meta = FragmentMeta {
            stream: StreamId::from_bytes(stream),
            number: FragmentNumber::from_bytes(number),
            run: RunId::from_bytes(run),
            lease_epoch,
            ordinal,
            discontinuity,
            producer_start: UnixMs(producer_start),
            duration_ms,
            config,
            flags: FragmentFlags(flags),
        };
        let shape = RecordShape { kind, class, key_version, meta, part, facts_len, table_len, media_len };
        if !shape.within_bounds() {
            return Err(WireError { expected: "lengths within bounds", offset: 144 });
        }
        Ok(Self { shape, salt })
    }
}

/// Seals sections one behind the other, in place: plain bytes are copied once, into `out`.
pub(crate) fn seal(out: &mut Blocks, header: &RecordHeader, outer: &Secret, content: &Content<'_>) {
    let bytes = header.encode();
    let (aead, aad) = (RingAead::new(&record_key(outer, header)), &bytes[..AAD_LEN]);
    out.reserve(usize::try_from(header.shape.record_len()).expect("bounded by MEDIA_LEN_MAX"));
    out.extend_from_slice(&bytes);
    seal_section(out, &aead, aad, Section::Facts, content.facts);
    seal_section(out, &aead, aad, Section::Table, content.table);
    seal_media(out, &aead, aad, content.media, header.shape.media_len);
}

/// What goes into a record.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Content<'a> {
    pub(crate) facts: &'a [u8],
    pub(crate) table: &'a [u8],
    pub(crate) media: &'a [Bytes],
}

/// Seals what stands in `out` from `start` on.
fn seal_from(out: &mut Blocks, start: usize, aead: &dyn Aead, aad: &[u8], section: Section) {
    let tag = aead.seal_in_place(&section.nonce(), aad, &mut out[start..]);
    out.extend_from_slice(&tag);
}

fn seal_section(out: &mut Blocks, aead: &dyn Aead, aad: &[u8], section: Section, plain: &[u8]) {
    let start = out.len();
    out.extend_from_slice(plain);
    seal_from(out, start, aead, aad, section);
}

/// Samples are copied into chunks however they are cut.
fn seal_media(out: &mut Blocks, aead: &dyn Aead, aad: &[u8], media: &[Bytes], media_len: u64) {
    let count = chunk_count(media_len);
    let (mut index, mut start, mut room) = (0, out.len(), CHUNK_LEN as usize);
    let mut end_chunk = |out: &mut Blocks, start: usize| {
        let index32 = u32::try_from(index).expect("bounded by MEDIA_LEN_MAX");
        index += 1;
        seal_from(out, start, aead, aad, Section::Chunk { index: index32, last: index == count });
        out.len()
    };
    for mut sample in media.iter().map(|bytes| &bytes[..]) {
        while !sample.is_empty() {
            let (piece, rest) = sample.split_at(room.min(sample.len()));
            out.extend_from_slice(piece);
            (sample, room) = (rest, room - piece.len());
            if room == 0 {
                (start, room) = (end_chunk(out, start), CHUNK_LEN as usize);
            }
        }
    }
    if room < CHUNK_LEN as usize {
        end_chunk(out, start);
    }
}

/// Why a record does not open.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum OpenRecordError {
    #[error("{0}")]
    Wire(#[from] WireError),
    #[error("the tag of {section} does not match")]
    Tag { section: &'static str },
}

/// A record whose key is known.
pub(crate) struct RecordOpener {
    pub(crate) shape: RecordShape,
    aad: [u8; AAD_LEN],
    aead: RingAead,
}

impl RecordOpener {
    /// `bytes` begin with the header as it stands on disk.
    pub(crate) fn new(header: &RecordHeader, bytes: &[u8], outer: &Secret) -> Self {
        let aad = *bytes.first_chunk().expect("the header was read from them");
        Self { shape: header.shape, aad, aead: RingAead::new(&record_key(outer, header)) }
    }

    fn open<'a>(
        &self,
        section: Section,
        name: &'static str,
        sealed: &'a mut [u8],
    ) -> Result<&'a [u8], OpenRecordError> {
        let plain = self.aead.open_in_place(&section.nonce(), &self.aad, sealed);
        plain.map(|plain| &*plain).map_err(|TagMismatch| OpenRecordError::Tag { section: name })
    }

    /// Facts and table out of the bytes of a head.
    pub(crate) fn head(&self, mut head: Vec<u8>) -> Result<(Bytes, Bytes), OpenRecordError> {
        let (facts_len, table_len) = (self.shape.facts_len as usize, self.shape.table_len as usize);
        let table_start = RECORD_HEADER_LEN + facts_len + TAG_LEN;
        let end = table_start + table_len + TAG_LEN;
        if head.len() < end {
            return Err(WireError { expected: "the whole head", offset: head.len() }.into());
        }
        self.open(Section::Facts, "the facts", &mut head[RECORD_HEADER_LEN..table_start])?;
        self.open(Section::Table, "the table", &mut head[table_start..end])?;
        let head = Bytes::from(head);
        let facts = head.slice(RECORD_HEADER_LEN..RECORD_HEADER_LEN + facts_len);
        Ok((facts, head.slice(table_start..table_start + table_len)))
    }

    /// The facts alone, opened in place in the bytes of a head.
    pub(crate) fn facts(&self, head: &mut [u8]) -> Result<FragmentFacts, OpenRecordError> {
        let short = WireError { expected: "the whole head", offset: head.len() };
        let sealed = head.get_mut(RECORD_HEADER_LEN..RECORD_HEADER_LEN + self.shape.facts_len as usize + TAG_LEN);
        Ok(FragmentFacts::decode(self.open(Section::Facts, "the facts", sealed.ok_or(short)?)?)?)
    }

    /// The head of a fragment or part, read.
    pub(crate) fn fragment_head(&self, head: Vec<u8>) -> Result<FragmentHead, OpenRecordError> {
        let (facts, table) = self.head(head)?;
        Ok(FragmentHead { facts: FragmentFacts::decode(&facts)?, table: TableEnvelope::decode(&table)? })
    }

    /// Where the chunks stand that a range of the media touches.
    pub(crate) fn span(&self, range: &Range<u64>) -> MediaSpan {
        let first_chunk = range.start / CHUNK_LEN;
        let end_chunk = chunk_count(range.end).max(first_chunk);
        let media_end = sealed_media_len(self.shape.media_len);
        let offset = first_chunk * SEALED_CHUNK_LEN;
        let sealed_len = (end_chunk * SEALED_CHUNK_LEN).min(media_end).saturating_sub(offset);
        MediaSpan { first_chunk, offset, sealed_len, skip: range.start - first_chunk * CHUNK_LEN }
    }

    /// Opens the chunks of a span in place; `len` plain bytes of it are wanted.
    pub(crate) fn media(&self, span: &MediaSpan, sealed: &mut [u8], len: u64) -> Result<Bytes, OpenRecordError> {
        let last_chunk = chunk_count(self.shape.media_len).saturating_sub(1);
        // What is wanted is not believed before it is there.
        let mut plain = Vec::with_capacity(sealed.len().min(usize::try_from(len).unwrap_or(usize::MAX)));
        let mut skip = span.skip as usize;
        for (index, chunk) in (span.first_chunk..).zip(sealed.chunks_mut(SEALED_CHUNK_LEN as usize)) {
            let index32 = u32::try_from(index).expect("bounded by MEDIA_LEN_MAX");
            let section = Section::Chunk { index: index32, last: index == last_chunk };
            let opened = self.open(section, "a chunk of media", chunk)?;
            let wanted = opened.get(skip..).unwrap_or_default();
            skip = skip.saturating_sub(opened.len());
            let left = len - plain.len() as u64;
            plain.extend_from_slice(&wanted[..wanted.len().min(usize::try_from(left).unwrap_or(usize::MAX))]);
        }
        if plain.len() as u64 != len {
            return Err(WireError { expected: "a range inside the media", offset: plain.len() }.into());
        }
        Ok(plain.into())
    }
}

/// Chunks that a range of media touches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct MediaSpan {
    first_chunk: u64,
    /// From the start of the sealed media.
    pub(crate) offset: u64,
    pub(crate) sealed_len: u64,
    skip: u64,
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
