//! The way to the commit thread: in the order of asking, and bounded in bytes.
//!
//! Who asks while there is no room waits here, not in a future: a future that nobody polls any more holds nobody up, and
//! nobody overtakes one that was not polled yet.

use std::collections::BTreeMap;
use std::sync::mpsc::Sender;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use vidar_core::sink::SinkError;

use crate::item::{Body, Item, Message, Reply};

/// What waits for the commit thread, and for room to do so.
pub(crate) struct Inbox {
    state: Mutex<State>,
    room_max: usize,
}

struct State {
    /// None once closed.
    commit: Option<Sender<Message>>,
    /// In bytes.
    room: usize,
    /// Waits for room, in this order.
    waiting: BTreeMap<u64, Waiting>,
    next: u64,
}

struct Waiting {
    len: usize,
    body: Body,
    reply: Reply,
}

/// A place among those that wait for room; given up when dropped.
pub(crate) struct Place<'a> {
    inbox: &'a Arc<Inbox>,
    number: u64,
}

/// Room that an item takes, until dropped.
pub(crate) struct Room {
    inbox: Arc<Inbox>,
    len: usize,
}

impl Inbox {
    /// With room for `room_max` bytes; more than that takes all of it.
    pub(crate) fn new(commit: Sender<Message>, room_max: usize) -> Self {
        let room_max = room_max.max(1);
        let state = State { commit: Some(commit), room: room_max, waiting: BTreeMap::new(), next: 0 };
        Self { state: Mutex::new(state), room_max }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Hands in something of `len` bytes, as soon as there is room and nobody asked before. Once it is closed the reply
    /// is dropped.
    pub(crate) fn hand_in(self: &Arc<Self>, body: Body, len: usize, reply: Reply) -> Place<'_> {
        let mut state = self.lock();
        let number = state.next;
        state.next += 1;
        let len = len.clamp(1, self.room_max);
        state.waiting.insert(number, Waiting { len, body, reply });
        self.advance(state);
        Place { inbox: self, number }
    }

    /// Hands in something at once, whether there is room or not.
    pub(crate) fn force_in(&self, body: Body, reply: Reply) -> Result<(), SinkError> {
        let state = self.lock();
        let commit = state.commit.as_ref().ok_or(SinkError::Closed)?;
        commit.send(Message::Append(Item { body, reply, room: None })).map_err(|_| SinkError::Closed)
    }

    /// Takes nothing any more. `reply` hears when what was handed in is done; what waits for room is not. False if that was
    /// so before.
    pub(crate) fn close(&self, reply: Reply) -> bool {
        let (commit, waiting) = {
            let mut state = self.lock();
            (state.commit.take(), std::mem::take(&mut state.waiting))
        };
        drop(waiting);
        let Some(commit) = commit else { return false };
        // Where the commit thread is gone, the reply is dropped.
        let _ = commit.send(Message::Close(reply));
        true
    }

    /// Hands on what there is room for.
    fn advance(self: &Arc<Self>, mut state: MutexGuard<'_, State>) {
        let State { commit, room, waiting, .. } = &mut *state;
        let mut unsent = None;
        while let Some(sender) = &*commit
            && let Some(first) = waiting.first_entry()
            && first.get().len <= *room
        {
            let Waiting { len, body, reply } = first.remove();
            *room -= len;
            let room = Some(Room { inbox: Arc::clone(self), len });
            unsent = sender.send(Message::Append(Item { body, reply, room })).err();
            if unsent.is_some() {
                *commit = None;
            }
        }
        let void = if commit.is_none() { std::mem::take(waiting) } else { BTreeMap::new() };
        // Room comes back under the lock.
        drop(state);
        drop((unsent, void));
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let mut state = self.inbox.lock();
        let given_up = state.waiting.remove(&self.number);
        if given_up.is_some() {
            self.inbox.advance(state);
        }
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let mut state = self.inbox.lock();
        state.room += self.len;
        self.inbox.advance(state);
    }
}
