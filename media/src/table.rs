//! The sample table of one piece of a fragment: everything about its samples but their bytes.
//!
//! Media of a piece is contiguous by track: all samples of the first track in decode order, then all of the next. A
//! sample's place follows from the sizes before it.
//!
//! ```text
//! table   = version(1) track_count { track }
//! track   = track_index sample_count column×8
//! columns : decode time (first, then deltas), composition offset, duration, sync and flags, size, MP4-view length
//!           difference, arrival order, dropped ranges
//! ```
//! Columns are runs of equal values (`varint run length, value`), so that a constant costs three bytes whatever its
//! length. Layout: `docs/formats/table.md`.
//!
//! # Invariants
//! 1. Decode times of a track strictly increase.
//! 2. `mp4_len` is `size` less the bytes of `drops`; drops are sorted, disjoint and inside the sample.

use bytes::Bytes;
use vidar_core::limits::{SAMPLE_BYTES_MAX, TRACK_COUNT_MAX};
use vidar_core::record::TrackTotals;
use vidar_core::sample::{Sample, SyncKind};
use vidar_core::wire::{Reader, WireError, Writer};

const VERSION: u8 = 1;
/// Most samples a table may hold: 20 s of audio in frames of 1 ms, ten tracks of it, with room.
pub const SAMPLE_COUNT_MAX: usize = 1 << 20;

/// One sample, without its bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SampleEntry {
    /// When to decode it, in ticks of its track.
    pub decode_ticks: i64,
    /// Presentation time less decode time.
    pub composition_ticks: i32,
    /// Until the next sample of the track.
    pub duration_ticks: u32,
    /// The duration is a guess; readers correct it from the next sample of the track.
    pub duration_estimated: bool,
    /// Whether decoding can start here.
    pub sync: SyncKind,
    /// As [`Sample::block_flags`](vidar_core::sample::Sample::block_flags).
    pub block_flags: u8,
    /// Stored bytes.
    pub size: u32,
    /// Position in the order of arrival of the piece, over all tracks.
    pub arrival: u32,
    /// Ranges (offset, length) of the stored bytes that the MP4 view leaves out: in-band parameter sets equal to the
    /// config's, with their length fields.
    pub drops: Vec<(u32, u32)>,
}

impl SampleEntry {
    /// Of a sample; `drops` and `arrival` as in the entry.
    #[must_use]
    pub fn of(sample: &Sample, drops: Vec<(u32, u32)>, arrival: u32) -> Self {
        Self {
            decode_ticks: sample.decode_ticks,
            composition_ticks: sample.composition_ticks,
            duration_ticks: sample.duration_ticks,
            duration_estimated: sample.duration_estimated,
            sync: sample.sync,
            block_flags: sample.block_flags,
            size: u32::try_from(sample.data.len()).expect("a sample is at most 50 MiB"),
            arrival,
            drops,
        }
    }

    /// The next sample of its track is decoded then: that is how long it lasts. False: no duration says so.
    pub fn lasts_until(&mut self, next_decode_ticks: i64) -> bool {
        let Ok(duration) = u32::try_from(next_decode_ticks.saturating_sub(self.decode_ticks)) else { return false };
        (self.duration_ticks, self.duration_estimated) = (duration, false);
        true
    }

    /// When to show it.
    #[must_use]
    pub fn presentation_ticks(&self) -> i64 {
        self.decode_ticks.saturating_add(self.composition_ticks.into())
    }

    /// First instant after it, on the presentation timeline.
    #[must_use]
    pub fn presentation_end_ticks(&self) -> i64 {
        self.presentation_ticks().saturating_add(self.duration_ticks.into())
    }

    /// Bytes in the MP4 view.
    #[must_use]
    pub fn mp4_len(&self) -> u32 {
        self.size - self.drops.iter().map(|(_, len)| len).sum::<u32>()
    }
}

/// The samples of one track in a piece, in decode order.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct TrackTable {
    /// Index into the tracks of the config.
    pub track: u8,
    /// In decode order.
    pub samples: Vec<SampleEntry>,
}

