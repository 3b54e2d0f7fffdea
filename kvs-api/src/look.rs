//! Listings: a long one opens many blocks of the index.

use tokio::sync::Semaphore;
use tokio::task::spawn_blocking;

use crate::Kvs;
use crate::error::{ServiceError, ServiceResult};

/// Those that are made at the same time.
static LISTINGS: Semaphore = Semaphore::const_new(4);

impl Kvs {
    /// Looks something up beside the threads that serve.
    pub(crate) async fn look<T: Send + 'static>(&self, look: impl FnOnce() -> T + Send + 'static) -> ServiceResult<T> {
        let turn = LISTINGS.acquire().await.expect("the semaphore is never closed");
        // Whoever does not wait for it any more does not end it: it keeps its turn.
        let found = spawn_blocking(move || (look(), turn)).await;
        found.map(|(found, _)| found).map_err(|_| ServiceError::internal("A listing failed."))
    }
}
