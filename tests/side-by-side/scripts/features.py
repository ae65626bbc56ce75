"""The Wasm features that are accepted and refused."""

from observe import script

ACCEPTED = {
    "simd": '(module (func (export "f") (result i32) (i32x4.extract_lane 1 (i32x4.add (v128.const i32x4 1 2 3 4) (v128.const i32x4 1 2 3 4)))))',
    "relaxed simd": '(module (func (export "f") (result i32) (i32x4.extract_lane 0 (i32x4.relaxed_trunc_f32x4_s (v128.const f32x4 7 1 1 1)))))',
    "bulk memory": '(module (memory 1) (func (export "f") (result i32) (memory.fill (i32.const 0) (i32.const 9) (i32.const 8)) (memory.copy (i32.const 20) (i32.const 0) (i32.const 4)) (i32.load8_u (i32.const 21))))',
    "multi-value": '(module (func $two (result i32 i32) (i32.const 3) (i32.const 4)) (func (export "f") (result i32) (i32.add (call $two))))',
    "reference types": '(module (table 2 externref) (func (export "f") (result i32) (ref.is_null (table.get (i32.const 0)))))',
    "sign extension": '(module (func (export "f") (result i32) (i32.extend8_s (i32.const 0xff))))',
    "saturating conversion": '(module (func (export "f") (result i32) (i32.trunc_sat_f32_s (f32.const 1e20))))',
    "mutable global export": '(module (global (export "g") (mut i32) (i32.const 1)) (func (export "f") (result i32) (global.get 0)))',
    "multi-memory": '(module (memory $a 1) (memory $b 1) (func (export "f") (result i32) (i32.store $b (i32.const 4) (i32.const 6)) (i32.add (i32.load $a (i32.const 4)) (i32.load $b (i32.const 4)))))',
    "memory64": '(module (memory i64 1) (func (export "f") (result i32) (i32.load (i64.const 0))))',
    "table64": '(module (table i64 3 funcref) (func (export "f") (result i32) (i32.wrap_i64 (table.size))))',
    "tail calls": '(module (func $n (param i32) (result i32) (if (result i32) (local.get 0) (then (return_call $n (i32.sub (local.get 0) (i32.const 1)))) (else (i32.const 5)))) (func (export "f") (result i32) (call $n (i32.const 1000000))))',
    "function references": '(module (type $t (func (result i32))) (func $g (result i32) (i32.const 8)) (elem declare func $g) (func (export "f") (result i32) (call_ref $t (ref.func $g))))',
    "gc": '(module (type $s (struct (field i32))) (func (export "f") (result i32) (struct.get $s 0 (struct.new $s (i32.const 11)))))',
    "gc arrays": '(module (type $a (array (mut i32))) (func (export "f") (result i32) (array.get $a (array.new $a (i32.const 6) (i32.const 3)) (i32.const 1))))',
    "i31": '(module (func (export "f") (result i32) (i31.get_s (ref.i31 (i32.const 12)))))',
    "exceptions": '(module (tag $e (param i32)) (func (export "f") (result i32) (block $h (result i32) (try_table (result i32) (catch $e $h) (throw $e (i32.const 13))))))',
    "uncaught exception": '(module (tag $e) (func (export "f") (throw $e)))',
    "extended const": '(module (global i32 (i32.add (i32.const 1) (i32.const 2))) (func (export "f") (result i32) (global.get 0)))',
    "wide arithmetic": '(module (func (export "f") (result i32) (local i64) (i64.add128 (i64.const 1) (i64.const 0) (i64.const 2) (i64.const 0)) (local.set 0) (i32.wrap_i64)))',
    "atomics": '(module (memory 1) (func (export "f") (result i32) (i32.atomic.rmw.add (i32.const 0) (i32.const 3))))',
    "atomic notify": '(module (memory 1) (func (export "f") (result i32) (memory.atomic.notify (i32.const 0) (i32.const 3))))',
    "atomic wait": '(module (memory 1) (func (export "f") (result i32) (memory.atomic.wait32 (i32.const 0) (i32.const 0) (i64.const 1))))',
    "shared memory": '(module (memory 1 2 shared) (func (export "f")))',
    "shared everything": '(module (type (shared (func))) (func (export "f")))',
    "component": "(component)",
    "custom page sizes": '(module (memory 8 (pagesize 1)) (func (export "f") (result i32) memory.size))',
    "legacy exceptions": '(module (tag $e) (func (export "f") (try (do) (catch $e))))',
    "stack switching": '(module (type $t (func)) (type $c (cont $t)) (func (export "f")))',
    "branch hints": '(module (func (export "f") (result i32) (@metadata.code.branch_hint "\\01") (if (i32.const 1) (then (return (i32.const 2)))) (i32.const 3)))',
    "custom section": '(module (@custom "something" "content") (func (export "f") (result i32) (i32.const 4)))',
    "start with many locals": "(module (func (export \"f\") (local " + "i64 " * 1000 + ")))",
    "10000 functions": "(module " + "(func) " * 10000 + '(func (export "f") (result i32) (i32.const 6)))',
    "65536 pages": '(module (memory 65536) (func (export "f") (result i32) memory.size))',
    "65537 pages": '(module (memory 65537) (func (export "f") (result i32) memory.size))',
    "duplicate exports": '(module (func (export "f")) (func (export "f")))',
}
TRAPS = {
    "unreachable": "unreachable", "division by zero": "(drop (i32.div_s (i32.const 1) (i32.const 0)))", "overflow": "(drop (i32.div_s (i32.const 0x80000000) (i32.const -1)))",
    "bad conversion": "(drop (i32.trunc_f32_s (f32.const nan)))", "load outside": "(drop (i32.load (i32.const 65536)))", "store outside": "(i32.store (i32.const -4) (i32.const 1))",
    "table outside": "(drop (table.get (i32.const 9)))", "null call": "(call_indirect (i32.const 0))", "wrong type": "(call_indirect (param i32) (i32.const 1) (i32.const 1))",
    "copy outside": "(memory.copy (i32.const 0) (i32.const 65530) (i32.const 100))", "unaligned atomic": "(drop (i32.atomic.load (i32.const 1)))",
    "recursion": "(call $self)",
}


@script()
def modules(t):
    for name, wat in ACCEPTED.items():
        plugin = t.created(name, lambda: t.lib.plugin(wat))
        if plugin:
            t.result(f"{name}: f", plugin.call("f"))


@script()
def traps(t):
    """Every kind of trap is 134, and the plug-in works afterwards."""
    for name, body in TRAPS.items():
        plugin = t.lib.plugin(f"""(module (memory 1) (table 2 funcref) (func $nothing) (elem (i32.const 1) $nothing)
          (func $self (export "f") {body}) (func (export "works") (result i32) (i32.const 1)))""")
        t.result(name, plugin.call("f"))
        t.result(f"{name}: works", plugin.call("works"))
