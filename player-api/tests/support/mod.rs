//! An archive in memory: clips are demuxed, cut by the real fragmenter, and put behind the real index.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use axum::Router;
use axum::body::Body;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Method, Request, Response};
use http_body_util::BodyExt as _;
use serde_json::Value;
use tower::ServiceExt as _;
use vidar_core::auth::{Authenticator, Principal};
use vidar_core::clock::ManualClock;
use vidar_core::control::{Control, ControlRecord, RunRecord, StreamRecord, StreamSettings};
use vidar_core::entry::{FragmentEntry, Locator, SharedEntry};
use vidar_core::ids::{ConfigId, FileId, FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::log::{LogEvent, LogObserver as _};
use vidar_core::policy::Preset;
use vidar_core::record::{FragmentFlags, FragmentMeta, TableEnvelope, WallSource};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::source::{FragmentHead, FragmentSource, ReadError};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_indexer::{Index, IndexOptions};
use vidar_live::{Hub, HubOptions};
use vidar_media::container::{fmp4, mkv, ts};
use vidar_media::demux::{Demux, Event};
use vidar_media::fragmenter::{Cut, Fragmenter, Options, Output};
use vidar_player_api::{Api, ApiOptions};

pub const KEY: &str = "root";
pub const SECRET: &str = "secret";
/// A key, with the same secret, that may list and read streams of these names.
pub const READER: &str = "reader";
pub const READER_STREAMS: &str = "lobby-*";
/// 2026-01-01T00:00:00Z.
pub const START: UnixMs = UnixMs(1_767_225_600_000);

/// Fragments in memory.
#[derive(Default)]
pub struct MemorySource {
    fragments: Mutex<HashMap<FragmentNumber, Stored>>,
    configs: Mutex<HashMap<ConfigId, Arc<StreamConfig>>>,
    damaged: Mutex<Vec<FragmentNumber>>,
    /// Of them, those that a read found.
    found: Mutex<Vec<FragmentNumber>>,
    /// Every file has copies of its own.
    damaged_configs: Mutex<HashSet<(ConfigId, FileId)>>,
    found_configs: Mutex<HashSet<(ConfigId, FileId)>>,
    /// Configs that are at hand, from whatever copy.
    read_configs: Mutex<HashSet<ConfigId>>,
}

#[derive(Clone)]
struct Stored {
    head: Arc<FragmentHead>,
    media: HashMap<Option<u16>, Bytes>,
}

impl MemorySource {
    fn get(&self, entry: &FragmentEntry) -> Result<Stored, ReadError> {
        let number = entry.meta.number;
        if self.damaged.lock().unwrap().contains(&number) {
            self.found.lock().unwrap().push(number);
            return Err(ReadError::Corrupt { number, file: "memory".into(), offset_bytes: 7, detail: "tag".into() });
        }
        self.fragments.lock().unwrap().get(&number).cloned().ok_or(ReadError::NotFound { number })
    }

    pub fn damage(&self, number: FragmentNumber) {
        self.damaged.lock().unwrap().push(number);
    }

    /// As retention does.
    pub fn remove(&self, number: FragmentNumber) {
        self.fragments.lock().unwrap().remove(&number);
    }

    /// Damages the copy of its config in the file of a fragment.
    pub fn damage_config(&self, entry: &FragmentEntry) {
        self.damaged_configs.lock().unwrap().insert((entry.meta.config, entry.record.file));
        self.forget_configs();
    }

    /// They are read again.
    pub fn forget_configs(&self) {
        self.read_configs.lock().unwrap().clear();
    }
}

#[async_trait]
impl FragmentSource for MemorySource {
    async fn head(&self, entry: &FragmentEntry) -> Result<Arc<FragmentHead>, ReadError> {
        Ok(self.get(entry)?.head)
    }

    async fn media(&self, entry: &FragmentEntry, part: Option<u16>, range: Range<u64>) -> Result<Bytes, ReadError> {
        let stored = self.get(entry)?;
        let media = stored.media.get(&part).expect("a part that exists");
        Ok(media.slice(range.start as usize..range.end as usize))
    }

    async fn config(&self, entry: &FragmentEntry) -> Result<Arc<StreamConfig>, ReadError> {
        let (number, id) = (entry.meta.number, entry.meta.config);
        let (copy, mut read) = ((id, entry.record.file), self.read_configs.lock().unwrap());
        if !read.contains(&id) && self.damaged_configs.lock().unwrap().contains(&copy) {
            self.found_configs.lock().unwrap().insert(copy);
            return Err(ReadError::Corrupt { number, file: "memory".into(), offset_bytes: 9, detail: "tag".into() });
        }
        let found = self.configs.lock().unwrap().get(&id).cloned();
        read.insert(id);
        found.ok_or(ReadError::NotFound { number })
    }

    fn is_damaged(&self, entry: &FragmentEntry) -> bool {
        let (id, file) = (entry.meta.config, entry.record.file);
        let is_at_hand = self.read_configs.lock().unwrap().contains(&id);
        let has_no_config = !is_at_hand && self.found_configs.lock().unwrap().contains(&(id, file));
        has_no_config || self.found.lock().unwrap().contains(&entry.meta.number)
    }
}

/// Streams in memory.
pub struct MemoryRegistry {
    index: Arc<Index>,
    streams: Mutex<HashMap<StreamName, Arc<StreamRecord>>>,
    counter: Mutex<u64>,
}

impl MemoryRegistry {
    fn put(&self, record: StreamRecord) -> Arc<StreamRecord> {
        let shared = Arc::new(record.clone());
        self.streams.lock().unwrap().insert(record.name.clone(), shared.clone());
        let mut counter = self.counter.lock().unwrap();
        *counter += 1;
        let number = FragmentNumber::new(*counter, 1, 0);
        self.index.observe(&LogEvent::Control(Arc::new(ControlRecord { number, body: Control::Stream(record) })));
        shared
    }

    fn check(settings: &StreamSettings) -> Result<(), RegistryError> {
        if settings.retention_hours > 87_600 {
            let detail = "expected 0 to 87600".to_owned();
            return Err(RegistryError::Invalid { field: "retention_hours", detail });
        }
        Ok(())
    }
}

#[async_trait]
impl StreamRegistry for MemoryRegistry {
    fn get(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        self.streams.lock().unwrap().get(name).cloned()
    }

    fn list(&self) -> Vec<Arc<StreamRecord>> {
        let mut all: Vec<_> = self.streams.lock().unwrap().values().cloned().collect();
        all.sort_by(|a, b| a.name.cmp(&b.name));
        all
    }

    async fn ensure(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError> {
        match self.get(name) {
            Some(found) => Ok(found),
            None => self.create(name, None).await,
        }
    }

    async fn create(
        &self,
        name: &StreamName,
        settings: Option<StreamSettings>,
    ) -> Result<Arc<StreamRecord>, RegistryError> {
        if self.get(name).is_some() {
            return Err(RegistryError::Exists { name: name.clone() });
        }
        let settings = settings.unwrap_or_else(|| self.default_settings(name));
        Self::check(&settings)?;
        Ok(self.put(StreamRecord { stream: StreamId::new(), name: name.clone(), created: START, settings }))
    }

    async fn change(&self, name: &StreamName, settings: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError> {
        let found = self.get(name).ok_or_else(|| RegistryError::NotFound { name: name.clone() })?;
        Self::check(&settings)?;
        Ok(self.put(StreamRecord { settings, ..StreamRecord::clone(&found) }))
    }

    async fn delete(&self, name: &StreamName) -> Result<(), RegistryError> {
        let gone = self.streams.lock().unwrap().remove(name);
        gone.map(|_| ()).ok_or_else(|| RegistryError::NotFound { name: name.clone() })
    }

    fn default_settings(&self, name: &StreamName) -> StreamSettings {
        StreamSettings { device: name.to_string(), retention_hours: 168, retention_bytes: None, tags: Vec::new() }
    }
}

/// One pair, and tokens that anybody could forge: `PREFIX|EXPIRES|ok`.
pub struct TestAuth;

impl Authenticator for TestAuth {
    fn basic(&self, access_key_id: &str, secret: &str) -> Option<Principal> {
        let known = match access_key_id {
            KEY => Principal::root(KEY),
            READER => Principal::root(READER).bound(Arc::new(Preset::Read.policy(vec![READER_STREAMS.to_owned()]))),
            _ => return None,
        };
        (secret == SECRET).then_some(known)
    }

    fn bearer(&self, token: &str) -> Option<Principal> {
        let (access_key_id, secret) = token.split_once(':')?;
        self.basic(access_key_id, secret)
    }

    fn digest_secret(&self, _access_key_id: &str) -> Option<(Principal, String)> {
        None
    }

    fn sign(&self, _maker: &Principal, path_prefix: &str, expires: UnixMs) -> String {
        format!("{path_prefix}|{}|ok", expires.0)
    }

    fn signed(&self, token: &str, path: &str, now: UnixMs) -> Option<Principal> {
        let mut parts = token.split('|');
        let (prefix, expires, mac) = (parts.next()?, parts.next()?.parse::<i64>().ok()?, parts.next()?);
        let below = path.strip_prefix(prefix).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'));
        (mac == "ok" && below && now.0 < expires).then(|| Principal::root(KEY))
    }
}

/// A server without sockets.
pub struct Archive {
    pub api: Arc<Api>,
    pub source: Arc<MemorySource>,
    pub registry: Arc<MemoryRegistry>,
    pub index: Arc<Index>,
    pub clock: Arc<ManualClock>,
    pub router: Router,
    /// Names the segment file of what is pushed.
    pub file: AtomicU8,
    places: Mutex<HashMap<StreamId, (u64, u32)>>,
    counter: Mutex<u64>,
}

/// How a clip is pushed.
#[derive(Clone, Copy)]
pub struct Push<'a> {
    pub stream: &'a str,
    pub clip: &'a str,
    pub start: UnixMs,
    /// Ordinals that are given away without a fragment, before the push.
    pub lost_ordinals: u64,
    /// The fragment of which samples are lost.
    pub lossy: Option<usize>,
    /// The fragment of which a crash left some parts, and damage took others: facts count them all the same.
    pub holed: Option<usize>,
    pub options: Options,
}

impl<'a> Push<'a> {
    pub fn new(stream: &'a str, clip: &'a str, start: UnixMs) -> Self {
        Self { stream, clip, start, lost_ordinals: 0, lossy: None, holed: None, options: Options::default() }
    }
}

impl Archive {
    pub fn new() -> Self {
        let clock = ManualClock::new(START.plus_ms(3_600_000));
        let index = open_index(clock.clone());
        let source = Arc::new(MemorySource::default());
        let registry =
            Arc::new(MemoryRegistry { index: index.clone(), streams: Mutex::default(), counter: Mutex::new(1 << 40) });
        let api = Arc::new(Api {
            heads: Default::default(),
            index: index.clone(),
            source: source.clone(),
            registry: registry.clone(),
            auth: Arc::new(TestAuth),
            hub: Hub::new(HubOptions::default()),
            clock: clock.clone(),
            options: ApiOptions::default(),
        });
        let router = vidar_player_api::router(api.clone());
        let (places, counter) = (Mutex::default(), Mutex::new(0));
        Self { api, source, registry, index, clock, router, file: AtomicU8::new(7), places, counter }
    }

    /// Pushes a whole clip as one run.
    pub async fn push(&self, push: Push<'_>) -> Vec<SharedEntry> {
        let name = StreamName::new(push.stream).unwrap();
        let stream = self.registry.ensure(&name).await.unwrap().stream;
        let run = RunId::new();
        let mut entries: Vec<SharedEntry> = Vec::new();
        let mut parts: Vec<(TableEnvelope, Bytes)> = Vec::new();
        let mut first_ms = None;
        for output in fragments(push.clip, push.options) {
            let Output::Cut(mut cut) = output else { continue };
            if cut.part.is_some() {
                parts.push((cut.table, concat(&cut.media)));
                continue;
            }
            let first_ms = *first_ms.get_or_insert(cut.start_ms);
            if entries.is_empty() {
                self.observe_run(stream, run, push.start);
                self.places.lock().unwrap().entry(stream).or_default().0 += push.lost_ordinals;
            }
            (cut.facts.wall_source, cut.facts.wall_offset_ms) = (WallSource::Container, -7);
            if push.lossy == Some(entries.len()) {
                cut.flags = cut.flags.with(FragmentFlags::LOSSY, true);
                cut.facts.lost_count = 3;
            }
            if push.holed == Some(entries.len()) {
                cut.flags = cut.flags.with(FragmentFlags::LOSSY, true).with(FragmentFlags::INCOMPLETE, true);
                for track in &mut cut.facts.tracks {
                    track.totals.sample_count += 5;
                    track.totals.mp4_bytes += 999;
                    track.size_bytes += 999;
                }
            }
            let start = push.start.plus_ms(cut.start_ms - first_ms);
            let taken = std::mem::take(&mut parts);
            let number = self.number(start);
            entries.push(self.store(stream, run, number, start, entries.is_empty(), cut, taken));
        }
        entries
    }

    pub fn observe_run(&self, stream: StreamId, run: RunId, anchor: UnixMs) {
        let body = Control::Run(RunRecord {
            stream,
            run,
            started: anchor,
            protocol: "http".into(),
            source: "127.0.0.1:5000".into(),
            user_agent: "test".into(),
            anchor,
            anchor_source: WallSource::Given,
            continues: None,
            push: None,
        });
        let number = self.number(anchor);
        self.index.observe(&LogEvent::Control(Arc::new(ControlRecord { number, body })));
    }

    pub fn number(&self, server: UnixMs) -> FragmentNumber {
        let mut counter = self.counter.lock().unwrap();
        *counter += 1;
        FragmentNumber::new((1 << 32) + *counter, server.0 as u64 + 5, *counter as u32)
    }

    #[allow(clippy::too_many_arguments)] // a record has many fields
    pub fn store(
        &self,
        stream: StreamId,
        run: RunId,
        number: FragmentNumber,
        start: UnixMs,
        run_start: bool,
        cut: Cut,
        parts: Vec<(TableEnvelope, Bytes)>,
    ) -> SharedEntry {
        let (ordinal, discontinuity) = {
            let mut places = self.places.lock().unwrap();
            let known = places.contains_key(&stream);
            let place = places.entry(stream).or_default();
            let jump = run_start && known && self.index.timeline().last(stream).is_some();
            *place = (place.0 + 1, place.1 + u32::from(jump));
            (place.0 - 1, place.1)
        };
        let config_id = self.config_id(&cut.config);
        let meta = FragmentMeta {
            stream,
            number,
            run,
            lease_epoch: 0,
            ordinal,
            discontinuity,
            producer_start: start,
            duration_ms: cut.duration_ms,
            config: config_id,
            flags: cut.flags.with(FragmentFlags::RUN_START, run_start),
        };
        let closing = concat(&cut.media);
        let locator = |media: &Bytes| Locator {
            volume: 0,
            file: FileId::from_bytes([self.file.load(Ordering::Relaxed); 16]),
            offset: 0,
            head_len: 0,
            media_len: media.len() as u64,
            record_len: media.len() as u64,
        };
        let part_locators = parts.iter().map(|(_, media)| locator(media)).collect();
        let entry = Arc::new(FragmentEntry::new(meta, &cut.facts, locator(&closing), part_locators));
        let mut media: HashMap<Option<u16>, Bytes> = HashMap::from([(None, closing)]);
        media.extend((0..).zip(parts).map(|(part, (_, bytes))| (Some(part), bytes)));
        let head = Arc::new(FragmentHead { facts: cut.facts.clone(), table: cut.table });
        self.source.fragments.lock().unwrap().insert(number, Stored { head, media });
        self.index.observe(&LogEvent::Fragment { entry: entry.clone(), facts: Arc::new(cut.facts) });
        entry
    }

    fn config_id(&self, config: &Arc<StreamConfig>) -> ConfigId {
        let mut configs = self.source.configs.lock().unwrap();
        if let Some((id, _)) = configs.iter().find(|(_, known)| *known == config) {
            return *id;
        }
        let id = ConfigId([configs.len() as u8 + 1; 16]);
        configs.insert(id, config.clone());
        id
    }

    /// Another server over the same store: nothing but the index and the source is carried over.
    pub fn restart(&mut self) {
        let api = Api {
            heads: Default::default(),
            index: self.index.clone(),
            source: self.source.clone(),
            registry: self.registry.clone(),
            auth: self.api.auth.clone(),
            hub: Hub::new(HubOptions::default()),
            clock: self.clock.clone(),
            options: ApiOptions::default(),
        };
        self.router = vidar_player_api::router(Arc::new(api));
    }

    /// A request with credentials.
    pub async fn send(&self, method: Method, uri: &str, body: &str) -> Answer {
        self.send_as(KEY, method, uri, body).await
    }

    pub async fn send_as(&self, key: &str, method: Method, uri: &str, body: &str) -> Answer {
        let pair = STANDARD.encode(format!("{key}:{SECRET}"));
        let request = Request::builder().method(method).uri(uri).header("authorization", format!("Basic {pair}"));
        self.send_raw(request.body(Body::from(body.to_owned())).unwrap()).await
    }

    pub async fn get(&self, uri: &str) -> Answer {
        self.send(Method::GET, uri, "").await
    }

    pub async fn send_raw(&self, request: Request<Body>) -> Answer {
        let response: Response<Body> = self.router.clone().oneshot(request).await.unwrap();
        let (parts, body) = response.into_parts();
        let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        Answer { status: parts.status.as_u16(), headers: parts.headers, body }
    }
}

/// What came back.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: http::HeaderMap,
    pub body: Bytes,
}

impl Answer {
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {:?}", self.body))
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

fn open_index(clock: Arc<ManualClock>) -> Arc<Index> {
    Index::open(IndexOptions::in_memory(clock)).unwrap()
}

fn concat(media: &[Bytes]) -> Bytes {
    media.concat().into()
}

/// The events of a clip: a fixture by name, or any file by its path.
pub fn events(clip: &str) -> Vec<Event> {
    let path = if clip.starts_with('/') { clip.into() } else { vidar_fixtures::path(clip) };
    let bytes = Bytes::from(std::fs::read(path).unwrap());
    let mut demuxer: Box<dyn Demux> = match clip.rsplit('.').next() {
        Some("mp4") => Box::new(fmp4::Demuxer::new()),
        Some("ts") => Box::new(ts::Demuxer::new()),
        _ => Box::new(mkv::Demuxer::new()),
    };
    let mut events = Vec::new();
    demuxer.push(bytes, &mut events).unwrap();
    demuxer.finish(&mut events).unwrap();
    events
}

/// A clip as the fragmenter cuts it.
pub fn fragments(clip: &str, options: Options) -> Vec<Output> {
    let (mut fragmenter, mut out) = (Fragmenter::new(options), Vec::new());
    for event in events(clip) {
        fragmenter.push(event, &mut out).unwrap();
    }
    fragmenter.finish(true, &mut out);
    out
}
