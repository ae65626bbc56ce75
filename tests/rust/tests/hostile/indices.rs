//! The index one past the last one, in every place where an index can stand. What the library appends to a module
//! would be there.

use extism_tests::{Setup, guest, json};

use super::{FINE, assert_fine, counted, empty_functions, leb, module, vector};

/// A module with so many memories and globals; `more` comes last.
fn with(memories: u32, globals: u32, more: &str) -> String {
    let memories = "(memory 1)".repeat(memories as usize);
    let globals = "(global (mut i64) (i64.const 5))".repeat(globals as usize);
    format!("(module {memories} {globals} {more})")
}

#[track_caller]
fn assert_refused(wat: &str) {
    let error = Setup::new(wat).refusal();
    assert!(error.contains("unknown") || error.contains("out of bounds") || error.contains("index"), "{wat}: {error}");
    // The same as the data of a manifest, beside a library, and as one.
    let main = format!(r#"(module (import "lib" "f" (func)) {FINE})"#);
    for linked in
        [Setup::linked(&[("main", wat), ("lib", "(module)")]), Setup::linked(&[("lib", wat), ("main", &main)])]
    {
        linked.refusal();
    }
}

#[test]
fn memories_one_past_the_end_in_instructions() {
    for memories in [0, 1, 2, 5] {
        let m = memories;
        for body in [
            format!("(drop (memory.size {m}))"),
            format!("(drop (memory.grow {m} (i32.const 0)))"),
            format!("(drop (memory.grow {m} (i64.const 0)))"),
            format!("(drop (i32.load8_u {m} (i64.const 16)))"),
            format!("(drop (i64.load {m} (i64.const 16)))"),
            format!("(drop (i64.load {m} (i32.const 16)))"),
            format!("(i64.store {m} (i64.const 16) (i64.const 1))"),
            format!("(memory.fill {m} (i64.const 16) (i32.const 1) (i64.const 1))"),
            format!("(memory.copy {m} {m} (i64.const 16) (i64.const 1) (i64.const 1))"),
            format!("(drop (v128.load {m} (i64.const 16)))"),
            format!("(v128.store8_lane {m} 0 (i64.const 16) (v128.const i64x2 0 0))"),
            format!("(drop (i64.atomic.load {m} (i64.const 16)))"),
            format!("(drop (i64.atomic.rmw.xchg {m} (i64.const 16) (i64.const 1)))"),
        ] {
            assert_refused(&with(memories, 1, &format!(r#"(func (export "run") {body})"#)));
        }
        if memories > 0 {
            for body in [
                format!("(memory.copy {m} 0 (i64.const 16) (i32.const 1) (i32.const 1))"),
                format!("(memory.copy 0 {m} (i32.const 16) (i64.const 1) (i32.const 1))"),
            ] {
                assert_refused(&with(memories, 0, &format!(r#"(func (export "run") {body})"#)));
            }
        }
        let init = format!(r#"(data $d "x") (func (memory.init {m} $d (i64.const 16) (i32.const 0) (i32.const 1)))"#);
        assert_refused(&with(memories, 0, &init));
        assert_refused(&with(memories, 0, &format!(r#"(export "m" (memory {m}))"#)));
        assert_refused(&with(memories, 0, &format!(r#"(data (memory {m}) (i64.const 16) "x")"#)));
        assert_refused(&with(memories, 0, &format!(r#"(data (memory {m}) (i32.const 16) "x")"#)));
    }
}

#[test]
fn globals_one_and_two_past_the_end() {
    for globals in [0, 1, 3] {
        for g in [globals, globals + 1, globals + 2, u32::MAX] {
            for more in [
                format!("(func (drop (global.get {g})))"),
                format!("(func (global.set {g} (i64.const 5)))"),
                format!(r#"(export "g" (global {g}))"#),
                format!("(global i64 (global.get {g}))"),
                format!("(global i64 (i64.add (i64.const 1) (global.get {g})))"),
                format!(r#"(data (memory 0) (global.get {g}) "x")"#),
                format!(r#"(memory $m i64 1) (data (memory $m) (global.get {g}) "x")"#),
                format!("(table $t 5 funcref) (func $f) (elem (table $t) (global.get {g}) func $f)"),
                format!("(table $t i64 5 funcref) (func $f) (elem (table $t) (global.get {g}) func $f)"),
                format!("(table 5 i31ref (ref.i31 (i32.wrap_i64 (global.get {g}))))"),
                format!("(elem i31ref (item (ref.i31 (i32.wrap_i64 (global.get {g})))))"),
            ] {
                // One that is defined here must not be counted: its own index is past the end for itself as well.
                assert_refused(&with(1, globals, &more));
            }
        }
    }
}

#[test]
fn other_indices_one_past_the_end() {
    for more in [
        "(func) (start 1)",
        "(func) (start 4294967295)",
        r#"(func) (export "f" (func 1))"#,
        "(func (call 1))",
        "(func (return_call 1))",
        "(func (drop (ref.func 1)))",
        "(func) (elem declare func 1)",
        "(func) (elem func 1)",
        "(table 1 funcref) (func) (elem (i32.const 0) func 1)",
        "(global funcref (ref.func 0))",
        "(func (type 1))",
        "(table 1 funcref) (type (func)) (func (call_indirect 1 (type 0) (i32.const 0)))",
        "(table 1 funcref) (type (func)) (func (call_indirect 0 (type 2) (i32.const 0)))",
        r#"(export "t" (table 0))"#,
        "(func (drop (table.size 0)))",
        "(func (throw 0))",
        r#"(export "e" (tag 0))"#,
        "(func (elem.drop 0))",
        "(func (data.drop 0))",
        "(func (local.set 0 (i32.const 1)))",
        "(func (br 1))",
        r#"(import "extism:host/env" "reset" (func (type 3)))"#,
    ] {
        let error = Setup::new(format!("(module {more})")).refusal();
        assert!(
            error.contains("unknown") || error.contains("out of bounds") || error.contains("out of range"),
            "{error}"
        );
    }
}

/// Imports count, too: the last index is behind those that are imported and those that are defined.
#[test]
fn indices_behind_imported_ones() {
    let lib = r#"(module (memory (export "memory") 1) (global (export "global") i64 (i64.const 16)))"#;
    let main = |more: &str| {
        format!(
            r#"(module (import "lib" "memory" (memory 1)) (import "lib" "global" (global i64))
              (memory 1) {more} {FINE}
                 (func (export "run") (drop (memory.size 1)) (drop (global.get 0))))"#
        )
    };
    let setup = |more: &str| Setup::linked(&[("lib", lib), ("main", &main(more))]);
    let plugin = setup("").plugin();
    assert_eq!(plugin.code("run"), 0);
    for more in [
        "(func (drop (memory.size 2)))",
        "(func (drop (i64.load 2 (i64.const 16))))",
        "(func (drop (global.get 1)))",
        r#"(export "m" (memory 2))"#,
        r#"(data (memory 2) (i64.const 16) "x")"#,
        r#"(data (memory 1) (global.get 1) "x")"#,
    ] {
        setup(more).refusal();
    }
}

/// In raw bytes, where no assembler helps: the appended memory and globals by their numbers, in longer encodings.
#[test]
fn indices_in_longer_encodings() {
    let [types, functions, code] = empty_functions(1);
    let memory = (5, vec![1, 0, 1]);
    let good = |index: &[u8]| (7, vector(&[[&counted("m")[..], &[2], index].concat()]));
    for zero in [&[0][..], &[0x80, 0], &[0x80, 0x80, 0x80, 0x80, 0]] {
        let sections = [types.clone(), functions.clone(), memory.clone(), good(zero), code.clone()];
        Setup::new(module(&sections)).plugin();
    }
    for one in [&[1][..], &[0x81, 0], &[0x81, 0x80, 0x80, 0x80, 0], &[0xff, 0xff, 0xff, 0xff, 0x0f]] {
        let sections = [types.clone(), functions.clone(), memory.clone(), good(one), code.clone()];
        let error = Setup::new(module(&sections)).refusal();
        assert!(error.contains("unknown memory"), "{error}");
        // A load from it: (drop (i64.load 1 (i64.const 16))), with the flag for an index behind the alignment.
        let body = [&[0, 0x42, 16, 0x29, 0x43][..], one, &[0, 0x1a, 0x0b]].concat();
        let load = (10, vector(&[counted(body)]));
        let error = Setup::new(module(&[types.clone(), functions.clone(), memory.clone(), load])).refusal();
        assert!(error.contains("unknown memory"), "{error}");
    }
    let start = (8, leb(1));
    let error = Setup::new(module(&[types, functions, start, code])).refusal();
    assert!(error.contains("unknown function"), "{error}");
}

const WORK: &str = r#"(func (export "run") (local $block i64)
    (local.set $block (text 'works')) (call $note (call $input_length))
    (call $note_i32 (call $load_u8 (local.get $block))) (call $output (local.get $block)))"#;

/// Up to as many memories as there can be; one of them more is refused, ours is not in the way.
#[test]
fn as_many_memories_as_there_can_be() {
    for count in [0, 1, 50, 98, 99] {
        let more = "(memory 0)".repeat(count);
        for last in ["", "(memory $last i64 1)"] {
            if count == 99 && !last.is_empty() {
                continue;
            }
            let plugin = Setup::guest(&format!(r#"(memory (export "memory") 1) {more} {last} {WORK} {FINE}"#)).plugin();
            assert_eq!(plugin.notes("run", "12"), [2, b'w'.into()], "{count}");
            assert_eq!(plugin.output(), b"works");
            assert_fine(&plugin);
        }
    }
    let error = Setup::new(guest(&"(memory 0)".repeat(101))).refusal();
    assert!(error.contains("memories") || error.contains("memory"), "{error}");
}

/// Memories of 64 bits, with and without a maximum, small and large, exported under usual names.
#[test]
fn memories_of_64_bits() {
    for memory in [
        r#"(memory (export "memory") i64 1)"#,
        r#"(memory (export "memory") i64 1 65536)"#,
        r#"(memory (export "memory") i64 0 0xffffffffffff)"#,
        r#"(memory (export "extism") i64 0) (memory (export "memory") i64 2 2)"#,
    ] {
        let body = format!(
            r#"(memory $texts 1) {memory} {FINE} {WORK}
               (func (export "grow") (call $note (memory.grow 1 (i64.const -1)))
                 (call $note (memory.grow 1 (i64.const 0x1000000000000)))
                 (call $note (memory.grow 1 (i64.const 65537))))"#
        );
        let plugin = Setup::guest(&body).with("memory", json!({"max_pages": 100})).plugin();
        assert_eq!(plugin.notes("run", "12"), [2, b'w'.into()], "{memory}");
        assert_eq!(plugin.notes("grow", ""), [-1, -1, -1], "{memory}");
        assert_fine(&plugin);
    }
    for too_large in ["i64 65537", "i64 0x1000000000000", "i64 0xffffffffffff 0x1000000000000"] {
        let error = Setup::new(format!("(module (memory {too_large}))")).refusal();
        assert!(error.contains("memory"), "{error}");
    }
}
