//! `config_get`, `var_get` and `var_set`.

use extism_tests::{PAGE, Plugin, Setup, json};

/// Calls a function that takes handles with what is no live block; `$try` is its one argument.
const BAD_HANDLES: &str = r#"
    (func (export "dead") (local $dead i64)
      (local.set $dead (text 'key')) (call $free (local.get $dead)) (call $try (local.get $dead)))
    (func (export "inner") (call $try (i64.add (text 'a long key') (i64.const 1))))
    (func (export "low") (call $try (i64.const 1)))
    (func (export "outside") (call $try (i64.const 0x100000010)))
    (func (export "huge") (call $try (i64.const -1)))"#;

#[track_caller]
fn assert_refuses_bad_handles(setup: &str) {
    let plugin = Plugin::new(&format!("{setup} {BAD_HANDLES}"));
    for (function, named) in
        [("dead", "0x"), ("inner", "0x"), ("low", "0x1 "), ("outside", "0x100000010"), ("huge", "0xffffffffffffffff")]
    {
        let (code, error) = plugin.run(function).failure();
        assert_eq!(code, -1, "{function}: {error}");
        assert!(error.contains(named) && error.contains("block"), "{function}: {error}");
    }
}

/// `get` gives the value for the key in the input, `set` and `remove` change it; `set` takes `key=value`, where the
/// key is one byte.
const VARS: &str = r#"
    (func $copy (param $from i64) (param $n i64) (result i64) (local $to i64) (local $i i64)
      (local.set $to (call $alloc (local.get $n)))
      (block $done (loop $next
        (br_if $done (i64.ge_u (local.get $i) (local.get $n)))
        (call $store_u8 (i64.add (local.get $to) (local.get $i))
          (call $load_u8 (i64.add (local.get $from) (local.get $i))))
        (local.set $i (i64.add (local.get $i) (i64.const 1))) (br $next)))
      (local.get $to))
    (func (export "get") (result i32) (local $value i64)
      (local.set $value (call $var_get (call $copy (call $input_offset) (call $input_length))))
      (call $output (local.get $value))
      (i64.eq (local.get $value) (i64.const 0)))
    (func (export "set")
      (call $var_set (call $copy (call $input_offset) (i64.const 1))
        (call $copy (i64.add (call $input_offset) (i64.const 2)) (i64.sub (call $input_length) (i64.const 2)))))
    (func (export "remove")
      (call $var_set (call $copy (call $input_offset) (call $input_length)) (i64.const 0)))"#;

#[track_caller]
fn assert_full(plugin: &Plugin, assignment: &[u8]) {
    let (code, error) = plugin.call("set", assignment).failure();
    assert_eq!(code, -1);
    assert!(error.contains("Variable store is full"), "{error}");
}

#[track_caller]
fn assert_set(plugin: &Plugin, assignment: &[u8]) {
    assert_eq!(plugin.call("set", assignment).success(), (0, vec![]));
}

/// An assignment that takes so many bytes of the store: a name of one byte, the others are its value.
fn assignment(key: u8, size: usize) -> Vec<u8> {
    let mut bytes = vec![b'v'; size + 1];
    bytes[..2].copy_from_slice(&[key, b'=']);
    bytes
}

const CONFIG: &str = r#"
    (func (export "get") (result i32) (local $value i64)
      (local.set $value (call $config_get (call $input_offset)))
      (call $output (local.get $value))
      (i64.eq (local.get $value) (i64.const 0)))"#;

#[test]
fn config_by_key() {
    let config = json!({"a": "value of a", "Schlüssel": "Wert €", "empty": "", "a b\n": "c", "": "of no name"});
    let plugin = Setup::guest(CONFIG).with("config", config).plugin();
    assert_eq!(plugin.output_of("get", "a"), b"value of a");
    assert_eq!(plugin.output_of("get", "Schlüssel"), "Wert €".as_bytes());
    assert_eq!(plugin.output_of("get", "a b\n"), b"c");
    assert_eq!(plugin.call("get", "empty").success().1, b"");
    for missing in ["A", "a ", "b", "a\0"] {
        assert_eq!(plugin.call("get", missing).success(), (1, vec![]), "{missing:?}");
    }
    assert_eq!(plugin.call("get", b"\xff").success(), (1, vec![]), "no text is no key");
}

