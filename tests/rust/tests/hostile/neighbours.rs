//! Plug-ins beside hostile ones: of the same compiled plug-in, in other threads, at the same time. Their calls succeed
//! with the right answers, and in time.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use extism_tests::{Compiled, HostFunction, Plugin, Setup, guest, json, slowdown, within};

use super::{FINE, module, vector};

/// `work` adds up the bytes of its input, counts its calls in a variable, waits a little in a host function, and
/// gives the sum. The others do no good.
const GUEST: &str = r#"
    (memory (export "memory") 1) (table 1 funcref) (tag $tag)
    (func (export "work") (result i32) (local $at i64) (local $sum i32) (local $block i64) (local $count i64)
      (local.set $block (call $var_get (text 'count')))
      (if (i64.ne (local.get $block) (i64.const 0)) (then (local.set $count (call $load_u64 (local.get $block)))))
      (local.set $block (call $alloc (i64.const 8)))
      (call $store_u64 (local.get $block) (i64.add (local.get $count) (i64.const 1)))
      (call $output (local.get $block))
      (call $var_set (text 'count') (local.get $block))
      (call $pause)
      (loop $next
        (local.set $sum (i32.add (local.get $sum) (call $input_load_u8 (local.get $at))))
        (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 1))) (call $input_length))))
      (local.get $sum))
    (func (export "loop") (loop $l (br $l)))
    (func (export "sleep")
      (i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
      (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))))
    (func (export "trap") (call $error_set (i64.const 0)) unreachable)
    (func (export "recursion") (call $deeper)) (func $deeper (call $deeper) (call $deeper))
    (func (export "throw") (throw $tag))
    (func (export "exit") (call $proc_exit (i32.const 9)))
    (func (export "memory of its own") (loop $l (if (i32.eq (memory.grow (i32.const 7)) (i32.const -1))
      (then unreachable)) (br $l)))
    (func (export "table") (loop $l (if (i32.eq (table.grow (ref.null func) (i32.const 99)) (i32.const -1))
      (then unreachable)) (br $l)))
    (func (export "blocks") (loop $l (drop (call $alloc (i64.const 50000))) (br $l)))
    (func (export "variables") (call $var_set (call $alloc (i64.const 2000000)) (call $alloc (i64.const 8))))
    (func (export "everything") (local $at i64)
      (loop $l (call $store_u8 (local.get $at) (i32.const 255)) (call $free (local.get $at))
        (local.set $at (i64.add (local.get $at) (i64.const 1))) (br $l)))"#;

/// The import comes first in a module.
const PAUSE: &str = r#"(import "extism:host/user" "pause" (func $pause))"#;

fn pause() -> HostFunction {
    HostFunction::new("pause", &[], &[], |_, _, _| std::thread::yield_now())
}

fn setup() -> Setup {
    Setup::guest(&format!("{PAUSE} {GUEST} {FINE}")).wasi().function(pause())
}

/// Calls of `work`, each with its right answer and in time, until somebody says that it is over. How many there were.
fn work(plugin: &Plugin, over: &AtomicBool) -> u64 {
    let (mut count, mut longest) = (0u64, Duration::ZERO);
    while !over.load(Ordering::SeqCst) {
        count += 1;
        let input = vec![(count % 100) as u8; 1000];
        let began = Instant::now();
        let ended = plugin.call("work", &input);
        longest = longest.max(began.elapsed());
        assert_eq!(ended.error, None, "call {count}");
        assert_eq!((ended.code, ended.output), (1000 * (count % 100) as i32, count.to_le_bytes().to_vec()));
    }
    assert!(longest < Duration::from_secs(2) * slowdown(), "the longest of {count} calls took {longest:?}");
    count
}

/// Runs the good and the bad ones side by side for this long. Each bad one has its own function, and the code and
/// the beginning of the text that its calls end with.
fn side_by_side(compiled: &Compiled, bad: &[(&str, i32, &str)], milliseconds: u64) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let good: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&compiled.plugin(), &over))).collect();
        for (function, code, error) in bad {
            let over = &over;
            scope.spawn(move || {
                let plugin = compiled.plugin();
                while !over.load(Ordering::SeqCst) {
                    let ended = plugin.run(function);
                    assert_eq!(ended.code, *code, "{function}: {:?}", ended.error);
                    assert!(ended.error.as_deref().unwrap_or("").contains(error), "{function}: {:?}", ended.error);
                }
            });
        }
        std::thread::sleep(Duration::from_millis(milliseconds));
        over.store(true, Ordering::SeqCst);
        for thread in good {
            let count = thread.join().unwrap();
            assert!(count > 10, "only {count} calls");
        }
    });
}

