//! Group commit: one thread owns the open file.
//!
//! It takes everything that waits, seals it into one batch, writes and syncs once, tells the observers, and answers, all in
//! the order of the log.
//!
//! # Invariants
//! 1. Nothing is answered with success before the bytes, and whatever is needed to find and open them, were synced.
//! 2. A file in which a write or sync failed is never written again; the header of the next one voids what stands in it
//!    beyond its last sync, so that what is answered with an error does not come back.
//! 3. A config stands in every file before its first use there.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::oneshot;
use vidar_core::control::{Control, ControlRecord};
use vidar_core::ids::StreamId;
use vidar_core::log::LogEvent;
use vidar_core::sink::SinkError;
use vidar_core::source::ConfigKey;

use crate::backend::DirLock;
use crate::checkpoint::keeper::{self, Keeper, Mark};
use crate::crypto::keychain::{is_full, sink_error};
use crate::crypto::keyring::Keyring;
use crate::epoch;
use crate::inbox::Room;
use crate::item::{Body, Fragment, Item, Message};
use crate::load::{OpenFragments, OpenPart, note_part, part_locators};
use crate::options::Space;
use crate::rolling::Rolling;
use crate::segment_file::footer::{RecordEntry, Summary};
use crate::segment_file::header::FileHeader;
use crate::segment_file::record::{Content, RecordKind, RecordShape};
use crate::segment_file::writer::Writer;
use crate::shared::{Shared, count};

/// A new epoch is taken when half the numbers of one are given.
const EPOCH_COUNTER_MAX: u32 = 1 << 31;

/// Who waits until the store is closed.
pub(crate) type Closing = oneshot::Sender<Result<(), SinkError>>;

/// An item that was found good, ready to be sealed.
pub(crate) struct Ready {
    pub(crate) what: What,
    pub(crate) reply: oneshot::Sender<Result<(), SinkError>>,
    pub(crate) room: Option<Room>,
}

pub(crate) enum What {
    Fragment { fragment: Box<Fragment>, config: Bytes },
    Control { record: Arc<ControlRecord>, plain: Bytes, is_copy: bool },
}

