//! What a plug-in can read: never a byte of the host, of another plug-in, or of blocks of an earlier call.
//!
//! One guest writes a pattern wherever it can, and a call, an instance or a plug-in later another one looks at every
//! byte that there is. All that it may find is zeros.

use extism_tests::{HostFunction, Plugin, Reply, Server, Setup, Type, json, within};

use super::{FINE, cancel};

/// `$fill` puts the pattern into blocks of many sizes, frees some of them, and into input, output, error and
/// variables. `look` notes how many bytes of Extism memory are not zero, how many of its own memory from page 1 on,
/// and what lies behind the end of both.
const GUEST: &str = r#"
    (global $seen (mut i32) (i32.const 0)) (table $t 10 funcref)
    (func $pattern (param $n i64) (result i64) (local $block i64) (local $at i64)
      (local.set $block (call $alloc (local.get $n)))
      (loop $next
        (call $store_u64 (i64.add (local.get $block) (local.get $at)) (i64.const 0x5ec2e75ec2e75ec2))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br_if $next (i64.le_u (i64.add (local.get $at) (i64.const 8)) (local.get $n))))
      (local.get $block))
    (func $fill (local $n i64) (local $block i64)
      (local.set $n (i64.const 8))
      (loop $next
        (local.set $block (call $pattern (local.get $n)))
        (if (i64.eqz (i64.and (local.get $n) (i64.const 16))) (then (call $free (local.get $block))))
        (br_if $next (i64.lt_u (local.tee $n (i64.add (local.get $n) (i64.const 1000))) (i64.const 40000))))
      (call $output (call $pattern (i64.const 3000000)))
      (call $error_set (call $pattern (i64.const 100)))
      (memory.fill (i32.const 65536) (i32.const 0x5e) (i32.const 131072)))
    (func (export "fill") (call $fill) (call $error_set (i64.const 0)))
    (func (export "trap") (call $fill) unreachable)
    (func (export "oom") (call $fill) (drop (call $alloc (i64.const -1))))
    (func (export "exit") (call $fill) (call $proc_exit (i32.const 0)))
    (func (export "recursion") (call $fill) (call $deeper))
    (func $deeper (call $deeper) (call $deeper))
    (func (export "loop") (call $fill) (call $note (i64.const 1)) (loop $l (br $l)))
    (func $dirty (result i64) (local $at i64) (local $end i64) (local $dirty i64)
      (local.set $end (call $memory_bytes))
      (loop $next
        (local.set $dirty (i64.add (local.get $dirty)
          (i64.extend_i32_u (i64.ne (call $load_u64 (local.get $at)) (i64.const 0)))))
        (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 8))) (local.get $end))))
      (local.get $dirty))
    (func $own (result i32) (local $at i32) (local $dirty i32)
      (local.set $at (i32.const 65536))
      (loop $next
        (local.set $dirty (i32.add (local.get $dirty) (i64.ne (i64.load (local.get $at)) (i64.const 0))))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (i32.const 196608))))
      (local.get $dirty))
    (func (export "look")
      (call $note (call $dirty))
      (drop (call $alloc (i64.const 6000000)))
      (call $note (call $dirty))
      (call $note (call $error_get)) (call $note (call $output_offset)) (call $note (call $output_length))
      (call $note (call $input_offset)) (call $note_i32 (call $http_status_code)) (call $note (call $http_headers)))
    (func (export "look_at_own") (call $note_i32 (call $own))
      (call $note_i32 (ref.is_null (table.get $t (i32.const 5)))))
    (func (export "behind") (drop (call $load_u8 (call $memory_bytes))))
    (func (export "behind_own") (drop (i32.load8_u (i32.const 196608))))
    (func (export "reset") (call $fill) (call $error_set (i64.const 0)) (call $reset) (call $note (call $dirty)))
    (func (export "var_set") (call $var_set (text 'k') (call $pattern (i64.const 1000))))
    (func (export "var_get") (call $note (call $var_get (text 'k'))))
    (func (export "config_get") (call $note (call $config_get (text 'k'))))
    (memory 3)"#;

const NOTHING: [i64; 8] = [0; 8];

fn guest() -> Setup {
    Setup::guest(&format!("{GUEST} {FINE}")).wasi()
}

