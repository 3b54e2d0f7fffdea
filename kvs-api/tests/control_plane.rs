//! The control plane over a registry in memory, asked by the signer of AWS's Rust SDK.

mod support;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex as Lock};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SigningSettings, sign};
use aws_sigv4::sign::v4;
use axum::Router;
use axum::body::Body;
use http_body_util::BodyExt;
use serde_json::{Value, json};
use tower::ServiceExt;
use vidar_aws_wire::sigv4::Rules;
use vidar_core::auth::Principal;
use vidar_core::clock::ManualClock;
use vidar_core::control::{StreamRecord, StreamSettings};
use vidar_core::ids::{StreamId, StreamName};
use vidar_core::policy::{Action, Preset, Target};
use vidar_core::registry::{RegistryError, StreamRegistry};
use vidar_core::time::UnixMs;
use vidar_kvs_api::{Keys, Kvs, KvsOptions, Refusal, Seal, router};
use vidar_player_api::image::ImagePool;
use zeroize::Zeroizing;

const NOW_S: u64 = 1_795_655_400;
const SECRET: &str = "secret";
const PUBLIC_URL: &str = "https://vidar.example:8443/kvs";

#[derive(Default)]
struct MemoryRegistry(Lock<BTreeMap<StreamName, Arc<StreamRecord>>>);

#[async_trait]
impl StreamRegistry for MemoryRegistry {
    fn get(&self, name: &StreamName) -> Option<Arc<StreamRecord>> {
        self.0.lock().unwrap().get(name).cloned()
    }

    fn list(&self) -> Vec<Arc<StreamRecord>> {
        self.0.lock().unwrap().values().cloned().collect()
    }

    async fn ensure(&self, name: &StreamName) -> Result<Arc<StreamRecord>, RegistryError> {
        self.get(name).ok_or_else(|| RegistryError::NotFound { name: name.clone() })
    }

    async fn create(&self, name: &StreamName, new: Option<StreamSettings>) -> Result<Arc<StreamRecord>, RegistryError> {
        if self.get(name).is_some() {
            return Err(RegistryError::Exists { name: name.clone() });
        }
        let settings = new.unwrap_or_else(|| self.default_settings(name));
        let (stream, created) = (StreamId::new(), UnixMs(NOW_S as i64 * 1000 + 61));
        let record = Arc::new(StreamRecord { stream, name: name.clone(), created, settings });
        self.0.lock().unwrap().insert(name.clone(), Arc::clone(&record));
        Ok(record)
    }

    async fn change(&self, name: &StreamName, settings: StreamSettings) -> Result<Arc<StreamRecord>, RegistryError> {
        let record = StreamRecord { settings, ..StreamRecord::clone(&*self.ensure(name).await?) };
        self.0.lock().unwrap().insert(name.clone(), Arc::new(record.clone()));
        Ok(Arc::new(record))
    }

    async fn delete(&self, name: &StreamName) -> Result<(), RegistryError> {
        let gone = self.0.lock().unwrap().remove(name);
        gone.map(drop).ok_or_else(|| RegistryError::NotFound { name: name.clone() })
    }

    fn default_settings(&self, name: &StreamName) -> StreamSettings {
        StreamSettings { device: name.to_string(), retention_hours: 168, retention_bytes: None, tags: Vec::new() }
    }
}

/// `root` may everything, `camera` may write `cam-*`, `reader` may read `cam-*`.
struct TestKeys;

impl Keys for TestKeys {
    fn secret(&self, id: &str, token: Option<&str>) -> Result<(Principal, Zeroizing<String>), Refusal> {
        let bound = |preset: Preset| Principal::root(id).bound(Arc::new(preset.policy(vec!["cam-*".to_owned()])));
        let principal = match (id, token) {
            (_, Some("expired")) => return Err(Refusal::Expired),
            ("root", None) => Principal::root(id),
            ("camera", None) => bound(Preset::Write),
            ("reader", None) => bound(Preset::Read),
            _ => return Err(Refusal::Unknown),
        };
        Ok((principal, SECRET.to_owned().into()))
    }

