//! Cuts a demuxer's events into fragments.
//!
//! ```text
//! Event ──► run breaks (times that jump) ──► decode times ──► cut at sync samples of the primary track ──► Output
//! ```
//! A fragment begins at a sync sample of the primary track (the first video track; without video, by duration),
//! whatever fragments the sender made. The cut is by arrival: nothing waits for late audio, tracks may overlap across
//! fragments. Beyond [`Options::part_duration_ms`] or [`Options::part_bytes`] what has come so far of an open fragment
//! is given out as a part.
//!
//! With [`Options::as_sent`] the sender's own fragments are taken as they are, whatever they begin with: times that jump
//! and parameter sets that change within one wait for the next.
//!
//! # Invariants
//! 1. Every sample that came in goes out, once, with its presentation time unchanged.
//! 2. Decode times strictly increase within a track and run; times given out stay.
//! 3. What is held is bounded by one part (media) and one fragment (tables).

mod decode_time;
mod jump;
mod open;

use std::sync::Arc;

use bytes::Bytes;
use vidar_core::limits;
use vidar_core::record::{FragmentFacts, FragmentFlags, TableEnvelope};
use vidar_core::sample::{Sample, SyncKind, Tag};
use vidar_core::time::ticks_to_ms_nearest;
use vidar_core::track::{StreamConfig, Track, TrackKind};

use crate::codec;
use crate::demux::{Event, RawSample};
use decode_time::DecodeTimes;
use jump::JumpDetector;
use open::{Next, OpenFragment};

/// When to cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Options {
    /// A fragment longer than this is cut and marked.
    pub fragment_duration_ms_max: u32,
    /// A fragment larger than this is cut and marked.
    pub fragment_bytes_max: u64,
    /// Length of fragments without video.
    pub audio_fragment_ms: u32,
    /// An open fragment goes out as a part after this…
    pub part_duration_ms: u32,
    /// …or beyond this.
    pub part_bytes: u64,
    /// The source's own fragments are kept: cut at [`Event::SourceFragment`], and at no sample short of the limit of
    /// bytes.
    pub as_sent: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            fragment_duration_ms_max: limits::FRAGMENT_DURATION_MS_MAX,
            fragment_bytes_max: limits::FRAGMENT_BYTES_MAX,
            audio_fragment_ms: 2_000,
            part_duration_ms: limits::PART_DURATION_MS,
            part_bytes: limits::PART_BYTES,
            as_sent: false,
        }
    }
}

/// What has come of a fragment so far: a part of it, or all of it at its close.
#[derive(Debug, Clone)]
pub struct Cut {
    /// Some: a part, with its index. None: the fragment is complete.
    pub part: Option<u16>,
    /// What decodes it.
    pub config: Arc<StreamConfig>,
    /// Media time of its first sync sample of the primary track, in milliseconds on the timeline common to the tracks.
    pub start_ms: i64,
    /// There is such a sample; else `start_ms` is that of the primary track's first one, or of the first of any.
    pub start_is_sync: bool,
    /// To the next fragment's start where known, else to the end of its last sample; at least 1.
    pub duration_ms: u32,
    /// Where the duration of the primary track's last sample was taken from: the decode time of the next one, in ticks. None:
    /// it was not known, or that sample is in a part.
    pub next_decode_ticks: Option<i64>,
    /// Properties. `RUN_START` is left to the caller, who knows runs.
    pub flags: FragmentFlags,
    /// As of this cut, cumulative over parts; without wall-clock knowledge.
    pub facts: FragmentFacts,
    /// Of a part its own piece, of a fragment all.
    pub table: TableEnvelope,
    /// Of the last piece.
    pub media: Vec<Bytes>,
}

