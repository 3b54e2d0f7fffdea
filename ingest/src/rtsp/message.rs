//! RTSP messages and interleaved data on one byte stream.
//!
//! ```text
//! stream = { CRLF | request | response | "$" channel(1) length(2) payload }      RFC 2326 sections 4, 10.12
//! ```
//! Where a message begins and ends is found here, with bounds; what stands in it is read by `rtsp-types`, which is given
//! exactly one whole message (its own search for the end starts over with every byte that arrives, and is unbounded).
//!
//! # Invariants
//! 1. The buffer never holds more than one message of the greatest size and one read.
//! 2. Bytes that are no message are skipped up to the next thing that looks like one, and counted.

use bytes::{Buf, Bytes, BytesMut};
use rtsp_types::headers::{CSEQ, HeaderName};
use rtsp_types::{Message, Request};

/// Request line and header fields, in bytes.
pub(crate) const HEAD_BYTES_MAX: usize = 16 << 10;
/// A body, in bytes: SDP is the longest.
pub(crate) const BODY_BYTES_MAX: usize = 64 << 10;
/// Most bytes that are skipped between two things that are understood.
const SKIP_BYTES_MAX: usize = 1 << 20;
/// A request line, in bytes.
const LINE_BYTES_MAX: usize = 4 << 10;
/// Room for reads; there is one for each connection, and the same memory is used again.
const READ_BYTES: usize = 32 << 10;
/// The shortest RTP or RTCP packet.
const PACKET_BYTES_MIN: usize = 8;

/// One thing on the stream.
#[derive(Debug)]
pub(crate) enum Item {
    Request(Box<Request<Vec<u8>>>),
    /// An answer to something we never asked.
    Response,
    Data {
        channel: u8,
        payload: Bytes,
    },
    /// Bytes that are neither, from a sender that lost its place.
    Skipped(usize),
    /// A whole message that does not read.
    Unreadable {
        cseq: Option<String>,
    },
}

/// The stream cannot be read on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum StreamError {
    #[error("header fields over {HEAD_BYTES_MAX} bytes")]
    HeadTooLarge,
    #[error("a body over {BODY_BYTES_MAX} bytes")]
    BodyTooLarge,
    #[error("a Content-Length that is no number")]
    Length,
    #[error("more than {SKIP_BYTES_MAX} bytes that are no message")]
    Garbage,
}

impl StreamError {
    /// The RTSP status that says it.
    pub(crate) fn status(self) -> u16 {
        match self {
            Self::HeadTooLarge | Self::Length | Self::Garbage => 400,
            Self::BodyTooLarge => 413,
        }
    }
}

/// Takes the stream apart.
pub(crate) struct MessageReader {
    buffer: BytesMut,
    /// Bytes of the head at the front of the buffer that hold no end.
    searched: usize,
    skipped: usize,
    channels: [bool; 256],
}

impl MessageReader {
    pub(crate) fn new() -> Self {
        Self { buffer: BytesMut::with_capacity(READ_BYTES), searched: 0, skipped: 0, channels: [false; 256] }
    }

    /// Where to read the next bytes into. It has room for at least 8 KiB.
    pub(crate) fn buffer(&mut self) -> &mut BytesMut {
        if self.buffer.capacity() - self.buffer.len() < 8 << 10 {
            self.buffer.reserve(READ_BYTES);
        }
        &mut self.buffer
    }

    /// True if a message or frame has begun and not ended.
    pub(crate) fn is_mid_item(&self) -> bool {
        !self.buffer.is_empty()
    }

    /// Data is expected on this channel.
    pub(crate) fn expect_channel(&mut self, channel: u8) {
        self.channels[usize::from(channel)] = true;
    }

    /// The next whole thing, if it is there.
    pub(crate) fn next(&mut self) -> Result<Option<Item>, StreamError> {
        loop {
            // Some cameras write an empty line before "$" data, and many after a message.
            while self.skipped == 0 && self.buffer.first().is_some_and(|byte| matches!(byte, b'\r' | b'\n')) {
                self.buffer.advance(1);
                self.searched = 0;
            }
            if self.buffer.is_empty() {
                return Ok(None);
            }
            match self.look() {
                Look::More => return Ok(None),
                Look::Nothing => self.skip()?,
                _ if self.skipped > 0 => return Ok(self.take_skipped()),
                Look::Data { len } => return Ok(Some(self.take_data(len))),
                Look::Message { head_len } => return self.take_message(head_len),
                Look::HeadTooLarge => return Err(StreamError::HeadTooLarge),
            }
        }
    }

    fn skip(&mut self) -> Result<(), StreamError> {
        let next = self.buffer[1..].iter().position(|byte| *byte == b'$' || byte.is_ascii_uppercase());
        let len = next.map_or(self.buffer.len(), |at| at + 1);
        self.buffer.advance(len);
        self.searched = 0;
        self.skipped += len;
        if self.skipped > SKIP_BYTES_MAX { Err(StreamError::Garbage) } else { Ok(()) }
    }

    fn take_skipped(&mut self) -> Option<Item> {
        let count = std::mem::take(&mut self.skipped);
        (count > 0).then_some(Item::Skipped(count))
    }

