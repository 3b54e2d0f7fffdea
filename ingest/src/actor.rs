//! The owner of a push's state: what its events mean for runs, fragments and wall-clock time.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use tokio::sync::mpsc;
use tracing::Instrument;
use vidar_core::admission::Permit;
use vidar_core::control::{Control, GapCause, GapRecord, RunRecord};
use vidar_core::error::ErrorKind;
use vidar_core::hub::LiveEvent;
use vidar_core::ids::{ConfigId, RunId, StreamId};
use vidar_core::limits::{CLOCK_STEP_MS, CONTINUES_MS};
use vidar_core::record::{FragmentFlags, FragmentMeta, NewFragment, WallSource};
use vidar_core::sink::OpenFragment;
use vidar_core::time::{UnixMs, ticks_to_ms_nearest};
use vidar_core::track::StreamConfig;
use vidar_media::Event;
use vidar_media::fragmenter::{self, Cut, Fragmenter, Output};

use crate::budget::Reservation;
use crate::committer::{Job, run_committer};
use crate::last_run::LastRun;
use crate::push::{Arrived, Ingest, Message, PushError, PushStart};
use crate::push_log::PushLog;

/// Records of one push on their way to the disk.
const JOB_COUNT: usize = 64;

/// Media time and wall-clock time of one instant.
#[derive(Debug, Clone, Copy)]
struct Wall {
    media_ms: i64,
    at: UnixMs,
    source: WallSource,
}

impl Wall {
    fn at_media(&self, media_ms: i64) -> UnixMs {
        self.at.plus_ms(media_ms.saturating_sub(self.media_ms))
    }
}

/// The run that goes on.
#[derive(Debug)]
struct Run {
    id: RunId,
    started: UnixMs,
    started_monotonic: Duration,
    /// Arrival of its first sample.
    arrival: Option<Wall>,
    /// Newest report of the producer's clock.
    report: Option<Wall>,
    /// Fixed when its first fragment (or part) goes out.
    anchor: Option<Wall>,
    continues: Option<RunId>,
    /// Fragments opened so far.
    fragment_count: u64,
}

/// A cut whose producer time is not known yet.
#[derive(Debug)]
struct Waiting {
    cut: Cut,
    open: OpenFragment,
    run_start: bool,
    reservation: Reservation,
}

pub(crate) struct Actor {
    ingest: Arc<Ingest>,
    stream: StreamId,
    start: PushStart,
    log: Arc<PushLog>,
    failure: Arc<OnceLock<PushError>>,
    permit: Arc<dyn Permit>,
    fragmenter: Fragmenter,
    outputs: Vec<Output>,
    /// For viewers, not yet published.
    live: Vec<LiveEvent>,
    /// Bytes of the samples that the fragmenter holds.
    held: Reservation,
    run: Run,
    /// A given start time anchors the first run only.
    given: Option<UnixMs>,
    open: Option<OpenFragment>,
    /// What was cut before the sample that a given start is the time of.
    waiting: Vec<Waiting>,
    config: Arc<StreamConfig>,
    /// What the source's own fragment that goes on gave as its time.
    source_units: Option<i64>,
    /// Of the newest sample.
    arrival: Option<Wall>,
    /// The run ends because the server's clock stepped: the source's times go on.
    clock_stepped: bool,
}

impl Actor {
    pub(crate) fn new(
        ingest: Arc<Ingest>,
        stream: StreamId,
        start: PushStart,
        log: Arc<PushLog>,
        failure: Arc<OnceLock<PushError>>,
        permit: Arc<dyn Permit>,
    ) -> Self {
        let as_sent = start.as_sent.is_some();
        let fragmenter = Fragmenter::new(fragmenter::Options { as_sent, ..ingest.options.fragmenter });
        let (held, run, given) = (Reservation::empty(&ingest.budget), new_run(&ingest, &start), start.start);
        let (outputs, open, config) = (Vec::new(), None, Arc::default());
        Self {
            ingest,
            stream,
            start,
            log,
            failure,
            permit,
            fragmenter,
            outputs,
            live: Vec::new(),
            held,
            run,
            given,
            open,
            waiting: Vec::new(),
            config,
            source_units: None,
            arrival: None,
            clock_stepped: false,
        }
    }

