//! `moof`: where the samples of a movie fragment stand, and when they are (ISO/IEC 14496-12 sections 8.8.4 to 8.8.12).
//!
//! Samples stay in the bytes of their `trun` until they are given out, so that a count costs nothing.

use bytes::Bytes;
use vidar_core::limits::SAMPLE_BYTES_MAX;
use vidar_core::sample::SyncKind;

use super::boxes::{BoxReader, Within, malformed};
use super::movie::{Defaults, Movie, NO_DEFAULTS};
use crate::demux::{DemuxError, DemuxErrorKind};

/// Largest `moof` that is read, in bytes.
pub(super) const MOOF_BYTES_MAX: usize = 4 << 20;

/// A parsed `moof`.
#[derive(Debug)]
pub(super) struct Moof {
    /// In the order of their data.
    pub(super) runs: Vec<Run>,
    /// Decode time of the first track's first sample, if said.
    pub(super) timecode: Option<i64>,
    /// Where each track goes on if its next fragment does not say.
    pub(super) next_decode_ticks: Vec<i64>,
    /// Which sample entry each track uses, from 1; 0 if the track does not appear.
    pub(super) description_indexes: Vec<u32>,
}

/// The samples of a `trun` that were not yet given out.
#[derive(Debug, Clone)]
pub(super) struct Run {
    /// Index of the track.
    pub(super) track: u8,
    /// `traf` and `trun` within the `moof`.
    pub(super) place: (usize, usize),
    /// Of the `trun`, from the start of the input.
    pub(super) offset: u64,
    /// First byte of its data, from the start of the input.
    pub(super) data_start: u64,
    /// Bytes of its data.
    pub(super) data_len: u64,
    /// Samples left.
    count: u32,
    decode_ticks: i64,
    fields: Fields,
    first_flags: Option<u32>,
    defaults: Defaults,
    rows: Bytes,
    /// Bytes of `rows` that were read.
    read: usize,
}

/// Which fields each row of a `trun` has, 4 bytes each, in this order.
#[derive(Debug, Clone, Copy)]
struct Fields {
    duration: bool,
    size: bool,
    flags: bool,
    composition: bool,
}

/// A sample without its bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct RunSample {
    pub(super) decode_ticks: i64,
    pub(super) presentation_ticks: i64,
    pub(super) duration_ticks: u32,
    pub(super) size: usize,
    pub(super) sync: SyncKind,
}

impl Fields {
    fn count(self) -> usize {
        [self.duration, self.size, self.flags, self.composition].into_iter().filter(|field| *field).count()
    }
}

impl Run {
    /// Bytes of the `moof` that it keeps.
    pub(super) fn held_bytes(&self) -> usize {
        self.rows.len()
    }

    /// The next sample.
    pub(super) fn next(&mut self) -> Option<RunSample> {
        self.count = self.count.checked_sub(1)?;
        let mut field = |present: bool| {
            let word = self.rows.get(self.read..)?.first_chunk().filter(|_| present)?;
            self.read += 4;
            Some(u32::from_be_bytes(*word))
        };
        let duration_ticks = field(self.fields.duration).unwrap_or(self.defaults.duration);
        let size = field(self.fields.size).unwrap_or(self.defaults.size);
        let own_flags = field(self.fields.flags);
        let flags = self.first_flags.take().or(own_flags).unwrap_or(self.defaults.flags);
        // Signed in version 1. In version 0 nothing is shown 2^31 ticks late: some writers put signed values there too.
        let composition = field(self.fields.composition).map_or(0, |word| i64::from(word as i32));
        let decode_ticks = self.decode_ticks;
        self.decode_ticks = decode_ticks.saturating_add(duration_ticks.into());
        Some(RunSample {
            decode_ticks,
            presentation_ticks: decode_ticks.saturating_add(composition),
            duration_ticks,
            size: size as usize,
            sync: sync_kind(flags),
        })
    }

