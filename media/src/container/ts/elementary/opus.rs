//! Opus packets behind control headers (ETSI TS 103 491 annex; Opus in MPEG-TS section 5).

use vidar_core::sample::SyncKind;

use super::{Output, Payload, Unit};
use crate::codec::opus::{OpusHead, packet_duration_48k, track_of};
use crate::container::ts::pes::CLOCK_HZ;

#[derive(Debug)]
pub(in super::super) struct OpusPackets {
    /// Until the first packet.
    head: Option<OpusHead>,
    pid: u16,
    /// Where the next packet without a time of its own stands.
    next: Option<i64>,
}

/// A control header (`opus_control_header`).
#[derive(Debug, PartialEq, Eq)]
struct Control {
    len: usize,
    payload_len: usize,
    /// Samples to discard at the start, at 48 kHz.
    start_trim: u16,
}

impl Control {
    fn parse(data: &[u8]) -> Option<Self> {
        let &[prefix, flags, ref sizes @ ..] = data else { return None };
        if prefix != 0x7f || flags & 0xe0 != 0xe0 {
            return None;
        }
        let full = sizes.iter().take_while(|byte| **byte == 0xff).count();
        let payload_len = full * 255 + usize::from(*sizes.get(full)?);
        let mut len = 2 + full + 1;
        let mut start_trim = 0;
        if flags & 0x10 != 0 {
            start_trim = u16::from_be_bytes([*data.get(len)?, *data.get(len + 1)?]) & 0x1fff;
            len += 2;
        }
        if flags & 0x08 != 0 {
            len += 2;
        }
        if flags & 0x04 != 0 {
            len += 1 + usize::from(*data.get(len)?);
        }
        Some(Self { len, payload_len, start_trim })
    }
}

impl OpusPackets {
    pub(super) fn new(head: OpusHead, pid: u16) -> Self {
        Self { head: Some(head), pid, next: None }
    }

    pub(super) fn push(&mut self, payload: &Payload, out: &mut Vec<Output>) {
        self.next = payload.presentation.or(self.next);
        let mut at = 0;
        while let Some(control) = payload.data.get(at..).and_then(Control::parse) {
            let start = at + control.len;
            at = start + control.payload_len;
            let Some(presentation) = self.next.filter(|_| at <= payload.data.len()) else { return };
            let data = payload.data.slice(start..at);
            // Malformed packets are kept, at the time that is known.
            let samples = packet_duration_48k(&data).unwrap_or(0);
            let duration = samples * (CLOCK_HZ / 6000) / 8;
            self.next = Some(presentation.saturating_add(duration.into()));
            if data.is_empty() {
                continue;
            }
            if let Some(head) = self.head.take() {
                let head = OpusHead { pre_skip: control.start_trim, ..head };
                out.push(Output::Track(Box::new(track_of(&head, self.pid.into(), CLOCK_HZ))));
            }
            out.push(Output::Unit(Unit {
                presentation,
                decode: Some(presentation),
                duration: (duration > 0).then_some(duration),
                sync: SyncKind::Sync,
                epoch: payload.epoch,
                data,
            }));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn control_headers() {
        let parse = Control::parse;
        assert_eq!(parse(&[0x7f, 0xe0, 5]), Some(Control { len: 3, payload_len: 5, start_trim: 0 }));
        let long = [0x7f, 0xf8, 0xff, 0xff, 1, 0x01, 0x38, 0, 0];
        assert_eq!(parse(&long), Some(Control { len: 9, payload_len: 511, start_trim: 312 }));
        assert_eq!(parse(&[0x7f, 0xe4, 1, 2, 9, 9]), Some(Control { len: 6, payload_len: 1, start_trim: 0 }));
        for bad in [&[0x7f, 0xe0][..], &[0x7f, 0xc0, 1], &[0x7e, 0xe0, 1], &[0x7f, 0xe0, 0xff], &[0x7f, 0xf0, 1, 0]] {
            assert_eq!(parse(bad), None, "{bad:02x?}");
        }
    }

    #[test]
    fn packets_of_a_payload_follow_each_other() {
        let mut opus = OpusPackets::new(OpusHead::new(1).unwrap(), 0x101);
        let mut payload = Payload {
            presentation: None,
            decode: None,
            epoch: 0,
            random_access: false,
            // 20 ms, 2.5 ms, one cut short.
            data: [&[0x7f, 0xf0, 2, 0, 120][..], &[0xf8, 1], &[0x7f, 0xe0, 1, 0x80], &[0x7f, 0xe0, 9, 0xf8]]
                .concat()
                .into(),
        };
        let mut out = Vec::new();
        opus.push(&payload, &mut out);
        assert!(out.is_empty(), "no time yet");
        payload.presentation = Some(900);
        opus.push(&payload, &mut out);
        payload.presentation = None;
        opus.push(&payload, &mut out);
        let Output::Track(track) = out.remove(0) else { panic!("no track first") };
        assert_eq!(OpusHead::parse(&track.codec_private).unwrap().pre_skip, 120);
        let units: Vec<_> = out
            .iter()
            .map(|output| match output {
                Output::Unit(unit) => (unit.presentation, unit.duration, unit.data.len()),
                Output::Track(_) => panic!("a second track"),
            })
            .collect();
        assert_eq!(units, [(900, Some(1800), 2), (2700, Some(225), 1), (2925, Some(1800), 2), (4725, Some(225), 1)]);
    }
}
