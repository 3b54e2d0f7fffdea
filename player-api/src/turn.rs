//! Long work, beside the threads that serve.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;
use vidar_core::error::ErrorKind;

use crate::error::{ApiError, ApiResult};

/// Does `work` on a thread of its own, once it gets one of `turns`.
///
/// # Errors
/// 500 if it panics.
///
/// # Panics
/// If `turns` was closed.
///
/// # Cancel safety
/// Whoever does not wait for it any more does not end it: it keeps its turn.
pub async fn in_turn<T: Send + 'static>(
    turns: &'static Semaphore,
    work: impl FnOnce() -> T + Send + 'static,
) -> ApiResult<T> {
    let turn = turns.acquire().await.expect("open turns");
    let done = spawn_blocking(move || (work(), turn)).await;
    done.map(|(done, _)| done).map_err(|_| ApiError::of(ErrorKind::Internal, "internal error"))
}
