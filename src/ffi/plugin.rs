//! # Plug-ins

use std::borrow::Cow;
use std::ffi::{CStr, c_char, c_void};

use super::args;
use super::compiled::{create, reporting};
use super::guard::{boundary, last_error, set_last_error};
use super::handles::{self, operate};
use super::types::{
    Boolean, BooleanResult, ExtismCancelHandle, ExtismCompiledPlugin, ExtismFunction, ExtismPlugin, ExtismSize,
};
use crate::plugin::Ended;
use crate::registry::{Kind, with_kind};

/// Makes a plug-in.
///
/// Compiles it and makes one plug-in of that; the parameters, and what can fail, are those of
/// `extism_compiled_plugin_new`. Runs no code of the plug-in: start functions and initialisers run
/// in the first call.
///
/// Returns a plug-in, to be freed with `extism_plugin_free`; NULL on failure. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_new(
    wasm: *const u8,
    wasm_size: ExtismSize,
    functions: *mut *const ExtismFunction,
    n_functions: ExtismSize,
    with_wasi: Boolean,
    errmsg: *mut *mut c_char,
) -> *mut ExtismPlugin {
    // SAFETY: our caller's promises are those that `create` asks for.
    unsafe { create(wasm, wasm_size, functions, n_functions, with_wasi, None, errmsg, |c| handles::add_plugin(&c)) }
}

/// Makes a plug-in whose calls have a fuel limit.
///
/// As `extism_plugin_new`; each call may spend `fuel_limit` units (about one for each instruction),
/// and the start-up as many. A call that runs out fails with the error `plugin ran out of fuel`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_new_with_fuel_limit(
    wasm: *const u8,
    wasm_size: ExtismSize,
    functions: *mut *const ExtismFunction,
    n_functions: ExtismSize,
    with_wasi: Boolean,
    fuel_limit: u64,
    errmsg: *mut *mut c_char,
) -> *mut ExtismPlugin {
    let fuel = Some(fuel_limit);
    // SAFETY: our caller's promises are those that `create` asks for.
    unsafe { create(wasm, wasm_size, functions, n_functions, with_wasi, fuel, errmsg, |c| handles::add_plugin(&c)) }
}

/// Makes a plug-in of a compiled plug-in, which stays the caller's.
///
/// - `errmsg`: as for `extism_compiled_plugin_new`.
///
/// Returns a plug-in, to be freed with `extism_plugin_free`; NULL on failure. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_new_from_compiled(
    compiled: *const ExtismCompiledPlugin,
    errmsg: *mut *mut c_char,
) -> *mut ExtismPlugin {
    // SAFETY: our caller's promise: `errmsg` is NULL or can be written.
    unsafe {
        reporting(errmsg, || {
            let compiled = handles::compiled(compiled)?;
            handles::add_plugin(&compiled).map(handles::pointer)
        })
    }
}

/// Frees a message that a function gave through `errmsg`.
///
/// - `err`: NULL is fine.
///
/// Fails if it is no such message, or was freed already; `extism_last_error` says so. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_new_error_free(err: *mut c_char) {
    boundary(|| args::take_back(err));
}

/// Frees a plug-in.
///
/// - `plugin`: NULL is fine.
///
/// Returns at once, also while a call runs in it, in another thread or around the host function
/// that calls this: the call goes on, its `ExtismCurrentPlugin*`, cancel handle, output and id stay
/// valid until it has ended, and then all goes. Calls that wait for their turn fail. Fails if the
/// handle is none, with the reason in `extism_last_error`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_free(plugin: *mut ExtismPlugin) {
    boundary(|| {
        if !plugin.is_null() {
            handles::plugin(plugin)?.free();
        }
        Ok(())
    });
}

/// The id of a plug-in: a random UUID (version 4), as it stands in log lines.
///
/// Returns 16 bytes that belong to the plug-in and are valid until it is freed; NULL if the handle
/// is none. Any thread, also while a call runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_id(plugin: *mut ExtismPlugin) -> *const u8 {
    boundary(|| Ok(handles::plugin_in_use(plugin, Kind::Plugin)?.id().as_ptr()))
}

