//! Times: a Matroska timestamp counts units of TimestampScale nanoseconds.

use vidar_core::track::{Codec, StreamConfig, Track};

use super::codec_id::is_from_matroska;
use super::original::Original;
use crate::codec::{aac, mp3, opus};

const SECOND_NS: u64 = 1_000_000_000;

/// TimestampScale, and what tracks get for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Scale {
    /// Nanoseconds of one unit. Never 0.
    pub(super) ns: u64,
}

impl Scale {
    /// 1 ms, which every producer means that says nothing.
    pub(super) const DEFAULT: Self = Self { ns: 1_000_000 };

    /// Ticks per second of the tracks: as many as units where these are whole, else nanoseconds.
    pub(super) fn timescale_hz(self) -> u32 {
        let hz = if self.divides() { SECOND_NS / self.ns } else { SECOND_NS };
        u32::try_from(hz).unwrap_or(1)
    }

    fn divides(self) -> bool {
        self.ns <= SECOND_NS && SECOND_NS.is_multiple_of(self.ns)
    }

    /// Units to ticks of the tracks.
    pub(super) fn ticks(self, units: i64) -> Option<i64> {
        if self.divides() { Some(units) } else { units.checked_mul(i64::try_from(self.ns).ok()?) }
    }
}

/// Finest unit that is chosen for writing: a Cluster spans 32,767 of them.
const UNITS_PER_SECOND_MAX: u64 = 100_000;

/// The unit that timestamps are written in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timing {
    scale: Scale,
}

impl Timing {
    /// Of 1 ms.
    pub const MILLISECONDS: Self = Self { scale: Scale::DEFAULT };

    /// The unit in which all times of these tracks are exact: that of the Matroska source, else the coarsest of 1 ms to
    /// 10 µs that is a whole number of nanoseconds. Else 1 ms, and times are rounded (so at 90 kHz and 44.1 kHz).
    #[must_use]
    pub fn of(config: &StreamConfig) -> Self {
        if let Some(original) = Original::parse(&config.matroska_header) {
            return Self { scale: original.scale };
        }
        let hz = config.tracks.iter().try_fold(1000, |hz, track| {
            let common = least_common_multiple(hz, track.timescale_hz.into());
            Some(common).filter(|common| *common <= UNITS_PER_SECOND_MAX && SECOND_NS.is_multiple_of(*common))
        });
        Self { scale: hz.map_or(Scale::DEFAULT, |hz| Scale { ns: SECOND_NS / hz }) }
    }

    /// Units of this many nanoseconds; None for 0.
    #[must_use]
    pub fn of_scale(scale_ns: u64) -> Option<Self> {
        (scale_ns > 0).then_some(Self { scale: Scale { ns: scale_ns } })
    }

    /// TimestampScale: nanoseconds of a unit.
    #[must_use]
    pub fn scale_ns(self) -> u64 {
        self.scale.ns
    }

    /// Ticks in units, rounded to nearest (halves up).
    #[must_use]
    pub fn units(self, ticks: i64, timescale_hz: u32) -> i64 {
        self.shifted_units(ticks, timescale_hz, 0)
    }

    /// The timestamp of a presentation time of a track. What came from Matroska has the one it had. Of other sources the
    /// edit list is applied, and CodecDelay added, which readers subtract.
    #[must_use]
    pub fn timestamp(self, track: &Track, presentation_ticks: i64) -> i64 {
        if is_from_matroska(track) {
            return self.units(presentation_ticks, track.timescale_hz);
        }
        let trims = track.trims;
        let delay_ns = i64::try_from(trims.codec_delay_ns).unwrap_or(0);
        let shift_ns = trims.edit_delay_ms.saturating_mul(1_000_000).saturating_add(delay_ns);
        let ticks = presentation_ticks.saturating_sub(trims.edit_start_ticks);
        self.shifted_units(ticks, track.timescale_hz, shift_ns)
    }

    /// Ticks, and nanoseconds more, in units, rounded to nearest.
    fn shifted_units(self, ticks: i64, timescale_hz: u32, shift_ns: i64) -> i64 {
        let hz = i128::from(timescale_hz.max(1));
        let per_unit = hz * i128::from(self.scale.ns);
        // In parts of a second: the timescale times 10^9 of them.
        let time = i128::from(ticks) * i128::from(SECOND_NS) + i128::from(shift_ns) * hz;
        let units = (2 * time + per_unit).div_euclid(2 * per_unit);
        i64::try_from(units).unwrap_or(if units < 0 { i64::MIN } else { i64::MAX })
    }
}

fn least_common_multiple(a: u64, b: u64) -> u64 {
    let (mut x, mut y) = (a.max(1), b.max(1));
    while y != 0 {
        (x, y) = (y, x % y);
    }
    (a.max(1) / x).saturating_mul(b.max(1))
}

