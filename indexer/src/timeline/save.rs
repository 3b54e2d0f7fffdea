//! What a checkpoint keeps of the timeline: `UUID.vts`, beside the timeline files that it refers to.
//!
//! ```text
//! u8 format_version 1 | bytes of whoever saves
//! varint count: timeline files (16 UUID, varint bytes of their blocks)
//! varint count: segment files (16 bytes each), by the numbers that blocks give them
//! varint count: streams, each as bytes of its own: 16 stream, what is kept beside its fragments, tail, blocks
//! ```
//!
//! All of it is in a sealed file, as those of search: what was cut or changed does not open. Layout:
//! `docs/formats/timeline.md`.
//!
//! # Invariants
//! 1. What a save refers to is on disk before the save has its name, and stays until the save is gone.
//! 2. A save that is odd in any way brings nothing back.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::{self, File};
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, RwLock};

use uuid::Uuid;
use vidar_core::ids::{FileId, FragmentNumber, RunId, StreamId};
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

use super::block::{self, Slot};
use super::block_file::{BlockFile, HEADER_LEN};
use super::files::Place;
use super::names::FileNames;
use super::stream::{Held, Run, Tail, View};
use super::tree::{Block, Summary, Sums, Tree};
use super::{Shared, Timeline};
use crate::interval::Span;
use crate::lock::{lock, read, write};
use crate::search::sealed;

/// Goes up with that of blocks: they are not read at a restore.
const FORMAT_VERSION: u8 = 2;
pub(super) const EXTENSION: &str = "vts";
pub(super) const TEMPORARY: &str = "vts-new";

pub(super) fn path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("{id}.{EXTENSION}"))
}

fn sealed_name(id: Uuid) -> String {
    format!("timeline/{id}.{EXTENSION}")
}

impl Timeline {
    /// Makes all that was added so far durable, with some bytes of the caller. Holds no lock for long.
    ///
    /// # Errors
    /// If it cannot be written, if blocks are damaged, or if the timeline is in memory.
    pub(crate) fn save(&self, id: Uuid, more: &[u8]) -> io::Result<()> {
        let shared = &self.shared;
        let _saving = lock(&shared.saving);
        let Some((dir, key)) = shared.files.home() else { return Err(io::ErrorKind::Unsupported.into()) };
        if shared.files.unreadable() > 0 {
            return Err(io::Error::other("timeline blocks are damaged, and made again by the next start"));
        }
        shared.files.pin();
        match shared.write_save(dir, key, id, more) {
            Ok(files) => {
                shared.files.keep(id, files);
                Ok(())
            }
            Err(error) => {
                shared.files.unpin();
                Err(error)
            }
        }
    }

    /// Brings back what was saved, before anything is added. None: nothing is brought back.
    pub(crate) fn restore(&self, id: Uuid) -> Option<Vec<u8>> {
        let shared = &self.shared;
        let (dir, key) = shared.files.home()?;
        if !read(&shared.streams).held.is_empty() {
            return None;
        }
        match Restored::open(dir, key, id) {
            Ok(restored) => Some(shared.take_over(id, restored)),
            Err(error) => {
                tracing::warn!(%id, %error, "the timeline was not saved whole; the log is replayed");
                None
            }
        }
    }
}

impl Shared {
    /// Answers the files it refers to.
    fn write_save(&self, dir: &Path, key: &[u8; 32], id: Uuid, more: &[u8]) -> io::Result<HashSet<u32>> {
        let held: Vec<_> = read(&self.streams).held.values().cloned().collect();
        let mut numbering = Numbering::default();
        let mut streams = Vec::with_capacity(held.len());
        for held in held {
            streams.push(self.encode_stream(&held, &mut numbering));
        }
        let mut w = Writer::new();
        w.u8(FORMAT_VERSION).bytes(more).varint(numbering.files.len() as u64);
        for file in &numbering.files {
            let file = self.files.get(*file).ok_or_else(|| io::Error::other("a timeline file is gone"))?;
            // The length first: what is written from now on belongs to a later save.
            let len = file.len.load(std::sync::atomic::Ordering::Acquire);
            file.sync()?;
            w.raw(file.name.as_bytes()).varint(len);
        }
        let names = self.files.names.all();
        w.varint(names.len() as u64);
        names.iter().for_each(|name| {
            w.raw(name.as_bytes());
        });
        w.varint(streams.len() as u64);
        let head = w.into_vec();
        let sections = streams.iter().map(|stream| {
            let mut len = Writer::new();
            len.varint(stream.len() as u64);
            (len.into_vec(), &stream[..])
        });
        let sections: Vec<_> = sections.collect();
        let parts = sections.iter().flat_map(|(len, bytes)| [&len[..], bytes]);
        write_file(dir, key, id, std::iter::once(&head[..]).chain(parts))?;
        Ok(numbering.files.into_iter().collect())
    }

