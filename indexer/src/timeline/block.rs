//! Blocks: some hundred neighbouring fragments of a stream, column by column.
//!
//! ```text
//! u8 format_version 2 | 16 stream | varint count
//! dictionaries: runs, configs (16 bytes each), details
//! rows of entries | rows of parts | for each place among the totals: rows of the entries that have so many
//! rows of wall clocks
//! ```
//!
//! A row is cut into fields, and the fields of all rows stand together as [columns](super::column). A field is what the
//! neighbour before does not already tell: most take a few bits or none. Layout of rows: `docs/formats/timeline.md`.

use std::sync::Arc;

use vidar_core::entry::{ENTRY_TRACK_COUNT_MAX, FragmentEntry, Locator, SharedEntry};
use vidar_core::ids::{ConfigId, FragmentNumber, RunId, StreamId};
use vidar_core::record::{FragmentFlags, FragmentMeta, TrackTotals, WallSource};
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

use super::column;
use super::details::Details;
use super::names::FileNames;

const FORMAT_VERSION: u8 = 2;
/// Fragments of a block at most, whatever wrote it.
const COUNT_MAX: usize = 4096;
/// Parts of all fragments of a block at most.
const PART_COUNT_MAX: usize = 1 << 20;
/// What sealing adds to media: a tag for so many bytes. A guess, only for compression.
const CHUNK_LEN: u64 = 64 * 1024;
const TAG_LEN: u64 = 16;

/// A fragment, as the timeline holds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Slot {
    pub(super) entry: SharedEntry,
    pub(super) details: Details,
}

impl Slot {
    pub(super) fn number(&self) -> FragmentNumber {
        self.entry.meta.number
    }
}

const ENTRY_FIELDS: usize = 18;
const PLACE_FIELDS: usize = 7;
const TOTALS_FIELDS: usize = 7;
const WALL_FIELDS: usize = 2;

/// The plain bytes of a block. All slots are of one stream, in the order of their numbers.
pub(super) fn encode(stream: StreamId, slots: &[Slot], names: &FileNames) -> Vec<u8> {
    let (mut runs, mut configs, mut details) = (Vec::new(), Vec::new(), Vec::new());
    let mut files = names.writer();
    let (mut entries, mut records, mut parts, mut walls) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    let mut before = None;
    for Slot { entry, details: own } in slots {
        let named = [index_of(&mut runs, &entry.meta.run), index_of(&mut configs, &entry.meta.config)];
        entries.push(entry_row(entry, before, [named[0], named[1], index_of(&mut details, &own.shared())]));
        records.push(place_row(&entry.record, files.index(entry.record.file), entry.size_bytes));
        for part in &entry.parts {
            parts.push(place_row(part, files.index(part.file), 0));
        }
        walls.push([own.wall_source.code().into(), own.wall_offset_ms]);
        before = Some(&**entry);
    }
    drop(files);
    let mut w = Writer::new();
    w.u8(FORMAT_VERSION).raw(stream.as_bytes()).varint(slots.len() as u64);
    put_dictionary(&mut w, &runs, |w, run| {
        w.raw(run.as_bytes());
    });
    put_dictionary(&mut w, &configs, |w, config| {
        w.raw(&config.0);
    });
    put_dictionary(&mut w, &details, |w, details| details.encode(w));
    put_rows(&mut w, &entries);
    put_rows(&mut w, &records);
    put_rows(&mut w, &parts);
    for track in 0..ENTRY_TRACK_COUNT_MAX {
        let mut before = TrackTotals::default();
        let rows = slots.iter().filter_map(|slot| {
            let totals = slot.entry.totals.get(track)?;
            let row = totals_row(totals, &before, rest_bytes(&slot.entry, track));
            before = *totals;
            Some(row)
        });
        put_rows(&mut w, &rows.collect::<Vec<_>>());
    }
    put_rows(&mut w, &walls);
    w.into_vec()
}

