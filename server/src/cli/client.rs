//! A client of the public API.

use std::io::{IsTerminal, Write};

use anyhow::{Context, bail};
use axum::body::Bytes;
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use clap::Args;
use http_body_util::{BodyExt, Full};
use hyper::body::{Body, Incoming};
use hyper::{Method, Request, Response, StatusCode, header};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use indicatif::{ProgressBar, ProgressStyle};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;

/// Longest JSON answer that is read.
const JSON_BYTES_MAX: usize = 64 << 20;

/// Which server, and as whom.
#[derive(Debug, Clone, Args)]
pub(crate) struct Endpoint {
    /// Base URL of the server.
    #[arg(long, env = "VIDAR_ENDPOINT", global = true, default_value = "http://127.0.0.1:8080")]
    pub(crate) endpoint: String,
    /// Access key id; with none the root pair of VIDAR_DATA_DIR is used.
    #[arg(long, env = "VIDAR_ACCESS_KEY_ID", global = true)]
    pub(crate) access_key_id: Option<String>,
    /// Its secret.
    #[arg(long, env = "VIDAR_SECRET_ACCESS_KEY", global = true, hide_env_values = true)]
    pub(crate) secret_access_key: Option<String>,
    /// Prints JSON, one object.
    #[arg(long, global = true)]
    pub(crate) json: bool,
}

/// A client with credentials.
pub(crate) struct Client {
    base: String,
    authorization: String,
    http: HttpClient<HttpConnector, Full<Bytes>>,
}

impl Client {
    pub(crate) fn new(endpoint: &Endpoint) -> anyhow::Result<Self> {
        let (id, secret) = match (&endpoint.access_key_id, &endpoint.secret_access_key) {
            (Some(id), Some(secret)) => (id.clone(), secret.clone()),
            (None, None) => root_pair()?,
            _ => bail!("VIDAR_ACCESS_KEY_ID and VIDAR_SECRET_ACCESS_KEY: set both or none"),
        };
        let authorization = format!("Basic {}", STANDARD.encode(format!("{id}:{secret}")));
        let http = HttpClient::builder(TokioExecutor::new()).build_http();
        Ok(Self { base: endpoint.endpoint.trim_end_matches('/').to_owned(), authorization, http })
    }

    async fn send(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Response<Incoming>> {
        let url = format!("{}{path}", self.base);
        let mut request =
            Request::builder().method(method).uri(&url).header(header::AUTHORIZATION, &self.authorization);
        let mut bytes = Bytes::new();
        if let Some(body) = body {
            request = request.header(header::CONTENT_TYPE, "application/json");
            bytes = body.to_string().into();
        }
        let request = request.body(Full::new(bytes)).with_context(|| format!("request {url}"))?;
        let response = self.http.request(request).await.with_context(|| format!("no answer from {}", self.base))?;
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status();
        Err(refused(status, &read_json(response).await.unwrap_or(Value::Null)))
    }

    /// A JSON answer; null if there is no body.
    pub(crate) async fn json(&self, method: Method, path: &str, body: Option<&Value>) -> anyhow::Result<Value> {
        read_json(self.send(method, path, body).await?).await
    }

    /// An answer with its body.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Response<Incoming>> {
        self.send(Method::GET, path, None).await
    }

    /// Writes an answer's body. Returns its length in bytes.
    pub(crate) async fn download(&self, path: &str, to: &mut dyn Write) -> anyhow::Result<u64> {
        write_body(self.get(path).await?, to).await
    }
}

/// Writes an answer's body, with a progress bar on a terminal. Returns its length in bytes.
pub(crate) async fn write_body<B>(mut response: Response<B>, to: &mut dyn Write) -> anyhow::Result<u64>
where
    B: Body<Data = Bytes> + Unpin,
    B::Error: std::error::Error + Send + Sync + 'static,
{
    let len = response.headers().get(header::CONTENT_LENGTH).and_then(|len| len.to_str().ok()?.parse().ok());
    let bar = progress(len, "{bytes} of {total_bytes} {wide_bar} {eta}");
    let mut len = 0;
    while let Some(frame) = response.body_mut().frame().await {
        if let Ok(data) = frame.context("the transfer broke off")?.into_data() {
            to.write_all(&data).context("write the clip")?;
            len += data.len() as u64;
            bar.set_position(len);
        }
    }
    to.flush().context("write the clip")?;
    bar.finish_and_clear();
    Ok(len)
}

async fn read_json(response: Response<Incoming>) -> anyhow::Result<Value> {
    json_of(response.into_body()).await
}

/// A JSON body; null if it is empty.
pub(crate) async fn json_of<B>(body: B) -> anyhow::Result<Value>
where
    B: Body<Data = Bytes>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let body = http_body_util::Limited::new(body, JSON_BYTES_MAX).collect().await;
    let bytes = body.map_err(|error| anyhow::anyhow!("read the answer: {error}"))?.to_bytes();
    if bytes.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_slice(&bytes).context("the answer is no JSON")
}

/// What an answer says went wrong.
pub(crate) fn refused(status: StatusCode, problem: &Value) -> anyhow::Error {
    let detail = problem["detail"].as_str().unwrap_or(status.canonical_reason().unwrap_or("error"));
    anyhow::anyhow!("{} ({detail})", status.as_u16())
}

fn root_pair() -> anyhow::Result<(String, String)> {
    let Some(data_dir) = std::env::var_os("VIDAR_DATA_DIR") else {
        bail!("set VIDAR_ACCESS_KEY_ID and VIDAR_SECRET_ACCESS_KEY, or VIDAR_DATA_DIR on the server's own machine");
    };
    let path = std::path::Path::new(&data_dir).join(crate::credentials::FILE_NAME);
    let pair = crate::credentials::RootPair::read(&path)?;
    Ok((pair.access_key_id, pair.secret.to_string()))
}

/// A bar on standard error; hidden where that is no terminal.
pub(crate) fn progress(len: Option<u64>, template: &str) -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let style = ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar());
    len.map_or_else(ProgressBar::new_spinner, ProgressBar::new).with_style(style)
}

/// A path segment or query value.
pub(crate) fn encode(text: &str) -> String {
    utf8_percent_encode(text, NON_ALPHANUMERIC).to_string()
}

/// `?a=b&c=d` of the values that are there.
pub(crate) fn query(pairs: &[(&str, Option<String>)]) -> String {
    let pairs = pairs.iter().filter_map(|(name, value)| Some(format!("{name}={}", encode(value.as_deref()?))));
    let text = pairs.collect::<Vec<_>>().join("&");
    if text.is_empty() { text } else { format!("?{text}") }
}
