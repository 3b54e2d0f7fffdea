//! Requests as real clients sign them: `vectors/make.py` says how they were made.

use http::{HeaderMap, HeaderName, HeaderValue};
use ring::digest::{SHA256, digest};
use serde_json::Value;
use vidar_aws_wire::sigv4::{AuthError, Body, Claim, Request, Rules};
use vidar_core::time::UnixMs;

const ID: &str = "AKIDEXAMPLE";
const SECRET: &str = "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY";

/// One of the file.
struct Vector {
    name: String,
    method: String,
    target: String,
    headers: HeaderMap,
    body: Body,
    now: UnixMs,
    rules: Rules,
    token: Option<String>,
}

impl Vector {
    fn of(value: &Value) -> Self {
        let text = |name: &str| value[name].as_str().expect("a text").to_owned();
        let mut headers = HeaderMap::new();
        for header in value["headers"].as_array().expect("headers") {
            let name = header[0].as_str().expect("a name").to_ascii_lowercase();
            // Without the space around it: that is not part of a value (RFC 9112 section 5.1).
            let value = HeaderValue::from_str(header[1].as_str().expect("a value").trim()).expect("a header value");
            headers.append(HeaderName::from_bytes(name.as_bytes()).expect("a header name"), value);
        }
        let hash = |body: &str| digest(&SHA256, body.as_bytes()).as_ref().try_into().expect("32 bytes");
        Self {
            name: text("name"),
            method: text("method"),
            target: text("target"),
            headers,
            body: value["body"].as_str().map_or(Body::Stream, |body| Body::Whole(hash(body))),
            now: UnixMs(value["now_ms"].as_i64().expect("a time")),
            rules: Rules { service: text("service"), region: Some(text("region")), ..Rules::default() },
            token: value["token"].as_str().map(str::to_owned),
        }
    }

    fn request(&self) -> Request<'_> {
        Request { method: &self.method, target: &self.target, headers: &self.headers }
    }

    fn claim(&self) -> Claim {
        Claim::parse(&self.request()).unwrap_or_else(|error| panic!("{}: {error}", self.name))
    }

    fn check(&self) -> Result<(), AuthError> {
        self.check_at(self.now, &self.rules)
    }

    fn check_at(&self, now: UnixMs, rules: &Rules) -> Result<(), AuthError> {
        Claim::parse(&self.request())?.check(&self.request(), &self.body, SECRET, rules, now)
    }

    fn is_presigned(&self) -> bool {
        self.target.contains("X-Amz-Signature")
    }
}

fn vectors() -> Vec<Vector> {
    let values: Vec<Value> = serde_json::from_str(include_str!("vectors/sigv4.json")).expect("JSON");
    assert!(values.len() >= 20, "{}", values.len());
    values.iter().map(Vector::of).collect()
}

fn vector(name: &str) -> Vector {
    vectors().into_iter().find(|vector| vector.name == name).expect("a vector of that name")
}

#[test]
fn every_client_is_let_in() {
    for vector in vectors() {
        let claim = vector.claim();
        assert_eq!(claim.access_key_id, ID, "{}", vector.name);
        assert_eq!(claim.session_token, vector.token, "{}", vector.name);
        assert_eq!(vector.check(), Ok(()), "{}", vector.name);
        let other = claim.check(&vector.request(), &vector.body, &SECRET.to_lowercase(), &vector.rules, vector.now);
        assert_eq!(other, Err(AuthError::Mismatch), "{}", vector.name);
    }
}

