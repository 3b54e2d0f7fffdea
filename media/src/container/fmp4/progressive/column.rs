//! The entries of the index boxes, made from the tables of a fragment; and where its media lies.

use super::keep::{Kept, kept};
use super::{Extent, Layout, LayoutError, Mapping, Scale};
use crate::table::{SampleEntry, Table};
use vidar_core::sample::SyncKind;

/// An index box whose entries come from fragments.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Column {
    /// Decode time deltas (section 8.6.1.2).
    Stts,
    /// Composition offsets, signed (section 8.6.1.3, version 1).
    Ctts,
    /// Sync samples (section 8.6.2).
    Stss,
    /// Sizes (section 8.7.3).
    Stsz,
    /// Samples of each chunk (section 8.7.4).
    Stsc,
    /// Places of chunks (section 8.7.5).
    Co64,
}

impl Column {
    /// In the order of the file.
    pub(super) const ALL: [Self; 6] = [Self::Stts, Self::Ctts, Self::Stss, Self::Stsz, Self::Stsc, Self::Co64];

    /// Bytes of an entry.
    pub(super) const fn entry_len(self) -> u64 {
        match self {
            Self::Stts | Self::Ctts | Self::Co64 => 8,
            Self::Stss | Self::Stsz => 4,
            Self::Stsc => 12,
        }
    }
}

impl Layout {
    /// Appends the entries that a fragment has in a column. `pieces` are its tables.
    ///
    /// # Errors
    /// If they do not have the length that was laid out: the tables are not those the totals were made from.
    pub fn write_column(
        &self,
        track: usize,
        column: Column,
        fragment: usize,
        pieces: &[Table],
        out: &mut Vec<u8>,
    ) -> Result<(), LayoutError> {
        let columns = &self.tracks[track];
        let counts = columns.counts(column);
        let expected = u64::from(counts[fragment + 1] - counts[fragment]) * column.entry_len();
        let start = out.len();
        if let Some(mapping) = columns.mapping(fragment) {
            let samples = || kept(pieces, mapping.source_track, columns.keep(fragment));
            match column {
                Column::Stts => stts(samples(), mapping, columns.next_ticks(fragment), out),
                Column::Ctts => ctts(samples(), mapping, columns.composition_shift_ticks, out),
                Column::Stss => stss(samples(), columns.samples[fragment], out),
                Column::Stsz => samples().for_each(|(_, sample)| put(out, sample.mp4_len())),
                Column::Stsc => stsc(samples(), mapping, columns.chunks[fragment], out),
                Column::Co64 => self.co64(track, fragment, pieces, out),
            }
        }
        let made = (out.len() - start) as u64;
        let mismatch = LayoutError::Mismatch { track, fragment, column: Some(column), made, expected };
        if made == expected { Ok(()) } else { Err(mismatch) }
    }

    /// Where the media of a fragment lies, in the order of the file.
    ///
    /// # Errors
    /// As `write_column`.
    pub fn extents(&self, fragment: usize, pieces: &[Table]) -> Result<Vec<Extent>, LayoutError> {
        let mut extents: Vec<Extent> = Vec::new();
        let mut made = 0;
        self.walk(fragment, pieces, |_, piece, offset, sample| {
            let mut from = offset;
            let drops = sample.drops.iter().map(|(at, len)| (offset + u64::from(*at), u64::from(*len)));
            let size = u64::from(sample.size);
            for (at, len) in drops.chain([(offset + size, 0)]) {
                if at > from {
                    made += at - from;
                    match extents.last_mut() {
                        Some(last) if last.piece == piece && last.range.end == from => last.range.end = at,
                        _ => extents.push(Extent { piece, range: from..at }),
                    }
                }
                from = at + len;
            }
        });
        let expected = self.media[fragment + 1] - self.media[fragment];
        let mismatch = LayoutError::Mismatch { track: 0, fragment, column: None, made, expected };
        if made == expected { Ok(extents) } else { Err(mismatch) }
    }

    /// Visits the kept samples of a fragment in the order of the file: track of the file, piece, place in its media.
    fn walk(&self, fragment: usize, pieces: &[Table], mut visit: impl FnMut(usize, usize, u64, &SampleEntry)) {
        let mut positions = vec![0_u32; self.tracks.len()];
        for (piece, table) in pieces.iter().enumerate() {
            let mut offset = 0;
            for of_track in &table.tracks {
                let is_from = |mapping: &Mapping| mapping.source_track == of_track.track;
                let track = self.tracks.iter().position(|columns| columns.mapping(fragment).is_some_and(is_from));
                for sample in &of_track.samples {
                    if let Some(track) = track {
                        if self.tracks[track].keep(fragment).contains(positions[track]) {
                            visit(track, piece, offset, sample);
                        }
                        positions[track] += 1;
                    }
                    offset += u64::from(sample.size);
                }
            }
        }
    }

