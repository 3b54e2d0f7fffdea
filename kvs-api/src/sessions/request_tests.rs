//! Requests with a token, against what may have changed since it was made.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use axum::body::Body;
use http::{Method, Request, StatusCode};
use tower::ServiceExt as _;
use vidar_aws_wire::sigv4::Rules;
use vidar_core::auth::Principal;
use vidar_core::clock::ManualClock;
use vidar_core::control::{StreamRecord, StreamSettings};
use vidar_core::ids::{StreamId, StreamName};
use vidar_core::policy::{Action, Policy, Preset, Target};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::time::UnixMs;
use vidar_player_api::image::ImagePool;
use zeroize::Zeroizing;

use super::tests::{Tagged, session};
use super::{Kind, token};
use crate::{Keys, Kvs, KvsOptions, Refusal, support};

/// One stream, one key, both of which may change.
struct World {
    stream: Mutex<Option<StreamId>>,
    policy: Mutex<Option<Policy>>,
    secret: Mutex<String>,
}

impl Keys for World {
    fn secret(&self, id: &str, token: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal> {
        let policy = self.policy.lock().unwrap().clone().ok_or(Refusal::Unknown)?;
        assert_eq!((id, token), ("KEY", Some("T")));
        Ok((Principal::root(id).bound(Arc::new(policy)), self.secret.lock().unwrap().clone().into()))
    }

    fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool {
        self.policy.lock().unwrap().is_some() && who.may(action, target)
    }

    fn note_use(&self, _: &Principal) {}
}

#[async_trait]
impl StreamRegistry for World {
    fn get(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        let stream = (*self.stream.lock().unwrap())?;
        let (name, settings) = (name.clone(), self.default_settings(name));
        Some(Arc::new(StreamRecord { stream, name, created: UnixMs(0), settings }))
    }

    fn list(&self) -> Vec<Arc<StreamRecord>> {
        Vec::new()
    }

