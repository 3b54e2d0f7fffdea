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
use config::{ImageGeneration, Notification};
pub use feed::{Feed, Kept};
pub use worker::{Counts, Deliveries, DeliveryOptions, Outlet, OutletError, PictureFile, image_feed};

/// The operations that configure them.
pub(crate) fn routes() -> Router<Arc<Kvs>> {
    Router::new()
        .route("/describeImageGenerationConfiguration", post(config::describe::<ImageGeneration>))
        .route("/updateImageGenerationConfiguration", post(config::update::<ImageGeneration>))
        .route("/describeNotificationConfiguration", post(config::describe::<Notification>))
        .route("/updateNotificationConfiguration", post(config::update::<Notification>))
}
