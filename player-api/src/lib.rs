//! HTTP out: clips, HLS, pictures, listings and search.
//!
//! [`router`] has the routes below `/v1` (described in `docs/api`), behind [`require_auth`]. Nothing here knows how
//! fragments are stored or indexed: media comes through [`FragmentSource`], times through the [index](vidar_indexer::Index).

pub mod auth;
mod body;
mod bound;
mod cache;
pub mod clip;
pub mod cors;
pub mod error;
pub mod fragment;
#[doc(hidden)]
pub mod fuzz;
pub mod hls;
pub mod image;
pub mod lease;
pub mod params;
mod rights;
mod routes;
pub mod scatter;
mod shift;
mod turn;
mod virtual_file;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use vidar_core::auth::Authenticator;
use vidar_core::clock::SharedClock;
use vidar_core::registry::StreamRegistry;
use vidar_core::source::FragmentSource;

pub use crate::auth::{Access, require_auth};
pub use crate::body::read_json_bodies;
pub use crate::error::{ApiError, ApiResult};
pub use crate::turn::in_turn;

/// Everything the routes work with.
pub struct Api {
    /// Streams, runs, fragments and gaps by time and by content.
    pub index: Arc<vidar_indexer::Index>,
    /// Tables and media of durable fragments.
    pub source: Arc<dyn FragmentSource>,
    /// Streams by name.
    pub registry: Arc<dyn StreamRegistry>,
    /// Who may come in.
    pub auth: Arc<dyn Authenticator>,
    /// The head of every stream.
    pub hub: Arc<vidar_live::Hub>,
    /// What is followed at it for viewers of parts.
    pub heads: hls::Heads,
    /// Expiry of signed URLs.
    pub clock: SharedClock,
    /// Settings.
    pub options: ApiOptions,
}

/// Settings of the API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApiOptions {
    /// Base of the URLs that answers hand out, without a slash at its end; none: the `Host` of the request.
    pub public_url: Option<String>,
    /// Fragments of a clip at most. A plan holds about 400 bytes for each.
    pub clip_fragments_max: usize,
    /// Pictures that are decoded at the same time.
    pub image_workers: usize,
    /// A picture that takes longer, in milliseconds, is given up.
    pub image_timeout_ms: u64,
    /// Within which a JSON body has to arrive.
    pub body_timeout: Duration,
}

impl Default for ApiOptions {
    fn default() -> Self {
        Self {
            public_url: None,
            clip_fragments_max: 100_000,
            image_workers: 2,
            image_timeout_ms: 10_000,
            body_timeout: Duration::from_secs(10),
        }
    }
}

/// The routes below `/v1`, behind [`require_auth`]. Sets no fallback, so that it can be merged with other routers.
pub fn router(api: Arc<Api>) -> Router {
    let (auth, clock) = (api.auth.clone(), api.clock.clone());
    cors::allow(require_auth(routes::routes(api), auth, clock))
}
