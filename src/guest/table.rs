//! The one table of guest functions: names, types and what they do.

use super::{Fail, Guest, log, memory, vars, web};

/// The WebAssembly type of a parameter or result.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Type {
    I32,
    I64,
}

/// A function of `extism:host/env`.
///
/// Arguments arrive as 64 bits each (an `i32` in the low half, zero-extended; absent ones are 0); a result leaves
/// the same way.
pub(crate) struct Entry {
    pub name: &'static str,
    pub params: &'static [Type],
    pub result: Option<Type>,
    pub run: fn(&mut dyn Guest, [u64; 2]) -> Result<u64, Fail>,
}

const fn entry(
    name: &'static str,
    params: &'static [Type],
    result: Option<Type>,
    run: fn(&mut dyn Guest, [u64; 2]) -> Result<u64, Fail>,
) -> Entry {
    Entry { name, params, result, run }
}

const NONE: &[Type] = &[];
const ONE: &[Type] = &[Type::I64];
const TWO: &[Type] = &[Type::I64, Type::I64];
const BYTE: &[Type] = &[Type::I64, Type::I32];
const I32: Option<Type> = Some(Type::I32);
const I64: Option<Type> = Some(Type::I64);

/// Every function of `extism:host/env`.
pub(crate) static TABLE: &[Entry] = &[
    entry("alloc", ONE, I64, memory::alloc),
    entry("free", ONE, None, memory::free),
    entry("length", ONE, I64, memory::length),
    entry("length_unsafe", ONE, I64, memory::length),
    entry("load_u8", ONE, I32, memory::load_u8),
    entry("load_u64", ONE, I64, memory::load_u64),
    entry("store_u8", BYTE, None, memory::store_u8),
    entry("store_u64", TWO, None, memory::store_u64),
    entry("input_offset", NONE, I64, memory::input_offset),
    entry("input_length", NONE, I64, memory::input_length),
    entry("input_load_u8", ONE, I32, memory::input_load_u8),
    entry("input_load_u64", ONE, I64, memory::input_load_u64),
    entry("input_set", TWO, None, memory::input_set),
    entry("output_set", TWO, None, memory::output_set),
    entry("output_offset", NONE, I64, memory::output_offset),
    entry("output_length", NONE, I64, memory::output_length),
    entry("error_set", ONE, None, memory::error_set),
    entry("error_get", NONE, I64, memory::error_get),
    entry("reset", NONE, None, memory::reset),
    entry("memory_bytes", NONE, I64, memory::memory_bytes),
    entry("config_get", ONE, I64, vars::config_get),
    entry("var_get", ONE, I64, vars::var_get),
    entry("var_set", TWO, None, vars::var_set),
    entry("http_request", TWO, I64, web::http_request),
    entry("http_status_code", NONE, I32, web::http_status_code),
    entry("http_headers", NONE, I64, web::http_headers),
    entry("log_trace", ONE, None, log::trace),
    entry("log_debug", ONE, None, log::debug),
    entry("log_info", ONE, None, log::info),
    entry("log_warn", ONE, None, log::warn),
    entry("log_error", ONE, None, log::error),
    entry("get_log_level", NONE, I32, log::level),
];
