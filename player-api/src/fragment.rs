//! A fragment opened for reading: its tables, and the bytes of its samples.
//!
//! The *MP4 view* of a sample is its stored bytes less the ranges its table entry drops (parameter sets that the
//! config holds anyway). Stored bytes are read in large contiguous ranges and handed on as slices.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::record::FragmentFacts;
use vidar_core::sample::SyncKind;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::ticks_to_ms_nearest;
use vidar_core::track::StreamConfig;
use vidar_media::table::{SampleEntry, Table};

use crate::Api;

/// Most bytes of one read from the store.
pub const READ_BYTES_MAX: u64 = 1 << 20;
/// Bytes between two wanted ranges that are read along rather than skipped.
const READ_GAP_BYTES_MAX: u64 = 16 << 10;

/// A fragment without its media.
#[derive(Debug, Clone)]
pub struct LoadedFragment {
    /// Its place in the timeline.
    pub entry: SharedEntry,
    /// What decodes its samples.
    pub config: Arc<StreamConfig>,
    /// What search and plans know of it.
    pub facts: FragmentFacts,
    /// In order of arrival: the part record that holds the media (none: the closing record), and its samples.
    pub pieces: Vec<(Option<u16>, Table)>,
}

/// Bytes of the media of one piece.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredRange {
    /// Part record; none: the closing record.
    pub part: Option<u16>,
    /// From the start of the piece's media.
    pub range: Range<u64>,
}

/// A sample and where its bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct StoredSample<'a> {
    /// Part record; none: the closing record.
    pub part: Option<u16>,
    /// From the start of the piece's media, in bytes.
    pub offset: u64,
    /// Times and sizes.
    pub entry: &'a SampleEntry,
}

/// Opens a fragment.
///
/// # Errors
/// If it is gone, damaged or cannot be read now; `Corrupt` also if its table does not read.
pub async fn load(api: &Api, entry: &SharedEntry) -> Result<LoadedFragment, ReadError> {
    load_from(&*api.source, entry).await
}

/// Opens a fragment of a source.
///
/// # Errors
/// As [`load`].
pub async fn load_from(source: &dyn FragmentSource, entry: &SharedEntry) -> Result<LoadedFragment, ReadError> {
    let head = source.head(entry).await?;
    let config = source.config(entry).await?;
    let mut pieces = Vec::with_capacity(head.table.pieces.len());
    for piece in &head.table.pieces {
        let table = Table::decode(&piece.table).map_err(|error| corrupt(entry, format!("sample table: {error}")))?;
        if table.media_len() != piece.media_len {
            let detail = format!("samples of {} bytes in media of {}", table.media_len(), piece.media_len);
            return Err(corrupt(entry, detail));
        }
        if table.tracks.iter().any(|track| usize::from(track.track) >= config.tracks.len()) {
            return Err(corrupt(entry, "a sample of a track that its config does not have".to_owned()));
        }
        pieces.push((piece.part, table));
    }
    Ok(LoadedFragment { entry: entry.clone(), config, facts: head.facts.clone(), pieces })
}

fn corrupt(entry: &FragmentEntry, detail: String) -> ReadError {
    ReadError::Corrupt {
        number: entry.meta.number,
        file: entry.record.file.to_string(),
        offset_bytes: entry.record.offset,
        detail,
    }
}

impl LoadedFragment {
    /// The samples of a track, in decode order.
    pub fn samples(&self, track: u8) -> impl Iterator<Item = StoredSample<'_>> {
        self.pieces.iter().flat_map(move |(part, table)| {
            let before = table.tracks.iter().take_while(|t| t.track != track).map(|t| t.size_bytes()).sum::<u64>();
            let samples = table.tracks.iter().find(|t| t.track == track).map_or(&[][..], |t| &t.samples);
            samples.iter().scan(before, move |offset, entry| {
                let sample = StoredSample { part: *part, offset: *offset, entry };
                *offset += u64::from(entry.size);
                Some(sample)
            })
        })
    }
}

impl LoadedFragment {
    /// The samples of all tracks in the order they came, each with its track.
    #[must_use]
    pub fn in_arrival_order(&self) -> Vec<(u8, StoredSample<'_>)> {
        let mut order = Vec::new();
        for (piece, (part, table)) in self.pieces.iter().enumerate() {
            let mut offset = 0;
            for of_track in &table.tracks {
                for entry in &of_track.samples {
                    let sample = StoredSample { part: *part, offset, entry };
                    offset += u64::from(entry.size);
                    order.push((piece, entry.arrival, of_track.track, sample));
                }
            }
        }
        order.sort_by_key(|(piece, arrival, ..)| (*piece, *arrival));
        order.into_iter().map(|(_, _, track, sample)| (track, sample)).collect()
    }

