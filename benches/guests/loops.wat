;; Things that a guest does many times in one call. The input is two numbers of 64 bits: how many
;; times, and how many blocks are alive meanwhile. `tick` tells the host when the loop begins and ends.
(module
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "free" (func $free (param i64)))
  (import "extism:host/env" "length" (func $length (param i64) (result i64)))
  (import "extism:host/env" "load_u64" (func $load_u64 (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "var_get" (func $var_get (param i64) (result i64)))
  (import "extism:host/env" "var_set" (func $var_set (param i64 i64)))
  (import "extism:host/env" "config_get" (func $config_get (param i64) (result i64)))
  (import "extism:host/env" "log_debug" (func $log_debug (param i64)))
  (import "extism:host/user" "tick" (func $tick))
  (import "extism:host/user" "add_one" (func $add_one (param i64) (result i64)))
  (import "extism:host/user" "use_block" (func $use_block (param i64) (result i64)))
  (memory (export "memory") 1)

  (func $times (result i64) (call $input_load_u64 (i64.const 0)))

  ;; Three operations each time: alloc, length and free.
  (func (export "blocks") (result i32)
    (local $left i64) (local $sum i64)
    (local.set $left (call $input_load_u64 (i64.const 8)))
    (block $filled
      (loop $fill
        (br_if $filled (i64.eqz (local.get $left)))
        (drop (call $alloc (i64.const 64)))
        (local.set $left (i64.sub (local.get $left) (i64.const 1)))
        (br $fill)))
    (call $begin)
    (local.set $sum (call $cycle (call $times)))
    (call $tick)
    (i64.ne (local.get $sum) (i64.mul (i64.const 64) (call $times))))

  ;; Uses space up until none is left that was never used: from then on freed space is used again. What
  ;; comes before that is another matter, and over soon. Then the loop begins.
  (func $begin
    (drop (call $cycle (i64.const 3000)))
    (call $tick))

  ;; Allocates a block, asks for its length and frees it, so many times; the sum of the lengths.
  (func $cycle (param $left i64) (result i64)
    (local $block i64) (local $sum i64)
    (loop $again
      (local.set $block (call $alloc (i64.const 64)))
      (local.set $sum (i64.add (local.get $sum) (call $length (local.get $block))))
      (call $free (local.get $block))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (local.get $sum))

  ;; A host function with one argument and one result.
  (func (export "add_one") (result i32)
    (local $left i64) (local $sum i64)
    (local.set $left (call $times))
    (call $tick)
    (loop $again
      (local.set $sum (call $add_one (local.get $sum)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $tick)
    (i64.ne (local.get $sum) (call $times)))

  ;; A host function that allocates a block, asks for its length, writes to it and frees it.
  (func (export "use_block") (result i32)
    (local $left i64) (local $sum i64)
    (local.set $left (call $times))
    (call $begin)
    (loop $again
      (local.set $sum (i64.add (local.get $sum) (call $use_block (i64.const 64))))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $tick)
    (i64.ne (local.get $sum) (i64.mul (i64.const 64) (call $times))))

  ;; A block with the text "key".
  (func $key (result i64)
    (local $block i64)
    (local.set $block (call $alloc (i64.const 3)))
    (call $store_u8 (local.get $block) (i32.const 0x6b))
    (call $store_u8 (i64.add (local.get $block) (i64.const 1)) (i32.const 0x65))
    (call $store_u8 (i64.add (local.get $block) (i64.const 2)) (i32.const 0x79))
    (local.get $block))

  ;; A block with 8 bytes.
  (func $value (param $number i64) (result i64)
    (local $block i64)
    (local.set $block (call $alloc (i64.const 8)))
    (call $store_u64 (local.get $block) (local.get $number))
    (local.get $block))

  (func (export "var_set") (result i32)
    (local $left i64)
    (local.set $left (call $times))
    (call $begin)
    (loop $again
      (call $var_set (call $key) (call $value (local.get $left)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $tick)
    (i32.const 0))

  (func (export "var_get") (result i32)
    (local $left i64) (local $value i64) (local $sum i64)
    (call $var_set (call $key) (call $value (i64.const 1)))
    (local.set $left (call $times))
    (call $begin)
    (loop $again
      (local.set $value (call $var_get (call $key)))
      (local.set $sum (i64.add (local.get $sum) (call $load_u64 (local.get $value))))
      (call $free (local.get $value))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $tick)
    (i64.ne (local.get $sum) (call $times)))

  ;; The host has configured "key" as "12345678".
  (func (export "config_get") (result i32)
    (local $left i64) (local $value i64) (local $last i64)
    (local.set $left (call $times))
    (call $begin)
    (loop $again
      (local.set $value (call $config_get (call $key)))
      (local.set $last (call $load_u64 (local.get $value)))
      (call $free (local.get $value))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $tick)
    (i64.ne (local.get $last) (i64.const 0x3837363534333231)))

  ;; Nobody has asked for lines of this level.
  (func (export "log_debug") (result i32)
    (local $left i64)
    (local.set $left (call $times))
    (call $begin)
    (loop $again
      (call $log_debug (call $value (i64.const 0x656e696c20676f6c)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (call $tick)
    (i32.const 0)))