/// What comes out, in order.
#[derive(Debug, Clone)]
pub enum Output {
    /// What follows belongs to a new run: times jumped, or the source said so.
    RunBreak,
    /// A fragment begins.
    Open {
        /// What decodes it.
        config: Arc<StreamConfig>,
        /// Media time of its first sample, in milliseconds.
        start_ms: i64,
        /// That sample is a sync sample of the primary track.
        starts_with_sync: bool,
    },
    /// A sample of the open fragment, in order of arrival.
    Sample(Sample),
    /// Tags of the open fragment.
    Tags(Arc<[Tag]>),
    /// A part of the open fragment, or its close.
    Cut(Cut),
}

/// Something the fragmenter cannot go on with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum FragmentError {
    /// A sample before any config, or of a track that was not declared.
    #[error("sample of track {track}, but {track_count} are declared")]
    UnknownTrack {
        /// Index the sample names.
        track: u8,
        /// How many there are.
        track_count: usize,
    },
}

/// The fragmenter of one connection.
#[derive(Debug)]
pub struct Fragmenter {
    options: Options,
    config: Arc<StreamConfig>,
    primary: u8,
    tracks: Vec<TrackState>,
    open: Option<OpenFragment>,
    /// Tags that came before the fragment they belong to.
    tags: Vec<Tag>,
    lost: u32,
    /// Fragments since the last that starts with a sync sample.
    sync_back: u32,
    /// Greatest media time of the run, over all tracks.
    newest_ms: Option<i64>,
}

#[derive(Debug)]
struct TrackState {
    decode: DecodeTimes,
    jumps: JumpDetector,
    /// Between the last two samples: a guess at a duration.
    delta_ticks: u32,
}

impl TrackState {
    fn new(track: &Track) -> Self {
        Self { decode: DecodeTimes::new(track), jumps: JumpDetector::new(track.timescale_hz), delta_ticks: 0 }
    }
}

impl Fragmenter {
    /// A fragmenter without a config: the first event has to be one.
    #[must_use]
    pub fn new(options: Options) -> Self {
        Self {
            options,
            config: Arc::default(),
            primary: 0,
            tracks: Vec::new(),
            open: None,
            tags: Vec::new(),
            lost: 0,
            sync_back: 0,
            newest_ms: None,
        }
    }

    /// Takes an event. `Wall` is not for it, `SourceFragment` only where these are kept as they were sent.
    ///
    /// # Errors
    /// If a sample names a track that was not declared; what came before is kept.
    pub fn push(&mut self, event: Event, out: &mut Vec<Output>) -> Result<(), FragmentError> {
        match event {
            Event::Config(config) => self.set_config(config, out),
            Event::Sample(sample) => self.sample(sample, out)?,
            Event::Tags(tags) | Event::TrackTags(tags) => self.add_tags(tags, out),
            Event::Lost { count } => match &mut self.open {
                Some(open) => open.lost(count),
                None => self.lost = self.lost.saturating_add(count.max(1)),
            },
            Event::EndOfFragment => self.close(None, FragmentFlags::default(), out),
            Event::Discontinuity => self.break_run(out),
            Event::SourceFragment { timecode, .. } if self.options.as_sent => self.next_source_fragment(timecode, out),
            Event::Wall { .. } | Event::SourceFragment { .. } => {}
        }
        Ok(())
    }

    /// Ends the run: closes what is open, and forgets all times.
    pub fn break_run(&mut self, out: &mut Vec<Output>) {
        self.close(None, FragmentFlags::default(), out);
        self.tracks = self.config.tracks.iter().map(TrackState::new).collect();
        (self.sync_back, self.newest_ms) = (0, None);
        if !self.tracks.is_empty() {
            out.push(Output::RunBreak);
        }
    }

    /// The input has ended. `complete`: it ended where it should.
    pub fn finish(&mut self, complete: bool, out: &mut Vec<Output>) {
        self.close(None, FragmentFlags::default().with(FragmentFlags::INCOMPLETE, !complete), out);
    }

