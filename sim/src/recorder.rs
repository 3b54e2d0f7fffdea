//! Stands between ingest and the store, and between the store and the index: notes what was handed in, answered and told.

use std::collections::HashSet;
use std::io;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use uuid::Uuid;
use vidar_core::control::Control;
use vidar_core::ids::{ConfigId, FragmentNumber, RunId, StreamId};
use vidar_core::log::{LogEvent, LogObserver};
use vidar_core::record::NewFragment;
use vidar_core::sink::{Durable, FragmentSink, OpenFragment, SinkError};
use vidar_core::track::StreamConfig;
use vidar_server::sink::StoreSink;

use crate::clock::SimClock;
use crate::lock;
use crate::model::Model;
use crate::trace::Trace;
use crate::witness::Witness;

/// The sink, watched.
pub(crate) struct WatchedSink {
    /// The real one.
    pub(crate) inner: Arc<StoreSink>,
    /// Told of all that is handed in and answered.
    pub(crate) model: Arc<Mutex<Model>>,
    /// Told of every number.
    pub(crate) witness: Witness,
    /// For uptime.
    pub(crate) clock: Arc<SimClock>,
    /// For order.
    pub(crate) trace: Trace,
}

#[async_trait]
impl FragmentSink for WatchedSink {
    fn accepts(&self) -> Result<(), SinkError> {
        self.inner.accepts()
    }

    fn open_fragment(
        &self,
        stream: StreamId,
        run: RunId,
        run_start: bool,
        continues: bool,
    ) -> Result<OpenFragment, SinkError> {
        let opened = self.inner.open_fragment(stream, run, run_start, continues)?;
        self.witness.number(opened.number);
        lock(&self.model).given(opened.number);
        Ok(opened)
    }

    async fn put_config(&self, stream: StreamId, config: &StreamConfig) -> Result<ConfigId, SinkError> {
        self.inner.put_config(stream, config).await
    }

    async fn append(&self, fragment: NewFragment) -> Result<Durable, SinkError> {
        let (number, part) = (fragment.meta.number, fragment.part);
        let index = lock(&self.model).hand_in(&fragment, self.clock.uptime());
        let answer = self.inner.append(fragment).await;
        let verdict = match &answer {
            Ok(_) => {
                lock(&self.model).acknowledge(number, part);
                "durable"
            }
            Err(SinkError::Full) => "full",
            Err(SinkError::NoSuchStream { .. }) => "no such stream",
            Err(_) => "failed",
        };
        self.trace.note(format_args!("fragment {index} part {part:?}: {verdict}"));
        answer
    }

    async fn control(&self, control: Control) -> Result<(), SinkError> {
        self.inner.control(control).await
    }
}

/// Hears the log of one boot.
pub(crate) struct WatchedLog {
    /// Told of everything.
    pub(crate) model: Arc<Mutex<Model>>,
    /// For uptime.
    pub(crate) clock: Arc<SimClock>,
    /// For order.
    pub(crate) trace: Trace,
    /// Fragments heard of in this boot.
    pub(crate) heard: Mutex<HashSet<FragmentNumber>>,
}

impl LogObserver for WatchedLog {
    fn observe(&self, event: &LogEvent) {
        let mut model = lock(&self.model);
        match event {
            LogEvent::Fragment { entry, .. } => {
                let number = entry.meta.number;
                if !lock(&self.heard).insert(number) {
                    model.violate(format!("fragment {number} was told of twice"));
                }
                let index = model.fragments.get(&number).map(|fragment| fragment.index);
                self.trace.note(format_args!("log: fragment {index:?} at {}", entry.record.offset));
                model.heard_fragment(entry);
            }
            LogEvent::Control(record) => {
                let stream = record.body.stream().map(|stream| model.stream(stream).index);
                self.trace.note(format_args!("log: {} of stream {stream:?}", word(&record.body)));
                model.heard_control(record, self.clock.uptime());
            }
        }
    }

    /// The model outlives a boot.
    fn save(&self, _id: Uuid) -> io::Result<()> {
        Ok(())
    }

    fn restore(&self, _id: Uuid) -> bool {
        true
    }
}

fn word(control: &Control) -> &'static str {
    match control {
        Control::Stream(_) => "stream",
        Control::StreamDeleted { .. } => "deletion",
        Control::Run(_) => "run",
        Control::RunEnded { .. } => "end of a run",
        Control::Gap(_) => "gap",
        Control::Floor { .. } => "floor",
        Control::Key { .. } => "key",
    }
}
