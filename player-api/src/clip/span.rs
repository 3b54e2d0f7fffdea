//! A span: consecutive fragments of one run; and which of their samples a clip takes.
//!
//! ```text
//! fragments   [ before … | shown …………………………………… | after ]
//! opened         x    x     x    x            x    x    x       tables that selection needs
//! taken          part of these       all           part
//! ```
//! Sound is taken by presentation time. Pictures are taken in decode order, from the sync sample that the first picture
//! needs to the last picture that is shown; leading pictures of that sync sample are left out, as at any random access.
//! Tracks overlap across fragments by one at most, so what lies further in is taken whole, without opening it.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::record::{FragmentFlags, TrackTotals};
use vidar_core::sample::SyncKind;
use vidar_core::time::{UnixMs, ticks_to_ms_nearest};
use vidar_core::track::StreamConfig;
use vidar_media::container::fmp4::progressive::{Keep, totals_kept};
use vidar_media::table::{SampleEntry, Table};

use super::pictures::PictureStart;
use super::tracks::{ClipTrack, Source};
use crate::shift::primary_shift_ns;

/// The tables of a fragment.
#[derive(Debug)]
pub(super) struct Opened {
    /// Part records of the pieces.
    pub(super) parts: Vec<Option<u16>>,
    /// In order of arrival.
    pub(super) tables: Vec<Table>,
}

/// A fragment of a span.
#[derive(Debug, Clone)]
pub(super) struct Fragment {
    pub(super) entry: SharedEntry,
    /// Index into the configs of the clip.
    pub(super) config: usize,
    /// Its tables, if they were needed.
    pub(super) opened: Option<Arc<Opened>>,
    /// A track each, where the entry has none.
    pub(super) totals: Option<Arc<[TrackTotals]>>,
    /// Stored bytes of each track, where they were needed.
    pub(super) sizes: Option<Arc<[u64]>>,
}

/// Tracks overlap across fragments by one, or by this much: what a sender holds back of one to fill the other.
pub(super) const OVERLAP_MS: i64 = 500;
/// What a codec needs to settle is shorter (SeekPreRoll of Opus: 80 ms).
const LEAD_NS_MAX: i128 = 100_000_000;

/// How a span is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Style {
    /// It starts with the sync sample, not with what is shown at its start.
    pub(super) whole_gop: bool,
    /// At the beginning of a run, sound from before the first picture is kept, though it is not presented.
    pub(super) keeps_lead: bool,
}

/// Where a span starts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Start {
    /// With what is shown then.
    At(UnixMs),
    /// With its first picture that decodes.
    First,
}

/// Where a span ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum End {
    /// With its last sample.
    Last,
    /// What is shown then or later is left out, or, where it is needed for decoding, not shown.
    Before(UnixMs),
    /// As `Before`, but whatever is not shown is left out: another span follows.
    Cut(UnixMs),
}

impl Start {
    pub(super) fn instant(self) -> Option<UnixMs> {
        match self {
            Self::At(at) => Some(at),
            Self::First => None,
        }
    }
}

impl End {
    pub(super) fn instant(self) -> Option<UnixMs> {
        match self {
            Self::Before(at) | Self::Cut(at) => Some(at),
            Self::Last => None,
        }
    }
}

/// Consecutive fragments of one run.
#[derive(Debug, Clone)]
pub(super) struct Span {
    pub(super) fragments: Vec<Fragment>,
    /// Those that the timeline shows; before and after them are neighbours of the same run.
    pub(super) shown: Range<usize>,
    pub(super) start: Start,
    pub(super) end: End,
}

/// What is taken of a fragment's track.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) keep: Keep,
    pub(super) totals: TrackTotals,
}

