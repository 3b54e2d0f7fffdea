//! `/v1/verify`: a check of what is stored, in the background of a running server. One at a time, at a bounded rate.

use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use axum::extract::{RawQuery, State};
use axum::http::StatusCode;
use axum::routing::get;
use axum::{Json, Router};
use serde_json::{Value, json};
use vidar_core::clock::SharedClock;
use vidar_core::ids::StreamId;
use vidar_core::time::UnixMs;
use vidar_indexer::Index;
use vidar_player_api::params::Params;
use vidar_player_api::{ApiError, ApiResult};
use vidar_storage::{Damage, Depth, Progress, Store};

/// Findings that are kept; all are counted and logged.
const FINDINGS_MAX: usize = 1000;

/// The depths, as flags and parameters name them.
pub const DEPTHS: [(&str, Depth); 3] =
    [("checksum", Depth::Checksum), ("presence", Depth::Presence), ("decrypt", Depth::Decrypt)];

/// Where a check is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    Idle,
    Running,
    Done,
    Stopped,
}

impl Phase {
    fn name(self) -> &'static str {
        match self {
            Self::Idle => "idle",
            Self::Running => "running",
            Self::Done => "done",
            Self::Stopped => "stopped",
        }
    }
}

/// The check that runs, or ran last.
#[derive(Debug)]
struct Run {
    phase: Phase,
    /// It is to end early.
    stopping: bool,
    depth: Depth,
    started: Option<UnixMs>,
    ended: Option<UnixMs>,
    progress: Progress,
    findings: Vec<Value>,
    findings_total: u64,
}

/// Counters since the start, for `/metrics`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct VerifyStats {
    /// Checks that were ended.
    pub runs: u64,
    /// Bytes that were read.
    pub bytes: u64,
    /// Damage that was found.
    pub findings: u64,
}

