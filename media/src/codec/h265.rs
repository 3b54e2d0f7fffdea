//! H.265: parameter sets, `hvcC`, and what NAL units show (ISO/IEC 23008-2; ISO/IEC 14496-15 section 8).
//!
//! NAL units of other layers than the base layer are kept and not looked into.

use bytes::{BufMut, Bytes, BytesMut};
use vidar_core::sample::SyncKind;
use vidar_core::track::{Codec, Track, VideoParams};

use super::bits::BitReader;
use super::{CodecError, ReorderDepth, nal, video_track};

/// `nal_unit_type` values (ISO/IEC 23008-2 table 7-1).
pub mod nal_type {
    /// First of the leading pictures that decode after their IRAP picture (RADL_N).
    pub const RADL_N: u8 = 6;
    /// Last of the leading pictures (RASL_R).
    pub const RASL_R: u8 = 9;
    /// First of the random access pictures (BLA_W_LP).
    pub const BLA_W_LP: u8 = 16;
    /// IDR picture that may have leading pictures.
    pub const IDR_W_RADL: u8 = 19;
    /// IDR picture without leading pictures.
    pub const IDR_N_LP: u8 = 20;
    /// Clean random access picture.
    pub const CRA: u8 = 21;
    /// Last of the types of random access pictures, reserved.
    pub const IRAP_LAST: u8 = 23;
    /// Last of the types of slices.
    pub const VCL_LAST: u8 = 31;
    /// Video parameter set.
    pub const VPS: u8 = 32;
    /// Sequence parameter set.
    pub const SPS: u8 = 33;
    /// Picture parameter set.
    pub const PPS: u8 = 34;
    /// Access unit delimiter.
    pub const AUD: u8 = 35;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 36;
    /// End of bitstream.
    pub const END_OF_BITSTREAM: u8 = 37;
    /// Filler data.
    pub const FILLER: u8 = 38;
    /// SEI before its picture.
    pub const PREFIX_SEI: u8 = 39;
    /// SEI after its picture.
    pub const SUFFIX_SEI: u8 = 40;
}

/// `nal_unit_type` of a NAL unit; 63 (unspecified) if it is shorter than its header.
#[must_use]
pub fn nal_unit_type(nal: &[u8]) -> u8 {
    if nal.len() < 2 { 63 } else { nal[0] >> 1 & 0x3f }
}

/// `nuh_layer_id`: 0 for the base layer.
#[must_use]
pub fn layer_id(nal: &[u8]) -> u8 {
    if nal.len() < 2 { 0 } else { (nal[0] & 1) << 5 | nal[1] >> 3 }
}

/// True for slice segments of coded pictures (types 0 to 31).
#[must_use]
pub fn is_vcl(nal: &[u8]) -> bool {
    nal_unit_type(nal) <= nal_type::VCL_LAST
}

/// True for the slice segment that begins a picture of the base layer: `first_slice_segment_in_pic_flag`.
#[must_use]
pub fn first_slice_segment_in_pic(nal: &[u8]) -> bool {
    is_vcl(nal) && layer_id(nal) == 0 && nal.get(2).is_some_and(|byte| byte & 0x80 != 0)
}

/// True for a NAL unit that begins an access unit if a slice segment came before it (ISO/IEC 23008-2 section
/// 7.4.2.4.4): AUD, parameter sets, prefix SEI, types 41 to 44 and 48 to 55, or the first segment of a picture.
#[must_use]
pub fn begins_access_unit(nal: &[u8]) -> bool {
    layer_id(nal) == 0 && matches!(nal_unit_type(nal), 32..=35 | 39 | 41..=44 | 48..=55)
        || first_slice_segment_in_pic(nal)
}

/// What the first slice segment of the base layer shows.
pub(crate) fn sync<'a>(mut nals: impl Iterator<Item = &'a [u8]>) -> SyncKind {
    use nal_type::{BLA_W_LP, IRAP_LAST, RADL_N, RASL_R};
    match nals.find(|nal| is_vcl(nal) && layer_id(nal) == 0).map(nal_unit_type) {
        Some(BLA_W_LP..=IRAP_LAST) => SyncKind::Sync,
        Some(RADL_N..=RASL_R) => SyncKind::Leading,
        _ => SyncKind::None,
    }
}

