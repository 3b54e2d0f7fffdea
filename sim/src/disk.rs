//! A disk that a seed drives: it loses what was not synced, tears sectors, fails its n-th call, and rots.
//!
//! Each file holds what was written, and for each sector that was written since the last sync what stood there before. A
//! power cut puts some of that back. After a failed sync the written bytes are still read, but no later sync brings them to
//! the disk unless they are written again, as Linux does it.
//!
//! # What always holds
//! 1. Every call is in the trace: the same seed makes the same calls.
//! 2. After a power cut all calls of that boot fail.

use std::collections::BTreeMap;
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};

use uuid::Uuid;
use vidar_core::ids::StreamId;
use vidar_core::log::LogEvent;
use vidar_storage::backend::{DirLock, DiskSpace, SegmentHandle, SegmentIo, WriteMode};

use crate::contents::{Contents, Rule, WORD};
use crate::kek::Memory;
use crate::lock;
use crate::random::Random;
use crate::trace::Trace;
use crate::witness::{Rot, Witness};

/// A call that will fail.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fault {
    /// The number of the call, of any kind.
    pub(crate) at: u64,
    /// It and so many after it fail; 0: it alone.
    pub(crate) more: u64,
    /// With this.
    pub(crate) error: io::ErrorKind,
}

/// A data directory on a simulated disk. Clones share it.
#[derive(Clone)]
pub(crate) struct SimDisk {
    state: Arc<Mutex<State>>,
    trace: Trace,
    witness: Witness,
}

struct State {
    random: Random,
    contents: Vec<Contents>,
    /// Index into `contents`, by name: as it is, and as a power cut leaves it.
    names: BTreeMap<String, usize>,
    synced_names: BTreeMap<String, usize>,
    small: BTreeMap<String, Vec<u8>>,
    /// What the checkpoint was before it was last replaced.
    older_checkpoint: Option<Vec<u8>>,
    /// What indexes saved: the last one, and the one before it.
    saves: Vec<(Uuid, Vec<LogEvent>)>,
    /// Of the key provider.
    kek: Memory,
    reserved: u64,
    capacity: Option<u64>,
    /// Raised by each end of a boot: older handles and locks are void.
    boot: u64,
    locked: bool,
    calls: u64,
    cut_at: Option<u64>,
    dead: bool,
    faults: Vec<Fault>,
    /// So many of the next reads have a flipped bit.
    flips: u32,
    /// Calls that failed as planned, and reads that flipped a bit.
    disturbed: u64,
}

/// How a call ends early.
enum Trouble {
    /// The power failed during this call, or before it.
    Dead { just_now: bool },
    /// The call fails.
    Fails(io::ErrorKind),
}

impl From<Trouble> for io::Error {
    fn from(trouble: Trouble) -> Self {
        match trouble {
            Trouble::Dead { .. } => Self::other("the power failed"),
            Trouble::Fails(kind) => kind.into(),
        }
    }
}

impl State {
    fn enter(&mut self, boot: u64) -> Result<(), Trouble> {
        if self.dead || boot != self.boot {
            return Err(Trouble::Dead { just_now: false });
        }
        self.calls += 1;
        if self.cut_at.is_some_and(|at| self.calls >= at) {
            self.dead = true;
            return Err(Trouble::Dead { just_now: true });
        }
        let calls = self.calls;
        let fault = self.faults.iter().find(|fault| (fault.at..=fault.at + fault.more).contains(&calls));
        match fault.map(|fault| fault.error) {
            Some(kind) => {
                self.disturbed += 1;
                Err(Trouble::Fails(kind))
            }
            None => Ok(()),
        }
    }

    /// A call that replaces something as a whole does so: the power may fail behind the rename.
    fn replaces(&mut self, entered: &Result<(), Trouble>) -> bool {
        match entered {
            Ok(()) => true,
            Err(Trouble::Dead { just_now }) => *just_now && self.random.one_in(2),
            Err(Trouble::Fails(_)) => false,
        }
    }

    fn used(&self) -> u64 {
        let segments: usize = self.names.values().map(|index| self.contents[*index].len()).sum();
        (segments + self.small.values().map(Vec::len).sum::<usize>()) as u64 + self.reserved
    }

