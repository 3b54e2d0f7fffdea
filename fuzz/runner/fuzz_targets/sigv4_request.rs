//! Fuzz target: `vidar_aws_wire::fuzz::sigv4_request`.
#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| vidar_aws_wire::fuzz::sigv4_request(data));
