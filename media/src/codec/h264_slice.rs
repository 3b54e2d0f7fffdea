//! What slice headers of H.264 say of the order in which pictures are shown (ISO/IEC 14496-10 sections 7.3.3, 8.2.1).
//!
//! A header is read up to the marking of reference pictures, with the parameter sets that its slice names: an operation 5
//! there makes the picture begin anew, as an IDR picture does. Where the header is read no further (slice groups, which
//! are of profiles without B pictures), there is none.

use super::bits::BitReader;
use super::h264::{self, Avcc, Sps};
use super::{CodecError, nal};

/// Of a header in which all tables are as long as they can be.
const HEADER_BYTES_MAX: usize = 1 << 10;

/// Parameter sets that slices name.
#[derive(Debug)]
pub(super) struct Sets {
    sps: Vec<Sps>,
    pps: Vec<Pps>,
}

/// What of a picture parameter set slice headers depend on (section 7.3.2.2).
#[derive(Debug)]
struct Pps {
    id: u32,
    sps: u32,
    /// `bottom_field_pic_order_in_frame_present_flag`.
    bottom_order: bool,
    /// None with slice groups.
    prediction: Option<Prediction>,
}

/// What stands in slice headers between the count and the marking.
#[derive(Debug)]
struct Prediction {
    /// Of both lists, unless a slice says otherwise.
    reference_counts: [u32; 2],
    weighted: bool,
    weighted_b: bool,
    redundant: bool,
}

/// What the header of a picture's first slice says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Order {
    /// `pic_order_cnt_lsb`, and its bits. None where counts are of another type.
    pub(super) count: Option<(u32, u8)>,
    /// An IDR picture.
    pub(super) idr: bool,
    /// An operation 5: how far the top field is behind the one shown first.
    pub(super) reset: Option<i64>,
}

impl Sets {
    pub(super) fn new(avcc: &Avcc) -> Self {
        let sps = avcc.sps.iter().filter_map(|nal| h264::parse_sps(nal).ok()).collect();
        Self { sps, pps: avcc.pps.iter().filter_map(|nal| Pps::parse(nal).ok()).collect() }
    }

    /// Some slices say the order.
    pub(super) fn say_order(&self) -> bool {
        self.sps.iter().any(|sps| sps.order_bits.is_some())
    }

    /// Reads the header of a slice.
    pub(super) fn order(&self, slice: &[u8]) -> Option<Order> {
        let payload = nal::unescape(slice.get(1..slice.len().min(HEADER_BYTES_MAX))?);
        let mut r = BitReader::new(&payload);
        r.ue().ok()?;
        let kind = r.ue().ok()? % 5;
        let id = r.ue().ok()?;
        let pps = self.pps.iter().find(|pps| pps.id == id);
        let sps = match (&self.sps[..], pps) {
            (_, Some(pps)) => self.sps.iter().find(|sps| u32::from(sps.id) == pps.sps)?,
            // One that stands among the pictures, most likely.
            ([sps], None) => sps,
            _ => return None,
        };
        let idr = h264::nal_unit_type(slice) == h264::nal_type::IDR;
        let mut order = Order { count: None, idr, reset: None };
        let Some(bits) = sps.order_bits else { return Some(order) };
        r.skip(if sps.separate_planes { 2 } else { 0 } + usize::from(sps.frame_num_bits)).ok()?;
        let field = !sps.frames_only && r.flag().ok()?;
        r.skip(usize::from(field)).ok()?;
        if idr {
            r.ue().ok()?;
        }
        order.count = Some((r.bits(bits.into()).ok()?, bits));
        if let Some(pps) = pps.filter(|_| slice[0] & 0x60 != 0 && !idr) {
            order.reset = pps.reset(sps, field, kind, &mut r).unwrap_or(None);
        }
        Some(order)
    }
}

impl Pps {
    fn parse(nal: &[u8]) -> Result<Self, CodecError> {
        let payload = nal::unescape(nal.get(1..).unwrap_or_default());
        let mut r = BitReader::new(&payload);
        let (id, sps) = (r.ue()?, r.ue()?);
        r.skip(1)?;
        let bottom_order = r.flag()?;
        let slice_groups = r.ue()? > 0;
        let prediction = if slice_groups { None } else { Prediction::parse(&mut r).ok() };
        Ok(Self { id, sps, bottom_order, prediction })
    }

    /// From behind `pic_order_cnt_lsb` on, of a reference picture that is no IDR picture.
    fn reset(&self, sps: &Sps, field: bool, kind: u32, r: &mut BitReader<'_>) -> Result<Option<i64>, CodecError> {
        let Some(prediction) = &self.prediction else { return Ok(None) };
        let bottom = if self.bottom_order && !field { r.se()? } else { 0 };
        if prediction.redundant {
            r.ue()?;
        }
        let list_count = match kind {
            0 | 3 => 1,
            1 => 2,
            _ => 0,
        };
        let mut counts = prediction.reference_counts;
        r.skip(usize::from(list_count == 2))?;
        if list_count > 0 && r.flag()? {
            for count in &mut counts[..list_count] {
                *count = r.ue_max(31, "num_ref_idx_active_minus1")? + 1;
            }
        }
        for _ in 0..list_count {
            // ref_pic_list_modification (section 7.3.3.1).
            if r.flag()? {
                while r.ue_max(5, "modification_of_pic_nums_idc")? != 3 {
                    r.ue()?;
                }
            }
        }
        let weighted = if list_count == 2 { prediction.weighted_b } else { prediction.weighted };
        if list_count > 0 && weighted {
            skip_weights(r, &counts[..list_count], sps.chroma_format_idc != 0 && !sps.separate_planes)?;
        }
        Ok(has_operation_5(r)?.then_some((-bottom).max(0)))
    }
}

impl Prediction {
    fn parse(r: &mut BitReader<'_>) -> Result<Self, CodecError> {
        let mut count = || Ok::<_, CodecError>(r.ue_max(31, "num_ref_idx_default_active_minus1")? + 1);
        let reference_counts = [count()?, count()?];
        let (weighted, weighted_b) = (r.flag()?, r.bits(2)? == 1);
        for _ in 0..3 {
            r.se()?;
        }
        r.skip(2)?;
        Ok(Self { reference_counts, weighted, weighted_b, redundant: r.flag()? })
    }
}

/// `pred_weight_table` (section 7.3.3.2).
fn skip_weights(r: &mut BitReader<'_>, counts: &[u32], chroma: bool) -> Result<(), CodecError> {
    r.ue()?;
    if chroma {
        r.ue()?;
    }
    for _ in 0..counts.iter().sum() {
        for values in [2, if chroma { 4 } else { 0 }] {
            if values > 0 && r.flag()? {
                for _ in 0..values {
                    r.se()?;
                }
            }
        }
    }
    Ok(())
}

/// `dec_ref_pic_marking` of a picture that is no IDR picture (section 7.3.3.3).
fn has_operation_5(r: &mut BitReader<'_>) -> Result<bool, CodecError> {
    let mut found = false;
    if r.flag()? {
        loop {
            match r.ue_max(6, "memory_management_control_operation")? {
                0 => break,
                5 => found = true,
                3 => {
                    r.ue()?;
                    r.ue()?;
                }
                _ => {
                    r.ue()?;
                }
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "h264_slice_tests.rs"]
mod tests;
