//! The port of the compatible API: where it listens, and what its answers call it.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::{Context, bail};
use axum::Router;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use vidar_aws_wire::sigv4::Rules;
use vidar_ingest::Ingest;
use vidar_kvs_api::put_media::{self, Limits, PutMediaOptions, Strictness};
use vidar_kvs_api::{CallLimits, Kvs, KvsOptions, Seal};
use vidar_player_api::Api;
use vidar_player_api::image::ImagePool;

use crate::access_keys::sealed::Sealer;
use crate::authenticator::Credentials;
use crate::registry::Registry;
use crate::settings::{KvsLimits, KvsRule, KvsTls, Settings};
use crate::tls;

/// Region in ARNs if none is set: the one that C clients sign for unasked.
const REGION_DEFAULT: &str = "us-west-2";

/// Region in the names of streams.
pub(crate) fn region(settings: &Settings) -> String {
    settings.kvs_region.clone().unwrap_or_else(|| REGION_DEFAULT.to_owned())
}

/// A port that is bound.
pub(crate) struct KvsPort {
    pub(crate) listener: TcpListener,
    pub(crate) tls: Option<TlsAcceptor>,
    options: KvsOptions,
    put_media: PutMediaOptions,
    limits: KvsLimits,
}

impl KvsPort {
    /// Binds it, where the settings have one.
    pub(crate) async fn bind(settings: &Settings) -> anyhow::Result<Option<Self>> {
        let Some(address) = settings.kvs else { return Ok(None) };
        let listener = TcpListener::bind(address).await.with_context(|| format!("bind {address}"))?;
        let local = listener.local_addr()?;
        let configured = settings.kvs_public_url.as_deref();
        let public_url = public_url(configured, local, settings.kvs_tls != KvsTls::None)?;
        let tls = match &settings.kvs_tls {
            KvsTls::None => None,
            KvsTls::Files(files) => Some(tls::from_files(files)?),
            KvsTls::Own => Some(tls::own(&settings.data_dir, &tls::names(&public_url, local))?),
        };
        let options = KvsOptions {
            rules: Rules {
                region: settings.kvs_region.clone(),
                clock_tolerance_ms: i64::try_from(settings.kvs_clock_tolerance.as_millis()).unwrap_or(i64::MAX),
                ..Rules::default()
            },
            public_url,
            region: region(settings),
            account: settings.kvs_account.clone(),
            body_timeout: settings.header_timeout,
            clip_fragments_max: settings.kvs_clip_fragments,
            clip_bytes_max: settings.kvs_clip_bytes,
            image_targets: settings.image_targets.iter().map(|target| target.uri.clone()).collect(),
            topics: settings.topics.iter().map(|topic| topic.arn.clone()).collect(),
        };
        tracing::info!(kvs = %local, url = options.public_url, "the compatible API listens");
        Ok(Some(Self { listener, tls, options, put_media: put_media_options(settings), limits: settings.kvs_limits }))
    }

    /// What GetDataEndpoint answers.
    pub(crate) fn url(&self) -> &str {
        &self.options.public_url
    }

    /// What it serves.
    pub(crate) fn router(
        &self,
        registry: Arc<Registry>,
        keys: Arc<Credentials>,
        player: Arc<Api>,
        ingest: Arc<Ingest>,
        sessions: Sealer,
        stop: CancellationToken,
    ) -> Router {
        let (options, changes, clock) = (self.options.clone(), Mutex::default(), Arc::clone(&player.clock));
        let images = ImagePool::new(player.options.image_workers, player.options.image_timeout_ms);
        let sessions = Arc::new(SessionSeal(sessions));
        let limits = Arc::new(match self.limits {
            KvsLimits::Published => CallLimits::published(),
            KvsLimits::None => CallLimits::default(),
        });
        let kvs = Arc::new(Kvs { registry, keys, clock, player, images, sessions, stop, limits, options, changes });
        let put = put_media::router(Arc::clone(&kvs), ingest, self.put_media);
        vidar_kvs_api::router(kvs).merge(put)
    }
}

/// Seals the tokens of streaming sessions.
struct SessionSeal(Sealer);

impl Seal for SessionSeal {
    fn seal(&self, context: &[u8], plain: &[u8]) -> Option<Vec<u8>> {
        let sealed = self.0.seal(context, plain);
        sealed.inspect_err(|error| tracing::error!(%error, "no session can be opened")).ok()
    }

    fn open(&self, context: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        self.0.open(context, sealed).map(|plain| plain.to_vec())
    }
}

fn put_media_options(settings: &Settings) -> PutMediaOptions {
    let kept = |rule| settings.kvs_strict.contains(&rule);
    let strictness = Strictness {
        duration: kept(KvsRule::Duration),
        timecodes: kept(KvsRule::Timecodes),
        tracks: kept(KvsRule::Tracks),
        frames: kept(KvsRule::Frames),
        sizes: kept(KvsRule::Sizes),
        headers: kept(KvsRule::Headers),
        tags: kept(KvsRule::Tags),
    };
    let limits = match settings.kvs_limits {
        KvsLimits::Published => Limits::default(),
        KvsLimits::None => Limits::NONE,
    };
    PutMediaOptions { strictness, limits }
}

/// What clients are sent to. Not guessed: who listens for others is not called by its own address.
fn public_url(configured: Option<&str>, local: SocketAddr, tls: bool) -> anyhow::Result<String> {
    let Some(url) = configured else {
        if local.ip().is_loopback() {
            return Ok(format!("{}://{local}", if tls { "https" } else { "http" }));
        }
        bail!("kvs_public_url: needed where kvs is not a loopback address, as GetDataEndpoint hands it out");
    };
    // Without TLS here it may be that of a proxy in front.
    if tls && url.starts_with("http://") {
        bail!("kvs_public_url: expected https://, as kvs speaks TLS (--kvs-tls false: it does not)");
    }
    let host =
        url.strip_prefix("https://").or_else(|| url.strip_prefix("http://")).map(|rest| rest.trim_end_matches('/'));
    match host {
        // A path in front would have to be taken off, and is signed.
        Some(host) if !host.is_empty() && !host.contains(['/', '?', '#', '@']) => {
            Ok(url.trim_end_matches('/').to_owned())
        }
        _ => bail!("kvs_public_url: expected http:// or https://, a host, and perhaps a port"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_that_clients_are_sent_to() {
        let (loopback, all) = ("127.0.0.1:8081".parse().unwrap(), "0.0.0.0:8081".parse().unwrap());
        assert_eq!(public_url(None, loopback, false).unwrap(), "http://127.0.0.1:8081");
        assert_eq!(public_url(None, loopback, true).unwrap(), "https://127.0.0.1:8081");
        for tls in [false, true] {
            assert_eq!(public_url(Some("https://h:1/"), all, tls).unwrap(), "https://h:1");
            assert!(public_url(None, all, tls).is_err());
            assert_eq!(public_url(Some("http://h:1"), all, tls).is_err(), tls);
        }
        for bad in ["", "h", "https://", "ftp://h", "https://h/p", "https://u@h", "https://h?x"] {
            assert!(public_url(Some(bad), loopback, false).is_err(), "{bad}");
        }
    }
}
