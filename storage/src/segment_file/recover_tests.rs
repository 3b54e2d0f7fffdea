use proptest::prelude::*;

use super::*;
use crate::backend::SegmentIo;
use crate::backend::memory::MemoryIo;

proptest! {
    #[test]
    fn no_input_panics(input in prop::collection::vec(any::<u8>(), 0..20_000)) {
        crate::fuzz::segment_scan(&input);
    }
}

#[test]
fn an_empty_file_has_nothing_and_room_for_a_footer_behind_its_header() {
    for len in [0, 1, 4096, 4100, 100_000] {
        let handle = MemoryIo::new().create("f.vseg", len).unwrap();
        let keys = Keyring::create(&crate::Secret::random());
        let scan = scan(&*handle, FileId::new(), None, &keys).unwrap();
        assert_eq!((scan.records.len(), scan.bad.len(), scan.data_end), (0, 0, 4096));
        assert_eq!(scan.dropped_bytes, 0);
    }
}