#[test]
fn values_of_every_length_come_back_whole() {
    let lengths = [1, 40_000, 65_535, 65_536, 65_537, 300_000, 1_000_000];
    let value = |length: usize| (0..length).map(|i| char::from(b'a' + (i % 23) as u8)).collect::<String>();
    let config: serde_json::Map<_, _> = lengths.iter().map(|&n| (n.to_string(), value(n).into())).collect();
    for &length in &lengths {
        // In a memory of one page, and in one that has grown.
        let plugin = Setup::guest(CONFIG).with("config", config.clone().into()).plugin();
        for _ in 0..2 {
            assert!(plugin.output_of("get", length.to_string()) == value(length).as_bytes(), "config, {length}");
        }
        let plugin = Plugin::new(VARS);
        assert_set(&plugin, format!("a={}", value(length)).as_bytes());
        assert!(plugin.output_of("get", "a") == value(length).as_bytes(), "variable, {length}");
    }
    let plugin = Setup::guest(CONFIG).with("config", config.into()).with("memory", json!({"max_pages": 10})).plugin();
    assert_eq!(plugin.output_of("get", "300000").len(), 300_000);
    let (code, error) = plugin.call("get", "1000000").failure();
    assert!(code == -1 && error.contains("oom"), "{code}, {error}");
    assert_eq!(plugin.output_of("get", "65537").len(), 65_537);
}

#[test]
fn config_takes_the_key_over() {
    let body = r#"
        (func (export "found") (local $key i64) (local $value i64)
          (local.set $key (text 'key'))
          (local.set $value (call $config_get (local.get $key)))
          (call $note (call $length (local.get $key)))
          (call $free (local.get $key))
          (call $note (call $length (local.get $value))))
        (func (export "missing") (local $key i64)
          (local.set $key (text 'other'))
          (call $note (call $config_get (local.get $key)))
          (call $note (call $length (local.get $key))))"#;
    let plugin = Setup::guest(body).with("config", json!({"key": "value"})).plugin();
    assert_eq!(plugin.notes("found", ""), [0, 5]);
    assert_eq!(plugin.notes("missing", ""), [0, 0]);
}

#[test]
fn config_refuses_what_is_no_block() {
    assert_refuses_bad_handles("(func $try (param i64) (drop (call $config_get (local.get 0))))");
}

/// A PDK frees the key after the library did: if that were the value's handle, it would free the value.
#[test]
fn the_key_is_never_the_handle_that_comes_back() {
    let key = "k".repeat(4096);
    let body = format!(
        r#"(func $fill (local $left i64)
             (local.set $left (i64.sub (call $memory_bytes) (call $alloc (i64.const 16))))
             (drop (call $alloc (i64.sub (local.get $left) (i64.const {})))))
           (func (export "config") (local $key i64) (local $value i64)
             (call $fill)
             (local.set $key (text '{key}'))
             (local.set $value (call $config_get (local.get $key)))
             (call $note (local.get $key)) (call $note (local.get $value))
             (call $free (local.get $key))
             (call $note (call $length (local.get $value))))
           (func (export "var") (local $key i64) (local $value i64)
             (call $var_set (text '{key}') (text '{key}'))
             (call $reset)
             (call $fill)
             (local.set $key (text '{key}'))
             (local.set $value (call $var_get (local.get $key)))
             (call $note (local.get $key)) (call $note (local.get $value))
             (call $free (local.get $key))
             (call $note (call $length (local.get $value))))"#,
        // What is left for the key: its 4,096 bytes and the block of 16 before it.
        4096 + 16
    );
    let plugin = Setup::guest(&body).with("config", json!({ key.as_str(): "v".repeat(4096) })).plugin();
    for function in ["config", "var"] {
        let notes = plugin.notes(function, "");
        assert_eq!((notes[0] + 4096) % PAGE as i64, 0, "{function}: the key ends where the memory does");
        assert_ne!(notes[0], notes[1], "{function}: the handle just taken over came back");
        assert_eq!(notes[2], 4096, "{function}");
    }
}

