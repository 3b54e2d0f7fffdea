//! The demuxer: packets to programs, programs to elementary streams, elementary streams to events.

use bytes::{Bytes, BytesMut};
use vidar_core::limits::{SAMPLE_BYTES_MAX, TRACK_COUNT_MAX};

use super::elementary::{Elementary, Output, Payload};
use super::input::Input;
use super::output::{Known, Outlet};
use super::packet::{Continuity, Counter, NULL_PID, PACKET_LEN, Packet};
use super::pes::{Clock, PesHeader, declared_len};
use super::program::{Reading, language};
use super::section::{Assembler, Declared, Pat, Pmt};
use crate::demux::{Demux, DemuxError, DemuxErrorKind, Event};

/// Input without a program, or with one that shows nothing that can be read, before it is refused. More than a sample.
const SILENT_BYTES_MAX: u64 = 64 << 20;
/// Programs whose maps are looked at.
const PROGRAM_COUNT_MAX: usize = 64;
/// Input is worked off in pieces of this size, so that little of it is copied at a time.
const PIECE_BYTES: usize = 64 << 10;

/// A PES packet on its way.
#[derive(Debug)]
struct Open {
    data: BytesMut,
    epoch: u32,
    random_access: bool,
}

/// An elementary stream of the program.
#[derive(Debug)]
struct Stream {
    declared: Declared,
    elementary: Elementary,
    counter: Counter,
    open: Option<Open>,
}

impl Stream {
    /// Bytes of what is not complete.
    fn held_bytes(&self) -> usize {
        self.elementary.held_bytes() + self.open.as_ref().map_or(0, |open| open.data.len())
    }
}

/// Where a program map is sent.
#[derive(Debug)]
struct MapPid {
    program: u16,
    pid: u16,
    assembler: Assembler,
    counter: Counter,
}

/// Reads one program of a transport stream.
///
/// The first program with media whose map comes is read, the others are ignored. A [`Event::Config`] comes as soon as
/// each of its streams showed its parameters; after 2 s or 2 MiB without those that did not. They come with a new
/// config once they do; so does a changed program map. Samples that precede their track's parameters are dropped.
///
/// Pictures of H.264 and H.265 are given behind lengths of 4 bytes, without delimiters and filler, with their parameter
/// sets; AAC without ADTS headers; what is not understood as PES payloads of an opaque track. All times are in ticks of
/// 90 kHz, of 33 bits unwrapped over all tracks. What lost packets damaged is dropped and told ([`Event::Lost`]).
#[derive(Debug, Default)]
pub struct Demuxer {
    input: Input,
    packet_count: u64,
    association: Assembler,
    association_counter: Counter,
    association_version: Option<u8>,
    maps: Vec<MapPid>,
    /// The program's map, once there is one with media.
    program: Option<Pmt>,
    streams: Vec<Stream>,
    clock: Clock,
    /// Discontinuities of the program's clock so far.
    epoch: u32,
    scrambled: bool,
    outlet: Outlet,
}

impl Demux for Demuxer {
    fn push(&mut self, input: Bytes, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        for piece in input.chunks(PIECE_BYTES) {
            self.input.push(piece);
            self.packets(false, events)?;
        }
        Ok(())
    }

    fn held_bytes(&self) -> usize {
        let of_streams: usize = self.streams.iter().map(Stream::held_bytes).sum();
        self.input.rest().len() + self.outlet.held_bytes() + of_streams
    }

    fn finish(&mut self, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        self.packets(true, events)?;
        let rest = self.input.rest();
        let within_packet = !rest.is_empty();
        // The rest of a packet is of a PES packet that goes on: that one is not complete, whatever its header says.
        if let &[_, high, low, ..] = rest
            && high & 0x40 == 0
            && let Some(index) = self.stream_of(u16::from_be_bytes([high & 0x1f, low]))
        {
            self.lose(index, events);
        }
        let mut cut = None;
        for index in 0..self.streams.len() {
            let stream = &mut self.streams[index];
            let declared = stream.open.as_ref().and_then(|open| declared_len(&open.data)).flatten();
            if declared.is_some() {
                cut = Some(stream.declared.pid);
                self.lose(index, events);
            } else {
                self.end(index, events);
            }
            let mut out = Vec::new();
            self.streams[index].elementary.finish(&mut out);
            self.take(index, out, events);
        }
        self.outlet.release(events);
        if within_packet {
            return Err(self.error(DemuxErrorKind::Truncated, "packet", "input ends within a packet"));
        }
        if self.outlet.is_silent() {
            return Err(self.nothing_found());
        }
        match cut {
            Some(pid) => {
                let path = format!("PES of PID 0x{pid:04x}");
                Err(self.error(DemuxErrorKind::Truncated, &path, "input ends within a PES packet"))
            }
            None => Ok(()),
        }
    }
}

