//! Blocks of Extism memory: `alloc`, `free`, `length`, `length_unsafe`, `reset`, `memory_bytes`.

use extism_tests::{Current, HostFunction, PAGE, Plugin, Setup, Type, json, within};

/// `run` notes what `alloc` gives for the number in the input, and the block's length.
const ALLOC: &str = r#"(func (export "run") (local $handle i64)
    (local.set $handle (call $alloc (call $input_load_u64 (i64.const 0))))
    (call $note (local.get $handle))
    (call $note (call $length (local.get $handle))))"#;

const OOM: (i32, &str) = (-1, "oom");

#[track_caller]
fn assert_oom(plugin: &Plugin, function: &str, input: &[u8]) {
    let (code, error) = plugin.call(function, input).failure();
    assert_eq!((code, error.as_str()), OOM);
}

#[test]
fn blocks_have_their_length_and_do_not_overlap() {
    let plugin = Plugin::new(
        r#"(func $one (param $n i64) (local $handle i64)
             (local.set $handle (call $alloc (local.get $n)))
             (call $note (local.get $handle))
             (call $note (call $length (local.get $handle)))
             (call $note (call $length_unsafe (local.get $handle))))
           (func (export "run")
             (call $one (i64.const 1)) (call $one (i64.const 7)) (call $one (i64.const 8))
             (call $one (i64.const 1000)) (call $one (i64.const 100000)) (call $one (i64.const 1)))"#,
    );
    let notes = plugin.notes("run", "");
    let blocks: Vec<_> = notes.chunks(3).map(|note| (note[0], note[1])).collect();
    assert!(notes.chunks(3).all(|note| note[1] == note[2]), "length_unsafe differs: {notes:?}");
    assert_eq!(blocks.iter().map(|block| block.1).collect::<Vec<_>>(), [1, 7, 8, 1000, 100_000, 1]);
    for (i, (handle, length)) in blocks.iter().enumerate() {
        assert!(*handle >= 16, "{blocks:?}");
        for (other, other_length) in &blocks[i + 1..] {
            assert!(handle + length <= *other || other + other_length <= *handle, "{blocks:?}");
        }
    }
}

#[test]
fn alloc_of_nothing_is_no_block() {
    let plugin = Plugin::new(ALLOC);
    assert_eq!(plugin.notes("run", 0u64.to_le_bytes()), [0, 0]);
}

#[test]
fn what_no_memory_can_hold_ends_the_call() {
    let plugin = Plugin::new(ALLOC);
    for length in [4 << 30, 5 << 30, 1 << 62, 1 << 63, u64::MAX - 15, u64::MAX] {
        assert_oom(&plugin, "run", &u64::to_le_bytes(length));
    }
    assert_eq!(plugin.notes("run", 10u64.to_le_bytes())[1], 10, "and the plug-in goes on");
}

#[test]
fn host_functions_get_no_block_instead() {
    let alloc = HostFunction::new("host_alloc", &[], &[], |current: &Current, _, _| {
        for length in [0, 4 << 30, 1 << 63, u64::MAX] {
            assert_eq!(current.alloc(length), 0, "{length}");
        }
        let block = current.alloc(10);
        assert_eq!(current.length(block), 10);
        current.free(block);
        assert_eq!(current.length(block), 0);
        for other in [0, 1, block + 1, 1 << 40, u64::MAX] {
            current.free(other);
            assert_eq!(current.length(other), 0);
        }
    });
    let body =
        r#"(import "extism:host/user" "host_alloc" (func $host_alloc)) (func (export "run") (call $host_alloc))"#;
    let plugin = Setup::guest(body).function(alloc).plugin();
    assert_eq!(plugin.code("run"), 0);
}

#[test]
fn extism_memory_ends_at_4_gib() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $handle i64) (local $last i64)
             (local.set $handle (call $alloc (i64.const 0xffff0000)))
             (local.set $last (i64.add (local.get $handle) (i64.const 0xfffeffff)))
             (call $note (call $length (local.get $handle)))
             (call $store_u8 (local.get $last) (i32.const 7))
             (call $note_i32 (call $load_u8 (local.get $last)))
             (call $note (call $memory_bytes)))
           (func (export "more")
             (drop (call $alloc (i64.const 0xffff0000)))
             (drop (call $alloc (i64.const 0x10000))))"#,
    );
    assert_eq!(plugin.notes("run", ""), [0xffff_0000, 7, 4 << 30]);
    assert_oom(&plugin, "more", b"");
    assert_eq!(plugin.notes("run", ""), [0xffff_0000, 7, 4 << 30]);
}

