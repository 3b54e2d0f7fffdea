//! Containers and codecs, sans-I/O: bytes in, samples out, and back. No clock is read here, and no runtime is used, so
//! every parser can be fuzzed with a byte slice.
//!
//! - [`container`]: push parsers (bytes in, [`Event`]s out) and writers, a folder for each format.
//! - [`codec`]: parameter sets: what a track is, what a sample is.
//! - [`table`]: the sample table of a fragment.
//! - [`fragmenter`]: cuts events into fragments at sync samples.

pub mod codec;
pub mod container;
pub mod demux;
pub mod fragmenter;
#[doc(hidden)]
pub mod fuzz;
pub mod table;

pub use demux::{Demux, DemuxError, DemuxErrorKind, Event, PassedOver, RawSample};
pub use vidar_core::sample::{Sample, SyncKind, Tag};
pub use vidar_core::track::{
    AudioParams, Codec, NalFraming, PcmFormat, StreamConfig, Track, TrackKind, Trims, VideoParams,
};
