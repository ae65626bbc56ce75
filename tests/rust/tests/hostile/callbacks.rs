//! Wild numbers across the border of host functions, in both directions; and what guests and host functions free
//! under each other's hands.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use extism_tests::{HostFunction, PAGE, Plugin, Setup, Type, json, within};

use super::{FINE, assert_fine, words};

const WILD: [u64; 20] = [
    1,
    2,
    15,
    17,
    31,
    33,
    48,
    PAGE - 16,
    PAGE - 1,
    PAGE,
    PAGE + 16,
    (1 << 32) - 16,
    1 << 32,
    (1 << 32) + 16,
    1 << 48,
    (1 << 63) - 1,
    1 << 63,
    (1 << 63) + 16,
    u64::MAX - 15,
    u64::MAX,
];

/// Asked for each offset of the memory: no answer is longer than the block that begins there, and blocks are all that
/// has one.
#[test]
fn memory_length_is_that_of_a_block_for_every_offset() {
    let blocks = Arc::new(Mutex::new(Vec::new()));
    let found = Arc::clone(&blocks);
    let look = HostFunction::new("look", &[], &[], move |current, _, _| {
        let lengths = (0..3 * PAGE).map(|offset| (offset, current.length(offset))).filter(|(_, length)| *length > 0);
        *found.lock().unwrap() = lengths.collect();
        for wild in WILD.into_iter().filter(|offset| *offset >= 3 * PAGE) {
            assert_eq!(current.length(wild), 0, "{wild:#x}");
        }
    });
    let body = format!(
        r#"(import "extism:host/user" "look" (func $look)) {FINE}
           (func (export "run") (local $a i64) (local $b i64) (local $at i64)
             (local.set $a (call $alloc (i64.const 1))) (call $note (local.get $a))
             (local.set $b (call $alloc (i64.const 17))) (call $note (local.get $b))
             (local.set $a (call $alloc (i64.const 15))) (call $free (local.get $a))
             (local.set $a (call $alloc (i64.const 99999))) (call $note (local.get $a))
             (loop $next
               (call $store_u64 (local.get $at) (i64.const 0x7fffffff7fffffff))
               (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 8))) (call $memory_bytes))))
             (call $look))"#
    );
    let plugin = Setup::guest(&body).function(look).plugin();
    for _ in 0..2 {
        let notes: Vec<_> = plugin.notes("run", [1; 100]).into_iter().map(i64::cast_unsigned).collect();
        let expected = [(16, 100), (notes[0], 1), (notes[1], 17), (notes[2], 99_999)];
        assert_eq!(*blocks.lock().unwrap(), expected);
    }
    assert_fine(&plugin);
}

/// A host function that does with a guest's number all that there is to do: it has no length, and nothing happens.
#[test]
fn handles_that_a_guest_makes_up_mean_nothing_to_a_host_function() {
    let take = HostFunction::new("take", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        let handle = inputs[0].bits;
        assert_eq!(current.bytes(0), b"");
        outputs[0].bits = current.length(handle);
        current.free(handle);
        current.free(handle);
        let mine = current.place(b"mine");
        assert_ne!(mine, handle, "what was just freed is not given out");
        current.free(handle);
        assert_eq!(current.bytes(mine), b"mine");
        current.free(mine);
    });
    let body = format!(
        r#"(import "extism:host/user" "take" (func $take (param i64) (result i64))) {FINE}
           (func (export "run") (local $block i64) (local $dead i64)
             (local.set $dead (text 'dead')) (call $free (local.get $dead))
             (local.set $block (text 'a block'))
             (call $note (call $take (call $input_load_u64 (i64.const 0))))
             (call $note (call $take (local.get $dead)))
             (call $note (call $take (i64.add (local.get $block) (call $input_load_u64 (i64.const 0)))))
             (call $note (call $length (local.get $block))) (call $note (call $input_length))
             (call $note (call $take (local.get $block))) (call $note (call $take (local.get $block)))
             (call $note (call $length (local.get $block)))
             (call $note (call $take (call $input_offset))) (call $note (call $input_length)))"#
    );
    let plugin = Setup::guest(&body).function(take).plugin();
    // The input is at 16, the dead block at 32, the live one at 48.
    for wild in WILD.into_iter().filter(|wild| *wild != 48) {
        assert_eq!(plugin.notes("run", words(&[wild])), [0, 0, 0, 7, 8, 7, 0, 0, 8, 0], "{wild:#x}");
    }
    assert_fine(&plugin);
}