/// What is taken of a span.
#[derive(Debug, Clone)]
pub(super) struct Selection {
    /// For each fragment, for each track of the clip.
    pub(super) parts: Vec<Vec<Option<Part>>>,
    /// Instant of the run where the span starts, in nanoseconds.
    pub(super) origin_ns: i128,
    /// Instant of what is shown at the start; later than `origin_ns` if the span starts with a keyframe before it.
    pub(super) shown_ns: i128,
    /// Instant before which it ends, if it is cut.
    pub(super) end_ns: Option<i128>,
    /// Instant where it ends by itself.
    pub(super) last_ns: i128,
    /// Producer time at instant 0, in milliseconds.
    pub(super) epoch_ms: i64,
}

/// Tables that have to be opened first, by index of the fragment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Need(pub(super) BTreeSet<usize>);

/// A sample of an opened fragment.
#[derive(Debug, Clone, Copy)]
pub(super) struct Known<'a> {
    pub(super) fragment: usize,
    pub(super) position: usize,
    pub(super) source: Source,
    pub(super) entry: &'a SampleEntry,
}

impl Known<'_> {
    pub(super) fn at_ns(&self) -> i128 {
        self.source.instant_ns(self.entry.presentation_ticks())
    }

    pub(super) fn end_ns(&self) -> i128 {
        self.source.instant_ns(self.entry.presentation_end_ticks())
    }

    pub(super) fn place(&self) -> (usize, usize) {
        (self.fragment, self.position)
    }
}

/// What a span starts with.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Origin {
    /// Where it is.
    pub(super) fragment: usize,
    /// When it is shown.
    pub(super) shown_ns: i128,
    /// When the span starts: not later.
    pub(super) at_ns: i128,
}

impl Fragment {
    pub(super) fn new(entry: SharedEntry, config: usize) -> Self {
        Self { entry, config, opened: None, totals: None, sizes: None }
    }

    /// Of a track of its config, all samples.
    pub(super) fn totals(&self, source: Source) -> Option<TrackTotals> {
        let totals = self.totals.as_ref().map_or(&self.entry.totals[..], |totals| totals);
        totals.get(usize::from(source.index)).copied()
    }

    /// The samples of a track, in decode order.
    pub(super) fn samples(&self, source: Source) -> impl Iterator<Item = &SampleEntry> {
        let tables = self.opened.as_ref().map_or(&[][..], |opened| &opened.tables[..]);
        let of_track = tables.iter().flat_map(|table| &table.tracks).filter(move |track| track.track == source.index);
        of_track.flat_map(|track| &track.samples)
    }

    /// Producer time less media time, in milliseconds: the same for all fragments of a run.
    fn epoch_ms(&self, config: &StreamConfig) -> Option<i64> {
        let opened = self.opened.as_ref()?;
        let first_of = |track: u8, sync_only: bool| {
            let all = opened.tables.iter().flat_map(|table| &table.tracks).filter(move |t| t.track == track);
            let hz = config.tracks.get(usize::from(track))?.timescale_hz;
            let mut samples = all.flat_map(|t| &t.samples);
            let first = samples.find(|sample| !sync_only || sample.sync == SyncKind::Sync)?;
            Some(ticks_to_ms_nearest(first.presentation_ticks(), hz))
        };
        let primary = config.primary_track().and_then(|index| u8::try_from(index).ok())?;
        let first_arrived = || {
            let table = opened.tables.iter().find(|table| table.sample_count() > 0)?;
            let track = table.tracks.iter().min_by_key(|t| t.samples.first().map_or(u32::MAX, |s| s.arrival))?.track;
            first_of(track, false)
        };
        let media_ms = first_of(primary, true).or_else(|| first_of(primary, false)).or_else(first_arrived)?;
        Some(self.entry.meta.producer_start.0.saturating_sub(media_ms))
    }

    pub(super) fn source(&self, track: &ClipTrack) -> Option<Source> {
        track.source(self.config)
    }
}

impl Span {
    /// Tables that its selection needs in any case: those at its edges, and where each track ends.
    fn edges(&self, tracks: &[ClipTrack]) -> Need {
        let ends = tracks.iter().filter_map(|track| self.shown.clone().rfind(|index| self.holds(*index, track)));
        let zones = self.start_zone().chain(self.end_zone()).chain(ends);
        Need(zones.filter(|index| self.fragments[*index].opened.is_none()).collect())
    }

