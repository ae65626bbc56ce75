//! Numbers that are no handles of live blocks, for every guest function that takes a handle; and handles freed twice.

use extism_tests::{PAGE, Plugin, Setup, json, within};

use super::{FINE, assert_ended, assert_fine, words};

/// `$forged` makes a live block and several dead ones, and then a number: what the first word of the input stands
/// for, plus the second word.
const FORGED: &str = r#"
    (global $live (mut i64) (i64.const 0)) (global $freed (mut i64) (i64.const 0))
    (global $taken (mut i64) (i64.const 0)) (global $reset (mut i64) (i64.const 0))
    (global $earlier (mut i64) (i64.const 0))
    (func $forged (result i64) (local $base i64) (local $of i64)
      (local.set $of (call $input_load_u64 (i64.const 0)))
      (local.set $base (call $input_load_u64 (i64.const 8)))
      (drop (call $alloc (i64.const 3000)))
      (global.set $reset (text 'of before a reset'))
      (call $reset)
      (global.set $taken (text 'no such key')) (drop (call $config_get (global.get $taken)))
      (global.set $freed (text 'freed')) (call $free (global.get $freed))
      (global.set $live (text '{"url":"http://h/a"}'))
      (i64.add (local.get $base)
        (if (result i64) (i64.eq (local.get $of) (i64.const 1)) (then (global.get $live))
        (else (if (result i64) (i64.eq (local.get $of) (i64.const 2)) (then (global.get $freed))
        (else (if (result i64) (i64.eq (local.get $of) (i64.const 3)) (then (global.get $taken))
        (else (if (result i64) (i64.eq (local.get $of) (i64.const 4)) (then (global.get $reset))
        (else (if (result i64) (i64.eq (local.get $of) (i64.const 5)) (then (global.get $earlier))
        (else (i64.const 0)))))))))))))
    (func (export "earlier") (drop (call $alloc (i64.const 9000))) (global.set $earlier (text 'of an earlier call')))
    (func $bystanders
      (call $note (call $length (global.get $live))) (call $note (call $load_u64 (global.get $live)))
      (call $note (call $length (text 'another'))))"#;

/// What `$bystanders` notes.
const BYSTANDERS: [i64; 3] = [20, i64::from_le_bytes(*b"{\"url\":\""), 7];

const LIVE: u64 = 1;

/// Pairs as `$forged` takes them; none is the handle of a live block. The live block is the last of 20 bytes.
fn forged() -> Vec<[u64; 2]> {
    let mut all: Vec<_> = (1..=15).map(|number| [0, number]).collect();
    let wild = [
        PAGE - 16,
        PAGE - 1,
        PAGE,
        1 << 31,
        (1 << 32) - 16,
        1 << 32,
        (1 << 32) + 16,
        1 << 48,
        (1 << 63) - 1,
        1 << 63,
        (1 << 63) + 16,
        0u64.wrapping_sub(16),
        u64::MAX - 1,
        u64::MAX,
    ];
    all.extend(wild.map(|number| [0, number]));
    let near =
        [1, 2, 7, 8, 15, 16, 19, 20, 31, 32, 48, 1 << 32, 1 << 33, 1 << 48, 1 << 63, u64::MAX, 0u64.wrapping_sub(8)];
    all.extend(near.map(|by| [LIVE, by]));
    for dead in 2..=5 {
        all.extend([0, 1, 8, 1 << 32].map(|by| [dead, by]));
    }
    all
}