/// The duration of one frame, as a fraction of a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct FrameDuration {
    pub(super) units: u64,
    pub(super) units_per_second: u32,
}

impl FrameDuration {
    pub(super) fn from_ns(ns: u64) -> Self {
        Self { units: ns, units_per_second: 1_000_000_000 }
    }

    /// `count` of them in ticks, rounded to nearest. None if the fraction is none, or beyond 64 bits.
    pub(super) fn ticks(self, count: usize, timescale_hz: u32) -> Option<i64> {
        let per_second = u128::from(self.units_per_second);
        let ticks = u128::from(self.units) * count as u128;
        let ticks = ticks.checked_mul(u128::from(timescale_hz))?.checked_mul(2)?.checked_add(per_second)?;
        i64::try_from(ticks.checked_div(2 * per_second)?).ok()
    }
}

/// How long a frame of this track lasts, where its codec says so.
pub(super) fn codec_frame_duration(track: &Track, frame: &[u8]) -> Option<FrameDuration> {
    let audio = track.audio.filter(|audio| audio.sample_rate_hz > 0)?;
    let (units, units_per_second) = match track.codec {
        Codec::Aac => {
            let config = aac::AudioSpecificConfig::parse(&track.codec_private).ok()?;
            (config.frame_len.into(), config.sample_rate_hz)
        }
        Codec::Opus => (opus::packet_duration_48k(frame)?.into(), 48_000),
        Codec::Mp3 => {
            let header = mp3::parse_header(frame).ok()?;
            (header.samples.into(), header.sample_rate_hz)
        }
        Codec::G711Ulaw | Codec::G711Alaw => {
            (frame.len() as u64 / u64::from(audio.channels.max(1)), audio.sample_rate_hz)
        }
        Codec::Pcm(pcm) => {
            let bytes = u64::from(pcm.bits / 8) * u64::from(audio.channels);
            ((frame.len() as u64).checked_div(bytes)?, audio.sample_rate_hz)
        }
        _ => return None,
    };
    Some(FrameDuration { units, units_per_second })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_that_divide_a_second_become_the_timescale() {
        for (ns, hz, ticks) in [
            (1_000_000, 1000, Some(7)),
            (1_000_000_000, 1, Some(7)),
            (62_500, 16_000, Some(7)),
            (1, 1_000_000_000, Some(7)),
            (20_833, 1_000_000_000, Some(7 * 20_833)),
            (2_000_000_000, 1_000_000_000, Some(14_000_000_000)),
            (u64::MAX, 1_000_000_000, None),
        ] {
            let scale = Scale { ns };
            assert_eq!((scale.timescale_hz(), scale.ticks(7)), (hz, ticks), "{ns}");
        }
        assert_eq!(Scale { ns: 20_833 }.ticks(i64::MAX), None);
    }

    #[test]
    fn the_unit_is_exact_where_it_can_be() {
        let of = |timescales: &[u32]| {
            let track = |hz: &u32| Track { timescale_hz: *hz, ..crate::container::mkv::mux::tests::opaque_track() };
            let config = StreamConfig { tracks: timescales.iter().map(track).collect(), ..StreamConfig::default() };
            Timing::of(&config).scale_ns()
        };
        for (timescales, scale_ns) in [
            (&[1000][..], 1_000_000),
            (&[25], 1_000_000),
            (&[8000], 125_000),
            (&[16_000, 1000], 62_500),
            (&[12_800], 15_625),
            (&[90_000], 1_000_000),
            (&[1000, 48_000], 1_000_000),
            (&[10_000_000], 1_000_000),
            (&[], 1_000_000),
        ] {
            assert_eq!(of(timescales), scale_ns, "{timescales:?}");
        }
    }

    #[test]
    fn units_are_rounded_to_nearest() {
        let timing = Timing::of_scale(1_000_000).unwrap();
        assert_eq!(timing.units(3003, 90_000), 33);
        assert_eq!(timing.units(-3003, 90_000), -33);
        assert_eq!(timing.units(45, 90_000), 1);
        assert_eq!(timing.units(i64::MAX, 1), i64::MAX);
        assert_eq!(Timing::of_scale(20_833).unwrap().units(7 * 20_833, 1_000_000_000), 7);
        assert_eq!(Timing::of_scale(0), None);
    }

    #[test]
    fn frame_durations_do_not_drift() {
        let frame = FrameDuration { units: 1152, units_per_second: 44_100 };
        assert_eq!(frame.ticks(1, 1000), Some(26));
        assert_eq!(frame.ticks(100, 1000), Some(2612));
        assert_eq!(FrameDuration { units: 1, units_per_second: 0 }.ticks(1, 1000), None);
        assert_eq!(FrameDuration::from_ns(u64::MAX).ticks(usize::MAX, u32::MAX), None);
    }
}
