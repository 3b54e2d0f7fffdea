//! PES packets (ISO/IEC 13818-1 section 2.4.3.6) and the clock their times are of.

/// Ticks per second of all times in a transport stream.
pub(super) const CLOCK_HZ: u32 = 90_000;

/// The header of a PES packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct PesHeader {
    /// 33 bits.
    pub(super) pts: Option<u64>,
    /// 33 bits. Only with a PTS, and only where they differ.
    pub(super) dts: Option<u64>,
    /// Where the payload begins.
    pub(super) len: usize,
}

/// Length of the packet as its header declares it, from its first byte. `Some(None)`: it ends where the next begins.
/// None: not enough bytes yet.
pub(super) fn declared_len(data: &[u8]) -> Option<Option<usize>> {
    let &[_, _, _, _, high, low] = data.first_chunk()?;
    let len = u16::from_be_bytes([high, low]);
    Some((len > 0).then_some(6 + usize::from(len)))
}

impl PesHeader {
    /// Reads the header at the start of `data`. None if it is none, or not all of it is there.
    pub(super) fn parse(data: &[u8]) -> Option<Self> {
        let &[0, 0, 1, stream_id, ..] = data else { return None };
        // Program map, padding, private 2, ECM, EMM, DSM-CC, H.222.1 type E, directory: no header beyond 6 bytes.
        if matches!(stream_id, 0xbc | 0xbe | 0xbf | 0xf0..=0xf2 | 0xf8 | 0xff) {
            return (data.len() >= 6).then_some(Self { pts: None, dts: None, len: 6 });
        }
        let fields = data.get(9..9 + usize::from(*data.get(8)?))?;
        if data[6] >> 6 != 2 {
            return None;
        }
        let pts = if data[7] & 0x80 != 0 { time(fields) } else { None };
        let dts = if data[7] & 0xc0 == 0xc0 { fields.get(5..).and_then(time) } else { None };
        Some(Self { pts, dts: dts.filter(|_| pts.is_some()), len: 9 + fields.len() })
    }
}

/// 33 bits in 5 bytes, with marker bits between. Markers are not checked: seen wrong.
fn time(field: &[u8]) -> Option<u64> {
    let &[a, b, c, d, e] = field.first_chunk()?;
    let [a, b, c, d, e] = [a, b, c, d, e].map(u64::from);
    Some((a >> 1 & 7) << 30 | b << 22 | (c >> 1) << 15 | d << 7 | e >> 1)
}

/// Times of 33 bits on a timeline of 64: each is the nearest to the last one, of whichever track.
#[derive(Debug, Default)]
pub(super) struct Clock {
    last: Option<i64>,
}

impl Clock {
    pub(super) fn unwrap(&mut self, time: u64) -> i64 {
        let time = (time & ((1 << 33) - 1)) as i64;
        let unwrapped = self.last.map_or(time, |last| {
            // Sign extension of the difference of 33 bits.
            let step = time.wrapping_sub(last) << 31 >> 31;
            last.saturating_add(step)
        });
        self.last = Some(unwrapped);
        unwrapped
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    fn time_field(marker: u8, time: u64) -> [u8; 5] {
        let bits = |shift: u64, mask: u64| (time >> shift & mask) as u8;
        [marker << 4 | bits(30, 7) << 1 | 1, bits(22, 255), bits(15, 127) << 1 | 1, bits(7, 255), bits(0, 127) << 1 | 1]
    }

    /// A PES packet of a length declared where `bounded`.
    pub(crate) fn pes(stream_id: u8, pts: Option<u64>, dts: Option<u64>, payload: &[u8], bounded: bool) -> Vec<u8> {
        let mut fields = Vec::new();
        match (pts, dts) {
            (Some(pts), Some(dts)) => fields.extend([time_field(3, pts), time_field(1, dts)].concat()),
            (Some(pts), None) => fields.extend(time_field(2, pts)),
            _ => {}
        }
        let flags = u8::from(pts.is_some()) << 7 | u8::from(dts.is_some()) << 6;
        let len = if bounded { (3 + fields.len() + payload.len()) as u16 } else { 0 };
        let mut out = vec![0, 0, 1, stream_id];
        out.extend(len.to_be_bytes());
        out.extend([0x80, flags, fields.len() as u8]);
        out.extend(fields);
        out.extend(payload);
        out
    }

    #[test]
    fn headers_and_their_truncation() {
        let (pts, dts) = ((1 << 33) - 1, 0x1_2345_6789);
        let packet = pes(0xe0, Some(pts), Some(dts), b"xy", true);
        assert_eq!(PesHeader::parse(&packet), Some(PesHeader { pts: Some(pts), dts: Some(dts), len: 19 }));
        assert_eq!(declared_len(&packet), Some(Some(packet.len())));
        for len in 0..19 {
            assert_eq!(PesHeader::parse(&packet[..len]), None);
        }
        let only_pts = pes(0xc0, Some(7), None, b"", false);
        assert_eq!(PesHeader::parse(&only_pts), Some(PesHeader { pts: Some(7), dts: None, len: 14 }));
        assert_eq!(declared_len(&only_pts), Some(None));
        assert_eq!(PesHeader::parse(&pes(0xbd, None, None, b"", false)).unwrap().len, 9);
        assert_eq!(PesHeader::parse(&[0, 0, 1, 0xbf, 0, 0, 1]).unwrap().len, 6);
        assert_eq!(PesHeader::parse(&[0, 0, 2, 0xe0, 0, 0, 0x80, 0, 0]), None);
        assert_eq!(PesHeader::parse(&[0, 0, 1, 0xe0, 0, 0, 0, 0, 0]), None);
    }

    #[test]
    fn a_clock_goes_on_past_its_33_bits_and_back() {
        let mut clock = Clock::default();
        let wrap = 1_i64 << 33;
        assert_eq!(clock.unwrap((wrap - 10) as u64), wrap - 10);
        assert_eq!(clock.unwrap(5), wrap + 5);
        assert_eq!(clock.unwrap((wrap - 3) as u64), wrap - 3, "another track, a little behind");
        let mut clock = Clock::default();
        assert_eq!(clock.unwrap(5), 5);
        assert_eq!(clock.unwrap((wrap - 3) as u64), -3);
    }

    proptest! {
        #[test]
        fn steps_of_up_to_half_the_range_are_kept(start in 0_i64..1 << 40, steps in prop::collection::vec(-(1_i64 << 32)..1 << 32, 0..20)) {
            let mut clock = Clock::default();
            let mut time = start;
            let offset = clock.unwrap(time as u64) - time;
            for step in steps {
                time += step;
                prop_assert_eq!(clock.unwrap(time.rem_euclid(1 << 33) as u64), time + offset);
            }
        }
    }
}