    fn co64(&self, of_track: usize, fragment: usize, pieces: &[Table], out: &mut Vec<u8>) {
        let mut place = self.media_start + self.media[fragment];
        let mut last_piece = None;
        self.walk(fragment, pieces, |track, piece, _, sample| {
            if track == of_track && last_piece != Some(piece) {
                out.extend_from_slice(&place.to_be_bytes());
                last_piece = Some(piece);
            }
            place += u64::from(sample.mp4_len());
        });
    }
}

fn put(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}

/// Appends (count, value) for each run of equal values, or for each value.
fn put_runs(values: impl Iterator<Item = i64>, merge: bool, encode: impl Fn(i64) -> u32, out: &mut Vec<u8>) {
    let mut run: Option<(u32, i64)> = None;
    for value in values {
        match &mut run {
            Some((count, current)) if merge && *current == value => *count += 1,
            _ => {
                if let Some((count, current)) = run.replace((1, value)) {
                    put(out, count);
                    put(out, encode(current));
                }
            }
        }
    }
    if let Some((count, current)) = run {
        put(out, count);
        put(out, encode(current));
    }
}

fn stts<'a>(samples: impl Iterator<Item = Kept<'a>>, mapping: &Mapping, next_ticks: i64, out: &mut Vec<u8>) {
    let exact = matches!(mapping.scale, Scale::Exact { .. });
    let mut last = None;
    let mut deltas = Vec::new();
    for (_, sample) in samples {
        if let Some(last) = last.replace(sample.decode_ticks) {
            deltas.push(if exact {
                mapping.scale.apply(sample.decode_ticks.wrapping_sub(last))
            } else {
                mapping.scale.apply(sample.decode_ticks) - mapping.scale.apply(last)
            });
        }
    }
    let encode = |delta: i64| u32::try_from(delta.max(0)).unwrap_or(u32::MAX);
    put_runs(deltas.into_iter(), exact, encode, out);
    if let Some(last) = last {
        let at = mapping.scale.apply(last).saturating_add(mapping.offset_ticks);
        put(out, 1);
        put(out, encode(next_ticks.saturating_sub(at)));
    }
}

fn ctts<'a>(samples: impl Iterator<Item = Kept<'a>>, mapping: &Mapping, shift_ticks: i32, out: &mut Vec<u8>) {
    let samples: Vec<&SampleEntry> = samples.map(|(_, sample)| sample).collect();
    let exact = matches!(mapping.scale, Scale::Exact { .. });
    let merge = exact || samples.iter().all(|sample| sample.composition_ticks == 0);
    let offsets = samples.iter().map(|sample| {
        if exact {
            mapping.scale.apply(sample.composition_ticks.into())
        } else {
            mapping.scale.apply(sample.presentation_ticks()).saturating_sub(mapping.scale.apply(sample.decode_ticks))
        }
    });
    let encode = |offset: i64| {
        let offset = offset.saturating_add(shift_ticks.into());
        i32::try_from(offset).unwrap_or(if offset < 0 { i32::MIN } else { i32::MAX }).cast_unsigned()
    };
    put_runs(offsets, merge, encode, out);
}

fn stss<'a>(samples: impl Iterator<Item = Kept<'a>>, before: u32, out: &mut Vec<u8>) {
    for (number, (_, sample)) in (before + 1..).zip(samples) {
        if sample.sync == SyncKind::Sync {
            put(out, number);
        }
    }
}

fn stsc<'a>(samples: impl Iterator<Item = Kept<'a>>, mapping: &Mapping, before: u32, out: &mut Vec<u8>) {
    let mut counts: Vec<(usize, u32)> = Vec::new();
    for (piece, _) in samples {
        match counts.last_mut() {
            Some((last, count)) if *last == piece => *count += 1,
            _ => counts.push((piece, 1)),
        }
    }
    for (chunk, (_, count)) in (before + 1..).zip(counts) {
        put(out, chunk);
        put(out, count);
        put(out, mapping.description);
    }
}
