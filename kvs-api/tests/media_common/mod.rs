//! Streams that are read by the compatible API: an archive in memory, signed requests, and what comes back taken apart.
#![allow(dead_code, unreachable_pub)] // each test binary uses its part

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::Router;
use axum::body::Body;
use bytes::Bytes;
use futures::FutureExt;
use http::Response;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;
use tower::ServiceExt;
use vidar_aws_wire::sigv4::Rules;
use vidar_core::auth::Principal;
use vidar_core::clock::Clock as _;
use vidar_core::hub::{LiveEvent, LiveSink as _};
use vidar_core::ids::{FragmentNumber, RunId, StreamId, StreamName};
use vidar_core::policy::{Action, Preset, Target};
use vidar_core::record::TableEnvelope;
use vidar_core::registry::StreamRegistry as _;
use vidar_core::sample::Tag;
use vidar_core::sink::{Durable, OpenFragment};
use vidar_core::time::UnixMs;
use vidar_core::track::StreamConfig;
use vidar_kvs_api::{Keys, Kvs, KvsOptions, Refusal, Seal, router};
use vidar_live::{Hub, HubOptions};
use vidar_media::container::mkv;
use vidar_media::demux::{Demux as _, Event, RawSample};
use vidar_media::fragmenter::{Cut, Output};
use vidar_player_api::image::ImagePool;
use vidar_player_api::{Api, ApiOptions};
use zeroize::Zeroizing;

use crate::support::Archive;

const SECRET: &str = "secret";

struct NoSessions;

