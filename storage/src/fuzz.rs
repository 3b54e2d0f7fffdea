//! Bodies of fuzz targets: bytes in, no panic, and what is said of each.

use std::sync::Arc;

use vidar_core::control::ControlRecord;
use vidar_core::ids::FileId;
use vidar_core::record::{FragmentFacts, TableEnvelope};
use vidar_core::track::StreamConfig;

use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;
use crate::crypto::keyring::{Keyring, wrapped_secret};
use crate::crypto::keys::Secret;
use crate::listing::Listing;
use crate::segment_file::footer::{Trailer, decode_entries};
use crate::segment_file::header::FileHeader;
use crate::segment_file::record::{RECORD_HEADER_LEN, RecordHeader, RecordOpener};
use crate::segment_file::recover;

/// A key that everybody knows.
fn key() -> Secret {
    Secret::new([0x5a; 32])
}

/// A record: a header that reads is encoded to the same bytes; what opens under the known key is decoded.
pub fn record(input: &[u8]) {
    let Ok(header) = RecordHeader::decode(input) else { return };
    assert_eq!(header.encode(), input[..RECORD_HEADER_LEN]);
    let opener = RecordOpener::new(&header, input, &key());
    if let Ok((facts, table)) = opener.head(input.to_vec()) {
        assert_eq!((facts.len(), table.len()), (header.shape.facts_len as usize, header.shape.table_len as usize));
        let _ = (FragmentFacts::decode(&facts), TableEnvelope::decode(&table), ControlRecord::decode(&table));
        let _ = StreamConfig::decode(&table);
    }
    let mut media = input.get(header.shape.head_len() as usize..).unwrap_or_default().to_vec();
    let wanted = header.shape.media_len;
    if let Ok(media) = opener.media(&opener.span(&(0..wanted)), &mut media, wanted) {
        assert_eq!(media.len() as u64, wanted);
    }
}

/// A footer: its trailer, and its entries in plain. Also a header, and a list of files.
pub fn footer(input: &[u8]) {
    let file = FileId::from_bytes([7; 16]);
    let _ = Trailer::decode(input, file, input.len() as u64);
    let _ = FileHeader::decode(input);
    let _ = Listing::decode(input, uuid::Uuid::nil());
    if let Ok(entries) = decode_entries(input) {
        let bytes = crate::segment_file::footer::encode_entries(&entries);
        assert_eq!(decode_entries(&bytes), Ok(entries));
    }
}

/// A keyring: nothing opens but what was made with the key.
pub fn keyring(input: &[u8]) {
    let _ = wrapped_secret(input).map(|wrapped| wrapped.generation);
    if let Ok(ring) = Keyring::decode(input, &key()) {
        assert_eq!(Keyring::decode(&ring.encode(), &key()).map(|ring| ring.generation), Ok(ring.generation));
    }
}

/// A segment file that was not closed: what is found lies inside it, in order.
pub fn segment_scan(input: &[u8]) {
    let io = Arc::new(MemoryIo::new());
    let handle = io.create("scan.vseg", 0).expect("an empty directory in memory");
    handle.write_at(0, input).expect("room in memory");
    let scan = recover::scan(&*handle, FileId::from_bytes([7; 16]), None, 0, &Keyring::create(&key()));
    let scan = scan.expect("memory does not fail");
    let mut end = 0;
    for (entry, _) in &scan.records {
        assert!(entry.offset >= end && entry.end() <= input.len() as u64);
        end = entry.end();
    }
    assert!(scan.bad.iter().all(|bad| bad.offset + bad.len <= input.len() as u64));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    type Target = fn(&[u8]);

    #[test]
    fn the_corpora_replay() {
        let targets: [(&str, Target); 4] = [
            ("record", super::record),
            ("footer", super::footer),
            ("keyring", super::keyring),
            ("segment_scan", super::segment_scan),
        ];
        for (name, target) in targets {
            let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
            let files = std::fs::read_dir(&folder).unwrap_or_else(|error| panic!("{}: {error}", folder.display()));
            let seeds: Vec<_> = files.map(|file| std::fs::read(file.unwrap().path()).unwrap()).collect();
            assert!(!seeds.is_empty(), "{name}");
            for seed in seeds {
                target(&seed);
                // And near misses of each.
                for at in (0..seed.len()).step_by(seed.len() / 64 + 1) {
                    let mut near = seed.clone();
                    near[at] ^= 0x81;
                    target(&near);
                    target(&seed[..at]);
                }
            }
        }
    }

    /// The seeds are what they should be: they open under the known keys.
    #[test]
    fn the_seeds_are_worth_something() {
        use super::*;
        let read = |name: &str| {
            std::fs::read(Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name)).unwrap()
        };
        let record = read("record/fragment");
        let header = RecordHeader::decode(&record).unwrap();
        assert!(RecordOpener::new(&header, &record, &key()).fragment_head(record).is_ok());
        assert!(Keyring::decode(&read("keyring/two-streams"), &key()).is_ok());
        assert!(decode_entries(&read("footer/entries")).unwrap().len() >= 4);
        let file = FileId::from_bytes([7; 16]);
        let trailer = read("footer/trailer");
        assert!(Trailer::decode(&trailer, file, 1 << 20).is_ok());
        let handle = MemoryIo::new().create("seed.vseg", 0).unwrap();
        handle.write_at(0, &read("segment_scan/two-batches")).unwrap();
        assert!(recover::has_batches(&*handle, file).unwrap());
        assert!(recover::bad_batches(&*handle, file, &mut |_| Ok(())).unwrap().is_empty());
    }
}