/// Changes the configuration of a plug-in, which it reads with `config_get`.
///
/// - `json`: `json_size` bytes of JSON: an object whose values are strings, merged into what there
///   is; a key whose value is `null` is removed.
///
/// Returns true on success; false if the JSON is no such object, and nothing changed then. The
/// reason is this thread's `extism_plugin_error`. Any thread; the guest of a running call sees the
/// change at its next `config_get`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_config(
    plugin: *mut ExtismPlugin,
    json: *const u8,
    json_size: ExtismSize,
) -> BooleanResult {
    operate(plugin, |plugin| {
        // SAFETY: the C contract: `json_size` readable bytes.
        plugin.configure(unsafe { args::bytes("`json`", json, json_size)? })?;
        Ok(1)
    })
}

/// Whether a plug-in exports a function of this name that `extism_plugin_call` can call: one
/// without parameters, and with no result or one `i32`.
///
/// - `func_name`: NUL-terminated UTF-8.
///
/// Any thread, also while a call runs.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_function_exists(
    plugin: *mut ExtismPlugin,
    func_name: *const c_char,
) -> BooleanResult {
    operate(plugin, |plugin| {
        // SAFETY: the C contract: a NUL-terminated string.
        let name = unsafe { args::text("`func_name`", func_name)? };
        Ok(u32::from(plugin.function_exists(name)))
    })
}

/// Calls a function of a plug-in.
///
/// - `func_name`: NUL-terminated UTF-8.
/// - `data`: the input, `data_len` bytes, copied into the plug-in's Extism memory. Any bytes, also
///   the output of this plug-in's last call.
///
/// Returns 0 on success, or what the function returns: plug-ins return another `i32` to say that
/// they failed. 134 if the call trapped, timed out or was cancelled; -1 if it failed with an error
/// of its own or of the library, ran out of fuel or memory, or could not run; the exit code if a
/// WASI program exited.
///
/// Afterwards `extism_plugin_error` has the error, if there is one, and `extism_plugin_output_data`
/// the output, also of a call that failed after it was set. The first call instantiates the plug-in
/// and runs what it brings for its start-up. An instance keeps its state from call to call, also
/// after a trap; `_start` runs in a fresh one each time.
///
/// Any thread: a call from another thread waits for its turn, within its own `timeout_ms`. A call
/// from inside a host function of the same plug-in is refused as busy, and so is one that would
/// wait for a plug-in that waits for this one.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_call(
    plugin: *mut ExtismPlugin,
    func_name: *const c_char,
    data: *const u8,
    data_len: ExtismSize,
) -> i32 {
    // SAFETY: our caller's promises are those that `call` asks for.
    unsafe { call(plugin, func_name, data, data_len, std::ptr::null_mut()) }
}

/// Calls a function of a plug-in, with a pointer for its host functions.
///
/// As `extism_plugin_call`.
///
/// - `host_context`: what `extism_current_plugin_host_context` returns during this call. Not looked
///   at by the library; may be NULL.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_call_with_host_context(
    plugin: *mut ExtismPlugin,
    func_name: *const c_char,
    data: *const u8,
    data_len: ExtismSize,
    host_context: *mut c_void,
) -> i32 {
    // SAFETY: our caller's promises are those that `call` asks for.
    unsafe { call(plugin, func_name, data, data_len, host_context) }
}

/// # Safety
///
/// `func_name` is NULL or NUL-terminated, and `data_len` bytes can be read at `data`.
unsafe fn call(
    plugin: *mut ExtismPlugin,
    func_name: *const c_char,
    data: *const u8,
    data_len: ExtismSize,
    host_context: *mut c_void,
) -> i32 {
    let mut error = None;
    let mut end = |ended: Ended| {
        error = ended.error.filter(|_| ended.code != 0);
        ended.code
    };
    let code = boundary(|| {
        // SAFETY: our caller's promises.
        if let Some(ended) = unsafe { call_again(plugin, func_name, data, data_len, host_context) } {
            return Ok(end(ended));
        }
        handles::operation(plugin, |plugin| {
            // SAFETY: our caller's promises.
            let (name, input) =
                unsafe { (args::text("`func_name`", func_name)?, args::bytes("`data`", data, data_len)?) };
            // A call begins with emptying the memory that the output of the last one lies in.
            let input = plugin.kept(input)?;
            Ok(end(match plugin.kept(name.as_bytes())? {
                Cow::Borrowed(_) => plugin.call(name, &input, host_context),
                Cow::Owned(copy) => plugin.call(&String::from_utf8_lossy(&copy), &input, host_context),
            }))
        })
    });
    if let Some(error) = error {
        set_last_error(&error);
    }
    code
}

