//! What fuzzing keeps of the targets that need the whole library: modules, and sequences of calls of the C ABI.

use std::path::Path;

use extism_tests::{differential, host_abi, module, within};

fn replay(name: &str, target: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
    within(100, move || {
        let mut count = 0;
        for file in directory.read_dir().expect("inputs") {
            let path = file.expect("an entry").path();
            println!("{}", path.display());
            target(&std::fs::read(&path).expect("an input"));
            count += 1;
        }
        assert!(count > 0, "no inputs");
    });
}

#[test]
fn replay_module() {
    replay("module", module);
}

#[test]
fn replay_host_abi() {
    replay("host_abi", host_abi);
}

#[test]
fn replay_differential() {
    replay("differential", differential);
}
