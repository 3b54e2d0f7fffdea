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
use http::StatusCode;
use vidar_core::track::Track;

use crate::{Api, ApiError, ApiResult};
pub use find::{Picture, find, find_from};
pub use pool::ImagePool;

/// Form of a picture.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ImageFormat {
    /// JPEG (ITU-T T.81).
    Jpeg,
    /// PNG.
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

/// How a picture is to look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// As what.
    pub format: ImageFormat,
    /// Width in pixels; none: as coded, or as the height says.
    pub width: Option<u32>,
    /// Height in pixels; none: as coded, or as the width says. With both the picture is stretched.
    pub height: Option<u32>,
    /// 1 to 100, of JPEG; none: the encoder's own.
    pub quality: Option<u8>,
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
    pub(crate) style: Style,
}

/// Decodes a picture and codes it anew.
///
/// # Errors
/// 422 if it does not decode, 501 if nothing here decodes its codec, 503 if that takes too long; if it does not read.
pub async fn render(api: &Api, images: &ImagePool, picture: &Picture, style: Style) -> ApiResult<Vec<u8>> {
    let job = async |picture: &Picture| -> ApiResult<Job> {
        let (track, wanted_ticks) = (picture.track().clone(), picture.wanted_ticks());
        Ok(Job { track, pictures: picture.read(api).await?, wanted_ticks, style })
    };
    let place = images.place().await?;
    let error = match images.decode(job(picture).await?, place).await {
        Err(error @ ImageError::Undecodable(_)) => error,
        done => return Ok(done?),
    };
    match picture.clone().earlier(api).await? {
        Some(earlier) => {
            let place = images.place().await?;
            Ok(images.decode(job(&earlier).await?, place).await?)
        }
        None => Err(error.into()),
    }
}

impl From<ImageError> for ApiError {
    fn from(error: ImageError) -> Self {
        let status = match &error {
            ImageError::NoDecoder(_) => StatusCode::NOT_IMPLEMENTED,
            ImageError::Undecodable(_) => StatusCode::UNPROCESSABLE_ENTITY,
            ImageError::Timeout(_) => StatusCode::SERVICE_UNAVAILABLE,
        };
        Self::new(status, error.to_string())
    }
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
