//! What has to be true of an open store: against the model, and against an index made anew from its log.

use std::collections::HashSet;
use std::sync::Arc;

use bytes::Bytes;
use vidar_core::clock::SystemClock;
use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::StreamId;
use vidar_core::log::LogObserver;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::UnixMs;
use vidar_indexer::{Index, IndexOptions};
use vidar_server::retention::all_entries;
use vidar_storage::{StoreOptions, replay_on};

use crate::boot::{Boot, Shared};
use crate::lock;

impl Boot {
    /// All media of a fragment, piece by piece.
    pub(crate) async fn read(&self, entry: &FragmentEntry) -> Result<Vec<(Option<u16>, Bytes)>, ReadError> {
        let head = self.store.head(entry).await?;
        let mut pieces = Vec::new();
        for piece in &head.table.pieces {
            pieces.push((piece.part, self.store.media(entry, piece.part, 0..piece.media_len).await?));
        }
        Ok(pieces)
    }

    /// Everything that is due is found and reads back; everything that is found was handed in. `reopened`: nothing was
    /// written since the start.
    pub(crate) async fn check(&self, reopened: bool) {
        self.check_streams();
        let mut streams = self.index.timeline().stream_ids();
        // Ids are in the order in which they were made.
        streams.sort_unstable();
        for stream in streams {
            for entry in all_entries(self.index.timeline(), stream) {
                self.check_entry(&entry).await;
            }
        }
        let mut model = lock(&self.shared.model);
        let model = &mut *model;
        let numbers: Vec<_> = model.fragments.iter().filter(|(_, fragment)| fragment.is_due(reopened)).collect();
        let timeline = self.index.timeline();
        let is_lost = |stream, number| timeline.get(stream, number).is_none();
        let lost: Vec<_> =
            numbers.iter().filter(|(number, f)| is_lost(f.stream, **number)).map(|(n, f)| (**n, f.index)).collect();
        for (number, index) in lost {
            model.violations.push(format!("fragment {index} ({number}) was durable and is not found"));
        }
    }

    async fn check_entry(&self, entry: &SharedEntry) {
        let number = entry.meta.number;
        let before = self.shared.disk.disturbed();
        let read = self.read(entry).await;
        let mut model = lock(&self.shared.model);
        let known = model.fragments.get(&number).map(|fragment| (fragment.gone, fragment.rotten));
        let Some((gone, rotten)) = known else {
            return model.violate(format!("fragment {number} was never handed in"));
        };
        if gone && !model.controls_rotten {
            model.violate(format!("fragment {number} is found, and was gone"));
        }
        match read {
            Ok(pieces) => model.check_content(entry, &pieces),
            Err(_) if rotten || gone || self.shared.disk.has_failed_since(before) => {}
            Err(error) => model.violate(format!("fragment {number} does not read: {error}")),
        }
    }

    fn check_streams(&self) {
        let mut model = lock(&self.shared.model);
        if model.controls_rotten {
            return;
        }
        let catalog = self.index.catalog();
        let with_keys: HashSet<_> = self.store.keys().iter().filter_map(|key| key.stream).collect();
        let mut wrong = Vec::new();
        for (id, stream) in &model.streams {
            let found = catalog.stream(*id).is_some();
            if stream.deleted && found {
                wrong.push(format!("stream {} was deleted and is found", stream.index));
            }
            if stream.known && !stream.deleted && !found {
                wrong.push(format!("stream {} was durable and is not found", stream.index));
            }
            if stream.delete_acked && !stream.deleted {
                wrong.push(format!("the deletion of stream {} was answered and is not in the log", stream.index));
            }
            if stream.delete_acked && with_keys.contains(id) {
                wrong.push(format!("the deletion of stream {} was answered, and its keys are there", stream.index));
            }
            let floor = self.index.timeline().floor(*id);
            if found && floor < stream.floor {
                wrong.push(format!("the floor of stream {} sank from {:?} to {floor:?}", stream.index, stream.floor));
            }
        }
        for (number, gap) in &model.gaps {
            let alive =
                model.streams.get(&gap.stream).is_some_and(|s| !s.deleted && s.floor.is_none_or(|f| *number >= f));
            if alive && !catalog.gaps(gap.stream, None).iter().any(|found| **found == *gap) {
                wrong.push(format!("gap {number} was durable and is not found"));
            }
        }
        wrong.into_iter().for_each(|what| model.violate(what));
    }

    /// The index equals one that is made anew from a copy of the log.
    pub(crate) fn check_rebuild(&self, options: &StoreOptions) {
        let copy = self.shared.disk.copy();
        let index = Index::open(IndexOptions::in_memory(SystemClock::shared())).expect("an index in memory opens");
        index.close(); // search is not for simulations: catalog and timeline go on
        let options = Shared::with_kek(options, &copy);
        let replayed = replay_on(&options, Arc::new(copy), &[Arc::clone(&index) as Arc<dyn LogObserver>]);
        let mut wrong = Vec::new();
        if let Err(error) = replayed {
            wrong.push(format!("the log does not replay: {error}"));
        }
        let names = |index: &Index| -> Vec<_> { index.catalog().streams() };
        if names(&self.index) != names(&index) {
            wrong.push("streams differ after a rebuild".into());
        }
        let mut streams = self.index.timeline().stream_ids();
        streams.extend(index.timeline().stream_ids());
        streams.sort_unstable();
        streams.dedup();
        for stream in streams {
            wrong.extend(self.differs(&index, stream).map(|what| format!("{what} after a rebuild")));
        }
        let mut model = lock(&self.shared.model);
        wrong.into_iter().for_each(|what| model.violate(what));
    }

    fn differs(&self, rebuilt: &Index, stream: StreamId) -> Option<String> {
        let (live, new) = (self.index.timeline(), rebuilt.timeline());
        // A rebuild knows only when a batch or its file became durable: somewhat later.
        let comparable = |entries: &[SharedEntry]| -> Vec<_> {
            entries.iter().map(|entry| FragmentEntry { archived: UnixMs(0), ..FragmentEntry::clone(entry) }).collect()
        };
        let (before, after) = (all_entries(live, stream), all_entries(new, stream));
        if comparable(&before) != comparable(&after) {
            return Some(format!("stream {stream}: {} fragments, {}", before.len(), after.len()));
        }
        if before.iter().zip(&after).any(|(before, after)| after.archived < before.archived) {
            return Some(format!("stream {stream}: a fragment grew older"));
        }
        if live.floor(stream) != new.floor(stream) || live.next_place(stream) != new.next_place(stream) {
            let (live, new) =
                ((live.floor(stream), live.next_place(stream)), (new.floor(stream), new.next_place(stream)));
            return Some(format!("stream {stream}: floor and next place {live:?}, {new:?}"));
        }
        // Runs without fragments are forgotten when their file goes, and not before.
        let runs = |index: &Index| -> Vec<_> {
            let runs = index.catalog().runs(stream).into_iter().filter(|run| run.fragment_count > 0);
            runs.map(|run| (run.record.run, run.ended, run.fragment_count)).collect()
        };
        let (before, after) = (runs(&self.index), runs(rebuilt));
        if before != after {
            return Some(format!("stream {stream}: runs {before:?}, {after:?}"));
        }
        let gaps = |index: &Index| index.catalog().gaps(stream, None);
        (gaps(&self.index) != gaps(rebuilt)).then(|| format!("stream {stream}: gaps differ"))
    }
}
