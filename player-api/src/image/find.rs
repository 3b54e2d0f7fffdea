//! Which sample is shown at an instant, and what has to be decoded for it.

use bytes::Bytes;
use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::sample::SyncKind;
use vidar_core::time::{UnixMs, ticks_to_ms_nearest};
use vidar_core::track::{Track, TrackKind};
use vidar_media::table::SampleEntry;

use super::CodedPicture;
use crate::fragment::{self, LoadedFragment, StoredSample};
use crate::{Api, ApiError, ApiResult};

/// Fragments to look back through for a picture, or for the sync sample it needs.
const BACK_MAX: usize = 200;
/// Coded bytes to decode for one picture.
const BYTES_MAX: u64 = 96 << 20;

/// The picture shown at an instant.
#[derive(Debug, Clone)]
pub struct Picture {
    /// In decode order; the last is in the fragment that holds the picture.
    fragments: Vec<LoadedFragment>,
    track: u8,
    /// Among the samples of the track: the first to decode, in the first fragment; the wanted one, in the last.
    from: usize,
    wanted: usize,
    /// By the producer's clock.
    pub time: UnixMs,
}

/// Finds the picture.
///
/// # Errors
/// 404 if nothing is shown then.
pub async fn find(api: &Api, stream: StreamId, at: UnixMs) -> ApiResult<Picture> {
    let entry = api.index.timeline().at(stream, at).ok_or_else(no_picture)?;
    find_from(api, entry, at).await
}

/// Finds the picture shown at an instant of the producer's clock, from a fragment back.
///
/// # Errors
/// 404 if nothing is shown then.
pub async fn find_from(api: &Api, entry: SharedEntry, at: UnixMs) -> ApiResult<Picture> {
    let (timeline, stream) = (api.index.timeline(), entry.meta.stream);
    let mut entry = Some(entry);
    for _ in 0..BACK_MAX {
        let Some(here) = entry else { break };
        if let Some(picture) = find_near(api, &here, at).await? {
            return Ok(picture);
        }
        entry = match timeline.previous_in_run(&here) {
            Some(previous) => Some(previous),
            None => timeline.at(stream, here.meta.producer_start.plus_ms(-1)),
        };
    }
    Err(no_picture())
}

fn no_picture() -> ApiError {
    ApiError::not_found("no picture is shown at that time")
}

/// Looks in a fragment and in the leading pictures of the next.
async fn find_near(api: &Api, entry: &SharedEntry, at: UnixMs) -> ApiResult<Option<Picture>> {
    let here = fragment::load(api, entry).await?;
    let next = match api.index.timeline().next_in_run(entry) {
        Some(next) => Some(fragment::load(api, &next).await?),
        None => None,
    };
    let in_next = next.as_ref().and_then(|next| shown_in(next, at, true));
    let in_here = shown_in(&here, at, true);
    let leads = in_next.filter(|next| in_here.is_none_or(|here| next.time > here.time));
    if let (Some(shown), Some(next)) = (leads, next)
        && let Some(picture) = reach_back(api, next, shown).await?
    {
        return Ok(Some(picture));
    }
    let Some(shown) = in_here else { return Ok(None) };
    if let Some(picture) = reach_back(api, here.clone(), shown).await? {
        return Ok(Some(picture));
    }
    // A leading picture whose reference was never there cannot be shown.
    let Some(shown) = shown_in(&here, at, false) else { return Ok(None) };
    reach_back(api, here, shown).await
}

#[derive(Debug, Clone, Copy)]
struct ShownSample {
    track: u8,
    index: usize,
    time: UnixMs,
}

fn video_track(loaded: &LoadedFragment) -> Option<(u8, &Track)> {
    let tracks = loaded.config.tracks.iter().zip(0_u8..);
    tracks.map(|(track, index)| (index, track)).find(|(_, track)| track.kind == TrackKind::Video)
}

/// The sample of a fragment with the greatest presentation time up to `at`.
fn shown_in(loaded: &LoadedFragment, at: UnixMs, with_leading: bool) -> Option<ShownSample> {
    let (track, declared) = video_track(loaded)?;
    let origin_ms = loaded.origin_ms();
    let time = |sample: &SampleEntry| {
        UnixMs(origin_ms.saturating_add(ticks_to_ms_nearest(sample.presentation_ticks(), declared.timescale_hz)))
    };
    // 0x08: a Matroska block that is decoded but not shown.
    let visible = |sample: &SampleEntry| sample.block_flags & 0x08 == 0;
    let candidates = loaded.samples(track).map(|sample| sample.entry).enumerate().filter(|(_, sample)| {
        time(sample) <= at && visible(sample) && (with_leading || sample.sync != SyncKind::Leading)
    });
    let (index, sample) = candidates.max_by_key(|(_, sample)| sample.presentation_ticks())?;
    Some(ShownSample { track, index, time: time(sample) })
}

