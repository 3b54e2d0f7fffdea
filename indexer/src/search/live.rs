//! Which documents speak for something that is still there.

use std::collections::HashMap;
use std::sync::Arc;

use tantivy::columnar::Column;
use tantivy::{DocId, SegmentReader};
use vidar_core::ids::{FragmentNumber, StreamId};

use super::schema::Identity;
use super::subject::Subject;

/// Streams that exist, by the low half of their id.
pub(super) type Streams = HashMap<u64, Existing>;

/// A stream that exists.
#[derive(Debug, Clone, Copy)]
pub(super) struct Existing {
    pub(super) id: StreamId,
    /// What is below it is gone.
    pub(super) floor: FragmentNumber,
}

impl Existing {
    /// Whether a subject is gone. By its sequence, and of the number that stands at the floor by the whole.
    pub(super) fn lost(&self, expires: u64, subject: Option<Subject>) -> bool {
        expires < self.floor.sequence()
            || match subject {
                Some(Subject::Fragment(_, number) | Subject::Gap(_, number)) => number < self.floor,
                Some(Subject::Run(..)) => false,
                None => true,
            }
    }
}

/// Documents outside the partitions: id to the chunk that holds the newest of it.
pub(super) type Tail = HashMap<u64, u32>;

/// What one index is searched within.
#[derive(Clone)]
pub(super) struct Scope {
    pub(super) streams: Arc<Streams>,
    pub(super) tail: Arc<Tail>,
    /// Which chunk is searched; none: a partition.
    pub(super) chunk: Option<u32>,
}

/// Tells the live documents of one segment.
pub(super) struct Live {
    scope: Scope,
    id: Option<Column<u64>>,
    stream: Option<Column<u64>>,
    kind: Option<Column<u64>>,
    expires: Option<Column<u64>>,
    name: [Option<Column<u64>>; 3],
}

impl Live {
    pub(super) fn open(scope: Scope, reader: &SegmentReader) -> tantivy::Result<Self> {
        let column = |column: Identity| reader.fast_fields().column_opt::<u64>(column.name());
        Ok(Self {
            id: if scope.tail.is_empty() { None } else { column(Identity::Id)? },
            stream: column(Identity::Stream)?,
            kind: column(Identity::KindCode)?,
            expires: column(Identity::Expires)?,
            name: [column(Identity::High)?, column(Identity::Millis)?, column(Identity::Low)?],
            scope,
        })
    }

    /// Stream key, kind, name and all of it. None: another document speaks for its subject, or it is gone.
    pub(super) fn subject(&self, doc: DocId) -> Option<(u64, u64, [u64; 3], Subject)> {
        let (stream, existing) = self.stream(doc)?;
        let (kind, name) = (self.kind(doc), self.name(doc));
        let subject = Subject::of_parts(kind, existing.id, name);
        if existing.lost(first(&self.expires, doc), subject) {
            return None;
        }
        subject.map(|subject| (stream, kind, name, subject))
    }

    /// Kind code.
    pub(super) fn kind(&self, doc: DocId) -> u64 {
        first(&self.kind, doc)
    }

    /// Stream key and kind. None: as for `subject`. Reads fewer columns.
    pub(super) fn stream_and_kind(&self, doc: DocId) -> Option<(u64, u64)> {
        let (stream, existing) = self.stream(doc)?;
        if first(&self.expires, doc) > existing.floor.sequence() {
            return Some((stream, self.kind(doc)));
        }
        self.subject(doc).map(|(stream, kind, _, _)| (stream, kind))
    }

    fn stream(&self, doc: DocId) -> Option<(u64, Existing)> {
        let Scope { streams, tail, chunk } = &self.scope;
        if !tail.is_empty() && tail.get(&first(&self.id, doc)) != chunk.as_ref() {
            return None;
        }
        let stream = first(&self.stream, doc);
        streams.get(&stream).map(|existing| (stream, *existing))
    }

    fn name(&self, doc: DocId) -> [u64; 3] {
        [0, 1, 2].map(|part| first(&self.name[part], doc))
    }
}

fn first(column: &Option<Column<u64>>, doc: DocId) -> u64 {
    column.as_ref().and_then(|column| column.first(doc)).unwrap_or(0)
}
