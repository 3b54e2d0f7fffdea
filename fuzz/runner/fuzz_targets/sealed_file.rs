//! Fuzz target: `vidar_indexer::fuzz::sealed_file`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_indexer::fuzz::sealed_file(data));
