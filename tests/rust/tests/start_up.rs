//! What runs before the first call, `_start`, and how programs exit.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use extism_tests::{HostFunction, Plugin, Setup, Type, guest};

const COUNTER: &str = r#"(global $n (mut i32) (i32.const 0))
    (func (export "next") (result i32)
      (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n))"#;

/// Imports `attempt`, which tells how often it was called in this test, and as a function what the host offers for it.
const ATTEMPT: &str = r#"(import "extism:host/user" "attempt" (func $attempt (result i32)))"#;

fn attempts() -> (HostFunction, Arc<AtomicU32>) {
    let count = Arc::new(AtomicU32::new(0));
    let shared = Arc::clone(&count);
    let function = HostFunction::new("attempt", &[], &[Type::I32], move |_, _, outputs| {
        outputs[0].bits = u64::from(shared.fetch_add(1, Ordering::SeqCst) + 1);
    });
    (function, count)
}

#[test]
fn creation_runs_no_guest_code() {
    let (function, count) = attempts();
    let body = format!(
        r#"{ATTEMPT} {COUNTER} (func $go (drop (call $attempt))) (start $go)
           (func (export "_initialize") (drop (call $attempt)))"#
    );
    let plugin = Setup::guest(&body).function(function).plugin();
    assert!(plugin.has("next"));
    assert_eq!(count.load(Ordering::SeqCst), 0);
    assert_eq!(plugin.code("next"), 1);
    assert_eq!(count.load(Ordering::SeqCst), 2);
    assert_eq!(plugin.code("next"), 2);
    assert_eq!(count.load(Ordering::SeqCst), 2);
}

#[test]
fn a_failing_start_function_fails_the_call_and_the_next_call_starts_anew() {
    let (function, count) = attempts();
    let body = format!(
        r#"{ATTEMPT} {COUNTER}
           (func $go (if (i32.lt_u (call $attempt) (i32.const 3)) (then unreachable))) (start $go)"#
    );
    let plugin = Setup::guest(&body).function(function).plugin();
    for _ in 0..2 {
        let (code, error) = plugin.run("next").failure();
        assert_eq!(code, 134);
        assert!(error.contains("unreachable") && error.contains("go"), "{error}");
    }
    assert_eq!(plugin.code("next"), 1);
    assert_eq!(plugin.code("next"), 2);
    assert_eq!(count.load(Ordering::SeqCst), 3);
}

#[test]
fn start_up_follows_the_rules_of_calls() {
    let (function, _) = attempts();
    let body = format!(
        r#"{ATTEMPT} {COUNTER}
           (func (export "_initialize") (local $n i32)
             (local.set $n (call $attempt))
             (if (i32.eq (local.get $n) (i32.const 1)) (then
               (call $error_set (text 'what the plug-in says')) unreachable))
             (if (i32.eq (local.get $n) (i32.const 2)) (then (drop (call $alloc (i64.const -1)))))
             (if (i32.eq (local.get $n) (i32.const 3)) (then (call $proc_exit (i32.const 300))))
             (if (i32.eq (local.get $n) (i32.const 4)) (then
               (call $output_set (i64.const -1) (i64.const 1))))
             (call $error_set (text 'forgotten')) (call $output (text 'forgotten')))"#
    );
    let plugin = Setup::guest(&body).wasi().function(function).plugin();
    assert_eq!(plugin.run("next").failure(), (-1, "what the plug-in says".to_owned()));
    assert_eq!(plugin.run("next").failure(), (-1, "oom".to_owned()));
    assert_eq!(plugin.run("next").code, 300);
    let (code, error) = plugin.run("next").failure();
    assert_eq!(code, -1);
    assert!(error.contains("output_set"), "{error}");
    assert_eq!(plugin.run("next").success(), (1, vec![]), "error and output of the start-up are not the call's");
}