/// What a host function returns is for the guest functions a number like any other.
#[test]
fn handles_that_a_host_function_makes_up_mean_nothing_to_guest_functions() {
    let wild =
        HostFunction::new("wild", &[Type::I64], &[Type::I64], |_, inputs, outputs| outputs[0].bits = inputs[0].bits);
    let body = format!(
        r#"(import "extism:host/user" "wild" (func $wild (param i64) (result i64))) {FINE}
           (func $w (result i64) (call $wild (call $input_load_u64 (i64.const 0))))
           (func (export "harmless")
             (call $note (call $length (call $w))) (call $free (call $w)) (call $error_set (call $w))
             (call $note (call $error_get)) (call $note (call $input_length)))
           (func (export "config") (drop (call $config_get (call $w))))
           (func (export "log") (call $log_error (call $w)))
           (func (export "output") (call $output_set (call $w) (i64.const -1)))
           (func (export "input") (call $input_set (call $w) (i64.const -1)))"#
    );
    let plugin = Setup::guest(&body).function(wild).plugin();
    for number in WILD {
        assert_eq!(plugin.notes("harmless", words(&[number])), [0, 0, 8], "{number:#x}");
        for function in ["config", "log", "output", "input"] {
            assert_eq!(plugin.call(function, words(&[number])).failure().0, -1, "{function} of {number:#x}");
        }
        assert_fine(&plugin);
    }
}

/// Blocks change hands many times, and each side frees what the other has; the accounts stay right.
#[test]
fn guest_and_host_function_free_each_others_blocks() {
    let swap = HostFunction::new("swap", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        let guests = inputs[0].bits;
        let length = current.length(guests);
        let one = current.place(&vec![1; 1000]);
        let two = current.place(&vec![2; 1000]);
        if length % 2 == 1 {
            current.free(guests);
        }
        current.free(one);
        assert_eq!((current.length(one), current.length(two)), (0, 1000));
        assert!(current.bytes(two).iter().all(|byte| *byte == 2));
        outputs[0].bits = two;
    });
    let body = format!(
        r#"(import "extism:host/user" "swap" (func $swap (param i64) (result i64))) {FINE}
           (func (export "run") (local $i i64) (local $mine i64) (local $theirs i64) (local $wrong i32)
             (loop $next
               (local.set $mine (call $alloc (i64.add (local.get $i) (i64.const 1))))
               (local.set $theirs (call $swap (local.get $mine)))
               (local.set $wrong (i32.or (local.get $wrong)
                 (i64.ne (call $length (local.get $mine))
                   (i64.mul (i64.and (local.get $i) (i64.const 1)) (i64.add (local.get $i) (i64.const 1))))))
               (local.set $wrong (i32.or (local.get $wrong) (i64.ne (call $length (local.get $theirs))
                 (i64.const 1000))))
               (call $free (local.get $theirs)) (call $free (local.get $mine))
               (call $free (call $swap (local.get $theirs)))
               (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 3000))))
             (call $note_i32 (local.get $wrong)))"#
    );
    // Little room, so that holes are used again and again.
    let plugin = Setup::guest(&body).function(swap).with("memory", json!({"max_pages": 2})).plugin();
    within(20, move || {
        for _ in 0..3 {
            assert_eq!(plugin.notes("run", ""), [0]);
        }
        assert_fine(&plugin);
    });
}

