//! AV1: OBUs, the sequence header and `av1C` (AV1 bitstream specification section 5; AV1 codec ISO media file format
//! binding section 2).

use bytes::{Bytes, BytesMut};
use vidar_core::sample::SyncKind;
use vidar_core::track::{Codec, Track, TrackKind, VideoParams};

use super::bits::BitReader;
use super::{CodecError, Inspection, plain_track};

/// `obu_type` values (AV1 bitstream specification section 6.2.2).
pub mod obu_type {
    /// Sequence header.
    pub const SEQUENCE_HEADER: u8 = 1;
    /// Temporal delimiter: no part of stored samples.
    pub const TEMPORAL_DELIMITER: u8 = 2;
    /// Frame header.
    pub const FRAME_HEADER: u8 = 3;
    /// Frame header and tile group.
    pub const FRAME: u8 = 6;
}

/// One open bitstream unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Obu<'a> {
    /// `obu_type`.
    pub kind: u8,
    /// Header, size field and payload.
    pub raw: &'a [u8],
    /// What follows the header and the size field.
    pub payload: &'a [u8],
}

/// The OBUs of a temporal unit. One without a size field reaches to the end. After an error the iterator ends.
pub fn iter_obus(data: &[u8]) -> impl Iterator<Item = Result<Obu<'_>, CodecError>> + '_ {
    let mut rest = data;
    std::iter::from_fn(move || {
        let (first, _) = rest.split_first()?;
        let (kind, header_len) = (first >> 3 & 15, 1 + usize::from(first >> 2 & 1));
        let lens = if first & 2 != 0 {
            rest.get(header_len..).and_then(leb128).map(|(len, field)| (header_len + field, len))
        } else {
            rest.len().checked_sub(header_len).map(|len| (header_len, len))
        };
        let obu = lens.and_then(|(payload_at, len)| {
            let raw = rest.get(..payload_at.checked_add(len)?)?;
            Some(Obu { kind, raw, payload: &raw[payload_at..] })
        });
        let at = data.len() - rest.len();
        rest = obu.map_or(&[], |obu| &rest[obu.raw.len()..]);
        Some(obu.ok_or_else(|| CodecError::new(format!("OBU at byte {at} reaches past the temporal unit"))))
    })
}

/// Value and length of a `leb128()` (AV1 bitstream specification section 4.10.5).
fn leb128(data: &[u8]) -> Option<(usize, usize)> {
    let mut value = 0_u64;
    for (index, byte) in data.iter().take(8).enumerate() {
        value |= u64::from(byte & 0x7f) << (7 * index);
        if byte & 0x80 == 0 {
            return Some((usize::try_from(value).ok()?, index + 1));
        }
    }
    None
}

fn write_leb128(out: &mut Vec<u8>, mut value: usize) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// A sequence header (AV1 bitstream specification section 5.5), as far as it matters here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct SequenceHeader {
    /// `seq_profile`.
    pub profile: u8,
    /// `reduced_still_picture_header`: all frames are key frames.
    pub reduced: bool,
    /// `seq_level_idx[0]`.
    pub level: u8,
    /// `seq_tier[0]`.
    pub tier: u8,
    /// `max_frame_width_minus_1` + 1, in pixels.
    pub width: u32,
    /// `max_frame_height_minus_1` + 1, in pixels.
    pub height: u32,
    /// 8, 10 or 12.
    pub bit_depth: u8,
    /// No chroma.
    pub monochrome: bool,
    /// Chroma is half as wide.
    pub subsampled_x: bool,
    /// Chroma is half as high.
    pub subsampled_y: bool,
    /// `chroma_sample_position`.
    pub chroma_position: u8,
}

/// Reads the payload of a sequence header OBU.
///
/// # Errors
/// If it ends early.
pub fn parse_sequence_header(payload: &[u8]) -> Result<SequenceHeader, CodecError> {
    let mut r = BitReader::new(payload);
    let profile = r.byte(3)?;
    r.skip(1)?;
    let reduced = r.flag()?;
    let (level, tier) = if reduced { (r.byte(5)?, 0) } else { read_operating_points(&mut r)? };
    let (width_bits, height_bits) = (r.bits(4)? as usize + 1, r.bits(4)? as usize + 1);
    let (width, height) = (r.bits(width_bits)? + 1, r.bits(height_bits)? + 1);
    if !reduced && r.flag()? {
        r.skip(7)?;
    }
    r.skip(3)?;
    if !reduced {
        skip_tools(&mut r)?;
    }
    r.skip(3)?;
    let mut header = SequenceHeader {
        profile,
        reduced,
        level,
        tier,
        width,
        height,
        bit_depth: 8,
        monochrome: false,
        subsampled_x: true,
        subsampled_y: true,
        chroma_position: 0,
    };
    read_color_config(&mut r, &mut header)?;
    Ok(header)
}

