//! Fuzz target: `vidar_storage::fuzz::segment_scan`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_storage::fuzz::segment_scan(data));
