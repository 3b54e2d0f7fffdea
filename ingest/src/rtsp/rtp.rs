//! RTP packets (RFC 3550 section 5.1).

use bytes::Bytes;

/// One packet without its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Packet {
    pub(crate) marker: bool,
    pub(crate) payload_type: u8,
    pub(crate) sequence: u16,
    pub(crate) timestamp: u32,
    pub(crate) ssrc: u32,
    pub(crate) payload: Bytes,
}

/// The bytes are no RTP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an RTP packet: {0}")]
pub(crate) struct RtpError(&'static str);

const HEADER_BYTES: usize = 12;

impl Packet {
    /// Takes header, CSRC list, extension and padding off.
    pub(crate) fn parse(bytes: &Bytes) -> Result<Self, RtpError> {
        let header: &[u8; HEADER_BYTES] = bytes.first_chunk().ok_or(RtpError("shorter than its header"))?;
        if header[0] >> 6 != 2 {
            return Err(RtpError("version is not 2"));
        }
        let mut start = HEADER_BYTES + 4 * usize::from(header[0] & 0x0f);
        if header[0] & 0x10 != 0 {
            let extension = bytes.get(start..start + 4).ok_or(RtpError("extension is cut"))?;
            start += 4 + 4 * usize::from(u16::from_be_bytes([extension[2], extension[3]]));
        }
        let mut end = bytes.len();
        if header[0] & 0x20 != 0 {
            let padding = usize::from(bytes[end - 1]);
            // RFC 3550: the count includes itself, so 0 is no count. Some senders mean none by it.
            end = end.checked_sub(padding).ok_or(RtpError("padding is longer than the packet"))?;
        }
        if start > end {
            return Err(RtpError("header reaches past the end"));
        }
        let word = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        Ok(Self {
            marker: header[1] & 0x80 != 0,
            payload_type: header[1] & 0x7f,
            sequence: u16::from_be_bytes([header[2], header[3]]),
            timestamp: word(4),
            ssrc: word(8),
            payload: bytes.slice(start..end),
        })
    }
}

/// Makes 64-bit times of 32-bit ones, by the signed difference to the last.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Unwrapper {
    last: Option<(u32, i64)>,
}

impl Unwrapper {
    /// The time of a packet.
    pub(crate) fn unwrap(&mut self, timestamp: u32) -> i64 {
        let ticks = self.peek(timestamp);
        self.last = Some((timestamp, ticks));
        ticks
    }

    /// The time of something near the packets, such as a report.
    pub(crate) fn peek(&self, timestamp: u32) -> i64 {
        match self.last {
            Some((last, ticks)) => ticks.saturating_add(i64::from(timestamp.wrapping_sub(last) as i32)),
            None => i64::from(timestamp),
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use bytes::{BufMut, BytesMut};
    use proptest::prelude::*;

    use super::*;

    impl Packet {
        /// The bytes of a packet without CSRC, extension and padding.
        pub(crate) fn encode(&self) -> Bytes {
            let mut out = BytesMut::new();
            out.put_u8(0x80);
            out.put_u8(self.payload_type | u8::from(self.marker) << 7);
            out.put_u16(self.sequence);
            out.put_u32(self.timestamp);
            out.put_u32(self.ssrc);
            out.extend_from_slice(&self.payload);
            out.freeze()
        }
    }

    #[test]
    fn header_parts_are_taken_off() {
        let mut bytes = vec![0xb1, 0xe0, 1, 2, 0, 0, 0, 9, 0, 0, 0, 7];
        bytes.extend([0xaa; 4]); // CSRC
        bytes.extend([0xbe, 0xde, 0, 1, 1, 2, 3, 4]); // extension of one word
        bytes.extend([0x65, 0x01, 0, 0, 3]); // payload, 3 bytes of padding
        let packet = Packet::parse(&bytes.clone().into()).unwrap();
        assert_eq!((packet.marker, packet.payload_type, packet.sequence), (true, 96, 258));
        assert_eq!((packet.timestamp, packet.ssrc, &packet.payload[..]), (9, 7, &[0x65, 0x01][..]));
        for len in 0..24 {
            bytes.truncate(28 - len);
            let _ = Packet::parse(&bytes.clone().into());
        }
        assert!(Packet::parse(&Bytes::from_static(&[0x80; 11])).is_err());
        assert!(Packet::parse(&Bytes::from_static(&[0x40; 12])).is_err());
        assert!(Packet::parse(&Bytes::from_static(&[0x8f; 12])).is_err(), "15 CSRC");
        assert!(Packet::parse(&Bytes::from_static(&[0xa0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 13])).is_err(), "padding");
    }

    #[test]
    fn times_unwrap_both_ways() {
        let mut times = Unwrapper::default();
        assert_eq!(times.unwrap(u32::MAX - 10), i64::from(u32::MAX) - 10);
        assert_eq!(times.unwrap(5), i64::from(u32::MAX) + 6);
        assert_eq!(times.peek(u32::MAX), i64::from(u32::MAX));
        assert_eq!(times.unwrap(0), i64::from(u32::MAX) + 1, "a B-frame");
    }

    proptest! {
        #[test]
        fn any_bytes_parse_or_not(bytes: Vec<u8>) {
            let bytes = Bytes::from(bytes);
            if let Ok(packet) = Packet::parse(&bytes) {
                prop_assert!(packet.payload.len() + HEADER_BYTES <= bytes.len());
            }
        }

        #[test]
        fn encoded_packets_read_back(marker: bool, payload_type in 0..128_u8, sequence: u16, timestamp: u32, ssrc: u32, payload: Vec<u8>) {
            let packet = Packet { marker, payload_type, sequence, timestamp, ssrc, payload: payload.into() };
            prop_assert_eq!(Packet::parse(&packet.encode()), Ok(packet));
        }
    }
}
