//! What WebAssembly may be used: accepted and refused.

use extism_tests::{Setup, guest};

/// `run` of this body gives 42.
#[track_caller]
fn accepted(body: &str) {
    assert_eq!(Setup::guest(body).plugin().code("run"), 42);
}

#[track_caller]
fn refused(module: impl Into<Vec<u8>>) -> String {
    Setup::new(module).refusal()
}

#[test]
fn multi_value_sign_extension_and_saturating_conversion() {
    accepted(
        r#"(func $two (result i32 i32) (i32.const 40) (i32.const 2))
           (func (export "run") (result i32)
             (drop (i32.extend8_s (i32.const 200))) (drop (i32.trunc_sat_f64_s (f64.const nan)))
             (call $two) (i32.add))"#,
    );
}

#[test]
fn bulk_memory_and_reference_types() {
    accepted(
        r#"(memory 1) (data $d "\2a") (table $t 2 externref) (elem $e func $f) (table $f 1 funcref)
           (func $f)
           (func (export "run") (result i32)
             (memory.init $d (i32.const 5) (i32.const 0) (i32.const 1))
             (memory.copy (i32.const 6) (i32.const 5) (i32.const 1))
             (table.init $f $e (i32.const 0) (i32.const 0) (i32.const 1))
             (table.set $t (i32.const 0) (ref.null extern))
             (i32.load8_u (i32.const 6)))"#,
    );
}

#[test]
fn simd_and_relaxed_simd() {
    accepted(
        r#"(func (export "run") (result i32)
             (drop (f32x4.relaxed_madd (v128.const f32x4 1 1 1 1) (v128.const f32x4 1 1 1 1) (v128.const f32x4 1 1 1 1)))
             (i32x4.extract_lane 1 (i32x4.add (v128.const i32x4 1 40 1 1) (v128.const i32x4 0 2 0 0))))"#,
    );
}

#[test]
fn tail_calls() {
    accepted(
        r#"(func $count (param $n i32) (param $sum i32) (result i32)
             (if (i32.eqz (local.get $n)) (then (return (local.get $sum))))
             (return_call $count (i32.sub (local.get $n) (i32.const 1)) (i32.add (local.get $sum) (i32.const 1))))
           (func (export "run") (result i32)
             (i32.sub (call $count (i32.const 1000042) (i32.const 0)) (i32.const 1000000)))"#,
    );
}

