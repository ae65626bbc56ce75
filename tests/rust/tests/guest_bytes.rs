//! Bytes of Extism memory: `load_*` and `store_*`, in bounds and out of them.

use extism_tests::{PAGE, Plugin, Setup, json};

/// Each of `load_u8`, `load_u64`, `store_u8`, `store_u64` at the offset in the input.
const ACCESS: &str = r#"
    (func $at (result i64) (call $input_load_u64 (i64.const 0)))
    (func (export "load_u8") (call $note_i32 (call $load_u8 (call $at))))
    (func (export "load_u64") (call $note (call $load_u64 (call $at))))
    (func (export "store_u8") (call $store_u8 (call $at) (i32.const 7)))
    (func (export "store_u64") (call $store_u64 (call $at) (i64.const 7)))"#;

#[track_caller]
fn assert_out_of_bounds(plugin: &Plugin, function: &str, offset: u64) {
    let (code, error) = plugin.call(function, offset.to_le_bytes()).failure();
    assert_eq!(code, 134, "{function} at {offset:#x}: {error}");
    assert!(error.contains("out of bounds"), "{function} at {offset:#x}: {error}");
}

#[test]
fn words_are_little_endian_and_need_no_alignment() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $at i64)
             (local.set $at (i64.add (call $alloc (i64.const 100)) (i64.const 3)))
             (call $store_u64 (local.get $at) (i64.const 0x8877665544332211))
             (call $note_i32 (call $load_u8 (local.get $at)))
             (call $note_i32 (call $load_u8 (i64.add (local.get $at) (i64.const 7))))
             (call $note (call $load_u64 (i64.add (local.get $at) (i64.const 1))))
             (call $store_u8 (i64.add (local.get $at) (i64.const 1)) (i32.const 0x1ff))
             (call $note (call $load_u64 (local.get $at))))"#,
    );
    let expected = [0x11, 0x88, 0x88_7766_5544_3322, 0x8877_6655_4433_ff11_u64 as i64];
    assert_eq!(plugin.notes("run", ""), expected);
}

#[test]
fn the_last_bytes_are_within() {
    let plugin = Plugin::new(ACCESS);
    for (function, size) in [("load_u8", 1), ("load_u64", 8), ("store_u8", 1), ("store_u64", 8)] {
        let ended = plugin.call(function, (PAGE - size).to_le_bytes());
        assert_eq!((ended.code, ended.error), (0, None), "{function}");
    }
}

#[test]
fn past_the_end_is_a_trap() {
    let plugin = Plugin::new(ACCESS);
    for function in ["load_u8", "load_u64", "store_u8", "store_u64"] {
        let size = if function.ends_with("64") { 8 } else { 1 };
        for offset in [PAGE - size + 1, PAGE, 1 << 32, (1 << 32) + 16, 1 << 63, 0u64.wrapping_sub(size), u64::MAX] {
            assert_out_of_bounds(&plugin, function, offset);
        }
    }
    assert_eq!(plugin.call("store_u8", 16u64.to_le_bytes()).code, 0, "and the plug-in goes on");
}

#[test]
fn a_store_across_the_end_writes_nothing() {
    let plugin = Plugin::new(
        r#"(func (export "run") (call $store_u64 (i64.const 65532) (i64.const -1)))
           (func (export "look") (call $note (call $load_u64 (i64.const 65528))))"#,
    );
    assert_eq!(plugin.run("run").code, 134);
    assert_eq!(plugin.notes("look", ""), [0]);
}

#[test]
fn any_byte_may_be_read_and_written() {
    // Not only those of blocks: some PDKs keep things beside them. The first word, too.
    let plugin = Plugin::new(
        r#"(func (export "run")
             (call $store_u64 (i64.const 0) (i64.const 77)) (call $note (call $load_u64 (i64.const 0)))
             (call $store_u64 (i64.const 50000) (i64.const 78)) (call $note (call $load_u64 (i64.const 50000))))"#,
    );
    assert_eq!(plugin.notes("run", ""), [77, 78]);
}

