//! The files that take batches, one for each [retention class](crate::class), and how one follows another without holding up
//! the log.
//!
//! What a full file still needs (footer, syncs, holes) and the making of the next one (a *spare*: header and name synced,
//! no batch) are done on a thread of their own. A spare is asked for when an open file is half full; whichever class next
//! needs a file takes it.
//!
//! # Invariants
//! 1. Files are begun in the order of the sequence in their headers.
//! 2. A file that follows a condemned one says so in its header: a spare, whose header is older, is then thrown away.
//! 3. A crash finds older files without footer, and at most one spare: the next start closes those and removes this.
//! 4. Parts of a fragment and the record that closes it are of one class.

use std::collections::HashSet;
use std::io;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::time::Duration;

use vidar_core::ids::FileId;
use vidar_core::sink::SinkError;
use vidar_core::source::ConfigKey;
use vidar_core::time::UnixMs;

use crate::backend::blocks::Blocks;
use crate::checkpoint::Position;
use crate::checkpoint::keeper::Mark;
use crate::class::CLASS_COUNT;
use crate::crypto::keychain::is_full;
use crate::footers::{Helper, Job, Pending, Worker};
use crate::load::OpenFragments;
use crate::options::Space;
use crate::segment_file::header::FileHeader;
use crate::segment_file::writer::Writer;
use crate::shared::Shared;

/// Heads that the footers of all open files repeat: above this the file with most of them is closed, so that they can be
/// kept in memory.
const COPIES_LEN_MAX: usize = 32 << 20;
/// The share of the reserve that a file made from it takes.
const SMALL_SEGMENT_SHARE: u64 = 4;

/// A file that takes batches.
pub(crate) struct Open {
    pub(crate) writer: Writer,
    /// Configs that stand in it.
    pub(crate) configs: HashSet<ConfigKey>,
    pub(crate) holds_media: bool,
    /// Made from the reserve: not for media.
    pub(crate) is_small: bool,
    opened: Duration,
}

/// The files of a class.
#[derive(Default)]
pub(crate) struct Slot {
    pub(crate) open: Option<Open>,
    /// The file before the open one.
    pub(crate) previous: Option<FileId>,
    /// Fragments that are open where that one ends.
    at_end: OpenFragments,
}

/// A file that failed, until the header of a newer one says so.
struct Condemned {
    class: u8,
    file: FileId,
    end: u64,
}

/// The open files and their neighbours.
pub(crate) struct Rolling {
    shared: Arc<Shared>,
    /// By class.
    pub(crate) slots: [Slot; CLASS_COUNT],
    /// What the log says of the archive clock up to the files before the open ones.
    archived: UnixMs,
    next_sequence: u32,
    /// The greatest place of a file that was begun.
    begun: Position,
    condemned: Vec<Condemned>,
    /// Of batches, between them: memory that was touched is worth keeping.
    buffer: Blocks,
    reserve_held: bool,
    spare_asked: bool,
    spares: Receiver<io::Result<Writer>>,
    helper: Helper,
}

impl Rolling {
    /// `fragments`: those that are open.
    pub(crate) fn new(shared: Arc<Shared>, fragments: &OpenFragments) -> Self {
        let (made, spares) = mpsc::channel();
        let archived = shared.archive.now();
        let worker = Worker { shared: Arc::clone(&shared), made, closed: Ok(()) };
        let slot = |class| Slot { at_end: of_class(fragments, class), ..Slot::default() };
        let mut rolling = Self {
            shared,
            slots: std::array::from_fn(|index| slot(index as u8)),
            archived,
            next_sequence: 0,
            begun: (0, 0),
            condemned: Vec::new(),
            buffer: Blocks::default(),
            reserve_held: false,
            spare_asked: false,
            spares,
            helper: Helper::start(worker),
        };
        rolling.hold_reserve();
        rolling
    }

    pub(crate) fn slot(&mut self, class: u8) -> &mut Slot {
        &mut self.slots[usize::from(class)]
    }

    /// The open file of a class.
    pub(crate) fn open(&mut self, class: u8) -> Option<&mut Open> {
        self.slot(class).open.as_mut()
    }

    fn all_open(&self) -> impl Iterator<Item = &Open> {
        self.slots.iter().filter_map(|slot| slot.open.as_ref())
    }

    /// The class whose open file has most room, one that was made from the reserve last.
    pub(crate) fn emptiest(&self) -> Option<u8> {
        let open = self.slots.iter().zip(0..).filter_map(|(slot, class)| Some((slot.open.as_ref()?, class)));
        let emptiest = open.min_by_key(|(open, _)| (open.is_small, open.writer.durable_through()));
        emptiest.map(|(_, class)| class)
    }

