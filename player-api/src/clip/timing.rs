//! Where spans and samples stand on the timeline of a clip.
//!
//! All tracks of a run share an instant 0. A span's origin is an instant of its run that stands at the span's start on
//! the clip's timeline. What lies between two spans is left out: the next span starts where the last of the tracks ends.

use std::collections::BTreeSet;

use vidar_core::limits::CONTINUES_MS;
use vidar_media::container::fmp4::progressive::Scale;

use super::span::{Selection, Span};
use super::tracks::{ClipTrack, Source};
use crate::shift::ns_to_ticks;

/// Above this a timescale is not used: deltas of seconds would not fit 32 bits.
const TIMESCALE_HZ_MAX: u64 = 1 << 27;
/// For what no common timescale is found.
const FINE_HZ: u32 = 1_000_000;
/// For a track with a pause that 32 bits hold in no finer ticks.
const COARSE_HZ: u32 = 1000;

/// A span, and what is taken of it.
#[derive(Debug, Clone)]
pub(super) struct Taken {
    pub(super) span: Span,
    pub(super) selection: Selection,
}

/// The timescale of a clip's track, and how to get there from each config's.
#[derive(Debug, Clone)]
pub(super) struct TrackScale {
    pub(super) timescale_hz: u32,
    scales: Vec<Option<Scale>>,
}

impl TrackScale {
    /// The least common multiple, so that nothing is rounded, where it is usable.
    pub(super) fn new(track: &ClipTrack, used: &BTreeSet<usize>, coarse: bool) -> Self {
        let sources = || used.iter().filter_map(|config| track.source(*config));
        let common = sources().try_fold(1, |common, source| lcm(common, source.timescale_hz.into()));
        let timescale_hz = match common {
            _ if coarse => COARSE_HZ,
            Some(common) => u32::try_from(common).unwrap_or(FINE_HZ),
            None => FINE_HZ,
        };
        let scale = |source: Source| {
            if timescale_hz.is_multiple_of(source.timescale_hz) {
                Scale::Exact { factor: timescale_hz / source.timescale_hz }
            } else {
                Scale::Rounded { from_hz: source.timescale_hz, to_hz: timescale_hz }
            }
        };
        let scales = (0..track.sources.len()).map(|config| track.source(config).map(scale)).collect();
        Self { timescale_hz, scales }
    }

    pub(super) fn of(&self, config: usize) -> Option<Scale> {
        self.scales.get(config).copied().flatten()
    }

    /// Nanoseconds in ticks, rounded up.
    pub(super) fn ticks_ceil(&self, ns: i128) -> i64 {
        let ticks = -(-ns * i128::from(self.timescale_hz)).div_euclid(1_000_000_000);
        i64::try_from(ticks).unwrap_or(if ticks < 0 { i64::MIN } else { i64::MAX })
    }

    /// Nanoseconds in ticks, to the nearest.
    pub(super) fn ticks(&self, ns: i128) -> i64 {
        ns_to_ticks(ns, self.timescale_hz)
    }
}

fn gcd(a: u64, b: u64) -> u64 {
    if b == 0 { a } else { gcd(b, a % b) }
}

/// None above [`TIMESCALE_HZ_MAX`].
pub(super) fn lcm(a: u64, b: u64) -> Option<u64> {
    (a / gcd(a, b)).checked_mul(b).filter(|common| *common <= TIMESCALE_HZ_MAX)
}

/// Where each span starts on the clip's timeline, and where the last ends, in nanoseconds. `extra_ns` is added before
/// each.
pub(super) fn span_starts(taken: &[Taken], extra_ns: &[i128]) -> (Vec<i128>, i128) {
    let mut starts = Vec::with_capacity(taken.len());
    let mut at_ns = 0;
    for (index, Taken { span, selection }) in taken.iter().enumerate() {
        if let Some(before) = index.checked_sub(1) {
            at_ns += short_pause_ns(&taken[before].span, span) + extra_ns.get(index).copied().unwrap_or(0);
        }
        starts.push(at_ns);
        at_ns += selection.last_ns - selection.origin_ns;
    }
    (starts, at_ns)
}

/// A pause that no viewer notices is no gap, and stays.
fn short_pause_ns(before: &Span, after: &Span) -> i128 {
    let end = before.fragments[before.shown.end - 1].entry.meta.producer_end();
    let pause_ms = after.fragments[after.shown.start].entry.meta.producer_start.since_ms(end);
    if (1..=CONTINUES_MS).contains(&pause_ms) { i128::from(pause_ms) * 1_000_000 } else { 0 }
}
