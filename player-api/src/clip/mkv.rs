//! A clip as Matroska: a Cluster for each fragment, its length known from counts.

use std::collections::BTreeSet;
use std::sync::Arc;

use bytes::Bytes;
use vidar_core::sample::SyncKind;
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_media::container::mkv::fixed::{self, CLUSTER_HEAD_BYTES, FixedFrame, FixedTrack};
use vidar_media::container::mkv::mux::{self, HeaderOptions, Timing};
use vidar_media::table::SampleEntry;

use super::plan::{Plan, Refused};
use super::span::{Fragment, Opened, Part};
use super::timing::{Taken, span_starts};
use super::tracks::{ClipTrack, Source};

/// A Cluster reaches this many units at least; in finer units every frame has a Cluster of its own.
const CLUSTER_UNITS_MAX: u64 = 30_000;
/// Fragments are no longer: 20 s, and sound that overlaps.
const FRAGMENT_MS_MAX: u64 = 24_000;

/// A document that is laid out.
pub(super) struct Mkv {
    pub(super) header: Bytes,
    /// Those that give something.
    pub(super) fragments: Vec<MkvFragment>,
    /// Bytes of the document before each of them, and in all.
    pub(super) offsets: Vec<u64>,
    tracks: Vec<MkvTrack>,
    timing: Timing,
    /// For each config, its times in the document's units.
    layouts: Vec<mux::Layout>,
    /// From the document's beginning to what is shown at the clip's start, in milliseconds.
    pub(super) start_offset_ms: i64,
}

/// A fragment of the document.
pub(super) struct MkvFragment {
    pub(super) fragment: Fragment,
    /// For each track of the clip.
    parts: Vec<Option<Part>>,
    /// Added to the run's times, in units.
    base: i64,
    /// From here on, in nanoseconds of the run, nothing is shown.
    end_ns: Option<i128>,
    /// Every frame has a Cluster of its own.
    single: bool,
}

/// A track of the document.
struct MkvTrack {
    fixed: FixedTrack,
    of: ClipTrack,
}

