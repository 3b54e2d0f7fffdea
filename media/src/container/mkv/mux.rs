//! Matroska out: headers of clusters and blocks, for samples whose bytes need not be at hand.
//!
//! ```text
//! header()  heads[0] sample 0  heads[1] sample 1  …        one byte string goes before each sample, none after
//! ```
//! Every length follows from the sizes and times of samples, so that the length of a clip is known, and any part of it
//! can be made, before media is read. [`Layout::heads`] makes whole Clusters of known size: one call for each run of
//! samples that is laid out alone (a fragment), since a call begins a Cluster. [`Writer`] makes Clusters of unknown size
//! for samples that come one by one.
//!
//! RFC 9559. Not here: choosing samples, cue points.

use bytes::Bytes;
use vidar_core::sample::{Sample, SyncKind, Tag};
use vidar_core::track::{StreamConfig, Track, TrackKind};

use super::block::{FLAG_BLOCK_GROUP, FLAG_DISCARDABLE, FLAG_INVISIBLE, FLAG_KEYFRAME};
use super::ebml::{id_len, uint_len, vint_len, write_element, write_id, write_master, write_uint, write_vint};
use super::header::UNKNOWN_SIZE;
pub use super::header::{HeaderOptions, can_carry, header};
use super::id;
pub use super::repeat::{FragmentHeader, plain_tags, tags_document};
pub use super::timing::Timing;
use crate::table::SampleEntry;

/// Cluster id, size of eight bytes, Timestamp of eight.
const CLUSTER_HEAD_BYTES: u64 = 22;
const REFERENCE_BLOCK_BYTES: u64 = 3;

/// A sample, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Frame {
    /// Index into the tracks of the config.
    pub track: u8,
    /// Presentation time, in units of the timing.
    pub timestamp: i64,
    /// In units; told if set, which takes a BlockGroup.
    pub duration: Option<u64>,
    /// Decoding can start here.
    pub sync: bool,
    /// As [`Sample::block_flags`](vidar_core::sample::Sample::block_flags).
    pub block_flags: u8,
    /// Bytes.
    pub len: u32,
}

/// A frame that cannot be written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum MuxError {
    /// Its track is not in the config, or one that Matroska cannot carry.
    #[error("track {track} is not one of the document's")]
    NoTrack {
        /// Index that the frame names.
        track: u8,
    },
    /// Clusters begin at 0, and a block at most 32,768 units before its Cluster.
    #[error("timestamp {timestamp} is before what Matroska can say")]
    TooEarly {
        /// Of the frame.
        timestamp: i64,
    },
}

/// What samples of a config are laid out with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    timing: Timing,
    tracks: Vec<TrackLayout>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct TrackLayout {
    /// TrackNumber; None if the track is not carried.
    number: Option<u64>,
    track: Track,
}

/// The byte strings that go before samples.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Heads {
    bytes: Bytes,
    ends: Vec<u32>,
}

impl Heads {
    /// What goes before sample `index`.
    ///
    /// # Panics
    /// If there is no such sample.
    #[must_use]
    pub fn get(&self, index: usize) -> Bytes {
        let start = index.checked_sub(1).map_or(0, |before| self.ends[before]);
        self.bytes.slice(start as usize..self.ends[index] as usize)
    }