/// A host function frees what is in use: the input, the output, a block whose handle the guest goes on to use.
#[test]
fn a_host_function_may_free_all_that_there_is() {
    let free_all =
        HostFunction::new("free_all", &[], &[], |current, _, _| (0..4 * PAGE).for_each(|at| current.free(at)));
    let body = format!(
        r#"(import "extism:host/user" "free_all" (func $free_all)) {FINE}
           (func (export "run") (local $block i64)
             (local.set $block (text 'output')) (call $output (local.get $block)) (call $error_set (local.get $block))
             (call $free_all)
             (call $note (call $length (local.get $block))) (call $note (call $input_length))
             (call $note (call $length (call $error_get))) (call $free (local.get $block))
             (call $error_set (i64.const 0))
             (call $note (call $length (text 'another'))))
           (func (export "use") (local $block i64)
             (local.set $block (text 'output')) (call $free_all) (call $log_info (local.get $block)))"#
    );
    let plugin = Setup::guest(&body).function(free_all).plugin();
    for _ in 0..3 {
        assert_eq!(plugin.notes("run", "input"), [0, 0, 0, 7]);
        assert_eq!(plugin.output(), b"output");
        assert_eq!(plugin.run("use").failure().0, -1);
        assert_fine(&plugin);
    }
}

/// Inside of a callback another plug-in of the same compiled one is called: its blocks and ours have the same
/// handles, and nothing to do with each other.
#[test]
fn a_callback_that_calls_another_plugin_keeps_its_own_blocks() {
    let other: Arc<Mutex<Option<Plugin>>> = Arc::default();
    let callee = Arc::clone(&other);
    let call = HostFunction::new("call", &[Type::I64], &[Type::I64], move |current, inputs, outputs| {
        let before = current.bytes(inputs[0].bits);
        let mine = current.place(b"of the callback");
        let callee = callee.lock().unwrap().take();
        if let Some(callee) = &callee {
            // In there the same function runs, for the other one.
            assert_eq!(callee.output_of("run", vec![b'y'; 300]), vec![b'y'; 300]);
            assert_eq!(callee.call("break", "").code, 134);
        }
        assert_eq!(current.bytes(inputs[0].bits), before);
        assert_eq!(current.bytes(mine), b"of the callback");
        outputs[0].bits = mine;
    });
    let body = format!(
        r#"(import "extism:host/user" "call" (func $call (param i64) (result i64))) {FINE}
           (func (export "run") (local $given i64)
             (local.set $given (call $call (call $input_offset)))
             (call $free (local.get $given)) (call $note (call $length (local.get $given)))
             (call $output (call $input_offset)))
           (func (export "break") (local $at i64)
             (loop $l
               (call $free (local.get $at)) (call $store_u8 (local.get $at) (i32.const 255))
               (local.set $at (i64.add (local.get $at) (i64.const 1))) (br $l)))"#
    );
    let compiled = Setup::guest(&body).function(call).compile();
    let (one, two) = (compiled.plugin(), compiled.plugin());
    *other.lock().unwrap() = Some(two);
    assert_eq!(one.output_of("run", "x".repeat(200)), "x".repeat(200).as_bytes());
    assert_eq!(one.take_notes(), [0, 0]);
    assert_fine(&one);
}

/// A guest resets its memory between two callbacks of a host function that keeps a block: it is gone, for both.
#[test]
fn a_reset_between_callbacks_ends_what_the_host_function_kept() {
    let kept = Arc::new(AtomicU64::new(0));
    let ours = Arc::clone(&kept);
    let keep = HostFunction::new("keep", &[], &[Type::I64], move |current, _, outputs| {
        let old = ours.load(Ordering::SeqCst);
        assert_eq!(current.length(old), 0);
        current.free(old);
        let new = current.place(&[7; 5000]);
        assert_eq!(current.bytes(new), [7; 5000]);
        ours.store(new, Ordering::SeqCst);
        outputs[0].bits = new;
    });
    let body = format!(
        r#"(import "extism:host/user" "keep" (func $keep (result i64))) {FINE}
           (func (export "run") (local $block i64)
             (call $output (text 'output')) (call $error_set (text 'error'))
             (local.set $block (call $keep))
             (call $reset)
             (call $note (call $length (local.get $block))) (call $free (local.get $block))
             (call $note (call $input_length)) (call $note (call $output_length))
             (call $note (call $length (call $keep)))
             (call $error_set (i64.const 0)) (call $output (text 'another')))"#
    );
    let plugin = Setup::guest(&body).function(keep).plugin();
    for _ in 0..3 {
        kept.store(0, Ordering::SeqCst);
        assert_eq!(plugin.output_of("run", "input"), b"another");
        assert_eq!(plugin.take_notes(), [0, 0, 0, 5000]);
        assert_fine(&plugin);
    }
}