#[test]
fn beside_timeouts_traps_and_exits() {
    within(60, || {
        let compiled = setup().with("timeout_ms", json!(1000)).compile();
        let bad = [
            ("loop", 134, "timeout"),
            ("sleep", 134, "timeout"),
            ("trap", 134, "unreachable"),
            ("recursion", 134, "call stack exhausted"),
            ("throw", -1, ""),
            ("exit", 9, "WASI exit code: 9"),
            ("everything", 134, "out of bounds"),
        ];
        side_by_side(&compiled, &bad, 2500);
    });
}

#[test]
fn beside_those_that_run_out_of_fuel_and_memory() {
    within(60, || {
        let limits = setup().with("memory", json!({"max_pages": 200}));
        let compiled = limits.fuel(20_000_000).compile();
        let bad = [
            ("loop", -1, "plugin ran out of fuel"),
            ("memory of its own", -1, "oom"),
            ("table", -1, "oom"),
            ("blocks", -1, "oom"),
            ("variables", -1, "Variable store is full"),
        ];
        side_by_side(&compiled, &bad, 2000);
    });
}

/// Each cancel makes all guests look whether they are meant.
#[test]
fn beside_a_storm_of_cancels() {
    within(60, || {
        let compiled = setup().compile();
        let victims: Vec<_> = (0..2).map(|_| compiled.plugin()).collect();
        let (over, ended) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let good: Vec<_> = (0..4).map(|_| scope.spawn(|| work(&compiled.plugin(), &over))).collect();
            let callers: Vec<_> = victims
                .iter()
                .zip(["loop", "sleep"])
                .map(|(victim, function)| {
                    let (over, ended) = (&over, &ended);
                    scope.spawn(move || {
                        while !over.load(Ordering::SeqCst) {
                            assert_eq!(victim.run(function).failure(), (134, "cancelled".to_owned()));
                            ended.fetch_add(1, Ordering::SeqCst);
                        }
                    })
                })
                .collect();
            let victims = &victims;
            scope.spawn(move || {
                // Until the last of them has come back.
                while !callers.iter().all(|caller| caller.is_finished()) {
                    victims.iter().for_each(|victim| assert!(victim.cancel()));
                }
            });
            std::thread::sleep(Duration::from_millis(2000));
            over.store(true, Ordering::SeqCst);
            assert!(good.into_iter().all(|thread| thread.join().unwrap() > 10));
        });
        assert!(ended.load(Ordering::SeqCst) > 20, "{ended:?} calls were cancelled");
        for victim in victims {
            assert_eq!(victim.call("work", [1, 2]).code, 3, "and also they go on");
        }
    });
}

/// Many at once that are over at nearly the same moment, again and again.
#[test]
fn beside_many_short_timeouts() {
    within(60, || {
        let compiled = setup().compile();
        let short = setup().with("timeout_ms", json!(5)).compile();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let good: Vec<_> = (0..2).map(|_| scope.spawn(|| work(&compiled.plugin(), &over))).collect();
            for index in 0..16 {
                let (short, over) = (&short, &over);
                scope.spawn(move || {
                    let plugin = short.plugin();
                    while !over.load(Ordering::SeqCst) {
                        let function = ["loop", "sleep"][index % 2];
                        assert_eq!(plugin.run(function).failure(), (134, "timeout".to_owned()));
                    }
                });
            }
            std::thread::sleep(Duration::from_millis(2000));
            over.store(true, Ordering::SeqCst);
            assert!(good.into_iter().all(|thread| thread.join().unwrap() > 10));
        });
    });
}

