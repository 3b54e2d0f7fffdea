//! Posts notifications of one topic, one after the other.

use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio_util::sync::CancellationToken;
use vidar_core::control::{StreamRecord, StreamSettings};
use vidar_core::time::UnixMs;
use vidar_player_api::Api;

use super::config::{self, Notification};
use super::feed::{Due, Feed};
use super::outlet::{Notice, Outlet};
use super::worker::{Counts, Deliver, Failure, Worker, retried};
use super::{DeliveryOptions, id_of, marks, notice};
use crate::arn;

/// What nobody took for so long after its fragment began is given up, but not before it was tried for a while: a clock
/// that was wrong makes old what is new.
const GIVEN_UP_MS: i64 = 86_400_000;
const TRIED_MIN: Duration = Duration::from_secs(600);
/// What a webhook fails at for so long while it answers, may be what it fails at: others are not to wait for it.
const FAILING_MAX: Duration = Duration::from_secs(3600);

/// Posts notifications of one topic.
pub struct Notices {
    worker: Worker,
    topic: String,
    region: String,
    account: String,
    counts: Counts,
}

/// From when on notifications of these settings go to a topic.
fn since(settings: &StreamSettings, topic: &str) -> Option<UnixMs> {
    let (since, plan) = config::plan::<Notification>(settings)?;
    (plan.enabled && plan.topic == topic).then_some(since)
}

/// A feed of fragments that ask for a notification, of streams that send theirs to this topic.
pub(crate) fn feed(topic: String) -> Arc<Feed> {
    Arc::new(Feed::new(move |settings| since(settings, &topic), marks::asks_for_notification))
}

/// Whether a notification that was not taken is tried again. `of_content`: it may be what the webhook fails at.
fn may_go_on(of_content: bool, tried: Duration, age_ms: i64) -> bool {
    let is_too_old = age_ms > GIVEN_UP_MS && tried > TRIED_MIN;
    let is_failing = of_content && tried > FAILING_MAX;
    !is_too_old && !is_failing
}

impl Notices {
    pub(crate) fn new(
        player: Arc<Api>,
        outlet: Arc<dyn Outlet>,
        feed: Arc<Feed>,
        topic: String,
        options: &DeliveryOptions,
    ) -> Self {
        Self {
            worker: Worker { name: format!("notifications-{}", id_of(&[topic.as_bytes()])), feed, player, outlet },
            topic,
            region: options.region.clone(),
            account: options.account.clone(),
            counts: Counts::default(),
        }
    }

    /// Until `stop`.
    pub async fn run(self: Arc<Self>, stop: CancellationToken) {
        self.worker.run(&*self, &stop).await;
    }

    /// What was done.
    #[must_use]
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// How many fragments wait.
    #[must_use]
    pub fn due_len(&self) -> usize {
        self.worker.feed.due_len()
    }

    /// Its stream, if that still sends notifications of it here.
    fn stream(&self, due: Due) -> Option<Arc<StreamRecord>> {
        let stream = self.worker.player.index.catalog().stream(due.stream)?;
        let since = since(&stream.settings, &self.topic)?;
        (due.began() >= since).then_some(stream)
    }
}

impl Deliver for Notices {
    async fn deliver(&self, due: Due, stop: &CancellationToken) -> Option<()> {
        let (index, outlet) = (&self.worker.player.index, &self.worker.outlet);
        // What was deleted, expired or configured otherwise meanwhile is not told.
        let Some(stream) = self.stream(due) else { return Some(()) };
        let Some(entry) = index.timeline().get(due.stream, due.number) else { return Some(()) };
        let tags = index.timeline().details(due.stream, due.number).map(|details| details.tags().to_vec());
        let tags = tags.unwrap_or_default();
        let stream_arn = arn::of(&stream, &self.region, &self.account);
        let body = notice::body(&self.topic, &stream_arn, &entry, &tags, self.worker.player.clock.now());
        let notice = Notice {
            topic: self.topic.clone(),
            id: notice::id(due.number, &self.topic),
            body: body.to_string().into(),
        };
        let (mut is_first, begun) = (true, Instant::now());
        let goes_on = |failure: &Failure| {
            if std::mem::take(&mut is_first) {
                let error = &failure.detail;
                tracing::warn!(topic = self.topic, fragment = %due.number, error, "a notification is tried again");
            }
            let age_ms = self.worker.player.clock.now().since_ms(due.began());
            may_go_on(failure.of_content, begun.elapsed(), age_ms) && self.stream(due).is_some()
        };
        let sent = retried(stop, goes_on, || async { Ok(outlet.post(&notice).await?) }).await?;
        self.counts.add(sent.is_ok());
        if let Err(error) = sent {
            tracing::warn!(topic = self.topic, stream = %stream.name, fragment = %due.number, error, "a notification is given up");
        }
        Some(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_long_a_notification_is_tried() {
        const DAY_MS: i64 = 86_400_000;
        let tried = Duration::from_secs;
        // It was not reached.
        assert!(may_go_on(false, tried(80_000), DAY_MS));
        assert!(!may_go_on(false, tried(80_000), DAY_MS + 1));
        // The clock was set: it is a day old at once.
        assert!(may_go_on(false, tried(600), 30 * DAY_MS));
        assert!(!may_go_on(false, tried(601), 30 * DAY_MS));
        // It fails at this one, or at all.
        assert!(may_go_on(true, tried(3600), 0));
        assert!(!may_go_on(true, tried(3601), 0));
    }
}
