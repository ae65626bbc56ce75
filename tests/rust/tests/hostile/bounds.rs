//! What the library keeps for a plug-in, or reads of it: variables, log lines, configuration, requests, the account of
//! its blocks. All of it has bounds.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use extism_tests::{HostFunction, PAGE, Plugin, Reply, Server, Setup, Type, api, in_child, json, slowdown, within};

use super::{FINE, MIB, assert_ended, assert_fine, growth, limited, words};

const VARIABLES: &str = r#"
    (func $name (param $i i64) (param $length i64) (result i64) (local $h i64)
      (local.set $h (call $alloc (local.get $length)))
      (call $store_u64 (local.get $h) (local.get $i)) (local.get $h))
    (func (export "run") (local $i i64)
      (loop $l
        (call $reset)
        (call $var_set (call $name (local.get $i) (call $input_load_u64 (i64.const 0)))
                       (call $alloc (call $input_load_u64 (i64.const 8))))
        (call $note (local.tee $i (i64.add (local.get $i) (i64.const 1))))
        (br $l)))"#;

/// Tiny ones, those with long names, those with long values: a mebibyte of names and values together.
#[test]
fn variables_end_however_they_are_made() {
    within(100, || {
        for [name, value] in [[8, 1], [8, 8], [100_000, 1], [8, 100_000], [1_000_000, 40_000]] {
            // The numbers are in the module, as a reset takes the input away.
            let body = VARIABLES
                .replace("(call $input_load_u64 (i64.const 0))", &format!("(i64.const {name})"))
                .replace("(call $input_load_u64 (i64.const 8))", &format!("(i64.const {value})"));
            let plugin = Plugin::new(&format!("{body} {FINE}"));
            let mut made = 0;
            let more = growth(|| {
                assert_ended(plugin.run("run"), -1, "Variable store is full");
                made = plugin.take_notes().len() as u64;
            });
            assert_eq!(made, MIB / (name + value), "{name} {value}");
            assert!(more < 64 * MIB, "{made} variables: {} KiB", more >> 10);
            assert_fine(&plugin);
        }
    });
}

static DRAINED: AtomicUsize = AtomicUsize::new(0);

unsafe extern "C" fn count_bytes(_: *const std::ffi::c_char, length: u64) {
    DRAINED.fetch_add(length as usize, Ordering::SeqCst);
}

/// 16 MiB is what waits to be drained, whatever the lines are: hundreds of thousands, or a few of a GiB.
#[test]
fn log_lines_that_nobody_drains_end() {
    in_child("bounds::log_lines_that_nobody_drains_end", &[], || {
        // SAFETY: a NUL-terminated text.
        assert!(unsafe { (api().log_custom)(c"info".as_ptr()) });
        let plugin = Plugin::new(&format!(
            r#"{FINE}
               (func (export "short") (local $i i32)
                 (loop $l
                   (call $log_info (call $alloc (i64.const 1)))
                   (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 400000)))))
               (func (export "long") (local $i i32)
                 (loop $l
                   (call $log_error (call $alloc (i64.const 0x20000000)))
                   (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 3)))))
               (func (export "empty") (local $i i32)
                 (loop $l
                   (call $log_warn (i64.const 0))
                   (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 400000)))))"#
        ));
        for function in ["short", "long", "empty"] {
            let more = growth(|| assert_eq!(plugin.code(function), 0));
            assert!(more < 100 * MIB, "{function}: {} MiB", more / MIB);
            assert_fine(&plugin);
            DRAINED.store(0, Ordering::SeqCst);
            // SAFETY: a handler of the declared type.
            unsafe { (api().log_drain)(count_bytes) };
            let drained = DRAINED.load(Ordering::SeqCst) as u64;
            assert!(drained > 0 && drained <= 17 * MIB, "{function}: {drained} bytes");
        }
    });
}

/// Configuration is the host's; what a guest copies of it counts as its own.
#[test]
fn copies_of_large_configuration_count() {
    within(30, || {
        let body = r#"(func (export "run") (loop $l (drop (call $config_get (text 'large'))) (br $l)))
            (func (export "free") (local $i i32)
              (loop $l
                (call $free (call $config_get (text 'large')))
                (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000)))))
            (func (export "key") (call $note (call $config_get (call $alloc (i64.const 8000000)))))"#;
        let plugin = limited(body, 160).with("config", json!({"large": "x".repeat(1_000_000)})).plugin();
        let more = growth(|| {
            for _ in 0..3 {
                assert_ended(plugin.run("run"), -1, "oom");
                assert_eq!(plugin.code("free"), 0);
                assert_eq!(plugin.notes("key", ""), [0]);
                assert_fine(&plugin);
            }
        });
        assert!(more < 30 * MIB, "{} KiB", more >> 10);
    });
}

/// Blocks of one byte under a limit: their account in the host is small as well, and goes with the call.
#[test]
fn many_small_blocks() {
    within(60, || {
        let body = r#"(func (export "run") (loop $l (drop (call $alloc (i64.const 1))) (br $l)))
            (func (export "holes") (local $h i64)
              (loop $l (drop (call $alloc (i64.const 1))) (local.set $h (call $alloc (i64.const 1)))
                (call $free (local.get $h)) (br $l)))"#;
        let plugin = limited(body, 160).plugin();
        let more = growth(|| {
            for function in ["run", "holes", "run", "holes"] {
                assert_ended(plugin.run(function), -1, "oom");
                assert_fine(&plugin);
            }
        });
        assert!(more < 64 * MIB, "{} MiB", more / MIB);
    });
}

