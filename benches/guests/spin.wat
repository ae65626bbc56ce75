;; Calls `tick`, and then loops for ever.
(module
  (import "extism:host/user" "tick" (func $tick))
  (memory (export "memory") 1)
  (func (export "empty") (result i32) (i32.const 0))
  (func (export "spin") (result i32)
    (call $tick)
    (loop $for_ever (br $for_ever))
    (unreachable)))