    async fn ensure(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError> {
        Err(RegistryError::NotFound { name: name.clone() })
    }

    async fn create(&self, name: &StreamName, _: Option<StreamSettings>) -> Result<Arc<StreamRecord>, RegistryError> {
        self.ensure(name).await
    }

    async fn change(&self, name: &StreamName, _: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError> {
        self.ensure(name).await
    }

    async fn delete(&self, _: &StreamName) -> Result<(), RegistryError> {
        Ok(())
    }

    fn default_settings(&self, name: &StreamName) -> StreamSettings {
        StreamSettings { device: name.to_string(), retention_hours: 1, retention_bytes: None, tags: Vec::new() }
    }
}

#[tokio::test]
async fn a_session_ends_when_it_expires_and_with_its_stream_or_its_key() {
    let reads = Preset::Read.policy(vec!["door".into()]);
    let world = Arc::new(World {
        stream: Mutex::new(Some(session().stream)),
        policy: Mutex::new(Some(reads.clone())),
        secret: Mutex::new("secret".into()),
    });
    let clock = ManualClock::new(session().began);
    let dir = tempfile::tempdir().unwrap();
    let kvs = Kvs {
        registry: Arc::clone(&world) as _,
        keys: Arc::clone(&world) as _,
        clock: Arc::clone(&clock) as _,
        player: support::player(dir.path(), Arc::clone(&world) as _, Arc::clone(&clock) as _),
        images: ImagePool::new(1, 1),
        sessions: Arc::new(Tagged::new(1)),
        stop: Default::default(),
        options: KvsOptions {
            rules: Rules::default(),
            public_url: String::new(),
            region: String::new(),
            account: String::new(),
            body_timeout: Duration::from_secs(1),
            clip_fragments_max: None,
            clip_bytes_max: None,
            image_targets: Vec::new(),
            topics: Vec::new(),
        },
        changes: Default::default(),
        limits: Default::default(),
    };
    let hls = token::make(&*kvs.sessions, Kind::Hls, &session(), "secret").unwrap();
    let dash = token::make(&*kvs.sessions, Kind::Dash, &session(), "secret").unwrap();
    let router = crate::router(Arc::new(kvs));
    let ask = async |method: Method, target: &str| {
        let request = Request::builder().method(method).uri(target).body(Body::empty()).unwrap();
        router.clone().oneshot(request).await.unwrap()
    };
    // The token stands in the path, or comes first in the query.
    let target = |path: &str, token: &str, rest: &str| match path.contains("TOKEN") {
        true => format!("{}?{rest}", path.replace("TOKEN", token)),
        false => format!("{path}?SessionToken={token}{rest}"),
    };
    let get = async |path: &str, token: &str, rest: &str| ask(Method::GET, &target(path, token, rest)).await.status();
    let files = [
        ("/hls/v1/getHLSMasterPlaylist.m3u8", "", &hls),
        ("/hls/v1/getHLSMediaPlaylist.m3u8", "&TrackNumber=1", &hls),
        ("/hls/v1/getMP4InitFragment.mp4", "&TrackNumber=1&SequenceNumber=0", &hls),
        ("/hls/v1/getMP4MediaFragment.mp4", "&TrackNumber=1&FragmentNumber=1", &hls),
        ("/hls/v1/getTSFragment.ts", "&FragmentNumber=1", &hls),
        ("/dash/v1/getDASHManifest.mpd", "", &dash),
        ("/dash/v1/TOKEN/getMP4InitFragment.mp4", "TrackNumber=1&SequenceNumber=0", &dash),
        ("/dash/v1/TOKEN/getMP4MediaFragment.mp4", "TrackNumber=1&FragmentNumber=1", &dash),
    ];
    let all = async |expected: StatusCode, why: &str| {
        for (path, rest, token) in files {
            assert_eq!(get(path, token, rest).await, expected, "{path}: {why}");
        }
    };
    // The token counts; nothing is stored.
    all(StatusCode::NOT_FOUND, "all as it was").await;
    for (path, rest, token) in files {
        let other = if *token == hls { &dash } else { &hls };
        assert_eq!(get(path, other, rest).await, StatusCode::FORBIDDEN, "{path}: a token of the other API");
        assert_eq!(ask(Method::GET, path).await.status(), StatusCode::FORBIDDEN, "{path}: no token");
        assert_eq!(get(path, token, &format!("{rest}&what=1")).await, StatusCode::BAD_REQUEST, "{path}");
        let preflight = ask(Method::OPTIONS, path).await;
        assert_eq!(preflight.headers()["access-control-allow-origin"], "*", "{path}");
    }
    for bad in
        ["", "&TrackNumber=0", "&TrackNumber=x", "&TrackNumber=1001", "&TrackNumber=1&TrackNumber=1", "&TrackNumber=-1"]
    {
        let status = get(files[1].0, &hls, bad).await;
        assert_eq!(status, StatusCode::BAD_REQUEST, "{bad}");
    }
    for bad in ["", "&FragmentNumber=", "&FragmentNumber=-1", "&FragmentNumber=1e9"] {
        assert_eq!(get(files[3].0, &hls, &format!("&TrackNumber=1{bad}")).await, StatusCode::BAD_REQUEST, "{bad}");
    }

    let lifetime_ms = session().expires.since_ms(session().began);
    clock.step_ms(lifetime_ms - 1);
    all(StatusCode::NOT_FOUND, "not over yet").await;
    clock.step_ms(1);
    all(StatusCode::FORBIDDEN, "expired").await;
    clock.step_ms(-lifetime_ms);
    *world.stream.lock().unwrap() = Some(StreamId::from_bytes([8; 16]));
    all(StatusCode::FORBIDDEN, "another stream of its name").await;
    *world.stream.lock().unwrap() = None;
    all(StatusCode::FORBIDDEN, "the stream is gone").await;
    *world.stream.lock().unwrap() = Some(session().stream);
    *world.policy.lock().unwrap() = Some(Preset::Read.policy(vec!["gate".into()]));
    all(StatusCode::FORBIDDEN, "its maker may not read any more").await;
    *world.policy.lock().unwrap() = None;
    all(StatusCode::FORBIDDEN, "the key is gone").await;
    *world.policy.lock().unwrap() = Some(reads);
    *world.secret.lock().unwrap() = "another".into();
    all(StatusCode::FORBIDDEN, "the secret is another").await;
    *world.secret.lock().unwrap() = "secret".into();
    all(StatusCode::NOT_FOUND, "all as it was").await;
}
