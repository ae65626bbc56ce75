//! The C functions, looked up in the shared object.

use std::ffi::{CStr, CString, c_char, c_void};
use std::mem;
use std::path::PathBuf;
use std::sync::OnceLock;

/// A handle of any kind, as the library gives it out.
pub type Handle = *mut c_void;

/// `ExtismVal`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct Val {
    /// `ExtismValType`.
    pub kind: u32,
    /// The union: the bits of the value in the low bytes.
    pub bits: u64,
}

const _: () = assert!(size_of::<Val>() == 16 && mem::offset_of!(Val, bits) == 8);

/// `ExtismFunctionType`.
pub type Callback = unsafe extern "C" fn(Handle, *const Val, u64, *mut Val, u64, *mut c_void);
/// The finaliser of a host function's user data.
pub type Finaliser = unsafe extern "C" fn(*mut c_void);
/// `ExtismLogDrainFunctionType`.
pub type Drain = unsafe extern "C" fn(*const c_char, u64);

macro_rules! functions {
    ($($name:ident: fn($($arg:ty),*) $(-> $result:ty)?;)*) => {
        /// The functions of `extism.h`, without the prefix `extism_`; it has their documentation.
        #[expect(missing_docs, reason = "extism.h documents them")]
        pub struct Api {
            $(pub $name: unsafe extern "C" fn($($arg),*) $(-> $result)?,)*
        }

        impl Api {
            /// # Safety
            ///
            /// `library` comes from `dlopen`, of a library whose functions have these types.
            unsafe fn of(library: *mut c_void) -> Self {
                Self {
                    // SAFETY: the types are those of `extism.h`; `symbol` returns no NULL.
                    $($name: unsafe { mem::transmute::<*mut c_void, unsafe extern "C" fn($($arg),*) $(-> $result)?>(
                        symbol(library, concat!("extism_", stringify!($name)))
                    ) },)*
                }
            }

            /// The functions of the library that a fuzz target is linked with.
            #[cfg(fuzzing)]
            fn linked() -> Self {
                mod linked {
                    use super::*;
                    unsafe extern "C" {
                        $(#[link_name = concat!("extism_", stringify!($name))]
                        pub fn $name($(_: $arg),*) $(-> $result)?;)*
                    }
                }
                Self { $($name: linked::$name,)* }
            }
        }
    };
}

functions! {
    version: fn() -> *const c_char;
    last_error: fn() -> *const c_char;
    compiled_plugin_new: fn(*const u8, u64, *const Handle, u64, bool, *mut *mut c_char) -> Handle;
    compiled_plugin_new_with_fuel_limit:
        fn(*const u8, u64, *const Handle, u64, bool, u64, *mut *mut c_char) -> Handle;
    compiled_plugin_free: fn(Handle);
    plugin_new: fn(*const u8, u64, *const Handle, u64, bool, *mut *mut c_char) -> Handle;
    plugin_new_with_fuel_limit: fn(*const u8, u64, *const Handle, u64, bool, u64, *mut *mut c_char) -> Handle;
    plugin_new_from_compiled: fn(Handle, *mut *mut c_char) -> Handle;
    plugin_new_error_free: fn(*mut c_char);
    plugin_free: fn(Handle);
    plugin_id: fn(Handle) -> *const u8;
    plugin_config: fn(Handle, *const u8, u64) -> bool;
    plugin_function_exists: fn(Handle, *const c_char) -> bool;
    plugin_call_with_host_context: fn(Handle, *const c_char, *const u8, u64, *mut c_void) -> i32;
    plugin_call: fn(Handle, *const c_char, *const u8, u64) -> i32;
    plugin_output_length: fn(Handle) -> u64;
    plugin_output_data: fn(Handle) -> *const u8;
    plugin_error: fn(Handle) -> *const c_char;
    plugin_reset: fn(Handle) -> bool;
    plugin_allow_http_response_headers: fn(Handle);
    plugin_cancel_handle: fn(Handle) -> Handle;
    plugin_cancel: fn(Handle) -> bool;
    function_new: fn(
        *const c_char, *const u32, u64, *const u32, u64, Callback, *mut c_void, Option<Finaliser>
    ) -> Handle;
    function_set_namespace: fn(Handle, *const c_char);
    function_free: fn(Handle);
    current_plugin_memory: fn(Handle) -> *mut u8;
    current_plugin_memory_alloc: fn(Handle, u64) -> u64;
    current_plugin_memory_length: fn(Handle, u64) -> u64;
    current_plugin_memory_free: fn(Handle, u64);
    current_plugin_host_context: fn(Handle) -> *mut c_void;
    log_file: fn(*const c_char, *const c_char) -> bool;
    log_custom: fn(*const c_char) -> bool;
    log_drain: fn(Drain);
}

/// The library, loaded once in this process.
pub fn api() -> &'static Api {
    static API: OnceLock<Api> = OnceLock::new();
    #[cfg(fuzzing)]
    return API.get_or_init(Api::linked);
    #[cfg(not(fuzzing))]
    API.get_or_init(|| {
        let path = path();
        let name = CString::new(path.as_os_str().as_encoded_bytes()).expect("a path without NUL");
        // SAFETY: a NUL-terminated path; what the library runs when it is loaded is its own affair.
        let library = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        assert!(!library.is_null(), "{}: {}; build it with `make`, or set EXTISM_LIB", path.display(), dl_error());
        // SAFETY: just opened; its functions have the types of its header.
        unsafe { Api::of(library) }
    })
}

fn path() -> PathBuf {
    match std::env::var_os("EXTISM_LIB") {
        Some(path) => path.into(),
        None => PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../target/release/libextism.so"),
    }
}

/// # Safety
///
/// `library` comes from `dlopen`.
unsafe fn symbol(library: *mut c_void, name: &str) -> *mut c_void {
    let terminated = CString::new(name).expect("a name without NUL");
    // SAFETY: an open library, and a NUL-terminated name.
    let address = unsafe { libc::dlsym(library, terminated.as_ptr()) };
    assert!(!address.is_null(), "the library has no {name}");
    address
}

fn dl_error() -> String {
    // SAFETY: a text that stays until this thread's next call of the dl functions, or NULL.
    unsafe { text(libc::dlerror()) }.unwrap_or_default()
}

/// A C string of the library as a value; `None` for NULL. All texts of the library are UTF-8.
///
/// # Safety
///
/// NULL, or NUL-terminated and readable now.
pub(crate) unsafe fn text(text: *const c_char) -> Option<String> {
    // SAFETY: the caller's promise.
    let text = (!text.is_null()).then(|| unsafe { CStr::from_ptr(text) })?;
    Some(text.to_str().expect("a text in UTF-8").to_owned())
}