/// Adds what has to be decoded before. None: the sync sample it needs is not there.
async fn reach_back(api: &Api, last: LoadedFragment, shown: ShownSample) -> ApiResult<Option<Picture>> {
    let ShownSample { track, index, time } = shown;
    let up_to: Vec<SyncKind> = last.samples(track).take(index + 1).map(|sample| sample.entry.sync).collect();
    let leading = up_to.last() == Some(&SyncKind::Leading);
    // A leading picture needs what came before the sync sample that it follows.
    let before =
        if leading { up_to.iter().rposition(|sync| *sync == SyncKind::Sync).unwrap_or(0) } else { up_to.len() };
    let mut fragments = vec![last];
    let from = last_sync(api, &mut fragments, track, before).await?;
    Ok(from.map(|from| Picture { fragments, track, from, wanted: index, time }))
}

/// The last sync sample before sample `before` of the first fragment; puts those of its run in front that it takes.
async fn last_sync(
    api: &Api,
    fragments: &mut Vec<LoadedFragment>,
    track: u8,
    before: usize,
) -> ApiResult<Option<usize>> {
    let mut before = before;
    while let Some(first) = fragments.first() {
        let syncs: Vec<SyncKind> = first.samples(track).take(before).map(|sample| sample.entry.sync).collect();
        if let Some(from) = syncs.iter().rposition(|sync| *sync == SyncKind::Sync) {
            return Ok(Some(from));
        }
        let previous = api.index.timeline().previous_in_run(&first.entry);
        let Some(previous) = previous.filter(|_| fragments.len() < BACK_MAX) else { break };
        fragments.insert(0, fragment::load(api, &previous).await?);
        before = usize::MAX;
    }
    Ok(None)
}

impl Picture {
    fn last(&self) -> &LoadedFragment {
        &self.fragments[self.fragments.len() - 1]
    }

    /// Names the picture, for entity tags.
    #[must_use]
    pub fn identity(&self) -> String {
        format!("{}-{}", self.last().entry.meta.number, self.wanted)
    }

    pub(crate) fn track(&self) -> &Track {
        &self.last().config.tracks[usize::from(self.track)]
    }

    pub(crate) fn wanted_ticks(&self) -> i64 {
        self.last().samples(self.track).nth(self.wanted).map_or(0, |sample| sample.entry.presentation_ticks())
    }

    /// The same picture, decoded from one sync sample earlier. Some decoders show nothing of the first pictures after
    /// a recovery point (ISO/IEC 14496-10 section D.2.8) that is no IDR picture. None: there is no earlier one.
    ///
    /// # Errors
    /// If a fragment cannot be read.
    pub(crate) async fn earlier(mut self, api: &Api) -> ApiResult<Option<Self>> {
        let from = last_sync(api, &mut self.fragments, self.track, self.from).await?;
        Ok(from.map(|from| Self { from, ..self }))
    }

    /// The samples to decode, with the fragment of each. Leading pictures of the first sync sample need what is not
    /// decoded: they are skipped.
    fn samples(&self) -> Vec<(usize, StoredSample<'_>)> {
        let all = self.fragments.iter().enumerate().flat_map(|(index, loaded)| {
            let from = if index == 0 { self.from } else { 0 };
            let to = if index + 1 == self.fragments.len() { self.wanted + 1 } else { usize::MAX };
            loaded.samples(self.track).take(to).skip(from).map(move |sample| (index, sample))
        });
        let mut syncs = 0;
        let decodable = all.filter(|(_, sample)| {
            syncs += u32::from(sample.entry.sync == SyncKind::Sync);
            syncs > 1 || sample.entry.sync != SyncKind::Leading
        });
        decodable.collect()
    }

    /// Reads what is to be decoded, in decode order.
    ///
    /// # Errors
    /// 422 if it is too much.
    pub(crate) async fn read(&self, api: &Api) -> ApiResult<Vec<CodedPicture>> {
        let samples = self.samples();
        let size = samples.iter().map(|(_, sample)| u64::from(sample.entry.size)).sum::<u64>();
        if size > BYTES_MAX {
            return Err(ApiError::unusable(format!("the picture needs {size} bytes decoded, over {BYTES_MAX}")));
        }
        let mut pictures = Vec::with_capacity(samples.len());
        for samples in samples.chunk_by(|(a, _), (b, _)| a == b) {
            let loaded = &self.fragments[samples[0].0];
            let ranges = samples.iter().map(|(_, sample)| sample.stored());
            let mut bytes = Bytes::from(fragment::read_all(&*api.source, &loaded.entry, ranges).await?);
            pictures.extend(samples.iter().map(|(_, sample)| CodedPicture {
                presentation_ticks: sample.entry.presentation_ticks(),
                sync: sample.entry.sync == SyncKind::Sync,
                data: bytes.split_to(sample.entry.size as usize),
            }));
        }
        Ok(pictures)
    }
}
