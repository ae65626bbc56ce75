//! Timeouts and cancels: wherever a call may be, it ends, and no other does.

use std::sync::Arc;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use extism_tests::{Ended, HostFunction, Plugin, Setup, Value, guest, json, slowdown, within};

/// Loops, sleeps and recursions without end. They note when they begin.
const ENDLESS: &str = r#"
    (func $begun (call $note (i64.const 1)))
    (func (export "loop") (call $begun) (loop $l (br $l)))
    (func $ping (param i32) (if (local.get 0) (then (call $ping (i32.sub (local.get 0) (i32.const 1)))
                                                    (call $ping (i32.sub (local.get 0) (i32.const 1))))))
    (func (export "recursion") (call $begun) (call $ping (i32.const 60)))
    (func (export "tail_calls") (call $begun) (return_call $again))
    (func $again (return_call $again))
    (func (export "allocs") (call $begun) (loop $l (call $free (call $alloc (i64.const 16))) (br $l)))
    (func (export "sleep") (call $begun)
      (i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))))
    (func (export "sleep_absolutely") (call $begun)
      (i64.store (i32.const 24) (i64.const 0x7fffffffffffffff)) (i32.store (i32.const 16) (i32.const 0))
      (i32.store16 (i32.const 40) (i32.const 1))
      (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))))
    (func (export "run"))"#;

const FUNCTIONS: [&str; 6] = ["loop", "recursion", "tail_calls", "allocs", "sleep", "sleep_absolutely"];

fn timed_out() -> (i32, String) {
    (134, "timeout".to_owned())
}

fn cancelled() -> (i32, String) {
    (134, "cancelled".to_owned())
}

/// A call with a cancel from another thread, as soon as the guest has noted that it begins.
fn cancel(plugin: &Plugin, function: &str) -> Ended {
    std::thread::scope(|scope| {
        plugin.take_notes();
        let call = scope.spawn(|| plugin.run(function));
        while plugin.take_notes().is_empty() && !call.is_finished() {
            std::thread::sleep(Duration::from_millis(1));
        }
        assert!(plugin.cancel());
        call.join().unwrap()
    })
}

#[test]
fn a_timeout_ends_whatever_runs() {
    within(20, || {
        let plugin = Setup::guest(ENDLESS).wasi().with("timeout_ms", json!(50)).plugin();
        for function in FUNCTIONS {
            let began = Instant::now();
            assert_eq!(plugin.run(function).failure(), timed_out(), "{function}");
            assert!(began.elapsed() >= Duration::from_millis(50), "{function} had its time");
            assert_eq!(plugin.code("run"), 0, "after {function}");
        }
    });
}

#[test]
fn a_cancel_ends_whatever_runs() {
    within(20, || {
        let plugin = Setup::guest(ENDLESS).wasi().plugin();
        for function in FUNCTIONS {
            assert_eq!(cancel(&plugin, function).failure(), cancelled(), "{function}");
            assert_eq!(plugin.code("run"), 0, "after {function}");
        }
    });
}

#[test]
fn a_timeout_that_is_not_reached_does_nothing() {
    let plugin = Setup::guest(ENDLESS).wasi().with("timeout_ms", json!(u32::MAX)).plugin();
    for _ in 0..100 {
        assert_eq!(plugin.code("run"), 0);
    }
}

