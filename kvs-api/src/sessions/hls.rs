//! Playlists of HLS sessions.

use std::sync::Arc;

use axum::extract::{RawQuery, State};
use axum::response::Response;
use http::HeaderMap;
use vidar_player_api::hls::{MediaPlaylist, Missing, Multivariant, answer, with_configs};

use super::Kind;
use super::names::SessionNames;
use super::opened::Opened;
use super::session::{Container, Mode};
use crate::Kvs;
use crate::error::{ServiceError, ServiceResult};

pub(super) async fn master(
    State(kvs): State<Arc<Kvs>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ServiceResult<Response> {
    let opened = Opened::new(&kvs, Kind::Hls, query.as_deref(), &[])?;
    let window = opened.window(&kvs).await?;
    let plan = with_configs(&kvs.player, window.shown).await?;
    let names = SessionNames { session: &opened.session, token: &opened.token };
    let mut playlist = plan.multivariant(&names);
    if opened.session.container == Container::Ts {
        together(&mut playlist);
    }
    Ok(answer::playlist(&headers, playlist.render()))
}

/// Of transport streams there is one playlist: its segments hold the pictures and the first sound.
fn together(playlist: &mut Multivariant) {
    playlist.video.truncate(1);
    playlist.audio.truncate(1);
    if let Some(video) = playlist.video.first_mut() {
        video.codecs.extend(playlist.audio.drain(..).flat_map(|audio| audio.codecs));
    }
}

pub(super) async fn media(
    State(kvs): State<Arc<Kvs>>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> ServiceResult<Response> {
    let opened = Opened::new(&kvs, Kind::Hls, query.as_deref(), &["TrackNumber"])?;
    let (session, id) = (&opened.session, opened.rendition()?);
    let window = opened.window(&kvs).await?;
    let plan = with_configs(&kvs.player, window.shown).await?;
    if !plan.renditions().contains(&id) {
        return Err(ServiceError::not_of_session());
    }
    let names = SessionNames { session, token: &opened.token };
    let mut segments = plan.segments(id, &names, Missing::LeftOut);
    for (segment, discontinuity) in segments.iter_mut().zip(window.discontinuities) {
        segment.discontinuity = discontinuity;
        if session.container == Container::Ts {
            segment.map = None;
        }
    }
    let playlist = MediaPlaylist {
        sequence: window.sequence,
        target_s: session.target_s,
        independent: plan.independent(Some(id)),
        ended: session.mode == Mode::OnDemand,
        start_offset_ms: None,
        dates: session.shows_times,
        segments,
        low: None,
        key_frames: false,
    };
    Ok(answer::playlist(&headers, playlist.render()))
}
