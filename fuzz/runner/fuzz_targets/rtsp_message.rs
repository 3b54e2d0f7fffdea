//! Fuzz target: `vidar_ingest::fuzz::rtsp_message`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_ingest::fuzz::rtsp_message(data));
