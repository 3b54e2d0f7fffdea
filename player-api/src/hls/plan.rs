//! From timeline entries to what the playlists say.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::{ConfigId, FragmentNumber};
use vidar_core::record::FragmentFlags;
use vidar_core::time::UnixMs;
use vidar_core::track::{StreamConfig, Track};
use vidar_media::container::fmp4::sample_entry;
use vidar_media::container::ts;

use super::media::Segment;
use super::multivariant::{Multivariant, Rendition};
use super::rendition::{self, RenditionId};

/// The fragments of a playlist, in its order, and their configs.
#[derive(Debug, Clone, Default)]
pub struct Plan {
    /// Never empty.
    pub(crate) entries: Vec<SharedEntry>,
    /// Those that read, one at least.
    pub(crate) configs: HashMap<ConfigId, Arc<StreamConfig>>,
    /// Of the entries, those that are known not to read.
    pub(crate) damaged: HashSet<FragmentNumber>,
}

/// How URIs are written. They are relative to the playlist they stand in.
pub trait Names {
    /// Of the media playlist of a rendition.
    fn playlist(&self, id: RenditionId) -> String;

    /// Of the init segment that a fragment needs.
    fn init(&self, id: RenditionId, entry: &SharedEntry) -> String;

    /// Of the segment of a fragment.
    fn segment(&self, id: RenditionId, number: FragmentNumber) -> String;

    /// Of the segment that is missing at an ordinal.
    fn missing(&self, id: RenditionId, ordinal: u64) -> String;
}

/// Which ordinals without a fragment are listed as gaps.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Missing {
    /// None: the segments are the entries, one by one.
    LeftOut,
    /// Between two fragments of a run.
    OfRun,
    /// All.
    Listed,
}

pub(crate) fn starts_with_sync(entry: &SharedEntry) -> bool {
    entry.meta.flags.contains(FragmentFlags::STARTS_WITH_SYNC)
}

impl Plan {
    fn config(&self, entry: &SharedEntry) -> Option<&Arc<StreamConfig>> {
        self.configs.get(&entry.meta.config)
    }

    /// Every segment of a rendition decodes alone; of none: of all.
    #[must_use]
    pub fn independent(&self, rendition: Option<RenditionId>) -> bool {
        rendition.is_some_and(|id| !id.is_video()) || self.entries.iter().all(starts_with_sync)
    }

    /// Of the last fragment, if it reads.
    pub(super) fn last_config(&self) -> Option<Arc<StreamConfig>> {
        self.entries.last().and_then(|entry| self.config(entry)).cloned()
    }

    /// What there is to play.
    #[must_use]
    pub fn renditions(&self) -> BTreeSet<RenditionId> {
        self.configs.values().flat_map(|config| rendition::of_config(config)).map(|(id, _)| id).collect()
    }

    /// Tracks of any config that HLS does not carry, for the header.
    pub(crate) fn omitted(&self) -> Option<String> {
        let mut omitted: Vec<String> = self.configs.values().flat_map(|config| rendition::omitted(config)).collect();
        omitted.sort();
        omitted.dedup();
        (!omitted.is_empty()).then(|| omitted.join(", "))
    }

    /// A transport stream carries one of the tracks.
    #[must_use]
    pub fn plays_as_ts(&self) -> bool {
        self.configs.values().flat_map(|config| &config.tracks).any(ts::carries)
    }

    /// The segments of a rendition. A fragment without samples of it is a gap, and one that is damaged, or whose config is;
    /// so is each ordinal that is missing, as far as `missing` says.
    #[must_use]
    pub fn segments(&self, id: RenditionId, names: &dyn Names, missing: Missing) -> Vec<Segment> {
        let mut segments: Vec<Segment> = Vec::with_capacity(self.entries.len());
        let mut map: Option<ConfigId> = None;
        let mut last: Option<&SharedEntry> = None;
        for entry in &self.entries {
            if let Some(last) = last
                && (missing == Missing::Listed || missing == Missing::OfRun && last.meta.run == entry.meta.run)
            {
                segments.extend(missing_between(last, entry, id, names));
            }
            last = Some(entry);
            let track = self.config(entry).and_then(|config| id.track(config));
            let number = entry.meta.number;
            let has_samples = track.is_some_and(|track| sample_count(entry, track).is_none_or(|count| count > 0));
            let plays = has_samples && !self.damaged.contains(&number);
            let new_map = plays && map.replace(entry.meta.config) != Some(entry.meta.config);
            segments.push(Segment {
                discontinuity: entry.meta.discontinuity,
                start: entry.meta.producer_start,
                duration_ms: entry.meta.duration_ms.max(1),
                map: new_map.then(|| names.init(id, entry)),
                uri: names.segment(id, number),
                gap: !plays,
                parts: Vec::new(),
            });
        }
        segments
    }

