//! The events at the head of one stream that somebody may still need.

use std::collections::{HashMap, HashSet, VecDeque};

use vidar_core::hub::LiveEvent;
use vidar_core::ids::{FragmentNumber, RunId};

/// Where a viewer stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Position {
    /// Sequence of the next event to read.
    next: u64,
    /// Samples are skipped until a fragment opens.
    awaits_opening: bool,
}

/// What a viewer reads.
#[derive(Debug)]
pub(crate) enum Step {
    Event(LiveEvent),
    /// It was too slow; it goes on at a fragment's beginning.
    Lagged,
    /// Nothing yet.
    Wait,
}

#[derive(Debug)]
struct Fragment {
    number: FragmentNumber,
    start: u64,
    /// Durable or failed.
    settled: bool,
}

#[derive(Debug, Default)]
pub(crate) struct Window {
    events: VecDeque<LiveEvent>,
    /// Sequence of the first event held.
    base: u64,
    /// Bytes that the events held keep in memory.
    held_bytes: usize,
    /// Fragments whose `Opened` is held, in order.
    fragments: VecDeque<Fragment>,
    viewers: HashMap<u64, Position>,
    next_viewer: u64,
    /// Runs that opened a fragment and have not ended.
    live_runs: HashSet<RunId>,
}

/// Bytes that an event keeps in memory.
fn cost(event: &LiveEvent) -> usize {
    let data = match event {
        LiveEvent::Sample { sample, .. } => sample.data.len(),
        LiveEvent::Tags { tags, .. } => tags.iter().map(|tag| tag.name.len() + tag.value.len() + 48).sum(),
        _ => 0,
    };
    data + size_of::<LiveEvent>()
}

impl Window {
    pub(crate) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// Nobody publishes, nobody watches, nothing is held.
    pub(crate) fn is_idle(&self) -> bool {
        self.live_runs.is_empty() && self.viewers.is_empty() && self.events.is_empty()
    }

    pub(crate) fn is_live(&self) -> bool {
        !self.live_runs.is_empty()
    }

    fn end(&self) -> u64 {
        self.base + self.events.len() as u64
    }

    pub(crate) fn push(&mut self, event: LiveEvent) {
        match &event {
            LiveEvent::Opened { fragment, run, .. } => {
                self.live_runs.insert(*run);
                self.fragments.push_back(Fragment { number: fragment.number, start: self.end(), settled: false });
            }
            LiveEvent::Durable(durable) => self.settle(durable.number),
            LiveEvent::Failed(fragment) => self.settle(fragment.number),
            LiveEvent::Ended(run) => {
                self.live_runs.remove(run);
            }
            LiveEvent::Sample { .. } | LiveEvent::Tags { .. } | LiveEvent::Closed { .. } => {}
        }
        self.held_bytes += cost(&event);
        self.events.push_back(event);
        self.trim();
    }

    fn settle(&mut self, number: FragmentNumber) {
        if let Some(fragment) = self.fragments.iter_mut().find(|fragment| fragment.number == number) {
            fragment.settled = true;
        }
    }

    /// Drops what is settled and read by all.
    fn trim(&mut self) {
        let unsettled = self.fragments.iter().find(|fragment| !fragment.settled).map(|fragment| fragment.start);
        let unread = self.viewers.values().map(|position| position.next).min();
        self.drop_before(unsettled.unwrap_or(u64::MAX).min(unread.unwrap_or(u64::MAX)).min(self.end()));
    }

    fn drop_before(&mut self, sequence: u64) {
        while self.base < sequence {
            let Some(event) = self.events.pop_front() else { break };
            self.base += 1;
            self.held_bytes -= cost(&event);
        }
        while self.fragments.front().is_some_and(|fragment| fragment.start < self.base) {
            self.fragments.pop_front();
        }
    }

    /// Gives up the oldest fragment (all there is, if it is the only one). Who had not read it lags.
    pub(crate) fn give_up_oldest(&mut self) {
        let next = self.fragments.iter().map(|fragment| fragment.start).find(|start| *start > self.base);
        self.drop_before(next.unwrap_or_else(|| self.end()));
    }

    pub(crate) fn subscribe(&mut self) -> u64 {
        let position = match self.fragments.iter().find(|fragment| !fragment.settled) {
            Some(fragment) => Position { next: fragment.start, awaits_opening: false },
            None => Position { next: self.end(), awaits_opening: true },
        };
        let viewer = self.next_viewer;
        self.next_viewer += 1;
        self.viewers.insert(viewer, position);
        viewer
    }

    pub(crate) fn unsubscribe(&mut self, viewer: u64) {
        self.viewers.remove(&viewer);
        self.trim();
    }

    pub(crate) fn read(&mut self, viewer: u64) -> Step {
        let Some(mut position) = self.viewers.get(&viewer).copied() else { return Step::Wait };
        let step = self.step(&mut position);
        self.viewers.insert(viewer, position);
        self.trim();
        step
    }

    fn step(&self, position: &mut Position) -> Step {
        if position.next < self.base {
            let start = self.fragments.front().map_or_else(|| self.end(), |fragment| fragment.start);
            *position = Position { next: start, awaits_opening: self.fragments.is_empty() };
            return Step::Lagged;
        }
        while let Some(event) = self.events.get((position.next - self.base) as usize) {
            position.next += 1;
            match event {
                LiveEvent::Opened { .. } => position.awaits_opening = false,
                LiveEvent::Sample { .. } | LiveEvent::Tags { .. } | LiveEvent::Closed { .. }
                    if position.awaits_opening =>
                {
                    continue;
                }
                _ => {}
            }
            return Step::Event(event.clone());
        }
        Step::Wait
    }
}
