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

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, oneshot};
use vidar_core::control::{Control, ControlRecord};
use vidar_core::ids::{FileId, FragmentNumber, StreamId};
use vidar_core::log::LogEvent;
use vidar_core::sink::SinkError;
use vidar_core::source::ConfigKey;

use crate::backend::DirLock;
use crate::crypto::keychain::{is_full, sink_error};
use crate::crypto::keyring::Keyring;
use crate::epoch;
use crate::files::FileInfo;
use crate::item::{Body, Fragment, Item, Message};
use crate::load::{OpenFragments, note_part, part_locators};
use crate::options::Space;
use crate::punch;
use crate::read;
use crate::segment_file::footer::{RecordEntry, Summary};
use crate::segment_file::header::FileHeader;
use crate::segment_file::record::{Content, RecordKind, RecordShape, TABLE_LEN_MAX};
use crate::segment_file::writer::Writer;
use crate::shared::{Shared, count};

/// Heads that the footer repeats: a file is closed above this, so that they can be kept in memory.
const COPIES_LEN_MAX: usize = 32 << 20;
/// The share of the reserve that a file made from it takes.
const SMALL_SEGMENT_SHARE: u64 = 4;
/// A new epoch is taken when half the numbers of one are given.
const EPOCH_COUNTER_MAX: u32 = 1 << 31;

/// Who waits until the store is closed.
pub(crate) type Closing = oneshot::Sender<Result<(), SinkError>>;

/// An item that was found good, ready to be sealed.
struct Ready {
    what: What,
    reply: oneshot::Sender<Result<(), SinkError>>,
    permit: Option<OwnedSemaphorePermit>,
}

enum What {
    Fragment { fragment: Box<Fragment>, config: Bytes },
    Control { record: Arc<ControlRecord>, plain: Bytes, is_copy: bool },
}

struct Open {
    writer: Writer,
    configs: HashSet<ConfigKey>,
    opened: Duration,
    holds_media: bool,
    /// Made from the reserve: not for media.
    is_small: bool,
}

/// The writer's own state.
pub(crate) struct Committer {
    shared: Arc<Shared>,
    open: Option<Open>,
    /// The file before the open one.
    previous: Option<FileId>,
    next_sequence: u32,
    /// A file that failed, until the header of a newer one says so.
    condemned: Option<(FileId, u64)>,
    fragments: OpenFragments,
    reserve_held: bool,
    lock: Option<DirLock>,
}

impl Committer {
    pub(crate) fn new(shared: Arc<Shared>, fragments: OpenFragments, lock: DirLock) -> Self {
        let mut committer = Self {
            shared,
            open: None,
            previous: None,
            next_sequence: 0,
            condemned: None,
            fragments,
            reserve_held: false,
            lock: Some(lock),
        };
        committer.hold_reserve();
        committer
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
        let done = self.take(first, inbox, &mut items);
        self.commit(items);
        self.rest();
        done
    }

    /// Closes a file that is full or old.
    pub(crate) fn rest(&mut self) {
        // A footer that could not be written was logged; the next start writes it.
        let _ = self.roll(false);
    }

    /// Closes the open file and gives the directory free.
    pub(crate) fn end(mut self, done: Option<Closing>) {
        let closed = self.roll(true);
        self.lock = None;
        if let Some(reply) = done {
            let _ = reply.send(closed);
        }
    }