    /// Tables around what the span starts with, that are not open.
    fn near(&self, origin: Origin, epoch_ms: i64) -> Need {
        let at = UnixMs(epoch_ms.saturating_add(i64::try_from(origin.at_ns / 1_000_000).unwrap_or(0)));
        let (from, to) = (at.plus_ms(-OVERLAP_MS), at.plus_ms(OVERLAP_MS));
        let near = |index: &usize| {
            let Fragment { entry, opened, .. } = &self.fragments[*index];
            let overlaps = entry.meta.producer_end() > from && entry.meta.producer_start < to;
            opened.is_none() && (overlaps || index.abs_diff(origin.fragment) <= 1)
        };
        Need((0..self.fragments.len()).filter(near).collect())
    }

    /// A fragment has samples of the track.
    fn holds(&self, index: usize, track: &ClipTrack) -> bool {
        let fragment = &self.fragments[index];
        let totals = fragment.source(track).and_then(|source| fragment.totals(source));
        totals.is_some_and(|totals| totals.sample_count > 0)
    }

    /// The fragments that may hold what is shown around the start: the first and its neighbours, and what is near.
    pub(super) fn start_zone(&self) -> Range<usize> {
        let (first, end) = (self.shown.start, self.shown.end);
        let Start::At(at) = self.start else { return first..end.min(first + 1) };
        let meta = |index: usize| &self.fragments[index].entry.meta;
        let mut zone = first.saturating_sub(1)..end.min(first + 2);
        while zone.start > 0 && meta(zone.start - 1).producer_end() > at.plus_ms(-OVERLAP_MS) {
            zone.start -= 1;
        }
        while zone.end < end && meta(zone.end).producer_start < at.plus_ms(OVERLAP_MS) {
            zone.end += 1;
        }
        zone
    }

    /// The same around the end.
    fn end_zone(&self) -> Range<usize> {
        let (first, end) = (self.shown.start, self.shown.end);
        let (End::Before(at) | End::Cut(at)) = self.end else { return end - 1..end };
        let meta = |index: usize| &self.fragments[index].entry.meta;
        let mut zone = end.saturating_sub(2).max(first)..self.fragments.len();
        while zone.start > first && meta(zone.start - 1).producer_end() > at.plus_ms(-OVERLAP_MS) {
            zone.start -= 1;
        }
        zone
    }

