//! H.264: parameter sets, `avcC`, and what NAL units show (ISO/IEC 14496-10; ISO/IEC 14496-15 section 5).

use bytes::{BufMut, Bytes, BytesMut};
use vidar_core::sample::SyncKind;
use vidar_core::track::{Codec, Track, VideoParams};

use super::bits::BitReader;
use super::{CodecError, ReorderDepth, nal, video_track};

/// `nal_unit_type` values (ISO/IEC 14496-10 table 7-1).
pub mod nal_type {
    /// Slice of a picture that is no IDR picture.
    pub const SLICE: u8 = 1;
    /// Slice data partition A.
    pub const PARTITION_A: u8 = 2;
    /// Slice of an IDR picture.
    pub const IDR: u8 = 5;
    /// Supplemental enhancement information.
    pub const SEI: u8 = 6;
    /// Sequence parameter set.
    pub const SPS: u8 = 7;
    /// Picture parameter set.
    pub const PPS: u8 = 8;
    /// Access unit delimiter.
    pub const AUD: u8 = 9;
    /// End of sequence.
    pub const END_OF_SEQUENCE: u8 = 10;
    /// End of stream.
    pub const END_OF_STREAM: u8 = 11;
    /// Filler data.
    pub const FILLER: u8 = 12;
    /// Prefix NAL unit of scalable coding.
    pub const PREFIX: u8 = 14;
}

/// `nal_unit_type` of a NAL unit; 0 if it is empty.
#[must_use]
pub fn nal_unit_type(nal: &[u8]) -> u8 {
    nal.first().map_or(0, |byte| byte & 0x1f)
}

/// True for slices of coded pictures (types 1 to 5).
#[must_use]
pub fn is_vcl(nal: &[u8]) -> bool {
    (nal_type::SLICE..=nal_type::IDR).contains(&nal_unit_type(nal))
}

/// True for the slice that begins a picture: `first_mb_in_slice` is 0. Arbitrary slice order (Baseline only) is not
/// looked through.
#[must_use]
pub fn first_slice_in_picture(nal: &[u8]) -> bool {
    matches!(nal_unit_type(nal), nal_type::SLICE | nal_type::PARTITION_A | nal_type::IDR)
        && nal.get(1).is_some_and(|byte| byte & 0x80 != 0)
}

/// True for a NAL unit that begins an access unit if a slice came before it: AUD, SPS, PPS, SEI, types 14 to 18, or
/// the first slice of a picture (ISO/IEC 14496-10 section 7.4.1.2.3).
#[must_use]
pub fn begins_access_unit(nal: &[u8]) -> bool {
    matches!(nal_unit_type(nal), 6..=9 | 14..=18) || first_slice_in_picture(nal)
}

/// `slice_type` modulo 5 is 2 (I) or 4 (SI) (ISO/IEC 14496-10 table 7-6).
fn is_intra_slice(nal: &[u8]) -> bool {
    let payload = nal::payload_start(nal, 1);
    let mut r = BitReader::new(&payload);
    r.ue().is_ok() && r.ue().is_ok_and(|slice_type| matches!(slice_type % 5, 2 | 4))
}

/// `recovery_frame_cnt` of a recovery point SEI message (ISO/IEC 14496-10 section D.1.8), if the NAL unit has one.
#[must_use]
pub fn recovery_frame_count(sei: &[u8]) -> Option<u32> {
    let payload = nal::unescape(sei.get(1..)?);
    let (_, message) = nal::sei_messages(&payload).into_iter().find(|(kind, _)| *kind == 6)?;
    BitReader::new(message).ue().ok()
}

/// Where decoding can start: IDR pictures, and intra pictures with a recovery point at once (open GOPs).
#[derive(Debug, Default)]
struct SyncFinder {
    idr: bool,
    recovery: bool,
    slice: bool,
    inter: bool,
}

impl SyncFinder {
    fn push(&mut self, nal: &[u8]) {
        match nal_unit_type(nal) {
            nal_type::IDR => self.idr = true,
            nal_type::SEI => self.recovery |= recovery_frame_count(nal) == Some(0),
            nal_type::SLICE | nal_type::PARTITION_A if !self.inter => {
                self.slice = true;
                self.inter = !is_intra_slice(nal);
            }
            _ => {}
        }
    }