#[test]
fn start_up_sees_no_input_and_leaves_no_blocks() {
    let plugin = Plugin::new(
        r#"(global $block (mut i64) (i64.const 0))
           (func (export "_initialize")
             (call $note (call $input_length))
             (global.set $block (text 'of the start-up')))
           (func (export "run") (call $note (call $length (global.get $block))) (call $note (call $input_length)))"#,
    );
    // The first block of the call is its input.
    let notes = plugin.notes("run", [1; 3]);
    assert_eq!((notes[0], notes[2]), (0, 3));
    assert_ne!(notes[1], 15);
}

#[test]
fn start_up_has_fuel_of_its_own() {
    let spend = "(loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))";
    let body = format!(
        r#"(func $spend (param $i i32) {spend})
           (func (export "_initialize") (call $spend (i32.const 1000)))
           (func (export "run") (call $spend (i32.const 1000)))"#
    );
    // Enough for either of them, not for both.
    let plugin = Setup::guest(&body).fuel(8000).plugin();
    for _ in 0..3 {
        assert_eq!(plugin.code("run"), 0);
    }
    let poor = Setup::guest(&body).fuel(500).plugin();
    for _ in 0..3 {
        assert_eq!(poor.run("run").failure(), (-1, "plugin ran out of fuel".to_owned()));
    }
}

#[test]
fn a_command_gets_no_initialisers_and_leaves_no_instance() {
    let plugin = Plugin::new(&format!(
        r#"{COUNTER}
           (func (export "_initialize") (global.set $n (i32.const 10)))
           (func (export "_start") (call $note_i32 (global.get $n)) (global.set $n (i32.const 50)))"#
    ));
    assert_eq!(plugin.notes("_start", ""), [0]);
    assert_eq!(plugin.code("next"), 11, "another export starts up as usual");
    assert_eq!(plugin.code("next"), 12);
    assert_eq!(plugin.notes("_start", ""), [0]);
}

#[test]
fn a_command_leaves_no_memory() {
    let plugin = Setup::guest(
        r#"(memory (export "memory") 1)
           (func (export "_start") (result i32)
             (drop (call $alloc (i64.const 300000)))
             (memory.grow (i32.const 5)))"#,
    )
    .with("memory", extism_tests::json!({"max_pages": 11}))
    .plugin();
    for _ in 0..50 {
        assert_eq!(plugin.code("_start"), 1);
    }
}