#[test]
fn memory_grows_by_pages_and_stays_where_it_is() {
    let base = HostFunction::new("base", &[], &[Type::I64], |current, _, outputs| {
        outputs[0].bits = current.memory() as u64;
    });
    let body = r#"(import "extism:host/user" "base" (func $base (result i64)))
        (func (export "run")
          (call $note (call $base)) (call $note (call $memory_bytes))
          (drop (call $alloc (i64.const 1000000)))
          (call $note (call $base)) (call $note (call $memory_bytes))
          (drop (call $alloc (i64.const 100000000)))
          (call $note (call $base)) (call $note (call $memory_bytes)))"#;
    let notes = Setup::guest(body).function(base).plugin().notes("run", "");
    let [base, first, second_base, second, third_base, third] = <[i64; 6]>::try_from(notes).unwrap();
    assert!(base != 0 && base == second_base && base == third_base);
    assert!((first as u64).is_multiple_of(PAGE) && (second as u64).is_multiple_of(PAGE));
    assert!(first >= PAGE as i64 && second >= 1_000_016 && third >= 101_000_016 && first < second && second < third);
}

#[test]
fn what_is_not_a_live_block_has_no_length_and_cannot_be_freed() {
    let plugin = Plugin::new(
        r#"(func $try (param $handle i64)
             (call $note (call $length (local.get $handle)))
             (call $note (call $length_unsafe (local.get $handle)))
             (call $free (local.get $handle)))
           (func (export "run") (local $block i64) (local $dead i64) (local $i i64)
             (local.set $block (text 'a block'))
             (local.set $dead (call $alloc (i64.const 64)))
             (call $free (local.get $dead))
             (call $try (local.get $dead))
             (loop $next
               (call $try (local.get $i))
               (br_if $next (i64.lt_u (local.tee $i (i64.add (local.get $i) (i64.const 1))) (i64.const 16))))
             (call $try (i64.add (local.get $block) (i64.const 1)))
             (call $try (i64.add (local.get $block) (i64.const 0x100000000)))
             (call $try (i64.or (local.get $block) (i64.const 0x8000000000000000)))
             (call $try (i64.const 0x7fffffffffffffff)) (call $try (i64.const -1)) (call $try (i64.const -16))
             (call $output (local.get $block)))"#,
    );
    let notes = plugin.notes("run", "");
    assert_eq!(notes, vec![0; 2 * (1 + 16 + 6)]);
    assert_eq!(plugin.output(), b"a block", "nothing of that touched the live one");
}

#[test]
fn a_freed_block_keeps_its_bytes() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $block i64)
             (local.set $block (text 'bytes'))
             (call $output (local.get $block))
             (call $free (local.get $block)) (call $free (local.get $block))
             (call $note (call $length (local.get $block)))
             (call $note (i64.and (call $load_u64 (local.get $block)) (i64.const 0xffffffffff))))"#,
    );
    assert_eq!(plugin.notes("run", ""), [0, i64::from_le_bytes(*b"bytes\0\0\0")]);
    assert_eq!(plugin.output(), b"bytes", "an output that was set before stays readable");
}

#[test]
fn freeing_the_input_empties_it() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $input i64)
             (local.set $input (call $input_offset))
             (call $note (call $length (local.get $input)))
             (call $free (i64.add (local.get $input) (i64.const 16)))
             (call $note (call $input_length))
             (call $free (local.get $input))
             (call $note (call $input_length))
             (call $note_i32 (call $input_load_u8 (i64.const 0)))
             (call $note (call $length (local.get $input))))"#,
    );
    assert_eq!(plugin.notes("run", [9; 100]), [100, 100, 0, 0, 0]);
    assert_eq!(plugin.notes("run", [9; 50]), [50, 50, 0, 0, 0], "the next call has its input again");
}

/// PDKs free what the library took over, and free it again later: so a freed handle rests as long as it can.
#[test]
fn freed_space_is_reused_only_instead_of_growing_and_older_first() {
    let plugin = Plugin::new(
        r#"(func $a (param $n i64) (result i64) (call $alloc (local.get $n)))
           (func (export "run") (local $one i64) (local $two i64)
             (local.set $one (call $a (i64.const 16384))) (drop (call $a (i64.const 16)))
             (local.set $two (call $a (i64.const 16384))) (drop (call $a (i64.const 16)))
             (call $note (local.get $one)) (call $note (local.get $two))
             (call $free (local.get $two)) (call $free (local.get $one))
             (call $note (call $a (i64.const 16384)))
             (call $note (call $memory_bytes))
             (call $note (call $a (i64.const 16384)))
             (call $note (call $a (i64.const 16384)))
             (call $note (call $memory_bytes))
             (drop (call $a (i64.const 16384)))
             (call $note (call $memory_bytes)))"#,
    );
    let notes = plugin.notes("run", "");
    let [one, two, third, bytes, fourth, fifth, bytes_then, bytes_later] = <[i64; 8]>::try_from(notes).unwrap();
    assert_eq!((bytes as u64, bytes_then as u64), (PAGE, PAGE), "no growth as long as there is room");
    assert!(third > two && third > one, "not reused while the memory has room: {one} {two} {third}");
    assert_eq!((fourth, fifth), (two, one), "the one that was freed first comes first");
    assert!(bytes_later > bytes_then, "without room it grows");
}

