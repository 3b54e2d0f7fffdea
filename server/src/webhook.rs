//! Webhooks that stand for topics: each notification is posted as SNS would, and signed after the specification "Standard
//! Webhooks" (version 1, symmetric), so that a receiver knows where it comes from.

use std::path::Path;
use std::time::Duration;

use ::ring::hmac;
use ::ring::rand::{SecureRandom, SystemRandom};
use anyhow::Context;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use http::{Request, StatusCode, header};
use http_body_util::Full;
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use rustls::crypto::ring;
use rustls::{ClientConfig, RootCertStore};
use vidar_core::clock::SharedClock;
use vidar_kvs_api::delivery::{Notice, OutletError};
use zeroize::Zeroizing;

use crate::credentials::replace_private;
use crate::targets::Topic;

/// Name in the data directory.
const SECRET_NAME: &str = "notify-secret";
/// What a secret begins with, and what it may decode to.
const SECRET_PREFIX: &str = "whsec_";
const SECRET_BYTES: std::ops::RangeInclusive<usize> = 24..=64;
const SECRET_BYTES_MADE: usize = 32;

/// Within which a webhook has to answer.
const TIMEOUT: Duration = Duration::from_secs(10);
/// Within which it has to be reached.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// All webhooks.
pub(crate) struct Webhooks {
    topics: Vec<Topic>,
    /// None: there are no topics.
    caller: Option<Caller>,
    clock: SharedClock,
}

struct Caller {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    secret: hmac::Key,
}

impl Webhooks {
    /// # Errors
    /// If the secret does not read or cannot be made, or the system has no roots of trust.
    pub(crate) fn new(data_dir: &Path, topics: &[Topic], clock: SharedClock) -> anyhow::Result<Self> {
        let caller =
            || Ok::<_, anyhow::Error>(Caller { client: client(topics)?, secret: secret(&data_dir.join(SECRET_NAME))? });
        let caller = if topics.is_empty() { None } else { Some(caller()?) };
        Ok(Self { topics: topics.to_vec(), caller, clock })
    }

    /// Posts a notification to what its topic stands for. Redirects are not followed.
    ///
    /// # Errors
    /// `Again` if it was not reached or was busy; `Failing` if it failed; `Final` for any other answer than success.
    pub(crate) async fn post(&self, notice: &Notice) -> Result<(), OutletError> {
        let topic = self.topics.iter().find(|topic| topic.arn == notice.topic);
        let (Some(topic), Some(caller)) = (topic, &self.caller) else {
            return Err(OutletError::Final(format!("{}: no such topic", notice.topic)));
        };
        let request = request(topic, notice, &caller.secret, self.clock.now().0.div_euclid(1000));
        let request = request.map_err(|error| OutletError::Final(error.to_string()))?;
        let host = topic.url.authority().map(ToString::to_string).unwrap_or_default();
        let answer = match tokio::time::timeout(TIMEOUT, caller.client.request(request)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => {
                let error = anyhow::Error::from(error);
                return Err(OutletError::Again(format!("{host}: {error:#}")));
            }
            Err(_) => return Err(OutletError::Again(format!("{host}: no answer within {} s", TIMEOUT.as_secs()))),
        };
        let status = answer.status();
        match status {
            _ if status.is_success() => Ok(()),
            StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS => {
                Err(OutletError::Again(format!("{host}: {status}")))
            }
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
                Err(OutletError::Again(format!("{host}: {status}")))
            }
            _ if status.is_server_error() => Err(OutletError::Failing(format!("{host}: {status}"))),
            _ => Err(OutletError::Final(format!("{host}: {status}"))),
        }
    }
}

fn client(topics: &[Topic]) -> anyhow::Result<Client<HttpsConnector<HttpConnector>, Full<Bytes>>> {
    let mut tcp = HttpConnector::new();
    tcp.enforce_http(false);
    tcp.set_connect_timeout(Some(CONNECT_TIMEOUT));
    let (provider, builder) = (ring::default_provider(), HttpsConnectorBuilder::new());
    // A machine that is to call no https may trust nobody.
    let builder = match topics.iter().any(|topic| topic.url.scheme_str() == Some("https")) {
        true => builder.with_provider_and_native_roots(provider).context("certificates that this system trusts")?,
        false => {
            let config = ClientConfig::builder_with_provider(provider.into()).with_safe_default_protocol_versions()?;
            builder.with_tls_config(config.with_root_certificates(RootCertStore::empty()).with_no_client_auth())
        }
    };
    let connector = builder.https_or_http().enable_http1().wrap_connector(tcp);
    Ok(Client::builder(TokioExecutor::new()).build(connector))
}

fn request(topic: &Topic, notice: &Notice, secret: &hmac::Key, now_s: i64) -> http::Result<Request<Full<Bytes>>> {
    let mut signed = hmac::Context::with_key(secret);
    signed.update(format!("{}.{now_s}.", notice.id).as_bytes());
    signed.update(&notice.body);
    let signature = format!("v1,{}", STANDARD.encode(signed.sign()));
    Request::post(&topic.url)
        // As SNS says it.
        .header(header::CONTENT_TYPE, "text/plain; charset=UTF-8")
        .header(header::USER_AGENT, concat!("vidar/", env!("CARGO_PKG_VERSION")))
        .header("x-amz-sns-message-type", "Notification")
        .header("x-amz-sns-message-id", notice.id.to_string())
        .header("x-amz-sns-topic-arn", &topic.arn)
        .header("webhook-id", notice.id.to_string())
        .header("webhook-timestamp", now_s)
        .header("webhook-signature", signature)
        .body(Full::new(notice.body.clone()))
}

/// The secret of a file, which is made if it is not there.
fn secret(path: &Path) -> anyhow::Result<hmac::Key> {
    let text = match std::fs::read_to_string(path) {
        Ok(text) => Zeroizing::new(text),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let mut bytes = Zeroizing::new([0; SECRET_BYTES_MADE]);
            let random = SystemRandom::new();
            random.fill(&mut *bytes).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
            let text = Zeroizing::new(format!("{SECRET_PREFIX}{}\n", STANDARD.encode(*bytes)));
            replace_private(path, text.as_bytes())?;
            tracing::info!(file = %path.display(), "a secret was made that notifications are signed with");
            text
        }
        Err(error) => return Err(error).with_context(|| format!("read {}", path.display())),
    };
    let bytes = text.trim().strip_prefix(SECRET_PREFIX).and_then(|text| STANDARD.decode(text).ok()).map(Zeroizing::new);
    let bytes = bytes.filter(|bytes| SECRET_BYTES.contains(&bytes.len()));
    let wrong = || {
        let (least, most) = SECRET_BYTES.into_inner();
        format!("{}: expected {SECRET_PREFIX} and {least} to {most} bytes in base64", path.display())
    };
    Ok(hmac::Key::new(hmac::HMAC_SHA256, &bytes.with_context(wrong)?))
}
