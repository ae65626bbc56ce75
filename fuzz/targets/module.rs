#![no_main]

// The functions that the sequences call are those of this crate.
use extism as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| extism_tests::module(data));
