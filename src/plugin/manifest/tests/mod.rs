//! What is taken for a manifest, field by field, and what its modules become.

mod fields;
mod input;
mod load;
mod modules;

use super::{Manifest, parse};

/// The smallest module, and the same in base64.
const MODULE: &[u8] = b"\0asm\x01\0\0\0";
const MODULE_BASE64: &str = "AGFzbQEAAAA=";

/// A JSON manifest with one module on line 1, and `rest` on line 2.
fn json(rest: &str) -> String {
    format!("{{\"wasm\": [{{\"data\": \"{MODULE_BASE64}\"}}],\n{rest}}}")
}

/// A JSON manifest whose only module has `rest`, on line 2.
fn json_module(rest: &str) -> String {
    format!("{{\"wasm\": [\n{rest}]}}")
}

/// A TOML manifest with `rest` on line 1, and one module after it.
fn toml(rest: &str) -> String {
    format!("{rest}\n[[wasm]]\ndata = \"{MODULE_BASE64}\"\n")
}

/// What is read from the text, of which a copy lives for the rest of the test program.
#[track_caller]
fn good(text: &str) -> Manifest<'static> {
    match parse(text.to_owned().leak().as_bytes()) {
        Ok(manifest) => manifest,
        Err(e) => panic!("{e}\nin {text}"),
    }
}

/// The text is refused, with a message that has all `parts`.
#[track_caller]
fn bad(text: &str, parts: &[&str]) {
    bad_bytes(text.as_bytes(), parts);
}

#[track_caller]
fn bad_bytes(bytes: &[u8], parts: &[&str]) {
    let message = parse(bytes).expect_err("accepted").to_string();
    assert!(message.len() < 1000 && !message.contains('\0'), "{message}");
    for part in parts {
        assert!(message.contains(part), "no {part:?} in {message:?}");
    }
}