    fn take_data(&mut self, len: usize) -> Item {
        let channel = self.buffer[1];
        self.buffer.advance(4);
        Item::Data { channel, payload: self.buffer.split_to(len).freeze() }
    }

    fn take_message(&mut self, head_len: usize) -> Result<Option<Item>, StreamError> {
        let body_len = content_length(&self.buffer[..head_len])?;
        if body_len > BODY_BYTES_MAX {
            return Err(StreamError::BodyTooLarge);
        }
        if self.buffer.len() < head_len + body_len {
            return Ok(None);
        }
        let whole = self.buffer.split_to(head_len + body_len);
        self.searched = 0;
        Ok(Some(match Message::<Vec<u8>>::parse(&whole[..]) {
            Ok((Message::Request(request), len)) if len == whole.len() => Item::Request(Box::new(request)),
            Ok((Message::Response(_), len)) if len == whole.len() => Item::Response,
            _ => Item::Unreadable { cseq: field(&whole[..head_len], "cseq").map(str::to_owned) },
        }))
    }

    fn look(&mut self) -> Look {
        if self.buffer[0] == b'$' { self.look_data() } else { self.look_message() }
    }

    fn look_data(&self) -> Look {
        let Some(header) = self.buffer.get(..4) else { return Look::More };
        let len = usize::from(u16::from_be_bytes([header[2], header[3]]));
        if self.skipped > 0 {
            // In the middle of garbage "$" alone proves nothing.
            let plausible = self.channels[usize::from(header[1])] && len >= PACKET_BYTES_MIN;
            if !plausible || self.buffer.get(4).is_some_and(|first| first >> 6 != 2) {
                return Look::Nothing;
            }
        }
        if self.buffer.len() < 4 + len { Look::More } else { Look::Data { len } }
    }

    fn look_message(&mut self) -> Look {
        let head = &self.buffer[..self.buffer.len().min(HEAD_BYTES_MAX)];
        let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
        let text = line.len() <= LINE_BYTES_MAX && line.iter().all(|byte| (0x20..0x7f).contains(byte));
        if !text || !head[0].is_ascii_uppercase() {
            return Look::Nothing;
        }
        if line.len() < head.len() && !line.windows(5).any(|window| window == b"RTSP/") {
            return Look::Nothing;
        }
        let from = self.searched.saturating_sub(3);
        match head[from..].windows(4).position(|window| window == b"\r\n\r\n") {
            Some(at) => Look::Message { head_len: from + at + 4 },
            None if head.len() == HEAD_BYTES_MAX => Look::HeadTooLarge,
            None => {
                self.searched = head.len();
                Look::More
            }
        }
    }
}

/// What stands at the front of the buffer.
enum Look {
    More,
    Nothing,
    Data { len: usize },
    Message { head_len: usize },
    HeadTooLarge,
}

/// The first header field of a name, given in lower case.
fn field<'a>(head: &'a [u8], name: &str) -> Option<&'a str> {
    let head = std::str::from_utf8(head).ok()?;
    head.split("\r\n").skip(1).find_map(|line| {
        let (found, value) = line.split_once(':')?;
        found.trim().eq_ignore_ascii_case(name).then(|| value.trim())
    })
}

fn content_length(head: &[u8]) -> Result<usize, StreamError> {
    field(head, "content-length").map_or(Ok(0), |value| value.parse().map_err(|_| StreamError::Length))
}

/// A header field of a request.
pub(crate) fn header<'a>(request: &'a Request<Vec<u8>>, name: &HeaderName) -> Option<&'a str> {
    request.header(name).map(|value| value.as_str().trim())
}

/// An answer being written.
pub(crate) struct Answer {
    status: u16,
    text: String,
}

impl Answer {
    /// `reason` may come from anywhere: it is cut to one line.
    pub(crate) fn new(status: u16, reason: &str) -> Self {
        let mut text = format!("RTSP/1.0 {status} ");
        text.extend(reason.chars().map(|c| if c.is_control() { ' ' } else { c }).take(200));
        text.push_str("\r\n");
        Self { status, text }
    }

    pub(crate) fn ok() -> Self {
        Self::new(200, "OK")
    }

    pub(crate) fn status(&self) -> u16 {
        self.status
    }

    pub(crate) fn field(mut self, name: &str, value: &str) -> Self {
        debug_assert!(!value.contains(['\r', '\n']));
        self.text.push_str(name);
        self.text.push_str(": ");
        self.text.push_str(value);
        self.text.push_str("\r\n");
        self
    }

    /// The sequence number of the request, as it came.
    pub(crate) fn answering(self, request: &Request<Vec<u8>>) -> Self {
        self.cseq(header(request, &CSEQ))
    }

    pub(crate) fn cseq(self, cseq: Option<&str>) -> Self {
        match cseq.filter(|cseq| cseq.len() <= 32 && cseq.bytes().all(|byte| byte.is_ascii_graphic())) {
            Some(cseq) => self.field("CSeq", cseq),
            None => self,
        }
    }

    pub(crate) fn into_bytes(self) -> Vec<u8> {
        let mut bytes = self.text.into_bytes();
        bytes.extend_from_slice(b"\r\n");
        bytes
    }
}

#[cfg(test)]
#[path = "message_tests.rs"]
mod message_tests;
