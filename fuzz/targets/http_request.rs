#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| extism::fuzz::http_request(data));
