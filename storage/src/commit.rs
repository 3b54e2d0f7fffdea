//! Group commit: one thread owns the open files.
//!
//! It takes everything that waits, seals it into one batch for each retention class, writes and syncs those, tells the
//! observers, and answers, all in the order in which it was asked.
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
use crate::class::CLASS_COUNT;
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
/// How often a record is written: to its file, to the one after it, and on a full disk to one of another class.
const ATTEMPTS: u32 = 3;

/// Who waits until the store is closed.
pub(crate) type Closing = oneshot::Sender<Result<(), SinkError>>;

/// An item that was found good, ready to be sealed.
pub(crate) struct Ready {
    /// In the order of asking.
    pub(crate) position: usize,
    /// Of retention: says which file it goes to.
    pub(crate) class: u8,
    pub(crate) what: What,
    pub(crate) reply: oneshot::Sender<Result<(), SinkError>>,
    pub(crate) room: Option<Room>,
}

pub(crate) enum What {
    Fragment { fragment: Box<Fragment>, config: Bytes },
    Control { record: Arc<ControlRecord>, plain: Bytes, is_copy: bool },
}

/// What goes to one file.
struct Group {
    class: u8,
    ready: Vec<Ready>,
}

/// A record that was synced.
struct DurableRecord {
    ready: Ready,
    /// Of its file.
    header: FileHeader,
    entry: RecordEntry,
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
        Self { rolling: Rolling::new(Arc::clone(&shared), &fragments), shared, fragments, keeper, lock }
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

    /// Lets go of files that are full or old.
    pub(crate) fn rest(&mut self) {
        self.rolling.look_ahead();
        self.rolling.roll_due(&self.fragments);
    }