impl TrackTable {
    /// Stored bytes of its samples.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.samples.iter().map(|sample| u64::from(sample.size)).sum()
    }
}

/// The table of a piece. Tracks without samples do not appear; the others are in order of their index.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Table {
    /// In the order their media is stored.
    pub tracks: Vec<TrackTable>,
}

/// A column as runs of equal values.
fn write_runs<T: PartialEq + Copy>(w: &mut Writer, values: impl Iterator<Item = T>, write: impl Fn(&mut Writer, T)) {
    let mut run: Option<(T, u64)> = None;
    for value in values {
        match &mut run {
            Some((current, count)) if *current == value => *count += 1,
            _ => {
                if let Some((current, count)) = run.take() {
                    write(w.varint(count), current);
                }
                run = Some((value, 1));
            }
        }
    }
    if let Some((current, count)) = run {
        write(w.varint(count), current);
    }
}

fn read_runs<'a, T: Copy>(
    r: &mut Reader<'a>,
    count: usize,
    read: impl Fn(&mut Reader<'a>) -> Result<T, WireError>,
    mut each: impl FnMut(usize, T),
) -> Result<(), WireError> {
    let mut index = 0;
    while index < count {
        let run = r.varint_as::<usize>()?;
        if run == 0 || run > count - index {
            return Err(r.error("a run that ends within the track"));
        }
        let value = read(r)?;
        for position in index..index + run {
            each(position, value);
        }
        index += run;
    }
    Ok(())
}

fn flags(sample: &SampleEntry) -> u16 {
    let sync = match sample.sync {
        SyncKind::None => 0,
        SyncKind::Sync => 1,
        SyncKind::Leading => 2,
    };
    sync | u16::from(sample.duration_estimated) << 2 | u16::from(sample.block_flags) << 8
}

impl Table {
    /// The plain bytes.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::new();
        w.u8(VERSION).varint(self.tracks.len() as u64);
        for TrackTable { track, samples } in &self.tracks {
            w.u8(*track).varint(samples.len() as u64);
            let Some(first) = samples.first() else { continue };
            w.signed(first.decode_ticks);
            let deltas = samples.windows(2).map(|pair| pair[1].decode_ticks.wrapping_sub(pair[0].decode_ticks) as u64);
            write_runs(&mut w, deltas, |w, v| {
                w.varint(v);
            });
            write_runs(&mut w, samples.iter().map(|s| s.composition_ticks), |w, v| {
                w.signed(v.into());
            });
            write_runs(&mut w, samples.iter().map(|s| s.duration_ticks), |w, v| {
                w.varint(v.into());
            });
            write_runs(&mut w, samples.iter().map(flags), |w, v| {
                w.varint(v.into());
            });
            write_runs(&mut w, samples.iter().map(|s| s.size), |w, v| {
                w.varint(v.into());
            });
            // The difference to the position before, less 1: constant where tracks alternate regularly.
            let arrivals = samples.iter().scan(0_i64, |last, s| {
                let delta = i64::from(s.arrival) - *last;
                *last = i64::from(s.arrival) + 1;
                Some(delta)
            });
            write_runs(&mut w, arrivals, |w, v| {
                w.signed(v);
            });
            write_runs(&mut w, samples.iter().map(|s| s.drops.len()), |w, v| {
                w.varint(v as u64);
            });
            for (offset, len) in samples.iter().flat_map(|s| &s.drops) {
                w.varint((*offset).into()).varint((*len).into());
            }
        }
        w.into_bytes()
    }

    /// Reads what `encode` wrote.
    ///
    /// # Errors
    /// If the bytes are not of version 1, break an invariant or are over a limit.
    pub fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.u8()? != VERSION {
            return Err(WireError { expected: "sample table version 1", offset: 0 });
        }
        let track_count = r.count(2)?;
        if track_count > TRACK_COUNT_MAX {
            return Err(r.error("at most 10 tracks"));
        }
        let mut tracks = Vec::with_capacity(track_count);
        for _ in 0..track_count {
            let track = r.u8()?;
            let count = r.varint_as::<usize>()?;
            if count > SAMPLE_COUNT_MAX {
                return Err(r.error("fewer samples"));
            }
            let samples = if count == 0 { Vec::new() } else { read_track(&mut r, count)? };
            tracks.push(TrackTable { track, samples });
        }
        r.finish()?;
        Ok(Self { tracks })
    }

    /// Samples of all tracks.
    #[must_use]
    pub fn sample_count(&self) -> usize {
        self.tracks.iter().map(|track| track.samples.len()).sum()
    }

    /// Stored bytes of all samples: the length of the piece's media.
    #[must_use]
    pub fn media_len(&self) -> u64 {
        self.tracks.iter().map(TrackTable::size_bytes).sum()
    }
}

