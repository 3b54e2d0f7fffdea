//! What the log adds up to in all segment files that were closed at some moment: a start goes on from there instead of
//! reading all of it.
//! Layout: `docs/formats/checkpoint.md`.
//!
//! Nothing depends on it. It is trusted only if the directory holds what it says, and if all observers have what they saved
//! under its id; else a start reads the whole log, and finds the same.

pub(crate) mod keeper;
#[cfg(test)]
mod tests;

use std::collections::HashMap;
use std::io;
use std::sync::Arc;

use uuid::Uuid;
use vidar_core::control::ControlRecord;
use vidar_core::entry::Locator;
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId};
use vidar_core::record::{FragmentFlags, FragmentMeta};
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

use crate::backend::SegmentIo;
use crate::crypto::aead::{Aead, RingAead};
use crate::crypto::keyring::Keyring;
use crate::crypto::keys::{checkpoint_key, random};
use crate::files::FileInfo;
use crate::load::{OpenFragments, OpenPart, OpenParts};
use crate::segment_file::header::FileHeader;

/// Name of the file in the data directory.
const NAME: &str = "checkpoint";
const MAGIC: &[u8; 8] = b"VIDARCKP";
const VERSION: u16 = 2;
/// Bytes before what is sealed.
const HEADER_LEN: usize = 64;

/// Position of a file in the log: epoch, and sequence within it.
pub(crate) type Position = (u32, u32);

/// See the module.
#[derive(Debug, Clone)]
pub(crate) struct Checkpoint {
    /// What observers saved has it, too.
    pub(crate) id: Uuid,
    /// Every file that is not included stands behind this, …
    pub(crate) last: Position,
    /// … but for those that took batches still.
    pub(crate) left_out: Vec<FileId>,
    pub(crate) archive: UnixMs,
    /// All of them have their footers.
    pub(crate) files: Vec<FileInfo>,
    /// Those that still matter.
    pub(crate) controls: Vec<Arc<ControlRecord>>,
    /// The last fragment of each run.
    pub(crate) runs: Vec<(RunId, StreamId, FragmentNumber)>,
    /// The newest version of the key of each stream.
    pub(crate) keys: Vec<(StreamId, u32)>,
    /// Parts in the included files whose fragments are not closed in them.
    pub(crate) open: OpenFragments,
}

impl Checkpoint {
    /// The checkpoint in a directory, if there is one that opens.
    pub(crate) fn read(io: &dyn SegmentIo, keys: &Keyring) -> Option<Self> {
        let bytes = io.read_small(NAME).ok()?.filter(|bytes| !bytes.is_empty())?;
        let opened = Self::open(bytes, keys);
        opened.inspect_err(|error| tracing::warn!(%error, "the checkpoint does not open")).ok()
    }

    /// Replaces it.
    pub(crate) fn write(&self, io: &dyn SegmentIo, keys: &Keyring) -> io::Result<()> {
        io.replace_small(NAME, &self.seal(keys))
    }

    /// Puts an empty file in its place: what it does not agree with now may change until it seems to.
    pub(crate) fn discard(io: &dyn SegmentIo) -> io::Result<()> {
        io.replace_small(NAME, &[])
    }

    fn seal(&self, keys: &Keyring) -> Vec<u8> {
        let salt: [u8; 32] = random();
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).raw(&[0; 6]).raw(keys.store.as_bytes()).raw(&salt);
        let header = w.into_vec();
        let mut plain = self.encode();
        let aead = RingAead::new(&checkpoint_key(keys.log_key(), &salt));
        let tag = aead.seal_in_place(&[0; 12], &header, &mut plain);
        [header, plain, tag.to_vec()].concat()
    }

    fn open(mut bytes: Vec<u8>, keys: &Keyring) -> Result<Self, WireError> {
        let wrong = |expected| WireError { expected, offset: 0 };
        let (header, sealed) = bytes.split_at_mut_checked(HEADER_LEN).ok_or(wrong("a checkpoint"))?;
        let mut r = Reader::new(header);
        let magic = r.array()?;
        let version = r.u16()?;
        if magic != *MAGIC || !(1..=VERSION).contains(&version) {
            return Err(wrong("a checkpoint of version 1 or 2"));
        }
        r.raw(6)?;
        if r.array()? != *keys.store.as_bytes() {
            return Err(wrong("the checkpoint of this store"));
        }
        let aead = RingAead::new(&checkpoint_key(keys.log_key(), &r.array()?));
        let plain = aead.open_in_place(&[0; 12], header, sealed).map_err(|_| wrong("the tag of the checkpoint"))?;
        Self::decode(plain, version, keys.store)
    }

    fn encode(&self) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(self.id.as_bytes()).u32(self.last.0).u32(self.last.1).i64(self.archive.0);
        w.varint(self.files.len() as u64);
        self.files.iter().for_each(|info| write_file(&mut w, info));
        w.varint(self.controls.len() as u64);
        for record in &self.controls {
            w.bytes(&record.encode());
        }
        w.varint(self.runs.len() as u64);
        for (run, stream, last) in &self.runs {
            w.raw(run.as_bytes()).raw(stream.as_bytes()).raw(last.as_bytes());
        }
        w.varint(self.keys.len() as u64);
        for (stream, version) in &self.keys {
            w.raw(stream.as_bytes()).u32(*version);
        }
        w.varint(self.open.len() as u64);
        self.open.values().for_each(|open| write_open(&mut w, open));
        w.varint(self.left_out.len() as u64);
        self.left_out.iter().for_each(|file| {
            w.raw(file.as_bytes());
        });
        w.into_vec()
    }

    /// Version 1 was made where one file at a time took batches.
    fn decode(plain: &[u8], version: u16, store: Uuid) -> Result<Self, WireError> {
        let mut r = Reader::new(plain);
        let r = &mut r;
        let (id, last, archive) = (Uuid::from_bytes(r.array()?), (r.u32()?, r.u32()?), UnixMs(r.i64()?));
        let files = many(r, 50, |r| read_file(r, store))?;
        let controls = many(r, 22, |r| Ok(Arc::new(ControlRecord::decode(r.bytes()?)?)))?;
        let runs = many(r, 52, |r| Ok((RunId::from_bytes(r.array()?), stream(r)?, number(r)?)))?;
        let keys = many(r, 20, |r| Ok((stream(r)?, r.u32()?)))?;
        let open = many(r, 90, read_open)?;
        let open = open.into_iter().map(|open| ((open.meta.stream, open.meta.number), open)).collect::<HashMap<_, _>>();
        let left_out = if version == 1 { Vec::new() } else { many(r, 16, |r| Ok(FileId::from_bytes(r.array()?)))? };
        if r.remaining() > 0 {
            return Err(r.error("the end of the checkpoint"));
        }
        Ok(Self { id, last, left_out, archive, files, controls, runs, keys, open })
    }
}

