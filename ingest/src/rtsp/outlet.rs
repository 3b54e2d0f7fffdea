//! Hands events on: waits for room where the protocol can wait, drops whole groups of pictures where it cannot.

use vidar_core::time::UnixMs;
use vidar_media::{Event, StreamConfig, SyncKind};

use super::media::Arrived;
use super::publish::{Publish, PublishError};

/// A run that takes events.
pub(crate) struct Outlet {
    publish: Box<dyn Publish>,
    /// Packets come whether they are taken or not.
    cannot_wait: bool,
    dropping: Option<Dropping>,
    primary: Option<u8>,
    arrived: Option<UnixMs>,
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
        Self { publish, cannot_wait, dropping: None, primary: None, arrived: None, dropped_total: 0 }
    }

    /// Samples dropped for want of room.
    pub(crate) fn dropped(&self) -> u64 {
        self.dropped_total
    }

    pub(crate) fn touch(&mut self) {
        self.publish.touch();
    }

    pub(crate) async fn give(&mut self, events: Vec<Arrived>) -> Result<(), PublishError> {
        for Arrived { at, event } in events {
            if self.arrived.replace(at) != Some(at) {
                self.publish.arrived(at);
            }
            if let Event::Config(config) = &event {
                self.primary = config.primary_track().and_then(|index| u8::try_from(index).ok());
            }
            if self.cannot_wait { self.try_event(event)? } else { self.publish.event(event).await? }
        }
        Ok(())
    }

    fn try_event(&mut self, event: Event) -> Result<(), PublishError> {
        let resumes = match &event {
            Event::Sample(sample) => Some(sample.track) == self.primary && sample.sync == SyncKind::Sync,
            _ => false,
        };
        if let Some(mut dropping) = self.dropping.take()
            && !(resumes && self.resume(&mut dropping)?)
        {
            self.drop_event(event, dropping);
            return Ok(());
        }
        // What is not taken is gone, but a config must not be.
        let kept = if let Event::Config(config) = &event { Some(config.clone()) } else { None };
        let is_sample = matches!(event, Event::Sample(_));
        if !self.publish.try_event(event)? {
            self.dropped_total += u64::from(is_sample);
            self.dropping = Some(Dropping { count: u32::from(is_sample), config: kept });
            tracing::warn!("the store is behind: dropping up to the next keyframe");
        }
        Ok(())
    }

    fn resume(&mut self, dropping: &mut Dropping) -> Result<bool, PublishError> {
        if let Some(config) = &dropping.config {
            if !self.publish.try_event(Event::Config(config.clone()))? {
                return Ok(false);
            }
            dropping.config = None;
        }
        self.publish.try_event(Event::Lost { count: dropping.count })
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