    fn sync(&self) -> SyncKind {
        if self.idr || self.recovery && self.slice && !self.inter { SyncKind::Sync } else { SyncKind::None }
    }
}

/// What the NAL units of an access unit show.
pub(crate) fn sync<'a>(nals: impl Iterator<Item = &'a [u8]>) -> SyncKind {
    let mut finder = SyncFinder::default();
    nals.for_each(|nal| finder.push(nal));
    finder.sync()
}

/// Which field of which frame a slice is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Field {
    pub(crate) frame_num: u32,
    pub(crate) bottom: bool,
}

/// The field a slice is of (ISO/IEC 14496-10 section 7.3.3). None if it is of a frame.
pub(crate) fn field(slice: &[u8], sps: &Sps) -> Option<Field> {
    if sps.frames_only {
        return None;
    }
    let payload = nal::payload_start(slice, 1);
    let mut r = BitReader::new(&payload);
    for _ in 0..3 {
        r.ue().ok()?;
    }
    r.skip(if sps.separate_planes { 2 } else { 0 }).ok()?;
    let frame_num = r.bits(sps.frame_num_bits.into()).ok()?;
    let is_field = r.flag().ok()?;
    let bottom = is_field && r.flag().ok()?;
    is_field.then_some(Field { frame_num, bottom })
}

/// A sequence parameter set (ISO/IEC 14496-10 section 7.3.2.1.1), as far as it matters here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sps {
    /// `seq_parameter_set_id`.
    pub id: u8,
    /// `profile_idc`.
    pub profile_idc: u8,
    /// `constraint_set0_flag` in the highest bit.
    pub constraint_flags: u8,
    /// `level_idc`.
    pub level_idc: u8,
    /// `chroma_format_idc`: 0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4.
    pub chroma_format_idc: u8,
    /// Bits of a luma value.
    pub bit_depth_luma: u8,
    /// Bits of a chroma value.
    pub bit_depth_chroma: u8,
    /// After cropping, in pixels.
    pub width: u32,
    /// After cropping, in pixels.
    pub height: u32,
    /// Pictures out of order.
    pub reorder: ReorderDepth,
    /// Frames (numerator) in seconds (denominator), from the VUI.
    pub frame_rate: Option<(u32, u32)>,
    /// `frame_mbs_only_flag`: no fields.
    pub frames_only: bool,
    /// `log2_max_frame_num_minus4` + 4: bits of `frame_num` in slice headers.
    pub frame_num_bits: u8,
    /// `separate_colour_plane_flag`: slice headers carry a plane id.
    pub separate_planes: bool,
    /// `log2_max_pic_order_cnt_lsb_minus4` + 4: bits of `pic_order_cnt_lsb` in slice headers. None unless
    /// `pic_order_cnt_type` is 0.
    pub order_bits: Option<u8>,
}

/// Largest width and height believed, in pixels. Level 6.2 ends below it.
const SIDE_MAX: u32 = 1 << 15;

/// Profiles whose SPS carries chroma format and bit depths.
fn is_high_profile(profile_idc: u8) -> bool {
    matches!(profile_idc, 100 | 110 | 122 | 244 | 44 | 83 | 86 | 118 | 128 | 138 | 139 | 134 | 135)
}

