//! Segments as transport streams: pictures and sound of one fragment together, on the timeline of all segments.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt as _};
use vidar_core::entry::SharedEntry;
use vidar_core::sample::SyncKind;
use vidar_core::source::{FragmentSource, ReadError};
use vidar_core::time::rescale_floor;
use vidar_core::track::{Track, TrackKind};
use vidar_media::container::ts::{self, Muxer, TIMESCALE_HZ, TsSample};

use super::segment::zero_ticks;
use crate::fragment::{LoadedFragment, StoredRange};
use crate::scatter::read_into;

/// Stored bytes that are read and written at once.
const BATCH_BYTES: u64 = 1 << 20;

/// A segment before its media is read.
pub(super) struct TsSegment {
    entry: SharedEntry,
    muxer: Muxer,
    /// In decode order.
    samples: Vec<Sample>,
    at: usize,
}

struct Sample {
    track: usize,
    stored: StoredRange,
    presentation_ticks: i64,
    decode_ticks: i64,
    sync: bool,
    last: bool,
}

impl TsSegment {
    /// None: the fragment has no samples that a transport stream carries.
    pub(super) fn new(loaded: &LoadedFragment) -> Option<Self> {
        let tracks = chosen(loaded);
        let declared: Vec<&Track> = tracks.iter().map(|(_, track)| *track).collect();
        let muxer = Muxer::new(&declared, loaded.entry.meta.ordinal)?;
        let mut samples: Vec<Sample> = Vec::new();
        for (position, (index, track)) in tracks.iter().enumerate() {
            let zero = zero_ticks(loaded, track, TIMESCALE_HZ);
            let ticks = |ticks: i64| zero.saturating_add(rescale_floor(ticks, track.timescale_hz, TIMESCALE_HZ));
            let of_track = loaded.samples(*index).filter(|sample| sample.entry.size > 0).map(|sample| Sample {
                track: position,
                stored: sample.stored(),
                presentation_ticks: ticks(sample.entry.presentation_ticks()),
                decode_ticks: ticks(sample.entry.decode_ticks),
                sync: sample.entry.sync == SyncKind::Sync,
                last: false,
            });
            samples.extend(of_track);
            if let Some(last) = samples.last_mut().filter(|last| last.track == position) {
                last.last = true;
            }
        }
        samples.sort_by_key(|sample| sample.decode_ticks);
        (!samples.is_empty()).then(|| Self { entry: loaded.entry.clone(), muxer, samples, at: 0 })
    }

    /// Its bytes. The first are made before this resolves: what cannot be read is an error, and not a body that breaks off.
    pub(super) async fn open(
        mut self,
        source: Arc<dyn FragmentSource>,
    ) -> Result<impl Stream<Item = Result<Bytes, ReadError>> + Send + 'static, ReadError> {
        let mut first = Vec::new();
        self.muxer.begin(&mut first);
        self.batch(&*source, &mut first).await?;
        let rest = stream::try_unfold((self, source), |(mut segment, source)| async move {
            if segment.at == segment.samples.len() {
                return Ok(None);
            }
            let mut out = Vec::new();
            let made = segment.batch(&*source, &mut out).await;
            // The status was sent: breaking off is all that is left to say so.
            made.inspect_err(|error| tracing::warn!(%error, "a segment broke off"))?;
            Ok(Some((Bytes::from(out), (segment, source))))
        });
        Ok(stream::once(async move { Ok(Bytes::from(first)) }).chain(rest))
    }

    async fn batch(&mut self, source: &dyn FragmentSource, out: &mut Vec<u8>) -> Result<(), ReadError> {
        let mut bytes = 0_u64;
        let fits = self.samples[self.at..].iter().take_while(|sample| {
            let begun = bytes > 0;
            bytes += sample.stored.range.end - sample.stored.range.start;
            !begun || bytes <= BATCH_BYTES
        });
        let batch = self.at..self.at + fits.count();
        self.at = batch.end;
        let samples = &self.samples[batch];
        let wanted = samples.iter().enumerate().map(|(place, sample)| (sample.stored.clone(), place)).collect();
        let mut chunks = vec![Bytes::new(); samples.len()];
        read_into(source, &self.entry, wanted, &mut chunks).await?;
        for (sample, data) in samples.iter().zip(&chunks) {
            let Sample { track, presentation_ticks, decode_ticks, sync, last, .. } = *sample;
            self.muxer.write(&TsSample { track, presentation_ticks, decode_ticks, sync, last, data }, out);
        }
        Ok(())
    }
}

/// The first track of either kind that a transport stream carries, pictures first.
fn chosen(loaded: &LoadedFragment) -> Vec<(u8, &Track)> {
    let first = |kind: TrackKind| {
        let mut tracks = (0_u8..).zip(&loaded.config.tracks);
        tracks.find(|(_, track)| track.kind == kind && ts::carries(track))
    };
    [first(TrackKind::Video), first(TrackKind::Audio)].into_iter().flatten().collect()
}
