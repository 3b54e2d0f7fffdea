//! RTCP (RFC 3550 section 6): sender reports and goodbyes are read, receiver reports are written.

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const SOURCE_DESCRIPTION: u8 = 202;
const GOODBYE: u8 = 203;
/// From 1900-01-01 (NTP) to 1970-01-01, in seconds.
const NTP_UNIX_OFFSET_S: u64 = 2_208_988_800;
/// 2000-01-01 in NTP seconds. Cameras that were never told the time count from their start.
const NTP_YEAR_2000_S: u64 = 3_155_673_600;

/// What a compound packet says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Report {
    Sender(SenderReport),
    /// The source leaves.
    Goodbye {
        ssrc: u32,
    },
}

/// At this RTP time the sender's clock showed that.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SenderReport {
    pub(crate) ssrc: u32,
    /// Seconds since 1900 and their fraction, 32.32.
    pub(crate) ntp: u64,
    pub(crate) timestamp: u32,
}

impl SenderReport {
    /// True if the sender's clock shows a time that can be: after the year 2000.
    pub(crate) fn is_sane(&self) -> bool {
        self.ntp >> 32 >= NTP_YEAR_2000_S
    }

    /// The middle 32 bits: how receiver reports name this report.
    fn short(&self) -> u32 {
        (self.ntp >> 16) as u32
    }
}

/// NTP time in nanoseconds since 1970.
pub(crate) fn ntp_ns(ntp: u64) -> i128 {
    ((i128::from(ntp) * 1_000_000_000) >> 32) - i128::from(NTP_UNIX_OFFSET_S) * 1_000_000_000
}

/// The reports of a compound packet. Reading ends where it makes no sense.
pub(crate) fn parse(bytes: &[u8]) -> Vec<Report> {
    let mut reports = Vec::new();
    let mut rest = bytes;
    while let Some((packet, kind, count, after)) = split(rest) {
        rest = after;
        match kind {
            SENDER_REPORT => reports.extend(sender_report(packet).map(Report::Sender)),
            GOODBYE => {
                reports.extend(packet.chunks_exact(4).take(count).map(|ssrc| Report::Goodbye { ssrc: word(ssrc) }))
            }
            _ => {}
        }
    }
    reports
}

/// One packet without its first word, its type and count, and what follows it.
fn split(bytes: &[u8]) -> Option<(&[u8], u8, usize, &[u8])> {
    let header: &[u8; 4] = bytes.first_chunk()?;
    let len = 4 * usize::from(u16::from_be_bytes([header[2], header[3]]));
    let (packet, rest) = bytes[4..].split_at_checked(len)?;
    (header[0] >> 6 == 2).then(|| (packet, header[1], usize::from(header[0] & 0x1f), rest))
}

fn word(bytes: &[u8]) -> u32 {
    bytes.first_chunk().map_or(0, |bytes| u32::from_be_bytes(*bytes))
}

fn sender_report(packet: &[u8]) -> Option<SenderReport> {
    let ntp = u64::from_be_bytes(*packet.get(4..)?.first_chunk()?);
    Some(SenderReport { ssrc: word(packet), ntp, timestamp: word(packet.get(12..16)?) })
}

/// True if a packet on a shared port is RTCP (RFC 5761 section 4).
pub(crate) fn is_rtcp(bytes: &[u8]) -> bool {
    bytes.get(1).is_some_and(|kind| (192..224).contains(kind))
}

/// Reception of one source, for a receiver report (RFC 3550 sections 6.4.1, A.3, A.8).
#[derive(Debug)]
pub(crate) struct Reception {
    ssrc: u32,
    first: u16,
    highest: u32,
    received: u64,
    /// At the last report.
    expected_before: u64,
    received_before: u64,
    /// Mean deviation of transit times, in ticks, times 16.
    jitter: u32,
    transit: Option<u32>,
    last_report: Option<(u32, u64)>,
}

impl Reception {
    /// Begins with the first packet of a source.
    pub(crate) fn new(ssrc: u32, sequence: u16) -> Self {
        Self {
            ssrc,
            first: sequence,
            highest: u32::from(sequence),
            received: 0,
            expected_before: 0,
            received_before: 0,
            jitter: 0,
            transit: None,
            last_report: None,
        }
    }

    /// A packet came; `arrival_ticks` by our clock, in the source's clock rate.
    pub(crate) fn packet(&mut self, sequence: u16, timestamp: u32, arrival_ticks: u32) {
        let ahead = sequence.wrapping_sub(self.highest as u16);
        if ahead < 0x8000 {
            self.highest = self.highest.wrapping_add(ahead.into());
        }
        self.received += 1;
        let transit = arrival_ticks.wrapping_sub(timestamp);
        if let Some(before) = self.transit.replace(transit) {
            let deviation = i64::from(transit.wrapping_sub(before) as i32).unsigned_abs().min(1 << 27) as u32;
            self.jitter = self.jitter.saturating_add(deviation).saturating_sub((self.jitter + 8) >> 4);
        }
    }

    /// A sender report came, `now_65536ths` of a second by our clock.
    pub(crate) fn sender_report(&mut self, report: &SenderReport, now_65536ths: u64) {
        self.last_report = Some((report.short(), now_65536ths));
    }

    fn expected(&self) -> u64 {
        u64::from(self.highest.wrapping_sub(self.first.into())) + 1
    }

