//! What must never repeat, wherever a data directory was copied to: salts of records, and fragment numbers.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex};

use vidar_core::ids::FragmentNumber;

use crate::lock;

const MAGIC: &[u8; 4] = b"VREC";
const HEADER_LEN: usize = 168;
const TAG_LEN: usize = 16;

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
        let mut from = 0;
        while let Some(found) = bytes[from..].iter().position(|byte| *byte == MAGIC[0]) {
            let at = from + found;
            from = at + 1;
            if !bytes[at..].starts_with(MAGIC) {
                continue;
            }
            let Some((salt, head)) = head(&bytes[at..]) else { continue };
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

/// Salt and whole head of the record that begins here (`docs/formats/record.md`).
fn head(bytes: &[u8]) -> Option<([u8; 32], &[u8])> {
    let header = bytes.get(..HEADER_LEN)?;
    let number = |at: usize| u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
    if number(164) != crc32c::crc32c(&header[..164]) {
        return None;
    }
    let len = HEADER_LEN + number(144) as usize + number(148) as usize + 2 * TAG_LEN;
    Some((header[48..80].try_into().ok()?, bytes.get(..len)?))
}
