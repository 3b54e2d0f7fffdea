//! The routes below `/v1`, a file for each noun.

mod clip;
mod fragments;
mod hls;
mod image;
mod manifest;
mod search;
mod sign;
mod streams;
mod timeline;

use std::sync::Arc;

use axum::routing::{get, post};
use axum::{Extension, Router};
use serde_json::{Value, json};
use tokio::sync::Semaphore;
use vidar_core::ids::StreamId;
use vidar_indexer::{Cursor, TimeAxis};

use crate::body::read_json_bodies;
use crate::error;
use crate::image::ImagePool;
use crate::params::{self, Params};
use crate::turn::in_turn;
use crate::{Api, ApiResult};

/// Listings that are made at the same time: one may open every block of a stream, or look at all of its runs.
static LISTINGS: Semaphore = Semaphore::const_new(4);

/// All routes, open to everybody.
pub(crate) fn routes(api: Arc<Api>) -> Router {
    let images = ImagePool::new(api.options.image_workers, api.options.image_timeout_ms);
    let pictures = Router::new()
        .route("/v1/streams/{stream}/image.jpg", get(image::jpeg))
        .route("/v1/streams/{stream}/image.png", get(image::png))
        .layer(Extension(Arc::new(images)));
    let body_timeout = api.options.body_timeout;
    let routes = Router::new()
        .route("/v1/streams", get(streams::list).post(streams::create))
        .route("/v1/streams/{stream}", get(streams::get).patch(streams::change).delete(streams::delete))
        .route("/v1/streams/{stream}/fragments", get(fragments::list))
        .route("/v1/streams/{stream}/clip.mp4", get(clip::mp4))
        .route("/v1/streams/{stream}/clip.mkv", get(clip::mkv))
        .route("/v1/streams/{stream}/manifest", get(manifest::list))
        .route("/v1/streams/{stream}/timeline", get(timeline::show))
        .route("/v1/streams/{stream}/hls/{file}", get(hls::multivariant))
        .route("/v1/streams/{stream}/hls/{rendition}/{file}", get(hls::rendition))
        .route("/v1/search", get(search::search))
        .route("/v1/search/aggregate", get(search::aggregate))
        .route("/v1/sign", post(sign::sign))
        .merge(pictures)
        .method_not_allowed_fallback(error::method_not_allowed)
        .with_state(api);
    read_json_bodies(routes, body_timeout)
}

/// Makes a listing beside the threads that serve.
pub(crate) async fn listing<T: Send + 'static>(make: impl FnOnce() -> T + Send + 'static) -> ApiResult<T> {
    in_turn(&LISTINGS, make).await
}

/// `time`: whose clock `start`, `end` and the order are by.
fn time_axis(params: &Params) -> ApiResult<TimeAxis> {
    params.choice("time", &[("producer", TimeAxis::Producer), ("server", TimeAxis::Server)])
}

/// `next_token` of fragments by this clock, in this order.
fn cursor(params: &Params, axis: TimeAxis, descending: bool) -> ApiResult<Option<Cursor>> {
    let Some(text) = params.text("next_token") else { return Ok(None) };
    let cursor: Cursor = text.parse().map_err(|_| params::bad_token())?;
    if cursor.axis() != axis {
        return Err(params::token_of_other_clock());
    }
    if cursor.is_descending() == descending { Ok(Some(cursor)) } else { Err(params::token_of_other_order()) }
}

/// Counts and bounds of a stream.
fn totals(api: &Api, stream: StreamId) -> Value {
    let totals = api.index.timeline().totals(stream);
    json!({
        "fragments": totals.fragment_count,
        "size_bytes": totals.size_bytes,
        "stored_bytes": totals.stored_bytes,
        "start": totals.producer.map(|(start, _)| start),
        "end": totals.producer.map(|(_, end)| end),
    })
}

/// A prefix that is signed names a stream, and is not read in two ways. For fuzzing.
///
/// # Panics
/// If it is not so.
pub(crate) fn check_prefix_is_below_a_stream(prefix: &str) {
    if let Ok(prefix) = sign::check_prefix(prefix) {
        let rest = prefix.strip_prefix("/v1/streams/").expect("a stream");
        assert!(!rest.is_empty() && rest.split('/').all(|part| !matches!(part, "" | "." | "..")), "{prefix:?}");
    }
}

/// A page token of the timeline that is read is written the same. For fuzzing.
///
/// # Panics
/// If it is not so.
pub(crate) fn check_page_token(bytes: &[u8]) {
    if let Ok(place) = timeline::Place::decode(bytes) {
        assert_eq!(place.encode(), bytes);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::thread;

    use super::*;

    #[tokio::test]
    async fn listings_leave_the_threads_that_serve_alone_and_few_are_made_at_once() {
        let serving = thread::current().id();
        assert_ne!(listing(|| thread::current().id()).await.unwrap(), serving);
        let (began, begun) = mpsc::channel();
        let (ends, end) = std::iter::repeat_with(mpsc::channel::<()>).take(6).unzip::<_, _, Vec<_>, Vec<_>>();
        let waiting: Vec<_> = end
            .into_iter()
            .map(|end| {
                let began = began.clone();
                tokio::spawn(listing(move || {
                    began.send(()).unwrap();
                    end.recv().unwrap_err();
                }))
            })
            .collect();
        while LISTINGS.available_permits() > 0 {
            tokio::task::yield_now().await;
        }
        assert_eq!(begun.iter().take(4).count(), 4);
        assert!(begun.try_recv().is_err(), "no more than that");
        // One that nobody waits for any more is still being made.
        waiting[0].abort();
        tokio::task::yield_now().await;
        assert_eq!((LISTINGS.available_permits(), begun.try_recv().is_err()), (0, true));
        drop(ends);
        for (index, listing) in waiting.into_iter().enumerate() {
            assert_eq!(listing.await.is_err(), index == 0);
        }
    }
}
