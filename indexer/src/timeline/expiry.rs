//! What may go.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};

use vidar_core::control::kept_ms;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::time::UnixMs;

use super::look::Look;
use super::stream::successor;

/// The oldest fragments of a stream, to go together. `below` and what follows it is what the floor record says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry<E = Vec<SharedEntry>> {
    /// The smallest number that stays readable.
    pub below: FragmentNumber,
    /// The ordinal that the next fragment of the stream gets at least.
    pub next_ordinal: u64,
    /// Discontinuities counted so far.
    pub discontinuity: u32,
    /// Bytes of the records of what goes.
    pub stored_bytes: u64,
    /// What goes, the oldest first: all of it, or what it adds up to, where it may be too much to hold.
    pub entries: E,
}

/// What goes of a stream, one by one.
#[derive(Default)]
struct Going<E> {
    entries: E,
    stored_bytes: u64,
    last: Option<FragmentNumber>,
}

impl<E: Default + Extend<SharedEntry>> Going<E> {
    fn add(&mut self, entry: SharedEntry) {
        self.stored_bytes = self.stored_bytes.saturating_add(entry.stored_bytes());
        self.last = Some(entry.meta.number);
        self.entries.extend([entry]);
    }

    fn expiry(self, (next_ordinal, discontinuity): (u64, u32)) -> Option<Expiry<E>> {
        // Not the number of the next entry: a fragment in between may be on its way.
        let below = successor(self.last?);
        Some(Expiry { below, next_ordinal, discontinuity, stored_bytes: self.stored_bytes, entries: self.entries })
    }
}

pub(super) fn expired<E: Default + Extend<SharedEntry>>(
    look: &Look,
    place: (u64, u32),
    from: FragmentNumber,
    archive_now: UnixMs,
    hours: u32,
    bytes: Option<u64>,
) -> Option<Expiry<E>> {
    let oldest_kept = archive_now.plus_ms(-kept_ms(hours));
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
    let mut going = Going::default();
    entries.filter(|entry| entry.meta.number >= from).for_each(|entry| going.add(entry));
    going.expiry(place)
}

/// `streams`: as they stand, with where each goes on.
pub(super) fn oldest_overall<E: Default + Extend<SharedEntry>>(
    streams: &[(StreamId, Look, (u64, u32))],
    from: &HashMap<StreamId, FragmentNumber>,
    bytes: u64,
) -> Vec<(StreamId, Expiry<E>)> {
    let from = |stream| from.get(stream).copied().unwrap_or(FragmentNumber::MIN);
    let mut heads: BinaryHeap<Reverse<(FragmentNumber, usize)>> = BinaryHeap::new();
    let mut walks: Vec<_> = streams.iter().map(|(stream, look, _)| look.from(from(stream)).peekable()).collect();
    for (index, walk) in walks.iter_mut().enumerate() {
        heads.extend(walk.peek().map(|entry| Reverse((entry.meta.number, index))));
    }
    let (mut taken, mut freed): (HashMap<usize, Going<E>>, u64) = (HashMap::new(), 0);
    while freed < bytes
        && let Some(Reverse((_, index))) = heads.pop()
        && let Some(walk) = walks.get_mut(index)
        && let Some(entry) = walk.next()
    {
        freed = freed.saturating_add(entry.stored_bytes());
        taken.entry(index).or_default().add(entry);
        heads.extend(walk.peek().map(|entry| Reverse((entry.meta.number, index))));
    }
    let expiry = |(index, going): (usize, Going<E>)| {
        let (stream, _, place) = streams.get(index)?;
        Some((*stream, going.expiry(*place)?))
    };
    let mut all: Vec<_> = taken.into_iter().filter_map(expiry).collect();
    // The same each time, in whatever order the streams are held.
    all.sort_unstable_by_key(|(_, expiry)| expiry.below);
    all
}
