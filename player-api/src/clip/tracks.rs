//! The tracks of a clip: those of its fragments' configs, matched to one another.
//!
//! A track goes on in the next config as the track of the same kind and codec with the same position among those
//! (video 1, audio 1 …), whatever number its source gives it.

use std::mem::discriminant;
use std::sync::Arc;

use vidar_core::track::{Codec, StreamConfig, Track, TrackKind};

use crate::shift::shift_ns;

/// A track of the clip.
#[derive(Debug, Clone)]
pub(super) struct ClipTrack {
    /// As its first config has it.
    pub(super) track: Track,
    /// For each config, where it comes from.
    pub(super) sources: Vec<Option<Source>>,
}

/// A track of a config.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Source {
    /// Index into the config's tracks.
    pub(super) index: u8,
    /// Ticks per second.
    pub(super) timescale_hz: u32,
    /// What its times are late by: an instant of the run is time less this.
    pub(super) shift_ns: i128,
}

impl Source {
    pub(super) fn new(index: u8, config: &StreamConfig, track: &Track) -> Self {
        let timescale_hz = track.timescale_hz.max(1);
        Self { index, timescale_hz, shift_ns: shift_ns(config, track) }
    }

    /// A time of the track as an instant of its run, in nanoseconds, rounded down.
    pub(super) fn instant_ns(&self, ticks: i64) -> i128 {
        (i128::from(ticks) * 1_000_000_000).div_euclid(self.timescale_hz.into()) - self.shift_ns
    }
}

impl ClipTrack {
    pub(super) fn is_video(&self) -> bool {
        self.track.kind == TrackKind::Video
    }

    pub(super) fn source(&self, config: usize) -> Option<Source> {
        self.sources.get(config).copied().flatten()
    }
}

/// The tracks that `carries` says yes to, in order of appearance; and the names of the others.
pub(super) fn match_tracks(
    configs: &[Arc<StreamConfig>],
    carries: impl Fn(&StreamConfig, usize) -> bool,
) -> (Vec<ClipTrack>, Vec<String>) {
    let mut tracks: Vec<ClipTrack> = Vec::new();
    let mut omitted: Vec<String> = Vec::new();
    for (config, tracks_of) in configs.iter().enumerate() {
        let mut taken = vec![false; tracks.len()];
        for (index, track) in (0_u8..).zip(&tracks_of.tracks) {
            if !carries(tracks_of, usize::from(index)) {
                let name = omitted_name(index, track);
                if !omitted.contains(&name) {
                    omitted.push(name);
                }
                continue;
            }
            let same = |known: &ClipTrack| {
                known.track.kind == track.kind && discriminant(&known.track.codec) == discriminant(&track.codec)
            };
            let known = (0..taken.len()).find(|position| !taken[*position] && same(&tracks[*position]));
            let position = known.unwrap_or(tracks.len());
            if known.is_none() {
                tracks.push(ClipTrack { track: track.clone(), sources: vec![None; configs.len()] });
                taken.push(false);
            }
            taken[position] = true;
            tracks[position].sources[config] = Some(Source::new(index, tracks_of, track));
        }
    }
    // Video first: the pictures decide where a clip starts.
    tracks.sort_by_key(|track| !track.is_video());
    (tracks, omitted)
}

/// Index and codec of a track: `2;codec=S_TEXT/UTF8`. Header field values are visible ASCII.
pub(super) fn omitted_name(index: u8, track: &Track) -> String {
    let codec_id: String = track.codec_id.chars().filter(|c| c.is_ascii_graphic() && !",;\"".contains(*c)).collect();
    let name = if track.codec == Codec::Opaque { codec_id } else { track.codec.name().to_owned() };
    format!("{index};codec={name}")
}
