//! Live playlists of low latency (draft-pantos-hls-rfc8216bis appendix B): what is durable, as other live playlists show it,
//! and behind it what is being recorded, in parts.

use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures::stream;
use http::StatusCode;
use tokio::sync::watch;
use vidar_core::ids::{FragmentNumber, StreamId};
use vidar_core::track::StreamConfig;

use super::answer;
use super::head::{Found, FragmentState, Head, HeadFragment, State};
use super::media::{LowLatency, MediaPlaylist, OpenSegment, SKIP_TARGETS, Segment, target_s as target_s_of};
use super::plan::{Missing, Names, Plan};
use super::rendition::RenditionId;
use super::select;
use super::uris::Uris;
use crate::{Api, ApiError, ApiResult};

/// Segments that end within so many target durations of the end list their parts.
const PARTS_TARGETS: u64 = 3;
/// For so many target durations a playlist is waited for, and no longer than that: a key may end meanwhile.
const BLOCK_TARGETS: u64 = 3;
const BLOCK_MAX: Duration = Duration::from_secs(30);
/// So far ahead of the last segment a playlist may be asked for.
const AHEAD_MAX: u64 = 2;
/// For so long a part is waited for, and its own length.
const PART_WAIT: Duration = Duration::from_secs(5);

/// What a client of a rendition's playlist wants.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked {
    pub(crate) id: RenditionId,
    pub(crate) target_s: Option<u32>,
    pub(crate) part_ms: u32,
    pub(crate) window_ms: u64,
    /// It is to have this segment, or that part of it.
    pub(crate) sequence: Option<u64>,
    pub(crate) part: Option<usize>,
    /// What the client has may be left out.
    pub(crate) skip: bool,
}

/// The longest part for parts of about so many milliseconds: a whole number of frames, and a little for frames that come
/// unevenly (section 4.4.4.9: a part has at least 85 % of it).
pub(crate) fn part_ms(about_ms: u32, milli_fps: Option<u64>) -> u32 {
    let about_us = u64::from(about_ms) * 1000;
    let frame_us = milli_fps.filter(|fps| *fps > 0).map_or(about_us, |fps| 1_000_000_000 / fps).max(1);
    let frames = ((about_us + frame_us / 2) / frame_us).max(1);
    let whole_us = frames.saturating_mul(frame_us);
    u32::try_from((whole_us + whole_us / 25).div_ceil(1000) + 1).unwrap_or(u32::MAX)
}

/// Where a rendition is: its last whole segment, and how many parts there are of the next one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Position {
    sequence: u64,
    parts: usize,
}

impl Position {
    /// `stored`: the ordinal of the last fragment that is durable.
    fn of(state: &State, stored: u64, id: RenditionId, part_ms: u32) -> Self {
        let mut position = Self { sequence: stored, parts: 0 };
        for fragment in state.from(stored.saturating_add(1)) {
            match fragment.state {
                FragmentState::Open => position.parts = fragment.part_count(id, part_ms),
                _ => position.sequence = fragment.place.ordinal,
            }
        }
        position
    }

    fn has(self, sequence: u64, part: Option<usize>) -> bool {
        self.sequence >= sequence || self.sequence + 1 == sequence && part.is_some_and(|part| self.parts > part)
    }

    /// The last segment of which there is something, and its last part.
    fn last(self) -> (u64, Option<usize>) {
        match self.parts.checked_sub(1) {
            Some(part) => (self.sequence + 1, Some(part)),
            None => (self.sequence, None),
        }
    }
}

/// The playlist, and what it was made of. Waits until it has what was asked for.
///
/// # Errors
/// 404 if there is no media yet or no such rendition; 400 for a segment that is far ahead; 503 for one that does not come.
pub(crate) async fn playlist(
    api: &Api,
    stream: StreamId,
    asked: Asked,
    uris: &Uris,
) -> ApiResult<(MediaPlaylist, Plan)> {
    let head = api.heads.follow(&api.hub, stream);
    if let Some(sequence) = asked.sequence {
        let target_s = match asked.target_s {
            Some(target_s) => target_s,
            None => select::live(api, stream, 0, None).await?.1,
        };
        wait(api, &head, stream, asked, sequence, target_s).await?;
    }
    let (plan, target_s) = select::live(api, stream, asked.window_ms, asked.target_s).await?;
    if !plan.renditions().contains(&asked.id) {
        return Err(answer::no_rendition(asked.id));
    }
    Ok((made(&head, &plan, asked, target_s, uris), plan))
}