/// A frame of a fragment: what goes before it, and where its bytes are stored.
pub(super) struct MkvFrame {
    pub(super) head: Bytes,
    /// Index of the piece.
    pub(super) piece: usize,
    /// From the start of the piece's media.
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// Matroska has a name for the track's codec.
pub(super) fn carries(config: &StreamConfig, track: usize) -> bool {
    config.tracks.get(track).is_some_and(mux::can_carry)
}

/// Lays a clip out.
pub(super) fn lay_out(plan: &Plan) -> Result<Mkv, Refused> {
    // What the header declares: a config that has all tracks, else the clip's tracks.
    let complete =
        (0..plan.configs.len()).find(|config| plan.tracks.iter().all(|track| track.source(*config).is_some()));
    let config = complete.map_or_else(|| made_config(plan), |config| StreamConfig::clone(&plan.configs[config]));
    let timing = Timing::of(&config);
    let numbered = fixed::tracks(&config);
    let number = |(index, track): (usize, &ClipTrack)| {
        let source = complete.and_then(|config| track.source(config));
        let fixed = numbered[source.map_or(index, |source| usize::from(source.index))];
        MkvTrack { fixed, of: track.clone() }
    };
    let tracks = plan.tracks.iter().enumerate().map(number).collect();
    let layouts = plan.configs.iter().map(|config| mux::Layout::new(config, timing)).collect();
    let (starts_ns, end_ns) = span_starts(&plan.taken, &[]);
    let units = |ns: i128| i64::try_from(ns / i128::from(timing.scale_ns())).unwrap_or(i64::MAX);
    let nearest = |ns: i128| units(ns + i128::from(timing.scale_ns() / 2));

    let mut mkv = Mkv {
        header: Bytes::new(),
        fragments: Vec::new(),
        offsets: Vec::new(),
        tracks,
        timing,
        layouts,
        start_offset_ms: 0,
    };
    let need = unknown_sizes(plan);
    if !need.is_empty() {
        return Err(Refused::Need(need));
    }
    let mut lens = Vec::new();
    for (Taken { span, selection }, start_ns) in plan.taken.iter().zip(&starts_ns) {
        let base = nearest(*start_ns).saturating_sub(nearest(selection.origin_ns));
        for (fragment, parts) in span.fragments.iter().zip(&selection.parts) {
            if parts.iter().all(Option::is_none) {
                continue;
            }
            let reach_ms = CLUSTER_UNITS_MAX * timing.scale_ns() / 1_000_000;
            let long = u64::from(fragment.entry.meta.duration_ms).max(FRAGMENT_MS_MAX);
            let of = MkvFragment {
                fragment: fragment.clone(),
                parts: parts.clone(),
                base,
                end_ns: selection.end_ns,
                single: long > reach_ms,
            };
            lens.push(mkv.fragment_len(&of));
            mkv.fragments.push(of);
        }
    }
    let zero = mkv.zero();
    mkv.fragments.iter_mut().for_each(|fragment| fragment.base = fragment.base.saturating_add(zero));
    let after: u64 = lens.iter().sum();

    let first = &plan.taken[0].selection;
    let zero_ns = i128::from(zero) * i128::from(timing.scale_ns());
    let ms = |ns: i128| i64::try_from(ns.div_euclid(1_000_000)).unwrap_or(0);
    let date = UnixMs(first.epoch_ms.saturating_add(ms(first.origin_ns - zero_ns)));
    let options =
        HeaderOptions { date: Some(date), duration: Some(units(end_ns + zero_ns)), len_after_bytes: Some(after) };
    mkv.start_offset_ms = ms(first.shown_ns - first.origin_ns + zero_ns + 500_000);
    mkv.header = mux::header(&config, timing, &options);
    mkv.offsets.push(mkv.header.len() as u64);
    for len in lens {
        mkv.offsets.push(mkv.offsets[mkv.offsets.len() - 1] + len);
    }
    Ok(mkv)
}

fn made_config(plan: &Plan) -> StreamConfig {
    let tracks = plan.tracks.iter().map(|track| track.track.clone()).collect();
    StreamConfig { tracks, matroska_header: Bytes::new() }
}

/// Fragments of which some tracks are taken, but not all that have samples: the entry's bytes are those of all.
fn unknown_sizes(plan: &Plan) -> BTreeSet<(usize, usize)> {
    let in_part = |fragment: &Fragment, parts: &[Option<Part>]| {
        let mut tracks = plan.tracks.iter().zip(parts);
        let left_out = |(track, part): (&ClipTrack, &Option<Part>)| {
            let totals = track.source(fragment.config).and_then(|source| fragment.totals(source));
            part.is_none() && totals.is_some_and(|totals| totals.sample_count > 0)
        };
        fragment.opened.is_none()
            && fragment.sizes.is_none()
            && parts.iter().any(Option::is_some)
            && tracks.any(left_out)
    };
    let mut unknown = BTreeSet::new();
    for (index, Taken { span, selection }) in plan.taken.iter().enumerate() {
        let fragments = span.fragments.iter().zip(&selection.parts).enumerate();
        unknown.extend(fragments.filter(|(_, (of, parts))| in_part(of, parts)).map(|(place, _)| (index, place)));
    }
    unknown
}

impl Mkv {
    /// Bytes of a fragment in the document.
    fn fragment_len(&self, of: &MkvFragment) -> u64 {
        let parts = || self.tracks.iter().zip(&of.parts).filter_map(|(track, part)| Some((track, part.as_ref()?)));
        let heads: u64 =
            parts().map(|(track, part)| u64::from(part.totals.sample_count) * track.fixed.head_len()).sum();
        let frames: u64 = parts().map(|(_, part)| u64::from(part.totals.sample_count)).sum();
        let clusters = if of.single { frames } else { 1 };
        clusters * CLUSTER_HEAD_BYTES + heads + self.stored_bytes(of)
    }

    fn stored_bytes(&self, of: &MkvFragment) -> u64 {
        let fragment = &of.fragment;
        if fragment.opened.is_some() {
            return self.kept(of).map(|(_, sample)| u64::from(sample.size)).sum();
        }
        let parts = self.tracks.iter().zip(&of.parts).filter(|(_, part)| part.is_some());
        match &fragment.sizes {
            Some(sizes) => {
                let sources = parts.filter_map(|(track, _)| track.of.source(fragment.config));
                sources.filter_map(|source| sizes.get(usize::from(source.index))).sum()
            }
            // All of its tracks are carried.
            None => fragment.entry.size_bytes,
        }
    }

    /// The kept samples of an open fragment.
    fn kept<'a>(&'a self, of: &'a MkvFragment) -> impl Iterator<Item = (Source, &'a SampleEntry)> {
        self.tracks.iter().zip(&of.parts).flat_map(move |(track, part)| {
            let source = track.of.source(of.fragment.config);
            part.iter().zip(source).flat_map(move |(part, source)| {
                let positions = (0_u32..).zip(of.fragment.samples(source));
                let kept = positions.filter(move |(position, _)| part.keep.contains(*position));
                kept.map(move |(_, sample)| (source, sample))
            })
        })
    }

