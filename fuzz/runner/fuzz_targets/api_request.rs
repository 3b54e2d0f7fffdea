//! Fuzz target: `vidar_player_api::fuzz::api_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_player_api::fuzz::api_request(data));
