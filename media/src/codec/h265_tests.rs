//! Tests of the h265 module.

use super::super::bits::BitWriter;
use super::*;

fn ue(w: &mut BitWriter, value: u32) {
    let bits = (value + 1).ilog2() as usize;
    w.bits(0, bits).bits(value + 1, bits + 1);
}

fn ues(w: &mut BitWriter, values: &[u32]) {
    values.iter().for_each(|value| ue(w, *value));
}

/// A NAL unit of a payload, with emulation prevention.
fn nal_unit(header: [u8; 2], payload: &[u8]) -> Vec<u8> {
    let mut out = header.to_vec();
    let mut zeros = 0;
    for byte in payload {
        if zeros >= 2 && *byte <= 3 {
            out.push(3);
            zeros = 0;
        }
        zeros = if *byte == 0 { zeros + 1 } else { 0 };
        out.push(*byte);
    }
    assert_eq!(nal::unescape(&out[2..]), payload);
    out
}

/// An SPS with all that has tripped readers: sub-layers of their own profiles and levels, cropping, depths of 10 bits,
/// scaling lists, predicted picture sets, long-term pictures, and a VUI with HRD.
fn rich_sps() -> Vec<u8> {
    let mut w = BitWriter::default();
    // VPS 0, three sub-layers, nested; Main 10, tier and level.
    w.bits(0, 4).bits(2, 3).bits(1, 1).bits(2, 8).bits(0x2000_0000, 32).bits(0x9000, 16).bits(0, 32).bits(93, 8);
    // The first sub-layer has a profile and a level, the second a level.
    w.bits(0b11, 2).bits(0b01, 2).bits(0, 12);
    w.bits(0, 32).bits(0, 32).bits(0, 24).bits(60, 8);
    // SPS 3, 4:2:0, 1920x1088 cropped to 1920x1080.
    ues(w.bits(90, 8), &[3, 1, 1920, 1088]);
    w.bits(1, 1);
    ues(&mut w, &[0, 0, 0, 4, 2, 2, 4]);
    // Buffering of each sub-layer: 1, 2 and 3 pictures out of order.
    w.bits(1, 1);
    ues(&mut w, &[4, 1, 0, 4, 2, 0, 4, 3, 0]);
    ues(&mut w, &[0, 3, 0, 3, 0, 0]);
    // Scaling lists: all copied but one of 16 and one of 64 coefficients with its DC.
    w.bits(0b11, 2);
    for (size, matrix) in (0..4).flat_map(|size| (0..if size == 3 { 2 } else { 6 }).map(move |matrix| (size, matrix))) {
        let coefficients = match (size, matrix) {
            (0, 2) => 16,
            (2, 1) => 65,
            _ => {
                ue(w.bits(0, 1), 0);
                continue;
            }
        };
        w.bits(1, 1);
        // se(v) of -3 to 3.
        (0..coefficients).for_each(|n| ue(&mut w, n % 7));
    }
    w.bits(0b11, 2);
    // PCM.
    ues(w.bits(1, 1).bits(0x77, 8), &[0, 2]);
    w.bits(1, 1);
    // Four picture sets: 2 + 1 pictures; predicted with 4 flags, of which 3 are kept; predicted from those; 0 pictures.
    ues(&mut w, &[4, 2, 1]);
    for delta in [0, 1, 2] {
        ue(&mut w, delta);
        w.bits(1, 1);
    }
    w.bits(1, 1).bits(0, 1);
    ue(&mut w, 0);
    w.bits(1, 1).bits(0b01, 2).bits(0b00, 2).bits(1, 1);
    w.bits(1, 1).bits(1, 1);
    ue(&mut w, 5);
    w.bits(0b1111, 4);
    w.bits(0, 1);
    ues(&mut w, &[0, 0]);
    // Two long-term pictures, of 8 bits each.
    ue(w.bits(1, 1), 2);
    w.bits(0x0aa, 9).bits(0x155, 9).bits(0b11, 2);
    rich_vui(w.bits(1, 1));
    w.bits(0, 1).bits(1, 1);
    nal_unit([0x42, 1], &w.into_vec())
}

