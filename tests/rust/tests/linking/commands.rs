//! Linked commands: instantiated anew for each call into them.

use extism_tests::{HostFunction, Setup, Type, guest, json, resident_bytes, within};

use super::{COMMAND, COUNTER, MAIN, linked};

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

#[test]
fn plugins_with_commands_run_in_many_threads() {
    within(30, || {
        let lib = guest(
            r#"(func (export "_start"))
               (func (export "f") (call $output_set (call $input_offset) (call $input_length)))"#,
        );
        let main = guest(
            r#"(import "lib" "f" (func $f)) (func (export "run") (local $i i32)
                 (loop $l
                   (call $f)
                   (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 20)))))"#,
        );
        let compiled = Setup::linked(&[("lib", &lib), ("main", &main)]).compile();
        let shared = compiled.plugin();
        std::thread::scope(|scope| {
            for n in 0..8u8 {
                let (compiled, shared) = (&compiled, &shared);
                scope.spawn(move || {
                    let own = compiled.plugin();
                    for _ in 0..20 {
                        assert_eq!(own.output_of("run", [n; 10]), [n; 10]);
                        assert_eq!(shared.call("run", [n; 10]).code, 0);
                    }
                });
            }
        });
    });
}

/// A reference belongs to the store that it was made in. Whatever becomes of such a call, the plug-in goes on.
#[test]
fn references_do_not_cross_into_commands() {
    let lib = r#"(module (func (export "_start"))
        (type $s (struct (field i32)))
        (func $f (export "f")) (elem declare func $f)
        (func (export "take_func") (param funcref))
        (func (export "take_extern") (param externref))
        (func (export "take_any") (param anyref))
        (func (export "give_func") (result funcref) (ref.func $f))
        (func (export "give_any") (result anyref) (struct.new $s (i32.const 1))))"#;
    for (import, call) in [
        (r#""take_func" (func $c (param funcref))"#, "(call $c (ref.func $own))"),
        (
            r#""take_extern" (func $c (param externref))"#,
            "(call $c (extern.convert_any (struct.new $s (i32.const 1))))",
        ),
        (r#""take_any" (func $c (param anyref))"#, "(call $c (struct.new $s (i32.const 1)))"),
        (r#""give_func" (func $c (result funcref))"#, "(drop (call $c))"),
        (r#""give_any" (func $c (result anyref))"#, "(drop (call $c))"),
    ] {
        let main = format!(
            r#"(module (type $s (struct (field i32))) (import "lib" {import})
                 (func $own) (elem declare func $own)
                 (func (export "run") {call}) (func (export "other") (result i32) (i32.const 5)))"#
        );
        let setup = Setup::linked(&[("lib", lib), ("main", &main)]);
        let Ok(plugin) = setup.try_plugin() else { continue };
        for _ in 0..2 {
            if let Some(error) = plugin.run("run").error {
                assert!(!error.contains("internal error"), "{call}: {error}");
            }
            assert_eq!(plugin.code("other"), 5, "{call}");
        }
    }
}

#[test]
fn references_that_are_null_or_numbers_may_cross() {
    let lib = r#"(module (func (export "_start"))
        (func (export "f") (param funcref externref anyref) (result funcref externref)
          (local.get 0) (local.get 1)))"#;
    let main = r#"(module (import "lib" "f" (func $f (param funcref externref anyref) (result funcref externref)))
        (func (export "run") (result i32)
          (call $f (ref.null func) (ref.null extern) (ref.i31 (i32.const 5)))
          (ref.is_null) (drop) (ref.is_null)))"#;
    let Ok(plugin) = Setup::linked(&[("lib", lib), ("main", main)]).try_plugin() else { return };
    let ended = plugin.run("run");
    assert!(ended.error.is_none_or(|error| !error.contains("internal error")));
}