    /// Checks the sizes, and returns the bytes and ticks of all samples.
    fn totals(&self) -> Result<(u64, u64), DemuxError> {
        if self.fields.count() == 0 {
            // Every sample is like every other: nothing to walk, whatever the count.
            let size = self.defaults.size;
            if size == 0 && self.count > 1 {
                return Err(malformed(self.offset, format!("{} samples of no bytes", self.count)));
            }
            self.check_size(size)?;
            let of_all = |value: u32| u64::from(value) * u64::from(self.count);
            return Ok((of_all(size), of_all(self.defaults.duration)));
        }
        let (mut run, mut bytes, mut ticks) = (self.clone(), 0_u64, 0_u64);
        while let Some(sample) = run.next() {
            self.check_size(sample.size as u32)?;
            bytes += sample.size as u64;
            ticks += u64::from(sample.duration_ticks);
        }
        Ok((bytes, ticks))
    }

    fn check_size(&self, size: u32) -> Result<(), DemuxError> {
        if size as usize <= SAMPLE_BYTES_MAX {
            return Ok(());
        }
        let detail = format!("a sample of {size} bytes, the limit is {SAMPLE_BYTES_MAX}");
        Err(DemuxError { kind: DemuxErrorKind::TooLarge, ..malformed(self.offset, detail) })
    }
}

/// Section 8.8.3.1. A sample that depends on others is no keyframe, even where its non-sync bit was forgotten.
fn sync_kind(flags: u32) -> SyncKind {
    let (is_leading, depends_on, non_sync) = (flags >> 26 & 3, flags >> 24 & 3, flags >> 16 & 1);
    match (non_sync, depends_on) {
        (0, 0 | 2 | 3) => SyncKind::Sync,
        // 1: leading, and it needs what came before the keyframe; 3: leading, and it does not.
        _ if is_leading == 1 => SyncKind::Leading,
        _ => SyncKind::None,
    }
}

/// A `traf` being read.
struct Traf<'m> {
    movie: &'m Movie,
    index: usize,
    moof_start: u64,
    /// End of the data of the `traf` before, or the start of the `moof`.
    base: u64,
    /// Where a `trun` without an offset of its own begins.
    data_next: u64,
    track: Option<usize>,
    defaults: Defaults,
    decode_ticks: i64,
    truns: usize,
}

impl Moof {
    /// Reads the body of a `moof` that starts at `moof_start`.
    pub(super) fn parse(
        body: &Bytes,
        body_offset: u64,
        moof_start: u64,
        movie: &Movie,
        next_decode_ticks: &[i64],
    ) -> Result<Self, DemuxError> {
        let mut moof = Self {
            runs: Vec::new(),
            timecode: None,
            next_decode_ticks: next_decode_ticks.to_vec(),
            description_indexes: vec![0; movie.tracks.len()],
        };
        let (mut index, mut base) = (0, moof_start);
        BoxReader::new(body, body_offset).each_box(|kind, traf| {
            if kind == *b"traf" {
                base = moof.parse_traf(traf, index, (moof_start, base), movie).within(|| format!("traf[{index}]"))?;
                index += 1;
            }
            Ok(())
        })?;
        moof.runs.retain(|run| run.count > 0);
        moof.runs.sort_by_key(|run| run.data_start);
        moof.check_overlaps()?;
        Ok(moof)
    }

    /// Returns where the data of the `traf` ends.
    fn parse_traf(
        &mut self,
        body: BoxReader<'_>,
        index: usize,
        (moof_start, base): (u64, u64),
        movie: &Movie,
    ) -> Result<u64, DemuxError> {
        let mut traf = Traf {
            movie,
            index,
            moof_start,
            base,
            data_next: base,
            track: None,
            defaults: NO_DEFAULTS,
            decode_ticks: 0,
            truns: 0,
        };
        let start = body.clone();
        body.each_box(|kind, body| match &kind {
            b"tfhd" => traf.parse_tfhd(body, self).within(|| "tfhd".into()),
            b"tfdt" => traf.parse_tfdt(body, self).within(|| "tfdt".into()),
            b"trun" => {
                let trun = traf.truns;
                traf.truns += 1;
                traf.parse_trun(body, self).within(|| format!("trun[{trun}]"))
            }
            _ => Ok(()),
        })?;
        let Some(track) = traf.track else { return Err(start.error("no tfhd")) };
        self.next_decode_ticks[track] = traf.decode_ticks;
        Ok(traf.data_next)
    }

    fn check_overlaps(&self) -> Result<(), DemuxError> {
        let mut end = 0;
        for run in self.runs.iter().filter(|run| run.data_len > 0) {
            if run.data_start < end {
                let detail = format!("its data at byte {} overlaps data that ends at byte {end}", run.data_start);
                return Err(run.error(detail));
            }
            end = run.data_start + run.data_len;
        }
        Ok(())
    }
}

