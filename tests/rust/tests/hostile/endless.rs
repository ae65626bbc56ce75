//! Code that never ends, wherever a plug-in has code: its time ends it, and so does a cancel.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::{Duration, Instant};

use extism_tests::{HostFunction, Plugin, Reply, Server, Setup, guest, json, slowdown, within};

use super::{FINE, assert_fine, cancel};

/// Bodies that do not end by themselves; what they need beside themselves is in [`PARTS`].
const WAYS: [(&str, &str); 17] = [
    ("loop", "(loop $l (br $l))"),
    ("loop with branches", "(loop $l (block $a (block $b (br_table $a $b $l (i32.const 9)))) (br $l))"),
    ("recursion that returns", "(call $twice (i32.const 60))"),
    ("recursion of two", "(call $ping (i32.const 60))"),
    ("indirect recursion", "(call_indirect (type $of_i32) (i32.const 60) (i32.const 0))"),
    ("recursion by reference", "(call_ref $of_i32 (i32.const 60) (ref.func $twice))"),
    ("tail calls", "(call $tail)"),
    ("indirect tail calls", "(call $tail_indirect)"),
    ("exceptions", "(loop $l (block $b (try_table (catch_all $b) (throw $tag))) (br $l))"),
    ("allocs", "(loop $l (call $free (call $alloc (i64.const 100000))) (br $l))"),
    ("variables", "(loop $l (call $var_set (text 'key') (text 'value')) (call $reset) (br $l))"),
    ("log", "(loop $l (call $log_info (text 'line')) (call $reset) (br $l))"),
    ("host function", "(loop $l (call $nothing) (br $l))"),
    ("fills", "(loop $l (memory.fill (i32.const 1024) (i32.const 1) (i32.const 60000)) (br $l))"),
    ("growth", "(loop $l (drop (memory.grow (i32.const 70000))) (br $l))"),
    (
        "resets",
        "(loop $l (call $store_u8 (i64.add (call $alloc (i64.const 0xf0000000)) (i64.const 0xefffffff))
          (i32.const 1)) (call $reset) (br $l))",
    ),
    ("garbage", "(loop $l (drop (array.new_default $bytes (i32.const 100000))) (br $l))"),
];

const PARTS: &str = r#"
    (type $of_i32 (func (param i32))) (type $bytes (array (mut i8))) (tag $tag)
    (table $functions funcref (elem $twice)) (table $tails funcref (elem $tail_indirect)) (memory (export "memory") 1)
    (func $twice (type $of_i32) (if (local.get 0) (then
      (call $twice (i32.sub (local.get 0) (i32.const 1))) (call $twice (i32.sub (local.get 0) (i32.const 1))))))
    (func $ping (param i32) (if (local.get 0) (then
      (call $pong (i32.sub (local.get 0) (i32.const 1))) (call $pong (i32.sub (local.get 0) (i32.const 1))))))
    (func $pong (param i32) (if (local.get 0) (then
      (call $ping (i32.sub (local.get 0) (i32.const 1))) (call $ping (i32.sub (local.get 0) (i32.const 1))))))
    (func $tail (return_call $tail))
    (func $tail_indirect (return_call_indirect $tails (i32.const 0)))
    (func $sleep (i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))))"#;

/// Where the endless function `$go` is run from.
#[derive(Clone, Copy, Debug)]
enum Place {
    Export,
    Start,
    Initialize,
    HsInit,
    Constructors,
    InitializeBeforeHsInit,
    Command,
    StartOfCommand,
    Linked,
    LinkedStart,
    LinkedInitialize,
    LinkedCommand,
    LinkedCommandStart,
    BackFromCommand,
}

const PLACES: [Place; 14] = [
    Place::Export,
    Place::Start,
    Place::Initialize,
    Place::HsInit,
    Place::Constructors,
    Place::InitializeBeforeHsInit,
    Place::Command,
    Place::StartOfCommand,
    Place::Linked,
    Place::LinkedStart,
    Place::LinkedInitialize,
    Place::LinkedCommand,
    Place::LinkedCommandStart,
    Place::BackFromCommand,
];