fn read_track(r: &mut Reader<'_>, count: usize) -> Result<Vec<SampleEntry>, WireError> {
    let first = r.signed()?;
    let empty = SampleEntry {
        decode_ticks: first,
        composition_ticks: 0,
        duration_ticks: 0,
        duration_estimated: false,
        sync: SyncKind::None,
        block_flags: 0,
        size: 0,
        arrival: 0,
        drops: Vec::new(),
    };
    let mut samples = vec![empty; count];
    let mut decode = Some(first);
    let step = |r: &mut Reader<'_>| {
        let delta = r.varint()?;
        if delta == 0 || delta > i64::MAX as u64 { Err(r.error("increasing decode times")) } else { Ok(delta as i64) }
    };
    read_runs(r, count - 1, step, |i, delta| {
        decode = decode.and_then(|ticks| ticks.checked_add(delta));
        samples[i + 1].decode_ticks = decode.unwrap_or(i64::MAX);
    })?;
    if decode.is_none() {
        return Err(r.error("decode times of 64 bits"));
    }
    read_runs(r, count, Reader::signed_as, |i, v| samples[i].composition_ticks = v)?;
    read_runs(r, count, Reader::varint_as, |i, v| samples[i].duration_ticks = v)?;
    let flags = |r: &mut Reader<'_>| {
        let flags = r.varint_as::<u16>()?;
        if flags & 3 == 3 || flags & 0xf8 != 0 { Err(r.error("known sample flags")) } else { Ok(flags) }
    };
    read_runs(r, count, flags, |i, v| {
        samples[i].sync = [SyncKind::None, SyncKind::Sync, SyncKind::Leading][usize::from(v & 3)];
        samples[i].duration_estimated = v & 4 != 0;
        samples[i].block_flags = (v >> 8) as u8;
    })?;
    let size = |r: &mut Reader<'_>| {
        let size = r.varint_as::<u32>()?;
        if size as usize > SAMPLE_BYTES_MAX { Err(r.error("samples of at most 50 MiB")) } else { Ok(size) }
    };
    read_runs(r, count, size, |i, v| samples[i].size = v)?;
    let mut last = Some(0_i64);
    read_runs(r, count, Reader::signed, |i, delta| {
        let arrival = last.and_then(|last| last.checked_add(delta)).and_then(|a| u32::try_from(a).ok());
        samples[i].arrival = arrival.unwrap_or(0);
        last = arrival.map(|a| i64::from(a) + 1);
    })?;
    if last.is_none() {
        return Err(r.error("arrival positions of 32 bits"));
    }
    let mut drop_counts = vec![0_usize; count];
    read_runs(r, count, Reader::varint_as::<usize>, |i, v| drop_counts[i] = v)?;
    for (sample, drop_count) in samples.iter_mut().zip(drop_counts) {
        let mut end = 0_u32;
        for _ in 0..drop_count {
            let (offset, len) = (r.varint_as::<u32>()?, r.varint_as::<u32>()?);
            let drop_end = offset.checked_add(len).filter(|drop_end| *drop_end <= sample.size);
            let Some(drop_end) = drop_end.filter(|_| offset >= end && len > 0) else {
                return Err(r.error("dropped ranges in order and inside the sample"));
            };
            end = drop_end;
            sample.drops.push((offset, len));
        }
    }
    Ok(samples)
}

