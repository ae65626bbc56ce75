//! Modules that are small to send and dear to compile: each is refused, or compiled within a bound on time and memory.
//!
//! Each shape is tried in a module of about 2 MB. With `EXTISM_TEST_LONG` set, also in smaller and smaller ones until one
//! is compiled, without and with a fuel limit: that is about the dearest which passes. It is what the weights of the
//! estimate (`src/wasm/cost.rs`) rest on, and to be run with each new version of Wasmtime: `make bombs`.

use std::time::{Duration, Instant};

use extism_tests::{HostFunction, Setup, Type, slowdown};

use super::MIB;

/// The bounds of one module, on a machine with nothing else to do; tests run side by side, so they have twice the time.
const SECONDS: u64 = 60;
const MEMORY: u64 = 1024 * MIB;

/// The most memory that this process ever had.
fn peak_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

/// Makes the shape of this size; in long tests smaller ones too, until one passes.
fn try_sizes(shape: impl Fn(usize) -> String, largest: usize) {
    if std::env::var_os("EXTISM_TEST_LONG").is_none() {
        bounded(shape(largest), false);
        return;
    }
    for fuel in [false, true] {
        let sizes = std::iter::successors(Some(largest), |size| Some(size * 4 / 5).filter(|size| *size > 0));
        let passed = sizes.into_iter().any(|size| bounded(shape(size), fuel));
        assert!(passed, "none passes");
    }
}

/// Whether a plug-in can be made of this text. Both answers come in time.
fn bounded(text: String, fuel: bool) -> bool {
    let wasm = wat::parse_str(text).unwrap();
    let length = wasm.len();
    assert!(length < 5 << 19, "{length} bytes");
    // What the test itself took does not count.
    std::fs::write("/proc/self/clear_refs", "5").unwrap();
    let before = peak_bytes();
    let setup = if fuel { Setup::new(wasm).fuel(1 << 40) } else { Setup::new(wasm) };
    let began = Instant::now();
    let made = setup.try_plugin();
    let (took, memory) = (began.elapsed(), peak_bytes().saturating_sub(before));
    println!("{length} bytes, fuel {fuel}: {took:?}, {} MiB, {:?}", memory / MIB, made.as_ref().err());
    assert!(took < Duration::from_secs(SECONDS) * slowdown(), "{length} bytes: {took:?}");
    assert!(memory < MEMORY, "{length} bytes: {} MiB", memory / MIB);
    if let Err(error) = &made {
        let refused = error.contains("too complex to compile") || error.contains("too large to compile");
        assert!(refused, "{error}");
        assert!(took < Duration::from_secs(5) * slowdown(), "refused after {took:?}");
    }
    made.is_ok()
}

/// A module with one function of this body. It has one parameter of type `i32` and a reference to an array of them.
fn module(items: &str, body: &str) -> String {
    format!(
        "(module (type $none (func)) (type $one (func (param i32) (result i32))) (type $array (array (mut anyref)))
            (type $object (sub (struct (field (mut anyref)))))
            {items}
            (memory 1) (table $t 10 funcref) (tag $e)
            (global $g (mut i32) (i32.const 0)) (global $d (mut f64) (f64.const 0))
            (global $v (mut v128) (v128.const i64x2 0 0)) (global $r (mut anyref) (ref.null any))
            (func $f) (elem declare func $f)
            (func (export \"f\") (param $i i32) (param $a (ref null $array)) (param $o (ref null $object)) (param $r anyref)
                {body}))"
    )
}

/// Locals beyond the parameters.
fn locals(count: usize, ty: &str) -> String {
    format!("(local {})", format!("{ty} ").repeat(count))
}

/// The same text in each of so many places, for its number.
fn each(count: usize, text: impl Fn(usize) -> String) -> String {
    (0..count).map(text).collect()
}

/// So many of these around each other.
fn nested(begin: &str, count: usize, inside: &str, end: &str) -> String {
    [&begin.repeat(count), inside, &end.repeat(count)].concat()
}

const GET: &str = "(local.get 0)";

// Control.

#[test]
fn nested_loops() {
    try_sizes(|n| module("", &nested("(loop ", n, "", "(br_if 0 (local.get 0)))")), 250_000);
}

