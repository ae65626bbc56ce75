//! # Types and rules
//!
//! Handles. `ExtismPlugin*`, `ExtismCompiledPlugin*`, `ExtismFunction*`, `ExtismCancelHandle*` and
//! `ExtismCurrentPlugin*` are opaque handles, not addresses: pass them around, compare them, never
//! look behind them. A handle that was freed, was never given out or is of another kind is
//! recognised, and answered with an error.
//!
//! Ownership. What a program passes in stays its own and is copied where it is needed longer than the
//! call. What is returned belongs to the library, and its documentation names the calls that end its
//! life.
//!
//! Errors. A function that fails returns its fail value: `NULL`, 0, false, or -1 for a call. What
//! was wrong is told by `errmsg` where a function has it, by `extism_plugin_error` for what concerns
//! a plug-in, and in every case by `extism_last_error`, in the thread that called.
//!
//! NULL. A pointer must not be NULL unless its documentation says so; NULL where it is not allowed
//! is an error, not undefined. Where a length is 0 the pointer beside it is not looked at.
//!
//! Threads. Every function may be called from any thread at any time, and handles may be used in
//! any thread. A plug-in runs one call at a time: calls from other threads wait their turn, all
//! other functions answer at once.
//!
//! Callbacks (host functions, `free_user_data`, log drains) run on the thread and the stack of the
//! caller, and must return normally. A C++ exception that leaves one ends the process with a line
//! that says so. A longjmp out of one, and the end of its thread inside of one (`pthread_exit`,
//! cancellation), are undefined. No function may be called from a signal handler.
//!
//! Stack. Plug-ins need 768 KiB of it. Where less is left (small threads, fibers, plug-ins that call
//! each other many levels deep), they run on a thread of the library while the caller waits.

use std::ffi::{c_char, c_void};

use crate::wasm::{Number, NumberType};

/// A boolean parameter: zero is false, anything else is true.
///
/// Not a Rust `bool`, for which other values than 0 and 1 are undefined: JNA passes `true` as -1.
pub type Boolean = u8;

/// A boolean result, extended to 32 bits: JNA and .NET read that many.
pub type BooleanResult = u32;

/// An `ExtismValType` as it crosses the boundary: any number may arrive.
pub type ValTypeTag = u32;

/// What `extism_plugin_call` returns on success.
pub const EXTISM_SUCCESS: i32 = 0;

/// A number of bytes, or of elements of an array.
pub type ExtismSize = u64;

/// A block of Extism memory: its offset in bytes from `extism_current_plugin_memory`. 0 is "none".
pub type ExtismMemoryHandle = u64;

/// A plug-in: an instance of a WebAssembly program with its memory, variables and configuration.
pub struct ExtismPlugin {
    _opaque: [u8; 0],
}

/// A compiled plug-in, of which any number of plug-ins can be made, in any thread.
pub struct ExtismCompiledPlugin {
    _opaque: [u8; 0],
}

/// A function of the host that plug-ins can import.
pub struct ExtismFunction {
    _opaque: [u8; 0],
}

/// What cancels the calls of one plug-in. Lives as long as its plug-in; never freed by itself.
pub struct ExtismCancelHandle {
    _opaque: [u8; 0],
}

/// The plug-in that is calling a host function. Valid, in any thread, while that plug-in is inside
/// a host function; refused outside of one.
pub struct ExtismCurrentPlugin {
    _opaque: [u8; 0],
}

/// The type of a WebAssembly value. Handles of blocks are `ExtismValType_I64` (`EXTISM_PTR`).
#[repr(C)]
pub enum ExtismValType {
    /// 32-bit integer.
    I32 = 0,
    /// 64-bit integer.
    I64 = 1,
    /// 32-bit float.
    F32 = 2,
    /// 64-bit float.
    F64 = 3,
    /// 128-bit vector. No host function can take or return it: `ExtismValUnion` cannot carry it.
    V128 = 4,
    /// Reference to a function. No host function can take or return it.
    FuncRef = 5,
    /// Reference to a host object. No host function can take or return it.
    ExternRef = 6,
}

/// The bits of a value; which member is meant, the type beside it tells.
#[repr(C)]
#[derive(Clone, Copy)]
pub union ExtismValUnion {
    /// For `ExtismValType_I32`.
    pub i32: i32,
    /// For `ExtismValType_I64`, and for handles of blocks.
    pub i64: i64,
    /// For `ExtismValType_F32`.
    pub f32: f32,
    /// For `ExtismValType_F64`.
    pub f64: f64,
}

/// An argument or a result of a host function.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct ExtismVal {
    /// The type. What a callback writes here is not looked at: the declared type counts.
    pub t: ValTypeTag,
    /// The value.
    pub v: ExtismValUnion,
}

/// A host function.
///
/// - `plugin`: the plug-in that calls, valid until the function returns.
/// - `inputs`: the `n_inputs` arguments, of the declared types; NULL if there are none. They may be
///   overwritten.
/// - `outputs`: room for the `n_outputs` results, zero in the beginning; NULL if there are none.
/// - `data`: the `user_data` of `extism_function_new`.
///
/// Runs on the thread that made the call. May call any function of this header; a call of the same
/// plug-in is refused as busy.
pub type ExtismFunctionType = Option<
    unsafe extern "C-unwind" fn(
        plugin: *mut ExtismCurrentPlugin,
        inputs: *const ExtismVal,
        n_inputs: ExtismSize,
        outputs: *mut ExtismVal,
        n_outputs: ExtismSize,
        data: *mut c_void,
    ),
>;

/// Receives one line of the log: `size` bytes of UTF-8, ending in a newline, not in a NUL. `data`
/// is valid until the function returns.
pub type ExtismLogDrainFunctionType = Option<unsafe extern "C-unwind" fn(data: *const c_char, size: ExtismSize)>;

// An array of `Number` is passed to callbacks as an array of `ExtismVal`, and the union's members all begin where
// the bits do: in the low bytes.
const _: () = {
    assert!(size_of::<ExtismVal>() == 16 && align_of::<ExtismVal>() == 8);
    assert!(size_of::<Number>() == size_of::<ExtismVal>() && align_of::<Number>() == align_of::<ExtismVal>());
    assert!(std::mem::offset_of!(ExtismVal, t) == 0 && std::mem::offset_of!(Number, kind) == 0);
    assert!(std::mem::offset_of!(ExtismVal, v) == 8 && std::mem::offset_of!(Number, bits) == 8);
    assert!(cfg!(target_endian = "little"));
    assert!(ExtismValType::I32 as u32 == NumberType::I32 as u32 && ExtismValType::I64 as u32 == NumberType::I64 as u32);
    assert!(ExtismValType::F32 as u32 == NumberType::F32 as u32 && ExtismValType::F64 as u32 == NumberType::F64 as u32);
};
