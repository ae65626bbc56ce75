//! What a plug-in may take: `memory.max_pages`, its default, and the end of each memory.

use extism_tests::{HostFunction, PAGE, Plugin, Setup, Type, guest, json};

fn limited(body: &str, max_pages: u64) -> Setup {
    Setup::guest(body).with("memory", json!({ "max_pages": max_pages }))
}

const OOM: (i32, &str) = (-1, "oom");

#[track_caller]
fn assert_oom(plugin: &Plugin, function: &str) {
    let (code, error) = plugin.run(function).failure();
    assert_eq!((code, error.as_str()), OOM);
}

#[test]
fn initial_sizes_must_fit() {
    let fits = "(memory 10) (func (export \"run\"))";
    assert_eq!(limited(fits, 10).plugin().code("run"), 0);
    let error = limited(fits, 9).refusal();
    assert!(error.contains("max_pages") && error.contains('9') && error.contains("655360"), "{error}");
}

#[test]
fn initial_sizes_of_all_memories_count_together() {
    let body = "(memory 4) (memory 6) (func (export \"run\"))";
    assert_eq!(limited(body, 10).plugin().code("run"), 0);
    assert!(limited(body, 9).refusal().contains("max_pages"));
}

#[test]
fn initial_tables_count_8_bytes_an_element() {
    let body = "(memory 1) (table 8192 funcref) (func (export \"run\"))";
    assert_eq!(limited(body, 2).plugin().code("run"), 0);
    let body = "(memory 1) (table 8193 funcref) (func (export \"run\"))";
    assert!(limited(body, 2).refusal().contains("max_pages"));
}

#[test]
fn initial_sizes_of_linked_modules_count() {
    let lib = "(module (memory 5) (func (export \"f\")))";
    let main = "(module (import \"lib\" \"f\" (func)) (memory 5) (func (export \"run\")))";
    let setup = |max_pages: u64| {
        Setup::linked(&[("lib", lib), ("main", main)]).with("memory", json!({ "max_pages": max_pages }))
    };
    assert_eq!(setup(10).plugin().code("run"), 0);
    assert!(setup(9).refusal().contains("max_pages"));
}

/// `grow` lets the guest's own memory grow by the pages in the input and notes what that gives.
const GROW: &str = r#"(memory (export "memory") 2)
    (func (export "grow") (call $note_i32 (memory.grow (i32.wrap_i64 (call $input_load_u64 (i64.const 0))))))
    (func (export "give_up") (drop (memory.grow (i32.const 60000))) unreachable)
    (func (export "divide") (drop (i32.div_u (i32.const 1) (i32.const 0))))
    (func (export "alloc") (drop (call $alloc (call $input_load_u64 (i64.const 0)))))"#;

const MINUS_1: i64 = 0xffff_ffff;

#[track_caller]
fn grow(plugin: &Plugin, pages: u64) -> i64 {
    plugin.notes("grow", pages.to_le_bytes())[0]
}

#[test]
fn growth_is_counted_apart_from_the_beginning() {
    let plugin = limited(GROW, 5).plugin();
    assert_eq!(grow(&plugin, 6), MINUS_1);
    assert_eq!(grow(&plugin, 5), 2);
    assert_eq!(grow(&plugin, 1), MINUS_1);
    assert_eq!(grow(&plugin, 0), 7);
}

#[test]
fn all_memories_grow_from_one_budget() {
    let plugin = limited(GROW, 5).plugin();
    // Extism memory has a page in the beginning; so this takes three.
    assert_eq!(plugin.call("alloc", (4 * PAGE - 100).to_le_bytes()).code, 0);
    assert_eq!(grow(&plugin, 3), MINUS_1);
    assert_eq!(grow(&plugin, 2), 2);
    assert_eq!(plugin.call("alloc", (4 * PAGE - 100).to_le_bytes()).code, 0, "the space is there still");
    let ended = plugin.call("alloc", (5 * PAGE).to_le_bytes());
    assert_eq!(ended.failure(), (-1, "oom".to_owned()));
    let two = r#"(memory $a 1) (memory $b 1)
        (func (export "run")
          (call $note_i32 (memory.grow $a (i32.const 3)))
          (call $note_i32 (memory.grow $b (i32.const 3)))
          (call $note_i32 (memory.grow $b (i32.const 2))))"#;
    assert_eq!(limited(two, 5).plugin().notes("run", ""), [1, MINUS_1, 1]);
}