/// Others come and go meanwhile: made, called, freed in the middle of their call, and refused at creation.
#[test]
fn beside_plugins_that_come_and_go() {
    within(60, || {
        let compiled = setup().compile();
        let over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let good: Vec<_> = (0..2).map(|_| scope.spawn(|| work(&compiled.plugin(), &over))).collect();
            scope.spawn(|| {
                while !over.load(Ordering::SeqCst) {
                    let plugin = compiled.plugin();
                    assert_eq!(plugin.call("work", [5]).code, 5);
                    assert_eq!(plugin.run("trap").code, 134);
                }
            });
            scope.spawn(|| {
                let mut n = 0;
                while !over.load(Ordering::SeqCst) {
                    n += 1;
                    let fresh = format!(r#"{PAUSE} {GUEST} (func (export "n") (result i32) (i32.const {n}))"#);
                    assert_eq!(Setup::guest(&fresh).wasi().function(pause()).plugin().code("n"), n);
                    Setup::new("(module (import \"no\" \"where\" (func)))").refusal();
                    Setup::new("\0asm garbage").refusal();
                }
            });
            std::thread::sleep(Duration::from_millis(2000));
            over.store(true, Ordering::SeqCst);
            assert!(good.into_iter().all(|thread| thread.join().unwrap() > 10));
        });
    });
}

/// The hostile part lies in a library, once kept and once made anew for each call.
#[test]
fn beside_hostile_linked_modules() {
    within(60, || {
        for start in ["", r#"(func (export "_start"))"#] {
            let names = ["loop", "trap", "recursion", "memory of its own", "blocks"];
            let lib = guest(&format!("{PAUSE} {start} {GUEST}"));
            let imports: String = names
                .iter()
                .map(|name| format!(r#"(import "lib" "{name}" (func ${})) "#, name.replace(' ', "_")))
                .collect();
            let exports: String =
                names.iter().map(|name| format!(r#"(export "{name}" (func ${}))"#, name.replace(' ', "_"))).collect();
            let main = format!(
                r#"(module (import "lib" "work" (func $work (result i32))) {imports} {exports}
                     (export "work" (func $work)) {FINE})"#
            );
            let compiled = Setup::linked(&[("lib", &lib), ("main", &main)])
                .wasi()
                .function(pause())
                .with("timeout_ms", json!(700))
                .with("memory", json!({"max_pages": 200}))
                .compile();
            let bad = [
                ("loop", 134, "timeout"),
                ("trap", 134, "unreachable"),
                ("recursion", 134, "call stack exhausted"),
                ("memory of its own", -1, "oom"),
                ("blocks", -1, "oom"),
            ];
            side_by_side(&compiled, &bad, 1500);
        }
    });
}

/// A module with so many types, all different, that it takes seconds to compile.
fn many_types() -> Vec<u8> {
    let of = |index: u32| {
        let bits = (0..17).map(|bit| if index >> bit & 1 == 1 { 0x7e } else { 0x7f });
        [vec![0x60, 17], bits.collect(), vec![0]].concat()
    };
    module(&[(1, vector(&(0..20_000).map(of).collect::<Vec<_>>()))])
}

/// Does `meanwhile` again and again while that module is being compiled; each time is over soon.
fn beside_many_types(meanwhile: impl Fn() + Send + Sync) {
    let over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let others = scope.spawn(|| {
            let mut longest = Duration::ZERO;
            while !over.load(Ordering::SeqCst) {
                let began = Instant::now();
                meanwhile();
                longest = longest.max(began.elapsed());
            }
            longest
        });
        let _ = Setup::new(many_types()).try_plugin();
        over.store(true, Ordering::SeqCst);
        let longest = others.join().unwrap();
        assert!(longest < Duration::from_secs(1) * slowdown(), "the others took {longest:?}");
    });
}

#[test]
fn calls_and_new_plugins_beside_a_module_that_takes_long_to_compile() {
    within(100, || {
        let compiled = setup().compile();
        let kept = compiled.plugin();
        beside_many_types(|| {
            assert_eq!(kept.call("work", [5]).code, 5);
            assert_eq!(kept.run("trap").code, 134);
            assert_eq!(compiled.plugin().call("work", [7]).code, 7);
        });
    });
}

#[test]
fn compiling_beside_a_module_that_takes_long_to_compile() {
    within(100, || beside_many_types(|| assert_eq!(Plugin::new(FINE).code("fine"), 7)));
}