    pub(crate) async fn run(mut self, mut inbox: mpsc::Receiver<Message>) {
        let (jobs, receiver) = mpsc::channel(JOB_COUNT);
        let committer = run_committer(
            receiver,
            Arc::clone(&self.ingest),
            self.stream,
            Arc::clone(&self.log),
            Arc::clone(&self.failure),
            self.start.as_sent.as_ref().map(|sent| Arc::clone(&sent.follower)),
        );
        let committer = tokio::spawn(committer.in_current_span());
        let mut end = (false, "connection lost".to_owned());
        let budget = Arc::clone(&self.ingest.budget);
        // One registration for many messages: all pushes share its list.
        let mut pressure = std::pin::pin!(budget.pressure());
        loop {
            let message = tokio::select! {
                biased;
                message = inbox.recv() => message, // recv is cancel-safe
                () = &mut pressure => {
                    pressure.set(budget.pressure());
                    if self.relieve(&jobs).await.is_err() { break }
                    continue;
                }
            };
            match message {
                Some(Message::Events { events, reservation }) => {
                    if self.events(events, reservation, &jobs).await.is_err() || self.relieve(&jobs).await.is_err() {
                        break;
                    }
                }
                Some(Message::Finish { complete, cause }) => {
                    end = (complete, cause);
                    break;
                }
                None => break,
            }
        }
        inbox.close(); // whoever sends now sees "closed", not silence
        let (complete, cause) = end;
        // After a failure too: what is complete may still be kept, and what is not becomes a gap.
        self.fragmenter.finish(complete, &mut self.outputs);
        // A failure is in `failure` and in the log.
        let _ = self.give_out(&jobs).await;
        self.end_run(&cause, &jobs).await;
        drop(jobs);
        if let Err(error) = committer.await {
            tracing::error!(%error, "the committer failed");
            self.fail(ErrorKind::Internal, "internal error".to_owned());
        }
        self.log.end();
        let (fragments, _) = self.log.outcome();
        tracing::info!(fragments, cause, "push ended");
        drop(self.permit); // only now may the next publisher come
    }

    /// Gives out what is held, where memory is short.
    async fn relieve(&mut self, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        let Some(above_bytes) = self.ingest.budget.spill_above_bytes() else { return Ok(()) };
        if self.fragmenter.held_bytes() > above_bytes {
            self.fragmenter.spill(&mut self.outputs);
            self.give_out(jobs).await?;
        }
        self.anchor_anyway(jobs).await
    }

    async fn events(
        &mut self,
        events: Vec<Arrived>,
        mut reservation: Reservation,
        jobs: &mpsc::Sender<Job>,
    ) -> Result<(), ()> {
        let now = self.ingest.clock.now();
        for arrived in events {
            let cost_bytes = arrived.cost_bytes();
            self.event(arrived, now, jobs).await?;
            // Only now: what went out so far did not hold this sample.
            self.held.take_from(&mut reservation, cost_bytes);
        }
        self.publish();
        Ok(())
    }

