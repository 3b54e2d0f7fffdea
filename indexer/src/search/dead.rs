//! Finds documents of what is gone.

use std::sync::Arc;

use tantivy::collector::{Collector, SegmentCollector};
use tantivy::columnar::Column;
use tantivy::{DocId, Score, SegmentOrdinal, SegmentReader};

use super::live::Streams;
use super::schema::Identity;
use super::subject::Subject;

/// Collects the ids of documents below their stream's floor. Of streams that are not known nothing is dead: they may
/// not have been observed yet.
pub(super) struct Dead {
    pub(super) streams: Arc<Streams>,
}

pub(super) struct DeadSegment {
    streams: Arc<Streams>,
    id: Column<u64>,
    stream: Column<u64>,
    expires: Column<u64>,
    kind: Column<u64>,
    name: [Column<u64>; 3],
    dead: Vec<u64>,
}

impl Collector for Dead {
    type Fruit = Vec<u64>;
    type Child = DeadSegment;

    fn for_segment(&self, _: SegmentOrdinal, reader: &SegmentReader) -> tantivy::Result<DeadSegment> {
        let columns = reader.fast_fields();
        let column = |column: Identity| columns.u64(column.name());
        Ok(DeadSegment {
            streams: Arc::clone(&self.streams),
            id: column(Identity::Id)?,
            stream: column(Identity::Stream)?,
            expires: column(Identity::Expires)?,
            kind: column(Identity::KindCode)?,
            name: [column(Identity::High)?, column(Identity::Millis)?, column(Identity::Low)?],
            dead: Vec::new(),
        })
    }

    fn requires_scoring(&self) -> bool {
        false
    }

    fn merge_fruits(&self, fruits: Vec<Vec<u64>>) -> tantivy::Result<Vec<u64>> {
        Ok(fruits.concat())
    }
}

impl DeadSegment {
    fn is_dead(&self, doc: DocId) -> bool {
        let first = |column: &Column<u64>| column.first(doc).unwrap_or(0);
        let Some(existing) = self.streams.get(&first(&self.stream)) else { return false };
        let name = [0, 1, 2].map(|part| first(&self.name[part]));
        existing.lost(first(&self.expires), Subject::of_parts(first(&self.kind), existing.id, name))
    }
}

impl SegmentCollector for DeadSegment {
    type Fruit = Vec<u64>;

    fn collect(&mut self, doc: DocId, _: Score) {
        if self.is_dead(doc) {
            self.dead.extend(self.id.first(doc));
        }
    }

    fn harvest(self) -> Vec<u64> {
        self.dead
    }
}
