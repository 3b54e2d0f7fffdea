//! What the signer of AWS's own Rust SDK signs is let in, and not when a character of it was changed.

use std::time::{Duration, SystemTime};

use aws_credential_types::Credentials;
use aws_sigv4::http_request::{SignableBody, SignableRequest, SignatureLocation, SigningSettings, sign};
use aws_sigv4::sign::v4;
use http::HeaderValue;
use proptest::prelude::*;
use ring::digest::{SHA256, digest};
use vidar_aws_wire::sigv4::{AuthError, Body, Claim, Request, Rules};
use vidar_core::time::UnixMs;

const ID: &str = "VIDAR0123456789ABCDE";
const SECRET: &str = "secretSECRETsecretSECRETsecretSECRET0123";
const NOW_S: u64 = 1_795_655_400;

#[derive(Debug, Clone)]
struct Plan {
    method: &'static str,
    path: String,
    query: Vec<(String, String)>,
    headers: Vec<(&'static str, String)>,
    body: Vec<u8>,
    token: Option<String>,
    presigned: bool,
}

fn plan() -> impl Strategy<Value = Plan> {
    let word = "[a-zA-Z0-9_.~-]{0,12}";
    let headers = (word, "[a-zA-Z0-9]( {0,3}[a-zA-Z0-9/;=]){0,6}").prop_map(|(name, note)| {
        vec![("host", "127.0.0.1:8081".to_owned()), ("x-amzn-stream-name", name), ("x-amz-note", note)]
    });
    (
        prop_oneof![Just("POST"), Just("GET")],
        prop_oneof![Just("/putMedia".to_owned()), "/[a-zA-Z0-9_~-]{1,8}(/[a-zA-Z0-9_~-]{1,8}){0,2}"],
        prop::collection::vec(("[a-zA-Z]{1,6}", "[a-zA-Z0-9_.~-]{0,8}"), 0..4),
        headers,
        prop::collection::vec(any::<u8>(), 0..40),
        prop::option::of("[a-zA-Z0-9]{8,40}"),
        any::<bool>(),
    )
        .prop_map(|(method, path, query, headers, body, token, presigned)| Plan {
            method,
            path,
            query,
            headers,
            body,
            token,
            presigned,
        })
}

fn signed(plan: &Plan) -> http::Request<Vec<u8>> {
    let pairs: Vec<String> = plan.query.iter().map(|(name, value)| format!("{name}={value}")).collect();
    let query = if pairs.is_empty() { String::new() } else { format!("?{}", pairs.join("&")) };
    let uri = format!("http://127.0.0.1:8081{}{query}", plan.path);
    let mut settings = SigningSettings::default();
    if plan.presigned {
        settings.signature_location = SignatureLocation::QueryParams;
        settings.expires_in = Some(Duration::from_secs(600));
    }
    let identity = Credentials::new(ID, SECRET, plan.token.clone(), None, "test").into();
    let params = v4::SigningParams::builder()
        .identity(&identity)
        .region("us-west-2")
        .name("kinesisvideo")
        .time(SystemTime::UNIX_EPOCH + Duration::from_secs(NOW_S))
        .settings(settings)
        .build()
        .expect("parameters")
        .into();
    let headers = plan.headers.iter().map(|(name, value)| (*name, value.as_str()));
    let request = SignableRequest::new(plan.method, &uri, headers, SignableBody::Bytes(&plan.body)).expect("a request");
    let (instructions, _) = sign(request, &params).expect("signed").into_parts();
    let mut request = http::Request::builder().method(plan.method).uri(&uri);
    for (name, value) in &plan.headers {
        request = request.header(*name, value);
    }
    let mut request = request.body(plan.body.clone()).expect("a request");
    instructions.apply_to_request_http1x(&mut request);
    request
}

fn check(request: &http::Request<Vec<u8>>) -> Result<(), AuthError> {
    let target = request.uri().path_and_query().expect("a path").as_str();
    let head = Request { method: request.method().as_str(), target, headers: request.headers() };
    let claim = Claim::parse(&head)?;
    let body = Body::Whole(digest(&SHA256, request.body()).as_ref().try_into().expect("32 bytes"));
    if claim.access_key_id != ID {
        return Err(AuthError::UnknownKey);
    }
    claim.check(&head, &body, SECRET, &Rules::default(), UnixMs(NOW_S as i64 * 1000))
}

/// Another letter or digit, not the same in the other case, at the nth place that has one.
fn change(text: &str, nth: usize) -> Option<String> {
    let places: Vec<usize> =
        text.bytes().enumerate().filter(|(_, byte)| byte.is_ascii_alphanumeric()).map(|(index, _)| index).collect();
    let place = *places.get(nth % places.len().max(1))?;
    // What is escaped may be written with other digits for the same.
    let escaped = text[..place].bytes().rev().take(2).any(|byte| byte == b'%');
    let mut bytes = text.as_bytes().to_vec();
    bytes[place] = match bytes[place] {
        b'7' => b'4',
        _ => b'7',
    };
    (!escaped).then(|| String::from_utf8(bytes).expect("ASCII"))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn any_changed_byte_of_what_is_signed_is_found(plan in plan(), nth: usize) {
        let good = signed(&plan);
        prop_assert_eq!(check(&good), Ok(()), "{:?}", good);

        let target = good.uri().path_and_query().unwrap().as_str();
        if let Some(target) = change(target, nth) {
            let mut bad = good.clone();
            *bad.uri_mut() = target.parse().unwrap();
            prop_assert!(check(&bad).is_err(), "{:?}", bad);
        }
        for (name, value) in good.headers() {
            if let Some(value) = change(value.to_str().unwrap(), nth) {
                let mut bad = good.clone();
                bad.headers_mut().insert(name, HeaderValue::from_str(&value).unwrap());
                prop_assert!(check(&bad).is_err(), "{:?}", bad);
            }
        }
        let mut bad = good.clone();
        bad.body_mut().push(0);
        prop_assert!(check(&bad).is_err());
        let mut bad = good.clone();
        *bad.method_mut() = http::Method::PUT;
        prop_assert_eq!(check(&bad), Err(AuthError::Mismatch));
    }
}
