//! Routes for operating: `/healthz`, `/readyz`, `/metrics`.

use std::fmt::Write;
use std::sync::Arc;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use vidar_core::auth::Authenticator;
use vidar_core::clock::SharedClock;
use vidar_core::registry::StreamRegistry;
use vidar_indexer::Index;
use vidar_ingest::Ingest;
use vidar_storage::{Space, Store};

use crate::registry::Registry;

/// What is looked at.
pub struct Operating {
    /// The log.
    pub store: Store,
    /// What is in it.
    pub index: Arc<Index>,
    /// Streams.
    pub registry: Arc<Registry>,
    /// Pushes.
    pub ingest: Arc<Ingest>,
    /// Viewers.
    pub hub: Arc<vidar_live::Hub>,
}

/// The routes: health for anybody, metrics behind credentials.
pub fn router(operating: Arc<Operating>, auth: Arc<dyn Authenticator>, clock: SharedClock) -> Router {
    let metrics = Router::new().route("/metrics", get(metrics)).with_state(Arc::clone(&operating));
    Router::new()
        .route("/healthz", get(|| async { Json(serde_json::json!({ "status": "ok" })) }))
        .route("/readyz", get(ready).with_state(operating))
        .merge(vidar_player_api::require_auth(metrics, auth, clock))
}

/// Ready to take new media: the log is open, and the disk has room.
async fn ready(State(operating): State<Arc<Operating>>) -> Response {
    let (status, text) = match operating.store.space() {
        Space::Ok => (StatusCode::OK, "ok"),
        Space::ApplyPolicy => (StatusCode::OK, "disk low"),
        Space::Refuse => (StatusCode::SERVICE_UNAVAILABLE, "disk full"),
    };
    (status, Json(serde_json::json!({ "status": text }))).into_response()
}

/// Prometheus text format 0.0.4.
async fn metrics(State(operating): State<Arc<Operating>>) -> Response {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(text, "# HELP vidar_{name} {help}\n# TYPE vidar_{name} {kind}\nvidar_{name} {value}");
    };
    let store = operating.store.stats();
    metric("records_total", "counter", "Records made durable.", store.records);
    metric("record_bytes_total", "counter", "Bytes of records made durable.", store.bytes);
    metric("batches_total", "counter", "Group commits.", store.batches);
    metric("syncs_total", "counter", "Calls of fdatasync.", store.syncs);
    metric("store_failures_total", "counter", "Failed writes or syncs.", store.failures);
    metric("damaged_records_total", "counter", "Records found damaged.", store.damage);
    let streams = operating.registry.list();
    metric("streams", "gauge", "Streams.", streams.len() as u64);
    let totals = streams.iter().map(|stream| operating.index.timeline().totals(stream.stream));
    let (fragments, bytes) =
        totals.fold((0, 0), |(count, bytes), totals| (count + totals.fragment_count, bytes + totals.stored_bytes));
    metric("fragments", "gauge", "Fragments in the timeline.", fragments);
    metric("stored_bytes", "gauge", "Bytes on disk of all fragments.", bytes);
    metric("pushes_open", "gauge", "Pushes that go on.", operating.ingest.open_pushes(None).len() as u64);
    metric(
        "ingest_held_bytes",
        "gauge",
        "Bytes of samples on their way to the disk.",
        operating.ingest.budget().used_bytes(),
    );
    metric("live_held_bytes", "gauge", "Bytes of samples held for viewers.", operating.hub.held_bytes() as u64);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}