    /// The keyframes that fragments begin with, as segments of a rendition: each lasts until the next.
    #[must_use]
    pub fn key_frames(&self, id: RenditionId, names: &dyn Names) -> Vec<Segment> {
        let mut frames: Vec<Segment> = Vec::with_capacity(self.entries.len());
        let mut map = None;
        for (mut segment, entry) in self.segments(id, names, Missing::LeftOut).into_iter().zip(&self.entries) {
            map = segment.map.take().or(map);
            if starts_with_sync(entry) && !segment.gap {
                frames.push(Segment { map: map.take(), ..segment });
            } else if let Some(last) = frames.last_mut() {
                last.duration_ms = last.duration_ms.saturating_add(segment.duration_ms);
            }
        }
        frames
    }

    /// The multivariant playlist.
    #[must_use]
    pub fn multivariant(&self, names: &dyn Names) -> Multivariant {
        let mut tracks: BTreeMap<RenditionId, Vec<(ConfigId, u8, &Track)>> = BTreeMap::new();
        for (config_id, config) in &self.configs {
            for (id, index) in rendition::of_config(config) {
                let track = &config.tracks[usize::from(index)];
                tracks.entry(id).or_default().push((*config_id, index, track));
            }
        }
        let mut playlist = Multivariant { independent: self.independent(None), ..Multivariant::default() };
        for (id, mut tracks) in tracks {
            tracks.sort_by_key(|(config, ..)| *config);
            let rendition = self.rendition(id, names.playlist(id), &tracks);
            if id.is_video() { playlist.video.push(rendition) } else { playlist.audio.push(rendition) }
        }
        let rate = |bytes: u64, ms: u64| bytes.saturating_mul(8000) / ms.max(1);
        let sums = |(bytes, ms): (u64, u64), entry: &SharedEntry| {
            (bytes.saturating_add(entry.size_bytes), ms + u64::from(entry.meta.duration_ms))
        };
        let (bytes, ms) = self.entries.iter().fold((0, 0), sums);
        let peak = self.entries.iter().map(|entry| rate(entry.size_bytes, entry.meta.duration_ms.into())).max();
        (playlist.average_bps, playlist.peak_bps) = (rate(bytes, ms), peak.unwrap_or(0));
        playlist
    }

    fn rendition(&self, id: RenditionId, uri: String, tracks: &[(ConfigId, u8, &Track)]) -> Rendition {
        let mut codecs: Vec<String> =
            tracks.iter().filter_map(|(.., track)| sample_entry::codec_string(track)).collect();
        codecs.sort();
        codecs.dedup();
        let sizes = tracks.iter().filter_map(|(.., track)| track.video).map(|video| (video.width, video.height));
        let last = tracks.last().map(|(.., track)| track);
        Rendition {
            id,
            uri,
            codecs,
            resolution: sizes.filter(|(width, height)| *width > 0 && *height > 0).max(),
            milli_fps: if id.is_video() { self.milli_fps(tracks) } else { None },
            language: last.map(|track| track.language.clone()).unwrap_or_default(),
            name: last.map(|track| track.name.clone()).unwrap_or_default(),
            channels: last.and_then(|track| track.audio).map_or(0, |audio| audio.channels),
            key_frames: None,
        }
    }

    /// Frames over time, in all fragments.
    fn milli_fps(&self, tracks: &[(ConfigId, u8, &Track)]) -> Option<u64> {
        let (mut frames, mut ms) = (0_u64, 0_u64);
        for entry in &self.entries {
            let Some((_, index, _)) = tracks.iter().find(|(config, ..)| *config == entry.meta.config) else { continue };
            let Some(count) = sample_count(entry, *index) else { continue };
            frames += u64::from(count);
            ms += u64::from(entry.meta.duration_ms);
        }
        (frames > 0 && ms > 0).then(|| frames.saturating_mul(1_000_000) / ms)
    }
}

/// Samples of a track, where the entry says.
fn sample_count(entry: &SharedEntry, track: u8) -> Option<u32> {
    entry.totals.get(usize::from(track)).map(|totals| totals.sample_count)
}

/// Most missing ordinals that are listed one by one.
pub(crate) const MISSING_MAX: u64 = 50;

/// Gap segments for the ordinals between two fragments; none if they do not follow each other.
fn missing_between(last: &SharedEntry, next: &SharedEntry, id: RenditionId, names: &dyn Names) -> Vec<Segment> {
    let first = last.meta.ordinal.saturating_add(1);
    let count = next.meta.ordinal.saturating_sub(first);
    if count == 0 || count > MISSING_MAX {
        return Vec::new();
    }
    let end = last.meta.producer_end();
    let between_ms = next.meta.producer_start.since_ms(end);
    // Where times say nothing of how long the missing ones were, they were like the one before.
    let longest_ms = i64::from(last.meta.duration_ms.max(next.meta.duration_ms).max(1));
    let each_ms = Some(between_ms / count as i64).filter(|ms| *ms > 0).unwrap_or(longest_ms).min(longest_ms);
    let gap = |index: u64| Segment {
        discontinuity: last.meta.discontinuity,
        start: UnixMs(end.0.saturating_add(each_ms.saturating_mul(index as i64))),
        duration_ms: u32::try_from(each_ms).unwrap_or(u32::MAX),
        map: None,
        uri: names.missing(id, first + index),
        gap: true,
        parts: Vec::new(),
    };
    (0..count).map(gap).collect()
}