/// From the timing info to the operating points; gives level and tier of the first.
fn read_operating_points(r: &mut BitReader<'_>) -> Result<(u8, u8), CodecError> {
    let mut delay_bits = None;
    if r.flag()? {
        r.skip(64)?;
        if r.flag()? {
            r.ue()?;
        }
        if r.flag()? {
            delay_bits = Some(r.bits(5)? as usize + 1);
            r.skip(42)?;
        }
    }
    let display_delay = r.flag()?;
    let mut first = None;
    for _ in 0..=r.bits(5)? {
        r.skip(12)?;
        let level = r.byte(5)?;
        let tier = if level > 7 { r.byte(1)? } else { 0 };
        first.get_or_insert((level, tier));
        if let Some(bits) = delay_bits
            && r.flag()?
        {
            r.skip(2 * bits + 1)?;
        }
        if display_delay && r.flag()? {
            r.skip(4)?;
        }
    }
    Ok(first.unwrap_or_default())
}

fn skip_tools(r: &mut BitReader<'_>) -> Result<(), CodecError> {
    r.skip(4)?;
    let order_hint = r.flag()?;
    if order_hint {
        r.skip(2)?;
    }
    let screen_content = r.flag()? || r.flag()?;
    if screen_content && !r.flag()? {
        r.skip(1)?;
    }
    if order_hint {
        r.skip(3)?;
    }
    Ok(())
}

/// AV1 bitstream specification section 5.5.2.
fn read_color_config(r: &mut BitReader<'_>, header: &mut SequenceHeader) -> Result<(), CodecError> {
    let high = r.flag()?;
    let twelve = header.profile == 2 && high && r.flag()?;
    header.bit_depth = if twelve { 12 } else { 8 + 2 * u8::from(high) };
    header.monochrome = header.profile != 1 && r.flag()?;
    let colours = if r.flag()? { [r.bits(8)?, r.bits(8)?, r.bits(8)?] } else { [2, 2, 2] };
    if header.monochrome {
        return r.skip(1);
    }
    if colours == [1, 13, 0] {
        (header.subsampled_x, header.subsampled_y) = (false, false);
        return Ok(());
    }
    r.skip(1)?;
    (header.subsampled_x, header.subsampled_y) = match header.profile {
        0 => (true, true),
        1 => (false, false),
        _ if twelve => {
            let x = r.flag()?;
            (x, x && r.flag()?)
        }
        _ => (true, false),
    };
    if header.subsampled_x && header.subsampled_y {
        header.chroma_position = r.byte(2)?;
    }
    Ok(())
}

/// Makes an AV1CodecConfigurationRecord from a sequence header OBU, with or without its size field.
///
/// # Errors
/// If it is no sequence header that reads.
pub fn av1c(sequence_header_obu: &[u8]) -> Result<Bytes, CodecError> {
    let obu = iter_obus(sequence_header_obu).next().ok_or_else(|| CodecError::new("no OBU"))??;
    if obu.kind != obu_type::SEQUENCE_HEADER {
        return Err(CodecError::new(format!("OBU of type {}, expected a sequence header (1)", obu.kind)));
    }
    let h = parse_sequence_header(obu.payload)?;
    let depth = u8::from(h.bit_depth > 8) << 6 | u8::from(h.bit_depth == 12) << 5;
    let chroma = u8::from(h.subsampled_x) << 3 | u8::from(h.subsampled_y) << 2 | h.chroma_position;
    let mut out = vec![
        0x81,
        h.profile << 5 | h.level,
        h.tier << 7 | depth | u8::from(h.monochrome) << 4 | chroma,
        0,
        obu_type::SEQUENCE_HEADER << 3 | 2,
    ];
    write_leb128(&mut out, obu.payload.len());
    out.extend_from_slice(obu.payload);
    Ok(out.into())
}

/// The sequence header that an AV1CodecConfigurationRecord holds; none if it holds none that reads.
#[must_use]
pub fn private_sequence_header(av1c: &[u8]) -> Option<SequenceHeader> {
    parse_sequence_header(sequence_header_payload(av1c.get(4..)?)?).ok()
}

fn sequence_header_payload(obus: &[u8]) -> Option<&[u8]> {
    iter_obus(obus).map_while(Result::ok).find(|obu| obu.kind == obu_type::SEQUENCE_HEADER).map(|obu| obu.payload)
}

/// The temporal unit without temporal delimiters: a slice of it where they stand in front, as they should.
#[must_use]
pub fn strip_temporal_delimiters(data: &Bytes) -> Bytes {
    let is_delimiter = |obu: &Obu<'_>| obu.kind == obu_type::TEMPORAL_DELIMITER;
    let mut obus = iter_obus(data).map_while(Result::ok);
    let front: usize = obus.by_ref().take_while(is_delimiter).map(|obu| obu.raw.len()).sum();
    if !obus.any(|obu| is_delimiter(&obu)) {
        return data.slice(front..);
    }
    let mut out = BytesMut::with_capacity(data.len());
    let mut read = 0;
    for obu in iter_obus(data).map_while(Result::ok) {
        read += obu.raw.len();
        if !is_delimiter(&obu) {
            out.extend_from_slice(obu.raw);
        }
    }
    out.extend_from_slice(&data[read..]);
    out.freeze()
}

