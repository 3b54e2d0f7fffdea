//! Fuzz target: `vidar_storage::fuzz::record`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_storage::fuzz::record(data));
