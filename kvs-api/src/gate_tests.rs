//! What is looked at before a body, and what a body may cost.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::SystemTime;

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{PayloadChecksumKind, SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::body::HttpBody;
use axum::routing::post;
use http_body::Frame;
use tokio::sync::mpsc;
use tower::ServiceExt;
use vidar_core::clock::ManualClock;
use vidar_core::control::{StreamRecord, StreamSettings};
use vidar_core::ids::StreamName;
use vidar_core::policy::{Action, Target};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::time::UnixMs;
use vidar_player_api::image::ImagePool;

use super::*;
use crate::{Keys, KvsOptions, Seal, support};

const NOW_S: u64 = 1_795_655_400;
const SECRET: &str = "secret";

/// A registry of nothing.
struct NoStreams;

#[async_trait]
impl StreamRegistry for NoStreams {
    fn get(&self, _: &StreamName) -> Option<Arc<StreamRecord>> {
        None
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

    async fn delete(&self, name: &StreamName) -> Result<(), RegistryError> {
        self.ensure(name).await.map(drop)
    }

    fn default_settings(&self, name: &StreamName) -> StreamSettings {
        StreamSettings { device: name.to_string(), retention_hours: 168, retention_bytes: None, tags: Vec::new() }
    }
}

#[derive(Default)]
struct OneKey {
    gone: AtomicBool,
}

impl Keys for OneKey {
    fn secret(&self, id: &str, _: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal> {
        (id == "root" && !self.gone.load(Ordering::Relaxed))
            .then(|| (Principal::root(id), SECRET.to_owned().into()))
            .ok_or(Refusal::Unknown)
    }

    fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool {
        who.may(action, target)
    }

    fn note_use(&self, _: &Principal) {}
}

struct NoSessions;

impl Seal for NoSessions {
    fn seal(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }

    fn open(&self, _: &[u8], _: &[u8]) -> Option<Vec<u8>> {
        None
    }
}

fn kvs() -> Arc<Kvs> {
    kvs_with(Arc::default())
}

fn kvs_with(keys: Arc<OneKey>) -> Arc<Kvs> {
    let clock = ManualClock::new(UnixMs(NOW_S as i64 * 1000));
    // Nothing is stored: the folder is needed while it opens only.
    let dir = tempfile::tempdir().unwrap();
    Arc::new(Kvs {
        registry: Arc::new(NoStreams),
        keys,
        player: support::player(dir.path(), Arc::new(NoStreams), Arc::clone(&clock) as _),
        images: ImagePool::new(1, 1),
        sessions: Arc::new(NoSessions),
        stop: Default::default(),
        clock,
        options: KvsOptions {
            rules: sigv4::Rules { region: Some("us-west-2".into()), ..sigv4::Rules::default() },
            public_url: "http://h".into(),
            region: "us-west-2".into(),
            account: "0".repeat(12),
            body_timeout: Duration::from_secs(60),
            clip_fragments_max: None,
            clip_bytes_max: None,
            image_targets: Vec::new(),
            topics: Vec::new(),
        },
        changes: Default::default(),
        limits: Default::default(),
    })
}

/// What of a signature is not as it should be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Wrong {
    Nothing,
    Key,
    Secret,
    Region,
    Time,
}

/// A head, signed for a body; `promise`: with the hash of it.
fn signed(path: &str, body: SignableBody<'_>, promise: bool, wrong: Wrong) -> http::request::Builder {
    let id = if wrong == Wrong::Key { "nobody" } else { "root" };
    let secret = if wrong == Wrong::Secret { "another" } else { SECRET };
    let identity = Credentials::new(id, secret, None, None, "test").into();
    let mut settings = SigningSettings::default();
    if promise {
        settings.payload_checksum_kind = PayloadChecksumKind::XAmzSha256;
    }
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region(if wrong == Wrong::Region { "eu-west-9" } else { "us-west-2" })
        .name("kinesisvideo")
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S - if wrong == Wrong::Time { 301 } else { 0 }))
        .settings(settings)
        .build()
        .expect("parameters")
        .into();
    let uri = format!("http://127.0.0.1:8081{path}");
    let headers = [("host", "127.0.0.1:8081")].into_iter();
    let signable = SignableRequest::new("POST", &uri, headers, body).expect("a request");
    let (instructions, _) = sign(signable, &params).expect("signed").into_parts();
    let (added, _) = instructions.into_parts();
    let request = http::Request::post(path).header("host", "127.0.0.1:8081");
    added.iter().fold(request, |request, header| request.header(header.name(), header.value()))
}

/// A body that counts how often it was asked for more, and has what is sent to it.
struct Watched {
    asked: Arc<AtomicUsize>,
    chunks: Mutex<mpsc::UnboundedReceiver<Bytes>>,
    len: Option<u64>,
}