    fn make_room(&mut self, more: u64) -> io::Result<()> {
        if more > 0 && self.capacity.is_some_and(|capacity| self.used().saturating_add(more) > capacity) {
            self.disturbed += 1;
            return Err(io::ErrorKind::StorageFull.into());
        }
        Ok(())
    }
}

impl SimDisk {
    /// An empty directory.
    #[must_use]
    pub(crate) fn new(random: Random, trace: Trace, witness: Witness) -> Self {
        let state = State {
            random,
            contents: Vec::new(),
            names: BTreeMap::new(),
            synced_names: BTreeMap::new(),
            small: BTreeMap::new(),
            older_checkpoint: None,
            saves: Vec::new(),
            kek: Memory::default(),
            reserved: 0,
            capacity: None,
            boot: 0,
            locked: false,
            calls: 0,
            cut_at: None,
            dead: false,
            faults: Vec::new(),
            flips: 0,
            disturbed: 0,
        };
        Self { state: Arc::new(Mutex::new(state)), trace, witness }
    }

    /// Calls so far.
    #[must_use]
    pub(crate) fn calls(&self) -> u64 {
        lock(&self.state).calls
    }

    /// Counts what went wrong in this boot.
    #[must_use]
    pub(crate) fn disturbed(&self) -> u64 {
        lock(&self.state).disturbed
    }

    /// Whether something went wrong since `disturbed` was so many: what reads otherwise is excused.
    #[must_use]
    pub(crate) fn has_failed_since(&self, disturbed: u64) -> bool {
        let state = lock(&self.state);
        state.dead || state.disturbed != disturbed
    }

    /// Whether the power has failed.
    #[must_use]
    pub(crate) fn is_dead(&self) -> bool {
        lock(&self.state).dead
    }

    /// The power fails in so many calls.
    pub(crate) fn cut_in(&self, calls: u64) {
        let mut state = lock(&self.state);
        state.cut_at = Some(state.calls + calls);
    }

    /// Plans a failure.
    pub(crate) fn fail(&self, fault: Fault) {
        lock(&self.state).faults.push(fault);
    }

    /// All goes well from now on.
    pub(crate) fn heal(&self) {
        let mut state = lock(&self.state);
        (state.faults, state.flips, state.capacity) = (Vec::new(), 0, None);
        state.kek.fall_silent(0, 0);
    }

    /// The key provider answers so many calls more, and then so many not.
    pub(crate) fn silence_kek(&self, answers: u32, silent: u32) {
        lock(&self.state).kek.fall_silent(answers, silent);
    }

    /// The key provider is asked, which does not answer a machine without power.
    pub(crate) fn kek<T>(&self, what: &str, work: impl FnOnce(&mut Memory) -> Option<T>) -> Option<T> {
        let mut state = lock(&self.state);
        let answer = if state.dead { None } else { work(&mut state.kek) };
        self.trace.note(format_args!("{what} a key: {}", answer.is_some()));
        answer
    }

    /// The next reads flip a bit each.
    pub(crate) fn flip(&self, reads: u32) {
        lock(&self.state).flips = reads;
    }

    /// Only so many bytes more fit.
    pub(crate) fn fill_up(&self, left: u64) {
        let mut state = lock(&self.state);
        state.capacity = Some(state.used() + left);
    }