#[test]
fn config_changes_between_and_during_calls() {
    let plugin = Setup::guest(CONFIG).with("config", json!({"a": "1"})).plugin();
    assert!(plugin.configure(r#"{"a": "2", "b": "3"}"#));
    assert_eq!(plugin.output_of("get", "a"), b"2");
    assert_eq!(plugin.output_of("get", "b"), b"3");
    assert!(plugin.configure(r#"{"a": null}"#));
    assert_eq!(plugin.call("get", "a").code, 1);
    assert!(!plugin.configure(r#"{"b": 4}"#));
    let error = plugin.error().unwrap();
    assert!(error.contains("string") && error.contains("line 1"), "{error}");
    assert_eq!(plugin.output_of("get", "b"), b"3");
}

#[test]
fn variables_are_bytes_under_names() {
    let plugin = Plugin::new(VARS);
    assert_eq!(plugin.call("get", "a").success(), (1, vec![]));
    assert_eq!(plugin.call("set", b"a=\0\xff\x01").success(), (0, vec![]));
    assert_eq!(plugin.call("set", b"\xfe=other").success(), (0, vec![]));
    assert_eq!(plugin.output_of("get", "a"), b"\0\xff\x01");
    assert_eq!(plugin.output_of("get", b"\xfe"), b"other");
    assert_eq!(plugin.call("set", "a=again").code, 0);
    assert_eq!(plugin.output_of("get", "a"), b"again");
    assert_eq!(plugin.call("remove", "a").code, 0);
    assert_eq!(plugin.call("remove", "a").code, 0);
    assert_eq!(plugin.call("get", "a").success(), (1, vec![]));
    assert_eq!(plugin.output_of("get", b"\xfe"), b"other");
}

#[test]
fn variables_outlive_failed_calls_and_resets() {
    let plugin =
        Plugin::new(&format!(r#"{VARS} (func (export "trap") (call $var_set (text 'a') (text 'kept')) unreachable)"#));
    assert_eq!(plugin.run("trap").code, 134);
    assert!(plugin.reset());
    assert_eq!(plugin.output_of("get", "a"), b"kept");
}

#[test]
fn variables_belong_to_one_plugin() {
    let compiled = Setup::guest(VARS).compile();
    let (one, two) = (compiled.plugin(), compiled.plugin());
    assert_eq!(one.call("set", "a=1").code, 0);
    assert_eq!(two.call("get", "a").code, 1);
}

#[test]
fn variables_take_both_blocks_over() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $key i64) (local $value i64)
             (local.set $key (text 'key')) (local.set $value (text 'value'))
             (call $var_set (local.get $key) (local.get $value))
             (call $note (call $length (local.get $key)))
             (call $note (call $length (local.get $value)))
             (local.set $key (text 'key'))
             (local.set $value (call $var_get (local.get $key)))
             (call $note (call $length (local.get $key)))
             (call $note (call $length (local.get $value)))
             (local.set $key (text 'key'))
             (call $var_set (local.get $key) (i64.const 0))
             (call $note (call $length (local.get $key)))
             (call $note (call $var_get (text 'key'))))"#,
    );
    assert_eq!(plugin.notes("run", ""), [0, 0, 0, 5, 0, 0]);
}

#[test]
fn one_block_for_key_and_value() {
    let plugin = Plugin::new(
        r#"(func (export "run") (local $both i64)
             (local.set $both (text 'same'))
             (call $var_set (local.get $both) (local.get $both))
             (call $note (call $length (local.get $both)))
             (call $output (call $var_get (text 'same'))))"#,
    );
    assert_eq!(plugin.notes("run", ""), [0]);
    assert_eq!(plugin.output(), b"same");
}

#[test]
fn variables_refuse_what_is_no_block() {
    assert_refuses_bad_handles("(func $try (param i64) (drop (call $var_get (local.get 0))))");
    assert_refuses_bad_handles("(func $try (param i64) (call $var_set (local.get 0) (text 'value')))");
    assert_refuses_bad_handles("(func $try (param i64) (call $var_set (text 'key') (local.get 0)))");
    assert_refuses_bad_handles("(func $try (param i64) (call $var_set (local.get 0) (i64.const 0)))");
}

#[test]
fn variables_have_a_mebibyte_in_total() {
    let plugin = Plugin::new(VARS);
    let half = 512 * 1024;
    assert_set(&plugin, &assignment(b'a', half));
    assert_set(&plugin, &assignment(b'b', half));
    assert_full(&plugin, &assignment(b'c', 2));
    assert_full(&plugin, &assignment(b'b', half + 1));
    assert_eq!(plugin.output_of("get", "b").len(), half - 1, "a refused change changes nothing");
    assert_set(&plugin, &assignment(b'b', half));
    assert_eq!(plugin.call("remove", "a").code, 0);
    assert_set(&plugin, &assignment(b'c', half));
    assert_full(&plugin, &assignment(b'd', 2));
}

#[test]
fn variables_have_what_the_manifest_says() {
    let plugin = Setup::guest(VARS).with("memory", json!({"max_var_bytes": 10})).plugin();
    assert_set(&plugin, &assignment(b'a', 10));
    assert_full(&plugin, &assignment(b'a', 11));
    assert_full(&plugin, &assignment(b'b', 2));
    let more = Setup::guest(VARS).with("memory", json!({"max_var_bytes": 3_000_000})).plugin();
    assert_set(&more, &assignment(b'a', 3_000_000));
    assert_full(&more, &assignment(b'b', 2));
}

#[test]
fn variables_can_be_switched_off() {
    let plugin = Setup::guest(VARS).with("memory", json!({"max_var_bytes": 0})).plugin();
    let (code, error) = plugin.call("set", "a=1").failure();
    assert_eq!(code, -1);
    assert!(error.contains("disabled"), "{error}");
    assert_eq!(plugin.call("get", "a").success(), (1, vec![]));
}
