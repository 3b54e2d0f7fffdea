//! Few decoders at a time, each with a time limit.

use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ImageError, Job};

/// The decoders.
#[derive(Debug)]
pub struct ImagePool {
    permits: std::sync::Arc<Semaphore>,
    timeout: Duration,
}

impl ImagePool {
    /// So many of them, each of which is given up after a time.
    #[must_use]
    pub fn new(workers: usize, timeout_ms: u64) -> Self {
        Self {
            permits: std::sync::Arc::new(Semaphore::new(workers.max(1))),
            timeout: Duration::from_millis(timeout_ms.max(1)),
        }
    }

    /// A place among the decoders. Taken before anything is read for it: what waits holds no pictures.
    pub(super) async fn place(&self) -> Result<OwnedSemaphorePermit, ImageError> {
        let late = ImageError::Timeout(u64::try_from(self.timeout.as_millis()).unwrap_or(u64::MAX));
        let permit = tokio::time::timeout(self.timeout, self.permits.clone().acquire_owned()).await;
        permit.ok().and_then(Result::ok).ok_or(late)
    }

    /// Decodes the wanted picture and codes it anew.
    pub(super) async fn decode(&self, job: Job, permit: OwnedSemaphorePermit) -> Result<Vec<u8>, ImageError> {
        let timeout = self.timeout;
        let work = tokio::task::spawn_blocking(move || {
            // Held until the decoder is done, whether or not anybody still waits for it.
            let _permit = permit;
            run(&job, timeout)
        });
        work.await.unwrap_or_else(|error| Err(ImageError::Undecodable(format!("the decoder stopped: {error}"))))
    }
}

#[cfg(feature = "gst")]
fn run(job: &Job, timeout: Duration) -> Result<Vec<u8>, ImageError> {
    super::decode::decode(job, timeout)
}

#[cfg(not(feature = "gst"))]
fn run(job: &Job, _timeout: Duration) -> Result<Vec<u8>, ImageError> {
    Err(ImageError::NoDecoder(format!("{} (built without GStreamer)", job.track.codec.name())))
}
