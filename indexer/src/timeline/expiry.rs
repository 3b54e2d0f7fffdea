//! What may go.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::time::UnixMs;

use super::look::Look;
use super::stream::successor;

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

pub(super) fn expired(
    look: &Look,
    place: (u64, u32),
    archive_now: UnixMs,
    hours: u32,
    bytes: Option<u64>,
) -> Option<Expiry> {
    let oldest_kept = archive_now.plus_ms(-i64::from(hours).saturating_mul(HOUR_MS));
    let sums = look.sums();
    let (mut stored, mut left, mut aging) = (sums.stored_bytes, sums.count, true);
    let entries = look.from(FragmentNumber::MIN).take_while(|entry| {
        aging &= entry.archived <= oldest_kept;
        // The newest stays.
        let over = left > 1 && bytes.is_some_and(|bytes| stored > bytes);
        stored = stored.saturating_sub(entry.stored_bytes());
        left = left.saturating_sub(1);
        aging || over
    });
    expiry(entries.collect(), place)
}

fn expiry(entries: Vec<SharedEntry>, (next_ordinal, discontinuity): (u64, u32)) -> Option<Expiry> {
    // Not the number of the next entry: a fragment in between may be on its way.
    let below = successor(entries.last()?.meta.number);
    Some(Expiry { below, next_ordinal, discontinuity, entries })
}

/// `streams`: as they stand, with where each goes on.
pub(super) fn oldest_overall(
    streams: &[(StreamId, Look, (u64, u32))],
    from: &HashMap<StreamId, FragmentNumber>,
    bytes: u64,
) -> Vec<(StreamId, Expiry)> {
    let from = |stream| from.get(stream).copied().unwrap_or(FragmentNumber::MIN);
    let mut heads: BinaryHeap<Reverse<(FragmentNumber, usize)>> = BinaryHeap::new();
    let mut walks: Vec<_> = streams.iter().map(|(stream, look, _)| look.from(from(stream)).peekable()).collect();
    for (index, walk) in walks.iter_mut().enumerate() {
        heads.extend(walk.peek().map(|entry| Reverse((entry.meta.number, index))));
    }
    let (mut taken, mut freed): (HashMap<usize, Vec<SharedEntry>>, u64) = (HashMap::new(), 0);
    while freed < bytes
        && let Some(Reverse((_, index))) = heads.pop()
        && let Some(walk) = walks.get_mut(index)
        && let Some(entry) = walk.next()
    {
        freed = freed.saturating_add(entry.stored_bytes());
        taken.entry(index).or_default().push(entry);
        heads.extend(walk.peek().map(|entry| Reverse((entry.meta.number, index))));
    }
    let expiry = |(index, entries): (usize, Vec<SharedEntry>)| {
        let (stream, _, place) = streams.get(index)?;
        Some((*stream, expiry(entries, *place)?))
    };
    let mut all: Vec<_> = taken.into_iter().filter_map(expiry).collect();
    // The same each time, in whatever order the streams are held.
    all.sort_unstable_by_key(|(_, expiry)| expiry.below);
    all
}
