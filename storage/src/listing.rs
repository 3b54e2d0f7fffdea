//! The list of segment files that stood in the directory: what is not there any more is missed, and what was closed and
//! is shorter now was put back or cut. Layout: `docs/formats/files.md`.
//!
//! Nothing depends on it: it is made again where it is missing, and no acknowledgement waits for it.

use std::collections::BTreeMap;
use std::io;

use uuid::Uuid;
use vidar_core::ids::FileId;
use vidar_core::wire::{Reader, WireError, Writer};

use crate::backend::SegmentIo;
use crate::segment_file::header::file_name;

/// Name of the list in the data directory.
pub(crate) const NAME: &str = "files";
const MAGIC: &[u8; 8] = b"VIDARFIL";
/// Written; version 1, which has no changes, is read too.
const VERSION: u16 = 2;
/// Bytes of an entry.
const ENTRY_LEN: usize = 32;
/// Bytes of a change: an entry and a checksum.
const CHANGE_LEN: usize = ENTRY_LEN + 4;
/// In the place of the end of its batches: the file was removed.
const REMOVED: u64 = u64::MAX;

/// What the list says of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listed {
    pub(crate) epoch: u32,
    /// Within the epoch.
    pub(crate) sequence: u32,
    /// End of the batches of a closed file; 0 of another.
    pub(crate) data_end: u64,
}

/// All files that should be there.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Listing(pub(crate) BTreeMap<FileId, Listed>);

/// What happened to a file since the list was written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Change {
    /// It was begun or closed.
    Put(FileId, Listed),
    /// It is about to be removed.
    Removed(FileId),
}

/// Bytes to be appended to a list that ends with the checksum `crc`, and the checksum that they end with.
pub(crate) fn encode_changes(changes: &[Change], mut crc: u32) -> (Vec<u8>, u32) {
    let mut bytes = Vec::with_capacity(changes.len() * CHANGE_LEN);
    for change in changes {
        let (file, listed) = match *change {
            Change::Put(file, listed) => (file, listed),
            Change::Removed(file) => (file, Listed { epoch: 0, sequence: 0, data_end: REMOVED }),
        };
        let mut w = Writer::new();
        write_entry(&mut w, file, listed);
        let entry = w.into_vec();
        crc = crc32c::crc32c_append(crc, &entry);
        bytes.extend(entry);
        bytes.extend(crc.to_be_bytes());
    }
    (bytes, crc)
}

fn write_entry(w: &mut Writer, file: FileId, Listed { epoch, sequence, data_end }: Listed) {
    w.raw(file.as_bytes()).u32(epoch).u32(sequence).u64(data_end);
}

fn read_entry(r: &mut Reader<'_>) -> Result<(FileId, Listed), WireError> {
    let file = FileId::from_bytes(r.array()?);
    Ok((file, Listed { epoch: r.u32()?, sequence: r.u32()?, data_end: r.u64()? }))
}

impl Listing {
    /// The list as a whole, and the checksum that it ends with.
    pub(crate) fn encode(&self, store: Uuid) -> (Vec<u8>, u32) {
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).raw(&[0; 14]).raw(store.as_bytes());
        w.u32(u32::try_from(self.0.len()).expect("fewer than 2^32 files"));
        self.0.iter().for_each(|(file, listed)| write_entry(&mut w, *file, *listed));
        let mut bytes = w.into_vec();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        (bytes, crc)
    }

    /// The list of `store`.
    pub(crate) fn decode(bytes: &[u8], store: Uuid) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        let known = |version| (1..=VERSION).contains(&version);
        if r.array()? != *MAGIC || !known(r.u16()?) {
            return Err(WireError { expected: "a list of files of version 1 or 2", offset: 0 });
        }
        r.raw(14)?;
        if r.array()? != *store.as_bytes() {
            return Err(WireError { expected: "the list of this store", offset: 24 });
        }
        let count = r.u32()? as usize;
        if count.saturating_mul(ENTRY_LEN) > r.remaining() {
            return Err(r.error("as many files as it says"));
        }
        let mut files = BTreeMap::new();
        for _ in 0..count {
            let (file, listed) = read_entry(&mut r)?;
            files.insert(file, listed);
        }
        let crc = crc32c::crc32c(&bytes[..r.offset()]);
        if crc != r.u32()? {
            return Err(r.error("the checksum of the list of files"));
        }
        apply_changes(&mut files, &mut r, crc)?;
        Ok(Self(files))
    }

    /// The list in a directory; empty if there is none. The second is what is wrong with it.
    pub(crate) fn read(io: &dyn SegmentIo, store: Uuid) -> io::Result<(Self, Option<String>)> {
        let Some(bytes) = io.read_small(NAME)? else { return Ok((Self::default(), None)) };
        Ok(match Self::decode(&bytes, store) {
            Ok(listing) => (listing, None),
            Err(error) => (Self::default(), Some(error.to_string())),
        })
    }
}

