//! # The library
//!
//! The library stays loaded once it was: dlclose does nothing. It starts threads only when it needs
//! them (for timeouts, to compile, for HTTP). Traps of plug-ins arrive as signals (SIGSEGV, SIGILL,
//! SIGFPE, SIGBUS); the library's handlers pass on what is not theirs, and handlers that a program
//! installs later must do so too. `EXTISM_SIGNALS=0` in the environment does without signals, and
//! is slower.

use std::ffi::c_char;

use super::guard;

/// The version of the library, such as "2.0.0".
///
/// Returns a static string. Cannot fail.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_version() -> *const c_char {
    const VERSION: &str = concat!(env!("CARGO_PKG_VERSION"), "\0");
    guard::boundary(|| Ok(VERSION.as_ptr().cast()))
}

/// What was wrong with this thread's last call into the library.
///
/// Returns a text, or NULL if that call succeeded. The text belongs to the library and is valid
/// until this thread's next call of another function. Not in libextism 1.41.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn extism_last_error() -> *const c_char {
    guard::last_error()
}