#[test]
fn a_call_finds_nothing_of_the_one_before_however_that_ended() {
    within(60, || {
        let limited = guest().with("timeout_ms", json!(5000)).plugin();
        let input = vec![0x5e; 100_000];
        for (function, code) in [("fill", 0), ("trap", -1), ("oom", -1), ("exit", 0), ("recursion", -1)] {
            assert_eq!(limited.call(function, &input).code, code, "{function}");
            assert_eq!(limited.notes("look", ""), NOTHING, "after {function}");
        }
        assert_eq!(cancel(&limited, "loop", &input).failure(), (134, "cancelled".to_owned()));
        assert_eq!(limited.notes("look", ""), NOTHING, "after a cancel");
        assert_eq!(limited.notes("reset", &input), [0], "after a reset in the middle of a call");
        assert_eq!(limited.call("fill", &input).code, 0);
        assert!(limited.reset());
        assert_eq!(limited.notes("look", ""), NOTHING, "after a reset by the host");
        for function in ["behind", "behind_own"] {
            let (code, error) = limited.run(function).failure();
            assert!(code == 134 && error.contains("out of bounds"), "{code} {error}");
        }
    });
}

#[test]
fn a_call_finds_nothing_after_a_timeout_and_after_the_fuel_ran_out() {
    within(60, || {
        for plugin in [guest().with("timeout_ms", json!(1000)).plugin(), guest().fuel(500_000_000).plugin()] {
            assert_ne!(plugin.call("loop", vec![0x5e; 100_000]).code, 0);
            assert_eq!(plugin.notes("look", "")[..], NOTHING);
        }
    });
}

#[test]
fn a_failed_start_up_leaves_nothing_for_the_next_one() {
    let body = format!(
        r#"{} {FINE} (global $n (mut i32) (i32.const 0))
           (func (export "_initialize") (call $note (call $dirty)) (call $note_i32 (call $own))
             (call $fill) unreachable)"#,
        GUEST
    );
    let plugin = Setup::guest(&body).wasi().plugin();
    for _ in 0..3 {
        plugin.take_notes();
        assert_eq!(plugin.call("look", [0x5e; 1000]).code, -1, "the error that was set, and a trap");
        assert_eq!(plugin.take_notes(), [0, 0]);
        assert_eq!(plugin.output(), b"", "what a start-up made its output is not that of a call");
    }
}

#[test]
fn runs_of_a_command_find_nothing_of_each_other() {
    let body = format!(
        r#"{GUEST} {FINE} (func (export "_start") (call $note (call $dirty)) (call $note_i32 (call $own))
           (call $note_i32 (global.get $seen)) (global.set $seen (i32.const 1)) (call $fill)
             (call $error_set (i64.const 0)))"#
    );
    let plugin = Setup::guest(&body).wasi().plugin();
    for _ in 0..3 {
        assert_eq!(plugin.notes("_start", ""), [0, 0, 0]);
        assert_eq!(plugin.notes("look_at_own", ""), [0, 1]);
        assert_eq!(plugin.notes("look", ""), NOTHING);
    }
}

#[test]
fn plugins_of_one_compiled_plugin_find_nothing_of_each_other() {
    let compiled = guest().with("config", json!({})).compile();
    let (one, other) = (compiled.plugin(), compiled.plugin());
    assert!(one.configure(r#"{"k": "secret"}"#));
    for function in ["fill", "var_set"] {
        assert_eq!(one.call(function, vec![0x5e; 100_000]).code, 0);
    }
    for plugin in [&other, &compiled.plugin()] {
        assert_eq!(plugin.notes("look", ""), NOTHING);
        assert_eq!(plugin.notes("look_at_own", ""), [0, 1]);
        assert_eq!(plugin.notes("var_get", ""), [0]);
        assert_eq!(plugin.notes("config_get", ""), [0]);
        assert_eq!(plugin.output(), b"");
    }
    assert_ne!(one.notes("config_get", ""), [0], "the one has it");
    assert_ne!(one.notes("var_get", ""), [0]);
}

/// Memories of plug-ins that are gone are given out again, with nothing in them.
#[test]
fn a_new_plugin_finds_nothing_of_those_before_it() {
    within(100, || {
        let body = r#"(memory 3)
            (func $sum (result i64) (local $at i64) (local $sum i64)
              (loop $next
                (local.set $sum (i64.or (local.get $sum) (call $load_u64 (local.get $at))))
                (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 4096)))
                  (call $memory_bytes))))
              (loop $next
                (local.set $sum (i64.or (local.get $sum) (i64.load offset=16384 (i32.wrap_i64 (local.get $at)))))
                (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 4096)))
                  (i64.const 172032))))
              (local.get $sum))
            (func $dirty (local $at i64)
              (drop (call $alloc (i64.const 100000)))
              (memory.fill (i32.const 16384) (i32.const 0x5e) (i32.const 180224))
              (loop $next
                (call $store_u64 (local.get $at) (i64.const -1))
                (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 8)))
                  (call $memory_bytes)))))
            (func (export "run") (call $note (call $sum)) (call $dirty))"#;
        let compiled = Setup::guest(body).compile();
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| (0..1500).for_each(|_| assert_eq!(compiled.plugin().call("run", [0; 100]).code, 0)));
            }
        });
        let last = compiled.plugin();
        let notes = last.notes("run", "");
        assert!(notes.iter().all(|note| *note == 0), "of all plug-ins: {:?}", notes.iter().find(|note| **note != 0));
    });
}