#[test]
fn input_counts() {
    let plugin = limited(GROW, 5).plugin();
    let ended = plugin.call("grow", vec![0; 6 * PAGE as usize]);
    assert_eq!(ended.failure(), (-1, "oom".to_owned()));
    assert_eq!(plugin.call("grow", vec![0; 6 * PAGE as usize - 100]).code, 0);
    assert_eq!(plugin.call("grow", 0u64.to_le_bytes()).code, 0);
}

#[test]
fn no_growth_at_all() {
    let plugin = limited("(func (export \"grow\") (call $note_i32 (table.grow 0 (ref.null func) (i32.const 1)))) (table 0 funcref) (memory 0)", 0).plugin();
    assert_eq!(plugin.notes("grow", ""), [MINUS_1]);
    let plugin = limited(r#"(memory 0) (func (export "alloc") (drop (call $alloc (call $input_length))))"#, 0).plugin();
    assert_eq!(plugin.call("alloc", [0; 30_000]).code, 0, "the page of the beginning is there");
    assert_eq!(plugin.call("alloc", [0; 40_000]).code, -1);
}

#[test]
fn tables_grow_from_the_same_budget() {
    let body = r#"(memory 1) (table 1 funcref)
        (func (export "run")
          (call $note_i32 (table.grow 0 (ref.null func) (i32.const 16385)))
          (call $note_i32 (table.grow 0 (ref.null func) (i32.const 16384)))
          (call $note_i32 (memory.grow (i32.const 1))))"#;
    assert_eq!(limited(body, 2).plugin().notes("run", ""), [MINUS_1, 1, MINUS_1]);
}

#[test]
fn the_gc_heap_counts() {
    let body = r#"(type $list (sub (struct (field (ref null $list)) (field i64 i64 i64 i64))))
        (memory 1) (global $keep (mut (ref null $list)) (ref.null $list))
        (func (export "some") (local $i i32) (global.set $keep (ref.null $list))
          (loop $l
            (global.set $keep (struct.new $list (global.get $keep)
              (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))
            (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 100)))))
        (func (export "endless")
          (loop $l
            (global.set $keep (struct.new $list (global.get $keep)
              (i64.const 1) (i64.const 2) (i64.const 3) (i64.const 4)))
            (br $l)))"#;
    extism_tests::within(20, move || {
        let plugin = limited(body, 50).plugin();
        assert_eq!(plugin.code("some"), 0);
        assert_oom(&plugin, "endless");
    });
}

#[test]
fn oom_is_said_only_where_a_limit_was_the_reason() {
    let plugin = limited(GROW, 5).plugin();
    assert_oom(&plugin, "give_up");
    let (code, error) = plugin.run("divide").failure();
    assert_eq!(code, 134);
    assert!(error.contains("divide by zero"), "{error}");
    let own_maximum =
        limited(r#"(memory 1 2) (func (export "run") (drop (memory.grow (i32.const 3))) unreachable)"#, 100);
    let (code, error) = own_maximum.plugin().run("run").failure();
    assert_eq!(code, 134, "the module's own maximum is no limit of the host: {error}");
}

#[test]
fn failed_instances_give_their_memory_back() {
    let plugin = limited(
        r#"(global $n (mut i32) (i32.const 0))
           (memory 1)
           (func (export "_start") (drop (memory.grow (i32.const 4))) unreachable)"#,
        4,
    )
    .plugin();
    for _ in 0..3 {
        assert_eq!(plugin.run("_start").code, 134, "each of them could grow");
    }
}

#[test]
fn no_memory_passes_4_gib() {
    let body = r#"(memory i64 0)
        (func (export "run") (local $i i32)
          (loop $l
            (call $note (memory.grow (i64.const 16384)))
            (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4))))
          (call $note (memory.grow (i64.const 1)))
          (i32.store8 (i64.const 0xffffffff) (i32.const 1)))"#;
    assert_eq!(Plugin::new(body).notes("run", ""), [0, 16384, 32768, 49152, -1]);
    let error = Setup::new("(module (memory i64 65537))").refusal();
    assert!(error.contains("4 GiB"), "{error}");
}

