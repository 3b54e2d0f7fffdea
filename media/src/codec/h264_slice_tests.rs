//! Streams of several parameter sets, and of pictures that begin anew.

use bytes::Bytes;
use vidar_core::track::Track;

use super::super::bits::BitWriter;
use super::super::picture_order::{PictureOrder, ShownTimes};
use super::*;

/// Fields of a header.
#[derive(Clone, Copy)]
enum Field {
    Bits(u32, usize),
    Ue(u32),
    Se(i32),
}

use Field::{Bits, Se, Ue};

fn nal(header: u8, fields: &[Field]) -> Bytes {
    let mut w = BitWriter::default();
    for field in fields {
        let code = match *field {
            Bits(value, count) => {
                w.bits(value, count);
                continue;
            }
            Ue(value) => value + 1,
            Se(value @ 1..) => 2 * value.unsigned_abs(),
            Se(value) => 2 * value.unsigned_abs() + 1,
        };
        w.bits(code, 2 * code.ilog2() as usize + 1);
    }
    w.bits(1, 1);
    let mut nal = vec![header];
    for byte in w.into_vec() {
        if byte <= 3 && nal.ends_with(&[0, 0]) {
            nal.push(3);
        }
        nal.push(byte);
    }
    nal.into()
}

/// Main profile, 320x240. `order_bits`: of counts of type 0; else they are of type 2.
fn sps(id: u32, frame_num_bits: u32, order_bits: Option<u32>) -> Bytes {
    let order = order_bits.map_or(vec![Ue(2)], |bits| vec![Ue(0), Ue(bits - 4)]);
    let size = [Ue(4), Bits(0, 1), Ue(19), Ue(14), Bits(0b1100, 4)];
    nal(0x67, &[&[Bits(77, 8), Bits(0, 8), Bits(30, 8), Ue(id), Ue(frame_num_bits - 4)], &order[..], &size].concat())
}

/// Two references by default, weighted prediction, bottom fields and redundant pictures.
fn pps(id: u32, sps: u32) -> Bytes {
    let before = [Ue(id), Ue(sps), Bits(0b01, 2), Ue(0), Ue(1), Ue(1), Bits(0b1_01, 3)];
    nal(0x68, &[&before[..], &[Se(-3), Se(0), Se(2), Bits(0b101, 3)]].concat())
}

fn sample(nal: &[u8]) -> Bytes {
    [&(nal.len() as u32).to_be_bytes(), nal].concat().into()
}

/// With a picture parameter set, a count, and bits of both its SPS.
#[derive(Clone, Copy)]
struct Slices {
    pps: u32,
    frame_num_bits: usize,
    order_bits: usize,
}

impl Slices {
    fn slice(self, header: u8, kind: u32, idr: &[Field], count: u32, rest: &[Field]) -> Bytes {
        let before = [Ue(0), Ue(kind), Ue(self.pps), Bits(5, self.frame_num_bits)];
        let fields = [&before, idr, &[Bits(count, self.order_bits), Se(0), Ue(0)], rest].concat();
        sample(&nal(header, &fields))
    }

    fn idr(self) -> Bytes {
        self.slice(0x65, 7, &[Ue(1)], 0, &[Bits(0, 2)])
    }

    /// With all that may stand in its header before the marking.
    fn p(self, count: u32, marking: &[Field]) -> Bytes {
        let references = [Bits(1, 1), Ue(2)];
        let modifications = [Bits(1, 1), Ue(0), Ue(5), Ue(2), Ue(1), Ue(3)];
        let plain = [Bits(0, 2)];
        let weights = [Ue(5), Ue(4), Bits(1, 1), Se(-7), Se(9), Bits(1, 1), Se(1), Se(-1), Se(2), Se(-2)];
        let rest = [&references[..], &modifications, &weights, &plain, &plain, marking].concat();
        self.slice(0x41, 5, &[], count, &rest)
    }

    /// One that later pictures refer to, with two references in each list.
    fn b(self, count: u32, marking: &[Field]) -> Bytes {
        let weights = [Ue(0), Ue(0), Bits(1, 1), Se(3), Se(3), Bits(0, 7)];
        let rest = [&[Bits(0, 4)][..], &weights, marking].concat();
        self.slice(0x41, 6, &[], count, &rest)
    }
}

const NO_MARKING: [Field; 1] = [Bits(0, 1)];
const RESET: [Field; 8] = [Bits(1, 1), Ue(1), Ue(3), Ue(3), Ue(0), Ue(2), Ue(5), Ue(0)];

