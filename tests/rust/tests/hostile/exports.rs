//! What is exported and cannot be called: the error says what it is, and nothing runs.

use extism_tests::{HostFunction, Plugin, Setup, guest};

use super::{FINE, assert_fine};

/// Exports that are no functions, or of other types than `() -> ()` and `() -> i32`; and how each is described.
const KINDS: [(&str, &str); 19] = [
    (r#"(func (export "NAME") (param i32))"#, "a function (i32) -> ()"),
    (
        r#"(func (export "NAME") (param i32 i32 i64 f32) (result i32) unreachable)"#,
        "a function (i32, i32, i64, f32) -> (i32)",
    ),
    (r#"(func (export "NAME") (result i64) unreachable)"#, "a function () -> (i64)"),
    (r#"(func (export "NAME") (result f32) unreachable)"#, "a function () -> (f32)"),
    (r#"(func (export "NAME") (result f64) unreachable)"#, "a function () -> (f64)"),
    (r#"(func (export "NAME") (result v128) unreachable)"#, "a function () -> (v128)"),
    (r#"(func (export "NAME") (result i32 i32) unreachable)"#, "a function () -> (i32, i32)"),
    (r#"(func (export "NAME") (result funcref) unreachable)"#, "a function () -> ("),
    (r#"(func (export "NAME") (result externref) unreachable)"#, "a function () -> ("),
    (r#"(func (export "NAME") (result anyref) unreachable)"#, "a function () -> ("),
    (r#"(func (export "NAME") (result exnref) unreachable)"#, "a function () -> ("),
    (r#"(func (export "NAME") (param externref))"#, "extern)) -> ()"),
    (r#"(memory $texts 1) (memory (export "NAME") 2 3)"#, "a memory of 2 to 3 pages"),
    (r#"(memory $texts 1) (memory (export "NAME") i64 0)"#, "a 64-bit memory of 0 or more pages"),
    (r#"(table (export "NAME") 4 funcref)"#, "a table of 4 or more elements"),
    (r#"(table (export "NAME") i64 1 2 externref)"#, "a 64-bit table of 1 to 2 elements"),
    (r#"(global (export "NAME") i32 (i32.const 1))"#, "a global of type i32"),
    (r#"(global (export "NAME") (mut v128) (v128.const i64x2 0 0))"#, "a mutable global of type v128"),
    (r#"(tag (export "NAME") (param i32 f64))"#, "an exception tag (i32, f64)"),
];

#[test]
fn what_cannot_be_called_is_described() {
    for (definition, description) in KINDS {
        let definition = definition.replace("NAME", "thing");
        // It says so without an instance: the start function would trap.
        let start = format!("{definition} {FINE} (func $trap unreachable) (start $trap)");
        for body in [format!("{definition} {FINE}"), start] {
            let plugin = Plugin::new(&body);
            assert!(!plugin.has("thing"), "{definition}");
            let (code, error) = plugin.run("thing").failure();
            assert_eq!(code, -1);
            assert!(error.contains("thing") && error.contains(description), "{definition}: {error}");
            assert!(plugin.take_notes().is_empty());
        }
        let plugin = Plugin::new(&format!("{definition} {FINE}"));
        plugin.run("thing");
        assert_fine(&plugin);
        assert!(plugin.has("fine") && !plugin.has("nothing"));
    }
}

/// Names that mean something at the start-up, on things that are no such functions: they are ordinary exports.
#[test]
fn what_is_called_like_an_initialiser_and_is_none() {
    for name in ["_initialize", "__wasm_call_ctors", "hs_init", "hs_exit", "_start"] {
        for (definition, description) in KINDS {
            let definition = definition.replace("NAME", name);
            let plugin = Plugin::new(&format!("{definition} {FINE}"));
            assert_fine(&plugin);
            if name != "hs_init" {
                let (code, error) = plugin.run(name).failure();
                assert!(code == -1 && error.contains(description), "{name} {definition}: {code} {error}");
            }
            assert_fine(&plugin);
            // The same in a linked module. Whether it is taken for a command or not, its function works.
            let lib = guest(&format!(r#"{definition} (func (export "f") (result i32) (i32.const 7))"#));
            let main = r#"(module (import "lib" "f" (func $f (result i32))) (export "fine" (func $f)))"#;
            assert_fine(&Setup::linked(&[("lib", &lib), ("main", main)]).plugin());
        }
    }
}

/// Imports that are exported again, and one function under several names.
#[test]
fn imports_that_are_exported_again() {
    let user = || HostFunction::new("mine", &[], &[], |_, _, _| {});
    let plugin = Setup::guest(
        r#"(import "extism:host/user" "mine" (func $mine))
           (import "extism:host/env" "reset" (func $reset_it))
             (import "extism:host/env" "input_length" (func $l (result i64)))
           (import "extism:host/env" "http_status_code" (func $status (result i32)))
           (export "mine" (func $mine)) (export "again" (func $mine)) (export "reset" (func $reset_it))
           (export "input_length" (func $l)) (export "_initialize" (func $reset_it)) (export "status" (func $status))
           (export "hs_init" (func $mine)) (func (export "fine") (result i32) (i32.const 7))"#,
    )
    .function(user())
    .plugin();
    for name in ["mine", "again", "reset", "_initialize", "hs_init", "status"] {
        assert!(plugin.has(name), "{name}");
        assert_eq!(plugin.call(name, "input").success().0, 0, "{name}");
    }
    assert!(!plugin.has("input_length"));
    let (code, error) = plugin.run("input_length").failure();
    assert!(code == -1 && error.contains("() -> (i64)"), "{error}");
    assert_fine(&plugin);
    let wasi = r#"(import "wasi_snapshot_preview1" "sched_yield" (func $yield (result i32)))
        (memory (export "memory") 1) (export "yield" (func $yield)) (func (export "fine") (result i32)
          (i32.const 7))"#;
    let plugin = Setup::guest(wasi).wasi().plugin();
    // No guest is there whose memory it could work on.
    assert!(matches!(plugin.run("yield").code, 0 | -1));
    assert_fine(&plugin);
}

/// Start functions and initialisers that call every guest function and a host function, with harmless arguments and
/// with wild ones, alone and in linked modules.
#[test]
fn start_ups_that_call_everything() {
    let env = [
        ("free", "l"),
        ("length", "l>"),
        ("length_unsafe", "l>"),
        ("input_offset", ">"),
        ("input_length", ">"),
        ("input_load_u8", "l>"),
        ("input_load_u64", "l>"),
        ("output_offset", ">"),
        ("output_length", ">"),
        ("error_set", "l"),
        ("error_get", ">"),
        ("reset", ""),
        ("memory_bytes", ">"),
        ("http_status_code", ">"),
        ("http_headers", ">"),
        ("get_log_level", ">"),
    ];
    let refusing = [
        ("alloc", "l>"),
        ("load_u8", "l>"),
        ("load_u64", "l>"),
        ("store_u8", "li"),
        ("store_u64", "ll"),
        ("config_get", "l>"),
        ("var_get", "l>"),
        ("var_set", "ll"),
        ("http_request", "ll>"),
        ("log_trace", "l"),
        ("log_debug", "l"),
        ("log_info", "l"),
        ("log_warn", "l"),
        ("log_error", "l"),
        ("input_set", "ll"),
        ("output_set", "ll"),
    ];
    let call = |(name, ty): (&str, &str), number: i64| {
        let args: String = ty
            .chars()
            .filter(|c| *c != '>')
            .map(|c| if c == 'i' { "(i32.const 5)".to_owned() } else { format!("(i64.const {number})") })
            .collect();
        let call = format!("(call ${name} {args})");
        if ty.ends_with('>') { format!("(drop {call})") } else { call }
    };
    let all: String = env.iter().flat_map(|entry| [0, 5, -1, i64::MIN].map(|number| call(*entry, number))).collect();
    let places = [
        "(start $go)",
        r#"(export "_initialize" (func $go))"#,
        r#"(export "__wasm_call_ctors" (func $go))"#,
        r#"(func (export "hs_init") (param i32 i32) (call $go))"#,
    ];
    for place in places {
        let plugin = Plugin::new(&format!("(func $go {all} (call $note (i64.const 1))) {place} {FINE}"));
        assert_fine(&plugin);
        assert_fine(&plugin);
        assert_eq!(plugin.take_notes(), [1], "{place}");
        for entry in refusing {
            let plugin = Plugin::new(&format!("(func $go {}) {place} {FINE}", call(entry, -1)));
            for _ in 0..2 {
                let (code, error) = plugin.run("fine").failure();
                assert!(matches!(code, -1 | 134), "{entry:?} in {place}: {code} {error}");
            }
            assert_eq!(plugin.output(), b"");
        }
        let lib = guest(&format!(r#"(func $go {all} (call $note (i64.const 1))) {place} (func (export "f"))"#));
        let command = lib.replace("(func (export \"f\"))", "(func (export \"f\")) (func (export \"_start\"))");
        for lib in [lib, command] {
            let main = format!(r#"(module (import "lib" "f" (func $f)) (start $f) {FINE})"#);
            assert_fine(&Setup::linked(&[("lib", &lib), ("main", &main)]).plugin());
        }
    }
}
