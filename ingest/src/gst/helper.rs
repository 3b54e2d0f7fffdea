//! The helper process: the only place where GStreamer meets bytes from outside.

use std::io::{self, Read, Stdout, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc, AppStreamType};
use rustix::process::{Resource, Rlimit, setrlimit};
use vidar_core::sample::SyncKind;
use vidar_core::track::{Codec, Track, TrackKind};
use vidar_media::RawSample;
use vidar_media::codec::{self, picture_order::ShownTimes};

use super::collect::Collector;
use super::extent::Extent;
use super::format::{Foreign, Source};
use super::id3::Untagged;
use super::message::TIMESCALE_HZ;
use super::tracks::{self, bytes_of};

/// Address space of a helper, in bytes.
const ADDRESS_SPACE_BYTES: u64 = 1 << 30;
/// Processor time of a helper in all, in seconds: days of one live push.
const CPU_SECONDS: u64 = 3600;
/// Input at a time. Small: avidemux takes one step of its header for each buffer, and would leave the rest of a small
/// file where it is.
const READ_BYTES: usize = 4 << 10;
/// Input that waits for the demuxer, in bytes.
const INPUT_BYTES_MAX: u64 = 1 << 20;
/// Between pictures of a stream that says neither times nor a frame rate: as other tools take it, 25 a second.
const FRAME_TICKS: i64 = TIMESCALE_HZ as i64 / 25;
/// Samples of one track that wait.
const SINK_BUFFER_COUNT: u32 = 8;

/// The helper could not start, or lost its parent.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum HelperError {
    /// No such format.
    #[error("format {0}: not known")]
    Format(String),
    /// A limit could not be set.
    #[error("limits: {0}")]
    Limits(io::Error),
    /// GStreamer does not work here.
    #[error("GStreamer: {0}")]
    Pipeline(String),
    /// Standard output is closed.
    #[error("standard output: {0}")]
    Output(#[from] io::Error),
}

type Shared<W = Stdout> = Arc<Mutex<Collector<W>>>;

/// Takes a container on standard input apart; messages on standard output. Faults of the input are messages.
///
/// # Errors
/// If it cannot do its work at all.
pub fn run_helper(format: &str) -> Result<(), HelperError> {
    let format = Foreign::from_name(format).ok_or_else(|| HelperError::Format(format.to_owned()))?;
    // Before the limits: this may run GStreamer's plugin scanner, which would inherit them and note plugins as broken
    // for every process of this user. Nothing from outside has been read yet.
    gst::init().map_err(pipeline_error)?;
    limit_resources().map_err(|error| HelperError::Limits(error.into()))?;
    let collector = Arc::new(Mutex::new(Collector::new(io::stdout())));
    let (pipeline, source) = build(format, &collector)?;
    pipeline.set_state(gst::State::Playing).map_err(pipeline_error)?;
    let cut = Arc::new(AtomicBool::new(false));
    let (extent, told) = (Extent::new(format), Arc::clone(&cut));
    std::thread::spawn(move || feed(&source, extent, &told));
    let result = watch(&pipeline, &collector, &cut);
    // The thread that feeds may wait for input: the process ends without it.
    let _ = pipeline.set_state(gst::State::Null);
    result
}

fn limit_resources() -> rustix::io::Result<()> {
    let to = |value| Rlimit { current: Some(value), maximum: Some(value) };
    setrlimit(Resource::Core, to(0))?;
    setrlimit(Resource::As, to(ADDRESS_SPACE_BYTES))?;
    setrlimit(Resource::Cpu, to(CPU_SECONDS))?;
    // It writes to pipes only.
    setrlimit(Resource::Fsize, to(0))
}

