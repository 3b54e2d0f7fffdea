//! Transport packets (ISO/IEC 13818-1 section 2.4.3).

/// Bytes of a packet.
pub(super) const PACKET_LEN: usize = 188;
/// First byte of a packet.
pub(super) const SYNC_BYTE: u8 = 0x47;
/// Distances between packets: plain, with a time stamp of 4 bytes before each (M2TS), with 16 bytes of FEC after each.
pub(super) const STRIDES: [usize; 3] = [188, 192, 204];
/// The PID of packets that only fill.
pub(super) const NULL_PID: u16 = 0x1fff;

/// A packet taken apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Packet<'a> {
    pub(super) pid: u16,
    /// `payload_unit_start_indicator`: a PES packet or section begins in the payload.
    pub(super) unit_start: bool,
    /// `transport_error_indicator`: a receiver could not correct it.
    pub(super) damaged: bool,
    pub(super) scrambled: bool,
    pub(super) continuity: u8,
    /// Of the adaptation field.
    pub(super) discontinuity: bool,
    /// Of the adaptation field: decoding can start here.
    pub(super) random_access: bool,
    /// None: only an adaptation field.
    pub(super) payload: Option<&'a [u8]>,
}

impl<'a> Packet<'a> {
    /// Takes 188 bytes apart. None if they do not begin with the sync byte, or the adaptation field does not fit.
    pub(super) fn parse(data: &'a [u8]) -> Option<Self> {
        let [SYNC_BYTE, b1, b2, b3, rest @ ..] = data.get(..PACKET_LEN)? else { return None };
        let (adaptation, payload) = match b3 >> 4 & 3 {
            1 => (&[][..], Some(rest)),
            2 => (rest.get(1..1 + usize::from(rest[0]))?, None),
            3 => {
                let (field, payload) = rest[1..].split_at_checked(usize::from(rest[0]))?;
                (field, Some(payload))
            }
            _ => (&[][..], None),
        };
        let flags = adaptation.first().copied().unwrap_or(0);
        Some(Self {
            pid: u16::from_be_bytes([b1 & 0x1f, *b2]),
            unit_start: b1 & 0x40 != 0,
            damaged: b1 & 0x80 != 0,
            scrambled: b3 & 0xc0 != 0,
            continuity: b3 & 0x0f,
            discontinuity: flags & 0x80 != 0,
            random_access: flags & 0x40 != 0,
            payload,
        })
    }
}

/// What the continuity counter says of a packet (ISO/IEC 13818-1 section 2.4.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Continuity {
    /// It is the next.
    Next,
    /// It was sent twice.
    Duplicate,
    /// So many are missing before it, modulo 16.
    Lost(u8),
}

/// The continuity counter of a PID.
#[derive(Debug, Default)]
pub(super) struct Counter {
    last: Option<u8>,
}

impl Counter {
    /// Takes note of a packet. Without a payload it does not count.
    pub(super) fn check(&mut self, packet: &Packet<'_>) -> Continuity {
        if packet.payload.is_none() {
            self.last = self.last.filter(|_| !packet.discontinuity);
            return Continuity::Next;
        }
        let last = self.last.replace(packet.continuity);
        match last {
            Some(last) if !packet.discontinuity => match packet.continuity.wrapping_sub(last) & 0x0f {
                1 => Continuity::Next,
                0 => Continuity::Duplicate,
                step => Continuity::Lost(step - 1),
            },
            _ => Continuity::Next,
        }
    }
}

/// What a search for packets finds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sync {
    /// The first packet begins after `skip` bytes; packets are `stride` apart.
    Found { skip: usize, stride: usize },
    /// Not known yet: the first `skip` bytes are not needed any more.
    Wait { skip: usize },
}