/// The writer's own state.
pub(crate) struct Committer {
    pub(crate) shared: Arc<Shared>,
    pub(crate) rolling: Rolling,
    pub(crate) fragments: OpenFragments,
    keeper: Option<Keeper>,
    lock: DirLock,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, fragments: OpenFragments, lock: DirLock) -> Self {
        let keeper = Keeper::start(&shared);
        Self { rolling: Rolling::new(Arc::clone(&shared)), shared, fragments, keeper, lock }
    }

    /// Until the store is closed, or all its handles are dropped.
    pub(crate) fn run(mut self, inbox: &Receiver<Message>) {
        let mut done = None;
        while done.is_none() {
            let Some(message) = self.wait(inbox) else { break };
            done = self.turn(message, inbox);
        }
        self.end(done);
    }

    /// One batch: `first`, and what waits behind it. Answers whom to tell once the store is closed, if it is to close.
    pub(crate) fn turn(&mut self, first: Message, inbox: &Receiver<Message>) -> Option<Closing> {
        let mut items = Vec::new();
        let begun = self.shared.clock.monotonic();
        let done = self.take(first, inbox, &mut items);
        self.commit(items);
        self.shared.counters.batch_times.note_time(self.shared.clock.monotonic().saturating_sub(begun));
        self.rest();
        done
    }

    /// Lets go of a file that is full or old.
    pub(crate) fn rest(&mut self) {
        self.rolling.look_ahead();
        self.rolling.roll(false, &self.fragments);
    }

    /// Closes the open file and gives the directory free.
    pub(crate) fn end(self, done: Option<Closing>) {
        let archive = self.rolling.archived();
        let closed = self.rolling.finish(&self.fragments);
        self.shared.files.save_list();
        if let Some(keeper) = self.keeper {
            keeper.stop(&self.shared);
        }
        if let (Ok(()), Some(last)) = (&closed, self.shared.files.last()) {
            keeper::make(&self.shared, Mark { last, archive, open: self.fragments });
        }
        drop(self.lock);
        if let Some(reply) = done {
            let _ = reply.send(closed);
        }
    }

    /// The next message; meanwhile a file that grew old is closed. None at the end.
    fn wait(&mut self, inbox: &Receiver<Message>) -> Option<Message> {
        loop {
            let Some(left) = self.rolling.time_left() else { return inbox.recv().ok() };
            match inbox.recv_timeout(left.max(Duration::from_millis(100))) {
                Ok(message) => return Some(message),
                Err(RecvTimeoutError::Disconnected) => return None,
                Err(RecvTimeoutError::Timeout) => self.rest(),
            }
        }
    }

    /// Everything that waits, up to the length of a batch. A deletion ends a batch: what comes after it must see it.
    fn take(&self, first: Message, inbox: &Receiver<Message>, items: &mut Vec<Item>) -> Option<Closing> {
        let mut len = 0;
        let mut message = first;
        loop {
            let item = match message {
                Message::Append(item) => item,
                Message::Close(reply) => return Some(reply),
            };
            len += match &item.body {
                Body::Fragment(fragment) => fragment.len(),
                Body::Control(_) | Body::Copy(_) => 1024,
            };
            let ends = matches!(item.body, Body::Control(Control::StreamDeleted { .. }));
            items.push(item);
            if ends || len >= self.shared.options.batch_bytes {
                return None;
            }
            message = inbox.try_recv().ok()?;
        }
    }

    fn commit(&mut self, items: Vec<Item>) {
        self.renew_epoch();
        let keys = self.shared.keys.ring();
        let mut ready = self.prepare(items, &keys);
        if self.rolling.open.as_ref().is_some_and(|open| open.is_small) && ready.iter().any(is_media) {
            if self.shared.space() == Space::Ok {
                self.rolling.roll(true, &self.fragments);
            } else {
                ready = fail(ready, &SinkError::Full, is_media);
            }
        }
        for attempt in 0..3 {
            if ready.is_empty() {
                return;
            }
            let error = match self.write(&ready, &keys) {
                Ok(entries) => return self.publish(ready, &entries),
                Err(error) => error,
            };
            count(&self.shared.counters.failures, 1);
            if is_full(&error) {
                // Media waits for room; the reserve is there for everything else.
                ready = fail(ready, &SinkError::Full, is_media);
                if !ready.is_empty() {
                    self.rolling.give_up_reserve();
                }
            } else if attempt > 0 {
                tracing::error!(%error, "cannot write to a new segment file either");
                fail(ready, &sink_error("write a segment file", &error), |_| true);
                return;
            }
        }
        fail(ready, &SinkError::Full, |_| true);
    }

    /// Seals, writes and syncs a batch. After an error the file is condemned.
    fn write(&mut self, ready: &[Ready], keys: &Keyring) -> io::Result<Vec<RecordEntry>> {
        let shared = Arc::clone(&self.shared);
        let open = self.rolling.ensure_open(!ready.iter().any(is_media))?;
        open.writer.begin();
        let mut entries = Vec::with_capacity(ready.len());
        let mut configs = Vec::new();
        for Ready { what, .. } in ready {
            match what {
                What::Fragment { fragment, config } => {
                    let key = fragment.config_key();
                    if !open.configs.contains(&key) && !configs.contains(&key) {
                        entries.push(push_config(&shared, &mut open.writer, keys, key, config));
                        configs.push(key);
                    }
                    entries.push(push_fragment(&mut open.writer, keys, fragment));
                }
                What::Control { record, plain, .. } => {
                    entries.push(push_control(&mut open.writer, keys, record, plain));
                }
            }
        }
        let before = open.writer.durable_through();
        match open.writer.commit(shared.archive.now()) {
            Ok(()) => {
                let counters = &shared.counters;
                counters.batch_bytes.note(open.writer.durable_through() - before);
                count(&counters.records, entries.len() as u64);
                open.configs.extend(configs);
                open.holds_media |= ready.iter().any(is_media);
                Ok(entries)
            }
            Err(error) => {
                self.rolling.condemn(&error);
                Err(error)
            }
        }
    }

    /// What was synced becomes visible, then is answered.
    fn publish(&mut self, ready: Vec<Ready>, entries: &[RecordEntry]) {
        let shared = Arc::clone(&self.shared);
        let header = self.rolling.open.as_ref().expect("it was just written").writer.header;
        shared.files.update(header.file, |info| {
            entries.iter().for_each(|entry| info.note(entry));
        });
        let mut entries = entries.iter().filter(|entry| entry.shape.kind != RecordKind::Config);
        for Ready { what, .. } in &ready {
            let entry = entries.next().expect("an entry for each record");
            match what {
                What::Fragment { fragment, .. } => self.publish_fragment(&header, entry, fragment),
                What::Control { record, is_copy, .. } => {
                    shared.controls().note(record);
                    shared.checkpoints.note(record);
                    if !is_copy {
                        self.forget_gone(&record.body);
                        shared.tell(&LogEvent::Control(Arc::clone(record)));
                    }
                }
            }
        }
        for Ready { reply, room, .. } in ready {
            drop(room);
            let _ = reply.send(Ok(()));
        }
    }

    fn publish_fragment(&mut self, header: &FileHeader, entry: &RecordEntry, fragment: &Fragment) {
        let locator = entry.shape.locator(header.file, header.volume, entry.offset);
        self.shared.controls().note_fragment(&fragment.meta);
        if fragment.part.is_some() {
            note_part(&mut self.fragments, entry.shape.meta, OpenPart { index: entry.shape.part, locator });
            return;
        }
        let parts = part_locators(self.fragments.remove(&fragment.name()), entry.shape.part, &locator);
        let entry = Arc::new(entry.clone().timeline(header.file, header.volume, self.shared.archive.now(), parts));
        self.shared.tell(&LogEvent::Fragment { entry, facts: Arc::clone(&fragment.facts) });
    }

    /// Open fragments that a floor or deletion took are never closed.
    fn forget_gone(&mut self, body: &Control) {
        if matches!(body, Control::Floor { .. } | Control::StreamDeleted { .. }) {
            let controls = self.shared.controls();
            self.fragments.retain(|(stream, number), _| !controls.is_gone(*stream, *number));
        }
    }

    fn renew_epoch(&self) {
        let (running, counter) = self.shared.epoch();
        if counter >= EPOCH_COUNTER_MAX {
            match epoch::take(&*self.shared.io, running) {
                Ok(next) => self.shared.set_epoch(next),
                Err(error) => tracing::error!(%error, "cannot take a new epoch"),
            }
        }
    }
}

