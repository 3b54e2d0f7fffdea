//! Segments: a track of one fragment as CMAF, a pure function of the fragment, so that every node and every request
//! gives the same bytes.
//!
//! Their timeline is the producer's clock: decode times are shifted by the wall-clock time of the run's media time 0
//! (plus a day, so that cameras that start in 1970 stay above 0), less what the track is later by than the primary one
//! (edit lists, CodecDelay). It is common to all tracks of a run, and goes on from one run to another that continues it.

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _, TryStreamExt as _};
use std::sync::Arc;
use vidar_core::entry::SharedEntry;
use vidar_core::sample::SyncKind;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::ms_to_ticks_floor;
use vidar_core::track::{StreamConfig, Track};
use vidar_media::container::fmp4::{init, segment};
use vidar_media::table::SampleEntry;

use super::parts;
use super::rendition::RenditionId;
use crate::fragment::{self, LoadedFragment, ReadGroup, StoredSample};
use crate::shift::{ns_to_ticks, primary_shift_ns, shift_ns};

/// Of the bytes made here; stands in entity tags.
pub(crate) const FORMAT_VERSION: u32 = 2;

/// Decode times are the producer's clock and this much, in milliseconds.
pub const TIMELINE_LEAD_MS: i64 = 86_400_000;

/// The init segment of a rendition.
pub(crate) fn init_segment(config: &StreamConfig, id: RenditionId) -> Option<Bytes> {
    init::encode(config, &[id.track(config)?], init::InitOptions::default())
}

/// Where media time 0 of a track stands on the timeline of segments, in ticks of `timescale_hz`.
pub(super) fn zero_ticks(loaded: &LoadedFragment, track: &Track, timescale_hz: u32) -> i64 {
    zero_ticks_at(loaded.origin_ms(), &loaded.config, track, timescale_hz)
}

/// The same where media time 0 is this producer time.
pub(super) fn zero_ticks_at(origin_ms: i64, config: &StreamConfig, track: &Track, timescale_hz: u32) -> i64 {
    let zero_ms = origin_ms.saturating_add(TIMELINE_LEAD_MS);
    // Producer times are those of the primary track.
    let late_ns = shift_ns(config, track) - primary_shift_ns(config);
    ms_to_ticks_floor(zero_ms, timescale_hz).saturating_sub(ns_to_ticks(late_ns, timescale_hz))
}

/// The decode time of media time 0 and what follows, of the samples from one on; below 0 there is nothing.
fn base_decode_ticks(zero_ticks: i64, samples: &[SampleEntry]) -> u64 {
    samples.first().map_or(0, |first| u64::try_from(zero_ticks.saturating_add(first.decode_ticks)).unwrap_or(0))
}

/// The header of some samples of a fragment, which stands at this ordinal. `start`: they are its first.
pub(super) fn header(
    track: u8,
    ordinal: u64,
    zero_ticks: i64,
    start: segment::SegmentStart,
    samples: &[SampleEntry],
) -> Option<segment::SegmentHeader> {
    let base_decode_ticks = base_decode_ticks(zero_ticks, samples);
    let run = segment::TrackRun { track_id: init::track_id(track), base_decode_ticks, samples };
    segment::header(start, (ordinal as u32).wrapping_add(1), &[run])
}

/// A segment, or a part of one, before its media is read.
#[derive(Debug)]
pub(crate) struct Segment {
    entry: SharedEntry,
    /// Each a header and the samples that follow it.
    chunks: Vec<(Bytes, Vec<ReadGroup>)>,
    len: u64,
}

impl Segment {
    /// None if the fragment has no such track, or too much of it.
    pub(crate) fn new(loaded: &LoadedFragment, id: RenditionId) -> Option<Self> {
        let mut segment = Self { entry: loaded.entry.clone(), chunks: Vec::with_capacity(1), len: 0 };
        let samples: Vec<StoredSample<'_>> = loaded.samples(id.track(&loaded.config)?).collect();
        let entries: Vec<SampleEntry> = samples.iter().map(|sample| sample.entry.clone()).collect();
        segment.push(loaded, id, segment::SegmentStart::Segment, &entries, &samples)?;
        Some(segment)
    }

