(module
  (import "extism:host/env" "input_load_u64" (func $input (param i64) (result i64)))
  (func (drop (call $input (i64.const 1))))
  (func (local i32)
    (drop (call $input (i64.const 1))) (drop (call $input (i64.const 2))) (drop (call $input (i64.const 3)))
    (drop (call $input (i64.const 4))) (drop (call $input (i64.const 5))) (drop (call $input (i64.const 6)))))
