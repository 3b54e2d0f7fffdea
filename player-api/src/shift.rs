//! What the times of a track are late by: edit lists and CodecDelay, the one rule for clips and HLS.
//!
//! The tracks of a run share an instant 0. A sample is shown at its presentation time less its track's shift.

use vidar_core::track::{StreamConfig, Track};

/// Of a track of `config`, in nanoseconds.
pub(crate) fn shift_ns(config: &StreamConfig, track: &Track) -> i128 {
    let trims = track.trims;
    if config.matroska_header.is_empty() {
        // ISO/IEC 14496-12 section 8.6.6: media time of the edit list, and its empty edit.
        let timescale_hz = i128::from(track.timescale_hz.max(1));
        let edit_ns = i128::from(trims.edit_start_ticks) * 1_000_000_000 / timescale_hz;
        edit_ns - i128::from(trims.edit_delay_ms) * 1_000_000
    } else {
        // RFC 9559 section 5.1.4.1.25: CodecDelay is subtracted from timestamps to know when they play.
        i128::from(trims.codec_delay_ns)
    }
}

/// Of the track that producer times are of.
pub(crate) fn primary_shift_ns(config: &StreamConfig) -> i128 {
    let primary = config.primary_track().and_then(|index| config.tracks.get(index));
    primary.map_or(0, |track| shift_ns(config, track))
}

/// To the nearest tick.
pub(crate) fn ns_to_ticks(ns: i128, timescale_hz: u32) -> i64 {
    let ticks = (ns * i128::from(timescale_hz) + 500_000_000).div_euclid(1_000_000_000);
    i64::try_from(ticks).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
}