    async fn event(&mut self, arrived: Arrived, now: UnixMs, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        let Arrived { at: arrived, event } = arrived;
        match &event {
            // A source that says what time its fragments are of knows better than a header.
            Event::Wall { track, presentation_ticks, at } if self.start.as_sent.is_none() => {
                self.report(*track, *presentation_ticks, *at);
            }
            Event::SourceFragment { units, .. } => self.source_units = *units,
            Event::Sample(sample) => {
                if self.start.as_sent.is_none() {
                    self.check_clock(now);
                }
                self.give_out(jobs).await?;
                let media_ms = self.media_ms(sample.track, sample.presentation_ticks);
                let wall = Wall { media_ms, at: arrived.unwrap_or(now), source: WallSource::Arrival };
                self.arrival = Some(wall);
                self.run.arrival.get_or_insert(wall);
            }
            Event::Config(config) => self.config = Arc::new(config.clone()),
            _ => {}
        }
        if let Err(error) = self.fragmenter.push(event, &mut self.outputs) {
            self.fail(ErrorKind::Malformed, error.to_string());
            return Err(());
        }
        self.give_out(jobs).await
    }

    /// A step of the server's clock begins a run.
    fn check_clock(&mut self, now: UnixMs) {
        let elapsed = self.ingest.clock.monotonic().saturating_sub(self.run.started_monotonic);
        let expected = self.run.started.plus_ms(i64::try_from(elapsed.as_millis()).unwrap_or(i64::MAX));
        let step_ms = now.since_ms(expected);
        if step_ms.abs() > CLOCK_STEP_MS {
            tracing::warn!(step_ms, "the server's clock stepped");
            self.clock_stepped = true;
            self.fragmenter.break_run(&mut self.outputs);
        }
    }

    fn report(&mut self, track: u8, ticks: i64, at: UnixMs) {
        let source = if self.start.protocol == "rtsp" { WallSource::SenderReport } else { WallSource::Container };
        self.run.report = Some(Wall { media_ms: self.media_ms(track, ticks), at, source });
    }

    fn media_ms(&self, track: u8, ticks: i64) -> i64 {
        let timescale_hz = self.config.tracks.get(usize::from(track)).map_or(1000, |track| track.timescale_hz);
        ticks_to_ms_nearest(ticks, timescale_hz)
    }

    /// Hands on what the fragmenter gave out.
    async fn give_out(&mut self, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        let mut outputs = std::mem::take(&mut self.outputs);
        for output in outputs.drain(..) {
            match output {
                Output::RunBreak => self.next_run(jobs).await,
                Output::Open { config, start_ms, starts_with_sync } => self.open(config, start_ms, starts_with_sync)?,
                Output::Sample(sample) => {
                    self.live.extend(self.open.map(|open| LiveEvent::Sample { number: open.number, sample }));
                }
                Output::Tags(tags) => {
                    self.live.extend(self.open.map(|open| LiveEvent::Tags { number: open.number, tags }));
                }
                Output::Cut(cut) => self.cut(cut, jobs).await?,
            }
        }
        self.outputs = outputs; // its room is used again
        Ok(())
    }

    async fn next_run(&mut self, jobs: &mpsc::Sender<Job>) {
        let stepped = std::mem::take(&mut self.clock_stepped);
        self.end_run(if stepped { "the server's clock stepped" } else { "times jumped" }, jobs).await;
        let (anchor, report) = (self.run.anchor, self.run.report);
        self.run = new_run(&self.ingest, &self.start);
        if stepped {
            // What was given or reported is of the producer's clock, and media times go on: it still holds.
            let given = anchor.filter(|anchor| anchor.source == WallSource::Given);
            self.run.report = given.or(report);
        } else {
            // The sample that jumped is the first of the new run.
            self.run.arrival = self.arrival;
        }
    }

    /// The best knowledge of the wall clock: fixed with the first cut.
    fn wall(&self) -> Wall {
        let arrival = || Wall { media_ms: 0, at: self.run.started, source: WallSource::Arrival };
        self.run.anchor.or(self.run.report).or(self.run.arrival).unwrap_or_else(arrival)
    }

