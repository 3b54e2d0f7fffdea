//! An MP4 with its index first, laid out before any of it is made (ISO/IEC 14496-12 sections 8.5 to 8.7).
//!
//! ```text
//! ftyp  moov { mvhd  trak { … stsd  stts  ctts  stss  stsz  stsc  co64 }* }  mdat
//!                             └─ each column: fragment by fragment ─┘         fragment by fragment, piece by piece,
//!                                                                             track by track
//! ```
//! The length of every box follows from [`TrackTotals`], so no table is opened to lay a file out. [`Layout::units`]
//! cuts any byte range into units; a unit of a column is made from the tables of the fragments it names, a unit of media
//! from stored bytes ([`Layout::extents`]).
//!
//! # Invariants
//! 1. Lengths add up over fragments: no run of `stts` or `ctts` and no chunk goes across two of them.
//! 2. The last sample of a fragment's track has an `stts` entry of its own; its delta reaches to the track's next
//!    sample, wherever that is. Within a fragment deltas are differences of decode times. So times never drift.
//! 3. What is generated has the length that was laid out, or is an error.

mod column;
mod head;
mod keep;

use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use vidar_core::record::TrackTotals;
use vidar_core::time::rescale_floor;
use vidar_core::track::TrackKind;

pub use column::Column;
pub use keep::{Keep, totals_kept};

/// Of the bytes that are made here. A change of them is a change of entity tags.
pub const FORMAT_VERSION: u32 = 2;

/// Most bytes of a unit.
pub const UNIT_BYTES_MAX: u64 = 512 << 10;
/// Most fragments whose tables a unit needs.
pub const UNIT_FRAGMENT_COUNT_MAX: usize = 64;

/// How ticks of a source become ticks of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Scale {
    /// Multiplied: equal differences stay equal.
    Exact {
        /// At least 1.
        factor: u32,
    },
    /// Rounded down, each time for itself. Every sample then has entries of its own in `stts` and `ctts`.
    Rounded {
        /// Ticks per second of the source.
        from_hz: u32,
        /// Ticks per second of the file.
        to_hz: u32,
    },
}

impl Scale {
    /// A time of the source in ticks of the file; never wraps.
    #[must_use]
    pub fn apply(self, ticks: i64) -> i64 {
        match self {
            Self::Exact { factor } => ticks.saturating_mul(factor.into()),
            Self::Rounded { from_hz, to_hz } => rescale_floor(ticks, from_hz, to_hz),
        }
    }
}

/// How a fragment's track becomes a track of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Mapping {
    /// Index into the tracks of the fragment's config.
    pub source_track: u8,
    /// Index into the sample entries of the file's track, from 1.
    pub description: u32,
    /// Of its times.
    pub scale: Scale,
    /// Added to scaled decode times: the first sample of the track is decoded at 0.
    pub offset_ticks: i64,
}

/// What a fragment gives to a track of the file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackPart {
    /// Where it comes from.
    pub mapping: Mapping,
    /// Of the samples that are kept.
    pub totals: TrackTotals,
    /// Which these are.
    pub keep: Keep,
}

/// An entry of an edit list (section 8.6.6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Edit {
    /// In ticks of the movie.
    pub duration_ticks: u64,
    /// Where in the track presentation starts, in its ticks. None: nothing is shown.
    pub media_time_ticks: Option<u64>,
}

/// What the boxes of a track say besides its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TrackHead {
    /// Video or audio.
    pub kind: TrackKind,
    /// As the source gave it.
    pub language: String,
    /// In pixels; 0 for sound.
    pub width: u32,
    /// In pixels; 0 for sound.
    pub height: u32,
    /// Whole boxes.
    pub sample_entries: Vec<Bytes>,
    /// Ticks per second of its times.
    pub timescale_hz: u32,
    /// To the end of its last sample, in its ticks.
    pub duration_ticks: u64,
    /// Added to all composition offsets: an edit's media time cannot be negative.
    pub composition_shift_ticks: i32,
    /// What is shown of it.
    pub edits: Vec<Edit>,
}

