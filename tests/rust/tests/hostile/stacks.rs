//! Recursion without end, on stacks of every size: a trap that says so, and never a fault of the process.
//!
//! The guest's stack is the calling thread's, or where too little of that is left, one of the library's. Neither how
//! large the calling stack is nor where it lies makes a difference to what a call answers.

use std::sync::{Arc, Mutex};
use std::thread::{self, ThreadId};

use extism_tests::{HostFunction, Plugin, Reply, Scratch, Server, Setup, guest, json, within};

use super::{FINE, fiber};

/// Recursions of every kind; each export never returns.
const RECURSIONS: [&str; 9] = [
    "direct",
    "mutual",
    "indirect",
    "by reference",
    "many locals",
    "many vectors",
    "through a handler",
    "host",
    "values",
];

/// A guest with all of [`RECURSIONS`]. `depth` returns how deep the input's number of frames goes.
fn recursive() -> String {
    format!(
        r#"(import "extism:host/user" "nothing" (func $nothing))
           (type $f (func)) (tag $tag) (table funcref (elem $indirect)) (elem declare func $by_reference)
           (func (export "direct") (call $direct)) (func $direct (call $direct) (call $direct))
           (func (export "mutual") (call $ping))
           (func $ping (call $pong) (call $pong)) (func $pong (call $ping) (call $ping))
           (func (export "indirect") (call $indirect))
           (func $indirect (call_indirect (type $f) (i32.const 0)) (call_indirect (type $f) (i32.const 0)))
           (func (export "by reference") (call $by_reference))
           (func $by_reference (type $f) (call_ref $f (ref.func $by_reference))
             (call_ref $f (ref.func $by_reference)))
           (func (export "many locals") (drop (call $many_locals (i64.const 1))))
           (func $many_locals (param i64) (result i64) {many_locals})
           (func (export "many vectors") (drop (call $many_vectors (i64.const 1))))
           (func $many_vectors (param i64) (result i64) {many_vectors})
           (func (export "through a handler") (call $handler))
           (func $handler (block $b (try_table (catch_all $b) (call $handler))) (call $handler))
           (func (export "host") (call $host)) (func $host (call $nothing) (call $host) (call $nothing))
           (func (export "values") (drop (drop (drop (drop (call $values (i64.const 1)))))))
           (func $values (param i64) (result i64 i64 i64 i64)
             (call $values (i64.add (local.get 0) (i64.const 1))) (drop) (i64.const 2))
           (func $depth (param $n i64) (result i64)
             (if (result i64) (i64.eqz (local.get $n)) (then (i64.const 0))
               (else (i64.add (i64.const 1) (call $depth (i64.sub (local.get $n) (i64.const 1)))))))
           (func (export "depth") (call $nothing) (call $note (call $depth (call $input_load_u64 (i64.const 0))))
             (call $output (call $input_offset)))
           {FINE}"#,
        many_locals = wide("i64", 2000, "(call $many_locals (i64.add (local.get 0) (i64.const 1)))"),
        many_vectors = wide_vectors(2000),
    )
}

/// Locals that are all alive over a call, so that they are in the frame.
fn wide(ty: &str, count: usize, call: &str) -> String {
    let locals = format!(" {ty}").repeat(count);
    let sets: String =
        (1..=count).map(|i| format!("(local.set {i} (i64.mul (local.get 0) (i64.const {i})))")).collect();
    let sums: String = (1..=count).map(|i| format!("(local.get {i}) i64.add ")).collect();
    format!("(local{locals}) {sets} {call} {sums}")
}

fn wide_vectors(count: usize) -> String {
    let locals = " v128".repeat(count);
    let set = |i: usize| format!("(local.set {i} (i64x2.splat (i64.mul (local.get 0) (i64.const {i}))))");
    let sum = |i: usize| format!("(i64x2.extract_lane 0 (local.get {i})) i64.add ");
    let (sets, sums): (String, String) = ((1..=count).map(set).collect(), (1..=count).map(sum).collect());
    format!("(local{locals}) {sets} (call $many_vectors (i64.add (local.get 0) (i64.const 1))) {sums}")
}

fn nothing() -> HostFunction {
    HostFunction::new("nothing", &[], &[], |_, _, _| {})
}

/// Each recursion in turn, and ordinary calls in between.
fn exhaust(plugin: &Plugin) {
    for function in RECURSIONS {
        let (code, error) = plugin.run(function).failure();
        assert_eq!(code, 134, "{function}: {error}");
        assert!(error.contains("call stack exhausted"), "{function}: {error}");
        let text = 300u64.to_le_bytes();
        assert_eq!(plugin.output_of("depth", text), text, "after {function}");
        assert_eq!(plugin.take_notes(), [300]);
    }
    assert_eq!(plugin.code("fine"), 7);
}

/// On a thread with this much stack, as `pthread_attr_setstacksize` gives it. What can fail is asserted outside: a
/// panic needs more stack than some of these have.
fn on_thread(kib: usize, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(kib << 10).spawn(work).expect("a thread").join().unwrap();
}

