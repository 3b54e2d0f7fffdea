//! A client that says exactly what it is told to.
#![allow(dead_code)]

use std::net::SocketAddr;
use std::time::Duration;

use base64::Engine as _;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpStream, UdpSocket};

use super::{SECRET, USER};

/// SDP of H.264 and G.711, with controls `video` and `audio`.
pub(crate) const SDP: &str = "v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\ns=-\r\nt=0 0\r\n\
    m=video 0 RTP/AVP 96\r\na=rtpmap:96 H264/90000\r\na=control:video\r\n\
    a=fmtp:96 packetization-mode=1;sprop-parameter-sets=Z2QADKy0FCPy4CIAAAMAAgAAAwBkHihVQA==,aO88sA==\r\n\
    m=audio 0 RTP/AVP 8\r\na=control:audio\r\n";

/// An answer.
#[derive(Debug, Clone)]
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
}

impl Answer {
    /// All values of a field.
    pub(crate) fn fields(&self, name: &str) -> Vec<&str> {
        let fields = self.head.split("\r\n").filter_map(|line| line.split_once(": "));
        fields.filter(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value).collect()
    }

    pub(crate) fn field(&self, name: &str) -> &str {
        self.fields(name).first().copied().unwrap_or_default()
    }
}

/// One connection.
pub(crate) struct Client {
    pub(crate) stream: TcpStream,
    pub(crate) address: SocketAddr,
    pub(crate) authorization: Option<String>,
    pub(crate) session: Option<String>,
    cseq: u32,
    buffer: Vec<u8>,
}