#[test]
fn start_functions_and_initialisers_end_too() {
    within(20, || {
        for start in [
            r#"(start $go)"#,
            r#"(export "_initialize" (func $go))"#,
            r#"(export "__wasm_call_ctors" (func $go))"#,
            r#"(func (export "hs_init") (param i32 i32) (call $go))"#,
            r#"(export "_start" (func $go))"#,
        ] {
            let body =
                format!(r#"(func $go (call $note (i64.const 1)) (loop $l (br $l))) {start} (func (export "run"))"#);
            let function = if start.contains("_start") { "_start" } else { "run" };
            let plugin = Setup::guest(&body).with("timeout_ms", json!(50)).plugin();
            for _ in 0..2 {
                assert_eq!(plugin.run(function).failure(), timed_out(), "{start}");
            }
            let plugin = Plugin::new(&body);
            assert_eq!(cancel(&plugin, function).failure(), cancelled(), "{start}");
        }
    });
}

#[test]
fn linked_modules_end_too() {
    within(20, || {
        for start in ["", r#"(func (export "_start"))"#] {
            let lib = guest(&format!("{start} {ENDLESS}"));
            let main = FUNCTIONS
                .map(|name| format!(r#"(import "lib" "{name}" (func ${name})) (export "{name}" (func ${name}))"#));
            let (imports, exports): (Vec<_>, Vec<_>) =
                main.iter().map(|text| text.split_at(text.find("(export").unwrap())).unzip();
            let main = format!("(module {} {})", imports.concat(), exports.concat());
            let setup = || Setup::linked(&[("lib", &lib), ("main", &main)]).wasi();
            let (limited, endless) = (setup().with("timeout_ms", json!(50)).plugin(), setup().plugin());
            for function in FUNCTIONS {
                assert_eq!(limited.run(function).failure(), timed_out(), "{function}");
                assert_eq!(cancel(&endless, function).failure(), cancelled(), "{function}");
            }
        }
    });
}

#[test]
fn initialisers_of_linked_modules_end_too() {
    within(20, || {
        let lib = r#"(module (func (export "_initialize") (loop $l (br $l))) (func (export "f")))"#;
        let main = r#"(module (import "lib" "f" (func)) (func (export "run")))"#;
        let plugin = Setup::linked(&[("lib", lib), ("main", main)]).with("timeout_ms", json!(50)).plugin();
        assert_eq!(plugin.run("run").failure(), timed_out());
    });
}

#[test]
fn a_cancel_is_for_the_call_in_progress_only() {
    let plugin = Plugin::new(ENDLESS_WITHOUT_WASI);
    assert!(plugin.cancel(), "nothing runs, and that is fine");
    assert_eq!(plugin.code("run"), 0);
    assert!(plugin.cancel() && plugin.cancel());
    assert_eq!(plugin.code("count"), 100_000, "a loop looks at cancels");
}

const ENDLESS_WITHOUT_WASI: &str = r#"(func (export "run"))
    (func (export "loop") (call $note (i64.const 1)) (loop $l (br $l)))
    (func (export "count") (result i32) (local $i i32)
      (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100000))))
      (local.get $i))"#;

#[test]
fn others_of_the_same_compiled_plugin_go_on() {
    within(20, || {
        let compiled = Setup::guest(ENDLESS_WITHOUT_WASI).compile();
        let (victim, other, third) = (compiled.plugin(), compiled.plugin(), compiled.plugin());
        std::thread::scope(|scope| {
            let endless = scope.spawn(|| other.run("loop"));
            while other.take_notes().is_empty() {
                std::thread::sleep(Duration::from_millis(1));
            }
            assert_eq!(cancel(&victim, "loop").failure(), cancelled());
            assert_eq!(third.code("count"), 100_000);
            std::thread::sleep(Duration::from_millis(50));
            assert!(!endless.is_finished(), "one of them was cancelled, the other runs");
            assert!(other.cancel());
            assert_eq!(endless.join().unwrap().failure(), cancelled());
        });
    });
}

/// Two threads that call one plug-in: only the one that runs is cancelled, the other has its turn then.
#[test]
fn a_cancel_does_not_reach_calls_that_wait() {
    within(20, || {
        let (sender, started) = mpsc::channel();
        let inside = HostFunction::new("inside", &[], &[], move |_, _, _| sender.send(()).unwrap());
        let body = r#"(import "extism:host/user" "inside" (func $inside))
            (func (export "loop") (call $inside) (loop $l (br $l))) (func (export "run") (result i32) (i32.const 7))"#;
        let plugin = Arc::new(Setup::guest(body).function(inside).plugin());
        let (first, second) = (Arc::clone(&plugin), Arc::clone(&plugin));
        let running = std::thread::spawn(move || first.run("loop"));
        started.recv().unwrap();
        let waiting = std::thread::spawn(move || second.run("run").code);
        std::thread::sleep(Duration::from_millis(50));
        assert!(plugin.cancel());
        running.join().unwrap();
        assert_eq!(waiting.join().unwrap(), 7);
    });
}

#[test]
fn waiting_for_a_turn_counts_against_the_timeout() {
    within(20, || {
        let (sender, started) = mpsc::channel();
        let inside = HostFunction::new("inside", &[], &[], move |_, _, _| {
            sender.send(()).unwrap();
            std::thread::sleep(Duration::from_millis(600));
        });
        let body = r#"(import "extism:host/user" "inside" (func $inside))
            (func (export "slow") (call $inside)) (func (export "run"))"#;
        let plugin = Setup::guest(body).function(inside).with("timeout_ms", json!(100)).plugin();
        std::thread::scope(|scope| {
            scope.spawn(|| plugin.run("slow"));
            started.recv().unwrap();
            let began = Instant::now();
            assert_eq!(plugin.run("run").code, 134);
            assert_eq!(plugin.error().as_deref(), Some("timeout"));
            assert!(began.elapsed() < Duration::from_millis(500) * slowdown(), "it did not wait for the other call");
        });
    });
}

