use wasmparser::{FuncValidatorAllocations, Parser, Payload, TypeRef, ValidPayload, Validator};

use super::Cost;
use crate::wasm::rewrite::FEATURES;

/// What is said of this module: its cost in nanoseconds and bytes, or why it is refused.
fn cost(wat: &str) -> Result<Cost, String> {
    let wasm = wat::parse_str(wat).unwrap();
    let mut validator = Validator::new_with_features(FEATURES);
    let mut cost = Cost::new(wasm.len());
    let mut allocations = FuncValidatorAllocations::default();
    for payload in Parser::new(0).parse_all(&wasm) {
        let payload = payload.unwrap();
        if let Payload::ImportSection(imports) = &payload {
            let functions =
                imports.clone().into_imports().filter(|i| matches!(i.as_ref().unwrap().ty, TypeRef::Func(_)));
            functions.for_each(|_| cost.add_imported_function(true));
        }
        if let Payload::TypeSection(groups) = &payload {
            for group in groups.clone() {
                cost.add_types(&group.unwrap()).map_err(|error| error.to_string())?;
            }
        }
        if let ValidPayload::Func(function, body) = validator.payload(&payload).unwrap() {
            let mut function = function.into_validator(allocations);
            cost.add_function(&mut function, &body).unwrap().map_err(|error| error.to_string())?;
            allocations = function.into_allocations();
        }
    }
    Ok(cost)
}

/// A module of one function with these parameters and this body.
fn function(parameters: &str, body: &str) -> String {
    format!(
        "(module (global $g (mut i32) (i32.const 0)) (table 1 funcref) (type $none (func)) (tag $t) (func $f)
                 (func {parameters} {body}))"
    )
}

fn time(wat: &str) -> f64 {
    cost(wat).unwrap().time
}

/// The error, which names this as the reason.
fn refused(wat: &str, reason: &str) {
    let error = cost(wat).err().unwrap_or_else(|| panic!("{reason}: not refused"));
    assert!(error.contains("too complex to compile") && error.contains(reason), "{reason}: {error}");
}

#[test]
fn what_compilers_write_is_cheap() {
    let body = "(loop (local.set 0 (i32.add (local.get 0) (i32.load (local.get 0))))
                (if (local.get 0) (then (call $f)) (else (i32.store (local.get 0) (i32.const 1)))) (br_if 0 (local.get 0)))";
    let wat = function("(param i32)", &body.repeat(200)).replace("(module", "(module (memory 1)");
    let cost = cost(&wat).unwrap();
    assert!(cost.time < 200e6 && cost.large.iter().sum::<f64>() < 20e6, "{} ns, {:?} bytes", cost.time, cost.large);
    assert!(cost.suits_threads(|| 64));
    assert!(!super::Cost::new(100).suits_threads(|| 64));
}

#[test]
fn each_shape_that_is_dear_is_refused_with_its_reason() {
    let get = "(local.get 0)";
    let all = |begin: &str, count: usize, end: &str| begin.repeat(count) + &end.repeat(count);
    let shapes = [
        ("(param i32)", all("(loop ", 3_000, "(br_if 0 (local.get 0)))"), "loops in loops"),
        ("(param i32)", "(loop (br_if 0 (local.get 0)))".repeat(16_000), "blocks, squared"),
        (
            "(param i32)",
            "(global.set $g (if (result i32) (local.get 0) (then (i32.const 1)) (else (i32.const 2))))".repeat(20_000),
            "values that blocks return",
        ),
        (
            "(param i32)",
            format!("{}{}{}", get.repeat(2_000), "(if (local.get 0) (then))".repeat(40_000), "(drop)".repeat(2_000)),
            "values that live across them",
        ),
        ("(param i32)", "(global.set $g (i32.const 1))".repeat(500_000), "instructions"),
        (
            "(param i32)",
            "(table.copy (local.get 0) (local.get 0) (local.get 0))".repeat(30_000),
            "instructions expand to",
        ),
        (
            "",
            format!(
                "(block $h {}{})",
                "(try_table (catch_all $h) ".repeat(200),
                "(call $f)".repeat(2_000) + &")".repeat(200)
            ),
            "catch clauses",
        ),
    ];
    for (parameters, body, reason) in shapes {
        refused(&function(parameters, &body), reason);
    }
}

/// What costs the same wherever it stands counts the same, and what cannot be reached counts nothing.
#[test]
fn dead_code_costs_nothing() {
    let nest = "(loop ".repeat(3_000) + &"(br_if 0 (i32.const 1)))".repeat(3_000);
    let dead = time(&function("", &format!("unreachable {nest}")));
    assert!(dead < 1e6, "{dead} ns");
    refused(&function("", &nest), "loops in loops");
}

/// Values that live long cost more than values that are used at once, whether they are on the operand stack or in
/// locals.
#[test]
fn values_cost_while_they_live() {
    let locals = format!("(local {})", "i32 ".repeat(500));
    let set: String = (0..500).map(|local| format!("(local.set {local} (global.get $g))")).collect();
    let get: String = (0..500).map(|local| format!("(global.set $g (local.get {local}))")).collect();
    let both: String = (0..500)
        .map(|local| format!("(local.set {local} (global.get $g)) (global.set $g (local.get {local}))"))
        .collect();
    let branches = "(if (global.get $g) (then))".repeat(1_000);
    let across = time(&function("", &format!("{locals} {set} {branches} {get}")));
    let before = time(&function("", &format!("{locals} {both} {branches}")));
    assert!(across > 2.0 * before, "{across} {before}");
    let stack = "(global.get $g)".repeat(500) + &branches + &"(global.set $g)".repeat(500);
    let stack = time(&function("", &stack));
    assert!(stack > 2.0 * before, "{stack} {before}");
    // A loop may come back to all of it.
    let looped = time(&function("", &format!("{locals} (loop {both} {branches} (br_if 0 (global.get $g)))")));
    assert!(looped > 2.0 * before, "{looped} {before}");
}

/// Calls of imported functions may be replaced by more than a call.
#[test]
fn calls_of_imports_cost_more() {
    let calls = "(call $i)".repeat(1_000);
    let imported = time(&format!(r#"(module (import "env" "i" (func $i)) (func {calls}))"#));
    let own = time(&format!("(module (func $i) (func {calls}))"));
    assert!(imported > 2.0 * own, "{imported} {own}");
}

/// A larger module may take longer, and many functions that are each allowed may be too much at once.
#[test]
fn limits_are_for_the_size_and_for_what_is_compiled_at_once() {
    let body = "(global.set $g (i32.const 1))".repeat(150_000);
    let one = cost(&function("", &body)).unwrap();
    assert!(one.suits_threads(|| 64));
    let three = format!("(module (global $g (mut i32) (i32.const 0)) {})", format!("(func {body})").repeat(3));
    assert!(!cost(&three).unwrap().suits_threads(|| 64));
    assert!(cost(&three).unwrap().suits_threads(|| 1));
    let many = "(func)".repeat(280_000);
    let error = cost(&format!("(module {many})")).err().unwrap();
    assert!(error.contains("too large to compile") && error.contains("functions"), "{error}");
    let padding = format!("(data \"{}\")", "x".repeat(4 << 20));
    assert!(cost(&format!("(module {many} {padding})")).is_ok());
}