    fn may_still(&self, who: &Principal, action: Action, target: Target<'_>) -> bool {
        who.may(action, target)
    }

    fn note_use(&self, _principal: &Principal) {}
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

/// The folder goes with it.
struct Service(Router, #[allow(dead_code)] tempfile::TempDir);

struct Answer {
    status: u16,
    error_type: String,
    request_id: String,
    body: Value,
}

impl Service {
    fn new() -> Self {
        let options = KvsOptions {
            rules: Rules::default(),
            public_url: PUBLIC_URL.to_owned(),
            region: "us-west-2".to_owned(),
            account: "123456789012".to_owned(),
            body_timeout: Duration::from_secs(10),
            clip_fragments_max: None,
            clip_bytes_max: None,
            image_targets: Vec::new(),
            topics: Vec::new(),
        };
        let clock = ManualClock::new(UnixMs(NOW_S as i64 * 1000));
        let registry = Arc::new(MemoryRegistry::default());
        let dir = tempfile::tempdir().expect("a folder");
        let player = support::player(dir.path(), Arc::clone(&registry) as _, Arc::clone(&clock) as _);
        let kvs = Kvs {
            registry,
            keys: Arc::new(TestKeys),
            clock,
            player,
            images: ImagePool::new(1, 1),
            stop: Default::default(),
            sessions: Arc::new(NoSessions),
            options,
            changes: Default::default(),
            limits: Default::default(),
        };
        Self(router(Arc::new(kvs)), dir)
    }

    async fn send(&self, request: http::Request<Vec<u8>>) -> Answer {
        let response = self.0.clone().oneshot(request.map(Body::from)).await.expect("an answer");
        let text = |name: &str| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (error_type, request_id) = (text("x-amzn-errortype"), text("x-amzn-requestid"));
        let status = response.status().as_u16();
        let bytes = response.into_body().collect().await.expect("a body").to_bytes();
        Answer { status, error_type, request_id, body: serde_json::from_slice(&bytes).expect("JSON") }
    }

    async fn ask_as(&self, key: &str, secret: &str, path: &str, body: &Value) -> Answer {
        self.send(signed(key, secret, None, path, body.to_string().as_bytes())).await
    }

    async fn ask(&self, path: &str, body: Value) -> Answer {
        self.ask_as("root", SECRET, path, &body).await
    }

    async fn good(&self, path: &str, body: Value) -> Value {
        let answer = self.ask(path, body.clone()).await;
        assert_eq!(answer.status, 200, "{path} {body}: {}", answer.body);
        answer.body
    }

    /// The status and the type.
    async fn bad(&self, path: &str, body: Value) -> (u16, String) {
        let answer = self.ask(path, body).await;
        assert_eq!(answer.body["__type"], answer.error_type.as_str());
        assert!(answer.body["Message"].as_str().is_some_and(|message| !message.is_empty()), "{}", answer.body);
        (answer.status, answer.error_type)
    }

    async fn version(&self, name: &str) -> String {
        self.good("/describeStream", json!({"StreamName": name})).await["StreamInfo"]["Version"]
            .as_str()
            .unwrap()
            .into()
    }
}

fn signed(key: &str, secret: &str, token: Option<&str>, path: &str, body: &[u8]) -> http::Request<Vec<u8>> {
    let uri = format!("http://127.0.0.1:8081{path}");
    let identity = Credentials::new(key, secret, token.map(str::to_owned), None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-west-2")
        .name("kinesisvideo")
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S))
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

fn error(status: u16, name: &str) -> (u16, String) {
    (status, name.to_owned())
}

#[tokio::test]
async fn a_stream_is_created_described_changed_and_deleted() {
    let service = Service::new();
    let new = json!({"StreamName": "cam-1", "DataRetentionInHours": 24, "MediaType": "video/h264", "DeviceName": "",
        "Tags": {"site": "north"}, "StreamStorageConfiguration": {"DefaultStorageTier": "WARM"}, "Unknown": [1]});
    let arn = service.good("/createStream", new.clone()).await["StreamARN"].as_str().unwrap().to_owned();
    assert_eq!(arn, "arn:aws:kinesisvideo:us-west-2:123456789012:stream/cam-1/1795655400061");
    assert_eq!(service.bad("/createStream", new).await, error(400, "ResourceInUseException"));

    let by_name = service.good("/describeStream", json!({"StreamName": "cam-1"})).await;
    assert_eq!(by_name, service.good("/describeStream", json!({"StreamARN": arn, "StreamName": "cam-1"})).await);
    let info = &by_name["StreamInfo"];
    for (member, value) in [
        ("StreamName", json!("cam-1")),
        ("DeviceName", json!("cam-1")),
        ("StreamARN", json!(arn)),
        ("MediaType", json!("video/h264")),
        ("KmsKeyId", json!("arn:aws:kms:us-west-2:123456789012:alias/aws/kinesisvideo")),
        ("Status", json!("ACTIVE")),
        ("CreationTime", json!(1_795_655_400.061)),
        ("DataRetentionInHours", json!(24)),
    ] {
        assert_eq!(info[member], value, "{member}");
    }
    let first = service.version("cam-1").await;
    assert!(first.len() == 20 && first.bytes().all(|byte| byte.is_ascii_alphanumeric()), "{first}");

    let update = |version: &str| json!({"StreamName": "cam-1", "CurrentVersion": version, "MediaType": "video/h265"});
    assert_eq!(service.good("/updateStream", update(&first)).await, json!({}));
    assert_eq!(service.bad("/updateStream", update(&first)).await, error(400, "VersionMismatchException"));
    let second = service.version("cam-1").await;
    assert_eq!(service.good("/updateStream", update(&second)).await, json!({}));
    assert_ne!(service.version("cam-1").await, second, "a change to the same is one");

    let delete = json!({"StreamARN": arn, "CurrentVersion": first});
    assert_eq!(service.bad("/deleteStream", delete).await, error(400, "VersionMismatchException"));
    let old = arn.replace("1795655400061", "1795655400060");
    assert_eq!(service.bad("/deleteStream", json!({"StreamARN": old})).await, error(404, "ResourceNotFoundException"));
    assert_eq!(service.good("/deleteStream", json!({"StreamARN": arn})).await, json!({}));
    assert_eq!(
        service.bad("/describeStream", json!({"StreamName": "cam-1"})).await,
        error(404, "ResourceNotFoundException")
    );
}

#[tokio::test]
async fn retention_goes_up_and_down_within_its_bounds() {
    let service = Service::new();
    service.good("/createStream", json!({"StreamName": "a", "DataRetentionInHours": 2})).await;
    for (operation, by, outcome) in [
        ("INCREASE_DATA_RETENTION", 87_598, Some(87_600)),
        ("INCREASE_DATA_RETENTION", 1, None),
        ("DECREASE_DATA_RETENTION", 87_599, Some(1)),
        ("DECREASE_DATA_RETENTION", 2, None),
        ("DECREASE_DATA_RETENTION", 1, Some(0)),
        ("DECREASE_DATA_RETENTION", 1, None),
        ("DECREASE_DATA_RETENTION", 0, None),
        ("RESET", 1, None),
    ] {
        let version = service.version("a").await;
        let body = json!({"StreamName": "a", "CurrentVersion": version, "Operation": operation,
            "DataRetentionChangeInHours": by});
        match outcome {
            Some(_) => drop(service.good("/updateDataRetention", body).await),
            None => assert_eq!(service.bad("/updateDataRetention", body).await, error(400, "InvalidArgumentException")),
        }
        if let Some(hours) = outcome {
            let info = service.good("/describeStream", json!({"StreamName": "a"})).await;
            assert_eq!(info["StreamInfo"]["DataRetentionInHours"], hours, "{operation} {by}");
        }
    }
    for hours in [json!(-1), json!(87_601), json!(4_294_967_297_u64), json!(1.5), json!("1")] {
        let body = json!({"StreamName": "b", "DataRetentionInHours": hours});
        assert_eq!(service.bad("/createStream", body).await, error(400, "InvalidArgumentException"));
    }
    for (name, hours) in [("b", json!(0)), ("c", json!(null))] {
        service.good("/createStream", json!({"StreamName": name, "DataRetentionInHours": hours})).await;
        let info = service.good("/describeStream", json!({"StreamName": name})).await;
        assert_eq!(info["StreamInfo"]["DataRetentionInHours"], 0, "as the service has it");
    }
}

#[tokio::test]
async fn lists_have_pages_and_conditions() {
    let service = Service::new();
    for name in ["b-1", "a-1", "a-2", "a-3"] {
        service.good("/createStream", json!({"StreamName": name, "DataRetentionInHours": 1})).await;
    }
    let (mut token, mut pages) = (Value::Null, Vec::new());
    let condition = json!({"ComparisonOperator": "BEGINS_WITH", "ComparisonValue": "a-"});
    loop {
        let body = json!({"MaxResults": 2, "NextToken": token, "StreamNameCondition": condition});
        let page = service.good("/listStreams", body).await;
        let names = page["StreamInfoList"].as_array().unwrap().iter().map(|info| info["StreamName"].clone());
        pages.push(names.collect::<Vec<_>>());
        token = page["NextToken"].clone();
        if token.is_null() {
            break;
        }
    }
    assert_eq!(json!(pages), json!([["a-1", "a-2"], ["a-3"]]));
    for body in [json!({"MaxResults": 0}), json!({"MaxResults": 10_001}), json!({"NextToken": "?"})] {
        assert_eq!(service.bad("/listStreams", body).await, error(400, "InvalidArgumentException"));
    }
    let all = service.send(signed("root", SECRET, None, "/listStreams", b"")).await;
    assert_eq!(all.body["StreamInfoList"].as_array().map(Vec::len), Some(4), "no body is an empty object");
}

#[tokio::test]
async fn tags_in_both_dialects_are_the_same_tags() {
    let service = Service::new();
    let made =
        service.good("/createStream", json!({"StreamName": "a", "DataRetentionInHours": 1, "KmsKeyId": "k"})).await;
    let arn = &made["StreamARN"];
    service.good("/tagStream", json!({"StreamName": "a", "Tags": {"x": "1", "y": "2"}})).await;
    service
        .good(
            "/TagResource",
            json!({"ResourceARN": arn, "Tags": [{"Key": "y", "Value": "3"}, {"Key": "z", "Value": ""}]}),
        )
        .await;
    service.good("/untagStream", json!({"StreamARN": arn, "TagKeyList": ["x", "none"]})).await;
    let expected = json!({"y": "3", "z": ""});
    assert_eq!(service.good("/listTagsForStream", json!({"StreamName": "a"})).await["Tags"], expected);
    service.good("/UntagResource", json!({"ResourceARN": arn, "TagKeyList": ["z"]})).await;
    assert_eq!(service.good("/ListTagsForResource", json!({"ResourceARN": arn})).await["Tags"], json!({"y": "3"}));

    let many: BTreeMap<String, &str> = (0..50).map(|index| (format!("t{index}"), "")).collect();
    let body = json!({"StreamName": "a", "Tags": many});
    assert_eq!(service.bad("/tagStream", body).await, error(400, "TagsPerResourceExceededLimitException"));
    // Before any is looked at: one of them is none.
    let mut tags: BTreeMap<String, &str> = (0..50).map(|index| (format!("t{index}"), "")).collect();
    tags.insert("<".to_owned(), "");
    let body = json!({"StreamName": "b", "Tags": tags});
    assert_eq!(service.bad("/createStream", body).await, error(400, "TagsPerResourceExceededLimitException"));
    for body in [
        json!({"StreamName": "a", "Tags": {}}),
        json!({"StreamName": "a"}),
        json!({"StreamName": "a", "Tags": {"aws:x": "1"}}),
        json!({"StreamName": "a", "Tags": {"": "1"}}),
        json!({"StreamName": "a", "Tags": {"x": "y".repeat(257)}}),
        json!({"StreamName": "a", "Tags": {"x": "<"}}),
    ] {
        assert_eq!(service.bad("/tagStream", body.clone()).await, error(400, "InvalidArgumentException"), "{body}");
    }
    let body = json!({"StreamName": "a", "TagKeyList": ["aws:kinesisvideo:KmsKeyId"]});
    assert_eq!(service.bad("/untagStream", body).await, error(400, "InvalidArgumentException"));
    assert_eq!(
        service.bad("/TagResource", json!({"StreamName": "a", "Tags": []})).await,
        error(400, "InvalidArgumentException")
    );
}

#[tokio::test]
async fn the_storage_tier_is_kept() {
    let service = Service::new();
    let made = service.good("/createStream", json!({"StreamName": "a", "DataRetentionInHours": 1})).await;
    let tier = async || {
        let shown = service.good("/describeStreamStorageConfiguration", json!({"StreamName": "a"})).await;
        assert_eq!((&shown["StreamName"], &shown["StreamARN"]), (&json!("a"), &made["StreamARN"]));
        shown["StreamStorageConfiguration"]["DefaultStorageTier"].as_str().unwrap().to_owned()
    };
    assert_eq!(tier().await, "HOT");
    let version = service.version("a").await;
    let update = |tier: &str| json!({"StreamName": "a", "CurrentVersion": version, "StreamStorageConfiguration": {"DefaultStorageTier": tier}});
    let path = "/updateStreamStorageConfiguration";
    assert_eq!(service.bad(path, update("COLD")).await, error(400, "InvalidArgumentException"));
    service.good(path, update("WARM")).await;
    assert_eq!(tier().await, "WARM");
    assert_eq!(service.bad(path, update("HOT")).await, error(400, "VersionMismatchException"));
}

#[tokio::test]
async fn what_is_not_here_is_said_as_the_service_says_it() {
    let service = Service::new();
    service.good("/createStream", json!({"StreamName": "a", "DataRetentionInHours": 1})).await;
    let named = json!({"StreamName": "a"});
    for (path, member) in [
        ("/describeImageGenerationConfiguration", "ImageGenerationConfiguration"),
        ("/describeNotificationConfiguration", "NotificationConfiguration"),
    ] {
        assert!(service.good(path, named.clone()).await[member].is_null());
        let update = path.replace("describe", "update");
        service.good(&update, named.clone()).await;
        let making = json!({"StreamName": "a", member: {"Status": "ENABLED"}});
        assert_eq!(service.bad(&update, making).await, error(400, "InvalidArgumentException"));
        assert_eq!(service.bad(path, json!({"StreamName": "b"})).await, error(404, "ResourceNotFoundException"));
    }
    for path in ["/describeEdgeConfiguration", "/deleteEdgeConfiguration"] {
        let expected = error(404, "StreamEdgeConfigurationNotFoundException");
        assert_eq!(service.bad(path, named.clone()).await, expected);
    }
    for (path, member) in [
        ("/listSignalingChannels", "ChannelInfoList"),
        ("/listEdgeAgentConfigurations", "EdgeConfigs"),
        ("/describeMappedResourceConfiguration", "MappedResourceConfigurationList"),
    ] {
        assert_eq!(service.good(path, named.clone()).await[member], json!([]));
    }
    let channel = json!({"ChannelName": "c"});
    assert_eq!(
        service.bad("/describeSignalingChannel", channel.clone()).await,
        error(404, "ResourceNotFoundException")
    );
    let refused = service.bad("/createSignalingChannel", channel).await;
    assert_eq!(refused, error(400, "AccountChannelLimitExceededException"));
}

#[tokio::test]
async fn the_endpoint_is_the_one_that_was_configured() {
    let service = Service::new();
    service.good("/createStream", json!({"StreamName": "a", "DataRetentionInHours": 1})).await;
    for api in ["PUT_MEDIA", "GET_MEDIA", "LIST_FRAGMENTS", "GET_HLS_STREAMING_SESSION_URL", "GET_CLIP", "GET_IMAGES"] {
        let answer = service.good("/getDataEndpoint", json!({"StreamName": "a", "APIName": api})).await;
        assert_eq!(answer, json!({"DataEndpoint": PUBLIC_URL}), "{api}");
    }
    for (body, expected) in [
        (json!({"StreamName": "a"}), error(400, "InvalidArgumentException")),
        (json!({"StreamName": "a", "APIName": "X"}), error(400, "InvalidArgumentException")),
        (json!({"APIName": "GET_MEDIA"}), error(400, "InvalidArgumentException")),
        (json!({"StreamName": "b", "APIName": "GET_MEDIA"}), error(404, "ResourceNotFoundException")),
    ] {
        assert_eq!(service.bad("/getDataEndpoint", body).await, expected);
    }
}

#[tokio::test]
async fn who_did_not_sign_or_may_not_hears_it_in_the_words_of_the_service() {
    let service = Service::new();
    service.good("/createStream", json!({"StreamName": "cam-1", "DataRetentionInHours": 1})).await;
    let named = json!({"StreamName": "cam-1"});
    let outcome = |answer: Answer| {
        assert_eq!(answer.request_id.len(), 36);
        (answer.status, answer.error_type)
    };
    let ask = async |key: &str, secret: &str, path: &str, body: &Value| {
        outcome(service.ask_as(key, secret, path, body).await)
    };
    assert_eq!(ask("root", "wrong", "/describeStream", &named).await, error(403, "InvalidSignatureException"));
    assert_eq!(ask("nobody", SECRET, "/describeStream", &named).await, error(403, "InvalidClientTokenId"));
    let bare = http::Request::post("/describeStream").body(Vec::new()).unwrap();
    assert_eq!(outcome(service.send(bare).await), error(403, "MissingAuthenticationToken"));
    let expired = signed("root", SECRET, Some("expired"), "/describeStream", b"{}");
    assert_eq!(outcome(service.send(expired).await), error(403, "ExpiredTokenException"));
    let mut changed = signed("root", SECRET, None, "/describeStream", b"{}");
    *changed.body_mut() = named.to_string().into_bytes();
    assert_eq!(outcome(service.send(changed).await), error(403, "InvalidSignatureException"));
    assert_eq!(
        outcome(service.send(signed("root", SECRET, None, "/describeStream", b"{")).await),
        error(400, "SerializationException")
    );

    let denied = service.ask_as("reader", SECRET, "/describeStream", &json!({"StreamName": "yard"})).await;
    let words = "User: reader is not authorized to perform: kinesisvideo:DescribeStream on resource: yard";
    assert_eq!((denied.status, denied.body["Message"].as_str()), (403, Some(words)));
    let endpoint = |api: &str| json!({"StreamName": "cam-1", "APIName": api});
    let new = json!({"StreamName": "cam-2", "DataRetentionInHours": 1});
    for (key, path, body, status) in [
        ("camera", "/describeStream", named.clone(), 200),
        ("camera", "/createStream", new, 200),
        ("camera", "/tagStream", json!({"StreamName": "cam-2", "Tags": {"a": "b"}}), 200),
        ("camera", "/getDataEndpoint", endpoint("PUT_MEDIA"), 200),
        ("camera", "/getDataEndpoint", endpoint("GET_MEDIA"), 403),
        ("camera", "/createStream", json!({"StreamName": "yard", "DataRetentionInHours": 1}), 403),
        ("reader", "/createStream", json!({"StreamName": "cam-3", "DataRetentionInHours": 1}), 403),
        ("reader", "/tagStream", json!({"StreamName": "cam-1", "Tags": {"a": "b"}}), 403),
        ("reader", "/getDataEndpoint", endpoint("GET_MEDIA"), 200),
        ("reader", "/updateStream", json!({"StreamName": "cam-1", "CurrentVersion": "x"}), 403),
    ] {
        assert_eq!(ask(key, SECRET, path, &body).await.0, status, "{key} {path} {body}");
    }
}

#[tokio::test]
async fn a_path_in_the_wrong_case_is_no_operation() {
    let service = Service::new();
    let answer = service.ask("/DescribeStream", json!({})).await;
    assert_eq!(answer.status, 404);
    assert_eq!(answer.body["Output"]["__type"], "com.amazon.coral.service#UnknownOperationException");
}