#[test]
fn functions_taken_by_reference_mean_the_same() {
    let plugin = Plugin::new(
        r#"(type $load (func (param i64) (result i64)))
           (type $offset (func (result i64)))
           (table 4 funcref) (elem (i32.const 0) $load_u64 $input_offset $input_length $input_load_u64)
           (func (export "run")
             (call $note (call_indirect (type $load)
               (call_indirect (type $offset) (i32.const 1)) (i32.const 0)))
             (call $note (call_indirect (type $offset) (i32.const 2)))
             (call $note (call_indirect (type $load) (i64.const 0) (i32.const 3))))
           (func (export "past_the_end") (drop (call_indirect (type $load) (i64.const -1) (i32.const 0))))"#,
    );
    assert_eq!(plugin.notes("run", 5u64.to_le_bytes()), [5, 8, 5]);
    assert_eq!(plugin.run("past_the_end").code, 134);
}

#[test]
fn tail_calls_of_them_mean_the_same() {
    let plugin = Plugin::new(
        r#"(func $load (param i64) (result i64) (return_call $load_u64 (local.get 0)))
           (func $length (result i64) (return_call $input_length))
           (func (export "run")
             (call $note (call $load (call $input_offset))) (call $note (call $length)))
           (func (export "past_the_end") (drop (call $load (i64.const 0x100000000))))"#,
    );
    assert_eq!(plugin.notes("run", 5u64.to_le_bytes()), [5, 8]);
    assert_eq!(plugin.run("past_the_end").code, 134);
}

#[test]
fn wrong_types_of_library_functions_are_refused() {
    for (name, ty) in
        [("load_u8", "(param i64) (result i64)"), ("alloc", "(param i32) (result i32)"), ("reset", "(param i64)")]
    {
        let body = format!(r#"(import "extism:host/env" "{name}" (func {ty}))"#);
        let error = Setup::guest(&body).refusal();
        assert!(error.contains(name) && error.contains("extism:host/env"), "{error}");
    }
}

/// Nothing that the host relies on lies in there: in libextism 1.41 this makes it read out of bounds.
#[test]
fn a_guest_that_overwrites_everything_harms_only_itself() {
    for pattern in [0u64, u64::MAX, 0x4141_4141_4141_4141, 0x0000_0010_0000_0010] {
        let body = format!(
            r#"(func $overwrite (local $at i64)
                 (loop $l
                   (call $store_u64 (local.get $at) (i64.const {pattern}))
                   (local.set $at (i64.add (local.get $at) (i64.const 8)))
                   (br_if $l (i64.lt_u (local.get $at) (call $memory_bytes)))))
               (func (export "run") (local $block i64) (local $dead i64)
                 (local.set $block (text 'block'))
                 (local.set $dead (text 'dead')) (call $free (local.get $dead))
                 (call $output (local.get $block))
                 (call $overwrite)
                 (call $note (call $length (local.get $block)))
                 (call $note (call $length (local.get $dead)))
                 (call $note (call $input_length))
                 (call $note (call $length (call $input_offset)))
                 (call $note (call $output_length))
                 (call $error_set (local.get $block))
                 (call $free (local.get $block)) (call $free (local.get $block))
                 (call $note (call $length (text 'another')))
                 (call $overwrite)
                 (call $note (call $length (call $config_get (text 'key'))))
                 (call $error_set (i64.const 0)))"#,
            pattern = pattern.cast_signed()
        );
        let plugin = Setup::guest(&body).with("config", json!({"key": "value"})).plugin();
        for _ in 0..3 {
            assert_eq!(plugin.notes("run", [1; 99]), [5, 0, 99, 99, 5, 7, 5]);
            assert_eq!(plugin.output().len(), 5);
        }
    }
}
