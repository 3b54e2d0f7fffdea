//! Puts NAL units together to access units, for H.264 and H.265.
//!
//! An access unit ends with a marker after coded slices, or where the time changes. Markers on SEI (some cameras) and
//! no markers at all (FLIR M400) are thereby understood. Parameter sets and SEI with a time of their own belong to the
//! pictures that follow.
//!
//! # Invariants
//! 1. A unit in the making is at most [`SAMPLE_BYTES_MAX`] long.
//! 2. After a loss nothing is taken until a NAL unit begins an access unit, or the time changes.

use bytes::Bytes;
use vidar_core::limits::{CODEC_PRIVATE_BYTES_MAX, SAMPLE_BYTES_MAX};
use vidar_media::Track;
use vidar_media::codec::nal::{is_annex_b, split_annex_b};

use super::{Depacketize, Output, Unit};
use crate::rtsp::rtp::Packet;

/// What a codec's NAL units are.
pub(super) trait NalKind: Send + Sized {
    /// Bytes of a NAL unit's header. A payload has at least one.
    const HEADER_BYTES: usize;
    /// The beginning of the first NAL unit of a payload; empty where it is a later piece.
    fn first_nal(payload: &[u8]) -> Vec<u8>;
    /// Takes a payload apart.
    fn payload(assembler: &mut Assembler<Self>, payload: &Bytes, out: &mut Output);
    /// A coded slice.
    fn is_slice(nal: &[u8]) -> bool;
    /// It begins an access unit if slices came before.
    fn begins_unit(nal: &[u8]) -> bool;
    /// An access unit delimiter: carries nothing.
    fn is_delimiter(nal: &[u8]) -> bool;
    /// A parameter set.
    fn is_parameter_set(nal: &[u8]) -> bool;
    /// A track made of parameter sets, of any kind and in any order.
    fn track(sets: &[Bytes], source_number: u64, clock_hz: u32) -> Option<Track>;
}

/// Room that is kept from one unit to the next.
const SCRATCH_BYTES_MAX: usize = 32 << 10;

/// Where a loss leaves us.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Damage {
    None,
    /// Packets of this time are dropped; None: not yet known which.
    Skipping(Option<i64>),
}

/// The depacketizer of a codec made of NAL units.
pub(super) struct NalUnits<K> {
    assembler: Assembler<K>,
}

impl<K: NalKind> NalUnits<K> {
    /// As [`Assembler::new`].
    pub(super) fn new(sets: &[Bytes], source_number: u64, clock_hz: u32) -> Self {
        Self { assembler: Assembler::new(sets, source_number, clock_hz) }
    }
}

impl<K: NalKind> Depacketize for NalUnits<K> {
    fn push(&mut self, packet: &Packet, ticks: i64, out: &mut Output) {
        if packet.payload.len() < K::HEADER_BYTES {
            return;
        }
        if self.assembler.begin_packet(ticks, &packet.payload, packet.marker, out) {
            K::payload(&mut self.assembler, &packet.payload, out);
            self.assembler.end_packet(packet.marker, out);
        }
    }

    fn lost(&mut self) {
        self.assembler.lost();
    }

    fn held_bytes(&self) -> usize {
        self.assembler.unit.len()
    }

    fn flush(&mut self, out: &mut Output) {
        self.assembler.flush(out);
    }

    fn track(&self) -> Option<&Track> {
        self.assembler.track.as_ref()
    }
}

/// Up to 8 bytes of a payload: what tells how a NAL unit begins.
pub(super) fn beginning(payload: &[u8], at: usize) -> Vec<u8> {
    payload.get(at..).unwrap_or_default().iter().take(8).copied().collect()
}

