//! MPEG audio, layers 1 to 3: frame headers (ISO/IEC 11172-3 section 2.4.1.3, ISO/IEC 13818-3 section 2.4.1.3).

use vidar_core::track::{AudioParams, Codec, Track};

use super::{CodecError, audio_track};

/// A frame header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FrameHeader {
    /// 1 to 3.
    pub layer: u8,
    /// In Hz.
    pub sample_rate_hz: u32,
    /// 1 or 2.
    pub channels: u16,
    /// Samples of the frame for each channel: 384, 576 or 1152.
    pub samples: u32,
    /// Bytes of the frame, header included.
    pub frame_len: usize,
}

/// Bytes of a frame header.
pub const HEADER_LEN: usize = 4;

/// In kbit/s, by version 1 layers 1 to 3, then version 2 layer 1, then version 2 layers 2 and 3.
const BIT_RATES: [[u16; 14]; 5] = [
    [32, 64, 96, 128, 160, 192, 224, 256, 288, 320, 352, 384, 416, 448],
    [32, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320, 384],
    [32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320],
    [32, 48, 56, 64, 80, 96, 112, 128, 144, 160, 176, 192, 224, 256],
    [8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160],
];

/// Reads the header at the start of `data`.
///
/// # Errors
/// If it is shorter than 4 bytes, has no sync word, or is of a reserved or free format.
pub fn parse_header(data: &[u8]) -> Result<FrameHeader, CodecError> {
    let Some(&[a, b, c, d]) = data.get(..4).and_then(|head| <&[u8; 4]>::try_from(head).ok()) else {
        return Err(CodecError::new("MPEG audio header of fewer than 4 bytes"));
    };
    let (version, layer, rate_index) = (b >> 3 & 3, 4 - (b >> 1 & 3), usize::from(c >> 2 & 3));
    let rate_divisor = match version {
        3 => 1,
        2 => 2,
        _ => 4,
    };
    let bit_rates = match (version, layer) {
        (3, _) => BIT_RATES.get(usize::from(layer) - 1),
        (_, 1) => BIT_RATES.get(3),
        _ => BIT_RATES.get(4),
    };
    // Index 0 is the free format, whose length only the next sync word shows; 15 is forbidden.
    let bit_rate = bit_rates.and_then(|rates| rates.get(usize::from(c >> 4).wrapping_sub(1)));
    let rate = [44_100, 48_000, 32_000].get(rate_index).map(|rate| rate / rate_divisor);
    let (Some(bit_rate), Some(sample_rate_hz)) = (bit_rate, rate) else {
        return Err(CodecError::new("MPEG audio header with a reserved rate"));
    };
    if a != 0xff || b & 0xe0 != 0xe0 || version == 1 || layer == 4 {
        return Err(CodecError::new("no MPEG audio sync word"));
    }
    let samples = match (layer, version) {
        (1, _) => 384,
        (3, 0 | 2) => 576,
        _ => 1152,
    };
    let padding = u32::from(c >> 1 & 1);
    // Layer 1 counts in slots of 4 bytes.
    let slot = if layer == 1 { 4 } else { 1 };
    let frame_len = ((samples / 8 / slot * u32::from(*bit_rate) * 1000 / sample_rate_hz + padding) * slot) as usize;
    Ok(FrameHeader { layer, sample_rate_hz, channels: if d >> 6 == 3 { 1 } else { 2 }, samples, frame_len })
}

/// A track of MPEG audio frames, as the header of one says.
#[must_use]
pub fn track(header: &FrameHeader, source_number: u64, timescale_hz: u32) -> Track {
    let audio = AudioParams { sample_rate_hz: header.sample_rate_hz, channels: header.channels, bits: 0 };
    audio_track(Codec::Mp3, "MPA", audio, source_number, timescale_hz)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn headers_of_every_version() {
        let frame = |bytes: [u8; 4]| {
            let h = parse_header(&bytes).unwrap();
            (h.layer, h.sample_rate_hz, h.channels, h.samples, h.frame_len)
        };
        assert_eq!(frame([0xff, 0xfb, 0x90, 0x00]), (3, 44_100, 2, 1152, 417));
        assert_eq!(frame([0xff, 0xfb, 0x92, 0xc0]), (3, 44_100, 1, 1152, 418));
        assert_eq!(frame([0xff, 0xfd, 0x84, 0x00]), (2, 48_000, 2, 1152, 384));
        assert_eq!(frame([0xff, 0xff, 0x42, 0x00]), (1, 44_100, 2, 384, 140));
        assert_eq!(frame([0xff, 0xf3, 0x80, 0xc0]), (3, 22_050, 1, 576, 208));
        assert_eq!(frame([0xff, 0xe3, 0x80, 0xc0]), (3, 11_025, 1, 576, 417));
        for bad in [
            [0xff, 0xeb, 0x90, 0],
            [0xff, 0xf9, 0x90, 0],
            [0xff, 0xfb, 0xf0, 0],
            [0xff, 0xfb, 0, 0],
            [0xff, 0xfb, 0x9c, 0],
        ] {
            assert!(parse_header(&bad).is_err(), "{bad:02x?}");
        }
        assert!(parse_header(&[0xff, 0xfb, 0x90]).is_err());
    }

    proptest! {
        #[test]
        fn a_frame_is_never_empty(data: [u8; 4]) {
            if let Ok(header) = parse_header(&data) {
                prop_assert!(header.frame_len > HEADER_LEN && header.frame_len < 4096);
            }
        }
    }
}