fn is_media(ready: &Ready) -> bool {
    matches!(ready.what, What::Fragment { .. })
}

/// Answers those that `which` picks with an error; returns the others.
fn fail(ready: Vec<Ready>, error: &SinkError, which: impl Fn(&Ready) -> bool) -> Vec<Ready> {
    let mut others = Vec::new();
    for item in ready {
        if which(&item) {
            let _ = item.reply.send(Err(error.clone()));
        } else {
            others.push(item);
        }
    }
    others
}

fn push_config(shared: &Shared, writer: &mut Writer, keys: &Keyring, key: ConfigKey, plain: &Bytes) -> RecordEntry {
    let (key_version, outer) = keys.current(key.0).expect("checked with the fragment");
    let number = shared.next_number(shared.clock.now());
    let shape = RecordShape { key_version, ..RecordShape::bare(RecordKind::Config, key.0, number, key.1) };
    writer.push(shape, outer, &Content { table: plain, ..Content::default() }, None)
}

fn push_fragment(writer: &mut Writer, keys: &Keyring, fragment: &Fragment) -> RecordEntry {
    let (key_version, outer) = keys.current(fragment.meta.stream).expect("checked with the fragment");
    let summary = if fragment.part.is_none() { Some(Summary::new(&fragment.facts)) } else { None };
    let content = Content { facts: &fragment.facts_bytes, table: &fragment.table, media: &fragment.media };
    writer.push(fragment.shape(key_version), outer, &content, summary)
}

pub(crate) fn push_control(writer: &mut Writer, keys: &Keyring, record: &ControlRecord, plain: &Bytes) -> RecordEntry {
    let stream = record.body.stream().unwrap_or(StreamId::from_bytes([0; 16]));
    let shape = RecordShape::bare(RecordKind::Control, stream, record.number, vidar_core::ids::ConfigId::NONE);
    writer.push(shape, keys.log_key(), &Content { table: plain, ..Content::default() }, None)
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
