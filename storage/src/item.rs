//! What waits for the commit thread.

use std::sync::Arc;

use bytes::Bytes;
use tokio::sync::oneshot;
use vidar_core::control::{Control, ControlRecord};
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::record::{FragmentFacts, FragmentMeta, NewFragment};
use vidar_core::sink::SinkError;
use vidar_core::source::ConfigKey;

use crate::inbox::Room;
use crate::segment_file::record::{FACTS_LEN_MAX, MEDIA_LEN_MAX, RecordKind, RecordShape, TABLE_LEN_MAX};

/// Who waits until something is durable, or will not become so.
pub(crate) type Reply = oneshot::Sender<Result<(), SinkError>>;

/// What the writer is asked to do.
pub(crate) enum Message {
    /// To make something durable.
    Append(Item),
    /// To close the file and end. Answered when the directory is free.
    Close(Reply),
}

/// One record on its way.
pub(crate) struct Item {
    pub(crate) body: Body,
    pub(crate) reply: Reply,
    /// Given back when the item is done.
    pub(crate) room: Option<Room>,
}

/// What becomes a record.
pub(crate) enum Body {
    Fragment(Box<Fragment>),
    /// Gets its number when its turn comes: the order of control records is that of their numbers.
    Control(Control),
    /// A copy of a record whose file goes.
    Copy(ControlRecord),
}

/// A fragment or part, encoded.
pub(crate) struct Fragment {
    pub(crate) meta: FragmentMeta,
    pub(crate) part: Option<u16>,
    /// Parts that its table refers to.
    pub(crate) parts: Vec<u16>,
    pub(crate) facts: Arc<FragmentFacts>,
    pub(crate) facts_bytes: Bytes,
    pub(crate) table: Bytes,
    pub(crate) media: Vec<Bytes>,
}

impl Fragment {
    pub(crate) fn new(new: NewFragment) -> Self {
        let parts = if new.part.is_some() {
            Vec::new()
        } else {
            new.table.pieces.iter().filter_map(|piece| piece.part).collect()
        };
        Self {
            meta: new.meta,
            part: new.part,
            parts,
            facts_bytes: new.facts.encode(),
            facts: Arc::new(new.facts),
            table: new.table.encode(),
            media: new.media,
        }
    }

    /// Bytes that it takes, about.
    pub(crate) fn len(&self) -> usize {
        self.facts_bytes.len() + self.table.len() + self.media.iter().map(Bytes::len).sum::<usize>()
    }

    /// Stream and number.
    pub(crate) fn name(&self) -> (StreamId, FragmentNumber) {
        (self.meta.stream, self.meta.number)
    }

    pub(crate) fn config_key(&self) -> ConfigKey {
        (self.meta.stream, self.meta.config)
    }

    fn part_count(&self) -> u16 {
        self.parts.iter().max().map_or(0, |last| last.saturating_add(1))
    }

    /// Its header but for lengths and salt.
    pub(crate) fn shape(&self, class: u8, key_version: u32) -> RecordShape {
        let (kind, part) = match self.part {
            Some(index) => (RecordKind::Part, index),
            None => (RecordKind::Fragment, self.part_count()),
        };
        RecordShape { kind, class, key_version, meta: self.meta, part, facts_len: 0, table_len: 0, media_len: 0 }
    }

    /// It fits a record.
    pub(crate) fn within_bounds(&self) -> bool {
        self.facts_bytes.len() <= FACTS_LEN_MAX as usize
            && self.table.len() <= TABLE_LEN_MAX as usize
            && self.media.iter().map(|bytes| bytes.len() as u64).sum::<u64>() <= MEDIA_LEN_MAX
    }
}
