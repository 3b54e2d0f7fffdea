//! Segments of transport streams (ISO/IEC 13818-1), for players that know no other.
//!
//! ```text
//! PAT, PMT ─► for each sample: one PES packet, cut into transport packets
//! ```
//! A segment is made without knowing the one before it, and yet follows it: the streams of a segment fill a multiple of 16
//! packets each, so their continuity counters begin with 0 in all; the tables' counters follow from its number.

use vidar_core::track::Track;

use super::coding::Coding;
use super::packet::{PACKET_LEN, SYNC_BYTE};
use super::pes::CLOCK_HZ;
use super::section::crc32;

/// Ticks per second of the times that are written.
pub const TIMESCALE_HZ: u32 = CLOCK_HZ;

const MAP_PID: u16 = 0x1000;
const FIRST_PID: u16 = 0x100;
const PROGRAM: u16 = 1;
/// Streams of a program here: there are PIDs and stream ids for so many.
const STREAM_COUNT_MAX: usize = 16;
/// Bytes of a packet after its header.
const ROOM: usize = PACKET_LEN - 4;
/// Length, flags and clock reference of an adaptation field.
const CLOCK_LEN: usize = 8;
/// By which the clock is behind decode times: 0.1 s for the decoder's buffer.
const CLOCK_LAG: i64 = CLOCK_HZ as i64 / 10;
/// Times have 33 bits.
const TIME_MASK: u64 = (1 << 33) - 1;

/// Writes a segment.
#[derive(Debug, Clone)]
pub struct Muxer {
    streams: Vec<Stream>,
    /// Whose packets carry the clock.
    clock: usize,
    tables_counter: u8,
    /// Filled and emptied for each sample.
    pes: Vec<u8>,
}

#[derive(Debug, Clone)]
struct Stream {
    coding: Coding,
    pid: u16,
    stream_id: u8,
    counter: u8,
}

/// A sample to be written.
#[derive(Debug, Clone, Copy)]
pub struct TsSample<'a> {
    /// Place of its track among those of the muxer.
    pub track: usize,
    /// In ticks of [`TIMESCALE_HZ`]; wraps at 33 bits.
    pub presentation_ticks: i64,
    /// See `presentation_ticks`.
    pub decode_ticks: i64,
    /// Decoding can start here.
    pub sync: bool,
    /// The last of its track in the segment.
    pub last: bool,
    /// As it is stored.
    pub data: &'a [u8],
}

/// A transport stream has a place for the track.
#[must_use]
pub fn carries(track: &Track) -> bool {
    Coding::of(track).is_some()
}

impl Muxer {
    /// A muxer of the segment of that number. None: there is no track, too many, or no place for one of them.
    #[must_use]
    pub fn new(tracks: &[&Track], sequence: u64) -> Option<Self> {
        if tracks.is_empty() || tracks.len() > STREAM_COUNT_MAX {
            return None;
        }
        let stream = |(index, track): (u8, &&Track)| {
            let coding = Coding::of(track)?;
            let stream_id = if coding.is_video() { 0xe0 } else { 0xc0 } + index;
            Some(Stream { coding, pid: FIRST_PID + u16::from(index), stream_id, counter: 0 })
        };
        let streams = (0_u8..).zip(tracks).map(stream).collect::<Option<Vec<_>>>()?;
        let clock = streams.iter().position(|stream| stream.coding.is_video()).unwrap_or(0);
        Some(Self { streams, clock, tables_counter: (sequence & 15) as u8, pes: Vec::new() })
    }

    /// Appends the tables, which come first.
    pub fn begin(&self, out: &mut Vec<u8>) {
        let association = [PROGRAM.to_be_bytes(), (0xe000 | MAP_PID).to_be_bytes()].concat();
        self.table(0, 0x00, &association, out);
        let mut map = [(0xe000 | self.streams[self.clock].pid).to_be_bytes(), [0xf0, 0]].concat();
        for stream in &self.streams {
            map.push(stream.coding.stream_type());
            map.extend_from_slice(&(0xe000 | stream.pid).to_be_bytes());
            map.extend_from_slice(&[0xf0, 0]);
        }
        self.table(MAP_PID, 0x02, &map, out);
    }

    /// A table of one section in one packet: 16 streams take 106 bytes.
    fn table(&self, pid: u16, table_id: u8, body: &[u8], out: &mut Vec<u8>) {
        let end = out.len() + PACKET_LEN;
        out.extend_from_slice(&packet_head(pid, true, 1, self.tables_counter));
        out.push(0);
        let section = out.len();
        out.push(table_id);
        out.extend_from_slice(&(0xb000 | (body.len() as u16 + 9)).to_be_bytes());
        out.extend_from_slice(&PROGRAM.to_be_bytes());
        out.extend_from_slice(&[0xc1, 0, 0]);
        out.extend_from_slice(body);
        let crc = crc32(&out[section..]);
        out.extend_from_slice(&crc.to_be_bytes());
        out.resize(end, 0xff);
    }

