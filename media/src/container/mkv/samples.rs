//! Blocks become samples: the times and facts of each frame in them.

use bytes::Bytes;
use vidar_core::limits::SAMPLE_BYTES_MAX;
use vidar_core::sample::SyncKind;

use super::block::{Block, FLAG_BLOCK_GROUP, FLAG_DISCARDABLE, FLAG_INVISIBLE, FLAG_KEYFRAME};
use super::document::{TrackState, share};
use super::ebml::BodyError;
use super::timing::Scale;
use crate::demux::{DemuxErrorKind, Event, RawSample};

/// How a block came.
#[derive(Debug, Clone, Copy)]
pub(super) enum Around {
    SimpleBlock,
    BlockGroup { duration: Option<u64>, has_reference: bool },
}

impl Around {
    fn duration(self) -> Option<u64> {
        match self {
            Self::SimpleBlock => None,
            Self::BlockGroup { duration, .. } => duration,
        }
    }

    fn is_keyframe(self, flags: u8) -> bool {
        match self {
            Self::SimpleBlock => flags & FLAG_KEYFRAME != 0,
            Self::BlockGroup { has_reference, .. } => !has_reference,
        }
    }

    fn sample_flags(self, flags: u8) -> u8 {
        match self {
            Self::SimpleBlock => flags & (FLAG_INVISIBLE | FLAG_DISCARDABLE),
            Self::BlockGroup { .. } => flags & FLAG_INVISIBLE | FLAG_BLOCK_GROUP,
        }
    }
}

/// What the times of a block's frames are made of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Times {
    pub(super) scale: Scale,
    /// Timestamp of the Cluster, once it was read.
    pub(super) cluster: Option<i64>,
}

/// Appends the frames of a block.
pub(super) fn read_block(
    bytes: &Bytes,
    around: Around,
    tracks: &[TrackState],
    times: Times,
    events: &mut Vec<Event>,
) -> Result<(), BodyError> {
    let block = Block::parse(bytes)?;
    let found = tracks.iter().zip(0_u8..).find(|(state, _)| state.track.source_number == block.track_number);
    let undeclared = || format!("track {} was not declared", block.track_number);
    let (state, track) = found.ok_or_else(|| BodyError::of(DemuxErrorKind::UndeclaredTrack, 0, undeclared()))?;
    let cluster = times.cluster.ok_or_else(|| BodyError::new(0, "expected the Cluster's Timestamp before it"))?;
    let too_late = || BodyError::new(0, "a time beyond 64 bits");
    let time = cluster.checked_add(block.relative_timestamp.into()).and_then(|units| times.scale.ticks(units));
    let time = time.ok_or_else(too_late)?;
    let block_ticks = around.duration().and_then(|units| times.scale.ticks(i64::try_from(units).ok()?));
    let count = block.frames.len();
    let first = block.frames.first().and_then(|range| bytes.get(range.clone())).unwrap_or_default();
    let sync = around.is_keyframe(block.flags) || !state.has_keyframes();
    for (index, range) in block.frames.iter().enumerate() {
        let ticks = state.laced_ticks(index, count, first, block_ticks);
        events.push(Event::Sample(RawSample {
            track,
            presentation_ticks: ticks.and_then(|ticks| time.checked_add(ticks)).ok_or_else(too_late)?,
            decode_ticks: None,
            duration_ticks: block_ticks.and_then(|ticks| frame_duration(ticks, index, count)),
            sync: if sync { SyncKind::Sync } else { SyncKind::None },
            block_flags: around.sample_flags(block.flags),
            data: frame_data(state, bytes.slice(range.clone()))?,
        }));
    }
    Ok(())
}

fn frame_duration(block_ticks: i64, index: usize, count: usize) -> Option<u32> {
    let index = i64::try_from(index).ok()?;
    let ticks = share(block_ticks, index + 1, count)? - share(block_ticks, index, count)?;
    u32::try_from(ticks).ok()
}

fn frame_data(state: &TrackState, frame: Bytes) -> Result<Bytes, BodyError> {
    let len = state.stripped.len() + frame.len();
    if len > SAMPLE_BYTES_MAX {
        let detail = format!("a sample of {len} bytes; at most {SAMPLE_BYTES_MAX} are taken");
        return Err(BodyError::of(DemuxErrorKind::TooLarge, 0, detail));
    }
    Ok(if state.stripped.is_empty() { frame } else { [&state.stripped[..], &frame].concat().into() })
}