/// A crash may cut the last change short, or leave zeros in its place or behind a part of it: nothing was done then that it
/// speaks of.
fn apply_changes(files: &mut BTreeMap<FileId, Listed>, r: &mut Reader<'_>, mut crc: u32) -> Result<(), WireError> {
    while r.remaining() >= CHANGE_LEN {
        let start = r.offset();
        let bytes = r.raw(CHANGE_LEN)?;
        let (entry, own) = bytes.split_at(ENTRY_LEN);
        crc = crc32c::crc32c_append(crc, entry);
        if crc.to_be_bytes() != own {
            let rest = r.raw(r.remaining())?;
            let torn = own.iter().chain(rest).all(|byte| *byte == 0);
            return if torn {
                Ok(())
            } else {
                Err(WireError { expected: "a change of the list of files", offset: start })
            };
        }
        match read_entry(&mut Reader::new(entry))? {
            (file, Listed { data_end: REMOVED, .. }) => files.remove(&file),
            (file, listed) => files.insert(file, listed),
        };
    }
    Ok(())
}

impl Listed {
    pub(crate) fn name(&self, file: FileId) -> String {
        file_name(self.epoch, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(data_end: u64) -> Listed {
        Listed { epoch: 3, sequence: 1, data_end }
    }

    #[test]
    fn a_list_round_trips_and_every_flipped_byte_is_refused() {
        let store = Uuid::new_v4();
        let (one, two, three) = (FileId::new(), FileId::new(), FileId::new());
        let listing = Listing([(one, listed(0)), (two, listed(8192))].into());
        let (base, crc) = listing.encode(store);
        assert_eq!(Listing::decode(&base, store), Ok(listing));
        let changes = [Change::Put(one, listed(4096)), Change::Put(three, listed(0)), Change::Removed(two)];
        let (first, crc) = encode_changes(&changes[..1], crc);
        let (rest, _) = encode_changes(&changes[1..], crc);
        let bytes = [&base[..], &first, &rest].concat();
        let changed = Listing([(one, listed(4096)), (three, listed(0))].into());
        assert_eq!(Listing::decode(&bytes, store), Ok(changed));
        assert!(Listing::decode(&bytes, Uuid::new_v4()).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Listing::decode(&bad, store).is_err(), "{at}");
        }
        for at in 0..base.len() {
            assert!(Listing::decode(&bytes[..at], store).is_err(), "{at}");
        }
    }

    #[test]
    fn a_change_that_a_crash_tore_is_none() {
        let store = Uuid::new_v4();
        let file = FileId::new();
        let (base, crc) = Listing::default().encode(store);
        let (change, _) = encode_changes(&[Change::Put(file, listed(0))], crc);
        let bytes = [base, change].concat();
        assert_eq!(Listing::decode(&bytes, store).unwrap().0.len(), 1);
        for torn in 1..=CHANGE_LEN {
            let kept = bytes.len() - torn;
            assert_eq!(Listing::decode(&bytes[..kept], store), Ok(Listing::default()), "cut");
        }
        for written in 0..CHANGE_LEN - 4 {
            let mut partly = bytes.clone();
            partly[bytes.len() - CHANGE_LEN + written..].fill(0);
            assert_eq!(Listing::decode(&partly, store), Ok(Listing::default()), "zeros behind {written} bytes");
        }
        let mut zeros = bytes.clone();
        zeros[bytes.len() - CHANGE_LEN..].fill(0);
        zeros.resize(bytes.len() + 5000, 0);
        assert_eq!(Listing::decode(&zeros, store), Ok(Listing::default()), "zeros");
    }

    #[test]
    fn a_list_of_version_1_is_read() {
        let store = Uuid::new_v4();
        let listing = Listing([(FileId::new(), listed(8192))].into());
        let (mut bytes, _) = listing.encode(store);
        bytes[9] = 1;
        let checked = bytes.len() - 4;
        let crc = crc32c::crc32c(&bytes[..checked]);
        bytes[checked..].copy_from_slice(&crc.to_be_bytes());
        assert_eq!(Listing::decode(&bytes, store), Ok(listing));
    }
}
