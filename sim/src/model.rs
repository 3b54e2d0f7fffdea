//! What has to be true: everything that was handed to the store, what it answered, and what follows from that.
//!
//! The model belongs to one line of history. Who restores an older copy of the directory gets the model of that time back.

use std::collections::BTreeMap;
use std::time::Duration;

use bytes::Bytes;
use vidar_core::control::{Control, ControlRecord, GapRecord, StreamSettings};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::record::{FragmentFlags, NewFragment};
use vidar_storage::Damage;

use crate::witness::Rot;

/// A record that was handed to the store.
#[derive(Debug, Clone)]
pub(crate) struct Handed {
    /// All of its media.
    pub(crate) media: Bytes,
    /// It was answered: durable.
    pub(crate) acked: bool,
}

/// A fragment of which something was handed to the store.
#[derive(Debug, Clone)]
pub(crate) struct Fragment {
    /// Whose it is.
    pub(crate) stream: StreamId,
    /// Counts fragments: its name in the trace.
    pub(crate) index: usize,
    /// Part records.
    pub(crate) parts: BTreeMap<u16, Handed>,
    /// The record that closes it.
    pub(crate) close: Option<Handed>,
    /// When the first of it was handed in, by uptime.
    pub(crate) since: Duration,
    /// Checksum of its media once it was found readable: it stays so.
    pub(crate) settled: Option<u32>,
    /// A floor or deletion took it.
    pub(crate) gone: bool,
    /// A sector that it stands in rotted.
    pub(crate) rotten: bool,
}

impl Fragment {
    /// All media, in order.
    #[must_use]
    pub(crate) fn media(&self) -> Vec<u8> {
        let pieces: Vec<&[u8]> = self.parts.values().chain(&self.close).map(|handed| &handed.media[..]).collect();
        pieces.concat()
    }

    fn is_acked(&self) -> bool {
        self.close.as_ref().is_some_and(|close| close.acked)
    }

    /// It has to be found. `reopened`: the store was opened since, so that open parts were closed.
    #[must_use]
    pub(crate) fn is_due(&self, reopened: bool) -> bool {
        let open_parts = reopened && self.parts.values().any(|part| part.acked);
        !self.gone && !self.rotten && (self.is_acked() || self.settled.is_some() || open_parts)
    }
}

/// A stream that somebody tried to make.
#[derive(Debug, Clone, Default)]
pub(crate) struct Stream {
    /// Counts streams: its name in the trace.
    pub(crate) index: usize,
    /// It was heard of: it is durable.
    pub(crate) known: bool,
    /// Somebody asked for its deletion.
    pub(crate) delete_tried: bool,
    /// Its deletion was heard of.
    pub(crate) deleted: bool,
    /// The deletion was answered: its keys are gone.
    pub(crate) delete_acked: bool,
    /// The greatest floor heard of.
    pub(crate) floor: Option<FragmentNumber>,
    /// The shortest retention that was ever asked for, in hours.
    pub(crate) hours_min: Option<u32>,
    /// A limit in bytes was once asked for: age alone does not decide.
    pub(crate) by_bytes: bool,
}

/// What damage may be reported.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) enum Excuse {
    /// None: nothing was damaged on purpose, or all of it was repaired.
    #[default]
    Nothing,
    /// A sector of this file rotted, and a repair found nothing that was lost by it: it stands in what is gone.
    In(String),
    /// A sector rotted.
    Anything,
}

impl Excuse {
    /// It is no wonder that all of this was found.
    pub(crate) fn covers(&self, damage: &[Damage]) -> bool {
        match self {
            Self::Nothing => damage.is_empty(),
            Self::In(file) => damage.iter().all(|damage| damage.file == *file),
            Self::Anything => true,
        }
    }
}

