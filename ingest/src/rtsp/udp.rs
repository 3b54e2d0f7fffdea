//! Pairs of UDP ports for RTP and RTCP.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::ReadBuf;
use tokio::net::UdpSocket;

/// Ports are drawn by the system until an even one has its neighbour free.
const ATTEMPTS: usize = 64;

/// Where a track's packets come in.
#[derive(Debug)]
pub(crate) struct UdpPair {
    rtp: UdpSocket,
    rtcp: UdpSocket,
    /// The only address that is listened to.
    peer: IpAddr,
    /// Learned from the first packet, for devices behind address translation.
    rtp_port: Option<u16>,
    rtcp_port: Option<u16>,
    announced_rtcp_port: u16,
}

/// A packet that came in.
#[derive(Debug)]
pub(crate) struct Datagram {
    pub(crate) is_rtcp: bool,
    pub(crate) bytes: Bytes,
}

impl UdpPair {
    /// Binds an even port and the next on the address of the RTSP connection.
    pub(crate) async fn bind(local: IpAddr, peer: IpAddr, announced_rtcp_port: u16) -> io::Result<Self> {
        let mut last = io::Error::from(io::ErrorKind::AddrInUse);
        for _ in 0..ATTEMPTS {
            let rtp = UdpSocket::bind(SocketAddr::new(local, 0)).await?;
            let port = rtp.local_addr()?.port();
            // RFC 3550 section 11: RTP on an even port, RTCP on the next.
            let Some(next) = port.checked_add(1).filter(|_| port % 2 == 0) else { continue };
            match UdpSocket::bind(SocketAddr::new(local, next)).await {
                Ok(rtcp) => return Ok(Self { rtp, rtcp, peer, rtp_port: None, rtcp_port: None, announced_rtcp_port }),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    /// Port for RTP; RTCP is on the next.
    pub(crate) fn port(&self) -> io::Result<u16> {
        Ok(self.rtp.local_addr()?.port())
    }

    /// The next packet of the peer, of at most the buffer's length.
    pub(crate) fn poll(&mut self, context: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<Datagram>> {
        for is_rtcp in [false, true] {
            let socket = if is_rtcp { &self.rtcp } else { &self.rtp };
            loop {
                let mut read = ReadBuf::new(buffer);
                let from = match socket.poll_recv_from(context, &mut read) {
                    Poll::Ready(from) => from?,
                    Poll::Pending => break,
                };
                let bytes = Bytes::copy_from_slice(read.filled());
                let port = if is_rtcp { &mut self.rtcp_port } else { &mut self.rtp_port };
                if from.ip().to_canonical() == self.peer && *port.get_or_insert(from.port()) == from.port() {
                    return Poll::Ready(Ok(Datagram { is_rtcp, bytes }));
                }
            }
        }
        Poll::Pending
    }

    /// Sends a report; one that cannot be sent now is dropped.
    pub(crate) fn send_report(&self, report: &[u8]) {
        let to = SocketAddr::new(self.peer, self.rtcp_port.unwrap_or(self.announced_rtcp_port));
        if let Err(error) = self.rtcp.try_send_to(report, to) {
            tracing::debug!(%error, %to, "receiver report not sent");
        }
    }
}

/// The next packet on any of the pairs.
pub(crate) fn poll_all<'a>(
    pairs: impl Iterator<Item = (usize, &'a mut UdpPair)>,
    context: &mut Context<'_>,
    buffer: &mut [u8],
) -> Poll<(usize, io::Result<Datagram>)> {
    for (track, pair) in pairs {
        if let Poll::Ready(datagram) = pair.poll(context, buffer) {
            return Poll::Ready((track, datagram));
        }
    }
    Poll::Pending
}