    fn timestamp(&self, of: &MkvFragment, source: Source, sample: &SampleEntry) -> i64 {
        let layout = &self.layouts[of.fragment.config];
        layout.timestamp(source.index, sample.presentation_ticks()).saturating_add(of.base)
    }

    /// What is added to all times, so that none is below 0.
    fn zero(&self) -> i64 {
        let opened = self.fragments.iter().filter(|of| of.fragment.opened.is_some());
        let times = opened.flat_map(|of| self.kept(of).map(move |(source, sample)| self.timestamp(of, source, sample)));
        times.min().unwrap_or(0).min(0).saturating_neg()
    }

    /// The frames of a fragment, in order of arrival.
    ///
    /// None: the tables are not those that it was laid out by.
    pub(super) fn frames(&self, index: usize, opened: &Arc<Opened>) -> Option<Vec<MkvFrame>> {
        let of = &self.fragments[index];
        let mut frames = self.timed_frames(of, opened)?;
        frames.sort_by_key(|frame| (frame.piece, frame.arrival));
        let single = |frame: &TimedFrame<'_>| frame.track.fixed.head_len() + u64::from(frame.fixed.len);
        let blocks_len: u64 = frames.iter().map(single).sum();
        let cluster_at = frames.iter().map(|frame| frame.timestamp).min()?;
        let mut out = Vec::with_capacity(frames.len());
        for (position, frame) in frames.iter().enumerate() {
            let mut head = Vec::new();
            // A Cluster cannot begin before 0; a block can.
            let cluster = if of.single { frame.timestamp } else { cluster_at }.max(0);
            if of.single || position == 0 {
                let len = if of.single { single(frame) } else { blocks_len };
                fixed::write_cluster_head(&mut head, u64::try_from(cluster).ok()?, len);
            }
            let relative = i16::try_from(frame.timestamp - cluster).ok()?;
            frame.track.fixed.write_head(&mut head, &FixedFrame { relative, ..frame.fixed });
            let (piece, offset, len) = (frame.piece, frame.offset, u64::from(frame.fixed.len));
            out.push(MkvFrame { head: head.into(), piece, offset, len });
        }
        let made: u64 = out.iter().map(|frame| frame.head.len() as u64 + frame.len).sum();
        (made == self.offsets[index + 1] - self.offsets[index]).then_some(out)
    }

    fn timed_frames<'a>(&'a self, of: &'a MkvFragment, opened: &'a Opened) -> Option<Vec<TimedFrame<'a>>> {
        let mut positions = vec![0_u32; self.tracks.len()];
        let mut frames = Vec::new();
        for (piece, table) in opened.tables.iter().enumerate() {
            let mut offset = 0;
            for of_track in &table.tracks {
                let is_it = |track: &MkvTrack| {
                    track.of.source(of.fragment.config).is_some_and(|source| source.index == of_track.track)
                };
                let index = self.tracks.iter().position(is_it);
                for sample in &of_track.samples {
                    let place = offset;
                    offset += u64::from(sample.size);
                    let Some(index) = index else { continue };
                    let position = positions[index];
                    positions[index] += 1;
                    if of.parts[index].as_ref().is_some_and(|part| part.keep.contains(position)) {
                        frames.push(self.timed_frame(of, index, sample, (piece, place))?);
                    }
                }
            }
        }
        Some(frames)
    }

    fn timed_frame<'a>(
        &'a self,
        of: &MkvFragment,
        index: usize,
        sample: &SampleEntry,
        (piece, offset): (usize, u64),
    ) -> Option<TimedFrame<'a>> {
        let track = &self.tracks[index];
        let source = track.of.source(of.fragment.config)?;
        let timestamp = self.timestamp(of, source, sample);
        let at_ns = source.instant_ns(sample.presentation_ticks());
        let duration = self.timing.units(sample.duration_ticks.into(), source.timescale_hz);
        let fixed = FixedFrame {
            relative: 0,
            duration: u64::try_from(duration).unwrap_or(0),
            sync: sample.sync == SyncKind::Sync,
            // Others are decoded from it, but it is not of the clip.
            invisible: of.end_ns.is_some_and(|end_ns| at_ns >= end_ns),
            block_flags: sample.block_flags,
            len: sample.size,
        };
        Some(TimedFrame { track, fixed, timestamp, arrival: sample.arrival, piece, offset })
    }
}

struct TimedFrame<'a> {
    track: &'a MkvTrack,
    fixed: FixedFrame,
    timestamp: i64,
    arrival: u32,
    piece: usize,
    offset: u64,
}
