//! Host functions: values of every kind, and what guests and hosts do to each other's memory.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use extism_tests::{HostFunction, Setup, Type};

/// A host function with so many arguments and results, whose types take turns and begin with the `first`: it is given
/// 1, 2, 3... and returns what it was given, or 0 where it has more results.
fn exchange(inputs: usize, outputs: usize, first: usize) {
    let (types, names) = ([Type::I32, Type::I64, Type::F32, Type::F64], ["i32", "i64", "f32", "f64"]);
    let types = |count: usize| (0..count).map(|i| types[(first + i) % 4]).collect::<Vec<_>>();
    let called = Arc::new(AtomicU32::new(0));
    let counter = Arc::clone(&called);
    let function = HostFunction::new("many", &types(inputs), &types(outputs), move |_, inputs, outputs| {
        counter.fetch_add(1, Ordering::Relaxed);
        for (i, input) in inputs.iter().enumerate() {
            assert_eq!(input.kind as usize, (first + i) % 4);
            let expected = match input.kind {
                0 | 1 => i as u64 + 1,
                2 => (i as f32 + 1.0).to_bits().into(),
                _ => (i as f64 + 1.0).to_bits(),
            };
            assert_eq!(input.bits, expected, "argument {i}");
        }
        for (i, output) in outputs.iter_mut().enumerate() {
            assert_eq!((output.kind as usize, output.bits), ((first + i) % 4, 0), "result {i}");
            output.bits = inputs.get(i).map_or(0, |input| input.bits);
        }
    });
    let name = |i: usize| names[(first + i) % 4];
    let list = |count: usize| (0..count).map(name).collect::<Vec<_>>().join(" ");
    let constants: String = (0..inputs).map(|i| format!("({}.const {})", name(i), i + 1)).collect();
    let results: String = (0..outputs)
        .rev()
        .map(|i| match (first + i) % 4 {
            0 => "(call $note_i32) ",
            1 => "(call $note) ",
            2 => "(call $note_i32 (i32.trunc_f32_s)) ",
            _ => "(call $note (i64.trunc_f64_s)) ",
        })
        .collect();
    let body = format!(
        r#"(import "extism:host/user" "many" (func $many (param {}) (result {})))
           (func (export "run") (call $many {constants}) {results})"#,
        list(inputs),
        list(outputs)
    );
    let plugin = Setup::guest(&body).function(function).plugin();
    let expected = (0..outputs).rev().map(|i| if i < inputs { i as i64 + 1 } else { 0 }).collect::<Vec<_>>();
    assert_eq!(plugin.notes("run", ""), expected, "{inputs} arguments, {outputs} results, first type {first}");
    assert_eq!(called.load(Ordering::Relaxed), 1);
}

#[test]
fn many_arguments_and_results() {
    exchange(20, 12, 0);
    exchange(5, 3, 1);
    exchange(6, 3, 2);
}

#[test]
fn every_shape_and_type() {
    for first in 0..4 {
        for inputs in 0..=3 {
            for outputs in 0..=3 {
                exchange(inputs, outputs, first);
            }
        }
    }
}

#[test]
fn floats_keep_their_bits() {
    let same = HostFunction::new("same", &[Type::F32, Type::F64], &[Type::F32, Type::F64], |_, inputs, outputs| {
        outputs[0].bits = inputs[0].bits;
        outputs[1].bits = inputs[1].bits;
    });
    let body = r#"(import "extism:host/user" "same" (func $same (param f32 f64) (result f32 f64)))
        (func $try (param i32 i64) (local f64)
          (call $same (f32.reinterpret_i32 (local.get 0)) (f64.reinterpret_i64 (local.get 1)))
          (local.set 2)
          (call $note_i32 (i32.reinterpret_f32)) (call $note (i64.reinterpret_f64 (local.get 2))))
        (func (export "run")
          (call $try (i32.const 0x7fa00001) (i64.const 0x7ff4000000000001))
          (call $try (i32.const 0xffc12345) (i64.const 0xfff8000000054321))
          (call $try (i32.const 0x80000000) (i64.const 0x8000000000000000)))"#;
    let notes = Setup::guest(body).function(same).plugin().notes("run", "");
    let expected: [u64; 6] =
        [0x7fa0_0001, 0x7ff4_0000_0000_0001, 0xffc1_2345, 0xfff8_0000_0005_4321, 0x8000_0000, 0x8000_0000_0000_0000];
    assert_eq!(notes, expected.map(u64::cast_signed));
}

#[test]
fn the_declared_type_of_a_result_counts() {
    let function = HostFunction::new("wild", &[], &[Type::I32, Type::I64], |_, _, outputs| {
        outputs[0].kind = 3;
        outputs[0].bits = 0xffff_ffff_0000_0005;
        outputs[1].kind = 99;
        outputs[1].bits = u64::MAX;
    });
    let body = r#"(import "extism:host/user" "wild" (func $wild (result i32 i64)))
        (func (export "run") (call $wild) (call $note) (call $note_i32))"#;
    assert_eq!(Setup::guest(body).function(function).plugin().notes("run", ""), [-1, 5]);
}

