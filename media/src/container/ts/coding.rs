//! Samples as elementary streams carry them: H.264 and H.265 as byte streams, AAC behind ADTS headers.

use bytes::Bytes;
use vidar_core::track::{Codec, NalFraming, Track, TrackKind};

use crate::codec::aac::{ADTS_HEADER_LEN, AudioSpecificConfig};
use crate::codec::{h264, h265, nal};

const START_CODE: [u8; 4] = [0, 0, 0, 1];
/// Access unit delimiters for pictures of any kind: ISO/IEC 13818-1 section 2.14 wants one before each.
const H264_DELIMITER: [u8; 6] = [0, 0, 0, 1, 0x09, 0xf0];
const H265_DELIMITER: [u8; 7] = [0, 0, 0, 1, 0x46, 0x01, 0x50];
/// Sampling frequency indexes of ADTS (ISO/IEC 14496-3 table 1.18).
const RATES: [u32; 13] =
    [96_000, 88_200, 64_000, 48_000, 44_100, 32_000, 24_000, 22_050, 16_000, 12_000, 11_025, 8_000, 7_350];

/// How the samples of a track are written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Coding {
    /// Parameter sets behind start codes.
    H264 { length_size: u8, sets: Bytes },
    /// See `H264`.
    H265 { length_size: u8, sets: Bytes },
    /// What a header says but for the length.
    Aac { profile: u8, rate_index: u8, channel_config: u8 },
    /// As they are.
    Mpeg,
}

impl Coding {
    /// None: a transport stream has no place for the track.
    pub(super) fn of(track: &Track) -> Option<Self> {
        let prefixed = matches!(track.framing, NalFraming::LengthPrefixed(_));
        match (track.kind, track.codec) {
            (TrackKind::Video, Codec::H264) if prefixed => {
                let avcc = h264::parse_avcc(&track.codec_private).ok()?;
                let sets = byte_stream(avcc.sps.iter().chain(&avcc.pps));
                Some(Self::H264 { length_size: avcc.length_size, sets })
            }
            (TrackKind::Video, Codec::H265) if prefixed => {
                let hvcc = h265::parse_hvcc(&track.codec_private).ok()?;
                let sets = byte_stream(hvcc.vps.iter().chain(&hvcc.sps).chain(&hvcc.pps));
                Some(Self::H265 { length_size: hvcc.length_size, sets })
            }
            (TrackKind::Audio, Codec::Aac) => {
                let config = AudioSpecificConfig::parse(&track.codec_private).ok()?;
                let rate = RATES.iter().position(|rate| *rate == config.sample_rate_hz)?;
                let channel_config = match config.channels {
                    8 => 7,
                    channels @ 1..=6 => channels as u8,
                    _ => return None,
                };
                let profile = config.object_type.checked_sub(1).filter(|profile| *profile < 4)?;
                Some(Self::Aac { profile, rate_index: rate as u8, channel_config })
            }
            (TrackKind::Audio, Codec::Mp3) => Some(Self::Mpeg),
            _ => None,
        }
    }

    /// ISO/IEC 13818-1 table 2-34.
    pub(super) fn stream_type(&self) -> u8 {
        match self {
            Self::H264 { .. } => 0x1b,
            Self::H265 { .. } => 0x24,
            Self::Aac { .. } => 0x0f,
            Self::Mpeg => 0x03,
        }
    }

    pub(super) fn is_video(&self) -> bool {
        matches!(self, Self::H264 { .. } | Self::H265 { .. })
    }

    /// Appends a sample. False: it does not read, and nothing of it is to be written.
    pub(super) fn write(&self, sync: bool, data: &[u8], out: &mut Vec<u8>) -> bool {
        match self {
            Self::H264 { length_size, sets } => {
                out.extend_from_slice(&H264_DELIMITER);
                let is = |nal: &[u8], kind: u8| h264::nal_unit_type(nal) == kind;
                units(data, *length_size, |nal| is(nal, 9), |nal| is(nal, 7), sync.then_some(sets), out)
            }
            Self::H265 { length_size, sets } => {
                out.extend_from_slice(&H265_DELIMITER);
                let is = |nal: &[u8], kind: u8| h265::nal_unit_type(nal) == kind;
                units(data, *length_size, |nal| is(nal, 35), |nal| is(nal, 33), sync.then_some(sets), out)
            }
            Self::Aac { profile, rate_index, channel_config } => {
                let len = data.len() + ADTS_HEADER_LEN;
                if len > 0x1fff {
                    return false;
                }
                // ISO/IEC 14496-3 section 1.A.2.2: MPEG-4, no CRC, one block, buffer fullness of variable rate.
                out.extend_from_slice(&[
                    0xff,
                    0xf1,
                    profile << 6 | rate_index << 2 | channel_config >> 2,
                    (channel_config & 3) << 6 | (len >> 11) as u8,
                    (len >> 3) as u8,
                    (len as u8 & 7) << 5 | 0x1f,
                    0xfc,
                ]);
                out.extend_from_slice(data);
                true
            }
            Self::Mpeg => {
                out.extend_from_slice(data);
                true
            }
        }
    }
}

fn byte_stream<'a>(nals: impl Iterator<Item = &'a Bytes>) -> Bytes {
    nals.flat_map(|nal| START_CODE.iter().chain(nal)).copied().collect()
}

/// Writes NAL units behind start codes; the sets first, where the sample has none of its own.
fn units(
    data: &[u8],
    length_size: u8,
    is_delimiter: impl Fn(&[u8]) -> bool,
    is_sps: impl Fn(&[u8]) -> bool,
    sets: Option<&Bytes>,
    out: &mut Vec<u8>,
) -> bool {
    let nals = || nal::iter_length_prefixed(data, length_size).map_while(Result::ok).map(|(_, nal)| nal);
    if let Some(sets) = sets.filter(|_| !nals().any(&is_sps)) {
        out.extend_from_slice(sets);
    }
    let mut any = false;
    for nal in nals().filter(|nal| !nal.is_empty() && !is_delimiter(nal)) {
        out.extend_from_slice(&START_CODE);
        out.extend_from_slice(nal);
        any = true;
    }
    any
}