/// What `mvhd` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct MovieHead {
    /// Ticks per second of edits.
    pub timescale_hz: u32,
    /// In these ticks.
    pub duration_ticks: u64,
    /// Seconds since 1904-01-01T00:00:00Z.
    pub creation_s: u64,
}

/// Why no file is made.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// A count or a box is over 32 bits.
    #[error("the index would be too large: {what}")]
    TooLarge {
        /// Which.
        what: &'static str,
    },
    /// A table is not what its totals said.
    #[error("{column:?} of fragment {fragment}, track {track}: {made} bytes made, {expected} laid out")]
    Mismatch {
        /// Of the file.
        track: usize,
        /// Index of the fragment.
        fragment: usize,
        /// Which column; none: media.
        column: Option<Column>,
        /// Bytes.
        made: u64,
        /// Bytes.
        expected: u64,
    },
}

/// Takes the fragments, in order.
#[derive(Debug)]
pub struct Builder {
    tracks: Vec<TrackColumns>,
    media: Vec<u64>,
}

/// A file that is laid out.
#[derive(Debug)]
pub struct Layout {
    tracks: Vec<TrackColumns>,
    /// Bytes of media before each fragment, and in all.
    media: Vec<u64>,
    regions: Vec<Region>,
    media_start: u64,
}

/// A track over all fragments; the counts are of entries before each fragment, and in all.
#[derive(Debug)]
struct TrackColumns {
    samples: Vec<u32>,
    stts: Vec<u32>,
    ctts: Vec<u32>,
    sync: Vec<u32>,
    chunks: Vec<u32>,
    /// Media time of the fragment's first sample.
    first_ticks: Vec<i64>,
    /// 0: nothing of the fragment; else an index into `mappings`, from 1.
    mapping: Vec<u16>,
    mappings: Vec<Mapping>,
    /// Of the fragments of which not all is kept.
    keeps: BTreeMap<usize, Keep>,
    has_offsets: bool,
    composition_shift_ticks: i32,
    duration_ticks: u64,
}

#[derive(Debug, Clone)]
struct Region {
    start: u64,
    len: u64,
    content: Content,
}

#[derive(Debug, Clone)]
enum Content {
    Fixed(Bytes),
    Column { track: usize, column: Column },
    Media,
}

/// A stretch of the file that is made at once.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Unit {
    /// From the start of the file.
    pub start: u64,
    /// In bytes; at most [`UNIT_BYTES_MAX`], or of a fixed stretch any.
    pub len: u64,
    /// What it is made of.
    pub content: UnitContent,
}

/// What a unit is made of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UnitContent {
    /// These bytes.
    Fixed(Bytes),
    /// Of [`Layout::write_column`] of these fragments, the bytes from `skip` on.
    Column {
        /// Of the file.
        track: usize,
        /// Which.
        column: Column,
        /// Indexes.
        fragments: Range<usize>,
        /// Bytes that belong to the unit before.
        skip: u64,
    },
    /// Of [`Layout::extents`] of this fragment, these bytes.
    Media {
        /// Index.
        fragment: usize,
        /// From the start of its extents.
        range: Range<u64>,
    },
}

/// A contiguous stretch of a piece's stored media.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extent {
    /// Index of the piece.
    pub piece: usize,
    /// From the start of the piece's media, in bytes.
    pub range: Range<u64>,
}

impl Builder {
    /// A file of so many tracks.
    #[must_use]
    pub fn new(track_count: usize) -> Self {
        Self { tracks: (0..track_count).map(|_| TrackColumns::new()).collect(), media: vec![0] }
    }

