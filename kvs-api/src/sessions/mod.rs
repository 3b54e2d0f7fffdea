//! Streaming sessions: a URL for a player, over the segments that every playlist here is made of.
//!
//! Nothing is kept of a session: its token is all there is to know ([`session`], [`token`]). Which fragments it shows
//! ([`listing`]) follows from that, the timeline, and the time.

mod dash;
mod hls;
mod listing;
mod media;
mod mpd;
mod names;
mod open;
mod opened;
#[cfg(test)]
mod request_tests;
mod session;
#[cfg(test)]
mod tests;
mod token;

use std::sync::Arc;

use axum::routing::get;
use axum::{Extension, Router};

use crate::Kvs;
pub(crate) use open::{dash as open_dash, hls as open_hls};

/// Seals the tokens of sessions.
pub trait Seal: Send + Sync + 'static {
    /// So that only this server reads it, and only as `context`. None: it cannot be done now.
    fn seal(&self, context: &[u8], plain: &[u8]) -> Option<Vec<u8>>;

    /// What was sealed here, for this context.
    fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>>;
}

/// Which API a token is good for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Hls,
    Dash,
}

/// What stands below session URLs. Unsigned: the token is the right.
pub(crate) fn router(kvs: Arc<Kvs>) -> Router {
    let media = |kind: Kind, base: &str| {
        let routes = Router::new()
            .route(&format!("{base}/getMP4InitFragment.mp4"), get(media::init))
            .route(&format!("{base}/getMP4MediaFragment.mp4"), get(media::segment));
        routes.layer(Extension(kind))
    };
    let hls = Router::new()
        .route("/getHLSMasterPlaylist.m3u8", get(hls::master))
        .route("/getHLSMediaPlaylist.m3u8", get(hls::media))
        .route("/getTSFragment.ts", get(media::ts_segment))
        .merge(media(Kind::Hls, ""));
    let dash = Router::new().route("/getDASHManifest.mpd", get(dash::manifest)).merge(media(Kind::Dash, "/{token}"));
    let routes = Router::new().nest("/hls/v1", hls).nest("/dash/v1", dash).with_state(kvs);
    vidar_player_api::cors::allow(routes)
}
