//! # Host functions
//!
//! What the host offers to plug-ins. A host function receives numbers; bytes travel through the
//! plug-in's Extism memory, by the functions of the next section.

use std::ffi::{c_char, c_void};
use std::sync::Arc;

use super::types::{ExtismFunction, ExtismFunctionType, ExtismSize, ExtismVal, ValTypeTag};
use super::{args, fork, guard::boundary, handles};
use crate::error::{Error, Result};
use crate::wasm::{Number, NumberType, UserCode, UserFunction};

/// How many parameters or results a WebAssembly function can have.
const MAX_VALUES: u64 = 1000;

/// Makes a host function.
///
/// - `name`: the name that plug-ins import, NUL-terminated UTF-8. Copied.
/// - `inputs`, `outputs`: the types of its `n_inputs` parameters and `n_outputs` results: numbers
///   only. Copied. NULL where there are none.
/// - `func`: what is called. It may be called from several threads at once, for several plug-ins.
/// - `user_data`: handed to `func` with each call. May be NULL.
/// - `free_user_data`: called once with `user_data` when nothing uses the function any more, in a
///   thread that is inside a call of this library; not if `user_data` is NULL. May be NULL.
///
/// Returns a function, to be freed with `extism_function_free`; NULL if a parameter is wrong
/// (`extism_last_error` says which), and then `user_data` is still the caller's. Any thread.
///
/// A function can be handed to any number of plug-ins. Once one was made with it, it lives as long
/// as plug-ins and compiled plug-ins use it, whether or not the handle was freed; when the last of
/// them goes, `free_user_data` runs, and the handle is good for `extism_function_free` only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_function_new(
    name: *const c_char,
    inputs: *const ValTypeTag,
    n_inputs: ExtismSize,
    outputs: *const ValTypeTag,
    n_outputs: ExtismSize,
    func: ExtismFunctionType,
    user_data: *mut c_void,
    free_user_data: Option<unsafe extern "C-unwind" fn(user_data: *mut c_void)>,
) -> *mut ExtismFunction {
    boundary(|| {
        // SAFETY: the C contract: a NUL-terminated name, arrays of the given lengths.
        let (name, params, results) = unsafe {
            (
                args::text("`name`", name)?.to_owned(),
                types("`inputs`", inputs, n_inputs)?,
                types("`outputs`", outputs, n_outputs)?,
            )
        };
        let func = func.ok_or_else(|| Error::new("`func` is NULL"))?;
        let data = Data(user_data);
        let callback = move |current: u64, inputs: &mut [Number], outputs: &mut [Number]| {
            // SAFETY: the C contract of the callback. `Number` has the layout of `ExtismVal` (asserted in `types`),
            // and both arrays are ours alone until it returns. The data is there: whoever calls has the function.
            unsafe {
                func(
                    handles::pointer(current),
                    values(inputs),
                    inputs.len() as ExtismSize,
                    values(outputs),
                    outputs.len() as ExtismSize,
                    data.get(),
                );
            }
        };
        fork::prepare();
        let code = Arc::new(UserCode { params, results, callback: Box::new(callback) });
        let function = UserFunction { name, code, _data: Box::new(UserData { data, free: free_user_data }) };
        handles::add_function(function).map(handles::pointer)
    })
}

/// Sets the module name under which plug-ins import the function; without this,
/// `extism:host/user`. For plug-ins that are made from now on.
///
/// - `namespace_`: NUL-terminated UTF-8. Copied.
///
/// Fails if the handle is none, or the text is not UTF-8; `extism_last_error` says so. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_function_set_namespace(ptr: *mut ExtismFunction, namespace_: *const c_char) {
    boundary(|| {
        // SAFETY: the C contract: a NUL-terminated string.
        let namespace = unsafe { args::text("`namespace_`", namespace_)? };
        handles::function(ptr)?.set_namespace(namespace)
    });
}

/// Frees a function's handle: before or after the plug-ins that use it, which keep what they need.
///
/// - `f`: NULL is fine.
///
/// Runs `free_user_data` if no plug-in was made with the function. Fails if the handle is none,
/// with the reason in `extism_last_error`. Any thread.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_function_free(f: *mut ExtismFunction) {
    boundary(|| if f.is_null() { Ok(()) } else { handles::free_function(f) });
}

/// Reads an array of types.
///
/// # Safety
///
/// `types` is NULL, or `count` of them can be read.
unsafe fn types(what: &str, types: *const ValTypeTag, count: u64) -> Result<Vec<NumberType>> {
    if count > MAX_VALUES {
        return Err(Error::new(format!("{what} has {count} types; a WebAssembly function has at most {MAX_VALUES}")));
    }
    // SAFETY: the caller's promise, handed through.
    let tags = unsafe { args::array(what, types, count)? };
    let number = |(index, tag): (usize, &ValTypeTag)| match *tag {
        0 => Ok(NumberType::I32),
        1 => Ok(NumberType::I64),
        2 => Ok(NumberType::F32),
        3 => Ok(NumberType::F64),
        4..=6 => Err(Error::new(format!(
            "{what}[{index}] is a vector or a reference, which ExtismValUnion cannot carry; a host function takes and \
             returns i32, i64, f32 and f64"
        ))),
        other => Err(Error::new(format!("{what}[{index}] is {other}, which is no ExtismValType"))),
    };
    tags.iter().enumerate().map(number).collect()
}

fn values(numbers: &mut [Number]) -> *mut ExtismVal {
    if numbers.is_empty() { std::ptr::null_mut() } else { numbers.as_mut_ptr().cast() }
}

/// The user's data.
#[derive(Clone, Copy)]
struct Data(*mut c_void);

// SAFETY: the header says that a function may be called, and its data freed, in any thread.
unsafe impl Send for Data {}
// SAFETY: as above, also by several at once.
unsafe impl Sync for Data {}

impl Data {
    fn get(self) -> *mut c_void {
        self.0
    }
}

/// The user's data, and what frees it with the last user of the function.
struct UserData {
    data: Data,
    free: Option<unsafe extern "C-unwind" fn(*mut c_void)>,
}

impl Drop for UserData {
    fn drop(&mut self) {
        if let (Some(free), false) = (self.free, self.data.get().is_null()) {
            // SAFETY: the C contract of the finaliser; this is the one time that it runs.
            unsafe { free(self.data.get()) }
        }
    }
}