    /// Media time of the instant that `producer_start` names, in milliseconds on the timeline common to the tracks of
    /// its run: the first sync sample of the primary track, else its first sample, else the first of any track.
    #[must_use]
    pub fn media_start_ms(&self) -> i64 {
        let ms = |track: u8, sample: &SampleEntry| {
            let timescale_hz = self.config.tracks.get(usize::from(track)).map_or(1000, |track| track.timescale_hz);
            ticks_to_ms_nearest(sample.presentation_ticks(), timescale_hz)
        };
        let primary = self.config.primary_track().and_then(|index| u8::try_from(index).ok()).unwrap_or(0);
        let of_primary = || self.samples(primary).map(|sample| sample.entry);
        let first = of_primary().find(|sample| sample.sync == SyncKind::Sync).or_else(|| of_primary().next());
        if let Some(first) = first {
            return ms(primary, first);
        }
        let any = self.pieces.iter().flat_map(|(_, table)| &table.tracks);
        let firsts = any.filter_map(|track| track.samples.first().map(|sample| (sample.arrival, track.track, sample)));
        firsts.min_by_key(|(arrival, ..)| *arrival).map_or(0, |(_, track, sample)| ms(track, sample))
    }

    /// Producer time of media time 0, in milliseconds since 1970. It is the same for all fragments of a run, to the
    /// millisecond: `producer_start` was made from the same two numbers.
    #[must_use]
    pub fn origin_ms(&self) -> i64 {
        self.entry.meta.producer_start.0.saturating_sub(self.media_start_ms())
    }
}

impl StoredSample<'_> {
    /// All its stored bytes.
    #[must_use]
    pub fn stored(&self) -> StoredRange {
        StoredRange { part: self.part, range: self.offset..self.offset + u64::from(self.entry.size) }
    }

    /// The ranges that make its MP4 view, in order; none is empty.
    pub fn mp4_view(&self) -> impl Iterator<Item = StoredRange> {
        let end = (self.entry.size, 0);
        let edges = self.entry.drops.iter().copied().chain([end]);
        let kept = edges.scan(0_u32, |from, (offset, len)| {
            let range = *from..offset;
            *from = offset + len;
            Some(range)
        });
        kept.filter(|range| !range.is_empty()).map(|range| StoredRange {
            part: self.part,
            range: self.offset + u64::from(range.start)..self.offset + u64::from(range.end),
        })
    }
}

/// One read from the store, and what is wanted of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ReadGroup {
    /// What is read.
    pub read: StoredRange,
    /// What is wanted, in order: ranges inside `read`.
    pub wanted: Vec<Range<u64>>,
}

/// Groups ranges (in the order they are wanted) into few reads of at most [`READ_BYTES_MAX`]. Neighbours are joined, a
/// range longer than that is split.
pub fn group_reads(ranges: impl IntoIterator<Item = StoredRange>) -> Vec<ReadGroup> {
    let mut groups: Vec<ReadGroup> = Vec::new();
    for StoredRange { part, range } in ranges {
        let mut start = range.start;
        while start < range.end {
            let group = groups.last_mut().filter(|group| {
                let read = &group.read;
                let near = start >= read.range.end && start - read.range.end <= READ_GAP_BYTES_MAX;
                read.part == part && near && start < read.range.start + READ_BYTES_MAX
            });
            let from = group.as_ref().map_or(start, |group| group.read.range.start);
            let end = range.end.min(from + READ_BYTES_MAX);
            let piece = start..end;
            match group {
                Some(group) => {
                    group.read.range.end = end;
                    match group.wanted.last_mut() {
                        Some(last) if last.end == start => last.end = end,
                        _ => group.wanted.push(piece),
                    }
                }
                None => {
                    groups.push(ReadGroup { read: StoredRange { part, range: piece.clone() }, wanted: vec![piece] })
                }
            }
            start = end;
        }
    }
    groups
}

/// Reads one group: a slice for each wanted range.
///
/// # Errors
/// As [`FragmentSource::media`].
pub async fn read_group(
    source: &dyn FragmentSource,
    entry: &FragmentEntry,
    group: &ReadGroup,
) -> Result<Vec<Bytes>, ReadError> {
    let read = &group.read;
    let media = source.media(entry, read.part, read.range.clone()).await?;
    if media.len() as u64 != read.range.end - read.range.start {
        return Err(corrupt(entry, format!("{} bytes of media where {:?} were asked for", media.len(), read.range)));
    }
    let slice = |wanted: &Range<u64>| {
        media.slice((wanted.start - read.range.start) as usize..(wanted.end - read.range.start) as usize)
    };
    Ok(group.wanted.iter().map(slice).collect())
}

/// Reads ranges into one buffer.
///
/// # Errors
/// As [`FragmentSource::media`].
pub async fn read_all(
    source: &dyn FragmentSource,
    entry: &FragmentEntry,
    ranges: impl IntoIterator<Item = StoredRange>,
) -> Result<Vec<u8>, ReadError> {
    let mut bytes = Vec::new();
    for group in group_reads(ranges) {
        read_group(source, entry, &group).await?.iter().for_each(|slice| bytes.extend_from_slice(slice));
    }
    Ok(bytes)
}

/// Reads all media of a fragment, in order of arrival, a stretch of at most [`READ_BYTES_MAX`] at a time.
///
/// # Errors
/// As [`load`].
pub async fn read_media(
    source: &dyn FragmentSource,
    entry: &SharedEntry,
    take: &mut (dyn FnMut(&[u8]) + Send),
) -> Result<(), ReadError> {
    for (part, table) in load_from(source, entry).await?.pieces {
        let (mut start, len) = (0, table.media_len());
        while start < len {
            let end = len.min(start + READ_BYTES_MAX);
            take(&source.media(entry, part, start..end).await?);
            start = end;
        }
    }
    Ok(())
}