    /// The open files, then those before them.
    pub(crate) fn newest(&self) -> Vec<FileId> {
        let open = self.all_open().map(|open| open.writer.header.file);
        open.chain(self.slots.iter().filter_map(|slot| slot.previous)).collect()
    }

    /// The open file of a class; a new one if there is none. `may_be_small`: on a full disk, what the reserve gave back is
    /// enough.
    pub(crate) fn ensure_open(&mut self, class: u8, may_be_small: bool) -> io::Result<&mut Open> {
        if self.slot(class).open.is_none() {
            let (writer, is_small) = match self.spare() {
                Some(spare) => (spare, false),
                None => self.create(class, may_be_small)?,
            };
            self.begun = (writer.header.epoch, writer.header.sequence);
            self.shared.files.begin(writer.header);
            self.helper.list(&self.shared);
            let opened = self.shared.clock.monotonic();
            let open = Open { writer, configs: HashSet::new(), holds_media: false, is_small, opened };
            self.slot(class).open = Some(open);
        }
        Ok(self.open(class).expect("just made sure"))
    }

    /// Memory for a batch. It is given back with `keep_buffer`.
    pub(crate) fn take_buffer(&mut self) -> Blocks {
        std::mem::take(&mut self.buffer)
    }

    pub(crate) fn keep_buffer(&mut self, buffer: Blocks) {
        self.buffer = buffer;
    }

    fn next_header(&mut self, replaces: Option<(FileId, u64)>) -> FileHeader {
        let shared = &self.shared;
        let sequence = self.next_sequence;
        self.next_sequence += 1;
        FileHeader {
            read_only: false,
            file: FileId::new(),
            store: shared.keys.ring().store,
            epoch: shared.epoch().0,
            sequence,
            volume: 0,
            created: shared.clock.now(),
            archive: shared.archive.now(),
            replaces,
        }
    }

    /// What failed in its own class comes first: it is written again now. The rest should not wait for its class.
    fn create(&mut self, class: u8, may_be_small: bool) -> io::Result<(Writer, bool)> {
        let own = self.condemned.iter().position(|condemned| condemned.class == class).unwrap_or(0);
        let replaces = self.condemned.get(own).map(|condemned| (condemned.file, condemned.end));
        let header = self.next_header(replaces);
        let shared = &self.shared;
        let len = shared.options.segment_bytes;
        let made = match Writer::create(&*shared.io, header, len) {
            Err(error) if is_full(&error) && may_be_small && !self.reserve_held => {
                let small = shared.options.reserve_bytes / SMALL_SEGMENT_SHARE;
                (Writer::create(&*shared.io, header, len.min(small))?, true)
            }
            other => (other?, false),
        };
        if replaces.is_some() {
            self.condemned.remove(own);
        }
        Ok(made)
    }

    /// The spare, if there is one that may be used.
    fn spare(&mut self) -> Option<Writer> {
        let spare = self.take_spare()?;
        if self.condemned.is_empty() {
            return Some(spare);
        }
        self.helper.send(Job::Discard(spare));
        None
    }

    fn take_spare(&mut self) -> Option<Writer> {
        if !std::mem::take(&mut self.spare_asked) {
            return None;
        }
        match self.spares.recv().ok()? {
            Ok(spare) => Some(spare),
            Err(error) => {
                tracing::warn!(%error, "cannot make a segment file ahead");
                None
            }
        }
    }

    /// Has the next file made if an open one will soon be full. On a disk that fills up the room is left to others.
    pub(crate) fn look_ahead(&mut self) {
        let half = self.shared.options.segment_bytes / 2;
        let is_near = |open: &Open| !open.is_small && open.writer.durable_through() >= half;
        if !self.spare_asked && self.all_open().any(is_near) && self.shared.space() == Space::Ok {
            self.spare_asked = true;
            let header = self.next_header(None);
            self.helper.send(Job::Prepare(header));
        }
    }

    /// The open file of a class is never written again.
    pub(crate) fn condemn(&mut self, class: u8, error: &io::Error) {
        let slot = self.slot(class);
        let Some(open) = slot.open.take() else { return };
        let (file, end) = (open.writer.header.file, open.writer.durable_through());
        slot.previous = Some(file);
        tracing::error!(%file, %error, "a segment file failed: going on in a new one");
        // Should no new file be made before a crash, the tail must not come back either.
        let _ = open.writer.handle.truncate(end).and_then(|()| open.writer.handle.sync_data());
        self.condemned.push(Condemned { class, file, end });
        self.archived = self.archived.max(open.writer.archive);
    }