impl Demuxer {
    /// At the start of an input.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    fn error(&self, kind: DemuxErrorKind, path: &str, detail: &str) -> DemuxError {
        DemuxError { kind, offset: self.input.offset(), path: path.into(), detail: detail.into() }
    }

    fn nothing_found(&self) -> DemuxError {
        let (path, detail) = if self.packet_count == 0 {
            ("packet", "no packet: expected 188 bytes that begin with 0x47")
        } else if self.maps.is_empty() {
            ("PAT", "no program association table")
        } else if self.program.is_none() {
            ("PMT", "no program with media")
        } else if self.scrambled {
            ("PES", "all streams of the program are scrambled")
        } else {
            ("PES", "no stream of the program showed its parameters")
        };
        self.error(DemuxErrorKind::Unusable, path, detail)
    }

    fn packets(&mut self, at_end: bool, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        while let Some(data) = self.input.next(at_end)? {
            self.packet_count += 1;
            self.packet(&data, events)?;
            if self.outlet.is_silent() && self.outlet.waited_bytes(self.input.offset()) > SILENT_BYTES_MAX {
                return Err(self.nothing_found());
            }
        }
        Ok(())
    }

    fn packet(&mut self, data: &[u8; PACKET_LEN], events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let packet = match Packet::parse(data) {
            // The counter shows what is missing instead of a damaged packet.
            Some(packet) if !packet.damaged && packet.pid != NULL_PID => packet,
            _ => return Ok(()),
        };
        if packet.discontinuity && self.program.as_ref().is_some_and(|program| program.pcr_pid == packet.pid) {
            self.epoch += 1;
        }
        if packet.pid == 0 {
            self.association(&packet);
        } else if let Some(index) = self.stream_of(packet.pid) {
            self.stream(index, &packet, events)?;
        } else if let Some(index) = self.maps.iter().position(|map| map.pid == packet.pid) {
            self.map(index, &packet, events);
        }
        Ok(())
    }

    fn stream_of(&self, pid: u16) -> Option<usize> {
        self.streams.iter().position(|stream| stream.declared.pid == pid)
    }

    fn association(&mut self, packet: &Packet<'_>) {
        let mut tables = Vec::new();
        let (assembler, counter) = (&mut self.association, &mut self.association_counter);
        sections(assembler, counter, packet, |section| tables.extend(Pat::parse(section)));
        for Pat { version, programs } in tables {
            if self.association_version != Some(version) {
                self.association_version = Some(version);
                self.maps.retain(|map| programs.contains(&(map.program, map.pid)));
            }
            for (program, pid) in programs {
                let known = self.maps.iter().any(|map| (map.program, map.pid) == (program, pid));
                if !known && self.maps.len() < PROGRAM_COUNT_MAX {
                    let (assembler, counter) = (Assembler::default(), Counter::default());
                    self.maps.push(MapPid { program, pid, assembler, counter });
                }
            }
        }
    }

    fn map(&mut self, index: usize, packet: &Packet<'_>, events: &mut Vec<Event>) {
        let MapPid { pid, assembler, counter, .. } = &mut self.maps[index];
        let (pid, mut tables) = (*pid, Vec::new());
        sections(assembler, counter, packet, |section| tables.extend(Pmt::parse(section)));
        for table in tables {
            let listed = |number: u16| self.maps.iter().any(|map| (map.program, map.pid) == (number, pid));
            let wanted = match &self.program {
                // A program that is no longer listed makes room for another.
                Some(program) => {
                    program.program == table.program || !self.maps.iter().any(|map| map.program == program.program)
                }
                None => table.streams.iter().any(|declared| Reading::of(declared).is_some()),
            };
            if wanted && listed(table.program) && self.program.as_ref() != Some(&table) {
                self.declare(table, events);
            }
        }
    }

    /// The program has these streams from here on. Those it had before in the same way go on.
    fn declare(&mut self, table: Pmt, events: &mut Vec<Event>) {
        for index in 0..self.streams.len() {
            if !table.streams.contains(&self.streams[index].declared) {
                self.end(index, events);
                let mut out = Vec::new();
                self.streams[index].elementary.finish(&mut out);
                self.take(index, out, events);
            }
        }
        self.outlet.release(events);
        let mut before: Vec<(Stream, Known)> =
            std::mem::take(&mut self.streams).into_iter().zip(std::mem::take(&mut self.outlet.known)).collect();
        let mut now: Vec<(Stream, Known)> = Vec::new();
        for declared in &table.streams {
            if now.len() == TRACK_COUNT_MAX || now.iter().any(|(stream, _)| stream.declared.pid == declared.pid) {
                continue;
            }
            if let Some(index) = before.iter().position(|(stream, _)| stream.declared == *declared) {
                now.push(before.swap_remove(index));
            } else if let Some(reading) = Reading::of(declared) {
                now.push(stream(declared, reading));
            }
        }
        let (streams, known) = now.into_iter().unzip();
        self.streams = streams;
        self.outlet.declare(known, self.input.offset(), events);
        self.program = Some(table);
    }

    fn stream(&mut self, index: usize, packet: &Packet<'_>, events: &mut Vec<Event>) -> Result<(), DemuxError> {
        let continuity = self.streams[index].counter.check(packet);
        let Some(payload) = packet.payload else { return Ok(()) };
        match continuity {
            Continuity::Next => {}
            Continuity::Duplicate => return Ok(()),
            Continuity::Lost(count) => {
                self.lose(index, events);
                self.outlet.event(Event::Lost { count: count.into() }, events);
            }
        }
        if packet.scrambled {
            self.scrambled = true;
            self.lose(index, events);
            return Ok(());
        }
        if packet.unit_start {
            self.end(index, events);
            let (epoch, random_access) = (self.epoch, packet.random_access);
            let data = BytesMut::from(payload);
            self.streams[index].open = Some(Open { data, epoch, random_access });
            // The packet before is complete; whether that completes a picture, the time of this one tells.
            if let Some(pts) = PesHeader::parse(payload).and_then(|header| header.pts) {
                let mut out = Vec::new();
                self.streams[index].elementary.begins(pts, &mut out);
                self.take(index, out, events);
            }
        } else if let Some(open) = &mut self.streams[index].open {
            open.data.extend_from_slice(payload);
        }
        let open = self.streams[index].open.as_ref();
        let whole = |open: &Open| declared_len(&open.data).flatten().is_some_and(|len| open.data.len() >= len);
        if open.is_some_and(whole) {
            self.end(index, events);
        }
        self.check_size(index)
    }

    fn check_size(&self, index: usize) -> Result<(), DemuxError> {
        if self.streams.iter().map(Stream::held_bytes).sum::<usize>() <= SAMPLE_BYTES_MAX {
            return Ok(());
        }
        let path = format!("PES of PID 0x{:04x}", self.streams[index].declared.pid);
        Err(self.error(DemuxErrorKind::TooLarge, &path, "samples of more than 50 MiB"))
    }

    /// The PES packet of a stream is complete, as far as it came.
    fn end(&mut self, index: usize, events: &mut Vec<Event>) {
        let stream = &mut self.streams[index];
        let Some(open) = stream.open.take() else { return };
        let Some(header) = PesHeader::parse(&open.data) else { return };
        let end = declared_len(&open.data).flatten().unwrap_or(open.data.len()).min(open.data.len());
        let data = open.data.freeze();
        let decode = header.dts.map(|time| self.clock.unwrap(time));
        let payload = Payload {
            presentation: header.pts.map(|time| self.clock.unwrap(time)),
            decode,
            epoch: open.epoch,
            random_access: open.random_access,
            data: data.slice(header.len.min(end)..end),
        };
        let mut out = Vec::new();
        stream.elementary.push(payload, header.pts, &mut out);
        self.take(index, out, events);
    }

    /// Packets of a stream are missing here.
    fn lose(&mut self, index: usize, events: &mut Vec<Event>) {
        let whole = self.streams[index].open.is_none();
        if self.streams[index].elementary.keeps_partial() {
            self.end(index, events);
        }
        let mut out = Vec::new();
        let stream = &mut self.streams[index];
        stream.open = None;
        stream.elementary.lose(whole, &mut out);
        self.take(index, out, events);
    }

    fn take(&mut self, index: usize, out: Vec<Output>, events: &mut Vec<Event>) {
        if !out.is_empty() {
            self.outlet.take(index, out, self.input.offset(), events);
        }
    }
}

fn stream(declared: &Declared, reading: Reading) -> (Stream, Known) {
    let language = language(declared);
    let known = Known::new(reading.known_track(), language);
    let elementary = Elementary::new(reading, declared.pid);
    (Stream { declared: declared.clone(), elementary, counter: Counter::default(), open: None }, known)
}

/// Gives the sections that a packet completes to `each`.
fn sections(assembler: &mut Assembler, counter: &mut Counter, packet: &Packet<'_>, each: impl FnMut(&[u8])) {
    let continuity = counter.check(packet);
    let Some(payload) = packet.payload.filter(|_| !packet.scrambled) else { return };
    match continuity {
        Continuity::Next => {}
        Continuity::Duplicate => return,
        Continuity::Lost(_) => assembler.reset(),
    }
    assembler.push(payload, packet.unit_start, each);
}
