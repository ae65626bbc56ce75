;; What the library makes of small.wat, written by hand: Extism memory is a second, 64-bit memory of the
;; module, and copying from it and to it are instructions. The block for the output follows the input.
(module
  (import "host" "add_one" (func $add_one (param i64) (result i64)))
  (import "host" "add_one_raw" (func $add_one_raw (param i64) (result i64)))
  (memory $own (export "memory") 1)
  (memory $extism (export "extism") i64 1)
  (global $length (export "length") (mut i64) (i64.const 0))
  (global $buffer i32 (i32.const 4096))
  (global $input i64 (i64.const 16))
  (data (memory $own) (i32.const 1024) "sixty-four bytes of data, so that an instance has some to set up")

  (func (export "empty") (result i32) (i32.const 0))
  (func (export "identity") (result i32) (i32.const 0))
  (func (export "consume") (result i32) (call $read) (i32.const 0))
  (func (export "echo") (result i32) (call $read) (call $write) (i32.const 0))

  (func $read
    (local $at i64)
    (block $done
      (loop $words
        (br_if $done (i64.ge_u (local.get $at) (global.get $length)))
        (i64.store $own (i32.add (global.get $buffer) (i32.wrap_i64 (local.get $at)))
          (i64.load $extism (i64.add (global.get $input) (local.get $at))))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words))))

  (func $write
    (local $at i64) (local $block i64)
    (local.set $block (i64.add (global.get $input) (global.get $length)))
    (block $done
      (loop $words
        (br_if $done (i64.ge_u (local.get $at) (global.get $length)))
        (i64.store $extism (i64.add (local.get $block) (local.get $at))
          (i64.load $own (i32.add (global.get $buffer) (i32.wrap_i64 (local.get $at)))))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words))))

  (func (export "add_one") (param $left i64) (result i64)
    (local $sum i64)
    (loop $again
      (local.set $sum (call $add_one (local.get $sum)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (local.get $sum))

  (func (export "add_one_raw") (param $left i64) (result i64)
    (local $sum i64)
    (loop $again
      (local.set $sum (call $add_one_raw (local.get $sum)))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (local.get $sum))

  ;; Loads as many 64-bit words of Extism memory, page after page of the first one.
  (func (export "load") (param $left i64) (result i64)
    (local $sum i64)
    (loop $again
      (local.set $sum (i64.add (local.get $sum)
        (i64.load $extism (i64.and (i64.shl (local.get $left) (i64.const 3)) (i64.const 0xfff8)))))
      (local.set $left (i64.sub (local.get $left) (i64.const 1)))
      (br_if $again (i64.ne (local.get $left) (i64.const 0))))
    (local.get $sum)))
