//! `/v1/streams/STREAM/timeline`: runs and gaps.

use std::ops::Range;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};
use vidar_core::control::GapRecord;
use vidar_core::ids::{RunId, StreamId};
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};
use vidar_indexer::{RunOverlaps, RunView, TimeAxis};

use crate::params::{self, Params};
use crate::{Api, ApiResult};

/// Runs that are named as overlapping another: answers stay small where a range was pushed again and again.
const OVERLAPS_MAX: usize = 32;

pub(super) async fn show(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let stream = params::stream(&api, &stream)?.stream;
    let params = Params::parse(query.as_deref(), &["start", "end", "time", "limit", "next_token"])?;
    let limit = params.limit()?;
    let axis = super::time_axis(&params)?;
    let place = match params.next_token()? {
        Some(bytes) => Place::decode(&bytes).map_err(|_| params::bad_token())?,
        None => Place { axis, run: None, gap: None },
    };
    if place.axis != axis {
        return Err(params::token_of_other_clock());
    }
    let (start, end) = params.span()?;
    let range = start.unwrap_or(UnixMs(i64::MIN))..end.unwrap_or(UnixMs(i64::MAX));
    super::listing(move || Json(page_after(&api, stream, place, range, limit))).await
}

/// The page after a place. Looks at all runs.
fn page_after(api: &Api, stream: StreamId, place: Place, range: Range<UnixMs>, limit: usize) -> Value {
    let axis = place.axis;
    let catalog = api.index.catalog();
    let mut runs = catalog.runs(stream);
    let overlaps = RunOverlaps::of(&runs);
    runs.retain(|run| run.is_in(axis, &range));
    let (runs, more_runs) = page(runs, run_key, place.run, limit);
    let gaps = match axis {
        TimeAxis::Producer => catalog.gaps(stream, Some(range)),
        TimeAxis::Server => catalog.gaps_noticed(stream, &range),
    };
    let key = |gap: &Arc<GapRecord>| gap_key(axis, gap);
    let (gaps, more_gaps) = page(gaps, key, place.gap, limit);
    let next = Place { axis, run: runs.last().map(run_key).or(place.run), gap: gaps.last().map(key).or(place.gap) };
    json!({
        "runs": runs.iter().map(|run| show_run(run, &overlaps)).collect::<Vec<_>>(),
        "gaps": gaps.iter().map(|gap| show_gap(gap)).collect::<Vec<_>>(),
        "totals": super::totals(api, stream),
        "next_token": (more_runs || more_gaps).then(|| params::page_token(&next.encode())),
    })
}

type RunKey = (UnixMs, RunId);
type GapKey = (UnixMs, UnixMs, UnixMs);

fn run_key(run: &RunView) -> RunKey {
    (run.record.started, run.record.run)
}

fn gap_key(axis: TimeAxis, gap: &GapRecord) -> GapKey {
    match axis {
        TimeAxis::Producer => (gap.start, gap.end, gap.noticed),
        TimeAxis::Server => (gap.noticed, gap.start, gap.end),
    }
}

/// What comes after a place, in order; and whether there is more.
fn page<T, K: Ord + Copy>(mut all: Vec<T>, key: impl Fn(&T) -> K, after: Option<K>, limit: usize) -> (Vec<T>, bool) {
    all.sort_by_key(&key);
    let from = after.map_or(0, |after| all.partition_point(|item| key(item) <= after));
    let mut page = all.split_off(from);
    let more = page.len() > limit;
    page.truncate(limit);
    (page, more)
}

/// The last run and the last gap of a page, and the clock that gaps are in order of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    axis: TimeAxis,
    run: Option<RunKey>,
    gap: Option<GapKey>,
}

impl Place {
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut writer = Writer::new();
        writer.u8(u8::from(self.axis == TimeAxis::Server));
        writer.option(self.run, |w, (started, run)| {
            w.i64(started.0).raw(run.as_bytes());
        });
        writer.option(self.gap, |w, (first, second, third)| {
            w.i64(first.0).i64(second.0).i64(third.0);
        });
        writer.into_vec()
    }

    pub(super) fn decode(bytes: &[u8]) -> Result<Self, WireError> {
        let mut reader = Reader::new(bytes);
        let start = reader.clone();
        let axis = match reader.u8()? {
            0 => TimeAxis::Producer,
            1 => TimeAxis::Server,
            _ => return Err(start.error("0 or 1")),
        };
        let run = reader.option(|r| Ok((UnixMs(r.i64()?), RunId::from_bytes(r.array()?))))?;
        let gap = reader.option(|r| Ok((UnixMs(r.i64()?), UnixMs(r.i64()?), UnixMs(r.i64()?))))?;
        reader.finish()?;
        Ok(Self { axis, run, gap })
    }
}

fn show_run(run: &RunView, overlaps: &RunOverlaps) -> Value {
    let record = &run.record;
    let overlaps: Vec<RunId> = overlaps.with(run).take(OVERLAPS_MAX).collect();
    json!({
        "run": record.run,
        "started": record.started,
        "ended": run.ended.as_ref().map(|(at, _)| at),
        "end_cause": run.ended.as_ref().map(|(_, cause)| cause),
        "protocol": record.protocol,
        "source": record.source,
        "user_agent": record.user_agent,
        "anchor": record.anchor,
        "wall_clock_source": record.anchor_source.name(),
        "continues": record.continues,
        "push_id": record.push,
        "start": run.producer.as_ref().map(|range| range.start),
        "end": run.producer.as_ref().map(|range| range.end),
        "fragments": run.fragment_count,
        "overlaps": overlaps,
    })
}

fn show_gap(gap: &GapRecord) -> Value {
    json!({
        "start": gap.start,
        "end": gap.end,
        "noticed": gap.noticed,
        "cause": gap.cause.name(),
        "count": gap.count,
        "run": gap.run,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_round_trip_and_every_truncation_is_refused() {
        for axis in [TimeAxis::Producer, TimeAxis::Server] {
            let (run, gap) = (Some((UnixMs(-4), RunId::new())), Some((UnixMs(1), UnixMs(2), UnixMs(3))));
            let place = Place { axis, run, gap };
            let bytes = place.encode();
            assert_eq!(Place::decode(&bytes), Ok(place));
            for len in 0..bytes.len() {
                assert!(Place::decode(&bytes[..len]).is_err(), "{len}");
            }
            let none = Place { axis, run: None, gap: None };
            assert_eq!(Place::decode(&none.encode()), Ok(none));
        }
    }

    #[test]
    fn pages_go_on_after_the_last() {
        assert_eq!(page(vec![3, 1, 2], |n| *n, None, 2), (vec![1, 2], true));
        assert_eq!(page(vec![3, 1, 2], |n| *n, Some(2), 2), (vec![3], false));
        assert_eq!(page(vec![3, 1, 2], |n| *n, Some(3), 2), (vec![], false));
    }
}
