//! Segments of sessions. A token opens what its session shows, and nothing else of the stream.

use std::sync::Arc;

use axum::extract::{Extension, Path, RawQuery, State};
use axum::response::Response;
use http::{HeaderMap, Method};
use vidar_core::entry::SharedEntry;
use vidar_core::ids::FragmentNumber;
use vidar_player_api::hls::answer;

use super::names::sequence;
use super::opened::Opened;
use super::session::Session;
use super::{Kind, listing};
use crate::Kvs;
use crate::error::{ServiceError, ServiceResult};

pub(super) async fn segment(
    State(kvs): State<Arc<Kvs>>,
    Extension(kind): Extension<Kind>,
    token: Option<Path<String>>,
    RawQuery(query): RawQuery,
    method: Method,
    headers: HeaderMap,
) -> ServiceResult<Response> {
    let opened = Opened::below(&kvs, kind, token, query.as_deref(), &["FragmentNumber", "TrackNumber"])?;
    let (id, entry) = (opened.rendition()?, fragment(&kvs, &opened)?);
    Ok(answer::segment(&kvs.player, &entry, id, &method, &headers).await?)
}

pub(super) async fn ts_segment(
    State(kvs): State<Arc<Kvs>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ServiceResult<Response> {
    let opened = Opened::new(&kvs, Kind::Hls, query.as_deref(), &["FragmentNumber"])?;
    let entry = fragment(&kvs, &opened)?;
    Ok(answer::ts_segment(&kvs.player, &entry, &headers).await?)
}

/// The fragment that a request names.
fn fragment(kvs: &Kvs, opened: &Opened) -> ServiceResult<SharedEntry> {
    let (session, number) = (&opened.session, opened.required("FragmentNumber")?);
    let number: FragmentNumber = number.parse().map_err(|error| ServiceError::invalid(format!("{error}")))?;
    let entry = kvs.player.index.timeline().get(session.stream, number).filter(|entry| is_of(session, entry));
    entry.ok_or_else(ServiceError::not_of_session)
}

pub(super) async fn init(
    State(kvs): State<Arc<Kvs>>,
    Extension(kind): Extension<Kind>,
    token: Option<Path<String>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ServiceResult<Response> {
    let opened = Opened::below(&kvs, kind, token, query.as_deref(), &["TrackNumber", "SequenceNumber"])?;
    let id = opened.rendition()?;
    let wanted: u128 = opened.required("SequenceNumber")?.parse().map_err(|_| ServiceError::not_of_session())?;
    let entry = with_config(&kvs, &opened.session, wanted).await?.ok_or_else(ServiceError::not_of_session)?;
    Ok(answer::init(&kvs.player, &entry, id, &headers).await?)
}

/// A fragment that the session may show.
fn is_of(session: &Session, entry: &SharedEntry) -> bool {
    match &session.range {
        Some(range) => range.holds(entry),
        None => entry.meta.ordinal >= session.first.ordinal,
    }
}

/// A fragment of the session with the config that has this number.
async fn with_config(kvs: &Kvs, session: &Arc<Session>, wanted: u128) -> ServiceResult<Option<SharedEntry>> {
    let fits = move |session: &Session, entry: &SharedEntry| sequence(session, entry.meta.config) == wanted;
    let first = kvs.player.index.timeline().get(session.stream, session.first.number);
    if let Some(first) = first.filter(|first| fits(session, first)) {
        return Ok(Some(first));
    }
    let (session, player) = (Arc::clone(session), Arc::clone(&kvs.player));
    let look = move || {
        let fragments = listing::fragments(player.index.timeline(), &session);
        fragments.into_iter().find(|entry| fits(&session, entry))
    };
    kvs.look(look).await
}