#[test]
fn nested_loops_with_calls() {
    try_sizes(|n| module("", &nested("(loop (call $f) ", n, "", "(br_if 0 (local.get 0)))")), 200_000);
}

#[test]
fn nested_loops_with_locals() {
    try_sizes(
        |n| {
            let set =
                each(n, |i| format!("(loop (local.set {0} (i32.add (local.get {0}) (local.get 0)))", 4 + i % 200));
            module("", &format!("{} {set} {}", locals(200, "i32"), "(br_if 0 (local.get 0)))".repeat(n)))
        },
        60_000,
    );
}

#[test]
fn nests_beside_each_other() {
    try_sizes(|n| module("", &nested("(loop ", 100, "", "(br_if 0 (local.get 0)))").repeat(n / 100 + 1)), 250_000);
}

#[test]
fn loops_beside_each_other() {
    try_sizes(|n| module("", &"(loop (br_if 0 (local.get 0)))".repeat(n)), 250_000);
}

#[test]
fn loops_in_a_deep_nest() {
    try_sizes(|n| module("", &nested("(loop ", 500, &"(loop (br_if 0 (local.get 0)))".repeat(n), ")")), 200_000);
}

#[test]
fn loops_of_functions() {
    try_sizes(
        |n| module(&"(func (param i32) (loop (br_if 0 (local.get 0)) (br_if 0 (i32.const 1))))".repeat(n / 2), ""),
        200_000,
    );
}

#[test]
fn blocks_that_are_left_from_within() {
    try_sizes(|n| module("", &nested("(block ", n, &each(n, |i| format!("(br_if {i} (local.get 0))")), ")")), 200_000);
}

#[test]
fn nested_ifs() {
    try_sizes(|n| module("", &nested("(if (local.get 0) (then ", n, "", "))")), 300_000);
}

#[test]
fn two_hundred_thousand_nested_blocks() {
    try_sizes(|n| module("", &nested("(block ", n, "", ")")), 500_000);
}

#[test]
fn ifs_with_a_value() {
    try_sizes(
        |n| {
            module(
                "",
                &"(global.set $g (if (result i32) (local.get 0) (then (i32.const 1)) (else (i32.const 2))))".repeat(n),
            )
        },
        150_000,
    );
}

#[test]
fn ifs_that_set_locals() {
    try_sizes(
        |n| {
            let body = each(n, |i| format!("(if (local.get 0) (then (local.set {} (i32.const {i}))))", 4 + i % 200));
            module("", &format!("{} {body}", locals(200, "i32")))
        },
        90_000,
    );
}

#[test]
fn ifs_that_set_many_locals() {
    try_sizes(
        |n| {
            let body = each(n, |i| format!("(if (local.get 0) (then (local.set {} (i32.const {i}))))", 4 + i % 2000));
            module("", &format!("{} {body}", locals(2000, "i32")))
        },
        80_000,
    );
}

#[test]
fn branches_over_many_values() {
    try_sizes(
        |n| {
            let (push, pop) =
                (each(1000, |i| format!("(i32.load offset={i} (local.get 0))")), "(global.set $g)".repeat(1000));
            module("", &format!("{push} {} {pop}", "(block (br_if 0 (local.get 0)))".repeat(n / 3)))
        },
        600_000,
    );
}

#[test]
fn blocks_of_many_values() {
    try_sizes(
        |n| {
            let ty = format!("(param {0}) (result {0})", "i32 ".repeat(100));
            let blocks = format!("(block {ty} (br_if 0 (local.get 0)))").repeat(n / 2);
            module("", &format!("{} {blocks} {}", GET.repeat(100), "(drop)".repeat(100)))
        },
        200_000,
    );
}

#[test]
fn loops_of_many_values() {
    try_sizes(
        |n| {
            let ty = format!("(param {0}) (result {0})", "i32 ".repeat(100));
            let blocks = format!("(loop {ty} (br_if 0 (local.get 0)))").repeat(n);
            module("", &format!("{} {blocks} {}", GET.repeat(100), "(drop)".repeat(100)))
        },
        100_000,
    );
}