async fn wait(api: &Api, head: &Head, stream: StreamId, asked: Asked, sequence: u64, target_s: u32) -> ApiResult<()> {
    let mut changes = head.changes();
    let position = || {
        let stored = api.index.timeline().last(stream).map_or(0, |last| last.meta.ordinal);
        Position::of(&head.state(), stored, asked.id, asked.part_ms)
    };
    let newest = head.state().newest.unwrap_or(0);
    if sequence > newest.max(position().sequence).saturating_add(AHEAD_MAX) {
        return Err(ApiError::bad_request("_HLS_msn is far ahead of the last segment").with("parameter", "_HLS_msn"));
    }
    let block = Duration::from_secs(u64::from(target_s) * BLOCK_TARGETS).min(BLOCK_MAX);
    let deadline = tokio::time::Instant::now() + block;
    loop {
        changes.borrow_and_update();
        if position().has(sequence, asked.part) {
            return Ok(());
        }
        changed(api, &mut changes, deadline).await.ok_or_else(|| {
            ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("segment {sequence} did not come in time"))
        })?;
    }
}

/// None: the deadline came first, or the server stops.
async fn changed(api: &Api, changes: &mut watch::Receiver<()>, deadline: tokio::time::Instant) -> Option<()> {
    tokio::select! {
        // Its sender lives as long as who waits.
        changed = changes.changed() => changed.ok(),
        () = tokio::time::sleep_until(deadline) => None,
        () = api.heads.stopped() => None,
    }
}

fn made(head: &Head, plan: &Plan, asked: Asked, target_s: u32, uris: &Uris) -> MediaPlaylist {
    let Asked { id, part_ms, .. } = asked;
    let mut segments = plan.segments(id, uris, Missing::Listed);
    let first = plan.entries.first().map_or(0, |entry| entry.meta.ordinal);
    let stored = plan.entries.last().map_or(0, |entry| entry.meta.ordinal);
    let state = head.state();
    let part_uris = |number: FragmentNumber| move |index: usize| uris.part(id, number, part_ms, index);
    let longest_s = target_s_of(segments.iter().map(|segment| segment.duration_ms));
    let recent_ms = u64::from(target_s.max(longest_s)) * PARTS_TARGETS * 1000;
    // What is durable has the parts it was watched in.
    let from = older(&segments, recent_ms);
    for (_, segment, entry) in with_entries(&mut segments, plan, first).filter(|(index, ..)| *index >= from) {
        let whole = |fragment: &&HeadFragment| fragment.state != FragmentState::Open;
        if let Some(fragment) = state.get(entry).filter(whole).filter(|_| !segment.gap) {
            segment.parts = fragment.parts(id, part_ms, part_uris(entry));
        }
    }
    let mut config: Option<Arc<StreamConfig>> = plan.last_config();
    let mut open = None;
    let mut independent = plan.independent(Some(id));
    for fragment in state.from(stored.saturating_add(1)) {
        let number = fragment.place.number;
        let has_media = fragment.has(id) && fragment.state != FragmentState::Failed;
        let map = (has_media && config.as_ref() != Some(&fragment.config)).then(|| uris.init_of(number));
        if has_media {
            config = Some(Arc::clone(&fragment.config));
        }
        independent &= fragment.starts_with_sync(id);
        let parts = if has_media { fragment.parts(id, part_ms, part_uris(number)) } else { Vec::new() };
        let (discontinuity, start) = (fragment.place.discontinuity, fragment.start());
        if fragment.state == FragmentState::Open {
            let hint = uris.part(id, number, part_ms, parts.len());
            open = Some(OpenSegment { discontinuity, start, map, parts, hint });
            break;
        }
        let (duration_ms, uri) = (fragment.duration_ms.unwrap_or(1), uris.segment(id, number));
        segments.push(Segment { discontinuity, start, duration_ms, map, uri, gap: !has_media, parts });
    }
    let position = |id| Position::of(&state, stored, id, part_ms).last();
    let others = plan.renditions().into_iter().filter(|other| *other != id);
    let reports = others.map(|other| {
        let (sequence, part) = position(other);
        (format!("../{}", uris.playlist(other)), sequence, part)
    });
    let reports = reports.collect();
    drop(state);
    // As the playlist says it.
    let target_s = target_s.max(target_s_of(segments.iter().map(|segment| segment.duration_ms)));
    only_recent(&mut segments, u64::from(target_s) * PARTS_TARGETS * 1000);
    let skip_ms = u64::from(target_s) * u64::from(SKIP_TARGETS) * 1000;
    let skipped = if asked.skip { older(&segments, skip_ms) } else { 0 };
    MediaPlaylist {
        sequence: first,
        target_s,
        independent,
        ended: false,
        start_offset_ms: None,
        dates: true,
        segments,
        low: Some(LowLatency { part_ms, open, skipped, reports }),
        key_frames: false,
    }
}