#[test]
fn a_signature_covers_method_path_query_body_and_the_headers_it_names() {
    for mut vector in vectors() {
        let (name, is_whole) = (vector.name.clone(), vector.body != Body::Stream);
        let mut changed = |change: &mut dyn FnMut(&mut Vector)| {
            let (method, target, headers, body) =
                (vector.method.clone(), vector.target.clone(), vector.headers.clone(), vector.body);
            change(&mut vector);
            let outcome = vector.check();
            (vector.method, vector.target, vector.headers, vector.body) = (method, target, headers, body);
            outcome
        };
        assert_eq!(changed(&mut |v| v.method = "PUT".into()), Err(AuthError::Mismatch), "{name}");
        let longer_path = &mut |v: &mut Vector| {
            v.target =
                v.target.split_once('?').map_or(format!("{}x", v.target), |(path, query)| format!("{path}x?{query}"));
        };
        assert_eq!(changed(longer_path), Err(AuthError::Mismatch), "{name}");
        assert!(changed(&mut |v| v.target += if v.target.contains('?') { "&q" } else { "?q" }).is_err(), "{name}");
        let host = HeaderValue::from_static("elsewhere");
        let host = &mut |v: &mut Vector| drop(v.headers.insert("host", host.clone()));
        assert_eq!(changed(host), Err(AuthError::Mismatch), "{name}");
        assert!(changed(&mut |v| drop(v.headers.remove("host"))).is_err(), "{name}");
        if is_whole {
            assert!(changed(&mut |v| v.body = Body::Whole([1; 32])).is_err(), "{name}");
        }
        assert_eq!(changed(&mut |_| ()), Ok(()), "{name}: as it was");
    }
}

#[test]
fn what_a_client_did_not_sign_may_change() {
    let mut vector = vector("c-put-media");
    for name in ["content-type", "expect", "accept", "x-amz-security-token"] {
        vector.headers.insert(name, HeaderValue::from_static("another"));
        assert_eq!(vector.check(), Ok(()), "{name}");
    }
    for name in ["connection", "transfer-encoding", "user-agent", "x-amzn-stream-name"] {
        let before = vector.headers.insert(name, HeaderValue::from_static("another")).expect("it is there");
        assert_eq!(vector.check(), Err(AuthError::Mismatch), "{name}");
        vector.headers.insert(name, before);
    }
}

#[test]
fn clocks_may_differ_by_what_the_rules_say() {
    for vector in vectors() {
        let at = |ms| vector.check_at(vector.now.plus_ms(ms), &vector.rules);
        assert_eq!(at(-300_000), Ok(()), "{}", vector.name);
        assert!(matches!(at(-300_001), Err(AuthError::Skewed { .. })), "{}", vector.name);
        if !vector.is_presigned() {
            assert_eq!(at(300_000), Ok(()), "{}", vector.name);
            assert!(matches!(at(300_001), Err(AuthError::Skewed { .. })), "{}", vector.name);
            let patient = Rules { clock_tolerance_ms: 86_400_000, ..vector.rules.clone() };
            assert_eq!(vector.check_at(vector.now.plus_ms(86_400_000), &patient), Ok(()), "{}", vector.name);
        }
    }
    let (put, json) = (vector("go-put-media"), vector("presigned"));
    assert_eq!(put.check_at(put.now.plus_ms(599_999), &put.rules), Ok(()));
    assert_eq!(put.check_at(put.now.plus_ms(600_000), &put.rules), Err(AuthError::Expired));
    assert_eq!(json.check_at(json.now.plus_ms(60_000), &json.rules), Err(AuthError::Expired));
}

#[test]
fn the_scope_is_of_the_service_and_of_the_region_if_one_is_asked_for() {
    for vector in vectors() {
        let check = |rules: &Rules| vector.check_at(vector.now, rules);
        assert_eq!(check(&Rules { region: None, ..vector.rules.clone() }), Ok(()), "{}", vector.name);
        let elsewhere = Rules { region: Some("eu-west-9".into()), ..vector.rules.clone() };
        assert_eq!(check(&elsewhere), Err(AuthError::Scope { part: "region" }), "{}", vector.name);
        let other = Rules { service: "s3".into(), ..vector.rules.clone() };
        assert_eq!(check(&other), Err(AuthError::Scope { part: "service" }), "{}", vector.name);
    }
    let mut vector = vector("boto3");
    for date in ["2", "2026112", "202611260"] {
        let claim = format!(
            "AWS4-HMAC-SHA256 Credential=A/{date}/us-west-2/kinesisvideo/aws4_request, SignedHeaders=host, Signature={}",
            "0".repeat(64)
        );
        let mut vector = self::vector("boto3");
        vector.headers.insert("authorization", HeaderValue::from_str(&claim).expect("a header value"));
        assert_eq!(vector.check(), Err(AuthError::Scope { part: "date" }), "{date}");
    }
    vector.headers.insert("x-amz-date", HeaderValue::from_static("20261127T000000Z"));
    let now = vector.now.plus_ms(86_400_000);
    assert!(matches!(
        vector.check_at(now, &Rules { clock_tolerance_ms: 86_400_000, ..vector.rules.clone() }),
        Err(AuthError::Scope { part: "date" })
    ));
}