/// Collects NAL units.
pub(super) struct Assembler<K> {
    kind: std::marker::PhantomData<fn() -> K>,
    unit: Vec<u8>,
    ticks: i64,
    has_slice: bool,
    /// Where the length of the NAL unit in the making stands.
    fragment: Option<usize>,
    damage: Damage,
    track: Option<Track>,
    /// Parameter sets in band, until there is a track.
    sets: Vec<Bytes>,
    source_number: u64,
    clock_hz: u32,
}

impl<K: NalKind> Assembler<K> {
    /// `sets` are the announced parameter sets: their order, start codes and bytes that do not belong are tolerated.
    fn new(sets: &[Bytes], source_number: u64, clock_hz: u32) -> Self {
        let mut assembler = Self {
            kind: std::marker::PhantomData,
            unit: Vec::new(),
            ticks: 0,
            has_slice: false,
            fragment: None,
            damage: Damage::None,
            track: None,
            sets: Vec::new(),
            source_number,
            clock_hz,
        };
        for set in sets {
            let split = if is_annex_b(set) { split_annex_b(set) } else { vec![set.clone()] };
            split.iter().for_each(|set| assembler.learn(set));
        }
        // Sets that make no track are not mixed with those in band.
        assembler.sets.clear();
        assembler
    }

    fn learn(&mut self, nal: &[u8]) {
        let held: usize = self.sets.iter().map(Bytes::len).sum();
        if self.track.is_some() || !K::is_parameter_set(nal) || held + nal.len() > CODEC_PRIVATE_BYTES_MAX / 16 {
            return;
        }
        let set = Bytes::copy_from_slice(nal);
        if !self.sets.contains(&set) {
            self.sets.push(set);
        }
        self.track = K::track(&self.sets, self.source_number, self.clock_hz);
        if self.track.is_some() {
            self.sets = Vec::new();
        }
    }

    /// A packet begins. False: drop it.
    fn begin_packet(&mut self, ticks: i64, payload: &[u8], marker: bool, out: &mut Output) -> bool {
        if ticks != self.ticks && self.damage == Damage::None {
            self.end_unit(out);
        }
        if let Damage::Skipping(at) = self.damage {
            let other_time = at.is_some_and(|at| at != ticks);
            let first = K::first_nal(payload);
            let begins = is_annex_b(&first) || K::begins_unit(&first) && !(K::is_slice(&first) && at == Some(ticks));
            if !other_time && !begins {
                self.damage = if marker { Damage::None } else { Damage::Skipping(Some(ticks)) };
                return false;
            }
            self.damage = Damage::None;
        }
        self.ticks = ticks;
        true
    }

    /// The packet ends.
    fn end_packet(&mut self, marker: bool, out: &mut Output) {
        if marker && self.has_slice && self.fragment.is_none() {
            self.end_unit(out);
        }
    }

    /// A whole NAL unit. Byte streams that some cameras put in its place are taken apart.
    pub(super) fn nal(&mut self, nal: &[u8], out: &mut Output) {
        self.drop_fragment(out);
        if is_annex_b(nal) || !K::is_slice(nal) && has_start_code(nal) {
            // A first NAL unit without a start code, then ones with.
            let stream = [&[0, 0, 1], nal].concat();
            split_annex_b(&Bytes::from(stream)).iter().for_each(|nal| self.add(nal, out));
        } else {
            self.add(nal, out);
        }
    }

    fn add(&mut self, nal: &[u8], out: &mut Output) {
        if nal.is_empty() || K::is_delimiter(nal) {
            return;
        }
        self.learn(nal);
        if !self.fits(nal.len() + 4, out) {
            return;
        }
        self.has_slice |= K::is_slice(nal);
        self.unit.extend_from_slice(&(nal.len() as u32).to_be_bytes());
        self.unit.extend_from_slice(nal);
    }

    /// NAL units behind their lengths of 2 bytes.
    pub(super) fn aggregate(&mut self, mut rest: &[u8], out: &mut Output) {
        while let Some((len, after)) = rest.split_first_chunk::<2>() {
            let Some((nal, after)) = after.split_at_checked(u16::from_be_bytes(*len).into()) else {
                return self.break_unit(out);
            };
            self.nal(nal, out);
            rest = after;
        }
    }