/// A sequence parameter set (ISO/IEC 23008-2 section 7.3.2.2), as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// `sps_seq_parameter_set_id`.
    pub id: u8,
    /// `general_profile_space`, `general_tier_flag`, `general_profile_idc` in one byte.
    pub profile: u8,
    /// `general_profile_compatibility_flag`s, the first in the highest bit.
    pub compatibility_flags: u32,
    /// The 48 bits of `general_progressive_source_flag` and what follows.
    pub constraint_flags: [u8; 6],
    /// `general_level_idc`: 30 times the level.
    pub level_idc: u8,
    /// `sps_max_sub_layers_minus1` + 1.
    pub sub_layers: u8,
    /// `sps_temporal_id_nesting_flag`.
    pub temporal_id_nesting: bool,
    /// `chroma_format_idc`.
    pub chroma_format_idc: u8,
    /// Bits of a luma value.
    pub bit_depth_luma: u8,
    /// Bits of a chroma value.
    pub bit_depth_chroma: u8,
    /// After cropping by the conformance window, in pixels.
    pub width: u32,
    /// After cropping by the conformance window, in pixels.
    pub height: u32,
    /// `sps_max_num_reorder_pics` of the highest sub-layer.
    pub reorder: ReorderDepth,
    /// Frames (numerator) in seconds (denominator), from the VUI.
    pub frame_rate: Option<(u32, u32)>,
    /// `min_spatial_segmentation_idc`, from the VUI; 0 if it does not say.
    pub min_spatial_segmentation: u16,
    /// `separate_colour_plane_flag`: slice headers carry a plane id.
    pub separate_planes: bool,
    /// `log2_max_pic_order_cnt_lsb_minus4` + 4: bits of `slice_pic_order_cnt_lsb` in slice headers.
    pub order_bits: u8,
}

/// Largest width and height believed, in pixels. Level 6.2 ends below it, level 7.2 at it.
const SIDE_MAX: u32 = 1 << 15;

/// Reads a sequence parameter set of the base layer. What follows the VUI is ignored; if it breaks after the fields
/// needed, the rest counts as absent.
///
/// # Errors
/// If the NAL unit is of another type, ends early, or holds impossible values.
pub fn parse_sps(nal: &[u8]) -> Result<Sps, CodecError> {
    if nal_unit_type(nal) != nal_type::SPS {
        return Err(CodecError::new(format!("NAL unit of type {}, expected an SPS (33)", nal_unit_type(nal))));
    }
    let payload = nal::unescape(&nal[2..]);
    let mut r = BitReader::new(&payload);
    r.skip(4)?;
    let sub_layers = r.byte(3)? + 1;
    let temporal_id_nesting = r.flag()?;
    let profile = r.byte(8)?;
    let compatibility_flags = r.bits(32)?;
    let mut constraint_flags = [0; 6];
    for byte in &mut constraint_flags {
        *byte = r.byte(8)?;
    }
    let level_idc = r.byte(8)?;
    skip_sub_layer_profiles(&mut r, sub_layers)?;
    let id = r.ue_max(15, "sps_seq_parameter_set_id")? as u8;
    let chroma_format_idc = r.ue_max(3, "chroma_format_idc")? as u8;
    let separate_planes = chroma_format_idc == 3 && r.flag()?;
    let (width, height) = (r.ue_max(SIDE_MAX, "width")?, r.ue_max(SIDE_MAX, "height")?);
    let mut crop = [0; 4];
    if r.flag()? {
        for side in &mut crop {
            *side = r.ue_max(SIDE_MAX, "conformance window")?;
        }
    }
    let unit_x = if !separate_planes && matches!(chroma_format_idc, 1 | 2) { 2 } else { 1 };
    let unit_y = if !separate_planes && chroma_format_idc == 1 { 2 } else { 1 };
    let cropped = |side: u32, crop: u32, unit: u32| side.checked_sub(crop * unit).filter(|side| *side > 0);
    let width = cropped(width, crop[0] + crop[1], unit_x);
    let height = cropped(height, crop[2] + crop[3], unit_y);
    let (Some(width), Some(height)) = (width, height) else {
        return Err(CodecError::new("SPS crops the whole picture away"));
    };
    let bit_depth_luma = r.ue_max(8, "bit_depth_luma_minus8")? as u8 + 8;
    let bit_depth_chroma = r.ue_max(8, "bit_depth_chroma_minus8")? as u8 + 8;
    let order_bits = r.ue_max(12, "log2_max_pic_order_cnt_lsb_minus4")? as u8 + 4;
    let of_every_sub_layer = r.flag()?;
    let mut reorder = 0;
    for _ in 0..if of_every_sub_layer { sub_layers } else { 1 } {
        r.ue()?;
        reorder = r.ue_max(16, "sps_max_num_reorder_pics")? as u8;
        r.ue()?;
    }
    let mut tail = Tail::default();
    let _ = read_tail(&mut r, order_bits.into(), sub_layers, &mut tail);
    Ok(Sps {
        id,
        profile,
        compatibility_flags,
        constraint_flags,
        level_idc,
        sub_layers,
        temporal_id_nesting,
        chroma_format_idc,
        bit_depth_luma,
        bit_depth_chroma,
        width,
        height,
        reorder: ReorderDepth { depth: reorder, exact: true },
        frame_rate: tail.frame_rate,
        min_spatial_segmentation: tail.min_spatial_segmentation,
        separate_planes,
        order_bits,
    })
}

