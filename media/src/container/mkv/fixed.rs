//! Clusters whose length follows from counts: the heads of blocks have one length, whatever is in them.
//!
//! ```text
//! Cluster   id(4) size(8) Timestamp: E7 88 value(8)      { SimpleBlock: A3 size(4) number timestamp(2) flags frame }
//! subtitles: BlockGroup A0 size(4) { BlockDuration: 9B 88 value(8)  Block: A1 size(4) number timestamp(2) flags frame }
//! ```
//! With [`mux`](super::mux) lengths follow from the sizes of samples; here from their number and bytes in all, so that a
//! clip's length is known without opening a table. Sizes are wider than they need be (RFC 8794 section 4.4 allows it).

use vidar_core::track::{StreamConfig, TrackKind};

use super::block::{FLAG_DISCARDABLE, FLAG_INVISIBLE, FLAG_KEYFRAME};
use super::ebml::{vint_len, write_id, write_vint, write_vint_of};
use super::id;
use super::mux::track_numbers;

/// Of what is made here. A change of it is a change of entity tags.
pub const FORMAT_VERSION: u32 = 2;

/// Bytes before the first block of a Cluster.
pub const CLUSTER_HEAD_BYTES: u64 = 22;
/// Size fields of blocks: up to 256 MiB.
const SIZE_BYTES: usize = 4;
/// BlockDuration, with a value of eight bytes.
const DURATION_BYTES: u64 = 10;

/// A track of a document.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FixedTrack {
    number: u64,
    /// Subtitles say how long they are shown.
    tells_duration: bool,
}

/// A frame, without its bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct FixedFrame {
    /// After its Cluster's timestamp.
    pub relative: i16,
    /// For subtitles.
    pub duration: u64,
    /// Decoding can start here.
    pub sync: bool,
    /// Decoded, not shown.
    pub invisible: bool,
    /// As [`Sample::block_flags`](vidar_core::sample::Sample::block_flags).
    pub block_flags: u8,
    /// Bytes.
    pub len: u32,
}

/// The tracks of a document that begins with [`header`](super::mux::header) of the same config.
#[must_use]
pub fn tracks(config: &StreamConfig) -> Vec<FixedTrack> {
    let numbers = track_numbers(config).into_iter().zip(&config.tracks);
    numbers.map(|(number, track)| FixedTrack { number, tells_duration: track.kind == TrackKind::Subtitle }).collect()
}

/// Begins a Cluster with so many bytes of blocks.
pub fn write_cluster_head(out: &mut Vec<u8>, timestamp: u64, blocks_len: u64) {
    write_id(out, id::CLUSTER);
    write_vint_of(out, blocks_len + 10, 8);
    write_id(out, id::TIMESTAMP);
    write_vint(out, 8);
    out.extend_from_slice(&timestamp.to_be_bytes());
}

impl FixedTrack {
    /// Bytes before each of its frames.
    #[must_use]
    pub fn head_len(&self) -> u64 {
        let block = 1 + SIZE_BYTES as u64 + self.block_head_len();
        if self.tells_duration { 1 + SIZE_BYTES as u64 + DURATION_BYTES + block } else { block }
    }

    /// Number, timestamp, flags.
    fn block_head_len(&self) -> u64 {
        vint_len(self.number) as u64 + 3
    }

    /// All that goes before a frame, [`head_len`](Self::head_len) bytes.
    pub fn write_head(&self, out: &mut Vec<u8>, frame: &FixedFrame) {
        let block_len = self.block_head_len() + u64::from(frame.len);
        let mut flags = frame.block_flags & FLAG_INVISIBLE | if frame.invisible { FLAG_INVISIBLE } else { 0 };
        if self.tells_duration {
            write_id(out, id::BLOCK_GROUP);
            write_vint_of(out, DURATION_BYTES + 1 + SIZE_BYTES as u64 + block_len, SIZE_BYTES);
            write_id(out, id::BLOCK_DURATION);
            write_vint(out, 8);
            out.extend_from_slice(&frame.duration.to_be_bytes());
            write_id(out, id::BLOCK);
        } else {
            flags |= frame.block_flags & FLAG_DISCARDABLE | if frame.sync { FLAG_KEYFRAME } else { 0 };
            write_id(out, id::SIMPLE_BLOCK);
        }
        write_vint_of(out, block_len, SIZE_BYTES);
        write_vint(out, self.number);
        out.extend_from_slice(&frame.relative.to_be_bytes());
        out.push(flags);
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use vidar_core::track::{Track, TrackKind};

    use super::*;
    use crate::container::mkv::mux::{HeaderOptions, Timing, header};
    use crate::demux::{Demux, Event};

    #[test]
    fn clusters_read_as_they_were_written() {
        let subtitle = Track {
            kind: TrackKind::Subtitle,
            codec_id: "S_TEXT/UTF8".into(),
            timescale_hz: 1000,
            ..super::super::mux::tests::opaque_track()
        };
        let config = StreamConfig {
            tracks: vec![super::super::mux::tests::opaque_track(), subtitle],
            matroska_header: Bytes::new(),
        };
        let tracks = tracks(&config);
        let frames = [
            (0, FixedFrame { relative: 5, sync: true, len: 3, ..FixedFrame::default() }),
            (1, FixedFrame { relative: -2, duration: 40, len: 0, ..FixedFrame::default() }),
            (0, FixedFrame { relative: 45, invisible: true, len: 2, ..FixedFrame::default() }),
        ];
        let len: u64 = frames.iter().map(|(track, frame)| tracks[*track].head_len() + u64::from(frame.len)).sum();
        let mut bytes = header(&config, Timing::of(&config), &HeaderOptions::default()).to_vec();
        let start = bytes.len();
        write_cluster_head(&mut bytes, 1000, len);
        for (track, frame) in &frames {
            tracks[*track].write_head(&mut bytes, frame);
            bytes.extend((0..frame.len).map(|_| 7));
        }
        assert_eq!((bytes.len() - start) as u64, CLUSTER_HEAD_BYTES + len);

        let mut demuxer = crate::container::mkv::Demuxer::new();
        let mut events = Vec::new();
        demuxer.push(bytes.into(), &mut events).unwrap();
        demuxer.finish(&mut events).unwrap();
        let samples = events.iter().filter_map(|event| match event {
            Event::Sample(sample) => Some((sample.track, sample.presentation_ticks, sample.data.len())),
            _ => None,
        });
        assert_eq!(samples.collect::<Vec<_>>(), [(0, 1005, 3), (1, 998, 0), (0, 1045, 2)]);
    }
}
