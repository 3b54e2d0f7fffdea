//! A clip that follows the head: fragment by fragment as they become durable, until its end or until the client leaves.
//!
//! Fragmented MP4 (an init segment, then a movie fragment for each fragment) or Matroska. Its length is not known, so
//! it has no ranges and is never kept. Times start near 0; what lies between two runs is left out. It ends where the
//! tracks change in a way that the header it began with cannot say.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use axum::response::Response;
use bytes::Bytes;
use futures::stream::{self, Stream, StreamExt, TryStreamExt};
use http::header::{ACCEPT_RANGES, CACHE_CONTROL, CONTENT_TYPE};
use http::{HeaderValue, Method};
use vidar_core::entry::SharedEntry;
use vidar_core::error::ErrorKind;
use vidar_core::ids::{FragmentNumber, RunId};
use vidar_core::limits::CONTINUES_MS;
use vidar_core::record::FragmentFlags;
use vidar_core::source::ReadError;
use vidar_core::time::{UnixMs, ms_to_ticks_floor};
use vidar_core::track::StreamConfig;
use vidar_live::DurableFollower;
use vidar_media::container::fmp4::{init, sample_entry, segment};
use vidar_media::container::mkv::mux::{self, HeaderOptions, Timing};
use vidar_media::table::SampleEntry;

use super::snapshot::ClipRange;
use super::tracks::omitted_name;
use super::{Container, OMITTED_HEADER, bounded_list, mkv, mp4};
use crate::error::ApiResult;
use crate::fragment::{self, LoadedFragment, StoredRange};
use crate::scatter::read_into;
use crate::shift::{ns_to_ticks, shift_ns};
use crate::{Api, ApiError};

/// Where a clip's timeline starts: what is decoded before the first picture is shown must not be below 0.
const LEAD_MS: i64 = 1_000;
/// How often a follower that waits looks at the clock.
const LOOK_AGAIN: Duration = Duration::from_secs(1);
/// After the end, by our clock, nothing is waited for any more; producers' clocks differ.
const LATE_MS_MAX: i64 = 60_000;
/// How far to look back for a sync sample.
const SYNC_BACK_MAX: usize = 1000;

/// Answers with a clip that follows the head. Without a start it begins at the newest fragment.
///
/// # Errors
/// 422 if the container carries none of the tracks; as reading does, for the first fragment.
pub(crate) async fn live(
    api: Arc<Api>,
    range: ClipRange,
    container: Container,
    method: &Method,
) -> ApiResult<Response> {
    let mut follower = Follower::new(api.clone(), range);
    // The header needs a config: the first fragment may be still to come, but not for a HEAD.
    let first = if *method == Method::HEAD { follower.stored() } else { follower.next().await };
    let mut response = Response::new(Body::empty());
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(container.content_type()));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(ACCEPT_RANGES, HeaderValue::from_static("none"));
    let Some(first) = first else { return Ok(response) };
    let config = api.source.config(&first).await?;
    let writer = LiveWriter::new(container, config.clone())?;
    let omitted = (0_u8..).zip(&config.tracks).filter(|(index, _)| !writer.tracks.contains(index));
    let omitted = bounded_list(omitted.map(|(index, track)| omitted_name(index, track)));
    if let Some(value) = HeaderValue::from_str(&omitted).ok().filter(|_| !omitted.is_empty()) {
        headers.insert(OMITTED_HEADER, value);
    }
    if *method != Method::HEAD {
        *response.body_mut() = body(api, follower, first, writer);
    }
    Ok(response)
}

fn body(api: Arc<Api>, follower: Follower, first: SharedEntry, writer: LiveWriter) -> Body {
    let header = stream::iter([Ok(writer.header.clone())]);
    let state = (follower, Some(first), writer);
    let fragments = stream::unfold(state, move |(mut follower, first, mut writer)| {
        let api = api.clone();
        async move {
            let mut first = first;
            loop {
                let entry = match first.take() {
                    Some(entry) => entry,
                    None => follower.next().await?,
                };
                match fragment::load(&api, &entry).await {
                    // What is damaged, or expired meanwhile, is a gap.
                    Err(error) if matches!(error.kind(), ErrorKind::Corrupt | ErrorKind::NotFound) => {
                        tracing::error!(%error, "a live clip goes on without a fragment");
                    }
                    Err(error) => return Some((stream::iter([Err(error)]).boxed(), (follower, None, writer))),
                    Ok(loaded) => {
                        let pieces = writer.fragment(&loaded)?;
                        return Some((send(api, loaded, pieces).boxed(), (follower, None, writer)));
                    }
                }
            }
        }
    });
    let chunks = header.chain(fragments.flatten()).inspect_err(|error: &ReadError| {
        tracing::error!(%error, "a live clip is broken off");
    });
    Body::from_stream(chunks)
}