/// ISO/IEC 23008-2 section 7.3.3, after the general part.
fn skip_sub_layer_profiles(r: &mut BitReader<'_>, sub_layers: u8) -> Result<(), CodecError> {
    let mut bits = 0;
    for _ in 1..sub_layers {
        bits += if r.flag()? { 88 } else { 0 };
        bits += if r.flag()? { 8 } else { 0 };
    }
    if sub_layers > 1 {
        r.skip(2 * (9 - usize::from(sub_layers)))?;
    }
    r.skip(bits)
}

#[derive(Default)]
struct Tail {
    frame_rate: Option<(u32, u32)>,
    min_spatial_segmentation: u16,
}

/// From the block sizes to the VUI.
fn read_tail(r: &mut BitReader<'_>, order_bits: usize, sub_layers: u8, tail: &mut Tail) -> Result<(), CodecError> {
    for _ in 0..6 {
        r.ue()?;
    }
    if r.flag()? && r.flag()? {
        skip_scaling_lists(r)?;
    }
    r.skip(2)?;
    if r.flag()? {
        r.skip(8)?;
        r.ue()?;
        r.ue()?;
        r.skip(1)?;
    }
    skip_ref_pic_sets(r)?;
    if r.flag()? {
        for _ in 0..r.ue_max(32, "num_long_term_ref_pics_sps")? {
            r.skip(order_bits + 1)?;
        }
    }
    r.skip(2)?;
    if r.flag()? { read_vui(r, sub_layers, tail) } else { Ok(()) }
}

/// ISO/IEC 23008-2 section 7.3.4.
fn skip_scaling_lists(r: &mut BitReader<'_>) -> Result<(), CodecError> {
    for size in 0..4_usize {
        // Of 32x32 only matrices 0 and 3 are sent, in all chroma formats (4:4:4 derives the others).
        for _ in (0..6).step_by(if size == 3 { 3 } else { 1 }) {
            if !r.flag()? {
                r.ue()?;
                continue;
            }
            if size > 1 {
                r.se()?;
            }
            for _ in 0..64.min(1 << (4 + 2 * size)) {
                r.se()?;
            }
        }
    }
    Ok(())
}

/// All `st_ref_pic_set`s of an SPS (ISO/IEC 23008-2 section 7.3.7). With inter prediction the number of flags depends
/// on the pictures in the set before (`NumDeltaPocs`), so that these are counted.
fn skip_ref_pic_sets(r: &mut BitReader<'_>) -> Result<(), CodecError> {
    let mut pictures = 0_u32;
    for index in 0..r.ue_max(64, "num_short_term_ref_pic_sets")? {
        let predicted = index > 0 && r.flag()?;
        if predicted {
            // delta_idx_minus1 stands in slice headers only.
            r.skip(1)?;
            r.ue()?;
            let mut used = 0;
            for _ in 0..=pictures {
                let used_by_current = r.flag()?;
                let use_delta = used_by_current || r.flag()?;
                used += u32::from(use_delta);
            }
            pictures = used;
        } else {
            let (negative, positive) = (r.ue_max(16, "num_negative_pics")?, r.ue_max(16, "num_positive_pics")?);
            pictures = negative + positive;
            for _ in 0..pictures {
                r.ue()?;
                r.skip(1)?;
            }
        }
    }
    Ok(())
}

