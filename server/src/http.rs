//! The HTTP port: an accept loop on hyper's own builder.
//!
//! `axum::serve` has no header timeout and sets no TCP_NODELAY. And a push that is refused has to be ended in a way that
//! its sender notices: answer, stop reading, half-close, wait, close. (A body that is drained to its end tells ffmpeg
//! that all is well.)

use std::convert::Infallible;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use axum::Router;
use axum::body::{Body, HttpBody};
use axum::extract::ConnectInfo;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;
use tracing::Instrument;

use crate::stalled::CutIfStalled;

/// hyper's own default grows to 417,792 bytes a connection.
const READ_BUFFER_BYTES_MAX: usize = 64 << 10;
/// How long a refused sender has to notice.
const LINGER: Duration = Duration::from_secs(1);

/// Settings of the port.
#[derive(Debug, Clone, Copy)]
pub struct HttpOptions {
    /// Within which a request's head has to arrive.
    pub header_timeout: Duration,
    /// A connection whose peer takes none of what is written for so long is cut.
    pub write_timeout: Duration,
    /// Connections at the same time.
    pub connections_max: usize,
}

/// Accepts connections until `stop`, over TLS where there is an acceptor of it; those under way go on in `tracker`, and close when idle once `close` is cancelled.
pub async fn serve(
    listener: TcpListener,
    tls: Option<TlsAcceptor>,
    router: Router,
    options: HttpOptions,
    stop: CancellationToken,
    close: CancellationToken,
    tracker: TaskTracker,
) {
    let places = Arc::new(Semaphore::new(options.connections_max));
    loop {
        let place = tokio::select! {
            () = stop.cancelled() => return,
            place = Arc::clone(&places).acquire_owned() => place.expect("the semaphore is never closed"),
        };
        let (stream, peer) = tokio::select! {
            () = stop.cancelled() => return,
            accepted = listener.accept() => match accepted { // accept is cancel-safe
                Ok(accepted) => accepted,
                Err(error) => {
                    // Out of descriptors, most likely: others have to close first.
                    tracing::warn!(%error, "accept failed");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let connection = serve_connection(stream, peer, tls.clone(), router.clone(), options, close.clone());
        let span = tracing::info_span!("http", peer = %peer);
        tracker.spawn(async move { (connection.await, drop(place)) }.instrument(span));
    }
}

async fn serve_connection(
    stream: TcpStream,
    peer: SocketAddr,
    tls: Option<TlsAcceptor>,
    router: Router,
    options: HttpOptions,
    stop: CancellationToken,
) {
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "set TCP_NODELAY");
    }
    let stream = CutIfStalled::new(stream, options.write_timeout);
    let Some(tls) = tls else { return speak(stream, peer, router, options, stop).await };
    let shaken = tokio::select! {
        shaken = tokio::time::timeout(options.header_timeout, tls.accept(stream)) => shaken,
        () = stop.cancelled() => return,
    };
    match shaken {
        // Boxed: a connection without TLS is not to be as large.
        Ok(Ok(stream)) => Box::pin(speak(Box::new(stream), peer, router, options, stop)).await,
        Ok(Err(error)) => tracing::debug!(%error, "no TLS"),
        Err(_) => tracing::debug!("TLS took too long"),
    }
}

/// Requests and answers.
async fn speak<S: AsyncRead + AsyncWrite + Unpin + Send + 'static>(
    stream: S,
    peer: SocketAddr,
    router: Router,
    options: HttpOptions,
    stop: CancellationToken,
) {
    let refused = Arc::new(AtomicBool::new(false));
    let service = hyper::service::service_fn({
        let refused = Arc::clone(&refused);
        move |request: hyper::Request<Incoming>| Box::pin(answer(router.clone(), request, peer, Arc::clone(&refused)))
    });
    let mut connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(options.header_timeout)
        .max_buf_size(READ_BUFFER_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service);
    let mut stopping = false;
    let result = loop {
        tokio::select! {
            result = poll_fn(|cx| connection.poll_without_shutdown(cx)) => break result,
            () = stop.cancelled(), if !stopping => {
                stopping = true;
                std::pin::Pin::new(&mut connection).graceful_shutdown();
            }
        }
    };
    if let Err(error) = result {
        tracing::debug!(%error, "connection ended");
    }
    let mut stream = connection.into_parts().io.into_inner();
    // The peer may have closed already.
    let _ = stream.shutdown().await;
    if refused.load(Ordering::Acquire) {
        tokio::time::sleep(LINGER).await;
    }
}

async fn answer(
    router: Router,
    request: hyper::Request<Incoming>,
    peer: SocketAddr,
    refused: Arc<AtomicBool>,
) -> Result<hyper::Response<Body>, Infallible> {
    let has_body = !request.body().is_end_stream();
    let mut request = request.map(Body::new);
    request.extensions_mut().insert(ConnectInfo(peer));
    let method = request.method().clone();
    // The query is left out: it may carry a signed token.
    let path = without_token(request.uri().path()).to_owned();
    let response = router.oneshot(request).await?;
    let status = response.status();
    tracing::debug!(%method, path, status = status.as_u16(), "answered");
    if has_body && (status.is_client_error() || status.is_server_error()) {
        refused.store(true, Ordering::Release);
    }
    Ok(response)
}

/// A path as it may be logged: below `/dash/v1/` the token of a session stands in it.
fn without_token(path: &str) -> &str {
    const SESSIONS: &str = "/dash/v1/";
    if path.starts_with(SESSIONS) { SESSIONS } else { path }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_token_of_a_session_is_not_logged() {
        assert_eq!(without_token("/dash/v1/TOKEN/getMP4InitFragment.mp4"), "/dash/v1/");
        assert_eq!(without_token("/v1/streams/a"), "/v1/streams/a");
    }
}
