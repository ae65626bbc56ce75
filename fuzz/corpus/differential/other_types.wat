(module (import "extism:host/env" "load_u64" (func (param i32) (result i64)))
  (import "extism:host/env" "input_load_u8" (func $l (param i64) (result i32)))
  (func (export "f") (result i32) (i64.const 3) (return_call $l)))
