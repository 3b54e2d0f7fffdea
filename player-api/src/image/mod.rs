//! Pictures: which sample is shown at an instant, and the sample decoded.
//!
//! The picture at t is the sample with the greatest presentation time up to t, from an earlier fragment if need be.
//! Decoding begins at the sync sample that the wanted sample needs. It is the one place where media is decoded, in a
//! pool of a few threads with a time limit.

#[cfg(feature = "gst")]
mod decode;
mod find;
mod pool;

use bytes::Bytes;
use vidar_core::track::Track;

pub(crate) use find::{Picture, find};
pub(crate) use pool::ImagePool;

/// Form of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ImageFormat {
    Jpeg,
    Png,
}

impl ImageFormat {
    pub(crate) const fn content_type(self) -> &'static str {
        match self {
            Self::Jpeg => "image/jpeg",
            Self::Png => "image/png",
        }
    }
}

/// One coded picture on its way to a decoder.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "gst"), allow(dead_code))] // made all the same, and refused
pub(crate) struct CodedPicture {
    pub(crate) presentation_ticks: i64,
    pub(crate) sync: bool,
    pub(crate) data: Bytes,
}

/// What is to be decoded.
#[derive(Debug, Clone)]
#[cfg_attr(not(feature = "gst"), allow(dead_code))]
pub(crate) struct Job {
    pub(crate) track: Track,
    /// In decode order, from a sync sample on.
    pub(crate) pictures: Vec<CodedPicture>,
    /// Presentation time of the one that is wanted.
    pub(crate) wanted_ticks: i64,
    pub(crate) format: ImageFormat,
    /// Width in pixels; none: as coded.
    pub(crate) width: Option<u32>,
}

/// Why there is no picture.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum ImageError {
    /// Nothing here decodes it.
    #[error("no decoder for {0}")]
    NoDecoder(String),
    /// The decoder made no picture of it.
    #[error("the picture does not decode: {0}")]
    Undecodable(String),
    /// All decoders are busy, or one took too long.
    #[error("decoding took longer than {0} ms")]
    Timeout(u64),
}