    fn open(&mut self, config: Arc<StreamConfig>, start_ms: i64, starts_with_sync: bool) -> Result<(), ()> {
        let producer_start = self.given.unwrap_or_else(|| self.wall().at_media(start_ms));
        let run_start = self.run.fragment_count == 0;
        if run_start && let Some(last) = self.ingest.last_run(self.stream) {
            let distance_ms = producer_start.since_ms(last.end);
            let continues = distance_ms.abs() <= CONTINUES_MS && same_tracks(&last.config, &config);
            self.run.continues = continues.then_some(last.run);
        }
        let continues = self.run.continues.is_some();
        let opened = self.ingest.sink.open_fragment(self.stream, self.run.id, run_start, continues);
        let fragment = opened.map_err(|error| self.fail(error.kind(), error.to_string()))?;
        self.run.fragment_count += 1;
        self.open = Some(fragment);
        if let Some(sent) = &self.start.as_sent {
            sent.follower.opened(fragment.number, self.source_units);
        }
        let (run, is_anchored) = (self.run.id, self.run.anchor.is_some());
        self.live.push(LiveEvent::Opened { fragment, run, config, producer_start, is_anchored, starts_with_sync });
        // At once: where two connections push, viewers learn of fragments in the order of their numbers.
        self.publish();
        Ok(())
    }

    /// A given start is the time of the run's first sync sample of the primary track: until that has come, what is cut
    /// waits (without video every sample is one). A fragment at its limit, the end of the run, and want of memory end
    /// the waiting; then it is the time of what came first.
    async fn cut(&mut self, cut: Cut, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        let Some(open) = self.open else { return Ok(()) };
        let reservation = self.held.take();
        let run_start = self.run.fragment_count == 1;
        if cut.part.is_none() {
            self.open = None;
            let Cut { duration_ms, next_decode_ticks, .. } = cut;
            self.live.push(LiveEvent::Closed { fragment: open, duration_ms, next_decode_ticks });
        }
        let (start_ms, is_sync) = (cut.start_ms, cut.start_is_sync);
        let at_limit = cut.part.is_none() && cut.flags.contains(FragmentFlags::CUT_AT_LIMIT);
        let cut = Waiting { cut, open, run_start, reservation };
        if self.run.anchor.is_some() {
            return self.write(cut, jobs).await;
        }
        self.waiting.push(cut);
        if is_sync || self.given.is_none() {
            return self.anchor_at(start_ms, jobs).await;
        }
        if at_limit { self.anchor_anyway(jobs).await } else { Ok(()) }
    }

    /// The sample that a given start is the time of did not come in time.
    async fn anchor_anyway(&mut self, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        match self.waiting.first() {
            Some(first) => self.anchor_at(first.cut.start_ms, jobs).await,
            None => Ok(()),
        }
    }

    async fn anchor_at(&mut self, start_ms: i64, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        self.fix_anchor(start_ms, jobs).await?;
        for cut in std::mem::take(&mut self.waiting) {
            self.write(cut, jobs).await?;
        }
        Ok(())
    }

    async fn write(&mut self, waiting: Waiting, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        let Waiting { cut, open, run_start, reservation } = waiting;
        let anchor = self.wall();
        let mut facts = cut.facts;
        let newest = self.run.report.unwrap_or(anchor);
        facts.wall_offset_ms = newest.at.since_ms(anchor.at_media(newest.media_ms));
        facts.wall_source = newest.source;
        let meta = FragmentMeta {
            stream: self.stream,
            number: open.number,
            run: self.run.id,
            lease_epoch: 0,
            ordinal: open.ordinal,
            discontinuity: open.discontinuity,
            producer_start: anchor.at_media(cut.start_ms),
            duration_ms: cut.duration_ms,
            config: ConfigId::NONE, // the committer fills it in
            flags: cut.flags.with(FragmentFlags::RUN_START, run_start),
        };
        // A producer that cuts its own fragments sends those again that it does not know to be here.
        let may_repeat = cut.part.is_none() && self.start.as_sent.is_some();
        let meta = FragmentMeta { flags: meta.flags.with(FragmentFlags::REPEATS, may_repeat), ..meta };
        if cut.part.is_none() {
            let last = LastRun { run: self.run.id, end: meta.producer_end(), config: Arc::clone(&cut.config) };
            self.ingest.set_last_run(self.stream, last);
        }
        let lost = (cut.part.is_none() && facts.lost_count > 0).then(|| GapRecord {
            stream: self.stream,
            run: Some(self.run.id),
            start: meta.producer_start,
            end: meta.producer_end(),
            noticed: self.ingest.clock.now(),
            cause: GapCause::Loss,
            count: facts.lost_count.into(),
            ordinal: None,
        });
        let fragment = NewFragment { meta, part: cut.part, facts, table: cut.table, media: cut.media };
        self.send(jobs, Job::Append { fragment, open, config: cut.config, reservation }).await?;
        match lost {
            Some(gap) => self.send(jobs, Job::Control(Control::Gap(gap))).await,
            None => Ok(()),
        }
    }

