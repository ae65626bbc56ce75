//! What linked modules import: what is missing, of another type, or offered by several.

use extism_tests::{HostFunction, Setup, Type};

use super::{COUNTER, MAIN, linked};

#[test]
fn memories_tables_and_globals_of_reactors_can_be_imported() {
    let lib = r#"(module (memory (export "memory") 1) (global (export "global") (mut i32) (i32.const 3))
        (table (export "table") 4 funcref) (func (export "peek") (result i32) (i32.load (i32.const 8))))"#;
    let main = r#"(module (import "lib" "memory" (memory 1)) (import "lib" "global" (global $g (mut i32)))
        (import "lib" "table" (table 4 funcref)) (import "lib" "peek" (func $peek (result i32)))
        (func (export "run") (result i32)
          (i32.store (i32.const 8) (i32.const 40))
          (i32.add (i32.add (call $peek) (global.get $g)) (table.size))))"#;
    assert_eq!(linked(&[("lib", lib), ("main", main)]).code("run"), 47);
}

#[test]
fn circles_are_refused() {
    let a = r#"(module (import "b" "f" (func)) (func (export "f")))"#;
    let b = r#"(module (import "a" "f" (func)) (func (export "f")))"#;
    let main = r#"(module (import "a" "f" (func)))"#;
    let error = Setup::linked(&[("a", a), ("b", b), ("main", main)]).refusal();
    assert!(error.contains("circle") && error.contains("`a`") && error.contains("`b`"), "{error}");
    let own = r#"(module (import "a" "f" (func)) (func (export "f")))"#;
    let error = Setup::linked(&[("a", own), ("main", main)]).refusal();
    assert!(error.contains("circle") || error.contains("itself"), "{error}");
}

#[test]
fn what_is_missing_or_of_another_type_is_named() {
    let main = r#"(module (import "counter" "other" (func (result i32))))"#;
    let error = Setup::linked(&[("counter", COUNTER), ("main", main)]).refusal();
    assert!(error.contains("counter") && error.contains("other"), "{error}");
    let main = r#"(module (import "counter" "next" (func (param i64))))"#;
    let error = Setup::linked(&[("counter", COUNTER), ("main", main)]).refusal();
    assert!(error.contains("counter") && error.contains("next"), "{error}");
    let lib = r#"(module (import "nowhere" "nothing" (func)) (func (export "next") (result i32) (i32.const 0)))"#;
    let error = Setup::linked(&[("counter", lib), ("main", MAIN)]).refusal();
    assert!(error.contains("counter") && error.contains("nowhere") && error.contains("nothing"), "{error}");
}

#[test]
fn types_of_imported_memories_tables_and_globals_are_checked() {
    let lib = r#"(module (memory (export "memory") 1 2) (global (export "global") i32 (i32.const 3))
        (table (export "table") 4 funcref) (func (export "function")))"#;
    for import in [
        r#""memory" (memory 1 1)"#,
        r#""memory" (memory i64 1)"#,
        r#""global" (global i64)"#,
        r#""global" (global (mut i32))"#,
        r#""table" (table 4 externref)"#,
        r#""function" (memory 1)"#,
        r#""memory" (func)"#,
    ] {
        let error = Setup::linked(&[("lib", lib), ("main", &format!(r#"(module (import "lib" {import}))"#))]).refusal();
        let name = import.split('"').nth(1).unwrap();
        assert!(error.contains("lib") && error.contains(name), "{import}: {error}");
        let (wanted, found) = error.split_once(", but what is offered under this name is ").expect("both types");
        assert!(!wanted.ends_with(&format!(" as {found}")), "{import}: no difference is told: {error}");
    }
}

/// How large they are by then is known when they are there: an initialiser may have let them grow.
#[test]
fn sizes_of_imported_memories_and_tables_are_checked_at_the_first_call() {
    let lib = |initialize: &str| {
        format!(
            r#"(module (memory (export "memory") 1 2) (table (export "table") 4 funcref)
                 (func (export "_initialize") {initialize}))"#
        )
    };
    let growing = lib("(drop (memory.grow (i32.const 1))) (drop (table.grow (ref.null func) (i32.const 1)))");
    for import in [r#""memory" (memory 2)"#, r#""table" (table 5 funcref)"#] {
        let main = format!(r#"(module (import "lib" {import}) (func (export "run") (result i32) (i32.const 7)))"#);
        assert_eq!(linked(&[("lib", &growing), ("main", &main)]).code("run"), 7);
        let (code, error) = linked(&[("lib", &lib("")), ("main", &main)]).run("run").failure();
        let name = import.split('"').nth(1).unwrap();
        assert_eq!(code, -1, "{error}");
        assert!(error.contains("lib") && error.contains(name), "{error}");
    }
}

#[test]
fn a_missing_import_beside_an_imported_memory_is_named() {
    let lib = r#"(module (memory (export "memory") 1))"#;
    for missing in [r#""extism:host/user" "lookup" (func)"#, r#""lib" "lookup" (func)"#, r#""env" "lookup" (memory 1)"#]
    {
        let main = format!(r#"(module (import "lib" "memory" (memory 1)) (import {missing}))"#);
        let error = Setup::linked(&[("lib", lib), ("main", &main)]).refusal();
        assert!(error.contains("lookup"), "{missing}: {error}");
    }
}

/// Linked module, then user function, then WASI, then `extism:host/env`.
#[test]
fn what_counts_if_several_offer_a_name() {
    let answer = |name: &str, n: u64| HostFunction::new(name, &[], &[Type::I32], move |_, _, out| out[0].bits = n);
    let main = r#"(module (import "extism:host/user" "answer" (func $answer (result i32)))
        (func (export "run") (result i32) (call $answer)))"#;
    let lib = r#"(module (func (export "answer") (result i32) (i32.const 1)))"#;
    let setup = Setup::linked(&[("extism:host/user", lib), ("main", main)]);
    assert_eq!(setup.function(answer("answer", 2)).plugin().code("run"), 1);

    let main = r#"(module (import "wasi_snapshot_preview1" "sched_yield" (func $answer (result i32)))
        (memory (export "memory") 1)
        (func (export "run") (result i32) (call $answer)))"#;
    assert_eq!(Setup::new(main).wasi().plugin().code("run"), 0);
    let user = answer("sched_yield", 2).in_namespace("wasi_snapshot_preview1");
    assert_eq!(Setup::new(main).wasi().function(user).plugin().code("run"), 2);
    let lib = r#"(module (func (export "sched_yield") (result i32) (i32.const 1)))"#;
    let setup = Setup::linked(&[("wasi_snapshot_preview1", lib), ("main", main)]).wasi();
    let user = answer("sched_yield", 2).in_namespace("wasi_snapshot_preview1");
    assert_eq!(setup.function(user).plugin().code("run"), 1);
}
