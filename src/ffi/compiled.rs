//! # Compiled plug-ins
//!
//! Compiling takes most of the time that creating a plug-in takes. A program that makes several
//! plug-ins of one module compiles it once, and makes them from that, in any thread.

use std::ffi::c_char;

use super::handles::{self, Functions};
use super::types::{Boolean, ExtismCompiledPlugin, ExtismFunction, ExtismSize};
use super::{args, fork, guard::boundary};
use crate::error::{Error, Result};
use crate::plugin::{Compiled, c_string};
use crate::wasm::stack;

/// Compiles a plug-in.
///
/// - `wasm`: `wasm_size` bytes: a WebAssembly module, WebAssembly text, or a manifest in JSON or
///   TOML. Read during the call only.
/// - `functions`: an array of `n_functions` functions that the plug-in may import; NULL for none.
///   A function may stand in any number of arrays; of two with the same name the later counts.
///   See `extism_function_new` for who owns them afterwards.
/// - `with_wasi`: whether the plug-in may import WASI preview 1.
/// - `errmsg`: if not NULL, receives a message on failure, to be freed with
///   `extism_plugin_new_error_free`. Not written on success.
///
/// Returns a compiled plug-in, to be freed with `extism_compiled_plugin_free`; NULL on failure:
/// the input is neither of the above, the manifest is wrong, a module cannot be had or compiled,
/// an import is missing or of another type, the initial memory is over the limit. A failed call
/// takes nothing: the functions can be used again. Runs no code of the plug-in. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_compiled_plugin_new(
    wasm: *const u8,
    wasm_size: ExtismSize,
    functions: *mut *const ExtismFunction,
    n_functions: ExtismSize,
    with_wasi: Boolean,
    errmsg: *mut *mut c_char,
) -> *mut ExtismCompiledPlugin {
    // SAFETY: our caller's promises are those that `create` asks for.
    unsafe { create(wasm, wasm_size, functions, n_functions, with_wasi, None, errmsg, handles::add_compiled) }
}

/// Compiles a plug-in whose calls have a fuel limit.
///
/// As `extism_compiled_plugin_new`; each call of a plug-in made of it may spend `fuel_limit` units
/// (about one for each instruction), and its start-up as many.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_compiled_plugin_new_with_fuel_limit(
    wasm: *const u8,
    wasm_size: ExtismSize,
    functions: *mut *const ExtismFunction,
    n_functions: ExtismSize,
    with_wasi: Boolean,
    fuel_limit: u64,
    errmsg: *mut *mut c_char,
) -> *mut ExtismCompiledPlugin {
    let fuel = Some(fuel_limit);
    // SAFETY: our caller's promises are those that `create` asks for.
    unsafe { create(wasm, wasm_size, functions, n_functions, with_wasi, fuel, errmsg, handles::add_compiled) }
}

/// Frees a compiled plug-in. Plug-ins that were made of it stay valid.
///
/// - `plugin`: NULL is fine.
///
/// Fails if the handle is none, with the reason in `extism_last_error`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_compiled_plugin_free(plugin: *mut ExtismCompiledPlugin) {
    boundary(|| if plugin.is_null() { Ok(()) } else { handles::free_compiled(plugin) });
}

/// The one way to compile: for compiled plug-ins and for plug-ins that are made at once.
///
/// # Safety
///
/// `wasm_size` bytes at `wasm` and `n_functions` pointers at `functions` can be read, and `errmsg` is NULL or can be
/// written.
#[expect(clippy::too_many_arguments, reason = "the C function's parameters, and what is made of them")]
pub(super) unsafe fn create<T>(
    wasm: *const u8,
    wasm_size: u64,
    functions: *mut *const ExtismFunction,
    n_functions: u64,
    with_wasi: Boolean,
    fuel: Option<u64>,
    errmsg: *mut *mut c_char,
    finish: impl FnOnce(Compiled) -> Result<u64>,
) -> *mut T {
    // SAFETY: our caller's promise about `errmsg`; about the others below.
    unsafe {
        reporting(errmsg, || {
            fork::prepare();
            let input = args::bytes("`wasm`", wasm, wasm_size)?;
            let functions = Functions::read(functions, n_functions)?;
            let offers = functions.offers()?;
            let compiled = stack::with_room(stack::COMPILE, || Compiled::new(input, &offers, with_wasi != 0, fuel))??;
            let raw = finish(compiled)?;
            functions.taken();
            Ok(handles::pointer(raw))
        })
    }
}

/// Runs a body whose failure is told through `errmsg` as well.
///
/// # Safety
///
/// `errmsg` is NULL or can be written.
pub(super) unsafe fn reporting<T>(errmsg: *mut *mut c_char, body: impl FnOnce() -> Result<*mut T>) -> *mut T {
    boundary(|| {
        super::guard::contain(body).map_err(Error::bounded).inspect_err(|error| {
            // SAFETY: our caller's promise.
            unsafe { args::give(errmsg, c_string(&error.to_string())) }
        })
    })
}