/// A command that is called again while it runs, by way of a reactor that was given the function.
#[test]
fn a_command_is_not_called_while_it_runs() {
    let lib = r#"(module (global $f (mut funcref) (ref.null func)) (type $t (func (result i32)))
        (func (export "keep") (param funcref) (global.set $f (local.get 0)))
        (func (export "call_it") (result i32) (call_ref $t (ref.cast (ref $t) (global.get $f)))))"#;
    let command = r#"(module (import "lib" "call_it" (func $call_it (result i32)))
        (func (export "_start"))
        (func (export "f") (result i32) (i32.const 3))
        (func (export "g") (result i32) (call $call_it)))"#;
    let main = r#"(module (import "lib" "keep" (func $keep (param funcref)))
        (import "command" "f" (func $f (result i32))) (import "command" "g" (func $g (result i32)))
        (elem declare func $f)
        (func (export "again") (result i32) (call $keep (ref.func $f)) (call $g))
        (func (export "run") (result i32) (call $f)))"#;
    let plugin = linked(&[("lib", lib), ("command", command), ("main", main)]);
    for _ in 0..2 {
        let (code, error) = plugin.run("again").failure();
        assert_eq!(code, -1, "{error}");
        assert!(error.contains("while that command runs"), "{error}");
        assert_eq!(plugin.code("run"), 3);
    }
}

#[test]
fn exceptions_cross_between_reactors_and_not_out_of_commands() {
    let main = |module: &str| {
        format!(
            r#"(module (import "lib" "tag" (tag $e (param i32))) (import "{module}" "f" (func $f))
                 (func (export "run") (result i32)
                   (block $caught (result i32) (try_table (catch $e $caught) (call $f)) (i32.const 0)))
                 (func (export "catch_all") (result i32)
                   (block $caught (try_table (catch_all $caught) (call $f)) (return (i32.const 0))) (i32.const 1)))"#
        )
    };
    let lib = r#"(module (tag $e (export "tag") (param i32)) (func (export "f") (throw $e (i32.const 8))))"#;
    let command = r#"(module (import "lib" "f" (func $f)) (func (export "_start")) (func (export "f") (call $f)))"#;
    let plugin = linked(&[("lib", lib), ("main", &main("lib"))]);
    assert_eq!((plugin.code("run"), plugin.code("catch_all")), (8, 1));
    let plugin = linked(&[("lib", lib), ("command", command), ("main", &main("command"))]);
    for function in ["run", "catch_all", "run"] {
        let (code, error) = plugin.run(function).failure();
        assert_eq!(code, -1, "{error}");
        assert!(error.contains("exception"), "{error}");
    }
}

/// Its initial memory was counted once: a command that could be entered again through a table would take it again.
#[test]
fn a_command_is_not_entered_again_while_it_runs() {
    let reactor = r#"(module (table (export "table") 1 funcref) (type $plain (func))
        (func (export "again") (call_indirect (type $plain) (i32.const 0))))"#;
    let command = r#"(module (import "reactor" "again" (func $again)) (memory 256) (func (export "_start"))
        (func (export "go") (memory.fill (i32.const 0) (i32.const 1) (i32.const 0x1000000)) (call $again)))"#;
    let main = r#"(module (import "reactor" "table" (table 1 funcref)) (import "command" "go" (func $go))
        (elem (table 0) (i32.const 0) func $go) (func (export "run") (call $go)) (func (export "nothing")))"#;
    let plugin = Setup::linked(&[("reactor", reactor), ("command", command), ("main", main)])
        .with("memory", json!({"max_pages": 260}))
        .plugin();
    let before = resident_bytes();
    for _ in 0..2 {
        let (code, error) = plugin.run("run").failure();
        assert_eq!(code, -1);
        assert!(error.contains("while that command runs"), "{error}");
        assert_eq!(plugin.code("nothing"), 0);
    }
    assert!(resident_bytes() < before + (64 << 20));
}

/// What a module spends on the way counts, whether it returns or throws.
#[test]
fn fuel_is_spent_across_commands() {
    within(60, || {
        let reactor = r#"(module (tag $t) (func (export "burn") (local i32)
            (loop $l (br_if $l (i32.lt_u (local.tee 0 (i32.add (local.get 0) (i32.const 1))) (i32.const 100000))))
            (throw $t)))"#;
        let command = r#"(module (import "reactor" "burn" (func $burn)) (func (export "_start"))
            (func (export "go") (call $burn)))"#;
        let main = r#"(module (import "command" "go" (func $go))
            (func (export "run") (loop $l (block $h (try_table (catch_all $h) (call $go))) (br $l))))"#;
        let modules = [("reactor", reactor), ("command", command), ("main", main)];
        let (code, _) = Setup::linked(&modules).fuel(1_000_000).plugin().run("run").failure();
        assert_eq!(code, -1);
        // Without a limit the exception ends the call where it would leave the command.
        let (code, error) = Setup::linked(&modules).plugin().run("run").failure();
        assert_eq!(code, -1);
        assert!(error.contains("exception"), "{error}");
    });
}