    /// A report block about the time since the last one.
    fn block(&mut self, now_65536ths: u64) -> [u8; 24] {
        let expected = self.expected();
        let lost = i64::try_from(expected).unwrap_or(i64::MAX) - i64::try_from(self.received).unwrap_or(i64::MAX);
        let expected_since = expected.saturating_sub(self.expected_before);
        let received_since = self.received.saturating_sub(self.received_before);
        (self.expected_before, self.received_before) = (expected, self.received);
        let lost_since = expected_since.saturating_sub(received_since);
        let fraction = (lost_since * 256).checked_div(expected_since).unwrap_or(0).min(255) as u32;
        let lost = lost.clamp(-0x80_0000, 0x7f_ffff) as u32 & 0xff_ffff;
        let (last, delay) = self
            .last_report
            .map_or((0, 0), |(last, at)| (last, u32::try_from(now_65536ths.saturating_sub(at)).unwrap_or(u32::MAX)));
        let words = [self.ssrc, fraction << 24 | lost, self.highest, self.jitter >> 4, last, delay];
        let mut block = [0; 24];
        for (bytes, word) in block.chunks_exact_mut(4).zip(words) {
            bytes.copy_from_slice(&word.to_be_bytes());
        }
        block
    }

    /// A compound packet: a receiver report and who we are (RFC 3550 section 6.1 demands both).
    pub(crate) fn report(&mut self, own_ssrc: u32, now_65536ths: u64) -> Vec<u8> {
        let mut out = vec![0x81, RECEIVER_REPORT, 0, 7];
        out.extend(own_ssrc.to_be_bytes());
        out.extend(self.block(now_65536ths));
        const NAME: &[u8] = b"vidar";
        let item_len = (2 + NAME.len() + 1).next_multiple_of(4);
        out.extend([0x81, SOURCE_DESCRIPTION, 0, (1 + item_len / 4) as u8]);
        out.extend(own_ssrc.to_be_bytes());
        out.extend([1, NAME.len() as u8]); // CNAME
        out.extend(NAME);
        out.resize(out.len() + item_len - 2 - NAME.len(), 0);
        out
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn report_packet() -> Vec<u8> {
        let mut out = vec![0x80, SENDER_REPORT, 0, 6, 0, 0, 0, 9];
        out.extend((NTP_UNIX_OFFSET_S + 1_700_000_000).to_be_bytes()[4..].iter());
        out.extend([0x80, 0, 0, 0]); // half a second
        out.extend([0, 0, 0, 77, 0, 0, 0, 1, 0, 0, 0, 2]);
        out
    }

    #[test]
    fn a_compound_packet() {
        let mut bytes = report_packet();
        bytes.extend([0x81, SOURCE_DESCRIPTION, 0, 2, 0, 0, 0, 9, 1, 1, b'x', 0]);
        bytes.extend([0x82, GOODBYE, 0, 2, 0, 0, 0, 9, 0, 0, 0, 10]);
        let reports = parse(&bytes);
        let [Report::Sender(sender), goodbyes @ ..] = &reports[..] else { panic!("{reports:?}") };
        assert_eq!((sender.ssrc, sender.timestamp, ntp_ns(sender.ntp)), (9, 77, 1_700_000_000_500_000_000));
        assert!(sender.is_sane());
        assert!(!SenderReport { ntp: 5 << 32, ..*sender }.is_sane());
        assert_eq!(goodbyes, [Report::Goodbye { ssrc: 9 }, Report::Goodbye { ssrc: 10 }]);
        for len in 0..bytes.len() {
            assert!(parse(&bytes[..len]).len() < reports.len());
        }
    }

    #[test]
    fn a_receiver_report_counts_what_is_missing() {
        let mut reception = Reception::new(7, 65_534);
        for (sequence, at) in [(65_534, 0), (65_535, 160), (1, 480), (2, 640)] {
            reception.packet(sequence, at, at);
        }
        let report = SenderReport { ssrc: 7, ntp: 0x1122_3344_5566_7788, timestamp: 0 };
        reception.sender_report(&report, 65_536);
        let bytes = reception.report(0xabcd, 3 * 65_536);
        let word = |at: usize| u32::from_be_bytes(bytes[at..at + 4].try_into().unwrap());
        assert_eq!(bytes[..4], [0x81, 201, 0, 7]);
        assert_eq!([word(4), word(8)], [0xabcd, 7]);
        assert_eq!(word(12), 51 << 24 | 1, "1 of 5: 51/256");
        assert_eq!([word(16), word(20)], [0x1_0002, 0], "one cycle, no jitter");
        assert_eq!([word(24), word(28)], [0x3344_5566, 2 * 65_536]);
        assert_eq!(bytes[32..36], [0x81, 202, 0, 3]);
        assert_eq!(bytes.len(), 48);
        // Nothing new is missing.
        reception.packet(3, 800, 900);
        let bytes = reception.report(0xabcd, 3 * 65_536);
        assert_eq!(bytes[12..16], [0, 0, 0, 1]);
        assert_eq!(bytes[20..24], [0, 0, 0, 6], "100/16");
    }

    proptest! {
        #[test]
        fn any_bytes_parse(bytes: Vec<u8>) {
            prop_assert!(parse(&bytes).len() <= bytes.len() / 4);
        }
    }
}
