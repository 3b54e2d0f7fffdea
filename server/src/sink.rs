//! The store as ingest sees it: it gives fragments their number and their place in the stream.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

use async_trait::async_trait;
use vidar_core::clock::SharedClock;
use vidar_core::control::Control;
use vidar_core::ids::{ConfigId, RunId, StreamId};
use vidar_core::record::{FragmentFlags, NewFragment};
use vidar_core::sink::{Durable, FragmentSink, OpenFragment, SinkError};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_indexer::{Index, RangeQuery, TimeAxis};
use vidar_storage::{Space, Store};

use crate::settings::DiskPolicy;

/// Where the next fragment of a stream goes.
#[derive(Debug, Clone, Copy)]
struct Place {
    ordinal: u64,
    discontinuity: u32,
}

/// A store with the places of its streams.
pub struct StoreSink {
    store: Store,
    index: Arc<Index>,
    clock: SharedClock,
    policy: DiskPolicy,
    /// Guards the next place of each stream that was pushed to since the start.
    places: Mutex<HashMap<StreamId, Place>>,
    coming: Starts,
}

/// Producer times at which fragments begin that may repeat others, while they are appended: how many there are of each.
type Starts = Mutex<HashMap<(StreamId, UnixMs), usize>>;

/// One that is being appended.
struct Coming<'a> {
    starts: &'a Starts,
    start: (StreamId, UnixMs),
}

impl<'a> Coming<'a> {
    /// And whether there are others.
    fn enter(starts: &'a Starts, stream: StreamId, start: UnixMs) -> (Self, bool) {
        let mut all = starts.lock().expect("no panic under this lock");
        let count = all.entry((stream, start)).or_insert(0);
        *count += 1;
        (Self { starts, start: (stream, start) }, *count > 1)
    }
}

impl Drop for Coming<'_> {
    fn drop(&mut self) {
        let mut all = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = all.entry(self.start) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl StoreSink {
    /// Over a store and what was read from it.
    #[must_use]
    pub fn new(store: Store, index: Arc<Index>, clock: SharedClock, policy: DiskPolicy) -> Self {
        Self { store, index, clock, policy, places: Mutex::default(), coming: Starts::default() }
    }

    /// Where the next fragment of a stream goes: what is kept of a stream may all expire, its count goes on.
    #[must_use]
    pub fn next_place(&self, stream: StreamId) -> (u64, u32) {
        let places = self.places.lock().expect("no panic under this lock");
        let (ordinal, discontinuity) = self.index.timeline().next_place(stream);
        places.get(&stream).map_or((ordinal, discontinuity), |place| {
            (place.ordinal.max(ordinal), place.discontinuity.max(discontinuity))
        })
    }

    /// Whether a durable fragment begins at that producer time.
    fn holds_start(&self, stream: StreamId, producer_start: UnixMs) -> bool {
        // From the last start on: those that begin there come before those that go on then.
        let query = RangeQuery {
            stream,
            axis: TimeAxis::Producer,
            start: Some(producer_start),
            end: Some(producer_start.plus_ms(1)),
            after: None,
            limit: 1,
            descending: true,
        };
        let page = self.index.timeline().range(&query);
        page.entries.first().is_some_and(|entry| entry.meta.producer_start == producer_start)
    }
}

#[async_trait]
impl FragmentSink for StoreSink {
    fn accepts(&self) -> Result<(), SinkError> {
        match self.store.space() {
            Space::Ok => Ok(()),
            Space::ApplyPolicy if self.policy == DiskPolicy::DeleteOldest => Ok(()),
            Space::ApplyPolicy | Space::Refuse => Err(SinkError::Full),
        }
    }

    fn open_fragment(
        &self,
        stream: StreamId,
        _run: RunId,
        run_start: bool,
        continues: bool,
    ) -> Result<OpenFragment, SinkError> {
        if self.index.catalog().stream(stream).is_none() {
            return Err(SinkError::NoSuchStream { stream });
        }
        if self.policy == DiskPolicy::Refuse && self.store.space() != Space::Ok {
            return Err(SinkError::Full);
        }
        let mut places = self.places.lock().expect("no panic under this lock");
        let place = places.entry(stream).or_insert_with(|| {
            let (ordinal, discontinuity) = self.index.timeline().next_place(stream);
            Place { ordinal, discontinuity }
        });
        // The very first fragment of a stream is no discontinuity.
        if run_start && !continues && place.ordinal > 0 {
            place.discontinuity = place.discontinuity.saturating_add(1);
        }
        let open = OpenFragment {
            number: self.store.next_number(self.clock.now()),
            ordinal: place.ordinal,
            discontinuity: place.discontinuity,
        };
        place.ordinal += 1;
        Ok(open)
    }

    async fn put_config(&self, stream: StreamId, config: &StreamConfig) -> Result<ConfigId, SinkError> {
        self.store.put_config(stream, config).await
    }

    async fn append(&self, mut fragment: NewFragment) -> Result<Durable, SinkError> {
        if !fragment.meta.flags.contains(FragmentFlags::REPEATS) {
            return self.store.append(fragment).await;
        }
        let (stream, start) = (fragment.meta.stream, fragment.meta.producer_start);
        let (coming, others) = Coming::enter(&self.coming, stream, start);
        if !others && !self.holds_start(stream, start) {
            fragment.meta.flags = fragment.meta.flags.without(FragmentFlags::REPEATS);
        }
        let appended = self.store.append(fragment).await;
        drop(coming);
        appended
    }

    async fn control(&self, control: Control) -> Result<(), SinkError> {
        self.store.control(control).await
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fragment_hears_of_others_of_its_start_while_they_come() {
        let (starts, stream) = (Starts::default(), StreamId::new());
        let (first, others) = Coming::enter(&starts, stream, UnixMs(5));
        assert!(!others);
        let (second, others) = Coming::enter(&starts, stream, UnixMs(5));
        assert!(others);
        assert!(!Coming::enter(&starts, stream, UnixMs(6)).1, "of another start");
        assert!(!Coming::enter(&starts, StreamId::new(), UnixMs(5)).1, "of another stream");
        drop(first);
        assert!(Coming::enter(&starts, stream, UnixMs(5)).1, "the second still comes");
        drop(second);
        assert!(!Coming::enter(&starts, stream, UnixMs(5)).1);
        assert!(starts.lock().unwrap().is_empty());
    }
}
