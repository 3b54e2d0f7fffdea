//! Ingest over a store in memory, with a clock that only moves when told to.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use tokio::sync::{Notify, Semaphore};
use vidar_core::admission::{Admission, Occupied, Permit};
use vidar_core::clock::ManualClock;
use vidar_core::control::{Control, StreamRecord, StreamSettings};
use vidar_core::hub::{LiveEvent, LiveSink};
use vidar_core::ids::{ConfigId, FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::record::NewFragment;
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::sink::{Durable, FragmentSink, OpenFragment, SinkError};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_ingest::admission::Publishers;
use vidar_ingest::{Ingest, IngestOptions, PushStart};
use vidar_media::Event;
use vidar_media::container::mkv;
use vidar_media::demux::Demux as _;

/// 2026-01-01T00:00:00Z.
pub const NOW: UnixMs = UnixMs(1_767_225_600_000);

/// A store and a hub in memory.
pub struct Memory {
    pub fragments: Mutex<Vec<NewFragment>>,
    pub controls: Mutex<Vec<Control>>,
    /// What viewers were told.
    pub live: Mutex<Vec<LiveEvent>>,
    /// Each append takes one: a slow disk has none.
    pub disk: Semaphore,
    count: Mutex<u64>,
}

#[async_trait]
impl FragmentSink for Memory {
    fn accepts(&self) -> Result<(), SinkError> {
        Ok(())
    }

    fn open_fragment(&self, _: StreamId, _: RunId, _: bool, _: bool) -> Result<OpenFragment, SinkError> {
        let mut count = self.count.lock().unwrap();
        *count += 1;
        Ok(OpenFragment { number: FragmentNumber::new(*count, 0, 0), ordinal: *count, discontinuity: 0 })
    }

    async fn put_config(&self, _: StreamId, _: &StreamConfig) -> Result<ConfigId, SinkError> {
        Ok(ConfigId([1; 16]))
    }

    async fn append(&self, fragment: NewFragment) -> Result<Durable, SinkError> {
        self.disk.acquire().await.unwrap().forget();
        let (meta, size_bytes) = (fragment.meta, fragment.media_len());
        self.fragments.lock().unwrap().push(fragment);
        let (producer_start, duration_ms) = (meta.producer_start, meta.duration_ms);
        Ok(Durable { number: meta.number, producer_start, duration_ms, size_bytes })
    }

    async fn control(&self, control: Control) -> Result<(), SinkError> {
        self.controls.lock().unwrap().push(control);
        Ok(())
    }
}

impl LiveSink for Memory {
    fn publish_all(&self, _: StreamId, events: &mut Vec<LiveEvent>) {
        self.live.lock().unwrap().append(events);
    }
}

/// One stream, made when it is first named.
pub struct OneStream(pub StreamId);

#[async_trait]
impl StreamRegistry for OneStream {
    fn get(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        let settings = self.default_settings(name);
        Some(Arc::new(StreamRecord { stream: self.0, name: name.clone(), created: NOW, settings }))
    }

    fn list(&self) -> Vec<Arc<StreamRecord>> {
        Vec::new()
    }

    async fn ensure(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError> {
        Ok(self.get(name).expect("any name is known"))
    }

    async fn create(&self, name: &StreamName, _: Option<StreamSettings>) -> Result<Arc<StreamRecord>, RegistryError> {
        self.ensure(name).await
    }

    async fn change(&self, name: &StreamName, _: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError> {
        self.ensure(name).await
    }

    async fn delete(&self, name: &StreamName) -> Result<(), RegistryError> {
        Err(RegistryError::NotFound { name: name.clone() })
    }

    fn default_settings(&self, name: &StreamName) -> StreamSettings {
        StreamSettings { device: name.to_string(), retention_hours: 1, retention_bytes: None, tags: Vec::new() }
    }
}

/// The real admission, telling when a publisher was heard.
struct Heard {
    publishers: Publishers,
    heard: Arc<Notify>,
}

struct HeardPermit {
    permit: Arc<dyn Permit>,
    heard: Arc<Notify>,
}

impl Admission for Heard {
    fn admit(
        &self,
        stream: StreamId,
        name: &StreamName,
        who: &str,
        silence: Duration,
    ) -> Result<Arc<dyn Permit>, Occupied> {
        let permit = self.publishers.admit(stream, name, who, silence)?;
        Ok(Arc::new(HeardPermit { permit, heard: Arc::clone(&self.heard) }))
    }
}

impl Permit for HeardPermit {
    fn touch(&self) {
        self.permit.touch();
        self.heard.notify_waiters();
    }

    fn revoked(&self) -> bool {
        self.permit.revoked()
    }
}

pub struct Setup {
    /// Notified when the publisher is heard.
    pub heard: Arc<Notify>,
    pub ingest: Arc<Ingest>,
    pub memory: Arc<Memory>,
    pub clock: Arc<ManualClock>,
    pub stream: StreamId,
}

impl Setup {
    pub fn new(options: IngestOptions) -> Self {
        let clock = ManualClock::new(NOW);
        let memory = Arc::new(Memory {
            fragments: Mutex::default(),
            controls: Mutex::default(),
            live: Mutex::default(),
            disk: Semaphore::new(Semaphore::MAX_PERMITS),
            count: Mutex::default(),
        });
        let stream = StreamId::new();
        let heard = Arc::new(Notify::new());
        let admission = Arc::new(Heard { publishers: Publishers::new(clock.clone()), heard: heard.clone() });
        let registry = Arc::new(OneStream(stream));
        let ingest = Ingest::new(memory.clone(), memory.clone(), registry, admission, clock.clone(), options);
        Self { heard, ingest, memory, clock, stream }
    }

    /// Fragments that were closed, in order.
    pub fn closed(&self) -> Vec<NewFragment> {
        self.memory.fragments.lock().unwrap().iter().filter(|fragment| fragment.part.is_none()).cloned().collect()
    }
}

pub fn start(start: Option<UnixMs>) -> PushStart {
    PushStart {
        name: StreamName::new("cam").unwrap(),
        by: None,
        protocol: "http",
        source: "127.0.0.1:5000".into(),
        user_agent: String::new(),
        start,
        push: None,
        as_sent: None,
    }
}

/// The events of a fixture.
pub fn events(clip: &str) -> Vec<Event> {
    let (mut demuxer, mut events) = (mkv::Demuxer::new(), Vec::new());
    demuxer.push(vidar_fixtures::read(clip).into(), &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    events
}