    /// The next message; meanwhile a file that grew old is closed. None at the end.
    fn wait(&mut self, inbox: &Receiver<Message>) -> Option<Message> {
        loop {
            let Some(open) = self.open.as_ref().filter(|open| open.holds_media) else { return inbox.recv().ok() };
            let age = self.shared.clock.monotonic().saturating_sub(open.opened);
            let left = self.shared.options.segment_age.saturating_sub(age).max(Duration::from_millis(100));
            match inbox.recv_timeout(left) {
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
        if self.open.as_ref().is_some_and(|open| open.is_small) && ready.iter().any(is_media) {
            if self.shared.space() == Space::Ok {
                let _ = self.roll(true);
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
                    self.give_up_reserve();
                }
            } else if attempt > 0 {
                tracing::error!(%error, "cannot write to a new segment file either");
                fail(ready, &sink_error("write a segment file", &error), |_| true);
                return;
            }
        }
        fail(ready, &SinkError::Full, |_| true);
    }

    /// Checks items; those that cannot be stored are answered at once.
    fn prepare(&self, items: Vec<Item>, keys: &Keyring) -> Vec<Ready> {
        let mut parts = HashSet::new();
        let mut ready = Vec::with_capacity(items.len());
        for Item { body, reply, permit } in items {
            match self.check(body, keys, &mut parts) {
                Ok(what) => ready.push(Ready { what, reply, permit }),
                Err(error) => {
                    let _ = reply.send(Err(error));
                }
            }
        }
        ready
    }

    fn check(
        &self,
        body: Body,
        keys: &Keyring,
        parts: &mut HashSet<(StreamId, FragmentNumber, u16)>,
    ) -> Result<What, SinkError> {
        let (control, is_copy) = match body {
            Body::Fragment(fragment) => return self.check_fragment(fragment, keys, parts),
            Body::Control(body) => {
                (ControlRecord { number: self.shared.next_number(self.shared.clock.now()), body }, false)
            }
            Body::Copy(record) => (record, true),
        };
        let plain = control.encode();
        if plain.len() > TABLE_LEN_MAX as usize {
            return Err(SinkError::Failed { detail: "the control record is too long".into() });
        }
        Ok(What::Control { record: Arc::new(control), plain, is_copy })
    }

    fn check_fragment(
        &self,
        fragment: Box<Fragment>,
        keys: &Keyring,
        parts: &mut HashSet<(StreamId, FragmentNumber, u16)>,
    ) -> Result<What, SinkError> {
        let failed = |detail: String| Err(SinkError::Failed { detail });
        let (stream, number) = fragment.name();
        if keys.current(stream).is_none() || self.shared.controls().is_gone(stream, number) {
            return Err(SinkError::NoSuchStream { stream });
        }
        if !fragment.within_bounds() {
            return failed(format!("fragment {number} is longer than a record can be"));
        }
        let known = self.fragments.get(&(stream, number));
        let is_known = |index: &u16| {
            parts.contains(&(stream, number, *index))
                || known.is_some_and(|open| open.parts.iter().any(|part| part.index == *index))
        };
        if let Some(missing) = fragment.parts.iter().find(|index| !is_known(index)) {
            return failed(format!("part {missing} of fragment {number} was not written"));
        }
        let key = fragment.config_key();
        let Some(config) = self.plain_config(key) else {
            return failed(format!("config {} of fragment {number} is not known", key.1));
        };
        if let Some(index) = fragment.part {
            parts.insert((stream, number, index));
        }
        Ok(What::Fragment { fragment, config })
    }

    /// A config that was put before: from memory, or from the newest files.
    fn plain_config(&self, key: ConfigKey) -> Option<Bytes> {
        if let Some(plain) = self.shared.configs.get(&key) {
            return Some(plain);
        }
        let files = [self.open.as_ref().map(|open| open.writer.header.file), self.previous];
        let plain = files.into_iter().flatten().find_map(|file| read::plain_config(&self.shared, file, key).ok())?;
        self.shared.configs.insert(key, plain.clone(), plain.len());
        Some(plain)
    }

    /// Seals, writes and syncs a batch. After an error the file is condemned.
    fn write(&mut self, ready: &[Ready], keys: &Keyring) -> io::Result<Vec<RecordEntry>> {
        self.ensure_open(keys, !ready.iter().any(is_media))?;
        let shared = Arc::clone(&self.shared);
        let open = self.open.as_mut().expect("just made sure");
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
                count(&counters.bytes, open.writer.durable_through() - before);
                count(&counters.batches, 1);
                count(&counters.syncs, 1);
                count(&counters.records, entries.len() as u64);
                open.configs.extend(configs);
                open.holds_media |= ready.iter().any(is_media);
                Ok(entries)
            }
            Err(error) => {
                self.condemn(&error);
                Err(error)
            }
        }
    }

    /// `may_be_small`: on a full disk, what the reserve gave back is enough.
    fn ensure_open(&mut self, keys: &Keyring, may_be_small: bool) -> io::Result<()> {
        if self.open.is_some() {
            return Ok(());
        }
        let shared = &self.shared;
        let header = FileHeader {
            read_only: false,
            file: FileId::new(),
            store: keys.store,
            epoch: shared.epoch().0,
            sequence: self.next_sequence,
            volume: 0,
            created: shared.clock.now(),
            archive: shared.archive.now(),
            replaces: self.condemned,
        };
        let len = shared.options.segment_bytes;
        let (writer, is_small) = match Writer::create(&*shared.io, header, len) {
            Err(error) if is_full(&error) && may_be_small && !self.reserve_held => {
                let small = shared.options.reserve_bytes / SMALL_SEGMENT_SHARE;
                (Writer::create(&*shared.io, header, len.min(small))?, true)
            }
            other => (other?, false),
        };
        count(&shared.counters.syncs, 1);
        shared.files.insert(FileInfo::new(header, false));
        self.next_sequence += 1;
        self.condemned = None;
        let opened = shared.clock.monotonic();
        self.open = Some(Open { writer, configs: HashSet::new(), opened, holds_media: false, is_small });
        Ok(())
    }

    fn condemn(&mut self, error: &io::Error) {
        let Some(open) = self.open.take() else { return };
        let (file, end) = (open.writer.header.file, open.writer.durable_through());
        tracing::error!(%file, %error, "a segment file failed: going on in a new one");
        // Should no new file be made before a crash, the tail must not come back either.
        let _ = open.writer.handle.truncate(end).and_then(|()| open.writer.handle.sync_data());
        self.condemned = Some((file, end));
        self.previous = Some(file);
    }

    /// What was synced becomes visible, then is answered.
    fn publish(&mut self, ready: Vec<Ready>, entries: &[RecordEntry]) {
        let shared = Arc::clone(&self.shared);
        let header = self.open.as_ref().expect("it was just written").writer.header;
        shared.files.update(header.file, |info| {
            entries.iter().for_each(|entry| info.note(entry));
            for Ready { what, .. } in &ready {
                if let What::Control { record, .. } = what {
                    info.note_control(&record.body);
                }
            }
        });
        let mut entries = entries.iter().filter(|entry| entry.shape.kind != RecordKind::Config);
        for Ready { what, .. } in &ready {
            let entry = entries.next().expect("an entry for each record");
            match what {
                What::Fragment { fragment, .. } => self.publish_fragment(&header, entry, fragment),
                What::Control { record, is_copy, .. } => {
                    shared.controls().note(record);
                    if !is_copy {
                        self.forget_gone(&record.body);
                        shared.tell(&LogEvent::Control(Arc::clone(record)));
                    }
                }
            }
        }
        for Ready { reply, permit, .. } in ready {
            drop(permit);
            let _ = reply.send(Ok(()));
        }
    }

    fn publish_fragment(&mut self, header: &FileHeader, entry: &RecordEntry, fragment: &Fragment) {
        let locator = entry.shape.locator(header.file, header.volume, entry.offset);
        if fragment.part.is_some() {
            note_part(&mut self.fragments, entry, locator);
            return;
        }
        let parts = part_locators(self.fragments.remove(&fragment.name()), entry.shape.part, &locator);
        self.shared.controls().note_fragment(&fragment.meta);
        let entry = Arc::new(entry.timeline(header.file, header.volume, self.shared.archive.now(), parts));
        self.shared.tell(&LogEvent::Fragment { entry, facts: Arc::clone(&fragment.facts) });
    }

    /// Open fragments that a floor or deletion took are never closed.
    fn forget_gone(&mut self, body: &Control) {
        if matches!(body, Control::Floor { .. } | Control::StreamDeleted { .. }) {
            let controls = self.shared.controls();
            self.fragments.retain(|(stream, number), _| !controls.is_gone(*stream, *number));
        }
    }

    /// Closes the open file if it is full or old, or `now`.
    fn roll(&mut self, now: bool) -> Result<(), SinkError> {
        let options = &self.shared.options;
        let is_due = |open: &Open| {
            let age = self.shared.clock.monotonic().saturating_sub(open.opened);
            open.writer.durable_through() >= options.segment_bytes
                || open.writer.copies_len() > COPIES_LEN_MAX
                || (open.holds_media && age >= options.segment_age)
        };
        if !self.open.as_ref().is_some_and(|open| now || is_due(open)) {
            return Ok(());
        }
        let Some(Open { writer, .. }) = self.open.take() else { return Ok(()) };
        let (file, keys) = (writer.header.file, self.shared.keys.ring());
        self.previous = Some(file);
        if !self.reserve_held && self.shared.space() == Space::Ok {
            self.hold_reserve();
        }
        if let Err(error) = writer.close(keys.log_key()) {
            // Everything in it is synced: the next start reads it batch by batch and closes it.
            count(&self.shared.counters.failures, 1);
            tracing::error!(%file, %error, "cannot write the footer of a segment file");
            return Err(sink_error("write a footer", &error));
        }
        count(&self.shared.counters.syncs, 1);
        self.shared.files.set_closed(file);
        self.shared.closed().insert(file);
        self.punch_expired(&writer);
        Ok(())
    }

    /// What expired while its file was open.
    fn punch_expired(&self, writer: &Writer) {
        for entry in writer.entries() {
            let meta = &entry.shape.meta;
            let has_media = matches!(entry.shape.kind, RecordKind::Fragment | RecordKind::Part);
            if has_media && self.shared.controls().is_gone(meta.stream, meta.number) {
                let locator = entry.shape.locator(writer.header.file, writer.header.volume, entry.offset);
                if let Err(error) = punch::punch(&*writer.handle, &locator) {
                    tracing::warn!(file = %writer.header.file, %error, "cannot free the blocks of expired media");
                    return;
                }
            }
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

    fn hold_reserve(&mut self) {
        match self.shared.io.reserve(self.shared.options.reserve_bytes) {
            Ok(()) => self.reserve_held = true,
            Err(error) => tracing::warn!(%error, "cannot set blocks aside for a full disk"),
        }
    }

    fn give_up_reserve(&mut self) {
        if std::mem::take(&mut self.reserve_held) {
            tracing::warn!("the disk is full: using the reserve");
            if let Err(error) = self.shared.io.reserve(0) {
                tracing::error!(%error, "cannot give up the reserve");
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
