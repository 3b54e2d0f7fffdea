//! Where the units of a container end, to tell an input that was cut off from a whole one: GStreamer's demuxers end
//! alike for both. Nothing is taken apart by it.
//!
//! It gives up at whatever it does not know, and says nothing then: a length that was never filled in, a stream without
//! units, bytes that are broken anyway.

use super::format::Foreign;

/// A length from here on stands for one that was not known: files that were written to a pipe.
const RIFF_LEN_UNKNOWN: u32 = 0x7fff_0000;

/// Follows an input, unit by unit.
pub(super) struct Extent {
    format: Foreign,
    /// First bytes of the unit that begins.
    head: Vec<u8>,
    /// Of the unit that goes on, in bytes.
    left: u64,
    first: bool,
    known: bool,
}

/// What the first bytes of a unit say.
enum Unit {
    /// Too few of them.
    More,
    /// Its length with these, in bytes.
    Len(u64),
    /// Nothing that is known here.
    Unknown,
}

impl Extent {
    pub(super) fn new(format: Foreign) -> Self {
        Self { format, head: Vec::new(), left: 0, first: true, known: true }
    }

    /// The next bytes.
    pub(super) fn push(&mut self, mut input: &[u8]) {
        while self.known {
            let skipped = usize::try_from(self.left).unwrap_or(usize::MAX).min(input.len());
            input = &input[skipped..];
            self.left -= skipped as u64;
            let Some((byte, rest)) = input.split_first() else { return };
            self.head.push(*byte);
            input = rest;
            match unit(self.format, self.first, &self.head) {
                Unit::More => {}
                Unit::Len(len) => {
                    // Never less than what was read of it: else the length is no length.
                    let left = len.checked_sub(self.head.len() as u64);
                    (self.left, self.known, self.first) = (left.unwrap_or(0), left.is_some(), false);
                    self.head.clear();
                }
                Unit::Unknown => self.known = false,
            }
        }
    }

    /// The input so far ends inside a unit.
    pub(super) fn inside(&self) -> bool {
        self.known && (self.left > 0 || !self.head.is_empty())
    }
}

fn unit(format: Foreign, first: bool, head: &[u8]) -> Unit {
    let unit = match format {
        Foreign::Avi | Foreign::Wav => riff(head, b"RIFF", u32::from_le_bytes),
        Foreign::Aiff => riff(head, b"FORM", u32::from_be_bytes),
        Foreign::Au => au(first, head),
        Foreign::Flv => flv(first, head),
        Foreign::Ogg => ogg(head),
        Foreign::MpegPs => mpeg_ps(head),
        Foreign::Ivf => ivf(first, head),
        Foreign::Flac | Foreign::Adts | Foreign::Mp3 | Foreign::Ac3 | Foreign::H264 | Foreign::H265 => {
            Some(Unit::Unknown)
        }
    };
    unit.unwrap_or(Unit::More)
}

/// Four bytes at `at`.
fn four(head: &[u8], at: usize) -> Option<[u8; 4]> {
    head.get(at..at + 4)?.try_into().ok()
}

/// Name and length, without the padding of an odd length, which some leave out.
fn riff(head: &[u8], name: &[u8; 4], number: fn([u8; 4]) -> u32) -> Option<Unit> {
    if !head.iter().zip(name).all(|(byte, wanted)| byte == wanted) {
        return Some(Unit::Unknown);
    }
    let len = number(four(head, 4)?);
    let known = len != 0 && len < RIFF_LEN_UNKNOWN;
    Some(if known { Unit::Len(8 + u64::from(len)) } else { Unit::Unknown })
}

/// One header: where the sound begins, and its length.
fn au(first: bool, head: &[u8]) -> Option<Unit> {
    let (begins, len) = (u32::from_be_bytes(four(head, 4)?), u32::from_be_bytes(four(head, 8)?));
    let known = first && len != u32::MAX;
    Some(if known { Unit::Len(u64::from(begins) + u64::from(len)) } else { Unit::Unknown })
}

/// A header and the size 0 of no tag; tags, each with its size behind it (annexes E.2, E.3).
fn flv(first: bool, head: &[u8]) -> Option<Unit> {
    if first {
        return Some(Unit::Len(u64::from(u32::from_be_bytes(four(head, 5)?)) + 4));
    }
    let [kind, len @ ..] = four(head, 0)?;
    let len = u32::from_be_bytes([0, len[0], len[1], len[2]]);
    Some(if matches!(kind & 0x1f, 8 | 9 | 18) { Unit::Len(11 + u64::from(len) + 4) } else { Unit::Unknown })
}

