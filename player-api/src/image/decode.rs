//! Decoding through GStreamer.
//!
//! ```text
//! appsrc ─► parser ─► decoder ─► [only the wanted PTS passes] ─► videoconvert ─► videoscale ─► encoder ─► appsink
//! ```
//! Every coded picture carries its presentation time through the decoder, so the wanted one is found exactly, whatever
//! the decoder reorders.

use std::sync::OnceLock;
use std::time::{Duration, Instant};

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app::{AppSink, AppSrc};
use vidar_core::track::{Codec, NalFraming, Track};

use super::{CodedPicture, ImageError, ImageFormat, Job, Style};

/// Parser and decoders of a codec, the best first.
fn elements(codec: Codec) -> Option<(Option<&'static str>, &'static [&'static str])> {
    Some(match codec {
        Codec::H264 => (Some("h264parse"), &["avdec_h264", "openh264dec"]),
        Codec::H265 => (Some("h265parse"), &["avdec_h265", "libde265dec"]),
        Codec::Av1 => (Some("av1parse"), &["dav1ddec", "av1dec", "avdec_av1"]),
        Codec::Vp8 => (None, &["vp8dec", "avdec_vp8"]),
        Codec::Vp9 => (Some("vp9parse"), &["vp9dec", "avdec_vp9"]),
        _ => return None,
    })
}

/// What the samples of a track are.
fn caps(track: &Track) -> Option<gst::Caps> {
    let mut caps = match track.codec {
        Codec::H264 => gst::Caps::builder("video/x-h264").field("alignment", "au").build(),
        Codec::H265 => gst::Caps::builder("video/x-h265").field("alignment", "au").build(),
        Codec::Av1 => {
            let obus = gst::Caps::builder("video/x-av1").field("stream-format", "obu-stream");
            obus.field("alignment", "tu").build()
        }
        Codec::Vp8 => gst::Caps::builder("video/x-vp8").build(),
        Codec::Vp9 => gst::Caps::builder("video/x-vp9").build(),
        _ => return None,
    };
    if let Some(video) = track.video.filter(|video| video.width > 0 && video.height > 0) {
        let structure = caps.make_mut().structure_mut(0)?;
        structure.set("width", i32::try_from(video.width).ok()?);
        structure.set("height", i32::try_from(video.height).ok()?);
    }
    let format = match (track.codec, track.framing) {
        (Codec::H264 | Codec::H265, NalFraming::AnnexB) => "byte-stream",
        (Codec::H264, _) if track.in_band_parameter_sets => "avc3",
        (Codec::H264, _) => "avc",
        (Codec::H265, _) if track.in_band_parameter_sets => "hev1",
        (Codec::H265, _) => "hvc1",
        _ => return Some(caps),
    };
    let structure = caps.make_mut().structure_mut(0)?;
    structure.set("stream-format", format);
    if format != "byte-stream" {
        structure.set("codec_data", gst::Buffer::from_slice(track.codec_private.clone()));
    }
    Some(caps)
}

/// Decodes and codes the wanted picture. Blocks.
pub(super) fn decode(job: &Job, timeout: Duration) -> Result<Vec<u8>, ImageError> {
    static STARTED: OnceLock<Result<(), String>> = OnceLock::new();
    let started = STARTED.get_or_init(|| gst::init().map_err(|error| error.to_string()));
    started.clone().map_err(ImageError::NoDecoder)?;
    let pipeline = Pipeline::new(job)?;
    let deadline = Instant::now() + timeout;
    pipeline.run(&job.pictures, &job.track, deadline)?.ok_or_else(|| match Instant::now() < deadline {
        true => ImageError::Undecodable("the decoder left it out".into()),
        false => ImageError::Timeout(u64::try_from(timeout.as_millis()).unwrap_or(u64::MAX)),
    })
}

/// A presentation time as the pipeline carries it. Distinct ticks stay distinct up to a timescale of 1 GHz.
fn clock_time(job_start_ticks: i64, ticks: i64, timescale_hz: u32) -> gst::ClockTime {
    let since = i128::from(ticks) - i128::from(job_start_ticks);
    let ns = since * 1_000_000_000 / i128::from(timescale_hz.max(1));
    gst::ClockTime::from_nseconds(u64::try_from(ns).unwrap_or(0))
}

/// Pixels of a side that nobody asked for.
const FREE_SIDE_MAX: i32 = 8192;

/// The size that was asked for, if any, with square pixels.
fn scaled(style: &Style) -> Option<gst::Caps> {
    let sides = [("width", style.width), ("height", style.height)];
    let mut caps = gst::Caps::builder("video/x-raw").field("pixel-aspect-ratio", gst::Fraction::new(1, 1));
    for (name, side) in sides {
        caps = match side {
            Some(side) => caps.field(name, i32::try_from(side).unwrap_or(i32::MAX)),
            // As the other side says, within reason: a strip of video is no reason for a picture of gigabytes.
            None => caps.field(name, gst::IntRange::new(1, FREE_SIDE_MAX)),
        };
    }
    sides.iter().any(|(_, side)| side.is_some()).then(|| caps.build())
}

struct Pipeline {
    pipeline: gst::Pipeline,
    source: AppSrc,
    sink: AppSink,
    start_ticks: i64,
}

fn failed(what: impl std::fmt::Display) -> ImageError {
    ImageError::Undecodable(what.to_string())
}

fn make(name: &str) -> Result<gst::Element, ImageError> {
    gst::ElementFactory::make(name).build().map_err(|_| ImageError::NoDecoder(format!("{name} (not installed)")))
}

impl Pipeline {
    fn new(job: &Job) -> Result<Self, ImageError> {
        let no_decoder = || ImageError::NoDecoder(job.track.codec.name().to_owned());
        let (parser, decoders) = elements(job.track.codec).ok_or_else(no_decoder)?;
        let decoder = decoders.iter().find(|name| gst::ElementFactory::find(name).is_some()).ok_or_else(no_decoder)?;
        let caps = caps(&job.track).ok_or_else(no_decoder)?;
        let start_ticks = job.pictures.iter().map(|picture| picture.presentation_ticks).min().unwrap_or(0);

        let source = AppSrc::builder().caps(&caps).format(gst::Format::Time).max_bytes(0).build();
        let sink = AppSink::builder().sync(false).max_buffers(1).build();
        let decoder = make(decoder)?;
        if decoder.has_property("max-threads") {
            // With one thread the decoder of GStreamer 1.22 refuses a first picture whose frame_num is not 0.
            decoder.set_property("max-threads", 2_i32);
        }
        let convert = make("videoconvert")?;
        let scale = make("videoscale")?;
        let filter = make("capsfilter")?;
        if let Some(scaled) = scaled(&job.style) {
            // What is asked for by both sides is stretched, not framed.
            scale.set_property("add-borders", false);
            filter.set_property("caps", scaled);
        }
        let encoder = make(match job.style.format {
            ImageFormat::Jpeg => "jpegenc",
            ImageFormat::Png => "pngenc",
        })?;
        if let (ImageFormat::Jpeg, Some(quality)) = (job.style.format, job.style.quality) {
            encoder.set_property("quality", i32::from(quality));
        }
        let mut chain = vec![source.clone().upcast()];
        if let Some(parser) = parser {
            chain.push(make(parser)?);
        }
        chain.extend([decoder.clone(), convert, scale, filter, encoder, sink.clone().upcast()]);
        let pipeline = gst::Pipeline::new();
        pipeline.add_many(&chain).map_err(failed)?;
        gst::Element::link_many(&chain).map_err(failed)?;

        let wanted = clock_time(start_ticks, job.wanted_ticks, job.track.timescale_hz);
        let pad = decoder.static_pad("src").ok_or_else(|| failed("the decoder has no output"))?;
        pad.add_probe(gst::PadProbeType::BUFFER, move |_, info| match &info.data {
            Some(gst::PadProbeData::Buffer(buffer)) if buffer.pts() != Some(wanted) => gst::PadProbeReturn::Drop,
            _ => gst::PadProbeReturn::Ok,
        });
        Ok(Self { pipeline, source, sink, start_ticks })
    }

    /// None: the time was up, or the decoder left the picture out.
    fn run(&self, pictures: &[CodedPicture], track: &Track, deadline: Instant) -> Result<Option<Vec<u8>>, ImageError> {
        self.pipeline.set_state(gst::State::Playing).map_err(failed)?;
        for picture in pictures {
            let mut buffer = gst::Buffer::from_slice(picture.data.clone());
            let fields = buffer.make_mut();
            fields.set_pts(clock_time(self.start_ticks, picture.presentation_ticks, track.timescale_hz));
            if !picture.sync {
                fields.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
            if self.source.push_buffer(buffer).is_err() {
                break;
            }
        }
        // Drains what the decoder holds back for reordering.
        let _ = self.source.end_of_stream();
        let left = deadline.saturating_duration_since(Instant::now());
        let left = gst::ClockTime::from_nseconds(u64::try_from(left.as_nanos()).unwrap_or(u64::MAX));
        let Some(sample) = self.sink.try_pull_sample(left) else {
            return self.error().map_or(Ok(None), |detail| Err(failed(detail)));
        };
        let buffer = sample.buffer().ok_or_else(|| failed("the encoder gave no bytes"))?;
        let map = buffer.map_readable().map_err(failed)?;
        Ok(Some(map.as_slice().to_vec()))
    }

    /// What the pipeline said went wrong.
    fn error(&self) -> Option<String> {
        let message = self.pipeline.bus()?.pop_filtered(&[gst::MessageType::Error])?;
        match message.view() {
            gst::MessageView::Error(error) => Some(error.error().to_string()),
            _ => None,
        }
    }
}

impl Drop for Pipeline {
    fn drop(&mut self) {
        let _ = self.pipeline.set_state(gst::State::Null);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The size that a picture of another is scaled to; none: it is not.
    fn size_of(width: i32, height: i32, style: &Style) -> Option<(i32, i32)> {
        gst::init().unwrap();
        let source = gst::ElementFactory::make("videotestsrc").property("num-buffers", 1).build().unwrap();
        let sizes = gst::Caps::builder("video/x-raw").field("width", width).field("height", height).build();
        let coded = gst::ElementFactory::make("capsfilter").property("caps", sizes).build().unwrap();
        let scale = gst::ElementFactory::make("videoscale").property("add-borders", false).build().unwrap();
        let wanted = gst::ElementFactory::make("capsfilter").property("caps", scaled(style).unwrap()).build().unwrap();
        let sink = AppSink::builder().sync(false).build();
        let pipeline = gst::Pipeline::new();
        let chain = [&source, &coded, &scale, &wanted, sink.upcast_ref()];
        pipeline.add_many(chain).unwrap();
        gst::Element::link_many(chain).unwrap();
        pipeline.set_state(gst::State::Playing).unwrap();
        let sample = sink.try_pull_sample(gst::ClockTime::from_seconds(20));
        pipeline.set_state(gst::State::Null).unwrap();
        let sample = sample?;
        let structure = sample.caps()?.structure(0)?;
        Some((structure.get("width").ok()?, structure.get("height").ok()?))
    }

    #[test]
    fn a_side_that_nobody_asked_for_has_a_bound() {
        let style = |width, height| Style { format: ImageFormat::Png, width, height, quality: None };
        assert_eq!(size_of(320, 240, &style(Some(640), None)), Some((640, 480)));
        assert_eq!(size_of(320, 240, &style(None, Some(120))), Some((160, 120)));
        for (style, width, height) in [(style(Some(4096), None), 16, 720), (style(None, Some(2160)), 720, 16)] {
            let size = size_of(width, height, &style);
            assert!(size.is_none_or(|(width, height)| width.max(height) <= FREE_SIDE_MAX), "{size:?}");
        }
    }
}
