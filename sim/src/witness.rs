//! What must never repeat, wherever a data directory was copied to: salts of records, and fragment numbers.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::{Arc, Mutex};

use vidar_core::ids::FragmentNumber;

use crate::lock;

const MAGIC: &[u8; 4] = b"VREC";
const HEADER_LEN: usize = 168;
const TAG_LEN: usize = 16;
/// Media is sealed in chunks of so many bytes.
const CHUNK_LEN: usize = 64 << 10;
/// Before the first batch.
const FILE_HEADER_LEN: usize = 4096;
/// Kinds of records.
const CONFIG: u8 = 3;
const CONTROL: u8 = 4;

/// Sees everything that is written to any copy of the directory. Clones are the same witness.
#[derive(Clone, Default)]
pub(crate) struct Witness(Arc<Mutex<Seen>>);

#[derive(Default)]
struct Seen {
    /// Salts, and the checksum of the head each stands in: footers repeat heads, verbatim.
    salts: HashMap<[u8; 32], u32>,
    numbers: HashSet<FragmentNumber>,
    violations: Vec<String>,
}

impl Witness {
    /// Looks for records in bytes on their way to a segment file.
    pub(crate) fn written(&self, bytes: &[u8]) {
        let mut seen = lock(&self.0);
        for Record { head, salt, .. } in records(bytes) {
            let sum = crc32c::crc32c(head);
            if *seen.salts.entry(salt).or_insert(sum) != sum {
                seen.violations.push("two records were sealed with the same salt".into());
            }
        }
    }

    /// A number was given.
    pub(crate) fn number(&self, number: FragmentNumber) {
        let mut seen = lock(&self.0);
        if !seen.numbers.insert(number) {
            seen.violations.push(format!("number {number} was given twice"));
        }
    }

    /// Records seen.
    #[must_use]
    pub(crate) fn record_count(&self) -> usize {
        lock(&self.0).salts.len()
    }

    /// What repeated.
    #[must_use]
    pub(crate) fn violations(&self) -> Vec<String> {
        lock(&self.0).violations.clone()
    }
}

/// A record, or the copy of its head in a footer.
pub(crate) struct Record<'a> {
    /// From the start of the bytes that it was found in; as long as the record, even of a copy.
    pub(crate) range: Range<usize>,
    pub(crate) kind: u8,
    pub(crate) number: FragmentNumber,
    /// Bytes of its stream and config.
    pub(crate) config: ([u8; 16], [u8; 16]),
    pub(crate) salt: [u8; 32],
    head: &'a [u8],
}

/// All records in some bytes.
pub(crate) fn records(bytes: &[u8]) -> Vec<Record<'_>> {
    let (mut found, mut from) = (Vec::new(), 0);
    while let Some(at) = bytes[from..].iter().position(|byte| *byte == MAGIC[0]) {
        found.extend(record(bytes, from + at));
        from += at + 1;
    }
    found
}

/// The record that begins here (`docs/formats/record.md`).
fn record(bytes: &[u8], at: usize) -> Option<Record<'_>> {
    let header = bytes.get(at..at + HEADER_LEN).filter(|header| header.starts_with(MAGIC))?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]) as usize;
    if number(164) != crc32c::crc32c(&header[..164]) as usize {
        return None;
    }
    let head_len = HEADER_LEN + number(144) + number(148) + 2 * TAG_LEN;
    let media_len = number(156);
    Some(Record {
        range: at..at + head_len + media_len + media_len.div_ceil(CHUNK_LEN) * TAG_LEN,
        kind: header[6],
        number: FragmentNumber::from_bytes(header[28..48].try_into().ok()?),
        config: (header[12..28].try_into().ok()?, header[128..144].try_into().ok()?),
        salt: header[48..80].try_into().ok()?,
        head: bytes.get(at..at + head_len)?,
    })
}

/// What a bad sector of a segment file destroys.
#[derive(Debug, Clone)]
pub(crate) struct Rot {
    /// The name of that file.
    pub(crate) file: String,
    /// It is in the header: what the file voids in another one is not known any more, and it is never changed again.
    pub(crate) header: bool,
    /// A control record that stands nowhere else in the file.
    pub(crate) control: bool,
    /// Fragments of which something stood there.
    pub(crate) fragments: Vec<FragmentNumber>,
}

impl Rot {
    /// Of the sector at `sector` in a file of this name and these bytes.
    #[must_use]
    pub(crate) fn of(file: &str, bytes: &[u8], sector: &Range<usize>) -> Self {
        let records = records(bytes);
        let count = |salt| records.iter().filter(|record| record.salt == salt).count();
        let is_hit = |record: &&Record<'_>| record.range.start < sector.end && sector.start < record.range.end;
        let hit: Vec<_> = records.iter().filter(is_hit).collect();
        let control = hit.iter().any(|record| record.kind == CONTROL && count(record.salt) == 1);
        // Without its config a fragment is of no use.
        let configs: HashSet<_> =
            hit.iter().filter(|record| record.kind == CONFIG).map(|record| record.config).collect();
        let of_config = records.iter().filter(|record| configs.contains(&record.config));
        let fragments = of_config.chain(hit.iter().copied()).filter(|record| record.kind < CONFIG);
        Self {
            file: file.into(),
            header: sector.start < FILE_HEADER_LEN,
            control,
            fragments: fragments.map(|record| record.number).collect(),
        }
    }
}