#[test]
fn blocks_travel_both_ways() {
    let upper = HostFunction::new("upper", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        let text = current.bytes(inputs[0].bits);
        current.free(inputs[0].bits);
        outputs[0].bits = current.place(&text.to_ascii_uppercase());
    });
    let body = r#"(import "extism:host/user" "upper" (func $upper (param i64) (result i64)))
        (func (export "run") (local $mine i64) (local $theirs i64)
          (local.set $mine (text 'text'))
          (local.set $theirs (call $upper (local.get $mine)))
          (call $note (call $length (local.get $mine)))
          (call $free (local.get $mine))
          (call $note (call $length (local.get $theirs)))
          (call $output (local.get $theirs)))"#;
    let plugin = Setup::guest(body).function(upper).plugin();
    for _ in 0..3 {
        assert_eq!(plugin.notes("run", ""), [0, 4]);
        assert_eq!(plugin.output(), b"TEXT");
    }
}

#[test]
fn handles_that_guests_make_up_have_no_length() {
    let look = HostFunction::new("look", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        outputs[0].bits = current.length(inputs[0].bits);
        current.free(inputs[0].bits);
    });
    let body = r#"(import "extism:host/user" "look" (func $look (param i64) (result i64)))
        (func (export "run") (local $block i64)
          (local.set $block (text 'a block'))
          (call $note (call $look (i64.const 0))) (call $note (call $look (i64.const 1)))
          (call $note (call $look (i64.add (local.get $block) (i64.const 1))))
          (call $note (call $look (i64.add (local.get $block) (i64.const 0x100000000))))
          (call $note (call $look (i64.const -1)))
          (call $note (call $look (local.get $block)))
          (call $note (call $look (local.get $block))))"#;
    assert_eq!(Setup::guest(body).function(look).plugin().notes("run", ""), [0, 0, 0, 0, 0, 7, 0]);
}

#[test]
fn a_host_function_may_free_the_input_and_the_output() {
    let free = HostFunction::new("free_it", &[Type::I64], &[], |current, inputs, _| current.free(inputs[0].bits));
    let body = r#"(import "extism:host/user" "free_it" (func $free_it (param i64)))
        (func (export "run") (local $block i64)
          (call $free_it (call $input_offset))
          (call $note (call $input_length))
          (local.set $block (text 'output')) (call $output (local.get $block))
          (call $free_it (local.get $block)))"#;
    let plugin = Setup::guest(body).function(free).plugin();
    assert_eq!(plugin.notes("run", "input"), [0]);
    assert_eq!(plugin.output(), b"output");
}

#[test]
fn a_compiled_plugin_calls_one_function_from_many_threads() {
    let count = Arc::new(AtomicU32::new(0));
    let shared = Arc::clone(&count);
    let function = HostFunction::new("count", &[], &[], move |_, _, _| {
        shared.fetch_add(1, Ordering::SeqCst);
    });
    let body = r#"(import "extism:host/user" "count" (func $count)) (func (export "run") (call $count) (call $count))"#;
    let compiled = Setup::guest(body).function(function).compile();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                for _ in 0..50 {
                    assert_eq!(compiled.plugin().code("run"), 0);
                }
            });
        }
    });
    assert_eq!(count.load(Ordering::SeqCst), 800);
    assert_eq!(Arc::strong_count(&count), 2);
    drop(compiled);
    assert_eq!(Arc::strong_count(&count), 1, "what the function owned went with its last user");
}

#[test]
fn unused_and_doubled_functions_are_fine() {
    let answer = |n: u64| HostFunction::new("answer", &[], &[Type::I64], move |_, _, out| out[0].bits = n);
    let body = r#"(import "extism:host/user" "answer" (func $answer (result i64)))
        (func (export "run") (call $note (call $answer)))"#;
    let unused = HostFunction::new("unused", &[Type::F64], &[], |_, _, _| {});
    let other = answer(3).in_namespace("another");
    let setup = Setup::guest(body).function(answer(1)).function(unused).function(answer(2)).function(other);
    assert_eq!(setup.plugin().notes("run", ""), [2], "the last of a name counts");
}

/// For the guest; what the library itself does with blocks stays as it is.
#[test]
fn a_function_may_take_the_place_of_one_of_the_library() {
    let alloc = HostFunction::new("alloc", &[Type::I64], &[Type::I64], |_, inputs, outputs| {
        outputs[0].bits = inputs[0].bits + 1000;
    });
    let length = HostFunction::new("input_length", &[], &[Type::I64], |_, _, outputs| outputs[0].bits = 99);
    let body = r#"(func (export "run")
        (call $note (call $alloc (i64.const 5))) (call $note (call $input_length))
        (call $note_i32 (call $input_load_u8 (i64.const 0)))
        (call $note (call $length (call $input_offset))))"#;
    let setup = Setup::guest(body)
        .function(alloc.in_namespace("extism:host/env"))
        .function(length.in_namespace("extism:host/env"));
    assert_eq!(setup.plugin().notes("run", "input"), [1005, 99, b'i'.into(), 5]);
}
