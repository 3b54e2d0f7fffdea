//! Reading at the head.

use std::sync::Arc;

use tokio::sync::watch;
use vidar_core::hub::LiveEvent;
use vidar_core::ids::StreamId;
use vidar_core::sink::Durable;

use crate::hub::{Head, Hub};
use crate::window::Step;

/// Why there is no event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RecvError {
    /// The viewer was too slow and events are gone. The next one is an `Opened`, or of no fragment.
    Lagged,
}

/// Reads the events of one stream.
#[derive(Debug)]
pub struct Subscriber {
    hub: Arc<Hub>,
    stream: StreamId,
    /// Taken on drop.
    head: Option<Arc<Head>>,
    viewer: u64,
}

impl Subscriber {
    pub(crate) fn new(hub: Arc<Hub>, stream: StreamId, head: Arc<Head>, viewer: u64) -> Self {
        Self { hub, stream, head: Some(head), viewer }
    }

    /// The next event; waits for it.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    ///
    /// # Errors
    /// `Lagged`, once for each time it happened.
    pub async fn next(&mut self) -> Result<LiveEvent, RecvError> {
        let head = self.head.as_ref().expect("taken on drop only");
        loop {
            let mut published = std::pin::pin!(head.published.notified());
            published.as_mut().enable();
            match head.with(|window| window.read(self.viewer)) {
                Step::Event(event) => return Ok(event),
                Step::Lagged => return Err(RecvError::Lagged),
                Step::Wait => published.await,
            }
        }
    }
}

impl Drop for Subscriber {
    fn drop(&mut self) {
        if let Some(head) = self.head.take() {
            head.with(|window| window.unsubscribe(self.viewer));
        }
        self.hub.forget_idle(self.stream);
    }
}

/// Tells when fragments of one stream become durable.
#[derive(Debug)]
pub struct DurableFollower {
    hub: Arc<Hub>,
    stream: StreamId,
    /// Keeps the sender: a stream without a publisher stays known while somebody follows it. Taken on drop.
    head: Option<Arc<Head>>,
    changes: watch::Receiver<Option<Durable>>,
}

impl DurableFollower {
    pub(crate) fn new(hub: Arc<Hub>, stream: StreamId, head: Arc<Head>) -> Self {
        let changes = head.durable.subscribe();
        Self { hub, stream, head: Some(head), changes }
    }

    /// Waits until a fragment became durable since the last call (or since this was made), and returns the latest.
    ///
    /// # Cancel safety
    /// Dropping the future loses nothing.
    pub async fn next(&mut self) -> Durable {
        loop {
            if self.changes.changed().await.is_err() {
                // Its sender lives in `head`.
                std::future::pending::<()>().await;
            }
            if let Some(durable) = *self.changes.borrow_and_update() {
                return durable;
            }
        }
    }
}

impl Drop for DurableFollower {
    fn drop(&mut self) {
        self.head = None;
        self.hub.forget_idle(self.stream);
    }
}
