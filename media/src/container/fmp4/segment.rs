//! Media segments and parts: `[styp] moof mdat` (ISO/IEC 23000-19 section 7.3.3, 14496-12 section 8.8), made from tables.
//!
//! Only the bytes before the samples are made here. The samples follow as they are stored, less their dropped ranges, run
//! after run in the order given.

use bytes::Bytes;
use vidar_core::sample::SyncKind;

use super::boxes::{write_box, write_full_box};
use crate::table::SampleEntry;

/// `default-base-is-moof` (section 8.8.7.1).
const BASE_IS_MOOF: u32 = 0x02_0000;
/// Data offset, then for each sample: duration, size, flags, composition offset (section 8.8.8.1).
const TRUN_FLAGS: u32 = 0x0f01;

/// Samples of one track in a segment.
#[derive(Debug, Clone, Copy)]
pub struct TrackRun<'a> {
    /// As in the init segment.
    pub track_id: u32,
    /// Decode time of the first sample on the segment's timeline, in ticks of the track.
    pub base_decode_ticks: u64,
    /// In decode order. Each lasts until the decode time of the next, so that times never drift; the last lasts for its
    /// duration, which is to be corrected before where it is a guess.
    pub samples: &'a [SampleEntry],
}

/// The bytes of a segment before its samples.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SegmentHeader {
    /// Up to and with the header of the `mdat`.
    pub bytes: Bytes,
    /// Bytes of samples to follow.
    pub media_len: u64,
}

/// Where a segment stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SegmentStart {
    /// A segment of its own: `styp` first.
    Segment,
    /// A part after the first, or a further fragment of the segment.
    Inside,
}

/// The header of a segment. Runs without samples are left out. None if the samples are 2 GiB or more: data offsets have
/// 31 bits.
#[must_use]
pub fn header(start: SegmentStart, sequence_number: u32, runs: &[TrackRun<'_>]) -> Option<SegmentHeader> {
    let runs: Vec<_> = runs.iter().filter(|run| !run.samples.is_empty()).collect();
    let lens = runs.iter().map(|run| run.samples.iter().map(|sample| u64::from(sample.mp4_len())).sum::<u64>());
    let lens: Vec<u64> = lens.collect();
    let media_len = lens.iter().sum::<u64>();
    let mdat_len = u32::try_from(media_len + 8).ok()?;

    let mut out = Vec::new();
    if start == SegmentStart::Segment {
        write_box(&mut out, b"styp", |out| out.extend_from_slice(b"msdh\0\0\0\0msdhmsixcmfc"));
    }
    let moof_start = out.len();
    let mut offset_fields = Vec::with_capacity(runs.len());
    write_box(&mut out, b"moof", |out| {
        write_full_box(out, b"mfhd", 0, 0, |out| word(out, sequence_number));
        for run in &runs {
            write_box(out, b"traf", |out| offset_fields.push(write_traf(out, run)));
        }
    });
    let mut data_offset = (out.len() - moof_start + 8) as u64;
    for (field, len) in offset_fields.into_iter().zip(lens) {
        let offset = i32::try_from(data_offset).ok()?;
        out[field..field + 4].copy_from_slice(&offset.to_be_bytes());
        data_offset += len;
    }
    word(&mut out, mdat_len);
    out.extend_from_slice(b"mdat");
    Some(SegmentHeader { bytes: out.into(), media_len })
}

/// The flags of a sample (section 8.8.3.1): whether it depends on others, whether it is a sync sample, and for a leading
/// picture that it needs what came before its keyframe.
#[must_use]
pub fn sample_flags(sync: SyncKind) -> u32 {
    match sync {
        SyncKind::Sync => 0x0200_0000,
        SyncKind::None => 0x0101_0000,
        SyncKind::Leading => 0x0501_0000,
    }
}

/// Returns where the data offset stands, to be filled in.
fn write_traf(out: &mut Vec<u8>, run: &TrackRun<'_>) -> usize {
    write_full_box(out, b"tfhd", 0, BASE_IS_MOOF, |out| word(out, run.track_id));
    write_full_box(out, b"tfdt", 1, 0, |out| out.extend_from_slice(&run.base_decode_ticks.to_be_bytes()));
    let mut offset_field = 0;
    write_full_box(out, b"trun", 1, TRUN_FLAGS, |out| {
        word(out, u32::try_from(run.samples.len()).unwrap_or(u32::MAX));
        offset_field = out.len();
        word(out, 0);
        for (index, sample) in run.samples.iter().enumerate() {
            let until_next =
                run.samples.get(index + 1).map(|next| next.decode_ticks.saturating_sub(sample.decode_ticks));
            let duration = until_next.map_or(sample.duration_ticks, |ticks| u32::try_from(ticks).unwrap_or(u32::MAX));
            word(out, duration);
            word(out, sample.mp4_len());
            word(out, sample_flags(sample.sync));
            word(out, sample.composition_ticks as u32);
        }
    });
    offset_field
}

fn word(out: &mut Vec<u8>, value: u32) {
    out.extend_from_slice(&value.to_be_bytes());
}
