//! The first block of a segment file, and its name.

use uuid::Uuid;
use vidar_core::ids::FileId;
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

use super::BLOCK_LEN;

const MAGIC: &[u8; 8] = b"VIDARSEG";
const VERSION: u16 = 1;
/// Bytes of the fields, which stand in one sector; the checksum stands in another.
const FIELDS_LEN: usize = 112;
const ARCHIVE_AT: usize = 80;
/// Bytes of the header: where the first batch starts.
pub(crate) const HEADER_LEN: usize = BLOCK_LEN as usize;

/// Why a header is not that of a file that can be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum HeaderError {
    /// Its checksum matches: it was written by a newer version.
    #[error("{0}")]
    Unsupported(String),
    /// The disk does not give it back.
    #[error("cannot be read: {0}")]
    Unreadable(String),
    /// It is not what was written.
    #[error(transparent)]
    Corrupt(#[from] WireError),
}

/// What a file says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct FileHeader {
    /// A feature that this version does not know: readable, never to be changed.
    pub(crate) read_only: bool,
    pub(crate) file: FileId,
    /// Of the keyring that wrote it.
    pub(crate) store: Uuid,
    pub(crate) epoch: u32,
    /// Within the epoch.
    pub(crate) sequence: u32,
    pub(crate) volume: u16,
    pub(crate) created: UnixMs,
    pub(crate) archive: UnixMs,
    /// A file that failed while it was written, and from where on it is void.
    pub(crate) replaces: Option<(FileId, u64)>,
}

