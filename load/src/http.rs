//! As much of an HTTP client as measuring needs: requests with Basic credentials, answers read as they come.

use anyhow::{Context, bail, ensure};
use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// A line or a header beyond this is a fault.
const HEADER_BYTES_MAX: usize = 64 << 10;

/// Where a server listens, and as whom to speak to it.
#[derive(Debug, Clone)]
pub(crate) struct Peer {
    pub(crate) http: String,
    pub(crate) rtsp: String,
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Peer {
    /// Request line and the fields that all have; the caller ends them with an empty line.
    pub(crate) fn head(&self, method: &str, path: &str) -> String {
        let credentials = BASE64_STANDARD.encode(format!("{}:{}", self.id, self.secret));
        format!("{method} {path} HTTP/1.1\r\nHost: {}\r\nAuthorization: Basic {credentials}\r\n", self.http)
    }

    /// The body of a successful answer.
    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let mut body = Vec::new();
        self.fetch(path, |piece| body.extend_from_slice(piece)).await?;
        Ok(body)
    }

    /// Hands on the pieces of the body of a successful answer.
    pub(crate) async fn fetch(&self, path: &str, mut each: impl FnMut(&[u8])) -> anyhow::Result<()> {
        let mut connection = TcpStream::connect(&self.http).await?;
        let request = self.head("GET", path) + "Connection: close\r\n\r\n";
        connection.write_all(request.as_bytes()).await?;
        let mut answer = Answer::default();
        let mut buffer = vec![0; 256 << 10];
        loop {
            let len = connection.read(&mut buffer).await?;
            let body = answer.push(&buffer[..len]).with_context(|| path.to_owned())?;
            if answer.status.is_some_and(|status| status / 100 != 2) {
                bail!("{path}: {} {}", answer.status.unwrap_or_default(), String::from_utf8_lossy(&body));
            }
            each(&body);
            if len == 0 || answer.ended() {
                ensure!(answer.whole(), "{path}: the answer was cut off");
                return Ok(());
            }
        }
    }
}

/// An answer as it comes: header, then a body of known length, in chunks, or up to the end of the connection.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) status: Option<u16>,
    unread: Vec<u8>,
    left: Left,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum Left {
    #[default]
    ToEnd,
    Bytes(u64),
    /// Bytes of the current chunk and of the line end behind it.
    Chunk(u64),
    LastChunk,
}

impl Answer {
    /// What of the body is in it.
    pub(crate) fn push(&mut self, bytes: &[u8]) -> anyhow::Result<Vec<u8>> {
        self.unread.extend_from_slice(bytes);
        let mut body = Vec::new();
        if self.status.is_none() && !self.read_header()? {
            return Ok(body);
        }
        while !self.unread.is_empty() {
            match &mut self.left {
                Left::ToEnd => body.append(&mut self.unread),
                Left::Bytes(left) => {
                    ensure!(self.unread.len() as u64 <= *left, "more than Content-Length");
                    *left -= self.unread.len() as u64;
                    body.append(&mut self.unread);
                }
                Left::Chunk(left @ 3..) => {
                    let len = self.unread.len().min((*left - 2) as usize);
                    body.extend(self.unread.drain(..len));
                    *left -= len as u64;
                }
                Left::Chunk(left @ 1..=2) => {
                    self.unread.remove(0);
                    *left -= 1;
                }
                Left::Chunk(0) => {
                    let Some(end) = find(&self.unread, b"\r\n") else {
                        ensure!(self.unread.len() < HEADER_BYTES_MAX, "no end of a chunk's head");
                        break;
                    };
                    let line = std::str::from_utf8(&self.unread[..end])?;
                    let len = u64::from_str_radix(line.split(';').next().unwrap_or_default(), 16).context("chunk")?;
                    self.left = if len == 0 { Left::LastChunk } else { Left::Chunk(len + 2) };
                    self.unread.drain(..end + 2);
                }
                Left::LastChunk => self.unread.clear(),
            }
        }
        Ok(body)
    }

    fn read_header(&mut self) -> anyhow::Result<bool> {
        let Some(end) = find(&self.unread, b"\r\n\r\n") else {
            ensure!(self.unread.len() < HEADER_BYTES_MAX, "no end of the header");
            return Ok(false);
        };
        let header = String::from_utf8_lossy(&self.unread[..end]).to_ascii_lowercase();
        let field = |name: &str| header.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        self.status = Some(header.split(' ').nth(1).and_then(|status| status.parse().ok()).context("no status")?);
        if field("transfer-encoding") == Some("chunked") {
            self.left = Left::Chunk(0);
        } else if let Some(len) = field("content-length") {
            self.left = Left::Bytes(len.trim().parse()?);
        }
        self.unread.drain(..end + 4);
        Ok(true)
    }

    /// No more is to come.
    pub(crate) fn ended(&self) -> bool {
        self.status.is_some() && matches!(self.left, Left::Bytes(0) | Left::LastChunk)
    }

    /// Nothing is missing, if the connection ended here.
    pub(crate) fn whole(&self) -> bool {
        self.ended() || self.status.is_some() && self.left == Left::ToEnd
    }
}

pub(crate) fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes.windows(wanted.len()).position(|window| window == wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_come_out_however_they_are_cut() {
        let answer = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n1;x=y\r\n!\r\n0\r\n\r\n";
        for len in 1..answer.len() {
            let mut reader = Answer::default();
            let pieces = answer.chunks(len).map(|piece| reader.push(piece).unwrap());
            assert_eq!(pieces.collect::<Vec<_>>().concat(), b"hello!", "pieces of {len}");
            assert!(reader.ended());
        }
    }

    #[test]
    fn a_body_that_is_cut_off_is_not_whole() {
        let mut reader = Answer::default();
        assert_eq!(reader.push(b"HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nab").unwrap(), b"ab");
        assert!(!reader.whole());
        assert_eq!(reader.push(b"c").unwrap(), b"c");
        assert!(reader.whole());
        assert!(reader.push(b"d").is_err());
    }
}
