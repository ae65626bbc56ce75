//! Messages: what went wrong, where, and what to do.

use extism_tests::{HostFunction, Plugin, Setup, Type, in_child, json, resident_bytes, within};

#[test]
fn a_trap_gives_its_reason_first_and_then_the_frames() {
    let plugin = Plugin::new(
        r#"(func $inner unreachable) (func $middle (call $inner)) (func $outer (export "run") (call $middle))"#,
    );
    let (code, error) = plugin.run("run").failure();
    assert_eq!(code, 134);
    let lines: Vec<_> = error.lines().collect();
    assert!(lines[0].contains("unreachable"), "{error}");
    let at = |name: &str| error.find(name).unwrap_or_else(|| panic!("no {name}: {error}"));
    assert!(at("unreachable") < at("inner") && at("inner") < at("middle") && at("middle") < at("outer"), "{error}");
    assert_eq!(error.matches("unreachable").count(), 1, "{error}");
}

#[test]
fn each_trap_says_what_it_is() {
    for (act, reason) in [
        ("unreachable", "unreachable"),
        ("(drop (i32.div_s (i32.const 1) (i32.const 0)))", "divide by zero"),
        ("(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))", "overflow"),
        ("(drop (i32.trunc_f32_s (f32.const nan)))", "conversion to integer"),
        ("(drop (i32.load (i32.const -4)))", "out of bounds memory"),
        ("(memory.fill (i32.const 1) (i32.const 0) (i32.const -1))", "out of bounds memory"),
        ("(drop (table.get 0 (i32.const 9)))", "out of bounds table"),
        ("(call_indirect (i32.const 9))", "out of bounds"),
        ("(call_indirect (i32.const 0))", "uninitialized element"),
        ("(call_indirect (i32.const 1))", "indirect call type mismatch"),
        ("(drop (call $load_u8 (i64.const -1)))", "out of bounds memory"),
        ("(call $self)", "call stack exhausted"),
    ] {
        let plugin = Plugin::new(&format!(
            r#"(memory 1) (table 2 funcref) (elem (i32.const 1) $other)
               (func $other (param i32)) (func $self (call $self)) (func (export "run") {act})"#
        ));
        let (code, error) = plugin.run("run").failure();
        assert_eq!(code, 134, "{act}: {error}");
        assert!(error.contains(reason), "{act}: {error}");
    }
}

