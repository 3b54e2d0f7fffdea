//! Fuzz target: `vidar_ingest::fuzz::rtp_depacketize`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_ingest::fuzz::rtp_depacketize(data));
