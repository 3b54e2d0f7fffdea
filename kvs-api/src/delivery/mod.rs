//! Pictures and notifications of the service's own accord: what a stream is configured for, and what is done about it.

mod config;
mod feed;
mod marks;
mod notice;
mod notices;
mod outlet;
mod picture;
mod pictures;
mod worker;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;
use ring::digest::{Context, SHA256};
use uuid::{Builder, Uuid};
use vidar_core::log::LogObserver;
use vidar_player_api::Api;

use crate::Kvs;
use config::{ImageGeneration, Notification};
use feed::Feed;
pub use feed::Kept;
pub use notices::Notices;
pub use outlet::{Notice, Outlet, OutletError, PictureFile};
pub use pictures::Pictures;
pub use worker::Counts;

/// The operations that configure them.
pub(crate) fn routes() -> Router<Arc<Kvs>> {
    Router::new()
        .route("/describeImageGenerationConfiguration", post(config::describe::<ImageGeneration>))
        .route("/updateImageGenerationConfiguration", post(config::update::<ImageGeneration>))
        .route("/describeNotificationConfiguration", post(config::describe::<Notification>))
        .route("/updateNotificationConfiguration", post(config::update::<Notification>))
}

/// Settings of what is delivered.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeliveryOptions {
    /// Region in the names of streams.
    pub region: String,
    /// Account in the names of streams and pictures.
    pub account: String,
    /// Only fragments that ask for pictures have them.
    pub tagged_images_only: bool,
    /// Targets of pictures, as `KvsOptions` has them.
    pub image_targets: Vec<String>,
    /// Topics of notifications, as `KvsOptions` has them.
    pub topics: Vec<String>,
}

/// Which fragments are due; it follows the log.
pub struct Feeds {
    options: DeliveryOptions,
    images: Arc<Feed>,
    /// As `options.topics`.
    topics: Vec<Arc<Feed>>,
}

impl Feeds {
    /// For a log that is still to be opened.
    #[must_use]
    pub fn new(options: DeliveryOptions) -> Self {
        let topics = options.topics.iter().map(|topic| notices::feed(topic.clone())).collect();
        Self { images: pictures::feed(options.tagged_images_only), topics, options }
    }

    /// What has to be told of the log.
    #[must_use]
    pub fn observers(&self) -> Vec<Arc<dyn LogObserver>> {
        let all = self.topics.iter().chain([&self.images]);
        all.map(|feed| Arc::clone(feed) as Arc<dyn LogObserver>).collect()
    }

    /// What works them off.
    #[must_use]
    pub fn deliveries(&self, player: &Arc<Api>, outlet: &Arc<dyn Outlet>) -> Deliveries {
        let (player, outlet) = (|| Arc::clone(player), || Arc::clone(outlet));
        let notices = self.options.topics.iter().zip(&self.topics);
        let notices = notices.map(|(topic, feed)| {
            Arc::new(Notices::new(player(), outlet(), Arc::clone(feed), topic.clone(), &self.options))
        });
        let pictures = Pictures::new(player(), outlet(), Arc::clone(&self.images), &self.options);
        Deliveries { notices: notices.collect(), pictures: Arc::new(pictures) }
    }
}

/// The same for the same: what is done again is known by it.
fn id_of(parts: &[&[u8]]) -> Uuid {
    let mut hash = Context::new(&SHA256);
    parts.iter().for_each(|part| hash.update(part));
    let hash = hash.finish();
    let bytes = hash.as_ref().first_chunk().expect("32 bytes");
    Builder::from_custom_bytes(*bytes).into_uuid()
}

/// All that is delivered. Each runs by itself: one whose target is away holds no other up.
pub struct Deliveries {
    /// Of all streams.
    pub pictures: Arc<Pictures>,
    /// Of each topic.
    pub notices: Vec<Arc<Notices>>,
}
