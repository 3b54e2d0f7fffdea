//! Fuzz target: `vidar_ingest::fuzz::rtsp_sdp`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_ingest::fuzz::rtsp_sdp(data));
