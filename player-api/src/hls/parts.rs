//! Parts of segments (draft-pantos-hls-rfc8216bis section 4.4.4.9): where the samples of a track of one fragment are cut. The
//! rule knows nothing but the samples, so that a fragment that is recorded is cut as it is from the archive later.

use std::borrow::Cow;
use std::ops::Range;

use vidar_core::sample::SyncKind;
use vidar_core::time::ms_to_ticks_floor;
use vidar_media::container::fmp4::segment::SegmentStart;
use vidar_media::table::SampleEntry;

use super::media::Part;

/// The samples of each part, in order: as many as end within `part_ms` after the first begins, one at least. Those after
/// the last part are of one that is not complete; where the fragment `is_closed` there are none.
pub(super) fn cut(samples: &[SampleEntry], part_ms: u32, timescale_hz: u32, is_closed: bool) -> Vec<Range<usize>> {
    let mut parts = Vec::new();
    cut_on(samples, part_ms, timescale_hz, is_closed, &mut parts);
    parts
}

/// Goes on with the parts that were cut of fewer of the samples.
pub(super) fn cut_on(
    samples: &[SampleEntry],
    part_ms: u32,
    timescale_hz: u32,
    is_closed: bool,
    parts: &mut Vec<Range<usize>>,
) {
    let part_ticks = ms_to_ticks_floor(part_ms.into(), timescale_hz);
    let mut first = parts.last().map_or(0, |last| last.end);
    for (index, sample) in samples.iter().enumerate().skip(first) {
        let Some(end) = end_ticks(samples, index, is_closed) else { break };
        if index > first && end.saturating_sub(samples[first].decode_ticks) > part_ticks {
            parts.push(first..index);
            first = index;
        }
        debug_assert!(sample.decode_ticks <= end, "decode times increase");
    }
    if is_closed && first < samples.len() {
        parts.push(first..samples.len());
    }
}

/// When the next sample is decoded.
fn end_ticks(samples: &[SampleEntry], index: usize, is_closed: bool) -> Option<i64> {
    let sample = &samples[index];
    let of_last = || is_closed.then(|| sample.decode_ticks.saturating_add(sample.duration_ticks.into()));
    samples.get(index + 1).map(|next| next.decode_ticks).or_else(of_last)
}

/// The samples of a part, the last of which lasts until the next one.
pub(super) fn entries<'a>(samples: &'a [SampleEntry], part: &Range<usize>) -> Cow<'a, [SampleEntry]> {
    let of_part = &samples[part.clone()];
    let (Some(last), Some(next)) = (of_part.last(), samples.get(part.end)) else { return of_part.into() };
    if i64::from(last.duration_ticks) == next.decode_ticks.saturating_sub(last.decode_ticks) {
        return of_part.into();
    }
    let mut of_part = of_part.to_vec();
    if let Some(last) = of_part.last_mut() {
        last.lasts_until(next.decode_ticks);
    }
    of_part.into()
}

/// How a part begins.
pub(super) fn start(index: usize) -> SegmentStart {
    if index == 0 { SegmentStart::Segment } else { SegmentStart::Inside }
}

/// What a playlist says of a part.
pub(super) fn listed(samples: &[SampleEntry], part: &Range<usize>, timescale_hz: u32, uri: String) -> Part {
    let first = &samples[part.start];
    let end = end_ticks(samples, part.end - 1, true).unwrap_or(first.decode_ticks);
    let duration_us = i128::from(end.saturating_sub(first.decode_ticks)) * 1_000_000 / i128::from(timescale_hz.max(1));
    Part { duration_us: u64::try_from(duration_us).unwrap_or(0), uri, independent: first.sync == SyncKind::Sync }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(decode_ticks: &[i64], last_ticks: u32) -> Vec<SampleEntry> {
        let entry = |at: &i64| SampleEntry {
            decode_ticks: *at,
            composition_ticks: 0,
            duration_ticks: 1,
            duration_estimated: true,
            sync: SyncKind::None,
            block_flags: 0,
            size: 1,
            arrival: 0,
            drops: Vec::new(),
        };
        let mut samples: Vec<SampleEntry> = decode_ticks.iter().map(entry).collect();
        samples.last_mut().unwrap().duration_ticks = last_ticks;
        samples
    }

    #[test]
    fn parts_are_as_long_as_fits_and_cut_alike_however_much_is_there() {
        // In milliseconds: 40 each, then one that lasts longer than a part.
        let all = samples(&[0, 40, 80, 120, 160, 200, 240, 1000, 1040], 40);
        let whole = cut(&all, 100, 1000, true);
        assert_eq!(whole, [0..2, 2..4, 4..6, 6..7, 7..9]);
        for count in 1..all.len() {
            let some = cut(&all[..count], 100, 1000, false);
            assert!(whole.starts_with(&some), "{count}: {some:?}");
            let mut on = some;
            cut_on(&all, 100, 1000, true, &mut on);
            assert_eq!(on, whole, "{count}");
        }
        // As soon as the one after the next sample is known.
        let first = cut(&all[..4], 100, 1000, false);
        assert_eq!((first.len(), first[0].clone()), (1, 0..2));
        assert_eq!(cut(&all[..3], 100, 1000, false), [0..0; 0]);
        assert_eq!(cut(&[], 100, 1000, true), [0..0; 0]);
        assert_eq!(entries(&all, &(5..7))[1].duration_ticks, 760);
        let part = listed(&all, &(7..9), 1000, String::new());
        assert_eq!((part.duration_us, part.independent), (80_000, false));
    }

    proptest::proptest! {
        #[test]
        fn no_part_is_longer_but_of_one_sample(
            steps in proptest::collection::vec(1_i64..200, 1..200),
            part_ms in 1_u32..300,
        ) {
            let times: Vec<i64> = steps.iter().scan(0, |at, step| { *at += step; Some(*at) }).collect();
            let all = samples(&times, 30);
            let parts = cut(&all, part_ms, 1000, true);
            let mut next = 0;
            for part in &parts {
                proptest::prop_assert_eq!(part.start, next);
                next = part.end;
                let long = listed(&all, part, 1000, String::new()).duration_us > u64::from(part_ms) * 1000;
                proptest::prop_assert!(part.len() == 1 || !long);
            }
            proptest::prop_assert_eq!(next, all.len());
        }
    }
}
