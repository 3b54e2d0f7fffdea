//! Whether what is stored can be played: errors are told when a session begins, not while a player plays.

use vidar_core::entry::SharedEntry;
use vidar_core::track::Codec;

use crate::Kvs;
use crate::error::{ServiceError, ServiceResult};

/// Fails where a codec that needs private data came without.
pub(crate) async fn check_codec_private(kvs: &Kvs, entry: &SharedEntry) -> ServiceResult<()> {
    let config = kvs.player.source.config(entry).await?;
    let needs = |codec: Codec| matches!(codec, Codec::H264 | Codec::H265 | Codec::Aac);
    match config.tracks.iter().find(|track| needs(track.codec) && track.codec_private.is_empty()) {
        Some(track) => Err(ServiceError::no_codec_private(track.codec.name())),
        None => Ok(()),
    }
}
