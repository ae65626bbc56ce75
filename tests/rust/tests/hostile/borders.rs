//! Calls from short stacks and from fibers, where the guest may have to run elsewhere: the caller does not notice.
//! Callbacks, deadlines, cancels, turns and finalisers are as they are everywhere.

use std::cell::RefCell;
use std::ffi::c_void;
use std::ptr;
use std::rc::Rc;
use std::sync::atomic::{AtomicPtr, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::{self, ThreadId};
use std::time::{Duration, Instant};

use extism_tests::{Handle, HostFunction, Plugin, Setup, Type, Val, api, json, last_error, slowdown, within};

use super::fiber::{self, Fiber};
use super::{FINE, assert_fine};

/// On a thread with 64 KiB of stack, and on a fiber with 256 KiB.
fn on_short_stacks(work: impl Fn() + Clone + Send + 'static) {
    let there = work.clone();
    thread::Builder::new().stack_size(64 << 10).spawn(there).expect("a thread").join().unwrap();
    fiber::run(256 << 10, work);
}

#[test]
fn endless_code_ends_on_short_stacks() {
    within(60, || {
        let body = format!(
            r#"{FINE} (memory (export "memory") 1)
               (func (export "loop") (call $note (i64.const 1)) (loop $l (br $l)))
               (func (export "tail calls") (call $note (i64.const 1)) (return_call $again))
               (func $again (return_call $again))
               (func (export "sleep") (call $note (i64.const 1))
                 (i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
                 (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200))))"#
        );
        let limited = Arc::new(Setup::guest(&body).wasi().with("timeout_ms", json!(30)).plugin());
        let endless = Arc::new(Setup::guest(&body).wasi().plugin());
        on_short_stacks(move || {
            for function in ["loop", "tail calls", "sleep"] {
                let began = Instant::now();
                assert_eq!(limited.run(function).failure(), (134, "timeout".to_owned()), "{function}");
                assert!(began.elapsed() < Duration::from_secs(1) * slowdown(), "{function}");
                assert_fine(&limited);
                endless.take_notes();
                let other = Arc::clone(&endless);
                let canceller = thread::spawn(move || {
                    while other.take_notes().is_empty() {
                        thread::sleep(Duration::from_millis(1));
                    }
                    assert!(other.cancel());
                });
                assert_eq!(endless.run(function).failure(), (134, "cancelled".to_owned()), "{function}");
                canceller.join().unwrap();
                assert_fine(&endless);
            }
        });
    });
}

/// The callback runs in the caller's thread: so its own plug-in is busy for it, at once.
#[test]
fn a_plugin_is_busy_for_its_own_callback_on_short_stacks() {
    within(60, || {
        let own: Arc<OnceLock<Plugin>> = Arc::default();
        let there = Arc::clone(&own);
        let again = HostFunction::new("again", &[], &[Type::I64], move |current, _, outputs| {
            let plugin = there.get().unwrap();
            let (code, error) = plugin.run("run").failure();
            assert!(code == -1 && error.contains("busy"), "{code} {error}");
            assert!(!plugin.reset() && last_error().is_some());
            assert_eq!(plugin.output(), b"");
            let block = current.place(b"from the callback");
            assert_eq!(current.bytes(block), b"from the callback");
            outputs[0].bits = block;
        });
        let body = format!(
            r#"(import "extism:host/user" "again" (func $again (result i64))) {FINE}
               (func (export "run") (call $output (call $again)))"#
        );
        assert!(own.set(Setup::guest(&body).function(again).plugin()).is_ok());
        on_short_stacks(move || {
            let plugin = own.get().unwrap();
            for _ in 0..3 {
                assert_eq!(plugin.output_of("run", ""), b"from the callback");
                assert_eq!(last_error(), None);
            }
        });
    });
}

/// The plug-in that [`free_it`] frees, and the threads in which its function was finalised.
static PLUGIN: AtomicPtr<c_void> = AtomicPtr::new(ptr::null_mut());
static FINALISED: Mutex<Vec<ThreadId>> = Mutex::new(Vec::new());

unsafe extern "C" fn free_it(current: Handle, _: *const Val, _: u64, _: *mut Val, _: u64, _: *mut c_void) {
    // SAFETY: any handle may be passed; from the second time on it is a stale one.
    unsafe {
        (api().plugin_free)(PLUGIN.load(Ordering::SeqCst));
        assert_ne!((api().current_plugin_memory_alloc)(current, 100), 0, "the call goes on");
    }
}

unsafe extern "C" fn finalise(_: *mut c_void) {
    FINALISED.lock().unwrap().push(thread::current().id());
}

