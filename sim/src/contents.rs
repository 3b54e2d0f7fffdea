//! The bytes of one file, and what a power cut makes of them.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;

use crate::random::Random;

const SECTOR: usize = 512;
/// No disk, cable or memory writes less at once.
pub(crate) const WORD: usize = 8;

/// What the end of a boot leaves of what was not synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Rule {
    /// All of it, still not synced: the process was killed, the machine runs on.
    KeepWritten,
    /// Nothing.
    LoseUnsynced,
    /// Chance decides for runs of sectors, whatever the order of writing; some sectors are torn between two words.
    Torn,
}

/// A file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Contents {
    bytes: Vec<u8>,
    synced_len: usize,
    /// Sectors written since the last sync: what the disk holds there.
    dirty: BTreeMap<usize, Vec<u8>>,
    /// Sectors that a failed sync gave up: read as written, on the disk as here, until they are written again.
    given_up: BTreeMap<usize, Vec<u8>>,
}

impl Contents {
    /// A new file of zeros, its length not yet synced.
    #[must_use]
    pub(crate) fn zeros(len: usize) -> Self {
        Self { bytes: vec![0; len], ..Self::default() }
    }

    /// Length in bytes.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }

    /// As another machine would find it that got a copy.
    #[must_use]
    pub(crate) fn copied(&self) -> Self {
        Self { bytes: self.bytes.clone(), synced_len: self.bytes.len(), ..Self::default() }
    }

    fn sector(&self, index: usize) -> Vec<u8> {
        let start = (index * SECTOR).min(self.bytes.len());
        self.bytes[start..(start + SECTOR).min(self.bytes.len())].to_vec()
    }

    /// Writes, growing the file where needed.
    pub(crate) fn write(&mut self, start: usize, bytes: &[u8]) {
        if bytes.is_empty() {
            return;
        }
        let end = start + bytes.len();
        for index in start / SECTOR..end.div_ceil(SECTOR) {
            if !self.dirty.contains_key(&index) {
                let before = self.given_up.remove(&index).unwrap_or_else(|| self.sector(index));
                self.dirty.insert(index, before);
            }
        }
        if end > self.bytes.len() {
            self.bytes.resize(end, 0);
        }
        self.bytes[start..end].copy_from_slice(bytes);
    }

    /// Reads all of `buffer`.
    ///
    /// # Errors
    /// If the file ends before.
    pub(crate) fn read(&self, start: usize, buffer: &mut [u8]) -> io::Result<()> {
        let end = start.checked_add(buffer.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(self.bytes.get(start..end).ok_or(io::ErrorKind::UnexpectedEof)?);
        Ok(())
    }

    /// Cuts, or grows with zeros.
    pub(crate) fn truncate(&mut self, len: usize) {
        for index in len.min(self.bytes.len()) / SECTOR..self.bytes.len().max(len).div_ceil(SECTOR) {
            if !self.dirty.contains_key(&index) {
                let before = self.given_up.remove(&index).unwrap_or_else(|| self.sector(index));
                self.dirty.insert(index, before);
            }
        }
        self.bytes.resize(len, 0);
    }

    /// Everything written is on the disk.
    pub(crate) fn sync(&mut self) {
        self.dirty.clear();
        self.synced_len = self.bytes.len();
    }

    /// A sync failed: what waited for it is never written.
    pub(crate) fn fail_sync(&mut self) {
        self.given_up.append(&mut self.dirty);
    }

    /// The power fails.
    pub(crate) fn lose(&mut self, rule: Rule, random: &mut Random) {
        let mut before = std::mem::take(&mut self.dirty);
        before.append(&mut self.given_up);
        let keep_len = rule == Rule::Torn && random.one_in(2);
        let mut keep = random.one_in(2);
        let mut bytes = std::mem::take(&mut self.bytes);
        let written_len = bytes.len();
        bytes.resize(written_len.max(self.synced_len), 0);
        for (index, old) in before {
            if random.one_in(6) {
                keep = !keep;
            }
            let start = index * SECTOR;
            let end = (start + SECTOR).min(bytes.len());
            let torn = if rule != Rule::Torn {
                0
            } else if random.one_in(8) {
                random.index(SECTOR / WORD) * WORD
            } else if keep {
                SECTOR
            } else {
                0
            };
            for (at, byte) in bytes[start.min(end)..end].iter_mut().enumerate().skip(torn) {
                *byte = old.get(at).copied().unwrap_or(0);
            }
        }
        bytes.truncate(if keep_len { written_len } else { self.synced_len });
        self.synced_len = bytes.len();
        self.bytes = bytes;
    }

    /// A sector that holds something goes bad. Answers which, and the bytes of the file before.
    pub(crate) fn rot(&mut self, random: &mut Random) -> Option<(Range<usize>, Vec<u8>)> {
        let sectors = self.bytes.len() / SECTOR;
        for _ in 0..20 {
            let start = random.index(sectors.max(1)) * SECTOR;
            let sector = self.bytes.get(start..start + SECTOR)?;
            if sector.iter().any(|byte| *byte != 0) {
                let before = self.bytes.clone();
                let sector = &mut self.bytes[start..start + SECTOR];
                for _ in 0..=random.within(0..20) {
                    sector[random.index(SECTOR)] ^= 1 << random.within(0..8);
                }
                return Some((start..start + SECTOR, before));
            }
        }
        None
    }
}
