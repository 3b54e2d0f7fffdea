//! Fuzz target: `vidar_media::fuzz::codec_h264`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_media::fuzz::codec_h264(data));
