//! Hands events on: waits for room where the protocol can wait, drops whole groups of pictures where it cannot.

use vidar_core::time::UnixMs;
use vidar_media::{Event, StreamConfig, SyncKind};

use super::publish::{Publish, PublishError};
use crate::push::Arrived;

/// A run that takes events.
pub(crate) struct Outlet {
    publish: Box<dyn Publish>,
    /// Packets come whether they are taken or not.
    cannot_wait: bool,
    dropping: Option<Dropping>,
    primary: Option<u8>,
    dropped_total: u64,
}

/// There was no room: samples are dropped up to the next one where decoding can start.
#[derive(Default)]
struct Dropping {
    count: u32,
    config: Option<StreamConfig>,
}

impl Outlet {
    pub(crate) fn new(publish: Box<dyn Publish>, cannot_wait: bool) -> Self {
        Self { publish, cannot_wait, dropping: None, primary: None, dropped_total: 0 }
    }

    /// Samples dropped for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped_total
    }

    pub(crate) fn touch(&mut self) {
        self.publish.touch();
    }

    /// `unfinished_bytes` are still held of what is not complete.
    pub(crate) async fn give(&mut self, events: Vec<Arrived>, unfinished_bytes: usize) -> Result<(), PublishError> {
        self.publish.hold(unfinished_bytes as u64);
        if events.is_empty() && (self.cannot_wait || unfinished_bytes == 0) {
            return Ok(());
        }
        if !self.cannot_wait {
            return self.publish.events(events).await;
        }
        let refused = match &self.dropping {
            None => {
                self.learn(&events);
                self.publish.try_events(events)?
            }
            Some(_) => Some(events),
        };
        // One at a time: those before the first that has no room still go.
        for event in refused.into_iter().flatten() {
            self.learn(std::slice::from_ref(&event));
            self.try_event(event)?;
        }
        Ok(())
    }

    fn learn(&mut self, events: &[Arrived]) {
        for Arrived { event, .. } in events {
            if let Event::Config(config) = event {
                self.primary = config.primary_track().and_then(|index| u8::try_from(index).ok());
            }
        }
    }

    /// False if there is no room.
    fn try_one(&mut self, arrived: Arrived) -> Result<bool, PublishError> {
        Ok(self.publish.try_events(vec![arrived])?.is_none())
    }

    fn try_event(&mut self, arrived: Arrived) -> Result<(), PublishError> {
        let Arrived { at, event } = &arrived;
        let resumes = match event {
            Event::Sample(sample) => Some(sample.track) == self.primary && sample.sync == SyncKind::Sync,
            _ => false,
        };
        if let Some(mut dropping) = self.dropping.take()
            && !(resumes && self.resume(*at, &mut dropping)?)
        {
            self.drop_event(arrived.event, dropping);
            return Ok(());
        }
        // What is not taken is gone, but a config must not be.
        let kept = if let Event::Config(config) = event { Some(config.clone()) } else { None };
        let is_sample = matches!(event, Event::Sample(_));
        if !self.try_one(arrived)? {
            self.dropped_total += u64::from(is_sample);
            self.dropping = Some(Dropping { count: u32::from(is_sample), config: kept });
            tracing::warn!("the store is behind: dropping up to the next keyframe");
        }
        Ok(())
    }

    fn resume(&mut self, at: Option<UnixMs>, dropping: &mut Dropping) -> Result<bool, PublishError> {
        if let Some(config) = &dropping.config {
            if !self.try_one(Arrived { at, event: Event::Config(config.clone()) })? {
                return Ok(false);
            }
            dropping.config = None;
        }
        self.try_one(Arrived { at, event: Event::Lost { count: dropping.count } })
    }

    fn drop_event(&mut self, event: Event, mut dropping: Dropping) {
        match event {
            Event::Config(config) => dropping.config = Some(config),
            Event::Sample(_) => {
                dropping.count = dropping.count.saturating_add(1);
                self.dropped_total += 1;
            }
            Event::Lost { count } => dropping.count = dropping.count.saturating_add(count),
            _ => {}
        }
        self.dropping = Some(dropping);
    }

    pub(crate) async fn finish(self, complete: bool, cause: &str) -> Result<(), PublishError> {
        self.publish.finish(complete, cause).await
    }
}

#[cfg(test)]
#[path = "outlet_tests.rs"]
mod outlet_tests;