    /// As it was sent while it was recorded: in parts of so many milliseconds. `which`: one of them alone. None as above,
    /// or if there is no such part.
    pub(crate) fn in_parts(
        loaded: &LoadedFragment,
        id: RenditionId,
        part_ms: u32,
        which: Option<usize>,
    ) -> Option<Self> {
        let track = id.track(&loaded.config)?;
        let timescale_hz = loaded.config.tracks.get(usize::from(track))?.timescale_hz;
        let samples: Vec<StoredSample<'_>> = loaded.samples(track).collect();
        let entries: Vec<SampleEntry> = samples.iter().map(|sample| sample.entry.clone()).collect();
        let parts = parts::cut(&entries, part_ms, timescale_hz, true);
        let mut segment = Self { entry: loaded.entry.clone(), chunks: Vec::with_capacity(parts.len()), len: 0 };
        for (index, range) in parts.iter().enumerate() {
            if which.is_none_or(|which| which == index) {
                let of_part = parts::entries(&entries, range);
                segment.push(loaded, id, parts::start(index), &of_part, &samples[range.clone()])?;
            }
        }
        (!segment.chunks.is_empty()).then_some(segment)
    }

    /// The first sync sample alone. None as above, or if there is none.
    pub(crate) fn key_frame(loaded: &LoadedFragment, id: RenditionId) -> Option<Self> {
        let mut segment = Self { entry: loaded.entry.clone(), chunks: Vec::with_capacity(1), len: 0 };
        let key = loaded.samples(id.track(&loaded.config)?).find(|sample| sample.entry.sync == SyncKind::Sync)?;
        segment.push(loaded, id, segment::SegmentStart::Segment, std::slice::from_ref(key.entry), &[key])?;
        Some(segment)
    }

    fn push(
        &mut self,
        loaded: &LoadedFragment,
        id: RenditionId,
        start: segment::SegmentStart,
        entries: &[SampleEntry],
        samples: &[StoredSample<'_>],
    ) -> Option<()> {
        let track = id.track(&loaded.config)?;
        let of_config = loaded.config.tracks.get(usize::from(track))?;
        let zero_ticks = zero_ticks(loaded, of_config, of_config.timescale_hz);
        let header = header(track, loaded.entry.meta.ordinal, zero_ticks, start, entries)?;
        let ranges = samples.iter().flat_map(|sample| sample.mp4_view().collect::<Vec<_>>());
        self.len += header.bytes.len() as u64 + header.media_len;
        self.chunks.push((header.bytes, fragment::group_reads(ranges)));
        Some(())
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.len
    }

    /// Its bytes. The first read is done before this resolves, so that what cannot be read is an error and not a body
    /// that breaks off.
    pub(crate) async fn open(
        self,
        source: Arc<dyn FragmentSource>,
    ) -> Result<impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static, ReadError> {
        let Self { entry, chunks, .. } = self;
        let steps = chunks.into_iter().flat_map(|(header, reads)| {
            let reads = reads.into_iter().map(Step::Read);
            std::iter::once(Step::Made(header)).chain(reads)
        });
        let mut steps = steps.collect::<Vec<_>>().into_iter();
        let mut first = Vec::new();
        for step in steps.by_ref() {
            match step {
                Step::Made(bytes) => first.push(bytes),
                Step::Read(read) => {
                    first.extend(fragment::read_group(&*source, &entry, &read).await?);
                    break;
                }
            }
        }
        let rest = stream::iter(steps).then(move |step| {
            let (source, entry) = (source.clone(), entry.clone());
            async move {
                let read = match step {
                    Step::Made(bytes) => return Ok(vec![bytes]),
                    Step::Read(read) => read,
                };
                let slices = fragment::read_group(&*source, &entry, &read).await;
                // The status was sent: breaking off is all that is left to say so.
                slices.inspect_err(|error| tracing::warn!(%error, "a segment broke off"))
            }
        });
        let slices = |slices: Vec<Bytes>| stream::iter(slices.into_iter().map(Ok::<_, ReadError>));
        Ok(slices(first).chain(rest.map_ok(slices).try_flatten()))
    }
}

/// What a body is made of.
enum Step {
    Made(Bytes),
    Read(ReadGroup),
}
