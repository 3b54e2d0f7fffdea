//! RTSP push: a server for `ANNOUNCE` and `RECORD` (RFC 2326), with media interleaved or over UDP.
//!
//! ```text
//! TCP ─ message ─ connection ─ session ─┬─ source (reorder, loss, depacketize) ─┐
//!                                       └─ source                              ─┴─ media (one timeline) ─ outlet ─ Publish
//! UDP ──────────── udp ─────────────────┘
//! ```
//! What is tolerated, and why, is written down in `docs/design/rtsp.md`.

mod auth;
mod connection;
mod depacketize;
pub(crate) mod fuzz;
mod media;
mod message;
mod outgoing;
mod outlet;
mod publish;
mod reorder;
mod requests;
mod rtcp;
mod rtp;
mod sdp;
mod session;
mod source;
mod transport;
mod udp;
mod uri;

use std::sync::Arc;
use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::Instrument;
use vidar_core::auth::Authenticator;
use vidar_core::clock::SharedClock;

pub use publish::{Publish, PublishError, Publishers, Refusal};

use connection::Connection;

/// What the server needs, and its settings.
pub struct RtspOptions {
    /// Who may publish.
    pub auth: Arc<dyn Authenticator>,
    /// Where runs begin.
    pub publishers: Arc<dyn Publishers>,
    /// For times of arrival, and timeouts.
    pub clock: SharedClock,
    /// A client that is silent for longer is dropped.
    pub session_timeout: Duration,
    /// A message that began must have ended within this.
    pub message_timeout: Duration,
    /// A client that does not take its answers is dropped after this.
    pub write_timeout: Duration,
    /// Connections at a time.
    pub max_connections: usize,
    /// Offer Basic, to clients on this machine only: others would send the secret in clear.
    pub allow_basic: bool,
    /// How long the first events of a session may be held for sender reports.
    pub report_wait: Duration,
}

impl RtspOptions {
    /// The defaults: 60 s for sessions and answers, 10 s for messages, 1000 connections, no Basic, 3.5 s for reports
    /// (RFC 3550 section 6.2: the first is due within 3.1 s).
    #[must_use]
    pub fn new(auth: Arc<dyn Authenticator>, publishers: Arc<dyn Publishers>, clock: SharedClock) -> Self {
        Self {
            auth,
            publishers,
            clock,
            session_timeout: Duration::from_secs(60),
            message_timeout: Duration::from_secs(10),
            write_timeout: Duration::from_secs(60),
            max_connections: 1000,
            allow_basic: false,
            report_wait: Duration::from_millis(3500),
        }
    }
}

/// Serves connections until `stop`, then waits for those that are open to end their runs.
pub async fn serve(listener: TcpListener, options: RtspOptions, stop: CancellationToken) {
    let places = Arc::new(Semaphore::new(options.max_connections.min(Semaphore::MAX_PERMITS)));
    let options = Arc::new(options);
    let connections = TaskTracker::new();
    loop {
        let accepted = tokio::select! {
            biased;
            () = stop.cancelled() => break,
            accepted = listener.accept() => accepted,
        };
        let (stream, peer) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                // Out of file descriptors, mostly: existing connections must end first.
                tracing::warn!(%error, "connection not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
                continue;
            }
        };
        let span = tracing::info_span!("rtsp", %peer, stream = tracing::field::Empty);
        match Arc::clone(&places).try_acquire_owned() {
            Ok(place) => {
                let (options, stop) = (Arc::clone(&options), stop.clone());
                connections.spawn(handle(options, stream, peer, place, stop).instrument(span));
            }
            Err(_) => {
                tracing::warn!(parent: &span, "too many connections");
                connections.spawn(refuse(stream).instrument(span));
            }
        }
    }
    drop(listener);
    connections.close();
    connections.wait().await;
}

async fn handle(
    options: Arc<RtspOptions>,
    stream: TcpStream,
    peer: std::net::SocketAddr,
    _place: OwnedSemaphorePermit,
    stop: CancellationToken,
) {
    // Answers are small and awaited.
    let _ = stream.set_nodelay(true);
    match Connection::new(options, stream, peer) {
        Ok(connection) => connection.run(stop).await,
        Err(error) => tracing::info!(%error, "connection lost"),
    }
}

async fn refuse(mut stream: TcpStream) {
    let answer = b"RTSP/1.0 503 Service Unavailable: too many connections\r\n\r\n";
    let _ = tokio::time::timeout(Duration::from_secs(1), stream.write_all(answer)).await;
}
