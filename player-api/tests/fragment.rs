//! Byte ranges of samples, against a plain model.

mod support;

use bytes::Bytes;
use proptest::prelude::*;
use support::{Archive, Push, START};
use vidar_core::sample::SyncKind;
use vidar_media::fragmenter::Options;
use vidar_media::table::SampleEntry;
use vidar_player_api::fragment::{READ_BYTES_MAX, StoredRange, StoredSample, group_reads, load};

fn entry(size: u32, drops: Vec<(u32, u32)>) -> SampleEntry {
    SampleEntry {
        decode_ticks: 0,
        composition_ticks: 0,
        duration_ticks: 1,
        duration_estimated: false,
        sync: SyncKind::Sync,
        block_flags: 0,
        size,
        arrival: 0,
        drops,
    }
}

/// A size, and sorted, disjoint drops inside it.
fn sample() -> impl Strategy<Value = SampleEntry> {
    prop::collection::vec((0..40_u32, 1..30_u32), 0..4).prop_flat_map(|steps| {
        let mut at = 0;
        let drops: Vec<(u32, u32)> = steps
            .into_iter()
            .map(|(skip, len)| {
                let drop = (at + skip, len);
                at = drop.0 + len;
                drop
            })
            .collect();
        (at..at + 50).prop_map(move |size| entry(size, drops.clone()))
    })
}

proptest! {
    #[test]
    fn the_mp4_view_is_what_is_left_without_the_drops(entry in sample(), offset in 0..1000_u64) {
        let sample = StoredSample { part: Some(3), offset, entry: &entry };
        let dropped = |byte: u64| entry.drops.iter().any(|(at, len)| (u64::from(*at)..u64::from(at + len)).contains(&byte));
        let expected: Vec<u64> = (0..u64::from(entry.size)).filter(|byte| !dropped(*byte)).map(|byte| byte + offset).collect();
        let found: Vec<u64> = sample.mp4_view().flat_map(|view| view.range).collect();
        prop_assert_eq!(found.len() as u32, entry.mp4_len());
        prop_assert_eq!(found, expected);
        prop_assert!(sample.mp4_view().all(|view| view.part == Some(3) && !view.range.is_empty()));
        prop_assert_eq!(sample.stored().range, offset..offset + u64::from(entry.size));
    }

    #[test]
    fn reads_give_the_wanted_bytes_in_order(
        ranges in prop::collection::vec((prop::option::of(0..2_u16), 0..3_000_000_u64, 0..2_000_000_u64), 0..20),
    ) {
        let ranges: Vec<StoredRange> =
            ranges.into_iter().map(|(part, start, len)| StoredRange { part, range: start..start + len }).collect();
        let groups = group_reads(ranges.clone());
        for group in &groups {
            prop_assert!(group.read.range.end - group.read.range.start <= READ_BYTES_MAX);
            prop_assert!(group.wanted.iter().all(|wanted| wanted.start >= group.read.range.start && wanted.end <= group.read.range.end));
        }
        // The same bytes in the same order, however they were split and joined.
        let joined = |parts: Vec<(Option<u16>, std::ops::Range<u64>)>| {
            let mut joined: Vec<(Option<u16>, std::ops::Range<u64>)> = Vec::new();
            for (part, range) in parts.into_iter().filter(|(_, range)| !range.is_empty()) {
                match joined.last_mut() {
                    Some((last_part, last)) if *last_part == part && last.end == range.start => last.end = range.end,
                    _ => joined.push((part, range)),
                }
            }
            joined
        };
        let wanted = groups.iter().flat_map(|group| group.wanted.iter().map(|wanted| (group.read.part, wanted.clone())));
        let asked = ranges.iter().map(|stored| (stored.part, stored.range.clone()));
        prop_assert_eq!(joined(wanted.collect()), joined(asked.collect()));
    }
}

#[tokio::test]
async fn samples_of_all_pieces_come_in_decode_order_with_their_bytes() {
    let archive = Archive::new();
    let options = Options { part_duration_ms: 500, ..Options::default() };
    let entries = archive.push(Push { options, ..Push::new("cam", "bbb.mkv", START) }).await;
    let expected: Vec<Vec<Bytes>> = (0..2_u8)
        .map(|track| {
            let samples = support::events("bbb.mkv").into_iter().filter_map(|event| match event {
                vidar_media::Event::Sample(sample) if sample.track == track => Some(sample.data),
                _ => None,
            });
            samples.collect()
        })
        .collect();
    for (track, expected) in (0..2_u8).zip(expected) {
        let (mut found, mut last) = (Vec::new(), i64::MIN);
        for entry in &entries {
            let loaded = load(&archive.api, entry).await.unwrap();
            assert!(loaded.pieces.len() > 1);
            assert_eq!(loaded.origin_ms(), load(&archive.api, &entries[0]).await.unwrap().origin_ms());
            for sample in loaded.samples(track) {
                assert!(sample.entry.decode_ticks > last);
                last = sample.entry.decode_ticks;
                let stored = sample.stored();
                found.push(archive.api.source.media(entry, stored.part, stored.range).await.unwrap());
            }
        }
        assert_eq!(found, expected);
    }
}