    /// All of them, in order.
    pub fn iter(&self) -> impl Iterator<Item = Bytes> + '_ {
        (0..self.ends.len()).map(|index| self.get(index))
    }

    /// Their bytes together.
    #[must_use]
    pub fn len_bytes(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// Track numbers of a config: the source's own if it was Matroska, they are all different, and a Block can name them; else
/// from 1 on.
pub(crate) fn track_numbers(config: &StreamConfig) -> Vec<u64> {
    let given: Vec<u64> = config.tracks.iter().map(|track| track.source_number).collect();
    let all_differ = given.iter().enumerate().all(|(index, number)| !given[..index].contains(number));
    let usable = given.iter().all(|number| (1..(1 << 56) - 1).contains(number));
    if usable && all_differ && !config.matroska_header.is_empty() {
        return given;
    }
    (1..=config.tracks.len() as u64).collect()
}

impl Layout {
    /// For documents that begin with [`header`] of the same config and timing.
    #[must_use]
    pub fn new(config: &StreamConfig, timing: Timing) -> Self {
        let tracks = config.tracks.iter().zip(track_numbers(config));
        let layout = |(track, number)| TrackLayout { number: can_carry(track).then_some(number), track: track.clone() };
        Self { timing, tracks: tracks.map(layout).collect() }
    }

    /// The unit of timestamps.
    #[must_use]
    pub fn timing(&self) -> Timing {
        self.timing
    }

    /// As [`Timing::timestamp`]. Tracks that are not in the config have 0.
    #[must_use]
    pub fn timestamp(&self, track: u8, presentation_ticks: i64) -> i64 {
        let found = self.tracks.get(usize::from(track));
        found.map_or(0, |of| self.timing.timestamp(&of.track, presentation_ticks))
    }

    /// A sample of a table as a frame.
    #[must_use]
    pub fn table_frame(&self, track: u8, sample: &SampleEntry) -> Frame {
        let known = (!sample.duration_estimated).then_some(sample.duration_ticks);
        Frame {
            track,
            timestamp: self.timestamp(track, sample.presentation_ticks()),
            duration: self.told_duration(track, known, sample.block_flags),
            sync: sample.sync == SyncKind::Sync,
            block_flags: sample.block_flags,
            len: sample.size,
        }
    }

    /// A sample as a frame.
    #[must_use]
    pub fn frame(&self, sample: &Sample) -> Frame {
        let known = (!sample.duration_estimated).then_some(sample.duration_ticks);
        Frame {
            track: sample.track,
            timestamp: self.timestamp(sample.track, sample.presentation_ticks()),
            duration: self.told_duration(sample.track, known, sample.block_flags),
            sync: sample.sync == SyncKind::Sync,
            block_flags: sample.block_flags,
            len: u32::try_from(sample.data.len()).unwrap_or(u32::MAX),
        }
    }

    /// A known duration is told if the source did so in a BlockGroup, and for subtitles.
    fn told_duration(&self, track: u8, known_ticks: Option<u32>, block_flags: u8) -> Option<u64> {
        let track = &self.tracks.get(usize::from(track))?.track;
        let told = track.kind == TrackKind::Subtitle || block_flags & FLAG_BLOCK_GROUP != 0;
        let ticks = known_ticks.filter(|_| told)?;
        u64::try_from(self.timing.units(ticks.into(), track.timescale_hz)).ok()
    }

    /// The heads of these frames, in Clusters of known size: a new one at the first frame, and wherever a frame is out
    /// of reach of the one before.
    ///
    /// # Errors
    /// If a frame cannot be written.
    pub fn heads(&self, frames: &[Frame]) -> Result<Heads, MuxError> {
        let mut out = Vec::new();
        let mut ends = Vec::with_capacity(frames.len());
        // Where the open Cluster's body begins, and the media in it.
        let mut open: Option<(usize, u64)> = None;
        let mut cluster = None;
        for frame in frames {
            let at = self.place(cluster, frame)?;
            if at.begins_cluster {
                close_cluster(&mut out, open);
                write_cluster_head(&mut out, at.cluster, UNKNOWN_SIZE);
                open = Some((out.len() - 10, 0));
            }
            cluster = Some(at.cluster);
            write_block_head(&mut out, frame, &at);
            ends.push(u32::try_from(out.len()).unwrap_or(u32::MAX));
            if let Some((_, media)) = &mut open {
                *media += u64::from(frame.len);
            }
        }
        close_cluster(&mut out, open);
        Ok(Heads { bytes: out.into(), ends })
    }

    /// The length of heads and samples of these frames together: as [`heads`](Self::heads), without making them.
    ///
    /// # Errors
    /// As `heads`.
    pub fn len_bytes(&self, frames: impl IntoIterator<Item = Frame>) -> Result<u64, MuxError> {
        let mut cluster = None;
        frames.into_iter().try_fold(0, |len, frame| {
            let at = self.place(cluster, &frame)?;
            cluster = Some(at.cluster);
            let head = if at.begins_cluster { CLUSTER_HEAD_BYTES } else { 0 };
            Ok(len + head + block_head_len(&frame, at.number) + u64::from(frame.len))
        })
    }

    /// Where a frame goes, if the Cluster of this timestamp is open.
    fn place(&self, cluster: Option<i64>, frame: &Frame) -> Result<At, MuxError> {
        let number = self.tracks.get(usize::from(frame.track)).and_then(|track| track.number);
        let number = number.ok_or(MuxError::NoTrack { track: frame.track })?;
        let within = |cluster: i64| i16::try_from(frame.timestamp.checked_sub(cluster)?).ok();
        if let Some((cluster, relative)) = cluster.and_then(|cluster| Some((cluster, within(cluster)?))) {
            return Ok(At { cluster, relative, number, begins_cluster: false });
        }
        let cluster = frame.timestamp.max(0);
        let relative = within(cluster).ok_or(MuxError::TooEarly { timestamp: frame.timestamp })?;
        Ok(At { cluster, relative, number, begins_cluster: true })
    }
}

/// Where a frame goes.
struct At {
    cluster: i64,
    relative: i16,
    number: u64,
    begins_cluster: bool,
}

fn write_cluster_head(out: &mut Vec<u8>, timestamp: i64, size: [u8; 8]) {
    write_id(out, id::CLUSTER);
    out.extend_from_slice(&size);
    write_element(out, id::TIMESTAMP, &timestamp.to_be_bytes());
}

/// Puts in the size of the Cluster whose body begins at `open`, now that it is known.
fn close_cluster(out: &mut [u8], open: Option<(usize, u64)>) {
    if let Some((body, media)) = open {
        let len = (out.len() - body) as u64 + media;
        out[body - 8..body].copy_from_slice(&(len | 1 << 56).to_be_bytes());
    }
}

fn in_group(frame: &Frame) -> bool {
    frame.block_flags & FLAG_BLOCK_GROUP != 0 || frame.duration.is_some()
}

fn block_len(frame: &Frame, number: u64) -> u64 {
    vint_len(number) as u64 + 3 + u64::from(frame.len)
}

/// Bytes of a BlockGroup's elements before its Block.
fn group_facts_len(frame: &Frame) -> u64 {
    let duration = frame.duration.map_or(0, |duration| 2 + uint_len(duration) as u64);
    duration + if frame.sync { 0 } else { REFERENCE_BLOCK_BYTES }
}

fn block_head_len(frame: &Frame, number: u64) -> u64 {
    let block = block_len(frame, number);
    let head = 1 + vint_len(block) as u64 + block - u64::from(frame.len);
    if !in_group(frame) {
        return head;
    }
    let group = group_facts_len(frame) + head + u64::from(frame.len);
    (id_len(id::BLOCK_GROUP) + vint_len(group)) as u64 + group - u64::from(frame.len)
}

/// All of a block that goes before its frame. What a BlockGroup says goes before its Block.
fn write_block_head(out: &mut Vec<u8>, frame: &Frame, at: &At) {
    let block = block_len(frame, at.number);
    let mut flags = frame.block_flags & FLAG_INVISIBLE;
    let block_id = if in_group(frame) {
        write_id(out, id::BLOCK_GROUP);
        write_vint(out, group_facts_len(frame) + 1 + vint_len(block) as u64 + block);
        if let Some(duration) = frame.duration {
            write_uint(out, id::BLOCK_DURATION, duration);
        }
        if !frame.sync {
            // 0: which block it refers to is not said (RFC 9559 section 5.1.3.5.4).
            write_uint(out, id::REFERENCE_BLOCK, 0);
        }
        id::BLOCK
    } else {
        flags |= frame.block_flags & FLAG_DISCARDABLE | if frame.sync { FLAG_KEYFRAME } else { 0 };
        id::SIMPLE_BLOCK
    };
    write_id(out, block_id);
    write_vint(out, block);
    write_vint(out, at.number);
    out.extend_from_slice(&at.relative.to_be_bytes());
    out.push(flags);
}

/// Writes samples as they come, in Clusters of unknown size.
#[derive(Debug, Clone)]
pub struct Writer {
    layout: Layout,
    cluster: Option<i64>,
}

impl Writer {
    /// At the end of the header.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self { layout, cluster: None }
    }

    /// Begins a Cluster.
    pub fn cluster(&mut self, timestamp: i64) -> Bytes {
        let timestamp = timestamp.max(0);
        self.cluster = Some(timestamp);
        let mut out = Vec::new();
        write_cluster_head(&mut out, timestamp, UNKNOWN_SIZE);
        out.into()
    }

    /// What goes before a sample: a new Cluster too if none is open that can hold it.
    ///
    /// # Errors
    /// If the frame cannot be written.
    pub fn block(&mut self, frame: &Frame) -> Result<Bytes, MuxError> {
        let at = self.layout.place(self.cluster, frame)?;
        let mut out = Vec::new();
        if at.begins_cluster {
            write_cluster_head(&mut out, at.cluster, UNKNOWN_SIZE);
            self.cluster = Some(at.cluster);
        }
        write_block_head(&mut out, frame, &at);
        Ok(out.into())
    }

    /// A Tags element; the Cluster ends before it.
    pub fn tags(&mut self, tags: &[Tag]) -> Bytes {
        self.cluster = None;
        self::tags(tags)
    }
}

/// A Tags element with one Tag of these names and values. It stands outside Clusters.
#[must_use]
pub fn tags(tags: &[Tag]) -> Bytes {
    let mut out = Vec::new();
    write_master(&mut out, id::TAGS, |out| {
        write_master(out, id::TAG, |out| {
            // About everything in the Segment.
            write_master(out, id::TARGETS, |_| {});
            write_simple_tags(out, tags);
        });
    });
    out.into()
}

pub(super) fn write_simple_tags<'a>(out: &mut Vec<u8>, tags: impl IntoIterator<Item = &'a Tag>) {
    for tag in tags {
        write_master(out, id::SIMPLE_TAG, |out| {
            write_element(out, id::TAG_NAME, tag.name.as_bytes());
            write_element(out, id::TAG_STRING, tag.value.as_bytes());
        });
    }
}

#[cfg(test)]
#[path = "mux_tests.rs"]
pub(super) mod tests;
