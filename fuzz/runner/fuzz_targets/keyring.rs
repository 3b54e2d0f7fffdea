//! Fuzz target: `vidar_storage::fuzz::keyring`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_storage::fuzz::keyring(data));