fn on_stack_of(kib: usize) {
    within(60, move || {
        let compiled = Setup::guest(&recursive()).function(nothing()).compile();
        // Also with an instance that another thread made, and back again.
        let shared = Arc::new(compiled.plugin());
        exhaust(&shared);
        let there = Arc::clone(&shared);
        on_thread(kib, move || {
            exhaust(&there);
            exhaust(&compiled.plugin());
        });
        exhaust(&shared);
    });
}

#[test]
fn recursion_on_64_kib_of_stack() {
    on_stack_of(64);
}

#[test]
fn recursion_on_128_kib_of_stack() {
    on_stack_of(128);
}

#[test]
fn recursion_on_256_kib_of_stack() {
    on_stack_of(256);
}

#[test]
fn recursion_on_512_kib_of_stack() {
    on_stack_of(512);
}

#[test]
fn recursion_on_1_mib_of_stack() {
    on_stack_of(1024);
}

#[test]
fn recursion_on_2_mib_of_stack() {
    on_stack_of(2048);
}

#[test]
fn recursion_on_8_mib_of_stack() {
    on_stack_of(8192);
}

/// Frames of 160 KiB: each passes over guard pages of any usual size, and the fourth over the end of the stack.
#[test]
fn frames_larger_than_guard_pages() {
    within(60, || {
        let count = 10_000;
        let locals = " v128".repeat(count);
        // Each is set before a call and used behind it, so all are in the frame.
        let sets: String = (0..count).map(|i| format!("(local.set {i} (v128.load (i32.const {})))", 16 * i)).collect();
        let uses: String = (0..count)
            .map(|i| {
                format!(
                    "(v128.store (i32.const {})
          (local.get {i}))",
                    16 * i
                )
            })
            .collect();
        let body = format!(
            r#"(import "extism:host/user" "nothing" (func $nothing)) (memory 10) {FINE}
               (func $large (local{locals}) {sets} (call $large) {uses}) (func (export "run") (call $large))"#
        );
        let compiled = Arc::new(Setup::guest(&body).function(nothing()).compile());
        for kib in [64, 128, 512, 1024, 8192] {
            let compiled = Arc::clone(&compiled);
            on_thread(kib, move || {
                let plugin = compiled.plugin();
                let (code, error) = plugin.run("run").failure();
                assert!(code == 134 && error.contains("call stack exhausted"), "{kib} KiB: {code} {error}");
                assert_eq!(plugin.code("fine"), 7);
            });
        }
    });
}

/// All that the library does: compile, create, call, read, free.
#[test]
fn a_thread_with_64_kib_can_make_plugins() {
    within(60, || {
        on_thread(64, || {
            let plugin = Setup::guest(&recursive()).function(nothing()).with("timeout_ms", json!(10_000)).plugin();
            exhaust(&plugin);
            let error = Setup::new("(module (func (export").refusal();
            assert!(error.contains("expected"), "{error}");
        });
    });
}

fn on_fiber_of(kib: usize) {
    within(60, move || {
        let shared = Arc::new(Setup::guest(&recursive()).function(nothing()).plugin());
        let there = Arc::clone(&shared);
        fiber::run(kib << 10, move || {
            exhaust(&there);
            exhaust(&Setup::guest(&recursive()).function(nothing()).plugin());
        });
        exhaust(&shared);
    });
}

/// The stack pointer lies outside of what the system knows as the thread's stack, as with fibers of Ruby and PHP.
#[test]
fn recursion_on_a_fiber_of_256_kib() {
    on_fiber_of(256);
}

#[test]
fn recursion_on_a_fiber_of_1_mib() {
    on_fiber_of(1024);
}

#[test]
fn recursion_on_a_fiber_of_8_mib() {
    on_fiber_of(8192);
}

/// The JVM, Ruby, CPython and V8 look at the stack pointer: callbacks are run where the call came from.
#[test]
fn host_functions_run_on_the_callers_own_thread_and_stack() {
    let seen: Arc<Mutex<Vec<(ThreadId, usize)>>> = Arc::default();
    let list = Arc::clone(&seen);
    let place = HostFunction::new("nothing", &[], &[], move |_, _, _| {
        let here = 0u8;
        list.lock().unwrap().push((thread::current().id(), &raw const here as usize));
    });
    within(60, move || {
        let plugin = Arc::new(Setup::guest(&recursive()).function(place).plugin());
        for kib in [64, 128, 512, 8192] {
            let plugin = Arc::clone(&plugin);
            let seen = Arc::clone(&seen);
            on_thread(kib, move || {
                seen.lock().unwrap().clear();
                let here = 0u8;
                let here = &raw const here as usize;
                assert_eq!(plugin.call("depth", 100u64.to_le_bytes()).code, 0);
                let (id, there) = seen.lock().unwrap()[0];
                assert_eq!(id, thread::current().id(), "{kib} KiB");
                assert!(there < here && here - there < kib << 10, "{kib} KiB: {here:#x} {there:#x}");
            });
        }
    });
}

