//! Asking a key provider: no call is waited for longer than a deadline, and at start a silent one is asked again.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use crate::crypto::kek::{KekError, KekProvider};

/// Calls that may hang at the same time.
const CALL_COUNT_MAX: usize = 4;
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// A provider that is not waited for longer than a deadline.
#[derive(Debug, Clone)]
pub(crate) struct Asker {
    provider: Arc<dyn KekProvider>,
    timeout: Duration,
    calls: Arc<AtomicUsize>,
}

impl Asker {
    pub(crate) fn new(provider: Arc<dyn KekProvider>, timeout: Duration) -> Self {
        Self { provider, timeout, calls: Arc::default() }
    }

    /// As this one, but another provider.
    pub(crate) fn to(&self, provider: Arc<dyn KekProvider>) -> Self {
        Self::new(provider, self.timeout)
    }

    pub(crate) fn place(&self) -> String {
        self.provider.place()
    }

    /// What `call` answers. On a thread of its own: one that hangs is left behind.
    pub(crate) fn ask<T: Send + 'static>(
        &self,
        call: impl FnOnce(&dyn KekProvider) -> Result<T, KekError> + Send + 'static,
    ) -> Result<T, KekError> {
        let silent = |detail: &str| KekError::Unavailable { place: self.place(), detail: detail.to_owned() };
        if self.calls.fetch_add(1, Ordering::Relaxed) >= CALL_COUNT_MAX {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(silent("earlier questions are still open"));
        }
        let (sender, answer) = mpsc::channel();
        let (provider, calls) = (Arc::clone(&self.provider), Arc::clone(&self.calls));
        let thread = std::thread::Builder::new().name("vidar-kek".into()).spawn(move || {
            let result = call(&*provider);
            calls.fetch_sub(1, Ordering::Relaxed);
            // Nobody may wait any more.
            let _ = sender.send(result);
        });
        if let Err(error) = thread {
            self.calls.fetch_sub(1, Ordering::Relaxed);
            return Err(silent(&error.to_string()));
        }
        match answer.recv_timeout(self.timeout) {
            Ok(result) => result,
            Err(mpsc::RecvTimeoutError::Timeout) => Err(silent("no answer in time")),
            Err(mpsc::RecvTimeoutError::Disconnected) => Err(silent("it panicked")),
        }
    }
}

/// Asks until there is an answer, at growing intervals, for as long as `patience`.
pub(crate) fn patiently<T>(patience: Duration, mut ask: impl FnMut() -> Result<T, KekError>) -> Result<T, KekError> {
    let (begun, mut wait) = (Instant::now(), BACKOFF_MIN);
    loop {
        match ask() {
            Err(error @ KekError::Unavailable { .. }) if begun.elapsed() + wait <= patience => {
                tracing::warn!(%error, again_in = ?wait, give_up_in = ?patience.saturating_sub(begun.elapsed()), "waiting for the key provider");
                std::thread::sleep(wait);
                wait = (wait * 2).min(BACKOFF_MAX);
            }
            other => return other,
        }
    }
}
