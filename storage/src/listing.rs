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
const VERSION: u16 = 1;
/// Bytes of an entry.
const ENTRY_LEN: usize = 32;

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

impl Listing {
    pub(crate) fn encode(&self, store: Uuid) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).raw(&[0; 14]).raw(store.as_bytes());
        w.u32(u32::try_from(self.0.len()).expect("fewer than 2^32 files"));
        for (file, Listed { epoch, sequence, data_end }) in &self.0 {
            w.raw(file.as_bytes()).u32(*epoch).u32(*sequence).u64(*data_end);
        }
        let mut bytes = w.into_vec();
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    /// The list of `store`.
    pub(crate) fn decode(bytes: &[u8], store: Uuid) -> Result<Self, WireError> {
        let Some((checked, crc)) = bytes.split_last_chunk().map(|(checked, crc)| (checked, u32::from_be_bytes(*crc)))
        else {
            return Err(WireError { expected: "a list of files", offset: 0 });
        };
        if crc != crc32c::crc32c(checked) {
            return Err(WireError { expected: "the checksum of the list of files", offset: checked.len() });
        }
        let mut r = Reader::new(checked);
        if r.array()? != *MAGIC || r.u16()? != VERSION {
            return Err(WireError { expected: "a list of files of version 1", offset: 0 });
        }
        r.raw(14)?;
        if r.array()? != *store.as_bytes() {
            return Err(WireError { expected: "the list of this store", offset: 24 });
        }
        let count = r.u32()? as usize;
        if checked.len() != r.offset() + count.saturating_mul(ENTRY_LEN) {
            return Err(r.error("as many files as it says"));
        }
        let mut files = BTreeMap::new();
        for _ in 0..count {
            let file = FileId::from_bytes(r.array()?);
            files.insert(file, Listed { epoch: r.u32()?, sequence: r.u32()?, data_end: r.u64()? });
        }
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

impl Listed {
    pub(crate) fn name(&self, file: FileId) -> String {
        file_name(self.epoch, file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_round_trips_and_every_flipped_byte_is_refused() {
        let store = Uuid::new_v4();
        let listed = |data_end| Listed { epoch: 3, sequence: 1, data_end };
        let listing = Listing([(FileId::new(), listed(0)), (FileId::new(), listed(8192))].into());
        let bytes = listing.encode(store);
        assert_eq!(Listing::decode(&bytes, store), Ok(listing));
        assert!(Listing::decode(&bytes, Uuid::new_v4()).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(Listing::decode(&bad, store).is_err(), "{at}");
            assert!(Listing::decode(&bytes[..at], store).is_err(), "{at}");
        }
    }
}