    async fn fix_anchor(&mut self, start_ms: i64, jobs: &mpsc::Sender<Job>) -> Result<(), ()> {
        let given = self.given.take().map(|at| Wall { media_ms: start_ms, at, source: WallSource::Given });
        let anchor = given.unwrap_or_else(|| self.wall());
        self.run.anchor = Some(anchor);
        let record = RunRecord {
            stream: self.stream,
            run: self.run.id,
            started: self.run.started,
            protocol: self.start.protocol.to_owned(),
            source: self.start.source.clone(),
            user_agent: self.start.user_agent.clone(),
            anchor: anchor.at_media(start_ms),
            anchor_source: anchor.source,
            continues: self.run.continues,
            push: Some(self.log.push),
        };
        self.send(jobs, Job::Control(Control::Run(record))).await
    }

    async fn end_run(&mut self, cause: &str, jobs: &mpsc::Sender<Job>) {
        // A failure is in `failure` and in the log.
        let _ = self.anchor_anyway(jobs).await;
        self.live.push(LiveEvent::Ended(self.run.id));
        self.publish();
        if self.run.anchor.is_some() {
            let at = self.ingest.clock.now();
            let ended = Control::RunEnded { stream: self.stream, run: self.run.id, at, cause: cause.to_owned() };
            // Without a committer there is nobody to tell.
            let _ = self.send(jobs, Job::Control(ended)).await;
        }
    }

    /// Viewers learn of what happened so far.
    fn publish(&mut self) {
        if !self.live.is_empty() {
            self.ingest.hub.publish_all(self.stream, &mut self.live);
        }
    }

    /// Viewers first: they hear that a fragment is durable from whoever takes the job.
    async fn send(&mut self, jobs: &mpsc::Sender<Job>, job: Job) -> Result<(), ()> {
        self.publish();
        jobs.send(job).await.map_err(|_| self.fail(ErrorKind::Internal, "internal error".to_owned()))
    }

    fn fail(&self, kind: ErrorKind, detail: String) {
        let error = PushError { kind, detail };
        if self.failure.set(error.clone()).is_ok() {
            if let Some(sent) = &self.start.as_sent {
                sent.follower.stopped(self.source_units, &error);
            }
            self.log.error(kind.http_status(), error.detail, None);
        }
    }
}

fn new_run(ingest: &Ingest, start: &PushStart) -> Run {
    let sent = start.as_sent.as_ref();
    Run {
        id: RunId::new(),
        started: ingest.clock.now(),
        started_monotonic: ingest.clock.monotonic(),
        arrival: None,
        report: sent.map(|sent| Wall { media_ms: 0, at: sent.origin, source: WallSource::Given }),
        anchor: None,
        continues: None,
        fragment_count: 0,
    }
}

/// Same tracks: the header bytes of a container may differ (dates, application names).
fn same_tracks(a: &StreamConfig, b: &StreamConfig) -> bool {
    a.tracks == b.tracks
}
