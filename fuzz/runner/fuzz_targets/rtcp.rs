//! Fuzz target: `vidar_ingest::fuzz::rtcp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_ingest::fuzz::rtcp(data));