/// Reads and sends a fragment, piece by piece.
fn send(
    api: Arc<Api>,
    loaded: LoadedFragment,
    pieces: VecDeque<Vec<Chunk>>,
) -> impl Stream<Item = Result<Bytes, ReadError>> {
    let read = move |chunks: Vec<Chunk>| {
        let (api, entry) = (api.clone(), loaded.entry.clone());
        async move {
            let mut wanted = Vec::new();
            let mut bytes = Vec::with_capacity(chunks.len());
            for chunk in chunks {
                match chunk {
                    Chunk::Made(made) => bytes.push(made),
                    Chunk::Stored(stored) => {
                        wanted.push((stored, bytes.len()));
                        bytes.push(Bytes::new());
                    }
                }
            }
            read_into(&*api.source, &entry, wanted, &mut bytes).await?;
            bytes.retain(|bytes| !bytes.is_empty());
            Ok::<_, ReadError>(stream::iter(bytes.into_iter().map(Ok)))
        }
    };
    stream::iter(pieces).then(read).try_flatten()
}

/// Bytes of a live clip.
enum Chunk {
    Made(Bytes),
    Stored(StoredRange),
}

/// The fragments of a live clip, in order of their numbers.
struct Follower {
    api: Arc<Api>,
    range: ClipRange,
    durable: DurableFollower,
    last: Option<FragmentNumber>,
}

impl Follower {
    fn new(api: Arc<Api>, range: ClipRange) -> Self {
        // Followed before the first look, so that nothing is missed.
        let durable = api.hub.durable(range.stream);
        Self { api, range, durable, last: None }
    }

    /// The next fragment; waits for it. None: the clip is over.
    async fn next(&mut self) -> Option<SharedEntry> {
        loop {
            if let Some(entry) = self.stored() {
                if self.range.end.is_some_and(|end| entry.meta.producer_start >= end) {
                    return None;
                }
                self.last = Some(entry.meta.number);
                return Some(entry);
            }
            let over = self.range.end.is_some_and(|end| self.api.clock.now().since_ms(end) > LATE_MS_MAX);
            if over {
                return None;
            }
            let _ = tokio::time::timeout(LOOK_AGAIN, self.durable.next()).await;
        }
    }

    /// The next fragment that is stored already.
    fn stored(&self) -> Option<SharedEntry> {
        let timeline = self.api.index.timeline();
        let stream = self.range.stream;
        let Some(mut last) = self.last else { return self.first() };
        loop {
            let next = timeline.next(stream, last)?;
            if self.range.start.is_none_or(|start| next.meta.producer_end() > start) {
                return Some(next);
            }
            last = next.meta.number;
        }
    }

    /// The fragment shown at the start, or the first after it; or the newest. From there back to a sync sample.
    fn first(&self) -> Option<SharedEntry> {
        let timeline = self.api.index.timeline();
        let stream = self.range.stream;
        let mut entry = match self.range.start {
            Some(start) => timeline.shown(stream, start, UnixMs(i64::MAX)).into_iter().next()?.entry,
            None => timeline.last(stream)?,
        };
        for _ in 0..SYNC_BACK_MAX {
            if entry.meta.flags.contains(FragmentFlags::STARTS_WITH_SYNC) {
                break;
            }
            let Some(previous) = timeline.previous_in_run(&entry) else { break };
            entry = previous;
        }
        Some(entry)
    }
}

/// Writes fragments one after the other.
struct LiveWriter {
    container: Container,
    config: Arc<StreamConfig>,
    /// Of the config, those that are carried.
    tracks: Vec<u8>,
    header: Bytes,
    sequence: u32,
    /// The run that was written last, what is added to its producer times, and where it ended.
    run: Option<(RunId, i64, i64)>,
}

impl LiveWriter {
    fn new(container: Container, config: Arc<StreamConfig>) -> ApiResult<Self> {
        let carries = match container {
            Container::Mp4 => mp4::carries,
            Container::Mkv => mkv::carries,
        };
        let all = (0_u8..).zip(&config.tracks).map(|(index, _)| index);
        let tracks: Vec<u8> = all.filter(|index| carries(&config, usize::from(*index))).collect();
        let header = match container {
            Container::Mp4 => init::encode(&config, &tracks, init::InitOptions::default()),
            Container::Mkv => Some(mux::header(&config, Timing::of(&config), &HeaderOptions::default())),
        };
        let header = header.filter(|_| !tracks.is_empty());
        let header = header.ok_or_else(|| ApiError::unusable("the container carries none of the tracks"))?;
        Ok(Self { container, config, tracks, header, sequence: 0, run: None })
    }

