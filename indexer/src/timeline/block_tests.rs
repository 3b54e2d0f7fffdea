//! Whatever a fragment is, it comes back out of a block; what is alike takes little room.

use proptest::prelude::*;
use vidar_core::ids::FileId;
use vidar_core::record::FragmentFacts;
use vidar_core::sample::Tag;

use super::*;

const STREAM: StreamId = StreamId::from_bytes([9; 16]);

prop_compose! {
    fn locator()(
        volume: u16, file in 0..4_u8, offset: u64, head_len: u32, media_len in prop_oneof![any::<u64>(), 0..2_000_000_u64],
        record_len in prop_oneof![any::<u64>(), 0..2_000_000_u64],
    ) -> Locator {
        Locator { volume, file: FileId::from_bytes([file; 16]), offset, head_len, media_len, record_len }
    }
}

prop_compose! {
    fn totals()(
        sample_count: u32, mp4_bytes: u64, stts_runs: u32, ctts_runs: u32, sync_count: u32, chunk_count: u32,
        first_decode_ticks: i64,
    ) -> TrackTotals {
        TrackTotals { sample_count, mp4_bytes, stts_runs, ctts_runs, sync_count, chunk_count, first_decode_ticks }
    }
}

prop_compose! {
    fn meta()(
        number: [u8; 20], run in 0..3_u8, lease_epoch: u32, ordinal: u64, discontinuity: u32, start: i64,
        duration_ms: u32, config in 0..3_u8, flags: u16,
    ) -> FragmentMeta {
        FragmentMeta {
            stream: STREAM,
            number: FragmentNumber::from_bytes(number),
            run: RunId::from_bytes([run; 16]),
            lease_epoch,
            ordinal,
            discontinuity,
            producer_start: UnixMs(start),
            duration_ms,
            config: ConfigId([config; 16]),
            flags: FragmentFlags(flags),
        }
    }
}

prop_compose! {
    fn slot()(
        meta in meta(), size_bytes: u64, totals in prop::collection::vec(totals(), 0..=ENTRY_TRACK_COUNT_MAX),
        sync_back: u32, archived: i64, record in locator(), parts in prop::collection::vec(locator(), 0..3),
        tag in prop::option::of("[a-z]{0,3}"), lost_count in 0..3_u32,
        wall_source in 0..4_u8, wall_offset_ms in prop_oneof![any::<i64>(), -20..20_i64],
    ) -> Slot {
        let tags = tag.into_iter().map(|value| Tag { name: "t".into(), value }).collect();
        let wall_source = WallSource::from_code(wall_source).expect("a code");
        let facts = FragmentFacts { tags, lost_count, wall_source, wall_offset_ms, ..FragmentFacts::default() };
        let entry = FragmentEntry { meta, size_bytes, totals, sync_back, archived: UnixMs(archived), record, parts };
        Slot { entry: Arc::new(entry), details: Details::new(&facts, None) }
    }
}

fn slots() -> impl Strategy<Value = Vec<Slot>> {
    prop::collection::vec(slot(), 0..12).prop_map(|mut slots| {
        slots.sort_by_key(Slot::number);
        slots.dedup_by_key(|slot| slot.number());
        slots
    })
}

proptest! {
    #[test]
    fn any_fragments_come_back(slots in slots()) {
        let names = FileNames::default();
        let bytes = encode(STREAM, &slots, &names);
        prop_assert_eq!(decode(&bytes, STREAM, &names).unwrap(), slots);
        prop_assert!(decode(&bytes, StreamId::from_bytes([8; 16]), &names).is_err());
        let cuts = (0..bytes.len()).step_by(bytes.len() / 8);
        prop_assert!(cuts.into_iter().all(|len| decode(&bytes[..len], STREAM, &names).is_err()));
    }

    #[test]
    fn changed_bytes_are_read_or_refused(slots in slots(), changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..5)) {
        let names = FileNames::default();
        let mut bytes = encode(STREAM, &slots, &names);
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] ^= byte;
        }
        if let Ok(read) = decode(&bytes, STREAM, &names) {
            prop_assert!(read.windows(2).all(|pair| pair[0].number() < pair[1].number()));
        }
    }
}

#[test]
fn numbers_are_split_without_loss() {
    for number in [FragmentNumber::MIN, FragmentNumber::MAX, FragmentNumber::new(u64::MAX - 5, u64::MAX / 3, 77)] {
        assert_eq!(join(split(number)), number);
    }
    assert_eq!(split(FragmentNumber::new(5, 6, 7)), [1, 5, 6, 7]);
}

#[test]
fn a_block_of_a_day_is_small() {
    let names = FileNames::default();
    let slots: Vec<Slot> = (0..256_u64)
        .map(|index| {
            let random = index.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 16;
            let fragment = crate::testing::Fragment {
                size_bytes: 400_000 + random % 100_000,
                server_ms: crate::testing::DAY_ONE + index as i64 * 2000 + (random >> 20) as i64 % 100,
                ordinal: index,
                ..crate::testing::Fragment::new(STREAM, RunId::from_bytes([1; 16]), index * 400)
            };
            Slot { entry: fragment.entry(), details: Details::new(&fragment.facts(), None) }
        })
        .collect();
    assert!(encode(STREAM, &slots, &names).len() < 256 * 16);
}