    /// Closes the open files and gives the directory free.
    pub(crate) fn end(self, done: Option<Closing>) {
        let archive = self.rolling.archived();
        let closed = self.rolling.finish(&self.fragments);
        self.shared.files.save_list();
        if let Some(keeper) = self.keeper {
            keeper.stop(&self.shared);
        }
        if let (Ok(()), Some(last)) = (&closed, self.shared.files.last()) {
            keeper::make(&self.shared, Mark { last, left_out: Vec::new(), archive, open: self.fragments });
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
        let prepared = self.prepare(items, &keys);
        let mut ready = self.place(prepared);
        let mut durable = Vec::new();
        for attempt in 0..ATTEMPTS {
            let failed = self.write_all(by_class(ready), &keys, &mut durable);
            ready = failed.into_iter().flat_map(|(group, error)| self.after_failure(group, &error, attempt)).collect();
        }
        fail(ready, &SinkError::Full, |_| true);
        durable.sort_unstable_by_key(|durable| durable.ready.position);
        self.publish(durable);
    }

    /// Decides which file each goes to. A control record does not begin one, as long as any is written to: on a full disk
    /// none can be begun.
    fn place(&mut self, mut ready: Vec<Ready>) -> Vec<Ready> {
        for class in 0..CLASS_COUNT as u8 {
            let is_media_here = |ready: &Ready| ready.class == class && is_media(ready);
            if self.rolling.open(class).is_some_and(|open| open.is_small) && ready.iter().any(is_media_here) {
                if self.shared.space() == Space::Ok {
                    self.rolling.roll(class, &self.fragments);
                } else {
                    ready = fail(ready, &SinkError::Full, is_media_here);
                }
            }
        }
        let open: [bool; CLASS_COUNT] = std::array::from_fn(|class| self.rolling.slots[class].open.is_some());
        let mut used = open;
        ready.iter().filter(|ready| is_media(ready)).for_each(|ready| used[usize::from(ready.class)] = true);
        for control in ready.iter_mut().filter(|ready| !is_media(ready)) {
            if !open[usize::from(control.class)] {
                let longest = |classes: &[bool; CLASS_COUNT]| classes.iter().rposition(|class| *class);
                control.class = longest(&open).or(longest(&used)).map_or(control.class, |class| class as u8);
                used[usize::from(control.class)] = true;
            }
        }
        let copies: Vec<Ready> = ready.iter().flat_map(|ready| copies_of_deletion(ready, &used)).collect();
        ready.extend(copies);
        ready
    }

    /// Writes all groups, then syncs them: what the first sync brings to the disk the others do not wait for. Answers those
    /// that failed; their files are condemned.
    fn write_all(
        &mut self,
        groups: Vec<Group>,
        keys: &Keyring,
        durable: &mut Vec<DurableRecord>,
    ) -> Vec<(Group, io::Error)> {
        let (mut written, mut failed) = (Vec::with_capacity(groups.len()), Vec::new());
        for group in groups {
            match self.write(&group, keys) {
                Ok(entries) => written.push((group, entries)),
                Err(error) => failed.push((group, error)),
            }
        }
        for (group, entries) in written {
            match self.sync(group.class, &entries) {
                Ok(header) => {
                    let records = entries.into_iter().filter(|entry| entry.shape.kind != RecordKind::Config);
                    let ready = group.ready.into_iter().zip(records);
                    durable.extend(ready.map(|(ready, entry)| DurableRecord { ready, header, entry }));
                }
                Err(error) => failed.push((group, error)),
            }
        }
        failed
    }

    /// What of a group is to be tried again.
    fn after_failure(&mut self, group: Group, error: &io::Error, attempt: u32) -> Vec<Ready> {
        count(&self.shared.counters.failures, 1);
        if is_full(error) {
            // Media waits for room; the reserve is there for everything else, …
            let mut ready = fail(group.ready, &SinkError::Full, is_media);
            if !ready.is_empty() {
                self.rolling.give_up_reserve();
            }
            // … and, where no file can be made from it, the room in files of other classes.
            if attempt > 0
                && let Some(class) = self.rolling.emptiest()
            {
                ready.iter_mut().for_each(|ready| ready.class = class);
            }
            ready
        } else if attempt > 0 {
            tracing::error!(%error, "cannot write to a new segment file either");
            fail(group.ready, &sink_error("write a segment file", error), |_| true)
        } else {
            group.ready
        }
    }

    /// Seals and writes a batch. After an error the file is condemned.
    fn write(&mut self, group: &Group, keys: &Keyring) -> io::Result<Vec<RecordEntry>> {
        let shared = Arc::clone(&self.shared);
        let (class, has_media) = (group.class, group.ready.iter().any(is_media));
        self.rolling.ensure_open(class, !has_media)?;
        let mut buffer = self.rolling.take_buffer();
        let open = self.rolling.open(class).expect("it was just opened");
        open.writer.swap_buffer(&mut buffer);
        open.writer.begin();
        let mut entries = Vec::with_capacity(group.ready.len());
        for Ready { what, .. } in &group.ready {
            match what {
                What::Fragment { fragment, config } => {
                    let key = fragment.config_key();
                    if open.configs.insert(key) {
                        entries.push(push_config(&shared, &mut open.writer, keys, key, config));
                    }
                    entries.push(push_fragment(&mut open.writer, keys, class, fragment));
                }
                What::Control { record, plain, .. } => {
                    entries.push(push_control(&mut open.writer, keys, record, plain));
                }
            }
        }
        open.holds_media |= has_media;
        let written = open.writer.write(shared.archive.now());
        open.writer.swap_buffer(&mut buffer);
        self.rolling.keep_buffer(buffer);
        written.inspect_err(|error| self.rolling.condemn(class, error))?;
        Ok(entries)
    }

    /// Makes durable what was written to the file of a class. After an error that is condemned.
    fn sync(&mut self, class: u8, entries: &[RecordEntry]) -> io::Result<FileHeader> {
        let open = self.rolling.open(class).expect("it was just written to");
        let (header, before) = (open.writer.header, open.writer.durable_through());
        let synced = open.writer.sync();
        let len = open.writer.durable_through() - before;
        synced.inspect_err(|error| self.rolling.condemn(class, error))?;
        let counters = &self.shared.counters;
        counters.batch_bytes.note(len);
        count(&counters.records, entries.len() as u64);
        self.shared.files.update(header.file, |info| {
            entries.iter().for_each(|entry| info.note(entry));
        });
        Ok(header)
    }

    /// What was synced becomes visible, then is answered.
    fn publish(&mut self, durable: Vec<DurableRecord>) {
        let shared = Arc::clone(&self.shared);
        for DurableRecord { ready, header, entry } in &durable {
            match &ready.what {
                What::Fragment { fragment, .. } => self.publish_fragment(header, entry, fragment),
                What::Control { record, is_copy, .. } => {
                    // A deletion is in force with the first of its copies, though the file that it was meant for failed.
                    let is_news = match &record.body {
                        Control::StreamDeleted { stream, .. } => !shared.controls().is_deleted(*stream),
                        _ => !is_copy,
                    };
                    shared.controls().note(record);
                    shared.checkpoints.note(record);
                    if is_news {
                        self.forget_gone(&record.body);
                        shared.tell(&LogEvent::Control(Arc::clone(record)));
                    }
                }
            }
        }
        for DurableRecord { ready: Ready { reply, room, .. }, .. } in durable {
            drop(room);
            let _ = reply.send(Ok(()));
        }
    }

    fn publish_fragment(&mut self, header: &FileHeader, entry: &RecordEntry, fragment: &Fragment) {
        let locator = entry.shape.locator(header.file, header.volume, entry.offset);
        self.shared.controls().note_fragment(&fragment.meta);
        if fragment.part.is_some() {
            let (class, index) = (entry.shape.class, entry.shape.part);
            note_part(&mut self.fragments, entry.shape.meta, class, OpenPart { index, locator });
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

/// What goes to the same file.
fn by_class(mut ready: Vec<Ready>) -> Vec<Group> {
    let mut of_class = |class: u8| ready.extract_if(.., |ready| ready.class == class).collect();
    let groups = (0..CLASS_COUNT as u8).map(|class| Group { class, ready: of_class(class) });
    groups.filter(|group| !group.ready.is_empty()).collect()
}

fn is_media(ready: &Ready) -> bool {
    matches!(ready.what, What::Fragment { .. })
}

/// A deletion goes to every file that is written to: any may hold a record of the stream, and when it is needed no more is
/// told by what else the files hold (see [`Controls::is_needed`](crate::controls::Controls::is_needed)).
fn copies_of_deletion(ready: &Ready, used: &[bool; CLASS_COUNT]) -> Vec<Ready> {
    let What::Control { record, plain, is_copy: false } = &ready.what else { return Vec::new() };
    if !matches!(record.body, Control::StreamDeleted { .. }) {
        return Vec::new();
    }
    let others = (0..CLASS_COUNT as u8).filter(|class| used[usize::from(*class)] && *class != ready.class);
    let copy = |class| Ready {
        position: ready.position,
        class,
        what: What::Control { record: Arc::clone(record), plain: plain.clone(), is_copy: true },
        reply: oneshot::channel().0,
        room: None,
    };
    others.map(copy).collect()
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

fn push_fragment(writer: &mut Writer, keys: &Keyring, class: u8, fragment: &Fragment) -> RecordEntry {
    let (key_version, outer) = keys.current(fragment.meta.stream).expect("checked with the fragment");
    let summary = if fragment.part.is_none() { Some(Summary::new(&fragment.facts)) } else { None };
    let content = Content { facts: &fragment.facts_bytes, table: &fragment.table, media: &fragment.media };
    writer.push(fragment.shape(class, key_version), outer, &content, summary)
}

pub(crate) fn push_control(writer: &mut Writer, keys: &Keyring, record: &ControlRecord, plain: &Bytes) -> RecordEntry {
    let stream = record.body.stream().unwrap_or(StreamId::from_bytes([0; 16]));
    let shape = RecordShape::bare(RecordKind::Control, stream, record.number, vidar_core::ids::ConfigId::NONE);
    writer.push(shape, keys.log_key(), &Content { table: plain, ..Content::default() }, None)
}

#[cfg(test)]
#[path = "commit_tests.rs"]
mod tests;