impl Client {
    /// A client that sends Basic.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).await.unwrap(), address)
    }

    pub(crate) fn over(stream: TcpStream, address: SocketAddr) -> Self {
        let mut client = Self { stream, address, authorization: None, session: None, cseq: 0, buffer: Vec::new() };
        client.become_key(USER);
        client
    }

    /// Requests are those of that key from now on.
    pub(crate) fn become_key(&mut self, id: &str) {
        let basic = base64::engine::general_purpose::STANDARD.encode(format!("{id}:{SECRET}"));
        self.authorization = Some(format!("Basic {basic}"));
    }

    /// Sends a request for `path`, with extra lines and a body, and reads the answer.
    pub(crate) async fn request(&mut self, method: &str, path: &str, extra: &str, body: &str) -> Answer {
        self.cseq += 1;
        let mut text = format!("{method} rtsp://{}/{path} RTSP/1.0\r\nCSeq: {}\r\n{extra}", self.address, self.cseq);
        if let Some(authorization) = &self.authorization {
            text.push_str(&format!("Authorization: {authorization}\r\n"));
        }
        if let Some(session) = &self.session {
            text.push_str(&format!("Session: {session}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        let answer = self.raw(&format!("{text}\r\n{body}")).await;
        assert_eq!(answer.field("CSeq"), self.cseq.to_string());
        if let Some((id, _)) = answer.field("Session").split_once(';') {
            self.session = Some(id.to_owned());
        }
        answer
    }

    pub(crate) async fn announce(&mut self, sdp: &str) -> Answer {
        self.request("ANNOUNCE", "cam", "Content-Type: application/sdp\r\n", sdp).await
    }

    pub(crate) async fn set_up(&mut self, track: &str, transport: &str) -> Answer {
        self.request("SETUP", &format!("cam/{track}"), &format!("Transport: {transport}\r\n"), "").await
    }

    /// Up to RECORD, on channels 0-1 for video and 2-3 for audio.
    pub(crate) async fn begin(&mut self) {
        assert_eq!(self.announce(SDP).await.status, 200);
        assert_eq!(self.set_up("audio", "RTP/AVP/TCP;unicast;interleaved=2-3;mode=record").await.status, 200);
        assert_eq!(self.set_up("video", "RTP/AVP/TCP;unicast;interleaved=0-1;mode=record").await.status, 200);
        assert_eq!(self.request("RECORD", "cam", "", "").await.status, 200);
    }

    /// Records video over UDP; where RTP goes to, and RTCP to the port above.
    pub(crate) async fn begin_over_udp(&mut self, rtp: &UdpSocket, rtcp: &UdpSocket) -> (&'static str, u16) {
        assert_eq!(self.announce(SDP).await.status, 200);
        let port = |socket: &UdpSocket| socket.local_addr().unwrap().port();
        let transport = format!("RTP/AVP;unicast;client_port={}-{};mode=record", port(rtp), port(rtcp));
        let answer = self.set_up("video", &transport).await;
        let ports = answer.field("Transport").split("server_port=").nth(1).unwrap().split(';').next().unwrap();
        let (rtp_port, rtcp_port) = ports.split_once('-').unwrap();
        let (rtp_port, rtcp_port): (u16, u16) = (rtp_port.parse().unwrap(), rtcp_port.parse().unwrap());
        assert_eq!((rtp_port % 2, rtcp_port), (0, rtp_port + 1));
        assert_eq!(self.request("RECORD", "cam", "", "").await.status, 200);
        ("127.0.0.1", rtp_port)
    }

    /// Sends bytes and reads an answer.
    pub(crate) async fn raw(&mut self, text: &str) -> Answer {
        self.stream.write_all(text.as_bytes()).await.unwrap();
        self.answer().await.expect("an answer")
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.unwrap();
    }

    /// The next answer; none if the server hangs up.
    pub(crate) async fn answer(&mut self) -> Option<Answer> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|window| window == b"\r\n\r\n") {
                let head = String::from_utf8(self.buffer.drain(..end + 4).collect()).unwrap();
                let status = head.split(' ').nth(1).unwrap().parse().unwrap();
                return Some(Answer { status, head });
            }
            if !self.read().await {
                return None;
            }
        }
    }

    /// The next interleaved frame: channel and packet.
    pub(crate) async fn frame(&mut self) -> (u8, Vec<u8>) {
        loop {
            if let [b'$', channel, a, b, rest @ ..] = &self.buffer[..]
                && let Some(packet) = rest.get(..usize::from(u16::from_be_bytes([*a, *b])))
            {
                let (channel, packet) = (*channel, packet.to_vec());
                self.buffer.drain(..4 + packet.len());
                return (channel, packet);
            }
            assert!(self.read().await, "the server hung up");
        }
    }

    /// Takes all that the system holds for it.
    pub(crate) async fn take_what_is_there(&mut self) {
        let mut chunk = [0; 4096];
        // The runtime looks in each turn what sockets are ready for: this one for what follows, that of the server for more.
        for _ in 0..100 {
            while let Ok(len @ 1..) = self.stream.try_read(&mut chunk) {
                self.buffer.extend_from_slice(&chunk[..len]);
            }
            tokio::task::yield_now().await;
        }
    }

    async fn read(&mut self) -> bool {
        let mut chunk = [0; 4096];
        let read = tokio::time::timeout(Duration::from_secs(20), self.stream.read(&mut chunk));
        let len = read.await.expect("in time").unwrap_or(0);
        self.buffer.extend_from_slice(&chunk[..len]);
        len > 0
    }
}

/// An RTP packet with a marker.
pub(crate) fn rtp(payload_type: u8, sequence: u16, timestamp: u32, payload: &[u8]) -> Vec<u8> {
    let mut out = vec![0x80, payload_type | 0x80];
    out.extend(sequence.to_be_bytes());
    out.extend(timestamp.to_be_bytes());
    out.extend(u32::from(payload_type).to_be_bytes());
    out.extend(payload);
    out
}

/// A sender report of the source of `rtp`, at 2026 and `ms`.
pub(crate) fn report(payload_type: u8, ms: u64, timestamp: u32) -> Vec<u8> {
    let mut out = vec![0x80, 200, 0, 6];
    out.extend(u32::from(payload_type).to_be_bytes());
    out.extend(((3_990_000_000 << 32) + (ms << 32) / 1000).to_be_bytes());
    out.extend(timestamp.to_be_bytes());
    out.extend([0; 8]);
    out
}

pub(crate) fn interleaved(channel: u8, packet: &[u8]) -> Vec<u8> {
    [&[b'$', channel][..], &(packet.len() as u16).to_be_bytes(), packet].concat()
}