/// Where packets begin in `data`, and how far apart they are: three sync bytes at one distance. `at_end`: nothing
/// follows, so that as many as there are must do, with at least one whole packet.
pub(super) fn find_sync(data: &[u8], at_end: bool) -> Sync {
    for (skip, _) in data.iter().enumerate().filter(|(_, byte)| **byte == SYNC_BYTE) {
        let whole = skip + if at_end { PACKET_LEN } else { 2 * STRIDES[2] + 1 };
        if whole > data.len() {
            return Sync::Wait { skip };
        }
        let in_sync =
            |stride: &usize| [1, 2].iter().all(|n| data.get(skip + n * stride).is_none_or(|b| *b == SYNC_BYTE));
        if let Some(stride) = STRIDES.into_iter().find(in_sync) {
            return Sync::Found { skip, stride };
        }
    }
    Sync::Wait { skip: data.len() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(head: [u8; 3], rest: &[u8]) -> [u8; PACKET_LEN] {
        let mut data = [0xff; PACKET_LEN];
        data[0] = SYNC_BYTE;
        data[1..4].copy_from_slice(&head);
        data[4..4 + rest.len()].copy_from_slice(rest);
        data
    }

    #[test]
    fn fields_of_a_packet() {
        let data = packet([0x41, 0x23, 0x35], &[2, 0xc0, 0, 9]);
        let p = Packet::parse(&data).unwrap();
        assert_eq!((p.pid, p.unit_start, p.continuity, p.scrambled), (0x123, true, 5, false));
        assert!(p.discontinuity && p.random_access && !p.damaged);
        assert_eq!(p.payload.unwrap().len(), 181);
        assert_eq!(p.payload.unwrap()[0], 9);
        let only_adaptation = packet([0x81, 0x23, 0xa5], &[183, 0]);
        let p = Packet::parse(&only_adaptation).unwrap();
        assert!(p.damaged && p.scrambled && p.payload.is_none());
        assert_eq!(Packet::parse(&packet([1, 0x23, 0x35], &[184])), None, "the field is longer than the packet");
        assert_eq!(Packet::parse(&packet([1, 0x23, 0x25], &[184])), None);
        assert_eq!(Packet::parse(&data[..187]), None);
        assert!(Packet::parse(&packet([1, 0x23, 0x35], &[183])).unwrap().payload.unwrap().is_empty());
    }

    #[test]
    fn continuity() {
        let mut counter = Counter::default();
        let mut check = |continuity: u8, discontinuity: bool| {
            let data = packet([0, 0x20, 0x30 | continuity], &[1, u8::from(discontinuity) << 7]);
            counter.check(&Packet::parse(&data).unwrap())
        };
        assert_eq!(check(14, false), Continuity::Next);
        assert_eq!(check(15, false), Continuity::Next);
        assert_eq!(check(0, false), Continuity::Next);
        assert_eq!(check(0, false), Continuity::Duplicate);
        assert_eq!(check(4, false), Continuity::Lost(3));
        assert_eq!(check(9, true), Continuity::Next);
    }

    #[test]
    fn sync_is_three_sync_bytes_at_one_distance() {
        for stride in STRIDES {
            let mut data = vec![SYNC_BYTE; 7];
            for _ in 0..4 {
                data.extend(packet([0, 1, 0x10], &[]));
                data.extend(vec![0; stride - PACKET_LEN]);
            }
            data[7 + 100] = SYNC_BYTE;
            // Runs of sync bytes before the first packet do not mislead.
            assert_eq!(find_sync(&data, false), Sync::Found { skip: 7, stride });
            assert!(matches!(find_sync(&data[..7 + 2 * stride], false), Sync::Wait { skip: 0..=7 }));
            assert_eq!(find_sync(&data[7..7 + PACKET_LEN], true), Sync::Found { skip: 0, stride: 188 });
        }
        assert_eq!(find_sync(&[0; 500], false), Sync::Wait { skip: 500 });
        assert_eq!(find_sync(&[SYNC_BYTE; 100], true), Sync::Wait { skip: 0 });
    }
}