/// A page (RFC 3533 section 6).
fn ogg(head: &[u8]) -> Option<Unit> {
    if four(head, 0)? != *b"OggS" {
        return Some(Unit::Unknown);
    }
    let segments = usize::from(*head.get(26)?);
    let lens = head.get(27..27 + segments)?;
    Some(Unit::Len(27 + segments as u64 + lens.iter().map(|len| u64::from(*len)).sum::<u64>()))
}

/// Pack headers and packets (ISO/IEC 13818-1 sections 2.5.3.3, 2.4.3.7; ISO/IEC 11172-1 section 2.4.3.2).
fn mpeg_ps(head: &[u8]) -> Option<Unit> {
    let [0, 0, 1, id] = four(head, 0)? else { return Some(Unit::Unknown) };
    Some(match id {
        0xb9 => Unit::Len(4),
        0xba if head.get(4)? >> 6 == 1 => Unit::Len(14 + u64::from(head.get(13)? & 7)),
        0xba => Unit::Len(12),
        0xbb.. => Unit::Len(6 + u64::from(u16::from_be_bytes([*head.get(4)?, *head.get(5)?]))),
        _ => Unit::Unknown,
    })
}

/// A header of 32 bytes; frames, each behind 12 bytes.
fn ivf(first: bool, head: &[u8]) -> Option<Unit> {
    Some(Unit::Len(if first { 32 } else { 12 + u64::from(u32::from_le_bytes(four(head, 0)?)) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn inside(format: Foreign, input: &[u8]) -> bool {
        let (mut whole, mut bytes) = (Extent::new(format), Extent::new(format));
        whole.push(input);
        input.chunks(1).for_each(|byte| bytes.push(byte));
        assert_eq!(whole.inside(), bytes.inside(), "{format:?}: it depends on how the input is cut");
        whole.inside()
    }

    /// A whole input, and where its units end.
    fn whole(format: Foreign) -> (Vec<u8>, Vec<usize>) {
        let units: Vec<Vec<u8>> = match format {
            Foreign::Avi | Foreign::Wav => vec![b"RIFF\x06\0\0\0abcdef".to_vec(), b"RIFF\x04\0\0\0abcd".to_vec()],
            Foreign::Aiff => vec![b"FORM\0\0\0\x06abcdef".to_vec()],
            Foreign::Au => vec![b".snd\0\0\0\x18\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\0\0\x01xy".to_vec()],
            Foreign::Flv => {
                vec![b"FLV\x01\x05\0\0\0\x09\0\0\0\0".to_vec(), b"\x09\0\0\x02\0\0\0\0\0\0\0xy\0\0\0\x0d".to_vec()]
            }
            Foreign::Ogg => {
                vec![[&b"OggS"[..], &[0; 22], &[2, 1, 2, 9, 9, 9]].concat(), [&b"OggS"[..], &[0; 22], &[0]].concat()]
            }
            Foreign::MpegPs => vec![
                [&[0, 0, 1, 0xba, 0x44][..], &[0; 8], &[0xf9, 0xff]].concat(),
                vec![0, 0, 1, 0xe0, 0, 3, 1, 2, 3],
                vec![0, 0, 1, 0xb9],
            ],
            Foreign::Ivf => vec![vec![0; 32], [&[2, 0, 0, 0][..], &[0; 8], &[7, 7]].concat()],
            _ => Vec::new(),
        };
        let ends = units.iter().scan(0, |end, unit| {
            *end += unit.len();
            Some(*end)
        });
        (units.concat(), ends.collect())
    }

    #[test]
    fn an_input_that_ends_inside_a_unit_is_told_at_every_length() {
        for format in Foreign::names().map(|name| Foreign::from_name(name).unwrap()) {
            let (input, ends) = whole(format);
            for len in 1..=input.len() {
                assert_eq!(inside(format, &input[..len]), !ends.contains(&len), "{format:?}: {len} of {ends:?}");
            }
        }
        for (name, format) in [("other.flv", Foreign::Flv), ("other.avi", Foreign::Avi)] {
            let bytes = vidar_fixtures::read(name);
            assert!(!inside(format, &bytes), "{name}");
            assert!(inside(format, &bytes[..bytes.len() - 1]), "{name}");
        }
    }

    #[test]
    fn what_is_not_known_is_never_called_cut() {
        for (format, input) in [
            (Foreign::Avi, &b"RIFF\0\0\0\0AVI LIST"[..]),
            (Foreign::Wav, b"RIFF\xff\xff\xff\xffWAVE"),
            (Foreign::Wav, b"RIFF\x04\0\0\0WAVE\0ID3"),
            (Foreign::Au, b".snd\0\0\0\x18\xff\xff\xff\xffabc"),
            (Foreign::Flv, b"FLV\x01\x05\0\0\0\x09\0\0\0\0garbage"),
            (Foreign::H264, &[0, 0, 0, 1, 0x67]),
        ] {
            assert!(!inside(format, input), "{format:?}");
        }
    }
}