#[test]
fn a_plugin_without_limit_has_8_gib() {
    let error = Setup::new("(module (memory 65536) (memory 65536) (memory 1))").refusal();
    assert!(error.contains("8 GiB"), "{error}");
    let body = r#"(memory $a 0) (memory $b 0) (memory $c 0)
        (func $four (param $i i32) (result i32)
          (i32.add (i32.add (i32.ne (memory.grow $a (i32.const 16384)) (i32.const -1))
                            (i32.ne (memory.grow $b (i32.const 16384)) (i32.const -1)))
                   (i32.ne (memory.grow $c (i32.const 16384)) (i32.const -1))))
        (func (export "run") (result i32)
          (i32.add (i32.add (call $four (i32.const 0)) (call $four (i32.const 0)))
                   (i32.add (call $four (i32.const 0)) (call $four (i32.const 0)))))"#;
    let gibibytes = Plugin::new(body).code("run");
    assert!((7..=8).contains(&gibibytes), "{gibibytes} GiB");
}

#[test]
fn extism_memory_counts_against_the_default() {
    // 7 GiB of its own leave less than 1 GiB for the other.
    let body = r#"(memory 0) (memory 0)
        (func (export "run") (local $i i32)
          (loop $l
            (drop (memory.grow 0 (i32.const 16384)))
            (drop (memory.grow 1 (i32.const 16384)))
            (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 4))))
          (drop (call $alloc (i64.const 0x40000000))))"#;
    assert_oom(&Plugin::new(body), "run");
}

#[test]
fn limits_hold_for_start_functions() {
    let body = r#"(memory 1) (func $go (drop (memory.grow (i32.const 100))) unreachable) (start $go)
        (func (export "run"))"#;
    assert_oom(&limited(body, 50).plugin(), "run");
}

#[test]
fn linked_modules_share_the_budget() {
    let lib = guest(r#"(memory 1) (func (export "grow") (param i32) (result i32) (memory.grow (local.get 0)))"#);
    let main = guest(
        r#"(import "lib" "grow" (func $grow (param i32) (result i32))) (memory 1)
           (func (export "run")
             (call $note_i32 (call $grow (i32.const 3)))
             (call $note_i32 (memory.grow (i32.const 3)))
             (call $note_i32 (memory.grow (i32.const 2))))"#,
    );
    let setup = Setup::linked(&[("lib", &lib), ("main", &main)]).with("memory", json!({"max_pages": 5}));
    assert_eq!(setup.plugin().notes("run", ""), [1, MINUS_1, 1]);
}

#[test]
fn fuel_of_nothing_and_of_everything() {
    let body = r#"(func (export "run")) (func (export "some") (local $i i32)
        (loop $l (br_if $l (i32.lt_u (local.tee $i (i32.add (local.get $i) (i32.const 1))) (i32.const 1000)))))"#;
    let none = Setup::guest(body).fuel(0).plugin();
    assert_eq!(none.run("some").failure(), (-1, "plugin ran out of fuel".to_owned()));
    for fuel in [u64::MAX, i64::MAX as u64, 1 << 63] {
        let plugin = Setup::guest(body).fuel(fuel).plugin();
        for _ in 0..3 {
            assert_eq!(plugin.code("some"), 0, "{fuel}");
        }
    }
}

#[test]
fn fuel_is_whole_again_after_every_end() {
    let body = r#"(func $spend (param $i i32) (loop $l (br_if $l (local.tee $i (i32.sub (local.get $i) (i32.const 1))))))
        (func (export "trap") (call $spend (i32.const 1000)) unreachable)
        (func (export "oom") (call $spend (i32.const 1000)) (drop (call $alloc (i64.const -1))))
        (func (export "run") (call $spend (i32.const 1000)))"#;
    let plugin = Setup::guest(body).fuel(6000).plugin();
    for _ in 0..3 {
        assert_eq!(plugin.run("trap").code, 134);
        assert_eq!(plugin.run("oom").failure().1, "oom");
        assert_eq!(plugin.code("run"), 0);
    }
}

/// What a host function was refused is its own affair, unless the guest cannot go on without it.
#[test]
fn blocks_that_a_host_function_does_not_get() {
    let want = HostFunction::new("want", &[Type::I64], &[Type::I64], |current, inputs, outputs| {
        outputs[0].bits = current.alloc(inputs[0].bits);
    });
    let body = r#"(import "extism:host/user" "want" (func $want (param i64) (result i64)))
        (func (export "run") (call $note (call $want (i64.const 1000000))) (call $note (call $want (i64.const -1)))
          (call $note (i64.extend_i32_u (i64.ne (call $want (i64.const 1000)) (i64.const 0)))))
        (func (export "trap") (drop (call $want (i64.const 1000000))) unreachable)"#;
    let plugin = limited(body, 5).function(want).plugin();
    assert_eq!(plugin.notes("run", ""), [0, 0, 1]);
    assert_oom(&plugin, "trap");
}
