//! Columns of numbers, packed.
//!
//! ```text
//! signed first; then, of a column of more than one value:
//! signed least of the rest; u8 width; the rest less the least, `width` bits each, low bits first, to a whole byte
//! width 255: a varint each instead (a few values far from the others would widen all)
//! ```
//!
//! The first value stands alone: in a column of differences it is the only large one. A column whose other values are
//! all alike takes three bytes.

use vidar_core::wire::{Reader, WireError, Writer};

const WIDTH_MAX: u8 = 64;
const VARINTS: u8 = 255;

pub(super) fn encode(w: &mut Writer, values: &[i64]) {
    let Some((first, rest)) = values.split_first() else { return };
    w.signed(*first);
    let Some((least, greatest)) = rest.iter().min().zip(rest.iter().max()) else { return };
    w.signed(*least);
    let width = width(greatest.abs_diff(*least));
    if width == 0 {
        w.u8(0);
        return;
    }
    let above = rest.iter().map(|value| value.abs_diff(*least));
    let varint_bytes: usize = above.clone().map(varint_len).sum();
    if varint_bytes < packed_len(rest.len(), width) {
        w.u8(VARINTS);
        above.for_each(|value| {
            w.varint(value);
        });
    } else {
        w.u8(width);
        pack(w, above, width);
    }
}

/// Reads what `encode` wrote of `count` values. The caller bounds the count.
pub(super) fn decode(r: &mut Reader<'_>, count: usize) -> Result<Vec<i64>, WireError> {
    let mut values = Vec::with_capacity(count);
    if count == 0 {
        return Ok(values);
    }
    values.push(r.signed()?);
    if count == 1 {
        return Ok(values);
    }
    let (least, width) = (r.signed()?, r.u8()?);
    match width {
        VARINTS => {
            for _ in 1..count {
                values.push(least.wrapping_add_unsigned(r.varint()?));
            }
        }
        0..=WIDTH_MAX => {
            let packed = r.raw(packed_len(count - 1, width))?;
            unpack(packed, width, count - 1, |above| values.push(least.wrapping_add_unsigned(above)));
        }
        _ => return Err(r.error("a width of at most 64 bits")),
    }
    Ok(values)
}

/// Bits of a number.
fn width(value: u64) -> u8 {
    (u64::BITS - value.leading_zeros()) as u8
}

fn varint_len(value: u64) -> usize {
    usize::from(width(value).max(1)).div_ceil(7)
}

fn packed_len(count: usize, width: u8) -> usize {
    (count * usize::from(width)).div_ceil(8)
}

fn pack(w: &mut Writer, values: impl Iterator<Item = u64>, width: u8) {
    let (mut held, mut bits) = (0_u128, 0_u32);
    for value in values {
        held |= u128::from(value) << bits;
        bits += u32::from(width);
        if bits >= u64::BITS {
            w.raw(&(held as u64).to_le_bytes());
            held >>= u64::BITS;
            bits -= u64::BITS;
        }
    }
    w.raw(&(held as u64).to_le_bytes()[..bits.div_ceil(8) as usize]);
}

fn unpack(packed: &[u8], width: u8, count: usize, mut take: impl FnMut(u64)) {
    let mask = if width == WIDTH_MAX { u64::MAX } else { (1 << width) - 1 };
    let (mut held, mut bits, mut bytes) = (0_u128, 0_u32, packed.iter());
    for _ in 0..count {
        while bits < u32::from(width) {
            held |= u128::from(bytes.next().copied().unwrap_or(0)) << bits;
            bits += 8;
        }
        take(held as u64 & mask);
        held >>= width;
        bits -= u32::from(width);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn encoded(values: &[i64]) -> Vec<u8> {
        let mut w = Writer::new();
        encode(&mut w, values);
        w.into_vec()
    }

    proptest! {
        #[test]
        fn columns_come_back(values in prop::collection::vec(prop_oneof![any::<i64>(), -40..40_i64, Just(7)], 0..40)) {
            let bytes = encoded(&values);
            let mut r = Reader::new(&bytes);
            prop_assert_eq!(decode(&mut r, values.len()).unwrap(), values);
            prop_assert_eq!(r.remaining(), 0);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..40), count in 0..100_usize) {
            if let Ok(values) = decode(&mut Reader::new(&bytes), count) {
                prop_assert_eq!(values.len(), count);
            }
        }
    }

    #[test]
    fn what_is_regular_is_small() {
        assert_eq!(encoded(&[5; 256]).len(), 3);
        // One of 255 lies far off: ten bytes for it, one for each other.
        let mut values = [3; 256];
        values[100] = i64::MAX;
        assert!(encoded(&values).len() < 280);
        let values: Vec<i64> = (0..257).map(|index| index % 128).collect();
        assert_eq!(encoded(&values).len(), 3 + 256 * 7 / 8);
    }
}
