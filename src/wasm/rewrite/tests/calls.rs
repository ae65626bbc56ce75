//! Calls of guest functions that become instructions.

use super::*;

/// Every function that can be replaced, with the others for comparison.
const IMPORTS: &str = r#"
    (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
    (import "extism:host/env" "load_u8" (func $load_u8 (param i64) (result i32)))
    (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
    (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
    (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
    (import "extism:host/env" "input_offset" (func $input_offset (result i64)))
    (import "extism:host/env" "input_length" (func $input_length (result i64)))
    (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
    (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))"#;

fn with_imports(rest: &str) -> Vec<u8> {
    wasm(&format!("(module {IMPORTS} {rest})"))
}

/// The operators of all functions, as text.
fn operators(wasm: &[u8]) -> Vec<Vec<String>> {
    let mut bodies = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::CodeSectionEntry(body) = payload.expect("payload") {
            let operators = body.get_operators_reader().expect("operators");
            bodies.push(operators.into_iter().map(|operator| format!("{:?}", operator.expect("operator"))).collect());
        }
    }
    bodies
}

/// How many calls are left in the rewritten module, which is checked.
fn calls_left(original: &[u8]) -> usize {
    let prepared = prepare(original, FEATURES, Some(&none_taken)).expect("valid");
    check_appended(original, &prepared);
    let all: Vec<_> = operators(&prepared.bytes).concat();
    all.iter().filter(|operator| operator.contains("Call")).count()
}

#[test]
fn each_function_becomes_instructions() {
    for (call, expected) in [
        (
            "(drop (call $load_u8 (i64.const 1)))",
            "I32Load8U { memarg: MemArg { align: 0, max_align: 0, offset: 0, memory: 0 } }",
        ),
        (
            "(drop (call $load_u64 (i64.const 1)))",
            "I64Load { memarg: MemArg { align: 0, max_align: 3, offset: 0, memory: 0 } }",
        ),
        (
            "(call $store_u8 (i64.const 1) (i32.const 2))",
            "I32Store8 { memarg: MemArg { align: 0, max_align: 0, offset: 0, memory: 0 } }",
        ),
        (
            "(call $store_u64 (i64.const 1) (i64.const 2))",
            "I64Store { memarg: MemArg { align: 0, max_align: 3, offset: 0, memory: 0 } }",
        ),
        ("(drop (call $input_offset))", "GlobalGet { global_index: 0 }"),
        ("(drop (call $input_length))", "GlobalGet { global_index: 1 }"),
        (
            "(drop (call $input_load_u8 (i64.const 1)))",
            "I32Load8U { memarg: MemArg { align: 0, max_align: 0, offset: 0, memory: 0 } }",
        ),
        (
            "(drop (call $input_load_u64 (i64.const 1)))",
            "I64Load { memarg: MemArg { align: 0, max_align: 3, offset: 0, memory: 0 } }",
        ),
    ] {
        let original = with_imports(&format!("(func {call})"));
        assert_eq!(calls_left(&original), 0, "{call}");
        let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
        assert!(
            operators(&prepared.bytes).concat().contains(&expected.to_owned()),
            "{call}: {:?}",
            operators(&prepared.bytes)
        );
        assert_eq!(prepared.reads_input, call.contains("input"), "{call}");
    }
}

#[test]
fn memories_and_globals_of_the_module_stay_where_they_are() {
    let original = with_imports(
        r#"(memory 1) (memory i64 1) (global i32 (i32.const 1)) (global (mut i64) (i64.const 2))
           (func (drop (i64.load (call $input_offset))) (drop (i32.load (i32.const 4)))
                 (drop (call $load_u64 (i64.const 8))) (global.set 1 (global.get 1)))"#,
    );
    // `i64.load` of memory 0 takes an i32: this one is of memory 1.
    let original = {
        let _ = original;
        with_imports(
            r#"(memory 1) (memory $big i64 1) (global i32 (i32.const 1)) (global (mut i64) (i64.const 2))
               (func (drop (i64.load $big (call $input_offset))) (drop (i32.load (i32.const 4)))
                     (drop (call $load_u64 (i64.const 8))) (global.set 1 (global.get 1)))"#,
        )
    };
    assert_eq!(calls_left(&original), 0);
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
    let operators = operators(&prepared.bytes).concat();
    let loads: Vec<_> = operators.iter().filter(|operator| operator.contains("Load")).collect();
    assert_eq!(loads.len(), 3);
    for (load, memory) in loads.iter().zip(["memory: 1", "memory: 0", "memory: 2"]) {
        assert!(load.contains(memory), "{load}");
    }
    assert!(operators.contains(&"GlobalGet { global_index: 2 }".to_owned()));
    assert!(operators.contains(&"GlobalGet { global_index: 1 }".to_owned()));
}

#[test]
fn tail_calls_return() {
    let original = with_imports(
        "(func (param i64) (result i64) (return_call $load_u64 (local.get 0)))
         (func (param i64) (result i32) (return_call $input_load_u8 (local.get 0)))
         (func (return_call $store_u64 (i64.const 0) (i64.const 1)))",
    );
    assert_eq!(calls_left(&original), 0);
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
    for body in operators(&prepared.bytes) {
        assert_eq!(body[body.len() - 2], "Return");
    }
}

#[test]
fn unreachable_code_and_blocks_stay_valid() {
    for body in [
        "unreachable (call $load_u64) (call $store_u64) (call $input_load_u8) drop",
        "(block (br 0) (drop (call $input_load_u64)))",
        "(loop (drop (call $input_load_u64 (i64.const 0))) (br_if 0 (i32.const 0)))",
        "(drop (block (result i32) (call $input_load_u8 (call $input_length))))",
        "(if (call $load_u8 (i64.const 0)) (then (call $store_u8 (i64.const 0) (i32.const 0))) (else (drop (call $input_offset))))",
        "(drop (call $input_load_u64 (call $input_load_u64 (call $load_u64 (call $input_offset)))))",
    ] {
        assert_eq!(calls_left(&with_imports(&format!("(func {body})"))), 0, "{body}");
    }
}

#[test]
fn locals_of_a_function_keep_their_numbers() {
    let original = with_imports(
        "(func (param i32 i64) (result i64) (local f64 f64 i32)
           (local.set 4 (i32.const 7)) (i64.add (call $input_load_u64 (local.get 1)) (i64.extend_i32_u (local.get 4))))",
    );
    assert_eq!(calls_left(&original), 0);
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
    let operators = operators(&prepared.bytes).concat();
    assert!(operators.contains(&"LocalTee { local_index: 5 }".to_owned()), "{operators:?}");
}

#[test]
fn without_room_for_a_local_the_call_stays() {
    let function = |locals: u32| {
        format!(
            "(func (param i64) {} (drop (call $input_load_u8 (i64.const 0))) (drop (call $load_u8 (i64.const 0))))",
            "(local i32)".repeat(locals as usize)
        )
    };
    assert_eq!(calls_left(&with_imports(&function(49_998))), 0);
    assert_eq!(calls_left(&with_imports(&function(49_999))), 1);
}

#[test]
fn what_is_not_a_direct_call_stays() {
    let original = with_imports(
        r#"(table 2 funcref) (elem (i32.const 0) $load_u64) (elem declare func $store_u8) (export "l" (func $input_length))
           (type $t (func (param i64) (result i64)))
           (func (drop (call_indirect (type $t) (i64.const 0) (i32.const 0))) (drop (ref.func $store_u8)))"#,
    );
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
    check_appended(&original, &prepared);
    assert_eq!(operators(&original), operators(&prepared.bytes));
    assert!(!prepared.reads_input);
}

#[test]
fn functions_that_the_user_has_taken_stay() {
    let original = with_imports("(func (drop (call $load_u64 (i64.const 0))) (drop (call $input_length)))");
    let prepared = prepare(&original, FEATURES, Some(&|name| name == "load_u64")).expect("valid");
    let left: Vec<_> =
        operators(&prepared.bytes).concat().into_iter().filter(|operator| operator.starts_with("Call")).collect();
    assert_eq!(left, ["Call { function_index: 2 }"]);
}

#[test]
fn other_modules_names_and_types_stay() {
    for import in [
        r#"(import "extism:host/user" "load_u64" (func $f (param i64) (result i64)))"#,
        r#"(import "extism:host/env" "load_u64" (func $f (param i64) (result i32)))"#,
        r#"(import "extism:host/env" "load_u6" (func $f (param i64) (result i64)))"#,
        r#"(import "extism:host/env" "length" (func $f (param i64) (result i64)))"#,
    ] {
        let original = wasm(&format!("(module {import} (func (drop (call $f (i64.const 0)))))"));
        assert_eq!(calls_left(&original), 1, "{import}");
    }
    // The same function imported twice, and behind imports of other kinds.
    let original = wasm(
        r#"(module (import "a" "m" (memory 1)) (import "extism:host/env" "load_u64" (func $f (param i64) (result i64)))
           (import "a" "g" (global i32)) (import "extism:host/env" "load_u64" (func $g (param i64) (result i64)))
           (func (drop (call $f (call $g (i64.const 0))))))"#,
    );
    assert_eq!(calls_left(&original), 0);
}

#[test]
fn what_tells_of_places_in_changed_code_is_left_out() {
    let custom = r#"(@custom ".debug_info" "x") (@custom "metadata.code.branch_hint" "\00") (@custom "linking" "\02")
                    (@custom "name" "\00\02\01m") (@custom "mine" "y")"#;
    let names = |body: &str| {
        let original = with_imports(&format!("{custom} (func {body})"));
        let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
        let mut names = Vec::new();
        for payload in Parser::new(0).parse_all(&prepared.bytes) {
            if let Payload::CustomSection(custom) = payload.expect("payload") {
                names.push(custom.name().to_owned());
            }
        }
        names
    };
    assert_eq!(names("").len(), 5);
    assert_eq!(names("(drop (call $input_length))"), ["name", "mine"]);
}

#[test]
fn places_are_those_of_the_module_as_it_came() {
    let original = with_imports(
        r#"(memory 1) (func unreachable) (func (drop (call $input_load_u64 (i64.const 1))) unreachable)
           (func (drop (i32.load (i32.const 1))) (call $store_u8 (i64.const 2) (i32.const 3)) unreachable)
           (func (nop) unreachable)"#,
    );
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
    let kinds = ["Unreachable", "I32Load ", "Nop", "I64Const", "I32Const"];
    let places = |wasm: &[u8]| {
        let mut found = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            if let Payload::CodeSectionEntry(body) = payload.expect("payload") {
                for operator in body.get_operators_reader().expect("operators").into_iter_with_offsets() {
                    let (operator, offset) = operator.expect("operator");
                    let text = format!("{operator:?}");
                    if kinds.iter().any(|kind| text.starts_with(kind)) && !text.contains("value: 0") {
                        found.push((text, offset));
                    }
                }
            }
        }
        found
    };
    let (before, after) = (places(&original), places(&prepared.bytes));
    assert_eq!(before.len(), 10);
    for ((text, then), (same, now)) in before.iter().zip(&after) {
        assert_eq!((text, *then), (same, prepared.places.original_offset(*now)));
    }
    // Inside of what replaced a call stands that call.
    let call = before[1].1 + 2;
    let inside = after[1].1 + 4;
    assert!((call..call + 2).contains(&prepared.places.original_offset(inside)));
}