impl Seal for NoSessions {
    fn seal(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn open(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

/// `root` may everything, `reader` may read `cam-*`, `writer` may write it.
#[derive(Default)]
pub struct TestKeys {
    /// Who was let in may nothing any more.
    pub revoked: AtomicBool,
}

impl Keys for TestKeys {
    fn secret(&self, id: &str, _token: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal> {
        let bound = |preset: Preset| Principal::root(id).bound(Arc::new(preset.policy(vec!["cam-*".to_owned()])));
        let principal = match id {
            "root" => Principal::root(id),
            "reader" => bound(Preset::Read),
            "writer" => bound(Preset::Write),
            _ => return Err(Refusal::Unknown),
        };
        Ok((principal, SECRET.to_owned().into()))
    }

    fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool {
        !self.revoked.load(Ordering::Relaxed) && who.may(action, target)
    }

    fn note_use(&self, _principal: &Principal) {}
}

/// The compatible API over an archive.
pub struct Service {
    pub archive: Archive,
    pub hub: Arc<Hub>,
    pub stop: CancellationToken,
    pub keys: Arc<TestKeys>,
    router: Router,
}

impl Service {
    pub fn new() -> Self {
        Self::with_budget(HubOptions::default().budget_bytes)
    }

    /// Viewers of the head share so many bytes.
    pub fn with_budget(budget_bytes: usize) -> Self {
        let archive = Archive::new();
        let options = KvsOptions {
            rules: Rules::default(),
            public_url: "http://127.0.0.1:8081".to_owned(),
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            body_timeout: Duration::from_secs(10),
            clip_fragments_max: None,
            clip_bytes_max: None,
            image_targets: Vec::new(),
            topics: Vec::new(),
        };
        let (hub, stop) = (Hub::new(HubOptions { budget_bytes }), CancellationToken::new());
        let keys = Arc::new(TestKeys::default());
        let player = Arc::new(Api {
            heads: Default::default(),
            index: archive.index.clone(),
            source: archive.source.clone(),
            registry: archive.registry.clone(),
            auth: archive.api.auth.clone(),
            hub: hub.clone(),
            clock: archive.clock.clone(),
            options: ApiOptions::default(),
        });
        let router = router(Arc::new(Kvs {
            registry: archive.registry.clone(),
            keys: Arc::clone(&keys) as _,
            clock: archive.clock.clone(),
            player,
            images: ImagePool::new(1, 1),
            sessions: Arc::new(NoSessions),
            stop: stop.clone(),
            options,
            changes: Default::default(),
            limits: Default::default(),
        }));
        Self { archive, hub, stop, keys, router }
    }

    pub async fn send_as(&self, key: &str, path: &str, body: &Value) -> Response<Body> {
        let request = signed(key, self.archive.clock.now(), path, body.to_string().as_bytes());
        self.router.clone().oneshot(request.map(Body::from)).await.expect("an answer")
    }

    /// The answer, which is a good one.
    pub async fn good(&self, path: &str, body: Value) -> Response<Body> {
        let response = self.send_as("root", path, &body).await;
        if response.status() != 200 {
            panic!("{path} {body}: {} {:?}", response.status(), response.into_body().collect().await);
        }
        response
    }

    pub async fn json(&self, path: &str, body: Value) -> Value {
        let body = self.good(path, body).await.into_body().collect().await.expect("a body").to_bytes();
        serde_json::from_slice(&body).expect("JSON")
    }

    /// Status and type of an error.
    pub async fn bad_as(&self, key: &str, path: &str, body: Value) -> (u16, String) {
        let response = self.send_as(key, path, &body).await;
        let status = response.status().as_u16();
        let error_type =
            response.headers().get("x-amzn-errortype").map(|value| value.to_str().expect("text").to_owned());
        (status, error_type.unwrap_or_default())
    }

    pub async fn bad(&self, path: &str, body: Value) -> (u16, String) {
        self.bad_as("root", path, body).await
    }

    /// GetMedia of a stream from here on.
    pub async fn get_media(&self, stream: &str, selector: Value) -> Watcher {
        let response = self.good("/getMedia", json!({"StreamName": stream, "StartSelector": selector})).await;
        assert_eq!(response.headers()["content-type"], "video/webm");
        Watcher { body: response.into_body(), bytes: Vec::new(), over: false }
    }

    /// GetMediaForFragmentList of a stream.
    pub async fn fragment_list(&self, stream: &str, numbers: &[String]) -> Vec<Document> {
        documents(&self.open_list(stream, numbers).await.collect().await.expect("a body").to_bytes())
    }

    /// The same, of which nothing is read yet.
    pub async fn open_list(&self, stream: &str, numbers: &[String]) -> Body {
        let response = self.good("/getMediaForFragmentList", json!({"StreamName": stream, "Fragments": numbers})).await;
        assert_eq!(response.headers()["content-type"], "video/webm");
        response.into_body()
    }

    pub async fn stream(&self, name: &str) -> StreamId {
        self.archive.registry.ensure(&StreamName::new(name).expect("a name")).await.expect("a stream").stream
    }
}

fn signed(key: &str, now: UnixMs, path: &str, body: &[u8]) -> http::Request<Vec<u8>> {
    let uri = format!("http://127.0.0.1:8081{path}");
    let identity = Credentials::new(key, SECRET, None, None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-west-2")
        .name("kinesisvideo")
        .time(SystemTime::UNIX_EPOCH + Duration::from_millis(now.0 as u64))
        .settings(SigningSettings::default())
        .build()
        .expect("parameters")
        .into();
    let headers = [("host", "127.0.0.1:8081")].into_iter();
    let signable = SignableRequest::new("POST", &uri, headers, SignableBody::Bytes(body)).expect("a request");
    let (instructions, _) = sign(signable, &params).expect("signed").into_parts();
    let request = http::Request::post(path).header("host", "127.0.0.1:8081").body(body.to_vec());
    let mut request = request.expect("a request");
    instructions.apply_to_request_http1x(&mut request);
    request
}

/// Reads an answer that has no end.
pub struct Watcher {
    body: Body,
    bytes: Vec<u8>,
    pub over: bool,
}

impl Watcher {
    /// Takes what there is, without waiting.
    pub fn pump(&mut self) {
        while !self.over && self.pump_once() {}
    }

    /// Takes the next bytes, if there are any.
    pub fn pump_once(&mut self) -> bool {
        match self.body.frame().now_or_never() {
            Some(Some(frame)) => {
                self.bytes.extend_from_slice(&frame.expect("a frame").into_data().expect("data"));
                true
            }
            Some(None) => {
                self.over = true;
                false
            }
            None => false,
        }
    }

    /// Bytes that were taken.
    pub fn taken(&self) -> &[u8] {
        &self.bytes
    }

    pub fn bytes(&mut self) -> &[u8] {
        self.pump();
        &self.bytes
    }

    /// All there is so far.
    pub fn documents(&mut self) -> Vec<Document> {
        documents(self.bytes())
    }

    /// Numbers of the documents so far, with a `+` behind those that are complete.
    pub fn numbers(&mut self) -> Vec<String> {
        self.documents().iter().map(Document::word).collect()
    }
}

/// One of the documents that come one after the other.
#[derive(Debug, Clone, Default)]
pub struct Document {
    pub bytes: Vec<u8>,
    pub config: Option<StreamConfig>,
    pub clusters: usize,
    pub samples: Vec<RawSample>,
    /// Before the Cluster, and after it.
    pub leading: Vec<Tag>,
    pub trailing: Vec<Tag>,
}

impl Document {
    pub fn tag(&self, name: &str) -> Option<&str> {
        let name = format!("AWS_KINESISVIDEO_{name}");
        let tag = self.leading.iter().chain(&self.trailing).find(|tag| tag.name == name);
        tag.map(|tag| tag.value.as_str())
    }

    pub fn number(&self) -> String {
        self.tag("FRAGMENT_NUMBER").expect("a fragment number").to_owned()
    }

    pub fn is_complete(&self) -> bool {
        self.tag("CONTINUATION_TOKEN").is_some() && self.tag("MILLIS_BEHIND_NOW").is_some()
    }

    /// Up to about the tags that say how far it is behind.
    pub fn without_end(&self) -> &[u8] {
        let name = b"AWS_KINESISVIDEO_MILLIS_BEHIND_NOW";
        let at = self.bytes.windows(name.len()).position(|window| window == name);
        // Before the name stand the heads of its elements.
        &self.bytes[..at.expect("an end") - 20]
    }

    pub fn word(&self) -> String {
        let number: FragmentNumber = self.number().parse().expect("a fragment number");
        let end = if self.is_complete() { "+" } else { "" };
        format!("{}{end}", number.sequence() & 0xffff_ffff)
    }

    /// The producer's tags.
    pub fn own_tags(&self) -> Vec<Tag> {
        let own = |tag: &&Tag| !tag.name.starts_with("AWS_KINESISVIDEO_");
        self.leading.iter().chain(&self.trailing).filter(own).cloned().collect()
    }
}

/// Takes documents apart: each begins with an EBML header.
pub fn documents(bytes: &[u8]) -> Vec<Document> {
    let starts: Vec<usize> =
        (0..bytes.len()).filter(|at| bytes[*at..].starts_with(&[0x1a, 0x45, 0xdf, 0xa3])).collect();
    assert!(bytes.is_empty() || starts.first() == Some(&0), "no EBML header first");
    let ends = starts.iter().copied().skip(1).chain([bytes.len()]);
    starts.iter().zip(ends).map(|(start, end)| document(&bytes[*start..end])).collect()
}

fn document(bytes: &[u8]) -> Document {
    let (mut demuxer, mut events) = (mkv::Demuxer::new(), Vec::new());
    demuxer.push(Bytes::copy_from_slice(bytes), &mut events).expect("Matroska");
    let mut document = Document { bytes: bytes.to_vec(), ..Document::default() };
    for event in events {
        match event {
            Event::Config(config) => document.config = Some(config),
            Event::Sample(sample) => document.samples.push(sample),
            Event::SourceFragment { .. } => document.clusters += 1,
            Event::Tags(tags) | Event::TrackTags(tags) if document.config.is_none() => document.leading.extend(tags),
            Event::Tags(tags) | Event::TrackTags(tags) => document.trailing.extend(tags),
            Event::Wall { .. } | Event::EndOfFragment => {}
            other => panic!("{other:?}"),
        }
    }
    document
}

/// A push that goes on: what the fragmenter gives out, published by hand.
pub struct LivePush<'a> {
    service: &'a Service,
    stream: StreamId,
    run: RunId,
    start: UnixMs,
    first_ms: Option<i64>,
    pub open: Option<OpenFragment>,
    parts: Vec<(TableEnvelope, Bytes)>,
    count: usize,
}

impl<'a> LivePush<'a> {
    pub async fn new(service: &'a Service, stream: &str, start: UnixMs) -> Self {
        let stream = service.stream(stream).await;
        let (run, parts) = (RunId::new(), Vec::new());
        service.archive.observe_run(stream, run, start);
        Self { service, stream, run, start, first_ms: None, open: None, parts, count: 0 }
    }

    fn publish(&self, event: LiveEvent) {
        self.service.hub.publish(self.stream, event);
    }

    /// Publishes; gives back a fragment that is complete and not yet durable.
    pub fn give(&mut self, output: Output) -> Option<(OpenFragment, Cut)> {
        match output {
            Output::Open { config, start_ms, starts_with_sync } => {
                let producer_start = self.start.plus_ms(start_ms - *self.first_ms.get_or_insert(start_ms));
                let number = self.service.archive.number(producer_start);
                let fragment = OpenFragment { number, ordinal: 0, discontinuity: 0 };
                self.open = Some(fragment);
                self.publish(LiveEvent::Opened {
                    fragment,
                    run: self.run,
                    config,
                    producer_start,
                    is_anchored: true,
                    starts_with_sync,
                });
            }
            Output::Sample(sample) => {
                let number = self.open.expect("an open fragment").number;
                self.publish(LiveEvent::Sample { number, sample });
            }
            Output::Tags(tags) => {
                let number = self.open.expect("an open fragment").number;
                self.publish(LiveEvent::Tags { number, tags });
            }
            Output::Cut(cut) if cut.part.is_some() => self.parts.push((cut.table, cut.media.concat().into())),
            Output::Cut(cut) => {
                let open = self.open.take().expect("an open fragment");
                let Cut { duration_ms, next_decode_ticks, .. } = cut;
                self.publish(LiveEvent::Closed { fragment: open, duration_ms, next_decode_ticks });
                return Some((open, cut));
            }
            Output::RunBreak => panic!("one run"),
        }
        None
    }

    /// Stores it, and says so.
    pub fn store(&mut self, (open, cut): (OpenFragment, Cut)) {
        let durable = self.store_silently((open, cut));
        self.publish(LiveEvent::Durable(durable));
    }

    pub fn store_silently(&mut self, (open, cut): (OpenFragment, Cut)) -> Durable {
        let start = self.start.plus_ms(cut.start_ms - self.first_ms.unwrap_or(0));
        let (size_bytes, duration_ms) = (cut.facts.size_bytes(), cut.duration_ms);
        let parts = std::mem::take(&mut self.parts);
        self.service.archive.store(self.stream, self.run, open.number, start, self.count == 0, cut, parts);
        self.count += 1;
        Durable { number: open.number, producer_start: start, duration_ms, size_bytes }
    }

    pub fn fail(&mut self, open: OpenFragment) {
        self.publish(LiveEvent::Failed(open));
    }

    /// All of it, durable at once.
    pub fn give_all(&mut self, outputs: impl IntoIterator<Item = Output>) {
        for output in outputs {
            if let Some(complete) = self.give(output) {
                self.store(complete);
            }
        }
    }
}

/// What a sample is, however long it is said to last.
pub fn essence(sample: &RawSample) -> (u8, i64, bool, u8, Bytes) {
    let sync = sample.sync == vidar_core::sample::SyncKind::Sync;
    (sample.track, sample.presentation_ticks, sync, sample.block_flags, sample.data.clone())
}

/// The samples of a clip, as its demuxer gives them.
pub fn clip_samples(clip: &str) -> Vec<RawSample> {
    let sample = |event| if let Event::Sample(sample) = event { Some(sample) } else { None };
    crate::support::events(clip).into_iter().filter_map(sample).collect()
}