fn many<T>(
    r: &mut Reader<'_>,
    each_bytes: usize,
    mut read: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = r.count(each_bytes)?;
    (0..count).map(|_| read(r)).collect()
}

fn stream(r: &mut Reader<'_>) -> Result<StreamId, WireError> {
    Ok(StreamId::from_bytes(r.array()?))
}

fn number(r: &mut Reader<'_>) -> Result<FragmentNumber, WireError> {
    Ok(FragmentNumber::from_bytes(r.array()?))
}

fn write_file(w: &mut Writer, info: &FileInfo) {
    let FileHeader { file, epoch, sequence, volume, created, archive, replaces, .. } = &info.header;
    w.raw(file.as_bytes()).u32(*epoch).u32(*sequence).u16(*volume).i64(created.0).i64(archive.0);
    w.option(*replaces, |w, (file, end)| {
        w.raw(file.as_bytes()).u64(end);
    });
    w.varint(info.data_end).option(info.first, |w, first| {
        w.u64(first);
    });
    w.option(info.witness, |w, (stream, last)| {
        w.raw(stream.as_bytes()).raw(last.as_bytes());
    });
}

fn read_file(r: &mut Reader<'_>, store: Uuid) -> Result<FileInfo, WireError> {
    let header = FileHeader {
        read_only: false,
        store,
        file: FileId::from_bytes(r.array()?),
        epoch: r.u32()?,
        sequence: r.u32()?,
        volume: r.u16()?,
        created: UnixMs(r.i64()?),
        archive: UnixMs(r.i64()?),
        replaces: r.option(|r| Ok((FileId::from_bytes(r.array()?), r.u64()?)))?,
    };
    let mut info = FileInfo::new(header, true);
    (info.data_end, info.first) = (r.varint()?, r.option(Reader::u64)?);
    info.witness = r.option(|r| Ok((stream(r)?, number(r)?)))?;
    Ok(info)
}

fn write_open(w: &mut Writer, OpenParts { meta, parts, .. }: &OpenParts) {
    w.raw(meta.stream.as_bytes()).raw(meta.number.as_bytes()).raw(meta.run.as_bytes()).raw(&meta.config.0);
    w.varint(meta.lease_epoch.into()).varint(meta.ordinal).varint(meta.discontinuity.into());
    w.signed(meta.producer_start.0).varint(meta.duration_ms.into()).varint(meta.flags.0.into());
    w.varint(parts.len() as u64);
    for OpenPart { index, locator } in parts {
        let Locator { volume, file, offset, head_len, media_len, record_len } = locator;
        w.u16(*index).u16(*volume).raw(file.as_bytes()).varint(*offset);
        w.varint((*head_len).into()).varint(*media_len).varint(*record_len);
    }
}

fn read_open(r: &mut Reader<'_>) -> Result<OpenParts, WireError> {
    let meta = FragmentMeta {
        stream: stream(r)?,
        number: number(r)?,
        run: RunId::from_bytes(r.array()?),
        config: ConfigId(r.array()?),
        lease_epoch: r.varint_as()?,
        ordinal: r.varint()?,
        discontinuity: r.varint_as()?,
        producer_start: UnixMs(r.signed()?),
        duration_ms: r.varint_as()?,
        flags: FragmentFlags(r.varint_as()?),
    };
    let parts = many(r, 24, |r| {
        let (index, volume, file) = (r.u16()?, r.u16()?, FileId::from_bytes(r.array()?));
        let (offset, head_len, media_len, record_len) = (r.varint()?, r.varint_as()?, r.varint()?, r.varint()?);
        Ok(OpenPart { index, locator: Locator { volume, file, offset, head_len, media_len, record_len } })
    })?;
    // It is closed at once: of which class it was does not matter any more.
    Ok(OpenParts { meta, class: 0, parts })
}
