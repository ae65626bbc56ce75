//! Rewriting changes nothing but speed: plug-ins with and without it, side by side.

use std::path::Path;

use extism_tests::{differential, within};

#[test]
fn plug_ins_of_the_examples_run_alike() {
    within(60, || {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../c-examples/wasm");
        let files: Vec<_> = directory.read_dir().expect("plug-ins").map(|file| file.expect("a file").path()).collect();
        assert!(files.len() >= 4);
        for file in files {
            differential(&std::fs::read(file).expect("a plug-in"));
        }
    });
}

#[test]
fn generated_modules_run_alike() {
    within(100, || {
        // xorshift: the same modules every time.
        let mut state = 0x2545_f491_4f6c_dd1d_u64;
        for round in 0..60 {
            let mut bytes = vec![round];
            while bytes.len() < 2000 {
                state ^= state << 13;
                state ^= state >> 7;
                state ^= state << 17;
                bytes.extend_from_slice(&state.to_le_bytes());
            }
            differential(&bytes);
        }
    });
}
