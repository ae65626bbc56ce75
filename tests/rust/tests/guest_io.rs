//! Input, output and error of a call, as the guest sees and sets them.

use extism_tests::{PAGE, Plugin};

/// An error of the call that names the function and the range.
#[track_caller]
fn assert_outside(plugin: &Plugin, function: &str, input: &[u8]) {
    let (code, error) = plugin.call(function, input).failure();
    assert_eq!(code, -1, "{error}");
    assert!(error.contains(function) && error.contains("outside of Extism memory"), "{error}");
}

fn pair(offset: u64, length: u64) -> [u8; 16] {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&offset.to_le_bytes());
    bytes[8..].copy_from_slice(&length.to_le_bytes());
    bytes
}

/// Ranges that do not lie in a memory of one page.
const OUTSIDE: [(u64, u64); 9] = [
    (16, PAGE - 15),
    (PAGE, 1),
    (PAGE - 1, 2),
    (16, 1 << 32),
    (1 << 32, 1),
    (1 << 63, 1),
    (u64::MAX, 1),
    (u64::MAX - 7, 16),
    (16, u64::MAX),
];

#[test]
fn the_input_lies_in_extism_memory() {
    let plugin = Plugin::new(
        r#"(func (export "run")
             (call $note (call $input_length))
             (call $note (call $length (call $input_offset)))
             (call $note_i32 (call $load_u8 (call $input_offset)))
             (call $note_i32 (call $input_load_u8 (i64.const 0)))
             (call $note (call $input_load_u64 (i64.const 0)))
             (call $note (call $input_load_u64 (i64.const 1)))
             (call $note_i32 (call $input_load_u8 (i64.const 8))))"#,
    );
    let words = [i64::from_le_bytes([1, 2, 3, 4, 5, 6, 7, 8]), i64::from_le_bytes([2, 3, 4, 5, 6, 7, 8, 9])];
    assert_eq!(plugin.notes("run", [1, 2, 3, 4, 5, 6, 7, 8, 9]), [9, 9, 1, 1, words[0], words[1], 9]);
}

#[test]
fn past_the_end_of_the_input_is_zero() {
    let plugin = Plugin::new(
        r#"(func $try (param i64)
             (call $note_i32 (call $input_load_u8 (local.get 0)))
             (call $note (call $input_load_u64 (local.get 0))))
           (func (export "run")
             (call $try (i64.const 9)) (call $try (i64.const 10)) (call $try (i64.const 0x100000000))
             (call $try (i64.const -1)) (call $try (i64.const -8))
             (call $try (i64.sub (i64.const 0) (call $input_offset)))
             (call $try (i64.const 0x7fffffffffffffff)))
           (func (export "across") (call $note (call $input_load_u64 (i64.const 2))))"#,
    );
    assert_eq!(plugin.notes("run", [255; 9]), [0; 14]);
    assert_eq!(plugin.notes("run", ""), [0; 14], "an empty input");
    assert_eq!(plugin.notes("across", [255; 9]), [0], "a word that begins inside");
    assert_eq!(plugin.notes("across", [255; 10]), [-1]);
}

/// The guest's word over the input: `run` sets it to the range in the input, and notes what it finds then.
const INPUT_SET: &str = r#"(func (export "input_set")
     (call $input_set (call $input_load_u64 (i64.const 0)) (call $input_load_u64 (i64.const 8)))
     (call $note (call $input_length))
     (call $note_i32 (call $input_load_u8 (i64.const 0))))
   (func (export "other") (local $block i64)
     (local.set $block (text 'another input'))
     (call $input_set (i64.add (local.get $block) (i64.const 8)) (i64.const 5))
     (call $note (call $input_length))
     (call $note (i64.sub (call $input_offset) (local.get $block)))
     (call $note_i32 (call $input_load_u8 (i64.const 0)))
     (call $note_i32 (call $input_load_u8 (i64.const 4)))
     (call $note_i32 (call $input_load_u8 (i64.const 5)))
     (call $note (call $input_load_u64 (i64.const 0))))"#;

#[test]
fn input_set_replaces_the_input() {
    let plugin = Plugin::new(INPUT_SET);
    assert_eq!(plugin.notes("other", "0123456789"), [5, 8, b'i'.into(), b't'.into(), 0, 0]);
    assert_eq!(plugin.notes("input_set", pair(16, 16)), [16, 16], "its own range again");
    assert_eq!(plugin.notes("input_set", pair(PAGE - 1, 1)), [1, 0], "the last byte of the memory");
}

#[test]
fn input_set_to_nothing() {
    let plugin = Plugin::new(INPUT_SET);
    for (offset, length) in [(0, 0), (0, 99), (16, 0), (u64::MAX, 0), (0, u64::MAX)] {
        assert_eq!(plugin.notes("input_set", pair(offset, length)), [0, 0], "{offset:#x} {length:#x}");
    }
}

#[test]
fn input_set_outside_is_an_error_of_the_call() {
    let plugin = Plugin::new(INPUT_SET);
    for (offset, length) in OUTSIDE {
        assert_outside(&plugin, "input_set", &pair(offset, length));
        assert!(plugin.take_notes().is_empty());
    }
    assert_eq!(plugin.notes("input_set", pair(16, 16)), [16, 16], "the next call has its own input");
}

