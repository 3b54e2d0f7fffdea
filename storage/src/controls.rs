//! What the control records so far say, as far as the store itself needs it: which streams and fragments are gone, and
//! which control records must outlive their file.

use std::collections::HashMap;

use vidar_core::control::{Control, ControlRecord};
use vidar_core::ids::{FragmentNumber, RunId, StreamId};
use vidar_core::record::FragmentMeta;

use crate::class;
use crate::segment_file::record::{RecordKind, RecordShape};

/// The state that control records add up to.
#[derive(Debug, Clone, Default)]
pub(crate) struct Controls {
    streams: HashMap<StreamId, StreamState>,
    runs: HashMap<RunId, RunState>,
}

#[derive(Debug, Clone, Default)]
struct StreamState {
    /// Number of the newest record.
    record: Option<FragmentNumber>,
    /// How long it is kept, as that one says.
    hours: Option<u32>,
    /// Number of the deletion.
    deleted: Option<FragmentNumber>,
    /// Number of the newest floor record, and the greatest floor.
    floor: Option<FragmentNumber>,
    below: Option<FragmentNumber>,
}

#[derive(Debug, Clone)]
struct RunState {
    stream: StreamId,
    record: Option<FragmentNumber>,
    last_fragment: Option<FragmentNumber>,
    ended: bool,
}

impl RunState {
    fn new(stream: StreamId) -> Self {
        Self { stream, record: None, last_fragment: None, ended: false }
    }
}

impl Controls {
    /// Takes note of a control record. Order does not matter.
    pub(crate) fn note(&mut self, record: &ControlRecord) {
        let number = Some(record.number);
        if let Some(stream) = record.body.stream() {
            let state = self.streams.entry(stream).or_default();
            match &record.body {
                Control::Stream(stream) if state.record < number => {
                    (state.record, state.hours) = (number, Some(stream.settings.retention_hours));
                }
                Control::StreamDeleted { .. } => state.deleted = state.deleted.max(number),
                Control::Floor { below, .. } => {
                    state.floor = state.floor.max(number);
                    state.below = state.below.max(Some(*below));
                }
                Control::Stream(_)
                | Control::Run(_)
                | Control::RunEnded { .. }
                | Control::Gap(_)
                | Control::Key { .. } => {}
            }
        }
        match &record.body {
            Control::Run(run) => {
                let state = self.runs.entry(run.run).or_insert_with(|| RunState::new(run.stream));
                state.record = state.record.max(number);
            }
            Control::RunEnded { stream, run, .. } => {
                self.runs.entry(*run).or_insert_with(|| RunState::new(*stream)).ended = true;
            }
            _ => {}
        }
    }

    /// Takes note of a fragment.
    pub(crate) fn note_fragment(&mut self, meta: &FragmentMeta) {
        self.note_last(meta.run, meta.stream, meta.number);
    }

    /// The last fragment of each run that has any.
    pub(crate) fn last_of_runs(&self) -> Vec<(RunId, StreamId, FragmentNumber)> {
        let last = |(run, state): (&RunId, &RunState)| Some((*run, state.stream, state.last_fragment?));
        self.runs.iter().filter_map(last).collect()
    }

    /// Takes note of the last fragment of a run.
    pub(crate) fn note_last(&mut self, run: RunId, stream: StreamId, last: FragmentNumber) {
        let state = self.runs.entry(run).or_insert_with(|| RunState::new(stream));
        state.last_fragment = state.last_fragment.max(Some(last));
    }

    /// The retention class of a stream.
    pub(crate) fn class(&self, stream: StreamId) -> u8 {
        self.streams.get(&stream).and_then(|state| state.hours).map_or(class::LONGEST, class::of_hours)
    }

    /// The stream is deleted.
    pub(crate) fn is_deleted(&self, stream: StreamId) -> bool {
        self.streams.get(&stream).is_some_and(|state| state.deleted.is_some())
    }

    /// The fragment, or all fragments up to it, may no longer be read.
    pub(crate) fn is_gone(&self, stream: StreamId, number: FragmentNumber) -> bool {
        let state = self.streams.get(&stream);
        state.is_some_and(|state| state.deleted.is_some() || state.below.is_some_and(|below| number < below))
    }

    /// The record may no longer be read. Control records always may.
    pub(crate) fn is_gone_record(&self, shape: &RecordShape) -> bool {
        match shape.kind {
            RecordKind::Control => false,
            RecordKind::Config => self.is_deleted(shape.meta.stream),
            RecordKind::Fragment | RecordKind::Part => self.is_gone(shape.meta.stream, shape.meta.number),
        }
    }

    /// All deleted streams.
    pub(crate) fn deleted(&self) -> Vec<StreamId> {
        let deleted = self.streams.iter().filter(|(_, state)| state.deleted.is_some());
        deleted.map(|(stream, _)| *stream).collect()
    }

    /// The greatest floor of a stream.
    pub(crate) fn below(&self, stream: StreamId) -> Option<FragmentNumber> {
        self.streams.get(&stream)?.below
    }

