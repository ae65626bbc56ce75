//! WASI with arguments that nobody means: every function, every pointer, and memories that are none.

use extism_tests::{Scratch, Setup, WASI_FUNCTIONS, json, within};

use super::{FINE, Random, assert_fine, words};

/// Calls `name` with the numbers of the input.
fn calling((name, parameters): (&str, &str)) -> String {
    let types: String = parameters.chars().map(|c| if c == 'I' { "i64 " } else { "i32 " }).collect();
    let arguments: String = parameters
        .chars()
        .enumerate()
        .map(|(index, c)| {
            let number = format!("(call $input_load_u64 (i64.const {}))", 8 * index);
            if c == 'I' { number } else { format!("(i32.wrap_i64 {number})") }
        })
        .collect();
    format!(
        r#"(module (import "wasi_snapshot_preview1" "{name}" (func $it (param {types}) (result i32)))
             (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
             MEMORY {FINE} (func (export "run") (result i32) (call $it {arguments})))"#
    )
}

/// Ends and wraps of a memory of one page, small numbers, which are descriptors, and large ones.
const WILD: [u64; 22] = [
    0,
    1,
    2,
    3,
    4,
    5,
    8,
    100,
    65_528,
    65_532,
    65_535,
    65_536,
    65_537,
    1 << 31,
    (1 << 31) - 1,
    (1 << 32) - 1,
    (1 << 32) - 4,
    (1 << 32) - 8,
    1 << 32,
    1 << 63,
    (1 << 63) - 1,
    u64::MAX,
];

/// Each function gives an error number or ends the call; nothing of the process ends, and the next call works.
#[test]
fn every_function_of_wasi_with_wild_arguments() {
    within(100, || {
        let scratch = Scratch::new("wild-wasi");
        scratch.write("file", "content");
        let mut random = Random(0xbad5eed);
        for function in WASI_FUNCTIONS {
            let wat = calling(function).replace("MEMORY", r#"(memory (export "memory") 1)"#);
            let paths = json!({scratch.path().to_str().unwrap(): "/data"});
            let setup = Setup::new(wat).wasi().with("allowed_paths", paths).with("timeout_ms", json!(5));
            let plugin = setup.plugin();
            for _ in 0..400 {
                let numbers: Vec<_> = function.1.chars().map(|_| WILD[random.below(WILD.len())]).collect();
                let ended = plugin.call("run", words(&numbers));
                match ended.code {
                    0..=76 => assert_eq!(ended.error, None, "{function:?} {numbers:x?}"),
                    -1 | 134 => assert!(ended.error.is_some(), "{function:?} {numbers:x?}"),
                    code => panic!("{function:?} {numbers:x?}: {code}"),
                }
            }
            assert_fine(&plugin);
        }
    });
}

/// WASI works on the caller's export `memory`. Whatever has this name, a call without a usable one fails.
#[test]
fn memories_that_are_none() {
    within(60, || {
        for memory in [
            "",
            "(memory 1)",
            r#"(memory (export "other") 1)"#,
            r#"(global (export "memory") i32 (i32.const 0))"#,
            r#"(table (export "memory") 1 funcref)"#,
            r#"(func (export "memory"))"#,
            r#"(memory (export "memory") 0)"#,
            r#"(memory (export "memory") i64 1)"#,
            r#"(memory (export "memory") i64 0 65536)"#,
        ] {
            for function in WASI_FUNCTIONS {
                let plugin =
                    Setup::new(calling(function).replace("MEMORY", memory)).wasi().with("timeout_ms", json!(100));
                let plugin = plugin.plugin();
                for numbers in [[0; 9], [1; 9], [65_536; 9], [u64::MAX; 9]] {
                    let ended = plugin.call("run", words(&numbers));
                    let known =
                        matches!(ended.code, -1 | 134) == ended.error.is_some() && (-1..=134).contains(&ended.code);
                    assert!(known, "{function:?} with {memory}: {ended:?}");
                }
                assert_fine(&plugin);
            }
        }
    });
}