#[test]
fn what_is_no_handle_has_no_length_cannot_be_freed_and_is_no_error_text() {
    let plugin = Plugin::new(&format!(
        r#"{FORGED} {FINE}
           (func (export "length") (call $note (call $length (call $forged))) (call $bystanders))
           (func (export "length_unsafe") (call $note (call $length_unsafe (call $forged))) (call $bystanders))
           (func (export "free") (call $free (call $forged)) (call $note (i64.const 0)) (call $bystanders))
           (func (export "error_set") (call $error_set (call $forged)) (call $note (call $error_get))
             (call $bystanders))"#
    ));
    assert_eq!(plugin.code("earlier"), 0);
    for pair in forged() {
        for function in ["length", "length_unsafe", "free", "error_set"] {
            let notes = plugin.notes(function, words(&pair));
            assert_eq!((notes[0], &notes[1..]), (0, &BYSTANDERS[..]), "{function} of {pair:#x?}");
        }
    }
    assert_fine(&plugin);
}

#[test]
fn functions_that_take_blocks_over_refuse_what_is_no_handle() {
    let calls = [
        ("config_get", "(drop (call $config_get (local.get $f)))"),
        ("var_get", "(drop (call $var_get (local.get $f)))"),
        ("var_set", "(call $var_set (local.get $f) (global.get $live))"),
        ("var_set a value", "(call $var_set (global.get $live) (local.get $f))"),
        ("http_request", "(drop (call $http_request (local.get $f) (i64.const 0)))"),
        ("http_request with a body", "(drop (call $http_request (global.get $live) (local.get $f)))"),
        ("log_trace", "(call $log_trace (local.get $f))"),
        ("log_debug", "(call $log_debug (local.get $f))"),
        ("log_info", "(call $log_info (local.get $f))"),
        ("log_warn", "(call $log_warn (local.get $f))"),
        ("log_error", "(call $log_error (local.get $f))"),
    ];
    let export = |(name, call): (&str, &str)| {
        format!(r#"(func (export "{name}") (local $f i64) (local.set $f (call $forged)) {call})"#)
    };
    let exports: String = calls.map(export).concat();
    let plugin = Plugin::new(&format!("{FORGED} {FINE} {exports}"));
    assert_eq!(plugin.code("earlier"), 0);
    for pair in forged() {
        for (function, _) in calls {
            let (code, error) = plugin.call(function, words(&pair)).failure();
            assert_eq!(code, -1, "{function} of {pair:#x?}: {error}");
            assert!(error.contains("not the handle of a block"), "{function} of {pair:#x?}: {error}");
        }
    }
    assert_fine(&plugin);
}

/// What `free`, `config_get`, `var_get`, `var_set`, `http_request` and `log_*` did with it makes no difference.
#[test]
fn a_block_is_gone_whichever_function_took_it() {
    let ways = [
        ("free", "(call $free (local.get $b))"),
        ("config_get", "(drop (call $config_get (local.get $b)))"),
        ("var_get", "(drop (call $var_get (local.get $b)))"),
        ("var_set", "(call $var_set (local.get $b) (i64.const 0))"),
        ("log_warn", "(call $log_warn (local.get $b))"),
        ("reset", "(call $reset)"),
    ];
    let export = |(name, call): (&str, &str)| {
        format!(
            r#"(func (export "{name}") (local $b i64) (local.set $b (text 'a name')) {call}
                 (call $note (call $length (local.get $b))) (call $free (local.get $b))
                 (call $error_set (local.get $b)) (call $note (call $error_get))
                 (call $note_i32 (i64.eq (local.get $b) (call $alloc (i64.const 6)))))
               (func (export "{name} twice") (local $b i64) (local.set $b (text 'a name')) {call}
                 (drop (call $config_get (local.get $b))))"#
        )
    };
    let plugin = Plugin::new(&format!("{FINE} {}", ways.map(export).concat()));
    for (name, _) in ways {
        // After a reset the memory begins anew.
        let again = i64::from(name == "reset");
        assert_eq!(plugin.notes(name, ""), [0, 0, again], "{name}");
        let (code, error) = plugin.run(&format!("{name} twice")).failure();
        assert!(code == -1 && error.contains("not the handle of a block"), "{name}: {code} {error}");
        assert_fine(&plugin);
    }
}