/// The short way, for the function that was called last, of the plug-in that this thread used last. `None`: nothing has
/// happened, and the long way knows why.
///
/// # Safety
///
/// As for [`call`].
#[inline]
unsafe fn call_again(
    plugin: *mut ExtismPlugin,
    func_name: *const c_char,
    data: *const u8,
    data_len: ExtismSize,
    host_context: *mut c_void,
) -> Option<Ended> {
    let entered = handles::enter_again(plugin)?;
    // SAFETY: our caller's promise.
    let input = unsafe { args::bytes("`data`", data, data_len) }.ok()?;
    // SAFETY: our caller's promise.
    entered.call_again(|name| unsafe { args::is_text(func_name, name) }, input, host_context)
}

/// The length in bytes of the output of the last call; 0 while a call runs. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_output_length(plugin: *mut ExtismPlugin) -> ExtismSize {
    boundary(|| Ok(handles::plugin_in_use(plugin, Kind::Plugin)?.output_length()))
}

/// The output of the last call.
///
/// Returns `extism_plugin_output_length` bytes in the plug-in's memory, valid until its next call,
/// reset or free: copy them before that. Not NULL for a plug-in, also if there is no output. Any
/// thread; while a call runs there is no output.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_output_data(plugin: *mut ExtismPlugin) -> *const u8 {
    boundary(|| Ok(handles::plugin_in_use(plugin, Kind::Plugin)?.output_data()))
}

/// The error of a plug-in.
///
/// Returns what was wrong with the last finished call, or with this thread's last operation on the
/// plug-in if that was refused (a busy call, a reset during a call, a bad configuration); NULL if
/// nothing was. A static text if the handle is none; NULL for NULL. The text belongs to the plug-in
/// and is valid until this thread asks this plug-in again or ends, or the plug-in is freed. Any
/// thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_error(plugin: *mut ExtismPlugin) -> *const c_char {
    error_of(plugin)
}

/// The old name of `extism_plugin_error`.
#[deprecated(note = "call extism_plugin_error")]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_error(plugin: *mut ExtismPlugin) -> *const c_char {
    error_of(plugin)
}

fn error_of(plugin: *mut ExtismPlugin) -> *const c_char {
    const STALE: &CStr = c"this is not the handle of a plug-in, or the plug-in was freed";
    let text = boundary(|| match plugin.is_null() {
        true => Ok(std::ptr::null()),
        false => Ok(handles::plugin_in_use(plugin, Kind::Plugin)?.error()),
    });
    let refused = text.is_null() && !last_error().is_null();
    if refused { STALE.as_ptr() } else { text }
}

/// Frees all Extism memory of a plug-in, and ends the validity of its output.
///
/// Variables, configuration and the state of the instance stay. A program needs this only to give
/// memory back early: every call begins with it.
///
/// Returns true on success; false while a call runs. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_reset(plugin: *mut ExtismPlugin) -> BooleanResult {
    operate(plugin, |plugin| plugin.reset().map(|()| 1))
}

/// Lets a plug-in see the headers of HTTP responses, from its next call on. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_allow_http_response_headers(plugin: *mut ExtismPlugin) {
    operate(plugin, |plugin| {
        plugin.allow_http_response_headers();
        Ok(())
    });
}

/// What cancels the calls of a plug-in.
///
/// Returns a handle that lives as long as the plug-in, and is not freed by itself; NULL if the
/// handle `plugin` is none. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_cancel_handle(plugin: *const ExtismPlugin) -> *const ExtismCancelHandle {
    boundary(|| {
        handles::plugin_in_use(plugin, Kind::Plugin)?;
        let handle: *mut ExtismCancelHandle = handles::pointer(with_kind(handles::number(plugin), Kind::CancelHandle));
        Ok(handle.cast_const())
    })
}

/// Ends the call that runs in a plug-in: it returns 134, with the error `cancelled`.
///
/// The call ends at the next loop or function of the guest, or at once if it waits in WASI or for
/// the network; a host function is not interrupted. Calls that come later, and other plug-ins, are
/// not touched.
///
/// Returns true for a plug-in that lives, also if no call runs. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_plugin_cancel(handle: *const ExtismCancelHandle) -> BooleanResult {
    boundary(|| {
        handles::plugin_in_use(handle, Kind::CancelHandle)?.cancel();
        Ok(1)
    })
}
