use super::*;

fn wasm(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("WAT of a test")
}

mod calls;

/// No host function of the user has the name of a guest function.
fn none_taken(_: &str) -> bool {
    false
}

/// Rewrites a module, and checks everything that must hold for any rewritten module.
fn rewritten(text: &str) -> Vec<u8> {
    let original = wasm(text);
    let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect(text);
    assert!(prepared.has_own_memory, "{text}");
    check_appended(&original, &prepared);
    prepared.bytes.into_owned()
}

fn exports(wasm: &[u8]) -> Vec<(String, wasmparser::ExternalKind, u32)> {
    let mut found = Vec::new();
    for payload in Parser::new(0).parse_all(wasm) {
        if let Payload::ExportSection(exports) = payload.expect("payload") {
            for export in exports {
                let export = export.expect("export");
                found.push((export.name.to_owned(), export.kind, export.index));
            }
        }
    }
    found
}

/// Sections other than those that are extended or rewritten, with their contents.
fn untouched(wasm: &[u8]) -> Vec<(u8, Vec<u8>)> {
    Layout::read(wasm)
        .expect("layout")
        .sections
        .iter()
        .filter(|section| !matches!(section.id, 5..=7 | 10) && !tells_of_code(section))
        .map(|section| (section.id, section.data.to_vec()))
        .collect()
}

fn check_appended(original: &[u8], prepared: &Prepared<'_>) {
    let rewritten = &*prepared.bytes;
    let inputs: &[&str] = if prepared.reads_input { &[INPUT_OFFSET, INPUT_LENGTH, INPUT_WORDS] } else { &[] };
    use wasmparser::ExternalKind::{Global, Memory};

    let validate = |bytes| Validator::new_with_features(FEATURES).validate_all(bytes).expect("valid");
    let (before, after) = (validate(original), validate(rewritten));
    let (before, after) = (before.as_ref(), after.as_ref());
    let (memories, globals) = (before.memory_count(), before.global_count());
    assert_eq!(after.memory_count(), memories + 1);
    assert_eq!(after.global_count(), globals + inputs.len() as u32);
    for index in 0..memories {
        assert_eq!(before.memory_at(index), after.memory_at(index));
    }
    for index in 0..globals {
        assert_eq!(before.global_at(index), after.global_at(index));
    }
    let memory = after.memory_at(memories);
    assert!(memory.memory64 && !memory.shared);
    assert_eq!((memory.initial, memory.maximum), (1, Some(65_536)));
    for index in globals..after.global_count() {
        let global = after.global_at(index);
        assert!(global.mutable && global.content_type == wasmparser::ValType::I64);
    }

    let mut expected = exports(original);
    expected.push((MEMORY.to_owned(), Memory, memories));
    expected.extend(inputs.iter().zip(globals..).map(|(name, index)| ((*name).to_owned(), Global, index)));
    assert_eq!(exports(rewritten), expected);
    assert_eq!(untouched(original), untouched(rewritten));
}

/// One line for each section that a module can have, in their order; each is valid without the others
/// that are optional. `$f` and `$t` need the first lines.
const SECTIONS: [&str; 9] = [
    r#"(import "a" "m" (memory 1)) (import "a" "g" (global i32))"#,
    "(table 3 funcref)",
    "(memory 2)",
    "(tag)",
    "(global (mut i64) i64.const 7)",
    r#"(export "f" (func $f))"#,
    "(start $f)",
    "(elem declare func $f)",
    r#"(data $d "bytes") (func (memory.init $d (i32.const 0) (i32.const 0) (i32.const 0)))"#,
];

#[test]
fn every_combination_of_sections() {
    for chosen in 0u32..1 << SECTIONS.len() {
        let mut text = String::from("(module ");
        for (bit, section) in SECTIONS.iter().enumerate() {
            let memory_for_data = bit != 8 || chosen & 0b101 != 0;
            if chosen & (1 << bit) != 0 && memory_for_data {
                text += section;
            }
        }
        text += "(func $f))";
        rewritten(&text);
    }
}

#[test]
fn empty_modules_and_sections() {
    rewritten("(module)");
    // Sections that are there, but empty: memory, global, export.
    let empty = [&Module::HEADER[..], &[5, 1, 0, 6, 1, 0, 7, 1, 0]].concat();
    let prepared = prepare(&empty, FEATURES, Some(&none_taken)).expect("valid");
    check_appended(&empty, &prepared);
}