/// Reads a sequence parameter set. What follows the last field is ignored; a broken VUI counts as none.
///
/// # Errors
/// If the NAL unit is of another type, ends early, or holds impossible values.
pub fn parse_sps(nal: &[u8]) -> Result<Sps, CodecError> {
    if nal_unit_type(nal) != nal_type::SPS {
        return Err(CodecError::new(format!("NAL unit of type {}, expected an SPS (7)", nal_unit_type(nal))));
    }
    let payload = nal::unescape(&nal[1..]);
    let mut r = BitReader::new(&payload);
    let (profile_idc, constraint_flags, level_idc) = (r.byte(8)?, r.byte(8)?, r.byte(8)?);
    let id = r.ue_max(31, "seq_parameter_set_id")? as u8;
    let (mut chroma_format_idc, mut separate_planes, mut luma, mut chroma) = (1, false, 0, 0);
    if is_high_profile(profile_idc) {
        chroma_format_idc = r.ue_max(3, "chroma_format_idc")? as u8;
        separate_planes = chroma_format_idc == 3 && r.flag()?;
        luma = r.ue_max(6, "bit_depth_luma_minus8")? as u8;
        chroma = r.ue_max(6, "bit_depth_chroma_minus8")? as u8;
        r.skip(1)?;
        if r.flag()? {
            skip_scaling_lists(&mut r, if chroma_format_idc == 3 { 12 } else { 8 })?;
        }
    }
    let frame_num_bits = r.ue_max(12, "log2_max_frame_num_minus4")? as u8 + 4;
    let (poc_type, order_bits) = read_poc(&mut r)?;
    r.ue()?;
    r.skip(1)?;
    let (width_mbs, height_units) = (side(r.ue()?)?, side(r.ue()?)?);
    let frames_only = r.flag()?;
    if !frames_only {
        r.skip(1)?;
    }
    r.skip(1)?;
    let height_mbs = height_units * if frames_only { 1 } else { 2 };
    let mut crop = [0; 4];
    if r.flag()? {
        for side in &mut crop {
            *side = r.ue_max(SIDE_MAX, "cropping")?;
        }
    }
    // Without colour planes of its own, a unit of cropping is one luma value (ChromaArrayType 0).
    let chroma_array_type = if separate_planes { 0 } else { chroma_format_idc };
    let unit_x = if matches!(chroma_array_type, 1 | 2) { 2 } else { 1 };
    let unit_y = if chroma_array_type == 1 { 2 } else { 1 } * if frames_only { 1 } else { 2 };
    let cropped = |mbs: u32, crop: u32, unit: u32| (mbs * 16).checked_sub(crop * unit).filter(|side| *side > 0);
    let width = cropped(width_mbs, crop[0] + crop[1], unit_x);
    let height = cropped(height_mbs, crop[2] + crop[3], unit_y);
    let (Some(width), Some(height)) = (width, height) else {
        return Err(CodecError::new("SPS crops the whole picture away"));
    };
    let vui = if r.flag().unwrap_or(false) { parse_vui(&mut r) } else { Vui::default() };
    let intra_only = matches!(profile_idc, 44 | 86 | 100 | 110 | 122 | 244) && constraint_flags & 0x10 != 0;
    let reorder = match vui.reorder {
        _ if poc_type == 2 => ReorderDepth { depth: 0, exact: true },
        Some(depth) => ReorderDepth { depth, exact: true },
        None if profile_idc == 66 || intra_only => ReorderDepth { depth: 0, exact: true },
        None => ReorderDepth {
            depth: dpb_frames(level_idc, profile_idc, constraint_flags, width_mbs * height_mbs),
            exact: false,
        },
    };
    Ok(Sps {
        id,
        profile_idc,
        constraint_flags,
        level_idc,
        chroma_format_idc,
        bit_depth_luma: luma + 8,
        bit_depth_chroma: chroma + 8,
        width,
        height,
        reorder,
        frame_rate: vui.frame_rate,
        frames_only,
        frame_num_bits,
        separate_planes,
        order_bits,
    })
}

/// In macroblocks, from the field that holds one less.
fn side(minus1: u32) -> Result<u32, CodecError> {
    if minus1 < SIDE_MAX / 16 {
        Ok(minus1 + 1)
    } else {
        Err(CodecError::new(format!("picture side of {minus1} + 1 macroblocks")))
    }
}

/// ISO/IEC 14496-10 section 7.3.2.1.1.1.
fn skip_scaling_lists(r: &mut BitReader<'_>, count: usize) -> Result<(), CodecError> {
    for list in 0..count {
        if !r.flag()? {
            continue;
        }
        let (mut last, mut next) = (8_i64, 8_i64);
        for _ in 0..if list < 6 { 16 } else { 64 } {
            if next != 0 {
                next = (last + r.se()?).rem_euclid(256);
            }
            if next != 0 {
                last = next;
            }
        }
    }
    Ok(())
}

