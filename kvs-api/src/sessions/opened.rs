//! A request below a session URL: its token checked, its parameters read.

use std::sync::Arc;

use axum::extract::Path;
use vidar_core::policy::{Action, Target};
use vidar_player_api::hls::RenditionId;
use vidar_player_api::params::Params;

use super::listing::{self, Window};
use super::session::Session;
use super::{Kind, token};
use crate::Kvs;
use crate::error::{ServiceError, ServiceResult};

/// A session that counts.
pub(super) struct Opened {
    pub(super) session: Arc<Session>,
    /// As it was given: URIs of playlists carry it.
    pub(super) token: String,
    params: Params,
}

impl Opened {
    /// Checks the token of a query. `known`: parameters beside it.
    pub(super) fn new(kvs: &Kvs, kind: Kind, query: Option<&str>, known: &[&str]) -> ServiceResult<Self> {
        let params = Params::parse(query, &[known, &["SessionToken"]].concat())?;
        let token = params.text("SessionToken").ok_or_else(ServiceError::session_over)?.to_owned();
        Self::with(kvs, kind, token, params)
    }

    /// The same where the token stands in the path, if there is one.
    pub(super) fn below(
        kvs: &Kvs,
        kind: Kind,
        token: Option<Path<String>>,
        query: Option<&str>,
        known: &[&str],
    ) -> ServiceResult<Self> {
        match token {
            Some(Path(token)) => Self::with(kvs, kind, token, Params::parse(query, known)?),
            None => Self::new(kvs, kind, query, known),
        }
    }

    fn with(kvs: &Kvs, kind: Kind, token: String, params: Params) -> ServiceResult<Self> {
        let session = session(kvs, kind, &token).ok_or_else(ServiceError::session_over)?;
        Ok(Self { session: Arc::new(session), token, params })
    }

    /// `TrackNumber`.
    pub(super) fn rendition(&self) -> ServiceResult<RenditionId> {
        let number = self.params.number("TrackNumber", 1..=1000)?;
        let number = number.ok_or_else(|| ServiceError::invalid("TrackNumber is required."))?;
        RenditionId::of_track_number(number).ok_or_else(ServiceError::not_of_session)
    }

    /// A parameter that has to be there.
    pub(super) fn required(&self, name: &str) -> ServiceResult<&str> {
        self.params.text(name).ok_or_else(|| ServiceError::invalid(format!("{name} is required.")))
    }

    /// What a playlist shows now.
    pub(super) async fn window(&self, kvs: &Kvs) -> ServiceResult<Window> {
        let (session, player, now) = (Arc::clone(&self.session), Arc::clone(&kvs.player), kvs.clock.now());
        let window = kvs.look(move || listing::window(player.index.timeline(), &session, now)).await?;
        if window.shown.is_empty() { Err(ServiceError::no_fragments()) } else { Ok(window) }
    }
}

/// The session of a token, if it has not expired, its stream is still there, and its maker may still read it.
fn session(kvs: &Kvs, kind: Kind, text: &str) -> Option<Session> {
    let claimed = token::read(&*kvs.sessions, kind, text)?;
    let maker = &claimed.session.maker;
    let (principal, secret) = kvs.keys.secret(&maker.access_key_id, maker.session_token.as_deref()).ok()?;
    let session = claimed.of(&secret)?;
    let counts = kvs.clock.now() < session.expires
        && principal.may(Action::Read, Target::Stream(session.name.as_str()))
        && kvs.registry.get(&session.name).is_some_and(|record| record.stream == session.stream);
    counts.then_some(session)
}
