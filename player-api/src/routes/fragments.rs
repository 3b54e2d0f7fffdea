//! `/v1/streams/STREAM/fragments`: what is stored, by producer or server time.

use std::collections::HashMap;
use std::sync::Arc;

use axum::Json;
use axum::extract::{Path, RawQuery, State};
use serde_json::{Value, json};
use vidar_core::entry::{FragmentEntry, SharedEntry};
use vidar_core::ids::{RunId, StreamId};
use vidar_core::record::FragmentFlags;
use vidar_indexer::{Details, RangeQuery, TrackShape};

use crate::params::{self, Params};
use crate::{Api, ApiResult};

const KNOWN: &[&str] = &["start", "end", "time", "order", "limit", "next_token"];

pub(super) async fn list(
    State(api): State<Arc<Api>>,
    Path(stream): Path<String>,
    RawQuery(query): RawQuery,
) -> ApiResult<Json<Value>> {
    let stream = params::stream(&api, &stream)?.stream;
    let params = Params::parse(query.as_deref(), KNOWN)?;
    let (start, end) = params.span()?;
    let axis = super::time_axis(&params)?;
    let descending = params.choice("order", &[("asc", false), ("desc", true)])?;
    let after = super::cursor(&params, axis, descending)?;
    let query = RangeQuery { stream, axis, start, end, after, limit: params.limit()?, descending };
    super::listing(move || Json(page(&api, &query))).await
}

/// A page. Opens blocks, for what overlaps its fragments those of the whole stream if its times are scattered. Blocks.
fn page(api: &Api, query: &RangeQuery) -> Value {
    let page = api.index.timeline().range(query);
    let overlapped = api.index.timeline().overlapped(query.stream, &page.entries);
    let mut sources = WallSources { api, stream: query.stream, known: HashMap::new() };
    let show = |entry: &SharedEntry| show(api, entry, overlapped.contains(&entry.meta.number), &mut sources);
    let fragments: Vec<Value> = page.entries.iter().map(show).collect();
    json!({ "fragments": fragments, "next_token": page.next.map(|next| next.to_string()) })
}

/// Where the times of a run come from, looked up once for each run of a page.
struct WallSources<'a> {
    api: &'a Api,
    stream: StreamId,
    known: HashMap<RunId, Option<&'static str>>,
}

impl WallSources<'_> {
    fn of(&mut self, run: RunId) -> Option<&'static str> {
        let look = || self.api.index.catalog().run(self.stream, run).map(|run| run.record.anchor_source.name());
        *self.known.entry(run).or_insert_with(look)
    }
}

fn show(api: &Api, entry: &FragmentEntry, overlapped: bool, sources: &mut WallSources<'_>) -> Value {
    let meta = &entry.meta;
    let is = |flag| meta.flags.contains(flag);
    let details = api.index.timeline().details(meta.stream, meta.number);
    let (tracks, tags) = details.as_ref().map_or((&[][..], &[][..]), |details| (&details.tracks[..], details.tags()));
    let codecs: Vec<&str> = tracks.iter().map(|track| track.codec.as_str()).collect();
    let tracks: Vec<Value> = tracks.iter().map(show_track).collect();
    let tags: Vec<Value> = tags.iter().map(|tag| json!({ "name": tag.name, "value": tag.value })).collect();
    json!({
        "fragment_number": meta.number,
        "producer_time": meta.producer_start,
        "server_time": meta.server_start(),
        "duration_ms": meta.duration_ms,
        "size_bytes": entry.size_bytes,
        "run": meta.run,
        "codecs": codecs,
        "tracks": tracks,
        "starts_with_sync": is(FragmentFlags::STARTS_WITH_SYNC),
        "incomplete": is(FragmentFlags::INCOMPLETE),
        "cut_at_limit": is(FragmentFlags::CUT_AT_LIMIT),
        "repeats": is(FragmentFlags::REPEATS),
        "overlapped": overlapped,
        "lost_count": details.as_ref().map_or(0, Details::lost_count),
        "wall_clock_source": sources.of(meta.run),
        "wall_source": details.as_ref().map(|details| details.wall_source.name()),
        "wall_offset_ms": details.as_ref().map(|details| details.wall_offset_ms),
        "tags": tags,
    })
}

fn show_track(track: &TrackShape) -> Value {
    let mut shown = json!({ "codec": track.codec });
    if track.width > 0 {
        shown["width"] = track.width.into();
        shown["height"] = track.height.into();
    }
    shown
}