/// What the tables of a fragment's pieces add to an MP4, for one track.
#[must_use]
pub fn totals(pieces: &[Table], track: u8) -> TrackTotals {
    let of_track = || pieces.iter().flat_map(|piece| &piece.tracks).filter(move |t| t.track == track);
    let samples: Vec<&SampleEntry> = of_track().flat_map(|t| &t.samples).collect();
    let runs = |values: &mut dyn Iterator<Item = i64>| {
        let mut last = None;
        values.fold(0_u32, |count, value| count + u32::from(last.replace(value) != Some(value)))
    };
    let Some((_, all_but_last)) = samples.split_last() else { return TrackTotals::default() };
    let offsets = || samples.iter().map(|s| i64::from(s.composition_ticks));
    TrackTotals {
        sample_count: u32::try_from(samples.len()).unwrap_or(u32::MAX),
        mp4_bytes: samples.iter().map(|s| u64::from(s.mp4_len())).sum(),
        // Between two samples the MP4 uses the difference of their decode times, so that times never drift.
        stts_runs: runs(&mut samples.windows(2).map(|pair| pair[1].decode_ticks.wrapping_sub(pair[0].decode_ticks)))
            + u32::from(all_but_last.len() < samples.len()),
        ctts_runs: if offsets().all(|offset| offset == 0) { 0 } else { runs(&mut offsets()) },
        sync_count: u32::try_from(samples.iter().filter(|s| s.sync == SyncKind::Sync).count()).unwrap_or(u32::MAX),
        chunk_count: u32::try_from(of_track().filter(|t| !t.samples.is_empty()).count()).unwrap_or(u32::MAX),
        first_decode_ticks: samples[0].decode_ticks,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn samples() -> impl Strategy<Value = Vec<SampleEntry>> {
        let one =
            (1..4_i64, -2..3_i32, 0..3_u32, any::<bool>(), 0..3_usize, 0..3_u8, 0..64_u32, 0..3_u32, any::<bool>());
        (any::<i32>(), prop::collection::vec(one, 0..20)).prop_map(|(start, rows)| {
            let (mut decode_ticks, mut arrival) = (i64::from(start), 0);
            rows.into_iter()
                .map(
                    |(
                        delta,
                        composition_ticks,
                        duration_ticks,
                        duration_estimated,
                        sync,
                        block_flags,
                        size,
                        skip,
                        drop,
                    )| {
                        decode_ticks += delta;
                        arrival += skip + 1;
                        SampleEntry {
                            decode_ticks,
                            composition_ticks,
                            duration_ticks,
                            duration_estimated,
                            sync: [SyncKind::None, SyncKind::Sync, SyncKind::Leading][sync],
                            block_flags,
                            size,
                            arrival,
                            drops: if drop && size > 9 { vec![(0, 4), (5, 4)] } else { Vec::new() },
                        }
                    },
                )
                .collect()
        })
    }

    proptest! {
        #[test]
        fn tables_round_trip(a in samples(), b in samples()) {
            let table = Table { tracks: vec![TrackTable { track: 0, samples: a }, TrackTable { track: 3, samples: b }] };
            let bytes = table.encode();
            prop_assert_eq!(Table::decode(&bytes), Ok(table.clone()));
            for len in 0..bytes.len() {
                prop_assert!(Table::decode(&bytes[..len]).is_err());
            }
            let totals = totals(std::slice::from_ref(&table), 0);
            prop_assert_eq!(totals.sample_count as usize, table.tracks[0].samples.len());
        }

        #[test]
        fn no_input_panics(bytes: Vec<u8>) {
            if let Ok(table) = Table::decode(&bytes) {
                prop_assert_eq!(Table::decode(&table.encode()), Ok(table));
            }
        }
    }

    #[test]
    fn a_constant_column_costs_three_bytes_whatever_its_length() {
        let sample = |i: i64| SampleEntry {
            decode_ticks: i * 20,
            composition_ticks: 0,
            duration_ticks: 20,
            duration_estimated: false,
            sync: SyncKind::Sync,
            block_flags: 0,
            size: 160,
            arrival: i as u32,
            drops: Vec::new(),
        };
        let table = Table { tracks: vec![TrackTable { track: 0, samples: (0..1000).map(sample).collect() }] };
        assert!(table.encode().len() < 40, "{}", table.encode().len());
    }
}