#[test]
fn an_interpreter_with_many_locals() {
    try_sizes(
        |n| {
            let places = each(n, |i| {
                let (to, from) = (4 + i % 500, 4 + (i * 7) % 500);
                format!("(local.set {to} (i32.add (local.get {from}) (local.get 0))) (br {}))", n - i)
            });
            let table = each(n + 1, |i| format!("{i} "));
            module(
                "",
                &format!(
                    "{} (loop (block {}(br_table {table} (local.get 0)) {places}))",
                    locals(500, "i32"),
                    "(block ".repeat(n)
                ),
            )
        },
        80_000,
    );
}

#[test]
fn tables_of_branches() {
    try_sizes(
        |n| {
            let tables = format!("(block (br_table {} (local.get 0)))", each(101, |i| format!("{i} "))).repeat(n);
            module("", &nested("(block ", 100, &tables, ")"))
        },
        20_000,
    );
}

#[test]
fn tables_of_branches_to_one_place() {
    try_sizes(
        |n| {
            module(
                "",
                &format!("(block {})", format!("(block (br_table {} (local.get 0)))", "0 ".repeat(1000)).repeat(n)),
            )
        },
        2_000,
    );
}

#[test]
fn a_table_of_branches_of_great_size() {
    try_sizes(|n| module("", &format!("(block (block (br_table {} 1 (local.get 0))))", "0 ".repeat(n))), 60_000);
}

// Plain instructions.

#[test]
fn additions() {
    try_sizes(|n| module("", &"(local.set 0 (i32.add (local.get 0) (i32.const 1)))".repeat(n)), 300_000);
}

#[test]
fn loads() {
    try_sizes(|n| module("", &"(drop (i32.load (local.get 0)))".repeat(n)), 300_000);
}

#[test]
fn conversions() {
    try_sizes(
        |n| module("", &"(global.set $g (i32.trunc_f64_u (f64.convert_i32_s (global.get $g))))".repeat(n)),
        300_000,
    );
}

#[test]
fn vector_conversions() {
    try_sizes(|n| module("", &"(global.set $v (i32x4.trunc_sat_f32x4_u (global.get $v)))".repeat(n)), 300_000);
}

#[test]
fn values_that_live_long() {
    try_sizes(
        |n| {
            let loads = each(n, |i| format!("(i32.load offset={i} (local.get 0))"));
            module("", &format!("{loads} {} (global.set $g)", "(i32.xor)".repeat(n - 1)))
        },
        250_000,
    );
}

#[test]
fn locals_that_live_long() {
    try_sizes(
        |n| {
            let count = n.min(40_000);
            let loads = each(count, |i| format!("(local.set {} (i32.load offset={i} (local.get 0)))", 4 + i));
            let uses = each(count, |i| format!("(local.set 0 (i32.xor (local.get 0) (local.get {})))", 3 + count - i));
            module("", &format!("{} {loads} {uses} (global.set $g (local.get 0))", locals(count, "i32")))
        },
        150_000,
    );
}

#[test]
fn an_expression_of_great_depth() {
    try_sizes(|n| module("", &format!("{} {} (global.set $g)", GET.repeat(n), "(i32.add)".repeat(n - 1))), 600_000);
}

#[test]
fn calls() {
    try_sizes(|n| module("", &"(call $f)".repeat(n)), 1_000_000);
}

#[test]
fn calls_that_pass_a_thousand_values() {
    try_sizes(
        |n| {
            let ty = "i32 ".repeat(1000);
            let zeros = "(i32.const 0)".repeat(1000);
            let items = format!("(func $s (result {ty}) {zeros}) (func $c (param {ty}) (result {ty}) {zeros})");
            module(&items, &format!("(call $s) {} {}", "(call $c)".repeat(n), "(drop)".repeat(1000)))
        },
        600_000,
    );
}

#[test]
fn indirect_calls() {
    try_sizes(|n| module("", &"(call_indirect (type $none) (local.get 0))".repeat(n)), 400_000);
}

#[test]
fn calls_that_never_return() {
    try_sizes(|n| module("", &"(if (local.get 0) (then (call $f) (unreachable)))".repeat(n)), 200_000);
}

#[test]
fn memory_instructions() {
    try_sizes(
        |n| {
            module(
                "",
                &"(memory.copy (local.get 0) (local.get 0) (local.get 0)) (drop (memory.grow (local.get 0)))"
                    .repeat(n / 2),
            )
        },
        200_000,
    );
}

