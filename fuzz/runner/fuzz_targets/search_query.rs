//! Fuzz target: `vidar_indexer::fuzz::search_query`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_indexer::fuzz::search_query(data));