#[test]
fn output_is_what_was_set_last() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $block i64)
             (local.set $block (text 'first second'))
             (call $note (call $output_length))
             (call $output_set (local.get $block) (i64.const 5))
             (call $output_set (i64.add (local.get $block) (i64.const 6)) (i64.const 6))
             (call $note (call $output_length))
             (call $note (i64.sub (call $output_offset) (local.get $block))))
           (func (export "none") (call $note (call $output_length)))"#,
    );
    assert_eq!(plugin.notes("run", ""), [0, 6, 6]);
    assert_eq!(plugin.output(), b"second");
    assert_eq!(plugin.notes("none", ""), [0]);
    assert_eq!(plugin.output(), b"", "an output belongs to its call");
}

const OUTPUT_SET: &str = r#"(func (export "output_set")
     (call $output (text 'before'))
     (call $output_set (call $input_load_u64 (i64.const 0)) (call $input_load_u64 (i64.const 8))))"#;

#[test]
fn output_set_to_nothing() {
    let plugin = Plugin::new(OUTPUT_SET);
    for (offset, length) in [(0, 0), (0, 99), (16, 0), (u64::MAX, 0), (0, u64::MAX)] {
        assert_eq!(plugin.output_of("output_set", pair(offset, length)), b"", "{offset:#x} {length:#x}");
    }
}

#[test]
fn output_may_be_any_range_of_extism_memory() {
    let plugin = Plugin::new(OUTPUT_SET);
    assert_eq!(plugin.output_of("output_set", pair(16, 8)), 16u64.to_le_bytes(), "a part of the input");
    assert_eq!(plugin.output_of("output_set", pair(PAGE - 3, 3)), [0; 3], "up to the end");
    assert_eq!(plugin.output_of("output_set", pair(1, PAGE - 1)).len() as u64, PAGE - 1);
}

#[test]
fn output_set_outside_is_an_error_of_the_call() {
    let plugin = Plugin::new(OUTPUT_SET);
    for (offset, length) in OUTSIDE {
        assert_outside(&plugin, "output_set", &pair(offset, length));
        assert_eq!(plugin.output(), b"before", "what was set before stays");
    }
}

#[test]
fn an_error_is_copied_at_once() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $block i64)
             (local.set $block (text 'the error'))
             (call $error_set (local.get $block))
             (call $note (i64.extend_i32_u (i64.eq (call $error_get) (local.get $block))))
             (call $store_u64 (local.get $block) (i64.const 0x2020202020202020))
             (call $free (local.get $block)))"#,
    );
    assert_eq!(plugin.run("run").failure(), (0, "the error".to_owned()));
    assert_eq!(plugin.take_notes(), [1]);
}

#[test]
fn an_error_can_be_taken_back_and_replaced() {
    let plugin = Plugin::new(
        r#"(func (export "back") (result i32)
             (call $error_set (text 'one')) (call $error_set (i64.const 0))
             (call $note (call $error_get)) (i32.const 5))
           (func (export "replaced")
             (call $error_set (text 'one')) (call $error_set (text 'two')))
           (func (export "fresh") (call $note (call $error_get)))"#,
    );
    assert_eq!(plugin.code("back"), 5);
    assert_eq!(plugin.take_notes(), [0]);
    assert_eq!(plugin.run("replaced").failure(), (0, "two".to_owned()));
    assert_eq!(plugin.notes("fresh", ""), [0], "an error belongs to its call");
}

#[test]
fn error_set_ignores_what_is_not_a_live_block() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $dead i64) (local $block i64)
             (local.set $dead (call $alloc (i64.const 10))) (call $free (local.get $dead))
             (local.set $block (text 'still'))
             (call $error_set (local.get $block))
             (call $error_set (local.get $dead))
             (call $error_set (i64.add (local.get $block) (i64.const 1)))
             (call $error_set (i64.const 1)) (call $error_set (i64.const 0x100000010))
             (call $error_set (i64.const -1))
             (call $note (i64.extend_i32_u (i64.eq (call $error_get) (local.get $block)))))
           (func (export "none") (call $error_set (i64.const 12345)) (call $error_set (i64.const -1)))"#,
    );
    assert_eq!(plugin.run("run").failure(), (0, "still".to_owned()));
    assert_eq!(plugin.take_notes(), [1]);
    assert_eq!(plugin.code("none"), 0);
}

#[test]
fn an_error_may_be_any_bytes() {
    let plugin = Plugin::new(
        r#"(func (export "run")
             (call $error_set (call $input_offset)))"#,
    );
    let error = |bytes: &[u8]| plugin.call("run", bytes).failure().1;
    assert_eq!(error("Grüße, 世界".as_bytes()), "Grüße, 世界");
    assert_eq!(error(b"bad \xff\xfe end"), "bad \u{fffd}\u{fffd} end");
    assert!(error(b"before\0after").contains("after"), "a NUL does not cut it");
    assert_eq!(error(&[b'x'; 60_000]).len(), 60_000);
    let long = error(&[b'x'; 300_000]);
    assert!(long.starts_with(&"x".repeat(60_000)) && long.len() <= 65_536, "{} bytes", long.len());
    // A character of two bytes would lie across the cut.
    let cut = error(format!("x{}", "é".repeat(40_000)).as_bytes());
    assert!(cut.len() <= 65_536 + 3 && cut.starts_with("xé"), "{} bytes", cut.len());
}