    /// What a fragment adds: for each piece, what is made and what is read. None: the clip cannot go on with it.
    fn fragment(&mut self, loaded: &LoadedFragment) -> Option<VecDeque<Vec<Chunk>>> {
        if !self.can_go_on_with(&loaded.config) {
            return None;
        }
        let meta = &loaded.entry.meta;
        let starts = meta.producer_start.0;
        let shift_ms = match self.run {
            None => LEAD_MS.saturating_sub(starts),
            Some((run, shift_ms, _)) if run == meta.run => shift_ms,
            Some((_, shift_ms, end)) => {
                let pause_ms = starts.saturating_sub(end);
                // A short pause stays; anything else is left out.
                if (0..=CONTINUES_MS).contains(&pause_ms) { shift_ms } else { shift_ms.saturating_sub(pause_ms) }
            }
        };
        self.run = Some((meta.run, shift_ms, meta.producer_end().0));
        let zero_ms = loaded.origin_ms().saturating_add(shift_ms);
        match self.container {
            Container::Mp4 => self.movie_fragment(loaded, zero_ms),
            Container::Mkv => self.clusters(loaded, zero_ms),
        }
    }

    /// The header says what these samples are.
    fn can_go_on_with(&self, config: &Arc<StreamConfig>) -> bool {
        if Arc::ptr_eq(config, &self.config) || *config == self.config {
            return true;
        }
        config.tracks.len() == self.config.tracks.len()
            && config.tracks.iter().zip(&self.config.tracks).all(|(new, known)| match self.container {
                Container::Mp4 => {
                    new.timescale_hz == known.timescale_hz && sample_entry::encode(new) == sample_entry::encode(known)
                }
                Container::Mkv => new.kind == known.kind && new.codec == known.codec,
            })
    }

    fn movie_fragment(&mut self, loaded: &LoadedFragment, zero_ms: i64) -> Option<VecDeque<Vec<Chunk>>> {
        self.sequence = self.sequence.wrapping_add(1);
        let of_track = |track: &u8| -> Vec<SampleEntry> { loaded.samples(*track).map(|s| s.entry.clone()).collect() };
        let samples: Vec<Vec<SampleEntry>> = self.tracks.iter().map(of_track).collect();
        let run = |(index, samples): (&u8, &'_ Vec<SampleEntry>)| {
            let track = &loaded.config.tracks[usize::from(*index)];
            let first = samples.first().map_or(0, |sample| sample.decode_ticks);
            let late_ticks = ns_to_ticks(shift_ns(&loaded.config, track), track.timescale_hz);
            let base = ms_to_ticks_floor(zero_ms, track.timescale_hz).saturating_sub(late_ticks).saturating_add(first);
            (init::track_id(*index), u64::try_from(base).unwrap_or(0))
        };
        let places: Vec<(u32, u64)> = self.tracks.iter().zip(&samples).map(run).collect();
        let runs: Vec<segment::TrackRun<'_>> = places
            .iter()
            .zip(&samples)
            .map(|((track_id, base_decode_ticks), samples)| segment::TrackRun {
                track_id: *track_id,
                base_decode_ticks: *base_decode_ticks,
                samples,
            })
            .collect();
        let header = segment::header(segment::SegmentStart::Inside, self.sequence, &runs)?;
        let media = self.tracks.iter().flat_map(|track| loaded.samples(*track));
        let media = media.flat_map(|sample| sample.mp4_view().collect::<Vec<_>>());
        let mut pieces = VecDeque::from([vec![Chunk::Made(header.bytes)]]);
        pieces.extend(media.map(Chunk::Stored).collect::<Vec<_>>().chunks_mut(CHUNKS_AT_ONCE).map(take_all));
        Some(pieces)
    }

    fn clusters(&self, loaded: &LoadedFragment, zero_ms: i64) -> Option<VecDeque<Vec<Chunk>>> {
        let timing = Timing::of(&self.config);
        let layout = mux::Layout::new(&loaded.config, timing);
        let base = timing.units(zero_ms, 1000);
        let carried = loaded.in_arrival_order().into_iter().filter(|(track, _)| self.tracks.contains(track));
        let (frames, stored): (Vec<mux::Frame>, Vec<StoredRange>) = carried
            .map(|(track, sample)| {
                let mut frame = layout.table_frame(track, sample.entry);
                frame.timestamp = frame.timestamp.saturating_add(base);
                (frame, sample.stored())
            })
            .unzip();
        let heads = layout.heads(&frames).ok()?;
        let chunks = stored.into_iter().zip(heads.iter());
        let chunks = chunks.flat_map(|(stored, head)| [Chunk::Made(head), Chunk::Stored(stored)]);
        Some(chunks.collect::<Vec<_>>().chunks_mut(CHUNKS_AT_ONCE).map(take_all).collect())
    }
}

/// Bounds what is in memory: some seconds of a camera.
const CHUNKS_AT_ONCE: usize = 256;

fn take_all(chunks: &mut [Chunk]) -> Vec<Chunk> {
    chunks.iter_mut().map(|chunk| std::mem::replace(chunk, Chunk::Made(Bytes::new()))).collect()
}