/// Checks what is stored, when asked to.
pub struct Verifier {
    store: Store,
    index: Arc<Index>,
    clock: SharedClock,
    bytes_per_s: u64,
    run: Mutex<Run>,
    stats: Mutex<VerifyStats>,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Verifier {
    /// Reads `bytes_per_s` at most.
    #[must_use]
    pub fn new(store: Store, index: Arc<Index>, clock: SharedClock, bytes_per_s: u64) -> Arc<Self> {
        let run = Run {
            phase: Phase::Idle,
            stopping: false,
            depth: Depth::Checksum,
            started: None,
            ended: None,
            progress: Progress::default(),
            findings: Vec::new(),
            findings_total: 0,
        };
        let (run, stats) = (Mutex::new(run), Mutex::default());
        Arc::new(Self { store, index, clock, bytes_per_s: bytes_per_s.max(1), run, stats })
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> VerifyStats {
        *lock(&self.stats)
    }

    /// Begins a check. False if one runs.
    fn begin(self: &Arc<Self>, depth: Depth) -> io::Result<bool> {
        let mut run = lock(&self.run);
        if run.phase == Phase::Running {
            return Ok(false);
        }
        let started = Some(self.clock.now());
        let (progress, findings) = (Progress::default(), Vec::new());
        let this = Arc::clone(self);
        // A thread of its own, not one of the pool that reads for players.
        std::thread::Builder::new().name("vidar-verify".into()).spawn(move || this.work(depth))?;
        *run = Run {
            phase: Phase::Running,
            stopping: false,
            depth,
            started,
            ended: None,
            progress,
            findings,
            findings_total: 0,
        };
        Ok(true)
    }

    /// Ends a check that runs, as soon as it has read what it reads.
    pub fn stop(&self) {
        lock(&self.run).stopping = true;
    }

    fn work(&self, depth: Depth) {
        tracing::info!(?depth, "verification begins");
        let began = Instant::now();
        let mut counted = 0;
        let result = self.store.verify(
            depth,
            &mut |progress| {
                lock(&self.stats).bytes += progress.bytes.saturating_sub(counted);
                counted = progress.bytes;
                self.pace(progress, began)
            },
            &mut |damage| self.found(&damage),
        );
        let mut run = lock(&self.run);
        run.ended = Some(self.clock.now());
        run.phase = if result.is_ok() { Phase::Done } else { Phase::Stopped };
        if let Ok(progress) = result {
            run.progress = progress;
        }
        lock(&self.stats).runs += 1;
        tracing::info!(state = run.phase.name(), findings = run.findings_total, "verification ended");
    }

    /// Waits until no more was read than may be; an error once it is to stop.
    fn pace(&self, progress: Progress, began: Instant) -> io::Result<()> {
        let due = Duration::from_secs_f64(progress.bytes as f64 / self.bytes_per_s as f64);
        loop {
            {
                let mut run = lock(&self.run);
                run.progress = progress;
                if run.stopping {
                    return Err(io::ErrorKind::Interrupted.into());
                }
            }
            let left = due.saturating_sub(began.elapsed());
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(Duration::from_millis(100)));
        }
    }

    fn found(&self, damage: &Damage) {
        tracing::error!(%damage, "verification found damage");
        lock(&self.stats).findings += 1;
        let finding = finding(damage, |stream| Some(self.index.catalog().stream(stream)?.name.to_string()));
        let mut run = lock(&self.run);
        run.findings_total += 1;
        if run.findings.len() < FINDINGS_MAX {
            run.findings.push(finding);
        }
    }

    fn show(&self) -> Value {
        let run = lock(&self.run);
        let depth = DEPTHS.iter().find(|(_, depth)| *depth == run.depth).map(|(name, _)| *name);
        let Progress { files, files_total, records, bytes, done_bytes, total_bytes } = run.progress;
        json!({
            "state": run.phase.name(), "depth": depth, "started": run.started, "ended": run.ended,
            "files": files, "files_total": files_total, "records": records, "bytes": bytes,
            "done_bytes": done_bytes, "total_bytes": total_bytes,
            "findings_total": run.findings_total, "findings": run.findings,
        })
    }
}

/// Damage as the API and `--json` show it.
#[must_use]
pub fn finding(damage: &Damage, name: impl Fn(StreamId) -> Option<String>) -> Value {
    let stream = damage.record.map(|(stream, _)| stream).filter(|stream| *stream.as_bytes() != [0; 16]);
    json!({
        "file": damage.file, "offset": damage.offset, "len_bytes": damage.len,
        "stream": stream.and_then(name), "stream_id": stream,
        "fragment_number": damage.record.map(|(_, number)| number), "detail": damage.detail,
    })
}

/// The routes. They need credentials; signed URLs do not reach them.
pub fn router(verifier: Arc<Verifier>) -> Router {
    Router::new().route("/v1/verify", get(show).post(begin).delete(stop)).with_state(verifier)
}

async fn show(State(verifier): State<Arc<Verifier>>, RawQuery(query): RawQuery) -> ApiResult<Json<Value>> {
    Params::parse(query.as_deref(), &[])?;
    Ok(Json(verifier.show()))
}

async fn begin(
    State(verifier): State<Arc<Verifier>>,
    RawQuery(query): RawQuery,
) -> ApiResult<(StatusCode, Json<Value>)> {
    let depth = Params::parse(query.as_deref(), &["depth"])?.choice("depth", &DEPTHS)?;
    match verifier.begin(depth) {
        Ok(true) => Ok((StatusCode::ACCEPTED, Json(verifier.show()))),
        Ok(false) => Err(ApiError::new(StatusCode::CONFLICT, "a verification runs already")),
        Err(error) => Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, format!("start a thread: {error}"))),
    }
}

async fn stop(State(verifier): State<Arc<Verifier>>) -> StatusCode {
    verifier.stop();
    StatusCode::NO_CONTENT
}

#[cfg(test)]
#[path = "verify_tests.rs"]
mod tests;