#[test]
fn a_host_function_is_not_interrupted_but_what_comes_after_it() {
    within(20, || {
        let (sender, done) = mpsc::channel();
        let slow = HostFunction::new("slow", &[], &[], move |_, _, _| {
            std::thread::sleep(Duration::from_millis(200));
            sender.send(()).unwrap();
        });
        let body = r#"(import "extism:host/user" "slow" (func $slow))
            (func (export "run") (call $slow) (loop $l (br $l)))"#;
        let plugin = Setup::guest(body).function(slow).with("timeout_ms", json!(50)).plugin();
        assert_eq!(plugin.run("run").failure(), timed_out());
        assert!(done.try_recv().is_ok(), "it ran to its end");
    });
}

#[test]
fn what_was_set_before_stays() {
    within(20, || {
        let plugin = Setup::guest(
            r#"(func (export "run")
                 (call $output (text 'so far')) (call $error_set (text 'not said')) (call $var_set (text 'k') (text 'v'))
                 (loop $l (br $l)))
               (func (export "var") (call $output (call $var_get (text 'k'))))"#,
        )
        .with("timeout_ms", json!(50))
        .plugin();
        let ended = plugin.run("run");
        assert_eq!(ended.output, b"so far");
        assert_eq!(ended.failure(), timed_out());
        assert_eq!(plugin.output_of("var", ""), b"v");
    });
}

#[test]
fn many_timeouts_at_once() {
    within(30, || {
        let compiled = Setup::guest(ENDLESS_WITHOUT_WASI).with("timeout_ms", json!(100)).compile();
        std::thread::scope(|scope| {
            for _ in 0..16 {
                scope.spawn(|| assert_eq!(compiled.plugin().run("loop").failure(), timed_out()));
            }
        });
    });
}

#[test]
fn a_short_sleep_wakes_by_itself() {
    within(20, || {
        let plugin = Setup::guest(
            r#"(func (export "run")
                 (i64.store (i32.const 0) (i64.const 77))
                 (i64.store (i32.const 24) (i64.const 20000000)) (i32.store (i32.const 16) (i32.const 1))
                 (call $note_i32 (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))
                 (call $note_i32 (i32.load (i32.const 200)))
                 (call $note (i64.load (i32.const 100))))"#,
        )
        .wasi()
        .plugin();
        let began = Instant::now();
        assert_eq!(plugin.notes("run", ""), [0, 1, 77]);
        assert!(began.elapsed() >= Duration::from_millis(20));
    });
}

/// A host function of one plug-in that calls another.
fn calls(other: Plugin, function: &'static str, expected: (i32, &'static str)) -> Plugin {
    let call = HostFunction::new("call", &[], &[], move |current, _, _| {
        let (code, error) = other.run(function).failure();
        assert_eq!(code, expected.0);
        assert!(error.contains(expected.1), "{error}");
        assert_ne!(current.alloc(10), 0, "back with the first one");
    });
    let body = r#"(import "extism:host/user" "call" (func $call))
        (func (export "run") (result i32) (call $call) (call $call) (i32.const 7))
        (func (export "trap") (call $call) unreachable)"#;
    Setup::guest(body).function(call).with("timeout_ms", json!(10_000)).plugin()
}

#[test]
fn the_ends_of_nested_calls_are_their_own() {
    within(30, || {
        let inner = |fields: &[(&str, Value)], fuel: Option<u64>| {
            let mut setup = Setup::guest(&format!(r#"{ENDLESS} (func (export "trap") unreachable)"#)).wasi();
            for (field, value) in fields {
                setup = setup.with(field, value.clone());
            }
            if let Some(fuel) = fuel { setup.fuel(fuel).plugin() } else { setup.plugin() }
        };
        let limited = || inner(&[("timeout_ms", json!(50))], None);
        for plugin in [
            calls(inner(&[], None), "trap", (134, "unreachable")),
            calls(limited(), "loop", (134, "timeout")),
            calls(limited(), "sleep", (134, "timeout")),
            calls(inner(&[], Some(1000)), "loop", (-1, "fuel")),
            calls(calls(limited(), "loop", (134, "timeout")), "trap", (134, "unreachable")),
        ] {
            assert_eq!(plugin.code("run"), 7);
            let (code, error) = plugin.run("trap").failure();
            assert_eq!(code, 134);
            assert!(error.contains("unreachable"), "{error}");
        }
    });
}
