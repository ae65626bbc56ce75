//! Guests in guests: plug-ins whose host functions call the next plug-in, and chains of linked modules. Each level
//! takes its part of one stack; when it is used up, a call ends with an error, and never the process.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread;

use extism_tests::{HostFunction, Plugin, Setup, Type, guest, json, within};

use super::{FINE, assert_fine, fiber};

/// A guest that goes so many frames deep as the first number of its input says, and then calls `next`.
const DEEP: &str = r#"(import "extism:host/user" "next" (func $next (result i64)))
    (func $go (param i64) (result i64) (local i64 i64)
      (if (result i64) (i64.eqz (local.get 0)) (then (call $next))
        (else (i64.add (i64.const 0) (call $go (i64.sub (local.get 0) (i64.const 1)))))))
    (func (export "run") (call $note (call $go (call $input_load_u64 (i64.const 0)))))"#;

/// Plug-ins of one compiled plug-in, each of which calls the one behind it from its host function.
struct Tower {
    plugins: Arc<OnceLock<Vec<Plugin>>>,
    level: Arc<AtomicUsize>,
    reached: Arc<AtomicUsize>,
}

impl Tower {
    fn new(height: usize, frames: u64) -> Self {
        let plugins: Arc<OnceLock<Vec<Plugin>>> = Arc::default();
        let (level, reached) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let (others, here, top) = (Arc::clone(&plugins), Arc::clone(&level), Arc::clone(&reached));
        let next = HostFunction::new("next", &[], &[Type::I64], move |_, _, outputs| {
            let above = here.fetch_add(1, Ordering::SeqCst) + 1;
            top.fetch_max(above, Ordering::SeqCst);
            if let Some(plugin) = others.get().unwrap().get(above) {
                let ended = plugin.call("run", frames.to_le_bytes());
                // Whatever it is, it is told.
                match (ended.code, ended.error.as_deref()) {
                    (0, None) => {}
                    (134 | -1, Some(error)) => assert!(error.contains("stack"), "{error}"),
                    other => panic!("{other:?}"),
                }
                outputs[0].bits = u64::from(ended.code.cast_unsigned());
            }
            here.fetch_sub(1, Ordering::SeqCst);
        });
        let compiled = Setup::guest(&format!("{DEEP} {FINE}")).function(next).compile();
        let made = (0..height).map(|_| compiled.plugin()).collect();
        assert!(plugins.set(made).is_ok());
        Self { plugins, level, reached }
    }

    /// Runs the lowest. Returns how high it went.
    fn run(&self, frames: u64) -> usize {
        self.level.store(0, Ordering::SeqCst);
        self.reached.store(0, Ordering::SeqCst);
        let plugins = self.plugins.get().unwrap();
        let ended = plugins[0].call("run", frames.to_le_bytes());
        assert_eq!((ended.code, ended.error), (0, None));
        plugins.iter().for_each(assert_fine);
        self.reached.load(Ordering::SeqCst)
    }
}

fn on_thread(mib: usize, work: impl FnOnce() + Send + 'static) {
    thread::Builder::new().stack_size(mib << 20).spawn(work).expect("a thread").join().unwrap();
}

fn tower(height: usize, frames: u64) {
    within(60, move || {
        let tower = Arc::new(Tower::new(height, frames));
        for mib in [8, 1, 2] {
            let there = Arc::clone(&tower);
            on_thread(mib, move || {
                for _ in 0..2 {
                    assert!(there.run(frames) > 1);
                }
            });
        }
    });
}

#[test]
fn forty_plugins_in_each_other_that_use_much_of_their_stack() {
    tower(40, 15_000);
}

#[test]
fn two_hundred_plugins_in_each_other_that_use_much_of_their_stack() {
    tower(200, 15_000);
}

#[test]
fn two_hundred_plugins_in_each_other_that_use_little() {
    tower(200, 10);
}

#[test]
fn forty_plugins_in_each_other_on_a_fiber() {
    within(60, || {
        let tower = Tower::new(40, 15_000);
        fiber::run(8 << 20, move || assert!(tower.run(15_000) > 1));
    });
}

/// A guest that recurses without end *through* other plug-ins: the own one is busy, so it takes new ones each time.
#[test]
fn plugins_that_make_plugins_without_end() {
    within(60, || {
        let next = Arc::new(OnceLock::new());
        let compiled: Arc<OnceLock<extism_tests::Compiled>> = Arc::default();
        let there = Arc::clone(&compiled);
        let deepest: Arc<Mutex<Vec<String>>> = Arc::default();
        let list = Arc::clone(&deepest);
        let function = HostFunction::new("next", &[], &[Type::I64], move |_, _, _| {
            let ended = there.get().unwrap().plugin().call("run", 100u64.to_le_bytes());
            if let Some(error) = ended.error {
                list.lock().unwrap().push(error);
            }
        });
        let made =
            Setup::guest(&format!("{DEEP} {FINE}")).function(function).with("timeout_ms", json!(20_000)).compile();
        assert!(compiled.set(made).is_ok());
        let _ = next.set(());
        on_thread(8, {
            let compiled = Arc::clone(&compiled);
            move || {
                let plugin = compiled.get().unwrap().plugin();
                let ended = plugin.call("run", 100u64.to_le_bytes());
                assert!(matches!(ended.code, 0 | 134 | -1), "{ended:?}");
                assert_fine(&plugin);
            }
        });
        let errors = deepest.lock().unwrap();
        assert!(errors.first().is_some_and(|error| error.contains("stack")), "{:?}", errors.first());
    });
}

