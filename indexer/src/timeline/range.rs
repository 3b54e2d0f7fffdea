//! Listings by time.

use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;

use super::cursor::Cursor;
use super::look::Look;

/// Whose clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum TimeAxis {
    /// The producer's.
    #[default]
    Producer,
    /// The server's.
    Server,
}

/// What to list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RangeQuery {
    /// Of which stream.
    pub stream: StreamId,
    /// Whose clock `start` and `end` are read by, and the order.
    pub axis: TimeAxis,
    /// What ends at this or before is left out.
    pub start: Option<UnixMs>,
    /// What begins at this or after is left out.
    pub end: Option<UnixMs>,
    /// Goes on after a page. From a listing of the same axis and direction.
    pub after: Option<Cursor>,
    /// Entries of a page at most.
    pub limit: usize,
    /// The newest first.
    pub descending: bool,
}

/// Part of a listing.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// In the order asked for.
    pub entries: Vec<SharedEntry>,
    /// Where the next page begins; none: this was the last.
    pub next: Option<Cursor>,
}

/// Earlier than all that can be asked for, and later.
const ALWAYS: (UnixMs, UnixMs) = (UnixMs(i64::MIN), UnixMs(i64::MAX));

pub(super) fn range(look: &Look, query: &RangeQuery) -> Page {
    let (start, end) = (query.start.unwrap_or(ALWAYS.0), query.end.unwrap_or(ALWAYS.1));
    if start >= end || query.limit == 0 {
        return Page::default();
    }
    let place = query.after.map(|at| (at.time, at.number));
    match (query.axis, query.descending) {
        (TimeAxis::Producer, false) => page(look.overlapping(start, end, place), query),
        (TimeAxis::Producer, true) => page(look.overlapping_back(start, end, place), query),
        (TimeAxis::Server, false) => page(look.served(start, end, query.after), query),
        (TimeAxis::Server, true) => page(look.served_back(start, end, query.after), query),
    }
}

fn page(mut entries: impl Iterator<Item = SharedEntry>, query: &RangeQuery) -> Page {
    let page: Vec<SharedEntry> = entries.by_ref().take(query.limit).collect();
    let next = entries.next().and(page.last()).map(|entry| Cursor {
        axis: query.axis,
        descending: query.descending,
        time: match query.axis {
            TimeAxis::Producer => entry.meta.producer_start,
            TimeAxis::Server => entry.meta.server_start(),
        },
        number: entry.meta.number,
    });
    Page { entries: page, next }
}
