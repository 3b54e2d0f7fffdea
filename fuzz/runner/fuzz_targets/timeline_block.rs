//! Fuzz target: `vidar_indexer::fuzz::timeline_block`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_indexer::fuzz::timeline_block(data));
