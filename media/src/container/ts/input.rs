//! Bytes in, packets out: finds sync and keeps to it.

use bytes::{Buf, BytesMut};

use super::packet::{PACKET_LEN, SYNC_BYTE, Sync, find_sync};
use crate::demux::{DemuxError, DemuxErrorKind};

/// Bytes that may be skipped in search of a sync byte.
const SKIP_BYTES_MAX: u64 = 64 << 10;

/// The input, cut into packets.
#[derive(Debug, Default)]
pub(super) struct Input {
    buffer: BytesMut,
    /// Of the buffer's start, from the start of the input.
    offset: u64,
    /// Distance of packets, while in sync.
    stride: Option<usize>,
    /// Where the search for sync began.
    searching_from: u64,
}

impl Input {
    pub(super) fn push(&mut self, data: &[u8]) {
        self.buffer.extend_from_slice(data);
    }

    /// Offset of the next byte that was not given out.
    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// What is left at the end, within a packet.
    pub(super) fn rest(&self) -> &[u8] {
        &self.buffer
    }

    /// The next packet.
    ///
    /// # Errors
    /// `Malformed` if there is no sync within 64 KiB.
    pub(super) fn next(&mut self, at_end: bool) -> Result<Option<[u8; PACKET_LEN]>, DemuxError> {
        loop {
            let Some(stride) = self.stride else {
                if self.search(at_end)? {
                    continue;
                }
                return Ok(None);
            };
            if self.buffer.first().is_some_and(|byte| *byte != SYNC_BYTE) {
                (self.stride, self.searching_from) = (None, self.offset);
                continue;
            }
            // What stands between packets is skipped with the packet, as far as it is there at the end.
            let whole = if at_end { stride.min(self.buffer.len().max(PACKET_LEN)) } else { stride };
            if self.buffer.len() < whole {
                return Ok(None);
            }
            let packet = self.buffer[..PACKET_LEN].try_into().expect("a packet is not longer than its stride");
            self.skip(whole);
            return Ok(Some(packet));
        }
    }

    fn search(&mut self, at_end: bool) -> Result<bool, DemuxError> {
        let (found, skip) = match find_sync(&self.buffer, at_end) {
            Sync::Found { skip, stride } => (Some(stride), skip),
            Sync::Wait { skip } => (None, skip),
        };
        if self.offset + skip as u64 - self.searching_from >= SKIP_BYTES_MAX {
            return Err(DemuxError {
                kind: DemuxErrorKind::Malformed,
                offset: self.searching_from,
                path: "packet".into(),
                detail: "no sync byte 0x47 every 188, 192 or 204 bytes within 65536 bytes".into(),
            });
        }
        self.skip(skip);
        self.stride = found;
        Ok(found.is_some())
    }

    fn skip(&mut self, len: usize) {
        self.buffer.advance(len);
        self.offset += len as u64;
    }
}
