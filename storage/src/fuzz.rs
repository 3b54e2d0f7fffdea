//! Bodies of fuzz targets: bytes in, no panic, and what is said of each.

use std::sync::Arc;

use vidar_core::ids::FileId;

use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;
use crate::crypto::keyring::{Keyring, generation};
use crate::crypto::keys::Secret;
use crate::segment_file::footer::{Trailer, decode_entries};
use crate::segment_file::header::FileHeader;
use crate::segment_file::record::{RECORD_HEADER_LEN, RecordHeader, RecordOpener};
use crate::segment_file::recover;

/// A key that everybody knows.
fn key() -> Secret {
    Secret::new([0x5a; 32])
}

/// A record: a header that reads is encoded to the same bytes; nothing opens under a key it was not sealed with.
pub fn record(input: &[u8]) {
    let Ok(header) = RecordHeader::decode(input) else { return };
    let again = header.encode();
    assert_eq!(RecordHeader::decode(&again), Ok(header));
    let opener = RecordOpener::new(&header, &key());
    assert!(opener.head(input.to_vec()).is_err());
    let media = input.get(RECORD_HEADER_LEN..).unwrap_or_default().to_vec();
    let wanted = header.shape.media_len;
    let _ = opener.media(&opener.span(&(0..wanted)), media, wanted);
}

/// A footer: its trailer, and its entries in plain.
pub fn footer(input: &[u8]) {
    let file = FileId::from_bytes([7; 16]);
    let _ = Trailer::decode(input, file, input.len() as u64);
    let _ = FileHeader::decode(input);
    if let Ok(entries) = decode_entries(input) {
        let bytes = crate::segment_file::footer::encode_entries(&entries);
        assert_eq!(decode_entries(&bytes), Ok(entries));
    }
}

/// A keyring: nothing opens but what was made with the key.
pub fn keyring(input: &[u8]) {
    let _ = generation(input);
    if let Ok(ring) = Keyring::decode(input, &key()) {
        assert_eq!(Keyring::decode(&ring.encode(), &key()).map(|ring| ring.generation), Ok(ring.generation));
    }
}

/// A segment file that was not closed: what is found lies inside it, in order.
pub fn segment_scan(input: &[u8]) {
    let io = Arc::new(MemoryIo::new());
    let handle = io.create("scan.vseg", 0).expect("an empty directory in memory");
    handle.write_at(0, input).expect("room in memory");
    let scan = recover::scan(&*handle, FileId::from_bytes([7; 16]), None, &Keyring::create(&key()));
    let scan = scan.expect("memory does not fail");
    let mut end = 0;
    for (entry, _) in &scan.records {
        assert!(entry.offset >= end && entry.end() <= input.len() as u64);
        end = entry.end();
    }
    assert!(scan.bad.iter().all(|bad| bad.offset + bad.len <= input.len() as u64));
}
