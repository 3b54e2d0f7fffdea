//! The compatible API: what clients of the reference service call, over the same streams as everything else here.
//!
//! [`router`] checks who signed a request, and answers in the words and shapes of the service: `docs/api/kinesis.md` says
//! which operations there are. Every operation is a POST to a path of its own, with JSON in and out.

mod absent;
mod archive;
mod arn;
mod attributes;
mod call;
mod clip;
mod cors;
pub mod delivery;
mod document;
mod endpoint;
mod error;
#[doc(hidden)]
pub mod fuzz;
mod gate;
mod get_media;
mod images;
mod limits;
mod look;
mod media_error;
mod playable;
pub mod put_media;
mod retention;
mod selector;
mod sessions;
mod storage;
mod streams;
#[cfg(test)]
#[path = "../tests/support/mod.rs"]
mod support;
mod tags;
mod time;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::post;
use tokio::sync::Mutex;
use tokio_util::sync::CancellationToken;
use vidar_aws_wire::sigv4::Rules;
use vidar_core::auth::Principal;
use vidar_core::clock::SharedClock;
use vidar_core::policy::{Action, Target};
use vidar_core::registry::StreamRegistry;
use vidar_player_api::Api;
use vidar_player_api::image::ImagePool;
use zeroize::Zeroizing;

pub use error::ServiceError;
pub use limits::CallLimits;
pub use sessions::Seal;

/// Whose access key that is.
pub trait Keys: Send + Sync + 'static {
    /// Who has it, and the secret to check signatures with.
    ///
    /// # Errors
    /// If there is none that counts, or the session token does not go with it.
    fn secret(&self, access_key_id: &str, token: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal>;

    /// Whether somebody who was let in earlier may do that now.
    fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool;

    /// Notes that somebody proved to have it.
    fn note_use(&self, principal: &Principal);
}

/// Why there is no secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refusal {
    /// No such key, or none that counts; or the session token is none of ours.
    Unknown,
    /// Temporary credentials that have ended.
    Expired,
}

/// Everything the operations work with.
pub struct Kvs {
    /// Streams by name.
    pub registry: Arc<dyn StreamRegistry>,
    /// Who may come in.
    pub keys: Arc<dyn Keys>,
    /// For signatures.
    pub clock: SharedClock,
    /// What plays media.
    pub player: Arc<Api>,
    /// Decoders of pictures.
    pub images: ImagePool,
    /// Seals the tokens of streaming sessions.
    pub sessions: Arc<dyn Seal>,
    /// Cancelled when the server goes down: answers that have no end get one.
    pub stop: CancellationToken,
    /// How often, and how much at the same time.
    pub limits: Arc<CallLimits>,
    /// Settings.
    pub options: KvsOptions,
    /// Held over a look at a version and the change that follows.
    pub changes: Mutex<()>,
}

/// Settings of the compatible API.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct KvsOptions {
    /// What is asked of signatures.
    pub rules: Rules,
    /// What GetDataEndpoint answers, without a slash at its end. Never made from `Host`: C clients leave the port out.
    pub public_url: String,
    /// Region in the names of streams.
    pub region: String,
    /// Account in the names of streams: 12 digits.
    pub account: String,
    /// Within which a body of JSON has to arrive.
    pub body_timeout: Duration,
    /// Fragments of a clip at most; none: as many as the player's limits allow.
    pub clip_fragments_max: Option<usize>,
    /// Media bytes of a clip at most; none: no limit.
    pub clip_bytes_max: Option<u64>,
    /// Where pictures may be written to: `s3://bucket` or `s3://bucket/prefix`, without a slash at its end.
    pub image_targets: Vec<String>,
    /// ARNs of the topics that notifications may go to.
    pub topics: Vec<String>,
}

/// What answers as the service does where there is nothing of the kind.
fn absent_routes() -> Router<Arc<Kvs>> {
    Router::new()
        .route("/startEdgeConfigurationUpdate", post(absent::start_edge))
        .route("/describeEdgeConfiguration", post(absent::edge))
        .route("/deleteEdgeConfiguration", post(absent::edge))
        .route("/listEdgeAgentConfigurations", post(absent::list_edges))
        .route("/describeMappedResourceConfiguration", post(absent::mapped_resources))
        .route("/listSignalingChannels", post(absent::list_channels))
        .route("/createSignalingChannel", post(absent::create_channel))
        .route("/describeSignalingChannel", post(absent::no_channel))
        .route("/updateSignalingChannel", post(absent::no_channel))
        .route("/deleteSignalingChannel", post(absent::no_channel))
        .route("/getSignalingChannelEndpoint", post(absent::no_channel))
        .route("/describeMediaStorageConfiguration", post(absent::no_channel))
        .route("/updateMediaStorageConfiguration", post(absent::no_channel))
}

/// What gives out media.
fn media_routes() -> Router<Arc<Kvs>> {
    Router::new()
        .route("/getMedia", post(get_media::get))
        .route("/listFragments", post(archive::list_fragments::list))
        .route("/getMediaForFragmentList", post(archive::fragment_list::get))
        .route("/getClip", post(clip::get))
        .route("/getImages", post(images::get))
        .route("/getHLSStreamingSessionURL", post(sessions::open_hls))
        .route("/getDASHStreamingSessionURL", post(sessions::open_dash))
}

/// The operations, for those who signed, and what stands below session URLs.
pub fn router(kvs: Arc<Kvs>) -> Router {
    let routes = Router::new()
        .route("/createStream", post(streams::create))
        .route("/describeStream", post(streams::describe))
        .route("/listStreams", post(streams::list))
        .route("/updateStream", post(streams::update))
        .route("/deleteStream", post(streams::delete))
        .route("/updateDataRetention", post(retention::update))
        .route("/tagStream", post(tags::tag_stream))
        .route("/untagStream", post(tags::untag_stream))
        .route("/listTagsForStream", post(tags::list_for_stream))
        .route("/TagResource", post(tags::tag_resource))
        .route("/UntagResource", post(tags::untag_resource))
        .route("/ListTagsForResource", post(tags::list_for_resource))
        .route("/getDataEndpoint", post(endpoint::get))
        .route("/describeStreamStorageConfiguration", post(storage::describe))
        .route("/updateStreamStorageConfiguration", post(storage::update))
        .merge(delivery::routes())
        .merge(media_routes())
        .merge(absent_routes())
        .fallback(error::unknown_operation)
        .method_not_allowed_fallback(error::unknown_operation)
        .with_state(Arc::clone(&kvs));
    let signed = cors::allow(gate::guard(routes, Arc::clone(&kvs)));
    gate::number(signed.merge(sessions::router(kvs)))
}