fn build(format: Foreign, collector: &Shared) -> Result<(gst::Pipeline, AppSrc), HelperError> {
    let pipeline = gst::Pipeline::new();
    let source = AppSrc::builder().stream_type(AppStreamType::Stream).format(gst::Format::Bytes);
    let source = source.max_bytes(INPUT_BYTES_MAX).block(true).build();
    pipeline.add(&source).map_err(pipeline_error)?;
    match format.source() {
        Source::Demuxer(name) => add_demuxer(&pipeline, &source, name, collector)?,
        Source::Elementary(caps) => {
            let caps = caps.parse::<gst::Caps>().map_err(pipeline_error)?;
            // The source itself has none: with caps, parsers take its buffers for whole units.
            let pad = source.static_pad("src").ok_or_else(|| HelperError::Pipeline("no source pad".into()))?;
            add_track(&pipeline, &pad, &caps, collector)?;
            lock(collector).complete()?;
        }
    }
    Ok((pipeline, source))
}

fn add_demuxer(pipeline: &gst::Pipeline, source: &AppSrc, name: &str, shared: &Shared) -> Result<(), HelperError> {
    let demuxer = element(name)?;
    pipeline.add(&demuxer).map_err(pipeline_error)?;
    source.link(&demuxer).map_err(pipeline_error)?;
    if let Some(pad) = demuxer.static_pad("src") {
        add_track_when_known(pipeline, &pad, shared);
        return Ok(());
    }
    let (weak, collector) = (pipeline.downgrade(), Arc::clone(shared));
    demuxer.connect_pad_added(move |demuxer, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
        if let Err(error) = add_track(&pipeline, pad, &caps, &collector) {
            gst::element_error!(demuxer, gst::CoreError::Pad, ("{}", error));
        }
    });
    let collector = Arc::clone(shared);
    demuxer.connect_no_more_pads(move |_| written(lock(&collector).complete()));
    Ok(())
}

/// For a demuxer of one track, whose pad is there before its header was read.
fn add_track_when_known(pipeline: &gst::Pipeline, pad: &gst::Pad, shared: &Shared) {
    let (weak, shared) = (pipeline.downgrade(), Arc::clone(shared));
    pad.add_probe(gst::PadProbeType::EVENT_DOWNSTREAM, move |pad, info| {
        let Some(gst::EventView::Caps(event)) = info.event().map(|event| event.view()) else {
            return gst::PadProbeReturn::Ok;
        };
        let Some(pipeline) = weak.upgrade() else { return gst::PadProbeReturn::Remove };
        match add_track(&pipeline, pad, event.caps(), &shared) {
            Ok(()) => written(lock(&shared).complete()),
            Err(error) => gst::element_error!(pipeline, gst::CoreError::Pad, ("{}", error)),
        }
        gst::PadProbeReturn::Remove
    });
}

/// pad → parser → caps → sink; the parser and the caps where the codec has some.
fn add_track(
    pipeline: &gst::Pipeline,
    pad: &gst::Pad,
    caps: &gst::CapsRef,
    shared: &Shared,
) -> Result<(), HelperError> {
    let slot = lock(shared).announce();
    let mut elements = Vec::new();
    if let Some(parsing) = tracks::parsing(caps).filter(|_| slot.is_some()) {
        let wanted = parsing.caps.parse::<gst::Caps>().map_err(pipeline_error)?;
        let filter = gst::ElementFactory::make("capsfilter").property("caps", &wanted).build();
        elements.extend([element(parsing.parser)?, filter.map_err(pipeline_error)?]);
    }
    elements.push(match slot {
        Some(slot) => sink(slot, shared),
        // Over the limit: read past.
        None => element("fakesink")?,
    });
    pipeline.add_many(&elements).map_err(pipeline_error)?;
    gst::Element::link_many(&elements).map_err(pipeline_error)?;
    for element in elements.iter().rev() {
        element.sync_state_with_parent().map_err(pipeline_error)?;
    }
    let first = elements.first().and_then(|element| element.static_pad("sink"));
    let first = first.ok_or_else(|| HelperError::Pipeline("no sink pad".into()))?;
    pad.link(&first).map(|_| ()).map_err(pipeline_error)
}