#[test]
fn a_block_that_is_freed_twice_is_given_out_once() {
    let body = r#"
        (func $twice (param $b i64) (call $free (local.get $b)) (call $free (local.get $b)))
        (func $another (call $note (call $alloc (i64.const 20000))))
        (func (export "run") (local $a i64) (local $b i64)
          (local.set $a (call $alloc (i64.const 20000))) (local.set $b (call $alloc (i64.const 20000)))
          (call $note (local.get $a)) (call $note (local.get $b))
          (call $twice (local.get $a)) (call $twice (local.get $b))
          (call $twice (local.get $a)) (call $twice (local.get $b))
          (call $another) (call $another) (call $another))
        (func (export "too_many") (call $twice (call $alloc (i64.const 60000)))
          (drop (call $alloc (i64.const 40000))) (drop (call $alloc (i64.const 40000))))"#;
    // All of it fits into the one page of the beginning, and no more than that.
    let plugin = Setup::guest(&format!("(memory 0) {body} {FINE}")).with("memory", json!({"max_pages": 0})).plugin();
    let notes = plugin.notes("run", "");
    let mut given: Vec<_> = notes[2..].to_vec();
    given.sort_unstable();
    assert!(given.windows(2).all(|pair| pair[0] + 20000 <= pair[1]), "{notes:?}");
    assert!(given[2] + 20000 <= PAGE as i64, "{notes:?}");
    assert_ended(plugin.run("too_many"), -1, "oom");
    assert_fine(&plugin);
}

/// A hole where the input was, and another block in it: the input stays empty.
#[test]
fn the_input_does_not_come_back_with_the_next_block_in_its_place() {
    let body = r#"(memory 0) (func (export "run") (local $i i64)
        (local.set $i (call $input_offset))
        (call $free (local.get $i)) (call $free (local.get $i))
        (call $note (call $alloc (i64.const 40000)))
        (call $note (call $input_length)) (call $note (call $input_offset))
        (call $note_i32 (call $input_load_u8 (i64.const 0))) (call $note (call $input_load_u64 (i64.const 0)))
        (call $input_set (local.get $i) (i64.const 40000))
        (call $note (call $input_length)) (call $note_i32 (call $input_load_u8 (i64.const 39999)))
        (call $free (i64.add (local.get $i) (i64.const 16)))
        (call $note (call $input_length))
        (call $free (local.get $i))
        (call $note (call $input_length)))"#;
    let plugin = Setup::guest(body).with("memory", json!({"max_pages": 0})).plugin();
    for _ in 0..2 {
        assert_eq!(plugin.notes("run", vec![9; 40_000]), [16, 0, 0, 0, 0, 40_000, 9, 40_000, 0]);
    }
}

/// Absurd requests, one after the other in one and the same plug-in, in between real ones.
#[test]
fn blocks_of_absurd_sizes_end_their_call_and_no_other() {
    within(30, || {
        let plugin = Plugin::new(&format!(
            r#"{FINE} (func (export "run") (local $h i64)
                 (local.set $h (call $alloc (call $input_load_u64 (i64.const 0))))
                 (call $note (call $length (local.get $h)))
                 (call $store_u8 (i64.sub (i64.add (local.get $h) (call $length (local.get $h))) (i64.const 1))
                   (i32.const 1)))"#
        ));
        let gib = 1u64 << 30;
        let absurd = [
            (4 * gib) - 16,
            4 * gib - 15,
            4 * gib - 1,
            4 * gib,
            4 * gib + 1,
            5 * gib,
            1 << 47,
            1 << 48,
            (1 << 63) - 1,
            1 << 63,
            (1 << 63) + 1,
            0u64.wrapping_sub(1 << 32),
            0u64.wrapping_sub(16),
            u64::MAX - 14,
            u64::MAX - 1,
            u64::MAX,
        ];
        for size in absurd.iter().chain(&absurd) {
            assert_ended(plugin.call("run", words(&[*size])), -1, "oom");
            assert_eq!(plugin.notes("run", words(&[1000])), [1000], "after {size:#x}");
            assert_fine(&plugin);
        }
        // With an input of 8 bytes in front of it.
        let largest = 4 * gib - 32;
        assert_eq!(plugin.notes("run", words(&[largest])), [largest.cast_signed()]);
        assert_ended(plugin.call("run", words(&[largest + 1])), -1, "oom");
    });
}