    /// A piece of a NAL unit: the first, which begins with `header`, the last, both or neither.
    pub(super) fn piece(&mut self, header: &[u8], data: &[u8], first: bool, last: bool, out: &mut Output) {
        if first {
            self.begin_fragments(header, data, out);
        } else {
            self.fragment(data, out);
        }
        if last {
            self.end_fragments(out);
        }
    }

    /// A NAL unit begins that comes in pieces.
    fn begin_fragments(&mut self, header: &[u8], payload: &[u8], out: &mut Output) {
        self.drop_fragment(out);
        if !self.fits(4 + header.len() + payload.len(), out) {
            return;
        }
        self.fragment = Some(self.unit.len());
        self.unit.extend_from_slice(&[0; 4]);
        self.unit.extend_from_slice(header);
        self.unit.extend_from_slice(payload);
    }

    /// A further piece.
    fn fragment(&mut self, payload: &[u8], out: &mut Output) {
        if self.fragment.is_none() {
            // The beginning was lost without a gap in the sequence, or never sent.
            self.break_unit(out);
        } else if self.fits(payload.len(), out) {
            self.unit.extend_from_slice(payload);
        }
    }

    /// The last piece was given.
    fn end_fragments(&mut self, out: &mut Output) {
        let Some(start) = self.fragment.take() else { return };
        let nal = &self.unit[start + 4..];
        if K::is_slice(nal) && !is_annex_b(nal) {
            let len = (nal.len() as u32).to_be_bytes();
            self.unit[start..start + 4].copy_from_slice(&len);
            self.has_slice = true;
        } else {
            let nal = nal.to_vec();
            self.unit.truncate(start);
            self.nal(&nal, out);
        }
    }

    /// A new NAL unit begins where one in pieces has not ended.
    fn drop_fragment(&mut self, out: &mut Output) {
        if let Some(start) = self.fragment.take() {
            self.unit.truncate(start);
            out.broken += 1;
        }
    }

    /// Packets are missing.
    fn lost(&mut self) {
        let at = (!self.unit.is_empty()).then_some(self.ticks).filter(|_| self.has_slice || self.fragment.is_some());
        self.clear();
        self.damage = Damage::Skipping(at);
    }

    /// Something in this unit makes no sense: drops it.
    pub(super) fn break_unit(&mut self, out: &mut Output) {
        out.broken += 1;
        self.clear();
        self.damage = Damage::Skipping(Some(self.ticks));
    }

    /// Gives out the last unit.
    fn flush(&mut self, out: &mut Output) {
        if self.damage == Damage::None {
            self.end_unit(out);
        }
    }

    /// Ends the unit if it has a picture. Parameter sets and SEI alone wait for theirs.
    fn end_unit(&mut self, out: &mut Output) {
        self.drop_fragment(out);
        if !self.has_slice {
            return;
        }
        // Exactly its length: it is held until it is on disk, and the next unit is put together in the same room.
        let data = Bytes::copy_from_slice(&self.unit);
        self.unit.clear();
        self.unit.shrink_to(SCRATCH_BYTES_MAX);
        self.has_slice = false;
        out.units.push(Unit { ticks: self.ticks, duration_ticks: None, data });
    }

    fn clear(&mut self) {
        self.unit.clear();
        self.has_slice = false;
        self.fragment = None;
    }

    fn fits(&mut self, len: usize, out: &mut Output) -> bool {
        let fits = self.damage == Damage::None && self.unit.len() + len <= SAMPLE_BYTES_MAX;
        if !fits {
            self.break_unit(out);
        }
        fits
    }
}

fn has_start_code(nal: &[u8]) -> bool {
    nal.windows(3).any(|window| window == [0, 0, 1])
}