#[test]
fn neighbouring_holes_become_one() {
    let plugin = Setup::guest(
        r#"(func (export "run") (local $i i32) (local $first i64) (local $handle i64)
             (local.set $first (call $alloc (i64.const 1008)))
             (loop $next
               (local.set $handle (call $alloc (i64.const 1008)))
               (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 60))))
             (local.set $handle (local.get $first))
             (local.set $i (i32.const 0))
             (loop $next
               (call $free (local.get $handle))
               (local.set $handle (i64.add (local.get $handle) (i64.const 1008)))
               (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 61))))
             (call $note (call $length (call $alloc (i64.const 61000))))
             (call $note (call $memory_bytes)))"#,
    )
    .with("memory", json!({"max_pages": 1}))
    .plugin();
    assert_eq!(plugin.notes("run", ""), [61_000, PAGE as i64]);
}

#[test]
fn nothing_of_one_call_is_left_for_the_next() {
    let plugin = Plugin::new(
        r#"(func (export "write") (local $at i64)
             (local.set $at (call $alloc (i64.const 60000)))
             (call $store_u64 (local.get $at) (i64.const -1))
             (call $store_u64 (i64.add (local.get $at) (i64.const 59992)) (i64.const -1)))
           (func (export "look") (local $at i64)
             (local.set $at (call $alloc (i64.const 60000)))
             (call $note (call $load_u64 (local.get $at)))
             (call $note (call $load_u64 (i64.add (local.get $at) (i64.const 59992)))))"#,
    );
    assert_eq!(plugin.code("write"), 0);
    assert_eq!(plugin.notes("look", ""), [0, 0]);
    assert_eq!(plugin.call("write", [255; 1000]).code, 0);
    assert_eq!(plugin.notes("look", ""), [0, 0]);
}

#[test]
fn reset_frees_everything_and_keeps_the_error() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $block i64)
             (local.set $block (text 'output'))
             (call $output (local.get $block))
             (call $error_set (text 'an error'))
             (call $reset)
             (call $note (call $length (local.get $block)))
             (call $note (call $length (call $input_offset)))
             (call $note (call $input_length)) (call $note (call $output_length))
             (call $note (i64.extend_i32_u (i64.ne (call $error_get) (i64.const 0))))
             (call $note (i64.extend_i32_u (i64.ge_u (call $alloc (i64.const 10)) (i64.const 16)))))"#,
    );
    let ended = plugin.call("run", "input");
    assert_eq!((ended.code, ended.error.as_deref(), &*ended.output), (0, Some("an error"), &b""[..]));
    assert_eq!(plugin.take_notes(), [0, 0, 0, 0, 1, 1]);
}

#[test]
fn reset_erases() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $block i64)
             (local.set $block (text 'secret'))
             (call $reset)
             (call $note (call $load_u64 (local.get $block))))"#,
    );
    assert_eq!(plugin.notes("run", "input"), [0]);
}

#[test]
fn byte_0_is_zero_in_host_functions() {
    let look = HostFunction::new("look", &[], &[Type::I32], |current, _, outputs| {
        // SAFETY: Extism memory has at least a page, and no guest runs meanwhile.
        outputs[0].bits = unsafe { *current.memory() }.into();
    });
    let body = r#"(import "extism:host/user" "look" (func $look (result i32)))
        (func (export "run")
          (call $store_u64 (i64.const 0) (i64.const -1))
          (call $note_i32 (call $look))
          (call $store_u8 (i64.const 0) (i32.const 65))
          (call $note_i32 (call $look)))"#;
    assert_eq!(Setup::guest(body).function(look).plugin().notes("run", ""), [0, 0]);
}

#[test]
fn plugins_have_their_own_memory() {
    let compiled = Setup::guest(
        r#"(func (export "write") (call $store_u64 (i64.const 1024) (i64.const 5)))
           (func (export "look") (call $note (call $load_u64 (i64.const 1024))))"#,
    )
    .compile();
    let (one, two) = (compiled.plugin(), compiled.plugin());
    assert_eq!(one.code("write"), 0);
    assert_eq!(two.notes("look", ""), [0]);
}

/// libextism 1.41 walks a list for each of them.
#[test]
fn many_live_blocks_cost_no_more_than_few() {
    within(10, || {
        let plugin = Plugin::new(
            r#"(func (export "run") (local $i i32) (local $first i64)
                 (local.set $first (call $alloc (i64.const 16)))
                 (loop $next
                   (drop (call $alloc (i64.const 16)))
                   (br_if $next (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 200000))))
                 (loop $next
                   (call $free (i64.add (local.get $first) (i64.extend_i32_u (i32.mul (local.get $i) (i32.const 16)))))
                   (br_if $next (local.tee $i (i32.sub (local.get $i) (i32.const 2)))))
                 (call $note (call $length (local.get $first)))
                 (call $note (call $length (i64.add (local.get $first) (i64.const 16))))
                 (call $note (call $length (i64.add (local.get $first) (i64.const 32)))))"#,
        );
        for _ in 0..3 {
            assert_eq!(plugin.notes("run", ""), [16, 16, 0]);
        }
    });
}

/// However small they are, the host's account of them has an end.
#[test]
fn blocks_without_end_are_too_many() {
    within(30, || {
        let plugin = Plugin::new(r#"(func (export "run") (loop $l (drop (call $alloc (i64.const 1))) (br $l)))"#);
        assert_oom(&plugin, "run", b"");
        assert_oom(&plugin, "run", b"");
    });
}
