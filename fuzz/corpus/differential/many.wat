(module (import "a" "m" (memory 1)) (memory i64 1 2) (memory 3) (tag (param i32))
  (type $s (struct (field (mut i32)))) (func (export "f") (local (ref null $s)) (try_table (throw 0 (i32.const 1)))
   (drop (struct.new $s (i32.const 1)))) (data "abc") (start 0))