#[test]
fn exceptions() {
    accepted(
        r#"(tag $e (param i32))
           (func $throws (throw $e (i32.const 42)))
           (func (export "run") (result i32)
             (block $caught (result i32)
               (try_table (catch $e $caught) (call $throws))
               (i32.const 0)))"#,
    );
    let plugin = Setup::guest(r#"(tag $e) (func (export "run") (throw $e))"#).plugin();
    let (code, error) = plugin.run("run").failure();
    assert_eq!(code, -1, "one that nobody catches is no trap, as in libextism 1.41");
    assert!(error.contains("exception"), "{error}");
}

#[test]
fn exceptions_do_not_catch_the_ends_of_calls() {
    let body = r#"(func $try (block $caught (try_table (catch_all $caught) (call $act))))
        (func (export "run") (result i32) (call $try) (i32.const 42))"#;
    let plugin = Setup::guest(&format!("{body} (func $act (drop (call $alloc (i64.const -1))))")).plugin();
    assert_eq!(plugin.run("run").failure(), (-1, "oom".to_owned()));
    let plugin = Setup::guest(&format!("{body} (func $act (call $proc_exit (i32.const 7)))")).wasi().plugin();
    assert_eq!(plugin.run("run").code, 7);
    let plugin = Setup::guest(&format!("{body} (func $act unreachable)")).plugin();
    assert_eq!(plugin.run("run").code, 134);
}

#[test]
fn function_references_and_gc() {
    accepted(
        r#"(type $f (func (param i32) (result i32)))
           (type $pair (struct (field i32) (field (mut i32)))) (type $bytes (array (mut i8)))
           (elem declare func $double)
           (func $double (type $f) (i32.mul (local.get 0) (i32.const 2)))
           (func (export "run") (result i32) (local $p (ref $pair)) (local $a (ref $bytes))
             (local.set $p (struct.new $pair (i32.const 20) (i32.const 1)))
             (local.set $a (array.new $bytes (i32.const 0) (i32.const 8)))
             (call_ref $f (i32.add (struct.get $pair 0 (local.get $p)) (struct.get $pair 1 (local.get $p)))
               (ref.func $double)))"#,
    );
}

#[test]
fn memory64_table64_and_multi_memory() {
    accepted(
        r#"(memory $a i64 1) (memory $b 1) (table i64 3 funcref)
           (func (export "run") (result i32)
             (i32.store $a (i64.const 0) (i32.const 39))
             (memory.copy $b $a (i32.const 4) (i64.const 0) (i32.const 4))
             (i32.add (i32.load $b (i32.const 4)) (i32.wrap_i64 (table.size))))"#,
    );
}

#[test]
fn wide_arithmetic_and_extended_constants() {
    accepted(
        r#"(global $g i32 (i32.add (i32.const 40) (i32.const 1)))
           (func (export "run") (result i32) (local $high i64)
             (i64.add128 (i64.const -1) (i64.const 0) (i64.const 1) (i64.const 0))
             (local.set $high) (drop)
             (i32.add (global.get $g) (i32.wrap_i64 (local.get $high))))"#,
    );
}

#[test]
fn atomics_on_unshared_memory() {
    accepted(
        r#"(memory 1)
           (func (export "run") (result i32)
             (drop (i32.atomic.rmw.add (i32.const 8) (i32.const 42)))
             (atomic.fence)
             (i32.atomic.load (i32.const 8)))"#,
    );
}

#[test]
fn shared_memory_is_refused() {
    let error = refused("(module (memory 1 2 shared))");
    assert!(error.contains("shared"), "{error}");
    let error = refused(r#"(module (import "extism:host/user" "memory" (memory 1 2 shared)))"#);
    assert!(error.contains("shared") || error.contains("memory"), "{error}");
}

#[test]
fn custom_page_sizes_are_refused() {
    let error = refused("(module (memory 1 (pagesize 1)))");
    assert!(error.contains("page size"), "{error}");
}

#[test]
fn legacy_exceptions_are_refused() {
    let error = refused("(module (tag $e) (func try nop catch $e end))");
    assert!(error.contains("exceptions"), "{error}");
}

#[test]
fn components_are_refused() {
    for component in [&b"(component)"[..], b"\0asm\x0d\0\x01\0"] {
        let error = refused(component);
        assert!(error.contains("component"), "{error}");
    }
}

#[test]
fn imports_of_anything_but_functions_from_the_library_are_refused() {
    for import in [
        r#""memory" (memory 1)"#,
        r#""memory" (memory i64 1)"#,
        r#""t" (table 1 funcref)"#,
        r#""g" (global i32)"#,
        r#""alloc" (global i32)"#,
    ] {
        let error = refused(format!(r#"(module (import "extism:host/env" {import}))"#));
        assert!(error.contains("extism:host/env"), "{import}: {error}");
    }
}

/// The rewritten module has a memory and globals more than the one that came: they are nobody's.
#[test]
fn indices_behind_the_last_one_stay_invalid() {
    for body in [
        "(func (export \"run\") (drop (memory.size 1)))",
        "(func (export \"run\") (drop (i64.load 1 (i64.const 0))))",
        "(func (export \"run\") (drop (global.get 0)))",
        "(func (export \"run\") (global.set 1 (i64.const 5)))",
        "(export \"m\" (memory 1))",
        "(export \"g\" (global 0))",
    ] {
        refused(guest(&format!("(memory 1) {body}")));
    }
}

#[test]
fn a_module_may_export_names_of_the_library() {
    let plugin = Setup::guest(
        r#"(memory (export "extism:memory") 1) (global (export "extism:input_offset") i64 (i64.const 3))
           (func (export "run") (result i32) (i32.wrap_i64 (call $input_length)))"#,
    )
    .plugin();
    assert_eq!(plugin.call("run", "12345").success().0, 5);
}

/// No memory can be appended to it, so it runs as it came.
#[test]
fn a_module_with_as_many_memories_as_there_can_be_runs_too() {
    let work = r#"(func (export "run") (local $block i64)
        (local.set $block (text 'works'))
        (call $note (call $input_length)) (call $note_i32 (call $load_u8 (local.get $block)))
        (call $output (local.get $block)))"#;
    let memories = format!("{} (memory (export \"memory\") 1) {work}", "(memory 0)".repeat(99));
    // The texts of `guest` lie in memory 0.
    let plugin = Setup::guest(&memories.replacen("(memory 0)", "(memory 1)", 1)).plugin();
    assert_eq!(plugin.notes("run", "12"), [2, b'w'.into()]);
    assert_eq!(plugin.output(), b"works");
}
