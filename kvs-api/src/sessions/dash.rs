//! Manifests of DASH sessions: the same segments, on a timeline of the session.
//!
//! Each break of the timeline begins a period, so that gaps are closed. A live session's periods begin when their first
//! fragment did.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use vidar_core::entry::SharedEntry;
use vidar_player_api::hls::{
    Missing, Multivariant, Names as _, Plan, Rendition, TIMELINE_LEAD_MS, answer, with_configs,
};

use super::Kind;
use super::listing::Place;
use super::mpd::{Line, Manifest, Period, Representation, Timing};
use super::names::SessionNames;
use super::opened::Opened;
use super::session::{Mode, Session};
use crate::Kvs;
use crate::error::ServiceResult;

const MANIFEST_TYPE: &str = "application/dash+xml";

pub(super) async fn manifest(
    State(kvs): State<Arc<Kvs>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ServiceResult<Response> {
    let opened = Opened::new(&kvs, Kind::Dash, query.as_deref(), &[])?;
    let window = opened.window(&kvs).await?;
    // Once, and not with each URI: ffmpeg cuts those that are longer than the manifest's and the base together.
    let names = SessionNames { session: &opened.session, token: "" };
    let mut periods = Vec::new();
    let placed: Vec<(&SharedEntry, Place)> = window.shown.iter().zip(window.places.iter().copied()).collect();
    for placed in placed.chunk_by(|(_, a), (_, b)| a.period == b.period) {
        let fragments = placed.iter().map(|(entry, _)| SharedEntry::clone(entry)).collect();
        let plan = with_configs(&kvs.player, fragments).await?;
        periods.push(period(placed, &plan, &names));
    }
    let timing = timing(&opened.session, &placed, kvs.clock.now());
    let base = format!("{}/", opened.token);
    let manifest = Manifest { timing, base, periods };
    Ok(answer::text_of(&headers, MANIFEST_TYPE, manifest.render()))
}

/// Fragments without a break among them.
fn period(placed: &[(&SharedEntry, Place)], plan: &Plan, names: &SessionNames<'_>) -> Period {
    let (first, place) = placed[0];
    let lines: Vec<Line> =
        placed.iter().enumerate().map(|(index, (entry, _))| line(entry, placed.get(index + 1))).collect();
    // Producer time of the period's beginning, which the window may have left behind.
    let zero_ms = first.meta.producer_start.0 - (place.at_ms - place.period_ms);
    let Multivariant { video, audio, peak_bps, .. } = plan.multivariant(names);
    let representation = |rendition: Rendition| {
        let id = rendition.id;
        let segments = plan.segments(id, names, Missing::LeftOut);
        // What has no samples of the track has no segment.
        let plays = segments.into_iter().zip(&lines).filter(|(segment, _)| !segment.gap);
        let (uris, lines): (Vec<String>, Vec<Line>) = plays.map(|(segment, line)| (segment.uri, line.clone())).unzip();
        let init = names.init(id, first);
        Representation { rendition, bandwidth_bps: peak_bps.max(1), init, lines, uris }
    };
    let representations = video.into_iter().chain(audio).map(representation);
    Period {
        start_ms: place.period_ms,
        offset_ms: zero_ms.saturating_add(TIMELINE_LEAD_MS),
        shows_times: names.session.shows_times,
        shows_numbers: names.session.shows_numbers,
        representations: representations.filter(|one| !one.lines.is_empty()).collect(),
    }
}

/// Up to the next one, so that none are apart.
fn line(entry: &SharedEntry, next: Option<&(&SharedEntry, Place)>) -> Line {
    let until_next = next.map(|(next, _)| next.meta.producer_start.since_ms(entry.meta.producer_start));
    let duration_ms = until_next.filter(|ms| *ms > 0).unwrap_or_else(|| i64::from(entry.meta.duration_ms.max(1)));
    Line {
        at_ms: entry.meta.producer_start.0.saturating_add(TIMELINE_LEAD_MS),
        duration_ms,
        producer_ms: entry.meta.producer_start.0,
        number: entry.meta.number,
    }
}

fn timing(session: &Session, placed: &[(&SharedEntry, Place)], now: vidar_core::time::UnixMs) -> Timing {
    let end_ms = placed.last().map_or(0, |(entry, place)| place.at_ms + i64::from(entry.meta.duration_ms));
    let start_ms = placed.first().map_or(0, |(_, place)| place.at_ms);
    match session.mode {
        Mode::OnDemand => Timing::Static { duration_ms: end_ms - start_ms },
        // A fragment is there when it has ended: the last that the session began with, at its beginning.
        Mode::Live | Mode::LiveReplay => Timing::Dynamic {
            available_from: session.began.plus_ms(-(session.lead_ms as i64)),
            published: now,
            buffer_ms: end_ms - start_ms,
            target_s: session.target_s,
        },
    }
}