/// Linked commands, each of which goes deep and calls the one before it.
fn commands(count: usize, frames: u32) -> Setup {
    let module = |index: usize| {
        let next = match index.checked_sub(1) {
            None => "(func $next (param i32))".to_owned(),
            Some(below) => format!(r#"(import "c{below}" "go" (func $next (param i32)))"#),
        };
        format!(
            r#"(module {next} (func (export "_start"))
                 (func $go (export "go") (param i32) (local i64 i64 i64 i64)
                   (if (i32.eqz (local.get 0)) (then (call $next (i32.const {frames})) (call $next_done))
                     (else (call $go (i32.sub (local.get 0) (i32.const 1))) (call $next_done))))
                 (func $next_done))"#
        )
    };
    let mut modules: Vec<_> = (0..count).map(|index| (format!("c{index}"), module(index))).collect();
    let last = count - 1;
    let main = format!(
        r#"(module (import "c{last}" "go" (func $go (param i32))) {FINE}
             (func (export "run") (call $go (i32.const {frames}))))"#
    );
    modules.push(("main".to_owned(), main));
    let modules: Vec<_> = modules.iter().map(|(name, wat)| (name.as_str(), wat.as_str())).collect();
    Setup::linked(&modules)
}

#[test]
fn chains_of_linked_commands() {
    within(90, || {
        for (count, frames) in [(3, 5), (40, 5), (40, 15_000), (200, 5), (200, 15_000)] {
            let plugin = Arc::new(commands(count, frames).plugin());
            for mib in [8, 1] {
                let plugin = Arc::clone(&plugin);
                on_thread(mib, move || {
                    let ended = plugin.run("run");
                    match ended.code {
                        0 => assert_eq!(ended.error, None),
                        134 | -1 => {
                            let error = ended.error.unwrap();
                            assert!(error.contains("stack"), "{count} {frames} {mib}: {error}");
                        }
                        _ => panic!("{ended:?}"),
                    }
                    assert!(count > 3 || ended.code == 0, "a few are no trouble");
                    assert_fine(&plugin);
                });
            }
        }
    });
}

/// Reactors share one store: a chain of them is one stack, like the functions of one module.
#[test]
fn chains_of_linked_reactors() {
    within(60, || {
        let module = |index: usize| match index.checked_sub(1) {
            None => r#"(module (func (export "f") (result i32) (i32.const 0)))"#.to_owned(),
            Some(below) => format!(
                r#"(module (import "r{below}" "f" (func $f (result i32)))
                     (func (export "f") (result i32) (i32.add (i32.const 1) (call $f))))"#
            ),
        };
        let mut modules: Vec<_> = (0..300).map(|index| (format!("r{index}"), module(index))).collect();
        modules.push((
            "main".to_owned(),
            format!(r#"(module (import "r299" "f" (func $f (result i32))) (export "run" (func $f)) {FINE})"#),
        ));
        let modules: Vec<_> = modules.iter().map(|(name, wat)| (name.as_str(), wat.as_str())).collect();
        let plugin = Setup::linked(&modules).plugin();
        assert_eq!(plugin.code("run"), 299);
        assert_fine(&plugin);
    });
}

/// Out of a module into its library and back through a table, without end.
#[test]
fn recursion_between_linked_modules() {
    within(60, || {
        let lib = guest(
            r#"(table (export "table") 1 funcref) (type $f (func))
               (func (export "back") (call_indirect (type $f) (i32.const 0)) (call_indirect (type $f)
                 (i32.const 0)))"#,
        );
        let main = format!(
            r#"(module (import "lib" "table" (table 1 funcref)) (import "lib" "back" (func $back))
                 (elem (i32.const 0) $go) (func $go (call $back) (call $back)) (export "run" (func $go)) {FINE})"#
        );
        let plugin = Arc::new(Setup::linked(&[("lib", &lib), ("main", &main)]).plugin());
        for mib in [1, 8] {
            let plugin = Arc::clone(&plugin);
            on_thread(mib, move || {
                let (code, error) = plugin.run("run").failure();
                assert!(code == 134 && error.contains("call stack exhausted"), "{code} {error}");
                assert_fine(&plugin);
            });
        }
    });
}

/// A guest whose own host function calls it again: busy, however often, and the call goes on.
#[test]
fn a_plugin_that_calls_itself_through_its_host_function_is_busy() {
    let own: Arc<OnceLock<Plugin>> = Arc::default();
    let plugin = Arc::clone(&own);
    let next = HostFunction::new("next", &[], &[Type::I64], move |_, _, outputs| {
        let (code, error) = plugin.get().unwrap().call("run", [0; 8]).failure();
        assert!(error.contains("busy"), "{error}");
        outputs[0].bits = u64::from(code.cast_unsigned());
    });
    let made = Setup::guest(&format!("{DEEP} {FINE}")).function(next).plugin();
    assert!(own.set(made).is_ok());
    let plugin = own.get().unwrap();
    for frames in [0u64, 1000] {
        assert_eq!(plugin.notes("run", frames.to_le_bytes()), [0xffff_ffff]);
    }
    assert_fine(plugin);
}