    /// A record that must be repeated before its file goes. `older`: another file may have been begun before that number
    /// was given, and so hold something of a stream whose deletion has it. `epoch`: the running one.
    pub(crate) fn is_needed(&self, record: &ControlRecord, epoch: u32, older: impl Fn(FragmentNumber) -> bool) -> bool {
        let Some(stream) = record.body.stream() else { return true };
        let Some(state) = self.streams.get(&stream) else { return true };
        if let Control::StreamDeleted { .. } = record.body {
            return older(record.number);
        }
        if state.deleted.is_some() {
            return false;
        }
        match &record.body {
            Control::Stream(_) => state.record == Some(record.number),
            Control::Floor { .. } => state.floor == Some(record.number),
            Control::Run(run) => self.run_lives(run.run, epoch, Some(record.number)),
            Control::RunEnded { run, .. } => self.run_lives(*run, epoch, None),
            Control::Gap(_) => state.below.is_none_or(|below| record.number >= below),
            Control::Key { .. } | Control::StreamDeleted { .. } => true,
        }
    }

    /// The run has fragments that may be read, or may still get some. `record`: and this is its newest record.
    fn run_lives(&self, run: RunId, epoch: u32, record: Option<FragmentNumber>) -> bool {
        let Some(state) = self.runs.get(&run) else { return false };
        if record.is_some() && record != state.record {
            return false;
        }
        match state.last_fragment {
            Some(last) if !self.is_gone(state.stream, last) => true,
            _ => !state.ended && state.record.is_some_and(|number| number.sequence() >> 32 == u64::from(epoch)),
        }
    }

    /// Forgets runs that nothing is left of.
    pub(crate) fn prune(&mut self, epoch: u32) {
        let dead = self.runs.keys().filter(|run| !self.run_lives(**run, epoch, None)).copied();
        for run in dead.collect::<Vec<_>>() {
            self.runs.remove(&run);
        }
    }
}

#[cfg(test)]
mod tests {
    use vidar_core::control::{GapCause, GapRecord, RunRecord};
    use vidar_core::record::WallSource;
    use vidar_core::time::UnixMs;

    use super::*;

    fn number(counter: u64) -> FragmentNumber {
        FragmentNumber::new((7 << 32) | counter, 0, 0)
    }

    fn record(counter: u64, body: Control) -> ControlRecord {
        ControlRecord { number: number(counter), body }
    }

    fn floor(counter: u64, stream: StreamId, below: u64) -> ControlRecord {
        record(counter, Control::Floor { stream, below: number(below), next_ordinal: 0, discontinuity: 0 })
    }

    fn run(stream: StreamId, run: RunId) -> Control {
        Control::Run(RunRecord {
            stream,
            run,
            started: UnixMs(0),
            protocol: "http".into(),
            source: String::new(),
            user_agent: String::new(),
            anchor: UnixMs(0),
            anchor_source: WallSource::Arrival,
            continues: None,
            push: None,
        })
    }

    fn gap(stream: StreamId) -> Control {
        let (start, end, noticed) = (UnixMs(0), UnixMs(1), UnixMs(1));
        Control::Gap(GapRecord {
            stream,
            run: None,
            start,
            end,
            noticed,
            cause: GapCause::Loss,
            count: 1,
            ordinal: None,
        })
    }

    #[test]
    fn floors_only_rise_and_the_newest_is_kept() {
        let stream = StreamId::new();
        let (older, newer) = (floor(5, stream, 4), floor(9, stream, 8));
        let mut controls = Controls::default();
        controls.note(&newer);
        controls.note(&older);
        assert!(controls.is_gone(stream, number(7)) && !controls.is_gone(stream, number(8)));
        assert!(controls.is_needed(&newer, 7, |_| false) && !controls.is_needed(&older, 7, |_| false));
        assert!(!controls.is_needed(&record(3, gap(stream)), 7, |_| false));
        assert!(controls.is_needed(&record(8, gap(stream)), 7, |_| false));
    }

    #[test]
    fn a_deletion_outlives_everything_else_of_its_stream() {
        let stream = StreamId::new();
        let deletion = record(9, Control::StreamDeleted { stream, at: UnixMs(0) });
        let mut controls = Controls::default();
        controls.note(&record(1, run(stream, RunId::new())));
        controls.note(&deletion);
        assert!(controls.is_gone(stream, FragmentNumber::MAX));
        assert!(!controls.is_needed(&record(1, gap(stream)), 7, |_| true));
        assert!(controls.is_needed(&deletion, 7, |_| true));
        assert!(!controls.is_needed(&deletion, 7, |_| false));
        assert_eq!(controls.deleted(), [stream]);
    }

    #[test]
    fn a_run_is_kept_while_it_has_fragments_or_may_get_some() {
        let (stream, id) = (StreamId::new(), RunId::new());
        let begun = record(1, run(stream, id));
        let ended = record(8, Control::RunEnded { stream, run: id, at: UnixMs(0), cause: String::new() });
        let mut controls = Controls::default();
        controls.note(&begun);
        assert!(controls.is_needed(&begun, 7, |_| false), "it runs");
        assert!(!controls.is_needed(&begun, 8, |_| false), "it ran before the restart and left nothing");
        controls.note(&ended);
        assert!(!controls.is_needed(&begun, 7, |_| false));
        let mut meta = crate::segment_file::record::RecordShape::bare(
            crate::segment_file::record::RecordKind::Fragment,
            stream,
            number(5),
            vidar_core::ids::ConfigId::NONE,
        )
        .meta;
        meta.run = id;
        controls.note_fragment(&meta);
        assert!(controls.is_needed(&begun, 8, |_| false) && controls.is_needed(&ended, 8, |_| false));
        controls.note(&floor(9, stream, 6));
        assert!(!controls.is_needed(&begun, 8, |_| false) && !controls.is_needed(&ended, 8, |_| false));
        controls.prune(8);
        assert!(controls.runs.is_empty());
    }
}
