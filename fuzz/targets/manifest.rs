#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| extism::fuzz::manifest(data));
