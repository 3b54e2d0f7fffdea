//! Pictures and notifications of the service's own accord: what a stream is configured for, and what is done about it.

mod config;
mod feed;
mod marks;
mod picture;
mod worker;

use std::sync::Arc;

use axum::Router;
use axum::routing::post;

use crate::Kvs;
pub use feed::{Feed, Kept};
pub use worker::{Counts, Deliveries, DeliveryOptions, Outlet, OutletError, PictureFile, image_feed};

/// The operations that configure them.
pub(crate) fn routes() -> Router<Arc<Kvs>> {
    Router::new()
        .route("/describeImageGenerationConfiguration", post(config::describe_images))
        .route("/updateImageGenerationConfiguration", post(config::update_images))
        .route("/describeNotificationConfiguration", post(config::describe_notifications))
        .route("/updateNotificationConfiguration", post(config::update_notifications))
}
