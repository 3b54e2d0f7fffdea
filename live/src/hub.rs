//! All windows, and the budget they share.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, RwLock};

use tokio::sync::{Notify, watch};
use vidar_core::hub::{LiveEvent, LiveSink};
use vidar_core::ids::StreamId;
use vidar_core::sink::Durable;

use crate::subscriber::{DurableFollower, Subscriber};
use crate::window::Window;

/// Bounds of a hub.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct HubOptions {
    /// Bytes that all windows together may hold.
    pub budget_bytes: usize,
}

impl Default for HubOptions {
    fn default() -> Self {
        Self { budget_bytes: 256 << 20 }
    }
}

/// What is shared about the head of one stream.
#[derive(Debug)]
pub(crate) struct Head {
    /// Guards the window. Nothing is awaited and no other lock is taken under it.
    window: Mutex<Window>,
    pub(crate) published: Notify,
    pub(crate) durable: watch::Sender<Option<Durable>>,
    /// Bytes of all windows of the hub.
    total: Arc<AtomicUsize>,
}

impl Head {
    fn new(total: Arc<AtomicUsize>) -> Self {
        Self { window: Mutex::default(), published: Notify::new(), durable: watch::Sender::new(None), total }
    }

    fn lock(&self) -> MutexGuard<'_, Window> {
        self.window.lock().expect("no panic under this lock")
    }

    /// Works on the window and keeps the sum of all windows right.
    pub(crate) fn with<T>(&self, work: impl FnOnce(&mut Window) -> T) -> T {
        let mut window = self.lock();
        let before = window.held_bytes();
        let result = work(&mut window);
        let after = window.held_bytes();
        if after >= before {
            self.total.fetch_add(after - before, Ordering::Relaxed);
        } else {
            self.total.fetch_sub(before - after, Ordering::Relaxed);
        }
        result
    }
}

/// The live hub of a server.
#[derive(Debug)]
pub struct Hub {
    heads: RwLock<HashMap<StreamId, Arc<Head>>>,
    total: Arc<AtomicUsize>,
    options: HubOptions,
}

impl Hub {
    /// An empty hub.
    #[must_use]
    pub fn new(options: HubOptions) -> Arc<Self> {
        Arc::new(Self { heads: RwLock::default(), total: Arc::default(), options })
    }

    /// Watches a stream from the beginning of its oldest fragment that is not durable yet; waits for the next one if
    /// there is none.
    #[must_use]
    pub fn subscribe(self: &Arc<Self>, stream: StreamId) -> Subscriber {
        let head = self.head(stream);
        let viewer = head.with(Window::subscribe);
        Subscriber::new(self.clone(), stream, head, viewer)
    }

    /// Tells when fragments of a stream become durable, from now on.
    #[must_use]
    pub fn durable(self: &Arc<Self>, stream: StreamId) -> DurableFollower {
        DurableFollower::new(self.clone(), stream, self.head(stream))
    }

    /// A publisher is pushing.
    #[must_use]
    pub fn is_live(&self, stream: StreamId) -> bool {
        let heads = self.heads.read().expect("no panic under this lock");
        heads.get(&stream).is_some_and(|head| head.lock().is_live())
    }

    /// Bytes that all windows hold.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.total.load(Ordering::Relaxed)
    }

    fn head(&self, stream: StreamId) -> Arc<Head> {
        if let Some(head) = self.heads.read().expect("no panic under this lock").get(&stream) {
            return head.clone();
        }
        let mut heads = self.heads.write().expect("no panic under this lock");
        heads.entry(stream).or_insert_with(|| Arc::new(Head::new(self.total.clone()))).clone()
    }

    /// Forgets a stream that nobody publishes or watches.
    pub(crate) fn forget_idle(&self, stream: StreamId) {
        let mut heads = self.heads.write().expect("no panic under this lock");
        // A head is handed out only under this lock, so a count of 1 stays 1 here.
        if heads.get(&stream).is_some_and(|head| Arc::strong_count(head) == 1 && head.lock().is_idle()) {
            heads.remove(&stream);
        }
    }

    /// Back under the budget, at the cost of the largest windows.
    fn shed(&self) {
        while self.held_bytes() > self.options.budget_bytes {
            let heads = self.heads.read().expect("no panic under this lock");
            let largest = heads.values().max_by_key(|head| head.lock().held_bytes()).cloned();
            drop(heads);
            let Some(largest) = largest else { return };
            let freed = largest.with(|window| {
                let before = window.held_bytes();
                window.give_up_oldest();
                before - window.held_bytes()
            });
            largest.published.notify_waiters();
            if freed == 0 {
                return;
            }
        }
    }
}

impl LiveSink for Hub {
    fn publish_all(&self, stream: StreamId, events: &mut Vec<LiveEvent>) {
        let head = self.head(stream);
        let (mut durable, mut may_end) = (None, false);
        for event in &*events {
            may_end |= matches!(event, LiveEvent::Ended(_) | LiveEvent::Durable(_) | LiveEvent::Failed(_));
            if let LiveEvent::Durable(this) = event {
                durable = Some(*this);
            }
        }
        let idle = head.with(|window| {
            events.drain(..).for_each(|event| window.push(event));
            window.is_idle()
        });
        head.published.notify_waiters();
        if let Some(durable) = durable {
            head.durable.send_replace(Some(durable));
        }
        self.shed();
        if may_end && idle {
            drop(head);
            self.forget_idle(stream);
        }
    }
}
