//! Bodies of fuzz targets: what comes from outside must not panic.

use std::sync::{Arc, OnceLock};

use vidar_core::clock::SystemClock;

use crate::search::{SearchError, SearchRequest, sealed};
use crate::{Index, IndexOptions, timeline};

/// Any text is answered or refused, with a position inside it.
pub fn search_query(data: &[u8]) {
    static INDEX: OnceLock<Arc<Index>> = OnceLock::new();
    let index = INDEX.get_or_init(|| {
        Index::open(IndexOptions::in_memory(SystemClock::shared())).expect("an index in memory always opens")
    });
    let Ok(q) = std::str::from_utf8(data) else { return };
    let request = SearchRequest { q: q.to_owned(), limit: 1, ..SearchRequest::default() };
    match index.search().query(&request) {
        Ok(page) => assert_eq!(page.total, 0),
        Err(SearchError::Malformed { position, .. }) => assert!(position <= q.len(), "{position} of {q:?}"),
        Err(error) => panic!("{error}"),
    }
}

/// Any bytes are refused as a sealed file; sealed, they come back, and not if a bit of the file was changed.
pub fn sealed_file(data: &[u8]) {
    const KEY: [u8; 32] = [1; 32];
    assert!(sealed::open_all(&KEY, "file", data).is_err());
    let Ok(mut file) = sealed::seal_all(&KEY, "file", data) else { return };
    assert_eq!(sealed::open_all(&KEY, "file", &file).ok().as_deref(), Some(data));
    let position = data.iter().fold(7_usize, |at, byte| at.wrapping_mul(31).wrapping_add(usize::from(*byte)));
    let position = position % file.len();
    file[position] ^= 1;
    assert!(sealed::open_all(&KEY, "file", &file).is_err(), "changed at {position}");
}

/// Any bytes are refused as a block of the timeline, or read; what was read is the same after it was written again.
pub fn timeline_block(data: &[u8]) {
    timeline::block_round_trip(data);
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::Path;

    use proptest::prelude::*;

    fn replay(name: &str, body: fn(&[u8])) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(name);
        let files: Vec<_> = fs::read_dir(&folder).expect("a corpus").map(|file| file.expect("a file").path()).collect();
        assert!(!files.is_empty());
        for file in files {
            body(&fs::read(&file).expect("a file"));
        }
    }

    #[test]
    fn corpora_pass() {
        replay("search_query", super::search_query);
        replay("sealed_file", super::sealed_file);
        replay("timeline_block", super::timeline_block);
    }

    proptest! {
        #[test]
        fn any_text_passes(text in r#"([a-z_.]{1,12}:)?([\PC]{0,6}|[\[\]{}()"'^~*/\\<>=+:-]{0,6}| (AND|OR|NOT|IN|TO) ){0,8}"#) {
            super::search_query(text.as_bytes());
        }
    }
}
