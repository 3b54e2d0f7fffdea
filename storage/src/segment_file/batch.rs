//! The header of a batch: what one sync made durable.

use vidar_core::ids::FileId;
use vidar_core::time::UnixMs;
use vidar_core::wire::{Reader, WireError, Writer};

const MAGIC: &[u8; 4] = b"VBAT";
/// Bytes before the payload.
pub(crate) const BATCH_HEADER_LEN: usize = 64;

/// Header of a batch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BatchHeader {
    pub(crate) payload_crc: u32,
    /// Within the file.
    pub(crate) sequence: u64,
    pub(crate) payload_len: u32,
    pub(crate) record_count: u32,
    /// End of the last batch that was synced when this one was written.
    pub(crate) durable_through: u64,
    pub(crate) archive: UnixMs,
}

/// Checksums go on from this, so that blocks of another file or another place never parse.
fn seed(file: FileId, sequence: u64) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(file.as_bytes()), &sequence.to_be_bytes())
}

/// The checksum of a payload.
pub(crate) fn payload_crc(file: FileId, sequence: u64, payload: &[u8]) -> u32 {
    crc32c::crc32c_append(seed(file, sequence), payload)
}

impl BatchHeader {
    pub(crate) fn encode(&self, file: FileId) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(MAGIC).u32(self.payload_crc).u64(self.sequence).u32(self.payload_len).u32(self.record_count);
        w.u64(self.durable_through).i64(self.archive.0).raw(&[0; 20]);
        let mut bytes = w.into_vec();
        let crc = crc32c::crc32c_append(seed(file, self.sequence), &bytes);
        bytes.extend(crc.to_be_bytes());
        bytes
    }

    pub(crate) fn decode(bytes: &[u8], file: FileId) -> Result<Self, WireError> {
        let mut r = Reader::new(bytes);
        if r.array()? != *MAGIC {
            return Err(WireError { expected: "the header of a batch", offset: 0 });
        }
        let (payload_crc, sequence, payload_len, record_count) = (r.u32()?, r.u64()?, r.u32()?, r.u32()?);
        let (durable_through, archive) = (r.u64()?, UnixMs(r.i64()?));
        r.raw(20)?;
        if r.u32()? != crc32c::crc32c_append(seed(file, sequence), &bytes[..BATCH_HEADER_LEN - 4]) {
            return Err(WireError { expected: "the checksum of the batch header", offset: 60 });
        }
        Ok(Self { payload_crc, sequence, payload_len, record_count, durable_through, archive })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_batch_header_parses_in_its_own_file_only() {
        let file = FileId::new();
        let header = BatchHeader {
            payload_crc: 1,
            sequence: 2,
            payload_len: 3,
            record_count: 1,
            durable_through: 4096,
            archive: UnixMs(5),
        };
        let bytes = header.encode(file);
        assert_eq!(bytes.len(), BATCH_HEADER_LEN);
        assert_eq!(BatchHeader::decode(&bytes, file), Ok(header));
        assert!(BatchHeader::decode(&bytes, FileId::new()).is_err());
        for at in 0..bytes.len() {
            let mut bad = bytes.clone();
            bad[at] ^= 1;
            assert!(BatchHeader::decode(&bad, file).is_err(), "{at}");
            assert!(BatchHeader::decode(&bytes[..at], file).is_err(), "{at}");
        }
    }
}
