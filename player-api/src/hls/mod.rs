//! HLS (RFC 8216): fragmented MP4 segments, a media playlist for each track.
//!
//! A segment is a track of one fragment; while that is recorded it may be had in parts. Playlists are made from timeline entries and configs alone; only segments open
//! tables and media. What is public here serves other playlists over the same segments.

pub mod answer;
mod head;
mod low;
mod media;
mod multivariant;
mod parts;
mod plan;
mod rendition;
mod segment;
mod select;
mod ts;
mod uris;

pub use head::Heads;
pub(crate) use low::{Asked, part_ms, playlist as low_playlist};
pub use media::{LowLatency, MediaPlaylist, OpenSegment, Part, Segment as MediaSegment, target_s};
pub use multivariant::{Multivariant, Rendition};
pub use plan::{Missing, Names, Plan};
pub use rendition::RenditionId;
pub use segment::TIMELINE_LEAD_MS;
pub use select::with_configs;
pub(crate) use select::{live, range};
pub(crate) use uris::{Cut, PART_MS, SegmentName, Uris};