    /// Chooses what is taken. None: nothing of it can be shown.
    pub(super) fn select(
        &self,
        tracks: &[ClipTrack],
        configs: &[Arc<StreamConfig>],
        style: Style,
    ) -> Result<Option<Selection>, Need> {
        let need = self.edges(tracks);
        if !need.0.is_empty() {
            return Err(need);
        }
        let (first, last) = (&self.fragments[self.shown.start], &self.fragments[self.shown.end - 1]);
        let epoch_of = |fragment: &Fragment| fragment.epoch_ms(&configs[fragment.config]);
        let Some((epoch_ms, last_epoch_ms)) = epoch_of(first).zip(epoch_of(last)) else { return Ok(None) };
        let primary_shift_ns = |fragment: &Fragment| primary_shift_ns(&configs[fragment.config]);
        // A sample is shown at its presentation time rounded to the nearest millisecond.
        let ns = |ms: i64, epoch_ms: i64| i128::from(ms.saturating_sub(epoch_ms)) * 1_000_000;
        let start_ns = match self.start {
            Start::At(at) => Some(ns(at.0, epoch_ms) + 499_999 - primary_shift_ns(first)),
            Start::First => None,
        };
        let (end_ns, needed_past_end) = match self.end {
            End::Last => (None, false),
            End::Before(at) => (Some(ns(at.0, last_epoch_ms) - 500_000 - primary_shift_ns(last)), true),
            End::Cut(at) => (Some(ns(at.0, last_epoch_ms) - 500_000 - primary_shift_ns(last)), false),
        };

        let mut starts: Vec<Option<PictureStart>> = vec![None; tracks.len()];
        let mut origin: Option<Origin> = None;
        for (index, track) in tracks.iter().enumerate().filter(|(_, track)| track.is_video()) {
            let at_ns = origin.map(|origin| origin.at_ns).or(start_ns);
            starts[index] = self.picture_start(track, at_ns)?;
            if let (None, Some(start)) = (origin, &starts[index]) {
                origin = Some(if style.whole_gop {
                    Origin { fragment: start.first.0, at_ns: start.sync_ns, ..start.origin }
                } else {
                    start.origin
                });
            }
        }
        for track in tracks.iter().filter(|track| !track.is_video()) {
            if origin.is_none() {
                origin = self.sound_start(track, start_ns, configs)?;
            }
        }
        let Some(origin) = origin else { return Ok(None) };
        let near = self.near(origin, epoch_ms);
        if !near.0.is_empty() {
            return Err(near);
        }
        let Origin { shown_ns, at_ns: origin_ns, fragment: origin_fragment } = origin;
        let sound_from_ns = if style.keeps_lead && self.begins_run(tracks, shown_ns) { i128::MIN } else { origin_ns };

        let mut parts = vec![vec![None; tracks.len()]; self.fragments.len()];
        for (index, track) in tracks.iter().enumerate() {
            let flags = if track.is_video() {
                match &starts[index] {
                    Some(start) => {
                        let from_ns = start.origin.shown_ns.min(origin_ns);
                        self.take_pictures(track, start, from_ns, end_ns, needed_past_end)
                    }
                    None => continue,
                }
            } else {
                self.take_by_time(track, origin_fragment, sound_from_ns, end_ns)
            };
            for (fragment, keep) in flags.into_iter().enumerate() {
                parts[fragment][index] = self.part(fragment, track, keep);
            }
        }
        let mut selection = Selection { parts, origin_ns, shown_ns, end_ns, last_ns: origin_ns, epoch_ms };
        selection.last_ns = self.last_ns(tracks, &selection);
        let empty = selection.parts.iter().flatten().all(Option::is_none);
        Ok((!empty).then_some(selection))
    }

    /// Nothing is shown before this instant of the run: what sound comes earlier settles its decoder.
    fn begins_run(&self, tracks: &[ClipTrack], shown_ns: i128) -> bool {
        let first = &self.fragments[0];
        let pictures = || tracks.iter().filter(|track| track.is_video()).flat_map(|track| self.known(track));
        let sounds = || tracks.iter().flat_map(|track| self.known(track));
        let earliest = pictures().map(|sample| sample.at_ns()).min().or_else(|| sounds().map(|s| s.at_ns()).min());
        first.entry.meta.flags.contains(FragmentFlags::RUN_START)
            && first.opened.is_some()
            && earliest.is_some_and(|earliest| shown_ns <= earliest + LEAD_NS_MAX)
    }

    pub(super) fn known<'a>(&'a self, track: &'a ClipTrack) -> impl Iterator<Item = Known<'a>> {
        self.fragments.iter().enumerate().flat_map(move |(fragment, of)| {
            let source = of.source(track);
            let samples =
                source.into_iter().flat_map(move |source| of.samples(source).map(move |entry| (source, entry)));
            samples.enumerate().map(move |(position, (source, entry))| Known { fragment, position, source, entry })
        })
    }