/// A host function that fills the memory on behalf of its guest is told that there is no more, and all goes on.
#[test]
fn a_host_function_that_allocates_without_end() {
    within(30, || {
        let take = HostFunction::new("take", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
            let mut count = 0;
            while current.alloc(inputs[0].bits) != 0 {
                count += 1;
            }
            outputs[0].bits = count;
        });
        let body = r#"(import "extism:host/user" "take" (func $take (param i64) (result i64)))
            (func (export "run") (call $note (call $take (call $input_load_u64 (i64.const 0))))
              (call $note (call $memory_bytes)))"#;
        let plugin = limited(body, 10).function(take).plugin();
        for size in [16, 1000, PAGE, 9 * PAGE, 11 * PAGE, 1 << 40, u64::MAX] {
            let notes = plugin.notes("run", words(&[size]));
            let room = 11 * PAGE - 32;
            let expected = room / size.checked_next_multiple_of(16).unwrap_or(u64::MAX);
            assert!(notes[0].cast_unsigned() <= expected, "{size}: {notes:?}");
            assert!(size > PAGE || notes[0].cast_unsigned() + 1 >= expected, "{size}: {notes:?}");
            assert!(notes[1].cast_unsigned() <= 11 * PAGE, "{size}: {notes:?}");
            assert_fine(&plugin);
        }
    });
}

/// Blocks cost a guest nothing until it writes to them; what would be read of them is bounded, or refused.
#[test]
fn keys_values_and_texts_of_gigabytes() {
    within(60, || {
        let huge = "(call $alloc (i64.const 0xf0000000))";
        for (name, call, error) in [
            ("config_get", format!("(drop (call $config_get {huge}))"), None),
            ("var_get", format!("(drop (call $var_get {huge}))"), None),
            ("var_set", format!("(call $var_set {huge} (i64.const 0))"), None),
            ("a variable's name", format!("(call $var_set {huge} (text 'value'))"), Some("Variable store is full")),
            ("a variable", format!("(call $var_set (text 'name') {huge})"), Some("Variable store is full")),
            ("log_error", format!("(call $log_error {huge})"), None),
            ("error_set", format!("(call $error_set {huge}) (call $error_set (i64.const 0))"), None),
            ("http_request", format!("(drop (call $http_request {huge} (i64.const 0)))"), Some("at most")),
            ("a body", format!("(drop (call $http_request (text '{{}}') {huge}))"), Some("at most")),
            ("memory", "(drop (call $alloc (i64.const 0xf0000000))) (call $reset) (call $reset)".to_owned(), None),
        ] {
            let plugin = Plugin::new(&format!(r#"(func (export "run") {call}) {FINE}"#));
            let began = Instant::now();
            let mut ended = None;
            let more = growth(|| ended = Some(plugin.run("run")));
            let ended = ended.unwrap();
            assert_eq!(ended.code, if error.is_some() { -1 } else { 0 }, "{name}: {:?}", ended.error);
            assert!(ended.error.as_deref().unwrap_or("").contains(error.unwrap_or("")), "{name}: {:?}", ended.error);
            assert!(began.elapsed() < Duration::from_secs(5) * slowdown(), "{name} took {:?}", began.elapsed());
            assert!(more < 64 * MIB, "{name}: {} MiB", more / MIB);
            assert_fine(&plugin);
        }
    });
}

/// The description of a request is text of the guest's, too.
#[test]
fn requests_that_nest_without_end() {
    within(20, || {
        let plugin = Plugin::new(&format!(
            r#"(func (export "run") (drop (call $http_request (call $input_offset) (i64.const 0)))) {FINE}"#
        ));
        for text in [
            "[".repeat(1_000_000),
            r#"{"url":"#.repeat(100_000),
            "9".repeat(1_000_000),
            format!(r#"{{"url":"{}"}}"#, "http://a".repeat(100_000)),
        ] {
            let (code, error) = plugin.call("run", text).failure();
            assert_eq!(code, -1);
            assert!(!error.is_empty() && error.len() < 2 * MIB as usize, "{} bytes", error.len());
            assert_fine(&plugin);
        }
    });
}

/// Requests that nobody answers, given up on again and again: how many of them are left behind has an end.
#[test]
fn requests_that_are_given_up_on_are_bounded() {
    within(60, || {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let server = Server::new(|_| Reply::never());
        let body = format!(
            r#"(func (export "run") (drop (call $http_request (text '{{"url":"{}"}}') (i64.const 0)))) {FINE}"#,
            server.url("/")
        );
        let setup = Setup::guest(&body).with("allowed_hosts", json!(["127.0.0.1"])).with("timeout_ms", json!(20));
        let compiled = setup.compile();
        let before = threads();
        for _ in 0..100 {
            let plugin = compiled.plugin();
            let (code, error) = plugin.run("run").failure();
            assert!(
                (code, error.as_str()) == (134, "timeout") || code == -1 && error.contains("request"),
                "{code} {error}"
            );
            assert_fine(&plugin);
        }
        // Each request is a thread of the library's, and of this server's.
        assert!(threads() < before + 80, "{} threads more", threads() - before);
    });
}