type Sender = mpsc::UnboundedSender<Bytes>;

impl Watched {
    fn body(len: Option<u64>) -> (Body, Sender, Arc<AtomicUsize>) {
        let (sender, chunks) = mpsc::unbounded_channel();
        let asked = Arc::<AtomicUsize>::default();
        let body = Self { asked: Arc::clone(&asked), chunks: Mutex::new(chunks), len };
        (Body::new(body), sender, asked)
    }
}

impl HttpBody for Watched {
    type Data = Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        let polled = self.chunks.lock().expect("one reader").poll_recv(context);
        polled.map(|chunk| chunk.map(|chunk| Ok(Frame::data(chunk))))
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.len.map_or_else(http_body::SizeHint::default, http_body::SizeHint::with_exact)
    }
}

async fn answer(router: Router, request: http::request::Builder, body: Body) -> (u16, String) {
    let response = router.oneshot(request.body(body).expect("a request")).await.expect("an answer");
    let error = response.headers().get("x-amzn-errortype").and_then(|value| value.to_str().ok());
    assert!(response.headers().contains_key(REQUEST_ID));
    (response.status().as_u16(), error.unwrap_or_default().to_owned())
}

async fn ask(request: http::request::Builder, body: Body) -> (u16, String) {
    answer(crate::router(kvs()), request, body).await
}

