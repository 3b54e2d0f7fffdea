//! Sections: program association and program map (ISO/IEC 13818-1 sections 2.4.4.1 to 2.4.4.9).

/// Bytes of a section of PAT or PMT, header and CRC included.
const SECTION_LEN_MAX: usize = 1024;
const PAT_TABLE_ID: u8 = 0;
const PMT_TABLE_ID: u8 = 2;

/// Puts the sections of a PID together.
#[derive(Debug, Default)]
pub(super) struct Assembler {
    buffer: Vec<u8>,
    /// False until a section began in a packet received.
    begun: bool,
}

impl Assembler {
    /// Forgets a section whose rest was lost.
    pub(super) fn reset(&mut self) {
        self.buffer.clear();
        self.begun = false;
    }

    /// Takes the payload of a packet and gives complete sections with a right CRC to `each`.
    pub(super) fn push(&mut self, payload: &[u8], unit_start: bool, mut each: impl FnMut(&[u8])) {
        if !unit_start {
            if self.begun {
                self.buffer.extend_from_slice(payload);
                self.take(&mut each);
            }
            return;
        }
        let Some((pointer, rest)) = payload.split_first() else { return };
        let Some((before, after)) = rest.split_at_checked(usize::from(*pointer)) else { return self.reset() };
        if self.begun {
            self.buffer.extend_from_slice(before);
            self.take(&mut each);
        }
        self.buffer.clear();
        self.buffer.extend_from_slice(after);
        self.begun = true;
        self.take(&mut each);
    }

    fn take(&mut self, each: &mut impl FnMut(&[u8])) {
        while let Some(&[table_id, high, low]) = self.buffer.first_chunk() {
            let len = 3 + usize::from(u16::from_be_bytes([high & 0x0f, low]));
            // Stuffing, or a table that is none of ours: wait for the next that a pointer shows.
            if table_id == 0xff || len > SECTION_LEN_MAX {
                return self.reset();
            }
            let Some(section) = self.buffer.get(..len) else { return };
            if crc32(section) == 0 {
                each(section);
            }
            self.buffer.drain(..len);
        }
    }
}

/// CRC-32 of ISO/IEC 13818-1 annex A: 0 over a section with its CRC.
pub(super) fn crc32(data: &[u8]) -> u32 {
    data.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte) << 24, |crc, _| crc << 1 ^ if crc >> 31 == 1 { 0x04c1_1db7 } else { 0 })
    })
}

/// Header fields and body of a section that is in force. None for other tables and those announced ahead.
fn open(section: &[u8], table_id: u8) -> Option<(u16, u8, &[u8])> {
    let &[id, _, _, ext_high, ext_low, version, _, _, ref rest @ ..] = section else { return None };
    let body = rest.get(..rest.len().checked_sub(4)?)?;
    let current = version & 1 == 1;
    (id == table_id && current).then_some((u16::from_be_bytes([ext_high, ext_low]), version >> 1 & 0x1f, body))
}

/// One section of a program association table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pat {
    pub(super) version: u8,
    /// Program number and PID of its map.
    pub(super) programs: Vec<(u16, u16)>,
}

impl Pat {
    pub(super) fn parse(section: &[u8]) -> Option<Self> {
        let (_, version, body) = open(section, PAT_TABLE_ID)?;
        let programs = body
            .chunks_exact(4)
            .map(|entry| (u16::from_be_bytes([entry[0], entry[1]]), u16::from_be_bytes([entry[2] & 0x1f, entry[3]])))
            // Program 0 is the network information table.
            .filter(|(number, _)| *number != 0)
            .collect();
        Some(Self { version, programs })
    }
}

/// An elementary stream as a program map declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Declared {
    pub(super) stream_type: u8,
    pub(super) pid: u16,
    pub(super) descriptors: Vec<u8>,
}

impl Declared {
    /// Tag and content of each descriptor.
    pub(super) fn descriptors(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut rest = &self.descriptors[..];
        std::iter::from_fn(move || {
            let (&[tag, len], tail) = rest.split_first_chunk()?;
            let (content, tail) = tail.split_at_checked(len.into())?;
            rest = tail;
            Some((tag, content))
        })
    }

    /// Content of the first descriptor of a tag.
    pub(super) fn descriptor(&self, tag: u8) -> Option<&[u8]> {
        self.descriptors().find(|(each, _)| *each == tag).map(|(_, content)| content)
    }
}

/// A program map.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Pmt {
    pub(super) program: u16,
    pub(super) pcr_pid: u16,
    pub(super) streams: Vec<Declared>,
}

