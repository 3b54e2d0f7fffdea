//! One RTP source: packets of a track as they come, to access units and losses in order.

use std::time::Duration;

use bytes::Bytes;

use super::depacketize::{Depacketize, Output, Unit};
use super::reorder::{Ordered, Patience, Reorder};
use super::rtcp::{Reception, Report, SenderReport};
use super::rtp::{Packet, Unwrapper};

/// What a source gives, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Found {
    Unit(Unit),
    /// That many packets are missing or were of no use; 0 if unknown.
    Lost(u32),
    /// Another source goes on: its times have nothing to do with those before.
    NewSource,
}

/// The receiving end of a track.
pub(crate) struct Source {
    payload_type: u8,
    clock_hz: u32,
    depacketizer: Box<dyn Depacketize>,
    reorder: Reorder,
    patience: Patience,
    ssrc: Option<u32>,
    /// A packet of an unknown source: a second in sequence makes it ours.
    candidate: Option<Packet>,
    times: Unwrapper,
    reception: Option<Reception>,
    left: bool,
    ordered: Vec<Ordered>,
}

impl Source {
    pub(crate) fn new(payload_type: u8, clock_hz: u32, depacketizer: Box<dyn Depacketize>, patience: Patience) -> Self {
        Self {
            payload_type,
            clock_hz,
            depacketizer,
            reorder: Reorder::new(patience),
            patience,
            ssrc: None,
            candidate: None,
            times: Unwrapper::default(),
            reception: None,
            left: false,
            ordered: Vec::new(),
        }
    }

    pub(crate) fn depacketizer(&self) -> &dyn Depacketize {
        &*self.depacketizer
    }

    /// It said goodbye.
    pub(crate) fn has_left(&self) -> bool {
        self.left
    }

    /// Takes a packet. Those of other payload types (retransmissions, comfort noise) are left out.
    pub(crate) fn rtp(&mut self, bytes: &Bytes, now: Duration, out: &mut Vec<Found>) {
        let Ok(packet) = Packet::parse(bytes) else {
            out.push(Found::Lost(1));
            return;
        };
        if packet.payload_type != self.payload_type {
            return;
        }
        match self.ssrc {
            Some(ssrc) if ssrc == packet.ssrc => self.candidate = None,
            None => self.ssrc = Some(packet.ssrc),
            Some(_) => {
                let confirmed = self
                    .candidate
                    .take()
                    .filter(|first| first.ssrc == packet.ssrc && first.sequence.wrapping_add(1) == packet.sequence);
                let Some(first) = confirmed else {
                    self.candidate = Some(packet);
                    return;
                };
                self.change(packet.ssrc, out);
                self.accept(first, now, out);
            }
        }
        self.accept(packet, now, out);
    }

    fn change(&mut self, ssrc: u32, out: &mut Vec<Found>) {
        self.flush(out);
        out.push(Found::NewSource);
        self.ssrc = Some(ssrc);
        self.reorder = Reorder::new(self.patience);
        self.times = Unwrapper::default();
        self.reception = None;
    }

    fn accept(&mut self, packet: Packet, now: Duration, out: &mut Vec<Found>) {
        self.left = false;
        let reception = self.reception.get_or_insert_with(|| Reception::new(packet.ssrc, packet.sequence));
        let arrival_ticks = now.as_nanos() * u128::from(self.clock_hz) / 1_000_000_000;
        reception.packet(packet.sequence, packet.timestamp, arrival_ticks as u32);
        self.reorder.push(packet, now, &mut self.ordered);
        self.depacketize(out);
    }

    /// Gives out what waited long enough for packets that did not come.
    pub(crate) fn release(&mut self, now: Duration, out: &mut Vec<Found>) {
        self.reorder.release(now, &mut self.ordered);
        self.depacketize(out);
    }

    /// When `release` has something to do.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.reorder.deadline()
    }

    /// No more will come.
    pub(crate) fn flush(&mut self, out: &mut Vec<Found>) {
        self.reorder.flush(&mut self.ordered);
        self.depacketize(out);
        let mut output = Output::default();
        self.depacketizer.flush(&mut output);
        give(output, out);
    }

    fn depacketize(&mut self, out: &mut Vec<Found>) {
        for ordered in self.ordered.drain(..) {
            match ordered {
                Ordered::Packet(packet) => {
                    let mut output = Output::default();
                    let ticks = self.times.unwrap(packet.timestamp);
                    self.depacketizer.push(&packet, ticks, &mut output);
                    give(output, out);
                }
                Ordered::Lost(count) => {
                    self.depacketizer.lost();
                    out.push(Found::Lost(count));
                }
                Ordered::Restarted => {
                    self.depacketizer.lost();
                    out.push(Found::Lost(0));
                }
            }
        }
    }

    /// Takes a report. Gives a sane sender's clock: NTP time, and the RTP time unwrapped.
    pub(crate) fn rtcp(&mut self, report: Report, now: Duration) -> Option<(u64, i64)> {
        match report {
            Report::Goodbye { ssrc } => {
                self.left |= self.ssrc.is_none_or(|own| own == ssrc);
                None
            }
            Report::Sender(report) => self.sender_report(&report, now),
        }
    }

    fn sender_report(&mut self, report: &SenderReport, now: Duration) -> Option<(u64, i64)> {
        // Some cameras report under an SSRC that they never send from; there is one source on this channel.
        if let Some(reception) = &mut self.reception {
            reception.sender_report(report, to_65536ths(now));
        }
        if !report.is_sane() {
            return None;
        }
        // A report ahead of the first packet says where its times begin.
        let ticks = if self.reception.is_none() {
            self.times.unwrap(report.timestamp)
        } else {
            self.times.peek(report.timestamp)
        };
        Some((report.ntp, ticks))
    }

    /// A receiver report, once something was received.
    pub(crate) fn report(&mut self, own_ssrc: u32, now: Duration) -> Option<Vec<u8>> {
        self.reception.as_mut().map(|reception| reception.report(own_ssrc, to_65536ths(now)))
    }
}

fn to_65536ths(time: Duration) -> u64 {
    u64::try_from(time.as_micros() * 65_536 / 1_000_000).unwrap_or(u64::MAX)
}

fn give(output: Output, out: &mut Vec<Found>) {
    out.extend(output.units.into_iter().map(Found::Unit));
    if output.broken > 0 {
        out.push(Found::Lost(output.broken));
    }
}
