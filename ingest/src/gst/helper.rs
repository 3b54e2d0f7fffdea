//! The helper process: the only place where GStreamer meets bytes from outside.

use std::io::{self, Read, Stdout};
use std::sync::{Arc, Mutex, MutexGuard};

use gst::prelude::*;
use gstreamer as gst;
use gstreamer_app::{AppSink, AppSinkCallbacks, AppSrc, AppStreamType};
use rustix::process::{Resource, Rlimit, setrlimit};
use vidar_core::sample::SyncKind;
use vidar_core::track::{Track, TrackKind};
use vidar_media::RawSample;

use super::collect::Collector;
use super::format::Foreign;
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

type Shared = Arc<Mutex<Collector<Stdout>>>;

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
    std::thread::spawn(move || feed(&source));
    let result = watch(&pipeline, &collector);
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
    let demuxer = element(format.demuxer())?;
    pipeline.add_many([source.upcast_ref(), &demuxer]).map_err(pipeline_error)?;
    source.link(&demuxer).map_err(pipeline_error)?;

    let (weak, shared) = (pipeline.downgrade(), Arc::clone(collector));
    demuxer.connect_pad_added(move |demuxer, pad| {
        let Some(pipeline) = weak.upgrade() else { return };
        if let Err(error) = add_track(&pipeline, pad, &shared) {
            gst::element_error!(demuxer, gst::CoreError::Pad, ("{}", error));
        }
    });
    let shared = Arc::clone(collector);
    demuxer.connect_no_more_pads(move |_| written(lock(&shared).complete()));
    Ok((pipeline, source))
}

/// pad → parser → caps → sink; the parser and the caps where the codec has some.
fn add_track(pipeline: &gst::Pipeline, pad: &gst::Pad, shared: &Shared) -> Result<(), HelperError> {
    let caps = pad.current_caps().unwrap_or_else(|| pad.query_caps(None));
    let slot = lock(shared).announce();
    let mut elements = Vec::new();
    if let Some(parsing) = tracks::parsing(&caps).filter(|_| slot.is_some()) {
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
    let mut state = TrackState::default();
    let callbacks = AppSinkCallbacks::builder().new_sample(move |sink| {
        let sample = sink.pull_sample().map_err(|_| gst::FlowError::Eos)?;
        state.take(slot, &sample, &shared).map_err(|error| {
            gst::element_error!(sink, gst::ResourceError::Write, ("{}", error));
            gst::FlowError::Error
        })?;
        Ok(gst::FlowSuccess::Ok)
    });
    // Not async: a track that stays silent must not keep the others from being played.
    let sink = AppSink::builder().sync(false).async_(false).max_buffers(SINK_BUFFER_COUNT).callbacks(callbacks.build());
    sink.build().upcast()
}

/// Of one track.
#[derive(Default)]
struct TrackState {
    caps: Option<gst::Caps>,
    track: Option<Track>,
    /// Where the last sample ended, for one without times.
    next_ticks: i64,
}

impl TrackState {
    fn take(&mut self, slot: usize, sample: &gst::Sample, shared: &Shared) -> io::Result<()> {
        let (Some(buffer), Some(caps)) = (sample.buffer(), sample.caps_owned()) else { return Ok(()) };
        if self.caps.as_ref() != Some(&caps) {
            self.track = tracks::track(&caps, slot as u64 + 1);
            self.caps = Some(caps);
            if let Some(track) = &self.track {
                lock(shared).track(slot, track.clone())?;
            }
        }
        let Some(track) = &self.track else { return Ok(()) };
        let data = bytes_of(buffer);
        if data.is_empty() || tracks::is_header(track, &data) {
            return Ok(());
        }
        let ticks = |time: Option<gst::ClockTime>| running_ticks(sample.segment(), time?);
        let decode_ticks = ticks(buffer.dts());
        let presentation_ticks = ticks(buffer.pts()).or(decode_ticks).unwrap_or(self.next_ticks);
        let duration_ticks = buffer.duration().and_then(|time| u32::try_from(time.useconds()).ok());
        self.next_ticks = presentation_ticks.saturating_add(duration_ticks.unwrap_or(0).into());
        let delta = buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let alone = track.kind == TrackKind::Audio || track.codec_id == "V_MJPEG";
        let sync = if delta && !alone { SyncKind::None } else { SyncKind::Sync };
        let track = 0;
        let sample = RawSample { track, presentation_ticks, decode_ticks, duration_ticks, sync, block_flags: 0, data };
        lock(shared).sample(slot, sample)
    }
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

/// Standard input to the pipeline. Blocks while the pipeline is behind.
fn feed(source: &AppSrc) {
    let mut input = io::stdin().lock();
    loop {
        let mut chunk = vec![0; READ_BYTES];
        match input.read(&mut chunk) {
            Ok(0) => break,
            Ok(len) => chunk.truncate(len),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(_) => break,
        }
        if source.push_buffer(gst::Buffer::from_mut_slice(chunk)).is_err() {
            // The pipeline has failed: its error is on the bus.
            return;
        }
    }
    let _ = source.end_of_stream();
}

/// Until the end of the stream, or an error.
fn watch(pipeline: &gst::Pipeline, collector: &Shared) -> Result<(), HelperError> {
    let bus = pipeline.bus().ok_or_else(|| HelperError::Pipeline("no bus".into()))?;
    for message in bus.iter_timed(gst::ClockTime::NONE) {
        match message.view() {
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

fn lock(shared: &Shared) -> MutexGuard<'_, Collector<Stdout>> {
    shared.lock().expect("no panic under this lock")
}

/// Nobody reads any more.
fn written(result: io::Result<()>) {
    if result.is_err() {
        std::process::exit(1);
    }
}
