//! Puts packets of one source into order, and finds what is missing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rtp::Packet;

/// A gap of more than this is no loss but a restart (RFC 3550 section A.1).
const DROPOUT_MAX: i64 = 3000;
/// What is older than this is no straggler but a restart.
const MISORDER_MAX: i64 = 100;

/// How long packets wait for one that is missing.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// Packets that may wait.
    pub(crate) packets: usize,
    /// Time they may wait.
    pub(crate) time: Duration,
}

impl Patience {
    /// On TCP nothing comes late.
    pub(crate) const NONE: Self = Self { packets: 0, time: Duration::ZERO };
    /// 64 packets of 1.4 kB in 100 ms are 7 Mbit/s; beyond that the count decides.
    pub(crate) const UDP: Self = Self { packets: 64, time: Duration::from_millis(100) };
}

/// What comes out, in order.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Ordered {
    Packet(Packet),
    /// That many packets are missing here.
    Lost(u32),
    /// The sequence begins anew here.
    Restarted,
}

/// The buffer of one source.
#[derive(Debug)]
pub(crate) struct Reorder {
    patience: Patience,
    /// The number that is due, counted on beyond 16 bits.
    due: Option<i64>,
    waiting: BTreeMap<i64, (Packet, Duration)>,
    /// The number that would confirm a restart.
    restart: Option<u16>,
}

impl Reorder {
    pub(crate) fn new(patience: Patience) -> Self {
        Self { patience, due: None, waiting: BTreeMap::new(), restart: None }
    }

    /// Takes a packet as it came.
    pub(crate) fn push(&mut self, packet: Packet, now: Duration, out: &mut Vec<Ordered>) {
        let due = *self.due.get_or_insert(packet.sequence.into());
        let ahead = i64::from(packet.sequence.wrapping_sub(due as u16) as i16);
        if (-MISORDER_MAX..DROPOUT_MAX).contains(&ahead) {
            self.restart = None;
            if ahead >= 0 {
                self.waiting.entry(due + ahead).or_insert((packet, now));
                self.release(now, out);
            }
            return;
        }
        // Two in a row make a restart; one alone is a stray. On TCP there are no strays.
        if self.patience.packets > 0 && self.restart != Some(packet.sequence) {
            self.restart = Some(packet.sequence.wrapping_add(1));
            return;
        }
        self.flush(out);
        out.push(Ordered::Restarted);
        self.due = Some(i64::from(packet.sequence) + 1);
        self.restart = None;
        out.push(Ordered::Packet(packet));
    }

    /// Gives out what is in order, and what waited long enough.
    pub(crate) fn release(&mut self, now: Duration, out: &mut Vec<Ordered>) {
        while let Some(entry) = self.waiting.first_entry() {
            let due = self.due.unwrap_or(*entry.key());
            let missing = *entry.key() - due;
            let waited = now.saturating_sub(entry.get().1);
            if missing > 0 && self.waiting.len() <= self.patience.packets && waited < self.patience.time {
                return;
            }
            self.give_first(out);
        }
    }

    /// Gives out everything.
    pub(crate) fn flush(&mut self, out: &mut Vec<Ordered>) {
        while !self.waiting.is_empty() {
            self.give_first(out);
        }
    }

    fn give_first(&mut self, out: &mut Vec<Ordered>) {
        let Some((sequence, (packet, _))) = self.waiting.pop_first() else { return };
        let missing = sequence - self.due.unwrap_or(sequence);
        if missing > 0 {
            out.push(Ordered::Lost(u32::try_from(missing).unwrap_or(u32::MAX)));
        }
        self.due = Some(sequence + 1);
        out.push(Ordered::Packet(packet));
    }