/// With timing of 30000/1001, HRD of sub-pictures, and spatial segments.
fn rich_vui(w: &mut BitWriter) {
    w.bits(1, 1).bits(255, 8).bits(4, 16).bits(3, 16);
    w.bits(0b11, 2);
    w.bits(1, 1).bits(5, 3).bits(1, 1).bits(1, 1).bits(0x09_1009, 24);
    ues(w.bits(1, 1), &[0, 0]);
    w.bits(0, 3);
    ues(w.bits(1, 1), &[0, 0, 0, 1]);
    w.bits(1, 1).bits(1001, 32).bits(30_000, 32);
    ue(w.bits(1, 1), 7);
    // HRD for NAL and VCL, with sub-pictures.
    w.bits(1, 1).bits(0b111, 3).bits(0, 19).bits(0, 8).bits(0, 4).bits(0, 15);
    for sub_layer in 0..3 {
        let entries = match sub_layer {
            // Fixed rate, one entry.
            0 => {
                ues(w.bits(1, 1), &[0, 0]);
                1
            }
            // Fixed within the sequence, two entries.
            1 => {
                ues(w.bits(0b01, 2), &[0, 1]);
                2
            }
            // Low delay: one entry, not counted.
            _ => {
                w.bits(0b001, 3);
                1
            }
        };
        for _ in 0..2 * entries {
            ues(w, &[9, 9, 9, 9]);
            w.bits(0, 1);
        }
    }
    w.bits(1, 1).bits(0, 3);
    ues(w, &[40, 0, 0, 0, 0]);
}

#[test]
fn an_sps_is_read_through_all_its_options() {
    let nal = rich_sps();
    let sps = parse_sps(&nal).unwrap();
    assert_eq!((sps.width, sps.height, sps.bit_depth_luma, sps.bit_depth_chroma), (1920, 1080, 10, 10));
    assert_eq!((sps.id, sps.sub_layers, sps.temporal_id_nesting, sps.level_idc), (3, 3, true, 93));
    assert_eq!(sps.reorder, ReorderDepth { depth: 3, exact: true }, "of the highest sub-layer");
    // These come last: everything between was read right.
    assert_eq!(sps.frame_rate, Some((30_000, 1001)));
    assert_eq!(sps.min_spatial_segmentation, 40);
    let pps = Bytes::from_static(&[0x44, 1, 0xc1]);
    let made = hvcc(&[], &[nal.clone().into()], &[pps]).unwrap();
    assert_eq!(
        made[..23],
        [1, 2, 0x20, 0, 0, 0, 0x90, 0, 0, 0, 0, 0, 93, 0xf0, 40, 0xfc, 0xfd, 0xfa, 0xfa, 0, 0, 0x1f, 2]
    );
    // Without its end the facts hold that stand before it.
    let cut = parse_sps(&nal[..nal.len() - 12]).unwrap();
    assert_eq!((cut.width, cut.reorder, cut.min_spatial_segmentation), (1920, sps.reorder, 0));
}

#[test]
fn pictures_are_told_by_their_first_segment() {
    let nal = |kind: u8, first: bool| [kind << 1, 1, u8::from(first) << 7];
    for (kind, expected) in [
        (0, SyncKind::None),
        (1, SyncKind::None),
        (5, SyncKind::None),
        (6, SyncKind::Leading),
        (7, SyncKind::Leading),
        (8, SyncKind::Leading),
        (9, SyncKind::Leading),
        (16, SyncKind::Sync),
        (18, SyncKind::Sync),
        (19, SyncKind::Sync),
        (20, SyncKind::Sync),
        (21, SyncKind::Sync),
        (24, SyncKind::None),
    ] {
        let slice = nal(kind, true);
        assert_eq!(sync([&[0x4e, 1, 5][..], &slice].into_iter()), expected, "{kind}");
        assert!(first_slice_segment_in_pic(&slice) && begins_access_unit(&slice));
        assert!(!first_slice_segment_in_pic(&nal(kind, false)) && !begins_access_unit(&nal(kind, false)));
    }
    for (kind, begins) in
        [(32, true), (35, true), (36, false), (38, false), (39, true), (40, false), (48, true), (56, false)]
    {
        assert_eq!(begins_access_unit(&nal(kind, false)), begins, "{kind}");
    }
    // Another layer is not looked into.
    let enhancement = [19 << 1, 1 << 3 | 1, 0x80];
    assert_eq!((layer_id(&enhancement), first_slice_segment_in_pic(&enhancement)), (1, false));
    assert_eq!(sync([&enhancement[..]].into_iter()), SyncKind::None);
}