#[test]
fn a_missing_import_is_named_with_what_to_do() {
    for (import, wasi, hints) in [
        (r#""extism:host/user" "lookup" (func (param i64) (result i64))"#, true, ["lookup", "host function"]),
        (r#""env" "abort" (func (param i32 i32 i32 i32))"#, true, ["abort", "env"]),
        (
            r#""wasi_snapshot_preview1" "fd_write" (func (param i32 i32 i32 i32) (result i32))"#,
            false,
            ["fd_write", "with_wasi"],
        ),
        (r#""wasi_snapshot_preview1" "no_such" (func)"#, true, ["no_such", "wasi_snapshot_preview1"]),
        (
            r#""wasi_unstable" "fd_write" (func (param i32 i32 i32 i32) (result i32))"#,
            true,
            ["wasi_unstable", "fd_write"],
        ),
        (r#""extism:host/env" "no_such" (func)"#, true, ["extism:host/env", "no_such"]),
        (r#""other" "memory" (memory 1)"#, true, ["other", "memory"]),
    ] {
        let setup = Setup::new(format!("(module (import {import}))"));
        let error = if wasi { setup.wasi() } else { setup }.refusal();
        assert!(hints.iter().all(|hint| error.contains(hint)), "{import}: {error}");
    }
}

#[test]
fn an_import_of_another_type_is_named_with_both() {
    let function = HostFunction::new("lookup", &[Type::I64], &[Type::I64], |_, _, _| {});
    let import = r#"(module (import "extism:host/user" "lookup" (func (param i32 f64))))"#;
    let error = Setup::new(import).function(function).refusal();
    for part in ["lookup", "i32", "f64", "i64"] {
        assert!(error.contains(part), "no {part}: {error}");
    }
}

#[test]
fn an_export_of_another_type_is_described() {
    let plugin = Plugin::new(
        r#"(func (export "takes") (param i32 f64)) (func (export "gives") (result i64) (i64.const 1))
           (func (export "gives_two") (result i32 i32) (i32.const 1) (i32.const 2))
           (table (export "table") 1 funcref) (global (export "global") i32 (i32.const 1))"#,
    );
    for (name, parts) in [
        ("takes", ["(i32, f64)", "()"]),
        ("gives", ["i64", "()"]),
        ("gives_two", ["i32, i32", "()"]),
        ("table", ["table", "function"]),
        ("global", ["global", "function"]),
        ("memory", ["memory", "function"]),
    ] {
        let (code, error) = plugin.run(name).failure();
        assert_eq!(code, -1);
        assert!(error.contains(name) && parts.iter().all(|part| error.contains(part)), "{name}: {error}");
        assert!(!plugin.has(name));
    }
}

#[test]
fn a_function_that_is_not_there() {
    let plugin = Plugin::new("");
    for name in ["", "run", "Grüße", "extism:memory", "extism:input_offset"] {
        assert_eq!(plugin.run(name).failure(), (-1, format!("Function not found: {name}")));
        assert!(!plugin.has(name));
    }
}

#[test]
fn bad_text_says_where() {
    let error = Setup::new("(module\n  (func (export \"run\")\n    (i32.const))\n)").refusal();
    assert!(error.contains("3:"), "{error}");
    let error = Setup::new("(module (func $f) (func (call $g)))").refusal();
    assert!(error.contains("$g"), "{error}");
}

#[test]
fn bad_modules_say_what() {
    for (bytes, part) in [
        (&b"\0asm"[..], "invalid WebAssembly module"),
        (b"\0asm\x02\0\0\0", "version"),
        (b"\0asm\x01\0\0\0\x01\xff", "invalid WebAssembly module"),
        (b"\0asm\x01\0\0\0\x0a\x04\x01\x02\0\x0b", "invalid WebAssembly module"),
    ] {
        let error = Setup::new(bytes).refusal();
        assert!(error.contains(part), "{bytes:?}: {error}");
    }
    let error = Setup::new("(module (func (result i32) (i64.const 1)))").refusal();
    assert!(error.contains("type mismatch") && error.contains("offset"), "{error}");
}

#[test]
fn what_is_neither_module_nor_manifest_is_described() {
    for input in [&b"\x7fELF\x02\x01\x01\0"[..], b"PK\x03\x04", b"\xff\xfe\0\0", b"hello", b"   ", b"[1, 2]"] {
        let error = Setup::new(input).refusal();
        assert!(error.contains("WebAssembly") && error.contains("manifest"), "{input:?}: {error}");
    }
}

#[test]
fn the_frames_of_linked_modules_are_there() {
    let lib = "(module (func $deep_inside unreachable) (func $f (export \"f\") (call $deep_inside)))";
    let main = "(module (import \"lib\" \"f\" (func $f)) (func $go (export \"run\") (call $f)))";
    let error = Setup::linked(&[("lib", lib), ("main", main)]).plugin().run("run").failure().1;
    for part in ["unreachable", "deep_inside", "go"] {
        assert!(error.contains(part), "no {part}: {error}");
    }
}

#[test]
fn which_module_is_wrong() {
    let good = "(module)";
    let bad = "(module (func (result i32)))";
    let error = Setup::linked(&[("lib", bad), ("main", good)]).refusal();
    assert!(error.contains("`lib`"), "{error}");
    let error = Setup::linked(&[("lib", good), ("main", bad)]).refusal();
    assert!(error.contains("`main`"), "{error}");
}

#[test]
fn an_error_stays_until_the_next_call() {
    let plugin = Plugin::new(r#"(func (export "fail") (call $error_set (text 'bad'))) (func (export "run"))"#);
    assert_eq!(plugin.run("fail").failure().1, "bad");
    assert_eq!(plugin.error().as_deref(), Some("bad"));
    assert!(plugin.reset() && plugin.has("run") && plugin.configure("{}"));
    assert_eq!(plugin.error().as_deref(), Some("bad"), "only a call clears it");
    assert_eq!(plugin.run("nowhere").failure().1, "Function not found: nowhere");
    assert_eq!(plugin.code("run"), 0);
    assert_eq!(plugin.error(), None);
}

#[test]
fn a_long_chain_of_frames_is_bounded() {
    let plugin = Plugin::new(
        r#"(func $deeper (param i32)
             (if (i32.eqz (local.get 0)) (then unreachable))
             (call $deeper (i32.sub (local.get 0) (i32.const 1))) (drop (i32.const 0)))
           (func (export "run") (call $deeper (i32.const 5000)))"#,
    );
    let error = plugin.run("run").failure().1;
    assert!(error.len() < 64 * 1024, "{} bytes", error.len());
    assert!(error.contains("unreachable"));
}

#[test]
fn compiling_and_creating_say_the_same() {
    let wat = r#"(module (import "extism:host/user" "lookup" (func)))"#;
    let error = Setup::new(wat).refusal();
    assert_eq!(Setup::new(wat).refusal(), error);
    assert_eq!(Setup::new(wat).fuel(1000).refusal(), error);
    let limited = Setup::new(wat).with("timeout_ms", json!(1000)).refusal();
    assert_eq!(limited, error);
    assert!(extism_tests::last_error().is_none(), "the message was freed since");
}

/// None of the parsers may use up the stack, which would end the process.
#[test]
fn deeply_nested_input_is_refused() {
    in_child("deeply_nested_input_is_refused", &[], || {
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(200_000), close.repeat(200_000));
        for input in [
            format!("{{\"wasm\": {}}}", deep("[", "]")),
            format!("{{\"config\": {}", "{\"a\": ".repeat(200_000)),
            format!("wasm = {}", deep("[", "]")),
            format!("a = {}", "{a = ".repeat(200_000)),
            format!("[{}]", "a.".repeat(200_000)),
            deep("(", ")"),
            format!("(module {})", deep("(func ", ")")),
        ] {
            Setup::new(input).refusal();
        }
        let plugin =
            Plugin::new(r#"(func (export "run") (drop (call $http_request (call $input_offset) (i64.const 0))))"#);
        assert_eq!(plugin.call("run", deep("[", "]")).code, -1);
        assert!(!plugin.configure(&deep("[", "]")) && !plugin.configure(&"{\"a\":".repeat(200_000)));
    });
}

/// What is valid may be compiled or refused.
#[test]
fn deep_but_valid_input_does_no_harm() {
    in_child("deep_but_valid_input_does_no_harm", &[], || {
        let module = |body: String| format!(r#"(module (func (export "run") {body}))"#);
        let deep = |open: &str, close: &str| format!("{}{}", open.repeat(20_000), close.repeat(20_000));
        for input in [
            module(deep("block ", "end ")),
            module(deep("(block ", ")")),
            module(deep("(if (i32.const 0) (then ", "))")),
            module(format!(
                "(drop {}{})",
                "(i32.eqz ".repeat(20_000),
                ")".repeat(20_000).replacen(')', "(i32.const 1))", 1)
            )),
            format!("{}{}", deep("(;", ";)"), module(String::new())),
        ] {
            if let Ok(plugin) = Setup::new(input).try_plugin() {
                assert_eq!(plugin.code("run"), 0);
            }
        }
    });
}

/// C++ demangling lets such a name grow without bound: each ten bytes double it.
#[test]
fn names_in_a_trap_are_bounded() {
    within(30, || {
        let digit = |n: usize| b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ"[n] as char;
        let mangled = (0..30).fold("_Z1f1AIiiE".to_owned(), |name, index| {
            let part = format!("S{}_", digit(index));
            name + "S_I" + &part + &part + "E"
        });
        for name in [mangled, "long".repeat(200_000)] {
            let plugin = Plugin::new(&format!(r#"(func ${name} (export "run") unreachable)"#));
            let (code, error) = plugin.run("run").failure();
            assert_eq!(code, 134);
            assert!(error.contains("unreachable") && error.len() < 20_000, "{} bytes", error.len());
        }
    });
}

/// A block costs its guest nothing until it is written to; what is copied out of it would cost the host.
#[test]
fn the_text_of_an_error_is_bounded() {
    let body = r#"(func (export "run") (call $error_set (call $alloc (i64.const 0x10000000))) unreachable)"#;
    let plugin = Plugin::new(body);
    let before = resident_bytes();
    let (code, error) = plugin.run("run").failure();
    assert_eq!(code, -1);
    assert!(error.len() <= 2 * 64 * 1024, "{} bytes", error.len());
    assert!(resident_bytes() < before + (32 << 20));
}

/// The same for the request and the body of HTTP, which are refused before they are copied.
#[test]
fn what_http_takes_of_a_guest_is_bounded() {
    for (act, limit) in [
        ("(call $http_request (call $alloc (i64.const 0x200000)) (i64.const 0))", "1048576"),
        ("(call $http_request (call $alloc (i64.const 8)) (call $alloc (i64.const 0x20000000)))", "268435456"),
    ] {
        let plugin = Plugin::new(&format!(r#"(func (export "run") (drop {act}))"#));
        let (code, error) = plugin.run("run").failure();
        assert_eq!(code, -1);
        assert!(error.contains(limit), "{error}");
    }
}

#[test]
fn an_exception_that_nothing_catches_is_gone_with_its_call() {
    let plugin = Plugin::new(
        r#"(tag $t (param i32))
           (func (export "throw") (throw $t (i32.const 77)))
           (func (export "run") (result i32) (block $h (try_table (catch_all $h) (nop)) (return (i32.const 5))) (i32.const 9))"#,
    );
    assert_eq!(plugin.code("run"), 5);
    for _ in 0..3 {
        assert_eq!(plugin.run("throw").failure().0, -1);
        assert_eq!(plugin.code("run"), 5);
    }
}

/// Some messages say what a host has asked for, however long that is.
#[test]
fn messages_are_cut() {
    let plugin = Plugin::new(r#"(func (export "run"))"#);
    let (code, error) = plugin.run(&"ä".repeat(1 << 20)).failure();
    assert_eq!(code, -1);
    assert!(error.starts_with("Function not found") && error.len() <= 256 * 1024, "{} bytes", error.len());
    assert_eq!(plugin.code("run"), 0);
}