    fn encode_stream(&self, held: &RwLock<Held>, numbering: &mut Numbering) -> Vec<u8> {
        let mut w = Writer::new();
        let (view, stream) = {
            let held = read(held);
            w.raw(held.stream.as_bytes()).varint(held.next_ordinal).varint(held.discontinuity.into());
            w.varint(held.runs.len() as u64);
            held.runs.iter().for_each(|(id, run)| put_run(&mut w, *id, run));
            (held.view.clone(), held.stream)
        };
        w.raw(view.floor.as_bytes()).varint(view.shadowed.len() as u64);
        for (number, sums) in view.shadowed.iter() {
            w.raw(number.as_bytes());
            put_sums(&mut w, *sums);
        }
        let tail: Vec<Slot> = view.tail.values().cloned().collect();
        let tail: Vec<&[Slot]> = tail.chunks(self.options.block_len).collect();
        w.varint(tail.len() as u64);
        for slots in tail {
            w.bytes(&block::encode(stream, slots, &self.files.names));
        }
        w.varint(view.tree.blocks().count() as u64);
        for block in view.tree.blocks() {
            put_place(&mut w, block.place, numbering);
            put_summary(&mut w, &block.summary);
        }
        // In files that nothing else needs they go with the file.
        let mut dead = self.files.dead(stream);
        dead.retain(|place| numbering.indexes.contains_key(&place.file));
        w.varint(dead.len() as u64);
        dead.into_iter().for_each(|place| put_place(&mut w, place, numbering));
        w.into_vec()
    }

    fn take_over(&self, id: Uuid, restored: Restored) -> Vec<u8> {
        let Restored { more, files, names, streams, dead } = restored;
        self.files.adopt(id, files, names, dead);
        let count = streams.iter().map(|held| held.view.tail.len()).sum();
        let held = streams.into_iter().map(|held| (held.stream, Arc::new(RwLock::new(held))));
        write(&self.streams).held = held.collect();
        self.tail_count.store(count, std::sync::atomic::Ordering::Relaxed);
        more
    }
}

/// Synced to a temporary name, renamed, and the directory synced, which also has the names of timeline files.
fn write_file<'a>(dir: &Path, key: &[u8; 32], id: Uuid, parts: impl Iterator<Item = &'a [u8]>) -> io::Result<()> {
    let temporary = dir.join(format!("{id}.{TEMPORARY}"));
    let mut writer = sealed::Writer::new(BufWriter::new(File::create(&temporary)?), key, &sealed_name(id))?;
    for part in parts {
        writer.write_all(part)?;
    }
    writer.finish()?;
    File::open(&temporary)?.sync_all()?;
    fs::rename(&temporary, path(dir, id))?;
    File::open(dir)?.sync_all()
}

/// Writes a save again without a stream.
pub(super) fn erase(dir: &Path, id: Uuid, key: &[u8; 32], stream: StreamId) -> io::Result<()> {
    let plain = sealed::open_all(key, &sealed_name(id), &fs::read(path(dir, id))?)?;
    let damaged = |error: WireError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
    let parts = Parts::read(&plain).map_err(damaged)?;
    let kept: Vec<&[u8]> =
        parts.streams.iter().copied().filter(|section| !section.starts_with(stream.as_bytes())).collect();
    if kept.len() == parts.streams.len() {
        return Ok(());
    }
    let mut w = Writer::new();
    w.raw(parts.head).varint(kept.len() as u64);
    kept.iter().for_each(|section| {
        w.bytes(section);
    });
    write_file(dir, key, id, std::iter::once(&w.into_vec()[..]))
}