    /// When `release` next has something to do, if packets wait.
    pub(crate) fn deadline(&self) -> Option<Duration> {
        self.waiting.first_key_value().map(|(_, (_, since))| *since + self.patience.time)
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use proptest::prelude::*;

    use super::*;

    fn packet(sequence: u16) -> Packet {
        Packet { marker: false, payload_type: 96, sequence, timestamp: 0, ssrc: 1, payload: Bytes::new() }
    }

    /// What comes out of packets that arrive a millisecond apart: numbers, -n for n lost, 0 for a restart.
    fn run(patience: Patience, sequences: &[u16]) -> Vec<i64> {
        let mut reorder = Reorder::new(patience);
        let mut out = Vec::new();
        for (at, sequence) in sequences.iter().enumerate() {
            reorder.push(packet(*sequence), Duration::from_millis(at as u64), &mut out);
        }
        reorder.flush(&mut out);
        let numbers = out.iter().map(|item| match item {
            Ordered::Packet(packet) => packet.sequence.into(),
            Ordered::Lost(count) => -i64::from(*count),
            Ordered::Restarted => 0,
        });
        numbers.collect()
    }

    #[test]
    fn order_loss_duplicates_and_wrap() {
        let udp = Patience::UDP;
        assert_eq!(run(udp, &[7, 9, 8, 8, 10, 7]), [7, 8, 9, 10]);
        assert_eq!(run(udp, &[65_534, 1, 65_535, 3, 2]), [65_534, 65_535, -1, 1, 2, 3]);
        assert_eq!(run(Patience::NONE, &[5, 8, 6, 9]), [5, -2, 8, 9]);
        assert_eq!(run(udp, &[5, 6, 30_000, 7]), [5, 6, 7], "a stray");
        assert_eq!(run(udp, &[5, 6, 30_000, 30_001, 30_002]), [5, 6, 0, 30_001, 30_002]);
        assert_eq!(run(Patience::NONE, &[5, 6, 30_000, 30_001]), [5, 6, 0, 30_000, 30_001]);
    }

    #[test]
    fn waiting_ends_by_time_or_count() {
        let mut reorder = Reorder::new(Patience::UDP);
        let mut out = Vec::new();
        reorder.push(packet(1), Duration::ZERO, &mut out);
        reorder.push(packet(3), Duration::from_millis(10), &mut out);
        assert_eq!((out.len(), reorder.deadline()), (1, Some(Duration::from_millis(110))));
        reorder.release(Duration::from_millis(109), &mut out);
        assert_eq!(out.len(), 1);
        reorder.release(Duration::from_millis(110), &mut out);
        assert_eq!(out[1..], [Ordered::Lost(1), Ordered::Packet(packet(3))]);
        assert_eq!(reorder.deadline(), None);
        for sequence in 5..5 + 65 {
            reorder.push(packet(sequence), Duration::from_millis(110), &mut out);
        }
        assert_eq!(out.len(), 3 + 1 + 65);
    }

    proptest! {
        /// Moved by less than the patience, some twice, some never: out come all that came, once, in order, and as many
        /// losses as there are gaps.
        #[test]
        fn order_is_made_again(
            start: u16,
            keep in prop::collection::vec(prop::bool::weighted(0.9), 1..300),
            jitter in prop::collection::vec(0..20_usize, 300),
            twice in prop::collection::vec(prop::bool::weighted(0.1), 300),
        ) {
            let mut sent: Vec<(usize, usize)> = Vec::new();
            for (at, kept) in keep.iter().enumerate() {
                // The first stays first: order is counted from it.
                let kept = *kept || at == 0;
                let place = if at == 0 { 0 } else { at + jitter[at] + 1 };
                sent.extend(kept.then_some((place, at)));
                sent.extend((kept && twice[at]).then_some((place + 5, at)));
            }
            sent.sort();
            let sequences: Vec<u16> = sent.iter().map(|(_, at)| start.wrapping_add(*at as u16)).collect();
            let mut reorder = Reorder::new(Patience { time: Duration::from_secs(1), ..Patience::UDP });
            let mut out = Vec::new();
            for sequence in sequences {
                reorder.push(packet(sequence), Duration::ZERO, &mut out);
            }
            reorder.flush(&mut out);
            let mut expected = vec![Ordered::Packet(packet(start))];
            let mut missing = 0;
            for (at, kept) in keep.iter().enumerate().skip(1) {
                if !*kept {
                    missing += 1;
                    continue;
                }
                expected.extend((missing > 0).then_some(Ordered::Lost(missing)));
                missing = 0;
                expected.push(Ordered::Packet(packet(start.wrapping_add(at as u16))));
            }
            prop_assert_eq!(out, expected);
        }
    }
}