fn track(sps: &[Bytes], pps: &[Bytes]) -> Track {
    h264::track(sps, pps, 1, 90_000).unwrap()
}

fn places(track: &Track, pictures: &[Bytes]) -> Vec<(u64, i64)> {
    let mut order = PictureOrder::of(track).unwrap();
    let places = pictures.iter().map(|picture| order.place(picture));
    places.map(|place| (place.sequence, place.count)).collect()
}

#[test]
fn slices_are_read_by_the_sets_that_they_name() {
    let (first, second) =
        (Slices { pps: 0, frame_num_bits: 4, order_bits: 4 }, Slices { pps: 3, frame_num_bits: 9, order_bits: 6 });
    let sets = [sps(0, 4, Some(4)), sps(1, 9, Some(6)), sps(2, 4, None)];
    let track = track(&sets, &[pps(0, 0), pps(3, 1), pps(4, 2), pps(5, 7)]);
    let pictures = [
        (first.idr(), (1, 0)),
        (first.p(8, &NO_MARKING), (1, 8)),
        (first.p(0, &NO_MARKING), (1, 16)),
        (first.b(12, &NO_MARKING), (1, 12)),
        (second.idr(), (2, 0)),
        (second.p(30, &NO_MARKING), (2, 30)),
        (second.b(20, &NO_MARKING), (2, 20)),
        (second.p(50, &NO_MARKING), (2, 50)),
        (second.p(10, &NO_MARKING), (2, 74)),
        // Of sets that are not there: behind the last.
        (Slices { pps: 5, ..second }.p(10, &NO_MARKING), (2, 75)),
        (Slices { pps: 9, ..second }.p(10, &NO_MARKING), (2, 76)),
        // Counts of another type: in decode order, behind all of the sequence before.
        (Slices { pps: 4, ..first }.idr(), (3, 0)),
        (Slices { pps: 4, ..first }.p(0, &NO_MARKING), (3, 1)),
        (first.idr(), (4, 0)),
    ];
    let (pictures, expected): (Vec<_>, Vec<_>) = pictures.into_iter().unzip();
    assert_eq!(places(&track, &pictures), expected);
}

#[test]
fn a_picture_set_that_is_missing_does_no_harm_where_there_is_one_sps() {
    let slices = Slices { pps: 9, frame_num_bits: 4, order_bits: 6 };
    let track = track(&[sps(0, 4, Some(6))], &[pps(0, 0)]);
    let pictures = [slices.idr(), slices.p(8, &NO_MARKING), slices.b(4, &NO_MARKING)];
    assert_eq!(places(&track, &pictures), [(1, 0), (1, 8), (1, 4)]);
}

#[test]
fn operation_5_begins_anew() {
    let slices = Slices { pps: 0, frame_num_bits: 4, order_bits: 6 };
    let track = track(&[sps(0, 4, Some(6))], &[pps(0, 0)]);
    for reset in [slices.p(24, &RESET), slices.b(24, &RESET), slices.slice(0x41, 7, &[], 24, &RESET)] {
        let pictures = [
            slices.idr(),
            slices.p(16, &NO_MARKING),
            slices.b(8, &NO_MARKING),
            reset,
            slices.p(16, &NO_MARKING),
            slices.b(8, &NO_MARKING),
        ];
        assert_eq!(places(&track, &pictures), [(1, 0), (1, 16), (1, 8), (2, 0), (2, 16), (2, 8)]);
        let mut shown = ShownTimes::of(&track).unwrap();
        for (index, picture) in pictures.iter().enumerate() {
            shown.push(picture, (), index as i64);
        }
        shown.finish();
        let times: Vec<i64> = std::iter::from_fn(|| shown.pop()).map(|(_, time)| time).collect();
        assert_eq!(times, [0, 2, 1, 3, 5, 4]);
    }
    // A frame whose bottom field is shown first stands behind it.
    let fields = [Ue(0), Ue(7), Ue(0), Bits(5, 4), Bits(24, 6), Se(-2), Ue(0)];
    let reset = sample(&nal(0x41, &[&fields[..], &RESET].concat()));
    let pictures = [slices.idr(), reset, slices.p(4, &NO_MARKING)];
    assert_eq!(places(&track, &pictures), [(1, 0), (2, 2), (2, 4)]);
    // Not for pictures that no others refer to: they have no marking.
    let fields = [Ue(0), Ue(7), Ue(0), Bits(5, 4), Bits(24, 6), Se(0), Ue(0)];
    let other = sample(&nal(0x01, &[&fields[..], &RESET].concat()));
    assert_eq!(places(&track, &[slices.idr(), other]), [(1, 0), (1, 24)]);
}
