//! A sample: coded data of one time on one track.

use bytes::Bytes;

/// Whether decoding can start at a sample.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum SyncKind {
    /// It needs others before it.
    #[default]
    None,
    /// A keyframe: it decodes alone.
    Sync,
    /// It follows a keyframe in decode order, precedes it in presentation order, and may need what came before that
    /// keyframe (a leading picture of an open GOP): skipped at random access.
    Leading,
}

/// Coded data of one time on one track, with its times in ticks of the track's timescale.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sample {
    /// Index into the tracks of the config.
    pub track: u8,
    /// When to decode. Strictly increasing within a track and run.
    pub decode_ticks: i64,
    /// Presentation time less decode time. Signed (`trun` version 1).
    pub composition_ticks: i32,
    /// Until the next sample of the track.
    pub duration_ticks: u32,
    /// The duration is a guess: readers correct it from the next sample.
    pub duration_estimated: bool,
    /// Whether decoding can start here.
    pub sync: SyncKind,
    /// Flags of a Matroska block that are not said elsewhere: 0x08 invisible, 0x01 discardable; 0x10 if it came in a
    /// BlockGroup.
    pub block_flags: u8,
    /// The bytes, as they are stored.
    pub data: Bytes,
}

impl Sample {
    /// When to show it.
    #[must_use]
    pub fn presentation_ticks(&self) -> i64 {
        self.decode_ticks.saturating_add(self.composition_ticks.into())
    }
}

/// A name and a value from the producer (a Matroska SimpleTag, an RTSP or HTTP header field).
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Tag {
    /// At most [`TAG_NAME_BYTES_MAX`](crate::limits::TAG_NAME_BYTES_MAX) bytes.
    pub name: String,
    /// At most [`TAG_VALUE_BYTES_MAX`](crate::limits::TAG_VALUE_BYTES_MAX) bytes.
    pub value: String,
}
