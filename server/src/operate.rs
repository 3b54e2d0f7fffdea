//! Routes for operating: `/healthz`, `/readyz`, `/metrics`, and those of verification and retention.

use std::fmt::Write;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use axum::{Json, Router};
use vidar_core::auth::Authenticator;
use vidar_core::clock::SharedClock;
use vidar_core::registry::StreamRegistry;
use vidar_indexer::{CatchUp, Index};
use vidar_ingest::Ingest;
use vidar_kvs_api::delivery::{Counts, Deliveries};
use vidar_player_api::hls::Heads;
use vidar_storage::{Distribution, Space, Store};

use crate::registry::Registry;
use crate::retention::{self, Gone, Reason, Retention};
use crate::verify::{self, Verifier};

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
    /// Viewers of parts.
    pub heads: Heads,
    /// What goes.
    pub retention: Arc<Retention>,
    /// Checks of what is stored.
    pub verifier: Arc<Verifier>,
    /// Pictures and notifications.
    pub deliveries: Arc<Deliveries>,
}

/// The routes: health for anybody, everything else behind credentials.
pub fn router(operating: Arc<Operating>, auth: Arc<dyn Authenticator>, clock: SharedClock) -> Router {
    let guarded = Router::new()
        .route("/metrics", get(metrics))
        .with_state(Arc::clone(&operating))
        .merge(retention::router(Arc::clone(&operating.retention)))
        .merge(verify::router(Arc::clone(&operating.verifier)))
        .method_not_allowed_fallback(vidar_player_api::error::method_not_allowed);
    Router::new()
        .route("/healthz", get(|| async { Json(serde_json::json!({ "status": "ok" })) }))
        .route("/readyz", get(ready).with_state(operating))
        .merge(vidar_player_api::require_auth(guarded, auth, clock))
}

/// Ready to take new media: the log is open, and the disk has room.
async fn ready(State(operating): State<Arc<Operating>>) -> Response {
    let search = operating.index.search().status();
    let (status, text) = match operating.store.space() {
        Space::Ok => (StatusCode::OK, "ok"),
        Space::ApplyPolicy => (StatusCode::OK, "disk low"),
        Space::Refuse => (StatusCode::SERVICE_UNAVAILABLE, "disk full"),
    };
    // Media is taken all the same: what was recorded meanwhile is found once search is there.
    let search = match search.catching_up {
        None => serde_json::json!({ "status": "ok" }),
        Some(CatchUp { fragments, fragments_total }) => {
            let percent = fragments.saturating_mul(100) / fragments_total.max(1);
            serde_json::json!({ "status": "catching up", "percent": percent })
        }
    };
    (status, Json(serde_json::json!({ "status": text, "search": search }))).into_response()
}

