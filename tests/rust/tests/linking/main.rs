//! Several modules that work as one plug-in.

mod commands;
mod imports;

use extism_tests::{HostFunction, Plugin, Setup, Type, guest};

const COUNTER: &str = r#"(module
    (global $n (mut i32) (i32.const 0))
    (func (export "next") (result i32)
      (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"#;

/// The same as a command.
const COMMAND: &str = r#"(module
    (global $n (mut i32) (i32.const 0))
    (func (export "_start"))
    (func (export "next") (result i32)
      (global.set $n (i32.add (global.get $n) (i32.const 1))) (global.get $n)))"#;

const MAIN: &str = r#"(module
    (import "counter" "next" (func $next (result i32)))
    (func (export "once") (result i32) (call $next))
    (func (export "twice") (result i32) (i32.add (call $next) (call $next))))"#;

fn linked(modules: &[(&str, &str)]) -> Plugin {
    Setup::linked(modules).plugin()
}

#[test]
fn a_reactor_keeps_its_state() {
    let plugin = linked(&[("counter", COUNTER), ("main", MAIN)]);
    assert_eq!(plugin.code("once"), 1);
    assert_eq!(plugin.code("twice"), 2 + 3);
    assert_eq!(plugin.code("once"), 4);
    let compiled = Setup::linked(&[("counter", COUNTER), ("main", MAIN)]).compile();
    let (one, two) = (compiled.plugin(), compiled.plugin());
    assert_eq!((one.code("once"), one.code("once"), two.code("once")), (1, 2, 1));
}

#[test]
fn initialisers_of_reactors_run_first_and_once() {
    let part = |name: &str| {
        guest(&format!(r#"(func (export "_initialize") (call $note (i64.const {name}))) (func (export "f{name}"))"#))
    };
    let main = guest(
        r#"(import "a" "f1" (func)) (import "b" "f2" (func))
           (func (export "_initialize") (call $note (i64.const 3)))
           (func (export "run") (call $note (i64.const 4)))"#,
    );
    let plugin = linked(&[("a", &part("1")), ("b", &part("2")), ("main", &main)]);
    let notes = plugin.notes("run", "");
    assert!(notes == [1, 2, 3, 4] || notes == [2, 1, 3, 4], "{notes:?}");
    assert_eq!(plugin.notes("run", ""), [4]);
}

#[test]
fn a_reactor_that_fails_to_start_is_tried_again() {
    let (count, start) = (std::sync::atomic::AtomicU64::new(0), std::sync::atomic::Ordering::SeqCst);
    let attempt = HostFunction::new("attempt", &[], &[Type::I32], move |_, _, outputs| {
        outputs[0].bits = count.fetch_add(1, start);
    });
    let lib = guest(
        r#"(import "extism:host/user" "attempt" (func $attempt (result i32)))
           (func (export "_initialize") (if (i32.eqz (call $attempt)) (then unreachable)))
           (func (export "next") (result i32) (i32.const 7))"#,
    );
    let plugin = Setup::linked(&[("counter", &lib), ("main", MAIN)]).function(attempt).plugin();
    assert_eq!(plugin.run("once").failure().0, 134);
    assert_eq!(plugin.code("once"), 7);
}

#[test]
fn modules_form_chains() {
    let a = r#"(module (func (export "one") (result i32) (i32.const 1)))"#;
    let b = r#"(module (import "a" "one" (func $one (result i32)))
        (func (export "two") (result i32) (i32.add (call $one) (call $one))))"#;
    let c = r#"(module (import "a" "one" (func $one (result i32))) (import "b" "two" (func $two (result i32)))
        (func (export "_start"))
        (func (export "three") (result i32) (i32.add (call $one) (call $two))))"#;
    let main = r#"(module (import "c" "three" (func $three (result i32))) (import "b" "two" (func $two (result i32)))
        (func (export "run") (result i32) (i32.mul (call $three) (call $two))))"#;
    let modules = [("main", main), ("c", c), ("b", b), ("a", a)];
    assert_eq!(linked(&modules).code("run"), 6);
    let reversed: Vec<_> = modules.iter().copied().rev().collect();
    assert_eq!(linked(&reversed).code("run"), 6);
}

#[test]
fn all_modules_share_extism_memory_and_input() {
    let lib = |extra: &str| {
        guest(&format!(
            r#"{extra}
               (func (export "first") (result i64) (i64.extend_i32_u (call $input_load_u8 (i64.const 0))))
               (func (export "make") (result i64) (call $output (text 'from the library')) (text 'block'))
               (func (export "size") (param i64) (result i64) (call $length (local.get 0)))
               (func (export "vars") (call $var_set (text 'k') (text 'value')))"#
        ))
    };
    let main = guest(
        r#"(import "lib" "first" (func $first (result i64)))
           (import "lib" "make" (func $make (result i64)))
           (import "lib" "size" (func $size (param i64) (result i64)))
           (import "lib" "vars" (func $vars))
           (func (export "run") (local $block i64)
             (call $note (call $first))
             (local.set $block (call $make))
             (call $note (call $length (local.get $block)))
             (call $note (call $size (text 'of main')))
             (call $note (call $output_length))
             (call $vars)
             (call $note (call $length (call $var_get (text 'k')))))"#,
    );
    for lib in [lib(""), lib(r#"(func (export "_start"))"#)] {
        let plugin = linked(&[("lib", &lib), ("main", &main)]);
        for _ in 0..2 {
            assert_eq!(plugin.notes("run", [65; 3]), [65, 5, 7, 16, 5]);
            assert_eq!(plugin.output(), b"from the library");
        }
    }
}

#[test]
fn exports_of_linked_modules_are_not_the_plugins() {
    let plugin = linked(&[("counter", COUNTER), ("main", MAIN)]);
    assert!(plugin.has("once") && !plugin.has("next"));
    assert_eq!(plugin.run("next").failure(), (-1, "Function not found: next".to_owned()));
}

#[test]
fn a_trap_in_a_linked_module_ends_the_call() {
    for start in ["", r#"(func (export "_start"))"#] {
        let lib = format!(
            r#"(module {start} (func $deep unreachable) (func $next (export "next") (result i32) (call $deep) (i32.const 0)))"#
        );
        let plugin = linked(&[("counter", &lib), ("main", MAIN)]);
        let (code, error) = plugin.run("once").failure();
        assert_eq!(code, 134, "{error}");
        assert!(error.contains("unreachable") && error.contains("deep"), "{error}");
        assert_eq!(plugin.run("once").code, 134, "again");
    }
}
