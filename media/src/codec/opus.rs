//! Opus: identification header (RFC 7845 section 5.1) and packet durations (RFC 6716 section 3.1).

use bytes::{BufMut, Bytes, BytesMut};
use vidar_core::track::{AudioParams, Codec, Track, Trims};

use super::{CodecError, audio_track};

/// An identification header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OpusHead {
    /// Output channels, 1 to 255.
    pub channels: u8,
    /// Samples to discard at the start, at 48 kHz.
    pub pre_skip: u16,
    /// Rate of the input before encoding, in Hz; 0 if unknown.
    pub input_rate_hz: u32,
    /// In 1/256 dB.
    pub output_gain: i16,
    /// 0: mono or stereo; 1: Vorbis order; others need a table.
    pub mapping_family: u8,
    /// Streams, coupled streams and the mapping, for families other than 0.
    pub mapping: Bytes,
}

impl OpusHead {
    /// One or two channels, or the Vorbis order of up to 8 (RFC 7845 section 5.1.1.2), without pre-skip.
    ///
    /// # Errors
    /// If `channels` is 0 or above 8.
    pub fn new(channels: u8) -> Result<Self, CodecError> {
        // Streams, coupled streams, mapping: as libopus makes them for family 1.
        let mapping: &[u8] = match channels {
            1 | 2 => &[],
            3 => &[2, 1, 0, 2, 1],
            4 => &[2, 2, 0, 1, 2, 3],
            5 => &[3, 2, 0, 4, 1, 2, 3],
            6 => &[4, 2, 0, 4, 1, 2, 3, 5],
            7 => &[4, 3, 0, 4, 1, 2, 3, 5, 6],
            8 => &[5, 3, 0, 6, 1, 2, 3, 4, 5, 7],
            _ => return Err(CodecError::new(format!("Opus with {channels} channels"))),
        };
        Ok(Self {
            channels,
            pre_skip: 0,
            input_rate_hz: 48_000,
            output_gain: 0,
            mapping_family: u8::from(channels > 2),
            mapping: Bytes::from_static(mapping),
        })
    }

    /// Reads a header.
    ///
    /// # Errors
    /// If the magic is missing, the major version is not 0, or it ends early.
    pub fn parse(data: &[u8]) -> Result<Self, CodecError> {
        let Some((head, rest)) = data.split_at_checked(19).filter(|(head, _)| head.starts_with(b"OpusHead")) else {
            return Err(CodecError::new("no OpusHead of 19 bytes"));
        };
        let (version, channels, mapping_family) = (head[8], head[9], head[18]);
        if version > 15 || channels == 0 {
            return Err(CodecError::new(format!("OpusHead of version {version} with {channels} channels")));
        }
        let mapping_len = if mapping_family == 0 { 0 } else { 2 + usize::from(channels) };
        let Some(mapping) = rest.get(..mapping_len) else {
            return Err(CodecError::new("OpusHead ends within its channel mapping"));
        };
        Ok(Self {
            channels,
            pre_skip: u16::from_le_bytes([head[10], head[11]]),
            input_rate_hz: u32::from_le_bytes([head[12], head[13], head[14], head[15]]),
            output_gain: i16::from_le_bytes([head[16], head[17]]),
            mapping_family,
            mapping: Bytes::copy_from_slice(mapping),
        })
    }

    /// The header as bytes, version 1.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = BytesMut::new();
        out.put_slice(b"OpusHead\x01");
        out.put_u8(self.channels);
        out.put_u16_le(self.pre_skip);
        out.put_u32_le(self.input_rate_hz);
        out.put_i16_le(self.output_gain);
        out.put_u8(self.mapping_family);
        if self.mapping_family != 0 {
            out.put_slice(&self.mapping);
        }
        out.freeze()
    }
}

/// Samples of a packet for each channel, at 48 kHz. None if the packet is malformed or longer than 120 ms.
#[must_use]
pub fn packet_duration_48k(packet: &[u8]) -> Option<u32> {
    let toc = *packet.first()?;
    let config = u32::from(toc >> 3);
    // RFC 6716 table 2: SILK 10 to 60 ms, hybrid 10 or 20 ms, CELT 2.5 to 20 ms.
    let frame = match config {
        0..=11 => [480, 960, 1920, 2880][config as usize % 4],
        12..=15 => [480, 960][config as usize % 2],
        _ => 120 << (config % 4),
    };
    let count = match toc & 3 {
        0 => 1,
        1 | 2 => 2,
        _ => u32::from(packet.get(1)? & 0x3f),
    };
    Some(frame * count).filter(|samples| (1..=5760).contains(samples))
}

/// A track of Opus packets.
///
/// # Errors
/// As [`OpusHead::new`].
pub fn track(channels: u8, source_number: u64, timescale_hz: u32) -> Result<Track, CodecError> {
    Ok(track_of(&OpusHead::new(channels)?, source_number, timescale_hz))
}

/// A track of Opus packets with the header given.
#[must_use]
pub fn track_of(head: &OpusHead, source_number: u64, timescale_hz: u32) -> Track {
    let audio = AudioParams { sample_rate_hz: 48_000, channels: head.channels.into(), bits: 0 };
    let codec_delay_ns = u64::from(head.pre_skip) * 1_000_000_000 / 48_000;
    Track {
        codec_private: head.encode(),
        trims: Trims { codec_delay_ns, ..Trims::default() },
        ..audio_track(Codec::Opus, "opus", audio, source_number, timescale_hz)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn durations_of_every_mode() {
        for (packet, samples) in [
            (&[0x00][..], Some(480)),
            (&[3 << 3], Some(2880)),
            (&[12 << 3], Some(480)),
            (&[15 << 3], Some(960)),
            (&[16 << 3], Some(120)),
            (&[31 << 3], Some(960)),
            (&[31 << 3 | 1], Some(1920)),
            (&[31 << 3 | 2], Some(1920)),
            (&[31 << 3 | 3, 6], Some(5760)),
            (&[31 << 3 | 3, 7], None),
            (&[31 << 3 | 3, 0], None),
            (&[31 << 3 | 3], None),
            (&[], None),
        ] {
            assert_eq!(packet_duration_48k(packet), samples, "{packet:?}");
        }
    }

    #[test]
    fn headers_round_trip_and_every_truncation_is_refused() {
        for channels in 1..=8 {
            let head = OpusHead { pre_skip: 312, output_gain: -3, ..OpusHead::new(channels).unwrap() };
            let bytes = head.encode();
            assert_eq!(OpusHead::parse(&bytes), Ok(head));
            for len in 0..bytes.len() {
                assert!(OpusHead::parse(&bytes[..len]).is_err());
            }
        }
        assert!(OpusHead::new(0).is_err() && OpusHead::new(9).is_err());
    }

    proptest! {
        #[test]
        fn no_input_panics(data: Vec<u8>) {
            let _ = packet_duration_48k(&data);
            let _ = OpusHead::parse(&[b"OpusHead", &data[..]].concat());
        }
    }
}
