//! A clip as an MP4 with its index first.

use std::collections::{BTreeMap, BTreeSet};

use vidar_core::entry::SharedEntry;
use vidar_core::time::UnixMs;
use vidar_core::track::{StreamConfig, Track};
use vidar_media::container::fmp4::progressive::{
    Builder, Edit, Layout, Mapping, MovieHead, Scale, TrackHead, TrackPart,
};
use vidar_media::container::fmp4::sample_entry;
use vidar_media::table::SampleEntry;

use super::plan::Refused;
use super::span::{Fragment, Part};
use super::timing::{Taken, TrackScale, lcm, span_starts};
use super::tracks::{ClipTrack, Source};

/// 1904-01-01T00:00:00Z, in milliseconds since 1970 (ISO/IEC 14496-12 section 8.2.2).
const EPOCH_1904_MS: i64 = -2_082_844_800_000;

/// A file that is laid out, and the fragments it is made of, in its order.
#[derive(Debug)]
pub(super) struct Mp4 {
    pub(super) layout: Layout,
    pub(super) fragments: Vec<SharedEntry>,
}

/// MP4 has a place for the track.
pub(super) fn carries(config: &StreamConfig, track: usize) -> bool {
    config.tracks.get(track).is_some_and(|track| sample_entry::encode(track).is_some())
}

/// Lays a clip out. `configs` are as many as the tracks' sources; `at` is the producer time of its beginning.
pub(super) fn lay_out(tracks: &[ClipTrack], config_tracks: &[Vec<Track>], taken: &[Taken]) -> Result<Mp4, Refused> {
    let used: BTreeSet<usize> = taken.iter().flat_map(|t| &t.span.fragments).map(|fragment| fragment.config).collect();
    let present: Vec<usize> = (0..tracks.len()).filter(|track| fragments_of(taken, *track).next().is_some()).collect();
    let mut coarse = vec![false; tracks.len()];
    let mut extra_ns = vec![0; taken.len()];
    loop {
        let (starts_ns, end_ns) = span_starts(taken, &extra_ns);
        let mut plans = Vec::with_capacity(present.len());
        for index in &present {
            let scale = TrackScale::new(&tracks[*index], &used, coarse[*index]);
            plans.push(TrackPlan { index: *index, track: &tracks[*index], scale, taken, starts_ns: &starts_ns });
        }
        // Decode times of a track increase from span to span.
        if let Some(overlaps) = plans.iter().map(TrackPlan::overlaps).find(|overlaps| !overlaps.is_empty()) {
            for (span, late_ns) in overlaps {
                extra_ns[span] += late_ns;
            }
            continue;
        }
        if let Some(plan) = plans.iter().find(|plan| !coarse[plan.index] && plan.has_long_pause()) {
            coarse[plan.index] = true;
            continue;
        }
        return build(&plans, config_tracks, taken, end_ns);
    }
}

