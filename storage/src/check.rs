//! Looking at the records of one segment file: for verification, for repair, and for the check of a running store.

use std::io;
use std::ops::Range;

use vidar_core::ids::FileId;

use crate::backend::SegmentHandle;
use crate::crypto::keyring::Keyring;
use crate::options::Damage;
use crate::segment_file::footer::RecordEntry;
use crate::segment_file::reader;
use crate::segment_file::record::{RECORD_HEADER_LEN, RecordHeader, RecordOpener, RecordShape};
use crate::segment_file::recover;
use crate::verify::Depth;

/// Bytes that are not what was written, and the record they belong to as far as its header says.
#[derive(Debug, Clone)]
pub(crate) struct Finding {
    pub(crate) damage: Damage,
    pub(crate) shape: Option<RecordShape>,
}

/// One segment file that is looked at.
pub(crate) struct FileCheck<'a> {
    pub(crate) name: &'a str,
    pub(crate) file: FileId,
    pub(crate) handle: &'a dyn SegmentHandle,
    /// It has its footer. Else its end may be what a crash tore.
    pub(crate) closed: bool,
    pub(crate) keys: &'a Keyring,
    /// The record may no longer be read: what stands there does not matter.
    pub(crate) is_gone: &'a dyn Fn(&RecordShape) -> bool,
    /// Hears how many bytes were read. An error ends the check.
    pub(crate) pace: &'a mut dyn FnMut(u64) -> io::Result<()>,
}

