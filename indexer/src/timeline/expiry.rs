//! What may go.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BinaryHeap, HashMap};
use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::time::UnixMs;

use super::SharedHeld;
use super::stream::{Held, successor};
use crate::lock::read;

/// The oldest fragments of a stream, to go together. All but the entries is what the floor record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// The smallest number that stays readable.
    pub below: FragmentNumber,
    /// The ordinal that the next fragment of the stream gets at least.
    pub next_ordinal: u64,
    /// Discontinuities counted so far.
    pub discontinuity: u32,
    /// What goes, the oldest first.
    pub entries: Vec<SharedEntry>,
}

const HOUR_MS: i64 = 3_600_000;

pub(super) fn expired(held: &Held, archive_now: UnixMs, hours: u32, bytes: Option<u64>) -> Option<Expiry> {
    let oldest_kept = archive_now.plus_ms(-i64::from(hours).saturating_mul(HOUR_MS));
    let aged = held.entries_from(FragmentNumber::MIN).take_while(|entry| entry.archived <= oldest_kept).count();
    let mut stored = held.stored_bytes();
    let newest_stays = usize::try_from(held.len()).unwrap_or(usize::MAX).saturating_sub(1);
    let over = bytes.map_or(0, |bytes| {
        let entries = held.entries_from(FragmentNumber::MIN).take(newest_stays);
        let over = entries.take_while(|entry| {
            let over = stored > bytes;
            stored = stored.saturating_sub(entry.stored_bytes());
            over
        });
        over.count()
    });
    let last = held.entries_from(FragmentNumber::MIN).nth(aged.max(over).checked_sub(1)?)?.meta.number;
    up_to(held, last)
}

fn up_to(held: &Held, last: FragmentNumber) -> Option<Expiry> {
    // Not the number of the next entry: a fragment in between may be on its way.
    let below = successor(last);
    let entries = held.entries_from(FragmentNumber::MIN).take_while(|entry| entry.meta.number < below);
    let entries: Vec<SharedEntry> = entries.map(Arc::clone).collect();
    if entries.is_empty() {
        return None;
    }
    let (next_ordinal, discontinuity) = held.next_place();
    Some(Expiry { below, next_ordinal, discontinuity, entries })
}

pub(super) fn oldest_overall(
    streams: &[(StreamId, SharedHeld)],
    from: &HashMap<StreamId, FragmentNumber>,
    bytes: u64,
) -> Vec<(StreamId, Expiry)> {
    let from = |stream| from.get(stream).copied().unwrap_or(FragmentNumber::MIN);
    let mut heads: BinaryHeap<Reverse<(FragmentNumber, usize)>> = BinaryHeap::new();
    let push = |heads: &mut BinaryHeap<_>, index: usize, entry: Option<&SharedEntry>| {
        if let Some(entry) = entry {
            heads.push(Reverse((entry.meta.number, index)));
        }
    };
    for (index, (stream, held)) in streams.iter().enumerate() {
        push(&mut heads, index, read(held).entries_from(from(stream)).next());
    }
    let (mut last, mut freed): (BTreeMap<usize, FragmentNumber>, u64) = (BTreeMap::new(), 0);
    while freed < bytes
        && let Some(Reverse((number, index))) = heads.pop()
    {
        let Some((_, held)) = streams.get(index) else { continue };
        let held = read(held);
        // Gone in the meantime: it frees nothing more.
        let Some(slot) = held.get(number) else { continue };
        freed = freed.saturating_add(slot.entry.stored_bytes());
        last.insert(index, number);
        push(&mut heads, index, held.entries_after(number).next());
    }
    let expiry = |(index, last): (usize, FragmentNumber)| {
        let (stream, held) = streams.get(index)?;
        let mut expiry = up_to(&read(held), last)?;
        expiry.entries.retain(|entry| entry.meta.number >= from(stream));
        Some((*stream, expiry))
    };
    last.into_iter().filter_map(expiry).collect()
}