impl Run {
    /// `Malformed` at this run, with its path within the `moof`.
    pub(super) fn error(&self, detail: String) -> DemuxError {
        let (traf, trun) = self.place;
        malformed(self.offset, detail).within(|| format!("traf[{traf}]/trun[{trun}]"))
    }
}

impl Traf<'_> {
    fn parse_tfhd(&mut self, mut body: BoxReader<'_>, moof: &mut Moof) -> Result<(), DemuxError> {
        let start = body.clone();
        let (_, flags) = body.full_box()?;
        let id = body.u32()?;
        let Some(track) = self.movie.tracks.iter().position(|track| track.id == id) else {
            return Err(start.error(format!("track {id} is not in the moov")));
        };
        let trex = self.movie.tracks[track].defaults;
        if flags & 1 != 0 {
            self.base = body.u64()?;
        } else if flags & 0x2_0000 != 0 {
            self.base = self.moof_start;
        }
        self.data_next = self.base;
        let mut word = |bit: u32, default: u32| if flags & bit == 0 { Ok(default) } else { body.u32() };
        self.defaults = Defaults {
            description_index: word(2, trex.description_index)?,
            duration: word(8, trex.duration)?,
            size: word(0x10, trex.size)?,
            flags: word(0x20, trex.flags)?,
        };
        let index = self.defaults.description_index;
        if index == 0 || index as usize > self.movie.tracks[track].entries.len() {
            return Err(start.error(format!("track {id} has no sample entry {index}")));
        }
        moof.description_indexes[track] = index;
        self.decode_ticks = moof.next_decode_ticks[track];
        self.track = Some(track);
        Ok(())
    }

    fn parse_tfdt(&mut self, mut body: BoxReader<'_>, moof: &mut Moof) -> Result<(), DemuxError> {
        let start = body.clone();
        let (version, _) = body.full_box()?;
        let ticks = body.u32_or_u64(version)?;
        let ticks = i64::try_from(ticks).map_err(|_| start.error(format!("decode time {ticks} is over 2^63")))?;
        if self.truns > 0 {
            return Err(start.error("the decode time stands after the samples"));
        }
        self.decode_ticks = ticks;
        if self.track == Some(0) {
            moof.timecode.get_or_insert(ticks);
        }
        Ok(())
    }

    fn parse_trun(&mut self, mut body: BoxReader<'_>, moof: &mut Moof) -> Result<(), DemuxError> {
        let start = body.clone();
        let Some(track) = self.track else { return Err(start.error("samples before the tfhd")) };
        let (_, flags) = body.full_box()?;
        let count = body.u32()?;
        let data_start = if flags & 1 == 0 {
            self.data_next
        } else {
            let offset = i64::from(body.u32()? as i32);
            let from_base = self.base.checked_add_signed(offset);
            from_base.ok_or_else(|| start.error(format!("its data is {offset} bytes from byte {}", self.base)))?
        };
        let first_flags = if flags & 4 == 0 { None } else { Some(body.u32()?) };
        let [duration, size, own_flags, composition] = [0x100, 0x200, 0x400, 0x800].map(|bit| flags & bit != 0);
        let fields = Fields { duration, size, flags: own_flags, composition };
        let rows_len = u64::from(count) * fields.count() as u64 * 4;
        if rows_len > body.remaining() as u64 {
            let detail = format!("{count} samples of {} fields in {} bytes", fields.count(), body.remaining());
            return Err(start.error(detail));
        }
        let mut run = Run {
            track: track as u8,
            place: (self.index, self.truns - 1),
            offset: start.offset(),
            data_start,
            data_len: 0,
            count,
            decode_ticks: self.decode_ticks,
            fields,
            first_flags,
            defaults: self.defaults,
            rows: Bytes::copy_from_slice(body.take(rows_len as usize)?),
            read: 0,
        };
        let (data_len, ticks) = run.totals()?;
        let (Some(data_next), Some(decode_ticks)) =
            (data_start.checked_add(data_len), self.decode_ticks.checked_add_unsigned(ticks))
        else {
            return Err(start.error("its data or its times end beyond 64 bits"));
        };
        run.data_len = data_len;
        (self.data_next, self.decode_ticks) = (data_next, decode_ticks);
        moof.runs.push(run);
        Ok(())
    }
}