/// The segments of fragments, which stand at their ordinals: index, segment, number.
fn with_entries<'a>(
    segments: &'a mut [Segment],
    plan: &'a Plan,
    first: u64,
) -> impl Iterator<Item = (usize, &'a mut Segment, FragmentNumber)> {
    let mut entries = plan.entries.iter().peekable();
    (first..).zip(segments.iter_mut().enumerate()).filter_map(move |(ordinal, (index, segment))| {
        let entry = entries.next_if(|entry| entry.meta.ordinal == ordinal)?;
        Some((index, segment, entry.meta.number))
    })
}

/// How many segments at the beginning end so long before the end.
fn older(segments: &[Segment], ms: u64) -> usize {
    let mut after_ms = 0;
    let recent = segments.iter().rev().take_while(|segment| {
        let is_recent = after_ms <= ms;
        after_ms += u64::from(segment.duration_ms);
        is_recent
    });
    segments.len() - recent.count()
}

/// Parts are of use near the end.
fn only_recent(segments: &mut [Segment], ms: u64) {
    let count = older(segments, ms);
    segments[..count].iter_mut().for_each(|segment| segment.parts = Vec::new());
}

/// A part of the segment of a fragment, or all parts; of one that is recorded, as soon as it is complete. None: the archive
/// has it, if anybody has.
///
/// # Errors
/// 404 if there is no such part, or it does not come.
pub(super) async fn media(
    api: &Api,
    stream: StreamId,
    number: FragmentNumber,
    id: RenditionId,
    part_ms: u32,
    which: Option<usize>,
) -> ApiResult<Option<Vec<bytes::Bytes>>> {
    let Some(head) = api.heads.get(stream) else { return Ok(None) };
    let mut changes = head.changes();
    let deadline = tokio::time::Instant::now() + PART_WAIT + Duration::from_millis(part_ms.into());
    let missing = || ApiError::not_found("no such part");
    loop {
        changes.borrow_and_update();
        let found = head.state().get(number).map_or(Found::Elsewhere, |fragment| fragment.media(id, part_ms, which));
        match found {
            Found::Media(media) => return Ok(Some(media)),
            Found::Elsewhere => return Ok(None),
            Found::Never => return Err(missing()),
            Found::NotYet => changed(api, &mut changes, deadline).await.ok_or_else(missing)?,
        }
    }
}

/// The init segment of a fragment that is being recorded. None: it is not.
pub(super) fn init(api: &Api, stream: StreamId, number: FragmentNumber) -> Option<Arc<StreamConfig>> {
    let head = api.heads.get(stream)?;
    let state = head.state();
    state.get(number).map(|fragment| Arc::clone(&fragment.config))
}

/// An answer of pieces that are there.
pub(super) fn body(media: Vec<bytes::Bytes>) -> Body {
    Body::from_stream(stream::iter(media.into_iter().map(Ok::<_, std::convert::Infallible>)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_whole_frames() {
        for (fps, frames, frame_us) in
            [(25_000, 5, 40_000), (30_000, 6, 33_333), (24_000, 5, 41_666), (1_000, 1, 1_000_000)]
        {
            let part_us = u64::from(part_ms(200, Some(fps))) * 1000;
            assert!(part_us >= frames * frame_us, "{fps}");
            assert!(frames * frame_us * 100 >= part_us * 85, "{fps}: {part_us}");
            assert!(part_us < (frames + 1) * frame_us || frames == 1, "{fps}");
        }
        assert_eq!(part_ms(200, None), 209);
    }

    #[test]
    fn what_a_position_has() {
        let position = Position { sequence: 7, parts: 2 };
        assert!(position.has(7, None) && position.has(7, Some(99)) && position.has(8, Some(1)));
        assert!(!position.has(8, None) && !position.has(8, Some(2)) && !position.has(9, Some(0)));
        assert_eq!(position.last(), (8, Some(1)));
        assert_eq!(Position { parts: 0, ..position }.last(), (7, None));
    }
}