/// Reads what `encode` wrote.
pub(super) fn decode(bytes: &[u8], stream: StreamId, names: &FileNames) -> Result<Vec<Slot>, WireError> {
    let mut r = Reader::new(bytes);
    if r.u8()? != FORMAT_VERSION || r.array::<16>()? != *stream.as_bytes() {
        return Err(WireError { expected: "a timeline block of this stream, version 2", offset: 0 });
    }
    let count: usize = r.varint_as()?;
    if count > COUNT_MAX {
        return Err(r.error("at most 4096 fragments in a block"));
    }
    let runs = take_dictionary(&mut r, 16, |r| Ok(RunId::from_bytes(r.array()?)))?;
    let configs = take_dictionary(&mut r, 16, |r| Ok(ConfigId(r.array()?)))?;
    let details: Vec<Details> = take_dictionary(&mut r, 3, Details::decode)?;
    let entries: Vec<[i64; ENTRY_FIELDS]> = take_rows(&mut r, count)?;
    let records: Vec<[i64; PLACE_FIELDS]> = take_rows(&mut r, count)?;
    let part_count = entries.iter().map(|row| usize::try_from(row[16]).unwrap_or(usize::MAX));
    let part_count = part_count.fold(0_usize, usize::saturating_add);
    if part_count > PART_COUNT_MAX {
        return Err(r.error("fewer parts in a block"));
    }
    let parts: Vec<[i64; PLACE_FIELDS]> = take_rows(&mut r, part_count)?;
    let mut totals = Vec::with_capacity(ENTRY_TRACK_COUNT_MAX);
    for track in 0..ENTRY_TRACK_COUNT_MAX {
        let has = entries.iter().filter(|row| row[17] > track as i64).count();
        totals.push(take_rows::<TOTALS_FIELDS>(&mut r, has)?.into_iter());
    }
    let walls: Vec<[i64; WALL_FIELDS]> = take_rows(&mut r, count)?;
    r.finish()?;

    let damaged = |expected| move || WireError { expected, offset: 0 };
    let files = names.reader();
    let place = |row: &[i64; PLACE_FIELDS], size| place(row, size, &files).ok_or_else(damaged("a known file"));
    let mut parts = parts.iter();
    let mut before_totals = [TrackTotals::default(); ENTRY_TRACK_COUNT_MAX];
    let mut slots: Vec<Slot> = Vec::with_capacity(count);
    for ((row, record), wall) in entries.iter().zip(&records).zip(&walls) {
        let before = slots.last().map(|slot| &*slot.entry);
        let mut entry = entry(stream, row, before, &runs, &configs).ok_or_else(damaged("a run and a config"))?;
        entry.record = place(record, entry.size_bytes)?;
        let own = parts.by_ref().take(usize::try_from(row[16]).unwrap_or(0));
        entry.parts = own.map(|row| place(row, 0)).collect::<Result<_, _>>()?;
        for (track, (rows, before)) in totals.iter_mut().zip(&mut before_totals).enumerate() {
            if row[17] > track as i64 {
                let row = rows.next().ok_or_else(damaged("totals"))?;
                *before = totals_of(&row, before, rest_bytes(&entry, track)).ok_or_else(damaged("totals"))?;
                entry.totals.push(*before);
            }
        }
        let own = details_at(&details, row[2], wall).ok_or_else(damaged("details"))?;
        if before.is_some_and(|before| before.meta.number >= entry.meta.number) {
            return Err(damaged("ascending numbers")());
        }
        slots.push(Slot { entry: Arc::new(entry), details: own });
    }
    Ok(slots)
}

/// For fuzzing: what these bytes hold is the same after it was written again.
pub(crate) fn round_trip(bytes: &[u8]) {
    let (stream, names) = (StreamId::from_bytes([0; 16]), FileNames::default());
    for byte in 0..4 {
        names.writer().index(vidar_core::ids::FileId::from_bytes([byte; 16]));
    }
    if let Ok(slots) = decode(bytes, stream, &names) {
        let again = encode(stream, &slots, &names);
        assert_eq!(decode(&again, stream, &names).as_deref(), Ok(&slots[..]));
    }
}

fn details_at(details: &[Details], index: i64, wall: &[i64; WALL_FIELDS]) -> Option<Details> {
    let mut own = details.get(usize::try_from(index).ok()?)?.clone();
    own.wall_source = WallSource::from_code(wall[0].try_into().ok()?)?;
    own.wall_offset_ms = wall[1];
    Some(own)
}