/// The picture order count fields: `pic_order_cnt_type`, and bits of `pic_order_cnt_lsb` if that is 0.
fn read_poc(r: &mut BitReader<'_>) -> Result<(u32, Option<u8>), CodecError> {
    let poc_type = r.ue_max(2, "pic_order_cnt_type")?;
    let mut order_bits = None;
    if poc_type == 0 {
        order_bits = Some(r.ue_max(12, "log2_max_pic_order_cnt_lsb_minus4")? as u8 + 4);
    } else if poc_type == 1 {
        r.skip(1)?;
        r.se()?;
        r.se()?;
        for _ in 0..r.ue_max(255, "num_ref_frames_in_pic_order_cnt_cycle")? {
            r.se()?;
        }
    }
    Ok((poc_type, order_bits))
}

#[derive(Default)]
struct Vui {
    frame_rate: Option<(u32, u32)>,
    reorder: Option<u8>,
}

/// ISO/IEC 14496-10 section E.1.1. Some cameras end the SPS within it: what was read before holds.
fn parse_vui(r: &mut BitReader<'_>) -> Vui {
    let mut vui = Vui::default();
    let _ = read_vui(r, &mut vui);
    vui
}

fn read_vui(r: &mut BitReader<'_>, vui: &mut Vui) -> Result<(), CodecError> {
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
    if r.flag()? {
        let (units, scale) = (r.bits(32)?, r.bits(32)?);
        r.skip(1)?;
        // A tick is a field: two make a frame.
        vui.frame_rate = super::frame_rate(u64::from(scale), u64::from(units) * 2);
    }
    let nal_hrd = r.flag()?;
    if nal_hrd {
        skip_hrd(r)?;
    }
    let vcl_hrd = r.flag()?;
    if vcl_hrd {
        skip_hrd(r)?;
    }
    r.skip(1 + usize::from(nal_hrd || vcl_hrd))?;
    if r.flag()? {
        r.skip(1)?;
        for _ in 0..4 {
            r.ue()?;
        }
        let (reorder, buffered) = (r.ue()?, r.ue()?);
        // Seen: garbage here. The standard bounds both by 16 and the first by the second.
        vui.reorder = u8::try_from(reorder).ok().filter(|_| reorder <= 16 && reorder <= buffered);
    }
    Ok(())
}

/// ISO/IEC 14496-10 section E.1.2.
fn skip_hrd(r: &mut BitReader<'_>) -> Result<(), CodecError> {
    let count = r.ue_max(31, "cpb_cnt_minus1")? + 1;
    r.skip(8)?;
    for _ in 0..count {
        r.ue()?;
        r.ue()?;
        r.skip(1)?;
    }
    r.skip(20)
}

/// MaxDpbFrames: MaxDpbMbs of the level (ISO/IEC 14496-10 table A-1) over the size, at most 16.
fn dpb_frames(level_idc: u8, profile_idc: u8, constraint_flags: u8, picture_mbs: u32) -> u8 {
    let level_1b = level_idc == 11 && matches!(profile_idc, 66 | 77 | 88) && constraint_flags & 0x10 != 0;
    let mbs = match level_idc {
        9 | 10 => 396,
        11 if level_1b => 396,
        11 => 900,
        12 | 13 | 20 => 2376,
        21 => 4752,
        22 | 30 => 8100,
        31 => 18_000,
        32 => 20_480,
        40 | 41 => 32_768,
        42 => 34_816,
        50 => 110_400,
        51 | 52 => 184_320,
        60..=62 => 696_320,
        _ => u32::MAX,
    };
    (mbs / picture_mbs.max(1)).min(16) as u8
}

/// What an AVCDecoderConfigurationRecord holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Avcc {
    /// Bytes of a NAL unit's length field: 1, 2 or 4.
    pub length_size: u8,
    /// Sequence parameter sets.
    pub sps: Vec<Bytes>,
    /// Picture parameter sets.
    pub pps: Vec<Bytes>,
}

/// Writes an AVCDecoderConfigurationRecord (ISO/IEC 14496-15 section 5.3.3) for lengths of 4 bytes.
///
/// # Errors
/// If there is no SPS or no PPS, too many or too long ones, or the first SPS does not parse.
pub fn avcc(sps: &[Bytes], pps: &[Bytes]) -> Result<Bytes, CodecError> {
    avcc_with(sps, pps, 4)
}

