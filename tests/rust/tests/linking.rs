//! Several modules that work as one plug-in.

use extism_tests::{HostFunction, Plugin, Setup, Type, guest, json, resident_bytes, within};

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
fn a_command_is_instantiated_for_each_call() {
    let plugin = linked(&[("counter", COMMAND), ("main", MAIN)]);
    for _ in 0..3 {
        assert_eq!(plugin.code("once"), 1);
        assert_eq!(plugin.code("twice"), 2);
    }
}

/// libextism 1.41 fails after about 10,000 calls, and keeps the memory of each.
#[test]
fn a_command_may_be_called_without_end() {
    within(60, || {
        let command = r#"(module (memory 1) (func (export "_start"))
            (func (export "next") (result i32) (i32.store (i32.const 0) (i32.const 1)) (i32.load (i32.const 0))))"#;
        let main = r#"(module
            (import "counter" "next" (func $next (result i32)))
            (func (export "run") (result i32) (local $i i32) (local $sum i32)
              (loop $l
                (local.set $sum (i32.add (local.get $sum) (call $next)))
                (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 10000))))
              (local.get $sum)))"#;
        let plugin = linked(&[("counter", command), ("main", main)]);
        assert_eq!(plugin.code("run"), 10_000);
        let before = resident_bytes();
        for _ in 0..4 {
            assert_eq!(plugin.code("run"), 10_000);
        }
        let grown = resident_bytes().saturating_sub(before);
        assert!(grown < 32 << 20, "40,000 calls took {grown} bytes that they did not give back");
    });
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
fn commands_call_commands_and_reactors() {
    let inner = r#"(module (func (export "_start")) (global $n (mut i32) (i32.const 5))
        (func (export "five") (result i32)
          (global.set $n (i32.add (global.get $n) (i32.const 1))) (i32.sub (global.get $n) (i32.const 1))))"#;
    let outer = r#"(module (import "inner" "five" (func $five (result i32)))
        (import "counter" "next" (func $next (result i32)))
        (func (export "_start"))
        (func (export "sum") (result i32) (i32.add (i32.add (call $five) (call $five)) (call $next))))"#;
    let main = r#"(module (import "outer" "sum" (func $sum (result i32)))
        (func (export "run") (result i32) (i32.mul (call $sum) (i32.const 100))))"#;
    let plugin = linked(&[("inner", inner), ("counter", COUNTER), ("outer", outer), ("main", main)]);
    assert_eq!(plugin.code("run"), 1100, "the command anew, the reactor with its state");
    assert_eq!(plugin.code("run"), 1200);
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
fn a_command_offers_and_takes_functions_only() {
    let command = r#"(module (func (export "_start")) (memory (export "memory") 1))"#;
    let main = r#"(module (import "lib" "memory" (memory 1)))"#;
    let error = Setup::linked(&[("lib", command), ("main", main)]).refusal();
    assert!(error.contains("lib") && error.contains("memory"), "{error}");

    let reactor = r#"(module (memory (export "memory") 1))"#;
    let command = r#"(module (import "lib" "memory" (memory 1)) (func (export "_start")) (func (export "f")))"#;
    let main = r#"(module (import "command" "f" (func)))"#;
    let error = Setup::linked(&[("lib", reactor), ("command", command), ("main", main)]).refusal();
    assert!(error.contains("command") && error.contains("memory") && error.contains("only functions"), "{error}");
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
        r#""memory" (memory 2)"#,
        r#""memory" (memory 1 1)"#,
        r#""memory" (memory i64 1)"#,
        r#""global" (global i64)"#,
        r#""global" (global (mut i32))"#,
        r#""table" (table 5 funcref)"#,
        r#""table" (table 4 externref)"#,
        r#""function" (memory 1)"#,
        r#""memory" (func)"#,
    ] {
        let error = Setup::linked(&[("lib", lib), ("main", &format!(r#"(module (import "lib" {import}))"#))]).refusal();
        let name = import.split('"').nth(1).unwrap();
        assert!(error.contains("lib") && error.contains(name), "{import}: {error}");
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

#[test]
fn exports_of_linked_modules_are_not_the_plugins() {
    let plugin = linked(&[("counter", COUNTER), ("main", MAIN)]);
    assert!(plugin.has("once") && !plugin.has("next"));
    assert_eq!(plugin.run("next").failure(), (-1, "Function not found: next".to_owned()));
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

#[test]
fn errors_exits_and_limits_reach_through_commands() {
    let lib = guest(
        r#"(memory (export "memory") 1)
           (func (export "_start"))
           (func (export "fail") (call $error_set (text 'said by a command')) unreachable)
           (func (export "exit") (call $proc_exit (i32.const 77)))
           (func (export "oom") (drop (call $alloc (i64.const -1))))
           (func (export "grow") (result i32) (memory.grow (i32.const 3)))
           (func (export "outside") (call $output_set (i64.const -1) (i64.const 5)))"#,
    );
    let main = guest(
        r#"(import "lib" "fail" (func $fail)) (import "lib" "exit" (func $exit)) (import "lib" "oom" (func $oom))
           (import "lib" "grow" (func $grow (result i32))) (import "lib" "outside" (func $outside))
           (func (export "fail") (call $fail)) (func (export "exit") (call $exit)) (func (export "oom") (call $oom))
           (func (export "outside") (call $outside))
           (func (export "grow")
             (call $note_i32 (call $grow)) (call $note_i32 (call $grow)) (call $note_i32 (call $grow)))"#,
    );
    let modules = [("lib", lib.as_str()), ("main", main.as_str())];
    let plugin = Setup::linked(&modules).wasi().with("memory", json!({"max_pages": 5})).plugin();
    assert_eq!(plugin.run("fail").failure(), (-1, "said by a command".to_owned()));
    assert_eq!(plugin.run("exit").code, 77);
    assert_eq!(plugin.run("oom").failure(), (-1, "oom".to_owned()));
    assert_eq!(plugin.run("outside").code, -1);
    assert_eq!(plugin.notes("grow", ""), [1, 1, 1], "a command gives back what it took");
}

#[test]
fn fuel_counts_across_modules() {
    for start in ["", r#"(func (export "_start"))"#] {
        let lib = format!(
            r#"(module {start} (func (export "spend") (local $i i32) (local.set $i (i32.const 1000))
                 (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))))"#
        );
        let main = r#"(module (import "lib" "spend" (func $spend))
            (func (export "little") (call $spend))
            (func (export "much") (local $i i32) (local.set $i (i32.const 100))
              (loop $l (call $spend) (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))))"#;
        let plugin = Setup::linked(&[("lib", &lib), ("main", main)]).fuel(50_000).plugin();
        for _ in 0..3 {
            assert_eq!(plugin.code("little"), 0);
            assert_eq!(plugin.run("much").failure(), (-1, "plugin ran out of fuel".to_owned()));
        }
    }
}

#[test]
fn host_functions_called_by_commands_work_on_the_plugins_memory() {
    let echo = HostFunction::new("echo", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        let text = current.bytes(inputs[0].bits);
        outputs[0].bits = current.place(&[&text[..], b"!"].concat());
    });
    let lib = guest(
        r#"(import "extism:host/user" "echo" (func $echo (param i64) (result i64)))
           (func (export "_start"))
           (func (export "say") (call $output (call $echo (text 'hello'))))"#,
    );
    let main = r#"(module (import "lib" "say" (func $say)) (func (export "run") (call $say)))"#;
    let plugin = Setup::linked(&[("lib", &lib), ("main", main)]).function(echo).plugin();
    assert_eq!(plugin.output_of("run", ""), b"hello!");
}

/// main -> command -> reactor -> command, and a host function in each of them.
#[test]
fn calls_nest_through_commands() {
    let part = |imports: &str, next: &str, name: &str, start: &str| {
        guest(&format!(
            r#"{imports} (import "extism:host/user" "mark" (func $mark (param i64) (result i64))) {start}
               (func (export "go") (param $block i64) (result i64)
                 (local.set $block (call $mark (local.get $block)))
                 (call $note (call $length (local.get $block)))
                 (call $note_i32 (call $input_load_u8 (i64.const 0)))
                 (call $var_set (text '{name}') (text '{name}'))
                 (local.set $block {next})
                 (call $mark (local.get $block)))"#
        ))
    };
    let import = |from: &str| format!(r#"(import "{from}" "go" (func $go (param i64) (result i64)))"#);
    let command = r#"(func (export "_start"))"#;
    let c = part("", "(local.get $block)", "c", command);
    let b = part(&import("c"), "(call $go (call $go (local.get $block)))", "b", "");
    let a = part(&import("b"), "(call $go (local.get $block))", "a", command);
    let main = guest(&format!(
        r#"{} (func (export "run") (call $output (call $go (text 'x'))) (call $note (call $length (call $var_get (text 'c')))))"#,
        import("a")
    ));
    let mark = HostFunction::new("mark", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        let text = current.bytes(inputs[0].bits);
        outputs[0].bits = current.place(&[&text[..], b"."].concat());
    });
    let plugin = Setup::linked(&[("a", &a), ("b", &b), ("c", &c), ("main", &main)]).function(mark).plugin();
    for _ in 0..3 {
        assert_eq!(plugin.notes("run", "I"), [2, 73, 3, 73, 4, 73, 6, 73, 1]);
        assert_eq!(plugin.output(), b"x........");
    }
}

#[test]
fn a_main_module_that_is_a_command_gets_fresh_instances() {
    let main = r#"(module (import "counter" "next" (func $next (result i32)))
        (global $n (mut i32) (i32.const 0))
        (func (export "_start") (result i32)
          (global.set $n (i32.add (global.get $n) (i32.const 10)))
          (i32.add (global.get $n) (call $next))))"#;
    for counter in [COUNTER, COMMAND] {
        let plugin = linked(&[("counter", counter), ("main", main)]);
        for _ in 0..3 {
            assert_eq!(plugin.code("_start"), 11);
        }
    }
}