/// The parts of a number: 4 high bits, sequence, milliseconds, random bits.
fn split(number: FragmentNumber) -> [u64; 4] {
    let (high, low) = number.as_bytes().split_at(4);
    let high = u64::from(u32::from_be_bytes(high.try_into().unwrap_or_default()));
    let low = u128::from_be_bytes(low.try_into().unwrap_or_default());
    [high >> 28, (high & 0x0fff_ffff) << 36 | (low >> 92) as u64, (low >> 28) as u64, low as u64 & 0x0fff_ffff]
}

fn join([top, sequence, ms, random]: [u64; 4]) -> FragmentNumber {
    let high = (top as u32) << 28 | (sequence >> 36) as u32;
    let low = u128::from(sequence) << 92 | u128::from(ms) << 28 | u128::from(random & 0x0fff_ffff);
    let mut bytes = [0; 20];
    bytes[..4].copy_from_slice(&high.to_be_bytes());
    bytes[4..].copy_from_slice(&low.to_be_bytes());
    FragmentNumber::from_bytes(bytes)
}

fn less(a: u64, b: u64) -> i64 {
    a.wrapping_sub(b).cast_signed()
}

fn plus(a: u64, b: i64) -> u64 {
    a.wrapping_add(b.cast_unsigned())
}

fn entry_row(
    entry: &FragmentEntry,
    before: Option<&FragmentEntry>,
    [run, config, details]: [i64; 3],
) -> [i64; ENTRY_FIELDS] {
    let meta = &entry.meta;
    let own = split(meta.number);
    let last = before.map_or([0; 4], |before| split(before.meta.number));
    let (ordinal, discontinuity, end) = follows(before);
    [
        run,
        config,
        details,
        own[0].cast_signed(),
        less(own[1], last[1]),
        less(own[2], last[2]),
        own[3].cast_signed(),
        meta.lease_epoch.into(),
        less(meta.ordinal, ordinal),
        i64::from(meta.discontinuity) - i64::from(discontinuity),
        meta.producer_start.0.wrapping_sub(end.0),
        meta.duration_ms.into(),
        meta.flags.0.into(),
        entry.size_bytes.cast_signed(),
        entry.sync_back.into(),
        entry.archived.0.wrapping_sub(meta.server_start().0),
        entry.parts.len() as i64,
        entry.totals.len() as i64,
    ]
}

/// What most follow with: ordinal, discontinuity, producer start.
fn follows(before: Option<&FragmentEntry>) -> (u64, u32, UnixMs) {
    before.map_or((0, 0, UnixMs(0)), |before| {
        (before.meta.ordinal, before.meta.discontinuity, before.meta.producer_end())
    })
}

/// The entry of a row, without places and totals.
fn entry(
    stream: StreamId,
    row: &[i64; ENTRY_FIELDS],
    before: Option<&FragmentEntry>,
    runs: &[RunId],
    configs: &[ConfigId],
) -> Option<FragmentEntry> {
    let last = before.map_or([0; 4], |before| split(before.meta.number));
    let (ordinal, discontinuity, end) = follows(before);
    let own = [u64::try_from(row[3]).ok()?, plus(last[1], row[4]), plus(last[2], row[5]), row[6].cast_unsigned()];
    let meta = FragmentMeta {
        stream,
        number: join(own),
        run: *runs.get(usize::try_from(row[0]).ok()?)?,
        lease_epoch: row[7].try_into().ok()?,
        ordinal: plus(ordinal, row[8]),
        discontinuity: i64::from(discontinuity).checked_add(row[9])?.try_into().ok()?,
        producer_start: UnixMs(end.0.wrapping_add(row[10])),
        duration_ms: row[11].try_into().ok()?,
        config: *configs.get(usize::try_from(row[1]).ok()?)?,
        flags: FragmentFlags(row[12].try_into().ok()?),
    };
    let nowhere = Locator {
        volume: 0,
        file: vidar_core::ids::FileId::from_bytes([0; 16]),
        offset: 0,
        head_len: 0,
        media_len: 0,
        record_len: 0,
    };
    Some(FragmentEntry {
        meta,
        size_bytes: row[13].cast_unsigned(),
        totals: Vec::with_capacity(usize::try_from(row[17]).ok()?.min(ENTRY_TRACK_COUNT_MAX)),
        sync_back: row[14].try_into().ok()?,
        archived: UnixMs(meta.server_start().0.wrapping_add(row[15])),
        record: nowhere,
        parts: Vec::new(),
    })
}