    /// Appends a sample. False: it does not read, and was left out.
    pub fn write(&mut self, sample: &TsSample<'_>, out: &mut Vec<u8>) -> bool {
        let Some(stream) = self.streams.get_mut(sample.track).filter(|_| !sample.data.is_empty()) else { return false };
        self.pes.clear();
        pes_head(stream, sample, &mut self.pes);
        if !stream.coding.write(sample.sync, sample.data, &mut self.pes) {
            return false;
        }
        // Pictures may be longer than the field says; sound is not.
        let len = u16::try_from(self.pes.len() - 6).ok().filter(|_| !stream.coding.is_video()).unwrap_or(0);
        self.pes[4..6].copy_from_slice(&len.to_be_bytes());
        let clock =
            (sample.track == self.clock).then(|| sample.decode_ticks.wrapping_sub(CLOCK_LAG) as u64 & TIME_MASK);
        stream.packets(&self.pes, clock, sample.sync, sample.last, out);
        true
    }
}

/// Start code, flags and times (section 2.4.3.6). The length is filled in later.
fn pes_head(stream: &Stream, sample: &TsSample<'_>, out: &mut Vec<u8>) {
    let (pts, dts) = (sample.presentation_ticks as u64 & TIME_MASK, sample.decode_ticks as u64 & TIME_MASK);
    out.extend_from_slice(&[0, 0, 1, stream.stream_id, 0, 0, 0x84]);
    if pts == dts {
        out.extend_from_slice(&[0x80, 5]);
        out.extend_from_slice(&time(2, pts));
    } else {
        out.extend_from_slice(&[0xc0, 10]);
        out.extend_from_slice(&time(3, pts));
        out.extend_from_slice(&time(1, dts));
    }
}

/// 33 bits in 5 bytes, with marker bits between.
fn time(prefix: u8, time: u64) -> [u8; 5] {
    [
        prefix << 4 | (time >> 29) as u8 & 0x0e | 1,
        (time >> 22) as u8,
        (time >> 14) as u8 | 1,
        (time >> 7) as u8,
        (time << 1) as u8 | 1,
    ]
}

/// `adaptation`: 1 payload only, 3 both.
fn packet_head(pid: u16, unit_start: bool, adaptation: u8, counter: u8) -> [u8; 4] {
    [SYNC_BYTE, u8::from(unit_start) << 6 | (pid >> 8) as u8, pid as u8, adaptation << 4 | counter & 15]
}

impl Stream {
    /// Cuts a PES packet. The last of a segment takes as many packets as there are to the next multiple of 16.
    fn packets(&mut self, pes: &[u8], clock: Option<u64>, sync: bool, last: bool, out: &mut Vec<u8>) {
        let extra = match (clock, sync) {
            (Some(_), _) => CLOCK_LEN,
            (None, true) => 2,
            (None, false) => 0,
        };
        let mut count = 1 + pes.len().saturating_sub(ROOM - extra).div_ceil(ROOM);
        if last {
            count += (16 - (usize::from(self.counter) + count) % 16) % 16;
        }
        let mut rest = pes;
        for index in 0..count {
            let first = index == 0;
            let room = if first { ROOM - extra } else { ROOM };
            // Each of those that follow has a byte at least.
            let to_come = count - index - 1;
            let (payload, after) = rest.split_at(rest.len().saturating_sub(to_come).min(room));
            rest = after;
            let stuffing = ROOM - payload.len();
            let adaptation = if stuffing > 0 { 3 } else { 1 };
            out.extend_from_slice(&packet_head(self.pid, first, adaptation, self.counter));
            self.counter = (self.counter + 1) & 15;
            let end = out.len() + stuffing;
            if stuffing > 0 {
                out.push(stuffing as u8 - 1);
            }
            if stuffing > 1 {
                let clock = clock.filter(|_| first);
                out.push(u8::from(first && sync) << 6 | u8::from(clock.is_some()) << 4);
                if let Some(clock) = clock {
                    // Section 2.4.3.5: 33 bits at 90 kHz, 6 reserved, 9 at 27 MHz.
                    out.extend_from_slice(&((clock << 15 | 0x7e00).to_be_bytes()[2..]));
                }
            }
            out.resize(end, 0xff);
            out.extend_from_slice(payload);
        }
    }
}
