//! Ranges that a guest makes the input or the output: inside and outside of Extism memory, and read after every way
//! in which a call can end.

use extism_tests::{Ended, HostFunction, PAGE, Plugin, Setup, Type, json, within};

use super::{FINE, assert_fine, cancel, words};

/// `output_set` and `input_set` with numbers of the input, after a block of so many bytes; each number is what the
/// flag before it says: as it is (0), or added to the size of Extism memory (1).
const SET: &str = r#"
    (func $number (param $at i64) (result i64)
      (i64.add (call $input_load_u64 (i64.add (local.get $at) (i64.const 8)))
        (i64.mul (call $input_load_u64 (local.get $at)) (call $memory_bytes))))
    (func $block_first (drop (call $alloc (call $input_load_u64 (i64.const 0)))))
    (func (export "output_set")
      (call $block_first) (call $output_set (call $number (i64.const 8)) (call $number (i64.const 24)))
      (call $note (call $output_offset)) (call $note (call $output_length)))
    (func (export "input_set") (local $n i64)
      (call $block_first) (call $input_set (call $number (i64.const 8)) (call $number (i64.const 24)))
      (call $note (call $input_offset)) (local.tee $n (call $input_length)) (call $note)
      ;; The last byte is there, and the one behind it is not.
      (if (i64.ne (local.get $n) (i64.const 0)) (then
        (drop (call $load_u8 (i64.add (call $input_offset) (i64.sub (local.get $n) (i64.const 1)))))
        (drop (call $input_load_u8 (i64.sub (local.get $n) (i64.const 1))))
        (if (i32.ne (call $input_load_u8 (local.get $n)) (i32.const 0)) (then unreachable)))))"#;

/// A number as it is, or counted from the end of Extism memory.
#[derive(Clone, Copy, Debug)]
enum Number {
    Is(u64),
    End(i64),
}
use Number::{End, Is};

impl Number {
    fn pair(self) -> [u64; 2] {
        match self {
            Is(number) => [0, number],
            End(by) => [1, by.cast_unsigned()],
        }
    }
}

const OUTSIDE: [(Number, Number); 26] = [
    (End(0), Is(1)),
    (End(-1), Is(2)),
    (End(1), Is(1)),
    (End(-8), Is(9)),
    (Is(1), End(0)),
    (Is(16), End(-15)),
    (Is(16), End(0)),
    (End(0), End(0)),
    (Is(16), Is(1 << 33)),
    (Is(1 << 33), Is(1)),
    (Is(16), Is(1 << 48)),
    (Is(1 << 48), Is(16)),
    (Is(1 << 63), Is(1)),
    (Is(16), Is(1 << 63)),
    (Is(1 << 63), Is(1 << 63)),
    (Is((1 << 63) + 16), Is(1 << 63)),
    (Is((1 << 63) - 1), Is((1 << 63) - 1)),
    (Is(u64::MAX), Is(1)),
    (Is(u64::MAX), Is(2)),
    (Is(u64::MAX), Is(u64::MAX)),
    (Is(u64::MAX - 7), Is(8)),
    (Is(u64::MAX - 15), Is(32)),
    (Is(16), Is(u64::MAX)),
    (Is(16), Is(u64::MAX - 15)),
    (Is(16), Is(u64::MAX - 14)),
    (Is(1), Is(u64::MAX)),
];

const NOTHING: [(Number, Number); 8] = [
    (Is(0), Is(0)),
    (Is(0), Is(1)),
    (Is(0), Is(u64::MAX)),
    (Is(0), End(1)),
    (Is(16), Is(0)),
    (End(0), Is(0)),
    (End(1), Is(0)),
    (Is(u64::MAX), Is(0)),
];

fn set(plugin: &Plugin, function: &str, block: u64, (offset, length): (Number, Number)) -> Ended {
    plugin.call(function, words(&[&[block][..], &offset.pair(), &length.pair()].concat()))
}

#[test]
fn ranges_end_with_the_memory_however_large_it_is() {
    within(60, || {
        let plugin = Plugin::new(&format!("{SET} {FINE}"));
        // Up to all that there can be: the input has 48 bytes.
        for block in [1, PAGE, 20 * PAGE, (4 << 30) - 64] {
            for function in ["output_set", "input_set"] {
                for range in OUTSIDE {
                    let (code, error) = set(&plugin, function, block, range).failure();
                    let what = format!("{function} {range:x?} with {block:#x}: {error}");
                    assert_eq!(code, -1, "{what}");
                    assert!(error.contains(function) && error.contains("outside of Extism memory"), "{what}");
                    assert_eq!(plugin.output(), b"");
                }
                for range in NOTHING {
                    assert_eq!(set(&plugin, function, block, range).success(), (0, vec![]), "{function} {range:x?}");
                    assert_eq!(plugin.take_notes()[1], 0, "{function} {range:x?}");
                }
                for range in [(End(-1), Is(1)), (End(-9), Is(8)), (End(-8), Is(8)), (Is(1), Is(15)), (Is(8), Is(90))] {
                    let ended = set(&plugin, function, block, range);
                    assert_eq!((ended.code, ended.error), (0, None), "{function} {range:x?}");
                    let length = plugin.take_notes()[1];
                    assert!(matches!(range.1, Is(wanted) if wanted == length.cast_unsigned()), "{function} {range:x?}");
                }
            }
        }
        assert_fine(&plugin);
    });
}