    /// Origin and shown instant of a span without pictures.
    fn sound_start(
        &self,
        track: &ClipTrack,
        start_ns: Option<i128>,
        configs: &[Arc<StreamConfig>],
    ) -> Result<Option<Origin>, Need> {
        let first = self.shown.clone().find(|index| self.holds(*index, track));
        if let Some(first) = first.filter(|first| self.fragments[*first].opened.is_none()) {
            return Err(Need(BTreeSet::from([first])));
        }
        let known: Vec<Known<'_>> = self.known(track).collect();
        let Some(in_shown) = known.iter().find(|sample| self.shown.contains(&sample.fragment)) else { return Ok(None) };
        let not_after = |at_ns: i128| known.iter().rev().find(|sample| sample.at_ns() <= at_ns);
        let shown = start_ns.and_then(not_after).unwrap_or(in_shown);
        // What the codec needs to settle at the beginning of a run is not presented.
        let fragment = &self.fragments[shown.fragment];
        let begins = fragment.entry.meta.flags.contains(FragmentFlags::RUN_START) && shown.position == 0;
        let trims = configs[fragment.config].tracks.get(usize::from(shown.source.index)).map(|track| track.trims);
        let trim_ns = trims.filter(|_| begins).map_or(0, |trims| {
            let edit_ticks = i128::from(trims.edit_start_ticks) - i128::from(shown.entry.presentation_ticks());
            i128::from(trims.codec_delay_ns).max(edit_ticks * 1_000_000_000 / i128::from(shown.source.timescale_hz))
        });
        let at_ns = shown.at_ns() + trim_ns.min(LEAD_NS_MAX);
        Ok(Some(Origin { fragment: shown.fragment, shown_ns: at_ns, at_ns }))
    }

    fn take_by_time(
        &self,
        track: &ClipTrack,
        origin_fragment: usize,
        from_ns: i128,
        end_ns: Option<i128>,
    ) -> Vec<Option<Vec<bool>>> {
        let last = self.fragments.len();
        self.flags(track, origin_fragment..=last, |sample| {
            sample.end_ns() > from_ns && end_ns.is_none_or(|end_ns| sample.at_ns() < end_ns)
        })
    }

    pub(super) fn flags(
        &self,
        track: &ClipTrack,
        whole: std::ops::RangeInclusive<usize>,
        taken: impl Fn(&Known<'_>) -> bool,
    ) -> Vec<Option<Vec<bool>>> {
        let not_opened = |index: usize| if whole.contains(&index) { None } else { Some(Vec::new()) };
        let opened = |fragment: &Fragment| fragment.opened.is_some();
        let mut flags: Vec<Option<Vec<bool>>> = (0_usize..)
            .zip(&self.fragments)
            .map(|(index, fragment)| if opened(fragment) { Some(Vec::new()) } else { not_opened(index) })
            .collect();
        for sample in self.known(track) {
            if let Some(Some(flags)) = flags.get_mut(sample.fragment) {
                flags.push(taken(&sample));
            }
        }
        flags
    }

    fn part(&self, fragment: usize, track: &ClipTrack, flags: Option<Vec<bool>>) -> Option<Part> {
        let of = &self.fragments[fragment];
        let source = of.source(track)?;
        let (keep, totals) = match (flags, &of.opened) {
            (Some(flags), Some(opened)) => {
                let keep = Keep::from_flags(&flags);
                let totals = totals_kept(&opened.tables, source.index, &keep);
                (keep, totals)
            }
            (Some(_), None) => return None,
            (None, _) => (Keep::All, of.totals(source)?),
        };
        (totals.sample_count > 0).then_some(Part { keep, totals })
    }

    /// Where the last of what is taken ends, as far as it is opened.
    fn last_ns(&self, tracks: &[ClipTrack], selection: &Selection) -> i128 {
        let ends = tracks.iter().enumerate().flat_map(|(index, track)| {
            let taken = move |sample: &Known<'_>| {
                let part = selection.parts[sample.fragment][index].as_ref();
                part.is_some_and(|part| part.keep.contains(u32::try_from(sample.position).unwrap_or(u32::MAX)))
            };
            self.known(track).filter(taken).map(|sample| sample.end_ns())
        });
        let last_ns = ends.max().unwrap_or(selection.origin_ns);
        selection.end_ns.map_or(last_ns, |end_ns| last_ns.min(end_ns)).max(selection.origin_ns)
    }
}