/// All 32 functions with all pairs of wild numbers: each call ends in one of three ways, and the next one works.
#[test]
fn wild_arguments_for_every_function() {
    const FUNCTIONS: [(&str, &str); 32] = [
        ("alloc", "l>"),
        ("free", "l"),
        ("length", "l>"),
        ("length_unsafe", "l>"),
        ("load_u8", "l>"),
        ("load_u64", "l>"),
        ("store_u8", "li"),
        ("store_u64", "ll"),
        ("input_offset", ">"),
        ("input_length", ">"),
        ("input_load_u8", "l>"),
        ("input_load_u64", "l>"),
        ("input_set", "ll"),
        ("output_set", "ll"),
        ("output_offset", ">"),
        ("output_length", ">"),
        ("error_set", "l"),
        ("error_get", ">"),
        ("reset", ""),
        ("memory_bytes", ">"),
        ("config_get", "l>"),
        ("var_get", "l>"),
        ("var_set", "ll"),
        ("http_request", "ll>"),
        ("http_status_code", ">"),
        ("http_headers", ">"),
        ("log_trace", "l"),
        ("log_debug", "l"),
        ("log_info", "l"),
        ("log_warn", "l"),
        ("log_error", "l"),
        ("get_log_level", ">"),
    ];
    let export = |(name, ty): (&str, &str)| {
        let args = ty.chars().filter(|c| *c != '>').enumerate().map(|(i, c)| match c {
            'i' => "(i32.wrap_i64 (call $input_load_u64 (i64.const 8)))".to_owned(),
            _ => format!("(call $input_load_u64 (i64.const {}))", 8 * i),
        });
        let drop = if ty.contains('>') { "drop" } else { "" };
        format!(r#"(func (export "{name}") {} (call ${name}) {drop})"#, args.collect::<String>())
    };
    within(60, move || {
        let compiled = Setup::guest(&format!("{FINE} {}", FUNCTIONS.map(export).concat())).compile();
        let wild = [
            0,
            1,
            15,
            16,
            17,
            31,
            32,
            64,
            PAGE - 16,
            PAGE - 8,
            PAGE - 7,
            PAGE - 1,
            PAGE,
            1 << 31,
            (1 << 32) - 1,
            1 << 32,
            (1 << 32) + 16,
            1 << 62,
            (1 << 63) - 1,
            1 << 63,
            (1 << 63) + 16,
            0u64.wrapping_sub(PAGE),
            0u64.wrapping_sub(32),
            0u64.wrapping_sub(16),
            0u64.wrapping_sub(8),
            u64::MAX,
        ];
        for (name, ty) in FUNCTIONS {
            // Its own plug-in: what `alloc` gets of its memory would be there for `output_set`, and be read here.
            let plugin = compiled.plugin();
            let seconds = if ty.chars().filter(|c| *c != '>').count() == 2 { &wild[..] } else { &[0] };
            for first in wild {
                for second in seconds {
                    // The harness reads all of the output.
                    let ended = plugin.call(name, words(&[first, *second]));
                    let what = format!("{name}({first:#x}, {second:#x}): {ended:?}");
                    match (ended.code, ended.error.as_deref()) {
                        (0, error) => assert!(error.is_none() || name == "error_set", "{what}"),
                        (-1, Some(_)) | (134, Some(_)) => {}
                        _ => panic!("{what}"),
                    }
                    assert!(ended.output.len() as u64 <= 1 << 32, "{what}");
                }
                assert_fine(&plugin);
            }
        }
    });
}
