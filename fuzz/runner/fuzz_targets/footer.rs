//! Fuzz target: `vidar_storage::fuzz::footer`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_storage::fuzz::footer(data));
