//! A connection that is cut when its peer has stopped reading.
//!
//! hyper waits for a reader for as long as that takes: one that asks for a clip and then sleeps would hold its place, and
//! what was read for it, for ever. Time counts only while there is something to write that the kernel does not take, so
//! whoever waits for news may wait.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio::time::{Instant, Sleep, sleep};

/// The kernel takes no more than nine hours.
const ASK_FIRST_MAX: Duration = Duration::from_secs(3600);
/// Between questions to a peer that may have vanished.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// A connection, and how long it is held for a reader that takes nothing.
pub(crate) struct CutIfStalled {
    stream: TcpStream,
    patience: Duration,
    timer: Pin<Box<Sleep>>,
    /// The timer runs.
    stalled: bool,
}

impl CutIfStalled {
    pub(crate) fn new(stream: TcpStream, patience: Duration) -> Self {
        if let Err(error) = watch_peer(&stream, patience) {
            tracing::debug!(%error, "watch for a peer that vanishes");
        }
        Self { stream, patience, timer: Box::pin(sleep(patience)), stalled: false }
    }

    fn watch(&mut self, context: &mut Context<'_>, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if written.is_ready() {
            self.stalled = false;
            return written;
        }
        if !self.stalled {
            self.stalled = true;
            self.timer.as_mut().reset(Instant::now() + self.patience);
        }
        self.timer.as_mut().poll(context).map(|()| {
            // What it did not take is not kept for it by the kernel either.
            let _ = self.stream.set_zero_linger();
            Err(io::Error::new(io::ErrorKind::TimedOut, "the peer does not read"))
        })
    }
}

/// Has the kernel give up a peer that vanished: one that acknowledges nothing of what was sent, or that is asked from
/// time to time because there is nothing to send.
fn watch_peer(stream: &TcpStream, patience: Duration) -> io::Result<()> {
    sockopt::set_tcp_user_timeout(stream, u32::try_from(patience.as_millis()).unwrap_or(u32::MAX))?;
    sockopt::set_tcp_keepidle(stream, patience.min(ASK_FIRST_MAX))?;
    sockopt::set_tcp_keepintvl(stream, ASK_AGAIN)?;
    Ok(sockopt::set_socket_keepalive(stream, true)?)
}

impl AsyncRead for CutIfStalled {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for CutIfStalled {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.watch(context, written)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write_vectored(context, slices);
        self.watch(context, written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
