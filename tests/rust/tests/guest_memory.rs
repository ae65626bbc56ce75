//! `alloc`, `free`, `length`, `load_*`, `store_*`, `reset` and `memory_bytes`.
use extism_tests::*;
#[test]
fn alloc_gives_blocks() {
    let plugin =
        Plugin::new(r#"(func (export "run") (call $note (call $alloc (i64.const 5))) (call $output (text 'hi')))"#);
    assert_eq!(plugin.notes("run", ""), [16]);
    assert_eq!(plugin.output(), b"hi");
}