impl FileHeader {
    pub(crate) fn encode(&self) -> Vec<u8> {
        let (replaces, end) = self.replaces.unwrap_or((FileId::from_bytes([0; 16]), 0));
        let mut w = Writer::new();
        w.raw(MAGIC).u16(VERSION).u16(0).u32(0).u32(u32::from(self.read_only)).u32(0);
        w.raw(self.file.as_bytes()).raw(self.store.as_bytes()).u32(self.epoch).u32(self.sequence);
        w.u16(self.volume).raw(&[0; 6]).i64(self.created.0).i64(self.archive.0).raw(replaces.as_bytes()).u64(end);
        let mut bytes = w.into_vec();
        bytes.resize(HEADER_LEN - 4, 0);
        let crc = crc32c::crc32c(&bytes);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    /// Magic, version, features and checksum stand in the same place in all versions.
    pub(crate) fn decode(bytes: &[u8]) -> Result<Self, HeaderError> {
        let mut r = Reader::new(bytes);
        if bytes.len() < HEADER_LEN {
            return Err(WireError { expected: "the header of a segment file", offset: bytes.len() }.into());
        }
        let (checked, crc) = (r.raw(HEADER_LEN - 4)?, r.u32()?);
        let mut r = Reader::new(checked);
        if r.array()? != *MAGIC {
            return Err(WireError { expected: "the header of a segment file", offset: 0 }.into());
        }
        if crc != crc32c::crc32c(checked) {
            return Err(WireError { expected: "the checksum of the header", offset: HEADER_LEN - 4 }.into());
        }
        let version = r.u16()?;
        let (_, _, read_only, refuse) = (r.u16()?, r.u32()?, r.u32()?, r.u32()?);
        if version != VERSION {
            return Err(HeaderError::Unsupported(format!("format version {version}, this program knows {VERSION}")));
        }
        if refuse != 0 {
            return Err(HeaderError::Unsupported(format!("features {refuse:#x} of a newer version")));
        }
        let (file, store) = (FileId::from_bytes(r.array()?), Uuid::from_bytes(r.array()?));
        let (epoch, sequence, volume) = (r.u32()?, r.u32()?, r.u16()?);
        r.raw(6)?;
        let (created, archive) = (UnixMs(r.i64()?), UnixMs(r.i64()?));
        let (replaced, end) = (r.array()?, r.u64()?);
        let replaces = (replaced != [0; 16]).then(|| (FileId::from_bytes(replaced), end));
        let read_only = read_only != 0;
        Ok(Self { read_only, file, store, epoch, sequence, volume, created, archive, replaces })
    }
}

/// The first block of a file whose making was interrupted: of a header of this version, the beginning of the first sector
/// and the last one, either, or nothing.
pub(crate) fn is_torn(block: &[u8], epoch: u32, file: FileId) -> bool {
    let zero = |range: std::ops::Range<usize>| block[range].iter().all(|byte| *byte == 0);
    if block.len() != HEADER_LEN || !zero(FIELDS_LEN..HEADER_LEN - 4) {
        return block.is_empty();
    }
    let written = block[..FIELDS_LEN].iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    let begins = |at: usize, field: &[u8]| {
        let there = written.saturating_sub(at).min(field.len());
        block[at..at + there] == field[..there]
    };
    let ours = begins(0, MAGIC) && begins(8, &VERSION.to_be_bytes());
    let named = begins(24, file.as_bytes()) && begins(56, &epoch.to_be_bytes());
    // The archive time is never 0: a sector that was written to its end goes beyond it.
    ours && named && (written <= ARCHIVE_AT || zero(HEADER_LEN - 4..HEADER_LEN))
}

/// The name of a file.
pub(crate) fn file_name(epoch: u32, file: FileId) -> String {
    format!("{epoch:08x}-{file}.vseg")
}

/// Epoch and id in a name.
pub(crate) fn parse_file_name(name: &str) -> Option<(u32, FileId)> {
    let (epoch, file) = name.strip_suffix(".vseg")?.split_once('-')?;
    let epoch = u32::from_str_radix(epoch, 16).ok().filter(|_| epoch.len() == 8)?;
    Some((epoch, file.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn newer_versions_are_told_from_damage() {
        let header = FileHeader {
            read_only: false,
            file: FileId::new(),
            store: Uuid::new_v4(),
            epoch: 7,
            sequence: 3,
            volume: 0,
            created: UnixMs(-5),
            archive: UnixMs(9),
            replaces: None,
        };
        for at in [9, 23] {
            let mut bytes = header.encode();
            bytes[at] = 2;
            assert!(matches!(FileHeader::decode(&bytes), Err(HeaderError::Corrupt(_))));
            let crc = crc32c::crc32c(&bytes[..HEADER_LEN - 4]);
            bytes[HEADER_LEN - 4..].copy_from_slice(&crc.to_be_bytes());
            assert!(matches!(FileHeader::decode(&bytes), Err(HeaderError::Unsupported(_))));
            assert!(!is_torn(&bytes, 7, header.file));
        }
    }

    #[test]
    fn a_header_round_trips_and_every_flipped_byte_is_refused() {
        let header = FileHeader {
            read_only: false,
            file: FileId::new(),
            store: Uuid::new_v4(),
            epoch: 7,
            sequence: 3,
            volume: 0,
            created: UnixMs(-5),
            archive: UnixMs(9),
            replaces: Some((FileId::new(), 8192)),
        };
        let bytes = header.encode();
        assert_eq!(bytes.len(), HEADER_LEN);
        assert_eq!(FileHeader::decode(&bytes), Ok(header));
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(FileHeader::decode(&bad).is_err(), "{at}");
            assert!(FileHeader::decode(&bytes[..at]).is_err(), "{at}");
        }
        // One sector of the two that are not empty is there, the beginning of the first, or none.
        for (range, torn) in [
            (0..0, false),
            (0..512, true),
            (3584..4096, true),
            (0..4096, true),
            (32..4096, true),
            (8..4096, true),
            (32..512, true),
        ] {
            let mut bad = bytes.clone();
            bad[range].fill(0);
            assert_eq!(is_torn(&bad, 7, header.file), torn);
            bad[2000] = 1;
            assert!(!is_torn(&bad, 7, header.file), "not ours");
        }
        let name = file_name(7, header.file);
        assert_eq!(parse_file_name(&name), Some((7, header.file)));
        assert_eq!(parse_file_name("7-x.vseg"), None);
    }
}
