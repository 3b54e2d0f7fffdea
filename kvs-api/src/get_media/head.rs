//! What arrives at the head of a stream, by fragment. While a connection takes over from another, several are open.

use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;
use std::sync::Arc;

use futures::FutureExt;
use vidar_core::hub::LiveEvent;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::sample::{Sample, Tag};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_live::{Hub, RecvError, Subscriber};

/// Watches a stream, and keeps what came of each fragment until it is taken.
pub(super) struct Head {
    subscriber: Subscriber,
    fragments: BTreeMap<FragmentNumber, HeadFragment>,
    held_bytes: usize,
}

/// A fragment that was opened.
pub(super) struct HeadFragment {
    pub(super) config: Arc<StreamConfig>,
    pub(super) producer_start: UnixMs,
    pub(super) state: State,
    /// In order of arrival, those that were not taken.
    samples: VecDeque<Sample>,
    /// All of its tags.
    pub(super) tags: Vec<Tag>,
}

/// How far a fragment is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Open,
    /// Complete.
    Closed,
    Durable {
        duration_ms: u32,
    },
    /// It will never be durable.
    Failed,
}

impl Head {
    /// From the oldest fragment on that is not durable yet.
    pub(super) fn new(hub: &Arc<Hub>, stream: StreamId) -> Self {
        Self { subscriber: hub.subscribe(stream), fragments: BTreeMap::new(), held_bytes: 0 }
    }

    /// Waits for something to happen.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Lagged`: this was too slow, and something is lost.
    pub(super) async fn next(&mut self) -> Result<(), RecvError> {
        let event = self.subscriber.next().await?;
        self.take(event);
        Ok(())
    }

    /// As [`Head::next`], without waiting; false if nothing happened.
    ///
    /// # Errors
    /// As [`Head::next`].
    pub(super) fn try_next(&mut self) -> Result<bool, RecvError> {
        self.next().now_or_never().transpose().map(|happened| happened.is_some())
    }

    /// Takes what happened so far, of which only the newest fragment counts.
    pub(super) fn keep_newest(&mut self) {
        // A lag ends where something is left.
        while !matches!(self.try_next(), Ok(false)) {
            if self.fragments.len() > 1
                && let Some(oldest) = self.first()
            {
                self.forget(oldest);
            }
        }
    }

    /// The smallest number.
    pub(super) fn first(&self) -> Option<FragmentNumber> {
        self.fragments.keys().next().copied()
    }

    /// Another fragment was opened that goes out after this one.
    pub(super) fn has_after(&self, number: FragmentNumber) -> bool {
        self.fragments.range((Bound::Excluded(number), Bound::Unbounded)).next().is_some()
    }

    pub(super) fn get(&self, number: FragmentNumber) -> Option<&HeadFragment> {
        self.fragments.get(&number)
    }

    /// Bytes of samples that were not taken.
    pub(super) fn held_bytes(&self) -> usize {
        self.held_bytes
    }

    /// The next samples of a fragment: up to so many bytes, but one at least if there is one.
    pub(super) fn samples(&mut self, number: FragmentNumber, len_max: usize) -> Vec<Sample> {
        let Some(fragment) = self.fragments.get_mut(&number) else { return Vec::new() };
        let (mut taken, mut len) = (Vec::new(), 0);
        while len < len_max
            && let Some(sample) = fragment.samples.pop_front()
        {
            len += sample.data.len();
            taken.push(sample);
        }
        self.held_bytes -= len;
        taken
    }

    /// What comes of it now is not kept.
    pub(super) fn forget(&mut self, number: FragmentNumber) {
        if let Some(fragment) = self.fragments.remove(&number) {
            self.held_bytes -= fragment.samples.iter().map(|sample| sample.data.len()).sum::<usize>();
        }
    }

    /// As [`Head::forget`], of all up to this one.
    pub(super) fn forget_until(&mut self, last: FragmentNumber) {
        while let Some(first) = self.first().filter(|first| *first <= last) {
            self.forget(first);
        }
    }

    fn take(&mut self, event: LiveEvent) {
        match event {
            LiveEvent::Opened { fragment, config, producer_start, .. } => {
                let (samples, tags) = (VecDeque::new(), Vec::new());
                let opened = HeadFragment { config, producer_start, state: State::Open, samples, tags };
                self.fragments.insert(fragment.number, opened);
            }
            LiveEvent::Sample { number, sample } => {
                if let Some(fragment) = self.fragments.get_mut(&number) {
                    self.held_bytes += sample.data.len();
                    fragment.samples.push_back(sample);
                }
            }
            LiveEvent::Tags { number, tags } => {
                if let Some(fragment) = self.fragments.get_mut(&number) {
                    fragment.tags.extend_from_slice(&tags);
                }
            }
            LiveEvent::Closed { fragment, .. } => self.set(fragment.number, State::Closed),
            LiveEvent::Durable(durable) => {
                self.set(durable.number, State::Durable { duration_ms: durable.duration_ms })
            }
            LiveEvent::Failed(fragment) => self.set(fragment.number, State::Failed),
            LiveEvent::Ended(_) => {}
        }
    }

    fn set(&mut self, number: FragmentNumber, state: State) {
        if let Some(fragment) = self.fragments.get_mut(&number) {
            fragment.state = state;
        }
    }
}
