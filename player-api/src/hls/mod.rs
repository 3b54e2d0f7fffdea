//! HLS (RFC 8216): fragmented MP4 segments, a media playlist for each track.
//!
//! A segment is a track of one fragment. Playlists are made from timeline entries and configs alone; only segments open
//! tables and media.

mod media;
mod multivariant;
mod plan;
pub(crate) mod rendition;
mod segment;
mod select;

pub(crate) use media::MediaPlaylist;
pub(crate) use plan::{Plan, Uris};
pub(crate) use rendition::RenditionId;
pub(crate) use segment::{FORMAT_VERSION, Segment, init_segment};
pub(crate) use select::{live, range};
