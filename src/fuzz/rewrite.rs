//! Any module, rewritten: still valid, and nothing of it has moved.

use std::ops::Range;

use wasmparser::{Parser, Payload, Validator};

use crate::wasm::{FEATURES, Prepared, prepare};

/// Any bytes as a module. Text is taken as WAT, so that inputs can be read.
pub fn rewrite(data: &[u8]) {
    match data {
        [b'(', ..] => drop(wat::parse_bytes(data).map(|wasm| rewrite_module(&wasm))),
        wasm => rewrite_module(wasm),
    }
}

/// Prepares a module in both ways: it is accepted in both or in none, exactly if it is valid, and the rewritten one
/// is valid.
pub fn rewrite_module(wasm: &[u8]) {
    let valid = Validator::new_with_features(FEATURES).validate_all(wasm).is_ok();
    let none_taken = |_: &str| false;
    let (kept, changed) = (prepare(wasm, FEATURES, None), prepare(wasm, FEATURES, Some(&none_taken)));
    if !valid {
        assert!(kept.is_err() && changed.is_err());
        return;
    }
    let (Ok(kept), Ok(changed)) = (&kept, &changed) else {
        assert!(kept.is_err() && changed.is_err());
        return;
    };
    assert!(!kept.has_own_memory && &*kept.bytes == wasm);
    assert_eq!(
        (kept.initial_memory, kept.largest_memory, kept.initial_table_elements, kept.initial_parts),
        (changed.initial_memory, changed.largest_memory, changed.initial_table_elements, changed.initial_parts)
    );
    if changed.has_own_memory {
        check(wasm, changed);
    }
}

fn check(original: &[u8], changed: &Prepared<'_>) {
    let validate = |bytes| Validator::new_with_features(FEATURES).validate_all(bytes);
    let before = validate(original).expect("it was valid");
    let after = validate(&changed.bytes).expect("a rewritten module is valid");
    let (before, after) = (before.as_ref(), after.as_ref());
    assert_eq!(after.memory_count(), before.memory_count() + 1);
    assert_eq!(after.global_count(), before.global_count() + if changed.reads_input { 3 } else { 0 });
    assert_eq!(after.function_count(), before.function_count());
    for index in 0..before.memory_count() {
        assert_eq!(after.memory_at(index), before.memory_at(index));
    }
    for index in 0..before.global_count() {
        assert_eq!(after.global_at(index), before.global_at(index));
    }
    // Offsets of code lead back to where it stood.
    let (old, new) = (bodies(original), bodies(&changed.bytes));
    assert_eq!(old.len(), new.len());
    for (old, new) in old.iter().zip(&new) {
        assert_eq!(changed.places.original_offset(new.start), old.start);
        for offset in new.clone() {
            assert!(old.contains(&changed.places.original_offset(offset)), "{offset}: {new:?}, {old:?}");
        }
    }
}

/// Where the functions' bodies are.
fn bodies(wasm: &[u8]) -> Vec<Range<usize>> {
    let body = |payload| match payload {
        Payload::CodeSectionEntry(body) => Some(body.range()),
        _ => None,
    };
    Parser::new(0).parse_all(wasm).filter_map(|payload| body(payload.expect("it is valid"))).collect()
}
