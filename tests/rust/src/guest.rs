//! Plug-ins as WebAssembly text.

use std::collections::BTreeSet;
use std::fmt::Write;

const ENV: &str = "extism:host/env";
const USER: &str = "extism:host/user";
const WASI: &str = "wasi_snapshot_preview1";

/// What a body may name without importing it: where it comes from, its name, its type.
const KNOWN: &[(&str, &str, &str)] = &[
    (ENV, "alloc", "(param i64) (result i64)"),
    (ENV, "free", "(param i64)"),
    (ENV, "length", "(param i64) (result i64)"),
    (ENV, "length_unsafe", "(param i64) (result i64)"),
    (ENV, "load_u8", "(param i64) (result i32)"),
    (ENV, "load_u64", "(param i64) (result i64)"),
    (ENV, "store_u8", "(param i64 i32)"),
    (ENV, "store_u64", "(param i64 i64)"),
    (ENV, "input_offset", "(result i64)"),
    (ENV, "input_length", "(result i64)"),
    (ENV, "input_load_u8", "(param i64) (result i32)"),
    (ENV, "input_load_u64", "(param i64) (result i64)"),
    (ENV, "input_set", "(param i64 i64)"),
    (ENV, "output_set", "(param i64 i64)"),
    (ENV, "output_offset", "(result i64)"),
    (ENV, "output_length", "(result i64)"),
    (ENV, "error_set", "(param i64)"),
    (ENV, "error_get", "(result i64)"),
    (ENV, "reset", ""),
    (ENV, "memory_bytes", "(result i64)"),
    (ENV, "config_get", "(param i64) (result i64)"),
    (ENV, "var_get", "(param i64) (result i64)"),
    (ENV, "var_set", "(param i64 i64)"),
    (ENV, "http_request", "(param i64 i64) (result i64)"),
    (ENV, "http_status_code", "(result i32)"),
    (ENV, "http_headers", "(result i64)"),
    (ENV, "log_trace", "(param i64)"),
    (ENV, "log_debug", "(param i64)"),
    (ENV, "log_info", "(param i64)"),
    (ENV, "log_warn", "(param i64)"),
    (ENV, "log_error", "(param i64)"),
    (ENV, "get_log_level", "(result i32)"),
    (USER, "note", "(param i64)"),
    (WASI, "proc_exit", "(param i32)"),
    (WASI, "poll_oneoff", "(param i32 i32 i32 i32) (result i32)"),
    (WASI, "fd_write", "(param i32 i32 i32 i32) (result i32)"),
    (WASI, "fd_read", "(param i32 i32 i32 i32) (result i32)"),
    (WASI, "path_open", "(param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)"),
    (WASI, "path_unlink_file", "(param i32 i32 i32) (result i32)"),
    (WASI, "path_create_directory", "(param i32 i32 i32) (result i32)"),
    (WASI, "environ_sizes_get", "(param i32 i32) (result i32)"),
    (WASI, "args_sizes_get", "(param i32 i32) (result i32)"),
];

/// Functions that are defined where a body names them: their name and definition.
const HELPERS: &[(&str, &str)] = &[
    (
        "block",
        "(func $block (param $at i32) (param $length i32) (result i64) (local $handle i64) (local $i i32)
           (local.set $handle (call $alloc (i64.extend_i32_u (local.get $length))))
           (block $done (loop $next
             (br_if $done (i32.ge_u (local.get $i) (local.get $length)))
             (call $store_u8 (i64.add (local.get $handle) (i64.extend_i32_u (local.get $i)))
               (i32.load8_u (i32.add (local.get $at) (local.get $i))))
             (local.set $i (i32.add (local.get $i) (i32.const 1)))
             (br $next)))
           (local.get $handle))",
    ),
    (
        "output",
        "(func $output (param $handle i64)
           (call $output_set (local.get $handle) (call $length (local.get $handle))))",
    ),
    ("note_i32", "(func $note_i32 (param $n i32) (call $note (i64.extend_i32_u (local.get $n))))"),
];

/// Where the bytes of texts go in the guest's memory; below it is free for tests.
const TEXTS: usize = 8192;

/// A module in WebAssembly text around a body.
///
/// A body calls the functions of `extism:host/env`, the ones of WASI above and the host function `$note` by their
/// names, and their imports are written for it; so are a memory, if it has none, and these:
///
/// - `(text 'bytes')`: an `i64`, the handle of a new block with these bytes;
/// - `(call $output (handle))`: the block becomes the output;
/// - `(call $note_i32 (n))`: `$note` for an `i32`.
///
/// Imports of its own come first in a body.
pub fn guest(body: &str) -> String {
    let (mut rest, data) = expand_texts(body);
    let mut names = names(&rest);
    for (name, definition) in HELPERS.iter().rev() {
        if names.contains(*name) && !defines(&rest, name) {
            names.extend(self::names(definition));
            rest.push_str(definition);
        }
    }
    let mut module = "(module ".to_owned();
    for (namespace, name, ty) in KNOWN {
        if names.contains(*name) && !defines(&rest, name) {
            writeln!(module, "(import \"{namespace}\" \"{name}\" (func ${name} {ty}))").expect("a string");
        }
    }
    module.push_str(&rest);
    if !rest.contains("(memory ") {
        let pages = (TEXTS + data.len()).div_ceil(64 * 1024);
        write!(module, "(memory (export \"memory\") {pages})").expect("a string");
    }
    if !data.is_empty() {
        let bytes: String = data.iter().map(|byte| format!("\\{byte:02x}")).collect();
        write!(module, "(data (i32.const {TEXTS}) \"{bytes}\")").expect("a string");
    }
    module.push(')');
    module
}

/// Makes calls of `(text '...')`; gives the bytes of all of them, one behind the other.
fn expand_texts(body: &str) -> (String, Vec<u8>) {
    let mut expanded = String::new();
    let mut data = Vec::new();
    let mut rest = body;
    while let Some((before, after)) = rest.split_once("(text '") {
        let (text, behind) = after.split_once("')").expect("a text that ends");
        let call = format!("(call $block (i32.const {}) (i32.const {}))", TEXTS + data.len(), text.len());
        expanded.push_str(before);
        expanded.push_str(&call);
        data.extend_from_slice(text.as_bytes());
        rest = behind;
    }
    expanded.push_str(rest);
    (expanded, data)
}

/// All names that follow a `$`.
fn names(wat: &str) -> BTreeSet<String> {
    let name = |text: &str| text.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    wat.split('$').skip(1).map(name).collect()
}

/// Whether the text has a function of this name itself.
fn defines(wat: &str, name: &str) -> bool {
    wat.split(&format!("(func ${name}"))
        .skip(1)
        .any(|rest| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_'))
}