/// All of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Model {
    /// By number.
    pub(crate) fragments: BTreeMap<FragmentNumber, Fragment>,
    /// By id.
    pub(crate) streams: BTreeMap<StreamId, Stream>,
    /// Gap records heard of, by number.
    pub(crate) gaps: BTreeMap<FragmentNumber, GapRecord>,
    /// The greatest sequence given in this line of history.
    pub(crate) sequence: u64,
    /// The disk was short of room: the policy may have deleted anything.
    pub(crate) was_short: bool,
    /// A control record rotted: what they say is no longer checked.
    pub(crate) controls_rotten: bool,
    /// The header of a file rotted: it is never closed.
    pub(crate) header_rotten: bool,
    /// What was damaged on purpose.
    pub(crate) excuse: Excuse,
    /// The file of which a sector rotted last.
    pub(crate) rotten_file: String,
    /// What is wrong.
    pub(crate) violations: Vec<String>,
}

impl Model {
    /// Something is wrong.
    pub(crate) fn violate(&mut self, what: String) {
        self.violations.push(what);
    }

    /// A record is on its way to the store. Answers the fragment's index.
    pub(crate) fn hand_in(&mut self, record: &NewFragment, now: Duration) -> usize {
        let (stream, number) = (record.meta.stream, record.meta.number);
        let handed = Handed { media: record.media.concat().into(), acked: false };
        let index = self.fragments.len();
        let fragment = self.fragments.entry(number).or_insert_with(|| Fragment {
            stream,
            index,
            parts: BTreeMap::new(),
            close: None,
            since: now,
            settled: None,
            gone: false,
            rotten: false,
        });
        match record.part {
            Some(part) => drop(fragment.parts.insert(part, handed)),
            None => fragment.close = Some(handed),
        }
        fragment.index
    }

    /// The store answered: durable.
    pub(crate) fn acknowledge(&mut self, number: FragmentNumber, part: Option<u16>) {
        let Some(fragment) = self.fragments.get_mut(&number) else { return };
        let handed = part.map_or(fragment.close.as_mut(), |part| fragment.parts.get_mut(&part));
        if let Some(handed) = handed {
            handed.acked = true;
        }
    }

    /// A number was given.
    pub(crate) fn given(&mut self, number: FragmentNumber) {
        if number.sequence() <= self.sequence {
            self.violate(format!("number {number} does not follow {:x}", self.sequence));
        }
        self.sequence = self.sequence.max(number.sequence());
    }

    /// A stream, named in the order of appearance.
    pub(crate) fn stream(&mut self, stream: StreamId) -> &mut Stream {
        let index = self.streams.len();
        self.streams.entry(stream).or_insert_with(|| Stream { index, ..Stream::default() })
    }

    /// Somebody asks for these settings.
    pub(crate) fn settings(&mut self, stream: StreamId, settings: &StreamSettings) {
        let stream = self.stream(stream);
        let hours = settings.retention_hours;
        stream.hours_min = Some(stream.hours_min.map_or(hours, |least| least.min(hours)));
        stream.by_bytes |= settings.retention_bytes.is_some();
    }

    /// The log tells of a fragment.
    pub(crate) fn heard_fragment(&mut self, entry: &SharedEntry) {
        let (stream, number) = (entry.meta.stream, entry.meta.number);
        let state = self.stream(stream);
        let (deleted, below) = (state.deleted, state.floor.is_some_and(|floor| number < floor));
        if (deleted || below) && !self.controls_rotten {
            self.violate(format!("fragment {number} is told of, and its stream was deleted or its floor is above it"));
        }
        match self.fragments.get(&number) {
            None => self.violate(format!("fragment {number} was never handed in")),
            Some(fragment) if fragment.gone && !self.controls_rotten => {
                self.violate(format!("fragment {number} is told of, and was gone"));
            }
            Some(fragment) if fragment.stream != stream => {
                self.violate(format!("fragment {number} changed its stream"))
            }
            Some(_) => {}
        }
    }

    /// The log tells of a control record.
    pub(crate) fn heard_control(&mut self, record: &ControlRecord, now: Duration) {
        match &record.body {
            Control::Stream(stream) => {
                self.settings(stream.stream, &stream.settings);
                self.stream(stream.stream).known = true;
            }
            Control::StreamDeleted { stream, .. } => {
                if !self.stream(*stream).delete_tried {
                    self.violate(format!("stream {stream} was deleted, and nobody asked for that"));
                }
                self.stream(*stream).deleted = true;
                let of_it = self.fragments.values_mut().filter(|fragment| fragment.stream == *stream);
                of_it.for_each(|fragment| fragment.gone = true);
            }
            Control::Floor { stream, below, .. } => self.raise_floor(*stream, *below, now),
            Control::Gap(gap) => drop(self.gaps.insert(record.number, gap.clone())),
            Control::Run(_) | Control::RunEnded { .. } | Control::Key { .. } => {}
        }
    }