    /// The next fragment: for each track of the file, what it gives.
    ///
    /// # Errors
    /// If a count exceeds 32 bits.
    ///
    /// # Panics
    /// If `parts` are not as many as the tracks.
    pub fn push(&mut self, parts: Vec<Option<TrackPart>>) -> Result<(), LayoutError> {
        assert_eq!(parts.len(), self.tracks.len(), "a part or none for each track");
        let bytes: u64 = parts.iter().flatten().map(|part| part.totals.mp4_bytes).sum();
        self.media.push(self.media[self.media.len() - 1] + bytes);
        for (track, part) in self.tracks.iter_mut().zip(parts) {
            track.push(part)?;
        }
        Ok(())
    }

    /// Lays the file out.
    ///
    /// # Errors
    /// If the index is over 4 GiB.
    ///
    /// # Panics
    /// If `heads` are not as many as the tracks.
    pub fn finish(mut self, movie: &MovieHead, heads: &[TrackHead]) -> Result<Layout, LayoutError> {
        assert_eq!(heads.len(), self.tracks.len(), "a head for each track");
        for (track, head) in self.tracks.iter_mut().zip(heads) {
            track.duration_ticks = head.duration_ticks;
            track.composition_shift_ticks = head.composition_shift_ticks;
            track.settle_offsets();
        }
        let media_len = self.media[self.media.len() - 1];
        let (regions, media_start) = head::regions(movie, heads, &self.tracks, media_len)?;
        Ok(Layout { tracks: self.tracks, media: self.media, regions, media_start })
    }
}

#[allow(clippy::len_without_is_empty)] // a file has at least its boxes
impl Layout {
    /// Bytes of the file.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.regions.last().map_or(0, |region| region.start + region.len)
    }

    /// Bytes before the media.
    #[must_use]
    pub fn media_start(&self) -> u64 {
        self.media_start
    }

    /// The units of a byte range, in order. What exceeds the file is left out.
    #[must_use]
    pub fn units(&self, range: Range<u64>) -> Units<'_> {
        Units { layout: self, at: range.start, end: range.end.min(self.len()) }
    }

    fn unit_at(&self, at: u64, end: u64) -> Unit {
        let index = self.regions.partition_point(|region| region.start + region.len <= at);
        let region = &self.regions[index];
        let (from, to) = (at - region.start, end.min(region.start + region.len) - region.start);
        let (len, content) = match &region.content {
            Content::Fixed(bytes) => (to - from, UnitContent::Fixed(bytes.slice(from as usize..to as usize))),
            Content::Column { track, column } => self.column_unit(*track, *column, from, to),
            Content::Media => {
                let fragment = self.media.partition_point(|before| *before <= from) - 1;
                let within = from - self.media[fragment];
                let len = (to.min(self.media[fragment + 1]) - from).min(UNIT_BYTES_MAX);
                (len, UnitContent::Media { fragment, range: within..within + len })
            }
        };
        Unit { start: at, len, content }
    }

    fn column_unit(&self, track: usize, column: Column, from: u64, to: u64) -> (u64, UnitContent) {
        let counts = self.tracks[track].counts(column);
        let bytes_before = |fragment: usize| u64::from(counts[fragment]) * column.entry_len();
        let first = counts.partition_point(|before| u64::from(*before) * column.entry_len() <= from) - 1;
        let to = to.min(from + UNIT_BYTES_MAX);
        let end = counts.partition_point(|before| u64::from(*before) * column.entry_len() < to);
        let end = end.min(first + UNIT_FRAGMENT_COUNT_MAX);
        let to = to.min(bytes_before(end));
        let skip = from - bytes_before(first);
        (to - from, UnitContent::Column { track, column, fragments: first..end, skip })
    }
}

/// Units of a byte range.
#[derive(Debug)]
pub struct Units<'a> {
    layout: &'a Layout,
    at: u64,
    end: u64,
}

impl Iterator for Units<'_> {
    type Item = Unit;

    fn next(&mut self) -> Option<Unit> {
        if self.at >= self.end {
            return None;
        }
        let unit = self.layout.unit_at(self.at, self.end);
        self.at += unit.len;
        Some(unit)
    }
}

