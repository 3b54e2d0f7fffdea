//! Fuzz target: `vidar_media::fuzz::demux_ts`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_media::fuzz::demux_ts(data));