/// The call goes on to its end, and the finaliser runs in the thread that made it.
#[test]
fn a_plugin_that_is_freed_in_its_callback_on_short_stacks() {
    within(60, || {
        on_short_stacks(|| {
            let wat = br#"(module (import "extism:host/user" "free_it" (func $free_it))
                (func (export "run") (result i32) (call $free_it) (call $free_it) (i32.const 5)))"#;
            FINALISED.lock().unwrap().clear();
            // SAFETY: pointers to what their counts say; the user data is never looked at.
            let code = unsafe {
                let data = ptr::without_provenance_mut(1);
                let name = c"free_it".as_ptr();
                let function =
                    (api().function_new)(name, ptr::null(), 0, ptr::null(), 0, free_it, data, Some(finalise));
                let plugin = (api().plugin_new)(wat.as_ptr(), wat.len() as u64, &function, 1, false, ptr::null_mut());
                assert!(!plugin.is_null());
                (api().function_free)(function);
                PLUGIN.store(plugin, Ordering::SeqCst);
                (api().plugin_call)(plugin, c"run".as_ptr(), ptr::null(), 0)
            };
            assert_eq!(code, 5);
            assert_eq!(*FINALISED.lock().unwrap(), [thread::current().id()]);
        });
    });
}

/// Short-lived threads with short stacks, one after the other and many at once: no threads are left over.
#[test]
fn many_threads_with_short_stacks() {
    within(100, || {
        let threads = || std::fs::read_dir("/proc/self/task").unwrap().count();
        let compiled = Arc::new(
            Setup::guest(&format!(
                r#"{FINE} (func $deeper (call $deeper) (call $deeper)) (func (export "deep") (call $deeper))"#
            ))
            .compile(),
        );
        let work = {
            let compiled = Arc::clone(&compiled);
            move || {
                let plugin = compiled.plugin();
                assert_fine(&plugin);
                assert_eq!(plugin.run("deep").code, 134);
                assert_fine(&plugin);
            }
        };
        let spawn = |work: Box<dyn FnOnce() + Send>| thread::Builder::new().stack_size(64 << 10).spawn(work).unwrap();
        spawn(Box::new(work.clone())).join().unwrap();
        let before = threads();
        for _ in 0..200 {
            spawn(Box::new(work.clone())).join().unwrap();
        }
        for _ in 0..5 {
            let many: Vec<_> = (0..50).map(|_| spawn(Box::new(work.clone()))).collect();
            many.into_iter().for_each(|thread| thread.join().unwrap());
        }
        thread::sleep(Duration::from_millis(200));
        let after = threads();
        assert!(after <= before + 70, "{before} threads before, {after} after");
    });
}

/// Two fibers of one thread, each inside of a call, that take turns in their callbacks: the call that began first
/// ends first, and the other one after it, with a trap in between.
#[test]
fn fibers_that_take_turns_in_callbacks() {
    within(60, || {
        let log: Arc<Mutex<Vec<String>>> = Arc::default();
        let pause = HostFunction::new("pause", &[Type::I64], &[], {
            let log = Arc::clone(&log);
            move |current, inputs, _| {
                let block = current.place(&inputs[0].bits.to_le_bytes());
                log.lock().unwrap().push(format!("into {}", inputs[0].bits));
                Fiber::pause();
                log.lock().unwrap().push(format!("back {}", inputs[0].bits));
                assert_eq!(current.bytes(block), inputs[0].bits.to_le_bytes());
            }
        });
        let body = format!(
            r#"(import "extism:host/user" "pause" (func $pause (param i64))) {FINE}
               (func (export "run") (result i32)
                 (call $pause (call $input_load_u64 (i64.const 0))) (call $pause (call $input_load_u64 (i64.const 0)))
                 (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))
               (func (export "trap") (call $pause (call $input_load_u64 (i64.const 0))) unreachable)"#
        );
        let compiled = Arc::new(Setup::guest(&body).function(pause).compile());
        let results: Rc<RefCell<Vec<i32>>> = Rc::default();
        let count = Arc::new(AtomicUsize::new(0));
        let fiber = |number: u64, function: &'static str| {
            let (compiled, results, count) = (Arc::clone(&compiled), Rc::clone(&results), Arc::clone(&count));
            Fiber::new(512 << 10, move || {
                let plugin = compiled.plugin();
                let code = plugin.call(function, number.to_le_bytes()).code;
                results.borrow_mut().push(code);
                assert_fine(&plugin);
                count.fetch_add(1, Ordering::SeqCst);
            })
        };
        for _ in 0..20 {
            results.borrow_mut().clear();
            let (one, two, three) = (fiber(1, "run"), fiber(2, "run"), fiber(3, "trap"));
            // Each is in its first callback; then they go on in the order in which they came.
            assert!(!one.resume() && !two.resume() && !three.resume());
            assert!(!one.resume());
            assert!(three.resume(), "a trap while two others are inside");
            assert!(!two.resume());
            assert!(one.resume() && two.resume());
            assert_eq!(*results.borrow(), [134, 1, 2]);
        }
        assert_eq!(count.load(Ordering::SeqCst), 60);
        assert_eq!(log.lock().unwrap().len(), 20 * 10);
    });
}
