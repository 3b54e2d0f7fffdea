//! Listings by time.

use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;

use super::cursor::Cursor;
use super::stream::{Held, server_span, successor};

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

pub(super) fn range(held: &Held, query: &RangeQuery) -> Page {
    let (start, end) = (query.start.unwrap_or(ALWAYS.0), query.end.unwrap_or(ALWAYS.1));
    if start >= end || query.limit == 0 {
        return Page::default();
    }
    let after = query.after;
    match (query.axis, query.descending) {
        (TimeAxis::Producer, false) => {
            let found = held.producer.overlapping(start, end, after.map(|at| (at.time, at.number)));
            page(found.map(|(_, _, entry)| entry), query)
        }
        (TimeAxis::Producer, true) => {
            let found = held.producer.overlapping_back(start, end, after.map(|at| (at.time, at.number)));
            page(found.map(|(_, _, entry)| entry), query)
        }
        (TimeAxis::Server, descending) => {
            let Some((first, last)) = held.numbers_of_server_range(start, end) else { return Page::default() };
            let is_in = |entry: &&SharedEntry| {
                let span = server_span(entry);
                span.start < end && span.end > start
            };
            if descending {
                let before = after.map_or(successor(last), |at| at.number.min(successor(last)));
                let entries = held.entries_back(before);
                page(entries.take_while(|entry| entry.meta.number >= first).filter(is_in), query)
            } else {
                let from = after.map_or(first, |at| at.number.max(first));
                let entries = held.entries_from(from).take_while(|entry| entry.meta.number <= last);
                page(entries.filter(|entry| after.is_none_or(|at| entry.meta.number > at.number)).filter(is_in), query)
            }
        }
    }
}

fn page<'a>(entries: impl Iterator<Item = &'a SharedEntry>, query: &RangeQuery) -> Page {
    let mut entries = entries;
    let page: Vec<SharedEntry> = entries.by_ref().take(query.limit).map(Arc::clone).collect();
    let next = entries.next().and(page.last()).map(|entry| Cursor {
        time: match query.axis {
            TimeAxis::Producer => entry.meta.producer_start,
            TimeAxis::Server => entry.meta.server_start(),
        },
        number: entry.meta.number,
    });
    Page { entries: page, next }
}