    /// The process ends here; `rule` says what its disk keeps. A new boot may open the directory.
    pub(crate) fn end_boot(&self, rule: Rule) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        self.trace.note(format_args!("boot ends: {rule:?} after call {}", state.calls));
        (state.dead, state.cut_at, state.locked, state.disturbed) = (false, None, false, 0);
        state.boot += 1;
        let mut names = BTreeMap::new();
        if rule == Rule::KeepWritten {
            return;
        }
        for (name, index) in state.names.iter().chain(&state.synced_names) {
            let (now, synced) = (state.names.contains_key(name), state.synced_names.contains_key(name));
            let stays = if now == synced {
                now
            } else {
                rule == Rule::Torn && state.random.one_in(2) || synced && rule == Rule::LoseUnsynced
            };
            if stays {
                names.insert(name.clone(), *index);
            }
        }
        for index in names.values() {
            state.contents[*index].lose(rule, &mut state.random);
        }
        state.names.clone_from(&names);
        state.synced_names = names;
    }

    /// A copy of the directory as it stands, as a backup or a clone of the machine takes it.
    #[must_use]
    pub(crate) fn copy(&self) -> Self {
        let mut state = lock(&self.state);
        let random = state.random.fork();
        let copy = Self::new(random, self.trace.clone(), self.witness.clone());
        let mut to = lock(&copy.state);
        for (name, index) in &state.names {
            let position = to.contents.len();
            to.contents.push(state.contents[*index].copied());
            to.names.insert(name.clone(), position);
        }
        to.synced_names = to.names.clone();
        to.small = state.small.clone();
        to.older_checkpoint = state.older_checkpoint.clone();
        to.saves = state.saves.clone();
        to.kek = state.kek.clone();
        to.kek.fall_silent(0, 0);
        drop(to);
        copy
    }

    /// A sector of a segment file rots.
    pub(crate) fn rot(&self) -> Option<Rot> {
        let mut state = lock(&self.state);
        let state = &mut *state;
        if state.names.is_empty() {
            return None;
        }
        let nth = state.random.index(state.names.len());
        let (name, index) = state.names.iter().nth(nth).map(|(name, index)| (name.clone(), *index))?;
        let (sector, before) = state.contents[index].rot(&mut state.random)?;
        let rot = Rot::of(&name, &before, &sector);
        let what = (rot.header, rot.control, rot.fragments.len());
        self.trace.note(format_args!("rot: f{index}+{}: {what:?}", sector.start));
        Some(rot)
    }

    /// A small file is lost, if it is there.
    pub(crate) fn lose_small(&self, name: &str) -> bool {
        lock(&self.state).small.remove(name).is_some()
    }

    /// Something becomes of what starts go on from, and of the list of files.
    pub(crate) fn spoil(&self) {
        let mut state = lock(&self.state);
        let state = &mut *state;
        let what = match state.random.within(0..5) {
            0 => state.small.remove("checkpoint").map(|_| "the checkpoint is lost"),
            // One that was put away is empty.
            1 => state.small.get_mut("checkpoint").filter(|bytes| !bytes.is_empty()).map(|bytes| {
                let at = state.random.index(bytes.len());
                bytes[at] ^= 1 << state.random.within(0..8);
                "a bit of the checkpoint rots"
            }),
            2 => state.older_checkpoint.take().map(|older| {
                state.small.insert("checkpoint".into(), older);
                "an older checkpoint is put back"
            }),
            3 => state.saves.pop().map(|_| "what the index saved last is lost"),
            _ => state.small.remove("files").map(|_| "the list of files is lost"),
        };
        self.trace.note(format_args!("{}", what.unwrap_or("nothing is spoilt")));
    }

    /// An index saves all that it knows. What was saved before the one before this goes.
    pub(crate) fn save_index(&self, id: Uuid, fragments: Vec<LogEvent>) -> io::Result<()> {
        let mut state = lock(&self.state);
        let boot = state.boot;
        let entered = state.enter(boot);
        let count = fragments.len();
        if state.replaces(&entered) {
            let kept = state.saves.len().saturating_sub(1);
            state.saves.drain(..kept);
            state.saves.push((id, fragments));
        }
        let result = entered.map_err(io::Error::from);
        self.trace.note(format_args!("save {count} fragments: {}", verdict(&result)));
        result
    }

    /// What was saved under this id.
    pub(crate) fn saved_index(&self, id: Uuid) -> Option<Vec<LogEvent>> {
        let saved = self.call("restore", |state| {
            Ok(state.saves.iter().find(|(saved, _)| *saved == id).map(|(_, fragments)| fragments.clone()))
        });
        saved.ok().flatten()
    }

    /// As an index has it before the deletion of a stream is answered: nothing of it is left in its files.
    pub(crate) fn erase_from_saves(&self, stream: StreamId) {
        let mut state = lock(&self.state);
        if state.dead {
            return;
        }
        let is_of = |event: &LogEvent| matches!(event, LogEvent::Fragment { entry, .. } if entry.meta.stream == stream);
        state.saves.iter_mut().for_each(|(_, fragments)| fragments.retain(|event| !is_of(event)));
    }

    fn handle(&self, state: &State, index: usize) -> Arc<dyn SegmentHandle> {
        Arc::new(Handle { disk: self.clone(), boot: state.boot, index })
    }

    /// One call that has no part in between: done, or not.
    fn call<T>(&self, what: &str, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = lock(&self.state);
        let boot = state.boot;
        let result = state.enter(boot).map_err(io::Error::from).and_then(|()| work(&mut state));
        self.trace.note(format_args!("{what}: {}", verdict(&result)));
        result
    }
}

