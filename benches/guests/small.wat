;; The small plug-in of most rows: what a plug-in does with its input, copied as the PDKs copy it,
;; 8 bytes with each call.
(module
  (import "extism:host/env" "input_offset" (func $input_offset (result i64)))
  (import "extism:host/env" "input_length" (func $input_length (result i64)))
  (import "extism:host/env" "input_load_u8" (func $input_load_u8 (param i64) (result i32)))
  (import "extism:host/env" "input_load_u64" (func $input_load_u64 (param i64) (result i64)))
  (import "extism:host/env" "alloc" (func $alloc (param i64) (result i64)))
  (import "extism:host/env" "store_u8" (func $store_u8 (param i64 i32)))
  (import "extism:host/env" "store_u64" (func $store_u64 (param i64 i64)))
  (import "extism:host/env" "output_set" (func $output_set (param i64 i64)))
  (memory (export "memory") 1)
  (data (i32.const 1024) "sixty-four bytes of data, so that an instance has some to set up")

  (global $buffer i32 (i32.const 4096))

  (func (export "empty") (result i32) (i32.const 0))

  ;; The output is the input, where it lies.
  (func (export "identity") (result i32)
    (call $output_set (call $input_offset) (call $input_length))
    (i32.const 0))

  ;; Copies the input into linear memory.
  (func (export "consume") (result i32)
    (call $read)
    (i32.const 0))

  ;; Copies the input into linear memory, and from there into a block, which is the output.
  (func (export "echo") (result i32)
    (local $length i64)
    (local.set $length (call $input_length))
    (call $read)
    (call $write (call $alloc (local.get $length)) (local.get $length))
    (i32.const 0))

  (func $read
    (local $length i64) (local $at i64)
    (local.set $length (call $input_length))
    (call $make_room (local.get $length))
    (block $words_done
      (loop $words
        (br_if $words_done (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $length)))
        (i64.store (i32.add (global.get $buffer) (i32.wrap_i64 (local.get $at)))
          (call $input_load_u64 (local.get $at)))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words)))
    (block $bytes_done
      (loop $bytes
        (br_if $bytes_done (i64.ge_u (local.get $at) (local.get $length)))
        (i32.store8 (i32.add (global.get $buffer) (i32.wrap_i64 (local.get $at)))
          (call $input_load_u8 (local.get $at)))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $bytes))))

  (func $write (param $block i64) (param $length i64)
    (local $at i64)
    (block $words_done
      (loop $words
        (br_if $words_done (i64.gt_u (i64.add (local.get $at) (i64.const 8)) (local.get $length)))
        (call $store_u64 (i64.add (local.get $block) (local.get $at))
          (i64.load (i32.add (global.get $buffer) (i32.wrap_i64 (local.get $at)))))
        (local.set $at (i64.add (local.get $at) (i64.const 8)))
        (br $words)))
    (block $bytes_done
      (loop $bytes
        (br_if $bytes_done (i64.ge_u (local.get $at) (local.get $length)))
        (call $store_u8 (i64.add (local.get $block) (local.get $at))
          (i32.load8_u (i32.add (global.get $buffer) (i32.wrap_i64 (local.get $at)))))
        (local.set $at (i64.add (local.get $at) (i64.const 1)))
        (br $bytes)))
    (call $output_set (local.get $block) (local.get $length)))

  ;; Grows linear memory until this many bytes fit behind the start of the buffer.
  (func $make_room (param $length i64)
    (local $missing i64)
    (local.set $missing
      (i64.sub
        (i64.div_u
          (i64.add (i64.add (i64.extend_i32_u (global.get $buffer)) (local.get $length)) (i64.const 65535))
          (i64.const 65536))
        (i64.extend_i32_u (memory.size))))
    (if (i64.gt_s (local.get $missing) (i64.const 0))
      (then
        (if (i32.eq (memory.grow (i32.wrap_i64 (local.get $missing))) (i32.const -1))
          (then (unreachable)))))))