    /// Bytes of samples that are held.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.open.as_ref().map_or(0, OpenFragment::held_bytes)
    }

    /// Gives out what is held as a part, whatever its size: memory is short.
    pub fn spill(&mut self, out: &mut Vec<Output>) {
        if let Some(open) = &mut self.open {
            out.extend(open.part(&self.config, self.primary, self.sync_back).map(Output::Cut));
        }
    }

    fn set_config(&mut self, config: StreamConfig, out: &mut Vec<Output>) {
        if config == *self.config {
            return;
        }
        self.close(None, FragmentFlags::default(), out);
        let same =
            |old: &Track, new: &Track| old.source_number == new.source_number && old.timescale_hz == new.timescale_hz;
        let mut old: Vec<Option<TrackState>> = std::mem::take(&mut self.tracks).into_iter().map(Some).collect();
        self.tracks = config
            .tracks
            .iter()
            .map(|track| {
                let known = self.config.tracks.iter().position(|before| same(before, track));
                known.and_then(|index| old[index].take()).unwrap_or_else(|| TrackState::new(track))
            })
            .collect();
        self.primary = config.primary_track().and_then(|index| u8::try_from(index).ok()).unwrap_or(0);
        self.config = Arc::new(config);
    }

    /// The one before lasted until this one's time, if that goes on from it.
    fn next_source_fragment(&mut self, timecode: Option<i64>, out: &mut Vec<Output>) {
        let at = timecode.zip(self.config.tracks.first());
        let at_ms = at.map(|(ticks, track)| ticks_to_ms_nearest(ticks, track.timescale_hz));
        let goes_on = |newest: i64, at: i64| (0..=limits::TIME_JUMP_MS).contains(&at.saturating_sub(newest));
        let next = at_ms.filter(|at| self.newest_ms.is_some_and(|newest| goes_on(newest, *at)));
        let next = next.map(|presentation_ms| Next { presentation_ms, decode_ticks: None });
        self.close(next, FragmentFlags::default(), out);
    }

    /// Nothing but its end cuts the open fragment.
    fn is_whole(&self) -> bool {
        self.options.as_sent && self.open.is_some()
    }

    fn add_tags(&mut self, mut tags: Vec<Tag>, out: &mut Vec<Output>) {
        for tag in &mut tags {
            truncate(&mut tag.name, limits::TAG_NAME_BYTES_MAX);
            truncate(&mut tag.value, limits::TAG_VALUE_BYTES_MAX);
        }
        let held = match &mut self.open {
            Some(open) => &mut open.tags,
            None => &mut self.tags,
        };
        tags.truncate(limits::TAG_COUNT_MAX - held.len());
        held.extend_from_slice(&tags);
        if self.open.is_some() && !tags.is_empty() {
            out.push(Output::Tags(tags.into()));
        }
    }

    fn sample(&mut self, raw: RawSample, out: &mut Vec<Output>) -> Result<(), FragmentError> {
        let unknown = FragmentError::UnknownTrack { track: raw.track, track_count: self.config.tracks.len() };
        let state = self.tracks.get_mut(usize::from(raw.track)).ok_or(unknown)?;
        if state.jumps.jumps(raw.presentation_ticks) && !self.is_whole() && !self.follows(&raw) {
            self.break_run(out);
        }
        let mut inspection = self.inspect(&raw);
        if let Some(private) = inspection.new_private.take()
            && !self.is_whole()
        {
            // A changed parameter set starts a fragment and a config.
            let mut config = StreamConfig::clone(&self.config);
            let track = &mut config.tracks[usize::from(raw.track)];
            *track = codec::with_private(track, private);
            self.set_config(config, out);
            inspection = self.inspect(&raw);
        }
        let track = &self.config.tracks[usize::from(raw.track)];
        let state = &mut self.tracks[usize::from(raw.track)];
        state.jumps.note(raw.presentation_ticks);
        let timescale_hz = track.timescale_hz;
        let newest_ms = ticks_to_ms_nearest(raw.presentation_ticks, timescale_hz);
        self.newest_ms = Some(self.newest_ms.map_or(newest_ms, |newest| newest.max(newest_ms)));
        let (decode_ticks, delta_ticks) = state.decode.next(raw.presentation_ticks, raw.decode_ticks);
        state.delta_ticks = delta_ticks.and_then(|delta| u32::try_from(delta).ok()).unwrap_or(state.delta_ticks);
        let delta_ticks = state.delta_ticks;
        let presentation_ms = ticks_to_ms_nearest(raw.presentation_ticks, track.timescale_hz);
        let declared = raw.duration_ticks.or(track.default_duration_ticks);
        let video = track.kind == TrackKind::Video;
        let primary = raw.track == self.primary;
        let is_sync = raw.sync == SyncKind::Sync;

        let cut = self.open.as_ref().and_then(|open| {
            open.cut_before(&self.options, &self.config, primary, is_sync, presentation_ms, raw.data.len())
        });
        if let Some(flags) = cut {
            let next = primary.then_some(Next { presentation_ms, decode_ticks: Some(decode_ticks) });
            self.close(next, flags, out);
        } else if let Some(open) = &mut self.open
            && open.part_due(&self.options, presentation_ms)
        {
            out.extend(open.part(&self.config, self.primary, self.sync_back).map(Output::Cut));
        }
        let open = self.open.get_or_insert_with(|| {
            let starts_with_sync = primary && is_sync;
            out.push(Output::Open { config: Arc::clone(&self.config), start_ms: presentation_ms, starts_with_sync });
            let tags = std::mem::take(&mut self.tags);
            if !tags.is_empty() {
                out.push(Output::Tags(tags.clone().into()));
            }
            OpenFragment::new(self.config.tracks.len(), presentation_ms, tags, std::mem::take(&mut self.lost))
        });
        let composition = raw.presentation_ticks.saturating_sub(decode_ticks);
        let composition_ticks = i32::try_from(composition).unwrap_or(if composition < 0 { i32::MIN } else { i32::MAX });
        let sample = Sample {
            track: raw.track,
            decode_ticks,
            composition_ticks,
            duration_ticks: declared.unwrap_or(delta_ticks),
            duration_estimated: raw.duration_ticks.is_none(),
            sync: open.sync_kind(raw.track, raw.sync, raw.presentation_ticks, video),
            block_flags: raw.block_flags,
            data: raw.data,
        };
        out.push(Output::Sample(sample.clone()));
        open.add(sample, inspection.drops, presentation_ms, primary);
        Ok(())
    }

    /// A track with few samples (subtitles, metadata) is far from its own last one, but near the others.
    fn follows(&self, raw: &RawSample) -> bool {
        let timescale_hz = self.config.tracks[usize::from(raw.track)].timescale_hz;
        let presentation_ms = ticks_to_ms_nearest(raw.presentation_ticks, timescale_hz);
        self.tracks.len() > 1
            && self.newest_ms.is_some_and(|newest| presentation_ms.saturating_sub(newest).abs() <= limits::TIME_JUMP_MS)
            && self.tracks[usize::from(raw.track)].jumps.ahead(raw.presentation_ticks)
    }

    fn inspect(&self, raw: &RawSample) -> codec::Inspection {
        let track = &self.config.tracks[usize::from(raw.track)];
        codec::inspect_stored(track, &raw.data)
    }

    /// `next`: what is known of what cuts.
    fn close(&mut self, next: Option<Next>, flags: FragmentFlags, out: &mut Vec<Output>) {
        let Some(open) = self.open.take() else { return };
        let starts_with_sync = open.starts_with_sync();
        if starts_with_sync {
            self.sync_back = 0;
        }
        out.push(Output::Cut(open.close(&self.config, self.primary, self.sync_back, next, flags)));
        self.sync_back = self.sync_back.saturating_add(1);
    }
}

fn truncate(text: &mut String, len_max: usize) {
    let mut len = len_max.min(text.len());
    while !text.is_char_boundary(len) {
        len -= 1;
    }
    text.truncate(len);
}

#[cfg(test)]
#[path = "fragmenter_tests.rs"]
mod tests;