/// What the start-up of a plug-in and of its linked modules recurses into.
#[test]
fn start_ups_without_end() {
    within(60, || {
        let go = "(func $go (call $go) (call $go))";
        for start in [
            "(start $go)",
            r#"(export "_initialize" (func $go))"#,
            r#"(export "__wasm_call_ctors" (func $go))"#,
            r#"(func (export "hs_init") (param i32 i32) (call $go))"#,
            r#"(export "_start" (func $go))"#,
            r#"(func $again (export "_start") (call $again) (call $again))"#,
        ] {
            let lib = guest(&format!(r#"{go} {start} (func (export "f"))"#));
            let main = r#"(module (import "lib" "f" (func $f)) (export "run" (func $f)))"#;
            let name = if start.contains("_start") { "_start" } else { "run" };
            let one = Setup::guest(&format!(r#"{go} {start} (func (export "run"))"#)).plugin();
            let linked = Setup::linked(&[("lib", &lib), ("main", main)]).plugin();
            let (one, linked) = (Arc::new(one), Arc::new(linked));
            for kib in [64, 512, 8192] {
                let (one, linked) = (Arc::clone(&one), Arc::clone(&linked));
                on_thread(kib, move || {
                    let (code, error) = one.run(name).failure();
                    assert!(code == 134 && error.contains("call stack exhausted"), "{start} {kib}: {code} {error}");
                    // Of a linked module the start section and `_initialize` run.
                    if start.contains("(start") || start.contains("_initialize") {
                        let (code, error) = linked.run("run").failure();
                        assert!(code == 134 && error.contains("call stack exhausted"), "{start} {kib}: {code} {error}");
                    } else {
                        assert_eq!(linked.code("run"), 0, "{start} {kib}");
                    }
                });
            }
        }
    });
}

/// What the library itself recurses into: parsers. On short stacks, too, what nests too deep is an error.
#[test]
fn input_that_nests_deep_on_short_stacks() {
    within(100, || {
        let nested = |open: &str, close: &str, n: usize| format!("{}{}", open.repeat(n), close.repeat(n));
        for n in [100, 1000, 100_000] {
            let inputs = [
                nested("(", ")", n),
                format!("(module {})", nested("(func ", ")", n)),
                format!("(module (func {}))", nested("(block ", ")", n)),
                format!("(module (func (drop {}(i32.const 1){})))", "(i32.eqz ".repeat(n), ")".repeat(n)),
                format!("(module (global i32 {}(i32.const 1){}))", "(i32.add (i32.const 1) ".repeat(n), ")".repeat(n)),
                nested("{\"wasm\":", "}", n),
                format!("{{\"wasm\":{}}}", nested("[", "]", n)),
                format!("wasm = {}", nested("[", "]", n)),
                format!("wasm = {}", nested("{a=", "}", n)),
                format!("{} = 1", vec!["a"; n].join(".")),
                format!("[{}]", vec!["a"; n].join(".")),
            ];
            for kib in [64, 256, 8192] {
                let inputs = inputs.clone();
                on_thread(kib, move || {
                    for input in inputs {
                        if let Err(error) = Setup::new(input).try_plugin() {
                            assert!(!error.is_empty());
                        }
                    }
                });
            }
        }
    });
}

/// What guests call runs on short stacks like on others: the network, files, variables, log lines.
#[test]
fn guest_functions_on_short_stacks() {
    within(60, || {
        let scratch = Scratch::new("short-stacks");
        let server = Server::new(|_| Reply::new(200, vec![b'x'; 100_000]).header("x-one", "1"));
        let body = format!(
            r#"(func (export "run") (result i32) (local $block i64)
                 (call $var_set (text 'key') (text 'value')) (call $log_warn (text 'a line'))
                 (drop (call $config_get (text 'key')))
                 (call $error_set (text 'an error')) (call $error_set (i64.const 0))
                 (local.set $block (call $http_request (text '{{"url":"{}"}}') (i64.const 0)))
                 (call $note (call $length (local.get $block))) (call $note (call $length (call $http_headers)))
                 (call $note_i32 (call $path_open (i32.const 3) (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 0)
                   (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 100)))
                 (call $output (call $var_get (text 'key')))
                 (call $http_status_code))"#,
            server.url("/")
        );
        let setup = Setup::guest(&body).wasi().with("allowed_hosts", json!(["127.0.0.1"]));
        let compiled =
            Arc::new(setup.with("allowed_paths", json!({scratch.path().to_str().unwrap(): "/data"})).compile());
        let expected = compiled.plugin().run("run");
        assert_eq!((expected.code, &expected.output[..]), (200, &b"value"[..]), "{:?}", expected.error);
        let noted = compiled.plugin().take_notes();
        for kib in [64, 128, 256, 8192] {
            let (compiled, expected, noted) = (Arc::clone(&compiled), expected.clone(), noted.clone());
            on_thread(kib, move || {
                let plugin = compiled.plugin();
                assert_eq!(plugin.run("run"), expected, "{kib} KiB");
                assert_eq!(plugin.take_notes(), noted, "{kib} KiB");
            });
        }
    });
}
