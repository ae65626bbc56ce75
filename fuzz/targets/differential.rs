#![no_main]

// The functions that modules are run with are those of this crate.
use extism as _;

libfuzzer_sys::fuzz_target!(|data: &[u8]| extism_tests::differential(data));
