//! The rules for fragments, over what is found in a body. A Cluster is a fragment.

use vidar_core::limits::{FRAGMENT_BYTES_MAX, TAG_NAME_BYTES_MAX};
use vidar_core::sample::Tag;
use vidar_core::time::{UnixMs, ticks_to_ms_floor};
use vidar_media::{Event, RawSample};

use super::Limits;
use super::fault::{ErrorId, Fault};
use super::head::MS_MAX;

/// Tracks that the service knows.
const TRACK_COUNT_MAX: usize = 3;
/// The longest fragment of the service.
const DURATION_MS_MAX: i64 = 20_000;
/// More would fill a table without filling bytes.
const SAMPLE_COUNT_MAX: u32 = 1 << 16;
/// What begins so is said to the service, or by it.
const RESERVED: &str = "AWS";
const FOR_THE_SERVICE: [&str; 4] = [
    "AWS_KINESISVIDEO_END_OF_FRAGMENT",
    "AWS_KINESISVIDEO_IMAGE_GENERATION",
    "AWS_KINESISVIDEO_IMAGE_PREFIX",
    "AWS_KINESISVIDEO_NOTIFICATION",
];

/// Rules of the service that this server does without, unless they are asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Strictness {
    /// A fragment of 20 s or more is refused (4002).
    pub duration: bool,
    /// A fragment has to begin after the last frame of the one before (4004); else its timecode may not be less than that
    /// of the one before.
    pub timecodes: bool,
    /// More than 3 tracks are refused (4012).
    pub tracks: bool,
    /// Every track has to have a frame in every fragment (4011).
    pub frames: bool,
    /// A Cluster with a size in front is refused (4006).
    pub sizes: bool,
    /// A second EBML header or Segment is refused (4006).
    pub headers: bool,
    /// Tags called `AWS…` that are not for the service are refused (4009).
    pub tags: bool,
}

#[derive(Debug, Clone, Copy, Default)]
struct Open {
    units: Option<i64>,
    bytes: u64,
    samples: u32,
    /// Of its samples, by presentation time.
    first_ms: Option<i64>,
    last_ms: Option<i64>,
    /// A bit for each track that has a frame.
    tracks: u32,
    tags: usize,
}

#[derive(Debug, Clone, Copy)]
struct Before {
    units: Option<i64>,
    last_ms: Option<i64>,
}

/// Follows the fragments of one body.
#[derive(Debug)]
pub(super) struct Watch {
    strict: Strictness,
    limits: Limits,
    origin: UnixMs,
    /// Timescales of the tracks.
    timescales_hz: Vec<u32>,
    open: Option<Open>,
    before: Option<Before>,
    /// Tags for the fragment to come.
    tags: usize,
    /// A Cluster was there: what stands before the first is of the file.
    began: bool,
}

impl Watch {
    pub(super) fn new(strict: Strictness, limits: Limits, origin: UnixMs) -> Self {
        Self { strict, limits, origin, timescales_hz: Vec::new(), open: None, before: None, tags: 0, began: false }
    }

    /// Timecode of the fragment that goes on.
    pub(super) fn units(&self) -> Option<i64> {
        self.open.and_then(|open| open.units)
    }

    /// No fragment has begun.
    pub(super) fn is_empty(&self) -> bool {
        !self.began
    }

    /// Leaves of `events` what may be taken. `ends`: no more fragments.
    pub(super) fn check(&mut self, events: &mut Vec<Event>, ends: bool) -> Result<(), Fault> {
        for index in 0..events.len() {
            let before = self.open.is_some();
            if let Err(fault) = self.event(&events[index], ends) {
                // Where one begins, the one before is complete.
                let complete = before && matches!(events[index], Event::SourceFragment { .. } | Event::Discontinuity);
                events.truncate(index);
                events.extend((complete && fault.error != ErrorId::FRAMES_MISSING).then_some(Event::EndOfFragment));
                return Err(fault);
            }
        }
        Ok(())
    }

    /// The body has ended in order.
    pub(super) fn finish(&mut self) -> Result<(), Fault> {
        self.end()
    }

    fn event(&mut self, event: &Event, ends: bool) -> Result<(), Fault> {
        match event {
            Event::Config(config) => {
                self.timescales_hz = config.tracks.iter().map(|track| track.timescale_hz).collect();
                let count = config.tracks.len();
                require(!self.strict.tracks || count <= TRACK_COUNT_MAX, ErrorId::TRACK_COUNT, || {
                    format!("{count} tracks; {TRACK_COUNT_MAX} are allowed")
                })
            }
            Event::SourceFragment { timecode, units, sized } => self.begin(*timecode, *units, *sized, ends),
            Event::Sample(sample) => self.sample(sample),
            Event::Tags(tags) => self.add_tags(tags),
            Event::EndOfFragment => self.end(),
            Event::Discontinuity => {
                self.end()?;
                self.before = None;
                require(!self.strict.headers, ErrorId::INVALID_MKV, || "a second EBML header or Segment".to_owned())
            }
            Event::TrackTags(_) | Event::Wall { .. } | Event::Lost { .. } => Ok(()),
        }
    }