/// Prometheus text format 0.0.4.
async fn metrics(State(operating): State<Arc<Operating>>) -> Response {
    let mut text = String::new();
    let mut metric = |name: &str, kind: &str, help: &str, value: u64| {
        let _ = writeln!(text, "# HELP vidar_{name} {help}\n# TYPE vidar_{name} {kind}\nvidar_{name} {value}");
    };
    let store = operating.store.stats();
    metric("records_total", "counter", "Records made durable.", store.records);
    let batches = store.batch_bytes;
    metric("record_bytes_total", "counter", "Bytes of records made durable, with padding.", batches.sum);
    metric("written_bytes_total", "counter", "Bytes written to all files of the log.", store.bytes);
    metric("batches_total", "counter", "Group commits.", batches.count());
    metric("syncs_total", "counter", "Calls of fdatasync.", store.sync_times_us.count());
    metric("store_failures_total", "counter", "Failed writes or syncs.", store.failures);
    let direct = u64::from(store.direct_writes);
    metric("store_direct_writes", "gauge", "1: the log is written past the page cache (O_DIRECT).", direct);
    metric("damaged_records_total", "counter", "Records found damaged.", store.damage);
    let streams = operating.registry.list();
    metric("streams", "gauge", "Streams.", streams.len() as u64);
    let totals = streams.iter().map(|stream| operating.index.timeline().totals(stream.stream));
    let (fragments, bytes) =
        totals.fold((0, 0), |(count, bytes), totals| (count + totals.fragment_count, bytes + totals.stored_bytes));
    metric("fragments", "gauge", "Fragments in the timeline.", fragments);
    metric("stored_bytes", "gauge", "Bytes on disk of all fragments.", bytes);
    let timeline = operating.index.timeline().stats();
    metric(
        "timeline_memory_fragments",
        "gauge",
        "Fragments that the timeline holds in memory.",
        timeline.tail_count as u64,
    );
    metric("timeline_file_bytes", "gauge", "Bytes of the timeline's files.", timeline.file_bytes);
    metric(
        "timeline_unreadable_blocks_total",
        "counter",
        "Times that a block of the timeline did not read.",
        timeline.unreadable_count,
    );
    let search = operating.index.search().status();
    let documents = search.document_count + search.uncommitted_count;
    metric("search_documents", "gauge", "Documents of search, in files and in memory.", documents);
    let behind = u64::from(search.catching_up.is_some());
    metric("search_catching_up", "gauge", "1: search looks at everything, answers may be incomplete.", behind);
    let CatchUp { fragments, fragments_total } = search.catching_up.unwrap_or_default();
    metric("search_catch_up_looked_at", "gauge", "Fragments that it looked at since it began to.", fragments);
    metric("search_catch_up_fragments", "gauge", "Of about so many; 0 when it is done.", fragments_total);
    metric("pushes_open", "gauge", "Pushes that go on.", operating.ingest.open_pushes(None).len() as u64);
    metric(
        "ingest_held_bytes",
        "gauge",
        "Bytes of samples on their way to the disk.",
        operating.ingest.budget().used_bytes(),
    );
    metric("live_held_bytes", "gauge", "Bytes of samples held for viewers.", operating.hub.held_bytes() as u64);
    let of_parts = operating.heads.held_bytes() as u64;
    metric(
        "live_parts_held_bytes",
        "gauge",
        "Of what is held for viewers of parts, most of it with the others.",
        of_parts,
    );
    let checks = operating.verifier.stats();
    let Deliveries { pictures, notices } = &*operating.deliveries;
    let (written, failed) = counted(pictures.counts());
    metric("images_written_total", "counter", "Pictures of the compatible API that were written.", written);
    metric("images_failed_total", "counter", "Pictures that were given up.", failed);
    metric("images_due", "gauge", "Fragments that wait for pictures.", pictures.due_len() as u64);
    let counts = notices.iter().map(|notices| counted(notices.counts()));
    let (sent, failed) = counts.fold((0, 0), |(sent, failed), more| (sent + more.0, failed + more.1));
    metric("notifications_sent_total", "counter", "Notifications that a webhook took.", sent);
    metric("notifications_failed_total", "counter", "Notifications that were given up.", failed);
    let due = notices.iter().map(|notices| notices.due_len() as u64).sum();
    metric("notifications_due", "gauge", "Fragments whose notification waits.", due);
    metric("verify_runs_total", "counter", "Verifications of the running server that ended.", checks.runs);
    metric("verify_bytes_total", "counter", "Bytes that verifications read.", checks.bytes);
    metric("verify_findings_total", "counter", "Damage that verifications found.", checks.findings);
    let gone = operating.retention.gone();
    let mut reason_metric = |name: &str, help: &str, value: fn(&Gone) -> u64| {
        let _ = writeln!(text, "# HELP vidar_{name} {help}\n# TYPE vidar_{name} counter");
        for (reason, gone) in Reason::ALL.iter().zip(&gone) {
            let _ = writeln!(text, "vidar_{name}{{reason=\"{}\"}} {}", reason.name(), value(gone));
        }
    };
    reason_metric("expired_fragments_total", "Fragments that retention let go.", |gone| gone.fragments);
    reason_metric("expired_bytes_total", "Bytes of the records of those fragments.", |gone| gone.bytes);
    reason_metric("expired_files_total", "Segment files removed with them.", |gone| gone.files);
    let help = "From when a group commit took its first record until it answered all.";
    histogram(&mut text, "batch_seconds", help, &store.batch_times_us, 1e-6);
    histogram(&mut text, "batch_bytes", "Bytes of a group commit.", &store.batch_bytes, 1.0);
    histogram(&mut text, "write_seconds", "Writes to segment files.", &store.write_times_us, 1e-6);
    histogram(&mut text, "sync_seconds", "Syncs of segment files.", &store.sync_times_us, 1e-6);
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text).into_response()
}

/// What got out, and what did not.
fn counted(counts: &Counts) -> (u64, u64) {
    (counts.done.load(Ordering::Relaxed), counts.failed.load(Ordering::Relaxed))
}

/// `unit`: of the values, in that of the metric.
fn histogram(text: &mut String, name: &str, help: &str, values: &Distribution, unit: f64) {
    let _ = writeln!(text, "# HELP vidar_{name} {help}\n# TYPE vidar_{name} histogram");
    let mut count = 0;
    for (bound, values) in values.bounds.iter().zip(&values.counts) {
        count += values;
        let _ = writeln!(text, "vidar_{name}_bucket{{le=\"{}\"}} {count}", *bound as f64 * unit);
    }
    let _ = writeln!(text, "vidar_{name}_bucket{{le=\"+Inf\"}} {}", values.count());
    let _ = writeln!(text, "vidar_{name}_sum {}\nvidar_{name}_count {}", values.sum as f64 * unit, values.count());
}