fn verdict<T>(result: &io::Result<T>) -> &'static str {
    match result {
        Ok(_) => "ok",
        Err(error) if error.kind() == io::ErrorKind::StorageFull => "full",
        Err(error) if error.kind() == io::ErrorKind::NotFound => "none",
        Err(_) => "failed",
    }
}

struct Lock {
    disk: SimDisk,
    boot: u64,
}

impl Drop for Lock {
    fn drop(&mut self) {
        let mut state = lock(&self.disk.state);
        if state.boot == self.boot {
            state.locked = false;
        }
    }
}

impl SegmentIo for SimDisk {
    fn lock(&self) -> io::Result<DirLock> {
        let mut state = lock(&self.state);
        if std::mem::replace(&mut state.locked, true) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let boot = state.boot;
        drop(state);
        Ok(Box::new(Lock { disk: self.clone(), boot }))
    }

    fn write_mode(&self) -> WriteMode {
        WriteMode::Buffered
    }

    fn list(&self) -> io::Result<Vec<String>> {
        self.call("list", |state| Ok(state.names.keys().cloned().collect()))
    }

    fn create(&self, name: &str, len: u64) -> io::Result<Arc<dyn SegmentHandle>> {
        self.call("create", |state| {
            if state.names.contains_key(name) {
                return Err(io::ErrorKind::AlreadyExists.into());
            }
            state.make_room(len)?;
            let index = state.contents.len();
            state.contents.push(Contents::zeros(usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?));
            state.names.insert(name.to_owned(), index);
            Ok(self.handle(state, index))
        })
    }

    fn open(&self, name: &str) -> io::Result<Arc<dyn SegmentHandle>> {
        self.call("open", |state| {
            let index = *state.names.get(name).ok_or(io::ErrorKind::NotFound)?;
            Ok(self.handle(state, index))
        })
    }

    fn unlink(&self, name: &str) -> io::Result<()> {
        self.call("unlink", |state| state.names.remove(name).map(|_| ()).ok_or_else(|| io::ErrorKind::NotFound.into()))
    }

    fn path(&self, _: &str) -> Option<PathBuf> {
        None
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.call("sync dir", |state| {
            state.synced_names = state.names.clone();
            Ok(())
        })
    }

    fn read_small(&self, name: &str) -> io::Result<Option<Vec<u8>>> {
        self.call(name, |state| Ok(state.small.get(name).cloned()))
    }

    fn replace_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let boot = state.boot;
        let entered = state.enter(boot);
        let happens = state.replaces(&entered);
        let mut result = entered.map_err(io::Error::from);
        if happens {
            match state.make_room(bytes.len() as u64) {
                Ok(()) => {
                    let before = state.small.insert(name.to_owned(), bytes.to_vec());
                    if name == "checkpoint" {
                        state.older_checkpoint = before;
                    }
                }
                Err(error) => result = Err(error),
            }
        }
        self.trace.note(format_args!("replace {name}: {}", verdict(&result)));
        result
    }

    fn append_small(&self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let mut state = lock(&self.state);
        let boot = state.boot;
        let entered = state.enter(boot);
        let state = &mut *state;
        let before = state.small.get(name).map_or(0, Vec::len);
        let (done, zeros) = match &entered {
            Ok(()) => (bytes.len(), 0),
            Err(Trouble::Dead { just_now: false }) => (0, 0),
            Err(_) => {
                let end = (before + state.random.index(bytes.len() + 1)) / WORD * WORD;
                let done = end.saturating_sub(before);
                (done, if state.random.one_in(2) { bytes.len() - done } else { 0 })
            }
        };
        let mut result = entered.map_err(io::Error::from).and_then(|()| state.make_room(bytes.len() as u64));
        match state.small.get_mut(name) {
            Some(small) => {
                small.extend(&bytes[..done]);
                small.resize(small.len() + zeros, 0);
            }
            None => result = result.and(Err(io::ErrorKind::NotFound.into())),
        }
        self.trace.note(format_args!("append to {name}: {}", verdict(&result)));
        result
    }

    fn space(&self) -> io::Result<DiskSpace> {
        let state = lock(&self.state);
        let total_bytes = state.capacity.unwrap_or(u64::MAX);
        Ok(DiskSpace { total_bytes, free_bytes: total_bytes.saturating_sub(state.used()) })
    }

    fn reserve(&self, len: u64) -> io::Result<()> {
        self.call("reserve", |state| {
            state.make_room(len.saturating_sub(state.reserved))?;
            state.reserved = len;
            Ok(())
        })
    }
}