impl TrackColumns {
    fn new() -> Self {
        Self {
            samples: vec![0],
            stts: vec![0],
            ctts: vec![0],
            sync: vec![0],
            chunks: vec![0],
            first_ticks: Vec::new(),
            mapping: Vec::new(),
            mappings: Vec::new(),
            keeps: BTreeMap::new(),
            has_offsets: false,
            composition_shift_ticks: 0,
            duration_ticks: 0,
        }
    }

    fn push(&mut self, part: Option<TrackPart>) -> Result<(), LayoutError> {
        let part = part.filter(|part| part.totals.sample_count > 0);
        let totals = part.as_ref().map_or_else(TrackTotals::default, |part| part.totals);
        let rounded = part.as_ref().is_some_and(|part| matches!(part.mapping.scale, Scale::Rounded { .. }));
        let entries = |runs: u32| if rounded && runs > 0 { totals.sample_count } else { runs };
        push_count(&mut self.samples, totals.sample_count, "samples")?;
        push_count(&mut self.stts, entries(totals.stts_runs), "durations")?;
        push_count(&mut self.ctts, entries(totals.ctts_runs), "composition offsets")?;
        push_count(&mut self.sync, totals.sync_count, "sync samples")?;
        push_count(&mut self.chunks, totals.chunk_count, "chunks")?;
        let fragment = self.mapping.len();
        let Some(part) = part else {
            self.first_ticks.push(0);
            self.mapping.push(0);
            return Ok(());
        };
        let first = part.mapping.scale.apply(totals.first_decode_ticks);
        self.first_ticks.push(first.saturating_add(part.mapping.offset_ticks));
        let known = self.mappings.iter().rposition(|known| *known == part.mapping);
        let index = known.unwrap_or(self.mappings.len());
        if known.is_none() {
            self.mappings.push(part.mapping);
        }
        self.mapping.push(u16::try_from(index + 1).map_err(|_| LayoutError::TooLarge { what: "spans" })?);
        if part.keep != Keep::All {
            self.keeps.insert(fragment, part.keep);
        }
        Ok(())
    }

    /// If any fragment has composition offsets, one without has a run of zeros.
    fn settle_offsets(&mut self) {
        self.has_offsets = self.ctts.last().is_some_and(|count| *count > 0) || self.composition_shift_ticks != 0;
        if !self.has_offsets {
            return;
        }
        let (mut before, mut added) = (0, 0);
        for (fragment, count) in self.ctts.iter_mut().skip(1).enumerate() {
            let runs = *count - before;
            before = *count;
            added += u32::from(runs == 0 && self.mapping[fragment] > 0);
            *count += added;
        }
    }

    fn all_sync(&self) -> bool {
        self.sync.last() == self.samples.last()
    }

    fn counts(&self, column: Column) -> &[u32] {
        match column {
            Column::Stts => &self.stts,
            Column::Ctts => &self.ctts,
            Column::Stss => &self.sync,
            Column::Stsz => &self.samples,
            Column::Stsc | Column::Co64 => &self.chunks,
        }
    }

    fn mapping(&self, fragment: usize) -> Option<&Mapping> {
        let index = usize::from(*self.mapping.get(fragment)?).checked_sub(1)?;
        self.mappings.get(index)
    }

    fn keep(&self, fragment: usize) -> &Keep {
        self.keeps.get(&fragment).unwrap_or(&Keep::All)
    }

    /// Media time of the first sample after a fragment; the end of the track after the last.
    fn next_ticks(&self, fragment: usize) -> i64 {
        let done = self.samples[fragment + 1];
        let next = self.samples.partition_point(|before| *before <= done) - 1;
        let end = || i64::try_from(self.duration_ticks).unwrap_or(i64::MAX);
        self.first_ticks.get(next).copied().unwrap_or_else(end)
    }
}

fn push_count(counts: &mut Vec<u32>, more: u32, what: &'static str) -> Result<(), LayoutError> {
    let sum = counts[counts.len() - 1].checked_add(more).ok_or(LayoutError::TooLarge { what })?;
    counts.push(sum);
    Ok(())
}
