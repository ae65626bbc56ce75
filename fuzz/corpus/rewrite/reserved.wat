(module (import "extism:host/env" "load_u64" (func (param i64) (result i64)))
  (memory (export "extism:memory") 1) (global (export "extism:input_offset") i64 (i64.const 0)))