/// `media`: the length to expect.
fn place_row(at: &Locator, file: u32, media: u64) -> [i64; PLACE_FIELDS] {
    [
        file.into(),
        at.volume.into(),
        // Large records begin on a multiple of 4096.
        (at.offset >> 12).cast_signed(),
        (at.offset & 4095).cast_signed(),
        at.head_len.into(),
        less(at.media_len, media),
        less(at.record_len, sealed_len(at.head_len, at.media_len)),
    ]
}

fn place(row: &[i64; PLACE_FIELDS], media: u64, files: &super::names::Reading<'_>) -> Option<Locator> {
    let (head_len, media_len) = (row[4].try_into().ok()?, plus(media, row[5]));
    Some(Locator {
        volume: row[1].try_into().ok()?,
        file: files.id(row[0].try_into().ok()?)?,
        offset: row[2].cast_unsigned() << 12 | row[3].cast_unsigned() & 4095,
        head_len,
        media_len,
        record_len: plus(sealed_len(head_len, media_len), row[6]),
    })
}

fn sealed_len(head_len: u32, media_len: u64) -> u64 {
    let tags = media_len.div_ceil(CHUNK_LEN).wrapping_mul(TAG_LEN);
    u64::from(head_len).wrapping_add(media_len).wrapping_add(tags)
}

/// Bytes of the fragment that the tracks before this one do not account for.
fn rest_bytes(entry: &FragmentEntry, track: usize) -> u64 {
    let before = entry.totals.iter().take(track).map(|totals| totals.mp4_bytes);
    before.fold(entry.size_bytes, u64::wrapping_sub)
}

fn totals_row(own: &TrackTotals, before: &TrackTotals, rest: u64) -> [i64; TOTALS_FIELDS] {
    [
        own.sample_count.into(),
        less(own.mp4_bytes, rest),
        own.stts_runs.into(),
        own.ctts_runs.into(),
        own.sync_count.into(),
        own.chunk_count.into(),
        own.first_decode_ticks.wrapping_sub(before.first_decode_ticks),
    ]
}

fn totals_of(row: &[i64; TOTALS_FIELDS], before: &TrackTotals, rest: u64) -> Option<TrackTotals> {
    Some(TrackTotals {
        sample_count: row[0].try_into().ok()?,
        mp4_bytes: plus(rest, row[1]),
        stts_runs: row[2].try_into().ok()?,
        ctts_runs: row[3].try_into().ok()?,
        sync_count: row[4].try_into().ok()?,
        chunk_count: row[5].try_into().ok()?,
        first_decode_ticks: before.first_decode_ticks.wrapping_add(row[6]),
    })
}

fn index_of<T: PartialEq + Clone>(known: &mut Vec<T>, value: &T) -> i64 {
    // The newest is the likeliest.
    let found = known.iter().rposition(|one| one == value);
    found.unwrap_or_else(|| {
        known.push(value.clone());
        known.len() - 1
    }) as i64
}

fn put_dictionary<T>(w: &mut Writer, items: &[T], put: impl Fn(&mut Writer, &T)) {
    w.varint(items.len() as u64);
    items.iter().for_each(|item| put(w, item));
}

fn take_dictionary<T>(
    r: &mut Reader<'_>,
    each_bytes: usize,
    mut take: impl FnMut(&mut Reader<'_>) -> Result<T, WireError>,
) -> Result<Vec<T>, WireError> {
    let count = r.count(each_bytes)?;
    (0..count).map(|_| take(r)).collect()
}

fn put_rows<const N: usize>(w: &mut Writer, rows: &[[i64; N]]) {
    let mut column = Vec::with_capacity(rows.len());
    for field in 0..N {
        column.clear();
        column.extend(rows.iter().map(|row| row[field]));
        column::encode(w, &column);
    }
}

fn take_rows<const N: usize>(r: &mut Reader<'_>, count: usize) -> Result<Vec<[i64; N]>, WireError> {
    let mut rows = vec![[0; N]; count];
    for field in 0..N {
        for (row, value) in rows.iter_mut().zip(column::decode(r, count)?) {
            row[field] = value;
        }
    }
    Ok(rows)
}

#[cfg(test)]
#[path = "block_tests.rs"]
mod tests;