/// A track of temporal units, from a sequence header OBU.
///
/// # Errors
/// As [`av1c`].
pub fn track(sequence_header_obu: &[u8], source_number: u64, timescale_hz: u32) -> Result<Track, CodecError> {
    let codec_private = av1c(sequence_header_obu)?;
    let size = private_sequence_header(&codec_private).map(|h| VideoParams { width: h.width, height: h.height });
    Ok(Track {
        codec_private,
        video: size,
        in_band_parameter_sets: true,
        ..plain_track(TrackKind::Video, Codec::Av1, "AV1", source_number, timescale_hz)
    })
}

/// Sync: the first frame of the temporal unit is a key frame that is shown. (A key frame shown later needs those
/// before it to be skipped: a delayed random access point.)
pub(super) fn inspect(track: &Track, data: &[u8]) -> Inspection {
    let mut in_band = None;
    let mut sync = None;
    for obu in iter_obus(data).map_while(Result::ok) {
        match obu.kind {
            obu_type::SEQUENCE_HEADER => in_band = Some(obu),
            obu_type::FRAME_HEADER | obu_type::FRAME => {
                let reduced = in_band
                    .and_then(|obu| parse_sequence_header(obu.payload).ok())
                    .or_else(|| private_sequence_header(&track.codec_private))
                    .is_some_and(|header| header.reduced);
                sync = frame_sync(obu.payload, reduced);
                break;
            }
            _ => {}
        }
    }
    let known = track.codec_private.get(4..).and_then(sequence_header_payload);
    let changed = in_band.filter(|obu| known.is_some_and(|known| known != obu.payload));
    Inspection { sync, drops: Vec::new(), new_private: changed.and_then(|obu| av1c(obu.raw).ok()) }
}

/// `show_existing_frame`, `frame_type`, `show_frame` (AV1 bitstream specification section 5.9.2).
fn frame_sync(payload: &[u8], reduced: bool) -> Option<SyncKind> {
    let first = payload.first()?;
    Some(if reduced || first & 0xf0 == 0x10 { SyncKind::Sync } else { SyncKind::None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// As libaom writes it for 160x120 in `fixtures/data/av1_opus.mkv`.
    fn fixture_av1c() -> Vec<u8> {
        let clip = vidar_fixtures::read("av1_opus.mkv");
        let at = clip.windows(4).position(|bytes| bytes[..2] == [0x81, 0x00] && bytes[3] == 0).unwrap();
        let payload = sequence_header_payload(&clip[at + 4..at + 64]).unwrap();
        clip[at..at + 6 + payload.len()].to_vec()
    }

    #[test]
    fn av1c_is_made_as_ffmpeg_makes_it() {
        let expected = fixture_av1c();
        let header = private_sequence_header(&expected).unwrap();
        assert_eq!((header.width, header.height, header.bit_depth, header.profile), (160, 120, 8, 0));
        assert!(header.subsampled_x && header.subsampled_y && !header.monochrome && !header.reduced);
        assert_eq!(av1c(&expected[4..]).unwrap(), expected);
        let payload = sequence_header_payload(&expected[4..]).unwrap();
        let without_size = [&[obu_type::SEQUENCE_HEADER << 3], payload].concat();
        assert_eq!(av1c(&without_size).unwrap(), expected);
        for len in 0..expected.len() - 4 {
            assert!(av1c(&expected[4..4 + len]).is_err(), "{len}");
        }
    }

    #[test]
    fn delimiters_are_stripped_wherever_they_stand() {
        let unit = Bytes::from_static(&[0x12, 0, 0x32, 1, 0x10, 0x12, 0, 0x32, 1, 0x30]);
        assert_eq!(strip_temporal_delimiters(&unit.slice(..5)), &[0x32, 1, 0x10][..]);
        assert_eq!(strip_temporal_delimiters(&unit), &[0x32, 1, 0x10, 0x32, 1, 0x30][..]);
        assert_eq!(strip_temporal_delimiters(&unit.slice(2..5)), &[0x32, 1, 0x10][..]);
    }

    #[test]
    fn a_changed_sequence_header_makes_a_new_config() {
        let private = fixture_av1c();
        let track = track(&private[4..], 1, 90_000).unwrap();
        let key = [&private[4..], &[0x32, 1, 0x10]].concat();
        let same = inspect(&track, &key);
        assert_eq!((same.sync, same.new_private), (Some(SyncKind::Sync), None));
        let mut other = private.clone();
        let at = other.len() - 4;
        other[at] ^= 0x04;
        let key = [&other[4..], &[0x32, 1, 0x10]].concat();
        assert_eq!(inspect(&track, &key).new_private, Some(other.into()));
        assert_eq!(inspect(&track, &[0x32, 1, 0x30]).sync, Some(SyncKind::None));
        assert_eq!(inspect(&track, &[0x32, 1, 0x90]).sync, Some(SyncKind::None), "shows an old frame");
        assert_eq!(inspect(&track, &[]).sync, None);
    }

    proptest! {
        #[test]
        fn no_input_panics(data: Vec<u8>) {
            let _ = av1c(&[&[0x0a, 11], &data[..]].concat());
            let stripped = strip_temporal_delimiters(&data.clone().into());
            prop_assert!(stripped.len() <= data.len());
        }
    }
}
