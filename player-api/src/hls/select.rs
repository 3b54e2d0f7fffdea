//! Which fragments a playlist has.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use vidar_core::entry::SharedEntry;
use vidar_core::ids::StreamId;
use vidar_core::source::ReadError;
use vidar_core::time::UnixMs;
use vidar_indexer::Timeline;

use super::plan::{MISSING_MAX, Plan, starts_with_sync};
use crate::bound::fragment_count;
use crate::routes::listing;
use crate::{Api, ApiError, ApiResult};

/// Segments of a playlist at most: a day of 2 s and some.
const RANGE_FRAGMENTS_MAX: usize = 50_000;
/// How far to look back for a sync sample.
const SYNC_BACK_MAX: usize = 1000;
/// Fragments from which a target duration is made.
const LIVE_FRAGMENTS: usize = 120;
/// Fragments of a live window, and its length in target durations, at least where there are so many.
const LIVE_FRAGMENTS_MIN: usize = 8;
const LIVE_TARGETS_MIN: u64 = 4;

/// A range by producer time, resolved.
#[derive(Debug, Clone)]
pub(crate) struct Range {
    pub(crate) plan: Plan,
    pub(crate) start: UnixMs,
    pub(crate) end: UnixMs,
    /// From the beginning of the first segment to what was asked for, if that is later.
    pub(crate) offset_ms: Option<i64>,
}

/// The fragments shown in `[start, end)`, from the sync sample on that the first of them needs.
///
/// # Errors
/// 404 if there are none, 422 if there are too many.
pub(crate) async fn range(api: &Api, stream: StreamId, start: Option<UnixMs>, end: Option<UnixMs>) -> ApiResult<Range> {
    let timeline = api.index.timeline();
    fragment_count(timeline, stream, start, end, RANGE_FRAGMENTS_MAX)?;
    let shown = timeline.shown(stream, start.unwrap_or(UnixMs(i64::MIN)), end.unwrap_or(UnixMs(i64::MAX)));
    let (Some(first), Some(last)) = (shown.first(), shown.last()) else {
        return Err(ApiError::not_found("no media in the range"));
    };
    let (start, end) = (start.unwrap_or(first.from), end.unwrap_or(last.to));
    let mut entries = before_sync(api, &first.entry);
    let mut seen = HashSet::new();
    // A fragment that another covers in its middle comes twice; it plays once.
    entries.extend(shown.iter().map(|shown| shown.entry.clone()).filter(|entry| seen.insert(entry.meta.number)));
    let offset_ms = entries.first().map(|entry| start.since_ms(entry.meta.producer_start)).filter(|ms| *ms > 0);
    Ok(Range { plan: with_configs(api, entries).await?, start, end, offset_ms })
}

/// The fragments of the same run before `entry` that it needs to be decoded.
fn before_sync(api: &Api, entry: &SharedEntry) -> Vec<SharedEntry> {
    let mut entries = Vec::new();
    let mut first = entry.clone();
    while !starts_with_sync(&first) && entries.len() < SYNC_BACK_MAX {
        let Some(previous) = api.index.timeline().previous_in_run(&first) else { break };
        entries.push(previous.clone());
        first = previous;
    }
    if !starts_with_sync(&first) {
        return Vec::new();
    }
    entries.reverse();
    entries
}

/// The last fragments of a stream, so many milliseconds of them at least where there are, and the target duration: of the
/// session, or of one that begins now.
///
/// # Errors
/// 404 if there are none.
pub(crate) async fn live(api: &Api, stream: StreamId, window_ms: u64, target_s: Option<u32>) -> ApiResult<(Plan, u32)> {
    let entries = match window_ms {
        0 => newest(api.index.timeline(), stream, 0),
        _ => {
            let index = Arc::clone(&api.index);
            listing(move || newest(index.timeline(), stream, window_ms)).await?
        }
    };
    let newest = &entries[entries.len().saturating_sub(LIVE_FRAGMENTS)..];
    let longest_s = || super::media::target_s(newest.iter().map(|entry| entry.meta.duration_ms));
    // Of a session it stays, and so does where its window begins.
    let target_s = target_s.unwrap_or_else(longest_s);
    let window = window(&entries, target_s, window_ms);
    if window.is_empty() {
        return Err(ApiError::not_found("no media yet"));
    }
    Ok((with_configs(api, window.to_vec()).await?, target_s))
}

/// The last fragments in order of ordinals: some, and as many as make up the window, if there are.
fn newest(timeline: &Timeline, stream: StreamId, window_ms: u64) -> Vec<SharedEntry> {
    let Some(last) = timeline.last(stream) else { return Vec::new() };
    let newest = |count: usize| {
        let from = last.meta.ordinal.saturating_sub(count as u64 - 1);
        timeline.by_ordinal(stream, from, count)
    };
    let some = newest(LIVE_FRAGMENTS);
    let ms: u64 = some.iter().map(|entry| u64::from(entry.meta.duration_ms)).sum();
    if ms >= window_ms {
        return some;
    }
    // As many as it takes where all are as long, and half as many more.
    let count = window_ms.saturating_mul(some.len() as u64) / ms.max(1) * 3 / 2;
    newest(usize::try_from(count).unwrap_or(usize::MAX).clamp(LIVE_FRAGMENTS, RANGE_FRAGMENTS_MAX))
}

/// The end of `entries` (in order of ordinals) that a live playlist shows.
fn window(entries: &[SharedEntry], target_s: u32, window_ms: u64) -> &[SharedEntry] {
    let wanted_ms = window_ms.max(LIVE_TARGETS_MIN * u64::from(target_s) * 1000);
    let (mut ms, mut from) = (0_u64, entries.len());
    for (index, entry) in entries.iter().enumerate().rev() {
        let next = entries.get(index + 1);
        if next.is_some_and(|next| next.meta.ordinal.saturating_sub(entry.meta.ordinal) > MISSING_MAX + 1) {
            break;
        }
        let enough = entries.len() - from >= LIVE_FRAGMENTS_MIN && ms >= wanted_ms;
        if enough && entries.get(from).is_some_and(starts_with_sync) {
            break;
        }
        ms += u64::from(entry.meta.duration_ms);
        from = index;
    }
    entries.get(from..).unwrap_or_default()
}

/// Reads the configs of some fragments. One whose config is damaged cannot play, and is a gap: the rest plays.
///
/// # Errors
/// If a config cannot be read now, or none reads.
pub async fn with_configs(api: &Api, entries: Vec<SharedEntry>) -> ApiResult<Plan> {
    let mut configs = HashMap::new();
    // Every file has its own copies, each of which is tried once.
    let (mut unreadable, mut damage) = (HashSet::new(), None);
    for entry in &entries {
        let copy = (entry.meta.config, entry.record.file);
        if configs.contains_key(&copy.0) || unreadable.contains(&copy) {
            continue;
        }
        let known = api.source.is_damaged(entry);
        match api.source.config(entry).await {
            Ok(config) => drop(configs.insert(copy.0, config)),
            Err(error @ ReadError::Corrupt { .. }) => {
                // A live playlist is asked for again and again.
                if !known {
                    tracing::warn!(%error, "a config does not read: fragments that need it are gaps");
                }
                unreadable.insert(copy);
                damage = Some(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    if let Some(damage) = damage.filter(|_| configs.is_empty()) {
        return Err(damage.into());
    }
    let damaged = entries.iter().filter(|entry| api.source.is_damaged(entry)).map(|entry| entry.meta.number).collect();
    Ok(Plan { entries, configs, damaged })
}
