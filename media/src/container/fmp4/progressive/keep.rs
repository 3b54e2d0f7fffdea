//! Which samples of a fragment a file holds.

use std::ops::Range;

use vidar_core::record::TrackTotals;

use crate::table::{SampleEntry, Table, TrackTable, totals};

/// Which samples of a fragment's track are kept; positions count over its pieces.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Keep {
    /// Every one.
    #[default]
    All,
    /// Those in these ranges, which are in order and do not touch.
    Ranges(Vec<Range<u32>>),
}

impl Keep {
    /// No sample.
    pub const NONE: Self = Self::Ranges(Vec::new());

    /// The positions of `kept` that are true.
    #[must_use]
    pub fn from_flags(kept: &[bool]) -> Self {
        if kept.iter().all(|kept| *kept) {
            return Self::All;
        }
        let mut ranges: Vec<Range<u32>> = Vec::new();
        for (position, _) in (0_u32..).zip(kept).filter(|(_, kept)| **kept) {
            match ranges.last_mut() {
                Some(last) if last.end == position => last.end += 1,
                _ => ranges.push(position..position + 1),
            }
        }
        Self::Ranges(ranges)
    }

    /// The sample at this position is kept.
    #[must_use]
    pub fn contains(&self, position: u32) -> bool {
        match self {
            Self::All => true,
            Self::Ranges(ranges) => ranges.iter().any(|range| range.contains(&position)),
        }
    }
}

/// A kept sample, and the index of its piece.
pub(super) type Kept<'a> = (usize, &'a SampleEntry);

/// The kept samples of a track, in decode order.
pub(super) fn kept<'a>(pieces: &'a [Table], source_track: u8, keep: &Keep) -> impl Iterator<Item = Kept<'a>> {
    let all = pieces.iter().enumerate().flat_map(move |(piece, table)| {
        let of_track = table.tracks.iter().filter(move |track| track.track == source_track);
        of_track.flat_map(|track| &track.samples).map(move |sample| (piece, sample))
    });
    (0_u32..).zip(all).filter(|(position, _)| keep.contains(*position)).map(|(_, kept)| kept)
}

/// As [`totals`] of what is kept of a track.
#[must_use]
pub fn totals_kept(pieces: &[Table], source_track: u8, keep: &Keep) -> TrackTotals {
    if *keep == Keep::All {
        return totals(pieces, source_track);
    }
    let mut of_pieces = vec![Table::default(); pieces.len()];
    for (piece, sample) in kept(pieces, source_track, keep) {
        let tracks = &mut of_pieces[piece].tracks;
        if tracks.is_empty() {
            tracks.push(TrackTable { track: source_track, samples: Vec::new() });
        }
        tracks[0].samples.push(sample.clone());
    }
    totals(&of_pieces, source_track)
}