impl FileCheck<'_> {
    /// Checks the records of a file. Answers how many are there, and what is not as it was written.
    ///
    /// # Errors
    /// What `pace` answered, and nothing else.
    pub(crate) fn run(&mut self, entries: &[RecordEntry], depth: Depth) -> io::Result<(u64, Vec<Finding>)> {
        let (gone, living): (Vec<_>, Vec<_>) = entries.iter().partition(|entry| (self.is_gone)(&entry.shape));
        let count = living.len() as u64;
        let mut findings = Vec::new();
        let len = self.handle.len().unwrap_or(0);
        let (living, cut): (Vec<_>, Vec<_>) = living.into_iter().partition(|entry| entry.end() <= len);
        for entry in cut {
            findings.push(self.of_record(entry, "the file ends before the record".into()));
        }
        if depth == Depth::Presence {
            return Ok((count, findings));
        }
        let bad = self.bad_batches(&mut findings)?;
        let touched = |entry: &RecordEntry| bad.iter().any(|range| overlaps(range, entry));
        for entry in living {
            if depth == Depth::Decrypt || touched(entry) {
                self.open(entry, &mut findings)?;
            }
        }
        if self.closed {
            self.unexplained(&bad, entries, &gone, &mut findings);
        }
        Ok((count, findings))
    }

    /// Batches whose checksum does not match: damage, or holes where records expired.
    fn bad_batches(&mut self, findings: &mut Vec<Finding>) -> io::Result<Vec<Range<u64>>> {
        let mut stop = None;
        let bad = recover::bad_batches(self.handle, self.file, &mut |bytes| {
            (self.pace)(bytes).map_err(|error| {
                stop = Some(error);
                io::ErrorKind::Interrupted.into()
            })
        });
        match (bad, stop) {
            (_, Some(error)) => Err(error),
            (Ok(bad), None) => Ok(bad),
            (Err(error), None) => {
                findings.push(Finding { damage: self.damage(0, 0, format!("cannot be read: {error}")), shape: None });
                Ok(std::iter::once(0..u64::MAX).collect())
            }
        }
    }

    /// What no record accounts for: bytes between records, or records that a start found damaged and left out of the
    /// footer. The last batch may be one that a crash tore.
    fn unexplained(
        &self,
        bad: &[Range<u64>],
        entries: &[RecordEntry],
        gone: &[&RecordEntry],
        findings: &mut Vec<Finding>,
    ) {
        let last = entries.iter().map(RecordEntry::end).max().unwrap_or(0);
        for range in bad.iter().filter(|range| range.end < last) {
            let in_range = |finding: &Finding| {
                let (start, len) = (finding.damage.offset, finding.damage.len);
                range.start < start + len && start < range.end
            };
            if gone.iter().any(|entry| overlaps(range, entry)) || findings.iter().any(in_range) {
                continue;
            }
            let detail = "the batch is not what was written, though all records that its file lists are";
            let damage = self.damage(range.start, range.end - range.start, detail.into());
            let listed = |offset| entries.iter().any(|entry| entry.offset == offset);
            self.identify(damage, &listed, findings);
        }
    }

    /// Names the records in a stretch of damage by those of their headers that still read; `known`: not those that
    /// start here.
    pub(crate) fn identify(&self, damage: Damage, known: &dyn Fn(u64) -> bool, findings: &mut Vec<Finding>) {
        let bytes = usize::try_from(damage.len).ok().and_then(|len| reader::read(self.handle, damage.offset, len).ok());
        let bytes = bytes.unwrap_or_default();
        let headers = bytes.windows(RECORD_HEADER_LEN).enumerate().step_by(8).filter_map(|(at, bytes)| {
            let header = RecordHeader::decode(bytes).ok()?;
            Some((damage.offset + at as u64, header.shape))
        });
        let shapes: Vec<(u64, RecordShape)> = headers.filter(|(offset, _)| !known(*offset)).collect();
        if shapes.is_empty() {
            findings.push(Finding { damage, shape: None });
            return;
        }
        for (offset, shape) in shapes.into_iter().filter(|(_, shape)| !(self.is_gone)(shape)) {
            let record = Some((shape.meta.stream, shape.meta.number));
            let damage = Damage { offset, len: shape.record_len(), record, ..damage.clone() };
            findings.push(Finding { damage, shape: Some(shape) });
        }
    }

    fn damage(&self, offset: u64, len: u64, detail: String) -> Damage {
        Damage { file: self.name.to_owned(), offset, len, record: None, detail }
    }

    fn of_record(&self, entry: &RecordEntry, detail: String) -> Finding {
        let record = Some((entry.shape.meta.stream, entry.shape.meta.number));
        let damage = Damage { record, ..self.damage(entry.offset, entry.shape.record_len(), detail) };
        Finding { damage, shape: Some(entry.shape) }
    }

    fn open(&mut self, entry: &RecordEntry, findings: &mut Vec<Finding>) -> io::Result<()> {
        (self.pace)(entry.shape.record_len())?;
        let bytes = reader::read(self.handle, entry.offset, entry.shape.record_len() as usize);
        let opened = bytes.map_err(|error| error.to_string()).and_then(|bytes| open(self.keys, &entry.shape, &bytes));
        // A running store may have let it go meanwhile.
        if let Err(detail) = opened
            && !(self.is_gone)(&entry.shape)
        {
            findings.push(self.of_record(entry, detail));
        }
        Ok(())
    }
}

fn overlaps(range: &Range<u64>, entry: &RecordEntry) -> bool {
    range.start < entry.end() && entry.offset < range.end
}

/// Opens all of a record; `bytes` are as many as `shape` says.
pub(crate) fn open(keys: &Keyring, shape: &RecordShape, bytes: &[u8]) -> Result<(), String> {
    let header = bytes.get(..RECORD_HEADER_LEN).ok_or("the record is cut short")?;
    let header = RecordHeader::decode(header).map_err(|error| error.to_string())?;
    if header.shape != *shape {
        return Err("another record stands there".into());
    }
    let outer = keys.outer(&header.shape).ok_or("its key is not in the keyring")?;
    let opener = RecordOpener::new(&header, bytes, outer);
    let (head, media) = bytes.split_at_checked(shape.head_len() as usize).ok_or("the record is cut short")?;
    opener.head(head.to_vec()).map_err(|error| error.to_string())?;
    let media = opener.media(&opener.span(&(0..shape.media_len)), &mut media.to_vec(), shape.media_len);
    media.map(|_| ()).map_err(|error| error.to_string())
}