pub(super) fn avcc_with(sps: &[Bytes], pps: &[Bytes], length_size: u8) -> Result<Bytes, CodecError> {
    let (Some(first), false) = (sps.first(), pps.is_empty()) else {
        return Err(CodecError::new("avcC needs an SPS and a PPS"));
    };
    if sps.len() > 31 || pps.len() > 255 || sps.iter().chain(pps).any(|set| set.len() > 0xffff) {
        return Err(CodecError::new("more or longer parameter sets than avcC holds"));
    }
    let facts = parse_sps(first)?;
    let mut out = BytesMut::new();
    out.put_slice(&[1, facts.profile_idc, facts.constraint_flags, facts.level_idc]);
    out.put_u8(0xfc | (length_size - 1) & 3);
    out.put_u8(0xe0 | sps.len() as u8);
    put_sets(&mut out, sps);
    out.put_u8(pps.len() as u8);
    put_sets(&mut out, pps);
    // Section 5.3.3.1.2: every profile but 66, 77 and 88.
    if is_high_profile(facts.profile_idc) {
        out.put_slice(&[
            0xfc | facts.chroma_format_idc,
            0xf8 | (facts.bit_depth_luma - 8),
            0xf8 | (facts.bit_depth_chroma - 8),
            0,
        ]);
    }
    Ok(out.freeze())
}

fn put_sets(out: &mut BytesMut, sets: &[Bytes]) {
    for set in sets {
        out.put_u16(set.len() as u16);
        out.put_slice(set);
    }
}

/// Reads an AVCDecoderConfigurationRecord. Parameter sets behind start codes in its place (seen from cameras and
/// producers) are read too, for lengths of 4 bytes. Sets of other types within the record are left out.
///
/// # Errors
/// If it ends within its sets, or is of another version.
pub fn parse_avcc(data: &[u8]) -> Result<Avcc, CodecError> {
    let is_sps = |nal: &Bytes| nal_unit_type(nal) == nal_type::SPS;
    let is_pps = |nal: &Bytes| nal_unit_type(nal) == nal_type::PPS;
    if nal::is_annex_b(data) {
        let (sps, others): (Vec<_>, Vec<_>) =
            nal::split_annex_b(&Bytes::copy_from_slice(data)).into_iter().partition(is_sps);
        return Ok(Avcc { length_size: 4, sps, pps: others.into_iter().filter(is_pps).collect() });
    }
    let [1, _, _, _, lengths, sps_count, rest @ ..] = data else {
        return Err(CodecError::new("no avcC of version 1"));
    };
    let length_size = (lengths & 3) + 1;
    if length_size == 3 {
        return Err(CodecError::new("avcC with NAL unit lengths of 3 bytes"));
    }
    let mut rest = rest;
    let mut sps = super::take_sets(&mut rest, usize::from(sps_count & 0x1f))?;
    let pps_count = super::take_byte(&mut rest)?;
    let mut pps = super::take_sets(&mut rest, usize::from(pps_count))?;
    sps.retain(is_sps);
    pps.retain(is_pps);
    Ok(Avcc { length_size, sps, pps })
}

/// A track of H.264 in samples with lengths of 4 bytes.
///
/// # Errors
/// As [`avcc`].
pub fn track(sps: &[Bytes], pps: &[Bytes], source_number: u64, timescale_hz: u32) -> Result<Track, CodecError> {
    let codec_private = avcc(sps, pps)?;
    let facts = parse_sps(&sps[0])?;
    let size = VideoParams { width: facts.width, height: facts.height };
    Ok(video_track(Codec::H264, codec_private, size, source_number, timescale_hz))
}

/// Id of an SPS or PPS, with its kind; none for other NAL units.
pub(super) fn parameter_set_id(nal: &[u8]) -> Option<(u8, u32)> {
    let kind = nal_unit_type(nal);
    let header_len = match kind {
        nal_type::SPS => 4,
        nal_type::PPS => 1,
        _ => return None,
    };
    let payload = nal::payload_start(nal, header_len);
    BitReader::new(&payload).ue().ok().map(|id| (kind, id))
}
