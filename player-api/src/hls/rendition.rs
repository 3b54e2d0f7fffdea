//! Renditions: each track that HLS carries is one of its own, named by kind and number (`v1`, `a1`, `a2`, …), so that a
//! playlist goes on across configs that order their tracks differently.

use std::fmt;

use vidar_core::track::{Codec, NalFraming, StreamConfig, Track, TrackKind};
use vidar_media::container::fmp4::sample_entry;

/// Names a rendition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct RenditionId {
    video: bool,
    /// From 1, among the tracks of its kind that HLS carries.
    number: u8,
}

impl RenditionId {
    /// From its name: `v1`, `a1`, `a2`, …
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let (video, digits) = match text.split_at_checked(1)? {
            ("v", digits) => (true, digits),
            ("a", digits) => (false, digits),
            _ => return None,
        };
        let number = digits.parse().ok().filter(|number| *number > 0)?;
        (digits == format!("{number}")).then_some(Self { video, number })
    }

    /// Shows pictures.
    #[must_use]
    pub fn is_video(self) -> bool {
        self.video
    }

    /// It is the first of those that show pictures.
    #[must_use]
    pub fn is_first_video(self) -> bool {
        self.video && self.number == 1
    }

    /// Its name as one number, for those who number tracks: 1, 3, … of pictures, 2, 4, … of sound.
    #[must_use]
    pub fn track_number(self) -> u64 {
        u64::from(self.number) * 2 - u64::from(self.video)
    }

    /// Reads what `track_number` gave.
    #[must_use]
    pub fn of_track_number(number: u64) -> Option<Self> {
        let (video, number) = (number % 2 == 1, u8::try_from(number.div_ceil(2)).ok()?);
        (number > 0).then_some(Self { video, number })
    }

    /// Its track in a config.
    pub(crate) fn track(self, config: &StreamConfig) -> Option<u8> {
        of_config(config).find(|(id, _)| *id == self).map(|(_, track)| track)
    }
}

impl fmt::Display for RenditionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}{}", if self.video { 'v' } else { 'a' }, self.number)
    }
}

/// The renditions of a config, and their tracks.
pub(crate) fn of_config(config: &StreamConfig) -> impl Iterator<Item = (RenditionId, u8)> {
    let mut counts = [0_u8; 2];
    config.tracks.iter().zip(0_u8..).filter(|(track, _)| carries(track)).map(move |(track, index)| {
        let video = track.kind == TrackKind::Video;
        let count = &mut counts[usize::from(video)];
        *count += 1;
        (RenditionId { video, number: *count }, index)
    })
}

/// HLS has a place for the track: a codec that players of fragmented MP4 know.
pub(crate) fn carries(track: &Track) -> bool {
    let known = match track.kind {
        TrackKind::Video => matches!(track.codec, Codec::H264 | Codec::H265 | Codec::Av1 | Codec::Vp9),
        TrackKind::Audio => matches!(track.codec, Codec::Aac | Codec::Opus | Codec::Mp3),
        TrackKind::Subtitle | TrackKind::Data => false,
    };
    known && track.framing != NalFraming::AnnexB && sample_entry::codec_string(track).is_some()
}

/// A track that is left out, for `Vidar-Omitted-Tracks`: its index and codec.
pub(crate) fn omitted(config: &StreamConfig) -> impl Iterator<Item = String> {
    config.tracks.iter().enumerate().filter(|(_, track)| !carries(track)).map(|(index, track)| {
        let codec_id: String =
            track.codec_id.chars().take(64).filter(|c| c.is_ascii_graphic() && !",;\"".contains(*c)).collect();
        let name = if track.codec == Codec::Opaque { codec_id } else { track.codec.name().to_owned() };
        format!("{index};codec={name}")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_as_they_are_written() {
        for name in ["v1", "a1", "a10"] {
            let id = RenditionId::parse(name).expect(name);
            assert_eq!(id.to_string(), name);
            assert_eq!(RenditionId::of_track_number(id.track_number()), Some(id));
        }
        for wrong in ["", "v", "v0", "v01", "x1", "a256", "a-1", "a+1", "é1"] {
            assert_eq!(RenditionId::parse(wrong), None, "{wrong}");
        }
        for wrong in [0, 511, 512, u64::MAX] {
            assert_eq!(RenditionId::of_track_number(wrong), None, "{wrong}");
        }
        assert_eq!(RenditionId::of_track_number(1), RenditionId::parse("v1"));
        assert_eq!(RenditionId::of_track_number(2), RenditionId::parse("a1"));
    }
}