fn build(plans: &[TrackPlan<'_>], config_tracks: &[Vec<Track>], taken: &[Taken], end_ns: i128) -> Result<Mp4, Refused> {
    let timescales = plans.iter().map(|plan| u64::from(plan.scale.timescale_hz));
    let common = timescales.clone().try_fold(1, lcm).or_else(|| timescales.max());
    let movie_hz = common.and_then(|hz| u32::try_from(hz).ok()).unwrap_or(1000);
    let mut heads = Vec::with_capacity(plans.len());
    let mut descriptions: Vec<BTreeMap<usize, u32>> = Vec::with_capacity(plans.len());
    let mut need = BTreeSet::new();
    for plan in plans {
        let (sample_entries, numbers) = plan.sample_entries(config_tracks);
        descriptions.push(numbers);
        match plan.head(movie_hz, end_ns) {
            Ok(head) => heads.push(TrackHead { sample_entries, ..head }),
            Err(Refused::Need(more)) => need.extend(more),
            Err(error) => return Err(error),
        }
    }
    if !need.is_empty() {
        return Err(Refused::Need(need));
    }

    let mut builder = Builder::new(plans.len());
    let mut fragments = Vec::new();
    for (span, index, fragment) in all_fragments(taken) {
        let part_of = |(plan, descriptions): (&TrackPlan<'_>, &BTreeMap<usize, u32>)| {
            let part = taken[span].selection.parts[index][plan.index].as_ref()?;
            let description = *descriptions.get(&fragment.config)?;
            Some(plan.track_part(span, fragment, part, description))
        };
        let parts: Vec<Option<TrackPart>> = plans.iter().zip(&descriptions).map(part_of).collect();
        if parts.iter().any(Option::is_some) {
            builder.push(parts)?;
            fragments.push(fragment.entry.clone());
        }
    }
    let duration_ticks = heads.iter().map(|head| head.edits.iter().map(|edit| edit.duration_ticks).sum()).max();
    let selection = &taken[0].selection;
    let at = UnixMs(selection.epoch_ms.saturating_add(i64::try_from(selection.shown_ns / 1_000_000).unwrap_or(0)));
    let movie = MovieHead {
        timescale_hz: movie_hz,
        duration_ticks: duration_ticks.unwrap_or(0),
        creation_s: u64::try_from(at.0.saturating_sub(EPOCH_1904_MS) / 1000).unwrap_or(0),
    };
    Ok(Mp4 { layout: builder.finish(&movie, &heads)?, fragments })
}

fn all_fragments(taken: &[Taken]) -> impl Iterator<Item = (usize, usize, &Fragment)> {
    let of_span = |(span, taken): (usize, &'_ Taken)| (span, taken.span.fragments.len());
    let places = taken.iter().enumerate().map(of_span).collect::<Vec<_>>().into_iter();
    places.flat_map(|(span, len)| (0..len).map(move |index| (span, index))).map(|(span, index)| {
        let fragment = &taken[span].span.fragments[index];
        (span, index, fragment)
    })
}

/// Fragments that give something to a track: span, index, fragment and part.
fn fragments_of(taken: &[Taken], track: usize) -> impl DoubleEndedIterator<Item = (usize, usize, &Fragment, &Part)> {
    taken.iter().enumerate().flat_map(move |(span, taken)| {
        let fragments = taken.span.fragments.iter().enumerate();
        fragments.filter_map(move |(index, fragment)| {
            let part = taken.selection.parts[index][track].as_ref()?;
            Some((span, index, fragment, part))
        })
    })
}

/// A track of the clip on the clip's timeline.
struct TrackPlan<'a> {
    index: usize,
    track: &'a ClipTrack,
    scale: TrackScale,
    taken: &'a [Taken],
    starts_ns: &'a [i128],
}

impl TrackPlan<'_> {
    fn parts(&self) -> impl DoubleEndedIterator<Item = (usize, usize, &Fragment, &Part)> {
        fragments_of(self.taken, self.index)
    }

    fn source(&self, fragment: &Fragment) -> Source {
        self.track.source(fragment.config).expect("a part comes from a track")
    }

    fn scale_of(&self, fragment: &Fragment) -> Scale {
        self.scale.of(fragment.config).expect("a part comes from a track")
    }

    /// Added to scaled times of a fragment: ticks since the clip's beginning.
    fn base_ticks(&self, span: usize, fragment: &Fragment) -> i64 {
        let origin_ns = self.taken[span].selection.origin_ns + self.source(fragment).shift_ns;
        self.scale.ticks(self.starts_ns[span]).saturating_sub(self.scale.ticks(origin_ns))
    }

    /// Decode time of the first sample of a part, since the clip's beginning.
    fn first_ticks(&self, span: usize, fragment: &Fragment, part: &Part) -> i64 {
        let first = self.scale_of(fragment).apply(part.totals.first_decode_ticks);
        first.saturating_add(self.base_ticks(span, fragment))
    }

    /// Decode time of the track's first sample.
    fn zero_ticks(&self) -> i64 {
        self.parts().next().map_or(0, |(span, _, fragment, part)| self.first_ticks(span, fragment, part))
    }

    /// The kept samples of a part whose table is open, their times in ticks since the clip's beginning.
    fn kept<'a>(&'a self, fragment: &'a Fragment, part: &'a Part) -> impl Iterator<Item = &'a SampleEntry> {
        let positions = (0_u32..).zip(fragment.samples(self.source(fragment)));
        positions.filter(|(position, _)| part.keep.contains(*position)).map(|(_, sample)| sample)
    }

    /// The spans whose samples would be decoded before those of the span before are, and by how much.
    fn overlaps(&self) -> Vec<(usize, i128)> {
        let mut overlaps = Vec::new();
        let mut last: Option<(usize, i64)> = None;
        for (span, _, fragment, part) in self.parts() {
            let base = self.base_ticks(span, fragment);
            let first = self.first_ticks(span, fragment, part);
            if let Some((last_span, last)) = last
                && last_span != span
                && first <= last
            {
                let late = i128::from(last.saturating_sub(first)) + 1;
                overlaps.push((span, late * 1_000_000_000 / i128::from(self.scale.timescale_hz) + 1));
            }
            let scale = self.scale_of(fragment);
            let newest = self.kept(fragment, part).last().map_or(first, |s| scale.apply(s.decode_ticks) + base);
            last = Some((span, newest.max(first)));
        }
        overlaps
    }

    /// A delta to the next fragment's first sample would exceed 32 bits.
    fn has_long_pause(&self) -> bool {
        let mut firsts = self.parts().map(|(span, _, fragment, part)| self.first_ticks(span, fragment, part));
        let Some(mut last) = firsts.next() else { return false };
        firsts.any(|first| {
            let delta = first.saturating_sub(std::mem::replace(&mut last, first));
            delta > i64::from(u32::MAX / 2)
        })
    }

    fn track_part(&self, span: usize, fragment: &Fragment, part: &Part, description: u32) -> TrackPart {
        let mapping = Mapping {
            source_track: self.source(fragment).index,
            description,
            scale: self.scale_of(fragment),
            offset_ticks: self.base_ticks(span, fragment).saturating_sub(self.zero_ticks()),
        };
        TrackPart { mapping, totals: part.totals, keep: part.keep.clone() }
    }

    /// The different sample entries, and each config's number among them.
    fn sample_entries(&self, config_tracks: &[Vec<Track>]) -> (Vec<bytes::Bytes>, BTreeMap<usize, u32>) {
        let (mut entries, mut numbers) = (Vec::new(), BTreeMap::new());
        for (config, source) in self.track.sources.iter().enumerate() {
            let track = source.and_then(|source| config_tracks[config].get(usize::from(source.index)));
            let Some(entry) = track.and_then(sample_entry::encode) else { continue };
            let position = entries.iter().position(|known| *known == entry).unwrap_or(entries.len());
            if position == entries.len() {
                entries.push(entry);
            }
            numbers.insert(config, u32::try_from(position + 1).unwrap_or(u32::MAX));
        }
        (entries, numbers)
    }

    /// Edits and duration. The sample entries are left to the caller.
    fn head(&self, movie_hz: u32, clip_end_ns: i128) -> Result<TrackHead, Refused> {
        let (first, last) = (self.parts().next(), self.parts().next_back());
        let (Some(first), Some(last)) = (first, last) else { return Err(Refused::Need(BTreeSet::new())) };
        let need: BTreeSet<(usize, usize)> = [first, last]
            .into_iter()
            .filter(|(_, _, fragment, _)| fragment.opened.is_none())
            .map(|(span, index, _, _)| (span, index))
            .collect();
        if !need.is_empty() {
            return Err(Refused::Need(need));
        }
        let zero = self.zero_ticks();
        // Where presentation starts: at the clip's beginning, or where the track's first sample is shown.
        let shown = self.presented(first).map(|(start, _)| start).min().unwrap_or(0).max(0);
        let media_time = shown.saturating_sub(zero);
        let shift = i32::try_from(media_time.min(0).unsigned_abs()).unwrap_or(i32::MAX);

        let clip_end = self.scale.ticks_ceil(clip_end_ns);
        let ends = self.parts().rev().take(2).flat_map(|part| self.presented(part).collect::<Vec<_>>());
        let end = ends.map(|(_, end)| end).max().unwrap_or(shown).min(clip_end).max(shown);

        let (_, _, fragment, part) = last;
        let base = self.base_ticks(last.0, fragment);
        let scale = self.scale_of(fragment);
        let last_sample = self.kept(fragment, part).last();
        let duration = last_sample.map_or(1, |sample| {
            let decode = scale.apply(sample.decode_ticks).saturating_add(base).saturating_sub(zero);
            let until = scale.apply(sample.decode_ticks.saturating_add(sample.duration_ticks.max(1).into()));
            decode.saturating_add(until.saturating_sub(scale.apply(sample.decode_ticks)).max(1))
        });

        let movie = |ticks: i64| {
            let ticks = i128::from(ticks) * i128::from(movie_hz) * 2 + i128::from(self.scale.timescale_hz);
            u64::try_from(ticks / (2 * i128::from(self.scale.timescale_hz))).unwrap_or(0)
        };
        let mut edits = Vec::with_capacity(2);
        if shown > 0 {
            edits.push(Edit { duration_ticks: movie(shown), media_time_ticks: None });
        }
        let media_time_ticks = Some(u64::try_from(media_time).unwrap_or(0));
        edits.push(Edit { duration_ticks: movie(end).saturating_sub(movie(shown)), media_time_ticks });
        let video = self.track.track.video.unwrap_or_default();
        Ok(TrackHead {
            kind: self.track.track.kind,
            language: self.track.track.language.clone(),
            width: video.width,
            height: video.height,
            sample_entries: Vec::new(),
            timescale_hz: self.scale.timescale_hz,
            duration_ticks: u64::try_from(duration).unwrap_or(0),
            composition_shift_ticks: shift,
            edits,
        })
    }

    /// Start and end of presentation of a part's samples, in ticks since the clip's beginning.
    fn presented<'a>(
        &'a self,
        (span, _, fragment, part): (usize, usize, &'a Fragment, &'a Part),
    ) -> impl Iterator<Item = (i64, i64)> + 'a {
        let (base, scale) = (self.base_ticks(span, fragment), self.scale_of(fragment));
        let at = move |ticks: i64| scale.apply(ticks).saturating_add(base);
        self.kept(fragment, part)
            .map(move |sample| (at(sample.presentation_ticks()), at(sample.presentation_end_ticks())))
    }
}
