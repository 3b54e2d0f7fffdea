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
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::ms_to_ticks_floor;
use vidar_core::track::{StreamConfig, Track};
use vidar_media::container::fmp4::{init, segment};
use vidar_media::table::SampleEntry;

use super::rendition::RenditionId;
use crate::fragment::{self, LoadedFragment, ReadGroup};
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
    let zero_ms = loaded.origin_ms().saturating_add(TIMELINE_LEAD_MS);
    // Producer times are those of the primary track.
    let late_ns = shift_ns(&loaded.config, track) - primary_shift_ns(&loaded.config);
    ms_to_ticks_floor(zero_ms, timescale_hz).saturating_sub(ns_to_ticks(late_ns, timescale_hz))
}

/// A segment before its media is read.
#[derive(Debug)]
pub(crate) struct Segment {
    entry: SharedEntry,
    header: Bytes,
    media_len: u64,
    reads: Vec<ReadGroup>,
}

impl Segment {
    /// None if the fragment has no such track, or too much of it.
    pub(crate) fn new(loaded: &LoadedFragment, id: RenditionId) -> Option<Self> {
        let track = id.track(&loaded.config)?;
        let of_config = loaded.config.tracks.get(usize::from(track))?;
        let samples: Vec<SampleEntry> = loaded.samples(track).map(|sample| sample.entry.clone()).collect();
        let base_decode_ticks = samples.first().map_or(0, |first| {
            let ticks = zero_ticks(loaded, of_config, of_config.timescale_hz).saturating_add(first.decode_ticks);
            u64::try_from(ticks).unwrap_or(0)
        });
        let run = segment::TrackRun { track_id: init::track_id(track), base_decode_ticks, samples: &samples };
        let sequence = (loaded.entry.meta.ordinal as u32).wrapping_add(1);
        let header = segment::header(segment::SegmentStart::Segment, sequence, &[run])?;
        let ranges = loaded.samples(track).flat_map(|sample| sample.mp4_view().collect::<Vec<_>>());
        let reads = fragment::group_reads(ranges);
        Some(Self { entry: loaded.entry.clone(), header: header.bytes, media_len: header.media_len, reads })
    }

    /// Its length in bytes.
    pub(crate) fn len(&self) -> u64 {
        self.header.len() as u64 + self.media_len
    }

    /// Its bytes. The first read is done before this resolves, so that what cannot be read is an error and not a body
    /// that breaks off.
    pub(crate) async fn open(
        self,
        source: Arc<dyn FragmentSource>,
    ) -> Result<impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static, ReadError> {
        let Self { entry, header, reads, .. } = self;
        let mut reads = reads.into_iter();
        let mut first = vec![header];
        if let Some(read) = reads.next() {
            first.extend(fragment::read_group(&*source, &entry, &read).await?);
        }
        let rest = stream::iter(reads).then(move |read| {
            let (source, entry) = (source.clone(), entry.clone());
            async move {
                let slices = fragment::read_group(&*source, &entry, &read).await;
                // The status was sent: breaking off is all that is left to say so.
                slices.inspect_err(|error| tracing::warn!(%error, "a segment broke off"))
            }
        });
        let slices = |slices: Vec<Bytes>| stream::iter(slices.into_iter().map(Ok::<_, ReadError>));
        Ok(slices(first).chain(rest.map_ok(slices).try_flatten()))
    }
}
