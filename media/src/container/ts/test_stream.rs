//! A writer of transport streams for tests: what real muxers do not do, too.

use bytes::Bytes;

use super::demux::Demuxer;
use super::packet::{PACKET_LEN, SYNC_BYTE};
use super::pes::tests::pes;
use super::section::tests::section;
use crate::demux::{DemuxError, Event};
use crate::fuzz::demux_in_pieces;

pub(super) const VIDEO: u16 = 0x100;
pub(super) const AUDIO: u16 = 0x101;
pub(super) const MAP: u16 = 0x1000;

/// A transport stream under construction.
#[derive(Default, Clone)]
pub(super) struct Stream {
    pub(super) packets: Vec<[u8; PACKET_LEN]>,
    pub(super) counters: std::collections::HashMap<u16, u8>,
}

impl Stream {
    pub(super) fn new(streams: &[(u8, u16)]) -> Self {
        let mut stream = Self::default();
        stream.association(0, &[(1, MAP)]).map(MAP, 1, 0, streams);
        stream
    }

    pub(super) fn association(&mut self, version: u8, programs: &[(u16, u16)]) -> &mut Self {
        let entry = |(program, pid): &(u16, u16)| [program.to_be_bytes(), (0xe000 | pid).to_be_bytes()].concat();
        let body: Vec<u8> = programs.iter().flat_map(entry).collect();
        self.unit(0, &[&[0][..], &section(0, 1, version, &body)].concat())
    }

    pub(super) fn map(&mut self, pid: u16, program: u16, version: u8, streams: &[(u8, u16)]) -> &mut Self {
        let pcr = streams.first().map_or(0x1fff, |stream| stream.1);
        let mut body = [(0xe000 | pcr).to_be_bytes(), [0xf0, 0]].concat();
        for (stream_type, pid) in streams {
            body.push(*stream_type);
            body.extend((0xe000 | pid).to_be_bytes());
            body.extend([0xf0, 0]);
        }
        self.unit(pid, &[&[0][..], &section(2, program, version, &body)].concat())
    }

    /// Bytes of a unit in as many packets as it takes.
    pub(super) fn unit(&mut self, pid: u16, data: &[u8]) -> &mut Self {
        self.unit_flagged(pid, data, 0)
    }

    /// With flags of the adaptation field in the first packet.
    pub(super) fn unit_flagged(&mut self, pid: u16, data: &[u8], flags: u8) -> &mut Self {
        let mut rest = data;
        let mut first = true;
        while first || !rest.is_empty() {
            let flags = if first { flags } else { 0 };
            let room = if flags == 0 { 184 } else { 182 };
            let (payload, tail) = rest.split_at(rest.len().min(room));
            let mut packet = vec![SYNC_BYTE, u8::from(first) << 6 | (pid >> 8) as u8, pid as u8, 0];
            let counter = self.counters.entry(pid).or_insert(15);
            *counter = (*counter + 1) & 15;
            let stuffing = 184 - payload.len();
            packet[3] = if stuffing > 0 { 0x30 } else { 0x10 } | *counter;
            if stuffing > 0 {
                packet.push(stuffing as u8 - 1);
                if stuffing > 1 {
                    packet.push(flags);
                    packet.extend(vec![0xff; stuffing - 2]);
                }
            }
            packet.extend(payload);
            self.packets.push(packet.try_into().unwrap());
            (rest, first) = (tail, false);
        }
        self
    }

    pub(super) fn video(&mut self, pts: u64, dts: u64, payload: &[u8]) -> &mut Self {
        let dts = (pts != dts).then_some(dts);
        self.unit(VIDEO, &pes(0xe0, Some(pts), dts, payload, false))
    }

    pub(super) fn audio(&mut self, pts: Option<u64>, payload: &[u8]) -> &mut Self {
        self.unit(AUDIO, &pes(0xc0, pts, None, payload, true))
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        self.packets.concat()
    }

    pub(super) fn events(&self) -> (Vec<Event>, Result<(), DemuxError>) {
        run(&self.bytes())
    }

    /// Events of an input without a fault.
    pub(super) fn good(&self) -> Vec<Event> {
        let (events, end) = self.events();
        assert_eq!(end, Ok(()));
        events
    }
}

pub(super) fn run(data: &[u8]) -> (Vec<Event>, Result<(), DemuxError>) {
    crate::fuzz::demux_ts(data);
    demux_in_pieces(Demuxer::new(), &Bytes::copy_from_slice(data), || usize::MAX)
}