/// Timeline files as a save counts them.
#[derive(Default)]
struct Numbering {
    files: Vec<u32>,
    indexes: HashMap<u32, u32>,
}

impl Numbering {
    fn index(&mut self, file: u32) -> u32 {
        *self.indexes.entry(file).or_insert_with(|| {
            self.files.push(file);
            u32::try_from(self.files.len() - 1).unwrap_or(u32::MAX)
        })
    }
}

/// A save as its parts.
struct Parts<'a> {
    /// All before the streams.
    head: &'a [u8],
    more: &'a [u8],
    files: Vec<(Uuid, u64)>,
    names: Vec<FileId>,
    streams: Vec<&'a [u8]>,
}

impl<'a> Parts<'a> {
    fn read(plain: &'a [u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(plain);
        if r.u8()? != FORMAT_VERSION {
            return Err(r.error("a save of the timeline, version 1"));
        }
        let more = r.bytes()?;
        let files = r.count(17)?;
        let files = (0..files).map(|_| Ok((Uuid::from_bytes(r.array()?), r.varint()?))).collect::<Result<_, _>>()?;
        let names = r.count(16)?;
        let names = (0..names).map(|_| Ok(FileId::from_bytes(r.array()?))).collect::<Result<_, _>>()?;
        let head = plain.get(..r.offset()).unwrap_or_default();
        let streams = r.count(1)?;
        let streams = (0..streams).map(|_| r.bytes()).collect::<Result<_, _>>()?;
        r.finish()?;
        Ok(Self { head, more, files, names, streams })
    }
}

/// What a save brings back.
struct Restored {
    more: Vec<u8>,
    files: Vec<BlockFile>,
    names: Vec<FileId>,
    streams: Vec<Held>,
    dead: HashMap<StreamId, Vec<Place>>,
}

impl Restored {
    fn open(dir: &Path, key: &[u8; 32], id: Uuid) -> io::Result<Self> {
        let plain = sealed::open_all(key, &sealed_name(id), &fs::read(path(dir, id))?)?;
        let damaged = |error: WireError| io::Error::new(io::ErrorKind::InvalidData, error.to_string());
        let parts = Parts::read(&plain).map_err(damaged)?;
        let names = FileNames::default();
        names.set(parts.names);
        let (mut streams, mut dead) = (Vec::with_capacity(parts.streams.len()), HashMap::new());
        let lens: Vec<u64> = parts.files.iter().map(|(_, len)| *len).collect();
        let mut live = vec![0_u64; lens.len()];
        for section in parts.streams {
            let (held, gone) = take_stream(&mut Reader::new(section), &names, &lens).map_err(damaged)?;
            for place in held.view.tree.blocks().map(|block| block.place) {
                live[place.file as usize] += u64::from(place.len);
            }
            if !gone.is_empty() {
                dead.insert(held.stream, gone);
            }
            streams.push(held);
        }
        // Last: it cuts off what was written after the save.
        let files = parts.files.iter().map(|(name, len)| BlockFile::open(dir, *name, *len, key));
        let files = files.collect::<io::Result<Vec<_>>>()?;
        for (file, live) in files.iter().zip(live) {
            file.live.store(live, std::sync::atomic::Ordering::Relaxed);
        }
        Ok(Self { more: parts.more.to_vec(), files, names: names.all(), streams, dead })
    }
}