/// ISO/IEC 23008-2 section E.2.1.
fn read_vui(r: &mut BitReader<'_>, sub_layers: u8, tail: &mut Tail) -> Result<(), CodecError> {
    if r.flag()? && r.bits(8)? == 255 {
        r.skip(32)?;
    }
    if r.flag()? {
        r.skip(1)?;
    }
    if r.flag()? {
        r.skip(4)?;
        if r.flag()? {
            r.skip(24)?;
        }
    }
    if r.flag()? {
        r.ue()?;
        r.ue()?;
    }
    r.skip(3)?;
    if r.flag()? {
        for _ in 0..4 {
            r.ue()?;
        }
    }
    if r.flag()? {
        let (units, scale) = (r.bits(32)?, r.bits(32)?);
        tail.frame_rate = super::frame_rate(scale.into(), units.into());
        if r.flag()? {
            r.ue()?;
        }
        if r.flag()? {
            skip_hrd(r, sub_layers)?;
        }
    }
    if r.flag()? {
        r.skip(3)?;
        tail.min_spatial_segmentation = r.ue_max(4095, "min_spatial_segmentation_idc")? as u16;
    }
    Ok(())
}

/// ISO/IEC 23008-2 section E.2.2, with common information.
fn skip_hrd(r: &mut BitReader<'_>, sub_layers: u8) -> Result<(), CodecError> {
    let (nal, vcl) = (r.flag()?, r.flag()?);
    let mut sub_pictures = false;
    if nal || vcl {
        sub_pictures = r.flag()?;
        r.skip(if sub_pictures { 19 } else { 0 } + 8)?;
        r.skip(if sub_pictures { 4 } else { 0 } + 15)?;
    }
    for _ in 0..sub_layers {
        let fixed_general = r.flag()?;
        let fixed = fixed_general || r.flag()?;
        let mut low_delay = false;
        if fixed {
            r.ue()?;
        } else {
            low_delay = r.flag()?;
        }
        let count = if low_delay { 1 } else { r.ue_max(31, "cpb_cnt_minus1")? + 1 };
        for _ in 0..count * (u32::from(nal) + u32::from(vcl)) {
            for _ in 0..if sub_pictures { 4 } else { 2 } {
                r.ue()?;
            }
            r.skip(1)?;
        }
    }
    Ok(())
}

/// What an HEVCDecoderConfigurationRecord holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hvcc {
    /// Bytes of a NAL unit's length field: 1, 2 or 4.
    pub length_size: u8,
    /// Video parameter sets.
    pub vps: Vec<Bytes>,
    /// Sequence parameter sets.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
}

/// Writes an HEVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 8.3.3) for lengths of 4 bytes.
///
/// The arrays are marked complete: samples may still hold sets of their own, and the sample entry (`hvc1` or `hev1`)
/// says which it is. Without VPS (seen from cameras) the record has no array of them.
///
/// # Errors
/// If there is no SPS or no PPS, too many or too long ones, or the first SPS does not parse.
pub fn hvcc(vps: &[Bytes], sps: &[Bytes], pps: &[Bytes]) -> Result<Bytes, CodecError> {
    hvcc_with(vps, sps, pps, 4)
}