fn sink(slot: usize, shared: &Shared) -> gst::Element {
    let shared = Arc::clone(shared);
    let state = Arc::new(Mutex::new(TrackState::new(slot, shared)));
    let at_end = Arc::clone(&state);
    let callbacks = AppSinkCallbacks::builder()
        .new_sample(move |sink| {
            let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
            state.lock().expect("no panic under this lock").take(&sample).map_err(|error| {
                gst::element_error!(sink, gst::ResourceError::Write, ("{}", error));
                gst::FlowError::Error
            })?;
            Ok(gst::FlowSuccess::Ok)
        })
        .eos(move |_| written(at_end.lock().expect("no panic under this lock").end()));
    // Not async: a track that stays silent must not keep the others from being played.
    let sink = AppSink::builder().sync(false).async_(false).max_buffers(SINK_BUFFER_COUNT).callbacks(callbacks.build());
    sink.build().upcast()
}

/// Of one track.
struct TrackState<W = Stdout> {
    slot: usize,
    shared: Shared<W>,
    caps: Option<gst::Caps>,
    track: Option<Track>,
    /// For pictures that say when they are decoded, or nothing, and not when they are shown: until one does.
    shown: Option<ShownTimes<RawSample>>,
    /// Where the last sample ended, for one without times.
    next_ticks: i64,
}

impl<W: Write> TrackState<W> {
    fn new(slot: usize, shared: Shared<W>) -> Self {
        Self { slot, shared, caps: None, track: None, shown: None, next_ticks: 0 }
    }

    fn take(&mut self, sample: &gst::Sample) -> io::Result<()> {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps_owned()) else { return Ok(()) };
        if self.caps.as_ref() != Some(&caps) {
            self.end()?;
            self.track = tracks::track(&caps, self.slot as u64 + 1);
            self.caps = Some(caps);
            if let Some(track) = &self.track {
                self.shown = ShownTimes::of(track).filter(|_| buffer.pts().is_none());
                lock(&self.shared).track(self.slot, track.clone())?;
            }
        }
        if self.shown.is_some() && buffer.pts().is_some() {
            // Times of its own: none of them may become another picture's.
            self.end()?;
            self.shown = None;
        }
        let Some(track) = &self.track else { return Ok(()) };
        let data = bytes_of(buffer);
        if data.is_empty() || tracks::is_header(track, &data) || is_info_frame(buffer) {
            return Ok(());
        }
        let shown_by_bytes = matches!(track.codec, Codec::Vp8 | Codec::Vp9).then(|| codec::inspect(track, &data).sync);
        let mut sample = self.timed(track.kind, buffer, sample.segment(), data);
        if let Some(sync) = shown_by_bytes {
            // IVF marks no keyframes, and its durations are steps of its clock.
            (sample.sync, sample.duration_ticks) = (sync.unwrap_or(SyncKind::None), None);
        }
        let Some(shown) = &mut self.shown else { return lock(&self.shared).sample(self.slot, sample) };
        let (data, decoded) = (sample.data.clone(), sample.presentation_ticks);
        shown.push(&data, sample, decoded);
        self.give()
    }

    /// As the buffer says, else behind the last.
    fn timed(
        &mut self,
        kind: TrackKind,
        buffer: &gst::BufferRef,
        segment: Option<&gst::Segment>,
        data: bytes::Bytes,
    ) -> RawSample {
        let ticks = |time: Option<gst::ClockTime>| running_ticks(segment, time?);
        let decode_ticks = ticks(buffer.dts());
        let presentation_ticks = ticks(buffer.pts()).or(decode_ticks).unwrap_or(self.next_ticks);
        let duration_ticks = buffer.duration().and_then(|time| u32::try_from(time.useconds()).ok());
        let step_ticks = duration_ticks.map_or(if kind == TrackKind::Video { FRAME_TICKS } else { 0 }, i64::from);
        self.next_ticks = presentation_ticks.saturating_add(step_ticks);
        let delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let every = kind == TrackKind::Audio || self.track.as_ref().is_some_and(|track| track.codec_id == "V_MJPEG");
        let sync = if delta && !every { SyncKind::None } else { SyncKind::Sync };
        RawSample { track: 0, presentation_ticks, decode_ticks, duration_ticks, sync, block_flags: 0, data }
    }

    /// No more samples of these caps come.
    fn end(&mut self) -> io::Result<()> {
        if let Some(shown) = &mut self.shown {
            shown.finish();
        }
        self.give()
    }

    fn give(&mut self) -> io::Result<()> {
        while let Some((sample, presentation_ticks)) = self.shown.as_mut().and_then(ShownTimes::pop) {
            // When it is decoded follows from when all are shown, as in Matroska.
            let sample = RawSample { presentation_ticks, decode_ticks: None, ..sample };
            lock(&self.shared).sample(self.slot, sample)?;
        }
        Ok(())
    }
}