    /// Until an open file is old; none while nothing in them can become old.
    pub(crate) fn time_left(&self) -> Option<Duration> {
        Some(self.shared.options.segment_age.saturating_sub(self.oldest()?.0))
    }

    /// Age and class of the oldest open file that holds media.
    fn oldest(&self) -> Option<(Duration, u8)> {
        let now = self.shared.clock.monotonic();
        let open = self.slots.iter().zip(0..).filter_map(|(slot, class)| Some((slot.open.as_ref()?, class)));
        let with_media = open.filter(|(open, _)| open.holds_media);
        with_media.map(|(open, class)| (now.saturating_sub(open.opened), class)).max()
    }

    /// Lets go of the open files that are full, and of the oldest if it is old: the others a little later, so that files that
    /// were begun together do not all wait for their footers at once. `fragments`: those that are open.
    pub(crate) fn roll_due(&mut self, fragments: &OpenFragments) {
        for class in 0..CLASS_COUNT as u8 {
            if self.slots[usize::from(class)].open.as_ref().is_some_and(|open| self.is_filled(open)) {
                self.roll(class, fragments);
            }
        }
        if let Some((age, class)) = self.oldest()
            && age >= self.shared.options.segment_age
        {
            self.roll(class, fragments);
        }
    }

    fn is_filled(&self, open: &Open) -> bool {
        let copies = || self.all_open().map(|open| open.writer.copies_len());
        open.writer.durable_through() >= self.shared.options.segment_bytes
            || (copies().sum::<usize>() > COPIES_LEN_MAX && copies().max() == Some(open.writer.copies_len()))
    }

    /// Lets go of the open file of a class.
    pub(crate) fn roll(&mut self, class: u8, fragments: &OpenFragments) {
        let slot = self.slot(class);
        let Some(Open { writer, .. }) = slot.open.take() else { return };
        slot.previous = Some(writer.header.file);
        slot.at_end = of_class(fragments, class);
        self.archived = self.archived.max(writer.archive);
        if !self.reserve_held && self.shared.space() == Space::Ok {
            self.hold_reserve();
        }
        let shared = &self.shared;
        let mark = shared.checkpoints.is_due(shared.clock.monotonic()).then(|| self.mark());
        let pending = Pending::new(shared);
        self.helper.send(Job::Close(Box::new(writer), mark, pending));
    }

    /// All files but the open ones.
    fn mark(&self) -> Mark {
        let at_end = self.slots.iter().flat_map(|slot| &slot.at_end);
        Mark {
            last: self.begun,
            left_out: self.all_open().map(|open| open.writer.header.file).collect(),
            archive: self.archived,
            open: at_end.map(|(name, parts)| (*name, parts.clone())).collect(),
        }
    }

    /// What the log says of the archive clock: its time at the last batch. The clock itself may be far ahead of that, and a
    /// start that goes on from a checkpoint has to begin where one begins that reads the log.
    pub(crate) fn archived(&self) -> UnixMs {
        self.all_open().map(|open| open.writer.archive).fold(self.archived, UnixMs::max)
    }

    /// Closes the open files and waits for all footers. Answers how the last one went.
    pub(crate) fn finish(mut self, fragments: &OpenFragments) -> Result<(), SinkError> {
        (0..CLASS_COUNT as u8).for_each(|class| self.roll(class, fragments));
        if let Some(spare) = self.take_spare() {
            self.helper.send(Job::Discard(spare));
        }
        self.helper.finish()
    }

    fn hold_reserve(&mut self) {
        match self.shared.io.reserve(self.shared.options.reserve_bytes) {
            Ok(()) => self.reserve_held = true,
            Err(error) => tracing::warn!(%error, "cannot set blocks aside for a full disk"),
        }
    }

    /// Blocks that were set aside are there for what is no media.
    pub(crate) fn give_up_reserve(&mut self) {
        if std::mem::take(&mut self.reserve_held) {
            tracing::warn!("the disk is full: using the reserve");
            if let Err(error) = self.shared.io.reserve(0) {
                tracing::error!(%error, "cannot give up the reserve");
            }
        }
    }
}

/// Open fragments whose parts stand in files of this class.
fn of_class(fragments: &OpenFragments, class: u8) -> OpenFragments {
    let of_class = fragments.iter().filter(|(_, parts)| parts.class == class);
    of_class.map(|(name, parts)| (*name, parts.clone())).collect()
}

#[cfg(test)]
#[path = "rolling_tests.rs"]
mod tests;
