//! Timeline and search over fragments: derived state, rebuildable from the log.
//!
//! An [`Index`] follows the log ([`LogObserver`](vidar_core::log::LogObserver)) and answers three kinds of question:
//! the [`Catalog`] knows streams, runs and gaps; the [`Timeline`] knows fragments by number, ordinal, producer and
//! server time; [`Search`] finds fragments, runs and gaps by what they contain. Catalog and timeline are exact at once;
//! the timeline keeps older fragments in files, which it makes anew at a start unless a checkpoint brings them back. Search is
//! made from the two: nothing in their files is a source of truth.
//!
//! # Invariants
//! 1. The same events in any order, any number of times, give the same answers.
//! 2. Observing never fails, and waits for no disk; what comes late may read a block of the timeline.
//! 3. Deleting the directory and observing the log again gives the same answers.
//!
//! Design: `docs/design/index.md`; the query language: `docs/api/search.md`.
//!
//! ```
//! use vidar_core::clock::SystemClock;
//! use vidar_indexer::{Index, IndexOptions};
//! let index = Index::open(IndexOptions::in_memory(SystemClock::shared()))?;
//! assert!(index.catalog().streams().is_empty());
//! # Ok::<(), vidar_indexer::IndexError>(())
//! ```

pub mod catalog;
#[cfg(test)]
mod catalog_tests;
#[doc(hidden)]
pub mod fuzz;
mod index;
mod interval;
mod lock;
pub mod search;
#[cfg(test)]
mod testing;
pub mod timeline;

pub use catalog::{Catalog, RunOverlaps, RunView};
pub use index::{Index, IndexError, IndexOptions};
pub use search::{
    Aggregate, AggregateRequest, CatchUp, GroupBy, GroupKey, HitKind, Percentiles, Search, SearchError, SearchHit,
    SearchPage, SearchRequest, SearchStatus, Sort, Totals,
};
pub use timeline::{
    Cursor, Details, Expiry, Page, RangeQuery, Shown, StreamTotals, TimeAxis, Timeline, TimelineStats, TrackShape,
};