#[test]
fn table_instructions() {
    try_sizes(
        |n| {
            module(
                "",
                &"(table.copy (local.get 0) (local.get 0) (local.get 0)) (drop (table.get (local.get 0)))"
                    .repeat(n / 2),
            )
        },
        200_000,
    );
}

/// A function of so many calls of a guest function `(i64) -> TYPE`.
fn calls_of(name: &str, ty: &str, count: usize) -> String {
    let import = format!(r#"(import "extism:host/env" "{name}" (func $l (param i64) (result {ty})))"#);
    module(&import, &"(drop (call $l (i64.const 8)))".repeat(count))
}

#[test]
fn calls_of_imported_functions() {
    try_sizes(|n| calls_of("length", "i64", n), 350_000);
}

/// Functions of nothing but calls are long, and no bombs.
#[test]
fn calls_of_imported_functions_pass() {
    for (module, name, ty, call) in [
        ("wasi_snapshot_preview1", "sched_yield", "(result i32)", "(drop (call $f))"),
        ("extism:host/env", "alloc", "(param i64) (result i64)", "(drop (call $f (i64.const 1)))"),
        ("extism:host/env", "load_u64", "(param i64) (result i64)", "(drop (call $f (i64.const 16)))"),
        ("extism:host/env", "store_u8", "(param i64 i32)", "(call $f (i64.const 16) (i32.const 7))"),
        ("extism:host/env", "input_length", "(result i64)", "(drop (call $f))"),
        ("extism:host/env", "log_info", "(param i64)", "(call $f (i64.const 0))"),
        ("extism:host/user", "user", "(param i64) (result i64)", "(drop (call $f (i64.const 1)))"),
    ] {
        let user = HostFunction::new("user", &[Type::I64], &[Type::I64], |_, _, _| {});
        let text = format!(
            r#"(module (import "{module}" "{name}" (func $f {ty})) (memory (export "memory") 1)
               (func (export "run") {}))"#,
            call.repeat(20_000)
        );
        let plugin = Setup::new(text).wasi().function(user).plugin();
        assert!(plugin.has("run"), "{name}");
    }
}

#[test]
fn input_that_is_loaded() {
    try_sizes(|n| calls_of("input_load_u8", "i32", n), 350_000);
}

// Exceptions.

#[test]
fn calls_below_many_handlers() {
    try_sizes(
        |n| {
            module(
                "",
                &format!("(block $h {})", nested("(try_table (catch_all $h) ", 200, &"(call $f)".repeat(n), ")")),
            )
        },
        600_000,
    );
}

#[test]
fn calls_below_handlers_for_many_tags() {
    try_sizes(
        |n| module("", &format!("(block $h (try_table {} {}))", "(catch $e $h)".repeat(100), "(call $f)".repeat(n))),
        600_000,
    );
}

#[test]
fn handlers_beside_each_other() {
    try_sizes(|n| module("", &"(block $h (try_table (catch_all $h) (call $f)))".repeat(n)), 150_000);
}

#[test]
fn throws() {
    try_sizes(|n| module("", &"(if (local.get 0) (then (throw $e)))".repeat(n)), 250_000);
}

// Objects.

#[test]
fn objects_of_many_fields() {
    try_sizes(
        |n| {
            let fields = "(field (mut anyref))".repeat(5000);
            module(&format!("(type $s (struct {fields}))"), &"(drop (struct.new_default $s))".repeat(n))
        },
        250_000,
    );
}

#[test]
fn objects_of_given_fields() {
    try_sizes(
        |n| {
            let fields = "(field (mut anyref))".repeat(20);
            module(
                &format!("(type $s (struct {fields}))"),
                &format!("(drop (struct.new $s {}))", "(local.get 3)".repeat(20)).repeat(n),
            )
        },
        40_000,
    );
}

#[test]
fn arrays_of_given_elements() {
    try_sizes(
        |n| module("", &format!("(drop (array.new_fixed $array 100 {}))", "(local.get 3)".repeat(100)).repeat(n)),
        9_000,
    );
}

