//! The first results in an order, and how many there are.
//!
//! A result's place is its sort value, then its own name: no two are at the same place, so that pages do not shift.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{DocId, Score, SegmentOrdinal, SegmentReader};

use super::live::{Live, Scope};
use super::schema::{Number, NumberType};
use super::subject::Subject;

/// Where a result stands. Compared field by field.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
pub(super) struct Place {
    /// Of the sort field, in an order-preserving form; none is the smallest.
    pub(super) value: Option<u64>,
    pub(super) name: [u64; 3],
    pub(super) kind: u64,
    pub(super) stream: u64,
}

/// An order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) field: Number,
    pub(super) descending: bool,
}

/// Collects up to `size` results that stand after a place.
pub(super) struct Gather {
    pub(super) order: Order,
    pub(super) after: Option<Place>,
    pub(super) size: usize,
    pub(super) scope: Scope,
}

/// What one index holds of the results.
#[derive(Debug, Default)]
pub(super) struct Gathered {
    pub(super) total: u64,
    pub(super) found: Vec<(Place, Subject)>,
}

impl Collector for Gather {
    type Fruit = Gathered;
    type Child = Segment;

    fn for_segment(&self, _: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<Segment> {
        Ok(Segment {
            order: self.order,
            after: self.after,
            size: self.size,
            live: Live::open(self.scope.clone(), reader)?,
            sort: sort_column(reader, self.order.field)?,
            total: 0,
            kept: Kept::new(self.order.descending),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Gathered>) -> tantivy::Result<Gathered> {
        Ok(merge(fruits, self.order, self.size))
    }
}

/// The first `size` of several.
pub(super) fn merge(parts: Vec<Gathered>, order: Order, size: usize) -> Gathered {
    let mut all = Gathered::default();
    for part in parts {
        all.total += part.total;
        all.found.extend(part.found);
    }
    all.found.sort_unstable_by(|(a, _), (b, _)| if order.descending { b.cmp(a) } else { a.cmp(b) });
    all.found.truncate(size);
    all
}

enum SortColumn {
    Unsigned(Option<Column<u64>>),
    Signed(Option<Column<i64>>),
    Float(Option<Column<f64>>),
}

fn sort_column(reader: &SegmentReader, field: Number) -> tantivy::Result<SortColumn> {
    let (columns, name) = (reader.fast_fields(), field.name());
    Ok(match field.number_type() {
        NumberType::Unsigned => SortColumn::Unsigned(columns.column_opt(name)?),
        NumberType::Time => SortColumn::Signed(columns.column_opt(name)?),
        NumberType::Float => SortColumn::Float(columns.column_opt(name)?),
    })
}

impl SortColumn {
    fn value(&self, doc: DocId) -> Option<u64> {
        match self {
            Self::Unsigned(column) => column.as_ref()?.first(doc),
            Self::Signed(column) => column.as_ref()?.first(doc).map(tantivy::i64_to_u64),
            Self::Float(column) => column.as_ref()?.first(doc).map(tantivy::f64_to_u64),
        }
    }
}

/// Collects from one segment of an index.
pub(super) struct Segment {
    order: Order,
    after: Option<Place>,
    size: usize,
    live: Live,
    sort: SortColumn,
    total: u64,
    kept: Kept,
}

impl SegmentCollector for Segment {
    type Fruit = Gathered;

    fn collect(&mut self, doc: DocId, _: Score) {
        let Some((stream, kind, name, subject)) = self.live.subject(doc) else { return };
        self.total += 1;
        let place = Place { value: self.sort.value(doc), name, kind, stream };
        let is_after = self.after.is_none_or(|after| if self.order.descending { place < after } else { place > after });
        if is_after {
            self.kept.offer(place, subject, self.size);
        }
    }

    fn harvest(self) -> Gathered {
        Gathered { total: self.total, found: self.kept.into_vec() }
    }
}

/// The first few of many: a heap with the last of them on top.
enum Kept {
    Smallest(BinaryHeap<Entry>),
    Greatest(BinaryHeap<Reverse<Entry>>),
}

struct Entry(Place, Subject);

impl PartialEq for Entry {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl Eq for Entry {}

impl PartialOrd for Entry {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Entry {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.0.cmp(&other.0)
    }
}

impl Kept {
    fn new(descending: bool) -> Self {
        if descending { Self::Greatest(BinaryHeap::new()) } else { Self::Smallest(BinaryHeap::new()) }
    }

    fn offer(&mut self, place: Place, subject: Subject, size: usize) {
        match self {
            Self::Smallest(heap) => keep(heap, Entry(place, subject), size),
            Self::Greatest(heap) => keep(heap, Reverse(Entry(place, subject)), size),
        }
    }

    fn into_vec(self) -> Vec<(Place, Subject)> {
        match self {
            Self::Smallest(heap) => heap.into_iter().map(|Entry(place, subject)| (place, subject)).collect(),
            Self::Greatest(heap) => heap.into_iter().map(|Reverse(Entry(place, subject))| (place, subject)).collect(),
        }
    }
}

fn keep<T: Ord>(heap: &mut BinaryHeap<T>, entry: T, size: usize) {
    if heap.len() < size {
        heap.push(entry);
    } else if heap.peek().is_some_and(|last| entry < *last) {
        heap.pop();
        heap.push(entry);
    }
}