#[test]
fn an_overlong_count_is_read_as_written() {
    // Memory section of 4 bytes: count 1 in two bytes, then a memory of 0 pages.
    let module = [&Module::HEADER[..], &[5, 4, 0x81, 0x00, 0, 0]].concat();
    let prepared = prepare(&module, FEATURES, Some(&none_taken)).expect("valid");
    assert!(prepared.has_own_memory);
    check_appended(&module, &prepared);
}

#[test]
fn custom_sections_stay_where_they_are() {
    let text = r#"(module (@custom "first" (before first) "1") (memory 1) (@custom "x" (after memory) "22")
        (func $named (export "f") (local $l i32)) (@custom "last" (after last) ""))"#;
    let names = |wasm: &[u8]| -> Vec<(u8, usize)> {
        Layout::read(wasm).unwrap().sections.iter().map(|section| (section.id, section.data.len())).collect()
    };
    let original = wasm(text);
    let rewritten = rewritten(text);
    let customs = |wasm| names(wasm).into_iter().filter(|section| section.0 == 0).collect::<Vec<_>>();
    assert_eq!(customs(&original), customs(&rewritten));
    assert_eq!(names(&rewritten)[0], (0, 7));
}

#[test]
fn modules_with_memories_of_their_own_kinds() {
    rewritten(r#"(module (memory (export "memory") i64 1 2) (func (drop (i64.load (i64.const 0)))))"#);
    rewritten(r#"(module (import "x" "y" (memory i64 1)) (memory 1) (memory i64 3))"#);
    rewritten("(module (memory 1 1) (data (i32.const 0) \"abc\") (data (i32.const 9) \"d\"))");
}

#[test]
fn all_features_pass_through() {
    rewritten(
        r#"(module
            (type $s (struct (field (mut i32)))) (type $fn (func (param i64) (result i64)))
            (tag $e (param i32))
            (global $g (ref $s) (struct.new $s (i32.const 1)))
            (func $tail (type $fn) (return_call $tail (local.get 0)))
            (func (result i32) (block $b (result i32) (try_table (catch $e $b) (throw $e (i32.const 1))) unreachable))
            (func (param v128) (result v128) (i8x16.relaxed_swizzle (local.get 0) (local.get 0)))
            (func (param i64) (result i64 i64) (i64.mul_wide_u (local.get 0) (local.get 0)))
            (memory 1) (func (drop (i32.atomic.load (i32.const 0)))))"#,
    );
}

#[test]
fn nothing_is_appended_unless_asked_for() {
    let original = wasm(r#"(module (memory 1) (export "m" (memory 0)))"#);
    let prepared = prepare(&original, FEATURES, None).expect("valid");
    assert!(!prepared.has_own_memory);
    assert!(matches!(prepared.bytes, Cow::Borrowed(bytes) if bytes == original));
}

fn runs_unrewritten(original: &[u8], features: WasmFeatures) {
    let prepared = prepare(original, features, Some(&none_taken)).expect("valid");
    assert!(!prepared.has_own_memory);
    assert!(matches!(prepared.bytes, Cow::Borrowed(bytes) if bytes == original));
}

#[test]
fn reserved_exports_stay_unrewritten() {
    for name in [MEMORY, INPUT_OFFSET, INPUT_LENGTH, "extism:", "extism:later"] {
        runs_unrewritten(&wasm(&format!(r#"(module (func (export "{name}")))"#)), FEATURES);
        assert!(is_reserved(name));
    }
    for name in ["extism", "extism_memory", "", "Extism:memory"] {
        rewritten(&format!(r#"(module (func (export "{name}")))"#));
        assert!(!is_reserved(name));
    }
    // Names of imports are something else.
    rewritten(r#"(module (import "extism:host/env" "extism:memory" (func)))"#);
}

#[test]
fn limits_of_the_format_stay_unrewritten() {
    let memories = |count| format!("(module {})", "(memory 0)".repeat(count));
    rewritten(&memories(99));
    runs_unrewritten(&wasm(&memories(100)), FEATURES);
    runs_unrewritten(&wasm(&format!(r#"(module (import "a" "b" (memory 0)) {})"#, "(memory 0)".repeat(99))), FEATURES);

    // The input globals are there only for code that reads them.
    let globals = |count, call: &str| {
        let module = wasm(&format!(
            r#"(module (import "extism:host/env" "input_length" (func $l (result i64))) (global i32 (i32.const 0))
               (func (drop (i64.const 0)) {call}))"#
        ));
        let mut section = wasm_encoder::GlobalSection::new();
        let ty = GlobalType { val_type: ValType::I32, mutable: false, shared: false };
        for _ in 0..count {
            section.global(ty, &ConstExpr::i32_const(0));
        }
        let mut large = Module::new();
        for old in Layout::read(&module).unwrap().sections {
            if old.id == u8::from(SectionId::Global) {
                large.section(&section)
            } else {
                large.section(&old)
            };
        }
        large.finish()
    };
    let reading = "(drop (call $l))";
    runs_unrewritten(&globals(999_998, reading), FEATURES);
    assert!(prepare(&globals(999_997, reading), FEATURES, Some(&none_taken)).unwrap().reads_input);
    assert!(prepare(&globals(1_000_000, ""), FEATURES, Some(&none_taken)).unwrap().has_own_memory);
    assert!(prepare(&globals(1_000_001, ""), FEATURES, Some(&none_taken)).is_err());

    // Each export counts against the size of types, which runs out before the number of exports.
    let exports = |count: usize| {
        let mut exports = wasm_encoder::ExportSection::new();
        for index in 0..count {
            exports.export(&format!("{index:x}"), ExportKind::Global, 0);
        }
        let mut module = Module::new();
        let mut section = wasm_encoder::GlobalSection::new();
        let ty = GlobalType { val_type: ValType::I32, mutable: false, shared: false };
        section.global(ty, &ConstExpr::i32_const(0));
        module.section(&section);
        module.section(&exports);
        module.finish()
    };
    let largest = (999_990..1_000_001)
        .rev()
        .map(exports)
        .find(|module| prepare(module, FEATURES, None).is_ok())
        .expect("close to the limit");
    runs_unrewritten(&largest, FEATURES);
}

#[test]
fn engines_without_the_features_stay_unrewritten() {
    runs_unrewritten(&wasm("(module)"), FEATURES - WasmFeatures::MEMORY64);
    let reading =
        r#"(module (import "extism:host/env" "input_length" (func $l (result i64))) (func (drop (call $l))))"#;
    runs_unrewritten(&wasm(reading), FEATURES - WasmFeatures::MUTABLE_GLOBAL);
    runs_unrewritten(&wasm("(module (memory 1))"), FEATURES - WasmFeatures::MULTI_MEMORY);
}

#[test]
fn an_index_one_past_the_end_stays_invalid() {
    for text in [
        "(module (memory 1) (func (drop (i32.load 1 (i32.const 0)))))",
        "(module (memory 1) (func (drop (i64.load 1 (i64.const 0)))))",
        "(module (func (drop (i64.load 0 (i64.const 0)))))",
        "(module (func (drop (memory.size 0))))",
        "(module (memory 1) (func (drop (memory.grow 1 (i64.const 1)))))",
        "(module (memory 1) (func (memory.fill 1 (i64.const 0) (i32.const 0) (i64.const 1))))",
        "(module (memory 1) (func (memory.copy 0 1 (i32.const 0) (i64.const 0) (i32.const 1))))",
        "(module (memory 1) (data $d \"x\") (func (memory.init 1 $d (i64.const 0) (i32.const 0) (i32.const 1))))",
        "(module (func (drop (global.get 0))))",
        "(module (global i64 (i64.const 0)) (func (drop (global.get 1))))",
        "(module (global i64 (i64.const 0)) (func (global.set 2 (i64.const 0))))",
        "(module (data (memory 0) (i64.const 0) \"x\"))",
        "(module (memory 1) (data (memory 1) (i64.const 0) \"x\"))",
        "(module (memory i64 1) (data (memory 0) (global.get 0) \"x\"))",
        "(module (export \"m\" (memory 0)))",
        "(module (memory 1) (export \"m\" (memory 1)))",
        "(module (export \"g\" (global 0)))",
        "(module (global i64 (i64.const 0)) (export \"g\" (global 2)))",
        "(module (global i64 (global.get 0)))",
        "(module (global i64 (global.get 1)))",
        "(module (table i64 3 funcref) (elem (table 0) (offset (global.get 0)) funcref))",
        "(module (table 1 i31ref (ref.i31 (i32.wrap_i64 (global.get 0)))))",
        "(module (table 3 i31ref) (elem (table 0) (i32.const 0) i31ref (item (global.get 0))))",
    ] {
        let error = prepare(&wasm(text), FEATURES, Some(&none_taken)).expect_err(text);
        let error = error.to_string();
        assert!(error.starts_with("invalid WebAssembly module: "), "{text}: {error}");
        assert!(error.contains("at offset 0x"), "{text}: {error}");
    }
}

#[test]
fn what_is_no_module_says_so() {
    let message = |bytes: &[u8]| prepare(bytes, FEATURES, Some(&none_taken)).unwrap_err().to_string();
    let component = wasm("(component)");
    assert!(message(&component).contains("component; plug-ins are core modules"));
    assert!(message(&[0, b'a', b's', b'm', 99, 0, 1, 0]).contains("component"));
    for garbage in [&b""[..], b"\0as", b"hello", b"{\"wasm\":[]}", &[0xff; 64]] {
        assert!(message(garbage).starts_with("not a WebAssembly module"));
    }
    assert!(message(b"\0asm").starts_with("invalid WebAssembly module: "));
    assert!(message(b"\0asm\x02\0\0\0").starts_with("invalid WebAssembly module: "));
}

#[test]
fn features_that_are_refused() {
    for text in ["(module (memory 1 (pagesize 1)))", "(module (func try catch_all end))"] {
        assert!(prepare(&wasm(text), FEATURES, Some(&none_taken)).is_err(), "{text}");
    }
}

#[test]
fn initial_sizes_are_summed_up() {
    const PAGE: u64 = 65_536;
    let initial = |text: &str| {
        let original = wasm(text);
        let prepared = prepare(&original, FEATURES, Some(&none_taken)).expect("valid");
        (prepared.initial_memory, prepared.largest_memory, prepared.initial_table_elements, prepared.initial_parts)
    };
    assert_eq!(initial("(module)"), (0, 0, 0, 0));
    let several = r#"(module (import "a" "b" (memory 9)) (memory 2) (memory i64 3) (memory 0)
        (table 7 funcref) (table 0 funcref) (table 1 externref))"#;
    assert_eq!(initial(several), (5 * PAGE, 3 * PAGE, 8, 4));
    let huge = "(module (memory i64 0x1000000000000) (memory 1))";
    assert_eq!(initial(huge), (u64::MAX, u64::MAX, 0, 2));
}

const SAMPLE: &str = r#"(module
    (import "extism:host/env" "input_length" (func $n (result i64)))
    (memory (export "memory") 1) (global $g (mut i32) (i32.const 5)) (table 2 funcref) (elem (i32.const 0) $f)
    (data (i32.const 8) "hello")
    (func $f (export "run") (result i32) (global.set $g (i32.load (i32.const 8))) (drop (call $n)) (i32.const 0)))"#;

/// Whatever the bytes, there is an answer, and what is rewritten is valid.
fn survives(bytes: &[u8]) {
    if let Ok(prepared) = prepare(bytes, FEATURES, Some(&none_taken))
        && prepared.has_own_memory
    {
        check_appended(bytes, &prepared);
    }
}

#[test]
fn truncations_and_bit_flips() {
    let original = wasm(SAMPLE);
    for length in 0..original.len() {
        survives(&original[..length]);
    }
    for bit in 0..original.len() * 8 {
        let mut flipped = original.clone();
        flipped[bit / 8] ^= 1 << (bit % 8);
        survives(&flipped);
    }
}

#[test]
fn rewriting_twice_changes_nothing_more() {
    let once = rewritten(SAMPLE);
    runs_unrewritten(&once, FEATURES);
}

#[test]
fn a_shared_memory_is_refused() {
    let error =
        prepare(&wasm("(module (memory 1 1 shared))"), FEATURES, Some(&none_taken)).expect_err("shared").to_string();
    assert!(error.contains("shared memory"), "{error}");
}