/// `lens`: bytes of the blocks of each file.
fn take_stream(r: &mut Reader<'_>, names: &FileNames, lens: &[u64]) -> Result<(Held, Vec<Place>), WireError> {
    let mut held = Held::new(StreamId::from_bytes(r.array()?));
    (held.next_ordinal, held.discontinuity) = (r.varint()?, r.varint_as()?);
    for _ in 0..r.count(60)? {
        let (id, run) = take_run(r)?;
        held.runs.insert(id, run);
    }
    let floor = FragmentNumber::from_bytes(r.array()?);
    let mut shadowed = BTreeMap::new();
    for _ in 0..r.count(23)? {
        shadowed.insert(FragmentNumber::from_bytes(r.array()?), take_sums(r)?);
    }
    let mut tail = Tail::new();
    for _ in 0..r.count(1)? {
        let slots = block::decode(r.bytes()?, held.stream, names)?;
        tail.extend(slots.into_iter().map(|slot| (slot.number(), slot)));
    }
    let count = r.count(60)?;
    let mut blocks = Vec::with_capacity(count);
    for _ in 0..count {
        blocks.push(Block { place: take_place(r, lens)?, summary: take_summary(r)? });
    }
    let dead = r.count(4)?;
    let dead = (0..dead).map(|_| take_place(r, lens)).collect::<Result<_, _>>()?;
    let tree = Tree::of(&blocks).ok_or_else(|| r.error("blocks in the order of numbers"))?;
    if r.remaining() > 0 {
        return Err(r.error("nothing after the last block"));
    }
    held.view = View::of(tail, tree, shadowed, floor);
    Ok((held, dead))
}

fn put_run(w: &mut Writer, id: RunId, run: &Run) {
    w.raw(id.as_bytes()).raw(run.first.as_bytes()).raw(run.last.as_bytes()).varint(run.count);
    w.u8(run.jumps.into()).signed(run.last_span.start.0).signed(run.last_span.end.0);
}

fn take_run(r: &mut Reader<'_>) -> Result<(RunId, Run), WireError> {
    let id = RunId::from_bytes(r.array()?);
    let (first, last) = (FragmentNumber::from_bytes(r.array()?), FragmentNumber::from_bytes(r.array()?));
    let (count, jumps) = (r.varint()?, r.u8()? != 0);
    let last_span = Span { start: UnixMs(r.signed()?), end: UnixMs(r.signed()?) };
    Ok((id, Run { first, last, count, jumps, last_span }))
}

fn put_sums(w: &mut Writer, sums: Sums) {
    w.varint(sums.count).varint(sums.size_bytes).varint(sums.stored_bytes);
}

fn take_sums(r: &mut Reader<'_>) -> Result<Sums, WireError> {
    Ok(Sums { count: r.varint()?, size_bytes: r.varint()?, stored_bytes: r.varint()? })
}

fn put_place(w: &mut Writer, place: Place, numbering: &mut Numbering) {
    let file = numbering.index(place.file);
    w.varint(file.into()).varint(place.index.into()).varint(place.offset).varint(place.len.into());
}

fn take_place(r: &mut Reader<'_>, lens: &[u64]) -> Result<Place, WireError> {
    let place = Place { file: r.varint_as()?, index: r.varint_as()?, offset: r.varint()?, len: r.varint_as()? };
    let is_in =
        |len: &u64| place.offset.checked_add(place.len.into()).is_some_and(|end| end <= HEADER_LEN as u64 + len);
    if !lens.get(place.file as usize).is_some_and(is_in) {
        return Err(r.error("a place in a file"));
    }
    Ok(place)
}

fn put_summary(w: &mut Writer, summary: &Summary) {
    w.raw(summary.numbers.0.as_bytes()).raw(summary.numbers.1.as_bytes());
    w.varint(summary.ordinals.0).varint(summary.ordinals.1);
    for time in [summary.starts.0, summary.starts.1, summary.end, summary.server.0, summary.server.1] {
        w.signed(time.0);
    }
    w.option(summary.run, |w, run| {
        w.raw(run.as_bytes());
    });
    put_sums(w, summary.sums);
}

fn take_summary(r: &mut Reader<'_>) -> Result<Summary, WireError> {
    let numbers = (FragmentNumber::from_bytes(r.array()?), FragmentNumber::from_bytes(r.array()?));
    let ordinals = (r.varint()?, r.varint()?);
    let mut time = || r.signed().map(UnixMs);
    let (starts, end, server) = ((time()?, time()?), time()?, (time()?, time()?));
    let run = r.option(|r| Ok(RunId::from_bytes(r.array()?)))?;
    Ok(Summary { numbers, ordinals, starts, end, server, run, sums: take_sums(r)? })
}

#[cfg(test)]
#[path = "save_tests.rs"]
mod tests;