impl Place {
    /// A plug-in in which this place runs `way`, and the export to call for it.
    fn setup(self, way: &str) -> (Setup, &'static str) {
        let go = format!(
            r#"(import "extism:host/user" "nothing" (func $nothing)) {PARTS}
               (func $go (call $note (i64.const 1)) {way})"#
        );
        let one = |more: &str| Setup::guest(&format!(r#"{go} {more} (func (export "run")) {FINE}"#));
        let linked = |more: &str| {
            let lib = guest(&format!("{go} {more}"));
            let main = format!(r#"(module (import "lib" "f" (func $f)) (export "run" (func $f)) {FINE})"#);
            Setup::linked(&[("lib", &lib), ("main", &main)])
        };
        let command = r#"(func (export "_start"))"#;
        let setup = match self {
            Self::Export => return (Setup::guest(&format!(r#"{go} (export "run" (func $go)) {FINE}"#)), "run"),
            Self::Start => one("(start $go)"),
            Self::Initialize => one(r#"(export "_initialize" (func $go))"#),
            Self::HsInit => one(r#"(func (export "hs_init") (param i32 i32) (call $go))"#),
            Self::Constructors => one(r#"(export "__wasm_call_ctors" (func $go))"#),
            Self::InitializeBeforeHsInit => {
                one(r#"(func (export "hs_init") (param i32 i32)) (export "_initialize" (func $go))"#)
            }
            Self::Command => return (one(r#"(export "_start" (func $go))"#), "_start"),
            Self::StartOfCommand => return (one(&format!("(start $go) {command}")), "_start"),
            Self::Linked => linked(r#"(export "f" (func $go))"#),
            Self::LinkedStart => linked(r#"(start $go) (func (export "f"))"#),
            Self::LinkedInitialize => linked(r#"(export "_initialize" (func $go)) (func (export "f"))"#),
            Self::LinkedCommand => linked(&format!(r#"{command} (export "f" (func $go))"#)),
            Self::LinkedCommandStart => linked(&format!(r#"{command} (start $go) (func (export "f"))"#)),
            Self::BackFromCommand => {
                let reactor = guest(&format!(r#"{go} (export "f" (func $go))"#));
                let command =
                    format!(r#"(module (import "reactor" "f" (func $f)) {command} (func (export "f") (call $f)))"#);
                let main = format!(r#"(module (import "command" "f" (func $f)) (export "run" (func $f)) {FINE})"#);
                Setup::linked(&[("reactor", &reactor), ("command", &command), ("main", &main)])
            }
        };
        (setup, "run")
    }

    /// Whether `fine` works beside it: not where every instance begins with what never ends.
    fn has_fine(self) -> bool {
        matches!(
            self,
            Self::Export | Self::Linked | Self::LinkedCommand | Self::LinkedCommandStart | Self::BackFromCommand
        )
    }
}

fn nothing() -> HostFunction {
    HostFunction::new("nothing", &[], &[], |_, _, _| {})
}

/// One way in all places, against the clock and against a cancel.
fn ends(name: &str, way: &str, decorate: impl Fn(Setup) -> Setup) {
    for place in PLACES {
        let setup = || {
            let (setup, function) = place.setup(way);
            (decorate(setup.function(nothing()).wasi()), function)
        };
        let (limited, function) = setup();
        let plugin = limited.with("timeout_ms", json!(20)).plugin();
        for _ in 0..2 {
            let began = Instant::now();
            assert_eq!(plugin.run(function).failure(), (134, "timeout".to_owned()), "{name} in {place:?}");
            let took = began.elapsed();
            assert!(took < Duration::from_millis(1000) * slowdown(), "{name} in {place:?}: {took:?}");
        }
        if place.has_fine() {
            assert_fine(&plugin);
        }
        let plugin = setup().0.plugin();
        assert_eq!(cancel(&plugin, function, b"").failure(), (134, "cancelled".to_owned()), "{name} in {place:?}");
        if place.has_fine() {
            assert_fine(&plugin);
        }
    }
}

#[track_caller]
fn these_end(ways: &'static [(&str, &str)]) {
    within(100, move || ways.iter().for_each(|(name, way)| ends(name, way, |setup| setup)));
}

#[test]
fn loops_and_recursions_end_in_every_place() {
    these_end(&WAYS[..4]);
}

#[test]
fn calls_by_reference_and_tail_calls_end_in_every_place() {
    these_end(&WAYS[4..8]);
}

#[test]
fn loops_around_guest_functions_end_in_every_place() {
    these_end(&WAYS[8..12]);
}

#[test]
fn loops_around_large_instructions_end_in_every_place() {
    these_end(&WAYS[12..]);
}

#[test]
fn a_sleep_ends_in_every_place() {
    these_end(&[("sleep", "(call $sleep)"), ("sleep again and again", "(loop $l (call $sleep) (br $l))")]);
}

#[test]
fn a_wait_for_the_network_ends_in_every_place() {
    within(100, || {
        let server = Server::new(|_| Reply::never());
        let way = format!(r#"(drop (call $http_request (text '{{"url":"{}"}}') (i64.const 0)))"#, server.url("/"));
        ends("a request", &way, |setup| setup.with("allowed_hosts", json!(["127.0.0.1"])));
    });
}

/// Cancels from four threads without a pause: each call ends cancelled or with its right answer, and at once.
#[test]
fn a_storm_of_cancels() {
    within(60, || {
        let body = format!(
            r#"{PARTS} {FINE} (func (export "loop") (loop $l (br $l))) (func (export "sleep") (call $sleep))
               (func (export "some") (result i32) (local $i i32)
                 (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1)))
                   (i32.const 20000))))
                 (local.get $i))"#
        );
        let plugin = Arc::new(Setup::guest(&body).wasi().plugin());
        let ends = Arc::new(AtomicBool::new(false));
        let threads: Vec<_> = (0..4)
            .map(|_| {
                let (plugin, ends) = (Arc::clone(&plugin), Arc::clone(&ends));
                std::thread::spawn(move || {
                    while !ends.load(Ordering::SeqCst) {
                        assert!(plugin.cancel());
                    }
                })
            })
            .collect();
        let (mut whole, mut cut) = (0, 0);
        for round in 0..600 {
            let ended = plugin.run(["some", "loop", "some", "sleep"][round % 4]);
            match ended.code {
                20_000 => whole += 1,
                134 => {
                    assert_eq!(ended.error.as_deref(), Some("cancelled"));
                    cut += 1;
                }
                _ => panic!("{ended:?}"),
            }
        }
        ends.store(true, Ordering::SeqCst);
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(cut >= 300, "{whole} {cut}");
        assert_fine(&plugin);
        assert_eq!(plugin.code("some"), 20_000, "no cancel is left over");
    });
}

/// A cancel in the moment between two calls reaches neither.
#[test]
fn cancels_between_calls_reach_none() {
    let plugin = Plugin::new(&format!(
        r#"{FINE} (func (export "some") (result i32) (local $i i32)
             (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 5000))))
             (local.get $i))"#
    ));
    for _ in 0..2000 {
        assert!(plugin.cancel());
        assert_eq!(plugin.code("some"), 5000);
    }
}

/// Nothing interrupts one bulk instruction; its size bounds it, and the call ends right behind it.
#[test]
fn a_bulk_instruction_is_bounded_by_its_size() {
    within(60, || {
        // 64 MiB of memory and 8 Mi elements of tables: what max_pages allows.
        let body = format!(
            r#"{FINE} (memory 1024) (table $a 4194304 funcref) (table $b 4194304 funcref)
              (type $bytes (array (mut i8)))
               (global $one (mut (ref null $bytes)) (ref.null $bytes))
               (func (export "memory.fill") (loop $l (memory.fill (i32.const 0) (i32.const 1)
                 (i32.const 67108864)) (br $l)))
               (func (export "memory.copy") (loop $l (memory.copy (i32.const 0) (i32.const 1)
                 (i32.const 67108863)) (br $l)))
               (func (export "table.fill") (loop $l (table.fill $a (i32.const 0) (ref.null func)
                 (i32.const 4194304)) (br $l)))
               (func (export "table.copy") (loop $l (table.copy $a $b (i32.const 0) (i32.const 0)
                 (i32.const 4194304)) (br $l)))
               (func (export "array.fill")
                 (global.set $one (array.new_default $bytes (i32.const 30000000)))
                 (loop $l
                   (array.fill $bytes (global.get $one) (i32.const 0) (i32.const 1) (i32.const 30000000))
                   (array.copy $bytes $bytes (global.get $one) (i32.const 0) (global.get $one) (i32.const 1)
                     (i32.const 29999999))
                   (br $l)))"#
        );
        let setup = Setup::guest(&body).with("memory", json!({"max_pages": 2100}));
        let plugin = setup.with("timeout_ms", json!(20)).plugin();
        for function in ["memory.fill", "memory.copy", "table.fill", "table.copy", "array.fill"] {
            let began = Instant::now();
            assert_eq!(plugin.run(function).failure(), (134, "timeout".to_owned()), "{function}");
            assert!(began.elapsed() < Duration::from_secs(3) * slowdown(), "{function}: {:?}", began.elapsed());
            assert_fine(&plugin);
        }
    });
}

/// One call of a WASI function that has much to do: also that is over soon after the deadline.
#[track_caller]
fn wasi_is_bounded(functions: &'static [&str]) {
    within(100, move || {
        let body = format!(
            r#"(import "wasi_snapshot_preview1" "random_get" (func $random (param i32 i32) (result i32)))
               (memory (export "memory") 1024) {FINE}
               (func $buffers (local $at i32)
                 (loop $next
                   (i32.store (local.get $at) (i32.const 0)) (i32.store offset=4 (local.get $at) (i32.const 67108864))
                   (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8)))
                     (i32.const 8388608)))))
               (func (export "fd_write") (call $buffers)
                 (loop $l (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1048576)
                   (i32.const 8388616))) (br $l)))
               (func (export "fd_read") (call $buffers)
                 (loop $l (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1048576)
                   (i32.const 8388616))) (br $l)))
               (func (export "poll") (loop $l
                 (drop (call $poll_oneoff (i32.const 0) (i32.const 33554432) (i32.const 600000) (i32.const 8)))
                   (br $l)))
               (func (export "random_get") (loop $l (drop (call $random (i32.const 0) (i32.const 16777216)))
                 (br $l)))"#
        );
        let plugin = Setup::guest(&body).wasi().with("timeout_ms", json!(100)).plugin();
        for function in functions {
            let began = Instant::now();
            assert_eq!(plugin.run(function).failure(), (134, "timeout".to_owned()), "{function}");
            assert!(began.elapsed() < Duration::from_secs(3) * slowdown(), "{function}: {:?}", began.elapsed());
            assert_fine(&plugin);
        }
    });
}

#[test]
fn functions_of_wasi_with_a_million_buffers_are_bounded() {
    wasi_is_bounded(&["fd_write", "fd_read", "poll"]);
}

/// 16 MiB of random numbers in one call.
#[test]
fn random_numbers_do_not_outlast_the_deadline() {
    wasi_is_bounded(&["random_get"]);
}

/// A host function that a guest calls without end: the time that it takes itself is the host's, and no call more is
/// made once the deadline is over.
#[test]
fn host_functions_are_not_called_after_the_end() {
    within(30, || {
        let calls = Arc::new(AtomicU32::new(0));
        let counted = Arc::clone(&calls);
        let slow = HostFunction::new("nothing", &[], &[], move |_, _, _| {
            counted.fetch_add(1, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(30));
        });
        let body = format!(
            r#"(import "extism:host/user" "nothing" (func $nothing)) {FINE}
               (func (export "run") (loop $l (call $nothing) (br $l)))"#
        );
        let plugin = Setup::guest(&body).function(slow).with("timeout_ms", json!(100)).plugin();
        assert_eq!(plugin.run("run").failure(), (134, "timeout".to_owned()));
        let made = calls.load(Ordering::SeqCst);
        assert!((1..=4).contains(&made), "{made} calls of 30 ms each in 100 ms");
        assert_fine(&plugin);
    });
}