#[test]
fn a_hash_in_a_header_has_to_be_that_of_the_body() {
    let mut vector = vector("boto3");
    let hash = HeaderValue::from_static("e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    vector.headers.insert("x-amz-content-sha256", hash);
    assert_eq!(vector.check(), Err(AuthError::BodyMismatch));
}

#[test]
fn a_body_that_is_here_is_signed() {
    let mut vector = vector("unsigned-payload");
    assert_eq!(vector.check(), Ok(()), "of media");
    vector.body = Body::Whole(digest(&SHA256, b"{}").as_ref().try_into().expect("32 bytes"));
    assert_eq!(vector.check(), Err(AuthError::BodyMismatch));
}

#[test]
fn a_head_tells_all_but_the_hash_of_a_body_that_it_does_not_promise() {
    let head = |vector: &Vector, secret: &str| {
        let claim = vector.claim();
        claim.check_head(&vector.request(), secret, &vector.rules, vector.now)
    };
    let mut boto3 = vector("boto3");
    assert_eq!(head(&boto3, SECRET), Ok(None));
    assert_eq!(head(&boto3, "another"), Ok(None), "only the body tells");
    let hash = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    boto3.headers.insert("x-amz-content-sha256", HeaderValue::from_static(hash));
    assert_eq!(head(&boto3, SECRET), Err(AuthError::Mismatch), "it was signed for another");
    boto3.now = boto3.now.plus_ms(300_001);
    assert!(matches!(head(&boto3, SECRET), Err(AuthError::Skewed { .. })));
    assert_eq!(head(&vector("unsigned-payload"), SECRET), Err(AuthError::BodyMismatch), "no hash");
}

#[test]
fn what_does_not_read_is_refused_with_the_words_of_the_service() {
    let authorization = |text: &str| {
        let mut vector = vector("boto3");
        vector.headers.insert("authorization", HeaderValue::from_str(text).expect("a header value"));
        vector.check().expect_err("refused")
    };
    let credential = "Credential=A/20261126/us-west-2/kinesisvideo/aws4_request";
    let signature = format!("Signature={}", "0".repeat(64));
    for bad in [
        "Basic YTpi".to_owned(),
        "AWS4-HMAC-SHA256".to_owned(),
        format!("AWS4-HMAC-SHA256 {credential}, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=content-type, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=Host, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, SignedHeaders=host, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host;x-amz-date;host, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders=host, Signature=0"),
        format!("AWS4-HMAC-SHA256 Credential=A/B, SignedHeaders=host, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}x, SignedHeaders=host, {signature}"),
        format!("AWS4-HMAC-SHA256 {credential}, SignedHeaders={}host, {signature}", "a;".repeat(200)),
    ] {
        let error = authorization(&bad);
        assert_eq!((error.error_type(), error.status()), ("IncompleteSignature", 400), "{bad}: {error}");
    }
    let mut bare = vector("boto3");
    let signed = bare.headers.remove("authorization").expect("it is there");
    let error = bare.check().expect_err("refused");
    assert_eq!((error.error_type(), error.status()), ("MissingAuthenticationToken", 403));
    bare.headers.append("authorization", signed.clone());
    bare.headers.append("authorization", signed);
    assert_eq!(bare.check().expect_err("refused").error_type(), "IncompleteSignature");
    let mut both = vector("presigned");
    both.headers.insert("authorization", HeaderValue::from_static("AWS4-HMAC-SHA256 x"));
    assert_eq!(both.check().expect_err("refused").error_type(), "IncompleteSignature");
}