/// The first byte of a function, which is where a stack overflow is told to be. The second grows past 127 bytes, so
/// that its size is written in one byte more than it was.
#[test]
fn functions_begin_where_they_began() {
    let load = "(drop (call $input_load_u64 (i64.const 1)))";
    let original = with_imports(&format!("(func {load}) (func (local i32) {})", load.repeat(8)));
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
    let bodies = |wasm: &[u8]| -> Vec<_> {
        let payloads = Parser::new(0).parse_all(wasm).map(|payload| payload.expect("payload"));
        let body = |payload| if let Payload::CodeSectionEntry(body) = payload { Some(body.range()) } else { None };
        payloads.filter_map(body).collect()
    };
    let (before, after) = (bodies(&original), bodies(&prepared.bytes));
    assert!(before[1].len() < 128 && after[1].len() >= 128);
    for (then, now) in before.iter().zip(&after) {
        assert_eq!(prepared.places.original_offset(now.start), then.start);
    }
}

#[test]
fn unchanged_code_has_its_places_too() {
    for text in [
        r#"(module (func (export "f") unreachable))"#,
        r#"(module (memory 1) (global i32 (i32.const 7)) (func (export "f") (drop (i32.load (i32.const 0)))))"#,
    ] {
        let original = wasm(text);
        let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect(text);
        let (then, now) = (code_offset(&original), code_offset(&prepared.bytes));
        assert!(then > 0 && now > then);
        assert_eq!(prepared.places.original_offset(now + 5), then + 5);
    }
    assert_eq!(prepare(&wasm("(module)"), FEATURES, None).expect("module").places.original_offset(7), 7);
}