#[test]
fn commands_get_their_input_and_give_output() {
    let plugin =
        Plugin::new(r#"(func (export "_start") (call $output_set (call $input_offset) (call $input_length)))"#);
    for input in ["one", "", "three"] {
        assert_eq!(plugin.output_of("_start", input), input.as_bytes());
    }
}

#[test]
fn exit_codes_of_any_size() {
    for (code, text) in [
        (1, "1"),
        (2, "2"),
        (125, "125"),
        (126, "126"),
        (134, "134"),
        (255, "255"),
        (256, "256"),
        (i32::MAX, "2147483647"),
    ] {
        let body = format!(r#"(func (export "_start") (call $proc_exit (i32.const {code})))"#);
        let ended = Setup::guest(&body).wasi().plugin().run("_start");
        assert_eq!(ended.code, code);
        let error = ended.error.expect("a program that exits so has failed");
        assert!(error.contains(text), "{code}: {error}");
    }
    for code in [-1, -5, i32::MIN] {
        let body = format!(r#"(func (export "_start") (call $proc_exit (i32.const {code})))"#);
        assert_eq!(Setup::guest(&body).wasi().plugin().run("_start").code, code);
    }
}

#[test]
fn an_exit_with_0_is_success_and_ends_the_program() {
    let plugin = Setup::guest(
        r#"(func $deep (call $output (text 'done')) (call $proc_exit (i32.const 0)) unreachable)
           (func (export "_start") (call $deep) unreachable)
           (func (export "reactor") (result i32) (call $deep) (i32.const 9))"#,
    )
    .wasi()
    .plugin();
    assert_eq!(plugin.run("_start").success(), (0, b"done".to_vec()));
    assert_eq!(plugin.run("reactor").success(), (0, b"done".to_vec()));
}

#[test]
fn an_exit_with_0_in_the_start_up_is_an_error() {
    for start_up in [
        "(func $s (call $proc_exit (i32.const 0))) (start $s)",
        r#"(func (export "_initialize") (call $proc_exit (i32.const 0)))"#,
        r#"(func (export "hs_init") (param i32 i32) (call $proc_exit (i32.const 0)))"#,
    ] {
        let plugin = Setup::guest(&format!(r#"{start_up} (func (export "f"))"#)).wasi().plugin();
        for _ in 0..2 {
            let (code, error) = plugin.run("f").failure();
            assert_eq!(code, -1);
            assert!(error.contains("exited (with code 0) in its start-up"), "{error}");
        }
    }
}

#[test]
fn exports_of_such_names_and_other_types_are_ordinary_ones() {
    let plugin = Plugin::new(&format!(
        r#"{COUNTER}
           (func (export "_initialize") (param i32) unreachable)
           (func (export "__wasm_call_ctors") (result i32) (i32.const 77))
           (func (export "hs_init") unreachable)"#
    ));
    assert_eq!(plugin.code("next"), 1);
    assert_eq!(plugin.code("__wasm_call_ctors"), 77);
    assert_eq!(plugin.run("hs_init").code, 134);
    let plugin = Plugin::new(&format!(
        r#"{COUNTER}
           (global (export "_initialize") i32 (i32.const 1))
           (global (export "__wasm_call_ctors") i32 (i32.const 1))
           (global (export "hs_init") i32 (i32.const 1))"#
    ));
    assert_eq!(plugin.code("next"), 1);
}

/// What `go` does, in any module at any time: blocks, input, variables, a host function that works on blocks.
const WORK: &str = r#"(import "extism:host/user" "shout" (func $shout (param i64) (result i64)))
    (func $go (local $block i64)
      (local.set $block (call $shout (text 'from the start')))
      (call $note (call $length (local.get $block)))
      (call $note_i32 (call $load_u8 (i64.add (local.get $block) (i64.const 14))))
      (call $note (call $input_length))
      (call $var_set (text 'k') (local.get $block))
      (call $note (i64.extend_i32_u (i64.ge_u (call $memory_bytes) (i64.const 65536)))))
    (start $go)"#;

fn shout() -> HostFunction {
    HostFunction::new("shout", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        let text = current.bytes(inputs[0].bits);
        outputs[0].bits = current.place(&[&text[..], b"!"].concat());
    })
}

const NOTES: [i64; 4] = [15, b'!' as i64, 0, 1];

#[test]
fn start_functions_may_use_everything() {
    let var = r#"(func (export "run") (call $output (call $var_get (text 'k'))))"#;
    let plugin = Setup::guest(&format!("{WORK} {var}")).function(shout()).plugin();
    assert_eq!(plugin.notes("run", ""), NOTES);
    assert_eq!(plugin.output(), b"from the start!");
    assert!(plugin.notes("run", "").is_empty());

    let lib = guest(&format!(r#"{WORK} (func (export "f"))"#));
    let main = guest(&format!(r#"(import "lib" "f" (func)) {var}"#));
    let plugin = Setup::linked(&[("lib", &lib), ("main", &main)]).function(shout()).plugin();
    assert_eq!(plugin.notes("run", ""), NOTES);
    assert_eq!(plugin.output(), b"from the start!");
}

#[test]
fn start_functions_of_linked_commands_run_for_each_call() {
    let lib = guest(&format!(r#"{WORK} (func (export "_start")) (func (export "f"))"#));
    let main = guest(
        r#"(import "lib" "f" (func $f))
           (func (export "run") (call $f) (call $f) (call $output (call $var_get (text 'k'))))"#,
    );
    let plugin = Setup::linked(&[("lib", &lib), ("main", &main)]).function(shout()).plugin();
    assert_eq!(plugin.notes("run", ""), [NOTES, NOTES].concat());
    assert_eq!(plugin.output(), b"from the start!");
}

#[test]
fn start_functions_run_for_each_command() {
    let plugin = Setup::guest(&format!(r#"{WORK} (func (export "_start") (call $note (i64.const 7)))"#));
    let plugin = plugin.function(shout()).plugin();
    for _ in 0..2 {
        assert_eq!(plugin.notes("_start", ""), [&NOTES[..], &[7]].concat());
    }
}
