//! Streams, runs and gaps, from control records: of two that speak of the same thing, the greater number holds.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, RwLock};

use vidar_core::control::{Control, ControlRecord, GapRecord, RunRecord, StreamRecord};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::{FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::time::UnixMs;

use crate::interval::{IntervalIndex, Span};
use crate::lock::{read, write};
use crate::timeline::{TimeAxis, Timeline};

/// A run as it stands now.
#[derive(Debug, Clone)]
pub struct RunView {
    /// What is known of the connection.
    pub record: Arc<RunRecord>,
    /// When it ended by the server's clock, and why; none: it goes on.
    pub ended: Option<(UnixMs, String)>,
    /// Its fragment of the smallest number.
    pub first: Option<SharedEntry>,
    /// Its fragment of the greatest number.
    pub last: Option<SharedEntry>,
    /// What its fragments cover by the producer's clock, from the earliest start to the latest end.
    pub producer: Option<Range<UnixMs>>,
    /// Its fragments that may be read.
    pub fragment_count: u64,
}

impl RunView {
    /// By the producer's clock: it has media in the range; without any media, its anchor counts. By the server's: it
    /// went on then.
    #[must_use]
    pub fn is_in(&self, axis: TimeAxis, range: &Range<UnixMs>) -> bool {
        let own = match (axis, &self.producer) {
            (TimeAxis::Producer, Some(span)) => Span::new(span.start, span.end),
            (TimeAxis::Producer, None) => Span::new(self.record.anchor, self.record.anchor),
            (TimeAxis::Server, _) => {
                let end = self.ended.as_ref().map_or(UnixMs(i64::MAX), |(at, _)| *at);
                Span::new(self.record.started, end)
            }
        };
        own.overlaps(range.start, range.end)
    }
}

/// Which of some runs overlap one another by the producer's clock.
pub struct RunOverlaps {
    runs: IntervalIndex<RunId>,
}

impl RunOverlaps {
    /// Of all runs of a stream.
    #[must_use]
    pub fn of(runs: &[RunView]) -> Self {
        let mut by_time = IntervalIndex::default();
        for run in runs {
            if let (Some(span), Some(first)) = (&run.producer, &run.first) {
                by_time.insert(Span::new(span.start, span.end), first.meta.number, run.record.run);
            }
        }
        Self { runs: by_time }
    }

    /// The other runs that overlap this one, in order of their starts by the producer's clock.
    pub fn with(&self, run: &RunView) -> impl Iterator<Item = RunId> {
        let (own, span) = (run.record.run, run.producer.clone());
        let found = span.into_iter().flat_map(|span| self.runs.overlapping(span.start, span.end, None));
        found.map(|(.., run)| *run).filter(move |run| *run != own)
    }
}

/// Streams, runs and gaps.
pub struct Catalog {
    timeline: Arc<Timeline>,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    streams: HashMap<StreamId, Known>,
    /// A name may be on its way from one stream to the next: whoever's record has the greatest number has it.
    names: BTreeMap<StreamName, Vec<StreamId>>,
    deleted: HashSet<StreamId>,
}

#[derive(Default)]
struct Known {
    record: Option<(FragmentNumber, Arc<StreamRecord>)>,
    runs: HashMap<RunId, Run>,
    gaps: IntervalIndex<Arc<GapRecord>>,
    gap_spans: BTreeMap<FragmentNumber, (Span, Arc<GapRecord>)>,
    /// Fragments below it are gone.
    floor: Option<FragmentNumber>,
}

#[derive(Default, Clone)]
pub(crate) struct Run {
    pub(crate) record: Option<(FragmentNumber, Arc<RunRecord>)>,
    pub(crate) ended: Option<(FragmentNumber, UnixMs, String)>,
}

impl Run {
    /// It ended before the first fragment that may be read began: nothing of it is left.
    fn is_over_below(&self, floor: FragmentNumber) -> bool {
        self.ended.as_ref().is_some_and(|(number, _, _)| *number < floor)
    }
}

impl Catalog {
    pub(crate) fn new(timeline: Arc<Timeline>) -> Self {
        Self { timeline, state: RwLock::default() }
    }

    /// The stream of that name.
    #[must_use]
    pub fn stream_by_name(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        read(&self.state).named(name)
    }

    /// A stream.
    #[must_use]
    pub fn stream(&self, stream: StreamId) -> Option<Arc<StreamRecord>> {
        read(&self.state).streams.get(&stream)?.record.as_ref().map(|(_, record)| Arc::clone(record))
    }

    /// All streams, in order of name.
    #[must_use]
    pub fn streams(&self) -> Vec<Arc<StreamRecord>> {
        let state = read(&self.state);
        state.names.keys().filter_map(|name| state.named(name)).collect()
    }

    /// The runs of a stream in order of their beginning by the server's clock.
    ///
    /// A run is forgotten once all of its fragments are gone and it ended.
    #[must_use]
    pub fn runs(&self, stream: StreamId) -> Vec<RunView> {
        let (floor, mut runs) = {
            let state = read(&self.state);
            let Some(known) = state.streams.get(&stream) else { return Vec::new() };
            let runs: Vec<_> = known.runs.iter().map(|(id, run)| (*id, run.clone())).collect();
            (known.floor, runs)
        };
        runs.sort_unstable_by_key(|(id, run)| (run.record.as_ref().map(|(_, record)| record.started), *id));
        let ids: Vec<RunId> = runs.iter().map(|(id, _)| *id).collect();
        let spans = self.timeline.run_spans(stream, &ids);
        runs.into_iter().zip(spans).filter_map(|((_, run), span)| view(run, span, floor)).collect()
    }

    /// A run.
    #[must_use]
    pub fn run(&self, stream: StreamId, run: RunId) -> Option<RunView> {
        let (floor, found) = {
            let state = read(&self.state);
            let known = state.streams.get(&stream)?;
            (known.floor, known.runs.get(&run)?.clone())
        };
        view(found, self.timeline.run_spans(stream, &[run]).pop()?, floor)
    }

    /// The gaps of a stream in order of their beginning by the producer's clock; with a range, those that overlap it.
    /// Gaps noticed before the first fragment that may be read are gone.
    #[must_use]
    pub fn gaps(&self, stream: StreamId, range: Option<Range<UnixMs>>) -> Vec<Arc<GapRecord>> {
        let range = range.unwrap_or(UnixMs(i64::MIN)..UnixMs(i64::MAX));
        let state = read(&self.state);
        let Some(known) = state.streams.get(&stream) else { return Vec::new() };
        known.gaps.overlapping(range.start, range.end, None).map(|(_, _, gap)| Arc::clone(gap)).collect()
    }

    /// The gaps of a stream that were noticed in a range by the server's clock, in no order.
    #[must_use]
    pub fn gaps_noticed(&self, stream: StreamId, range: &Range<UnixMs>) -> Vec<Arc<GapRecord>> {
        let state = read(&self.state);
        let Some(known) = state.streams.get(&stream) else { return Vec::new() };
        let gaps = known.gap_spans.values().map(|(_, gap)| gap);
        gaps.filter(|gap| range.contains(&gap.noticed)).map(Arc::clone).collect()
    }

    /// A stream was deleted, and its id will never be used again.
    #[must_use]
    pub fn is_deleted(&self, stream: StreamId) -> bool {
        read(&self.state).deleted.contains(&stream)
    }

    pub(crate) fn run_state(&self, stream: StreamId, run: RunId) -> Option<Run> {
        read(&self.state).streams.get(&stream)?.runs.get(&run).cloned()
    }

    pub(crate) fn gap(&self, stream: StreamId, number: FragmentNumber) -> Option<Arc<GapRecord>> {
        read(&self.state).streams.get(&stream)?.gap_spans.get(&number).map(|(_, gap)| Arc::clone(gap))
    }

    /// Numbers of the records that hold of streams and of runs.
    pub(crate) fn held_numbers(&self) -> Vec<FragmentNumber> {
        let state = read(&self.state);
        let streams = state.streams.values().filter_map(|known| known.record.as_ref().map(|(number, _)| *number));
        let runs = state.streams.values().flat_map(|known| known.runs.values());
        streams.chain(runs.filter_map(|run| run.record.as_ref().map(|(number, _)| *number))).collect()
    }

    /// All streams of which something is known.
    pub(crate) fn known(&self) -> Vec<StreamId> {
        read(&self.state).streams.keys().copied().collect()
    }

    pub(crate) fn run_ids(&self, stream: StreamId) -> Vec<RunId> {
        read(&self.state).streams.get(&stream).map(|known| known.runs.keys().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn gap_numbers(&self, stream: StreamId) -> Vec<FragmentNumber> {
        let state = read(&self.state);
        state.streams.get(&stream).map(|known| known.gap_spans.keys().copied().collect()).unwrap_or_default()
    }

    pub(crate) fn apply(&self, record: &ControlRecord) {
        let mut state = write(&self.state);
        if record.body.stream().is_some_and(|stream| state.deleted.contains(&stream)) {
            return;
        }
        match &record.body {
            Control::Stream(body) => state.put_stream(record.number, body),
            Control::StreamDeleted { stream, .. } => state.delete(*stream),
            Control::Run(body) => {
                let known = state.known(body.stream);
                let run = known.runs.entry(body.run).or_default();
                if run.record.as_ref().is_none_or(|(number, _)| *number < record.number) {
                    run.record = Some((record.number, Arc::new(body.clone())));
                }
                known.forget_run(body.run);
            }
            Control::RunEnded { stream, run: id, at, cause } => {
                let known = state.known(*stream);
                let run = known.runs.entry(*id).or_default();
                if run.ended.as_ref().is_none_or(|(number, _, _)| *number < record.number) {
                    run.ended = Some((record.number, *at, cause.clone()));
                }
                known.forget_run(*id);
            }
            Control::Gap(body) => state.known(body.stream).put_gap(record.number, body),
            Control::Floor { stream, below, .. } => state.known(*stream).raise_floor(*below),
            Control::Key { .. } => {}
        }
    }
}

impl State {
    fn known(&mut self, stream: StreamId) -> &mut Known {
        self.streams.entry(stream).or_default()
    }

    fn named(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        let records = self.names.get(name)?.iter().filter_map(|id| self.streams.get(id)?.record.as_ref());
        records.max_by_key(|(number, _)| *number).map(|(_, record)| Arc::clone(record))
    }

    fn put_stream(&mut self, number: FragmentNumber, record: &StreamRecord) {
        let known = self.streams.entry(record.stream).or_default();
        if known.record.as_ref().is_some_and(|(held, _)| *held >= number) {
            return;
        }
        let before = known.record.replace((number, Arc::new(record.clone())));
        if let Some((_, before)) = before {
            self.drop_name(&before.name, before.stream);
        }
        self.names.entry(record.name.clone()).or_default().push(record.stream);
    }

    fn delete(&mut self, stream: StreamId) {
        self.deleted.insert(stream);
        if let Some(Known { record: Some((_, record)), .. }) = self.streams.remove(&stream) {
            self.drop_name(&record.name, stream);
        }
    }

    fn drop_name(&mut self, name: &StreamName, stream: StreamId) {
        if let Some(ids) = self.names.get_mut(name) {
            ids.retain(|id| *id != stream);
            if ids.is_empty() {
                self.names.remove(name);
            }
        }
    }
}

impl Known {
    fn put_gap(&mut self, number: FragmentNumber, record: &GapRecord) {
        if self.floor.is_some_and(|floor| number < floor) || self.gap_spans.contains_key(&number) {
            return;
        }
        let (span, record) = (Span::new(record.start, record.end), Arc::new(record.clone()));
        self.gaps.insert(span, number, Arc::clone(&record));
        self.gap_spans.insert(number, (span, record));
    }

    fn raise_floor(&mut self, below: FragmentNumber) {
        if self.floor.is_some_and(|floor| below <= floor) {
            return;
        }
        self.floor = Some(below);
        self.runs.retain(|_, run| !run.is_over_below(below));
        while let Some(entry) = self.gap_spans.first_entry()
            && *entry.key() < below
        {
            let (number, (span, _)) = entry.remove_entry();
            self.gaps.remove(span, number);
        }
    }

    fn forget_run(&mut self, run: RunId) {
        if self.runs.get(&run).is_some_and(|run| self.floor.is_some_and(|floor| run.is_over_below(floor))) {
            self.runs.remove(&run);
        }
    }
}

/// None: no record of it came yet, or nothing of it is left.
fn view(run: Run, span: Option<crate::timeline::RunSpan>, floor: Option<FragmentNumber>) -> Option<RunView> {
    let (number, record) = run.record?;
    if span.is_none() && floor.is_some_and(|floor| number < floor) {
        return None;
    }
    Some(RunView {
        record,
        ended: run.ended.map(|(_, at, cause)| (at, cause)),
        producer: span.as_ref().map(|span| span.start..span.end),
        fragment_count: span.as_ref().map_or(0, |span| span.count),
        first: span.as_ref().map(|span| Arc::clone(&span.first)),
        last: span.map(|span| span.last),
    })
}
