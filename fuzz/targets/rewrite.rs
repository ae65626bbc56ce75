//! The bytes as a module, and as what wasm-smith makes a module of.
#![no_main]

use arbitrary::Unstructured;
use wasm_smith::{Config, Module};

libfuzzer_sys::fuzz_target!(|data: &[u8]| {
    extism::fuzz::rewrite(data);
    // Imports that become instructions, for calls to them.
    let imports = wat::parse_str(
        r#"(module
            (import "extism:host/env" "load_u8" (func (param i64) (result i32)))
            (import "extism:host/env" "load_u64" (func (param i64) (result i64)))
            (import "extism:host/env" "store_u8" (func (param i64 i32)))
            (import "extism:host/env" "store_u64" (func (param i64 i64)))
            (import "extism:host/env" "input_length" (func (result i64)))
            (import "extism:host/env" "input_load_u8" (func (param i64) (result i32)))
            (import "extism:host/env" "input_load_u64" (func (param i64) (result i64))))"#,
    );
    let config = Config {
        available_imports: imports.ok(),
        // Small modules, and more of them.
        max_funcs: 30,
        max_instructions: 60,
        memory64_enabled: true,
        multi_value_enabled: true,
        tail_call_enabled: true,
        exceptions_enabled: true,
        gc_enabled: true,
        reference_types_enabled: true,
        ..Config::default()
    };
    if let Ok(module) = Module::new(config, &mut Unstructured::new(data)) {
        extism::fuzz::rewrite_module(&module.to_bytes());
    }
});