/// The frame before the first of an MP3 file (Xing, LAME): it tells about the others, and is no sound.
fn is_info_frame(buffer: &gst::BufferRef) -> bool {
    buffer.flags().contains(gst::BufferFlags::DECODE_ONLY | gst::BufferFlags::DROPPABLE)
}

/// A buffer's time on the timeline that all tracks share, in microseconds.
fn running_ticks(segment: Option<&gst::Segment>, time: gst::ClockTime) -> Option<i64> {
    let plain = || i64::try_from(time.useconds()).ok();
    let Some(segment) = segment.and_then(|segment| segment.downcast_ref::<gst::ClockTime>()) else { return plain() };
    match segment.to_running_time_full(time)?.nseconds() {
        gst::Signed::Positive(after) => i64::try_from(after / 1000).ok(),
        gst::Signed::Negative(before) => i64::try_from(before / 1000).ok().map(|ticks| -ticks),
    }
}

/// Standard input to the pipeline. Blocks while the pipeline is behind. `cut`: it ended inside a unit of its format.
fn feed(source: &AppSrc, mut extent: Extent, cut: &AtomicBool) {
    let (mut input, mut untagged) = (io::stdin().lock(), Untagged::default());
    loop {
        let mut chunk = vec![0; READ_BYTES];
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => chunk.truncate(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        // A tag's pictures may hold what looks like a frame.
        let chunk = untagged.push(chunk);
        if chunk.is_empty() {
            continue;
        }
        extent.push(&chunk);
        if source.push_buffer(gst::Buffer::from_mut_slice(chunk)).is_err() {
            // The pipeline has failed: its error is on the bus.
            return;
        }
    }
    cut.store(extent.inside(), Ordering::Release);
    let _ = source.end_of_stream();
}

/// Until the end of the stream, or an error.
fn watch(pipeline: &gst::Pipeline, collector: &Shared, cut: &AtomicBool) -> Result<(), HelperError> {
    let bus = pipeline.bus().ok_or_else(|| HelperError::Pipeline("no bus".into()))?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
            gst::MessageView::Eos(_) if cut.load(Ordering::Acquire) => {
                let detail = "the input was cut off: it ends inside a unit of its format".to_owned();
                return Ok(lock(collector).fail(400, detail)?);
            }
            gst::MessageView::Eos(_) => return Ok(lock(collector).finish()?),
            gst::MessageView::Error(error) => {
                tracing::warn!(error = %error.error(), debug = error.debug().as_deref(), "the pipeline failed");
                return Ok(lock(collector).fail(400, error.error().to_string())?);
            }
            gst::MessageView::Warning(warning) => tracing::warn!(warning = %warning.error(), "the pipeline warns"),
            _ => {}
        }
    }
    Ok(())
}

fn element(factory: &str) -> Result<gst::Element, HelperError> {
    gst::ElementFactory::make(factory).build().map_err(pipeline_error)
}

fn pipeline_error(error: impl std::fmt::Display) -> HelperError {
    HelperError::Pipeline(error.to_string())
}

fn lock<W>(shared: &Shared<W>) -> MutexGuard<'_, Collector<W>> {
    shared.lock().expect("no panic under this lock")
}

/// Nobody reads any more.
fn written(result: io::Result<()>) {
    if result.is_err() {
        std::process::exit(1);
    }
}

#[cfg(test)]
#[path = "helper_tests.rs"]
mod tests;
