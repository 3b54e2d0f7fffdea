//! VP9: the uncompressed header (VP9 bitstream specification section 6.2) and `vpcC` (VP codec ISO media file format
//! binding section 2).

use bytes::Bytes;

use super::CodecError;
use super::bits::BitReader;

/// What a key frame says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keyframe {
    /// 0 to 3.
    pub profile: u8,
    /// 8, 10 or 12.
    pub bit_depth: u8,
    /// `color_space`: 2 is BT.709, 7 RGB.
    pub color_space: u8,
    /// Values use all of their bits.
    pub full_range: bool,
    /// Chroma is half as wide.
    pub subsampled_x: bool,
    /// Chroma is half as high.
    pub subsampled_y: bool,
    /// In pixels.
    pub width: u32,
    /// In pixels.
    pub height: u32,
}

/// The header's start. None if the frame shows one that was sent before.
fn read_start(r: &mut BitReader<'_>) -> Result<(u8, Option<bool>), CodecError> {
    if r.bits(2)? != 2 {
        return Err(CodecError::new("no VP9 frame marker"));
    }
    let profile = r.byte(1)? | r.byte(1)? << 1;
    if profile == 3 {
        r.skip(1)?;
    }
    if r.flag()? {
        return Ok((profile, None));
    }
    let key = !r.flag()?;
    r.skip(2)?;
    Ok((profile, Some(key)))
}

/// Whether a frame, or the first of a superframe, is a key frame. None if it does not read.
#[must_use]
pub fn is_keyframe(frame: &[u8]) -> Option<bool> {
    let (_, key) = read_start(&mut BitReader::new(frame)).ok()?;
    Some(key == Some(true))
}

/// Reads a key frame's header.
///
/// # Errors
/// If it is no key frame, or ends early.
pub fn parse_keyframe(frame: &[u8]) -> Result<Keyframe, CodecError> {
    let mut r = BitReader::new(frame);
    let (profile, key) = read_start(&mut r)?;
    if key != Some(true) || r.bits(24)? != 0x49_8342 {
        return Err(CodecError::new("no VP9 key frame"));
    }
    let bit_depth = if profile < 2 { 8 } else { 10 + 2 * r.byte(1)? };
    let color_space = r.byte(3)?;
    let odd_profile = profile & 1 == 1;
    let (mut full_range, mut subsampled_x, mut subsampled_y) = (true, false, false);
    if color_space != 7 {
        full_range = r.flag()?;
        (subsampled_x, subsampled_y) = if odd_profile { (r.flag()?, r.flag()?) } else { (true, true) };
    }
    if odd_profile {
        r.skip(1)?;
    }
    let (width, height) = (r.bits(16)? + 1, r.bits(16)? + 1);
    Ok(Keyframe { profile, bit_depth, color_space, full_range, subsampled_x, subsampled_y, width, height })
}

/// VPCodecConfigurationRecord, without a full-box header. The level is the least that holds the picture size; colours
/// are as the header says, else unspecified.
#[must_use]
pub fn vpcc(key: &Keyframe) -> Bytes {
    let chroma = match (key.subsampled_x, key.subsampled_y) {
        (true, true) => 1,
        (true, false) => 2,
        _ => 3,
    };
    // Primaries, transfer, matrix of ISO/IEC 23091-2 by color_space.
    let colours = match key.color_space {
        1 => [6, 6, 6],
        2 => [1, 1, 1],
        3 => [6, 6, 6],
        4 => [7, 7, 7],
        5 => [9, 14, 9],
        7 => [1, 13, 0],
        _ => [2, 2, 2],
    };
    let depth = key.bit_depth << 4 | chroma << 1 | u8::from(key.full_range);
    Bytes::from([&[key.profile, level(key), depth][..], &colours, &[0, 0]].concat())
}

/// Ten times the level, by luma picture size (VP9 bitstream specification annex A).
fn level(key: &Keyframe) -> u8 {
    let luma = u64::from(key.width) * u64::from(key.height);
    [
        (36_864, 10),
        (73_728, 11),
        (122_880, 20),
        (245_760, 21),
        (552_960, 30),
        (983_040, 31),
        (2_228_224, 40),
        (8_912_896, 50),
    ]
    .into_iter()
    .find(|(most, _)| luma <= *most)
    .map_or(60, |(_, level)| level)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_keyframe_shows_its_size() {
        // Profile 0, shown, sync code, BT.601, 160x120.
        let frame = [0x82, 0x49, 0x83, 0x42, 0x20, 0x09, 0xf0, 0x07, 0x70];
        let key = parse_keyframe(&frame).unwrap();
        assert_eq!((key.width, key.height, key.bit_depth, key.profile), (160, 120, 8, 0));
        assert_eq!(&vpcc(&key)[..], [0, 10, 0x82, 6, 6, 6, 0, 0]);
        assert_eq!(is_keyframe(&frame), Some(true));
        assert_eq!(is_keyframe(&[0x86]), Some(false));
        assert_eq!(is_keyframe(&[0x88]), Some(false), "shows an old frame");
        assert_eq!(is_keyframe(&[0x02]), None);
        for len in 0..frame.len() {
            assert!(parse_keyframe(&frame[..len]).is_err());
        }
    }

    proptest! {
        #[test]
        fn no_input_panics(data: Vec<u8>) {
            let _ = is_keyframe(&data);
            let _ = parse_keyframe(&[&[0x82, 0x49, 0x83, 0x42], &data[..]].concat()).map(|key| vpcc(&key));
        }
    }
}