    /// Retention takes nothing before its age, whatever the wall clock shows.
    fn raise_floor(&mut self, stream: StreamId, below: FragmentNumber, now: Duration) {
        let state = self.stream(stream);
        state.floor = state.floor.max(Some(below));
        let aged = (!state.by_bytes).then_some(state.hours_min).flatten().filter(|_| !self.was_short);
        let mut early = None;
        for (number, fragment) in self.fragments.range_mut(..below).filter(|(_, fragment)| fragment.stream == stream) {
            let age = now.saturating_sub(fragment.since);
            let is_early = aged.is_some_and(|hours| age < Duration::from_secs(u64::from(hours) * 3600));
            if !fragment.gone && is_early && (fragment.is_acked() || fragment.settled.is_some()) {
                early = Some((*number, age));
            }
            fragment.gone = true;
        }
        if let Some((number, age)) = early {
            self.violate(format!("fragment {number} expired at an age of {age:?}"));
        }
    }

    /// Compares what was read of a fragment with what was handed in.
    pub(crate) fn check_content(&mut self, entry: &SharedEntry, pieces: &[(Option<u16>, Bytes)]) {
        let number = entry.meta.number;
        let Some(fragment) = self.fragments.get_mut(&number) else { return };
        let all = pieces.iter().fold(0, |sum, (_, media)| crc32c::crc32c_append(sum, media));
        let handed = |part: Option<u16>| part.map_or(fragment.close.as_ref(), |part| fragment.parts.get(&part));
        let same = pieces.iter().all(|(part, media)| handed(*part).is_some_and(|handed| handed.media == media));
        let has = |part: u16| pieces.iter().any(|(piece, _)| *piece == Some(part));
        let incomplete = entry.meta.flags.contains(FragmentFlags::INCOMPLETE);
        // All of a fragment may have gone out in parts: then its close has no media of its own.
        let ends = pieces.iter().any(|(part, _)| part.is_none());
        let closed = ends || !incomplete;
        let whole = fragment.parts.iter().all(|(part, handed)| has(*part) || !closed && !handed.acked);
        let marked = ends || incomplete || fragment.close.as_ref().is_some_and(|close| close.media.is_empty());
        let stable = fragment.settled.is_none_or(|settled| settled == all);
        fragment.settled = Some(all);
        // What a floor took that rotted since is back, without the files that were removed.
        let is_lossy = fragment.rotten || fragment.gone && self.controls_rotten;
        for (ok, what) in [
            (same, "reads back what was never handed in"),
            (whole || is_lossy, "lacks a part"),
            (marked, "has no end and is not marked"),
            (stable || is_lossy, "reads back otherwise than before"),
        ] {
            if !ok {
                self.violate(format!("fragment {number} {what}"));
            }
        }
    }

    /// A repair found this, and refused nothing.
    pub(crate) fn repaired(&mut self, damage: &[Damage]) {
        if self.excuse != Excuse::Nothing {
            // Rot in what is gone may be reported by a start, and is none of a repair's business.
            let left = damage.is_empty().then(|| Excuse::In(self.rotten_file.clone()));
            self.excuse = left.unwrap_or_default();
        }
    }

    /// The log may have forgotten that a stream was deleted, and its keys are gone.
    pub(crate) fn may_lack_keys(&self) -> bool {
        self.controls_rotten && self.streams.values().any(|stream| stream.delete_acked)
    }

    /// A sector rotted: what stood there may be lost.
    pub(crate) fn rot(&mut self, rot: &Rot) {
        (self.excuse, self.rotten_file) = (Excuse::Anything, rot.file.clone());
        self.header_rotten |= rot.header;
        self.controls_rotten |= rot.control;
        for number in &rot.fragments {
            if let Some(fragment) = self.fragments.get_mut(number) {
                fragment.rotten = true;
            }
        }
    }
}