/// `$fill` makes Extism memory about a mebibyte, writes every byte of it and makes a range of it the output: the
/// first numbers of the input are the bytes in front of it and behind it.
const FILL: &str = r#"
    (func $fill (local $at i64) (local $end i64) (local $skip i64) (local $cut i64)
      (local.set $skip (call $input_load_u64 (i64.const 0))) (local.set $cut (call $input_load_u64 (i64.const 8)))
      (drop (call $alloc (i64.const 1000000)))
      (local.set $end (call $memory_bytes))
      (loop $next
        (call $store_u64 (local.get $at) (i64.mul (i64.add (local.get $at) (i64.const 1))
          (i64.const 0x9e3779b97f4a7c15)))
        (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 8))) (local.get $end))))
      (call $output_set (local.get $skip)
        (i64.sub (i64.sub (local.get $end) (local.get $skip)) (local.get $cut))))"#;

/// The bytes of the whole memory after `$fill`.
fn filled(size: usize) -> Vec<u8> {
    (0..size as u64).step_by(8).flat_map(|at| (at + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes()).collect()
}

/// How calls end after the output was set; what each is called, what it does, and what the code then is.
const ENDS: [(&str, &str, i32); 17] = [
    ("return", "", 0),
    ("trap", "unreachable", 134),
    ("out of bounds", "(call $store_u8 (i64.const -1) (i32.const 0))", 134),
    ("recursion", "(call $deeper)", 134),
    ("exit 0", "(call $proc_exit (i32.const 0))", 0),
    ("exit 3", "(call $proc_exit (i32.const 3))", 3),
    ("a set error", "(call $error_set (call $input_offset)) unreachable", -1),
    ("an error of the call", "(call $log_info (i64.const 12345))", -1),
    ("output outside", "(call $output_set (i64.const -1) (i64.const 5))", -1),
    ("oom", "(drop (call $alloc (i64.const -1)))", -1),
    ("oom of its own memory", "(drop (memory.grow (i32.const 3000))) unreachable", -1),
    ("an exception", "(throw $tag)", -1),
    ("growth afterwards", "(drop (call $alloc (i64.const 50000000)))", 0),
    ("free of everything", "(call $free (call $input_offset)) (call $free (i64.const 32))", 0),
    ("timeout", "(loop $l (br $l))", 134),
    (
        "sleep",
        "(i64.store (i32.const 24) (i64.const 3600000000000)) (i32.store (i32.const 16) (i32.const 1))
          (drop (call $poll_oneoff (i32.const 0) (i32.const 100) (i32.const 1) (i32.const 200)))",
        134,
    ),
    ("cancel", "(call $cancel_me) (loop $l (br $l))", 134),
];

#[test]
fn output_is_readable_to_its_last_byte_after_every_ending() {
    within(60, || {
        let export = |(name, end, _): (&str, &str, i32)| format!(r#"(func (export "{name}") (call $fill) {end})"#);
        let body = format!(
            r#"(import "extism:host/user" "cancel_me" (func $cancel_me)) (memory (export "memory") 1) (tag $tag)
               (func $deeper (call $deeper) (call $deeper)) {FILL} {} {FINE}"#,
            ENDS.map(export).concat()
        );
        let nobody = HostFunction::new("cancel_me", &[], &[], |_, _, _| {});
        let setup = Setup::guest(&body).wasi().function(nobody).with("timeout_ms", json!(150));
        let compiled = setup.with("memory", json!({"max_pages": 2000})).compile();
        for (name, _, code) in ENDS {
            for [skip, cut] in [[1, 0], [16, 0], [(1 << 20) - PAGE - 1, 0], [3, 5], [1, 1 << 19]] {
                let plugin = compiled.plugin();
                let ended = plugin.call(name, words(&[skip, cut]));
                assert_eq!(ended.code, code, "{name}: {:?}", ended.error);
                let size = ended.output.len() + (skip + cut) as usize;
                assert!(
                    size >= 1_000_000 && size.is_multiple_of(PAGE as usize),
                    "{name}: {} bytes",
                    ended.output.len()
                );
                assert!(ended.output == filled(size)[skip as usize..size - cut as usize], "{name}: other bytes");
                assert_fine(&plugin);
            }
        }
    });
}

#[test]
fn output_is_readable_after_a_cancel_and_after_the_fuel_ran_out() {
    within(60, || {
        let body = format!(
            r#"{FILL} {FINE} (func (export "run") (call $fill) (call $note (i64.const 1))
              (loop $l (br $l)))"#
        );
        let by_cancel = Setup::guest(&body).plugin();
        let by_fuel = Setup::guest(&body).fuel(20_000_000).plugin();
        for [skip, cut] in [[1, 0], [(1 << 20) - PAGE - 1, 0], [3, 5]] {
            for (ended, code, error) in [
                (cancel(&by_cancel, "run", &words(&[skip, cut])), 134, "cancelled"),
                (by_fuel.call("run", words(&[skip, cut])), -1, "plugin ran out of fuel"),
            ] {
                let size = ended.output.len() + (skip + cut) as usize;
                assert!(ended.output == filled(size)[skip as usize..size - cut as usize], "{error}: other bytes");
                assert_eq!(ended.failure(), (code, error.to_owned()));
            }
        }
        assert_fine(&by_cancel);
        assert_fine(&by_fuel);
    });
}

/// Every byte, by words at every offset or byte by byte, also where the memory has grown: the table of blocks, the
/// ranges of input and output, variables and configuration are elsewhere.
#[test]
fn a_guest_that_writes_at_every_offset_changes_bytes_and_nothing_else() {
    let look = HostFunction::new("look", &[Type::I64, Type::I32], &[Type::I64], |current, inputs, outputs| {
        let bytes = current.bytes(inputs[0].bits);
        assert!(bytes.iter().all(|byte| u64::from(*byte) == inputs[1].bits & 0xff), "{bytes:?}");
        outputs[0].bits = bytes.len() as u64;
    });
    let body = r#"(import "extism:host/user" "look" (func $look (param i64 i32) (result i64)))
        (func $byte (result i32) (call $input_load_u8 (i64.const 0)))
        (func $bytes (param $byte i32) (local $at i64) (local $end i64)
          (local.set $end (call $memory_bytes))
          (loop $next
            (call $store_u8 (local.get $at) (local.get $byte))
            (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 1))) (local.get $end)))))
        (func $words (param $byte i32) (local $at i64) (local $end i64) (local $word i64)
          (local.set $word (i64.mul (i64.extend_i32_u (local.get $byte)) (i64.const 0x0101010101010101)))
          (local.set $end (i64.sub (call $memory_bytes) (i64.const 7)))
          (loop $next
            (call $store_u64 (local.get $at) (local.get $word))
            (br_if $next (i64.lt_u (local.tee $at (i64.add (local.get $at) (i64.const 1))) (local.get $end)))))
        (func (export "run") (local $a i64) (local $dead i64) (local $large i64) (local $byte i32)
          (local.set $byte (call $byte))
          (local.set $a (text 'seven b')) (local.set $dead (text 'dead')) (call $free (local.get $dead))
          (local.set $large (call $alloc (i64.const 200000)))
          (call $var_set (text 'k') (text 'value'))
          (call $output_set (i64.add (local.get $a) (i64.const 2)) (i64.const 100000))
          (call $bytes (local.get $byte)) (call $words (local.get $byte))
          (call $note (call $length (local.get $a))) (call $note (call $length (local.get $dead)))
          (call $note (call $length (local.get $large)))
          (call $note (call $look (local.get $a) (local.get $byte)))
          (call $note (call $look (local.get $large) (local.get $byte)))
          (call $note (call $input_length)) (call $note (call $output_length))
          (call $free (local.get $a)) (call $free (local.get $a)) (call $note (call $length (local.get $a)))
          (call $note (call $length (call $var_get (text 'k'))))
          (call $note (call $length (call $config_get (text 'key'))))
          (call $note (call $length (call $alloc (i64.const 300000)))))"#;
    within(60, move || {
        let plugin = Setup::guest(&format!("{body} {FINE}"))
            .function(look)
            .with("config", json!({"key": "configured"}))
            .plugin();
        for byte in [0, 1, 0x10, 0x41, 0x7f, 0x80, 0xff] {
            let ended = plugin.call("run", [byte; 9]);
            assert_eq!(ended.output, vec![byte; 100_000]);
            assert_eq!(ended.success().0, 0);
            let notes = plugin.take_notes();
            assert_eq!(notes, [7, 0, 200_000, 7, 200_000, 9, 100_000, 0, 5, 10, 300_000], "{byte:#x}");
            assert_fine(&plugin);
        }
    });
}

/// Ranges may lie across blocks, freed ones and the space between: it is the guest's own memory.
#[test]
fn ranges_across_blocks_are_the_guests_affair() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $a i64) (local $b i64) (local $c i64)
             (local.set $a (text 'aaaaaaaaaaaaaaaa')) (local.set $b (text 'bbbbbbbbbbbbbbbb'))
               (local.set $c (text 'c'))
             (call $free (local.get $b))
             (call $output_set (i64.add (local.get $a) (i64.const 8)) (i64.const 25))
             (call $input_set (i64.add (local.get $a) (i64.const 15)) (i64.const 18))
             (call $note_i32 (call $input_load_u8 (i64.const 0)))
               (call $note_i32 (call $input_load_u8 (i64.const 17)))
             (call $note_i32 (call $input_load_u8 (i64.const 18)))
             (call $note (call $input_load_u64 (i64.const 10))) (call $note (call $input_load_u64 (i64.const 11))))"#,
    );
    let word = i64::from_le_bytes(*b"bbbbbbbc");
    assert_eq!(plugin.notes("run", ""), [b'a'.into(), b'c'.into(), 0, word, 0]);
    assert_eq!(plugin.output(), b"aaaaaaaabbbbbbbbbbbbbbbbc");
}