/// The same of tables, which are larger than the part of one that stays in memory, and grow.
#[test]
fn a_new_plugin_finds_nothing_in_tables() {
    let guest = |kind: &str, value: &str| {
        let body = format!(
            r#"(table $t 700 20000 {kind}) (func $f) (elem declare func $f)
               (func (export "run") (local $i i32) (local $seen i64)
                 (drop (table.grow $t (ref.null {heap}) (i32.const 5000)))
                 (loop $next
                   (if (i32.eqz (ref.is_null (table.get $t (local.get $i))))
                     (then (local.set $seen (i64.add (local.get $seen) (i64.const 1)))))
                   (table.set $t (local.get $i) ({value}))
                   (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (table.size $t))))
                 (call $note (local.get $seen)) (call $note_i32 (table.size $t)))"#,
            heap = kind.trim_end_matches("ref"),
        );
        Setup::guest(&body).compile()
    };
    within(60, move || {
        let kinds = [guest("funcref", "ref.func $f"), guest("anyref", "ref.i31 (local.get $i)")];
        for round in 0..200 {
            let compiled = &kinds[round % 2];
            for plugin in [compiled.plugin(), compiled.plugin()] {
                assert_eq!(plugin.notes("run", ""), [0, 5700], "round {round}");
            }
        }
    });
}

#[test]
fn what_host_functions_and_responses_put_into_memory_is_gone_too() {
    within(60, || {
        let server = Server::new(|_| Reply::new(200, vec![0x5e; 300_000]).header("x-secret", "5e5e5e5e"));
        let place = HostFunction::new("place", &[], &[Type::I64], |current, _, outputs| {
            outputs[0].bits = current.place(&vec![0x5e; 70_000]);
            current.free(current.place(&vec![0x5e; 70_000]));
        });
        let body = format!(
            r#"(import "extism:host/user" "place" (func $place (result i64))) {GUEST} {FINE}
               (func (export "get") (drop (call $place)) (drop (call $config_get (text 'large')))
                 (drop (call $http_request (text '{{"url":"{}"}}') (i64.const 0))) (drop (call $http_headers)))"#,
            server.url("/")
        );
        let setup = Setup::guest(&body).wasi().function(place).with("allowed_hosts", json!(["127.0.0.1"]));
        let compiled = setup.with("config", json!({"large": "^".repeat(100_000)})).compile();
        let (one, other) = (compiled.plugin(), compiled.plugin());
        one.allow_response_headers();
        assert_eq!(one.code("get"), 0);
        assert_eq!(one.notes("look", "")[..6], NOTHING[..6], "but for the status and the headers, which stay");
        assert_eq!(other.notes("look", ""), NOTHING);
    });
}

/// What a guest writes outside of its blocks may come back to that plug-in, and to no other one.
#[test]
fn bytes_outside_of_blocks_reach_no_other_plugin() {
    let compiled = Setup::guest(
        r#"(func (export "write") (call $store_u64 (i64.const 60000) (i64.const -1))
          (call $store_u64 (i64.const 0) (i64.const -1)))
           (func (export "read") (call $note (call $load_u64 (i64.const 60000)))
             (call $note (call $load_u64 (i64.const 0))))"#,
    )
    .compile();
    for _ in 0..20 {
        let one = compiled.plugin();
        assert_eq!(one.code("write"), 0);
        assert_eq!(compiled.plugin().notes("read", ""), [0, 0]);
        drop(one);
        assert_eq!(compiled.plugin().notes("read", ""), [0, 0]);
    }
}

/// A guest and its memory dump: nothing of the modules, the environment or other guests is to be seen from inside.
#[test]
fn a_guest_sees_the_zeros_of_a_fresh_memory_only() {
    let plugin: Plugin = guest().plugin();
    assert_eq!(plugin.notes("look", ""), NOTHING);
    assert_eq!(plugin.notes("look_at_own", ""), [0, 1]);
}