#[tokio::test]
async fn no_body_is_read_for_a_head_that_is_wrong() {
    let signature = (403, "InvalidSignatureException".to_owned());
    for (wrong, promise, expected) in [
        (Wrong::Key, false, (403, "InvalidClientTokenId".to_owned())),
        (Wrong::Region, false, signature.clone()),
        (Wrong::Time, false, signature.clone()),
        (Wrong::Secret, true, signature.clone()),
    ] {
        let (body, _open, asked) = Watched::body(None);
        let head = signed("/listStreams", SignableBody::Bytes(b"{}"), promise, wrong);
        assert_eq!(ask(head, body).await, expected, "{wrong:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 0, "{wrong:?}: the body was read");
    }
    let (body, sender, asked) = Watched::body(None);
    sender.send(Bytes::from_static(b"{}")).expect("a body");
    drop(sender);
    // Without a promise only the body tells.
    let head = signed("/listStreams", SignableBody::Bytes(b"{}"), false, Wrong::Secret);
    assert_eq!(ask(head, body).await, signature);
    assert!(asked.load(Ordering::Relaxed) > 0);
}

#[tokio::test]
async fn a_key_that_ended_while_the_body_came_does_nothing() {
    for promise in [false, true] {
        let keys = Arc::<OneKey>::default();
        let (body, sender, asked) = Watched::body(None);
        let head = signed("/listStreams", SignableBody::Bytes(b"{}"), promise, Wrong::Nothing);
        let asking = tokio::spawn(answer(crate::router(kvs_with(Arc::clone(&keys))), head, body));
        while asked.load(Ordering::Relaxed) == 0 {
            tokio::task::yield_now().await;
        }
        keys.gone.store(true, Ordering::Relaxed);
        sender.send(Bytes::from_static(b"{}")).expect("a body");
        drop(sender);
        assert_eq!(asking.await.expect("an answer"), (403, "InvalidClientTokenId".to_owned()), "{promise}");
    }
}

#[tokio::test]
async fn a_body_is_what_its_head_promised() {
    for promise in [false, true] {
        for (body, status) in [("{}", 200), ("{ }", 403), ("", 403)] {
            let head = signed("/listStreams", SignableBody::Bytes(b"{}"), promise, Wrong::Nothing);
            assert_eq!(ask(head, Body::from(body)).await.0, status, "{promise} {body:?}");
        }
    }
    let unsigned = signed("/listStreams", SignableBody::UnsignedPayload, true, Wrong::Nothing);
    assert_eq!(ask(unsigned, Body::from("{}")).await, (403, "InvalidSignatureException".to_owned()));
}

#[tokio::test]
async fn a_body_has_a_length_at_most_however_it_comes() {
    let long = Bytes::from(vec![b' '; BODY_BYTES_MAX + 1]);
    let sign = |body: &Bytes| signed("/listStreams", SignableBody::Bytes(body), false, Wrong::Nothing);
    let too_large = (413, "RequestEntityTooLargeException".to_owned());
    let (body, _open, asked) = Watched::body(Some(long.len() as u64));
    assert_eq!(ask(sign(&long), body).await, too_large);
    assert_eq!(asked.load(Ordering::Relaxed), 0, "its length was known");
    for (body, status) in [(long.clone(), 413), (long.slice(1..), 200)] {
        let (watched, sender, _) = Watched::body(None);
        body.chunks(7).for_each(|chunk| sender.send(Bytes::copy_from_slice(chunk)).expect("a body"));
        drop(sender);
        assert_eq!(ask(sign(&body), watched).await.0, status, "in chunks");
    }
}

#[tokio::test]
async fn bodies_that_are_not_proven_share_their_room() {
    let router = crate::router(kvs());
    let chunk = Bytes::from(vec![b' '; BODY_BYTES_MAX]);
    let sign = |body: &Bytes| signed("/listStreams", SignableBody::Bytes(body), false, Wrong::Nothing);
    let mut open = Vec::new();
    for _ in 0..UNPROVEN_BYTES_MAX / BODY_BYTES_MAX {
        let (body, sender, asked) = Watched::body(None);
        sender.send(chunk.clone()).expect("a body");
        let asking = tokio::spawn(answer(router.clone(), sign(&chunk), body));
        while asked.load(Ordering::Relaxed) < 2 {
            tokio::task::yield_now().await;
        }
        open.push((asking, sender));
    }
    let refused = answer(router.clone(), sign(&Bytes::from_static(b"{}")), Body::from("{}")).await;
    assert_eq!(refused, (400, "ThrottlingException".to_owned()));
    let (asking, sender) = open.pop().expect("one");
    drop(sender);
    assert_eq!(asking.await.expect("an answer").0, 200);
    assert_eq!(answer(router, sign(&Bytes::from_static(b"{}")), Body::from("{}")).await.0, 200);
}

/// A router of one operation that streams, which answers who asked and that status.
fn streams(status: u16) -> Router {
    let status = http::StatusCode::from_u16(status).expect("a status");
    let operation = move |axum::Extension(who): axum::Extension<Principal>| async move { (status, who.access_key_id) };
    number(guard_streams(Router::new().route("/putMedia", post(operation)), kvs()))
}

#[tokio::test(start_paused = true)]
async fn media_is_let_in_by_its_head_and_refused_slowly() {
    let empty = SignableBody::Bytes(b"");
    for (status, body, promise, wrong, expected, delay) in [
        (200, empty.clone(), false, Wrong::Nothing, 200, Duration::ZERO),
        (200, SignableBody::UnsignedPayload, false, Wrong::Nothing, 200, Duration::ZERO),
        (200, SignableBody::UnsignedPayload, true, Wrong::Nothing, 200, Duration::ZERO),
        (200, empty.clone(), false, Wrong::Secret, 403, REFUSAL_DELAY),
        (200, empty.clone(), false, Wrong::Key, 403, REFUSAL_DELAY),
        (200, SignableBody::Bytes(b"media"), false, Wrong::Nothing, 403, REFUSAL_DELAY),
        (404, empty.clone(), false, Wrong::Nothing, 404, REFUSAL_DELAY),
    ] {
        let (media, _open, asked) = Watched::body(None);
        let before = tokio::time::Instant::now();
        let head = signed("/putMedia", body, promise, wrong);
        assert_eq!(answer(streams(status), head, media).await.0, expected, "{wrong:?}");
        assert_eq!(before.elapsed().as_secs(), delay.as_secs(), "{wrong:?}");
        assert_eq!(asked.load(Ordering::Relaxed), 0, "the body was read");
    }
}

#[tokio::test]
async fn pages_of_other_origins_may_ask() {
    let ask = async |method: &str, head: &[(&str, &str)]| {
        let request =
            http::Request::builder().method(method).uri("/listStreams").header("origin", "http://page.example");
        let request = head.iter().fold(request, |request, (name, value)| request.header(*name, *value));
        let response = crate::router(kvs()).oneshot(request.body(Body::empty()).expect("a request")).await;
        let response = response.expect("an answer");
        assert_eq!(response.headers()["access-control-allow-origin"], "*");
        response
    };
    let asked =
        [("access-control-request-method", "POST"), ("access-control-request-headers", "authorization,x-amz-date")];
    let preflight = ask("OPTIONS", &asked).await;
    assert_eq!(preflight.status(), 204);
    assert_eq!(preflight.headers()["access-control-allow-methods"], "POST");
    assert_eq!(preflight.headers()["access-control-allow-headers"], "*, Authorization");
    // Nothing else goes by unsigned, and why not may be read.
    for method in ["OPTIONS", "POST"] {
        let refused = ask(method, &asked[..0]).await;
        assert_eq!(refused.status(), 403, "{method}");
        let exposed = refused.headers()["access-control-expose-headers"].to_str().expect("text").to_lowercase();
        assert!(exposed.contains("x-amzn-errortype") && exposed.contains("x-amzn-requestid"), "{exposed}");
    }
}