impl Pmt {
    pub(super) fn parse(section: &[u8]) -> Option<Self> {
        let (program, _, body) = open(section, PMT_TABLE_ID)?;
        let (&[pcr_high, pcr_low, len_high, len_low], rest) = body.split_first_chunk()?;
        let info_len = usize::from(u16::from_be_bytes([len_high & 0x0f, len_low]));
        let mut rest = rest.get(info_len..)?;
        let mut streams = Vec::new();
        while let Some((&[stream_type, pid_high, pid_low, len_high, len_low], tail)) = rest.split_first_chunk() {
            let len = usize::from(u16::from_be_bytes([len_high & 0x0f, len_low]));
            let (descriptors, tail) = tail.split_at_checked(len)?;
            let pid = u16::from_be_bytes([pid_high & 0x1f, pid_low]);
            streams.push(Declared { stream_type, pid, descriptors: descriptors.to_vec() });
            rest = tail;
        }
        Some(Self { program, pcr_pid: u16::from_be_bytes([pcr_high & 0x1f, pcr_low]), streams })
    }
}

#[cfg(test)]
pub(super) mod tests {
    use proptest::prelude::*;

    use super::*;

    /// A section of a table, with its CRC.
    pub(crate) fn section(table_id: u8, extension: u16, version: u8, body: &[u8]) -> Vec<u8> {
        let len = (body.len() + 9) as u16;
        let mut section = vec![table_id, 0xb0 | (len >> 8) as u8, len as u8];
        section.extend(extension.to_be_bytes());
        section.extend([0xc1 | version << 1, 0, 0]);
        section.extend(body);
        section.extend(crc32(&section).to_be_bytes());
        section
    }

    fn assemble(packets: &[(&[u8], bool)]) -> Vec<Vec<u8>> {
        let (mut assembler, mut sections) = (Assembler::default(), Vec::new());
        for (payload, unit_start) in packets {
            assembler.push(payload, *unit_start, |section| sections.push(section.to_vec()));
        }
        sections
    }

    #[test]
    fn the_crc_of_a_captured_section() {
        // The PAT that ffmpeg writes.
        let clip = vidar_fixtures::read("bbb.ts");
        let pat = clip.chunks(188).find(|packet| packet[1] & 0x1f == 0 && packet[2] == 0).unwrap();
        let section = &pat[5..5 + 16];
        assert_eq!(crc32(section), 0);
        assert_eq!(Pat::parse(section).unwrap().programs, [(1, 0x1000)]);
    }

    #[test]
    fn sections_in_pieces_in_a_row_and_damaged() {
        let a = section(0, 1, 3, &[0, 0, 0xe0, 0x10, 0, 7, 0xe1, 0]);
        let b = section(2, 7, 0, &[0xe1, 1, 0xf0, 0, 0x1b, 0xe1, 1, 0xf0, 2, 0x0a, 0]);
        let with = |pointer: u8, parts: &[&[u8]]| [&[pointer][..], &parts.concat()].concat();
        let (a1, a2) = a.split_at(5);
        // In two pieces, then the other whole, then stuffing.
        let first = with(0, &[a1]);
        let second = with(a2.len() as u8, &[a2, &b, &[0xff; 9]]);
        assert_eq!(assemble(&[(&first, true), (&second, true)]), [a.clone(), b.clone()]);
        // Two in one packet.
        assert_eq!(assemble(&[(&with(0, &[&a, &b]), true)]), [a.clone(), b.clone()]);
        // Joined in the middle; a wrong bit; a pointer past the end.
        assert!(assemble(&[(a2, false)]).is_empty());
        let mut wrong = a.clone();
        wrong[9] ^= 1;
        assert_eq!(assemble(&[(&with(0, &[&wrong, &b]), true)]).concat(), b);
        assert!(assemble(&[(&[200, 0], true)]).is_empty());
        assert_eq!(Pat::parse(&a).unwrap(), Pat { version: 3, programs: vec![(7, 0x100)] });
        let pmt = Pmt::parse(&b).unwrap();
        assert_eq!((pmt.program, pmt.pcr_pid, pmt.streams[0].pid), (7, 0x101, 0x101));
        assert_eq!(pmt.streams[0].descriptor(0x0a), Some(&[][..]));
        assert_eq!(Pmt::parse(&a), None);
        // Announced ahead.
        let mut next = a.clone();
        next[5] &= !1;
        assert_eq!(Pat::parse(&next), None);
    }

    proptest! {
        #[test]
        fn no_input_panics(packets in prop::collection::vec((prop::collection::vec(any::<u8>(), 0..184), any::<bool>()), 0..8)) {
            let packets: Vec<(&[u8], bool)> = packets.iter().map(|(payload, start)| (&payload[..], *start)).collect();
            assemble(&packets);
            for (payload, _) in packets {
                let _ = (Pat::parse(payload), Pmt::parse(payload).map(|pmt| pmt.streams.iter().for_each(|s| s.descriptors().for_each(drop))));
            }
        }
    }
}