#[test]
fn arrays_of_given_numbers() {
    try_sizes(
        |n| module("(type $n (array i32))", &format!("(drop (array.new_fixed $n 100 {}))", GET.repeat(100)).repeat(n)),
        9_000,
    );
}

#[test]
fn arrays_of_ten_thousand_elements() {
    try_sizes(
        |n| module("", &format!("(drop (array.new_fixed $array 10000 {}))", "(local.get 3)".repeat(10_000)).repeat(n)),
        90,
    );
}

#[test]
fn elements_that_are_copied() {
    try_sizes(
        |n| {
            module(
                "",
                &"(array.copy $array $array (local.get 1) (local.get 0) (local.get 1) (local.get 0) (local.get 0))"
                    .repeat(n),
            )
        },
        130_000,
    );
}

#[test]
fn elements_that_are_filled() {
    try_sizes(
        |n| module("", &"(array.fill $array (local.get 1) (local.get 0) (local.get 3) (local.get 0))".repeat(n)),
        150_000,
    );
}

#[test]
fn elements_that_are_set() {
    try_sizes(
        |n| {
            module(
                "",
                &"(array.set $array (local.get 1) (local.get 0) (array.get $array (local.get 1) (local.get 0)))"
                    .repeat(n),
            )
        },
        130_000,
    );
}

#[test]
fn new_arrays() {
    try_sizes(|n| module("", &"(drop (array.new_default $array (local.get 0)))".repeat(n)), 250_000);
}

#[test]
fn fields_that_are_read_and_written() {
    try_sizes(
        |n| module("", &"(struct.set $object 0 (local.get 2) (struct.get $object 0 (local.get 2)))".repeat(n)),
        200_000,
    );
}

#[test]
fn casts() {
    try_sizes(|n| module("", &"(drop (ref.cast (ref null $object) (local.get 3)))".repeat(n)), 250_000);
}

#[test]
fn branches_on_casts() {
    try_sizes(
        |n| {
            let casts = "(drop (br_on_cast $b anyref (ref null $object) (local.get 3)))".repeat(n);
            module("", &format!("(drop (block $b (result anyref) {casts} (ref.null any)))"))
        },
        180_000,
    );
}

#[test]
fn references_in_globals() {
    try_sizes(|n| module("", &"(global.set $r (global.get $r))".repeat(n)), 400_000);
}

#[test]
fn references_that_live_across_calls() {
    try_sizes(
        |n| {
            let set = each(1000, |i| format!("(local.set {} (array.get $array (local.get 1) (i32.const {i})))", 4 + i));
            let get = each(1000, |i| format!("(array.set $array (local.get 1) (i32.const {i}) (local.get {}))", 4 + i));
            module("", &format!("{} {set} {} {get}", locals(1000, "anyref"), "(call $f)".repeat(n)))
        },
        600_000,
    );
}

// Many functions.

#[test]
fn fifty_thousand_functions_and_more() {
    try_sizes(|n| module(&"(func)".repeat(n), ""), 500_000);
}

#[test]
fn functions_of_many_parameters() {
    try_sizes(
        |n| {
            module(&format!("(type $p (func (param {})))", "i32 ".repeat(1000)), "")
                .replace("(func $f)", &format!("(func $f) {}", "(func (type $p))".repeat(n)))
        },
        400_000,
    );
}

#[test]
fn functions_of_many_results() {
    try_sizes(
        |n| {
            module(&format!("(type $p (func (result {})))", "i32 ".repeat(1000)), "")
                .replace("(func $f)", &format!("(func $f) {}", "(func (type $p) unreachable)".repeat(n)))
        },
        300_000,
    );
}

#[test]
fn functions_of_indirect_calls() {
    try_sizes(
        |n| {
            let one = format!("(func (param i32) {})", "(call_indirect (type $none) (local.get 0))".repeat(50));
            module(&one.repeat(n / 50), "")
        },
        400_000,
    );
}

#[test]
fn functions_of_copies() {
    try_sizes(
        |n| {
            let copy =
                "(array.copy $array $array (local.get 1) (local.get 0) (local.get 1) (local.get 0) (local.get 0))";
            let one = format!("(func (param i32) (param (ref null $array)) {})", copy.repeat(50));
            module(&one.repeat(n / 50), "")
        },
        130_000,
    );
}
