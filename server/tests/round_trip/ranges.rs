//! Random ranges of a stream: what is shown at their start, and all until their end.

use crate::common::{Packet, Random, Vidar, assert_lists, packets, run};
use crate::compare::{decoded, tracks};

/// A stream, and what its whole clip has.
pub(crate) struct Whole<'a> {
    pub(crate) vidar: &'a Vidar,
    pub(crate) stream: &'a str,
    /// Its Matroska clip.
    pub(crate) mkv: &'a str,
    /// The pictures of it; none in sound alone.
    pub(crate) shown: &'a [String],
}

/// 3 ranges, 50 if `VIDAR_TEST_FULL` is set, by `VIDAR_TEST_SEED`. More are compared sample by sample, by
/// player-api/tests/clip_media.rs.
pub(crate) fn check(whole: &Whole) {
    let Whole { stream, mkv, .. } = *whole;
    let kinds = tracks(mkv);
    let primary = kinds.iter().position(|(kind, _)| kind == "video").unwrap_or(0);
    let mut packets = packets(mkv).swap_remove(primary);
    // Leading pictures of the first keyframe are before it.
    let first_us = packets[0].pts_us;
    packets.sort_by_key(|packet| packet.pts_us);
    let mut first = packets.iter().position(|packet| packet.pts_us == first_us).expect("it is there");
    if whole.shown.is_empty() {
        // What sound needs to settle comes along at the beginning of a run.
        first = packets.iter().position(|packet| packet.pts_us > first_us + 130_000).expect("it is longer");
    }
    let hashes: Vec<String> = packets.iter().map(|packet| packet.hash.clone()).collect();
    let expected = if whole.shown.is_empty() { &hashes } else { whole.shown };
    assert_eq!(expected.len(), packets.len(), "{stream}: a picture each");
    let times = Times { base_ms: producer_ms(whole), first_us, packets: &packets };
    let seed = std::env::var("VIDAR_TEST_SEED").map_or(1, |seed| seed.parse().expect("VIDAR_TEST_SEED is a number"));
    let mut random = Random(stream.bytes().fold(seed, |sum, byte| sum.wrapping_mul(31) ^ u64::from(byte)));
    let rounds = if std::env::var_os("VIDAR_TEST_FULL").is_some() { 50 } else { 3 };
    for _ in 0..rounds {
        let from = first + random.below((packets.len() - first) as u64) as usize;
        let to = from + random.below((packets.len() - from).min(75) as u64) as usize;
        let (start_ms, end_ms) = (times.after(from), times.after(to).max(times.after(from) + 1));
        let found = clip(whole, &kinds[primary], start_ms, end_ms);
        // What readers show before the start is what stands right before it.
        let before = found.len().saturating_sub(to + 1 - from).min(before_max(&kinds[primary].1)).min(from);
        let what = format!("{stream}: {from}..={to} by VIDAR_TEST_SEED={seed}, {start_ms}..{end_ms} ms");
        assert_lists(&what, &expected[from - before..=to], &found);
    }
}

/// Pictures before the start of a clip that ffmpeg 5.1 shows: it does not cut off what precedes the edit of AV1 and VP9, nor, of
/// H.265, the picture before a lone leading one; player-api/tests/clip_samples.rs holds what edits present. VP8 is in
/// Matroska, which begins with the keyframe.
fn before_max(codec: &str) -> usize {
    match codec {
        "av1" | "vp9" | "vp8" => usize::MAX,
        "hevc" => 1,
        _ => 0,
    }
}

/// Pictures of a range as an MP4 clip shows them, packets of sound from a Matroska clip.
fn clip(whole: &Whole, (kind, codec): &(String, String), start_ms: i64, end_ms: i64) -> Vec<String> {
    let container = if kind == "video" && codec != "vp8" { "mp4" } else { "mkv" };
    let path = format!("/v1/streams/{}/clip.{container}?start={start_ms}&end={end_ms}", whole.stream);
    let url = whole.vidar.url(&path);
    if kind != "video" {
        return packets(&url).swap_remove(0).into_iter().map(|packet| packet.hash).collect();
    }
    decoded(&url, kind, &[])
}

/// Producer time of the stream's first fragment.
fn producer_ms(whole: &Whole) -> i64 {
    let fragments = whole.vidar.fragments(whole.stream);
    let time = fragments[0]["producer_time"].as_str().expect("a time");
    let digits = String::from_utf8(run("date", &["-d", time, "+%s%3N"])).expect("UTF-8");
    digits.trim().parse().expect("milliseconds")
}

struct Times<'a> {
    base_ms: i64,
    first_us: i64,
    packets: &'a [Packet],
}

impl Times<'_> {
    /// Halfway from a packet to the next one.
    fn after(&self, index: usize) -> i64 {
        let at = self.packets[index].pts_us;
        let next = self.packets.get(index + 1).map_or(at + 10_000, |next| next.pts_us);
        self.base_ms + ((at + next) / 2 - self.first_us).div_euclid(1000)
    }
}
