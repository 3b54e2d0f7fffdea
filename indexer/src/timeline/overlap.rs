//! Which fragments of a page overlap another one in producer time, on whatever page that is.

use std::collections::HashSet;
use std::sync::Arc;

use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::FragmentNumber;
use vidar_core::record::FragmentFlags;

use super::look::Look;
use super::stream::producer_span;
use super::tree::Summary;
use crate::interval::IntervalIndex;

/// Of `entries` those that overlap a fragment of another run, or one that was sent again.
///
/// Holds no more than `entries`. Opens each block once, and only those whose time touches an entry that is still open.
pub(super) fn overlapped(look: &Look, entries: &[SharedEntry]) -> HashSet<FragmentNumber> {
    let mut asked = Asked::default();
    entries.iter().for_each(|entry| asked.open.insert(producer_span(entry), entry.meta.number, Arc::clone(entry)));
    look.view.tail.values().for_each(|slot| asked.see(&slot.entry));
    let floor = look.view.floor;
    for group in look.view.tree.groups.iter().filter(|group| group.summary.numbers.1 >= floor) {
        if !asked.touches(&group.summary) {
            continue;
        }
        for block in group.blocks.iter().filter(|block| block.summary.numbers.1 >= floor) {
            if asked.touches(&block.summary) {
                let slots = look.open(block);
                slots.iter().filter(|slot| look.holds(slot.number())).for_each(|slot| asked.see(&slot.entry));
            }
        }
    }
    asked.found
}

#[derive(Default)]
struct Asked {
    /// Of which it is not known yet.
    open: IntervalIndex<SharedEntry>,
    found: HashSet<FragmentNumber>,
}

impl Asked {
    fn touches(&self, summary: &Summary) -> bool {
        self.open.overlapping(summary.starts.0, summary.end, None).next().is_some()
    }

    fn see(&mut self, other: &FragmentEntry) {
        let span = producer_span(other);
        let open = self.open.overlapping(span.start, span.end, None).map(|(.., entry)| entry);
        let hit: Vec<SharedEntry> = open.filter(|entry| is_another(entry, other)).map(Arc::clone).collect();
        for entry in hit {
            self.open.remove(producer_span(&entry), entry.meta.number);
            self.found.insert(entry.meta.number);
        }
    }
}

/// Fragments of one run follow one another, unless the producer sends some again.
fn is_another(entry: &FragmentEntry, other: &FragmentEntry) -> bool {
    let repeats = |entry: &FragmentEntry| entry.meta.flags.contains(FragmentFlags::REPEATS);
    entry.meta.number != other.meta.number && (entry.meta.run != other.meta.run || repeats(entry) || repeats(other))
}