pub(super) fn hvcc_with(vps: &[Bytes], sps: &[Bytes], pps: &[Bytes], length_size: u8) -> Result<Bytes, CodecError> {
    let (Some(first), false) = (sps.first(), pps.is_empty()) else {
        return Err(CodecError::new("hvcC needs an SPS and a PPS"));
    };
    let arrays = [(nal_type::VPS, vps), (nal_type::SPS, sps), (nal_type::PPS, pps)];
    if arrays.iter().any(|(_, sets)| sets.len() > 255 || sets.iter().any(|set| set.len() > 0xffff)) {
        return Err(CodecError::new("more or longer parameter sets than hvcC holds"));
    }
    let facts = parse_sps(first)?;
    let mut out = BytesMut::new();
    out.put_slice(&[1, facts.profile]);
    out.put_u32(facts.compatibility_flags);
    out.put_slice(&facts.constraint_flags);
    out.put_u8(facts.level_idc);
    out.put_u16(0xf000 | facts.min_spatial_segmentation);
    // Parallelism unknown; then chroma format, bit depths, average frame rate unknown.
    out.put_slice(&[0xfc, 0xfc | facts.chroma_format_idc]);
    out.put_slice(&[0xf8 | (facts.bit_depth_luma - 8), 0xf8 | (facts.bit_depth_chroma - 8), 0, 0]);
    out.put_u8(facts.sub_layers << 3 | u8::from(facts.temporal_id_nesting) << 2 | (length_size - 1) & 3);
    out.put_u8(arrays.iter().filter(|(_, sets)| !sets.is_empty()).count() as u8);
    for (kind, sets) in arrays.into_iter().filter(|(_, sets)| !sets.is_empty()) {
        out.put_u8(0x80 | kind);
        out.put_u16(sets.len() as u16);
        for set in sets {
            out.put_u16(set.len() as u16);
            out.put_slice(set);
        }
    }
    Ok(out.freeze())
}

/// Reads an HEVCDecoderConfigurationRecord. Parameter sets behind start codes in its place are read too, for lengths
/// of 4 bytes. Arrays of other types (SEI) are left out.
///
/// # Errors
/// If it ends within its sets, or is of another version.
pub fn parse_hvcc(data: &[u8]) -> Result<Hvcc, CodecError> {
    let mut hvcc = Hvcc { length_size: 4, vps: Vec::new(), sps: Vec::new(), pps: Vec::new() };
    if nal::is_annex_b(data) {
        nal::split_annex_b(&Bytes::copy_from_slice(data)).into_iter().for_each(|nal| hvcc.add(nal));
        return Ok(hvcc);
    }
    let Some((head, mut rest)) = data.split_at_checked(23) else {
        return Err(CodecError::new(format!("hvcC of {} bytes, expected 23 and more", data.len())));
    };
    // Version 0 was written by early ffmpeg.
    if head[0] > 1 {
        return Err(CodecError::new(format!("hvcC of version {}", head[0])));
    }
    hvcc.length_size = (head[21] & 3) + 1;
    if hvcc.length_size == 3 {
        return Err(CodecError::new("hvcC with NAL unit lengths of 3 bytes"));
    }
    for _ in 0..head[22] {
        super::take_byte(&mut rest)?;
        let count = u16::from_be_bytes([super::take_byte(&mut rest)?, super::take_byte(&mut rest)?]);
        super::take_sets(&mut rest, count.into())?.into_iter().for_each(|nal| hvcc.add(nal));
    }
    Ok(hvcc)
}

impl Hvcc {
    fn add(&mut self, nal: Bytes) {
        match nal_unit_type(&nal) {
            nal_type::VPS => self.vps.push(nal),
            nal_type::SPS => self.sps.push(nal),
            nal_type::PPS => self.pps.push(nal),
            _ => {}
        }
    }
}

/// A track of H.265 in samples with lengths of 4 bytes.
///
/// # Errors
/// As [`hvcc`].
pub fn track(
    vps: &[Bytes],
    sps: &[Bytes],
    pps: &[Bytes],
    source_number: u64,
    timescale_hz: u32,
) -> Result<Track, CodecError> {
    let codec_private = hvcc(vps, sps, pps)?;
    let facts = parse_sps(&sps[0])?;
    let size = VideoParams { width: facts.width, height: facts.height };
    Ok(video_track(Codec::H265, codec_private, size, source_number, timescale_hz))
}

/// Id of a VPS, SPS or PPS of the base layer, with its kind; none for other NAL units.
pub(super) fn parameter_set_id(nal: &[u8]) -> Option<(u8, u32)> {
    let kind = nal_unit_type(nal);
    if layer_id(nal) != 0 {
        return None;
    }
    let id = match kind {
        nal_type::VPS => u32::from(nal.get(2)? >> 4),
        nal_type::PPS => BitReader::new(&nal::payload_start(nal, 2)).ue().ok()?,
        nal_type::SPS => parse_sps(nal).map_or(0, |sps| sps.id.into()),
        _ => return None,
    };
    Some((kind, id))
}

#[cfg(test)]
#[path = "h265_tests.rs"]
mod tests;