struct Handle {
    disk: SimDisk,
    boot: u64,
    index: usize,
}

impl Handle {
    fn call<T>(
        &self,
        what: &str,
        place: (u64, usize),
        work: impl FnOnce(&mut State, Result<(), Trouble>) -> io::Result<T>,
    ) -> io::Result<T> {
        let mut state = lock(&self.disk.state);
        let entered = state.enter(self.boot);
        let result = work(&mut state, entered);
        let (offset, len) = place;
        self.disk.trace.note(format_args!("{what} f{}+{offset} {len}: {}", self.index, verdict(&result)));
        result
    }

    /// These bytes stand there already.
    fn stands(&self, offset: u64, bytes: &[u8]) -> bool {
        let (mut there, Ok(start)) = (vec![0; bytes.len()], usize::try_from(offset)) else { return false };
        lock(&self.disk.state).contents[self.index].read(start, &mut there).is_ok() && there == bytes
    }
}

impl SegmentHandle for Handle {
    fn len(&self) -> io::Result<u64> {
        self.call("len", (0, 0), |state, entered| {
            entered?;
            Ok(state.contents[self.index].len() as u64)
        })
    }

    fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        // What is written once more, as it stands there, was not sealed again.
        if !self.stands(offset, bytes) {
            self.disk.witness.written(bytes);
        }
        self.call("write", (offset, bytes.len()), |state, entered| {
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
            let done = match &entered {
                Ok(()) => bytes.len(),
                Err(Trouble::Dead { just_now: false }) => 0,
                Err(_) => state.random.index(bytes.len() + 1) / WORD * WORD,
            };
            let grown = (start + done).saturating_sub(state.contents[self.index].len());
            state.make_room(grown as u64)?;
            state.contents[self.index].write(start, &bytes[..done]);
            Ok(entered?)
        })
    }

    fn write_blocks(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.write_at(offset, bytes)
    }

    fn sync_data(&self) -> io::Result<()> {
        self.call("sync", (0, 0), |state, entered| {
            match &entered {
                Ok(()) => state.contents[self.index].sync(),
                Err(Trouble::Fails(_)) => state.contents[self.index].fail_sync(),
                Err(Trouble::Dead { .. }) => {}
            }
            Ok(entered?)
        })
    }

    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.call("read", (offset, buffer.len()), |state, entered| {
            entered?;
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::UnexpectedEof)?;
            state.contents[self.index].read(start, buffer)?;
            if state.flips > 0 && !buffer.is_empty() {
                state.flips -= 1;
                state.disturbed += 1;
                let (at, bit) = (state.random.index(buffer.len()), state.random.within(0..8));
                buffer[at] ^= 1 << bit;
            }
            Ok(())
        })
    }

    fn forget(&self, _: u64, _: u64) {}

    fn read_cached(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn read_direct(&self, _: u64, _: &mut [u8]) -> bool {
        false
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.call("punch", (offset, len as usize), |state, entered| {
            entered?;
            let contents = &mut state.contents[self.index];
            let start = usize::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?.min(contents.len());
            let end = start.saturating_add(len as usize).min(contents.len());
            contents.write(start, &vec![0; end - start]);
            Ok(())
        })
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        self.call("truncate", (len, 0), |state, entered| {
            entered?;
            state.contents[self.index].truncate(usize::try_from(len).map_err(|_| io::ErrorKind::InvalidInput)?);
            Ok(())
        })
    }
}