    fn begin(&mut self, timecode: Option<i64>, units: Option<i64>, sized: bool, ends: bool) -> Result<(), Fault> {
        self.end()?;
        let tags = std::mem::take(&mut self.tags);
        self.open = Some(Open { units, tags, ..Open::default() });
        self.began = true;
        require(!ends, ErrorId::CONNECTION_DURATION, || "the connection is too old".to_owned())?;
        require(!(sized && self.strict.sizes), ErrorId::INVALID_MKV, || "a Cluster with a size".to_owned())?;
        let at_ms = timecode.map_or(0, |ticks| ticks_to_ms_floor(ticks, self.timescale_hz(0)));
        let producer = self.origin.plus_ms(at_ms);
        require((0..MS_MAX).contains(&producer.0), ErrorId::PRODUCER_TIMESTAMP, || {
            format!("a producer time of {} ms since 1970", producer.0)
        })?;
        let Some(before) = self.before else { return Ok(()) };
        let good = if self.strict.timecodes { units > before.units } else { units >= before.units };
        require(good, ErrorId::TIMECODE, || format!("timecode {units:?} after {:?}", before.units))
    }

    /// The fragment is complete.
    fn end(&mut self) -> Result<(), Fault> {
        let Some(open) = self.open else { return Ok(()) };
        let missing = self.timescales_hz.len() != open.tracks.count_ones() as usize;
        require(!(self.strict.frames && missing), ErrorId::FRAMES_MISSING, || "a track without a frame".to_owned())?;
        self.before = Some(Before { units: open.units, last_ms: open.last_ms });
        self.open = None;
        Ok(())
    }

    fn sample(&mut self, sample: &RawSample) -> Result<(), Fault> {
        let at_ms = ticks_to_ms_floor(sample.presentation_ticks, self.timescale_hz(sample.track));
        // A Block needs a Timestamp before it; after an end tag its fragment goes on under a name of its own.
        let open = self.open.get_or_insert_default();
        open.bytes += sample.data.len() as u64;
        open.samples += 1;
        open.tracks |= 1_u32.checked_shl(sample.track.into()).unwrap_or(0);
        let first_ms = *open.first_ms.insert(open.first_ms.map_or(at_ms, |first| first.min(at_ms)));
        let last_ms = *open.last_ms.insert(open.last_ms.map_or(at_ms, |last| last.max(at_ms)));
        let (bytes, samples) = (open.bytes, open.samples);
        let too_large = || format!("{samples} frames of {bytes} bytes");
        let small = bytes <= FRAGMENT_BYTES_MAX && samples <= SAMPLE_COUNT_MAX;
        require(small, ErrorId::FRAGMENT_SIZE, too_large)?;
        let duration_ms = last_ms.saturating_sub(first_ms);
        require(!self.strict.duration || duration_ms < DURATION_MS_MAX, ErrorId::FRAGMENT_DURATION, || {
            format!("a fragment of {duration_ms} ms")
        })?;
        let last = self.before.and_then(|before| before.last_ms).filter(|_| self.strict.timecodes);
        require(last.is_none_or(|last| first_ms > last), ErrorId::TIMECODE, || {
            format!("a frame at {at_ms} ms after one of the fragment before at {last:?} ms")
        })
    }

    fn add_tags(&mut self, tags: &[Tag]) -> Result<(), Fault> {
        if !self.began {
            return Ok(());
        }
        let count = match &mut self.open {
            Some(open) => &mut open.tags,
            None => &mut self.tags,
        };
        for tag in tags.iter().filter(|tag| !FOR_THE_SERVICE.contains(&tag.name.as_str())) {
            let reserved = tag.name.starts_with(RESERVED);
            require(!(reserved && self.strict.tags), ErrorId::METADATA, || format!("tag {:?} is reserved", tag.name))?;
            if reserved {
                continue;
            }
            *count += 1;
            let small = tag.name.len() <= TAG_NAME_BYTES_MAX && tag.value.len() <= self.limits.tag_value_bytes;
            require(small, ErrorId::METADATA, || format!("tag {:?} is too long", tag.name))?;
            require(*count <= self.limits.tags, ErrorId::METADATA, || format!("{count} tags in a fragment"))?;
        }
        Ok(())
    }

    fn timescale_hz(&self, track: u8) -> u32 {
        self.timescales_hz.get(usize::from(track)).copied().unwrap_or(1000)
    }
}

fn require(good: bool, error: ErrorId, detail: impl FnOnce() -> String) -> Result<(), Fault> {
    if good { Ok(()) } else { Err(Fault::new(error, detail())) }
}

#[cfg(test)]
#[path = "fragment_tests.rs"]
mod tests;
